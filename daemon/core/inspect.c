/* Inspection: see the header for the model. */

#include "core/inspect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "core/region.h"
#include "core/saved.h"
#include "util/error.h"

/* What is compared of a record with others. */
typedef struct Item {
        uint64_t id;
        uint64_t of;            /* the directory it is in, the region it is of, or the session */
        uint64_t other;         /* a name's region, a region's session; a block or slot of its session */
        uint64_t key;           /* inode, or the beginning of a digest; 0: none */
        uint32_t cell;
        uint32_t n_names;       /* of a region */
        uint8_t kind;
        uint8_t state;          /* a region's */
        uint8_t depth;          /* of a directory; 0: not known yet */
        uint16_t length;        /* of its path, in bytes */
        bool is_bell;
        bool is_huge;
        uint8_t n;
        char *name;             /* owned */
} Item;

typedef struct Items {
        Item *items;
        size_t n;
        size_t room;
} Items;

typedef struct Inspector {
        InspectFn fn;
        void *userdata;
        Inspection *result;
        SavedCounters counters;
        Items kinds[_STATE_KIND_N];
} Inspector;

static const struct {
        const char *name;
        const char *plural;
} kinds[_STATE_KIND_N] = {
        [STATE_FREE]      = { "free", "free" },
        [STATE_MORE]      = { "more", "more" },
        [STATE_COUNTERS]  = { "counters", "counters" },
        [STATE_POLICY]    = { "policy", "policies" },
        [STATE_DIRECTORY] = { "directory", "directories" },
        [STATE_REGION]    = { "region", "regions" },
        [STATE_NAME]      = { "name", "names" },
        [STATE_TICKET]    = { "ticket", "tickets" },
        [STATE_GRANT]     = { "grant", "grants" },
        [STATE_SESSION]   = { "session", "sessions" },
        [STATE_OUTCOMES]  = { "outcomes", "outcomes" },
        [STATE_BATCH]     = { "batch", "batches" },
};

const char *inspect_kind_name(StateKind kind) {
        return kinds[kind].name;
}

const char *inspect_kind_plural(StateKind kind) {
        return kinds[kind].plural;
}

/* -- telling ------------------------------------------------------------------------------ */

static void complain(Inspector *inspector, const Item *item, const char *what, uint64_t number) {
        char text[INSPECT_TEXT_MAX], more[24] = "";

        if (number)
                (void)snprintf(more, sizeof(more), " (%" PRIu64 ")", number);
        (void)snprintf(text, sizeof(text), "%s %" PRIu64 " in cell %" PRIu32 ": %s%s", kinds[item->kind].name, item->id,
                       item->cell, what, more);
        ++inspector->result->n_mistakes;
        inspector->fn(inspector->userdata, text);
}

static void complain_of_state(Inspector *inspector, const char *what) {
        ++inspector->result->n_mistakes;
        inspector->fn(inspector->userdata, what);
}

/* -- reading ------------------------------------------------------------------------------ */

static int add(Items *items, const Item *item) {
        if (items->n == items->room) {
                size_t room = items->room ? items->room * 2 : 64;
                Item *more = reallocarray(items->items, room, sizeof(*more));

                if (!more)
                        return error_origin(-ENOMEM);
                items->items = more;
                items->room = room;
        }
        items->items[items->n++] = *item;
        return 0;
}

static int add_named(Items *items, Item *item, const char *name, uint8_t n) {
        int r;

        item->n = n;
        item->name = malloc((size_t)n + 1);
        if (!item->name)
                return error_origin(-ENOMEM);
        memcpy(item->name, name, n);
        r = add(items, item);
        if (r)
                free(item->name);
        return r;
}

/* Each of these decodes a record and keeps what matters. `item` has the record's number, which has to be the
 * object's own. Return: 0, SAVED_E_INVALID, -ENOMEM. */
typedef int (*ReadFn)(Inspector *inspector, Item *item, const uint8_t *data, size_t n);

static int read_counters(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedCounters counters;
        int r = saved_decode_counters(&counters, data, n);

        if (r)
                return r;
        inspector->counters = counters;
        return add(&inspector->kinds[STATE_COUNTERS], item);
}

static int read_policy(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedPolicy policy;
        int r = saved_decode_policy(&policy, data, n);

        if (r)
                return r;
        inspector->result->generation = policy.generation;
        return add(&inspector->kinds[STATE_POLICY], item);
}

static int read_directory(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedDirectory directory;
        int r = saved_decode_directory(&directory, data, n);

        if (r || directory.id != item->id)
                return SAVED_E_INVALID;
        item->of = directory.parent;
        return add_named(&inspector->kinds[STATE_DIRECTORY], item, directory.name, directory.n_name);
}

