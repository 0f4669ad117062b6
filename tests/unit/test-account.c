/* daemon/acct/account: charges are all or nothing, and the books balance. */

#include "daemon-house.h"

#include <signal.h>

#include "acct/account.h"

static Accounts accounts;
static Rules base;
static const uint64_t nothing[_ACCOUNT_SLOT_N];

/* Limits: 1000 of everything for all, 100 for each. */
static void begin_with(UserLimits *exceptions, size_t n) {
        base = (Rules){ .global.slots = LIMITS_ALL, .everybody.slots = LIMITS_ALL, .users = exceptions, .n_users = n };
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                base.global.max[i] = 1000;
                base.everybody.max[i] = 100;
        }
        accounts_init(&accounts, &base);
}

static void begin(void) {
        begin_with(NULL, 0);
}

static Account *user(uid_t uid) {
        Account *account;

        REQUIRE(accounts_ref_user(&accounts, uid, &account) == 0);
        return account;
}

static int charge(Account *account, AccountSlot slot, uint64_t amount, Charge *ret, Shortage *shortage) {
        Cost cost = { .slots = { [0] = 0 } };

        cost.slots[slot] = amount;
        return account_charge(account, &cost, ret, shortage);
}

TEST(account, a_limit_is_exact_and_comes_back) {
        Account *alice;
        Charge c = CHARGE_NULL;
        Shortage s;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 101, &c, &s), ACCOUNT_E_QUOTA);
        cr_assert_arr_eq(alice->used, nothing, sizeof(nothing));
        cr_assert_eq(c.account, NULL);
        cr_assert(s.kind == ACCOUNT_USER && s.uid == ALICE && s.slot == ACCOUNT_BYTES && !s.share);
        cr_assert(s.asked == 101 && s.left == 100 && s.limit == 100);

        for (uint64_t amount = 99; amount <= 100; ++amount) {
                cr_assert_eq(charge(alice, ACCOUNT_BYTES, amount, &c, &s), 0);
                cr_assert_eq(alice->used[ACCOUNT_BYTES], amount);
                cr_assert_eq(accounts.pool.used[ACCOUNT_BYTES], amount);
                charge_release(&c);
                cr_assert_arr_eq(alice->used, nothing, sizeof(nothing));
                cr_assert_arr_eq(accounts.pool.used, nothing, sizeof(nothing));
        }
        alice = account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, of_one_slot_alone_it_is_the_same) {
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice;
        Shortage s;

        begin();
        alice = user(ALICE);
        cr_assert_eq(account_may_charge_slot(alice, ACCOUNT_INFLIGHT, 101, &s), ACCOUNT_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_USER && s.slot == ACCOUNT_INFLIGHT && s.asked == 101 && s.left == 100);
        cr_assert_eq(account_charge_slot(alice, ACCOUNT_INFLIGHT, 101, &a, NULL), ACCOUNT_E_QUOTA);
        cr_assert_eq(account_may_charge_slot(alice, ACCOUNT_INFLIGHT, 100, &s), 0);
        cr_assert_arr_eq(alice->used, nothing, sizeof(nothing));

        cr_assert_eq(charge_grow_slot(&a, alice, ACCOUNT_INFLIGHT, 60, &s), 0);
        cr_assert_eq(charge_grow_slot(&a, alice, ACCOUNT_INFLIGHT, 41, &s), ACCOUNT_E_QUOTA);
        cr_assert_eq(charge_grow_slot(&a, alice, ACCOUNT_INFLIGHT, 39, &s), 0);
        cr_assert_eq(account_charge_slot(alice, ACCOUNT_INFLIGHT, 1, &b, &s), 0);
        cr_assert_eq(account_may_charge_slot(alice, ACCOUNT_INFLIGHT, 1, NULL), ACCOUNT_E_QUOTA);
        cr_assert(charge_cost(&a).slots[ACCOUNT_INFLIGHT] == 99 && alice->used[ACCOUNT_INFLIGHT] == 100);
        cr_assert_eq(accounts.pool.used[ACCOUNT_INFLIGHT], 100);
        charge_release(&a);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 1);
        charge_release(&b);
        cr_assert_arr_eq(alice->used, nothing, sizeof(nothing));
        cr_assert_arr_eq(accounts.pool.used, nothing, sizeof(nothing));
        alice = account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, the_last_unit_is_the_last) {
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice;
        Shortage s;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_REGIONS, 99, &a, NULL), 0);
        cr_assert_eq(charge(alice, ACCOUNT_REGIONS, 2, &b, &s), ACCOUNT_E_QUOTA);
        cr_assert(s.asked == 2 && s.left == 1 && s.limit == 100);
        cr_assert_eq(charge(alice, ACCOUNT_REGIONS, 1, &b, NULL), 0);
        charge_release(&b);
        charge_release(&a);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, amounts_that_overflow_are_refused) {
        UserLimits boundless = { .uid = ALICE, .limits.slots = LIMITS_ALL };
        static const uint64_t amounts[] = { UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 49, UINT64_C(1) << 63 };
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice;

        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                boundless.limits.max[i] = UINT64_MAX;
        begin_with(&boundless, 1);
        accounts.pool.max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, UINT64_C(1) << 63, &a, NULL), 0);
        for (size_t i = 0; i < sizeof(amounts) / sizeof(*amounts); ++i)
                cr_assert_eq(charge(alice, ACCOUNT_BYTES, amounts[i], &b, NULL), ACCOUNT_E_QUOTA, "%zu", i);
        cr_assert_eq(charge_grow(&a, alice, &(Cost){ .slots = { UINT64_C(1) << 63 } }, NULL), ACCOUNT_E_QUOTA);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], UINT64_C(1) << 63);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, (UINT64_C(1) << 63) - 1, &b, NULL), 0);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], UINT64_MAX);
        charge_release(&b);
        charge_release(&a);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, of_several_slots_all_are_taken_or_none) {
        Cost cost = { .slots = { [ACCOUNT_BYTES] = 50, [ACCOUNT_REGIONS] = 101, [ACCOUNT_INFLIGHT] = 1 } };
        Charge c = CHARGE_NULL;
        Account *alice;
        Shortage s;

        begin();
        alice = user(ALICE);
        cr_assert_eq(account_charge(alice, &cost, &c, &s), ACCOUNT_E_QUOTA);
        cr_assert_eq(s.slot, ACCOUNT_REGIONS);
        cr_assert_arr_eq(alice->used, nothing, sizeof(nothing));
        cr_assert_arr_eq(accounts.pool.used, nothing, sizeof(nothing));

        cost.slots[ACCOUNT_REGIONS] = 100;
        cr_assert_eq(account_charge(alice, &cost, &c, NULL), 0);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 50);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 100);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 1);
        cr_assert_eq(alice->used[ACCOUNT_PEERS], 0);
        cr_assert_arr_eq(charge_cost(&c).slots, cost.slots, sizeof(cost.slots));
        charge_release(&c);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, everything_above_can_refuse_and_then_nothing_below_was_taken) {
        Account *top, *middle, *bottom;
        Charge c = CHARGE_NULL;
        Shortage s;

        cr_assert_eq(account_new_directory(&top, NULL), 0);
        cr_assert_eq(account_new_directory(&middle, top), 0);
        cr_assert_eq(account_new_directory(&bottom, middle), 0);
        top->max[ACCOUNT_BYTES] = 10;
        cr_assert_eq(charge(bottom, ACCOUNT_BYTES, 11, &c, &s), ACCOUNT_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_DIRECTORY && s.asked == 11 && s.left == 10 && s.limit == 10 && !s.share);
        cr_assert_arr_eq(bottom->used, nothing, sizeof(nothing));
        cr_assert_arr_eq(middle->used, nothing, sizeof(nothing));
        cr_assert_arr_eq(top->used, nothing, sizeof(nothing));

        cr_assert_eq(charge(bottom, ACCOUNT_BYTES, 10, &c, &s), 0);
        cr_assert(bottom->used[ACCOUNT_BYTES] == 10 && middle->used[ACCOUNT_BYTES] == 10 &&
                  top->used[ACCOUNT_BYTES] == 10);
        charge_release(&c);
        cr_assert_arr_eq(bottom->used, nothing, sizeof(nothing));
        cr_assert_arr_eq(top->used, nothing, sizeof(nothing));

        /* Of two that are short the one nearest to the payer is named. */
        bottom->max[ACCOUNT_BYTES] = 5;
        cr_assert_eq(charge(bottom, ACCOUNT_BYTES, 11, &c, &s), ACCOUNT_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_DIRECTORY && s.left == 5);

        (void)account_unref(bottom);
        (void)account_unref(middle);
        (void)account_unref(top);
}

