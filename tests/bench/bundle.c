/* What it costs to park descriptors for the next keeper: to add one, to move all without the litter, and to
 * take all back in another process; by how many there are.
 *
 * The kernel's memory is the difference in slabs that cannot be reclaimed, of the whole machine, and good for as
 * much as the machine is quiet.
 */

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bundle.h"
#include "util/deadline.h"

enum {
        MOST = 15000,
        ENDS_MAX = 64,
};

static const size_t steps[] = { 10, 100, 1000, 5000, 10000, MOST };

static int have[MOST];

static Kept stored[ENDS_MAX];
static size_t n_stored;

static int find(void *userdata, const char *name) {
        return have[strtoul(name + 1, NULL, 10)];
}

static int store(void *userdata, const char *name, int fd) {
        REQUIRE(n_stored < ENDS_MAX);
        (void)snprintf(stored[n_stored].name, sizeof(stored[n_stored].name), "%s", name);
        stored[n_stored].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        REQUIRE(stored[n_stored++].fd >= 0);
        return 0;
}

static void unstore(void *userdata, const char *name) {
        for (size_t i = 0; i < n_stored; ++i)
                if (!strcmp(stored[i].name, name)) {
                        close_fd(stored[i].fd);
                        stored[i--] = stored[--n_stored];
                }
}

static Bundle *make(void) {
        BundleOptions options = { .max = 2 * MOST, .find = find, .store = store, .unstore = unstore };
        Bundle *bundle;

        REQUIRE(bundle_new(&bundle, &options) == 0);
        return bundle;
}

typedef struct Costs {
        double add_us, worst_us, take_ms, move_ms, bytes;
        size_t stored;
} Costs;

static void add_all(Bundle *bundle, size_t n, Costs *costs) {
        double worst = 0, before = bench_meminfo("SUnreclaim");
        int64_t began = test_now_ns();
        char name[FDSTORE_NAME_MAX];

        for (size_t i = 0; i < n; ++i) {
                int64_t one = test_now_ns();

                (void)snprintf(name, sizeof(name), "r%zu", i);
                REQUIRE(bundle_add(bundle, name, have[i]) == 0);
                one = test_now_ns() - one;
                worst = (double)one > worst ? (double)one : worst;
        }
        costs->add_us = (double)(test_now_ns() - began) / 1e3 / (double)n;
        costs->worst_us = worst / 1e3;
        costs->bytes = (bench_meminfo("SUnreclaim") - before) / (double)n;
        costs->stored = n_stored;
}

static Bundle *take_all(size_t n, Costs *costs) {
        int64_t began = test_now_ns();
        Bundle *bundle = make();
        Kept *kept, given[ENDS_MAX];
        size_t n_kept, n_given = n_stored;

        for (size_t i = 0; i < n_given; ++i) {
                given[i] = stored[i];
                given[i].fd = fcntl(stored[i].fd, F_DUPFD, 0);
        }
        for (size_t i = 0; i < n_given; ++i)
                REQUIRE(bundle_adopt_consume_fd(bundle, given[i].name, given[i].fd) == 0);
        REQUIRE(bundle_take_all(bundle, &kept, &n_kept) == 0 && n_kept == n);
        for (size_t i = 0; i < n; ++i)
                have[strtoul(kept[i].name + 1, NULL, 10)] = kept[i].fd;
        REQUIRE(bundle_settle(bundle, kept, n) == 0);
        costs->take_ms = (double)(test_now_ns() - began) / 1e6;
        free(kept);
        return bundle;
}

/* One of them goes. */
static void move_all(Bundle *bundle, size_t n, Costs *costs) {
        int64_t began;

        bundle_remove(bundle, have[n / 2]);
        have[n / 2] = close_fd(have[n / 2]);
        began = test_now_ns();
        bundle_tidy(bundle);
        costs->move_ms = (double)(test_now_ns() - began) / 1e6;
}

static Costs once(size_t n) {
        Bundle *bundle = make();
        Costs costs;

        for (size_t i = 0; i < n; ++i) {
                have[i] = memfd_create("bench", MFD_CLOEXEC);
                REQUIRE(have[i] >= 0, "%s", strerror(errno));
        }
        add_all(bundle, n, &costs);
        for (size_t i = 0; i < n; ++i)
                have[i] = close_fd(have[i]);
        bundle_free(bundle);
        bundle = take_all(n, &costs);
        move_all(bundle, n, &costs);
        for (size_t i = 0; i < n; ++i)
                have[i] = close_fd(have[i]);
        bundle_free(bundle);
        while (n_stored > 0)
                close_fd(stored[--n_stored].fd);
        return costs;
}

typedef enum Measure {
        ADD,
        WORST,
        TAKE,
        MOVE,
        STORED,
        KERNEL,
        _MEASURE_N,
} Measure;

static const struct {
        const char *name, *what, *unit;
} measures[_MEASURE_N] = {
        [ADD] = { "add", "to park a descriptor", "us" },
        [WORST] = { "worst", "to park a descriptor, the longest", "us" },
        [TAKE] = { "take", "to take all back", "ms" },
        [MOVE] = { "move", "to park all anew when one has gone", "ms" },
        [STORED] = { "stored", "descriptors that keep the parked ones", "descriptors" },
        [KERNEL] = { "kernel", "the kernel's memory for a parked descriptor", "bytes" },
};

static void measure(size_t n, BenchSeries series[_MEASURE_N]) {
        Costs costs = once(n);

        bench_add(&series[ADD], costs.add_us);
        bench_add(&series[WORST], costs.worst_us);
        bench_add(&series[TAKE], costs.take_ms);
        bench_add(&series[MOVE], costs.move_ms);
        bench_add(&series[STORED], (double)costs.stored);
        bench_add(&series[KERNEL], costs.bytes);
}

/* All that is measured with the most, and of the curve what is on the way of somebody who waits. */
static void say(size_t n, const BenchSeries series[_MEASURE_N]) {
        for (Measure m = 0; m < _MEASURE_N; ++m) {
                char name[64], what[BENCH_WHAT_MAX + 1];

                if (n != MOST && m != ADD && m != TAKE)
                        continue;
                (void)snprintf(name, sizeof(name), "bundle-%s-%zu", measures[m].name, n);
                (void)snprintf(what, sizeof(what), "%s, %zu of them", measures[m].what, n);
                bench_row(&(BenchRow){ .name = name, .what = what, .unit = measures[m].unit, .figure = &series[m] });
        }
}

TEST(bench, bundle) {
        (void)test_raise_fds();
        for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); ++i) {
                BenchSeries series[_MEASURE_N] = { { .n = 0 } };

                for (size_t round = bench_rounds(9, 1); round > 0; --round)
                        measure(steps[i], series);
                say(steps[i], series);
        }
}
