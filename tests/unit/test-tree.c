/* daemon/core/tree: names like a file system's, and nobody learns what they may not search. */

#include "daemon-house.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define N(text) (text), strlen(text)

static House house;
static Account *root_account, *alice;

static void begin(void) {
        house_open(&house);
        root_account = house_account(&house, 0);
        alice = house_account(&house, ALICE);
}

static void end(void) {
        root_account = account_unref(root_account);
        alice = account_unref(alice);
        house_close(&house);
}

static int find(uid_t uid, const char *path, Spot *spot) {
        Credentials who = house_who(uid);

        return tree_find(&house.tree, &who, N(path), spot);
}

static int resolve(uid_t uid, const char *path, Spot *spot) {
        Credentials who = house_who(uid);

        return tree_resolve(&house.tree, &who, N(path), spot);
}

static const char *path_of(const Node *node) {
        static char path[PATH_BYTES_MAX + 1];

        path[tree_path(node, path)] = '\0';
        return path;
}

/* The list from a node on, "/a /a/b " */
static const char *listed(const char *base, uid_t uid, bool recursive, Node *node) {
        Credentials who = house_who(uid);
        static char text[4096];

        text[0] = '\0';
        for (; node; node = tree_list_next(node_directory(house_spot(&house, base).node), &who, recursive, node)) {
                REQUIRE(strlen(text) < 4000);
                (void)strcat(strcat(text, path_of(node)), " ");
        }
        return text;
}

static const char *list(const char *base, uid_t uid, bool recursive) {
        return listed(base, uid, recursive, tree_list_first(node_directory(house_spot(&house, base).node)));
}

static const char *list_after(const char *base, uid_t uid, bool recursive, const char *cursor) {
        Credentials who = house_who(uid);
        Node *node = NULL;
        int r;

        r = tree_list_after(node_directory(house_spot(&house, base).node), &who, recursive, N(base), N(cursor), &node);
        if (r)
                return r == TREE_E_NAME ? "not of this list" : "?";
        return listed(base, uid, recursive, node);
}

static void make_some(void) {
        (void)house_mkdir(&house, root_account, "/b", 0755);
        (void)house_mkdir(&house, root_account, "/b/d", 0755);
        (void)house_named(&house, alice, "/b/d/1", 1);
        (void)house_named(&house, alice, "/b/d/2", 1);
        (void)house_named(&house, alice, "/b/e", 1);
        (void)house_named(&house, alice, "/c", 1);
        (void)house_named(&house, alice, "/a", 1);
        (void)house_mkdir(&house, root_account, "/b-x", 0755);
}

/* -- finding ----------------------------------------------------------------------------- */

TEST(tree, the_root_is_there_from_the_start) {
        Spot spot;

        begin();
        cr_assert_eq(find(ALICE, "/", &spot), 0);
        cr_assert_eq(spot.node, &house.tree.root->node);
        cr_assert_eq(spot.parent, NULL);
        cr_assert_eq(house.tree.n_directories, 1);
        cr_assert_str_eq(path_of(spot.node), "/");
        end();
}

TEST(tree, a_free_spot_has_a_parent_and_no_node) {
        Directory *b;
        Spot spot;

        begin();
        b = house_mkdir(&house, root_account, "/b", 0755);
        cr_assert_eq(resolve(ALICE, "/b/new", &spot), 0);
        cr_assert(spot.parent == b && !spot.node && spot.n_name == 3 && !memcmp(spot.name, "new", 3));
        cr_assert_eq(find(ALICE, "/b/new", &spot), TREE_E_MISSING);
        cr_assert_eq(resolve(ALICE, "/b/new/deeper", &spot), TREE_E_MISSING);
        cr_assert_eq(spot.decided, strlen("/b/new"));
        cr_assert_eq(resolve(ALICE, "/new/deeper", &spot), TREE_E_MISSING);
        cr_assert_eq(spot.decided, strlen("/new"));
        end();
}

TEST(tree, names_are_bytes_of_a_length_and_not_strings) {
        static const char path[] = "/namelonger";
        Region *region;
        Spot spot;

        begin();
        region = house_named(&house, alice, "/name", 1);
        cr_assert_eq(tree_find(&house.tree, &house_admin, path, 5, &spot), 0);
        cr_assert_eq(spot.node->region, region);
        cr_assert_eq(tree_find(&house.tree, &house_admin, path, 6, &spot), TREE_E_MISSING);
        cr_assert_eq(tree_find(&house.tree, &house_admin, path, 4, &spot), TREE_E_MISSING);
        cr_assert_eq(tree_find(&house.tree, &house_admin, path, sizeof(path) - 1, &spot), TREE_E_MISSING);
        cr_assert_eq(tree_find(&house.tree, &house_admin, "/name\0x", 7, &spot), TREE_E_NAME);
        cr_assert_eq(spot.name_error, PATH_CONTROL);

        /* What is kept is a copy of those bytes alone. */
        cr_assert_eq(tree_resolve(&house.tree, &house_admin, path, 7, &spot), 0);
        region = house_region(&house, alice, 1);
        cr_assert_eq(region_link(region, &spot, NULL), 0);
        cr_assert_str_eq(path_of(region_name(region)), "/namelo");
        end();
}

