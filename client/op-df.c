/* df: see shmd.h. */

#include "buildinfo.h"

#include "client/block.h"
#include "client/client.h"

/* A slot this version does not know is left out: its number would not say what it counts. */
static void usage_decode(const Shmd__AccountUse *account, struct shmd_usage *ret) {
        ret->uid = account->uid;
        ret->granted = account->granted;
        ret->group = account->group;
        for (size_t i = 0; i < account->n_slots; ++i) {
                const Shmd__SlotUse *use = account->slots[i];

                if (use->slot == 0 || use->slot > SHMD_SLOT_MAX)
                        continue;
                ret->limit[use->slot] = use->limit;
                ret->used[use->slot] = use->used;
                ret->rule[use->slot] = use->rule;
        }
}

static int df_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__DfReply *df = (const Shmd__DfReply *)reply;
        struct shmd_df_result **ret = out;
        struct shmd_df_result *result;
        Block block;

        result = block_new(&block, sizeof(*result) + df->n_accounts * sizeof(*result->usages), 0);
        if (!result)
                return -ENOMEM;
        result->n = df->n_accounts;
        result->usages = (struct shmd_usage *)(result + 1);
        for (size_t i = 0; i < df->n_accounts; ++i)
                usage_decode(df->accounts[i], &result->usages[i]);
        result->more = df->more;
        result->next_uid = df->cursor;

        *ret = result;
        return 0;
}

static const Op op_df = { .kind = MESSAGE_DF, .decode = df_decode };

/* Each scope has the one of uid, path and cursor that it is about. */
static int encode(shmd *client, uint32_t scope, uid_t uid, const char *path, Shmd__Df *ret) {
        ret->scope = scope;
        switch (scope) {
        case SHMD_DF_ACCOUNT:
                ret->set_uid = uid != (uid_t)-1;
                ret->uid = ret->set_uid ? uid : 0;
                return 0;
        case SHMD_DF_DIRECTORY:
                return request_path(client, path, 0, &ret->path);
        case SHMD_DF_ACCOUNTS:
                ret->cursor = uid != (uid_t)-1 ? uid : 0;
                return 0;
        default:
                return 0;
        }
}

int shmd_df_start(shmd *client, uint32_t scope, uid_t uid, const char *path,
                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Df df = SHMD__DF__INIT;
        int r;

        r = encode(client, scope, uid, path, &df);
        return r ? r : call_start(client, &op_df, &df.base, timeout_ns, callback, userdata, ret);
}

int shmd_df_finish(shmd_call *call, struct shmd_df_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_df, ret);
}

int shmd_df(shmd *client, uint32_t scope, uid_t uid, const char *path,
            struct shmd_df_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_df_start(client, scope, uid, path, timeout_ns, call_waited, &wait, &wait.call));
}

struct shmd_df_result *shmd_df_free(struct shmd_df_result *result) {
        free(result);
        return NULL;
}
