/* daemon/core: a name moves with all that is below it and all that it costs, or not at all; a region
 * may have several. */

#include "daemon-house.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static House house;
static Account *root_account, *alice, *bob;

static void begin(void) {
        house_open(&house);
        root_account = house_account(&house, 0);
        alice = house_account(&house, ALICE);
        bob = house_account(&house, BOB);
}

static void end(void) {
        root_account = account_unref(root_account);
        alice = account_unref(alice);
        bob = account_unref(bob);
        house_close(&house);
}

static Directory *make_directory(const char *path) {
        return house_mkdir(&house, root_account, path, 0755);
}

static Node *node_at(const char *path) {
        return house_spot(&house, path).node;
}

static bool exists(const char *path) {
        Spot spot;

        return tree_find(&house.tree, &house_admin, path, strlen(path), &spot) == 0;
}

static int move_with(const char *from, const char *to, TreeRename how, Shortage *shortage) {
        Spot a = house_spot(&house, from), b = house_spot(&house, to);
        Region *replaced;
        int r;

        REQUIRE(a.node, "%s", from);
        r = tree_rename(&house.tree, &a, &b, how, shortage, &replaced);
        REQUIRE(!r || !replaced);
        if (replaced)
                region_lost_name(replaced);
        return r;
}

static int move(const char *from, const char *to, TreeRename how) {
        return move_with(from, to, how, NULL);
}

static int add_name(Region *region, const char *path, Shortage *shortage) {
        Spot spot = house_spot(&house, path);

        return region_link(region, &spot, shortage);
}

static void unlink_name(const char *path) {
        region_unlink_name(node_at(path));
}

/* What is named below a directory, in the words of its account. */
static bool costs(const char *path, uint64_t regions, uint64_t bytes) {
        const Account *account = node_directory(node_at(path))->account;

        return account->used[ACCOUNT_REGIONS] == regions && account->used[ACCOUNT_BYTES] == bytes;
}

/* Everything that is named, with all figures of the books: two of these are equal when nothing has changed. */
static void describe(char *text, size_t n_text) {
        Directory *root = house.tree.root;
        size_t n = 0;

        for (Node *node = tree_list_first(root); node; node = tree_list_next(root, &house_admin, true, node)) {
                char path[PATH_BYTES_MAX];
                size_t n_path = tree_path(node, path);
                const Account *payer = node->parent->account;
                const Account *account = node_is_directory(node) ? node_directory(node)->account : payer;

                n += (size_t)snprintf(text + n, n_text - n, "%.*s id %llu uses %llu/%llu place of %p\n",
                                      (int)n_path, path, node->region ? (unsigned long long)node->region->id : 0,
                                      (unsigned long long)account->used[ACCOUNT_REGIONS],
                                      (unsigned long long)account->used[ACCOUNT_BYTES],
                                      (const void *)payer);
                REQUIRE(n < n_text);
        }
        n += (size_t)snprintf(text + n, n_text - n, "root %llu/%llu pool %llu/%llu",
                              (unsigned long long)root->account->used[ACCOUNT_REGIONS],
                              (unsigned long long)root->account->used[ACCOUNT_BYTES],
                              (unsigned long long)house.accounts.pool.used[ACCOUNT_REGIONS],
                              (unsigned long long)house.accounts.pool.used[ACCOUNT_BYTES]);
        REQUIRE(n < n_text);
}

/* A move that is refused, and leaves everything as it was. */
static void expect_refused(const char *from, const char *to, TreeRename how, int error) {
        static char before[8192], after[8192];
        int r;

        describe(before, sizeof(before));
        r = move(from, to, how);
        REQUIRE(r == error, "%s to %s gave %d and not %d", from, to, r, error);
        describe(after, sizeof(after));
        REQUIRE(strcmp(before, after) == 0, "before:\n%s\nafter:\n%s", before, after);
}

/* A path of so many directories of one letter below base; each is made. */
static void make_levels(const char *base, unsigned int n, char path[PATH_BYTES_MAX + 1]) {
        (void)strcpy(path, base);
        while (n-- > 0)
                (void)make_directory(strcat(path, "/l"));
}

/* A component of n letters after base. */
static const char *long_name(const char *base, size_t n) {
        static char path[PATH_BYTES_MAX + 1];
        size_t n_base = strlen(base);

        REQUIRE(n_base + 1 + n < sizeof(path));
        memcpy(path, base, n_base);
        path[n_base] = '/';
        memset(path + n_base + 1, 'x', n);
        path[n_base + 1 + n] = '\0';
        return path;
}

/* -- names that move ---------------------------------------------------------------------- */

TEST(rename, a_region_moves_to_a_free_name_in_its_directory_or_another) {
        Region *region;

        begin();
        (void)make_directory("/d");
        region = house_named(&house, alice, "/a", 1);
        cr_assert_eq(move("/a", "/a-longer-name-than-before", TREE_RENAME_FREE), 0);
        cr_assert(!exists("/a") && node_at("/a-longer-name-than-before")->region == region);
        cr_assert_eq(move("/a-longer-name-than-before", "/d/b", TREE_RENAME_FREE), 0);
        cr_assert(!exists("/a-longer-name-than-before") && node_at("/d/b")->region == region);
        cr_assert_eq(move("/d/b", "/d/c", TREE_RENAME_REPLACE), 0);
        cr_assert(node_at("/d/c")->region == region && region_n_names(region) == 1 &&
                  region_name(region) == node_at("/d/c"));
        cr_assert_eq(region->state, REGION_STATE_NAMED);
        cr_assert_eq(house.regions.n_named, 1);
        end();
}

