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

#include "bench/bench.h"
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

typedef struct Step {
        BenchSeries bare, library;
        uint64_t broker, keeper, slab;
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

static uint64_t memory_of(pid_t pid) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
        return sum_of_lines(path, (const char *[]){ "Pss:", NULL });
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

static void restart_bare(Broker *broker, Client *client, BenchSeries *series) {
        int64_t killed = test_now_ns();

        broker_signal(broker, SIGKILL);
        client_expect_closed(client);
        REQUIRE(client_resume(client, broker, ALICE, ALICE), "the session is lost");
        client_expect_done(client, call_stat(client, "/0/0"));
        bench_add(series, (double)(test_now_ns() - killed) / 1e6);
        broker_await_restart(broker);
}

static void restart_library(Broker *broker, shmd *client, BenchSeries *series) {
        struct shmd_stat_result *stat;
        int64_t killed = test_now_ns();
        int r;

        broker_signal(broker, SIGKILL);
        r = shmd_stat(client, "/0/0", 0, 0, &stat, PATIENCE);
        REQUIRE(r == 0, "%s: %s", strerror(-r), shmd_refusal(client)->sentence);
        bench_add(series, (double)(test_now_ns() - killed) / 1e6);
        shmd_stat_free(stat);
        broker_await_restart(broker);
}

static void measure(Broker *broker, Client *client, shmd *library, size_t runs, Step *step) {
        int pause_ms = bench_quick() ? 50 : 150;

        step->broker = memory_of(broker->pid);
        step->keeper = memory_of(broker->keeper);
        step->slab = sum_of_lines("/proc/meminfo", (const char *[]){ "Slab:", NULL });
        for (size_t i = 0; i < runs; ++i) {
                test_sleep_ms(pause_ms);
                restart_bare(broker, client, &step->bare);
                test_sleep_ms(pause_ms);
                restart_library(broker, library, &step->library);
                /* It had no reason to notice, and notices now. */
                REQUIRE(client_resume(client, broker, ALICE, ALICE), "the session is lost");
        }
}

/* -- the result ----------------------------------------------------------------------------------- */

static void say_time(const char *client, const char *of, size_t i, const BenchSeries *series) {
        char name[64], what[BENCH_WHAT_MAX + 1];
        BenchRow row = { .name = name, .what = what, .unit = "ms", .figure = series };

        (void)snprintf(name, sizeof(name), "restart-%s-%" PRIu64, client, steps[i].regions);
        (void)snprintf(what, sizeof(what), "from SIGKILL to the next answer, %" PRIu64 " regions, %s", steps[i].regions, of);
        if (steps[i].most_ms > 0)
                row.target = (BenchTarget)BENCH_AT_MOST(steps[i].most_ms);
        bench_row(&row);
}

/* What the regions between the first and the last step cost, each. */
static void say_memory(const char *name, const char *what, uint64_t few, uint64_t many) {
        double regions = (double)(steps[STEPS - 1].regions - steps[0].regions);

        bench_row(&(BenchRow){ .name = name, .what = what, .unit = "bytes", .kind = BENCH_COUNTED,
                               .figure = BENCH_ONE(((double)many - (double)few) / regions) });
}

static void say_all(const Step *all) {
        const Step *few = &all[0], *many = &all[STEPS - 1];

        for (size_t i = 0; i < STEPS; ++i) {
                say_time("bare", "bare client", i, &all[i].bare);
                say_time("library", "libshmd", i, &all[i].library);
        }
        say_memory("restart-memory-broker", "proportional memory of the broker for a region", few->broker,
                   many->broker);
        say_memory("restart-memory-keeper", "proportional memory of the keeper for a region", few->keeper,
                   many->keeper);
        say_memory("restart-memory-kernel", "the kernel's memory for a region", few->slab, many->slab);
}

TEST(bench, a_client_waits_for_a_restart_no_longer_than_promised) {
        uint64_t made = 0;
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
                measure(broker, client, library, bench_rounds(15, steps[i].most_ms > 0 ? 3 : 1), &all[i]);
        }
        say_all(all);
        free(all);
        shmd_close(library);
        client = client_free(client);
        broker_stop(broker);
}
