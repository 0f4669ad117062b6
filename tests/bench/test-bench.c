/* What every bench stands on: percentiles, turns, and rows as the report reads them. */

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

TEST(bench, a_percentile_is_one_of_the_values) {
        double values[] = { 5, 1, 4, 2, 3 }, hundred[100], one = 7;

        for (int i = 0; i < 100; ++i)
                hundred[i] = 100 - i;
        cr_assert_eq(bench_percentile(values, 5, 50), 3);
        cr_assert_eq(bench_percentile(values, 5, 0), 1);
        cr_assert_eq(bench_percentile(values, 5, 100), 5);
        cr_assert_eq(bench_percentile(values, 4, 50), 2);
        cr_assert_eq(bench_percentile(hundred, 100, 99), 99);
        cr_assert_eq(bench_percentile(hundred, 100, 99.5), 100);
        cr_assert_eq(bench_percentile(&one, 1, 99), 7);
}

TEST(bench, a_ratio_is_of_the_same_round) {
        BenchSeries figure = { .n = 0 }, against = { .n = 0 };

        for (int i = 0; i < 3; ++i) {
                bench_add(&figure, (double[]){ 1, 100, 10 }[i]);
                bench_add(&against, (double[]){ 10, 1, 100 }[i]);
        }
        cr_assert_eq(bench_median(&figure, NULL), 10);
        cr_assert_float_eq(bench_median(&figure, &against), 0.1, 1e-9);
        bench_add(&figure, 20);
        cr_assert_eq(bench_median(&figure, NULL), 15);
        cr_assert_eq(bench_median(BENCH_ONE(4), NULL), 4);
}

static char order[64];

static void run_one(void *userdata, double *ns, size_t n) {
        (void)strncat(order, userdata, 1);
        for (size_t i = 0; i < n; ++i)
                ns[i] = (double)(n - i) * (double)strlen(order);
}

TEST(bench, sides_take_turns_and_the_first_turn_does_not_count) {
        BenchTimes a = { .p50 = { .n = 9 } }, b;

        bench_take_turns((BenchSide[]){ { run_one, (void *)"A", 1, &a }, { run_one, (void *)"B", 100, &b } }, 2, 3);
        cr_assert_str_eq(order, "ABABABAB");
        cr_assert(a.p50.n == 3 && a.p99.n == 3 && b.p50.n == 3 && b.p99.n == 3);
        cr_assert(a.p50.values[0] == 3 && a.p50.values[2] == 7);
        cr_assert(b.p50.values[0] == 50 * 4 && b.p99.values[0] == 99 * 4);
}

TEST(bench, quick_is_asked_for_by_the_environment) {
        cr_assert(unsetenv("SHMD_ROUNDS") == 0 && unsetenv("SHMD_ROUNDS_MOST") == 0);
        cr_assert(setenv("SHMD_BENCH_QUICK", "0", 1) == 0);
        cr_assert(!bench_quick() && bench_rounds(15, 5) == 15);
        cr_assert(setenv("SHMD_BENCH_QUICK", "1", 1) == 0);
        cr_assert(bench_quick() && bench_rounds(15, 5) == 5);
        cr_assert(setenv("SHMD_ROUNDS", "7", 1) == 0);
        cr_assert_eq(bench_rounds(15, 5), 7);
        cr_assert(setenv("SHMD_ROUNDS", "100000", 1) == 0);
        cr_assert_eq(bench_rounds(15, 5), BENCH_ROUNDS_MAX);
}

TEST(bench, a_process_is_kept_on_one_processor_and_let_go) {
        cpu_set_t before, set;

        cr_assert(sched_getaffinity(0, sizeof(before), &before) == 0);
        cr_assert_eq((int)bench_processors(), CPU_COUNT(&before));
        for (int i = 0; i < (int)bench_processors(); ++i) {
                bench_pin(0, i);
                cr_assert(sched_getaffinity(0, sizeof(set), &set) == 0);
                cr_assert(CPU_COUNT(&set) == 1 && CPU_ISSET(sched_getcpu(), &set));
                cr_assert(CPU_ISSET(sched_getcpu(), &before));
        }
        bench_pin(0, BENCH_ANYWHERE);
        cr_assert(sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_EQUAL(&set, &before));
}

TEST(bench, rows_are_appended_as_the_report_reads_them) {
        static const char expected[] =
                "{\"name\": \"a\", \"what\": \"some a\", \"kind\": \"timed\", \"unit\": \"ns\", "
                "\"figure\": [1, 2.5], \"against\": [2, 5], \"target\": {\"at_most\": 1.3}, \"note\": \"why\"}\n"
                "{\"name\": \"b\", \"what\": \"some b\", \"kind\": \"counted\", \"unit\": \"calls\", "
                "\"figure\": [0], \"target\": {\"at_most\": 0}}\n"
                "{\"name\": \"c\", \"what\": \"some c\", \"kind\": \"same\", \"unit\": \"ns\", "
                "\"figure\": [1], \"target\": {\"at_least\": 0.9, \"at_most\": 1.1}}\n"
                "{\"name\": \"d\", \"what\": \"some d\", \"kind\": \"timed\", \"unit\": \"ms\", "
                "\"figure\": [1e-05], \"target\": null}\n"
                "{\"name\": \"e\", \"what\": \"some e\", \"unmeasured\": \"no e in 3 places\"}\n";
        char path[] = "/tmp/shmd-bench-XXXXXX", text[2 * sizeof(expected)] = "";
        int fd = mkostemp(path, O_CLOEXEC);

        cr_assert(fd >= 0 && setenv("SHMD_BENCH_JSON", path, 1) == 0);
        bench_row(&(BenchRow){ .name = "a", .what = "some a", .unit = "ns", .note = "why", .target = BENCH_AT_MOST(1.3),
                               .figure = &(BenchSeries){ .values = { 1, 2.5 }, .n = 2 },
                               .against = &(BenchSeries){ .values = { 2, 5 }, .n = 2 } });
        bench_row(&(BenchRow){ .name = "b", .what = "some b", .unit = "calls", .kind = BENCH_COUNTED,
                               .figure = BENCH_ONE(0), .target = BENCH_AT_MOST(0) });
        bench_row(&(BenchRow){ .name = "c", .what = "some c", .unit = "ns", .kind = BENCH_SAME, .figure = BENCH_ONE(1),
                               .target = BENCH_WITHIN(0.9, 1.1) });
        bench_row(&(BenchRow){ .name = "d", .what = "some d", .unit = "ms", .figure = BENCH_ONE(0.00001) });
        bench_unmeasured("e", "some e", "no e in %d places", 3);
        cr_assert(read(fd, text, sizeof(text) - 1) >= 0);
        cr_assert_str_eq(text, expected);
        cr_assert(unlink(path) == 0);
        close_fd(fd);
}
