/* Eight clients of three users work with libshmd while the broker is killed at random instants, and none
 * of them sees an error.
 *
 * Each client has a directory of its own, in which nobody else changes anything, and a ledger of what is
 * in it: so it knows the outcome of each call beforehand, and requires it. A call that may be answered
 * otherwise, because its deadline is shorter than a restart, changes nothing. What it has mapped it looks
 * at from time to time, and compares with what it gets when it opens the region again.
 *
 * Each client also watches the directory of the next one, with a second connection, and makes what it
 * hears into a list of names; only if it is told that it has missed something, it lists the directory
 * again. In the end, when all is quiet, the two must be the same.
 *
 * And then everything must be as in the ledgers: what is charged to whom, as the broker has it and as the
 * kernel has it (lib/picture.h), and in the keeper no descriptor more.
 */

#define TEST_TIMEOUT 1200

#include "lib/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "shmd.h"

enum {
        CLIENTS = 8,
        NAMES = 12,             /* of each client */
        DIRECTORIES = 3,
        HELD = 6,
        KNOWN = 64,             /* names in a directory that is watched */
        PIPELINE = 12,
        SECONDS = 10,           /* SHMD_TEST_SECONDS: otherwise */
        PAUSE_MS = 400,         /* at most, between two kills */
};

#define SECOND UINT64_C(1000000000)
#define PATIENCE (60 * SECOND)
#define SHORT UINT64_C(3000000)

static const uid_t uids[CLIENTS] = { ALICE, BOB, CAROL, ALICE, BOB, CAROL, ALICE, BOB };

/* What a client has done, in memory that it shares with the test. */
typedef struct Account {
        _Atomic uint64_t calls;
        _Atomic uint64_t late;          /* calls whose deadline was short */
        _Atomic uint64_t events;
        _Atomic uint64_t resyncs;       /* told that it has missed something */
        _Atomic int64_t longest_ns;     /* a call */
        uint64_t regions;               /* in the end: those that are its own, directories and further names, */
        uint64_t bytes;                 /* and what is charged for them */
} Account;

typedef struct Shared {
        atomic_bool over;
        Account accounts[CLIENTS];
} Shared;

typedef struct Test {
        Broker *broker;
        Shared *shared;
        uint64_t seed;
        int index;                      /* the next client's */
} Test;

/* A region as its owner knows it. */
typedef struct Thing {
        uint64_t region;                /* 0: nothing is there */
        uint64_t size;
        uint64_t stamp;                 /* its first eight bytes */
        mode_t mode;
        bool frozen;
} Thing;

typedef struct Held {
        shmd_region *region;
        uint64_t *memory;
        size_t length;
        Thing thing;
} Held;

/* A name as a watch tells it. */
typedef struct Known {
        char path[48];
        uint64_t region;
} Known;

typedef struct Worker {
        const Test *test;
        Account *account;
        int index;
        uint64_t random;
        shmd *client;
        Thing names[NAMES];
        bool directories[DIRECTORIES];
        Held held[HELD];

        shmd *watcher;
        char watched[8];                /* the directory */
        uint64_t synced;                /* all events up to this one are in what is known */
        bool stale;
        Known known[KNOWN];
        size_t n_known;
} Worker;

static uint64_t any(Worker *worker, uint64_t n) {
        return test_random(&worker->random, n);
}

static const char *path_of(const Worker *worker, const char *what, size_t i) {
        static char paths[4][48];
        static unsigned int turn;
        char *path = paths[turn++ % 4];

        (void)snprintf(path, sizeof(paths[0]), "/c%d/%s%zu", worker->index, what, i);
        return path;
}

static const char *name_of(const Worker *worker, size_t i) {
        return path_of(worker, "n", i);
}

/* Requires the outcome of a call. */
#define EXPECT(worker, wanted, call)                                                            \
        do {                                                                                    \
                int64_t began_expect = test_now_ns();                                           \
                int r_expect = (call), wanted_expect = (wanted);                                \
                                                                                                \
                count_call(worker, test_now_ns() - began_expect);                               \
                REQUIRE(r_expect == wanted_expect, "client %d: %s instead of %s: %s", (worker)->index, \
                        strerror(-r_expect), strerror(-wanted_expect),                          \
                        shmd_refusal((worker)->client)->sentence);                              \
        } while (0)

