/* daemon/util/fdstore: descriptors given to whoever keeps them. */

#include "daemon-house.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/fdstore.h"

/* How often there is no room in a queue yet. */
static unsigned int n_busy;

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
        if (n_busy > 0) {
                --n_busy;
                errno = EAGAIN;
                return -1;
        }
        return syscall(SYS_sendmsg, fd, message, flags);
}

typedef struct Scene {
        Deadlines deadlines;
        FdStore *store;
        int ours;
        int theirs;             /* the store's end */
} Scene;

static int a_file(void) {
        int fd = memfd_create("test", MFD_CLOEXEC);

        REQUIRE(fd >= 0);
        return fd;
}

static void scene_open(Scene *scene, size_t n_kept) {
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        *scene = (Scene){ .ours = pair[0], .theirs = pair[1] };
        deadlines_init(&scene->deadlines);
        REQUIRE(fdstore_new(&scene->store, scene->ours, &scene->deadlines, n_kept) == 0);
}

static void scene_close(Scene *scene) {
        scene->store = fdstore_free(scene->store);
        REQUIRE(deadlines_next(&scene->deadlines) == DEADLINE_NEVER, "nothing is armed any more");
        deadlines_deinit(&scene->deadlines);
        close_fdp(&scene->ours);
        close_fdp(&scene->theirs);
}

/* The next packet, "" if there is none; its descriptors are the caller's. */
static const char *read_several(Scene *scene, int fds[static FDSTORE_SEVERAL_MAX], size_t *ret_n) {
        static char text[1024];
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(FDSTORE_SEVERAL_MAX * sizeof(int))];
        } control;
        struct iovec part = { .iov_base = text, .iov_len = sizeof(text) - 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n = recvmsg(scene->theirs, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        *ret_n = 0;
        if (n > 0 && CMSG_FIRSTHDR(&message)) {
                *ret_n = (CMSG_FIRSTHDR(&message)->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), *ret_n * sizeof(int));
        }
        text[n > 0 ? n : 0] = '\0';
        return text;
}

/* One with one descriptor (-1: with none). */
static const char *read_packet(Scene *scene, int *ret_fd) {
        int fds[FDSTORE_SEVERAL_MAX] = { -1 };
        size_t n;
        const char *text = read_several(scene, fds, &n);

        REQUIRE(n <= 1, "%zu descriptors", n);
        *ret_fd = fds[0];
        return text;
}

/* Requires that the next packet is that, without a descriptor. */
static void expect_packet(Scene *scene, const char *wanted) {
        int fd = -1;
        const char *text = read_packet(scene, &fd);

        REQUIRE(fd < 0 && !strcmp(text, wanted), "'%s' came, not '%s'", text, wanted);
}

/* Pushes until there is no more room. Return: how many went. */
static unsigned int push_until_busy(Scene *scene, int fd) {
        char name[FDSTORE_NAME_MAX];
        unsigned int n = 0;
        int r = 0;

        for (; r == 0; ++n) {
                REQUIRE(n < 1000000, "a queue without an end");
                (void)snprintf(name, sizeof(name), "r%u", n + 1);
                r = fdstore_push(scene->store, name, fd);
        }
        REQUIRE(r == FDSTORE_E_BUSY);
        return n - 1;
}

static void read_all(Scene *scene) {
        int fds[FDSTORE_SEVERAL_MAX];
        size_t n;

        while (*read_several(scene, fds, &n))
                while (n > 0)
                        close_fd(fds[--n]);
}

static void count_call(FdBarrier *barrier, void *userdata) {
        ++*(unsigned int *)userdata;
}

static void turn(Scene *scene) {
        deadlines_run(&scene->deadlines, deadlines_next(&scene->deadlines));
}

