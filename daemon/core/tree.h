/* The tree of names.
 *
 * A node is a directory or a name of a region. Directories keep their children in the byte order
 * of their components, so that a list has a stable order and can go on after any name, whether
 * that name still exists or not. A directory pays for itself (its charge) and has an account of
 * its own, under its parent's; each name below it has its place charged there, a region with
 * several names once for each. The receipt of a place is not kept, as there are as many as names:
 * it is the parent's account and what the region, or a directory, costs, neither of which changes
 * but together with the charge. Moving a directory moves its account, with all that is in it.
 *
 * The tree decides who may look: tree_find() searches each directory on the way, and whoever may
 * not search one gets the same answer for names that exist and names that do not. It does not
 * decide who may change: tree_may_change() and the callers do.
 *
 * An observer is told of every change, so that names which go by themselves are told of like those
 * that somebody takes away. A name that was made and may have to be undone is announced only when
 * that is certain (tree_announce()); what was never announced goes in silence.
 *
 * A node does not own its region and is not owned by it: core/region.h ties the two.
 *
 * Among many names, looking one up is waiting for memory. All nodes but the root are in one hash
 * table, by their directory's seed and their name (core/nodetable.h); the order of a directory's
 * children stands beside it (core/children.h), and what is looked up does not go by that. The seed
 * of a directory is, as a rule, the hash of its own name, so that all hashes on a path are known
 * from the path alone, and what they lead to is fetched at the same time: then each directory is
 * asked for its permission and each name compared, as ever. What was moved with something in it
 * keeps its seed, and what is made in its old place gets another one; there a look-up waits at each
 * step, and finds the same.
 */
#ifndef CORE_TREE_H
#define CORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "acct/account.h"
#include "base/tree.h"
#include "core/access.h"
#include "core/children.h"
#include "core/expiry.h"
#include "core/name.h"
#include "core/nodetable.h"
#include "core/state.h"
#include "util/pool.h"

enum {
        _TREE_E_SUCCESS,
        TREE_E_NAME,            /* the path breaks a rule of names: spot->name_error */
        TREE_E_MISSING,         /* a directory on the way, or for tree_find() the name, does not exist */
        TREE_E_DENIED,          /* no search permission: spot->decided bytes of the path name the directory */
        TREE_E_NOT_DIRECTORY,   /* a region where a directory should be: likewise */
        TREE_E_EXISTS,
        TREE_E_NOT_EMPTY,
        TREE_E_ROOT,            /* not possible with the root */
        TREE_E_QUOTA,
        TREE_E_IS_DIRECTORY,    /* a directory where a region should be */
        TREE_E_INSIDE,          /* a directory cannot go below itself */
        TREE_E_TOO_LONG,        /* what is below it would have too long or too deep a path */
};

typedef enum TreeRename {
        TREE_RENAME_FREE,       /* the new name must be free */
        TREE_RENAME_REPLACE,    /* a region, or an empty directory, that has it loses it */
        TREE_RENAME_EXCHANGE,   /* the two change places */
} TreeRename;

typedef struct Counters Counters;
typedef struct Directory Directory;
typedef struct Node Node;
typedef struct Region Region;
typedef struct Spot Spot;
typedef struct Tree Tree;
typedef struct TreeMove TreeMove;
typedef struct TreeObserver TreeObserver;

/* Bytes of a name that lie inside the node; a longer one is a block of its own. */
#define NODE_TEXT 32

/* First what a look-up looks at: a cache line, and the next one has the rest. */
struct Node {
        uint32_t hash;          /* in Tree.nodes */
        uint8_t n_name;
        bool announced;         /* the observer knows of it */
        Directory *parent;      /* NULL for the root */
        Region *region;         /* NULL for a directory */
        union {
                char text[NODE_TEXT];
                char *block;
        } name;                 /* node_name() */
        ChildLinks links;       /* in Directory.children */
        List in_region;         /* in Region.names, the oldest first */
        StateRecord record;     /* of a region's name: its number grows with each region that it comes to stand for */
        Ring watches;           /* core/event: who watches it */
        Expiry *expiry;         /* a region's name that ends by itself; NULL: it does not. Owned */
};
_Static_assert(sizeof(void *) != 8 || sizeof(Node) == 128, "two cache lines, as it begins with one in its pool");

/* What a directory can limit: bytes and regions, the first two slots. */
#define DIRECTORY_SLOTS (ACCOUNT_REGIONS + 1)