static void count_call(Worker *worker, int64_t took_ns) {
        ++worker->account->calls;
        if (took_ns > worker->account->longest_ns)
                worker->account->longest_ns = took_ns;
}

/* -- what is in a region ---------------------------------------------------------------------- */

static void stamp(Worker *worker, shmd_region *region, Thing *thing) {
        thing->stamp = any(worker, UINT32_MAX) + 1;
        REQUIRE(pwrite(shmd_region_fd(region), &thing->stamp, sizeof(thing->stamp), 0) == sizeof(thing->stamp), "%s",
                strerror(errno));
}

static void check_stamp(Worker *worker, const shmd_region *region, const Thing *thing) {
        uint64_t found = 0;

        REQUIRE(pread(shmd_region_fd(region), &found, sizeof(found), 0) == sizeof(found), "%s", strerror(errno));
        REQUIRE(found == thing->stamp && shmd_region_id(region) == thing->region &&
                shmd_region_size(region) == thing->size, "client %d: another region than it made", worker->index);
}

static void let_go(Held *held) {
        if (held->memory) {
                REQUIRE(*held->memory == held->thing.stamp, "what is mapped has changed");
                REQUIRE(shmd_unmap(held->memory, held->length) == 0);
        }
        held->memory = NULL;
        held->region = shmd_region_free(held->region);
}

/* Keeps a grant for a while, perhaps mapped, in the place of another one. */
static void hold(Worker *worker, shmd_region *region, const Thing *thing) {
        Held *held = &worker->held[any(worker, HELD)];
        void *address;

        let_go(held);
        held->region = region;
        held->thing = *thing;
        if (any(worker, 2))
                return;
        REQUIRE(shmd_map(region, NULL, &address, &held->length) == 0);
        held->memory = address;
}

/* -- things a client does ------------------------------------------------------------------------ */

static shmd_region *create(Worker *worker, const char *path, uint32_t flags, Thing *thing) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;

        options.size = 8 + any(worker, 4 * PAGE);
        options.mode = any(worker, 2) ? 0644 : 0600;
        options.flags = flags;
        options.lifetime = path && any(worker, 4) == 0 ? SHMD_LIFETIME_SESSION : SHMD_LIFETIME_NAMED;
        EXPECT(worker, 0, shmd_create(worker->client, path, &options, &region, PATIENCE));
        REQUIRE(shmd_region_created(region), "client %d: %s was there", worker->index, path);
        *thing = (Thing){ .region = shmd_region_id(region), .size = options.size, .mode = options.mode };
        stamp(worker, region, thing);
        return region;
}

static void do_create(Worker *worker, size_t i) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        Thing *thing = &worker->names[i];
        shmd_region *region;

        if (!thing->region) {
                region = create(worker, name_of(worker, i), any(worker, 2) ? SHMD_CREATE_OPEN : 0, thing);
                hold(worker, region, thing);
                return;
        }
        options.size = 8;
        EXPECT(worker, -EEXIST, shmd_create(worker->client, name_of(worker, i), &options, &region, PATIENCE));
}

static void do_publish(Worker *worker, size_t i) {
        struct shmd_publish_options options = SHMD_PUBLISH_OPTIONS_INIT;
        bool freeze = any(worker, 4) == 0;
        shmd_region *region;
        Thing thing;

        region = create(worker, NULL, freeze ? SHMD_CREATE_FREEZABLE : 0, &thing);
        if (freeze)
                EXPECT(worker, 0, shmd_freeze(worker->client, region, SHMD_FREEZE_IMMUTABLE, PATIENCE));
        thing.frozen = freeze;
        options.flags = worker->names[i].region ? SHMD_PUBLISH_REPLACE : 0;
        EXPECT(worker, 0, shmd_publish(worker->client, thing.region, name_of(worker, i), &options, PATIENCE));
        worker->names[i] = thing;
        hold(worker, region, &thing);
}

