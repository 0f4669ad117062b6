/* Records: see the header for the model. */

#include "core/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "util/error.h"

static void copy_in(RecordRing *ring, uint64_t at, const void *data, size_t n) {
        size_t offset = (size_t)(at & (ring->size - 1));
        size_t first = n < ring->size - offset ? n : ring->size - offset;

        memcpy(ring->bytes + offset, data, first);
        memcpy(ring->bytes, (const uint8_t *)data + first, n - first);
}

static void copy_out(const RecordRing *ring, uint64_t at, void *data, size_t n) {
        size_t offset = (size_t)(at & (ring->size - 1));
        size_t first = n < ring->size - offset ? n : ring->size - offset;

        memcpy(data, ring->bytes + offset, first);
        memcpy((uint8_t *)data + first, ring->bytes, n - first);
}

int record_ring_grow(RecordRing *ring, size_t size) {
        size_t used = (size_t)(ring->end - ring->begin);
        uint8_t *bytes;

        ASSERT(size > 0 && (size & (size - 1)) == 0 && size >= used);

        bytes = malloc(size);
        if (!bytes)
                return error_origin(-ENOMEM);
        if (used)
                copy_out(ring, ring->begin, bytes, used);
        free(ring->bytes);
        *ring = (RecordRing){ .bytes = bytes, .size = size, .begin = 0, .end = used };
        return 0;
}

void record_ring_clear(RecordRing *ring) {
        free(ring->bytes);
        *ring = (RecordRing){ .bytes = NULL };
}

size_t record_size(const RecordHeader *header) {
        return sizeof(*header) + header->n_path + header->n_to;
}

bool record_ring_put(RecordRing *ring, const RecordHeader *header, const char *path, const char *to) {
        size_t n = record_size(header);

        if (ring->end - ring->begin + n > ring->size)
                return false;
        copy_in(ring, ring->end, header, sizeof(*header));
        if (header->n_path)
                copy_in(ring, ring->end + sizeof(*header), path, header->n_path);
        if (header->n_to)
                copy_in(ring, ring->end + sizeof(*header) + header->n_path, to, header->n_to);
        ring->end += n;
        return true;
}

uint64_t record_ring_read(const RecordRing *ring, uint64_t at, Record *ret) {
        ASSERT(at >= ring->begin && at < ring->end);

        copy_out(ring, at, &ret->header, sizeof(ret->header));
        copy_out(ring, at + sizeof(ret->header), ret->paths, (size_t)ret->header.n_path + ret->header.n_to);
        return at + record_size(&ret->header);
}

void record_ring_drop(RecordRing *ring) {
        RecordHeader header;

        ASSERT(!record_ring_is_empty(ring));
        copy_out(ring, ring->begin, &header, sizeof(header));
        ring->begin += record_size(&header);
}
