/* stat, holders and wait: all that the broker knows of one name. */

#include "buildinfo.h"

#include <errno.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/holders.h"
#include "client/ctl/node.h"
#include "client/ctl/pages.h"

typedef struct StatArgs {
        const char *path;
        uint64_t region;        /* if path is NULL */
        bool holders;
        bool pages;
        bool by_id;
} StatArgs;

#define OPTION_ID \
        { "id", 'i', "ID", 0, "The region with this number, instead of a name; its owner's and administrators'" }

static const struct argp_option stat_options[] = {
        OPTION_ID,
        { "holders", 'H', NULL, 0, "Also show who holds it" },
        { "pages",   'p', NULL, 0, "Also show how much is in memory and how much in swap; opens the region for it" },
        { NULL },
};

static error_t parse_stat(int key, char *arg, struct argp_state *state) {
        StatArgs *args = state->input;
        Operands operands;

        switch (key) {
        case 'i':
                args->region = ctl_arg_number(state, arg, UINT64_MAX);
                args->by_id = true;
                return 0;
        case 'H':
                args->holders = true;
                return 0;
        case 'p':
                args->pages = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 1, 0);
                args->path = operands.names[0];
                return 0;
        case ARGP_KEY_END:
                if (!args->path == !args->by_id)
                        argp_error(state, "give a name or --id, and not both");
                if (args->pages && args->by_id)
                        argp_error(state, "--pages opens the region, which needs a name");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_stat_argp = {
        .options = stat_options,
        .parser = parse_stat,
        .args_doc = "[NAME]",
        .doc = "Shows all about the region or directory NAME, or about the region with the number ID, "
               "which may have no name any more.\v"
               "Of its names those are shown that you may find. What is allocated is memory and swap together; "
               "--pages tells them apart.\n\n"
               "Examples:\n"
               "  shmdctl stat /camera/frame0 --holders\n"
               "  shmdctl stat /camera/frame0 --pages\n"
               "  shmdctl stat --id 17 --json",
};

static const struct argp_option holders_options[] = { OPTION_ID, { NULL } };

const struct argp command_holders_argp = {
        .options = holders_options,
        .parser = parse_stat,
        .args_doc = "[NAME]",
        .doc = "Shows who holds the region NAME, or the region with the number ID: the grants that live, and "
               "whether somebody holds it whom none of them explains.\v"
               "A grant is marked if the kernel confirms that this very one is alive; others may have ended, or "
               "never had a mark. Of what a connection got without one there is one line; the rest, and what does not "
               "fit, is counted below, also if it has ended. COMMAND and UNIT are what the process is that asked for "
               "it, if that can be told for sure; (gone) is a process that has ended, whose grant lives on where it "
               "was passed to. Holders without a grant of their own can be told of only when no grant lives.\n\n"
               "Examples:\n"
               "  shmdctl holders /camera/frame0\n"
               "  shmdctl holders --id 17 --json",
};

/* -- the node ------------------------------------------------------------------------------ */

static void row(Table *table, const char *key, const char *value) {
        table_add(table, key);
        table_add(table, value);
}

static void row_size(const Ctl *ctl, Table *table, const char *key, uint64_t bytes) {
        char text[OUTPUT_NUMBER_MAX];

        row(table, key, output_size(ctl, text, bytes));
}

static void row_number(Table *table, const char *key, uint64_t number) {
        table_add(table, key);
        table_add_number(table, number);
}

static const char *held_text(const struct shmd_stat_result *result) {
        if (!result->held_known)
                return "unknown";
        return result->held ? "yes" : "no";
}

static void add_pages(const Ctl *ctl, Table *table, const PagesTotals *totals) {
        row_size(ctl, table, "resident", totals->bytes[PAGES_RESIDENT]);
        row_size(ctl, table, "swapped", totals->bytes[PAGES_SWAPPED]);
        if (totals->bytes[PAGES_UNKNOWN])
                row_size(ctl, table, "resident or not", totals->bytes[PAGES_UNKNOWN]);
        if (pages_ahead(totals))
                row_size(ctl, table, "never written", pages_ahead(totals));
        row_size(ctl, table, "holes", totals->bytes[PAGES_HOLE]);
}

/* totals may be NULL. */
static void add_region(const Ctl *ctl, Table *table, const struct shmd_stat_result *result,
                       const PagesTotals *totals) {
        const struct shmd_node *node = &result->node;
        char text[NODE_TEXT_MAX], duration[OUTPUT_NUMBER_MAX];

        row_number(table, "region", node->region);
        row_size(ctl, table, "size", node->size);
        row_size(ctl, table, "charge", node->charge);
        row_size(ctl, table, "allocated", node->allocated);
        if (totals)
                add_pages(ctl, table, totals);
        row_size(ctl, table, "page size", node->page_size);
        row(table, "lifetime", node_lifetime(node));
        row(table, "freezable", node->freezable ? "yes" : "no");
        row(table, "seals", node_seals(text, node->seals));
        row(table, "created", node_date(text, node));
        if (node->ttl_ns)
                row(table, "ends in", output_duration(duration, node->ttl_ns));
        row_number(table, "names", node->names);
        row_number(table, "grants", node->grants);
        row_number(table, "granted", node->granted);
        if (node->bell)
                row_number(table, "doorbell", node->bell);
        row(table, "held", held_text(result));
}

static void print_stat(const Ctl *ctl, const struct shmd_stat_result *result, const PagesTotals *totals) {
        const struct shmd_node *node = &result->node;
        char text[NODE_TEXT_MAX], name[OUTPUT_USER_MAX];
        Table table = { .align = "rl" };

        row(&table, "name", *node->path ? node->path : "(none)");
        for (size_t i = 0; i < result->n_names; ++i)
                if (strcmp(result->names[i], node->path) != 0)
                        row(&table, "also", result->names[i]);
        row(&table, "kind", node_kind(node));
        row(&table, "owner", output_user(name, node->uid));
        row(&table, "group", output_group(name, node->gid));
        row(&table, "mode", node_mode(text, node));
        if (node->kind == SHMD_NODE_REGION)
                add_region(ctl, &table, result, totals);
        else
                row_number(&table, "entries", node->entries);
        table_print(&table);
}

static json_t *paths_json(const struct shmd_stat_result *result) {
        json_t *array = json_array();

        for (size_t i = 0; i < result->n_names; ++i)
                output_append(array, output_string(result->names[i]));
        return array;
}

static json_t *pages_json(const PagesTotals *totals) {
        json_t *o = json_object();

        for (PagesState state = 0; state < _PAGES_N; ++state)
                output_set(o, pages_state_name(state), output_number(totals->bytes[state]));
        output_set(o, "never_written", output_number(pages_ahead(totals)));
        return o;
}

static json_t *held_json(const struct shmd_stat_result *result) {
        return result->held_known ? json_boolean(result->held) : json_null();
}

static json_t *stat_json(const struct shmd_stat_result *result) {
        json_t *o = node_json(&result->node);

        if (result->node.kind == SHMD_NODE_REGION)
                output_set(o, "held", held_json(result));
        return o;
}

/* totals may be NULL. */
static void print_stat_json(Ctl *ctl, const StatArgs *args, const struct shmd_stat_result *result,
                            const PagesTotals *totals) {
        json_t *o = stat_json(result);

        if (result->node.kind == SHMD_NODE_REGION) {
                output_set(o, "paths", paths_json(result));
                output_set(o, "allocated", output_number(result->node.allocated));
                if (totals)
                        output_set(o, "pages", pages_json(totals));
                if (args->holders)
                        holders_set(ctl, o, result);
        }
        output_json(o, stdout);
}

/* Asks the broker. Return: an exit code; what failed has been reported. */
static int ask(Ctl *ctl, const StatArgs *args, uint32_t flags, struct shmd_stat_result **ret) {
        char id[OUTPUT_NUMBER_MAX];
        int r;

        (void)snprintf(id, sizeof(id), "region %" PRIu64, args->region);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_stat(ctl->client, args->path, args->region, flags, ret, SHMD_TIMEOUT_DEFAULT);
        return r < 0 ? fail_call(ctl, args->path ? args->path : id, r) : CTL_DONE;
}

/* Opens the region and counts its pages. */
static int count_pages(Ctl *ctl, const char *path, PagesTotals *ret) {
        CLEANUP_REGION shmd_region *region = NULL;
        int r;

        r = shmd_open(ctl->client, path, SHMD_RIGHTS_READ_ONLY, &region, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, path, r);
        r = pages_count(shmd_region_fd(region), shmd_region_size(region), shmd_region_page_size(region), ret);
        return r < 0 ? fail_system(ctl, path, r, NULL) : CTL_DONE;
}

int command_stat(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        StatArgs args = { 0 };
        PagesTotals totals;
        bool pages;
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ask(ctl, &args, SHMD_STAT_NAMES | (args.holders ? SHMD_STAT_HOLDERS : 0), &result);
        if (r)
                return r;
        pages = args.pages && result->node.kind == SHMD_NODE_REGION;
        if (pages)
                r = count_pages(ctl, args.path, &totals);
        if (r)
                return r;

        if (ctl->json) {
                print_stat_json(ctl, &args, result, pages ? &totals : NULL);
                return CTL_DONE;
        }
        print_stat(ctl, result, pages ? &totals : NULL);
        if (args.holders && result->node.kind == SHMD_NODE_REGION)
                holders_print(ctl, result);
        return CTL_DONE;
}

/* -- holders ------------------------------------------------------------------------------- */

static json_t *only_holders_json(Ctl *ctl, const struct shmd_stat_result *result) {
        json_t *o = json_object();

        output_set(o, "path", *result->node.path ? output_string(result->node.path) : json_null());
        output_set(o, "region", output_number(result->node.region));
        output_set(o, "held", held_json(result));
        holders_set(ctl, o, result);
        return o;
}

int command_holders(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        StatArgs args = { 0 };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ask(ctl, &args, SHMD_STAT_HOLDERS, &result);
        if (r)
                return r;
        if (result->node.kind != SHMD_NODE_REGION)
                return fail_system(ctl, args.path, -EISDIR, "nobody holds a directory");
        if (ctl->json)
                output_json(only_holders_json(ctl, result), stdout);
        else
                holders_print(ctl, result);
        return CTL_DONE;
}

/* -- wait ------------------------------------------------------------------------------------ */

typedef struct WaitArgs {
        const char *path;
        bool unheld;
        bool frozen;
} WaitArgs;

static const struct argp_option wait_options[] = {
        { "unheld", 'u', NULL, 0, "Wait until nobody holds the region any more", 0 },
        { "frozen", 'f', NULL, 0, "Wait until the region is frozen", 0 },
        { 0 },
};

static error_t parse_wait(int key, char *arg, struct argp_state *state) {
        WaitArgs *args = state->input;
        Operands operands;

        switch (key) {
        case 'u':
                args->unheld = true;
                return 0;
        case 'f':
                args->frozen = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 1, 0);
                args->path = operands.names[0];
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name is missing");
                return 0;
        case ARGP_KEY_END:
                if (args->unheld && args->frozen)
                        argp_error(state, "--unheld and --frozen are two things to wait for");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_wait_argp = {
        .options = wait_options,
        .parser = parse_wait,
        .args_doc = "NAME",
        .doc = "Waits until the name NAME exists, and says what has it; or until nobody holds the region that has the "
               "name now, or it is frozen. Without --timeout it waits as long as the broker lets anybody wait; exit "
               "status 124 if it did not happen in time.\v"
               "Examples:\n"
               "  shmdctl wait /camera/frame0 && consumer /camera/frame0\n"
               "  shmdctl wait /map --timeout=10s --quiet\n"
               "  shmdctl wait --unheld /old && echo everybody let go",
};

static void report_wait(Ctl *ctl, const WaitArgs *args, const struct shmd_stat_result *result) {
        const struct shmd_node *node = &result->node;
        char size[OUTPUT_NUMBER_MAX];

        if (ctl->json) {
                output_json(stat_json(result), stdout);
                return;
        }
        if (ctl->quiet)
                return;
        output_text(node->path[0] ? node->path : args->path, stdout);
        if (node->kind == SHMD_NODE_DIRECTORY)
                printf(": directory\n");
        else
                printf(": region %" PRIu64 ", %s%s\n", node->region, output_size(ctl, size, node->size),
                       args->unheld ? ", held by nobody" : args->frozen ? ", frozen" : "");
}

static int wait_for(Ctl *ctl, const WaitArgs *args, struct shmd_stat_result **ret, uint64_t timeout_ns) {
        if (args->unheld)
                return shmd_wait_unheld(ctl->client, args->path, 0, ret, timeout_ns);
        if (args->frozen)
                return shmd_wait_frozen(ctl->client, args->path, 0, ret, timeout_ns);
        return shmd_wait(ctl->client, args->path, ret, timeout_ns);
}

int command_wait(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        WaitArgs args = { 0 };
        uint64_t timeout_ns;
        int r;

        ctl_parse(ctl, &args, argc, argv);
        timeout_ns = ctl->timeout_ns == SHMD_TIMEOUT_DEFAULT ? SHMD_TIMEOUT_NONE : ctl->timeout_ns;
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = wait_for(ctl, &args, &result, timeout_ns);
        if (r < 0)
                return fail_call(ctl, args.path, r);
        report_wait(ctl, &args, result);
        return CTL_DONE;
}
