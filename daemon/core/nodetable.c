/* The table of nodes: see the header for the model. */

#include "core/nodetable.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "core/tree.h"
#include "util/area.h"
#include "util/error.h"
#include "util/word.h"

/* Buckets in an area, the most whose memory is given back at once. */
#define PIECE (AREA_BYTES / sizeof(NodeBucket))

/* NodeBucket.n of one that goes on in another line, which its last place is for. */
#define MORE (NODE_BUCKET_PLACES + 1)

/* Lines that are there before they are needed: one for each of two nodes, and as many as undoing a split may take. */
#define READY_FOR_NODES 2U
#define READY_FOR_SHRINKING 2U

/* -- lines ------------------------------------------------------------------------------ */

/* What a node's place says of its hash: not the bits that say which bucket, and never 0. */
static uint8_t tag_of(uint64_t hash) {
        uint8_t tag = (uint8_t)(hash >> 56);

        return tag ? tag : 1;
}

/* The places with that tag, as the top bits of the bytes of a word, the first in the lowest. Each byte is compared
 * by itself, without a carry into the next: exactly those are found. */
static uint64_t places_with(const NodeBucket *bucket, uint8_t tag) {
        const uint64_t low = WORD_OF(0x7f);
        uint64_t word = word_load(bucket) ^ WORD_OF(tag);

        return ~(((word & low) + low) | word | low) & ~(UINT64_C(0xff) << 56);
}

_Static_assert(offsetof(NodeBucket, n) == WORD_BYTES - 1, "the tags and it are the first word");

static Node *node_in(const NodeBucket *bucket, uint64_t places) {
        return bucket->places[__builtin_ctzll(places) / 8].node;
}

/* Nodes in this line itself. */
static unsigned int n_in(const NodeBucket *bucket) {
        return bucket->n == MORE ? MORE - 2 : bucket->n;
}

static NodeBucket *more_of(const NodeBucket *bucket) {
        return bucket->n == MORE ? bucket->places[NODE_BUCKET_PLACES - 1].more : NULL;
}

/* Return: 0, -ENOMEM. */
static int lines_get_ready(NodeTable *table, uint32_t n) {
        while (table->n_ready < n) {
                NodeBucket *line = pool_take(&table->lines);

                if (!line)
                        return error_origin(-ENOMEM);
                line->places[0].more = table->ready;
                table->ready = line;
                ++table->n_ready;
        }
        return 0;
}

static NodeBucket *line_take(NodeTable *table) {
        NodeBucket *line = table->ready;

        ASSERT(line);
        table->ready = line->places[0].more;
        --table->n_ready;
        *line = (NodeBucket){ .n = 0 };
        return line;
}

static void line_give(NodeTable *table, NodeBucket *line) {
        if (table->n_ready >= READY_FOR_NODES + READY_FOR_SHRINKING) {
                pool_give(&table->lines, line);
                return;
        }
        line->places[0].more = table->ready;
        table->ready = line;
        ++table->n_ready;
}

static void line_add(NodeBucket *line, Node *node, uint8_t tag) {
        line->tags[line->n] = tag;
        line->places[line->n++].node = node;
}

static void bucket_add(NodeTable *table, NodeBucket *bucket, Node *node, uint8_t tag) {
        const unsigned int last = NODE_BUCKET_PLACES - 1;
        NodeBucket *line;

        while (bucket->n == MORE)
                bucket = bucket->places[last].more;
        if (bucket->n < NODE_BUCKET_PLACES) {
                line_add(bucket, node, tag);
                return;
        }
        line = line_take(table);
        line_add(line, bucket->places[last].node, bucket->tags[last]);
        line_add(line, node, tag);
        bucket->tags[last] = 0;
        bucket->places[last].more = line;
        bucket->n = MORE;
}

/* Where the node is in the line; n_in(): it is not. */
static unsigned int place_of(const NodeBucket *line, const Node *node) {
        unsigned int at = 0;

        while (at < n_in(line) && line->places[at].node != node)
                ++at;
        return at;
}

