/* daemon/broker/request-policy, broker/policy and core/enact: another policy takes effect for
 * everybody in one moment, or for nobody.
 */

#include "daemon-table.h"

#include <stdlib.h>
#include <string.h>

#include "acct/quota.h"
#include "broker/policy.h"

#define BIT(slot) (UINT32_C(1) << ACCOUNT_##slot)

static uint8_t *blob;
static size_t n_blob;

/* There is one byte more than the policy has, for a part that is too long. */
static void encode(Policy *policy) {
        free(blob);
        REQUIRE(policy_encode(policy, &blob, &n_blob) == 0);
        blob = realloc(blob, n_blob + 1);
        REQUIRE(blob);
        blob[n_blob] = 0;
}

/* The policy of this test, in one piece or in parts of n bytes. */
static uint32_t ask_part(Guest *guest, size_t offset, size_t n, uint32_t total) {
        return guest_ask(guest, MESSAGE_RELOAD,
                         REQUEST(Reload, reload, .total = total, .offset = (uint32_t)offset,
                                 .data = { .data = blob + offset, .len = n }));
}

static uint32_t ask_reload(Guest *guest) {
        return ask_part(guest, 0, n_blob, (uint32_t)n_blob);
}

static const Shmd__ReloadReply *answer(const Guest *guest) {
        return (const Shmd__ReloadReply *)guest->reply;
}

static Account *account_of(const Guest *guest) {
        return guest_peer(guest)->account;
}

static Directory *directory_at(const char *path) {
        static const Credentials root = { .admin = true };
        Spot spot;

        REQUIRE(tree_find(&table->tree, &root, path, strlen(path), &spot) == 0 && node_is_directory(spot.node), "%s", path);
        return node_directory(spot.node);
}

/* bytes for everybody, and that is all. */
static void encode_bytes(uint64_t bytes) {
        Policy policy = { .rules.everybody = { BIT(BYTES), { bytes } } };

        encode(&policy);
}

/* -- who and in what form ------------------------------------------------------------------ */

TEST(request_policy, only_an_administrator_may) {
        Guest *alice;

        table_open();
        alice = guest_new(ALICE);
        encode_bytes(1);
        guest_expect(alice, DENIED, ADMIN, ask_reload(alice));
        cr_assert_eq(table->generation, 0);
        alice = guest_free(alice);
        table_close();
}

TEST(request_policy, it_takes_effect_when_all_of_it_is_there) {
        Guest *root;

        table_open();
        root = guest_new(0);
        encode_bytes(7);
        for (size_t at = 0; at < n_blob; ++at) {
                cr_assert_eq(table->generation, 0);
                guest_expect_done(root, ask_part(root, at, 1, (uint32_t)n_blob));
                cr_assert_eq(answer(root)->done, at == n_blob - 1);
                cr_assert_eq(account_of(root)->used[ACCOUNT_PENDING], at < n_blob - 1);
        }
        cr_assert_eq(answer(root)->generation, 1);
        cr_assert_eq(account_of(root)->max[ACCOUNT_BYTES], 7);
        root = guest_free(root);
        table_close();
}

TEST(request_policy, parts_that_are_not_of_one_whole_are_refused_and_begin_anew) {
        uint32_t n;
        Guest *root;

        table_open();
        root = guest_new(0);
        encode_bytes(7);
        n = (uint32_t)n_blob;
        guest_expect(root, INVALID, POLICY, ask_part(root, 1, 1, n));
        guest_expect(root, INVALID, POLICY, ask_part(root, 0, 0, n));
        guest_expect(root, INVALID, POLICY, ask_part(root, 0, 2, 1));
        guest_expect(root, INVALID, POLICY, ask_part(root, 0, 1, 0));
        guest_expect(root, INVALID, POLICY, ask_part(root, 0, 1, POLICY_BYTES_MAX + 1));
        guest_expect(root, INVALID, POLICY, ask_part(root, 0, 1, UINT32_MAX));

        guest_expect_done(root, ask_part(root, 0, 10, n));
        guest_expect(root, INVALID, POLICY, ask_part(root, 9, 10, n));
        guest_expect(root, INVALID, POLICY, ask_part(root, 10, 10, n));
        guest_expect_done(root, ask_part(root, 0, 10, n));
        guest_expect(root, INVALID, POLICY, ask_part(root, 10, 10, n + 1));
        guest_expect_done(root, ask_part(root, 0, 10, n));
        guest_expect(root, INVALID, POLICY, ask_part(root, 10, n - 9, n));
        cr_assert_eq(account_of(root)->used[ACCOUNT_PENDING], 0);

        guest_expect_done(root, ask_part(root, 0, 10, n));
        guest_expect_done(root, ask_part(root, 0, 20, n));
        guest_expect_done(root, ask_part(root, 20, n - 20, n));
        cr_assert(answer(root)->done && table->generation == 1);
        root = guest_free(root);
        table_close();
}

