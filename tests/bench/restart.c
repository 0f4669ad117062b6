/* How long a client waits when the broker is killed, and what a region costs while nothing happens.
 *
 * The time is from kill(2) to the answer that a client gets which had a connection, asked when the broker
 * was gone, and had to find the next one. It is measured with two clients: one that speaks the protocol
 * itself and connects again at once, which is what the broker and its keeper take; and one that uses
 * libshmd, which is what a program sees. Between two kills there is a pause, as a broker that has just
 * begun is still busy with itself.
 *
 * Memory is read from smaps_rollup and meminfo, with all regions there and nobody holding them: the
 * difference to a broker with hardly any, by their number. The kernel's figure is of the whole machine,
 * and good for as much as the machine is quiet.
 */

#define TEST_TIMEOUT 1200

#include "lib/client.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shmd.h"

enum {
        RUNS = 15,
        RUNS_MAX = 1000,
        PAUSE_MS = 150,
        BATCH = 100,
        DIRECTORY = 1000,       /* names in one */
};

#define PATIENCE UINT64_C(20000000000)

/* As many as the limit of descriptors leaves room for. Nobody gets all of that, but the next user gets a
 * share of what is left. */
static const char config[] = "[global]\npeers = 64\n[account]\nregions = unlimited\n"
                             "[keeper]\nrestarts = 0\n";

enum { USERS = 20 };

/* How many regions, and within what the answer has to be there; 0: it is part of the curve. */
static const struct {
        uint64_t regions;
        double most_ms;
} steps[] = { { 10, 50 }, { 100, 0 }, { 1000, 0 }, { 5000, 0 }, { 10000, 0 }, { 15000, 250 } };

enum { STEPS = sizeof(steps) / sizeof(*steps) };

typedef struct Memory {
        uint64_t pss, private_bytes;
} Memory;

typedef struct Times {
        double ms[RUNS_MAX];
        size_t n;
} Times;

typedef struct Step {
        Times bare, library;
        Memory broker, keeper;
        uint64_t slab;
} Step;

/* -- memory ---------------------------------------------------------------------------------- */

/* The sum of the lines of a file of /proc that begin so, which are in kB. */
static uint64_t sum_of_lines(const char *path, const char *const starts[]) {
        char line[256];
        uint64_t sum = 0;
        FILE *file = fopen(path, "re");

        REQUIRE(file, "%s: %s", path, strerror(errno));
        while (fgets(line, sizeof(line), file))
                for (size_t i = 0; starts[i]; ++i)
                        if (strncmp(line, starts[i], strlen(starts[i])) == 0)
                                sum += strtoull(line + strlen(starts[i]), NULL, 10) * 1024;
        (void)fclose(file);
        return sum;
}

static Memory memory_of(pid_t pid) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
        return (Memory){ .pss = sum_of_lines(path, (const char *[]){ "Pss:", NULL }),
                         .private_bytes = sum_of_lines(path, (const char *[]){ "Private_Clean:", "Private_Dirty:", NULL }) };
}

/* -- regions ----------------------------------------------------------------------------------- */

/* Makes some, in one directory. Return: whether the user had room for them. */
static bool make_batch(Client *client, uint64_t from, uint64_t n) {
        Shmd__BatchItem items[BATCH], *list[BATCH];
        Shmd__Create creates[BATCH];
        char paths[BATCH][64];
        uint32_t error;

        for (uint64_t i = 0; i < n; ++i) {
                (void)snprintf(paths[i], sizeof(paths[i]), "/%" PRIu64 "/%" PRIu64, from / DIRECTORY, from + i);
                creates[i] = (Shmd__Create)SHMD__CREATE__INIT;
                creates[i].path = BYTES(paths[i]);
                creates[i].size = PAGE;
                creates[i].mode = 0644;
                items[i] = (Shmd__BatchItem)SHMD__BATCH_ITEM__INIT;
                items[i].create = &creates[i];
                list[i] = &items[i];
        }
        error = client_call(client, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = n, .items = list));
        if (error == SHMD__ERROR__ERROR_QUOTA)
                return false;
        client_expect_done(client, error);
        return true;
}

