/* Accounts: what somebody may use, and uses, in several slots.
 *
 * There is one account per uid that owns or asks for anything, one for the common pool, and one
 * per directory. Accounts form chains: a user's account stands under the pool, a directory's
 * under its parent's. A charge takes a vector of amounts from an account and from everything
 * above it, all or nothing.
 *
 * An account's own limits are exact. Of the pool a user gets at most a fair share (quota.h), so
 * that nobody can starve the others however generous the limits are.
 *
 * Which limits a user has is decided by rules (struct Rules), slot by slot; limits_of() in
 * account.c is the one place that says in which order. A limit may become lower than what is used:
 * nothing is taken away then, and what would take more is refused until it is below the limit again.
 * What takes no more of an account than it gives back is never refused by it.
 *
 * A Charge is the receipt and lives inside what it pays for. It pins its account, and only
 * charge_release() gives the amounts back: nobody can return what was never taken, or twice.
 * When an account is freed it proves that its books are balanced. Of what there is a million of, the
 * receipt need not be kept where it can be written again, word for word, from what is there anyway:
 * charge_forget() and charge_recall().
 */
#ifndef ACCT_ACCOUNT_H
#define ACCT_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/tree.h"

typedef enum AccountSlot {
        ACCOUNT_BYTES,
        ACCOUNT_REGIONS,
        ACCOUNT_GRANTS,
        ACCOUNT_PEERS,
        ACCOUNT_WATCHES,
        ACCOUNT_PENDING,
        ACCOUNT_INFLIGHT,       /* descriptors sent and not yet received */
        _ACCOUNT_SLOT_N,
} AccountSlot;

typedef enum AccountKind {
        ACCOUNT_POOL,
        ACCOUNT_USER,
        ACCOUNT_DIRECTORY,
} AccountKind;

enum {
        _ACCOUNT_E_SUCCESS,
        ACCOUNT_E_QUOTA,
};

typedef struct Account Account;
typedef struct Accounts Accounts;
typedef struct Charge Charge;
typedef struct Cost Cost;
typedef struct Shortage Shortage;

struct Cost {
        uint64_t slots[_ACCOUNT_SLOT_N];
};

/* There are as many as there are things, so it is small: bytes, and amounts of two other slots at most,
 * more than which nothing costs. charge_cost() says them. */
struct Charge {
        Account *account;       /* NULL: nothing is charged */
        uint64_t bytes;
        uint32_t n;             /* of `slot` ... */
        uint16_t n_second;      /* ... and, if it is more than nothing, of `second`, a later one */
        uint8_t slot;           /* AccountSlot */
        uint8_t second;
};

#define CHARGE_NULL { .account = NULL }
#define NO_GROUP ((gid_t)-1)

/* Why a charge was refused: the first slot that was short, in the account nearest to the payer. */
struct Shortage {
        AccountKind kind;       /* of the account whose limit it is */
        uid_t uid;              /* the payer, for user accounts */
        AccountSlot slot;
        bool share;             /* not the limit itself, but a fair share of it */
        uint64_t asked;
        uint64_t left;
        uint64_t limit;
};

struct Account {
        RB_ENTRY(Account) entry;
        Accounts *accounts;
        Account *parent;        /* pinned; NULL at the top */
        uint64_t n_refs;
        AccountKind kind;
        uid_t uid;
        gid_t group;            /* whose rule holds for this user; NO_GROUP: none */
        uint64_t max[_ACCOUNT_SLOT_N];
        uint64_t used[_ACCOUNT_SLOT_N];

        /* Kept here for others, who alone look at them. */
        List grants;            /* core/grant: the grants this user asked for, oldest first */
        uint64_t granted;       /* core/grant: how many there ever were, of all below it too */
        struct {
                uint32_t slots;         /* broker/audit: shortages said once already, by slot */
        } audit;
        struct {
                uint64_t number;        /* broker/peer: a turn of the loop */
                uint64_t spent;         /* nanoseconds of it that this user's requests took */
                uint64_t behind;        /* the last turn that ended with one of its peers in line */
        } turn;
        struct {
                List line;              /* broker/helpers: its jobs that no worker has */
                List link;              /* of the accounts that wait for a worker */
                uint32_t n_workers;     /* that work for it */
        } helper;
};

