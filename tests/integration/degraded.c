/* Kernels that lack something, played by a filter of system calls in front of the real one. The
 * broker says at start what is missing and goes on; what it promises then still holds: who may
 * not write does not, and every charge ends after the last holder.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
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

/* Without marks nobody knows which of them live, and without leases not even whether any does. */
TEST(degraded, who_opens_and_closes_without_end_is_served) {
        static const unsigned int lacks[] = { LEASE, MARKER, LEASE | MARKER, EVERYTHING };

        test_needs_root();
        for (size_t i = 0; i < sizeof(lacks) / sizeof(lacks[0]); ++i) {
                unsigned int what = lacks[i];
                Broker *broker = broker_spawn_with(&(BrokerOptions){ .config = "[account]\ngrants = 100",
                                                                     .prepare = take_away, .userdata = &what });
                Client *alice = client_connect_as(broker, ALICE, ALICE), *bob = client_connect_as(broker, BOB, BOB);
                Grant stays = GRANT_NULL, grant = GRANT_NULL;

                client_expect_done(alice, call_create_mode(alice, "/r", SIZE, 0644, &stays));
                for (uint64_t n = test_rounds(2000); n > 0; --n) {
                        client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &grant));
                        grant_deinit(&grant);
                }
                grant_deinit(&stays);
                client_expect_done(alice, call_unlink(alice, "/r"));
                bob = client_free(bob);
                alice = client_free(alice);
                alice = client_connect_as(broker, ALICE, ALICE);
                client_expect_used(alice, SHMD__SLOT__SLOT_BYTES, 0);
                alice = client_free(alice);
                broker = broker_stop(broker);
        }
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
        REQUIRE(reply->uid == test_broker_uid() && reply->descriptors > 0 && reply->regions > 0);
        bob = client_free(bob);
}

/* And so does the administrator's tool, which takes it for a warning. */
static void expect_tool_warns(Broker *broker, const char *missing) {
        char *text = NULL, needle[64];

        REQUIRE(shmdctl_run(&text, "--socket", broker->socket, "doctor", "--strict", "--quiet", NULL) == 1);
        (void)snprintf(needle, sizeof(needle), "warning %s ", missing);
        REQUIRE(strstr(text, needle) && strstr(text, "missing: ") && strstr(text, "to do"), "%s", text);
        free(text);
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
        if (missing)
                expect_tool_warns(broker, missing);
        for (int i = 0; i < 3; ++i)
                live_a_life(broker);
        broker = broker_stop(broker);
}

/* -- what shmd(8) says of each ---------------------------------------------------------- */

#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES

static const Shmd__StatReply *stat_holders(Client *client) {
        client_expect_done(client, client_call(client, MESSAGE_STAT,
                                               REQUEST(Stat, stat, .path = BYTES("/r"),
                                                       .flags = SHMD__STAT_FLAGS__STAT_HOLDERS)));
        return (const Shmd__StatReply *)client->reply;
}

static int execute(void *fd) {
        static const char *const nothing[] = { NULL };

        REQUIRE(fexecve(*(int *)fd, (char *const *)nothing, (char *const *)nothing) < 0 && errno == EACCES, "%s",
                strerror(errno));
        return 0;
}

TEST(degraded, attack_118_without_the_seal_against_execution) {
        expect_degraded(NOEXEC_SEAL, "noexec-seal");
}

TEST(degraded, attack_076_without_the_seal_its_mode_keeps_clients_from_executing_a_region) {
        static const unsigned int lacking[] = { 0, NOEXEC_SEAL };

        for (size_t i = 0; i < 2; ++i) {
                Broker *broker = spawn_without(lacking[i]);
                Client *alice = client_connect_as(broker, ALICE, ALICE);
                Grant grant = GRANT_NULL;
                struct stat st;

                client_expect_done(alice, call_create(alice, "/r", SIZE, &grant));
                REQUIRE(pwrite(grant.fd, "#!/bin/true\n", 12, 0) == 12);
                REQUIRE(fstat(grant.fd, &st) == 0 && (st.st_mode & 07777) == 0600 && st.st_uid == test_broker_uid());
                REQUIRE(lacking[i] == 0 || (fcntl(grant.fd, F_GET_SEALS) & F_SEAL_EXEC) == 0);
                REQUIRE(run_as(ALICE, ALICE, execute, &grant.fd) == 0);
                grant_deinit(&grant);
                client_expect_done(alice, call_unlink(alice, "/r"));
                alice = client_free(alice);
                broker = broker_stop(broker);
        }
}

TEST(degraded, attack_120_without_leases) {
        expect_degraded(LEASE, "lease");
}

static bool is_uncharged(void *client) {
        return client_used(client, BYTES_SLOT) == 0;
}

/* What is left then: the marks of grants, and the connections of those that asked. */
TEST(degraded, attack_120_without_leases_a_mark_or_the_connection_keeps_the_charge_and_nothing_else_does) {
        Broker *broker = spawn_without(LEASE);
        struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
        Client *alice = client_connect_as(broker, ALICE, ALICE), *bob = client_connect_as(broker, BOB, BOB);
        Grant own = GRANT_NULL, marked = GRANT_NULL;
        int copy;

        client_expect_done(alice, call_create_mode(alice, "/r", SIZE, 0644, &own));
        client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &marked));
        REQUIRE(!stat_holders(alice)->held_known);
        client_expect_done(alice, call_unlink(alice, "/r"));
        grant_deinit(&own);
        bob = client_free(bob);
        copy = fcntl(marked.fd, F_DUPFD_CLOEXEC, 0);
        grant_deinit(&marked);
        test_sleep_ms(1200);
        REQUIRE(client_used(alice, BYTES_SLOT) == SIZE, "a copy has the mark");

        REQUIRE(fcntl(copy, F_OFD_SETLK, &all) == 0, "%s", strerror(errno));
        REQUIRE(test_eventually(is_uncharged, alice), "neither mark nor connection");
        close_fd(copy);
        alice = client_free(alice);
        broker = broker_stop(broker);
}

