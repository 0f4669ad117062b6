/* daemon/net/connection: what the other side has not taken is counted, bounded and charged. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/connection.h"
#include "proto/wire.h"
#include "util/probe.h"

static House house;
static Loop *loop;
static Connections connections;
static Account *alice;
static Connection *connection;
static int other = -1;          /* the other side */
static int null = -1;
static unsigned int n_readable, n_stalled;

static void readable(void *userdata) {
        ++n_readable;
        loop_stop(loop, 0);
}

static void stalled(void *userdata) {
        ++n_stalled;
}

static Connection *connection_of(int fd) {
        Charge slot = CHARGE_NULL;
        Connection *made = NULL;

        REQUIRE(account_charge(alice, &connection_cost, &slot, NULL) == 0);
        REQUIRE(connection_new_consume_fd(&made, &connections, fd, &slot,
                                          &(ConnectionEvents){ readable, stalled, NULL }) == 0);
        REQUIRE(!slot.account, "the charge is the connection's now");
        return made;
}

static Connection *connect_one(int *ret_other) {
        int ends[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
        *ret_other = ends[1];
        return connection_of(ends[0]);
}

/* How many have ended and are still there. */
static unsigned int lingering(void) {
        Connection *owing;
        unsigned int n = 0;

        list_for_each(owing, &connections.owing, Connection, owing)
                n += owing->lingering;
        return n;
}

static void begin_with(uint64_t stall_ns) {
        house_open(&house);
        REQUIRE(loop_new(&loop, &house.deadlines) == 0);
        connections_init(&connections, loop, &house.deadlines, stall_ns);
        alice = house_account(&house, ALICE);
        connection = connect_one(&other);
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void begin(void) {
        begin_with(3600 * NSEC_PER_SEC);
}

static void end(void) {
        other = close_fd(other);
        null = close_fd(null);
        connection = connection_retire(connection);
        connections_deinit(&connections);
        cr_assert_eq(lingering(), 0);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 0);
        loop = loop_free(loop);
        alice = account_unref(alice);
        house_close(&house);
}

/* What the connections do ten times a second. */
static void refresh(void) {
        REQUIRE(deadline_is_armed(&connections.refresh));
        deadlines_run(&house.deadlines, connections.refresh.at);
}

static int send_packet(Connection *to, uint64_t serial, size_t n, size_t n_fds) {
        static uint8_t packet[WIRE_REPLY_MAX];
        int fds[FDLIST_MAX];

        for (size_t i = 0; i < n_fds; ++i)
                fds[i] = null;
        wire_put_header(packet, n, 1, (uint16_t)n_fds, serial);
        return connection_send(to, packet, n, fds, n_fds, NULL);
}

/* Asks, and sends if it may. */
static int ask_and_send(Connection *to, size_t n, uint32_t n_fds) {
        int r = connection_may_send(to, n_fds, NULL);

        if (r == 0)
                REQUIRE(send_packet(to, 1, n, n_fds) == 0 && list_is_empty(&to->queue), "after a yes it fits");
        return r;
}

/* Return: the serial of the next packet, 0 for none. */
static uint64_t receive(int fd) {
        static uint8_t packet[WIRE_REPLY_MAX];
        FdList fds = FDLIST_NULL;
        WireHeader header;
        int r = wire_receive(fd, packet, sizeof(packet), &fds, &header);

        if (r)
                return 0;
        fdlist_deinit(&fds);
        return header.serial;
}

static unsigned int receive_all(int fd) {
        unsigned int n = 0;

        while (receive(fd))
                ++n;
        return n;
}

/* -- life ------------------------------------------------------------------------------------ */

TEST(connection, it_costs_its_user_one_of_the_peers) {
        int second_other;
        Connection *second;

        begin();
        cr_assert_eq(connection_cost.slots[ACCOUNT_PEERS], 1);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 1);
        second = connect_one(&second_other);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 2);
        cr_assert_eq(connection_retire(second), NULL);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 1);
        cr_assert_eq(connection_retire(NULL), NULL);
        close_fd(second_other);
        end();
}