TEST(tree, case_and_normalization_make_different_names) {
        Spot spot;

        begin();
        (void)house_named(&house, alice, "/Name", 1);
        (void)house_named(&house, alice, "/\xc3\xa4", 1);
        cr_assert_eq(find(ALICE, "/name", &spot), TREE_E_MISSING);
        cr_assert_eq(find(ALICE, "/a\xcc\x88", &spot), TREE_E_MISSING);
        cr_assert_eq(find(ALICE, "/\xc3\xa4", &spot), 0);
        end();
}

TEST(tree, a_region_on_the_way_is_no_directory) {
        Spot spot;

        begin();
        (void)house_named(&house, alice, "/a", 1);
        cr_assert_eq(find(ALICE, "/a/b", &spot), TREE_E_NOT_DIRECTORY);
        cr_assert_eq(spot.decided, 2);
        cr_assert_eq(resolve(ALICE, "/a/b/c/d", &spot), TREE_E_NOT_DIRECTORY);
        cr_assert_eq(spot.decided, 2);
        end();
}

TEST(tree, who_may_not_search_gets_one_answer_for_what_exists_and_what_does_not) {
        static const char *const below[] = { "/b/secret", "/b/none", "/b/dir", "/b/dir/x", "/b/none/x", "/b/secret/x" };
        Spot spot;

        begin();
        (void)house_mkdir(&house, root_account, "/b", 0700);
        (void)house_mkdir(&house, root_account, "/b/dir", 0777);
        (void)house_named(&house, root_account, "/b/secret", 1);
        for (size_t i = 0; i < sizeof(below) / sizeof(*below); ++i) {
                cr_assert_eq(find(ALICE, below[i], &spot), TREE_E_DENIED, "%s", below[i]);
                cr_assert_eq(spot.decided, 2, "%s", below[i]);
                cr_assert_eq(resolve(ALICE, below[i], &spot), TREE_E_DENIED, "%s", below[i]);
                cr_assert_eq(spot.decided, 2, "%s", below[i]);
        }
        cr_assert_eq(find(ALICE, "/b", &spot), 0, "the directory itself is its parent's business");
        end();
}

TEST(tree, search_alone_is_enough_to_find_and_read_alone_is_not) {
        Directory *b;
        Spot spot;

        begin();
        b = house_mkdir(&house, root_account, "/b", 0711);
        (void)house_named(&house, root_account, "/b/x", 1);
        cr_assert_eq(find(ALICE, "/b/x", &spot), 0);
        b->permissions.mode = 0766;
        cr_assert_eq(find(ALICE, "/b/x", &spot), TREE_E_DENIED);
        end();
}

TEST(tree, even_the_root_may_be_closed) {
        Spot spot;

        begin();
        house.tree.root->permissions.mode = 0700;
        cr_assert_eq(find(ALICE, "/x", &spot), TREE_E_DENIED);
        cr_assert_eq(spot.decided, 1);
        cr_assert_eq(find(ALICE, "/", &spot), 0);
        end();
}

TEST(tree, paths_reach_sixteen_deep_and_come_back_whole) {
        char path[64] = "";
        Region *region;

        begin();
        for (char c = 'a'; c < 'p'; ++c) {
                size_t n = strlen(path);

                path[n] = '/';
                path[n + 1] = c;
                (void)house_mkdir(&house, root_account, path, 0755);
        }
        region = house_named(&house, alice, strcat(path, "/p"), 1);
        cr_assert_str_eq(path_of(region_name(region)), "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p");
        cr_assert_eq(house.tree.n_directories, 16);
        end();
}

TEST(tree, the_longest_path_comes_back_whole) {
        char path[PATH_BYTES_MAX + 1] = "";
        Region *region;

        begin();
        for (size_t at = 0; at < 1024 - 256; at += 256) {
                path[at] = '/';
                memset(path + at + 1, 'x', 255);
                (void)house_mkdir(&house, root_account, path, 0755);
        }
        path[768] = '/';
        memset(path + 769, 'y', 254);
        cr_assert_eq(strlen(path), PATH_BYTES_MAX);
        region = house_named(&house, alice, path, 1);
        cr_assert_str_eq(path_of(region_name(region)), path);
        end();
}

