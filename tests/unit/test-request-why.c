/* daemon/broker/request-why: what is explained is what happens.
 *
 * The first test makes scenes at random, asks why, does it, and compares; SHMD_TEST_SEED repeats a
 * run. The others look at the answers themselves.
 */

#include "daemon-table.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acct/quota.h"
#include "base/acl.h"

#define STAFF 64201
#define VIDEO 64202

#define WHY(name) SHMD__WHY_OPERATION__WHY_##name
#define READ SHMD__RIGHTS__RIGHTS_READ_ONLY
#define WRITE SHMD__RIGHTS__RIGHTS_READ_WRITE

static Guest *root, *alice, *bob, *carol;

static void begin(void) {
        static const gid_t staff[] = { STAFF }, both[] = { STAFF, VIDEO };

        table_open();
        root = guest_new(0);
        alice = guest_connect(ALICE, ALICE, staff, 1);
        bob = guest_connect(BOB, VIDEO, NULL, 0);
        carol = guest_connect(CAROL, CAROL, both, 2);
        guest_expect_done(alice, ask_hello(alice));
        guest_expect_done(bob, ask_hello(bob));
        guest_expect_done(carol, ask_hello(carol));
}

static void end(void) {
        root = guest_free(root);
        alice = guest_free(alice);
        bob = guest_free(bob);
        carol = guest_free(carol);
        table_close();
}

/* An answer that has to wait for what is being released is waited for. */
static uint32_t ask(Guest *guest, unsigned int kind, const ProtobufCMessage *request) {
        uint32_t r;

        table_new_turn();
        r = guest_ask(guest, kind, request);
        return r == HELD ? guest_await(guest) : r;
}

static uint32_t ask_why(Guest *guest, uint32_t operation, const char *path, const char *to, uint64_t size) {
        return ask(guest, MESSAGE_WHY, REQUEST(Why, why, .operation = operation, .path = BYTES(path), .to = BYTES(to),
                                               .size = size));
}

/* An administrator asks for another guest. */
static uint32_t ask_why_of(const Guest *other, uint32_t operation, const char *path, const char *to, uint64_t size) {
        const Peercred *cred = &guest_peer(other)->cred;

        return ask(root, MESSAGE_WHY, REQUEST(Why, why, .operation = operation, .path = BYTES(path), .to = BYTES(to),
                                              .size = size, .other = true, .uid = cred->uid, .gid = cred->gid,
                                              .n_groups = cred->n_groups, .groups = cred->groups));
}

static const Shmd__WhyReply *answer(const Guest *guest) {
        return (const Shmd__WhyReply *)guest->reply;
}

/* -- the model ---------------------------------------------------------------------------- */

static uint64_t chance_state;

static uint32_t chance(uint32_t n) {
        return (uint32_t)test_random(&chance_state, n);
}

static const char *const paths[] = {
        "/", "/a", "/a/b", "/a/b/c", "/x", "/a/x", "/a/b/x", "/a/y", "/b", "/b/x", "/b/b/x", "/x/under", "/a/x/under",
        "relative", "/a/../b", "/new", "/a/new", "/a/b/new",
};
#define N_PATHS (sizeof(paths) / sizeof(paths[0]))
#define N_DIRECTORIES 4

static const char *any_path(void) {
        return paths[chance(N_PATHS)];
}

static uint8_t any_perms(void) {
        return (uint8_t)(chance(2) ? 7 : chance(8));
}

/* Somebody may be named, and somebody's group. */
static void change_acl(const char *path) {
        static const uint32_t users[] = { ALICE, BOB, CAROL }, groups[] = { STAFF, VIDEO };
        Shmd__AclEntry entries[ACL_ENTRIES_MAX], *pointers[ACL_ENTRIES_MAX];
        AclList list = { .n = 0 };

        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_USER_OBJ, .perms = any_perms() });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_GROUP_OBJ, .perms = any_perms() });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_OTHER, .perms = any_perms() });
        if (chance(2))
                (void)acl_list_put(&list, (AclEntry){ .tag = ACL_USER, .id = users[chance(3)], .perms = any_perms() });
        if (chance(2))
                (void)acl_list_put(&list, (AclEntry){ .tag = ACL_GROUP, .id = groups[chance(2)],
                                                      .perms = any_perms() });
        if (list.n > 3)
                (void)acl_list_put(&list, (AclEntry){ .tag = ACL_MASK, .perms = any_perms() });
        for (size_t i = 0; i < list.n; ++i) {
                shmd__acl_entry__init(&entries[i]);
                entries[i].tag = list.entries[i].tag;
                entries[i].id = list.entries[i].id;
                entries[i].perms = list.entries[i].perms;
                pointers[i] = &entries[i];
        }
        (void)ask(root, MESSAGE_SET_ACL, REQUEST(SetAcl, set_acl, .path = BYTES(path),
                                                 .flags = SHMD__ACL_FLAGS__ACL_ACCESS,
                                                 .n_access = list.n, .access = pointers));
        if (chance(3) == 0)
                (void)ask(root, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(path), .mode = 01777));
}

