/* Regions by their numbers.
 *
 * Numbers are handed out in ascending order and never again, so what is new nearly always goes behind all
 * that there is. Regions stand in blocks, in order, and the blocks in one array with the lowest number that
 * each may have: to find one is two binary searches, and a region takes little more than one pointer. A block
 * that is full behind all others is followed by a new one; one that is full elsewhere (recovery finds regions
 * in any order) is split in halves. A block with little left in it becomes one with a neighbour, so that those
 * of many regions of which few are left do not stay.
 *
 * No operation takes long: it moves at most what a block has, and a part of the array, 16 bytes for each
 * block, which has 128 KiB when there are a million regions.
 */
#ifndef CORE_REGIONINDEX_H
#define CORE_REGIONINDEX_H

#include <stddef.h>
#include <stdint.h>

/* Regions in a block, which takes 1 KiB then. */
#define REGION_BLOCK 127
/* Two neighbours that have no more than that become one. */
#define REGION_BLOCK_JOIN 96

typedef struct Region Region;
typedef struct RegionBlock RegionBlock;
typedef struct RegionIndex RegionIndex;

struct RegionBlock {
        uint32_t n;             /* never 0 */
        Region *regions[REGION_BLOCK];
};

typedef struct RegionBlockAt {
        uint64_t least;         /* none in it has a lower number, and none before it has this or a higher one */
        RegionBlock *block;
} RegionBlockAt;

struct RegionIndex {
        RegionBlockAt *blocks;
        size_t n_blocks;
        size_t n_room;
};

#define REGION_INDEX_NULL { .blocks = NULL }

/* Must be empty. */
void region_index_deinit(RegionIndex *index);

/* There is none with its number yet. Return: 0, -ENOMEM. */
int region_index_add(RegionIndex *index, Region *region);
/* Is in it. */
void region_index_remove(RegionIndex *index, const Region *region);

/* The one with that number, or the next higher that there is; NULL: there is none. */
Region *region_index_at_least(const RegionIndex *index, uint64_t id);

#endif