TEST(account, a_directory_pins_the_one_above_it) {
        Account *top, *bottom;

        cr_assert_eq(account_new_directory(&top, NULL), 0);
        cr_assert_eq(account_new_directory(&bottom, top), 0);
        cr_assert_eq(top->n_refs, 2);
        (void)account_unref(top);
        cr_assert_eq(bottom->parent, top);
        cr_assert_eq(top->n_refs, 1);
        (void)account_unref(bottom);
}

TEST(account, a_charge_pins_its_account) {
        Charge c = CHARGE_NULL;
        Account *alice;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_GRANTS, 1, &c, NULL), 0);
        cr_assert_eq(alice->n_refs, 2);
        cr_assert_eq(account_unref(alice), NULL);
        cr_assert_eq(accounts_find_user(&accounts, ALICE), c.account);
        cr_assert_not(accounts_are_balanced(&accounts));
        charge_release(&c);
        cr_assert_eq(accounts_find_user(&accounts, ALICE), NULL, "the last one takes it away");
        cr_assert(accounts_are_balanced(&accounts));
        accounts_deinit(&accounts);
}

TEST(account, releasing_twice_gives_back_once) {
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 10, &a, NULL), 0);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 20, &b, NULL), 0);
        charge_release(&a);
        charge_release(&a);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 20);
        cr_assert_eq(alice->n_refs, 2);
        charge_release(&b);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, a_charge_grows_within_the_limit_and_goes_as_one) {
        Cost one = { .slots = { [ACCOUNT_INFLIGHT] = 60 } };
        Charge c = CHARGE_NULL;
        Account *alice;
        Shortage s;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge_grow(&c, alice, &one, NULL), 0);
        cr_assert_eq(charge_grow(&c, alice, &one, &s), ACCOUNT_E_QUOTA);
        cr_assert(s.slot == ACCOUNT_INFLIGHT && s.asked == 60 && s.left == 40);
        cr_assert_eq(charge_cost(&c).slots[ACCOUNT_INFLIGHT], 60);
        one.slots[ACCOUNT_INFLIGHT] = 40;
        cr_assert_eq(charge_grow(&c, alice, &one, NULL), 0);
        cr_assert_eq(charge_cost(&c).slots[ACCOUNT_INFLIGHT], 100);
        cr_assert_eq(alice->used[ACCOUNT_INFLIGHT], 100);
        cr_assert_eq(accounts.pool.used[ACCOUNT_INFLIGHT], 100);
        cr_assert_eq(alice->n_refs, 2, "it pins once");
        charge_release(&c);
        cr_assert_arr_eq(alice->used, nothing, sizeof(nothing));
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, one_uid_has_one_account_however_often_it_is_asked_for) {
        Account *a, *b, *c;

        begin();
        a = user(ALICE);
        b = user(ALICE);
        c = user(BOB);
        cr_assert_eq(a, b);
        cr_assert_neq(a, c);
        cr_assert_eq(accounts.n_users, 2);
        cr_assert_eq(a->n_refs, 2);
        (void)account_unref(a);
        cr_assert_eq(accounts.n_users, 2);
        (void)account_unref(b);
        cr_assert_eq(accounts.n_users, 1);
        (void)account_unref(c);
        accounts_deinit(&accounts);
}