/* How fast the refusals of a user may fill the log: broker/audit alone looks at it. Kept by uid and
 * not in the account, which a user without anything left can have made anew with each connection.
 * Uids that fall together share one. */
#define ACCOUNT_VOICES 256

typedef struct Voice {
        uint64_t refill_at;     /* CLOCK_MONOTONIC; 0: never used */
        uint32_t tokens;
        uint64_t suppressed;
} Voice;

RB_HEAD(AccountTree, Account);

/* What a rule says: a limit in each slot that it names, and nothing about the others. */
typedef struct Limits {
        uint32_t slots;         /* bits: which it names */
        uint64_t max[_ACCOUNT_SLOT_N];
} Limits;

#define LIMITS_ALL ((UINT32_C(1) << _ACCOUNT_SLOT_N) - 1)

typedef struct UserLimits {
        uid_t uid;
        Limits limits;
} UserLimits;

typedef struct GroupLimits {
        gid_t gid;
        Limits limits;
} GroupLimits;

/* Where a limit comes from, the weakest first. */
typedef enum AccountRule {
        ACCOUNT_RULE_NONE,
        ACCOUNT_RULE_BASE,              /* the base's, for everybody */
        ACCOUNT_RULE_BASE_USER,
        ACCOUNT_RULE_POLICY,            /* the policy's, for everybody */
        ACCOUNT_RULE_POLICY_GROUP,
        ACCOUNT_RULE_POLICY_USER,
} AccountRule;

/* There are two sets of rules: the base, from the configuration, names every slot of `global` and
 * `everybody`; a policy lies over it and is swapped as a whole. */
typedef struct Rules {
        Limits global;          /* all together */
        Limits everybody;       /* each user */
        UserLimits *users;      /* by ascending uid, each once */
        size_t n_users;
        GroupLimits *groups;    /* each once; the first that fits a user counts */
        size_t n_groups;
} Rules;

struct Accounts {
        struct AccountTree users;
        uint32_t n_users;
        Account pool;
        const Rules *base;
        const Rules *policy;    /* NULL: none */
        Voice voices[ACCOUNT_VOICES];
};

/* base: borrowed, must outlive the registry. */
void accounts_init(Accounts *accounts, const Rules *base);
/* Every account must be gone and the pool balanced. */
void accounts_deinit(Accounts *accounts);
/* Whether that is so: the books, for the last line of the log. */
bool accounts_are_balanced(const Accounts *accounts);

/* Finds or makes the account of a uid; *ret is a reference the caller owns.
 * Return: 0, -ENOMEM. */
int accounts_ref_user(Accounts *accounts, uid_t uid, Account **ret);
/* The account of a uid, or the first above it, borrowed; NULL when there is none. */
Account *accounts_find_user(Accounts *accounts, uid_t uid);
Account *accounts_next_user(Accounts *accounts, uid_t at_least);
Voice *accounts_voice(Accounts *accounts, uid_t uid);
/* The limits a uid has, or, without an account, would have as far as its number tells; and (may be
 * NULL) which rules say so. */
void accounts_limits_of(Accounts *accounts, uid_t uid, uint64_t ret[_ACCOUNT_SLOT_N],
                        AccountRule ret_rules[_ACCOUNT_SLOT_N]);
/* The highest limit that a uid can have in a slot, whatever groups it is in. */
uint64_t accounts_limit_at_most(const Accounts *accounts, uid_t uid, AccountSlot slot);

/* Puts a policy (borrowed; NULL: none) over the base, in the place of the one before. Only the pool
 * changes at once: of the users' accounts, account_forget_groups(), account_meet_groups() and
 * accounts_settle() make the rest, which must follow before anything is charged. */
void accounts_set_policy(Accounts *accounts, const Rules *policy);
/* A user is in the groups its clients were in when they connected: in all of them, and of an account
 * without clients the last word counts, until the next one connects. account_settle() must follow. */
void account_forget_groups(Account *account);
void account_meet_groups(Account *account, gid_t gid, const gid_t *groups, size_t n);
/* Gives an account the limits its rules say. Return: whether they are other than before. */
bool account_settle(Account *account);
/* The same for each account, and calls fn (may be NULL) for each that has other limits than before. Walks
 * over all accounts, of which there are at most as many as connections, regions and directories.
 * Return: how many have other limits. */
