/* Another broker beside ours: see the header for the model. */

#include "bench/rival.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/broker.h"
#include "shmd.h"

#define NOBODY 65534            /* without rights, as a broker, but with a name: there are those that want one */
#define PATIENCE UINT64_C(20000000000)

/* -- theirs ---------------------------------------------------------------------------------------- */

void rival_init(Rival *rival) {
        *rival = (Rival){ .dir = "/tmp/shmd-bench-XXXXXX" };
        REQUIRE(mkdtemp(rival->dir) && chmod(rival->dir, 0755) == 0, "%s", strerror(errno));
        if (geteuid() == 0)
                REQUIRE(chown(rival->dir, NOBODY, NOBODY) == 0, "%s", strerror(errno));
}

const char *rival_path(const Rival *rival, const char *name) {
        static char path[128];

        (void)snprintf(path, sizeof(path), "%s/%s", rival->dir, name);
        return path;
}

__attribute__((noreturn))
static void become_rival(const Rival *rival, int input, int output, const char *const argv[], pid_t parent) {
        if (geteuid() == 0)
                test_become(NOBODY, NOBODY);
        test_end_with(parent);
        REQUIRE(chdir(rival->dir) == 0 && dup2(output, STDOUT_FILENO) >= 0);
        REQUIRE(input < 0 || dup2(input, STDIN_FILENO) >= 0);
        (void)execvp(argv[0], (char *const *)argv);
        _exit(127);
}

bool rival_start(Rival *rival, int input, const char *const argv[]) {
        pid_t parent = getpid();
        int output[2];
        char said;
        ssize_t n;

        REQUIRE(pipe2(output, O_CLOEXEC) == 0);
        rival->pid = fork();
        REQUIRE(rival->pid >= 0);
        if (rival->pid == 0)
                become_rival(rival, input, output[1], argv, parent);
        close_fd(output[1]);
        n = read(output[0], &said, 1);
        close_fd(output[0]);
        return n == 1;
}

void rival_stop(Rival *rival) {
        if (rival->pid > 0) {
                (void)kill(rival->pid, SIGTERM);
                (void)test_wait_pid(rival->pid);
        }
        (void)test_remove_tree(rival->dir);
}

/* -- ours ------------------------------------------------------------------------------------------ */

typedef struct Ours {
        Broker *broker;
        shmd *client;
} Ours;

static void ours_start(Ours *ours) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;
        int r;

        ours->broker = broker_spawn_with(&(BrokerOptions){ .keeper = true });
        REQUIRE(shmd_connect(&ours->client, ours->broker->socket, PATIENCE) == 0);
        options.size = RIVAL_SIZE;
        r = shmd_mkdir(ours->client, "/music", 0755, PATIENCE);
        REQUIRE(r == 0, "%s", shmd_refusal(ours->client)->sentence);
        r = shmd_create(ours->client, RIVAL_PATH, &options, &region, PATIENCE);
        REQUIRE(r == 0, "%s", shmd_refusal(ours->client)->sentence);
        (void)shmd_region_free(region);
}

static void ours_stop(Ours *ours) {
        ours->client = shmd_close(ours->client);
        ours->broker = broker_stop(ours->broker);
}

static void ours_open(void *userdata, double *ns, size_t n) {
        Ours *ours = userdata;

        for (size_t i = 0; i < n; ++i) {
                int64_t began = test_now_ns();
                shmd_region *region;
                int r = shmd_open(ours->client, RIVAL_PATH, SHMD_RIGHTS_READ_ONLY, &region, PATIENCE);

                REQUIRE(r == 0, "%s", shmd_refusal(ours->client)->sentence);
                ns[i] = (double)(test_now_ns() - began);
                (void)shmd_region_free(region);
        }
}

void rival_compare(const BenchRow *row, BenchSide side) {
        BenchTimes theirs_ns, ours_ns;
        char name[64], what[BENCH_WHAT_MAX + 1];
        BenchRow of = *row;
        Ours ours;

        ours_start(&ours);
        side.times = &theirs_ns;
        bench_take_turns((BenchSide[]){ side, { ours_open, &ours, side.n, &ours_ns } }, 2, bench_rounds(15, 5));
        of.figure = &theirs_ns.p50;
        of.against = &ours_ns.p50;
        bench_row(&of);
        (void)snprintf(name, sizeof(name), "%s-p99", row->name);
        (void)snprintf(what, sizeof(what), "%s, p99", row->what);
        bench_row(&(BenchRow){ .name = name, .what = what, .unit = row->unit, .figure = &theirs_ns.p99,
                               .against = &ours_ns.p99 });
        ours_stop(&ours);
}