TEST(account, users_are_found_and_walked_in_the_order_of_their_uids) {
        static const uid_t uids[] = { 4294967294U, 7, 0, 65536 };
        Account *held[4], *at;

        begin();
        cr_assert_eq(accounts_next_user(&accounts, 0), NULL);
        for (size_t i = 0; i < 4; ++i)
                held[i] = user(uids[i]);
        at = accounts_next_user(&accounts, 0);
        cr_assert_eq(at->uid, 0);
        at = accounts_next_user(&accounts, 1);
        cr_assert_eq(at->uid, 7);
        at = accounts_next_user(&accounts, 7);
        cr_assert_eq(at->uid, 7);
        at = accounts_next_user(&accounts, 65537);
        cr_assert_eq(at->uid, 4294967294U);
        cr_assert_eq(accounts_next_user(&accounts, 4294967295U), NULL);
        cr_assert_eq(accounts_find_user(&accounts, 8), NULL);
        for (size_t i = 0; i < 4; ++i)
                (void)account_unref(held[i]);
        accounts_deinit(&accounts);
}

TEST(account, an_exception_is_for_one_uid_whether_it_has_an_account_or_not) {
        UserLimits exceptions[] = {
                { .uid = BOB, .limits = { 1U << ACCOUNT_BYTES, { [ACCOUNT_BYTES] = 7 } } },
                { .uid = CAROL, .limits = { 1U << ACCOUNT_BYTES, { [ACCOUNT_BYTES] = UINT64_MAX } } },
        };
        uint64_t max[_ACCOUNT_SLOT_N];
        Account *alice, *bob;

        begin_with(exceptions, 2);
        alice = user(ALICE);
        bob = user(BOB);
        cr_assert_eq(alice->max[ACCOUNT_BYTES], 100);
        cr_assert_eq(bob->max[ACCOUNT_BYTES], 7);
        cr_assert_eq(bob->max[ACCOUNT_REGIONS], 100, "what it does not name is as for everybody");
        accounts_limits_of(&accounts, CAROL, max, NULL);
        cr_assert(max[ACCOUNT_BYTES] == UINT64_MAX && max[ACCOUNT_REGIONS] == 100);
        accounts_limits_of(&accounts, 1, max, NULL);
        cr_assert_eq(max[ACCOUNT_BYTES], 100);
        (void)account_unref(alice);
        (void)account_unref(bob);
        accounts_deinit(&accounts);
}

TEST(account, of_the_pool_one_to_four_greedy_users_get_exactly_their_shares) {
        static const uint64_t expected[] = { 500, 166, 83, 50 };
        Charge charges[4] = { CHARGE_NULL };
        Account *users[4];
        Shortage s;

        begin();
        for (size_t i = 0; i < 4; ++i) {
                users[i] = user((uid_t)(1000 + i));
                users[i]->max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
                cr_assert_eq(charge(users[i], ACCOUNT_BYTES, expected[i] + 1, &charges[i], &s), ACCOUNT_E_QUOTA);
                cr_assert(s.share && s.kind == ACCOUNT_POOL && s.uid == 1000 + i);
                cr_assert(s.left == expected[i] && s.limit == expected[i], "user %zu: %zu", i, (size_t)s.left);
                cr_assert_eq(charge(users[i], ACCOUNT_BYTES, expected[i], &charges[i], &s), 0);
        }
        for (size_t i = 0; i < 4; ++i) {
                charge_release(&charges[i]);
                (void)account_unref(users[i]);
        }
        accounts_deinit(&accounts);
}

TEST(account, an_own_limit_is_no_share_and_a_pool_that_is_empty_is) {
        Account *alice, *bob;
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Shortage s;

        begin();
        accounts.pool.max[ACCOUNT_PEERS] = 3;
        alice = user(ALICE);
        bob = user(BOB);
        cr_assert_eq(charge(alice, ACCOUNT_PEERS, 101, &a, &s), ACCOUNT_E_QUOTA);
        cr_assert(!s.share && s.kind == ACCOUNT_USER);
        cr_assert_eq(charge(bob, ACCOUNT_PEERS, 1, &b, &s), 0);
        cr_assert_eq(charge(alice, ACCOUNT_PEERS, 4, &a, &s), ACCOUNT_E_QUOTA, "more than the whole pool");
        cr_assert(s.share && s.kind == ACCOUNT_POOL && s.limit == 3 && s.left == 2 && s.asked == 4);
        charge_release(&b);
        (void)account_unref(alice);
        (void)account_unref(bob);
        accounts_deinit(&accounts);
}

TEST(account, an_unlimited_pool_has_no_shares) {
        Charge c = CHARGE_NULL;
        Account *alice;

        begin();
        accounts.pool.max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
        alice = user(ALICE);
        alice->max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, UINT64_MAX, &c, NULL), 0);
        charge_release(&c);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, an_unlimited_directory_never_refuses_and_a_limited_one_has_no_shares) {
        Charge c = CHARGE_NULL;
        Account *directory;

        cr_assert_eq(account_new_directory(&directory, NULL), 0);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                cr_assert_eq(directory->max[i], QUOTA_UNLIMITED);
        cr_assert_eq(charge(directory, ACCOUNT_BYTES, UINT64_MAX, &c, NULL), 0);
        charge_release(&c);
        directory->max[ACCOUNT_BYTES] = 10;
        cr_assert_eq(charge(directory, ACCOUNT_BYTES, 10, &c, NULL), 0);
        charge_release(&c);
        (void)account_unref(directory);
}

