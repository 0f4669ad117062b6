/* daemon/broker/session: who comes back to what, for how long, and what is remembered of the requests. */

#include "daemon-house.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/session.h"
#include "core/persist.h"

#define GRACE (10 * NSEC_PER_SEC)
#define CELLS 65536U

static House house;
static State *state;
static Counters counters;
static Sessions sessions;
static int peers[512];          /* of which only the addresses count */

static Peer *peer(size_t i) {
        return (Peer *)(void *)&peers[i];
}

static void encoders(void) {
        persist_register(state);
        sessions_register(state);
}

static void begin(void) {
        house_open(&house);
        REQUIRE(state_new(&state, CELLS) == 0);
        encoders();
        REQUIRE(state_make_room(state, STATE_ROOM) == 0);
        counters_init(&counters, state);
        sessions_init(&sessions, &house.deadlines, &house.regions);
        sessions.state = state;
        sessions.counters = &counters;
}

/* Ends what is connected, too. */
static void end_sessions(void) {
        for (uint64_t number = 1; number <= sessions.last; ++number) {
                Session *session = sessions_find(&sessions, number);

                if (session && session->peer) {
                        session->peer = NULL;
                        ++sessions.n_waiting;
                }
        }
        sessions_deinit(&sessions);
}

static void end(void) {
        end_sessions();
        counters_deinit(&counters);
        state_commit(state);
        cr_assert_eq(state_cells_used(state), 0, "nothing is left of a session that ended");
        state = state_free(state);
        house_close(&house);
}

/* What is committed is all that is left, and another broker begins with it. */
static void restart(void) {
        const char *sentence;
        int fd = fcntl(state_fd(state), F_DUPFD_CLOEXEC, 3);

        state = state_free(state);
        end_sessions();
        counters_deinit(&counters);
        REQUIRE(state_adopt_consume_fd(&state, fd, CELLS, &sentence) == 0, "%s", sentence);
        encoders();
        counters = (Counters){ .record = STATE_RECORD_NULL };
        sessions_init(&sessions, &house.deadlines, &house.regions);
        sessions.counters = &counters;
        REQUIRE(sessions_recover(&sessions, state) == 0);
        sessions.state = state;
        REQUIRE(state_make_room(state, STATE_ROOM) == 0);
}

/* The record of the counters is nobody's business here. */
static int forget_counters(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        (void)userdata;
        (void)kind;
        (void)id;
        (void)data;
        (void)n;
        state_forget(state, cell);
        return 0;
}

static void restart_and_await(void) {
        restart();
        REQUIRE(state_walk(state, STATE_COUNTERS, forget_counters, NULL) == 0);
        REQUIRE(sessions_await(&sessions, &house.accounts, GRACE) == 0);
        state_commit(state);
}

typedef struct Known {
        Session *session;
        uint8_t id[MESSAGE_SESSION_BYTES];
} Known;

static Known make(size_t i, uid_t uid) {
        Known known;

        REQUIRE(session_new(&known.session, known.id, &sessions, peer(i), uid) == 0);
        state_commit(state);
        return known;
}

static void settle(Session *session, uint64_t serial, uint64_t extra) {
        SavedOutcome outcome = { .serial = serial, .kind = MESSAGE_MKDIR, .hash = 7, .extra = extra };

        REQUIRE(session_make_room(session, 0) == 0 && state_make_room(state, STATE_ROOM) == 0);
        session_settle(session, SESSION_NOTHING, &outcome, NULL, 0);
        state_commit(state);
}

static void settle_batch(Session *session, uint64_t serial, uint64_t first, size_t n) {
        SavedOutcome outcome = { .serial = serial, .kind = MESSAGE_BATCH, .hash = 9 };
        uint64_t items[SAVED_BATCH_MAX];

        for (size_t i = 0; i < n; ++i)
                items[i] = (first + i) | SAVED_ITEM_CREATED;
        REQUIRE(session_make_room(session, n) == 0 && state_make_room(state, STATE_ROOM) == 0);
        session_settle(session, SESSION_NOTHING, &outcome, items, n);
        state_commit(state);
}

/* -- ids and numbers ---------------------------------------------------------------------- */

