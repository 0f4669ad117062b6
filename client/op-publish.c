/* publish: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"
#include "client/options.h"

static const Op op_publish = { .kind = MESSAGE_PUBLISH, .changes = 1 };

int shmd_publish_start(shmd *client, uint64_t region, const char *path, const struct shmd_publish_options *options,
                       uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        struct shmd_publish_options o = SHMD_PUBLISH_OPTIONS_INIT;
        Shmd__Publish publish = SHMD__PUBLISH__INIT;
        int r;

        r = request_path(client, path, 0, &publish.path);
        if (r)
                return r;
        if (options && !options_read(&o, sizeof(o), sizeof(o), options))
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, 0, path,
                                     "these are no options of a publish");
        publish.region = region;
        publish.flags = o.flags;
        publish.ttl_ns = o.ttl_ns;
        return call_start(client, &op_publish, &publish.base, timeout_ns, callback, userdata, ret);
}

int shmd_publish_finish(shmd_call *call) {
        return call_finish(call, &op_publish, NULL);
}

int shmd_publish(shmd *client, uint64_t region, const char *path, const struct shmd_publish_options *options,
                 uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_publish_start(client, region, path, options, timeout_ns, call_waited, &wait, &wait.call));
}
