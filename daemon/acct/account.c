/* Accounts: see the header for the model. */

#include "acct/account.h"

#include <errno.h>
#include <string.h>

#include "acct/quota.h"
#include "base/assert.h"
#include "base/cleanup.h"
#include "util/error.h"
#include "util/spare.h"

static int account_compare(Account *a, Account *b) {
        return a->uid < b->uid ? -1 : a->uid > b->uid;
}

TREE_GENERATE(AccountTree, Account, entry, account_compare)

static void account_init(Account *account, AccountKind kind, Account *parent) {
        *account = (Account){ .kind = kind, .uid = (uid_t)-1, .group = NO_GROUP, .n_refs = 1 };
        account->parent = parent ? account_ref(parent) : NULL;
        list_init(&account->grants);
        list_init(&account->helper.line);
        list_init(&account->helper.link);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                account->max[i] = QUOTA_UNLIMITED;
}

static bool account_is_balanced(const Account *account) {
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                if (account->used[i])
                        return false;
        return true;
}

void accounts_init(Accounts *accounts, const Rules *base) {
        ASSERT(base->global.slots == LIMITS_ALL && base->everybody.slots == LIMITS_ALL);

        *accounts = (Accounts){ .base = base };
        RB_INIT(&accounts->users);
        account_init(&accounts->pool, ACCOUNT_POOL, NULL);
        accounts->pool.accounts = accounts;
        accounts_set_policy(accounts, NULL);
}

bool accounts_are_balanced(const Accounts *accounts) {
        return accounts->n_users == 0 && accounts->pool.n_refs == 1 && account_is_balanced(&accounts->pool);
}

void accounts_deinit(Accounts *accounts) {
        ASSERT(accounts_are_balanced(accounts));
}

/* -- rules ------------------------------------------------------------------------------ */

static int compare_user_limits(const void *key, const void *member) {
        uid_t a = *(const uid_t *)key, b = ((const UserLimits *)member)->uid;

        return a < b ? -1 : a > b;
}

static const Limits *rule_of_user(const Rules *rules, uid_t uid) {
        const UserLimits *found = NULL;

        if (rules && rules->n_users)
                found = bsearch(&uid, rules->users, rules->n_users, sizeof(*rules->users), compare_user_limits);
        return found ? &found->limits : NULL;
}

/* The place of a group in the order of the rules; the number of rules if it has none. */
static size_t group_rank(const Rules *rules, gid_t gid) {
        size_t i = 0;

        if (!rules)
                return 0;
        while (i < rules->n_groups && rules->groups[i].gid != gid)
                ++i;
        return i;
}

static const Limits *rule_of_group(const Rules *rules, gid_t gid) {
        size_t rank = group_rank(rules, gid);

        return rules && rank < rules->n_groups ? &rules->groups[rank].limits : NULL;
}

typedef struct Candidate {
        const Limits *limits;   /* NULL: there is no such rule */
        AccountRule rule;
} Candidate;

/* Each slot has the first of these that names it. ret_rules may be NULL. */
static void choose(const Candidate *order, size_t n, uint64_t ret[_ACCOUNT_SLOT_N],
                   AccountRule ret_rules[_ACCOUNT_SLOT_N]) {
        for (size_t slot = 0; slot < _ACCOUNT_SLOT_N; ++slot) {
                size_t i = 0;

                while (!order[i].limits || !(order[i].limits->slots & (UINT32_C(1) << slot)))
                        ASSERT(++i < n);
                ret[slot] = order[i].limits->max[slot];
                if (ret_rules)
                        ret_rules[slot] = order[i].rule;
        }
}

/* The order of the rules for a user: those for its uid, then the first for a group it is in, then
 * those for everybody; at each step the policy before the configuration, which knows no groups. */
static void limits_of(const Accounts *accounts, uid_t uid, gid_t group, uint64_t ret[_ACCOUNT_SLOT_N],
                      AccountRule ret_rules[_ACCOUNT_SLOT_N]) {
        const Rules *policy = accounts->policy, *base = accounts->base;
        const Candidate order[] = {
                { rule_of_user(policy, uid), ACCOUNT_RULE_POLICY_USER },
                { rule_of_user(base, uid), ACCOUNT_RULE_BASE_USER },
                { rule_of_group(policy, group), ACCOUNT_RULE_POLICY_GROUP },
                { policy ? &policy->everybody : NULL, ACCOUNT_RULE_POLICY },
                { &base->everybody, ACCOUNT_RULE_BASE },
        };

        choose(order, sizeof(order) / sizeof(order[0]), ret, ret_rules);
}

