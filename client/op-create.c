/* create: see shmd.h. */

#include "buildinfo.h"

#include "client/op-grant.h"

static const Op op_create = { .kind = MESSAGE_CREATE, .changes = 1, .n_fds = granted_n_fds,
                              .decode = single_decode };

int shmd_create_start(shmd *client, const char *path, const struct shmd_create_options *options,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Create create;
        shmd_call *call;
        int r;

        r = create_encode(client, path, options, 0, &create);
        if (r)
                return r;
        r = call_start(client, &op_create, &create.base, timeout_ns, callback, userdata, &call);
        if (r)
                return r;
        create_note_reserve(call, &create, 0);
        if (ret)
                *ret = call;
        return 0;
}

int shmd_create_finish(shmd_call *call, shmd_region **ret) {
        *ret = NULL;
        return call_finish(call, &op_create, ret);
}

int shmd_create(shmd *client, const char *path, const struct shmd_create_options *options,
                shmd_region **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_create_start(client, path, options, timeout_ns, call_waited, &wait, &wait.call));
}
