/* Deadlines: what has to happen at a time, in the order of the times.
 *
 * Whatever waits embeds a Deadline and arms it; the queue knows the earliest, and the event loop
 * keeps one timer for it. Times are nanoseconds of CLOCK_MONOTONIC: stepping the wall clock
 * moves nothing. A time in the past means "in the next turn of the loop", which is how work that
 * is too long for one turn goes on.
 */
#ifndef UTIL_DEADLINE_H
#define UTIL_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/tree.h"

#define DEADLINE_NEVER UINT64_MAX
#define NSEC_PER_USEC UINT64_C(1000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_SEC UINT64_C(1000000000)

typedef struct Deadline Deadline;
typedef struct Deadlines Deadlines;
typedef void (*DeadlineFn)(Deadline *deadline, void *userdata);

struct Deadline {
        RB_ENTRY(Deadline) entry;
        Deadlines *queue;               /* NULL while not armed */
        uint64_t at;
        uint64_t order;                 /* first armed, first served, among equals */
        DeadlineFn fn;
        void *userdata;
};

#define DEADLINE_NULL { .queue = NULL }

RB_HEAD(DeadlineTree, Deadline);

struct Deadlines {
        struct DeadlineTree tree;
        uint64_t order;
};

/* Return: CLOCK_MONOTONIC in nanoseconds. */
uint64_t time_now(void);
/* Return: what that said last, for who needs not know how long ago. */
uint64_t time_latest(void);
/* Return: CLOCK_REALTIME in nanoseconds, for people. */
uint64_t time_wall(void);

void deadlines_init(Deadlines *queue);
/* Everything must have been disarmed. */
void deadlines_deinit(Deadlines *queue);

/* Arms, or moves, a deadline. fn runs once, disarmed before it is called, and may arm it again. */
void deadline_arm(Deadline *deadline, Deadlines *queue, uint64_t at, DeadlineFn fn, void *userdata);
/* Disarms it; harmless when it is not armed. */
void deadline_disarm(Deadline *deadline);
static inline bool deadline_is_armed(const Deadline *deadline) {
        return deadline->queue;
}

/* The earliest time, DEADLINE_NEVER when nothing is armed. */
uint64_t deadlines_next(Deadlines *queue);
/* Runs what was due at `now` and armed before the call: a function that arms itself for the past
 * runs again in the next call, not in this one. */
void deadlines_run(Deadlines *queue, uint64_t now);
/* Runs the earliest alone, if it was due at `now`. Return: whether it was. */
bool deadlines_run_first(Deadlines *queue, uint64_t now);

#endif