TEST(request_policy, what_does_not_go_on_is_forgotten_in_time_and_with_its_peer) {
        uint64_t before;
        Guest *root;

        table_open();
        root = guest_new(0);
        encode_bytes(7);
        before = time_now();
        guest_expect_done(root, ask_part(root, 0, 10, (uint32_t)n_blob));
        cr_assert_neq(guest_peer(root)->staging.bytes, NULL);
        table_pass_to(before + 30 * NSEC_PER_SEC - 1);
        cr_assert_neq(guest_peer(root)->staging.bytes, NULL);
        table_pass(30 * NSEC_PER_SEC);
        cr_assert_eq(guest_peer(root)->staging.bytes, NULL);
        cr_assert_eq(account_of(root)->used[ACCOUNT_PENDING], 0);
        guest_expect(root, INVALID, POLICY, ask_part(root, 10, 10, (uint32_t)n_blob));
        guest_expect_done(root, ask_part(root, 0, 10, (uint32_t)n_blob));
        root = guest_free(root);
        table_close();
}

TEST(request_policy, a_policy_in_parts_is_a_pending_request) {
        Guest *root;

        table_open();
        root = guest_new(0);
        encode_bytes(7);
        account_of(root)->max[ACCOUNT_PENDING] = 0;
        guest_expect(root, QUOTA, LIMIT, ask_part(root, 0, 10, (uint32_t)n_blob));
        cr_assert_eq(root->refusal->slot, SHMD__SLOT__SLOT_PENDING);
        guest_expect_done(root, ask_reload(root));
        root = guest_free(root);
        table_close();
}

/* -- limits -------------------------------------------------------------------------------- */

TEST(request_policy, every_account_has_its_new_limits_at_once) {
        static const gid_t groups[] = { 500 };
        UserLimits users[] = { { BOB, { BIT(BYTES), { 2 } } } };
        GroupLimits group[] = { { 500, { BIT(BYTES), { 3 } } } };
        Policy policy = {
                .rules = {
                        .everybody = { BIT(BYTES), { 1 } },
                        .users = users, .n_users = 1,
                        .groups = group, .n_groups = 1,
                },
        };
        Guest *root, *alice, *bob, *carol;

        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        bob = guest_connect(BOB, BOB, groups, 1);
        carol = guest_connect(CAROL, CAROL, groups, 1);
        encode(&policy);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(answer(root)->accounts, 4);
        cr_assert_eq(account_of(alice)->max[ACCOUNT_BYTES], 1);
        cr_assert_eq(account_of(bob)->max[ACCOUNT_BYTES], 2, "the uid comes before the group");
        cr_assert_eq(account_of(carol)->max[ACCOUNT_BYTES], 3);
        guest_expect(alice, QUOTA, LIMIT, ask_create(alice, "/a", 1, 0600));

        guest_expect_done(root, ask_reload(root));
        cr_assert(answer(root)->accounts == 0 && answer(root)->generation == 2, "the same once more");
        encode(&(Policy){ .n_directories = 0 });
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(answer(root)->accounts, 4);
        cr_assert_eq(account_of(carol)->max[ACCOUNT_BYTES], table_options.rules.everybody.max[ACCOUNT_BYTES]);
        guest_expect_done(alice, ask_create(alice, "/a", 1, 0600));
        guest_free(root), guest_free(alice), guest_free(bob), guest_free(carol);
        table_close();
}

