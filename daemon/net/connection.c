/* A connection: see the header for the model. */

#include "net/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/probe.h"

/* What is asked of the kernel; it gives what net.core.wmem_max allows. */
#define SEND_BUFFER 131072
/* What the kernel counts for a packet beyond its bytes, generously. It rounds up to powers of two,
 * so the bytes themselves may count twice. */
#define PACKET_OVERHEAD 1024
/* ... and the least that it may be, where that cannot be measured. */
#define PACKET_LEAST 128U
/* How often those who owe something are looked at, at first and when nobody took anything. */
#define REFRESH_MIN_NS (100 * NSEC_PER_MSEC)
#define REFRESH_MAX_NS (2 * NSEC_PER_SEC)

typedef struct Packet {
        List link;
        Charge charge;          /* what it was sent for, until it is sent */
        size_t n;
        size_t n_fds;
        int *fds;               /* owned, in the same block */
        uint8_t bytes[];
} Packet;

static void refresh_arm(Connections *connections);
static Connection *connection_free(Connection *connection);

DEFINE_CLEANUP(Connection, connection_free);

/* What the kernel counts for a packet of one byte: for a longer one it is no less. */
static uint32_t measure_packet(void) {
        CLEANUP(close_fdp) int from = -1, to = -1;
        int pair[2], counted = 0;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return PACKET_LEAST;
        from = pair[0];
        to = pair[1];
        if (send(from, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1 || ioctl(from, SIOCOUTQ, &counted) < 0 ||
            counted < (int)PACKET_LEAST)
                return PACKET_LEAST;
        return (uint32_t)counted;
}

void connections_init(Connections *connections, Loop *loop, Deadlines *deadlines, uint64_t stall_ns) {
        *connections = (Connections){ .loop = loop, .deadlines = deadlines, .stall_ns = stall_ns,
                                      .least = measure_packet(),
                                      .refresh = DEADLINE_NULL, .interval = REFRESH_MIN_NS };
        list_init(&connections->owing);
}

void connections_deinit(Connections *connections) {
        Connection *connection;

        deadline_disarm(&connections->refresh);
        list_for_each(connection, &connections->owing, Connection, owing)
                if (connection->lingering)
                        (void)connection_free(connection);
        ASSERT(list_is_empty(&connections->owing));
}

/* -- packets that had no room ---------------------------------------------------------- */

static Packet *packet_free(Packet *packet) {
        for (size_t i = 0; i < packet->n_fds; ++i)
                (void)close_fd(packet->fds[i]);
        list_unlink(&packet->link);
        charge_release(&packet->charge);
        explicit_bzero(packet->bytes, packet->n);       /* it may have a ticket in it */
        free(packet);
        return NULL;
}

static int packet_new(Packet **ret, const void *bytes, size_t n, const int *fds, size_t n_fds) {
        size_t aligned = (n + sizeof(int) - 1) & ~(sizeof(int) - 1);
        Packet *packet = malloc(sizeof(*packet) + aligned + n_fds * sizeof(int));

        if (!packet)
                return error_origin(-ENOMEM);
        *packet = (Packet){ .charge = CHARGE_NULL, .n = n, .fds = (int *)(void *)(packet->bytes + aligned) };
        list_init(&packet->link);
        memcpy(packet->bytes, bytes, n);
        for (; packet->n_fds < n_fds; ++packet->n_fds) {
                int fd = fcntl(fds[packet->n_fds], F_DUPFD_CLOEXEC, 0);

                if (fd < 0) {
                        int r = -errno;

                        (void)packet_free(packet);
                        return error_origin(r);
                }
                packet->fds[packet->n_fds] = fd;
        }
        *ret = packet;
        return 0;
}

/* -- what the other side owes ----------------------------------------------------------- */

/* Looks at those who owe something in the shortest time, however long nobody took anything. */
static void refresh_soon(Connections *connections) {
        if (connections->interval > REFRESH_MIN_NS) {
                connections->interval = REFRESH_MIN_NS;
                deadline_disarm(&connections->refresh);
        }
        refresh_arm(connections);
}

static void owes(Connection *connection) {
        if (connection->owes_since)
                return;
        connection->owes_since = time_now();
        list_append(&connection->connections->owing, &connection->owing);
        refresh_soon(connection->connections);
}

/* The least that the kernel counts for a packet of n bytes: what stands beside the bytes is more than half of
 * the smallest packet. */
static uint32_t least_of(const Connection *connection, size_t n) {
        uint32_t least = connection->connections->least, beside = (uint32_t)n + least / 2;

        return beside > least ? beside : least;
}

static void note_sent(Connection *connection, size_t n, size_t n_fds) {
        SentRow *row = &connection->sent[connection->newest];

        if (row->n_packets == CONNECTION_SENT_PACKETS || row->n_fds >= CONNECTION_SENT_PACKETS) {
                connection->newest = (uint8_t)((connection->newest + 1U) % CONNECTION_SENT_ROWS);
                row = &connection->sent[connection->newest];
                *row = (SentRow){ .n_packets = 0 };
        }
        ++row->n_packets;
        row->n_bytes += least_of(connection, n);
        row->n_fds = (uint16_t)(row->n_fds + n_fds);
}

/* How many descriptors the latest packets had, at most, for which the kernel counts n bytes together; all that are
 * charged, if those are more packets than are known of. */
static uint32_t fds_of_latest(const Connection *connection, uint32_t n) {
        uint32_t n_fds = 0;

        for (unsigned int i = 0; i < CONNECTION_SENT_ROWS; ++i) {
                unsigned int at = (connection->newest + CONNECTION_SENT_ROWS - i) % CONNECTION_SENT_ROWS;
                const SentRow *row = &connection->sent[at];

                n_fds += row->n_fds;
                if (row->n_bytes >= n)
                        return n_fds;
                n -= row->n_bytes;
        }
        return connection->n_inflight;
}

/* Something is unread, and nothing waits: what was sent before that is not in flight any more. */
static void settle_inflight(Connection *connection) {
        uint32_t n = fds_of_latest(connection, connection->unread);
        Cost taken;

        if (n >= connection->n_inflight)
                return;
        taken = (Cost){ .slots = { [ACCOUNT_INFLIGHT] = connection->n_inflight - n } };
        if (n > 0)
                charge_shrink(&connection->inflight, &taken);
        else
                charge_release(&connection->inflight);
        connection->n_inflight = n;
}

/* Asks the kernel how much the other side has not read. Return: whether it took something. */
static bool ask_kernel(Connection *connection) {
        uint32_t least = connection->unread_least;
        int unread = 0;

        if (ioctl(connection->fd, SIOCOUTQ, &unread) < 0 || unread < 0)
                return false;
        connection->unread = connection->unread_least = (uint32_t)unread;
        if (unread == 0 && list_is_empty(&connection->queue)) {
                charge_release(&connection->inflight);
                connection->n_inflight = 0;
                connection->owes_since = 0;
                list_unlink(&connection->owing);
        } else if (connection->unread < least && connection->owes_since) {
                connection->owes_since = time_now();
        }
        if (unread > 0 && list_is_empty(&connection->queue))
                settle_inflight(connection);
        return connection->unread < least;
}

static bool has_room(const Connection *connection) {
        return connection->unread == 0 || connection->unread + WIRE_REPLY_MAX + PACKET_OVERHEAD <= connection->room;
}

static int send_now(Connection *connection, const void *bytes, size_t n, const int *fds, size_t n_fds) {
        int r = wire_send(connection->fd, bytes, n, fds, n_fds);

        if (r == 0) {
                connection->unread += 2 * (uint32_t)n + PACKET_OVERHEAD;
                connection->unread_least += (uint32_t)n;
                note_sent(connection, n, n_fds);
        }
        return r;
}

/* Sends what is queued. Return: false if the other side must read first. */
static bool flush(Connection *connection) {
        Packet *packet;

        while ((packet = list_first(&connection->queue, Packet, link))) {
                int r = send_now(connection, packet->bytes, packet->n, packet->fds, packet->n_fds);

                if (r == WIRE_E_AGAIN || r == WIRE_E_BACKLOG)
                        return false;
                (void)packet_free(packet);      /* sent, or nobody is there to take it */
        }
        return true;
}

static bool has_stalled(const Connection *connection, uint64_t now) {
        return connection->owes_since && now > connection->owes_since &&
               now - connection->owes_since > connection->connections->stall_ns;
}

static void refresh_expired(Deadline *deadline, void *userdata) {
        Connections *connections = userdata;
        uint64_t now = time_now();
        Connection *connection;
        bool taken = false;

        (void)deadline;
        list_for_each(connection, &connections->owing, Connection, owing) {
                (void)flush(connection);
                taken |= ask_kernel(connection);
                if (connection->lingering) {
                        if (!connection->owes_since)
                                (void)connection_free(connection);
                } else if (has_stalled(connection, now)) {
                        connection->events.stalled(connection->events.userdata);
                }
        }
        connections->interval = taken ? REFRESH_MIN_NS : connections->interval * 2;
        if (connections->interval > REFRESH_MAX_NS)
                connections->interval = REFRESH_MAX_NS;
        refresh_arm(connections);
}

static void refresh_arm(Connections *connections) {
        if (!list_is_empty(&connections->owing) && !deadline_is_armed(&connections->refresh))
                deadline_arm(&connections->refresh, connections->deadlines, time_now() + connections->interval,
                             refresh_expired, connections);
}

int connection_may_send(Connection *connection, uint32_t n_fds, Shortage *shortage) {
        int r;

        if (!has_room(connection) || connection->n_inflight + n_fds > CONNECTION_INFLIGHT_MAX)
                (void)ask_kernel(connection);
        if (!flush(connection) || !has_room(connection) || connection->n_inflight + n_fds > CONNECTION_INFLIGHT_MAX) {
                owes(connection);
                return CONNECTION_E_BUSY;
        }
        if (n_fds == 0)
                return 0;

        r = account_may_charge_slot(connection->account, ACCOUNT_INFLIGHT, n_fds, shortage);
        if (r == ACCOUNT_E_QUOTA && connection->n_inflight) {
                (void)ask_kernel(connection);
                r = account_may_charge_slot(connection->account, ACCOUNT_INFLIGHT, n_fds, shortage);
        }
        if (r == ACCOUNT_E_QUOTA) {
                refresh_soon(connection->connections);
                return CONNECTION_E_QUOTA;
        }
        return error_fold(r);
}

bool connection_has_room(Connection *connection) {
        if (!has_room(connection))
                (void)ask_kernel(connection);
        return flush(connection) && has_room(connection);
}

bool connection_has_room_beside(Connection *connection, size_t bytes) {
        /* The kernel counts a packet as up to twice its bytes and more (send_now()). */
        return connection_has_room(connection) &&
               connection->unread + 3 * bytes + WIRE_REPLY_MAX + PACKET_OVERHEAD <= connection->room;
}

static int charge_inflight(Connection *connection, size_t n_fds) {
        int r;

        if (n_fds == 0)
                return 0;
        r = charge_grow_slot(&connection->inflight, connection->account, ACCOUNT_INFLIGHT, (uint32_t)n_fds, NULL);
        if (r)
                return error_fold(r);           /* connection_may_send() was not asked, or said no */
        connection->n_inflight += (uint32_t)n_fds;
        owes(connection);
        return 0;
}

int connection_send(Connection *connection, const void *bytes, size_t n, const int *fds, size_t n_fds,
                    Charge *charge) {
        Packet *packet = NULL;
        int r;

        r = charge_inflight(connection, n_fds);
        if (r)
                return error_fold(r);
        r = WIRE_E_AGAIN;
        if (list_is_empty(&connection->queue))
                r = send_now(connection, bytes, n, fds, n_fds);
        switch (r) {
        case 0:
                return 0;
        case WIRE_E_AGAIN:
        case WIRE_E_BACKLOG:
                break;
        case WIRE_E_EOF:
                return CONNECTION_E_GONE;
        default:
                return error_fold(r);
        }

        r = packet_new(&packet, bytes, n, fds, n_fds);
        if (r)
                return error_fold(r);
        if (charge) {
                packet->charge = *charge;
                *charge = (Charge)CHARGE_NULL;
        }
        list_append(&connection->queue, &packet->link);
        owes(connection);
        return 0;
}

/* -- life ------------------------------------------------------------------------------- */

static void connection_ready(void *userdata) {
        Connection *connection = userdata;

        connection->events.readable(connection->events.userdata);
}

int connection_receive(Connection *connection, void *packet, size_t n_packet, WireHeader *ret) {
        return connection->plain ? wire_receive_plain(connection->fd, packet, n_packet, ret) :
                                   wire_receive(connection->fd, packet, n_packet, NULL, ret);
}

int connection_read(Connection *connection, bool enable) {
        return source_enable(connection->source, enable);
}

const Cost connection_cost = { .slots = { [ACCOUNT_PEERS] = 1 } };

/* Not so if it was connected before the listening socket was told (net/listener). */
static bool is_plain(int fd) {
        socklen_t n = sizeof(int);
        int passes = 1;

        return getsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &passes, &n) == 0 && !passes;
}

