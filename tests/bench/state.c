/* What it costs to save: a commit of some changed records, and the adoption of a state by the next broker.
 *
 * A commit is on the way of every answer. It writes each cell twice, and neither allocates nor asks the
 * kernel for anything. Records are as long as those of a broker: a region and a name of one cell each or two.
 */

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
#include "util/probe.h"

enum {
        COMMITS = 20000,
        MANY = 200000,
        ONE_CELL = STATE_CELL_DATA,
        TWO_CELLS = STATE_CELL_DATA + 1,
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

static void say(const char *name, const char *what, const char *unit, BenchSeries series) {
        bench_row(&(BenchRow){ .name = name, .what = what, .unit = unit, .figure = &series });
}

/* Return: ns of a commit of n records of that many bytes that were there before. */
static BenchSeries touched(State *state, size_t n, size_t n_bytes) {
        Thing things[16] = { { .n = 0 } };
        BenchSeries all = { .n = 0 };

        for (size_t i = 0; i < n; ++i) {
                things[i].n = n_bytes;
                state_add(state, &things[i].record, STATE_REGION, i);
        }
        state_commit(state);
        for (size_t round = bench_rounds(25, 5); round > 0; --round) {
                int64_t began = test_now_ns();

                for (int i = 0; i < COMMITS; ++i) {
                        ++bytes[0];
                        for (size_t k = 0; k < n; ++k)
                                state_touch(&things[k].record);
                        state_commit(state);
                }
                bench_add(&all, (double)(test_now_ns() - began) / COMMITS);
        }
        for (size_t i = 0; i < n; ++i)
                state_drop(&things[i].record);
        state_commit(state);
        return all;
}

/* Return: ns of two commits, of n new records and of their end. */
static BenchSeries came_and_went(State *state, size_t n) {
        Thing things[16] = { { .n = 0 } };
        BenchSeries all = { .n = 0 };

        for (size_t round = bench_rounds(25, 5); round > 0; --round) {
                int64_t began = test_now_ns();

                for (int i = 0; i < COMMITS; ++i) {
                        for (size_t k = 0; k < n; ++k) {
                                things[k].n = ONE_CELL;
                                state_add(state, &things[k].record, STATE_REGION, k);
                        }
                        state_commit(state);
                        for (size_t k = 0; k < n; ++k)
                                state_drop(&things[k].record);
                        state_commit(state);
                }
                bench_add(&all, (double)(test_now_ns() - began) / COMMITS);
        }
        return all;
}

static int count(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        ++*(size_t *)userdata;
        return 0;
}

/* Return: ms to adopt n records of one cell and to walk over all kinds. */
static BenchSeries adopted(size_t n) {
        Thing *things = calloc(n, sizeof(*things));
        State *state = make(), *next;
        BenchSeries all = { .n = 0 };
        const char *sentence;

        REQUIRE(things);
        for (size_t i = 0; i < n; ++i) {
                things[i].n = ONE_CELL;
                state_add(state, &things[i].record, STATE_NAME, i);
        }
        state_commit(state);
        for (size_t round = bench_rounds(5, 2); round > 0; --round) {
                int64_t began = test_now_ns();
                size_t n_seen = 0;

                REQUIRE(state_adopt_consume_fd(&next, fcntl(state_fd(state), F_DUPFD_CLOEXEC, 0), 0, &sentence) == 0);
                for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                        REQUIRE(state_walk(next, kind, count, &n_seen) == 0);
                bench_add(&all, (double)(test_now_ns() - began) / 1e6);
                REQUIRE(n_seen == n);
                (void)state_free(next);
        }
        for (size_t i = 0; i < n; ++i)
                state_drop(&things[i].record);
        (void)state_free(state);
        free(things);
        return all;
}

TEST(bench, saving) {
        State *state = make();
        BenchSeries two;

        say("state-commit-1-1", "a commit of one record of one cell", "ns", touched(state, 1, ONE_CELL));
        two = touched(state, 2, ONE_CELL);
        bench_row(&(BenchRow){ .name = "state-commit-2-1", .what = "a commit of two records of one cell", .unit = "ns",
                               .figure = &two, .target = BENCH_AT_MOST(1000) });
        say("state-commit-1-2", "a commit of one record of two cells", "ns", touched(state, 1, TWO_CELLS));
        say("state-commit-8-2", "a commit of eight records of two cells", "ns", touched(state, 8, TWO_CELLS));
        say("state-commit-1-26", "a commit of the longest record, of 26 cells", "ns", touched(state, 1, STATE_RECORD_MAX));
        say("state-commit-new", "two commits: three new records of one cell, their end", "ns", came_and_went(state, 3));
        (void)state_free(state);
        say("state-adopt-60000", "adoption of 60,000 records", "ms", adopted(60000));
        say("state-adopt-200000", "adoption of 200,000 records", "ms", adopted(MANY - 1));
}
