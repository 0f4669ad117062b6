/* The table of nodes: what a directory has under a component, without a search.
 *
 * One hash table for all directories of a tree: a node's hash is that of its name with its directory's seed.
 * Clients choose the names, so the hash has a key that was drawn at random and is told to nobody: nobody can
 * choose names that fall together, as long as no two directories have one seed (core/tree.c sees to that).
 * Nodes of a bucket form a chain; a node keeps its hash, and other nodes of its chain are told apart by that
 * without a look at their names.
 *
 * No operation takes long, however many nodes there are. The table grows by one bucket with each node that
 * is more than there are buckets, and shrinks by two with each that is less than half of them (linear
 * hashing: Litwin, "Linear hashing", VLDB 1980): with n buckets, those below n minus the highest power of
 * two in it are split already, and are the only ones that look at one bit more of the hash. Buckets lie in
 * segments, each as large as all before it. A segment is mapped when it is needed first, and gets its
 * memory page by page as it is touched; what is not needed any more is given back in pieces. If a segment
 * cannot be had, the table stays as it is, and its chains get longer.
 */
#ifndef CORE_NODETABLE_H
#define CORE_NODETABLE_H

#include <stddef.h>
#include <stdint.h>

#include "util/siphash.h"

typedef struct Directory Directory;
typedef struct Node Node;
typedef struct NodeTable NodeTable;

/* Buckets of the first segment, which is there from the start: a page of them. */
#define NODE_TABLE_LEAST 512U
#define NODE_TABLE_SEGMENTS 23

struct NodeTable {
        Node **segments[NODE_TABLE_SEGMENTS];
        SipKey key;
        uint32_t n_buckets;
        uint64_t n;
};

/* Return: 0, -ENOMEM. */
int node_table_init(NodeTable *table, const SipKey *key);
/* Must be empty. */
void node_table_deinit(NodeTable *table);

/* The hash of a name in a directory with that seed. */
uint64_t node_table_hash(const NodeTable *table, uint64_t seed, const char *name, size_t n);

/* A node with that hash will be looked for in a moment: has its bucket fetched from memory, and once that is there
 * the first node in it. */
void node_table_fetch_bucket(const NodeTable *table, uint64_t hash);
void node_table_fetch_node(const NodeTable *table, uint64_t hash);

/* The node of that directory with that name and its hash, NULL: there is none. */
Node *node_table_find(const NodeTable *table, uint64_t hash, const Directory *directory, const char *name, size_t n);

/* The node has its parent and its name, and no other with the same is in the table. */
void node_table_insert(NodeTable *table, Node *node);
/* Is in the table, with the same parent and name as when it came. */
void node_table_remove(NodeTable *table, Node *node);

#endif
