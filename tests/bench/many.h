/* Regions by the thousand, and what they take of memory.
 *
 * Users share what there is, and nobody gets all of it; so one user after the other makes regions until there
 * are as many as wanted, or the broker's descriptors are used up. They are a page each, nobody holds them, and
 * everybody may open them.
 */
#ifndef TESTS_BENCH_MANY_H
#define TESTS_BENCH_MANY_H

#include "lib/client.h"

/* Sections of the broker's configuration. */
#define MANY_CONFIG "[global]\npeers = 64\ninflight = 512\n[account]\nregions = unlimited\n" \
                    "[keeper]\nrestarts = 0\nwatchdog = 0s\n"
#define MANY_USERS 30
#define MANY_IN_DIRECTORY 1000

/* Who asks in benches, and made none of them. */
#define MANY_ASKER (ALICE + MANY_USERS + 1)

typedef struct Many {
        Broker *broker;
        uid_t user;             /* whose turn it is */
        uint64_t n;             /* regions there are */
} Many;

void many_init(Many *many, Broker *broker);
/* Makes more of them. Return: whether there are so many now; if not, there is no room for more. */
bool many_make(Many *many, uint64_t n);
/* The path of one of them, from 0. */
void many_path(char path[32], uint64_t i);

/* Bytes. Of a process, what it has for itself: anonymous memory, and what a broker saves for the next one, or a
 * keeper of what it keeps. Of the kernel, slabs: of the whole machine, and good for as much as that is quiet. */
typedef struct Memory {
        double broker, saved;           /* what it saves is in the first as well */
        double keeper, kernel;
} Memory;

Memory many_memory(const Broker *broker);

#endif