TEST(rename, a_list_has_the_moved_name_in_its_new_place) {
        char path[PATH_BYTES_MAX];
        Node *node;

        begin();
        (void)house_named(&house, alice, "/a", 1);
        (void)house_named(&house, alice, "/b", 1);
        (void)house_named(&house, alice, "/c", 1);
        cr_assert_eq(move("/a", "/bb", TREE_RENAME_FREE), 0);
        node = tree_list_first(house.tree.root);
        cr_assert(tree_path(node, path) == 2 && !memcmp(path, "/b", 2));
        node = tree_list_next(house.tree.root, &house_admin, true, node);
        cr_assert(tree_path(node, path) == 3 && !memcmp(path, "/bb", 3));
        node = tree_list_next(house.tree.root, &house_admin, true, node);
        cr_assert(tree_path(node, path) == 2 && !memcmp(path, "/c", 2));
        cr_assert_null(tree_list_next(house.tree.root, &house_admin, true, node));
        end();
}

/* -- whatever moves, everything is found where it is -------------------------------------- */

enum { THINGS = 48 };

/* What there is, by path, in a way that has nothing to do with the tree's. */
static struct {
        char path[PATH_BYTES_MAX + 1];  /* "": nothing */
        const Region *region;           /* NULL: a directory */
} things[THINGS];

static size_t thing_at(const char *path) {
        size_t i = 0;

        while (i < THINGS && strcmp(things[i].path, path))
                ++i;
        return i;
}

static bool is_in(const char *path, const char *directory) {
        size_t n = strlen(directory);

        return !strncmp(path, directory, n) && (path[n] == '/' || path[n] == '\0');
}

static void things_move(const char *from, const char *to) {
        for (size_t i = 0; i < THINGS; ++i) {
                char moved[sizeof(things[i].path)];

                if (!is_in(things[i].path, from))
                        continue;
                (void)snprintf(moved, sizeof(moved), "%s%s", to, things[i].path + strlen(from));
                (void)strcpy(things[i].path, moved);
        }
}

/* A path of at most three components, of which there are few. */
static void some_path(uint64_t *random, char path[128]) {
        static const char *const components[] = {
                "a", "b", "twenty-four-bytes-of-name", "more-than-twenty-four-bytes-of-a-name", "ab",
        };
        size_t n = 0;

        for (uint64_t depth = 1 + test_random(random, 3); depth > 0; --depth)
                n += (size_t)sprintf(path + n, "/%s", components[test_random(random, 5)]);
}

static void some_change(uint64_t *random) {
        const TreeRename how = test_random(random, 3) ? TREE_RENAME_FREE : TREE_RENAME_EXCHANGE;
        char from[128], to[128];
        size_t free = thing_at("");
        Spot spot;

        some_path(random, from);
        some_path(random, to);
        if (tree_resolve(&house.tree, &house_admin, from, strlen(from), &spot))
                return;
        if (!spot.node && free < THINGS) {
                bool directory = test_random(random, 2);

                if (directory)
                        (void)make_directory(from);
                things[free].region = directory ? NULL : house_named(&house, alice, from, 1);
                (void)strcpy(things[free].path, from);
        } else if (spot.node && test_random(random, 4) == 0) {
                if (node_is_directory(spot.node) && tree_rmdir(&house.tree, node_directory(spot.node)))
                        return;
                if (thing_at(from) < THINGS && things[thing_at(from)].region)
                        region_unlink_name(spot.node);
                *things[thing_at(from)].path = '\0';
        } else if (spot.node && tree_resolve(&house.tree, &house_admin, to, strlen(to), &spot) == 0 &&
                   strcmp(from, to) && move(from, to, how) == 0) {
                if (how == TREE_RENAME_EXCHANGE)
                        things_move(to, "/moving");
                things_move(from, to);
                if (how == TREE_RENAME_EXCHANGE)
                        things_move("/moving", from);
        }
}

/* That everything is found by its name, listed once, and in a table without two hashes that must be the same. */
static void expect_all_found(void) {
        const Directory *directories[THINGS];
        size_t n = 0, n_listed = 0, n_directories = 0;

        for (size_t i = 0; i < THINGS; ++i) {
                Spot spot;

                if (!*things[i].path)
                        continue;
                ++n;
                REQUIRE(tree_find(&house.tree, &house_admin, things[i].path, strlen(things[i].path), &spot) == 0 &&
                        spot.node->region == things[i].region, "%s", things[i].path);
                if (!things[i].region)
                        directories[n_directories++] = node_directory(spot.node);
        }
        for (Node *node = tree_list_first(house.tree.root); node;
             node = tree_list_next(house.tree.root, &house_admin, true, node)) {
                char path[PATH_BYTES_MAX + 1];

                path[tree_path(node, path)] = '\0';
                REQUIRE(thing_at(path) < THINGS, "%s is listed", path);
                ++n_listed;
        }
        REQUIRE(n == n_listed && n == house.tree.nodes.n, "%zu are there, %zu are listed", n, n_listed);
        for (size_t i = 0; i < n_directories; ++i)
                for (size_t k = 0; k < i; ++k)
                        REQUIRE(directories[i]->seed != directories[k]->seed);
}

TEST(rename, whatever_moves_everything_is_found_where_it_is) {
        uint64_t random = test_seed();

        begin();
        memset(things, 0, sizeof(things));
        for (size_t round = test_rounds(20000); round > 0; --round) {
                some_change(&random);
                if (round % 16 == 0)
                        expect_all_found();
        }
        end();
}

TEST(rename, directories_that_are_made_where_others_were_moved_away_share_no_hash) {
        enum { N = 100 };
        uint64_t seeds[N];
        uint32_t hashes[N];
        char old[32];

        begin();
        for (size_t i = 0; i < N; ++i) {
                (void)make_directory("/a");
                (void)house_named(&house, alice, "/a/x", 1);
                hashes[i] = node_at("/a/x")->hash;
                /* Two hashes of 32 bits may be the same by chance; what they are made of is not. */
                seeds[i] = node_directory(node_at("/a"))->seed;
                for (size_t k = 0; k < i; ++k)
                        cr_assert_neq(seeds[i], seeds[k]);
                (void)snprintf(old, sizeof(old), "/old-%zu", i);
                cr_assert_eq(move("/a", old, TREE_RENAME_FREE), 0);
                (void)snprintf(old, sizeof(old), "/old-%zu/x", i);
                cr_assert(exists(old) && node_at(old)->hash == hashes[i]);
        }

        /* Once they have gone, or are back, hashes are those of the paths again. */
        for (size_t i = 1; i < N; ++i) {
                (void)snprintf(old, sizeof(old), "/old-%zu/x", i);
                unlink_name(old);
                (void)snprintf(old, sizeof(old), "/old-%zu", i);
                cr_assert_eq(tree_rmdir(&house.tree, node_directory(node_at(old))), 0);
        }
        cr_assert_eq(move("/old-0", "/a", TREE_RENAME_FREE), 0);
        cr_assert(RB_EMPTY(&house.tree.astray));
        cr_assert_eq(node_at("/a/x")->hash, hashes[0]);
        end();
}

