/* Requests about doorbells: bell.
 *
 * Whoever may read a region may wait at its doorbell, whoever may write it may ring: they get the page
 * read-only or read-write, and from then on need no broker. Whoever waits in an event loop cannot tell
 * ringers so itself, as it cannot write to the page; and the broker writes to no file that somebody else
 * may have locked, nor maps it. So the flag is written by the helper, once in the life of a page: it is
 * never taken back, and costs a ringer a write(2) a ring.
 *
 * What a hostile holder can do: one that rings may write anything to the page, forge and swallow rings,
 * clear the flag, and keep the helper from setting it, which is BUSY then. One that waits can write
 * nothing, lock nothing and take nothing away; it wakes itself up when it likes, and nobody else.
 */

#include <errno.h>
#include <stdlib.h>

#include "broker/helpers.h"
#include "broker/request.h"
#include "util/error.h"

/* A region's newest grants, in which a holder's own is looked for. */
#define GRANTS_LOOK 1024

/* -- which region, and what of it ---------------------------------------------------------- */

/* Whether this session was granted the region, with that right, not too many grants ago, or has one without a
 * mark. */
static bool was_granted(const Request *request, Region *region, bool ring) {
        Asker asker = peer_asker(request->peer);
        List *link = region->grants.list.previous;

        if (region_grants_has_unmarked(region, &asker, ring))
                return true;
        for (unsigned int n = 0; link != &region->grants.list && n < GRANTS_LOOK; link = link->previous, ++n) {
                const Grant *grant = list_entry(link, Grant, in_region);

                if (grant->session == request->peer->session->number && (grant->writable || !ring))
                        return true;
        }
        return false;
}

/* By its number a region is known to its owner, and to who holds it: perhaps by a ticket, and without
 * a name that lets them in. So is a page, to who would poll it. */
static int find_number(Request *request, uint64_t id, bool ring, bool poll, Region **ret) {
        Region *region = regions_find(&request->broker->regions, id);

        if (!region || (region->is_bell && !poll) ||
            (!access_owns(&request->peer->who, &region->permissions) && !was_granted(request, region, ring)))
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING, NULL, 0,
                                      "no region of that number is yours, or was granted so to this connection");
        *ret = region;
        return 0;
}

static int find_name(Request *request, ProtobufCBinaryData path, bool ring, Region **ret) {
        uint32_t rights = ring ? SHMD__RIGHTS__RIGHTS_READ_WRITE : SHMD__RIGHTS__RIGHTS_READ_ONLY;
        Spot spot;
        int r;

        r = request_may_open(request, path, rights, &spot);
        if (!r)
                *ret = spot.node->region;
        return r;
}

static int find_region(Request *request, const Shmd__Bell *bell, Region **ret) {
        const uint32_t ring = SHMD__BELL_FLAGS__BELL_RING, poll = SHMD__BELL_FLAGS__BELL_POLL;
        int r;

        r = request_check_flags(request, bell->flags, ring | poll);
        if (r)
                return r;
        if (bell->flags == (ring | poll))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_FLAGS, NULL, 0,
                                      "whoever rings sets the flag itself");
        if ((bell->path.len != 0) == (bell->region != 0))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a region is meant by its name or by its number");
        return bell->region ? find_number(request, bell->region, bell->flags & ring, bell->flags & poll, ret) :
                              find_name(request, bell->path, bell->flags & ring, ret);
}

static int make_page(Request *request, const Shmd__Bell *bell, Region *region, Region **ret) {
        Shortage shortage;
        int r;

        r = region_bell(region, ret, &shortage);
        if (r == REGION_E_QUOTA) {
                r = request_shortage(request, &shortage, bell->path.data, bell->path.len);
                if (r != REQUEST_E_REFUSED || access_owns(&request->peer->who, &region->permissions))
                        return r;
                /* The numbers are the owner's. */
                return request_refuse(request, SHMD__ERROR__ERROR_QUOTA, SHMD__REASON__REASON_LIMIT,
                                      bell->path.data, bell->path.len,
                                      "its owner has no room for a doorbell, which nobody used before");
        }
        if (r == REGION_E_BUSY)
                return request_store_busy(request, bell->path.data, bell->path.len);
        if (r == REGION_E_NO_MEMORY)
                return request_refuse(request, SHMD__ERROR__ERROR_NO_MEMORY, SHMD__REASON__REASON_DESCRIPTORS,
                                      bell->path.data, bell->path.len,
                                      "the broker or the machine has no descriptors or memory left");
        return error_fold(r);
}

static int reply_page(Request *request, const Region *page, const int *fds, size_t n_fds) {
        Shmd__BellReply reply = SHMD__BELL_REPLY__INIT;

        reply.page = page->id;
        reply.size = (uint32_t)page->size;
        return request_reply(request, &reply.base, fds, n_fds);
}

