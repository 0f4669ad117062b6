/* Requests that hear of what happens later: wait, watch, unwatch. */

#include "broker/request.h"

#include "util/error.h"

/* -- wait ------------------------------------------------------------------------------- */

static void answer_wait(Peer *peer, uint64_t serial, const Node *node, Region *region, Charge *charge) {
        Shmd__WaitReply reply = SHMD__WAIT_REPLY__INIT;
        char path[PATH_BYTES_MAX];
        Shmd__Node description;

        request_describe(node, region, path, &description);
        reply.node = &description;
        peer_answer(peer, MESSAGE_WAIT, serial, &reply.base, charge);
}

/* The name that the asker waited by, if it still is one of the region: where else it may have gone is
 * not for everybody to know. By number, as in stat, the first name that it may find. */
static const Node *name_for(Peer *peer, Region *region, const void *path, size_t n) {
        Spot spot;

        if (n == 0)
                return request_name_of(peer, region);
        if (tree_find(&peer->broker->tree, &peer->who, path, n, &spot) || spot.node->region != region)
                return NULL;
        return spot.node;
}

static void refuse_late(Refusal *refusal, const Region *region, RegionNews until, const void *path, size_t n) {
        const char *sentence = !region ? "the name did not appear in time" :
                               until == REGION_WAS_FROZEN ? "the region was not frozen in time" :
                                                            "somebody held the region all the time";

        audit_refuse(refusal, SHMD__ERROR__ERROR_TIMEOUT, SHMD__REASON__REASON_DEADLINE, path, n, "%s", sentence);
}

static void wait_over(Waiter *waiter, WaiterEnd end, Node *node) {
        Peer *peer = waiter->userdata;
        Refusal refusal;

        if (end == WAITER_DONE) {
                Region *region = waiter->region ? waiter->region : node->region;

                if (waiter->region)
                        answer_wait(peer, waiter->serial, name_for(peer, region, waiter->path, waiter->n_path), region,
                                    &waiter->charge);
                else
                        answer_wait(peer, waiter->serial, node, region, &waiter->charge);
                (void)waiter_free(waiter);
                return;
        }
        if (end == WAITER_GONE)
                audit_refuse(&refusal, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING,
                             waiter->path, waiter->n_path, "the region is gone, and was never frozen");
        else
                refuse_late(&refusal, waiter->region, waiter->until, waiter->path, waiter->n_path);
        peer_refuse(peer, MESSAGE_WAIT, waiter->serial, &refusal, &waiter->charge);
        (void)waiter_free(waiter);
}

static uint64_t wait_deadline(const Request *request, const Shmd__Wait *wait) {
        uint64_t longest = request->broker->options->wait_max_ns;

        return time_now() + (wait->timeout_ns < longest ? wait->timeout_ns : longest);
}

static int wait_begun(Request *request, Waiter *waiter) {
        waiter->serial = request->serial;
        list_append(&request->peer->waiters, &waiter->link);
        return REQUEST_E_PENDING;
}

/* -- for a name -- */

static int wait_for_name(Request *request, const Shmd__Wait *wait) {
        Peer *peer = request->peer;
        Shortage shortage;
        Waiter *waiter;
        Spot spot;
        int r;

        r = request_find_yet(request, wait->path, &spot);
        if (r)
                return r;
        if (spot.node) {
                answer_wait(peer, request->serial, spot.node, spot.node->region, NULL);
                return 0;
        }
        if (wait->timeout_ns == 0) {
                refuse_late(&request->refusal, NULL, 0, wait->path.data, wait->path.len);
                return REQUEST_E_REFUSED;
        }
        r = waiter_new(&waiter, &request->broker->waiters, peer->account, &peer->who, wait->path.data, wait->path.len,
                       wait_deadline(request, wait), wait_over, peer, &shortage);
        if (r == WATCH_E_QUOTA)
                return request_shortage(request, &shortage, wait->path.data, wait->path.len);
        return r ? error_fold(r) : wait_begun(request, waiter);
}

/* -- for a region -- */