TEST(account, nothing_is_never_short_even_over_a_lowered_limit) {
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 100, &a, NULL), 0);
        alice->max[ACCOUNT_BYTES] = 10;
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 0, &b, NULL), 0);
        charge_release(&b);
        cr_assert_eq(charge(alice, ACCOUNT_REGIONS, 1, &b, NULL), 0, "other slots are their own");
        charge_release(&b);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 1, &b, NULL), ACCOUNT_E_QUOTA);
        charge_release(&a);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, what_never_fits_is_told_apart_from_what_does_not_fit_now) {
        Cost cost = { .slots = { [ACCOUNT_INFLIGHT] = 100 } };
        Charge c = CHARGE_NULL;
        Account *alice;

        begin();
        alice = user(ALICE);
        cr_assert(account_has_room_for(alice, &cost));
        REQUIRE(account_charge(alice, &cost, &c, NULL) == 0);
        cr_assert(account_has_room_for(alice, &cost), "once it is given back");
        cost.slots[ACCOUNT_INFLIGHT] = 101;
        cr_assert_not(account_has_room_for(alice, &cost));
        charge_release(&c);

        alice->max[ACCOUNT_INFLIGHT] = QUOTA_UNLIMITED;
        cost.slots[ACCOUNT_INFLIGHT] = 500;
        cr_assert(account_has_room_for(alice, &cost), "alone, it has half of the pool");
        cr_assert_eq(account_charge(alice, &cost, &c, NULL), 0);
        charge_release(&c);
        cost.slots[ACCOUNT_INFLIGHT] = 501;
        cr_assert_not(account_has_room_for(alice, &cost));
        accounts.pool.max[ACCOUNT_INFLIGHT] = QUOTA_UNLIMITED;
        cost.slots[ACCOUNT_INFLIGHT] = UINT64_MAX;
        cr_assert(account_has_room_for(alice, &cost));
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

/* -- rules -------------------------------------------------------------------------------- */

#define BIT(slot) (UINT32_C(1) << ACCOUNT_##slot)

static uint64_t bytes_of(uid_t uid) {
        uint64_t max[_ACCOUNT_SLOT_N];

        accounts_limits_of(&accounts, uid, max, NULL);
        return max[ACCOUNT_BYTES];
}

/* What must follow a swap when nobody is connected. */
static uint32_t swap(const Rules *policy) {
        accounts_set_policy(&accounts, policy);
        return accounts_settle(&accounts, NULL, NULL);
}

static void meet(Account *account, gid_t gid, const gid_t *groups, size_t n) {
        account_meet_groups(account, gid, groups, n);
        (void)account_settle(account);
}

TEST(account, each_slot_has_the_first_rule_that_names_it) {
        UserLimits base_users[] = { { ALICE, { BIT(BYTES) | BIT(GRANTS), { 11, 0, 12 } } } };
        UserLimits users[] = { { ALICE, { BIT(REGIONS), { 0, 21 } } } };
        GroupLimits groups[] = { { 7, { BIT(BYTES) | BIT(REGIONS) | BIT(PEERS), { 31, 32, 0, 33 } } } };
        Rules policy = {
                .everybody = { BIT(PEERS) | BIT(WATCHES), { [ACCOUNT_PEERS] = 41, [ACCOUNT_WATCHES] = 42 } },
                .users = users, .n_users = 1, .groups = groups, .n_groups = 1,
        };
        AccountRule rules[_ACCOUNT_SLOT_N];
        uint64_t max[_ACCOUNT_SLOT_N];
        Account *alice, *bob;

        begin_with(base_users, 1);
        cr_assert_eq(swap(&policy), 0);
        alice = user(ALICE);
        meet(alice, 7, NULL, 0);
        cr_assert_eq(alice->max[ACCOUNT_REGIONS], 21, "the policy for the uid");
        cr_assert_eq(alice->max[ACCOUNT_BYTES], 11, "the configuration for the uid");
        cr_assert_eq(alice->max[ACCOUNT_GRANTS], 12, "the configuration for the uid");
        cr_assert_eq(alice->max[ACCOUNT_PEERS], 33, "the policy for the group");
        cr_assert_eq(alice->max[ACCOUNT_WATCHES], 42, "the policy for everybody");
        cr_assert_eq(alice->max[ACCOUNT_PENDING], 100, "the configuration for everybody");
        accounts_limits_of(&accounts, ALICE, max, rules);
        cr_assert_arr_eq(max, alice->max, sizeof(max));
        cr_assert(rules[ACCOUNT_REGIONS] == ACCOUNT_RULE_POLICY_USER && rules[ACCOUNT_BYTES] == ACCOUNT_RULE_BASE_USER);
        cr_assert(rules[ACCOUNT_PEERS] == ACCOUNT_RULE_POLICY_GROUP && rules[ACCOUNT_WATCHES] == ACCOUNT_RULE_POLICY);
        cr_assert_eq(rules[ACCOUNT_PENDING], ACCOUNT_RULE_BASE);

        bob = user(BOB);
        cr_assert(bob->max[ACCOUNT_BYTES] == 100 && bob->max[ACCOUNT_PEERS] == 41 && bob->max[ACCOUNT_WATCHES] == 42);
        (void)account_unref(alice);
        (void)account_unref(bob);
        accounts_deinit(&accounts);
}

TEST(account, the_highest_limit_is_that_of_the_most_generous_group_unless_the_user_has_its_own) {
        UserLimits users[] = { { ALICE, { BIT(PEERS), { [ACCOUNT_PEERS] = 3 } } } };
        GroupLimits groups[] = {
                { 7, { BIT(PEERS), { [ACCOUNT_PEERS] = 2 } } },
                { 8, { BIT(PEERS), { [ACCOUNT_PEERS] = 9 } } },
                { 9, { BIT(BYTES), { [ACCOUNT_BYTES] = 1 } } },
        };
        Rules policy = {
                .everybody = { BIT(PEERS), { [ACCOUNT_PEERS] = 5 } },
                .users = users, .n_users = 1, .groups = groups, .n_groups = 3,
        };

        begin();
        base.everybody = (Limits){ LIMITS_ALL, { [ACCOUNT_PEERS] = 4 } };
        cr_assert_eq(accounts_limit_at_most(&accounts, BOB, ACCOUNT_PEERS), 4);
        (void)swap(&policy);
        cr_assert_eq(accounts_limit_at_most(&accounts, BOB, ACCOUNT_PEERS), 9);
        cr_assert_eq(accounts_limit_at_most(&accounts, ALICE, ACCOUNT_PEERS), 3);
        (void)swap(NULL);
        accounts_deinit(&accounts);
}

TEST(account, of_several_groups_the_first_of_the_rules_counts_and_only_it) {
        GroupLimits groups[] = {
                { 5, { BIT(REGIONS), { 0, 50 } } },
                { 6, { BIT(BYTES), { 60 } } },
                { 7, { BIT(BYTES), { 70 } } },
        };
        Rules policy = { .groups = groups, .n_groups = 3 };
        static const gid_t later_first[] = { 7, 6 };
        Account *alice;

        begin();
        (void)swap(&policy);
        alice = user(ALICE);
        meet(alice, 1, NULL, 0);
        cr_assert(alice->group == NO_GROUP && alice->max[ACCOUNT_BYTES] == 100);
        meet(alice, 7, NULL, 0);
        cr_assert(alice->group == 7 && alice->max[ACCOUNT_BYTES] == 70, "the primary one counts like the others");
        meet(alice, 1, later_first, 2);
        cr_assert(alice->group == 6 && alice->max[ACCOUNT_BYTES] == 60, "the order of the rules, not of the groups");
        meet(alice, 7, NULL, 0);
        cr_assert(alice->group == 6 && alice->max[ACCOUNT_BYTES] == 60, "another connection takes no group away");
        meet(alice, 5, later_first, 2);
        cr_assert(alice->max[ACCOUNT_REGIONS] == 50 && alice->max[ACCOUNT_BYTES] == 100, "not what it leaves out");
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, a_group_is_remembered_over_policies_that_do_not_name_it) {
        GroupLimits seven[] = { { 7, { BIT(BYTES), { 70 } } } };
        GroupLimits eight[] = { { 8, { BIT(BYTES), { 80 } } } };
        Rules with = { .groups = seven, .n_groups = 1 }, without = { .groups = eight, .n_groups = 1 };
        Account *alice;

        begin();
        (void)swap(&with);
        alice = user(ALICE);
        meet(alice, 7, NULL, 0);
        cr_assert_eq(bytes_of(ALICE), 70);
        cr_assert_eq(swap(&without), 1);
        cr_assert_eq(alice->max[ACCOUNT_BYTES], 100);
        cr_assert_eq(swap(&with), 1);
        cr_assert_eq(alice->max[ACCOUNT_BYTES], 70);
        cr_assert_eq(swap(&with), 0, "nothing is other than before");

        account_forget_groups(alice);
        account_meet_groups(alice, 9, NULL, 0);
        cr_assert_eq(accounts_settle(&accounts, NULL, NULL), 1);
        cr_assert_eq(alice->max[ACCOUNT_BYTES], 100, "who is connected is asked again");
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, a_policy_changes_the_pool_and_gives_it_back) {
        Rules policy = { .global = { BIT(BYTES) | BIT(PEERS), { 5, 0, 0, QUOTA_UNLIMITED } } };

        begin();
        (void)swap(&policy);
        cr_assert(accounts.pool.max[ACCOUNT_BYTES] == 5 && accounts.pool.max[ACCOUNT_PEERS] == QUOTA_UNLIMITED);
        cr_assert_eq(accounts.pool.max[ACCOUNT_REGIONS], 1000);
        (void)swap(NULL);
        cr_assert(accounts.pool.max[ACCOUNT_BYTES] == 1000 && accounts.pool.max[ACCOUNT_PEERS] == 1000);
        accounts_deinit(&accounts);
}

TEST(account, a_swap_changes_every_account_at_once_and_counts_them) {
        Rules policy = { .everybody = { BIT(BYTES), { 50 } } };
        UserLimits users[] = { { 3, { BIT(BYTES), { 100 } } } };
        Account *held[10];

        begin();
        policy.users = users;
        policy.n_users = 1;
        for (uid_t i = 0; i < 10; ++i)
                held[i] = user(i);
        held[4]->audit.slots = held[3]->audit.slots = 1;
        cr_assert_eq(swap(&policy), 9);
        for (uid_t i = 0; i < 10; ++i)
                cr_assert_eq(held[i]->max[ACCOUNT_BYTES], i == 3 ? 100 : 50);
        cr_assert(held[4]->audit.slots == 0 && held[3]->audit.slots == 1, "a new limit may be said anew");
        cr_assert_eq(bytes_of(99), 50, "also of who is not there");
        for (uid_t i = 0; i < 10; ++i)
                (void)account_unref(held[i]);
        accounts_deinit(&accounts);
}

/* -- limits below what is used ------------------------------------------------------------ */

TEST(account, a_lowered_limit_takes_nothing_away_and_refuses_until_there_is_room_again) {
        Charge a = CHARGE_NULL, b = CHARGE_NULL, c = CHARGE_NULL;
        Account *alice;
        Shortage s;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 60, &a, NULL), 0);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 40, &b, NULL), 0);
        alice->max[ACCOUNT_BYTES] = 50;
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 100);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 1, &c, &s), ACCOUNT_E_QUOTA);
        cr_assert(s.left == 0 && s.limit == 50 && s.asked == 1 && !s.share);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, UINT64_MAX, &c, &s), ACCOUNT_E_QUOTA);
        cr_assert_eq(s.left, 0, "what is over the limit does not wrap");
        cr_assert_eq(charge_grow(&a, alice, &(Cost){ .slots = { 1 } }, NULL), ACCOUNT_E_QUOTA);

        charge_release(&a);     /* 40 of 50 */
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 11, &c, &s), ACCOUNT_E_QUOTA);
        cr_assert_eq(s.left, 10);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 10, &c, NULL), 0);
        charge_release(&c);
        charge_release(&b);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, a_lowered_pool_refuses_everybody_and_does_not_wrap) {
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice, *bob;
        Shortage s;

        begin();
        alice = user(ALICE);
        bob = user(BOB);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 100, &a, NULL), 0);
        accounts.pool.max[ACCOUNT_BYTES] = 99;
        cr_assert_eq(charge(bob, ACCOUNT_BYTES, 1, &b, &s), ACCOUNT_E_QUOTA);
        cr_assert(s.share && s.kind == ACCOUNT_POOL && s.left == 0 && s.limit == 99);
        charge_release(&a);
        cr_assert_eq(charge(bob, ACCOUNT_BYTES, 33, &b, NULL), 0, "99 / (2 + 1)");
        charge_release(&b);
        (void)account_unref(alice);
        (void)account_unref(bob);
        accounts_deinit(&accounts);
}

