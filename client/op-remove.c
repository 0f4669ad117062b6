/* rmdir and unlink: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

static const Op op_rmdir = { .kind = MESSAGE_RMDIR, .changes = 1 };
static const Op op_unlink = { .kind = MESSAGE_UNLINK, .changes = 1 };

static int remove_start(shmd *client, const Op *op, const char *path,
                        uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Remove remove = SHMD__REMOVE__INIT;
        int r;

        r = request_path(client, path, 0, &remove.path);
        return r ? r : call_start(client, op, &remove.base, timeout_ns, callback, userdata, ret);
}

static int remove_wait(shmd *client, const Op *op, const char *path, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         remove_start(client, op, path, timeout_ns, call_waited, &wait, &wait.call));
}

int shmd_rmdir_start(shmd *client, const char *path,
                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        return remove_start(client, &op_rmdir, path, timeout_ns, callback, userdata, ret);
}

int shmd_rmdir_finish(shmd_call *call) {
        return call_finish(call, &op_rmdir, NULL);
}

int shmd_rmdir(shmd *client, const char *path, uint64_t timeout_ns) {
        return remove_wait(client, &op_rmdir, path, timeout_ns);
}

int shmd_unlink_start(shmd *client, const char *path,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        return remove_start(client, &op_unlink, path, timeout_ns, callback, userdata, ret);
}

int shmd_unlink_finish(shmd_call *call) {
        return call_finish(call, &op_unlink, NULL);
}

int shmd_unlink(shmd *client, const char *path, uint64_t timeout_ns) {
        return remove_wait(client, &op_unlink, path, timeout_ns);
}
