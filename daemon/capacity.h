/* Capacity: what this machine and this process's limits allow, and the "auto" of the
 * configuration worked out from it.
 *
 * Every region keeps a descriptor, every connection has one, and every descriptor on its way to a
 * client counts too. So the soft limit is raised to the hard one and divided; a configuration that
 * asks for more than there can be is an error at start, not a surprise at the worst time.
 */
#ifndef CAPACITY_H
#define CAPACITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

enum {
        _CAPACITY_E_SUCCESS,
        CAPACITY_E_IMPOSSIBLE,          /* config->message has both numbers */
};

/* Raises the soft limit of descriptors to the hard one. Return: 0 and the limit, negative errno. */
int capacity_raise_descriptors(uint64_t *ret);

/* Half of the smaller of the machine's memory and the lowest limit of a memory cgroup this process
 * is in. Bytes. */
uint64_t capacity_memory(void);

/* How many of those may be regions, connections and descriptors in flight; the rest are its own. */
uint64_t capacity_objects(uint64_t descriptors);
/* Whether there are so many that a stock of memory takes nothing away from those (core/stock). */
bool capacity_has_stock(uint64_t descriptors);
/* How many of those a keeper may keep: as many regions as there can be and what the broker needs beside them, and
 * yet so few that the next broker, which gets them all, can start. */
uint64_t capacity_kept(uint64_t descriptors);

/* How many descriptors the keeper may park in sockets, so that there is room for what is on its way between broker
 * and clients. is_user: the user is not the broker's alone, and all that is in flight counts against each process. */
uint64_t capacity_parked(const Config *config, uint64_t descriptors, bool is_user);

/* Replaces every CONFIG_AUTO. Return: 0, CAPACITY_E_IMPOSSIBLE. */
int capacity_resolve(Config *config, uint64_t descriptors, uint64_t memory);

#endif
