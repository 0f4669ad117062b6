/* Requests: the table of them, and the one dispatcher that checks what the table says.
 *
 * A handler sees only requests that are legal in the peer's state and that the peer has the right
 * to make. It checks the shape of what it got, resolves names with the asker's credentials, acts,
 * and answers. Module codes end here: a handler turns each into a refusal in words (audit.h), or
 * into "ask me again".
 *
 * A request is one transaction of the state: while a handler works, no packet leaves. What others are
 * told meanwhile is kept back until the handler answers; then all is committed, then the others hear,
 * then the asker does. So a handler has changed everything that is saved when it calls request_reply(),
 * and after that it tells (events, waiters) and changes nothing more.
 */
#ifndef BROKER_REQUEST_H
#define BROKER_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/audit.h"
#include "broker/broker.h"
#include "broker/peer.h"
#include "broker/why.h"
#include "proto/message.h"
#include "proto/wire.h"

enum {
        _REQUEST_E_SUCCESS,     /* answered */
        REQUEST_E_REFUSED,      /* request->refusal says why */
        REQUEST_E_SOON,         /* something may be released in the next turns: ask again then */
        REQUEST_E_LATER,        /* the client, or its user, must read first: ask again in a while */
        REQUEST_E_AT,           /* ask again at request->again */
        REQUEST_E_PENDING,      /* taken; the answer comes when it comes */
        REQUEST_E_HELD,         /* from the dispatcher: kept by the peer, to be asked again */
        REQUEST_E_CLOSED,       /* from the dispatcher: the peer is over */
};

typedef struct Request {
        Broker *broker;
        Peer *peer;
        unsigned int kind;
        uint64_t serial;
        const ProtobufCMessage *message;
        const Credentials *who; /* whose rights count: the peer's, but why may ask for somebody else */
        Account *account;       /* whose, likewise */
        Why *why;               /* what is met is noted there; NULL: it is done, not explained */
        uint64_t again;         /* CLOCK_MONOTONIC: for REQUEST_E_AT */

        /* Of those that change something: what is to be remembered. */
        uint32_t hash;          /* of the payload */
        int first;              /* slot of what became of it the first time; SESSION_NOTHING */
        bool is_idle;           /* it changed nothing after all */
        SavedOutcome outcome;   /* what it is of the answer; `region` and `extra` are the handler's */
        const uint64_t *items;  /* of a batch */
        size_t n_items;

        Refusal refusal;        /* last: its sentence is not cleared before it is made */
} Request;

typedef int (*RequestFn)(Request *request);

/* Checks and answers one packet that wire_receive() took. *clock is CLOCK_MONOTONIC when that began, and then
 * when this ended.
 * Return: 0, REQUEST_E_HELD, REQUEST_E_CLOSED. */
int request_dispatch(Peer *peer, const WireHeader *header, const uint8_t *packet, uint64_t *clock);

/* Whether there is room for one packet more among those that are kept back. */
bool request_may_keep_back(const Broker *broker);

/* -- for handlers ---------------------------------------------------------------------- */

/* Makes sure that a reply with so many descriptors can be sent. Return: 0, REQUEST_E_LATER,
 * REQUEST_E_REFUSED. */
int request_reserve(Request *request, uint32_t n_fds);

/* Sends the reply, with descriptors that stay the caller's; if that fails the peer is over.
 * Return: 0. */
int request_reply(Request *request, const ProtobufCMessage *message, const int *fds, size_t n_fds);
int request_done(Request *request);

/* Sends a reply or a refusal outside of a dispatch (a wait that is over); charge: of what it ends,
 * may be NULL, moves to the packet if that has to queue. */
void peer_answer(Peer *peer, unsigned int kind, uint64_t serial, const ProtobufCMessage *message, Charge *charge);
void peer_refuse(Peer *peer, unsigned int kind, uint64_t serial, const Refusal *refusal, Charge *charge);

/* Sends events, which nobody asked for just now; serial: of the request that began the watch. */
void peer_tell(Peer *peer, uint64_t serial, const ProtobufCMessage *message);

/* A charge was refused: whether to ask again because something may come free, or to refuse.
 * Return: REQUEST_E_SOON, REQUEST_E_LATER, REQUEST_E_REFUSED. */
int request_shortage(Request *request, const Shortage *shortage, const void *path, size_t n_path);

/* Whether the permissions of a thing give all of `want`, or refuses; sentence: what is missing else. */
int request_need_access(Request *request, uint32_t reason, const void *thing, size_t n_thing,
                        const Permissions *what, unsigned int want, const char *sentence);
/* Whether the asker owns the thing, or refuses; sentence: who may. */
int request_need_owner(Request *request, const void *thing, size_t n_thing, const Permissions *what,
                       const char *sentence);

/* The store of descriptors takes none just now. Return: REQUEST_E_LATER, REQUEST_E_REFUSED. */
int request_store_busy(Request *request, const void *path, size_t n_path);

/* Refuses. Return: REQUEST_E_REFUSED. */
#define request_refuse(request, ...) (audit_refuse(&(request)->refusal, __VA_ARGS__), REQUEST_E_REFUSED)

int request_refuse_admin(Request *request);
int request_refuse_serial(Request *request);
/* For REGION_E_SIZE. */
int request_refuse_size(Request *request, ProtobufCBinaryData path, uint32_t huge_page_size);