TEST(rename, an_empty_directory_that_changes_places_does_not_get_the_hashes_of_the_other) {
        begin();
        for (int i = 0; i < 2; ++i) {
                const char *full = i ? "/full-1" : "/full-0", *empty = i ? "/empty-1" : "/empty-0";
                char of_full[32], of_empty[32];

                (void)snprintf(of_full, sizeof(of_full), "%s/x", empty);
                (void)snprintf(of_empty, sizeof(of_empty), "%s/x", full);
                (void)make_directory(empty);
                (void)make_directory(full);
                (void)house_named(&house, alice, i ? "/full-1/x" : "/full-0/x", 1);
                cr_assert_eq(i ? move(full, empty, TREE_RENAME_EXCHANGE) : move(empty, full, TREE_RENAME_EXCHANGE), 0);
                (void)house_named(&house, alice, of_empty, 1);
                cr_assert_neq(node_at(of_empty)->hash, node_at(of_full)->hash);
        }
        end();
}

TEST(rename, an_empty_directory_that_moves_leaves_no_trace) {
        begin();
        (void)make_directory("/a");
        cr_assert_eq(move("/a", "/b", TREE_RENAME_FREE), 0);
        cr_assert(RB_EMPTY(&house.tree.astray));
        (void)make_directory("/a");
        (void)house_named(&house, alice, "/a/x", 1);
        (void)house_named(&house, alice, "/b/x", 1);
        cr_assert_neq(node_at("/a/x")->hash, node_at("/b/x")->hash);
        end();
}

TEST(rename, a_taken_name_is_not_taken_over_unless_that_is_asked_for) {
        begin();
        (void)make_directory("/d");
        (void)make_directory("/e");
        (void)house_named(&house, alice, "/a", 1);
        (void)house_named(&house, alice, "/b", 1);
        expect_refused("/a", "/b", TREE_RENAME_FREE, TREE_E_EXISTS);
        expect_refused("/a", "/d", TREE_RENAME_FREE, TREE_E_EXISTS);
        expect_refused("/d", "/e", TREE_RENAME_FREE, TREE_E_EXISTS);
        end();
}

TEST(rename, a_replaced_region_lives_as_long_as_it_is_held) {
        Region *old, *new;
        int fd;

        begin();
        old = house_named(&house, alice, "/old", 5000);
        new = house_named(&house, bob, "/new", 1);
        fd = house_hold(old, true);
        cr_assert_eq(move("/new", "/old", TREE_RENAME_REPLACE), 0);
        cr_assert(!exists("/new") && node_at("/old")->region == new);
        cr_assert(old->state == REGION_STATE_ORPHAN && region_n_names(old) == 0 && !region_name(old));
        cr_assert(house.regions.n_named == 1 && house.regions.n_orphans == 1);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 8192);
        (void)close(fd);
        house_until(&house, house.regions.n == 1);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0);
        end();
}

TEST(rename, to_itself_is_nothing) {
        static char before[4096], after[4096];
        Region *region;

        begin();
        (void)make_directory("/d");
        region = house_named(&house, alice, "/d/a", 1);
        cr_assert_eq(add_name(region, "/d/b", NULL), 0);
        describe(before, sizeof(before));
        for (TreeRename how = TREE_RENAME_FREE; how <= TREE_RENAME_EXCHANGE; ++how) {
                cr_assert_eq(move("/d", "/d", how), 0);
                cr_assert_eq(move("/d/a", "/d/a", how), 0);
        }
        /* As rename(2) has it: two names of one thing. */
        cr_assert_eq(move("/d/a", "/d/b", TREE_RENAME_REPLACE), 0);
        cr_assert_eq(move("/d/a", "/d/b", TREE_RENAME_EXCHANGE), 0);
        describe(after, sizeof(after));
        cr_assert_str_eq(before, after);
        expect_refused("/d/a", "/d/b", TREE_RENAME_FREE, TREE_E_EXISTS);
        end();
}

TEST(rename, the_root_does_not_move) {
        begin();
        (void)make_directory("/d");
        for (TreeRename how = TREE_RENAME_FREE; how <= TREE_RENAME_EXCHANGE; ++how) {
                expect_refused("/", "/x", how, TREE_E_ROOT);
                expect_refused("/", "/d", how, TREE_E_ROOT);
                expect_refused("/d", "/", how, TREE_E_ROOT);
                expect_refused("/", "/", how, TREE_E_ROOT);
        }
        end();
}

/* -- directories ---------------------------------------------------------------------------- */

TEST(rename, a_directory_moves_with_all_that_is_in_it) {
        Region *region, *deep;

        begin();
        (void)make_directory("/d");
        (void)make_directory("/d/e");
        (void)make_directory("/other");
        region = house_named(&house, alice, "/d/r", 1);
        deep = house_named(&house, alice, "/d/e/r", 1);
        cr_assert_eq(move("/d", "/other/moved", TREE_RENAME_FREE), 0);
        cr_assert(!exists("/d") && !exists("/d/r") && exists("/other/moved/e"));
        cr_assert(node_at("/other/moved/r")->region == region && node_at("/other/moved/e/r")->region == deep);
        cr_assert_eq(house.tree.n_directories, 4);
        end();
}

