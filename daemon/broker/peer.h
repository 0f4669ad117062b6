/* A peer: the broker's object for one connected process.
 *
 * Who it is was read when it connected and never changes. A peer ends when its connection does,
 * when it breaks the protocol, or when it leaves its answers unread; its session (broker/session.h)
 * ends then and its waits are over. What it was granted stays the kernel's business.
 *
 * However many connections a user has, in a turn of the loop they get a millisecond together (and
 * the request that is being served then is finished). Who comes too late stands in line, first come
 * first served, until a turn with time for it. So what others wait for their answers grows with the
 * number of users, not with what one of them does. Within a turn, peers that pipeline are served last, a
 * few requests each.
 */
#ifndef BROKER_PEER_H
#define BROKER_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/broker.h"
#include "broker/busypoll.h"
#include "broker/session.h"
#include "core/access.h"
#include "core/grant.h"
#include "util/peercred.h"

/* States a request may be legal in: bits, for the table. */
enum {
        PEER_NEW = 1,           /* has not said hello */
        PEER_READY = 2,
};

/* A policy that comes in parts: broker/request-policy alone looks at it. */
typedef struct Staging {
        uint8_t *bytes;         /* `total` of them, n are there; NULL: none; owned */
        uint32_t total;
        uint32_t n;
        Charge charge;
        Deadline deadline;
} Staging;

#define STAGING_NULL { .charge = CHARGE_NULL, .deadline = DEADLINE_NULL }

/* An upgrade that a peer waits for: broker/request-upgrade alone looks at it. */
typedef struct Upgrade {
        List link;              /* in Broker.upgrades */
        uint64_t serial;
        Charge charge;
        Deadline deadline;      /* armed while it waits */
} Upgrade;

/* A peer in line: with a request that cannot be answered yet, a copy of which is asked again in its
 * turn, or only because its user has had its time of a turn. */
typedef struct HeldRequest {
        List link;              /* in Broker.held, or Broker.late */
        uint8_t *packet;        /* NULL: none; owned */
        size_t n_packet;
        uint64_t since;         /* CLOCK_MONOTONIC */
        uint64_t at;            /* when to ask again */
        uint64_t sweep;         /* ticket of a look at its account's grants */
        StateCopy *copy;        /* that it asks for; owned */
} HeldRequest;

struct Peer {
        RB_ENTRY(Peer) entry;
        Broker *broker;
        uint64_t id;
        unsigned int state;
        Peercred cred;
        Credentials who;        /* points into cred */
        Account *account;       /* pinned */
        Connection *connection;
        Deadline hello;
        Deadline end;           /* armed once it is over: it is freed in the next turn */
        Session *session;       /* from hello on; owned */
        List waiters;
        List freezes;           /* that it waits for */
        FeedPeer feed;
        size_t n_kept_back;     /* broker/request: bytes of packets to it that are kept back */
        HeldRequest held;
        Staging staging;
        Upgrade upgrade;
        uint8_t pipelines;      /* so often in vain it is read from once more; 0: it asks one thing at a time */
        uint8_t wakes;          /* when nothing said whether it does */
        BusyPoll poll;
};

/* Takes over an accepted socket. One that cannot be a peer (its credentials, its user's limit)
 * is told why and closed. */
void peer_accept_consume_fd(Broker *broker, int fd);

/* Ends the peer, in the next turn of the loop; reason is for the log, NULL for an ordinary end. */
void peer_end(Peer *peer, const char *reason);

/* Frees it now. Return: NULL. */
Peer *peer_free(Peer *peer);

/* The broker stops: answers what every peer has sent so far, and refuses what would have to wait. */
void peers_finish(Broker *broker);

Peer *peers_find(Broker *broker, uint64_t id);
Peer *peers_first(Broker *broker);
Peer *peers_next(Peer *peer);

/* Forgets a policy of which not all has come. */
void staging_drop(Staging *staging);

/* Forgets that the peer waits for an upgrade. */
void upgrade_drop(Upgrade *upgrade);

/* What those credentials may; borrows their groups. */
Credentials peer_credentials(const Broker *broker, const Peercred *cred);

/* Who asks for a grant. */
Asker peer_asker(const Peer *peer);

/* Keeps the request in broker->request, to be asked again at a time (in the past: in the next turn) or
 * after a while that grows, and reads nothing else until it is answered.
 * Return: 0, -ENOMEM, or negative errno. */
#define PEER_HOLD_GROWING UINT64_MAX
int peer_hold(Peer *peer, size_t n_packet, uint64_t at);

#endif
