/* proto/acltext: what setfacl(1) takes and getfacl(1) prints, and nothing else. */

#include "lib/test.h"

#include <stdio.h>
#include <string.h>

#include "proto/acltext.h"

static const struct {
        AclTag tag;
        const char *name;
        uint32_t id;
} people[] = {
        { ACL_USER, "alice", 1001 },
        { ACL_USER, "bob", 1002 },
        { ACL_USER, "7", 1007 },
        { ACL_GROUP, "staff", 50 },
        { ACL_GROUP, "alice", 2001 },
};
#define N_PEOPLE (sizeof(people) / sizeof(people[0]))

static bool find(AclTag tag, const char *name, uint32_t *ret, void *userdata) {
        (void)userdata;
        for (size_t i = 0; i < N_PEOPLE; ++i)
                if (people[i].tag == tag && strcmp(people[i].name, name) == 0) {
                        *ret = people[i].id;
                        return true;
                }
        return false;
}

static bool name_of(AclTag tag, uint32_t id, char name[ACLTEXT_NAME_MAX + 1], void *userdata) {
        (void)userdata;
        for (size_t i = 0; i < N_PEOPLE; ++i)
                if (people[i].tag == tag && people[i].id == id) {
                        (void)strcpy(name, people[i].name);
                        return true;
                }
        return false;
}

static AclText parse_with(const char *text, unsigned int flags) {
        AclTextError error = { .sentence = NULL };
        AclText acl;

        cr_assert_eq(acltext_parse(text, strlen(text), flags, find, NULL, &acl, &error), 0,
                     "%s: %s", text, error.sentence);
        return acl;
}

static AclText parse(const char *text) {
        return parse_with(text, 0);
}

static void expect_entry(const AclList *list, size_t i, AclTag tag, uint32_t id, unsigned int perms) {
        cr_assert_lt(i, list->n);
        cr_assert_eq(list->entries[i].tag, tag);
        cr_assert_eq(list->entries[i].id, id);
        cr_assert_eq(list->entries[i].perms, perms);
}

/* The text is refused, for these of its bytes. */
static void expect_refused(const char *text, unsigned int flags, const char *piece) {
        AclTextError error = { .sentence = NULL };
        AclText acl;

        cr_assert_eq(acltext_parse(text, strlen(text), flags, find, NULL, &acl, &error), ACLTEXT_E_INVALID, "%s", text);
        cr_assert_not_null(error.sentence);
        cr_assert_eq(error.n, strlen(piece), "%s: %.*s", text, (int)error.n, text + error.at);
        cr_assert_arr_eq(text + error.at, piece, error.n);
        cr_assert_eq(acltext_parse(text, strlen(text), flags, find, NULL, &acl, NULL), ACLTEXT_E_INVALID);
}

TEST(acltext, a_list_is_read_and_sorted) {
        AclText acl = parse("o::r--,m::rwx,g:staff:rw-,g::r-x,u:bob:r--,u:alice:-,u::rwx");

        cr_assert_eq(acl.access.n, 7);
        cr_assert_eq(acl.defaults.n, 0);
        expect_entry(&acl.access, 0, ACL_USER_OBJ, 0, 7);
        expect_entry(&acl.access, 1, ACL_USER, 1001, 0);
        expect_entry(&acl.access, 2, ACL_USER, 1002, 4);
        expect_entry(&acl.access, 3, ACL_GROUP_OBJ, 0, 5);
        expect_entry(&acl.access, 4, ACL_GROUP, 50, 6);
        expect_entry(&acl.access, 5, ACL_MASK, 0, 7);
        expect_entry(&acl.access, 6, ACL_OTHER, 0, 4);
        cr_assert_eq(acl_check(acl.access.entries, acl.access.n), ACL_OK);
}

