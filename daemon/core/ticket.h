/* Tickets: strings that are good for a grant of one region, whoever brings them.
 *
 * A ticket is a capability: 256 random bits behind a fixed prefix, handed to whoever shall have the
 * region by whatever way its issuer trusts. What it is good for is fixed when it is issued: a region,
 * a right, a number of uses, a time, perhaps one uid. It needs no name, no search permission, no mode
 * and no ACL: that is its point, and the way to hand a region without a name to another user.
 *
 * Only the SHA-256 of the string is kept, and tickets are found by it in an ordered tree (core/secret.h).
 *
 *      issued --each use but the last--> issued --last use, time, revoked, new owner, region gone--> over
 *
 * A ticket holds a charge of its issuer's, one pending request, until it is over, and its time ends
 * it. It does not keep its region alive: when nobody holds a region without a name, the region goes,
 * and its tickets with it. When the region gets a new owner, the tickets of the old one are over.
 */
#ifndef CORE_TICKET_H
#define CORE_TICKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "acct/account.h"
#include "base/tree.h"
#include "core/secret.h"
#include "core/state.h"
#include "util/deadline.h"

#define TICKET_PREFIX "shmdt_"
#define TICKET_RANDOM_BYTES 32
#define TICKET_DIGEST_BYTES SECRET_DIGEST_BYTES
/* The prefix, and the random bytes in base64url (RFC 4648) without padding. */
#define TICKET_TEXT_BYTES (sizeof(TICKET_PREFIX) - 1 + (TICKET_RANDOM_BYTES * 4 + 2) / 3)
#define TICKET_USES_MAX 65536
/* Of one region: what ends together must not make a turn long. */
#define TICKETS_OF_REGION_MAX 1024

enum {
        _TICKET_E_SUCCESS,
        TICKET_E_QUOTA,
        TICKET_E_TOO_MANY,      /* the region has as many as it can have */
};

typedef struct Counters Counters;
typedef struct Region Region;
typedef struct SavedTicket SavedTicket;
typedef struct Ticket Ticket;
typedef struct Tickets Tickets;

typedef struct TicketSpec {
        bool writable;
        bool one_user;
        uid_t uid;              /* of that user */
        uint32_t uses;          /* 1..TICKET_USES_MAX */
        uint64_t until;         /* CLOCK_MONOTONIC */
} TicketSpec;

struct Ticket {
        RB_ENTRY(Ticket) by_digest;
        RB_ENTRY(Ticket) by_id;
        RB_ENTRY(Ticket) in_region;
        Tickets *tickets;
        Region *region;
        uint64_t id;
        StateRecord record;
        TicketSpec spec;
        uint32_t left;          /* uses */
        Deadline end;
        Charge charge;          /* the issuer's */
        uint8_t digest[TICKET_DIGEST_BYTES];
};

RB_HEAD(TicketDigestTree, Ticket);
RB_HEAD(TicketTree, Ticket);
RB_HEAD(RegionTicketTree, Ticket);

/* A region's part: its tickets, oldest first. */
typedef struct RegionTickets {
        struct RegionTicketTree tree;
        uint32_t n;
} RegionTickets;

struct Tickets {
        struct TicketDigestTree by_digest;
        struct TicketTree by_id;
        Deadlines *deadlines;
        State *state;           /* NULL: nothing is saved */
        Counters *counters;     /* likewise */
        uint64_t last_id;
        uint64_t n;
};

void tickets_init(Tickets *tickets, Deadlines *deadlines);
void tickets_deinit(Tickets *tickets);

/* Issues one, charged to `issuer`. ret_text gets TICKET_TEXT_BYTES bytes, which are the caller's to
 * send and to wipe: nobody can tell them a second time. *ret belongs to the region.
 * Return: 0, TICKET_E_QUOTA (*shortage says where), TICKET_E_TOO_MANY, -ENOMEM, or a negative errno. */
int ticket_new(Ticket **ret, char ret_text[TICKET_TEXT_BYTES], Tickets *tickets, Region *region, Account *issuer,
               const TicketSpec *spec, Shortage *shortage);

/* Makes one that was there before a restart, charged to its issuer without asking any limit. Return: 0;
 * TICKET_E_TOO_MANY, also when there is one of that number or that string; -ENOMEM. */
int ticket_adopt(Ticket **ret, Tickets *tickets, Region *region, Account *issuer, const SavedTicket *saved);

/* Gives it another text: the one before it is good for nothing from now on. Return: 0, or a negative errno. */
int ticket_renew(Ticket *ticket, char ret_text[TICKET_TEXT_BYTES]);
/* Makes the text of no ticket at all. */
int ticket_draw(char ret_text[TICKET_TEXT_BYTES]);

/* It is over. Return: NULL. */
Ticket *ticket_free(Ticket *ticket);
/* It is over because somebody said so, which the region counts. */
void ticket_revoke(Ticket *ticket);

/* The ticket of that text, or of that number; NULL if there is none. */
Ticket *tickets_find(Tickets *tickets, const void *text, size_t n);
Ticket *tickets_find_id(Tickets *tickets, uint64_t id);

/* Whether that user may bring it. */
bool ticket_admits(const Ticket *ticket, uid_t uid);

/* One use is gone; with the last one it is over. */
void ticket_spend(Ticket *ticket);

void region_tickets_init(RegionTickets *of);
/* Ends all tickets of a region. Return: how many. */
uint32_t region_tickets_clear(Region *region);
/* Likewise because somebody said so, which it counts also if none is left. */
uint32_t region_revoke_tickets(Region *region);
/* The region's first ticket with a number above `id`, NULL if there is none. */
Ticket *region_tickets_after(const Region *region, uint64_t id);

#endif
