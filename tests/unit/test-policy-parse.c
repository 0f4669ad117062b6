/* daemon/policy-parse: files that hide files, and mistakes that are told with file and line. */

#include "daemon-house.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compile.h"
#include "core/policy.h"
#include "policy-parse.h"

#define BIT(slot) (UINT32_C(1) << ACCOUNT_##slot)

/* Three directories, the weakest first, as vendor, administrator and run time. */
static char root[64], paths[3][80];
static const char *directories[3];
static Policy *policy;
static char message[INIFILE_MESSAGE_MAX];

static void begin(void) {
        (void)strcpy(root, "/tmp/shmd-unit-XXXXXX");
        REQUIRE(mkdtemp(root));
        for (size_t i = 0; i < 3; ++i) {
                (void)snprintf(paths[i], sizeof(paths[i]), "%s/%zu", root, i);
                directories[i] = paths[i];
                REQUIRE(mkdir(paths[i], 0755) == 0);
        }
}

static void end(void) {
        char command[128];

        policy = policy_free(policy);
        (void)snprintf(command, sizeof(command), "rm -r %s", root);
        REQUIRE(system(command) == 0);
}

static const char *file(size_t directory, const char *name) {
        static char path[256];

        (void)snprintf(path, sizeof(path), "%s/%s", paths[directory], name);
        return path;
}

static void add(size_t directory, const char *name, const char *text) {
        FILE *stream = fopen(file(directory, name), "we");

        REQUIRE(stream && fputs(text, stream) >= 0 && fclose(stream) == 0);
}

static int compile(void) {
        CLEANUP(freep) uint8_t *blob = NULL;
        const char *sentence;
        size_t n;
        int r;

        policy = policy_free(policy);
        r = policy_compile(directories, 3, &blob, &n, message);
        if (r == 0)
                REQUIRE(policy_decode(blob, n, &policy, &sentence) == 0, "the broker refuses: %s", sentence);
        return r;
}

static void expect_valid(void) {
        int r = compile();

        REQUIRE(r == 0, "%d: %s", r, message);
}

/* The only file is wrong in that line. */
static void expect_error(unsigned int line, const char *what, const char *text) {
        char expected[INIFILE_MESSAGE_MAX];
        int r;

        begin();
        add(1, "a.conf", text);
        r = compile();
        (void)snprintf(expected, sizeof(expected), "%s:%u: %s", file(1, "a.conf"), line, what);
        REQUIRE(r == POLICY_PARSE_E_INVALID && !strcmp(message, expected), "%d, '%s' instead of '%s'", r, message, expected);
        end();
}

/* -- files ------------------------------------------------------------------------------- */

TEST(policy_parse, without_files_there_is_nothing) {
        begin();
        expect_valid();
        cr_assert(policy->rules.n_users == 0 && policy->n_directories == 0 && policy->rules.everybody.slots == 0);
        REQUIRE(rmdir(paths[0]) == 0);
        expect_valid();
        REQUIRE(mkdir(paths[0], 0755) == 0);
        end();
}

TEST(policy_parse, a_file_hides_one_of_the_same_name_in_a_weaker_directory) {
        begin();
        add(0, "a.conf", "[user 1]\nbytes = 1\n");
        add(0, "b.conf", "[user 2]\nbytes = 1\n");
        add(0, "c.conf", "[user 3]\nbytes = 1\n");
        add(1, "a.conf", "[user 1]\nbytes = 2\n");
        add(1, "b.conf", "[user 2]\nbytes = 2\n");
        add(2, "b.conf", "[user 2]\nbytes = 3\n");
        expect_valid();
        cr_assert_eq(policy->rules.n_users, 3);
        cr_assert_eq(policy->rules.users[0].limits.max[ACCOUNT_BYTES], 2);
        cr_assert_eq(policy->rules.users[1].limits.max[ACCOUNT_BYTES], 3);
        cr_assert_eq(policy->rules.users[2].limits.max[ACCOUNT_BYTES], 1);
        end();
}

