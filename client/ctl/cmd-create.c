/* create and publish: regions made without content, and names given to regions that have it.
 *
 * What create makes outlives it only by name. A region without a name ("-"), and one that ends
 * with the session, needs somebody who holds it: --hold, which keeps the connection and the
 * grant until the process is killed.
 */

#include "buildinfo.h"

#include <errno.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

enum {
        OPTION_EXCLUSIVE = 512,
        OPTION_OPEN,
        OPTION_LIFETIME,
        OPTION_HUGE,
        OPTION_FREEZABLE,
        OPTION_RESERVE,
        OPTION_HOLD,
        OPTION_REPLACE,
        OPTION_TTL,
};

typedef struct CreateArgs {
        const char *path;       /* NULL: without a name */
        struct shmd_create_options options;
        bool exclusive;
        bool hold;
} CreateArgs;

static const struct argp_option create_options[] = {
        { "mode",      'm',              "MODE",     0, "Who may open it, octal (default 0600; no umask is applied)" },
        { "exclusive", OPTION_EXCLUSIVE, NULL,       0, "Fail if the name is taken (the default)" },
        { "open",      OPTION_OPEN,      NULL,       0, "If the name is taken, open what has it" },
        { "lifetime",  OPTION_LIFETIME,  "LIFETIME", 0, "named: until rm (the default); session: as long as --hold; "
          "counted: until nobody holds it" },
        { "huge",      OPTION_HUGE,      "SIZE",     0, "Use huge pages of this size, e.g. 2M" },
        { "freezable", OPTION_FREEZABLE, NULL,       0, "Allow that seals are added later" },
        { "reserve",   OPTION_RESERVE,   NULL,       0, "Allocate all its memory now" },
        { "ttl",       OPTION_TTL,       "DURATION", 0, "Let its name end after so long: 10min, 12h" },
        { "hold",      OPTION_HOLD,      NULL,       0, "Keep the connection and the region until killed" },
        { NULL },
};

static uint32_t parse_lifetime(struct argp_state *state, const char *text) {
        if (strcmp(text, "session") == 0)
                return SHMD_LIFETIME_SESSION;
        if (strcmp(text, "counted") == 0)
                return SHMD_LIFETIME_COUNTED;
        if (strcmp(text, "named") != 0)
                argp_error(state, "'%s' is no lifetime: write named, session or counted", text);
        return SHMD_LIFETIME_NAMED;
}

static uint64_t parse_huge(struct argp_state *state, const char *text) {
        uint64_t size = ctl_arg_size(state, text);

        if (size < 4096 || (size & (size - 1)) != 0)
                argp_error(state, "'%s' is no page size: write a power of two, such as 2M or 1G", text);
        return size;
}

static void check_create(struct argp_state *state, const CreateArgs *args) {
        if (args->exclusive && args->options.flags & SHMD_CREATE_OPEN)
                argp_error(state, "--exclusive and --open exclude each other");
        if (args->options.lifetime == SHMD_LIFETIME_SESSION && !args->hold)
                argp_error(state, "--lifetime=session needs --hold: "
                                  "the session, and the region with it, would end with this command");
        if (args->options.lifetime == SHMD_LIFETIME_COUNTED && !args->hold)
                argp_error(state, "--lifetime=counted needs --hold: "
                                  "the region would go with this command, which would be its only holder");
        if (!args->path && args->options.ttl_ns)
                argp_error(state, "--ttl needs a name");
        if (!args->path && !args->hold)
                argp_error(state, "a region without a name needs --hold: it lives while somebody holds it");
        if (!args->path && args->options.flags & SHMD_CREATE_OPEN)
                argp_error(state, "--open needs a name");
}

static void parse_create_operands(struct argp_state *state, CreateArgs *args) {
        Operands operands;

        ctl_operands(state, &operands, 2, 2, 2);
        args->path = strcmp(operands.names[0], "-") == 0 ? NULL : ctl_arg_name(state, operands.names[0]);
        args->options.size = ctl_arg_size(state, operands.names[1]);
        check_create(state, args);
}

