/* reload: compile the policy files and hand the result to the broker.
 *
 * The files are read by `shmd --compile-policy`, with the rights of who calls, because the broker can
 * read none.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>

#include "client/ctl/ctl.h"
#include "client/ctl/daemon.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

/* One that is too large shall be seen to be. */
#define POLICY_ROOM (SHMD_POLICY_MAX + 1)

enum {
        OPTION_DAEMON = 512,
        OPTION_POLICY_ROOT,
};

typedef struct ReloadArgs {
        const char *daemon;
        const char *policy_root;
        const char *file;       /* compiled already */
} ReloadArgs;

static const struct argp_option reload_options[] = {
        { "daemon",      OPTION_DAEMON,      "PROGRAM", 0, "What compiles the files (else $SHMD_DAEMON, or shmd as installed)" },
        { "policy-root", OPTION_POLICY_ROOT, "DIR",     0, "Look for the files below DIR" },
        { NULL },
};

static error_t parse_reload(int key, char *arg, struct argp_state *state) {
        ReloadArgs *args = state->input;
        Operands operands;

        switch (key) {
        case OPTION_DAEMON:
                args->daemon = arg;
                return 0;
        case OPTION_POLICY_ROOT:
                args->policy_root = arg;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 0, 1, 1);
                args->file = operands.n ? operands.names[0] : NULL;
                return 0;
        case ARGP_KEY_END:
                if (args->file && (args->daemon || args->policy_root))
                        argp_error(state, "what is compiled already needs neither --daemon nor --policy-root");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_reload_argp = {
        .options = reload_options,
        .parser = parse_reload,
        .args_doc = "[FILE]",
        .doc = "Compiles the policy files and puts the policy in force, for everybody in the same moment. If there is a "
               "mistake in them, or anything in the way, the policy that is in force stays. FILE is a policy that was "
               "compiled before. Only administrators may.\v"
               "Examples:\n"
               "  shmdctl reload\n"
               "  shmd --compile-policy -o policy && shmdctl reload policy",
};

static int compile(Ctl *ctl, const ReloadArgs *args, Text *policy) {
        CLEANUP(text_deinit) Text complaints = TEXT_NULL;
        const char *program = daemon_program(args->daemon);
        const char *const argv[] = { program, "--compile-policy", args->policy_root ? "--policy-root" : NULL,
                                     args->policy_root, NULL };
        int status, r;

        r = daemon_run(argv, -1, policy, &complaints, POLICY_ROOM, &status);
        if (r < 0)
                return fail_system(ctl, program, r, NULL);
        if (status == 0)
                return CTL_DONE;
        text_chomp(&complaints);
        return fail_system(ctl, "policy", -EINVAL, complaints.bytes);
}

static int read_compiled(Ctl *ctl, const char *path, Text *policy) {
        int r;

        policy->fd = open(path, O_RDONLY | O_CLOEXEC);
        r = policy->fd < 0 ? -errno : text_read(policy, POLICY_ROOM);
        return r < 0 ? fail_system(ctl, path, r, NULL) : CTL_DONE;
}

static void print_result(const Ctl *ctl, const struct shmd_reload_result *result) {
        json_t *o;

        if (ctl->json) {
                o = json_object();
                output_set(o, "generation", output_number(result->generation));
                output_set(o, "directories", output_number(result->directories));
                output_set(o, "accounts", output_number(result->accounts));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("policy %" PRIu64 " is in force: %u %s made, limits of %u %s changed\n", result->generation,
                       result->directories, result->directories == 1 ? "directory" : "directories",
                       result->accounts, result->accounts == 1 ? "account" : "accounts");
        }
}

int command_reload(Ctl *ctl, int argc, char **argv) {
        CLEANUP(text_deinit) Text policy = TEXT_NULL;
        struct shmd_reload_result result;
        ReloadArgs args = { .file = NULL };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = args.file ? read_compiled(ctl, args.file, &policy) : compile(ctl, &args, &policy);
        if (!r)
                r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_reload(ctl->client, policy.bytes, policy.n, &result, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, args.file ? args.file : "policy", r);
        print_result(ctl, &result);
        return CTL_DONE;
}
