/* client/acl and client/op-acl: lists on the wire, and as text with this system's names. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <string.h>

#define ROUNDS 2

static bool finished;

static void dispatch(shmd *client, int started) {
        REQUIRE(started == 0);
        while (!finished)
                REQUIRE(shmd_process(client, 20 * SECOND) >= 0);
        finished = false;
}

#define ENTRY(t, i, p) \
        { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__acl_entry__descriptor), .tag = (t), .id = (i), .perms = (p) }

static bool is_entry(const Shmd__AclEntry *entry, uint32_t tag, uint32_t id, uint32_t perms) {
        return entry->tag == tag && entry->id == id && entry->perms == perms;
}

/* -- get -------------------------------------------------------------------------------- */

static void script_get(Peer *peer) {
        Shmd__AclEntry entries[] = { ENTRY(1, 0, 7), ENTRY(2, 42, 6), ENTRY(3, 0, 5), ENTRY(5, 0, 4), ENTRY(6, 0, 0) };
        Shmd__AclEntry *pointers[5];

        for (size_t i = 0; i < 5; ++i)
                pointers[i] = &entries[i];
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__GetAcl *get = peer_expect(peer, MESSAGE_GET_ACL);

                REQUIRE(get->path.len == 2 && memcmp(get->path.data, "/a", 2) == 0);
                peer_reply(peer, MESSAGE(AclReply, acl_reply, .uid = 1, .gid = 2, .mode = 01740, .n_access = 5,
                                         .access = pointers, .n_defaults = 2, .defaults = pointers + 3), NULL, 0);
        }
        (void)peer_expect(peer, MESSAGE_GET_ACL);
        peer_refuse(peer, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH, "no");
}

static struct shmd_acl_result *got;

static void finish_get(shmd *client, shmd_call *call, void *userdata) {
        REQUIRE(shmd_acl_get_finish(call, &got) == 0);
        finished = true;
}

static void check_got(void) {
        cr_assert(got->kind == SHMD_NODE_DIRECTORY && got->uid == 1 && got->gid == 2 && got->mode == 01740);
        cr_assert_eq(got->n_access, 5);
        cr_assert(got->access[1].tag == SHMD_ACL_USER && got->access[1].id == 42 && got->access[1].perms == 6);
        cr_assert_eq(got->n_defaults, 2);
        cr_assert(got->defaults[0].tag == SHMD_ACL_MASK && got->defaults[0].perms == 4);
        cr_assert(got->defaults[1].tag == SHMD_ACL_OTHER && got->defaults[1].perms == 0);
        got = shmd_acl_free(got);
}

TEST(client_acl, get_returns_both_lists) {
        shmd *client = peer_start_and_connect(script_get);

        cr_assert_eq(shmd_acl_get(client, "/a", &got, 0), 0);
        check_got();
        dispatch(client, shmd_acl_get_start(client, "/a", 0, finish_get, NULL, NULL));
        check_got();
        cr_assert_eq(shmd_acl_get(client, "/a", &got, 0), -EACCES);
        cr_assert_null(got);
        cr_assert_null(shmd_acl_free(NULL));
        cr_assert_eq(shmd_acl_get(client, "a", &got, 0), -EINVAL);
        peer_join(client);
}

/* -- set -------------------------------------------------------------------------------- */

static void script_set(Peer *peer) {
        const Shmd__SetAcl *set;

        for (unsigned int i = 0; i < ROUNDS; ++i) {
                set = peer_expect(peer, MESSAGE_SET_ACL);
                REQUIRE(set->path.len == 2 && set->flags == 3 && set->n_access == 5 && set->n_defaults == 3);
                REQUIRE(is_entry(set->access[0], 1, 0, 7) && is_entry(set->access[1], 2, 42, 6));
                REQUIRE(is_entry(set->access[2], 3, 0, 5) && is_entry(set->access[3], 5, 0, 7));
                REQUIRE(is_entry(set->access[4], 6, 0, 1));
                REQUIRE(is_entry(set->defaults[0], 1, 0, 7) && is_entry(set->defaults[2], 6, 0, 1));
                peer_done(peer);
        }
        set = peer_expect(peer, MESSAGE_SET_ACL);
        REQUIRE(set->flags == 2 && set->n_access == 0 && set->n_defaults == 0);
        peer_done(peer);
        set = peer_expect(peer, MESSAGE_SET_ACL);
        REQUIRE(set->flags == 1 && set->n_access == 0);
        peer_refuse(peer, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_ACL, "no");
}

