/* why: whether somebody may do something, rule by rule, and what would change it. */

#include "buildinfo.h"

#include <ctype.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/parse.h"

DEFINE_CLEANUP(struct shmd_why_result, shmd_why_free);

/* How an operation is called here: its name, and as the command that does it. */
static const struct {
        const char *name;
        const char *command;
        uint32_t operation;
        bool two_names;
} operations[] = {
        { "open",    "cat",   SHMD_WHY_OPEN,    false },
        { "write",   NULL,    SHMD_WHY_WRITE,   false },
        { "create",  "put",   SHMD_WHY_CREATE,  false },
        { "mkdir",   NULL,    SHMD_WHY_MKDIR,   false },
        { "unlink",  "rm",    SHMD_WHY_UNLINK,  false },
        { "rmdir",   NULL,    SHMD_WHY_RMDIR,   false },
        { "rename",  "mv",    SHMD_WHY_RENAME,  true },
        { "link",    "ln",    SHMD_WHY_LINK,    true },
        { "list",    "ls",    SHMD_WHY_LIST,    false },
        { "stat",    NULL,    SHMD_WHY_STAT,    false },
        { "chmod",   "acl",   SHMD_WHY_CHMOD,   false },
        { "chown",   NULL,    SHMD_WHY_CHOWN,   false },
        { "wait",    NULL,    SHMD_WHY_WAIT,    false },
        { "watch",   NULL,    SHMD_WHY_WATCH,   false },
        { "freeze",  NULL,    SHMD_WHY_FREEZE,  false },
        { "ticket",  NULL,    SHMD_WHY_TICKET,  false },
        { "holders", NULL,    SHMD_WHY_HOLDERS, false },
};
#define N_OPERATIONS (sizeof(operations) / sizeof(operations[0]))

typedef struct WhyArgs {
        size_t operation;       /* in the table */
        const char *path;
        const char *as;
        struct shmd_why_options options;
        gid_t *groups;
} WhyArgs;

enum {
        OPTION_AS = 512,
};

static const struct argp_option why_options[] = {
        { "as",   OPTION_AS, "USER", 0, "For another user, by name or number; administrators" },
        { "size", 's',       "SIZE", 0, "Of the region to create (default 0)" },
        { NULL },
};

/* The groups of a user are those the system knows; who is unknown is in that of his number alone. */
static void take_user(struct argp_state *state, WhyArgs *args, const char *text) {
        uid_t uid = ctl_arg_user(state, text);
        const struct passwd *user = getpwuid(uid);
        int n = 64;

        args->as = text;
        args->options.other = true;
        args->options.uid = uid;
        args->options.gid = user ? user->pw_gid : uid;
        while (user) {
                free(args->groups);
                args->groups = malloc((size_t)n * sizeof(gid_t));
                if (!args->groups)
                        output_oom();
                if (getgrouplist(user->pw_name, user->pw_gid, args->groups, &n) >= 0)
                        break;
        }
        args->options.n_groups = user ? (size_t)n : 0;
        args->options.groups = args->groups;
}

static void take_operands(struct argp_state *state, WhyArgs *args) {
        Operands operands;
        size_t i = 0;

        ctl_operands(state, &operands, 2, 3, 1);
        while (i < N_OPERATIONS && strcmp(operands.names[0], operations[i].name) != 0 &&
               (!operations[i].command || strcmp(operands.names[0], operations[i].command) != 0))
                ++i;
        if (i == N_OPERATIONS) {
                CLEANUP(freep) char *escaped = output_escape(operands.names[0], stderr);

                argp_error(state, "'%s' is no operation", escaped);
        }
        if ((operands.n == 3) != operations[i].two_names)
                argp_error(state, operations[i].two_names ? "the new name is missing" : "one name is enough");
        args->operation = i;
        args->path = operands.names[1];
        args->options.to = operands.n == 3 ? operands.names[2] : NULL;
}

