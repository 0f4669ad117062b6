/* daemon/core/state: what was committed is there after a death at any instant, and nothing else is. */

#include "daemon-house.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state-things.h"

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
        static const size_t sizes[] = { 0, 1, 39, 40, 41, 80, 81, STATE_RECORD_MAX };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                Thing thing = { .record = STATE_RECORD_NULL };
                State *state = make(CELLS_MAX);

                fill(&thing, sizes[i], 7);
                state_add(state, &thing.record, STATE_REGION, 42);
                cr_assert(state_is_dirty(state));
                state_commit(state);
                cr_assert(!state_is_dirty(state));
                cr_assert_eq(state_commits(state), 1);
                cr_assert_eq(state_cells_used(state), sizes[i] <= 40 ? 1 : (sizes[i] + 39) / 40);

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
        State *state = make(CELLS_MAX), *next;

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
        State *state = make(CELLS_MAX), *next;

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
        State *state = make(CELLS_MAX), *next;
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
        cr_assert_eq(state_cells_used(state), 23);
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
        State *state = make(CELLS_MAX), *next;
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

/* Where the layout has what: see the header of core/state. */
#define AT_ORDER 8
#define AT_VERSION 12
#define AT_HEADER_BYTES 16
#define AT_CELL_BYTES 20
#define AT_ENTRIES 24
#define AT_INSTANCE 48
#define AT_SIZE 128

static void put(int fd, uint64_t at, const void *data, size_t n) {
        REQUIRE(pwrite(fd, data, n, (off_t)at) == (ssize_t)n);
}

static void put32(int fd, uint64_t at, uint32_t value) {
        put(fd, at, &value, sizeof(value));
}

TEST(state, an_older_end_does_not_fit_a_newer_beginning) {
        Thing thing = { .record = STATE_RECORD_NULL }, other = { .record = STATE_RECORD_NULL };
        State *state = make(CELLS_MAX), *next;
        uint8_t cell[STATE_CELL_BYTES];
        struct stat st;
        off_t at;

        fill(&thing, 120, 1);
        state_add(state, &thing.record, STATE_REGION, 1);
        state_commit(state);
        cr_assert_eq(fstat(state_fd(state), &st), 0);
        at = st.st_size - (state_cells(state) + 1 - 2) * (off_t)sizeof(cell);   /* of cell 2, of cells 1 to 3 */
        cr_assert_eq(pread(state_fd(state), cell, sizeof(cell), at), (ssize_t)sizeof(cell));
        fill(&thing, 120, 2);
        state_touch(&thing.record);
        state_commit(state);
        state_add(state, &other.record, STATE_NAME, 1);
        state_commit(state);    /* now the journal has something else */
        put(state_fd(state), (uint64_t)at, cell, sizeof(cell));
        next = adopt(copy_of(state));
        cr_assert_eq(count(next, STATE_REGION), 0);
        cr_assert_eq(count(next, STATE_NAME), 1);
        cr_assert_eq(state_damaged(next), 3);
        state_commit(next);
        state_free(next);

        next = adopt(copy_of(state));
        cr_assert_eq(state_damaged(next), 0, "the first commit clears away what is damaged");
        state_free(next);
        state_drop(&thing.record);
        state_drop(&other.record);
        state_free(state);
}

TEST(state, a_newer_version_is_refused_as_such) {
        State *state = make(CELLS_MAX);

        put32(state_fd(state), AT_VERSION, 2);
        expect_refused(copy_of(state), STATE_E_NEWER,
                       "it was written by a newer broker, in a later version of the format than 1");
        /* Whatever else a later version changes. */
        put32(state_fd(state), AT_VERSION, UINT32_MAX);
        put32(state_fd(state), AT_HEADER_BYTES, 8192);
        put32(state_fd(state), AT_CELL_BYTES, 256);
        expect_refused(copy_of(state), STATE_E_NEWER,
                       "it was written by a newer broker, in a later version of the format than 1");
        state_free(state);
}

TEST(state, another_layout_is_refused_in_a_sentence) {
        static const char *const sizes = "its header, journal or cells have another size than those of version 1";
        static const struct {
                uint32_t at;
                uint32_t value;
                const char *what;
        } cases[] = {
                { 0, 0, "it is no state of a broker" },
                { AT_ORDER, 0x04030201, "it was written on a machine of the other byte order" },
                { AT_ORDER, 0x01020305, "its header is damaged" },
                { AT_VERSION, 0, "there is no version 0 of the format" },
                { AT_HEADER_BYTES, 8192, sizes },
                { AT_CELL_BYTES, 256, sizes },
                { AT_ENTRIES, 2048, sizes },
                { AT_INSTANCE, 7, "its header is damaged" },
                { AT_SIZE, 17, "its number of cells is damaged" },
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
                State *state = make(CELLS_MAX);

                put32(state_fd(state), cases[i].at, cases[i].value);
                expect_refused(copy_of(state), STATE_E_INVALID, cases[i].what);
                state_free(state);
        }
}