TEST(acltext, words_and_letters_mean_the_same) {
        AclText a = parse("user::rwx,user:alice:r,group::rx,group:staff:w,mask::7,other::0");
        AclText b = parse("u::rwx,u:alice:r,g::rx,g:staff:w,m::7,o::0");

        cr_assert_eq(a.access.n, 6);
        cr_assert_eq(a.access.n, b.access.n);
        for (size_t i = 0; i < a.access.n; ++i)
                expect_entry(&a.access, i, (AclTag)b.access.entries[i].tag, b.access.entries[i].id,
                             b.access.entries[i].perms);
}

TEST(acltext, what_getfacl_prints_is_read) {
        AclText acl = parse_with("# name: /camera\n# owner: alice\n# group: staff\nuser::rwx\nuser:bob:rwx\t#effective:r-x\n"
                                 "group::r-x\nmask::r-x\nother::r-x\n\ndefault:user::rwx\ndefault:group::r-x\n"
                                 "default:other::---\n", ACLTEXT_DEFAULTS);

        cr_assert_eq(acl.access.n, 5);
        expect_entry(&acl.access, 1, ACL_USER, 1002, 7);
        cr_assert_eq(acl.defaults.n, 3);
        expect_entry(&acl.defaults, 2, ACL_OTHER, 0, 0);
}

TEST(acltext, every_way_to_spell_permissions) {
        static const struct {
                const char *text;
                unsigned int perms;
        } rows[] = {
                { "---", 0 }, { "-", 0 }, { "--", 0 }, { "0", 0 }, { "x", 1 }, { "--x", 1 }, { "x--", 1 }, { "1", 1 },
                { "w", 2 }, { "-w-", 2 }, { "2", 2 }, { "wx", 3 }, { "xw", 3 }, { "3", 3 }, { "r", 4 }, { "r--", 4 },
                { "4", 4 }, { "r-x", 5 }, { "xr", 5 }, { "5", 5 }, { "rw", 6 }, { "-rw", 6 }, { "6", 6 }, { "rwx", 7 },
                { "xwr", 7 }, { "7", 7 },
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
                char text[16];

                (void)snprintf(text, sizeof(text), "u::%s", rows[i].text);
                expect_entry(&(AclList[]){ parse(text).access }[0], 0, ACL_USER_OBJ, 0, rows[i].perms);
        }
}

TEST(acltext, mask_and_other_need_no_empty_field) {
        AclText acl = parse("m:rx,o:r");

        expect_entry(&acl.access, 0, ACL_MASK, 0, 5);
        expect_entry(&acl.access, 1, ACL_OTHER, 0, 4);
}

TEST(acltext, a_name_goes_before_a_number) {
        AclText acl = parse("u:7:r,u:8:w,u:4294967294:x,g:alice:r");

        expect_entry(&acl.access, 0, ACL_USER, 8, 2);
        expect_entry(&acl.access, 1, ACL_USER, 1007, 4);
        expect_entry(&acl.access, 2, ACL_USER, 4294967294, 1);
        expect_entry(&acl.access, 3, ACL_GROUP, 2001, 4);
}

TEST(acltext, without_a_lookup_there_are_only_numbers) {
        AclTextError error;
        AclText acl;

        cr_assert_eq(acltext_parse("u:7:r", 5, 0, NULL, NULL, &acl, &error), 0);
        expect_entry(&acl.access, 0, ACL_USER, 7, 4);
        cr_assert_eq(acltext_parse("u:alice:r", 9, 0, NULL, NULL, &acl, &error), ACLTEXT_E_INVALID);
        cr_assert_str_eq(error.sentence, "there is no such user");
}

TEST(acltext, space_around_fields_and_empty_entries_are_skipped) {
        AclText acl = parse(" u : : rwx , ,\n\n\t g::r ,# u:alice:rwx, o::7\n,o::-\r\n");

        cr_assert_eq(acl.access.n, 3);
        expect_entry(&acl.access, 0, ACL_USER_OBJ, 0, 7);
        expect_entry(&acl.access, 1, ACL_GROUP_OBJ, 0, 4);
        expect_entry(&acl.access, 2, ACL_OTHER, 0, 0);
        cr_assert_eq(parse("").access.n, 0);
        cr_assert_eq(parse("#").access.n, 0);
        cr_assert_eq(parse("u::r#").access.n, 1);
}

