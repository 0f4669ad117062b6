/* client/call and client/io: calls in flight, whatever the other end does. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a callback saw. */
typedef struct Seen {
        unsigned int n;
        int result;
        int order;
        struct shmd_refusal refusal;
        char sentence[256];
} Seen;

static int next_order;

static void see(shmd *client, shmd_call *call, void *userdata) {
        Seen *seen = userdata;

        ++seen->n;
        seen->result = shmd_call_result(call);
        seen->order = ++next_order;
        seen->refusal = *shmd_call_refusal(call);
        (void)snprintf(seen->sentence, sizeof(seen->sentence), "%s", seen->refusal.sentence);
}

/* Dispatches until `seen` has been called back. */
static void wait_for(shmd *client, const Seen *seen) {
        while (!seen->n)
                REQUIRE(shmd_process(client, 20 * SECOND) >= 0);
}

/* Lets a script wait for the test, where the protocol does not. */
static int gate[2] = { -1, -1 };

static void gate_make(void) {
        REQUIRE(pipe2(gate, O_CLOEXEC) == 0);
}

static void gate_open(void) {
        REQUIRE(write(gate[1], "g", 1) == 1);
}

static void gate_wait(void) {
        char byte;

        REQUIRE(read(gate[0], &byte, 1) == 1);
}

static void gate_unmake(void) {
        gate[0] = close_fd(gate[0]);
        gate[1] = close_fd(gate[1]);
}

/* -- answers ------------------------------------------------------------------------- */

static void script_reverse(Peer *peer) {
        uint64_t serials[3];

        for (size_t i = 0; i < 3; ++i) {
                const Shmd__Mkdir *mkdir = peer_expect(peer, MESSAGE_MKDIR);

                REQUIRE(mkdir->mode == i);
                serials[i] = peer->header.serial;
        }
        peer_send(peer, MESSAGE_MKDIR | MESSAGE_REPLY, serials[2], MESSAGE(Done, done), NULL, 0);
        peer_send(peer, MESSAGE_REFUSAL, serials[0],
                  MESSAGE(Refusal, refusal, .error = SHMD_ERROR_EXISTS, .sentence = BYTES("there")), NULL, 0);
        peer_send(peer, MESSAGE_MKDIR | MESSAGE_REPLY, serials[1], MESSAGE(Done, done), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_calls, answers_out_of_order_find_their_calls) {
        shmd *client = peer_start_and_connect(script_reverse);
        Seen seen[3] = { 0 };

        next_order = 0;
        for (mode_t i = 0; i < 3; ++i)
                cr_assert_eq(shmd_mkdir_start(client, "/a", i, SHMD_TIMEOUT_DEFAULT, see, &seen[i], NULL), 0);
        for (size_t i = 0; i < 3; ++i)
                wait_for(client, &seen[i]);
        cr_assert_eq(seen[0].result, -EEXIST);
        cr_assert_str_eq(seen[0].sentence, "there");
        cr_assert_eq(seen[1].result, 0);
        cr_assert_str_eq(seen[1].sentence, "");
        cr_assert_eq(seen[2].result, 0);
        cr_assert_eq(seen[2].order, 1);
        cr_assert_eq(seen[0].order, 2);
        cr_assert_eq(seen[1].order, 3);
        peer_join(client);
}

static void script_two_pings(Peer *peer) {
        peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect_end(peer);
}

static void wait_readable(shmd *client) {
        struct pollfd pollfd = { .fd = shmd_fd(client), .events = (short)shmd_events(client) };

        REQUIRE(pollfd.events == POLLIN);
        REQUIRE(poll(&pollfd, 1, TEST_PATIENCE_MS) == 1);
}

TEST(client_calls, dispatch_returns_the_number_of_callbacks) {
        shmd *client = peer_start_and_connect(script_two_pings);
        Seen seen = { 0 };
        int n = 0;

        cr_assert_eq(shmd_dispatch(client), 0);
        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_DEFAULT, see, &seen, NULL), 0);
        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_DEFAULT, see, &seen, NULL), 0);
        while (n < 2) {
                int r;

                wait_readable(client);
                r = shmd_dispatch(client);
                cr_assert_geq(r, 0);
                n += r;
                cr_assert_eq(seen.n, (unsigned int)n);
        }
        cr_assert_eq(shmd_dispatch(client), 0);
        peer_join(client);
}

