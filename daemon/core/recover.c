/* Recovery: see the header for the model. */

#include "core/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "util/error.h"
#include "util/memfd.h"

/* So many numbers of a kind may have been used above the highest that is still seen. */
#define LOST_NUMBERS (UINT64_C(1) << 24)

/* A descriptor under the name of a region. */
typedef struct Memory {
        uint64_t id;            /* 0: that is no name of a region */
        int fd;                 /* -1: it has gone its way */
        bool taken;             /* by the region of that number */
        const Kept *kept;
} Memory;

/* A directory's record, and what became of it. */
typedef struct Branch {
        uint64_t id;
        uint64_t parent;
        uint32_t cell;
        uint32_t n;
        size_t at;              /* n bytes of Recovery.bytes */
        Directory *directory;   /* NULL: not made yet, or gone */
        bool gone;
        uint16_t n_path;        /* of its path, 0 for the root */
        uint8_t depth;
} Branch;

typedef struct NewName {
        Node *node;
        uint64_t id;
} NewName;

typedef struct NewGrant {
        SavedGrant saved;
        uint32_t cell;
} NewGrant;

/* What a region's record says of others, until all are there. */
typedef struct NewRegion {
        Region *region;
        uint64_t inode;
        uint64_t rings_for;
        uint64_t session;
        uint8_t state;
} NewRegion;

typedef struct Array {
        void *items;
        size_t n;
        size_t room;
} Array;

typedef struct Recovery {
        Recover *out;
        uint64_t highest[_COUNTER_N];   /* numbers that were seen */
        bool counted;           /* the counters' record is there */
        Memory *memories;       /* sorted by id */
        size_t n_memories;
        Array branches;
        Array bytes;
        Array names;
        Array grants;
        Array regions;
} Recovery;

/* Makes room for n more. Return: the first of them, NULL without memory. */
static void *array_add(Array *array, size_t n, size_t size) {
        size_t room = array->room ? array->room : 64;
        void *items;

        while (room - array->n < n)
                room *= 2;
        if (room > array->room) {
                items = realloc(array->items, room * size);
                if (!items)
                        return NULL;
                array->items = items;
                array->room = room;
        }
        array->n += n;
        return (uint8_t *)array->items + (array->n - n) * size;
}

static void recovery_deinit(Recovery *recovery) {
        for (size_t i = 0; i < recovery->n_memories; ++i)
                (void)close_fd(recovery->memories[i].fd);
        free(recovery->memories);
        free(recovery->branches.items);
        free(recovery->bytes.items);
        free(recovery->names.items);
        free(recovery->grants.items);
        free(recovery->regions.items);
}

static void note(const Recovery *recovery, RecoverWhat what, uint64_t id, const char *name, const char *why) {
        Recover *out = recovery->out;

        ++out->n_dropped[what];
        if (out->note)
                out->note(what, id, name, why, out->userdata);
}

/* Nothing comes of a record. Return: 0. */
static int drop(const Recovery *recovery, RecoverWhat what, uint64_t id, uint32_t cell, const char *why) {
        state_forget(recovery->out->state, cell);
        note(recovery, what, id, NULL, why);
        return 0;
}

static int order(uint64_t a, uint64_t b) {
        return a < b ? -1 : a > b;
}

static const char damaged[] = "its record is damaged";

static void saw(Recovery *recovery, CounterKind kind, uint64_t id) {
        if (id > recovery->highest[kind])
                recovery->highest[kind] = id;
}

/* -- accounts -------------------------------------------------------------- */

static void account_unrefp(Account **account) {
        (void)account_unref(*account);
}

/* -- descriptors --------------------------------------------------------------------------- */

/* Return: the number in "r123"; 0 if the name is another one. */
static uint64_t id_of(const char *name) {
        uint64_t id = 0;

        if (*name++ != 'r' || *name == '0')
                return 0;
        for (; *name; ++name) {
                if (*name < '0' || *name > '9')
                        return 0;
                id = 10 * id + (uint64_t)(*name - '0');
                if (id > SAVED_ID_MAX)
                        return 0;
        }
        return id;
}

static int compare_memories(const void *a, const void *b) {
        const Memory *left = a, *right = b;
        int by_id = order(left->id, right->id);

        return by_id ? by_id : left->fd - right->fd;
}

