/* Brief: the messages that most packets are, packed and unpacked without protobuf-c.
 *
 * An open (alone, or in a batch of nothing else), a create with a name, and what they are answered with are a
 * few numbers and a path; protobuf-c spends more on them than the broker does on all the rest of the request.
 * What is here knows only the usual encodings of these: everything else, and whatever is wrong, is left to
 * message.c, which decides as it does about any other message. So this says yes or nothing, and what it says
 * yes to unpacks to the same, and what it packs is packed to the same bytes, as protobuf-c does it.
 */
#ifndef PROTO_BRIEF_H
#define PROTO_BRIEF_H

#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"

/* Unpacks an open, a create with a name, or a batch of opens alone, into the arena. Return: NULL if that is for others to do;
 * then the arena is as it was. */
ProtobufCMessage *brief_unpack_open(Arena *arena, const uint8_t *data, size_t n);
ProtobufCMessage *brief_unpack_create(Arena *arena, const uint8_t *data, size_t n);
ProtobufCMessage *brief_unpack_batch(Arena *arena, const uint8_t *data, size_t n);

/* Packs the answer to an open or a create, or to a batch, into at most n_max bytes at data. Return: how many it took;
 * SIZE_MAX if that is for others to do. */
size_t brief_pack(const ProtobufCMessage *message, uint8_t *data, size_t n_max);

#endif