static void script_one_ping(Peer *peer) {
        peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect_end(peer);
}

static void script_three_pings(Peer *peer) {
        for (unsigned int i = 0; i < 3; ++i) {
                peer_expect(peer, MESSAGE_PING);
                peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        }
        peer_expect_end(peer);
}

/* Starts another call from the callback, and tries what callbacks may not do. */
static void start_another(shmd *client, shmd_call *call, void *userdata) {
        uint64_t took_ns = 0;

        REQUIRE(shmd_ping_finish(call, &took_ns) == 0 && took_ns > 0);
        REQUIRE(shmd_ping_finish(call, &took_ns) == -EALREADY);
        REQUIRE(shmd_mkdir_finish(call) == -EINVAL);
        REQUIRE(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT) == -EDEADLK);
        REQUIRE(shmd_dispatch(client) == -EDEADLK);
        REQUIRE(shmd_process(client, SECOND) == -EDEADLK);
        REQUIRE(shmd_ping_start(client, SHMD_TIMEOUT_DEFAULT, see, userdata, NULL) == 0);
        shmd_call_cancel(call);         /* it has ended: nothing to cancel */
        REQUIRE(shmd_call_result(call) == 0);
}

TEST(client_calls, callbacks_may_start_calls_but_not_wait) {
        shmd *client = peer_start_and_connect(script_three_pings);
        Seen seen = { 0 };

        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_DEFAULT, start_another, &seen, NULL), 0);
        wait_for(client, &seen);
        cr_assert_eq(seen.result, 0);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT), 0);
        peer_join(client);
}

static void script_answer_both(Peer *peer) {
        uint64_t first;

        peer_expect(peer, MESSAGE_PING);
        first = peer->header.serial;
        peer_expect(peer, MESSAGE_RMDIR);
        peer_send(peer, MESSAGE_PING | MESSAGE_REPLY, first, MESSAGE(Ping, ping), NULL, 0);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_calls, other_callbacks_run_while_a_synchronous_call_waits) {
        shmd *client = peer_start_and_connect(script_answer_both);
        Seen seen = { 0 };

        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_DEFAULT, see, &seen, NULL), 0);
        cr_assert_eq(shmd_rmdir(client, "/a", SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(seen.n, 1);
        peer_join(client);
}

/* -- deadlines and cancelling -------------------------------------------------------- */

/* Answers a create only after the ping that came behind it. */
static void script_late_grant(Peer *peer) {
        uint64_t serial;
        int fd = peer_memfd(4096, 0);

        peer_expect(peer, MESSAGE_CREATE);
        serial = peer->header.serial;
        peer_expect(peer, MESSAGE_PING);
        peer_send(peer, MESSAGE_CREATE | MESSAGE_REPLY, serial,
                  MESSAGE(Granted, granted, .region = 1, .size = 4096, .rights = 2, .granted = true), &fd, 1);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_calls, a_late_answer_is_dropped_and_its_descriptor_closed) {
        const struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_late_grant);
        size_t n_fds = test_count_fds();
        shmd_region *region;

        cr_assert_eq(shmd_create(client, NULL, &options, &region, 1), -ETIMEDOUT);
        cr_assert_null(region);
        cr_assert_eq(shmd_refusal(client)->error, -ETIMEDOUT);
        cr_assert_eq(shmd_refusal(client)->code, 0);
        cr_assert_str_neq(shmd_refusal(client)->sentence, "");
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(test_count_fds(), n_fds);
        peer_join(client);
}

TEST(client_calls, a_canceled_call_is_not_called_back_and_its_descriptor_closed) {
        const struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_late_grant);
        size_t n_fds = test_count_fds();
        Seen seen = { 0 };
        shmd_call *call;

        cr_assert_eq(shmd_create_start(client, NULL, &options, SHMD_TIMEOUT_DEFAULT, see, &seen, &call), 0);
        cr_assert_eq(shmd_call_result(call), -EINPROGRESS);
        cr_assert_eq(shmd_call_refusal(call)->error, 0);
        shmd_call_cancel(call);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(seen.n, 0);
        cr_assert_eq(test_count_fds(), n_fds);
        shmd_call_cancel(NULL);
        peer_join(client);
}