void accounts_limits_of(Accounts *accounts, uid_t uid, uint64_t ret[_ACCOUNT_SLOT_N],
                        AccountRule ret_rules[_ACCOUNT_SLOT_N]) {
        const Account *account = accounts_find_user(accounts, uid);

        limits_of(accounts, uid, account ? account->group : NO_GROUP, ret, ret_rules);
}

uint64_t accounts_limit_at_most(const Accounts *accounts, uid_t uid, AccountSlot slot) {
        size_t n = accounts->policy ? accounts->policy->n_groups : 0;
        uint64_t max[_ACCOUNT_SLOT_N], most;

        limits_of(accounts, uid, NO_GROUP, max, NULL);
        most = max[slot];
        for (size_t i = 0; i < n; ++i) {
                limits_of(accounts, uid, accounts->policy->groups[i].gid, max, NULL);
                if (max[slot] > most)
                        most = max[slot];
        }
        return most;
}

bool account_settle(Account *account) {
        uint64_t max[_ACCOUNT_SLOT_N];

        limits_of(account->accounts, account->uid, account->group, max, NULL);
        if (!memcmp(max, account->max, sizeof(max)))
                return false;
        memcpy(account->max, max, sizeof(max));
        account->audit.slots = 0;       /* other limits: their first refusal is news */
        return true;
}

void accounts_set_policy(Accounts *accounts, const Rules *policy) {
        const Candidate order[] = {
                { policy ? &policy->global : NULL, ACCOUNT_RULE_POLICY },
                { &accounts->base->global, ACCOUNT_RULE_BASE },
        };

        accounts->policy = policy;
        choose(order, 2, accounts->pool.max, NULL);
}

uint32_t accounts_settle(Accounts *accounts, void (*fn)(uid_t uid, void *userdata), void *userdata) {
        uint32_t n = 0;
        Account *account;

        RB_FOREACH(account, AccountTree, &accounts->users) {
                if (!account_settle(account))
                        continue;
                ++n;
                if (fn)
                        fn(account->uid, userdata);
        }
        return n;
}

void account_forget_groups(Account *account) {
        account->group = NO_GROUP;
}

void account_meet_groups(Account *account, gid_t gid, const gid_t *groups, size_t n) {
        const Rules *policy = account->accounts->policy;
        size_t best = group_rank(policy, account->group);

        if (!policy)
                return;
        for (size_t i = 0; i <= n && best > 0; ++i) {
                size_t rank = group_rank(policy, i < n ? groups[i] : gid);

                if (rank < best)
                        best = rank;
        }
        if (best < policy->n_groups)
                account->group = policy->groups[best].gid;
}

/* -- the registry ----------------------------------------------------------------------- */

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
        account = spare_take(sizeof(*account));
        if (!account)
                return error_origin(-ENOMEM);

        account_init(account, ACCOUNT_USER, &accounts->pool);
        account->accounts = accounts;
        account->uid = uid;
        limits_of(accounts, uid, NO_GROUP, account->max, NULL);
        (void)RB_INSERT(AccountTree, &accounts->users, account);
        ++accounts->n_users;

        *ret = account;
        return 0;
}

int account_new_directory(Account **ret, Account *parent) {
        Account *account = spare_take(sizeof(*account));

        if (!account)
                return error_origin(-ENOMEM);
        account_init(account, ACCOUNT_DIRECTORY, parent);
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
        spare_give(account, sizeof(*account));
        return NULL;
}

/* Of what is left of the pool, a payer gets a share. */
static bool is_shared(const Account *account, AccountSlot slot) {
        return account->kind == ACCOUNT_POOL && account->max[slot] != QUOTA_UNLIMITED;
}

static inline bool gives(const Account *account, const Account *payer, AccountSlot slot, uint64_t want) {
        uint64_t limit = account->max[slot], used = account->used[slot];

        return quota_fits(limit, used, want) &&
               (!is_shared(account, slot) ||
                quota_allows(quota_left(limit, used), account->accounts->n_users, payer->used[slot], want));
}

