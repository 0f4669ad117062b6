/* client/ctl/top: rates from two looks, order, and lines that fit. */

#include "buildinfo.h"

#include "lib/test.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/top.h"

#define SECOND UINT64_C(1000000000)

static const Ctl ctl, in_bytes = { .bytes = true };

static void add(TopLook *look, uint64_t id, uint64_t size, uint64_t allocated, uint64_t granted, const char *path) {
        top_add_region(look, &(struct shmd_node){ .path = path, .kind = SHMD_NODE_REGION, .region = id,
                                                  .uid = 4000000 + (uid_t)id % 2, .size = size,
                                                  .allocated = allocated, .grants = id * 10, .granted = granted });
}

static void add_user(TopLook *look, uid_t uid, uint64_t bytes, uint64_t granted) {
        struct shmd_usage usage = { .uid = uid, .granted = granted };

        usage.used[SHMD_SLOT_BYTES] = bytes;
        usage.limit[SHMD_SLOT_BYTES] = UINT64_MAX;
        top_add_account(look, &usage);
}

static char *print(TopLook *look, TopView view) {
        static char *text;      /* gcc 12 at -O3 takes what the stream puts there for its address */
        size_t n;
        FILE *stream = open_memstream(&text, &n);

        REQUIRE(stream != NULL);
        top_print(look, &view, stream);
        REQUIRE(fclose(stream) == 0);
        return text;
}

/* The numbers of the regions in the order they are printed in. */
static void expect_order(TopLook *look, TopKey key, bool reverse, const char *wanted) {
        char *text = print(look, (TopView){ .ctl = &ctl, .key = key, .reverse = reverse });
        char *line = strstr(text, "REGION "), numbers[64] = "";

        while ((line = strchr(line, '\n')) && line[1])
                (void)snprintf(numbers + strlen(numbers), sizeof(numbers) - strlen(numbers), "%llu ",
                               strtoull(++line, NULL, 10));
        REQUIRE(strcmp(numbers, wanted) == 0, "%s: %s\n%s", top_key_name(key), numbers, text);
        free(text);
}

TEST(ctl_top, every_key_sorts_and_turns_round) {
        TopLook before = { .at_ns = SECOND }, look = { .at_ns = 3 * SECOND };

        add(&before, 1, 0, 0, 10, "/z");
        add(&before, 2, 0, 0, 10, "/y");
        top_compare(&before, &(TopLook){ .at_ns = 0 });
        add(&look, 3, 300, 5, 7, "/a");
        add(&look, 2, 100, 50, 30, "/y");
        add(&look, 1, 200, 40, 14, "/z");
        top_compare(&look, &before);
        expect_order(&look, TOP_SIZE, false, "3 1 2 ");
        expect_order(&look, TOP_SIZE, true, "2 1 3 ");
        expect_order(&look, TOP_ALLOCATED, false, "2 1 3 ");
        expect_order(&look, TOP_GRANTS, false, "3 2 1 ");
        expect_order(&look, TOP_RATE, false, "2 1 3 ");
        expect_order(&look, TOP_NAME, false, "3 2 1 ");
        expect_order(&look, TOP_USER, false, "2 1 3 ");
        expect_order(&look, TOP_USER, true, "1 3 2 ");
        top_look_deinit(&look);
        top_look_deinit(&before);
}

TEST(ctl_top, rates_are_of_the_time_between_two_looks) {
        TopLook before = { .at_ns = SECOND }, look = { .at_ns = 3 * SECOND };

        add(&before, 5, 0, 0, 100, "/five");
        add(&before, 7, 0, 0, 100, "/gone");
        add_user(&before, 1, 0, 40);
        add_user(&before, 3, 0, 40);
        before.total.usage.granted = 80;
        top_compare(&before, &(TopLook){ .at_ns = 0 });
        cr_assert_lt(before.regions[0].rate, 0, "one look has none");
        cr_assert_lt(before.total.rate, 0);

        add(&look, 9, 0, 0, 50, "/new");
        add(&look, 5, 0, 0, 103, "/five");
        add_user(&look, 1, 0, 60);
        add_user(&look, 2, 0, 60);
        add_user(&look, 3, 0, 10);
        look.total.usage.granted = 180;
        top_compare(&look, &before);
        cr_assert(look.regions[0].id == 5 && look.regions[0].rate == 1.5);
        cr_assert(look.regions[1].id == 9 && look.regions[1].rate < 0, "it was not there before");
        cr_assert(look.accounts[0].rate == 10);
        cr_assert(look.accounts[1].rate < 0);
        cr_assert(look.accounts[2].rate < 0, "its account began anew");
        cr_assert(look.total.rate == 50);
        top_look_deinit(&look);
        top_look_deinit(&before);
}

TEST(ctl_top, a_region_of_several_names_is_one_row) {
        TopLook look = { .at_ns = SECOND };

        add(&look, 5, 0, 0, 0, "/c");
        add(&look, 4, 0, 0, 0, "/b");
        add(&look, 5, 0, 0, 0, "/a");
        add(&look, 5, 0, 0, 0, "/d");
        add(&look, 6, 0, 0, 0, "");
        top_compare(&look, &(TopLook){ .at_ns = 0 });
        cr_assert_eq(look.n_regions, 3);
        cr_assert_str_eq(look.regions[0].name, "/b");
        cr_assert_str_eq(look.regions[1].name, "/a");
        cr_assert_str_eq(look.regions[2].name, "");
        top_look_deinit(&look);
}

static size_t count_lines(const char *text) {
        size_t n = 1;

        for (; *text; ++text)
                n += *text == '\n';
        return n;
}

TEST(ctl_top, a_screen_is_never_overrun) {
        TopLook look = { .at_ns = SECOND };

        REQUIRE(setlocale(LC_CTYPE, "C.UTF-8") != NULL);
        for (uint64_t i = 1; i <= 1000; ++i) {
                add(&look, i, i, i, 0, "/größe-and-more-and-more-and-more");
                add_user(&look, (uid_t)(4000000 + i), i, 0);
        }
        top_compare(&look, &(TopLook){ .at_ns = 0 });
        for (size_t rows = 1; rows < 60; ++rows) {
                char *text = print(&look, (TopView){ .ctl = &ctl, .columns = 57, .rows = rows, .screen = true });

                REQUIRE(count_lines(text) == rows, "%zu lines of %zu", count_lines(text), rows);
                REQUIRE(rows < 24 || strstr(text, " /grö\x1b"), "cut between characters: %s", text);
                free(text);
        }
        top_look_deinit(&look);
}

TEST(ctl_top, plain_text_has_all_of_it_and_no_sequence) {
        TopLook look = { .at_ns = SECOND, .broker = "1.0" };
        char *text;

        add(&look, 1, UINT64_C(1) << 30, 4096, 0, "/\x1b[31mred");
        add_user(&look, 4000001, 8192, 3);
        top_compare(&look, &(TopLook){ .at_ns = 0 });
        text = print(&look, (TopView){ .ctl = &in_bytes });
        cr_assert(strstr(text, "      1073741824            4096      10        - /\\x1b[31mred\n"), "%s", text);
        cr_assert(strstr(text, "4000001                 8192               -        0       0        -      0\n"), "%s",
                  text);
        cr_assert_null(strchr(text, '\x1b'));
        free(text);
        top_look_deinit(&look);
}

TEST(ctl_top, keys_have_names) {
        for (int key = 0; key < _TOP_KEY_N; ++key)
                cr_assert_eq(top_key_find(top_key_name((TopKey)key)), key);
        cr_assert_eq(top_key_find("nothing"), -1);
}
