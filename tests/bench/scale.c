/* What grows with how much there is, and what does not: regions, connections, grants, and requests of others.
 *
 * The curves are of one broker that gets more and more regions, as far as its descriptors go. What is asked then
 * is asked of regions all over, in an order that looks random, and so is the floor among as many memfds. Opening
 * beside thousands of idle connections is compared with another broker that has one; opening a region with a
 * thousand living grants with another region of the same broker. The flood is another user's: opens, as many in
 * flight as one answer's wait allows, from a process that runs only when no other one wants its processor, so
 * that what is measured is whom the broker serves, and not whom the kernel does.
 *
 * All of it is on one processor, but for the flood: across two, most of what an open takes is to wake the other
 * processor up, and hides what it takes more among many.
 *
 * Memory is what the processes themselves have got, and the kernel's slabs beside it.
 */

#include "bench/driver.h"
#include "bench/many.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/path.h"

enum {
        CREATED = 64,           /* regions that are made, and timed, before they are unlinked */
        LISTED = 250,           /* names in an answer */
        FULL = 15000,           /* what is compared with the floor; regions that are opened, at most */
        PEERS = 4000,
        PEERS_FEW = 1000,       /* from there on is what memory a peer takes */
        GRANTS = 1000,
        IN_FLIGHT = 64,
        SETTLE_MS = 200,        /* by then the keeper has read what it was told */
        HISTORY_BYTES = 512 << 10,      /* EVENT_HISTORY_BYTES of core/event.h */
};

/* -- what is asked ------------------------------------------------------------------------------- */

/* The next request takes the next packet. */
typedef struct Asked {
        Driver *driver;
        Packet packets[FULL];
        size_t n, next;
} Asked;

static void asked_deinit(Asked *asked) {
        for (size_t i = 0; i < asked->n; ++i)
                packet_deinit(&asked->packets[i]);
        asked->n = 0;
}

/* Regions all over, of n, in the order in which the floor takes its memfds. */
static void ask_to_open(Asked *asked, Driver *driver, uint64_t n) {
        char path[32];

        *asked = (Asked){ .driver = driver };
        for (; asked->n < FULL && asked->n < n; ++asked->n) {
                many_path(path, asked->n * 7919 % n);
                packet_open(&asked->packets[asked->n], path);
        }
}

static void run_open(void *userdata, double *ns, size_t n) {
        Asked *asked = userdata;
        int fd;

        for (size_t i = 0; i < n; ++i) {
                ns[i] = driver_ask(asked->driver, &asked->packets[asked->next++ % asked->n], &fd, 1);
                close_fd(fd);
        }
}

/* The unlinks stand behind the creates. */
static void ask_to_create(Asked *asked, Driver *driver) {
        char path[32];

        *asked = (Asked){ .driver = driver, .n = 2 * (CREATED + 1) };
        for (size_t i = 0; i < CREATED + 1; ++i) {
                (void)snprintf(path, sizeof(path), "/new%zu", i);
                packet_create(&asked->packets[i], path);
                packet_unlink(&asked->packets[CREATED + 1 + i], path);
        }
}

static void run_create(void *userdata, double *ns, size_t n) {
        Asked *asked = userdata;

        driver_create(asked->driver, asked->packets, asked->packets + CREATED + 1, CREATED + 1, ns, n);
}

/* The first answer of each directory, that has so many names or all there are. */
static void ask_to_list(Asked *asked, Driver *driver, uint64_t n) {
        uint8_t bytes[256];
        char path[32];

        *asked = (Asked){ .driver = driver };
        for (; asked->n * MANY_IN_DIRECTORY < n; ++asked->n) {
                Packet *packet = &asked->packets[asked->n];

                (void)snprintf(path, sizeof(path), "/%zu", asked->n);
                packet->kind = MESSAGE_LIST;
                packet->n = client_pack(bytes, sizeof(bytes), MESSAGE_LIST, 0,
                                        REQUEST(List, list, .path = BYTES(path), .limit = LISTED));
                packet->bytes = malloc(packet->n);
                REQUIRE(packet->bytes);
                memcpy(packet->bytes, bytes, packet->n);
        }
        /* The last one may have few. */
        if (asked->n > 1)
                packet_deinit(&asked->packets[--asked->n]);
}

static void run_list(void *userdata, double *ns, size_t n) {
        Asked *asked = userdata;

        for (size_t i = 0; i < n; ++i)
                ns[i] = driver_ask(asked->driver, &asked->packets[asked->next++ % asked->n], NULL, 0);
}

