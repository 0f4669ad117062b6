/* Arithmetic of limits: pure functions over 64-bit amounts, where overflow is refusal.
 */
#ifndef ACCT_QUOTA_H
#define ACCT_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/overflow.h"

/* A limit that is none. */
#define QUOTA_UNLIMITED UINT64_MAX

/* What is left under a limit. A limit may have been lowered below what is used: then nothing is. */
static inline uint64_t quota_left(uint64_t limit, uint64_t used) {
        return used < limit ? limit - used : 0;
}

/* Whether `want` more fits under a limit. */
static inline bool quota_fits(uint64_t limit, uint64_t used, uint64_t want) {
        uint64_t total;

        return add_u64(used, want, &total) && total <= limit;
}

/* How much one of `n_actors` (it included) may hold of a common pool of which it holds `held` and
 * `left` is free: the pool it could ever see, divided among all actors and one newcomer. So the
 * first actor gets half, and whoever comes later finds something left (the rule is dbus-broker's).
 * An unlimited pool has no shares. */
uint64_t quota_share(uint64_t left, uint32_t n_actors, uint64_t held);

/* May that actor take `want` more of the pool? */
bool quota_allows(uint64_t left, uint32_t n_actors, uint64_t held, uint64_t want);

#endif