TEST(acltext, entries_of_both_lists_can_be_mixed) {
        AclText acl = parse_with("d:u:alice:rw,u:alice:r,default:g::x,d:o:r", ACLTEXT_DEFAULTS);

        cr_assert_eq(acl.access.n, 1);
        cr_assert_eq(acl.defaults.n, 3);
        expect_entry(&acl.access, 0, ACL_USER, 1001, 4);
        expect_entry(&acl.defaults, 0, ACL_USER, 1001, 6);
        expect_entry(&acl.defaults, 1, ACL_GROUP_OBJ, 0, 1);
        expect_entry(&acl.defaults, 2, ACL_OTHER, 0, 4);
}

TEST(acltext, entries_to_remove_have_no_permissions) {
        AclText acl = parse_with("u:alice,g:staff:,m,d:m::,o", ACLTEXT_BARE | ACLTEXT_DEFAULTS);

        cr_assert_eq(acl.access.n, 4);
        expect_entry(&acl.access, 0, ACL_USER, 1001, 0);
        expect_entry(&acl.access, 1, ACL_GROUP, 50, 0);
        expect_entry(&acl.access, 2, ACL_MASK, 0, 0);
        expect_entry(&acl.access, 3, ACL_OTHER, 0, 0);
        cr_assert_eq(acl.defaults.n, 1);
        expect_refused("u:alice:r", ACLTEXT_BARE, "u:alice:r");
        expect_refused("u:alice::", ACLTEXT_BARE, "u:alice::");
}

TEST(acltext, what_is_no_entry_is_refused_and_named) {
        static const char *const bad[] = {
                "x::r", "user", "u", "u:r", "u:rwx", "u:alice", "u:", "u::", "u::q", "u::rr", "u::rwxx", "u::rwx-", "u::8",
                "u::77", "u::R", "u:alice:", "u:nobody at all:r", "g:bob:r", "u:-1:r", "u:4294967295:r", "u:1e3:r",
                "u:18446744073709551616:r", "m:alice:r", "o:1:r", "u:alice:r:x", "default", "d", "d:", "d:u", ":", "::", ":::",
                "us::r", "User::r", "u;alice;r", "default:user:alice:r:x",
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i) {
                char text[64];

                expect_refused(bad[i], ACLTEXT_DEFAULTS, bad[i]);
                (void)snprintf(text, sizeof(text), "o::r, %s ,m::x", bad[i]);
                expect_refused(text, ACLTEXT_DEFAULTS, bad[i]);
        }
        expect_refused("o::r,d:u::r", 0, "d:u::r");
        expect_refused("u::r,o::r,u::w", 0, "u::w");
        expect_refused("u:alice:r,u:1001:r", 0, "u:1001:r");
}

TEST(acltext, bytes_of_any_kind_are_only_refused) {
        static const char nul[] = "u:al\0ice:r", long_name[300] = { 0 };
        char text[sizeof(long_name) + 8];
        AclText acl;

        cr_assert_eq(acltext_parse(nul, sizeof(nul) - 1, 0, find, NULL, &acl, NULL), ACLTEXT_E_INVALID);
        (void)snprintf(text, sizeof(text), "u:%0299d:r", 9);
        expect_entry(&(AclList[]){ parse(text).access }[0], 0, ACL_USER, 9, 4);
        memset(text + 2, 'a', 299);
        expect_refused(text, 0, text);
        for (unsigned int c = 0; c < 256; ++c) {
                char one = (char)c;

                (void)acltext_parse(&one, 1, ACLTEXT_DEFAULTS | ACLTEXT_BARE, find, NULL, &acl, NULL);
        }
}

