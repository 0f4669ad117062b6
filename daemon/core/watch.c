/* Waiting for one thing: see the header for the model. */

#include "core/watch.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "util/error.h"
#include "util/spare.h"

/* A slash sorts before everything else, so that a directory is followed by all that is below it. */
static int path_order(const char *a, size_t n_a, const char *b, size_t n_b) {
        size_t n = n_a < n_b ? n_a : n_b;

        for (size_t i = 0; i < n; ++i) {
                if (a[i] == b[i])
                        continue;
                if (a[i] == '/' || b[i] == '/')
                        return a[i] == '/' ? -1 : 1;
                return (unsigned char)a[i] < (unsigned char)b[i] ? -1 : 1;
        }
        return n_a < n_b ? -1 : n_a > n_b;
}

static int waiter_compare(Waiter *a, Waiter *b) {
        int order = path_order(a->path, a->n_path, b->path, b->n_path);

        if (order)
                return order;
        return a->order < b->order ? -1 : a->order > b->order;
}

TREE_GENERATE(WaiterTree, Waiter, entry, waiter_compare)

DEFINE_CLEANUP(Waiter, waiter_free);

void waiters_init(Waiters *waiters, Tree *names, Deadlines *deadlines) {
        *waiters = (Waiters){ .names = names, .deadlines = deadlines };
        RB_INIT(&waiters->tree);
}

void waiters_deinit(Waiters *waiters) {
        ASSERT(RB_EMPTY(&waiters->tree) && waiters->n == 0);
}

static void waiter_expired(Deadline *deadline, void *userdata) {
        Waiter *waiter = userdata;

        (void)deadline;
        waiter->fn(waiter, WAITER_LATE, NULL);
}

/* One that waits for nothing yet, charged and in no tree. */
static int waiter_make(Waiter **ret, Waiters *waiters, Account *account, const Credentials *who,
                       const void *path, size_t n_path, WaiterFn fn, void *userdata, Shortage *shortage) {
        static const Cost cost = { .slots = { [ACCOUNT_WATCHES] = 1, [ACCOUNT_PENDING] = 1 } };
        CLEANUP(waiter_freep) Waiter *waiter = NULL;
        int r;

        waiter = spare_take(sizeof(*waiter) + n_path);
        if (!waiter)
                return error_origin(-ENOMEM);
        *waiter = (Waiter){
                .waiters = waiters,
                .who = *who,
                .deadline = DEADLINE_NULL,
                .charge = CHARGE_NULL,
                .fn = fn,
                .userdata = userdata,
                .order = waiters->order++,
                .n_path = n_path,
        };
        if (n_path > 0)         /* by number: no bytes, and perhaps no address */
                memcpy(waiter->path, path, n_path);
        list_init(&waiter->link);
        ++waiters->n;

        r = account_charge(account, &cost, &waiter->charge, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? WATCH_E_QUOTA : error_fold(r);

        *ret = waiter;
        waiter = NULL;
        return 0;
}

int waiter_new(Waiter **ret, Waiters *waiters, Account *account, const Credentials *who,
               const void *path, size_t n_path, uint64_t until, WaiterFn fn, void *userdata, Shortage *shortage) {
        Waiter *waiter;
        int r;

        r = waiter_make(&waiter, waiters, account, who, path, n_path, fn, userdata, shortage);
        if (r)
                return r < 0 ? error_fold(r) : r;
        waiter->in_tree = true;
        (void)RB_INSERT(WaiterTree, &waiters->tree, waiter);
        deadline_arm(&waiter->deadline, waiters->deadlines, until, waiter_expired, waiter);
        *ret = waiter;
        return 0;
}

static void waiter_heard(RegionInterest *interest, RegionNews news) {
        Waiter *waiter = interest->userdata;

        /* Whom nobody holds and nobody can get any more nobody holds. */
        if (news == waiter->until || (news == REGION_IS_GONE && waiter->until == REGION_IS_UNHELD))
                waiter->fn(waiter, WAITER_DONE, NULL);
        else if (news == REGION_IS_GONE)
                waiter->fn(waiter, WAITER_GONE, NULL);
}

int waiter_new_for_region(Waiter **ret, Waiters *waiters, Account *account, const Credentials *who,
                          Region *region, RegionNews until, const void *path, size_t n_path, uint64_t deadline,
                          WaiterFn fn, void *userdata, Shortage *shortage) {
        CLEANUP(waiter_freep) Waiter *waiter = NULL;
        bool holders = until == REGION_IS_UNHELD;
        int r;

        r = waiter_make(&waiter, waiters, account, who, path, n_path, fn, userdata, shortage);
        if (r)
                return r < 0 ? error_fold(r) : r;
        waiter->region = region;
        waiter->until = until;
        r = region_take_interest(region, &waiter->interest, holders, waiter_heard, waiter);
        if (r <= 0)
                return r < 0 ? error_fold(r) : WATCH_E_DONE;
        deadline_arm(&waiter->deadline, waiters->deadlines, deadline, waiter_expired, waiter);

        *ret = waiter;
        waiter = NULL;
        return 0;
}

Waiter *waiter_free(Waiter *waiter) {
        if (!waiter)
                return NULL;
        if (waiter->in_tree)
                (void)RB_REMOVE(WaiterTree, &waiter->waiters->tree, waiter);
        region_drop_interest(&waiter->interest);
        --waiter->waiters->n;
        list_unlink(&waiter->link);
        deadline_disarm(&waiter->deadline);
        charge_release(&waiter->charge);
        spare_give(waiter, sizeof(*waiter) + waiter->n_path);
        return NULL;
}

/* The first waiter at or after a path, in the order of the tree. */
static Waiter *waiter_from(Waiters *waiters, const void *path, size_t n_path) {
        Waiter *best = NULL;

        for (Waiter *w = RB_ROOT(&waiters->tree); w;) {
                if (path_order(w->path, w->n_path, path, n_path) >= 0) {
                        best = w;
                        w = RB_LEFT(w, entry);
                } else {
                        w = RB_RIGHT(w, entry);
                }
        }
        return best;
}

static void waiter_try(Waiter *waiter) {
        Spot spot;

        if (tree_find(waiter->waiters->names, &waiter->who, waiter->path, waiter->n_path, &spot) == 0)
                waiter->fn(waiter, WAITER_DONE, spot.node);
}

static bool is_below(const Waiter *waiter, const char *path, size_t n_path) {
        if (n_path == 1)
                return true;
        return waiter->n_path > n_path && !memcmp(waiter->path, path, n_path) && waiter->path[n_path] == '/';
}

void waiters_notify(Waiters *waiters, const void *path, size_t n_path) {
        Waiter *next;

        for (Waiter *w = waiter_from(waiters, path, n_path); w; w = next) {
                if (w->n_path != n_path || memcmp(w->path, path, n_path))
                        return;
                next = RB_NEXT(WaiterTree, &waiters->tree, w);
                waiter_try(w);
        }
}

void waiters_notify_below(Waiters *waiters, const void *path, size_t n_path) {
        Waiter *next;

        for (Waiter *w = waiter_from(waiters, path, n_path); w; w = next) {
                next = RB_NEXT(WaiterTree, &waiters->tree, w);
                if (is_below(w, path, n_path))
                        waiter_try(w);
                else if (w->n_path != n_path || memcmp(w->path, path, n_path))
                        return;
        }
}
