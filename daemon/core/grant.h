/* Grants: one hand-over of a region to a peer, and what the kernel tells of those still alive.
 *
 * A grant is an open file description of its own, so that read-only is the kernel's business and
 * no two holders share an offset. It is charged to whoever asked. Nobody tells the broker when a
 * grant of a named region ends, so its charge is reconciled lazily: when an account runs short
 * of grants, its own are looked at, oldest first and a few a turn, and only then is it refused.
 *
 * A grant is marked: a read lock on a byte of its own, far above the file, on the description
 * that was handed out; it lives exactly as long as that description. At most 64 of a region are
 * marked, because asking takes longer the more there are. Marks inform: a holder can remove its
 * own, or forge others. A grant without one stays on the books until its asker's session has
 * ended and the lease says that nobody holds the region.
 *
 * Nothing tells of one without a mark whether it lives, so whoever opens and closes such a region again
 * and again would be charged for ever more that it does not hold. So what one session gets of one region
 * without a mark, with the same right and in the same way, is one grant: it is charged once, has one
 * record, and counts how often it was handed out. When the session ends it joins what earlier sessions
 * of the user left. RegionGrants.n is the sum, and so never less than there are holders that left their
 * marks alone. A user who really holds many of them pays for one; one that wants to pay for less than it
 * holds had only to remove its marks before, so that nobody can have more by this than without.
 */
#ifndef CORE_GRANT_H
#define CORE_GRANT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "acct/account.h"
#include "base/list.h"
#include "base/tree.h"
#include "core/state.h"
#include "util/deadline.h"
#include "util/pool.h"

#define GRANT_MARKS_MAX 64
#define GRANT_STEPS 64                  /* looked at in one turn */
#define GRANT_REAP_EVERY 64             /* grants of a region, after which those before are looked at */

enum {
        _GRANT_E_SUCCESS,
        GRANT_E_QUOTA,
        GRANT_E_NO_MEMORY,              /* no descriptor or memory left */
        GRANT_E_FAILED,                 /* the region could not be opened now */
        GRANT_E_FROZEN,                 /* nobody writes to it any more */
};

typedef struct Counters Counters;
typedef struct Grant Grant;
typedef struct Grants Grants;
typedef struct Region Region;
typedef struct RegionGrants RegionGrants;
typedef struct Regions Regions;
typedef struct SavedGrant SavedGrant;

/* Who asked: what is kept of a client. */
typedef struct Asker {
        Account *account;
        uint64_t session;       /* the broker's number of it */
        uid_t uid;
        pid_t pid;
        uint64_t pidfd_ino;
        bool ticket;            /* brought one: neither mode nor ACL was asked */
} Asker;

struct Grant {
        Grants *grants;
        Region *region;
        List in_region;
        List in_account;
        RB_ENTRY(Grant) by_session;     /* without a mark */
        StateRecord record;
        uint64_t id;
        uint64_t session;       /* 0: what earlier ones of that user left */
        uint64_t born;          /* CLOCK_MONOTONIC */
        uint64_t pidfd_ino;
        uid_t uid;
        pid_t pid;
        uint32_t n;             /* how often it was handed out: more than once without a mark. Stops at the largest */
        bool writable;
        bool marked;
        bool ticket;            /* got with a ticket */
        bool joined;            /* is in Grants.unmarked */
        Charge charge;
};

/* A region's part. */
struct RegionGrants {
        List list;              /* oldest first */
        uint64_t granted;       /* all that were ever made */
        uint64_t over_to;       /* those with a number up to this are over, and go a few with each open; 0: none */
        uint64_t n;             /* as often as those on the books were handed out: holders by grants at most */
        uint32_t reap_in;       /* after so many more: reap before the next is marked */
        uint32_t n_marked : 7;
        uint32_t marks_off : 1; /* a mark failed or was slow: none until the next reaping */
        uint32_t swept : 24;    /* the sweep that looked at all of them last, modulo 2^24 */
};
_Static_assert(GRANT_MARKS_MAX < 1 << 7, "they are counted");

typedef bool (*GrantsConnected)(uint64_t session, void *userdata);

RB_HEAD(GrantTree, Grant);

