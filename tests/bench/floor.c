/* floor: the least that an operation can cost, for shmd to be measured against.
 *
 * A server for one client, which is connected to its standard input. It blocks in its receive, allocates nothing,
 * knows no names, asks nobody whether it may, and makes no system calls but those that somebody has to make:
 *
 *      echo    receive, send with a descriptor that it has
 *      open    receive, re-open, send with that descriptor, close
 *      create  receive, memfd_create, ftruncate, fchmod, seals, re-open for itself, close of the one it was
 *              created with, re-open for the client, send with that descriptor, close
 *
 * Requests and answers are packets of the protocol, as long as the broker's, so that the same client can drive
 * both; of a request it reads no more than the header. An unlink, which is not measured, ends the region that
 * was made first. open takes one of MEMFDS, read-only as it is asked to, in an order that looks random.
 *
 * `strace -c -p PID` shows those calls and no others; tests/bench/test-floor sees to that.
 */

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/message.h"
#include "proto/wire.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U         /* Linux 6.3 */
#endif

#define SEALS (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)
#define SIZE 4096
#define MOST 32768

static int memfds[MOST];                /* those of open, and those that create made and has not ended */
static size_t n_memfds = 1, n_made, n_ended;
static int directory;                   /* of its descriptors: from there, a name is looked up in a quarter less */
static unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL;
static uint8_t request[WIRE_REQUEST_MAX], reply[WIRE_REPLY_MAX];
static size_t n_reply;

static int must(int r, const char *what) {
        if (r < 0) {
                perror(what);
                exit(EXIT_FAILURE);
        }
        return r;
}

static int reopen(int fd, int mode) {
        char digits[12], *name = digits + sizeof(digits) - 1;

        *name = '\0';
        do
                *--name = (char)('0' + fd % 10);
        while (fd /= 10);
        return must(openat(directory, name, mode | O_CLOEXEC | O_NONBLOCK), name);
}

static int make(void) {
        int fd = must(memfd_create("floor", flags), "memfd_create"), own;

        must(ftruncate(fd, SIZE), "ftruncate");
        must(fchmod(fd, 0600), "fchmod");
        must(fcntl(fd, F_ADD_SEALS, SEALS), "seals");
        own = reopen(fd, O_RDWR);
        must(close(fd), "close");
        return own;
}

static ssize_t receive(WireHeader *header) {
        ssize_t n = recv(STDIN_FILENO, request, sizeof(request), 0);

        must((int)n, "recv");
        memcpy(header, request, sizeof(*header));
        return n;
}

static void answer(WireHeader header, size_t length, int fd) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
        struct iovec iov = { .iov_base = reply, .iov_len = length };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = fd >= 0 ? &control : NULL,
                              .msg_controllen = fd >= 0 ? sizeof(control) : 0 };

        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        header.length = htole32((uint32_t)length);
        header.kind |= htole16(MESSAGE_REPLY);
        header.n_fds = htole16(fd >= 0);
        memcpy(reply, &header, sizeof(header));
        must((int)sendmsg(STDIN_FILENO, &msg, MSG_NOSIGNAL), "sendmsg");
}

static void serve_echo(const WireHeader *header) {
        answer(*header, n_reply, memfds[0]);
}

static void serve_open(const WireHeader *header) {
        int fd = reopen(memfds[le64toh(header->serial) * 7919 % n_memfds], O_RDONLY);

        answer(*header, n_reply, fd);
        must(close(fd), "close");
}

static void serve_create(const WireHeader *header) {
        int own, fd;

        if (header->kind == htole16(MESSAGE_UNLINK)) {
                must(close(memfds[n_ended++ % MOST]), "close");
                answer(*header, sizeof(*header), -1);
                return;
        }
        own = make();
        fd = reopen(own, O_RDWR);
        memfds[n_made++ % MOST] = own;
        answer(*header, n_reply, fd);
        must(close(fd), "close");
}

int main(int argc, char **argv) {
        const char *kind = argc > 2 ? argv[1] : "";
        void (*serve)(const WireHeader *) = !strcmp(kind, "echo") ? serve_echo : !strcmp(kind, "open") ? serve_open :
                                            !strcmp(kind, "create") ? serve_create : NULL;
        int probe = memfd_create("floor", flags);
        WireHeader header;

        n_reply = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
        n_memfds = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
        if (!serve || n_reply < sizeof(header) || n_reply > sizeof(reply) || n_memfds - 1 >= MOST) {
                fprintf(stderr, "Usage: floor echo|open|create REPLY-BYTES [MEMFDS] <&SOCKET\n");
                return 64;
        }
        directory = must(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC), "/proc/self/fd");
        if (probe < 0)
                flags &= ~MFD_NOEXEC_SEAL;
        for (size_t i = 0; serve != serve_create && i < n_memfds; ++i)
                memfds[i] = make();
        while (receive(&header) > 0)
                serve(&header);
        return EXIT_SUCCESS;
}
