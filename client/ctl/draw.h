/* A picture of a region's pages: cells of as many pages each as make it fit, in lines.
 *
 * A cell says what all of its pages are, not what most of them are: it is full only if all of them are
 * in memory and empty only if none exists; in between its height is their share, and one page of many
 * still shows. Swapped pages have signs of their own.
 */
#ifndef CLIENT_CTL_DRAW_H
#define CLIENT_CTL_DRAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "client/ctl/ctl.h"
#include "client/ctl/pages.h"

typedef struct PictureCell {
        uint64_t bytes[_PAGES_N];
} PictureCell;

typedef struct Picture {
        uint64_t cell_size;     /* bytes: a power of two of pages */
        size_t columns;
        size_t n;
        PictureCell *cells;
} Picture;

typedef struct PictureStyle {
        bool utf8;
        bool colours;
} PictureStyle;

/* A picture of size bytes (more than 0), with at most so many columns and rows. */
void picture_init(Picture *picture, uint64_t size, uint64_t page_size, size_t columns, size_t rows);
void picture_deinit(Picture *picture);

/* A PagesFn, with the picture as userdata. */
void picture_add(void *picture, PagesState state, uint64_t offset, uint64_t length);

/* The sign for a cell: one character, in UTF-8 or ASCII. */
const char *picture_sign(const PictureCell *cell, bool utf8);

/* Prints it, each line with the offset of its first page. */
void picture_print(const Ctl *ctl, const Picture *picture, PictureStyle style, FILE *stream);
/* Prints what the signs mean. */
void picture_print_legend(PictureStyle style, FILE *stream);

#endif