uint32_t accounts_settle(Accounts *accounts, void (*fn)(uid_t uid, void *userdata), void *userdata);

/* Makes a directory's account without limits under `parent` (NULL at the top).
 * Return: 0, -ENOMEM. */
int account_new_directory(Account **ret, Account *parent);

Account *account_ref(Account *account);
/* Return: NULL. The last one asserts that nothing is charged any more. */
Account *account_unref(Account *account);

/* What account_charge() asks of one account, for one slot, on behalf of the payer at the foot of the
 * chain. *ret has the figures in either case. Return: whether it can give that much. */
bool account_can_give(const Account *account, const Account *payer, AccountSlot slot, uint64_t want, Shortage *ret);

/* Takes `cost` from the account and everything above it, or nothing at all. *charge must be
 * CHARGE_NULL. On refusal *shortage (may be NULL) says where it was short.
 * Return: 0, ACCOUNT_E_QUOTA. */
int account_charge(Account *account, const Cost *cost, Charge *charge, Shortage *shortage);

/* The same of one slot alone, which is all that most charges are, and (the second) whether it would be;
 * charge_grow_slot() is what charge_grow() is, for a charge of that slot alone. Amounts are not 0.
 * Return: 0, ACCOUNT_E_QUOTA. */
int account_charge_slot(Account *account, AccountSlot slot, uint32_t amount, Charge *charge, Shortage *shortage);
int account_may_charge_slot(const Account *account, AccountSlot slot, uint32_t amount, Shortage *shortage);
int charge_grow_slot(Charge *charge, Account *account, AccountSlot slot, uint32_t amount, Shortage *shortage);

/* The same without asking any limit: for what an administrator's policy names, and for what was charged
 * before a restart. */
void account_charge_anyway(Account *account, const Cost *cost, Charge *charge);

/* Whether all that is used still is a number with that much more. */
bool account_can_count(const Account *account, const Cost *cost);

/* Whether it could ever be charged, were nothing else charged and nobody else there. */
bool account_has_room_for(const Account *account, const Cost *cost);

/* What is charged. */
Cost charge_cost(const Charge *charge);

/* Adds to a charge, or makes it if it is CHARGE_NULL. Return: 0, ACCOUNT_E_QUOTA. */
int charge_grow(Charge *charge, Account *account, const Cost *cost, Shortage *shortage);
/* Adds to one that is there, without asking any limit. */
void charge_grow_anyway(Charge *charge, const Cost *cost);

/* Gives a part of a charge back, which must be in it. */
void charge_shrink(Charge *charge, const Cost *cost);

/* Lets the same account pay another cost: the old one is given back first.
 * Return: 0, ACCOUNT_E_QUOTA: then nothing has changed. */
int charge_change(Charge *charge, const Cost *cost, Shortage *shortage);

/* Lets another account pay. Return: 0, ACCOUNT_E_QUOTA: then nothing has changed. */
int charge_move(Charge *charge, Account *payer, Shortage *shortage);
/* The same without asking any limit. */
void charge_move_anyway(Charge *charge, Account *payer);

/* What moves as one: a charge, and, unless it is NULL, an account under the same payer with all
 * that is charged to it. */
typedef struct Load {
        Charge *charge;
        Account *account;
} Load;

/* Lets another account pay for a load, which must not be a part of that account. What the two have
 * above them in common does not change. `instead` (may be NULL) is a charge that ends by this: its
 * room is free for the load. Return: 0, ACCOUNT_E_QUOTA: then nothing has changed. */
int load_move(const Load *load, Account *payer, Charge *instead, Shortage *shortage);
/* What load_move() would return; changes nothing. */
int load_may_move(const Load *load, Account *payer, const Charge *instead, Shortage *shortage);

/* Lets each of two loads be paid for where the other was. Neither is asked for room that the other
 * leaves. Return: 0, ACCOUNT_E_QUOTA: then nothing has changed. */
int load_exchange(const Load *a, const Load *b, Shortage *shortage);

/* Gives everything back and unpins the account; CHARGE_NULL is fine. */
void charge_release(Charge *charge);

/* Throws the receipt away and leaves the amounts taken; the account is pinned by somebody else until it is
 * written again, for the same account and cost. A charge that is recalled is forgotten again, or released. */
void charge_forget(Charge *charge);
Charge charge_recall(Account *account, const Cost *cost);

#endif