TEST(request_policy, who_connects_later_finds_them) {
        static const gid_t groups[] = { 400, 500 };
        GroupLimits group[] = { { 500, { BIT(PEERS), { 0, 0, 0, 1 } } } };
        Policy policy = { .rules = { .groups = group, .n_groups = 1 } };
        Guest *root, *alice, *second;

        table_open();
        root = guest_new(0);
        encode(&policy);
        guest_expect_done(root, ask_reload(root));
        alice = guest_connect(ALICE, ALICE, groups, 2);
        second = guest_connect(ALICE, ALICE, NULL, 0);
        cr_assert_neq(alice->id, 0);
        cr_assert_eq(second->id, 0, "one connection of that group, and no more");
        second->fd = close_fd(second->fd);
        (void)arena_free(second->arena);
        free(second);
        guest_free(root), guest_free(alice);
        table_close();
}

/* Without a connection, what the kernel said of the last one is all that is known. */
TEST(request_policy, an_account_without_connections_stays_in_its_group_until_the_next_one) {
        static const gid_t groups[] = { 500 };
        GroupLimits group[] = { { 500, { BIT(BYTES), { 8192 } } } };
        Policy policy = { .rules = { .groups = group, .n_groups = 1 } };
        Guest *root, *alice;
        Account *account;

        table_open();
        root = guest_new(0);
        encode(&policy);
        guest_expect_done(root, ask_reload(root));
        alice = guest_connect(ALICE, ALICE, groups, 1);
        guest_expect_done(alice, ask_hello(alice));
        guest_expect_done(alice, ask_create(alice, "/a", 1, 0600));
        alice = guest_free(alice);
        account = accounts_find_user(&table->accounts, ALICE);
        group[0].limits.max[ACCOUNT_BYTES] = 4096;
        encode(&policy);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(account->max[ACCOUNT_BYTES], 4096);

        alice = guest_new(ALICE);
        cr_assert_neq(account->max[ACCOUNT_BYTES], 4096, "the new one is not in it, and knows better");
        guest_expect_done(root, ask_reload(root));
        cr_assert_neq(account->max[ACCOUNT_BYTES], 4096);
        guest_free(root), guest_free(alice);
        table_close();
}

/* Lets what was unlinked be released. */
static void pass(void) {
        for (int i = 0; i < 10; ++i)
                table_pass(NSEC_PER_SEC);
}

TEST(request_policy, a_tightened_limit_takes_nothing_away) {
        Guest *root, *alice;

        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        guest_expect_done(alice, ask_create(alice, "/a", 8192, 0600));
        guest_expect_done(alice, ask_create(alice, "/b", 4096, 0600));
        encode_bytes(4096);
        guest_expect_done(root, ask_reload(root));
        guest_expect(alice, QUOTA, LIMIT, ask_create(alice, "/c", 1, 0600));
        cr_assert(alice->refusal->left == 0 && alice->refusal->limit == 4096 && alice->refusal->asked == 4096);
        guest_expect_done(alice, ask_open(alice, "/a", SHMD__RIGHTS__RIGHTS_READ_WRITE));
        guest_expect_done(alice, ask_stat(alice, "/b"));
        fdlist_deinit(&alice->fds);
        guest_expect_done(alice, ask_unlink(alice, "/a"));
        pass();
        cr_assert_eq(account_of(alice)->used[ACCOUNT_BYTES], 4096);
        guest_expect(alice, QUOTA, LIMIT, ask_create(alice, "/c", 1, 0600));
        guest_expect_done(alice, ask_unlink(alice, "/b"));
        pass();
        guest_expect_done(alice, ask_create(alice, "/c", 4096, 0600));
        guest_free(root), guest_free(alice);
        table_close();
}