TEST(client_calls, an_outcome_that_nobody_takes_is_closed) {
        const struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_late_grant);
        size_t n_fds = test_count_fds();
        Seen seen = { 0 };

        /* Without a callback, and with one that does not finish. */
        cr_assert_eq(shmd_create_start(client, NULL, &options, SHMD_TIMEOUT_DEFAULT, NULL, NULL, NULL), 0);
        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_DEFAULT, see, &seen, NULL), 0);
        wait_for(client, &seen);
        cr_assert_eq(test_count_fds(), n_fds);
        peer_join(client);
}

static void script_silent(Peer *peer) {
        while (wire_receive(peer->fd, peer->buffer, WIRE_REQUEST_MAX, NULL, &peer->header) != WIRE_E_EOF)
                test_sleep_ms(1);
}

TEST(client_calls, the_next_deadline_is_the_earliest) {
        shmd *client = peer_start_and_connect(script_silent);
        Seen seen[3] = { 0 };
        uint64_t left_ns;

        cr_assert_eq(shmd_timeout(client, &left_ns), 0);
        cr_assert_eq(left_ns, UINT64_MAX);
        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, see, &seen[0], NULL), 0);
        cr_assert_eq(shmd_timeout(client, &left_ns), 0);
        cr_assert_eq(left_ns, UINT64_MAX);
        cr_assert_eq(shmd_ping_start(client, 3000 * SECOND, see, &seen[1], NULL), 0);
        cr_assert_eq(shmd_ping_start(client, 1, see, &seen[2], NULL), 0);
        cr_assert_eq(shmd_timeout(client, &left_ns), 0);
        cr_assert_leq(left_ns, 1);
        wait_for(client, &seen[2]);
        cr_assert_eq(seen[2].result, -ETIMEDOUT);
        cr_assert_eq(seen[1].n, 0);
        cr_assert_eq(shmd_timeout(client, &left_ns), 0);
        cr_assert_gt(left_ns, 1000 * SECOND);
        cr_assert_leq(left_ns, 3000 * SECOND);
        peer_join(client);
        cr_assert_eq(seen[0].result, -ECANCELED);
        cr_assert_eq(seen[1].result, -ECANCELED);
}

TEST(client_calls, waiting_for_nothing_times_out) {
        shmd *client = peer_start_and_connect(script_silent);

        cr_assert_eq(shmd_process(client, 1), -ETIMEDOUT);
        cr_assert_eq(shmd_set_timeout(client, SHMD_TIMEOUT_DEFAULT), -EINVAL);
        cr_assert_eq(shmd_set_timeout(client, 1), 0);
        cr_assert_eq(shmd_process(client, SHMD_TIMEOUT_DEFAULT), -ETIMEDOUT);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT), -ETIMEDOUT);
        peer_join(client);
}

static void on_alarm(int signal) {
}

static void script_slow_ping(Peer *peer) {
        peer_expect(peer, MESSAGE_PING);
        test_sleep_ms(100);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_calls, signals_do_not_end_a_wait) {
        const struct sigaction action = { .sa_handler = on_alarm };
        const struct itimerval often = { .it_interval.tv_usec = 1000, .it_value.tv_usec = 1000 };
        const struct itimerval never = { 0 };
        shmd *client = peer_start_and_connect(script_slow_ping);

        cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
        cr_assert_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
        peer_join(client);
}

/* Longer than a second, as part of that is spent otherwise. */
static void expect_timeout_and_not_before(shmd *client) {
        uint64_t timeout_ns = SECOND + SECOND / 20;
        int64_t began_ns = test_now_ns();

        cr_assert_eq(shmd_ping(client, NULL, timeout_ns), -ETIMEDOUT);
        cr_assert_geq(test_now_ns() - began_ns, (int64_t)timeout_ns);
}

TEST(client_calls, a_long_wait_ends_when_its_time_is_over) {
        shmd *client = peer_start_and_connect(script_silent);

        expect_timeout_and_not_before(client);
        expect_timeout_and_not_before(client);
        peer_join(client);
}

TEST(client_calls, signals_do_not_prolong_a_wait) {
        const struct sigaction action = { .sa_handler = on_alarm };
        const struct itimerval often = { .it_interval.tv_usec = 1000, .it_value.tv_usec = 1000 };
        const struct itimerval never = { 0 };
        shmd *client = peer_start_and_connect(script_silent);

        cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
        cr_assert_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
        expect_timeout_and_not_before(client);
        cr_assert_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
        peer_join(client);
}

