/* daemon/core/state: a death at any store of any transaction leaves all of it or none of it, and memory
 * that was damaged gives no record that was not written.
 *
 * The state at work runs under a spy. A second memory gets its stores one after the other, and after
 * each of them, and in the middle of each, it is adopted and compared with a model of before and after.
 */

#include "daemon-house.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state-things.h"

#define THINGS 24
#define SMALL_CELLS 400
/* Several times what it grows by, and not a multiple of that. */
#define GROWN_CELLS 5000
#define BYTES_MAX (UINT64_C(4) << 20)

/* What a state should say. */
typedef struct Model {
        struct {
                bool there;
                uint16_t kind;
                size_t n;
                uint8_t data[STATE_RECORD_MAX];
        } things[THINGS];
} Model;

typedef struct Write {
        uint64_t offset;
        size_t n;
        size_t at;              /* in the tape's bytes */
        uint64_t length;        /* of the file then */
} Write;

/* Stores, in their order. */
typedef struct Tape {
        int fd;                 /* of what is recorded; -1: its length does not matter */
        size_t n;
        size_t n_bytes;
        Write writes[1024];
        uint8_t bytes[200000];
} Tape;

typedef struct Crash {
        State *state;
        Thing things[THINGS];
        Model before, after;
        uint64_t random;
        Tape work;              /* of the last transaction */
        Tape adoption;          /* of the last adoption */
        int fd;                 /* the second memory */
        uint8_t *map;
        uint8_t *shadow;        /* what should be in it */
        uint64_t length;
        uint64_t n_adoptions;
        uint64_t n_points;
} Crash;

static void record(void *userdata, uint64_t offset, const void *data, size_t n) {
        Tape *tape = userdata;
        Write *write = &tape->writes[tape->n];
        struct stat st = { .st_size = 0 };

        REQUIRE(tape->n < sizeof(tape->writes) / sizeof(tape->writes[0]) &&
                tape->n_bytes + n <= sizeof(tape->bytes), "the tape is full");
        REQUIRE(tape->fd < 0 || fstat(tape->fd, &st) == 0);
        *write = (Write){ .offset = offset, .n = n, .at = tape->n_bytes, .length = (uint64_t)st.st_size };
        memcpy(tape->bytes + write->at, data, n);
        tape->n_bytes += n;
        ++tape->n;
}

static void tape_begin(Tape *tape, int fd) {
        tape->fd = fd;
        tape->n = tape->n_bytes = 0;
        state_spy(record, tape);
}

static void tape_end(void) {
        state_spy(NULL, NULL);
}

/* -- the second memory ----------------------------------------------------------------------- */

static void set_length(Crash *crash, uint64_t length) {
        if (length <= crash->length)
                return;
        REQUIRE(length <= BYTES_MAX && ftruncate(crash->fd, (off_t)length) == 0);
        crash->length = length;
}

/* Begins with a copy of what the state has. */
static void copy_state(Crash *crash) {
        struct stat st;

        crash->fd = close_fd(crash->fd);
        crash->fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        crash->map = mmap(NULL, BYTES_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, crash->fd, 0);
        crash->shadow = calloc(1, BYTES_MAX);
        REQUIRE(crash->fd >= 0 && crash->map != MAP_FAILED && crash->shadow);
        crash->length = 0;
        REQUIRE(fstat(state_fd(crash->state), &st) == 0);
        set_length(crash, (uint64_t)st.st_size);
        REQUIRE(pread(state_fd(crash->state), crash->shadow, (size_t)st.st_size, 0) == st.st_size);
        memcpy(crash->map, crash->shadow, (size_t)st.st_size);
}

static void forget_copy(Crash *crash) {
        REQUIRE(munmap(crash->map, BYTES_MAX) == 0);
        free(crash->shadow);
        crash->fd = close_fd(crash->fd);
}