/* -- changing ---------------------------------------------------------------------------- */

TEST(tree, names_are_made_and_taken_away_by_who_may_write_and_search) {
        Credentials a = house_who(ALICE);
        Directory *b;
        bool sticky;
        Spot spot;

        begin();
        b = house_mkdir(&house, root_account, "/b", 0777);
        cr_assert_eq(resolve(ALICE, "/b/x", &spot), 0);
        for (mode_t mode = 0; mode <= 7; ++mode) {
                b->permissions.mode = mode;
                cr_assert_eq(tree_may_change(&spot, &a, &sticky), (mode & 3) == 3 ? 0 : TREE_E_DENIED, "%o", mode);
                cr_assert_not(sticky);
                cr_assert_eq(tree_may_change(&spot, &house_admin, &sticky), 0);
        }
        end();
}

TEST(tree, the_sticky_bit_protects_names_of_others) {
        Credentials a = house_who(ALICE), b = house_who(BOB);
        bool sticky;
        Spot spot;

        begin();
        (void)house_named(&house, alice, "/x", 1);
        spot = house_spot(&house, "/x");
        cr_assert_eq(tree_may_change(&spot, &a, &sticky), 0);
        cr_assert_eq(tree_may_change(&spot, &b, &sticky), TREE_E_DENIED);
        cr_assert(sticky);
        spot = house_spot(&house, "/free");
        cr_assert_eq(tree_may_change(&spot, &b, &sticky), 0);
        spot = house_spot(&house, "/");
        cr_assert_eq(tree_may_change(&spot, &house_admin, &sticky), TREE_E_ROOT);
        cr_assert_not(sticky);
        end();
}

TEST(tree, directories_are_charged_to_their_owner_and_to_those_above) {
        Directory *b, *c;

        begin();
        b = house_mkdir(&house, alice, "/b", 0755);
        c = house_mkdir(&house, alice, "/b/c", 0755);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 2);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_REGIONS], 2);
        cr_assert_eq(b->account->used[ACCOUNT_REGIONS], 1);
        cr_assert_eq(c->account->used[ACCOUNT_REGIONS], 0);
        cr_assert_eq(tree_rmdir(&house.tree, c), 0);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 1);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_REGIONS], 1);
        cr_assert_eq(b->account->used[ACCOUNT_REGIONS], 0);
        end();
}

TEST(tree, a_directory_over_somebodys_limit_is_not_made) {
        static const Permissions permissions = { .uid = ALICE, .gid = ALICE, .mode = 0755 };
        Directory *b, *made = NULL;
        Shortage s;
        Spot spot;

        begin();
        b = house_mkdir(&house, root_account, "/b", 0777);
        alice->max[ACCOUNT_REGIONS] = 0;
        spot = house_spot(&house, "/b/c");
        cr_assert_eq(tree_mkdir(&house.tree, &spot, alice, &permissions, &s, &made), TREE_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_USER && s.uid == ALICE && s.slot == ACCOUNT_REGIONS && s.asked == 1 && s.left == 0);

        alice->max[ACCOUNT_REGIONS] = 1;
        b->account->max[ACCOUNT_REGIONS] = 0;
        cr_assert_eq(tree_mkdir(&house.tree, &spot, alice, &permissions, &s, &made), TREE_E_QUOTA);
        cr_assert_eq(s.kind, ACCOUNT_DIRECTORY);
        cr_assert_eq(made, NULL);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 0, "the owner's part came back");
        cr_assert_eq(b->n_children, 0);
        cr_assert_eq(house.tree.n_directories, 2);

        b->account->max[ACCOUNT_REGIONS] = 1;
        cr_assert_eq(tree_mkdir(&house.tree, &spot, alice, &permissions, &s, &made), 0);
        cr_assert_eq(house.tree.n_directories, 3);
        end();
}

TEST(tree, what_is_named_below_a_directory_counts_in_all_above_it) {
        Directory *b, *c;

        begin();
        b = house_mkdir(&house, root_account, "/b", 0755);
        c = house_mkdir(&house, root_account, "/b/c", 0755);
        (void)house_named(&house, alice, "/b/c/r", 5000);
        cr_assert_eq(c->account->used[ACCOUNT_BYTES], 8192);
        cr_assert_eq(b->account->used[ACCOUNT_BYTES], 8192);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_BYTES], 8192);
        cr_assert_eq(b->account->used[ACCOUNT_REGIONS], 2);
        region_unlink(house_spot(&house, "/b/c/r").node->region);
        cr_assert_eq(b->account->used[ACCOUNT_BYTES], 0);
        cr_assert_eq(b->account->used[ACCOUNT_REGIONS], 1);
        end();
}

