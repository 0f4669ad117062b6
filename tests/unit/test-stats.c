/* daemon/broker/stats: counts and latencies, each in its bucket. */

#include "daemon-house.h"

#include <string.h>

#include "broker/stats.h"

static Stats stats;

TEST(stats, requests_are_counted_by_kind) {
        stats_request(&stats, MESSAGE_PING, false, 10);
        stats_request(&stats, MESSAGE_PING, true, 20);
        stats_request(&stats, MESSAGE_OPEN, false, 1);
        cr_assert_eq(stats.requests[MESSAGE_PING].count, 2);
        cr_assert_eq(stats.requests[MESSAGE_PING].refused, 1);
        cr_assert_eq(stats.requests[MESSAGE_PING].total_ns, 30);
        cr_assert_eq(stats.requests[MESSAGE_OPEN].count, 1);
        cr_assert_eq(stats.requests[MESSAGE_OPEN].refused, 0);
}

TEST(stats, kinds_nobody_knows_are_counted_together) {
        stats_request(&stats, _MESSAGE_N, true, 1);
        stats_request(&stats, 0x7fff, true, 1);
        stats_request(&stats, UINT32_MAX, true, 1);
        cr_assert_eq(stats.requests[MESSAGE_NONE].count, 3);
        for (unsigned int i = 1; i < _MESSAGE_N; ++i)
                cr_assert_eq(stats.requests[i].count, 0);
}

TEST(stats, bucket_i_counts_what_took_less_than_2_to_the_10_plus_i_ns) {
        for (unsigned int i = 0; i < MESSAGE_BUCKETS; ++i) {
                uint64_t edge = UINT64_C(1) << (MESSAGE_BUCKET_SHIFT + i);
                const uint64_t *bucket = stats.requests[MESSAGE_PING].bucket;

                memset(&stats, 0, sizeof(stats));
                stats_request(&stats, MESSAGE_PING, false, edge - 1);
                cr_assert_eq(bucket[i], 1, "%u", i);
                stats_request(&stats, MESSAGE_PING, false, edge);
                if (i + 1 < MESSAGE_BUCKETS)
                        cr_assert(bucket[i] == 1 && bucket[i + 1] == 1, "%u", i);
                else
                        cr_assert_eq(bucket[i], 2, "the last takes everything else");
        }
}

TEST(stats, no_time_at_all_and_all_the_time_there_is_have_a_bucket) {
        stats_request(&stats, MESSAGE_PING, false, 0);
        stats_request(&stats, MESSAGE_PING, false, 1);
        stats_request(&stats, MESSAGE_PING, false, UINT64_MAX);
        cr_assert_eq(stats.requests[MESSAGE_PING].bucket[0], 2);
        cr_assert_eq(stats.requests[MESSAGE_PING].bucket[MESSAGE_BUCKETS - 1], 1);
}

TEST(stats, refusals_are_counted_by_reason_and_unknown_ones_together) {
        stats_refusal(&stats, SHMD__REASON__REASON_LIMIT);
        stats_refusal(&stats, SHMD__REASON__REASON_LIMIT);
        stats_refusal(&stats, STATS_REASONS);
        stats_refusal(&stats, UINT32_MAX);
        cr_assert_eq(stats.refusals[SHMD__REASON__REASON_LIMIT], 2);
        cr_assert_eq(stats.refusals[0], 2);
        cr_assert_lt(SHMD__REASON__REASON_SERIAL, STATS_REASONS, "there is room for every reason");
}
