/* why: see shmd.h. */

#include "buildinfo.h"

#include "client/block.h"
#include "client/client.h"
#include "client/options.h"

static size_t string_sizes(const Shmd__WhyReply *why) {
        size_t n = block_string_size(&why->sentence);

        for (size_t i = 0; i < why->n_step; ++i)
                n += block_string_size(&why->step[i]->thing) + block_string_size(&why->step[i]->sentence);
        return n;
}

static void step_decode(const Shmd__WhyStep *step, Block *block, struct shmd_why_step *ret) {
        *ret = (struct shmd_why_step){
                .thing = block_string(block, &step->thing),
                .sentence = block_string(block, &step->sentence),
                .reason = step->reason,
                .allowed = step->allowed,
                .wanted = step->wanted,
                .by = step->by,
                .id = step->id,
                .perms = step->perms,
                .masked = step->mask & 8,
                .mask = step->mask & 7,
                .uid = step->uid,
                .gid = step->gid,
                .mode = step->mode,
                .slot = step->slot,
                .asked = step->asked,
                .left = step->left,
                .limit = step->limit,
        };
}

static int why_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__WhyReply *why = (const Shmd__WhyReply *)reply;
        struct shmd_why_result **ret = out;
        struct shmd_why_result *result;
        Block block;

        result = block_new(&block, sizeof(*result) + why->n_step * sizeof(*result->steps), string_sizes(why));
        if (!result)
                return -ENOMEM;
        result->allowed = why->allowed;
        result->error = why->allowed ? 0 : refusal_errno(why->error);
        result->code = why->error;
        result->reason = why->reason;
        result->sentence = block_string(&block, &why->sentence);
        result->n_steps = why->n_step;
        result->steps = (struct shmd_why_step *)(result + 1);
        for (size_t i = 0; i < why->n_step; ++i)
                step_decode(why->step[i], &block, &result->steps[i]);

        *ret = result;
        return 0;
}

static const Op op_why = { .kind = MESSAGE_WHY, .decode = why_decode };

/* gid_t is what a packed field of the protocol has. */
_Static_assert(sizeof(gid_t) == sizeof(uint32_t), "groups are sent as they are");

static int encode(shmd *client, const char *path, const struct shmd_why_options *given, Shmd__Why *ret) {
        struct shmd_why_options options = SHMD_WHY_OPTIONS_INIT;
        int r;

        r = request_path(client, path, 0, &ret->path);
        if (r)
                return r;
        if (given && !options_read(&options, sizeof(options), sizeof(options), given))
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, 0, path, NULL);
        if (options.to) {
                r = request_path(client, options.to, 0, &ret->to);
                if (r)
                        return r;
        }
        ret->size = options.size;
        if (!options.other)
                return 0;
        ret->other = true;
        ret->uid = options.uid;
        ret->gid = options.gid;
        ret->n_groups = options.n_groups;
        ret->groups = (uint32_t *)options.groups;
        return 0;
}

int shmd_why_start(shmd *client, uint32_t operation, const char *path, const struct shmd_why_options *options,
                   uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Why why = SHMD__WHY__INIT;
        int r;

        why.operation = operation;
        r = encode(client, path, options, &why);
        return r ? r : call_start(client, &op_why, &why.base, timeout_ns, callback, userdata, ret);
}

int shmd_why_finish(shmd_call *call, struct shmd_why_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_why, ret);
}

int shmd_why(shmd *client, uint32_t operation, const char *path, const struct shmd_why_options *options,
             struct shmd_why_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_why_start(client, operation, path, options, timeout_ns, call_waited, &wait, &wait.call));
}

struct shmd_why_result *shmd_why_free(struct shmd_why_result *result) {
        free(result);
        return NULL;
}
