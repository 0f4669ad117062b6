/* ACLs as the public header has them, and as everything else has. */
#ifndef CLIENT_ACL_H
#define CLIENT_ACL_H

#include "base/acl.h"
#include "shmd.h"

static inline AclEntry acl_from_public(const struct shmd_acl_entry *entry) {
        return acl_entry(entry->tag, entry->id, entry->perms);
}

static inline struct shmd_acl_entry acl_to_public(const AclEntry *entry) {
        return (struct shmd_acl_entry){ .tag = entry->tag, .id = entry->id, .perms = entry->perms };
}

#endif
