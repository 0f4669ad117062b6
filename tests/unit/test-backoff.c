/* daemon/backoff: when the next broker is started. */

#include "backoff.h"

#include "lib/test.h"
#include "util/deadline.h"

#define MS NSEC_PER_MSEC
#define S NSEC_PER_SEC

TEST(backoff, one_that_was_ready_is_followed_at_once) {
        static const ConfigKeeper config = { .restarts = 0, .window = 60 * S };
        Backoff backoff = { .n_failures = 0 };

        for (uint64_t i = 0; i < 1000; ++i)
                cr_assert_eq(backoff_next(&backoff, &config, true, i, i), 0);
}

TEST(backoff, one_that_never_was_is_waited_after_longer_and_longer) {
        static const ConfigKeeper config = { .restarts = 0, .window = 60 * S };
        static const uint64_t wanted[] = { 0, 10 * MS, 20 * MS, 40 * MS, 80 * MS, 160 * MS, 320 * MS, 640 * MS, S, S };
        Backoff backoff = { .n_failures = 0 };

        for (int round = 0; round < 2; ++round) {
                for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); ++i)
                        cr_assert_eq(backoff_next(&backoff, &config, false, 0, 0), wanted[i]);
                backoff_ready(&backoff);
        }
}

TEST(backoff, the_limit_is_exact) {
        static const ConfigKeeper config = { .restarts = 3, .window = 60 * S };
        Backoff backoff = { .n_failures = 0 };

        for (int round = 0; round < 3; ++round) {
                for (int i = 0; i < 3; ++i)
                        cr_assert_neq(backoff_next(&backoff, &config, i % 2, 7 * S, 7 * S + MS), BACKOFF_GIVE_UP);
                cr_assert_eq(backoff_next(&backoff, &config, false, 7 * S, 7 * S + MS), BACKOFF_GIVE_UP);
        }
}

TEST(backoff, failures_are_counted_in_a_window) {
        static const ConfigKeeper config = { .restarts = 1, .window = 10 * S };
        Backoff backoff = { .n_failures = 0 };

        for (uint64_t now = 0; now < 1000 * S; now += 10 * S + 1)
                cr_assert_neq(backoff_next(&backoff, &config, true, now, now), BACKOFF_GIVE_UP);
        cr_assert_neq(backoff_next(&backoff, &config, true, 2000 * S, 2000 * S), BACKOFF_GIVE_UP);
        cr_assert_eq(backoff_next(&backoff, &config, true, 2010 * S, 2010 * S), BACKOFF_GIVE_UP);
}

TEST(backoff, one_that_served_for_a_while_did_not_fail) {
        static const ConfigKeeper config = { .restarts = 1, .window = 60 * S };
        Backoff backoff = { .n_failures = 0 };

        for (uint64_t i = 0; i < 100; ++i)
                cr_assert_eq(backoff_next(&backoff, &config, true, i, i + S), 0);
        cr_assert_eq(backoff_next(&backoff, &config, true, 0, S - 1), 0);
        cr_assert_eq(backoff_next(&backoff, &config, true, 0, S - 1), BACKOFF_GIVE_UP);
}