struct Grants {
        Deadlines *deadlines;
        Deadline work;
        GrantsConnected connected;      /* whether a session is still there */
        void *userdata;
        Regions *checked;               /* after a restart: the regions whose grants are looked at ... */
        uint64_t checked_to;            /* ... this was the last */
        Deadline check;
        Account *sweeping;              /* pinned; one account at a time */
        uint64_t left;
        uint64_t sweeps;                /* finished ones */
        State *state;                   /* NULL: nothing is saved */
        Counters *counters;             /* likewise */
        struct GrantTree unmarked;
        uint64_t last_id;
        uint64_t n;             /* each once, however often it was handed out */
        Pool pool;                      /* of them: they come and go with every open, and go many at a time */
};

void grants_init(Grants *grants, Deadlines *deadlines, GrantsConnected connected, void *userdata);
void grants_deinit(Grants *grants);

/* Starts a look at all of the account's grants, a few a turn. Return: a ticket for
 * grants_swept(), or 0 while another look is under way (which may have passed what has ended
 * since: ask again when it is over). */
uint64_t grants_sweep(Grants *grants, Account *account);
/* Whether that look is over. */
bool grants_swept(const Grants *grants, uint64_t ticket);

/* Whether there can be a grant of the region at all, whoever asks.
 * Return: 0, GRANT_E_FROZEN (a writable one of a frozen region). */
int grant_is_possible(Region *region, bool writable);

/* Makes a grant: charges the asker, opens the description, marks it; or hands one without a mark out once more.
 * *ret_fd is the caller's, *ret the region's.
 * Return: 0, GRANT_E_QUOTA (*shortage says where), GRANT_E_NO_MEMORY, GRANT_E_FAILED, GRANT_E_FROZEN
 * (as above), -ENOMEM. */
int grant_new(Grant **ret, int *ret_fd, Grants *grants, Region *region, const Asker *asker, bool writable,
              Shortage *shortage);

/* The last time it was handed out is undone. NULL is fine. Return: NULL. */
Grant *grant_take_back(Grant *grant);

/* Whether that grant would be one that there is, once more, and so costs nothing. */
bool grant_is_free(Region *region, const Asker *asker, bool writable);
/* Whether the asker's session has one without a mark: a writable one, or any. */
bool region_grants_has_unmarked(Region *region, const Asker *asker, bool writable);

/* A session has ended: at most n of its grants without a mark join what earlier ones of its user left.
 * Return: whether none is left to do. */
bool grants_leave(Grants *grants, uint64_t session, size_t n);

/* Puts a grant on the books that was made before a restart, charged to its asker without asking any limit.
 * They must come in the order of their numbers. *ret has another number if there is one without a mark already
 * that it joins: its record is needed no more then, and the other's has changed; without a state of its own it
 * has changed if its session is another one than saved. Return: 0, -ENOMEM. */
int grant_adopt(Grant **ret, Grants *grants, Region *region, Account *asker, const SavedGrant *saved);
/* Begins to look, a few a turn, which of those are over. */
void grants_adopted(Grants *grants, Regions *regions);

/* Takes it off the books (the descriptor is not touched). Return: NULL. */
Grant *grant_free(Grant *grant);

void region_grants_init(RegionGrants *grants);
void region_grants_clear(RegionGrants *grants);

/* Takes the grants that are over off the books: all, if nobody holds the region; else the marked
 * ones whose mark is gone. Return: how many questions to the kernel it took. */
unsigned int region_grants_reap(Region *region);

/* Who holds a region, as far as the kernel and the books can say together. The kernel says only whether
 * anybody does, so that a holder nobody knows of is certain only where no known one is left. */
typedef enum RegionHeld {
        REGION_HELD_UNKNOWN,    /* the kernel cannot say, or only grants that nothing tells of could explain it */
        REGION_HELD_NOT,
        REGION_HELD_BY_GRANTS,  /* held, and grants of it live */
        REGION_HELD_BY_OTHERS,  /* held, and no grant of it is on the books any more */
} RegionHeld;

/* Takes the grants that are over off the books, and says who is left. */
RegionHeld region_grants_held(Region *region);

/* For kernels where leases do not work: whether a mark or a connection explains a holder. */
bool region_grants_explain(Region *region);

#endif