TEST(connection, what_it_is_made_of_is_consumed_also_when_that_fails) {
        Charge slot = CHARGE_NULL;
        Connection *none = NULL;
        int fd;

        begin();
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        REQUIRE(account_charge(alice, &connection_cost, &slot, NULL) == 0);
        cr_assert_eq(connection_new_consume_fd(&none, &connections, fd, &slot, &(ConnectionEvents){ NULL }), -ENOTSOCK);
        cr_assert_eq(none, NULL);
        cr_assert_eq(slot.account, NULL);
        cr_assert_eq(fcntl(fd, F_GETFD), -1);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 1);
        end();
}

static int receive_with(int from, Connection *to, size_t n_fds) {
        uint8_t packet[sizeof(WireHeader)];
        WireHeader header;
        int r;

        wire_put_header(packet, sizeof(packet), 1, 0, 1);
        r = wire_send(from, packet, sizeof(packet), &null, n_fds);
        return r ? r : connection_receive(to, packet, sizeof(packet), &header);
}

TEST(connection, descriptors_are_looked_for_where_they_can_come) {
        begin();
        cr_assert_eq(receive_with(other, connection, 0), 0);
        cr_assert_eq(receive_with(other, connection, 1), WIRE_E_LOST_FDS);
        end();
}

TEST(connection, where_the_kernel_refuses_descriptors_to_their_sender_packets_come_without) {
        int off = 0, ends[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
        if (setsockopt(ends[0], SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) < 0) {
                close_fd(ends[0]);
                close_fd(ends[1]);
                test_skip("SO_PASSRIGHTS: %s", strerror(errno));
        }
        begin();
        connection = connection_retire(connection);
        other = close_fd(other);
        connection = connection_of(ends[0]);
        other = ends[1];
        cr_assert_eq(receive_with(other, connection, 0), 0);
        cr_assert_eq(receive_with(other, connection, 1), -EPERM);
        cr_assert_eq(receive_with(other, connection, 0), 0);
        end();
}

static void stop_loop(Deadline *deadline, void *userdata) {
        loop_stop(loop, 0);
}

TEST(connection, packets_and_the_end_make_it_readable) {
        begin();
        REQUIRE(send(other, "x", 1, 0) == 1);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_eq(n_readable, 1);
        end();

        begin();
        other = close_fd(other);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_eq(n_readable, 2);
        end();
}

TEST(connection, while_it_does_not_read_nothing_makes_it_readable) {
        Deadline d = DEADLINE_NULL;

        begin();
        cr_assert_eq(connection_read(connection, false), 0);
        REQUIRE(send(other, "x", 1, 0) == 1);
        deadline_arm(&d, &house.deadlines, time_now() + 20 * NSEC_PER_MSEC, stop_loop, NULL);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_eq(n_readable, 0);
        end();
}

/* -- descriptors in flight ---------------------------------------------------------------------- */

TEST(connection, 256_descriptors_may_be_in_flight_and_not_one_more) {
        begin();
        cr_assert_eq(ask_and_send(connection, 64, 128), 0);
        cr_assert_eq(ask_and_send(connection, 64, 127), 0);
        cr_assert_eq(ask_and_send(connection, 64, 2), CONNECTION_E_BUSY);
        cr_assert_eq(ask_and_send(connection, 64, 1), 0);
        cr_assert_eq(connection->n_inflight, 256);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 256);
        cr_assert_eq(ask_and_send(connection, 64, 1), CONNECTION_E_BUSY);
        cr_assert_eq(ask_and_send(connection, 64, 0), 0, "what carries none may still go");
        end();
}

TEST(connection, descriptors_are_in_flight_until_the_other_side_took_them) {
        begin();
        cr_assert_eq(ask_and_send(connection, 64, 128), 0);
        cr_assert_eq(ask_and_send(connection, 64, 128), 0);
        cr_assert_eq(receive(other), 1);
        cr_assert_eq(ask_and_send(connection, 64, 129), CONNECTION_E_BUSY, "one packet is still there");
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 128);
        cr_assert_eq(ask_and_send(connection, 64, 128), 0);
        cr_assert_eq(ask_and_send(connection, 64, 1), CONNECTION_E_BUSY, "two are");
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 256);
        cr_assert_eq(receive_all(other), 2);
        cr_assert_eq(ask_and_send(connection, 64, 1), 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 1);
        end();
}

