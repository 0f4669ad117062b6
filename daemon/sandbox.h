/* The sandbox: what the broker gives up before it reads a client's first byte, and its helper
 * (helper.h) before it is given a region.
 *
 * After sandbox_enter() the process has no capability and can gain none, its memory and
 * descriptors cannot be inspected by its own uid, the file system is out of reach (Landlock,
 * where the kernel has it), and every system call that its role does not need kills it.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <sys/types.h>

/* When started as root: becomes uid and gid, without supplementary groups, and drops all
 * capabilities; otherwise only drops capabilities. Return: 0, negative errno. */
int sandbox_drop_privileges(uid_t uid, gid_t gid);

typedef enum SandboxRole {
        SANDBOX_KEEPER,         /* starts brokers: what is forbidden to it is so to them, and nothing else is */
        SANDBOX_BROKER,         /* serves clients */
        SANDBOX_SUPERVISOR,     /* of the helper: forks workers, and kills them */
        SANDBOX_WORKER,         /* does one job at a time; to be entered from the supervisor's sandbox */
} SandboxRole;

/* Closes the door. The keeper keeps the file system, which its brokers begin with, and what it may not
 * call fails. *ret_landlock: whether the kernel has Landlock (a worker's supervisor knows).
 * Return: 0, negative errno. */
int sandbox_enter(SandboxRole role, int *ret_landlock);

#endif
