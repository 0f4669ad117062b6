/* Burials: large regions that nobody holds and that cannot be emptied in steps, because they are frozen
 * or because this kernel does not say that nobody holds them. Their memory goes when they are closed,
 * all of it at once, which takes 0.1 ms a MiB: not in the broker's time, but in a helper's. Such a
 * region stays charged until it is over.
 *
 * If there is no helper, the broker closes it after all.
 */
#ifndef BROKER_BURIAL_H
#define BROKER_BURIAL_H

#include "broker/broker.h"

/* Takes a condemned region: a RegionsBury. */
bool burial_begin(Region *region, void *broker);

/* The broker stops: waits for none of them. */
void burials_free(Broker *broker);

#endif
