/* daemon/core/policy: one block of bytes for each policy, and nothing else is believed. */

#include "daemon-house.h"

#include <stdlib.h>
#include <string.h>

#include "core/policy.h"

#define BIT(slot) (UINT32_C(1) << ACCOUNT_##slot)
/* Where things are in the block: see the header. */
#define AT_VERSION 8
#define AT_SIZE 12
#define AT_USERS 16
#define AT_GROUPS 20
#define AT_DIRECTORIES 24
#define AT_GLOBAL 32
#define LIMITS (8 + 8 * _ACCOUNT_SLOT_N)
#define AT_FIRST_USER (AT_GLOBAL + 2 * LIMITS)
#define RULE (8 + LIMITS)

static uint8_t *blob;
static size_t n_blob;
static const char *sentence;

static const AclList some_acl = {
        .n = 5,
        .entries = { { .tag = ACL_USER_OBJ, .perms = 7 }, { .tag = ACL_USER, .id = 64101, .perms = 5 },
                     { .tag = ACL_GROUP_OBJ, .perms = 5 }, { .tag = ACL_MASK, .perms = 5 }, { .tag = ACL_OTHER } },
};

/* Two users, two groups, three directories; more than one of everything that has an order. */
static void build(void) {
        static UserLimits users[] = { { 8, { BIT(BYTES), { 1 } } }, { 7, { BIT(PEERS), { 0, 0, 0, 2 } } } };
        static GroupLimits groups[] = { { 9, { 0, { 0 } } }, { 3, { LIMITS_ALL, { 1, 2, 3, 4, 5, 6, UINT64_MAX } } } };
        static char a[] = "/a", b[] = "/a/b", c[] = "/c";
        static PolicyDirectory directories[3];
        Policy policy = {
                .rules = {
                        .global = { BIT(BYTES), { UINT64_MAX } },
                        .everybody = { BIT(REGIONS) | BIT(INFLIGHT), { 0, 10, 0, 0, 0, 0, 11 } },
                        .users = users, .n_users = 2, .groups = groups, .n_groups = 2,
                },
                .directories = directories, .n_directories = 3,
        };

        directories[0] = (PolicyDirectory){ .path = c, .permissions = { .uid = 1, .gid = 2, .mode = 01777 } };
        directories[1] = (PolicyDirectory){ .path = b, .permissions = { .mode = 0750 }, .access = some_acl,
                                            .defaults = some_acl };
        directories[2] = (PolicyDirectory){ .path = a, .limits = { BIT(REGIONS), { 0, 5 } } };
        free(blob);
        REQUIRE(policy_encode(&policy, &blob, &n_blob) == 0);
}

static int decode(Policy **ret) {
        return policy_decode(blob, n_blob, ret, &sentence);
}

static void put(size_t at, uint64_t value, size_t n) {
        for (size_t i = 0; i < n; ++i, value >>= 8)
                blob[at + i] = (uint8_t)value;
}

static void expect_wrong(const char *what) {
        Policy *policy = NULL;
        int r = decode(&policy);

        REQUIRE(r == POLICY_E_INVALID && !policy, "%d instead of: %s", r, what);
        REQUIRE(!strcmp(sentence, what), "'%s' instead of '%s'", sentence, what);
}

TEST(policy, what_goes_in_comes_out_in_order) {
        CLEANUP(policy_freep) Policy *policy = NULL;

        build();
        cr_assert_eq(decode(&policy), 0, "%s", sentence);
        cr_assert_eq(policy->rules.global.slots, BIT(BYTES));
        cr_assert_eq(policy->rules.global.max[ACCOUNT_BYTES], UINT64_MAX);
        cr_assert_eq(policy->rules.everybody.max[ACCOUNT_REGIONS], 10);
        cr_assert_eq(policy->rules.everybody.max[ACCOUNT_INFLIGHT], 11);
        cr_assert(policy->rules.n_users == 2 && policy->rules.users[0].uid == 7 && policy->rules.users[1].uid == 8);
        cr_assert_eq(policy->rules.users[0].limits.max[ACCOUNT_PEERS], 2);
        cr_assert(policy->rules.n_groups == 2 && policy->rules.groups[0].gid == 9 && policy->rules.groups[1].gid == 3,
                  "groups keep their order");
        cr_assert_eq(policy->rules.groups[1].limits.max[ACCOUNT_INFLIGHT], UINT64_MAX);

        cr_assert_eq(policy->n_directories, 3);
        cr_assert_str_eq(policy->directories[0].path, "/a");
        cr_assert_str_eq(policy->directories[1].path, "/a/b");
        cr_assert_str_eq(policy->directories[2].path, "/c");
        cr_assert_eq(policy->directories[0].limits.max[ACCOUNT_REGIONS], 5);
        cr_assert_arr_eq(policy->directories[1].access.entries, some_acl.entries, sizeof(some_acl.entries));
        cr_assert_eq(policy->directories[1].defaults.n, 5);
        cr_assert(policy->directories[2].permissions.uid == 1 && policy->directories[2].permissions.gid == 2 &&
                  policy->directories[2].permissions.mode == 01777);
        cr_assert_eq(policy_find_directory(policy, "/a/b/c", 4), &policy->directories[1]);
        cr_assert_eq(policy_find_directory(policy, "/a/b", 3), NULL);
        cr_assert_eq(policy_find_directory(policy, "/b", 2), NULL);
}

