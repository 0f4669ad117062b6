/* What a service manager wants and gives: see the header. */

#include "service.h"

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "acct/quota.h"
#include "base/cleanup.h"
#include "base/overflow.h"
#include "refuge.h"
#include "util/error.h"
#include "util/names.h"

#define LISTEN_FDS_FIRST 3
/* More would not come back: the names of what a manager stored are one string in the environment of the
 * next process, and such a string has at most 128 KiB. */
#define STORE_MAX 4096
/* How soon to try again what did not fit. */
#define URGENT_AGAIN (10 * NSEC_PER_MSEC)
/* Descriptors that a process can have at all. */
#define PASSED_MAX (1 << 30)

static int notify_fd = -1;
static int waker = -1;          /* of a keeper that rests */
static size_t most = 1;         /* names that the store takes in a packet */
static bool notifies_keeper;

static struct {
        Deadline deadline;
        Deadlines *deadlines;
        uint64_t every;         /* nanoseconds */
} alive;

/* What has to arrive, and did not fit yet. */
static struct {
        Deadline deadline;
        Deadlines *deadlines;
        const char *state;
} urgent;

/* -- what a keeper leaves ----------------------------------------------------------------- */

/* What a packet may have is said twice: a keeper that said it once took several descriptors in one, and let go of one
 * name. */
void service_leave(const ServiceKeeper *left) {
        char text[128];

        (void)snprintf(text, sizeof(text), "%d %d %d %zu %d %zu %zu", left->link, left->listen_fd, left->names_fd,
                       left->n, left->waker, left->most, left->most);
        (void)setenv(SERVICE_KEEPER, text, 1);
}

bool service_find(ServiceKeeper *ret) {
        const char *text = getenv(SERVICE_KEEPER);

        ret->waker = -1;
        ret->most = 1;
        return text && sscanf(text, "%d %d %d %zu %d %*u %zu", &ret->link, &ret->listen_fd, &ret->names_fd, &ret->n,
                              &ret->waker, &ret->most) >= 4;
}

/* -- telling -------------------------------------------------------------------------------- */

int service_connect(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const char *path = getenv("NOTIFY_SOCKET");
        CLEANUP(close_fdp) int fd = -1;
        ServiceKeeper keeper;
        size_t n;

        if (service_find(&keeper) && keeper.link >= 0) {
                if (fcntl(keeper.link, F_SETFD, FD_CLOEXEC) < 0 ||
                    (keeper.waker >= 0 && fcntl(keeper.waker, F_SETFD, FD_CLOEXEC) < 0))
                        return error_origin(-errno);
                notify_fd = keeper.link;
                waker = keeper.waker;
                most = keeper.most;
                notifies_keeper = true;
                return 0;
        }
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

bool service_has_keeper(void) {
        return notifies_keeper;
}

/* Return: false if there was no room for it. */
static bool tell(const char *state) {
        return notify_fd < 0 || send(notify_fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ||
               (errno != EAGAIN && errno != ENOBUFS);
}

void service_notify(const char *state) {
        (void)tell(state);
}

static void try_again(Deadline *deadline, void *userdata) {
        (void)userdata;
        if (!tell(urgent.state))
                deadline_arm(deadline, urgent.deadlines, time_now() + URGENT_AGAIN, try_again, NULL);
}

void service_notify_surely(Deadlines *deadlines, const char *state) {
        urgent.deadlines = deadlines;
        urgent.state = state;
        try_again(&urgent.deadline, NULL);
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
        deadline_disarm(&urgent.deadline);
        notify_fd = close_fd(notify_fd);
        waker = close_fd(waker);
        most = 1;
        notifies_keeper = false;
}

/* -- the store ------------------------------------------------------------------------------ */

/* Whether it says so itself: older managers do not, and what one has no room for it drops without a
 * word. */
size_t service_store_room(void) {
        uint64_t n;

        if (notify_fd < 0 || notifies_keeper || !environment_number("FDSTORE", &n) || n == 0)
                return SIZE_MAX;
        return n < STORE_MAX ? (size_t)n : STORE_MAX;
}

const char *service_store_owner(void) {
        return notifies_keeper ? "keeper" : service_store_room() < SIZE_MAX ? "service-manager" : "";
}

uint64_t service_restarts(const char **ret_last_end) {
        const char *last_end = getenv(SERVICE_LAST_END);
        uint64_t n = 0;

        *ret_last_end = notifies_keeper && last_end ? last_end : "";
        return notifies_keeper && environment_number(SERVICE_RESTARTS, &n) ? n : 0;
}

int service_store(FdStore **ret, Deadlines *deadlines, size_t n_kept) {
        int r;

        *ret = NULL;
        if (!notifies_keeper && service_store_room() == SIZE_MAX)
                return 0;
        r = fdstore_new(ret, notify_fd, deadlines, n_kept);
        if (r)
                return error_fold(r);
        fdstore_set_most(*ret, most);
        if (waker >= 0)
                fdstore_set_waker(*ret, waker);
        return 0;
}

/* -- what was passed in ----------------------------------------------------------------------- */

static bool is_our_kind(int fd) {
        int domain = 0, type = 0, listening = 0;
        socklen_t n = sizeof(int);

        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX &&
               getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET &&
               getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) == 0 && listening;
}

static int take_from_keeper(const ServiceKeeper *keeper, Kept **ret, size_t *ret_n, int *ret_listen_fd) {
        int r;

        if (!is_our_kind(keeper->listen_fd) || fcntl(keeper->listen_fd, F_SETFD, FD_CLOEXEC) < 0)
                return error_origin(-EINVAL);
        r = names_read(keeper->names_fd, keeper->n, ret, ret_n);
        if (r)
                return error_fold(r);
        (void)close(keeper->names_fd);
        *ret_listen_fd = keeper->listen_fd;
        return 0;
}

/* The next of the names in $LISTEN_FDNAMES, which stand between colons; "" when there is none. */
static void next_name(const char **names, char ret[static FDSTORE_NAME_MAX]) {
        size_t n = *names ? strcspn(*names, ":") : 0;

        memset(ret, 0, FDSTORE_NAME_MAX);
        /* One that is longer is not ours. */
        if (n < FDSTORE_NAME_MAX)
                memcpy(ret, *names ? *names : "", n);
        *names = *names && (*names)[n] ? *names + n + 1 : NULL;
}

static bool is_socket(int fd) {
        int type;

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){ sizeof(type) }) == 0;
}

