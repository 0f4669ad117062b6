/* daemon/core/nodetable: whatever is in it is found, and it grows and shrinks one bucket at a time. */

#include "daemon-house.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "buildinfo.h"
#include "util/area.h"

#define BUCKETS_IN_AN_AREA (AREA_BYTES / sizeof(NodeBucket))

static const SipKey key = { .k = { UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210) } };
static Directory one = { .seed = 1 }, other = { .seed = 2 };

static void table_open(NodeTable *table) {
        REQUIRE(node_table_init(table, &key) == 0);
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

/* If there is room, which is left then for another one as well. */
static bool insert_if(NodeTable *table, Node *node) {
        if (node_table_reserve(table))
                return false;
        node_table_insert(table, node, node_table_hash(table, node->parent->seed, node->name.text, node->n_name));
        return true;
}

static void insert(NodeTable *table, Node *node) {
        REQUIRE(insert_if(table, node));
}

static Node *find(const NodeTable *table, const Node *like) {
        return find_text(table, like->parent, like->name.text, like->n_name);
}

TEST(nodetable, a_node_is_found_by_its_directory_and_its_whole_name) {
        NodeTable table;
        Node nodes[3] = { { .n_name = 0 } };

        table_open(&table);
        name_it(&nodes[0], &one, 12);
        name_it(&nodes[1], &other, 12);
        name_it(&nodes[2], &one, 123);
        for (size_t i = 0; i < 3; ++i) {
                cr_assert_null(find(&table, &nodes[i]));
                insert(&table, &nodes[i]);
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
        NodeTable table;
        Hashed *hashed = calloc(N, sizeof(*hashed));
        Node *nodes = nodes_new(N);
        size_t n;

        table_open(&table);
        REQUIRE(hashed);
        n = find_collisions(&table, nodes, N, hashed);
        REQUIRE(n >= 10, "%zu", n);
        for (size_t i = 0; i < n; ++i)
                insert(&table, &nodes[hashed[i].i]);
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
        NodeTable table;
        Node nodes[2] = { { .n_name = 0 } };

        table_open(&table);
        name_it(&nodes[0], &one, 7);
        name_it(&nodes[1], &twin, 7);
        for (size_t i = 0; i < 2; ++i)
                insert(&table, &nodes[i]);
        cr_assert_eq(nodes[0].hash, nodes[1].hash);
        for (size_t i = 0; i < 2; ++i)
                cr_assert_eq(find(&table, &nodes[i]), &nodes[i]);
        for (size_t i = 0; i < 2; ++i)
                node_table_remove(&table, &nodes[i]);
        node_table_deinit(&table);
}

/* As many as go into a bucket and a few more, and back; they are found, whoever leaves. */
TEST(nodetable, a_bucket_may_have_more_nodes_than_fit_into_a_line) {
        enum { N = 40 };
        static Directory twins[N];
        uint64_t random = test_seed();
        NodeTable table;
        Node nodes[N] = { { .n_name = 0 } };
        bool in[N] = { false };

        table_open(&table);
        for (size_t i = 0; i < N; ++i) {
                twins[i].seed = 1;
                name_it(&nodes[i], &twins[i], 7);
        }
        for (size_t round = 0; round < 100; ++round) {
                size_t n_wanted = test_random(&random, N + 1);

                for (size_t i = 0, n = table.n; n != n_wanted; i = test_random(&random, N)) {
                        if (in[i] == (n < n_wanted))
                                continue;
                        (in[i] ? node_table_remove : insert)(&table, &nodes[i]);
                        n = n < n_wanted ? n + 1 : n - 1;
                        in[i] = !in[i];
                }
                cr_assert_eq(table.n, n_wanted);
                for (size_t i = 0; i < N; ++i)
                        REQUIRE(find(&table, &nodes[i]) == (in[i] ? &nodes[i] : NULL), "%zu of %zu", i, n_wanted);
        }
        for (size_t i = 0; i < N; ++i)
                if (in[i])
                        node_table_remove(&table, &nodes[i]);
        cr_assert_eq(table.lines.n, table.n_ready);
        node_table_deinit(&table);
}

TEST(nodetable, room_for_two_nodes_stays_whatever_is_removed) {
        enum { N = 30000 };
        NodeTable table;
        Node *nodes = nodes_new(N);

        table_open(&table);
        for (size_t i = 0; i < N; ++i)
                insert(&table, &nodes[i]);
        for (size_t i = N; i > 2; i -= 3) {
                cr_assert_eq(node_table_reserve(&table), 0);
                for (size_t k = 1; k <= 3; ++k)
                        node_table_remove(&table, &nodes[i - k]);
                cr_assert_geq(table.n_ready, 2);
        }
        cr_assert_eq(table.n, N % 3);
        cr_assert_eq(table.n_buckets, NODE_TABLE_LEAST);
        cr_assert_eq(table.lines.n, table.n_ready);
        node_table_deinit(&table);
        free(nodes);
}

/* That each bucket has those nodes that belong there. */
static void expect_sound(const NodeTable *table, const Node *nodes, size_t from, size_t to, size_t step) {
        for (size_t i = from; i < to; i += step)
                REQUIRE(find(table, &nodes[i]) == &nodes[i], "%zu of %zu", i, to);
}

/* The fewest that have no more nodes each than is usual. */
static uint32_t buckets_for(uint64_t n) {
        uint64_t n_buckets = (n + NODE_TABLE_LOAD - 1) / NODE_TABLE_LOAD;

        return n_buckets < NODE_TABLE_LEAST ? NODE_TABLE_LEAST : (uint32_t)n_buckets;
}

TEST(nodetable, it_grows_by_one_bucket_at_a_time_and_shrinks_by_two) {
        enum { N = 20000 };
        NodeTable table;
        Node *nodes = nodes_new(N);

        table_open(&table);
        for (size_t i = 0; i < N; ++i) {
                insert(&table, &nodes[i]);
                cr_assert_eq(table.n_buckets, buckets_for(i + 1));
                if (i % 1000 == 0)
                        expect_sound(&table, nodes, 0, i + 1, 1);
        }
        for (size_t i = 0; i < N; ++i) {
                uint32_t before = table.n_buckets;

                node_table_remove(&table, &nodes[i]);
                cr_assert_leq(before - table.n_buckets, 2);
                cr_assert(table.n_buckets <= 2 * buckets_for(table.n) || table.n >= N / 2);
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
        NodeTable table;
        Node *nodes = nodes_new(N);

        table_open(&table);
        for (size_t i = 0; i < N; ++i)
                insert(&table, &nodes[i]);
        for (size_t i = 0; i < 100; ++i) {
                node_table_remove(&table, &nodes[i]);
                cr_assert_eq(table.n_buckets, buckets_for(N));
                insert(&table, &nodes[i]);
                cr_assert_eq(table.n_buckets, buckets_for(N));
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
        const unsigned int largest = 10;        /* from 131,072 on: four areas */
        NodeTable table;
        Node *nodes = nodes_new(N);
        size_t n = N;

        table_open(&table);
        for (size_t i = 0; i < N; ++i)
                insert(&table, &nodes[i]);
        REQUIRE(table.segments[largest] && !table.segments[largest + 1]);
        expect_sound(&table, nodes, 0, N, 101);
        cr_assert_gt(n_resident(table.segments[largest] + BUCKETS_IN_AN_AREA), 0);

        while (table.n_buckets > 5 * BUCKETS_IN_AN_AREA)
                node_table_remove(&table, &nodes[--n]);
        cr_assert_eq(n_resident(table.segments[largest] + BUCKETS_IN_AN_AREA), 0);
        cr_assert_gt(n_resident(table.segments[largest]), 0);
        expect_sound(&table, nodes, 0, n, 101);

        while (table.n_buckets > 4 * BUCKETS_IN_AN_AREA)
                node_table_remove(&table, &nodes[--n]);
        cr_assert_null(table.segments[largest]);
        while (n < N)
                insert(&table, &nodes[n++]);
        expect_sound(&table, nodes, 0, N, 101);
        while (n > 0)
                node_table_remove(&table, &nodes[--n]);
        cr_assert_eq(table.n_buckets, NODE_TABLE_LEAST);
        node_table_deinit(&table);
        free(nodes);
}

#ifndef SHMD_SANITIZERS         /* they want memory of their own, and end without */

static int grow_without_memory(void *userdata) {
        enum { N = 800000 };
        Node *nodes = nodes_new(N);
        NodeTable table;
        size_t n = 0;

        table_open(&table);
        for (; n < N / 8; ++n)
                insert(&table, &nodes[n]);
        house_deny(ENOMEM, SCMP_SYS(mmap), 0, NULL);
        while (n < N && insert_if(&table, &nodes[n]))
                ++n;
        REQUIRE(table.n_buckets <= BUCKETS_IN_AN_AREA, "%u", table.n_buckets);
        REQUIRE(n > 2 * NODE_TABLE_LOAD * table.n_buckets && n < N, "%zu", n);
        expect_sound(&table, nodes, 0, n, 1);
        for (size_t i = 0; i < n; ++i)
                node_table_remove(&table, &nodes[i]);
        REQUIRE(table.n_buckets == NODE_TABLE_LEAST);
        node_table_deinit(&table);
        free(nodes);
        return 0;
}

TEST(nodetable, without_memory_it_stays_as_large_as_it_is_and_goes_on_while_there_is_room) {
        house_expect_child(grow_without_memory, NULL);
}

#endif

/* Anything in any order, beside a list of what is in it. */
TEST(nodetable, any_order_of_coming_and_going_leaves_what_is_there) {
        enum { N = 4000 };
        uint64_t random = test_seed();
        NodeTable table;
        Node *nodes = nodes_new(N);
        bool *in = calloc(N, sizeof(*in));
        size_t n = 0;

        table_open(&table);
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
                (come ? insert : node_table_remove)(&table, &nodes[i]);
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
