/* Moving bytes: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* What one call moves: enough to make the call's own cost vanish, little enough that a bar moves
 * and a signal is heard. */
#define STEP (UINT64_C(1) << 20)

/* Standard input and output may be non-blocking: somebody else's choice, and ours to respect. */
static int wait_ready(int fd, short events) {
        struct pollfd pollfd = { .fd = fd, .events = events };

        if (poll(&pollfd, 1, -1) < 0 && errno != EINTR)
                return -errno;
        return 0;
}

/* Return: bytes read, at least one; 0: the end. */
static ssize_t read_some(int in, char *address, size_t n) {
        for (;;) {
                ssize_t got = read(in, address, n);
                int r;

                if (got >= 0)
                        return got;
                if (errno == EINTR)
                        continue;
                if (errno != EAGAIN)
                        return -errno;
                r = wait_ready(in, POLLIN);
                if (r < 0)
                        return r;
        }
}

int copy_write(int out, const char *bytes, size_t n) {
        while (n > 0) {
                ssize_t put = write(out, bytes, n);
                int r;

                if (put >= 0) {
                        bytes += put;
                        n -= (size_t)put;
                } else if (errno == EAGAIN) {
                        r = wait_ready(out, POLLOUT);
                        if (r < 0)
                                return r;
                } else if (errno != EINTR) {
                        return -errno;
                }
        }
        return 0;
}

/* Allocates the pages that n bytes at address need. A kernel without the advice (before 5.14)
 * allocates them on the way; read(2) then fails with EFAULT where there is no memory. */
static int allocate(char *address, uint64_t n) {
        if (madvise(address, n, MADV_POPULATE_WRITE) == 0 || errno == EINVAL)
                return 0;
        return errno == EFAULT ? -ENOMEM : -errno;
}

static uint64_t min_u64(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

/* Reads until n bytes are there or the input ends. Return: how many came. */
static int64_t fill_window(int in, char *address, uint64_t n, Progress *progress) {
        uint64_t done = 0;
        int r;

        r = allocate(address, n);
        if (r < 0)
                return r;
        while (done < n) {
                ssize_t got = read_some(in, address + done, min_u64(n - done, STEP));

                if (got < 0)
                        return got == -EFAULT ? -ENOMEM : got;
                if (got == 0)
                        break;
                done += (uint64_t)got;
                progress_advance(progress, (uint64_t)got);
        }
        return (int64_t)done;
}

int copy_fill(int in, char *address, uint64_t n, Progress *progress) {
        for (uint64_t done = 0; done < n;) {
                uint64_t window = min_u64(n - done, COPY_WINDOW);
                int64_t got;

                got = fill_window(in, address + done, window, progress);
                if (got < 0)
                        return (int)got;
                if ((uint64_t)got < window)
                        return -ENODATA;
                done += window;
        }
        return 0;
}

/* -- the spool -------------------------------------------------------------------------- */

int spool_init(Spool *spool) {
        spool->fd = memfd_create("shmdctl-put", MFD_CLOEXEC);
        return spool->fd < 0 ? -errno : 0;
}

void spool_deinit(Spool *spool) {
        spool->fd = close_fd(spool->fd);
}

/* Grows the spool by one window, fills that, and cuts off what was not filled: then the input has
 * ended, so that a window always begins where the one before ended. */
static int take_window(Spool *spool, int in, Progress *progress) {
        int64_t got;
        char *window;

        if (ftruncate(spool->fd, (off_t)(spool->size + COPY_WINDOW)) < 0)
                return -errno;
        window = mmap(NULL, COPY_WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, spool->fd, (off_t)spool->size);
        if (window == MAP_FAILED)
                return -errno;

        got = fill_window(in, window, COPY_WINDOW, progress);
        (void)munmap(window, COPY_WINDOW);
        if (got < 0)
                return (int)got;

        spool->size += (uint64_t)got;
        spool->ended = (uint64_t)got < COPY_WINDOW;
        if (spool->ended && ftruncate(spool->fd, (off_t)spool->size) < 0)
                return -errno;
        return 0;
}

int spool_take(Spool *spool, int in, uint64_t pause, Progress *progress) {
        while (!spool->ended && spool->size <= pause) {
                int r;

                r = take_window(spool, in, progress);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int write_at(int out, const char *bytes, uint64_t n, uint64_t at) {
        for (uint64_t done = 0; done < n;) {
                ssize_t put = pwrite(out, bytes + done, n - done, (off_t)(at + done));

                if (put < 0 && errno == EINTR)
                        continue;
                if (put < 0)
                        return errno == ENOSPC ? -ENOMEM : -errno;
                done += (uint64_t)put;
        }
        return 0;
}

static int move_window(Spool *spool, int out, uint64_t at, uint64_t n) {
        char *window;
        int r;

        window = mmap(NULL, n, PROT_READ, MAP_SHARED, spool->fd, (off_t)at);
        if (window == MAP_FAILED)
                return -errno;
        r = write_at(out, window, n, at);
        (void)munmap(window, n);
        if (r < 0)
                return r;
        /* Up to the window's end, not the spool's: of a part of a page nothing is given back. */
        if (fallocate(spool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)COPY_WINDOW) < 0)
                return -errno;
        return 0;
}

int spool_move(Spool *spool, int out, Progress *progress) {
        for (uint64_t at = 0; at < spool->size; at += COPY_WINDOW) {
                uint64_t n = min_u64(spool->size - at, COPY_WINDOW);
                int r;

                r = move_window(spool, out, at, n);
                if (r < 0)
                        return r;
                progress_advance(progress, n);
        }
        return 0;
}