TEST(request_policy, the_pool_is_what_the_policy_says_as_far_as_descriptors_go) {
        Policy policy = { .rules.global = { BIT(BYTES) | BIT(PEERS), { 1 << 20, 0, 0, 10 } } };
        Guest *root;

        table_defaults();
        table_options.objects = 100;
        table_options.rules.global.max[ACCOUNT_REGIONS] = 80;
        table_options.rules.global.max[ACCOUNT_PEERS] = 5;
        table_options.rules.global.max[ACCOUNT_INFLIGHT] = 15;
        table_open();
        root = guest_new(0);
        encode(&policy);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(table->accounts.pool.max[ACCOUNT_BYTES], 1 << 20);
        cr_assert_eq(table->accounts.pool.max[ACCOUNT_PEERS], 10);
        cr_assert_eq(table->accounts.pool.max[ACCOUNT_INFLIGHT], 15);
        cr_assert_eq(table->accounts.pool.max[ACCOUNT_REGIONS], 75, "what is left");

        policy.rules.global = (Limits){ BIT(REGIONS), { 0, 81 } };
        encode(&policy);
        guest_expect(root, INVALID, POLICY, ask_reload(root));
        cr_assert_neq(strstr((const char *)root->refusal->sentence.data, "[global] regions: 81 is impossible"), NULL, "%.*s",
                      (int)root->refusal->sentence.len, (const char *)root->refusal->sentence.data);
        policy.rules.global = (Limits){ BIT(PEERS), { 0, 0, 0, QUOTA_UNLIMITED } };
        encode(&policy);
        guest_expect(root, INVALID, POLICY, ask_reload(root));
        cr_assert_eq(table->accounts.pool.max[ACCOUNT_PEERS], 10, "and nothing has changed");
        policy.rules.global = (Limits){ BIT(REGIONS), { 0, 80 } };
        encode(&policy);
        guest_expect_done(root, ask_reload(root));
        cr_assert(table->accounts.pool.max[ACCOUNT_REGIONS] == 80 && table->accounts.pool.max[ACCOUNT_PEERS] == 5);
        root = guest_free(root);
        table_close();
}

/* -- directories --------------------------------------------------------------------------- */

static PolicyDirectory directories[4];
static Policy with_directories = { .directories = directories };

static PolicyDirectory *add_directory(const char *path, uid_t uid, mode_t mode) {
        PolicyDirectory *directory = &directories[with_directories.n_directories++];

        *directory = (PolicyDirectory){ .path = (char *)path, .permissions = { .uid = uid, .gid = uid, .mode = mode } };
        return directory;
}

static void begin_directories(void) {
        with_directories.n_directories = 0;
}

TEST(request_policy, directories_are_made_and_their_owners_pay) {
        Directory *b;
        Guest *root;

        table_open();
        root = guest_new(0);
        begin_directories();
        (void)add_directory("/a", 0, 0755);
        add_directory("/a/b", ALICE, 01770)->limits = (Limits){ BIT(BYTES), { 4096 } };
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(answer(root)->directories, 2);
        b = directory_at("/a/b");
        cr_assert(b->permissions.uid == ALICE && b->permissions.gid == ALICE && b->permissions.mode == 01770);
        cr_assert_eq(b->account->max[ACCOUNT_BYTES], 4096);
        cr_assert_eq(b->account->max[ACCOUNT_REGIONS], QUOTA_UNLIMITED);
        cr_assert_eq(accounts_find_user(&table->accounts, ALICE)->used[ACCOUNT_REGIONS], 1);
        cr_assert_eq(directory_at("/a")->account->used[ACCOUNT_REGIONS], 1);

        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(answer(root)->directories, 0, "they are there");
        root = guest_free(root);
        table_close();
}

