/* How long an open and a create take beside their floor, and what asking for many at once saves.
 *
 * The broker runs as in production: under a keeper, in its sandbox, as a user of its own. The regions opened
 * belong to another user than the one who asks, below two directories that are searched first, so that modes
 * have to be evaluated. It is asked some thousands of times before anything is measured: grants of named regions
 * are given back lazily, when there is no room for more, and from then on always.
 *
 * Created regions are unlinked outside of what is measured, some hundreds at a time, after their descriptors
 * were closed.
 *
 * The floor has to be one. What it takes is compared with an echo, which passes a descriptor that it has, and its
 * other system calls timed alone; and it runs twice, as what differs between the two is nothing but chance. The
 * echo is busy for as long as those calls took before it answers. To add them to what a bare echo takes is not the
 * same across two processors: while the other one works, the client's own has nothing to do and falls asleep, the
 * deeper the longer it is, and to wake it up can take longer than the calls. That sum is there for comparison.
 * For the same reason the echo of a create takes turns with creates: see run_echo_between_creates().
 *
 * A round is of 500 requests at least, so that its p99 is never the slowest of them: five took longer.
 */

#include "bench/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U         /* Linux 6.3 */
#endif

enum {
        CHUNK = 250,            /* regions that are made, and timed, before they are unlinked */
        MANY = 64,              /* in a batch, in flight, and of calls timed alone */
        FLIGHT = 1024,          /* opens with so many in flight that are one sample */
        BARE_QUICK = 100,       /* bare echos */
};

/* Somebody who is asked for something. */
typedef struct Asked {
        Driver *driver;
        Packet packet, creates[CHUNK + 1], unlinks[CHUNK + 1];
        struct Asked *creator;  /* an echo's: who is asked for creates in between */
} Asked;

typedef struct Scene {
        Broker *broker;
        Client *client;
        Driver driver;
        size_t open_bytes, create_bytes;        /* of its answers */
} Scene;

/* -- what is measured ---------------------------------------------------------------------------- */

static void run_open(void *userdata, double *ns, size_t n) {
        Asked *asked = userdata;
        int fd;

        for (size_t i = 0; i < n; ++i) {
                ns[i] = driver_ask(asked->driver, &asked->packet, &fd, 1);
                close_fd(fd);
        }
}

static void run_create(void *userdata, double *ns, size_t n) {
        Asked *asked = userdata;

        driver_create(asked->driver, asked->creates, asked->unlinks, CHUNK + 1, ns, n);
}

/* An echo, as a create is asked for: so many at a time, kept as long, and with creates and unlinks before them.
 * What the kernel still has to do about those keeps the processors awake; across two, that saves more than a create
 * takes. */
static void run_echo_between_creates(void *userdata, double *ns, size_t n) {
        Asked *asked = userdata;
        double others[CHUNK];
        int fds[CHUNK];

        REQUIRE(n % CHUNK == 0);
        for (size_t done = 0; done < n; done += CHUNK) {
                run_create(asked->creator, others, CHUNK);
                for (size_t i = 0; i < CHUNK; ++i)
                        ns[done + i] = driver_ask(asked->driver, &asked->packet, &fds[i], 1);
                for (size_t i = 0; i < CHUNK; ++i)
                        close_fd(fds[i]);
        }
}

static void run_batch(void *userdata, double *ns, size_t n) {
        Asked *asked = userdata;
        int fds[MANY];

        for (size_t i = 0; i < n; ++i) {
                ns[i] = driver_ask(asked->driver, &asked->packet, fds, MANY) / MANY;
                for (size_t k = 0; k < MANY; ++k)
                        close_fd(fds[k]);
        }
}

static double fly(Asked *asked, int *fds) {
        uint64_t serial = asked->driver->serial;
        int64_t began = test_now_ns();

        for (size_t sent = 0, received = 0; received < FLIGHT; ++received) {
                for (; sent < FLIGHT && sent < received + MANY; ++sent)
                        driver_send(asked->driver, &asked->packet);
                driver_receive(asked->driver, serial + received + 1, &fds[received], 1);
        }
        return (double)(test_now_ns() - began);
}

