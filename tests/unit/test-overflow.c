/* include/base/overflow.h: amounts from outside are refused when they overflow. */

#include "lib/test.h"

#include "base/overflow.h"

#define MARK UINT64_C(0x5a5a5a5a)

static void expect_sum(uint64_t a, uint64_t b, uint64_t sum) {
        uint64_t got = MARK;

        cr_assert(add_u64(a, b, &got));
        cr_assert_eq(got, sum);
        got = MARK;
        cr_assert(add_u64(b, a, &got));
        cr_assert_eq(got, sum);
}

static void expect_no_sum(uint64_t a, uint64_t b) {
        uint64_t got = MARK;

        cr_assert_not(add_u64(a, b, &got));
        cr_assert_not(add_u64(b, a, &got));
        cr_assert_eq(got, MARK, "a refused sum leaves the result alone");
}

TEST(overflow, sums_up_to_the_last_number) {
        expect_sum(0, 0, 0);
        expect_sum(1, 2, 3);
        expect_sum(UINT64_MAX, 0, UINT64_MAX);
        expect_sum(UINT64_MAX - 1, 1, UINT64_MAX);
        expect_sum(UINT64_C(1) << 63, (UINT64_C(1) << 63) - 1, UINT64_MAX);
        expect_sum(UINT32_MAX, 1, UINT64_C(1) << 32);
}

TEST(overflow, no_sum_beyond_it) {
        expect_no_sum(UINT64_MAX, 1);
        expect_no_sum(UINT64_MAX, UINT64_MAX);
        expect_no_sum(UINT64_C(1) << 63, UINT64_C(1) << 63);
        expect_no_sum(UINT64_MAX - 4095, 4096);
}

TEST(overflow, products_up_to_the_last_number) {
        uint64_t got;

        cr_assert(mul_u64(0, UINT64_MAX, &got) && got == 0);
        cr_assert(mul_u64(1, UINT64_MAX, &got) && got == UINT64_MAX);
        cr_assert(mul_u64(UINT32_MAX, UINT32_MAX, &got) && got == UINT64_C(0xfffffffe00000001));
        cr_assert(mul_u64(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &got) && got == UINT64_MAX - UINT32_MAX);
}

TEST(overflow, no_product_beyond_it) {
        uint64_t got = MARK;

        cr_assert_not(mul_u64(UINT64_MAX, 2, &got));
        cr_assert_not(mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &got));
        cr_assert_not(mul_u64(UINT64_MAX, UINT64_MAX, &got));
        cr_assert_eq(got, MARK);
}

TEST(overflow, sizes_round_up_to_pages) {
        uint64_t got;

        cr_assert(round_up_u64(0, 4096, &got) && got == 0);
        cr_assert(round_up_u64(1, 4096, &got) && got == 4096);
        cr_assert(round_up_u64(4095, 4096, &got) && got == 4096);
        cr_assert(round_up_u64(4096, 4096, &got) && got == 4096);
        cr_assert(round_up_u64(4097, 4096, &got) && got == 8192);
        cr_assert(round_up_u64(5, 1, &got) && got == 5);
        cr_assert(round_up_u64((UINT64_C(1) << 63) + 1, 4096, &got) && got == (UINT64_C(1) << 63) + 4096);
        cr_assert(round_up_u64(UINT64_MAX - 4095, 4096, &got) && got == UINT64_MAX - 4095);
}

TEST(overflow, a_size_that_has_no_whole_pages_is_refused) {
        uint64_t got = MARK;

        cr_assert_not(round_up_u64(UINT64_MAX, 4096, &got));
        cr_assert_not(round_up_u64(UINT64_MAX - 4094, 4096, &got));
        cr_assert_not(round_up_u64(UINT64_MAX, UINT64_C(1) << 30, &got));
        cr_assert_eq(got, MARK);
}
