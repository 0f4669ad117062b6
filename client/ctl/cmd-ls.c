/* ls: a directory, or with -R everything below it, in the broker's order.
 *
 * A list comes in pages; the walk goes on until the last, and what is there for the whole of it
 * is seen exactly once. Columns need all rows before the first is printed, so rows are kept.
 */

#include "buildinfo.h"

#include <errno.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/node.h"

typedef struct LsArgs {
        const char *path;
        bool details;
        uint32_t flags;
} LsArgs;

static const struct argp_option ls_options[] = {
        { "long",      'l', NULL, 0, "Mode, owner, group, size, date of creation and name" },
        { "recursive", 'R', NULL, 0, "All that is below, with whole names; what may not be read is left out" },
        { "orphans",   'o', NULL, 0, "Regions without a name instead, yours or for an administrator all, by number" },
        { NULL },
};

static error_t parse_ls(int key, char *arg, struct argp_state *state) {
        LsArgs *args = state->input;
        Operands operands;

        switch (key) {
        case 'l':
                args->details = true;
                return 0;
        case 'R':
                args->flags |= SHMD_LIST_RECURSIVE;
                return 0;
        case 'o':
                args->flags |= SHMD_LIST_ORPHANS;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 0, 1, 0);
                args->path = operands.names[0];
                return 0;
        case ARGP_KEY_END:
                if (args->flags & SHMD_LIST_ORPHANS && (args->path || args->flags & SHMD_LIST_RECURSIVE))
                        argp_error(state, "--orphans are in no directory");
                if (!args->path && !(args->flags & SHMD_LIST_ORPHANS))
                        args->path = "/";
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_ls_argp = {
        .options = ls_options,
        .parser = parse_ls,
        .args_doc = "[NAME]",
        .doc = "Lists the directory NAME (/ if it is not given), or shows the region NAME. "
               "Directories have d before their mode, and how many names they hold for a size.\v"
               "Examples:\n"
               "  shmdctl ls -l /camera\n"
               "  shmdctl ls -l --orphans\n"
               "  shmdctl ls -R --json",
};

typedef struct List {
        const Ctl *ctl;
        const LsArgs *args;
        Table table;
        json_t *json;           /* with --json: an array, instead of the table */
} List;

static void list_deinit(List *list) {
        table_deinit(&list->table);
        output_unrefp(&list->json);
}

/* Whole names where they come from several directories, else the last component. */
static const char *shown_name(const List *list, const struct shmd_node *node) {
        const char *slash = strrchr(node->path, '/');

        if (list->args->flags & SHMD_LIST_RECURSIVE || !slash || !slash[1])
                return node->path;
        return slash + 1;
}

static void add_details(List *list, const struct shmd_node *node) {
        char text[NODE_TEXT_MAX], name[OUTPUT_USER_MAX], size[OUTPUT_NUMBER_MAX];

        table_add(&list->table, node_mode(text, node));
        table_add(&list->table, output_user(name, node->uid));
        table_add(&list->table, output_group(name, node->gid));
        if (node->kind == SHMD_NODE_DIRECTORY)
                table_add_number(&list->table, node->entries);
        else
                table_add(&list->table, output_size(list->ctl, size, node->size));
        table_add(&list->table, node_date(text, node));
}

static void add_node(List *list, const struct shmd_node *node) {
        if (list->json) {
                output_append(list->json, node_json(node));
                return;
        }
        if (list->args->details)
                add_details(list, node);
        if (list->args->flags & SHMD_LIST_ORPHANS)
                table_add_number(&list->table, node->region);
        else
                table_add(&list->table, shown_name(list, node));
}

/* A name that is no directory is shown itself, as ls(1) does. */
static int list_region(Ctl *ctl, List *list) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        int r;

        r = shmd_stat(ctl->client, list->args->path, 0, false, &result, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, list->args->path, r);
        if (result->node.kind != SHMD_NODE_REGION)
                return fail_system(ctl, list->args->path, -ENOTDIR, NULL);
        add_node(list, &result->node);
        return CTL_DONE;
}

static int list_directory(Ctl *ctl, List *list) {
        CLEANUP(shmd_list_freep) struct shmd_list_result *page = NULL;

        do {
                struct shmd_list_result *next = NULL;
                int r;

                r = shmd_list(ctl->client, list->args->path, list->args->flags, page ? page->cursor : NULL, 0,
                              &next, SHMD_TIMEOUT_DEFAULT);
                if (r == -ENOTDIR && !page)
                        return list_region(ctl, list);
                if (r < 0)
                        return fail_call(ctl, list->args->path ? list->args->path : "orphans", r);

                (void)shmd_list_free(page);
                page = next;
                for (size_t i = 0; i < page->n; ++i)
                        add_node(list, &page->nodes[i]);
        } while (page->cursor);
        return CTL_DONE;
}

int command_ls(Ctl *ctl, int argc, char **argv) {
        LsArgs args = { .path = NULL };
        CLEANUP(list_deinit) List list = { .ctl = ctl, .args = &args };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        list.table.align = args.details ? "lllrll" : "l";
        list.json = ctl->json ? json_array() : NULL;
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = list_directory(ctl, &list);
        if (r)
                return r;

        if (ctl->json)
                output_json(json_incref(list.json), stdout);
        else
                table_print(&list.table);
        return CTL_DONE;
}