static int sort_memories(Recovery *recovery, const Kept *kept, size_t n) {
        recovery->memories = malloc((n + 1) * sizeof(*recovery->memories));
        if (!recovery->memories) {
                for (size_t i = 0; i < n; ++i)
                        (void)close_fd(kept[i].fd);
                return error_origin(-ENOMEM);
        }
        for (size_t i = 0; i < n; ++i)
                recovery->memories[i] = (Memory){ .id = id_of(kept[i].name), .fd = kept[i].fd, .kept = &kept[i] };
        /* A name is taken until the store has let go of what has it, whatever that is. */
        for (size_t i = 0; i < n; ++i)
                if (recovery->memories[i].id <= SAVED_ID_BELIEVED)
                        saw(recovery, COUNTER_REGION, recovery->memories[i].id);
        recovery->n_memories = n;
        qsort(recovery->memories, n, sizeof(*recovery->memories), compare_memories);
        return 0;
}

/* The first of that number, or what is behind where it would be. */
static Memory *first_memory(const Recovery *recovery, uint64_t id) {
        size_t low = 0, high = recovery->n_memories;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (recovery->memories[middle].id < id)
                        low = middle + 1;
                else
                        high = middle;
        }
        return &recovery->memories[low];
}

/* Whether a region of that number is made already, or condemned again: every one has memory. */
static bool is_made(const Recovery *recovery, uint64_t id) {
        const Memory *end = recovery->memories + recovery->n_memories;

        for (const Memory *memory = first_memory(recovery, id); memory < end && memory->id == id; ++memory)
                if (memory->taken)
                        return true;
        return false;
}

/* The memory that is a region's own; NULL and why there is none. */
static Memory *find_memory(const Recovery *recovery, const SavedRegion *saved, const char **ret_why) {
        const Memory *end = recovery->memories + recovery->n_memories;
        MemfdSpec spec = { .size = saved->size, .freezable = saved->freezable, .readable = saved->is_bell };

        *ret_why = "no descriptor of it was kept";
        for (Memory *memory = first_memory(recovery, saved->id); memory < end && memory->id == saved->id; ++memory) {
                if (memory->fd < 0)
                        continue;
                *ret_why = memfd_adopt(memory->fd, &spec, recovery->out->uid, saved->inode);
                if (!*ret_why)
                        return memory;
        }
        return NULL;
}

/* -- directories --------------------------------------------------------------------------- */

static int compare_branches(const void *a, const void *b) {
        const Branch *left = a, *right = b;
        int by_id = order(left->id, right->id);

        return by_id ? by_id : order(left->cell, right->cell);
}

static Branch *find_branch(const Recovery *recovery, uint64_t id) {
        Branch *branches = recovery->branches.items;
        size_t low = 0, high = recovery->branches.n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (branches[middle].id < id)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < recovery->branches.n && branches[low].id == id ? &branches[low] : NULL;
}

static int visit_directory(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Recovery *recovery = userdata;
        SavedDirectory saved;
        Branch *branch;
        uint8_t *bytes;

        (void)kind;
        if (saved_decode_directory(&saved, data, n) || saved.id != id || id > SAVED_ID_BELIEVED)
                return drop(recovery, RECOVER_DIRECTORY, id, cell, damaged);
        saw(recovery, COUNTER_DIRECTORY, id);
        branch = array_add(&recovery->branches, 1, sizeof(*branch));
        if (!branch)
                return error_origin(-ENOMEM);
        *branch = (Branch){ .id = id, .parent = saved.parent, .cell = cell, .n = (uint32_t)n, .at = recovery->bytes.n };
        bytes = array_add(&recovery->bytes, n, 1);
        if (!bytes)
                return error_origin(-ENOMEM);
        memcpy(bytes, data, n);
        return 0;
}

/* Gives a directory what its record says. The limits of a policy are on it already if it has any. */
static int fill_directory(Directory *directory, const SavedDirectory *saved) {
        Permissions permissions;
        int r;

        r = saved_to_permissions(&saved->permissions, &permissions);
        if (r)
                return error_fold(r);
        permissions_deinit(&directory->permissions);
        directory->permissions = permissions;
        r = saved_to_defaults(&saved->defaults, &directory->default_acl);
        directory->created_ns = saved->created_ns;
        memcpy(directory->own_max, saved->own_max, sizeof(directory->own_max));
        memcpy(directory->account->max, saved->max, sizeof(saved->max));
        if (saved->ruled)
                list_append(&directory->tree->ruled, &directory->ruled);
        return error_fold(r);
}

