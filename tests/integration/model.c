/* The broker against a model of it: a hundred thousand operations by three users.
 *
 * The model knows the protocol's page and nothing of the broker: a table of names that is searched from
 * one end to the other. Both must give the same answer to each request, tell the same events to each
 * watch, in the same order and with numbers in the order of the changes, and end the same waits; and every
 * so often agree about every name and every figure there is.
 *
 * The seed is printed; SHMD_TEST_SEED repeats a run, SHMD_TEST_OPERATIONS makes it shorter or longer.
 */

#include "buildinfo.h"

#include "lib/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REPLACE SHMD__RENAME_FLAGS__RENAME_REPLACE
#define EXCHANGE SHMD__RENAME_FLAGS__RENAME_EXCHANGE
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES
#define REGIONS_SLOT SHMD__SLOT__SLOT_REGIONS

/* -- the model ---------------------------------------------------------------------------- */

#define ENTRIES 400
#define ENTRIES_WANTED 150
#define DEPTH 16
#ifdef SHMD_SANITIZERS
#define OPERATIONS 20000
#else
#define OPERATIONS 100000
#endif
#define SYNC_EVERY 16
#define COMPARE_EVERY 2000
#define KINDS 18
#define WATCHES 16
#define WAITS 24
#define EXPECTED 512
#define CHANGES 65536
#define PATH_MAX_HERE (2 * (2 * DEPTH + 8))

/* Requests and events go over one connection, waits, which end in between, over another one. */
typedef struct Person {
        uid_t uid;
        gid_t gid;
        Client *client;
        Client *waiter;
} Person;

/* An event that a watch is to tell. */
typedef struct Expected {
        uint64_t change;
        uint32_t what;
        uint64_t region;        /* 0: a directory */
        bool exchange;
        char path[PATH_MAX_HERE];
        char to[PATH_MAX_HERE];
} Expected;

typedef struct ModelWatch {
        bool used;
        const Person *who;
        int entry;              /* -1: it is gone */
        uint32_t mask;
        uint64_t number;
        uint64_t told;          /* the number of the latest event */
        Expected expected[EXPECTED];
        size_t first;
        size_t n;
} ModelWatch;

typedef struct ModelWait {
        bool used;
        const Person *who;
        uint64_t serial;
        char path[PATH_MAX_HERE];
} ModelWait;

typedef struct ModelRegion {
        uint64_t id;
        uid_t uid;
        gid_t gid;
        unsigned int mode;
        unsigned int names;
} ModelRegion;

/* A name. Entry 0 is the root; components are one letter. */
typedef struct ModelEntry {
        bool used;
        int parent;
        char letter;
        int region;             /* -1: a directory, with what follows */
        uid_t uid;
        gid_t gid;
        unsigned int mode;
        uint64_t order;         /* which of its region's names is the oldest */
} ModelEntry;

typedef struct Model {
        ModelEntry entries[ENTRIES];
        ModelRegion regions[ENTRIES];
        ModelWatch watches[WATCHES];
        ModelWait waits[WAITS];
        size_t n;
        uint64_t order;
        uint64_t last_region;   /* the broker numbers them, and says so */
        uint64_t changes;
        uint64_t numbers[CHANGES];      /* of the latest changes, as events said; 0: not yet */
        size_t heard[16];       /* events by kind */
        uint64_t random;
        uint64_t seed;
        size_t step;
        unsigned int kind;
        size_t done[KINDS];       /* by what was asked: the test is worth what it got done */
        size_t reasons[64];     /* and what was refused */
} Model;

typedef struct Answer {
        uint32_t error;
        uint32_t reason;
} Answer;

/* Where a path leads. entry -1: to a free name. */
typedef struct Place {
        Answer answer;
        int parent;
        int entry;
        char letter;
} Place;