/* Limits of somebody, of all, or of a directory; mostly none that matters. */
static void change_limits(void) {
        static const AccountSlot slots[] = { ACCOUNT_BYTES, ACCOUNT_REGIONS, ACCOUNT_GRANTS, ACCOUNT_WATCHES };
        Guest *const guests[] = { alice, bob, carol };
        AccountSlot slot = slots[chance(4)];
        uint64_t limit = chance(2) ? UINT64_C(1) << 40 : slot == ACCOUNT_BYTES ? chance(16) * PAGE : chance(8);
        Spot spot;

        if (chance(3)) {
                guest_peer(guests[chance(3)])->account->max[slot] = limit;
        } else if (chance(2)) {
                table->accounts.pool.max[slot] = limit == UINT64_C(1) << 40 ? QUOTA_UNLIMITED : 4 * limit;
        } else if (tree_find(&table->tree, &house_admin, "/a", 2, &spot) == 0 && node_is_directory(spot.node)) {
                node_directory(spot.node)->account->max[slot] = limit;
                node_touch(spot.node);
        }
}

/* Somebody who can write it seals a region, without a word to the broker. */
static void change_seals(const char *path) {
        Spot spot;

        if (tree_find(&table->tree, &house_admin, path, strlen(path), &spot) == 0 && spot.node->region)
                (void)fcntl(spot.node->region->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL);
}

/* Root makes what is missing, and changes whose it is and who may what. */
static void change_scene(void) {
        static const uid_t uids[] = { 0, ALICE, BOB, CAROL };
        static const gid_t gids[] = { 0, STAFF, VIDEO, ALICE };
        static const char *const directories[N_DIRECTORIES] = { "/a", "/a/b", "/b", "/a/b/c" };
        const char *path = any_path(), *made = directories[chance(N_DIRECTORIES)], *region = paths[4 + chance(7)];

        (void)ask(root, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES(made), .mode = 0755));
        (void)ask(root, MESSAGE_CREATE,
                  REQUEST(Create, create, .path = BYTES(region), .size = chance(3) * PAGE, .mode = 0644,
                          .flags = chance(2) ? SHMD__CREATE_FLAGS__CREATE_FREEZABLE : 0));
        (void)ask(root, MESSAGE_CHOWN,
                  REQUEST(Chown, chown, .path = BYTES(path), .set_uid = true, .uid = uids[chance(4)],
                          .set_gid = true, .gid = gids[chance(4)]));
        change_acl(any_path());
        if (chance(4) == 0)
                change_limits();
        if (chance(2))
                change_seals(any_path());
}

static uint32_t do_wait(Guest *guest, const char *path) {
        uint32_t r = ask(guest, MESSAGE_WAIT, REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = NSEC_PER_SEC));

        if (r != SILENT)
                return r;
        table_pass(2 * NSEC_PER_SEC);
        r = guest_receive(guest);
        REQUIRE(r == ERROR(TIMEOUT), "%s", guest_describe(guest, r));
        return 0;
}

static uint32_t do_watch(Guest *guest, const char *path) {
        uint32_t r = ask(guest, MESSAGE_WATCH, REQUEST(Watch, watch, .path = BYTES(path),
                                                       .mask = SHMD__EVENT_MASK__EVENT_LIMITS));

        if (r == 0)
                guest_expect_done(guest, ask(guest, MESSAGE_UNWATCH, REQUEST(Unwatch, unwatch,
                                             .watch = ((const Shmd__WatchReply *)guest->reply)->watch)));
        return r;
}

