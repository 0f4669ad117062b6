/* Who is at the other end of a connection: read once, when it is accepted, as numbers.
 *
 * All of it is what the peer was when it connected (unix(7)); later changes of uid or groups, or
 * handing the socket on, do not count. Whatever cannot be read fails the connection: there is no
 * anonymous peer.
 */
#ifndef UTIL_PEERCRED_H
#define UTIL_PEERCRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
        _PEERCRED_E_SUCCESS,
        PEERCRED_E_GONE,        /* the peer is gone already */
        PEERCRED_E_UNMAPPED,    /* its uid or gid has no name in the broker's user namespace */
};

typedef struct Peercred {
        uid_t uid;
        gid_t gid;              /* the primary group, which the kernel leaves out of the list */
        pid_t pid;              /* for people: pids are reused */
        uint64_t pidfd_ino;     /* names the process for ever, 0 where the kernel has none */
        size_t n_groups;
        gid_t *groups;          /* owned, sorted */
} Peercred;

#define PEERCRED_NULL { .uid = (uid_t)-1, .gid = (gid_t)-1 }

/* Looks once whether this process lives in a user namespace that maps only some ids; there the
 * overflow id stands for everybody else and is nobody. (What belonged to the overflow group would
 * belong to all strangers.) */
void peercred_setup(void);

/* Return: 0, PEERCRED_E_GONE, PEERCRED_E_UNMAPPED, or a negative errno. */
int peercred_read(int fd, Peercred *ret);
void peercred_deinit(Peercred *cred);

/* Membership by the primary group or any other. */
bool peercred_in_group(const Peercred *cred, gid_t gid);

#endif
