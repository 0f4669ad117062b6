/* proto/wire: one packet with its descriptors, or none of both. */

#include "lib/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "proto/wire.h"

#define PAYLOAD "payload"

typedef struct Packet {
        uint8_t bytes[sizeof(WireHeader) + sizeof(PAYLOAD) - 1];
} Packet;

static int ends[2];

static void connect_ends(void) {
        cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void close_ends(void) {
        ends[0] = close_fd(ends[0]);
        ends[1] = close_fd(ends[1]);
}

static Packet packet_with(size_t length, uint16_t n_fds) {
        Packet packet;

        wire_put_header(packet.bytes, length, 7, n_fds, UINT64_C(0x1122334455667788));
        memcpy(packet.bytes + sizeof(WireHeader), PAYLOAD, sizeof(PAYLOAD) - 1);
        return packet;
}

/* What a sender that does not use wire_send() can do. */
static void send_raw(const void *data, size_t n, const int *fds, size_t n_fds) {
        struct iovec iov = { .iov_base = (void *)data, .iov_len = n };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        char control[CMSG_SPACE(253 * sizeof(int))] = { 0 };

        if (n_fds) {
                struct cmsghdr *c;

                msg.msg_control = control;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                c = CMSG_FIRSTHDR(&msg);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }
        cr_assert_eq(sendmsg(ends[0], &msg, MSG_NOSIGNAL), (ssize_t)n);
}

static int receive(void *buffer, size_t n, FdList *fds) {
        WireHeader header;

        return wire_receive(ends[1], buffer, n, fds, &header);
}

static void open_nulls(int *fds, size_t n) {
        for (size_t i = 0; i < n; ++i) {
                fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
                cr_assert_geq(fds[i], 0);
        }
}

static void close_all(int *fds, size_t n) {
        for (size_t i = 0; i < n; ++i)
                fds[i] = close_fd(fds[i]);
}

TEST(wire, the_header_is_little_endian) {
        static const uint8_t expected[16] = {
                0x78, 0x56, 0x34, 0x12, 0xcd, 0xab, 0x02, 0x01, 8, 7, 6, 5, 4, 3, 2, 1,
        };
        uint8_t bytes[16];

        wire_put_header(bytes, 0x12345678, 0xabcd, 0x0102, UINT64_C(0x0102030405060708));
        cr_assert_arr_eq(bytes, expected, 16);
}

static void on_signal(int signal) {
        (void)signal;
}

TEST(wire, who_waits_gets_the_packet_or_the_end_of_his_patience_or_a_signal) {
        struct timeval patience = { .tv_usec = 1 };
        struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
        struct itimerval soon = { .it_value.tv_usec = 10000, .it_interval.tv_usec = 10000 };
        struct itimerval never = { .it_value.tv_usec = 0 };
        Packet packet = packet_with(sizeof(packet), 0);
        WireHeader header;
        uint8_t got[64];

        connect_ends();
        cr_assert_eq(setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
        cr_assert_eq(wire_await(ends[1], got, sizeof(got), NULL, &header), WIRE_E_AGAIN);
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), NULL, 0), 0);
        cr_assert_eq(wire_await(ends[1], got, sizeof(got), NULL, &header), 0);
        cr_assert_arr_eq(got, packet.bytes, sizeof(packet));

        patience = (struct timeval){ .tv_sec = 1000 };
        cr_assert_eq(setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
        cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
        cr_assert_eq(setitimer(ITIMER_REAL, &soon, NULL), 0);
        cr_assert_eq(wire_await(ends[1], got, sizeof(got), NULL, &header), WIRE_E_AGAIN);
        cr_assert_eq(setitimer(ITIMER_REAL, &never, NULL), 0);

        ends[0] = close_fd(ends[0]);
        cr_assert_eq(wire_await(ends[1], got, sizeof(got), NULL, &header), WIRE_E_EOF);
        close_ends();
}

TEST(wire, what_is_sent_is_what_comes) {
        Packet packet = packet_with(sizeof(packet), 0);
        WireHeader header;
        uint8_t got[64];

        connect_ends();
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), NULL, 0), 0);
        cr_assert_eq(wire_receive(ends[1], got, sizeof(got), NULL, &header), 0);
        cr_assert_eq(header.length, sizeof(packet));
        cr_assert_eq(header.kind, 7);
        cr_assert_eq(header.n_fds, 0);
        cr_assert_eq(header.serial, UINT64_C(0x1122334455667788));
        cr_assert_arr_eq(got, packet.bytes, sizeof(packet));
        close_ends();
}

