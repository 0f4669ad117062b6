/* floor: the least that an operation can cost, for shmd to be measured against.
 *
 * A server for one client, which is connected to its standard input. It blocks in its receive, allocates nothing,
 * knows no names, asks nobody whether it may, and makes no system calls but those that somebody has to make:
 *
 *      echo    receive, be busy for as long as it is told, send with a descriptor that it has
 *      open    receive, re-open, send with that descriptor, close
 *      create  receive, memfd_create, ftruncate, fchmod, seals, re-open for itself, close of the one it was
 *              created with, re-open for the client, send with that descriptor, close
 *
 * Requests and answers are packets of the protocol, as long as the broker's, so that the same client can drive
 * both; of a request it reads the header, and an echo the nanoseconds behind it. An unlink, which is not measured,
 * ends the region that was made first. open takes one of MEMFDS, read-only, in an order that looks random.
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
#include <time.h>
#include <unistd.h>

#include "base/digits.h"
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
static struct {
        WireHeader header;
        uint8_t body[WIRE_REPLY_MAX - sizeof(WireHeader)];
} request, reply;
static size_t n_reply;

static int must(int r, const char *what) {
        if (r < 0) {
                perror(what);
                exit(EXIT_FAILURE);
        }
        return r;
}

static int reopen(int fd, int mode) {
        char text[DIGITS_MAX + 1] = "", *name = digits_before(&text[DIGITS_MAX], (uint64_t)fd, 10);

        return must(openat(directory, name, mode | O_CLOEXEC | O_NONBLOCK), "openat");
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

static void answer(size_t length, int fd) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
        struct iovec iov = { .iov_base = &reply, .iov_len = length };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = fd >= 0 ? &control : NULL,
                              .msg_controllen = fd >= 0 ? sizeof(control) : 0 };

        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        reply.header = (WireHeader){ .length = htole32((uint32_t)length), .n_fds = htole16(fd >= 0),
                                     .kind = request.header.kind | htole16(MESSAGE_REPLY),
                                     .serial = request.header.serial };
        must((int)sendmsg(STDIN_FILENO, &msg, MSG_NOSIGNAL), "sendmsg");
}

/* By a clock that is no system call. */
static uint64_t now_ns(void) {
        struct timespec now;

        must(clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void serve_echo(void) {
        uint64_t began = now_ns(), ns;

        memcpy(&ns, request.body, sizeof(ns));
        while (now_ns() - began < ns)
                continue;
        answer(n_reply, memfds[0]);
}

static void serve_open(void) {
        int fd = reopen(memfds[le64toh(request.header.serial) * 7919 % n_memfds], O_RDONLY);

        answer(n_reply, fd);
        must(close(fd), "close");
}

static void serve_create(void) {
        int fd;

        if (request.header.kind == htole16(MESSAGE_UNLINK)) {
                must(close(memfds[n_ended++ % MOST]), "close");
                answer(sizeof(reply.header), -1);
                return;
        }
        memfds[n_made % MOST] = make();
        fd = reopen(memfds[n_made++ % MOST], O_RDWR);
        answer(n_reply, fd);
        must(close(fd), "close");
}

int main(int argc, char **argv) {
        const char *kind = argc > 2 ? argv[1] : "";
        void (*serve)(void) = !strcmp(kind, "echo") ? serve_echo : !strcmp(kind, "open") ? serve_open :
                              !strcmp(kind, "create") ? serve_create : NULL;

        n_reply = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
        n_memfds = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
        if (!serve || n_reply < sizeof(reply.header) || n_reply > sizeof(reply) || n_memfds - 1 >= MOST) {
                fprintf(stderr, "Usage: floor echo|open|create REPLY-BYTES [MEMFDS] <&SOCKET\n");
                return 64;
        }
        directory = must(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC), "/proc/self/fd");
        if (memfd_create("probe", flags) < 0)
                flags &= ~MFD_NOEXEC_SEAL;
        for (size_t i = 0; serve != serve_create && i < n_memfds; ++i)
                memfds[i] = make();
        while (must((int)recv(STDIN_FILENO, &request, sizeof(request), 0), "recv") > 0)
                serve();
        return EXIT_SUCCESS;
}
