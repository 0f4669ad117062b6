/* daemon/config: a typing mistake is an error with file and line, never a limit that is not there. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"

#define MINUTE (60 * NSEC_PER_SEC)

static char path[64];
static Config *config;

static void write_bytes(const void *bytes, size_t n) {
        int fd;

        (void)strcpy(path, "/tmp/shmd-unit-XXXXXX");
        fd = mkstemp(path);
        REQUIRE(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
        close_fd(fd);
}

static int read_bytes(const void *bytes, size_t n) {
        int r;

        config = config_free(config);
        REQUIRE(config_new(&config) == 0);
        write_bytes(bytes, n);
        r = config_read(config, path);
        REQUIRE(unlink(path) == 0);
        return r;
}

static int read_text(const char *text) {
        return read_bytes(text, strlen(text));
}

static void expect_valid(const char *text) {
        int r = read_text(text);

        REQUIRE(r == 0, "%d: %s", r, config->message);
}

/* The message is exactly "FILE:LINE: WHAT". */
static void expect_error(unsigned int line, const char *what, const char *text) {
        char expected[512];
        int r = read_text(text);

        REQUIRE(r == CONFIG_E_INVALID, "'%s' gives %d", text, r);
        (void)snprintf(expected, sizeof(expected), "%s:%u: %s", path, line, what);
        REQUIRE(!strcmp(config->message, expected), "'%s' instead of '%s'", config->message, expected);
}

static void done(void) {
        config = config_free(config);
}

/* -- values ------------------------------------------------------------------------------------ */

#define UNTOUCHED UINT64_C(0x1234)

static void expect_value(bool (*parse)(const char *, uint64_t *), const char *text, uint64_t value) {
        uint64_t got = UNTOUCHED;

        REQUIRE(parse(text, &got), "'%s' is refused", text);
        REQUIRE(got == value, "'%s' is %llu", text, (unsigned long long)got);
}

static void expect_no_value(bool (*parse)(const char *, uint64_t *), const char *text) {
        uint64_t got = UNTOUCHED;

        REQUIRE(!parse(text, &got), "'%s' is %llu", text, (unsigned long long)got);
}

TEST(config, counts_are_whole_numbers_or_unlimited) {
        static const char *const bad[] = {
                "", " ", "-1", "+1", " 1", "1 ", "0x10", "1.0", "1K", "ten", "auto", "Unlimited", "unlimited ",
                "18446744073709551614", "18446744073709551615", "18446744073709551616", "99999999999999999999999",
        };

        expect_value(config_parse_count, "0", 0);
        expect_value(config_parse_count, "1", 1);
        expect_value(config_parse_count, "0010", 10);
        expect_value(config_parse_count, "4294967296", UINT64_C(1) << 32);
        expect_value(config_parse_count, "9223372036854775808", UINT64_C(1) << 63);
        expect_value(config_parse_count, "18446744073709551613", UINT64_MAX - 2);
        expect_value(config_parse_count, "unlimited", UINT64_MAX);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); ++i)
                expect_no_value(config_parse_count, bad[i]);
}

TEST(config, sizes_have_units_of_1024_and_never_wrap) {
        static const char *const bad[] = {
                "", "K", "-1K", "1KB", "1KiB", "1 K", "1.5G", "1E", "1P", "1KK", "16777216T", "18446744073709551615",
                "18014398509481984K", "999999999999T", "unlimitedK", "auto", "0x1M",
        };

        expect_value(config_parse_size, "0", 0);
        expect_value(config_parse_size, "4095", 4095);
        expect_value(config_parse_size, "1K", 1024);
        expect_value(config_parse_size, "1k", 1024);
        expect_value(config_parse_size, "64M", UINT64_C(64) << 20);
        expect_value(config_parse_size, "3g", UINT64_C(3) << 30);
        expect_value(config_parse_size, "2T", UINT64_C(2) << 40);
        expect_value(config_parse_size, "16777215T", UINT64_C(16777215) << 40);
        expect_value(config_parse_size, "unlimited", UINT64_MAX);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); ++i)
                expect_no_value(config_parse_size, bad[i]);
}

