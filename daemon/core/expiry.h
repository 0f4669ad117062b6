/* Names that end by themselves, after a time.
 *
 * An Expiry belongs to one name, which frees it when it goes first. Times are of CLOCK_MONOTONIC, as
 * all that waits in the broker: setting the clock ends no name, and neither does the time a machine
 * sleeps, so that after a long suspend the names of an hour are still there for what is left of it.
 *
 * However many end at the same moment, a turn of the loop ends a few of them.
 */
#ifndef CORE_EXPIRY_H
#define CORE_EXPIRY_H

#include <stdint.h>

#include "base/cleanup.h"
#include "util/deadline.h"

/* A name lives for at most a century, or until it is removed. */
#define EXPIRY_MAX_NS (UINT64_C(36525) * 86400 * NSEC_PER_SEC)
/* Names that end in one turn. */
#define EXPIRY_TURN 64

typedef struct Expiries Expiries;
typedef struct Expiry Expiry;
typedef struct Node Node;
/* Takes the name away, which frees its expiry. */
typedef void (*ExpiryFn)(Node *node);

struct Expiries {
        Deadlines queue;        /* of their own: they are taken from it one by one */
        Deadlines *deadlines;   /* everybody's, where the first of them stands for all */
        Deadline due;
        ExpiryFn fn;
};

struct Expiry {
        Expiries *expiries;
        Node *node;             /* NULL: not of a name yet */
        Deadline deadline;
};

void expiries_init(Expiries *expiries, Deadlines *deadlines, ExpiryFn fn);
/* All must be gone. */
void expiries_deinit(Expiries *expiries);

/* Makes one that does nothing yet. Return: 0, -ENOMEM. */
int expiry_new(Expiry **ret, Expiries *expiries);
/* Return: NULL. */
Expiry *expiry_free(Expiry *expiry);

DEFINE_CLEANUP(Expiry, expiry_free);

/* From now on it is the name's, which ends at that time. */
void expiry_start(Expiry *expiry, Node *node, uint64_t at);

/* How long its name still has, at least 1 ns; 0 without one (NULL). */
uint64_t expiry_left(const Expiry *expiry);

#endif
