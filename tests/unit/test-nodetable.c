/* daemon/core/nodetable: whatever is in it is found, and it grows and shrinks one bucket at a time. */

#include "daemon-house.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "buildinfo.h"
#include "util/area.h"

#define BUCKETS_IN_AN_AREA (AREA_BYTES / sizeof(Node *))

static const SipKey key = { .k = { UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210) } };
static Directory one = { .seed = 1 }, other = { .seed = 2 };

static NodeTable table_new(void) {
        NodeTable table;

        REQUIRE(node_table_init(&table, &key) == 0);
        return table;
}

/* The name of a number: its digits, and so none twice. */
static void name_it(Node *node, Directory *parent, size_t i) {
        char text[NODE_TEXT];

        node->parent = parent;
        node->n_name = (uint8_t)snprintf(text, sizeof(text), "%zu", i);
        memcpy(node->name.text, text, node->n_name);
}

static Node *nodes_new(size_t n) {
        Node *nodes = calloc(n, sizeof(*nodes));

        REQUIRE(nodes);
        for (size_t i = 0; i < n; ++i)
                name_it(&nodes[i], &one, i);
        return nodes;
}

static Node *find_text(const NodeTable *table, const Directory *parent, const char *text, size_t n) {
        return node_table_find(table, node_table_hash(table, parent->seed, text, n), parent, text, n);
}

static Node *find(const NodeTable *table, const Node *like) {
        return find_text(table, like->parent, like->name.text, like->n_name);
}

TEST(nodetable, a_node_is_found_by_its_directory_and_its_whole_name) {
        NodeTable table = table_new();
        Node nodes[3] = { { .n_name = 0 } };

        name_it(&nodes[0], &one, 12);
        name_it(&nodes[1], &other, 12);
        name_it(&nodes[2], &one, 123);
        for (size_t i = 0; i < 3; ++i) {
                cr_assert_null(find(&table, &nodes[i]));
                node_table_insert(&table, &nodes[i]);
        }
        for (size_t i = 0; i < 3; ++i)
                cr_assert_eq(find(&table, &nodes[i]), &nodes[i]);
        cr_assert_null(find_text(&table, &other, "123", 3));
        cr_assert_null(find_text(&table, &one, "1", 1));
        for (size_t i = 0; i < 3; ++i) {
                node_table_remove(&table, &nodes[i]);
                cr_assert_null(find(&table, &nodes[i]));
        }
        node_table_deinit(&table);
}

typedef struct Hashed {
        uint32_t hash;
        size_t i;
} Hashed;