static error_t parse_create(int key, char *arg, struct argp_state *state) {
        CreateArgs *args = state->input;

        switch (key) {
        case 'm':
                args->options.mode = ctl_arg_mode(state, arg, 0777);
                return 0;
        case OPTION_EXCLUSIVE:
                args->exclusive = true;
                return 0;
        case OPTION_OPEN:
                args->options.flags |= SHMD_CREATE_OPEN;
                return 0;
        case OPTION_LIFETIME:
                args->options.lifetime = parse_lifetime(state, arg);
                return 0;
        case OPTION_HUGE:
                args->options.huge_page_size = parse_huge(state, arg);
                return 0;
        case OPTION_FREEZABLE:
                args->options.flags |= SHMD_CREATE_FREEZABLE;
                return 0;
        case OPTION_RESERVE:
                args->options.flags |= SHMD_CREATE_RESERVE;
                return 0;
        case OPTION_HOLD:
                args->hold = true;
                return 0;
        case OPTION_TTL:
                args->options.ttl_ns = ctl_arg_ttl(state, arg);
                return 0;
        case ARGP_KEY_ARGS:
                parse_create_operands(state, args);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name and a size are missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_create_argp = {
        .options = create_options,
        .parser = parse_create,
        .args_doc = "NAME SIZE",
        .doc = "Makes a region of SIZE bytes (64M, 2G), charged to your account, and says whether it was created "
               "or opened. NAME is a path such as /camera/frame0, or - for a region without a name, "
               "which publish can give one.\v"
               "Examples:\n"
               "  shmdctl create /camera/frame0 8M --mode=0640\n"
               "  shmdctl create /ring 64M --open\n"
               "  shmdctl create /scratch 1G --lifetime=session --hold --reserve",
};

static void report_create(Ctl *ctl, const CreateArgs *args, const shmd_region *region) {
        const char *outcome = shmd_region_created(region) ? "created" : "opened";
        const char *name = args->path ? args->path : "-";
        char size[OUTPUT_NUMBER_MAX];

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "outcome", output_string(outcome));
                output_set(o, "path", args->path ? output_string(args->path) : json_null());
                output_set(o, "region", output_number(shmd_region_id(region)));
                output_set(o, "size", output_number(shmd_region_size(region)));
                output_set(o, "page_size", output_number(shmd_region_page_size(region)));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("%s ", outcome);
                output_text(name, stdout);
                printf(": region %" PRIu64 ", %s\n", shmd_region_id(region),
                       output_size(ctl, size, shmd_region_size(region)));
        }
        /* Whoever started a --hold in the background reads this while we wait. */
        (void)fflush(stdout);
}

/* Without --hold nothing is done with the region here, so no grant is asked for, and --open of a
 * region that is there needs no right to it; --reserve needs a grant to allocate through. */
int command_create(Ctl *ctl, int argc, char **argv) {
        CLEANUP_REGION shmd_region *region = NULL;
        CreateArgs args = { .options = SHMD_CREATE_OPTIONS_INIT };
        const char *name;
        int r;

        ctl_parse(ctl, &args, argc, argv);
        name = args.path ? args.path : "-";
        if (!args.hold && !(args.options.flags & SHMD_CREATE_RESERVE))
                args.options.rights = SHMD_RIGHTS_NONE;

        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_create(ctl->client, args.path, &args.options, &region, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, name, r);

        report_create(ctl, &args, region);
        return args.hold ? ctl_hold(ctl, name, args.options.lifetime == SHMD_LIFETIME_SESSION) : CTL_DONE;
}

/* -- publish ---------------------------------------------------------------------------- */

typedef struct PublishArgs {
        uint64_t region;
        const char *path;
        struct shmd_publish_options options;
} PublishArgs;

static const struct argp_option publish_options[] = {
        { "replace", OPTION_REPLACE, NULL,       0, "Take the name from a region that has it, atomically" },
        { "ttl",     OPTION_TTL,     "DURATION", 0, "Let the name end after so long: 10min, 12h" },
        { NULL },
};

static error_t parse_publish(int key, char *arg, struct argp_state *state) {
        PublishArgs *args = state->input;
        Operands operands;

        switch (key) {
        case OPTION_REPLACE:
                args->options.flags |= SHMD_PUBLISH_REPLACE;
                return 0;
        case OPTION_TTL:
                args->options.ttl_ns = ctl_arg_ttl(state, arg);
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 2, 2, 1);
                args->region = ctl_arg_number(state, operands.names[0], UINT64_MAX);
                args->path = operands.names[1];
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a region's number and a name are missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_publish_argp = {
        .options = publish_options,
        .parser = parse_publish,
        .args_doc = "ID NAME",
        .doc = "Gives the region with the number ID, which has no name and is yours, the name NAME. "
               "Whoever waits for the name sees the region as it is then.\v"
               "Examples:\n"
               "  shmdctl create - 64M --hold &\n"
               "  shmdctl publish 17 /camera/frame0\n"
               "  shmdctl publish 18 /camera/frame0 --replace",
};

int command_publish(Ctl *ctl, int argc, char **argv) {
        PublishArgs args = { .options = SHMD_PUBLISH_OPTIONS_INIT };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_publish(ctl->client, args.region, args.path, &args.options, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, args.path, r);

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "path", output_string(args.path));
                output_set(o, "region", output_number(args.region));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("published ");
                output_text(args.path, stdout);
                printf(": region %" PRIu64 "\n", args.region);
        }
        return CTL_DONE;
}
