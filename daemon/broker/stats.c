/* Figures since the start: see the header. */

#include "broker/stats.h"

/* The first bucket whose edge, 2^(10+i) ns, is above ns. */
static unsigned int bucket_of(uint64_t ns) {
        unsigned int bits = ns ? 64U - (unsigned int)__builtin_clzll(ns) : 0;

        if (bits <= MESSAGE_BUCKET_SHIFT)
                return 0;
        bits -= MESSAGE_BUCKET_SHIFT;
        return bits < MESSAGE_BUCKETS ? bits : MESSAGE_BUCKETS - 1;
}

void stats_request(Stats *stats, unsigned int kind, bool refused, uint64_t ns) {
        RequestFigures *figures = &stats->requests[kind < _MESSAGE_N ? kind : MESSAGE_NONE];

        ++figures->count;
        figures->refused += refused;
        figures->total_ns += ns;
        ++figures->bucket[bucket_of(ns)];
}

void stats_refusal(Stats *stats, uint32_t reason) {
        ++stats->refusals[reason < STATS_REASONS ? reason : 0];
}
