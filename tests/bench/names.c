/* Names by the million: what it takes to find one, to make and to remove one, and to list them all.
 *
 * The core alone, without sockets: a tree of 100 directories with 100 each in them, with 100 names each. Names are
 * made, looked up and removed in random order. Behind each is a region of its own, but for its memory: nobody has
 * a million descriptors here. Who looks up is in 20 groups, and owns nothing. He may search the directories as
 * everybody may, and read each region by one of his groups; that is asked as well, as an open asks it.
 *
 * Beside it stands a bare hash table of the full paths: open addressing, half full, and all that a look-up has to do
 * there is to hash the path, and to compare one key. It has the same paths, looked up in the same order, and lies in
 * huge pages as what is in the tree does, where the system has them for those who ask. On both
 * sides a look-up begins when the one before has its result, as in a broker: a processor would else work on several
 * at once.
 *
 * To make and to remove names is timed step by step in processor time, or what bounds it. Two things in it are the
 * machine's. A hypervisor that does something else for a while looks like a slow step, but not at the same one
 * twice: what takes longer than a millisecond is tried again, with everything that led there, and only what is slow
 * every time counts. And the first touch of memory that a host has yet to find for its guest takes milliseconds
 * where it is a huge page (0.2 otherwise), and free memory may go back to the host within seconds: so as much
 * memory as the names will take is touched beforehand, and given back to the kernel piece by piece just before they
 * need it.
 */

#define TEST_TIMEOUT 600

#include "bench/bench.h"
#include "daemon-house.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "util/area.h"
#include "util/pool.h"

enum {
        MILLION = 1000000,
        HUNDRED = 100,
        BATCH = 1000,           /* look-ups that are timed together */
        PAGE_NAMES = 256,       /* of one answer to a list request */
        WARM_AREAS = 200,       /* of memory, more than a million names take */
        STEPS = 50,             /* whose processor time is asked for at once */
        GROUPS = 20,
};

#define STEP_US_MOST 1000.0
#define STEPS_BYTES (MILLION * sizeof(float))

static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);
static House house;
static Account *owner;
static Pool region_pool;
static Region *region_of[MILLION];
static gid_t groups[GROUPS];
static const Credentials reader = { .uid = ALICE, .gid = ALICE, .groups = groups, .n_groups = GROUPS };

/* -- names ------------------------------------------------------------------------------- */

/* How names lie in the tree. */
typedef struct Shape {
        /* Writes the path of name i. Return: its length. */
        size_t (*path)(uint32_t i, char path[64]);
        /* Lengths of the paths of the directories above it, the longest last; 0: none. */
        size_t above[2];
} Shape;

/* Paths are made by the million: without printf(). Return: the length, with the text and the digits. */
static size_t add_part(char *path, size_t n, const char *text, uint32_t number, size_t n_digits) {
        n = (size_t)(stpcpy(path + n, text) - path) + n_digits;
        for (size_t i = 1; i <= n_digits; ++i, number /= 10)
                path[n - i] = (char)('0' + number % 10);
        return n;
}

static size_t deep_path(uint32_t i, char path[64]) {
        size_t n = add_part(path, 0, "/plant-", i / 10000, 2);

        n = add_part(path, n, "/camera-", i / 100 % 100, 2);
        return add_part(path, n, "/frame-", i % 100, 2);
}

static size_t flat_path(uint32_t i, char path[64]) {
        return add_part(path, 0, "/frame-", i, 6);
}

static const Shape deep = { deep_path, { 9, 19 } }, flat = { flat_path, { 0 } };

static uint32_t *numbers_in_random_order(size_t n) {
        uint32_t *numbers = calloc(n, sizeof(*numbers));

        REQUIRE(numbers);
        for (size_t i = 0; i < n; ++i) {
                size_t k = test_random(&random_state, i + 1);

                numbers[i] = numbers[k];
                numbers[k] = (uint32_t)i;
        }
        return numbers;
}

static Spot resolve(const char *path, size_t n) {
        Spot spot;

        REQUIRE(tree_resolve(&house.tree, &house_admin, path, n, &spot) == 0);
        return spot;
}

