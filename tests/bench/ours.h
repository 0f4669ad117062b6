/* Our side where shmd is compared with another broker: what a program does that links libshmd and thinks of nothing
 * special. It opens a region for reading and waits for it; the broker runs under its keeper, as in production.
 */
#ifndef TESTS_BENCH_OURS_H
#define TESTS_BENCH_OURS_H

#include "lib/broker.h"
#include "shmd.h"

#define OURS_PATH "/music/loud"
#define OURS_SIZE UINT64_C(4096)
#define OURS_PATIENCE UINT64_C(20000000000)

typedef struct Ours {
        Broker *broker;
        shmd *client;
} Ours;

/* Starts a broker, and makes the region. */
void ours_start(Ours *ours);
void ours_stop(Ours *ours);

/* Opens it: for a BenchSide, with an Ours. */
void ours_open(void *userdata, double *ns, size_t n);

#endif