TEST(config, times_have_a_unit_and_reach_a_century) {
        static const char *const bad[] = {
                "", "0", "10", "s", "-1s", "1 s", "1.5s", "1m", "1S", "1sec", "1d", "1h30min", "876601h",
                "99999999999999h",
                "unlimited", "3155760001s",
        };

        expect_value(config_parse_time, "0s", 0);
        expect_value(config_parse_time, "1us", 1000);
        expect_value(config_parse_time, "1ms", 1000000);
        expect_value(config_parse_time, "500ms", 500 * NSEC_PER_MSEC);
        expect_value(config_parse_time, "10s", 10 * NSEC_PER_SEC);
        expect_value(config_parse_time, "5min", 5 * MINUTE);
        expect_value(config_parse_time, "24h", 24 * 60 * MINUTE);
        expect_value(config_parse_time, "876600h", UINT64_C(876600) * 60 * MINUTE);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); ++i)
                expect_no_value(config_parse_time, bad[i]);
}

TEST(config, modes_are_octal) {
        static const char *const bad[] = { "", "8", "0o7", "-1", "777777", "000000", "10000", "u+r", " 7", "7 ",
                                           "0x1" };

        expect_value(config_parse_mode, "0", 0);
        expect_value(config_parse_mode, "666", 0666);
        expect_value(config_parse_mode, "0666", 0666);
        expect_value(config_parse_mode, "01777", 01777);
        expect_value(config_parse_mode, "7777", 07777);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); ++i)
                expect_no_value(config_parse_mode, bad[i]);
}

TEST(config, users_and_groups_are_names_or_numbers_known_or_not) {
        uid_t uid = 7;
        gid_t gid = 7;

        cr_assert_eq(config_find_user("root", &uid, &gid), 0);
        cr_assert(uid == 0 && gid == 0);
        cr_assert_eq(config_find_user("64055", &uid, &gid), 0);
        cr_assert_eq(uid, 64055);
        cr_assert_eq(config_find_user("4294967294", &uid, &gid), 0);
        cr_assert_eq(uid, 4294967294U);
        cr_assert_eq(config_find_user("4294967295", &uid, &gid), CONFIG_E_MISSING, "no uid: it means nobody");
        cr_assert_eq(config_find_user("4294967296", &uid, &gid), CONFIG_E_MISSING, "nor does it wrap to root");
        cr_assert_eq(config_find_user("-1", &uid, &gid), CONFIG_E_MISSING);
        cr_assert_eq(config_find_user("no such user", &uid, &gid), CONFIG_E_MISSING);
        cr_assert_eq(config_find_group("root", &gid), 0);
        cr_assert_eq(gid, 0);
        cr_assert_eq(config_find_group("64055", &gid), 0);
        cr_assert_eq(gid, 64055);
        cr_assert_eq(config_find_group("", &gid), CONFIG_E_MISSING);
        cr_assert_eq(config_find_group("4294967296", &gid), CONFIG_E_MISSING);
}

/* -- keys -------------------------------------------------------------------------------------- */

