/* The tree of names: see the header for the model. */

#include "core/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "core/counters.h"
#include "core/region.h"
#include "core/secret.h"
#include "util/deadline.h"
#include "util/error.h"
#include "util/spare.h"

static uint64_t child_hash(const Directory *directory, const char *name, size_t n) {
        return node_table_hash(&directory->tree->nodes, directory->seed, name, n);
}

Node *directory_child(Directory *directory, const char *name, size_t n) {
        return node_table_find(&directory->tree->nodes, child_hash(directory, name, n), directory, name, n);
}

/* The hash of what comes to a spot: the one it was looked for with, unless the directory was moved since. */
static uint64_t spot_hash(const Spot *spot) {
        if (spot->is_hashed && spot->seed == spot->parent->seed)
                return spot->hash;
        return child_hash(spot->parent, spot->name, spot->n_name);
}

/* Keeps the bounds of a directory and of all above it true for a node below it. */
static void raise_bounds(Directory *directory, const Node *node) {
        size_t levels = 1, bytes = 1U + node->n_name;

        if (node_is_directory(node)) {
                levels += ((const Directory *)node)->levels;
                bytes += ((const Directory *)node)->bytes;
        }
        /* All the way up: below a directory that was measured, bounds may be higher than its own. */
        for (Directory *d = directory; d; d = d->node.parent) {
                if (levels > d->levels)
                        d->levels = (uint8_t)levels;
                if (bytes > d->bytes)
                        d->bytes = (uint16_t)bytes;
                ++levels;
                bytes += 1U + d->node.n_name;
        }
}

/* There is room in the table of nodes for it; hash: of its name in that directory. */
static void child_insert(Directory *directory, Node *node, uint64_t hash) {
        node->parent = directory;
        node_table_insert(&directory->tree->nodes, node, hash);
        children_insert(&directory->children, node);
        ++directory->n_children;
        raise_bounds(directory, node);
}

static void child_remove(Node *node) {
        children_remove(&node->parent->children, node);
        node_table_remove(&node->parent->tree->nodes, node);
        --node->parent->n_children;
        node->parent = NULL;
}

static const Cost directory_cost = { .slots = { [ACCOUNT_REGIONS] = 1 } };

/* The receipt for the place of a child of that directory. */
static Charge place_of(const Directory *directory, const Node *node) {
        Cost cost = node->region ? region_place_cost(node->region) : directory_cost;

        return charge_recall(directory->account, &cost);
}

/* Removes a child for good: its place is nobody's any more. */
static void child_end(Node *node) {
        Charge place = place_of(node->parent, node);

        child_remove(node);
        charge_release(&place);
}

const Permissions *node_permissions(const Node *node) {
        return node->region ? &node->region->permissions : &((const Directory *)node)->permissions;
}

/* The place for a name of n bytes; NULL: there is no memory. */
static char *node_room(Node *node, size_t n) {
        if (n <= NODE_TEXT)
                return node->name.text;
        node->name.block = spare_take(n);
        return node->name.block;
}

/* Return: 0, -ENOMEM. */
static int node_init(Node *node, Region *region, const char *name, size_t n) {
        char *room;

        *node = (Node){ .region = region, .record = STATE_RECORD_NULL };
        list_init(&node->in_region);
        room = node_room(node, n);
        if (!room)
                return error_origin(-ENOMEM);
        memcpy(room, name, n);
        node->n_name = (uint8_t)n;
        return 0;
}

static void node_deinit(Node *node) {
        ASSERT(!node->watches.first);
        state_drop(&node->record);
        if (node->region)
                ring_remove(&node->region->names, &node->in_region);
        node->expiry = expiry_free(node->expiry);
        if (node->n_name > NODE_TEXT)
                spare_give(node->name.block, node->n_name);
}

/* -- saving --------------------------------------------------------------------------- */

