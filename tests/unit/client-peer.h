/* A broker that follows a script.
 *
 * The library's tests need a broker that answers late, out of order, with too few descriptors or
 * not at all. peer_start() forks one: it listens where socket_path says, accepts one connection,
 * says hello, and then does what the script tells it. The script runs in the child, and a
 * REQUIRE() that fails in it fails the test when peer_join() sees how the child ended.
 */
#ifndef TESTS_UNIT_CLIENT_PEER_H
#define TESTS_UNIT_CLIENT_PEER_H

#include "lib/test.h"

#include "proto/message.h"
#include "proto/wire.h"
#include "shmd.h"

#define PEER_SESSION "0123456789abcdef"
#define PEER_NEW_SESSION "fedcba9876543210"
#define PEER_VERSION "9.8.7-script"
#define PEER_UID 4321

#define SECOND UINT64_C(1000000000)

/* A message on the stack: MESSAGE(Granted, granted, .region = 1) is a ProtobufCMessage *. */
#define MESSAGE(Type, type, ...) \
        (&((Shmd__##Type){ .base = PROTOBUF_C_MESSAGE_INIT(&shmd__##type##__descriptor), __VA_ARGS__ }).base)
#define BYTES(string) ((ProtobufCBinaryData){ .len = strlen(string), .data = (uint8_t *)(string) })

typedef struct Peer {
        int fd;
        Arena *arena;
        uint8_t *buffer;
        WireHeader header;      /* of the latest request */
        const char *session;
} Peer;

typedef void (*PeerScript)(Peer *peer);

/* The path of the peer's socket. */
extern char peer_socket[64];

/* Binds and listens as `listener`, gives the socket file to `owner`, without a child. */
void peer_listen(uid_t listener, uid_t owner);

/* Forks the broker; with hello, the script starts after it. */
void peer_start(PeerScript script);
void peer_start_without_hello(PeerScript script);

/* Starts one, connects to it, and requires that it worked. */
shmd *peer_start_and_connect(PeerScript script);

/* Waits for the child and requires that its script ran to its end; the connection stays. */
void peer_wait(void);
/* Kills the child and waits for it. */
void peer_kill(void);
/* Waits until the script calls peer_stay(). */
void peer_await(void);
/* Lets it go on, after peer_await(). */
void peer_go_on(void);

/* Closes the connection (NULL is fine), does what peer_wait() does unless that, or peer_kill(), has
 * been called, and removes the socket. */
void peer_join(shmd *client);

/* -- for scripts --------------------------------------------------------------------- */

/* Receives a request and requires that it is of that kind. Return: the message, until the next. */
const void *peer_expect(Peer *peer, MessageKind kind);
/* Requires that the other end closes without another request. */
void peer_expect_end(Peer *peer);

/* Hangs up and takes the next connection; welcome: and says hello, to whoever knows the session. If that
 * is not resumed, there is a new one. */
void peer_accept(Peer *peer);
void peer_welcome(Peer *peer, bool resumed);
/* Only hangs up; vanish: and nobody listens any more, until somebody returns. */
void peer_hang_up(Peer *peer);
void peer_vanish(Peer *peer);
void peer_return(uid_t listener, uid_t owner);

/* Stays where it is until the test calls peer_go_on(). */
void peer_stay(void);

/* Sends a packet as it is told. */
void peer_send(Peer *peer, unsigned int kind, uint64_t serial, const ProtobufCMessage *message,
               const int *fds, size_t n_fds);
/* Answers the latest request: with a reply, with a reply that says done, with a refusal. */
void peer_reply(Peer *peer, const ProtobufCMessage *message, const int *fds, size_t n_fds);
void peer_done(Peer *peer);
void peer_refuse(Peer *peer, uint32_t error, uint32_t reason, const char *sentence);

/* A memfd of that size; seals 0: those of a region. */
int peer_memfd(uint64_t size, unsigned int seals);
/* Answers the latest create or open with a grant of a fresh memfd of that size. */
void peer_grant(Peer *peer, uint64_t region, uint64_t size, uint32_t rights);

/* A region as the library returns it from an open, with no connection left behind. The broker
 * says it has `size` bytes; the memory has `real_size` and those seals (0: a region's). */
shmd_region *peer_region(uint64_t size, uint64_t real_size, unsigned int seals, uint32_t rights);
/* The same, read-write, of huge pages of 2^log2 bytes. */
shmd_region *peer_huge_region(uint64_t size, uint32_t log2);

#endif