TEST(request_policy, what_a_policy_names_belongs_to_it) {
        static const AclList acl = { .n = 5, .entries = {
                { .tag = ACL_USER_OBJ, .perms = 7 }, { .tag = ACL_USER, .id = CAROL, .perms = 7 },
                { .tag = ACL_GROUP_OBJ, .perms = 1 }, { .tag = ACL_MASK, .perms = 7 }, { .tag = ACL_OTHER } } };
        Guest *root, *alice, *carol;
        PolicyDirectory *wanted;
        Directory *d;

        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        carol = guest_new(CAROL);
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        guest_expect(carol, DENIED, SEARCH, ask_mkdir(carol, "/d/x", 0700));
        begin_directories();
        wanted = add_directory("/d", BOB, 0770);
        wanted->access = acl;
        wanted->defaults = acl;
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(answer(root)->directories, 0);
        d = directory_at("/d");
        cr_assert(d->permissions.uid == BOB && d->permissions.mode == 0770 && d->permissions.acl && d->default_acl.set);
        cr_assert_eq(account_of(alice)->used[ACCOUNT_REGIONS], 0, "the new owner pays");
        cr_assert_eq(accounts_find_user(&table->accounts, BOB)->used[ACCOUNT_REGIONS], 1);
        guest_expect_done(carol, ask_mkdir(carol, "/d/x", 0700));
        guest_expect(alice, DENIED, SEARCH, ask_mkdir(alice, "/d/y", 0700));

        wanted->access.n = wanted->defaults.n = 0;
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        cr_assert(!d->permissions.acl && !d->default_acl.set, "without a word about ACLs there is none");
        guest_free(root), guest_free(alice), guest_free(carol);
        table_close();
}

TEST(request_policy, a_directory_that_is_no_longer_named_loses_the_policy_s_limits) {
        static const BrokerDirectory configured = {
                .path = "/c", .permissions = { .mode = 01777 }, .max = { [ACCOUNT_BYTES] = 8192, [ACCOUNT_REGIONS] = QUOTA_UNLIMITED },
        };
        Guest *root;

        table_defaults();
        table_options.directories = &configured;
        table_options.n_directories = 1;
        table_open();
        root = guest_new(0);
        begin_directories();
        add_directory("/c", 0, 0755)->limits = (Limits){ BIT(REGIONS), { 0, 3 } };
        add_directory("/d", 0, 0755)->limits = (Limits){ BIT(BYTES), { 7 } };
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        guest_expect_done(root, ask_reload(root));
        cr_assert(directory_at("/c")->account->max[ACCOUNT_BYTES] == 8192 && directory_at("/c")->account->max[ACCOUNT_REGIONS] == 3);
        cr_assert_eq(directory_at("/d")->account->max[ACCOUNT_BYTES], 7);

        begin_directories();
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(directory_at("/c")->account->max[ACCOUNT_BYTES], 8192, "what the configuration says");
        cr_assert_eq(directory_at("/c")->account->max[ACCOUNT_REGIONS], QUOTA_UNLIMITED);
        cr_assert_eq(directory_at("/c")->permissions.mode, 0755, "only limits go");
        cr_assert_eq(directory_at("/d")->account->max[ACCOUNT_BYTES], QUOTA_UNLIMITED);
        root = guest_free(root);
        table_close();
}

TEST(request_policy, limits_go_with_a_directory_that_was_renamed_or_removed) {
        Guest *root;
        Directory *e;

        table_open();
        root = guest_new(0);
        begin_directories();
        add_directory("/d", 0, 0755)->limits = (Limits){ BIT(BYTES), { 7 } };
        add_directory("/gone", 0, 0755)->limits = (Limits){ BIT(BYTES), { 7 } };
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        e = directory_at("/d");
        guest_expect_done(root, guest_ask(root, MESSAGE_RENAME, REQUEST(Rename, rename, .path = BYTES("/d"), .to = BYTES("/e"))));
        guest_expect_done(root, guest_ask(root, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES("/gone"))));
        cr_assert_eq(e->account->max[ACCOUNT_BYTES], 7);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(answer(root)->directories, 2, "both are made anew");
        cr_assert_eq(e->account->max[ACCOUNT_BYTES], QUOTA_UNLIMITED, "and the one that moved is nobody's any more");
        cr_assert_eq(directory_at("/d")->account->max[ACCOUNT_BYTES], 7);
        root = guest_free(root);
        table_close();
}