/* -- curves ---------------------------------------------------------------------------------------- */

typedef struct Step {
        uint64_t n;
        const char *name;
} Step;

/* The last one is as many as there is room for. */
static const Step steps[] = { { 10, "10" }, { 100, "100" }, { 1000, "1000" }, { 10000, "10000" }, { FULL, "15000" },
                              { UINT64_MAX, "limit" } };

enum {
        STEPS = sizeof(steps) / sizeof(*steps),
        STEP_FEW = 2,           /* between this one and STEP_FULL is what memory a region takes */
        STEP_FULL = 4,
};

typedef struct Curve {
        uint64_t n;             /* regions there are */
        BenchTimes open, list;
        BenchTimes create;      /* none where there is no room for more */
} Curve;

static void say(const Step *step, uint64_t n, const char *name, const char *what, const char *unit, BenchKind kind,
                const BenchSeries *series) {
        char row[64], text[BENCH_WHAT_MAX + 1];

        (void)snprintf(row, sizeof(row), "growth-%s-%s", name, step->name);
        (void)snprintf(text, sizeof(text), "%s, %" PRIu64 " regions", what, n);
        bench_row(&(BenchRow){ .name = row, .what = text, .unit = unit, .kind = kind, .figure = series });
}

static void say_step(const Step *step, const Curve *curve) {
        uint64_t n = curve->n, listed = n < LISTED ? n : LISTED;
        BenchSeries each = curve->list.p50;

        for (size_t i = 0; i < each.n; ++i)
                each.values[i] /= (double)listed;
        say(step, n, "open", "open", "ns", BENCH_TIMED, &curve->open.p50);
        if (curve->create.p50.n > 0)
                say(step, n, "create", "create", "ns", BENCH_TIMED, &curve->create.p50);
        say(step, n, "list", "list, of each name", "ns", BENCH_TIMED, &each);
}

/* How many regions, and what they take. */
typedef struct Weighed {
        uint64_t n;
        Memory memory;
} Weighed;

/* What regions between two steps cost, each. */
static void say_memory(const Weighed *few, const Weighed *many) {
        double n = (double)(many->n - few->n);
        char note[256];

        (void)snprintf(note, sizeof(note), "named, held by nobody, %" PRIu64 " to %" PRIu64 " of them; %.0f bytes of it "
                       "are saved for the next broker; beside it %.0f of the keeper, and the kernel's slabs (Slab in "
                       "/proc/meminfo): %.0f", few->n, many->n, (many->memory.saved - few->memory.saved) / n,
                       (many->memory.keeper - few->memory.keeper) / n, (many->memory.kernel - few->memory.kernel) / n);
        bench_row(&(BenchRow){ .name = "memory-region", .what = "user-space memory of the broker for a region",
                               .unit = "bytes", .kind = BENCH_COUNTED, .target = BENCH_AT_MOST(512), .note = note,
                               .figure = BENCH_ONE((many->memory.broker - few->memory.broker) / n) });
        bench_row(&(BenchRow){ .name = "memory-region-kernel", .what = "the kernel's memory for a region",
                               .unit = "bytes", .kind = BENCH_COUNTED,
                               .figure = BENCH_ONE((many->memory.kernel - few->memory.kernel) / n) });
}

/* With room for a few more regions, or none. */
static void measure(Driver *driver, bool room, Curve *curve) {
        static Asked opens, creates, lists;
        size_t n_open = bench_quick() ? 500 : 4000, n_create = bench_quick() ? CREATED : 10 * CREATED;

        ask_to_open(&opens, driver, curve->n);
        ask_to_create(&creates, driver);
        ask_to_list(&lists, driver, curve->n);
        bench_take_turns((BenchSide[]){ { run_open, &opens, n_open, &curve->open },
                                        { run_list, &lists, 50, &curve->list },
                                        { run_create, &creates, n_create, &curve->create } }, room ? 3 : 2,
                         bench_rounds(5, 3));
        asked_deinit(&opens);
        asked_deinit(&creates);
        asked_deinit(&lists);
}

/* Among as many as the floor has memfds. Grants of all of them are asked for before, until there is no room for
 * more on the books: from then on it stays as it is. */