TEST(account, over_its_limit_an_account_may_still_change_to_what_is_not_more) {
        Charge a = CHARGE_NULL;
        Account *alice;

        begin();
        alice = user(ALICE);
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 80, &a, NULL), 0);
        alice->max[ACCOUNT_BYTES] = accounts.pool.max[ACCOUNT_BYTES] = 10;
        cr_assert_eq(charge_change(&a, &(Cost){ .slots = { 81 } }, NULL), ACCOUNT_E_QUOTA);
        cr_assert_eq(charge_change(&a, &(Cost){ .slots = { 80 } }, NULL), 0);
        cr_assert_eq(charge_change(&a, &(Cost){ .slots = { 79, 1 } }, NULL), 0, "other slots have their own room");
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 79);
        cr_assert_eq(charge_change(&a, &(Cost){ .slots = { 80, 1 } }, NULL), ACCOUNT_E_QUOTA);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 79);
        charge_release(&a);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

/* top has two below it; all is charged to one of those. */
typedef struct Below {
        Account *top, *left, *right;
        Charge l, r;
} Below;

static void below_begin(Below *below, uint64_t left, uint64_t right) {
        *below = (Below){ .l = CHARGE_NULL, .r = CHARGE_NULL };
        REQUIRE(account_new_directory(&below->top, NULL) == 0);
        REQUIRE(account_new_directory(&below->left, below->top) == 0);
        REQUIRE(account_new_directory(&below->right, below->top) == 0);
        REQUIRE(charge(below->left, ACCOUNT_BYTES, left, &below->l, NULL) == 0);
        REQUIRE(charge(below->right, ACCOUNT_BYTES, right, &below->r, NULL) == 0);
}