static uint32_t do_it(Guest *guest, uint32_t operation, const char *path, const char *to, uint64_t size) {
        switch (operation) {
        case WHY(OPEN):
                return ask(guest, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES(path), .rights = READ));
        case WHY(WRITE):
                return ask(guest, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES(path), .rights = WRITE));
        case WHY(CREATE):
                return ask(guest, MESSAGE_CREATE, REQUEST(Create, create, .path = BYTES(path), .size = size,
                                                          .mode = 0600,
                                                          .rights = WRITE));
        case WHY(MKDIR):
                return ask(guest, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES(path), .mode = 0700));
        case WHY(UNLINK):
                return ask(guest, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES(path)));
        case WHY(RMDIR):
                return ask(guest, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES(path)));
        case WHY(RENAME):
                return ask(guest, MESSAGE_RENAME, REQUEST(Rename, rename, .path = BYTES(path), .to = BYTES(to)));
        case WHY(LINK):
                return ask(guest, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES(path), .to = BYTES(to)));
        case WHY(LIST):
                return ask(guest, MESSAGE_LIST, REQUEST(List, list, .path = BYTES(path)));
        case WHY(STAT):
                return ask(guest, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES(path)));
        case WHY(CHMOD):
                return ask(guest, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(path), .mode = chance(01000)));
        case WHY(CHOWN):
                return ask(guest, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES(path)));
        case WHY(WAIT):
                return do_wait(guest, path);
        case WHY(WATCH):
                return do_watch(guest, path);
        case WHY(FREEZE):
                return ask(guest, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES(path)));
        case WHY(TICKET):
                return ask(guest, MESSAGE_TICKET, REQUEST(Ticket, ticket, .path = BYTES(path), .rights = READ,
                                                          .uses = 1,
                                                          .ttl_ns = 1));
        case WHY(HOLDERS):
                return ask(guest, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES(path),
                                                        .flags = SHMD__STAT_FLAGS__STAT_HOLDERS));
        default:
                REQUIRE(false);
                return 0;
        }
}

/* Every rule but the last has allowed, and the last one decided. */
static void check_steps(const Shmd__WhyReply *reply) {
        for (size_t i = 0; i < reply->n_step; ++i)
                REQUIRE(reply->step[i]->allowed == (reply->allowed || i + 1 < reply->n_step), "step %zu", i);
        if (reply->allowed)
                return;
        REQUIRE(reply->n_step > 0 && reply->step[reply->n_step - 1]->reason == reply->reason, "%u", reply->reason);
        REQUIRE(reply->sentence.len > 0);
}

/* What came out, for people: a test whose scenes allow everything, or nothing, says little. */
static unsigned int outcomes[64];

static void print_outcomes(void) {
        printf("allowed %u", outcomes[0]);
        for (uint32_t reason = 1; reason < sizeof(outcomes) / sizeof(outcomes[0]); ++reason)
                if (outcomes[reason])
                        printf(", %s %u", message_reason_name(reason), outcomes[reason]);
        printf("\n");
}

static void compare_one(void) {
        Guest *const guests[] = { alice, bob, carol, root };
        Guest *guest = guests[chance(10) ? chance(3) : 3];
        uint32_t operation = 1 + chance(WHY(HOLDERS)), error, reason, r;
        const char *path = any_path(), *to = any_path();
        uint64_t size = chance(20) ? chance(4) * PAGE : UINT64_MAX;
        bool allowed;

        guest_expect_done(guest, ask_why(guest, operation, path, to, size));
        check_steps(answer(guest));
        allowed = answer(guest)->allowed;
        error = answer(guest)->error;
        reason = answer(guest)->reason;
        ++outcomes[reason];
        guest_expect_done(root, ask_why_of(guest, operation, path, to, size));
        check_steps(answer(root));
        REQUIRE(answer(root)->allowed == allowed && answer(root)->error == error && answer(root)->reason == reason,
                "operation %u of uid %u on %s, %s", operation, guest_peer(guest)->cred.uid, path, to);

        r = do_it(guest, operation, path, to, size);
        /* Only a client can add the seal, and where somebody has, there is no helper here for the rest. */
        if (operation == WHY(FREEZE) && r != 0 && (guest->refusal->reason == REASON(SEALS) ||
                                                   guest->refusal->reason == REASON(HELPER)))
                r = 0;
        REQUIRE((r == 0) == allowed, "operation %u of uid %u on %s, %s: why says %u/%u, but %s", operation,
                guest_peer(guest)->cred.uid, path, to, error, reason, guest_describe(guest, r));
        REQUIRE(r == 0 || (r == error && guest->refusal->reason == reason),
                "operation %u of uid %u on %s, %s: why says %u/%u, but %s", operation,
                guest_peer(guest)->cred.uid, path, to, error, reason, guest_describe(guest, r));
}

