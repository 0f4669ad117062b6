/* The tree of names: see the header for the model. */

#include "core/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "core/region.h"
#include "util/deadline.h"
#include "util/error.h"

static int node_compare(Node *a, Node *b) {
        return name_compare(a->name, a->n_name, b->name, b->n_name);
}

TREE_GENERATE(NodeTree, Node, entry, node_compare)

static Node *child_find(Directory *directory, const char *name, size_t n) {
        Node key = { .name = (char *)name, .n_name = (uint16_t)n };

        return RB_FIND(NodeTree, &directory->children, &key);
}

static void child_insert(Directory *directory, Node *node) {
        node->parent = directory;
        ASSERT(!RB_INSERT(NodeTree, &directory->children, node));
        ++directory->n_children;
}

static void child_remove(Node *node) {
        (void)RB_REMOVE(NodeTree, &node->parent->children, node);
        --node->parent->n_children;
        node->parent = NULL;
}

const Permissions *node_permissions(const Node *node) {
        return node->region ? &node->region->permissions : &((const Directory *)node)->permissions;
}

/* -- directories ---------------------------------------------------------------------- */

static const Cost directory_cost = { .slots = { [ACCOUNT_REGIONS] = 1 } };

static Directory *directory_free(Directory *directory) {
        if (!directory)
                return NULL;
        ASSERT(RB_EMPTY(&directory->children));
        if (directory->node.parent)
                child_remove(&directory->node);
        charge_release(&directory->place);
        charge_release(&directory->charge);
        directory->account = account_unref(directory->account);
        free(directory);
        return NULL;
}

DEFINE_CLEANUP(Directory, directory_free);

static int directory_new(Directory **ret, Directory *parent, const char *name, size_t n,
                         const Permissions *permissions) {
        CLEANUP(directory_freep) Directory *directory = NULL;
        int r;

        directory = malloc(sizeof(*directory) + n);
        if (!directory)
                return error_origin(-ENOMEM);

        *directory = (Directory){
                .permissions = *permissions,
                .created_ns = time_wall(),
                .charge = CHARGE_NULL,
                .place = CHARGE_NULL,
        };
        RB_INIT(&directory->children);
        directory->node.name = (char *)(directory + 1);
        directory->node.n_name = (uint16_t)n;
        memcpy(directory->node.name, name, n);

        r = account_new_directory(&directory->account, parent ? parent->account : NULL);
        if (r)
                return error_fold(r);

        *ret = directory;
        directory = NULL;
        return 0;
}

int tree_init(Tree *tree, const Permissions *root) {
        *tree = (Tree){ .n_directories = 1 };
        return directory_new(&tree->root, NULL, "", 0, root);
}

void tree_deinit(Tree *tree) {
        tree->root = directory_free(tree->root);
        ASSERT(tree->n_directories == 1);
}

int tree_mkdir(Tree *tree, const Spot *spot, Account *owner, const Permissions *permissions,
               Shortage *shortage, Directory **ret) {
        CLEANUP(directory_freep) Directory *directory = NULL;
        int r;

        ASSERT(spot->parent && !spot->node);

        r = directory_new(&directory, spot->parent, spot->name, spot->n_name, permissions);
        if (r)
                return error_fold(r);
        r = account_charge(owner, &directory_cost, &directory->charge, shortage);
        if (!r)
                r = account_charge(spot->parent->account, &directory_cost, &directory->place, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? TREE_E_QUOTA : error_fold(r);

        child_insert(spot->parent, &directory->node);
        ++tree->n_directories;
        *ret = directory;
        directory = NULL;
        return 0;
}

int directory_chown(Directory *directory, Account *owner, Shortage *shortage) {
        Charge charge = CHARGE_NULL;
        int r;

        if (directory->charge.account == owner)
                return 0;
        r = account_charge(owner, &directory_cost, &charge, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? TREE_E_QUOTA : error_fold(r);
        charge_release(&directory->charge);
        directory->charge = charge;
        return 0;
}

int tree_rmdir(Tree *tree, Directory *directory) {
        if (!directory->node.parent)
                return TREE_E_ROOT;
        if (directory->n_children)
                return TREE_E_NOT_EMPTY;
        (void)directory_free(directory);
        --tree->n_directories;
        return 0;
}

Node *directory_any_child(Directory *directory) {
        return RB_ROOT(&directory->children);
}

/* -- names ---------------------------------------------------------------------------- */

int tree_link(const Spot *spot, Region *region, Node **ret) {
        Node *node;

        ASSERT(spot->parent && !spot->node);

        node = malloc(sizeof(*node) + spot->n_name);
        if (!node)
                return error_origin(-ENOMEM);
        *node = (Node){ .region = region, .name = (char *)(node + 1), .n_name = (uint16_t)spot->n_name };
        memcpy(node->name, spot->name, spot->n_name);
        child_insert(spot->parent, node);

        *ret = node;
        return 0;
}

void tree_replace(Node *node, Region *region) {
        ASSERT(node->region && region);
        node->region = region;
}

void tree_unlink(Node *node) {
        ASSERT(node->region);
        child_remove(node);
        free(node);
}

int tree_resolve(Tree *tree, const Credentials *who, const void *path, size_t n, Spot *ret) {
        Directory *directory = tree->root;
        NamePart part;
        Name name;

        *ret = (Spot){ .path = path, .n_path = n, .decided = n };
        if (name_init(&name, path, n, &ret->name_error))
                return TREE_E_NAME;
        ret->node = &tree->root->node;

        for (size_t above = 1; name_next(&name, &part); above = part.end) {
                /* Right before existence: the directory decides before what is in it is looked at. */
                ret->decided = above;
                if (!node_is_directory(ret->node))
                        return TREE_E_NOT_DIRECTORY;
                directory = node_directory(ret->node);
                if (!access_allows(who, &directory->permissions, ACCESS_SEARCH))
                        return TREE_E_DENIED;

                ret->decided = part.end;
                ret->parent = directory;
                ret->name = part.text;
                ret->n_name = part.n;
                ret->node = child_find(directory, part.text, part.n);
                if (!ret->node && !part.last)
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
                memcpy(path + length, part->name, part->n_name);
                length += part->n_name;
        }
        return length;
}

/* -- lists ---------------------------------------------------------------------------- */

static bool may_list(const Credentials *who, Node *node) {
        return node_is_directory(node) &&
               access_allows(who, &node_directory(node)->permissions, ACCESS_READ | ACCESS_SEARCH);
}

Node *tree_list_first(Directory *base) {
        return RB_MIN(NodeTree, &base->children);
}

/* The next sibling, or the next sibling of whatever is above, up to base. */
static Node *next_outside(const Directory *base, Node *node) {
        for (;;) {
                Directory *parent = node->parent;
                Node *next = RB_NEXT(NodeTree, &parent->children, node);

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
        Node key = { .name = (char *)part->text, .n_name = (uint16_t)part->n };
        Node *next = RB_NFIND(NodeTree, &directory->children, &key);

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
        name.at = n_base + 1;

        while (name_next(&name, &part)) {
                if (node) {
                        /* The cursor goes deeper than what is there now, or may be seen now. */
                        if (!recursive || !may_list(who, node))
                                break;
                        directory = node_directory(node);
                }
                node = child_find(directory, part.text, part.n);
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
