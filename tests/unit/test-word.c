/* daemon/util/word: bytes in eights. */

#include "lib/test.h"

#include <stdlib.h>

#include "util/word.h"

TEST(word, the_first_byte_is_the_lowest) {
        static const uint8_t bytes[] = { 1, 2, 3, 4, 5, 6, 7, 0x88 };

        cr_assert_eq(word_load(bytes), UINT64_C(0x8807060504030201));
        cr_assert_eq(WORD_OF(0x2f), UINT64_C(0x2f2f2f2f2f2f2f2f));
}

TEST(word, the_rest_has_each_byte_in_its_place_and_reads_no_other) {
        for (size_t n = 0; n < WORD_BYTES; ++n) {
                uint8_t *bytes = malloc(n ? n : 1);
                uint64_t expected = 0;

                REQUIRE(bytes);
                for (size_t i = 0; i < n; ++i) {
                        bytes[i] = (uint8_t)(0xf1 + i);
                        expected |= (uint64_t)bytes[i] << 8 * i;
                }
                cr_assert_eq(word_load_rest(bytes, n), expected, "%zu", n);
                free(bytes);
        }
}