TEST(request_why, what_it_says_is_what_happens) {
        chance_state = test_seed();
        begin();
        for (unsigned int round = 0; round < 4000; ++round) {
                change_scene();
                compare_one();
        }
        print_outcomes();
        end();
}

/* -- who may ask -------------------------------------------------------------------------- */

TEST(request_why, for_somebody_else_only_administrators_may_ask) {
        begin();
        guest_expect(alice, DENIED, ADMIN, ask(alice, MESSAGE_WHY, REQUEST(Why, why, .operation = WHY(STAT),
                     .path = BYTES("/"), .other = true, .uid = BOB, .gid = BOB)));
        guest_expect(alice, DENIED, ADMIN, ask(alice, MESSAGE_WHY, REQUEST(Why, why, .operation = WHY(STAT),
                     .path = BYTES("/"), .other = true, .uid = ALICE, .gid = ALICE)));
        guest_expect(alice, INVALID, MALFORMED, ask(alice, MESSAGE_WHY, REQUEST(Why, why, .operation = WHY(STAT),
                     .path = BYTES("/"), .uid = ALICE)));
        guest_expect(root, INVALID, MALFORMED, ask(root, MESSAGE_WHY, REQUEST(Why, why, .operation = WHY(STAT),
                     .path = BYTES("/"), .other = true, .uid = UINT32_MAX)));
        guest_expect(alice, INVALID, MALFORMED, ask_why(alice, 0, "/", "", 0));
        guest_expect(alice, INVALID, MALFORMED, ask_why(alice, WHY(HOLDERS) + 1, "/", "", 0));
        guest_expect(alice, INVALID, MALFORMED, ask_why(alice, UINT32_MAX, "/", "", 0));
        end();
}

TEST(request_why, groups_of_somebody_else_may_come_in_any_order) {
        uint32_t groups[] = { 900, 5, STAFF, 7 };

        begin();
        guest_expect_done(root, ask_create(root, "/x", 1, 0040));
        guest_expect_done(root, ask(root, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES("/x"), .set_gid = true,
                                                                 .gid = STAFF)));
        guest_expect_done(root, ask(root, MESSAGE_WHY, REQUEST(Why, why, .operation = WHY(OPEN), .path = BYTES("/x"),
                                                               .other = true, .uid = 5000, .gid = 5000,
                                                               .n_groups = 4, .groups = groups)));
        cr_assert(answer(root)->allowed);
        cr_assert_null(accounts_find_user(&table->accounts, 5000), "an account that nobody has is not kept");
        guest_expect_done(root, ask(root, MESSAGE_WHY, REQUEST(Why, why, .operation = WHY(OPEN), .path = BYTES("/x"),
                                                               .other = true, .uid = 5000, .gid = 5000)));
        cr_assert_not(answer(root)->allowed);
        end();
}

TEST(request_why, a_frozen_region_is_opened_for_reading_only) {
        begin();
        guest_expect_done(alice, ask(alice, MESSAGE_CREATE,
                          REQUEST(Create, create, .path = BYTES("/x"), .size = PAGE, .mode = 0600,
                                  .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE)));
        guest_expect_done(alice, ask_why(alice, WHY(WRITE), "/x", "", 0));
        cr_assert(answer(alice)->allowed);
        change_seals("/x");
        guest_expect_done(alice, ask_why(alice, WHY(WRITE), "/x", "", 0));
        cr_assert_not(answer(alice)->allowed);
        cr_assert_eq(answer(alice)->reason, REASON(FROZEN));
        check_steps(answer(alice));
        guest_expect_done(alice, ask_why(alice, WHY(OPEN), "/x", "", 0));
        cr_assert(answer(alice)->allowed);
        end();
}

TEST(request_why, what_may_not_be_searched_is_not_explained) {
        Shmd__WhyStep there, missing;
        size_t n;

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/private", 0700));
        guest_expect_done(alice, ask_create(alice, "/private/x", 1, 0666));
        guest_expect_done(bob, ask_why(bob, WHY(OPEN), "/private/x", "", 0));
        n = answer(bob)->n_step;
        there = *answer(bob)->step[n - 1];
        cr_assert(n == 2 && there.thing.len == 8 && there.reason == REASON(SEARCH) && !there.allowed);
        guest_expect_done(bob, ask_why(bob, WHY(OPEN), "/private/y", "", 0));
        missing = *answer(bob)->step[n - 1];
        cr_assert(answer(bob)->n_step == n && missing.thing.len == 8 && missing.reason == there.reason &&
                  missing.uid == there.uid && missing.mode == there.mode && missing.perms == there.perms);
        end();
}