#define YES ((Answer){ 0, 0 })
#define NO(error_name, reason_name) \
        ((Answer){ SHMD__ERROR__ERROR_##error_name, SHMD__REASON__REASON_##reason_name })

static unsigned int model_random(Model *model, unsigned int n) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return (unsigned int)(model->random >> 33) % n;
}

static bool is_directory(const Model *model, int entry) {
        return model->entries[entry].region < 0;
}

static uid_t owner_of(const Model *model, int entry) {
        const ModelEntry *e = &model->entries[entry];

        return e->region < 0 ? e->uid : model->regions[e->region].uid;
}

static unsigned int bits_for(const Person *who, uid_t uid, gid_t gid, unsigned int mode) {
        return (who->uid == uid ? mode >> 6 : who->gid == gid ? mode >> 3 : mode) & 7;
}

static unsigned int bits_of(const Model *model, const Person *who, int entry) {
        const ModelEntry *e = &model->entries[entry];
        const ModelRegion *r = e->region < 0 ? NULL : &model->regions[e->region];

        return r ? bits_for(who, r->uid, r->gid, r->mode) : bits_for(who, e->uid, e->gid, e->mode);
}

static int child_of(const Model *model, int parent, char letter) {
        for (int i = 1; i < ENTRIES; ++i)
                if (model->entries[i].used && model->entries[i].parent == parent && model->entries[i].letter == letter)
                        return i;
        return -1;
}

static size_t count_children(const Model *model, int parent) {
        size_t n = 0;

        for (int i = 1; i < ENTRIES; ++i)
                n += model->entries[i].used && model->entries[i].parent == parent;
        return n;
}

static bool is_below(const Model *model, int entry, int above) {
        for (; entry >= 0; entry = model->entries[entry].parent)
                if (entry == above)
                        return true;
        return false;
}

static size_t depth_of(const Model *model, int entry) {
        size_t n = 0;

        for (; entry > 0; entry = model->entries[entry].parent)
                ++n;
        return n;
}

/* Levels of the deepest name below. */
static size_t height_of(const Model *model, int entry) {
        size_t most = 0;

        for (int i = 1; i < ENTRIES; ++i)
                if (model->entries[i].used && is_below(model, i, entry)) {
                        size_t n = depth_of(model, i) - depth_of(model, entry);

                        most = n > most ? n : most;
                }
        return most;
}

static void write_path(const Model *model, int entry, char *path) {
        size_t depth = depth_of(model, entry);

        (void)strcpy(path, "/");
        if (depth == 0)
                return;
        path[2 * depth] = '\0';
        for (; entry > 0; entry = model->entries[entry].parent, --depth) {
                path[2 * depth - 2] = '/';
                path[2 * depth - 1] = model->entries[entry].letter;
        }
}

static Place resolve(const Model *model, const Person *who, const char *path) {
        Place place = { .answer = YES, .parent = -1 };

        if (strlen(path) > 2 * DEPTH) {
                place.answer = NO(INVALID, NAME);
                return place;
        }
        for (const char *at = path[1] ? path + 1 : ""; *at; at += at[1] ? 2 : 1) {
                if (place.entry < 0)
                        place.answer = NO(NOT_FOUND, MISSING);
                else if (!is_directory(model, place.entry))
                        place.answer = NO(NOT_DIRECTORY, MISSING);
                else if (!(bits_of(model, who, place.entry) & 1))
                        place.answer = NO(DENIED, SEARCH);
                if (place.answer.error)
                        return place;
                place.parent = place.entry;
                place.letter = *at;
                place.entry = child_of(model, place.parent, *at);
        }
        return place;
}

static Place find(const Model *model, const Person *who, const char *path) {
        Place place = resolve(model, who, path);

        if (!place.answer.error && place.entry < 0)
                place.answer = NO(NOT_FOUND, MISSING);
        return place;
}

static Answer may_change(const Model *model, const Person *who, const Place *place) {
        if (place->parent < 0)
                return NO(BUSY, ROOT);
        if ((bits_of(model, who, place->parent) & 3) != 3)
                return NO(DENIED, DIRECTORY_WRITE);
        if (place->entry >= 0 && model->entries[place->parent].mode & 01000 &&
            owner_of(model, place->parent) != who->uid && owner_of(model, place->entry) != who->uid)
                return NO(DENIED, STICKY);
        return YES;
}

static int model_add(Model *model, const Place *place, int region, const Person *who, unsigned int mode) {
        int i = 1;

        while (model->entries[i].used)
                REQUIRE(++i < ENTRIES);
        model->entries[i] = (ModelEntry){
                .used = true, .parent = place->parent, .letter = place->letter, .region = region,
                .uid = who->uid, .gid = who->gid, .mode = mode, .order = ++model->order,
        };
        ++model->n;
        return i;
}

static void model_remove(Model *model, int entry) {
        ModelEntry *e = &model->entries[entry];

        if (e->region >= 0)
                --model->regions[e->region].names;
        e->used = false;
        --model->n;
}

/* -- what is to be told -- */

static bool may_see_in(const Model *model, const ModelWatch *watch, int directory) {
        for (; directory >= 0; directory = model->entries[directory].parent) {
                if ((bits_of(model, watch->who, directory) & 5) != 5)
                        return false;
                if (directory == watch->entry)
                        return true;
        }
        return false;
}

static uint64_t number_of(const Model *model, int entry) {
        int region = model->entries[entry].region;

        return region < 0 ? 0 : model->regions[region].id;
}

static void expect_event(Model *model, ModelWatch *watch, uint32_t what, const char *path, const char *to,
                         uint64_t region, bool exchange, bool always) {
        Expected *e = &watch->expected[(watch->first + watch->n) % EXPECTED];

        if (!always && !(watch->mask & what))
                return;
        REQUIRE(watch->n < EXPECTED);
        ++watch->n;
        *e = (Expected){ .change = model->changes, .what = what, .region = region, .exchange = exchange };
        (void)strcpy(e->path, path);
        (void)strcpy(e->to, to);
}

/* The name of a path below what is watched. */
static const char *below(const Model *model, const ModelWatch *watch, const char *path) {
        return path + 2 * depth_of(model, watch->entry);
}

/* What is watched is gone. */
static void end_watches(Model *model, int entry) {
        for (ModelWatch *w = model->watches; w < model->watches + WATCHES; ++w)
                if (w->used && w->entry == entry) {
                        expect_event(model, w, SHMD__EVENT_MASK__EVENT_REMOVED, "", "", number_of(model, entry), false,
                                     true);
                        w->entry = -1;
                }
}

/* Something happens at one name. */
static void happens(Model *model, uint32_t what, int entry) {
        char path[PATH_MAX_HERE];

        ++model->changes;
        model->numbers[model->changes % CHANGES] = 0;
        write_path(model, entry, path);
        for (ModelWatch *w = model->watches; w < model->watches + WATCHES; ++w) {
                if (!w->used || w->entry < 0)
                        continue;
                if (w->entry == entry && what != SHMD__EVENT_MASK__EVENT_REMOVED)
                        expect_event(model, w, what, "", "", number_of(model, entry), false, false);
                else if (w->entry != entry && may_see_in(model, w, model->entries[entry].parent))
                        expect_event(model, w, what, below(model, w, path), "", number_of(model, entry), false, false);
        }
        if (what == SHMD__EVENT_MASK__EVENT_REMOVED)
                end_watches(model, entry);
}

/* The names of a region, from the oldest. */
static void happens_to(Model *model, uint32_t what, int entry) {
        int region = model->entries[entry].region;
        uint64_t after = 0;

        if (region < 0) {
                happens(model, what, entry);
                return;
        }
        for (;;) {
                int next = -1;

                for (int i = 1; i < ENTRIES; ++i)
                        if (model->entries[i].used && model->entries[i].region == region &&
                            model->entries[i].order > after &&
                            (next < 0 || model->entries[i].order < model->entries[next].order))
                                next = i;
                if (next < 0)
                        return;
                happens(model, what, next);
                after = model->entries[next].order;
        }
}

typedef struct Move {
        const char *path, *to;  /* whole */
        int parent, to_parent;
        int entry;
        int other;              /* exchange: what has the name `path` now; -1: no exchange */
        bool replaced;
} Move;

static void tell_side(Model *model, ModelWatch *w, const Move *move, bool to) {
        bool replaced = move->other >= 0 || (to && move->replaced);
        uint32_t what = replaced ? SHMD__EVENT_MASK__EVENT_REPLACED :
                        to ? SHMD__EVENT_MASK__EVENT_CREATED : SHMD__EVENT_MASK__EVENT_REMOVED;
        int thing = !to && move->other >= 0 ? move->other : move->entry;

        expect_event(model, w, what, below(model, w, to ? move->to : move->path), "", number_of(model, thing), false,
                     false);
}

/* A rename that was done. */
static void moved(Model *model, const Move *move) {
        bool exchange = move->other >= 0;

        ++model->changes;
        model->numbers[model->changes % CHANGES] = 0;
        for (ModelWatch *w = model->watches; w < model->watches + WATCHES; ++w) {
                bool from, to;

                if (!w->used || w->entry < 0)
                        continue;
                if (w->entry == move->entry || w->entry == move->other) {
                        expect_event(model, w, SHMD__EVENT_MASK__EVENT_RENAMED, "", "",
                                     number_of(model, move->entry), exchange, false);
                        continue;
                }
                from = may_see_in(model, w, move->parent);
                to = may_see_in(model, w, move->to_parent);
                if (from && to)
                        expect_event(model, w, SHMD__EVENT_MASK__EVENT_RENAMED, below(model, w, move->path),
                                     below(model, w, move->to), number_of(model, move->entry), exchange, false);
                else if (from || to)
                        tell_side(model, w, move, to);
        }
}

/* -- the model's answers -- */

static Answer model_mkdir(Model *model, const Person *who, const char *path, unsigned int mode) {
        Place place = resolve(model, who, path);
        Answer answer = place.answer;

        if (!answer.error && place.entry >= 0)
                answer = NO(EXISTS, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (!answer.error)
                happens(model, SHMD__EVENT_MASK__EVENT_CREATED, model_add(model, &place, -1, who, mode));
        return answer;
}

/* *ret is the name of the region whose number the broker chooses: it has happened when that is known. */
static Answer model_create(Model *model, const Person *who, const char *path, unsigned int mode, int *ret) {
        Place place = resolve(model, who, path);
        Answer answer = place.answer;
        int region = 0;

        if (!answer.error && place.entry >= 0)
                answer = NO(EXISTS, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (answer.error)
                return answer;
        while (model->regions[region].names)
                ++region;
        model->regions[region] = (ModelRegion){ .uid = who->uid, .gid = who->gid, .mode = mode, .names = 1 };
        *ret = model_add(model, &place, region, who, 0);
        return answer;
}

static Answer model_remove_name(Model *model, const Person *who, const char *path, bool directory) {
        Place place = find(model, who, path);
        Answer answer = place.answer;

        if (!answer.error && is_directory(model, place.entry) != directory)
                answer = directory ? NO(NOT_DIRECTORY, TAKEN) : NO(IS_DIRECTORY, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (!answer.error && directory && count_children(model, place.entry))
                answer = NO(NOT_EMPTY, TAKEN);
        if (!answer.error) {
                happens(model, SHMD__EVENT_MASK__EVENT_REMOVED, place.entry);
                model_remove(model, place.entry);
        }
        return answer;
}

static Answer model_chmod(Model *model, const Person *who, const char *path, unsigned int mode) {
        Place place = find(model, who, path);
        ModelEntry *e = &model->entries[place.entry < 0 ? 0 : place.entry];

        if (place.answer.error)
                return place.answer;
        if (owner_of(model, place.entry) != who->uid)
                return NO(DENIED, OWNER);
        if (e->region >= 0 && mode > 0777)
                return NO(INVALID, MODE);
        if (e->region >= 0)
                model->regions[e->region].mode = mode;
        else
                e->mode = mode;
        happens_to(model, SHMD__EVENT_MASK__EVENT_CHANGED, place.entry);
        return YES;
}

static Answer model_link(Model *model, const Person *who, const char *path, const char *to) {
        Place from = find(model, who, path), place = { 0 };
        Answer answer = from.answer;

        if (!answer.error) {
                place = resolve(model, who, to);
                answer = place.answer;
        }
        if (!answer.error && is_directory(model, from.entry))
                answer = NO(IS_DIRECTORY, TAKEN);
        if (!answer.error && owner_of(model, from.entry) != who->uid)
                answer = NO(DENIED, OWNER);
        if (!answer.error && place.entry >= 0)
                answer = NO(EXISTS, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (!answer.error) {
                ++model->regions[model->entries[from.entry].region].names;
                happens(model, SHMD__EVENT_MASK__EVENT_CREATED,
                        model_add(model, &place, model->entries[from.entry].region, who, 0));
        }
        return answer;
}

static Answer check_replace(const Model *model, int from, int to) {
        if (!is_directory(model, to))
                return is_directory(model, from) ? NO(NOT_DIRECTORY, TAKEN) : YES;
        if (!is_directory(model, from))
                return NO(IS_DIRECTORY, TAKEN);
        return count_children(model, to) ? NO(NOT_EMPTY, TAKEN) : YES;
}

static bool too_deep(const Model *model, int entry, int parent) {
        return depth_of(model, parent) + 1 + height_of(model, entry) > DEPTH;
}

static Answer check_move(const Model *model, const Place *from, const Place *to, uint32_t flags) {
        Answer answer = YES;

        if (!flags && to->entry >= 0)
                return NO(EXISTS, TAKEN);
        if (flags == EXCHANGE && to->entry < 0)
                return NO(NOT_FOUND, MISSING);
        if (is_below(model, to->parent, from->entry) ||
            (flags == EXCHANGE && is_below(model, from->parent, to->entry)))
                return NO(INVALID, INSIDE);
        if (flags == REPLACE && to->entry >= 0)
                answer = check_replace(model, from->entry, to->entry);
        if (!answer.error && (too_deep(model, from->entry, to->parent) ||
                              (flags == EXCHANGE && too_deep(model, to->entry, from->parent))))
                answer = NO(INVALID, NAME);
        return answer;
}

static void model_put(Model *model, int entry, const Place *place) {
        model->entries[entry].parent = place->parent;
        model->entries[entry].letter = place->letter;
}

static Answer model_rename(Model *model, const Person *who, const char *path, const char *to, uint32_t flags) {
        Place a = find(model, who, path), b = { 0 };
        Answer answer = a.answer;

        if (!answer.error) {
                b = resolve(model, who, to);
                answer = b.answer;
        }
        if (!answer.error)
                answer = may_change(model, who, &a);
        if (!answer.error)
                answer = may_change(model, who, &b);
        if (answer.error || a.entry == b.entry)
                return answer;
        if (flags && b.entry >= 0 && !is_directory(model, a.entry) &&
            model->entries[a.entry].region == model->entries[b.entry].region)
                return YES;
        answer = check_move(model, &a, &b, flags);
        if (answer.error)
                return answer;
        /* A name that is moved over ends with this change, which is counted when it is done. */
        if (flags == REPLACE && b.entry >= 0) {
                ++model->changes;
                end_watches(model, b.entry);
                --model->changes;
        }
        if (flags == EXCHANGE)
                model_put(model, b.entry, &a);
        else if (b.entry >= 0)
                model_remove(model, b.entry);
        model_put(model, a.entry, &b);
        moved(model, &(Move){ .path = path, .to = to, .parent = a.parent, .to_parent = b.parent, .entry = a.entry,
                              .other = flags == EXCHANGE ? b.entry : -1, .replaced = b.entry >= 0 });
        return YES;
}

static Answer model_open(const Model *model, const Person *who, const char *path, uint32_t rights) {
        Place place = find(model, who, path);

        if (place.answer.error)
                return place.answer;
        if (is_directory(model, place.entry))
                return NO(IS_DIRECTORY, TAKEN);
        if (!(bits_of(model, who, place.entry) & 4))
                return NO(DENIED, REGION_READ);
        if (rights == READ_WRITE && !(bits_of(model, who, place.entry) & 2))
                return NO(DENIED, REGION_WRITE);
        return YES;
}

/* Gives a region without a name, number id, the name. */
static Answer model_publish(Model *model, const Person *who, uint64_t id, const char *path, uint32_t flags) {
        Place place = resolve(model, who, path);
        Answer answer = place.answer;
        int region = 0;

        if (!answer.error && place.entry >= 0 && is_directory(model, place.entry))
                answer = NO(IS_DIRECTORY, TAKEN);
        if (!answer.error && place.entry >= 0 && !flags)
                answer = NO(EXISTS, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (answer.error)
                return answer;
        while (model->regions[region].names)
                ++region;
        model->regions[region] = (ModelRegion){ .id = id, .uid = who->uid, .gid = who->gid, .mode = 0640, .names = 1 };
        if (place.entry < 0) {
                happens(model, SHMD__EVENT_MASK__EVENT_CREATED, model_add(model, &place, region, who, 0));
                return YES;
        }
        --model->regions[model->entries[place.entry].region].names;
        model->entries[place.entry].region = region;
        model->entries[place.entry].order = ++model->order;
        happens(model, SHMD__EVENT_MASK__EVENT_REPLACED, place.entry);
        return YES;
}

static Answer model_watch(const Model *model, const Person *who, const char *path, int *ret) {
        Place place = find(model, who, path);

        if (place.answer.error)
                return place.answer;
        if (is_directory(model, place.entry) && (bits_of(model, who, place.entry) & 5) != 5)
                return NO(DENIED, DIRECTORY_READ);
        *ret = place.entry;
        return YES;
}

/* -- both -- */

typedef enum Wish {
        WISH_DIRECTORY,
        WISH_REGION,
        WISH_FREE,
        _WISH_N,
} Wish;

/* A path to what is wished, or a component or two too long. */
static void make_path(Model *model, Wish wish, char path[PATH_MAX_HERE]) {
        unsigned int beyond = model_random(model, 100);
        unsigned int tries = 0;
        int entry;

        /* There may be no region. */
        do {
                entry = (int)model_random(model, ENTRIES);
        } while (!model->entries[entry].used ||
                 (is_directory(model, entry) == (wish == WISH_REGION) && ++tries < ENTRIES));
        write_path(model, entry, path);
        for (beyond = (beyond < 94 ? 0 : beyond < 98 ? 1 : 2) + (wish == WISH_FREE); beyond > 0; --beyond) {
                size_t n = path[1] ? strlen(path) : 0;

                (void)snprintf(path + n, PATH_MAX_HERE - n, "/%c", 'a' + (char)model_random(model, 6));
        }
}

/* One that this person may look at, mostly: or little else would be refused than that. */
static void choose_path(Model *model, const Person *who, Wish wish, char path[PATH_MAX_HERE]) {
        bool any = model_random(model, 20) == 0;

        if (model_random(model, 10) == 0)
                wish = (Wish)model_random(model, _WISH_N);
        for (unsigned int i = 0; i < 20; ++i) {
                make_path(model, wish, path);
                if (any || resolve(model, who, path).answer.reason != SHMD__REASON__REASON_SEARCH)
                        return;
        }
}

static unsigned int choose_mode(Model *model) {
        static const unsigned int modes[] = {
                0777, 0777, 0777, 0777, 0777, 0777, 01777, 01777, 0775, 0755, 0733, 0711, 0770, 0666, 0444,
        };

        return modes[model_random(model, sizeof(modes) / sizeof(modes[0]))];
}

/* Refusals a run must have met; that of a name is one that would get too deep, for the paths are good. */
static const uint32_t met[] = {
        SHMD__REASON__REASON_NAME, SHMD__REASON__REASON_MISSING, SHMD__REASON__REASON_TAKEN,
        SHMD__REASON__REASON_SEARCH, SHMD__REASON__REASON_DIRECTORY_WRITE, SHMD__REASON__REASON_STICKY,
        SHMD__REASON__REASON_REGION_READ, SHMD__REASON__REASON_REGION_WRITE, SHMD__REASON__REASON_OWNER,
        SHMD__REASON__REASON_ROOT, SHMD__REASON__REASON_INSIDE, SHMD__REASON__REASON_DIRECTORY_READ,
        SHMD__REASON__REASON_EVENTS, SHMD__REASON__REASON_DEADLINE,
};

static const uint32_t told[] = {
        SHMD__EVENT_MASK__EVENT_CREATED, SHMD__EVENT_MASK__EVENT_REMOVED, SHMD__EVENT_MASK__EVENT_RENAMED,
        SHMD__EVENT_MASK__EVENT_REPLACED, SHMD__EVENT_MASK__EVENT_CHANGED,
};

static void require_variety(const Model *model) {
        for (size_t i = 0; i < sizeof(model->done) / sizeof(model->done[0]); ++i)
                REQUIRE(model->done[i] > 0, "seed %" PRIu64 ": nothing of kind %zu was done", model->seed, i);
        for (size_t i = 0; i < sizeof(met) / sizeof(met[0]); ++i)
                REQUIRE(model->reasons[met[i]] > 0, "seed %" PRIu64 ": reason %u was never met", model->seed, met[i]);
        for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); ++i)
                REQUIRE(model->heard[__builtin_ctz(told[i])] > 0, "seed %" PRIu64 ": event %u was never told",
                        model->seed, told[i]);
}

static void compare(Model *model, const Person *who, const char *what, const char *path, const char *to,
                    uint32_t error, Answer expected) {
        uint32_t reason = error ? who->client->refusal->reason : 0;

        REQUIRE(error == expected.error && reason == expected.reason,
                "seed %" PRIu64 ", operation %zu: %s %s %s by %u: the model says %u/%u, the broker %s", model->seed,
                model->step, what, path, to, who->uid, expected.error, expected.reason, client_describe(who->client));
        ++model->reasons[reason];
        model->done[model->kind] += !error;
}

static void do_create(Model *model, const Person *who, const char *path, unsigned int mode) {
        int name = -1;
        Answer expected = model_create(model, who, path, mode, &name);

        /* Its events may come with the answer. */
        if (name >= 0)
                model->regions[model->entries[name].region].id = ++model->last_region;
        if (name >= 0)
                happens(model, SHMD__EVENT_MASK__EVENT_CREATED, name);
        compare(model, who, "create", path, "", call_create_mode(who->client, path, 1, mode, NULL), expected);
        if (name >= 0)
                REQUIRE(((Shmd__Granted *)who->client->reply)->region == model->last_region, "numbers go up by one");
}

static void do_open(Model *model, const Person *who, const char *path, uint32_t rights) {
        Answer expected = model_open(model, who, path, rights);
        Grant grant = GRANT_NULL;

        compare(model, who, "open", path, "", call_open(who->client, path, rights, &grant), expected);
        if (!expected.error) {
                int region = model->entries[find(model, who, path).entry].region;

                REQUIRE(grant.region == model->regions[region].id, "seed %" PRIu64, model->seed);
        }
        grant_deinit(&grant);
}

static void do_two(Model *model, const Person *who, unsigned int kind, const char *path) {
        static const struct {
                const char *name;
                uint32_t flags;
        } renames[] = { { "rename", 0 }, { "replace", REPLACE }, { "exchange", EXCHANGE } };
        static const Wish wishes_to[] = { WISH_FREE, _WISH_N, _WISH_N, WISH_FREE };
        char to[PATH_MAX_HERE];
        Answer expected;

        choose_path(model, who, wishes_to[kind] < _WISH_N ? wishes_to[kind] : (Wish)model_random(model, _WISH_N), to);
        if (kind == 3) {
                expected = model_link(model, who, path, to);
                compare(model, who, "link", path, to, call_link(who->client, path, to), expected);
        } else {
                expected = model_rename(model, who, path, to, renames[kind].flags);
                compare(model, who, renames[kind].name, path, to,
                        call_rename(who->client, path, to, renames[kind].flags), expected);
        }
}

/* A region that is filled before it gets its name. */
static void do_publish(Model *model, const Person *who, const char *path) {
        uint32_t flags = model_random(model, 2) ? SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE : 0;
        Grant grant = GRANT_NULL;

        client_expect_done(who->client, call_create_mode(who->client, NULL, 1, 0640, &grant));
        model->last_region = grant.region;
        compare(model, who, "publish", path, "", call_publish(who->client, grant.region, path, flags),
                model_publish(model, who, grant.region, path, flags));
        grant_deinit(&grant);
}

static bool is_text(const ProtobufCBinaryData *bytes, const char *text) {
        return bytes->len == strlen(text) && (bytes->len == 0 || !memcmp(bytes->data, text, bytes->len));
}

/* Takes an event: it must be the next one of its watch. */
static void take_event(Client *client, const Shmd__Event *event, void *userdata) {
        Model *model = userdata;
        ModelWatch *w = model->watches;
        const Expected *e;
        uint64_t *number;

        while (w < model->watches + WATCHES && !(w->used && w->number == event->watch))
                ++w;
        REQUIRE(w < model->watches + WATCHES && w->who->client == client, "seed %" PRIu64 ": an event of no watch",
                model->seed);
        REQUIRE(w->n > 0, "seed %" PRIu64 ", operation %zu: an event %u %.*s that the model does not have", model->seed,
                model->step, event->event, (int)event->path.len, (char *)event->path.data);
        e = &w->expected[w->first];
        REQUIRE(e->what == event->event && is_text(&event->path, e->path) && is_text(&event->to, e->to) &&
                e->region == event->region && e->exchange == event->exchange && event->kind == (e->region ? 1u : 0u),
                "seed %" PRIu64 ", operation %zu: the model tells %u %s %s %" PRIu64 " %d, the broker %u %.*s %.*s "
                "%" PRIu64 " %d", model->seed, model->step, e->what, e->path, e->to, e->region, e->exchange, event->event,
                (int)event->path.len, (char *)event->path.data, (int)event->to.len, (char *)event->to.data,
                event->region, event->exchange);

        /* One change has one number, however many hear of it, and they grow. */
        number = &model->numbers[e->change % CHANGES];
        REQUIRE(event->sequence > w->told && (*number == 0 || *number == event->sequence),
                "seed %" PRIu64 ", operation %zu: number %" PRIu64 " after %" PRIu64, model->seed, model->step,
                event->sequence, w->told);
        *number = w->told = event->sequence;
        ++model->heard[__builtin_ctz(event->event)];
        w->first = (w->first + 1) % EXPECTED;
        --w->n;
        if (w->n == 0 && w->entry < 0)
                w->used = false;
}

static void do_watch(Model *model, const Person *who, const char *path) {
        uint32_t mask = model_random(model, 3) ? 511 - 32 : 1 + model_random(model, 31);
        ModelWatch *w = model->watches;
        Answer expected;
        uint32_t error;
        int entry = -1;

        while (w < model->watches + WATCHES && w->used)
                ++w;
        if (w == model->watches + WATCHES)
                return;
        expected = model_watch(model, who, path, &entry);
        error = client_call(who->client, MESSAGE_WATCH, REQUEST(Watch, watch, .path = BYTES(path), .mask = mask));
        compare(model, who, "watch", path, "", error, expected);
        if (error)
                return;
        *w = (ModelWatch){ .used = true, .who = who, .entry = entry, .mask = mask,
                           .number = ((Shmd__WatchReply *)who->client->reply)->watch,
                           .told = ((Shmd__WatchReply *)who->client->reply)->sequence };
}

static void sync_events(Model *model, const Person *who);

/* Of any watch: only whose it is may end it. */
static void do_unwatch(Model *model, const Person *who) {
        ModelWatch *w = &model->watches[model_random(model, WATCHES)];
        Answer expected = w->who == who ? YES : NO(NOT_FOUND, EVENTS);

        if (!w->used || w->entry < 0)
                return;
        sync_events(model, who);
        compare(model, who, "unwatch", "", "",
                client_call(who->client, MESSAGE_UNWATCH, REQUEST(Unwatch, unwatch, .watch = w->number)), expected);
        if (!expected.error)
                w->used = false;
}

static void do_wait(Model *model, const Person *who, const char *path) {
        uint64_t timeout = model_random(model, 4) ? UINT64_MAX : 0;
        Answer answer = find(model, who, path).answer;
        ModelWait *w = model->waits;
        uint64_t serial;
        int r;

        while (w < model->waits + WAITS && w->used)
                ++w;
        if (w == model->waits + WAITS)
                timeout = 0;
        if (answer.reason == SHMD__REASON__REASON_MISSING && answer.error == SHMD__ERROR__ERROR_NOT_FOUND)
                answer = timeout ? YES : NO(TIMEOUT, DEADLINE);
        serial = client_send(who->waiter, MESSAGE_WAIT,
                             REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = timeout));
        if (!answer.error && find(model, who, path).answer.error) {
                *w = (ModelWait){ .used = true, .who = who, .serial = serial };
                (void)strcpy(w->path, path);
                return;
        }
        r = client_receive(who->waiter, TEST_PATIENCE_MS);
        REQUIRE(r == (answer.error ? CLIENT_REFUSED : CLIENT_REPLY) && who->waiter->header.serial == serial,
                "seed %" PRIu64 ", operation %zu: wait for %s: the model says %u/%u, the broker %s", model->seed,
                model->step, path, answer.error, answer.reason, client_describe(who->waiter));
        REQUIRE(!answer.error || (who->waiter->refusal->error == answer.error &&
                                  who->waiter->refusal->reason == answer.reason), "%s", client_describe(who->waiter));
        ++model->reasons[answer.reason];
        model->done[model->kind] += !answer.error;
}

/* One of those that this operation ended: in which order they are answered the protocol does not say. */
static ModelWait *find_ended(Model *model, const Person *who, uint64_t serial) {
        for (ModelWait *w = model->waits; w < model->waits + WAITS; ++w)
                if (w->used && w->who == who && w->serial == serial)
                        return find(model, who, w->path).answer.error ? NULL : w;
        return NULL;
}

/* A wait is over at the moment its name can be found, and the answer says what was found. */
static void end_waits(Model *model) {
        for (ModelWait *w = model->waits; w < model->waits + WAITS; ++w)
                while (w->used && !find(model, w->who, w->path).answer.error) {
                        Client *waiter = w->who->waiter;
                        const Shmd__Node *node;
                        ModelWait *ended;

                        REQUIRE(client_receive(waiter, TEST_PATIENCE_MS) == CLIENT_REPLY,
                                "seed %" PRIu64 ", operation %zu: %s is there, and who waits for it was not told",
                                model->seed, model->step, w->path);
                        ended = find_ended(model, w->who, waiter->header.serial);
                        REQUIRE(ended, "seed %" PRIu64 ", operation %zu: an answer to a wait that is not over",
                                model->seed, model->step);
                        node = ((Shmd__WaitReply *)waiter->reply)->node;
                        REQUIRE(node->region == number_of(model, find(model, ended->who, ended->path).entry) &&
                                node->path.len == strlen(ended->path) &&
                                !memcmp(node->path.data, ended->path, node->path.len));
                        ended->used = false;
                }
}

/* What was to be told has been told, and nothing else. */
static void sync_events(Model *model, const Person *who) {
        int64_t until = test_now_ms() + TEST_PATIENCE_MS;

        for (bool more = true; more;) {
                more = false;
                client_expect_done(who->client, call_ping(who->client));
                for (ModelWatch *w = model->watches; w < model->watches + WATCHES; ++w)
                        more |= w->used && w->who == who && w->n > 0;
                REQUIRE(test_now_ms() < until, "seed %" PRIu64 ", operation %zu: events never came", model->seed,
                        model->step);
        }
        client_expect_done(who->client, call_ping(who->client));
}

/* mkdir and create twice each: something must be there for the others. */
static const Wish wishes[KINDS] = {
        WISH_FREE, WISH_FREE, WISH_FREE, WISH_FREE, WISH_DIRECTORY, WISH_REGION, WISH_DIRECTORY, WISH_REGION,
        WISH_REGION, WISH_REGION, WISH_DIRECTORY, WISH_REGION, WISH_DIRECTORY, WISH_REGION,
        WISH_REGION, WISH_DIRECTORY, WISH_DIRECTORY, WISH_FREE,
};

static void do_one(Model *model, const Person *people) {
        const Person *who = &people[model_random(model, 3)];
        unsigned int what = model_random(model, KINDS), mode = choose_mode(model);
        char path[PATH_MAX_HERE];

        if (model->n > ENTRIES_WANTED && (what < 4 || what == 13))
                what = 4 + what % 2;
        /* Watches and waits live for a while: they are begun and ended less often. */
        if (what >= 15 && model_random(model, 3))
                what = 4 + what % 4;
        model->kind = what;
        choose_path(model, who, wishes[what], path);
        switch (what) {
        case 0:
        case 1:
                compare(model, who, "mkdir", path, "", call_mkdir(who->client, path, mode),
                        model_mkdir(model, who, path, mode));
                return;
        case 2:
        case 3:
                do_create(model, who, path, mode & 0777);
                return;
        case 4:
        case 5:
                compare(model, who, what == 4 ? "rmdir" : "unlink", path, "",
                        what == 4 ? call_rmdir(who->client, path) : call_unlink(who->client, path),
                        model_remove_name(model, who, path, what == 4));
                return;
        case 6:
                compare(model, who, "chmod", path, "", call_chmod(who->client, path, mode),
                        model_chmod(model, who, path, mode));
                return;
        case 7:
                do_open(model, who, path, model_random(model, 2) ? READ_ONLY : READ_WRITE);
                return;
        case 13:
                do_two(model, who, 3, path);
                return;
        case 14:
                do_publish(model, who, path);
                return;
        case 15:
                do_watch(model, who, path);
                return;
        case 16:
                do_unwatch(model, who);
                return;
        case 17:
                do_wait(model, who, path);
                return;
        default:
                do_two(model, who, (what - 8) % 3, path);
        }
}

static void compare_node(const Model *model, const Shmd__Node *node) {
        char path[PATH_MAX_HERE];
        int entry = 0;

        REQUIRE(node->path.len < sizeof(path));
        memcpy(path, node->path.data, node->path.len);
        path[node->path.len] = '\0';
        for (const char *at = path + 1; entry >= 0 && *at; at += at[1] ? 2 : 1)
                entry = child_of(model, entry, *at);
        REQUIRE(entry > 0, "seed %" PRIu64 ": there should be no %s", model->seed, path);
        REQUIRE(is_directory(model, entry) == (node->kind == 0) && owner_of(model, entry) == node->uid);
        if (is_directory(model, entry)) {
                REQUIRE(node->mode == model->entries[entry].mode && node->gid == model->entries[entry].gid);
                REQUIRE(node->entries == count_children(model, entry) && node->names == 0);
        } else {
                const ModelRegion *region = &model->regions[model->entries[entry].region];

                REQUIRE(node->region == region->id && node->mode == region->mode && node->gid == region->gid);
                REQUIRE(node->names == region->names, "%s has %u names and not %u", path, node->names, region->names);
        }
}

/* Whether somebody (NULL: an administrator) may list each directory above an entry. */
static bool is_listed(const Model *model, const Person *who, int entry) {
        for (int d = model->entries[entry].parent; who && d >= 0; d = model->entries[d].parent)
                if ((bits_of(model, who, d) & 5) != 5)
                        return false;
        return true;
}

/* What one who may see it all, or a part, gets in pages of a few names. */
static void compare_list(const Model *model, const Person *who, Client *client) {
        char cursor[PATH_MAX_HERE] = "";
        size_t n = 0, wanted = 0;

        for (int i = 1; i < ENTRIES; ++i)
                wanted += model->entries[i].used && is_listed(model, who, i);
        if (who && (bits_of(model, who, 0) & 5) != 5)
                return;
        do {
                Shmd__ListReply *list;

                client_expect_done(client,
                                   client_call(client, MESSAGE_LIST,
                                               REQUEST(List, list, .path = BYTES("/"), .cursor = BYTES(cursor),
                                                       .flags = SHMD__LIST_FLAGS__LIST_RECURSIVE, .limit = 10)));
                list = (Shmd__ListReply *)client->reply;
                for (size_t i = 0; i < list->n_nodes; ++i, ++n)
                        compare_node(model, list->nodes[i]);
                REQUIRE(list->cursor.len < sizeof(cursor));
                if (list->cursor.len)
                        memcpy(cursor, list->cursor.data, list->cursor.len);
                cursor[list->cursor.len] = '\0';
        } while (cursor[0]);
        REQUIRE(n == wanted && (who || n == model->n), "seed %" PRIu64 ": %zu names, %zu in the model", model->seed, n,
                wanted);
}

static void compare_tree(const Model *model, const Person *people, Client *admin) {
        compare_list(model, NULL, admin);
        for (int i = 0; i < 3; ++i)
                compare_list(model, &people[i], people[i].client);
}

/* What every directory and every user should be charged. */
static void compare_books(const Model *model, const Person *people, Client *admin) {
        char path[PATH_MAX_HERE];

        for (int d = 0; d < ENTRIES; ++d) {
                uint64_t names = 0, regions = 0;

                if (!model->entries[d].used || !is_directory(model, d))
                        continue;
                for (int i = 1; i < ENTRIES; ++i)
                        if (model->entries[i].used && i != d && is_below(model, i, d)) {
                                ++names;
                                regions += !is_directory(model, i);
                        }
                write_path(model, d, path);
                REQUIRE(client_directory_used(admin, path, REGIONS_SLOT) == names, "seed %" PRIu64, model->seed);
                REQUIRE(client_directory_used(admin, path, BYTES_SLOT) == regions * PAGE, "seed %" PRIu64, model->seed);
        }
        for (int p = 0; p < 3; ++p) {
                uint64_t names = 0, bytes = 0;

                for (int i = 1; i < ENTRIES; ++i)
                        names += model->entries[i].used && owner_of(model, i) == people[p].uid;
                for (int i = 0; i < ENTRIES; ++i)
                        bytes += model->regions[i].names && model->regions[i].uid == people[p].uid ? PAGE : 0;
                client_expect_used(people[p].client, REGIONS_SLOT, names);
                client_expect_used(people[p].client, BYTES_SLOT, bytes);
        }
}

static void model_begin(Model *model, Client *admin) {
        const Shmd__Node *root;

        memset(model, 0, sizeof(*model));
        model->seed = test_seed();
        model->random = model->seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        client_expect_done(admin, call_stat(admin, "/"));
        root = ((Shmd__StatReply *)admin->reply)->node;
        model->entries[0] = (ModelEntry){
                .used = true, .parent = -1, .region = -1, .uid = root->uid, .gid = root->gid, .mode = root->mode,
        };
}

static size_t count_operations(void) {
        const char *operations = getenv("SHMD_TEST_OPERATIONS");

        return operations ? strtoull(operations, NULL, 10) : OPERATIONS;
}

static Person person_connect(Model *model, Broker *broker, uid_t uid, gid_t gid) {
        Person person = { uid, gid, client_connect_as(broker, uid, gid), client_connect_as(broker, uid, gid) };

        person.client->on_event = take_event;
        person.client->event_userdata = model;
        return person;
}

TEST(model, the_broker_answers_and_tells_as_a_simple_model_of_it_does) {
        static const uid_t uids[] = { ALICE, BOB, CAROL };
        static const gid_t gids[] = { ALICE, ALICE, CAROL };    /* two have a group in common */
        static Model model;
        size_t operations = count_operations();
        Broker *broker;
        Client *admin;
        Person people[3];

        test_needs_root();
        broker = broker_spawn(NULL);
        admin = client_connect_as(broker, 0, 0);
        model_begin(&model, admin);
        for (int i = 0; i < 3; ++i)
                people[i] = person_connect(&model, broker, uids[i], gids[i]);
        for (model.step = 1; model.step <= operations; ++model.step) {
                do_one(&model, people);
                end_waits(&model);
                if (model.step % SYNC_EVERY == 0)
                        for (int i = 0; i < 3; ++i)
                                sync_events(&model, &people[i]);
                if (model.step % COMPARE_EVERY == 0) {
                        compare_tree(&model, people, admin);
                        compare_books(&model, people, admin);
                }
        }
        if (operations >= OPERATIONS)
                require_variety(&model);
        for (int i = 0; i < 3; ++i) {
                people[i].client = client_free(people[i].client);
                people[i].waiter = client_free(people[i].waiter);
        }
        admin = client_free(admin);
        broker = broker_stop(broker);
}
