/* Children: see the header for the model. */

#include "core/children.h"

#include <stdbool.h>

#include "base/assert.h"
#include "core/tree.h"

static bool is_before(const Node *a, const Node *b) {
        return name_compare(node_name(a), a->n_name, node_name(b), b->n_name) < 0;
}

static bool ranks_above(const Node *a, const Node *b) {
        return a->hash > b->hash;
}

void children_insert(Node **root, Node *node) {
        Node **at = root, **before, **after, *rest;

        while (*at && !ranks_above(node, *at))
                at = is_before(node, *at) ? &(*at)->links.left : &(*at)->links.right;

        /* It takes the place of a tree, and what was there goes to its two sides. */
        rest = *at;
        *at = node;
        before = &node->links.left;
        after = &node->links.right;
        while (rest) {
                if (is_before(rest, node)) {
                        *before = rest;
                        before = &rest->links.right;
                        rest = *before;
                } else {
                        *after = rest;
                        after = &rest->links.left;
                        rest = *after;
                }
        }
        *before = *after = NULL;
}

void children_remove(Node **root, Node *node) {
        Node **at = root, *left = node->links.left, *right = node->links.right;

        while (*at != node) {
                ASSERT(*at);
                at = is_before(node, *at) ? &(*at)->links.left : &(*at)->links.right;
        }
        /* Its two sides become one tree. */
        while (left && right) {
                if (ranks_above(left, right)) {
                        *at = left;
                        at = &left->links.right;
                        left = *at;
                } else {
                        *at = right;
                        at = &right->links.left;
                        right = *at;
                }
        }
        *at = left ? left : right;
        node->links = (ChildLinks){ .left = NULL };
}

Node *children_first(Node *root) {
        while (root && root->links.left)
                root = root->links.left;
        return root;
}

Node *children_next(Node *root, const Node *node) {
        if (node->links.right)
                return children_first(node->links.right);
        return children_after(root, node_name(node), node->n_name);
}

Node *children_after(Node *root, const char *name, size_t n) {
        Node *best = NULL;

        while (root) {
                if (name_compare(name, n, node_name(root), root->n_name) < 0) {
                        best = root;
                        root = root->links.left;
                } else {
                        root = root->links.right;
                }
        }
        return best;
}
