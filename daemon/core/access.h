/* Who may: permission bits evaluated the way file systems do, because people know that.
 *
 * The first class that fits decides, and only it: the owner, then the group (primary or
 * supplementary), then everybody else. With an ACL, users it names come after the owner; among
 * the owning group and the groups it names, one that has all that is wanted is enough; and both,
 * named users and all groups, get no more than the mask. An administrator may do anything.
 * Credentials are a snapshot of numbers taken when the peer connected.
 */
#ifndef CORE_ACCESS_H
#define CORE_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/acl.h"

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
        const gid_t *groups;    /* borrowed, sorted */
        size_t n_groups;
        bool admin;
} Credentials;

/* Whoever has one owns a reference of its ACL: copies are made by permissions_copy(). */
typedef struct Permissions {
        uid_t uid;
        gid_t gid;
        mode_t mode;            /* with an ACL, the bits of the group are its mask */
        Acl *acl;               /* NULL: none */
} Permissions;

/* What is made in a directory begins with this, instead of with the mode alone. */
typedef struct DefaultAcl {
        bool set;
        mode_t mode;
        Acl *acl;
} DefaultAcl;

/* Whom a decision is about. */
typedef enum AccessClass {
        ACCESS_BY_NOBODY,
        ACCESS_BY_ADMIN,
        ACCESS_BY_OWNER,
        ACCESS_BY_USER,         /* named in the ACL */
        ACCESS_BY_GROUP,        /* the owning one */
        ACCESS_BY_ACL_GROUP,    /* named in the ACL */
        ACCESS_BY_OTHER,
} AccessClass;

typedef struct AccessDecision {
        bool allowed;
        uint8_t by;             /* AccessClass */
        uint8_t perms;          /* what it has, with the mask taken into account */
        uint8_t mask;           /* 8 + the mask, where that took something away; else 0 */
        uint32_t id;            /* its uid or gid */
} AccessDecision;

/* Whether all of `want` is allowed. */
bool access_allows(const Credentials *who, const Permissions *what, unsigned int want);

/* The same, and who decided it. */
AccessDecision access_explain(const Credentials *who, const Permissions *what, unsigned int want);

/* Whether who owns it, or is an administrator. */
bool access_owns(const Credentials *who, const Permissions *what);

/* Whether a name in `directory` of something owned as `what` may be taken away or replaced: in a
 * sticky directory only by the owner of either. (Write permission is a question of its own.) */
bool access_sticky_allows(const Credentials *who, const Permissions *directory, const Permissions *what);

Permissions permissions_copy(const Permissions *permissions);
void permissions_deinit(Permissions *permissions);

/* Something is made, with the mode that was asked for: a default ACL has its say. That mode is the
 * most that the owner, the mask and everybody else get of it. */
void permissions_inherit(Permissions *permissions, const DefaultAcl *of);

DefaultAcl default_acl_copy(const DefaultAcl *acl);
void default_acl_deinit(DefaultAcl *acl);

#endif
