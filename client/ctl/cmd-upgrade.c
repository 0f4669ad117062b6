/* upgrade: another broker, from the program that is installed now.
 *
 * The answer says that the broker is about to stop. A connection made after it waits for the next
 * broker, so the first thing heard on it is that one's version.
 */

#include "buildinfo.h"

#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

static error_t parse_upgrade(int key, char *arg, struct argp_state *state) {
        Operands none;

        if (key != ARGP_KEY_ARGS)
                return ARGP_ERR_UNKNOWN;
        ctl_operands(state, &none, 0, 0, 0);
        return 0;
}

const struct argp command_upgrade_argp = {
        .parser = parse_upgrade,
        .doc = "Replaces the broker by the program that is installed now, and waits until that one answers. Regions, "
               "their names and who holds them stay as they are, and clients connect again by themselves. If the program "
               "does not accept the broker's configuration, everything stays as it is. Only administrators may.",
};

static void print_result(const Ctl *ctl, const char *before) {
        const char *now = shmd_broker_version(ctl->client);

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "before", output_string(before));
                output_set(o, "broker", output_string(now));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("the broker is version ");
                output_text(now, stdout);
                printf(" now\n");
        }
}

int command_upgrade(Ctl *ctl, int argc, char **argv) {
        CLEANUP(freep) char *before = NULL;
        int r;

        ctl_parse(ctl, NULL, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        before = strdup(shmd_broker_version(ctl->client));
        if (!before)
                output_oom();
        r = shmd_upgrade(ctl->client, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, "upgrade", r);
        ctl->client = shmd_close(ctl->client);
        r = ctl_connect(ctl);
        if (r)
                return r;
        print_result(ctl, before);
        return CTL_DONE;
}
