/* daemon/service: what a service manager wants and gives. */

#include "daemon-house.h"

#include <errno.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "service.h"
#include "util/names.h"

/* -- readiness ----------------------------------------------------------------------------------- */

/* Without a name the kernel chooses an abstract one (unix(7), Autobind). */
static int manager_bind(const char *name, size_t n) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        memcpy(address.sun_path, name, n);
        REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un,
                                                                                      sun_path) + n)) == 0,
                "%s", strerror(errno));
        return fd;
}

/* One with an abstract name, which this process is told. */
static int manager_here(void) {
        struct sockaddr_un address = { 0 };
        socklen_t n = sizeof(address);
        int fd = manager_bind("", 0);
        char variable[sizeof(address.sun_path)];

        REQUIRE(getsockname(fd, (struct sockaddr *)&address, &n) == 0);
        (void)snprintf(variable, sizeof(variable), "@%.*s", (int)(sizeof(variable) - 2), address.sun_path + 1);
        REQUIRE(setenv("NOTIFY_SOCKET", variable, 1) == 0);
        return fd;
}

static const char *manager_read(int fd) {
        static char text[256];
        ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

        text[n > 0 ? n : 0] = '\0';
        return text;
}

static int say_nothing(void *userdata) {
        REQUIRE(unsetenv("NOTIFY_SOCKET") == 0);
        REQUIRE(service_connect() == 0);
        service_notify("READY=1");
        REQUIRE(setenv("NOTIFY_SOCKET", "", 1) == 0);
        REQUIRE(service_connect() == 0);
        service_notify("READY=1");
        return 0;
}

TEST(service, without_a_manager_nothing_is_said) {
        house_expect_child(say_nothing, NULL);
}

static int tell_path(void *userdata) {
        char directory[] = "/tmp/shmd-unit-XXXXXX", path[64];
        int manager;

        REQUIRE(mkdtemp(directory));
        (void)snprintf(path, sizeof(path), "%s/notify", directory);
        manager = manager_bind(path, strlen(path));
        REQUIRE(setenv("NOTIFY_SOCKET", path, 1) == 0);
        REQUIRE(service_connect() == 0);
        service_notify("READY=1");
        REQUIRE(!strcmp(manager_read(manager), "READY=1"));
        service_notify("STOPPING=1");
        REQUIRE(!strcmp(manager_read(manager), "STOPPING=1"));
        service_disconnect();
        service_disconnect();
        service_notify("nothing");
        REQUIRE(!strcmp(manager_read(manager), ""));
        close_fd(manager);
        REQUIRE(unlink(path) == 0 && rmdir(directory) == 0);
        return 0;
}

TEST(service, a_manager_at_a_path_is_told) {
        house_expect_child(tell_path, NULL);
}

static int tell_abstract(void *userdata) {
        int manager;

        manager = manager_here();
        REQUIRE(service_connect() == 0);
        service_notify("READY=1");
        REQUIRE(!strcmp(manager_read(manager), "READY=1"));
        close_fd(manager);
        return 0;
}

TEST(service, a_manager_with_an_abstract_name_is_told) {
        house_expect_child(tell_abstract, NULL);
}

static int fail_to_connect(void *userdata) {
        char longest[256];

        memset(longest, 'x', sizeof(longest));
        longest[0] = '/';
        longest[108] = '\0';
        REQUIRE(setenv("NOTIFY_SOCKET", longest, 1) == 0);
        REQUIRE(service_connect() == -EINVAL);
        REQUIRE(setenv("NOTIFY_SOCKET", "relative", 1) == 0);
        REQUIRE(service_connect() == -EINVAL);
        REQUIRE(setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1) == 0);
        REQUIRE(service_connect() == -ENOENT);
        return 0;
}

TEST(service, a_manager_that_is_not_there_or_cannot_be_is_an_error) {
        house_expect_child(fail_to_connect, NULL);
}

/* -- signs of life ------------------------------------------------------------------------------- */