TEST(wire, a_bare_header_is_a_packet) {
        uint8_t got[16];
        Packet packet = packet_with(sizeof(WireHeader), 0);
        WireHeader header;

        connect_ends();
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(WireHeader), NULL, 0), 0);
        cr_assert_eq(wire_receive(ends[1], got, sizeof(got), NULL, &header), 0);
        cr_assert_eq(header.length, 16);
        close_ends();
}

TEST(wire, packets_keep_their_borders) {
        uint8_t got[64];
        Packet packet = packet_with(sizeof(packet), 0);
        WireHeader header;

        connect_ends();
        for (uint64_t serial = 1; serial <= 3; ++serial) {
                wire_put_header(packet.bytes, sizeof(packet), 1, 0, serial);
                cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), NULL, 0), 0);
        }
        for (uint64_t serial = 1; serial <= 3; ++serial) {
                cr_assert_eq(wire_receive(ends[1], got, sizeof(got), NULL, &header), 0);
                cr_assert_eq(header.serial, serial);
        }
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_AGAIN);
        close_ends();
}

/* Every outcome that has nothing to do with descriptors is the same. */
static int receive_plain(void *buffer, size_t n) {
        WireHeader header;

        return wire_receive_plain(ends[1], buffer, n, &header);
}

TEST(wire, without_descriptors_to_look_for_the_outcomes_are_the_same) {
        Packet packet = packet_with(sizeof(packet), 0), shorter = packet_with(sizeof(packet) - 1, 0),
               with_fds = packet_with(sizeof(packet), 1);
        uint8_t got[64];
        WireHeader header;

        connect_ends();
        cr_assert_eq(receive_plain(got, sizeof(got)), WIRE_E_AGAIN);
        send_raw(&packet, sizeof(packet), NULL, 0);
        cr_assert_eq(wire_receive_plain(ends[1], got, sizeof(got), &header), 0);
        cr_assert(header.length == sizeof(packet) && header.kind == 7 && header.n_fds == 0);
        cr_assert_eq(header.serial, UINT64_C(0x1122334455667788));
        cr_assert_arr_eq(got, packet.bytes, sizeof(packet));

        send_raw(&packet, sizeof(packet), NULL, 0);
        cr_assert_eq(receive_plain(got, sizeof(packet)), 0, "the buffer is full");
        send_raw(&packet, sizeof(packet), NULL, 0);
        cr_assert_eq(receive_plain(got, sizeof(packet) - 1), WIRE_E_TOO_LARGE);
        send_raw(&packet, sizeof(WireHeader) - 1, NULL, 0);
        cr_assert_eq(receive_plain(got, sizeof(got)), WIRE_E_VIOLATION);
        send_raw(&shorter, sizeof(shorter), NULL, 0);
        cr_assert_eq(receive_plain(got, sizeof(got)), WIRE_E_VIOLATION);
        send_raw(&with_fds, sizeof(with_fds), NULL, 0);
        cr_assert_eq(receive_plain(got, sizeof(got)), WIRE_E_VIOLATION);
        send_raw("", 0, NULL, 0);
        cr_assert_eq(receive_plain(got, sizeof(got)), WIRE_E_EMPTY);

        send_raw(&packet, sizeof(packet), NULL, 0);
        ends[0] = close_fd(ends[0]);
        cr_assert_eq(receive_plain(got, sizeof(got)), 0, "what was sent before the end comes");
        cr_assert_eq(receive_plain(got, sizeof(got)), WIRE_E_EOF);
        close_ends();

        connect_ends();
        cr_assert_eq(wire_send(ends[1], &packet, sizeof(packet), NULL, 0), 0);
        ends[0] = close_fd(ends[0]);
        cr_assert_eq(receive_plain(got, sizeof(got)), WIRE_E_EOF, "closed with something unread");
        close_ends();
}

TEST(wire, nothing_there_is_again) {
        uint8_t got[64];
        FdList fds = FDLIST_NULL;

        connect_ends();
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_AGAIN);
        cr_assert_eq(receive(got, sizeof(got), &fds), WIRE_E_AGAIN);
        close_ends();
}

TEST(wire, the_other_side_gone_is_the_end) {
        uint8_t got[64];

        connect_ends();
        ends[0] = close_fd(ends[0]);
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_EOF);
        close_ends();
}