static void do_open(Worker *worker, size_t i) {
        const Thing *thing = &worker->names[i];
        uint32_t rights = any(worker, 2) ? SHMD_RIGHTS_READ_WRITE : SHMD_RIGHTS_READ_ONLY;
        int wanted = !thing->region ? -ENOENT : thing->frozen && rights == SHMD_RIGHTS_READ_WRITE ? -EACCES : 0;
        shmd_region *region;

        EXPECT(worker, wanted, shmd_open(worker->client, name_of(worker, i), rights, &region, PATIENCE));
        if (wanted)
                return;
        check_stamp(worker, region, thing);
        hold(worker, region, thing);
}

/* What others do there meanwhile decides; that it is nothing else. */
static void do_open_others(Worker *worker, size_t i) {
        char path[48];
        shmd_region *region;
        int r;

        (void)snprintf(path, sizeof(path), "/c%d/n%zu", (int)any(worker, CLIENTS), i);
        r = shmd_open(worker->client, path, SHMD_RIGHTS_READ_ONLY, &region, PATIENCE);
        REQUIRE(r == 0 || r == -ENOENT || r == -EACCES, "client %d: %s: %s", worker->index, path,
                shmd_refusal(worker->client)->sentence);
        if (r == 0)
                shmd_region_free(region);
        ++worker->account->calls;
}

static void do_unlink(Worker *worker, size_t i) {
        EXPECT(worker, worker->names[i].region ? 0 : -ENOENT,
               shmd_unlink(worker->client, name_of(worker, i), PATIENCE));
        worker->names[i].region = 0;
}

static void do_rename(Worker *worker, size_t i) {
        size_t k = (i + 1 + any(worker, NAMES - 1)) % NAMES;
        Thing *from = &worker->names[i], *to = &worker->names[k], old = *to;
        uint32_t how = (uint32_t[]){ 0, SHMD_RENAME_REPLACE, SHMD_RENAME_EXCHANGE }[any(worker, 3)];
        int wanted = !from->region ? -ENOENT :
                     how == 0 && to->region ? -EEXIST :
                     how == SHMD_RENAME_EXCHANGE && !to->region ? -ENOENT :
                     how == SHMD_RENAME_EXCHANGE || !to->region || to->region != from->region ? 0 : INT32_MIN;

        if (wanted == INT32_MIN)
                return;         /* two names of one region: another subject */
        EXPECT(worker, wanted, shmd_rename(worker->client, name_of(worker, i), name_of(worker, k), how, PATIENCE));
        if (wanted)
                return;
        *to = *from;
        if (how == SHMD_RENAME_EXCHANGE)
                *from = old;
        else
                from->region = 0;
}

static void do_link(Worker *worker, size_t i) {
        size_t k = (i + 1 + any(worker, NAMES - 1)) % NAMES;
        int wanted = !worker->names[i].region ? -ENOENT : worker->names[k].region ? -EEXIST : 0;

        EXPECT(worker, wanted, shmd_link(worker->client, name_of(worker, i), name_of(worker, k), PATIENCE));
        if (wanted == 0)
                worker->names[k] = worker->names[i];
}

static void do_chmod(Worker *worker, size_t i) {
        mode_t mode = any(worker, 2) ? 0644 : 0600;
        uint64_t region = worker->names[i].region;

        EXPECT(worker, region ? 0 : -ENOENT, shmd_chmod(worker->client, name_of(worker, i), mode, PATIENCE));
        for (size_t k = 0; k < NAMES; ++k)
                if (region && worker->names[k].region == region)
                        worker->names[k].mode = mode;
}

static void do_directory(Worker *worker, size_t i) {
        size_t k = i % DIRECTORIES;

        if (any(worker, 2)) {
                EXPECT(worker, worker->directories[k] ? -EEXIST : 0,
                       shmd_mkdir(worker->client, path_of(worker, "d", k), 0755, PATIENCE));
                worker->directories[k] = true;
        } else {
                EXPECT(worker, worker->directories[k] ? 0 : -ENOENT,
                       shmd_rmdir(worker->client, path_of(worker, "d", k), PATIENCE));
                worker->directories[k] = false;
        }
}

static void do_stat(Worker *worker, size_t i) {
        const Thing *thing = &worker->names[i];
        struct shmd_stat_result *stat;

        EXPECT(worker, thing->region ? 0 : -ENOENT,
               shmd_stat(worker->client, name_of(worker, i), 0, SHMD_STAT_HOLDERS, &stat, PATIENCE));
        if (!thing->region)
                return;
        REQUIRE(stat->node.region == thing->region && stat->node.size == thing->size &&
                stat->node.mode == thing->mode && stat->node.uid == uids[worker->index],
                "client %d: %s is not what it made", worker->index, stat->node.path);
        shmd_stat_free(stat);
}

