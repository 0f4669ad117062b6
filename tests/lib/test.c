/* What every test stands on: see the header for the model. */

#include "lib/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* The uids of brokers: so many. */
#define BROKER_UIDS 62000
#define N_BROKER_UIDS 2000

static pid_t test_pid;
static uid_t broker_uid;

/* In a child of child_spawn(): the two ends it was given. */
static int child_go = -1;
static int child_ready = -1;

/* In the parent: what the latest child said. */
static int64_t value;

/* The next uid that no other test has. It is held with an abstract socket of its name, which ends with the test
 * however that ends. */
static void claim_broker_uid(void) {
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        REQUIRE(fd >= 0);
        for (unsigned int n = (unsigned int)getpid();; ++n) {
                struct sockaddr_un address = { .sun_family = AF_UNIX };

                broker_uid = BROKER_UIDS + n % N_BROKER_UIDS;
                (void)snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "shmd-test-uid-%u", broker_uid);
                if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
                        return;
                REQUIRE(errno == EADDRINUSE);
        }
}

size_t test_begin(void) {
        test_pid = getpid();
        /* Other users read what tests write for them. */
        (void)umask(022);
        claim_broker_uid();
        return test_count_fds();
}

uid_t test_broker_uid(void) {
        return broker_uid;
}

size_t test_count_fds(void) {
        DIR *dir = opendir("/proc/self/fd");
        size_t n = 0;

        if (!dir)
                test_fail(__FILE__, __LINE__, "opendir(/proc/self/fd)", " %s", strerror(errno));
        while (readdir(dir))
                ++n;
        (void)closedir(dir);
        return n - 3;           /* ".", ".." and the directory's own */
}

const char *test_program(const char *name) {
        static char paths[8][512];
        static unsigned int next;
        const char *programs = getenv("SHMD_TEST_PROGRAMS"), *build = getenv("SHMD_TEST_BUILDDIR");
        char *path = paths[next++ % 8];

        if (programs) {
                (void)snprintf(path, sizeof(paths[0]), "%s/%s", programs, name);
                if (access(path, F_OK) == 0)
                        return path;
        }
        (void)snprintf(path, sizeof(paths[0]), "%s/%s", build ? build : ".", name);
        return path;
}

void test_leave_fds(unsigned int n, struct rlimit *ret_before) {
        struct rlimit limit;
        int end = 0;

        REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        if (ret_before)
                *ret_before = limit;
        for (unsigned int free = 0; free <= n; ++end)
                free += fcntl(end, F_GETFD) < 0;
        limit.rlim_cur = (rlim_t)end - 1;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

rlim_t test_raise_fds(void) {
        struct rlimit limit;

        REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        limit.rlim_cur = limit.rlim_max;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        return limit.rlim_cur;
}

void test_fail(const char *file, int line, const char *condition, const char *format, ...) {
        const char *base = strrchr(file, '/');
        char text[1024];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);

        if (test_pid && getpid() != test_pid) {
                fprintf(stderr, "%s:%d (child): %s:%s\n", base ? base + 1 : file, line, condition, text);
                _exit(TEST_CHILD_FAILED);
        }
        cr_assert_fail("%s:%d: %s:%s", base ? base + 1 : file, line, condition, text);
        abort();
}

void test_skip(const char *format, ...) {
        const char *forbidden = getenv("SHMD_NO_SKIP");
        char text[512];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);

        if (forbidden && strcmp(forbidden, "1") == 0)
                cr_assert_fail("may not be skipped here (SHMD_NO_SKIP=1): %s", text);
        else
                cr_skip_test("%s", text);
}

void test_leave_out(const char *format, ...) {
        const char *forbidden = getenv("SHMD_NO_SKIP");
        char text[512];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);

        if (forbidden && strcmp(forbidden, "1") == 0)
                cr_assert_fail("may not be left out here (SHMD_NO_SKIP=1): %s", text);
        fprintf(stderr, "left out here: %s\n", text);
}

void test_needs_root(void) {
        if (geteuid() != 0)
                test_skip("needs root, to be several users");
}

int64_t test_now_ns(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t test_now_ms(void) {
        return test_now_ns() / 1000000;
}

void test_sleep_ms(int ms) {
        struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

        while (nanosleep(&t, &t) < 0 && errno == EINTR)
                continue;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return remove(path);
}

bool test_remove_tree(const char *dir) {
        return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0;
}

bool test_eventually(bool (*condition)(void *), void *userdata) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;

        for (int ms = 1;; ms = ms < 50 ? ms * 2 : 50) {
                if (condition(userdata))
                        return true;
                if (test_now_ms() > end)
                        return false;
                test_sleep_ms(ms);
        }
}