TEST(wire, a_packet_sent_before_the_end_still_comes) {
        uint8_t got[64];
        Packet packet = packet_with(sizeof(packet), 0);

        connect_ends();
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), NULL, 0), 0);
        ends[0] = close_fd(ends[0]);
        cr_assert_eq(receive(got, sizeof(got), NULL), 0);
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_EOF);
        close_ends();
}

TEST(wire, a_reset_connection_is_the_end_too) {
        uint8_t got[64];
        Packet packet = packet_with(sizeof(packet), 0);

        /* Closing with something unread resets a Unix connection. */
        connect_ends();
        cr_assert_eq(wire_send(ends[1], &packet, sizeof(packet), NULL, 0), 0);
        ends[0] = close_fd(ends[0]);
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_EOF);
        close_ends();
}

TEST(wire, attack_001_a_packet_of_no_bytes_is_told_from_the_end) {
        uint8_t got[64];
        FdList fds = FDLIST_NULL;

        connect_ends();
        send_raw("", 0, NULL, 0);
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_EMPTY);
        send_raw("", 0, NULL, 0);
        cr_assert_eq(receive(got, sizeof(got), &fds), WIRE_E_EMPTY);
        close_ends();
}

TEST(wire, a_packet_of_no_bytes_with_descriptors_leaves_none_behind) {
        FdList fds = FDLIST_NULL;
        uint8_t got[64];
        int nulls[3];

        connect_ends();
        open_nulls(nulls, 3);
        send_raw("", 0, nulls, 3);
        cr_assert_eq(receive(got, sizeof(got), &fds), WIRE_E_EMPTY);
        cr_assert_eq(fds.n, 0);
        close_all(nulls, 3);
        close_ends();
}

TEST(wire, attack_003_less_than_a_header_is_a_violation) {
        Packet packet = packet_with(0, 0);
        uint8_t got[64];

        connect_ends();
        for (size_t n = 1; n < sizeof(WireHeader); ++n) {
                wire_put_header(packet.bytes, n, 1, 0, 1);
                send_raw(&packet, n, NULL, 0);
                cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_VIOLATION, "%zu bytes", n);
        }
        close_ends();
}

TEST(wire, a_length_that_is_not_the_packets_is_a_violation) {
        static const size_t lengths[] = {
                0, 1, 15, 16, sizeof(Packet) - 1, sizeof(Packet) + 1, 0x7fffffff, 0x80000000, 0xffffffff,
        };
        uint8_t got[64];

        connect_ends();
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); ++i) {
                Packet packet = packet_with(lengths[i], 0);

                send_raw(&packet, sizeof(packet), NULL, 0);
                cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_VIOLATION, "%zu", lengths[i]);
        }
        close_ends();
}

TEST(wire, a_count_without_descriptors_is_a_violation) {
        static const uint16_t counts[] = { 1, 2, 253, 254, 0xffff };
        FdList fds = FDLIST_NULL;
        uint8_t got[64];

        connect_ends();
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); ++i) {
                Packet packet = packet_with(sizeof(packet), counts[i]);

                send_raw(&packet, sizeof(packet), NULL, 0);
                cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_VIOLATION, "%u", counts[i]);
                send_raw(&packet, sizeof(packet), NULL, 0);
                cr_assert_eq(receive(got, sizeof(got), &fds), WIRE_E_VIOLATION, "%u", counts[i]);
        }
        close_ends();
}

TEST(wire, descriptors_that_are_not_counted_are_a_violation_and_closed) {
        FdList fds = FDLIST_NULL;
        uint8_t got[64];
        int nulls[4];

        connect_ends();
        open_nulls(nulls, 4);
        for (uint16_t count = 0; count < 6; ++count) {
                Packet packet = packet_with(sizeof(packet), count);

                if (count == 4)
                        continue;
                send_raw(&packet, sizeof(packet), nulls, 4);
                cr_assert_eq(receive(got, sizeof(got), &fds), WIRE_E_VIOLATION, "%u", count);
                cr_assert_eq(fds.n, 0);
        }
        close_all(nulls, 4);
        close_ends();
}

TEST(wire, attack_004_a_packet_longer_than_the_buffer_is_never_parsed) {
        Packet packet = packet_with(sizeof(packet), 0);
        uint8_t got[sizeof(Packet)];

        connect_ends();
        for (size_t room = 1; room < sizeof(packet); ++room) {
                send_raw(&packet, sizeof(packet), NULL, 0);
                cr_assert_eq(receive(got, room, NULL), WIRE_E_TOO_LARGE, "%zu", room);
        }
        send_raw(&packet, sizeof(packet), NULL, 0);
        cr_assert_eq(receive(got, sizeof(packet), NULL), 0);
        close_ends();
}

