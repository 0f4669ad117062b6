/* include/base/path.h: what a name may look like. Every bound from both sides. */

#include "lib/test.h"

#include <string.h>

#include "base/path.h"

static PathError check(const char *path) {
        return path_check(path, strlen(path));
}

/* '/' and n - 1 bytes in components of 200 and a last one of what is left, at least one. */
static size_t long_path(char *path, size_t n) {
        memset(path, 'x', n);
        for (size_t at = 0; at < n; at += 201)
                path[at] = '/';
        if (n > 1 && path[n - 1] == '/')
                path[n - 2] = '/', path[n - 1] = 'x';
        return n;
}

static size_t deep_path(char *path, size_t depth) {
        for (size_t i = 0; i < depth; ++i)
                memcpy(path + i * 2, "/d", 2);
        return depth * 2;
}

TEST(path, the_root_is_a_name) {
        cr_assert_eq(check("/"), PATH_OK);
}

TEST(path, ordinary_names_are_valid) {
        static const char *const names[] = {
                "/a", "/camera/front/frame0", "/A/a", "/with space", "/%2e%2e", "/a:b", "/-", "/~", "/...", "/..a",
                "/.hidden", "/a.", "/a..", "/.a/.b", "/*", "/\\", "/\"quoted\"", "/%n%s",
        };

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i)
                cr_assert_eq(check(names[i]), PATH_OK, "%s", names[i]);
}

TEST(path, the_empty_name_is_refused) {
        cr_assert_eq(path_check("", 0), PATH_EMPTY);
        cr_assert_eq(path_check("/a", 0), PATH_EMPTY);
}

TEST(path, a_name_starts_with_a_slash) {
        cr_assert_eq(check("a"), PATH_RELATIVE);
        cr_assert_eq(check("a/b"), PATH_RELATIVE);
        cr_assert_eq(check("./a"), PATH_RELATIVE);
        cr_assert_eq(check(" /a"), PATH_RELATIVE);
        cr_assert_eq(path_check("\0/a", 3), PATH_RELATIVE);
}

TEST(path, length_of_1023_is_the_last) {
        char path[2048];

        cr_assert_eq(path_check(path, long_path(path, 1)), PATH_OK);
        cr_assert_eq(path_check(path, long_path(path, 1022)), PATH_OK);
        cr_assert_eq(path_check(path, long_path(path, 1023)), PATH_OK);
        cr_assert_eq(path_check(path, long_path(path, 1024)), PATH_TOO_LONG);
        cr_assert_eq(path_check(path, long_path(path, 2048)), PATH_TOO_LONG);
}

TEST(path, component_of_255_is_the_last) {
        char path[1 + 256 + 2];

        memset(path, 'x', sizeof(path));
        path[0] = '/';
        cr_assert_eq(path_check(path, 1 + 1), PATH_OK);
        cr_assert_eq(path_check(path, 1 + 255), PATH_OK);
        cr_assert_eq(path_check(path, 1 + 256), PATH_COMPONENT_TOO_LONG);

        path[1 + 255] = '/';
        cr_assert_eq(path_check(path, sizeof(path)), PATH_OK);
        path[1 + 255] = 'x';
        path[1 + 256] = '/';
        cr_assert_eq(path_check(path, sizeof(path)), PATH_COMPONENT_TOO_LONG);
}

TEST(path, a_component_is_counted_in_bytes) {
        char path[1 + 256];

        path[0] = '/';
        for (size_t i = 0; i < 128; ++i)
                memcpy(path + 1 + 2 * i, "\xc3\xa9", 2);
        cr_assert_eq(path_check(path, 1 + 254), PATH_OK);
        cr_assert_eq(path_check(path, 1 + 256), PATH_COMPONENT_TOO_LONG);
}

TEST(path, depth_of_16_is_the_last) {
        char path[64];

        for (size_t depth = 1; depth <= 16; ++depth)
                cr_assert_eq(path_check(path, deep_path(path, depth)), PATH_OK, "%zu", depth);
        cr_assert_eq(path_check(path, deep_path(path, 17)), PATH_TOO_DEEP);
        cr_assert_eq(path_check(path, deep_path(path, 32)), PATH_TOO_DEEP);
}

TEST(path, no_component_is_empty) {
        cr_assert_eq(check("//"), PATH_COMPONENT_EMPTY);
        cr_assert_eq(check("//a"), PATH_COMPONENT_EMPTY);
        cr_assert_eq(check("/a//b"), PATH_COMPONENT_EMPTY);
        cr_assert_eq(check("/a/"), PATH_COMPONENT_EMPTY);
        cr_assert_eq(check("/a/b//"), PATH_COMPONENT_EMPTY);
        cr_assert_eq(check("///"), PATH_COMPONENT_EMPTY);
}

TEST(path, a_slash_too_many_is_seen_at_every_depth) {
        char path[64];

        for (size_t depth = 1; depth < 16; ++depth) {
                size_t n = deep_path(path, depth);

                path[n] = '/';
                cr_assert_eq(path_check(path, n + 1), PATH_COMPONENT_EMPTY, "%zu", depth);
        }
}