bool account_can_give(const Account *account, const Account *payer, AccountSlot slot, uint64_t want, Shortage *ret) {
        uint64_t left = quota_left(account->max[slot], account->used[slot]), limit = account->max[slot];

        if (is_shared(account, slot) && (want == 0 || quota_fits(limit, account->used[slot], want))) {
                uint64_t held = payer->used[slot];

                limit = quota_share(left, account->accounts->n_users, held);
                left = quota_left(limit, held);
        }
        *ret = (Shortage){
                .kind = account->kind,
                .uid = payer->uid,
                .slot = slot,
                .share = account->kind == ACCOUNT_POOL,
                .asked = want,
                .left = left,
                .limit = limit,
        };
        return want == 0 || gives(account, payer, slot, want);
}

/* Whether `account` itself can give `want`, on behalf of the user who pays. */
static inline bool slot_allows(const Account *account, const Account *payer, AccountSlot slot, uint64_t want,
                        Shortage *shortage) {
        if (gives(account, payer, slot, want))
                return true;
        if (shortage)
                (void)account_can_give(account, payer, slot, want, shortage);
        return false;
}

/* What a payer gets rid of in the same moment, given back already: nobody who takes no more than
 * that can be short, not even under a limit that was lowered. */
typedef struct Relief {
        const Cost *cost;               /* off the payer's own chain; may be NULL */
        const Account *below;           /* what it takes over comes from there: in what is above both, */
                                        /* but the pool, nothing changes; may be NULL */
} Relief;

static bool is_above(const Account *account, const Account *below) {
        for (; below; below = below->parent)
                if (below == account)
                        return true;
        return false;
}

/* Bits: the slots that it is of, which are one or two of them as a rule. */
static uint32_t slots_of(const Cost *cost) {
        uint32_t slots = 0;

        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                slots |= (uint32_t)(cost->slots[i] > 0) << i;
        return slots;
}

/* Takes the lowest of the bits. */
static inline AccountSlot take_lowest(uint32_t *slots) {
        AccountSlot slot = (AccountSlot)__builtin_ctz(*slots);

        *slots &= *slots - 1;
        return slot;
}

/* ... but for those in which the payer gets rid of as much. */
static uint32_t slots_beyond(const Cost *cost, const Relief *relief) {
        uint32_t slots = slots_of(cost);

        for (size_t i = 0; relief->cost && i < _ACCOUNT_SLOT_N; ++i)
                if (cost->slots[i] <= relief->cost->slots[i])
                        slots &= ~(UINT32_C(1) << i);
        return slots;
}

/* `slots` are those that are asked for. */
static bool chain_allows_slots(const Account *payer, const Cost *cost, uint32_t slots, const Relief *relief,
                               Shortage *shortage) {
        for (const Account *a = payer; a; a = a->parent) {
                if (relief && a->kind != ACCOUNT_POOL && is_above(a, relief->below))
                        return true;
                for (uint32_t left = slots; left;) {
                        AccountSlot slot = take_lowest(&left);

                        if (!slot_allows(a, payer, slot, cost->slots[slot], shortage))
                                return false;
                }
        }
        return true;
}

static bool chain_allows(const Account *payer, const Cost *cost, const Relief *relief, Shortage *shortage) {
        return chain_allows_slots(payer, cost, slots_beyond(cost, relief), relief, shortage);
}

static void chain_add_slots(Account *payer, const Cost *cost, uint32_t slots) {
        for (Account *a = payer; a; a = a->parent)
                for (uint32_t left = slots; left;) {
                        AccountSlot slot = take_lowest(&left);

                        a->used[slot] += cost->slots[slot];
                }
}

static void chain_add(Account *payer, const Cost *cost) {
        chain_add_slots(payer, cost, slots_of(cost));
}

static void chain_take_slots(Account *payer, const Cost *cost, uint32_t slots) {
        chain_add_slots(payer, cost, slots);
        payer->audit.slots &= ~slots;           /* recovered: say the next one again */
}

static void chain_take(Account *payer, const Cost *cost) {
        chain_take_slots(payer, cost, slots_of(cost));
}

static void chain_give(Account *payer, const Cost *cost) {
        uint32_t slots = slots_of(cost);

        for (Account *a = payer; a; a = a->parent)
                for (uint32_t left = slots; left;) {
                        AccountSlot slot = take_lowest(&left);

                        ASSERT(a->used[slot] >= cost->slots[slot]);
                        a->used[slot] -= cost->slots[slot];
                }
}

