/* daemon/sandbox: behind the closed door the broker can do its work, and nothing else. */

#include "buildinfo.h"

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/state.h"
#include "sandbox.h"
#include "util/log.h"
#include "util/memfd.h"
#include "util/peercred.h"
#include "util/probe.h"

static void enter(void) {
        int landlock = -1;

        REQUIRE(sandbox_enter(SANDBOX_BROKER, &landlock) == 0);
        REQUIRE(landlock == 0 || landlock == 1);
}

/* -- what still works ----------------------------------------------------------------------------- */

static int live_and_die(void *userdata) {
        static House house;
        Asker asker = { .uid = ALICE };
        Region *region;
        Grant *grant;
        int fd;

        house_open(&house);
        asker.account = house_account(&house, ALICE);
        enter();
        region = house_named(&house, asker.account, "/x", 1 << 20);
        REQUIRE(grant_new(&grant, &fd, &house.grants, region, &asker, true, NULL) == 0);
        REQUIRE(grant->marked == probe_have(PROBE_MARKER));
        region_unlink(region);
        close_fd(fd);
        memfd_collect();
        for (int i = 0; i < 5000 && house.regions.n > 0; ++i) {
                if (regions_fd(&house.regions) >= 0)
                        regions_dispatch(&house.regions);
                deadlines_run(&house.deadlines, time_now());
        }
        REQUIRE(house.regions.n == 0);
        asker.account = account_unref(asker.account);
        house_close(&house);
        return 0;
}

TEST(sandbox, regions_are_made_granted_watched_and_released) {
        house_expect_child(live_and_die, NULL);
}

static int reopen_both_ways(void *userdata) {
        int fd, reader, writer;

        REQUIRE(probe_run() == 0);
        REQUIRE(memfd_make(&(MemfdSpec){ .size = 4096 }, &fd) == 0);
        enter();
        REQUIRE(memfd_reopen(fd, false, &reader) == 0 && memfd_reopen(fd, true, &writer) == 0);
        REQUIRE(memfd_make(&(MemfdSpec){ .size = 4096 }, &fd) == 0);
        return 0;
}

TEST(sandbox, memfds_are_opened_through_proc_without_any_file_system) {
        house_expect_child(reopen_both_ways, NULL);
}

