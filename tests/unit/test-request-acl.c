/* daemon/broker/request-acl: ACLs are set and got whole, inherited, and decide. */

#include "daemon-table.h"

#include <stdio.h>
#include <string.h>

#include "core/acl.h"

static Guest *root, *alice, *bob, *carol;

static void begin(void) {
        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
        carol = guest_new(CAROL);
}

static void end(void) {
        root = guest_free(root);
        alice = guest_free(alice);
        bob = guest_free(bob);
        carol = guest_free(carol);
        table_close();
}

/* A list for a request: ENTRIES(E(USER_OBJ, 0, 7), ...) */
#define E(name, who, rights) { .tag = ACL_##name, .id = (who), .perms = (rights) }
#define ENTRIES(...) (AclEntry[]){ __VA_ARGS__ }, sizeof((AclEntry[]){ __VA_ARGS__ }) / sizeof(AclEntry)

typedef struct Sent {
        Shmd__AclEntry entries[40];
        Shmd__AclEntry *pointers[40];
} Sent;

static size_t send_list(Sent *sent, const AclEntry *entries, size_t n) {
        for (size_t i = 0; i < n; ++i) {
                shmd__acl_entry__init(&sent->entries[i]);
                sent->entries[i].tag = entries[i].tag;
                sent->entries[i].id = entries[i].id;
                sent->entries[i].perms = entries[i].perms;
                sent->pointers[i] = &sent->entries[i];
        }
        return n;
}

static uint32_t ask_set(Guest *guest, const char *path, uint32_t flags, const AclEntry *entries, size_t n) {
        bool defaults = flags == SHMD__ACL_FLAGS__ACL_DEFAULT;
        Sent sent;
        size_t n_sent = send_list(&sent, entries, n);

        return guest_ask(guest, MESSAGE_SET_ACL,
                         REQUEST(SetAcl, set_acl, .path = BYTES(path), .flags = flags,
                                 .n_access = defaults ? 0 : n_sent, .access = defaults ? NULL : sent.pointers,
                                 .n_defaults = defaults ? n_sent : 0, .defaults = defaults ? sent.pointers : NULL));
}

/* Both lists, as they are. */
static uint32_t ask_set_both(Guest *guest, const char *path, uint32_t flags,
                             Sent *access, size_t n_access, Sent *defaults, size_t n_defaults) {
        return guest_ask(guest, MESSAGE_SET_ACL,
                         REQUEST(SetAcl, set_acl, .path = BYTES(path), .flags = flags,
                                 .n_access = n_access, .access = access->pointers,
                                 .n_defaults = n_defaults, .defaults = defaults->pointers));
}

static uint32_t set_access(Guest *guest, const char *path, const AclEntry *entries, size_t n) {
        return ask_set(guest, path, SHMD__ACL_FLAGS__ACL_ACCESS, entries, n);
}

static uint32_t set_default(Guest *guest, const char *path, const AclEntry *entries, size_t n) {
        return ask_set(guest, path, SHMD__ACL_FLAGS__ACL_DEFAULT, entries, n);
}

static uint32_t ask_get(Guest *guest, const char *path) {
        return guest_ask(guest, MESSAGE_GET_ACL, REQUEST(GetAcl, get_acl, .path = BYTES(path)));
}

static void expect_list(Shmd__AclEntry *const *got, size_t n_got, const AclEntry *entries, size_t n) {
        REQUIRE(n_got == n, "%zu entries, not %zu", n_got, n);
        for (size_t i = 0; i < n; ++i)
                REQUIRE(got[i]->tag == entries[i].tag && got[i]->id == entries[i].id &&
                        got[i]->perms == entries[i].perms, "entry %zu is %u %u %u", i, got[i]->tag, got[i]->id, got[i]->perms);
}

static void expect_access(const char *path, uint32_t mode, const AclEntry *entries, size_t n) {
        const Shmd__AclReply *reply;

        guest_expect_done(root, ask_get(root, path));
        reply = (const Shmd__AclReply *)root->reply;
        REQUIRE(reply->mode == mode, "mode %o", reply->mode);
        expect_list(reply->access, reply->n_access, entries, n);
}

