/* What a keeper starts in the place of a broker, for tests/integration/keeper: a program that does what a
 * broker that was taken over might do. $SHMD_TEST_HOSTILE says what; where it does not end by itself it
 * waits to be killed.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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

/* Sends bytes with descriptors, however long it takes. */
static void say_with(const void *bytes, size_t n, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(253 * sizeof(int))];
        } control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
        struct iovec part = { .iov_base = (void *)bytes, .iov_len = n };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        if (n_fds) {
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        while (sendmsg(keeper, &message, MSG_NOSIGNAL | how) < 0)
                if (errno != EINTR && errno != ETOOMANYREFS && errno != EAGAIN)
                        _exit(9);
}

/* With so many copies of one. */
static void say_bytes(const void *bytes, size_t n, int fd, size_t n_fds) {
        int fds[253];

        for (size_t i = 0; i < n_fds; ++i)
                fds[i] = fd;
        say_with(bytes, n, fds, n_fds);
}

static void say(const char *text, int fd, size_t n_fds) {
        say_bytes(text, strlen(text), fd, n_fds);
}

static void say_several(const char *text, const int *fds, size_t n_fds) {
        say_with(text, strlen(text), fds, n_fds);
}

static int memory(void) {
        return memfd_create("evil", MFD_CLOEXEC);
}

static void store(const char *name, int fd) {
        char text[128];

        (void)snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
        say(text, fd, 1);
}

/* In one packet, names evil-FIRST and so on; which do not have to be as many as the descriptors. */
static void store_several(unsigned int first, size_t n_names, const int *fds, size_t n_fds) {
        char text[8192], *end = stpcpy(text, "FDSTORE=1");

        for (size_t i = 0; i < n_names; ++i)
                end += sprintf(end, "\nFDNAME=evil-%zu", first + i);
        (void)strcpy(end, "\nFDPOLL=0");
        say_several(text, fds, n_fds);
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

static void fill(int fds[static 253]) {
        int fd = memory();

        for (size_t i = 0; i < 253; ++i)
                fds[i] = fd;
}

/* Of what is no packet nothing is kept, whatever in it is good. */
static void do_mismatch(void) {
        static const struct {
                size_t n_names, n_fds;
        } cases[] = { { 0, 1 }, { 0, 16 }, { 1, 0 }, { 1, 2 }, { 2, 1 }, { 15, 16 }, { 16, 15 }, { 16, 0 }, { 16, 17 },
                      { 17, 16 }, { 17, 17 }, { 18, 18 }, { 16, 18 }, { 16, 253 }, { 100, 100 }, { 253, 253 } };
        int fds[253];

        fill(fds);
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i)
                store_several(0, cases[i].n_names, fds, cases[i].n_fds);
        say_several("FDSTORE=1\nFDNAME=evil-1\nFDNAME=evil:2\nFDNAME=evil-3", fds, 3);
        say_several("FDSTOREREMOVE=1\nFDNAME=evil-1\nFDNAME=evil:2", fds, 0);
        say_several("FDSTOREREMOVE=1\nFDNAME=evil-1\nFDNAME=evil-2", fds, 2);
        say_several("FDSTORE=1\nBARRIER=1\nFDNAME=evil-1\nFDNAME=evil-2", fds, 2);
}

/* One that is refused, for its name or for what it is, keeps the others from nothing; neither does a name that nothing
 * has keep others from being let go of. */
static void do_several(void) {
        int fds[253];

        fill(fds);
        store_several(0, 16, fds, 16);
        fds[20] = keeper;
        store_several(16, 16, fds + 16, 16);            /* not evil-20 */
        store_several(12, 16, fds + 32, 16);            /* evil-20 and no other */
        say_several("FDSTORE=1\nFDNAME=evil-40\nFDNAME=evil-41\nFDNAME=evil-40\nFDNAME=evil-42", fds + 60, 4);
        say_several("FDSTORE=1\nFDNAME=evil-50\nFDNAME=evil-51\nFDNAME=evil-52", fds + 64, 3);
        say_several("FDSTOREREMOVE=1\nFDNAME=evil-50\nFDNAME=evil-53\nFDNAME=evil-51\nFDNAME=evil-50\n"
                    "FDNAME=evil-52", fds, 0);
        say("FDSTOREREMOVE=1\nFDNAME=evil-0", -1, 0);
}

/* Stops its keeper, that is to be killed then, so that it is the next one who reads all this; and what that one finds
 * of the first packet it has read before, as if the keeper had been killed in the middle of it. */
static void do_leave(void) {
        char path[64], text[256] = "";
        int fds[253], stat;

        fill(fds);
        store_several(0, 8, fds, 8);
        be_done();
        if (kill(getppid(), SIGSTOP) < 0)
                _exit(9);
        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)getppid());
        do {
                stat = open(path, O_RDONLY | O_CLOEXEC);
                if (stat < 0 || read(stat, text, sizeof(text) - 1) < 0)
                        _exit(9);
                (void)close(stat);
        } while (!strstr(text, ") T "));
        store_several(0, 16, fds, 16);
        do_mismatch();
        do_several();
        fprintf(stderr, "hostile: left\n");
        for (;;)
                (void)pause();
}

static void do_full(void) {
        int fd = memory();
        char name[32];

        for (int i = 0; i < 1000; ++i) {
                (void)snprintf(name, sizeof(name), "evil-%d", i);
                store(name, fd);
        }
}

static void do_full_several(void) {
        int fds[253];

        fill(fds);
        for (unsigned int i = 0; i < 1000; i += 16)
                store_several(i, 16, fds, 16);
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
                { "heirs", do_heirs }, { "wake", do_wake }, { "mismatch", do_mismatch },
                { "several", do_several }, { "leave", do_leave }, { "full-several", do_full_several },
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
