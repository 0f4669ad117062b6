/* daemon/core/regionindex: in the order of their numbers, whatever order they came and went in. */

#include "daemon-house.h"

#include <stdlib.h>
#include <string.h>

#include "core/region.h"
#include "core/regionindex.h"

enum { N = 3000 };

static Region regions[N];       /* by number, from 1 on */
static bool in[N];
static RegionIndex by_id;

static void begin(void) {
        by_id = (RegionIndex)REGION_INDEX_NULL;
        memset(in, 0, sizeof(in));
        for (size_t i = 0; i < N; ++i)
                regions[i] = (Region){ .id = i + 1 };
}

static void add(size_t i) {
        REQUIRE(!in[i] && region_index_add(&by_id, &regions[i]) == 0);
        in[i] = true;
}

static void take_away(size_t i) {
        REQUIRE(in[i]);
        region_index_remove(&by_id, &regions[i]);
        in[i] = false;
}

/* That it finds each that is in, and what comes after any number; that blocks are neither empty nor so many that
 * they take much. */
static void expect_sound(void) {
        Region *next = NULL;
        size_t n = 0;

        REQUIRE(!region_index_at_least(&by_id, UINT64_MAX) && !region_index_at_least(&by_id, N + 1));
        for (size_t i = N; i-- > 0;) {
                if (in[i])
                        next = &regions[i];
                n += in[i];
                REQUIRE(region_index_at_least(&by_id, i + 1) == next, "%zu", i + 1);
        }
        REQUIRE(region_index_at_least(&by_id, 0) == next);
        for (size_t at = 0; at < by_id.n_blocks; ++at) {
                REQUIRE(by_id.blocks[at].block->n > 0);
                n -= by_id.blocks[at].block->n;
        }
        REQUIRE(n == 0);
}

static size_t count(void) {
        size_t n = 0;

        for (size_t i = 0; i < N; ++i)
                n += in[i];
        return n;
}

TEST(regionindex, in_ascending_order_blocks_are_full) {
        begin();
        expect_sound();
        for (size_t i = 0; i < N; ++i)
                add(i);
        expect_sound();
        cr_assert_eq(by_id.n_blocks, (N + REGION_BLOCK - 1) / REGION_BLOCK);
        for (size_t i = 0; i < N; ++i)
                take_away(i);
        expect_sound();
        cr_assert_eq(by_id.n_blocks, 0);
        region_index_deinit(&by_id);
}

TEST(regionindex, in_descending_order_they_are_at_least_half_full) {
        begin();
        for (size_t i = N; i-- > 0;)
                add(i);
        expect_sound();
        cr_assert_leq(by_id.n_blocks, N / (REGION_BLOCK / 2) + 1);
        for (size_t i = N; i-- > 0;)
                take_away(i);
        cr_assert_eq(by_id.n_blocks, 0);
        region_index_deinit(&by_id);
}

TEST(regionindex, any_order_will_do) {
        uint64_t random = test_seed();

        begin();
        for (unsigned int round = 0; round < 40; ++round) {
                bool grows = round % 2 == 0;

                for (unsigned int k = 0; k < 2000; ++k) {
                        size_t i = test_random(&random, N);

                        if (in[i] && (!grows || test_random(&random, 4) == 0))
                                take_away(i);
                        else if (!in[i] && (grows || test_random(&random, 4) == 0))
                                add(i);
                }
                expect_sound();
                /* Any two neighbours have more than what is joined. */
                cr_assert_leq(by_id.n_blocks, 2 * count() / REGION_BLOCK_JOIN + 1);
        }
        for (size_t i = 0; i < N; ++i)
                if (in[i])
                        take_away(i);
        expect_sound();
        cr_assert_eq(by_id.n_blocks, 0);
        region_index_deinit(&by_id);
}

TEST(regionindex, few_of_many_take_little) {
        begin();
        for (size_t i = 0; i < N; ++i)
                add(i);
        for (size_t i = 0; i < N; ++i)
                if (i % 100)
                        take_away(i);
        expect_sound();
        cr_assert_leq(by_id.n_blocks, 1);
        cr_assert_leq(by_id.n_room, 16);
        for (size_t i = 0; i < N; i += 100)
                take_away(i);
        region_index_deinit(&by_id);
}
