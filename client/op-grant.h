/* What create, open and batch share: from a Granted and its descriptor to a region. */
#ifndef CLIENT_OP_GRANT_H
#define CLIENT_OP_GRANT_H

#include "client/client.h"
#include "client/region.h"

/* The replies' promises of descriptors: see Op.n_fds. */
size_t granted_n_fds(const ProtobufCMessage *reply);
size_t batch_n_fds(const ProtobufCMessage *reply);

/* Makes the region of the call's item `index`, taking its descriptor. Return: 0, -ENOMEM, -EPROTO. */
int granted_decode(shmd_call *call, const Shmd__Granted *granted, shmd_region **ret);

/* Reserves the region if item `index` of the call asked for it. Return: as shmd_reserve(). */
int granted_reserve(shmd_call *call, size_t index, shmd_region *region);

/* Encodes a create. Return: 0, or what request_path() returns; -EINVAL is remembered. */
int create_encode(shmd *client, const char *path, const struct shmd_create_options *options, uint32_t index,
                  Shmd__Create *ret);
int open_encode(shmd *client, const char *path, uint32_t rights, uint32_t index, Shmd__Open *ret);

/* Notes that item `index` of the call is to be reserved, if its options say so. */
void create_note_reserve(shmd_call *call, const Shmd__Create *create, size_t index);

/* The single grant: decodes into a shmd_region **. */
int single_decode(shmd_call *call, const ProtobufCMessage *reply, void *out);

#endif