Cost charge_cost(const Charge *charge) {
        Cost cost = { .slots = { [ACCOUNT_BYTES] = charge->bytes } };

        if (charge->n)
                cost.slots[charge->slot] = charge->n;
        if (charge->n_second)
                cost.slots[charge->second] = charge->n_second;
        return cost;
}

static void charge_set_slots(Charge *charge, const Cost *cost, uint32_t slots) {
        uint32_t left = slots & ~(UINT32_C(1) << ACCOUNT_BYTES);
        AccountSlot slot;

        *charge = (Charge){ .account = charge->account, .bytes = cost->slots[ACCOUNT_BYTES] };
        if (left) {
                slot = take_lowest(&left);
                ASSERT(cost->slots[slot] <= UINT32_MAX);
                charge->n = (uint32_t)cost->slots[slot];
                charge->slot = (uint8_t)slot;
        }
        if (left) {
                slot = take_lowest(&left);
                ASSERT(cost->slots[slot] <= UINT16_MAX);
                charge->n_second = (uint16_t)cost->slots[slot];
                charge->second = (uint8_t)slot;
        }
        ASSERT(!left);
}

static void charge_set(Charge *charge, const Cost *cost) {
        charge_set_slots(charge, cost, slots_of(cost));
}

static void take(Account *account, const Cost *cost, uint32_t slots, Charge *charge) {
        ASSERT(!charge->account);
        chain_take_slots(account, cost, slots);
        charge->account = account_ref(account);
        charge_set_slots(charge, cost, slots);
}

int account_charge(Account *account, const Cost *cost, Charge *charge, Shortage *shortage) {
        uint32_t slots = slots_of(cost);

        if (!chain_allows_slots(account, cost, slots, NULL, shortage))
                return ACCOUNT_E_QUOTA;
        take(account, cost, slots, charge);
        return 0;
}

void account_charge_anyway(Account *account, const Cost *cost, Charge *charge) {
        take(account, cost, slots_of(cost), charge);
}

bool account_can_count(const Account *account, const Cost *cost) {
        for (const Account *a = account; a; a = a->parent)
                for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                        if (cost->slots[i] > UINT64_MAX - a->used[i])
                                return false;
        return true;
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
        if (!chain_allows_slots(account, cost, slots_of(cost), NULL, shortage))
                return ACCOUNT_E_QUOTA;
        charge_grow_anyway(charge, cost);
        return 0;
}

void charge_grow_anyway(Charge *charge, const Cost *cost) {
        Cost all = charge_cost(charge);

        chain_take(charge->account, cost);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                all.slots[i] += cost->slots[i];
        charge_set(charge, &all);
}

void charge_shrink(Charge *charge, const Cost *cost) {
        Cost all = charge_cost(charge);

        chain_give(charge->account, cost);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                ASSERT(all.slots[i] >= cost->slots[i]);
                all.slots[i] -= cost->slots[i];
        }
        charge_set(charge, &all);
}

int charge_change(Charge *charge, const Cost *cost, Shortage *shortage) {
        Cost before = charge_cost(charge);

        chain_give(charge->account, &before);
        if (!chain_allows(charge->account, cost, &(Relief){ .cost = &before }, shortage)) {
                chain_add(charge->account, &before);
                return ACCOUNT_E_QUOTA;
        }
        chain_take(charge->account, cost);
        charge_set(charge, cost);
        return 0;
}

/* -- charges of one slot: on the way of every open ---------------------------------------- */

int account_may_charge_slot(const Account *account, AccountSlot slot, uint32_t amount, Shortage *shortage) {
        for (const Account *a = account; a; a = a->parent)
                if (!slot_allows(a, account, slot, amount, shortage))
                        return ACCOUNT_E_QUOTA;
        return 0;
}

static void take_slot(Account *payer, AccountSlot slot, uint64_t amount) {
        for (Account *a = payer; a; a = a->parent)
                a->used[slot] += amount;
        payer->audit.slots &= ~(UINT32_C(1) << slot);
}

static void give_slot(Account *payer, AccountSlot slot, uint64_t amount) {
        for (Account *a = payer; a; a = a->parent) {
                ASSERT(a->used[slot] >= amount);
                a->used[slot] -= amount;
        }
}