static int talk(void *userdata) {
        int ends[2], unread, size = 65536;
        char byte = 'x';
        Peercred cred;
        LogLine line;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        REQUIRE(log_open(2) == 0);
        enter();
        REQUIRE(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
        REQUIRE(send(ends[0], &byte, 1, MSG_DONTWAIT) == 1);
        REQUIRE(ioctl(ends[0], SIOCOUTQ, &unread) == 0 && unread > 0);
        REQUIRE(recv(ends[1], &byte, 1, MSG_DONTWAIT) == 1);
        REQUIRE(peercred_read(ends[0], &cred) == 0);
        REQUIRE(shutdown(ends[0], SHUT_RDWR) == 0);
        log_begin(&line, LOG_NOTE, "test");
        log_end(&line);
        return 0;
}

TEST(sandbox, peers_are_read_and_answered_and_the_log_is_written) {
        house_expect_child(talk, NULL);
}

static int use_memory(void *userdata) {
        void *blocks[64];

        enter();
        for (size_t i = 0; i < 64; ++i) {
                blocks[i] = malloc(i << 14);
                REQUIRE(i == 0 || blocks[i]);
        }
        for (size_t i = 0; i < 64; ++i)
                free(blocks[i]);
        return 0;
}

TEST(sandbox, memory_is_had_and_given_back) {
        house_expect_child(use_memory, NULL);
}

static size_t encode_nothing(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        (void)record;
        memset(data, 0, STATE_RECORD_MAX);
        return STATE_RECORD_MAX;
}

static int save(void *userdata) {
        StateRecord record = STATE_RECORD_NULL;
        State *state;

        REQUIRE(state_new(&state, UINT32_C(1) << 20) == 0);
        state_set_encoder(state, STATE_REGION, encode_nothing);
        enter();
        REQUIRE(state_make_room(state, 100000) == 0);
        state_add(state, &record, STATE_REGION, 1);
        state_commit(state);
        state_drop(&record);
        state = state_free(state);
        return 0;
}

TEST(sandbox, a_state_grows_and_is_written) {
        house_expect_child(save, NULL);
}

static int abort_inside(void *userdata) {
        enter();
        abort();
}

TEST(sandbox, a_failed_assertion_ends_it_as_one_and_not_as_a_forbidden_call) {
        house_expect_signal(SIGABRT, abort_inside, NULL);
}

/* -- what does not --------------------------------------------------------------------------------- */

static long do_socket(void) { return socket(AF_UNIX, SOCK_STREAM, 0); }
static long do_connect(void) { return syscall(SYS_connect, 0, NULL, 0); }
static long do_bind(void) { return syscall(SYS_bind, 0, NULL, 0); }
static long do_fork(void) { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }
static long do_exec(void) { return syscall(SYS_execve, "/bin/true", NULL, NULL); }
static long do_kill(void) { return syscall(SYS_kill, 1, 0); }
static long do_ptrace(void) { return ptrace(PTRACE_TRACEME, 0, NULL, NULL); }
static long do_unlink(void) { return syscall(SYS_unlinkat, AT_FDCWD, "/nonexistent", 0); }
static long do_mkdir(void) { return syscall(SYS_mkdirat, AT_FDCWD, "/nonexistent/x", 0755); }
static long do_setuid(void) { return syscall(SYS_setuid, 0); }
static long do_chmod(void) { return syscall(SYS_fchmodat, AT_FDCWD, "/nonexistent", 0600); }
static long do_unshare(void) { return syscall(SYS_unshare, 0); }
static long do_create(void) { return open("/nonexistent/x", O_WRONLY | O_CREAT, 0600); }
static long do_truncate(void) { return open("/nonexistent/x", O_WRONLY | O_TRUNC); }
static long do_fchmod(void) { return fchmod(0, 0666); }
static long do_setfl(void) { return fcntl(0, F_SETFL, 0); }
static long do_setown(void) { return fcntl(0, F_SETOWN, 1); }
static long do_ioctl(void) { return ioctl(0, FIONREAD, NULL); }
static long do_allocate(void) { return fallocate(0, 0, 0, 4096); }
static long do_collapse(void) { return fallocate(0, FALLOC_FL_COLLAPSE_RANGE, 0, 4096); }
static long do_sockopt(void) { return setsockopt(0, SOL_SOCKET, SO_PASSCRED, NULL, 0); }
static long do_other_sockopt(void) { return getsockopt(0, 6, 1, NULL, NULL); }
static long do_exec_map(void) {
        return (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static long do_exec_protect(void) { return mprotect((void *)((uintptr_t)do_socket & ~4095UL), 4096,
                                                    PROT_EXEC | PROT_READ); }
static long do_process_vm(void) { return syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0); }
static long do_io_uring(void) { return syscall(SYS_io_uring_setup, 1, NULL); }
#ifndef SHMD_SANITIZERS
static long do_prctl(void) { return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }
#endif

static const struct {
        const char *name;
        long (*call)(void);
} forbidden[] = {
        { "socket", do_socket }, { "connect", do_connect }, { "bind", do_bind }, { "fork", do_fork }, { "exec",
                                                                                                        do_exec },
        { "kill", do_kill }, { "ptrace", do_ptrace }, { "unlink", do_unlink }, { "mkdir", do_mkdir },
        { "setuid", do_setuid }, { "chmod", do_chmod }, { "unshare", do_unshare }, { "O_CREAT", do_create },
        { "O_TRUNC", do_truncate }, { "fchmod 0666", do_fchmod }, { "F_SETFL", do_setfl }, { "F_SETOWN", do_setown },
        { "FIONREAD", do_ioctl }, { "FALLOC_FL_COLLAPSE_RANGE", do_collapse }, { "SO_PASSCRED", do_sockopt },
        { "getsockopt of TCP", do_other_sockopt }, { "mmap PROT_EXEC", do_exec_map },
        { "mprotect PROT_EXEC", do_exec_protect }, { "process_vm_readv", do_process_vm },
        { "io_uring_setup", do_io_uring },
#ifndef SHMD_SANITIZERS
        { "prctl", do_prctl },
#endif
};

static int do_forbidden(void *userdata) {
        enter();
        (void)forbidden[*(size_t *)userdata].call();
        return 0;
}

TEST(sandbox, every_call_that_serving_clients_does_not_need_kills_it) {
        for (size_t i = 0; i < sizeof(forbidden) / sizeof(*forbidden); ++i) {
                int status = house_fork(do_forbidden, &i);

                cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s ended with %#x", forbidden[i].name,
                          status);
        }
}

/* -- the helper's processes ------------------------------------------------------------------------ */

static long do_fork_properly(void) { pid_t pid = fork(); return pid == 0 ? (_exit(0), 0) : pid; }
static long do_thread(void) { return syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0); }
static long do_namespace(void) { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); }
static long do_term(void) { return kill(getppid(), SIGTERM); }
static long do_open(void) { return open("/proc/self/fd/0", O_RDONLY | O_CLOEXEC); }
static long do_read(void) { return read(0, NULL, 0); }
static long do_write(void) { return write(1, "", 0); }
static long do_write_two(void) { return pwrite(0, "xx", 2, 0); }
static long do_memfd(void) { return memfd_create("x", MFD_CLOEXEC); }
static long do_ftruncate(void) { return ftruncate(0, 0); }
static long do_punch(void) { return fallocate(0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096); }
static long do_lease(void) { return fcntl(0, F_SETLEASE, F_UNLCK); }
static long do_dup(void) { return fcntl(0, F_DUPFD_CLOEXEC, 0); }
static long do_socketpair(void) { int ends[2]; return socketpair(AF_UNIX, SOCK_STREAM, 0, ends); }
static long do_inet_pair(void) { int ends[2]; return socketpair(AF_INET, SOCK_STREAM, 0, ends); }
static long do_seccomp(void) { return syscall(SYS_seccomp, 0, 0, NULL); }
#ifndef SHMD_SANITIZERS
static long do_mmap(void) { return (long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static long do_dumpable(void) { return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }
#endif
static long do_epoll(void) { return syscall(SYS_epoll_create1, 0); }
static long do_inotify(void) { return syscall(SYS_inotify_init1, 0); }

typedef struct Attempt {
        const char *name;
        long (*call)(void);
        bool supervisor;        /* may it */
} Attempt;

/* A worker may do none of it. */
static const Attempt helper_attempts[] = {
        { "socket", do_socket, false }, { "connect", do_connect, false }, { "bind", do_bind, false },
        { "socketpair", do_socketpair, true }, { "socketpair of another family", do_inet_pair, false },
        { "fork", do_fork_properly, true }, { "thread", do_thread, false }, { "namespace", do_namespace, false },
        { "exec", do_exec, false }, { "kill with SIGTERM", do_term, false }, { "ptrace", do_ptrace, false },
        { "open", do_open, false }, { "unlink", do_unlink, false }, { "memfd_create", do_memfd, false },
        { "read", do_read, false }, { "write to 1", do_write, false }, { "pwrite of two bytes", do_write_two, false },
        { "ftruncate", do_ftruncate, false }, { "fchmod", do_fchmod, false }, { "fallocate", do_allocate, false },
        { "punch", do_punch, false }, { "F_SETLEASE", do_lease, false }, { "F_DUPFD", do_dup, false },
        { "F_SETFL", do_setfl, false }, { "ioctl", do_ioctl, false }, { "setuid", do_setuid, false },
        { "unshare", do_unshare, false }, { "process_vm_readv", do_process_vm, false },
        { "io_uring_setup", do_io_uring, false }, { "epoll", do_epoll, false }, { "inotify", do_inotify, false },
        { "mmap PROT_EXEC", do_exec_map, false }, { "mprotect PROT_EXEC", do_exec_protect, false },
        { "seccomp", do_seccomp, true },
#ifndef SHMD_SANITIZERS
        { "mmap", do_mmap, true }, { "prctl", do_dumpable, false },
#endif
};

static int as_supervisor(void *userdata) {
        int landlock;

        REQUIRE(sandbox_enter(SANDBOX_SUPERVISOR, &landlock) == 0);
        (void)((const Attempt *)userdata)->call();
        return 0;
}

static int as_worker(void *userdata) {
        int landlock;

        REQUIRE(sandbox_enter(SANDBOX_SUPERVISOR, &landlock) == 0);
        REQUIRE(sandbox_enter(SANDBOX_WORKER, &landlock) == 0);
        (void)((const Attempt *)userdata)->call();
        return 0;
}

TEST(sandbox, the_helpers_supervisor_can_fork_and_kill_and_nothing_else) {
        for (size_t i = 0; i < sizeof(helper_attempts) / sizeof(*helper_attempts); ++i) {
                Attempt attempt = helper_attempts[i];
                int status = house_fork(as_supervisor, &attempt);

                if (attempt.supervisor)
                        cr_assert_eq(status, 0, "%s ended with %#x", attempt.name, status);
                else
                        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s ended with %#x", attempt.name,
                                  status);
        }
}

TEST(sandbox, a_helpers_worker_can_do_nothing_but_its_jobs) {
        for (size_t i = 0; i < sizeof(helper_attempts) / sizeof(*helper_attempts); ++i) {
                Attempt attempt = helper_attempts[i];
                int status = house_fork(as_worker, &attempt);

                cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s ended with %#x", attempt.name, status);
        }
}

/* -- the keeper --------------------------------------------------------------------------------- */

static long do_mount(void) { return syscall(SYS_mount, "none", "/nonexistent", "tmpfs", 0, NULL); }
static long do_module(void) { return syscall(SYS_init_module, NULL, 0, ""); }
static long do_setns(void) { return syscall(SYS_setns, -1, 0); }
static long do_userfaultfd(void) { return syscall(SYS_userfaultfd, 0); }
static long do_keyctl(void) { return syscall(SYS_keyctl, 0, 0, 0); }
static long do_bpf(void) { return syscall(SYS_bpf, 0, NULL, 0); }

static int forbid_to_keeper(void *userdata) {
        static const struct {
                const char *name;
                long (*call)(void);
        } calls[] = {
                { "ptrace", do_ptrace }, { "process_vm_readv", do_process_vm }, { "io_uring_setup", do_io_uring },
                { "unshare", do_unshare }, { "mount", do_mount }, { "init_module", do_module }, { "setns", do_setns },
                { "userfaultfd", do_userfaultfd }, { "clone CLONE_NEWUSER", do_namespace }, { "keyctl", do_keyctl },
                { "bpf", do_bpf },
        };
        int landlock;

        REQUIRE(sandbox_enter(SANDBOX_KEEPER, &landlock) == 0);
        for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); ++i) {
                errno = 0;
                REQUIRE(calls[i].call() == -1 && errno == EPERM, "%s: %s", calls[i].name, strerror(errno));
        }
        REQUIRE(syscall(SYS_clone3, NULL, 0) == -1 && errno == ENOSYS, "libc then uses clone()");
        return 0;
}