TEST(policy, a_policy_that_says_nothing_is_one) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        Policy empty = { .n_directories = 0 };

        free(blob);
        cr_assert_eq(policy_encode(&empty, &blob, &n_blob), 0);
        cr_assert_eq(n_blob, AT_FIRST_USER);
        cr_assert_eq(decode(&policy), 0);
        cr_assert(policy->n_directories == 0 && policy->rules.n_users == 0 && policy->rules.global.slots == 0);
}

TEST(policy, cut_anywhere_it_is_none) {
        Policy *policy = NULL;

        build();
        for (size_t n = 0; n < n_blob; ++n) {
                uint8_t *part = malloc(n + 1);          /* no byte more than there is, for the sanitizers */

                memcpy(part, blob, n);
                REQUIRE(policy_decode(part, n, &policy, &sentence) == POLICY_E_INVALID && sentence, "%zu bytes", n);
                /* Also if it says of itself that it is so long. */
                for (size_t i = 0; n >= AT_USERS && i < 4; ++i)
                        part[AT_SIZE + i] = (uint8_t)(n >> (8 * i));
                REQUIRE(policy_decode(part, n, &policy, &sentence) == POLICY_E_INVALID && sentence, "%zu bytes", n);
                free(part);
        }
}

/* Whatever is accepted is the one encoding of what it means. */
TEST(policy, with_any_bit_turned_it_is_none_or_another_one) {
        size_t n_valid = 0;

        build();
        for (size_t bit = 0; bit < 8 * n_blob; ++bit) {
                CLEANUP(policy_freep) Policy *policy = NULL;
                CLEANUP(freep) uint8_t *again = NULL;
                size_t n;

                blob[bit / 8] ^= (uint8_t)(1U << bit % 8);
                if (decode(&policy) == 0) {
                        REQUIRE(policy_encode(policy, &again, &n) == 0);
                        REQUIRE(n == n_blob && !memcmp(again, blob, n), "bit %zu means nothing", bit);
                        ++n_valid;
                }
                blob[bit / 8] ^= (uint8_t)(1U << bit % 8);
        }
        cr_assert_gt(n_valid, 100, "limits can be any number");
}

TEST(policy, what_is_wrong_is_told) {
        build();
        blob[3] ^= 1;
        expect_wrong("it is no compiled policy");
        build();
        put(AT_VERSION, 2, 4);
        expect_wrong("it is of another version");
        build();
        put(AT_SIZE, n_blob + 1, 4);
        expect_wrong("it is not as long as it says");
        build();
        put(AT_DIRECTORIES + 4, 1, 4);
        expect_wrong("something is where nothing should be");
        build();
        put(AT_USERS, POLICY_USERS_MAX + 1, 4);
        expect_wrong("it has too many users, groups or directories");
        build();
        put(AT_GROUPS, UINT32_MAX, 4);
        expect_wrong("it has too many users, groups or directories");
        build();
        put(AT_DIRECTORIES, 2, 4);
        expect_wrong("there is something behind its end");
        build();
        put(AT_DIRECTORIES, 4, 4);
        expect_wrong("it ends in the middle");
}

TEST(policy, rules_that_make_no_sense_are_told) {
        build();
        put(AT_GLOBAL, 1U << _ACCOUNT_SLOT_N, 4);
        expect_wrong("it limits what cannot be limited there");
        build();
        put(AT_GLOBAL, 0, 4);
        expect_wrong("it has a limit that it does not name");
        build();
        put(AT_FIRST_USER, UINT32_MAX, 4);
        expect_wrong("there is no user or group of that number");
        build();
        put(AT_FIRST_USER, 8, 4);
        expect_wrong("its users are not in order");
        build();
        put(AT_FIRST_USER, 9, 4);
        expect_wrong("its users are not in order");
        build();
        put(AT_FIRST_USER + 3 * RULE, 9, 4);
        expect_wrong("it has a group twice");
}

/* -- directories --------------------------------------------------------------------------- */

static void build_with(PolicyDirectory directory) {
        Policy policy = { .directories = &directory, .n_directories = 1 };

        free(blob);
        REQUIRE(policy_encode(&policy, &blob, &n_blob) == 0);
}

static void expect_path(const char *path, const char *what) {
        CLEANUP(freep) char *copy = strdup(path);

        build_with((PolicyDirectory){ .path = copy, .permissions.mode = 0755 });
        expect_wrong(what);
}

