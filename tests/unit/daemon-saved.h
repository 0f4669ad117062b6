/* Whether the state has what there is: every record against its object, field by field, and every object
 * with its record.
 *
 * It knows for itself what has to survive, and shares with the code under test only how bytes are
 * decoded. Outcomes and sessions are no business of the core and not compared.
 */
#ifndef TESTS_UNIT_DAEMON_SAVED_H
#define TESTS_UNIT_DAEMON_SAVED_H

#include "core/counters.h"
#include "core/event.h"
#include "core/grant.h"
#include "core/persist.h"
#include "core/region.h"
#include "core/state.h"
#include "core/ticket.h"
#include "core/tree.h"

/* What there is. */
typedef struct SavedHouse {
        State *state;
        const Tree *tree;
        Regions *regions;
        const Grants *grants;
        const Tickets *tickets;
        const Counters *counters;
        const Events *events;           /* NULL: there are none */
        const PersistPolicy *policy;    /* NULL: none is saved */
        bool whole;                     /* there are sessions, too: what is saved must fit together (core/inspect) */
} SavedHouse;

/* Fails the test if the state, as a process after this one would find it, is another one. Everything must
 * be committed. Return: how many records were compared. */
size_t saved_check(const SavedHouse *house);

#endif
