/* Words: bytes in eights.
 *
 * Names are short, and what is done to them (hashing, checking) costs least eight bytes at a time. Words have
 * the first byte lowest on every machine.
 */
#ifndef UTIL_WORD_H
#define UTIL_WORD_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WORD_BYTES sizeof(uint64_t)

/* A byte in each place of a word. */
#define WORD_OF(byte) (UINT64_C(0x0101010101010101) * (uint8_t)(byte))

static inline uint64_t word_load(const void *bytes) {
        uint64_t word;

        memcpy(&word, bytes, sizeof(word));
        return le64toh(word);
}

/* Of n bytes, fewer than eight; above them is 0. Those in the middle may be read twice. */
static inline uint64_t word_load_rest(const void *bytes, size_t n) {
        const uint8_t *at = bytes;
        uint32_t first, last;

        if (n == 0)
                return 0;
        if (n < sizeof(first))
                return at[0] | (uint64_t)at[n / 2] << 8 * (n / 2) | (uint64_t)at[n - 1] << 8 * (n - 1);
        memcpy(&first, at, sizeof(first));
        memcpy(&last, at + n - sizeof(last), sizeof(last));
        return le32toh(first) | (uint64_t)le32toh(last) << 8 * (n - sizeof(last));
}

#endif
