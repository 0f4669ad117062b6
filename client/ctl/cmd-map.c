/* map: which pages of a region are in memory, in swap, or nowhere. */

#include "buildinfo.h"

#include "client/ctl/ctl.h"
#include "client/ctl/draw.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/terminal.h"

/* Lines of a picture, and those above and below it. */
#define ROWS_MAX 32
#define ROWS_OTHER 5
/* What the offsets take of a line, and what is left for cells at least. */
#define COLUMNS_OTHER 8
#define COLUMNS_MIN 16

const struct argp command_map_argp = {
        .parser = ctl_parse_name,
        .args_doc = "NAME",
        .doc = "Draws which pages of the region NAME are in memory, swapped, or holes, with totals. For that it opens "
               "the region read-only for a moment.\v"
               "Every sign is a number of pages, said above the picture, and tells of all of them: its height is the "
               "share of them that is in memory. Pages that were allocated and never written are holes. With --json, "
               "runs of pages: state, offset and length.\n\n"
               "Examples:\n"
               "  shmdctl map /camera/frame0\n"
               "  shmdctl map /model --json | jq '[.runs[] | select(.state == \"swapped\").length] | add'",
};

/* What is counted, and where else each run goes. */
typedef struct Map {
        PagesTotals totals;
        Picture picture;
        bool first;             /* with --json: no run has been printed yet */
} Map;

static void map_deinit(Map *map) {
        picture_deinit(&map->picture);
}

/* -- for people --------------------------------------------------------------------------------- */

static void take_run(void *userdata, PagesState state, uint64_t offset, uint64_t length) {
        Map *map = userdata;

        map->totals.bytes[state] += length;
        picture_add(&map->picture, state, offset, length);
}

static void print_total(const Ctl *ctl, const char *what, uint64_t bytes, const char *end) {
        char text[OUTPUT_NUMBER_MAX];

        printf("%s %s%s", what, output_size(ctl, text, bytes), end);
}

static void print_totals(const Ctl *ctl, const PagesTotals *totals) {
        print_total(ctl, "resident", totals->bytes[PAGES_RESIDENT], ", ");
        print_total(ctl, "swapped", totals->bytes[PAGES_SWAPPED], ", ");
        if (totals->bytes[PAGES_UNKNOWN])
                print_total(ctl, "resident or not", totals->bytes[PAGES_UNKNOWN], ", ");
        print_total(ctl, "holes", totals->bytes[PAGES_HOLE], pages_ahead(totals) ? "" : "\n");
        if (pages_ahead(totals))
                print_total(ctl, ", of which allocated and never written", pages_ahead(totals), "\n");
}

static void print_title(const Ctl *ctl, const char *path, const shmd_region *region, const Picture *picture) {
        char text[OUTPUT_NUMBER_MAX];

        output_text(path, stdout);
        printf(": region %" PRIu64 ", %s", shmd_region_id(region), output_size(ctl, text, shmd_region_size(region)));
        if (picture->n == 0) {
                putchar('\n');
                return;
        }
        printf(", %" PRIu64 " page%s a sign", picture->cell_size / shmd_region_page_size(region),
               picture->cell_size == shmd_region_page_size(region) ? "" : "s");
        printf(" (%s)\n", output_size(ctl, text, picture->cell_size));
}

static void choose_size(const Ctl *ctl, Map *map, const shmd_region *region) {
        TerminalSize size = terminal_size(STDOUT_FILENO);
        size_t other = COLUMNS_OTHER + (ctl->bytes ? 8 : 0);
        size_t columns = size.columns > other + COLUMNS_MIN ? size.columns - other : COLUMNS_MIN;
        size_t rows = size.rows > ROWS_OTHER + 1 ? size.rows - ROWS_OTHER : 1;

        if (shmd_region_size(region) > 0)
                picture_init(&map->picture, shmd_region_size(region), shmd_region_page_size(region),
                             columns, rows < ROWS_MAX ? rows : ROWS_MAX);
}

static int draw(Ctl *ctl, const char *path, shmd_region *region, Map *map) {
        PictureStyle style = { .utf8 = terminal_speaks_utf8(), .colours = terminal_has_colours(stdout) };
        int r;

        choose_size(ctl, map, region);
        r = pages_walk(shmd_region_fd(region), shmd_region_size(region), shmd_region_page_size(region), take_run, map);
        if (r < 0)
                return fail_system(ctl, path, r, NULL);
        print_title(ctl, path, region, &map->picture);
        picture_print(ctl, &map->picture, style, stdout);
        print_totals(ctl, &map->totals);
        if (map->picture.n > 0)
                picture_print_legend(style, stdout);
        return CTL_DONE;
}

/* -- for programs --------------------------------------------------------------------------------- */

/* There may be millions of runs: they are printed as they come. All of it is names of ours and numbers. */
static void print_run(void *userdata, PagesState state, uint64_t offset, uint64_t length) {
        Map *map = userdata;

        map->totals.bytes[state] += length;
        printf("%s\n    { \"state\": \"%s\", \"offset\": %" PRIu64 ", \"length\": %" PRIu64 " }",
               map->first ? "" : ",", pages_state_name(state), offset, length);
        map->first = false;
}

static void print_json_path(const char *path) {
        CLEANUP(output_unrefp) json_t *string = output_string(path);
        CLEANUP(freep) char *text = json_dumps(string, JSON_ENCODE_ANY);

        if (!text)
                output_oom();
        printf("{\n  \"path\": %s,\n", text);
}

static int print_json(Ctl *ctl, const char *path, shmd_region *region, Map *map) {
        int r;

        map->first = true;
        print_json_path(path);
        printf("  \"region\": %" PRIu64 ",\n  \"size\": %" PRIu64 ",\n  \"page_size\": %" PRIu64 ",\n  \"runs\": [",
               shmd_region_id(region), shmd_region_size(region), shmd_region_page_size(region));
        r = pages_walk(shmd_region_fd(region), shmd_region_size(region), shmd_region_page_size(region), print_run, map);
        printf("%s],\n", map->first ? "" : "\n  ");
        for (PagesState state = 0; state < _PAGES_N; ++state)
                printf("  \"%s\": %" PRIu64 ",\n", pages_state_name(state), map->totals.bytes[state]);
        printf("  \"never_written\": %" PRIu64 "\n}\n", pages_ahead(&map->totals));
        return r < 0 ? fail_system(ctl, path, r, NULL) : CTL_DONE;
}

int command_map(Ctl *ctl, int argc, char **argv) {
        CLEANUP_REGION shmd_region *region = NULL;
        CLEANUP(map_deinit) Map map = { .first = true };
        const char *path = NULL;
        int r;

        ctl_parse(ctl, &path, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_open(ctl->client, path, SHMD_RIGHTS_READ_ONLY, &region, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, path, r);
        r = pages_allocated(shmd_region_fd(region), &map.totals);
        if (r < 0)
                return fail_system(ctl, path, r, NULL);
        return ctl->json ? print_json(ctl, path, region, &map) : draw(ctl, path, region, &map);
}
