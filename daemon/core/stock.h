/* A stock of memory that regions are made of, while many are made.
 *
 * The dearest of what it takes to make a region is to tell the store of descriptors of its memory before
 * anybody is told of it: a packet for each. But it need not be a packet for each, and need not be when
 * somebody waits: what a memfd is made of (the file, its mode, a description of our own, its place in the
 * store) can be had before anything is known of the region. So while regions are made one after the other,
 * each that is made owes the stock another memfd, which is made when the answer has left, and a block of
 * them goes to the store in one packet:
 *
 *      next  --the block is full: one packet-->  ready  --a size, and seals-->  a region
 *
 * What is ready has the number of the region that it will be, which is the name it has in the store. So
 * numbers are not always in the order in which regions were made; they are used once, as ever.
 *
 * There is no stock until a burst begins, and none a moment after it has ended: what it had is given back
 * to the kernel. If this process dies, its heir finds empty memory in the store that is no region's, and lets
 * it go. A memfd comes into the stock new and leaves it once: what has ever been anybody's is never in it. It
 * costs nobody's limits, as it is bounded, and empty.
 */
#ifndef CORE_STOCK_H
#define CORE_STOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/deadline.h"
#include "util/fdstore.h"

/* Memfds that go to the store at once. */
#define STOCK_BLOCK ((size_t)FDSTORE_SEVERAL_MAX)
/* Descriptors that it has at most, here and in the store. */
#define STOCK_DESCRIPTORS (2 * STOCK_BLOCK)
/* So many regions made in that time are a burst; it is over when there are fewer than a block. */
#define STOCK_BURST 32
#define STOCK_NS (50 * NSEC_PER_MSEC)

typedef struct Regions Regions;

/* Memory of mode 0600 and the system's pages, without size and seals. */
typedef struct Unborn {
        uint64_t id;            /* the region's */
        uint64_t inode;         /* 0 where nothing is saved */
        int fd;
} Unborn;

typedef struct StockBlock {
        Unborn unborn[STOCK_BLOCK];
        size_t first;           /* of those that are left */
        size_t n;               /* where they end */
} StockBlock;

typedef struct Stock {
        bool allowed;           /* there are descriptors for it */
        bool open;
        unsigned int n_recent;  /* regions made since `since` */
        size_t n_owed;          /* to be made */
        uint64_t since;
        StockBlock ready, next;
        Deadline due;
} Stock;

/* A region is about to be made, of what a stock may have. Return: whether it has that. */
bool stock_wanted(Regions *regions);

/* The number of the region that what is ready first is for; stock_wanted() said that there is. */
static inline uint64_t stock_number(const Stock *stock) {
        return stock->ready.unborn[stock->ready.first].id;
}
/* Takes that. Its descriptor is the caller's, and the store has it under the number's name. */
Unborn stock_take(Stock *stock);

/* Makes what is owed. For when the answer has left: who asked does not wait for it then. */
void stock_make(Regions *regions);

/* Gives all that it has back. */
void stock_close(Regions *regions);

#endif
