/* daemon/broker/broker: put together whole or not at all, and taken apart with balanced books. */

#include "daemon-table.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/listener.h"
#include "util/log.h"
#include "util/probe.h"

static BrokerDirectory directories[4];

static void add_directory(size_t i, const char *path, uid_t uid, mode_t mode) {
        directories[i] = (BrokerDirectory){ .path = path, .permissions = { .uid = uid, .gid = uid, .mode = mode } };
        for (size_t k = 0; k < _ACCOUNT_SLOT_N; ++k)
                directories[i].max[k] = QUOTA_UNLIMITED;
        table_options.directories = directories;
        table_options.n_directories = i + 1;
}

static Directory *directory_at(const char *path) {
        Spot spot;

        REQUIRE(tree_find(&table->tree, &house_admin, path, strlen(path), &spot) == 0, "%s", path);
        REQUIRE(node_is_directory(spot.node));
        return node_directory(spot.node);
}

static int no_signals(void) {
        sigset_t none;

        (void)sigemptyset(&none);
        return signalfd(-1, &none, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int listening_socket(void) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        REQUIRE(bind(fd, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0 && listen(fd, 1) == 0);
        return fd;
}

/* -- together ---------------------------------------------------------------------------------------- */

TEST(broker, the_root_is_its_own_with_the_mode_it_was_told) {
        table_defaults();
        table_options.uid = 4000;
        table_options.gid = 4001;
        table_options.root_mode = 0751;
        table_open();
        cr_assert_eq(table->tree.root->permissions.uid, 4000);
        cr_assert_eq(table->tree.root->permissions.gid, 4001);
        cr_assert_eq(table->tree.root->permissions.mode, 0751);
        table_close();
}

TEST(broker, directories_of_the_configuration_are_there_from_the_start) {
        Directory *b;

        table_defaults();
        add_directory(0, "/a", ALICE, 0700);
        add_directory(1, "/a/b", BOB, 01777);
        add_directory(2, "/c", 0, 0755);
        directories[1].max[ACCOUNT_BYTES] = 4096;
        table_open();
        cr_assert_eq(table->tree.n_directories, 4);
        cr_assert_eq(directory_at("/a")->permissions.uid, ALICE);
        b = directory_at("/a/b");
        cr_assert(b->permissions.uid == BOB && b->permissions.mode == 01777);
        cr_assert_eq(b->account->max[ACCOUNT_BYTES], 4096);
        cr_assert_eq(b->account->max[ACCOUNT_REGIONS], QUOTA_UNLIMITED);
        cr_assert_eq(accounts_find_user(&table->accounts, ALICE)->used[ACCOUNT_REGIONS], 1, "their owners pay");
        table_close();
}

TEST(broker, the_limit_of_a_directory_holds) {
        Guest *alice;

        table_defaults();
        add_directory(0, "/d", 0, 01777);
        directories[0].max[ACCOUNT_BYTES] = 4096;
        directories[0].max[ACCOUNT_REGIONS] = 2;
        table_open();
        alice = guest_new(ALICE);
        guest_expect(alice, QUOTA, DIRECTORY_LIMIT, ask_create(alice, "/d/x", 4097, 0600));
        cr_assert(alice->refusal->slot == SHMD__SLOT__SLOT_BYTES && alice->refusal->limit == 4096);
        guest_expect_done(alice, ask_create(alice, "/d/x", 4096, 0600));
        guest_expect_done(alice, ask_mkdir(alice, "/d/e", 0755));
        guest_expect(alice, QUOTA, DIRECTORY_LIMIT, ask_create(alice, "/d/e/y", 0, 0600));
        cr_assert_eq(alice->refusal->slot, SHMD__SLOT__SLOT_REGIONS);
        alice = guest_free(alice);
        table_close();
}

TEST(broker, the_root_may_be_configured_like_any_directory) {
        table_defaults();
        add_directory(0, "/", ALICE, 0755);
        directories[0].max[ACCOUNT_REGIONS] = 1;
        table_open();
        cr_assert_eq(table->tree.root->permissions.uid, ALICE);
        cr_assert_eq(table->tree.root->account->max[ACCOUNT_REGIONS], 1);
        table_close();
}

static void expect_impossible(const char *first, const char *second) {
        const BrokerDirectory *bad = NULL;
        size_t before = test_count_fds();
        Broker *none = NULL;

        table_defaults();
        REQUIRE(probe_run() == 0);
        add_directory(0, first, 0, 0755);
        add_directory(1, second, 0, 0755);
        REQUIRE(broker_new_consume_fds(&none, &table_options, listening_socket(), no_signals(), &bad) == -EINVAL);
        REQUIRE(bad == &directories[1] && !none);
        REQUIRE(test_count_fds() == before, "descriptors are consumed, always");
}

TEST(broker, a_directory_that_cannot_be_is_named_and_nothing_stays) {
        expect_impossible("/a", "/b/c");
        expect_impossible("/a", "/a/b/c");
        expect_impossible("/a", "relative");
        expect_impossible("/a", "/a/..");
}

static int new_without(void *userdata) {
        static const struct {
                int call, error;
        } cases[] = {
                { SCMP_SYS(epoll_ctl), ENOMEM }, { SCMP_SYS(epoll_ctl), ENOSPC },
                { SCMP_SYS(inotify_init1), EPERM }, { SCMP_SYS(fcntl), EPERM },
        };
        size_t i = *(size_t *)userdata, before;
        const BrokerDirectory *bad;
        Broker *none = NULL;
        int fds[2];

        if (i >= sizeof(cases) / sizeof(*cases))
                return 1;
        table_defaults();
        REQUIRE(probe_run() == 0);
        before = test_count_fds();
        fds[0] = listening_socket();
        fds[1] = no_signals();
        house_deny(cases[i].error, cases[i].call, 0, NULL);
        REQUIRE(broker_new_consume_fds(&none, &table_options, fds[0], fds[1], &bad) < 0, "case %zu", i);
        REQUIRE(!none && !bad && test_count_fds() == before, "case %zu", i);
        return 0;
}

TEST(broker, a_failure_at_any_step_leaves_nothing) {
        size_t i = 0;
        int status;

        while ((status = house_fork(new_without, &i)) == 0)
                ++i;
        cr_assert_eq(status, 1 << 8, "case %zu ended with %#x", i, status);
        cr_assert_eq(i, 4);
}

TEST(broker, it_knows_who_is_connected) {
        Guest *alice;
        uint64_t id;

        table_open();
        alice = guest_new(ALICE);
        id = alice->id;
        cr_assert(broker_is_connected(id, table));
        cr_assert_not(broker_is_connected(id + 1, table));
        alice = guest_free(alice);
        cr_assert_not(broker_is_connected(id, table));
        table_close();
}

TEST(broker, taken_apart_in_the_middle_of_everything_its_books_balance) {
        Guest *alice, *bob;
        FdList kept;

        table_open();
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
        guest_expect_done(alice, ask_mkdir(alice, "/d", 01777));
        guest_expect_done(alice, ask_mkdir(alice, "/d/e", 0755));
        guest_expect_done(bob, ask_create(bob, "/d/x", 1 << 20, 0666));
        guest_expect_done(bob, ask_create(bob, "", 1 << 20, 0666));
        guest_expect_done(alice, ask_create(alice, "/d/e/y", 4096, 0666));
        kept = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        guest_expect_done(alice, ask_unlink(alice, "/d/e/y"));
        cr_assert_eq(guest_ask(bob, MESSAGE_WAIT,
                               REQUEST(Wait, wait, .path = BYTES("/z"), .timeout_ns = NSEC_PER_SEC)), SILENT);
        guest_expect_done(bob, ask_open(bob, "/d/x", 1));

        table_close();
        cr_assert_eq(lseek(kept.fds[0], 0, SEEK_END), 4096, "who holds a region keeps it");
        fdlist_deinit(&kept);
        fdlist_deinit(&bob->fds);
        close_fd(alice->fd);
        close_fd(bob->fd);
        (void)arena_free(alice->arena);
        (void)arena_free(bob->arena);
        free(alice);
        free(bob);
}

/* -- running ------------------------------------------------------------------------------------------- */

static char directory[64], path[108];

/* The broker, as main() runs it, but without leaving root and without the sandbox. */
static int run(void *userdata) {
        const BrokerDirectory *bad;
        size_t before = test_count_fds();
        int listening, signals, log, r;
        sigset_t set;
        Broker *broker;

        log = memfd_create("log", MFD_CLOEXEC);
        REQUIRE(log >= 0 && log_open(log) == 0);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        REQUIRE(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
        signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        REQUIRE(probe_run() == 0 && listener_bind(path, 0666, &listening) == 0);
        REQUIRE(broker_new_consume_fds(&broker, &table_options, listening, signals, &bad) == 0);
        REQUIRE(kill(getppid(), 0) == 0);
        r = broker_run(broker);
        REQUIRE(broker_free(broker));
        log_close();
        close_fd(log);
        REQUIRE(test_count_fds() == before);
        return r == 0 ? 0 : 1;
}

static bool try_connect(void *userdata) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int *fd = userdata;

        (void)strcpy(address.sun_path, path);
        *fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (connect(*fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
                return true;
        *fd = close_fd(*fd);
        return false;
}

static void expect_stop_by(int signal) {
        uint8_t packet[WIRE_REPLY_MAX];
        WireHeader header;
        pid_t pid;
        size_t n;
        int fd;

        table_defaults();
        (void)strcpy(directory, "/tmp/shmd-unit-XXXXXX");
        REQUIRE(mkdtemp(directory));
        (void)snprintf(path, sizeof(path), "%s/socket", directory);
        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0)
                _exit(run(NULL));
        REQUIRE(test_eventually(try_connect, &fd));

        REQUIRE(message_pack(REQUEST(Hello, hello, .version = 1), packet + sizeof(WireHeader), 64, &n) == 0);
        wire_put_header(packet, n + sizeof(WireHeader), MESSAGE_HELLO, 0, 1);
        REQUIRE(send(fd, packet, n + sizeof(WireHeader), 0) > 0);
        REQUIRE(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, TEST_PATIENCE_MS) == 1);
        REQUIRE(wire_receive(fd, packet, sizeof(packet), NULL, &header) == 0);
        REQUIRE(header.kind == (MESSAGE_HELLO | MESSAGE_REPLY) && header.serial == 1);

        REQUIRE(kill(pid, signal) == 0);
        n = (size_t)test_wait_pid(pid);
        REQUIRE(n == 0, "status %#zx", n);
        REQUIRE(recv(fd, packet, 1, 0) == 0, "its guests see the end");
        close_fd(fd);
        (void)unlink(path);
        REQUIRE(rmdir(directory) == 0);
}

TEST(broker, it_serves_until_it_is_told_to_stop) {
        expect_stop_by(SIGTERM);
        expect_stop_by(SIGINT);
}
