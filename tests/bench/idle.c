/* That a broker with nothing to do does nothing: no timer that looks whether there is anything, no rounds.
 *
 * There are regions and connections, half of which asked for busy-polling, regions without a name that somebody
 * holds, a watch and a wait, so that there is all that things could be done for. A process that wakes up is one that
 * the kernel switches to, and away from again when it waits: /proc/PID/status has how often. All processes of the
 * service count: the keeper, the broker and its helper. The watchdog's sign of life, one each 15 s unless that is
 * configured, is off.
 */

#include "bench/bench.h"
#include "bench/many.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
        REGIONS = 1000,
        PEERS = 100,
        ORPHANS = 10,
        PROCESSES_MAX = 16,
        SETTLE_MS = 2000,       /* between two probes of what somebody held is less */
        LOOK_MS = 50,           /* how often it is looked who woke up meanwhile */
        WAIT_MS = 10000,
        WAIT_QUICK_MS = 1500,
};

typedef struct Processes {
        struct {
                pid_t pid;
                char name[32];
                uint64_t before;
        } of[PROCESSES_MAX];
        size_t n;
} Processes;

static uint64_t switches(pid_t pid, char name[32]) {
        uint64_t n, sum = 0;
        char path[64], line[256];
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
        file = fopen(path, "re");
        REQUIRE(file, "%s: %s", path, strerror(errno));
        while (fgets(line, sizeof(line), file)) {
                (void)sscanf(line, "Name: %31s", name);
                if (sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &n) == 1 ||
                    sscanf(line, "nonvoluntary_ctxt_switches: %" SCNu64, &n) == 1)
                        sum += n;
        }
        (void)fclose(file);
        return sum;
}

/* A process and what it started. */
static void find(Processes *processes, pid_t pid) {
        char path[64];
        FILE *file;
        int child;

        REQUIRE(processes->n < PROCESSES_MAX);
        processes->of[processes->n].pid = pid;
        processes->of[processes->n].before = switches(pid, processes->of[processes->n].name);
        ++processes->n;
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
        file = fopen(path, "re");
        REQUIRE(file, "%s: %s", path, strerror(errno));
        while (fscanf(file, "%d", &child) == 1)
                find(processes, child);
        (void)fclose(file);
}

/* Return: how often they woke up since they were found; *note says which. */
static uint64_t count(const Processes *processes, char note[256]) {
        uint64_t sum = 0;
        size_t n = 0;

        for (size_t i = 0; i < processes->n; ++i) {
                char name[32] = "";
                uint64_t woke = switches(processes->of[i].pid, name) - processes->of[i].before;

                sum += woke;
                n += (size_t)snprintf(note + n, 256 - n, "%s%s %" PRIu64, i ? ", " : "", name, woke);
                REQUIRE(n < 256);
        }
        return sum;
}

static Client *connect_client(Broker *broker, uid_t uid, uint64_t features) {
        Client *client = client_connect_silently(broker, uid, ALICE);

        client->features = features;
        client_expect_done(client, client_hello(client));
        return client;
}

/* Finds the processes, and returns when none of them woke up for a while. */
static void settle(Processes *processes, pid_t keeper) {
        int64_t now = test_now_ms(), end = now + TEST_PATIENCE_MS, quiet_since = now;
        char note[256];

        processes->n = 0;
        for (; now < end && now < quiet_since + SETTLE_MS; now = test_now_ms()) {
                if (processes->n == 0 || count(processes, note) > 0) {
                        processes->n = 0;
                        find(processes, keeper);
                        quiet_since = now;
                }
                test_sleep_ms(LOOK_MS);
        }
}

/* What a broker could think of doing something for. */
static void populate(Broker *broker, Client *clients[PEERS], Grant orphans[ORPHANS]) {
        Many many;

        many_init(&many, broker);
        REQUIRE(many_make(&many, REGIONS));
        for (size_t i = 0; i < PEERS; ++i)
                clients[i] = connect_client(broker, ALICE + (uid_t)(i % 4),
                                            i % 2 ? SHMD__FEATURES__FEATURE_BUSY_POLL : 0);
        for (size_t i = 0; i < ORPHANS; ++i)
                client_expect_done(clients[0], call_create(clients[0], NULL, PAGE, &orphans[i]));
        client_expect_done(clients[1], client_call(clients[1], MESSAGE_WATCH,
                                                   REQUEST(Watch, watch, .path = BYTES("/"),
                                                           .mask = SHMD__EVENT_MASK__EVENT_CREATED)));
        (void)client_send(clients[2], MESSAGE_WAIT,
                          REQUEST(Wait, wait, .path = BYTES("/never"), .timeout_ns = UINT64_MAX));
}

TEST(bench, idle) {
        int ms = bench_quick() ? WAIT_QUICK_MS : WAIT_MS;
        Processes processes;
        Grant orphans[ORPHANS];
        Client *clients[PEERS];
        char note[256];
        Broker *broker;
        uint64_t woke;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){
                .keeper = true,
                .config = "[global]\npeers = 500\n[account]\nregions = unlimited\n[keeper]\nwatchdog = 0s\n",
        });
        populate(broker, clients, orphans);
        settle(&processes, broker->keeper);
        REQUIRE(processes.n >= 2, "there is a keeper, and a broker");
        test_sleep_ms(ms);
        woke = count(&processes, note);
        bench_row(&(BenchRow){ .name = "idle-wakeups", .what = "wake-ups of idle processes in 10 s (quick: 1.5 s)",
                               .unit = "wake-ups", .kind = BENCH_COUNTED, .target = BENCH_AT_MOST(0), .note = note,
                               .figure = BENCH_ONE(woke) });
        for (size_t i = 0; i < ORPHANS; ++i)
                grant_deinit(&orphans[i]);
        for (size_t i = 0; i < PEERS; ++i)
                clients[i] = client_free(clients[i]);
        broker_stop(broker);
}
