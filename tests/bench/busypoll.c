/* What busy-polling saves, and what it costs.
 *
 * Of two connections to the same broker one asks for it in its hello. Both open the same region, in turn, with a
 * client as light as one can be, and through the library; and create regions. Client and broker have a processor
 * each; where nobody has to wake up, there is nothing to save.
 *
 * The cost is processor time of the broker's, which the kernel counts for each process. It is greatest for a client
 * that asks as late as it can and yet in time, over and over; what is told is what a request of such a client
 * takes more than one of a client that asks as often without. And of a client that always comes too late.
 */

#include "bench/driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shmd.h"

#define PATH "/shown"
#define PATIENCE UINT64_C(20000000000)

enum {
        CHUNK = 100,            /* regions that are made, and timed, before they are unlinked */
        WHILE_NS = 100000,      /* busy-poll, shmd.conf(5) */
        IN_TIME_NS = WHILE_NS / 2,
        LATE_NS = 4 * WHILE_NS,
};

/* Two of each: without, and with it. */
typedef struct Scene {
        Broker *broker;
        clockid_t clock;        /* the broker's processor time */
        Client *clients[2];
        Driver drivers[2];
        shmd *connections[2];
        Packet packet, creates[CHUNK + 1], unlinks[CHUNK + 1];
} Scene;

/* -- the scene --------------------------------------------------------------------------------------- */

static Client *connect_client(Broker *broker, uint64_t features) {
        Client *client = client_connect_silently(broker, ALICE, ALICE);

        client->features = features;
        client_expect_done(client, client_hello(client));
        REQUIRE(client->hello.features == features, "it is not granted");
        return client;
}

static shmd *connect_library(Broker *broker, uint32_t flags) {
        struct shmd_connect_options options = SHMD_CONNECT_OPTIONS_INIT;
        shmd *connection;

        options.flags = flags;
        REQUIRE(shmd_connect_with(&connection, broker->socket, &options, PATIENCE) == 0);
        return connection;
}

static void scene_init(Scene *scene) {
        Client *owner;

        *scene = (Scene){ .broker = broker_spawn_with(&(BrokerOptions){ .keeper = true }) };
        REQUIRE(clock_getcpuclockid(scene->broker->pid, &scene->clock) == 0);
        owner = client_connect_as(scene->broker, BOB, BOB);
        client_expect_done(owner, call_create_mode(owner, PATH, PAGE, 0644, NULL));
        (void)client_free(owner);
        for (uint32_t i = 0; i < 2; ++i) {
                scene->clients[i] = connect_client(scene->broker, i ? SHMD__FEATURES__FEATURE_BUSY_POLL : 0);
                driver_init(&scene->drivers[i], scene->clients[i]);
                scene->connections[i] = connect_library(scene->broker, i ? SHMD_CONNECT_BUSY_POLL : 0);
        }
        packet_open(&scene->packet, PATH);
        for (int i = 0; i < CHUNK + 1; ++i) {
                char path[64];

                (void)snprintf(path, sizeof(path), "/made%d", i);
                packet_create(&scene->creates[i], path);
                packet_unlink(&scene->unlinks[i], path);
        }
        place_client();
        place_broker(scene->broker, TWO_PROCESSORS);
}

static void scene_deinit(Scene *scene) {
        packet_deinit(&scene->packet);
        for (size_t i = 0; i < CHUNK + 1; ++i) {
                packet_deinit(&scene->creates[i]);
                packet_deinit(&scene->unlinks[i]);
        }
        for (size_t i = 0; i < 2; ++i) {
                (void)shmd_close(scene->connections[i]);
                (void)client_free(scene->clients[i]);
        }
        broker_stop(scene->broker);
}

/* -- what it saves ----------------------------------------------------------------------------------- */

/* One of the two. */
typedef struct Side {
        Scene *scene;
        size_t i;
} Side;

static void run_open(void *userdata, double *ns, size_t n) {
        const Side *side = userdata;
        int fd;

        for (size_t i = 0; i < n; ++i) {
                ns[i] = driver_ask(&side->scene->drivers[side->i], &side->scene->packet, &fd, 1);
                close_fd(fd);
        }
}