/* -- what it says ------------------------------------------------------------------------- */

static bool is_about(const Shmd__WhyStep *step, const char *thing, uint32_t reason) {
        return step->thing.len == strlen(thing) && memcmp(step->thing.data, thing, step->thing.len) == 0 &&
               step->reason == reason;
}

TEST(request_why, each_permission_with_who_decided) {
        Shmd__WhyStep *const *steps;

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0755));
        guest_expect_done(alice, ask_create(alice, "/d/x", 1, 0640));
        guest_expect_done(root, ask(root, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES("/d/x"), .set_gid = true,
                                                                 .gid = VIDEO)));
        guest_expect_done(bob, ask_why(bob, WHY(WRITE), "/d/x", "", 0));
        steps = answer(bob)->step;
        cr_assert_eq(answer(bob)->n_step, 4);
        cr_assert(is_about(steps[0], "/", REASON(SEARCH)) && steps[0]->wanted == 1 && steps[0]->by == ACCESS_BY_OTHER &&
                  steps[0]->perms == 7 && steps[0]->mode == 01777);
        cr_assert(is_about(steps[1], "/d", REASON(SEARCH)) && steps[1]->perms == 5 && steps[1]->uid == ALICE);
        cr_assert(is_about(steps[2], "/d/x", REASON(REGION_READ)) && steps[2]->by == ACCESS_BY_GROUP &&
                  steps[2]->id == VIDEO && steps[2]->perms == 4 && steps[2]->allowed);
        cr_assert(is_about(steps[3], "/d/x", REASON(REGION_WRITE)) && steps[3]->wanted == 6 && !steps[3]->allowed);
        cr_assert(answer(bob)->error == ERROR(DENIED) && answer(bob)->reason == REASON(REGION_WRITE));
        end();
}

TEST(request_why, each_limit_with_its_figures) {
        Shmd__WhyStep *const *steps;
        Spot spot;
        size_t n;

        begin();
        guest_expect_done(root, ask_mkdir(root, "/d", 0777));
        REQUIRE(tree_find(&table->tree, &house_admin, "/d", 2, &spot) == 0);
        node_directory(spot.node)->account->max[ACCOUNT_BYTES] = 8 * PAGE;
        node_touch(spot.node);
        guest_peer(alice)->account->max[ACCOUNT_BYTES] = 100 * PAGE;
        guest_expect_done(alice, ask_create(alice, "/d/x", 3 * PAGE, 0600));

        guest_expect_done(alice, ask_why(alice, WHY(CREATE), "/d/y", "", 6 * PAGE));
        n = answer(alice)->n_step;
        steps = answer(alice)->step;
        cr_assert(is_about(steps[0], "/", REASON(SEARCH)) && is_about(steps[1], "/d", REASON(SEARCH)) &&
                  is_about(steps[2], "/d/y", REASON(DIRECTORY_WRITE)));
        cr_assert(is_about(steps[3], "/d/y",
                           REASON(LIMIT)) && steps[3]->allowed && steps[3]->slot == SHMD__SLOT__SLOT_BYTES &&
                  steps[3]->asked == 6 * PAGE && steps[3]->left == 97 * PAGE && steps[3]->limit == 100 * PAGE);
        cr_assert(is_about(steps[n - 1], "/d", REASON(DIRECTORY_LIMIT)) && !steps[n - 1]->allowed &&
                  steps[n - 1]->asked == 6 * PAGE && steps[n - 1]->left == 5 * PAGE && steps[n - 1]->limit == 8 * PAGE);
        cr_assert(answer(alice)->error == ERROR(QUOTA));
        guest_expect_done(alice, ask_why(alice, WHY(CREATE), "/d/y", "", 5 * PAGE));
        cr_assert(answer(alice)->allowed);
        guest_expect_done(alice, ask_mkdir(alice, "/d/e", 0777));
        guest_expect_done(alice, ask_why(alice, WHY(CREATE), "/d/e/y", "", 6 * PAGE));
        n = answer(alice)->n_step;
        cr_assert(is_about(answer(alice)->step[n - 1], "/d", REASON(DIRECTORY_LIMIT)), "the directory above has the limit");
        guest_expect_done(alice, ask_why(alice, WHY(CREATE), "/d/y", "", UINT64_MAX));
        cr_assert(answer(alice)->error == ERROR(INVALID) && answer(alice)->reason == REASON(SIZE));
        end();
}