static bool is_same_file(int a, int b) {
        struct stat x, y;

        return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

/* -- keeping ----------------------------------------------------------------------------- */

TEST(fdstore, a_descriptor_goes_with_its_name_and_stays_the_callers) {
        CLEANUP(close_fdp) int fd = a_file(), got = -1;
        Scene scene;

        scene_open(&scene, 0);
        REQUIRE(fdstore_push(scene.store, "r17", fd) == 0);
        cr_assert_str_eq(read_packet(&scene, &got), "FDSTORE=1\nFDNAME=r17\nFDPOLL=0");
        cr_assert(is_same_file(fd, got));
        scene_close(&scene);
}

TEST(fdstore, a_full_queue_is_busy_and_not_waited_for) {
        CLEANUP(close_fdp) int fd = a_file();
        Scene scene;

        scene_open(&scene, 0);
        REQUIRE(push_until_busy(&scene, fd) > 10);
        REQUIRE(fdstore_push(scene.store, "r0", fd) == FDSTORE_E_BUSY);
        read_all(&scene);
        REQUIRE(fdstore_push(scene.store, "r0", fd) == 0, "and has room once it was read");
        scene_close(&scene);
}

/* Return: whether it was woken since the last time. */
static bool was_woken(int waker) {
        uint64_t n;

        return read(waker, &n, sizeof(n)) == sizeof(n);
}

TEST(fdstore, a_store_that_rests_is_woken_before_its_queue_is_full) {
        CLEANUP(close_fdp) int fd = a_file(), waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        unsigned int n_fit, n_quiet = 0;
        Scene scene;

        scene_open(&scene, 0);
        n_fit = push_until_busy(&scene, fd);
        read_all(&scene);
        fdstore_set_waker(scene.store, waker);
        REQUIRE(waker >= 0 && !was_woken(waker));
        for (unsigned int round = 0; round < 3; ++round) {
                for (n_quiet = 0; !was_woken(waker); ++n_quiet)
                        REQUIRE(fdstore_push(scene.store, "r1", fd) == 0);
                REQUIRE(n_quiet > n_fit / 4 && n_quiet < n_fit, "after %u of %u", n_quiet, n_fit);
                read_all(&scene);
        }
        REQUIRE(push_until_busy(&scene, fd) == n_fit && was_woken(waker) && !was_woken(waker));
        REQUIRE(fdstore_push(scene.store, "r0", fd) == FDSTORE_E_BUSY && was_woken(waker), "and again if it is full");
        scene_close(&scene);
}

TEST(fdstore, a_store_that_rests_is_woken_for_a_barrier) {
        CLEANUP(close_fdp) int waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        unsigned int n_calls = 0;
        FdBarrier barrier;
        Scene scene;

        scene_open(&scene, 1);
        fdstore_set_waker(scene.store, waker);
        fdstore_remove(scene.store, "r1");
        fdstore_flush(scene.store);
        REQUIRE(!was_woken(waker), "nobody waits for that");
        fdstore_barrier(scene.store, &barrier, count_call, &n_calls);
        turn(&scene);
        REQUIRE(was_woken(waker) && !was_woken(waker));
        read_all(&scene);
        turn(&scene);
        cr_assert_eq(n_calls, 1);
        scene_close(&scene);
}

/* -- several ------------------------------------------------------------------------------ */

typedef char KeptName[FDSTORE_NAME_MAX];

static void name_all(KeptName names[static FDSTORE_SEVERAL_MAX]) {
        for (int i = 0; i < FDSTORE_SEVERAL_MAX; ++i)
                (void)snprintf(names[i], sizeof(*names), "m%d", i);
}

static void fill(int fds[static FDSTORE_SEVERAL_MAX], int fd) {
        for (size_t i = 0; i < FDSTORE_SEVERAL_MAX; ++i)
                fds[i] = fd;
}

TEST(fdstore, a_store_takes_one_at_a_time_unless_it_has_said_more) {
        Scene scene;

        scene_open(&scene, 0);
        cr_assert_eq(fdstore_most(NULL), 1);
        cr_assert_eq(fdstore_most(scene.store), 1);
        fdstore_set_most(scene.store, 0);
        cr_assert_eq(fdstore_most(scene.store), 1);
        fdstore_set_most(scene.store, 5);
        cr_assert_eq(fdstore_most(scene.store), 5);
        fdstore_set_most(scene.store, SIZE_MAX);
        cr_assert_eq(fdstore_most(scene.store), FDSTORE_SEVERAL_MAX);
        scene_close(&scene);
}

TEST(fdstore, several_go_with_their_names_in_one_packet_and_stay_the_callers) {
        static const KeptName names[3] = { "m1", "0123456789012345678901234567890", "m2" };
        int fds[3], got[FDSTORE_SEVERAL_MAX];
        Scene scene;
        size_t n;

        scene_open(&scene, 0);
        fdstore_set_most(scene.store, 3);
        for (size_t i = 0; i < 3; ++i)
                fds[i] = a_file();
        REQUIRE(fdstore_push_several(scene.store, names, fds, 3) == 0);
        cr_assert_str_eq(read_several(&scene, got, &n), "FDSTORE=1\nFDNAME=m1\nFDNAME=0123456789012345678901234567890\n"
                                                        "FDNAME=m2\nFDPOLL=0");
        REQUIRE(n == 3);
        for (size_t i = 0; i < 3; ++i) {
                cr_assert(is_same_file(fds[i], got[i]));
                close_fd(fds[i]);
                close_fd(got[i]);
        }
        scene_close(&scene);
}

TEST(fdstore, one_of_several_is_one) {
        CLEANUP(close_fdp) int fd = a_file(), got = -1;
        static const KeptName name = "m1";
        Scene scene;

        scene_open(&scene, 0);
        REQUIRE(fdstore_push_several(scene.store, &name, &fd, 1) == 0);
        cr_assert_str_eq(read_packet(&scene, &got), "FDSTORE=1\nFDNAME=m1\nFDPOLL=0");
        REQUIRE(fdstore_push_several(NULL, &name, &fd, 1) == 0);
        scene_close(&scene);
}

TEST(fdstore, each_of_several_can_be_let_go) {
        CLEANUP(close_fdp) int fd = a_file();
        int fds[FDSTORE_SEVERAL_MAX];
        KeptName names[FDSTORE_SEVERAL_MAX];
        char wanted[1024], *end;
        Scene scene;

        scene_open(&scene, 0);
        fdstore_set_most(scene.store, FDSTORE_SEVERAL_MAX);
        name_all(names);
        fill(fds, fd);
        for (unsigned int round = 0; round < 3; ++round) {
                REQUIRE(fdstore_push_several(scene.store, names, fds, FDSTORE_SEVERAL_MAX) == 0);
                read_all(&scene);
                for (size_t i = 0; i < FDSTORE_SEVERAL_MAX; ++i)
                        fdstore_remove(scene.store, names[i]);
        }
        fdstore_flush(scene.store);
        end = stpcpy(wanted, "FDSTOREREMOVE=1");
        for (size_t i = 0; i < FDSTORE_SEVERAL_MAX; ++i)
                end = stpcpy(stpcpy(end, "\nFDNAME="), names[i]);
        for (unsigned int round = 0; round < 3; ++round)
                expect_packet(&scene, wanted);
        expect_packet(&scene, "");
        scene_close(&scene);
}

/* Pushes packets of sixteen until no more may go. Return: how many went; *ret_quiet: before the store was woken. */
static unsigned int push_several_until_busy(Scene *scene, int waker, unsigned int *ret_quiet) {
        CLEANUP(close_fdp) int fd = a_file();
        KeptName names[FDSTORE_SEVERAL_MAX];
        int fds[FDSTORE_SEVERAL_MAX], r;
        unsigned int n = 0;

        name_all(names);
        fill(fds, fd);
        for (*ret_quiet = 0; (r = fdstore_push_several(scene->store, names, fds, FDSTORE_SEVERAL_MAX)) == 0; ++n) {
                REQUIRE(n < 1000, "a queue without an end");
                if (!was_woken(waker) && *ret_quiet == n)
                        ++*ret_quiet;
        }
        REQUIRE(r == FDSTORE_E_BUSY && was_woken(waker));
        return n;
}

/* Descriptors in flight are limited for the user, so the queue is not filled with packets of several: so many fit,
 * with that limit. */
static void expect_flying(rlim_t limit, unsigned int n_wanted, unsigned int n_wanted_quiet) {
        CLEANUP(close_fdp) int fd = a_file(), waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        static const KeptName name = "r0";
        struct rlimit before;
        unsigned int n_quiet;
        Scene scene;

        REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
        if (limit > before.rlim_max)
                test_skip("the limit of descriptors is too low");
        REQUIRE(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ limit, before.rlim_max }) == 0);
        scene_open(&scene, 0);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
        fdstore_set_most(scene.store, FDSTORE_SEVERAL_MAX);
        fdstore_set_waker(scene.store, waker);
        for (unsigned int round = 0; round < 3; ++round) {
                REQUIRE(push_several_until_busy(&scene, waker, &n_quiet) == n_wanted && n_quiet == n_wanted_quiet, "%u",
                        n_quiet);
                REQUIRE(fdstore_push(scene.store, "r1", fd) == 0, "there is room for one");
                REQUIRE(fdstore_push_several(scene.store, &name, &fd, 1) == 0, "in such a packet too");
                read_all(&scene);
        }
        scene_close(&scene);
}

