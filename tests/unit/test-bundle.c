/* daemon/bundle: descriptors that survive whoever put them there. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bundle.h"
#include "util/deadline.h"

#define NAMES_MAX 20000

/* -- a service manager, and what a keeper has ------------------------------------------------------ */

/* Its store. */
static struct {
        char name[FDSTORE_NAME_MAX];
        int fd;
} stored[512];
static size_t n_stored;

static int store(void *userdata, const char *name, int fd) {
        REQUIRE(n_stored < 512);
        (void)snprintf(stored[n_stored].name, sizeof(stored[n_stored].name), "%s", name);
        stored[n_stored].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        REQUIRE(stored[n_stored++].fd >= 0);
        return 0;
}

static void unstore(void *userdata, const char *name) {
        for (size_t i = 0; i < n_stored; ++i)
                if (!strcmp(stored[i].name, name)) {
                        close_fd(stored[i].fd);
                        stored[i--] = stored[--n_stored];
                }
}

static void store_clear(void) {
        while (n_stored > 0)
                close_fd(stored[--n_stored].fd);
}

/* What the keeper has, by the numbers in its descriptors' names. */
static int have[NAMES_MAX];

static const char *name_of(size_t i) {
        static char name[FDSTORE_NAME_MAX];

        (void)snprintf(name, sizeof(name), "r%zu", i);
        return name;
}

static int find(void *userdata, const char *name) {
        return name[0] == 'r' ? have[strtoul(name + 1, NULL, 10)] : -1;
}

static void have_nothing(void) {
        for (size_t i = 0; i < NAMES_MAX; ++i)
                have[i] = -1;
}

static Bundle *bundle_make(size_t max) {
        BundleOptions options = { .max = max, .find = find, .store = store, .unstore = unstore };
        Bundle *bundle = NULL;

        REQUIRE(bundle_new(&bundle, &options) == 0);
        return bundle;
}

/* Number i is a file whose size is i. */
static int file_of(size_t i) {
        int fd = memfd_create("test-bundle", MFD_CLOEXEC);

        REQUIRE(fd >= 0 && ftruncate(fd, (off_t)i) == 0);
        return fd;
}

static void add(Bundle *bundle, size_t i) {
        have[i] = file_of(i);
        REQUIRE(bundle_add(bundle, name_of(i), have[i]) == 0);
}

static void take_away(Bundle *bundle, size_t i) {
        bundle_remove(bundle, have[i]);
        have[i] = close_fd(have[i]);
}

static void let_go(Kept *kept, size_t n) {
        for (size_t i = 0; i < n; ++i)
                close_fd(kept[i].fd);
        free(kept);
}

/* The keeper dies: of its descriptors nothing is left. */
static Bundle *die(Bundle *bundle) {
        for (size_t i = 0; i < NAMES_MAX; ++i)
                have[i] = close_fd(have[i]);
        return bundle_free(bundle);
}

/* Another keeper gets what the service manager has. */
static Bundle *be_born(size_t max, Kept **ret, size_t *ret_n) {
        Bundle *bundle = bundle_make(max);
        size_t n = n_stored;
        struct {
                char name[FDSTORE_NAME_MAX];
                int fd;
        } given[512];

        /* In the reverse order, as service managers do. */
        for (size_t i = 0; i < n; ++i) {
                memcpy(given[i].name, stored[n - 1 - i].name, sizeof(given[i].name));
                given[i].fd = fcntl(stored[n - 1 - i].fd, F_DUPFD, 0);
                REQUIRE(given[i].fd >= 0);
        }
        for (size_t i = 0; i < n; ++i)
                REQUIRE(bundle_adopt_consume_fd(bundle, given[i].name, given[i].fd) == 0);
        REQUIRE(bundle_take_all(bundle, ret, ret_n) == 0);
        for (size_t i = 0; i < *ret_n; ++i)
                if ((*ret)[i].name[0] == 'r')
                        have[strtoul((*ret)[i].name + 1, NULL, 10)] = (*ret)[i].fd;
        REQUIRE(bundle_settle(bundle, *ret, *ret_n) == 0);
        return bundle;
}

