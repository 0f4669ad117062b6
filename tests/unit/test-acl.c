/* include/base/acl.h: which lists are ACLs. Every rule from both sides. */

#include "lib/test.h"

#include <string.h>

#include "base/acl.h"

#define U_OBJ(p) { .tag = ACL_USER_OBJ, .perms = (p) }
#define U(i, p) { .tag = ACL_USER, .id = (i), .perms = (p) }
#define G_OBJ(p) { .tag = ACL_GROUP_OBJ, .perms = (p) }
#define G(i, p) { .tag = ACL_GROUP, .id = (i), .perms = (p) }
#define M(p) { .tag = ACL_MASK, .perms = (p) }
#define O(p) { .tag = ACL_OTHER, .perms = (p) }
#define LIST(...) { .n = sizeof((AclEntry[]){ __VA_ARGS__ }) / sizeof(AclEntry), .entries = { __VA_ARGS__ } }

static AclError check(const AclList *list) {
        return acl_check(list->entries, list->n);
}

TEST(acl, what_a_mode_says_is_a_list) {
        AclList list = LIST(U_OBJ(6), G_OBJ(4), O(0));

        cr_assert_eq(check(&list), ACL_OK);
        cr_assert_not(acl_list_is_extended(&list));
}

TEST(acl, users_groups_and_a_mask_make_it_more) {
        AclList full = LIST(U_OBJ(7), U(0, 7), U(1, 0), U(4294967294, 1), G_OBJ(5), G(0, 3), G(100, 4), M(7), O(7));
        AclList mask = LIST(U_OBJ(7), G_OBJ(5), M(4), O(7));

        cr_assert_eq(check(&full), ACL_OK);
        cr_assert(acl_list_is_extended(&full));
        cr_assert_eq(check(&mask), ACL_OK);
        cr_assert(acl_list_is_extended(&mask));
}

TEST(acl, each_class_must_be_there) {
        AclList lists[] = { LIST(G_OBJ(4), O(0)), LIST(U_OBJ(6), O(0)), LIST(U_OBJ(6), G_OBJ(4)), { .n = 0 } };

        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); ++i)
                cr_assert_eq(check(&lists[i]), ACL_INCOMPLETE);
}

TEST(acl, who_is_named_needs_a_mask) {
        AclList user = LIST(U_OBJ(6), U(1, 4), G_OBJ(4), O(0));
        AclList group = LIST(U_OBJ(6), G_OBJ(4), G(1, 4), O(0));

        cr_assert_eq(check(&user), ACL_WITHOUT_MASK);
        cr_assert_eq(check(&group), ACL_WITHOUT_MASK);
}

TEST(acl, nobody_is_there_twice) {
        AclList lists[] = {
                LIST(U_OBJ(6), U_OBJ(4), G_OBJ(4), O(0)),
                LIST(U_OBJ(6), U(1, 4), U(1, 4), G_OBJ(4), M(4), O(0)),
                LIST(U_OBJ(6), G_OBJ(4), G_OBJ(4), O(0)),
                LIST(U_OBJ(6), G_OBJ(4), G(7, 1), G(7, 2), M(4), O(0)),
                LIST(U_OBJ(6), G_OBJ(4), M(4), M(4), O(0)),
                LIST(U_OBJ(6), G_OBJ(4), O(0), O(0)),
        };

        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); ++i)
                cr_assert_eq(check(&lists[i]), ACL_TWICE);
}

TEST(acl, there_is_one_order) {
        AclList lists[] = {
                LIST(G_OBJ(4), U_OBJ(6), O(0)),
                LIST(U_OBJ(6), O(0), G_OBJ(4)),
                LIST(U_OBJ(6), U(2, 4), U(1, 4), G_OBJ(4), M(4), O(0)),
                LIST(U_OBJ(6), G_OBJ(4), G(8, 1), G(7, 2), M(4), O(0)),
        };

        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); ++i)
                cr_assert_eq(check(&lists[i]), ACL_NOT_SORTED);
}