TEST(fdstore, several_wake_the_store_before_there_are_too_many_in_flight) {
        expect_flying(64, 1, 0);
        expect_flying(256, 1, 0);
        expect_flying(1024, 4, 3);
        expect_flying(4000, 15, 11);
        expect_flying(16384, 64, 48);
}

/* One after the other, so many times "r1". */
static void let_go_of(Scene *scene, unsigned int n) {
        for (; n > 0; --n) {
                fdstore_remove(scene->store, "r1");
                fdstore_flush(scene->store);
        }
}

/* They are in the queue as well, and the kernel only says how much is. */
TEST(fdstore, what_it_is_to_let_go_of_is_not_taken_for_several_in_flight) {
        CLEANUP(close_fdp) int fd = a_file(), waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        KeptName names[FDSTORE_SEVERAL_MAX];
        int fds[FDSTORE_SEVERAL_MAX];
        Scene scene;

        scene_open(&scene, 63);
        fdstore_set_most(scene.store, FDSTORE_SEVERAL_MAX);
        fdstore_set_waker(scene.store, waker);
        name_all(names);
        fill(fds, fd);
        let_go_of(&scene, 63);
        for (unsigned int i = 0; i < 3; ++i)
                REQUIRE(fdstore_push_several(scene.store, names, fds, FDSTORE_SEVERAL_MAX) == 0 && !was_woken(waker));
        scene_close(&scene);
}