TEST(tree, only_empty_directories_go_and_never_the_root) {
        Directory *b, *c;

        begin();
        b = house_mkdir(&house, root_account, "/b", 0755);
        c = house_mkdir(&house, root_account, "/b/c", 0755);
        cr_assert_eq(tree_rmdir(&house.tree, house.tree.root), TREE_E_ROOT);
        cr_assert_eq(tree_rmdir(&house.tree, b), TREE_E_NOT_EMPTY);
        cr_assert_eq(tree_rmdir(&house.tree, c), 0);
        (void)house_named(&house, alice, "/b/r", 1);
        cr_assert_eq(tree_rmdir(&house.tree, b), TREE_E_NOT_EMPTY);
        region_unlink(house_spot(&house, "/b/r").node->region);
        cr_assert_eq(tree_rmdir(&house.tree, b), 0);
        cr_assert_eq(tree_rmdir(&house.tree, house.tree.root), TREE_E_ROOT);
        cr_assert_eq(house.tree.n_directories, 1);
        end();
}

TEST(tree, a_new_owner_pays_for_a_directory_or_does_not_become_it) {
        Account *bob;
        Directory *b;
        Shortage s;

        begin();
        bob = house_account(&house, BOB);
        b = house_mkdir(&house, alice, "/b", 0755);
        cr_assert_eq(directory_chown(b, alice, &s), 0);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 1);
        bob->max[ACCOUNT_REGIONS] = 0;
        cr_assert_eq(directory_chown(b, bob, &s), TREE_E_QUOTA);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 1);
        bob->max[ACCOUNT_REGIONS] = 1;
        cr_assert_eq(directory_chown(b, bob, &s), 0);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 0);
        cr_assert_eq(bob->used[ACCOUNT_REGIONS], 1);
        bob = account_unref(bob);
        end();
}

TEST(tree, a_nodes_permissions_are_its_regions_or_its_directorys) {
        Region *region;
        Directory *b;

        begin();
        b = house_mkdir(&house, root_account, "/b", 01755);
        region = house_named(&house, alice, "/r", 1);
        cr_assert_eq(node_permissions(&b->node), &b->permissions);
        cr_assert_eq(node_permissions(region_name(region)), &region->permissions);
        cr_assert(node_is_directory(&b->node) && !node_is_directory(region_name(region)));
        end();
}

static int end_with_names(void *userdata) {
        begin();
        (void)house_mkdir(&house, root_account, "/b", 0755);
        tree_deinit(&house.tree);
        return 0;
}

TEST(tree, one_that_ends_with_names_in_it_is_a_bug) {
        house_expect_signal(SIGABRT, end_with_names, NULL);
}

/* -- lists -------------------------------------------------------------------------------- */

TEST(tree, a_list_is_in_byte_order) {
        begin();
        cr_assert_str_eq(list("/", ALICE, false), "");
        make_some();
        cr_assert_str_eq(list("/", ALICE, false), "/a /b /b-x /c ");
        cr_assert_str_eq(list("/b", ALICE, false), "/b/d /b/e ");
        cr_assert_str_eq(list("/b-x", ALICE, false), "");
        end();
}

TEST(tree, a_recursive_list_has_parents_before_children) {
        begin();
        make_some();
        cr_assert_str_eq(list("/", ALICE, true), "/a /b /b/d /b/d/1 /b/d/2 /b/e /b-x /c ");
        cr_assert_str_eq(list("/b", ALICE, true), "/b/d /b/d/1 /b/d/2 /b/e ");
        cr_assert_str_eq(list("/b/d", ALICE, true), "/b/d/1 /b/d/2 ");
        end();
}

TEST(tree, a_list_goes_on_after_any_name_whether_it_still_exists_or_not) {
        begin();
        make_some();
        cr_assert_str_eq(list_after("/", ALICE, false, "/a"), "/b /b-x /c ");
        cr_assert_str_eq(list_after("/", ALICE, false, "/aa"), "/b /b-x /c ");
        cr_assert_str_eq(list_after("/", ALICE, false, "/0"), "/a /b /b-x /c ");
        cr_assert_str_eq(list_after("/", ALICE, false, "/c"), "");
        cr_assert_str_eq(list_after("/", ALICE, false, "/z"), "");
        cr_assert_str_eq(list_after("/b", ALICE, false, "/b/d"), "/b/e ");
        cr_assert_str_eq(list_after("/b", ALICE, false, "/b/dd"), "/b/e ");
        end();
}

