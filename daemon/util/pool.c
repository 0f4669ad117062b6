/* Pools: see the header for the model. */

#include "util/pool.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "buildinfo.h"
#include "base/assert.h"
#include "util/area.h"

void pool_init(Pool *pool, size_t size) {
        ASSERT(size > 0 && size % sizeof(void *) == 0 && size <= AREA_BYTES / 2);
        *pool = (Pool){ .size = size };
        list_init(&pool->areas);
}

#ifdef SHMD_SANITIZERS

void pool_deinit(Pool *pool) {
        ASSERT(pool->n == 0);
}

void *pool_take(Pool *pool) {
        void *object = malloc(pool->size);

        pool->n += object != NULL;
        return object;
}

void pool_give(Pool *pool, void *object) {
        pool->n -= object != NULL;
        free(object);
}

#else

typedef struct Object Object;

/* One that is not taken. */
struct Object {
        Object *next;
};

/* The head of an area; its objects follow, at the next multiple of a line. */
typedef struct Area {
        List link;              /* in the pool's, if it has room */
        Object *free;
        size_t n_touched;       /* objects that ever were taken */
        size_t n;               /* that are */
} Area;

#define HEAD_BYTES 64U

/* What is left of an object that was given back: no pointer, and no number anybody expects. */
#define POISON 0xd5

_Static_assert(sizeof(Area) <= HEAD_BYTES, "the objects come after it");

static size_t area_room(const Pool *pool) {
        return (AREA_BYTES - HEAD_BYTES) / pool->size;
}

static Area *area_of(void *object) {
        return (Area *)((uintptr_t)object & ~(uintptr_t)(AREA_BYTES - 1));
}

static Area *area_new(Pool *pool) {
        Area *area = area_map(AREA_BYTES, pool->n_areas >= POOL_SMALL_AREAS);

        if (!area)
                return NULL;
        *area = (Area){ .free = NULL };
        list_init(&area->link);
        list_append(&pool->areas, &area->link);
        ++pool->n_areas;
        return area;
}

static void area_free(Pool *pool, Area *area) {
        list_unlink(&area->link);
        --pool->n_areas;
        area_unmap(area, AREA_BYTES);
}

void pool_deinit(Pool *pool) {
        Area *area;

        ASSERT(pool->n == 0);
        list_for_each(area, &pool->areas, Area, link)
                area_free(pool, area);
        ASSERT(pool->n_areas == 0);
}

void *pool_take(Pool *pool) {
        Area *area = list_first(&pool->areas, Area, link);
        void *object;

        if (!area)
                area = area_new(pool);
        if (!area)
                return NULL;
        if (area->free) {
                object = area->free;
                area->free = area->free->next;
        } else {
                object = (char *)area + HEAD_BYTES + area->n_touched++ * pool->size;
        }
        ++pool->n;
        if (++area->n == area_room(pool))
                list_unlink(&area->link);
        return object;
}

/* Whether there is another one with room. */
static bool is_spare(const Pool *pool, const Area *area) {
        return pool->areas.next != &area->link || pool->areas.previous != &area->link;
}

void pool_give(Pool *pool, void *object) {
        Object *given = object;
        Area *area;

        if (!object)
                return;
        area = area_of(object);
        memset(object, POISON, pool->size);
        given->next = area->free;
        area->free = given;
        --pool->n;
        if (area->n-- == area_room(pool))
                list_append(&pool->areas, &area->link);
        if (area->n == 0 && is_spare(pool, area))
                area_free(pool, area);
}

#endif