void tree_save(Tree *tree, State *state, Counters *counters) {
        tree->state = state;
        tree->counters = counters;
        state_add(state, &tree->root->node.record, STATE_DIRECTORY, SAVED_ROOT);
}

void node_touch(Node *node) {
        state_touch(node->region ? &node->region->record : &node->record);
}

/* It is the latest name of its region. */
static void name_save(Tree *tree, Node *node) {
        counters_used(tree->counters, COUNTER_NAME, ++tree->last_name);
        state_add(tree->state, &node->record, STATE_NAME, tree->last_name);
}

/* -- telling -------------------------------------------------------------------------- */

static const TreeObserver *observer_of(const Directory *directory) {
        return directory->tree->observer;
}

void tree_tell_changed(Node *node) {
        const TreeObserver *observer = observer_of(node->parent ? node->parent : node_directory(node));

        if (observer)
                observer->changed(node, observer->userdata);
}

void tree_tell_limited(Directory *directory) {
        const TreeObserver *observer = observer_of(directory);

        if (observer)
                observer->limited(directory, observer->userdata);
}

void tree_announce(Node *node) {
        const TreeObserver *observer = observer_of(node->parent);
        bool again = node->announced;

        node->announced = true;
        if (observer)
                (again ? observer->replaced : observer->made)(node, observer->userdata);
}

static void tell_removed(Node *node) {
        const TreeObserver *observer = observer_of(node->parent);

        if (observer && node->announced)
                observer->removed(node, observer->userdata);
}

static void tell_overwritten(Node *node) {
        const TreeObserver *observer = observer_of(node->parent);

        if (observer)
                observer->overwritten(node, observer->userdata);
}

static void tell_moved(const TreeMove *move) {
        const TreeObserver *observer = observer_of(move->from);

        if (observer)
                observer->moved(move, observer->userdata);
}

/* -- directories ---------------------------------------------------------------------- */

static int seed_compare(const Directory *a, const Directory *b) {
        return a->seed < b->seed ? -1 : a->seed > b->seed;
}

TREE_GENERATE(AstrayTree, Directory, astray, seed_compare)

/* Notes that a directory has, with what is in it, a seed that another one would get where it was made; or not
 * any more. */
static void directory_stray(Directory *directory, bool astray) {
        struct AstrayTree *all = &directory->tree->astray;

        if (directory->is_astray == astray)
                return;
        if (astray)
                (void)RB_INSERT(AstrayTree, all, directory);
        else
                (void)RB_REMOVE(AstrayTree, all, directory);
        directory->is_astray = astray;
}

static Directory *directory_free(Directory *directory) {
        if (!directory)
                return NULL;
        ASSERT(!directory->children);
        if (directory->node.parent)
                child_end(&directory->node);
        directory_stray(directory, false);
        list_unlink(&directory->ruled);
        node_deinit(&directory->node);
        charge_release(&directory->charge);
        directory->account = account_unref(directory->account);
        permissions_deinit(&directory->permissions);
        default_acl_deinit(&directory->default_acl);
        pool_give(&directory->tree->directories, directory);
        return NULL;
}

DEFINE_CLEANUP(Directory, directory_free);

static int directory_new(Directory **ret, Tree *tree, Directory *parent, const char *name, size_t n,
                         const Permissions *permissions) {
        CLEANUP(directory_freep) Directory *directory = NULL;
        int r;

        r = node_table_reserve(&tree->nodes);
        if (r)
                return error_fold(r);
        directory = pool_take(&tree->directories);
        if (!directory)
                return error_origin(-ENOMEM);

        *directory = (Directory){
                .tree = tree,
                .permissions = permissions_copy(permissions),
                .created_ns = time_wall(),
                .charge = CHARGE_NULL,
        };
        list_init(&directory->ruled);
        r = node_init(&directory->node, NULL, name, n);
        if (r)
                return error_fold(r);

        r = account_new_directory(&directory->account, parent ? parent->account : NULL);
        if (r)
                return error_fold(r);

        *ret = directory;
        directory = NULL;
        return 0;
}