struct Directory {
        Node node;
        Permissions permissions;
        uint64_t seed;          /* of the hashes of what is in it */
        Tree *tree;
        DefaultAcl default_acl;
        Node *children;
        uint64_t n_children;
        uint64_t created_ns;    /* CLOCK_REALTIME */
        Account *account;       /* of what is named below it */
        Charge charge;          /* its owner's, for itself */
        uint64_t changed;       /* core/event: the event that made, moved or opened it last */
        /* Levels and bytes that the deepest and the longest path below it add; never too low. */
        uint8_t levels;
        bool is_astray;
        uint16_t bytes;
        RB_ENTRY(Directory) astray;     /* in Tree.astray */
        List ruled;             /* in Tree.ruled */
        uint64_t own_max[DIRECTORY_SLOTS];      /* its account's limits but for the policy's */
};

/* A rename that was done: what it did to `node`, and with an exchange to `other` as well. */
struct TreeMove {
        Node *node;
        Directory *from;        /* where it was ... */
        const char *name;       /* ... and under which name */
        size_t n_name;
        Node *other;            /* NULL: no exchange */
        bool replaced;          /* something had the new name */
};

/* Who is told of every change: of what goes, while it is still there, of everything else afterwards. */
struct TreeObserver {
        void (*made)(Node *node, void *userdata);
        void (*removed)(Node *node, void *userdata);
        void (*replaced)(Node *node, void *userdata);           /* it stands for another region */
        void (*moved)(const TreeMove *move, void *userdata);
        void (*overwritten)(Node *node, void *userdata);        /* it goes because another is moved over it */
        void (*changed)(Node *node, void *userdata);            /* owner, group, mode or an ACL */
        void (*limited)(Directory *directory, void *userdata);
        void *userdata;
};

RB_HEAD(AstrayTree, Directory);

struct Tree {
        const TreeObserver *observer;   /* NULL: none */
        Directory *root;
        State *state;           /* NULL: nothing is saved */
        Counters *counters;     /* likewise */
        uint64_t last_directory;
        uint64_t last_name;
        uint64_t n_directories; /* with the root */
        List ruled;             /* directories that the policy names: core/enact */
        NodeTable nodes;        /* all but the root */
        Pool names;             /* nodes of regions */
        Pool directories;
        struct AstrayTree astray;       /* directories that were moved with something in them, by seed */
        uint64_t last_seed;     /* of those that are no hash of a name */
};

/* Where a path leads: its parent directory and last component, and the node there if any. The
 * bytes are borrowed from the path. It stays as it was found: its hash belongs to its name. */
struct Spot {
        Directory *parent;      /* NULL for the root itself */
        const char *name;
        size_t n_name;
        Node *node;             /* NULL: free */
        uint64_t hash;          /* of that name in the parent ... */
        uint64_t seed;          /* ... when that had this seed */
        bool is_hashed;
        const char *path;
        size_t n_path;
        size_t decided;         /* on errors: so many bytes of the path name what decided */
        PathError name_error;
};

static inline bool node_is_directory(const Node *node) {
        return !node->region;
}

static inline Directory *node_directory(Node *node) {
        return (Directory *)node;
}

static inline const char *node_name(const Node *node) {
        return node->n_name > NODE_TEXT ? node->name.block : node->name.text;
}

/* Makes the root. Return: 0, -ENOMEM, -EIO (no random bytes). */
int tree_init(Tree *tree, const Permissions *root);
/* Everything but the root must be gone. */
void tree_deinit(Tree *tree);

/* From now on directories and names are saved; so far there is the root alone. Room was made. */
void tree_save(Tree *tree, State *state, Counters *counters);
/* Owner, group, mode or an ACL of what the node stands for, or a directory's limits, were changed. */
void node_touch(Node *node);

/* Finds the place of a path, the last component of which need not exist.
 * Return: 0, TREE_E_NAME, TREE_E_MISSING, TREE_E_DENIED, TREE_E_NOT_DIRECTORY. */
int tree_resolve(Tree *tree, const Credentials *who, const void *path, size_t n, Spot *ret);

/* The same, and the node must exist. */
int tree_find(Tree *tree, const Credentials *who, const void *path, size_t n, Spot *ret);

/* Whether who may search every directory above a node, and so find it. */
bool tree_may_find(const Node *node, const Credentials *who);

/* Whether who may add a name at the spot, or take the one there away.
 * Return: 0, TREE_E_ROOT, TREE_E_DENIED with *ret_sticky telling whether the sticky bit decided. */
int tree_may_change(const Spot *spot, const Credentials *who, bool *ret_sticky);

