/* The table of nodes: see the header for the model. */

#include "core/nodetable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "core/tree.h"
#include "util/area.h"
#include "util/error.h"

/* Buckets in an area, the most whose memory is given back at once. */
#define PIECE (AREA_BYTES / sizeof(Node *))

/* -- buckets ---------------------------------------------------------------------------- */

/* The highest power of two that is not above n, which is not 0. */
static uint32_t highest_power(uint32_t n) {
        return UINT32_C(1) << (31 - __builtin_clz(n));
}

static unsigned int segment_of(uint32_t bucket) {
        if (bucket < NODE_TABLE_LEAST)
                return 0;
        return 1 + (unsigned int)__builtin_ctz(highest_power(bucket) / NODE_TABLE_LEAST);
}

/* The first bucket of a segment, and how many it has. */
static uint32_t segment_begin(unsigned int segment) {
        return segment ? NODE_TABLE_LEAST << (segment - 1) : 0;
}

static uint32_t segment_size(unsigned int segment) {
        return segment ? segment_begin(segment) : NODE_TABLE_LEAST;
}

static Node **bucket_at(const NodeTable *table, uint32_t bucket) {
        unsigned int segment = segment_of(bucket);

        return &table->segments[segment][bucket - segment_begin(segment)];
}

static Node **bucket_for(const NodeTable *table, uint32_t hash) {
        uint32_t power = highest_power(table->n_buckets), bucket = hash & (2 * power - 1);

        return bucket_at(table, bucket < table->n_buckets ? bucket : bucket - power);
}

static int segment_map(NodeTable *table, unsigned int segment) {
        size_t n = segment_size(segment) * sizeof(Node *);

        table->segments[segment] = n < AREA_BYTES ? calloc(1, n) : area_map(n, true);
        return table->segments[segment] ? 0 : error_origin(-ENOMEM);
}

static void segment_unmap(NodeTable *table, unsigned int segment) {
        size_t n = segment_size(segment) * sizeof(Node *);

        if (n < AREA_BYTES)
                free(table->segments[segment]);
        else if (table->segments[segment])
                area_unmap(table->segments[segment], n);
        table->segments[segment] = NULL;
}

/* -- growth ----------------------------------------------------------------------------- */

/* Splits one bucket. */
static void grow(NodeTable *table) {
        uint32_t power = highest_power(table->n_buckets);
        unsigned int segment = segment_of(table->n_buckets);
        Node **from, **to;

        if (segment == NODE_TABLE_SEGMENTS || (!table->segments[segment] && segment_map(table, segment)))
                return;
        from = bucket_at(table, table->n_buckets - power);
        to = bucket_at(table, table->n_buckets);
        while (*from) {
                Node *node = *from;

                if (node->hash & power) {
                        *from = node->next;
                        node->next = *to;
                        *to = node;
                } else {
                        from = &node->next;
                }
        }
        ++table->n_buckets;
}

/* Gives the memory of a piece, or of a segment, back that begins with this bucket. */
static void give_back(NodeTable *table, uint32_t bucket) {
        unsigned int segment = segment_of(bucket);

        if (bucket == segment_begin(segment))
                segment_unmap(table, segment);
        else if (bucket % PIECE == 0)
                (void)madvise(bucket_at(table, bucket), PIECE * sizeof(Node *), MADV_DONTNEED);
}

/* Undoes the latest split. */
static void shrink(NodeTable *table) {
        uint32_t last = table->n_buckets - 1;
        Node **from = bucket_at(table, last), **to = bucket_at(table, last - highest_power(last)), **end;

        for (end = to; *end; end = &(*end)->next)
                ;
        *end = *from;
        *from = NULL;
        table->n_buckets = last;
        give_back(table, last);
}

/* -- nodes ------------------------------------------------------------------------------ */

int node_table_init(NodeTable *table, const SipKey *key) {
        *table = (NodeTable){ .key = *key, .n_buckets = NODE_TABLE_LEAST };
        return segment_map(table, 0);
}

void node_table_deinit(NodeTable *table) {
        ASSERT(table->n == 0);
        for (unsigned int i = 0; i < NODE_TABLE_SEGMENTS; ++i)
                segment_unmap(table, i);
        explicit_bzero(&table->key, sizeof(table->key));
}

uint64_t node_table_hash(const NodeTable *table, uint64_t seed, const char *name, size_t n) {
        return siphash(&table->key, seed, name, n);
}

void node_table_fetch_bucket(const NodeTable *table, uint64_t hash) {
        __builtin_prefetch(bucket_for(table, (uint32_t)hash));
}

void node_table_fetch_node(const NodeTable *table, uint64_t hash) {
        __builtin_prefetch(*bucket_for(table, (uint32_t)hash));
}

Node *node_table_find(const NodeTable *table, uint64_t hash, const Directory *directory, const char *name, size_t n) {
        for (Node *node = *bucket_for(table, (uint32_t)hash); node; node = node->next)
                if (node->hash == (uint32_t)hash && node->parent == directory && node->n_name == n &&
                    memcmp(node_name(node), name, n) == 0)
                        return node;
        return NULL;
}

void node_table_insert(NodeTable *table, Node *node) {
        uint32_t hash = (uint32_t)node_table_hash(table, node->parent->seed, node_name(node), node->n_name);
        Node **bucket;

        if (++table->n > table->n_buckets)
                grow(table);
        bucket = bucket_for(table, hash);
        node->hash = hash;
        node->next = *bucket;
        *bucket = node;
}

void node_table_remove(NodeTable *table, Node *node) {
        Node **at = bucket_for(table, node->hash);

        while (*at != node) {
                ASSERT(*at);
                at = &(*at)->next;
        }
        *at = node->next;
        node->next = NULL;
        --table->n;
        for (int i = 0; i < 2 && table->n < table->n_buckets / 2 && table->n_buckets > NODE_TABLE_LEAST; ++i)
                shrink(table);
}
