/* A policy takes effect: see the header for the model. */

#include "core/enact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "util/error.h"

/* What is to be done with one directory. */
typedef struct Step {
        const PolicyDirectory *wanted;
        Permissions permissions;        /* until they are the directory's */
        DefaultAcl default_acl;
        Directory *directory;
        Account *owner;         /* pinned */
        bool made;
} Step;

typedef struct Steps {
        Tree *tree;
        Step *steps;
        size_t n;
        uint32_t n_made;
} Steps;

static const Credentials root = { .uid = 0, .admin = true };

/* -- what can fail ------------------------------------------------------------------------ */

/* Makes the ACLs of a step. Return: 0, -ENOMEM. */
static int step_read(Step *step) {
        const AclList *access = &step->wanted->access, *defaults = &step->wanted->defaults;
        mode_t mode;
        int r = 0;

        step->permissions = step->wanted->permissions;
        step->default_acl.set = defaults->n > 0;
        if (access->n)
                r = acl_split(access->entries, access->n, &mode, &step->permissions.acl);
        if (!r && defaults->n)
                r = acl_split(defaults->entries, defaults->n, &step->default_acl.mode, &step->default_acl.acl);
        return error_fold(r);
}

/* Finds the directory of a step, or makes it. Nobody sees it before the whole policy is in force. */
static int step_prepare(Steps *steps, Accounts *accounts, const PolicyDirectory *wanted) {
        Step *step = &steps->steps[steps->n];
        Spot spot;
        int r;

        r = tree_resolve(steps->tree, &root, wanted->path, strlen(wanted->path), &spot);
        if (r == TREE_E_NOT_DIRECTORY || (!r && spot.node && !node_is_directory(spot.node)))
                return ENACT_E_TAKEN;
        ASSERT(r == 0);         /* a policy has no directory without those above it */

        *step = (Step){ .wanted = wanted };
        ++steps->n;
        r = step_read(step);
        if (!r)
                r = accounts_ref_user(accounts, wanted->permissions.uid, &step->owner);
        if (r)
                return error_fold(r);
        if (spot.node) {
                step->directory = node_directory(spot.node);
                return 0;
        }
        r = tree_mkdir_anyway(steps->tree, &spot, step->owner, &wanted->permissions, &step->directory);
        step->made = r == 0;
        steps->n_made += step->made;
        return error_fold(r);
}

static void steps_undo(Steps *steps) {
        for (size_t i = steps->n; i-- > 0;)
                if (steps->steps[i].made)
                        ASSERT(tree_rmdir(steps->tree, steps->steps[i].directory) == 0);
}

static void steps_deinit(Steps *steps) {
        for (size_t i = 0; i < steps->n; ++i) {
                permissions_deinit(&steps->steps[i].permissions);
                default_acl_deinit(&steps->steps[i].default_acl);
                (void)account_unref(steps->steps[i].owner);
        }
        free(steps->steps);
}

/* -- what cannot -------------------------------------------------------------------------- */

static void limit(Directory *directory, const Limits *limits) {
        for (size_t i = 0; i < DIRECTORY_SLOTS; ++i) {
                directory->own_max[i] = directory->account->max[i];
                if (limits->slots & (UINT32_C(1) << i))
                        directory->account->max[i] = limits->max[i];
        }
}

static void unlimit(Directory *directory) {
        for (size_t i = 0; i < DIRECTORY_SLOTS; ++i)
                directory->account->max[i] = directory->own_max[i];
}

static bool same_acl(mode_t mode, const Acl *acl, mode_t other_mode, const Acl *other) {
        AclList a, b;

        acl_join(mode, acl, &a);
        acl_join(other_mode, other, &b);
        for (size_t i = 0; i < a.n && a.n == b.n; ++i)
                if (a.entries[i].tag != b.entries[i].tag || a.entries[i].id != b.entries[i].id ||
                    a.entries[i].perms != b.entries[i].perms)
                        return false;
        return a.n == b.n;
}

/* Whether the directory's owner, group, mode and ACLs are those of the step. */
static bool is_as_wanted(const Directory *directory, const Step *step) {
        const Permissions *a = &directory->permissions, *b = &step->permissions;
        const DefaultAcl *c = &directory->default_acl, *d = &step->default_acl;

        return a->uid == b->uid && a->gid == b->gid && a->mode == b->mode &&
               same_acl(a->mode, a->acl, b->mode, b->acl) && c->set == d->set &&
               (!c->set || same_acl(c->mode, c->acl, d->mode, d->acl));
}

/* Who watches hears of what is other than before, and of nothing else. */
static void tell(Directory *directory, const Step *step, bool changed, const uint64_t before[DIRECTORY_SLOTS]) {
        if (step->made)
                tree_announce(&directory->node);
        else if (changed)
                tree_tell_changed(&directory->node);
        if (memcmp(before, directory->account->max, DIRECTORY_SLOTS * sizeof(*before)))
                tree_tell_limited(directory);
}

static void step_take(Tree *tree, Step *step) {
        Directory *directory = step->directory;
        bool changed = !is_as_wanted(directory, step);
        uint64_t before[DIRECTORY_SLOTS];

        memcpy(before, directory->account->max, sizeof(before));
        permissions_deinit(&directory->permissions);
        default_acl_deinit(&directory->default_acl);
        directory->permissions = permissions_copy(&step->permissions);
        directory->default_acl = default_acl_copy(&step->default_acl);
        if (directory->charge.account)
                charge_move_anyway(&directory->charge, step->owner);
        if (!list_is_empty(&directory->ruled))
                unlimit(directory);
        limit(directory, &step->wanted->limits);
        list_move(&tree->ruled, &directory->ruled);
        node_touch(&directory->node);
        tell(directory, step, changed, before);
}

/* The policy does not name it any more. */
static void step_off(Directory *directory) {
        uint64_t before[DIRECTORY_SLOTS];

        memcpy(before, directory->account->max, sizeof(before));
        unlimit(directory);
        list_unlink(&directory->ruled);
        node_touch(&directory->node);
        if (memcmp(before, directory->account->max, sizeof(before)))
                tree_tell_limited(directory);
}

static void steps_take(Steps *steps) {
        List old = LIST_INIT(old);
        Directory *directory;

        list_splice(&old, &steps->tree->ruled);
        for (size_t i = 0; i < steps->n; ++i)
                step_take(steps->tree, &steps->steps[i]);
        while ((directory = list_first(&old, Directory, ruled)))
                step_off(directory);
}

int enact_directories(Tree *tree, Accounts *accounts, const Policy *policy, uint32_t *ret_made, const char **ret_path) {
        CLEANUP(steps_deinit) Steps steps = { .tree = tree };
        int r = 0;

        steps.steps = calloc(policy->n_directories + 1, sizeof(*steps.steps));
        if (!steps.steps)
                return error_origin(-ENOMEM);
        for (size_t i = 0; !r && i < policy->n_directories; ++i) {
                *ret_path = policy->directories[i].path;
                r = step_prepare(&steps, accounts, &policy->directories[i]);
        }
        if (r) {
                steps_undo(&steps);
                return r;
        }
        steps_take(&steps);
        *ret_made = steps.n_made;
        return 0;
}
