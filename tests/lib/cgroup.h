/* Memory cgroups of a test's own, of version 1 or 2, whichever controls memory here (cgroups(7)).
 *
 * Groups are the machine's, and one whose test failed stays behind: so each has a name nobody has
 * had.
 */
#ifndef TESTS_LIB_CGROUP_H
#define TESTS_LIB_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Cgroup {
        char path[256];
        bool unified;           /* of version 2 */
} Cgroup;

/* Return: whether this machine lets us have one; if not, errno: ENOENT, nothing here controls memory. */
bool cgroup_begin(Cgroup *cgroup);
/* One in another, which has a limit, and in which no process is: version 2 would not have it. */
bool cgroup_begin_in(Cgroup *cgroup, const Cgroup *outer);
/* When no process is in it, nor a group. */
void cgroup_end(Cgroup *cgroup);

void cgroup_limit(const Cgroup *cgroup, uint64_t bytes);
/* The process that calls it is in the group from now on. */
void cgroup_enter(const Cgroup *cgroup);
/* Bytes that are charged now, and the most that were; 0 if the kernel does not say. */
uint64_t cgroup_usage(const Cgroup *cgroup);
uint64_t cgroup_peak(const Cgroup *cgroup);

#endif
