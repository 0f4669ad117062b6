/* Freezing a region: no more writing, or only by who does already.
 *
 * The seal that forbids writing is added by the owner's library, through its own read-write grant:
 * the kernel refuses it while writers are mapped, and may keep waiting whoever asks. The broker then
 * sees that it is there, and has the helper add F_SEAL_SEAL, after which no seal can be added by
 * anybody: the region is frozen for good. The answer comes when that is done, or when a holder has
 * kept the kernel from it for too long.
 *
 * What was asked is done also when the asker has gone meanwhile.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "broker/helpers.h"
#include "broker/request.h"
#include "util/error.h"
#include "util/spare.h"

struct Freeze {
        HelperJob job;
        Broker *broker;
        Peer *peer;             /* NULL: gone */
        uint64_t serial;
        uint64_t region;
        uint32_t hash;
        Charge charge;
        List link;              /* in Broker.freezes */
        List in_peer;
        size_t n_path;
        char path[];
};

static Freeze *freeze_free(Freeze *freeze) {
        if (!freeze)
                return NULL;
        helper_job_cancel(&freeze->job);
        list_unlink(&freeze->link);
        list_unlink(&freeze->in_peer);
        charge_release(&freeze->charge);
        spare_give(freeze, sizeof(*freeze) + freeze->n_path);
        return NULL;
}

DEFINE_CLEANUP(Freeze, freeze_free);

void freezes_free(Broker *broker) {
        Freeze *freeze;

        while ((freeze = list_first(&broker->freezes, Freeze, link)))
                (void)freeze_free(freeze);
}

void peer_leave_freezes(Peer *peer) {
        Freeze *freeze;

        while ((freeze = list_first(&peer->freezes, Freeze, in_peer))) {
                list_unlink(&freeze->in_peer);
                freeze->peer = NULL;
        }
}

void peer_finish_freezes(Peer *peer) {
        Freeze *freeze;
        Refusal refusal;

        while ((freeze = list_first(&peer->freezes, Freeze, in_peer))) {
                audit_refuse(&refusal, SHMD__ERROR__ERROR_SHUTDOWN, SHMD__REASON__REASON_STOPPING,
                             freeze->path, freeze->n_path, "the broker is stopping");
                peer_refuse(peer, MESSAGE_FREEZE, freeze->serial, &refusal, &freeze->charge);
                (void)freeze_free(freeze);
        }
}

/* -- the outcome ------------------------------------------------------------------------ */

static void refuse_outcome(Refusal *refusal, const Freeze *freeze, HelpersOutcome outcome) {
        const char *error = strerrordesc_np(-freeze->job.error);

        switch (outcome) {
        case HELPERS_LATE:
                audit_refuse(refusal, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_HELPER,
                             freeze->path, freeze->n_path, "a holder of the region keeps the kernel from sealing it");
                break;
        case HELPERS_GONE:
                audit_refuse(refusal, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_HELPER,
                             freeze->path, freeze->n_path, "the broker's helper process has ended");
                break;
        case HELPERS_DONE:
        case HELPERS_FAILED:
        default:
                audit_refuse(refusal, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_KERNEL,
                             freeze->path, freeze->n_path, "the kernel would not seal the region: %s",
                             error ? error : "unknown error");
                break;
        }
}

/* Without room for it there is no note: to freeze it once more is done at once as well, as long as the region
 * is there. */
static void note_outcome(const Freeze *freeze, uint32_t seals) {
        Session *session = freeze->peer->session;
        SavedOutcome outcome = { .serial = freeze->serial, .kind = MESSAGE_FREEZE, .hash = freeze->hash,
                                 .extra = seals };

        if (session_make_room(session, 0) == 0 && state_make_room(session->sessions->state, STATE_RECORD_CELLS) == 0)
                session_settle(session, SESSION_NOTHING, &outcome, NULL, 0);
}

static void tell_peer(Freeze *freeze, HelpersOutcome outcome, uint32_t seals) {
        Shmd__FreezeReply reply = SHMD__FREEZE_REPLY__INIT;
        Refusal refusal;

        if (!freeze->peer)
                return;
        if (outcome == HELPERS_DONE) {
                reply.seals = seals;
                note_outcome(freeze, seals);
                peer_answer(freeze->peer, MESSAGE_FREEZE, freeze->serial, &reply.base, &freeze->charge);
        } else {
                refuse_outcome(&refusal, freeze, outcome);
                peer_refuse(freeze->peer, MESSAGE_FREEZE, freeze->serial, &refusal, &freeze->charge);
        }
}

/* Once, whoever added the seals: a writer may have, and a worker that was given up goes on once it can. */
void freeze_tell(Region *region, void *userdata) {
        Broker *broker = userdata;

        if (region->told_frozen)
                return;
        region->told_frozen = true;
        state_touch(&region->record);
        events_frozen(&broker->events, region);
        region_tell(region, REGION_WAS_FROZEN);
}

static void freeze_over(HelperJob *job, HelpersOutcome outcome) {
        Freeze *freeze = job->userdata;
        Region *region = regions_find(&freeze->broker->regions, freeze->region);
        /* One that nobody holds any more, and nobody can get, is as good as frozen. */
        uint32_t seals = region ? region_seals(region) : job->packet.seals;

        if (region && outcome == HELPERS_DONE)
                freeze_tell(region, freeze->broker);
        tell_peer(freeze, outcome, seals);
        (void)freeze_free(freeze);
}