static void against_floor(Driver *driver, const Broker *broker, Placement where) {
        static const char *const names[] = { "open-among-15000", "open-among-15000-two" };
        static const char *const texts[] = { "open among 15,000, one processor, against its floor",
                                             "open among 15,000, across two, against its floor" };
        size_t n = bench_quick() ? 5000 : 10000;
        BenchTimes open_times, floor_times;
        static Asked asked, floored;
        Floor floor;

        ask_to_open(&asked, driver, FULL);
        floor_start(&floor, "open", driver->n_answer, FULL);
        ask_to_open(&floored, &floor.driver, FULL);
        place_broker(broker, where);
        place_floor(&floor, where);
        bench_take_turns((BenchSide[]){ { run_open, &asked, n, &open_times }, { run_open, &floored, n, &floor_times } },
                         2, bench_rounds(15, 5));
        bench_row(&(BenchRow){ .name = names[where], .what = texts[where], .unit = "ns",
                               .target = { .judged = where == ONE_PROCESSOR, .at_least = -INFINITY, .at_most = 1.30 },
                               .figure = &open_times.p50, .against = &floor_times.p50 });
        asked_deinit(&asked);
        asked_deinit(&floored);
        floor_stop(&floor);
}

static void warm_up(Driver *driver, uint64_t regions) {
        size_t n = bench_quick() ? 4000 : 20000;
        double *ns = calloc(n, sizeof(*ns));
        static Asked asked;

        REQUIRE(ns);
        ask_to_open(&asked, driver, regions);
        run_open(&asked, ns, n);
        asked_deinit(&asked);
        free(ns);
}

static void compare_with_floor(Driver *driver, const Broker *broker) {
        warm_up(driver, FULL);
        against_floor(driver, broker, ONE_PROCESSOR);
        if (bench_processors() > 1 && !bench_quick())
                against_floor(driver, broker, TWO_PROCESSORS);
        place_broker(broker, ONE_PROCESSOR);
}

/* The broker has so many bytes of what changed last, however many regions there are: it has them before regions are
 * weighed, and not only after the first thousands of those. */
static void fill_history(Broker *broker) {
        Client *client = client_connect_as(broker, ALICE, ALICE);
        char path[1 + PATH_COMPONENT_MAX + 1] = "/";

        memset(path + 1, 'x', PATH_COMPONENT_MAX);
        for (size_t n = 0; n < HISTORY_BYTES; n += 2 * PATH_COMPONENT_MAX) {
                client_expect_done(client, call_mkdir(client, path, 0700));
                client_expect_done(client, call_rmdir(client, path));
        }
        client = client_free(client);
}

/* Nobody asks for grants here: those that are over stay on the books for a while, and are no memory of regions. */
TEST(bench, memory) {
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = MANY_CONFIG });
        static Weighed all[STEPS];
        Many many;

        fill_history(broker);
        many_init(&many, broker);
        for (size_t i = 0; i < STEPS; ++i) {
                if (!many_make(&many, steps[i].n) && i + 1 < STEPS) {
                        bench_unmeasured("memory-region", "user-space memory of the broker for a region",
                                         "the limit of descriptors leaves room for %" PRIu64 " regions", many.n);
                        break;
                }
                test_sleep_ms(SETTLE_MS);
                all[i] = (Weighed){ .n = many.n, .memory = many_memory(broker) };
                say(&steps[i], many.n, "regions", "how many there are", "regions", BENCH_COUNTED, BENCH_ONE(many.n));
                say(&steps[i], many.n, "broker", "the broker's memory", "bytes", BENCH_COUNTED,
                    BENCH_ONE(all[i].memory.broker));
                say(&steps[i], many.n, "keeper", "the keeper's memory", "bytes", BENCH_COUNTED,
                    BENCH_ONE(all[i].memory.keeper));
                if (i == STEP_FULL)
                        say_memory(&all[STEP_FEW], &all[STEP_FULL]);
        }
        broker_stop(broker);
}

TEST(bench, regions) {
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = MANY_CONFIG });
        static Curve curves[STEPS];
        Client *client = client_connect_as(broker, MANY_ASKER, MANY_ASKER);
        Driver driver;
        Many many;

        many_init(&many, broker);
        place_client();
        place_broker(broker, ONE_PROCESSOR);
        driver_init(&driver, client);
        for (size_t i = 0; i < STEPS; ++i) {
                bool all = many_make(&many, steps[i].n);

                curves[i].n = many.n;
                if (!all && i + 1 < STEPS) {
                        bench_unmeasured("open-among-15000", "open among 15,000, against its floor",
                                         "the limit of descriptors leaves room for %" PRIu64 " regions", many.n);
                        break;
                }
                measure(&driver, all, &curves[i]);
                say_step(&steps[i], &curves[i]);
                if (i == STEP_FULL)
                        compare_with_floor(&driver, broker);
        }
        client = client_free(client);
        broker_stop(broker);
}