/* Sends and receives with that many packets always unread. Return: how many had to wait. */
static unsigned int flow(unsigned int window, size_t n, uint32_t n_fds) {
        unsigned int n_busy = 0;

        for (unsigned int i = 0; i < 1000; ++i) {
                n_busy += ask_and_send(connection, n, n_fds) != 0;
                if (i + 1 < window)
                        continue;
                cr_assert_geq(alice->used[ACCOUNT_INFLIGHT], (window - n_busy) * n_fds, "never fewer than there are");
                cr_assert_leq(alice->used[ACCOUNT_INFLIGHT], CONNECTION_INFLIGHT_MAX);
                cr_assert_eq(receive(other), 1);
        }
        cr_assert_eq(receive_all(other), window - 1 - n_busy);
        return n_busy;
}

TEST(connection, one_that_has_always_something_under_way_need_not_wait) {
        begin();
        cr_assert_eq(flow(64, 32, 1), 0);
        cr_assert_eq(flow(64, 200, 1), 0);
        cr_assert_eq(flow(2, 3000, 64), 0);
        cr_assert_eq(flow(100, 32, 0), 0);
        cr_assert_eq(flow(64, 32, 1), 0);
        refresh();
        cr_assert_eq(connection->n_inflight, 0);
        end();
}

TEST(connection, what_was_taken_is_noticed_without_another_request) {
        begin();
        cr_assert_eq(ask_and_send(connection, 64, 5), 0);
        refresh();
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 5);
        cr_assert_eq(receive(other), 1);
        refresh();
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 0);
        cr_assert_eq(connection->n_inflight, 0);
        cr_assert_eq(connection->owes_since, 0);
        cr_assert_not(deadline_is_armed(&connections.refresh), "nobody owes anything any more");
        end();
}

TEST(connection, the_users_limit_counts_over_all_its_connections) {
        Connection *second;
        int second_other;
        Shortage s;

        begin();
        alice->max[ACCOUNT_INFLIGHT] = 10;
        second = connect_one(&second_other);
        cr_assert_eq(ask_and_send(connection, 64, 6), 0);
        cr_assert_eq(connection_may_send(second, 5, &s), CONNECTION_E_QUOTA);
        cr_assert(s.slot == ACCOUNT_INFLIGHT && s.asked == 5 && s.left == 4 && s.kind == ACCOUNT_USER);
        cr_assert_eq(second->n_inflight, 0);
        cr_assert_eq(ask_and_send(second, 64, 4), 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 10);

        /* Its own debt, if it is paid, is asked for before the answer is no. */
        cr_assert_eq(receive(second_other), 1);
        cr_assert_eq(ask_and_send(second, 64, 4), 0);
        close_fd(second_other);
        second = connection_retire(second);
        end();
}

TEST(connection, a_yes_costs_nothing_until_something_is_sent) {
        begin();
        for (int i = 0; i < 10; ++i)
                cr_assert_eq(connection_may_send(connection, 100, NULL), 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 0);
        REQUIRE(send_packet(connection, 1, 64, 3) == 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 3);
        end();
}

/* -- bytes --------------------------------------------------------------------------------------- */

TEST(connection, after_a_yes_an_answer_of_any_size_fits) {
        static const size_t sizes[] = { sizeof(WireHeader), 100, 4096, WIRE_REPLY_MAX };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
                unsigned int n = 0;
                int r;

                begin();
                while ((r = ask_and_send(connection, sizes[i], 0)) == 0)
                        REQUIRE(++n < 100000);
                cr_assert_eq(r, CONNECTION_E_BUSY);
                cr_assert_gt(n, 0);
                cr_assert_eq(receive_all(other), n);
                cr_assert_eq(ask_and_send(connection, WIRE_REPLY_MAX, 0), 0);
                end();
        }
}

TEST(connection, room_for_what_nobody_waits_for_is_no_debt) {
        unsigned int n = 0;

        begin_with(100);
        while (connection_has_room(connection)) {
                REQUIRE(send_packet(connection, 1, WIRE_REPLY_MAX, 0) == 0 && list_is_empty(&connection->queue));
                REQUIRE(++n < 100000);
        }
        cr_assert_gt(n, 0);
        cr_assert(connection->owes_since == 0 && !deadline_is_armed(&connections.refresh));
        cr_assert_eq(receive_all(other), n);
        cr_assert(connection_has_room(connection));
        cr_assert_eq(n_stalled, 0);
        end();
}