TEST(acltext, thirty_two_entries_are_the_most) {
        char text[1024] = "";
        AclTextError error;
        size_t n = 0;
        AclText acl;

        for (unsigned int i = 0; i < ACL_ENTRIES_MAX; ++i)
                n += (size_t)snprintf(text + n, sizeof(text) - n, "u:%u:r,d:u:%u:r,", 100 - i, i);
        acl = parse_with(text, ACLTEXT_DEFAULTS);
        cr_assert_eq(acl.access.n, ACL_ENTRIES_MAX);
        cr_assert_eq(acl.defaults.n, ACL_ENTRIES_MAX);
        (void)snprintf(text + n, sizeof(text) - n, "o::r");
        cr_assert_eq(acltext_parse(text, strlen(text), ACLTEXT_DEFAULTS, find, NULL, &acl, &error), ACLTEXT_E_INVALID);
        cr_assert_str_eq(error.sentence, acl_error_sentence(ACL_TOO_MANY));
}

static void expect_text(AclEntry entry, unsigned int flags, const char *expected) {
        char text[ACLTEXT_ENTRY_MAX];

        cr_assert_eq(acltext_format(&entry, flags, name_of, NULL, text), strlen(expected));
        cr_assert_str_eq(text, expected);
}

TEST(acltext, entries_are_written_as_getfacl_does) {
        expect_text((AclEntry){ .tag = ACL_USER_OBJ, .perms = 7 }, 0, "user::rwx");
        expect_text((AclEntry){ .tag = ACL_USER, .id = 1001, .perms = 5 }, 0, "user:alice:r-x");
        expect_text((AclEntry){ .tag = ACL_USER, .id = 50, .perms = 2 }, 0, "user:50:-w-");
        expect_text((AclEntry){ .tag = ACL_GROUP, .id = 50, .perms = 0 }, 0, "group:staff:---");
        expect_text((AclEntry){ .tag = ACL_GROUP_OBJ, .perms = 1 }, ACLTEXT_SHORT, "g::--x");
        expect_text((AclEntry){ .tag = ACL_MASK, .perms = 4 }, ACLTEXT_SHORT | ACLTEXT_IS_DEFAULT, "d:m::r--");
        expect_text((AclEntry){ .tag = ACL_OTHER, .perms = 6 }, ACLTEXT_IS_DEFAULT, "default:other::rw-");
}

static bool name_longest(AclTag tag, uint32_t id, char name[ACLTEXT_NAME_MAX + 1], void *userdata) {
        memset(name, 'n', ACLTEXT_NAME_MAX);
        name[ACLTEXT_NAME_MAX] = '\0';
        return true;
}

TEST(acltext, the_longest_name_has_room) {
        AclEntry entry = { .tag = ACL_GROUP, .id = 1, .perms = 7 };
        char text[ACLTEXT_ENTRY_MAX];

        cr_assert_eq(acltext_format(&entry, ACLTEXT_IS_DEFAULT, name_longest, NULL, text), ACLTEXT_ENTRY_MAX - 1);
        cr_assert_eq(strlen(text), ACLTEXT_ENTRY_MAX - 1);
}

TEST(acltext, what_is_written_is_read_back) {
        AclText acl = parse("u::rwx,u:alice:r,u:3:w,g::x,g:staff:rw,g:9:-,m::rw,o::x"), again;
        char text[1024] = "";

        for (size_t i = 0; i < acl.access.n; ++i) {
                char entry[ACLTEXT_ENTRY_MAX];

                (void)acltext_format(&acl.access.entries[i], i % 2 ? ACLTEXT_SHORT : 0, i % 3 ? name_of : NULL, NULL,
                                     entry);
                (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\n", entry);
        }
        again = parse(text);
        cr_assert_eq(again.access.n, acl.access.n);
        for (size_t i = 0; i < acl.access.n; ++i)
                expect_entry(&again.access, i, (AclTag)acl.access.entries[i].tag, acl.access.entries[i].id,
                             acl.access.entries[i].perms);
}
