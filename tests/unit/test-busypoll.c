/* daemon/broker/busypoll: it pays, or it ends. */

#include "broker/busypoll.h"

#include "lib/test.h"

#define WHILE 1000U

/* What a peer asks, and when. */
typedef struct Asking {
        BusyPoll poll;
        uint64_t now;
        uint64_t until;         /* as the latest answer has it */
} Asking;

#define ASKING_GRANTED { .poll = { .granted = true }, .now = 1 }

/* Another request, so long after the answer to the latest one. Return: whether the broker goes on looking. */
static bool ask(Asking *asking, uint64_t pause) {
        asking->now += pause;
        asking->until = busypoll_next(&asking->poll, asking->now, asking->now + 5, WHILE);
        asking->now += 5;
        REQUIRE(asking->until == 0 || asking->until == asking->now + WHILE, "never longer than that");
        return asking->until;
}

/* Asks too late, over and over. Return: how many requests there were without before the next one with. */
static unsigned int ask_late(Asking *asking) {
        unsigned int n = 0;

        while (!ask(asking, WHILE + 1))
                REQUIRE(++n <= BUSYPOLL_WITHOUT_MAX);
        return n;
}

TEST(busypoll, who_did_not_ask_for_it_does_not_get_it) {
        Asking asking = { .now = 1 };

        for (int i = 0; i < 1000; ++i)
                cr_assert_not(ask(&asking, 0));
}

TEST(busypoll, who_is_quick_enough_has_it_after_each_request) {
        Asking asking = ASKING_GRANTED;

        for (unsigned int i = 0; i < 1000; ++i)
                cr_assert(ask(&asking, i % (WHILE + 1)));
}

TEST(busypoll, in_time_is_up_to_the_end_of_it) {
        Asking asking = ASKING_GRANTED;

        cr_assert(ask(&asking, 0));
        cr_assert(ask(&asking, WHILE));
        cr_assert_not(ask(&asking, WHILE + 1));
}

TEST(busypoll, each_in_vain_is_made_up_for_by_twice_as_many_without) {
        static const unsigned int wanted[] = { 1, 2, 4, 8, 16, 32, 64, 64, 64, 64 };
        Asking asking = ASKING_GRANTED;

        cr_assert(ask(&asking, 0));
        for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); ++i)
                cr_assert_eq(ask_late(&asking), wanted[i], "%zu", i);
}

TEST(busypoll, one_that_was_not_in_vain_settles_what_was_before) {
        Asking asking = ASKING_GRANTED;

        cr_assert(ask(&asking, 0));
        for (int i = 0; i < 10; ++i)
                (void)ask_late(&asking);
        for (int i = 0; i < 100; ++i)
                cr_assert(ask(&asking, 1));
        cr_assert_eq(ask_late(&asking), 1);
        cr_assert_eq(ask_late(&asking), 2);
}

TEST(busypoll, being_quick_after_a_request_without_settles_nothing) {
        Asking asking = ASKING_GRANTED;

        cr_assert(ask(&asking, 0));
        for (int i = 0; i < 7; ++i)
                (void)ask_late(&asking);
        cr_assert_not(ask(&asking, WHILE + 1));
        for (unsigned int i = 1; i < BUSYPOLL_WITHOUT_MAX; ++i)
                cr_assert_not(ask(&asking, 0));
        cr_assert(ask(&asking, 0));
}

/* However it asks: at every moment the broker looks for a request that came less than a while before. */
TEST(busypoll, a_request_costs_no_more_than_one) {
        Asking asking = ASKING_GRANTED;
        uint64_t random = 1, with = 0, n = 100000;

        for (uint64_t i = 0; i < n; ++i) {
                random = random * UINT64_C(6364136223846793005) + 1;
                with += ask(&asking, random >> 40 & 0x7ff);
        }
        cr_assert_leq(with, n);
        cr_assert_gt(with, n / 4, "and who is often quick enough often has one: %lu", (unsigned long)with);
        asking = (Asking)ASKING_GRANTED;
        with = 0;
        for (uint64_t i = 0; i < n; ++i)
                with += ask(&asking, WHILE + 1 + i);
        cr_assert_leq(with, n / (BUSYPOLL_WITHOUT_MAX + 1) + 8, "%lu", (unsigned long)with);
}
