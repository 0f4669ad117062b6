/* Burials: see the header for the model. */

#include "broker/burial.h"

#include <stdlib.h>

#include "util/helperlink.h"

typedef struct Burial {
        HelperJob job;
        Region *region;
        List link;              /* Broker.burials */
} Burial;

static Burial *burial_free(Burial *burial) {
        if (!burial)
                return NULL;
        helper_job_cancel(&burial->job);
        list_unlink(&burial->link);
        free(burial);
        return NULL;
}

static int burial_submit(Burial *burial, Helpers *helpers) {
        return helper_job_submit(&burial->job, helpers, burial->region->charge.account, burial->region);
}

/* Whatever became of it, the region comes back or has come back, and goes then. */
static void burial_over(HelperJob *job, HelpersOutcome outcome) {
        Burial *burial = job->userdata;
        Broker *broker = burial->region->regions->bury_userdata;

        /* No worker had time for it. */
        if (outcome == HELPERS_LATE && !burial->region->lent && burial_submit(burial, &broker->helpers) == 0)
                return;
        (void)burial_free(burial);
}

bool burial_begin(Region *region, void *userdata) {
        Broker *broker = userdata;
        Burial *burial;

        burial = malloc(sizeof(*burial));
        if (!burial)
                return false;
        *burial = (Burial){ .job = { .packet = { .op = HELPER_BURY }, .fn = burial_over, .userdata = burial },
                            .region = region };
        list_init(&burial->link);
        if (helperlink_enclose(&region->fd)) {
                (void)burial_free(burial);
                return false;
        }
        region->buried = true;
        if (burial_submit(burial, &broker->helpers)) {
                (void)burial_free(burial);
                return false;
        }
        list_append(&broker->burials, &burial->link);
        return true;
}

void burials_free(Broker *broker) {
        Burial *burial;

        while ((burial = list_first(&broker->burials, Burial, link)))
                (void)burial_free(burial);
}
