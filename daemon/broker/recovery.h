/* The start of a broker with what the one before it left, and what it leaves to the next one.
 *
 * Kept are descriptors with names: "state", the records of everything; "policy-N", the bytes of the
 * policy in force, which is the Nth; "r1", "r2", ..., the memory of the regions. core/recover makes the
 * regions and the tree again; here the state is chosen, the policy put in force again without a look
 * at any file, and everybody told what became of what could not be recovered.
 *
 * A state that cannot be read is replaced by a new one, under a name that is free ("state-1"); then no
 * region is left. One that a later version wrote, or another user's broker, is left alone with
 * all that belongs to it, and the start is refused.
 */
#ifndef BROKER_RECOVERY_H
#define BROKER_RECOVERY_H

#include "broker/broker.h"

enum {
        _RECOVERY_E_SUCCESS,
        RECOVERY_E_REFUSED,     /* what is kept is not for this program, and is left as it is: the sentence */
};

/* Adopts the state that was kept, or makes a new one. The broker has its core, and nothing is in it yet.
 * What the options say was kept is consumed, always.
 * Return: 0; RECOVERY_E_REFUSED, and start->sentence says why; or a negative errno. */
int recovery_run_consume_fds(Broker *broker);

#endif