/* Makes the directory of a branch below the one that is there. */
static int make_directory(const Recovery *recovery, Branch *branch, const Branch *above, const SavedDirectory *saved) {
        const Recover *out = recovery->out;
        CLEANUP(account_unrefp) Account *payer = NULL;
        Spot spot = { .parent = above->directory, .name = saved->name, .n_name = saved->n_name };
        Permissions none = { .uid = saved->permissions.uid, .gid = saved->permissions.gid };
        int r;

        r = accounts_ref_user(out->accounts, saved->payer, &payer);
        if (!r)
                r = tree_mkdir_anyway(out->tree, &spot, payer, &none, &branch->directory);
        return r ? error_fold(r) : fill_directory(branch->directory, saved);
}

/* Why a directory cannot be where its record says; NULL: it can. */
static const char *misplaced(const Branch *branch, const Branch *above, const SavedDirectory *saved) {
        if (!above || above->gone)
                return "the directory that it was in is gone";
        if (branch->depth > PATH_DEPTH_MAX || above->n_path + 1U + saved->n_name > PATH_BYTES_MAX)
                return "its path is too long";
        if (directory_child(above->directory, saved->name, saved->n_name))
                return "its name is taken";
        return NULL;
}

static int place_directory(const Recovery *recovery, Branch *branch) {
        Branch *above = find_branch(recovery, branch->parent);
        Recover *out = recovery->out;
        SavedDirectory saved;
        const char *why;
        int r;

        r = saved_decode_directory(&saved, (const uint8_t *)recovery->bytes.items + branch->at, branch->n);
        ASSERT(r == 0);
        branch->depth = above ? (uint8_t)(above->depth + 1) : 0;
        why = misplaced(branch, above, &saved);
        if (why) {
                branch->gone = true;
                return drop(recovery, RECOVER_DIRECTORY, branch->id, branch->cell, why);
        }
        branch->n_path = (uint16_t)(above->n_path + 1U + saved.n_name);
        r = make_directory(recovery, branch, above, &saved);
        if (r)
                return error_fold(r);
        branch->directory->node.announced = true;
        state_bind(out->state, &branch->directory->node.record, STATE_DIRECTORY, branch->id, branch->cell);
        return 0;
}

/* Makes a directory, after those above it that are not made yet. What is not below the root after as many
 * steps as a path may have never will be: nothing above it is there, or it is above itself. */
static int reach_directory(const Recovery *recovery, Branch *branch) {
        Branch *chain[PATH_DEPTH_MAX + 1];
        size_t n = 0;

        while (branch && !branch->directory && !branch->gone) {
                if (n == PATH_DEPTH_MAX + 1) {
                        chain[0]->gone = true;
                        return drop(recovery, RECOVER_DIRECTORY, chain[0]->id, chain[0]->cell, "it is not below the root");
                }
                chain[n++] = branch;
                branch = find_branch(recovery, branch->parent);
        }
        while (n > 0) {
                int r = place_directory(recovery, chain[--n]);

                if (r)
                        return error_fold(r);
        }
        return 0;
}

/* Nobody but an administrator gets in: the mode that it had may have been a stricter one than any other. */
static int close_root(const Recovery *recovery) {
        Directory *root = recovery->out->tree->root;

        permissions_deinit(&root->permissions);
        root->permissions = (Permissions){ .uid = recovery->out->uid, .gid = root->permissions.gid };
        state_add(recovery->out->state, &root->node.record, STATE_DIRECTORY, SAVED_ROOT);
        note(recovery, RECOVER_ROOT, SAVED_ROOT, NULL, damaged);
        return 0;
}

/* The root is there; what its record says, it gets. */
static int make_root(Recovery *recovery) {
        Branch *branch = find_branch(recovery, SAVED_ROOT);
        Directory *root = recovery->out->tree->root;
        SavedDirectory saved;
        int r;

        if (!branch) {
                branch = array_add(&recovery->branches, 1, sizeof(*branch));
                if (!branch)
                        return error_origin(-ENOMEM);
                memmove((Branch *)recovery->branches.items + 1, recovery->branches.items,
                        (recovery->branches.n - 1) * sizeof(*branch));
                branch = recovery->branches.items;
                *branch = (Branch){ .id = SAVED_ROOT, .directory = root };
                return close_root(recovery);
        }
        r = saved_decode_directory(&saved, (const uint8_t *)recovery->bytes.items + branch->at, branch->n);
        ASSERT(r == 0);
        branch->directory = root;
        state_bind(recovery->out->state, &root->node.record, STATE_DIRECTORY, SAVED_ROOT, branch->cell);
        return fill_directory(root, &saved);
}

