/* daemon/core/children: in the order of their names, whatever order they came in. */

#include "daemon-house.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 512 };

static Node nodes[N];
static bool in[N];

/* Names in the order of their numbers, and hashes that say how the tree looks. */
static void name_all(uint64_t *random) {
        memset(nodes, 0, sizeof(nodes));
        memset(in, 0, sizeof(in));
        for (size_t i = 0; i < N; ++i) {
                char text[NODE_TEXT];

                nodes[i].n_name = (uint8_t)snprintf(text, sizeof(text), "%04zu", i);
                memcpy(nodes[i].name.text, text, nodes[i].n_name);
                nodes[i].hash = (uint32_t)test_random(random, UINT64_C(1) << 32);
        }
}

static size_t next_in(size_t i) {
        while (i < N && !in[i])
                ++i;
        return i;
}

/* That it has those that are in, in order, and tells what comes after any name. */
static void expect_sound(Node *root) {
        Node *node = children_first(root);

        for (size_t i = next_in(0); i < N; i = next_in(i + 1)) {
                REQUIRE(node == &nodes[i], "%zu", i);
                node = children_next(root, node);
        }
        REQUIRE(!node);
        for (size_t i = 0; i < N; ++i) {
                size_t next = next_in(i + 1);

                node = children_after(root, node_name(&nodes[i]), nodes[i].n_name);
                REQUIRE(node == (next < N ? &nodes[next] : NULL), "%zu", i);
        }
}

static size_t depth_of(const Node *node) {
        size_t left, right;

        if (!node)
                return 0;
        REQUIRE(!node->links.left || node->links.left->hash <= node->hash);
        REQUIRE(!node->links.right || node->links.right->hash <= node->hash);
        left = depth_of(node->links.left);
        right = depth_of(node->links.right);
        return 1 + (left > right ? left : right);
}

static void come_and_go(uint64_t *random) {
        Node *root = NULL;

        for (size_t round = test_rounds(20000); round > 0; --round) {
                size_t i = test_random(random, N);

                (in[i] ? children_remove : children_insert)(&root, &nodes[i]);
                in[i] = !in[i];
                if (round % 500 == 0)
                        expect_sound(root);
        }
        (void)depth_of(root);
        for (size_t i = 0; i < N; ++i)
                if (in[i])
                        children_remove(&root, &nodes[i]);
        REQUIRE(!root);
}

TEST(children, of_nothing_there_is_no_first_and_none_after) {
        cr_assert_null(children_first(NULL));
        cr_assert_null(children_after(NULL, "a", 1));
}

TEST(children, any_order_of_coming_and_going_leaves_them_sorted) {
        uint64_t random = test_seed();

        name_all(&random);
        come_and_go(&random);
}

TEST(children, they_are_sorted_when_all_hashes_are_the_same_too) {
        uint64_t random = test_seed();

        name_all(&random);
        for (size_t i = 0; i < N; ++i)
                nodes[i].hash = 7;
        come_and_go(&random);
}

TEST(children, names_that_come_in_order_make_no_deep_tree) {
        uint64_t random = test_seed();
        Node *root = NULL;

        name_all(&random);
        for (size_t i = 0; i < N; ++i) {
                children_insert(&root, &nodes[i]);
                in[i] = true;
        }
        expect_sound(root);
        /* 13 in the mean of all; that it is above 50 happens once in more runs than there will ever be. */
        cr_assert_lt(depth_of(root), 50);
}

TEST(children, a_shorter_name_comes_before_a_longer_one_that_begins_like_it) {
        static const char *const names[] = { "a", "a-", "a-b", "ab", "b" };
        Node some[5] = { { .n_name = 0 } }, *root = NULL;

        for (size_t i = 0; i < 5; ++i) {
                some[i].n_name = (uint8_t)strlen(names[i]);
                memcpy(some[i].name.text, names[i], some[i].n_name);
                some[i].hash = (uint32_t)(i * 3 % 5);
        }
        for (size_t i = 0; i < 5; ++i)
                children_insert(&root, &some[i * 2 % 5]);
        for (size_t i = 0; i < 5; ++i)
                cr_assert_eq(i ? children_next(root, &some[i - 1]) : children_first(root), &some[i]);
        cr_assert_null(children_next(root, &some[4]));
        cr_assert_eq(children_after(root, "a!", 2), &some[1]);
        cr_assert_eq(children_after(root, "", 0), &some[0]);
}