static void set_watchdog(const char *us, const char *pid) {
        REQUIRE((us ? setenv("WATCHDOG_USEC", us, 1) : unsetenv("WATCHDOG_USEC")) == 0);
        REQUIRE((pid ? setenv("WATCHDOG_PID", pid, 1) : unsetenv("WATCHDOG_PID")) == 0);
}

static int read_watchdog(void *userdata) {
        char own[32];

        (void)snprintf(own, sizeof(own), "%d", (int)getpid());
        set_watchdog(NULL, NULL);
        REQUIRE(service_watchdog() == 0);
        set_watchdog("2000000", NULL);
        REQUIRE(service_watchdog() == 2 * NSEC_PER_SEC);
        set_watchdog("2000000", own);
        REQUIRE(service_watchdog() == 2 * NSEC_PER_SEC);
        set_watchdog("2000000", "1");
        REQUIRE(service_watchdog() == 0, "it is meant for another process");
        set_watchdog("soon", NULL);
        REQUIRE(service_watchdog() == 0);
        set_watchdog("18446744073709551", NULL);
        REQUIRE(service_watchdog() == UINT64_C(18446744073709551000));
        set_watchdog("18446744073709552", NULL);
        REQUIRE(service_watchdog() == 0, "more nanoseconds than there can be");
        return 0;
}

TEST(service, a_watchdog_has_an_interval_and_a_process) {
        house_expect_child(read_watchdog, NULL);
}

static int stay_alive(void *userdata) {
        Deadlines deadlines;
        int manager;

        manager = manager_here();
        deadlines_init(&deadlines);

        set_watchdog(NULL, NULL);
        REQUIRE(service_connect() == 0);
        service_keep_alive(&deadlines);
        REQUIRE(deadlines_next(&deadlines) == DEADLINE_NEVER, "no watchdog, no wake-up");

        set_watchdog("60000000", NULL);
        for (int i = 0; i < 3; ++i) {
                uint64_t before = time_now();

                if (i == 0)
                        service_keep_alive(&deadlines);
                else
                        deadlines_run(&deadlines, deadlines_next(&deadlines));
                REQUIRE(!strcmp(manager_read(manager), "WATCHDOG=1"));
                REQUIRE(deadlines_next(&deadlines) >= before + 30 * NSEC_PER_SEC, "twice in each interval");
                REQUIRE(deadlines_next(&deadlines) <= time_now() + 30 * NSEC_PER_SEC);
        }
        service_disconnect();
        REQUIRE(deadlines_next(&deadlines) == DEADLINE_NEVER);
        deadlines_deinit(&deadlines);
        close_fd(manager);
        return 0;
}

TEST(service, a_watchdog_hears_twice_in_each_interval_that_the_loop_turns) {
        house_expect_child(stay_alive, NULL);
}

/* -- a manager that does not listen --------------------------------------------------------------- */

static int tell_a_deaf_one(void *userdata) {
        int manager;

        manager = manager_here();
        REQUIRE(service_connect() == 0);
        for (int i = 0; i < 10000; ++i)
                service_notify("WATCHDOG=1");
        close_fd(manager);
        service_notify("gone");
        return 0;
}

TEST(service, a_manager_that_reads_nothing_is_not_waited_for) {
        house_expect_child(tell_a_deaf_one, NULL);
}

static int tell_surely(void *userdata) {
        Deadlines deadlines;
        int manager, n = 0;

        manager = manager_here();
        REQUIRE(service_connect() == 0);
        deadlines_init(&deadlines);
        for (int i = 0; i < 10000; ++i)
                service_notify("STATUS=before");
        service_notify_surely(&deadlines, "READY=1");
        deadlines_run(&deadlines, deadlines_next(&deadlines));
        REQUIRE(deadlines_next(&deadlines) != DEADLINE_NEVER, "it is still to be told");
        while (!strcmp(manager_read(manager), "STATUS=before"))
                ++n;
        deadlines_run(&deadlines, deadlines_next(&deadlines));
        REQUIRE(n > 0 && !strcmp(manager_read(manager), "READY=1"));
        REQUIRE(deadlines_next(&deadlines) == DEADLINE_NEVER, "once");
        close_fd(manager);
        service_notify_surely(&deadlines, "READY=1");
        REQUIRE(deadlines_next(&deadlines) == DEADLINE_NEVER, "nobody is there to be told");
        service_disconnect();
        deadlines_deinit(&deadlines);
        return 0;
}

