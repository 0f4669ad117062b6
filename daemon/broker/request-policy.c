/* A new policy: it comes in parts of a packet each, and takes effect with the last one.
 *
 * What came so far is kept with the peer, at most one policy, as one pending request of its account;
 * a peer that does not go on within the broker's `stall` time begins anew.
 */

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/policy.h"
#include "broker/request.h"
#include "util/error.h"

void staging_drop(Staging *staging) {
        deadline_disarm(&staging->deadline);
        charge_release(&staging->charge);
        free(staging->bytes);
        *staging = (Staging)STAGING_NULL;
}

static void staging_expired(Deadline *deadline, void *userdata) {
        (void)deadline;
        staging_drop(userdata);
}

static void staging_wait(Request *request) {
        const Broker *broker = request->broker;

        deadline_arm(&request->peer->staging.deadline, &request->broker->deadlines,
                     time_now() + broker->options->stall_ns, staging_expired, &request->peer->staging);
}

static int staging_begin(Request *request, uint32_t total) {
        static const Cost cost = { .slots = { [ACCOUNT_PENDING] = 1 } };
        Staging *staging = &request->peer->staging;
        Shortage shortage;

        staging_drop(staging);
        if (account_charge(request->peer->account, &cost, &staging->charge, &shortage))
                return request_shortage(request, &shortage, NULL, 0);
        staging->bytes = malloc(total);
        if (!staging->bytes) {
                staging_drop(staging);
                return error_origin(-ENOMEM);
        }
        staging->total = total;
        return 0;
}

static int refuse(Request *request, const char *sentence) {
        staging_drop(&request->peer->staging);
        return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_POLICY, NULL, 0, "%s", sentence);
}

static int check_part(Request *request, const Shmd__Reload *part) {
        const Staging *staging = &request->peer->staging;

        if (part->total == 0 || part->total > POLICY_BYTES_MAX)
                return refuse(request, "a compiled policy has 1 byte to 1 MiB");
        if (part->data.len == 0 || part->offset > part->total || part->data.len > part->total - part->offset)
                return refuse(request, "a part of a policy has a byte at least, and none beyond its end");
        if (part->offset > 0 && (staging->total != part->total || staging->n != part->offset))
                return refuse(request, "this part of a policy does not follow the one before it: begin anew");
        return 0;
}

static int reply(Request *request, bool done, const PolicyOutcome *outcome) {
        Shmd__ReloadReply message = SHMD__RELOAD_REPLY__INIT;

        message.done = done;
        message.generation = request->broker->generation;
        message.directories = outcome->directories;
        message.accounts = outcome->accounts;
        request->is_idle = !done;
        request->outcome.region = message.generation;
        request->outcome.extra = outcome->directories | (uint64_t)outcome->accounts << 32;
        return request_reply(request, &message.base, NULL, 0);
}

static int take_effect(Request *request, const uint8_t *blob, size_t n) {
        PolicyOutcome outcome = { .directories = 0 };
        char sentence[BROKER_SENTENCE_MAX];
        int r;

        r = broker_set_policy(request->broker, blob, n, &outcome, sentence);
        if (r == BROKER_POLICY_E_REFUSED)
                return refuse(request, sentence);
        if (r == BROKER_POLICY_E_BUSY)
                return request_store_busy(request, NULL, 0);
        staging_drop(&request->peer->staging);
        return r ? error_fold(r) : reply(request, true, &outcome);
}

int request_reload(Request *request) {
        const Shmd__Reload *part = (const Shmd__Reload *)request->message;
        Staging *staging = &request->peer->staging;
        int r;

        r = check_part(request, part);
        if (r)
                return r;
        if (part->data.len == part->total)
                return take_effect(request, part->data.data, part->data.len);
        if (part->offset == 0)
                r = staging_begin(request, part->total);
        if (r)
                return r;

        memcpy(staging->bytes + staging->n, part->data.data, part->data.len);
        if (staging->n + part->data.len == staging->total)
                return take_effect(request, staging->bytes, staging->total);
        staging->n += (uint32_t)part->data.len;
        staging_wait(request);
        return reply(request, false, &(PolicyOutcome){ .directories = 0 });
}
