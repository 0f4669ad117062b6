/* mkdir: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

static const Op op_mkdir = { .kind = MESSAGE_MKDIR, .changes = 1 };

int shmd_mkdir_start(shmd *client, const char *path, mode_t mode,
                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Mkdir mkdir = SHMD__MKDIR__INIT;
        int r;

        mkdir.mode = mode;
        r = request_path(client, path, 0, &mkdir.path);
        return r ? r : call_start(client, &op_mkdir, &mkdir.base, timeout_ns, callback, userdata, ret);
}

int shmd_mkdir_finish(shmd_call *call) {
        return call_finish(call, &op_mkdir, NULL);
}

int shmd_mkdir(shmd *client, const char *path, mode_t mode, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_mkdir_start(client, path, mode, timeout_ns, call_waited, &wait, &wait.call));
}
