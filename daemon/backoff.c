/* When to start the next broker: see the header for the model. */

#include "backoff.h"

#include "util/deadline.h"

/* Doubled from the first to the last. */
#define DELAY_FIRST (10 * NSEC_PER_MSEC)
#define DELAY_LAST NSEC_PER_SEC
/* A broker that ends sooner than this after it was ready was not healthy. */
#define HEALTHY NSEC_PER_SEC

void backoff_ready(Backoff *backoff) {
        backoff->n_unready = 0;
}

static uint64_t delay(unsigned int n_unready) {
        uint64_t ns = DELAY_FIRST;

        if (n_unready <= 1)
                return 0;
        for (unsigned int i = 2; i < n_unready && ns < DELAY_LAST; ++i)
                ns *= 2;
        return ns < DELAY_LAST ? ns : DELAY_LAST;
}

uint64_t backoff_next(Backoff *backoff, const ConfigKeeper *config, bool ready, uint64_t since, uint64_t now) {
        if (ready && now - since >= HEALTHY)
                return 0;
        if (backoff->n_failures == 0 || now - backoff->first_failure > config->window) {
                backoff->first_failure = now;
                backoff->n_failures = 0;
        }
        if (++backoff->n_failures > config->restarts && config->restarts > 0) {
                *backoff = (Backoff){ .n_failures = 0 };
                return BACKOFF_GIVE_UP;
        }
        return ready ? 0 : delay(++backoff->n_unready);
}