static int read_region(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedRegion region;
        int r = saved_decode_region(&region, data, n);

        if (r || region.id != item->id)
                return SAVED_E_INVALID;
        item->of = region.rings_for;
        item->other = region.session;
        item->key = region.inode;
        item->state = region.state;
        item->is_bell = region.is_bell;
        item->is_huge = region.huge_shift;
        inspector->result->bytes += region.size;
        return add(&inspector->kinds[STATE_REGION], item);
}

static int read_name(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedName name;
        int r = saved_decode_name(&name, data, n);

        if (r || name.id != item->id)
                return SAVED_E_INVALID;
        item->of = name.directory;
        item->other = name.region;
        return add_named(&inspector->kinds[STATE_NAME], item, name.name, name.n_name);
}

static int read_ticket(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedTicket ticket;
        int r = saved_decode_ticket(&ticket, data, n);

        if (r || ticket.id != item->id)
                return SAVED_E_INVALID;
        item->of = ticket.region;
        memcpy(&item->key, ticket.digest, sizeof(item->key));
        return add(&inspector->kinds[STATE_TICKET], item);
}

static int read_grant(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedGrant grant;
        int r = saved_decode_grant(&grant, data, n);

        if (r || grant.id != item->id)
                return SAVED_E_INVALID;
        item->of = grant.region;
        return add(&inspector->kinds[STATE_GRANT], item);
}

static int read_session(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedSession session;
        int r = saved_decode_session(&session, data, n);

        if (r || session.id != item->id)
                return SAVED_E_INVALID;
        memcpy(&item->key, session.session, sizeof(item->key));
        return add(&inspector->kinds[STATE_SESSION], item);
}

static int read_outcomes(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedOutcomes outcomes;
        int r = saved_decode_outcomes(&outcomes, data, n);

        if (r || outcomes.session != item->id)
                return SAVED_E_INVALID;
        item->of = outcomes.session;
        item->other = outcomes.block;
        return add(&inspector->kinds[STATE_OUTCOMES], item);
}

static int read_batch(Inspector *inspector, Item *item, const uint8_t *data, size_t n) {
        SavedBatch batch;
        int r = saved_decode_batch(&batch, data, n);

        if (r || batch.session != item->id)
                return SAVED_E_INVALID;
        item->of = batch.session;
        item->other = batch.slot;
        return add(&inspector->kinds[STATE_BATCH], item);
}

static const ReadFn readers[_STATE_KIND_N] = {
        [STATE_COUNTERS]  = read_counters,
        [STATE_POLICY]    = read_policy,
        [STATE_DIRECTORY] = read_directory,
        [STATE_REGION]    = read_region,
        [STATE_NAME]      = read_name,
        [STATE_TICKET]    = read_ticket,
        [STATE_GRANT]     = read_grant,
        [STATE_SESSION]   = read_session,
        [STATE_OUTCOMES]  = read_outcomes,
        [STATE_BATCH]     = read_batch,
};

static int visit(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Inspector *inspector = userdata;
        Item item = { .id = id, .cell = cell, .kind = (uint8_t)kind };
        int r = readers[kind](inspector, &item, data, n);

        if (r > 0) {
                complain(inspector, &item, "its bytes are not what such a record has", 0);
                return 0;
        }
        ++inspector->result->records[kind];
        return r;
}

/* -- finding ------------------------------------------------------------------------------ */

static int compare_numbers(uint64_t a, uint64_t b) {
        return a < b ? -1 : a > b;
}

static int compare_id(const void *a, const void *b) {
        return compare_numbers(((const Item *)a)->id, ((const Item *)b)->id);
}

static Item *find(Inspector *inspector, StateKind kind, uint64_t id) {
        const Items *items = &inspector->kinds[kind];

        return items->n ? bsearch(&(Item){ .id = id }, items->items, items->n, sizeof(Item), compare_id) : NULL;
}

static void sort_by_id(Inspector *inspector, StateKind kind) {
        Items *items = &inspector->kinds[kind];

        if (items->n)
                qsort(items->items, items->n, sizeof(Item), compare_id);
}

static int compare_place(const void *a, const void *b) {
        const Item *one = *(const Item *const *)a, *two = *(const Item *const *)b;
        int order = compare_numbers(one->of, two->of);

        if (order == 0)
                order = compare_numbers(one->n, two->n);
        return order ? order : memcmp(one->name, two->name, one->n);
}

