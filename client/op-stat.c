/* stat, and wait, which answers with the same: see shmd.h. */

#include "buildinfo.h"

#include "base/assert.h"
#include "client/client.h"
#include "client/node.h"

static void holder_decode(const Shmd__Holder *holder, struct shmd_holder *ret) {
        *ret = (struct shmd_holder){
                .grant = holder->grant,
                .uid = holder->uid,
                .pid = (pid_t)holder->pid,
                .rights = holder->rights,
                .age_ns = holder->age_ns,
                .pidfd_ino = holder->pidfd_ino,
                .marked = holder->marked,
                .connected = holder->connected,
                .ticket = holder->ticket,
        };
}

/* A result for a node, with room for holders and names. Return: 0, -ENOMEM, -EPROTO. */
static int result_new(struct shmd_stat_result **ret, Block *block, const Shmd__Node *node,
                      size_t n_holders, size_t n_names, const ProtobufCBinaryData *names) {
        CLEANUP(freep) struct shmd_stat_result *result = NULL;
        size_t n_strings = node_string_size(node);
        int r;

        if (!node)
                return -EPROTO;
        for (size_t i = 0; i < n_names; ++i)
                n_strings += block_string_size(&names[i]);
        result = block_new(block, sizeof(*result) + n_holders * sizeof(*result->holders) + n_names * sizeof(char *),
                           n_strings);
        if (!result)
                return -ENOMEM;
        result->n_holders = n_holders;
        result->holders = (struct shmd_holder *)(result + 1);
        r = node_decode(node, block, &result->node);
        if (r)
                return r;

        *ret = result;
        result = NULL;
        return 0;
}

static void names_decode(const Shmd__StatReply *stat, Block *block, struct shmd_stat_result *result) {
        const char **names = (const char **)(result->holders + result->n_holders);

        for (size_t i = 0; i < stat->n_names; ++i)
                names[i] = block_string(block, &stat->names[i]);
        result->n_names = stat->n_names;
        result->names = names;
}

static int stat_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__StatReply *stat = (const Shmd__StatReply *)reply;
        struct shmd_stat_result **ret = out;
        struct shmd_stat_result *result;
        Block block;
        int r;

        r = result_new(&result, &block, stat->node, stat->n_holders, stat->n_names, stat->names);
        if (r)
                return r;
        for (size_t i = 0; i < stat->n_holders; ++i)
                holder_decode(stat->holders[i], &result->holders[i]);
        names_decode(stat, &block, result);
        result->more_holders = stat->more;
        result->held = stat->held;
        result->held_known = stat->held_known;
        result->explained = stat->explained;

        *ret = result;
        return 0;
}

static const Op op_stat = { .kind = MESSAGE_STAT, .decode = stat_decode };

int shmd_stat_start(shmd *client, const char *path, uint64_t region, uint32_t flags,
                    uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Stat stat = SHMD__STAT__INIT;
        int r = 0;

        if (path)
                r = request_path(client, path, 0, &stat.path);
        else
                stat.region = region;
        stat.flags = flags;
        return r ? r : call_start(client, &op_stat, &stat.base, timeout_ns, callback, userdata, ret);
}

int shmd_stat_finish(shmd_call *call, struct shmd_stat_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_stat, ret);
}

int shmd_stat(shmd *client, const char *path, uint64_t region, uint32_t flags,
              struct shmd_stat_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_stat_start(client, path, region, flags, timeout_ns, call_waited, &wait,
                                         &wait.call));
}

struct shmd_stat_result *shmd_stat_free(struct shmd_stat_result *result) {
        free(result);
        return NULL;
}

/* -- wait ---------------------------------------------------------------------------- */

static int wait_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        struct shmd_stat_result **ret = out;
        Block block;

        if (!ret)
                return 0;
        return result_new(ret, &block, ((const Shmd__WaitReply *)reply)->node, 0, 0, NULL);
}

/* What is left of the time. */
static int wait_renew(shmd_call *call) {
        uint64_t now_ns = client_now();
        ProtobufCMessage *message;
        int r;

        if (call->deadline_ns == UINT64_MAX)
                return 0;
        if (call->deadline_ns <= now_ns)
                return -ETIMEDOUT;
        r = message_unpack(call->client->arena, MESSAGE_WAIT, false, call->request + sizeof(WireHeader),
                           call->n_request - sizeof(WireHeader), &message);
        ASSERT(r == 0);
        ((Shmd__Wait *)message)->timeout_ns = call->deadline_ns - now_ns;
        r = call_pack(call, message);
        arena_reset(call->client->arena);
        return r;
}

/* The broker keeps the deadline. Ours stands behind it, in case nobody answers. */
static const Op op_wait = { .kind = MESSAGE_WAIT, .grace_ns = CLIENT_NS_PER_S, .decode = wait_decode,
                            .renew = wait_renew };

static int wait_start(shmd *client, uint32_t until, const char *path, uint64_t region,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Wait wait = SHMD__WAIT__INIT;
        int r = 0;

        if (path || !region)
                r = request_path(client, path, 0, &wait.path);
        else
                wait.region = region;
        if (r)
                return r;
        wait.until = until;
        wait.timeout_ns = client_timeout(client, timeout_ns);
        return call_start(client, &op_wait, &wait.base, timeout_ns, callback, userdata, ret);
}

int shmd_wait_start(shmd *client, const char *path,
                    uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        return wait_start(client, SHMD__WAIT_FOR__WAIT_NAME, path, 0, timeout_ns, callback, userdata, ret);
}

int shmd_wait_finish(shmd_call *call, struct shmd_stat_result **ret) {
        if (ret)
                *ret = NULL;
        return call_finish(call, &op_wait, ret);
}

static int wait_for(shmd *client, uint32_t until, const char *path, uint64_t region,
                    struct shmd_stat_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        if (ret)
                *ret = NULL;
        return call_wait(&wait, client,
                         wait_start(client, until, path, region, timeout_ns, call_waited, &wait, &wait.call));
}

int shmd_wait(shmd *client, const char *path, struct shmd_stat_result **ret, uint64_t timeout_ns) {
        return wait_for(client, SHMD__WAIT_FOR__WAIT_NAME, path, 0, ret, timeout_ns);
}

int shmd_wait_unheld_start(shmd *client, const char *path, uint64_t region,
                           uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        return wait_start(client, SHMD__WAIT_FOR__WAIT_UNHELD, path, region, timeout_ns, callback, userdata, ret);
}

int shmd_wait_unheld(shmd *client, const char *path, uint64_t region,
                     struct shmd_stat_result **ret, uint64_t timeout_ns) {
        return wait_for(client, SHMD__WAIT_FOR__WAIT_UNHELD, path, region, ret, timeout_ns);
}

int shmd_wait_frozen_start(shmd *client, const char *path, uint64_t region,
                           uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        return wait_start(client, SHMD__WAIT_FOR__WAIT_FROZEN, path, region, timeout_ns, callback, userdata, ret);
}

int shmd_wait_frozen(shmd *client, const char *path, uint64_t region,
                     struct shmd_stat_result **ret, uint64_t timeout_ns) {
        return wait_for(client, SHMD__WAIT_FOR__WAIT_FROZEN, path, region, ret, timeout_ns);
}