static void run_pipeline(void *userdata, double *ns, size_t n) {
        int fds[FLIGHT];

        for (size_t i = 0; i < n; ++i) {
                ns[i] = fly(userdata, fds) / FLIGHT;
                for (size_t k = 0; k < FLIGHT; ++k)
                        close_fd(fds[k]);
        }
}

/* -- the floor's system calls, alone --------------------------------------------------------------- */

typedef struct Calls {
        int directory;          /* of this process's descriptors, as the floor has it */
        int fds[4][MANY];
        char names[MANY][16];
        int64_t ns;             /* that they took */
} Calls;

#define TIMED(calls, i, call)                                                           \
        do {                                                                            \
                int64_t began_ = test_now_ns();                                         \
                                                                                        \
                for (size_t i = 0; i < MANY; ++i)                                       \
                        REQUIRE((call) >= 0, "%s", strerror(errno));                    \
                (calls)->ns += test_now_ns() - began_;                                  \
        } while (0)

static void calls_init(Calls *calls) {
        calls->directory = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
        REQUIRE(calls->directory >= 0, "%s", strerror(errno));
}

/* Re-opens what is in one column into another. */
static void reopen(Calls *calls, size_t of, size_t to, int mode) {
        int flags = mode | O_CLOEXEC | O_NONBLOCK;

        for (size_t i = 0; i < MANY; ++i)
                (void)snprintf(calls->names[i], sizeof(calls->names[i]), "%d", calls->fds[of][i]);
        TIMED(calls, i, calls->fds[to][i] = openat(calls->directory, calls->names[i], flags));
}

/* The same, and closes that: not the last descriptor, as a client has one. */
static void reopen_and_close(Calls *calls, size_t of, size_t to, int mode) {
        reopen(calls, of, to, mode);
        for (size_t i = 0; i < MANY; ++i)
                calls->fds[3][i] = fcntl(calls->fds[to][i], F_DUPFD_CLOEXEC, 0);
        TIMED(calls, i, close(calls->fds[to][i]));
        for (size_t i = 0; i < MANY; ++i)
                close_fd(calls->fds[3][i]);
}

static void run_open_calls(void *userdata, double *ns, size_t n) {
        static Calls calls;
        int fd = memfd_create("alone", MFD_CLOEXEC);

        REQUIRE(fd >= 0, "%s", strerror(errno));
        calls_init(&calls);
        for (size_t i = 0; i < MANY; ++i)
                calls.fds[0][i] = fd;
        for (size_t i = 0; i < n; ++i) {
                calls.ns = 0;
                reopen_and_close(&calls, 0, 1, O_RDONLY);
                ns[i] = (double)calls.ns / MANY;
        }
        close_fd(calls.directory);
        close_fd(fd);
}

static void run_create_calls(void *userdata, double *ns, size_t n) {
        unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL;
        int seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL, probe = memfd_create("alone", flags);
        static Calls calls;

        if (probe < 0)
                flags &= ~MFD_NOEXEC_SEAL;
        close_fd(probe);
        calls_init(&calls);
        for (size_t i = 0; i < n; ++i) {
                calls.ns = 0;
                TIMED(&calls, k, calls.fds[0][k] = memfd_create("alone", flags));
                TIMED(&calls, k, ftruncate(calls.fds[0][k], PAGE));
                TIMED(&calls, k, fchmod(calls.fds[0][k], 0600));
                TIMED(&calls, k, fcntl(calls.fds[0][k], F_ADD_SEALS, seals));
                reopen(&calls, 0, 1, O_RDWR);
                TIMED(&calls, k, close(calls.fds[0][k]));
                reopen_and_close(&calls, 1, 2, O_RDWR);
                ns[i] = (double)calls.ns / MANY;
                for (size_t k = 0; k < MANY; ++k)
                        close_fd(calls.fds[1][k]);
        }
        close_fd(calls.directory);
}

