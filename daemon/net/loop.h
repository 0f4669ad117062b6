/* The event loop: readiness of descriptors, and deadlines. The only place that knows libevent.
 *
 * Descriptors are level-triggered: a handler that leaves something unread is called again in the
 * next turn, after everybody else had theirs. Deadlines come after the descriptors of a turn.
 *
 * libevent has no timers here. It would wait no longer than until the next of them, and for a wait that has
 * an end the kernel starts a timer and ends it, with every request. A timer that is a descriptor stands for
 * the earliest deadline, and is set only when there is an earlier one.
 */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "util/deadline.h"

typedef struct Loop Loop;
typedef struct Source Source;
typedef void (*SourceFn)(void *userdata);

/* deadlines: borrowed. Return: 0, -ENOMEM, or a negative errno of timerfd_create(2). */
int loop_new(Loop **ret, Deadlines *deadlines);
/* Every source must be gone. Return: NULL. */
Loop *loop_free(Loop *loop);

DEFINE_CLEANUP(Loop, loop_free);

/* Runs until loop_stop(), and may be run again. Return: what was given to it, or a negative errno of the loop itself. */
int loop_run(Loop *loop);
/* Nothing more is called, not even what is ready in this turn. */
void loop_stop(Loop *loop, int result);

/* Calls fn at the end of each turn, also of the last, when all else of it is done. */
void loop_after_turn(Loop *loop, void (*fn)(void *userdata), void *userdata);

/* Until that time of CLOCK_MONOTONIC it does not sleep: with nothing to do, it looks again at once. */
void loop_stay_awake(Loop *loop, uint64_t until);

/* Which turn it is, counted from 1: what happens between two questions to the kernel. */
uint64_t loop_turn(const Loop *loop);

/* When it asked the kernel for what there is in this turn; 0 if it would not have slept for it. */
uint64_t loop_asked(const Loop *loop);

/* Calls fn whenever fd (borrowed) can be read, or its other end is gone; enabled from the start.
 * Return: 0, -ENOMEM, or a negative errno of epoll_ctl(2). */
int source_new(Source **ret, Loop *loop, int fd, SourceFn fn, void *userdata);
/* Return: NULL. */
Source *source_free(Source *source);
/* A disabled source costs nothing, whatever happens at its descriptor. Return: 0, negative errno. */
int source_enable(Source *source, bool enable);

DEFINE_CLEANUP(Source, source_free);

#endif