/* Of records with one number the first counts; the array is sorted. */
static void drop_twins(Recovery *recovery) {
        Branch *branches = recovery->branches.items;
        size_t n = 0;

        for (size_t i = 0; i < recovery->branches.n; ++i) {
                if (n > 0 && branches[n - 1].id == branches[i].id)
                        (void)drop(recovery, RECOVER_DIRECTORY, branches[i].id, branches[i].cell, "there are two of that number");
                else
                        branches[n++] = branches[i];
        }
        recovery->branches.n = n;
}

static int recover_directories(Recovery *recovery) {
        int r;

        r = state_walk(recovery->out->state, STATE_DIRECTORY, visit_directory, recovery);
        if (r)
                return error_fold(r);
        if (recovery->branches.n > 0)
                qsort(recovery->branches.items, recovery->branches.n, sizeof(Branch), compare_branches);
        drop_twins(recovery);
        r = make_root(recovery);
        for (size_t i = 0; !r && i < recovery->branches.n; ++i)
                r = reach_directory(recovery, (Branch *)recovery->branches.items + i);
        return error_fold(r);
}

/* -- regions ------------------------------------------------------------------------------- */

static int make_region(Recovery *recovery, const SavedRegion *saved, Memory *memory, Region **ret) {
        CLEANUP(permissions_deinit) Permissions permissions = { .uid = 0 };
        CLEANUP(account_unrefp) Account *payer = NULL;
        NewRegion *made;
        int r;

        r = accounts_ref_user(recovery->out->accounts, saved->payer, &payer);
        if (!r)
                r = saved_to_permissions(&saved->permissions, &permissions);
        if (r)
                return error_fold(r);
        made = array_add(&recovery->regions, 1, sizeof(*made));
        if (!made)
                return error_origin(-ENOMEM);
        r = region_adopt_consume_fd(ret, recovery->out->regions, payer, saved, &permissions, steal_fd(&memory->fd));
        if (r) {
                --recovery->regions.n;
                return r == REGION_E_SIZE ? r : error_fold(r);
        }
        memory->taken = true;
        *made = (NewRegion){ .region = *ret, .inode = saved->inode, .rings_for = saved->rings_for,
                              .session = saved->session, .state = saved->state };
        return 0;
}

static int visit_region(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Recovery *recovery = userdata;
        SavedRegion saved;
        Memory *memory;
        const char *why;
        Region *region;
        int r;

        (void)kind;
        if (saved_decode_region(&saved, data, n) || saved.id != id || id > SAVED_ID_BELIEVED ||
            saved.session > SAVED_ID_BELIEVED)
                return drop(recovery, RECOVER_REGION, id, cell, damaged);
        saw(recovery, COUNTER_REGION, id);
        saw(recovery, COUNTER_SESSION, saved.session);
        if (is_made(recovery, id))
                return drop(recovery, RECOVER_REGION, id, cell, "there are two of that number");
        memory = find_memory(recovery, &saved, &why);
        if (!memory && saved.state == REGION_STATE_CONDEMNED) {
                state_forget(recovery->out->state, cell);       /* let go of, and nobody was told */
                return 0;
        }
        if (!memory)
                return drop(recovery, RECOVER_REGION, id, cell, why);
        r = make_region(recovery, &saved, memory, &region);
        if (r == REGION_E_SIZE)
                return drop(recovery, RECOVER_REGION, id, cell, "it is larger than can be counted");
        if (r)
                return error_fold(r);
        state_bind(recovery->out->state, &region->record, STATE_REGION, id, cell);
        return 0;
}

/* Those of small pages and of huge ones are numbered on their own. */
static int compare_regions(const void *a, const void *b) {
        const NewRegion *left = a, *right = b;
        int by_inode = order(left->inode, right->inode);
        int by_huge = (left->region->huge_shift != 0) - (right->region->huge_shift != 0);

        return by_inode ? by_inode : by_huge ? by_huge : order(left->region->id, right->region->id);
}

