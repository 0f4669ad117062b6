/* A client that asks shmd, or the floor, the same things with the same code.
 *
 * It is as light as one can be: packets are made before, an answer is looked at no further than its header and
 * its descriptors, and between the two looks at the clock there are two system calls, to send and to receive.
 * Descriptors that came are closed when the clock has stopped. All of this is the same for both, so that what
 * differs is the server.
 *
 * On one processor, client, server and keeper are all pinned to it. Across two, the client has one and the server
 * the other; the keeper may run on either, as it would: what it does when the broker has answered is nothing that
 * a client waits for, unless it is in the way.
 */
#ifndef TESTS_BENCH_DRIVER_H
#define TESTS_BENCH_DRIVER_H

#include "bench/bench.h"
#include "lib/client.h"

/* -- asking ------------------------------------------------------------------------------------ */

/* A request that can be sent again and again. */
typedef struct Packet {
        uint8_t *bytes;
        size_t n;
        MessageKind kind;
} Packet;

void packet_deinit(Packet *packet);
/* A read-only grant of what has this path. */
void packet_open(Packet *packet, const char *path);
/* The same of so many at once: "PREFIX0" and so on. */
void packet_batch(Packet *packet, const char *prefix, size_t n);
/* A new region of a page, and a read-write grant of it. */
void packet_create(Packet *packet, const char *path);
void packet_unlink(Packet *packet, const char *path);
/* As long as another one; for the floor's echo alone, which is busy for so long before it answers. */
void packet_echo(Packet *packet, const Packet *like);
void packet_set_busy(Packet *packet, double ns);

/* One end of a connection. */
typedef struct Driver {
        int fd;                 /* not the driver's own */
        uint64_t serial;        /* of the latest request */
        size_t n_answer;        /* bytes of the latest answer */
} Driver;

/* Goes on for a client that has said hello, and that must not be used beside it. */
void driver_init(Driver *driver, const Client *client);
void driver_send(Driver *driver, Packet *packet);
/* Receives the answer to a request, with exactly n_fds descriptors, which are the caller's to close. */
void driver_receive(Driver *driver, uint64_t serial, int *fds, size_t n_fds);
/* Both. Return: how long it took, nanoseconds. */
double driver_ask(Driver *driver, Packet *packet, int *fds, size_t n_fds);

/* Creates n regions, one less at a time than there are packets, and says of each how long that took. Between, and
 * outside of that time, their descriptors are closed and then they are unlinked; and one is created first that is not
 * timed, as what unlinks leave to be done a turn later is theirs. */
#define DRIVER_CREATE_MAX 256
void driver_create(Driver *driver, Packet *creates, Packet *unlinks, size_t n_packets, double *ns, size_t n);

/* Return: the names of the system calls that a process makes for one request, in their order, from the one in
 * which it waits to before the next of that name; valid until the next call. Needs to trace it. */
const char *driver_calls(Driver *driver, Packet *packet, size_t n_fds, pid_t pid, const char *waits_in);

/* -- the floor --------------------------------------------------------------------------------- */

typedef struct Floor {
        pid_t pid;
        Driver driver;
} Floor;

/* What the floor does for one request and no more, as driver_calls() has it; it waits in the first. */
#define FLOOR_ECHO_CALLS "recvfrom sendmsg"
#define FLOOR_OPEN_CALLS "recvfrom openat sendmsg close"
#define FLOOR_CREATE_CALLS "recvfrom memfd_create ftruncate fchmod fcntl openat close openat sendmsg close"

/* Starts tests/bench/floor: see there. */
void floor_start(Floor *floor, const char *kind, size_t n_reply, size_t n_memfds);
/* Ends it, and requires that nothing failed in it. */
void floor_stop(Floor *floor);

/* -- places ------------------------------------------------------------------------------------- */

typedef enum Placement {
        ONE_PROCESSOR,
        TWO_PROCESSORS,
} Placement;

/* Pins this process as the client, a broker with its keeper, and a floor. */
void place_client(void);
void place_broker(const Broker *broker, Placement placement);
void place_floor(const Floor *floor, Placement placement);

#endif
