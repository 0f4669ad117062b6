/* A live table of accounts and regions: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/top.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "client/ctl/usage.h"

/* -- looks ------------------------------------------------------------------------------------------ */

/* Makes room for one more in an array that grows by doubling. */
static void *grow(void *array, size_t n, size_t size) {
        if (n & (n - 1) || (n > 0 && n < 8))
                return array;
        array = reallocarray(array, n ? 2 * n : 8, size);
        if (!array)
                output_oom();
        return array;
}

void top_add_account(TopLook *look, const struct shmd_usage *usage) {
        look->accounts = grow(look->accounts, look->n_accounts, sizeof(*look->accounts));
        look->accounts[look->n_accounts++] = (TopAccount){ .usage = *usage, .rate = -1 };
}

void top_add_region(TopLook *look, const struct shmd_node *node) {
        char *name = output_escape(node->path, stdout);

        look->regions = grow(look->regions, look->n_regions, sizeof(*look->regions));
        look->regions[look->n_regions++] = (TopRegion){
                .id = node->region,
                .uid = node->uid,
                .size = node->size,
                .allocated = node->allocated,
                .grants = node->grants,
                .granted = node->granted,
                .rate = -1,
                .name = name,
        };
}

void top_look_deinit(TopLook *look) {
        for (size_t i = 0; i < look->n_regions; ++i)
                free(look->regions[i].name);
        free(look->regions);
        free(look->accounts);
        *look = (TopLook){ .at_ns = 0 };
}

/* -- rates ------------------------------------------------------------------------------------------ */

static int compare_ids(const void *a, const void *b) {
        uint64_t x = ((const TopRegion *)a)->id, y = ((const TopRegion *)b)->id;

        return x < y ? -1 : x > y;
}

/* Names of one region follow each other: the first one in byte order stays. */
static void merge_names(TopLook *look) {
        size_t n = 0;

        for (size_t i = 0; i < look->n_regions; ++i) {
                TopRegion *region = &look->regions[i], *kept = n ? &look->regions[n - 1] : NULL;

                if (!kept || kept->id != region->id) {
                        look->regions[n++] = *region;
                        continue;
                }
                if (strcmp(region->name, kept->name) < 0) {
                        char *name = kept->name;

                        kept->name = region->name;
                        region->name = name;
                }
                free(region->name);
        }
        look->n_regions = n;
}

/* A counter that went back was begun anew. */
static double rate(uint64_t now, uint64_t before, double seconds) {
        return now >= before && seconds > 0 ? (double)(now - before) / seconds : -1;
}

static void compare_accounts(TopLook *look, const TopLook *before, double seconds) {
        for (size_t i = 0; i < look->n_accounts; ++i)
                for (size_t k = 0; k < before->n_accounts; ++k)
                        if (look->accounts[i].usage.uid == before->accounts[k].usage.uid)
                                look->accounts[i].rate = rate(look->accounts[i].usage.granted,
                                                              before->accounts[k].usage.granted, seconds);
        look->total.rate = rate(look->total.usage.granted, before->total.usage.granted, seconds);
}

void top_compare(TopLook *look, const TopLook *before) {
        double seconds = before->at_ns ? (double)(look->at_ns - before->at_ns) / 1e9 : 0;
        size_t k = 0;

        if (look->n_regions)
                qsort(look->regions, look->n_regions, sizeof(*look->regions), compare_ids);
        merge_names(look);
        compare_accounts(look, before, seconds);
        for (size_t i = 0; i < look->n_regions; ++i) {
                while (k < before->n_regions && before->regions[k].id < look->regions[i].id)
                        ++k;
                if (k < before->n_regions && before->regions[k].id == look->regions[i].id)
                        look->regions[i].rate = rate(look->regions[i].granted, before->regions[k].granted, seconds);
        }
}

/* -- order ------------------------------------------------------------------------------------------- */

