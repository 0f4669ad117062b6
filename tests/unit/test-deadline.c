/* daemon/util/deadline: what is due, in the order of the times. */

#include "daemon-house.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static Deadlines queue;
static char ran[64];            /* names of those that ran, in order */

static void note(Deadline *deadline, void *userdata) {
        cr_assert_not(deadline_is_armed(deadline), "disarmed before it is called");
        (void)strcat(ran, userdata);
}

static void begin(void) {
        deadlines_init(&queue);
        ran[0] = '\0';
}

static void arm(Deadline *deadline, uint64_t at, const char *name) {
        deadline_arm(deadline, &queue, at, note, (void *)name);
}

TEST(deadline, nothing_armed_is_never) {
        begin();
        cr_assert_eq(deadlines_next(&queue), DEADLINE_NEVER);
        deadlines_run(&queue, DEADLINE_NEVER);
        deadlines_deinit(&queue);
}

TEST(deadline, they_run_in_the_order_of_their_times) {
        Deadline a = DEADLINE_NULL, b = DEADLINE_NULL, c = DEADLINE_NULL, d = DEADLINE_NULL;

        begin();
        arm(&c, 30, "c");
        arm(&a, 10, "a");
        arm(&d, UINT64_MAX - 1, "d");
        arm(&b, 20, "b");
        cr_assert_eq(deadlines_next(&queue), 10);
        deadlines_run(&queue, 30);
        cr_assert_str_eq(ran, "abc");
        cr_assert_eq(deadlines_next(&queue), UINT64_MAX - 1);
        deadlines_run(&queue, UINT64_MAX);
        cr_assert_str_eq(ran, "abcd");
        deadlines_deinit(&queue);
}

TEST(deadline, it_is_due_at_its_time_and_not_a_nanosecond_before) {
        Deadline a = DEADLINE_NULL;

        begin();
        arm(&a, 1000, "a");
        deadlines_run(&queue, 999);
        cr_assert_str_eq(ran, "");
        deadlines_run(&queue, 1000);
        cr_assert_str_eq(ran, "a");
        deadlines_run(&queue, 1001);
        cr_assert_str_eq(ran, "a", "it runs once");
        deadlines_deinit(&queue);
}

TEST(deadline, among_equal_times_the_first_armed_is_the_first_served) {
        Deadline d[5] = { DEADLINE_NULL };
        static const char *const names[] = { "a", "b", "c", "d", "e" };

        begin();
        for (size_t i = 0; i < 5; ++i)
                arm(&d[i], 7, names[i]);
        arm(&d[1], 7, "b");     /* armed anew: it is last now */
        deadlines_run(&queue, 7);
        cr_assert_str_eq(ran, "acdeb");
        deadlines_deinit(&queue);
}

TEST(deadline, arming_an_armed_one_moves_it) {
        Deadline a = DEADLINE_NULL, b = DEADLINE_NULL;

        begin();
        arm(&a, 10, "a");
        arm(&b, 20, "b");
        arm(&a, 30, "A");
        cr_assert_eq(deadlines_next(&queue), 20);
        deadlines_run(&queue, 30);
        cr_assert_str_eq(ran, "bA");
        deadlines_deinit(&queue);
}

TEST(deadline, disarming_takes_it_away_and_twice_is_harmless) {
        Deadline a = DEADLINE_NULL, b = DEADLINE_NULL;

        begin();
        deadline_disarm(&a);
        arm(&a, 10, "a");
        arm(&b, 10, "b");
        cr_assert(deadline_is_armed(&a));
        deadline_disarm(&a);
        deadline_disarm(&a);
        cr_assert_not(deadline_is_armed(&a));
        deadlines_run(&queue, 10);
        cr_assert_str_eq(ran, "b");
        deadlines_deinit(&queue);
}

static void again(Deadline *deadline, void *userdata) {
        uint64_t *at = userdata;

        (void)strcat(ran, "r");
        REQUIRE(strlen(ran) < sizeof(ran) - 1, "it runs without end");
        deadline_arm(deadline, &queue, *at, again, userdata);
}

TEST(deadline, armed_again_for_the_past_it_runs_in_the_next_run_only) {
        Deadline a = DEADLINE_NULL, b = DEADLINE_NULL;
        uint64_t past = 0;

        begin();
        deadline_arm(&a, &queue, 5, again, &past);
        arm(&b, 6, "b");
        deadlines_run(&queue, 10);
        cr_assert_str_eq(ran, "rb", "it stands before b by its time, and b is not kept waiting");
        cr_assert_eq(deadlines_next(&queue), 0);
        deadlines_run(&queue, 10);
        cr_assert_str_eq(ran, "rbr");
        deadline_disarm(&a);
        deadlines_deinit(&queue);
}

