/* Who has the regions of a broker, found without the broker: every memfd of its making that a group
 * of processes has open or mapped, by inode, as /proc shows it (proc(5): fd and maps).
 *
 * /proc does not show descriptors in flight: a test that has some takes them out of their sockets
 * before it counts, or counts them itself. It takes CAP_SYS_PTRACE to look at processes of others,
 * and what ends while it looks may be seen or not.
 */
#ifndef TESTS_LIB_CENSUS_H
#define TESTS_LIB_CENSUS_H

#include "lib/test.h"

/* A region that somebody has. */
typedef struct Seen {
        uint64_t inode;
        uint64_t id;            /* the broker's number, which is in its name */
        uint64_t size;          /* bytes */
        uint64_t allocated;     /* bytes */
        uint32_t n_open;        /* descriptors */
        uint32_t n_mapped;      /* mappings */
} Seen;

typedef struct Census {
        Seen *seen;
        size_t n;
        size_t n_room;
} Census;

#define CENSUS_NULL { .seen = NULL }

/* Looks at one process, and adds what it has. A process that is gone has nothing. */
void census_look_at(Census *census, pid_t pid);
/* Looks at every process of a process group. */
void census_look_at_group(Census *census, pid_t group);
/* Return: the region with that inode, NULL if nobody was seen to have it. */
const Seen *census_find(const Census *census, uint64_t inode);
void census_deinit(Census *census);

#endif