TEST(session, ids_and_numbers_are_its_own_and_the_id_is_nowhere) {
        Known known[64];

        begin();
        for (size_t i = 0; i < 64; ++i) {
                known[i] = make(i, ALICE);
                cr_assert_eq(sessions_find(&sessions, known[i].session->number), known[i].session);
                cr_assert_null(memmem(known[i].session, sizeof(Session), known[i].id, sizeof(known[i].id)));
                for (size_t k = 0; k < i; ++k) {
                        cr_assert_neq(known[i].session->number, known[k].session->number);
                        cr_assert(memcmp(known[i].id, known[k].id, sizeof(known[i].id)));
                }
        }
        known[5].session = session_free(known[5].session);
        cr_assert_null(sessions_find(&sessions, 6));
        cr_assert_eq(session_free(NULL), NULL);
        cr_assert(session_wind_up(NULL));
        end();
}

static int expect_used(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        SavedCounters saved;

        (void)kind;
        (void)id;
        (void)cell;
        return saved_decode_counters(&saved, data, n) || saved.last_session < *(const uint64_t *)userdata;
}

TEST(session, its_number_is_never_used_again) {
        uint64_t last;
        Known known;

        begin();
        known = make(0, ALICE);
        last = known.session->number;
        known.session = session_free(known.session);
        state_commit(state);
        restart();
        cr_assert_eq(sessions.n, 0);
        cr_assert_eq(state_walk(state, STATE_COUNTERS, expect_used, &last), 0);
        cr_assert_eq(state_walk(state, STATE_COUNTERS, forget_counters, NULL), 0);
        end();
}

/* -- coming back -------------------------------------------------------------------------- */

TEST(session, its_client_comes_back_to_it_and_nobody_else_does) {
        uint8_t other[MESSAGE_SESSION_BYTES] = { 1 };
        uint64_t number;
        Known known;

        begin();
        known = make(0, ALICE);
        number = known.session->number;
        cr_assert_null(session_resume(&sessions, known.id, peer(1), ALICE), "its client is there");
        restart_and_await();
        cr_assert_eq(sessions.n_waiting, 1);
        cr_assert_null(session_resume(&sessions, known.id, peer(1), BOB), "another user learns nothing");
        cr_assert_null(session_resume(&sessions, known.id, peer(1), 0));
        cr_assert_null(session_resume(&sessions, other, peer(1), ALICE));
        cr_assert_eq(sessions.n_waiting, 1);
        known.session = session_resume(&sessions, known.id, peer(1), ALICE);
        cr_assert_not_null(known.session);
        cr_assert(known.session->number == number && known.session->peer == peer(1) && sessions.n_waiting == 0);
        cr_assert_null(session_resume(&sessions, known.id, peer(2), ALICE), "it is taken");
        deadlines_run(&house.deadlines, time_now() + 2 * GRACE);
        cr_assert_eq(sessions.n, 1, "it does not wait any more");
        end();
}

TEST(session, without_a_commit_it_never_was) {
        Known known;

        begin();
        REQUIRE(session_new(&known.session, known.id, &sessions, peer(0), ALICE) == 0);
        restart_and_await();
        cr_assert_eq(sessions.n, 0);
        end();
}

static Region *region_of(Session *session, const char *path) {
        Account *account = house_account(&house, session->uid);
        Region *region = house_named_for(&house, account, path, PAGE, REGION_SESSION);

        region_join_session(region, &session->regions, session->number);
        account = account_unref(account);
        return region;
}

TEST(session, who_does_not_come_back_loses_what_was_to_end_with_it_a_few_names_a_turn) {
        char path[32];
        Known known;

        begin();
        known = make(0, ALICE);
        restart_and_await();
        known.session = sessions_find(&sessions, 1);
        for (int i = 0; i < 150; ++i) {
                (void)snprintf(path, sizeof(path), "/%d", i);
                (void)region_of(known.session, path);
        }
        deadlines_run(&house.deadlines, time_now() + GRACE / 2);
        cr_assert(sessions.n == 1 && house.regions.n_named == 150);
        known.session->until = time_now();
        cr_assert_null(session_resume(&sessions, known.id, peer(0), ALICE), "too late");
        for (int i = 0; i < 1000 && sessions.n > 0; ++i) {
                uint64_t n_named = house.regions.n_named;

                deadlines_run(&house.deadlines, time_now() + GRACE);
                cr_assert_leq(n_named - house.regions.n_named, 64);
        }
        cr_assert(sessions.n == 0 && sessions.n_waiting == 0 && house.regions.n_named == 0);
        end();
}