static void do_stat_shortly(Worker *worker, size_t i) {
        struct shmd_stat_result *stat;
        int r = shmd_stat(worker->client, name_of(worker, i), 0, 0, &stat, SHORT);

        if (r == 0)
                shmd_stat_free(stat);
        REQUIRE(r == (worker->names[i].region ? 0 : -ENOENT) || r == -ETIMEDOUT, "client %d: %s", worker->index,
                shmd_refusal(worker->client)->sentence);
        worker->account->late += r == -ETIMEDOUT;
}

static uint64_t region_listed(const struct shmd_list_result *list, const char *path) {
        for (size_t i = 0; i < list->n; ++i)
                if (strcmp(list->nodes[i].path, path) == 0)
                        return list->nodes[i].region;
        return 0;
}

static void do_list(Worker *worker, size_t i) {
        struct shmd_list_result *list;
        char directory[8];

        (void)snprintf(directory, sizeof(directory), "/c%d", worker->index);
        EXPECT(worker, 0, shmd_list(worker->client, directory, 0, NULL, 0, &list, PATIENCE));
        for (i = 0; i < NAMES; ++i)
                REQUIRE(region_listed(list, name_of(worker, i)) == worker->names[i].region,
                        "client %d: %s is another region, or none", worker->index, name_of(worker, i));
        shmd_list_free(list);
}

/* A ticket is good for so many grants, no more and no less. */
static void do_ticket(Worker *worker, size_t i) {
        struct shmd_ticket_options options = SHMD_TICKET_OPTIONS_INIT;
        struct shmd_ticket_result *ticket;
        const Thing *thing = &worker->names[i];
        uint32_t revoked;

        if (!thing->region)
                return;
        options.uses = 1 + (uint32_t)any(worker, 3);
        EXPECT(worker, 0, shmd_ticket(worker->client, name_of(worker, i), 0, &options, &ticket, PATIENCE));
        for (uint32_t k = 0; k < options.uses; ++k) {
                shmd_region *region;

                EXPECT(worker, 0, shmd_redeem(worker->client, ticket->ticket, &region, PATIENCE));
                check_stamp(worker, region, thing);
                shmd_region_free(region);
        }
        /* Seldom: whoever tries what is no ticket has to wait for the answer. */
        if (any(worker, 16) == 0) {
                shmd_region *region;

                EXPECT(worker, -EACCES, shmd_redeem(worker->client, ticket->ticket, &region, PATIENCE));
        } else {
                EXPECT(worker, 0, shmd_revoke(worker->client, SHMD_REVOKE_ALL, name_of(worker, i), 0, &revoked,
                                              PATIENCE));
                REQUIRE(revoked == 0, "client %d: %u tickets are left", worker->index, revoked);
        }
        shmd_ticket_free(ticket);
}

static void do_batch(Worker *worker, size_t i) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_batch_item items[3];
        shmd_region *regions[3];
        size_t slots[3], n = 0;

        options.size = PAGE + 8;
        options.mode = 0644;
        for (size_t k = 0; k < NAMES && n < 3; ++k)
                if (!worker->names[(i + k) % NAMES].region) {
                        slots[n] = (i + k) % NAMES;
                        items[n] = (struct shmd_batch_item){ .path = name_of(worker, slots[n]), .create = &options };
                        ++n;
                }
        if (n == 0)
                return;
        EXPECT(worker, 0, shmd_batch(worker->client, items, n, regions, PATIENCE));
        for (size_t k = 0; k < n; ++k) {
                Thing *thing = &worker->names[slots[k]];

                *thing = (Thing){ .region = shmd_region_id(regions[k]), .size = options.size, .mode = options.mode };
                stamp(worker, regions[k], thing);
                hold(worker, regions[k], thing);
        }
}

