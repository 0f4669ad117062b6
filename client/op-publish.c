/* publish: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

static const Op op_publish = { .kind = MESSAGE_PUBLISH };

int shmd_publish_start(shmd *client, uint64_t region, const char *path, uint32_t flags,
                       uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Publish publish = SHMD__PUBLISH__INIT;
        int r;

        publish.region = region;
        publish.flags = flags;
        r = request_path(client, path, 0, &publish.path);
        return r ? r : call_start(client, &op_publish, &publish.base, timeout_ns, callback, userdata, ret);
}

int shmd_publish_finish(shmd_call *call) {
        return call_finish(call, &op_publish, NULL);
}

int shmd_publish(shmd *client, uint64_t region, const char *path, uint32_t flags, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_publish_start(client, region, path, flags, timeout_ns, call_waited, &wait, &wait.call));
}