static void below_end(Below *below) {
        charge_release(&below->l);
        charge_release(&below->r);
        cr_assert_arr_eq(below->top->used, nothing, sizeof(nothing));
        (void)account_unref(below->left);
        (void)account_unref(below->right);
        (void)account_unref(below->top);
}

TEST(account, what_moves_below_a_lowered_limit_takes_nothing_of_it) {
        Below below;

        below_begin(&below, 5, 7);
        below.top->max[ACCOUNT_BYTES] = 1;
        cr_assert_eq(charge_move(&below.l, below.right, NULL), 0);
        cr_assert(below.left->used[ACCOUNT_BYTES] == 0 && below.right->used[ACCOUNT_BYTES] == 12);
        cr_assert_eq(charge_move(&below.l, below.top, NULL), 0, "up to it, too");
        cr_assert(below.top->used[ACCOUNT_BYTES] == 12 && below.right->used[ACCOUNT_BYTES] == 7);

        below.left->max[ACCOUNT_BYTES] = 4;
        cr_assert_eq(charge_move(&below.l, below.left, NULL), ACCOUNT_E_QUOTA, "what is new to it is measured");
        cr_assert_eq(below.top->used[ACCOUNT_BYTES], 12);
        below.left->max[ACCOUNT_BYTES] = 5;
        cr_assert_eq(charge_move(&below.l, below.left, NULL), 0);
        below_end(&below);
}

TEST(account, over_its_limit_a_directory_may_swap_for_what_is_not_more) {
        Charge smaller = CHARGE_NULL;
        Below below;

        below_begin(&below, 5, 7);
        below.left->max[ACCOUNT_BYTES] = below.right->max[ACCOUNT_BYTES] = below.top->max[ACCOUNT_BYTES] = 1;
        cr_assert_eq(load_exchange(&(Load){ .charge = &below.l }, &(Load){ .charge = &below.r }, NULL),
                     ACCOUNT_E_QUOTA, "5 for 7: the left one would have more");
        cr_assert(below.left->used[ACCOUNT_BYTES] == 5 && below.right->used[ACCOUNT_BYTES] == 7);
        below.left->max[ACCOUNT_BYTES] = 7;
        cr_assert_eq(load_exchange(&(Load){ .charge = &below.l }, &(Load){ .charge = &below.r }, NULL), 0);
        cr_assert(below.left->used[ACCOUNT_BYTES] == 7 && below.right->used[ACCOUNT_BYTES] == 5);

        /* In the place of 7, the 5 of the other side. */
        below.left->max[ACCOUNT_BYTES] = 1;
        cr_assert_eq(load_move(&(Load){ .charge = &below.l }, below.left, &below.r, NULL), 0);
        cr_assert(below.left->used[ACCOUNT_BYTES] == 5 && below.right->used[ACCOUNT_BYTES] == 0 && !below.r.account);
        cr_assert_eq(charge(below.right, ACCOUNT_BYTES, 1, &smaller, NULL), ACCOUNT_E_QUOTA, "the top one has 5 of 1");
        below_end(&below);
}

