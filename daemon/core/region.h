/* Regions: memory of a fixed size with an owner, and their life and death.
 *
 * A region is one memfd. Its size never changes; its owner pays for the size rounded up to its
 * pages, from creation until the kernel says that nobody holds it any more. No message and no
 * disconnect ends the charge: only the lease probe does (util/memfd.h). Each name beyond the first
 * counts as one region more, so that names are no way around the limit.
 *
 *      named  --unlink-->  orphan  --nobody holds it-->  condemned  --punched-->  gone
 *        ^                   |
 *        +----- publish -----+
 *
 * A region with a name stays, held or not. One without is an orphan: it has an inotify watch, a
 * close event makes us ask, and a "still held" right after an event is asked again a few times,
 * because the event can come before the last reference is gone. Watch first, then probe:
 * otherwise a close between the two is never noticed. A region that sockets hold which hold each
 * other, and nobody holds them, is let go when the kernel collects them; we make it do so whenever
 * a peer has left. A condemned region is emptied in steps,
 * so that no turn of the loop is long, and then closed: the hole detaches what pipes and O_PATH
 * descriptors may still refer to. A frozen one cannot be emptied; if it is large, another process
 * closes it (RegionsBury), once the store of descriptors has let go of it. What O_PATH descriptors keep
 * of it, which no lease tells of, stays charged until inotify says that the file is gone.
 * Memory of one owner is never handed to another.
 *
 * Somebody may take an interest in a region that has a name, and be told when the kernel was asked
 * who holds it: then it is watched and asked in the same way as an orphan, for as long as the
 * interest lasts. Regions that nobody takes an interest in cost no watch and no question.
 *
 * A region can have a doorbell: a page of memory that those who hold the region wait on and ring
 * without us (the layout is in PROTOCOL.md). The page is a region of its own, on the same account, and
 * without a name. Its region keeps it as a name would; once that is gone it is an orphan like others.
 * Its inode may be opened for reading by whoever has a descriptor of it, which is what inotify asks for.
 *
 * What a grant cannot undo: a descriptor that was handed out is the kernel's business. Changing
 * the mode or unlinking takes nothing back.
 */
#ifndef CORE_REGION_H
#define CORE_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "acct/account.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/tree.h"
#include "core/access.h"
#include "core/counters.h"
#include "core/grant.h"
#include "core/regionindex.h"
#include "core/state.h"
#include "core/stock.h"
#include "core/ticket.h"
#include "core/tree.h"
#include "util/deadline.h"
#include "util/fdstore.h"
#include "util/pool.h"

enum {
        _REGION_E_SUCCESS,
        REGION_E_QUOTA,
        REGION_E_SIZE,          /* larger than a file can be, or not a multiple of its huge pages */
        REGION_E_UNSUPPORTED,   /* no huge pages of that size */
        REGION_E_NO_PAGES,      /* not enough huge pages free */
        REGION_E_NO_MEMORY,     /* the machine is out of memory, descriptors or inodes */
        REGION_E_BUSY,          /* the store of descriptors has no room for one more at the moment */
};

typedef enum RegionLifetime {
        REGION_NAMED,           /* until unlinked */
        REGION_SESSION,         /* until its creator's connection ends */
        REGION_COUNTED,         /* until nobody holds it: see region_count() */
} RegionLifetime;

typedef enum RegionState {
        REGION_STATE_NAMED,     /* has a name, or is being made */
        REGION_STATE_ORPHAN,
        REGION_STATE_CONDEMNED,
} RegionState;

/* What is told of a region to those who take an interest in it. */
typedef enum RegionNews {
        REGION_IS_HELD,         /* it was asked after a close, and somebody holds it */
        REGION_IS_UNHELD,       /* it was asked, and nobody does */
        REGION_WAS_GRANTED,     /* somebody got a grant, which may be taken back in the same turn */
        REGION_WAS_FROZEN,
        REGION_IS_GONE,         /* nobody holds it, and nobody can get it any more; the interest is over */
} RegionNews;

typedef struct Notice Notice;
typedef struct SavedRegion SavedRegion;
typedef struct RegionInterest RegionInterest;
/* May drop this interest and others, and take the region's names away. */
typedef void (*RegionNewsFn)(RegionInterest *interest, RegionNews news);

struct RegionInterest {
        List link;              /* in Region.interests */
        Region *region;         /* NULL: none */
        bool holders;           /* wants to hear who holds it: news but the last two come only then */
        RegionNewsFn fn;
        void *userdata;
};

