/* Regions by their numbers: see the header for the model. */

#include "core/regionindex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "core/region.h"
#include "util/error.h"
#include "util/spare.h"

/* Of the array, at first. */
#define ROOM_LEAST 16

/* The block that has the number, if any has: the last that may, or else the first. There is one. */
static size_t block_for(const RegionIndex *index, uint64_t id) {
        size_t low = 0, high = index->n_blocks;

        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;

                if (index->blocks[middle].least <= id)
                        low = middle;
                else
                        high = middle;
        }
        return low;
}

/* The place in a block of the first region with that number or a higher one. */
static uint32_t place_for(const RegionBlock *block, uint64_t id) {
        uint32_t low = 0, high = block->n;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (block->regions[middle]->id < id)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* -- the array -------------------------------------------------------------------------- */

static int resize(RegionIndex *index, size_t n_room) {
        RegionBlockAt *blocks = realloc(index->blocks, n_room * sizeof(*blocks));

        if (!blocks)
                return error_origin(-ENOMEM);
        index->blocks = blocks;
        index->n_room = n_room;
        return 0;
}

/* Puts an empty block at a place in the array; the caller fills it. Return: NULL without memory. */
static RegionBlock *block_new(RegionIndex *index, size_t at, uint64_t least) {
        RegionBlock *block;

        if (index->n_blocks == index->n_room && resize(index, index->n_room ? 2 * index->n_room : ROOM_LEAST))
                return NULL;
        block = spare_take(sizeof(*block));
        if (!block)
                return NULL;
        block->n = 0;
        memmove(&index->blocks[at + 1], &index->blocks[at], (index->n_blocks - at) * sizeof(*index->blocks));
        index->blocks[at] = (RegionBlockAt){ .least = least, .block = block };
        ++index->n_blocks;
        return block;
}

static void block_free(RegionIndex *index, size_t at) {
        spare_give(index->blocks[at].block, sizeof(RegionBlock));
        --index->n_blocks;
        memmove(&index->blocks[at], &index->blocks[at + 1], (index->n_blocks - at) * sizeof(*index->blocks));
        if (index->n_room > ROOM_LEAST && index->n_blocks < index->n_room / 4)
                (void)resize(index, index->n_room / 2);
}

/* -- blocks ----------------------------------------------------------------------------- */

/* Moves the regions of a block from a place on to the end of another one. */
static void hand_over(RegionBlock *from, uint32_t place, RegionBlock *to) {
        memcpy(&to->regions[to->n], &from->regions[place], (from->n - place) * sizeof(Region *));
        to->n += from->n - place;
        from->n = place;
}

/* Makes one of a block and the one behind it, if the two have few. */
static void join(RegionIndex *index, size_t at) {
        RegionBlock *block, *next;

        if (at + 1 >= index->n_blocks)
                return;
        block = index->blocks[at].block;
        next = index->blocks[at + 1].block;
        if (block->n + next->n > REGION_BLOCK_JOIN)
                return;
        hand_over(next, 0, block);
        block_free(index, at + 1);
}

/* Makes room where a number belongs, in a block that is full. *at becomes the block's. Return: 0, -ENOMEM. */
static int make_room(RegionIndex *index, size_t *at, uint64_t id) {
        RegionBlock *full = index->blocks[*at].block, *next;
        bool behind = full->regions[REGION_BLOCK - 1]->id < id;
        uint64_t least = behind ? id : full->regions[REGION_BLOCK / 2]->id;

        next = block_new(index, *at + 1, least);
        if (!next)
                return error_origin(-ENOMEM);
        if (!behind)
                hand_over(full, REGION_BLOCK / 2, next);
        if (id >= least)
                ++*at;
        return 0;
}

int region_index_add(RegionIndex *index, Region *region) {
        uint64_t id = region->id;
        RegionBlock *block;
        uint32_t place;
        size_t at = 0;

        if (index->n_blocks == 0) {
                if (!block_new(index, 0, id))
                        return error_origin(-ENOMEM);
        } else {
                at = block_for(index, id);
                if (index->blocks[at].block->n == REGION_BLOCK && make_room(index, &at, id))
                        return error_origin(-ENOMEM);
        }

        block = index->blocks[at].block;
        if (id < index->blocks[at].least)
                index->blocks[at].least = id;
        place = place_for(block, id);
        ASSERT(place == block->n || block->regions[place]->id != id);
        memmove(&block->regions[place + 1], &block->regions[place], (block->n - place) * sizeof(Region *));
        block->regions[place] = region;
        ++block->n;
        return 0;
}

void region_index_remove(RegionIndex *index, const Region *region) {
        RegionBlock *block;
        uint32_t place;
        size_t at;

        ASSERT(index->n_blocks > 0);
        at = block_for(index, region->id);
        block = index->blocks[at].block;
        place = place_for(block, region->id);
        ASSERT(place < block->n && block->regions[place] == region);
        --block->n;
        memmove(&block->regions[place], &block->regions[place + 1], (block->n - place) * sizeof(Region *));
        if (block->n == 0) {
                block_free(index, at);
                return;
        }
        join(index, at);
        if (at > 0)
                join(index, at - 1);
}

Region *region_index_at_least(const RegionIndex *index, uint64_t id) {
        const RegionBlock *block;
        uint32_t place;
        size_t at;

        if (index->n_blocks == 0)
                return NULL;
        at = block_for(index, id);
        block = index->blocks[at].block;
        place = place_for(block, id);
        if (place < block->n)
                return block->regions[place];
        return at + 1 < index->n_blocks ? index->blocks[at + 1].block->regions[0] : NULL;
}

void region_index_deinit(RegionIndex *index) {
        ASSERT(index->n_blocks == 0);
        free(index->blocks);
        *index = (RegionIndex)REGION_INDEX_NULL;
}