/* -- connections ------------------------------------------------------------------------------------- */

#define PEERS_CONFIG "[global]\npeers = 14000\ninflight = 512\n[account]\npeers = unlimited\n[keeper]\nwatchdog = 0s\n"

/* A broker, a region, and somebody who opens it. */
typedef struct Scene {
        Broker *broker;
        Client *client;
        Driver driver;
        Asked asked;
} Scene;

static void scene_init(Scene *scene, const char *config, Placement placement) {
        Many many;

        *scene = (Scene){ .broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config }) };
        many_init(&many, scene->broker);
        REQUIRE(many_make(&many, 2));
        scene->client = client_connect_as(scene->broker, MANY_ASKER, MANY_ASKER);
        driver_init(&scene->driver, scene->client);
        ask_to_open(&scene->asked, &scene->driver, 1);
        place_client();
        place_broker(scene->broker, placement);
}

static void scene_deinit(Scene *scene) {
        asked_deinit(&scene->asked);
        scene->client = client_free(scene->client);
        scene->broker = broker_stop(scene->broker);
}

/* They said hello, and nothing since. */
static void connect_peers(Broker *broker, int *fds, size_t n) {
        for (size_t i = 0; i < n; ++i) {
                Client *client = client_connect_as(broker, ALICE, ALICE);

                fds[i] = fcntl(client->fd, F_DUPFD_CLOEXEC, 0);
                REQUIRE(fds[i] >= 0, "%s", strerror(errno));
                client = client_free(client);
        }
}

static void say_peer_memory(const Memory *few, const Memory *many, size_t n) {
        double kernel = (many->kernel - few->kernel) / (double)n;
        char note[200];

        (void)snprintf(note, sizeof(note), "%d to %zu of them; beside it the kernel's slabs (Slab in /proc/meminfo), "
                       "both ends: %.0f bytes", PEERS_FEW, PEERS_FEW + n, kernel);
        bench_row(&(BenchRow){ .name = "memory-peer", .what = "user-space memory of the broker for an idle peer",
                               .unit = "bytes", .kind = BENCH_COUNTED, .target = BENCH_AT_MOST(2048), .note = note,
                               .figure = BENCH_ONE((many->broker - few->broker) / (double)n) });
        bench_row(&(BenchRow){ .name = "memory-peer-kernel", .what = "the kernel's memory for a connection, both ends",
                               .unit = "bytes", .kind = BENCH_COUNTED, .figure = BENCH_ONE(kernel) });
}

TEST(bench, peers) {
        static Scene crowded, lonely;
        static int fds[PEERS];
        BenchTimes among, alone;
        size_t n = bench_quick() ? 1000 : 10000;
        Memory few, many;

        (void)test_raise_fds();
        scene_init(&crowded, PEERS_CONFIG, ONE_PROCESSOR);
        scene_init(&lonely, PEERS_CONFIG, ONE_PROCESSOR);
        connect_peers(crowded.broker, fds, PEERS_FEW);
        few = many_memory(crowded.broker);
        connect_peers(crowded.broker, fds + PEERS_FEW, PEERS - PEERS_FEW);
        many = many_memory(crowded.broker);
        say_peer_memory(&few, &many, PEERS - PEERS_FEW);
        bench_take_turns((BenchSide[]){ { run_open, &crowded.asked, n, &among },
                                        { run_open, &lonely.asked, n, &alone } }, 2, bench_rounds(15, 5));
        bench_row(&(BenchRow){ .name = "open-4000-peers", .what = "open beside 4,000 idle peers, against none",
                               .unit = "ns", .target = BENCH_AT_MOST(1.2), .figure = &among.p50,
                               .against = &alone.p50 });
        for (size_t i = 0; i < PEERS; ++i)
                fds[i] = close_fd(fds[i]);
        scene_deinit(&crowded);
        scene_deinit(&lonely);
}

/* -- grants --------------------------------------------------------------------------------------------- */