TEST(fdstore, a_store_that_is_gone_is_trouble) {
        CLEANUP(close_fdp) int fd = a_file();
        static const KeptName names[2] = { "m1", "m2" };
        Scene scene;

        scene_open(&scene, 1);
        fdstore_set_most(scene.store, 2);
        scene.theirs = close_fd(scene.theirs);
        REQUIRE(fdstore_push(scene.store, "r1", fd) == -EPIPE);
        REQUIRE(fdstore_push_several(scene.store, names, (int[]){ fd, fd }, 2) == -EPIPE);
        fdstore_remove(scene.store, "r0");
        fdstore_flush(scene.store);
        scene_close(&scene);
}

/* -- letting go --------------------------------------------------------------------------- */

TEST(fdstore, nothing_is_let_go_before_it_is_flushed) {
        Scene scene;

        scene_open(&scene, 2);
        fdstore_remove(scene.store, "r1");
        expect_packet(&scene, "");
        fdstore_flush(scene.store);
        fdstore_remove(scene.store, "r2");
        expect_packet(&scene, "FDSTOREREMOVE=1\nFDNAME=r1");
        expect_packet(&scene, "");
        fdstore_flush(scene.store);
        expect_packet(&scene, "FDSTOREREMOVE=1\nFDNAME=r2");
        fdstore_flush(scene.store);
        expect_packet(&scene, "");
        scene_close(&scene);
}

