/* Requests: see the header for the model. */

#include "broker/request.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/spare.h"

/* Nothing secret in an answer stands further behind. */
#define SECRET_REPLY_MAX 256U

/* Of packets that are kept back, beside those that end what they carry the charge of. */
#define KEPT_BACK_BYTES (256U << 10)
/* Cells for requests that make room, or of which there are few. */
#define ROOM_LITTLE 64U

static int request_unknown(Request *request);
static int request_hello(Request *request);
static int request_ping(Request *request);

typedef enum RequestRight {
        RIGHT_ANYBODY,          /* names and regions decide */
        RIGHT_ADMIN,
} RequestRight;

static const struct {
        RequestFn fn;
        unsigned int states;    /* peer states in which it is legal */
        RequestRight right;     /* checked here, before fn */
        bool grants;            /* its reply can carry descriptors: fn asks for room itself */
        bool secret;            /* it, or its reply, has a ticket or a session in it: no copy is left behind */
        AgainFn again;          /* what became of it is noted, and told again by that; NULL: it changes nothing */
        uint32_t room;          /* cells of the state that it may need: checked here, before fn */
} requests[_MESSAGE_N] = {
        [MESSAGE_HELLO]   = { request_hello,   PEER_NEW,   RIGHT_ANYBODY, false, true,  NULL,         ROOM_LITTLE },
        [MESSAGE_PING]    = { request_ping,    PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_CREATE]  = { request_create,  PEER_READY, RIGHT_ANYBODY, true,  false, again_create, STATE_ROOM },
        [MESSAGE_OPEN]    = { request_open,    PEER_READY, RIGHT_ANYBODY, true,  false, NULL,         STATE_ROOM },
        [MESSAGE_BATCH]   = { request_batch,   PEER_READY, RIGHT_ANYBODY, true,  false, again_batch,  STATE_ROOM },
        [MESSAGE_PUBLISH] = { request_publish, PEER_READY, RIGHT_ANYBODY, false, false, again_done,   STATE_ROOM },
        [MESSAGE_STAT]    = { request_stat,    PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_LIST]    = { request_list,    PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_MKDIR]   = { request_mkdir,   PEER_READY, RIGHT_ANYBODY, false, false, again_done,   STATE_ROOM },
        [MESSAGE_RMDIR]   = { request_rmdir,   PEER_READY, RIGHT_ANYBODY, false, false, again_done,   ROOM_LITTLE },
        [MESSAGE_UNLINK]  = { request_unlink,  PEER_READY, RIGHT_ANYBODY, false, false, again_done,   ROOM_LITTLE },
        [MESSAGE_CHMOD]   = { request_chmod,   PEER_READY, RIGHT_ANYBODY, false, false, again_done,   STATE_ROOM },
        [MESSAGE_CHOWN]   = { request_chown,   PEER_READY, RIGHT_ADMIN,   false, false, again_done,   STATE_ROOM },
        [MESSAGE_WAIT]    = { request_wait,    PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_DF]      = { request_df,      PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_STATS]   = { request_stats,   PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_LINK]    = { request_link,    PEER_READY, RIGHT_ANYBODY, false, false, again_done,   STATE_ROOM },
        [MESSAGE_RENAME]  = { request_rename,  PEER_READY, RIGHT_ANYBODY, false, false, again_done,   STATE_ROOM },
        [MESSAGE_TTL]     = { request_ttl,     PEER_READY, RIGHT_ANYBODY, false, false, again_done,   STATE_ROOM },
        [MESSAGE_GET_ACL] = { request_get_acl, PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_SET_ACL] = { request_set_acl, PEER_READY, RIGHT_ANYBODY, false, false, again_done,   STATE_ROOM },
        [MESSAGE_WHY]     = { request_why,     PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_RELOAD]  = { request_reload,  PEER_READY, RIGHT_ADMIN,   false, false, again_reload, STATE_ROOM },
        [MESSAGE_FREEZE]  = { request_freeze,  PEER_READY, RIGHT_ANYBODY, false, false, again_freeze, STATE_ROOM },
        [MESSAGE_WATCH]   = { request_watch,   PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_UNWATCH] = { request_unwatch, PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_TICKET]  = { request_ticket,  PEER_READY, RIGHT_ANYBODY, false, true,  again_ticket, STATE_ROOM },
        [MESSAGE_REDEEM]  = { request_redeem,  PEER_READY, RIGHT_ANYBODY, true,  true,  again_redeem, STATE_ROOM },
        [MESSAGE_REVOKE]  = { request_revoke,  PEER_READY, RIGHT_ANYBODY, false, true,  again_revoke, ROOM_LITTLE },
        [MESSAGE_TICKETS] = { request_tickets, PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_BELL]    = { request_bell,    PEER_READY, RIGHT_ANYBODY, true,  false, NULL,         STATE_ROOM },
        [MESSAGE_DOCTOR]  = { request_doctor,  PEER_READY, RIGHT_ANYBODY, false, false, NULL,         0 },
        [MESSAGE_UPGRADE] = { request_upgrade, PEER_READY, RIGHT_ADMIN,   false, false, NULL,         0 },
        [MESSAGE_STATE]   = { request_state,   PEER_READY, RIGHT_ADMIN,   true,  false, NULL,         0 },
};