int tree_init(Tree *tree, const Permissions *root) {
        SipKey key;
        int r;

        *tree = (Tree){ .n_directories = 1, .last_directory = SAVED_ROOT };
        list_init(&tree->ruled);
        RB_INIT(&tree->astray);
        r = secret_draw((uint8_t *)&key, sizeof(key));
        if (!r)
                r = node_table_init(&tree->nodes, &key);
        explicit_bzero(&key, sizeof(key));
        if (r)
                return error_fold(r);
        pool_init(&tree->names, sizeof(Node));
        pool_init(&tree->directories, sizeof(Directory));
        r = directory_new(&tree->root, tree, NULL, "", 0, root);
        if (r)
                node_table_deinit(&tree->nodes);
        return r;
}

void tree_deinit(Tree *tree) {
        tree->root = directory_free(tree->root);
        ASSERT(tree->n_directories == 1);
        node_table_deinit(&tree->nodes);
        pool_deinit(&tree->directories);
        pool_deinit(&tree->names);
}

/* The seed that a directory gets at a spot: the hash of its name there, unless one that was moved away from there
 * has it. Two directories with one seed would have nodes with one hash, and whoever made them as many as he likes. */
static uint64_t seed_for(const Spot *spot) {
        Tree *tree = spot->parent->tree;
        Directory key = { .seed = spot_hash(spot) };

        if (RB_FIND(AstrayTree, &tree->astray, &key))
                return node_table_hash(&tree->nodes, ++tree->last_seed, "", 0);
        return key.seed;
}

/* A directory goes from its place to another one. */
static void directory_leave(Directory *directory) {
        directory_stray(directory, directory->n_children > 0);
}

/* It comes to a spot, where it may have been made once. */
static void directory_arrive(Directory *directory, const Spot *spot) {
        if (!directory->n_children)
                directory->seed = seed_for(spot);
        else if (directory->seed == spot_hash(spot))
                directory_stray(directory, false);
}

static void directory_insert(Tree *tree, const Spot *spot, Directory *directory) {
        directory->seed = seed_for(spot);
        child_insert(spot->parent, &directory->node, spot_hash(spot));
        ++tree->n_directories;
        counters_used(tree->counters, COUNTER_DIRECTORY, ++tree->last_directory);
        state_add(tree->state, &directory->node.record, STATE_DIRECTORY, tree->last_directory);
}