/* -- the end ------------------------------------------------------------------------- */

static void script_die(Peer *peer) {
        peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect(peer, MESSAGE_RMDIR);
        peer_expect(peer, MESSAGE_CREATE);
        /* Gone, with the answer to the ping still on its way. */
}

TEST(client_calls, calls_in_flight_end_when_the_broker_dies) {
        const struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_die);
        Seen seen[3] = { 0 };
        uint64_t left_ns;
        int r = 0;

        cr_assert_eq(shmd_set_reconnect(client, false), 0);
        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, see, &seen[0], NULL), 0);
        cr_assert_eq(shmd_rmdir_start(client, "/a", SHMD_TIMEOUT_NONE, see, &seen[1], NULL), 0);
        cr_assert_eq(shmd_create_start(client, NULL, &options, SHMD_TIMEOUT_NONE, see, &seen[2], NULL), 0);
        while (r >= 0)
                r = shmd_process(client, 20 * SECOND);
        cr_assert_eq(r, -ENOTCONN);
        cr_assert_eq(seen[0].n, 1);
        cr_assert_eq(seen[0].result, 0, "what came before the end counts");
        cr_assert_eq(seen[1].n, 1);
        cr_assert_eq(seen[1].result, -ECONNRESET);
        cr_assert_eq(seen[1].refusal.error, -ECONNRESET);
        cr_assert_eq(seen[2].n, 1);
        cr_assert_eq(seen[2].result, -ECONNRESET);

        cr_assert_eq(shmd_ping(client, NULL, SECOND), -ENOTCONN);
        cr_assert_eq(shmd_refusal(client)->error, -ENOTCONN);
        cr_assert_eq(shmd_ping_start(client, SECOND, see, NULL, NULL), -ENOTCONN);
        cr_assert_eq(shmd_fd(client), -ENOTCONN);
        cr_assert_eq(shmd_events(client), -ENOTCONN);
        cr_assert_eq(shmd_dispatch(client), -ENOTCONN);
        cr_assert_eq(shmd_process(client, SECOND), -ENOTCONN);
        cr_assert_eq(shmd_session(client, NULL, NULL, NULL), -ENOTCONN);
        cr_assert_eq(shmd_timeout(client, &left_ns), 0);
        cr_assert_eq(left_ns, UINT64_MAX);
        peer_join(client);
}

static void script_die_at_once(Peer *peer) {
}

TEST(client_calls, a_synchronous_call_on_a_dead_connection_is_econnreset_then_enotconn) {
        shmd *client = peer_start_and_connect(script_die_at_once);

        cr_assert_eq(shmd_set_reconnect(client, false), 0);
        peer_wait();
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), -ECONNRESET);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_NONE), -ENOTCONN);
        peer_join(client);
}

static void script_goodbye(Peer *peer) {
        peer_expect(peer, MESSAGE_WAIT);
        peer_send(peer, MESSAGE_REFUSAL, 0,
                  MESSAGE(Refusal, refusal, .error = SHMD_ERROR_SHUTDOWN, .reason = SHMD__REASON__REASON_STOPPING,
                          .sentence = BYTES("the broker is stopping")), NULL, 0);
}

TEST(client_calls, a_broker_that_says_why_it_ends_is_heard) {
        shmd *client = peer_start_and_connect(script_goodbye);

        cr_assert_eq(shmd_set_reconnect(client, false), 0);
        cr_assert_eq(shmd_wait(client, "/a", NULL, SHMD_TIMEOUT_NONE), -ECONNRESET);
        cr_assert_eq(shmd_refusal(client)->error, -ECONNRESET);
        cr_assert_eq(shmd_refusal(client)->code, SHMD_ERROR_SHUTDOWN);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "the broker is stopping");
        cr_assert_eq(shmd_ping(client, NULL, SECOND), -ENOTCONN);
        peer_join(client);
}

static void start_in_vain(shmd *client, shmd_call *call, void *userdata) {
        Seen *seen = userdata;

        REQUIRE(shmd_ping_start(client, SECOND, see, seen, NULL) == -ENOTCONN);
        see(client, call, userdata);
}

