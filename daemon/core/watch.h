/* Waiting for names.
 *
 * A Waiter waits until a name exists that its asker may search for. It holds a charge, and it
 * has a deadline; exactly one of done and expired is called, once, and then the waiter is over.
 * Waiters are kept by path, so that making a name costs what its own waiters cost.
 *
 * Right before existence: a waiter that may not search a directory on the way hears nothing of
 * what happens below it, until it may or its time is over.
 */
#ifndef CORE_WATCH_H
#define CORE_WATCH_H

#include <stdint.h>

#include "acct/account.h"
#include "base/list.h"
#include "base/tree.h"
#include "core/tree.h"
#include "util/deadline.h"

enum {
        _WATCH_E_SUCCESS,
        WATCH_E_QUOTA,
};

typedef struct Waiter Waiter;
typedef struct Waiters Waiters;
/* node is NULL when the time is over. The waiter is the callback's to free. */
typedef void (*WaiterFn)(Waiter *waiter, Node *node);

struct Waiter {
        RB_ENTRY(Waiter) entry;
        Waiters *waiters;
        List link;              /* for the owner's list */
        Credentials who;        /* borrowed: outlives the waiter */
        Deadline deadline;
        Charge charge;
        WaiterFn fn;
        void *userdata;
        uint64_t serial;        /* the owner's */
        uint64_t order;
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
/* Return: NULL. */
Waiter *waiter_free(Waiter *waiter);

/* A name was made: tells who waits for it. */
void waiters_notify(Waiters *waiters, const void *path, size_t n_path);

/* The permissions of a directory changed: tells who waits for what is below it. */
void waiters_notify_below(Waiters *waiters, const void *path, size_t n_path);

#endif