typedef struct RegionSpec {
        uint64_t size;          /* bytes */
        unsigned int huge_shift;
        bool freezable;
        bool bell;              /* a doorbell's page */
        RegionLifetime lifetime;
        Permissions permissions;        /* borrowed: it gets a copy */
} RegionSpec;

/* What most regions never need: those that have a name, whose holders nobody cares for, which have neither
 * doorbell nor tickets, and are doorbells or a session's no more than they count their holders. */
typedef struct RegionMore {
        RB_ENTRY(RegionMore) by_watch;
        Region *region;
        int watch;              /* inotify, -1: none */
        uint8_t retry;          /* how often it was asked since the last event */
        List link;              /* asked, or condemned */
        Deadline probe;
        uint64_t punched;       /* bytes */
        List interests;
        uint32_t n_wanting;     /* of them, in its holders */
        Notice *notice;         /* core/event: its own interest, NULL: none */
        RegionInterest counted; /* the region's own, for REGION_COUNTED */
        List session;           /* in its creator's list, for REGION_SESSION ... */
        uint64_t session_number;/* ... and which that is; 0: in none */
        RegionTickets tickets;
        Region *pair;           /* the page of its doorbell, NULL: none yet; a page's region, NULL: gone */
        uint64_t poke_failed;   /* a page: when the helper last could not write its flag; CLOCK_MONOTONIC */
        uint64_t marks_again_at;/* without leases: until then, marks that are off are not asked after */
} RegionMore;

/* What it takes to hand it out comes first: a cache line. */
struct Region {
        Permissions permissions;
        int fd;                 /* our own description, opened, O_NONBLOCK */
        uint16_t seals;         /* F_SEAL_*, as last asked: region_seals() */
        uint8_t huge_shift;
        uint8_t lifetime;       /* RegionLifetime */
        uint64_t id;
        uint64_t size;
        Regions *regions;
        uint8_t state;          /* RegionState */
        bool freezable : 1;
        bool published : 1;     /* has or had a name */
        bool proven : 1;        /* the latest lease said that nobody holds it */
        bool lent : 1;          /* another process has our descriptor, and may be stuck with it */
        bool buried : 1;        /* fd is not its own any more, but something that encloses it */
        bool stored : 1;        /* the store of descriptors has one of it */
        bool told_frozen : 1;   /* those who wait for that, and watch, were told */
        bool is_bell : 1;       /* a doorbell's page */
        bool polled : 1;        /* a page: it tells ringers that somebody polls */
        bool poked : 1;         /* a page: the helper is about to write that */
        uint32_t revoked;       /* how often tickets were, all or some, those there are no more included; it wraps */
        RegionGrants grants;
        RegionMore *more;       /* NULL: region_more() says what is so then. Owned */
        Ring names;             /* of nodes; empty without a name */
        StateRecord record;
        Charge charge;          /* the owner's: region_n_names() */
        uint64_t created_ns;    /* CLOCK_REALTIME */
        uint64_t inode;         /* 0 where nothing is saved */
};
_Static_assert(sizeof(void *) != 8 || sizeof(Region) == 192, "three cache lines, as it begins with one in its pool");

/* Lets a region that was condemned, and cannot be emptied in steps, be closed where nobody waits for
 * it; it is lent until that is over. Return: whether it will be. */
typedef bool (*RegionsBury)(Region *region, void *userdata);
/* A region came back from another process and is frozen, which was not told yet. */
typedef void (*RegionsFrozen)(Region *region, void *userdata);

RB_HEAD(RegionWatchTree, RegionMore);