TEST(config, an_empty_file_is_the_defaults) {
        expect_valid("");
        cr_assert_str_eq(config->socket, "");
        cr_assert_str_eq(config->user, "shmd");
        cr_assert_str_eq(config->admin_group, "");
        cr_assert_eq(config->socket_mode, 0666);
        cr_assert_eq(config->root_mode, 01777);
        cr_assert_eq(config->global[ACCOUNT_BYTES], CONFIG_AUTO);
        cr_assert_eq(config->global[ACCOUNT_REGIONS], CONFIG_AUTO);
        cr_assert_eq(config->global[ACCOUNT_GRANTS], 1048576);
        cr_assert_eq(config->global[ACCOUNT_PEERS], CONFIG_AUTO);
        cr_assert_eq(config->global[ACCOUNT_WATCHES], 65536);
        cr_assert_eq(config->global[ACCOUNT_PENDING], 65536);
        cr_assert_eq(config->global[ACCOUNT_INFLIGHT], CONFIG_AUTO);
        cr_assert_eq(config->account[ACCOUNT_BYTES], UINT64_C(4) << 30);
        cr_assert_eq(config->account[ACCOUNT_REGIONS], 4096);
        cr_assert_eq(config->account[ACCOUNT_GRANTS], 16384);
        cr_assert_eq(config->account[ACCOUNT_PEERS], 256);
        cr_assert_eq(config->account[ACCOUNT_WATCHES], 1024);
        cr_assert_eq(config->account[ACCOUNT_PENDING], 1024);
        cr_assert_eq(config->account[ACCOUNT_INFLIGHT], 1024);
        cr_assert_eq(config->wait_max, 24 * 60 * MINUTE);
        cr_assert_eq(config->ticket_max, 24 * 60 * MINUTE);
        cr_assert_eq(config->hello, 10 * NSEC_PER_SEC);
        cr_assert_eq(config->stall, 30 * NSEC_PER_SEC);
        cr_assert_eq(config->busy_poll, 100 * NSEC_PER_USEC);
        cr_assert_eq(config->session_grace, 10 * NSEC_PER_SEC);
        cr_assert_eq(config->n_exceptions, 0);
        cr_assert_eq(config->n_directories, 0);
        done();
}

TEST(config, every_key_goes_where_it_belongs) {
        expect_valid("# all of them\n[daemon]\nsocket = /a/b\nsocket-mode = 0600\nuser = 64055\nadmin-group = 7\n"
                     "root-mode = 0755\nsession-grace = 19s\n; and\n[global]\nbytes = 1K\nregions = 2\ngrants = 3\npeers = 4\nwatches = 5\n"
                     "pending = 6\ninflight = 7\n\n[account]\nbytes = 8\nregions = 9\ngrants = 10\npeers = 11\n"
                     "watches = 12\npending = 13\ninflight = 14\n[time]\n"
                     "wait-max = 15s\nticket-max = 18s\nhello = 16ms\nstall = 17min\nbusy-poll = 20us\n");
        cr_assert_str_eq(config->socket, "/a/b");
        cr_assert_str_eq(config->user, "64055");
        cr_assert_str_eq(config->admin_group, "7");
        cr_assert_eq(config->socket_mode, 0600);
        cr_assert_eq(config->root_mode, 0755);
        cr_assert_eq(config->global[ACCOUNT_BYTES], 1024);
        cr_assert_eq(config->account[ACCOUNT_BYTES], 8);
        for (uint64_t i = 1; i < _ACCOUNT_SLOT_N; ++i) {
                cr_assert_eq(config->global[i], i + 1);
                cr_assert_eq(config->account[i], i + 8);
        }
        cr_assert_eq(config->wait_max, 15 * NSEC_PER_SEC);
        cr_assert_eq(config->ticket_max, 18 * NSEC_PER_SEC);
        cr_assert_eq(config->hello, 16 * NSEC_PER_MSEC);
        cr_assert_eq(config->stall, 17 * MINUTE);
        cr_assert_eq(config->busy_poll, 20 * NSEC_PER_USEC);
        cr_assert_eq(config->session_grace, 19 * NSEC_PER_SEC);
        done();
}

TEST(config, auto_is_allowed_where_it_is_the_default_and_nowhere_else) {
        expect_valid("[global]\nbytes = auto\nregions = auto\npeers = auto\ninflight = auto\n");
        cr_assert_eq(config->global[ACCOUNT_BYTES], CONFIG_AUTO);
        expect_error(2, "grants=auto: must be a number, or unlimited", "[global]\ngrants = auto\n");
        expect_error(2, "bytes=auto: must be a size such as 64M (K, M, G, T), or unlimited",
                     "[account]\nbytes = auto\n");
        expect_error(2, "stall=auto: must be a time such as 500ms, 10s, 5min or 1h", "[time]\nstall = auto\n");
        done();
}