/* What two regions say is theirs is the older one's: memory of one owner is nobody else's. */
static void drop_sharers(Recovery *recovery) {
        NewRegion *regions = recovery->regions.items;
        size_t n = 0;

        for (size_t i = 0; i < recovery->regions.n; ++i) {
                Region *region = regions[i].region;

                if (n > 0 && regions[n - 1].inode == regions[i].inode &&
                    (regions[n - 1].region->huge_shift != 0) == (region->huge_shift != 0)) {
                        note(recovery, RECOVER_REGION, region->id, NULL, "another region has the same memory");
                        (void)region_free(region);
                } else {
                        regions[n++] = regions[i];
                }
        }
        recovery->regions.n = n;
}

static int recover_bells(const Recovery *recovery) {
        const NewRegion *regions = recovery->regions.items;

        for (size_t i = 0; i < recovery->regions.n; ++i) {
                uint64_t id = regions[i].rings_for;
                Region *region = id ? regions_find(recovery->out->regions, id) : NULL;

                if (region && region_adopt_bell(region, regions[i].region))
                        return error_origin(-ENOMEM);
        }
        return 0;
}

static int recover_regions(Recovery *recovery) {
        int r;

        r = state_walk(recovery->out->state, STATE_REGION, visit_region, recovery);
        if (r)
                return error_fold(r);
        if (recovery->regions.n > 0)
                qsort(recovery->regions.items, recovery->regions.n, sizeof(NewRegion), compare_regions);
        drop_sharers(recovery);
        return recover_bells(recovery);
}

/* -- names --------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b) {
        const NewName *left = a, *right = b;
        int by_region = order(left->node->region->id, right->node->region->id);

        return by_region ? by_region : order(left->id, right->id);
}

/* Why a name cannot be where its record says; NULL: it can. */
static const char *unusable(const SavedName *saved, const Branch *above, const Region *region, const Cost *cost) {
        if (!above || above->gone)
                return "the directory that it was in is gone";
        if (!region || region->is_bell)
                return "its region is gone";
        if (above->depth == PATH_DEPTH_MAX || above->n_path + 1U + saved->n_name > PATH_BYTES_MAX)
                return "its path is too long";
        if (directory_child(above->directory, saved->name, saved->n_name))
                return "it is taken";
        if (!account_can_count(above->directory->account, cost))
                return "its region is larger than can be counted";
        return NULL;
}

static int make_name(Recovery *recovery, const SavedName *saved, const Branch *above, Region *region, Node **ret) {
        Spot spot = { .parent = above->directory, .name = saved->name, .n_name = saved->n_name };
        NewName *made = array_add(&recovery->names, 1, sizeof(*made));
        Expiry *expiry = NULL;
        int r;

        if (!made)
                return error_origin(-ENOMEM);
        --recovery->names.n;
        if (saved->expires_at) {
                r = expiry_new(&expiry, recovery->out->expiries);
                if (r)
                        return error_fold(r);
        }
        r = tree_link_anyway(&spot, region, ret);
        if (r) {
                (void)expiry_free(expiry);
                return error_fold(r);
        }
        *made = (NewName){ .node = *ret, .id = saved->id };
        ++recovery->names.n;
        if (expiry)
                node_expire(*ret, expiry, saved->expires_at);
        return 0;
}

static int visit_name(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Recovery *recovery = userdata;
        Cost cost = { .slots = { 0 } };
        const Branch *above;
        SavedName saved;
        const char *why;
        Region *region;
        Node *node;
        int r;

        (void)kind;
        if (saved_decode_name(&saved, data, n) || saved.id != id || id > SAVED_ID_BELIEVED)
                return drop(recovery, RECOVER_NAME, id, cell, damaged);
        saw(recovery, COUNTER_NAME, id);
        above = find_branch(recovery, saved.directory);
        region = regions_find(recovery->out->regions, saved.region);
        if (region)
                cost = region_place_cost(region);
        why = unusable(&saved, above, region, &cost);
        if (why)
                return drop(recovery, RECOVER_NAME, id, cell, why);
        r = make_name(recovery, &saved, above, region, &node);
        if (r)
                return error_fold(r);
        state_bind(recovery->out->state, &node->record, STATE_NAME, id, cell);
        return 0;
}

