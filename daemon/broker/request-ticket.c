/* Requests about tickets: ticket, redeem, revoke, tickets.
 *
 * Whatever is wrong with a ticket that somebody brings, be it no ticket at all, unknown, used up, over
 * time, revoked, for somebody else, or of a region that is gone: the refusal is the same, and comes
 * after the same time, in which nothing else is read from that connection. So whoever guesses learns
 * nothing, and a few times a second; others do not notice. Only a ticket that is good lets its bringer
 * see why there is no grant: the account, or the machine, is short of something. That costs no use.
 *
 * A ticket is in the packet it came in or goes out with, in what that was unpacked into, and in a copy
 * if the packet had to wait: the dispatcher, the peer and the connection wipe them. Neither the log nor
 * a refusal ever has it.
 */

#include <string.h>

#include "broker/request.h"
#include "util/error.h"

/* How long a refusal of a ticket takes. */
#define REFUSAL_NS (250 * NSEC_PER_MSEC)
/* How long a ticket is good for if nobody says. */
#define TTL_NS (3600 * NSEC_PER_SEC)
/* Tickets one page of a list has. */
#define TICKETS_PAGE 256

/* -- which region -------------------------------------------------------------------------- */

int request_may_ticket(Request *request, ProtobufCBinaryData path, Spot *ret) {
        return request_find_own(request, path, "its tickets are the business of its owner and of administrators", ret);
}

/* Finds the region of that name or, without, of that number, for its owner and administrators. */
static int find_owned(Request *request, ProtobufCBinaryData path, uint64_t id, Region **ret) {
        Spot spot;
        int r;

        if ((path.len != 0) == (id != 0))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a region is meant by its name or by its number");
        if (id != 0)
                return request_own_region(request, id, ret);
        r = request_may_ticket(request, path, &spot);
        if (r)
                return r;
        *ret = spot.node->region;
        return 0;
}

/* -- ticket -------------------------------------------------------------------------------- */

static int check_ticket(Request *request, const Shmd__Ticket *ticket) {
        bool one_user = ticket->flags & SHMD__TICKET_FLAGS__TICKET_ONE_USER;
        int r;

        r = request_check_flags(request, ticket->flags, SHMD__TICKET_FLAGS__TICKET_ONE_USER);
        if (r)
                return r;
        if (ticket->rights != SHMD__RIGHTS__RIGHTS_READ_ONLY && ticket->rights != SHMD__RIGHTS__RIGHTS_READ_WRITE)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "there are no rights of number %u", ticket->rights);
        if (ticket->uses < 1 || ticket->uses > TICKET_USES_MAX)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a ticket is good for 1 to %u grants, not %u", TICKET_USES_MAX, ticket->uses);
        if (one_user ? ticket->uid == (uid_t)-1 : ticket->uid != 0)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      one_user ? "there is no user of that number" :
                                                 "a user without the flag that says so");
        return 0;
}

static uint64_t ttl_of(const Request *request, const Shmd__Ticket *ticket) {
        uint64_t longest = request->broker->options->ticket_max_ns;
        uint64_t wanted = ticket->ttl_ns ? ticket->ttl_ns : TTL_NS;

        return wanted < longest ? wanted : longest;
}

/* Tells what is told once. text: is wiped. */
static int tell_ticket(Request *request, uint64_t id, char text[TICKET_TEXT_BYTES], uint64_t ttl) {
        Shmd__TicketReply reply = SHMD__TICKET_REPLY__INIT;
        int r;

        request->outcome.extra = id;
        reply.id = id;
        reply.ticket = (ProtobufCBinaryData){ .data = (uint8_t *)text, .len = TICKET_TEXT_BYTES };
        reply.ttl_ns = ttl;
        r = request_reply(request, &reply.base, NULL, 0);
        explicit_bzero(text, TICKET_TEXT_BYTES);
        return r;
}

static int issue(Request *request, const Shmd__Ticket *wanted, Region *region) {
        uint64_t ttl = ttl_of(request, wanted);
        TicketSpec spec = {
                .writable = wanted->rights == SHMD__RIGHTS__RIGHTS_READ_WRITE,
                .one_user = wanted->flags & SHMD__TICKET_FLAGS__TICKET_ONE_USER,
                .uid = wanted->uid,
                .uses = wanted->uses,
                .until = time_now() + ttl,
        };
        Peer *peer = request->peer;
        char text[TICKET_TEXT_BYTES];
        Shortage shortage;
        Ticket *ticket;
        int r;

        r = ticket_new(&ticket, text, &request->broker->tickets, region, peer->account, &spec, &shortage);
        if (r == TICKET_E_QUOTA)
                return request_shortage(request, &shortage, wanted->path.data, wanted->path.len);
        if (r == TICKET_E_TOO_MANY)
                return request_refuse(request, SHMD__ERROR__ERROR_QUOTA, SHMD__REASON__REASON_TICKET,
                                      wanted->path.data, wanted->path.len,
                                      "a region has at most %u tickets", TICKETS_OF_REGION_MAX);
        if (r)
                return error_fold(r);
        audit_log_ticket("ticket-issued", ticket, peer->account, peer->id, peer->cred.pid);
        return tell_ticket(request, ticket->id, text, ttl);
}

