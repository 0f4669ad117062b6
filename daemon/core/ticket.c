/* Tickets: see the header for the model. */

#include "core/ticket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "core/counters.h"
#include "core/region.h"
#include "core/saved.h"
#include "core/secret.h"
#include "util/error.h"
#include "util/spare.h"

static int compare_digests(Ticket *a, Ticket *b) {
        return memcmp(a->digest, b->digest, sizeof(a->digest));
}

static int compare_ids(Ticket *a, Ticket *b) {
        return a->id < b->id ? -1 : a->id > b->id;
}

TREE_GENERATE(TicketDigestTree, Ticket, by_digest, compare_digests)
TREE_GENERATE(TicketTree, Ticket, by_id, compare_ids)
TREE_GENERATE(RegionTicketTree, Ticket, in_region, compare_ids)

DEFINE_CLEANUP(Ticket, ticket_free);

void tickets_init(Tickets *tickets, Deadlines *deadlines) {
        *tickets = (Tickets){ .deadlines = deadlines };
        RB_INIT(&tickets->by_digest);
        RB_INIT(&tickets->by_id);
}

void tickets_deinit(Tickets *tickets) {
        ASSERT(RB_EMPTY(&tickets->by_digest) && RB_EMPTY(&tickets->by_id) && tickets->n == 0);
}

/* -- text ------------------------------------------------------------------------------- */

/* base64url without padding; a group of three bytes is four letters, of two three. */
static char *encode(char *to, const uint8_t *bytes, size_t n) {
        static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        uint32_t group = 0;
        unsigned int bits = 0;

        for (size_t i = 0; i < n; ++i) {
                group = group << 8 | bytes[i];
                for (bits += 8; bits >= 6; bits -= 6)
                        *to++ = letters[group >> (bits - 6) & 63];
        }
        if (bits > 0)
                *to++ = letters[group << (6 - bits) & 63];
        explicit_bzero(&group, sizeof(group));
        return to;
}

int ticket_draw(char text[TICKET_TEXT_BYTES]) {
        uint8_t random[TICKET_RANDOM_BYTES];
        const char *end;
        int r;

        r = secret_draw(random, sizeof(random));
        if (r)
                return error_fold(r);
        memcpy(text, TICKET_PREFIX, sizeof(TICKET_PREFIX) - 1);
        end = encode(text + sizeof(TICKET_PREFIX) - 1, random, sizeof(random));
        explicit_bzero(random, sizeof(random));
        ASSERT(end == text + TICKET_TEXT_BYTES);
        return 0;
}

/* -- life ------------------------------------------------------------------------------- */

static void ticket_expired(Deadline *deadline, void *userdata) {
        (void)deadline;
        (void)ticket_free(userdata);
}

static const Cost ticket_cost = { .slots = { [ACCOUNT_PENDING] = 1 } };

static int ticket_make(Ticket **ret, Tickets *tickets, Region *region, uint64_t id, const TicketSpec *spec,
                       const uint8_t digest_of[TICKET_DIGEST_BYTES]) {
        Ticket *ticket;

        if (region_expand(region))
                return error_origin(-ENOMEM);
        ticket = spare_take(sizeof(*ticket));
        if (!ticket)
                return error_origin(-ENOMEM);
        *ticket = (Ticket){
                .tickets = tickets,
                .region = region,
                .id = id,
                .record = STATE_RECORD_NULL,
                .spec = *spec,
                .left = spec->uses,
                .end = DEADLINE_NULL,
                .charge = CHARGE_NULL,
        };
        memcpy(ticket->digest, digest_of, sizeof(ticket->digest));
        ASSERT(!RB_INSERT(TicketDigestTree, &tickets->by_digest, ticket));
        ASSERT(!RB_INSERT(TicketTree, &tickets->by_id, ticket));
        (void)RB_INSERT(RegionTicketTree, &region->more->tickets.tree, ticket);
        ++region->more->tickets.n;
        ++tickets->n;
        *ret = ticket;
        return 0;
}

