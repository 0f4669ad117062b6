/* client/connect: which socket, who is trusted to be a broker, and hello. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void script_end(Peer *peer) {
        peer_expect_end(peer);
}

TEST(client_connect, hello_brings_session_uid_and_version) {
        shmd *client = peer_start_and_connect(script_end);
        uint8_t session[16];
        uint32_t uid = 0;
        bool admin = false;

        cr_assert_eq(shmd_session(client, session, &uid, &admin), 0);
        cr_assert_arr_eq(session, PEER_SESSION, 16);
        cr_assert_eq(uid, PEER_UID);
        cr_assert(admin);
        cr_assert_eq(shmd_session(client, NULL, NULL, NULL), 0);
        cr_assert_str_eq(shmd_broker_version(client), PEER_VERSION);
        cr_assert_eq(shmd_broker_pid(client), getpid(), "the test listens itself");
        cr_assert_str_eq(shmd_socket(client), peer_socket);
        cr_assert_eq(shmd_refusal(client)->error, 0);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "");
        peer_join(client);
}

static int try_connect(const char *socket, uint64_t timeout_ns) {
        shmd *client = (shmd *)"something";
        int r = shmd_connect(&client, socket, timeout_ns);

        REQUIRE(r < 0 && client == NULL);
        return r;
}

TEST(client_connect, a_socket_that_is_not_there_is_enoent) {
        cr_assert_eq(try_connect("/nonexistent/socket", SECOND), -ENOENT);
        cr_assert_eq(try_connect("", SECOND), -ENOENT);
        cr_assert_str_eq(shmd_refusal(NULL)->sentence, "");
}

TEST(client_connect, a_path_that_does_not_fit_a_socket_address_is_enametoolong) {
        char path[200];

        memset(path, 'a', sizeof(path));
        path[0] = '/';
        path[108] = '\0';
        cr_assert_eq(try_connect(path, SECOND), -ENAMETOOLONG);
        path[107] = '\0';
        cr_assert_eq(try_connect(path, SECOND), -ENOENT);
}

TEST(client_connect, a_socket_that_nobody_listens_at_is_econnrefused) {
        peer_start(script_end);
        peer_kill();
        cr_assert_eq(try_connect(peer_socket, SECOND), -ECONNREFUSED);
        peer_join(NULL);
}

/* -- trust --------------------------------------------------------------------------- */

static int connect_once(void *userdata) {
        shmd *client;
        int r = shmd_connect(&client, peer_socket, 20 * SECOND);

        shmd_close(client);
        return r;
}

static void script_any(Peer *peer) {
}

/* What a client of `uid` gets from a broker of `listener` behind a socket file of `owner`. */
static int connect_between(uid_t uid, uid_t listener, uid_t owner, PeerScript script, bool hello) {
        int r;

        peer_listen(listener, owner);
        if (hello)
                peer_start(script);
        else
                peer_start_without_hello(script);
        r = run_as(uid, uid, connect_once, NULL);
        peer_join(NULL);
        return r;
}

TEST(client_connect, a_broker_of_another_uid_is_not_trusted) {
        test_needs_root();
        cr_assert_eq(connect_between(ALICE, BOB, CAROL, script_any, false), -EPERM);
        cr_assert_eq(connect_between(ALICE, BOB, 0, script_any, false), -EPERM);
        cr_assert_eq(connect_between(ALICE, BOB, ALICE, script_any, false), -EPERM);
}

TEST(client_connect, root_the_caller_and_the_owner_of_the_socket_are_trusted) {
        test_needs_root();
        cr_assert_eq(connect_between(ALICE, 0, CAROL, script_end, true), 0);
        cr_assert_eq(connect_between(ALICE, ALICE, CAROL, script_end, true), 0);
        cr_assert_eq(connect_between(ALICE, BOB, BOB, script_end, true), 0);
}

/* -- hello that fails ---------------------------------------------------------------- */

/* The broker at its limit of peers: it has not read the hello, says why, and is gone. */
static void script_limit(Peer *peer) {
        struct pollfd pollfd = { .fd = peer->fd, .events = POLLIN };

        REQUIRE(poll(&pollfd, 1, TEST_PATIENCE_MS) == 1);
        peer_send(peer, MESSAGE_REFUSAL, 0,
                  MESSAGE(Refusal, refusal, .error = SHMD__ERROR__ERROR_QUOTA, .reason = SHMD__REASON__REASON_LIMIT,
                          .slot = SHMD_SLOT_PEERS, .uid = 1000, .asked = 1, .left = 0, .limit = 32,
                          .thing = BYTES("connection"), .sentence = BYTES("32 connections are the limit")), NULL, 0);
}

TEST(client_connect, a_refused_connection_says_why) {
        const struct shmd_refusal *refusal;
        shmd *client;

        peer_start_without_hello(script_limit);
        cr_assert_eq(shmd_connect(&client, peer_socket, SHMD_TIMEOUT_DEFAULT), -EDQUOT);
        cr_assert_not_null(client);
        refusal = shmd_refusal(client);
        cr_assert_eq(refusal->error, -EDQUOT);
        cr_assert_eq(refusal->code, SHMD_ERROR_QUOTA);
        cr_assert_str_eq(shmd_reason_name(refusal->reason), "limit");
        cr_assert_str_eq(shmd_slot_name(refusal->slot), "peers");
        cr_assert_eq(refusal->uid, 1000);
        cr_assert_eq(refusal->asked, 1);
        cr_assert_eq(refusal->limit, 32);
        cr_assert_str_eq(refusal->thing, "connection");
        cr_assert_str_eq(refusal->sentence, "32 connections are the limit");
        cr_assert_eq(shmd_ping(client, NULL, SECOND), -ENOTCONN);
        cr_assert_eq(shmd_fd(client), -ENOTCONN);
        peer_join(client);
}