static void expect_defaults(const char *path, const AclEntry *entries, size_t n) {
        const Shmd__AclReply *reply;

        guest_expect_done(root, ask_get(root, path));
        reply = (const Shmd__AclReply *)root->reply;
        expect_list(reply->defaults, reply->n_defaults, entries, n);
}

static bool shown(const char *path) {
        guest_expect_done(root, ask_stat(root, path));
        return ((const Shmd__StatReply *)root->reply)->node->acl;
}

static uint32_t ask_chmod(Guest *guest, const char *path, uint32_t mode) {
        return guest_ask(guest, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(path), .mode = mode));
}

#define READ SHMD__RIGHTS__RIGHTS_READ_ONLY
#define WRITE SHMD__RIGHTS__RIGHTS_READ_WRITE

/* u::rw-,u:BOB:rw-,g::r--,m::rw-,o::--- */
#define FOR_BOB ENTRIES(E(USER_OBJ, 0, 6), E(USER, BOB, 6), E(GROUP_OBJ, 0, 4), E(MASK, 0, 6), E(OTHER, 0, 0))

TEST(request_acl, without_an_acl_it_is_the_mode) {
        begin();
        guest_expect_done(alice, ask_create(alice, "/plain", 1, 0640));
        expect_access("/plain", 0640, ENTRIES(E(USER_OBJ, 0, 6), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0)));
        cr_assert_not(shown("/plain"));
        guest_expect_done(bob, ask_get(bob, "/plain"));
        expect_access("/", 01777, ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 7), E(OTHER, 0, 7)));
        end();
}

TEST(request_acl, who_is_named_gets_what_it_says) {
        begin();
        guest_expect_done(alice, ask_create(alice, "/shared", 1, 0600));
        guest_expect(bob, DENIED, REGION_READ, ask_open(bob, "/shared", READ));
        guest_expect_done(alice, set_access(alice, "/shared", FOR_BOB));
        guest_expect_done(bob, ask_open(bob, "/shared", WRITE));
        guest_expect(carol, DENIED, REGION_READ, ask_open(carol, "/shared", READ));
        expect_access("/shared", 0660, FOR_BOB);
        cr_assert(shown("/shared"));
        end();
}

TEST(request_acl, chmod_changes_the_mask) {
        begin();
        guest_expect_done(alice, ask_create(alice, "/shared", 1, 0600));
        guest_expect_done(alice, set_access(alice, "/shared", FOR_BOB));
        guest_expect_done(alice, ask_chmod(alice, "/shared", 0640));
        expect_access("/shared", 0640,
                      ENTRIES(E(USER_OBJ, 0, 6), E(USER, BOB, 6), E(GROUP_OBJ, 0, 4), E(MASK, 0, 4), E(OTHER, 0, 0)));
        guest_expect_done(bob, ask_open(bob, "/shared", READ));
        guest_expect(bob, DENIED, REGION_WRITE, ask_open(bob, "/shared", WRITE));
        guest_expect_done(alice, ask_chmod(alice, "/shared", 0606));
        guest_expect(bob, DENIED, REGION_READ, ask_open(bob, "/shared", READ));
        guest_expect_done(carol, ask_open(carol, "/shared", WRITE));
        end();
}

TEST(request_acl, a_list_that_says_what_a_mode_can_is_one) {
        begin();
        guest_expect_done(alice, ask_create(alice, "/shared", 1, 0600));
        guest_expect_done(alice, set_access(alice, "/shared", FOR_BOB));
        guest_expect_done(alice, set_access(alice, "/shared",
                                            ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 5), E(OTHER, 0, 1))));
        expect_access("/shared", 0751, ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 5), E(OTHER, 0, 1)));
        cr_assert_not(shown("/shared"));
        end();
}

TEST(request_acl, the_sticky_bit_stays) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 01777));
        guest_expect_done(alice, set_access(alice, "/d", ENTRIES(E(USER_OBJ, 0, 7), E(USER, BOB, 7), E(GROUP_OBJ, 0, 0),
                                                                E(MASK, 0, 7), E(OTHER, 0, 0))));
        guest_expect_done(alice, ask_create(alice, "/d/hers", 1, 0600));
        guest_expect_done(bob, ask_create(bob, "/d/his", 1, 0600));
        guest_expect(bob, DENIED, STICKY, ask_unlink(bob, "/d/hers"));
        guest_expect_done(alice, ask_unlink(alice, "/d/his"));
        guest_expect(carol, DENIED, SEARCH, ask_stat(carol, "/d/hers"));
        end();
}