/* Requires that there is a packet that lets go of so many "r1". */
static void expect_let_go(Scene *scene, size_t n) {
        char wanted[1024], *end = stpcpy(wanted, "FDSTOREREMOVE=1");

        for (; n > 0; --n)
                end = stpcpy(end, "\nFDNAME=r1");
        expect_packet(scene, wanted);
}

/* A store that takes several, and one that waits to be let go of; however slow this process is, more wait with it from
 * here on, until there is a packet of them or turn(). */
static void open_with_one_waiting(Scene *scene) {
        unsigned int n = 0;

        scene_open(scene, 1000);
        fdstore_set_most(scene->store, FDSTORE_SEVERAL_MAX);
        let_go_of(scene, 1);
        expect_let_go(scene, 1);
        while (deadlines_next(&scene->deadlines) == DEADLINE_NEVER) {
                REQUIRE(++n < 100);
                let_go_of(scene, 1);
        }
        for (--n; n > 0; --n)
                expect_let_go(scene, 1);
        expect_packet(scene, "");
}

TEST(fdstore, the_first_is_let_go_of_at_once_and_those_soon_after_it_together) {
        Scene scene;

        open_with_one_waiting(&scene);
        cr_assert(deadlines_next(&scene.deadlines) <= time_now() + 50 * NSEC_PER_MSEC, "it does not wait longer");
        let_go_of(&scene, FDSTORE_SEVERAL_MAX - 2);
        expect_packet(&scene, "");
        let_go_of(&scene, 1);
        expect_let_go(&scene, FDSTORE_SEVERAL_MAX);
        let_go_of(&scene, 3);
        expect_packet(&scene, "");
        turn(&scene);
        expect_let_go(&scene, 3);
        expect_packet(&scene, "");
        REQUIRE(usleep(51000) == 0);
        let_go_of(&scene, 1);
        expect_let_go(&scene, 1);
        scene_close(&scene);
}

TEST(fdstore, what_waits_to_be_let_go_of_leaves_before_what_is_pushed) {
        CLEANUP(close_fdp) int fd = a_file(), got = -1;
        Scene scene;

        open_with_one_waiting(&scene);
        let_go_of(&scene, 1);
        fdstore_remove(scene.store, "r9");
        REQUIRE(fdstore_push(scene.store, "r2", fd) == 0);
        expect_let_go(&scene, 2);
        cr_assert_str_eq(read_packet(&scene, &got), "FDSTORE=1\nFDNAME=r2\nFDPOLL=0", "r9 was not flushed");
        expect_packet(&scene, "");
        scene_close(&scene);
}

/* The store may have read between the two, and would be full. */
TEST(fdstore, what_is_pushed_does_not_overtake_what_had_no_room) {
        CLEANUP(close_fdp) int fd = a_file(), got = -1;
        Scene scene;

        open_with_one_waiting(&scene);
        n_busy = 1;
        REQUIRE(fdstore_push(scene.store, "r2", fd) == FDSTORE_E_BUSY && n_busy == 0);
        expect_packet(&scene, "");
        REQUIRE(fdstore_push(scene.store, "r2", fd) == 0);
        expect_let_go(&scene, 1);
        cr_assert_str_eq(read_packet(&scene, &got), "FDSTORE=1\nFDNAME=r2\nFDPOLL=0");
        scene_close(&scene);
}

TEST(fdstore, what_waits_to_be_let_go_of_leaves_before_a_barrier) {
        unsigned int n_calls = 0;
        FdBarrier barrier;
        Scene scene;
        int got = -1;

        open_with_one_waiting(&scene);
        let_go_of(&scene, 1);
        fdstore_barrier(scene.store, &barrier, count_call, &n_calls);
        deadlines_run(&scene.deadlines, time_now());
        expect_let_go(&scene, 2);
        cr_assert_str_eq(read_packet(&scene, &got), "BARRIER=1");
        got = close_fd(got);
        turn(&scene);
        cr_assert_eq(n_calls, 1);
        scene_close(&scene);
}

