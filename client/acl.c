/* ACLs as text, with the names of this system's users and groups: see shmd.h. */

#include "buildinfo.h"

#include "client/acl.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "client/client.h"
#include "proto/acltext.h"

/* Room for a user or group: a group may have many members. */
#define ENTRY_MIN 1024U
#define ENTRY_MAX (4U << 20)

static bool find(AclTag tag, const char *name, uint32_t *ret, void *userdata) {
        for (size_t n = ENTRY_MIN; n <= ENTRY_MAX; n *= 4) {
                CLEANUP(freep) char *room = malloc(n);
                struct passwd passwd, *user = NULL;
                struct group entry, *group = NULL;
                int r;

                if (!room)
                        return false;
                r = tag == ACL_USER ? getpwnam_r(name, &passwd, room, n, &user) :
                                      getgrnam_r(name, &entry, room, n, &group);
                if (r == ERANGE)
                        continue;
                if (!user && !group)
                        return false;
                *ret = user ? user->pw_uid : group->gr_gid;
                return true;
        }
        return false;
}

static bool name_of(AclTag tag, uint32_t id, char name[ACLTEXT_NAME_MAX + 1], void *userdata) {
        for (size_t n = ENTRY_MIN; n <= ENTRY_MAX; n *= 4) {
                CLEANUP(freep) char *room = malloc(n);
                struct passwd passwd, *user = NULL;
                struct group entry, *group = NULL;
                const char *found;
                int r;

                if (!room)
                        return false;
                r = tag == ACL_USER ? getpwuid_r(id, &passwd, room, n, &user) :
                                      getgrgid_r(id, &entry, room, n, &group);
                if (r == ERANGE)
                        continue;
                if (!user && !group)
                        return false;
                found = user ? user->pw_name : group->gr_name;
                if (strlen(found) > ACLTEXT_NAME_MAX)
                        return false;
                (void)strcpy(name, found);
                return true;
        }
        return false;
}

static size_t copy_list(const AclList *list, struct shmd_acl_entry *ret) {
        for (size_t i = 0; i < list->n; ++i)
                ret[i] = acl_to_public(&list->entries[i]);
        return list->n;
}

int shmd_acl_from_text(const char *text, uint32_t flags, struct shmd_acl_lists *ret,
                       size_t *ret_at, const char **ret_sentence) {
        KEEP_ERRNO;
        AclTextError error = { .sentence = "there is no text" };
        AclText lists = { .access.n = 0 };
        int r = ACLTEXT_E_INVALID;

        *ret = (struct shmd_acl_lists){ .n_access = 0 };
        if (text)
                r = acltext_parse(text, strlen(text),
                                  ACLTEXT_DEFAULTS | (flags & SHMD_ACL_TEXT_BARE ? ACLTEXT_BARE : 0),
                                  find, NULL, &lists, &error);
        if (r) {
                if (ret_at)
                        *ret_at = error.at;
                if (ret_sentence)
                        *ret_sentence = error.sentence;
                return -EINVAL;
        }
        ret->n_access = copy_list(&lists.access, ret->access);
        ret->n_defaults = copy_list(&lists.defaults, ret->defaults);
        return 0;
}

int shmd_acl_to_text(const struct shmd_acl_entry *entry, uint32_t flags, char *text, size_t size) {
        KEEP_ERRNO;
        char whole[ACLTEXT_ENTRY_MAX];
        AclEntry inner;
        size_t n;

        if (!entry)
                return -EINVAL;
        inner = acl_from_public(entry);
        if (acl_check_entry(&inner) != ACL_OK)
                return -EINVAL;
        n = acltext_format(&inner, (flags & SHMD_ACL_TEXT_SHORT ? ACLTEXT_SHORT : 0) |
                                   (flags & SHMD_ACL_TEXT_DEFAULT ? ACLTEXT_IS_DEFAULT : 0),
                           flags & SHMD_ACL_TEXT_NUMERIC ? NULL : name_of, NULL, whole);
        if (size > 0) {
                size_t fits = n < size ? n : size - 1;

                memcpy(text, whole, fits);
                text[fits] = '\0';
        }
        return (int)n;
}
