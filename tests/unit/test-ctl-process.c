/* client/ctl/process: nobody is taken for somebody else. */

#include "buildinfo.h"

#include "lib/test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "client/ctl/process.h"

#define PIDFS_MAGIC 0x50494446

/* The inode number of a process's pidfd; 0 where all have the same. */
static uint64_t pidfd_ino(pid_t pid) {
        CLEANUP(close_fdp) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        struct statfs fs;
        struct stat st;

        REQUIRE(fd >= 0 && fstat(fd, &st) == 0 && fstatfs(fd, &fs) == 0);
        return (uint64_t)fs.f_type == PIDFS_MAGIC ? st.st_ino : 0;
}

TEST(ctl_process, who_is_recognised_is_told_by_name) {
        uint64_t ino = pidfd_ino(getpid());
        char name[16];
        Process process;

        REQUIRE(prctl(PR_GET_NAME, name) == 0);
        process_look(getpid(), ino, &process);
        if (ino == 0) {
                cr_assert_eq(process.state, PROCESS_UNKNOWN, "this kernel's numbers mean nothing");
                return;
        }
        cr_assert_eq(process.state, PROCESS_THERE);
        cr_assert_str_eq(process.comm, name);
}

TEST(ctl_process, another_number_is_another_process) {
        Process process;

        process_look(getpid(), pidfd_ino(getpid()) + UINT64_MAX / 2, &process);
        cr_assert_eq(process.state, PROCESS_GONE);
        cr_assert_str_eq(process.comm, "");
        cr_assert_str_eq(process.unit, "");
}

TEST(ctl_process, without_a_number_nobody_is_recognised) {
        Process process;

        process_look(getpid(), 0, &process);
        cr_assert_eq(process.state, PROCESS_UNKNOWN);
        cr_assert_str_eq(process.comm, "");
        process_look(0, 7, &process);
        cr_assert_eq(process.state, PROCESS_UNKNOWN);
}

static int wait_for_ever(void *userdata) {
        (void)userdata;
        child_arrive(0);
        return 0;
}

TEST(ctl_process, who_has_ended_is_gone_waited_for_or_not) {
        Child child = CHILD_NULL;
        Process process;
        siginfo_t info;
        uint64_t ino;
        pid_t pid;

        child_spawn(&child, wait_for_ever, NULL);
        pid = child.pid;
        ino = pidfd_ino(pid);
        if (ino == 0)
                ino = 1;
        REQUIRE(kill(pid, SIGKILL) == 0);
        REQUIRE(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
        process_look(pid, ino, &process);
        cr_assert_eq(process.state, PROCESS_GONE, "a zombie holds nothing");
        cr_assert_str_eq(process.comm, "");
        child_kill(&child);
        process_look(pid, ino, &process);
        cr_assert_eq(process.state, PROCESS_GONE);
}

static void expect_unit(const char *text, const char *cgroup, const char *unit) {
        Process process;

        process_read_cgroup(text, &process);
        REQUIRE(strcmp(process.cgroup, cgroup) == 0 && strcmp(process.unit, unit) == 0, "%s, %s",
                process.cgroup, process.unit);
}

TEST(ctl_process, the_unit_is_the_innermost_service_or_scope) {
        expect_unit("0::/system.slice/camera.service\n", "/system.slice/camera.service", "camera.service");
        expect_unit("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-a\\x2db.scope\n",
                    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-a\\x2db.scope", "app-a\\x2db.scope");
        expect_unit("0::/system.slice/camera.service/worker/1\n", "/system.slice/camera.service/worker/1",
                    "camera.service");
        expect_unit("0::/lxc/box\n", "/lxc/box", "");
        expect_unit("0::/.service\n", "/.service", "");
        expect_unit("0::/a.service.d\n", "/a.service.d", "");
        expect_unit("", "", "");
        expect_unit("nonsense\n::\n1:\n", "", "");
}

TEST(ctl_process, of_several_hierarchies_the_unified_or_systemds_own_counts) {
        expect_unit("12:memory:/other\n1:name=systemd:/system.slice/a.service\n0::/\n",
                    "/system.slice/a.service", "a.service");
        expect_unit("1:name=systemd:/\n0::/system.slice/b.service\n", "/system.slice/b.service", "b.service");
        expect_unit("5:cpu,cpuacct:/x.service\n", "", "");
}

TEST(ctl_process, a_unit_that_is_too_long_is_none) {
        char text[900] = "0::/", path[900];

        memset(text + 4, 'x', 600);
        strcpy(text + 604, ".service");
        strcpy(path, text + 3);
        expect_unit(text, path, "");
}

TEST(ctl_process, pids_of_a_process_in_the_same_namespace_are_ours) {
        cr_assert(process_shares_pids(getpid()));
        cr_assert(process_shares_pids(getppid()));
        cr_assert(!process_shares_pids(0), "it is in no namespace of ours");
        cr_assert(!process_shares_pids(-1));
}
