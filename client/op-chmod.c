/* chmod and chown: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

static const Op op_chmod = { .kind = MESSAGE_CHMOD, .changes = 1 };
static const Op op_chown = { .kind = MESSAGE_CHOWN, .changes = 1 };

int shmd_chmod_start(shmd *client, const char *path, mode_t mode,
                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Chmod chmod = SHMD__CHMOD__INIT;
        int r;

        chmod.mode = mode;
        r = request_path(client, path, 0, &chmod.path);
        return r ? r : call_start(client, &op_chmod, &chmod.base, timeout_ns, callback, userdata, ret);
}

int shmd_chmod_finish(shmd_call *call) {
        return call_finish(call, &op_chmod, NULL);
}

int shmd_chmod(shmd *client, const char *path, mode_t mode, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_chmod_start(client, path, mode, timeout_ns, call_waited, &wait, &wait.call));
}

int shmd_chown_start(shmd *client, const char *path, uid_t uid, gid_t gid,
                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Chown chown = SHMD__CHOWN__INIT;
        int r;

        /* On the wire "leave it" is a missing flag, not a number that could be somebody's. */
        chown.set_uid = uid != (uid_t)-1;
        chown.set_gid = gid != (gid_t)-1;
        chown.uid = chown.set_uid ? uid : 0;
        chown.gid = chown.set_gid ? gid : 0;
        r = request_path(client, path, 0, &chown.path);
        return r ? r : call_start(client, &op_chown, &chown.base, timeout_ns, callback, userdata, ret);
}

int shmd_chown_finish(shmd_call *call) {
        return call_finish(call, &op_chown, NULL);
}

int shmd_chown(shmd *client, const char *path, uid_t uid, gid_t gid, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_chown_start(client, path, uid, gid, timeout_ns, call_waited, &wait, &wait.call));
}
