/* list: see shmd.h. */

#include "buildinfo.h"

#include <errno.h>
#include <inttypes.h>

#include "client/client.h"
#include "client/node.h"

/* A cursor is a string for the caller: a path, or for regions without a name a number. */
#define NUMBER_MAX 24

static size_t strings_size(const Shmd__ListReply *list) {
        size_t n = block_string_size(&list->cursor) + NUMBER_MAX;

        for (size_t i = 0; i < list->n_nodes; ++i)
                n += node_string_size(list->nodes[i]);
        return n;
}

static const char *cursor_decode(const Shmd__ListReply *list, Block *block) {
        char number[NUMBER_MAX];
        int n;

        if (list->orphan == 0)
                return list->cursor.len ? block_string(block, &list->cursor) : NULL;
        n = snprintf(number, sizeof(number), "%" PRIu64, list->orphan);
        return block_string(block, &(ProtobufCBinaryData){ .len = (size_t)n, .data = (uint8_t *)number });
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
        result->sequence = list->sequence;
        for (size_t i = 0; i < list->n_nodes; ++i) {
                int r = node_decode(list->nodes[i], &block, &result->nodes[i]);

                if (r)
                        return r;
        }
        result->cursor = cursor_decode(list, &block);

        *ret = result;
        result = NULL;
        return 0;
}

static const Op op_list = { .kind = MESSAGE_LIST, .decode = list_decode };

/* Return: 0, -EINVAL (remembered), -ECHILD, -ENOTCONN. */
static int encode_orphans(shmd *client, const char *path, const char *cursor, Shmd__List *list) {
        char *end = NULL;
        int r;

        r = client_check(client);
        if (r)
                return r;
        errno = 0;
        if (cursor)
                list->orphan = strtoull(cursor, &end, 10);
        if (path || list->flags & SHMD_LIST_RECURSIVE || (cursor && (errno || !list->orphan || *end)))
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, 0, path ? path : "",
                                     "a list of regions without a name has no path, and a cursor of its own");
        return 0;
}

static int encode_path(shmd *client, const char *path, const char *cursor, Shmd__List *list) {
        list->cursor.data = (uint8_t *)cursor;
        list->cursor.len = cursor ? strlen(cursor) : 0;
        return request_path(client, path, 0, &list->path);
}

int shmd_list_start(shmd *client, const char *path, uint32_t flags, const char *cursor, uint32_t limit,
                    uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__List list = SHMD__LIST__INIT;
        int r;

        list.flags = flags;
        list.limit = limit;
        if (flags & SHMD_LIST_ORPHANS)
                r = encode_orphans(client, path, cursor, &list);
        else
                r = encode_path(client, path, cursor, &list);
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
