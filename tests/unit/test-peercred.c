/* daemon/util/peercred: who connected, as numbers, or nobody at all. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/peercred.h"
#include "util/probe.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

static int ends[2];

static void connect_ends(void) {
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
}

static void close_ends(void) {
        ends[0] = close_fd(ends[0]);
        ends[1] = close_fd(ends[1]);
}

/* Connects as somebody else, and is root again. Only ever done in a child. */
static void connect_as(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        REQUIRE(syscall(SYS_setgroups, n_groups, groups) == 0, "%s", strerror(errno));
        REQUIRE(syscall(SYS_setresgid, -1, gid, -1) == 0 && syscall(SYS_setresuid, -1, uid, -1) == 0);
        connect_ends();
        REQUIRE(syscall(SYS_setresuid, -1, 0, -1) == 0 && syscall(SYS_setresgid, -1, 0, -1) == 0);
}

TEST(peercred, it_is_who_connected) {
        Peercred cred;

        connect_ends();
        cr_assert_eq(peercred_read(ends[0], &cred), 0);
        cr_assert_eq(cred.uid, geteuid());
        cr_assert_eq(cred.gid, getegid());
        cr_assert_eq(cred.pid, getpid());
        peercred_deinit(&cred);
        cr_assert_eq(cred.groups, NULL);
        cr_assert_eq(cred.uid, (uid_t)-1, "after the end it is nobody");
        peercred_deinit(&cred);
        close_ends();
}

static int change_afterwards(void *userdata) {
        gid_t groups[] = { 5, 7 };
        Peercred cred;

        connect_as(ALICE, BOB, groups, 2);
        REQUIRE(syscall(SYS_setgroups, 1, (gid_t[]){ 9 }) == 0);
        REQUIRE(syscall(SYS_setresgid, CAROL, CAROL, CAROL) == 0 && syscall(SYS_setresuid, CAROL, CAROL, CAROL) == 0);
        REQUIRE(peercred_read(ends[0], &cred) == 0);
        REQUIRE(cred.uid == ALICE && cred.gid == BOB && cred.n_groups == 2);
        REQUIRE(cred.groups[0] == 5 && cred.groups[1] == 7);
        return 0;
}

TEST(peercred, what_the_peer_becomes_later_does_not_count) {
        test_needs_root();
        house_expect_child(change_afterwards, NULL);
}

static int count_groups(void *userdata) {
        size_t n = *(size_t *)userdata;
        gid_t *groups = calloc(n + 1, sizeof(*groups));
        Peercred cred;

        REQUIRE(groups);
        for (size_t i = 0; i < n; ++i)
                groups[i] = (gid_t)(100000 + i);
        connect_as(ALICE, ALICE, groups, n);
        REQUIRE(peercred_read(ends[0], &cred) == 0);
        REQUIRE(cred.n_groups == n, "%zu groups instead of %zu", cred.n_groups, n);
        for (size_t i = 0; i < n; ++i)
                REQUIRE(cred.groups[i] == (gid_t)(100000 + i));
        REQUIRE(!peercred_in_group(&cred, (gid_t)(100000 + n)));
        REQUIRE(n == 0 || peercred_in_group(&cred, (gid_t)(100000 + n - 1)), "the last is not cut off");
        REQUIRE((cred.groups == NULL) == (n == 0));
        peercred_deinit(&cred);
        free(groups);
        return 0;
}

TEST(peercred, no_group_is_lost_however_many_there_are) {
        size_t numbers[] = { 0, 1, 32, 63, 64, 65, 1000, 65536 };

        test_needs_root();
        for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); ++i)
                house_expect_child(count_groups, &numbers[i]);
}

static int with_primary_only(void *userdata) {
        Peercred cred;

        connect_as(ALICE, 4242, NULL, 0);
        REQUIRE(peercred_read(ends[0], &cred) == 0);
        REQUIRE(cred.n_groups == 0);
        REQUIRE(peercred_in_group(&cred, 4242), "the kernel leaves the primary group out of the list");
        REQUIRE(!peercred_in_group(&cred, 4241) && !peercred_in_group(&cred, ALICE) && !peercred_in_group(&cred, 0));
        return 0;
}

TEST(peercred, a_member_by_primary_group_alone_is_a_member) {
        test_needs_root();
        house_expect_child(with_primary_only, NULL);
}

static void write_map(const char *file, const char *text) {
        int fd = open(file, O_WRONLY | O_CLOEXEC);

        REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", file, strerror(errno));
        close_fd(fd);
}

/* From here on this process lives where only these ids have names. */
static void live_in_a_namespace(const char *uids, const char *gids) {
        if (unshare(CLONE_NEWUSER) < 0)
                _exit(2);
        write_map("/proc/self/setgroups", "deny");
        write_map("/proc/self/uid_map", uids);
        write_map("/proc/self/gid_map", gids);
        peercred_setup();
}

