/* batch: see shmd.h. */

#include "buildinfo.h"

#include "client/op-grant.h"

typedef struct BatchOut {
        shmd_region **regions;
        size_t n;
} BatchOut;

/* The request while it is encoded: the protobuf messages of up to SHMD_BATCH_MAX items. */
typedef struct BatchRequest {
        Shmd__Batch batch;
        Shmd__BatchItem *pointers[SHMD_BATCH_MAX];
        Shmd__BatchItem items[SHMD_BATCH_MAX];
        union {
                Shmd__Create create;
                Shmd__Open open;
        } bodies[SHMD_BATCH_MAX];
} BatchRequest;

static void free_all(shmd_region **regions, size_t n) {
        for (size_t i = 0; i < n; ++i)
                regions[i] = shmd_region_free(regions[i]);
}

static int decode_items(shmd_call *call, const Shmd__BatchReply *reply, const BatchOut *out) {
        for (size_t i = 0; i < out->n; ++i) {
                int r = granted_decode(call, reply->items[i], &out->regions[i]);

                if (r)
                        return r;
        }
        /* Memory is asked for when every region is there: nothing is given back half way. */
        for (size_t i = 0; i < out->n; ++i) {
                int r = granted_reserve(call, i, out->regions[i]);

                if (r) {
                        call->refusal.index = (uint32_t)i;
                        return r;
                }
        }
        return 0;
}

static int batch_decode(shmd_call *call, const ProtobufCMessage *reply, void *p_out) {
        const Shmd__BatchReply *batch = (const Shmd__BatchReply *)reply;
        const BatchOut *out = p_out;
        int r;

        if (out->n != call->n_items)
                return -EINVAL;
        if (batch->n_items != call->n_items)
                return -EPROTO;
        r = decode_items(call, batch, out);
        if (r)
                free_all(out->regions, out->n);
        return r;
}

static const Op op_batch = { .kind = MESSAGE_BATCH, .changes = CLIENT_BATCH_CHANGES, .n_fds = batch_n_fds,
                             .decode = batch_decode };

static int encode_item(shmd *client, const struct shmd_batch_item *item, BatchRequest *request, uint32_t index) {
        Shmd__BatchItem *to = &request->items[index];

        *to = (Shmd__BatchItem)SHMD__BATCH_ITEM__INIT;
        request->pointers[index] = to;
        if (item->create) {
                to->create = &request->bodies[index].create;
                return create_encode(client, item->path, item->create, index, to->create);
        }
        to->open = &request->bodies[index].open;
        return open_encode(client, item->path, item->rights, index, to->open);
}

static int encode(shmd *client, const struct shmd_batch_item *items, size_t n, BatchRequest *request) {
        int r;

        r = client_check(client);
        if (r)
                return r;
        if (n == 0)
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, 0, "", "a batch has an item");
        if (n > SHMD_BATCH_MAX)
                return refusal_local(client, -E2BIG, SHMD__REASON__REASON_MALFORMED, 0, "",
                                     "a batch has at most 128 items");

        request->batch = (Shmd__Batch)SHMD__BATCH__INIT;
        request->batch.n_items = n;
        request->batch.items = request->pointers;
        for (size_t i = 0; i < n; ++i) {
                r = encode_item(client, &items[i], request, (uint32_t)i);
                if (r)
                        return r;
        }
        return 0;
}

int shmd_batch_start(shmd *client, const struct shmd_batch_item *items, size_t n,
                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        BatchRequest request;
        shmd_call *call;
        int r;

        r = encode(client, items, n, &request);
        if (r)
                return r;
        r = call_start(client, &op_batch, &request.batch.base, timeout_ns, callback, userdata, &call);
        if (r)
                return r;
        call->n_items = n;
        for (size_t i = 0; i < n; ++i)
                if (items[i].create)
                        create_note_reserve(call, request.items[i].create, i);
        if (ret)
                *ret = call;
        return 0;
}

int shmd_batch_finish(shmd_call *call, shmd_region **ret, size_t n) {
        BatchOut out = { .regions = ret, .n = n };

        for (size_t i = 0; i < n; ++i)
                ret[i] = NULL;
        return call_finish(call, &op_batch, &out);
}

int shmd_batch(shmd *client, const struct shmd_batch_item *items, size_t n,
               shmd_region **ret, uint64_t timeout_ns) {
        BatchOut out = { .regions = ret, .n = n };
        CallWait wait = { .out = &out };

        for (size_t i = 0; i < n; ++i)
                ret[i] = NULL;
        return call_wait(&wait, client,
                         shmd_batch_start(client, items, n, timeout_ns, call_waited, &wait, &wait.call));
}
