/* daemon/refuge: what the next keeper finds. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "refuge.h"
#include "service.h"

/* -- a service manager --------------------------------------------------------------------------- */

static int manager = -1;
static Kept stored[64];
static size_t n_stored;

static void manager_start(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char directory[] = "/tmp/shmd-unit-XXXXXX";

        REQUIRE(mkdtemp(directory));
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", directory);
        manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        REQUIRE(manager >= 0 && bind(manager, (struct sockaddr *)&address, sizeof(address)) == 0);
        REQUIRE(setenv("NOTIFY_SOCKET", address.sun_path, 1) == 0 && setenv("FDSTORE", "32", 1) == 0);
        REQUIRE(service_connect() == 0);
        REQUIRE(unlink(address.sun_path) == 0 && rmdir(directory) == 0);
}

static void manager_stop(void) {
        service_disconnect();
        manager = close_fd(manager);
        while (n_stored > 0)
                close_fd(stored[--n_stored].fd);
}

static const char *value_of(const char *text, const char *variable) {
        static char value[FDSTORE_NAME_MAX];
        const char *at = strstr(text, variable);

        REQUIRE(at);
        (void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(at + strlen(variable), "\n"), at + strlen(variable));
        return value;
}

/* Does what it was told. */
static void manager_work(void) {
        char text[512];
        struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) - 1 };
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;

        for (;;) {
                struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                                          .msg_controllen = sizeof(control) };
                ssize_t n = recvmsg(manager, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                Kept *next = &stored[n_stored];

                if (n < 0)
                        return;
                text[n] = '\0';
                if (strstr(text, "FDSTORE=1")) {
                        REQUIRE(n_stored < 64 && CMSG_FIRSTHDR(&message) && strstr(text, "FDPOLL=0"));
                        memcpy(&next->fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
                        (void)snprintf(next->name, sizeof(next->name), "%s", value_of(text, "FDNAME="));
                        ++n_stored;
                } else if (strstr(text, "FDSTOREREMOVE=1")) {
                        for (size_t i = 0; i < n_stored; ++i)
                                if (!strcmp(stored[i].name, value_of(text, "FDNAME="))) {
                                        close_fd(stored[i].fd);
                                        stored[i--] = stored[--n_stored];
                                }
                }
        }
}

/* What it passes to the next process. */
static Kept *manager_pass(size_t *ret_n) {
        Kept *passed = calloc(n_stored + 1, sizeof(*passed));

        REQUIRE(passed);
        for (size_t i = 0; i < n_stored; ++i) {
                passed[i] = stored[n_stored - 1 - i];
                passed[i].fd = fcntl(passed[i].fd, F_DUPFD_CLOEXEC, 0);
        }
        *ret_n = n_stored;
        return passed;
}

/* -- a keeper -------------------------------------------------------------------------------------- */

typedef struct Home {
        Deadlines deadlines;
        Names *names;
        Refuge *refuge;
        size_t n_queues;
} Home;

static void home_begin(Home *home) {
        *home = (Home){ .names = NULL };
        deadlines_init(&home->deadlines);
        REQUIRE(names_new(&home->names, 1024) == 0);
        REQUIRE(refuge_new(&home->refuge, home->names, &home->deadlines, 1000, n_stored) == 0);
}

static void home_let_go(Home *home) {
        Kept *kept;
        size_t n;

        REQUIRE(names_read(names_fd(home->names), names_end(home->names), &kept, &n) == 0);
        for (size_t i = 0; i < n; ++i)
                close_fd(names_take(home->names, kept[i].name));
        free(kept);
        home->names = names_free(home->names);
}

static void home_end(Home *home) {
        home->refuge = refuge_free(home->refuge);
        home_let_go(home);
        manager_work();
}

static void home_keep(Home *home, const char *name) {
        int fd = memfd_create("test", MFD_CLOEXEC);

        REQUIRE(fd >= 0 && ftruncate(fd, (off_t)strlen(name)) == 0 && names_put(home->names, fd, name) == 0);
        refuge_add(home->refuge, name, fd);
}

static void home_turn(Home *home) {
        deadlines_run(&home->deadlines, time_now());
        manager_work();
}

static void count_queue(void *userdata, int socket) {
        Home *home = userdata;
        char text[16];
        ssize_t n;

        while ((n = recv(socket, text, sizeof(text), MSG_DONTWAIT)) > 0)
                home->n_queues += (size_t)n;
}

static void home_take(Home *home) {
        size_t n;
        Kept *passed = manager_pass(&n);

        REQUIRE(refuge_take_consume_fds(home->refuge, passed, n, count_queue, home) == 0);
        free(passed);
        home_turn(home);
}

static bool is_kept(const Home *home, const char *name) {
        int fd = names_find(home->names, name);
        struct stat st;

        return fd >= 0 && fstat(fd, &st) == 0 && (size_t)st.st_size == strlen(name) && fcntl(fd, F_GETFD) == 0;
}

/* -- tests ----------------------------------------------------------------------------------------- */