int ticket_new(Ticket **ret, char ret_text[TICKET_TEXT_BYTES], Tickets *tickets, Region *region, Account *issuer,
               const TicketSpec *spec, Shortage *shortage) {
        CLEANUP(ticket_freep) Ticket *ticket = NULL;
        uint8_t drawn[TICKET_DIGEST_BYTES];
        int r;

        ASSERT(spec->uses >= 1 && spec->uses <= TICKET_USES_MAX);
        if (region_more(region)->tickets.n >= TICKETS_OF_REGION_MAX)
                return TICKET_E_TOO_MANY;
        r = ticket_draw(ret_text);
        if (r)
                return r;
        secret_digest(ret_text, TICKET_TEXT_BYTES, drawn);
        r = ticket_make(&ticket, tickets, region, ++tickets->last_id, spec, drawn);
        if (r)
                return error_fold(r);
        r = account_charge(issuer, &ticket_cost, &ticket->charge, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? TICKET_E_QUOTA : error_fold(r);
        deadline_arm(&ticket->end, tickets->deadlines, spec->until, ticket_expired, ticket);
        counters_used(tickets->counters, COUNTER_TICKET, ticket->id);
        state_add(tickets->state, &ticket->record, STATE_TICKET, ticket->id);

        *ret = ticket;
        ticket = NULL;
        return 0;
}

int ticket_adopt(Ticket **ret, Tickets *tickets, Region *region, Account *issuer, const SavedTicket *saved) {
        TicketSpec spec = { .writable = saved->writable, .one_user = saved->one_user, .uid = saved->uid,
                            .uses = saved->uses, .until = saved->until };
        Ticket key = { .id = saved->id };
        int r;

        memcpy(key.digest, saved->digest, sizeof(key.digest));
        if (region_more(region)->tickets.n >= TICKETS_OF_REGION_MAX ||
            RB_FIND(TicketDigestTree, &tickets->by_digest, &key) || RB_FIND(TicketTree, &tickets->by_id, &key))
                return TICKET_E_TOO_MANY;
        r = ticket_make(ret, tickets, region, saved->id, &spec, saved->digest);
        if (r)
                return error_fold(r);
        (*ret)->left = saved->left;
        account_charge_anyway(issuer, &ticket_cost, &(*ret)->charge);
        deadline_arm(&(*ret)->end, tickets->deadlines, spec.until, ticket_expired, *ret);
        return 0;
}

int ticket_renew(Ticket *ticket, char ret_text[TICKET_TEXT_BYTES]) {
        int r;

        r = ticket_draw(ret_text);
        if (r)
                return r;
        (void)RB_REMOVE(TicketDigestTree, &ticket->tickets->by_digest, ticket);
        secret_digest(ret_text, TICKET_TEXT_BYTES, ticket->digest);
        ASSERT(!RB_INSERT(TicketDigestTree, &ticket->tickets->by_digest, ticket));
        state_touch(&ticket->record);
        return 0;
}

Ticket *ticket_free(Ticket *ticket) {
        if (!ticket)
                return NULL;
        state_drop(&ticket->record);
        (void)RB_REMOVE(TicketDigestTree, &ticket->tickets->by_digest, ticket);
        (void)RB_REMOVE(TicketTree, &ticket->tickets->by_id, ticket);
        (void)RB_REMOVE(RegionTicketTree, &ticket->region->more->tickets.tree, ticket);
        --ticket->region->more->tickets.n;
        --ticket->tickets->n;
        deadline_disarm(&ticket->end);
        charge_release(&ticket->charge);
        spare_give(ticket, sizeof(*ticket));
        return NULL;
}

static void note_revoked(Region *region) {
        ++region->revoked;
        state_touch(&region->record);
}

void ticket_revoke(Ticket *ticket) {
        note_revoked(ticket->region);
        (void)ticket_free(ticket);
}

/* -- use -------------------------------------------------------------------------------- */

Ticket *tickets_find(Tickets *tickets, const void *text, size_t n) {
        Ticket key;

        if (n != TICKET_TEXT_BYTES)
                return NULL;
        secret_digest(text, n, key.digest);
        return RB_FIND(TicketDigestTree, &tickets->by_digest, &key);
}

Ticket *tickets_find_id(Tickets *tickets, uint64_t id) {
        Ticket key = { .id = id };

        return RB_FIND(TicketTree, &tickets->by_id, &key);
}

bool ticket_admits(const Ticket *ticket, uid_t uid) {
        return !ticket->spec.one_user || ticket->spec.uid == uid;
}

void ticket_spend(Ticket *ticket) {
        state_touch(&ticket->record);
        if (--ticket->left == 0)
                (void)ticket_free(ticket);
}

/* -- of a region ------------------------------------------------------------------------ */

void region_tickets_init(RegionTickets *of) {
        *of = (RegionTickets){ .n = 0 };
        RB_INIT(&of->tree);
}

uint32_t region_tickets_clear(Region *region) {
        uint32_t n = region_more(region)->tickets.n;

        for (uint32_t i = 0; i < n; ++i)
                (void)ticket_free(RB_MIN(RegionTicketTree, &region->more->tickets.tree));
        return n;
}

uint32_t region_revoke_tickets(Region *region) {
        note_revoked(region);
        return region_tickets_clear(region);
}

Ticket *region_tickets_after(const Region *region, uint64_t id) {
        Ticket key = { .id = id + 1 };

        if (!region->more || id == UINT64_MAX)
                return NULL;
        return RB_NFIND(RegionTicketTree, &region->more->tickets.tree, &key);
}
