/* The table of nodes: what a directory has under a component, without a search.
 *
 * One hash table for all directories of a tree: a node's hash is that of its name with its directory's seed.
 * Clients choose the names, so the hash has a key that was drawn at random and is told to nobody: nobody can
 * choose names that fall together, as long as no two directories have one seed (core/tree.c sees to that).
 *
 * A bucket is a line of the processor's cache: up to seven nodes, and of each a byte of its hash that does not
 * say which bucket it is in. All bytes are compared at once, so that a look-up goes to the bucket and then, but
 * for a few in a hundred, to the node it looks for and no other. Of a bucket that has more the last place leads to
 * another line. Those come from a pool, and are there before a node comes that may need one (node_table_reserve()).
 *
 * No operation takes long, however many nodes there are. The table grows by one bucket with each node that
 * is more than four for each bucket, and shrinks by two where there are less than two for each (linear
 * hashing: Litwin, "Linear hashing", VLDB 1980): with n buckets, those below n minus the highest power of
 * two in it are split already, and are the only ones that look at one bit more of the hash. Buckets lie in
 * segments, each as large as all before it. A segment is mapped when it is needed first, and gets its
 * memory page by page as it is touched; what is not needed any more is given back in pieces. If a segment
 * cannot be had, the table stays as it is, and its buckets get longer.
 */
#ifndef CORE_NODETABLE_H
#define CORE_NODETABLE_H

#include <stddef.h>
#include <stdint.h>

#include "util/pool.h"
#include "util/siphash.h"

typedef struct Directory Directory;
typedef struct Node Node;
typedef struct NodeBucket NodeBucket;
typedef struct NodeTable NodeTable;

/* Buckets of the first segment, which is there from the start: four pages of them. Where names come and go by the
 * hundred, none is mapped and unmapped with them. */
#define NODE_TABLE_LEAST 256U
#define NODE_TABLE_SEGMENTS 21

/* Nodes for each bucket, from which on the table grows. */
#define NODE_TABLE_LOAD 4U

#define NODE_BUCKET_PLACES 7U

struct NodeBucket {
        uint8_t tags[NODE_BUCKET_PLACES];       /* of its nodes; 0 where there is none */
        uint8_t n;                              /* its nodes; one more than its places: more in another line */
        union {
                Node *node;
                NodeBucket *more;               /* has two at least */
        } places[NODE_BUCKET_PLACES];
};

_Static_assert(sizeof(NodeBucket) == 64 || sizeof(void *) != 8, "a line");

struct NodeTable {
        NodeBucket *segments[NODE_TABLE_SEGMENTS];
        SipKey key;
        uint32_t n_buckets;
        uint32_t n_ready;
        uint64_t n;
        NodeBucket *ready;      /* lines for those to come */
        Pool lines;             /* but the first of each bucket */
};

/* Return: 0, -ENOMEM. */
int node_table_init(NodeTable *table, const SipKey *key);
/* Must be empty. */
void node_table_deinit(NodeTable *table);

/* The hash of a name in a directory with that seed. */
uint64_t node_table_hash(const NodeTable *table, uint64_t seed, const char *name, size_t n);

/* The bucket of a hash, until the next node comes or goes, which is being fetched from memory; and once that is there,
 * the node with that hash is. */
const NodeBucket *node_table_fetch(const NodeTable *table, uint64_t hash);
void node_bucket_fetch(const NodeBucket *bucket, uint64_t hash);

/* The node of that directory with that name and its hash, NULL: there is none. */
Node *node_table_find(const NodeTable *table, uint64_t hash, const Directory *directory, const char *name, size_t n);
Node *node_bucket_find(const NodeBucket *bucket, uint64_t hash, const Directory *directory,
                       const char *name, size_t n);

/* Makes sure that there is room for two nodes, whatever is removed before they come. Return: 0, -ENOMEM. */
int node_table_reserve(NodeTable *table);

/* The node has its parent and its name, no other with the same is in the table, and there is room for it. hash: of
 * that name in that directory. */
void node_table_insert(NodeTable *table, Node *node, uint64_t hash);
/* Is in the table, with the same parent and name as when it came. */
void node_table_remove(NodeTable *table, Node *node);

#endif
