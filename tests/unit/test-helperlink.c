/* daemon/util/helperlink: fixed packets, at most one descriptor, and an end that is seen. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/helperlink.h"

static int ends[2];

static void begin(void) {
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
}

static void end(void) {
        ends[0] = close_fd(ends[0]);
        ends[1] = close_fd(ends[1]);
}

/* Sends anything, with descriptors. */
static void send_raw(const void *data, size_t n, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(3 * sizeof(int))];
        } control;
        struct iovec part = { (void *)data, n };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        memset(&control, 0, sizeof(control));
        if (n_fds > 0) {
                control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(n_fds * sizeof(int)),
                                                   .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        REQUIRE(sendmsg(ends[0], &message, 0) == (ssize_t)n);
}

TEST(helperlink, a_packet_arrives_as_it_was_sent) {
        HelperPacket sent = { .op = HELPER_DONE, .result = -EPERM, .pid = -7, .serial = UINT64_MAX,
                              .offset = UINT64_C(1) << 40, .seals = 31, .byte = 255 }, got;
        int fd;

        begin();
        REQUIRE(helperlink_send(ends[0], &sent, -1) == 0);
        REQUIRE(helperlink_receive(ends[1], true, &got, &fd) == 0);
        cr_assert_eq(fd, -1);
        cr_assert_eq(memcmp(&sent, &got, sizeof(sent)), 0);
        end();
}

TEST(helperlink, a_descriptor_arrives_as_the_same_open_file_that_closes_on_exec) {
        HelperPacket packet = { .op = HELPER_SEAL };
        int fd = memfd_create("test", MFD_CLOEXEC), got;

        begin();
        REQUIRE(fd >= 0 && write(fd, "abc", 3) == 3);
        REQUIRE(helperlink_send(ends[0], &packet, fd) == 0);
        REQUIRE(helperlink_receive(ends[1], false, &packet, &got) == 0);
        cr_assert(got >= 0 && got != fd);
        cr_assert_eq(lseek(got, 0, SEEK_CUR), 3, "an offset of its own: not the same description");
        cr_assert(fcntl(got, F_GETFD) & FD_CLOEXEC);
        got = close_fd(got);
        fd = close_fd(fd);
        end();
}

TEST(helperlink, without_waiting_nothing_to_read_is_said) {
        HelperPacket packet;
        int fd;

        begin();
        cr_assert_eq(helperlink_receive(ends[1], false, &packet, &fd), HELPERLINK_E_AGAIN);
        cr_assert_eq(fd, -1);
        end();
}

TEST(helperlink, sending_never_waits) {
        HelperPacket packet = { .op = HELPER_DONE };
        int r = 0;

        begin();
        for (int i = 0; i < 100000 && r == 0; ++i)
                r = helperlink_send(ends[0], &packet, -1);
        cr_assert_eq(r, HELPERLINK_E_AGAIN);
        end();
}

TEST(helperlink, the_other_sides_end_is_seen_on_both_ways) {
        HelperPacket packet = { .op = HELPER_DONE };
        int fd;

        begin();
        ends[0] = close_fd(ends[0]);
        cr_assert_eq(helperlink_receive(ends[1], true, &packet, &fd), HELPERLINK_E_GONE);
        cr_assert_eq(helperlink_send(ends[1], &packet, -1), HELPERLINK_E_GONE);
        end();
}

TEST(helperlink, what_was_sent_before_the_end_is_still_read) {
        HelperPacket packet = { .op = HELPER_DONE, .serial = 5 };
        int fd;

        begin();
        REQUIRE(helperlink_send(ends[0], &packet, -1) == 0);
        ends[0] = close_fd(ends[0]);
        cr_assert_eq(helperlink_receive(ends[1], true, &packet, &fd), 0);
        cr_assert_eq(helperlink_receive(ends[1], true, &packet, &fd), HELPERLINK_E_GONE);
        end();
}

TEST(helperlink, packets_of_another_size_are_refused_and_their_descriptors_closed) {
        static const size_t sizes[] = { 1, sizeof(HelperPacket) - 1, sizeof(HelperPacket) + 1, 4096 };
        static char bytes[4096];
        HelperPacket packet;
        int fd;

        begin();
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
                send_raw(bytes, sizes[i], &ends[0], 1);
                cr_assert_eq(helperlink_receive(ends[1], false, &packet, &fd), HELPERLINK_E_VIOLATION, "%zu", sizes[i]);
                cr_assert_eq(fd, -1);
        }
        end();
}

TEST(helperlink, of_several_descriptors_none_is_left_behind) {
        HelperPacket packet = { .op = HELPER_SEAL };
        int fd, r;

        begin();
        for (size_t n = 2; n <= 3; ++n) {
                send_raw(&packet, sizeof(packet), (const int[]){ 0, 1, 2 }, n);
                r = helperlink_receive(ends[1], false, &packet, &fd);
                cr_assert(r == 0 || r == HELPERLINK_E_VIOLATION, "%d", r);
                fd = close_fd(fd);
        }
        end();
}

TEST(helperlink, what_is_enclosed_is_nowhere_else_and_is_closed_by_whoever_takes_it_out) {
        int pair[2], fd;
        char byte;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        fd = pair[0];
        cr_assert_eq(helperlink_enclose(&fd), 0);
        cr_assert_eq(recv(pair[1], &byte, 1, MSG_DONTWAIT), -1);
        cr_assert_eq(errno, EAGAIN, "it is open");
        cr_assert_eq(helperlink_close_enclosed(fd), 0);
        cr_assert_eq(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0, "it is closed");
        cr_assert_lt(helperlink_close_enclosed(fd), 0, "there is nothing any more");
        close_fd(fd);
        close_fd(pair[1]);
        fd = -1;
        cr_assert_eq(helperlink_close_enclosed(fd), -EBADF);
}

TEST(helperlink, what_is_enclosed_ends_with_what_encloses_it) {
        int pair[2], fd;
        char byte;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        fd = pair[0];
        cr_assert_eq(helperlink_enclose(&fd), 0);
        close_fd(fd);
        cr_assert_eq(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
        close_fd(pair[1]);
}
