/* Arithmetic on amounts that came from outside. Each returns false on overflow, and then
 * leaves *ret alone; an amount that overflows is refused, never wrapped and never clamped.
 */
#ifndef BASE_OVERFLOW_H
#define BASE_OVERFLOW_H

#include <stdbool.h>
#include <stdint.h>

static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *ret) {
        uint64_t sum;

        if (__builtin_add_overflow(a, b, &sum))
                return false;
        *ret = sum;
        return true;
}

static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *ret) {
        uint64_t product;

        if (__builtin_mul_overflow(a, b, &product))
                return false;
        *ret = product;
        return true;
}

/* Rounds up to a multiple of unit, which is a power of two. */
static inline bool round_up_u64(uint64_t value, uint64_t unit, uint64_t *ret) {
        uint64_t sum;

        if (!add_u64(value, unit - 1, &sum))
                return false;
        *ret = sum & ~(unit - 1);
        return true;
}

#endif