TEST(tree, every_cursor_of_a_recursive_list_leads_to_what_follows_it) {
        static const char *const paths[] = { "/a", "/b", "/b/d", "/b/d/1", "/b/d/2", "/b/e", "/b-x", "/c" };
        char expected[256], *rest = expected;

        begin();
        make_some();
        (void)strcpy(expected, list("/", ALICE, true));
        for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); ++i) {
                rest = strchr(rest, ' ') + 1;
                cr_assert_str_eq(list_after("/", ALICE, true, paths[i]), rest, "after %s", paths[i]);
        }
        end();
}

TEST(tree, a_recursive_list_goes_on_after_a_name_that_was_removed) {
        begin();
        make_some();
        region_unlink(house_spot(&house, "/b/d/2").node->region);
        cr_assert_str_eq(list_after("/", ALICE, true, "/b/d/2"), "/b/e /b-x /c ");
        region_unlink(house_spot(&house, "/b/d/1").node->region);
        cr_assert_str_eq(list_after("/", ALICE, true, "/b/d/1"), "/b/e /b-x /c ");
        cr_assert_eq(tree_rmdir(&house.tree, node_directory(house_spot(&house, "/b/d").node)), 0);
        cr_assert_str_eq(list_after("/", ALICE, true, "/b/d/1"), "/b/e /b-x /c ", "and the directory it was in");
        cr_assert_str_eq(list_after("/", ALICE, true, "/b/d"), "/b/e /b-x /c ");
        cr_assert_str_eq(list_after("/", ALICE, true, "/b/z/q/r"), "/b-x /c ");
        cr_assert_str_eq(list_after("/b", ALICE, true, "/b/z"), "");
        end();
}

TEST(tree, a_cursor_below_what_became_a_region_goes_on_behind_it) {
        begin();
        make_some();
        cr_assert_str_eq(list_after("/", ALICE, true, "/a/x/y"), "/b /b/d /b/d/1 /b/d/2 /b/e /b-x /c ");
        cr_assert_str_eq(list_after("/", ALICE, false, "/b/d/1"), "/b-x /c ", "not recursive: behind the directory");
        end();
}

TEST(tree, a_recursive_list_enters_only_what_may_be_listed) {
        Directory *d;

        begin();
        make_some();
        d = node_directory(house_spot(&house, "/b/d").node);
        for (mode_t mode = 0; mode <= 7; ++mode) {
                d->permissions.mode = mode;
                cr_assert_str_eq(list("/", ALICE, true),
                                 (mode & 5) == 5 ? "/a /b /b/d /b/d/1 /b/d/2 /b/e /b-x /c " :
                                 "/a /b /b/d /b/e /b-x /c ");
        }
        d->permissions.mode = 0;
        cr_assert_str_eq(list_after("/", ALICE, true, "/b/d/1"), "/b/e /b-x /c ", "nor by way of a cursor");
        end();
}

TEST(tree, a_cursor_of_another_list_is_refused) {
        static const char *const cursors[] = { "/b", "/a", "/bd", "/b-x", "/c/d", "/", "b/d", "/b/", "/b/../c", "" };

        begin();
        make_some();
        for (size_t i = 0; i < sizeof(cursors) / sizeof(*cursors); ++i)
                cr_assert_str_eq(list_after("/b", ALICE, true, cursors[i]), "not of this list", "'%s'", cursors[i]);
        cr_assert_str_eq(list_after("/", ALICE, true, "/"), "not of this list");
        end();
}

TEST(tree, a_thousand_names_stay_sorted_through_any_order_of_making_and_removing) {
        char name[16], before[16] = "";
        Spot spot;
        size_t n = 0;

        begin();
        for (unsigned int i = 0; i < 1000; ++i) {
                (void)snprintf(name, sizeof(name), "/%04u", i * 7919 % 10007);
                (void)house_named(&house, alice, name, 0);
        }
        for (unsigned int i = 0; i < 1000; i += 3) {
                (void)snprintf(name, sizeof(name), "/%04u", i * 7919 % 10007);
                cr_assert_eq(find(ALICE, name, &spot), 0);
                region_unlink(spot.node->region);
        }
        for (Node *node = tree_list_first(house.tree.root); node;
             node = tree_list_next(house.tree.root, &house_admin, false, node), ++n) {
                cr_assert_lt(strcmp(before, path_of(node)), 0);
                (void)strcpy(before, path_of(node));
        }
        cr_assert_eq(n, 666);
        cr_assert_eq(house.tree.root->n_children, 666);
        end();
}