/* -- answering ------------------------------------------------------------------------ */

/* A packet that would leave in the middle of a request's change. */
typedef struct KeptBack {
        List link;
        Peer *peer;
        Charge charge;
        size_t n;
        uint8_t packet[];
} KeptBack;

/* What a packet says is committed before it leaves. One that cannot be sent costs this peer its connection
 * and nobody else anything: some of the reasons are the client's to make (it may refuse descriptors on
 * its socket, socket(7), SO_PASSRIGHTS). */
static void send_packet(Peer *peer, const uint8_t *packet, size_t n, const int *fds, size_t n_fds, Charge *charge) {
        int r;

        broker_commit(peer->broker);
        r = connection_send(peer->connection, packet, n, fds, n_fds, charge);
        if (r)
                peer_end(peer, r == CONNECTION_E_GONE ? NULL : "send-failed");
}

static void keep_back(Peer *peer, const uint8_t *packet, size_t n, Charge *charge) {
        KeptBack *kept = spare_take(sizeof(*kept) + n);

        if (!kept) {
                peer_end(peer, "send-failed");
                return;
        }
        *kept = (KeptBack){ .peer = peer, .charge = CHARGE_NULL, .n = n };
        memcpy(kept->packet, packet, n);
        if (charge) {
                kept->charge = *charge;
                *charge = (Charge)CHARGE_NULL;
        }
        list_init(&kept->link);
        list_append(&peer->broker->kept_back, &kept->link);
        peer->broker->n_kept_back += n;
        peer->n_kept_back += n;
}

bool request_may_keep_back(const Broker *broker) {
        return broker->n_kept_back < KEPT_BACK_BYTES;
}

/* The request that is served has done what it does, and may be answered: first goes what was kept back. */
static void change_over(Broker *broker) {
        KeptBack *kept;

        broker->changing = false;
        while ((kept = list_first(&broker->kept_back, KeptBack, link))) {
                list_unlink(&kept->link);
                kept->peer->n_kept_back -= kept->n;
                send_packet(kept->peer, kept->packet, kept->n, NULL, 0, &kept->charge);
                charge_release(&kept->charge);
                spare_give(kept, sizeof(*kept) + kept->n);
        }
        broker->n_kept_back = 0;
}

/* Packs and sends one packet. A message that does not fit is our mistake, not the client's:
 * handlers page what can be long. */
static void send_message(Peer *peer, unsigned int kind, uint64_t serial, const ProtobufCMessage *message,
                         const int *fds, size_t n_fds, Charge *charge) {
        uint8_t *packet = peer->broker->reply;
        size_t n;
        int r;

        r = message_pack(message, packet + sizeof(WireHeader), WIRE_REPLY_MAX - sizeof(WireHeader), &n);
        ASSERT(r == 0);
        n += sizeof(WireHeader);
        wire_put_header(packet, n, (uint16_t)kind, (uint16_t)n_fds, serial);

        if (peer->broker->changing)
                keep_back(peer, packet, n, charge);
        else
                send_packet(peer, packet, n, fds, n_fds, charge);
}

