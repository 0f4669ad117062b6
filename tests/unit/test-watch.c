/* daemon/core/watch: who waits for a name hears of it once, and only if it may; who waits for a region
 * hears what became of it. */

#include "daemon-house.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/watch.h"

#define N(text) (text), strlen(text)

static House house;
static Waiters waiters;
static Account *alice;
static Credentials who, stranger;
static char heard[256];         /* "name:path name:late " */

static void over(Waiter *waiter, WaiterEnd end, Node *node) {
        static const char *const ends[] = { "done", "late", "gone" };
        char path[PATH_BYTES_MAX + 1];

        (void)strcpy(path, ends[end]);
        if (node)
                path[tree_path(node, path)] = '\0';
        (void)strcat(strcat(strcat(strcat(heard, waiter->userdata), ":"), path), " ");
        (void)waiter_free(waiter);
}

static void begin(void) {
        house_open(&house);
        waiters_init(&waiters, &house.tree, &house.deadlines);
        alice = house_account(&house, ALICE);
        who = house_who(ALICE);
        stranger = house_who(BOB);
        heard[0] = '\0';
}

static void end(void) {
        waiters_deinit(&waiters);
        cr_assert_eq(alice->used[ACCOUNT_WATCHES], 0);
        cr_assert_eq(alice->used[ACCOUNT_PENDING], 0);
        alice = account_unref(alice);
        house_close(&house);
}

static Waiter *wait_as(const Credentials *as, const char *path, uint64_t until, const char *name) {
        Waiter *waiter;

        REQUIRE(waiter_new(&waiter, &waiters, alice, as, N(path), until, over, (void *)name, NULL) == 0);
        return waiter;
}

static Waiter *wait_for(const char *path, const char *name) {
        return wait_as(&who, path, DEADLINE_NEVER - 1, name);
}

static void make(const char *path) {
        (void)house_named(&house, alice, path, 0);
        waiters_notify(&waiters, N(path));
}

TEST(watch, a_name_that_is_made_is_heard_of_by_all_who_wait_in_their_order) {
        begin();
        (void)wait_for("/x", "1");
        (void)wait_for("/x", "2");
        (void)wait_for("/x", "3");
        make("/x");
        cr_assert_str_eq(heard, "1:/x 2:/x 3:/x ");
        waiters_notify(&waiters, N("/x"));
        cr_assert_str_eq(heard, "1:/x 2:/x 3:/x ", "once");
        end();
}

TEST(watch, names_that_look_alike_are_not_it) {
        static const char *const others[] = { "/a", "/a-b", "/ab", "/a/b/c", "/a/bc", "/A", "/b", "/a.b" };
        Waiter *waiting[8];

        begin();
        for (size_t i = 0; i < 8; ++i)
                waiting[i] = wait_for(others[i], others[i]);
        (void)wait_for("/a/b", "it");
        (void)house_mkdir(&house, alice, "/a", 0755);
        make("/a/b");
        cr_assert_str_eq(heard, "it:/a/b ");
        for (size_t i = 0; i < 8; ++i)
                (void)waiter_free(waiting[i]);
        end();
}

TEST(watch, each_prefix_sibling_is_found_among_the_others) {
        static const char *const paths[] = { "/a", "/a-b", "/a/b", "/a/b/c", "/a/b-c", "/a0", "/a/-" };
        enum { N_PATHS = sizeof(paths) / sizeof(*paths) };

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        for (size_t i = 0; i < N_PATHS; ++i) {
                Waiter *waiting[N_PATHS] = { NULL };
                char path[32], expected[64];

                for (size_t k = 0; k < N_PATHS; ++k)
                        if (k != i)
                                waiting[k] = wait_for(paths[k], paths[k]);
                (void)wait_for(paths[i], "it");
                if (strrchr(paths[i], '/') != paths[i])
                        (void)house_mkdir(&house, alice, "/a", 0755);
                if (!strcmp(paths[i], "/a/b/c"))
                        (void)house_mkdir(&house, alice, "/a/b", 0755);
                make(paths[i]);
                (void)snprintf(path, sizeof(path), "%s", paths[i]);
                (void)snprintf(expected, sizeof(expected), "it:%s ", path);
                cr_assert_str_eq(heard, expected);

                heard[0] = '\0';
                for (size_t k = 0; k < N_PATHS; ++k)
                        (void)waiter_free(waiting[k]);
                region_unlink(house_spot(&house, paths[i]).node->region);
                if (!strcmp(paths[i], "/a/b/c"))
                        REQUIRE(tree_rmdir(&house.tree, node_directory(house_spot(&house, "/a/b").node)) == 0);
                if (strrchr(paths[i], '/') != paths[i])
                        REQUIRE(tree_rmdir(&house.tree, node_directory(house_spot(&house, "/a").node)) == 0);
        }
        end();
}