static void put(Crash *crash, const Tape *tape, size_t i) {
        const Write *write = &tape->writes[i];

        set_length(crash, write->length);
        memcpy(crash->map + write->offset, tape->bytes + write->at, write->n);
}

static void keep(Crash *crash, const Tape *tape, size_t i) {
        put(crash, tape, i);
        memcpy(crash->shadow + tape->writes[i].offset, tape->bytes + tape->writes[i].at, tape->writes[i].n);
}

static void undo(Crash *crash, const Tape *tape, size_t i) {
        memcpy(crash->map + tape->writes[i].offset, crash->shadow + tape->writes[i].offset, tape->writes[i].n);
}

/* Any of the words of a store: they are promised in no order. */
static void put_some(Crash *crash, const Tape *tape, size_t i) {
        const Write *write = &tape->writes[i];

        set_length(crash, write->length);
        for (size_t at = 0; at + 8 <= write->n && write->n > 8; at += 8)
                if (test_random(&crash->random, 2))
                        memcpy(crash->map + write->offset + at, tape->bytes + write->at + at, 8);
}

/* -- models ---------------------------------------------------------------------------------- */

static void set_model(const Crash *crash, Model *model) {
        for (size_t i = 0; i < THINGS; ++i) {
                const Thing *thing = &crash->things[i];

                model->things[i].there = thing->record.state;
                model->things[i].kind = thing->record.kind;
                model->things[i].n = thing->n;
                memcpy(model->things[i].data, thing->data, thing->n);
        }
}

typedef struct Comparison {
        const Model *model;
        size_t n;               /* records that are the model's */
        size_t n_wrong;
} Comparison;

static int compare(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Comparison *comparison = userdata;

        if (id < THINGS && comparison->model->things[id].there && comparison->model->things[id].kind == kind &&
            comparison->model->things[id].n == n && !memcmp(comparison->model->things[id].data, data, n))
                ++comparison->n;
        else
                ++comparison->n_wrong;
        return 0;
}

static Comparison compare_all(State *state, const Model *model) {
        Comparison comparison = { .model = model };

        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                REQUIRE(state_walk(state, kind, compare, &comparison) == 0);
        return comparison;
}

static size_t model_size(const Model *model) {
        size_t n = 0;

        for (size_t i = 0; i < THINGS; ++i)
                n += model->things[i].there;
        return n;
}

static bool is_model(State *state, const Model *model) {
        Comparison comparison = compare_all(state, model);

        return comparison.n_wrong == 0 && comparison.n == model_size(model);
}

/* -- transactions ---------------------------------------------------------------------------- */

/* Most records have one cell, many a few, some as many as can be. */
static void change_thing(Crash *crash, Thing *thing) {
        static const size_t up_to[] = { 41, 41, 41, 120, 120, STATE_RECORD_MAX + 1 };

        fill(thing, test_random(&crash->random, up_to[test_random(&crash->random, 6)]),
             (uint8_t)test_random(&crash->random, 256));
}

static void change_something(Crash *crash) {
        size_t i = test_random(&crash->random, THINGS);
        Thing *thing = &crash->things[i];
        StateKind kind = (StateKind)(STATE_COUNTERS + test_random(&crash->random, _STATE_KIND_N - STATE_COUNTERS));

        if (thing->record.state && test_random(&crash->random, 3) == 0) {
                state_drop(&thing->record);
                return;
        }
        change_thing(crash, thing);
        if (thing->record.state)
                state_touch(&thing->record);
        else
                state_add(crash->state, &thing->record, kind, i);
}

static void transaction(Crash *crash) {
        uint64_t n = 1 + test_random(&crash->random, 6);

        set_model(crash, &crash->before);
        while (n-- > 0) {
                REQUIRE(state_make_room(crash->state, STATE_RECORD_CELLS) == 0);
                change_something(crash);
        }
        set_model(crash, &crash->after);
        state_commit(crash->state);
}

