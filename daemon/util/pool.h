/* Pools: memory for many objects of one size.
 *
 * What there is a million of is worth a place without a header of the allocator's, and one that a request
 * in steady state gets without asking anybody. Objects lie in areas (util/area.h), which get their
 * memory page by page as objects are touched for the first time; an object that was given back is taken again
 * before a new one is touched. An area in which nothing is left goes, unless it is the only one with room.
 *
 * From the fifth area on the kernel is asked for huge pages: with hundreds of megabytes of objects in small
 * ones, it costs more to find out where an object is than to fetch it. To be given one, and to let an area go,
 * is the longest step there is: the kernel takes about 0.2 ms for either. (In the guest of a hypervisor that has
 * yet to find the memory itself, the first touch of a huge page took 4.5 ms.)
 *
 * What is given back is overwritten. With sanitizers each object is the allocator's, so that they see what
 * is used after it was given back.
 */
#ifndef UTIL_POOL_H
#define UTIL_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

/* Areas without huge pages. */
#define POOL_SMALL_AREAS 4

typedef struct Pool {
        size_t size;            /* of an object */
        List areas;             /* that have room */
        uint64_t n_areas;
        uint64_t n;             /* objects that are taken */
} Pool;

/* The size is a multiple of what an object must be aligned to, and of 8. */
void pool_init(Pool *pool, size_t size);
/* All objects must have been given back. */
void pool_deinit(Pool *pool);

/* Return: an object with whatever was in it, NULL without memory. */
void *pool_take(Pool *pool);
/* NULL is fine. */
void pool_give(Pool *pool, void *object);

#endif
