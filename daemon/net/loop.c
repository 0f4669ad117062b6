/* The event loop: see the header for the model. */

#include "net/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "util/error.h"

/* Sources of one turn. If more are ready, the others come first in the next. */
#define READY_MAX 4096

struct Source {
        Loop *loop;
        SourceFn fn;
        void *userdata;
        int fd;                         /* borrowed */
        bool enabled;
        Source *next;                   /* in Loop.freed */
};

struct Loop {
        int epoll_fd;                   /* owned */
        int timer_fd;                   /* owned */
        uint64_t timer_at;              /* DEADLINE_NEVER: not set */
        Deadlines *deadlines;
        size_t n_sources;
        uint64_t turn;
        void (*after)(void *userdata);  /* NULL: nothing is */
        void *after_userdata;
        bool stopped;
        int result;
        bool calling;                   /* those in `ready`, among which one that is freed now may be */
        Source *freed;                  /* meanwhile */
        struct epoll_event ready[];
};

Loop *loop_free(Loop *loop) {
        if (!loop)
                return NULL;
        ASSERT(loop->n_sources == 0);
        loop->timer_fd = close_fd(loop->timer_fd);
        loop->epoll_fd = close_fd(loop->epoll_fd);
        free(loop);
        return NULL;
}

int loop_new(Loop **ret, Deadlines *deadlines) {
        CLEANUP(loop_freep) Loop *loop = NULL;
        struct epoll_event event = { .events = EPOLLIN | EPOLLET };

        loop = malloc(sizeof(*loop) + READY_MAX * sizeof(loop->ready[0]));
        if (!loop)
                return error_origin(-ENOMEM);
        *loop = (Loop){ .deadlines = deadlines, .timer_at = DEADLINE_NEVER, .epoll_fd = -1, .timer_fd = -1 };

        loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (loop->epoll_fd < 0)
                return error_origin(-errno);
        loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (loop->timer_fd < 0)
                return error_origin(-errno);
        /* Edge-triggered: it says so once, and need not be read. */
        if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->timer_fd, &event) < 0)
                return error_origin(-errno);

        *ret = loop;
        loop = NULL;
        return 0;
}

/* -- deadlines -------------------------------------------------------------------------- */

static void timer_set(Loop *loop, uint64_t at) {
        struct itimerspec when = { .it_value = { .tv_sec = (time_t)(at / NSEC_PER_SEC),
                                                 .tv_nsec = (long)(at % NSEC_PER_SEC) } };

        ASSERT(timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
        loop->timer_at = at;
}

/* Nothing is due before the timer is, so that turns between need not ask what the time is. */
static bool may_be_due(const Loop *loop) {
        return deadlines_next(loop->deadlines) < loop->timer_at;
}

/* Sees to it that the timer is not later than the earliest deadline. It may be earlier, if that one was disarmed:
 * to wake up once for nothing costs less than to set it each time. Return: whether one is due already. */
static bool timer_update(Loop *loop) {
        uint64_t at = deadlines_next(loop->deadlines);

        if (at >= loop->timer_at)
                return false;
        if (at <= time_now())
                return true;
        timer_set(loop, at);
        return false;
}

/* -- turns ------------------------------------------------------------------------------ */

static void free_freed(Loop *loop) {
        while (loop->freed) {
                Source *source = loop->freed;

                loop->freed = source->next;
                free(source);
        }
}

/* Waits until something is ready, unless a deadline is due, and calls all that is. */
static int call_ready(Loop *loop, bool due) {
        int n = epoll_wait(loop->epoll_fd, loop->ready, READY_MAX, due ? 0 : -1);

        if (n < 0)
                return errno == EINTR ? 0 : error_origin(-errno);
        loop->calling = true;
        for (int i = 0; i < n && !loop->stopped; ++i) {
                Source *source = loop->ready[i].data.ptr;

                if (!source)
                        loop->timer_at = DEADLINE_NEVER;        /* the timer itself */
                else if (source->enabled)
                        source->fn(source->userdata);
        }
        loop->calling = false;
        free_freed(loop);
        return 0;
}

int loop_run(Loop *loop) {
        while (!loop->stopped) {
                bool due = timer_update(loop);
                int r;

                ++loop->turn;
                r = call_ready(loop, due);
                if (r)
                        return error_fold(r);
                if (!loop->stopped && may_be_due(loop))
                        deadlines_run(loop->deadlines, time_now());
                if (loop->after)
                        loop->after(loop->after_userdata);
        }
        loop->stopped = false;
        return loop->result;
}

void loop_after_turn(Loop *loop, void (*fn)(void *userdata), void *userdata) {
        loop->after = fn;
        loop->after_userdata = userdata;
}

uint64_t loop_turn(const Loop *loop) {
        return loop->turn;
}

void loop_stop(Loop *loop, int result) {
        loop->stopped = true;
        loop->result = result;
}

/* -- sources ---------------------------------------------------------------------------- */

int source_new(Source **ret, Loop *loop, int fd, SourceFn fn, void *userdata) {
        CLEANUP(source_freep) Source *source = malloc(sizeof(*source));
        int r;

        if (!source)
                return error_origin(-ENOMEM);
        *source = (Source){ .loop = loop, .fn = fn, .userdata = userdata, .fd = fd };
        ++loop->n_sources;
        r = source_enable(source, true);
        if (r)
                return error_fold(r);

        *ret = source;
        source = NULL;
        return 0;
}

Source *source_free(Source *source) {
        Loop *loop;

        if (!source)
                return NULL;
        loop = source->loop;
        (void)source_enable(source, false);
        source->enabled = false;
        --loop->n_sources;
        source->next = loop->freed;
        loop->freed = source;
        if (!loop->calling)
                free_freed(loop);
        return NULL;
}

int source_enable(Source *source, bool enable) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = source };

        if (source->enabled == enable)
                return 0;
        if (epoll_ctl(source->loop->epoll_fd, enable ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, source->fd, &event) < 0)
                return error_origin(-errno);
        source->enabled = enable;
        return 0;
}