TEST(state, what_is_not_memory_of_a_state_is_refused_in_a_sentence) {
        static const char *const no_memory =
                "its file may shrink or cannot be written: it is no memfd, or sealed otherwise";
        State *state = make(CELLS_MAX);
        FILE *file = tmpfile();
        uint8_t byte = 1;
        struct stat st;
        char *bytes;

        expect_refused(memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING), STATE_E_INVALID,
                       "it is too short to be a state");
        expect_refused(sealed_copy_of(state), STATE_E_INVALID, no_memory);
        cr_assert_eq(fstat(state_fd(state), &st), 0);
        bytes = malloc((size_t)st.st_size);
        cr_assert_eq(pread(state_fd(state), bytes, (size_t)st.st_size, 0), st.st_size);
        cr_assert(file && fwrite(bytes, (size_t)st.st_size, 1, file) == 1 && fflush(file) == 0);
        expect_refused(fcntl(fileno(file), F_DUPFD_CLOEXEC, 0), STATE_E_INVALID, no_memory);
        (void)fclose(file);
        free(bytes);

        put(state_fd(state), (uint64_t)st.st_size + 100, &byte, 1);
        expect_refused(copy_of(state), STATE_E_INVALID, "something is behind its last cell");
        state_free(state);
}

/* -- room ------------------------------------------------------------------------------------ */

TEST(state, room_ends_at_the_limit_and_nothing_has_changed_then) {
        State *state = make(10000), *next;
        uint32_t n;

        n = state_cells(state);
        cr_assert_eq(n, 1023);
        cr_assert_eq(state_make_room(state, 10000), STATE_E_FULL);
        cr_assert_eq(state_make_room(state, UINT32_MAX), STATE_E_FULL);
        cr_assert_eq(state_cells(state), n);
        cr_assert_eq(state_make_room(state, 9999), 0);
        cr_assert_eq(state_cells(state), 9999);
        next = adopt(copy_of(state));
        cr_assert_eq(state_cells(next), 9999);
        state_free(next);
        state_free(state);
}

TEST(state, what_is_marked_has_its_room_too) {
        Thing things[10];
        State *state = make(4096);
        const uint32_t most = STATE_RECORD_CELLS;

        cr_assert_eq(state_make_room(state, 4095), 0);
        for (size_t i = 0; i < 10; ++i) {
                things[i] = (Thing){ .record = STATE_RECORD_NULL };
                fill(&things[i], STATE_RECORD_MAX, (uint8_t)i);
                state_add(state, &things[i].record, STATE_REGION, i);
                cr_assert_eq(state_make_room(state, 4096 - most * (uint32_t)(i + 1)), STATE_E_FULL);
                cr_assert_eq(state_make_room(state, 4095 - most * (uint32_t)(i + 1)), 0);
        }
        state_commit(state);
        cr_assert_eq(state_cells_used(state), 10 * most);
        for (size_t i = 0; i < 10; ++i)
                state_drop(&things[i].record);
        cr_assert_eq(state_make_room(state, 4095), STATE_E_FULL, "what is dropped is free when that is committed");
        state_commit(state);
        cr_assert_eq(state_make_room(state, 4095), 0);
        state_free(state);
}

static int grow_without_memory(void *userdata) {
        State *state = userdata, *next;
        uint32_t n = state_cells(state);
        struct stat before, after;

        REQUIRE(fstat(state_fd(state), &before) == 0);
        house_deny(ENOSPC, SCMP_SYS(fallocate), 0, NULL);
        REQUIRE(state_make_room(state, n) == 0, "there is room as long as it need not grow");
        REQUIRE(state_make_room(state, n + 1) == -ENOSPC);
        REQUIRE(fstat(state_fd(state), &after) == 0 && before.st_size == after.st_size);
        REQUIRE(state_cells(state) == n && state_make_room(state, n) == 0);
        next = adopt(copy_of(state));
        REQUIRE(state_cells(next) == n);
        (void)state_free(next);
        return 0;
}

TEST(state, without_memory_it_does_not_grow_and_goes_on) {
        State *state = make(CELLS_MAX);

        house_expect_child(grow_without_memory, state);
        state_free(state);
}

TEST(state, what_does_not_fit_the_journal_is_several_transactions) {
        static Thing things[6000];
        State *state = make(32768), *next;
        Seen seen = { .n_seen = 0 };

        cr_assert_eq(state_make_room(state, 17000), 0);
        for (size_t i = 0; i < 6000; ++i) {
                things[i] = (Thing){ .record = STATE_RECORD_NULL };
                fill(&things[i], i % 11 * 20, (uint8_t)i);
                state_add(state, &things[i].record, STATE_REGION, i);
        }
        state_commit(state);
        cr_assert_eq(state_commits(state), 3);
        next = adopt(copy_of(state));
        cr_assert_eq(state_walk(next, STATE_REGION, see, &seen), 0);
        cr_assert_eq(seen.n_seen, 6000);
        cr_assert_eq(state_damaged(next), 0);
        state_free(next);

        for (size_t i = 0; i < 6000; ++i)
                state_drop(&things[i].record);
        state_commit(state);
        cr_assert_eq(state_cells_used(state), 0);
        next = adopt(copy_of(state));
        cr_assert_eq(state_cells_used(next), 0);
        cr_assert_eq(state_damaged(next), 0);
        state_free(next);
        state_free(state);
}

