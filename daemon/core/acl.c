/* ACLs: see the header for the model. */

#include "core/acl.h"

#include <errno.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/spare.h"

static size_t count_named(const AclEntry *entries, size_t n) {
        size_t named = 0;

        for (size_t i = 0; i < n; ++i)
                named += acl_tag_is_named(entries[i].tag);
        return named;
}

static uint8_t perms_of(const AclEntry *entries, size_t n, AclTag tag) {
        for (size_t i = 0; i < n; ++i)
                if (entries[i].tag == tag)
                        return entries[i].perms;
        ASSERT(false);
        return 0;
}

int acl_split(const AclEntry *entries, size_t n, mode_t *ret_mode, Acl **ret) {
        size_t n_named = count_named(entries, n);
        bool extended = n > 3;
        Acl *acl = NULL;

        ASSERT(acl_check(entries, n) == ACL_OK);

        if (extended) {
                acl = spare_take(sizeof(*acl) + n_named * sizeof(AclEntry));
                if (!acl)
                        return error_origin(-ENOMEM);
                acl->n_refs = 1;
                acl->group_perms = perms_of(entries, n, ACL_GROUP_OBJ);
                acl->n = 0;
                for (size_t i = 0; i < n; ++i)
                        if (acl_tag_is_named(entries[i].tag))
                                acl->entries[acl->n++] = entries[i];
        }

        *ret_mode = (mode_t)(perms_of(entries, n, ACL_USER_OBJ) << 6 |
                             perms_of(entries, n, extended ? ACL_MASK : ACL_GROUP_OBJ) << 3 |
                             perms_of(entries, n, ACL_OTHER));
        *ret = acl;
        return 0;
}

void acl_join(mode_t mode, const Acl *acl, AclList *ret) {
        uint8_t group = mode >> 3 & 7;

        ret->n = 0;
        (void)acl_list_put(ret, (AclEntry){ .tag = ACL_USER_OBJ, .perms = mode >> 6 & 7 });
        (void)acl_list_put(ret, (AclEntry){ .tag = ACL_GROUP_OBJ, .perms = acl ? acl->group_perms : group });
        (void)acl_list_put(ret, (AclEntry){ .tag = ACL_OTHER, .perms = mode & 7 });
        if (!acl)
                return;
        (void)acl_list_put(ret, (AclEntry){ .tag = ACL_MASK, .perms = group });
        for (size_t i = 0; i < acl->n; ++i)
                (void)acl_list_put(ret, acl->entries[i]);
}

Acl *acl_ref(Acl *acl) {
        if (acl)
                ++acl->n_refs;
        return acl;
}

Acl *acl_unref(Acl *acl) {
        if (acl && --acl->n_refs == 0)
                spare_give(acl, sizeof(*acl) + acl->n * sizeof(AclEntry));
        return NULL;
}
