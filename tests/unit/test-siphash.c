/* daemon/util/siphash: the same as everybody's, and another one with another key. */

#include "lib/test.h"

#include <string.h>

#include "util/siphash.h"

TEST(siphash, it_is_siphash_1_3) {
        /* As CPython's hash() of these bytes after "\0\1\2\3\4\5\6\7", with PYTHONHASHSEED=0. */
        static const struct {
                const char *text;
                uint64_t hash;
        } known[] = {
                { "", UINT64_C(0xead411e67ebe2eea) },
                { "a", UINT64_C(0x74aefdce5e2d0239) },
                { "abc", UINT64_C(0x314362b1be4689ad) },
                { "1234567", UINT64_C(0xbd517764714c95de) },
                { "12345678", UINT64_C(0x7ff73d296f38e850) },
                { "123456789", UINT64_C(0x70d0ce077ae4a610) },
                { "camera-0042/frame-00017", UINT64_C(0x746a193076a3d588) },
        };
        const SipKey key = { .k = { 0 } };

        for (size_t i = 0; i < sizeof(known) / sizeof(*known); ++i)
                cr_assert_eq(siphash(&key, UINT64_C(0x0706050403020100), known[i].text, strlen(known[i].text)),
                             known[i].hash, "'%s'", known[i].text);
}

TEST(siphash, the_key_the_number_and_each_byte_count) {
        const SipKey key = { .k = { 1, 2 } }, others[] = { { .k = { 3, 2 } }, { .k = { 1, 3 } } };
        const char text[] = "frame-0017";
        uint64_t hash = siphash(&key, 5, text, 10);

        cr_assert_neq(siphash(&others[0], 5, text, 10), hash);
        cr_assert_neq(siphash(&others[1], 5, text, 10), hash);
        cr_assert_neq(siphash(&key, 6, text, 10), hash);
        cr_assert_neq(siphash(&key, 5, text, 9), hash);
        cr_assert_neq(siphash(&key, 5, text, 11), hash, "a NUL is a byte");
        for (size_t i = 0; i < 10; ++i) {
                char other[sizeof(text)];

                memcpy(other, text, sizeof(text));
                other[i] ^= 1;
                cr_assert_neq(siphash(&key, 5, other, 10), hash, "byte %zu", i);
        }
}