/* Memory of small pages and of huge ones is numbered on its own. */
static int compare_key(const void *a, const void *b) {
        const Item *one = *(const Item *const *)a, *two = *(const Item *const *)b;
        int order = compare_numbers(one->key, two->key);

        return order ? order : one->is_huge - two->is_huge;
}

static int compare_part(const void *a, const void *b) {
        const Item *one = *(const Item *const *)a, *two = *(const Item *const *)b;
        int order = compare_numbers(one->of, two->of);

        return order ? order : compare_numbers(one->other, two->other);
}

/* Complains of each item of two kinds (or one, twice the same) that is as good as another one. */
static int find_twins(Inspector *inspector, StateKind one, StateKind two, int (*fn)(const void *, const void *),
                      const char *what) {
        size_t n = inspector->kinds[one].n + (one == two ? 0 : inspector->kinds[two].n), i = 0;
        CLEANUP(freep) Item **all = calloc(n + 1, sizeof(Item *));

        if (!all)
                return error_origin(-ENOMEM);
        for (size_t k = 0; k < inspector->kinds[one].n; ++k)
                all[i++] = &inspector->kinds[one].items[k];
        for (size_t k = 0; one != two && k < inspector->kinds[two].n; ++k)
                all[i++] = &inspector->kinds[two].items[k];
        qsort(all, n, sizeof(Item *), fn);
        for (i = 1; i < n; ++i)
                if (fn(&all[i - 1], &all[i]) == 0 && (fn != compare_key || all[i]->key))
                        complain(inspector, all[i], what, all[i - 1]->id);
        return 0;
}

/* -- what has to fit ---------------------------------------------------------------------- */

static void check_numbers(Inspector *inspector, StateKind kind, uint64_t last) {
        const Items *items = &inspector->kinds[kind];

        for (size_t i = 0; i < items->n; ++i) {
                if (i > 0 && items->items[i - 1].id == items->items[i].id)
                        complain(inspector, &items->items[i], "another one has its number", 0);
                if (items->items[i].id > last)
                        complain(inspector, &items->items[i], "its number was never used, the counters say", last);
        }
}

static void check_counters(Inspector *inspector) {
        const SavedCounters *counters = &inspector->counters;

        if (inspector->kinds[STATE_COUNTERS].n != 1) {
                complain_of_state(inspector, inspector->kinds[STATE_COUNTERS].n ? "there are counters more than once" :
                                                                                 "there are no counters");
                return;
        }
        check_numbers(inspector, STATE_DIRECTORY, counters->last_directory);
        check_numbers(inspector, STATE_REGION, counters->last_region);
        check_numbers(inspector, STATE_NAME, counters->last_name);
        check_numbers(inspector, STATE_TICKET, counters->last_ticket);
        check_numbers(inspector, STATE_GRANT, counters->last_grant);
        check_numbers(inspector, STATE_SESSION, counters->last_session);
}

#define DEPTH_ROOT 1
#define DEPTH_NONE UINT8_MAX            /* not below the root, or nowhere where a path could lead */

/* It is in a directory whose depth is known. */
static void set_depth(Item *item, const Item *directory) {
        item->depth = DEPTH_NONE;
        if (!directory || directory->depth == DEPTH_NONE || directory->depth == DEPTH_ROOT + PATH_DEPTH_MAX)
                return;
        item->length = (uint16_t)(directory->length + 1 + item->n);
        if (item->length <= PATH_BYTES_MAX)
                item->depth = (uint8_t)(directory->depth + 1);
}

/* Goes up until it comes to a directory whose depth is known, and down again. What is higher than a path
 * can be is in itself, or as good as that. */
static void find_depth(Inspector *inspector, Item *directory) {
        Item *path[PATH_DEPTH_MAX + 1], *above = directory;
        size_t n = 0;

        for (; above && !above->depth; above = find(inspector, STATE_DIRECTORY, above->of)) {
                if (above->id == SAVED_ROOT) {
                        above->depth = DEPTH_ROOT;
                        break;
                }
                if (n > PATH_DEPTH_MAX) {
                        directory->depth = DEPTH_NONE;  /* that says nothing of those above it */
                        return;
                }
                path[n++] = above;
        }
        for (; n > 0; above = path[n])
                set_depth(path[--n], above);
}

static void check_directories(Inspector *inspector) {
        Items *items = &inspector->kinds[STATE_DIRECTORY];

        if (!find(inspector, STATE_DIRECTORY, SAVED_ROOT))
                complain_of_state(inspector, "there is no root directory");
        for (size_t i = 0; i < items->n; ++i) {
                Item *item = &items->items[i];

                find_depth(inspector, item);
                if (item->of && !find(inspector, STATE_DIRECTORY, item->of))
                        complain(inspector, item, "the directory that it is in is not there", item->of);
                else if (item->depth == DEPTH_NONE)
                        complain(inspector, item, "no path leads to it", 0);
        }
}

