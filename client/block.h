/* A result in one piece: a struct, its arrays, and the strings that they point to, from one
 * malloc(3) and for one free(3).
 *
 * The caller counts first: bytes of the fixed part (struct and arrays, each a multiple of eight),
 * then of the strings with block_string_size(). block_string() hands out room in the same order
 * and cannot run over: what was counted is what is copied.
 */
#ifndef CLIENT_BLOCK_H
#define CLIENT_BLOCK_H

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/message.h"

typedef struct Block {
        char *at;
        char *end;
} Block;

/* Return: the start of the fixed part, zeroed, for free(3); NULL without memory. */
static inline void *block_new(Block *block, size_t n_fixed, size_t n_strings) {
        char *start = malloc(n_fixed + n_strings);

        if (!start)
                return NULL;
        memset(start, 0, n_fixed);
        block->at = start + n_fixed;
        block->end = block->at + n_strings;
        return start;
}

static inline size_t block_string_size(const ProtobufCBinaryData *bytes) {
        return bytes->len + 1;
}

/* Return: a copy with a NUL behind it, in the block. */
static inline const char *block_string(Block *block, const ProtobufCBinaryData *bytes) {
        char *s = block->at;

        ASSERT(block_string_size(bytes) <= (size_t)(block->end - block->at));
        if (bytes->len)
                memcpy(s, bytes->data, bytes->len);
        s[bytes->len] = '\0';
        block->at += bytes->len + 1;
        return s;
}

#endif