TEST(deadline, armed_again_for_now_it_waits_for_the_next_run_too) {
        Deadline a = DEADLINE_NULL;
        uint64_t now = 10;

        begin();
        deadline_arm(&a, &queue, 10, again, &now);
        deadlines_run(&queue, 10);
        cr_assert_str_eq(ran, "r");
        deadlines_run(&queue, 9);
        cr_assert_str_eq(ran, "r");
        deadlines_run(&queue, 10);
        cr_assert_str_eq(ran, "rr");
        deadline_disarm(&a);
        deadlines_deinit(&queue);
}


static void disarm_other(Deadline *deadline, void *userdata) {
        (void)strcat(ran, "k");
        deadline_disarm(userdata);
}

TEST(deadline, one_may_disarm_another_that_is_due_in_the_same_run) {
        Deadline killer = DEADLINE_NULL, victim = DEADLINE_NULL, after = DEADLINE_NULL;

        begin();
        deadline_arm(&killer, &queue, 1, disarm_other, &victim);
        arm(&victim, 2, "v");
        arm(&after, 3, "a");
        deadlines_run(&queue, 3);
        cr_assert_str_eq(ran, "ka");
        cr_assert_not(deadline_is_armed(&victim));
        deadlines_deinit(&queue);
}

static void free_it(Deadline *deadline, void *userdata) {
        (void)strcat(ran, "f");
        free(deadline);
}

TEST(deadline, one_may_free_itself) {
        Deadline *deadline = calloc(1, sizeof(*deadline));
        Deadline after = DEADLINE_NULL;

        begin();
        deadline_arm(deadline, &queue, 1, free_it, NULL);
        arm(&after, 1, "a");
        deadlines_run(&queue, 1);
        cr_assert_str_eq(ran, "fa");
        deadlines_deinit(&queue);
}

static void arm_other(Deadline *deadline, void *userdata) {
        (void)strcat(ran, "o");
        arm(userdata, 1, "n");
}

TEST(deadline, what_is_armed_during_a_run_waits_for_the_next_whoever_arms_it) {
        Deadline first = DEADLINE_NULL, new = DEADLINE_NULL, last = DEADLINE_NULL;

        begin();
        deadline_arm(&first, &queue, 2, arm_other, &new);
        arm(&last, 3, "l");
        deadlines_run(&queue, 3);
        cr_assert_str_eq(ran, "ol");
        deadlines_run(&queue, 3);
        cr_assert_str_eq(ran, "oln");
        deadlines_deinit(&queue);
}

TEST(deadline, ten_thousand_in_any_order_come_out_sorted) {
        enum { N = 10000 };
        Deadline *deadlines = calloc(N, sizeof(*deadlines));
        uint64_t before = 0;

        begin();
        for (uint32_t i = 0; i < N; ++i)
                arm(&deadlines[i], (i * UINT64_C(7919)) % 10007, "");
        while (deadlines_next(&queue) != DEADLINE_NEVER) {
                uint64_t at = deadlines_next(&queue);

                cr_assert_geq(at, before);
                before = at;
                deadlines_run(&queue, at);
                cr_assert_gt(deadlines_next(&queue), at);
        }
        deadlines_deinit(&queue);
        free(deadlines);
}

static int deinit_armed(void *userdata) {
        Deadline a = DEADLINE_NULL;

        begin();
        arm(&a, 10, "a");
        deadlines_deinit(&queue);
        return 0;
}

TEST(deadline, a_queue_that_ends_with_one_still_armed_is_a_bug) {
        house_expect_signal(SIGABRT, deinit_armed, NULL);
}

TEST(deadline, what_the_clock_said_last_stays_until_it_is_read_again) {
        uint64_t first = time_now(), next;

        cr_assert_eq(time_latest(), first);
        (void)time_wall();
        cr_assert_eq(time_latest(), first, "the wall has another one");
        while ((next = time_now()) == first)
                continue;
        cr_assert_eq(time_latest(), next);
}

TEST(deadline, the_clock_is_monotonic_and_the_wall_has_its_own) {
        uint64_t before = time_now();

        cr_assert_geq(time_now(), before);
        cr_assert_leq(time_now() / NSEC_PER_SEC, (uint64_t)test_now_ns() / NSEC_PER_SEC + 1);
        cr_assert_gt(time_wall(), UINT64_C(1700000000) * NSEC_PER_SEC);
}
