/* Accounts: see the header for the model. */

#include "acct/account.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "acct/quota.h"
#include "base/assert.h"
#include "base/cleanup.h"
#include "util/error.h"

static int account_compare(Account *a, Account *b) {
        return a->uid < b->uid ? -1 : a->uid > b->uid;
}

TREE_GENERATE(AccountTree, Account, entry, account_compare)

static void account_init(Account *account, AccountKind kind, Account *parent, const uint64_t max[_ACCOUNT_SLOT_N]) {
        *account = (Account){ .kind = kind, .uid = (uid_t)-1, .n_refs = 1 };
        account->parent = parent ? account_ref(parent) : NULL;
        list_init(&account->grants);
        list_init(&account->helper.line);
        list_init(&account->helper.link);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                account->max[i] = max ? max[i] : QUOTA_UNLIMITED;
}

static bool account_is_balanced(const Account *account) {
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                if (account->used[i])
                        return false;
        return true;
}

void accounts_init(Accounts *accounts, const uint64_t pool_max[_ACCOUNT_SLOT_N],
                   const uint64_t user_max[_ACCOUNT_SLOT_N],
                   const AccountLimits *exceptions, size_t n_exceptions) {
        *accounts = (Accounts){ .exceptions = exceptions, .n_exceptions = n_exceptions };
        RB_INIT(&accounts->users);
        memcpy(accounts->user_max, user_max, sizeof(accounts->user_max));
        account_init(&accounts->pool, ACCOUNT_POOL, NULL, pool_max);
        accounts->pool.accounts = accounts;
}

bool accounts_are_balanced(const Accounts *accounts) {
        return accounts->n_users == 0 && accounts->pool.n_refs == 1 && account_is_balanced(&accounts->pool);
}

void accounts_deinit(Accounts *accounts) {
        ASSERT(accounts_are_balanced(accounts));
}

const uint64_t *accounts_limits_of(const Accounts *accounts, uid_t uid) {
        for (size_t i = 0; i < accounts->n_exceptions; ++i)
                if (accounts->exceptions[i].uid == uid)
                        return accounts->exceptions[i].max;
        return accounts->user_max;
}

Voice *accounts_voice(Accounts *accounts, uid_t uid) {
        return &accounts->voices[uid % ACCOUNT_VOICES];
}

Account *accounts_find_user(Accounts *accounts, uid_t uid) {
        Account key = { .uid = uid };

        return RB_FIND(AccountTree, &accounts->users, &key);
}

Account *accounts_next_user(Accounts *accounts, uid_t at_least) {
        Account key = { .uid = at_least };

        return RB_NFIND(AccountTree, &accounts->users, &key);
}

int accounts_ref_user(Accounts *accounts, uid_t uid, Account **ret) {
        Account *account = accounts_find_user(accounts, uid);

        if (account) {
                *ret = account_ref(account);
                return 0;
        }
        account = malloc(sizeof(*account));
        if (!account)
                return error_origin(-ENOMEM);

        account_init(account, ACCOUNT_USER, &accounts->pool, accounts_limits_of(accounts, uid));
        account->accounts = accounts;
        account->uid = uid;
        (void)RB_INSERT(AccountTree, &accounts->users, account);
        ++accounts->n_users;

        *ret = account;
        return 0;
}

int account_new_directory(Account **ret, Account *parent) {
        Account *account = malloc(sizeof(*account));

        if (!account)
                return error_origin(-ENOMEM);
        account_init(account, ACCOUNT_DIRECTORY, parent, NULL);
        *ret = account;
        return 0;
}

Account *account_ref(Account *account) {
        ASSERT(account->n_refs > 0);
        ++account->n_refs;
        return account;
}

Account *account_unref(Account *account) {
        if (!account)
                return NULL;
        ASSERT(account->n_refs > 0);
        if (--account->n_refs > 0)
                return NULL;

        ASSERT(account->kind != ACCOUNT_POOL);
        ASSERT(account_is_balanced(account));
        ASSERT(list_is_empty(&account->grants));
        if (account->kind == ACCOUNT_USER) {
                (void)RB_REMOVE(AccountTree, &account->accounts->users, account);
                --account->accounts->n_users;
        }
        (void)account_unref(account->parent);
        free(account);
        return NULL;
}

/* Whether `account` itself can give `want`, on behalf of the user who pays (NULL for directories). */
static bool slot_allows(const Account *account, const Account *payer, AccountSlot slot, uint64_t want,
                        Shortage *shortage) {
        uint64_t left = quota_left(account->max[slot], account->used[slot]);
        uint64_t limit = account->max[slot];
        bool share = false;

        if (want == 0)
                return true;
        if (quota_fits(account->max[slot], account->used[slot], want)) {
                uint64_t held = payer->used[slot];

                if (account->kind != ACCOUNT_POOL || account->max[slot] == QUOTA_UNLIMITED ||
                    quota_allows(left, account->accounts->n_users, held, want))
                        return true;
                share = true;
                limit = quota_share(left, account->accounts->n_users, held);
                left = quota_left(limit, held);
        }
        if (shortage)
                *shortage = (Shortage){
                        .kind = account->kind,
                        .uid = payer->uid,
                        .slot = slot,
                        .share = share || account->kind == ACCOUNT_POOL,
                        .asked = want,
                        .left = left,
                        .limit = limit,
                };
        return false;
}

