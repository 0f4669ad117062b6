/* What shmd and another broker have in common where they are compared.
 *
 * On our side is what a program does that links libshmd and thinks of nothing special: it opens a region for reading
 * and waits for it; the broker runs under its keeper, as in production. On the other side is somebody else's program,
 * with a directory of its own and without rights, and a client that asks it by its own library. Nobody is pinned to
 * a processor.
 */
#ifndef TESTS_BENCH_RIVAL_H
#define TESTS_BENCH_RIVAL_H

#include "bench/bench.h"

#define RIVAL_PATH "/music/loud"        /* what is opened */
#define RIVAL_SIZE UINT64_C(4096)

typedef struct Rival {
        pid_t pid;              /* 0: it does not run */
        char dir[32];
} Rival;

/* Makes its directory, where it may make files. */
void rival_init(Rival *rival);
/* Return: the path of something in its directory; valid until the next call. */
const char *rival_path(const Rival *rival, const char *name);
/* Runs it there, with that as standard input (-1: nothing), until it says something to its standard output.
 * Return: whether it did, and so whether there is such a program. */
bool rival_start(Rival *rival, int input, const char *const argv[]);
/* Ends it, and removes its directory. */
void rival_stop(Rival *rival);

/* Opens ours and theirs in turn, and makes the row, and one of p99: how many times longer theirs take. The side is
 * theirs: its times are none of the caller's. */
void rival_compare(const BenchRow *row, BenchSide side);

#endif