/* The change and its outcome are one transaction: the one that is committed before the answer leaves. */
static void settle(Request *request) {
        SavedOutcome *outcome = &request->outcome;

        if (!requests[request->kind].again || request->is_idle)
                return;
        outcome->serial = request->serial;
        outcome->kind = (uint8_t)request->kind;
        outcome->hash = request->hash;
        session_settle(request->peer->session, request->first, outcome, request->items, request->n_items);
}

int request_reply(Request *request, const ProtobufCMessage *message, const int *fds, size_t n_fds) {
        settle(request);
        change_over(request->broker);
        send_message(request->peer, request->kind | MESSAGE_REPLY, request->serial, message, fds, n_fds, NULL);
        return 0;
}

int request_done(Request *request) {
        Shmd__Done done = SHMD__DONE__INIT;

        return request_reply(request, &done.base, NULL, 0);
}

void peer_answer(Peer *peer, unsigned int kind, uint64_t serial, const ProtobufCMessage *message, Charge *charge) {
        send_message(peer, kind | MESSAGE_REPLY, serial, message, NULL, 0, charge);
}

void peer_refuse(Peer *peer, unsigned int kind, uint64_t serial, const Refusal *refusal, Charge *charge) {
        const char *name = message_name(kind);
        Shmd__Refusal message;

        stats_refusal(&peer->broker->stats, refusal->reason);
        audit_log(refusal, peer->account, peer->id, peer->cred.pid, name ? name : "unknown");
        audit_message(refusal, &message);
        send_message(peer, MESSAGE_REFUSAL, serial, &message.base, NULL, 0, charge);
}

void peer_tell(Peer *peer, uint64_t serial, const ProtobufCMessage *message) {
        send_message(peer, MESSAGE_EVENT, serial, message, NULL, 0, NULL);
}

/* -- the dispatcher ------------------------------------------------------------------- */

static const char *malformed_name(int r) {
        return r == MESSAGE_E_TOO_COMPLEX ? "too-complex" : "malformed";
}

static int request_unknown(Request *request) {
        return request_refuse(request, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_REQUEST, NULL, 0,
                              "this broker knows no request of kind %u", request->kind);
}

int request_refuse_admin(Request *request) {
        return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_ADMIN, NULL, 0,
                              "only an administrator may do that");
}

/* Whatever the request will have to save, there is room for it, and it is one transaction: what happened before it
 * in this turn is another one, as together they may be more than fit into a journal. */
static int make_room(Request *request) {
        Broker *broker = request->broker;
        int r;

        if (state_is_dirty(broker->state))
                broker_commit(broker);
        r = state_make_room(broker->state, requests[request->kind].room);
        if (r <= 0 && r != -ENOSPC)
                return error_fold(r);
        return request_refuse(request, SHMD__ERROR__ERROR_NO_MEMORY, SHMD__REASON__REASON_DESCRIPTORS, NULL, 0,
                              "the broker has no room for more that has to survive its restart");
}

int request_refuse_serial(Request *request) {
        return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_SERIAL, NULL, 0,
                              "the session has used this serial for another request");
}

/* Does what changes something, unless it was done already. */
static int call_once(Request *request, const uint8_t *payload, size_t n) {
        Session *session = request->peer->session;
        const SavedOutcome *first;
        int r;

        request->hash = saved_hash(payload, n);
        r = session_make_room(session, 0);
        if (r)
                return error_fold(r);
        request->first = session_look(session, request->serial);
        if (request->first == SESSION_NOTHING)
                return requests[request->kind].fn(request);
        first = session_outcome(session, request->first);
        if (first->kind != request->kind || first->hash != request->hash)
                return request_refuse_serial(request);
        return requests[request->kind].again(request, first);
}