static int recover_names(Recovery *recovery) {
        NewName *names;
        int r;

        r = state_walk(recovery->out->state, STATE_NAME, visit_name, recovery);
        names = recovery->names.items;
        if (recovery->names.n > 0)
                qsort(names, recovery->names.n, sizeof(*names), compare_names);
        for (size_t i = 0; i < recovery->names.n; ++i)
                region_adopt_name(names[i].node->region, names[i].node);
        return error_fold(r);
}

/* -- tickets and grants -------------------------------------------------------------------- */

static int visit_ticket(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Recovery *recovery = userdata;
        CLEANUP(account_unrefp) Account *issuer = NULL;
        SavedTicket saved;
        Ticket *ticket;
        Region *region;
        int r;

        (void)kind;
        if (saved_decode_ticket(&saved, data, n) || saved.id != id || id > SAVED_ID_BELIEVED)
                return drop(recovery, RECOVER_TICKET, id, cell, damaged);
        saw(recovery, COUNTER_TICKET, id);
        region = regions_find(recovery->out->regions, saved.region);
        if (!region)
                return drop(recovery, RECOVER_TICKET, id, cell, "its region is gone");
        r = accounts_ref_user(recovery->out->accounts, saved.issuer, &issuer);
        if (!r)
                r = ticket_adopt(&ticket, recovery->out->tickets, region, issuer, &saved);
        if (r == TICKET_E_TOO_MANY)
                return drop(recovery, RECOVER_TICKET, id, cell, "there are two of it, or too many of its region");
        if (r)
                return error_fold(r);
        state_bind(recovery->out->state, &ticket->record, STATE_TICKET, id, cell);
        return 0;
}

static int visit_grant(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Recovery *recovery = userdata;
        SavedGrant saved;
        NewGrant *made;

        (void)kind;
        if (saved_decode_grant(&saved, data, n) || saved.id != id || id > SAVED_ID_BELIEVED ||
            saved.session > SAVED_ID_BELIEVED)
                return drop(recovery, RECOVER_GRANT, id, cell, damaged);
        saw(recovery, COUNTER_GRANT, id);
        saw(recovery, COUNTER_SESSION, saved.session);
        if (!regions_find(recovery->out->regions, saved.region))
                return drop(recovery, RECOVER_GRANT, id, cell, "its region is gone");
        made = array_add(&recovery->grants, 1, sizeof(*made));
        if (!made)
                return error_origin(-ENOMEM);
        *made = (NewGrant){ .saved = saved, .cell = cell };
        return 0;
}

static int compare_grants(const void *a, const void *b) {
        const NewGrant *left = a, *right = b;
        int by_id = order(left->saved.id, right->saved.id);

        return by_id ? by_id : order(left->cell, right->cell);
}

static int make_grant(const Recovery *recovery, const NewGrant *made) {
        Recover *out = recovery->out;
        Region *region = regions_find(out->regions, made->saved.region);
        CLEANUP(account_unrefp) Account *asker = NULL;
        Grant *grant;
        int r;

        r = accounts_ref_user(out->accounts, made->saved.uid, &asker);
        if (!r)
                r = grant_adopt(&grant, out->grants, region, asker, &made->saved);
        if (r)
                return error_fold(r);
        if (grant->id == made->saved.id)
                state_bind(out->state, &grant->record, STATE_GRANT, made->saved.id, made->cell);
        else
                state_forget(out->state, made->cell);
        if (grant->id != made->saved.id || grant->session != made->saved.session)
                state_touch(&grant->record);
        return 0;
}

static int recover_grants(Recovery *recovery) {
        const NewGrant *grants;
        int r;

        r = state_walk(recovery->out->state, STATE_GRANT, visit_grant, recovery);
        grants = recovery->grants.items;
        if (recovery->grants.n > 0)
                qsort(recovery->grants.items, recovery->grants.n, sizeof(*grants), compare_grants);
        for (size_t i = 0; !r && i < recovery->grants.n; ++i) {
                if (i > 0 && grants[i - 1].saved.id == grants[i].saved.id)
                        r = drop(recovery, RECOVER_GRANT, grants[i].saved.id, grants[i].cell, "there are two of that number");
                else
                        r = make_grant(recovery, &grants[i]);
        }
        return error_fold(r);
}

/* -- the rest ------------------------------------------------------------------------------ */

