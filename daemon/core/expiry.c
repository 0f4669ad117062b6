/* Names that end by themselves: see the header for the model. */

#include "core/expiry.h"

#include <errno.h>

#include "util/error.h"
#include "util/spare.h"

static void take_due(Deadline *deadline, void *userdata);

/* Lets everybody's deadlines know of the first one. */
static void stand_for_first(Expiries *expiries) {
        uint64_t first = deadlines_next(&expiries->queue);

        if (first == DEADLINE_NEVER)
                deadline_disarm(&expiries->due);
        else if (!deadline_is_armed(&expiries->due) || expiries->due.at != first)
                deadline_arm(&expiries->due, expiries->deadlines, first, take_due, expiries);
}

static void take_due(Deadline *deadline, void *userdata) {
        Expiries *expiries = userdata;
        uint64_t now = time_now();
        unsigned int n = 0;

        (void)deadline;
        while (n < EXPIRY_TURN && deadlines_run_first(&expiries->queue, now))
                ++n;
        stand_for_first(expiries);
}

static void expired(Deadline *deadline, void *userdata) {
        const Expiry *expiry = userdata;

        (void)deadline;
        expiry->expiries->fn(expiry->node);
}

void expiries_init(Expiries *expiries, Deadlines *deadlines, ExpiryFn fn) {
        *expiries = (Expiries){ .deadlines = deadlines, .due = DEADLINE_NULL, .fn = fn };
        deadlines_init(&expiries->queue);
}

void expiries_deinit(Expiries *expiries) {
        deadlines_deinit(&expiries->queue);
        deadline_disarm(&expiries->due);
}

int expiry_new(Expiry **ret, Expiries *expiries) {
        Expiry *expiry = spare_take(sizeof(*expiry));

        if (!expiry)
                return error_origin(-ENOMEM);
        *expiry = (Expiry){ .expiries = expiries, .deadline = DEADLINE_NULL };
        *ret = expiry;
        return 0;
}

Expiry *expiry_free(Expiry *expiry) {
        if (!expiry)
                return NULL;
        if (deadline_is_armed(&expiry->deadline)) {
                deadline_disarm(&expiry->deadline);
                stand_for_first(expiry->expiries);
        }
        spare_give(expiry, sizeof(*expiry));
        return NULL;
}

void expiry_start(Expiry *expiry, Node *node, uint64_t at) {
        expiry->node = node;
        deadline_arm(&expiry->deadline, &expiry->expiries->queue, at, expired, expiry);
        stand_for_first(expiry->expiries);
}

uint64_t expiry_left(const Expiry *expiry) {
        uint64_t now;

        if (!expiry)
                return 0;
        now = time_now();
        return expiry->deadline.at > now ? expiry->deadline.at - now : 1;
}