int request_ticket_again(Request *request, uint64_t id) {
        Ticket *ticket = tickets_find_id(&request->broker->tickets, id);
        const Peer *peer = request->peer;
        char text[TICKET_TEXT_BYTES];
        uint64_t now = time_now();
        int r;

        r = ticket ? ticket_renew(ticket, text) : ticket_draw(text);
        if (r)
                return error_fold(r);
        if (!ticket)
                return tell_ticket(request, id, text, ttl_of(request, (const Shmd__Ticket *)request->message));
        audit_log_ticket("ticket-renewed", ticket, peer->account, peer->id, peer->cred.pid);
        return tell_ticket(request, id, text, ticket->spec.until > now ? ticket->spec.until - now : 0);
}

int request_ticket(Request *request) {
        const Shmd__Ticket *ticket = (const Shmd__Ticket *)request->message;
        Region *region;
        int r;

        r = check_ticket(request, ticket);
        if (!r)
                r = find_owned(request, ticket->path, ticket->region, &region);
        return r ? r : issue(request, ticket, region);
}

/* -- redeem -------------------------------------------------------------------------------- */

/* The one answer to every ticket that is no good, when its time has come. */
static int refuse_ticket(Request *request) {
        const HeldRequest *held = &request->peer->held;
        uint64_t now = time_now();

        request->again = (held->packet ? held->since : now) + REFUSAL_NS;
        if (request->again > now)
                return REQUEST_E_AT;
        return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_TICKET, NULL, 0,
                              "this ticket is good for nothing");
}

int request_redeem(Request *request) {
        const Shmd__Redeem *redeem = (const Shmd__Redeem *)request->message;
        Ticket *ticket;

        ticket = tickets_find(&request->broker->tickets, redeem->ticket.data, redeem->ticket.len);
        if (!ticket || !ticket_admits(ticket, request->peer->cred.uid))
                return refuse_ticket(request);
        return request_grant_by_ticket(request, ticket);
}

/* -- revoke -------------------------------------------------------------------------------- */

static int revoked(Request *request, uint32_t n) {
        Shmd__RevokeReply reply = SHMD__REVOKE_REPLY__INIT;

        request->outcome.extra = n;
        reply.revoked = n;
        return request_reply(request, &reply.base, NULL, 0);
}

static bool owns_ticket(const Request *request, const Ticket *ticket) {
        return ticket && access_owns(&request->peer->who, &ticket->region->permissions);
}

static int revoke_number(Request *request, uint64_t id) {
        Ticket *ticket = tickets_find_id(&request->broker->tickets, id);

        if (!owns_ticket(request, ticket))
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_TICKET, NULL, 0,
                                      "no ticket of that number is of a region of yours");
        ticket_revoke(ticket);
        return revoked(request, 1);
}

static int revoke_text(Request *request, ProtobufCBinaryData text) {
        Ticket *ticket = tickets_find(&request->broker->tickets, text.data, text.len);

        if (!owns_ticket(request, ticket))
                return refuse_ticket(request);
        ticket_revoke(ticket);
        return revoked(request, 1);
}

int request_revoke(Request *request) {
        const Shmd__Revoke *revoke = (const Shmd__Revoke *)request->message;
        Region *region;
        int r;

        if ((revoke->id != 0) + (revoke->ticket.len != 0) + (revoke->path.len != 0 || revoke->region != 0) != 1)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "one ticket, by number or as it is, or those of one region");
        if (revoke->id != 0)
                return revoke_number(request, revoke->id);
        if (revoke->ticket.len != 0)
                return revoke_text(request, revoke->ticket);
        r = find_owned(request, revoke->path, revoke->region, &region);
        return r ? r : revoked(request, region_revoke_tickets(region));
}

/* -- tickets ------------------------------------------------------------------------------- */

static void describe(const Ticket *ticket, uint64_t now, Shmd__TicketInfo *ret) {
        shmd__ticket_info__init(ret);
        ret->id = ticket->id;
        ret->rights = ticket->spec.writable ? SHMD__RIGHTS__RIGHTS_READ_WRITE : SHMD__RIGHTS__RIGHTS_READ_ONLY;
        ret->left = ticket->left;
        ret->ttl_ns = ticket->spec.until > now ? ticket->spec.until - now : 0;
        ret->one_user = ticket->spec.one_user;
        ret->uid = ticket->spec.one_user ? ticket->spec.uid : 0;
}

int request_tickets(Request *request) {
        const Shmd__Tickets *list = (const Shmd__Tickets *)request->message;
        Shmd__TicketsReply reply = SHMD__TICKETS_REPLY__INIT;
        Shmd__TicketInfo infos[TICKETS_PAGE], *pointers[TICKETS_PAGE];
        uint64_t now = time_now();
        Region *region;
        Ticket *ticket;
        int r;

        r = find_owned(request, list->path, list->region, &region);
        if (r)
                return r;
        reply.tickets = pointers;
        ticket = region_tickets_after(region, list->cursor);
        for (; ticket && reply.n_tickets < TICKETS_PAGE; ticket = region_tickets_after(region, ticket->id)) {
                describe(ticket, now, &infos[reply.n_tickets]);
                pointers[reply.n_tickets] = &infos[reply.n_tickets];
                ++reply.n_tickets;
        }
        reply.cursor = ticket ? infos[reply.n_tickets - 1].id : 0;
        return request_reply(request, &reply.base, NULL, 0);
}
