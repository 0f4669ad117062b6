/* Grants: see the header. */

#include "buildinfo.h"

#include "client/op-grant.h"

#include "client/options.h"

/* A grant comes with rights and a descriptor, or with neither. */
static bool is_consistent(const Shmd__Granted *granted) {
        return granted->granted == (granted->rights != SHMD_RIGHTS_NONE) &&
               granted->rights <= SHMD_RIGHTS_READ_WRITE;
}

size_t granted_n_fds(const ProtobufCMessage *reply) {
        const Shmd__Granted *granted = (const Shmd__Granted *)reply;

        if (!is_consistent(granted))
                return SIZE_MAX;
        return granted->granted ? 1 : 0;
}

size_t batch_n_fds(const ProtobufCMessage *reply) {
        const Shmd__BatchReply *batch = (const Shmd__BatchReply *)reply;
        size_t n = 0;

        for (size_t i = 0; i < batch->n_items; ++i) {
                if (!is_consistent(batch->items[i]))
                        return SIZE_MAX;
                n += batch->items[i]->granted;
        }
        return n;
}

int granted_decode(shmd_call *call, const Shmd__Granted *granted, shmd_region **ret) {
        return region_new_consume_fd(ret, granted, granted->granted ? fdlist_take(&call->client->fds) : -1);
}

int granted_reserve(shmd_call *call, size_t index, shmd_region *region) {
        if (!(call->reserve[index / 64] >> index % 64 & 1))
                return 0;
        return shmd_reserve(region);
}

int single_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        CLEANUP(shmd_region_freep) shmd_region *region = NULL;
        shmd_region **ret = out;
        int r;

        r = granted_decode(call, (const Shmd__Granted *)reply, &region);
        if (r)
                return r;
        r = granted_reserve(call, 0, region);
        if (r)
                return r;

        *ret = region;
        region = NULL;
        return 0;
}

/* -- requests ------------------------------------------------------------------------ */

/* Checks what the wire cannot carry; the broker says no to the rest, and says more about it. */
static const char *options_problem(const struct shmd_create_options *options) {
        uint64_t huge = options->huge_page_size;

        if (huge & (huge - 1))
                return "a huge page size is a power of two";
        if (options->flags & SHMD_CREATE_RESERVE && options->rights != SHMD_RIGHTS_READ_WRITE)
                return "memory is reserved through a read-write grant";
        return NULL;
}

int create_encode(shmd *client, const char *path, const struct shmd_create_options *options, uint32_t index,
                  Shmd__Create *ret) {
        struct shmd_create_options o = SHMD_CREATE_OPTIONS_INIT;
        const char *problem;
        int r;

        *ret = (Shmd__Create)SHMD__CREATE__INIT;
        r = path ? request_path(client, path, index, &ret->path) : client_check(client);
        if (r)
                return r;
        problem = options && options_read(&o, sizeof(o), sizeof(o), options) ? options_problem(&o)
                                                                             : "these are no options of a create";
        if (problem)
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, index, path ? path : "", problem);

        ret->size = o.size;
        ret->mode = o.mode;
        ret->flags = o.flags;
        ret->lifetime = o.lifetime;
        ret->huge_page_size = o.huge_page_size ? (uint32_t)__builtin_ctzll(o.huge_page_size) : 0;
        ret->rights = o.rights;
        ret->ttl_ns = o.ttl_ns;
        return 0;
}

int open_encode(shmd *client, const char *path, uint32_t rights, uint32_t index, Shmd__Open *ret) {
        *ret = (Shmd__Open)SHMD__OPEN__INIT;
        ret->rights = rights;
        return request_path(client, path, index, &ret->path);
}

void create_note_reserve(shmd_call *call, const Shmd__Create *create, size_t index) {
        if (create->flags & SHMD_CREATE_RESERVE)
                call->reserve[index / 64] |= UINT64_C(1) << index % 64;
}
