/* What a keeper starts in the place of a broker, for tests/integration/keeper: a program that does what a
 * broker that was taken over might do. $SHMD_TEST_HOSTILE says what; where it does not end by itself it
 * waits to be killed.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int keeper = -1, waker = -1;
/* MSG_DONTWAIT: it never sleeps. */
static int how;

/* Sends bytes with so many copies of a descriptor, however long it takes. */
static void say_bytes(const void *bytes, size_t n, int fd, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(253 * sizeof(int))];
        } control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
        struct iovec part = { .iov_base = (void *)bytes, .iov_len = n };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        for (size_t i = 0; i < n_fds; ++i)
                memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd, sizeof(int));
        control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        if (n_fds) {
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        while (sendmsg(keeper, &message, MSG_NOSIGNAL | how) < 0)
                if (errno != EINTR && errno != ETOOMANYREFS && errno != EAGAIN)
                        _exit(9);
}

static void say(const char *text, int fd, size_t n_fds) {
        say_bytes(text, strlen(text), fd, n_fds);
}

static int memory(void) {
        return memfd_create("evil", MFD_CLOEXEC);
}

static void store(const char *name, int fd) {
        char text[128];

        (void)snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
        say(text, fd, 1);
}

/* Returns when the keeper has done all that it was told. */
static void be_done(void) {
        int fds[2];
        char byte;

        if (pipe(fds) < 0)
                _exit(9);
        say("BARRIER=1", fds[1], 1);
        (void)close(fds[1]);
        if (read(fds[0], &byte, 1) == 0)
                fprintf(stderr, "hostile: done\n");
}

/* -- what it does ------------------------------------------------------------------------------- */

static void do_garbage(void) {
        static const char *const texts[] = {
                "x", "=", "\n\n\n", "READY=2", "FDSTORE=1", "FDSTORE=1\nFDNAME=evil:1", "FDSTORE=1\nFDNAME=evil/1",
                "FDSTORE=1\nFDNAME=evil-1\nFDNAME=evil:2", "FDSTORE=1\nBARRIER=1\nFDNAME=evil-3",
                "FDSTOREREMOVE=1\nFDNAME=evil\x01", "BARRIER=1\nFDNAME=evil-4", "FDNAME=evil-5",
                "FDSTORE=1\nFDNAME=evil-6666666666666666666666666666666666",
        };
        char huge[65536];
        int fd = memory();

        memset(huge, 'A', sizeof(huge));
        for (size_t n_fds = 0; n_fds <= 253; n_fds = n_fds < 6 ? n_fds + 1 : n_fds + 50) {
                for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); ++i)
                        say(texts[i], fd, n_fds);
                say_bytes("READY=1\0", 8, fd, n_fds);
                say_bytes(huge, sizeof(huge), fd, n_fds);
                if (n_fds != 1)
                        say("FDSTORE=1\nFDNAME=evil-7", fd, n_fds);
        }
}

static void do_names(void) {
        int fd = memory();

        store("evil-1", fd);
        store("evil-2", fd);
        for (int i = 0; i < 1000; ++i)
                store("evil-1", memory());
        for (int i = 0; i < 1000; ++i)
                say("FDSTOREREMOVE=1\nFDNAME=evil-3", -1, 0);
        store("evil-4", fd);
        say("FDSTOREREMOVE=1\nFDNAME=evil-4", -1, 0);
        say("FDSTOREREMOVE=1\nFDNAME=evil-4", -1, 0);
}

/* Among them its own end of the socket to the keeper, which then would never read as ended. */
static void do_sockets(void) {
        int fds[2];

        store("evil-self", keeper);
        if (pipe(fds) == 0)
                store("evil-pipe", fds[0]);
        store("evil-null", open("/dev/null", O_RDONLY));
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0)
                store("evil-socket", fds[1]);
}

static void do_full(void) {
        int fd = memory();
        char name[32];

        for (int i = 0; i < 1000; ++i) {
                (void)snprintf(name, sizeof(name), "evil-%d", i);
                store(name, fd);
        }
}

static void do_flood(void) {
        be_done();
        for (;;)
                say("STATUS=evil\nX=1", -1, 0);
}

static void do_deaf(void) {
        be_done();
        (void)close(keeper);
        for (;;)
                (void)pause();
}

/* Wakes the keeper for nothing, and takes what it wrote away again, so that there is nothing for the keeper to read. */
static void do_wake(void) {
        uint64_t n = 1;

        be_done();
        (void)fcntl(waker, F_SETFL, 0);
        (void)close(keeper);
        for (int i = 0; i < 50000; ++i) {
                (void)!write(waker, &n, sizeof(n));
                (void)!read(waker, &n, sizeof(n));
                n = 1;
        }
        for (;;)
                (void)pause();
}

/* Leaves the socket to processes that go on when the broker is gone, and say what takes the keeper longer. */
static void do_heirs(void) {
        be_done();
        how = MSG_DONTWAIT;
        for (int i = 0; i < 16; ++i)
                if (fork() == 0)
                        for (;;)
                                say("BARRIER=1", keeper, 1);
        (void)usleep(200000);
        _exit(7);
}

int main(void) {
        static const struct {
                const char *name;
                void (*fn)(void);
        } deeds[] = {
                { "garbage", do_garbage }, { "names", do_names }, { "sockets", do_sockets },
                { "full", do_full }, { "flood", do_flood }, { "deaf", do_deaf },
                { "heirs", do_heirs }, { "wake", do_wake },
        };
        const char *left = getenv("SHMD_KEEPER"), *what = getenv("SHMD_TEST_HOSTILE");

        if (!left || !what || sscanf(left, "%d %*d %*d %*u %d", &keeper, &waker) != 2)
                return 1;
        say("READY=1", -1, 0);
        for (size_t i = 0; i < sizeof(deeds) / sizeof(*deeds); ++i)
                if (!strcmp(deeds[i].name, what))
                        deeds[i].fn();
        be_done();
        for (;;)
                (void)pause();
}