static void expect_file(const Kept *kept) {
        struct stat st;

        REQUIRE(fstat(kept->fd, &st) == 0);
        REQUIRE((size_t)st.st_size == strtoul(kept->name + 1, NULL, 10), "%s is %zd", kept->name, (ssize_t)st.st_size);
}

static BundleFigures figures_of(const Bundle *bundle) {
        BundleFigures figures;

        bundle_figures(bundle, &figures);
        return figures;
}

/* Until there is nothing to do, however long that takes it by the clock. */
static void tend(Bundle *bundle) {
        static uint64_t now = 1;
        int ms;

        for (size_t i = 0; i < 100000 && (ms = bundle_tend(bundle, now)) >= 0; ++i)
                now += (uint64_t)ms * NSEC_PER_MSEC + 1;
        REQUIRE(figures_of(bundle).litter == 0);
}

/* -- tests ------------------------------------------------------------------------------------------ */

static void survives(size_t n) {
        Bundle *bundle = bundle_make(NAMES_MAX);
        Kept *kept;
        size_t n_kept;

        have_nothing();
        for (size_t i = 0; i < n; ++i)
                add(bundle, i);
        REQUIRE(figures_of(bundle).parked == n && figures_of(bundle).litter == 0 && figures_of(bundle).waiting == 0);
        bundle = die(bundle);

        bundle = be_born(NAMES_MAX, &kept, &n_kept);
        REQUIRE(n_kept == n, "%zu of %zu", n_kept, n);
        for (size_t i = 0; i < n; ++i)
                expect_file(&kept[i]);
        REQUIRE(figures_of(bundle).parked == n && figures_of(bundle).litter == 0);
        let_go(kept, n_kept);
        have_nothing();
        bundle_free(bundle);
        store_clear();
}

TEST(bundle, what_was_added_is_there_for_the_next_process) {
        for (size_t i = 0; i < 10; ++i)
                survives((size_t[]){ 0, 1, 2, 126, 127, 252, 253, 254, 506, 800 }[i]);
}

TEST(bundle, the_next_process_goes_on_and_so_does_the_one_after_it) {
        Bundle *bundle = bundle_make(NAMES_MAX);
        Kept *kept;
        size_t n;

        have_nothing();
        for (size_t round = 0; round < 5; ++round) {
                for (size_t i = 0; i < 100; ++i)
                        add(bundle, round * 100 + i);
                for (size_t i = 0; i < 50; ++i)
                        take_away(bundle, round * 100 + i);
                tend(bundle);
                bundle = die(bundle);
                bundle = be_born(NAMES_MAX, &kept, &n);
                REQUIRE(n == (round + 1) * 50, "%zu in round %zu", n, round);
                for (size_t i = 0; i < n; ++i)
                        expect_file(&kept[i]);
                free(kept);
        }
        bundle = die(bundle);
        store_clear();
}

TEST(bundle, what_was_removed_is_closed_by_the_kernel) {
        static int readers[600];
        Bundle *bundle = bundle_make(NAMES_MAX);
        int fds[2];

        have_nothing();
        for (size_t i = 0; i < 600; ++i) {
                REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
                readers[i] = fds[0];
                have[i] = fds[1];
                REQUIRE(bundle_add(bundle, name_of(i), have[i]) == 0);
        }
        for (size_t i = 0; i < 600; i += 2)
                take_away(bundle, i);
        tend(bundle);
        REQUIRE(figures_of(bundle).parked == 300);
        for (size_t i = 0; i < 600; ++i) {
                struct pollfd pollfd = { .fd = readers[i] };

                REQUIRE(poll(&pollfd, 1, 0) == (i % 2 ? 0 : 1), "%zu", i);
                close_fd(readers[i]);
        }
        bundle = die(bundle);
        store_clear();
}

