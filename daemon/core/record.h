/* Records: an event as bytes, and a ring of them.
 *
 * What happened is kept in rings: one of the broker's, of the latest changes of the tree, and one of
 * each watch, of what its watcher has not taken yet. A ring has a bound in bytes; the broker's is there
 * from the start, and drops the oldest record for a new one; a watch's grows as far as its bound when
 * it has to, and gives its memory back when everything was taken.
 */
#ifndef CORE_RECORD_H
#define CORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/path.h"

/* Bits of a watch's mask, and one of them in each record. */
enum {
        EVENT_CREATED = 1,
        EVENT_REMOVED = 2,
        EVENT_RENAMED = 4,
        EVENT_REPLACED = 8,
        EVENT_FROZEN = 16,
        EVENT_HOLDERS = 32,
        EVENT_LIMITS = 64,
        EVENT_OVERFLOW = 128,
        EVENT_CHANGED = 256,
        EVENT_ALL = 511,
};

/* What a name stands for. */
typedef struct EventThing {
        uint64_t region;        /* its number; 0 for a directory */
        bool directory;
} EventThing;

typedef struct RecordHeader {
        uint64_t sequence;
        uint32_t what;          /* one of the above */
        uint32_t seals;
        EventThing thing;
        EventThing other;       /* exchange: what has the name `path` now */
        uint64_t grants;
        uid_t uid;              /* with account: whose */
        bool held;
        bool exchange;
        bool replaced;          /* a rename: something had the new name */
        bool account;
        uint16_t n_path;
        uint16_t n_to;
} RecordHeader;

/* The two paths lie behind each other. */
typedef struct Record {
        RecordHeader header;
        char paths[2 * PATH_BYTES_MAX];
} Record;

typedef struct RecordRing {
        uint8_t *bytes;
        size_t size;            /* a power of two, 0 without memory */
        uint64_t begin;         /* of the oldest record, counted in bytes from the first ever */
        uint64_t end;
} RecordRing;

/* Makes it able to hold `size` bytes, a power of two. What is in it stays. Return: 0, -ENOMEM. */
int record_ring_grow(RecordRing *ring, size_t size);
/* Forgets everything and frees the memory. */
void record_ring_clear(RecordRing *ring);

static inline bool record_ring_is_empty(const RecordRing *ring) {
        return ring->begin == ring->end;
}

/* Bytes a record takes. */
size_t record_size(const RecordHeader *header);

/* Appends a record. Return: whether it fits. */
bool record_ring_put(RecordRing *ring, const RecordHeader *header, const char *path, const char *to);
/* Reads the record at a position from `begin` to before `end`. Return: the position after it. */
uint64_t record_ring_read(const RecordRing *ring, uint64_t at, Record *ret);
/* Drops the oldest record. */
void record_ring_drop(RecordRing *ring);

#endif