/* It has all that it will have, which may be less than its record says. */
static void settle_region(const NewRegion *made) {
        Region *region = made->region;

        if (region->state == REGION_STATE_CONDEMNED)
                return;
        region_adopted(region);
        if (region->state != made->state || (made->rings_for && !region_rings_for(region)))
                state_touch(&region->record);
}

/* Everything that belongs to a region is there. */
static void settle(Recovery *recovery) {
        NewRegion *regions = recovery->regions.items;
        Recover *out = recovery->out;

        for (size_t i = 0; i < recovery->regions.n; ++i)
                settle_region(&regions[i]);
        for (size_t i = 0; i < recovery->regions.n; ++i) {
                Region *region = regions[i].region;

                if (!regions[i].session || region->state == REGION_STATE_CONDEMNED)
                        continue;
                if (out->session && out->session(region, regions[i].session, out->userdata))
                        continue;
                state_touch(&region->record);
                region_unlink(region);
        }
}

static bool is_used(const Recovery *recovery, uint64_t inode) {
        const NewRegion *regions = recovery->regions.items;
        size_t low = 0, high = recovery->regions.n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (regions[middle].inode < inode)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < recovery->regions.n && regions[low].inode == inode;
}

/* Lets memory that is no region's go as if it had been one: emptied first, unless somebody holds it, in as
 * many turns as that takes. Return: 0; REGION_E_SIZE, -ENOMEM: it is closed already. */
static int condemn(const Recovery *recovery, Memory *memory, uint64_t size) {
        const Recover *out = recovery->out;
        CLEANUP(account_unrefp) Account *payer = NULL;
        SavedRegion saved = { .id = memory->id, .size = size, .payer = out->uid, .freezable = true,
                              .state = REGION_STATE_CONDEMNED };
        Permissions permissions = { .uid = out->uid };
        Region *region;
        int r;

        r = accounts_ref_user(out->accounts, out->uid, &payer);
        return r ? error_fold(r) :
                   region_adopt_consume_fd(&region, out->regions, payer, &saved, &permissions, steal_fd(&memory->fd));
}

/* It was to be a region's (core/stock), and nobody ever had it. */
static bool is_unborn(const Memory *memory) {
        return memory->id != 0 && memory->fd >= 0 && memfd_is_begun(memory->fd);
}

/* No region has it, and nothing else of that name. */
static int let_go(const Recovery *recovery, Memory *memory, bool unborn) {
        const Recover *out = recovery->out;
        uint64_t inode, size;
        int r = REGION_E_SIZE;

        if (memory->id != 0 && memory->fd >= 0 && !unborn && memfd_look(memory->fd, out->uid, &inode, &size) &&
            !is_used(recovery, inode))
                r = condemn(recovery, memory, size);
        if (!r)
                return 0;
        memory->fd = close_fd(memory->fd);
        fdstore_remove(out->store, memory->kept->name);
        return r == REGION_E_SIZE ? 0 : error_fold(r);
}

/* What is left of the descriptors: those from i on with the same number. Return: how many. */
static size_t let_go_of_name(const Recovery *recovery, size_t i, int *r) {
        Memory *memories = recovery->memories;
        bool taken = false, gone = false;
        size_t n = 1;

        while (memories[i].id != 0 && i + n < recovery->n_memories && memories[i + n].id == memories[i].id)
                ++n;
        for (size_t k = i; k < i + n; ++k)
                taken = taken || memories[k].taken;
        for (size_t k = i; k < i + n && !*r; ++k) {
                bool unborn = !taken && !gone && is_unborn(&memories[k]);

                if (memories[k].taken)
                        continue;
                if (!unborn)
                        note(recovery, RECOVER_DESCRIPTOR, memories[k].id, memories[k].kept->name,
                             taken || gone ? "there is another one of that name" : "it is no region's");
                if (!taken && !gone)
                        *r = let_go(recovery, &memories[k], unborn);
                gone = true;
                memories[k].fd = close_fd(memories[k].fd);
        }
        return n;
}

static int recover_memories(const Recovery *recovery) {
        int r = 0;

        for (size_t i = 0; i < recovery->n_memories && !r;)
                i += let_go_of_name(recovery, i, &r);
        return error_fold(r);
}

static void count(Recover *out) {
        out->n_directories = out->tree->n_directories;
        out->n_regions = out->regions->n;
        out->n_condemned = out->regions->n_condemned;
        out->n_tickets = out->tickets->n;
        out->n_grants = out->grants->n;
}

