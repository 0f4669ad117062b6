/* client/ctl/output: how numbers read, and what never reaches a terminal. */

#include "buildinfo.h"

#include "lib/test.h"

#include <fcntl.h>
#include <locale.h>
#include <pty.h>
#include <stdlib.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/output.h"

static void expect_human(uint64_t bytes, const char *text) {
        char buffer[OUTPUT_NUMBER_MAX];

        REQUIRE(strcmp(output_human(buffer, bytes), text) == 0, "%llu reads %s", (unsigned long long)bytes, buffer);
}

TEST(ctl_output, sizes_have_three_digits_at_most_and_a_unit) {
        expect_human(0, "0");
        expect_human(1023, "1023");
        expect_human(1024, "1.0K");
        expect_human(1536, "1.5K");
        expect_human(10 << 10, "10K");
        expect_human((UINT64_C(1) << 20) - 1, "1.0M");
        expect_human(UINT64_C(64) << 20, "64M");
        expect_human((UINT64_C(1) << 30) + 1, "1.0G");
        expect_human(UINT64_C(1) << 60, "1.0E");
        expect_human(UINT64_MAX, "16E");
}

TEST(ctl_output, sizes_are_exact_on_request) {
        char buffer[OUTPUT_NUMBER_MAX];
        Ctl ctl = { .bytes = true };

        cr_assert_str_eq(output_size(&ctl, buffer, (UINT64_C(1) << 30) + 1), "1073741825");
        cr_assert_str_eq(output_size(&ctl, buffer, UINT64_MAX), "18446744073709551615");
}

static void expect_duration(uint64_t ns, const char *text) {
        char buffer[OUTPUT_NUMBER_MAX];

        REQUIRE(strcmp(output_duration(buffer, ns), text) == 0, "%llu reads %s", (unsigned long long)ns, buffer);
}

TEST(ctl_output, durations_have_the_unit_that_fits) {
        expect_duration(0, "0ns");
        expect_duration(999, "999ns");
        expect_duration(1000, "1.0us");
        expect_duration(35000, "35us");
        expect_duration(1500000, "1.5ms");
        expect_duration(UINT64_C(2000000000), "2.0s");
        expect_duration(UINT64_C(5400000000000), "1.5h");
        expect_duration(UINT64_C(864000000000000), "10d");
}

/* A terminal, as a stream; nobody reads its other end. */
static FILE *terminal_open(int *ret_other) {
        int own;

        if (openpty(ret_other, &own, NULL, NULL, NULL) < 0)
                test_skip("there are no pseudo-terminals: %s", strerror(errno));
        return fdopen(own, "w");
}

static void expect_escaped(FILE *stream, const char *text, const char *wanted) {
        char *escaped = output_escape(text, stream);

        REQUIRE(strcmp(escaped, wanted) == 0, "it reads %s, not %s", escaped, wanted);
        free(escaped);
}

TEST(ctl_output, controls_and_broken_utf8_are_escaped_everywhere) {
        FILE *streams[2];
        int other;

        streams[0] = terminal_open(&other);
        streams[1] = fopen("/dev/null", "we");
        for (size_t i = 0; i < 2; ++i) {
                expect_escaped(streams[i], "/plain name", "/plain name");
                expect_escaped(streams[i], "/back\\slash", "/back\\slash");
                expect_escaped(streams[i], "\x1b[31m", "\\x1b[31m");
                expect_escaped(streams[i], "a\nb\tc\rd\x7f", "a\\x0ab\\x09c\\x0dd\\x7f");
                expect_escaped(streams[i], "\xc2\x9b" "31m", "\\xc2\\x9b31m");
                expect_escaped(streams[i], "\x9b" "31m", "\\x9b31m");
                expect_escaped(streams[i], "\xff\xfe", "\\xff\\xfe");
                expect_escaped(streams[i], "cut \xe2\x82", "cut \\xe2\\x82");
                expect_escaped(streams[i], "\xe2\x80\xae" "gpj", "\\xe2\\x80\\xaegpj");
                (void)fclose(streams[i]);
        }
        (void)close(other);
}

TEST(ctl_output, a_terminal_without_utf8_gets_ascii_alone) {
        FILE *terminal, *file = fopen("/dev/null", "we");
        int other;

        terminal = terminal_open(&other);
        REQUIRE(setlocale(LC_CTYPE, "C") != NULL);
        expect_escaped(terminal, "/gr\xc3\xb6\xc3\x9f" "e", "/gr\\xc3\\xb6\\xc3\\x9fe");
        expect_escaped(file, "/gr\xc3\xb6\xc3\x9f" "e", "/gr\xc3\xb6\xc3\x9f" "e");

        REQUIRE(setlocale(LC_CTYPE, "C.UTF-8") != NULL);
        expect_escaped(terminal, "/gr\xc3\xb6\xc3\x9f" "e", "/gr\xc3\xb6\xc3\x9f" "e");
        (void)fclose(terminal);
        (void)fclose(file);
        (void)close(other);
}

TEST(ctl_output, json_numbers_are_exact_up_to_2_to_the_63) {
        json_t *number;

        number = output_number(INT64_MAX);
        cr_assert(json_is_integer(number) && json_integer_value(number) == INT64_MAX);
        json_decref(number);

        number = output_number(UINT64_C(1) << 63);
        cr_assert(json_is_real(number) && json_real_value(number) == 9223372036854775808.0);
        json_decref(number);

        number = output_limit(UINT64_MAX);
        cr_assert(json_is_null(number));
        json_decref(number);
}

TEST(ctl_output, json_strings_are_utf8_whatever_comes) {
        json_t *string;

        string = output_string("/gr\xc3\xb6\xc3\x9f" "e \x1b");
        cr_assert_str_eq(json_string_value(string), "/gr\xc3\xb6\xc3\x9f" "e \x1b");
        json_decref(string);

        string = output_string("\xff!");
        cr_assert_str_eq(json_string_value(string), "\\xff!");
        json_decref(string);
}
