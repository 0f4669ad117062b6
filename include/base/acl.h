/* What an access control list may look like, acl(5): the one validator, used by the library before
 * it sends and by the broker before it believes.
 *
 * A list has one entry each for the owner, the owning group and everybody else, any number of
 * entries for users and groups by number, and, once it has one of those, a mask: the most that
 * the owning group and everybody named can get. Entries are in the order of their tags and, within
 * one, of their ids; so a list has one spelling, and no entry can be there twice.
 */
#ifndef BASE_ACL_H
#define BASE_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Entries of a list. It bounds what a list costs, in memory and to evaluate. */
#define ACL_ENTRIES_MAX 32
/* The id of entries that are about nobody by number. */
#define ACL_NO_ID 0U
#define ACL_ALL 7U                      /* read 4, write 2, search 1 */

typedef enum AclTag {
        ACL_USER_OBJ = 1,               /* the owner */
        ACL_USER,
        ACL_GROUP_OBJ,                  /* the owning group */
        ACL_GROUP,
        ACL_MASK,
        ACL_OTHER,
} AclTag;

typedef struct AclEntry {
        uint32_t id;                    /* uid or gid for ACL_USER and ACL_GROUP, else ACL_NO_ID */
        uint8_t tag;
        uint8_t perms;
} AclEntry;

typedef struct AclList {
        size_t n;
        AclEntry entries[ACL_ENTRIES_MAX];
} AclList;

typedef enum AclError {
        ACL_OK,
        ACL_TOO_MANY,
        ACL_NO_SUCH_TAG,
        ACL_NO_SUCH_PERMISSION,
        ACL_NO_SUCH_ID,
        ACL_NEEDS_NO_ID,
        ACL_TWICE,
        ACL_NOT_SORTED,
        ACL_INCOMPLETE,
        ACL_WITHOUT_MASK,
} AclError;

/* One sentence a person can act on; a static string. */
static inline const char *acl_error_sentence(AclError error) {
        switch (error) {
        case ACL_OK:
                return "the ACL is valid";
        case ACL_TOO_MANY:
                return "an ACL has at most 32 entries";
        case ACL_NO_SUCH_TAG:
                return "an entry of an ACL is about user, group, mask or other";
        case ACL_NO_SUCH_PERMISSION:
                return "the permissions of an entry are read, write and search";
        case ACL_NO_SUCH_ID:
                return "there is no user or group of that number";
        case ACL_NEEDS_NO_ID:
                return "only entries for users and groups have a number";
        case ACL_TWICE:
                return "an ACL has only one entry for each user and group, one mask and one for others";
        case ACL_NOT_SORTED:
                return "the entries of an ACL are in the order of their tags and numbers";
        case ACL_INCOMPLETE:
                return "an ACL has an entry each for the owner, the owning group and others";
        case ACL_WITHOUT_MASK:
                return "an ACL with entries for users or groups has a mask";
        default:
                return "the ACL is not valid";
        }
}

/* An entry of numbers from elsewhere. One that does not fit is wrong, and does not become right by
 * being cut. */
static inline AclEntry acl_entry(uint32_t tag, uint32_t id, uint32_t perms) {
        return (AclEntry){
                .id = id,
                .tag = tag <= ACL_OTHER ? (uint8_t)tag : 0,
                .perms = perms <= ACL_ALL ? (uint8_t)perms : ACL_ALL + 1,
        };
}

static inline bool acl_tag_is_named(unsigned int tag) {
        return tag == ACL_USER || tag == ACL_GROUP;
}

/* Which of two entries comes first; 0 if they are about the same. */
static inline int acl_compare(const AclEntry *a, const AclEntry *b) {
        if (a->tag != b->tag)
                return a->tag < b->tag ? -1 : 1;
        return a->id < b->id ? -1 : a->id > b->id;
}

static inline AclError acl_check_entry(const AclEntry *entry) {
        if (entry->tag < ACL_USER_OBJ || entry->tag > ACL_OTHER)
                return ACL_NO_SUCH_TAG;
        if (entry->perms > ACL_ALL)
                return ACL_NO_SUCH_PERMISSION;
        if (acl_tag_is_named(entry->tag))
                return entry->id == UINT32_MAX ? ACL_NO_SUCH_ID : ACL_OK;
        return entry->id == ACL_NO_ID ? ACL_OK : ACL_NEEDS_NO_ID;
}

/* Checks a whole list. */
static inline AclError acl_check(const AclEntry *entries, size_t n) {
        unsigned int tags = 0;

        if (n > ACL_ENTRIES_MAX)
                return ACL_TOO_MANY;
        for (size_t i = 0; i < n; ++i) {
                AclError error = acl_check_entry(&entries[i]);
                int order = i > 0 ? acl_compare(&entries[i - 1], &entries[i]) : -1;

                if (error)
                        return error;
                if (order >= 0)
                        return order == 0 ? ACL_TWICE : ACL_NOT_SORTED;
                tags |= 1U << entries[i].tag;
        }
        if (!(tags & 1U << ACL_USER_OBJ) || !(tags & 1U << ACL_GROUP_OBJ) || !(tags & 1U << ACL_OTHER))
                return ACL_INCOMPLETE;
        if (tags & (1U << ACL_USER | 1U << ACL_GROUP) && !(tags & 1U << ACL_MASK))
                return ACL_WITHOUT_MASK;
        return ACL_OK;
}

/* The entry of a list that is about this; NULL if none is. */
static inline AclEntry *acl_list_find(AclList *list, unsigned int tag, uint32_t id) {
        for (size_t i = 0; i < list->n; ++i)
                if (list->entries[i].tag == tag && list->entries[i].id == id)
                        return &list->entries[i];
        return NULL;
}

/* Puts an entry where it belongs in a sorted list, in the place of one about the same.
 * Return: whether there was room. */
static inline bool acl_list_put(AclList *list, AclEntry entry) {
        AclEntry *same = acl_list_find(list, entry.tag, entry.id);
        size_t at = list->n;

        if (same) {
                *same = entry;
                return true;
        }
        if (list->n == ACL_ENTRIES_MAX)
                return false;
        for (; at > 0 && acl_compare(&list->entries[at - 1], &entry) > 0; --at)
                list->entries[at] = list->entries[at - 1];
        list->entries[at] = entry;
        ++list->n;
        return true;
}

/* What the owning group and everybody named have together: the mask that takes nothing away. */
static inline uint8_t acl_list_group_perms(const AclList *list) {
        uint8_t perms = 0;

        for (size_t i = 0; i < list->n; ++i)
                if (acl_tag_is_named(list->entries[i].tag) || list->entries[i].tag == ACL_GROUP_OBJ)
                        perms |= list->entries[i].perms;
        return perms;
}

/* Whether it says more than a mode could: it has a mask or somebody by number. */
static inline bool acl_list_is_extended(const AclList *list) {
        for (size_t i = 0; i < list->n; ++i)
                if (acl_tag_is_named(list->entries[i].tag) || list->entries[i].tag == ACL_MASK)
                        return true;
        return false;
}

#endif