TEST(request_policy, where_a_region_is_in_the_way_nothing_happens_at_all) {
        Guest *root;
        size_t n;

        table_open();
        root = guest_new(0);
        guest_expect_done(root, ask_create(root, "/z", 1, 0600));
        fdlist_deinit(&root->fds);
        begin_directories();
        (void)add_directory("/a", ALICE, 0755);
        (void)add_directory("/a/b", ALICE, 0755);
        (void)add_directory("/z", ALICE, 0755);
        with_directories.rules.everybody = (Limits){ BIT(BYTES), { 1 } };
        encode(&with_directories);
        n = table->tree.n_directories;
        guest_expect(root, INVALID, POLICY, ask_reload(root));
        cr_assert_neq(strstr((const char *)root->refusal->sentence.data, "[directory /z]: a region has that name"), NULL);
        cr_assert_eq(table->tree.n_directories, n, "what was made is gone again");
        cr_assert_eq(accounts_find_user(&table->accounts, ALICE), NULL);
        cr_assert(table->generation == 0 && account_of(root)->max[ACCOUNT_BYTES] != 1);

        (void)add_directory("/z/y", ALICE, 0755);
        with_directories.n_directories = 4;
        encode(&with_directories);
        guest_expect(root, INVALID, POLICY, ask_reload(root));
        cr_assert_eq(table->tree.n_directories, n);
        with_directories.rules.everybody.slots = 0;
        root = guest_free(root);
        table_close();
}

TEST(request_policy, no_limit_stands_in_the_way_of_its_directories) {
        Guest *root, *alice;

        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        begin_directories();
        add_directory("/", 0, 01777)->limits = (Limits){ BIT(REGIONS), { 0, 0 } };
        (void)add_directory("/a", ALICE, 0755);
        (void)add_directory("/a/b", ALICE, 0755);
        with_directories.rules.everybody = (Limits){ BIT(REGIONS), { 0, 1 } };
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        cr_assert_eq(answer(root)->directories, 2);
        cr_assert_eq(account_of(alice)->used[ACCOUNT_REGIONS], 2);
        guest_expect(alice, QUOTA, LIMIT, ask_mkdir(alice, "/a/c", 0700));
        with_directories.rules.everybody.slots = 0;
        guest_free(root), guest_free(alice);
        table_close();
}

TEST(request_policy, who_waits_for_a_name_is_told) {
        Guest *root, *alice;

        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        cr_assert_eq(guest_ask(alice, MESSAGE_WAIT, REQUEST(Wait, wait, .path = BYTES("/a/b"), .timeout_ns = NSEC_PER_SEC)), SILENT);
        begin_directories();
        (void)add_directory("/a", 0, 0755);
        (void)add_directory("/a/b", 0, 0755);
        encode(&with_directories);
        guest_expect_done(root, ask_reload(root));
        guest_expect_done(alice, guest_receive(alice));
        guest_free(root), guest_free(alice);
        table_close();
}

/* -- at start ------------------------------------------------------------------------------ */

TEST(request_policy, it_can_be_checked_without_a_broker) {
        char sentence[BROKER_SENTENCE_MAX];

        table_defaults();
        encode_bytes(1);
        cr_assert_eq(broker_check_policy(&table_options, blob, n_blob, sentence), 0);
        cr_assert_eq(broker_check_policy(&table_options, blob, n_blob - 1, sentence), BROKER_POLICY_E_REFUSED);
        cr_assert_str_eq(sentence, "the compiled policy is not valid: it is not as long as it says");
}

TEST(request_policy, a_thousand_of_them_leave_nothing) {
        Guest *root;

        table_open();
        root = guest_new(0);
        for (uint32_t i = 0; i < 1000; ++i) {
                begin_directories();
                if (i % 3)
                        add_directory("/d", i % 2 ? ALICE : BOB, 0755)->limits = (Limits){ BIT(BYTES), { i } };
                with_directories.rules.everybody = (Limits){ BIT(REGIONS), { 0, i } };
                encode(&with_directories);
                guest_expect_done(root, ask_reload(root));
                REQUIRE(answer(root)->generation == i + 1 && account_of(root)->max[ACCOUNT_REGIONS] == i);
        }
        cr_assert_eq(table->tree.n_directories, 2);
        cr_assert_eq(table->accounts.n_users, 2, "root and who has the directory now");
        cr_assert(list_is_empty(&table->tree.ruled), "the last one names none: 999 is divisible by 3");
        with_directories.rules.everybody.slots = 0;
        root = guest_free(root);
        table_close();
}