static const char *const key_names[_TOP_KEY_N] = {
        [TOP_ALLOCATED] = "allocated",
        [TOP_SIZE]      = "size",
        [TOP_GRANTS]    = "grants",
        [TOP_RATE]      = "rate",
        [TOP_USER]      = "user",
        [TOP_NAME]      = "name",
};

const char *top_key_name(TopKey key) {
        return key_names[key];
}

int top_key_find(const char *name) {
        for (int key = 0; key < _TOP_KEY_N; ++key)
                if (strcmp(name, key_names[key]) == 0)
                        return key;
        return -1;
}

static int largest_first(double a, double b) {
        return a > b ? -1 : a < b;
}

/* Rows point into the look, which keeps its own order. */
static int compare_regions(const TopView *view, const TopRegion *a, const TopRegion *b) {
        switch (view->key) {
        case TOP_SIZE:
                return largest_first((double)a->size, (double)b->size);
        case TOP_GRANTS:
                return largest_first((double)a->grants, (double)b->grants);
        case TOP_RATE:
                return largest_first(a->rate, b->rate);
        case TOP_USER:
                return a->uid < b->uid ? -1 : a->uid > b->uid;
        case TOP_NAME:
                return strcmp(a->name, b->name);
        case TOP_ALLOCATED:
        case _TOP_KEY_N:
        default:
                return largest_first((double)a->allocated, (double)b->allocated);
        }
}

static int compare_region_rows(const void *a, const void *b, void *userdata) {
        const TopRegion *x = *(const TopRegion *const *)a, *y = *(const TopRegion *const *)b;
        const TopView *view = userdata;
        int r = compare_regions(view, x, y);

        if (r != 0)
                return view->reverse ? -r : r;
        return compare_ids(x, y);
}

static int compare_account_rows(const void *a, const void *b, void *userdata) {
        const TopAccount *x = *(const TopAccount *const *)a, *y = *(const TopAccount *const *)b;
        const TopView *view = userdata;
        int r = 0;

        if (view->key == TOP_RATE)
                r = largest_first(x->rate, y->rate);
        else if (view->key != TOP_USER && view->key != TOP_NAME) {
                uint32_t slot = view->key == TOP_GRANTS ? SHMD_SLOT_GRANTS : SHMD_SLOT_BYTES;

                r = largest_first((double)x->usage.used[slot], (double)y->usage.used[slot]);
        }
        if (r == 0)
                r = x->usage.uid < y->usage.uid ? -1 : x->usage.uid > y->usage.uid;
        return view->reverse ? -r : r;
}

/* Pointers to the elements of an array, sorted; to be freed. */
static void *sorted(void *array, size_t n, size_t size, int (*compare)(const void *, const void *, void *),
                    const TopView *view) {
        void **rows = calloc(n + 1, sizeof(*rows));

        if (!rows)
                output_oom();
        for (size_t i = 0; i < n; ++i)
                rows[i] = (char *)array + i * size;
        qsort_r(rows, n, sizeof(*rows), compare, (void *)view);
        return rows;
}

/* -- lines -------------------------------------------------------------------------------------------- */

/* How many bytes of a line fit so many columns; with 0, all. */
static size_t fitting(const char *line, size_t columns) {
        mbstate_t state = { 0 };
        size_t used = 0, at = 0;

        while (line[at]) {
                wchar_t c;
                size_t n = mbrtowc(&c, line + at, MB_CUR_MAX, &state);
                int width;

                if (n == (size_t)-1 || n == (size_t)-2) {
                        memset(&state, 0, sizeof(state));
                        n = 1;
                        width = 1;
                } else {
                        width = wcwidth(c);
                }
                used += width > 0 ? (size_t)width : 0;
                if (columns && used > columns)
                        break;
                at += n;
        }
        return at;
}

typedef struct Page {
        const TopView *view;
        FILE *stream;
        size_t rows;            /* printed */
} Page;