TEST(session, when_it_ends_regions_are_asked_who_holds_them) {
        Account *account;
        Region *region;
        Known known;
        int fd;

        begin();
        known = make(0, ALICE);
        account = house_account(&house, BOB);
        region = house_named_for(&house, account, "/x", PAGE, REGION_SESSION);
        account = account_unref(account);
        fd = house_hold(region, false);
        region_unlink(region);
        cr_assert_eq(house.regions.n_orphans, 1);
        restart_and_await();
        house_turn(&house);
        cr_assert_not(deadline_is_armed(&house.regions.sweep_due));
        known.session = sessions_find(&sessions, 1);
        known.session->until = time_now();
        deadlines_run(&house.deadlines, time_now() + GRACE);
        cr_assert(sessions.n == 0 && deadline_is_armed(&house.regions.sweep_due));
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        end();
}

static void name_goes(Node *node, void *userdata) {
        unsigned int *n = userdata;

        REQUIRE(region_more(node->region)->session_number != 0, "dead now, its other names would stay for ever");
        ++*n;
}

/* Whoever hears of a name that goes may commit what there is until then. */
TEST(session, a_region_is_its_own_until_the_last_name_is_gone) {
        uint8_t id[MESSAGE_SESSION_BYTES];
        unsigned int n = 0;
        const TreeObserver observer = { .removed = name_goes, .userdata = &n };
        Account *alice;
        Session *session;
        Region *region;
        Spot spot;
        int fd;

        begin();
        alice = house_account(&house, ALICE);
        REQUIRE(session_new(&session, id, &sessions, peer(0), ALICE) == 0);
        region = house_named_for(&house, alice, "/a", PAGE, REGION_SESSION);
        spot = house_spot(&house, "/b");
        REQUIRE(region_link(region, &spot, NULL) == 0);
        region_join_session(region, &session->regions, session->number);
        fd = house_hold(region, false);
        house.tree.observer = &observer;
        house_until(&house, session_wind_up(session));
        cr_assert(n == 2 && region_n_names(region) == 0 && region->more->session_number == 0);
        cr_assert(list_is_empty(&region->more->session));
        cr_assert_eq(region->state, REGION_STATE_ORPHAN);
        house.tree.observer = NULL;
        fd = close_fd(fd);
        house_until(&house, house.regions.n == 0);
        alice = account_unref(alice);
        end();
}

TEST(session, regions_find_their_session_or_are_told_that_it_is_gone) {
        Account *account;
        Region *region;
        Known known;

        begin();
        known = make(0, ALICE);
        restart_and_await();
        account = house_account(&house, ALICE);
        region = house_named_for(&house, account, "/x", PAGE, REGION_SESSION);
        account = account_unref(account);
        cr_assert_not(sessions_adopt(region, 4711, &sessions));
        cr_assert(sessions_adopt(region, 1, &sessions));
        cr_assert_eq(region_more(region)->session_number, 1);
        known.session = session_resume(&sessions, known.id, peer(0), ALICE);
        known.session = session_free(known.session);
        cr_assert_eq(house.regions.n_named, 0);
        end();
}

/* -- time and number of those that wait --------------------------------------------------- */

TEST(session, each_broker_gives_it_the_whole_time_but_not_for_ever) {
        Known known;

        begin();
        known = make(0, ALICE);
        for (uint64_t starts = 1; starts <= SESSION_STARTS; ++starts) {
                uint64_t now = time_now();

                restart_and_await();
                cr_assert_eq(sessions_find(&sessions, 1)->starts, starts);
                cr_assert_geq(sessions_find(&sessions, 1)->until, now + GRACE);
        }
        restart();
        cr_assert_eq(sessions_find(&sessions, 1)->starts, SESSION_STARTS);
        known.session = session_resume(&sessions, known.id, peer(0), ALICE);
        cr_assert_null(known.session, "nobody was told yet that it waits");
        REQUIRE(sessions_await(&sessions, &house.accounts, GRACE) == 0);
        REQUIRE(state_walk(state, STATE_COUNTERS, forget_counters, NULL) == 0);
        cr_assert_null(session_resume(&sessions, known.id, peer(0), ALICE), "that was the last one");
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(sessions.n, 0);
        end();
}

TEST(session, whose_client_was_there_has_all_its_chances_again) {
        Known known;

        begin();
        known = make(0, ALICE);
        for (unsigned int round = 0; round < 3; ++round) {
                for (unsigned int i = 0; i < SESSION_STARTS; ++i)
                        restart_and_await();
                known.session = session_resume(&sessions, known.id, peer(0), ALICE);
                cr_assert_not_null(known.session);
                state_commit(state);
        }
        end();
}