/* Takes the node at a place of one of the bucket's lines out, and puts the last one there. */
static void bucket_remove(NodeTable *table, NodeBucket *bucket, NodeBucket *line, unsigned int at) {
        NodeBucket *before = NULL, *last = bucket;

        for (; last->n == MORE; last = more_of(last))
                before = last;
        --last->n;
        line->places[at] = last->places[last->n];
        line->tags[at] = last->tags[last->n];
        last->tags[last->n] = 0;
        if (before && last->n == 1) {
                before->n = NODE_BUCKET_PLACES - 1;
                line_add(before, last->places[0].node, last->tags[0]);
                line_give(table, last);
        }
}

/* -- buckets ---------------------------------------------------------------------------- */
/* The highest power of two that is not above n, which is not 0. */
static uint32_t highest_power(uint32_t n) {
        return UINT32_C(1) << (31 - __builtin_clz(n));
}

/* Those of the first segment count as the upper half of as many. */
static unsigned int segment_of(uint32_t bucket) {
        const uint32_t half = NODE_TABLE_LEAST / 2;

        return (unsigned int)(__builtin_clz(half) - __builtin_clz(bucket | half));
}

/* The first bucket of a segment, and how many it has. */
static uint32_t segment_begin(unsigned int segment) {
        return segment ? NODE_TABLE_LEAST << (segment - 1) : 0;
}

static uint32_t segment_size(unsigned int segment) {
        return segment ? segment_begin(segment) : NODE_TABLE_LEAST;
}

static NodeBucket *bucket_at(const NodeTable *table, uint32_t bucket) {
        unsigned int segment = segment_of(bucket);

        return &table->segments[segment][bucket - segment_begin(segment)];
}

static NodeBucket *bucket_for(const NodeTable *table, uint32_t hash) {
        uint32_t power = highest_power(table->n_buckets), bucket = hash & (2 * power - 1);

        return bucket_at(table, bucket < table->n_buckets ? bucket : bucket - power);
}

/* Pages, so that no bucket lies in two lines. */
static void *pages_map(size_t n) {
        void *pages = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        return pages == MAP_FAILED ? NULL : pages;
}

static int segment_map(NodeTable *table, unsigned int segment) {
        size_t n = segment_size(segment) * sizeof(NodeBucket);

        table->segments[segment] = n < AREA_BYTES ? pages_map(n) : area_map(n, true);
        return table->segments[segment] ? 0 : error_origin(-ENOMEM);
}

static void segment_unmap(NodeTable *table, unsigned int segment) {
        if (table->segments[segment])
                area_unmap(table->segments[segment], segment_size(segment) * sizeof(NodeBucket));
        table->segments[segment] = NULL;
}

/* -- growth ----------------------------------------------------------------------------- */

/* Empties a bucket; each of its nodes goes to `high` if its hash has that bit, else to `low`, of which one may be the
 * bucket itself. A line is free before its nodes need any. */
static void deal(NodeTable *table, NodeBucket *bucket, uint32_t bit, NodeBucket *low, NodeBucket *high) {
        NodeBucket line = *bucket, *more;

        for (*bucket = (NodeBucket){ .n = 0 };; line = *more, line_give(table, more)) {
                for (unsigned int i = 0; i < n_in(&line); ++i) {
                        Node *node = line.places[i].node;

                        bucket_add(table, node->hash & bit ? high : low, node, line.tags[i]);
                }
                more = more_of(&line);
                if (!more)
                        return;
        }
}

/* Splits one bucket. That takes no more lines than the bucket had. */
static void grow(NodeTable *table) {
        uint32_t power = highest_power(table->n_buckets);
        unsigned int segment = segment_of(table->n_buckets);
        NodeBucket *low;

        if (segment == NODE_TABLE_SEGMENTS || (!table->segments[segment] && segment_map(table, segment)))
                return;
        low = bucket_at(table, table->n_buckets - power);
        deal(table, low, power, low, bucket_at(table, table->n_buckets));
        ++table->n_buckets;
}

