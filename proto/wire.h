/* Packets: the only sendmsg(2) and recvmsg(2) of the protocol, for both sides.
 *
 * The socket is SOCK_SEQPACKET, so one packet is one message together with its descriptors and
 * the question which byte owns which descriptor never comes up. In front of the payload stands
 * a header that repeats what the kernel says (length, number of descriptors); if they differ,
 * the connection is over. A truncated packet is never parsed.
 */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "proto/fdlist.h"

#define WIRE_REQUEST_MAX 32768          /* bytes, with the header */
#define WIRE_REPLY_MAX 65536

/* Sixteen bytes, little-endian. */
typedef struct WireHeader {
        uint32_t length;        /* of the packet, with this header */
        uint16_t kind;
        uint16_t n_fds;
        uint64_t serial;
} WireHeader;

_Static_assert(sizeof(WireHeader) == 16, "the header is sixteen bytes on the wire");

enum {
        _WIRE_E_SUCCESS,
        WIRE_E_AGAIN,           /* nothing to read, or no room to send */
        WIRE_E_EOF,             /* the peer is gone */
        WIRE_E_EMPTY,           /* a packet without any byte, which reads almost the same */
        WIRE_E_LOST_FDS,        /* descriptors came that had no room or no right to come */
        WIRE_E_TOO_LARGE,       /* the packet was longer than the buffer */
        WIRE_E_VIOLATION,       /* the header does not say what the packet is */
        WIRE_E_BACKLOG,         /* too many descriptors of this uid are in flight */
};

/* Writes the header in front of a packet of `length` bytes in all. */
void wire_put_header(void *packet, size_t length, uint16_t kind, uint16_t n_fds, uint64_t serial);

/* Decodes the header of a packet that wire_receive() took. */
void wire_get_header(const void *packet, WireHeader *ret);

/* Receives one packet of at most n_packet bytes without waiting. *ret is the decoded header;
 * the payload starts at packet + sizeof(WireHeader). With fds, descriptors are received into
 * that empty list, close-on-exec; without, none is accepted and the kernel drops what came. On
 * any result but 0 no descriptor survives. After WIRE_E_LOST_FDS *ret still says whose packet it
 * was; its serial is 0 if the packet was no good otherwise.
 *
 * Return: 0, WIRE_E_AGAIN, WIRE_E_EOF, WIRE_E_EMPTY, WIRE_E_LOST_FDS, WIRE_E_TOO_LARGE,
 * WIRE_E_VIOLATION, or a negative errno of recvmsg(2). */
int wire_receive(int fd, void *packet, size_t n_packet, FdList *fds, WireHeader *ret);

/* The same without a list, from a socket with SO_PASSRIGHTS off: who sends descriptors there is refused, so that
 * the kernel need not be asked whether any came, which is a sixth of what it takes to receive. */
int wire_receive_plain(int fd, void *packet, size_t n_packet, WireHeader *ret);

/* The same of a blocking socket, and waits for a packet: for as long as SO_RCVTIMEO says, or until a signal.
 * Then it is WIRE_E_AGAIN. */
int wire_await(int fd, void *packet, size_t n_packet, FdList *fds, WireHeader *ret);

/* Sends one packet (with its header in place) and n_fds descriptors, which stay the caller's,
 * without waiting and without SIGPIPE. It is sent wholly or not at all.
 *
 * Return: 0, WIRE_E_AGAIN, WIRE_E_EOF (the peer is gone), WIRE_E_BACKLOG (ETOOMANYREFS: it
 * passes when some receiver reads), or a negative errno of sendmsg(2). */
int wire_send(int fd, const void *packet, size_t n_packet, const int *fds, size_t n_fds);

#endif