static void make_directories(const Shape *shape, const char *path) {
        static const Permissions permissions = { .mode = 0755 };
        Directory *directory;

        for (size_t i = 0; i < 2 && shape->above[i]; ++i) {
                Spot spot = resolve(path, shape->above[i]);

                if (!spot.node)
                        REQUIRE(tree_mkdir(&house.tree, &spot, owner, &permissions, NULL, &directory) == 0);
        }
}

static void make_name(const Shape *shape, uint32_t i) {
        Region *region = pool_take(&region_pool);
        char path[64];
        size_t n = shape->path(i, path);
        Spot spot;
        Node *node;

        REQUIRE(region);
        region_of[i] = region;
        *region = (Region){
                .id = i + UINT64_C(1),
                .permissions = { .uid = BOB, .gid = groups[i % GROUPS], .mode = 0640 },
                .charge = { .bytes = PAGE },
        };
        if (tree_resolve(&house.tree, &house_admin, path, n, &spot) == TREE_E_MISSING) {
                make_directories(shape, path);
                spot = resolve(path, n);
        }
        REQUIRE(tree_link(&spot, region, NULL, &node) == 0);
        tree_announce(node);
}

static void remove_name(const Shape *shape, uint32_t i) {
        char path[64];
        size_t n = shape->path(i, path);
        Node *node = resolve(path, n).node;
        Region *region = node->region;

        tree_unlink(node);
        pool_give(&region_pool, region);
}

/* In the order of the list, which is the fastest. There are no directories. */
static void remove_all(void) {
        Node *node;

        while ((node = tree_list_first(house.tree.root))) {
                Region *region = node->region;

                tree_unlink(node);
                pool_give(&region_pool, region);
        }
}

/* -- steps ------------------------------------------------------------------------------- */

