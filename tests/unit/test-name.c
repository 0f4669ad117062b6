/* daemon/core/name: a checked path, taken apart. */

#include "lib/test.h"

#include <stdlib.h>
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

/* The components, put together again, are the path. */
static void expect_whole(const char *path, size_t n) {
        size_t at = 0;
        NamePart part;
        Name name;

        REQUIRE(name_init(&name, path, n, NULL) == 0);
        while (name_next(&name, &part)) {
                REQUIRE(path[at] == '/' && part.text == path + at + 1 && part.n > 0, "%.*s", (int)n, path);
                REQUIRE(!memchr(part.text, '/', part.n), "%.*s", (int)n, path);
                at += 1U + part.n;
                REQUIRE(part.end == at && part.last == (at == n), "%.*s", (int)n, path);
        }
        REQUIRE(at == n || (n == 1 && at == 0), "%.*s", (int)n, path);
}

TEST(name, what_is_valid_is_what_a_path_may_look_like_and_nothing_else) {
        static const char some[] = "////..ab~ \x7f\x1f\n\xc3\xa4\xe2\x80\xae\xff";
        uint64_t random = test_seed();
        size_t n_valid = 0;

        for (size_t round = test_rounds(200000); round > 0; --round) {
                /* Mostly plain, so that many are valid. */
                size_t n = test_random(&random, 30), most = test_random(&random, 4) ? 10 : sizeof(some) - 1;
                char *path = malloc(n ? n : 1);
                PathError why;
                Name name;

                REQUIRE(path);
                for (size_t i = 0; i < n; ++i)
                        path[i] = test_random(&random, 3) ? 'x' : some[test_random(&random, most)];
                if (n > 0 && test_random(&random, 8))
                        path[0] = '/';
                REQUIRE((name_init(&name, path, n, &why) == 0) == (path_check(path, n) == PATH_OK));
                REQUIRE(why == path_check(path, n), "%.*s", (int)n, path);
                if (!why) {
                        expect_whole(path, n);
                        ++n_valid;
                }
                free(path);
        }
        cr_assert_gt(n_valid, 0);
}

TEST(name, the_longest_component_and_the_longest_path_are_taken_apart) {
        char path[PATH_BYTES_MAX + 1];
        PathError why;
        Name name;

        memset(path, 'x', sizeof(path));
        path[0] = '/';
        expect_whole(path, 1 + PATH_COMPONENT_MAX);
        cr_assert_eq(name_init(&name, path, 2 + PATH_COMPONENT_MAX, &why), NAME_E_INVALID);
        cr_assert_eq(why, PATH_COMPONENT_TOO_LONG);
        for (size_t i = 0; i < sizeof(path); i += PATH_COMPONENT_MAX + 1)
                path[i] = '/';
        expect_whole(path, PATH_BYTES_MAX);
        cr_assert_eq(name_init(&name, path, PATH_BYTES_MAX + 1, &why), NAME_E_INVALID);
        cr_assert_eq(why, PATH_TOO_LONG);
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