TEST(wire, a_packet_cut_short_leaves_no_descriptor_behind) {
        Packet packet = packet_with(sizeof(packet), 2);
        FdList fds = FDLIST_NULL;
        uint8_t got[16];
        int nulls[2];

        connect_ends();
        open_nulls(nulls, 2);
        send_raw(&packet, sizeof(packet), nulls, 2);
        cr_assert_eq(receive(got, sizeof(got), &fds), WIRE_E_TOO_LARGE);
        cr_assert_eq(fds.n, 0);
        close_all(nulls, 2);
        close_ends();
}

TEST(wire, descriptors_arrive_in_order_and_close_on_exec) {
        Packet packet = packet_with(sizeof(packet), 2);
        FdList fds = FDLIST_NULL;
        WireHeader header;
        uint8_t got[64];
        int sent[2];

        connect_ends();
        cr_assert_eq(pipe(sent), 0);
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), sent, 2), 0);
        cr_assert_eq(wire_receive(ends[1], got, sizeof(got), &fds, &header), 0);
        cr_assert_eq(header.n_fds, 2);
        cr_assert_eq(fds.n, 2);
        cr_assert(fcntl(fds.fds[0], F_GETFD) & FD_CLOEXEC);
        cr_assert(fcntl(fds.fds[1], F_GETFD) & FD_CLOEXEC);

        close_all(sent, 2);
        cr_assert_eq(write(fds.fds[1], "x", 1), 1, "the second is the writing end");
        cr_assert_eq(read(fds.fds[0], got, 1), 1, "the first is the reading end");
        fdlist_deinit(&fds);
        close_ends();
}

TEST(wire, sending_leaves_the_descriptors_with_the_sender) {
        Packet packet = packet_with(sizeof(packet), 1);
        int null;

        connect_ends();
        open_nulls(&null, 1);
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), &null, 1), 0);
        cr_assert_geq(fcntl(null, F_GETFD), 0);
        close_all(&null, 1);
        close_ends();
}

TEST(wire, the_253rd_descriptor_comes_and_more_are_refused_by_the_kernel) {
        Packet packet = packet_with(sizeof(packet), 253);
        FdList fds = FDLIST_NULL;
        uint8_t got[64];
        int nulls[253];

        if (test_raise_fds() < 1024)
                test_skip("needs 1024 descriptors");

        connect_ends();
        open_nulls(nulls, 253);
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), nulls, 253), 0);
        cr_assert_eq(receive(got, sizeof(got), &fds), 0);
        cr_assert_eq(fds.n, 253);
        fdlist_deinit(&fds);

        /* The kernel's own bound is ours: SCM_MAX_FD. */
        struct iovec iov = { .iov_base = &packet, .iov_len = sizeof(packet) };
        static char control[CMSG_SPACE(254 * sizeof(int))];
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof(control) };
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(254 * sizeof(int));
        for (size_t i = 0; i < 254; ++i)
                memcpy(CMSG_DATA(c) + i * sizeof(int), &nulls[0], sizeof(int));
        cr_assert_eq(sendmsg(ends[0], &msg, MSG_NOSIGNAL), -1);
        cr_assert_eq(errno, EINVAL);

        close_all(nulls, 253);
        close_ends();
}

TEST(wire, descriptors_that_may_not_come_are_dropped_and_told) {
        Packet packet = packet_with(sizeof(packet), 0);
        uint8_t got[64];
        int nulls[3];

        connect_ends();
        open_nulls(nulls, 3);
        send_raw(&packet, sizeof(packet), nulls, 3);
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_LOST_FDS);

        wire_put_header(packet.bytes, sizeof(packet), 1, 3, 1);
        send_raw(&packet, sizeof(packet), nulls, 3);
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_LOST_FDS, "even if they are counted");

        close_all(nulls, 3);
        send_raw(&packet, sizeof(packet), NULL, 0);
        cr_assert_eq(receive(got, sizeof(got), NULL), WIRE_E_VIOLATION);
        close_ends();
}

TEST(wire, a_full_descriptor_table_loses_descriptors_and_leaks_none) {
        Packet packet = packet_with(sizeof(packet), 3);
        struct rlimit before;
        FdList fds = FDLIST_NULL;
        uint8_t got[64];
        int nulls[3];

        connect_ends();
        open_nulls(nulls, 3);
        send_raw(&packet, sizeof(packet), nulls, 3);

        test_leave_fds(1, &before);
        cr_assert_eq(receive(got, sizeof(got), &fds), WIRE_E_LOST_FDS);
        cr_assert_eq(fds.n, 0);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);

        close_all(nulls, 3);
        close_ends();
}