/* Waits until a name that ends by itself is gone. */
static void expect_gone(Worker *worker, const char *path) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        struct shmd_stat_result *stat;
        int r;

        while ((r = shmd_stat(worker->client, path, 0, 0, &stat, PATIENCE)) == 0) {
                shmd_stat_free(stat);
                REQUIRE(test_now_ms() < end, "client %d: %s is still there", worker->index, path);
                test_sleep_ms(2);
        }
        REQUIRE(r == -ENOENT, "client %d: %s", worker->index, shmd_refusal(worker->client)->sentence);
}

static void do_short_lived(Worker *worker, size_t i) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        const char *path = path_of(worker, "t", 0);
        bool counted = i % 2;
        shmd_region *region;

        options.size = 8;
        options.lifetime = counted ? SHMD_LIFETIME_COUNTED : SHMD_LIFETIME_NAMED;
        options.ttl_ns = counted ? 0 : 20000000;
        EXPECT(worker, 0, shmd_create(worker->client, path, &options, &region, PATIENCE));
        shmd_region_free(region);
        expect_gone(worker, path);
}

/* -- many at once -------------------------------------------------------------------------------- */

typedef struct Piped {
        Worker *worker;
        size_t i;
        unsigned int *left;
} Piped;

static void on_stat(shmd *client, shmd_call *call, void *userdata) {
        Piped *piped = userdata;
        struct shmd_stat_result *stat;
        int r = shmd_stat_finish(call, &stat);

        (void)client;
        REQUIRE(r == (piped->worker->names[piped->i].region ? 0 : -ENOENT), "%s", shmd_call_refusal(call)->sentence);
        if (r == 0)
                shmd_stat_free(stat);
        --*piped->left;
}

static void on_done(shmd *client, shmd_call *call, void *userdata) {
        Piped *piped = userdata;

        (void)client;
        REQUIRE(shmd_call_result(call) == 0, "client %d, piped %zu: %s", piped->worker->index, piped->i,
                shmd_call_refusal(call)->sentence);
        --*piped->left;
}

/* Makes directories and takes them away in one go: in the order they were asked. */
static void do_pipeline(Worker *worker, size_t i) {
        unsigned int left = 0;
        Piped piped[PIPELINE];

        (void)i;
        for (size_t k = 0; k < PIPELINE; ++k) {
                const char *path = path_of(worker, "p", k / 3);

                piped[k] = (Piped){ worker, k, &left };
                if (k % 3 == 0)
                        EXPECT(worker, 0, shmd_mkdir_start(worker->client, path, 0755, PATIENCE, on_done, &piped[k],
                                                           NULL));
                else if (k % 3 == 1)
                        EXPECT(worker, 0, shmd_stat_start(worker->client, name_of(worker, k % NAMES), 0, 0, PATIENCE,
                                                          on_stat, &piped[k], NULL));
                else
                        EXPECT(worker, 0, shmd_rmdir_start(worker->client, path, PATIENCE, on_done, &piped[k], NULL));
                piped[k].i = k % NAMES;
                ++left;
        }
        while (left > 0)
                REQUIRE(shmd_process(worker->client, PATIENCE) >= 0, "client %d: lost", worker->index);
}

static void do_let_go(Worker *worker, size_t i) {
        let_go(&worker->held[i % HELD]);
}

/* -- what a client hears --------------------------------------------------------------------------- */

static Known *find_known(Worker *worker, const char *path) {
        for (size_t i = 0; i < worker->n_known; ++i)
                if (strcmp(worker->known[i].path, path) == 0)
                        return &worker->known[i];
        return NULL;
}

static void forget(Worker *worker, const char *path) {
        Known *known = find_known(worker, path);

        if (known)
                *known = worker->known[--worker->n_known];
}

static void learn(Worker *worker, const char *path, uint64_t region) {
        Known *known = find_known(worker, path);

        if (!known) {
                REQUIRE(worker->n_known < KNOWN, "too many names in %s", worker->watched);
                known = &worker->known[worker->n_known++];
        }
        (void)snprintf(known->path, sizeof(known->path), "%s", path);
        known->region = region;
}

static void hear_rename(Worker *worker, const struct shmd_event *event) {
        const Known *from = find_known(worker, event->path), *to = find_known(worker, event->to);
        uint64_t moved = from ? from->region : event->region, other = to ? to->region : 0;

        forget(worker, event->path);
        learn(worker, event->to, moved);
        if (event->exchange)
                learn(worker, event->path, other);
}

