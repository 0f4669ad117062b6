/* The descriptor that an event loop polls for a connection.
 *
 * The socket can be another one after each loss, and an event loop must not care: what it holds is an
 * epoll(7) instance with the socket in it, which polls as readable while there is something to do. A timer
 * beside the socket does the same when it is time for another attempt to connect, so that who polls without
 * a timeout does not wait for ever. Both are made when somebody asks for the descriptor: who only waits in
 * synchronous calls has neither.
 *
 * A forked child that has not closed its copy keeps a lost socket open, and epoll would go on telling of
 * it: so it is taken out before it is closed.
 */

#include "buildinfo.h"

#include "client/client.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

/* When the kernel has no memory for an entry, the timer stands in for the socket. */
#define INSTEAD_NS UINT64_C(10000000)

void ready_init(shmd *client) {
        client->ready_fd = -1;
        client->timer_fd = -1;
}

void ready_deinit(shmd *client) {
        client->timer_fd = close_fd(client->timer_fd);
        client->ready_fd = close_fd(client->ready_fd);
}

static void poll_socket(shmd *client) {
        uint32_t events = io_wants_room(client) ? EPOLLIN | EPOLLOUT : EPOLLIN;
        struct epoll_event event = { .events = events };

        if (client->fd < 0 || client->ready_events == events)
                return;
        if (epoll_ctl(client->ready_fd, client->ready_events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, client->fd, &event) == 0)
                client->ready_events = events;
}

static void set_timer(shmd *client) {
        uint64_t due_ns = link_due(client);
        struct itimerspec spec = { 0 };

        if (client->fd >= 0 && !client->ready_events)
                due_ns = client_now() + INSTEAD_NS;
        else if (due_ns == UINT64_MAX)
                due_ns = 0;
        else if (due_ns == 0)
                due_ns = 1;
        if (due_ns == client->timer_ns)
                return;
        spec.it_value.tv_sec = (time_t)(due_ns / CLIENT_NS_PER_S);
        spec.it_value.tv_nsec = (long)(due_ns % CLIENT_NS_PER_S);
        (void)timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
        client->timer_ns = due_ns;
}

void ready_update(shmd *client) {
        if (client->ready_fd < 0)
                return;
        poll_socket(client);
        set_timer(client);
}

void ready_leave(shmd *client) {
        if (client->ready_events)
                (void)epoll_ctl(client->ready_fd, EPOLL_CTL_DEL, client->fd, NULL);
        client->ready_events = 0;
}

static int ready_new(shmd *client) {
        CLEANUP(close_fdp) int ready_fd = -1, timer_fd = -1;
        struct epoll_event event = { .events = EPOLLIN };

        ready_fd = epoll_create1(EPOLL_CLOEXEC);
        if (ready_fd < 0)
                return -errno;
        timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (timer_fd < 0)
                return -errno;
        if (epoll_ctl(ready_fd, EPOLL_CTL_ADD, timer_fd, &event) < 0)
                return -errno;
        client->ready_fd = steal_fd(&ready_fd);
        client->timer_fd = steal_fd(&timer_fd);
        ready_update(client);
        return 0;
}

int shmd_fd(shmd *client) {
        KEEP_ERRNO;
        int r = client_check(client);

        if (r == 0 && client->ready_fd < 0)
                r = ready_new(client);
        return r ? r : client->ready_fd;
}
