/* A connection: packets in, packets out, and how much the other side has not taken yet.
 *
 * Descriptors that were sent and not yet received count against the broker's uid for everybody
 * (unix(7), ETOOMANYREFS), and packets not yet read fill a buffer. So each connection keeps an
 * account of both, charged to its user and bounded, until the kernel says that the other side
 * took everything (SIOCOUTQ reads 0). The kernel is asked only when a bound is near, and for all
 * connections that owe something ten times a second.
 *
 * What was read was read in order. So from how much the kernel holds, and the least that it counts for a
 * packet, follows how many of the latest ones may still be there, and with them their descriptors:
 * one that always has requests under way is never seen to have taken everything.
 *
 * Whoever wants to answer asks first with connection_may_send(); after a yes, the answer fits. A
 * packet that comes uninvited (a wait that is over) may have to queue, with its charge: then it
 * goes first when there is room. A connection that takes nothing for the stall time is over.
 *
 * Closing a socket does not take back what its other end has not read: the descriptors stay in
 * flight, and the kernel memory stays used. So a connection that ends is shut down but lingers,
 * with its charges, until the other side has read everything or is gone too.
 */
#ifndef NET_CONNECTION_H
#define NET_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "acct/account.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "net/loop.h"
#include "proto/wire.h"
#include "util/deadline.h"

/* Descriptors one connection may have in flight. */
#define CONNECTION_INFLIGHT_MAX 256

enum {
        _CONNECTION_E_SUCCESS,
        CONNECTION_E_BUSY,      /* the other side must read first */
        CONNECTION_E_QUOTA,     /* its user has too many descriptors in flight */
        CONNECTION_E_GONE,      /* the other side is gone */
};

typedef struct Connection Connection;
typedef struct Connections Connections;

/* Packets that were sent one after the other. */
typedef struct SentRow {
        uint32_t n_bytes;       /* that the kernel counts for them, at least */
        uint16_t n_packets;
        uint16_t n_fds;
} SentRow;

#define CONNECTION_SENT_PACKETS 32U     /* in one such row; and no more than the first with so many descriptors */
#define CONNECTION_SENT_ROWS 8U

/* What all connections share. */
struct Connections {
        Loop *loop;
        Deadlines *deadlines;
        uint64_t stall_ns;
        uint32_t least;         /* bytes that the kernel counts for the smallest packet */
        List owing;             /* connections that have something in flight or queued */
        Deadline refresh;
        uint64_t interval;      /* grows while nobody takes anything */
};

typedef struct ConnectionEvents {
        void (*readable)(void *userdata);
        void (*stalled)(void *userdata);        /* took nothing for too long: end it */
        void *userdata;
} ConnectionEvents;

struct Connection {
        Connections *connections;
        ConnectionEvents events;
        int fd;
        Source *source;
        Account *account;       /* pinned by the charges */
        Charge slot;            /* for the connection itself */
        Charge inflight;
        uint32_t n_inflight;
        SentRow sent[CONNECTION_SENT_ROWS];     /* the latest rows, in a circle */
        uint8_t newest;         /* of those */
        uint32_t room;          /* bytes the kernel may hold for the other side */
        uint32_t unread;        /* bytes it holds, at most */
        uint32_t unread_least;  /* ... and at least, if the other side took nothing */
        uint64_t owes_since;    /* CLOCK_MONOTONIC; 0: owes nothing */
        bool lingering;
        bool plain;             /* no descriptor can come */
        List queue;             /* packets that had no room */
        List owing;
};

void connections_init(Connections *connections, Loop *loop, Deadlines *deadlines, uint64_t stall_ns);
void connections_deinit(Connections *connections);

/* What a connection costs its user, to be charged before one is made. */
extern const Cost connection_cost;

/* Makes a connection. fd is consumed, always; so is *slot, the charge for connection_cost.
 * Return: 0, negative errno. */
int connection_new_consume_fd(Connection **ret, Connections *connections, int fd, Charge *slot,
                              const ConnectionEvents *events);
/* Ends it: no event comes from it any more. It goes now, or lingers. Return: NULL. */
Connection *connection_retire(Connection *connection);

/* Receives one packet, which may have no descriptors. Return: as wire_receive(). */
int connection_receive(Connection *connection, void *packet, size_t n_packet, WireHeader *ret);

/* Stops or goes on reading. Return: 0, negative errno. */
int connection_read(Connection *connection, bool enable);

/* Whether an answer of any size with n_fds descriptors can be sent now; they are charged when they
 * are sent, so an answer that carries fewer, or none, costs what it carries.
 * Return: 0, CONNECTION_E_BUSY, CONNECTION_E_QUOTA (*shortage says where). */
int connection_may_send(Connection *connection, uint32_t n_fds, Shortage *shortage);

/* Whether a packet of any size that nobody waits for can be sent now. Who has no room for one owes
 * nothing by that. */
bool connection_has_room(Connection *connection);
/* The same, with packets of so many bytes together on their way to it that it does not know of yet. */
bool connection_has_room_beside(Connection *connection, size_t bytes);

/* Sends a packet and n_fds descriptors (which stay the caller's), or queues copies of both. A packet
 * for which no room was asked comes with the charge (may be NULL) of what it ends: if it has to queue,
 * *charge moves to it, so that a queue is never longer than its user may have things pending.
 * Return: 0, CONNECTION_E_GONE, or a negative errno. */
int connection_send(Connection *connection, const void *packet, size_t n_packet, const int *fds, size_t n_fds,
                    Charge *charge);

#endif