TEST(bench, grants) {
        static Scene scene;
        static Asked other;
        static int fds[GRANTS + 1];
        BenchTimes many, one;
        size_t n = 800;         /* of a region with so many holders none is marked: all count until the session ends */
        Client *holder;

        (void)test_raise_fds();
        scene_init(&scene, MANY_CONFIG, ONE_PROCESSOR);
        holder = client_connect_as(scene.broker, ALICE + 1, ALICE);
        for (size_t i = 0; i <= GRANTS; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(holder, call_open(holder, i < GRANTS ? "/0/0" : "/0/1", READ_ONLY, &grant));
                fds[i] = grant.fd;
        }
        ask_to_open(&other, &scene.driver, 2);
        other.next = 1;
        packet_deinit(&other.packets[0]);
        other.packets[0] = other.packets[1];
        other.n = 1;
        bench_take_turns((BenchSide[]){ { run_open, &scene.asked, n, &many }, { run_open, &other, n, &one } }, 2,
                         bench_rounds(15, 5));
        bench_row(&(BenchRow){ .name = "open-1000-grants", .unit = "ns",
                               .what = "open of a region with 1,000 live grants, against one",
                               .target = BENCH_AT_MOST(1.5), .figure = &many.p50, .against = &one.p50 });
        bench_row(&(BenchRow){ .name = "open-1000-grants-p99", .what = "the same, p99", .unit = "ns",
                               .figure = &many.p99, .against = &one.p99 });
        for (size_t i = 0; i <= GRANTS; ++i)
                fds[i] = close_fd(fds[i]);
        asked_deinit(&other);
        holder = client_free(holder);
        scene_deinit(&scene);
}

/* -- a flood ---------------------------------------------------------------------------------------------- */

typedef struct Flood {
        Scene *scene;
        pid_t pid;
} Flood;

/* In the child. */
__attribute__((noreturn))
static void flood_forever(Broker *broker) {
        Client *client = client_connect_as(broker, BOB, BOB);
        struct sched_param param = { 0 };
        static Asked asked;
        Driver driver;

        REQUIRE(sched_setscheduler(0, SCHED_IDLE, &param) == 0, "%s", strerror(errno));
        driver_init(&driver, client);
        ask_to_open(&asked, &driver, 1);
        for (uint64_t sent = driver.serial, received = sent;; ++received) {
                int fd;

                for (; sent < received + IN_FLIGHT; ++sent)
                        driver_send(&driver, &asked.packets[0]);
                driver_receive(&driver, received + 1, &fd, 1);
                close_fd(fd);
        }
}

static void start_flood(Flood *flood, Scene *scene) {
        pid_t parent = getpid();

        *flood = (Flood){ .scene = scene, .pid = fork() };
        REQUIRE(flood->pid >= 0);
        if (flood->pid == 0) {
                test_end_with(parent);
                flood_forever(scene->broker);
        }
}

static void run_with(Flood *flood, int signal, double *ns, size_t n) {
        REQUIRE(kill(flood->pid, signal) == 0, "%s", strerror(errno));
        test_sleep_ms(5);
        run_open(&flood->scene->asked, ns, n);
}

static void run_flooded(void *userdata, double *ns, size_t n) {
        run_with(userdata, SIGCONT, ns, n);
}

static void run_alone(void *userdata, double *ns, size_t n) {
        run_with(userdata, SIGSTOP, ns, n);
}

TEST(bench, flood) {
        size_t n = bench_quick() ? 1000 : 4000;
        BenchTimes flooded, alone;
        static Scene scene;
        Flood flood;
        int status;

        scene_init(&scene, MANY_CONFIG, bench_processors() > 1 ? TWO_PROCESSORS : ONE_PROCESSOR);
        start_flood(&flood, &scene);
        bench_take_turns((BenchSide[]){ { run_flooded, &flood, n, &flooded }, { run_alone, &flood, n, &alone } }, 2,
                         bench_rounds(15, 5));
        REQUIRE(kill(flood.pid, SIGKILL) == 0 && waitpid(flood.pid, &status, 0) == flood.pid);
        bench_row(&(BenchRow){ .name = "flood-p99", .what = "open beside a client that floods, against alone, p99",
                               .unit = "ns", .target = BENCH_AT_MOST(3), .figure = &flooded.p99,
                               .against = &alone.p99 });
        bench_row(&(BenchRow){ .name = "flood", .what = "open beside a client that floods, against alone", .unit = "ns",
                               .figure = &flooded.p50, .against = &alone.p50 });
        scene_deinit(&scene);
}
