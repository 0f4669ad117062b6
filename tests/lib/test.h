/* What every test here stands on.
 *
 * TEST(suite, name) wraps a Criterion test in a check that it leaves as many descriptors open
 * as it found. The check stands around the body, not in a fixture: a failed assertion in a
 * Criterion fixture does not fail the test.
 *
 * REQUIRE() is the assertion that helpers use. It also works in children that a test forked,
 * where Criterion's own would talk to the runner on the parent's behalf: there it prints what
 * was wrong and ends the child with TEST_CHILD_FAILED, which child_wait() turns into a failure
 * of the test.
 *
 * No wait in a test is without end (TEST_PATIENCE_MS), and no test asserts how long something
 * took: a slow machine must not look like a bug.
 */
#ifndef TESTS_LIB_TEST_H
#define TESTS_LIB_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <criterion/criterion.h>

/* Seconds after which Criterion ends a test that hangs. */
#ifndef TEST_TIMEOUT
#define TEST_TIMEOUT 300
#endif

/* How long anything that should happen soon may take before the test fails. */
#define TEST_PATIENCE_MS 20000

#define TEST_CHILD_FAILED 99

/* Uids of the clients in tests; none of them needs to exist. */
#define ALICE 64101
#define BOB 64102
#define CAROL 64103

#define TEST(suite, name)                                                               \
        static void suite##_##name(void);                                               \
        Test(suite, name, .timeout = TEST_TIMEOUT) {                                    \
                size_t n_fds = test_begin();                                            \
                                                                                        \
                suite##_##name();                                                       \
                REQUIRE(test_count_fds() == n_fds, "leaked descriptors: %zu before, %zu after", \
                        n_fds, test_count_fds());                                       \
        }                                                                               \
        static void suite##_##name(void)

#define REQUIRE(condition, ...)                                                         \
        do {                                                                            \
                if (!(condition))                                                       \
                        test_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__);      \
        } while (0)

/* Remembers which process is the test, and takes a uid for its brokers. Return: the number of open descriptors. */
size_t test_begin(void);
size_t test_count_fds(void);

/* The uid of this test's brokers, which needs not exist either: of what the kernel counts for each user (descriptors on
 * their way, inotify instances) those of the tests beside this one take nothing. */
uid_t test_broker_uid(void);

__attribute__((noreturn, format(printf, 4, 5)))
void test_fail(const char *file, int line, const char *condition, const char *format, ...);

/* Ends the test as skipped, or as failed if SHMD_NO_SKIP=1 is set: what CI must not skip. */
__attribute__((format(printf, 1, 2))) void test_skip(const char *format, ...);

/* Says that a part of the test is left out here; fails instead if SHMD_NO_SKIP=1 is set. */
__attribute__((format(printf, 1, 2))) void test_leave_out(const char *format, ...);

/* Skips the test unless it runs as root, which can be any uid. */
void test_needs_root(void);

/* Skips the test unless it may have these namespaces (flags of unshare(2), CLONE_NEWNS among
 * them) and change its mounts: containers and chroots often may not. */
void test_needs_namespaces(int flags);

/* Milliseconds of CLOCK_MONOTONIC, and nanoseconds. */
int64_t test_now_ms(void);
int64_t test_now_ns(void);
void test_sleep_ms(int ms);

/* Where a program of the build folder is that any user can run: in the folder $SHMD_TEST_PROGRAMS, if it is there, as the
 * build may be in root's home; else in $SHMD_TEST_BUILDDIR. Return: good until the eighth call after this one. */
const char *test_program(const char *name);

/* Removes a directory with all that is in it. Return: whether nothing is left of it. */
bool test_remove_tree(const char *dir);

/* Polls a condition until it holds or TEST_PATIENCE_MS are over. Return: whether it held. */
bool test_eventually(bool (*condition)(void *), void *userdata);

/* The number that a file of the kernel's has; 0: there is no such file. */
uint64_t test_read_number(const char *path);