TEST(rename, a_directory_never_gets_below_itself) {
        begin();
        (void)make_directory("/d");
        (void)make_directory("/d/e");
        (void)make_directory("/d/e/f");
        (void)house_named(&house, alice, "/d/e/r", 1);
        for (TreeRename how = TREE_RENAME_FREE; how <= TREE_RENAME_REPLACE; ++how) {
                expect_refused("/d", "/d/x", how, TREE_E_INSIDE);
                expect_refused("/d", "/d/e/x", how, TREE_E_INSIDE);
                expect_refused("/d/e", "/d/e/f/x", how, TREE_E_INSIDE);
        }
        expect_refused("/d", "/d/e/f", TREE_RENAME_REPLACE, TREE_E_INSIDE);
        expect_refused("/d", "/d/e/f", TREE_RENAME_EXCHANGE, TREE_E_INSIDE);
        expect_refused("/d/e/f", "/d", TREE_RENAME_EXCHANGE, TREE_E_INSIDE);
        expect_refused("/d/e/r", "/d", TREE_RENAME_EXCHANGE, TREE_E_INSIDE);
        expect_refused("/d", "/d/e/r", TREE_RENAME_EXCHANGE, TREE_E_INSIDE);
        /* Up is fine, and so is a name that only begins alike. */
        cr_assert_eq(move("/d/e", "/e", TREE_RENAME_FREE), 0);
        cr_assert_eq(move("/d", "/e/d", TREE_RENAME_FREE), 0);
        (void)make_directory("/e-2");
        cr_assert_eq(move("/e", "/e-2/e", TREE_RENAME_FREE), 0);
        cr_assert(exists("/e-2/e/f") && exists("/e-2/e/d"));
        end();
}

TEST(rename, only_an_empty_directory_is_replaced_and_only_by_a_directory) {
        begin();
        (void)make_directory("/d");
        (void)make_directory("/full");
        (void)make_directory("/empty");
        (void)house_named(&house, alice, "/full/r", 1);
        (void)house_named(&house, alice, "/d/r", 1);
        (void)house_named(&house, alice, "/r", 1);
        expect_refused("/d", "/full", TREE_RENAME_REPLACE, TREE_E_NOT_EMPTY);
        expect_refused("/empty", "/full", TREE_RENAME_REPLACE, TREE_E_NOT_EMPTY);
        expect_refused("/d/r", "/d", TREE_RENAME_REPLACE, TREE_E_IS_DIRECTORY);
        expect_refused("/r", "/empty", TREE_RENAME_REPLACE, TREE_E_IS_DIRECTORY);
        expect_refused("/empty", "/r", TREE_RENAME_REPLACE, TREE_E_NOT_DIRECTORY);
        cr_assert_eq(move("/d", "/empty", TREE_RENAME_REPLACE), 0);
        cr_assert(exists("/empty/r") && !exists("/d"));
        cr_assert_eq(house.tree.n_directories, 3);
        cr_assert_eq(root_account->used[ACCOUNT_REGIONS], 2);
        end();
}

TEST(rename, two_names_of_any_kind_change_places) {
        Region *a, *b;

        begin();
        (void)make_directory("/d");
        (void)make_directory("/d/inner");
        a = house_named(&house, alice, "/a", 1);
        b = house_named(&house, bob, "/d/b", 5000);
        expect_refused("/a", "/d/none", TREE_RENAME_EXCHANGE, TREE_E_MISSING);
        cr_assert_eq(move("/a", "/d/b", TREE_RENAME_EXCHANGE), 0);
        cr_assert(node_at("/a")->region == b && node_at("/d/b")->region == a);
        cr_assert(costs("/d", 2, 4096));
        cr_assert_eq(move("/a", "/d/inner", TREE_RENAME_EXCHANGE), 0);
        cr_assert(node_is_directory(node_at("/a")) && node_at("/d/inner")->region == b);
        cr_assert(costs("/d", 2, 4096 + 8192));
        cr_assert_eq(move("/a", "/d", TREE_RENAME_EXCHANGE), 0);
        cr_assert(node_at("/a/inner")->region == b && costs("/d", 0, 0) && costs("/a", 2, 4096 + 8192));
        end();
}

/* -- how deep and how long ------------------------------------------------------------------- */

TEST(rename, no_path_gets_deeper_than_paths_may_be) {
        char path[PATH_BYTES_MAX + 1], to[PATH_BYTES_MAX + 1];

        begin();
        (void)make_directory("/d");
        make_levels("/d", 5, path);                     /* six levels */
        (void)make_directory("/t");
        make_levels("/t", PATH_DEPTH_MAX - 6, to);      /* eleven */
        expect_refused("/d", strcat(to, "/d"), TREE_RENAME_FREE, TREE_E_TOO_LONG);
        to[strlen(to) - 4] = '\0';
        cr_assert_eq(move("/d", strcat(to, "/d"), TREE_RENAME_FREE), 0);
        (void)strcat(to, "/l/l/l/l/l");
        cr_assert(exists(to));
        end();
}

TEST(rename, no_path_gets_longer_than_paths_may_be) {
        char deep[PATH_BYTES_MAX + 1];

        begin();
        (void)make_directory("/d");
        (void)strcpy(deep, "/d");
        for (int i = 0; i < 3; ++i) {
                const char *next = long_name(deep, 255);

                (void)strcpy(deep, next);
                (void)make_directory(deep);
        }
        /* Below /d it is 779 bytes to the end: 244 are left for a slash and a name. */
        (void)house_named(&house, alice, long_name(deep, 10), 1);
        cr_assert_eq(strlen(deep), 2 + 3 * 256);
        expect_refused("/d", long_name("", 244), TREE_RENAME_FREE, TREE_E_TOO_LONG);
        cr_assert_eq(move("/d", long_name("", 243), TREE_RENAME_FREE), 0);
        cr_assert(exists(long_name("", 243)));
        end();
}