TEST(session, no_user_has_more_waiting_than_it_may_have_connections) {
        Known known[20];

        begin();
        for (size_t i = 0; i < 20; ++i)
                known[i] = make(i, i % 2 ? ALICE : BOB);
        house.rules.everybody.max[ACCOUNT_PEERS] = 3;
        restart_and_await();
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(sessions.n, 6);
        cr_assert_not_null(session_resume(&sessions, known[19].id, peer(0), ALICE));
        cr_assert_not_null(session_resume(&sessions, known[18].id, peer(1), BOB));
        cr_assert_null(session_resume(&sessions, known[0].id, peer(2), BOB));
        end();
}

/* -- outcomes ----------------------------------------------------------------------------- */

TEST(session, what_was_done_before_is_known_and_told_once) {
        SavedOutcome again;
        Session *session;
        Known known;
        int slot;

        begin();
        known = make(0, ALICE);
        settle(known.session, 100, 1);
        cr_assert_eq(session_look(known.session, 100), SESSION_NOTHING, "its client has heard of that");
        restart_and_await();
        session = session_resume(&sessions, known.id, peer(0), ALICE);
        slot = session_look(session, 100);
        cr_assert_neq(slot, SESSION_NOTHING);
        cr_assert_eq(session_look(session, 101), SESSION_NOTHING);
        cr_assert(session_outcome(session, slot)->kind == MESSAGE_MKDIR && session_outcome(session, slot)->hash == 7 &&
                  session_outcome(session, slot)->extra == 1);

        again = *session_outcome(session, slot);
        again.extra = 2;
        session_settle(session, slot, &again, NULL, 0);
        state_commit(state);
        cr_assert_eq(session_look(session, 100), SESSION_NOTHING);
        cr_assert_eq(session->n_earlier, 0);
        restart_and_await();
        session = session_resume(&sessions, known.id, peer(0), ALICE);
        slot = session_look(session, 100);
        cr_assert_neq(slot, SESSION_NOTHING);
        cr_assert_eq(session_outcome(session, slot)->extra, 2);
        end();
}

TEST(session, the_latest_sixty_four_are_known_wherever_the_ring_stands) {
        begin();
        for (uint64_t n = 1; n <= 200; n += n < 60 || n > 130 ? 7 : 1) {
                Known known = make(0, ALICE);
                Session *session;

                for (uint64_t serial = 1; serial <= n; ++serial)
                        settle(known.session, serial, serial * 3);
                restart_and_await();
                session = session_resume(&sessions, known.id, peer(0), ALICE);
                for (uint64_t serial = 1; serial <= n; ++serial) {
                        int slot = session_look(session, serial);

                        cr_assert_eq(slot != SESSION_NOTHING, serial + SESSION_OUTCOMES > n, "%lu of %lu", serial, n);
                        if (slot != SESSION_NOTHING)
                                cr_assert_eq(session_outcome(session, slot)->extra, serial * 3);
                }
                /* One more, and the oldest is forgotten. */
                settle(session, 1000, 0);
                cr_assert_eq(session_look(session, 1000), SESSION_NOTHING);
                if (n >= SESSION_OUTCOMES)
                        cr_assert_eq(session_look(session, n - SESSION_OUTCOMES + 1), SESSION_NOTHING);
                cr_assert_eq(session->n_earlier, n < SESSION_OUTCOMES ? n : SESSION_OUTCOMES - 1);
                session = session_free(session);
                state_commit(state);
        }
        end();
}

TEST(session, of_a_serial_used_twice_the_latest_counts) {
        Session *session;
        Known known;

        begin();
        known = make(0, ALICE);
        for (uint64_t i = 0; i < 100; ++i)
                settle(known.session, 1 + i % 10, i);
        restart_and_await();
        session = session_resume(&sessions, known.id, peer(0), ALICE);
        for (uint64_t serial = 1; serial <= 10; ++serial)
                cr_assert_eq(session_outcome(session, session_look(session, serial))->extra, 90 + serial - 1);
        end();
}