TEST(request_acl, only_its_owner_and_administrators_set_it) {
        begin();
        guest_expect_done(alice, ask_create(alice, "/hers", 1, 0666));
        guest_expect(bob, DENIED, OWNER, set_access(bob, "/hers", FOR_BOB));
        guest_expect_done(root, set_access(root, "/hers", FOR_BOB));
        guest_expect(bob, DENIED, OWNER, set_access(bob, "/hers", FOR_BOB));
        end();
}

TEST(request_acl, what_may_not_be_searched_has_no_acl_to_see) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/private", 0700));
        guest_expect_done(alice, ask_create(alice, "/private/x", 1, 0666));
        guest_expect(bob, DENIED, SEARCH, ask_get(bob, "/private/x"));
        guest_expect(bob, DENIED, SEARCH, ask_get(bob, "/private/y"));
        guest_expect(bob, DENIED, SEARCH, set_access(bob, "/private/x", FOR_BOB));
        guest_expect(bob, DENIED, SEARCH, set_access(bob, "/private/y", FOR_BOB));
        guest_expect_done(bob, ask_get(bob, "/private"));
        guest_expect(alice, NOT_FOUND, MISSING, ask_get(alice, "/private/y"));
        end();
}

TEST(request_acl, a_list_that_makes_no_sense_changes_nothing) {
        AclEntry many[ACL_ENTRIES_MAX + 1] = { E(USER_OBJ, 0, 7) };

        begin();
        guest_expect_done(alice, ask_create(alice, "/x", 1, 0600));
        guest_expect(alice, INVALID, ACL, set_access(alice, "/x", ENTRIES(E(USER_OBJ, 0, 6), E(OTHER, 0, 0))));
        guest_expect(alice, INVALID, ACL, set_access(alice, "/x", NULL, 0));
        guest_expect(alice, INVALID, ACL, set_access(alice, "/x",
                                                     ENTRIES(E(USER_OBJ, 0, 6), E(USER, BOB, 6), E(GROUP_OBJ, 0, 0),
                                                                         E(OTHER, 0, 0))));
        guest_expect(alice, INVALID, ACL, set_access(alice, "/x",
                                                     ENTRIES(E(GROUP_OBJ, 0, 6), E(USER_OBJ, 0, 6), E(OTHER, 0, 0))));
        guest_expect(alice, INVALID, ACL, set_access(alice, "/x",
                                                     ENTRIES(E(USER_OBJ, 0, 8), E(GROUP_OBJ, 0, 6), E(OTHER, 0, 0))));
        for (uint32_t i = 0; i < ACL_ENTRIES_MAX - 3; ++i)
                many[1 + i] = (AclEntry)E(USER, i, 7);
        many[ACL_ENTRIES_MAX - 2] = (AclEntry)E(GROUP_OBJ, 0, 0);
        many[ACL_ENTRIES_MAX - 1] = (AclEntry)E(MASK, 0, 0);
        many[ACL_ENTRIES_MAX] = (AclEntry)E(OTHER, 0, 0);
        guest_expect(alice, INVALID, ACL, set_access(alice, "/x", many, ACL_ENTRIES_MAX + 1));
        expect_access("/x", 0600, ENTRIES(E(USER_OBJ, 0, 6), E(GROUP_OBJ, 0, 0), E(OTHER, 0, 0)));
        memmove(&many[1], &many[2], (ACL_ENTRIES_MAX - 1) * sizeof(many[0]));
        guest_expect_done(alice, set_access(alice, "/x", many, ACL_ENTRIES_MAX));
        expect_access("/x", 0700, many, ACL_ENTRIES_MAX);
        end();
}

#define ACCESS SHMD__ACL_FLAGS__ACL_ACCESS
#define DEFAULT SHMD__ACL_FLAGS__ACL_DEFAULT