/* -- numbers ------------------------------------------------------------------------------- */

static int visit_counters(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Recovery *recovery = userdata;
        Counters *counters = recovery->out->counters;
        SavedCounters saved;

        (void)kind;
        if (recovery->counted || saved_decode_counters(&saved, data, n))
                return drop(recovery, RECOVER_COUNTERS, id, cell, damaged);
        counters_restore(counters, &saved);
        for (unsigned int i = 0; i < _COUNTER_N; ++i)
                if (counters->reserved[i] > SAVED_ID_BELIEVED)
                        return drop(recovery, RECOVER_COUNTERS, id, cell, damaged);
        recovery->counted = true;
        state_bind(recovery->out->state, &counters->record, STATE_COUNTERS, id, cell);
        for (unsigned int i = 0; i < _COUNTER_N; ++i)
                saw(recovery, i, counters->reserved[i]);
        return 0;
}

/* Without the record, numbers that were used and are not seen any more may be some way above those that are;
 * of events nothing is seen, and their first number comes from the clock (core/event). */
static void guess_counters(Recovery *recovery) {
        Counters *counters = recovery->out->counters;

        counters_init(counters, recovery->out->state);
        note(recovery, RECOVER_COUNTERS, 0, NULL, damaged);
        saw(recovery, COUNTER_SEQUENCE, recovery->out->events->sequence);
        for (unsigned int i = 0; i < _COUNTER_N; ++i)
                recovery->highest[i] += LOST_NUMBERS;
}

/* All goes on behind the highest number of its kind. */
static void number(Recovery *recovery) {
        const uint64_t *highest = recovery->highest;
        Recover *out = recovery->out;

        saw(recovery, COUNTER_SESSION, *out->last_session);
        if (!recovery->counted)
                guess_counters(recovery);
        for (unsigned int i = 0; i < _COUNTER_N; ++i)
                counters_used(out->counters, i, highest[i]);

        out->regions->last_id = highest[COUNTER_REGION];
        out->grants->last_id = highest[COUNTER_GRANT];
        out->tickets->last_id = highest[COUNTER_TICKET];
        out->tree->last_directory = highest[COUNTER_DIRECTORY];
        out->tree->last_name = highest[COUNTER_NAME];
        *out->last_session = highest[COUNTER_SESSION];
        out->events->sequence = highest[COUNTER_SEQUENCE];
        out->events->oldest = highest[COUNTER_SEQUENCE] + 1;
}

/* What changes from here on is saved. */
static void save(Recover *out) {
        out->tree->state = out->regions->state = out->grants->state = out->tickets->state = out->state;
        out->tree->counters = out->regions->counters = out->grants->counters = out->tickets->counters = out->counters;
        out->events->counters = out->counters;
}

/* -- all of it ----------------------------------------------------------------------------- */

static int recover_records(Recovery *recovery) {
        State *state = recovery->out->state;
        int r;

        r = recover_directories(recovery);
        if (!r)
                r = recover_regions(recovery);
        if (!r)
                r = recover_names(recovery);
        if (!r)
                r = state_walk(state, STATE_TICKET, visit_ticket, recovery);
        if (!r)
                r = recover_grants(recovery);
        if (!r)
                r = state_walk(state, STATE_COUNTERS, visit_counters, recovery);
        return error_fold(r);
}

int recover_consume_fds(Recover *out, const Kept *kept, size_t n_kept) {
        CLEANUP(recovery_deinit) Recovery recovery = { .out = out };
        int r;

        r = sort_memories(&recovery, kept, n_kept);
        if (!r)
                r = recover_records(&recovery);
        if (r)
                return error_fold(r);
        number(&recovery);
        save(out);
        out->n_names = recovery.names.n;
        settle(&recovery);
        r = recover_memories(&recovery);
        count(out);
        regions_adopted(out->regions);
        grants_adopted(out->grants, out->regions);
        return error_fold(r);
}

int recover_without_state_consume_fds(Recover *out, const Kept *kept, size_t n_kept) {
        CLEANUP(recovery_deinit) Recovery recovery = { .out = out };
        int r;

        r = sort_memories(&recovery, kept, n_kept);
        if (!r)
                r = recover_memories(&recovery);
        out->regions->last_id = recovery.highest[COUNTER_REGION];
        count(out);
        return error_fold(r);
}
