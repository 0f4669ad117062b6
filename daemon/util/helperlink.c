/* The helper's packets: see the header for the model. */

#include "util/helperlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "util/error.h"

typedef union Control {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
} Control;

int helperlink_send(int link, const HelperPacket *packet, int fd) {
        struct iovec part = { .iov_base = (void *)packet, .iov_len = sizeof(*packet) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
        Control control;
        ssize_t n;

        if (fd >= 0) {
                memset(&control, 0, sizeof(control));
                control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET,
                                                   .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(sizeof(fd));
        }
        do
                n = sendmsg(link, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
                return 0;
        if (errno == EAGAIN)
                return HELPERLINK_E_AGAIN;
        return errno == EPIPE || errno == ECONNRESET ? HELPERLINK_E_GONE : error_origin(-errno);
}

/* Room for one descriptor can take two in (cmsg alignment): all that came are taken, one is kept. */
static int take_descriptor(struct msghdr *message) {
        int fds[CMSG_SPACE(sizeof(int)) / sizeof(int)], kept = -1;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                memcpy(fds, CMSG_DATA(c), n * sizeof(int));
                for (size_t i = 0; i < n; ++i) {
                        kept = close_fd(kept);
                        kept = fds[i];
                }
        }
        return kept;
}

int helperlink_receive(int link, bool wait, HelperPacket *ret, int *ret_fd) {
        CLEANUP(close_fdp) int fd = -1;
        struct iovec part = { .iov_base = ret, .iov_len = sizeof(*ret) };
        Control control;
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n;

        *ret_fd = -1;
        do
                n = recvmsg(link, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN)
                return HELPERLINK_E_AGAIN;
        if (n < 0)
                return errno == ECONNRESET ? HELPERLINK_E_GONE : error_origin(-errno);
        fd = take_descriptor(&message);
        if (n == 0)
                return HELPERLINK_E_GONE;
        if ((size_t)n != sizeof(*ret) || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
                return HELPERLINK_E_VIOLATION;
        *ret_fd = steal_fd(&fd);
        return 0;
}

int helperlink_enclose(int *fd) {
        static const HelperPacket packet = { .op = HELPER_BURY };
        CLEANUP(close_fdp) int in = -1, out = -1;
        int pair[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return error_origin(-errno);
        in = pair[0];
        out = pair[1];
        r = helperlink_send(in, &packet, *fd);
        if (r)
                return r < 0 ? r : error_origin(-EAGAIN);
        (void)close_fd(*fd);
        *fd = steal_fd(&out);
        return 0;
}

int helperlink_close_enclosed(int socket) {
        HelperPacket packet;
        int fd, r;

        r = helperlink_receive(socket, false, &packet, &fd);
        if (r)
                return r < 0 ? r : error_origin(-EBADF);
        (void)close_fd(fd);
        return 0;
}
