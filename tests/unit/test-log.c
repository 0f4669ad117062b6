/* daemon/util/log: one line per event, which nothing in it can break and nothing can block. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/log.h"

static int ends[2];             /* [0] is read, [1] is the log */

static void open_pipe(void) {
        REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
        REQUIRE(log_open(ends[1]) == 0);
}

static void close_log(void) {
        log_close();
        ends[0] = close_fd(ends[0]);
        ends[1] = close_fd(ends[1]);
}

/* What is there to be read. */
static const char *read_log(void) {
        static char text[8192];
        struct pollfd p = { .fd = ends[0], .events = POLLIN };
        ssize_t n = 0;

        if (poll(&p, 1, 0) == 1)
                n = read(ends[0], text, sizeof(text) - 1);
        REQUIRE(n >= 0, "%s", strerror(errno));
        text[n] = '\0';
        return text;
}

static void write_line(const char *event) {
        LogLine line;

        log_begin(&line, LOG_NOTE, event);
        log_end(&line);
}

static void expect_value(const char *value, size_t n, const char *expected) {
        char wanted[256];
        LogLine line;

        log_begin(&line, LOG_NOTE, "test");
        log_bytes(&line, "key", value, n);
        log_end(&line);
        (void)snprintf(wanted, sizeof(wanted), "event=test key=%s\n", expected);
        cr_assert_str_eq(read_log(), wanted);
}

TEST(log, a_line_is_its_event_and_its_pairs) {
        LogLine line;

        open_pipe();
        log_begin(&line, LOG_NOTE, "ready");
        log_text(&line, "socket", "/run/shmd/socket");
        log_u64(&line, "zero", 0);
        log_u64(&line, "most", UINT64_MAX);
        log_errno(&line, "error", -ENOENT);
        log_end(&line);
        cr_assert_str_eq(read_log(),
                         "event=ready socket=/run/shmd/socket zero=0 most=18446744073709551615 error=ENOENT\n");
        close_log();
}

TEST(log, errors_have_names_with_either_sign_and_unknown_ones_say_so) {
        LogLine line;

        open_pipe();
        log_begin(&line, LOG_NOTE, "test");
        log_errno(&line, "a", EMFILE);
        log_errno(&line, "b", -EMFILE);
        log_errno(&line, "c", 99999);
        log_end(&line);
        cr_assert_str_eq(read_log(), "event=test a=EMFILE b=EMFILE c=unknown\n");
        close_log();
}

TEST(log, plain_values_stand_bare_and_all_others_in_quotes) {
        open_pipe();
        expect_value("/a/b-c_d.e:f", 12, "/a/b-c_d.e:f");
        expect_value("!~", 2, "!~");
        expect_value("", 0, "\"\"");
        expect_value("a b", 3, "\"a b\"");
        expect_value("a=b", 3, "\"a=b\"");
        expect_value("say \"no\"", 8, "\"say \\\"no\\\"\"");
        expect_value("back\\slash", 10, "\"back\\\\slash\"");
        close_log();
}

TEST(log, no_byte_forges_a_line_or_drives_a_terminal) {
        open_pipe();
        expect_value("a\nevent=forged", 14, "\"a\\x0aevent=forged\"");
        expect_value("\033[2J", 4, "\"\\x1b[2J\"");
        expect_value("\r\t\177", 3, "\"\\x0d\\x09\\x7f\"");
        expect_value("a\0b", 3, "\"a\\x00b\"");
        expect_value("\xc3\xa4\x80\xff", 4, "\"\\xc3\\xa4\\x80\\xff\"");
        close_log();
}

TEST(log, every_byte_comes_out_as_printable_ascii_on_one_line) {
        LogLine line;

        open_pipe();
        for (unsigned int c = 0; c < 256; ++c) {
                char byte = (char)c;
                const char *text;
                size_t n;

                log_begin(&line, LOG_NOTE, "test");
                log_bytes(&line, "key", &byte, 1);
                log_end(&line);
                text = read_log();
                n = strlen(text);
                cr_assert_eq(strchr(text, '\n'), text + n - 1, "byte %u", c);
                for (size_t i = 0; i < n - 1; ++i)
                        cr_assert(text[i] >= ' ' && text[i] <= '~', "byte %u", c);
        }
        close_log();
}

TEST(log, format_strings_are_text) {
        open_pipe();
        expect_value("%n%s%x%1000d", 12, "%n%s%x%1000d");
        close_log();
}

