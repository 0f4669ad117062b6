/* A picture of a region's pages: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/draw.h"

#include <stdlib.h>

#include "client/ctl/output.h"

/* -- cells --------------------------------------------------------------------------------------- */

void picture_init(Picture *picture, uint64_t size, uint64_t page_size, size_t columns, size_t rows) {
        uint64_t cell = page_size;

        while ((size - 1) / cell >= (uint64_t)columns * rows)
                cell *= 2;
        *picture = (Picture){ .cell_size = cell, .columns = columns, .n = (size_t)((size - 1) / cell + 1) };
        picture->cells = calloc(picture->n, sizeof(*picture->cells));
        if (!picture->cells)
                output_oom();
}

void picture_deinit(Picture *picture) {
        free(picture->cells);
        *picture = (Picture){ .n = 0 };
}

void picture_add(void *userdata, PagesState state, uint64_t offset, uint64_t length) {
        Picture *picture = userdata;

        while (length > 0) {
                uint64_t left = picture->cell_size - offset % picture->cell_size;
                uint64_t n = length < left ? length : left;

                picture->cells[offset / picture->cell_size].bytes[state] += n;
                offset += n;
                length -= n;
        }
}

/* -- signs ---------------------------------------------------------------------------------------- */

typedef enum Sign {
        SIGN_HOLE,
        SIGN_PART,              /* ... seven of them */
        SIGN_RESIDENT = SIGN_PART + 7,
        SIGN_SWAPPED,
        SIGN_SWAPPED_PART,
        SIGN_UNKNOWN,
        _SIGN_N,
} Sign;

static const struct {
        const char *utf8;
        const char *ascii;
        const char *colour;
} signs[_SIGN_N] = {
        [SIGN_HOLE]         = { "·", ".", "\x1b[2m" },
        [SIGN_PART]         = { "▁", "+", "\x1b[32m" },
        [SIGN_PART + 1]     = { "▂", "+", "\x1b[32m" },
        [SIGN_PART + 2]     = { "▃", "+", "\x1b[32m" },
        [SIGN_PART + 3]     = { "▄", "+", "\x1b[32m" },
        [SIGN_PART + 4]     = { "▅", "+", "\x1b[32m" },
        [SIGN_PART + 5]     = { "▆", "+", "\x1b[32m" },
        [SIGN_PART + 6]     = { "▇", "+", "\x1b[32m" },
        [SIGN_RESIDENT]     = { "█", "#", "\x1b[32m" },
        [SIGN_SWAPPED]      = { "░", "s", "\x1b[35m" },
        [SIGN_SWAPPED_PART] = { "▒", "m", "\x1b[35m" },
        [SIGN_UNKNOWN]      = { "?", "?", "\x1b[33m" },
};

static Sign cell_sign(const PictureCell *cell) {
        uint64_t resident = cell->bytes[PAGES_RESIDENT], swapped = cell->bytes[PAGES_SWAPPED];
        uint64_t all = resident + swapped + cell->bytes[PAGES_UNKNOWN] + cell->bytes[PAGES_HOLE];
        uint64_t eighths;

        if (cell->bytes[PAGES_UNKNOWN] > 0)
                return SIGN_UNKNOWN;
        if (swapped > 0)
                return swapped == all ? SIGN_SWAPPED : SIGN_SWAPPED_PART;
        if (resident == 0)
                return SIGN_HOLE;
        if (resident == all)
                return SIGN_RESIDENT;
        eighths = resident / (all / 8 > 0 ? all / 8 : 1);
        return SIGN_PART + (Sign)(eighths == 0 ? 0 : eighths > 7 ? 6 : eighths - 1);
}

static const char *sign_text(Sign sign, bool utf8) {
        return utf8 ? signs[sign].utf8 : signs[sign].ascii;
}

const char *picture_sign(const PictureCell *cell, bool utf8) {
        return sign_text(cell_sign(cell), utf8);
}

/* -- printing --------------------------------------------------------------------------------------- */

static void print_line(const Picture *picture, size_t from, size_t to, PictureStyle style, FILE *stream) {
        const char *colour = "";

        for (size_t i = from; i < to; ++i) {
                Sign sign = cell_sign(&picture->cells[i]);

                if (style.colours && colour != signs[sign].colour) {
                        colour = signs[sign].colour;
                        fprintf(stream, "\x1b[0m%s", colour);
                }
                fputs(sign_text(sign, style.utf8), stream);
        }
        fputs(style.colours ? "\x1b[0m\n" : "\n", stream);
}

void picture_print(const Ctl *ctl, const Picture *picture, PictureStyle style, FILE *stream) {
        for (size_t i = 0; i < picture->n; i += picture->columns) {
                size_t end = picture->n - i < picture->columns ? picture->n : i + picture->columns;
                char offset[OUTPUT_NUMBER_MAX];

                fprintf(stream, "%*s ", ctl->bytes ? 14 : 6, output_size(ctl, offset, i * picture->cell_size));
                print_line(picture, i, end, style, stream);
        }
}

static void print_meaning(Sign sign, const char *meaning, PictureStyle style, FILE *stream) {
        if (style.colours)
                fprintf(stream, "%s%s\x1b[0m %s", signs[sign].colour, sign_text(sign, style.utf8), meaning);
        else
                fprintf(stream, "%s %s", sign_text(sign, style.utf8), meaning);
}

void picture_print_legend(PictureStyle style, FILE *stream) {
        print_meaning(SIGN_RESIDENT, "resident  ", style, stream);
        print_meaning(SIGN_PART + 3, "some of it  ", style, stream);
        print_meaning(SIGN_SWAPPED, "swapped  ", style, stream);
        print_meaning(SIGN_SWAPPED_PART, "some of it  ", style, stream);
        print_meaning(SIGN_HOLE, "hole\n", style, stream);
}