TEST(account, what_a_policy_names_is_charged_whatever_the_limits_say) {
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice, *bob;

        begin();
        alice = user(ALICE);
        bob = user(BOB);
        alice->max[ACCOUNT_REGIONS] = bob->max[ACCOUNT_REGIONS] = accounts.pool.max[ACCOUNT_REGIONS] = 0;
        account_charge_anyway(alice, &(Cost){ .slots = { [ACCOUNT_REGIONS] = 1 } }, &a);
        cr_assert(alice->used[ACCOUNT_REGIONS] == 1 && accounts.pool.used[ACCOUNT_REGIONS] == 1);
        cr_assert_eq(charge(alice, ACCOUNT_REGIONS, 1, &b, NULL), ACCOUNT_E_QUOTA);
        charge_move_anyway(&a, bob);
        cr_assert(alice->used[ACCOUNT_REGIONS] == 0 && bob->used[ACCOUNT_REGIONS] == 1);
        charge_move_anyway(&a, bob);
        cr_assert(bob->used[ACCOUNT_REGIONS] == 1 && accounts.pool.used[ACCOUNT_REGIONS] == 1 && bob->n_refs == 2);
        charge_release(&a);
        (void)account_unref(alice);
        (void)account_unref(bob);
        accounts_deinit(&accounts);
}

/* -- fair shares -------------------------------------------------------------------------- */

#define ACTORS_MAX 8

typedef struct Actors {
        Account *users[ACTORS_MAX];
        Charge charges[ACTORS_MAX];
        size_t n;
} Actors;

static void actors_begin(Actors *actors, size_t n) {
        begin();
        *actors = (Actors){ .n = n };
        for (size_t i = 0; i < n; ++i) {
                actors->users[i] = user((uid_t)(1000 + i));
                actors->users[i]->max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
        }
}

static bool actor_takes(Actors *actors, size_t i, uint64_t amount) {
        return charge_grow(&actors->charges[i], actors->users[i], &(Cost){ .slots = { amount } }, NULL) == 0;
}

static uint64_t actor_has(const Actors *actors, size_t i) {
        return actors->users[i]->used[ACCOUNT_BYTES];
}

static void actors_end(Actors *actors) {
        for (size_t i = 0; i < actors->n; ++i) {
                charge_release(&actors->charges[i]);
                (void)account_unref(actors->users[i]);
        }
        accounts_deinit(&accounts);
}

/* What one may hold is (left + held) / (n + 1): for the first of n who takes anything, 1000 / (n + 1),
 * rounded down. One less fits, the share fits, one more does not. */
TEST(account, the_share_of_the_first_of_n_is_exact) {
        static const uint64_t shares[] = { 0, 500, 333, 250, 200, 166, 142, 125, 111 };

        for (size_t n = 1; n <= ACTORS_MAX; ++n) {
                Actors actors;

                actors_begin(&actors, n);
                REQUIRE(!actor_takes(&actors, 0, UINT64_MAX) && !actor_takes(&actors, 0, shares[n] + 1), "%zu users", n);
                REQUIRE(actor_takes(&actors, 0, shares[n] - 1) && !actor_takes(&actors, 0, UINT64_MAX) &&
                        !actor_takes(&actors, 0, 2), "%zu users", n);
                REQUIRE(actor_takes(&actors, 0, 1) && !actor_takes(&actors, 0, 1), "%zu users", n);
                actors_end(&actors);
        }
}

/* Three take one each in turn; each may come to (1000 - what the others have) / 4. With the others at
 * 165, 166 is allowed as 4 * 166 = 664 <= 1000 - 330; so all get to 166. The first then gets to 167, as
 * 668 <= 1000 - 332. The second would need 668 <= 1000 - 167 - 166 = 667, and so would the third. 499 are
 * taken, 501 are there for others. */
TEST(account, users_who_take_in_turn_come_to_the_same_share) {
        Actors actors;
        bool more = true;

        actors_begin(&actors, 3);
        while (more) {
                more = false;
                for (size_t i = 0; i < 3; ++i)
                        more |= actor_takes(&actors, i, 1);
        }
        cr_assert_eq(actor_has(&actors, 0), 167);
        cr_assert_eq(actor_has(&actors, 1), 166);
        cr_assert_eq(actor_has(&actors, 2), 166);
        cr_assert_eq(accounts.pool.used[ACCOUNT_BYTES], 499);
        actors_end(&actors);
}

/* Each of three takes all it can get, one after the other: 1000 / 4 = 250, (1000 - 250) / 4 = 187,
 * (1000 - 437) / 4 = 140. */
TEST(account, nobody_can_take_the_pool_from_who_comes_later) {
        Actors actors;

        actors_begin(&actors, 3);
        for (size_t i = 0; i < 3; ++i)
                while (actor_takes(&actors, i, 1))
                        ;
        cr_assert_eq(actor_has(&actors, 0), 250);
        cr_assert_eq(actor_has(&actors, 1), 187);
        cr_assert_eq(actor_has(&actors, 2), 140);
        actors_end(&actors);
}

/* However many come, one after the other, and each takes what it can: the next gets something. */
TEST(account, a_newcomer_always_finds_something) {
        Charge charges[24] = { CHARGE_NULL };
        Account *users[24];

        begin();
        for (size_t i = 0; i < 24; ++i) {
                Cost one = { .slots = { 1 } };

                users[i] = user((uid_t)(1000 + i));
                users[i]->max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
                while (charge_grow(&charges[i], users[i], &one, NULL) == 0)
                        ;
                REQUIRE(users[i]->used[ACCOUNT_BYTES] > 0, "the newcomer after %zu others", i);
        }
        for (size_t i = 0; i < 24; ++i) {
                charge_release(&charges[i]);
                (void)account_unref(users[i]);
        }
        accounts_deinit(&accounts);
}

