/* The event loop: see the header for the model. */

#include "net/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/log.h"

struct Loop {
        struct event_base *base;
        struct event *timer;
        uint64_t timer_at;              /* DEADLINE_NEVER: not pending */
        Deadlines *deadlines;
        size_t n_sources;
        uint64_t turn;
        void (*after)(void *userdata);  /* NULL: nothing is */
        void *after_userdata;
        bool stopped;
        int result;
};

struct Source {
        Loop *loop;
        SourceFn fn;
        void *userdata;
        bool enabled;
        struct event event;
};

static void timer_fired(evutil_socket_t fd, short what, void *userdata) {
        Loop *loop = userdata;

        (void)fd;
        (void)what;
        loop->timer_at = DEADLINE_NEVER;
}

Loop *loop_free(Loop *loop) {
        if (!loop)
                return NULL;
        ASSERT(loop->n_sources == 0);
        if (loop->timer)
                event_free(loop->timer);
        if (loop->base)
                event_base_free(loop->base);
        free(loop);
        return NULL;
}

/* What libevent has to say goes where everything else goes, and never blocks. */
static void log_libevent(int severity, const char *message) {
        LogLine line;

        log_begin(&line, severity == EVENT_LOG_ERR ? LOG_ERROR : LOG_WARN, "libevent");
        log_text(&line, "message", message);
        log_end(&line);
}

int loop_new(Loop **ret, Deadlines *deadlines) {
        CLEANUP(loop_freep) Loop *loop = NULL;
        struct event_config *config;

        loop = malloc(sizeof(*loop));
        if (!loop)
                return error_origin(-ENOMEM);
        *loop = (Loop){ .deadlines = deadlines, .timer_at = DEADLINE_NEVER };

        event_set_log_callback(log_libevent);
        config = event_config_new();
        if (!config)
                return error_origin(-ENOMEM);
        /* No locks: there is one thread. No environment: EVENT_NOEPOLL and its like are not for
         * whoever starts a service to decide. */
        (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
        /* epoll or nothing: the system calls of the others are not on the sandbox's list. */
        (void)event_config_avoid_method(config, "poll");
        (void)event_config_avoid_method(config, "select");
        loop->base = event_base_new_with_config(config);
        event_config_free(config);
        if (!loop->base)
                return error_origin(-ENOMEM);
        loop->timer = evtimer_new(loop->base, timer_fired, loop);
        if (!loop->timer)
                return error_origin(-ENOMEM);

        *ret = loop;
        loop = NULL;
        return 0;
}

/* Makes the loop's one timer stand for the earliest deadline. Return: whether it is due already. */
static bool timer_update(Loop *loop) {
        uint64_t at = deadlines_next(loop->deadlines), now, wait;
        struct timeval tv;

        if (at == DEADLINE_NEVER) {
                if (loop->timer_at != DEADLINE_NEVER)
                        (void)evtimer_del(loop->timer);
                loop->timer_at = DEADLINE_NEVER;
                return false;
        }
        if (at == loop->timer_at)
                return false;
        now = time_now();
        if (at <= now)
                return true;

        wait = (at - now + NSEC_PER_USEC - 1) / NSEC_PER_USEC;
        tv.tv_sec = (time_t)(wait / 1000000);
        tv.tv_usec = (suseconds_t)(wait % 1000000);
        if (evtimer_add(loop->timer, &tv) == 0)
                loop->timer_at = at;
        return false;
}

/* Nothing is before the timer is, so that turns between need not ask what the time is. */
static bool may_be_due(const Loop *loop) {
        uint64_t at = deadlines_next(loop->deadlines);

        return at != DEADLINE_NEVER && at != loop->timer_at;
}

int loop_run(Loop *loop) {
        while (!loop->stopped) {
                bool due = timer_update(loop);

                ++loop->turn;
                if (event_base_loop(loop->base,
                                    EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY | (due ? EVLOOP_NONBLOCK : 0)) < 0)
                        return error_origin(-EIO);
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
        (void)event_base_loopbreak(loop->base);
}

static void source_ready(evutil_socket_t fd, short what, void *userdata) {
        Source *source = userdata;

        (void)fd;
        (void)what;
        source->fn(source->userdata);
}

int source_new(Source **ret, Loop *loop, int fd, SourceFn fn, void *userdata) {
        CLEANUP(source_freep) Source *source = NULL;
        int r;

        source = malloc(sizeof(*source));
        if (!source)
                return error_origin(-ENOMEM);
        *source = (Source){ .loop = loop, .fn = fn, .userdata = userdata };
        ++loop->n_sources;
        if (event_assign(&source->event, loop->base, fd, EV_READ | EV_PERSIST, source_ready, source) < 0)
                return error_origin(-EINVAL);
        r = source_enable(source, true);
        if (r)
                return error_fold(r);

        *ret = source;
        source = NULL;
        return 0;
}

Source *source_free(Source *source) {
        if (!source)
                return NULL;
        if (source->enabled)
                (void)event_del(&source->event);
        --source->loop->n_sources;
        free(source);
        return NULL;
}

int source_enable(Source *source, bool enable) {
        if (source->enabled == enable)
                return 0;
        if ((enable ? event_add(&source->event, NULL) : event_del(&source->event)) < 0)
                return error_origin(errno ? -errno : -ENOMEM);
        source->enabled = enable;
        return 0;
}
