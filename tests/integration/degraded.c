/* Kernels that lack something, played by a filter of system calls in front of the real one. The
 * broker says at start what is missing and goes on; what it promises then still holds: who may
 * not write does not, and every charge ends after the last holder.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset 444
#endif

#define SIZE (4 * PAGE)

/* Bits: what the kernel shall lack. */
enum {
        NOEXEC_SEAL = 1,
        LEASE = 2,
        INOTIFY = 4,
        MARKER = 8,
        PASSRIGHTS = 16,
        PEERPIDFD = 32,
        LANDLOCK = 64,
        EVERYTHING = 127,
};

static void deny(scmp_filter_ctx filter, int error, int call, unsigned int n, struct scmp_arg_cmp argument) {
        REQUIRE(seccomp_rule_add_array(filter, SCMP_ACT_ERRNO((uint16_t)error), call, n, &argument) == 0);
}

static void take_away(void *userdata) {
        unsigned int what = *(unsigned int *)userdata;
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

        REQUIRE(filter);
        if (what & NOEXEC_SEAL)
                deny(filter, EINVAL, SCMP_SYS(memfd_create), 1,
                     SCMP_A1(SCMP_CMP_MASKED_EQ, MFD_NOEXEC_SEAL, MFD_NOEXEC_SEAL));
        if (what & LEASE)
                deny(filter, EINVAL, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, F_SETLEASE));
        if (what & INOTIFY)
                deny(filter, EMFILE, SCMP_SYS(inotify_init1), 0, SCMP_A0(SCMP_CMP_EQ, 0));
        if (what & MARKER)
                deny(filter, EINVAL, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, F_OFD_SETLK));
        if (what & PASSRIGHTS)
                deny(filter, ENOPROTOOPT, SCMP_SYS(setsockopt), 1, SCMP_A2(SCMP_CMP_EQ, SO_PASSRIGHTS));
        if (what & PEERPIDFD)
                deny(filter, ENOPROTOOPT, SCMP_SYS(getsockopt), 1, SCMP_A2(SCMP_CMP_EQ, SO_PEERPIDFD));
        if (what & LANDLOCK)
                deny(filter, ENOSYS, __NR_landlock_create_ruleset, 0, SCMP_A0(SCMP_CMP_EQ, 0));
        REQUIRE(seccomp_load(filter) == 0, "%s", strerror(errno));
        seccomp_release(filter);
}

static Broker *spawn_without(unsigned int what) {
        test_needs_root();
        return broker_spawn_with(&(BrokerOptions){ .prepare = take_away, .userdata = &what });
}

static int attack_read_only(void *userdata) {
        int fd = *(int *)userdata;
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        REQUIRE(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
        REQUIRE(open(path, O_RDWR) == -1 && errno == EACCES);
        REQUIRE(fchmod(fd, 0777) == -1 && errno == EPERM);
        REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == -1 && errno == EPERM);
        REQUIRE(ftruncate(fd, 0) == -1);
        return 0;
}

/* One region's life, with a reader of another user, and what is left of it in the end. */
static void live_a_life(Broker *broker) {
        Client *alice = client_connect_as(broker, ALICE, ALICE), *bob = client_connect_as(broker, BOB, BOB);
        Grant writes = GRANT_NULL, reads = GRANT_NULL;
        char byte;

        client_expect_done(alice, call_create_mode(alice, "/r", SIZE, 0644, &writes));
        REQUIRE(ftruncate(writes.fd, SIZE + 1) == -1 && ftruncate(writes.fd, 0) == -1);
        REQUIRE(pwrite(writes.fd, "x", 1, SIZE - 1) == 1);
        client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &reads));
        REQUIRE(pread(reads.fd, &byte, 1, SIZE - 1) == 1 && byte == 'x');
        REQUIRE(run_as(BOB, BOB, attack_read_only, &reads.fd) == 0);
        client_expect_done(bob, client_call(bob, MESSAGE_STAT,
                                            REQUEST(Stat, stat, .path = BYTES("/r"), .flags = 1)));

        client_expect_done(alice, call_unlink(alice, "/r"));
        grant_deinit(&writes);
        test_sleep_ms(20);
        REQUIRE(client_used(alice, SHMD__SLOT__SLOT_BYTES) == SIZE, "bob holds it");
        grant_deinit(&reads);
        bob = client_free(bob);

        /* Some ways to notice also need the asking connection to end. */
        alice = client_free(alice);
        alice = client_connect_as(broker, ALICE, ALICE);
        client_expect_used(alice, SHMD__SLOT__SLOT_BYTES, 0);
        client_expect_used(alice, SHMD__SLOT__SLOT_REGIONS, 0);
        alice = client_free(alice);
}