/* -- the request ------------------------------------------------------------------------- */

static const char may_freeze[] = "only its owner or an administrator may freeze it";

static int find_region(Request *request, const Shmd__Freeze *wanted, Region **ret) {
        Spot spot;
        int r;

        if ((wanted->region != 0) == (wanted->path.len != 0))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a name or a number, and not both");
        if (wanted->region != 0)
                return request_own_region(request, wanted->region, ret);
        r = request_find_own(request, wanted->path, may_freeze, &spot);
        if (r)
                return r;
        *ret = spot.node->region;
        return 0;
}

static int need_freezable(Request *request, const Region *region, ProtobufCBinaryData path) {
        if (region->freezable)
                return 0;
        return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_NOT_FREEZABLE,
                              path.data, path.len, "the region was not made freezable");
}

int request_may_freeze(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r = request_find_own(request, path, may_freeze, ret);

        return r ? r : need_freezable(request, ret->node->region, path);
}

static int reply_frozen(Request *request, Region *region) {
        Shmd__FreezeReply reply = SHMD__FREEZE_REPLY__INIT;

        reply.seals = region_seals(region);
        request->outcome.extra = reply.seals;
        freeze_tell(region, request->broker);
        return request_reply(request, &reply.base, NULL, 0);
}

/* Whether the seal is there that the client was to add. */
static int check_seals(Request *request, Region *region, const Shmd__Freeze *wanted) {
        uint32_t seal = wanted->how == SHMD__FREEZE_HOW__FREEZE_IMMUTABLE ? F_SEAL_WRITE : F_SEAL_FUTURE_WRITE;
        const char *name = seal == F_SEAL_WRITE ? "F_SEAL_WRITE" : "F_SEAL_FUTURE_WRITE";
        const void *path = wanted->path.data;
        size_t n = wanted->path.len;

        if (region_seals(region) & seal)
                return 0;
        if (region_is_frozen(region))
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_FROZEN, path, n,
                                      "the region is frozen already, in the other way");
        if (region_seals(region) & F_SEAL_SEAL)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_SEALS, path, n,
                                      "a writer has sealed the region against %s", name);
        return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_SEALS, path, n,
                              "the region has no %s: the client adds it, through a read-write grant", name);
}

static int freeze_new(Freeze **ret, Request *request, const Region *region, const Shmd__Freeze *wanted) {
        static const Cost cost = { .slots = { [ACCOUNT_PENDING] = 1 } };
        CLEANUP(freeze_freep) Freeze *freeze = NULL;
        Shortage shortage;

        freeze = spare_take(sizeof(*freeze) + wanted->path.len);
        if (!freeze)
                return error_origin(-ENOMEM);
        *freeze = (Freeze){
                .job = { .packet = { .op = HELPER_SEAL, .seals = F_SEAL_SEAL }, .fn = freeze_over, .userdata = freeze },
                .broker = request->broker,
                .peer = request->peer,
                .serial = request->serial,
                .region = region->id,
                .hash = request->hash,
                .charge = CHARGE_NULL,
                .n_path = wanted->path.len,
        };
        if (freeze->n_path > 0)
                memcpy(freeze->path, wanted->path.data, freeze->n_path);
        list_init(&freeze->link);
        list_init(&freeze->in_peer);
        if (account_charge(request->peer->account, &cost, &freeze->charge, &shortage))
                return request_shortage(request, &shortage, wanted->path.data, wanted->path.len);

        *ret = freeze;
        freeze = NULL;
        return 0;
}

static int freeze_begin(Request *request, Region *region, const Shmd__Freeze *wanted) {
        CLEANUP(freeze_freep) Freeze *freeze = NULL;
        Peer *peer = request->peer;
        int r;

        r = freeze_new(&freeze, request, region, wanted);
        if (r)
                return r;
        r = helper_job_submit(&freeze->job, &request->broker->helpers, peer->account, region);
        if (r == HELPERS_E_BUSY)
                return request_refuse(request, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_HELPER,
                                      wanted->path.data, wanted->path.len,
                                      "the region is being frozen, or a holder keeps the kernel from it");
        if (r == HELPERS_E_GONE)
                return request_refuse(request, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_HELPER,
                                      wanted->path.data, wanted->path.len, "the broker has no helper process any more");
        if (r)
                return error_fold(r);
        list_append(&request->broker->freezes, &freeze->link);
        list_append(&peer->freezes, &freeze->in_peer);
        freeze = NULL;
        return REQUEST_E_PENDING;
}

int request_freeze(Request *request) {
        const Shmd__Freeze *wanted = (const Shmd__Freeze *)request->message;
        Region *region;
        int r;

        if (wanted->how > SHMD__FREEZE_HOW__FREEZE_SINGLE_WRITER)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "there is no way to freeze of number %u", wanted->how);
        r = find_region(request, wanted, &region);
        if (!r)
                r = need_freezable(request, region, wanted->path);
        if (!r)
                r = check_seals(request, region, wanted);
        if (r)
                return r;
        return region_is_frozen(region) ? reply_frozen(request, region) : freeze_begin(request, region, wanted);
}