TEST(config, every_value_of_the_wrong_type_names_its_key_and_its_line) {
        static const char *const keys[][4] = {
                { "daemon", "socket-mode", "9", "an octal mode such as 0666" },
                { "daemon", "root-mode", "rwx", "an octal mode such as 0666" },
                { "global", "bytes", "1X", "a size such as 64M (K, M, G, T), or unlimited, or auto" },
                { "global", "regions", "-1", "a number, or unlimited, or auto" },
                { "global", "grants", "x", "a number, or unlimited" },
                { "global", "peers", "1K", "a number, or unlimited, or auto" },
                { "global", "watches", "1.5", "a number, or unlimited" },
                { "global", "pending", "0x1", "a number, or unlimited" },
                { "global", "inflight", "many", "a number, or unlimited, or auto" },
                { "account", "bytes", "1KB", "a size such as 64M (K, M, G, T), or unlimited" },
                { "account", "regions", "none", "a number, or unlimited" },
                { "account", "grants", "18446744073709551616", "a number, or unlimited" },
                { "account", "peers", "+1", "a number, or unlimited" },
                { "account", "watches", "1,000", "a number, or unlimited" },
                { "account", "pending", "1_000", "a number, or unlimited" },
                { "account", "inflight", "%n", "a number, or unlimited" },
                { "time", "wait-max", "10", "a time such as 500ms, 10s, 5min or 1h" },
                { "time", "hello", "never", "a time such as 500ms, 10s, 5min or 1h" },
                { "time", "stall", "1d", "a time such as 500ms, 10s, 5min or 1h" },
        };

        for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); ++i) {
                char text[256], what[256];

                (void)snprintf(text, sizeof(text), "# comment\n\n[%s]\n# another\n%s = %s\n", keys[i][0], keys[i][1],
                               keys[i][2]);
                (void)snprintf(what, sizeof(what), "%s=%s: must be %s", keys[i][1], keys[i][2], keys[i][3]);
                expect_error(5, what, text);
        }
        done();
}

TEST(config, modes_that_say_too_much_are_errors) {
        read_text("[daemon]\nsocket-mode = 1666\n");
        cr_assert_neq(strstr(config->message, ": socket-mode is at most 0777"), NULL, "%s", config->message);
        cr_assert_eq(read_text("[daemon]\nsocket-mode = 0777\n"), 0);
        cr_assert_eq(read_text("[daemon]\nroot-mode = 2777\n"), CONFIG_E_INVALID);
        cr_assert_neq(strstr(config->message, ": root-mode is at most 1777"), NULL, "%s", config->message);
        cr_assert_eq(read_text("[daemon]\nroot-mode = 1777\n"), 0);
        done();
}

TEST(config, busy_polling_is_for_microseconds) {
        cr_assert_eq(read_text("[time]\nbusy-poll = 0s\n"), 0);
        cr_assert_eq(config->busy_poll, 0);
        cr_assert_eq(read_text("[time]\nbusy-poll = 200us\n"), 0);
        cr_assert_eq(config->busy_poll, 200 * NSEC_PER_USEC);
        cr_assert_eq(read_text("[time]\nbusy-poll = 201us\n"), CONFIG_E_INVALID);
        cr_assert_neq(strstr(config->message, ": busy-poll is at most 200us"), NULL, "%s", config->message);
        done();
}

TEST(config, what_is_unknown_is_an_error) {
        expect_error(2, "there is no key 'sockets' in section [daemon]", "[daemon]\nsockets = x\n");
        expect_error(2, "there is no section [deamon]", "[deamon]\nsocket = x\n");
        expect_error(3, "there is no key 'bytes' in section [time]", "[time]\n\nbytes = 1\n");
        expect_error(1, "the key 'socket' stands before any section", "socket = x\n");
        expect_error(2, "there is no key 'Socket' in section [daemon]", "[daemon]\nSocket = x\n");
        expect_error(2, "there is no section [DAEMON]", "[DAEMON]\nsocket = x\n");
        done();
}

