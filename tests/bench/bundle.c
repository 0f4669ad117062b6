/* What it costs to park descriptors for the next keeper: to add one, to move all without the litter, and to
 * take all back in another process; by how many there are.
 *
 * The kernel's memory is the difference in slabs that cannot be reclaimed, of the whole machine, and good for as
 * much as the machine is quiet.
 */

#define TEST_TIMEOUT 600

#include "lib/test.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bundle.h"
#include "util/deadline.h"

enum {
        ROUNDS = 9,
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

static double slab_bytes(void) {
        FILE *file = fopen("/proc/meminfo", "re");
        unsigned long kib = 0;
        char line[128];

        REQUIRE(file);
        while (fgets(line, sizeof(line), file))
                (void)sscanf(line, "SUnreclaim: %lu", &kib);
        (void)fclose(file);
        return (double)kib * 1024;
}

typedef struct Costs {
        double add_us, worst_us, take_ms, move_ms, bytes;
        size_t stored;
} Costs;

static void add_all(Bundle *bundle, size_t n, Costs *costs) {
        double worst = 0, before = slab_bytes();
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
        costs->bytes = (slab_bytes() - before) / (double)n;
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

static int compare(const void *a, const void *b) {
        const Costs *x = a, *y = b;

        return x->take_ms < y->take_ms ? -1 : x->take_ms > y->take_ms;
}

/* The round with the median time of taking all back. */
static Costs median(size_t n) {
        Costs costs[ROUNDS];

        for (size_t i = 0; i < ROUNDS; ++i)
                costs[i] = once(n);
        qsort(costs, ROUNDS, sizeof(*costs), compare);
        return costs[ROUNDS / 2];
}

TEST(bench, bundle) {
        const char *path = getenv("SHMD_BENCH_JSON");
        FILE *file = path ? fopen(path, "we") : NULL;
        struct rlimit limit;

        REQUIRE(file || !path);
        REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        limit.rlim_cur = limit.rlim_max;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        puts("descriptors  stored  add each     longest add  take all     move all     kernel, each");
        for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); ++i) {
                Costs costs = median(steps[i]);

                printf("%11zu %7zu %8.2f us %11.1f us %8.2f ms %9.2f ms %9.0f bytes\n", steps[i], costs.stored,
                       costs.add_us, costs.worst_us, costs.take_ms, costs.move_ms, costs.bytes);
                if (file)
                        fprintf(file, "%s\n  {\"descriptors\": %zu, \"stored\": %zu, \"add_us\": %.3f, \"longest_add_us\": %.1f, "
                                "\"take_ms\": %.3f, \"move_ms\": %.3f, \"kernel_bytes\": %.0f}", i ? "," : "[", steps[i],
                                costs.stored, costs.add_us, costs.worst_us, costs.take_ms, costs.move_ms, costs.bytes);
        }
        if (file)
                REQUIRE(fputs("\n]\n", file) >= 0 && fclose(file) == 0);
        REQUIRE(fflush(stdout) == 0);
}