/* What the doctor says is what the log said at start. */
static void expect_doctor_finds(Broker *broker, const char *missing) {
        Client *bob = client_connect_as(broker, BOB, BOB);
        const Shmd__DoctorReply *reply;
        size_t n_missing = 0;
        bool found = !missing;

        client_expect_done(bob, client_call(bob, MESSAGE_DOCTOR, REQUEST(Doctor, doctor)));
        reply = (const Shmd__DoctorReply *)bob->reply;
        for (size_t i = 0; i < reply->n_features; ++i) {
                const Shmd__Feature *feature = reply->features[i];

                REQUIRE(feature->consequence.len > 0);
                n_missing += !feature->have;
                found |= missing && !feature->have && feature->name.len == strlen(missing) &&
                         memcmp(feature->name.data, missing, feature->name.len) == 0;
        }
        REQUIRE(found, "%s", missing);
        REQUIRE(n_missing == broker_log_count(broker, "event=degraded"));
        REQUIRE(reply->landlock == broker_log_has(broker, "event=ready", "landlock=yes", NULL));
        REQUIRE(reply->uid == TEST_BROKER_UID && reply->descriptors > 0 && reply->regions > 0);
        bob = client_free(bob);
}

static void expect_degraded(unsigned int what, const char *missing) {
        Broker *broker = spawn_without(what);
        char needle[64];

        if (missing) {
                (void)snprintf(needle, sizeof(needle), "missing=%s", missing);
                broker_expect_log(broker, "event=degraded", needle);
                REQUIRE(broker_log_count(broker, needle) == 1, "it is said once");
        }
        expect_doctor_finds(broker, missing);
        for (int i = 0; i < 3; ++i)
                live_a_life(broker);
        broker = broker_stop(broker);
}

TEST(degraded, attack_118_without_the_seal_against_execution) {
        expect_degraded(NOEXEC_SEAL, "noexec-seal");
}

TEST(degraded, attack_120_without_leases) {
        expect_degraded(LEASE, "lease");
}

TEST(degraded, attack_083_without_inotify) {
        expect_degraded(INOTIFY, "inotify");
}

TEST(degraded, attack_087_without_markers) {
        expect_degraded(MARKER, "marker");
}

TEST(degraded, attack_118_without_refusal_of_descriptors) {
        expect_degraded(PASSRIGHTS, "passrights");
}

TEST(degraded, attack_039_without_descriptors_of_peers_processes) {
        expect_degraded(PEERPIDFD, "peerpidfd");
}

TEST(degraded, attack_118_without_landlock) {
        Broker *broker = spawn_without(LANDLOCK);

        broker_expect_log(broker, "event=ready", "landlock=no");
        REQUIRE(strcmp(broker_status(broker, "Seccomp"), "2") == 0);
        expect_doctor_finds(broker, NULL);
        live_a_life(broker);
        broker = broker_stop(broker);
}

TEST(degraded, attack_120_without_leases_and_markers) {
        expect_degraded(LEASE | MARKER, "lease");
}

TEST(degraded, attack_118_without_anything) {
        expect_degraded(EVERYTHING, "lease");
}

static size_t count_missing(void) {
        int ends[2], value = 0, fd;
        socklen_t n = sizeof(value);
        size_t missing = 0;

        fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        missing += fd < 0;
        close_fd(fd);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        missing += setsockopt(ends[0], SOL_SOCKET, SO_PASSRIGHTS, &value, sizeof(value)) < 0;
        if (getsockopt(ends[0], SOL_SOCKET, SO_PEERPIDFD, &value, &n) == 0)
                close_fd(value);
        else
                ++missing;
        close_fd(ends[0]);
        close_fd(ends[1]);
        return missing;
}

TEST(degraded, what_this_kernel_has_is_not_called_missing) {
        Broker *broker = spawn_without(0);

        REQUIRE(broker_log_count(broker, "event=degraded") == count_missing());
        expect_doctor_finds(broker, NULL);
        live_a_life(broker);
        broker = broker_stop(broker);
}
