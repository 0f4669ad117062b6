/* Persist: what of the core's objects is in the state.
 *
 * Each object that must survive has its record in it (core/state), which the modules mark when a saved
 * field changes. Here is which fields those are: what of an object goes into its record. Everything
 * else is either asked of the kernel again (seals, marks, who holds a region), follows from other
 * records (charges, bounds of paths), or is no more than a hint (questions under way, queues).
 */
#ifndef CORE_PERSIST_H
#define CORE_PERSIST_H

#include "core/counters.h"
#include "core/grant.h"
#include "core/region.h"
#include "core/saved.h"
#include "core/state.h"
#include "core/ticket.h"
#include "core/tree.h"

/* The policy in force, of which the state has no more than this. */
typedef struct PersistPolicy {
        StateRecord record;
        SavedPolicy saved;
} PersistPolicy;

/* Tells the state how the records of the core are written. */
void persist_register(State *state);

/* What of an object is saved, as the decoders of its kind give it back. */
void persist_directory(const Directory *directory, SavedDirectory *ret);
void persist_name(const Node *name, SavedName *ret);
void persist_region(const Region *region, SavedRegion *ret);
void persist_ticket(const Ticket *ticket, SavedTicket *ret);
void persist_grant(const Grant *grant, SavedGrant *ret);

#endif