TEST(client_calls, close_ends_what_is_in_flight) {
        shmd *client = peer_start_and_connect(script_silent);
        Seen seen = { 0 };

        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, start_in_vain, &seen, NULL), 0);
        peer_join(client);
        cr_assert_eq(seen.n, 1);
        cr_assert_eq(seen.result, -ECANCELED);
        cr_assert_null(shmd_close(NULL));
}

/* -- a broker that breaks the protocol ----------------------------------------------- */

#define GRANTED(...) MESSAGE(Granted, granted, .region = 1, .size = 4096, __VA_ARGS__)

/* Each of these answers lies about its descriptors; after each the connection still works. */
static void script_wrong_counts(Peer *peer) {
        int fds[] = { peer_memfd(4096, 0), peer_memfd(4096, 0) };
        Shmd__Granted granted = SHMD__GRANTED__INIT;
        Shmd__Granted *items[] = { &granted, &granted };

        peer_expect(peer, MESSAGE_OPEN);
        peer_reply(peer, GRANTED(.rights = 1, .granted = true), NULL, 0);
        peer_expect(peer, MESSAGE_OPEN);
        peer_reply(peer, GRANTED(.rights = 1, .granted = true), fds, 2);
        peer_expect(peer, MESSAGE_OPEN);
        peer_reply(peer, GRANTED(.rights = 0, .granted = false), NULL, 0);
        peer_expect(peer, MESSAGE_OPEN);
        peer_reply(peer, GRANTED(.rights = 0, .granted = false), fds, 1);
        peer_expect(peer, MESSAGE_OPEN);
        peer_reply(peer, GRANTED(.rights = 0, .granted = true), fds, 1);
        peer_expect(peer, MESSAGE_OPEN);
        peer_reply(peer, GRANTED(.rights = 3, .granted = true), fds, 1);
        peer_expect(peer, MESSAGE_OPEN);
        peer_reply(peer, GRANTED(.rights = 1, .granted = true, .huge_page_size = 64), fds, 1);
        peer_expect(peer, MESSAGE_OPEN);
        peer_send(peer, MESSAGE_REFUSAL, peer->header.serial, MESSAGE(Refusal, refusal, .error = 4), fds, 1);

        granted = (Shmd__Granted){ .base = granted.base, .size = 4096, .rights = 1, .granted = true };
        peer_expect(peer, MESSAGE_BATCH);
        peer_reply(peer, MESSAGE(BatchReply, batch_reply, .n_items = 2, .items = items), fds, 1);
        peer_expect(peer, MESSAGE_BATCH);
        peer_reply(peer, MESSAGE(BatchReply, batch_reply, .n_items = 1, .items = items), fds, 1);

        peer_expect(peer, MESSAGE_RMDIR);
        peer_reply(peer, MESSAGE(Done, done), fds, 1);
        peer_expect(peer, MESSAGE_RMDIR);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_calls, an_answer_with_the_wrong_number_of_descriptors_is_eproto_and_leaks_none) {
        const struct shmd_batch_item items[] = { { .path = "/a", .rights = 1 }, { .path = "/b", .rights = 1 } };
        shmd *client = peer_start_and_connect(script_wrong_counts);
        size_t n_fds = test_count_fds();
        shmd_region *regions[2];

        for (unsigned int i = 0; i < 8; ++i) {
                cr_assert_eq(shmd_open(client, "/a", 1, regions, SHMD_TIMEOUT_DEFAULT), -EPROTO, "answer %u", i);
                cr_assert_null(regions[0]);
                cr_assert_eq(test_count_fds(), n_fds, "answer %u", i);
        }
        for (unsigned int i = 0; i < 2; ++i) {
                cr_assert_eq(shmd_batch(client, items, 2, regions, SHMD_TIMEOUT_DEFAULT), -EPROTO, "batch %u", i);
                cr_assert_eq(test_count_fds(), n_fds);
        }
        cr_assert_eq(shmd_rmdir(client, "/a", SHMD_TIMEOUT_DEFAULT), -EPROTO);
        cr_assert_eq(test_count_fds(), n_fds);
        cr_assert_eq(shmd_rmdir(client, "/a", SHMD_TIMEOUT_DEFAULT), 0);
        peer_join(client);
}

