/* Brief: see the header for the model. */

#include "proto/brief.h"

#include <stdbool.h>
#include <string.h>

/* What a field begins with: its number, and how the value is written. */
#define NUMBER(field) ((uint8_t)((field) << 3 | 0))
#define BYTES(field) ((uint8_t)((field) << 3 | 2))

/* Of a number of 64 bits, at seven a byte. */
#define NUMBER_MAX 10U
#define GRANTED_FIELDS 9U
#define GRANTED_MAX (GRANTED_FIELDS * (1U + NUMBER_MAX))

_Static_assert(GRANTED_MAX < 0x80, "its length is one byte");

/* -- unpacking ---------------------------------------------------------------------------- */

typedef struct Reader {
        const uint8_t *at;
        const uint8_t *end;
} Reader;

/* Takes the length of a field and what it counts: in one byte or two, and not in two if one is enough. What is
 * no such field is not taken: nothing of it. */
static bool take_bytes(Reader *reader, uint8_t tag, Reader *ret) {
        const uint8_t *at = reader->at, *end = reader->end;
        size_t n;

        if (end - at < 2 || at[0] != tag)
                return false;
        n = at[1];
        at += 2;
        if (n >= 0x80) {
                if (at == end || at[0] == 0 || at[0] >= 0x80)
                        return false;
                n = (n & 0x7f) | (size_t)*at++ << 7;
        }
        if (n > (size_t)(end - at))
                return false;
        *ret = (Reader){ .at = at, .end = at + n };
        reader->at = at + n;
        return true;
}

/* Takes a number, which is at most so large, if it is there; else it is 0. What is 0 is not there, and no number has
 * more bytes than it needs. */
static bool take_number(Reader *reader, uint8_t tag, uint64_t most, uint64_t *ret) {
        const uint8_t *at = reader->at, *end = reader->end;
        uint64_t number = 0;
        unsigned int shift = 0;

        *ret = 0;
        if (at == end || *at != tag)
                return true;
        for (++at; at < end && *at >= 0x80 && shift < 7 * (NUMBER_MAX - 1); shift += 7)
                number |= (uint64_t)(*at++ & 0x7f) << shift;
        /* The tenth byte has one bit left to say. */
        if (at == end || *at == 0 || *at >= 0x80 || (shift == 63 && *at > 1))
                return false;
        number |= (uint64_t)*at++ << shift;
        *ret = number;
        reader->at = at;
        return number <= most;
}

static bool take_small(Reader *reader, uint8_t tag, uint32_t *ret) {
        uint64_t number;
        bool taken = take_number(reader, tag, UINT32_MAX, &number);

        *ret = (uint32_t)number;
        return taken;
}

static bool copy_bytes(Arena *arena, const Reader *bytes, ProtobufCBinaryData *ret) {
        ret->len = (size_t)(bytes->end - bytes->at);
        ret->data = ret->len > 0 ? arena_alloc(arena, ret->len) : NULL;
        if (!ret->data)
                return false;
        memcpy(ret->data, bytes->at, ret->len);
        return true;
}

/* An open: a path, and rights of one byte, neither of them empty. */
static bool take_open(Arena *arena, Reader reader, Shmd__Open *ret) {
        Reader path;

        if (!take_bytes(&reader, BYTES(1), &path))
                return false;
        if (reader.end - reader.at != 2 || reader.at[0] != NUMBER(2) || reader.at[1] == 0 || reader.at[1] >= 0x80)
                return false;
        shmd__open__init(ret);
        ret->rights = reader.at[1];
        return copy_bytes(arena, &path, &ret->path);
}

/* A create: a path that is not empty, and numbers. */
static bool take_create(Arena *arena, Reader reader, Shmd__Create *ret) {
        Reader path;

        shmd__create__init(ret);
        return take_bytes(&reader, BYTES(1), &path) &&
               take_number(&reader, NUMBER(2), UINT64_MAX, &ret->size) &&
               take_small(&reader, NUMBER(3), &ret->mode) &&
               take_small(&reader, NUMBER(4), &ret->flags) &&
               take_small(&reader, NUMBER(5), &ret->lifetime) &&
               take_small(&reader, NUMBER(6), &ret->huge_page_size) &&
               take_small(&reader, NUMBER(7), &ret->rights) &&
               take_number(&reader, NUMBER(8), UINT64_MAX, &ret->ttl_ns) &&
               reader.at == reader.end && copy_bytes(arena, &path, &ret->path);
}

static ProtobufCMessage *unpack_create(Arena *arena, Reader reader) {
        Shmd__Create *create = arena_alloc(arena, sizeof(*create));

        return create && take_create(arena, reader, create) ? &create->base : NULL;
}

static ProtobufCMessage *unpack_open(Arena *arena, Reader reader) {
        Shmd__Open *open = arena_alloc(arena, sizeof(*open));

        return open && take_open(arena, reader, open) ? &open->base : NULL;
}