static void finish_set(shmd *client, shmd_call *call, void *userdata) {
        REQUIRE(shmd_acl_set_finish(call) == 0);
        finished = true;
}

/* In no order at all. */
static const struct shmd_acl_entry access_list[] = {
        { SHMD_ACL_OTHER, 0, 1 }, { SHMD_ACL_USER, 42, 6 }, { SHMD_ACL_MASK, 0, 7 }, { SHMD_ACL_USER_OBJ, 0, 7 },
        { SHMD_ACL_GROUP_OBJ, 0, 5 },
};
static const struct shmd_acl_entry default_list[] = {
        { SHMD_ACL_OTHER, 0, 1 }, { SHMD_ACL_GROUP_OBJ, 0, 5 }, { SHMD_ACL_USER_OBJ, 0, 7 },
};

TEST(client_acl, set_sorts_and_sends_both_lists) {
        shmd *client = peer_start_and_connect(script_set);

        cr_assert_eq(shmd_acl_set(client, "/a", SHMD_ACL_ACCESS | SHMD_ACL_DEFAULT, access_list, 5, default_list, 3,
                                  0), 0);
        dispatch(client, shmd_acl_set_start(client, "/a", SHMD_ACL_ACCESS | SHMD_ACL_DEFAULT, access_list, 5,
                                            default_list, 3, 0, finish_set, NULL, NULL));
        cr_assert_eq(shmd_acl_set(client, "/a", SHMD_ACL_DEFAULT, NULL, 0, NULL, 0, 0), 0);
        cr_assert_eq(shmd_acl_set(client, "/a", SHMD_ACL_ACCESS, NULL, 0, NULL, 0, 0), -EINVAL);
        peer_join(client);
}

static void expect_own_refusal(shmd *client, const struct shmd_acl_entry *entries, size_t n, const char *sentence) {
        cr_assert_eq(shmd_acl_set(client, "/a", SHMD_ACL_ACCESS, entries, n, NULL, 0, 0), -EINVAL);
        cr_assert_str_eq(shmd_refusal(client)->sentence, sentence);
        cr_assert_str_eq(shmd_reason_name(shmd_refusal(client)->reason), "acl");
        cr_assert_str_eq(shmd_refusal(client)->thing, "/a");
        cr_assert_eq(shmd_refusal(client)->code, 0, "the broker was not asked");
        cr_assert_eq(shmd_acl_set(client, "/a", SHMD_ACL_DEFAULT, NULL, 0, entries, n, 0), -EINVAL);
}

TEST(client_acl, what_is_no_list_is_not_sent) {
        static const struct shmd_acl_entry twice[] = {
                { SHMD_ACL_USER_OBJ, 0, 7 }, { SHMD_ACL_OTHER, 0, 7 }, { SHMD_ACL_GROUP_OBJ, 0,
                                                                         7 }, { SHMD_ACL_OTHER, 0, 7 },
        };
        static const struct shmd_acl_entry cut[] = {
                { SHMD_ACL_USER_OBJ, 0, 256 + 7 }, { SHMD_ACL_GROUP_OBJ, 0, 7 }, { SHMD_ACL_OTHER, 0, 7 },
        };
        static const struct shmd_acl_entry many[SHMD_ACL_MAX + 1] = { { SHMD_ACL_USER_OBJ, 0, 7 } };
        shmd *client = peer_start_and_connect(peer_expect_end);

        expect_own_refusal(client, default_list, 2,
                           "an ACL has an entry each for the owner, the owning group and others");
        expect_own_refusal(client, access_list, 2,
                           "an ACL has an entry each for the owner, the owning group and others");
        expect_own_refusal(client, twice, 4,
                           "an ACL has only one entry for each user and group, one mask and one for others");
        expect_own_refusal(client, cut, 3, "the permissions of an entry are read, write and search");
        expect_own_refusal(client, many, SHMD_ACL_MAX + 1, "an ACL has at most 32 entries");
        peer_join(client);
}