TEST(bundle, litter_is_cleared_within_a_second_or_when_there_is_much) {
        Bundle *bundle = bundle_make(NAMES_MAX);
        uint64_t now = 1000 * NSEC_PER_SEC;

        have_nothing();
        for (size_t i = 0; i < 1000; ++i)
                add(bundle, i);
        REQUIRE(bundle_tend(bundle, now) == -1);
        take_away(bundle, 500);
        REQUIRE(bundle_tend(bundle, now) == 1001);
        now += NSEC_PER_SEC;
        REQUIRE(bundle_tend(bundle, now) == 0);
        for (size_t i = 0; i < 10 && bundle_tend(bundle, now) == 0; ++i)
                ;
        REQUIRE(figures_of(bundle).litter == 0 && figures_of(bundle).parked == 999);

        for (size_t i = 0; i < 500; ++i)
                take_away(bundle, i);
        REQUIRE(bundle_tend(bundle, now) == 0);
        tend(bundle);
        bundle = die(bundle);
        store_clear();
}

TEST(bundle, of_two_with_one_name_the_later_is_the_one) {
        Bundle *bundle = bundle_make(NAMES_MAX);
        struct stat st;
        Kept *kept;
        size_t n;

        have_nothing();
        for (size_t i = 7; i < 407; ++i)
                add(bundle, i);
        take_away(bundle, 7);
        have[7] = file_of(4711);
        REQUIRE(bundle_add(bundle, "r7", have[7]) == 0);
        bundle = die(bundle);
        bundle = be_born(NAMES_MAX, &kept, &n);
        REQUIRE(n == 400);
        REQUIRE(fstat(have[7], &st) == 0 && st.st_size == 4711);
        REQUIRE(figures_of(bundle).litter == 1);
        tend(bundle);
        free(kept);
        bundle = die(bundle);
        store_clear();
}

TEST(bundle, what_goes_in_good_order_leaves_no_litter) {
        Bundle *bundle = bundle_make(NAMES_MAX);
        Kept *kept;
        size_t n;

        have_nothing();
        for (size_t i = 0; i < 900; ++i)
                add(bundle, i);
        for (size_t i = 0; i < 300; ++i)
                take_away(bundle, i * 3);
        bundle_tidy(bundle);
        bundle = die(bundle);
        bundle = be_born(NAMES_MAX, &kept, &n);
        REQUIRE(n == 600 && figures_of(bundle).litter == 0, "%zu", n);
        free(kept);
        bundle = die(bundle);
        store_clear();
}

/* Additions and removals for a long time: neither the store nor the queues grow with them. */
TEST(bundle, coming_and_going_leaves_nothing_behind) {
        Bundle *bundle = bundle_make(NAMES_MAX);
        uint64_t now = NSEC_PER_SEC;

        have_nothing();
        for (size_t i = 0; i < 300; ++i)
                add(bundle, i);
        for (size_t i = 300; i < 19000; ++i) {
                add(bundle, i);
                take_away(bundle, i);
                (void)bundle_tend(bundle, now += NSEC_PER_MSEC);
                REQUIRE(figures_of(bundle).parked < 300 + 253 + 2500 && n_stored <= 12, "%zu, %zu",
                        figures_of(bundle).parked, n_stored);
        }
        tend(bundle);
        REQUIRE(figures_of(bundle).parked == 300 && figures_of(bundle).pairs <= 3);
        bundle = die(bundle);
        store_clear();
}