struct Regions {
        Pool pool;
        RegionIndex by_id;      /* all but those condemned */
        struct RegionWatchTree by_watch;
        Deadlines *deadlines;
        Grants *grants;
        State *state;           /* NULL: nothing is saved */
        Counters *counters;     /* likewise */
        FdStore *store;         /* has a descriptor of each region, by region_store_name(). NULL: there is none */
        uint64_t last_id;
        Stock stock;            /* of memory for those to come */
        uint64_t n;             /* all that exist, condemned ones included */
        uint64_t n_named;
        uint64_t n_orphans;
        uint64_t n_condemned;
        uint64_t n_released;
        uint64_t n_buried;      /* of the condemned: lent to be closed elsewhere */
        uint64_t n_kept;        /* of the condemned: closed, and kept by somebody */
        RegionsBury bury;       /* NULL: nobody does that */
        void *bury_userdata;
        RegionsFrozen frozen;   /* NULL: nobody wants to know */
        void *frozen_userdata;
        List asked;             /* orphans, and those with an interest in their holders: they are
                                 * asked in turn, first is the one not asked for longest */
        uint64_t n_asked;
        List condemned;
        List kept;
        List leaving;           /* of the condemned: the store is to let go of them before they are buried ... */
        List departing;         /* ... and is asked whether it has */
        uint64_t n_leaving;     /* on both lists */
        FdBarrier departure;
        int inotify;            /* -1 where there is none */
        Deadline work;
        Deadline sweep_due;
        uint64_t sweep;         /* regions still to ask in this sweep */
        uint64_t swept_at;
        Deadline collect;
        unsigned int n_collects;
        uint64_t n_asking;      /* of those asked: to be asked again after an event */
        Deadline overlooked_due;
        uint64_t overlooked;    /* how far it is looked for orphans that there was no memory to ask after */
        uint64_t n_overflows;   /* of events */
        bool overflowed;        /* since the last sweep began */
        bool missed;            /* this sweep is for events that got lost: "held" is asked again as after one */
};

/* grants: borrowed. Return: 0, negative errno. */
int regions_init(Regions *regions, Deadlines *deadlines, Grants *grants);
/* All regions must have lost their names; what is left is closed without waiting for holders. */
void regions_deinit(Regions *regions);

/* The store goes, and what is in it stays there. */
void regions_forget_store(Regions *regions);

/* Descriptor to be polled for reading, -1 for none; then call regions_dispatch(). */
static inline int regions_fd(const Regions *regions) {
        return regions->inotify;
}
void regions_dispatch(Regions *regions);

/* Asks every orphan, and every region with an interest in its holders, a few a turn and not more often
 * than ten times a second: after an overflow of events, or when a peer left. */
void regions_sweep(Regions *regions);

typedef enum RegionsSqueeze {
        REGIONS_SPENT,          /* nothing more will come */
        REGIONS_SOON,           /* something is being released: ask again in the next turn */
        REGIONS_LATER,          /* something may have been let go a moment ago: ask again in some ms */
} RegionsSqueeze;

/* A charge was refused `waited` nanoseconds ago: is something about to be released? Takes in what
 * the kernel has said up to now, and starts a sweep unless there was one a moment ago. */
RegionsSqueeze regions_squeeze(Regions *regions, uint64_t waited);

/* Under which name the store has the descriptor of a region. */
void region_store_name(uint64_t id, char ret[FDSTORE_NAME_MAX]);

/* What a region costs its owner. Return: 0, REGION_E_SIZE. */
int region_cost(const RegionSpec *spec, Cost *ret);
/* What each of its names costs the directories above it. */
Cost region_place_cost(const Region *region);

/* Makes a region charged to `owner`. It has neither name nor watch yet: the caller links it, or
 * makes it an orphan once a grant exists.
 * Return: 0, REGION_E_QUOTA (*shortage says where), REGION_E_SIZE, REGION_E_UNSUPPORTED,
 * REGION_E_NO_PAGES, REGION_E_NO_MEMORY, REGION_E_BUSY, or a negative errno. */
int region_new(Region **ret, Regions *regions, Account *owner, const RegionSpec *spec, Shortage *shortage);

/* Ends a region that has no name and was never handed out, or at shutdown. Return: NULL. */
Region *region_free(Region *region);

DEFINE_CLEANUP(Region, region_free);

/* Ends a region that was made a moment ago and never handed out, with its name if it got one.
 * NULL is fine. Return: NULL. */
Region *region_discard(Region *region);

Region *regions_find(Regions *regions, uint64_t id);
/* The one with the next higher number, NULL after the last. */
Region *regions_after(Regions *regions, uint64_t id);

/* It ends with the session of that number, which has it in its list; and does not any more. */
void region_join_session(Region *region, List *regions, uint64_t number);
void region_leave_session(Region *region);
/* The first of a session's list, NULL if there is none. */
Region *region_of_session(const List *regions);

/* Gives it a name, the first or one more, at a free spot, or, with spot->node naming a region, takes
 * that name over; if it was the other's last, that is an orphan. Charged to the directories, and one
 * more name to the owner as well. With its first name ever, it takes its ACL from the default ACL of
 * the directory.
 * Return: 0, REGION_E_QUOTA, -ENOMEM. */
