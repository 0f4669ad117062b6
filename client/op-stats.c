/* stats: see shmd.h. */

#include "buildinfo.h"

#include "client/block.h"
#include "client/client.h"

_Static_assert(SHMD_BUCKETS == MESSAGE_BUCKETS, "what the broker counts is what the header says");

static size_t strings_size(const Shmd__StatsReply *stats) {
        size_t n = block_string_size(&stats->broker);

        for (size_t i = 0; i < stats->n_requests; ++i)
                n += block_string_size(&stats->requests[i]->name);
        for (size_t i = 0; i < stats->n_refusals; ++i)
                n += block_string_size(&stats->refusals[i]->name);
        return n;
}

/* A broker that counts in finer buckets at the end has its surplus in our last one. */
static void request_decode(const Shmd__RequestStat *request, Block *block, struct shmd_request_stat *ret) {
        ret->name = block_string(block, &request->name);
        ret->count = request->count;
        ret->refused = request->refused;
        ret->total_ns = request->total_ns;
        for (size_t i = 0; i < request->n_bucket; ++i)
                ret->bucket[i < SHMD_BUCKETS ? i : SHMD_BUCKETS - 1] += request->bucket[i];
}

static void reason_decode(const Shmd__ReasonStat *reason, Block *block, struct shmd_reason_stat *ret) {
        ret->name = block_string(block, &reason->name);
        ret->reason = reason->reason;
        ret->count = reason->count;
}

static void figures_decode(const Shmd__StatsReply *stats, struct shmd_stats_result *ret) {
        ret->uptime_ns = stats->uptime_ns;
        ret->regions = stats->regions;
        ret->named = stats->named;
        ret->orphans = stats->orphans;
        ret->bytes = stats->bytes;
        ret->grants = stats->grants;
        ret->peers = stats->peers;
        ret->waiters = stats->waiters;
        ret->directories = stats->directories;
        ret->released = stats->released;
        ret->violations = stats->violations;
        ret->accepts_paused = stats->accepts_paused;
        ret->log_dropped = stats->log_dropped;
        ret->restarts = stats->restarts;
}

static int stats_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__StatsReply *stats = (const Shmd__StatsReply *)reply;
        struct shmd_stats_result **ret = out;
        struct shmd_stats_result *result;
        Block block;

        result = block_new(&block,
                           sizeof(*result) + stats->n_requests * sizeof(*result->requests) +
                           stats->n_refusals * sizeof(*result->refusals),
                           strings_size(stats));
        if (!result)
                return -ENOMEM;
        figures_decode(stats, result);
        result->n_requests = stats->n_requests;
        result->requests = (struct shmd_request_stat *)(result + 1);
        result->n_refusals = stats->n_refusals;
        result->refusals = (struct shmd_reason_stat *)(result->requests + stats->n_requests);
        for (size_t i = 0; i < stats->n_requests; ++i)
                request_decode(stats->requests[i], &block, &result->requests[i]);
        for (size_t i = 0; i < stats->n_refusals; ++i)
                reason_decode(stats->refusals[i], &block, &result->refusals[i]);
        result->broker = block_string(&block, &stats->broker);

        *ret = result;
        return 0;
}

static const Op op_stats = { .kind = MESSAGE_STATS, .decode = stats_decode };

int shmd_stats_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Stats stats = SHMD__STATS__INIT;

        return call_start(client, &op_stats, &stats.base, timeout_ns, callback, userdata, ret);
}

int shmd_stats_finish(shmd_call *call, struct shmd_stats_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_stats, ret);
}

int shmd_stats(shmd *client, struct shmd_stats_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client, shmd_stats_start(client, timeout_ns, call_waited, &wait, &wait.call));
}

struct shmd_stats_result *shmd_stats_free(struct shmd_stats_result *result) {
        free(result);
        return NULL;
}
