/* upgrade: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

/* Made again by itself, it would replace the broker that it asked for. */
static const Op op_upgrade = { .kind = MESSAGE_UPGRADE, .once = true };

int shmd_upgrade_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Upgrade upgrade = SHMD__UPGRADE__INIT;

        return call_start(client, &op_upgrade, &upgrade.base, timeout_ns, callback, userdata, ret);
}

int shmd_upgrade_finish(shmd_call *call) {
        return call_finish(call, &op_upgrade, NULL);
}

int shmd_upgrade(shmd *client, uint64_t timeout_ns) {
        CallWait wait = { .out = NULL };

        return call_wait(&wait, client, shmd_upgrade_start(client, timeout_ns, call_waited, &wait, &wait.call));
}
