/* ping: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"

static int ping_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        uint64_t *ret_ns = out;

        if (ret_ns)
                *ret_ns = client_now() - call->started_ns;
        return 0;
}

static const Op op_ping = { .kind = MESSAGE_PING, .decode = ping_decode };

int shmd_ping_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Ping ping = SHMD__PING__INIT;

        return call_start(client, &op_ping, &ping.base, timeout_ns, callback, userdata, ret);
}

int shmd_ping_finish(shmd_call *call, uint64_t *ret_ns) {
        return call_finish(call, &op_ping, ret_ns);
}

int shmd_ping(shmd *client, uint64_t *ret_ns, uint64_t timeout_ns) {
        CallWait wait = { .out = ret_ns };

        return call_wait(&wait, client, shmd_ping_start(client, timeout_ns, call_waited, &wait, &wait.call));
}
