/* open: see shmd.h. */

#include "buildinfo.h"

#include "client/op-grant.h"

/* Unlike a create, an open is for a descriptor: a reply without one contradicts the request. */
static size_t open_n_fds(const ProtobufCMessage *reply) {
        size_t n = granted_n_fds(reply);

        return n == 1 ? n : SIZE_MAX;
}

static const Op op_open = { .kind = MESSAGE_OPEN, .n_fds = open_n_fds, .decode = single_decode };

int shmd_open_start(shmd *client, const char *path, uint32_t rights,
                    uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Open open;
        int r;

        r = open_encode(client, path, rights, 0, &open);
        return r ? r : call_start(client, &op_open, &open.base, timeout_ns, callback, userdata, ret);
}

int shmd_open_finish(shmd_call *call, shmd_region **ret) {
        *ret = NULL;
        return call_finish(call, &op_open, ret);
}

int shmd_open(shmd *client, const char *path, uint32_t rights, shmd_region **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_open_start(client, path, rights, timeout_ns, call_waited, &wait, &wait.call));
}
