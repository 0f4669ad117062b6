/* SipHash-1-3: a hash with a key, for tables whose keys clients choose.
 *
 * Who does not know the key cannot choose inputs that fall together (Aumasson and Bernstein, "SipHash: a
 * fast short-input PRF", 2012). One round for each word and three at the end are what hash tables need,
 * where nobody sees the hash itself.
 */
#ifndef UTIL_SIPHASH_H
#define UTIL_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#include "util/word.h"

typedef struct SipKey {
        uint64_t k[2];
} SipKey;

static inline uint64_t siphash_rotate(uint64_t word, unsigned int by) {
        return word << by | word >> (64 - by);
}

static inline void siphash_round(uint64_t v[4]) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = siphash_rotate(v[1], 13) ^ v[0];
        v[3] = siphash_rotate(v[3], 16) ^ v[2];
        v[0] = siphash_rotate(v[0], 32) + v[3];
        v[2] += v[1];
        v[3] = siphash_rotate(v[3], 21) ^ v[0];
        v[1] = siphash_rotate(v[1], 17) ^ v[2];
        v[2] = siphash_rotate(v[2], 32);
}

static inline void siphash_word(uint64_t v[4], uint64_t word) {
        v[3] ^= word;
        siphash_round(v);
        v[0] ^= word;
}

/* Of a number, as eight bytes with the lowest first, and the bytes after it. */
static inline uint64_t siphash(const SipKey *key, uint64_t number, const void *bytes, size_t n) {
        uint64_t v[4] = {
                key->k[0] ^ UINT64_C(0x736f6d6570736575), key->k[1] ^ UINT64_C(0x646f72616e646f6d),
                key->k[0] ^ UINT64_C(0x6c7967656e657261), key->k[1] ^ UINT64_C(0x7465646279746573),
        };
        const uint8_t *at = bytes;
        size_t left;

        siphash_word(v, number);
        for (left = n; left >= WORD_BYTES; left -= WORD_BYTES, at += WORD_BYTES)
                siphash_word(v, word_load(at));
        siphash_word(v, (uint64_t)(n + sizeof(number)) << 56 | word_load_rest(at, left));
        v[2] ^= 0xff;
        for (int i = 0; i < 3; ++i)
                siphash_round(v);
        return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