/* Lets this process open so many more descriptors (RLIMIT_NOFILE, the soft one), whichever numbers are free: those in
 * use need not be the lowest, since Criterion leaves some open. ret_before: what the limit was, NULL: not asked for. */
void test_leave_fds(unsigned int n, struct rlimit *ret_before);
/* Lets this process have as many descriptors as it may. Return: how many. */
rlim_t test_raise_fds(void);

/* Makes huge pages of mapped shared memory, which starts and ends where one does (madvise(2),
 * MADV_COLLAPSE). The kernel refuses pages that it is just moving about, as it does when somebody
 * else asks for huge pages: they are asked for again, for TEST_PATIENCE_MS. Return: whether it did. */
bool test_make_huge(void *memory, size_t size);

/* Huge pages that are set aside (hugetlbfs), of 2 MiB: their number is one for the whole machine. So
 * who raises it, and who asks for one more than there are, does so while no other test does.
 * Return: whether so many are free now, raised if need be; if not, nothing has begun. */
bool test_huge_pages_begin(uint64_t n);
/* How many there are, and how many of these nobody has; 0 if the kernel knows none. */
uint64_t test_huge_pages(void);
uint64_t test_huge_pages_free(void);
void test_huge_pages_end(void);

/* -- chance ---------------------------------------------------------------------------- */

/* How often to do what is random or measured: SHMD_ROUNDS, or else that many times, SHMD_ROUNDS_MOST at most. */
uint64_t test_rounds(uint64_t otherwise);
/* What makes choices repeatable: SHMD_TEST_SEED, or else a new number; printed. Never 0. */
uint64_t test_seed(void);
/* The next choice, below n; *random was a seed. */
uint64_t test_random(uint64_t *random, uint64_t n);

/* -- other processes ------------------------------------------------------------------ */

/* In a child: ends with that process, also if it has ended already. After test_become(). */
void test_end_with(pid_t parent);

/* In a child: becomes uid and gid for good, without supplementary groups. */
void test_become(uid_t uid, gid_t gid);

/* Sends a copy of a descriptor through a Unix socket. Return: whether the kernel took it now. */
bool test_send_fd(int socket, int fd);
/* Return: the descriptor in the next message, -1 if there is no message now. */
int test_receive_fd(int socket);

typedef int (*TestFn)(void *userdata);

/* Forks a child that becomes uid and gid for good (no supplementary groups) and runs fn.
 * The descriptors of the test are all there. Return: what fn returned, which may be a negative
 * errno; a REQUIRE() that failed in the child fails the test. */
int run_as(uid_t uid, gid_t gid, TestFn fn, void *userdata);

/* A child that has reached a point and stays there until it is told to go on or is killed. */
typedef struct Child {
        pid_t pid;
        int go;                 /* closing it lets the child go on */
        int ready;              /* what the child wrote to it is read here */
} Child;

#define CHILD_NULL { .pid = 0, .go = -1, .ready = -1 }

/* Forks a child that runs fn. */
void child_start(Child *child, TestFn fn, void *userdata);
/* Returns when fn called child_arrive(). */
void child_await(Child *child);
/* Both. */
void child_spawn(Child *child, TestFn fn, void *userdata);
/* In the child: tells the parent that the point is reached, with a number of the child's
 * choice, and waits to be let go. */
void child_arrive(int64_t value);
/* In the child: closes every descriptor but those two, the standard ones, and keep (-1: none). */
void child_close_fds_but(int keep);
/* Lets the child go on, to arrive again. */
void child_continue(Child *child);
/* Lets the child go on, waits for its end, and requires that fn returned 0. */
void child_release(Child *child);
/* Kills the child with SIGKILL and waits for its end. */
void child_kill(Child *child);
/* The number that the child gave to child_arrive(). */
int64_t child_value(void);

/* Waits at most TEST_PATIENCE_MS for the end of a process. Return: as waitpid(2)'s status. */
int test_wait_pid(pid_t pid);

#endif