static bool asked_for_grants(const Guest *guest) {
        for (size_t i = 0; i < answer(guest)->n_step; ++i)
                if (answer(guest)->step[i]->slot == SHMD__SLOT__SLOT_GRANTS)
                        return true;
        return false;
}

/* Without a mark, what a session gets of a region with the same right is one grant (core/grant). */
TEST(request_why, one_more_of_a_grant_that_is_there_needs_no_room) {
        FdList held;
        Spot spot;

        begin();
        guest_expect_done(alice, ask_create(alice, "/x", PAGE, 0600));
        REQUIRE(tree_find(&table->tree, &house_admin, "/x", 2, &spot) == 0);
        guest_peer(alice)->account->max[ACCOUNT_GRANTS] = 1;
        guest_expect_done(alice, ask_why(alice, WHY(OPEN), "/x", "", 0));
        cr_assert(answer(alice)->allowed && asked_for_grants(alice));
        spot.node->region->grants.marks_off = true;
        guest_expect_done(alice, ask_open(alice, "/x", SHMD__RIGHTS__RIGHTS_READ_ONLY));
        held = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        guest_expect_done(alice, ask_why(alice, WHY(OPEN), "/x", "", 0));
        cr_assert(answer(alice)->allowed);
        guest_expect_done(alice, ask_why(alice, WHY(WRITE), "/x", "", 0));
        cr_assert(!answer(alice)->allowed && answer(alice)->reason == REASON(LIMIT));
        cr_assert(asked_for_grants(alice));
        guest_expect_done(alice, ask_why(alice, WHY(OPEN), "/x", "", 0));
        cr_assert_not(asked_for_grants(alice));
        guest_expect_done(root, ask_why_of(alice, WHY(OPEN), "/x", "", 0));
        cr_assert(asked_for_grants(root), "that would be another session");
        guest_expect_done(alice, ask_open(alice, "/x", SHMD__RIGHTS__RIGHTS_READ_ONLY));
        fdlist_deinit(&alice->fds);
        fdlist_deinit(&held);
        end();
}

TEST(request_why, an_administrator_is_one) {
        begin();
        guest_expect_done(alice, ask_why(alice, WHY(CHOWN), "/", "", 0));
        cr_assert(!answer(alice)->allowed && answer(alice)->n_step == 1 && answer(alice)->reason == REASON(ADMIN));
        guest_expect_done(root, ask_why(root, WHY(CHOWN), "/", "", 0));
        cr_assert(answer(root)->allowed && answer(root)->step[0]->by == ACCESS_BY_ADMIN);
        end();
}

/* As many rules as there can be, about paths as long as they can be, with a limit in each directory. */
TEST(request_why, the_longest_answer_fits) {
        char path[PATH_BYTES_MAX + 1] = "", to[PATH_BYTES_MAX + 1] = "";
        static const size_t lengths[] = { 255, 255, 255, 200, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3 };
        size_t n = 0;

        begin();
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); ++i) {
                Spot spot;

                path[n] = to[n] = '/';
                memset(path + n + 1, 'a', lengths[i]);
                memset(to + n + 1, 'b', lengths[i]);
                n += 1 + lengths[i];
                path[n] = to[n] = '\0';
                guest_expect_done(alice, ask_mkdir(alice, path, 0755));
                guest_expect_done(alice, ask_mkdir(alice, to, 0755));
                REQUIRE(tree_find(&table->tree, &house_admin, to, n, &spot) == 0);
                for (AccountSlot slot = 0; slot < _ACCOUNT_SLOT_N; ++slot)
                        node_directory(spot.node)->account->max[slot] = UINT64_C(1) << 60;
                node_touch(spot.node);
        }
        (void)strcpy(path + n, "/x");
        (void)strcpy(to + n, "/y");
        guest_expect_done(alice, ask_create(alice, path, 1, 0600));
        guest_expect_done(alice, ask_why(alice, WHY(LINK), path, to, 0));
        cr_assert(answer(alice)->allowed);
        cr_assert_gt(answer(alice)->n_step, 40);
        guest_peer(alice)->account->max[ACCOUNT_REGIONS] = 0;
        guest_expect_done(alice, ask_why(alice, WHY(LINK), path, to, 0));
        cr_assert(!answer(alice)->allowed && answer(alice)->reason == REASON(LIMIT));
        cr_assert_not(answer(alice)->step[answer(alice)->n_step - 1]->allowed);
        end();
}