static void on_event(shmd *client, const struct shmd_event *event, void *userdata) {
        Worker *worker = userdata;

        (void)client;
        ++worker->account->events;
        if (event->event == SHMD_EVENT_OVERFLOW) {
                worker->stale = true;
                ++worker->account->resyncs;
        }
        if (event->sequence <= worker->synced || worker->stale)
                return;
        worker->synced = event->sequence;
        if (event->event == SHMD_EVENT_CREATED || event->event == SHMD_EVENT_REPLACED)
                learn(worker, event->path, event->region);
        else if (event->event == SHMD_EVENT_REMOVED)
                forget(worker, event->path);
        else if (event->event == SHMD_EVENT_RENAMED)
                hear_rename(worker, event);
}

static void resync(Worker *worker) {
        struct shmd_list_result *list;

        worker->stale = false;
        REQUIRE(shmd_list(worker->watcher, worker->watched, 0, NULL, 0, &list, PATIENCE) == 0, "%s",
                shmd_refusal(worker->watcher)->sentence);
        REQUIRE(!list->cursor);
        worker->n_known = 0;
        for (size_t i = 0; i < list->n; ++i)
                learn(worker, list->nodes[i].path, list->nodes[i].region);
        worker->synced = list->sequence;
        shmd_list_free(list);
}

static void begin_watch(Worker *worker) {
        uint64_t watch;
        int r = shmd_connect(&worker->watcher, worker->test->broker->socket, PATIENCE);

        REQUIRE(r == 0, "%s", strerror(-r));
        (void)snprintf(worker->watched, sizeof(worker->watched), "/c%d", (worker->index + 1) % CLIENTS);
        resync(worker);
        REQUIRE(shmd_watch(worker->watcher, worker->watched, SHMD_EVENT_ALL, worker->synced, on_event, worker, &watch,
                           NULL, PATIENCE) == 0);
}

static void hear(Worker *worker) {
        int r = shmd_dispatch(worker->watcher);

        REQUIRE(r >= 0, "client %d: its watch is lost: %s", worker->index, strerror(-r));
        if (worker->stale)
                resync(worker);
}

static bool knows_all(Worker *worker) {
        struct shmd_list_result *list;
        bool same;

        REQUIRE(shmd_list(worker->client, worker->watched, 0, NULL, 0, &list, PATIENCE) == 0);
        same = list->n == worker->n_known;
        for (size_t i = 0; i < list->n; ++i) {
                const Known *known = find_known(worker, list->nodes[i].path);

                same = same && known && known->region == list->nodes[i].region;
        }
        shmd_list_free(list);
        return same;
}

/* When nobody changes anything any more, what was heard is what is there. */
static void end_watch(Worker *worker) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;

        while (!knows_all(worker)) {
                REQUIRE(test_now_ms() < end, "client %d: has missed something in %s without being told", worker->index,
                        worker->watched);
                test_sleep_ms(5);
                hear(worker);
        }
        worker->watcher = shmd_close(worker->watcher);
}

/* -- a client ------------------------------------------------------------------------------------- */

typedef void (*DoFn)(Worker *worker, size_t i);

static const struct {
        DoFn fn;
        unsigned int weight;
} things_to_do[] = {
        { do_create, 6 }, { do_publish, 6 }, { do_open, 6 }, { do_open_others, 3 }, { do_unlink, 5 }, { do_rename, 6 },
        { do_link, 3 }, { do_chmod, 2 }, { do_directory, 3 }, { do_stat, 3 }, { do_stat_shortly, 2 }, { do_list, 2 },
        { do_ticket, 2 }, { do_batch, 2 }, { do_short_lived, 1 }, { do_pipeline, 2 }, { do_let_go, 6 },
};

static void do_something(Worker *worker) {
        size_t n = sizeof(things_to_do) / sizeof(*things_to_do);
        unsigned int total = 0, choice;

        for (size_t i = 0; i < n; ++i)
                total += things_to_do[i].weight;
        choice = (unsigned int)any(worker, total);
        for (size_t i = 0; i < n; ++i) {
                if (choice < things_to_do[i].weight) {
                        things_to_do[i].fn(worker, any(worker, NAMES));
                        return;
                }
                choice -= things_to_do[i].weight;
        }
}

