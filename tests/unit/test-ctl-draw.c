/* client/ctl/draw: pictures of pages that say what all of them are. */

#include "buildinfo.h"

#include "lib/test.h"

#include <stdlib.h>
#include <string.h>

#include "client/ctl/draw.h"

#define PAGE UINT64_C(4096)

static const PictureStyle ascii, utf8 = { .utf8 = true };

static void expect_sign(uint64_t hole, uint64_t resident, uint64_t swapped, uint64_t unknown, const char *in_utf8,
                        const char *in_ascii) {
        PictureCell cell = { .bytes = { [PAGES_HOLE] = hole * PAGE, [PAGES_RESIDENT] = resident * PAGE,
                                        [PAGES_SWAPPED] = swapped * PAGE, [PAGES_UNKNOWN] = unknown * PAGE } };

        REQUIRE(strcmp(picture_sign(&cell, true), in_utf8) == 0, "%s", picture_sign(&cell, true));
        REQUIRE(strcmp(picture_sign(&cell, false), in_ascii) == 0, "%s", picture_sign(&cell, false));
}

TEST(ctl_draw, a_sign_is_full_or_empty_only_if_all_of_it_is) {
        expect_sign(1, 0, 0, 0, "·", ".");
        expect_sign(0, 1, 0, 0, "█", "#");
        expect_sign(1000, 1, 0, 0, "▁", "+");
        expect_sign(1, 1000, 0, 0, "▇", "+");
        expect_sign(1, 1, 0, 0, "▄", "+");
        expect_sign(6, 2, 0, 0, "▂", "+");
        expect_sign(2, 6, 0, 0, "▆", "+");
}

TEST(ctl_draw, what_is_swapped_is_never_hidden) {
        expect_sign(0, 0, 8, 0, "░", "s");
        expect_sign(0, 1000, 1, 0, "▒", "m");
        expect_sign(1000, 0, 1, 0, "▒", "m");
        expect_sign(1, 1, 1, 1, "?", "?");
}

static char *print(const Picture *picture, PictureStyle style, bool bytes) {
        Ctl ctl = { .bytes = bytes };
        char *text = NULL;
        size_t n;
        FILE *stream = open_memstream(&text, &n);

        REQUIRE(stream != NULL);
        picture_print(&ctl, picture, style, stream);
        REQUIRE(fclose(stream) == 0);
        return text;
}

static void expect_picture(const Picture *picture, PictureStyle style, bool bytes, const char *wanted) {
        char *text = print(picture, style, bytes);

        REQUIRE(strcmp(text, wanted) == 0, "\n%s", text);
        free(text);
}

TEST(ctl_draw, runs_fall_into_the_cells_they_cover) {
        Picture picture;

        picture_init(&picture, 20 * PAGE, PAGE, 8, 4);
        cr_assert_eq(picture.cell_size, PAGE);
        cr_assert_eq(picture.n, 20);
        picture_add(&picture, PAGES_HOLE, 0, 5 * PAGE);
        picture_add(&picture, PAGES_RESIDENT, 5 * PAGE, 10 * PAGE);
        picture_add(&picture, PAGES_SWAPPED, 15 * PAGE, 4 * PAGE);
        picture_add(&picture, PAGES_HOLE, 19 * PAGE, PAGE);
        expect_picture(&picture, ascii, false, "     0 .....###\n   32K #######s\n   64K sss.\n");
        expect_picture(&picture, utf8, true,
                       "             0 ·····███\n"
                       "         32768 ███████░\n"
                       "         65536 ░░░·\n");
        picture_deinit(&picture);
}

TEST(ctl_draw, a_large_region_has_cells_of_a_power_of_two_of_pages) {
        Picture picture;

        picture_init(&picture, UINT64_C(1) << 40, PAGE, 64, 16);
        cr_assert_eq(picture.cell_size, UINT64_C(1) << 30);
        cr_assert_eq(picture.n, 1024);
        picture_deinit(&picture);
        picture_init(&picture, (UINT64_C(1) << 40) + 1, PAGE, 64, 16);
        cr_assert_eq(picture.cell_size, UINT64_C(1) << 31);
        cr_assert_eq(picture.n, 513);
        picture_deinit(&picture);

        picture_init(&picture, 100 * PAGE, PAGE, 10, 5);
        cr_assert_eq(picture.cell_size, 2 * PAGE);
        picture_add(&picture, PAGES_RESIDENT, 0, 51 * PAGE);
        picture_add(&picture, PAGES_HOLE, 51 * PAGE, 49 * PAGE);
        cr_assert_str_eq(picture_sign(&picture.cells[24], false), "#");
        cr_assert_str_eq(picture_sign(&picture.cells[25], false), "+");
        cr_assert_str_eq(picture_sign(&picture.cells[26], false), ".");
        picture_deinit(&picture);
}

TEST(ctl_draw, a_byte_is_a_picture_of_one_page) {
        Picture picture;

        picture_init(&picture, 1, PAGE, 64, 16);
        cr_assert_eq(picture.n, 1);
        picture_add(&picture, PAGES_RESIDENT, 0, PAGE);
        expect_picture(&picture, ascii, false, "     0 #\n");
        picture_deinit(&picture);
}

TEST(ctl_draw, colours_change_where_the_kind_does_and_end_with_the_line) {
        const PictureStyle colours = { .colours = true };
        Picture picture;

        picture_init(&picture, 4 * PAGE, PAGE, 4, 1);
        picture_add(&picture, PAGES_RESIDENT, 0, 2 * PAGE);
        picture_add(&picture, PAGES_SWAPPED, 2 * PAGE, 2 * PAGE);
        expect_picture(&picture, colours, false, "     0 \x1b[0m\x1b[32m##\x1b[0m\x1b[35mss\x1b[0m\n");
        picture_deinit(&picture);
}