TEST(path, dots_are_no_components) {
        cr_assert_eq(check("/."), PATH_COMPONENT_DOTS);
        cr_assert_eq(check("/.."), PATH_COMPONENT_DOTS);
        cr_assert_eq(check("/a/."), PATH_COMPONENT_DOTS);
        cr_assert_eq(check("/a/.."), PATH_COMPONENT_DOTS);
        cr_assert_eq(check("/./a"), PATH_COMPONENT_DOTS);
        cr_assert_eq(check("/../a"), PATH_COMPONENT_DOTS);
        cr_assert_eq(check("/a/../b"), PATH_COMPONENT_DOTS);
        cr_assert_eq(check("/a/b/c/../../../../etc/passwd"), PATH_COMPONENT_DOTS);
}

TEST(path, no_byte_below_the_space_is_allowed) {
        for (int c = 0; c < 0x20; ++c) {
                char path[] = { '/', 'a', (char)c, 'b' };

                cr_assert_eq(path_check(path, sizeof(path)), PATH_CONTROL, "%#x", c);
                cr_assert_eq(path_check(path, 3), PATH_CONTROL, "%#x at the end", c);
        }
}

TEST(path, every_printable_ascii_byte_is_allowed) {
        for (int c = 0x20; c < 0x7f; ++c) {
                char path[] = { '/', 'a', (char)c, 'b' };

                cr_assert_eq(path_check(path, sizeof(path)), PATH_OK, "%#x", c);
        }
}

TEST(path, del_and_c1_controls_are_refused) {
        cr_assert_eq(check("/a\x7f"), PATH_CONTROL);
        for (unsigned int c = 0x80; c < 0xa0; ++c) {
                char path[] = { '/', (char)0xc2, (char)c };

                cr_assert_eq(path_check(path, sizeof(path)), PATH_CONTROL, "U+%04X", c);
        }
        cr_assert_eq(check("/\xc2\xa0"), PATH_OK, "U+00A0 is no control");
}

static size_t encode(uint32_t c, char *p) {
        if (c < 0x80) {
                p[0] = (char)c;
                return 1;
        }
        if (c < 0x800) {
                p[0] = (char)(0xc0 | c >> 6);
                p[1] = (char)(0x80 | (c & 0x3f));
                return 2;
        }
        if (c < 0x10000) {
                p[0] = (char)(0xe0 | c >> 12);
                p[1] = (char)(0x80 | (c >> 6 & 0x3f));
                p[2] = (char)(0x80 | (c & 0x3f));
                return 3;
        }
        p[0] = (char)(0xf0 | c >> 18);
        p[1] = (char)(0x80 | (c >> 12 & 0x3f));
        p[2] = (char)(0x80 | (c >> 6 & 0x3f));
        p[3] = (char)(0x80 | (c & 0x3f));
        return 4;
}

static PathError expected(uint32_t c) {
        static const uint32_t bidi[] = {
                0x61c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069,
        };

        if (c < 0x20 || c == 0x7f || (c >= 0x80 && c <= 0x9f))
                return PATH_CONTROL;
        if (c >= 0xd800 && c <= 0xdfff)
                return PATH_NOT_UTF8;
        if (c > 0x10ffff)
                return PATH_NOT_UTF8;
        for (size_t i = 0; i < sizeof(bidi) / sizeof(bidi[0]); ++i)
                if (c == bidi[i])
                        return PATH_BIDI;
        return PATH_OK;
}

/* Eight bytes are looked at at once where they are plain. */
TEST(path, a_byte_is_judged_the_same_wherever_it_is) {
        for (unsigned int byte = 1; byte < 256; ++byte) {
                char shortest[2] = { '/', (char)byte };
                PathError expected = path_check(shortest, 2);

                if (byte == '/' || byte == '.')
                        continue;
                for (size_t n = 2; n < 28; ++n) {
                        for (size_t at = 1; at < n; ++at) {
                                char path[28] = "/aB~ z0-_9aB~ z0-_9aB~ z0-_9";

                                path[at] = (char)byte;
                                cr_assert_eq(path_check(path, n), expected, "byte %u at %zu of %zu", byte, at, n);
                        }
                }
        }
}

TEST(path, every_code_point_is_judged_as_documented) {
        for (uint32_t c = 0; c < 0x200000; ++c) {
                char component[1 + 4] = { 'a' };
                size_t n = 1 + encode(c, component + 1);
                PathError error;

                if (c == '/')
                        continue;
                error = path_check_component(component, n);
                if (error != expected(c))
                        cr_assert_fail("U+%04X: %d instead of %d", c, error, expected(c));
        }
}