TEST(session, a_batch_has_its_regions_until_it_is_forgotten) {
        uint32_t used;
        Session *session;
        const uint64_t *items;
        Known known;
        size_t n;

        begin();
        known = make(0, ALICE);
        used = state_cells_used(state);
        for (uint64_t serial = 1; serial <= 150; ++serial)
                settle_batch(known.session, serial, serial * 1000, 1 + (serial * 37) % 16);
        restart_and_await();
        session = session_resume(&sessions, known.id, peer(0), ALICE);
        for (uint64_t serial = 87; serial <= 150; ++serial) {
                items = session_items(session, session_look(session, serial), &n);
                cr_assert_eq(n, 1 + (serial * 37) % 16);
                for (size_t i = 0; i < n; ++i)
                        cr_assert_eq(items[i], (serial * 1000 + i) | SAVED_ITEM_CREATED);
        }
        for (uint64_t serial = 201; serial <= 264; ++serial)
                settle(session, serial, 0);
        cr_assert_leq(state_cells_used(state), used + SAVED_OUTCOME_BLOCKS, "their records are gone");
        restart_and_await();
        session = session_resume(&sessions, known.id, peer(0), ALICE);
        items = session_items(session, session_look(session, 264), &n);
        cr_assert(n == 0 && !items);
        end();
}

TEST(session, of_large_batches_only_as_many_are_remembered_as_have_room_together) {
        Session *session;
        Known known;
        uint32_t used;
        size_t n;

        begin();
        known = make(0, ALICE);
        used = state_cells_used(state);
        for (uint64_t serial = 1; serial <= 20; ++serial) {
                settle_batch(known.session, serial, serial * 1000, SAVED_BATCH_MAX);
                settle(known.session, 100 + serial, 0);
        }
        cr_assert_eq(known.session->n_items, SESSION_ITEMS);
        cr_assert_leq(state_cells_used(state), used + 40 + 8 * STATE_RECORD_CELLS);
        restart_and_await();
        session = session_resume(&sessions, known.id, peer(0), ALICE);
        cr_assert(session->n_items == SESSION_ITEMS && session->n_earlier == 20 + 8);
        for (uint64_t serial = 1; serial <= 20; ++serial) {
                cr_assert_neq(session_look(session, 100 + serial), SESSION_NOTHING);
                cr_assert_eq(session_look(session, serial) == SESSION_NOTHING, serial <= 12, "%lu", serial);
        }
        /* Told again, one of them still counts once. */
        for (uint64_t serial = 13; serial <= 20; ++serial) {
                int slot = session_look(session, serial);
                SavedOutcome again = *session_outcome(session, slot);
                uint64_t items[SAVED_BATCH_MAX];

                REQUIRE(session_make_room(session, SAVED_BATCH_MAX) == 0 && state_make_room(state, STATE_ROOM) == 0);
                memcpy(items, session_items(session, slot, &n), sizeof(items));
                session_settle(session, slot, &again, items, n);
        }
        cr_assert(session->n_items == SESSION_ITEMS && session->n_earlier == 20);
        state_commit(state);
        restart_and_await();
        session = session_resume(&sessions, known.id, peer(0), ALICE);
        cr_assert_eq(session->n_earlier, 20 + 8);
        end();
}

TEST(session, in_the_long_run_an_outcome_costs_one_cell_to_write_and_nothing_to_keep) {
        OutcomeBlock *blocks[SAVED_OUTCOME_BLOCKS];
        uint64_t commits;
        uint32_t used;
        Known known;

        begin();
        known = make(0, ALICE);
        for (uint64_t serial = 1; serial <= SESSION_OUTCOMES; ++serial)
                settle(known.session, serial, 0);
        used = state_cells_used(state);
        commits = state_commits(state);
        memcpy(blocks, known.session->blocks, sizeof(blocks));
        for (uint64_t serial = 1; serial <= 1000; ++serial)
                settle(known.session, SESSION_OUTCOMES + serial, 0);
        cr_assert_eq(state_cells_used(state), used);
        cr_assert_eq(state_commits(state), commits + 1000);
        cr_assert_arr_eq(blocks, known.session->blocks, sizeof(blocks));
        end();
}

TEST(session, without_a_state_nothing_is_remembered) {
        SavedOutcome outcome = { .serial = 1, .kind = MESSAGE_MKDIR };
        Session *session;
        uint8_t id[MESSAGE_SESSION_BYTES];

        begin();
        sessions.state = NULL;
        sessions.counters = NULL;
        REQUIRE(session_new(&session, id, &sessions, peer(0), ALICE) == 0);
        cr_assert_eq(session_make_room(session, 128), 0);
        session_settle(session, SESSION_NOTHING, &outcome, NULL, 0);
        cr_assert_null(session->blocks);
        cr_assert_null(session->spare);
        cr_assert_not(state_is_dirty(state) && state_cells_used(state));
        end();
}

/* -- damage ------------------------------------------------------------------------------- */

typedef struct Bytes {
        StateRecord record;
        size_t n;
        uint8_t data[STATE_RECORD_MAX];
} Bytes;

