/* daemon/core/secret: what is drawn is never the same, and its digest is SHA-256. */

#include "lib/test.h"

#include <string.h>

#include "core/secret.h"

TEST(secret, what_is_drawn_is_never_the_same) {
        uint8_t drawn[64][16] = { { 0 } };

        for (size_t i = 0; i < 64; ++i) {
                cr_assert_eq(secret_draw(drawn[i], sizeof(drawn[i])), 0);
                for (size_t k = 0; k < i; ++k)
                        cr_assert(memcmp(drawn[i], drawn[k], sizeof(drawn[i])));
        }
}

TEST(secret, its_digest_is_sha_256) {
        static const uint8_t abc[SECRET_DIGEST_BYTES] = {
                0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
        };
        uint8_t digest[SECRET_DIGEST_BYTES];

        secret_digest("abc", 3, digest);
        cr_assert_arr_eq(digest, abc, sizeof(abc));
}