TEST(service, a_manager_that_is_slow_is_told_what_matters_later) {
        house_expect_child(tell_surely, NULL);
}

/* -- sockets and what was stored ------------------------------------------------------------------ */

/* From descriptor 3 on, in the way a service manager passes them. */
static void pass(unsigned int at, int fd) {
        REQUIRE(fd >= 0 && dup2(fd, 3 + (int)at) == 3 + (int)at, "%s", strerror(errno));
        if (fd != 3 + (int)at)
                close_fd(fd);
}

static int any_socket(int domain, int type, bool listens) {
        int fd = socket(domain, type, 0);

        REQUIRE(fd >= 0);
        if (domain == AF_UNIX)
                REQUIRE(bind(fd, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0);
        REQUIRE(!listens || listen(fd, 1) == 0, "%s", strerror(errno));
        return fd;
}

static void announce(const char *n, const char *pid, const char *names) {
        char own[16];

        (void)snprintf(own, sizeof(own), "%d", (int)getpid());
        REQUIRE(setenv("LISTEN_PID", pid ? pid : own, 1) == 0 && setenv("LISTEN_FDS", n, 1) == 0);
        REQUIRE((names ? setenv("LISTEN_FDNAMES", names, 1) : unsetenv("LISTEN_FDNAMES")) == 0);
}

typedef struct Passed {
        int domain, type;
        bool listens;
        const char *n;          /* $LISTEN_FDS */
        const char *pid;        /* $LISTEN_PID, NULL: its own */
        int result;
        bool taken;
} Passed;

static int take(void *userdata) {
        const Passed *passed = userdata;
        CLEANUP(freep) Kept *kept = NULL;
        size_t n_kept = 7;
        int got = -7;

        (void)close(4);
        pass(0, any_socket(passed->domain, passed->type, passed->listens));
        announce(passed->n, passed->pid, NULL);
        REQUIRE(service_take(&kept, &n_kept, &got) == passed->result, "got %d", got);
        REQUIRE(got == (passed->taken ? 3 : -1) && n_kept == 0);
        REQUIRE(!passed->taken || fcntl(3, F_GETFD) == FD_CLOEXEC);
        return 0;
}

TEST(service, a_listening_socket_of_the_right_kind_is_taken) {
        house_expect_child(take, &(Passed){ AF_UNIX, SOCK_SEQPACKET, true, "1", NULL, 0, true });
}

TEST(service, anything_else_in_its_place_is_an_error) {
        static const Passed cases[] = {
                { AF_UNIX, SOCK_STREAM, true, "1", NULL, -EINVAL, false },
                { AF_UNIX, SOCK_DGRAM, false, "1", NULL, -EINVAL, false },
                { AF_UNIX, SOCK_SEQPACKET, false, "1", NULL, -EINVAL, false },
                { AF_UNIX, SOCK_SEQPACKET, true, "2", NULL, -EINVAL, false },
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i)
                house_expect_child(take, (void *)&cases[i]);
}

TEST(service, what_is_meant_for_another_process_is_left_alone) {
        static const Passed cases[] = {
                { AF_UNIX, SOCK_SEQPACKET, true, "1", "1", 0, false },
                { AF_UNIX, SOCK_SEQPACKET, true, "1", "", 0, false },
                { AF_UNIX, SOCK_SEQPACKET, true, "1", "-1", 0, false },
                { AF_UNIX, SOCK_SEQPACKET, true, "0", NULL, 0, false },
                { AF_UNIX, SOCK_SEQPACKET, true, "", NULL, 0, false },
                { AF_UNIX, SOCK_SEQPACKET, true, "x", NULL, 0, false },
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i)
                house_expect_child(take, (void *)&cases[i]);
}

static int take_nothing(void *userdata) {
        CLEANUP(freep) Kept *kept = NULL;
        size_t n_kept;
        int got = -7;

        (void)close(3);
        REQUIRE(unsetenv("LISTEN_PID") == 0 && unsetenv("LISTEN_FDS") == 0);
        REQUIRE(service_take(&kept, &n_kept, &got) == 0 && got == -1 && n_kept == 0);
        announce("1", NULL, NULL);
        REQUIRE(service_take(&kept, &n_kept, &got) == -EINVAL && got == -1, "announced and not there");
        REQUIRE(unsetenv("LISTEN_FDS") == 0);
        REQUIRE(service_take(&kept, &n_kept, &got) == 0 && got == -1);
        return 0;
}

TEST(service, a_socket_that_was_announced_must_be_there) {
        house_expect_child(take_nothing, NULL);
}

static int take_stored(void *userdata) {
        static const char *const names[] = { "r17", "", "state", "" };
        CLEANUP(freep) Kept *kept = NULL;
        size_t n_kept;
        int got = -1;

        for (unsigned int i = 0; i < 5; ++i)
                if (i != 2)
                        pass(i, memfd_create("stored", 0));
        pass(2, any_socket(AF_UNIX, SOCK_SEQPACKET, true));
        announce("5", NULL, "r17::shmd.socket:state:a-name-that-is-longer-than-any-of-ours");
        REQUIRE(service_take(&kept, &n_kept, &got) == 0 && got == 5 && n_kept == 4);
        for (size_t i = 0; i < n_kept; ++i)
                REQUIRE(!strcmp(kept[i].name, names[i]) && fcntl(kept[i].fd, F_GETFD) == FD_CLOEXEC);
        REQUIRE(kept[0].fd == 3 && kept[1].fd == 4 && kept[2].fd == 6 && kept[3].fd == 7);
        return 0;
}

TEST(service, what_a_manager_stored_comes_with_its_names) {
        house_expect_child(take_stored, NULL);
}

/* -- a keeper -------------------------------------------------------------------------------------- */

/* Requires that the store takes so many descriptors in a packet. */
static void require_store(size_t most) {
        Deadlines deadlines;
        FdStore *store;

        deadlines_init(&deadlines);
        REQUIRE(service_store(&store, &deadlines, 0) == 0 && store && fdstore_most(store) == most);
        fdstore_free(store);
        deadlines_deinit(&deadlines);
}

static int take_kept(void *userdata) {
        CLEANUP(freep) Kept *kept = NULL;
        int pair[2], listen_fd, got = -1, waker = eventfd(0, 0);
        const char *last_end;
        Names *names;
        size_t n_kept;
        char text[64];

        REQUIRE(names_new(&names, 64) == 0);
        REQUIRE(names_put(names, 20, "r1") == 0 && names_put(names, 22, "policy-3") == 0);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
        listen_fd = any_socket(AF_UNIX, SOCK_SEQPACKET, true);
        service_leave(&(ServiceKeeper){ pair[0], listen_fd, names_fd(names), names_end(names), waker, 16 });
        announce("1", NULL, NULL);
        REQUIRE(setenv("NOTIFY_SOCKET", "/nonexistent", 1) == 0);

        REQUIRE(service_take(&kept, &n_kept, &got) == 0 && got == listen_fd && n_kept == 2);
        REQUIRE(!strcmp(kept[0].name, "r1") && kept[0].fd == 20);
        REQUIRE(!strcmp(kept[1].name, "policy-3") && kept[1].fd == 22);
        REQUIRE(service_restarts(&last_end) == 0 && !*last_end && !*service_store_owner());
        REQUIRE(setenv(SERVICE_RESTARTS, "3", 1) == 0 && setenv(SERVICE_LAST_END, "signal KILL", 1) == 0);
        REQUIRE(service_connect() == 0 && service_has_keeper());
        REQUIRE(service_restarts(&last_end) == 3 && !strcmp(last_end, "signal KILL"));
        REQUIRE(!strcmp(service_store_owner(), "keeper"));
        require_store(16);
        service_notify("READY=1");
        REQUIRE(recv(pair[1], text, sizeof(text), MSG_DONTWAIT) == 7);
        REQUIRE(fcntl(waker, F_GETFD) == FD_CLOEXEC, "no process that it starts wakes the keeper");
        service_disconnect();
        REQUIRE(fcntl(waker, F_GETFD) < 0);
        REQUIRE(!service_has_keeper());
        return 0;
}

TEST(service, a_keeper_comes_before_all_other_managers) {
        house_expect_child(take_kept, NULL);
}

static void connect_to_keeper(int link, const char *rest) {
        char text[64];

        (void)snprintf(text, sizeof(text), "%d 4 5 %s", link, rest);
        REQUIRE(setenv(SERVICE_KEEPER, text, 1) == 0 && service_connect() == 0 && service_has_keeper());
}

/* The versions before said less, and one that is to come may say more. */
static int obey_other_keepers(void *userdata) {
        static const struct {
                const char *rest;
                size_t most;
        } cases[] = { { "7", 1 }, { "7 -1", 1 }, { "7 -1 16", 1 }, { "7 -1 16 0", 1 }, { "7 -1 16 1", 1 }, { "7 -1 16 5", 5 },
                      { "7 -1 16 16", 16 }, { "7 -1 17 17", 16 }, { "7 -1 16 16 and more", 16 } };
        ServiceKeeper keeper;
        int pair[2];

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
                REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
                connect_to_keeper(pair[0], cases[i].rest);
                require_store(cases[i].most);
                REQUIRE(service_find(&keeper) && keeper.n == 7 && keeper.waker == -1);
                service_disconnect();
                close_fd(pair[1]);
        }
        REQUIRE(setenv(SERVICE_KEEPER, "3 4 5", 1) == 0 && !service_find(&keeper));
        return 0;
}