TEST(policy_parse, an_empty_file_or_a_link_to_dev_null_takes_one_away) {
        begin();
        add(0, "a.conf", "[user 1]\nbytes = 1\n");
        add(0, "b.conf", "nonsense\n");
        add(0, "c.conf", "[user 3]\nbytes = 1\n");
        add(1, "a.conf", "");
        REQUIRE(symlink("/dev/null", file(2, "b.conf")) == 0);
        expect_valid();
        cr_assert(policy->rules.n_users == 1 && policy->rules.users[0].uid == 3);
        end();
}

TEST(policy_parse, only_files_of_that_name_are_read) {
        begin();
        add(0, "a.conf~", "nonsense\n");
        add(0, "README", "nonsense\n");
        add(0, ".conf", "nonsense\n");
        add(0, ".a.conf", "nonsense\n");
        add(0, "a.conf.dpkg-old", "nonsense\n");
        expect_valid();
        end();
}

TEST(policy_parse, files_are_read_in_the_order_of_their_names_wherever_they_are) {
        begin();
        add(2, "10.conf", "[group 5]\nbytes = 1\n");
        add(0, "20.conf", "[group 4]\nbytes = 1\n");
        add(1, "15.conf", "[group 9]\nbytes = 1\n[group 1]\nbytes = 1\n");
        expect_valid();
        cr_assert_eq(policy->rules.n_groups, 4);
        for (size_t i = 0; i < 4; ++i)
                cr_assert_eq(policy->rules.groups[i].gid, ((const gid_t[]){ 5, 9, 1, 4 })[i]);
        end();
}

TEST(policy_parse, what_cannot_be_read_is_an_error_and_not_passed_over) {
        char expected[INIFILE_MESSAGE_MAX];

        begin();
        REQUIRE(symlink("/nonexistent", file(0, "a.conf")) == 0);
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        (void)snprintf(expected, sizeof(expected), "%s: No such file or directory", file(0, "a.conf"));
        cr_assert_str_eq(message, expected);
        REQUIRE(unlink(file(0, "a.conf")) == 0 && mkfifo(file(0, "a.conf"), 0600) == 0);
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        cr_assert_neq(strstr(message, "not a regular file of at most 1048576 bytes"), NULL, "%s", message);
        REQUIRE(unlink(file(0, "a.conf")) == 0 && mkdir(file(0, "a.conf"), 0700) == 0);
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        REQUIRE(rmdir(file(0, "a.conf")) == 0);

        directories[1] = "/dev/null";
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        cr_assert_str_eq(message, "/dev/null: Not a directory");
        end();
}

TEST(policy_parse, what_everybody_may_write_to_is_nobodys_policy) {
        begin();
        add(0, "a.conf", "[group 5]\nbytes = 1\n");
        REQUIRE(chmod(file(0, "a.conf"), 0606) == 0);
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        cr_assert_neq(strstr(message, "a.conf: everybody may write to it"), NULL, "%s", message);
        REQUIRE(chmod(file(0, "a.conf"), 0640) == 0);
        expect_valid();

        REQUIRE(chmod(directories[0], 01777) == 0);
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        cr_assert_neq(strstr(message, ": everybody may write to it"), NULL, "%s", message);
        REQUIRE(chmod(directories[0], 0755) == 0);
        end();
}

TEST(policy_parse, the_usual_directories_may_be_looked_for_somewhere_else) {
        CLEANUP(freep) uint8_t *blob = NULL;
        const char *sentence;
        char command[1024];
        size_t n;

        begin();
        (void)snprintf(command, sizeof(command), "mkdir -p %s%s/shmd %s%s/shmd %s/run/shmd && mv %s %s%s/shmd/policy.d && "
                       "mv %s %s%s/shmd/policy.d && mv %s %s/run/shmd/policy.d", root, SHMD_VENDORDIR, root, SHMD_SYSCONFDIR,
                       root, paths[0], root, SHMD_VENDORDIR, paths[1], root, SHMD_SYSCONFDIR, paths[2], root);
        REQUIRE(system(command) == 0);
        (void)snprintf(paths[0], sizeof(paths[0]), "%.40s%.30s/shmd/policy.d", root, SHMD_VENDORDIR);
        (void)snprintf(paths[1], sizeof(paths[1]), "%.40s%.30s/shmd/policy.d", root, SHMD_SYSCONFDIR);
        (void)snprintf(paths[2], sizeof(paths[2]), "%.40s/run/shmd/policy.d", root);
        for (size_t i = 0; i < 3; ++i) {
                (void)snprintf(command, sizeof(command), "[user %zu]\nbytes = 1\n", i);
                add(i, "a.conf", command);
        }
        cr_assert_eq(compile_policy(root, NULL, 0, &blob, &n, message), 0, "%s", message);
        cr_assert_eq(policy_decode(blob, n, &policy, &sentence), 0);
        cr_assert(policy->rules.n_users == 1 && policy->rules.users[0].uid == 2, "the last one hides the others");
        end();
}