TEST(sandbox, what_no_broker_needs_fails_in_the_keeper) {
        house_expect_child(forbid_to_keeper, NULL);
}

/* Files, programs, and another filter on top of this one. */
static int be_keeper(void *userdata) {
        int landlock, status;
        pid_t pid;

        REQUIRE(sandbox_enter(SANDBOX_KEEPER, &landlock) == 0);
        REQUIRE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
        REQUIRE(access("/", R_OK) == 0);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                (void)execl("/bin/true", "true", NULL);
                _exit(1);
        }
        REQUIRE(waitpid(pid, &status, 0) == pid && status == 0, "%#x", status);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                enter();
                (void)do_ptrace();
                _exit(0);
        }
        REQUIRE(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS,
                "what a broker must not do kills it, the keeper's filter or not: %#x", status);
        return 0;
}

TEST(sandbox, a_keeper_can_start_what_it_has_to_start) {
        house_expect_child(be_keeper, NULL);
}

static int abort_as_worker(void *userdata) {
        int landlock;

        REQUIRE(sandbox_enter(SANDBOX_SUPERVISOR, &landlock) == 0);
        REQUIRE(sandbox_enter(SANDBOX_WORKER, &landlock) == 0);
        abort();
}

TEST(sandbox, a_worker_that_aborts_is_seen_to_abort) {
        house_expect_signal(SIGABRT, abort_as_worker, NULL);
}