TEST(wire, credentials_in_the_control_data_are_no_descriptors) {
        Packet packet = packet_with(sizeof(packet), 0);
        FdList fds = FDLIST_NULL;
        WireHeader header;
        uint8_t got[64];
        int on = 1;

        connect_ends();
        cr_assert_eq(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
        send_raw(&packet, sizeof(packet), NULL, 0);
        cr_assert_eq(wire_receive(ends[1], got, sizeof(got), &fds, &header), 0);
        cr_assert_eq(fds.n, 0);
        close_ends();
}

TEST(wire, a_socket_that_is_full_is_again_and_takes_nothing) {
        Packet packet = packet_with(sizeof(packet), 0);
        size_t sent = 0, got = 0;
        uint8_t buffer[64];
        int r;

        connect_ends();
        while ((r = wire_send(ends[0], &packet, sizeof(packet), NULL, 0)) == 0)
                cr_assert_lt(++sent, 1000000);
        cr_assert_eq(r, WIRE_E_AGAIN);
        cr_assert_gt(sent, 0);
        while ((r = receive(buffer, sizeof(buffer), NULL)) == 0)
                ++got;
        cr_assert_eq(r, WIRE_E_AGAIN);
        cr_assert_eq(got, sent);
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), NULL, 0), 0);
        close_ends();
}

TEST(wire, sending_to_nobody_is_the_end_without_a_signal) {
        Packet packet = packet_with(sizeof(packet), 0);

        connect_ends();
        (void)signal(SIGPIPE, SIG_DFL);
        ends[1] = close_fd(ends[1]);
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), NULL, 0), WIRE_E_EOF);
        close_ends();
}

TEST(wire, sending_to_one_who_shut_its_reading_side_is_the_end) {
        Packet packet = packet_with(sizeof(packet), 0);

        connect_ends();
        (void)signal(SIGPIPE, SIG_DFL);
        cr_assert_eq(shutdown(ends[1], SHUT_RD), 0);
        cr_assert_eq(wire_send(ends[0], &packet, sizeof(packet), NULL, 0), WIRE_E_EOF);
        close_ends();
}

TEST(wire, sending_on_what_is_no_socket_says_why) {
        Packet packet = packet_with(sizeof(packet), 0);
        uint8_t got[64];
        WireHeader header;
        int null;

        open_nulls(&null, 1);
        cr_assert_eq(wire_send(null, &packet, sizeof(packet), NULL, 0), -ENOTSOCK);
        cr_assert_eq(wire_receive(null, got, sizeof(got), NULL, &header), -ENOTSOCK);
        cr_assert_eq(wire_send(-1, &packet, sizeof(packet), NULL, 0), -EBADF);
        close_all(&null, 1);
}

TEST(wire, the_largest_request_and_reply_go_through) {
        static const size_t sizes[] = { WIRE_REQUEST_MAX, WIRE_REPLY_MAX };
        static uint8_t packet[WIRE_REPLY_MAX], got[WIRE_REPLY_MAX];

        connect_ends();
        for (size_t i = 0; i < 2; ++i) {
                memset(packet, (int)i + 1, sizes[i]);
                wire_put_header(packet, sizes[i], 1, 0, 1);
                cr_assert_eq(wire_send(ends[0], packet, sizes[i], NULL, 0), 0);
                cr_assert_eq(receive(got, sizes[i], NULL), 0);
                cr_assert_arr_eq(got, packet, sizes[i]);
        }
        close_ends();
}

/* Descriptors in flight are limited by the sender's RLIMIT_NOFILE, unless it has capabilities. */
static int fill_the_flight(void *userdata) {
        Packet packet = packet_with(sizeof(packet), 1);
        struct rlimit small = { 32, 32 };
        int r = 0;

        (void)setrlimit(RLIMIT_NOFILE, &small);
        for (int i = 0; i < 200 && r == 0; ++i)
                r = wire_send(ends[0], &packet, sizeof(packet), &ends[1], 1);
        return r;
}

TEST(wire, too_many_descriptors_in_flight_are_a_backlog) {
        test_needs_root();
        connect_ends();
        cr_assert_eq(run_as(ALICE, ALICE, fill_the_flight, NULL), WIRE_E_BACKLOG);
        close_ends();
}
