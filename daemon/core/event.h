/* Events: what happens in the tree, numbered, and told to those who watch.
 *
 * Every change of the tree has a number of its own, in the order in which things happened; what a
 * request undoes never gets one. Events observes the tree; what is not the tree's (permissions,
 * freezing, limits) others tell it. Who holds a region is told as well, without a number: it is no
 * change of the tree, and tells what is so now.
 *
 * A *watch* is of a directory with all that is below it, or of one name. It is the thing's, not the
 * path's: it goes along when that is renamed, and names in its events are relative to it. It ends
 * when the thing is gone. Watches hang on the nodes they are of, so that an event costs one look at
 * each directory above it, and what its own watchers cost.
 *
 * Right before existence: a watcher hears of a name below the watched directory if it may list each
 * directory from there down to it in that moment. Of a rename that it may see one side of, it hears
 * that a name appeared or is gone.
 *
 * Each watch has a queue with a bound of its own, so that nobody overflows because of what happens
 * where it does not look. What does not fit is lost, and one event says so, when everything before
 * it was taken. A history of the latest changes lets a watch begin in the past; what it does not
 * have, or what could have been seen or not, is taken for lost.
 *
 * In holders, events takes an interest for the regions below a watch that wants to hear of them.
 * They are found, and let go again, a few a turn.
 */
#ifndef CORE_EVENT_H
#define CORE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "acct/account.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/tree.h"
#include "core/counters.h"
#include "core/record.h"
#include "core/region.h"
#include "core/tree.h"
#include "util/deadline.h"

enum {
        _EVENT_E_SUCCESS,
        EVENT_E_QUOTA,
};

/* What one watch may have in its queue, and changes in the history, at most. */
#define WATCH_QUEUE_BYTES 8192U
#define EVENT_HISTORY 4096U
#define EVENT_HISTORY_BYTES (512U << 10)
/* Names a region has that its events are told at; those beyond are left out. */
#define EVENT_NAMES 64U
/* Names and regions looked at in one turn. */
#define EVENT_STEPS 64U

typedef struct Events Events;
typedef struct Watch Watch;

/* There is something to take. With `pressed`, what comes next is lost unless it is taken now. */
typedef void (*WatchReadyFn)(Watch *watch, bool pressed);

struct Watch {
        RB_ENTRY(Watch) entry;
        Events *events;
        Node *node;             /* NULL: it is gone */
        List in_node;
        List in_limits;         /* of those that want to hear of limits */
        List link;              /* for the owner's lists */
        List ready;
        const Credentials *who; /* borrowed: outlives the watch */
        void *userdata;
        uint64_t id;
        uint64_t serial;        /* the owner's */
        uint32_t mask;
        Charge charge;
        RecordRing queue;
        bool lossy;             /* events were lost after those in the queue */
        uint64_t lost;          /* the last of them */
        EventThing was;         /* what it was of */
        uint64_t removed;       /* when it went; 0: it is there, or that was told */
        /* What happened before it began: still to be looked for in the history. */
        uint64_t since;
        uint64_t replay;
        uint64_t replay_end;
        bool replaying;
        /* A walk over the regions below it, for one that wants to hear of holders. */
        List walk;
        bool walk_again;
        char *cursor;           /* PATH_BYTES_MAX bytes: the last name looked at, relative; NULL: no walks */
        size_t n_cursor;
};

RB_HEAD(WatchTree, Watch);

struct Events {
        Tree *names;
        Deadlines *deadlines;
        TreeObserver observer;
        Counters *counters;     /* NULL: nothing is saved */
        uint64_t sequence;      /* of the latest change */
        RecordRing history;
        uint64_t oldest;        /* in the history; beyond `sequence`: none */
        uint64_t at[EVENT_HISTORY];     /* where each is in the ring, by its number */
        struct WatchTree watches;
        uint64_t n_watches;
        uint64_t last_watch;
        List limits;
        WatchReadyFn ready;
        List walks;             /* watches */
        List notices;           /* looked through in turn */
        List noted;             /* those with news */
        uint64_t n_notices;
        uint64_t stale;         /* of them still to be looked at: whether anybody wants them */
        Deadline work;
};

/* Begins to observe the tree. Return: 0, -ENOMEM. */
int events_init(Events *events, Tree *names, Deadlines *deadlines, WatchReadyFn ready);
/* Every watch must be gone. The tree is observed no more. */
void events_deinit(Events *events);

/* Watches a node: for the bits of `mask`, after the event `since` (0: from now on). Of the end of what is
 * watched, and of losses, every watch hears. Return: 0, EVENT_E_QUOTA, -ENOMEM. */
int watch_new(Watch **ret, Events *events, Account *account, const Credentials *who, Node *node, uint32_t mask,
              uint64_t since, void *userdata, Shortage *shortage);
/* Return: NULL. */
Watch *watch_free(Watch *watch);

Watch *events_find_watch(Events *events, uint64_t id);

typedef enum WatchTake {
        WATCH_NOTHING,
        WATCH_EVENT,
        WATCH_LATER,            /* nothing so far, and more to be looked through: ask again in the next turn */
} WatchTake;

/* Takes the next event. */
WatchTake watch_take(Watch *watch, Record *ret);
/* Whether what it was of is gone and that was told. */
bool watch_is_over(const Watch *watch);

/* For what is not the tree's: a region was frozen; the limits of a user have changed. */
void events_frozen(Events *events, Region *region);
void events_limits_user(Events *events, uid_t uid);

#endif
