/* What a service manager wants and gives: see the header. */

#include "service.h"

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "acct/quota.h"
#include "base/cleanup.h"
#include "base/overflow.h"
#include "util/error.h"

#define LISTEN_FDS_FIRST 3

static int notify_fd = -1;

static struct {
        Deadline deadline;
        Deadlines *deadlines;
        uint64_t every;         /* nanoseconds */
} alive;

int service_connect(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const char *path = getenv("NOTIFY_SOCKET");
        CLEANUP(close_fdp) int fd = -1;
        size_t n;

        if (!path || !*path)
                return 0;
        n = strlen(path);
        if ((path[0] != '/' && path[0] != '@') || n >= sizeof(address.sun_path))
                return error_origin(-EINVAL);
        memcpy(address.sun_path, path, n);
        if (path[0] == '@')
                address.sun_path[0] = '\0';

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return error_origin(-errno);
        if (connect(fd, (const struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
                return error_origin(-errno);
        notify_fd = steal_fd(&fd);
        return 0;
}

void service_notify(const char *state) {
        if (notify_fd >= 0)
                (void)send(notify_fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static bool environment_number(const char *name, uint64_t *ret) {
        const char *text = getenv(name);

        return text && config_parse_count(text, ret);
}

uint64_t service_watchdog(void) {
        uint64_t pid, us, ns;

        if (!environment_number("WATCHDOG_USEC", &us) || us == QUOTA_UNLIMITED || !mul_u64(us, NSEC_PER_USEC, &ns))
                return 0;
        if (getenv("WATCHDOG_PID") && (!environment_number("WATCHDOG_PID", &pid) || pid != (uint64_t)getpid()))
                return 0;
        return ns;
}

static void say_alive(Deadline *deadline, void *userdata) {
        (void)userdata;
        service_notify("WATCHDOG=1");
        deadline_arm(deadline, alive.deadlines, time_now() + alive.every, say_alive, NULL);
}

void service_keep_alive(Deadlines *deadlines) {
        alive.every = service_watchdog() / 2;
        alive.deadlines = deadlines;
        if (notify_fd >= 0 && alive.every > 0)
                say_alive(&alive.deadline, NULL);
}

void service_disconnect(void) {
        deadline_disarm(&alive.deadline);
        notify_fd = close_fd(notify_fd);
}

static bool is_our_kind(int fd) {
        int domain = 0, type = 0, listening = 0;
        socklen_t n = sizeof(int);

        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX &&
               getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET &&
               getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) == 0 && listening;
}

int service_take_socket(int *ret) {
        uint64_t pid, n;

        *ret = -1;
        if (!environment_number("LISTEN_PID", &pid) || pid != (uint64_t)getpid() || !environment_number("LISTEN_FDS", &n))
                return 0;
        if (n == 0)
                return 0;
        if (n > 1 || !is_our_kind(LISTEN_FDS_FIRST))
                return error_origin(-EINVAL);
        if (fcntl(LISTEN_FDS_FIRST, F_SETFD, FD_CLOEXEC) < 0)
                return error_origin(-errno);
        *ret = LISTEN_FDS_FIRST;
        return 0;
}
