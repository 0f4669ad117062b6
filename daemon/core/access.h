/* Who may: permission bits evaluated the way file systems do, because people know that.
 *
 * The first class that fits decides, and only it: the owner, then the group (primary or
 * supplementary), then everybody else. An administrator may do anything. Credentials are a
 * snapshot of numbers taken when the peer connected.
 */
#ifndef CORE_ACCESS_H
#define CORE_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
        ACCESS_SEARCH = 1,
        ACCESS_WRITE = 2,
        ACCESS_READ = 4,
};

#define ACCESS_STICKY 01000U
#define ACCESS_DIRECTORY_MODES 01777U
#define ACCESS_REGION_MODES 0777U

typedef struct Credentials {
        uid_t uid;
        gid_t gid;
        const gid_t *groups;    /* borrowed */
        size_t n_groups;
        bool admin;
} Credentials;

typedef struct Permissions {
        uid_t uid;
        gid_t gid;
        mode_t mode;
} Permissions;

/* Whether all of `want` is allowed. */
bool access_allows(const Credentials *who, const Permissions *what, unsigned int want);

/* Whether who owns it, or is an administrator. */
bool access_owns(const Credentials *who, const Permissions *what);

/* Whether a name in `directory` of something owned as `what` may be taken away or replaced: in a
 * sticky directory only by the owner of either. (Write permission is a question of its own.) */
bool access_sticky_allows(const Credentials *who, const Permissions *directory, const Permissions *what);

#endif