/* Gives the memory of a piece, or of a segment, back that begins with this bucket. */
static void give_back(NodeTable *table, uint32_t bucket) {
        unsigned int segment = segment_of(bucket);

        if (bucket == segment_begin(segment))
                segment_unmap(table, segment);
        else if (bucket % PIECE == 0)
                (void)madvise(bucket_at(table, bucket), PIECE * sizeof(NodeBucket), MADV_DONTNEED);
}

/* Undoes the latest split, unless there is no memory for the lines that may take. */
static void shrink(NodeTable *table) {
        uint32_t last = table->n_buckets - 1;
        NodeBucket *into = bucket_at(table, last - highest_power(last));

        if (lines_get_ready(table, READY_FOR_NODES + READY_FOR_SHRINKING))
                return;
        deal(table, bucket_at(table, last), 0, into, into);
        table->n_buckets = last;
        give_back(table, last);
}

/* -- nodes ------------------------------------------------------------------------------ */

int node_table_init(NodeTable *table, const SipKey *key) {
        *table = (NodeTable){ .key = *key, .n_buckets = NODE_TABLE_LEAST };
        pool_init(&table->lines, sizeof(NodeBucket));
        return segment_map(table, 0);
}

void node_table_deinit(NodeTable *table) {
        ASSERT(table->n == 0);
        while (table->n_ready > 0)
                pool_give(&table->lines, line_take(table));
        pool_deinit(&table->lines);
        for (unsigned int i = 0; i < NODE_TABLE_SEGMENTS; ++i)
                segment_unmap(table, i);
        explicit_bzero(&table->key, sizeof(table->key));
}

uint64_t node_table_hash(const NodeTable *table, uint64_t seed, const char *name, size_t n) {
        return siphash(&table->key, seed, name, n);
}

const NodeBucket *node_table_fetch(const NodeTable *table, uint64_t hash) {
        const NodeBucket *bucket = bucket_for(table, (uint32_t)hash);

        __builtin_prefetch(bucket);
        return bucket;
}

void node_bucket_fetch(const NodeBucket *bucket, uint64_t hash) {
        uint64_t places = places_with(bucket, tag_of(hash));

        if (places)
                __builtin_prefetch(node_in(bucket, places));
}

Node *node_bucket_find(const NodeBucket *bucket, uint64_t hash, const Directory *directory,
                       const char *name, size_t n) {
        for (uint8_t tag = tag_of(hash); bucket; bucket = more_of(bucket)) {
                for (uint64_t places = places_with(bucket, tag); places; places &= places - 1) {
                        Node *node = node_in(bucket, places);

                        if (node->hash == (uint32_t)hash && node->parent == directory && node->n_name == n &&
                            memcmp(node_name(node), name, n) == 0)
                                return node;
                }
        }
        return NULL;
}

Node *node_table_find(const NodeTable *table, uint64_t hash, const Directory *directory, const char *name, size_t n) {
        return node_bucket_find(bucket_for(table, (uint32_t)hash), hash, directory, name, n);
}

int node_table_reserve(NodeTable *table) {
        return lines_get_ready(table, READY_FOR_NODES);
}

static bool is_crowded(const NodeTable *table) {
        return table->n > (uint64_t)table->n_buckets * NODE_TABLE_LOAD;
}

static bool is_sparse(const NodeTable *table) {
        return table->n_buckets > NODE_TABLE_LEAST && table->n < (uint64_t)table->n_buckets * NODE_TABLE_LOAD / 2;
}

void node_table_insert(NodeTable *table, Node *node, uint64_t hash) {
        node->hash = (uint32_t)hash;
        ++table->n;
        if (is_crowded(table))
                grow(table);
        bucket_add(table, bucket_for(table, node->hash), node, tag_of(hash));
}

/* Its bucket's last node takes its place. */
void node_table_remove(NodeTable *table, Node *node) {
        NodeBucket *bucket = bucket_for(table, node->hash), *line = bucket;
        unsigned int at;

        while ((at = place_of(line, node)) == n_in(line)) {
                line = more_of(line);
                ASSERT(line);
        }
        bucket_remove(table, bucket, line, at);
        --table->n;
        for (int i = 0; i < 2 && is_sparse(table); ++i)
                shrink(table);
}
