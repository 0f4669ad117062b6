/* bell: a region's doorbell, rung and waited for from the command line. */

#include "buildinfo.h"

#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

DEFINE_CLEANUP(shmd_bell, shmd_bell_close);

typedef struct BellArgs {
        bool ring;
        const char *path;       /* NULL: by number */
        uint64_t region;
        bool by_id;
        uint64_t count;
} BellArgs;

static const struct argp_option bell_options[] = {
        { "count", 'c', "N",  0, "Ring N times, or wait for N rings (default 1)" },
        { "id",    'i', "ID", 0, "The doorbell of the region with this number, instead of a name" },
        { NULL },
};

static void parse_operands(struct argp_state *state, BellArgs *args) {
        Operands operands;

        ctl_operands(state, &operands, 1, 2, 1);
        args->ring = strcmp(operands.names[0], "ring") == 0;
        if (!args->ring && strcmp(operands.names[0], "wait") != 0)
                argp_error(state, "'%s' is nothing to do with a bell: write ring or wait", operands.names[0]);
        if (operands.n == 2)
                args->path = operands.names[1];
}

static error_t parse_bell(int key, char *arg, struct argp_state *state) {
        BellArgs *args = state->input;

        switch (key) {
        case 'c':
                args->count = ctl_arg_number(state, arg, UINT32_MAX / 2);
                if (!args->count)
                        argp_error(state, "--count: at least 1");
                return 0;
        case 'i':
                args->region = ctl_arg_number(state, arg, UINT64_MAX);
                args->by_id = true;
                return 0;
        case ARGP_KEY_ARGS:
                parse_operands(state, args);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "ring or wait?");
                return 0;
        case ARGP_KEY_END:
                if (!args->path == !args->by_id)
                        argp_error(state, "give a name or --id, and not both");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_bell_argp = {
        .options = bell_options,
        .parser = parse_bell,
        .args_doc = "ring [NAME]\nwait [NAME]",
        .doc = "Rings the doorbell of the region NAME, which whoever may write the region can, or waits until it "
               "rings, which whoever may read it can. --timeout is then how long the wait may take.\v"
               "Examples:\n"
               "  shmdctl bell wait /camera/frame0 --timeout=10s && shmdctl cat /camera/frame0 > frame\n"
               "  shmdctl bell ring /camera/frame0",
};

static int ring(shmd_bell *bell, uint64_t count) {
        int r = 0;

        for (uint64_t i = 0; r == 0 && i < count; ++i)
                r = shmd_bell_ring(bell);
        return r;
}

/* The counter wraps, and whoever rings may set it to anything: what counts is how far it is from where it
 * was at first. */
static int wait_for(const Ctl *ctl, const shmd_bell *bell, uint64_t count) {
        uint64_t timeout_ns = ctl->timeout_ns == SHMD_TIMEOUT_DEFAULT ? SHMD_TIMEOUT_NONE : ctl->timeout_ns;
        uint32_t first = shmd_bell_count(bell), seen = first;

        while (seen - first < count) {
                int r = shmd_bell_wait(bell, seen, timeout_ns);

                if (r < 0)
                        return r;
                seen = shmd_bell_count(bell);
        }
        return 0;
}

static void report(Ctl *ctl, const shmd_bell *bell) {
        json_t *o;

        if (ctl->json) {
                o = json_object();
                output_set(o, "count", output_number(shmd_bell_count(bell)));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("%" PRIu32 "\n", shmd_bell_count(bell));
        }
}

int command_bell(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_bell_closep) shmd_bell *bell = NULL;
        BellArgs args = { .count = 1 };
        const char *name;
        int r;

        ctl_parse(ctl, &args, argc, argv);
        name = args.path ? args.path : "region";
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_bell_open(ctl->client, args.path, args.region, args.ring ? SHMD_BELL_RING : 0, &bell,
                           SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, name, r);
        r = args.ring ? ring(bell, args.count) : wait_for(ctl, bell, args.count);
        if (r < 0)
                return fail_call(ctl, name, r);
        report(ctl, bell);
        return CTL_DONE;
}