TEST(acl, fields_have_their_range) {
        AclList list = LIST(U_OBJ(6), U(1, 4), G_OBJ(4), M(4), O(0));
        AclList broken;

        broken = list, broken.entries[0].tag = 0;
        cr_assert_eq(check(&broken), ACL_NO_SUCH_TAG);
        broken = list, broken.entries[4].tag = 7;
        cr_assert_eq(check(&broken), ACL_NO_SUCH_TAG);
        broken = list, broken.entries[4].tag = 255;
        cr_assert_eq(check(&broken), ACL_NO_SUCH_TAG);
        broken = list, broken.entries[2].perms = 8;
        cr_assert_eq(check(&broken), ACL_NO_SUCH_PERMISSION);
        broken = list, broken.entries[1].id = UINT32_MAX;
        cr_assert_eq(check(&broken), ACL_NO_SUCH_ID);
        for (size_t i = 0; i < list.n; ++i) {
                if (i == 1)
                        continue;
                broken = list, broken.entries[i].id = 1;
                cr_assert_eq(check(&broken), ACL_NEEDS_NO_ID);
        }
}

TEST(acl, thirty_two_entries_are_the_most) {
        AclEntry entries[ACL_ENTRIES_MAX + 1] = { U_OBJ(7) };

        for (uint32_t i = 0; i < ACL_ENTRIES_MAX - 4; ++i)
                entries[1 + i] = (AclEntry)U(i, 4);
        entries[ACL_ENTRIES_MAX - 3] = (AclEntry)G_OBJ(4);
        entries[ACL_ENTRIES_MAX - 2] = (AclEntry)M(4);
        entries[ACL_ENTRIES_MAX - 1] = (AclEntry)O(4);
        cr_assert_eq(acl_check(entries, ACL_ENTRIES_MAX), ACL_OK);
        cr_assert_eq(acl_check(entries, ACL_ENTRIES_MAX + 1), ACL_TOO_MANY);
}

TEST(acl, put_keeps_the_order_and_replaces) {
        AclList list = { .n = 0 };

        cr_assert(acl_list_put(&list, (AclEntry)O(1)));
        cr_assert(acl_list_put(&list, (AclEntry)M(1)));
        cr_assert(acl_list_put(&list, (AclEntry)G(5, 1)));
        cr_assert(acl_list_put(&list, (AclEntry)U(9, 1)));
        cr_assert(acl_list_put(&list, (AclEntry)U(3, 1)));
        cr_assert(acl_list_put(&list, (AclEntry)U_OBJ(1)));
        cr_assert(acl_list_put(&list, (AclEntry)G_OBJ(1)));
        cr_assert(acl_list_put(&list, (AclEntry)G(4, 1)));
        cr_assert_eq(check(&list), ACL_OK);
        cr_assert(acl_list_put(&list, (AclEntry)U(9, 6)));
        cr_assert_eq(list.n, 8);
        cr_assert_eq(check(&list), ACL_OK);
        cr_assert_eq(acl_list_find(&list, ACL_USER, 9)->perms, 6);
        cr_assert_null(acl_list_find(&list, ACL_GROUP, 9));
}

TEST(acl, a_full_list_takes_no_more_but_changes) {
        AclList list = { .n = 0 };

        for (uint32_t i = 0; i < ACL_ENTRIES_MAX; ++i)
                cr_assert(acl_list_put(&list, (AclEntry)U(ACL_ENTRIES_MAX - i, 1)));
        cr_assert_not(acl_list_put(&list, (AclEntry)O(1)));
        cr_assert(acl_list_put(&list, (AclEntry)U(1, 7)));
        cr_assert_eq(list.n, ACL_ENTRIES_MAX);
}

TEST(acl, the_mask_that_takes_nothing_is_the_union) {
        AclList list = LIST(U_OBJ(7), U(1, 4), G_OBJ(1), G(5, 0), M(0), O(7));
        AclList plain = LIST(U_OBJ(7), G_OBJ(2), O(7));

        cr_assert_eq(acl_list_group_perms(&list), 5);
        cr_assert_eq(acl_list_group_perms(&plain), 2);
}

TEST(acl, every_error_has_a_sentence_of_its_own) {
        for (AclError a = ACL_OK; a <= ACL_WITHOUT_MASK; ++a)
                for (AclError b = ACL_OK; b < a; ++b)
                        cr_assert_str_neq(acl_error_sentence(a), acl_error_sentence(b));
}