/* Owner, group and mode of a node, a region's being the region's. */
const Permissions *node_permissions(const Node *node);

/* Tells the observer of a name: that it was made, or once it is known that its region is another one. */
void tree_announce(Node *node);

/* Tells the observer that owner, group, mode or an ACL of a node have changed, or a directory's limits. */
void tree_tell_changed(Node *node);
void tree_tell_limited(Directory *directory);

/* Makes a directory at a free spot and announces it, charged to owner and to the directories above it, with a copy of
 * those permissions; that a default ACL has its say is directory_inherit()'s.
 * Return: 0, TREE_E_QUOTA (*shortage says where), -ENOMEM. */
int tree_mkdir(Tree *tree, const Spot *spot, Account *owner, const Permissions *permissions,
               Shortage *shortage, Directory **ret);

/* Was made a moment ago: takes its ACLs from the default ACL of the directory it is in. */
void directory_inherit(Directory *directory);

/* The same without asking any limit, for what a policy names; not announced. Return: 0, -ENOMEM. */
int tree_mkdir_anyway(Tree *tree, const Spot *spot, Account *owner, const Permissions *permissions, Directory **ret);

/* Moves what the directory costs its owner to another account. Return: 0, TREE_E_QUOTA. */
int directory_chown(Directory *directory, Account *owner, Shortage *shortage);

/* Removes an empty directory that is not the root. Return: 0, TREE_E_ROOT, TREE_E_NOT_EMPTY. */
int tree_rmdir(Tree *tree, Directory *directory);

/* Makes a name for a region at a free spot, which is not announced, and charges its place.
 * Return: 0, TREE_E_QUOTA, -ENOMEM. */
int tree_link(const Spot *spot, Region *region, Shortage *shortage, Node **ret);

/* The same without asking any limit, for a name that was there before a restart. Return: 0, -ENOMEM. */
int tree_link_anyway(const Spot *spot, Region *region, Node **ret);

/* What is in the directory under that component; NULL: nothing. */
Node *directory_child(Directory *directory, const char *name, size_t n);

/* Lets a region take a name over from another, which may have none left then; not announced.
 * Return: 0, TREE_E_QUOTA. */
int tree_replace(Node *node, Region *region, Shortage *shortage);

/* Lets the name of a region end at a time, with an expiry that is consumed; with NULL, not any more. A
 * moved name keeps its end, one that stands for another region loses it. */
void node_expire(Node *node, Expiry *expiry, uint64_t at);

/* Frees the name of a region. */
void tree_unlink(Node *node);

/* Moves the node at `from` to `to`. A directory that is replaced is freed; so is the name of a
 * region that is replaced, and *ret_replaced (else NULL) is that region. To itself, or over another
 * name of the same region, is nothing. What a full directory gets counts after what it loses.
 * Return: 0, TREE_E_EXISTS, TREE_E_MISSING (nothing to change places with), TREE_E_ROOT,
 * TREE_E_INSIDE, TREE_E_NOT_DIRECTORY (a directory over a region), TREE_E_IS_DIRECTORY (the
 * reverse), TREE_E_NOT_EMPTY, TREE_E_TOO_LONG, TREE_E_QUOTA, -ENOMEM. On every error nothing has
 * changed. */
int tree_rename(Tree *tree, const Spot *from, const Spot *to, TreeRename how,
                Shortage *shortage, Region **ret_replaced);

/* What tree_rename() to a free name would return; changes nothing. */
int tree_may_move(const Tree *tree, const Spot *from, const Spot *to, Shortage *shortage);

/* Writes the path of a node, without a NUL, into a buffer of PATH_BYTES_MAX bytes.
 * Return: its length. */
size_t tree_path(const Node *node, char path[PATH_BYTES_MAX]);

/* A list: the nodes of `base`, or with `recursive` of everything below it that `who` may list,
 * parents before children, in byte order. tree_list_after() finds the first after `cursor` (a
 * path below base; the node need not exist any more), tree_list_next() the one after a node.
 * NULL at the end. Return of tree_list_after(): 0, TREE_E_NAME when cursor is not below base. */
int tree_list_after(Directory *base, const Credentials *who, bool recursive,
                    const void *base_path, size_t n_base, const void *cursor, size_t n_cursor, Node **ret);
Node *tree_list_next(Directory *base, const Credentials *who, bool recursive, Node *node);
Node *tree_list_first(Directory *base);

/* Any child of the directory, NULL when it is empty: for taking the tree down. */
Node *directory_any_child(Directory *directory);

#endif