/* -- them, and an echo ------------------------------------------------------------------------------- */

/* What is asked of both, and how it is called. */
typedef struct Request {
        const char *name;
        void (*run)(void *userdata, double *ns, size_t n);
        void (*run_calls)(void *userdata, double *ns, size_t n);
        void (*run_echo)(void *userdata, double *ns, size_t n);
        const char *calls;
        size_t n;               /* in a round */
        size_t n_quick[2];      /* for each placement: across two, a wake-up takes longer than all else */
        double most[2];         /* of p50, for each placement */
} Request;

typedef struct Alone {
        const Request *request;
        double calls_ns;        /* what they took in this round */
        Asked *echo;
} Alone;

static void run_calls(void *userdata, double *ns, size_t n) {
        Alone *alone = userdata;

        alone->request->run_calls(NULL, ns, n);
        alone->calls_ns = bench_percentile(ns, n, 50);
}

static void run_echo(void *userdata, double *ns, size_t n) {
        Alone *alone = userdata;

        packet_set_busy(&alone->echo->packet, alone->calls_ns);
        alone->request->run_echo(alone->echo, ns, n);
        packet_set_busy(&alone->echo->packet, 0);
}

/* -- the scene --------------------------------------------------------------------------------------- */

static const char opened[] = "/bench/camera/frame";
static const char created[] = "/bench/made/frame";

static void make_regions(Broker *broker) {
        Client *owner = client_connect_as(broker, BOB, BOB);

        client_expect_done(owner, call_mkdir(owner, "/bench", 0755));
        client_expect_done(owner, call_mkdir(owner, "/bench/camera", 0751));
        client_expect_done(owner, call_mkdir(owner, "/bench/made", 0777));
        for (int i = 0; i < MANY; ++i) {
                char path[64];

                (void)snprintf(path, sizeof(path), "%s%d", opened, i);
                client_expect_done(owner, call_create_mode(owner, path, PAGE, 0644, NULL));
        }
        (void)client_free(owner);
}

static void asked_init(Asked *asked, Driver *driver) {
        char path[64];

        *asked = (Asked){ .driver = driver };
        (void)snprintf(path, sizeof(path), "%s0", opened);
        packet_open(&asked->packet, path);
        for (int i = 0; i < CHUNK + 1; ++i) {
                (void)snprintf(path, sizeof(path), "%s%d", created, i);
                packet_create(&asked->creates[i], path);
                packet_unlink(&asked->unlinks[i], path);
        }
}

static void asked_deinit(Asked *asked) {
        packet_deinit(&asked->packet);
        for (int i = 0; i < CHUNK + 1; ++i) {
                packet_deinit(&asked->creates[i]);
                packet_deinit(&asked->unlinks[i]);
        }
}

/* Asks for so much that the broker is as it will be, and learns how long its answers are. */
static void warm_up(Scene *scene) {
        size_t n = bench_quick() ? 5000 : 20000;
        double ns[CHUNK];
        Asked asked;

        asked_init(&asked, &scene->driver);
        for (size_t i = 0; i < n / CHUNK; ++i)
                run_open(&asked, ns, CHUNK);
        scene->open_bytes = scene->driver.n_answer;
        for (size_t i = 0; i < n / CHUNK; ++i) {
                int fd;

                run_create(&asked, ns, CHUNK);
                (void)driver_ask(&scene->driver, &asked.creates[0], &fd, 1);
                close_fd(fd);
                scene->create_bytes = scene->driver.n_answer;
                (void)driver_ask(&scene->driver, &asked.unlinks[0], NULL, 0);
        }
        asked_deinit(&asked);
}

static void scene_init(Scene *scene) {
        *scene = (Scene){ .broker = broker_spawn_with(&(BrokerOptions){ .keeper = true }) };
        make_regions(scene->broker);
        scene->client = client_connect_as(scene->broker, ALICE, ALICE);
        driver_init(&scene->driver, scene->client);
        place_client();
        place_broker(scene->broker, ONE_PROCESSOR);
        warm_up(scene);
}

