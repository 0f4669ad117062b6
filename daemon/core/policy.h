/* A policy: the rules of accounts, and the directories that an administrator wants to be there.
 *
 * It comes as one block of bytes, compiled from policy files by a process that may read files and
 * ask for names. Whoever takes it believes none of it: policy_decode() checks every number, name
 * and order, and there is one block for each policy, so that nothing is left to interpretation.
 *
 * The layout; numbers are little-endian:
 *
 *      header       8 bytes "shmdpol\n", u32 version (1), u32 bytes of the whole,
 *                   u32 number of users, of groups, of directories, u32 zero
 *      limits       of all together; of each user
 *      users        u32 uid, u32 zero, limits; by ascending uid
 *      groups       u32 gid, u32 zero, limits; the first that fits a user counts
 *      directories  u32 uid, gid, mode, u16 bytes of the path, u8 entries of the ACL, u8 of the default
 *                   ACL, limits, the entries, the path; by ascending path, none without the one above it
 *
 *      limits       u32 bits of the slots that it names, u32 zero, u64 for each slot, zero if not named
 *      entry        u32 id, u8 tag, u8 permissions, u16 zero
 */
#ifndef CORE_POLICY_H
#define CORE_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "acct/account.h"
#include "base/acl.h"
#include "base/cleanup.h"
#include "core/access.h"
#include "core/tree.h"

#define POLICY_BYTES_MAX (UINT32_C(1) << 20)
#define POLICY_USERS_MAX 8192
#define POLICY_GROUPS_MAX 256
#define POLICY_DIRECTORIES_MAX 1024
#define POLICY_DIRECTORY_SLOTS ((UINT32_C(1) << DIRECTORY_SLOTS) - 1)

enum {
        _POLICY_E_SUCCESS,
        POLICY_E_INVALID,
        POLICY_E_TOO_LARGE,
};

typedef struct PolicyDirectory {
        char *path;             /* with a NUL; owned */
        Permissions permissions;
        AclList access;         /* none: the mode says it all */
        AclList defaults;       /* none: there is no default ACL */
        Limits limits;
} PolicyDirectory;

typedef struct Policy {
        Rules rules;            /* its arrays are owned */
        PolicyDirectory *directories;
        size_t n_directories;
} Policy;

/* Makes a policy that says nothing. Return: 0, -ENOMEM. */
int policy_new(Policy **ret);
/* Return: NULL. */
Policy *policy_free(Policy *policy);

DEFINE_CLEANUP(Policy, policy_free);

/* Checks and takes over n bytes. Return: 0; POLICY_E_INVALID and a sentence (static); -ENOMEM. */
int policy_decode(const uint8_t *blob, size_t n, Policy **ret, const char **ret_sentence);

/* The reverse. It sorts users and directories, and trusts the rest. *ret is for free(3).
 * Return: 0; POLICY_E_TOO_LARGE, more than POLICY_BYTES_MAX; -ENOMEM. */
int policy_encode(Policy *policy, uint8_t **ret, size_t *ret_n);

/* The directory of that path; NULL if it is not in the policy. The list must be sorted. */
const PolicyDirectory *policy_find_directory(const Policy *policy, const char *path, size_t n);

#endif