static void crash_begin(Crash *crash, uint32_t cells_max) {
        memset(crash, 0, sizeof(*crash));
        crash->fd = -1;
        crash->random = test_seed();
        crash->state = make(cells_max);
        copy_state(crash);
}

static void crash_end(Crash *crash) {
        for (size_t i = 0; i < THINGS; ++i)
                state_drop(&crash->things[i].record);
        crash->state = state_free(crash->state);
        forget_copy(crash);
        fprintf(stderr, "%ju deaths, %ju adoptions\n", (uintmax_t)crash->n_points, (uintmax_t)crash->n_adoptions);
}

/* -- deaths ---------------------------------------------------------------------------------- */

static State *adopt_copy(Crash *crash) {
        ++crash->n_adoptions;
        return adopt(fcntl(crash->fd, F_DUPFD_CLOEXEC, 0));
}

static bool is_later_here(Crash *crash) {
        State *state = adopt_copy(crash);
        bool is_later = is_model(state, &crash->after);

        REQUIRE(is_later || is_model(state, &crash->before), "neither as before nor as after");
        REQUIRE(state_damaged(state) == 0);
        (void)state_free(state);
        return is_later;
}

static void undo_adoption(Crash *crash) {
        for (size_t i = 0; i < crash->adoption.n; ++i)
                undo(crash, &crash->adoption, i);
}

/* A death while the memory is being adopted, too, changes nothing. */
static void die_while_adopting(Crash *crash, bool is_later) {
        undo_adoption(crash);
        for (size_t i = 0; i < crash->adoption.n; ++i) {
                put_some(crash, &crash->adoption, i);
                REQUIRE(is_later_here(crash) == is_later);
                undo_adoption(crash);
                for (size_t k = 0; k <= i; ++k)
                        put(crash, &crash->adoption, k);
                REQUIRE(is_later_here(crash) == is_later);
        }
        undo_adoption(crash);
}

/* Return: whether who comes after a death here finds the transaction done. */
static bool die_here(Crash *crash) {
        bool is_later;

        ++crash->n_points;
        tape_begin(&crash->adoption, -1);
        is_later = is_later_here(crash);
        tape_end();
        if (test_random(&crash->random, 8) == 0)
                die_while_adopting(crash, is_later);
        else
                undo_adoption(crash);
        return is_later;
}

/* There is one store before which nothing is done and after which all is. */
static void die_everywhere(Crash *crash) {
        bool is_later = false;

        for (size_t i = 0; i <= crash->work.n; ++i) {
                bool here = die_here(crash);

                REQUIRE(here || !is_later, "done, and undone by store %zu", i);
                is_later |= here;
                if (i == crash->work.n)
                        break;
                put_some(crash, &crash->work, i);
                REQUIRE(die_here(crash) == here, "store %zu does a half", i);
                keep(crash, &crash->work, i);
        }
        REQUIRE(is_later);
}

static void crash_transaction(Crash *crash) {
        tape_begin(&crash->work, state_fd(crash->state));
        transaction(crash);
        tape_end();
        die_everywhere(crash);
}

/* -- the next one goes on -------------------------------------------------------------------- */

static int bind_thing(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Crash *crash = userdata;
        Thing *thing = &crash->things[id];

        memcpy(thing->data, data, n);
        thing->n = n;
        state_bind(crash->state, &thing->record, kind, id, cell);
        return 0;
}

/* The state at work dies for good at one of the stores of a transaction, and another one goes on. */
static void restart(Crash *crash, uint32_t cells_max) {
        const char *sentence;
        size_t n;

        tape_begin(&crash->work, state_fd(crash->state));
        transaction(crash);
        tape_end();
        n = test_random(&crash->random, crash->work.n + 1);
        for (size_t i = 0; i < n; ++i)
                keep(crash, &crash->work, i);

        for (size_t i = 0; i < THINGS; ++i)
                state_drop(&crash->things[i].record);
        (void)state_free(crash->state);
        REQUIRE(state_adopt_consume_fd(&crash->state, fcntl(crash->fd, F_DUPFD_CLOEXEC, 0), cells_max, &sentence) == 0);
        set_encoders(crash->state);
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                REQUIRE(state_walk(crash->state, kind, bind_thing, crash) == 0);
        forget_copy(crash);
        copy_state(crash);
}

