/* list: see shmd.h. */

#include "buildinfo.h"

#include "client/client.h"
#include "client/node.h"

static size_t strings_size(const Shmd__ListReply *list) {
        size_t n = block_string_size(&list->cursor);

        for (size_t i = 0; i < list->n_nodes; ++i)
                n += node_string_size(list->nodes[i]);
        return n;
}

static int list_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__ListReply *list = (const Shmd__ListReply *)reply;
        CLEANUP(freep) struct shmd_list_result *result = NULL;
        struct shmd_list_result **ret = out;
        Block block;

        result = block_new(&block, sizeof(*result) + list->n_nodes * sizeof(*result->nodes), strings_size(list));
        if (!result)
                return -ENOMEM;
        result->n = list->n_nodes;
        result->nodes = (struct shmd_node *)(result + 1);
        for (size_t i = 0; i < list->n_nodes; ++i) {
                int r = node_decode(list->nodes[i], &block, &result->nodes[i]);

                if (r)
                        return r;
        }
        result->cursor = list->cursor.len ? block_string(&block, &list->cursor) : NULL;

        *ret = result;
        result = NULL;
        return 0;
}

static const Op op_list = { .kind = MESSAGE_LIST, .decode = list_decode };

int shmd_list_start(shmd *client, const char *path, uint32_t flags, const char *cursor, uint32_t limit,
                    uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__List list = SHMD__LIST__INIT;
        int r;

        list.flags = flags;
        list.limit = limit;
        list.cursor.data = (uint8_t *)cursor;
        list.cursor.len = cursor ? strlen(cursor) : 0;
        r = request_path(client, path, 0, &list.path);
        return r ? r : call_start(client, &op_list, &list.base, timeout_ns, callback, userdata, ret);
}

int shmd_list_finish(shmd_call *call, struct shmd_list_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_list, ret);
}

int shmd_list(shmd *client, const char *path, uint32_t flags, const char *cursor, uint32_t limit,
              struct shmd_list_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_list_start(client, path, flags, cursor, limit, timeout_ns, call_waited, &wait,
                                         &wait.call));
}

struct shmd_list_result *shmd_list_free(struct shmd_list_result *result) {
        free(result);
        return NULL;
}
