/* daemon/core/state: what was committed is there after a death at any instant, and nothing else is. */

#include "daemon-house.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "core/state.h"
#include "util/probe.h"

#define CELLS_MAX 20000

/* Something that has a record: bytes, which are all that is saved of it. */
typedef struct Thing {
        StateRecord record;
        uint8_t data[STATE_RECORD_MAX];
        size_t n;
} Thing;

static size_t encode_thing(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        const Thing *thing = (const Thing *)((const char *)record - offsetof(Thing, record));

        memcpy(data, thing->data, thing->n);
        return thing->n;
}

static void set_encoders(State *state) {
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                state_set_encoder(state, kind, encode_thing);
}

static State *make(void) {
        State *state;

        REQUIRE(probe_run() == 0);
        REQUIRE(state_new(&state, CELLS_MAX) == 0);
        set_encoders(state);
        return state;
}

static void fill(Thing *thing, size_t n, uint8_t first) {
        thing->n = n;
        for (size_t i = 0; i < n; ++i)
                thing->data[i] = (uint8_t)(first + i);
}

/* The memory of a state, as its next owner gets it. */
static int copy_of(const State *state) {
        return fcntl(state_fd(state), F_DUPFD_CLOEXEC, 0);
}

static State *adopt(int fd) {
        const char *sentence;
        State *state;
        int r;

        r = state_adopt_consume_fd(&state, fd, CELLS_MAX, &sentence);
        REQUIRE(r == 0 && !sentence, "%d, %s", r, sentence ? sentence : "-");
        set_encoders(state);
        return state;
}

static void expect_refused(int fd, int expected, const char *what) {
        const char *sentence = NULL;
        State *state = NULL;
        int r;

        r = state_adopt_consume_fd(&state, fd, CELLS_MAX, &sentence);
        REQUIRE(r == expected && !state, "%d, %s", r, sentence ? sentence : "-");
        REQUIRE(sentence && !strcmp(sentence, what), "'%s' instead of '%s'", sentence ? sentence : "-", what);
}

typedef struct Seen {
        uint64_t id;
        uint32_t cell;
        size_t n;
        uint8_t data[STATE_RECORD_MAX];
        size_t n_seen;
} Seen;

static int see(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Seen *seen = userdata;

        seen->id = id;
        seen->cell = cell;
        seen->n = n;
        memcpy(seen->data, data, n);
        ++seen->n_seen;
        return 0;
}

/* The one record of that kind is that thing's. */
static uint32_t expect_thing(State *state, StateKind kind, uint64_t id, const Thing *thing) {
        Seen seen = { .n_seen = 0 };

        REQUIRE(state_walk(state, kind, see, &seen) == 0);
        REQUIRE(seen.n_seen == 1 && seen.id == id, "%zu of id %ju", seen.n_seen, (uintmax_t)seen.id);
        REQUIRE(seen.n == thing->n && !memcmp(seen.data, thing->data, seen.n));
        return seen.cell;
}

static size_t count(State *state, StateKind kind) {
        Seen seen = { .n_seen = 0 };

        REQUIRE(state_walk(state, kind, see, &seen) == 0);
        return seen.n_seen;
}

TEST(state, what_was_committed_is_what_the_next_one_finds) {
        static const size_t sizes[] = { 0, 1, 103, 104, 105, 208, 209, STATE_RECORD_MAX };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                Thing thing = { .record = STATE_RECORD_NULL };
                State *state = make();

                fill(&thing, sizes[i], 7);
                state_add(state, &thing.record, STATE_REGION, 42);
                cr_assert(state_is_dirty(state));
                state_commit(state);
                cr_assert(!state_is_dirty(state));
                cr_assert_eq(state_commits(state), 1);
                cr_assert_eq(state_cells_used(state), sizes[i] <= 104 ? 1 : (sizes[i] + 103) / 104);

                State *next = adopt(copy_of(state));

                expect_thing(next, STATE_REGION, 42, &thing);
                cr_assert_eq(count(next, STATE_NAME), 0);
                cr_assert_eq(state_damaged(next), 0);
                cr_assert_eq(state_commits(next), 1);
                cr_assert_eq(state_cells_used(next), state_cells_used(state));
                state_free(next);
                state_drop(&thing.record);
                state_free(state);
        }
}

TEST(state, what_is_only_marked_is_not_there) {
        Thing thing = { .record = STATE_RECORD_NULL };
        State *state = make(), *next;

        fill(&thing, 10, 1);
        state_add(state, &thing.record, STATE_REGION, 1);
        next = adopt(copy_of(state));
        cr_assert_eq(count(next, STATE_REGION), 0);
        state_free(next);

        state_drop(&thing.record);
        cr_assert_null(thing.record.state);
        cr_assert(!state_is_dirty(state), "an object that came and went between two commits was never there");
        state_commit(state);
        cr_assert_eq(state_commits(state), 0);
        state_free(state);
}