int account_charge_slot(Account *account, AccountSlot slot, uint32_t amount, Charge *charge, Shortage *shortage) {
        ASSERT(!charge->account && slot != ACCOUNT_BYTES && amount > 0);

        if (account_may_charge_slot(account, slot, amount, shortage))
                return ACCOUNT_E_QUOTA;
        take_slot(account, slot, amount);
        *charge = (Charge){ .account = account_ref(account), .n = amount, .slot = (uint8_t)slot };
        return 0;
}

int charge_grow_slot(Charge *charge, Account *account, AccountSlot slot, uint32_t amount, Shortage *shortage) {
        if (!charge->account)
                return account_charge_slot(account, slot, amount, charge, shortage);

        ASSERT(charge->account == account && charge->slot == slot && charge->n > 0 && charge->n_second == 0);
        ASSERT(charge->n <= UINT32_MAX - amount);
        if (account_may_charge_slot(account, slot, amount, shortage))
                return ACCOUNT_E_QUOTA;
        take_slot(account, slot, amount);
        charge->n += amount;
        return 0;
}

/* -- moving ----------------------------------------------------------------------------- */

static Cost load_cost(const Load *load) {
        Cost cost = charge_cost(load->charge);

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

int load_may_move(const Load *load, Account *payer, const Charge *instead, Shortage *shortage) {
        Account *before = load->charge->account;
        Cost cost = load_cost(load), room = { .slots = { 0 } };
        Relief relief = { .cost = instead ? &room : NULL, .below = before };
        bool fits;

        if (before == payer)
                return 0;
        if (instead)
                room = charge_cost(instead);
        chain_give(before, &cost);
        if (instead)
                chain_give(instead->account, &room);
        fits = chain_allows(payer, &cost, &relief, shortage);
        if (instead)
                chain_add(instead->account, &room);
        chain_add(before, &cost);
        return fits ? 0 : ACCOUNT_E_QUOTA;
}

int load_move(const Load *load, Account *payer, Charge *instead, Shortage *shortage) {
        Account *before = load->charge->account;
        Cost cost = load_cost(load);

        if (load_may_move(load, payer, instead, shortage))
                return ACCOUNT_E_QUOTA;
        if (before != payer) {
                chain_give(before, &cost);
                chain_take(payer, &cost);
                load_attach(load, payer);
        }
        if (instead)
                charge_release(instead);
        return 0;
}

int load_exchange(const Load *a, const Load *b, Shortage *shortage) {
        Account *payer_a = a->charge->account, *payer_b = b->charge->account;
        Cost cost_a = load_cost(a), cost_b = load_cost(b);

        if (payer_a == payer_b)
                return 0;
        chain_give(payer_a, &cost_a);
        chain_give(payer_b, &cost_b);
        if (chain_allows(payer_b, &cost_a, &(Relief){ .cost = &cost_b, .below = payer_a }, shortage)) {
                chain_add(payer_b, &cost_a);
                if (chain_allows(payer_a, &cost_b, &(Relief){ .cost = &cost_a, .below = payer_b }, shortage)) {
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

void charge_move_anyway(Charge *charge, Account *payer) {
        Cost cost = charge_cost(charge);

        chain_give(charge->account, &cost);
        chain_take(payer, &cost);
        load_attach(&(Load){ .charge = charge }, payer);
}

void charge_release(Charge *charge) {
        Account *payer = charge->account;

        if (!payer)
                return;
        if (charge->bytes)
                give_slot(payer, ACCOUNT_BYTES, charge->bytes);
        if (charge->n)
                give_slot(payer, (AccountSlot)charge->slot, charge->n);
        if (charge->n_second)
                give_slot(payer, (AccountSlot)charge->second, charge->n_second);
        *charge = (Charge)CHARGE_NULL;
        (void)account_unref(payer);
}

void charge_forget(Charge *charge) {
        Account *payer = charge->account;

        *charge = (Charge)CHARGE_NULL;
        (void)account_unref(payer);
}

Charge charge_recall(Account *account, const Cost *cost) {
        Charge charge = { .account = account_ref(account) };

        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                ASSERT(account->used[i] >= cost->slots[i]);
        charge_set(&charge, cost);
        return charge;
}