TEST(config, a_key_given_twice_is_an_error_also_in_two_parts_of_its_section) {
        expect_error(3, "'socket' is given twice in section [daemon]", "[daemon]\nsocket = a\nsocket = a\n");
        expect_error(6, "'hello' is given twice in section [time]",
                     "[time]\nhello = 1s\n[global]\npeers = 1\n[time]\nhello = 1s\n");
        expect_valid("[global]\nbytes = 1\n[account]\nbytes = 1\n[account 7]\nbytes = 1\n[account 8]\nbytes = 1\n");
        expect_error(4, "'bytes' is given twice in section [account 7]",
                     "[account 7]\nbytes = 1\n[account 7]\nbytes = 2\n");
        done();
}

TEST(config, a_line_that_is_nothing_is_an_error) {
        expect_error(2, "neither a section, nor a key=value, nor a comment", "[daemon]\nnonsense\n");
        expect_error(1, "neither a section, nor a key=value, nor a comment", "[daemon\nsocket = x\n");
        done();
}

TEST(config, the_first_error_is_the_one_that_is_told) {
        expect_error(2, "there is no key 'a' in section [daemon]", "[daemon]\na = 1\nb = 2\nnonsense\n");
        expect_error(2, "neither a section, nor a key=value, nor a comment", "[daemon]\nnonsense\na = 1\n");
        expect_error(2, "there is no key 'a' in section [daemon]", "[daemon]\na = 1\n[daemon]\nsocket-mode = 1777\n");
        done();
}

TEST(config, lines_that_are_too_long_are_errors_and_never_cut) {
        char text[1024];

        for (size_t n = 150; n < 600; n += 1) {
                int r;

                (void)strcpy(text, "[daemon]\nsocket = ");
                memset(text + 18, 'x', n);
                text[18 + n] = '\n';
                text[19 + n] = '\0';
                r = read_text(text);
                if (r == 0)
                        REQUIRE(strlen(config->socket) == n, "%zu bytes became %zu", n, strlen(config->socket));
                else
                        REQUIRE(strstr(config->message, ":2: the line is longer than "), "%s", config->message);
                if (n < 180)
                        REQUIRE(r == 0);
                if (n > 300)
                        REQUIRE(r == CONFIG_E_INVALID);
        }
        done();
}

TEST(config, the_name_of_a_section_is_never_cut) {
        char text[512];

        for (size_t n = 1; n < 250; ++n) {
                int r;

                (void)strcpy(text, "[directory /");
                memset(text + 12, 'x', n);
                (void)strcpy(text + 12 + n, "]\nbytes = 1\n");
                r = read_text(text);
                if (r == 0)
                        REQUIRE(config->n_directories == 1 && strlen(config->directories[0].path) == n + 1,
                                "%zu became %zu", n + 1, strlen(config->directories[0].path));
                else
                        REQUIRE(strstr(config->message, ":1: the line is longer than 198 bytes"), "%s",
                                config->message);
                REQUIRE(r == (n + 13 <= 198 ? 0 : CONFIG_E_INVALID), "a line of %zu bytes: %d", n + 13, r);
        }
        done();
}

TEST(config, what_stands_beside_the_name_of_a_section_is_not_passed_over) {
        expect_error(1, "there is something behind the name of the section", "[directory /a] mode = 1777\n");
        expect_error(2, "a section begins at the start of a line", "[daemon]\n [global]\npeers = 1\n");
        expect_error(3, "a section begins at the start of a line", "[daemon]\nsocket = /a\n [global]\npeers = 1\n");
        expect_valid("[daemon] ; how it runs\nsocket = /a\n[global]\t# all\npeers = 1\n");
        cr_assert_eq(config->global[ACCOUNT_PEERS], 1);
        done();
}

TEST(config, a_value_does_not_go_on_in_the_next_line) {
        expect_error(3, "'socket' is given twice in section [daemon]", "[daemon]\nsocket = /a\n /b\n");
        done();
}

TEST(config, a_directory_may_have_no_key) {
        expect_valid("[directory /a]\n[directory /a/b]\n");
        cr_assert_eq(config->n_directories, 2);
        cr_assert_str_eq(config->directories[1].path, "/a/b");
        cr_assert_eq(config->directories[1].permissions.mode, 0755);
        done();
}

