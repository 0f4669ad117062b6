/* Every account the caller may see, page by page. */
#ifndef CLIENT_CTL_USAGE_H
#define CLIENT_CTL_USAGE_H

#include "client/ctl/ctl.h"

/* Calls fn for each account, in the order of their uids. Administrators only.
 * Return: 0, or the negative errno of the call that failed. */
int usage_each_account(Ctl *ctl, void (*fn)(void *data, const struct shmd_usage *usage), void *data);

/* What is left under a limit: 0 if more is used than that. */
static inline uint64_t usage_left(uint64_t limit, uint64_t used) {
        return used < limit ? limit - used : 0;
}

#endif