/* Whoever is not needed is not there: the shares are smaller the more there are. */
static void make_regions(Broker *broker, uid_t *user, uint64_t from, uint64_t to) {
        Client *client = client_connect_as(broker, *user, ALICE);
        uint64_t most = BATCH;

        while (from < to) {
                uint64_t n = to - from, left = DIRECTORY - from % DIRECTORY;
                char path[64];

                n = n > left ? left : n;
                n = n > most ? most : n;
                (void)snprintf(path, sizeof(path), "/%" PRIu64, from / DIRECTORY);
                if (from % DIRECTORY == 0)
                        client_expect_done(client, call_mkdir(client, path, 0777));
                if (make_batch(client, from, n)) {
                        from += n;
                        continue;
                }
                if ((most /= 4) > 0)
                        continue;
                most = BATCH;
                client = client_free(client);
                client = client_connect_as(broker, ++*user, ALICE);
                REQUIRE(*user < ALICE + USERS, "there is room for %" PRIu64 " regions only", from);
        }
        client = client_free(client);
}

/* -- one restart --------------------------------------------------------------------------------- */

static void note(Times *times, int64_t since) {
        REQUIRE(times->n < RUNS_MAX);
        times->ms[times->n++] = (double)(test_now_ns() - since) / 1e6;
}

static void restart_bare(Broker *broker, Client *client, Times *times) {
        int64_t killed = test_now_ns();

        broker_signal(broker, SIGKILL);
        client_expect_closed(client);
        REQUIRE(client_resume(client, broker, ALICE, ALICE), "the session is lost");
        client_expect_done(client, call_stat(client, "/0/0"));
        note(times, killed);
        broker_await_restart(broker);
}

static void restart_library(Broker *broker, shmd *client, Times *times) {
        struct shmd_stat_result *stat;
        int64_t killed = test_now_ns();
        int r;

        broker_signal(broker, SIGKILL);
        r = shmd_stat(client, "/0/0", 0, 0, &stat, PATIENCE);
        REQUIRE(r == 0, "%s: %s", strerror(-r), shmd_refusal(client)->sentence);
        note(times, killed);
        shmd_stat_free(stat);
        broker_await_restart(broker);
}

static void measure(Broker *broker, Client *client, shmd *library, uint64_t runs, Step *step) {
        step->broker = memory_of(broker->pid);
        step->keeper = memory_of(broker->keeper);
        step->slab = sum_of_lines("/proc/meminfo", (const char *[]){ "Slab:", NULL });
        for (uint64_t i = 0; i < runs; ++i) {
                test_sleep_ms(PAUSE_MS);
                restart_bare(broker, client, &step->bare);
                test_sleep_ms(PAUSE_MS);
                restart_library(broker, library, &step->library);
                /* It had no reason to notice, and notices now. */
                REQUIRE(client_resume(client, broker, ALICE, ALICE), "the session is lost");
        }
}

/* -- the result ----------------------------------------------------------------------------------- */