static void script_malformed(Peer *peer) {
        peer_expect(peer, MESSAGE_STAT);
        peer_reply(peer, MESSAGE(Ping, ping, .payload = BYTES("no node")), NULL, 0);
        peer_expect(peer, MESSAGE_STAT);
        peer_reply(peer, MESSAGE(StatReply, stat_reply, .held = true), NULL, 0);
        peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_calls, a_payload_that_does_not_decode_fails_its_call_alone) {
        shmd *client = peer_start_and_connect(script_malformed);
        struct shmd_stat_result *result;

        cr_assert_eq(shmd_stat(client, "/a", 0, false, &result, SHMD_TIMEOUT_DEFAULT), -EPROTO);
        cr_assert_eq(shmd_stat(client, "/a", 0, false, &result, SHMD_TIMEOUT_DEFAULT), -EPROTO);
        cr_assert_null(result);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT), 0);
        peer_join(client);
}

static void script_wrong_kind(Peer *peer) {
        peer_expect(peer, MESSAGE_RMDIR);
        peer_send(peer, MESSAGE_UNLINK | MESSAGE_REPLY, peer->header.serial, MESSAGE(Done, done), NULL, 0);
        peer_expect_end(peer);
}

static void script_serial_of_the_future(Peer *peer) {
        peer_expect(peer, MESSAGE_RMDIR);
        peer_send(peer, MESSAGE_RMDIR | MESSAGE_REPLY, peer->header.serial + 1, MESSAGE(Done, done), NULL, 0);
        peer_expect_end(peer);
}

static void script_serial_zero(Peer *peer) {
        peer_expect(peer, MESSAGE_RMDIR);
        peer_send(peer, MESSAGE_RMDIR | MESSAGE_REPLY, 0, MESSAGE(Done, done), NULL, 0);
        peer_expect_end(peer);
}

static void script_wrong_length(Peer *peer) {
        peer_expect(peer, MESSAGE_RMDIR);
        wire_put_header(peer->buffer, 17, MESSAGE_RMDIR | MESSAGE_REPLY, 0, peer->header.serial);
        REQUIRE(send(peer->fd, peer->buffer, 16, MSG_NOSIGNAL) == 16);
        peer_expect_end(peer);
}

TEST(client_calls, a_packet_that_breaks_the_protocol_ends_the_connection) {
        const PeerScript scripts[] = {
                script_wrong_kind, script_serial_of_the_future, script_serial_zero, script_wrong_length,
        };

        for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); ++i) {
                shmd *client = peer_start_and_connect(scripts[i]);

                cr_assert_eq(shmd_rmdir(client, "/a", SHMD_TIMEOUT_NONE), -EPROTO, "script %zu", i);
                cr_assert_eq(shmd_rmdir(client, "/a", SHMD_TIMEOUT_NONE), -ENOTCONN);
                /* The peer sees the end before shmd_close(). */
                peer_wait();
                peer_join(client);
        }
}

/* -- a full descriptor table --------------------------------------------------------- */

static void script_grant_twice(Peer *peer) {
        for (unsigned int i = 0; i < 2; ++i) {
                peer_expect(peer, MESSAGE_OPEN);
                peer_grant(peer, 1, 4096, SHMD_RIGHTS_READ_WRITE);
        }
        peer_expect_end(peer);
}

/* The lowest limit under which ppoll(2) still takes one descriptor. */
static void limit_descriptors(struct rlimit *ret_old) {
        struct rlimit one;

        REQUIRE(getrlimit(RLIMIT_NOFILE, ret_old) == 0);
        one = (struct rlimit){ .rlim_cur = 1, .rlim_max = ret_old->rlim_max };
        REQUIRE(setrlimit(RLIMIT_NOFILE, &one) == 0);
}

TEST(client_calls, a_full_descriptor_table_is_emfile_for_the_call_alone) {
        shmd *client = peer_start_and_connect(script_grant_twice);
        shmd_region *region;
        struct rlimit limit;
        int r;

        limit_descriptors(&limit);
        r = shmd_open(client, "/a", SHMD_RIGHTS_READ_WRITE, &region, SHMD_TIMEOUT_DEFAULT);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        cr_assert_eq(r, -EMFILE);
        cr_assert_null(region);
        cr_assert_eq(shmd_refusal(client)->error, -EMFILE);
        cr_assert_eq(shmd_open(client, "/a", SHMD_RIGHTS_READ_WRITE, &region, SHMD_TIMEOUT_DEFAULT), 0);
        shmd_region_free(region);
        peer_join(client);
}

