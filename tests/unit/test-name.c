/* daemon/core/name: a checked path, taken apart. */

#include "lib/test.h"

#include <string.h>

#include "core/name.h"

static void expect_part(Name *name, const char *text, size_t end, bool last) {
        NamePart part;

        cr_assert(name_next(name, &part), "%s", text);
        cr_assert_eq(part.n, strlen(text));
        cr_assert_arr_eq(part.text, text, part.n);
        cr_assert_eq(part.end, end);
        cr_assert_eq(part.last, last);
}

TEST(name, the_root_has_no_components) {
        NamePart part;
        Name name;

        cr_assert_eq(name_init(&name, "/", 1, NULL), 0);
        cr_assert_not(name_next(&name, &part));
        cr_assert_not(name_next(&name, &part));
}

TEST(name, components_come_in_order_with_where_they_end) {
        NamePart part;
        Name name;

        cr_assert_eq(name_init(&name, "/a/bc/def", 9, NULL), 0);
        expect_part(&name, "a", 2, false);
        expect_part(&name, "bc", 5, false);
        expect_part(&name, "def", 9, true);
        cr_assert_not(name_next(&name, &part));
}

TEST(name, it_ends_where_its_length_says_and_not_at_a_nul_or_a_slash_behind) {
        Name name;

        cr_assert_eq(name_init(&name, "/abc/def", 3, NULL), 0);
        expect_part(&name, "ab", 3, true);
        cr_assert_eq(name_init(&name, "/abc/def", 4, NULL), 0);
        expect_part(&name, "abc", 4, true);
        cr_assert_eq(name_init(&name, "/a\0b", 4, NULL), NAME_E_INVALID);
}

TEST(name, what_breaks_a_rule_is_invalid_and_says_which) {
        static const struct {
                const char *path;
                PathError why;
        } cases[] = {
                { "", PATH_EMPTY }, { "a", PATH_RELATIVE }, { "/a/", PATH_COMPONENT_EMPTY },
                { "//", PATH_COMPONENT_EMPTY }, { "/..", PATH_COMPONENT_DOTS }, { "/a/./b", PATH_COMPONENT_DOTS },
                { "/\n", PATH_CONTROL }, { "/\xe2\x80\xae", PATH_BIDI }, { "/\xff", PATH_NOT_UTF8 },
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
                PathError why = PATH_OK;
                Name name;

                cr_assert_eq(name_init(&name, cases[i].path, strlen(cases[i].path), &why), NAME_E_INVALID);
                cr_assert_eq(why, cases[i].why, "%s", cases[i].path);
                cr_assert_eq(name_init(&name, cases[i].path, strlen(cases[i].path), NULL), NAME_E_INVALID);
        }
}

TEST(name, sixteen_components_are_walked_and_a_seventeenth_is_invalid) {
        static const char path[] = "/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h";
        PathError why;
        NamePart part;
        size_t n = 0;
        Name name;

        cr_assert_eq(name_init(&name, path, 32, &why), 0);
        cr_assert_eq(why, PATH_OK);
        while (name_next(&name, &part))
                ++n;
        cr_assert_eq(n, 16);
        cr_assert_eq(name_init(&name, path, 34, &why), NAME_E_INVALID);
        cr_assert_eq(why, PATH_TOO_DEEP);
}

TEST(name, order_is_bytes_then_length) {
        cr_assert_eq(name_compare("a", 1, "a", 1), 0);
        cr_assert_lt(name_compare("a", 1, "b", 1), 0);
        cr_assert_gt(name_compare("b", 1, "a", 1), 0);
        cr_assert_lt(name_compare("a", 1, "ab", 2), 0);
        cr_assert_gt(name_compare("ab", 2, "a", 1), 0);
        cr_assert_lt(name_compare("ab", 2, "b", 1), 0);
        cr_assert_lt(name_compare("Z", 1, "a", 1), 0);
        cr_assert_lt(name_compare("z", 1, "\xc3\xa4", 2), 0, "bytes are unsigned");
        cr_assert_eq(name_compare("abX", 2, "abY", 2), 0, "and no more of them than there are");
        cr_assert_lt(name_compare("a\0b", 2, "a\0b", 3), 0, "a NUL is a byte like any other");
}