TEST(bundle, what_is_beyond_the_limit_waits_for_room) {
        Bundle *bundle = bundle_make(1000);

        have_nothing();
        for (size_t i = 0; i < 900; ++i)
                add(bundle, i);
        REQUIRE(figures_of(bundle).parked <= 1000 && figures_of(bundle).waiting >= 900 - 1000 + 253);
        REQUIRE(bundle_tend(bundle, 1) > 0);
        for (size_t i = 0; i < 400; ++i)
                take_away(bundle, i);
        tend(bundle);
        REQUIRE(figures_of(bundle).waiting == 0 && figures_of(bundle).parked == 500);
        bundle = die(bundle);
        store_clear();
}

static int fill_a_users_share(void *userdata) {
        struct rlimit limit, low;
        Bundle *bundle;
        size_t before;

        have_nothing();
        bundle = bundle_make(NAMES_MAX);
        for (size_t i = 0; i < 40; ++i)
                add(bundle, i);
        REQUIRE(figures_of(bundle).parked == 40);

        REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        low = limit;
        low.rlim_cur = 60;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
        for (size_t i = 40; i < 100; ++i) {
                have[i] = have[0];
                REQUIRE(bundle_add(bundle, name_of(i), have[i]) == 0);
        }
        before = figures_of(bundle).waiting;
        REQUIRE(before > 0 && bundle_tend(bundle, 1) > 0);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        (void)bundle_tend(bundle, 2);
        REQUIRE(figures_of(bundle).waiting == 0);
        for (size_t i = 40; i < 100; ++i)
                have[i] = -1;
        bundle = die(bundle);
        store_clear();
        return 0;
}

TEST(bundle, what_the_kernel_has_no_room_for_waits_as_well) {
        test_needs_root();
        /* Nobody else's descriptors are on their way. */
        REQUIRE(run_as(test_broker_uid(), test_broker_uid(), fill_a_users_share, NULL) == 0);
}

/* A new program in the same process: it has the descriptors, and the pairs' ends. */
TEST(bundle, a_new_program_of_the_same_process_finds_out_what_is_parked) {
        Bundle *bundle = bundle_make(NAMES_MAX), *next = bundle_make(NAMES_MAX);
        char name[FDSTORE_NAME_MAX];
        Kept *kept = calloc(701, sizeof(*kept));
        size_t n = 0;
        int fd;

        REQUIRE(kept);
        have_nothing();
        for (size_t i = 0; i < 700; ++i)
                add(bundle, i);
        take_away(bundle, 3);
        for (size_t i = 0; bundle_end(bundle, i, name, &fd); ++i)
                REQUIRE(bundle_adopt_consume_fd(next, name, fcntl(fd, F_DUPFD, 0)) == 0);
        bundle = bundle_free(bundle);
        /* This one never came to be parked. */
        have[3000] = file_of(3000);
        for (size_t i = 0; i < NAMES_MAX; ++i)
                if (have[i] >= 0) {
                        (void)snprintf(kept[n].name, sizeof(kept[n].name), "%s", name_of(i));
                        kept[n++].fd = have[i];
                }
        REQUIRE(bundle_settle(next, kept, n) == 0);
        REQUIRE(n == 700 && figures_of(next).parked == 700 && figures_of(next).litter == 0);
        free(kept);

        next = die(next);
        next = be_born(NAMES_MAX, &kept, &n);
        REQUIRE(n == 700);
        for (size_t i = 0; i < n; ++i)
                expect_file(&kept[i]);
        free(kept);
        next = die(next);
        store_clear();
}

TEST(bundle, strange_names_and_single_ends_are_given_back) {
        Bundle *bundle = bundle_make(NAMES_MAX);
        static const char *const names[] = {
                "bundle-", "bundle-1", "bundle-x-in", "bundle-1-in ", "bundle-1-out-", "bundle-01-in",
                "bundle-99999999999-in", "bundle-5-in",
        };
        Kept *kept;
        size_t n;

        have_nothing();
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); ++i) {
                (void)store(NULL, names[i], STDIN_FILENO);
                REQUIRE(bundle_adopt_consume_fd(bundle, names[i], fcntl(STDIN_FILENO, F_DUPFD, 0)) == 0);
        }
        REQUIRE(bundle_take_all(bundle, &kept, &n) == 0 && n == 0);
        REQUIRE(n_stored == 0);
        free(kept);
        bundle_free(bundle);
}

