/* ACLs as text, in the forms of setfacl(1) and getfacl(1).
 *
 *      u::rwx,u:alice:r--,g::r-x,g:staff:rw-,m::rwx,o::r--
 *
 * Entries stand between commas or on lines of their own, in any order. The words are user, group,
 * mask and other or their first letters; `default:` or `d:` in front makes it an entry of the
 * default ACL. Users and groups are names or numbers; mask and other have none between the colons,
 * and may leave that field out. Permissions are letters of "rwx", with '-' anywhere for nothing,
 * or a digit. White space around a field, empty lines and what follows a '#' are skipped.
 *
 * Who a name stands for is the caller's to say: no name service is asked here.
 */
#ifndef PROTO_ACLTEXT_H
#define PROTO_ACLTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/acl.h"

/* The longest name of a user or a group. */
#define ACLTEXT_NAME_MAX 255
/* Room for one entry as text, and a NUL. */
#define ACLTEXT_ENTRY_MAX (sizeof("default:group::rwx") + ACLTEXT_NAME_MAX)

enum {
        _ACLTEXT_E_SUCCESS,
        ACLTEXT_E_INVALID,
};

enum {
        ACLTEXT_DEFAULTS = 1,           /* parse: entries of a default ACL may be among them */
        ACLTEXT_BARE = 2,               /* parse: entries without permissions, as for `setfacl -x` */
        ACLTEXT_SHORT = 4,              /* format: first letters instead of words */
        ACLTEXT_IS_DEFAULT = 8,         /* format: with `default:` in front */
};

typedef struct AclText {
        AclList access;
        AclList defaults;
} AclText;

/* What is wrong, and with which bytes of the text. */
typedef struct AclTextError {
        const char *sentence;           /* static */
        size_t at;
        size_t n;
} AclTextError;

/* tag is ACL_USER or ACL_GROUP. Return: whether there is one of that name (or number). */
typedef bool (*AclTextFind)(AclTag tag, const char *name, uint32_t *ret, void *userdata);
typedef bool (*AclTextName)(AclTag tag, uint32_t id, char name[ACLTEXT_NAME_MAX + 1], void *userdata);

/* Reads entries and sorts them. Whether the lists are complete is not asked: acl_check().
 * find: NULL if users and groups are numbers only. Names are looked up before numbers.
 * Return: 0, ACLTEXT_E_INVALID and *error (may be NULL). */
int acltext_parse(const char *text, size_t n, unsigned int flags, AclTextFind find, void *userdata,
                  AclText *ret, AclTextError *error);

/* Writes one entry, which must be valid. name: NULL for numbers; so is who has no name.
 * Return: its length. */
size_t acltext_format(const AclEntry *entry, unsigned int flags, AclTextName name, void *userdata,
                      char text[ACLTEXT_ENTRY_MAX]);

/* Writes permissions as in "r-x". */
void acltext_perms(unsigned int perms, char text[4]);

#endif
