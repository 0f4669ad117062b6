/* client/ctl/copy: every byte arrives, in its place, whatever the pieces it comes in. */

#include "buildinfo.h"

#include "lib/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/ctl/copy.h"

/* Each 8-byte word says where it stands: a piece that is lost, doubled or moved shows. */
static int patterned_file(uint64_t size) {
        int fd = memfd_create("input", MFD_CLOEXEC);
        uint64_t *words;

        REQUIRE(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
        if (!size)
                return fd;
        words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REQUIRE(words != MAP_FAILED);
        for (uint64_t i = 0; i < size / 8; ++i)
                words[i] = i;
        memset((char *)words + size / 8 * 8, 0xa5, size % 8);
        (void)munmap(words, size);
        return fd;
}

static bool same_content(int a, int b, uint64_t size) {
        char *left, *right;
        bool same;

        if (!size)
                return true;
        left = mmap(NULL, size, PROT_READ, MAP_SHARED, a, 0);
        right = mmap(NULL, size, PROT_READ, MAP_SHARED, b, 0);
        REQUIRE(left != MAP_FAILED && right != MAP_FAILED);
        same = memcmp(left, right, size) == 0;
        (void)munmap(left, size);
        (void)munmap(right, size);
        return same;
}

typedef struct Feed {
        int from;
        int to;
        uint64_t size;
        size_t piece;
} Feed;

/* A child that writes a file into a pipe, in pieces that fit no page. */
static pid_t feed_spawn(const Feed *f) {
        char piece[8191];
        pid_t pid = fork();

        REQUIRE(pid >= 0);
        if (pid)
                return pid;
        for (uint64_t at = 0; at < f->size;) {
                ssize_t n = pread(f->from, piece, f->piece, (off_t)at);

                if (n <= 0 || write(f->to, piece, (size_t)n) != n)
                        _exit(1);
                at += (uint64_t)n;
        }
        _exit(0);
}

static uint64_t blocks_of(int fd) {
        struct stat st;

        REQUIRE(fstat(fd, &st) == 0);
        return (uint64_t)st.st_blocks * 512;
}

static void spool_round_trip(uint64_t size, size_t piece) {
        Progress progress = { 0 };
        Spool spool = SPOOL_NULL;
        int input = patterned_file(size), output = memfd_create("output", MFD_CLOEXEC), fds[2];
        pid_t pid;

        REQUIRE(output >= 0 && ftruncate(output, (off_t)size) == 0);
        REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
        pid = feed_spawn(&(Feed){ .from = input, .to = fds[1], .size = size, .piece = piece });
        (void)close(fds[1]);

        REQUIRE(spool_init(&spool) == 0);
        REQUIRE(spool_take(&spool, fds[0], UINT64_MAX, &progress) == 0);
        REQUIRE(spool.ended && spool.size == size && progress.done == size);
        REQUIRE(test_wait_pid(pid) == 0);
        REQUIRE(same_content(input, spool.fd, size));

        REQUIRE(spool_move(&spool, output, &progress) == 0);
        REQUIRE(same_content(input, output, size), "%llu bytes differ", (unsigned long long)size);
        REQUIRE(blocks_of(spool.fd) == 0, "the spool kept its memory");

        spool_deinit(&spool);
        (void)close(fds[0]);
        (void)close(output);
        (void)close(input);
}

TEST(ctl_copy, input_of_unknown_length_arrives_whole) {
        static const uint64_t sizes[] = {
                0, 1, 4095, 4096, 4097, COPY_WINDOW - 1, COPY_WINDOW, COPY_WINDOW + 1, 3 * COPY_WINDOW + 12345,
        };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i)
                spool_round_trip(sizes[i], 8191);
        spool_round_trip(4097, 1);
}

TEST(ctl_copy, a_spool_pauses_where_it_was_told_to_and_goes_on) {
        Progress progress = { 0 };
        Spool spool = SPOOL_NULL;
        int input = patterned_file(3 * COPY_WINDOW);

        REQUIRE(spool_init(&spool) == 0);
        REQUIRE(spool_take(&spool, input, COPY_WINDOW - 1, &progress) == 0);
        REQUIRE(!spool.ended && spool.size == COPY_WINDOW);
        REQUIRE(spool_take(&spool, input, UINT64_MAX, &progress) == 0);
        REQUIRE(spool.ended && spool.size == 3 * COPY_WINDOW);
        REQUIRE(same_content(input, spool.fd, spool.size));
        spool_deinit(&spool);
        (void)close(input);
}

static void fill(uint64_t size, uint64_t wanted, int expected) {
        Progress progress = { 0 };
        int input = patterned_file(size), output = memfd_create("output", MFD_CLOEXEC);
        char *address;

        REQUIRE(output >= 0 && ftruncate(output, (off_t)wanted) == 0);
        address = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_SHARED, output, 0);
        REQUIRE(address != MAP_FAILED);
        REQUIRE(copy_fill(input, address, wanted, &progress) == expected);
        if (!expected)
                REQUIRE(same_content(input, output, wanted) && progress.done == wanted);
        (void)munmap(address, wanted);
        (void)close(output);
        (void)close(input);
}

TEST(ctl_copy, input_of_known_length_arrives_whole) {
        fill(1, 1, 0);
        fill(4097, 4097, 0);
        fill(COPY_WINDOW, COPY_WINDOW, 0);
        fill(2 * COPY_WINDOW + 4097, 2 * COPY_WINDOW + 4097, 0);
}

TEST(ctl_copy, no_more_is_read_than_was_asked_for) {
        fill(8192, 4096, 0);
}

TEST(ctl_copy, input_that_ends_early_is_an_error) {
        fill(4095, 4096, -ENODATA);
        fill(COPY_WINDOW, 2 * COPY_WINDOW, -ENODATA);
}

TEST(ctl_copy, a_non_blocking_input_is_waited_for) {
        Progress progress = { 0 };
        Spool spool = SPOOL_NULL;
        int input = patterned_file(100000), fds[2];
        pid_t pid;

        REQUIRE(pipe2(fds, O_CLOEXEC) == 0 && fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
        pid = feed_spawn(&(Feed){ .from = input, .to = fds[1], .size = 100000, .piece = 777 });
        (void)close(fds[1]);
        REQUIRE(spool_init(&spool) == 0);
        REQUIRE(spool_take(&spool, fds[0], UINT64_MAX, &progress) == 0);
        REQUIRE(spool.size == 100000 && same_content(input, spool.fd, 100000));
        REQUIRE(test_wait_pid(pid) == 0);
        spool_deinit(&spool);
        (void)close(fds[0]);
        (void)close(input);
}

TEST(ctl_copy, an_output_nobody_reads_any_more_is_epipe) {
        void (*before)(int) = signal(SIGPIPE, SIG_IGN);
        int fds[2];

        REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
        (void)close(fds[0]);
        cr_assert_eq(copy_write(fds[1], "x", 1), -EPIPE);
        (void)close(fds[1]);
        (void)signal(SIGPIPE, before);
}
