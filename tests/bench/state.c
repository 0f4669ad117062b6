/* What it costs to save: a commit of some changed records, and the adoption of a state by the next broker.
 *
 * A commit is on the way of every answer. It writes each cell twice, and neither allocates nor asks the
 * kernel for anything; what it takes is the processor's alone, so the least of several rounds is what
 * it costs. Records are as long as those of a broker: a region and a name of one cell each or two.
 */

#define TEST_TIMEOUT 600

#include "lib/test.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
#include "util/probe.h"

enum {
        ROUNDS = 25,
        COMMITS = 20000,
        MANY = 200000,
};

typedef struct Thing {
        StateRecord record;
        size_t n;
} Thing;

static uint8_t bytes[STATE_RECORD_MAX];

static size_t encode(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        const Thing *thing = (const Thing *)((const char *)record - offsetof(Thing, record));

        memcpy(data, bytes, thing->n);
        return thing->n;
}

static State *make(void) {
        State *state;

        REQUIRE(probe_run() == 0 && state_new(&state, 2 * MANY) == 0);
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                state_set_encoder(state, kind, encode);
        REQUIRE(state_make_room(state, MANY) == 0);
        return state;
}

static FILE *json(void) {
        const char *path = getenv("SHMD_BENCH_JSON");
        FILE *file = path ? fopen(path, "we") : NULL;

        REQUIRE(file || !path);
        return file;
}

static void say(FILE *file, const char *what, double value, const char *unit) {
        static bool more;

        printf("%-60s %8.1f %s\n", what, value, unit);
        if (file)
                fprintf(file, "%s\n  {\"what\": \"%s\", \"%s\": %.1f}", more ? "," : "[", what, unit, value);
        more = true;
}

/* Return: ns of a commit of n records of that many bytes that were there before. */
static double touched(State *state, size_t n, size_t n_bytes) {
        Thing things[16] = { { .n = 0 } };
        double least = 1e12;

        for (size_t i = 0; i < n; ++i) {
                things[i].n = n_bytes;
                state_add(state, &things[i].record, STATE_REGION, i);
        }
        state_commit(state);
        for (int round = 0; round < ROUNDS; ++round) {
                int64_t began = test_now_ns();
                double each;

                for (int i = 0; i < COMMITS; ++i) {
                        ++bytes[0];
                        for (size_t k = 0; k < n; ++k)
                                state_touch(&things[k].record);
                        state_commit(state);
                }
                each = (double)(test_now_ns() - began) / COMMITS;
                least = each < least ? each : least;
        }
        for (size_t i = 0; i < n; ++i)
                state_drop(&things[i].record);
        state_commit(state);
        return least;
}

/* Return: ns of two commits, of n new records and of their end. */
static double came_and_went(State *state, size_t n) {
        Thing things[16] = { { .n = 0 } };
        double least = 1e12;

        for (int round = 0; round < ROUNDS; ++round) {
                int64_t began = test_now_ns();
                double each;

                for (int i = 0; i < COMMITS; ++i) {
                        for (size_t k = 0; k < n; ++k) {
                                things[k].n = 100;
                                state_add(state, &things[k].record, STATE_REGION, k);
                        }
                        state_commit(state);
                        for (size_t k = 0; k < n; ++k)
                                state_drop(&things[k].record);
                        state_commit(state);
                }
                each = (double)(test_now_ns() - began) / COMMITS;
                least = each < least ? each : least;
        }
        return least;
}

static int count(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        ++*(size_t *)userdata;
        return 0;
}

/* Return: ms to adopt n records of one cell and to walk over all kinds. */
static double adopted(size_t n) {
        Thing *things = calloc(n, sizeof(*things));
        State *state = make(), *next;
        double least = 1e12;
        const char *sentence;

        REQUIRE(things);
        for (size_t i = 0; i < n; ++i) {
                things[i].n = 100;
                state_add(state, &things[i].record, STATE_NAME, i);
        }
        state_commit(state);
        for (int round = 0; round < 5; ++round) {
                int64_t began = test_now_ns();
                size_t n_seen = 0;
                double each;

                REQUIRE(state_adopt_consume_fd(&next, fcntl(state_fd(state), F_DUPFD_CLOEXEC, 0), 0, &sentence) == 0);
                for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                        REQUIRE(state_walk(next, kind, count, &n_seen) == 0);
                each = (double)(test_now_ns() - began) / 1e6;
                least = each < least ? each : least;
                REQUIRE(n_seen == n);
                (void)state_free(next);
        }
        for (size_t i = 0; i < n; ++i)
                state_drop(&things[i].record);
        (void)state_free(state);
        free(things);
        return least;
}

TEST(bench, saving) {
        State *state = make();
        FILE *file = json();
        double two;

        say(file, "a commit of one record of one cell", touched(state, 1, 100), "ns");
        two = touched(state, 2, 100);
        say(file, "a commit of two records of one cell", two, "ns");
        REQUIRE(two < 1000);
        say(file, "a commit of one record of two cells", touched(state, 1, 200), "ns");
        say(file, "a commit of eight records of two cells", touched(state, 8, 200), "ns");
        say(file, "a commit of a record of ten cells", touched(state, 1, STATE_RECORD_MAX), "ns");
        say(file, "two commits: three new records of one cell, and their end", came_and_went(state, 3), "ns");
        (void)state_free(state);
        say(file, "adoption of 60,000 records", adopted(60000), "ms");
        say(file, "adoption of 200,000 records", adopted(MANY - 1), "ms");
        REQUIRE(!file || (fprintf(file, "\n]\n") > 0 && fclose(file) == 0));
        REQUIRE(fflush(stdout) == 0);
}
