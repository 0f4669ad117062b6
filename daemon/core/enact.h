/* A policy takes effect: all of it in one moment, or nothing.
 *
 * What can fail comes first: directories that do not exist are made, and everything that the rest
 * needs is fetched. If something is in the way, what was made goes again. The rest cannot fail.
 *
 * A directory that a policy names belongs to it: owner, group, mode, ACLs and limits are as it says,
 * whatever was done to them meanwhile. It is charged to its owner like any other, but never refused
 * for want of room: an administrator's word comes before the limits, and who is over a limit by it
 * gets no more. A directory that is no longer named stays as it is, without the policy's limits.
 */
#ifndef CORE_ENACT_H
#define CORE_ENACT_H

#include "acct/account.h"
#include "core/policy.h"
#include "core/tree.h"

enum {
        _ENACT_E_SUCCESS,
        ENACT_E_TAKEN,          /* a region has the name of a directory: *ret_path, which is the policy's */
};

/* Makes the directories of the policy and gives them what it says. Walks over those it names and
 * those that the one before named, POLICY_DIRECTORIES_MAX each at most.
 * Return: 0 and how many were made; ENACT_E_TAKEN, -ENOMEM: then nothing has changed. */
int enact_directories(Tree *tree, Accounts *accounts, const Policy *policy, uint32_t *ret_made, const char **ret_path);

#endif
