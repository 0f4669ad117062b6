/* client/link and client/ready: the broker goes, at every point of a conversation, and comes back. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* -- what the client sees ------------------------------------------------------------ */

static char heard[2048];        /* "gone:-104 back:1 a:0 /d/x:1 " */

static void note(const char *what, int number) {
        size_t n = strlen(heard);

        (void)snprintf(heard + n, sizeof(heard) - n, "%s:%d ", what, number);
}

static void listen_to(shmd *client, const struct shmd_event *event, void *userdata) {
        REQUIRE(event->watch == 0 && !strcmp(event->path, ""));
        REQUIRE(shmd_ping(client, NULL, SECOND) == (event->event == SHMD_EVENT_LOST ? -ENOTCONN : -EDEADLK));
        switch (event->event) {
        case SHMD_EVENT_DISCONNECTED:
                note("gone", event->error);
                break;
        case SHMD_EVENT_RECONNECTED:
                note("back", event->resumed);
                break;
        default:
                REQUIRE(event->event == SHMD_EVENT_LOST, "event %u", event->event);
                note("lost", event->error);
        }
        if (userdata)
                REQUIRE(shmd_rmdir_start(client, userdata, SHMD_TIMEOUT_NONE, NULL, NULL, NULL) ==
                        (event->event == SHMD_EVENT_LOST ? -ENOTCONN : 0));
}

static void see(shmd *client, shmd_call *call, void *name) {
        (void)client;
        note(name, shmd_call_result(call));
}

static void process_until(shmd *client, const char *expected) {
        while (strlen(heard) < strlen(expected))
                REQUIRE(shmd_process(client, 20 * SECOND) >= 0, "%s", heard);
        cr_assert_str_eq(heard, expected);
}

static void process_to_the_end(shmd *client) {
        while (shmd_process(client, 20 * SECOND) >= 0)
                continue;
}

static shmd *begin(PeerScript script) {
        shmd *client = peer_start_and_connect(script);

        heard[0] = '\0';
        cr_assert_eq(shmd_set_listener(client, listen_to, NULL), 0);
        return client;
}

/* -- for scripts --------------------------------------------------------------------- */

static uint64_t expect_mkdir(Peer *peer, const char *path) {
        const Shmd__Mkdir *mkdir = peer_expect(peer, MESSAGE_MKDIR);

        REQUIRE(mkdir->path.len == strlen(path) && !memcmp(mkdir->path.data, path, mkdir->path.len), "%.*s instead of %s",
                (int)mkdir->path.len, (const char *)mkdir->path.data, path);
        return peer->header.serial;
}

static void expect_ping(Peer *peer) {
        (void)peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
}

static void say_goodbye(Peer *peer, uint32_t error, uint32_t reason) {
        peer_send(peer, MESSAGE_REFUSAL, 0,
                  MESSAGE(Refusal, refusal, .error = error, .reason = reason, .sentence = BYTES("goodbye")), NULL, 0);
}

/* -- the session goes on ------------------------------------------------------------- */

static void script_after_the_send(Peer *peer) {
        uint64_t serial = expect_mkdir(peer, "/a");

        peer_welcome(peer, true);
        REQUIRE(expect_mkdir(peer, "/a") == serial);
        peer_done(peer);
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_call_that_was_sent_is_sent_again_under_its_serial) {
        shmd *client = begin(script_after_the_send);
        size_t n_fds = test_count_fds();

        errno = 4711;
        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(errno, 4711);
        cr_assert_str_eq(heard, "gone:-104 back:1 ");
        cr_assert_eq(test_count_fds(), n_fds);
        peer_join(client);
}

/* The end that is connected to the peer. */
static int clients_socket(void) {
        for (int fd = 0; fd < 1024; ++fd) {
                struct sockaddr_un address = { .sun_path = "" };
                socklen_t n = sizeof(address);

                if (getpeername(fd, (struct sockaddr *)&address, &n) == 0 && strcmp(address.sun_path, peer_socket) == 0)
                        return fd;
        }
        return -1;
}

TEST(client_link, the_next_socket_can_be_waited_at_as_the_first_one) {
        shmd *client = begin(script_after_the_send);

        cr_assert_eq(fcntl(clients_socket(), F_GETFL) & O_NONBLOCK, 0);
        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(fcntl(clients_socket(), F_GETFL) & O_NONBLOCK, 0);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

static void script_before_the_send(Peer *peer) {
        peer_hang_up(peer);
        peer_welcome(peer, true);
        (void)expect_mkdir(peer, "/a");
        peer_done(peer);
        peer_expect_end(peer);
}

static void await_the_end_of(shmd *client) {
        struct pollfd pollfd = { .fd = shmd_fd(client), .events = (short)shmd_events(client) };

        REQUIRE(poll(&pollfd, 1, TEST_PATIENCE_MS) == 1);
}

TEST(client_link, a_call_that_finds_nobody_to_take_it_is_sent_to_the_next) {
        shmd *client = begin(script_before_the_send);

        await_the_end_of(client);
        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), 0);
        cr_assert_str_eq(heard, "gone:-104 back:1 ");
        peer_join(client);
}

static void script_in_the_middle_of_hello(Peer *peer) {
        uint64_t serial = expect_mkdir(peer, "/a");

        peer_accept(peer);
        peer_accept(peer);
        (void)peer_expect(peer, MESSAGE_HELLO);
        peer_welcome(peer, true);
        REQUIRE(expect_mkdir(peer, "/a") == serial);
        peer_accept(peer);
        peer_welcome(peer, true);
        REQUIRE(expect_mkdir(peer, "/a") == serial);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_broker_that_dies_before_and_in_hello_is_tried_again_and_again) {
        shmd *client = begin(script_in_the_middle_of_hello);

        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), 0);
        cr_assert_str_eq(heard, "gone:-104 back:1 gone:-104 back:1 ");
        peer_join(client);
}

