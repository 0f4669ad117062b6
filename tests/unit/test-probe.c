/* daemon/util/probe: what this kernel can do is found out by trying. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "util/probe.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

TEST(probe, before_the_first_look_nothing_is_believed) {
        for (unsigned int i = 0; i < _PROBE_N; ++i)
                cr_assert_not(probe_have(i), "%s", probe_name(i));
}

TEST(probe, its_answers_are_the_kernels) {
        int fd, ends[2], pidfd = -1;
        socklen_t n = sizeof(pidfd);

        cr_assert_eq(probe_run(), 0);
        fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        cr_assert_eq(probe_have(PROBE_NOEXEC_SEAL), fd >= 0);
        close_fd(fd);

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        cr_assert_eq(probe_have(PROBE_PEERPIDFD), getsockopt(ends[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n) == 0);
        close_fd(pidfd);
        close_fd(ends[0]);
        close_fd(ends[1]);
}

TEST(probe, looking_twice_gives_the_same_and_leaks_nothing) {
        bool first[_PROBE_N];

        cr_assert_eq(probe_run(), 0);
        for (unsigned int i = 0; i < _PROBE_N; ++i)
                first[i] = probe_have(i);
        cr_assert_eq(probe_run(), 0);
        for (unsigned int i = 0; i < _PROBE_N; ++i)
                cr_assert_eq(probe_have(i), first[i], "%s", probe_name(i));
}

TEST(probe, every_feature_has_a_name_of_its_own_and_a_consequence) {
        for (unsigned int i = 0; i < _PROBE_N; ++i) {
                cr_assert_gt(strlen(probe_name(i)), 0);
                cr_assert_gt(strlen(probe_consequence(i)), 10);
                for (unsigned int k = 0; k < i; ++k)
                        cr_assert_str_neq(probe_name(i), probe_name(k));
        }
}

TEST(probe, a_feature_can_be_forced_either_way_and_alone) {
        for (unsigned int i = 0; i < _PROBE_N; ++i)
                probe_force(i, false);
        probe_force(PROBE_LEASE, true);
        for (unsigned int i = 0; i < _PROBE_N; ++i)
                cr_assert_eq(probe_have(i), i == PROBE_LEASE);
}

/* An older or filtered kernel, feature by feature. */
static int run_without(void *userdata) {
        static const struct {
                ProbeFeature feature;
                int error;
                int call;
                struct scmp_arg_cmp condition;
        } without[] = {
                { PROBE_NOEXEC_SEAL, EINVAL, SCMP_SYS(memfd_create),
                  { 1, SCMP_CMP_MASKED_EQ, MFD_NOEXEC_SEAL, MFD_NOEXEC_SEAL } },
                { PROBE_LEASE, EINVAL, SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } },
                { PROBE_LEASE, EAGAIN, SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } },
                { PROBE_INOTIFY, ENOSYS, SCMP_SYS(inotify_add_watch), { 0, SCMP_CMP_GE, 0, 0 } },
                { PROBE_INOTIFY, EMFILE, SCMP_SYS(inotify_init1), { 0, SCMP_CMP_GE, 0, 0 } },
                { PROBE_MARKER, EINVAL, SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_OFD_SETLK, 0 } },
                { PROBE_MARKER, EINVAL, SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_OFD_GETLK, 0 } },
                { PROBE_PASSRIGHTS, ENOPROTOOPT, SCMP_SYS(setsockopt), { 1, SCMP_CMP_EQ, SOL_SOCKET, 0 } },
                { PROBE_PEERPIDFD, ENOPROTOOPT, SCMP_SYS(getsockopt), { 2, SCMP_CMP_EQ, SO_PEERPIDFD, 0 } },
        };
        size_t i = *(size_t *)userdata;
        bool with[_PROBE_N];
        size_t before;

        if (i >= sizeof(without) / sizeof(*without))
                return 1;
        REQUIRE(probe_run() == 0);
        for (unsigned int k = 0; k < _PROBE_N; ++k)
                with[k] = probe_have(k);
        before = test_count_fds();
        house_deny(without[i].error, without[i].call, 1, &without[i].condition);
        REQUIRE(probe_run() == 0, "%s", probe_name(without[i].feature));
        for (unsigned int k = 0; k < _PROBE_N; ++k)
                REQUIRE(probe_have(k) == (with[k] && k != without[i].feature), "%s without %s", probe_name(k),
                        probe_name(without[i].feature));
        REQUIRE(test_count_fds() == before);
        return 0;
}

TEST(probe, a_call_that_fails_takes_its_own_feature_away_and_no_other) {
        size_t i = 0;
        int status;

        while ((status = house_fork(run_without, &i)) == 0)
                ++i;
        cr_assert_eq(status, 1 << 8, "case %zu ended with %#x", i, status);
        cr_assert_eq(i, 9);
}

static int run_without_memfds(void *userdata) {
        house_deny(*(int *)userdata, SCMP_SYS(memfd_create), 0, NULL);
        REQUIRE(probe_run() == (*(int *)userdata == EMFILE ? -ENOMEM : -*(int *)userdata));
        return 0;
}

TEST(probe, without_even_a_memfd_there_is_no_broker) {
        int errors[] = { ENOSYS, EPERM, EMFILE };

        for (size_t i = 0; i < 3; ++i)
                house_expect_child(run_without_memfds, &errors[i]);
}

static int run_without_descriptors(void *userdata) {
        struct rlimit none = { 1, 1 };

        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        REQUIRE(probe_run() == -ENOMEM);
        return 0;
}

TEST(probe, without_descriptors_it_is_an_error_and_no_lie) {
        house_expect_child(run_without_descriptors, NULL);
}
