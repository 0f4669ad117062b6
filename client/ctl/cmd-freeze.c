/* freeze and expire: regions that are written no more, and names that end.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/node.h"
#include "client/ctl/output.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010      /* Linux 5.1 */
#endif

/* -- freeze ----------------------------------------------------------------------------- */

enum {
        OPTION_SINGLE_WRITER = 512,
};

typedef struct FreezeArgs {
        const char *path;
        uint32_t how;
} FreezeArgs;

static const struct argp_option freeze_options[] = {
        { "single-writer", OPTION_SINGLE_WRITER, NULL, 0,
          "Let those write on who have it mapped for writing now, and nobody else ever" },
        { NULL },
};

static error_t parse_freeze(int key, char *arg, struct argp_state *state) {
        FreezeArgs *args = state->input;
        Operands operands;

        (void)arg;
        switch (key) {
        case OPTION_SINGLE_WRITER:
                args->how = SHMD_FREEZE_SINGLE_WRITER;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 1, 0);
                args->path = operands.names[0];
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name is missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_freeze_argp = {
        .options = freeze_options,
        .parser = parse_freeze,
        .args_doc = "NAME",
        .doc = "Freezes the region NAME, which was made with create --freezable, for good: nobody writes to it "
               "any more, whatever grant or privilege they have. While any process has it mapped for writing, this "
               "fails. For its owner, with the right to write to it, and administrators.\v"
               "Examples:\n"
               "  shmdctl freeze /model/weights\n"
               "  shmdctl freeze --single-writer /camera/frame0",
};

/* One that is frozen already cannot be opened for writing, and need not be. */
static bool is_frozen(Ctl *ctl, const FreezeArgs *args) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        uint32_t seal = args->how == SHMD_FREEZE_IMMUTABLE ? F_SEAL_WRITE : F_SEAL_FUTURE_WRITE;

        if (strcmp(shmd_reason_name(shmd_refusal(ctl->client)->reason), "frozen") != 0)
                return false;
        return shmd_stat(ctl->client, args->path, 0, 0, &result, SHMD_TIMEOUT_DEFAULT) == 0 &&
               result->node.seals & seal;
}

static int freeze(Ctl *ctl, const FreezeArgs *args) {
        CLEANUP_REGION shmd_region *region = NULL;
        int r;

        r = shmd_open(ctl->client, args->path, SHMD_RIGHTS_READ_WRITE, &region, SHMD_TIMEOUT_DEFAULT);
        if (r == -EACCES && is_frozen(ctl, args))
                return CTL_DONE;
        if (r == 0)
                r = shmd_freeze(ctl->client, region, args->how, SHMD_TIMEOUT_DEFAULT);
        return r < 0 ? fail_call(ctl, args->path, r) : CTL_DONE;
}

int command_freeze(Ctl *ctl, int argc, char **argv) {
        FreezeArgs args = { .how = SHMD_FREEZE_IMMUTABLE };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ctl_connect(ctl);
        if (!r)
                r = freeze(ctl, &args);
        if (r)
                return r;
        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "path", output_string(args.path));
                output_set(o, "frozen",
                           output_string(args.how == SHMD_FREEZE_IMMUTABLE ? "immutable" : "single-writer"));
                output_json(o, stdout);
        }
        return CTL_DONE;
}

/* -- expire ----------------------------------------------------------------------------- */

typedef struct ExpireArgs {
        const char *path;
        uint64_t ttl_ns;
} ExpireArgs;

static error_t parse_expire(int key, char *arg, struct argp_state *state) {
        ExpireArgs *args = state->input;
        Operands operands;

        (void)arg;
        switch (key) {
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 2, 2, 2);
                args->path = ctl_arg_name(state, operands.names[0]);
                args->ttl_ns = ctl_arg_ttl(state, operands.names[1]);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name and a time are missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_expire_argp = {
        .parser = parse_expire,
        .args_doc = "NAME DURATION",
        .doc = "Lets the name NAME of a region end after DURATION, counted from now, as if rm took it away then; "
               "with \"never\", not any more. Who holds the region keeps it, and its other names stay. "
               "For the region's owner and administrators.\v"
               "Examples:\n"
               "  shmdctl expire /scratch 1h30min\n"
               "  shmdctl expire /scratch never",
};

int command_expire(Ctl *ctl, int argc, char **argv) {
        ExpireArgs args = { 0 };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_expire(ctl->client, args.path, args.ttl_ns, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, args.path, r);
        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "path", output_string(args.path));
                output_set(o, "ttl_ns", args.ttl_ns ? output_number(args.ttl_ns) : json_null());
                output_json(o, stdout);
        }
        return CTL_DONE;
}
