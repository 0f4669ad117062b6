/* daemon/acct/quota: pure arithmetic, exact at every edge. */

#include "lib/test.h"

#include "acct/quota.h"

#define TWO63 (UINT64_C(1) << 63)

TEST(quota, what_is_left_is_never_less_than_nothing) {
        cr_assert_eq(quota_left(10, 0), 10);
        cr_assert_eq(quota_left(10, 9), 1);
        cr_assert_eq(quota_left(10, 10), 0);
        cr_assert_eq(quota_left(10, 11), 0, "a limit may have been lowered");
        cr_assert_eq(quota_left(0, 0), 0);
        cr_assert_eq(quota_left(0, UINT64_MAX), 0);
        cr_assert_eq(quota_left(UINT64_MAX, 0), UINT64_MAX);
        cr_assert_eq(quota_left(UINT64_MAX, UINT64_MAX), 0);
        cr_assert_eq(quota_left(TWO63, TWO63 - 1), 1);
}

TEST(quota, a_limit_is_exact) {
        cr_assert(quota_fits(4096, 0, 4095));
        cr_assert(quota_fits(4096, 0, 4096));
        cr_assert_not(quota_fits(4096, 0, 4097));
        cr_assert(quota_fits(4096, 4095, 1));
        cr_assert_not(quota_fits(4096, 4095, 2));
        cr_assert_not(quota_fits(4096, 4096, 1));
        cr_assert(quota_fits(4096, 4096, 0), "nothing more always fits");
        cr_assert_not(quota_fits(0, 0, 1));
        cr_assert(quota_fits(0, 0, 0));
}

TEST(quota, a_limit_is_exact_at_2_to_the_32_and_2_to_the_63) {
        for (unsigned int bits = 31; bits < 64; ++bits) {
                uint64_t limit = UINT64_C(1) << bits;

                cr_assert(quota_fits(limit, limit - 1, 1), "2^%u", bits);
                cr_assert_not(quota_fits(limit, limit, 1), "2^%u", bits);
                cr_assert(quota_fits(limit, 0, limit), "2^%u", bits);
                cr_assert_not(quota_fits(limit, 0, limit + 1), "2^%u", bits);
                cr_assert_not(quota_fits(limit, 1, limit), "2^%u", bits);
        }
}

TEST(quota, a_sum_that_overflows_does_not_fit_not_even_without_a_limit) {
        cr_assert(quota_fits(QUOTA_UNLIMITED, 0, UINT64_MAX));
        cr_assert(quota_fits(QUOTA_UNLIMITED, UINT64_MAX - 1, 1));
        cr_assert_not(quota_fits(QUOTA_UNLIMITED, 1, UINT64_MAX));
        cr_assert_not(quota_fits(QUOTA_UNLIMITED, UINT64_MAX, 1));
        cr_assert_not(quota_fits(QUOTA_UNLIMITED, TWO63, TWO63));
        cr_assert_not(quota_fits(4096, 4096, UINT64_MAX - 4095), "it would wrap to nothing");
        cr_assert_not(quota_fits(4096, 1, UINT64_MAX));
}

TEST(quota, a_share_is_the_pool_divided_among_the_actors_and_one_newcomer) {
        /* left, actors, held: of a pool of 120 in all */
        cr_assert_eq(quota_share(120, 1, 0), 60);
        cr_assert_eq(quota_share(60, 1, 60), 60);
        cr_assert_eq(quota_share(60, 2, 0), 20);
        cr_assert_eq(quota_share(40, 2, 20), 20);
        cr_assert_eq(quota_share(40, 3, 0), 10);
        cr_assert_eq(quota_share(30, 3, 10), 10);
        cr_assert_eq(quota_share(30, 4, 0), 6);
        cr_assert_eq(quota_share(0, 4, 0), 0);
        cr_assert_eq(quota_share(UINT64_MAX, 1, 0), UINT64_MAX / 2);
        cr_assert_eq(quota_share(UINT64_MAX, UINT32_MAX, 0), UINT32_MAX, "the divisor does not wrap either");
        cr_assert_eq(quota_share(UINT64_MAX, 1, 1), 0, "overflow is no share");
        cr_assert_eq(quota_share(UINT64_MAX, 1, 1000), 0);
        cr_assert_eq(quota_share(TWO63, 1, TWO63 + 1000), 0);
}

/* One after the other each takes all it may. */
TEST(quota, one_to_four_greedy_actors_get_exactly_these_numbers) {
        static const uint64_t expected[] = { 500, 166, 83, 50 };
        uint64_t left = 1000;

        for (uint32_t actors = 1; actors <= 4; ++actors) {
                uint64_t took = 0;

                while (quota_allows(left, actors, took, 1)) {
                        ++took;
                        --left;
                }
                cr_assert_eq(took, expected[actors - 1], "actor %u got %zu", actors, (size_t)took);
        }
        cr_assert_eq(left, 201);
}

TEST(quota, the_share_is_exact) {
        cr_assert(quota_allows(100, 1, 0, 49));
        cr_assert(quota_allows(100, 1, 0, 50));
        cr_assert_not(quota_allows(100, 1, 0, 51));
        cr_assert(quota_allows(60, 1, 40, 10));
        cr_assert_not(quota_allows(60, 1, 40, 11));
        cr_assert(quota_allows(100, 2, 0, 33));
        cr_assert_not(quota_allows(100, 2, 0, 34));
        cr_assert(quota_allows(100, 3, 0, 25));
        cr_assert_not(quota_allows(100, 3, 0, 26));
        cr_assert(quota_allows(100, 4, 0, 20));
        cr_assert_not(quota_allows(100, 4, 0, 21));
}

TEST(quota, who_holds_more_than_a_share_gets_nothing_more_and_loses_nothing) {
        cr_assert_not(quota_allows(10, 4, 90, 1));
        cr_assert_not(quota_allows(10, 4, 90, 0), "and its own holding is over the share");
        cr_assert_not(quota_allows(5, 1, 1000, 6), "never more than there is");
}

TEST(quota, shares_overflow_into_refusal) {
        cr_assert_not(quota_allows(UINT64_MAX, 1, 1, 1));
        cr_assert_not(quota_allows(100, 1, UINT64_MAX, 1));
        cr_assert_not(quota_allows(100, 1, 1, UINT64_MAX));
        cr_assert_not(quota_allows(TWO63, 1, TWO63, 1));
        cr_assert(quota_allows(UINT64_MAX, 1, 0, TWO63 - 1));
        cr_assert_not(quota_allows(UINT64_MAX, 1, 0, TWO63));
}
