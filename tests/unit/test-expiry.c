/* daemon/core/expiry: names end in the order of their times, a few a turn, and never twice. */

#include "daemon-house.h"

#include <stdio.h>

#include "core/expiry.h"

#define TTL (3600 * NSEC_PER_SEC)

static House house;
static Expiries expiries;
static Account *alice;
static unsigned int n_ended;

static void name_ended(Node *node) {
        ++n_ended;
        region_unlink_name(node);
}

static void begin(void) {
        house_open(&house);
        alice = house_account(&house, ALICE);
        expiries_init(&expiries, &house.deadlines, name_ended);
        n_ended = 0;
}

static void end(void) {
        alice = account_unref(alice);
        house_close(&house);
        expiries_deinit(&expiries);
}

/* Gives the name at a path an end. */
static void expire(const char *path, uint64_t at) {
        Spot spot = house_spot(&house, path);
        Expiry *expiry = NULL;

        REQUIRE(spot.node);
        if (at != DEADLINE_NEVER)
                REQUIRE(expiry_new(&expiry, &expiries) == 0);
        node_expire(spot.node, expiry, at);
}

static bool exists(const char *path) {
        return house_spot(&house, path).node;
}

static void pass(uint64_t ns) {
        deadlines_run(&house.deadlines, time_now() + ns);
}

TEST(expiry, a_name_ends_at_its_time_and_not_before) {
        uint64_t now;

        begin();
        (void)house_named(&house, alice, "/a", PAGE);
        now = time_now();
        expire("/a", now + TTL);
        deadlines_run(&house.deadlines, now + TTL - 1);
        cr_assert(exists("/a"));
        /* Whether it is due, its own clock decides. */
        deadlines_run(&house.deadlines, now + TTL);
        cr_assert(exists("/a"));
        cr_assert_eq(deadlines_next(&house.deadlines), now + TTL);
        expire("/a", now);
        deadlines_run(&house.deadlines, time_now());
        cr_assert(!exists("/a"));
        cr_assert_eq(n_ended, 1);
        cr_assert_eq(house.regions.n_named, 0);
        end();
}

TEST(expiry, what_is_left_is_never_nothing_while_the_name_is_there) {
        Node *node;

        begin();
        (void)house_named(&house, alice, "/a", PAGE);
        node = house_spot(&house, "/a").node;
        cr_assert_eq(expiry_left(node->expiry), 0, "without an end");
        expire("/a", time_now() + TTL);
        cr_assert(expiry_left(node->expiry) > 0 && expiry_left(node->expiry) <= TTL);
        expire("/a", time_now() - 1);
        cr_assert_eq(expiry_left(node->expiry), 1);
        expire("/a", DEADLINE_NEVER);
        cr_assert_eq(expiry_left(node->expiry), 0);
        end();
}

TEST(expiry, without_an_end_nothing_is_armed) {
        begin();
        (void)house_named(&house, alice, "/a", PAGE);
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER);
        expire("/a", time_now() + TTL);
        cr_assert_neq(deadlines_next(&house.deadlines), DEADLINE_NEVER);
        expire("/a", DEADLINE_NEVER);
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER);
        end();
}

TEST(expiry, the_first_of_many_stands_for_all) {
        uint64_t now = time_now();

        begin();
        (void)house_named(&house, alice, "/a", PAGE);
        (void)house_named(&house, alice, "/b", PAGE);
        expire("/a", now + 2 * TTL);
        expire("/b", now + TTL);
        cr_assert_eq(deadlines_next(&house.deadlines), now + TTL);
        region_unlink_name(house_spot(&house, "/b").node);
        cr_assert_eq(expiries.due.at, now + 2 * TTL);
        expire("/a", now + 3 * TTL);
        cr_assert_eq(expiries.due.at, now + 3 * TTL);
        end();
}

TEST(expiry, many_at_once_end_a_few_a_turn) {
        char path[16];
        uint64_t at;

        begin();
        for (unsigned int i = 0; i < 2 * EXPIRY_TURN + 5; ++i) {
                (void)snprintf(path, sizeof(path), "/n%u", i);
                (void)house_named(&house, alice, path, 0);
        }
        at = time_now();
        for (unsigned int i = 0; i < 2 * EXPIRY_TURN + 5; ++i) {
                (void)snprintf(path, sizeof(path), "/n%u", i);
                expire(path, at);
        }
        pass(0);
        cr_assert_eq(n_ended, EXPIRY_TURN);
        pass(0);
        cr_assert_eq(n_ended, 2 * EXPIRY_TURN);
        pass(0);
        cr_assert_eq(n_ended, 2 * EXPIRY_TURN + 5);
        end();
}

TEST(expiry, a_moved_name_keeps_its_end_and_what_it_replaces_loses_its_own) {
        uint64_t at = time_now() + TTL;
        Spot from, to;
        Region *replaced;
        Node *node;

        begin();
        (void)house_named(&house, alice, "/a", PAGE);
        (void)house_named(&house, alice, "/b", PAGE);
        expire("/a", at);
        expire("/b", at + TTL);
        from = house_spot(&house, "/a");
        to = house_spot(&house, "/b");
        REQUIRE(tree_rename(&house.tree, &from, &to, TREE_RENAME_REPLACE, NULL, &replaced) == 0);
        region_lost_name(replaced);
        node = house_spot(&house, "/b").node;
        cr_assert(node->expiry && node->expiry->deadline.at == at);
        cr_assert_eq(node->expiry->node, node);
        cr_assert_eq(expiries.due.at, at);
        end();
}

TEST(expiry, names_that_change_places_take_their_ends_along) {
        uint64_t at = time_now() + TTL;
        Spot from, to;
        Region *replaced;

        begin();
        (void)house_named(&house, alice, "/a", PAGE);
        (void)house_named(&house, alice, "/b", PAGE);
        expire("/a", at);
        from = house_spot(&house, "/a");
        to = house_spot(&house, "/b");
        REQUIRE(tree_rename(&house.tree, &from, &to, TREE_RENAME_EXCHANGE, NULL, &replaced) == 0);
        cr_assert(house_spot(&house, "/b").node->expiry);
        cr_assert(!house_spot(&house, "/a").node->expiry);
        end();
}

TEST(expiry, a_name_that_stands_for_another_region_does_not_end_any_more) {
        Region *second;
        Spot spot;

        begin();
        (void)house_named(&house, alice, "/a", PAGE);
        expire("/a", time_now() + TTL);
        second = house_region(&house, alice, PAGE);
        spot = house_spot(&house, "/a");
        REQUIRE(region_link(second, &spot, NULL) == 0);
        cr_assert_eq(house_spot(&house, "/a").node->region, second);
        cr_assert(!house_spot(&house, "/a").node->expiry);
        end();
}

TEST(expiry, other_names_of_the_region_stay) {
        Region *region;
        Spot spot;

        begin();
        region = house_named(&house, alice, "/a", PAGE);
        spot = house_spot(&house, "/b");
        REQUIRE(region_link(region, &spot, NULL) == 0);
        expire("/a", time_now());
        pass(0);
        cr_assert(!exists("/a") && exists("/b"));
        cr_assert_eq(region_n_names(region), 1);
        end();
}
