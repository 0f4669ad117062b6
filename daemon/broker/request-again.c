/* Requests that are asked again: a client that got no answer from a broker that is gone sends the same
 * request once more, with the same serial. If the state says what became of it, it is not done again; the
 * client gets the first answer.
 *
 * An answer that is only yes, or numbers, is told as it was. Descriptors went with the broker that had
 * made them, or with the connection: there is a new grant of each region, of the right that the first one
 * had, as the outcome has it and not as the request says it, for the hash does not prove that it is the
 * same request to the byte. What was only opened is not opened again by who may not do so any more. A use of a
 * ticket is not spent once more; but once tickets of its region were revoked, the ticket itself has to be good.
 *
 * A region that is gone, because nobody held it, is made anew: under its name if it was only for want of a
 * holder that it went, and otherwise, as somebody took its names away since, without one. A ticket's text is
 * known to nobody: it gets another one; or, if it is over, the client gets one that is good for nothing.
 */

#include "broker/request.h"

int again_done(Request *request, const SavedOutcome *first) {
        (void)first;
        return request_done(request);
}

int again_create(Request *request, const SavedOutcome *first) {
        return request_grant_again(request, &first->region, 1);
}

int again_redeem(Request *request, const SavedOutcome *first) {
        const Region *region = regions_find(&request->broker->regions, first->region & SAVED_ITEM_REGION);

        if (region && region->revoked == first->extra)
                return request_grant_again(request, &first->region, 1);
        /* The ticket went with its region, or may be among those that were revoked, which cannot be told of one
         * that was used up. If it is still good it is used once more; else the refusal is the same as always. */
        return request_redeem(request);
}

int again_batch(Request *request, const SavedOutcome *first) {
        const uint64_t *items;
        size_t n;

        (void)first;
        items = session_items(request->peer->session, request->first, &n);
        return request_grant_again(request, items, n);
}

int again_ticket(Request *request, const SavedOutcome *first) {
        return request_ticket_again(request, first->extra);
}

int again_revoke(Request *request, const SavedOutcome *first) {
        Shmd__RevokeReply reply = SHMD__REVOKE_REPLY__INIT;

        request->outcome.extra = first->extra;
        reply.revoked = (uint32_t)first->extra;
        return request_reply(request, &reply.base, NULL, 0);
}

int again_freeze(Request *request, const SavedOutcome *first) {
        Shmd__FreezeReply reply = SHMD__FREEZE_REPLY__INIT;

        request->outcome.extra = first->extra;
        reply.seals = (uint32_t)first->extra;
        return request_reply(request, &reply.base, NULL, 0);
}

int again_reload(Request *request, const SavedOutcome *first) {
        Shmd__ReloadReply reply = SHMD__RELOAD_REPLY__INIT;

        /* The parts before it may have been sent again as well. */
        staging_drop(&request->peer->staging);
        request->outcome = *first;
        reply.done = true;
        reply.generation = first->region;
        reply.directories = (uint32_t)first->extra;
        reply.accounts = (uint32_t)(first->extra >> 32);
        return request_reply(request, &reply.base, NULL, 0);
}