/* Fills the other side's buffer until the kernel itself says no. */
static unsigned int fill(void) {
        unsigned int n = 0;

        while (list_is_empty(&connection->queue)) {
                REQUIRE(n < 100000);
                REQUIRE(send_packet(connection, ++n, 4096, 0) == 0);
        }
        return n;
}

TEST(connection, a_packet_that_comes_uninvited_waits_its_turn) {
        unsigned int n;

        begin();
        n = fill();
        REQUIRE(send_packet(connection, n + 1, 64, 2) == 0);
        cr_assert_eq(ask_and_send(connection, 64, 0), CONNECTION_E_BUSY, "first what waits, then what is new");
        for (unsigned int i = 1; i < n; ++i)
                cr_assert_eq(receive(other), i);
        cr_assert_eq(receive(other), 0);
        refresh();
        cr_assert(list_is_empty(&connection->queue));
        cr_assert_eq(receive(other), n);
        cr_assert_eq(receive(other), n + 1, "with its descriptors, which are copies");
        end();
}

TEST(connection, a_packet_that_waits_keeps_the_charge_of_what_it_ends) {
        Charge charge = CHARGE_NULL;
        uint8_t packet[64];
        unsigned int n;

        begin();
        REQUIRE(account_charge(alice, &(Cost){ .slots = { [ACCOUNT_PENDING] = 1 } }, &charge, NULL) == 0);
        wire_put_header(packet, sizeof(packet), 1, 0, 1);
        cr_assert_eq(connection_send(connection, packet, sizeof(packet), NULL, 0, &charge), 0);
        cr_assert_eq(charge.account, alice, "it did not have to wait");

        n = fill();
        cr_assert_eq(connection_send(connection, packet, sizeof(packet), NULL, 0, &charge), 0);
        cr_assert_eq(charge.account, NULL);
        cr_assert_eq(alice->used[ACCOUNT_PENDING], 1);
        cr_assert_eq(receive_all(other), n);
        refresh();
        cr_assert_eq(alice->used[ACCOUNT_PENDING], 0, "sent");
        cr_assert_eq(receive_all(other), 2);
        end();
}

TEST(connection, descriptors_that_wait_are_charged_like_those_in_flight) {
        unsigned int n;

        begin();
        n = fill();
        REQUIRE(send_packet(connection, n + 1, 64, 2) == 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 2);
        cr_assert_eq(receive_all(other), n - 1);
        (void)connection_may_send(connection, 0, NULL);
        refresh();
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 2, "all was read, but not what waited");
        cr_assert_eq(receive_all(other), 2);
        refresh();
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 0);
        end();
}

TEST(connection, what_waits_goes_before_what_is_new) {
        unsigned int n;

        begin();
        n = fill();
        cr_assert_eq(receive_all(other), n - 1);
        cr_assert_eq(ask_and_send(connection, 64, 0), 0);
        cr_assert_eq(receive(other), n);
        cr_assert_eq(receive(other), 1);
        end();
}

static int queue_without_descriptors(void *userdata) {
        struct rlimit none = { 1, 1 };

        begin();
        (void)fill();
        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        REQUIRE(send_packet(connection, 1, 64, 2) == -EMFILE);
        end();
        return 0;
}

TEST(connection, a_packet_that_cannot_wait_for_lack_of_descriptors_is_an_error) {
        house_expect_child(queue_without_descriptors, NULL);
}

TEST(connection, nobody_at_the_other_side_is_gone) {
        begin();
        (void)signal(SIGPIPE, SIG_DFL);
        other = close_fd(other);
        cr_assert_eq(send_packet(connection, 1, 64, 1), CONNECTION_E_GONE);
        cr_assert(list_is_empty(&connection->queue));
        end();
}

/* -- who takes nothing ------------------------------------------------------------------------------ */

TEST(connection, one_that_takes_nothing_for_the_stall_time_is_told_of) {
        begin_with(1);
        cr_assert_eq(ask_and_send(connection, 64, 1), 0);
        refresh();
        cr_assert_eq(n_stalled, 1);
        end();
}

