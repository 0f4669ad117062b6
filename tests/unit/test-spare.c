/* daemon/util/spare: what was given back is taken again, within bounds, and nobody can use it meanwhile. */

#include "daemon-house.h"

#include <stdlib.h>
#include <string.h>

#include "buildinfo.h"
#include "util/spare.h"

/* With sanitizers each piece comes from the allocator, and nothing of this is so. */
#ifdef SHMD_SANITIZERS
#define KEEPS false
#else
#define KEEPS true
#endif

TEST(spare, what_was_given_back_is_taken_again) {
        unsigned char *piece = spare_take(100);

        REQUIRE(piece);
        memset(piece, 1, 100);
        spare_give(piece, 100);
        for (size_t n = 65; KEEPS && n <= 128; ++n) {
                unsigned char *again = spare_take(n);

                REQUIRE(again == piece, "%zu bytes are of that size as well", n);
                spare_give(again, n);
        }
        spare_trim();
}

TEST(spare, sizes_do_not_mix) {
        static const size_t sizes[] = { 0, 1, 64, 65, 128, 129, 960, 961, 1024, 1025, 5000 };
        unsigned char *pieces[sizeof(sizes) / sizeof(*sizes)];

        for (int round = 0; round < 3; ++round) {
                for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
                        pieces[i] = spare_take(sizes[i]);
                        REQUIRE(pieces[i] || sizes[i] == 0);
                        if (sizes[i] > 0)
                                memset(pieces[i], (int)i + 1, sizes[i]);
                }
                for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
                        for (size_t k = 0; k < sizes[i]; ++k)
                                REQUIRE(pieces[i][k] == i + 1, "%zu bytes, byte %zu", sizes[i], k);
                        spare_give(pieces[i], sizes[i]);
                }
        }
        spare_trim();
}

TEST(spare, no_more_than_so_many_are_kept) {
        unsigned char *pieces[SPARE_MAX + 10], *again[SPARE_MAX + 10];
        size_t n = 0;

        for (size_t i = 0; i < SPARE_MAX + 10; ++i)
                REQUIRE((pieces[i] = spare_take(200)));
        for (size_t i = 0; i < SPARE_MAX + 10; ++i)
                spare_give(pieces[i], 200);
        /* The latest that was kept comes first. */
        for (size_t i = 0; i < SPARE_MAX + 10; ++i) {
                REQUIRE((again[i] = spare_take(200)));
                n += KEEPS && i < SPARE_MAX && again[i] == pieces[SPARE_MAX - 1 - i];
        }
        REQUIRE(!KEEPS || n == SPARE_MAX, "%zu were kept", n);
        for (size_t i = 0; i < SPARE_MAX + 10; ++i)
                spare_give(again[i], 200);
        spare_trim();
}

TEST(spare, a_piece_that_is_kept_is_no_object_any_more) {
        unsigned char *piece = spare_take(320);

        REQUIRE(piece);
        memset(piece, 0, 320);
        spare_give(piece, 320);
        /* The first bytes are the next piece's address, of which there is none. */
        for (size_t k = sizeof(void *); KEEPS && k < 320; ++k)
                REQUIRE(piece[k] == 0xdb, "byte %zu is still there", k);
        spare_trim();
}

TEST(spare, nothing_can_be_given_back) {
        spare_give(NULL, 100);
        spare_give(NULL, 100000);
        spare_trim();
}