static int wait_find(Request *request, const Shmd__Wait *wait, Region **ret) {
        Spot spot;
        int r;

        if (wait->region)
                return request_own_region(request, wait->region, ret);
        r = request_find(request, wait->path, &spot);
        if (r)
                return r;
        if (node_is_directory(spot.node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      spot.path, spot.n_path, "it is a directory");
        *ret = spot.node->region;
        return 0;
}

static int wait_done(Request *request, const Shmd__Wait *wait, Region *region) {
        const Node *name = name_for(request->peer, region, wait->path.data, wait->path.len);

        answer_wait(request->peer, request->serial, name, region, NULL);
        return 0;
}

static int wait_for_region(Request *request, const Shmd__Wait *wait, RegionNews until) {
        Peer *peer = request->peer;
        Shortage shortage;
        Waiter *waiter;
        Region *region;
        int r;

        r = wait_find(request, wait, &region);
        if (r)
                return r;
        if (until == REGION_WAS_FROZEN ? region_is_frozen(region) : !region_is_held(region))
                return wait_done(request, wait, region);
        if (wait->timeout_ns == 0) {
                refuse_late(&request->refusal, region, until, wait->path.data, wait->path.len);
                return REQUEST_E_REFUSED;
        }
        r = waiter_new_for_region(&waiter, &request->broker->waiters, peer->account, &peer->who, region, until,
                                  wait->path.data, wait->path.len, wait_deadline(request, wait), wait_over, peer,
                                  &shortage);
        if (r == WATCH_E_QUOTA)
                return request_shortage(request, &shortage, wait->path.data, wait->path.len);
        if (r == WATCH_E_DONE)
                return wait_done(request, wait, region);
        return r ? error_fold(r) : wait_begun(request, waiter);
}

int request_wait(Request *request) {
        const Shmd__Wait *wait = (const Shmd__Wait *)request->message;

        if (wait->region && (wait->until == SHMD__WAIT_FOR__WAIT_NAME || wait->path.len))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a name or a number, not both; and for a name, a name");
        switch (wait->until) {
        case SHMD__WAIT_FOR__WAIT_NAME:
                return wait_for_name(request, wait);
        case SHMD__WAIT_FOR__WAIT_FROZEN:
                return wait_for_region(request, wait, REGION_WAS_FROZEN);
        case SHMD__WAIT_FOR__WAIT_UNHELD:
                return wait_for_region(request, wait, REGION_IS_UNHELD);
        default:
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "nothing to wait for has the number %u", wait->until);
        }
}

/* -- watch ------------------------------------------------------------------------------ */

static int check_watch(Request *request, const Shmd__Watch *watch, const Spot *spot) {
        if (watch->mask == 0 || watch->mask & ~(uint32_t)EVENT_ALL)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_EVENTS,
                                      spot->path, spot->n_path, "there are no events 0x%x to watch for", watch->mask);
        return 0;
}

/* Of a region alone, whoever may find it may hear. */
int request_may_watch(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r = request_find(request, path, ret);

        if (r || !node_is_directory(ret->node))
                return r;
        return request_need_access(request, SHMD__REASON__REASON_DIRECTORY_READ, ret->path, ret->n_path,
                                   node_permissions(ret->node), ACCESS_READ | ACCESS_SEARCH,
                                   "no read and search permission on the directory");
}

int request_watch(Request *request) {
        const Shmd__Watch *watch = (const Shmd__Watch *)request->message;
        Shmd__WatchReply reply = SHMD__WATCH_REPLY__INIT;
        Peer *peer = request->peer;
        Shortage shortage;
        Watch *made;
        Spot spot;
        int r;

        r = request_may_watch(request, watch->path, &spot);
        if (!r)
                r = check_watch(request, watch, &spot);
        if (r)
                return r;
        r = watch_new(&made, &request->broker->events, peer->account, &peer->who, spot.node, watch->mask,
                      watch->sequence, peer, &shortage);
        if (r == EVENT_E_QUOTA)
                return request_shortage(request, &shortage, spot.path, spot.n_path);
        if (r)
                return error_fold(r);
        made->serial = request->serial;
        list_append(&peer->feed.watches, &made->link);
        reply.watch = made->id;
        reply.sequence = made->since;
        return request_reply(request, &reply.base, NULL, 0);
}

int request_unwatch(Request *request) {
        const Shmd__Unwatch *unwatch = (const Shmd__Unwatch *)request->message;
        Watch *watch = events_find_watch(&request->broker->events, unwatch->watch);

        if (!watch || watch->userdata != request->peer)
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_EVENTS, NULL, 0,
                                      "no watch of that number is this connection's");
        (void)watch_free(watch);
        return request_done(request);
}