/* -- death ------------------------------------------------------------------------------------------ */

/* What the child has done, seen by the parent: 1: added, 2: about to be removed. */
static volatile char *done;

static int manager_socket;

static int tell_store(void *userdata, const char *name, int fd) {
        struct iovec iov = { .iov_base = (void *)name, .iov_len = strlen(name) };
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { .bytes = { 0 } };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);

        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(int));
        REQUIRE(sendmsg(manager_socket, &message, MSG_NOSIGNAL) > 0);
        return 0;
}

static void tell_unstore(void *userdata, const char *name) {
        REQUIRE(send(manager_socket, name, strlen(name), MSG_NOSIGNAL) > 0);
}

/* Does everything that was told, in order. */
static void manage(int fd) {
        char name[FDSTORE_NAME_MAX];
        struct iovec iov = { .iov_base = name, .iov_len = sizeof(name) - 1 };
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;

        for (;;) {
                struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
                ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                struct cmsghdr *header;
                int got;

                if (n <= 0)
                        return;
                name[n] = '\0';
                header = CMSG_FIRSTHDR(&message);
                if (header) {
                        memcpy(&got, CMSG_DATA(header), sizeof(got));
                        (void)store(NULL, name, got);
                        close_fd(got);
                } else {
                        unstore(NULL, name);
                }
        }
}

static int live(void *userdata) {
        BundleOptions options = { .max = NAMES_MAX, .find = find, .store = tell_store, .unstore = tell_unstore };
        uint64_t random = (uint64_t)(uintptr_t)userdata, now = NSEC_PER_SEC;
        Bundle *bundle;

        have_nothing();
        REQUIRE(bundle_new(&bundle, &options) == 0);
        child_arrive(0);
        for (size_t i = 0; i < NAMES_MAX; ++i) {
                size_t other = test_random(&random, i + 1);

                add(bundle, i);
                done[i] = 1;
                if (have[other] >= 0 && test_random(&random, 3)) {
                        done[other] = 2;
                        take_away(bundle, other);
                }
                (void)bundle_tend(bundle, now += 10 * NSEC_PER_MSEC);
        }
        for (;;)
                (void)pause();
}

static void die_sometime(uint64_t *random) {
        uint64_t wait_us = test_random(random, 30000);
        Child child = CHILD_NULL;
        int sockets[2];
        Bundle *bundle;
        Kept *kept;
        size_t n;

        memset((void *)done, 0, NAMES_MAX);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
        manager_socket = sockets[1];
        child_spawn(&child, live, (void *)(uintptr_t)(*random | 1));
        close_fd(sockets[1]);
        child_continue(&child);
        for (int64_t end = test_now_ns() + (int64_t)wait_us * 1000; test_now_ns() < end;) {
                manage(sockets[0]);
                (void)usleep(100);
        }
        (void)kill(child.pid, SIGKILL);
        child_kill(&child);
        manage(sockets[0]);
        close_fd(sockets[0]);

        have_nothing();
        bundle = be_born(NAMES_MAX, &kept, &n);
        for (size_t i = 0; i < NAMES_MAX; ++i)
                REQUIRE(done[i] != 1 || have[i] >= 0, "%s is lost", name_of(i));
        for (size_t i = 0; i < n; ++i)
                expect_file(&kept[i]);
        free(kept);
        bundle = die(bundle);
        store_clear();
}

TEST(bundle, killed_at_any_instant_it_has_lost_nothing) {
        uint64_t random = test_seed();

        done = mmap(NULL, NAMES_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(done != MAP_FAILED);
        for (size_t i = 0; i < 100; ++i)
                die_sometime(&random);
        REQUIRE(munmap((void *)done, NAMES_MAX) == 0);
}
