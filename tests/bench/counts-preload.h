/* The page in which counts-preload.c counts, and another process reads along.
 *
 * There is a file for each process that has the library, named by its number, in the directory
 * $SHMD_COUNTS. What is counted is calls, whatever they return; the call that asked for it is written
 * down as well while `trace` is set.
 */
#ifndef TESTS_BENCH_COUNTS_PRELOAD_H
#define TESTS_BENCH_COUNTS_PRELOAD_H

#include <stdint.h>

#define COUNTS_DIRECTORY "SHMD_COUNTS"
#define COUNTS_STACKS 512
#define COUNTS_FRAMES 12

typedef struct CountsPage {
        uint64_t allocated;                     /* calls for new memory, realloc(3) among them */
        uint64_t freed;                         /* calls that give some back, not with NULL */
        uint64_t bytes;                         /* asked for */
        uint64_t trace;
        uint64_t n_stacks;                      /* of which the first COUNTS_STACKS are kept */
        struct CountsStack {
                uint64_t bytes;
                uint64_t n;
                uintptr_t frames[COUNTS_FRAMES];        /* the caller first */
        } stacks[COUNTS_STACKS];
} CountsPage;

#endif