static int check_and_call(Request *request, const uint8_t *payload, size_t n) {
        Peer *peer = request->peer;
        Broker *broker = request->broker;
        unsigned int kind = request->kind;
        ProtobufCMessage *message;
        int r;

        if (!message_name(kind))
                return request_unknown(request);
        if (!(requests[kind].states & peer->state)) {
                peer_end(peer, peer->state == PEER_NEW ? "before-hello" : "second-hello");
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_STATE, NULL, 0,
                                      peer->state == PEER_NEW ? "the first request must be hello" :
                                                                "hello was said already");
        }
        arena_reset(broker->arena);
        r = message_unpack(broker->arena, kind, false, payload, n, &message);
        if (r) {
                peer_end(peer, malformed_name(r));
                return REQUEST_E_CLOSED;
        }
        if (requests[kind].right == RIGHT_ADMIN && !peer->who.admin)
                return request_refuse_admin(request);
        r = make_room(request);
        if (r)
                return r;
        request->message = message;
        return requests[kind].again ? call_once(request, payload, n) : requests[kind].fn(request);
}

/* Something failed that no client should be able to make fail. Whoever asked is refused, the log
 * has the error, and everybody else is served: what a handler did so far, it has undone. */
static int refuse_trouble(Request *request, int error) {
        const char *name = strerrorname_np(-error);

        audit_log_trouble(request->peer->account, message_name(request->kind), error);
        return request_refuse(request, SHMD__ERROR__ERROR_NO_MEMORY, SHMD__REASON__REASON_KERNEL, NULL, 0,
                              "the kernel refused what the broker needed for it (%s)", name ? name : "unknown");
}

static int hold(Peer *peer, size_t n_packet, uint64_t at) {
        if (peer_hold(peer, n_packet, at) == 0)
                return REQUEST_E_HELD;
        peer_end(peer, "resources");
        return REQUEST_E_CLOSED;
}

/* All but the sentence of a refusal, which is most of it: that is empty, and who refuses writes it. */
static void request_init(Request *request, Peer *peer, const WireHeader *header) {
        memset(request, 0, offsetof(Request, refusal.sentence));
        request->refusal.sentence[0] = '\0';
        request->broker = peer->broker;
        request->peer = peer;
        request->kind = header->kind;
        request->serial = header->serial;
        request->who = &peer->who;
        request->account = peer->account;
        request->first = SESSION_NOTHING;
}

static int dispatch(Peer *peer, const WireHeader *header, const uint8_t *packet, uint64_t *clock) {
        Request request;
        uint64_t began = peer->held.packet ? peer->held.since : *clock;
        bool grants = header->kind < _MESSAGE_N && requests[header->kind].grants;
        int r = 0;

        if (header->serial == 0) {
                peer_end(peer, "serial-zero");
                return REQUEST_E_CLOSED;
        }
        request_init(&request, peer, header);

        peer->broker->changing = true;
        if (!grants)
                r = request_reserve(&request, 0);
        if (!r)
                r = check_and_call(&request, packet + sizeof(WireHeader), header->length - sizeof(WireHeader));
        if (r < 0)
                r = refuse_trouble(&request, r);
        change_over(peer->broker);
        if (r == REQUEST_E_REFUSED)
                peer_refuse(peer, header->kind, header->serial, &request.refusal, NULL);
        *clock = time_now();

        switch (r) {
        case REQUEST_E_SOON:
                return hold(peer, header->length, 0);
        case REQUEST_E_LATER:
                return hold(peer, header->length, PEER_HOLD_GROWING);
        case REQUEST_E_AT:
                return hold(peer, header->length, request.again);
        default:
                break;
        }
        stats_request(&peer->broker->stats, header->kind, r == REQUEST_E_REFUSED, *clock - began);
        return deadline_is_armed(&peer->end) ? REQUEST_E_CLOSED : 0;
}