TEST(rename, what_was_deep_once_does_not_count) {
        char path[PATH_BYTES_MAX + 1], to[PATH_BYTES_MAX + 1];

        begin();
        (void)make_directory("/d");
        make_levels("/d", 10, path);
        for (int i = 0; i < 10; ++i) {
                cr_assert_eq(tree_rmdir(&house.tree, node_directory(node_at(path))), 0);
                path[strlen(path) - 2] = '\0';
        }
        cr_assert_eq(node_directory(node_at("/d"))->levels, 10);
        (void)make_directory("/t");
        make_levels("/t", PATH_DEPTH_MAX - 2, to);
        cr_assert_eq(move("/d", strcat(to, "/d"), TREE_RENAME_FREE), 0);
        cr_assert_eq(node_directory(node_at(to))->levels, 0);
        end();
}

/* A directory that was measured may have lower bounds than one in it. What is made below that one
 * counts for both. */
TEST(rename, a_measured_directory_still_learns_what_is_made_deep_below_it) {
        char to[PATH_BYTES_MAX + 1];

        begin();
        (void)make_directory("/d");
        (void)make_directory("/d/l");
        (void)make_directory("/d/l/l");
        (void)make_directory("/d/l/l/l");
        cr_assert_eq(tree_rmdir(&house.tree, node_directory(node_at("/d/l/l/l"))), 0);
        cr_assert_eq(tree_rmdir(&house.tree, node_directory(node_at("/d/l/l"))), 0);
        (void)make_directory("/t");
        make_levels("/t", PATH_DEPTH_MAX - 3, to);
        cr_assert_eq(move("/d", strcat(to, "/d"), TREE_RENAME_FREE), 0);        /* it fits exactly: measured */
        cr_assert_eq(node_directory(node_at(to))->levels, 1);
        cr_assert_eq(move(to, "/d", TREE_RENAME_FREE), 0);
        cr_assert_eq(node_directory(node_at("/d/l"))->levels, 2);
        (void)make_directory("/d/l/l");
        cr_assert_geq(node_directory(node_at("/d"))->levels, 2);
        expect_refused("/d", to, TREE_RENAME_FREE, TREE_E_TOO_LONG);
        end();
}

TEST(rename, both_halves_of_an_exchange_must_fit) {
        char path[PATH_BYTES_MAX + 1], to[PATH_BYTES_MAX + 1];

        begin();
        (void)make_directory("/d");
        make_levels("/d", 1, path);
        (void)make_directory("/t");
        make_levels("/t", PATH_DEPTH_MAX - 1, to);
        expect_refused("/d", to, TREE_RENAME_EXCHANGE, TREE_E_TOO_LONG);
        expect_refused(to, "/d", TREE_RENAME_EXCHANGE, TREE_E_TOO_LONG);
        to[strlen(to) - 2] = '\0';
        cr_assert_eq(move("/d", to, TREE_RENAME_EXCHANGE), 0);
        cr_assert(exists("/d/l") && exists(strcat(to, "/l")));
        end();
}

/* -- what it costs --------------------------------------------------------------------------- */

TEST(rename, what_a_directory_holds_is_charged_where_it_goes) {
        begin();
        (void)make_directory("/a");
        (void)make_directory("/a/common");
        (void)make_directory("/a/x");
        (void)make_directory("/a/y");
        (void)make_directory("/a/x/d");
        (void)house_named(&house, alice, "/a/x/d/r", 5000);
        (void)house_named(&house, alice, "/a/x/s", 1);
        cr_assert(costs("/a/x", 3, 8192 + 4096) && costs("/a/y", 0, 0) && costs("/a", 6, 12288));
        cr_assert_eq(move("/a/x/d", "/a/y/d", TREE_RENAME_FREE), 0);
        cr_assert(costs("/a/x", 1, 4096) && costs("/a/y", 2, 8192) && costs("/a/y/d", 1, 8192));
        cr_assert(costs("/a", 6, 12288));
        cr_assert_eq(move("/a/y", "/y", TREE_RENAME_FREE), 0);
        cr_assert(costs("/a", 3, 4096) && costs("/y", 2, 8192) && costs("/", 7, 12288));
        cr_assert_eq(move("/a/x/s", "/y/d/s", TREE_RENAME_FREE), 0);
        cr_assert(costs("/a/x", 0, 0) && costs("/a", 2, 0) && costs("/y", 3, 12288) && costs("/y/d", 2, 12288));
        /* The owner pays what he paid, wherever it is. */
        cr_assert(alice->used[ACCOUNT_BYTES] == 12288 && alice->used[ACCOUNT_REGIONS] == 2);
        end();
}

TEST(rename, a_limit_on_the_way_refuses_the_whole_and_changes_nothing) {
        Shortage shortage;
        Directory *limited;

        begin();
        limited = make_directory("/limited");
        (void)make_directory("/limited/in");
        (void)make_directory("/d");
        (void)house_named(&house, alice, "/d/1", 4096);
        (void)house_named(&house, alice, "/d/2", 4096);
        limited->account->max[ACCOUNT_BYTES] = 8191;
        expect_refused("/d", "/limited/in/d", TREE_RENAME_FREE, TREE_E_QUOTA);
        cr_assert_eq(move_with("/d", "/limited/in/d", TREE_RENAME_FREE, &shortage), TREE_E_QUOTA);
        cr_assert(shortage.kind == ACCOUNT_DIRECTORY && shortage.slot == ACCOUNT_BYTES);
        cr_assert(shortage.asked == 8192 && shortage.left == 8191 && shortage.limit == 8191);
        limited->account->max[ACCOUNT_BYTES] = 8192;
        limited->account->max[ACCOUNT_REGIONS] = 3;
        expect_refused("/d", "/limited/in/d", TREE_RENAME_FREE, TREE_E_QUOTA);
        limited->account->max[ACCOUNT_REGIONS] = 4;
        cr_assert_eq(move("/d", "/limited/in/d", TREE_RENAME_FREE), 0);
        cr_assert(costs("/limited", 4, 8192) && costs("/limited/in", 3, 8192));
        end();
}