TEST(refuge, without_a_store_there_is_none) {
        Home home;

        REQUIRE(unsetenv("NOTIFY_SOCKET") == 0 && unsetenv("FDSTORE") == 0);
        home_begin(&home);
        REQUIRE(!home.refuge);
        home_keep(&home, "r1");
        refuge_remove(home.refuge, names_find(home.names, "r1"));
        refuge_link(home.refuge, STDIN_FILENO);
        refuge_unlink(home.refuge);
        refuge_leave(home.refuge);
        refuge_stay(home.refuge);
        REQUIRE(refuge_return(home.refuge) == 0 && refuge_take_consume_fds(NULL, NULL, 0, count_queue, NULL) == 0);
        REQUIRE(names_count(home.names) == 1);
        home_end(&home);
}

TEST(refuge, what_was_kept_is_kept_by_the_next_keeper) {
        char name[FDSTORE_NAME_MAX];
        Home home;

        manager_start();
        home_begin(&home);
        home_keep(&home, "state");
        for (size_t i = 0; i < 300; ++i) {
                (void)snprintf(name, sizeof(name), "r%zu", i);
                home_keep(&home, name);
                home_turn(&home);
        }
        REQUIRE(n_stored <= 6, "%zu", n_stored);
        home_end(&home);

        home_begin(&home);
        home_take(&home);
        REQUIRE(names_count(home.names) == 301 && is_kept(&home, "state") && is_kept(&home, "r0") &&
                is_kept(&home, "r299"));
        home_end(&home);
        manager_stop();
}

/* The keeper is killed with packets unread. */
TEST(refuge, what_a_broker_had_sent_is_read_by_the_next_keeper) {
        Home home;
        int pair[2];

        manager_start();
        home_begin(&home);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        refuge_link(home.refuge, pair[0]);
        refuge_unlink(home.refuge);
        refuge_link(home.refuge, pair[0]);
        home_turn(&home);
        REQUIRE(n_stored == 1);
        REQUIRE(send(pair[1], "four", 4, 0) == 4 && send(pair[1], "and six", 7, 0) == 7);
        close_fd(pair[0]);
        close_fd(pair[1]);
        home_end(&home);

        home_begin(&home);
        home_take(&home);
        REQUIRE(home.n_queues == 11 && n_stored == 0);
        home_end(&home);
        manager_stop();
}

/* What a broker without a keeper stored one by one. */
TEST(refuge, single_descriptors_move_in) {
        Home home;

        manager_start();
        stored[0] = (Kept){ .name = "r17", .fd = memfd_create("test", MFD_CLOEXEC) };
        stored[1] = (Kept){ .name = "r18", .fd = fcntl(manager, F_DUPFD_CLOEXEC, 0) };
        REQUIRE(ftruncate(stored[0].fd, 3) == 0);
        n_stored = 2;
        home_begin(&home);
        home_take(&home);
        REQUIRE(names_count(home.names) == 1 && is_kept(&home, "r17"));
        for (size_t i = 0; i < n_stored; ++i)
                REQUIRE(refuge_owns(stored[i].name), "%s", stored[i].name);
        home_end(&home);

        home_begin(&home);
        home_take(&home);
        REQUIRE(is_kept(&home, "r17"));
        home_end(&home);
        manager_stop();
}

/* An upgrade: the table of names, and all descriptors, stay. */
TEST(refuge, the_next_program_goes_on) {
        Refuge *before;
        Home home;

        manager_start();
        home_begin(&home);
        home_keep(&home, "r1");
        home_keep(&home, "r2");
        home_turn(&home);
        refuge_leave(home.refuge);
        REQUIRE(names_count(home.names) == 4);
        refuge_stay(home.refuge);
        REQUIRE(names_count(home.names) == 2);

        /* The other program's is another one: it has the numbers, and nobody else. */
        refuge_leave(home.refuge);
        before = home.refuge;
        for (size_t i = 0; i < 2; ++i) {
                int fd = names_find(home.names, i ? "bundle-1-out" : "bundle-1-in"), copy;

                REQUIRE(fd >= 0);
                copy = fcntl(fd, F_DUPFD, 0);
                REQUIRE(copy >= 0 && names_take(home.names, i ? "bundle-1-out" : "bundle-1-in") == fd);
                REQUIRE(names_put(home.names, copy, i ? "bundle-1-out" : "bundle-1-in") == 0);
        }
        before = refuge_free(before);
        REQUIRE(refuge_new(&home.refuge, home.names, &home.deadlines, 1000, 0) == 0);
        REQUIRE(refuge_return(home.refuge) == 0);
        REQUIRE(names_count(home.names) == 2);
        home_keep(&home, "r3");
        home_turn(&home);
        home_end(&home);

        home_begin(&home);
        home_take(&home);
        REQUIRE(names_count(home.names) == 3 && is_kept(&home, "r1") && is_kept(&home, "r2") && is_kept(&home, "r3"));
        home_end(&home);
        manager_stop();
}
