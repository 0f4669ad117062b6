/* include/base/digits.h: numbers as text, without printf. */

#include "lib/test.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/digits.h"

static void expect_like_printf(uint64_t number) {
        char text[DIGITS_MAX + 1] = "", decimal[32], hexadecimal[32];

        (void)snprintf(decimal, sizeof(decimal), "%" PRIu64, number);
        (void)snprintf(hexadecimal, sizeof(hexadecimal), "%" PRIx64, number);
        cr_assert_str_eq(digits_before(text + DIGITS_MAX, number, 10), decimal);
        cr_assert_str_eq(digits_before(text + DIGITS_MAX, number, 16), hexadecimal);
}

TEST(digits, are_those_that_printf_writes) {
        expect_like_printf(0);
        expect_like_printf(9);
        expect_like_printf(10);
        expect_like_printf(UINT32_MAX);
        expect_like_printf(UINT64_MAX - 1);
        for (uint64_t number = 1; number < UINT64_MAX / 7; number *= 7)
                expect_like_printf(number);
}

TEST(digits, of_the_largest_number_fill_their_room) {
        char text[DIGITS_MAX + 1] = "";

        cr_assert_eq(digits_before(text + DIGITS_MAX, UINT64_MAX, 10), text);
}