static size_t encode_bytes(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        const Bytes *bytes = list_entry(record, Bytes, record);

        memcpy(data, bytes->data, bytes->n);
        return bytes->n;
}

/* Puts records into the state that no broker would have. */
static void put(StateKind kind, uint64_t id, Bytes *bytes) {
        bytes->record = (StateRecord)STATE_RECORD_NULL;
        state_set_encoder(state, kind, encode_bytes);
        REQUIRE(state_make_room(state, STATE_ROOM) == 0);
        state_add(state, &bytes->record, kind, id);
        state_commit(state);
}

TEST(session, records_that_contradict_each_other_are_dropped) {
        SavedSession good = { .id = 5, .uid = ALICE, .session = { 1 } };
        SavedSession same_key = { .id = 6, .uid = BOB, .session = { 1 } };
        SavedSession same_number = { .id = 5, .uid = BOB, .session = { 2 } };
        SavedOutcomes right = { .session = 5, .block = 4, .count = 64 + 4, .outcomes[0] = { .serial = 9, .kind = 9 } };
        SavedOutcomes twice = { .session = 5, .block = 4, .count = 4, .outcomes[0] = { .serial = 8, .kind = 9 } };
        SavedOutcomes misplaced = { .session = 5, .block = 2, .count = 5, .outcomes[0] = { .serial = 7, .kind = 9 } };
        SavedOutcomes nobody = { .session = 77, .block = 0, .count = 0, .outcomes[0] = { .serial = 6, .kind = 9 } };
        SavedBatch batch = { .session = 5, .slot = 4, .n = 1, .items = { 3 } };
        SavedBatch blockless = { .session = 5, .slot = 40, .n = 1, .items = { 3 } };
        SavedBatch homeless = { .session = 78, .slot = 4, .n = 1, .items = { 3 } };
        static const uint64_t numbers[] = { 5, 6, 5, 5, 5, 5, 77, 5, 5, 5, 78, 8, 5, 5 };
        SavedSession misnumbered = { .id = 7, .uid = BOB, .session = { 3 } };
        SavedOutcomes other = { .session = 6, .block = 10, .count = 10, .outcomes[0] = { .serial = 5, .kind = 9 } };
        SavedBatch another = { .session = 6, .slot = 4, .n = 1, .items = { 3 } };
        Bytes bytes[14];
        Session *session;

        begin();
        bytes[0].n = saved_encode_session(&good, bytes[0].data);
        bytes[1].n = saved_encode_session(&same_key, bytes[1].data);
        bytes[2].n = saved_encode_session(&same_number, bytes[2].data);
        bytes[3].n = saved_encode_outcomes(&right, bytes[3].data);
        bytes[4].n = saved_encode_outcomes(&twice, bytes[4].data);
        bytes[5].n = saved_encode_outcomes(&misplaced, bytes[5].data);
        bytes[6].n = saved_encode_outcomes(&nobody, bytes[6].data);
        bytes[7].n = saved_encode_batch(&batch, bytes[7].data);
        bytes[8].n = saved_encode_batch(&batch, bytes[8].data);
        bytes[9].n = saved_encode_batch(&blockless, bytes[9].data);
        bytes[10].n = saved_encode_batch(&homeless, bytes[10].data);
        bytes[11].n = saved_encode_session(&misnumbered, bytes[11].data);
        bytes[12].n = saved_encode_outcomes(&other, bytes[12].data);
        bytes[13].n = saved_encode_batch(&another, bytes[13].data);
        for (size_t i = 0; i < 14; ++i)
                put(i < 3 || i == 11 ? STATE_SESSION : i < 7 || i == 12 ? STATE_OUTCOMES : STATE_BATCH, numbers[i],
                    &bytes[i]);
        restart();
        for (size_t i = 0; i < 14; ++i)
                state_drop(&bytes[i].record);
        cr_assert_eq(sessions.n, 1);
        cr_assert_eq(sessions.last, 5);
        session = sessions_find(&sessions, 5);
        cr_assert_eq(session->uid, ALICE);
        cr_assert_eq(session->n_earlier, 1);
        cr_assert_eq(session->count, 64 + 5);
        cr_assert_eq(session_look(session, 9), 4);
        REQUIRE(sessions_await(&sessions, &house.accounts, GRACE) == 0);
        REQUIRE(state_walk(state, STATE_COUNTERS, forget_counters, NULL) == 0);
        state_commit(state);
        cr_assert_eq(state_cells_used(state), 3, "a session, a block, a batch");
        settle(session, 10, 0);
        end();
}
