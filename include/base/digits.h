/* Numbers as text, where printf would be most of the cost of what they are for. */
#ifndef BASE_DIGITS_H
#define BASE_DIGITS_H

#include <stdint.h>

/* A number of 64 bits has at most so many, to whatever base from ten on. */
#define DIGITS_MAX 20

/* Writes the digits of a number so that the last one stands before `end`; where the room ends is the caller's to
 * know. base: 2 to 16. Return: where the first one is. */
static inline char *digits_before(char *end, uint64_t number, unsigned int base) {
        do
                *--end = "0123456789abcdef"[number % base];
        while (number /= base);
        return end;
}

#endif