TEST(config, a_byte_order_mark_is_skipped_and_carriage_returns_are_space) {
        expect_valid("\xef\xbb\xbf[daemon]\nsocket = /a\n");
        cr_assert_str_eq(config->socket, "/a");
        expect_valid("[daemon]\r\nsocket = /a\r\n\r\n");
        cr_assert_str_eq(config->socket, "/a");
        expect_valid("[daemon]\nsocket = /a");
        cr_assert_str_eq(config->socket, "/a");
        done();
}

TEST(config, a_nul_in_the_file_is_no_way_to_hide_a_line) {
        static const char text[] = "[global]\npeers = 1\0\npeers = 2\n";

        cr_assert_eq(read_bytes(text, sizeof(text) - 1), CONFIG_E_INVALID);
        done();
}

/* -- exceptions and directories --------------------------------------------------------------------- */

TEST(config, an_account_may_be_an_exception_and_otherwise_is_like_all) {
        expect_valid("[account 7]\nbytes = 1M\npeers = unlimited\n[account]\nregions = 5\n"
                     "[account root]\ngrants = 0\n");
        cr_assert_eq(config->n_exceptions, 2);
        cr_assert_eq(config->exceptions[0].uid, 0, "in the order of their uids");
        cr_assert_eq(config->exceptions[0].limits.slots, 1U << ACCOUNT_GRANTS);
        cr_assert_eq(config->exceptions[0].limits.max[ACCOUNT_GRANTS], 0);
        cr_assert_eq(config->exceptions[1].uid, 7);
        cr_assert_eq(config->exceptions[1].limits.slots, 1U << ACCOUNT_BYTES | 1U << ACCOUNT_PEERS);
        cr_assert_eq(config->exceptions[1].limits.max[ACCOUNT_BYTES], UINT64_C(1) << 20);
        cr_assert_eq(config->exceptions[1].limits.max[ACCOUNT_PEERS], UINT64_MAX);
        done();
}

TEST(config, two_spellings_of_one_user_are_one_exception) {
        expect_valid("[account root]\nbytes = 1\n[account 0]\npeers = 2\n");
        cr_assert_eq(config->n_exceptions, 1);
        cr_assert_eq(config->exceptions[0].limits.max[ACCOUNT_BYTES], 1);
        cr_assert_eq(config->exceptions[0].limits.max[ACCOUNT_PEERS], 2);
        done();
}

TEST(config, an_exception_for_nobody_or_of_nothing_is_an_error) {
        expect_error(2, "there is no user 'nobody at all'", "[account nobody at all]\nbytes = 1\n");
        expect_error(2, "there is no user '4294967295'", "[account 4294967295]\nbytes = 1\n");
        expect_error(2, "there is no key 'byte' in this section", "[account 7]\nbyte = 1\n");
        expect_error(2, "peers=x: must be a number, or unlimited", "[account 7]\npeers = x\n");
        expect_error(2, "bytes=1X: must be a size such as 64M (K, M, G, T), or unlimited", "[account 7]\nbytes = 1X\n");
        done();
}

TEST(config, directories_come_out_with_parents_before_children) {
        expect_valid("[directory /b/c]\nowner = 7\n[directory /a]\nmode = 1777\n[directory /b]\ngroup = 8\nbytes = 1M\n"
                     "regions = 3\n");
        cr_assert_eq(config->n_directories, 3);
        cr_assert_str_eq(config->directories[0].path, "/a");
        cr_assert_str_eq(config->directories[1].path, "/b");
        cr_assert_str_eq(config->directories[2].path, "/b/c");
        cr_assert_eq(config->directories[0].permissions.mode, 01777);
        cr_assert_eq(config->directories[0].permissions.uid, 0);
        cr_assert_eq(config->directories[1].permissions.gid, 8);
        cr_assert_eq(config->directories[1].permissions.mode, 0755);
        cr_assert_eq(config->directories[1].max[ACCOUNT_BYTES], UINT64_C(1) << 20);
        cr_assert_eq(config->directories[1].max[ACCOUNT_REGIONS], 3);
        cr_assert_eq(config->directories[1].max[ACCOUNT_GRANTS], UINT64_MAX);
        cr_assert_eq(config->directories[2].permissions.uid, 7);
        cr_assert_eq(config->directories[2].max[ACCOUNT_BYTES], UINT64_MAX);
        done();
}