TEST(fdstore, what_waits_to_be_let_go_of_leaves_with_the_end_of_the_store_here) {
        Scene scene;

        open_with_one_waiting(&scene);
        let_go_of(&scene, 3);
        fdstore_remove(scene.store, "r9");
        scene.store = fdstore_free(scene.store);
        expect_let_go(&scene, 4);
        expect_packet(&scene, "");
        scene_close(&scene);
}

TEST(fdstore, a_store_that_takes_one_at_a_time_lets_go_of_each_at_once) {
        Scene scene;

        scene_open(&scene, 100);
        for (unsigned int i = 0; i < 20; ++i) {
                let_go_of(&scene, 1);
                expect_let_go(&scene, 1);
        }
        cr_assert_eq(deadlines_next(&scene.deadlines), DEADLINE_NEVER);
        scene_close(&scene);
}

TEST(fdstore, a_store_that_rests_is_woken_for_much_that_is_to_be_let_go_of) {
        CLEANUP(close_fdp) int waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        Scene scene;

        for (size_t most = 1; most <= FDSTORE_SEVERAL_MAX; most += 5) {
                scene_open(&scene, 1000);
                fdstore_set_most(scene.store, most);
                fdstore_set_waker(scene.store, waker);
                for (unsigned int round = 0; round < 3; ++round) {
                        for (unsigned int i = 1; i < 64; ++i)
                                fdstore_remove(scene.store, "r1");
                        fdstore_flush(scene.store);
                        if (deadlines_next(&scene.deadlines) != DEADLINE_NEVER)
                                turn(&scene);
                        REQUIRE(!was_woken(waker), "%zu", most);
                        let_go_of(&scene, 1);
                        if (deadlines_next(&scene.deadlines) != DEADLINE_NEVER)
                                turn(&scene);
                        REQUIRE(was_woken(waker) && !was_woken(waker), "%zu", most);
                        read_all(&scene);
                }
                scene_close(&scene);
        }
}

TEST(fdstore, a_push_in_between_sends_nothing_that_was_not_flushed) {
        CLEANUP(close_fdp) int fd = a_file(), got = -1;
        Scene scene;

        scene_open(&scene, 1);
        fdstore_remove(scene.store, "r1");
        REQUIRE(fdstore_push(scene.store, "r2", fd) == 0);
        cr_assert_str_eq(read_packet(&scene, &got), "FDSTORE=1\nFDNAME=r2\nFDPOLL=0");
        expect_packet(&scene, "");
        scene_close(&scene);
}

TEST(fdstore, what_does_not_fit_goes_later_by_itself_and_in_order) {
        CLEANUP(close_fdp) int fd = a_file();
        unsigned int n, next = 1;
        char name[64];
        Scene scene;
        int none;

        scene_open(&scene, 0);
        n = push_until_busy(&scene, fd);
        for (unsigned int i = 1; i <= n; ++i) {
                (void)snprintf(name, sizeof(name), "r%u", i);
                fdstore_remove(scene.store, name);
        }
        fdstore_flush(scene.store);
        read_all(&scene);
        while (next <= n) {
                const char *text;

                REQUIRE(deadlines_next(&scene.deadlines) != DEADLINE_NEVER || next > 1, "it comes back to it");
                if (deadlines_next(&scene.deadlines) != DEADLINE_NEVER)
                        turn(&scene);
                while (*(text = read_packet(&scene, &none))) {
                        (void)snprintf(name, sizeof(name), "FDSTOREREMOVE=1\nFDNAME=r%u", next++);
                        REQUIRE(!strcmp(text, name), "'%s' came, not '%s'", text, name);
                }
        }
        cr_assert_eq(next, n + 1);
        cr_assert_eq(deadlines_next(&scene.deadlines), DEADLINE_NEVER, "and nothing wakes up any more");
        scene_close(&scene);
}