static void expect_in_namespace(TestFn fn) {
        int status;

        test_needs_root();
        status = house_fork(fn, NULL);
        if (status == 2 << 8)
                test_skip("no user namespace can be made here");
        REQUIRE(status == 0, "the child ended with status %#x", status);
}

static int in_a_namespace(void *userdata) {
        int stranger, strange_group;
        Peercred cred;

        connect_as(ALICE, 0, NULL, 0);
        stranger = ends[0];
        connect_as(0, ALICE, NULL, 0);
        strange_group = ends[0];
        connect_ends();
        live_in_a_namespace("0 0 1", "0 0 1");
        REQUIRE(peercred_read(stranger, &cred) == PEERCRED_E_UNMAPPED);
        REQUIRE(peercred_read(strange_group, &cred) == PEERCRED_E_UNMAPPED);
        REQUIRE(peercred_read(ends[0], &cred) == 0 && cred.uid == 0, "who has a name there is somebody");
        return 0;
}

TEST(peercred, who_has_no_name_in_the_brokers_namespace_is_nobody) {
        expect_in_namespace(in_a_namespace);
}

static int as_overflow_uid(void *userdata) {
        Peercred cred;

        peercred_setup();
        connect_as(65534, 65534, NULL, 0);
        REQUIRE(peercred_read(ends[0], &cred) == 0 && cred.uid == 65534);
        return 0;
}

TEST(peercred, where_every_uid_has_a_name_65534_is_a_user_like_any_other) {
        test_needs_root();
        house_expect_child(as_overflow_uid, NULL);
}

TEST(peercred, a_socket_without_a_peer_has_none) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        Peercred cred = { .uid = 77 };

        cr_assert_eq(peercred_read(fd, &cred), PEERCRED_E_GONE);
        cr_assert_eq(cred.uid, 77, "on failure nothing is written");
        close_fd(fd);
}

TEST(peercred, a_peer_that_is_gone_is_still_who_it_was) {
        Peercred cred;

        connect_ends();
        ends[1] = close_fd(ends[1]);
        cr_assert_eq(peercred_read(ends[0], &cred), 0);
        cr_assert_eq(cred.uid, geteuid());
        peercred_deinit(&cred);
        close_ends();
}

TEST(peercred, what_is_no_socket_is_an_error) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        Peercred cred;

        cr_assert_eq(peercred_read(fd, &cred), -ENOTSOCK);
        cr_assert_eq(peercred_read(-1, &cred), -EBADF);
        close_fd(fd);
}

/* What cannot be read fails the connection; only the pidfd, which decides nothing, may lack. */
static int without_option(void *userdata) {
        int option = *(int *)userdata;
        Peercred cred;

        connect_ends();
        house_deny(EPERM, SCMP_SYS(getsockopt), 1, (struct scmp_arg_cmp[]){ { 2, SCMP_CMP_EQ, (scmp_datum_t)option,
                                                                              0 } });
        if (option != SO_PEERPIDFD) {
                REQUIRE(peercred_read(ends[0], &cred) == -EPERM);
                return 0;
        }
        REQUIRE(peercred_read(ends[0], &cred) == 0 && cred.pidfd_ino == 0 && cred.uid == geteuid());
        return 0;
}

TEST(peercred, without_uid_or_groups_there_is_no_peer_and_without_a_pidfd_there_is) {
        int options[] = { SO_PEERCRED, SO_PEERGROUPS, SO_PEERPIDFD };

        for (size_t i = 0; i < 3; ++i)
                house_expect_child(without_option, &options[i]);
}

static int without_descriptors(void *userdata) {
        struct rlimit none = { 1, 1 };
        Peercred cred;

        connect_ends();
        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        REQUIRE(peercred_read(ends[0], &cred) == 0 && cred.uid == geteuid() && cred.pidfd_ino == 0);
        return 0;
}

TEST(peercred, a_full_descriptor_table_costs_the_pidfd_and_no_peer) {
        house_expect_child(without_descriptors, NULL);
}

static uint64_t pidfd_ino(void) {
        Peercred cred;
        uint64_t ino;

        connect_ends();
        REQUIRE(peercred_read(ends[0], &cred) == 0);
        ino = cred.pidfd_ino;
        peercred_deinit(&cred);
        close_ends();
        return ino;
}

static int write_pidfd_ino(void *userdata) {
        uint64_t ino = pidfd_ino();

        REQUIRE(write(*(int *)userdata, &ino, sizeof(ino)) == sizeof(ino));
        return 0;
}

TEST(peercred, the_number_of_a_pidfd_names_one_process) {
        uint64_t mine = pidfd_ino(), other = 0;
        int fds[2];

        cr_assert_eq(pidfd_ino(), mine);
        REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
        house_expect_child(write_pidfd_ino, &fds[1]);
        REQUIRE(read(fds[0], &other, sizeof(other)) == sizeof(other));
        if (mine)
                cr_assert_neq(mine, other);
        else
                cr_assert_eq(other, 0);
        close_fd(fds[0]);
        close_fd(fds[1]);
}