TEST(rename, a_full_directory_does_not_mind_what_stays_in_it) {
        Directory *limited;

        begin();
        limited = make_directory("/limited");
        (void)make_directory("/limited/a");
        (void)make_directory("/limited/b");
        (void)house_named(&house, alice, "/limited/a/r", 4096);
        (void)house_named(&house, alice, "/limited/b/r", 4096);
        limited->account->max[ACCOUNT_BYTES] = 8192;
        limited->account->max[ACCOUNT_REGIONS] = 4;
        cr_assert_eq(move("/limited/a/r", "/limited/b/s", TREE_RENAME_FREE), 0);
        cr_assert_eq(move("/limited/a", "/limited/b/a", TREE_RENAME_FREE), 0);
        cr_assert(costs("/limited", 4, 8192) && costs("/limited/b", 3, 8192));
        end();
}

TEST(rename, what_is_replaced_leaves_its_room) {
        Directory *limited;

        begin();
        limited = make_directory("/limited");
        (void)make_directory("/limited/empty");
        (void)make_directory("/d");
        (void)house_named(&house, alice, "/limited/r", 8192);
        (void)house_named(&house, alice, "/small", 4096);
        (void)house_named(&house, alice, "/same", 8192);
        (void)house_named(&house, alice, "/big", 8193);
        limited->account->max[ACCOUNT_BYTES] = 8192;
        limited->account->max[ACCOUNT_REGIONS] = 2;
        expect_refused("/same", "/limited/s", TREE_RENAME_REPLACE, TREE_E_QUOTA);
        expect_refused("/big", "/limited/r", TREE_RENAME_REPLACE, TREE_E_QUOTA);
        cr_assert_eq(move("/same", "/limited/r", TREE_RENAME_REPLACE), 0);
        cr_assert(costs("/limited", 2, 8192));
        cr_assert_eq(move("/small", "/limited/r", TREE_RENAME_REPLACE), 0);
        cr_assert(costs("/limited", 2, 4096));
        cr_assert_eq(move("/d", "/limited/empty", TREE_RENAME_REPLACE), 0);
        cr_assert(costs("/limited", 2, 4096));
        end();
}

TEST(rename, two_full_directories_exchange_what_is_as_large) {
        Directory *a, *b;

        begin();
        a = make_directory("/a");
        b = make_directory("/b");
        (void)make_directory("/a/d");
        (void)house_named(&house, alice, "/a/d/r", 8192);
        (void)house_named(&house, bob, "/b/r", 8192);
        (void)house_named(&house, bob, "/b/s", 1);
        a->account->max[ACCOUNT_BYTES] = b->account->max[ACCOUNT_BYTES] = 12288;
        a->account->max[ACCOUNT_REGIONS] = 2;
        b->account->max[ACCOUNT_REGIONS] = 2;
        expect_refused("/a/d", "/b/r", TREE_RENAME_EXCHANGE, TREE_E_QUOTA);     /* three regions in b */
        expect_refused("/b/r", "/a/d", TREE_RENAME_EXCHANGE, TREE_E_QUOTA);
        cr_assert_eq(move("/a/d/r", "/b/r", TREE_RENAME_EXCHANGE), 0);
        cr_assert(costs("/a", 2, 8192) && costs("/a/d", 1, 8192) && costs("/b", 2, 12288));
        b->account->max[ACCOUNT_REGIONS] = 3;
        cr_assert_eq(move("/a/d", "/b/r", TREE_RENAME_EXCHANGE), 0);
        cr_assert(costs("/a", 1, 8192) && costs("/b", 3, 12288) && costs("/b/r", 1, 8192));
        end();
}

TEST(rename, an_exchange_one_half_of_which_does_not_fit_changes_nothing) {
        Directory *a, *b;

        begin();
        a = make_directory("/a");
        b = make_directory("/b");
        (void)house_named(&house, alice, "/a/r", 4096);
        (void)house_named(&house, bob, "/b/r", 8192);
        a->account->max[ACCOUNT_BYTES] = 4096;
        expect_refused("/a/r", "/b/r", TREE_RENAME_EXCHANGE, TREE_E_QUOTA);
        expect_refused("/b/r", "/a/r", TREE_RENAME_EXCHANGE, TREE_E_QUOTA);
        a->account->max[ACCOUNT_BYTES] = 8192;
        b->account->max[ACCOUNT_BYTES] = 4096;
        cr_assert_eq(move("/a/r", "/b/r", TREE_RENAME_EXCHANGE), 0);
        cr_assert(costs("/a", 1, 8192) && costs("/b", 1, 4096));
        end();
}

/* -- several names of one region --------------------------------------------------------------- */

TEST(rename, a_region_with_several_names_goes_with_the_last) {
        Region *region;

        begin();
        (void)make_directory("/d");
        region = house_named(&house, alice, "/a", 4096);
        cr_assert_eq(add_name(region, "/b", NULL), 0);
        cr_assert_eq(add_name(region, "/d/c", NULL), 0);
        cr_assert(region_n_names(region) == 3 && house.regions.n_named == 1);
        cr_assert(node_at("/b")->region == region && node_at("/d/c")->region == region);
        unlink_name("/a");
        cr_assert(region_n_names(region) == 2 && region->state == REGION_STATE_NAMED &&
                  region_name(region) == node_at("/b"));
        unlink_name("/d/c");
        cr_assert(region_n_names(region) == 1 && region->state == REGION_STATE_NAMED && !exists("/a"));
        unlink_name("/b");
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(house.regions.n_named, 0);
        end();
}