/* Numbers that would be right if only their low byte counted. */
TEST(request_acl, numbers_are_not_cut) {
        Sent sent;
        size_t n = send_list(&sent, ENTRIES(E(USER_OBJ, 0, 6), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0)));

        begin();
        guest_expect_done(alice, ask_create(alice, "/x", 1, 0600));
        sent.entries[0].tag += 256;
        guest_expect(alice, INVALID, ACL, ask_set_both(alice, "/x", ACCESS, &sent, n, &sent, 0));
        sent.entries[0].tag -= 256;
        sent.entries[2].perms += 256;
        guest_expect(alice, INVALID, ACL, ask_set_both(alice, "/x", ACCESS, &sent, n, &sent, 0));
        sent.entries[2].perms -= 256;
        guest_expect_done(alice, ask_set_both(alice, "/x", ACCESS, &sent, n, &sent, 0));
        end();
}

TEST(request_acl, the_flags_say_which_list_to_set) {
        Sent sent;
        size_t n = send_list(&sent, ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0)));

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        guest_expect(alice, INVALID, MALFORMED, ask_set_both(alice, "/d", 0, &sent, 0, &sent, 0));
        guest_expect(alice, INVALID, FLAGS, ask_set_both(alice, "/d", 4, &sent, 0, &sent, 0));
        guest_expect(alice, INVALID, MALFORMED, ask_set_both(alice, "/d", DEFAULT, &sent, n, &sent, 0));
        guest_expect(alice, INVALID, MALFORMED, ask_set_both(alice, "/d", ACCESS, &sent, n, &sent, n));
        end();
}

TEST(request_acl, both_lists_or_neither) {
        Sent access, defaults;
        size_t n = send_list(&access, ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0)));

        begin();
        (void)send_list(&defaults, ENTRIES(E(USER_OBJ, 0, 7), E(GROUP, 0, 4), E(OTHER, 0, 0)));
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        guest_expect(alice, INVALID, ACL, ask_set_both(alice, "/d", ACCESS | DEFAULT, &access, n, &defaults, n));
        expect_access("/d", 0700, ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 0), E(OTHER, 0, 0)));
        defaults.entries[1].tag = ACL_GROUP_OBJ;
        guest_expect_done(alice, ask_set_both(alice, "/d", ACCESS | DEFAULT, &access, n, &defaults, n));
        expect_access("/d", 0740, ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0)));
        expect_defaults("/d", ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0)));
        cr_assert(shown("/d"));
        guest_expect_done(alice, set_default(alice, "/d", NULL, 0));
        expect_defaults("/d", NULL, 0);
        cr_assert_not(shown("/d"));
        end();
}

TEST(request_acl, a_region_has_no_default_acl) {
        begin();
        guest_expect_done(alice, ask_create(alice, "/x", 1, 0600));
        guest_expect(alice, INVALID, ACL, set_default(alice, "/x", FOR_BOB));
        guest_expect(alice, INVALID, ACL, set_default(alice, "/x", NULL, 0));
        end();
}

/* u::rwx,u:BOB:rwx,g::r-x,m::rwx,o::r-x as the default of /d. */
#define DEFAULTS ENTRIES(E(USER_OBJ, 0, 7), E(USER, BOB, 7), E(GROUP_OBJ, 0, 5), E(MASK, 0, 7), E(OTHER, 0, 5))

static void make_with_defaults(void) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0777));
        guest_expect_done(alice, set_default(alice, "/d", DEFAULTS));
}

TEST(request_acl, a_directory_is_made_with_the_defaults_of_its_own) {
        make_with_defaults();
        guest_expect_done(carol, ask_mkdir(carol, "/d/sub", 01750));
        expect_access("/d/sub", 01750, ENTRIES(E(USER_OBJ, 0, 7), E(USER, BOB, 7), E(GROUP_OBJ, 0, 5),
                                               E(MASK, 0, 5), E(OTHER, 0, 0)));
        expect_defaults("/d/sub", DEFAULTS);
        guest_expect_done(carol, ask_mkdir(carol, "/d/sub/deeper", 0777));
        expect_access("/d/sub/deeper", 0775, DEFAULTS);
        expect_defaults("/d/sub/deeper", DEFAULTS);
        end();
}

TEST(request_acl, a_region_is_made_with_the_defaults_of_its_directory) {
        make_with_defaults();
        guest_expect_done(carol, ask_create(carol, "/d/x", 1, 0640));
        expect_access("/d/x", 0640, ENTRIES(E(USER_OBJ, 0, 6), E(USER, BOB, 7), E(GROUP_OBJ, 0, 5), E(MASK, 0, 4),
                                            E(OTHER, 0, 0)));
        guest_expect_done(bob, ask_open(bob, "/d/x", READ));
        guest_expect(bob, DENIED, REGION_WRITE, ask_open(bob, "/d/x", WRITE));
        guest_expect(alice, DENIED, REGION_READ, ask_open(alice, "/d/x", READ));
        end();
}