TEST(state, records_grow_shrink_and_go) {
        static const size_t sizes[] = { 10, 1000, 300, 1040, 0, 105 };
        Thing thing = { .record = STATE_RECORD_NULL }, other = { .record = STATE_RECORD_NULL };
        State *state = make(), *next;

        fill(&other, 500, 99);
        state_add(state, &other.record, STATE_NAME, 2);
        state_add(state, &thing.record, STATE_REGION, 1);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                fill(&thing, sizes[i], (uint8_t)i);
                state_touch(&thing.record);
                state_commit(state);
                next = adopt(copy_of(state));
                expect_thing(next, STATE_REGION, 1, &thing);
                expect_thing(next, STATE_NAME, 2, &other);
                cr_assert_eq(state_damaged(next), 0);
                state_free(next);
        }
        state_drop(&thing.record);
        state_commit(state);
        next = adopt(copy_of(state));
        cr_assert_eq(count(next, STATE_REGION), 0);
        expect_thing(next, STATE_NAME, 2, &other);
        cr_assert_eq(state_damaged(next), 0);
        state_free(next);
        state_drop(&other.record);
        state_commit(state);
        cr_assert_eq(state_cells_used(state), 0);
        state_free(state);
}

TEST(state, a_bound_record_goes_on_and_a_forgotten_one_goes) {
        Thing a = { .record = STATE_RECORD_NULL }, b = { .record = STATE_RECORD_NULL };
        State *state = make(), *next;
        uint32_t cell;

        fill(&a, 300, 1);
        fill(&b, 200, 2);
        state_add(state, &a.record, STATE_REGION, 1);
        state_add(state, &b.record, STATE_NAME, 2);
        state_commit(state);
        next = adopt(copy_of(state));
        state_drop(&a.record);
        state_drop(&b.record);
        state_free(state);

        cell = expect_thing(next, STATE_REGION, 1, &a);
        state_bind(next, &a.record, STATE_REGION, 1, cell);
        state_forget(next, expect_thing(next, STATE_NAME, 2, &b));
        fill(&a, 900, 3);
        state_touch(&a.record);
        state_commit(next);
        state = adopt(copy_of(next));
        expect_thing(state, STATE_REGION, 1, &a);
        cr_assert_eq(count(state, STATE_NAME), 0);
        cr_assert_eq(state_damaged(state), 0);
        cr_assert_eq(state_cells_used(state), 9);
        state_free(state);
        state_drop(&a.record);
        state_free(next);
}

TEST(state, without_a_state_nothing_happens) {
        StateRecord record = STATE_RECORD_NULL;

        cr_assert_eq(state_make_room(NULL, STATE_ROOM), 0);
        state_add(NULL, &record, STATE_REGION, 1);
        cr_assert_null(record.state);
        state_touch(&record);
        state_drop(&record);
        cr_assert(!state_is_dirty(NULL));
        state_commit(NULL);
        cr_assert_null(state_free(NULL));
}

TEST(state, objects_may_outlive_their_state) {
        Thing a = { .record = STATE_RECORD_NULL }, b = { .record = STATE_RECORD_NULL };
        State *state = make(), *next;
        int fd;

        fill(&a, 10, 1);
        state_add(state, &a.record, STATE_REGION, 1);
        state_commit(state);
        state_add(state, &b.record, STATE_NAME, 1);
        fd = copy_of(state);
        state_free(state);
        state_touch(&a.record);
        state_touch(&b.record);
        state_drop(&a.record);
        state_drop(&b.record);
        cr_assert(!a.record.state && !b.record.state);

        next = adopt(fd);
        expect_thing(next, STATE_REGION, 1, &a);
        cr_assert_eq(count(next, STATE_NAME), 0);
        state_free(next);
}

TEST(state, what_is_no_state_is_refused_in_a_sentence) {
        State *state = make();
        static const uint8_t newer = 2, zero = 0;
        int fd;

        cr_assert_eq(state_copy(state, &fd), 0);
        expect_refused(fd, STATE_E_INVALID,
                       "its file may shrink or cannot be written: it is no memfd, or sealed otherwise");
        cr_assert_eq(pwrite(state_fd(state), &newer, 1, 12), 1);
        expect_refused(copy_of(state), STATE_E_NEWER,
                       "it was written by a newer broker, in a later version of the format than 1");
        cr_assert_eq(pwrite(state_fd(state), &zero, 1, 12), 1);
        expect_refused(copy_of(state), STATE_E_INVALID, "there is no version 0 of the format");
        cr_assert_eq(pwrite(state_fd(state), &zero, 1, 0), 1);
        expect_refused(copy_of(state), STATE_E_INVALID, "it is no state of a broker");
        state_free(state);
}
