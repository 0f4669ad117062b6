/* What a process is that the broker names by numbers: looked up in /proc, with the rights of whoever
 * runs shmdctl.
 *
 * A pid alone may be somebody else's by now. The inode number of a pidfd is one process's alone since
 * boot, where the kernel has a file system of them: it is compared before anything is read, and
 * afterwards the process must still be there. A process that is gone did not take its grants with it if
 * it passed them on.
 */
#ifndef CLIENT_CTL_PROCESS_H
#define CLIENT_CTL_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESS_COMM_MAX 64
#define PROCESS_UNIT_MAX 256
#define PROCESS_CGROUP_MAX 1024

typedef enum ProcessState {
        PROCESS_UNKNOWN,        /* this kernel cannot recognise it, or its pid is of another namespace */
        PROCESS_GONE,
        PROCESS_THERE,          /* recognised */
} ProcessState;

typedef struct Process {
        ProcessState state;
        char comm[PROCESS_COMM_MAX];            /* "": may not be read */
        char cgroup[PROCESS_CGROUP_MAX];        /* "": none, or may not be read */
        char unit[PROCESS_UNIT_MAX];            /* of systemd; "": in none */
} Process;

/* Whether pids that a process tells, which has this one for us, mean the same processes here. */
bool process_shares_pids(pid_t pid);

/* Looks a process up. */
void process_look(pid_t pid, uint64_t pidfd_ino, Process *ret);

/* The process's control group and unit, from the content of /proc/PID/cgroup. The unit is the last
 * component of the path that is a service or a scope. */
void process_read_cgroup(const char *text, Process *ret);
/* The caller's own; nothing else of *ret is filled in. */
void process_read_own_cgroup(Process *ret);

#endif