static int by_hash(const void *a, const void *b) {
        const Hashed *x = a, *y = b;

        return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* Who knows the key finds names with the same hash: here all of a few hundred thousand. */
static size_t find_collisions(const NodeTable *table, Node *nodes, size_t n, Hashed *hashed) {
        size_t n_found = 0;

        for (size_t i = 0; i < n; ++i) {
                uint64_t hash = node_table_hash(table, one.seed, nodes[i].name.text, nodes[i].n_name);

                hashed[i] = (Hashed){ (uint32_t)hash, i };
        }
        qsort(hashed, n, sizeof(*hashed), by_hash);
        for (size_t i = 1; i < n; ++i) {
                if (hashed[i].hash == hashed[i - 1].hash) {
                        hashed[n_found++] = hashed[i - 1];
                        hashed[n_found++] = hashed[i];
                }
        }
        return n_found;
}

TEST(nodetable, names_with_the_same_hash_are_told_apart) {
        enum { N = 400000 };
        NodeTable table = table_new();
        Hashed *hashed = calloc(N, sizeof(*hashed));
        Node *nodes = nodes_new(N);
        size_t n;

        REQUIRE(hashed);
        n = find_collisions(&table, nodes, N, hashed);
        REQUIRE(n >= 10, "%zu", n);
        for (size_t i = 0; i < n; ++i)
                node_table_insert(&table, &nodes[hashed[i].i]);
        for (size_t i = 0; i < n; ++i)
                cr_assert_eq(find(&table, &nodes[hashed[i].i]), &nodes[hashed[i].i]);
        for (size_t i = 0; i < n; i += 2)
                node_table_remove(&table, &nodes[hashed[i].i]);
        for (size_t i = 0; i < n; ++i)
                cr_assert_eq(find(&table, &nodes[hashed[i].i]), i % 2 ? &nodes[hashed[i].i] : NULL);
        for (size_t i = 1; i < n; i += 2)
                node_table_remove(&table, &nodes[hashed[i].i]);
        node_table_deinit(&table);
        free(hashed);
        free(nodes);
}

TEST(nodetable, nodes_of_one_hash_and_two_directories_are_told_apart) {
        static Directory twin = { .seed = 1 };
        NodeTable table = table_new();
        Node nodes[2] = { { .n_name = 0 } };

        name_it(&nodes[0], &one, 7);
        name_it(&nodes[1], &twin, 7);
        for (size_t i = 0; i < 2; ++i)
                node_table_insert(&table, &nodes[i]);
        cr_assert_eq(nodes[0].hash, nodes[1].hash);
        for (size_t i = 0; i < 2; ++i)
                cr_assert_eq(find(&table, &nodes[i]), &nodes[i]);
        for (size_t i = 0; i < 2; ++i)
                node_table_remove(&table, &nodes[i]);
        node_table_deinit(&table);
}

/* That each bucket has those nodes that belong there. */
static void expect_sound(const NodeTable *table, const Node *nodes, size_t from, size_t to, size_t step) {
        for (size_t i = from; i < to; i += step)
                REQUIRE(find(table, &nodes[i]) == &nodes[i], "%zu of %zu", i, to);
}

TEST(nodetable, it_grows_by_one_bucket_with_each_node_and_shrinks_by_two) {
        enum { N = 20000 };
        NodeTable table = table_new();
        Node *nodes = nodes_new(N);

        for (size_t i = 0; i < N; ++i) {
                node_table_insert(&table, &nodes[i]);
                cr_assert_eq(table.n_buckets, i < NODE_TABLE_LEAST ? NODE_TABLE_LEAST : i + 1);
                if (i % 1000 == 0)
                        expect_sound(&table, nodes, 0, i + 1, 1);
        }
        for (size_t i = 0; i < N; ++i) {
                uint32_t before = table.n_buckets;

                node_table_remove(&table, &nodes[i]);
                cr_assert_leq(before - table.n_buckets, 2);
                cr_assert(table.n_buckets == NODE_TABLE_LEAST || table.n_buckets <= 2 * table.n + 1 ||
                          table.n >= N / 2);
                if (i % 1000 == 0)
                        expect_sound(&table, nodes, i + 1, N, 1);
        }
        cr_assert_eq(table.n_buckets, NODE_TABLE_LEAST);
        for (size_t i = 1; i < NODE_TABLE_SEGMENTS; ++i)
                cr_assert_null(table.segments[i]);
        node_table_deinit(&table);
        free(nodes);
}

TEST(nodetable, one_node_that_comes_and_goes_moves_no_bucket) {
        enum { N = 5000 };
        NodeTable table = table_new();
        Node *nodes = nodes_new(N);

        for (size_t i = 0; i < N; ++i)
                node_table_insert(&table, &nodes[i]);
        for (size_t i = 0; i < 100; ++i) {
                node_table_remove(&table, &nodes[i]);
                cr_assert_eq(table.n_buckets, N);
                node_table_insert(&table, &nodes[i]);
                cr_assert_eq(table.n_buckets, N);
        }
        for (size_t i = 0; i < N; ++i)
                node_table_remove(&table, &nodes[i]);
        node_table_deinit(&table);
        free(nodes);
}

/* Pages of a piece that are there. */
static size_t n_resident(void *piece) {
        unsigned char there[AREA_BYTES / 4096];
        size_t n = 0;

        REQUIRE(mincore(piece, AREA_BYTES, there) == 0);
        for (size_t i = 0; i < sizeof(there); ++i)
                n += there[i] & 1;
        return n;
}

TEST(nodetable, memory_that_many_nodes_took_is_given_back) {
        enum { N = 800000 };
        const unsigned int largest = 11;        /* from 524,288 on: two areas */
        NodeTable table = table_new();
        Node *nodes = nodes_new(N);
        size_t n = N;

        for (size_t i = 0; i < N; ++i)
                node_table_insert(&table, &nodes[i]);
        REQUIRE(table.segments[largest] && !table.segments[largest + 1]);
        expect_sound(&table, nodes, 0, N, 101);
        cr_assert_gt(n_resident(table.segments[largest] + BUCKETS_IN_AN_AREA), 0);

        while (table.n_buckets > 3 * BUCKETS_IN_AN_AREA)
                node_table_remove(&table, &nodes[--n]);
        cr_assert_eq(n_resident(table.segments[largest] + BUCKETS_IN_AN_AREA), 0);
        cr_assert_gt(n_resident(table.segments[largest]), 0);
        expect_sound(&table, nodes, 0, n, 101);

        while (table.n_buckets > 2 * BUCKETS_IN_AN_AREA)
                node_table_remove(&table, &nodes[--n]);
        cr_assert_null(table.segments[largest]);
        while (n < N)
                node_table_insert(&table, &nodes[n++]);
        expect_sound(&table, nodes, 0, N, 101);
        while (n > 0)
                node_table_remove(&table, &nodes[--n]);
        cr_assert_eq(table.n_buckets, NODE_TABLE_LEAST);
        node_table_deinit(&table);
        free(nodes);
}

#ifndef SHMD_SANITIZERS         /* they want memory of their own, and end without */

static int grow_without_memory(void *userdata) {
        enum { N = 300000 };
        Node *nodes = nodes_new(N);
        NodeTable table = table_new();

        house_deny(ENOMEM, SCMP_SYS(mmap), 0, NULL);
        for (size_t i = 0; i < N; ++i)
                node_table_insert(&table, &nodes[i]);
        REQUIRE(table.n_buckets <= BUCKETS_IN_AN_AREA, "%u", table.n_buckets);
        expect_sound(&table, nodes, 0, N, 1);
        for (size_t i = 0; i < N; ++i)
                node_table_remove(&table, &nodes[i]);
        REQUIRE(table.n_buckets == NODE_TABLE_LEAST);
        node_table_deinit(&table);
        free(nodes);
        return 0;
}

TEST(nodetable, without_memory_it_stays_as_large_as_it_is_and_goes_on) {
        house_expect_child(grow_without_memory, NULL);
}

#endif

/* Anything in any order, beside a list of what is in it. */
TEST(nodetable, any_order_of_coming_and_going_leaves_what_is_there) {
        enum { N = 4000 };
        uint64_t random = test_seed();
        NodeTable table = table_new();
        Node *nodes = nodes_new(N);
        bool *in = calloc(N, sizeof(*in));
        size_t n = 0;

        REQUIRE(in);
        for (size_t i = 0; i < N; i += 2)
                nodes[i].parent = &other;
        for (size_t round = test_rounds(100000); round > 0; --round) {
                /* It is rather full and rather empty in turns, so that it grows and shrinks. */
                size_t i = test_random(&random, N);
                bool come = test_random(&random, 10) < (round / 16384 % 2 ? 1 : 9);

                REQUIRE(find(&table, &nodes[i]) == (in[i] ? &nodes[i] : NULL));
                if (come == in[i])
                        continue;
                (come ? node_table_insert : node_table_remove)(&table, &nodes[i]);
                in[i] = come;
                n += come;
                n -= !come;
                REQUIRE(table.n == n);
        }
        for (size_t i = 0; i < N; ++i) {
                REQUIRE(find(&table, &nodes[i]) == (in[i] ? &nodes[i] : NULL));
                if (in[i])
                        node_table_remove(&table, &nodes[i]);
        }
        node_table_deinit(&table);
        free(nodes);
        free(in);
}