/* Resolves a path, or refuses. Return: 0, REQUEST_E_REFUSED. */
int request_resolve(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_find(Request *request, ProtobufCBinaryData path, Spot *ret);
/* The same, but a name that does not exist yet is none to refuse: ret->node is NULL then. */
int request_find_yet(Request *request, ProtobufCBinaryData path, Spot *ret);
/* Finds a region by name for its owner, or refuses; sentence: who may. */
int request_find_own(Request *request, ProtobufCBinaryData path, const char *sentence, Spot *ret);
/* Finds a region by number for its owner, or refuses. */
int request_own_region(Request *request, uint64_t id, Region **ret);
/* Whether the name at the spot may be made or taken away, or refuses. */
int request_may_change(Request *request, const Spot *spot);
int request_check_flags(Request *request, uint32_t flags, uint32_t known);

/* All that a handler asks before it does something, and refuses for; what is charged comes after. */
int request_may_open(Request *request, ProtobufCBinaryData path, uint32_t rights, Spot *ret);
int request_may_make(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_unlink(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_rmdir(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_link(Request *request, ProtobufCBinaryData path, ProtobufCBinaryData to, Spot *ret, Spot *ret_to);
/* With the limits, for a rename to a free name: what it then does cannot be refused. */
int request_may_move(Request *request, ProtobufCBinaryData path, ProtobufCBinaryData to);
int request_may_list(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_freeze(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_ticket(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_watch(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_see_holders(Request *request, ProtobufCBinaryData path, Spot *ret);
int request_may_set(Request *request, ProtobufCBinaryData path, Spot *ret);

/* Describes a directory (region NULL) or a region (node NULL if it has no name); path is where the
 * bytes of its path may go (PATH_BYTES_MAX). */
void request_describe(const Node *node, Region *region, char *path, Shmd__Node *ret);

/* The oldest name of a region that the peer may find, NULL without: whoever owns a region may search where it
 * is, or not, as somebody may have moved the directory it is in. */
const Node *request_name_of(const Peer *peer, const Region *region);

/* Give the answer that a request had the first time: request-again.c.
 * Return: 0, REQUEST_E_REFUSED, REQUEST_E_SOON, REQUEST_E_LATER, REQUEST_E_AT, negative errno. */
typedef int (*AgainFn)(Request *request, const SavedOutcome *first);
int again_done(Request *request, const SavedOutcome *first);
int again_create(Request *request, const SavedOutcome *first);
int again_batch(Request *request, const SavedOutcome *first);
int again_reload(Request *request, const SavedOutcome *first);
int again_freeze(Request *request, const SavedOutcome *first);
int again_ticket(Request *request, const SavedOutcome *first);
int again_redeem(Request *request, const SavedOutcome *first);
int again_revoke(Request *request, const SavedOutcome *first);

/* For those that hand out memory: what became of their items was this (SAVED_ITEM_...). */
int request_grant_again(Request *request, const uint64_t *items, size_t n);

/* The same for a ticket, of that number. */
int request_ticket_again(Request *request, uint64_t id);

/* Grants a region for a use of a ticket, and answers. Return: 0, REQUEST_E_REFUSED, REQUEST_E_SOON,
 * REQUEST_E_LATER, negative errno: then nothing was granted. */
int request_grant_by_ticket(Request *request, Ticket *ticket);

/* Whether a name may have that time to live, or refuses; and gives it to a region's name (0: none).
 * Return of the second: 0, -ENOMEM. */
int request_check_ttl(Request *request, uint64_t ttl_ns, ProtobufCBinaryData path);
int request_expire(Request *request, Node *node, uint64_t ttl_ns);

/* What waits to be frozen: for its peer when it ends, and for both when the broker does. */
void peer_leave_freezes(Peer *peer);
void peer_finish_freezes(Peer *peer);
void freezes_free(Broker *broker);
/* A region is frozen: who waits for that, or watches, is told if that was not so already. For core/region. */
void freeze_tell(Region *region, void *broker);

/* Refuses what grant_new() refused. Return: REQUEST_E_SOON, REQUEST_E_LATER, REQUEST_E_REFUSED, negative errno. */
int request_refuse_grant(Request *request, int r, ProtobufCBinaryData path, const Shortage *shortage);

/* What the keeper says to an upgrade: it stops this broker for it, or nothing comes of it. */
void upgrades_begin(Broker *broker);
void upgrades_refuse(Broker *broker);

/* The broker ends: what the helper was asked on behalf of doorbells is not wanted any more. */
void bells_free(Broker *broker);

/* The handlers: request-acl.c, request-bell.c, request-freeze.c, request-grant.c, request-look.c,
 * request-name.c, request-state.c, request-ticket.c, request-upgrade.c, request-watch.c,
 * request-why.c. */
int request_create(Request *request);
int request_open(Request *request);
int request_batch(Request *request);
int request_publish(Request *request);
int request_link(Request *request);
int request_rename(Request *request);
int request_mkdir(Request *request);
int request_rmdir(Request *request);
int request_unlink(Request *request);
int request_chmod(Request *request);
int request_chown(Request *request);
int request_get_acl(Request *request);
int request_set_acl(Request *request);
int request_wait(Request *request);
int request_watch(Request *request);
int request_unwatch(Request *request);
int request_stat(Request *request);
int request_list(Request *request);
int request_df(Request *request);
int request_stats(Request *request);
int request_reload(Request *request);
int request_upgrade(Request *request);
int request_doctor(Request *request);
int request_why(Request *request);
int request_ticket(Request *request);
int request_redeem(Request *request);
int request_revoke(Request *request);
int request_tickets(Request *request);
int request_freeze(Request *request);
int request_bell(Request *request);
int request_ttl(Request *request);
int request_state(Request *request);

#endif