TEST(state_crash, a_death_at_any_store_leaves_all_of_a_transaction_or_nothing) {
        static Crash crash;
        uint64_t rounds = test_rounds(300);

        crash_begin(&crash, SMALL_CELLS + THINGS * STATE_RECORD_CELLS);
        for (uint64_t i = 0; i < rounds; ++i) {
                crash_transaction(&crash);
                if (i % 10 == 9)
                        restart(&crash, SMALL_CELLS);
        }
        cr_assert_gt(crash.n_points, rounds * 4);
        crash_end(&crash);
}

static uint32_t free_cells(const State *state) {
        return state_cells(state) - state_cells_used(state);
}

TEST(state_crash, a_death_while_it_grows_changes_nothing) {
        static Crash crash;

        crash_begin(&crash, GROWN_CELLS);
        for (int steps = 0; state_cells(crash.state) < GROWN_CELLS - 1; ++steps) {
                REQUIRE(steps < 10);
                crash_transaction(&crash);
                set_model(&crash, &crash.before);
                set_model(&crash, &crash.after);
                tape_begin(&crash.work, state_fd(crash.state));
                cr_assert_eq(state_make_room(crash.state, free_cells(crash.state) + 1), 0);
                tape_end();
                cr_assert_eq(crash.work.n, 1);
                die_everywhere(&crash);
                restart(&crash, GROWN_CELLS);
        }
        crash_end(&crash);
}

/* -- damage ---------------------------------------------------------------------------------- */

typedef struct Verdict {
        int r;
        size_t n;               /* records */
        uint64_t n_damaged;
} Verdict;

/* Adopts what is in the second memory: whatever that is, nothing is found that was not written. */
static Verdict judge(Crash *crash) {
        int fd = fcntl(crash->fd, F_DUPFD_CLOEXEC, 0);
        const char *sentence = NULL;
        State *state = NULL;
        Verdict verdict = { .r = 0 };
        Comparison comparison;

        ++crash->n_adoptions;
        tape_begin(&crash->adoption, -1);
        verdict.r = state_adopt_consume_fd(&state, fd, 0, &sentence);
        if (verdict.r == 0) {
                comparison = compare_all(state, is_model(state, &crash->before) ? &crash->before : &crash->after);
                REQUIRE(comparison.n_wrong == 0, "%zu records that nobody wrote", comparison.n_wrong);
                verdict.n = comparison.n;
                verdict.n_damaged = state_damaged(state);
                state_commit(state);
        }
        REQUIRE(verdict.r == 0 || (verdict.r > 0 && sentence && !state), "%d", verdict.r);
        tape_end();
        (void)state_free(state);
        undo_adoption(crash);
        return verdict;
}

static Verdict judge_flipped(Crash *crash, uint64_t bit) {
        Verdict verdict;

        crash->map[bit / 8] ^= (uint8_t)(1 << bit % 8);
        verdict = judge(crash);
        crash->map[bit / 8] = crash->shadow[bit / 8];
        return verdict;
}

static void damage_begin(Crash *crash) {
        crash_begin(crash, SMALL_CELLS);
        for (int i = 0; i < 20; ++i)
                transaction(crash);
        forget_copy(crash);
        copy_state(crash);
        crash->n_points = 0;
}

/* Where the last byte that is not zero of [from, to) is, rounded up to a cell. */
static uint64_t used_until(const Crash *crash, uint64_t from, uint64_t to) {
        while (to > from && crash->shadow[to - 1] == 0)
                --to;
        return (to + STATE_CELL_BYTES - 1) / STATE_CELL_BYTES * STATE_CELL_BYTES;
}