bool test_make_huge(void *memory, size_t size) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;

        while (madvise(memory, size, MADV_COLLAPSE) != 0) {
                /* EINVAL: the kernel has none. */
                if ((errno != EAGAIN && errno != ENOMEM) || test_now_ms() > end)
                        return false;
                test_sleep_ms(10);
        }
        return true;
}

uint64_t test_read_number(const char *path) {
        FILE *file = fopen(path, "re");
        uint64_t n = 0;

        if (!file && errno == ENOENT)
                return 0;
        REQUIRE(file != NULL && fscanf(file, "%" SCNu64, &n) == 1, "%s: %s", path, strerror(errno));
        (void)fclose(file);
        return n;
}

#define HUGE_PAGES "/sys/kernel/mm/hugepages/hugepages-2048kB"

static int huge_pages = -1;             /* that directory, locked */
static uint64_t n_huge_pages;           /* what there were */

uint64_t test_huge_pages(void) {
        return test_read_number(HUGE_PAGES "/nr_hugepages");
}

/* What is reserved counts as free there, but is somebody's. */
uint64_t test_huge_pages_free(void) {
        return test_read_number(HUGE_PAGES "/free_hugepages") - test_read_number(HUGE_PAGES "/resv_hugepages");
}

static bool set_huge_pages(uint64_t n) {
        FILE *file = fopen(HUGE_PAGES "/nr_hugepages", "we");

        if (!file)
                return false;
        (void)fprintf(file, "%" PRIu64, n);
        return fclose(file) == 0;
}

static bool is_ours(void *userdata) {
        (void)userdata;
        return flock(huge_pages, LOCK_EX | LOCK_NB) == 0;
}

/* The kernel gives as many as it finds just then. Who may not ask has nothing to wait for. */
static bool is_raised(void *userdata) {
        uint64_t n = *(uint64_t *)userdata;

        return test_huge_pages_free() >= n || !set_huge_pages(n_huge_pages + n) || test_huge_pages_free() >= n;
}

bool test_huge_pages_begin(uint64_t n) {
        huge_pages = open(HUGE_PAGES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (huge_pages < 0)
                return false;
        if (!test_eventually(is_ours, NULL))
                test_fail(__FILE__, __LINE__, HUGE_PAGES, " another test has it for more than %d ms",
                          TEST_PATIENCE_MS);
        n_huge_pages = test_huge_pages();
        (void)test_eventually(is_raised, &n);
        if (test_huge_pages_free() >= n)
                return true;
        test_huge_pages_end();
        return false;
}

void test_huge_pages_end(void) {
        if (test_huge_pages() != n_huge_pages)
                (void)set_huge_pages(n_huge_pages);
        (void)flock(huge_pages, LOCK_UN);
        huge_pages = close_fd(huge_pages);
}

static bool has_ended(void *userdata) {
        int *status = userdata;         /* [0] the pid, then the status */
        pid_t pid = waitpid(status[0], &status[1], WNOHANG);

        return pid == status[0] || (pid < 0 && errno == ECHILD);
}

int test_wait_pid(pid_t pid) {
        int status[2] = { pid, -1 };

        if (!test_eventually(has_ended, status)) {
                (void)kill(pid, SIGKILL);
                (void)waitpid(pid, NULL, 0);
                test_fail(__FILE__, __LINE__, "the process ends", " pid %d did not", (int)pid);
        }
        return status[1];
}

uint64_t test_rounds(uint64_t otherwise) {
        const char *rounds = getenv("SHMD_ROUNDS"), *text = getenv("SHMD_ROUNDS_MOST");
        uint64_t most = text ? strtoull(text, NULL, 10) : UINT64_MAX;

        return rounds ? strtoull(rounds, NULL, 10) : otherwise < most ? otherwise : most;
}

uint64_t test_seed(void) {
        const char *given = getenv("SHMD_TEST_SEED");
        uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)test_now_ns() ^ (uint64_t)getpid() << 32;

        seed |= 1;
        fprintf(stderr, "seed %" PRIu64 "\n", seed);
        return seed;
}

/* xorshift64*: a state is never 0. */
uint64_t test_random(uint64_t *random, uint64_t n) {
        *random ^= *random >> 12;
        *random ^= *random << 25;
        *random ^= *random >> 27;
        return (*random * UINT64_C(0x2545f4914f6cdd1d) >> 32) % n;
}

typedef union FdMessage {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
} FdMessage;

bool test_send_fd(int socket, int fd) {
        FdMessage control = { .align = { .cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET,
                                         .cmsg_type = SCM_RIGHTS } };
        struct iovec iov = { .iov_base = (void *)"x", .iov_len = 1 };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                              .msg_controllen = sizeof(control) };

        memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
        if (sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
                return true;
        REQUIRE(errno == EAGAIN || errno == ETOOMANYREFS, "sendmsg: %s", strerror(errno));
        return false;
}

