/* How long a client waits when the broker is killed, by how many regions there are.
 *
 * The time is from kill(2) to the answer that a client gets which had a connection, asked when the broker
 * was gone, and had to find the next one. It is measured with two clients: one that speaks the protocol
 * itself and connects again at once, which is what the broker and its keeper take; and one that uses
 * libshmd, which is what a program sees. Between two kills there is a pause, as a broker that has just
 * begun is still busy with itself.
 */

#include "bench/bench.h"
#include "bench/many.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shmd.h"

#define PATIENCE UINT64_C(20000000000)

/* How many regions, and within what the answer has to be there; 0: it is part of the curve. */
static const struct {
        uint64_t regions;
        double most_ms;
} steps[] = { { 10, 50 }, { 100, 0 }, { 1000, 0 }, { 5000, 0 }, { 10000, 0 }, { 15000, 250 } };

enum { STEPS = sizeof(steps) / sizeof(*steps) };

typedef struct Step {
        BenchSeries bare, library;
} Step;

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

static void say_all(const Step *all) {
        for (size_t i = 0; i < STEPS; ++i) {
                say_time("bare", "bare client", i, &all[i].bare);
                say_time("library", "libshmd", i, &all[i].library);
        }
}

TEST(bench, a_client_waits_for_a_restart_no_longer_than_promised) {
        Step *all = calloc(STEPS, sizeof(*all));
        shmd *library = NULL;
        Broker *broker;
        Client *client;
        Many many;

        test_needs_root();
        REQUIRE(all);
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = MANY_CONFIG });
        many_init(&many, broker);
        client = client_connect_as(broker, ALICE, ALICE);
        REQUIRE(shmd_connect(&library, broker->socket, PATIENCE) == 0);
        for (size_t i = 0; i < STEPS; ++i) {
                REQUIRE(many_make(&many, steps[i].regions), "there is room for %" PRIu64 " only", many.n);
                measure(broker, client, library, bench_rounds(15, steps[i].most_ms > 0 ? 3 : 1), &all[i]);
        }
        say_all(all);
        free(all);
        shmd_close(library);
        client = client_free(client);
        broker_stop(broker);
}