int tree_mkdir(Tree *tree, const Spot *spot, Account *owner, const Permissions *permissions,
               Shortage *shortage, Directory **ret) {
        CLEANUP(directory_freep) Directory *directory = NULL;
        Charge place = CHARGE_NULL;
        int r;

        ASSERT(spot->parent && !spot->node);

        r = directory_new(&directory, tree, spot->parent, spot->name, spot->n_name, permissions);
        if (r)
                return error_fold(r);
        r = account_charge(owner, &directory_cost, &directory->charge, shortage);
        if (!r)
                r = account_charge(spot->parent->account, &directory_cost, &place, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? TREE_E_QUOTA : error_fold(r);

        charge_forget(&place);
        directory_insert(tree, spot, directory);
        tree_announce(&directory->node);
        *ret = directory;
        directory = NULL;
        return 0;
}

int tree_mkdir_anyway(Tree *tree, const Spot *spot, Account *owner, const Permissions *permissions, Directory **ret) {
        Charge place = CHARGE_NULL;
        int r;

        ASSERT(spot->parent && !spot->node);

        r = directory_new(ret, tree, spot->parent, spot->name, spot->n_name, permissions);
        if (r)
                return error_fold(r);
        account_charge_anyway(owner, &directory_cost, &(*ret)->charge);
        account_charge_anyway(spot->parent->account, &directory_cost, &place);
        charge_forget(&place);
        directory_insert(tree, spot, *ret);
        return 0;
}

void directory_inherit(Directory *directory) {
        const DefaultAcl *from = &directory->node.parent->default_acl;

        permissions_inherit(&directory->permissions, from);
        default_acl_deinit(&directory->default_acl);
        directory->default_acl = default_acl_copy(from);
        state_touch(&directory->node.record);
}

int directory_chown(Directory *directory, Account *owner, Shortage *shortage) {
        int r = charge_move(&directory->charge, owner, shortage);

        state_touch(&directory->node.record);
        return r == ACCOUNT_E_QUOTA ? TREE_E_QUOTA : error_fold(r);
}

int tree_rmdir(Tree *tree, Directory *directory) {
        if (!directory->node.parent)
                return TREE_E_ROOT;
        if (directory->n_children)
                return TREE_E_NOT_EMPTY;
        tell_removed(&directory->node);
        (void)directory_free(directory);
        --tree->n_directories;
        return 0;
}

Node *directory_any_child(Directory *directory) {
        return directory->children;
}

/* -- names ---------------------------------------------------------------------------- */

static int name_new(const Spot *spot, Region *region, Node **ret) {
        Tree *tree = spot->parent->tree;
        Pool *pool = &tree->names;
        Node *node;
        int r;

        ASSERT(spot->parent && !spot->node);

        r = node_table_reserve(&tree->nodes);
        if (r)
                return error_fold(r);
        node = pool_take(pool);
        if (!node)
                return error_origin(-ENOMEM);
        r = node_init(node, region, spot->name, spot->n_name);
        if (r) {
                pool_give(pool, node);
                return error_fold(r);
        }
        *ret = node;
        return 0;
}

/* It is in no directory, or never was. */
static void name_free(Tree *tree, Node *node) {
        node_deinit(node);
        pool_give(&tree->names, node);
}

int tree_link(const Spot *spot, Region *region, Shortage *shortage, Node **ret) {
        Cost cost = region_place_cost(region);
        Charge place = CHARGE_NULL;
        Node *node;
        int r;

        r = name_new(spot, region, &node);
        if (r)
                return error_fold(r);
        r = account_charge(spot->parent->account, &cost, &place, shortage);
        if (r) {
                name_free(spot->parent->tree, node);
                return r == ACCOUNT_E_QUOTA ? TREE_E_QUOTA : error_fold(r);
        }
        charge_forget(&place);
        child_insert(spot->parent, node, spot_hash(spot));
        name_save(spot->parent->tree, node);

        *ret = node;
        return 0;
}

int tree_link_anyway(const Spot *spot, Region *region, Node **ret) {
        Cost cost = region_place_cost(region);
        Charge place = CHARGE_NULL;
        int r = name_new(spot, region, ret);

        if (r)
                return error_fold(r);
        account_charge_anyway(spot->parent->account, &cost, &place);
        charge_forget(&place);
        child_insert(spot->parent, *ret, spot_hash(spot));
        return 0;
}

int tree_replace(Node *node, Region *region, Shortage *shortage) {
        Charge place = place_of(node->parent, node);
        Cost cost = region_place_cost(region);
        int r;

        r = charge_change(&place, &cost, shortage);
        charge_forget(&place);
        if (r)
                return TREE_E_QUOTA;
        ring_remove(&node->region->names, &node->in_region);
        node->region = region;
        node->expiry = expiry_free(node->expiry);
        state_drop(&node->record);
        name_save(node->parent->tree, node);
        return 0;
}

void node_expire(Node *node, Expiry *expiry, uint64_t at) {
        ASSERT(node->region);
        node->expiry = expiry_free(node->expiry);
        if (expiry)
                expiry_start(expiry, node, at);
        node->expiry = expiry;
        state_touch(&node->record);
}

void tree_unlink(Node *node) {
        Tree *tree = node->parent->tree;

        ASSERT(node->region);
        tell_removed(node);
        child_end(node);
        name_free(tree, node);
}

/* Where a component of a path seems to lead: its hash, unless one of the directories above it came from elsewhere. */
typedef struct Step {
        uint64_t hash;
        const NodeBucket *bucket;
} Step;

/* Has what a path seems to lead to fetched from memory: all of it at once, instead of each directory when the one
 * above it is known. Nothing of that is looked at yet. */
static void look_ahead(const Tree *tree, const Name *name, Step steps[PATH_DEPTH_MAX]) {
        uint64_t seed = tree->root->seed;

        for (size_t i = 0; i < name->n; ++i) {
                seed = steps[i].hash = node_table_hash(&tree->nodes, seed, name->parts[i].text, name->parts[i].n);
                steps[i].bucket = node_table_fetch(&tree->nodes, seed);
        }
        for (size_t i = 0; i < name->n; ++i)
                node_bucket_fetch(steps[i].bucket, steps[i].hash);
}

int tree_resolve(Tree *tree, const Credentials *who, const void *path, size_t n, Spot *ret) {
        uint64_t seed = tree->root->seed;
        Step steps[PATH_DEPTH_MAX];
        size_t above = 1;
        Name name;

        *ret = (Spot){ .path = path, .n_path = n, .decided = n };
        if (name_init(&name, path, n, &ret->name_error))
                return TREE_E_NAME;
        ret->node = &tree->root->node;
        look_ahead(tree, &name, steps);

        for (size_t i = 0; i < name.n; ++i) {
                const NamePart *part = &name.parts[i];
                Directory *directory;

                /* Right before existence: the directory decides before what is in it is looked at. */
                ret->decided = above;
                if (!node_is_directory(ret->node))
                        return TREE_E_NOT_DIRECTORY;
                directory = node_directory(ret->node);
                if (!access_allows(who, &directory->permissions, ACCESS_SEARCH))
                        return TREE_E_DENIED;

                ret->decided = above = part->end;
                ret->parent = directory;
                ret->name = part->text;
                ret->n_name = part->n;
                ret->hash = steps[i].hash;
                if (directory->seed == seed) {
                        ret->node = node_bucket_find(steps[i].bucket, ret->hash, directory, part->text, part->n);
                } else {
                        ret->hash = child_hash(directory, part->text, part->n);
                        ret->node = node_table_find(&tree->nodes, ret->hash, directory, part->text, part->n);
                }
                ret->seed = directory->seed;
                ret->is_hashed = true;
                seed = steps[i].hash;
                if (!ret->node && !part->last)
                        return TREE_E_MISSING;
        }
        return 0;
}

int tree_find(Tree *tree, const Credentials *who, const void *path, size_t n, Spot *ret) {
        int r = tree_resolve(tree, who, path, n, ret);

        if (r)
                return r;
        return ret->node ? 0 : TREE_E_MISSING;
}

bool tree_may_find(const Node *node, const Credentials *who) {
        for (const Directory *above = node->parent; above; above = above->node.parent)
                if (!access_allows(who, &above->permissions, ACCESS_SEARCH))
                        return false;
        return true;
}

int tree_may_change(const Spot *spot, const Credentials *who, bool *ret_sticky) {
        *ret_sticky = false;
        if (!spot->parent)
                return TREE_E_ROOT;
        if (!access_allows(who, &spot->parent->permissions, ACCESS_WRITE | ACCESS_SEARCH))
                return TREE_E_DENIED;
        if (spot->node && !access_sticky_allows(who, &spot->parent->permissions, node_permissions(spot->node))) {
                *ret_sticky = true;
                return TREE_E_DENIED;
        }
        return 0;
}

size_t tree_path(const Node *node, char path[PATH_BYTES_MAX]) {
        const Node *chain[PATH_DEPTH_MAX];
        size_t n = 0, length = 0;

        for (; node->parent; node = &node->parent->node) {
                ASSERT(n < PATH_DEPTH_MAX);
                chain[n++] = node;
        }
        if (n == 0) {
                path[0] = '/';
                return 1;
        }
        while (n > 0) {
                const Node *part = chain[--n];

                ASSERT(length + 1 + part->n_name <= PATH_BYTES_MAX);
                path[length++] = '/';
                memcpy(path + length, node_name(part), part->n_name);
                length += part->n_name;
        }
        return length;
}

/* -- moving --------------------------------------------------------------------------- */

/* Nodes looked at to find out how deep a directory really is, when its bounds say too deep. */
#define MEASURE_MAX 4096

/* Whether `directory` is `node` or below it. */
static bool is_within(const Directory *directory, const Node *node) {
        for (; directory; directory = directory->node.parent)
                if (&directory->node == node)
                        return true;
        return false;
}

/* Adds what the path from base (not included) to the directory has. */
static void add_path(const Directory *base, const Directory *directory, size_t *levels, size_t *bytes) {
        for (; directory != base; directory = directory->node.parent) {
                ++*levels;
                *bytes += 1U + directory->node.n_name;
        }
}

static bool bounds_fit(const Tree *tree, const Node *node, const Spot *to) {
        size_t levels = 1, bytes = 1 + to->n_name;

        add_path(tree->root, to->parent, &levels, &bytes);
        if (node_is_directory(node)) {
                levels += ((const Directory *)node)->levels;
                bytes += ((const Directory *)node)->bytes;
        }
        return levels <= PATH_DEPTH_MAX && bytes <= PATH_BYTES_MAX;
}

/* Finds the true bounds of a directory; one with too much below it keeps what it has. */
static void measure(Directory *directory) {
        static const Credentials all = { .admin = true };
        size_t most_levels = 0, most_bytes = 0, n = 0;

        for (Node *node = tree_list_first(directory); node; node = tree_list_next(directory, &all, true, node)) {
                size_t levels = 1, bytes = 1U + node->n_name;

                if (++n > MEASURE_MAX)
                        return;
                add_path(directory, node->parent, &levels, &bytes);
                most_levels = levels > most_levels ? levels : most_levels;
                most_bytes = bytes > most_bytes ? bytes : most_bytes;
        }
        directory->levels = (uint8_t)most_levels;
        directory->bytes = (uint16_t)most_bytes;
}

/* Whether every path below the node stays within the limits of names. */
static bool fits(const Tree *tree, Node *node, const Spot *to) {
        if (bounds_fit(tree, node, to))
                return true;
        if (!node_is_directory(node))
                return false;
        measure(node_directory(node));
        return bounds_fit(tree, node, to);
}

static int check_over(const Spot *from, const Spot *to) {
        bool directory = node_is_directory(from->node);

        if (!node_is_directory(to->node))
                return directory ? TREE_E_NOT_DIRECTORY : 0;
        if (!directory)
                return TREE_E_IS_DIRECTORY;
        return node_directory(to->node)->n_children ? TREE_E_NOT_EMPTY : 0;
}

static int check_rename(const Tree *tree, const Spot *from, const Spot *to, TreeRename how) {
        int r;

        if (how == TREE_RENAME_FREE && to->node)
                return TREE_E_EXISTS;
        if (how == TREE_RENAME_EXCHANGE && !to->node)
                return TREE_E_MISSING;
        if (is_within(to->parent, from->node) ||
            (how == TREE_RENAME_EXCHANGE && is_within(from->parent, to->node)))
                return TREE_E_INSIDE;
        if (how == TREE_RENAME_REPLACE && to->node) {
                r = check_over(from, to);
                if (r)
                        return r;
        }
        if (!fits(tree, from->node, to) || (how == TREE_RENAME_EXCHANGE && !fits(tree, to->node, from)))
                return TREE_E_TOO_LONG;
        return 0;
}

/* What goes from one directory's account to another's with a node: its place, of which this is the receipt. */
static Load node_load(Node *node, Charge *place) {
        return (Load){
                .charge = place,
                .account = node_is_directory(node) ? node_directory(node)->account : NULL,
        };
}

/* A block for the name that a node is to get; NULL if it fits into the node. */
static int copy_name(const Spot *spot, char **ret) {
        *ret = NULL;
        if (spot->n_name <= NODE_TEXT)
                return 0;
        *ret = spare_take(spot->n_name);
        if (!*ret)
                return error_origin(-ENOMEM);
        memcpy(*ret, spot->name, spot->n_name);
        return 0;
}

/* Takes a node out of its directory, to be put at another spot. */
static void take_out(Node *node) {
        child_remove(node);
        if (node_is_directory(node))
                directory_leave(node_directory(node));
}

/* Puts a node that is in no directory at a spot; block: what copy_name() made for that. */
static void put_at(Node *node, const Spot *spot, char *block) {
        if (node->n_name > NODE_TEXT)
                spare_give(node->name.block, node->n_name);
        if (block)
                node->name.block = block;
        else
                memcpy(node->name.text, spot->name, spot->n_name);
        node->n_name = (uint8_t)spot->n_name;
        if (node_is_directory(node))
                directory_arrive(node_directory(node), spot);
        child_insert(spot->parent, node, spot_hash(spot));
        state_touch(&node->record);
}

/* Frees what another node is moved over; its place is given back already. Return: its region, NULL for a directory. */
static Region *overwrite(Tree *tree, Node *node) {
        Region *region = node->region;

        tell_overwritten(node);
        child_remove(node);
        if (region) {
                name_free(tree, node);
        } else {
                (void)directory_free(node_directory(node));
                --tree->n_directories;
        }
        return region;
}

static int move_over(Tree *tree, const Spot *from, const Spot *to, Shortage *shortage, Region **ret_replaced) {
        Charge place, instead = CHARGE_NULL;
        bool replaced = to->node;
        char *block;
        Load load;
        int r;

        r = copy_name(to, &block);
        if (r)
                return r;
        place = place_of(from->parent, from->node);
        load = node_load(from->node, &place);
        if (replaced)
                instead = place_of(to->parent, to->node);
        r = load_move(&load, to->parent->account, replaced ? &instead : NULL, shortage);
        charge_forget(&place);
        charge_forget(&instead);
        if (r) {
                spare_give(block, to->n_name);
                return TREE_E_QUOTA;
        }
        if (replaced)
                *ret_replaced = overwrite(tree, to->node);
        take_out(from->node);
        put_at(from->node, to, block);
        tell_moved(&(TreeMove){ .node = from->node, .from = from->parent, .name = from->name,
                                .n_name = from->n_name, .replaced = replaced });
        return 0;
}

static int exchange(const Spot *from, const Spot *to, Shortage *shortage) {
        Charge from_place = place_of(from->parent, from->node), to_place = place_of(to->parent, to->node);
        Load a = node_load(from->node, &from_place), b = node_load(to->node, &to_place);
        char *from_block, *to_block = NULL;
        int r;

        r = copy_name(from, &from_block);
        if (!r)
                r = copy_name(to, &to_block);
        if (!r && load_exchange(&a, &b, shortage))
                r = TREE_E_QUOTA;
        charge_forget(&from_place);
        charge_forget(&to_place);
        if (r) {
                spare_give(from_block, from->n_name);
                spare_give(to_block, to->n_name);
                return r;
        }
        take_out(from->node);
        take_out(to->node);
        put_at(from->node, to, to_block);
        put_at(to->node, from, from_block);
        tell_moved(&(TreeMove){ .node = from->node, .from = from->parent, .name = from->name,
                                .n_name = from->n_name, .other = to->node });
        return 0;
}

/* As rename(2) has it, a name moved to itself, or over another name of its region, is left as it is. */
static bool is_same(const Spot *from, const Spot *to, TreeRename how) {
        if (!to->node || from->node == to->node)
                return to->node;
        return how != TREE_RENAME_FREE && from->node->region && from->node->region == to->node->region;
}

int tree_rename(Tree *tree, const Spot *from, const Spot *to, TreeRename how,
                Shortage *shortage, Region **ret_replaced) {
        int r;

        *ret_replaced = NULL;
        if (!from->parent || !to->parent)
                return TREE_E_ROOT;
        if (is_same(from, to, how))
                return 0;
        r = check_rename(tree, from, to, how);
        if (!r)
                r = node_table_reserve(&tree->nodes);
        if (r)
                return r;
        if (how == TREE_RENAME_EXCHANGE)
                return exchange(from, to, shortage);
        return move_over(tree, from, to, shortage, ret_replaced);
}

int tree_may_move(const Tree *tree, const Spot *from, const Spot *to, Shortage *shortage) {
        Charge place;
        Load load;
        int r;

        if (!from->parent || !to->parent)
                return TREE_E_ROOT;
        if (is_same(from, to, TREE_RENAME_FREE))
                return 0;
        r = check_rename(tree, from, to, TREE_RENAME_FREE);
        if (r)
                return r;
        place = place_of(from->parent, from->node);
        load = node_load(from->node, &place);
        r = load_may_move(&load, to->parent->account, NULL, shortage) ? TREE_E_QUOTA : 0;
        charge_forget(&place);
        return r;
}

/* -- lists ---------------------------------------------------------------------------- */

static bool may_list(const Credentials *who, Node *node) {
        return node_is_directory(node) &&
               access_allows(who, &node_directory(node)->permissions, ACCESS_READ | ACCESS_SEARCH);
}

Node *tree_list_first(Directory *base) {
        return children_first(base->children);
}

/* The next sibling, or the next sibling of whatever is above, up to base. */
static Node *next_outside(const Directory *base, Node *node) {
        for (;;) {
                Directory *parent = node->parent;
                Node *next = children_next(parent->children, node);

                if (next)
                        return next;
                if (parent == base)
                        return NULL;
                node = &parent->node;
        }
}

Node *tree_list_next(Directory *base, const Credentials *who, bool recursive, Node *node) {
        if (recursive && may_list(who, node)) {
                Node *child = tree_list_first(node_directory(node));

                if (child)
                        return child;
        }
        return next_outside(base, node);
}

/* The first child that sorts after a component that is not there, or what follows the directory. */
static Node *next_after_missing(Directory *base, Directory *directory, const NamePart *part) {
        Node *next = children_after(directory->children, part->text, part->n);

        if (next)
                return next;
        return directory == base ? NULL : next_outside(base, &directory->node);
}

int tree_list_after(Directory *base, const Credentials *who, bool recursive,
                    const void *base_path, size_t n_base, const void *cursor, size_t n_cursor, Node **ret) {
        Directory *directory = base;
        Node *node = NULL;
        NamePart part;
        Name name;

        if (name_init(&name, cursor, n_cursor, NULL))
                return TREE_E_NAME;
        if (n_base == 1)
                n_base = 0;     /* the root's slash belongs to its children */
        if (n_cursor <= n_base + 1 || memcmp(cursor, base_path, n_base) || ((const char *)cursor)[n_base] != '/')
                return TREE_E_NAME;

        while (name_next(&name, &part)) {
                if (part.end <= n_base)
                        continue;       /* of base's own path */
                if (node) {
                        /* The cursor goes deeper than what is there now, or may be seen now. */
                        if (!recursive || !may_list(who, node))
                                break;
                        directory = node_directory(node);
                }
                node = directory_child(directory, part.text, part.n);
                if (!node) {
                        *ret = next_after_missing(base, directory, &part);
                        return 0;
                }
                if (part.last) {
                        *ret = tree_list_next(base, who, recursive, node);
                        return 0;
                }
        }
        *ret = next_outside(base, node);
        return 0;
}
