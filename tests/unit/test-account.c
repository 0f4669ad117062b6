/* daemon/acct/account: charges are all or nothing, and the books balance. */

#include "daemon-house.h"

#include <signal.h>

#include "acct/account.h"

static Accounts accounts;
static uint64_t pool_max[_ACCOUNT_SLOT_N];
static uint64_t user_max[_ACCOUNT_SLOT_N];
static const uint64_t nothing[_ACCOUNT_SLOT_N];

/* Limits: 1000 of everything for all, 100 for each. */
static void begin_with(const AccountLimits *exceptions, size_t n) {
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                pool_max[i] = 1000;
                user_max[i] = 100;
        }
        accounts_init(&accounts, pool_max, user_max, exceptions, n);
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
        AccountLimits boundless = { .uid = ALICE };
        static const uint64_t amounts[] = { UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 49, UINT64_C(1) << 63 };
        Charge a = CHARGE_NULL, b = CHARGE_NULL;
        Account *alice;

        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                boundless.max[i] = UINT64_MAX;
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
        cr_assert_eq(c.cost.slots[ACCOUNT_INFLIGHT], 60);
        one.slots[ACCOUNT_INFLIGHT] = 40;
        cr_assert_eq(charge_grow(&c, alice, &one, NULL), 0);
        cr_assert_eq(c.cost.slots[ACCOUNT_INFLIGHT], 100);
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
        AccountLimits exceptions[] = { { .uid = BOB }, { .uid = CAROL } };
        Account *alice, *bob;

        exceptions[0].max[ACCOUNT_BYTES] = 7;
        exceptions[1].max[ACCOUNT_BYTES] = UINT64_MAX;
        begin_with(exceptions, 2);
        alice = user(ALICE);
        bob = user(BOB);
        cr_assert_eq(alice->max[ACCOUNT_BYTES], 100);
        cr_assert_eq(bob->max[ACCOUNT_BYTES], 7);
        cr_assert_eq(accounts_limits_of(&accounts, CAROL)[ACCOUNT_BYTES], UINT64_MAX);
        cr_assert_eq(accounts_limits_of(&accounts, 1)[ACCOUNT_BYTES], 100);
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
        c.cost.slots[ACCOUNT_BYTES] = 2;
        charge_release(&c);
        return 0;
}

static int grow_for_another(void *userdata) {
        Charge c = CHARGE_NULL;

        begin();
        REQUIRE(charge(user(ALICE), ACCOUNT_BYTES, 1, &c, NULL) == 0);
        (void)charge_grow(&c, user(BOB), &c.cost, NULL);
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
        house_expect_signal(SIGABRT, grow_for_another, NULL);
        house_expect_signal(SIGABRT, end_with_users, NULL);
}