/* The clock may have begun a minute ago: the times here are parts of what it says. */
TEST(connection, one_that_takes_something_now_and_then_is_not) {
        const uint64_t now = time_now(), stall_ns = now / 2;

        begin_with(stall_ns);
        for (int i = 0; i < 3; ++i)
                cr_assert_eq(ask_and_send(connection, 64, 1), 0);
        for (int i = 0; i < 3; ++i) {
                connection->owes_since = now - stall_ns / 2;
                refresh();
                cr_assert_eq(receive(other), 1);
                refresh();
                cr_assert(connection->owes_since == 0 || connection->owes_since >= now);
        }
        cr_assert_eq(connection->owes_since, 0);
        cr_assert_eq(n_stalled, 0);

        cr_assert_eq(ask_and_send(connection, 64, 1), 0);
        connection->owes_since = now - stall_ns - 1;
        refresh();
        cr_assert_eq(n_stalled, 1);
        end();
}

TEST(connection, it_is_asked_less_and_less_while_nobody_takes_anything) {
        static const uint64_t ms[] = { 100, 200, 400, 800, 1600, 2000, 2000 };

        begin();
        cr_assert_eq(ask_and_send(connection, 64, 1), 0);
        refresh();              /* takes note of what the kernel really holds */
        connections.interval = ms[0] * NSEC_PER_MSEC;
        for (size_t i = 0; i < 7; ++i) {
                cr_assert_eq(connections.interval, ms[i] * NSEC_PER_MSEC, "%zu", i);
                refresh();
        }
        cr_assert_eq(receive(other), 1);
        refresh();
        cr_assert_eq(connections.interval, 100 * NSEC_PER_MSEC);
        end();
}

/* -- lingering ---------------------------------------------------------------------------------- */

TEST(connection, one_that_owes_nothing_ends_at_once) {
        int fd;

        begin();
        fd = connection->fd;
        cr_assert_eq(ask_and_send(connection, 64, 1), 0);
        cr_assert_eq(receive(other), 1);
        connection = connection_retire(connection);
        cr_assert_eq(lingering(), 0);
        cr_assert_eq(fcntl(fd, F_GETFD), -1);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 0);
        end();
}

TEST(connection, one_that_ends_with_something_unread_lingers_with_its_charges_until_it_is_read) {
        char byte;

        begin();
        cr_assert_eq(ask_and_send(connection, 64, 3), 0);
        cr_assert_eq(ask_and_send(connection, 64, 4), 0);
        connection = connection_retire(connection);
        cr_assert_eq(lingering(), 1);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 1);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 7);
        cr_assert_eq(send(other, "x", 1, MSG_NOSIGNAL), -1, "it is shut down");
        cr_assert_eq(errno, EPIPE);
        refresh();
        cr_assert_eq(receive(other), 1);
        refresh();
        cr_assert_eq(lingering(), 1);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 7);
        cr_assert_eq(receive(other), 1);
        cr_assert_eq(recv(other, &byte, 1, 0), 0, "then comes the end");
        refresh();
        cr_assert_eq(lingering(), 0);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 0);
        end();
}

TEST(connection, one_that_lingers_ends_when_the_other_side_is_gone) {
        begin();
        cr_assert_eq(ask_and_send(connection, 64, 3), 0);
        connection = connection_retire(connection);
        refresh();
        cr_assert_eq(lingering(), 1);
        other = close_fd(other);
        refresh();
        cr_assert_eq(lingering(), 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 0);
        end();
}

TEST(connection, one_that_lingers_is_never_stalled_and_drops_what_was_waiting) {
        unsigned int n;

        begin_with(1);
        n = fill();
        REQUIRE(send_packet(connection, 99, 64, 2) == 0);
        connection = connection_retire(connection);
        cr_assert_eq(lingering(), 1);
        refresh();
        refresh();
        cr_assert_eq(n_stalled, 0);
        cr_assert_eq(receive_all(other), n - 1);
        end();
}

TEST(connection, at_the_end_nobody_is_waited_for) {
        begin();
        cr_assert_eq(ask_and_send(connection, 64, 3), 0);
        connection = connection_retire(connection);
        connections_deinit(&connections);
        cr_assert_eq(lingering(), 0);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 0);
        end();
}
