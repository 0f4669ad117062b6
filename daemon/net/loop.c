/* The event loop: see the header for the model. */

#include "net/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <sys/timerfd.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/log.h"

struct Loop {
        struct event_base *base;
        int timer_fd;                   /* owned */
        struct event *timer;            /* it is due */
        uint64_t timer_at;              /* DEADLINE_NEVER: it is not set */
        Deadlines *deadlines;
        size_t n_sources;
        uint64_t turn;
        uint64_t asked;                 /* loop_asked() */
        uint64_t awake_until;           /* 0: it sleeps when there is nothing to do */
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
        loop->timer_fd = close_fd(loop->timer_fd);
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

static struct event_base *base_new(void) {
        struct event_config *config = event_config_new();
        struct event_base *base;

        if (!config)
                return NULL;
        /* No locks: there is one thread. No environment: EVENT_NOEPOLL and its like are not for
         * whoever starts a service to decide. No clock: nothing here has a time of libevent's. */
        (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV |
                                            EVENT_BASE_FLAG_NO_CACHE_TIME);
        /* epoll or nothing: the system calls of the others are not on the sandbox's list. */
        (void)event_config_avoid_method(config, "poll");
        (void)event_config_avoid_method(config, "select");
        base = event_base_new_with_config(config);
        event_config_free(config);
        return base;
}

int loop_new(Loop **ret, Deadlines *deadlines) {
        CLEANUP(loop_freep) Loop *loop = NULL;

        loop = malloc(sizeof(*loop));
        if (!loop)
                return error_origin(-ENOMEM);
        *loop = (Loop){ .deadlines = deadlines, .timer_at = DEADLINE_NEVER, .timer_fd = -1 };

        event_set_log_callback(log_libevent);
        loop->base = base_new();
        if (!loop->base)
                return error_origin(-ENOMEM);
        loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (loop->timer_fd < 0)
                return error_origin(-errno);
        /* Edge-triggered: it says so once, and need not be read. */
        loop->timer = event_new(loop->base, loop->timer_fd, EV_READ | EV_PERSIST | EV_ET, timer_fired, loop);
        if (!loop->timer || event_add(loop->timer, NULL) < 0)
                return error_origin(-ENOMEM);

        *ret = loop;
        loop = NULL;
        return 0;
}

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

void loop_stay_awake(Loop *loop, uint64_t until) {
        if (until > loop->awake_until)
                loop->awake_until = until;
}

static bool is_awake(Loop *loop) {
        if (loop->awake_until && time_now() >= loop->awake_until)
                loop->awake_until = 0;
        return loop->awake_until;
}

int loop_run(Loop *loop) {
        while (!loop->stopped) {
                bool goes_on = timer_update(loop) || is_awake(loop);

                ++loop->turn;
                loop->asked = goes_on ? 0 : time_now();
                if (event_base_loop(loop->base,
                                    EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY | (goes_on ? EVLOOP_NONBLOCK : 0)) < 0)
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

uint64_t loop_asked(const Loop *loop) {
        return loop->asked;
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
