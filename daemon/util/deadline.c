/* Deadlines: see the header for the model. */

#include "util/deadline.h"

#include <stddef.h>
#include <time.h>

#include "base/assert.h"

static int deadline_compare(Deadline *a, Deadline *b) {
        if (a->at != b->at)
                return a->at < b->at ? -1 : 1;
        return a->order < b->order ? -1 : a->order > b->order;
}

TREE_GENERATE(DeadlineTree, Deadline, entry, deadline_compare)

static uint64_t read_clock(clockid_t id) {
        struct timespec ts;

        ASSERT(clock_gettime(id, &ts) == 0);
        return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t latest;

uint64_t time_now(void) {
        return latest = read_clock(CLOCK_MONOTONIC);
}

uint64_t time_latest(void) {
        return latest;
}

uint64_t time_wall(void) {
        return read_clock(CLOCK_REALTIME);
}

void deadlines_init(Deadlines *queue) {
        RB_INIT(&queue->tree);
        queue->order = 0;
}

void deadlines_deinit(Deadlines *queue) {
        ASSERT(RB_EMPTY(&queue->tree));
}

void deadline_arm(Deadline *deadline, Deadlines *queue, uint64_t at, DeadlineFn fn, void *userdata) {
        deadline_disarm(deadline);
        deadline->queue = queue;
        deadline->at = at;
        deadline->order = queue->order++;
        deadline->fn = fn;
        deadline->userdata = userdata;
        (void)RB_INSERT(DeadlineTree, &queue->tree, deadline);
}

void deadline_disarm(Deadline *deadline) {
        if (!deadline->queue)
                return;
        (void)RB_REMOVE(DeadlineTree, &deadline->queue->tree, deadline);
        deadline->queue = NULL;
}

uint64_t deadlines_next(Deadlines *queue) {
        Deadline *first = RB_MIN(DeadlineTree, &queue->tree);

        return first ? first->at : DEADLINE_NEVER;
}

/* The first that is due and not armed in this run. Ones armed in this run for the past sort by
 * their time among those still to come, so they are passed over, not waited for. */
static Deadline *next_due(Deadlines *queue, uint64_t now, uint64_t order) {
        Deadline *d;

        RB_FOREACH(d, DeadlineTree, &queue->tree) {
                if (d->at > now)
                        return NULL;
                if (d->order < order)
                        return d;
        }
        return NULL;
}

bool deadlines_run_first(Deadlines *queue, uint64_t now) {
        Deadline *first = RB_MIN(DeadlineTree, &queue->tree);

        if (!first || first->at > now)
                return false;
        deadline_disarm(first);
        first->fn(first, first->userdata);
        return true;
}

void deadlines_run(Deadlines *queue, uint64_t now) {
        uint64_t order = queue->order;
        Deadline *d;

        while ((d = next_due(queue, now, order))) {
                deadline_disarm(d);
                d->fn(d, d->userdata);
        }
}