TEST(policy_parse, a_compiled_policy_replaces_a_file_as_a_whole) {
        struct stat st;

        begin();
        add(0, "out", "something longer than what comes");
        cr_assert_eq(compile_write(file(0, "out"), (const uint8_t *)"blob", 4), 0);
        REQUIRE(stat(file(0, "out"), &st) == 0);
        cr_assert(st.st_size == 4);
        cr_assert_eq(compile_write("/dev/null", (const uint8_t *)"blob", 4), 0);
        cr_assert(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode), "what is no file is not replaced");
        cr_assert_eq(compile_write("/nonexistent/out", (const uint8_t *)"blob", 4), -ENOENT);
        cr_assert_eq(compile_write(root, (const uint8_t *)"blob", 4), -EISDIR);
        end();
}

/* -- rules ------------------------------------------------------------------------------- */

TEST(policy_parse, every_slot_can_be_limited_for_all_for_each_for_users_and_for_groups) {
        static const char *const sections[] = { "global", "account", "user 7", "group 8" };
        char text[1024];
        size_t n = 0;

        for (size_t i = 0; i < 4; ++i)
                n += (size_t)snprintf(text + n, sizeof(text) - n, "[%s]\nbytes = %zuK\nregions = 2\ngrants = 3\npeers = 4\n"
                                      "watches = 5\npending = 6\ninflight = unlimited\n", sections[i], i + 1);
        begin();
        add(0, "a.conf", text);
        expect_valid();
        for (size_t i = 0; i < 4; ++i) {
                const Limits *limits[] = {
                        &policy->rules.global, &policy->rules.everybody,
                        &policy->rules.users[0].limits, &policy->rules.groups[0].limits,
                };

                cr_assert_eq(limits[i]->slots, LIMITS_ALL);
                cr_assert_eq(limits[i]->max[ACCOUNT_BYTES], 1024 * (i + 1));
                for (uint64_t k = ACCOUNT_REGIONS; k < ACCOUNT_INFLIGHT; ++k)
                        cr_assert_eq(limits[i]->max[k], k + 1);
                cr_assert_eq(limits[i]->max[ACCOUNT_INFLIGHT], UINT64_MAX);
        }
        end();
}

TEST(policy_parse, names_become_numbers_and_two_spellings_are_one) {
        begin();
        add(0, "a.conf", "[user root]\nbytes = 1\n[group root]\npeers = 2\n");
        add(0, "b.conf", "[user 0]\nregions = 3\n[group 0]\nregions = 4\n");
        expect_valid();
        cr_assert(policy->rules.n_users == 1 && policy->rules.users[0].uid == 0 && policy->rules.n_groups == 1);
        cr_assert_eq(policy->rules.users[0].limits.slots, BIT(BYTES) | BIT(REGIONS));
        cr_assert_eq(policy->rules.groups[0].limits.slots, BIT(PEERS) | BIT(REGIONS));
        end();
}

TEST(policy_parse, what_was_said_in_another_file_is_said_twice) {
        char expected[INIFILE_MESSAGE_MAX];

        begin();
        add(0, "a.conf", "[user root]\nbytes = 1\n");
        add(1, "b.conf", "# more\n[user 0]\nbytes = 1\n");
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        (void)snprintf(expected, sizeof(expected), "%s:3: 'bytes' is given twice for [user 0]", file(1, "b.conf"));
        cr_assert_str_eq(message, expected);
        end();
}