/* Further names are charged as regions are. */
static void add_up(Account *account, uint64_t seen[], size_t *n_seen, const Thing *thing, bool is_name) {
        if (!thing->region)
                return;
        for (size_t i = 0; i < *n_seen; ++i)
                if (seen[i] == thing->region) {
                        account->regions += is_name;
                        return;
                }
        seen[(*n_seen)++] = thing->region;
        ++account->regions;
        account->bytes += (thing->size + PAGE - 1) / PAGE * PAGE;
}

/* Says in the account what is its own in the end: what has a name, and what it holds. */
static void close_ledger(Worker *worker) {
        uint64_t seen[NAMES + HELD];
        size_t n_seen = 0;

        worker->account->regions = 1;
        for (size_t i = 0; i < DIRECTORIES; ++i)
                worker->account->regions += worker->directories[i];
        for (size_t i = 0; i < NAMES; ++i) {
                do_stat(worker, i);
                add_up(worker->account, seen, &n_seen, &worker->names[i], true);
        }
        for (size_t i = 0; i < HELD; ++i) {
                if (!worker->held[i].region)
                        continue;
                check_stamp(worker, worker->held[i].region, &worker->held[i].thing);
                add_up(worker->account, seen, &n_seen, &worker->held[i].thing, false);
        }
}

static int be_client(void *userdata) {
        const Test *test = userdata;
        Worker *worker = calloc(1, sizeof(*worker));
        int r;

        REQUIRE(worker);
        worker->test = test;
        worker->index = test->index;
        worker->account = &test->shared->accounts[test->index];
        worker->random = test->seed + 2 * (uint64_t)test->index;
        test_become(uids[worker->index], uids[worker->index]);

        r = shmd_connect(&worker->client, test->broker->socket, PATIENCE);
        REQUIRE(r == 0, "%s", strerror(-r));
        child_arrive(0);        /* all directories are there when it goes on */
        begin_watch(worker);
        while (!atomic_load(&test->shared->over)) {
                do_something(worker);
                hear(worker);
        }
        close_ledger(worker);
        child_arrive(0);        /* nobody changes anything when it goes on */
        end_watch(worker);
        child_arrive(0);        /* the books have been looked at */
        for (size_t i = 0; i < HELD; ++i)
                let_go(&worker->held[i]);
        worker->client = shmd_close(worker->client);
        free(worker);
        return 0;
}

/* -- the test -------------------------------------------------------------------------------------- */

/* How the broker ends; mostly as the OOM killer has it, sometimes as by a fault of its own. */
static const int signals[] = { SIGKILL, SIGKILL, SIGKILL, SIGSEGV, SIGABRT };

/* Return: how often it killed the broker. */
static unsigned int torment(Broker *broker, uint64_t random, int64_t until_ms) {
        unsigned int n = 0;

        while (test_now_ms() < until_ms) {
                /* Now and then the successor is killed while it begins. */
                test_sleep_ms((int)test_random(&random, test_random(&random, 6) ? PAUSE_MS : 8));
                REQUIRE(kill(broker->pid, signals[test_random(&random, sizeof(signals) / sizeof(*signals))]) == 0 ||
                        errno == ESRCH);
                broker_await_restart(broker);
                ++n;
        }
        return n;
}

static void make_directories(Client *admin) {
        for (int i = 0; i < CLIENTS; ++i) {
                char path[8];

                (void)snprintf(path, sizeof(path), "/c%d", i);
                client_expect_done(admin, call_mkdir(admin, path, 0755));
                client_expect_done(admin, call_chown(admin, path, (int64_t)uids[i], (int64_t)uids[i]));
        }
}

typedef struct Sum {
        Client *admin;
        uid_t uid;
        uint64_t regions, bytes;
} Sum;

static uint64_t used_by(Client *admin, uid_t uid, uint32_t slot) {
        const Shmd__DfReply *reply;

        client_expect_done(admin, client_call(admin, MESSAGE_DF,
                                              REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT, .set_uid = true,
                                                      .uid = uid)));
        reply = (const Shmd__DfReply *)admin->reply;
        for (size_t i = 0; i < reply->accounts[0]->n_slots; ++i)
                if (reply->accounts[0]->slots[i]->slot == slot)
                        return reply->accounts[0]->slots[i]->used;
        return 0;
}

