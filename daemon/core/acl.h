/* ACLs: what a mode cannot say.
 *
 * With an ACL, acl(5), the mode of a thing keeps saying what it can: its owner's bits, everybody
 * else's, and in the bits of the group the mask, the most that the owning group and whoever is
 * named can get. The Acl has the rest: what the owning group has, and users and groups by number.
 * So chmod changes the mask, as it should; an Acl never changes once it is made; and what is
 * made in a directory with a default ACL shares the directory's.
 *
 * An Acl is at most 300 bytes. The thing it belongs to pays for it: one of an account's regions.
 */
#ifndef CORE_ACL_H
#define CORE_ACL_H

#include <stdint.h>
#include <sys/types.h>

#include "base/acl.h"

typedef struct Acl {
        uint64_t n_refs;
        uint8_t group_perms;    /* the owning group's, before the mask */
        uint8_t n;
        AclEntry entries[];     /* users, then groups, by number */
} Acl;

/* Takes a valid list apart into the nine bits of a mode and an Acl, NULL if the mode says it all.
 * *ret is the caller's. Return: 0, -ENOMEM. */
int acl_split(const AclEntry *entries, size_t n, mode_t *ret_mode, Acl **ret);

/* Puts the list together again. acl may be NULL. */
void acl_join(mode_t mode, const Acl *acl, AclList *ret);

/* NULL is fine. Return: the same. */
Acl *acl_ref(Acl *acl);
/* NULL is fine. Return: NULL. */
Acl *acl_unref(Acl *acl);

#endif