static void script_first_hello(Peer *peer) {
        (void)peer_expect(peer, MESSAGE_HELLO);
        peer_accept(peer);
        say_goodbye(peer, SHMD_ERROR_SHUTDOWN, SHMD__REASON__REASON_STOPPING);
        peer_vanish(peer);
        test_sleep_ms(20);
        peer_return(geteuid(), geteuid());
        peer_accept(peer);
        (void)peer_expect(peer, MESSAGE_HELLO);
        peer_reply(peer, MESSAGE(HelloReply, hello_reply, .version = 1, .session = BYTES(PEER_SESSION)), NULL, 0);
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, who_was_taken_once_waits_for_the_next_broker_to_say_hello) {
        shmd *client;

        peer_start_without_hello(script_first_hello);
        cr_assert_eq(shmd_connect(&client, peer_socket, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

/* -- what is wished for in it -------------------------------------------------------- */

static void say_hello(Peer *peer, uint64_t wished, uint64_t granted, bool resumed) {
        const Shmd__Hello *hello = peer_expect(peer, MESSAGE_HELLO);

        REQUIRE(hello->features == wished && (hello->session.len == 16) == resumed);
        peer_reply(peer, MESSAGE(HelloReply, hello_reply, .version = 1, .features = granted, .resumed = resumed,
                                 .session = BYTES(PEER_SESSION)), NULL, 0);
        expect_ping(peer);
}

static void script_wishes(Peer *peer) {
        say_hello(peer, SHMD__FEATURES__FEATURE_BUSY_POLL, SHMD__FEATURES__FEATURE_BUSY_POLL, false);
        peer_accept(peer);
        say_hello(peer, SHMD__FEATURES__FEATURE_BUSY_POLL, 0, true);
        peer_accept(peer);
        say_hello(peer, SHMD__FEATURES__FEATURE_BUSY_POLL, UINT64_MAX, true);
        peer_expect_end(peer);
}

static void expect_flags(shmd *client, uint32_t expected) {
        uint32_t flags = UINT32_MAX;

        cr_assert_eq(shmd_ping(client, NULL, 20 * SECOND), 0);
        cr_assert_eq(shmd_connect_flags(client, &flags), 0);
        cr_assert_eq(flags, expected);
}

TEST(client_link, what_was_wished_for_is_wished_for_of_the_next_broker_too) {
        struct shmd_connect_options options = SHMD_CONNECT_OPTIONS_INIT;
        shmd *client;

        options.flags = SHMD_CONNECT_BUSY_POLL;
        peer_start_without_hello(script_wishes);
        cr_assert_eq(shmd_connect_with(&client, peer_socket, &options, 20 * SECOND), 0);
        expect_flags(client, SHMD_CONNECT_BUSY_POLL);
        expect_flags(client, 0);
        expect_flags(client, SHMD_CONNECT_BUSY_POLL);
        peer_join(client);
}

/* Whatever a broker says, nothing is granted that nobody wished for. */
static void script_generous(Peer *peer) {
        say_hello(peer, 0, UINT64_MAX, false);
        peer_expect_end(peer);
}

TEST(client_link, without_options_nothing_is_wished_for) {
        struct shmd_connect_options options = SHMD_CONNECT_OPTIONS_INIT;
        const struct shmd_connect_options *given[] = { NULL, &options };
        shmd *client;

        for (size_t i = 0; i < 2; ++i) {
                peer_start_without_hello(script_generous);
                cr_assert_eq(shmd_connect_with(&client, peer_socket, given[i], 20 * SECOND), 0);
                expect_flags(client, 0);
                peer_join(client);
        }
}

TEST(client_link, options_that_this_library_does_not_know_are_refused_before_anything_else) {
        struct { struct shmd_connect_options options; uint32_t more[4]; } newer = { SHMD_CONNECT_OPTIONS_INIT, { 0 } };
        struct shmd_connect_options *options = &newer.options;
        shmd *client = (shmd *)&newer;

        options->flags = SHMD_CONNECT_BUSY_POLL << 1;
        cr_assert_eq(shmd_connect_with(&client, "/nowhere", options, SECOND), -EINVAL);
        cr_assert_null(client);
        options->flags = SHMD_CONNECT_BUSY_POLL;
        options->struct_size = sizeof(newer);
        cr_assert_eq(shmd_connect_with(&client, "/nowhere", options, SECOND), -ENOENT);
        newer.more[3] = 1;
        cr_assert_eq(shmd_connect_with(&client, "/nowhere", options, SECOND), -EINVAL);
        options->struct_size = sizeof(*options) - 1;
        cr_assert_eq(shmd_connect_with(&client, "/nowhere", options, SECOND), -EINVAL);
        cr_assert_eq(shmd_connect_flags(NULL, &(uint32_t){ 0 }), -EINVAL);
}

/* The reply is in the socket when its sender is gone already: it counts. */
static void script_last_words(Peer *peer) {
        (void)peer_expect(peer, MESSAGE_OPEN);
        peer_grant(peer, 1, 4096, SHMD_RIGHTS_READ_WRITE);
        (void)peer_expect(peer, MESSAGE_OPEN);
        peer_welcome(peer, true);
        (void)peer_expect(peer, MESSAGE_OPEN);
        peer_grant(peer, 2, 4096, SHMD_RIGHTS_READ_WRITE);
        /* Given, and lost on the way. */
        (void)peer_expect(peer, MESSAGE_OPEN);
        peer_expect_end(peer);
}

static void on_open(shmd *client, shmd_call *call, void *userdata) {
        shmd_region **region = userdata;

        (void)client;
        REQUIRE(shmd_open_finish(call, region) == 0);
        note("open", (int)shmd_region_id(*region));
}

TEST(client_link, what_came_before_the_end_counts_and_no_descriptor_is_left_over) {
        shmd *client = begin(script_last_words);
        size_t n_fds = test_count_fds();
        shmd_region *regions[2];

        for (size_t i = 0; i < 2; ++i)
                cr_assert_eq(shmd_open_start(client, "/a", SHMD_RIGHTS_READ_WRITE, SHMD_TIMEOUT_NONE, on_open,
                                             &regions[i], NULL), 0);
        process_until(client, "open:1 gone:-104 back:1 open:2 ");
        cr_assert_eq(test_count_fds(), n_fds + 2);
        cr_assert_eq(shmd_open_start(client, "/a", SHMD_RIGHTS_READ_WRITE, SHMD_TIMEOUT_NONE, NULL, NULL, NULL), 0);
        shmd_region_free(regions[0]);
        shmd_region_free(regions[1]);
        cr_assert_eq(test_count_fds(), n_fds);
        peer_join(client);
}

/* -- the socket is away, and the service ---------------------------------------------- */

static void script_vanish(Peer *peer) {
        uint64_t serial = expect_mkdir(peer, "/a");

        peer_vanish(peer);
        test_sleep_ms(50);
        peer_return(geteuid(), geteuid());
        peer_welcome(peer, true);
        REQUIRE(expect_mkdir(peer, "/a") == serial);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_socket_that_is_away_is_waited_for) {
        shmd *client = begin(script_vanish);

        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

static void script_imposter(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_vanish(peer);
        peer_return(BOB, 0);
        /* It is connected to, and nothing is said. */
        peer_accept(peer);
        peer_expect_end(peer);
        peer_vanish(peer);
        peer_return(0, 0);
        peer_welcome(peer, true);
        (void)expect_mkdir(peer, "/a");
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_link, nothing_is_said_to_who_took_the_brokers_place) {
        shmd *client;

        test_needs_root();
        /* An effective uid of 0 would be trusted as the caller. */
        client = begin(script_imposter);
        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

static void script_away_for_long(Peer *peer) {
        (void)expect_mkdir(peer, "/sent");
        peer_vanish(peer);
        peer_stay();
        peer_return(geteuid(), geteuid());
        peer_welcome(peer, true);
        /* All that was in flight has ended meanwhile. */
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_call_has_its_own_time_whatever_the_broker_does) {
        shmd *client = begin(script_away_for_long);
        uint64_t left_ns;

        cr_assert_eq(shmd_mkdir(client, "/sent", 0755, 20 * SECOND / 1000), -ETIMEDOUT);
        cr_assert(strstr(shmd_refusal(client)->sentence, "unknown"), "%s", shmd_refusal(client)->sentence);
        peer_await();
        cr_assert_eq(shmd_mkdir(client, "/unsent", 0755, 20 * SECOND / 1000), -ETIMEDOUT);
        cr_assert_not(strstr(shmd_refusal(client)->sentence, "unknown"), "%s", shmd_refusal(client)->sentence);
        /* The broker's own deadline counts only where there is a broker. */
        cr_assert_eq(shmd_wait_start(client, "/w", 20 * SECOND / 1000, see, (void *)"wait", NULL), 0);
        cr_assert_eq(shmd_timeout(client, &left_ns), 0);
        cr_assert_leq(left_ns, 250 * SECOND / 1000);
        process_until(client, "gone:-104 wait:-110 ");
        peer_go_on();
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        cr_assert_str_eq(heard, "gone:-104 wait:-110 back:1 ");
        peer_join(client);
}

static void script_vanish_for_good(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_vanish(peer);
}

TEST(client_link, it_can_be_closed_while_the_broker_is_gone) {
        shmd *client = begin(script_vanish_for_good);

        cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
        process_until(client, "gone:-104 ");
        cr_assert_eq(shmd_session(client, NULL, NULL, NULL), 0);
        (void)shmd_close(client);
        cr_assert_str_eq(heard, "gone:-104 a:-125 lost:-125 ");
        peer_join(NULL);
}

TEST(client_link, who_gives_up_while_it_is_gone_has_lost_it) {
        shmd *client = begin(script_vanish_for_good);

        cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
        process_until(client, "gone:-104 ");
        cr_assert_eq(shmd_set_reconnect(client, false), 0);
        process_to_the_end(client);
        cr_assert_str_eq(heard, "gone:-104 a:-104 lost:-104 ");
        cr_assert_eq(shmd_set_reconnect(client, true), -ENOTCONN);
        cr_assert_eq(shmd_set_listener(client, NULL, NULL), -ENOTCONN);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), -ENOTCONN);
        peer_join(client);
}

/* -- a session that is new ------------------------------------------------------------- */

static void script_forget(Peer *peer) {
        uint64_t open, stat;

        (void)expect_mkdir(peer, "/a");
        (void)peer_expect(peer, MESSAGE_OPEN);
        open = peer->header.serial;
        (void)peer_expect(peer, MESSAGE_STAT);
        stat = peer->header.serial;
        peer_welcome(peer, false);
        (void)peer_expect(peer, MESSAGE_OPEN);
        REQUIRE(peer->header.serial == open);
        peer_refuse(peer, SHMD_ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING, "gone");
        (void)peer_expect(peer, MESSAGE_STAT);
        REQUIRE(peer->header.serial == stat);
        peer_refuse(peer, SHMD_ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING, "gone");
        /* Its second session can be resumed. */
        (void)expect_mkdir(peer, "/b");
        peer_welcome(peer, true);
        (void)expect_mkdir(peer, "/b");
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_link, in_a_new_session_what_may_have_been_done_is_not_done_again) {
        shmd *client = begin(script_forget);
        uint8_t session[16];

        cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"mkdir", NULL), 0);
        cr_assert_eq(shmd_open_start(client, "/a", 1, SHMD_TIMEOUT_NONE, see, (void *)"open", NULL), 0);
        cr_assert_eq(shmd_stat_start(client, "/a", 0, 0, SHMD_TIMEOUT_NONE, see, (void *)"stat", NULL), 0);
        process_until(client, "gone:-104 back:0 mkdir:-104 open:-2 stat:-2 ");
        cr_assert_eq(shmd_session(client, session, NULL, NULL), 0);
        cr_assert_arr_eq(session, PEER_NEW_SESSION, 16);
        cr_assert_eq(shmd_mkdir(client, "/b", 0755, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

static void script_forget_twice(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_vanish(peer);
        test_sleep_ms(20);
        peer_return(geteuid(), geteuid());
        peer_welcome(peer, false);
        (void)expect_mkdir(peer, "/b");
        peer_welcome(peer, false);
        peer_expect_end(peer);
}

/* What is started while there is no broker is in no doubt at first. */
TEST(client_link, what_never_left_goes_to_the_new_session_and_is_in_doubt_only_then) {
        shmd *client = begin(script_forget_twice);

        cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
        process_until(client, "gone:-104 ");
        cr_assert_eq(shmd_mkdir_start(client, "/b", 0755, SHMD_TIMEOUT_NONE, see, (void *)"b", NULL), 0);
        process_until(client, "gone:-104 back:0 a:-104 gone:-104 back:0 b:-104 ");
        peer_join(client);
}

/* A session that nobody asked for is not resumed, whatever the broker says. */
static void script_liar(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_accept(peer);
        (void)peer_expect(peer, MESSAGE_HELLO);
        peer_reply(peer, MESSAGE(HelloReply, hello_reply, .version = 1, .session = BYTES(PEER_NEW_SESSION),
                                 .resumed = true), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_link, a_session_with_another_name_is_a_new_one) {
        shmd *client = begin(script_liar);

        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), -ECONNRESET);
        cr_assert_str_eq(heard, "gone:-104 back:0 ");
        peer_join(client);
}

/* -- many in flight -------------------------------------------------------------------- */

#define MANY 150
#define CHANGES_MAX 64

/* However slow the client is, what must come is waited for, and only then for what must not. */
static void expect_silence(Peer *peer) {
        struct pollfd pollfd = { .fd = peer->fd, .events = POLLIN };

        REQUIRE(poll(&pollfd, 1, 100) == 0);
}

static void receive_just(Peer *peer, unsigned int n, unsigned int first, uint64_t first_serial) {
        char path[16];

        for (unsigned int i = 0; i < n; ++i) {
                (void)snprintf(path, sizeof(path), "/%u", first + i);
                REQUIRE(expect_mkdir(peer, path) == first_serial + i);
        }
        expect_silence(peer);
}

static void answer(Peer *peer, uint64_t serial) {
        peer_send(peer, MESSAGE_MKDIR | MESSAGE_REPLY, serial, MESSAGE(Done, done), NULL, 0);
}

static void script_many(Peer *peer) {
        uint64_t first = expect_mkdir(peer, "/0");
        unsigned int n;

        receive_just(peer, CHANGES_MAX - 1, 1, first + 1);
        for (n = 0; n < 10; ++n)
                answer(peer, first + n);
        receive_just(peer, 10, CHANGES_MAX, first + CHANGES_MAX);
        /* Out of order: it is the oldest that counts. */
        answer(peer, first + 12);
        expect_silence(peer);
        peer_welcome(peer, true);
        REQUIRE(expect_mkdir(peer, "/10") == first + 10);
        REQUIRE(expect_mkdir(peer, "/11") == first + 11);
        receive_just(peer, CHANGES_MAX - 2, 13, first + 13);
        peer_welcome(peer, true);
        for (n = 10; n < MANY; ++n) {
                char path[16];

                if (n == 12)
                        continue;
                (void)snprintf(path, sizeof(path), "/%u", n);
                REQUIRE(expect_mkdir(peer, path) == first + n);
                answer(peer, first + n);
        }
        expect_ping(peer);
        peer_expect_end(peer);
}

static void count(shmd *client, shmd_call *call, void *userdata) {
        unsigned int *n = userdata;

        (void)client;
        REQUIRE(shmd_mkdir_finish(call) == 0);
        ++*n;
}

TEST(client_link, as_many_changes_are_in_flight_as_the_broker_remembers_and_they_keep_their_order) {
        shmd *client = begin(script_many);
        unsigned int n = 0;

        for (unsigned int i = 0; i < MANY; ++i) {
                char path[16];

                (void)snprintf(path, sizeof(path), "/%u", i);
                cr_assert_eq(shmd_mkdir_start(client, path, 0755, SHMD_TIMEOUT_NONE, count, &n, NULL), 0);
        }
        /* Room in the socket is not what they wait for. */
        cr_assert_eq(shmd_events(client), POLLIN);
        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, see, (void *)"ping", NULL), 0);
        process_until(client, "gone:-104 back:1 gone:-104 back:1 ping:0 ");
        cr_assert_eq(n, MANY);
        peer_join(client);
}

static void script_batches(Peer *peer) {
        uint64_t first = 0;
        unsigned int n;

        for (n = 0; n < 8; ++n) {
                (void)peer_expect(peer, MESSAGE_BATCH);
                first = first ? first : peer->header.serial;
        }
        expect_silence(peer);
        for (n = 0; n < 10; ++n) {
                peer_send(peer, MESSAGE_REFUSAL, first + n, MESSAGE(Refusal, refusal, .error = SHMD_ERROR_DENIED),
                          NULL, 0);
                if (n < 2)
                        (void)peer_expect(peer, MESSAGE_BATCH);
        }
        peer_expect_end(peer);
}

/* Of their items the broker remembers no more. */
TEST(client_link, a_batch_counts_for_many) {
        const struct shmd_batch_item item = { .path = "/a", .rights = SHMD_RIGHTS_READ_ONLY };
        shmd *client = begin(script_batches);

        for (unsigned int i = 0; i < 10; ++i)
                cr_assert_eq(shmd_batch_start(client, &item, 1, SHMD_TIMEOUT_NONE, see, (void *)"b", NULL), 0);
        process_until(client, "b:-13 b:-13 b:-13 b:-13 b:-13 b:-13 b:-13 b:-13 b:-13 b:-13 ");
        peer_join(client);
}

static void script_unread(Peer *peer) {
        unsigned int n = 0;

        peer_stay();
        peer_welcome(peer, true);
        for (; n < 5000; ++n)
                expect_ping(peer);
        peer_expect_end(peer);
}

static void count_ping(shmd *client, shmd_call *call, void *userdata) {
        unsigned int *n = userdata;

        (void)client;
        REQUIRE(shmd_ping_finish(call, NULL) == 0);
        ++*n;
}

TEST(client_link, a_full_socket_that_is_lost_leaves_nothing_behind) {
        shmd *client = begin(script_unread);
        unsigned int n = 0;

        for (unsigned int i = 0; i < 5000; ++i)
                cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, count_ping, &n, NULL), 0);
        cr_assert_eq(shmd_events(client), POLLIN | POLLOUT);
        peer_await();
        peer_go_on();
        while (n < 5000)
                REQUIRE(shmd_process(client, 20 * SECOND) >= 0);
        cr_assert_str_eq(heard, "gone:-104 back:1 ");
        peer_join(client);
}