int region_link(Region *region, const Spot *spot, Shortage *shortage);
/* The same at a free spot, for a region that may be discarded still: nobody is told of the name before
 * tree_announce(). */
int region_link_silently(Region *region, const Spot *spot, Shortage *shortage);

/* Its first name, NULL without. */
Node *region_name(const Region *region);

/* Takes a name of a region away; with the last one, unless somebody holds it, it goes. */
void region_unlink_name(Node *name);
/* Takes all of its names away. */
void region_unlink(Region *region);

/* A name was taken away otherwise (tree_rename()): if it was the last, as region_unlink_name(). */
void region_lost_name(Region *region);

/* From now on it lives as long as somebody holds it. Harmless if it is so already. */
void region_orphan(Region *region);

/* Takes an interest in the region: fn is told what happens to it, and with `holders` who holds it.
 * interest is the caller's, and lasts until it is dropped or the region is gone. To hear of holders
 * costs an inotify watch. Return: 1 if somebody holds the region now; without `holders`, always 1;
 * 0; -ENOMEM, and there is no interest. */
int region_take_interest(Region *region, RegionInterest *interest, bool holders, RegionNewsFn fn, void *userdata);
/* Harmless if it is over already, or was never taken (region NULL). */
void region_drop_interest(RegionInterest *interest);
/* From now on its names go when nobody holds it any more, and it with them. Somebody must hold it. */
void region_count(Region *region);
/* Tells everybody who takes an interest. */
void region_tell(Region *region, RegionNews news);

/* Moves the charge to another account, its doorbell's too, and ends its tickets, which were the old
 * owner's word. Return: 0, REGION_E_QUOTA. */
int region_chown(Region *region, Account *owner, Shortage *shortage);

/* The page of its doorbell, made on first use and charged to its owner.
 * Return: 0 and *ret, which is the region's; as region_new(). */
int region_bell(Region *region, Region **ret, Shortage *shortage);

/* A process of ours has a copy of its descriptor, and has given it back. The lease cannot tell: the
 * copy is the same description. A region that is lent counts as held, and one that was condemned
 * goes when it comes back. */
void region_lend(Region *region);
void region_return(Region *region);

/* F_SEAL_* of its inode; asked once, unless somebody may add to them. */
uint32_t region_seals(Region *region);
/* Whether nobody can get it for writing any more, and no seal changes. */
bool region_is_frozen(Region *region);

/* Whether somebody holds it, by the kernel's word, or without leases by what marks and connections say. */
bool region_is_held(Region *region);

/* -- after a restart: core/recover alone -------------------------------------------------- */

/* Makes a region that was there before, around the memory that is its own, charged to `owner` without
 * asking any limit. It has no names yet. fd is consumed, always.
 * Return: 0; REGION_E_SIZE, and *ret is not set; -ENOMEM. */
int region_adopt_consume_fd(Region **ret, Regions *regions, Account *owner, const SavedRegion *saved,
                            const Permissions *permissions, int fd);
/* The name, which is in the tree, is the region's latest. */
void region_adopt_name(Region *region, Node *name);
/* The page is the region's doorbell, unless one of the two cannot be that. Return: 0, -ENOMEM. */
int region_adopt_bell(Region *region, Region *page);
/* It has all that belongs to it: goes on with its life. Whether anybody holds it is asked later. */
void region_adopted(Region *region);
/* All have: begins to ask. */
void regions_adopted(Regions *regions);

/* -- looking ------------------------------------------------------------------------------ */

/* For what it has only when it is needed, and most have not. */
extern const RegionMore region_nothing_more;
static inline const RegionMore *region_more(const Region *region) {
        return region->more ? region->more : &region_nothing_more;
}

/* The page of its doorbell, or a page's region, NULL: it has none. */
static inline Region *region_page(const Region *region) {
        return region->is_bell ? NULL : region_more(region)->pair;
}
static inline Region *region_rings_for(const Region *region) {
        return region->is_bell ? region_more(region)->pair : NULL;
}

/* Makes room for that. Return: 0, -ENOMEM. */
int region_expand(Region *region);

/* -- figures ------------------------------------------------------------------------------ */

/* Bytes charged: the size rounded up to its pages. */
static inline uint64_t region_charged(const Region *region) {
        return region->charge.bytes;
}

/* How many names it has: as many regions are charged, and one where there is none. */
static inline uint32_t region_n_names(const Region *region) {
        return region->names.first ? region->charge.n : 0;
}

#endif
