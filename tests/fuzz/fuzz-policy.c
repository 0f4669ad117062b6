/* Compiled policies: what is accepted is the one encoding of what it means, and can be put in force
 * over any other one. */

#include <string.h>

#include "acct/quota.h"
#include "core/enact.h"
#include "core/policy.h"
#include "fuzz/fuzz.h"

/* Says in a few bytes what is hard to hit: a valid policy with directories in it. */
static const PolicyDirectory other_directories[] = {
        { .path = (char *)"/a", .permissions = { .uid = 7, .mode = 0755 }, .limits = { 1, { 5 } } },
        { .path = (char *)"/a/b", .permissions = { .mode = 01777 }, .limits = { 2, { 0, 6 } } },
};
static const Policy other = { .directories = (PolicyDirectory *)other_directories, .n_directories = 2 };

static void check_encoding(Policy *policy, const uint8_t *data, size_t n) {
        uint8_t *again;
        size_t n_again;

        FUZZ_REQUIRE(policy_encode(policy, &again, &n_again) == 0);
        FUZZ_REQUIRE(n_again == n && !memcmp(again, data, n));
        free(again);
}

static void empty(Tree *tree) {
        Directory *directory = tree->root;

        while (directory) {
                Node *node = directory_any_child(directory);
                Directory *parent = directory->node.parent;

                if (!node && parent)
                        FUZZ_REQUIRE(tree_rmdir(tree, directory) == 0);
                directory = node ? node_directory(node) : parent;
        }
}

/* Every account has a limit in every slot, whatever the rules leave out. */
static void check_rules(const Policy *policy) {
        static Rules base = { .global.slots = LIMITS_ALL, .everybody.slots = LIMITS_ALL };
        static const Permissions root = { .mode = 01777 };
        const Policy *order[] = { &other, policy, &other, policy };
        Accounts accounts;
        const char *path;
        uint32_t made;
        Tree tree;

        accounts_init(&accounts, &base);
        FUZZ_REQUIRE(tree_init(&tree, &root) == 0);
        for (size_t i = 0; i < 4; ++i) {
                FUZZ_REQUIRE(enact_directories(&tree, &accounts, order[i], &made, &path) == 0);
                FUZZ_REQUIRE(made <= order[i]->n_directories && (i < 2 || made == 0));
                accounts_set_policy(&accounts, &order[i]->rules);
                (void)accounts_settle(&accounts, NULL, NULL);
        }
        FUZZ_REQUIRE(accounts_settle(&accounts, NULL, NULL) == 0);
        empty(&tree);
        tree_deinit(&tree);
        FUZZ_REQUIRE(accounts_are_balanced(&accounts));
        accounts_deinit(&accounts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        const char *sentence;
        int r;

        r = policy_decode(data, n, &policy, &sentence);
        FUZZ_REQUIRE(r == 0 || r == POLICY_E_INVALID);
        FUZZ_REQUIRE((r == 0) == (sentence == NULL) && (r == 0) == (policy != NULL));
        if (r)
                return 0;
        check_encoding(policy, data, n);
        check_rules(policy);
        return 0;
}