static uint32_t ask_publish(Guest *guest, uint64_t region, const char *path, uint32_t flags) {
        return guest_ask(guest, MESSAGE_PUBLISH,
                         REQUEST(Publish, publish, .region = region, .path = BYTES(path), .flags = flags));
}

static uint64_t create_anonymous(Guest *guest) {
        guest_expect_done(guest, guest_ask(guest, MESSAGE_CREATE,
                                           REQUEST(Create, create, .size = 1, .mode = 0666, .rights = WRITE)));
        return ((const Shmd__Granted *)guest->reply)->region;
}

TEST(request_acl, a_region_gets_the_defaults_with_its_first_name_ever) {
        uint64_t region;
        int fd;

        make_with_defaults();
        region = create_anonymous(carol);
        fd = fdlist_take(&carol->fds);
        guest_expect_done(carol, ask_publish(carol, region, "/d/x", 0));
        expect_access("/d/x", 0664, ENTRIES(E(USER_OBJ, 0, 6), E(USER, BOB, 7), E(GROUP_OBJ, 0, 5), E(MASK, 0, 6),
                                            E(OTHER, 0, 4)));

        /* Another name, another directory: nothing changes, nor when it gets its first one again. */
        guest_expect_done(carol, guest_ask(carol, MESSAGE_LINK,
                                           REQUEST(Link, link, .path = BYTES("/d/x"), .to = BYTES("/plain"))));
        cr_assert(shown("/plain"));
        guest_expect_done(carol, ask_chmod(carol, "/plain", 0600));
        guest_expect_done(carol, set_access(carol, "/plain",
                                            ENTRIES(E(USER_OBJ, 0, 6), E(GROUP_OBJ, 0, 0), E(OTHER, 0, 0))));
        guest_expect_done(carol, ask_unlink(carol, "/d/x"));
        guest_expect_done(carol, ask_unlink(carol, "/plain"));
        guest_expect_done(carol, ask_publish(carol, region, "/d/y", 0));
        expect_access("/d/y", 0600, ENTRIES(E(USER_OBJ, 0, 6), E(GROUP_OBJ, 0, 0), E(OTHER, 0, 0)));
        (void)close_fd(fd);
        end();
}

TEST(request_acl, rename_and_replacing_keep_what_a_thing_has) {
        uint64_t region;

        make_with_defaults();
        guest_expect_done(alice, ask_create(alice, "/x", 1, 0600));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_RENAME,
                                           REQUEST(Rename, rename, .path = BYTES("/x"), .to = BYTES("/d/x"))));
        expect_access("/d/x", 0600, ENTRIES(E(USER_OBJ, 0, 6), E(GROUP_OBJ, 0, 0), E(OTHER, 0, 0)));

        /* The one that comes has its own, not what it replaces had. */
        guest_expect_done(alice, set_access(alice, "/d/x",
                                            ENTRIES(E(USER_OBJ, 0, 6), E(USER, CAROL, 6), E(GROUP_OBJ, 0, 0),
                                                                  E(MASK, 0, 6), E(OTHER, 0, 0))));
        region = create_anonymous(alice);
        guest_expect_done(alice, ask_publish(alice, region, "/d/x", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        expect_access("/d/x", 0664, ENTRIES(E(USER_OBJ, 0, 6), E(USER, BOB, 7), E(GROUP_OBJ, 0, 5), E(MASK, 0, 6),
                                            E(OTHER, 0, 4)));
        end();
}

TEST(request_acl, defaults_that_say_what_a_mode_can_leave_no_acl) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0777));
        guest_expect_done(alice, set_default(alice, "/d",
                                             ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0))));
        guest_expect_done(alice, ask_create(alice, "/d/x", 1, 0666));
        expect_access("/d/x", 0640, ENTRIES(E(USER_OBJ, 0, 6), E(GROUP_OBJ, 0, 4), E(OTHER, 0, 0)));
        cr_assert_not(shown("/d/x"));
        end();
}