TEST(rename, a_held_region_without_a_name_is_an_orphan_and_can_have_one_again) {
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/a", 4096);
        cr_assert_eq(add_name(region, "/b", NULL), 0);
        fd = house_hold(region, true);
        region_unlink(region);
        cr_assert(region_n_names(region) == 0 && region->state == REGION_STATE_ORPHAN &&
                  !exists("/a") && !exists("/b"));
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 1);
        cr_assert_eq(add_name(region, "/c", NULL), 0);
        cr_assert(region->state == REGION_STATE_NAMED && region_n_names(region) == 1 && house.regions.n_orphans == 0);
        (void)close(fd);
        end();
}

TEST(rename, each_name_costs_its_directories_the_whole_region) {
        Region *region;
        Directory *d;

        begin();
        d = make_directory("/d");
        (void)make_directory("/e");
        region = house_named(&house, alice, "/d/1", 4096);
        d->account->max[ACCOUNT_BYTES] = 8192;
        cr_assert_eq(add_name(region, "/d/2", NULL), 0);
        cr_assert_eq(add_name(region, "/d/3", NULL), REGION_E_QUOTA);
        cr_assert(region_n_names(region) == 2 && alice->used[ACCOUNT_REGIONS] == 2);
        cr_assert_eq(add_name(region, "/e/3", NULL), 0);
        cr_assert(costs("/d", 2, 8192) && costs("/e", 1, 4096) && costs("/", 5, 12288));
        cr_assert_eq(move("/d/2", "/e/2", TREE_RENAME_FREE), 0);
        cr_assert(costs("/d", 1, 4096) && costs("/e", 2, 8192));
        end();
}

TEST(rename, each_name_beyond_the_first_costs_the_owner_a_region_and_no_bytes) {
        Region *region;
        Shortage shortage;

        begin();
        region = house_named(&house, alice, "/1", 4096);
        alice->max[ACCOUNT_REGIONS] = 3;
        cr_assert_eq(add_name(region, "/2", NULL), 0);
        cr_assert_eq(add_name(region, "/3", NULL), 0);
        cr_assert(alice->used[ACCOUNT_REGIONS] == 3 && alice->used[ACCOUNT_BYTES] == 4096);
        cr_assert_eq(add_name(region, "/4", &shortage), REGION_E_QUOTA);
        cr_assert(shortage.kind == ACCOUNT_USER && shortage.uid == ALICE && shortage.slot == ACCOUNT_REGIONS);
        cr_assert(!exists("/4") && region_n_names(region) == 3 && alice->used[ACCOUNT_REGIONS] == 3);
        unlink_name("/1");
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 2);
        cr_assert_eq(add_name(region, "/4", NULL), 0);

        /* They go to another owner together or not at all. */
        bob->max[ACCOUNT_REGIONS] = 2;
        cr_assert_eq(region_chown(region, bob, NULL), REGION_E_QUOTA);
        cr_assert(alice->used[ACCOUNT_REGIONS] == 3 && bob->used[ACCOUNT_REGIONS] == 0);
        bob->max[ACCOUNT_REGIONS] = 3;
        cr_assert_eq(region_chown(region, bob, NULL), 0);
        cr_assert(alice->used[ACCOUNT_REGIONS] == 0 && bob->used[ACCOUNT_REGIONS] == 3);
        cr_assert_eq(bob->used[ACCOUNT_BYTES], 4096);
        unlink_name("/3");
        unlink_name("/4");
        cr_assert(bob->used[ACCOUNT_REGIONS] == 1 && region_charged(region) == 4096);
        end();
}

TEST(rename, a_name_taken_over_leaves_the_others) {
        Region *old, *new;

        begin();
        (void)make_directory("/d");
        old = house_named(&house, alice, "/a", 4096);
        cr_assert_eq(add_name(old, "/d/b", NULL), 0);
        new = house_named(&house, bob, "/new", 8192);
        cr_assert_eq(move("/new", "/d/b", TREE_RENAME_REPLACE), 0);
        cr_assert(region_n_names(old) == 1 && node_at("/a")->region == old && node_at("/d/b")->region == new);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 1);
        cr_assert(costs("/d", 1, 8192));

        new = house_region(&house, bob, 1);
        cr_assert_eq(add_name(new, "/a", NULL), 0);
        cr_assert_eq(node_at("/a")->region, new);
        house_until(&house, house.regions.n == 2);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 0);
        end();
}

/* -- accounts ------------------------------------------------------------------------------ */

static void new_accounts(Account *accounts[], size_t n, Account *parent) {
        for (size_t i = 0; i < n; ++i)
                REQUIRE(account_new_directory(&accounts[i], parent) == 0);
}

static void free_accounts(Account *accounts[], size_t n) {
        while (n-- > 0)
                accounts[n] = account_unref(accounts[n]);
}

static const Cost five = { .slots = { [ACCOUNT_BYTES] = 5, [ACCOUNT_REGIONS] = 1 } };
static const Cost seven = { .slots = { [ACCOUNT_BYTES] = 7, [ACCOUNT_REGIONS] = 1 } };

TEST(rename, a_charge_that_moves_asks_no_account_that_paid_already) {
        Account *top[1], *below[2];
        Charge charge = CHARGE_NULL;
        Shortage shortage;

        new_accounts(top, 1, NULL);
        new_accounts(below, 2, top[0]);
        cr_assert_eq(account_charge(below[0], &five, &charge, NULL), 0);
        top[0]->max[ACCOUNT_BYTES] = 5;
        below[1]->max[ACCOUNT_BYTES] = 4;
        cr_assert_eq(charge_move(&charge, below[1], &shortage), ACCOUNT_E_QUOTA);
        cr_assert(shortage.asked == 5 && shortage.left == 4 && charge.account == below[0]);
        cr_assert(below[0]->used[ACCOUNT_BYTES] == 5 && below[1]->used[ACCOUNT_BYTES] == 0);
        below[1]->max[ACCOUNT_BYTES] = 5;
        cr_assert_eq(charge_move(&charge, below[1], &shortage), 0);
        cr_assert(below[0]->used[ACCOUNT_BYTES] == 0 && below[1]->used[ACCOUNT_BYTES] == 5);
        cr_assert(top[0]->used[ACCOUNT_BYTES] == 5 && charge.account == below[1]);
        cr_assert_eq(charge_move(&charge, top[0], &shortage), 0);
        cr_assert(below[1]->used[ACCOUNT_BYTES] == 0 && top[0]->used[ACCOUNT_BYTES] == 5);
        cr_assert_eq(charge_move(&charge, top[0], &shortage), 0);
        charge_release(&charge);
        free_accounts(below, 2);
        free_accounts(top, 1);
}