/* A service manager passes sockets and what was stored in any order. */
static int take_from_manager(size_t n, Kept **ret, size_t *ret_n, int *ret_listen_fd) {
        const char *names = getenv("LISTEN_FDNAMES");
        CLEANUP(freep) Kept *kept = NULL;
        int listen_fd = -1;
        size_t n_kept = 0;

        kept = calloc(n, sizeof(*kept));
        if (!kept)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < n; ++i) {
                Kept *next = &kept[n_kept];

                next_name(&names, next->name);
                next->fd = LISTEN_FDS_FIRST + (int)i;
                if (fcntl(next->fd, F_SETFD, FD_CLOEXEC) < 0)
                        return error_origin(-EINVAL);
                if (is_our_kind(next->fd) && listen_fd < 0)
                        listen_fd = next->fd;
                else if (is_socket(next->fd) && !refuge_owns(next->name))
                        return error_origin(-EINVAL);
                else
                        ++n_kept;
        }
        *ret_listen_fd = listen_fd;
        *ret = kept;
        kept = NULL;
        *ret_n = n_kept;
        return 0;
}

/* How many descriptors a service manager passed to this process. */
static size_t count_passed(void) {
        uint64_t pid, n;

        if (!environment_number("LISTEN_PID", &pid) || pid != (uint64_t)getpid() || !environment_number("LISTEN_FDS", &n))
                return 0;
        return n < PASSED_MAX ? (size_t)n : PASSED_MAX;
}

void service_close_others(void) {
        ServiceKeeper keeper;

        if (!service_find(&keeper))
                (void)close_range(LISTEN_FDS_FIRST + (unsigned int)count_passed(), UINT_MAX, 0);
}

int service_take(Kept **ret, size_t *ret_n, int *ret_listen_fd) {
        ServiceKeeper keeper;

        *ret = NULL;
        *ret_n = 0;
        *ret_listen_fd = -1;
        if (service_find(&keeper))
                return take_from_keeper(&keeper, ret, ret_n, ret_listen_fd);
        return count_passed() ? take_from_manager(count_passed(), ret, ret_n, ret_listen_fd) : 0;
}