TEST(watch, time_that_is_over_is_told_once) {
        uint64_t now = time_now();

        begin();
        (void)wait_as(&who, "/x", now + 100, "early");
        (void)wait_as(&who, "/x", now + 200, "late");
        deadlines_run(&house.deadlines, now + 99);
        cr_assert_str_eq(heard, "");
        deadlines_run(&house.deadlines, now + 100);
        cr_assert_str_eq(heard, "early:late ");
        make("/x");
        cr_assert_str_eq(heard, "early:late late:/x ");
        deadlines_run(&house.deadlines, now + 300);
        cr_assert_str_eq(heard, "early:late late:/x ");
        end();
}

TEST(watch, who_may_not_search_hears_nothing_until_it_may) {
        Directory *d;

        begin();
        d = house_mkdir(&house, alice, "/d", 0700);
        (void)wait_as(&stranger, "/d/x", DEADLINE_NEVER - 1, "bob");
        (void)wait_for("/d/x", "alice");
        make("/d/x");
        cr_assert_str_eq(heard, "alice:/d/x ");
        d->permissions.mode = 0711;
        waiters_notify_below(&waiters, N("/d"));
        cr_assert_str_eq(heard, "alice:/d/x bob:/d/x ");
        end();
}

TEST(watch, changed_permissions_are_told_to_all_below_and_nobody_beside) {
        static const char *const beside[] = { "/d-x", "/d.x", "/dx", "/e", "/c" };
        Waiter *waiting[5], *itself;

        begin();
        for (size_t i = 0; i < 5; ++i) {
                waiting[i] = wait_for(beside[i], beside[i]);
                (void)house_named(&house, alice, beside[i], 0);
        }
        (void)house_mkdir(&house, alice, "/d", 0755);
        (void)house_mkdir(&house, alice, "/d/e", 0755);
        (void)house_named(&house, alice, "/d/-", 0);
        (void)house_named(&house, alice, "/d/e/f", 0);
        itself = wait_for("/d", "itself");
        (void)wait_for("/d/-", "1");
        (void)wait_for("/d/e/f", "2");
        (void)wait_for("/d/missing", "3");
        waiters_notify_below(&waiters, N("/d"));
        cr_assert_str_eq(heard, "1:/d/- 2:/d/e/f ");
        cr_assert_eq(waiters.n, 7);
        waiters_notify_below(&waiters, N("/d/e"));
        cr_assert_str_eq(heard, "1:/d/- 2:/d/e/f ");

        waiters_notify_below(&waiters, N("/"));
        cr_assert_neq(strstr(heard, "/d-x:/d-x "), NULL, "everything is below the root");
        cr_assert_neq(strstr(heard, "itself:/d "), NULL);
        cr_assert_eq(waiters.n, 1);
        (void)waiting;
        (void)itself;
        deadlines_run(&house.deadlines, DEADLINE_NEVER);
        cr_assert_neq(strstr(heard, "3:late "), NULL);
        end();
}

TEST(watch, it_costs_a_watch_and_a_pending_request_until_it_is_over) {
        Waiter *waiter = NULL, *first;
        Shortage s;

        begin();
        alice->max[ACCOUNT_WATCHES] = 1;
        first = wait_for("/x", "1");
        cr_assert_eq(alice->used[ACCOUNT_WATCHES], 1);
        cr_assert_eq(alice->used[ACCOUNT_PENDING], 1);
        cr_assert_eq(waiter_new(&waiter, &waiters, alice, &who, N("/y"), 0, over, NULL, &s), WATCH_E_QUOTA);
        cr_assert(s.slot == ACCOUNT_WATCHES && s.asked == 1 && s.left == 0);
        cr_assert_eq(waiter, NULL);
        cr_assert_eq(waiters.n, 1, "one that was refused leaves nothing behind");
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER - 1);
        cr_assert_eq(waiter_free(first), NULL);
        cr_assert_eq(alice->used[ACCOUNT_WATCHES], 0);
        cr_assert_eq(waiter_free(NULL), NULL);

        alice->max[ACCOUNT_WATCHES] = 2;
        alice->max[ACCOUNT_PENDING] = 0;
        cr_assert_eq(waiter_new(&waiter, &waiters, alice, &who, N("/y"), 0, over, NULL, &s), WATCH_E_QUOTA);
        cr_assert_eq(s.slot, ACCOUNT_PENDING);
        cr_assert_eq(alice->used[ACCOUNT_WATCHES], 0);
        end();
}

