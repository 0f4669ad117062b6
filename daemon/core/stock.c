/* A stock of memory for regions: see the header for the model. */

#include "core/stock.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "core/region.h"
#include "util/memfd.h"

static bool block_is_empty(const StockBlock *block) {
        return block->first == block->n;
}

static void block_close(StockBlock *block, FdStore *store) {
        for (; !block_is_empty(block); ++block->first) {
                Unborn *unborn = &block->unborn[block->first];
                char name[FDSTORE_NAME_MAX];

                region_store_name(unborn->id, name);
                fdstore_remove(store, name);
                unborn->fd = close_fd(unborn->fd);
        }
        block->first = block->n = 0;
}

/* -- a burst ------------------------------------------------------------------------------ */

static void stock_due(Deadline *deadline, void *userdata) {
        Regions *regions = userdata;
        Stock *stock = &regions->stock;

        if (stock->n_recent < STOCK_BLOCK) {
                stock_close(regions);
                return;
        }
        stock->n_recent = 0;
        deadline_arm(deadline, regions->deadlines, time_now() + STOCK_NS, stock_due, regions);
}

/* What is looked at is the clock, not a deadline: who makes a region now and then shall not wake us later for it. */
static void look_for_burst(Regions *regions) {
        Stock *stock = &regions->stock;
        uint64_t now = time_now();

        if (now - stock->since > STOCK_NS) {
                stock->since = now;
                stock->n_recent = 0;
        }
        if (++stock->n_recent < STOCK_BURST || fdstore_most(regions->store) < STOCK_BLOCK)
                return;
        stock->open = true;
        stock->n_recent = 0;
        deadline_arm(&stock->due, regions->deadlines, now + STOCK_NS, stock_due, regions);
}

bool stock_wanted(Regions *regions) {
        Stock *stock = &regions->stock;

        if (!stock->allowed)
                return false;
        if (!stock->open) {
                look_for_burst(regions);
                return false;
        }
        ++stock->n_recent;
        stock->n_owed += stock->n_owed < STOCK_BLOCK;
        return !block_is_empty(&stock->ready);
}

Unborn stock_take(Stock *stock) {
        ASSERT(!block_is_empty(&stock->ready));
        return stock->ready.unborn[stock->ready.first++];
}

/* -- making ------------------------------------------------------------------------------- */

/* Its number is used up from here on, so that no broker after us takes it for another region while the store still has
 * this under its name. Return: whether there is one more. */
static bool make_one(Regions *regions) {
        StockBlock *next = &regions->stock.next;
        MemfdSpec spec = { .id = regions->last_id + 1 };
        Unborn *unborn = &next->unborn[next->n];

        if (memfd_begin(&spec, &unborn->fd))
                return false;
        unborn->id = ++regions->last_id;
        unborn->inode = regions->state ? memfd_inode(unborn->fd) : 0;
        counters_used(regions->counters, COUNTER_REGION, unborn->id);
        ++next->n;
        return true;
}

/* If the store has no room now, it is asked again when the next region was made. */
static void make_ready(Regions *regions) {
        StockBlock *next = &regions->stock.next;
        char names[STOCK_BLOCK][FDSTORE_NAME_MAX];
        int fds[STOCK_BLOCK];

        for (size_t i = 0; i < STOCK_BLOCK; ++i) {
                region_store_name(next->unborn[i].id, names[i]);
                fds[i] = next->unborn[i].fd;
        }
        if (fdstore_push_several(regions->store, names, fds, STOCK_BLOCK))
                return;
        regions->stock.ready = *next;
        next->n = 0;
}

void stock_make(Regions *regions) {
        Stock *stock = &regions->stock;

        if (stock->n_owed == 0)
                return;
        for (; stock->n_owed > 0 && stock->next.n < STOCK_BLOCK && make_one(regions); --stock->n_owed)
                ;
        /* What cannot be made now is not made up for. */
        stock->n_owed = 0;
        if (stock->next.n == STOCK_BLOCK && block_is_empty(&stock->ready))
                make_ready(regions);
}

void stock_close(Regions *regions) {
        Stock *stock = &regions->stock;

        block_close(&stock->ready, regions->store);
        block_close(&stock->next, NULL);
        deadline_disarm(&stock->due);
        stock->open = false;
        stock->n_recent = 0;
        stock->n_owed = 0;
}
