/* rm, mkdir, rmdir, chmod, chown: one request for each name.
 *
 * They go on after a failure, as their namesakes do; the exit status is that of the first. They
 * say nothing when all went well; with --json they say which names were done.
 */

#include "buildinfo.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/parse.h"

typedef struct NamesArgs {
        Operands operands;
        mode_t mode;
        bool parents;
        uid_t uid;
        gid_t gid;
} NamesArgs;

/* Does one name; returns what the library said. */
typedef int (*NameFn)(Ctl *ctl, const NamesArgs *args, const char *path);

static int each_name(Ctl *ctl, const NamesArgs *args, NameFn fn) {
        json_t *done;
        int code, r;

        code = ctl_connect(ctl);
        if (code)
                return code;

        done = ctl->json ? json_array() : NULL;
        for (int i = 0; i < args->operands.n; ++i) {
                const char *path = args->operands.names[i];

                r = fn(ctl, args, path);
                if (r < 0) {
                        r = fail_call(ctl, path, r);
                        code = code ? code : r;
                } else if (done) {
                        output_append(done, output_string(path));
                }
        }
        if (done) {
                json_t *o = json_object();

                output_set(o, "command", output_string(ctl->command->name));
                output_set(o, "done", done);
                output_json(o, stdout);
        }
        return code;
}

/* For commands whose operands are names alone. */
static error_t parse_names(int key, char *arg, struct argp_state *state) {
        NamesArgs *args = state->input;

        switch (key) {
        case ARGP_KEY_ARGS:
                ctl_operands(state, &args->operands, 1, INT_MAX, 0);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name is missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

/* -- rm and rmdir ----------------------------------------------------------------------- */

const struct argp command_rm_argp = {
        .parser = parse_names,
        .args_doc = "NAME...",
        .doc = "Takes names of regions away. Who holds a region that has no name left keeps it, and it stays charged "
               "to its owner until the last of them is gone.\v"
               "Examples:\n"
               "  shmdctl rm /camera/frame0 /camera/frame1",
};

static int remove_region(Ctl *ctl, const NamesArgs *args, const char *path) {
        return shmd_unlink(ctl->client, path, SHMD_TIMEOUT_DEFAULT);
}

int command_rm(Ctl *ctl, int argc, char **argv) {
        NamesArgs args = { 0 };

        ctl_parse(ctl, &args, argc, argv);
        return each_name(ctl, &args, remove_region);
}

const struct argp command_rmdir_argp = {
        .parser = parse_names,
        .args_doc = "NAME...",
        .doc = "Removes directories, which must be empty.\v"
               "Examples:\n"
               "  shmdctl rmdir /camera",
};

static int remove_directory(Ctl *ctl, const NamesArgs *args, const char *path) {
        return shmd_rmdir(ctl->client, path, SHMD_TIMEOUT_DEFAULT);
}

int command_rmdir(Ctl *ctl, int argc, char **argv) {
        NamesArgs args = { 0 };

        ctl_parse(ctl, &args, argc, argv);
        return each_name(ctl, &args, remove_directory);
}

/* -- mkdir -------------------------------------------------------------------------------- */

#define PARENT_MODE 0755

static const struct argp_option mkdir_options[] = {
        { "mode",    'm', "MODE", 0, "Of the directory, octal (default 0755; no umask is applied)" },
        { "parents", 'p', NULL,   0, "Make missing directories above it too, with mode 0755; "
                                     "a directory that is there is no failure" },
        { NULL },
};

static error_t parse_mkdir(int key, char *arg, struct argp_state *state) {
        NamesArgs *args = state->input;

        switch (key) {
        case 'm':
                args->mode = ctl_arg_mode(state, arg, 01777);
                return 0;
        case 'p':
                args->parents = true;
                return 0;
        default:
                return parse_names(key, arg, state);
        }
}

const struct argp command_mkdir_argp = {
        .options = mkdir_options,
        .parser = parse_mkdir,
        .args_doc = "NAME...",
        .doc = "Makes directories, owned by you.\v"
               "Examples:\n"
               "  shmdctl mkdir /camera -m 1777\n"
               "  shmdctl mkdir -p /robot/arm/left",
};

/* Makes a directory unless it is there. Looking first, because whoever may not write to the
 * directory above is told so and not that the name is taken. */
static int make_missing(Ctl *ctl, const char *path, mode_t mode) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        int r;

        r = shmd_stat(ctl->client, path, 0, false, &result, SHMD_TIMEOUT_DEFAULT);
        if (r == -ENOENT)
                r = shmd_mkdir(ctl->client, path, mode, SHMD_TIMEOUT_DEFAULT);
        else if (r == 0 && result->node.kind != SHMD_NODE_DIRECTORY)
                r = -ENOTDIR;
        /* Somebody else was faster: a directory or not, the next step will tell. */
        return r == -EEXIST ? 0 : r;
}

static int make_directory(Ctl *ctl, const NamesArgs *args, const char *path) {
        CLEANUP(freep) char *copy = NULL;
        int r;

        if (!args->parents)
                return shmd_mkdir(ctl->client, path, args->mode, SHMD_TIMEOUT_DEFAULT);

        copy = strdup(path);
        if (!copy)
                output_oom();
        for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = 0;
                r = make_missing(ctl, copy, PARENT_MODE);
                *slash = '/';
                if (r < 0)
                        return r;
        }
        return make_missing(ctl, path, args->mode);
}