static void scene_deinit(Scene *scene) {
        scene->client = client_free(scene->client);
        scene->broker = broker_stop(scene->broker);
}

/* -- rows ---------------------------------------------------------------------------------------------- */

static const Request open_request = {
        .name = "open", .run = run_open, .run_calls = run_open_calls, .run_echo = run_open,
        .calls = FLOOR_OPEN_CALLS, .n = 8000,
        .n_quick = { [ONE_PROCESSOR] = 1000, [TWO_PROCESSORS] = 750 },
        .most = { [ONE_PROCESSOR] = 1.30, [TWO_PROCESSORS] = 1.20 },
};

static const Request create_request = {
        .name = "create", .run = run_create, .run_calls = run_create_calls,
        .run_echo = run_echo_between_creates, .calls = FLOOR_CREATE_CALLS, .n = 3000,
        .n_quick = { [ONE_PROCESSOR] = 500, [TWO_PROCESSORS] = 500 },
        .most = { [ONE_PROCESSOR] = 1.35, [TWO_PROCESSORS] = 1.35 },
};

typedef struct Found {
        BenchTimes broker, floor, again, calls, echo, bare_echo;
} Found;

static void row(const char *name, const char *what, BenchKind kind, BenchTarget target, const BenchSeries *figure,
                const BenchSeries *against) {
        bench_row(&(BenchRow){ .name = name, .what = what, .unit = "ns", .kind = kind, .target = target,
                               .figure = figure, .against = against });
}

static void say(const Request *request, Placement placement, Found *found) {
        static const char *const names[] = { "one", "two" }, *const texts[] = { "one processor", "across two" };
        const char *kind = request->name, *where = names[placement], *text = texts[placement];
        char name[64], what[BENCH_WHAT_MAX + 1];
        BenchSeries sum = { .n = found->calls.p50.n };

#define NAMED(format, words) \
        ((void)snprintf(name, sizeof(name), format, kind, where), \
         (void)snprintf(what, sizeof(what), words, kind, text), name), what
        row(NAMED("%s-%s", "%s, %s, against its floor"), BENCH_TIMED, (BenchTarget)BENCH_AT_MOST(request->most[placement]),
            &found->broker.p50, &found->floor.p50);
        row(NAMED("%s-%s-p99", "%s, %s, against its floor, p99"), BENCH_TIMED, (BenchTarget)BENCH_AT_MOST(1.5),
            &found->broker.p99, &found->floor.p99);
        row(NAMED("floor-%s-%s", "floor against floor: %s, %s"), BENCH_SAME, (BenchTarget)BENCH_WITHIN(0.9, 1.1),
            &found->again.p50, &found->floor.p50);
        row(NAMED("floor-%s-%s-p99", "floor against floor: %s, %s, p99"), BENCH_SAME, (BenchTarget)BENCH_WITHIN(0.75, 1.33),
            &found->again.p99, &found->floor.p99);
        row(NAMED("floor-%s-%s-calls", "floor against echo and calls alone: %s, %s"), BENCH_TIMED,
            (BenchTarget)BENCH_WITHIN(0.85, 1.15), &found->floor.p50, &found->echo.p50);
        if (bench_quick())
                return;
        for (size_t i = 0; i < sum.n; ++i)
                sum.values[i] = found->bare_echo.p50.values[i] + found->calls.p50.values[i];
        row(NAMED("floor-%s-%s-sum", "floor against sum of bare echo and calls: %s, %s"), BENCH_TIMED,
            (BenchTarget){ .judged = false }, &found->floor.p50, &sum);
#undef NAMED
}

/* The floor is what it says it is, where that can be seen. */
static void check_calls(Floor *floor, Packet *packet, const char *expected) {
        const char *calls;

        if (geteuid() != 0)
                return;
        calls = driver_calls(&floor->driver, packet, 1, floor->pid, "recvfrom");
        REQUIRE(strcmp(calls, expected) == 0, "the floor makes other system calls: %s", calls);
}

