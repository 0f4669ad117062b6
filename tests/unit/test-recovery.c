/* daemon/broker/recovery: a broker goes on with what another one left, and leaves what there is. The
 * test is the store of descriptors, and ends brokers and starts them.
 */

#include "daemon-table.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/policy.h"
#include "util/log.h"
#include "util/memfd.h"
#include "util/probe.h"

#define KEPT_MAX 64

static Kept kept[KEPT_MAX];
static size_t n_kept;
static int sockets[2], log_fd = -1;
static Broker *broker;
static BrokerStart start;
static const BrokerDirectory *bad;
static BrokerDirectory directories[2];

/* -- the store ------------------------------------------------------------------------------ */

static void keep(const char *name, int fd) {
        REQUIRE(n_kept < KEPT_MAX && fd >= 0);
        kept[n_kept] = (Kept){ .fd = fd };
        REQUIRE(snprintf(kept[n_kept++].name, sizeof(kept[0].name), "%s", name) < (int)sizeof(kept[0].name));
}

static Kept *find(const char *name) {
        for (size_t i = 0; i < n_kept; ++i)
                if (!strcmp(kept[i].name, name))
                        return &kept[i];
        return NULL;
}

static void lose(const char *name) {
        Kept *one;

        while ((one = find(name))) {
                close_fd(one->fd);
                *one = kept[--n_kept];
        }
}

/* Does what it was told. */
static void serve_store(void) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        char text[128];
        struct iovec part = { .iov_base = text, .iov_len = sizeof(text) - 1 };

        for (;;) {
                struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                          .msg_controllen = sizeof(control) };
                ssize_t n = recvmsg(sockets[1], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                const char *name;
                int fd = -1;

                if (n < 0)
                        return;
                text[n] = '\0';
                name = strstr(text, "FDNAME=");
                if (CMSG_FIRSTHDR(&message))
                        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
                if (!strncmp(text, "FDSTORE=1", 9)) {
                        char copy[64];

                        (void)snprintf(copy, sizeof(copy), "%.*s", (int)strcspn(name + 7, "\n"), name + 7);
                        keep(copy, fd);
                } else if (!strncmp(text, "FDSTOREREMOVE=1", 15)) {
                        lose(name + 7);
                } else {
                        close_fd(fd);
                }
        }
}

static int open_store(FdStore **ret, Deadlines *deadlines, size_t n) {
        return fdstore_new(ret, sockets[0], deadlines, n);
}

/* -- brokers -------------------------------------------------------------------------------- */

