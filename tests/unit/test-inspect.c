/* daemon/core/inspect: each thing that cannot be true is told, and nothing else. */

#include "daemon-house.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/inspect.h"
#include "state-world.h"

#define TEXTS_MAX 64

static char texts[TEXTS_MAX][INSPECT_TEXT_MAX];
static size_t n_texts;

static void hear(void *userdata, const char *text) {
        REQUIRE(n_texts < TEXTS_MAX);
        (void)snprintf(texts[n_texts++], INSPECT_TEXT_MAX, "%s", text);
}

/* Commits, adopts and inspects it. */
static Inspection inspect(State *state) {
        Inspection inspection;
        State *next;

        n_texts = 0;
        state_commit(state);
        next = adopt(copy_of(state));
        REQUIRE(inspect_state(next, hear, NULL, &inspection) == 0);
        REQUIRE(inspection.n_mistakes == n_texts);
        (void)state_free(next);
        demolish(state);
        return inspection;
}

static bool was_told(const char *text) {
        for (size_t i = 0; i < n_texts; ++i)
                if (strstr(texts[i], text))
                        return true;
        return false;
}

static void expect_text(const char *text) {
        for (size_t i = 0; i < n_texts; ++i)
                fprintf(stderr, "  %s\n", texts[i]);
        REQUIRE(was_told(text), "not told: %s", text);
}

/* That, and nothing more, is wrong with it. */
static void expect_only(State *state, const char *text) {
        (void)inspect(state);
        expect_text(text);
        REQUIRE(n_texts == 1, "%zu", n_texts);
}

static void expect_wrong(const World *w, const char *text) {
        expect_only(build(w), text);
}

/* -- tests ------------------------------------------------------------------------------------ */

TEST(inspect, what_fits_is_counted_and_nothing_is_told) {
        World w = world();
        Inspection inspection = inspect(build(&w));

        cr_assert_eq(inspection.n_mistakes, 0, "%s", texts[0]);
        cr_assert_eq(inspection.records[STATE_COUNTERS], 1);
        cr_assert_eq(inspection.records[STATE_POLICY], 1);
        cr_assert_eq(inspection.records[STATE_DIRECTORY], 3);
        cr_assert_eq(inspection.records[STATE_REGION], 4);
        cr_assert_eq(inspection.records[STATE_NAME], 2);
        cr_assert_eq(inspection.records[STATE_TICKET], 1);
        cr_assert_eq(inspection.records[STATE_GRANT], 1);
        cr_assert_eq(inspection.records[STATE_SESSION], 1);
        cr_assert_eq(inspection.records[STATE_OUTCOMES], 1);
        cr_assert_eq(inspection.records[STATE_BATCH], 1);
        cr_assert_eq(inspection.bytes, 4 * PAGE);
        cr_assert_eq(inspection.generation, 3);
}

TEST(inspect, an_empty_state_has_neither_counters_nor_a_root) {
        n_things = 0;
        (void)inspect(make(CELLS_MAX));
        expect_text("there are no counters");
        expect_text("there is no root directory");
        cr_assert_eq(n_texts, 2);
}

TEST(inspect, bytes_that_are_no_record_of_their_kind_are_told) {
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind) {
                World w = world();
                State *state = build(&w);
                uint8_t *data = begin(state, kind, 60);

                data[0] = 0xff;
                things[n_things - 1].n = 1;
                expect_only(state, "60 in cell 18: its bytes are not what such a record has");
        }
}

TEST(inspect, a_record_has_the_number_of_its_object) {
        World w = world();
        State *state = build(&w);
        SavedRegion saved = region(70, REGION_NAMED, REGION_STATE_ORPHAN);

        BUILD(state, STATE_REGION, 71, saved_encode_region, &saved);
        expect_only(state, "region 71 in cell 18: its bytes are not what such a record has");
}

TEST(inspect, there_is_one_of_some) {
        World w = world();
        State *state = build(&w);

        BUILD(state, STATE_COUNTERS, 2, saved_encode_counters, &w.counters);
        expect_only(state, "there are counters more than once");
        state = build(&w);
        BUILD(state, STATE_POLICY, 2, saved_encode_policy, &w.policy);
        expect_only(state, "there is more than one policy");
}

TEST(inspect, no_number_is_above_the_counters) {
        static const char *const expected = "its number was never used, the counters say";
        World w = world();

        w.counters.last_directory = 2;
        expect_wrong(&w, "directory 3 in cell 6: its number was never used, the counters say (2)");
        w = world(), w.counters.last_region = 12;
        expect_wrong(&w, expected);
        w = world(), w.counters.last_name = 20;
        expect_wrong(&w, expected);
        w = world(), w.counters.last_ticket = 29;
        expect_wrong(&w, expected);
        w = world(), w.counters.last_grant = 39;
        expect_wrong(&w, expected);
        w = world(), w.counters.last_session = 49;
        expect_wrong(&w, expected);
}

TEST(inspect, no_two_have_one_number) {
        World w = world();
        State *state = build(&w);
        SavedRegion again = region(12, REGION_NAMED, REGION_STATE_ORPHAN);

        again.inode = 5;
        build_region(state, &again);
        expect_only(state, "another one has its number");
}

TEST(inspect, no_two_have_one_name) {
        World w = world();

        w.name = name(20, SAVED_ROOT, 10, "d");
        expect_wrong(&w, "its name is another one's");
        w = world(), w.other_name = name(21, SAVED_ROOT, 11, "n");
        expect_wrong(&w, "its name is another one's (2");
}