TEST(config, a_directory_that_cannot_be_is_an_error) {
        expect_error(1, "[directory a]: a name starts with '/'", "[directory a]\nmode = 0755\n");
        expect_error(1, "[directory /a/..]: a component of a name is neither '.' nor '..'",
                     "[directory /a/..]\nmode = 0755\n");
        expect_error(2, "mode=2777: must be an octal mode of at most 1777", "[directory /a]\nmode = 2777\n");
        expect_error(2, "mode=rwx: must be an octal mode of at most 1777", "[directory /a]\nmode = rwx\n");
        expect_error(2, "owner: there is no user 'nobody at all'", "[directory /a]\nowner = nobody at all\n");
        expect_error(2, "group: there is no group 'nobody at all'", "[directory /a]\ngroup = nobody at all\n");
        expect_error(2, "there is no key 'peers' in this section", "[directory /a]\npeers = 1\n");
        expect_error(2, "bytes=x: must be a size such as 64M (K, M, G, T), or unlimited",
                     "[directory /a]\nbytes = x\n");
        done();
}

/* -- files --------------------------------------------------------------------------------------- */

TEST(config, a_file_that_is_missing_is_told_apart_from_one_that_cannot_be_read) {
        cr_assert_eq(config_new(&config), 0);
        cr_assert_eq(config_read(config, "/nonexistent/shmd.conf"), CONFIG_E_MISSING);
        cr_assert_eq(config_read(config, "/dev/null/shmd.conf"), -ENOTDIR);
        done();
}

TEST(config, what_is_no_regular_file_is_not_waited_for) {
        char message[128];

        cr_assert_eq(config_new(&config), 0);
        cr_assert_eq(config_read(config, "/"), CONFIG_E_INVALID);
        cr_assert_str_eq(config->message, "/: not a regular file of at most 1048576 bytes");
        cr_assert_eq(config_read(config, "/dev/zero"), CONFIG_E_INVALID);

        write_bytes("", 0);
        REQUIRE(unlink(path) == 0 && mkfifo(path, 0600) == 0);
        cr_assert_eq(config_read(config, path), CONFIG_E_INVALID);
        (void)snprintf(message, sizeof(message), "%s: not a regular file of at most 1048576 bytes", path);
        cr_assert_str_eq(config->message, message);
        REQUIRE(unlink(path) == 0);
        done();
}

TEST(config, a_file_that_everybody_may_write_to_is_refused) {
        char message[128];

        write_bytes("", 0);
        REQUIRE(chmod(path, 0646) == 0);
        cr_assert_eq(config_new(&config), 0);
        cr_assert_eq(config_read(config, path), CONFIG_E_INVALID);
        (void)snprintf(message, sizeof(message), "%s: everybody may write to it: chmod o-w it", path);
        cr_assert_str_eq(config->message, message);
        REQUIRE(chmod(path, 0664) == 0);
        cr_assert_eq(config_read(config, path), 0);
        done();
}

TEST(config, a_file_may_have_1_mib_and_not_a_byte_more) {
        char *text = malloc((1 << 20) + 1);

        memset(text, '\n', (1 << 20) + 1);
        cr_assert_eq(read_bytes(text, 1 << 20), 0);
        cr_assert_eq(read_bytes(text, (1 << 20) + 1), CONFIG_E_INVALID);
        free(text);
        done();
}

TEST(config, errors_are_told_with_their_line_also_far_down) {
        char *text = malloc(70000);

        memset(text, '\n', 65536);
        (void)strcpy(text + 65536, "[daemon]\nx = 1\n");
        expect_error(65538, "there is no key 'x' in section [daemon]", text);
        free(text);
        done();
}
