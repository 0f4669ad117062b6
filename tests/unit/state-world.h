/* A small state with something of every kind in it, all of which fits: tests change what they are about. */
#ifndef TESTS_UNIT_STATE_WORLD_H
#define TESTS_UNIT_STATE_WORLD_H

#include "core/region.h"
#include "core/saved.h"
#include "state-things.h"

#define THINGS_MAX 64

typedef struct World {
        SavedCounters counters;
        SavedPolicy policy;
        SavedDirectory root, directory, below;
        SavedRegion region, of_session, orphan, bell;
        SavedName name, other_name;
        SavedTicket ticket;
        SavedGrant grant;
        SavedSession session;
        SavedOutcomes outcomes;
        SavedBatch batch;
} World;

static inline SavedDirectory directory(uint64_t id, uint64_t parent, const char *name) {
        SavedDirectory saved = { .id = id, .parent = parent, .permissions.mode = 0755, .paid = parent };

        saved.n_name = (uint8_t)strlen(name);
        memcpy(saved.name, name, saved.n_name);
        return saved;
}

static inline SavedRegion region(uint64_t id, RegionLifetime lifetime, RegionState state) {
        return (SavedRegion){ .id = id, .size = PAGE, .inode = 1000 + id, .permissions.mode = 0600,
                              .lifetime = (uint8_t)lifetime, .state = (uint8_t)state };
}

static inline SavedName name(uint64_t id, uint64_t of, uint64_t to, const char *text) {
        SavedName saved = { .id = id, .directory = of, .region = to, .n_name = (uint8_t)strlen(text) };

        memcpy(saved.name, text, saved.n_name);
        return saved;
}

static inline World world(void) {
        World w = {
                .counters = { 100, 100, 100, 100, 100, 100, 5000 },
                .policy = { .generation = 3 },
                .root = directory(SAVED_ROOT, 0, ""),
                .directory = directory(2, SAVED_ROOT, "d"),
                .below = directory(3, 2, "e"),
                .region = region(10, REGION_NAMED, REGION_STATE_NAMED),
                .of_session = region(11, REGION_SESSION, REGION_STATE_NAMED),
                .orphan = region(12, REGION_NAMED, REGION_STATE_ORPHAN),
                .bell = region(13, REGION_NAMED, REGION_STATE_NAMED),
                .name = name(20, SAVED_ROOT, 10, "n"),
                .other_name = name(21, 3, 11, "n"),
                .ticket = { .id = 30, .region = 12, .uses = 3, .left = 2, .digest = { 1, 2, 3 } },
                .grant = { .id = 40, .region = 12, .uid = 7 },
                .session = { .id = 50, .session = { 9 }, .uid = 7 },
                .outcomes = { .session = 50, .block = 1, .outcomes = { { .serial = 1, .kind = 3 } } },
                .batch = { .session = 50, .slot = 2, .n = 1, .items = { 10 } },
        };

        w.of_session.session = 50;
        w.bell.is_bell = true;
        w.bell.rings_for = 10;
        return w;
}

/* -- building --------------------------------------------------------------------------------- */

static Thing things[THINGS_MAX];
static size_t n_things;

static inline uint8_t *begin(State *state, StateKind kind, uint64_t id) {
        Thing *thing = &things[n_things++];

        REQUIRE(n_things <= THINGS_MAX);
        *thing = (Thing){ .record = STATE_RECORD_NULL };
        state_add(state, &thing->record, kind, id);
        return thing->data;
}

#define BUILD(state, kind, id, encode, saved)                                   \
        do {                                                                    \
                uint8_t *data = begin(state, kind, id);                         \
                                                                                \
                things[n_things - 1].n = encode(saved, data);                   \
        } while (0)

static inline void build_directory(State *state, const SavedDirectory *saved) {
        BUILD(state, STATE_DIRECTORY, saved->id, saved_encode_directory, saved);
}

static inline void build_region(State *state, const SavedRegion *saved) {
        BUILD(state, STATE_REGION, saved->id, saved_encode_region, saved);
}

static inline void build_name(State *state, const SavedName *saved) {
        BUILD(state, STATE_NAME, saved->id, saved_encode_name, saved);
}

/* What has no number of its own begins with its session's. */
static inline State *build(const World *w) {
        State *state = make(CELLS_MAX);

        n_things = 0;
        BUILD(state, STATE_COUNTERS, 1, saved_encode_counters, &w->counters);
        BUILD(state, STATE_POLICY, 1, saved_encode_policy, &w->policy);
        build_directory(state, &w->root);
        build_directory(state, &w->directory);
        build_directory(state, &w->below);
        build_region(state, &w->region);
        build_region(state, &w->of_session);
        build_region(state, &w->orphan);
        build_region(state, &w->bell);
        build_name(state, &w->name);
        build_name(state, &w->other_name);
        BUILD(state, STATE_TICKET, w->ticket.id, saved_encode_ticket, &w->ticket);
        BUILD(state, STATE_GRANT, w->grant.id, saved_encode_grant, &w->grant);
        BUILD(state, STATE_SESSION, w->session.id, saved_encode_session, &w->session);
        BUILD(state, STATE_OUTCOMES, w->outcomes.session, saved_encode_outcomes, &w->outcomes);
        BUILD(state, STATE_BATCH, w->batch.session, saved_encode_batch, &w->batch);
        return state;
}

static inline void demolish(State *state) {
        for (size_t i = 0; i < n_things; ++i)
                state_drop(&things[i].record);
        (void)state_free(state);
}

#endif