static bool chain_allows(const Account *payer, const Cost *cost, Shortage *shortage) {
        for (const Account *a = payer; a; a = a->parent)
                for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                        if (!slot_allows(a, payer, (AccountSlot)i, cost->slots[i], shortage))
                                return false;
        return true;
}

static void chain_add(Account *payer, const Cost *cost) {
        for (Account *a = payer; a; a = a->parent)
                for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                        a->used[i] += cost->slots[i];
}

static void chain_take(Account *payer, const Cost *cost) {
        chain_add(payer, cost);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                if (cost->slots[i])
                        payer->audit.slots &= ~(UINT32_C(1) << i);      /* recovered: say the next one again */
}

static void chain_give(Account *payer, const Cost *cost) {
        for (Account *a = payer; a; a = a->parent)
                for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                        ASSERT(a->used[i] >= cost->slots[i]);
                        a->used[i] -= cost->slots[i];
                }
}

int account_charge(Account *account, const Cost *cost, Charge *charge, Shortage *shortage) {
        ASSERT(!charge->account);

        if (!chain_allows(account, cost, shortage))
                return ACCOUNT_E_QUOTA;
        chain_take(account, cost);
        *charge = (Charge){ .account = account_ref(account), .cost = *cost };
        return 0;
}

bool account_has_room_for(const Account *account, const Cost *cost) {
        for (const Account *a = account; a; a = a->parent)
                for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                        bool shared = a->kind == ACCOUNT_POOL && a->max[i] != QUOTA_UNLIMITED;

                        if (cost->slots[i] > (shared ? quota_share(a->max[i], 1, 0) : a->max[i]))
                                return false;
                }
        return true;
}

int charge_grow(Charge *charge, Account *account, const Cost *cost, Shortage *shortage) {
        if (!charge->account)
                return account_charge(account, cost, charge, shortage);

        ASSERT(charge->account == account);
        if (!chain_allows(account, cost, shortage))
                return ACCOUNT_E_QUOTA;
        chain_take(account, cost);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                charge->cost.slots[i] += cost->slots[i];
        return 0;
}

void charge_shrink(Charge *charge, const Cost *cost) {
        chain_give(charge->account, cost);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                ASSERT(charge->cost.slots[i] >= cost->slots[i]);
                charge->cost.slots[i] -= cost->slots[i];
        }
}

int charge_change(Charge *charge, const Cost *cost, Shortage *shortage) {
        chain_give(charge->account, &charge->cost);
        if (!chain_allows(charge->account, cost, shortage)) {
                chain_add(charge->account, &charge->cost);
                return ACCOUNT_E_QUOTA;
        }
        chain_take(charge->account, cost);
        charge->cost = *cost;
        return 0;
}

/* -- moving ----------------------------------------------------------------------------- */

static Cost load_cost(const Load *load) {
        Cost cost = load->charge->cost;

        if (load->account) {
                ASSERT(load->account->parent == load->charge->account);
                for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                        cost.slots[i] += load->account->used[i];
        }
        return cost;
}

/* Writes down who pays; the figures are right already. */
static void load_attach(const Load *load, Account *payer) {
        Account *before = load->charge->account;

        load->charge->account = account_ref(payer);
        if (load->account) {
                load->account->parent = account_ref(payer);
                (void)account_unref(before);
        }
        (void)account_unref(before);
}

int load_move(const Load *load, Account *payer, Charge *instead, Shortage *shortage) {
        Account *before = load->charge->account;
        Cost cost = load_cost(load);

        if (before == payer) {
                if (instead)
                        charge_release(instead);
                return 0;
        }
        chain_give(before, &cost);
        if (instead)
                chain_give(instead->account, &instead->cost);
        if (!chain_allows(payer, &cost, shortage)) {
                if (instead)
                        chain_add(instead->account, &instead->cost);
                chain_add(before, &cost);
                return ACCOUNT_E_QUOTA;
        }
        chain_take(payer, &cost);
        load_attach(load, payer);
        if (instead) {
                (void)account_unref(instead->account);
                *instead = (Charge)CHARGE_NULL;
        }
        return 0;
}

int load_exchange(const Load *a, const Load *b, Shortage *shortage) {
        Account *payer_a = a->charge->account, *payer_b = b->charge->account;
        Cost cost_a = load_cost(a), cost_b = load_cost(b);

        if (payer_a == payer_b)
                return 0;
        chain_give(payer_a, &cost_a);
        chain_give(payer_b, &cost_b);
        if (chain_allows(payer_b, &cost_a, shortage)) {
                chain_add(payer_b, &cost_a);
                if (chain_allows(payer_a, &cost_b, shortage)) {
                        chain_take(payer_a, &cost_b);
                        load_attach(b, payer_a);
                        load_attach(a, payer_b);
                        return 0;
                }
                chain_give(payer_b, &cost_a);
        }
        chain_add(payer_a, &cost_a);
        chain_add(payer_b, &cost_b);
        return ACCOUNT_E_QUOTA;
}

int charge_move(Charge *charge, Account *payer, Shortage *shortage) {
        return load_move(&(Load){ .charge = charge }, payer, NULL, shortage);
}

void charge_release(Charge *charge) {
        Account *payer = charge->account;

        if (!payer)
                return;
        chain_give(payer, &charge->cost);
        *charge = (Charge)CHARGE_NULL;
        (void)account_unref(payer);
}