static void script_refuse_version(Peer *peer) {
        peer_expect(peer, MESSAGE_HELLO);
        peer_refuse(peer, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_VERSION, "version 2 or later");
        peer_expect_end(peer);
}

static void script_other_version(Peer *peer) {
        peer_expect(peer, MESSAGE_HELLO);
        peer_reply(peer, MESSAGE(HelloReply, hello_reply, .version = 2, .session = BYTES(PEER_SESSION)), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_connect, no_common_version_is_eprotonosupport) {
        shmd *client;

        peer_start_without_hello(script_refuse_version);
        cr_assert_eq(shmd_connect(&client, peer_socket, SHMD_TIMEOUT_DEFAULT), -EPROTONOSUPPORT);
        cr_assert_not_null(client);
        cr_assert_eq(shmd_refusal(client)->error, -EPROTONOSUPPORT);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "version 2 or later");
        peer_join(client);

        peer_start_without_hello(script_other_version);
        cr_assert_eq(try_connect(peer_socket, SHMD_TIMEOUT_DEFAULT), -EPROTONOSUPPORT);
        peer_join(NULL);
}

static void script_short_session(Peer *peer) {
        peer_expect(peer, MESSAGE_HELLO);
        peer_reply(peer, MESSAGE(HelloReply, hello_reply, .version = 1, .session = BYTES("short")), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_connect, a_session_of_the_wrong_length_is_eproto) {
        peer_start_without_hello(script_short_session);
        cr_assert_eq(try_connect(peer_socket, SHMD_TIMEOUT_DEFAULT), -EPROTO);
        peer_join(NULL);
}

/* It need not even accept. */
TEST(client_connect, a_broker_that_says_nothing_is_etimedout) {
        peer_listen(geteuid(), geteuid());
        cr_assert_eq(try_connect(peer_socket, SECOND / 20), -ETIMEDOUT);
        peer_join(NULL);
}

TEST(client_connect, a_full_backlog_is_etimedout) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fds[16];
        int n = 0;

        peer_listen(geteuid(), geteuid());
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", peer_socket);
        for (bool full = false; !full && n < 16; ++n) {
                fds[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
                full = connect(fds[n], (struct sockaddr *)&address, sizeof(address)) < 0;
        }
        cr_assert_lt(n, 16);
        cr_assert_eq(try_connect(peer_socket, SECOND / 20), -ETIMEDOUT);
        while (n > 0)
                (void)close(fds[--n]);
        peer_start_without_hello(script_any);
        peer_join(NULL);
}

/* -- which socket -------------------------------------------------------------------- */

static void expect_found(void) {
        shmd *client;

        peer_start(script_end);
        REQUIRE(shmd_connect(&client, NULL, SHMD_TIMEOUT_DEFAULT) == 0);
        peer_join(client);
}

TEST(client_connect, the_environment_names_the_socket) {
        peer_listen(geteuid(), geteuid());
        cr_assert_eq(setenv("SHMD_SOCKET", peer_socket, 1), 0);
        expect_found();
        /* It alone counts, even where the others would be found. */
        cr_assert_eq(setenv("SHMD_SOCKET", "/nonexistent/socket", 1), 0);
        cr_assert_eq(try_connect(NULL, SECOND), -ENOENT);
}

static void enter_runtime_directory(char *directory, const char *variable) {
        char path[128];

        REQUIRE(mkdtemp(directory) != NULL);
        (void)snprintf(path, sizeof(path), "%s/shmd", directory);
        REQUIRE(mkdir(path, 0755) == 0);
        (void)snprintf(path, sizeof(path), "%s/shmd/socket", directory);
        REQUIRE(symlink(peer_socket, path) == 0);
        REQUIRE(setenv(variable, directory, 1) == 0);
}

static void leave_runtime_directory(const char *directory) {
        char path[128];

        (void)snprintf(path, sizeof(path), "%s/shmd/socket", directory);
        REQUIRE(unlink(path) == 0);
        (void)snprintf(path, sizeof(path), "%s/shmd", directory);
        REQUIRE(rmdir(path) == 0 && rmdir(directory) == 0);
}

TEST(client_connect, the_users_socket_comes_before_the_systems) {
        char directory[] = "/tmp/shmd-runtime-XXXXXX";

        cr_assert_eq(unsetenv("SHMD_SOCKET"), 0);
        peer_listen(geteuid(), geteuid());
        enter_runtime_directory(directory, "XDG_RUNTIME_DIR");
        expect_found();
        leave_runtime_directory(directory);
}

/* In a mount namespace of its own, where /run is ours to fill. */
static int find_system_socket(void *userdata) {
        shmd *client;

        REQUIRE(unshare(CLONE_NEWNS) == 0);
        REQUIRE(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
        REQUIRE(mount("tmpfs", "/run", "tmpfs", 0, NULL) == 0);
        REQUIRE(mkdir("/run/shmd", 0755) == 0);
        REQUIRE(symlink(peer_socket, "/run/shmd/socket") == 0);
        REQUIRE(setenv("XDG_RUNTIME_DIR", "/nonexistent", 1) == 0);
        REQUIRE(unsetenv("SHMD_SOCKET") == 0);
        REQUIRE(shmd_connect(&client, NULL, SHMD_TIMEOUT_DEFAULT) == 0);
        REQUIRE(strcmp(shmd_socket(client), "/run/shmd/socket") == 0);
        shmd_close(client);
        return 0;
}

TEST(client_connect, the_systems_socket_is_the_last_one_looked_for) {
        test_needs_namespaces(CLONE_NEWNS);
        peer_start(script_end);
        cr_assert_eq(run_as(0, 0, find_system_socket, NULL), 0);
        peer_join(NULL);
}