int request_dispatch(Peer *peer, const WireHeader *header, const uint8_t *packet, uint64_t *clock) {
        Broker *broker = peer->broker;
        int r = dispatch(peer, header, packet, clock);

        if (header->kind < _MESSAGE_N && requests[header->kind].secret) {
                arena_wipe(broker->arena);
                explicit_bzero(broker->request, header->length);
                explicit_bzero(broker->reply, SECRET_REPLY_MAX);
        }
        /* The answer has left. At the end of a turn of several requests, the next would wait for all that is owed. */
        stock_make(&broker->regions);
        return r;
}

/* How long a request may wait for room in the store of descriptors. */
#define STORE_WAIT_NS (2 * NSEC_PER_SEC)

int request_store_busy(Request *request, const void *path, size_t n_path) {
        const HeldRequest *held = &request->peer->held;

        if (!held->packet || time_now() - held->since < STORE_WAIT_NS)
                return REQUEST_E_LATER;
        return request_refuse(request, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_KEEPER, path, n_path,
                              "whoever keeps the broker's descriptors does not take one more");
}

/* -- for handlers --------------------------------------------------------------------- */

int request_reserve(Request *request, uint32_t n_fds) {
        Cost cost = { .slots = { [ACCOUNT_INFLIGHT] = n_fds } };
        HeldRequest *held = &request->peer->held;
        Shortage shortage;
        int r;

        r = connection_may_send(request->peer->connection, n_fds, &shortage);
        if (r == CONNECTION_E_BUSY)
                return REQUEST_E_LATER;
        if (r == CONNECTION_E_QUOTA) {
                /* Other connections of the same user must read: wait for them, but not for ever, and
                 * not at all if that would not help. */
                if (account_has_room_for(request->peer->account, &cost) &&
                    (!held->packet || time_now() - held->since < request->broker->options->stall_ns))
                        return REQUEST_E_LATER;
                audit_shortage(&request->refusal, &shortage, NULL, 0);
                return REQUEST_E_REFUSED;
        }
        return error_fold(r);
}

/* How long a request may wait for what is being released. */
#define SHORTAGE_WAIT_NS (2 * NSEC_PER_SEC)

/* Before the answer is no, every grant of the account is looked at once. */
static int grants_shortage(Request *request) {
        Grants *grants = &request->broker->grants;
        HeldRequest *held = &request->peer->held;

        if (held->sweep != 0 && grants_swept(grants, held->sweep))
                return REQUEST_E_REFUSED;
        if (held->sweep == 0)
                held->sweep = grants_sweep(grants, request->account);
        return REQUEST_E_SOON;
}

static int regions_shortage(Request *request) {
        const HeldRequest *held = &request->peer->held;
        uint64_t waited = held->packet ? time_now() - held->since : 0;

        if (waited >= SHORTAGE_WAIT_NS)
                return REQUEST_E_REFUSED;
        switch (regions_squeeze(&request->broker->regions, waited)) {
        case REGIONS_SOON:
                return REQUEST_E_SOON;
        case REGIONS_LATER:
                return REQUEST_E_LATER;
        case REGIONS_SPENT:
        default:
                return REQUEST_E_REFUSED;
        }
}

int request_shortage(Request *request, const Shortage *shortage, const void *path, size_t n_path) {
        int r = REQUEST_E_REFUSED;

        if (shortage->slot == ACCOUNT_GRANTS)
                r = grants_shortage(request);
        else if (shortage->slot == ACCOUNT_BYTES || shortage->slot == ACCOUNT_REGIONS)
                r = regions_shortage(request);
        if (r == REQUEST_E_REFUSED)
                audit_shortage(&request->refusal, shortage, path, n_path);
        return r;
}

int request_need_access(Request *request, uint32_t reason, const void *thing, size_t n_thing,
                        const Permissions *what, unsigned int want, const char *sentence) {
        AccessDecision decision = access_explain(request->who, what, want);

        why_access(request->why, reason, thing, n_thing, what, want, &decision);
        if (decision.allowed)
                return 0;
        audit_access(&request->refusal, reason, thing, n_thing, what, &decision, sentence);
        return REQUEST_E_REFUSED;
}