TEST(policy_parse, mistakes_have_a_line) {
        expect_error(1, "there is no section [usres]", "[usres]\n");
        expect_error(2, "there is no section [daemon]", "\n[daemon]\nsocket = /a\n");
        expect_error(1, "there is no section [account 7]: a policy has [user 7]", "[account 7]\nbytes = 1\n");
        expect_error(1, "there is no user 'nobody at all'", "[user nobody at all]\n");
        expect_error(1, "there is no user '4294967295'", "[user 4294967295]\n");
        expect_error(1, "there is no user ''", "[user ]\n");
        expect_error(1, "there is no group 'nobody at all'", "[group nobody at all]\n");
        expect_error(2, "there is no key 'byte' in section [user 7]", "[user 7]\nbyte = 1\n");
        expect_error(2, "there is no key 'owner' in section [user 7]", "[user 7]\nowner = 1\n");
        expect_error(2, "there is no key 'peers' in section [directory /a]", "[directory /a]\npeers = 1\n");
        expect_error(2, "bytes=1X: must be a size such as 64M (K, M, G, T), or unlimited", "[account]\nbytes = 1X\n");
        expect_error(2, "peers=auto: must be a number, or unlimited", "[global]\npeers = auto\n");
        expect_error(3, "'bytes' is given twice for [global]", "[global]\nbytes = 1\nbytes = 1\n");
        expect_error(5, "'bytes' is given twice for [account]", "[account]\nbytes = 1\n[user 7]\n[account]\nbytes = 1\n");
        expect_error(1, "the key 'bytes' stands before any section", "bytes = 1\n");
        expect_error(1, "neither a section, nor a key=value, nor a comment", "[user 7\n");
        expect_error(3, "'bytes' is given twice for [global]", "[global]\nbytes = 1\n 2\n");
}

TEST(policy_parse, the_example_is_a_policy) {
        const char *source = getenv("SHMD_TEST_SRCDIR");
        CLEANUP(freep) uint8_t *blob = NULL;
        char path[512];
        size_t n;

        (void)snprintf(path, sizeof(path), "%s/daemon/man/policy-example.conf", source ? source : "..");
        cr_assert_eq(policy_compile_file(path, &blob, &n, message), 0, "%s", message);
}

/* A file's last section does not reach into the next file. */
TEST(policy_parse, each_file_begins_without_a_section) {
        begin();
        add(0, "a.conf", "[user 7]\n");
        add(0, "b.conf", "bytes = 1\n");
        cr_assert_eq(compile(), POLICY_PARSE_E_INVALID);
        cr_assert_neq(strstr(message, "/b.conf:1: the key 'bytes' stands before any section"), NULL, "%s", message);
        end();
}

/* -- directories ------------------------------------------------------------------------- */

TEST(policy_parse, a_directory_has_what_is_said_of_it_in_all_files) {
        begin();
        add(0, "a.conf", "[directory /a/b]\nmode = 1770\nbytes = 1M\n[directory /]\nregions = 7\n");
        add(0, "b.conf", "[directory /a]\n[directory /a/b]\nowner = 5\ngroup = 6\nregions = unlimited\n");
        expect_valid();
        cr_assert_eq(policy->n_directories, 3);
        cr_assert_str_eq(policy->directories[0].path, "/");
        cr_assert_eq(policy->directories[0].limits.slots, BIT(REGIONS));
        cr_assert_str_eq(policy->directories[1].path, "/a");
        cr_assert(policy->directories[1].permissions.uid == 0 && policy->directories[1].permissions.mode == 0755);
        cr_assert_str_eq(policy->directories[2].path, "/a/b");
        cr_assert(policy->directories[2].permissions.uid == 5 && policy->directories[2].permissions.gid == 6 &&
                  policy->directories[2].permissions.mode == 01770);
        cr_assert_eq(policy->directories[2].limits.slots, BIT(BYTES) | BIT(REGIONS));
        end();
}

TEST(policy_parse, mistakes_of_directories_have_a_line) {
        expect_error(1, "[directory a]: a name starts with '/'", "[directory a]\n");
        expect_error(3, "[directory /a/..]: a component of a name is neither '.' nor '..'", "[directory /a]\n\n[directory /a/..]\n");
        expect_error(2, "owner: there is no user 'nobody at all'", "[directory /a]\nowner = nobody at all\n");
        expect_error(2, "group: there is no group 'nobody at all'", "[directory /a]\ngroup = nobody at all\n");
        expect_error(2, "mode=2777: must be an octal mode of at most 1777", "[directory /a]\nmode = 2777\n");
        expect_error(3, "'mode' is given twice for [directory /a]", "[directory /a]\nmode = 0755\nmode = 0755\n");
        expect_error(3, "'owner' is given twice for [directory /a]", "[directory /a]\nowner = 0\n 0\n");
        expect_error(3, "[directory /b/c]: the directory above it needs a section as well",
                     "[directory /a]\n[directory /bb]\n[directory /b/c]\n");
}