static void check_names(Inspector *inspector) {
        const Items *items = &inspector->kinds[STATE_NAME];

        for (size_t i = 0; i < items->n; ++i) {
                Item *item = &items->items[i], *directory = find(inspector, STATE_DIRECTORY, item->of);
                Item *region = find(inspector, STATE_REGION, item->other);

                set_depth(item, directory);
                if (!directory)
                        complain(inspector, item, "the directory that it is in is not there", item->of);
                else if (item->depth == DEPTH_NONE)
                        complain(inspector, item, "no path leads to it", 0);
                if (!region)
                        complain(inspector, item, "its region is not there", item->other);
                else if (region->state == REGION_STATE_CONDEMNED)
                        complain(inspector, item, "its region is on its way out", item->other);
                else
                        ++region->n_names;
        }
}

static void check_regions(Inspector *inspector) {
        const Items *items = &inspector->kinds[STATE_REGION];

        for (size_t i = 0; i < items->n; ++i) {
                const Item *item = &items->items[i], *rings_for;

                if (item->state == REGION_STATE_ORPHAN && item->n_names)
                        complain(inspector, item, "it is an orphan and has a name", 0);
                if (item->other && !find(inspector, STATE_SESSION, item->other))
                        complain(inspector, item, "its session is not there", item->other);
                rings_for = item->of ? find(inspector, STATE_REGION, item->of) : NULL;
                if (item->of && (!rings_for || rings_for->is_bell))
                        complain(inspector, item, "the region that it is the doorbell of is not there", item->of);
        }
}

/* What belongs to one thing of another kind. */
static void check_owners(Inspector *inspector, StateKind kind, StateKind owner, const char *what) {
        const Items *items = &inspector->kinds[kind];

        for (size_t i = 0; i < items->n; ++i)
                if (!find(inspector, owner, items->items[i].of))
                        complain(inspector, &items->items[i], what, items->items[i].of);
}

static int check_twins(Inspector *inspector) {
        int r;

        r = find_twins(inspector, STATE_DIRECTORY, STATE_NAME, compare_place, "its name is another one's");
        if (!r)
                r = find_twins(inspector, STATE_REGION, STATE_REGION, compare_key, "its memory is another one's");
        if (!r)
                r = find_twins(inspector, STATE_TICKET, STATE_TICKET, compare_key, "its digest is another one's");
        if (!r)
                r = find_twins(inspector, STATE_SESSION, STATE_SESSION, compare_key, "its key is another one's");
        if (!r)
                r = find_twins(inspector, STATE_OUTCOMES, STATE_OUTCOMES, compare_part, "there are others in their place");
        if (!r)
                r = find_twins(inspector, STATE_BATCH, STATE_BATCH, compare_part, "there is another one in its place");
        return r;
}

static int check(Inspector *inspector) {
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                sort_by_id(inspector, kind);
        if (inspector->kinds[STATE_POLICY].n > 1)
                complain_of_state(inspector, "there is more than one policy");
        check_counters(inspector);
        check_directories(inspector);
        check_names(inspector);
        check_regions(inspector);
        check_owners(inspector, STATE_TICKET, STATE_REGION, "its region is not there");
        check_owners(inspector, STATE_GRANT, STATE_REGION, "its region is not there");
        check_owners(inspector, STATE_OUTCOMES, STATE_SESSION, "their session is not there");
        check_owners(inspector, STATE_BATCH, STATE_SESSION, "its session is not there");
        return check_twins(inspector);
}

static void inspector_deinit(Inspector *inspector) {
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind) {
                for (size_t i = 0; i < inspector->kinds[kind].n; ++i)
                        free(inspector->kinds[kind].items[i].name);
                free(inspector->kinds[kind].items);
        }
}

int inspect_state(State *state, InspectFn fn, void *userdata, Inspection *ret) {
        CLEANUP(inspector_deinit) Inspector inspector = { .fn = fn, .userdata = userdata, .result = ret };
        char text[INSPECT_TEXT_MAX];
        int r = 0;

        *ret = (Inspection){ .n_mistakes = 0 };
        if (state_damaged(state)) {
                (void)snprintf(text, sizeof(text), "%" PRIu64 " %s damaged", state_damaged(state),
                               state_damaged(state) == 1 ? "cell is" : "cells are");
                complain_of_state(&inspector, text);
        }
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N && !r; ++kind)
                r = state_walk(state, kind, visit, &inspector);
        return r ? r : check(&inspector);
}