TEST(log, a_line_that_is_too_long_is_cut_to_2048_bytes_and_stays_one_line) {
        static char value[4096];
        LogLine line;
        const char *text;

        open_pipe();
        memset(value, 'x', sizeof(value));
        log_begin(&line, LOG_NOTE, "long");
        log_bytes(&line, "value", value, sizeof(value));
        log_text(&line, "lost", "lost");
        log_end(&line);
        text = read_log();
        cr_assert_eq(strlen(text), 2048);
        cr_assert_eq(strchr(text, '\n'), text + 2047);
        cr_assert_eq(strstr(text, "lost"), NULL);

        memset(value, '\n', sizeof(value));
        log_begin(&line, LOG_NOTE, "long");
        log_bytes(&line, "value", value, sizeof(value));
        log_end(&line);
        text = read_log();
        cr_assert_eq(strlen(text), 2048);
        cr_assert_eq(strchr(text, '\n'), text + 2047);
        close_log();
}

/* Writes lines until one is dropped. Return: how many got through. */
static unsigned int fill_log(void) {
        uint64_t before = log_dropped();
        unsigned int n = 0;

        for (; log_dropped() == before; ++n) {
                REQUIRE(n < 1000000);
                write_line("filler");
        }
        return n - 1;
}

TEST(log, a_full_pipe_never_blocks_and_the_next_line_says_how_many_were_lost) {
        char text[65536];

        open_pipe();
        (void)fcntl(ends[1], F_SETPIPE_SZ, 4096);
        cr_assert_gt(fill_log(), 0);
        for (int i = 0; i < 6; ++i)
                write_line("lost");
        cr_assert_eq(log_dropped(), 7);

        cr_assert_gt(read(ends[0], text, sizeof(text)), 0);
        write_line("through");
        cr_assert_str_eq(read_log(), "event=through dropped_before=7\n");
        write_line("again");
        cr_assert_str_eq(read_log(), "event=again\n");
        cr_assert_eq(log_dropped(), 7, "the count is since the start");
        close_log();
}

TEST(log, a_full_socket_never_blocks) {
        char text[65536];

        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        REQUIRE(log_open(ends[1]) == 0);
        cr_assert_gt(fill_log(), 0);
        write_line("lost");
        cr_assert_eq(log_dropped(), 2);
        while (recv(ends[0], text, sizeof(text), MSG_DONTWAIT) > 0)
                continue;
        write_line("through");
        cr_assert_str_eq(read_log(), "event=through dropped_before=2\n");
        close_log();
}

TEST(log, the_flags_of_a_description_that_others_share_stay_as_they_were) {
        open_pipe();
        cr_assert_eq(fcntl(ends[1], F_GETFL) & (O_NONBLOCK | O_APPEND), 0);
        close_log();

        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        REQUIRE(log_open(ends[1]) == 0);
        write_line("test");
        cr_assert_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
        close_log();
}

static int write_to_nobody(void *userdata) {
        (void)signal(SIGPIPE, SIG_DFL);
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        REQUIRE(log_open(ends[1]) == 0);
        ends[0] = close_fd(ends[0]);
        write_line("lost");
        REQUIRE(log_dropped() == 1);
        return 0;
}

TEST(log, a_reader_that_is_gone_is_a_dropped_line_and_no_signal) {
        house_expect_child(write_to_nobody, NULL);
}

TEST(log, only_the_journal_is_told_priorities) {
        struct stat st;
        char stream[64];
        LogLine line;

        REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
        REQUIRE(fstat(ends[1], &st) == 0);
        (void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
        REQUIRE(setenv("JOURNAL_STREAM", stream, 1) == 0);
        REQUIRE(log_open(ends[1]) == 0);
        log_begin(&line, LOG_ERROR, "failed");
        log_end(&line);
        cr_assert_str_eq(read_log(), "<3>event=failed\n");
        log_begin(&line, LOG_INFORM, "told");
        log_end(&line);
        cr_assert_str_eq(read_log(), "<6>event=told\n");

        /* A redirected stderr inherits the variable, but is another stream. */
        (void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + 1);
        REQUIRE(setenv("JOURNAL_STREAM", stream, 1) == 0);
        REQUIRE(log_open(ends[1]) == 0);
        write_line("plain");
        cr_assert_str_eq(read_log(), "event=plain\n");

        REQUIRE(setenv("JOURNAL_STREAM", "nonsense", 1) == 0);
        REQUIRE(log_open(ends[1]) == 0);
        write_line("plain");
        cr_assert_str_eq(read_log(), "event=plain\n");
        close_log();
}

static int open_without_descriptors(void *userdata) {
        struct rlimit none = { 1, 1 };

        REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        REQUIRE(log_open(ends[1]) == 0, "it is used as it is");
        write_line("test");
        REQUIRE(!strcmp(read_log(), "event=test\n"));
        return 0;
}

TEST(log, what_cannot_be_opened_anew_is_used_as_it_is) {
        house_expect_child(open_without_descriptors, NULL);
}

TEST(log, a_descriptor_that_is_none_is_an_error) {
        cr_assert_eq(log_open(-1), -EBADF);
        log_close();
        log_close();
}