TEST(inspect, no_two_have_one_memory_digest_or_key) {
        World w = world();
        SavedTicket ticket = w.ticket;
        SavedSession session = w.session;
        State *state;

        w.orphan.inode = w.region.inode;
        expect_wrong(&w, "its memory is another one's");
        w = world(), w.orphan.inode = w.region.inode, w.orphan.huge_shift = 21, w.orphan.size = 2 << 20;
        cr_assert_eq(inspect(build(&w)).n_mistakes, 0, "memory of huge pages is numbered on its own");
        w = world(), w.orphan.inode = w.region.inode = 0;
        cr_assert_eq(inspect(build(&w)).n_mistakes, 0);
        state = build(&w), ticket.id = 31;
        BUILD(state, STATE_TICKET, 31, saved_encode_ticket, &ticket);
        expect_only(state, "its digest is another one's");
        state = build(&w), session.id = 51;
        BUILD(state, STATE_SESSION, 51, saved_encode_session, &session);
        expect_only(state, "its key is another one's");
}

TEST(inspect, no_two_parts_of_a_session_have_one_place) {
        World w = world();
        State *state = build(&w);

        BUILD(state, STATE_OUTCOMES, 50, saved_encode_outcomes, &w.outcomes);
        expect_only(state, "there are others in their place");
        state = build(&w);
        BUILD(state, STATE_BATCH, 50, saved_encode_batch, &w.batch);
        expect_only(state, "there is another one in its place");
}

TEST(inspect, what_is_named_is_there) {
        World w = world();

        w.directory.parent = 9;
        (void)inspect(build(&w));
        expect_text("directory 2 in cell 5: the directory that it is in is not there (9)");
        expect_text("directory 3 in cell 6: no path leads to it");
        expect_text("name 21 in cell 12: no path leads to it");
        cr_assert_eq(n_texts, 3);

        w = world(), w.name.directory = 9;
        expect_wrong(&w, "the directory that it is in is not there (9)");
        w = world(), w.name.region = 99;
        expect_wrong(&w, "its region is not there (99)");
        w = world(), w.ticket.region = 99;
        expect_wrong(&w, "its region is not there (99)");
        w = world(), w.grant.region = 99;
        expect_wrong(&w, "its region is not there (99)");
        w = world(), w.of_session.session = 99;
        expect_wrong(&w, "its session is not there (99)");
        w = world(), w.outcomes.session = 99;
        expect_wrong(&w, "their session is not there (99)");
        w = world(), w.batch.session = 99;
        expect_wrong(&w, "its session is not there (99)");
        w = world(), w.bell.rings_for = 99;
        expect_wrong(&w, "the region that it is the doorbell of is not there (99)");
        w = world(), w.orphan.is_bell = true, w.orphan.rings_for = 13;
        expect_wrong(&w, "the region that it is the doorbell of is not there (13)");
        w = world(), w.bell.rings_for = 0;
        cr_assert_eq(inspect(build(&w)).n_mistakes, 0, "a doorbell may outlive its region");
}

TEST(inspect, a_region_that_goes_has_no_name) {
        World w = world();

        w.region.state = REGION_STATE_ORPHAN;
        expect_wrong(&w, "region 10 in cell 7: it is an orphan and has a name");
        w = world(), w.region.state = REGION_STATE_CONDEMNED;
        expect_wrong(&w, "name 20 in cell 11: its region is on its way out (10)");
}

TEST(inspect, no_directory_is_in_itself) {
        World w = world();

        w.directory.parent = 3;
        (void)inspect(build(&w));
        expect_text("directory 2 in cell 5: no path leads to it");
        expect_text("directory 3 in cell 6: no path leads to it");
        expect_text("name 21 in cell 12: no path leads to it");
        cr_assert_eq(n_texts, 3);
}

/* A chain of n directories below the root, the deepest one first, with names of that many bytes. */
static State *build_chain(uint64_t n, size_t n_name) {
        World w = world();
        State *state = build(&w);
        char text[256];

        memset(text, 'x', sizeof(text));
        text[n_name] = '\0';
        for (uint64_t i = n; i > 0; --i) {
                SavedDirectory saved = directory(70 + i, i > 1 ? 69 + i : SAVED_ROOT, text);

                build_directory(state, &saved);
        }
        return state;
}

TEST(inspect, no_path_is_too_deep_or_too_long) {
        cr_assert_eq(inspect(build_chain(PATH_DEPTH_MAX, 3)).n_mistakes, 0, "%s", texts[0]);
        expect_only(build_chain(PATH_DEPTH_MAX + 1, 3), "directory 87 in cell 18: no path leads to it");
        cr_assert_eq(inspect(build_chain(PATH_DEPTH_MAX + 5, 3)).n_mistakes, 5);
        cr_assert_eq(inspect(build_chain(3, 255)).n_mistakes, 0);
        expect_only(build_chain(4, 255), "directory 74 in cell 18: no path leads to it");
}

TEST(inspect, damaged_cells_are_told) {
        World w = world();
        State *state = build(&w);
        uint8_t byte = 1;
        struct stat st;

        state_commit(state);
        cr_assert_eq(fstat(state_fd(state), &st), 0);
        cr_assert_eq(pwrite(state_fd(state), &byte, 1, st.st_size - 1), 1);
        expect_only(state, "1 cell is damaged");
}