TEST(path, overlong_forms_are_refused) {
        cr_assert_eq(check("/\xc0\x80"), PATH_NOT_UTF8, "NUL in two bytes");
        cr_assert_eq(check("/\xc0\xaf"), PATH_NOT_UTF8, "a slash in two bytes");
        cr_assert_eq(check("/\xc0\xae\xc0\xae"), PATH_NOT_UTF8, "dots in two bytes each");
        cr_assert_eq(check("/\xc1\xbf"), PATH_NOT_UTF8);
        cr_assert_eq(check("/\xe0\x80\xaf"), PATH_NOT_UTF8);
        cr_assert_eq(check("/\xe0\x9f\xbf"), PATH_NOT_UTF8);
        cr_assert_eq(check("/\xf0\x80\x80\xaf"), PATH_NOT_UTF8);
        cr_assert_eq(check("/\xf0\x8f\xbf\xbf"), PATH_NOT_UTF8);
        cr_assert_eq(check("/\xf8\x88\x80\x80\x80"), PATH_NOT_UTF8);
        cr_assert_eq(check("/\xfc\x84\x80\x80\x80\x80"), PATH_NOT_UTF8);
}

TEST(path, the_shortest_form_of_each_length_is_accepted) {
        cr_assert_eq(check("/\xc2\xa1"), PATH_OK);
        cr_assert_eq(check("/\xe0\xa0\x80"), PATH_OK);
        cr_assert_eq(check("/\xf0\x90\x80\x80"), PATH_OK);
        cr_assert_eq(check("/\xf4\x8f\xbf\xbf"), PATH_OK, "U+10FFFF");
        cr_assert_eq(check("/\xf4\x90\x80\x80"), PATH_NOT_UTF8, "U+110000");
}

TEST(path, surrogates_are_refused) {
        cr_assert_eq(check("/\xed\xa0\x80"), PATH_NOT_UTF8, "U+D800");
        cr_assert_eq(check("/\xed\xbf\xbf"), PATH_NOT_UTF8, "U+DFFF");
        cr_assert_eq(check("/\xed\xa0\xbd\xed\xb8\x80"), PATH_NOT_UTF8, "a pair of them");
        cr_assert_eq(check("/\xed\x9f\xbf"), PATH_OK, "U+D7FF");
        cr_assert_eq(check("/\xee\x80\x80"), PATH_OK, "U+E000");
}

TEST(path, a_character_cut_short_is_refused) {
        static const char whole[] = "\xf0\x90\x8d\x88";

        for (size_t n = 1; n < 4; ++n) {
                char path[16] = "/a";

                memcpy(path + 2, whole, n);
                cr_assert_eq(path_check(path, 2 + n), PATH_NOT_UTF8, "%zu bytes at the end", n);
                path[2 + n] = 'b';
                cr_assert_eq(path_check(path, 2 + n + 1), PATH_NOT_UTF8, "%zu bytes before a letter", n);
                path[2 + n] = '/';
                path[2 + n + 1] = (char)0x8d;
                cr_assert_eq(path_check(path, 2 + n + 2), PATH_NOT_UTF8, "%zu bytes before a slash", n);
        }
}

TEST(path, a_character_is_not_completed_beyond_the_end) {
        /* The bytes that would complete it are there, behind the length given. */
        cr_assert_eq(path_check("/\xf0\x90\x8d\x88", 4), PATH_NOT_UTF8);
        cr_assert_eq(path_check("/\xc3\xa9", 2), PATH_NOT_UTF8);
}

TEST(path, lone_continuations_and_bad_leads_are_refused) {
        for (int c = 0x80; c < 0xc0; ++c)
                cr_assert_eq(path_check((char[]){ '/', (char)c }, 2), PATH_NOT_UTF8, "%#x", c);
        for (int c = 0xf8; c < 0x100; ++c)
                cr_assert_eq(path_check((char[]){ '/', (char)c, (char)0x80, (char)0x80, (char)0x80 }, 5),
                             PATH_NOT_UTF8, "%#x", c);
}

TEST(path, a_nul_inside_is_refused_not_an_end) {
        cr_assert_eq(path_check("/a\0b", 4), PATH_CONTROL);
        cr_assert_eq(path_check("/\0", 2), PATH_CONTROL);
}

TEST(path, a_newline_is_refused) {
        cr_assert_eq(check("/a\nFDSTOREREMOVE=1\nFDNAME=r1"), PATH_CONTROL);
}

TEST(path, composed_and_decomposed_forms_are_both_valid) {
        cr_assert_eq(check("/caf\xc3\xa9"), PATH_OK);
        cr_assert_eq(check("/cafe\xcc\x81"), PATH_OK);
}

TEST(path, every_error_has_its_own_sentence) {
        for (PathError a = PATH_OK; a <= PATH_BIDI; ++a) {
                cr_assert_gt(strlen(path_error_sentence(a)), 10);
                for (PathError b = PATH_OK; b < a; ++b)
                        cr_assert_str_neq(path_error_sentence(a), path_error_sentence(b));
        }
        cr_assert_not_null(path_error_sentence((PathError)1000));
}