static uint64_t slab_at(const Crash *crash) {
        return crash->length - (uint64_t)(state_cells(crash->state) + 1) * STATE_CELL_BYTES;
}

TEST(state_crash, one_bit_anywhere_costs_at_most_one_record) {
        static Crash crash;
        uint64_t slab, end, cost[2] = { 0, 0 };
        size_t n;

        damage_begin(&crash);
        n = model_size(&crash.after);
        slab = slab_at(&crash);
        end = used_until(&crash, slab, crash.length);
        for (uint64_t bit = 0; bit < end * 8; ++bit) {
                Verdict verdict;

                if (bit >= 4096 * 8 && crash.shadow[bit / 8] == 0 && bit < slab * 8 && bit % 4096)
                        continue;       /* the parts of the journal that were never used, now and then */
                verdict = judge_flipped(&crash, bit);
                if (bit < 72 * 8)
                        REQUIRE(verdict.r == STATE_E_INVALID || verdict.r == STATE_E_NEWER, "bit %ju", (uintmax_t)bit);
                else if (bit >= 128 * 8 && bit < 136 * 8)
                        REQUIRE(verdict.r == STATE_E_INVALID, "bit %ju", (uintmax_t)bit);
                else
                        REQUIRE(verdict.r == 0 && verdict.n + 1 >= n && (verdict.n == n || verdict.n_damaged > 0),
                                "bit %ju: %d, %zu of %zu", (uintmax_t)bit, verdict.r, verdict.n, n);
                if (verdict.r == 0)
                        ++cost[n - verdict.n];
        }
        fprintf(stderr, "%ju bits: %ju cost nothing, %ju one record\n", (uintmax_t)end * 8, (uintmax_t)cost[0],
                (uintmax_t)cost[1]);
        cr_assert_gt(cost[1], 0);
        crash_end(&crash);
}

/* The last transaction is committed and nothing of it is in its place. One that adds what it drops again
 * writes nothing, and there is another one. */
static void take_last_back(Crash *crash) {
        do {
                tape_begin(&crash->work, state_fd(crash->state));
                transaction(crash);
                tape_end();
        } while (crash->work.n == 0);
        for (size_t i = 0;; ++i) {
                REQUIRE(i < crash->work.n);
                keep(crash, &crash->work, i);
                if (crash->work.writes[i].n == 8)
                        break;          /* the commit word */
        }
}

TEST(state_crash, one_bit_of_an_unfinished_transaction_is_found) {
        static Crash crash;
        size_t n_refused = 0, n_lost = 0;
        uint64_t end;

        damage_begin(&crash);
        take_last_back(&crash);
        cr_assert_eq(judge(&crash).n, model_size(&crash.after));
        end = used_until(&crash, 4096, slab_at(&crash));
        for (uint64_t bit = 72 * 8; bit < end * 8; ++bit) {
                Verdict verdict = judge_flipped(&crash, bit);

                if (verdict.r) {
                        REQUIRE(verdict.r == STATE_E_INVALID);
                        ++n_refused;
                } else {
                        n_lost += verdict.n != model_size(&crash.after);
                }
        }
        cr_assert_gt(n_refused, STATE_CELL_BYTES * 8);
        cr_assert_leq(n_lost, 1, "only a commit word that is the done word's can tell that nothing was done");
        crash_end(&crash);
}

