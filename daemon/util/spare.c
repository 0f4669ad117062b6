/* Spare memory: see the header for the model. */

#include "buildinfo.h"

#include "util/spare.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define SPARE_BYTE 0xdb
#define SIZES (SPARE_LARGEST / SPARE_STEP)

typedef struct Piece {
        struct Piece *next;
} Piece;

static struct {
        Piece *first;
        unsigned int n;
} kept[SIZES];

/* A piece that is given back as one of another size would be taken for what it is not: with sanitizers, which
 * keep none, the allocator knows. */
static void expect_size(void *memory, size_t n) {
#ifdef SHMD_SANITIZERS
        ASSERT(n == 0 || malloc_usable_size(memory) == n);
#else
        (void)memory;
        (void)n;
#endif
}

/* Return: which of the sizes has room for n bytes; SIZES: none has. */
static size_t size_of(size_t n) {
#ifdef SHMD_SANITIZERS
        return SIZES;
#else
        return n == 0 ? 0 : n > SPARE_LARGEST ? SIZES : (n - 1) / SPARE_STEP;
#endif
}

static Piece *pop(size_t size) {
        Piece *piece = kept[size].first;

        kept[size].first = piece->next;
        --kept[size].n;
        return piece;
}

void *spare_take(size_t n) {
        size_t size = size_of(n);

        if (size == SIZES)
                return malloc(n);
        return kept[size].n > 0 ? (void *)pop(size) : malloc((size + 1) * SPARE_STEP);
}

void spare_give(void *memory, size_t n) {
        size_t size = size_of(n);
        Piece *piece = memory;

        if (!memory)
                return;
        expect_size(memory, n);
        if (size == SIZES || kept[size].n == SPARE_MAX) {
                free(memory);
                return;
        }
        memset(memory, SPARE_BYTE, (size + 1) * SPARE_STEP);
        piece->next = kept[size].first;
        kept[size].first = piece;
        ++kept[size].n;
}

void spare_trim(void) {
        for (size_t size = 0; size < SIZES; ++size)
                while (kept[size].n > 0)
                        free(pop(size));
}
