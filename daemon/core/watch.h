/* Waiting for one thing: a name, or that a region is frozen or held by nobody.
 *
 * A Waiter waits until a name exists that its asker may search for, or until something is so of a
 * region. It holds a charge, and it has a deadline; its function is called once, with how it ended,
 * and then the waiter is over. Those that wait for a name are kept by path, so that making a name
 * costs what its own waiters cost; those that wait for a region take an interest in it.
 *
 * Right before existence: a waiter that may not search a directory on the way hears nothing of
 * what happens below it, until it may or its time is over. Who waits for a region found it when it
 * began, and hears of that region whatever becomes of its name.
 */
#ifndef CORE_WATCH_H
#define CORE_WATCH_H

#include <stdint.h>

#include "acct/account.h"
#include "base/list.h"
#include "base/tree.h"
#include "core/region.h"
#include "core/tree.h"
#include "util/deadline.h"

enum {
        _WATCH_E_SUCCESS,
        WATCH_E_QUOTA,
        WATCH_E_DONE,           /* what is waited for is so already */
};

typedef enum WaiterEnd {
        WAITER_DONE,
        WAITER_LATE,            /* the time is over */
        WAITER_GONE,            /* it will never be: the region is gone */
} WaiterEnd;

typedef struct Waiter Waiter;
typedef struct Waiters Waiters;
/* node: with WAITER_DONE, what has the name. The waiter is the callback's to free. */
typedef void (*WaiterFn)(Waiter *waiter, WaiterEnd end, Node *node);

struct Waiter {
        RB_ENTRY(Waiter) entry;
        bool in_tree;           /* it waits for a name */
        Waiters *waiters;
        List link;              /* for the owner's list */
        Credentials who;        /* borrowed: outlives the waiter */
        Deadline deadline;
        Charge charge;
        WaiterFn fn;
        void *userdata;
        uint64_t serial;        /* the owner's */
        uint64_t order;
        Region *region;         /* NULL: it waits for a name; good until the waiter is over */
        RegionNews until;
        RegionInterest interest;
        size_t n_path;
        char path[];
};

RB_HEAD(WaiterTree, Waiter);

struct Waiters {
        struct WaiterTree tree;
        Tree *names;
        Deadlines *deadlines;
        uint64_t n;
        uint64_t order;
};

void waiters_init(Waiters *waiters, Tree *names, Deadlines *deadlines);
void waiters_deinit(Waiters *waiters);

/* Makes a waiter for a valid path, charged one watch and one pending request.
 * Return: 0, WATCH_E_QUOTA, -ENOMEM. */
int waiter_new(Waiter **ret, Waiters *waiters, Account *account, const Credentials *who,
               const void *path, size_t n_path, uint64_t until, WaiterFn fn, void *userdata, Shortage *shortage);
/* Makes one that waits for a region: until REGION_WAS_FROZEN or REGION_IS_UNHELD. path (may be empty)
 * is only remembered. Charged as the other.
 * Return: 0, WATCH_E_DONE, WATCH_E_QUOTA, -ENOMEM. */
int waiter_new_for_region(Waiter **ret, Waiters *waiters, Account *account, const Credentials *who,
                          Region *region, RegionNews until, const void *path, size_t n_path, uint64_t deadline,
                          WaiterFn fn, void *userdata, Shortage *shortage);
/* Return: NULL. */
Waiter *waiter_free(Waiter *waiter);

/* A name was made: tells who waits for it. */
void waiters_notify(Waiters *waiters, const void *path, size_t n_path);

/* The permissions of a directory changed: tells who waits for what is below it. */
void waiters_notify_below(Waiters *waiters, const void *path, size_t n_path);

#endif