static int try_start(void) {
        static Kept copies[KEPT_MAX];
        int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        sigset_t none;

        REQUIRE(bind(listening, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0);
        REQUIRE(listen(listening, 1) == 0 && sigemptyset(&none) == 0);
        for (size_t i = 0; i < n_kept; ++i) {
                copies[i] = kept[i];
                copies[i].fd = fcntl(kept[i].fd, F_DUPFD_CLOEXEC, 0);
        }
        start = (BrokerStart){ .kept = copies, .n_kept = n_kept, .open_store = open_store };
        table_options.start = &start;
        return broker_new_consume_fds(&broker, &table_options, listening,
                                      signalfd(-1, &none, SFD_CLOEXEC | SFD_NONBLOCK), &bad);
}

static void start_broker(void) {
        int r = try_start();

        REQUIRE(r == 0, "%d: %s", r, start.sentence);
        broker_commit(broker);
        serve_store();
}

static void begin(void) {
        table_defaults();
        table_options.uid = geteuid();
        n_kept = 0;
        log_fd = memfd_create("log", MFD_CLOEXEC);
        REQUIRE(log_fd >= 0 && log_open(log_fd) == 0 && probe_run() == 0);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
        start_broker();
}

static void stop_broker(void) {
        REQUIRE(broker_free(broker), "the books are not balanced");
        broker = NULL;
        serve_store();
}

static void restart(void) {
        stop_broker();
        start_broker();
}

static void end(void) {
        if (broker)
                stop_broker();
        while (n_kept > 0)
                close_fd(kept[--n_kept].fd);
        close_fd(sockets[0]);
        close_fd(sockets[1]);
        log_close();
        log_fd = close_fd(log_fd);
}

static bool was_said(const char *what) {
        static char text[65536];
        ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

        text[n > 0 ? n : 0] = '\0';
        return strstr(text, what);
}

static Node *node_at(const char *path) {
        Spot spot;

        return tree_resolve(&broker->tree, &house_admin, path, strlen(path), &spot) ? NULL : spot.node;
}

static void create(const char *path) {
        RegionSpec spec = { .size = 4096, .permissions = { .uid = ALICE, .gid = ALICE, .mode = 0600 } };
        Account *account;
        Region *region;
        Spot spot;

        REQUIRE(accounts_ref_user(&broker->accounts, ALICE, &account) == 0);
        REQUIRE(state_make_room(broker->state, STATE_ROOM) == 0);
        REQUIRE(region_new(&region, &broker->regions, account, &spec, NULL) == 0);
        REQUIRE(tree_resolve(&broker->tree, &house_admin, path, strlen(path), &spot) == 0);
        REQUIRE(region_link(region, &spot, NULL) == 0);
        (void)account_unref(account);
}

static int set_policy(size_t n, mode_t mode, uint64_t bytes) {
        PolicyDirectory *list = calloc(n + 1, sizeof(*list));
        Policy policy = { .rules.everybody = { UINT32_C(1) << ACCOUNT_BYTES, { bytes } }, .directories = list,
                          .n_directories = n };
        char sentence[BROKER_SENTENCE_MAX];
        PolicyOutcome outcome;
        uint8_t *blob;
        size_t n_blob;
        int r;

        for (size_t i = 0; i < n; ++i) {
                REQUIRE(asprintf(&list[i].path, "/p%04zu", i) > 0);
                list[i].permissions = (Permissions){ .uid = ALICE, .gid = ALICE, .mode = mode };
        }
        REQUIRE(policy_encode(&policy, &blob, &n_blob) == 0);
        r = broker_set_policy(broker, blob, n_blob, &outcome, sentence);
        free(blob);
        for (size_t i = 0; i < n; ++i)
                free(list[i].path);
        free(list);
        return r;
}

/* -- the state ------------------------------------------------------------------------------ */

TEST(recovery, a_broker_leaves_its_state_its_regions_and_its_policy) {
        begin();
        cr_assert(find("state") && n_kept == 1 && !broker->adopted);
        create("/x");
        cr_assert_eq(set_policy(1, 0700, 1 << 20), 0);
        broker_commit(broker);
        serve_store();
        cr_assert(find("r1") && find("policy-1") && n_kept == 3);
        restart();
        cr_assert(broker->adopted && node_at("/x") && n_kept == 3);
        cr_assert(was_said("event=recovered regions=1 names=1 directories=2"));
        cr_assert_not(was_said("event=dropped"));
        end();
}

TEST(recovery, nothing_leaves_the_store_when_a_broker_stops) {
        begin();
        create("/x");
        create("/y");
        region_unlink(node_at("/y")->region);
        broker_commit(broker);
        stop_broker();
        cr_assert(find("state") && find("r1"));
        start_broker();
        cr_assert(node_at("/x") && !node_at("/y"));
        end();
}

TEST(recovery, a_state_that_cannot_be_read_is_replaced_under_another_name) {
        int fd;

        begin();
        create("/x");
        stop_broker();
        for (unsigned int i = 0; i < 4; ++i) {
                const char *name = i % 2 ? "state-1" : "state", *other = i % 2 ? "state" : "state-1";

                fd = find(name)->fd;
                REQUIRE(pwrite(fd, "rubbish", 7, 0) == 7);
                start_broker();
                cr_assert(!broker->adopted && !node_at("/x"));
                cr_assert(find(other) && !find(name), "%s", name);
                stop_broker();
        }
        cr_assert(was_said("event=dropped what=state"));
        end();
}

TEST(recovery, of_two_states_the_one_that_can_be_read_counts) {
        begin();
        create("/x");
        stop_broker();
        keep("state-1", memfd_create("rubbish", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        keep("state", memfd_create("rubbish", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        start_broker();
        cr_assert(broker->adopted && node_at("/x") && find("state") && !find("state-1"));
        end();
}

TEST(recovery, a_state_that_is_not_ours_is_left_alone) {
        static const uint32_t later = 99;
        size_t before;

        begin();
        create("/x");
        stop_broker();
        before = n_kept;
        table_options.uid = geteuid() + 1;
        cr_assert_eq(try_start(), BROKER_E_REFUSED);
        cr_assert(strstr(start.sentence, "belongs to a broker of uid"), "%s", start.sentence);
        table_options.uid = geteuid();
        REQUIRE(pwrite(find("state")->fd, &later, sizeof(later), 12) == sizeof(later));
        cr_assert_eq(try_start(), BROKER_E_REFUSED);
        cr_assert(strstr(start.sentence, "later version"), "%s", start.sentence);
        serve_store();
        cr_assert_eq(n_kept, before);
        REQUIRE(pwrite(find("state")->fd, &(uint32_t){ 1 }, sizeof(later), 12) == sizeof(later));
        start_broker();
        cr_assert(node_at("/x"));
        end();
}

/* -- the policy ----------------------------------------------------------------------------- */

TEST(recovery, the_policy_in_force_stays_in_force_and_the_one_before_is_not_kept) {
        begin();
        cr_assert_eq(set_policy(1, 0700, 1 << 20), 0);
        broker_commit(broker);
        serve_store();
        cr_assert_eq(set_policy(2, 0711, 2 << 20), 0);
        cr_assert(find("policy-1") && !find("policy-2"), "it has not left the queue, and the old one not the store");
        broker_commit(broker);
        serve_store();
        cr_assert(!find("policy-1") && find("policy-2"));
        node_directory(node_at("/p0000"))->permissions.mode = 0755;
        node_touch(node_at("/p0000"));
        restart();
        cr_assert(broker->policy && broker->generation == 2);
        cr_assert_eq(broker->accounts.policy->everybody.max[ACCOUNT_BYTES], 2 << 20);
        cr_assert_eq(node_directory(node_at("/p0000"))->permissions.mode, 0755, "what was changed since stays");
        cr_assert_not(list_is_empty(&node_directory(node_at("/p0001"))->ruled));
        cr_assert_eq(set_policy(0, 0, 3 << 20), 0);
        cr_assert_eq(broker->generation, 3);
        cr_assert(list_is_empty(&broker->tree.ruled));
        end();
}

TEST(recovery, a_policy_that_was_refused_is_not_kept) {
        begin();
        create("/p0000");
        cr_assert_eq(set_policy(1, 0700, 1 << 20), BROKER_POLICY_E_REFUSED);
        broker_commit(broker);
        serve_store();
        cr_assert(!find("policy-1"));
        restart();
        cr_assert(!broker->policy && broker->generation == 0);
        end();
}

TEST(recovery, a_policy_whose_bytes_are_lost_or_damaged_is_said_to_be) {
        static const uint8_t rubbish[100];

        begin();
        cr_assert_eq(set_policy(1, 0700, 1 << 20), 0);
        stop_broker();
        close_fd(find("policy-1")->fd);
        REQUIRE(memfd_make_sealed("rubbish", rubbish, sizeof(rubbish), &find("policy-1")->fd) == 0);
        start_broker();
        cr_assert(!broker->policy && was_said("event=dropped what=policy message=\"its bytes were not kept\""));
        cr_assert(node_at("/p0000"));
        cr_assert_eq(set_policy(1, 0711, 1 << 20), 0);
        cr_assert_eq(broker->generation, 2);
        stop_broker();
        lose("policy-2");
        start_broker();
        cr_assert_null(broker->policy);
        end();
}

/* The broker was killed between the first transaction of a large policy and the last. */
TEST(recovery, a_policy_that_had_something_left_to_do_does_it) {
        begin();
        cr_assert_eq(set_policy(300, 0700, 1 << 20), 0);
        broker_commit(broker);
        cr_assert_not(broker->policy_record.saved.pending);
        broker->policy_record.saved.pending = true;
        state_touch(&broker->policy_record.record);
        node_directory(node_at("/p0299"))->permissions.mode = 0777;
        node_touch(node_at("/p0299"));
        REQUIRE(tree_rmdir(&broker->tree, node_directory(node_at("/p0000"))) == 0);
        restart();
        cr_assert_not(broker->policy_record.saved.pending);
        cr_assert(node_at("/p0000") && node_directory(node_at("/p0299"))->permissions.mode == 0700);
        restart();
        cr_assert_eq(broker->tree.n_directories, 301);
        end();
}

/* This process may have fewer descriptors than the one that took the policy. */
TEST(recovery, limits_that_are_impossible_now_are_those_of_the_configuration) {
        Policy policy = { .rules = { .global = { UINT32_C(1) << ACCOUNT_PEERS, { 0, 0, 0, 500 } },
                                     .everybody = { UINT32_C(1) << ACCOUNT_BYTES, { 12288 } } } };
        char sentence[BROKER_SENTENCE_MAX];
        PolicyOutcome outcome;
        uint8_t *blob;
        size_t n;

        begin();
        table_options.objects = 1000;
        for (AccountSlot slot = ACCOUNT_REGIONS; slot < _ACCOUNT_SLOT_N; ++slot)
                table_options.rules.global.max[slot] = 20;
        restart();
        REQUIRE(policy_encode(&policy, &blob, &n) == 0);
        cr_assert_eq(broker_set_policy(broker, blob, n, &outcome, sentence), 0, "%s", sentence);
        free(blob);
        cr_assert_eq(broker->accounts.pool.max[ACCOUNT_PEERS], 500);
        table_options.objects = 100;
        restart();
        cr_assert_eq(broker->accounts.pool.max[ACCOUNT_PEERS], 20);
        cr_assert_eq(broker->accounts.policy->everybody.max[ACCOUNT_BYTES], 12288, "all else of it counts");
        cr_assert(was_said("event=policy-limits"));
        end();
}

/* -- the configuration ---------------------------------------------------------------------- */

static void add_directory(size_t i, const char *path, mode_t mode) {
        directories[i] = (BrokerDirectory){ .path = path, .permissions = { .uid = ALICE, .gid = ALICE, .mode = mode } };
        for (size_t k = 0; k < _ACCOUNT_SLOT_N; ++k)
                directories[i].max[k] = QUOTA_UNLIMITED;
        table_options.directories = directories;
        table_options.n_directories = i + 1;
}

TEST(recovery, directories_of_the_configuration_are_made_if_missing_and_else_left_as_they_are) {
        begin();
        stop_broker();
        add_directory(0, "/a", 0700);
        add_directory(1, "/b", 0700);
        start_broker();
        cr_assert(node_at("/a") && node_at("/b"));
        node_directory(node_at("/a"))->permissions.mode = 0711;
        node_touch(node_at("/a"));
        REQUIRE(tree_rmdir(&broker->tree, node_directory(node_at("/b"))) == 0);
        restart();
        cr_assert_eq(node_directory(node_at("/a"))->permissions.mode, 0711);
        cr_assert_eq(node_directory(node_at("/b"))->permissions.mode, 0700);
        REQUIRE(tree_rmdir(&broker->tree, node_directory(node_at("/b"))) == 0);
        create("/b");
        restart();
        cr_assert(node_at("/b")->region && was_said("event=directory-missing path=/b"));
        end();
}