/* -- a descriptor -------------------------------------------------------------------------- */

static int give_page(Request *request, const Shmd__Bell *bell, Region *region) {
        CLEANUP(close_fdp) int fd = -1;
        Asker asker = peer_asker(request->peer);
        bool had_one = region_page(region);
        Shortage shortage;
        Region *page;
        Grant *grant;
        int r;

        r = request_reserve(request, 1);
        if (!r)
                r = make_page(request, bell, region, &page);
        if (r)
                return r;
        r = grant_new(&grant, &fd, &request->broker->grants, page, &asker, bell->flags & SHMD__BELL_FLAGS__BELL_RING,
                      &shortage);
        if (r) {
                r = request_refuse_grant(request, r, bell->path, &shortage);
                if (!had_one)
                        page = region_free(page);
                return r;
        }
        return reply_page(request, page, &fd, 1);
}

/* -- the flag ------------------------------------------------------------------------------ */

/* The helper writes the flag of a page. Whoever asked for it is held meanwhile; what becomes of it stands
 * in the page. */
typedef struct Poke {
        HelperJob job;
        Broker *broker;
        uint64_t page;
        Charge charge;          /* of who asked first */
        List link;              /* in Broker.pokes */
} Poke;

static Poke *poke_free(Poke *poke) {
        if (!poke)
                return NULL;
        helper_job_cancel(&poke->job);
        list_unlink(&poke->link);
        charge_release(&poke->charge);
        free(poke);
        return NULL;
}

DEFINE_CLEANUP(Poke, poke_free);

void bells_free(Broker *broker) {
        Poke *poke;

        while ((poke = list_first(&broker->pokes, Poke, link)))
                (void)poke_free(poke);
}

static void poke_over(HelperJob *job, HelpersOutcome outcome) {
        Poke *poke = job->userdata;
        Region *page = regions_find(&poke->broker->regions, poke->page);

        if (page) {
                page->poked = false;
                page->polled = outcome == HELPERS_DONE;
                state_touch(&page->record);
                page->more->poke_failed = page->polled ? 0 : time_now();
        }
        (void)poke_free(poke);
}

static int poke_begin(Request *request, const Shmd__Bell *bell, Region *page) {
        static const Cost cost = { .slots = { [ACCOUNT_PENDING] = 1 } };
        CLEANUP(poke_freep) Poke *poke = NULL;
        Account *account = request->peer->account;
        Shortage shortage;
        int r;

        poke = malloc(sizeof(*poke));
        if (!poke)
                return error_origin(-ENOMEM);
        *poke = (Poke){
                .job = { .packet = { .op = HELPER_POKE, .offset = MESSAGE_BELL_POLLED, .byte = 1 },
                         .fn = poke_over, .userdata = poke },
                .broker = request->broker,
                .page = page->id,
                .charge = CHARGE_NULL,
        };
        list_init(&poke->link);
        if (account_charge(account, &cost, &poke->charge, &shortage))
                return request_shortage(request, &shortage, bell->path.data, bell->path.len);
        r = helper_job_submit(&poke->job, &request->broker->helpers, account, page);
        if (r == HELPERS_E_GONE)
                return request_refuse(request, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_HELPER,
                                      bell->path.data, bell->path.len, "the broker has no helper process");
        if (r == HELPERS_E_BUSY)
                return request_refuse(request, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_HELPER,
                                      bell->path.data, bell->path.len, "a holder of the doorbell keeps it locked");
        page->poked = true;
        list_append(&request->broker->pokes, &poke->link);
        poke = NULL;
        return REQUEST_E_LATER;
}

static int tell_ringers(Request *request, const Shmd__Bell *bell, Region *region) {
        const HeldRequest *held = &request->peer->held;
        Region *page = region->is_bell ? region : region_page(region);
        int r;

        r = request_reserve(request, 0);
        if (r)
                return r;
        if (!page)
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING,
                                      bell->path.data, bell->path.len, "its doorbell was never opened");
        if (page->polled)
                return reply_page(request, page, NULL, 0);
        if (page->poked)
                return REQUEST_E_LATER;
        if (held->packet && page->more->poke_failed >= held->since)
                return request_refuse(request, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_HELPER,
                                      bell->path.data, bell->path.len, "a holder of the doorbell keeps it locked");
        return poke_begin(request, bell, page);
}

int request_bell(Request *request) {
        const Shmd__Bell *bell = (const Shmd__Bell *)request->message;
        Region *region;
        int r;

        r = find_region(request, bell, &region);
        if (r)
                return r;
        return bell->flags & SHMD__BELL_FLAGS__BELL_POLL ? tell_ringers(request, bell, region) :
                                                           give_page(request, bell, region);
}