int test_receive_fd(int socket) {
        FdMessage control;
        char byte;
        struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                              .msg_controllen = sizeof(control) };
        int fd;

        if (recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
                return -1;
        REQUIRE(msg.msg_controllen >= CMSG_LEN(sizeof(fd)) && control.align.cmsg_type == SCM_RIGHTS);
        memcpy(&fd, CMSG_DATA(&control.align), sizeof(fd));
        return fd;
}

/* setgroups(2) and its kin as raw calls: a child of fork has one thread. */
void test_become(uid_t uid, gid_t gid) {
        if (geteuid() == 0)
                REQUIRE(syscall(SYS_setgroups, 0, NULL) == 0, "%s", strerror(errno));
        if (getegid() != gid || geteuid() != uid) {
                REQUIRE(syscall(SYS_setresgid, gid, gid, gid) == 0, "%s", strerror(errno));
                REQUIRE(syscall(SYS_setresuid, uid, uid, uid) == 0, "%s", strerror(errno));
        }
}

void test_end_with(pid_t parent) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(0);
}

static pid_t fork_quietly(void) {
        pid_t pid;

        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0, "fork: %s", strerror(errno));
        return pid;
}

void test_needs_namespaces(int flags) {
        int status, error;
        pid_t pid;

        test_needs_root();
        pid = fork_quietly();
        if (pid == 0)
                _exit(unshare(flags & ~CLONE_NEWUSER) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
                      unshare(flags & CLONE_NEWUSER) ? errno : 0);
        status = test_wait_pid(pid);
        error = WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
        if (error)
                test_skip("needs namespaces and mounts of its own: %s", strerror(error));
}

int run_as(uid_t uid, gid_t gid, TestFn fn, void *userdata) {
        int result = -1, status, fds[2];
        pid_t pid;

        REQUIRE(pipe(fds) == 0);
        pid = fork_quietly();
        if (pid == 0) {
                test_become(uid, gid);
                result = fn(userdata);
                REQUIRE(write(fds[1], &result, sizeof(result)) == sizeof(result));
                _exit(0);
        }
        close_fd(fds[1]);
        status = test_wait_pid(pid);
        if (read(fds[0], &result, sizeof(result)) != sizeof(result))
                status = -1;
        close_fd(fds[0]);
        REQUIRE(status == 0, "the child ended with status %#x", status);
        return result;
}

void child_start(Child *child, TestFn fn, void *userdata) {
        pid_t parent = getpid();
        int go[2], ready[2];

        REQUIRE(pipe(go) == 0 && pipe(ready) == 0);
        child->pid = fork_quietly();
        if (child->pid == 0) {
                test_end_with(parent);
                close_fd(go[1]);
                close_fd(ready[0]);
                child_go = go[0];
                child_ready = ready[1];
                _exit(fn(userdata) == 0 ? 0 : TEST_CHILD_FAILED);
        }
        close_fd(go[0]);
        close_fd(ready[1]);
        child->go = go[1];
        child->ready = ready[0];
}

void child_await(Child *child) {
        struct pollfd p = { .fd = child->ready, .events = POLLIN };

        REQUIRE(poll(&p, 1, 2 * TEST_PATIENCE_MS) == 1, "the child did not arrive");
        if (read(child->ready, &value, sizeof(value)) != sizeof(value)) {
                pid_t pid = child->pid;

                child_kill(child);
                test_fail(__FILE__, __LINE__, "the child arrives", " child %d ended before", (int)pid);
        }
}

void child_spawn(Child *child, TestFn fn, void *userdata) {
        child_start(child, fn, userdata);
        child_await(child);
}

void child_arrive(int64_t v) {
        char byte;

        REQUIRE(write(child_ready, &v, sizeof(v)) == sizeof(v));
        while (read(child_go, &byte, 1) < 0 && errno == EINTR)
                continue;
}

int64_t child_value(void) {
        return value;
}

void child_close_fds_but(int keep) {
        for (int fd = 3; fd < 4096; ++fd)
                if (fd != keep && fd != child_go && fd != child_ready)
                        (void)close(fd);
}

static void child_forget(Child *child) {
        child->go = close_fd(child->go);
        child->ready = close_fd(child->ready);
        child->pid = 0;
}

/* A byte, because children that were forked later may have this end too. */
void child_continue(Child *child) {
        (void)signal(SIGPIPE, SIG_IGN);
        (void)!write(child->go, "", 1);
}

void child_release(Child *child) {
        int status;

        child_continue(child);
        child->go = close_fd(child->go);
        status = test_wait_pid(child->pid);
        child_forget(child);
        REQUIRE(status == 0, "the child ended with status %#x", status);
}

void child_kill(Child *child) {
        if (child->pid > 0) {
                (void)kill(child->pid, SIGKILL);
                (void)test_wait_pid(child->pid);
        }
        child_forget(child);
}