static void script_anonymous_grant(Peer *peer) {
        int fd = peer_memfd(4096, 0);

        peer_expect(peer, MESSAGE_OPEN);
        wire_put_header(peer->buffer, 17, MESSAGE_OPEN | MESSAGE_REPLY, 1, peer->header.serial);
        REQUIRE(wire_send(peer->fd, peer->buffer, 16, &fd, 1) == 0);
        peer_expect_end(peer);
}

TEST(client_calls, descriptors_lost_by_nobody_knows_whom_end_the_connection) {
        shmd *client = peer_start_and_connect(script_anonymous_grant);
        shmd_region *region;
        struct rlimit limit;
        int r;

        limit_descriptors(&limit);
        r = shmd_open(client, "/a", SHMD_RIGHTS_READ_WRITE, &region, SHMD_TIMEOUT_DEFAULT);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        cr_assert_eq(r, -EMFILE);
        cr_assert_eq(shmd_ping(client, NULL, SECOND), -ENOTCONN);
        peer_join(client);
}

/* -- a broker that does not read ----------------------------------------------------- */

#define PINGS_MAX 100000

static void script_read_later(Peer *peer) {
        gate_wait();
        for (;;) {
                struct pollfd pollfd = { .fd = peer->fd, .events = POLLIN };
                int r;

                REQUIRE(poll(&pollfd, 1, TEST_PATIENCE_MS) == 1);
                r = wire_receive(peer->fd, peer->buffer, WIRE_REQUEST_MAX, NULL, &peer->header);
                if (r == WIRE_E_EOF)
                        return;
                REQUIRE(r == 0);
                REQUIRE(peer->header.kind == MESSAGE_PING, "what was given up was sent: kind %u", peer->header.kind);
                peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        }
}

static void count(shmd *client, shmd_call *call, void *userdata) {
        uint64_t *n = userdata;

        REQUIRE(shmd_ping_finish(call, NULL) == 0);
        ++*n;
}

TEST(client_calls, requests_that_find_no_room_wait_and_leave_in_order) {
        uint64_t n_started = 0, n_answered = 0;
        Seen seen = { 0 };
        shmd_call *call;
        shmd *client;

        gate_make();
        client = peer_start_and_connect(script_read_later);
        while (shmd_events(client) == POLLIN && n_started < PINGS_MAX) {
                cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, count, &n_answered, NULL), 0);
                ++n_started;
        }
        cr_assert_eq(shmd_events(client), POLLIN | POLLOUT);
        /* Queued calls that are over are never sent. */
        cr_assert_eq(shmd_rmdir_start(client, "/late", 1, see, &seen, NULL), 0);
        cr_assert_eq(shmd_unlink_start(client, "/canceled", SHMD_TIMEOUT_NONE, see, NULL, &call), 0);
        shmd_call_cancel(call);
        while (!seen.n)
                cr_assert_geq(shmd_dispatch(client), 0);
        cr_assert_eq(seen.result, -ETIMEDOUT);
        for (unsigned int i = 0; i < 100; ++i, ++n_started)
                cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, count, &n_answered, NULL), 0);
        cr_assert_eq(n_answered, 0);

        gate_open();
        while (n_answered < n_started)
                cr_assert_geq(shmd_process(client, 20 * SECOND), 0);
        cr_assert_eq(shmd_events(client), POLLIN);
        peer_join(client);
        gate_unmake();
}

TEST(client_calls, a_connection_with_a_queue_can_be_closed) {
        uint64_t n = 0;
        Seen seen = { 0 };
        shmd *client;

        gate_make();
        client = peer_start_and_connect(script_read_later);
        while (shmd_events(client) == POLLIN && n++ < PINGS_MAX)
                cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_NONE, see, &seen, NULL), 0);
        peer_kill();
        peer_join(client);
        cr_assert_eq(seen.n, n);
        cr_assert_eq(seen.result, -ECANCELED);
        gate_unmake();
}

/* -- fork ---------------------------------------------------------------------------- */