/* Entries that are whole, in each other's places: each has a sum that fits. */
TEST(state_crash, an_entry_in_another_ones_place_is_found) {
        enum { HEAD_BYTES = 64, ENTRY_BYTES = 72 };
        static Crash crash;
        uint64_t entries = 4096 + HEAD_BYTES;
        uint8_t *first, *second;
        uint32_t n;

        damage_begin(&crash);
        for (;;) {
                take_last_back(&crash);
                memcpy(&n, crash.map + 4096 + 8, sizeof(n));
                if (n >= 2)
                        break;
                for (size_t i = 0; i < crash.work.n; ++i)
                        keep(&crash, &crash.work, i);
        }
        for (uint32_t i = 0; i + 1 < n; ++i) {
                first = crash.map + entries + i * ENTRY_BYTES;
                second = first + ENTRY_BYTES;
                memcpy(first, crash.shadow + (second - crash.map), ENTRY_BYTES);
                cr_assert_eq(judge(&crash).r, STATE_E_INVALID, "one twice");
                memcpy(second, crash.shadow + (first - crash.map), ENTRY_BYTES);
                cr_assert_eq(judge(&crash).r, STATE_E_INVALID, "two exchanged");
                memcpy(first, crash.shadow + (first - crash.map), ENTRY_BYTES);
                cr_assert_eq(judge(&crash).r, STATE_E_INVALID, "the other one twice");
                memcpy(second, crash.shadow + (second - crash.map), ENTRY_BYTES);
                cr_assert_eq(judge(&crash).r, 0);
        }
        crash_end(&crash);
}

TEST(state_crash, noise_gives_nothing_that_was_not_written) {
        static Crash crash;
        uint64_t rounds = test_rounds(20000), n_refused = 0, slab;

        damage_begin(&crash);
        slab = slab_at(&crash);
        for (uint64_t i = 0; i < rounds; ++i) {
                bool in_slab = test_random(&crash.random, 4) != 0;
                uint64_t from = in_slab ? slab + test_random(&crash.random, crash.length - slab)
                                        : test_random(&crash.random, crash.length);
                uint64_t n = 1 + test_random(&crash.random, 300);

                if (from + n > crash.length)
                        n = crash.length - from;
                for (uint64_t k = 0; k < n; ++k)
                        crash.map[from + k] = (uint8_t)test_random(&crash.random, 256);
                n_refused += judge(&crash).r != 0;
                memcpy(crash.map + from, crash.shadow + from, n);
        }
        cr_assert_lt(n_refused, rounds / 10);
        crash_end(&crash);
}

/* Cells, whole and with fitting sums, in each other's places: as after a write that went astray. */
TEST(state_crash, a_cell_is_only_good_in_its_own_place) {
        static Crash crash;
        uint64_t slab;

        damage_begin(&crash);
        slab = slab_at(&crash);
        for (uint64_t i = 0; i < 5000; ++i) {
                uint64_t from = slab + test_random(&crash.random, SMALL_CELLS) * STATE_CELL_BYTES;
                uint64_t to = slab + test_random(&crash.random, SMALL_CELLS) * STATE_CELL_BYTES;
                Verdict verdict;

                if (to == slab)
                        continue;       /* cell 0 is nobody's */
                memcpy(crash.map + to, crash.shadow + from, STATE_CELL_BYTES);
                verdict = judge(&crash);
                REQUIRE(verdict.r == 0 && verdict.n + 1 >= model_size(&crash.after));
                memcpy(crash.map + to, crash.shadow + to, STATE_CELL_BYTES);
        }
        crash_end(&crash);
}

TEST(state_crash, a_cut_file_is_refused) {
        static Crash crash;
        uint64_t whole;

        damage_begin(&crash);
        whole = crash.length;
        for (uint64_t n = 0; n <= whole; n += n < 4200 || n + 600 > whole ? 1 : 977) {
                int fd = memfd_create("cut", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                const char *sentence = NULL;
                State *state = NULL;
                int r;

                REQUIRE(fd >= 0 && ftruncate(fd, (off_t)n) == 0);
                REQUIRE(pwrite(fd, crash.shadow, n < 8192 ? n : 8192, 0) == (ssize_t)(n < 8192 ? n : 8192));
                r = state_adopt_consume_fd(&state, fd, 0, &sentence);
                REQUIRE(n < whole ? r == STATE_E_INVALID && sentence : r == 0, "%ju bytes: %d", (uintmax_t)n, r);
                (void)state_free(state);
        }
        crash_end(&crash);
}