TEST(state, damage_larger_than_the_journal_is_cleared_away) {
        static uint8_t noise[6000 * STATE_CELL_BYTES];
        State *state = make(CELLS_MAX), *next;
        struct stat st;

        cr_assert_eq(state_make_room(state, 8000), 0);
        cr_assert_eq(fstat(state_fd(state), &st), 0);
        memset(noise, 1, sizeof(noise));
        for (size_t i = 0; i < sizeof(noise); i += STATE_CELL_BYTES)
                noise[i + 12] = STATE_MORE, noise[i + 13] = 0;
        put(state_fd(state), (uint64_t)st.st_size - sizeof(noise), noise, sizeof(noise));
        next = adopt(copy_of(state));
        cr_assert_eq(state_damaged(next), 6000);
        cr_assert(state_is_dirty(next));
        state_commit(next);
        state_free(next);
        next = adopt(copy_of(state));
        cr_assert_eq(state_damaged(next), 0);
        state_free(next);
        state_free(state);
}

/* Return: whether what is in the file and what the state has is the same. */
static bool is_same(const State *state, int fd) {
        struct stat st, of_copy;
        void *copy, *own;
        bool same;

        REQUIRE(fstat(state_fd(state), &st) == 0 && fstat(fd, &of_copy) == 0);
        copy = mmap(NULL, (size_t)of_copy.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        own = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, state_fd(state), 0);
        REQUIRE(copy != MAP_FAILED && own != MAP_FAILED);
        same = st.st_size == of_copy.st_size && !memcmp(copy, own, (size_t)st.st_size);
        (void)munmap(copy, (size_t)of_copy.st_size);
        (void)munmap(own, (size_t)st.st_size);
        return same;
}

TEST(state, a_copy_is_what_is_committed_and_cannot_be_changed) {
        Thing a = { .record = STATE_RECORD_NULL }, b = { .record = STATE_RECORD_NULL };
        State *state = make(CELLS_MAX);
        int fd;

        fill(&a, 400, 1);
        state_add(state, &a.record, STATE_REGION, 1);
        state_commit(state);
        state_add(state, &b.record, STATE_REGION, 2);
        fd = sealed_copy_of(state);
        cr_assert_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
                     F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        cr_assert(is_same(state, fd));
        state_commit(state);
        cr_assert(!is_same(state, fd));
        close_fd(fd);
        state_drop(&a.record);
        state_drop(&b.record);
        state_free(state);
}

TEST(state, what_is_committed_while_it_is_copied_is_in_the_copy) {
        static Thing many[3000];
        State *state = make(CELLS_MAX);
        StateCopy *copy, *other;
        uint64_t size;
        size_t n = 0;
        int fd, r;

        cr_assert_eq(state_copy_new(&copy, state), 0);
        cr_assert_eq(state_copy_new(&other, state), STATE_E_BUSY);
        while ((r = state_copy_step(copy, 20011)) == STATE_E_MORE) {
                for (int i = 0; i < 40 && n < 3000; ++i, ++n) {
                        cr_assert_eq(state_make_room(state, 4000), 0);
                        many[n] = (Thing){ .record = STATE_RECORD_NULL };
                        fill(&many[n], n % 300, (uint8_t)n);
                        state_add(state, &many[n].record, STATE_NAME, n);
                        if (n >= 20)
                                state_drop(&many[n - 20].record);
                }
                state_commit(state);
        }
        cr_assert_eq(r, 0);
        cr_assert_gt(state_cells(state), 4095, "it has grown meanwhile");
        cr_assert_eq(state_copy_finish(copy, &fd, &size), 0);
        cr_assert_null(state_copy_free(copy));
        cr_assert(is_same(state, fd));
        close_fd(fd);

        cr_assert_eq(state_copy_new(&copy, state), 0, "one may follow the other");
        cr_assert_eq(state_copy_step(copy, 5000), STATE_E_MORE);
        cr_assert_null(state_copy_free(copy), "and be given up");
        cr_assert_eq(state_copy_new(&copy, state), 0);
        cr_assert_eq(state_copy_step(copy, 5000), STATE_E_MORE);
        for (size_t i = 0; i < n; ++i)
                state_drop(&many[i].record);
        state_free(state);
        cr_assert_eq(state_copy_step(copy, 5000), -ESTALE);
        cr_assert_null(state_copy_free(copy));
}