typedef struct OpenItem {
        Shmd__BatchItem item;
        Shmd__Open open;
} OpenItem;

static bool take_item(Arena *arena, Reader *reader, OpenItem *ret) {
        Reader item, open;

        if (!take_bytes(reader, BYTES(1), &item) || !take_bytes(&item, BYTES(2), &open) || item.at != item.end ||
            !take_open(arena, open, &ret->open))
                return false;
        shmd__batch_item__init(&ret->item);
        ret->item.open = &ret->open;
        return true;
}

static size_t count_items(Reader reader) {
        size_t n = 0;
        Reader item;

        while (take_bytes(&reader, BYTES(1), &item))
                ++n;
        return reader.at == reader.end ? n : 0;
}

static ProtobufCMessage *unpack_batch(Arena *arena, Reader reader) {
        size_t n = count_items(reader);
        Shmd__Batch *batch;
        OpenItem *items;

        if (n == 0 || n > MESSAGE_BATCH_MAX)
                return NULL;
        batch = arena_alloc(arena, sizeof(*batch));
        items = arena_alloc(arena, n * sizeof(*items));
        if (!batch || !items)
                return NULL;
        shmd__batch__init(batch);
        batch->items = arena_alloc(arena, n * sizeof(*batch->items));
        if (!batch->items)
                return NULL;
        for (; batch->n_items < n; ++batch->n_items) {
                OpenItem *item = &items[batch->n_items];

                if (!take_item(arena, &reader, item))
                        return NULL;
                batch->items[batch->n_items] = &item->item;
        }
        return &batch->base;
}

/* Whatever the arena holds by now is given back if nothing comes of it. */
static ProtobufCMessage *unpack(Arena *arena, const uint8_t *data, size_t n,
                                ProtobufCMessage *(*fn)(Arena *arena, Reader reader)) {
        size_t used = arena_used(arena);
        ProtobufCMessage *message = fn(arena, (Reader){ .at = data, .end = data + n });

        if (!message)
                arena_return(arena, used);
        return message;
}

ProtobufCMessage *brief_unpack_open(Arena *arena, const uint8_t *data, size_t n) {
        return unpack(arena, data, n, unpack_open);
}

ProtobufCMessage *brief_unpack_create(Arena *arena, const uint8_t *data, size_t n) {
        return unpack(arena, data, n, unpack_create);
}

ProtobufCMessage *brief_unpack_batch(Arena *arena, const uint8_t *data, size_t n) {
        return unpack(arena, data, n, unpack_batch);
}

/* -- packing ------------------------------------------------------------------------------ */

/* A number that is 0 is not there. */
static uint8_t *put_number(uint8_t *at, uint8_t tag, uint64_t number) {
        if (number == 0)
                return at;
        *at++ = tag;
        for (; number >= 0x80; number >>= 7)
                *at++ = (uint8_t)(number | 0x80);
        *at++ = (uint8_t)number;
        return at;
}

static uint8_t *put_granted(uint8_t *at, const Shmd__Granted *granted) {
        at = put_number(at, NUMBER(1), granted->region);
        at = put_number(at, NUMBER(2), granted->size);
        at = put_number(at, NUMBER(3), granted->rights);
        at = put_number(at, NUMBER(4), granted->outcome);
        at = put_number(at, NUMBER(5), granted->huge_page_size);
        at = put_number(at, NUMBER(6), granted->freezable != 0);
        at = put_number(at, NUMBER(7), granted->grant);
        at = put_number(at, NUMBER(8), granted->marker != 0);
        at = put_number(at, NUMBER(9), granted->granted != 0);
        return at;
}

static size_t pack_granted(const Shmd__Granted *granted, uint8_t *data, size_t n_max) {
        if (n_max < GRANTED_MAX || granted->base.n_unknown_fields > 0)
                return SIZE_MAX;
        return (size_t)(put_granted(data, granted) - data);
}

static size_t pack_batch_reply(const Shmd__BatchReply *reply, uint8_t *data, size_t n_max) {
        uint8_t *at = data;

        if (reply->n_items > n_max / (2 + GRANTED_MAX) || reply->base.n_unknown_fields > 0)
                return SIZE_MAX;
        for (size_t i = 0; i < reply->n_items; ++i) {
                uint8_t *end;

                if (reply->items[i]->base.n_unknown_fields > 0)
                        return SIZE_MAX;
                end = put_granted(at + 2, reply->items[i]);
                at[0] = BYTES(1);
                at[1] = (uint8_t)(end - at - 2);
                at = end;
        }
        return (size_t)(at - data);
}

size_t brief_pack(const ProtobufCMessage *message, uint8_t *data, size_t n_max) {
        if (message->descriptor == &shmd__granted__descriptor)
                return pack_granted((const Shmd__Granted *)message, data, n_max);
        if (message->descriptor == &shmd__batch_reply__descriptor)
                return pack_batch_reply((const Shmd__BatchReply *)message, data, n_max);
        return SIZE_MAX;
}