__attribute__((format(printf, 3, 4)))
static void print_row(Page *page, bool title, const char *format, ...) {
        const TopView *view = page->view;
        char *line = NULL;
        va_list args;
        int n;

        if (view->rows && page->rows >= view->rows)
                return;
        va_start(args, format);
        n = vasprintf(&line, format, args);
        va_end(args);
        if (n < 0)
                output_oom();
        /* The last line of a screen has no end, which would scroll it. */
        if (view->screen && page->rows > 0)
                fputs("\r\n", page->stream);
        fprintf(page->stream, "%s%.*s%s", view->screen && title ? "\x1b[7m" : "",
                (int)fitting(line, view->columns), line, view->screen ? "\x1b[0m\x1b[K" : "\n");
        ++page->rows;
        free(line);
}

static const char *rate_text(char buffer[static OUTPUT_NUMBER_MAX], double rate_now) {
        if (rate_now < 0)
                return "-";
        (void)snprintf(buffer, OUTPUT_NUMBER_MAX, rate_now < 10 ? "%.1f" : "%.0f", rate_now);
        return buffer;
}

static const char *limit_text(const Ctl *ctl, char buffer[static OUTPUT_NUMBER_MAX], uint64_t limit) {
        return limit == UINT64_MAX ? "-" : output_size(ctl, buffer, limit);
}

static void print_head(Page *page, const TopLook *look) {
        const uint64_t *used = look->total.usage.used, *limit = look->total.usage.limit;
        char a[OUTPUT_NUMBER_MAX], b[OUTPUT_NUMBER_MAX], c[OUTPUT_NUMBER_MAX];

        print_row(page, false,
                  "shmd %s, up %s, %" PRIu64 " regions, %" PRIu64 " of them without a name, %" PRIu64 " peers",
                  look->broker, output_duration(a, look->uptime_ns), look->n_regions_all, look->n_orphans_all,
                  look->n_peers);
        print_row(page, false, "charged %s of %s, %" PRIu64 " grants, %s a second; by %s%s",
                  output_size(page->view->ctl, a, used[SHMD_SLOT_BYTES]),
                  limit_text(page->view->ctl, b, limit[SHMD_SLOT_BYTES]), used[SHMD_SLOT_GRANTS],
                  rate_text(c, look->total.rate), top_key_name(page->view->key),
                  page->view->reverse ? ", reversed" : "");
        print_row(page, false, "%s", page->view->gone ? "The broker is gone; waiting for it to come back." : "");
}

static int width(const Page *page) {
        return page->view->ctl->bytes ? 15 : 6;
}

static void print_account(Page *page, const TopAccount *account) {
        const uint64_t *used = account->usage.used, *limit = account->usage.limit;
        char name[OUTPUT_USER_MAX], a[OUTPUT_NUMBER_MAX], b[OUTPUT_NUMBER_MAX], c[OUTPUT_NUMBER_MAX];

        print_row(page, false, "%-12.12s %*s %*s %8" PRIu64 " %7" PRIu64 " %8s %6" PRIu64,
                  output_user(name, account->usage.uid),
                  width(page), output_size(page->view->ctl, a, used[SHMD_SLOT_BYTES]),
                  width(page), limit_text(page->view->ctl, b, limit[SHMD_SLOT_BYTES]),
                  used[SHMD_SLOT_REGIONS], used[SHMD_SLOT_GRANTS], rate_text(c, account->rate),
                  used[SHMD_SLOT_PEERS]);
}

/* Accounts have a third of a screen at most. */
static void print_accounts(Page *page, TopLook *look) {
        size_t most = page->view->rows ? page->view->rows / 3 : SIZE_MAX;
        TopAccount **rows = sorted(look->accounts, look->n_accounts, sizeof(*look->accounts), compare_account_rows,
                                   page->view);

        print_row(page, true, "%-12s %*s %*s %8s %7s %8s %6s", "USER", width(page), "BYTES", width(page), "LIMIT",
                  "REGIONS", "GRANTS", "GRANTS/S", "PEERS");
        for (size_t i = 0; i < look->n_accounts && i < most; ++i)
                print_account(page, rows[i]);
        print_row(page, false, "%s", "");
        free(rows);
}