static void check_in_child(shmd *client, shmd_call *call, shmd_region *region) {
        const struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_stat_result *stat;
        shmd_region *other;
        uint64_t left_ns;
        size_t length;
        void *address;

        REQUIRE(shmd_ping(client, NULL, SECOND) == -ECHILD);
        REQUIRE(shmd_refusal(client)->error == -ECHILD);
        REQUIRE(shmd_ping_start(client, SECOND, NULL, NULL, NULL) == -ECHILD);
        REQUIRE(shmd_create(client, "/a", &options, &other, SECOND) == -ECHILD);
        REQUIRE(shmd_create(client, NULL, &options, &other, SECOND) == -ECHILD);
        REQUIRE(shmd_open(client, "not a name", 1, &other, SECOND) == -ECHILD);
        REQUIRE(shmd_stat(client, NULL, 1, false, &stat, SECOND) == -ECHILD);
        REQUIRE(shmd_fd(client) == -ECHILD);
        REQUIRE(shmd_events(client) == -ECHILD);
        REQUIRE(shmd_timeout(client, &left_ns) == -ECHILD);
        REQUIRE(shmd_dispatch(client) == -ECHILD);
        REQUIRE(shmd_process(client, SECOND) == -ECHILD);
        REQUIRE(shmd_set_timeout(client, SECOND) == -ECHILD);
        REQUIRE(shmd_session(client, NULL, NULL, NULL) == -ECHILD);
        shmd_call_cancel(call);

        REQUIRE(shmd_map(region, NULL, &address, &length) == 0);
        *(volatile char *)address = 'c';
        REQUIRE(shmd_unmap(address, length) == 0);
        shmd_region_free(region);
        shmd_close(client);
}

static void script_fork(Peer *peer) {
        peer_expect(peer, MESSAGE_OPEN);
        peer_grant(peer, 1, 4096, SHMD_RIGHTS_READ_WRITE);
        peer_expect(peer, MESSAGE_PING);
        gate_wait();
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect(peer, MESSAGE_RMDIR);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_calls, in_a_forked_child_the_connection_is_the_parents) {
        shmd_region *region;
        Seen seen = { 0 };
        size_t length;
        void *address;
        shmd_call *call;
        shmd *client;
        int status;
        pid_t pid;

        gate_make();
        client = peer_start_and_connect(script_fork);
        cr_assert_eq(shmd_open(client, "/a", SHMD_RIGHTS_READ_WRITE, &region, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(shmd_ping_start(client, SHMD_TIMEOUT_DEFAULT, see, &seen, &call), 0);
        pid = fork();
        cr_assert_geq(pid, 0);
        if (pid == 0) {
                check_in_child(client, call, region);
                _exit(seen.n == 0 ? 0 : 1);
        }
        status = test_wait_pid(pid);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);

        /* The child's end changed nothing here. */
        gate_open();
        wait_for(client, &seen);
        cr_assert_eq(seen.result, 0);
        cr_assert_eq(shmd_rmdir(client, "/a", SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(shmd_map(region, NULL, &address, &length), 0);
        cr_assert_eq(*(char *)address, 'c');
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
        peer_join(client);
        gate_unmake();
}

/* -- manners ------------------------------------------------------------------------- */

TEST(client_calls, errno_is_the_callers) {
        shmd *client;

        peer_start(script_one_ping);
        errno = 4711;
        cr_assert_eq(shmd_connect(&client, "/nonexistent/socket", SECOND), -ENOENT);
        cr_assert_eq(errno, 4711);
        cr_assert_eq(shmd_connect(&client, peer_socket, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(errno, 4711);
        cr_assert_eq(shmd_ping(client, NULL, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(shmd_dispatch(client), 0);
        cr_assert_eq(errno, 4711);
        cr_assert_eq(shmd_unmap((void *)1, 1), -EINVAL);
        cr_assert_eq(errno, 4711);
        shmd_close(client);
        cr_assert_eq(errno, 4711);
        peer_join(NULL);
}

TEST(client_calls, every_descriptor_is_close_on_exec) {
        shmd *client = peer_start_and_connect(script_grant_twice);
        shmd_region *region;

        cr_assert_eq(shmd_open(client, "/a", SHMD_RIGHTS_READ_WRITE, &region, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert(fcntl(shmd_fd(client), F_GETFD) & FD_CLOEXEC);
        cr_assert(fcntl(shmd_region_fd(region), F_GETFD) & FD_CLOEXEC);
        shmd_region_free(region);
        cr_assert_eq(shmd_open(client, "/a", SHMD_RIGHTS_READ_WRITE, &region, SHMD_TIMEOUT_DEFAULT), 0);
        shmd_region_free(region);
        peer_join(client);
}
