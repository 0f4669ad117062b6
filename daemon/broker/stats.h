/* Figures since the start: counts and latencies of requests, refusals by reason.
 */
#ifndef BROKER_STATS_H
#define BROKER_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/message.h"

#define STATS_REASONS 64

typedef struct RequestFigures {
        uint64_t count;
        uint64_t refused;
        uint64_t total_ns;
        uint64_t bucket[MESSAGE_BUCKETS];
} RequestFigures;

typedef struct Stats {
        uint64_t started;       /* CLOCK_MONOTONIC */
        uint64_t violations;
        RequestFigures requests[_MESSAGE_N];
        uint64_t refusals[STATS_REASONS];
} Stats;

/* Counts a request that was answered, after ns. */
void stats_request(Stats *stats, unsigned int kind, bool refused, uint64_t ns);
void stats_refusal(Stats *stats, uint32_t reason);

#endif
