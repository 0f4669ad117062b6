/* Recovery: everything as it was before, made from the records of a state and the descriptors that
 * were kept.
 *
 * Two halves have to meet: a record says what a region is, whose, and under which names; a descriptor
 * is its memory. Neither is believed. Records have been decoded and are in order each for itself, and
 * may still contradict each other; a descriptor counts for the region of its name if it is a memfd of
 * ours, of that inode, that size, and sealed. What does not fit is dropped, and noted. What becomes of
 * the rest is decided so that damage takes away and never gives:
 *
 *      a directory whose own record, or one above it, is gone   goes, with all names in it: they appear
 *                                                               nowhere else
 *      the root's record is gone       only administrators get in, until one changes its mode
 *      a name without directory, without region, or taken       goes
 *      a region whose names all went   is an orphan, as if somebody had unlinked it
 *      a region without descriptor     goes, with names, grants and tickets
 *      a grant or ticket without region, a doorbell's page without region   goes; is an orphan
 *      a descriptor without region     is emptied unless somebody holds it, and let go
 *
 * The order of descriptors plays no part. Of records that exclude each other one counts: the one with
 * the lowest number, or the first in the state.
 *
 * Charges are made as they were, without asking any limit: limits may have become lower, and nothing
 * is taken away for that. No event tells of what is made here; numbers of events go on behind all that
 * were ever used, so that who watched hears that events were lost.
 *
 * One thing is forgotten: that a frozen region was closed and something still keeps its file. Nothing is
 * left that could tell when that is gone, so it is not charged any more.
 *
 * It has to be quick, because everybody waits: three system calls for each region, and nothing that is
 * not in order of a sort. What may wait is left for the turns of the loop that follow: orphans are
 * watched and asked, grants looked for, condemned regions emptied, a few a turn (core/region,
 * core/grant).
 */
#ifndef CORE_RECOVER_H
#define CORE_RECOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "acct/account.h"
#include "core/counters.h"
#include "core/event.h"
#include "core/expiry.h"
#include "core/grant.h"
#include "core/region.h"
#include "core/saved.h"
#include "core/state.h"
#include "core/ticket.h"
#include "core/tree.h"
#include "util/fdstore.h"

/* What was dropped, or is not as it was. */
typedef enum RecoverWhat {
        RECOVER_DIRECTORY,
        RECOVER_ROOT,
        RECOVER_REGION,
        RECOVER_NAME,
        RECOVER_TICKET,
        RECOVER_GRANT,
        RECOVER_DESCRIPTOR,
        RECOVER_COUNTERS,
        _RECOVER_WHAT_N,
} RecoverWhat;

/* id: of the record, 0 if that is not known; name: of a descriptor, else NULL. */
typedef void (*RecoverNoteFn)(RecoverWhat what, uint64_t id, const char *name, const char *why, void *userdata);
/* A region ends with a session. Return: false if there is none of that number any more: then its names go. */
typedef bool (*RecoverSessionFn)(Region *region, uint64_t session, void *userdata);

typedef struct Recover {
        /* Given; all of it new and empty, but for the root of the tree, and not saved yet. */
        State *state;           /* adopted */
        FdStore *store;         /* may be NULL */
        Counters *counters;
        Accounts *accounts;
        Tree *tree;
        Regions *regions;       /* has the store */
        Grants *grants;
        Tickets *tickets;
        Expiries *expiries;
        Events *events;
        uint64_t *last_session; /* number */
        uid_t uid;              /* the broker's: owns memfds, and pays for what belongs to nobody */
        RecoverNoteFn note;
        RecoverSessionFn session;
        void *userdata;

        /* How many there are. */
        uint64_t n_directories;
        uint64_t n_regions;
        uint64_t n_names;
        uint64_t n_tickets;
        uint64_t n_grants;
        uint64_t n_condemned;
        uint64_t n_dropped[_RECOVER_WHAT_N];
} Recover;

/* Makes everything, which is saved from then on; sessions are there already. Room was made in the state.
 * kept: all descriptors but the state's and the policy's, in any order; they are consumed, always.
 * Return: 0, or -ENOMEM: then only some of it was made, and the broker must not go on with it. */
int recover_consume_fds(Recover *recover, const Kept *kept, size_t n_kept);

/* The same for a new state: there is nothing but descriptors, and all of them are let go. */
int recover_without_state_consume_fds(Recover *recover, const Kept *kept, size_t n_kept);

#endif