/* Alone, one has half of 1000. When another is there the share of who has 500 is
 * (500 + 500) / 3 = 333: it keeps what it has and gets no more; the other gets 500 / 3 = 166. */
TEST(account, who_has_more_than_its_share_keeps_it_and_gets_no_more) {
        Actors actors;
        Account *late;
        Charge c = CHARGE_NULL;

        actors_begin(&actors, 1);
        cr_assert(actor_takes(&actors, 0, 500));
        late = user(2000);
        late->max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
        cr_assert_not(actor_takes(&actors, 0, 1));
        cr_assert_eq(actor_has(&actors, 0), 500);
        cr_assert_eq(charge(late, ACCOUNT_BYTES, 167, &c, NULL), ACCOUNT_E_QUOTA);
        cr_assert_eq(charge(late, ACCOUNT_BYTES, 166, &c, NULL), 0);
        charge_release(&c);
        (void)account_unref(late);
        cr_assert_not(actor_takes(&actors, 0, 1), "half, also alone again");
        actors_end(&actors);
}

TEST(account, what_can_be_had_again_may_be_said_again) {
        Charge c = CHARGE_NULL;
        Account *alice;

        begin();
        alice = user(ALICE);
        alice->audit.slots = 1U << ACCOUNT_BYTES | 1U << ACCOUNT_PEERS;
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 101, &c, NULL), ACCOUNT_E_QUOTA);
        cr_assert_eq(alice->audit.slots, 1U << ACCOUNT_BYTES | 1U << ACCOUNT_PEERS, "a refusal recovers nothing");
        cr_assert_eq(charge(alice, ACCOUNT_REGIONS, 1, &c, NULL), 0);
        charge_release(&c);
        cr_assert_eq(alice->audit.slots, 1U << ACCOUNT_BYTES | 1U << ACCOUNT_PEERS, "another slot does not either");
        cr_assert_eq(charge(alice, ACCOUNT_BYTES, 1, &c, NULL), 0);
        cr_assert_eq(alice->audit.slots, 1U << ACCOUNT_PEERS);
        charge_release(&c);
        (void)account_unref(alice);
        accounts_deinit(&accounts);
}

TEST(account, a_receipt_that_was_thrown_away_is_written_again) {
        Cost cost = { .slots = { [ACCOUNT_BYTES] = 40, [ACCOUNT_REGIONS] = 1 } };
        Charge c = CHARGE_NULL;
        Account *alice, *bob;

        begin();
        alice = user(ALICE);
        bob = user(BOB);
        cr_assert_eq(account_charge(alice, &cost, &c, NULL), 0);
        charge_forget(&c);
        cr_assert_null(c.account);
        cr_assert(alice->used[ACCOUNT_BYTES] == 40 && alice->used[ACCOUNT_REGIONS] == 1 && alice->n_refs == 1);
        charge_forget(&c);

        c = charge_recall(alice, &cost);
        cr_assert(c.account == alice && alice->used[ACCOUNT_BYTES] == 40 && alice->n_refs == 2);
        cr_assert_eq(charge_move(&c, bob, NULL), 0);
        charge_forget(&c);
        cr_assert(alice->n_refs == 1 && bob->n_refs == 1 && bob->used[ACCOUNT_BYTES] == 40);

        c = charge_recall(bob, &cost);
        charge_release(&c);
        cr_assert_arr_eq(alice->used, nothing, sizeof(nothing));
        cr_assert_arr_eq(bob->used, nothing, sizeof(nothing));
        (void)account_unref(alice);
        (void)account_unref(bob);
        accounts_deinit(&accounts);
}

/* -- bugs of ours ------------------------------------------------------------------------- */

static int free_charged(void *userdata) {
        Charge c = CHARGE_NULL;
        Account *alice;

        begin();
        alice = user(ALICE);
        REQUIRE(charge(alice, ACCOUNT_BYTES, 1, &c, NULL) == 0);
        (void)account_unref(alice);
        (void)account_unref(alice);
        return 0;
}

static int charge_twice(void *userdata) {
        Charge c = CHARGE_NULL;

        begin();
        REQUIRE(charge(user(ALICE), ACCOUNT_BYTES, 1, &c, NULL) == 0);
        (void)charge(user(ALICE), ACCOUNT_BYTES, 1, &c, NULL);
        return 0;
}

static int return_too_much(void *userdata) {
        Charge c = CHARGE_NULL;

        begin();
        REQUIRE(charge(user(ALICE), ACCOUNT_BYTES, 1, &c, NULL) == 0);
        c.bytes = 2;
        charge_release(&c);
        return 0;
}

static int recall_too_much(void *userdata) {
        Charge c = CHARGE_NULL;

        begin();
        REQUIRE(charge(user(ALICE), ACCOUNT_BYTES, 1, &c, NULL) == 0);
        charge_forget(&c);
        (void)charge_recall(user(ALICE), &(Cost){ .slots = { 2 } });
        return 0;
}

static int grow_for_another(void *userdata) {
        Charge c = CHARGE_NULL;

        begin();
        REQUIRE(charge(user(ALICE), ACCOUNT_BYTES, 1, &c, NULL) == 0);
        (void)charge_grow(&c, user(BOB), &(Cost){ .slots = { 1 } }, NULL);
        return 0;
}

static int end_with_users(void *userdata) {
        begin();
        (void)user(ALICE);
        accounts_deinit(&accounts);
        return 0;
}

TEST(account, unbalanced_books_are_bugs_that_do_not_go_unseen) {
        house_expect_signal(SIGABRT, free_charged, NULL);
        house_expect_signal(SIGABRT, charge_twice, NULL);
        house_expect_signal(SIGABRT, return_too_much, NULL);
        house_expect_signal(SIGABRT, recall_too_much, NULL);
        house_expect_signal(SIGABRT, grow_for_another, NULL);
        house_expect_signal(SIGABRT, end_with_users, NULL);
}
