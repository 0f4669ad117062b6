/* Payloads: kinds of requests, packing, unpacking, and the arena they are unpacked into.
 *
 * protobuf-c is lenient: it merges repeated sub-messages, takes overlong numbers and lets the
 * last of two values win. Here a payload has one encoding: what was unpacked must encode to
 * exactly the bytes that came, or it is refused. Fields this version does not know are ignored,
 * as the protocol promises, but they come last and count against the packet and the arena.
 *
 * The arena is a fixed block, allocated once and reset after each packet: unpacking allocates
 * nothing, and a packet crafted to unpack into much more than itself is refused when the block
 * is full.
 */
#ifndef PROTO_MESSAGE_H
#define PROTO_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "proto/shmd.pb-c.h"

/* The kind of a request; its reply has the same kind with MESSAGE_REPLY set. */
typedef enum MessageKind {
        MESSAGE_NONE,
        MESSAGE_HELLO,
        MESSAGE_PING,
        MESSAGE_CREATE,
        MESSAGE_OPEN,
        MESSAGE_BATCH,
        MESSAGE_PUBLISH,
        MESSAGE_STAT,
        MESSAGE_LIST,
        MESSAGE_MKDIR,
        MESSAGE_RMDIR,
        MESSAGE_UNLINK,
        MESSAGE_CHMOD,
        MESSAGE_CHOWN,
        MESSAGE_WAIT,
        MESSAGE_DF,
        MESSAGE_STATS,
        MESSAGE_LINK,
        MESSAGE_RENAME,
        MESSAGE_TTL,
        MESSAGE_GET_ACL,
        MESSAGE_SET_ACL,
        MESSAGE_WHY,
        MESSAGE_RELOAD,
        MESSAGE_FREEZE,
        MESSAGE_WATCH,
        MESSAGE_UNWATCH,
        MESSAGE_TICKET,
        MESSAGE_REDEEM,
        MESSAGE_REVOKE,
        MESSAGE_TICKETS,
        MESSAGE_BELL,
        MESSAGE_DOCTOR,
        MESSAGE_UPGRADE,
        MESSAGE_STATE,
        _MESSAGE_N,
} MessageKind;

#define MESSAGE_REPLY 0x8000u
#define MESSAGE_REFUSAL 0xffffu
/* What a watch tells, unasked; carries the serial of the request that began the watch. */
#define MESSAGE_EVENT 0xfffeu

#define MESSAGE_VERSION 1
#define MESSAGE_SESSION_BYTES 16
#define MESSAGE_BATCH_MAX 128
#define MESSAGE_PING_MAX 64

/* The page of a doorbell: a counter that is a futex, a flag that is not 0 while ringers are to write,
 * and the byte they write then. Each has its own cache lines. */
#define MESSAGE_BELL_COUNTER 0
#define MESSAGE_BELL_POLLED 128
#define MESSAGE_BELL_BYTE 256

/* Latencies are counted in buckets: bucket i counts what took less than 2^(10+i) ns, the last
 * one everything else. */
#define MESSAGE_BUCKETS 20
#define MESSAGE_BUCKET_SHIFT 10

enum {
        _MESSAGE_E_SUCCESS,
        MESSAGE_E_MALFORMED,    /* not an encoding, or not the one encoding, of the message */
        MESSAGE_E_TOO_COMPLEX,  /* unpacks into more than the arena holds */
        MESSAGE_E_TOO_LARGE,    /* does not fit the buffer to pack into */
        MESSAGE_E_UNKNOWN,      /* no such kind */
};

typedef struct Arena Arena;

/* Allocates an arena of n bytes. Return: 0, -ENOMEM. */
int arena_new(Arena **ret, size_t n);
/* Frees it, NULL included. Return: NULL. */
Arena *arena_free(Arena *arena);
/* Forgets everything in it; memory from it becomes invalid. */
void arena_reset(Arena *arena);
/* The same, and leaves nothing of it readable. */
void arena_wipe(Arena *arena);
/* Return: memory aligned for anything, or NULL when the arena is full. */
void *arena_alloc(Arena *arena, size_t n);
/* How much of it is used; and forgets what is in it beyond that much. */
size_t arena_used(const Arena *arena);
void arena_return(Arena *arena, size_t used);

DEFINE_CLEANUP(Arena, arena_free);

/* Return: the request's name, as in logs and statistics ("create"); NULL for no such kind. */
const char *message_name(unsigned int kind);

/* Return: the name of a Reason, as in the log, the library and statistics ("directory-search");
 * "unknown" for a number this version does not have. */
const char *message_reason_name(uint32_t reason);

/* Unpacks the payload of a request (reply false) or of the reply to it (true) into the arena.
 * kind may be MESSAGE_REFUSAL or MESSAGE_EVENT with reply true. *ret lives until the arena is reset.
 *
 * Return: 0, MESSAGE_E_UNKNOWN, MESSAGE_E_MALFORMED, MESSAGE_E_TOO_COMPLEX. */
int message_unpack(Arena *arena, unsigned int kind, bool reply, const uint8_t *data, size_t n, ProtobufCMessage **ret);

/* Packs into at most n_max bytes at data. Return: 0 and the length, MESSAGE_E_TOO_LARGE. */
int message_pack(const ProtobufCMessage *message, uint8_t *data, size_t n_max, size_t *ret_n);

#endif