static int compare_times(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

/* The nearest rank. */
static double percentile(const Times *times, unsigned int percent) {
        size_t rank = (times->n * percent + 99) / 100;

        return times->ms[rank ? rank - 1 : 0];
}

static void print_times(FILE *json, const char *name, uint64_t regions, Times *times) {
        qsort(times->ms, times->n, sizeof(*times->ms), compare_times);
        printf("%8" PRIu64 "  %-8s %9.1f %9.1f %9.1f\n", regions, name, times->ms[0], percentile(times, 50),
               percentile(times, 99));
        fprintf(json, "    {\"regions\": %" PRIu64 ", \"client\": \"%s\", \"runs\": %zu, \"min_ms\": %.3f, "
                "\"median_ms\": %.3f, \"p99_ms\": %.3f}", regions, name, times->n, times->ms[0], percentile(times, 50),
                percentile(times, 99));
}

static void print_memory(FILE *json, const char *name, Memory few, Memory many, uint64_t regions, const char *end) {
        double n = (double)regions;

        printf("%-8s %8" PRIu64 " KiB (%" PRIu64 " KiB private), %.0f bytes a region (%.0f private)\n", name,
               many.pss / 1024, many.private_bytes / 1024, ((double)many.pss - (double)few.pss) / n,
               ((double)many.private_bytes - (double)few.private_bytes) / n);
        fprintf(json, "    {\"process\": \"%s\", \"pss\": %" PRIu64 ", \"private\": %" PRIu64 ", \"pss_per_region\": %.1f, "
                "\"private_per_region\": %.1f}%s\n", name, many.pss, many.private_bytes,
                ((double)many.pss - (double)few.pss) / n, ((double)many.private_bytes - (double)few.private_bytes) / n,
                end);
}

static void print_all(Step *all) {
        const char *path = getenv("SHMD_BENCH_JSON");
        const Step *few = &all[0], *many = &all[STEPS - 1];
        uint64_t more = steps[STEPS - 1].regions - steps[0].regions;
        FILE *json = fopen(path ? path : "/dev/null", "we");

        REQUIRE(json, "%s: %s", path, strerror(errno));
        printf("From SIGKILL to the next answer, ms:\n regions  client         min    median       p99\n");
        fprintf(json, "{\n  \"restart\": [\n");
        for (size_t i = 0; i < STEPS; ++i) {
                print_times(json, "bare", steps[i].regions, &all[i].bare);
                fprintf(json, ",\n");
                print_times(json, "libshmd", steps[i].regions, &all[i].library);
                fprintf(json, "%s\n", i + 1 < STEPS ? "," : "");
        }
        printf("\nMemory with %" PRIu64 " regions, proportional set size:\n", steps[STEPS - 1].regions);
        fprintf(json, "  ],\n  \"memory\": [\n");
        print_memory(json, "broker", few->broker, many->broker, more, ",");
        print_memory(json, "keeper", few->keeper, many->keeper, more, ",");
        printf("kernel   %.0f bytes of slab a region\n", ((double)many->slab - (double)few->slab) / (double)more);
        fprintf(json, "    {\"process\": \"kernel\", \"slab_per_region\": %.1f}\n  ]\n}\n",
                ((double)many->slab - (double)few->slab) / (double)more);
        REQUIRE(fclose(json) == 0 && fflush(stdout) == 0);
}

static void require_bounds(const Step *all) {
        for (size_t i = 0; i < STEPS; ++i) {
                double bare = percentile(&all[i].bare, 50), library = percentile(&all[i].library, 50);

                if (steps[i].most_ms <= 0)
                        continue;
                REQUIRE(bare < steps[i].most_ms && library < steps[i].most_ms,
                        "with %" PRIu64 " regions: %.1f and %.1f ms, not within %.0f", steps[i].regions, bare, library,
                        steps[i].most_ms);
        }
}

TEST(bench, a_client_waits_for_a_restart_no_longer_than_promised) {
        uint64_t made = 0, runs = test_rounds(RUNS);
        Step *all = calloc(STEPS, sizeof(*all));
        shmd *library = NULL;
        uid_t user = ALICE;
        Broker *broker;
        Client *client;

        test_needs_root();
        REQUIRE(all);
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config });
        client = client_connect_as(broker, ALICE, ALICE);
        REQUIRE(shmd_connect(&library, broker->socket, PATIENCE) == 0);
        for (size_t i = 0; i < STEPS; ++i) {
                make_regions(broker, &user, made, steps[i].regions);
                made = steps[i].regions;
                measure(broker, client, library, runs, &all[i]);
        }
        print_all(all);
        require_bounds(all);
        free(all);
        shmd_close(library);
        client = client_free(client);
        broker_stop(broker);
}
