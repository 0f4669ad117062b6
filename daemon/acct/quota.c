/* Arithmetic of limits: see the header for the model. */

#include "acct/quota.h"

uint64_t quota_share(uint64_t left, uint32_t n_actors, uint64_t held) {
        uint64_t pool;

        if (!add_u64(left, held, &pool))
                return 0;
        return pool / (n_actors + UINT64_C(1));
}

bool quota_allows(uint64_t left, uint32_t n_actors, uint64_t held, uint64_t want) {
        uint64_t total;

        return add_u64(held, want, &total) && want <= left && total <= quota_share(left, n_actors, held);
}