static void run_create(void *userdata, double *ns, size_t n) {
        const Side *side = userdata;
        Scene *scene = side->scene;

        driver_create(&scene->drivers[side->i], scene->creates, scene->unlinks, CHUNK + 1, ns, n);
}

static void run_library(void *userdata, double *ns, size_t n) {
        const Side *side = userdata;

        for (size_t i = 0; i < n; ++i) {
                int64_t began = test_now_ns();
                shmd_region *region;

                REQUIRE(shmd_open(side->scene->connections[side->i], PATH, SHMD_RIGHTS_READ_ONLY, &region,
                                  PATIENCE) == 0);
                ns[i] = (double)(test_now_ns() - began);
                (void)shmd_region_free(region);
        }
}

static void compare(Scene *scene) {
        size_t n = bench_quick() ? 800 : 4000;
        Side without = { scene, 0 }, with = { scene, 1 };
        BenchTimes opens[2], library[2], creates[2];

        bench_take_turns((BenchSide[]){ { run_open, &without, n, &opens[0] }, { run_open, &with, n, &opens[1] },
                                        { run_library, &without, n, &library[0] },
                                        { run_library, &with, n, &library[1] },
                                        { run_create, &without, n / 4, &creates[0] },
                                        { run_create, &with, n / 4, &creates[1] } },
                         bench_quick() ? 2 : 6, bench_rounds(15, 5));
        bench_row(&(BenchRow){ .name = "busypoll-open", .what = "open with busy-polling, against without, across two",
                               .unit = "ns", .figure = &opens[1].p50, .against = &opens[0].p50,
                               .target = BENCH_AT_MOST(0.85) });
        bench_row(&(BenchRow){ .name = "busypoll-open-p99",
                               .what = "open with busy-polling, against without, across two, p99", .unit = "ns",
                               .figure = &opens[1].p99, .against = &opens[0].p99 });
        if (bench_quick())
                return;
        bench_row(&(BenchRow){ .name = "busypoll-library", .what = "the same through the library", .unit = "ns",
                               .figure = &library[1].p50, .against = &library[0].p50 });
        bench_row(&(BenchRow){ .name = "busypoll-create", .what = "create with busy-polling, against without, across two",
                               .unit = "ns", .figure = &creates[1].p50, .against = &creates[0].p50 });
}

/* -- what it costs ----------------------------------------------------------------------------------- */

/* Not by sleeping, from which one wakes up too late. */
static void let_pass(int64_t ns) {
        int64_t until = test_now_ns() + ns;

        while (test_now_ns() < until)
                continue;
}

static double broker_time(const Scene *scene) {
        struct timespec t;

        REQUIRE(clock_gettime(scene->clock, &t) == 0, "%s", strerror(errno));
        return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Return: what a request costs the broker that comes so long after the answer to the one before. */
static double cost(Scene *scene, size_t side, int64_t pause_ns, size_t n) {
        double before = broker_time(scene);

        for (size_t i = 0; i < n; ++i) {
                int fd;

                (void)driver_ask(&scene->drivers[side], &scene->packet, &fd, 1);
                close_fd(fd);
                let_pass(pause_ns);
        }
        return (broker_time(scene) - before) / (double)n;
}

static void compare_cost(Scene *scene, int64_t pause_ns, size_t n, BenchRow row) {
        BenchSeries more = { .n = 0 };

        for (size_t i = bench_rounds(7, 5); i > 0; --i) {
                double without = cost(scene, 0, pause_ns, n);

                bench_add(&more, cost(scene, 1, pause_ns, n) - without);
        }
        row.unit = "ns";
        row.figure = &more;
        bench_row(&row);
}

TEST(bench, busypoll) {
        Scene scene;

        if (bench_processors() < 2)
                return;
        scene_init(&scene);
        compare(&scene);
        compare_cost(&scene, IN_TIME_NS, bench_quick() ? 500 : 4000,
                     (BenchRow){ .name = "busypoll-cost",
                                 .what = "processor time an open takes more with busy-polling",
                                 .target = BENCH_AT_MOST(WHILE_NS) });
        if (!bench_quick())
                compare_cost(&scene, LATE_NS, 1000,
                             (BenchRow){ .name = "busypoll-late",
                                         .what = "the same for a client that always comes too late" });
        scene_deinit(&scene);
}
