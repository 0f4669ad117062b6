/* daemon/broker/busypoll: it pays, or it ends. */

#include "broker/busypoll.h"

#include "lib/test.h"

#define WHILE 1000U

/* A peer, and what it asks. */
typedef struct Asking {
        BusyPoll poll;
        uint64_t now;
        uint64_t until;         /* as the latest answer has it; 0: the broker sleeps */
} Asking;

static Asking asking_new(void) {
        Asking asking = { .now = 1 };

        busypoll_grant(&asking.poll);
        return asking;
}

/* Another request, so long after the answer to the latest one. Return: whether the broker goes on looking. */
static bool ask(Asking *asking, uint64_t pause) {
        asking->now += pause;
        asking->until = busypoll_next(&asking->poll, asking->now, asking->now + 5, WHILE);
        asking->now += 5;
        REQUIRE(asking->until == 0 || asking->until == asking->now + WHILE, "never longer than that");
        return asking->until;
}

/* Asks, as one that makes such a pause if the broker is awake and such a one if not. Return: how many of n requests
 * had the broker go on looking. */
static unsigned int ask_many(Asking *asking, uint64_t awake, uint64_t asleep, unsigned int n) {
        unsigned int with = 0;

        for (unsigned int i = 0; i < n; ++i)
                with += ask(asking, asking->until ? awake : asleep);
        return with;
}

static const unsigned int tried = 2 * BUSYPOLL_TRY, cycle = 2 * BUSYPOLL_TRY + BUSYPOLL_HOLD,
                          first = 2 * BUSYPOLL_TRY + BUSYPOLL_HOLD_FIRST;

/* So many requests are without it, after the trial that comes the n-th time, from 0, to nothing. */
static unsigned int hold(unsigned int n) {
        return BUSYPOLL_HOLD_FIRST << n < BUSYPOLL_HOLD ? BUSYPOLL_HOLD_FIRST << n : BUSYPOLL_HOLD;
}

TEST(busypoll, who_did_not_ask_for_it_does_not_get_it) {
        Asking asking = { .now = 1 };

        cr_assert_eq(ask_many(&asking, 0, 0, 1000), 0);
}

TEST(busypoll, it_is_tried_and_goes_on_where_it_makes_pauses_shorter) {
        Asking asking = asking_new();

        cr_assert_eq(ask_many(&asking, 500, 900, tried), BUSYPOLL_TRY);
        cr_assert_eq(ask_many(&asking, 500, 900, BUSYPOLL_HOLD), BUSYPOLL_HOLD);
        for (int i = 0; i < 3; ++i)
                cr_assert_eq(ask_many(&asking, 500, 900, cycle), cycle - BUSYPOLL_TRY);
}

TEST(busypoll, where_it_does_not_it_ends_until_it_is_tried_again) {
        static const uint64_t pauses[][2] = { { 500, 500 }, { 700, 500 }, { 500, 501 }, { 0, 0 }, { 900, 1000 } };

        for (size_t i = 0; i < sizeof(pauses) / sizeof(*pauses); ++i) {
                Asking asking = asking_new();

                for (unsigned int k = 0; k < 8; ++k)
                        cr_assert_eq(ask_many(&asking, pauses[i][0], pauses[i][1], tried + hold(k)), BUSYPOLL_TRY,
                                     "%zu, trial %u", i, k);
        }
}

TEST(busypoll, what_it_saves_is_more_than_an_eighth) {
        Asking eighth = asking_new(), more = asking_new();

        cr_assert_eq(ask_many(&eighth, 700, 800, first), BUSYPOLL_TRY);
        cr_assert_eq(ask_many(&more, 699, 800, cycle), BUSYPOLL_TRY + BUSYPOLL_HOLD);
}

TEST(busypoll, a_peer_that_changes_is_found_out_the_next_time) {
        Asking asking = asking_new();

        for (unsigned int i = 0; i < 10; ++i)
                (void)ask_many(&asking, 900, 500, tried + hold(i));
        cr_assert_eq(ask_many(&asking, 500, 900, cycle), BUSYPOLL_TRY + BUSYPOLL_HOLD);
        cr_assert_eq(ask_many(&asking, 900, 500, first), BUSYPOLL_TRY, "and as it has paid, it is tried again soon");
        cr_assert_eq(ask_many(&asking, 500, 900, cycle), BUSYPOLL_TRY + BUSYPOLL_HOLD);
}

TEST(busypoll, who_is_late_several_times_in_a_row_has_it_no_more) {
        Asking late = asking_new(), quick = asking_new();

        for (unsigned int i = 0; i < 100; ++i)
                cr_assert_eq(ask_many(&late, WHILE + 1, WHILE + 1, hold(i < 10 ? i : 10) + BUSYPOLL_VAIN),
                             BUSYPOLL_VAIN);

        (void)ask_many(&quick, 500, 900, tried + 1000);
        cr_assert_eq(ask_many(&quick, WHILE + 1, WHILE + 1, BUSYPOLL_VAIN), BUSYPOLL_VAIN - 1);
        cr_assert_eq(ask_many(&quick, 500, 900, BUSYPOLL_HOLD_FIRST - 1), 0);
        cr_assert(ask(&quick, 900), "and it is tried again");
}

TEST(busypoll, one_in_time_settles_those_in_vain) {
        Asking asking = asking_new();

        (void)ask_many(&asking, 500, 900, tried);
        for (unsigned int i = 0; i < BUSYPOLL_HOLD / BUSYPOLL_VAIN - 1; ++i) {
                cr_assert_eq(ask_many(&asking, WHILE + 1, 900, BUSYPOLL_VAIN - 1), BUSYPOLL_VAIN - 1);
                cr_assert(ask(&asking, WHILE));
        }
}

/* As a process sleeps, or is not let go on, now and then. */
TEST(busypoll, long_pauses_do_not_decide) {
        Asking asking = asking_new();

        for (unsigned int i = 0; i < BUSYPOLL_TRY; ++i)
                (void)ask(&asking, i % 32 == 31 ? UINT32_MAX : 500);
        cr_assert_eq(ask_many(&asking, 500, 900, BUSYPOLL_TRY), 0);
        cr_assert_eq(ask_many(&asking, 500, 900, 1000), 1000);
}

TEST(busypoll, a_request_costs_no_more_than_one) {
        Asking asking = asking_new();
        uint64_t random = 1;

        for (int i = 0; i < 1000000; ++i) {
                random = random * UINT64_C(6364136223846793005) + 1;
                (void)ask(&asking, random >> 40 & 0x7ff);
        }
}