static unsigned int perms(AclList *list, AclTag tag, uint32_t id) {
        const AclEntry *entry = acl_list_find(list, tag, id);

        REQUIRE(entry, "no entry of tag %d for %u", tag, id);
        return entry->perms;
}

TEST(policy_parse, an_acl_goes_over_several_lines_and_the_mode_says_the_rest) {
        PolicyDirectory *directory;

        begin();
        add(0, "a.conf", "[directory /a]\nacl = u:7:rwx, g:8:r-x,\n      u:9:r--\nmode = 1740\n");
        expect_valid();
        directory = &policy->directories[0];
        cr_assert_eq(directory->permissions.mode, 01770, "the mask is in the mode: what all of them have together");
        cr_assert_eq(directory->access.n, 7);
        cr_assert_eq(perms(&directory->access, ACL_USER_OBJ, 0), 7);
        cr_assert_eq(perms(&directory->access, ACL_USER, 7), 7);
        cr_assert_eq(perms(&directory->access, ACL_USER, 9), 4);
        cr_assert_eq(perms(&directory->access, ACL_GROUP_OBJ, 0), 4);
        cr_assert_eq(perms(&directory->access, ACL_GROUP, 8), 5);
        cr_assert_eq(perms(&directory->access, ACL_MASK, 0), 7);
        cr_assert_eq(perms(&directory->access, ACL_OTHER, 0), 0);
        cr_assert_eq(directory->defaults.n, 0);
        end();
}

TEST(policy_parse, an_acl_may_say_what_the_mode_says_and_then_it_counts) {
        begin();
        add(0, "a.conf", "[directory /a]\nmode = 1777\nacl = u::rx, g::x, o::-, m::r, u:root:rwx\n"
                         "[directory /b]\nacl = o::rwx\n");
        expect_valid();
        cr_assert_eq(policy->directories[0].permissions.mode, 01540);
        cr_assert_eq(perms(&policy->directories[0].access, ACL_GROUP_OBJ, 0), 1);
        cr_assert(policy->directories[1].permissions.mode == 0757 && policy->directories[1].access.n == 0,
                  "it says no more than a mode");
        end();
}

TEST(policy_parse, a_default_acl_is_completed_likewise) {
        begin();
        add(0, "a.conf", "[directory /a]\nmode = 0750\ndefault-acl = u:7:rw\n[directory /b]\ndefault-acl = u::rwx\n");
        expect_valid();
        cr_assert_eq(policy->directories[0].access.n, 0);
        cr_assert_eq(policy->directories[0].defaults.n, 5);
        cr_assert_eq(perms(&policy->directories[0].defaults, ACL_MASK, 0), 7);
        cr_assert_eq(perms(&policy->directories[0].defaults, ACL_OTHER, 0), 0);
        cr_assert_eq(policy->directories[1].defaults.n, 3);
        end();
}

TEST(policy_parse, mistakes_of_acls_have_a_line) {
        char text[1024] = "[directory /a]\nacl = m::r";
        size_t n = strlen(text);

        expect_error(2, "acl: 'u:7:rwxx': permissions are up to three of \"rwx-\", or a digit",
                     "[directory /a]\nacl = u:7:rwxx\n");
        expect_error(3, "acl: an ACL has only one entry for each user and group, one mask and one for others",
                     "[directory /a]\nacl = u:7:r\n  u:7:w\n");
        expect_error(4, "'acl' is given twice for [directory /a]", "[directory /a]\nacl = u:7:r\nmode = 0755\nacl = u:8:r\n");
        for (unsigned int i = 0; i < 31; ++i)
                n += (size_t)snprintf(text + n, sizeof(text) - n, "\n u:%u:r", 100 + i);
        (void)strcpy(text + n, "\n");
        expect_error(1, "[directory /a]: an ACL has at most 32 entries", text);
}