TEST(policy, paths_are_checked_as_any_client_s) {
        expect_path("", "a name may not be empty");
        expect_path("a", "a name starts with '/'");
        expect_path("/a/", "a name has no empty component: no '//' and no '/' at the end");
        expect_path("/..", "a component of a name is neither '.' nor '..'");
        expect_path("/\xff", "a name is valid UTF-8");
        expect_path("/a/b", "a directory is there without the one above it");
}

TEST(policy, the_root_is_a_directory_like_any_other) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        char path[] = "/";

        build_with((PolicyDirectory){ .path = path, .permissions.mode = 01777 });
        cr_assert_eq(decode(&policy), 0, "%s", sentence);
        cr_assert_str_eq(policy->directories[0].path, "/");
}

TEST(policy, directories_come_in_order_and_once) {
        static char a[] = "/a", b[] = "/b";
        PolicyDirectory two[] = { { .path = a }, { .path = b } };
        Policy policy = { .directories = two, .n_directories = 2 };
        size_t n_first = 16 + LIMITS + 2;

        free(blob);
        cr_assert_eq(policy_encode(&policy, &blob, &n_blob), 0);
        blob[AT_FIRST_USER + n_first - 1] = 'b';
        expect_wrong("its directories are not in order");
        blob[AT_FIRST_USER + n_first - 1] = 'c';
        expect_wrong("its directories are not in order");
}

TEST(policy, modes_and_limits_of_directories_are_checked) {
        char path[] = "/a";

        build_with((PolicyDirectory){ .path = path, .permissions.mode = 02755 });
        expect_wrong("a mode is at most 1777");
        build_with((PolicyDirectory){ .path = path, .permissions.uid = UINT32_MAX });
        expect_wrong("there is no user or group of that number");
        build_with((PolicyDirectory){ .path = path, .permissions.gid = UINT32_MAX });
        expect_wrong("there is no user or group of that number");
        build_with((PolicyDirectory){ .path = path, .limits = { BIT(PEERS), { 0 } } });
        expect_wrong("it limits what cannot be limited there");
}

TEST(policy, acls_are_checked_and_agree_with_the_mode) {
        PolicyDirectory directory = { .path = (char[]){ "/a" }, .permissions.mode = 0750, .access = some_acl };

        directory.permissions.mode = 0770;
        build_with(directory);
        expect_wrong("an ACL and a mode differ");
        directory.permissions.mode = 01750;
        directory.access.n = 4;
        build_with(directory);
        expect_wrong("an ACL has an entry each for the owner, the owning group and others");
        directory.access = (AclList){
                .n = 3,
                .entries = { { .tag = ACL_USER_OBJ, .perms = 7 }, { .tag = ACL_GROUP_OBJ, .perms = 5 },
                             { .tag = ACL_OTHER } },
        };
        build_with(directory);
        expect_wrong("an ACL says no more than a mode");
        directory.access = some_acl;
        directory.defaults = some_acl;
        directory.defaults.entries[1].perms = 8;
        build_with(directory);
        expect_wrong("the permissions of an entry are read, write and search");
}

TEST(policy, more_than_1_mib_is_not_looked_at) {
        CLEANUP(freep) uint8_t *much = calloc(1, POLICY_BYTES_MAX + 1);
        Policy *policy = NULL;

        cr_assert_eq(policy_decode(much, POLICY_BYTES_MAX + 1, &policy, &sentence), POLICY_E_INVALID);
        cr_assert_str_eq(sentence, "it is larger than 1 MiB");
}

TEST(policy, as_much_as_it_may_be_it_can_be_and_not_more) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        CLEANUP(freep) GroupLimits *groups = calloc(POLICY_GROUPS_MAX + 1, sizeof(*groups));
        CLEANUP(freep) UserLimits *users = calloc(POLICY_USERS_MAX + 1, sizeof(*users));
        Policy much = { .rules = { .users = users, .groups = groups } };

        for (uint32_t i = 0; i <= POLICY_USERS_MAX; ++i)
                users[i].uid = POLICY_USERS_MAX - i;
        for (uint32_t i = 0; i <= POLICY_GROUPS_MAX; ++i)
                groups[i].gid = 2 * i;
        much.rules.n_users = POLICY_USERS_MAX;
        much.rules.n_groups = POLICY_GROUPS_MAX;
        free(blob);
        cr_assert_eq(policy_encode(&much, &blob, &n_blob), 0);
        cr_assert_eq(decode(&policy), 0, "%s", sentence);
        ++much.rules.n_users;
        cr_assert_eq(policy_encode(&much, &blob, &n_blob), POLICY_E_TOO_LARGE);
        --much.rules.n_users;
        ++much.rules.n_groups;
        cr_assert_eq(policy_encode(&much, &blob, &n_blob), POLICY_E_TOO_LARGE);
}
