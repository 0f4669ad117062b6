/* Moving bytes between descriptors and regions, each byte once.
 *
 * Into a region: read(2) straight into its mapping, whose pages are allocated window by window
 * with MADV_POPULATE_WRITE, so that a shortage of memory is an error and not SIGBUS, and nothing
 * passes through a buffer. (sendfile(2) into a memfd goes page by page and takes five times as
 * long.) Out of one: write(2) straight from its mapping; splice(2) would save that copy too, but
 * the pages in the pipe would stay the region's, change under the reader, and keep it held.
 *
 * Input of unknown length goes through a *spool*, a memfd of our own that grows with it. When
 * the end is reached the region is made in its exact size, and the spool is written into it and
 * its pages are given back step by step: the peak is the length and one window, never twice the
 * length.
 *
 * Functions return 0 or a positive number, or a negative errno.
 */
#ifndef CLIENT_CTL_COPY_H
#define CLIENT_CTL_COPY_H

#include "client/ctl/progress.h"

#define COPY_WINDOW (UINT64_C(8) << 20)

/* Reads exactly n bytes of in to address, the start of a mapping. -ENODATA: it ended before. */
int copy_fill(int in, char *address, uint64_t n, Progress *progress);

/* Writes n bytes, which may be in a mapping. */
int copy_write(int out, const char *bytes, size_t n);

typedef struct Spool {
        int fd;
        uint64_t size;          /* bytes so far */
        bool ended;             /* the input has no more */
} Spool;

#define SPOOL_NULL { .fd = -1 }

int spool_init(Spool *spool);
void spool_deinit(Spool *spool);

/* Takes input until it ends, or until the spool holds more than `pause` bytes. */
int spool_take(Spool *spool, int in, uint64_t pause, Progress *progress);

/* Moves the whole spool to the start of out, and gives its memory back on the way. */
int spool_move(Spool *spool, int out, Progress *progress);

#endif
