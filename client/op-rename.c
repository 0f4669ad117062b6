/* link and rename: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

static const Op op_link = { .kind = MESSAGE_LINK, .changes = 1 };
static const Op op_rename = { .kind = MESSAGE_RENAME, .changes = 1 };

int shmd_link_start(shmd *client, const char *path, const char *to,
                    uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Link link = SHMD__LINK__INIT;
        int r;

        r = request_path(client, path, 0, &link.path);
        if (!r)
                r = request_path(client, to, 0, &link.to);
        return r ? r : call_start(client, &op_link, &link.base, timeout_ns, callback, userdata, ret);
}

int shmd_link_finish(shmd_call *call) {
        return call_finish(call, &op_link, NULL);
}

int shmd_link(shmd *client, const char *path, const char *to, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_link_start(client, path, to, timeout_ns, call_waited, &wait, &wait.call));
}

int shmd_rename_start(shmd *client, const char *path, const char *to, uint32_t flags,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Rename rename = SHMD__RENAME__INIT;
        int r;

        rename.flags = flags;
        r = request_path(client, path, 0, &rename.path);
        if (!r)
                r = request_path(client, to, 0, &rename.to);
        return r ? r : call_start(client, &op_rename, &rename.base, timeout_ns, callback, userdata, ret);
}

int shmd_rename_finish(shmd_call *call) {
        return call_finish(call, &op_rename, NULL);
}

int shmd_rename(shmd *client, const char *path, const char *to, uint32_t flags, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_rename_start(client, path, to, flags, timeout_ns, call_waited, &wait, &wait.call));
}
