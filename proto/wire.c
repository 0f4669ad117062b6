/* Packets: see the header for the model. */

#include "proto/wire.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/assert.h"

/* The kernel puts descriptors into whatever fits the control buffer *with its padding*: a
 * buffer for n can receive n + 1 (unix(7) does not say so, put_cmsg() does). */
#define CONTROL_FDS (FDLIST_MAX + 1)

typedef union Control {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(CONTROL_FDS * sizeof(int))];
} Control;

void wire_put_header(void *packet, size_t length, uint16_t kind, uint16_t n_fds, uint64_t serial) {
        WireHeader header = {
                .length = htole32((uint32_t)length),
                .kind = htole16(kind),
                .n_fds = htole16(n_fds),
                .serial = htole64(serial),
        };

        memcpy(packet, &header, sizeof(header));
}

void wire_get_header(const void *packet, WireHeader *ret) {
        memcpy(ret, packet, sizeof(*ret));
        ret->length = le32toh(ret->length);
        ret->kind = le16toh(ret->kind);
        ret->n_fds = le16toh(ret->n_fds);
        ret->serial = le64toh(ret->serial);
}

/* Moves what the kernel delivered into the list, whatever became of the packet itself. */
static int collect_fds(struct msghdr *msg, FdList *fds) {
        int result = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                size_t n;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; ++i) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                        if (fdlist_consume(fds, fd))
                                result = WIRE_E_LOST_FDS;
                }
        }
        return result;
}

/* Both an empty packet and the end read as 0 bytes; but the end goes on reading so. */
static bool is_over(int fd) {
        char byte;

        return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

/* Is it a whole packet whose header says so? */
static int check_packet(const void *packet, size_t n, int flags, WireHeader *ret) {
        if (flags & MSG_TRUNC)
                return WIRE_E_TOO_LARGE;
        if (n < sizeof(*ret))
                return WIRE_E_VIOLATION;
        wire_get_header(packet, ret);
        return ret->length == n ? 0 : WIRE_E_VIOLATION;
}

/* Nothing came. */
static int receive_error(void) {
        if (errno == EAGAIN || errno == EINTR)
                return WIRE_E_AGAIN;
        return errno == ECONNRESET ? WIRE_E_EOF : -errno;
}

static int receive(int fd, void *packet, size_t n_packet, FdList *fds, bool waits, WireHeader *ret) {
        struct iovec iov = { .iov_base = packet, .iov_len = n_packet };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        Control control;
        ssize_t n;
        int r = 0;

        ASSERT(!fds || fds->n == 0);

        if (fds) {
                msg.msg_control = control.bytes;
                msg.msg_controllen = sizeof(control.bytes);
        }

        do
                n = recvmsg(fd, &msg, (waits ? 0 : MSG_DONTWAIT) | MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR && !waits);
        if (n < 0)
                return receive_error();

        if (fds)
                r = collect_fds(&msg, fds);
        if (msg.msg_flags & MSG_CTRUNC)
                r = WIRE_E_LOST_FDS;
        if (r == 0 && n == 0)
                r = is_over(fd) ? WIRE_E_EOF : WIRE_E_EMPTY;
        else if (r == 0)
                r = check_packet(packet, (size_t)n, msg.msg_flags, ret);
        else if (check_packet(packet, (size_t)n, msg.msg_flags, ret))
                *ret = (WireHeader){ 0 };
        if (r == 0 && ret->n_fds != (fds ? fds->n : 0))
                r = WIRE_E_VIOLATION;
        if (r && fds)
                fdlist_deinit(fds);
        return r;
}

int wire_receive(int fd, void *packet, size_t n_packet, FdList *fds, WireHeader *ret) {
        return receive(fd, packet, n_packet, fds, false, ret);
}

int wire_receive_plain(int fd, void *packet, size_t n_packet, WireHeader *ret) {
        ssize_t n;
        int r;

        do
                n = recv(fd, packet, n_packet, MSG_DONTWAIT | MSG_TRUNC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return receive_error();
        if (n == 0)
                return is_over(fd) ? WIRE_E_EOF : WIRE_E_EMPTY;
        r = check_packet(packet, (size_t)n, (size_t)n > n_packet ? MSG_TRUNC : 0, ret);
        return r == 0 && ret->n_fds != 0 ? WIRE_E_VIOLATION : r;
}

int wire_await(int fd, void *packet, size_t n_packet, FdList *fds, WireHeader *ret) {
        return receive(fd, packet, n_packet, fds, true, ret);
}

int wire_send(int fd, const void *packet, size_t n_packet, const int *fds, size_t n_fds) {
        struct iovec iov = { .iov_base = (void *)packet, .iov_len = n_packet };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        Control control;
        ssize_t n;

        ASSERT(n_packet >= sizeof(WireHeader));
        ASSERT(n_fds <= FDLIST_MAX);

        if (n_fds) {
                struct cmsghdr *c = &control.align;

                msg.msg_control = control.bytes;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }

        do
                n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
                return 0;

        switch (errno) {
        case EAGAIN:
        case ENOBUFS:
                return WIRE_E_AGAIN;
        case EPIPE:
        case ECONNRESET:
        case ENOTCONN:
                return WIRE_E_EOF;
        case ETOOMANYREFS:
                return WIRE_E_BACKLOG;
        default:
                return -errno;
        }
}