static error_t parse_why(int key, char *arg, struct argp_state *state) {
        WhyArgs *args = state->input;

        switch (key) {
        case OPTION_AS:
                take_user(state, args, arg);
                return 0;
        case 's':
                args->options.size = ctl_arg_size(state, arg);
                return 0;
        case ARGP_KEY_ARGS:
                take_operands(state, args);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "an operation and a name are missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_why_argp = {
        .options = why_options,
        .parser = parse_why,
        .args_doc = "OPERATION NAME [TO]",
        .doc = "Says whether you, or another user, may do something, and which rules decide: a mode, an entry of an ACL, "
               "a limit. OPERATION is open, write, create, mkdir, unlink, rmdir, rename, link, list, stat, chmod, chown, "
               "wait, watch, freeze, ticket or holders, or a command that does it (cat, put, rm, mv, ln, ls, acl). "
               "Exit status 1 if it would be refused.\v"
               "Examples:\n"
               "  shmdctl why write /camera/frame0\n"
               "  shmdctl why --as=alice create /camera/frame1 --size=64M\n"
               "  shmdctl why mv /new /camera/frame0",
};

/* -- what would help ------------------------------------------------------------------------ */

/* A name as a shell takes it. */
static void put_name(FILE *stream, const char *name) {
        bool plain = *name;

        for (const char *c = name; *c; ++c)
                plain = plain && (isalnum((unsigned char)*c) || strchr("/._-+:@%,", *c));
        if (!plain)
                fputc('\'', stream);
        for (const char *c = name; *c; ++c)
                if (*c == '\'')
                        fputs("'\\''", stream);
                else
                        fputc(*c, stream);
        if (!plain)
                fputc('\'', stream);
}

static void put_perms(FILE *stream, uint32_t perms) {
        fprintf(stream, "%s%s%s", perms & 4 ? "r" : "", perms & 2 ? "w" : "", perms & 1 ? "x" : "");
}

/* The directory that a name is in. */
static void put_directory(FILE *stream, const char *name) {
        CLEANUP(freep) char *copy = strdup(name);
        char *slash;

        if (!copy)
                output_oom();
        slash = strrchr(copy, '/');
        if (slash && slash != copy)
                *slash = '\0';
        put_name(stream, slash == copy || !slash ? "/" : copy);
}

/* The owner is asked as the owner, whoever else is named; everybody else can be named. */
static void put_acl(FILE *stream, const struct shmd_why_step *step, const char *who) {
        fputs("shmdctl acl -m u:", stream);
        if (step->by != SHMD_WHY_BY_OWNER)
                put_name(stream, who);
        fputc(':', stream);
        put_perms(stream, step->perms | step->wanted);
        fputc(' ', stream);
        if (strcmp(shmd_reason_name(step->reason), "directory-write") == 0)
                put_directory(stream, step->thing);
        else
                put_name(stream, step->thing);
}

/* Writes what would let it through, if there is something. Return: a string for free(3), or NULL. */
static char *hint(const struct shmd_why_result *result, const char *who) {
        const struct shmd_why_step *step = result->n_steps ? &result->steps[result->n_steps - 1] : NULL;
        const char *reason = shmd_reason_name(result->reason);
        char *text = NULL;
        FILE *stream;
        size_t n;

        if (result->allowed || !step)
                return NULL;
        stream = open_memstream(&text, &n);
        if (!stream)
                output_oom();
        if (step->wanted) {
                put_acl(stream, step, who);
        } else if (strcmp(reason, "owner") == 0 || strcmp(reason, "sticky") == 0) {
                fputs("shmdctl chown ", stream);
                put_name(stream, who);
                fputc(' ', stream);
                put_name(stream, step->thing);
        } else if (strcmp(reason, "limit") == 0 || strcmp(reason, "share") == 0) {
                fprintf(stream, "shmdctl df --user=%u", step->uid);
        } else if (strcmp(reason, "directory-limit") == 0) {
                fputs("shmdctl df --directory=", stream);
                put_name(stream, step->thing);
        } else if (strcmp(reason, "missing") == 0 && result->code == SHMD_ERROR_NOT_FOUND) {
                fputs("shmdctl wait ", stream);
                put_name(stream, step->thing);
        } else if (strcmp(reason, "taken") == 0) {
                fputs("shmdctl stat ", stream);
                put_name(stream, step->thing);
        }
        if (fclose(stream) != 0)
                output_oom();
        if (n == 0) {
                free(text);
                text = NULL;
        }
        return text;
}

/* -- showing ---------------------------------------------------------------------------------- */

static const char *perms_text(char buffer[static 4], uint32_t perms) {
        (void)snprintf(buffer, 4, "%c%c%c", perms & 4 ? 'r' : '-', perms & 2 ? 'w' : '-', perms & 1 ? 'x' : '-');
        return buffer;
}

static void print_why(const struct shmd_why_result *result, const char *help) {
        Table table = { .align = "llll" };

        for (size_t i = 0; i < result->n_steps; ++i) {
                const struct shmd_why_step *step = &result->steps[i];

                table_add(&table, step->allowed ? "ok" : "no");
                table_add(&table, shmd_reason_name(step->reason));
                table_add(&table, *step->thing ? step->thing : "-");
                table_add(&table, step->sentence);
        }
        table_print(&table);
        fputs(result->allowed ? "allowed" : "refused", stdout);
        if (!result->allowed && *result->sentence) {
                fputs(": ", stdout);
                output_text(result->sentence, stdout);
        }
        fputc('\n', stdout);
        if (help) {
                fputs("try: ", stdout);
                output_text(help, stdout);
                fputc('\n', stdout);
        }
}

static json_t *step_json(const struct shmd_why_step *step) {
        static const char *const classes[] = {
                [SHMD_WHY_BY_NOBODY]    = "nobody",
                [SHMD_WHY_BY_ADMIN]     = "administrator",
                [SHMD_WHY_BY_OWNER]     = "owner",
                [SHMD_WHY_BY_USER]      = "acl-user",
                [SHMD_WHY_BY_GROUP]     = "group",
                [SHMD_WHY_BY_ACL_GROUP] = "acl-group",
                [SHMD_WHY_BY_OTHER]     = "other",
        };
        json_t *o = json_object();
        char text[8];

        output_set(o, "thing", output_string(step->thing));
        output_set(o, "reason", output_string(shmd_reason_name(step->reason)));
        output_set(o, "allowed", json_boolean(step->allowed));
        output_set(o, "sentence", output_string(step->sentence));
        if (step->by) {
                output_set(o, "by", output_string(step->by <= SHMD_WHY_BY_OTHER ? classes[step->by] : "unknown"));
                output_set(o, "id", json_integer(step->id));
                output_set(o, "uid", json_integer(step->uid));
                output_set(o, "gid", json_integer(step->gid));
                (void)snprintf(text, sizeof(text), "%04o", (unsigned int)step->mode & 07777U);
                output_set(o, "mode", output_string(text));
        }
        if (step->wanted) {
                output_set(o, "wanted", output_string(perms_text(text, step->wanted)));
                output_set(o, "perms", output_string(perms_text(text, step->perms)));
                output_set(o, "mask", step->masked ? output_string(perms_text(text, step->mask)) : json_null());
        }
        if (step->slot) {
                output_set(o, "slot", output_string(shmd_slot_name(step->slot)));
                output_set(o, "uid", json_integer(step->uid));
                output_set(o, "asked", output_number(step->asked));
                output_set(o, "left", output_number(step->left));
                output_set(o, "limit", output_limit(step->limit));
        }
        return o;
}

static json_t *why_json(const WhyArgs *args, const struct shmd_why_result *result, const char *help) {
        const char *error = result->error ? strerrorname_np(-result->error) : NULL;
        json_t *o = json_object(), *steps = json_array();

        output_set(o, "operation", output_string(operations[args->operation].name));
        output_set(o, "path", output_string(args->path));
        output_set(o, "to", args->options.to ? output_string(args->options.to) : json_null());
        output_set(o, "allowed", json_boolean(result->allowed));
        output_set(o, "errno", error ? output_string(error) : json_null());
        output_set(o, "reason", result->allowed ? json_null() : output_string(shmd_reason_name(result->reason)));
        output_set(o, "sentence", output_string(result->sentence));
        for (size_t i = 0; i < result->n_steps; ++i)
                output_append(steps, step_json(&result->steps[i]));
        output_set(o, "steps", steps);
        output_set(o, "try", help ? output_string(help) : json_null());
        return o;
}

static int ask(Ctl *ctl, const WhyArgs *args) {
        CLEANUP(shmd_why_freep) struct shmd_why_result *result = NULL;
        CLEANUP(freep) char *help = NULL;
        char who[OUTPUT_USER_MAX];
        uint32_t uid = args->options.uid;
        int r;

        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_why(ctl->client, operations[args->operation].operation, args->path, &args->options, &result,
                     SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, args->path, r);
        if (!args->as)
                (void)shmd_session(ctl->client, NULL, &uid, NULL);
        help = hint(result, args->as ? args->as : output_user(who, uid));
        if (ctl->json)
                output_json(why_json(args, result, help), stdout);
        else if (!ctl->quiet)
                print_why(result, help);
        return result->allowed ? CTL_DONE : CTL_FAILED;
}

int command_why(Ctl *ctl, int argc, char **argv) {
        WhyArgs args = { .options = SHMD_WHY_OPTIONS_INIT };
        int code;

        ctl_parse(ctl, &args, argc, argv);
        code = ask(ctl, &args);
        free(args.groups);
        return code;
}