int request_need_owner(Request *request, const void *thing, size_t n_thing, const Permissions *what,
                       const char *sentence) {
        bool owns = access_owns(request->who, what);

        why_owner(request->why, SHMD__REASON__REASON_OWNER, thing, n_thing, what, request->who, owns);
        if (owns)
                return 0;
        return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_OWNER, thing, n_thing,
                              "%s", sentence);
}

/* Notes the directories that were searched on the way to a spot, from the root. */
static void note_way(Request *request, int r, const Spot *spot) {
        const Directory *way[PATH_DEPTH_MAX + 1];
        size_t n = 0, length = 0;

        if (!request->why || r == TREE_E_NAME)
                return;
        for (const Directory *d = r == TREE_E_DENIED ? node_directory(spot->node) : spot->parent; d; d = d->node.parent)
                way[n++] = d;
        while (n > 0) {
                const Directory *directory = way[--n];
                AccessDecision decision = access_explain(request->who, &directory->permissions, ACCESS_SEARCH);

                if (directory->node.parent)
                        length += 1U + directory->node.n_name;
                why_access(request->why, SHMD__REASON__REASON_SEARCH, spot->path, length ? length : 1,
                           &directory->permissions, ACCESS_SEARCH, &decision);
        }
}

/* What tree_resolve() and tree_find() returned. */
static int found(Request *request, int r, const Spot *spot) {
        note_way(request, r, spot);
        if (r == 0)
                return 0;
        if (r == TREE_E_DENIED) {
                const Permissions *what = node_permissions(spot->node);
                AccessDecision decision = access_explain(request->who, what, ACCESS_SEARCH);

                audit_access(&request->refusal, SHMD__REASON__REASON_SEARCH, spot->path, spot->decided, what, &decision,
                             "no search permission on the directory");
        } else {
                audit_tree(&request->refusal, r, spot, false);
        }
        return REQUEST_E_REFUSED;
}

int request_resolve(Request *request, ProtobufCBinaryData path, Spot *ret) {
        return found(request, tree_resolve(&request->broker->tree, request->who, path.data, path.len, ret), ret);
}

int request_find(Request *request, ProtobufCBinaryData path, Spot *ret) {
        return found(request, tree_find(&request->broker->tree, request->who, path.data, path.len, ret), ret);
}

int request_find_yet(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r = tree_find(&request->broker->tree, request->who, path.data, path.len, ret);

        if (r != TREE_E_MISSING)
                return found(request, r, ret);
        note_way(request, r, ret);
        return 0;
}

int request_find_own(Request *request, ProtobufCBinaryData path, const char *sentence, Spot *ret) {
        int r = request_find(request, path, ret);

        if (r)
                return r;
        if (node_is_directory(ret->node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      ret->path, ret->n_path, "it is a directory");
        return request_need_owner(request, ret->path, ret->n_path, node_permissions(ret->node), sentence);
}

/* A region by number is its owner's business: for everybody else there is none of that number. */
int request_own_region(Request *request, uint64_t id, Region **ret) {
        Region *region = regions_find(&request->broker->regions, id);

        if (!region || !access_owns(request->who, &region->permissions))
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING, NULL, 0,
                                      "no region of that number is yours");
        *ret = region;
        return 0;
}