enum { FLOOR, AGAIN, ECHO, _SERVER_N };

static void compare(Scene *scene, const Request *request, Placement placement) {
        const char *kinds[] = { [FLOOR] = request->name, [AGAIN] = request->name, [ECHO] = "echo" };
        size_t n_reply = request == &open_request ? scene->open_bytes : scene->create_bytes;
        size_t n = bench_quick() ? request->n_quick[placement] : request->n;
        static Asked asked, others[_SERVER_N];
        static Found found;
        Floor floors[_SERVER_N];
        Alone alone = { .request = request, .echo = &others[ECHO] };
        BenchSide bare_echo = { request->run_echo, &others[ECHO], n / 2, &found.bare_echo };

        /* What was done alone had no wake-ups, and the next ones are another thing for it: those are not judged. */
        if (bench_quick())
                bare_echo = (BenchSide){ run_open, &others[ECHO], BARE_QUICK, &found.bare_echo };
        asked_init(&asked, &scene->driver);
        for (int i = 0; i < _SERVER_N; ++i) {
                floor_start(&floors[i], kinds[i], n_reply, 1);
                asked_init(&others[i], &floors[i].driver);
                place_floor(&floors[i], placement);
        }
        others[ECHO].creator = &others[AGAIN];
        packet_deinit(&others[ECHO].packet);
        packet_echo(&others[ECHO].packet, request == &open_request ? &asked.packet : &asked.creates[0]);
        place_broker(scene->broker, placement);
        check_calls(&floors[FLOOR], &others[FLOOR].creates[0], request->calls);
        check_calls(&floors[ECHO], &others[ECHO].packet, FLOOR_ECHO_CALLS);
        bench_take_turns((BenchSide[]){ { run_calls, &alone, n / MANY, &found.calls },
                                        bare_echo,
                                        { run_echo, &alone, n / 2, &found.echo },
                                        { request->run, &asked, n, &found.broker },
                                        { request->run, &others[FLOOR], n, &found.floor },
                                        { request->run, &others[AGAIN], n, &found.again } },
                         6, bench_rounds(15, 15));
        say(request, placement, &found);
        asked_deinit(&asked);
        for (int i = 0; i < _SERVER_N; ++i) {
                asked_deinit(&others[i]);
                floor_stop(&floors[i]);
        }
}

static void compare_both(Placement placement) {
        Scene scene;

        scene_init(&scene);
        compare(&scene, &open_request, placement);
        compare(&scene, &create_request, placement);
        scene_deinit(&scene);
}

TEST(bench, on_one_processor) {
        compare_both(ONE_PROCESSOR);
}

/* With one processor only there is no such row, and a run is not whole. */
TEST(bench, across_two) {
        if (bench_processors() > 1)
                compare_both(TWO_PROCESSORS);
}

TEST(bench, many_at_once) {
        BenchTimes single, batch, pipeline;
        Asked one, all;
        Scene scene;

        if (bench_processors() < 2)
                return;
        scene_init(&scene);
        place_broker(scene.broker, TWO_PROCESSORS);
        asked_init(&one, &scene.driver);
        all = (Asked){ .driver = &scene.driver };
        packet_batch(&all.packet, opened, MANY);
        bench_take_turns((BenchSide[]){ { run_open, &one, bench_quick() ? 1000 : 10000, &single },
                                        { run_batch, &all, bench_quick() ? 50 : 500, &batch },
                                        { run_pipeline, &one, bench_quick() ? 5 : 30, &pipeline } },
                         3, bench_rounds(15, 5));
        row("batch-64", "batch of 64 opens, each, against a single one, across two", BENCH_TIMED,
            (BenchTarget)BENCH_AT_MOST(0.25), &batch.p50, &single.p50);
        row("pipeline-64", "64 opens in flight, each, against a single one, across two", BENCH_TIMED,
            (BenchTarget)BENCH_AT_MOST(0.4), &pipeline.p50, &single.p50);
        asked_deinit(&one);
        packet_deinit(&all.packet);
        scene_deinit(&scene);
}