static void print_region(Page *page, const TopRegion *region) {
        char name[OUTPUT_USER_MAX], a[OUTPUT_NUMBER_MAX], b[OUTPUT_NUMBER_MAX], c[OUTPUT_NUMBER_MAX];

        print_row(page, false, "%8" PRIu64 " %-12.12s %*s %*s %7" PRIu64 " %8s %s", region->id,
                  output_user(name, region->uid),
                  width(page), output_size(page->view->ctl, a, region->size),
                  width(page), output_size(page->view->ctl, b, region->allocated),
                  region->grants, rate_text(c, region->rate), *region->name ? region->name : "-");
}

static void print_regions(Page *page, TopLook *look) {
        TopRegion **rows = sorted(look->regions, look->n_regions, sizeof(*look->regions), compare_region_rows,
                                  page->view);

        print_row(page, true, "%8s %-12s %*s %*s %7s %8s %s", "REGION", "OWNER", width(page), "SIZE",
                  width(page), "ALLOC", "GRANTS", "GRANTS/S", "NAME");
        for (size_t i = 0; i < look->n_regions && (!page->view->rows || page->rows < page->view->rows); ++i)
                print_region(page, rows[i]);
        free(rows);
}

void top_print(TopLook *look, const TopView *view, FILE *stream) {
        Page page = { .view = view, .stream = stream };

        print_head(&page, look);
        print_accounts(&page, look);
        print_regions(&page, look);
}

/* -- for programs -------------------------------------------------------------------------------------- */

static json_t *rate_json(double rate_now) {
        return rate_now < 0 ? json_null() : json_real(rate_now);
}

static json_t *account_json(const TopAccount *account, bool is_total) {
        char name[OUTPUT_USER_MAX];
        json_t *o = json_object();

        if (!is_total) {
                output_set(o, "uid", json_integer(account->usage.uid));
                output_set(o, "user", output_string(output_user(name, account->usage.uid)));
        }
        for (uint32_t slot = 1; slot <= SHMD_SLOT_MAX; ++slot)
                output_set(o, shmd_slot_name(slot), output_number(account->usage.used[slot]));
        output_set(o, "limit", output_limit(account->usage.limit[SHMD_SLOT_BYTES]));
        output_set(o, "granted", output_number(account->usage.granted));
        output_set(o, "grants_per_second", rate_json(account->rate));
        return o;
}

static json_t *region_json(const TopRegion *region) {
        char name[OUTPUT_USER_MAX];
        json_t *o = json_object();

        output_set(o, "region", output_number(region->id));
        output_set(o, "path", *region->name ? output_string(region->name) : json_null());
        output_set(o, "uid", json_integer(region->uid));
        output_set(o, "user", output_string(output_user(name, region->uid)));
        output_set(o, "size", output_number(region->size));
        output_set(o, "allocated", output_number(region->allocated));
        output_set(o, "grants", output_number(region->grants));
        output_set(o, "granted", output_number(region->granted));
        output_set(o, "grants_per_second", rate_json(region->rate));
        return o;
}

json_t *top_json(TopLook *look, const TopView *view) {
        json_t *o = json_object(), *accounts = json_array(), *regions = json_array();
        TopAccount **account_rows = sorted(look->accounts, look->n_accounts, sizeof(*look->accounts),
                                           compare_account_rows, view);
        TopRegion **region_rows = sorted(look->regions, look->n_regions, sizeof(*look->regions),
                                         compare_region_rows, view);

        for (size_t i = 0; i < look->n_accounts; ++i)
                output_append(accounts, account_json(account_rows[i], false));
        for (size_t i = 0; i < look->n_regions; ++i)
                output_append(regions, region_json(region_rows[i]));
        free(account_rows);
        free(region_rows);
        output_set(o, "total", account_json(&look->total, true));
        output_set(o, "accounts", accounts);
        output_set(o, "regions", regions);
        return o;
}
