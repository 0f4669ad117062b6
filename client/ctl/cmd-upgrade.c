/* upgrade: another broker, from the program that is installed now.
 *
 * The answer says that the broker is about to stop. A connection made after it waits for the next
 * broker, so the first thing heard on it is that one's version.
 */

#include "buildinfo.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

typedef struct UpgradeArgs {
        uint64_t replaced;      /* the process whose program must have been replaced; 0: always */
} UpgradeArgs;

enum {
        OPTION_IF_REPLACED = 256,
};

static const struct argp_option upgrade_options[] = {
        { "if-replaced", OPTION_IF_REPLACED, "PID", 0,
          "Do nothing if the program of that process, the broker's keeper, is the one that is installed now; root alone" },
        { NULL },
};

static error_t parse_upgrade(int key, char *arg, struct argp_state *state) {
        UpgradeArgs *args = state->input;
        Operands none;

        switch (key) {
        case OPTION_IF_REPLACED:
                args->replaced = ctl_arg_number(state, arg, INT_MAX);
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &none, 0, 0, 0);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_upgrade_argp = {
        .options = upgrade_options,
        .parser = parse_upgrade,
        .doc = "Replaces the broker by the program that is installed now, and waits until that one answers. Regions, "
               "their names and who holds them stay as they are, and clients connect again by themselves. If the program "
               "does not accept the broker's configuration, everything stays as it is. Only administrators may.",
};

/* Compares the file that a process executes with the one that has its path now. Return: 0 or a negative errno. */
static int find_replaced(uint64_t pid, bool *ret) {
        static const char deleted[] = " (deleted)";
        char link[32], path[PATH_MAX];
        struct stat running, installed;
        ssize_t n;

        (void)snprintf(link, sizeof(link), "/proc/%" PRIu64 "/exe", pid);
        n = readlink(link, path, sizeof(path) - 1);
        if (n < 0 || stat(link, &running) < 0)
                return -errno;
        path[n] = '\0';
        if ((size_t)n > strlen(deleted) && !strcmp(path + n - strlen(deleted), deleted))
                path[(size_t)n - strlen(deleted)] = '\0';
        if (stat(path, &installed) < 0)
                return -errno;
        *ret = running.st_dev != installed.st_dev || running.st_ino != installed.st_ino;
        return 0;
}

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
        UpgradeArgs args = { .replaced = 0 };
        bool replaced = true;
        int r = 0;

        ctl_parse(ctl, &args, argc, argv);
        if (args.replaced)
                r = find_replaced(args.replaced, &replaced);
        if (r < 0)
                return fail_system(ctl, "its program", r, NULL);
        r = ctl_connect(ctl);
        if (r)
                return r;
        before = strdup(shmd_broker_version(ctl->client));
        if (!before)
                output_oom();
        if (!replaced) {
                print_result(ctl, before);
                return CTL_DONE;
        }
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