static bool is_charged(void *userdata) {
        Sum *sum = userdata;

        return used_by(sum->admin, sum->uid, SHMD__SLOT__SLOT_REGIONS) == sum->regions &&
               used_by(sum->admin, sum->uid, SHMD__SLOT__SLOT_BYTES) == sum->bytes;
}

static void compare_ledgers(Client *admin, const Shared *shared) {
        const uid_t users[] = { ALICE, BOB, CAROL };

        for (size_t u = 0; u < 3; ++u) {
                Sum sum = { admin, users[u], 0, 0 };

                for (size_t i = 0; i < CLIENTS; ++i) {
                        sum.regions += uids[i] == sum.uid ? shared->accounts[i].regions : 0;
                        sum.bytes += uids[i] == sum.uid ? shared->accounts[i].bytes : 0;
                }
                REQUIRE(test_eventually(is_charged, &sum),
                        "uid %u: %" PRIu64 " regions and %" PRIu64 " bytes, not %" PRIu64 " and %" PRIu64, sum.uid,
                        used_by(admin, sum.uid, SHMD__SLOT__SLOT_REGIONS),
                        used_by(admin, sum.uid, SHMD__SLOT__SLOT_BYTES), sum.regions, sum.bytes);
        }
}

static void report(const Shared *shared, unsigned int n_kills, int64_t seconds) {
        uint64_t calls = 0, late = 0, events = 0, resyncs = 0;
        int64_t longest = 0;

        for (size_t i = 0; i < CLIENTS; ++i) {
                const Account *account = &shared->accounts[i];

                calls += account->calls;
                late += account->late;
                events += account->events;
                resyncs += account->resyncs;
                longest = account->longest_ns > longest ? account->longest_ns : longest;
        }
        fprintf(stderr, "%u kills in %" PRId64 " s; %" PRIu64 " calls, the longest %.1f ms; %" PRIu64 " had too short a "
                "deadline; %" PRIu64 " events, %" PRIu64 " times told to list again\n", n_kills, seconds, calls,
                (double)longest / 1e6, late, events, resyncs);
        REQUIRE(calls > 0 && events > 0);
        for (size_t i = 0; i < CLIENTS; ++i)
                REQUIRE(shared->accounts[i].calls > 0, "client %zu did nothing", i);
}

static void each(Child children[CLIENTS], void (*fn)(Child *)) {
        for (size_t i = 0; i < CLIENTS; ++i)
                fn(&children[i]);
}

TEST(restart, clients_work_on_while_the_broker_is_killed_and_see_no_error) {
        const char *given = getenv("SHMD_TEST_SECONDS");
        int64_t seconds = given ? strtoll(given, NULL, 10) : SECONDS;
        Test test = { .broker = NULL };
        Child children[CLIENTS];
        size_t keeper_fds;
        unsigned int n_kills;
        Client *admin;

        test_needs_root();
        test.seed = test_seed();
        test.shared = mmap(NULL, sizeof(*test.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(test.shared != MAP_FAILED);
        test.broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = "[keeper]\nrestarts = 0\n" });
        admin = client_connect_as(test.broker, 0, 0);
        keeper_fds = broker_keeper_fds(test.broker);
        make_directories(admin);
        for (test.index = 0; test.index < CLIENTS; ++test.index)
                child_start(&children[test.index], be_client, &test);
        each(children, child_await);
        each(children, child_continue);

        n_kills = torment(test.broker, test.seed, test_now_ms() + seconds * 1000);
        atomic_store(&test.shared->over, true);
        each(children, child_await);
        (void)client_resume(admin, test.broker, 0, 0);
        compare_ledgers(admin, test.shared);
        each(children, child_continue);
        each(children, child_await);
        keeper_fds += books_expect(admin, test.broker->pid, test.broker->keeper);
        broker_expect_keeper_fds(test.broker, keeper_fds);
        report(test.shared, n_kills, seconds);
        each(children, child_release);

        admin = client_free(admin);
        broker_stop(test.broker);
        REQUIRE(munmap(test.shared, sizeof(*test.shared)) == 0);
}
