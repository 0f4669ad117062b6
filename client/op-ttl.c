/* expire: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

static const Op op_ttl = { .kind = MESSAGE_TTL, .changes = 1 };

int shmd_expire_start(shmd *client, const char *path, uint64_t ttl_ns,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Ttl ttl = SHMD__TTL__INIT;
        int r;

        ttl.ttl_ns = ttl_ns;
        r = request_path(client, path, 0, &ttl.path);
        return r ? r : call_start(client, &op_ttl, &ttl.base, timeout_ns, callback, userdata, ret);
}

int shmd_expire_finish(shmd_call *call) {
        return call_finish(call, &op_ttl, NULL);
}

int shmd_expire(shmd *client, const char *path, uint64_t ttl_ns, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_expire_start(client, path, ttl_ns, timeout_ns, call_waited, &wait, &wait.call));
}
