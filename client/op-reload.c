/* reload: see shmd.h.
 *
 * A policy goes in as many requests as it needs, one behind the other without waiting. The broker puts
 * it in force with the last one, and answers that with the outcome: it is the call. A part that was
 * refused makes the broker refuse those behind it.
 */

#include "buildinfo.h"

#include "client/client.h"

/* What a request has room for, beside its header and its other fields. */
#define PART_BYTES (WIRE_REQUEST_MAX - sizeof(WireHeader) - 32)

static int reload_decode(shmd_call *call, const ProtobufCMessage *message, void *out) {
        const Shmd__ReloadReply *reply = (const Shmd__ReloadReply *)message;
        struct shmd_reload_result *ret = out;

        if (!reply->done)
                return -EPROTO;
        if (ret)
                *ret = (struct shmd_reload_result){
                        .generation = reply->generation,
                        .directories = reply->directories,
                        .accounts = reply->accounts,
                };
        return 0;
}

static const Op op_reload = { .kind = MESSAGE_RELOAD, .changes = 1, .decode = reload_decode };

static const Op op_part = { .kind = MESSAGE_RELOAD, .stays = true };

int shmd_reload_start(shmd *client, const void *policy, size_t n,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Reload part = SHMD__RELOAD__INIT;
        uint64_t first;
        shmd_call *call = NULL;
        int r = client_check(client);

        if (r)
                return r == -EINVAL ? r : refusal_local(client, r, 0, 0, "", NULL);
        if (!policy || n == 0 || n > SHMD_POLICY_MAX)
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_POLICY, 0, "",
                                     "a compiled policy has 1 byte to 1 MiB");
        first = client->next_serial;
        part.total = (uint32_t)n;
        do {
                size_t left = n - part.offset;
                bool last = left <= PART_BYTES;

                part.data.data = (uint8_t *)policy + part.offset;
                part.data.len = last ? left : PART_BYTES;
                r = call_start(client, last ? &op_reload : &op_part, &part.base, timeout_ns,
                               last ? callback : NULL, last ? userdata : NULL, &call);
                part.offset += (uint32_t)part.data.len;
        } while (!r && part.offset < n);
        if (r) {
                call_drop_parts(client, first, client->next_serial);
                return r;
        }
        call->first_part = first;
        if (ret)
                *ret = call;
        return 0;
}

int shmd_reload_finish(shmd_call *call, struct shmd_reload_result *ret) {
        return call_finish(call, &op_reload, ret);
}

int shmd_reload(shmd *client, const void *policy, size_t n, struct shmd_reload_result *ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        return call_wait(&wait, client,
                         shmd_reload_start(client, policy, n, timeout_ns, call_waited, &wait, &wait.call));
}
