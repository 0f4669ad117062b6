/* mv and ln: names that move, and regions that get one more.
 *
 * As with their namesakes, a second name that is a directory means a name in it. Somebody may make
 * or remove that directory in the meantime: then the broker refuses, or the name is the second name
 * itself, and nothing is lost, as the broker does every move as a whole.
 */

#include "buildinfo.h"

#include <errno.h>
#include <string.h>

#include "base/path.h"
#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

typedef struct MoveArgs {
        const char *from;
        const char *to;
        bool keep;
        bool exchange;
} MoveArgs;

/* `text` holds the name in the directory while it is used. */
typedef char NameText[2 * PATH_BYTES_MAX + 2];

/* What `to` means: itself, or the name in it like that of `from` if it is a directory. */
static int find_target(Ctl *ctl, const char *from, const char *to, NameText text, const char **ret) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        int r;

        *ret = to;
        r = shmd_stat(ctl->client, to, 0, false, &result, SHMD_TIMEOUT_DEFAULT);
        if (r == -ENOENT)
                return 0;
        if (r < 0 || result->node.kind != SHMD_NODE_DIRECTORY)
                return r;
        (void)snprintf(text, sizeof(NameText), "%s%s", strcmp(to, "/") == 0 ? "" : to, strrchr(from, '/'));
        *ret = text;
        return 0;
}

/* There are two names: the broker says which of them it is about. */
static int fail_move(Ctl *ctl, const MoveArgs *args, int error) {
        const char *thing = shmd_refusal(ctl->client)->thing;

        return fail_call(ctl, *thing ? thing : args->from, error);
}

static void report(Ctl *ctl, const MoveArgs *args, const char *to) {
        json_t *o;

        if (!ctl->json)
                return;
        o = json_object();
        output_set(o, "command", output_string(ctl->command->name));
        output_set(o, "from", output_string(args->from));
        output_set(o, "to", output_string(to));
        output_json(o, stdout);
}

static void take_names(struct argp_state *state, MoveArgs *args) {
        Operands operands;

        ctl_operands(state, &operands, 2, 2, 0);
        args->from = operands.names[0];
        args->to = operands.names[1];
}

/* -- mv ----------------------------------------------------------------------------------- */

static const struct argp_option mv_options[] = {
        { "no-replace", 'n', NULL, 0, "Fail if the new name is taken" },
        { "exchange",   'x', NULL, 0, "Let the two names change places; NEW is then taken as it is" },
        { NULL },
};

static error_t parse_mv(int key, char *arg, struct argp_state *state) {
        MoveArgs *args = state->input;

        (void)arg;
        switch (key) {
        case 'n':
                args->keep = true;
                return 0;
        case 'x':
                args->exchange = true;
                return 0;
        case ARGP_KEY_ARGS:
                take_names(state, args);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "two names are missing");
                return 0;
        case ARGP_KEY_END:
                if (args->keep && args->exchange)
                        argp_error(state, "--no-replace and --exchange exclude each other");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_mv_argp = {
        .options = mv_options,
        .parser = parse_mv,
        .args_doc = "OLD NEW",
        .doc = "Moves the name OLD, of a region or of a directory with all that is in it, to NEW, or into NEW "
               "if that is a directory. A region that has the new name loses it in the same instant; who holds that "
               "region keeps it.\v"
               "Examples:\n"
               "  shmdctl mv /camera/next /camera/frame0\n"
               "  shmdctl mv --exchange /model /model.old\n"
               "  shmdctl mv --no-replace /camera /video",
};

int command_mv(Ctl *ctl, int argc, char **argv) {
        MoveArgs args = { 0 };
        const char *to;
        NameText text;
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        to = args.to;
        if (!args.exchange)
                r = find_target(ctl, args.from, args.to, text, &to);
        if (r == 0)
                r = shmd_rename(ctl->client, args.from, to,
                                args.exchange ? SHMD_RENAME_EXCHANGE : args.keep ? 0 : SHMD_RENAME_REPLACE,
                                SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_move(ctl, &args, r);
        report(ctl, &args, to);
        return CTL_DONE;
}

/* -- ln ----------------------------------------------------------------------------------- */

static error_t parse_ln(int key, char *arg, struct argp_state *state) {
        (void)arg;
        switch (key) {
        case ARGP_KEY_ARGS:
                take_names(state, state->input);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "two names are missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_ln_argp = {
        .parser = parse_ln,
        .args_doc = "NAME NEW",
        .doc = "Gives the region NAME the name NEW as well, or a name in NEW if that is a directory. The names of a "
               "region are equals: it stays until rm has taken the last of them away. For its owner, on whose account "
               "each name beyond the first counts as one more region, and administrators.\v"
               "Examples:\n"
               "  shmdctl ln /camera/frame17 /camera/latest",
};

int command_ln(Ctl *ctl, int argc, char **argv) {
        MoveArgs args = { 0 };
        const char *to;
        NameText text;
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = find_target(ctl, args.from, args.to, text, &to);
        if (r == 0)
                r = shmd_link(ctl->client, args.from, to, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_move(ctl, &args, r);
        report(ctl, &args, to);
        return CTL_DONE;
}