static double processor_us(void) {
        struct timespec now;

        REQUIRE(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
        return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* Memory that this machine has, for whoever asks next. */
static char *warm;
static size_t n_warm;           /* areas of it that are left */

static void warm_up(void) {
        warm = area_map(WARM_AREAS * AREA_BYTES, true);
        REQUIRE(warm);
        n_warm = WARM_AREAS;
        memset(warm, 1, n_warm * AREA_BYTES);
}

static void warm_leave(size_t n) {
        for (; n_warm > n; --n_warm)
                area_unmap(warm + (n_warm - 1) * AREA_BYTES, AREA_BYTES);
}

/* Does something to some names. To ask for the processor time takes as long as a step, so it is asked for once for all
 * of them: none of them took more, nor more than went by on the clock. least: for each the shortest time up to now. */
static void some_steps(const Shape *shape, const uint32_t *order, void (*step)(const Shape *, uint32_t), float *least) {
        double began = processor_us();
        int64_t before = test_now_ns();
        float all, took[STEPS];

        for (size_t i = 0; i < STEPS; ++i) {
                int64_t now;

                step(shape, order[i]);
                now = test_now_ns();
                took[i] = (float)(now - before) / 1e3F;
                before = now;
        }
        all = (float)(processor_us() - began);
        for (size_t i = 0; i < STEPS; ++i) {
                float most = took[i] < all ? took[i] : all;

                least[i] = most < least[i] ? most : least[i];
        }
}

/* The first n, rounded up to STEPS. */
static void step_by_step(const Shape *shape, const uint32_t *order, void (*step)(const Shape *, uint32_t),
                         float *least, size_t n) {
        for (size_t i = 0; i < n; i += STEPS) {
                warm_leave(WARM_AREAS - 1 - i * WARM_AREAS / MILLION);
                some_steps(shape, order + i, step, least + i);
        }
}

_Static_assert(MILLION % STEPS == 0, "none is left over");

static double longest(const float *least) {
        float most = 0;

        for (size_t i = 0; i < MILLION; ++i)
                most = least[i] > most ? least[i] : most;
        return (double)most;
}

/* How many steps lead to the last one that is too slow, with it. */
static size_t up_to_slow(const float *least) {
        size_t n = MILLION;

        while (n > 0 && least[n - 1] <= STEP_US_MOST)
                --n;
        return n;
}

/* Children see them, too. */
static float *steps_new(void) {
        float *least = mmap(NULL, STEPS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        REQUIRE(least != MAP_FAILED);
        for (size_t i = 0; i < MILLION; ++i)
                least[i] = INFINITY;
        return least;
}

static void steps_free(float *least) {
        (void)munmap(least, STEPS_BYTES);
}

static void open_house(void) {
        house_open(&house);
        owner = house_account(&house, 0);
        pool_init(&region_pool, sizeof(Region));
}

/* Takes the directories away, too. */
static void close_house(void) {
        owner = account_unref(owner);
        house_close(&house);
        pool_deinit(&region_pool);
}

/* -- the bare table ---------------------------------------------------------------------- */

typedef struct Key {
        const void *value;
        uint16_t n;
        char path[];
} Key;

typedef struct Slot {
        uint64_t hash;
        const Key *key;         /* NULL: free */
} Slot;

static Slot *slots;
static size_t n_slots;          /* a power of two */
static char *keys;              /* one after the other, as they were made */
static size_t n_slot_bytes, n_key_bytes;        /* in huge pages, as what is in the tree */

static size_t round_up(size_t n, size_t to) {
        return (n + to - 1) & ~(to - 1);
}

static void bare_insert(Key *key) {
        uint64_t hash = XXH3_64bits(key->path, key->n);
        size_t i = hash & (n_slots - 1);

        while (slots[i].key)
                i = (i + 1) & (n_slots - 1);
        slots[i] = (Slot){ hash, key };
}

static const void *bare_find(const char *path, size_t n) {
        uint64_t hash = XXH3_64bits(path, n);

        for (size_t i = hash & (n_slots - 1); slots[i].key; i = (i + 1) & (n_slots - 1)) {
                const Key *key = slots[i].key;

                if (slots[i].hash == hash && key->n == n && memcmp(key->path, path, n) == 0)
                        return key->value;
        }
        return NULL;
}

/* With all names that are in the tree, in the order they came. */
static void bare_open(const Shape *shape, const uint32_t *order, size_t n) {
        size_t at = 0;

        for (n_slots = 1; n_slots < 2 * n; n_slots *= 2)
                ;
        n_slot_bytes = round_up(n_slots * sizeof(*slots), AREA_BYTES);
        n_key_bytes = round_up(n * round_up(sizeof(Key) + 64, sizeof(void *)), AREA_BYTES);
        slots = area_map(n_slot_bytes, true);
        keys = area_map(n_key_bytes, true);
        REQUIRE(slots && keys);
        for (size_t i = 0; i < n; ++i) {
                Key *key = (Key *)(keys + at);

                key->n = (uint16_t)shape->path(order[i], key->path);
                key->value = region_of[order[i]];
                bare_insert(key);
                at += round_up(sizeof(*key) + key->n, sizeof(void *));
        }
}

static void bare_close(void) {
        area_unmap(slots, n_slot_bytes);
        area_unmap(keys, n_key_bytes);
}

/* -- looking up -------------------------------------------------------------------------- */

/* The paths to look up, one after the other, and where each side is in them. */
typedef struct Asked {
        uint16_t n;
        char path[];
} Asked;

static char *asked;
static size_t asked_end;

static size_t asked_after(size_t at) {
        return at + round_up(sizeof(Asked) + ((const Asked *)(asked + at))->n, sizeof(uint16_t));
}

typedef struct Looker {
        const void *(*find)(const char *path, size_t n);
        size_t at;              /* bytes into what is asked */
} Looker;

static void ask(const Shape *shape, size_t n) {
        uint32_t *order = numbers_in_random_order(n);

        asked = malloc(n * 64);
        REQUIRE(asked);
        asked_end = 0;
        for (size_t i = 0; i < n; ++i) {
                Asked *one = (Asked *)(asked + asked_end);

                one->n = (uint16_t)shape->path(order[i], one->path);
                asked_end += round_up(sizeof(*one) + one->n, sizeof(uint16_t));
        }
        free(order);
}

static const void *tree_look_up(const char *path, size_t n) {
        Spot spot;

        if (tree_find(&house.tree, &reader, path, n, &spot) ||
            !access_allows(&reader, node_permissions(spot.node), ACCESS_READ))
                return NULL;
        return spot.node->region;
}

static void look_up(void *userdata, double *ns, size_t n) {
        Looker *looker = userdata;
        uintptr_t result = 0;

        for (size_t i = 0; i < n; ++i) {
                int64_t began = test_now_ns();

                for (size_t k = 0; k < BATCH; ++k) {
                        /* No address has the top bit set; but only who has the result knows. */
                        const Asked *one = (const Asked *)(asked + looker->at + (result >> 63));

                        result = (uintptr_t)looker->find(one->path, one->n);
                        REQUIRE(result);
                        looker->at = asked_after(looker->at);
                        if (looker->at == asked_end)
                                looker->at = 0;
                }
                ns[i] = (double)(test_now_ns() - began) / BATCH;
        }
}

/* Both sides find the same, in the same order. */
static void compare_look_ups(const Shape *shape, const uint32_t *order, size_t n, BenchTimes *tree, BenchTimes *bare) {
        Looker lookers[] = { { tree_look_up, 0 }, { bare_find, 0 } };
        BenchSide sides[] = {
                { look_up, &lookers[0], bench_quick() ? 50 : 200, tree },
                { look_up, &lookers[1], bench_quick() ? 50 : 200, bare },
        };

        ask(shape, n);
        bare_open(shape, order, n);
        for (size_t i = 0, at = 0; at < asked_end; ++i, at = asked_after(at)) {
                const Asked *one = (const Asked *)(asked + at);

                REQUIRE(i % 16 || tree_look_up(one->path, one->n) == bare_find(one->path, one->n));
        }
        bench_take_turns(sides, 2, bench_rounds(25, 9));
        bare_close();
        free(asked);
}

/* -- lists ------------------------------------------------------------------------------- */

typedef struct Listing {
        double ns_a_name;
        double longest_us;      /* of one page */
} Listing;

/* What a page takes from the tree, beginning after the last name of the page before.
 * Return: how many nodes are on it. */
static size_t list_page(Directory *root, bool recursive, char *path, size_t *n_path) {
        size_t n = 0;
        Node *node;

        if (*n_path == 0)
                node = tree_list_first(root);
        else
                REQUIRE(tree_list_after(root, &reader, recursive, "/", 1, path, *n_path, &node) == 0);
        for (; node && n < PAGE_NAMES; ++n) {
                *n_path = tree_path(node, path);
                REQUIRE(node_permissions(node)->mode);
                node = tree_list_next(root, &reader, recursive, node);
        }
        return n;
}

/* Lists everything, again and again, and takes of each page the shortest time. */
static Listing list_all(bool recursive, size_t expected, size_t rounds) {
        size_t n_pages = expected / PAGE_NAMES + 2;
        double *least = calloc(n_pages, sizeof(*least)), all = 0;
        Listing listing = { 0 };

        REQUIRE(least);
        for (size_t round = 0; round < rounds; ++round) {
                char path[PATH_BYTES_MAX];
                size_t n_path = 0, n_names = 0, n;

                for (size_t page = 0; page < n_pages; ++page) {
                        double began = processor_us(), took;

                        n = list_page(house.tree.root, recursive, path, &n_path);
                        took = processor_us() - began;
                        least[page] = round == 0 || took < least[page] ? took : least[page];
                        n_names += n;
                }
                REQUIRE(n_names == expected, "%zu names are listed, and not %zu", n_names, expected);
        }
        for (size_t page = 0; page < n_pages; ++page) {
                listing.longest_us = least[page] > listing.longest_us ? least[page] : listing.longest_us;
                all += least[page];
        }
        listing.ns_a_name = all * 1e3 / (double)expected;
        free(least);
        return listing;
}

static void list_rows(const char *name, const char *what, const char *longest_name, const char *longest_what,
                      const Listing *listing) {
        bench_row(&(BenchRow){ .name = name, .what = what, .unit = "ns", .figure = BENCH_ONE(listing->ns_a_name),
                               .target = BENCH_AT_MOST(1000) });
        bench_row(&(BenchRow){ .name = longest_name, .what = longest_what, .unit = "us",
                               .figure = BENCH_ONE(listing->longest_us), .target = BENCH_AT_MOST(STEP_US_MOST),
                               .note = "processor time, of several rounds the shortest of each page" });
}

/* -- rows -------------------------------------------------------------------------------- */

static void measure_million(const uint32_t *making) {
        BenchTimes tree = { { .n = 0 } }, bare = { { .n = 0 } };
        Listing listing;

        compare_look_ups(&deep, making, MILLION, &tree, &bare);
        bench_row(&(BenchRow){ .name = "names-million", .what = "look-up among 1,000,000 names, against a bare table",
                               .unit = "ns", .figure = &tree.p50, .against = &bare.p50,
                               .target = BENCH_AT_MOST(2.5), .note = "three levels, with all access checks" });
        listing = list_all(true, MILLION + 100 * 100 + 100, bench_rounds(5, 2));
        list_rows("names-list-recursive", "list of 1,000,000 names in 10,100 directories, a name",
                  "names-list-recursive-page", "its longest page of 256", &listing);
}

static void step_row(const char *name, const char *what, const float *least) {
        bench_row(&(BenchRow){ .name = name, .what = what, .unit = "us", .figure = BENCH_ONE(longest(least)),
                               .target = BENCH_AT_MOST(STEP_US_MOST),
                               .note = "processor time, of what is slow whenever it is tried" });
}

/* Once more, as far as something was too slow: in a child, which ends with what it made. */
static void try_again(const uint32_t *making, float *made, const uint32_t *removing, float *removed) {
        size_t n_remove = up_to_slow(removed), n_make = n_remove ? MILLION : up_to_slow(made);
        pid_t pid;

        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                open_house();
                warm_up();
                step_by_step(&deep, making, make_name, made, n_make);
                step_by_step(&deep, removing, remove_name, removed, n_remove);
                _exit(0);
        }
        REQUIRE(test_wait_pid(pid) == 0);
}

TEST(names, a_million) {
        uint32_t *making = numbers_in_random_order(MILLION), *removing = numbers_in_random_order(MILLION);
        float *made = steps_new(), *removed = steps_new();

        bench_pin(0, 0);
        open_house();
        warm_up();
        step_by_step(&deep, making, make_name, made, MILLION);
        measure_million(making);
        step_by_step(&deep, removing, remove_name, removed, MILLION);
        close_house();
        for (size_t run = 1; run < bench_rounds(5, 2) && (up_to_slow(made) || up_to_slow(removed)); ++run)
                try_again(making, made, removing, removed);
        step_row("names-insert", "longest insertion, from 0 to 1,000,000 names", made);
        step_row("names-remove", "longest removal, from 1,000,000 names to 0", removed);
        free(making);
        free(removing);
        steps_free(made);
        steps_free(removed);
}

TEST(names, a_million_in_one_directory) {
        uint32_t *order = numbers_in_random_order(MILLION);
        Listing listing;

        bench_pin(0, 0);
        open_house();
        for (size_t i = 0; i < MILLION; ++i)
                make_name(&flat, order[i]);
        listing = list_all(false, MILLION, bench_rounds(5, 2));
        list_rows("names-list-flat", "list of 1,000,000 names in one directory, a name",
                  "names-list-flat-page", "its longest page of 256", &listing);
        remove_all();
        close_house();
        free(order);
}

TEST(names, a_hundred) {
        uint32_t *order = numbers_in_random_order(HUNDRED);
        BenchTimes tree = { { .n = 0 } }, bare = { { .n = 0 } };

        bench_pin(0, 0);
        open_house();
        for (size_t i = 0; i < HUNDRED; ++i)
                make_name(&deep, order[i]);
        compare_look_ups(&deep, order, HUNDRED, &tree, &bare);
        bench_row(&(BenchRow){ .name = "names-hundred", .what = "look-up among 100 names", .unit = "ns",
                               .figure = &tree.p50, .target = BENCH_AT_MOST(300),
                               .note = "three levels, with all access checks" });
        for (size_t i = 0; i < HUNDRED; ++i)
                remove_name(&deep, order[i]);
        close_house();
        free(order);
}