TEST(request_acl, chown_lets_the_acl_be) {
        begin();
        guest_expect_done(alice, ask_create(alice, "/x", 1, 0600));
        guest_expect_done(alice, set_access(alice, "/x", FOR_BOB));
        guest_expect_done(root, guest_ask(root, MESSAGE_CHOWN,
                                          REQUEST(Chown, chown, .path = BYTES("/x"), .set_uid = true, .uid = CAROL)));
        expect_access("/x", 0660, FOR_BOB);
        guest_expect(alice, DENIED, REGION_WRITE, ask_open(alice, "/x", WRITE));
        guest_expect_done(carol, ask_open(carol, "/x", WRITE));
        end();
}

TEST(request_acl, who_waits_below_hears_of_it) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        guest_expect_done(alice, ask_mkdir(alice, "/d/e", 0700));
        guest_expect_done(alice, set_access(alice, "/d", ENTRIES(E(USER_OBJ, 0, 7), E(USER, BOB, 1), E(GROUP_OBJ, 0, 0),
                                                                E(MASK, 0, 7), E(OTHER, 0, 0))));
        cr_assert_eq(guest_ask(bob, MESSAGE_WAIT, REQUEST(Wait, wait, .path = BYTES("/d/x"),
                                                          .timeout_ns = NSEC_PER_SEC * 60)), SILENT);
        guest_expect_done(alice, set_access(alice, "/d",
                                            ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 0), E(OTHER, 0, 0))));
        guest_expect_done(alice, ask_create(alice, "/d/x", 1, 0600));
        cr_assert_eq(guest_receive(bob), SILENT);
        guest_expect_done(alice, set_access(alice, "/d", ENTRIES(E(USER_OBJ, 0, 7), E(USER, BOB, 1), E(GROUP_OBJ, 0, 0),
                                                                E(MASK, 0, 1), E(OTHER, 0, 0))));
        guest_expect_done(bob, guest_await(bob));
        end();
}

static void expect_sentence(Guest *guest, const char *expected) {
        ProtobufCBinaryData sentence = guest->refusal->sentence;

        REQUIRE(sentence.len == strlen(expected) && memcmp(sentence.data, expected, sentence.len) == 0,
                "%.*s", (int)sentence.len, (const char *)sentence.data);
}

TEST(request_acl, a_refusal_says_who_decided) {
        char expected[256];

        begin();
        guest_expect_done(alice, ask_create(alice, "/x", 1, 0600));
        guest_expect(bob, DENIED, REGION_READ, ask_open(bob, "/x", READ));
        (void)snprintf(expected, sizeof(expected), "no read permission on the region (mode 0600, uid %u, gid %u): "
                       "everybody else has ---", ALICE, ALICE);
        expect_sentence(bob, expected);
        guest_expect_done(alice, set_access(alice, "/x", FOR_BOB));
        guest_expect_done(alice, ask_chmod(alice, "/x", 0640));
        guest_expect(bob, DENIED, REGION_WRITE, ask_open(bob, "/x", WRITE));
        (void)snprintf(expected, sizeof(expected), "no read and write permission on the region (mode 0640, uid %u, gid %u): "
                       "its ACL's uid %u has r--, after its mask r--", ALICE, ALICE, BOB);
        expect_sentence(bob, expected);
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0705));
        guest_expect_done(alice, set_access(alice, "/d",
                                            ENTRIES(E(USER_OBJ, 0, 7), E(GROUP_OBJ, 0, 5), E(GROUP, BOB, 4),
                                                                E(MASK, 0, 7), E(OTHER, 0, 5))));
        guest_expect(bob, DENIED, SEARCH, ask_stat(bob, "/d/x"));
        (void)snprintf(expected, sizeof(expected), "no search permission on the directory (mode 0775, uid %u, gid %u): "
                       "its ACL's gid %u has r--", ALICE, ALICE, BOB);
        expect_sentence(bob, expected);
        guest_expect(carol, DENIED, DIRECTORY_WRITE, ask_create(carol, "/d/x", 1, 0600));
        (void)snprintf(expected, sizeof(expected), "no write and search permission on the directory it is in "
                       "(mode 0775, uid %u, gid %u): everybody else has r-x", ALICE, ALICE);
        expect_sentence(carol, expected);
        end();
}