TEST(degraded, attack_083_without_inotify) {
        expect_degraded(INOTIFY, "inotify");
}

TEST(degraded, attack_083_without_inotify_what_is_held_stays_and_a_timer_finds_the_end) {
        Broker *broker = spawn_without(INOTIFY);
        Client *alice = client_connect_as(broker, ALICE, ALICE);
        Grant grants[10];

        for (size_t i = 0; i < 10; ++i) {
                grants[i] = (Grant)GRANT_NULL;
                client_expect_done(alice, call_create(alice, NULL, SIZE, &grants[i]));
        }
        test_sleep_ms(2000);
        REQUIRE(client_used(alice, BYTES_SLOT) == 10 * SIZE);
        for (size_t i = 0; i < 10; ++i)
                grant_deinit(&grants[i]);
        client_expect_used(alice, BYTES_SLOT, 0);
        alice = client_free(alice);
        broker = broker_stop(broker);
}

TEST(degraded, attack_087_without_markers) {
        expect_degraded(MARKER, "marker");
}

static bool the_holder_is_forgotten(void *client) {
        const Shmd__StatReply *reply = stat_holders(client);

        REQUIRE(reply->held && reply->held_known, "the lease knows");
        return reply->n_holders == 0 || !reply->holders[0]->connected;
}

TEST(degraded, attack_087_without_markers_a_holder_is_known_as_long_as_its_connection_is) {
        Broker *broker = spawn_without(MARKER);
        Client *alice = client_connect_as(broker, ALICE, ALICE), *bob = client_connect_as(broker, BOB, BOB);
        const Shmd__StatReply *reply;
        Grant grant = GRANT_NULL;

        client_expect_done(alice, call_create_mode(alice, "/r", SIZE, 0644, NULL));
        client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &grant));
        REQUIRE(!grant.marker);
        reply = stat_holders(alice);
        REQUIRE(reply->n_holders == 1 && !reply->holders[0]->marked && reply->holders[0]->connected &&
                reply->holders[0]->uid == BOB);
        bob = client_free(bob);
        REQUIRE(test_eventually(the_holder_is_forgotten, alice));
        client_expect_done(alice, call_unlink(alice, "/r"));
        test_sleep_ms(200);
        REQUIRE(client_used(alice, BYTES_SLOT) == SIZE, "bytes need no marks");
        grant_deinit(&grant);
        client_expect_used(alice, BYTES_SLOT, 0);
        alice = client_free(alice);
        broker = broker_stop(broker);
}

TEST(degraded, attack_118_without_refusal_of_descriptors_they_end_the_connection_and_are_not_kept) {
        Broker *broker = spawn_without(PASSRIGHTS);
        Client *bob = client_connect_as(broker, BOB, BOB);
        size_t n_fds = broker_fds(broker);
        uint8_t packet[64];

        for (int i = 0; i < 20; ++i) {
                Client *alice = client_connect_as(broker, ALICE, ALICE);
                int fds[2] = { alice->fd, bob->fd };
                size_t n = client_pack(packet, sizeof(packet), MESSAGE_PING, 2, REQUEST(Ping, ping));

                REQUIRE(client_send_fds(alice, packet, n, fds, 2) == 0, "the kernel takes them");
                client_expect_closed(alice);
                alice = client_free(alice);
        }
        client_expect_done(bob, call_ping(bob));
        broker_expect_fds(broker, n_fds);
        bob = client_free(bob);
        broker = broker_stop(broker);
}

TEST(degraded, attack_118_without_refusal_of_descriptors) {
        expect_degraded(PASSRIGHTS, "passrights");
}

TEST(degraded, attack_039_without_descriptors_of_peers_processes) {
        expect_degraded(PEERPIDFD, "peerpidfd");
}

TEST(degraded, attack_039_without_descriptors_of_processes_holders_have_a_pid_and_no_more) {
        static const unsigned int lacking[] = { 0, PEERPIDFD };
        bool have = false;

        for (size_t i = 0; i < 2; ++i) {
                Broker *broker = spawn_without(lacking[i]);
                Client *alice = client_connect_as(broker, ALICE, ALICE);
                const Shmd__StatReply *reply;
                Grant grant = GRANT_NULL;

                client_expect_done(alice, call_create(alice, "/r", SIZE, &grant));
                reply = stat_holders(alice);
                REQUIRE(reply->n_holders == 1 && reply->holders[0]->pid == (uint32_t)getpid());
                have |= reply->holders[0]->pidfd_ino != 0;
                REQUIRE(lacking[i] == 0 || reply->holders[0]->pidfd_ino == 0);
                grant_deinit(&grant);
                client_expect_done(alice, call_unlink(alice, "/r"));
                alice = client_free(alice);
                broker = broker_stop(broker);
        }
        if (!have)
                fprintf(stderr, "this kernel never had them\n");
}

TEST(degraded, attack_118_without_landlock) {
        Broker *broker = spawn_without(LANDLOCK);

        broker_expect_log(broker, "event=ready", "landlock=no");
        REQUIRE(strcmp(broker_status(broker, "Seccomp"), "2") == 0);
        expect_doctor_finds(broker, NULL);
        expect_tool_warns(broker, "landlock");
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