TEST(rename, a_load_moves_with_all_that_its_account_was_charged) {
        Account *top[1], *below[3], *inner[1];
        Charge place = CHARGE_NULL, held = CHARGE_NULL, instead = CHARGE_NULL;
        Load load;

        new_accounts(top, 1, NULL);
        new_accounts(below, 3, top[0]);
        new_accounts(inner, 1, below[0]);
        cr_assert_eq(account_charge(inner[0], &five, &held, NULL), 0);
        cr_assert_eq(account_charge(below[0], &seven, &place, NULL), 0);
        cr_assert_eq(account_charge(below[1], &five, &instead, NULL), 0);
        load = (Load){ .charge = &place, .account = inner[0] };

        top[0]->max[ACCOUNT_BYTES] = 17;
        below[1]->max[ACCOUNT_BYTES] = 12;
        cr_assert_eq(load_move(&load, below[1], NULL, NULL), ACCOUNT_E_QUOTA);
        below[1]->max[ACCOUNT_BYTES] = 11;
        cr_assert_eq(load_move(&load, below[1], &instead, NULL), ACCOUNT_E_QUOTA);
        cr_assert(instead.account == below[1] && inner[0]->parent == below[0] && place.account == below[0]);
        cr_assert(below[0]->used[ACCOUNT_BYTES] == 12 && below[1]->used[ACCOUNT_BYTES] == 5);
        cr_assert_eq(top[0]->used[ACCOUNT_BYTES], 17);
        below[1]->max[ACCOUNT_BYTES] = 12;
        cr_assert_eq(load_move(&load, below[1], &instead, NULL), 0);
        cr_assert(!instead.account && inner[0]->parent == below[1] && place.account == below[1]);
        cr_assert(below[0]->used[ACCOUNT_BYTES] == 0 && below[1]->used[ACCOUNT_BYTES] == 12);
        cr_assert(top[0]->used[ACCOUNT_BYTES] == 12 && inner[0]->used[ACCOUNT_BYTES] == 5);

        /* Where it is already, what goes instead goes all the same. */
        below[1]->max[ACCOUNT_BYTES] = 17;
        cr_assert_eq(account_charge(below[1], &five, &instead, NULL), 0);
        cr_assert_eq(load_move(&load, below[1], &instead, NULL), 0);
        cr_assert(!instead.account && below[1]->used[ACCOUNT_BYTES] == 12);

        charge_release(&held);
        charge_release(&place);
        cr_assert_eq(top[0]->used[ACCOUNT_BYTES], 0);
        free_accounts(inner, 1);
        free_accounts(below, 3);
        free_accounts(top, 1);
}

TEST(rename, loads_are_exchanged_both_or_neither) {
        Account *top[1], *below[2];
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Load load_a = { .charge = &a }, load_b = { .charge = &b };
        Shortage shortage;

        new_accounts(top, 1, NULL);
        new_accounts(below, 2, top[0]);
        cr_assert_eq(account_charge(below[0], &five, &a, NULL), 0);
        cr_assert_eq(account_charge(below[1], &seven, &b, NULL), 0);
        top[0]->max[ACCOUNT_BYTES] = 12;
        below[0]->max[ACCOUNT_BYTES] = 6;
        below[1]->max[ACCOUNT_BYTES] = 7;
        for (int i = 0; i < 2; ++i) {
                cr_assert_eq(load_exchange(i ? &load_b : &load_a, i ? &load_a : &load_b, &shortage), ACCOUNT_E_QUOTA);
                cr_assert(shortage.asked == 7 && shortage.left == 6);
                cr_assert(below[0]->used[ACCOUNT_BYTES] == 5 && below[1]->used[ACCOUNT_BYTES] == 7);
                cr_assert(a.account == below[0] && b.account == below[1] && top[0]->used[ACCOUNT_BYTES] == 12);
        }
        below[0]->max[ACCOUNT_BYTES] = 7;
        cr_assert_eq(load_exchange(&load_a, &load_b, &shortage), 0);
        cr_assert(below[0]->used[ACCOUNT_BYTES] == 7 && below[1]->used[ACCOUNT_BYTES] == 5);
        cr_assert(a.account == below[1] && b.account == below[0] && top[0]->used[ACCOUNT_BYTES] == 12);
        charge_release(&a);
        charge_release(&b);
        free_accounts(below, 2);
        free_accounts(top, 1);
}

TEST(rename, a_charge_that_changes_is_measured_without_what_it_was) {
        Account *account[1];
        Charge charge = CHARGE_NULL;

        new_accounts(account, 1, NULL);
        cr_assert_eq(account_charge(account[0], &five, &charge, NULL), 0);
        account[0]->max[ACCOUNT_BYTES] = 6;
        cr_assert_eq(charge_change(&charge, &seven, NULL), ACCOUNT_E_QUOTA);
        cr_assert(account[0]->used[ACCOUNT_BYTES] == 5 && charge.bytes == 5);
        account[0]->max[ACCOUNT_BYTES] = 7;
        cr_assert_eq(charge_change(&charge, &seven, NULL), 0);
        cr_assert(account[0]->used[ACCOUNT_BYTES] == 7 && account[0]->used[ACCOUNT_REGIONS] == 1);
        charge_shrink(&charge, &five);
        cr_assert(account[0]->used[ACCOUNT_BYTES] == 2 && account[0]->used[ACCOUNT_REGIONS] == 0);
        charge_release(&charge);
        cr_assert_eq(account[0]->used[ACCOUNT_BYTES], 0);
        free_accounts(account, 1);
}
