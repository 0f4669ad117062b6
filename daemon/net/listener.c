/* The listening socket: see the header for the model. */

#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/probe.h"

/* Accepted in one turn, so that a storm of connections leaves the others their turns. */
#define ACCEPT_TURN 16
#define RETRY_NS NSEC_PER_SEC

struct Listener {
        Deadlines *deadlines;
        ListenerEvents events;
        int fd;
        Source *source;
        Deadline retry;
        bool paused;
        uint64_t n_pauses;
};

/* -- binding -------------------------------------------------------------------------- */

/* Whether somebody answers on the socket. Anything but a clear no is a yes: a socket in use must
 * not be taken away. */
static bool is_answered(const struct sockaddr_un *address) {
        CLEANUP(close_fdp) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return true;
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
                return true;
        return errno != ECONNREFUSED && errno != ENOENT;
}

static int bind_path(int fd, const struct sockaddr_un *address) {
        struct stat st;

        if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
                return 0;
        if (errno != EADDRINUSE)
                return error_origin(-errno);
        if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode) || is_answered(address))
                return error_origin(-EADDRINUSE);
        if (unlink(address->sun_path) < 0)
                return error_origin(-errno);
        return bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? error_origin(-errno) : 0;
}

int listener_bind(const char *path, unsigned int mode, int *ret) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        CLEANUP(close_fdp) int fd = -1;
        int r;

        if (strlen(path) >= sizeof(address.sun_path))
                return error_origin(-ENAMETOOLONG);
        memcpy(address.sun_path, path, strlen(path) + 1);

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return error_origin(-errno);
        r = bind_path(fd, &address);
        if (r)
                return r;
        if (chmod(path, mode) < 0 || listen(fd, SOMAXCONN) < 0)
                return error_origin(-errno);

        *ret = steal_fd(&fd);
        return 0;
}

/* -- accepting ------------------------------------------------------------------------ */

static void retry_expired(Deadline *deadline, void *userdata);

static void retry_later(Listener *listener) {
        deadline_arm(&listener->retry, listener->deadlines, time_now() + RETRY_NS, retry_expired, listener);
}

static void retry_expired(Deadline *deadline, void *userdata) {
        (void)deadline;
        listener_resume(userdata);
}

static void listener_pause(Listener *listener, int error) {
        if (source_enable(listener->source, false) < 0)
                return;
        retry_later(listener);
        if (!listener->paused) {
                ++listener->n_pauses;
                listener->events.note(listener->events.userdata, true, error);
        }
        listener->paused = true;
}

void listener_resume(Listener *listener) {
        if (!listener->paused)
                return;
        if (source_enable(listener->source, true) < 0)
                retry_later(listener);
        else
                deadline_disarm(&listener->retry);
}

static bool is_shortage(int error) {
        return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

static void listener_ready(void *userdata) {
        Listener *listener = userdata;

        for (unsigned int i = 0; i < ACCEPT_TURN; ++i) {
                int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (fd < 0) {
                        if (is_shortage(errno))
                                listener_pause(listener, errno);
                        return;         /* nobody there, or gone again: the next turn tells */
                }
                if (listener->paused) {
                        listener->paused = false;
                        listener->events.note(listener->events.userdata, false, 0);
                }
                listener->events.accepted(listener->events.userdata, fd);
        }
}

int listener_new_consume_fd(Listener **ret, Loop *loop, Deadlines *deadlines, int fd, const ListenerEvents *events) {
        CLEANUP(listener_freep) Listener *listener = NULL;
        int off = 0, r;

        listener = malloc(sizeof(*listener));
        if (!listener) {
                (void)close_fd(fd);
                return error_origin(-ENOMEM);
        }
        *listener = (Listener){ .deadlines = deadlines, .events = *events, .fd = fd,
                                .retry = DEADLINE_NULL };

        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                return error_origin(-errno);
        /* Accepted sockets inherit it. Without it the kernel drops descriptors on arrival, because
         * we receive without a control buffer. */
        if (probe_have(PROBE_PASSRIGHTS))
                (void)setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
        r = source_new(&listener->source, loop, fd, listener_ready, listener);
        if (r)
                return error_fold(r);

        *ret = listener;
        listener = NULL;
        return 0;
}

Listener *listener_free(Listener *listener) {
        if (!listener)
                return NULL;
        deadline_disarm(&listener->retry);
        listener->source = source_free(listener->source);
        listener->fd = close_fd(listener->fd);
        free(listener);
        return NULL;
}

uint64_t listener_n_pauses(const Listener *listener) {
        return listener->n_pauses;
}