/* -- text ------------------------------------------------------------------------------- */

TEST(client_acl, text_becomes_lists_by_names_and_numbers) {
        struct shmd_acl_lists lists;

        errno = 77;
        cr_assert_eq(shmd_acl_from_text("u::7,u:root:r,g:root:w,g:54321:x,d:o:r", 0, &lists, NULL, NULL), 0);
        cr_assert_eq(errno, 77);
        cr_assert_eq(lists.n_access, 4);
        cr_assert(lists.access[1].tag == SHMD_ACL_USER && lists.access[1].id == 0 && lists.access[1].perms == 4);
        cr_assert(lists.access[2].tag == SHMD_ACL_GROUP && lists.access[2].id == 0 && lists.access[2].perms == 2);
        cr_assert(lists.access[3].tag == SHMD_ACL_GROUP && lists.access[3].id == 54321 && lists.access[3].perms == 1);
        cr_assert_eq(lists.n_defaults, 1);
        cr_assert(lists.defaults[0].tag == SHMD_ACL_OTHER && lists.defaults[0].perms == 4);
        cr_assert_eq(shmd_acl_from_text("u:root", SHMD_ACL_TEXT_BARE, &lists, NULL, NULL), 0);
        cr_assert_eq(lists.n_access, 1);
        cr_assert_eq(lists.n_defaults, 0);
}

TEST(client_acl, text_that_is_wrong_is_pointed_at) {
        struct shmd_acl_lists lists;
        const char *sentence;
        size_t at;

        cr_assert_eq(shmd_acl_from_text("u::7,  g:no such group:r", 0, &lists, &at, &sentence), -EINVAL);
        cr_assert_eq(at, 7);
        cr_assert_str_eq(sentence, "there is no such group");
        cr_assert_eq(lists.n_access, 0);
        cr_assert_eq(shmd_acl_from_text("u:no such user:r", 0, &lists, NULL, &sentence), -EINVAL);
        cr_assert_str_eq(sentence, "there is no such user");
        cr_assert_eq(shmd_acl_from_text("u:root", 0, &lists, NULL, NULL), -EINVAL);
        cr_assert_eq(shmd_acl_from_text(NULL, 0, &lists, &at, &sentence), -EINVAL);
        cr_assert_eq(at, 0);
}

TEST(client_acl, entries_become_text_that_fits) {
        static const struct shmd_acl_entry root = { SHMD_ACL_USER, 0, 6 }, nobody = { SHMD_ACL_GROUP, 4000000000, 1 };
        static const struct shmd_acl_entry bad = { 99, 0, 1 }, worse = { SHMD_ACL_OTHER, 3, 1 };
        char text[64];

        cr_assert_eq(shmd_acl_to_text(&root, 0, text, sizeof(text)), 13);
        cr_assert_str_eq(text, "user:root:rw-");
        cr_assert_eq(shmd_acl_to_text(&root, SHMD_ACL_TEXT_SHORT | SHMD_ACL_TEXT_DEFAULT, text, sizeof(text)), 12);
        cr_assert_str_eq(text, "d:u:root:rw-");
        cr_assert_eq(shmd_acl_to_text(&root, SHMD_ACL_TEXT_NUMERIC | SHMD_ACL_TEXT_SHORT, text, 5), 7);
        cr_assert_str_eq(text, "u:0:");
        cr_assert_eq(shmd_acl_to_text(&root, 0, NULL, 0), 13);
        cr_assert_eq(shmd_acl_to_text(&nobody, 0, text, sizeof(text)), 20);
        cr_assert_str_eq(text, "group:4000000000:--x");
        cr_assert_eq(shmd_acl_to_text(&bad, 0, text, sizeof(text)), -EINVAL);
        cr_assert_eq(shmd_acl_to_text(&worse, 0, text, sizeof(text)), -EINVAL);
        cr_assert_eq(shmd_acl_to_text(NULL, 0, text, sizeof(text)), -EINVAL);
}
