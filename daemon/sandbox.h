/* The sandbox: what the broker gives up before it reads a client's first byte.
 *
 * After sandbox_enter() the process has no capability and can gain none, its memory and
 * descriptors cannot be inspected by its own uid, the file system is out of reach (Landlock,
 * where the kernel has it), and every system call that serving clients does not need kills it.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <sys/types.h>

/* When started as root: becomes uid and gid, without supplementary groups, and drops all
 * capabilities; otherwise only drops capabilities. Return: 0, negative errno. */
int sandbox_drop_privileges(uid_t uid, gid_t gid);

/* Closes the door. *ret_landlock: whether the kernel has Landlock. Return: 0, negative errno. */
int sandbox_enter(int *ret_landlock);

#endif