/* -- waits and policies ---------------------------------------------------------------- */

static void script_wait(Peer *peer) {
        const Shmd__Wait *wait = peer_expect(peer, MESSAGE_WAIT);
        uint64_t serial = peer->header.serial;

        REQUIRE(wait->timeout_ns == 20 * SECOND && wait->path.len == 2);
        test_sleep_ms(30);
        peer_welcome(peer, true);
        wait = peer_expect(peer, MESSAGE_WAIT);
        REQUIRE(peer->header.serial == serial && wait->path.len == 2);
        REQUIRE(wait->timeout_ns > 0 && wait->timeout_ns <= 20 * SECOND - 30 * SECOND / 1000);
        wait = peer_expect(peer, MESSAGE_WAIT);
        REQUIRE(wait->timeout_ns == UINT64_MAX && wait->until == SHMD__WAIT_FOR__WAIT_UNHELD && wait->region == 5);
        peer_refuse(peer, SHMD_ERROR_TIMEOUT, SHMD__REASON__REASON_DEADLINE, "too late");
        peer_expect_end(peer);
}

TEST(client_link, a_wait_goes_on_for_the_time_it_has_left) {
        shmd *client = begin(script_wait);
        uint64_t left_ns;

        cr_assert_eq(shmd_wait_start(client, "/w", 20 * SECOND, see, (void *)"w", NULL), 0);
        cr_assert_eq(shmd_wait_unheld_start(client, NULL, 5, SHMD_TIMEOUT_NONE, see, (void *)"u", NULL), 0);
        process_until(client, "gone:-104 back:1 u:-110 ");
        cr_assert_eq(shmd_timeout(client, &left_ns), 0);
        cr_assert_gt(left_ns, SECOND);
        cr_assert_leq(left_ns, 21 * SECOND - 30 * SECOND / 1000);
        peer_join(client);
        cr_assert_str_eq(heard, "gone:-104 back:1 u:-110 w:-125 lost:-125 ");
}