TEST(fdstore, there_is_room_to_let_go_of_everything_again_and_again) {
        CLEANUP(close_fdp) int fd = a_file();
        char name[64];
        Scene scene;
        int got;

        scene_open(&scene, 5);
        for (unsigned int i = 0; i < 5; ++i) {
                (void)snprintf(name, sizeof(name), "old%u", i);
                fdstore_remove(scene.store, name);
        }
        for (unsigned int i = 0; i < 1000; ++i) {
                (void)snprintf(name, sizeof(name), "r%u", i);
                REQUIRE(fdstore_push(scene.store, name, fd) == 0);
                (void)read_packet(&scene, &got);
                got = close_fd(got);
                fdstore_remove(scene.store, name);
                if (i % 7 == 0)
                        fdstore_flush(scene.store);
                read_all(&scene);
        }
        scene_close(&scene);
}

/* -- barriers ------------------------------------------------------------------------------ */

TEST(fdstore, a_barrier_is_over_when_all_before_it_was_done) {
        unsigned int n_calls = 0;
        FdBarrier barrier;
        Scene scene;
        int got = -1;

        scene_open(&scene, 1);
        fdstore_remove(scene.store, "r1");
        fdstore_flush(scene.store);
        fdstore_barrier(scene.store, &barrier, count_call, &n_calls);
        turn(&scene);
        expect_packet(&scene, "FDSTOREREMOVE=1\nFDNAME=r1");
        cr_assert_str_eq(read_packet(&scene, &got), "BARRIER=1");
        REQUIRE(got >= 0);
        turn(&scene);
        cr_assert_eq(n_calls, 0, "the store has not closed it yet");
        got = close_fd(got);
        turn(&scene);
        cr_assert_eq(n_calls, 1);
        cr_assert_eq(deadlines_next(&scene.deadlines), DEADLINE_NEVER);
        scene_close(&scene);
}

TEST(fdstore, barriers_wait_for_a_full_queue_and_for_one_another) {
        CLEANUP(close_fdp) int fd = a_file();
        unsigned int n_calls[3] = { 0 };
        FdBarrier barriers[3];
        Scene scene;
        int got;

        scene_open(&scene, 0);
        (void)push_until_busy(&scene, fd);
        for (size_t i = 0; i < 3; ++i)
                fdstore_barrier(scene.store, &barriers[i], count_call, &n_calls[i]);
        turn(&scene);
        fdbarrier_cancel(&barriers[1]);
        for (int rounds = 0; n_calls[2] == 0; ++rounds) {
                REQUIRE(rounds < 1000 && n_calls[0] >= n_calls[2]);
                read_all(&scene);
                turn(&scene);
        }
        REQUIRE(n_calls[0] == 1 && n_calls[1] == 0 && n_calls[2] == 1);
        REQUIRE(!*read_packet(&scene, &got));
        scene_close(&scene);
}

TEST(fdstore, a_barrier_of_a_store_that_is_gone_is_over) {
        unsigned int n_calls = 0;
        FdBarrier barrier;
        Scene scene;

        scene_open(&scene, 0);
        scene.theirs = close_fd(scene.theirs);
        fdstore_barrier(scene.store, &barrier, count_call, &n_calls);
        turn(&scene);
        cr_assert_eq(n_calls, 1);
        scene_close(&scene);
}

/* -- no store ------------------------------------------------------------------------------ */

TEST(fdstore, without_a_store_everything_is_kept_at_once) {
        unsigned int n_calls = 0;
        FdBarrier barrier;

        REQUIRE(fdstore_push(NULL, "r1", -1) == 0);
        fdstore_remove(NULL, "r1");
        fdstore_flush(NULL);
        fdstore_barrier(NULL, &barrier, count_call, &n_calls);
        cr_assert_eq(n_calls, 1);
        fdbarrier_cancel(&barrier);
        REQUIRE(fdstore_free(NULL) == NULL);
}