/* -- the file system ------------------------------------------------------------------------------- */

static int open_paths(void *userdata) {
        static const char *const paths[] = { "/etc/passwd", "/", "/dev/null", "/proc/self/status", "." };
        int landlock = 0;

        REQUIRE(sandbox_enter(SANDBOX_BROKER, &landlock) == 0);
        for (size_t i = 0; landlock && i < sizeof(paths) / sizeof(*paths); ++i) {
                REQUIRE(open(paths[i], O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES, "%s", paths[i]);
                REQUIRE(open(paths[i], O_WRONLY | O_CLOEXEC) < 0, "%s", paths[i]);
        }
        return landlock ? 0 : 2;
}

TEST(sandbox, no_path_can_be_opened_where_the_kernel_has_landlock) {
        int status = house_fork(open_paths, NULL);

        if (status == 2 << 8)
                test_skip("this kernel has no Landlock");
        cr_assert_eq(status, 0, "%#x", status);
}

/* The broker holds it to open regions again: it leads to what is open already and is no file, and nowhere else. */
static int leave_the_directory_of_descriptors(void *userdata) {
        static const char *const ways[] = { ".", "..", "../..", "../mem", "../environ", "../root/etc/passwd",
                                            "../../1/status" };
        int directory = open("/proc/self/fd", O_PATH | O_DIRECTORY), landlock = 0, file, memfd, opened;
        char name[16];

        REQUIRE(probe_run() == 0);
        REQUIRE(directory >= 0 && memfd_make(&(MemfdSpec){ .size = 4096 }, &memfd) == 0);
        file = open("/proc/self/status", O_RDONLY);
        memfd_hold_directory(true);
        REQUIRE(sandbox_enter(SANDBOX_BROKER, &landlock) == 0);
        REQUIRE(memfd_reopen(memfd, true, &opened) == 0);
        for (size_t i = 0; landlock && i < sizeof(ways) / sizeof(*ways); ++i)
                REQUIRE(openat(directory, ways[i], O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES, "%s", ways[i]);
        (void)snprintf(name, sizeof(name), "%d", file);
        REQUIRE(!landlock || (openat(directory, name, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES));
        return landlock ? 0 : 2;
}

TEST(sandbox, the_directory_of_descriptors_leads_nowhere) {
        int status = house_fork(leave_the_directory_of_descriptors, NULL);

        if (status == 2 << 8)
                test_skip("this kernel has no Landlock");
        cr_assert_eq(status, 0, "%#x", status);
}

static int without_landlock(void *userdata) {
        int landlock = -1;

        house_deny(*(int *)userdata, SCMP_SYS(landlock_create_ruleset), 0, NULL);
        REQUIRE(sandbox_enter(SANDBOX_BROKER, &landlock) == 0 && landlock == 0);
        (void)do_socket();
        return 0;
}

TEST(sandbox, a_kernel_without_landlock_still_filters_calls) {
        int errors[] = { ENOSYS, EOPNOTSUPP };

        for (size_t i = 0; i < 2; ++i)
                house_expect_signal(SIGSYS, without_landlock, &errors[i]);
}

static int landlock_fails(void *userdata) {
        int landlock = -1;

        house_deny(EPERM, SCMP_SYS(landlock_restrict_self), 0, NULL);
        return sandbox_enter(SANDBOX_BROKER, &landlock) == -EPERM ? 0 : 1;
}

TEST(sandbox, a_door_that_does_not_close_is_an_error) {
        house_expect_child(landlock_fails, NULL);
}

/* -- privileges ------------------------------------------------------------------------------------ */

static bool has_no_capabilities(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2];

        REQUIRE(syscall(SYS_capget, &header, data) == 0);
        for (int i = 0; i < 2; ++i)
                if (data[i].effective || data[i].permitted || data[i].inheritable)
                        return false;
        return true;
}

static int drop_to_a_user(void *userdata) {
        gid_t groups[8];
        uid_t r, e, s;
        gid_t gr, ge, gs;

        REQUIRE(sandbox_drop_privileges(ALICE, BOB) == 0);
        REQUIRE(getresuid(&r, &e, &s) == 0 && r == ALICE && e == ALICE && s == ALICE);
        REQUIRE(getresgid(&gr, &ge, &gs) == 0 && gr == BOB && ge == BOB && gs == BOB);
        REQUIRE(getgroups(8, groups) == 0, "no supplementary group is left");
        REQUIRE(has_no_capabilities());
        for (unsigned long cap = 0; cap <= CAP_LAST_CAP; ++cap)
                REQUIRE(prctl(PR_CAPBSET_READ, cap, 0, 0, 0) <= 0, "capability %lu can be had again", cap);
        REQUIRE(syscall(SYS_setuid, 0) < 0 && errno == EPERM);
        return 0;
}

TEST(sandbox, root_becomes_the_user_for_good) {
        test_needs_root();
        house_expect_child(drop_to_a_user, NULL);
}

static int drop_and_stay_root(void *userdata) {
        REQUIRE(sandbox_drop_privileges(0, 0) == 0);
        REQUIRE(geteuid() == 0 && has_no_capabilities());
        REQUIRE(syscall(SYS_setuid, ALICE) < 0 && errno == EPERM);
        return 0;
}

TEST(sandbox, root_that_stays_root_has_no_capability) {
        test_needs_root();
        house_expect_child(drop_and_stay_root, NULL);
}

static int drop_as_a_user(void *userdata) {
        REQUIRE(sandbox_drop_privileges(geteuid(), getegid()) == 0);
        return has_no_capabilities() ? 0 : 1;
}

TEST(sandbox, an_ordinary_user_needs_nothing_to_drop_nothing) {
        test_needs_root();
        cr_assert_eq(run_as(ALICE, ALICE, drop_as_a_user, NULL), 0);
}

/* A child that has closed the door, and waits for ever. */
static pid_t inside;

static int inspect(void *userdata) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/0", (int)inside);
        REQUIRE(open(path, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES, "%s", strerror(errno));
        (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)inside);
        REQUIRE(open(path, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES, "%s", strerror(errno));
        REQUIRE(ptrace(PTRACE_SEIZE, inside, NULL, NULL) < 0 && errno == EPERM);
        return 0;
}

TEST(sandbox, its_own_uid_gets_at_neither_memory_nor_descriptors) {
        int fds[2], idle[2];
        char byte;

        test_needs_root();
        REQUIRE(pipe2(fds, O_CLOEXEC) == 0 && pipe2(idle, O_CLOEXEC) == 0);
        inside = fork();
        REQUIRE(inside >= 0);
        if (inside == 0) {
                REQUIRE(sandbox_drop_privileges(ALICE, ALICE) == 0);
                /* Becoming somebody else forgets this one: a test that fails must not leave it behind. */
                REQUIRE(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
                /* As a user's own broker is, which never changed its uid. */
                REQUIRE(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
                enter();
                REQUIRE(write(fds[1], "x", 1) == 1);
                (void)!read(idle[0], &byte, 1);
        }
        REQUIRE(read(fds[0], &byte, 1) == 1);
        cr_assert_eq(run_as(ALICE, ALICE, inspect, NULL), 0);
        REQUIRE(kill(inside, SIGKILL) == 0);
        (void)test_wait_pid(inside);
        for (int i = 0; i < 2; ++i) {
                close_fd(fds[i]);
                close_fd(idle[i]);
        }
}