int command_mkdir(Ctl *ctl, int argc, char **argv) {
        NamesArgs args = { .mode = 0755 };

        ctl_parse(ctl, &args, argc, argv);
        return each_name(ctl, &args, make_directory);
}

/* -- chmod and chown ------------------------------------------------------------------------ */

/* The first operand is no name: it is taken by parse_first, and the rest are names. */
static void take_first(struct argp_state *state, NamesArgs *args, const char **first) {
        ctl_operands(state, &args->operands, 2, INT_MAX, 1);
        *first = args->operands.names[0];
        ++args->operands.names;
        --args->operands.n;
}

static error_t parse_chmod(int key, char *arg, struct argp_state *state) {
        NamesArgs *args = state->input;
        const char *mode;

        switch (key) {
        case ARGP_KEY_ARGS:
                take_first(state, args, &mode);
                args->mode = ctl_arg_mode(state, mode, 01777);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a mode and a name are missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_chmod_argp = {
        .parser = parse_chmod,
        .args_doc = "MODE NAME...",
        .doc = "Changes the mode, an octal number, of regions (r: may be opened read-only, w: read-write) and "
               "directories. What was opened before stays open.\v"
               "Examples:\n"
               "  shmdctl chmod 0640 /camera/frame0\n"
               "  shmdctl chmod 1777 /camera",
};

static int change_mode(Ctl *ctl, const NamesArgs *args, const char *path) {
        return shmd_chmod(ctl->client, path, args->mode, SHMD_TIMEOUT_DEFAULT);
}

int command_chmod(Ctl *ctl, int argc, char **argv) {
        NamesArgs args = { 0 };

        ctl_parse(ctl, &args, argc, argv);
        return each_name(ctl, &args, change_mode);
}

static error_t parse_chown(int key, char *arg, struct argp_state *state) {
        NamesArgs *args = state->input;
        const char *owner;

        switch (key) {
        case ARGP_KEY_ARGS:
                take_first(state, args, &owner);
                if (parse_owner(owner, &args->uid, &args->gid) < 0)
                        argp_error(state, "'%s' is no owner: write USER, USER:GROUP or :GROUP", owner);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "an owner and a name are missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_chown_argp = {
        .parser = parse_chown,
        .args_doc = "USER[:GROUP] NAME...",
        .doc = "Changes owner and group, by name or number; the charge moves to the new owner. For administrators.\v"
               "Examples:\n"
               "  shmdctl chown camera:video /camera/frame0\n"
               "  shmdctl chown :video /camera",
};

static int change_owner(Ctl *ctl, const NamesArgs *args, const char *path) {
        return shmd_chown(ctl->client, path, args->uid, args->gid, SHMD_TIMEOUT_DEFAULT);
}

int command_chown(Ctl *ctl, int argc, char **argv) {
        NamesArgs args = { 0 };

        ctl_parse(ctl, &args, argc, argv);
        return each_name(ctl, &args, change_owner);
}