int request_may_change(Request *request, const Spot *spot) {
        const unsigned int want = ACCESS_WRITE | ACCESS_SEARCH;
        AccessDecision decision = {};
        bool sticky;
        int r = tree_may_change(spot, request->who, &sticky);

        if (r != TREE_E_ROOT) {
                decision = access_explain(request->who, &spot->parent->permissions, want);
                why_access(request->why, SHMD__REASON__REASON_DIRECTORY_WRITE, spot->path, spot->n_path,
                           &spot->parent->permissions, want, &decision);
        }
        /* The tree decides; the decision above only has the words for it. */
        if (r == TREE_E_DENIED && !sticky) {
                audit_access(&request->refusal, SHMD__REASON__REASON_DIRECTORY_WRITE, spot->path, spot->n_path,
                             &spot->parent->permissions, &decision,
                             "no write and search permission on the directory it is in");
                return REQUEST_E_REFUSED;
        }
        if (r != TREE_E_ROOT && spot->node && spot->parent->permissions.mode & ACCESS_STICKY)
                why_owner(request->why, SHMD__REASON__REASON_STICKY, spot->path, spot->n_path,
                          node_permissions(spot->node), request->who, !sticky);
        if (r) {
                audit_tree(&request->refusal, r, spot, sticky);
                return REQUEST_E_REFUSED;
        }
        /* Else its owner could put a region in its place, and keep the next policy from taking effect. */
        if (spot->node && node_is_directory(spot->node) && !list_is_empty(&node_directory(spot->node)->ruled) &&
            !request->who->admin)
                return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_ADMIN,
                                      spot->path, spot->n_path,
                                      "a policy names the directory: only an administrator may take it away");
        return 0;
}

int request_check_flags(Request *request, uint32_t flags, uint32_t known) {
        if (flags & ~known)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_FLAGS, NULL, 0,
                                      "this broker does not know the flags 0x%x", flags & ~known);
        return 0;
}

/* -- hello and ping ------------------------------------------------------------------- */

/* The session that the client comes back to, or a new one. */
static int hello_session(Peer *peer, ProtobufCBinaryData wanted, uint8_t ret_id[MESSAGE_SESSION_BYTES],
                         bool *ret_comes_back) {
        Sessions *sessions = &peer->broker->sessions;

        if (wanted.len == MESSAGE_SESSION_BYTES) {
                memcpy(ret_id, wanted.data, MESSAGE_SESSION_BYTES);
                peer->session = session_resume(sessions, ret_id, peer, peer->cred.uid);
        }
        *ret_comes_back = peer->session;
        return peer->session ? 0 : error_fold(session_new(&peer->session, ret_id, sessions, peer, peer->cred.uid));
}

/* Those of the features that the peer would like that it gets. */
static uint64_t hello_features(Peer *peer, uint64_t wanted) {
        uint64_t here = peer->broker->options->busy_poll_ns ? SHMD__FEATURES__FEATURE_BUSY_POLL : 0;
        uint64_t granted = wanted & here;

        if (granted & SHMD__FEATURES__FEATURE_BUSY_POLL)
                busypoll_grant(&peer->poll);
        return granted;
}

static int request_hello(Request *request) {
        const Shmd__Hello *hello = (const Shmd__Hello *)request->message;
        Shmd__HelloReply reply = SHMD__HELLO_REPLY__INIT;
        Peer *peer = request->peer;
        const char *version = request->broker->options->version;
        uint8_t id[MESSAGE_SESSION_BYTES];
        bool comes_back;
        int r;

        if (hello->version == 0)
                return request_refuse(request, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_VERSION, NULL, 0,
                                      "this broker speaks version %u of the protocol", MESSAGE_VERSION);
        if (hello->session.len != 0 && hello->session.len != MESSAGE_SESSION_BYTES)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a session has %u bytes", MESSAGE_SESSION_BYTES);

        r = hello_session(peer, hello->session, id, &comes_back);
        if (r)
                return error_fold(r);
        peer->state = PEER_READY;
        deadline_disarm(&peer->hello);
        reply.version = MESSAGE_VERSION;
        reply.features = hello_features(peer, hello->features);
        reply.session = (ProtobufCBinaryData){ .data = id, .len = sizeof(id) };
        reply.uid = peer->cred.uid;
        reply.resumed = comes_back;
        reply.admin = peer->who.admin;
        reply.broker = (ProtobufCBinaryData){ .data = (uint8_t *)version, .len = strlen(version) };
        return request_reply(request, &reply.base, NULL, 0);
}

static int request_ping(Request *request) {
        const Shmd__Ping *ping = (const Shmd__Ping *)request->message;

        if (ping->payload.len > MESSAGE_PING_MAX)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a ping carries at most %u bytes, not %zu", MESSAGE_PING_MAX, ping->payload.len);
        return request_reply(request, &ping->base, NULL, 0);
}
