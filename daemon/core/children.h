/* Children: the nodes of a directory in the byte order of their names, for lists.
 *
 * A treap: a search tree by name in which no node ranks above its parent, and the rank is the node's hash
 * in the table of nodes. That hash has a key nobody knows, so a tree is about as deep as one made in random
 * order, whoever chose the names and in whatever order they came (Seidel and Aragon, "Randomized search
 * trees", 1996): with n nodes 2 ln n in the mean, and hardly ever twice that. Two pointers a node are all
 * it takes, and no looking up goes by it.
 */
#ifndef CORE_CHILDREN_H
#define CORE_CHILDREN_H

#include <stddef.h>

typedef struct Node Node;

/* What a node has of it; it lives inside the node. */
typedef struct ChildLinks {
        Node *left;             /* names before its own */
        Node *right;
} ChildLinks;

/* The node is in the table of nodes, and no other child has its name. */
void children_insert(Node **root, Node *node);
/* Is among them, with the same name and hash as when it came. */
void children_remove(Node **root, Node *node);

Node *children_first(Node *root);
/* The one after a node that is among them, and the first after a name that need not be. NULL: none. */
Node *children_next(Node *root, const Node *node);
Node *children_after(Node *root, const char *name, size_t n);

#endif