TEST(watch, its_path_is_bytes_of_a_length_that_need_not_live_on) {
        char path[] = "/name-and-more";
        Waiter *waiter;

        begin();
        REQUIRE(waiter_new(&waiter, &waiters, alice, &who, path, 5, DEADLINE_NEVER - 1, over, (void *)"w", NULL) == 0);
        memset(path, 'x', sizeof(path));
        make("/name");
        cr_assert_str_eq(heard, "w:/name ");
        end();
}

TEST(watch, a_notice_about_a_name_that_is_gone_again_tells_nobody) {
        Waiter *waiter;

        begin();
        waiter = wait_for("/x", "w");
        waiters_notify(&waiters, N("/x"));
        cr_assert_str_eq(heard, "");
        make("/y");
        cr_assert_str_eq(heard, "");
        (void)waiter_free(waiter);
        end();
}

TEST(watch, a_thousand_who_wait_for_other_names_are_left_alone) {
        Waiter *waiting[1000];
        char path[16];

        begin();
        for (unsigned int i = 0; i < 1000; ++i) {
                (void)snprintf(path, sizeof(path), "/%03u", i);
                waiting[i] = wait_for(path, "w");
        }
        make("/500");
        cr_assert_str_eq(heard, "w:/500 ");
        cr_assert_eq(waiters.n, 999);
        for (unsigned int i = 0; i < 1000; ++i)
                if (i != 500)
                        (void)waiter_free(waiting[i]);
        end();
}

static int end_with_waiters(void *userdata) {
        begin();
        (void)wait_for("/x", "w");
        waiters_deinit(&waiters);
        return 0;
}

TEST(watch, one_that_is_left_at_the_end_is_a_bug) {
        house_expect_signal(SIGABRT, end_with_waiters, NULL);
}

/* -- waiting for a region -------------------------------------------------------------------- */

static int wait_region(Waiter **ret, Region *region, RegionNews until, const char *name) {
        return waiter_new_for_region(ret, &waiters, alice, &who, region, until, N("/x"), DEADLINE_NEVER - 1, over,
                                     (void *)name, NULL);
}

static void drain(void) {
        for (int i = 0; i < 3; ++i)
                house_turn(&house);
}

TEST(watch, that_nobody_holds_a_region_is_told_when_the_last_holder_lets_go) {
        Waiter *waiter;
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        cr_assert_eq(wait_region(&waiter, region, REGION_IS_UNHELD, "w"), WATCH_E_DONE);
        cr_assert_eq(alice->used[ACCOUNT_WATCHES], 0);
        cr_assert_eq(region_more(region)->watch, -1);

        fd = house_hold(region, true);
        REQUIRE(wait_region(&waiter, region, REGION_IS_UNHELD, "w") == 0);
        cr_assert_eq(alice->used[ACCOUNT_WATCHES], 1);
        cr_assert_eq(alice->used[ACCOUNT_PENDING], 1);
        region_tell(region, REGION_WAS_GRANTED);
        region_tell(region, REGION_WAS_FROZEN);
        cr_assert_str_eq(heard, "");
        close_fd(fd);
        house_until(&house, heard[0]);
        cr_assert_str_eq(heard, "w:done ");
        cr_assert_eq(region_more(region)->watch, -1, "the watch goes with the wait");
        end();
}

TEST(watch, a_region_that_goes_is_held_by_nobody_and_will_never_be_frozen) {
        Waiter *unheld, *frozen;
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        REQUIRE(wait_region(&frozen, region, REGION_WAS_FROZEN, "frozen") == 0);
        cr_assert_eq(region_more(region)->watch, -1, "nobody asks after its holders");
        REQUIRE(wait_region(&unheld, region, REGION_IS_UNHELD, "unheld") == 0);
        region_unlink(region);
        drain();
        cr_assert_str_eq(heard, "", "its name is gone, its holder is not");
        close_fd(fd);
        house_until(&house, heard[0]);
        cr_assert_str_eq(heard, "frozen:gone unheld:done ");
        end();
}

TEST(watch, that_a_region_was_frozen_is_told_to_who_waits_for_it) {
        Waiter *frozen, *unheld;
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        REQUIRE(wait_region(&frozen, region, REGION_WAS_FROZEN, "frozen") == 0);
        REQUIRE(wait_region(&unheld, region, REGION_IS_UNHELD, "unheld") == 0);
        region_tell(region, REGION_WAS_FROZEN);
        cr_assert_str_eq(heard, "frozen:done ");
        deadlines_run(&house.deadlines, DEADLINE_NEVER);
        cr_assert_str_eq(heard, "frozen:done unheld:late ");
        cr_assert_eq(region_more(region)->watch, -1);
        close_fd(fd);
        end();
}