TEST(service, a_keeper_of_another_version_says_what_it_takes) {
        house_expect_child(obey_other_keepers, NULL);
}

static int find_stores(void *userdata) {
        Deadlines deadlines;
        FdStore *store;
        int manager;

        manager = manager_here();
        deadlines_init(&deadlines);
        REQUIRE(setenv("FDSTORE", "100", 1) == 0);
        REQUIRE(service_store(&store, &deadlines, 0) == 0 && !store && service_store_room() == SIZE_MAX,
                "nobody to give it to");
        REQUIRE(service_connect() == 0);
        REQUIRE(service_store_room() == 100 && !strcmp(service_store_owner(), "service-manager"));
        REQUIRE(service_store(&store, &deadlines, 0) == 0 && store);
        REQUIRE(fdstore_push(store, "r1", manager) == 0);
        REQUIRE(!strcmp(manager_read(manager), "FDSTORE=1\nFDNAME=r1\nFDPOLL=0"));
        REQUIRE(fdstore_most(store) == 1, "it would give several one name");
        fdstore_free(store);
        REQUIRE(setenv("FDSTORE", "1000000", 1) == 0 && service_store_room() == 4096, "their names must come back");
        for (size_t i = 0; i < 3; ++i) {
                REQUIRE((i ? setenv("FDSTORE", i == 1 ? "0" : "many", 1) : unsetenv("FDSTORE")) == 0);
                REQUIRE(service_store(&store, &deadlines, 0) == 0 && !store && service_store_room() == SIZE_MAX);
        }
        service_disconnect();
        close_fd(manager);
        return 0;
}

TEST(service, a_manager_that_says_so_has_a_store) {
        house_expect_child(find_stores, NULL);
}