int connection_new_consume_fd(Connection **ret, Connections *connections, int fd, Charge *slot,
                              const ConnectionEvents *events) {
        CLEANUP(connection_freep) Connection *connection = NULL;
        int size = SEND_BUFFER, r;
        socklen_t n = sizeof(size);

        connection = malloc(sizeof(*connection));
        if (!connection) {
                (void)close_fd(fd);
                charge_release(slot);
                return error_origin(-ENOMEM);
        }
        *connection = (Connection){ .connections = connections, .events = *events, .fd = fd,
                                    .account = slot->account, .slot = *slot, .inflight = CHARGE_NULL };
        *slot = (Charge)CHARGE_NULL;
        list_init(&connection->queue);
        list_init(&connection->owing);

        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &n) < 0 || size <= 0)
                return error_origin(-errno);
        connection->room = (uint32_t)size;
        connection->plain = is_plain(fd);
        r = source_new(&connection->source, connections->loop, fd, connection_ready, connection);
        if (r)
                return error_fold(r);

        *ret = connection;
        connection = NULL;
        return 0;
}

static void drop_queue(Connection *connection) {
        Packet *packet;

        while ((packet = list_first(&connection->queue, Packet, link)))
                (void)packet_free(packet);
}

static Connection *connection_free(Connection *connection) {
        if (!connection)
                return NULL;
        drop_queue(connection);
        list_unlink(&connection->owing);
        connection->source = source_free(connection->source);
        connection->fd = close_fd(connection->fd);
        charge_release(&connection->inflight);
        charge_release(&connection->slot);
        free(connection);
        return NULL;
}

Connection *connection_retire(Connection *connection) {
        if (!connection)
                return NULL;
        (void)flush(connection);
        drop_queue(connection);
        (void)ask_kernel(connection);
        if (connection->unread == 0)
                return connection_free(connection);

        connection->source = source_free(connection->source);
        (void)shutdown(connection->fd, SHUT_RDWR);
        connection->lingering = true;
        owes(connection);
        return NULL;
}
