/* version and help. */

#include "buildinfo.h"

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

static error_t parse_version(int key, char *arg, struct argp_state *state) {
        Operands none;

        if (key != ARGP_KEY_ARGS)
                return ARGP_ERR_UNKNOWN;
        ctl_operands(state, &none, 0, 0, 0);
        return 0;
}

const struct argp command_version_argp = {
        .parser = parse_version,
        .doc = "Prints the versions of this tool, of the library it runs with, and of the broker that answers.\v"
               "Fails if no broker answers, after printing the other two.",
};

/* The broker's row comes last, because asking for it may fail and the others are known. */
int command_version(Ctl *ctl, int argc, char **argv) {
        const char *broker;
        int code;

        ctl_parse(ctl, NULL, argc, argv);
        code = ctl_connect(ctl);
        broker = code == CTL_DONE ? shmd_broker_version(ctl->client) : NULL;

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "shmdctl", output_string(PACKAGE_VERSION));
                output_set(o, "libshmd", output_string(shmd_version()));
                output_set(o, "shmd", broker ? output_string(broker) : json_null());
                output_set(o, "socket", broker ? output_string(shmd_socket(ctl->client)) : json_null());
                output_json(o, stdout);
                return code;
        }
        printf("shmdctl %s\nlibshmd %s\n", PACKAGE_VERSION, shmd_version());
        if (broker) {
                printf("shmd ");
                output_text(broker, stdout);
                printf(" at ");
                output_text(shmd_socket(ctl->client), stdout);
                putchar('\n');
        }
        return code;
}

static error_t parse_help(int key, char *arg, struct argp_state *state) {
        Operands *command = state->input;

        if (key != ARGP_KEY_ARGS)
                return ARGP_ERR_UNKNOWN;
        ctl_operands(state, command, 0, 1, 1);
        if (!ctl_find(command->names[0]))
                argp_error(state, "'%s' is no command", command->names[0]);
        return 0;
}

const struct argp command_help_argp = {
        .parser = parse_help,
        .args_doc = "[COMMAND]",
        .doc = "Prints the help of a command, or the list of all.\v"
               "Examples:\n"
               "  shmdctl help\n"
               "  shmdctl help put",
};

int command_help(Ctl *ctl, int argc, char **argv) {
        Operands command = { 0 };

        ctl_parse(ctl, &command, argc, argv);
        ctl_help(command.n ? ctl_find(command.names[0]) : NULL);
}