#define POLICY_BYTES 70000

static uint32_t expect_part(Peer *peer, uint32_t offset, uint64_t serial) {
        const Shmd__Reload *part = peer_expect(peer, MESSAGE_RELOAD);

        REQUIRE(part->total == POLICY_BYTES && part->offset == offset);
        REQUIRE(!serial || peer->header.serial == serial);
        return (uint32_t)part->data.len;
}

static void script_reload(Peer *peer) {
        uint32_t n = expect_part(peer, 0, 0);
        uint64_t first = peer->header.serial;

        peer_reply(peer, MESSAGE(ReloadReply, reload_reply), NULL, 0);
        (void)expect_part(peer, n, first + 1);
        peer_welcome(peer, true);
        for (uint64_t i = 0; i < 3; ++i) {
                (void)expect_part(peer, (uint32_t)i * n, first + i);
                if (i < 2)
                        peer_reply(peer, MESSAGE(ReloadReply, reload_reply), NULL, 0);
        }
        peer_welcome(peer, true);
        for (uint64_t i = 0; i < 3; ++i) {
                (void)expect_part(peer, (uint32_t)i * n, first + i);
                peer_reply(peer, MESSAGE(ReloadReply, reload_reply, .done = i == 2, .generation = 7), NULL, 0);
        }
        /* The parts are no one's any more. */
        peer_welcome(peer, true);
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_policy_is_sent_again_from_its_first_part) {
        static uint8_t policy[POLICY_BYTES];
        struct shmd_reload_result result;
        shmd *client = begin(script_reload);

        cr_assert_eq(shmd_reload(client, policy, sizeof(policy), &result, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(result.generation, 7);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

static void script_reload_in_vain(Peer *peer) {
        uint32_t n = expect_part(peer, 0, 0);

        peer_reply(peer, MESSAGE(ReloadReply, reload_reply), NULL, 0);
        (void)expect_part(peer, n, 0);
        (void)expect_part(peer, 2 * n, 0);
        peer_welcome(peer, false);
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_policy_that_may_be_in_force_is_not_sent_in_a_new_session) {
        static uint8_t policy[POLICY_BYTES];
        shmd *client = begin(script_reload_in_vain);

        cr_assert_eq(shmd_reload(client, policy, sizeof(policy), NULL, SHMD_TIMEOUT_NONE), -ECONNRESET);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

/* -- watches --------------------------------------------------------------------------- */

static void hear(shmd *client, const struct shmd_event *event, void *userdata) {
        char what[64];

        (void)client;
        (void)snprintf(what, sizeof(what), "%s%s:%u:%u", (const char *)userdata, event->path,
                       (unsigned int)event->watch, event->event);
        note(what, event->error);
}

static void send_event(Peer *peer, uint64_t watch, uint64_t sequence, uint32_t what, const char *path) {
        Shmd__Event event = SHMD__EVENT__INIT;
        Shmd__Event *events[] = { &event };

        event.watch = watch;
        event.sequence = sequence;
        event.event = what;
        event.path = BYTES(path);
        peer_send(peer, MESSAGE_EVENT, peer->header.serial, MESSAGE(Events, events, .n_events = 1, .events = events),
                  NULL, 0);
}

static void accept_watch(Peer *peer, const char *path, uint32_t mask, uint64_t since, uint64_t number) {
        const Shmd__Watch *watch = peer_expect(peer, MESSAGE_WATCH);

        REQUIRE(watch->path.len == strlen(path) && !memcmp(watch->path.data, path, watch->path.len));
        REQUIRE(watch->mask == mask && watch->sequence == since, "%llu", (unsigned long long)watch->sequence);
        peer_reply(peer, MESSAGE(WatchReply, watch_reply, .watch = number, .sequence = since ? since : 40), NULL, 0);
}

static uint64_t watch(shmd *client, const char *path, uint32_t mask) {
        uint64_t number;

        cr_assert_eq(shmd_watch(client, path, mask, 0, hear, (void *)"", &number, NULL, SHMD_TIMEOUT_NONE), 0);
        return number;
}

static void script_watches(Peer *peer) {
        accept_watch(peer, "/d", 3, 0, 1);
        accept_watch(peer, "/", 1, 0, 2);
        send_event(peer, 1, 41, 1, "/a");
        send_event(peer, 1, 45, 2, "/a");
        (void)peer_expect(peer, MESSAGE_PING);
        /* With numbers that were others' before, and before the call that was in flight. */
        peer_welcome(peer, true);
        accept_watch(peer, "/d", 3, 45, 2);
        accept_watch(peer, "/", 1, 40, 1);
        expect_ping(peer);
        send_event(peer, 2, 46, 1, "/b");
        send_event(peer, 1, 47, 1, "/c");
        (void)peer_expect(peer, MESSAGE_PING);
        /* Lost again before a watch is there: it goes on from where it was. */
        peer_welcome(peer, true);
        (void)peer_expect(peer, MESSAGE_WATCH);
        peer_welcome(peer, false);
        accept_watch(peer, "/d", 3, 46, 9);
        accept_watch(peer, "/", 1, 47, 8);
        send_event(peer, 9, 50, SHMD_EVENT_OVERFLOW, "");
        expect_ping(peer);
        REQUIRE(((const Shmd__Unwatch *)peer_expect(peer, MESSAGE_UNWATCH))->watch == 9);
        peer_done(peer);
        accept_watch(peer, "/new", 1, 0, 9);
        send_event(peer, 9, 51, 1, "/x");
        peer_expect_end(peer);
}

TEST(client_link, watches_go_on_after_the_last_event_they_told) {
        shmd *client = begin(script_watches);
        uint64_t number = watch(client, "/d", 3);

        cr_assert_eq(watch(client, "/", 1), number + 1);
        process_until(client, "/d/a:1:1:0 /d/a:1:2:0 ");
        heard[0] = '\0';
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        process_until(client, "gone:-104 back:1 /d/b:1:1:0 /c:2:1:0 ");
        heard[0] = '\0';
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        process_until(client, "gone:-104 back:1 gone:-104 back:0 /d:1:128:0 ");
        heard[0] = '\0';
        cr_assert_eq(shmd_unwatch(client, number, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(watch(client, "/new", 1), number + 2);
        process_until(client, "/new/x:3:1:0 ");
        cr_assert_eq(shmd_set_listener(client, NULL, NULL), 0);
        peer_join(client);
        cr_assert_str_eq(heard, "/new/x:3:1:0 /:2:512:-125 /new:3:512:-125 ");
}

static void script_watch_lost(Peer *peer) {
        accept_watch(peer, "/denied", 1, 0, 1);
        accept_watch(peer, "/moved", 4, 0, 2);
        accept_watch(peer, "/fine", 1, 0, 3);
        send_event(peer, 2, 41, SHMD_EVENT_RENAMED, "");
        peer_welcome(peer, true);
        (void)peer_expect(peer, MESSAGE_WATCH);
        peer_refuse(peer, SHMD_ERROR_DENIED, SHMD__REASON__REASON_SEARCH, "no");
        accept_watch(peer, "/fine", 1, 40, 2);
        send_event(peer, 2, 42, SHMD_EVENT_CREATED, "");
        peer_expect_end(peer);
}

TEST(client_link, a_watch_that_cannot_be_had_again_says_so_and_ends) {
        shmd *client = begin(script_watch_lost);

        (void)watch(client, "/denied", 1);
        (void)watch(client, "/moved", 4);
        (void)watch(client, "/fine", 1);
        process_until(client, "/moved:2:4:0 gone:-104 back:1 /moved:2:512:-2 /denied:1:512:-13 /fine:3:1:0 ");
        cr_assert_eq(shmd_unwatch(client, 2, SHMD_TIMEOUT_NONE), -ENOENT);
        peer_join(client);
}

static void script_unwatch(Peer *peer) {
        accept_watch(peer, "/a", 1, 0, 1);
        accept_watch(peer, "/b", 1, 0, 2);
        accept_watch(peer, "/c", 1, 0, 3);
        REQUIRE(((const Shmd__Unwatch *)peer_expect(peer, MESSAGE_UNWATCH))->watch == 1);
        peer_vanish(peer);
        test_sleep_ms(50);
        peer_return(geteuid(), geteuid());
        peer_welcome(peer, true);
        /* 1 is now the number of another one. */
        (void)peer_expect(peer, MESSAGE_WATCH);
        expect_ping(peer);
        expect_ping(peer);
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_watch_that_was_given_up_is_not_asked_for_again) {
        shmd *client = begin(script_unwatch);
        uint64_t a = watch(client, "/a", 1), b = watch(client, "/b", 1);

        (void)watch(client, "/c", 1);
        cr_assert_eq(shmd_unwatch_start(client, a, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
        process_until(client, "gone:-104 ");
        cr_assert_eq(shmd_unwatch_start(client, b, SHMD_TIMEOUT_NONE, see, (void *)"b", NULL), 0);
        process_until(client, "gone:-104 back:1 a:0 b:0 ");
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

static void script_unwatch_meanwhile(Peer *peer) {
        uint64_t serial;

        accept_watch(peer, "/a", 1, 0, 1);
        peer_welcome(peer, true);
        (void)peer_expect(peer, MESSAGE_WATCH);
        serial = peer->header.serial;
        (void)peer_expect(peer, MESSAGE_PING);
        peer_send(peer, MESSAGE_WATCH | MESSAGE_REPLY, serial, MESSAGE(WatchReply, watch_reply, .watch = 5), NULL, 0);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        REQUIRE(((const Shmd__Unwatch *)peer_expect(peer, MESSAGE_UNWATCH))->watch == 5);
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_watch_that_is_given_up_while_it_is_asked_for_is_given_back) {
        shmd *client = begin(script_unwatch_meanwhile);
        uint64_t a = watch(client, "/a", 1);

        process_until(client, "gone:-104 back:1 ");
        cr_assert_eq(shmd_unwatch_start(client, a, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
        process_until(client, "gone:-104 back:1 a:0 ");
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        peer_join(client);
}

/* -- a broker that stops ----------------------------------------------------------------- */

static void script_stop(Peer *peer) {
        uint64_t serial = expect_mkdir(peer, "/a");

        peer_refuse(peer, SHMD_ERROR_SHUTDOWN, SHMD__REASON__REASON_STOPPING, "stopping");
        expect_ping(peer);
        say_goodbye(peer, SHMD_ERROR_SHUTDOWN, SHMD__REASON__REASON_STOPPING);
        /* It was refused, so that even a new session may have it. */
        peer_welcome(peer, false);
        REQUIRE(expect_mkdir(peer, "/a") == serial);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_link, what_a_stopping_broker_refuses_is_for_the_next) {
        shmd *client = begin(script_stop);

        cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        process_until(client, "gone:-104 back:0 a:0 ");
        peer_join(client);
}

static void script_crowd(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_accept(peer);
        say_goodbye(peer, SHMD_ERROR_QUOTA, SHMD__REASON__REASON_LIMIT);
        peer_accept(peer);
        (void)peer_expect(peer, MESSAGE_HELLO);
        peer_refuse(peer, SHMD_ERROR_NO_MEMORY, SHMD__REASON__REASON_KERNEL, "not now");
        peer_welcome(peer, true);
        (void)expect_mkdir(peer, "/a");
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_return_that_is_refused_for_now_is_tried_again) {
        shmd *client = begin(script_crowd);

        cr_assert_eq(shmd_mkdir(client, "/a", 0755, SHMD_TIMEOUT_NONE), 0);
        cr_assert_str_eq(heard, "gone:-104 back:1 ");
        peer_join(client);
}

/* -- what cannot go on -------------------------------------------------------------------- */

static void script_next_version(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_accept(peer);
        (void)peer_expect(peer, MESSAGE_HELLO);
        peer_refuse(peer, SHMD_ERROR_UNSUPPORTED, SHMD__REASON__REASON_VERSION, "version 2 or later");
        peer_expect_end(peer);
}

static void script_nonsense(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_accept(peer);
        (void)peer_expect(peer, MESSAGE_HELLO);
        peer_reply(peer, MESSAGE(HelloReply, hello_reply, .version = 1, .session = BYTES("short")), NULL, 0);
        peer_expect_end(peer);
}

static void script_unwanted(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        say_goodbye(peer, SHMD_ERROR_DENIED, SHMD__REASON__REASON_ADMIN);
        peer_expect_end(peer);
}

TEST(client_link, a_broker_that_cannot_be_talked_to_is_the_end) {
        static const struct {
                PeerScript script;
                const char *expected;
        } ends[] = {
                { script_next_version, "gone:-104 a:-93 lost:-93 " },
                { script_nonsense, "gone:-104 a:-71 lost:-71 " },
                { script_unwanted, "a:-104 lost:-104 " },
        };

        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); ++i) {
                shmd *client = begin(ends[i].script);

                cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
                process_to_the_end(client);
                cr_assert_str_eq(heard, ends[i].expected);
                cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), -ENOTCONN);
                peer_wait();
                peer_join(client);
        }
}

/* Dies of /poison as often as it comes, which has to be often enough. */
static void script_poison(Peer *peer) {
        unsigned int n = 0;

        for (;; ++n) {
                const Shmd__Mkdir *mkdir;

                (void)peer_expect(peer, MESSAGE_WAIT);
                mkdir = peer_expect(peer, MESSAGE_MKDIR);
                if (mkdir->path.len == 2)
                        break;
                peer_welcome(peer, true);
        }
        REQUIRE(n >= 16, "%u", n);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_link, a_request_that_brokers_die_of_is_given_up) {
        shmd *client = begin(script_poison);

        cr_assert_eq(shmd_set_listener(client, NULL, NULL), 0);
        cr_assert_eq(shmd_wait_start(client, "/w", SHMD_TIMEOUT_NONE, see, (void *)"w", NULL), 0);
        cr_assert_eq(shmd_mkdir_start(client, "/poison", 0755, SHMD_TIMEOUT_NONE, see, (void *)"poison", NULL), 0);
        cr_assert_eq(shmd_mkdir_start(client, "/b", 0755, SHMD_TIMEOUT_NONE, see, (void *)"b", NULL), 0);
        process_until(client, "poison:-104 b:0 ");
        peer_join(client);
}

/* -- callbacks ----------------------------------------------------------------------------- */

static void script_calls_from_callbacks(Peer *peer) {
        (void)expect_mkdir(peer, "/a");
        peer_welcome(peer, true);
        (void)expect_mkdir(peer, "/a");
        for (unsigned int i = 0; i < 2; ++i) {
                (void)peer_expect(peer, MESSAGE_RMDIR);
                peer_done(peer);
        }
        expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, who_is_told_may_start_calls) {
        shmd *client = begin(script_calls_from_callbacks);
        shmd_call *call;

        cr_assert_eq(shmd_set_listener(client, listen_to, (void *)"/told"), 0);
        cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"a", &call), 0);
        process_until(client, "gone:-104 back:1 ");
        shmd_call_cancel(call);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        cr_assert_str_eq(heard, "gone:-104 back:1 ");
        peer_join(client);
}

/* -- the descriptor that stays ------------------------------------------------------------- */

static void script_for_loops(Peer *peer) {
        for (unsigned int i = 0; i < 3; ++i) {
                (void)expect_mkdir(peer, "/a");
                peer_vanish(peer);
                test_sleep_ms(20);
                peer_return(geteuid(), geteuid());
                peer_welcome(peer, true);
        }
        (void)expect_mkdir(peer, "/a");
        peer_done(peer);
        peer_expect_end(peer);
}

/* An event loop in the manner of libevent's: added once, level-triggered, and never late. */
TEST(client_link, an_event_loop_that_knows_one_descriptor_goes_through_all_of_it) {
        struct epoll_event event = { .events = EPOLLIN };
        shmd *client = begin(script_for_loops);
        size_t n_fds = test_count_fds();
        int fd = shmd_fd(client), loop = epoll_create1(EPOLL_CLOEXEC);

        cr_assert_eq(test_count_fds(), n_fds + 3);
        cr_assert_eq(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event), 0);
        cr_assert_eq(shmd_mkdir_start(client, "/a", 0755, SHMD_TIMEOUT_NONE, see, (void *)"a", NULL), 0);
        while (!strstr(heard, "a:0")) {
                /* No timeout of the library's: the descriptor alone must be enough. */
                REQUIRE(epoll_wait(loop, &event, 1, TEST_PATIENCE_MS) == 1, "%s", heard);
                REQUIRE(shmd_dispatch(client) >= 0);
                REQUIRE(shmd_fd(client) == fd);
        }
        cr_assert_str_eq(heard, "gone:-104 back:1 gone:-104 back:1 gone:-104 back:1 a:0 ");
        cr_assert_eq(epoll_wait(loop, &event, 1, 0), 0, "nothing more to do");
        cr_assert_eq(test_count_fds(), n_fds + 3);
        close(loop);
        peer_join(client);
}

static void script_slow_reader(Peer *peer) {
        test_sleep_ms(50);
        for (unsigned int i = 0; i < 5000; ++i)
                expect_ping(peer);
        peer_expect_end(peer);
}

TEST(client_link, the_descriptor_is_readable_when_there_is_room_for_what_waits) {
        shmd *client = begin(script_slow_reader);
        struct pollfd pollfd = { .fd = shmd_fd(client), .events = POLLIN };
        unsigned int n = 0;

        for (unsigned int i = 0; i < 5000; ++i)
                cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, count_ping, &n, NULL), 0);
        while (n < 5000) {
                REQUIRE(poll(&pollfd, 1, TEST_PATIENCE_MS) == 1);
                REQUIRE(shmd_dispatch(client) >= 0);
        }
        cr_assert_eq(poll(&pollfd, 1, 0), 0);
        peer_join(client);
}

static void script_fork(Peer *peer) {
        peer_hang_up(peer);
        peer_welcome(peer, true);
        expect_ping(peer);
        expect_ping(peer);
        peer_expect_end(peer);
}

/* The child keeps the lost socket, and the parent does not hear of it. */
TEST(client_link, a_forked_childs_copy_of_the_lost_socket_keeps_nobody_awake) {
        shmd *client = begin(script_fork);
        struct pollfd pollfd = { .fd = shmd_fd(client), .events = POLLIN };
        int status;
        pid_t pid = fork();

        REQUIRE(pid >= 0);
        if (pid == 0) {
                (void)pause();
                _exit(0);
        }
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(poll(&pollfd, 1, 0), 0, "there is something in the new socket");
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), 0);
        REQUIRE(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
        peer_join(client);
}

static void script_watch_and_fork(Peer *peer) {
        accept_watch(peer, "/a", 1, 0, 1);
        peer_welcome(peer, true);
        (void)peer_expect(peer, MESSAGE_WATCH);
        peer_expect_end(peer);
}

TEST(client_link, a_child_that_was_forked_in_the_middle_goes_in_silence) {
        shmd *client = begin(script_watch_and_fork);
        int status;
        pid_t pid;

        (void)watch(client, "/a", 1);
        process_until(client, "gone:-104 back:1 ");
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                if (shmd_set_reconnect(client, false) != -ECHILD || shmd_set_listener(client, NULL, NULL) != -ECHILD)
                        _exit(1);
                (void)shmd_close(client);
                _exit(strcmp(heard, "gone:-104 back:1 ") ? 2 : 0);
        }
        REQUIRE(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
        peer_join(client);
}
