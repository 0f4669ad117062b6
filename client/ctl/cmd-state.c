/* state: copy what outlives the broker, and look whether it can be true.
 *
 * The broker makes the copy, and `shmd --check-state` reads it, with the rights of who calls: so a dump is
 * looked at without any broker.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "client/ctl/copy.h"
#include "client/ctl/ctl.h"
#include "client/ctl/daemon.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

/* Of what the checker says. */
#define TEXT_MAX (16U << 20)

enum {
        OPTION_CHECK = 512,
        OPTION_DAEMON,
        OPTION_DUMP,
};

typedef struct StateArgs {
        const char *daemon;
        const char *dump;
        const char *check;
} StateArgs;

/* No path of an installation is in a help text, here or elsewhere: of a word that is longer than its column, glibc's
 * argp (2.36) frees memory that is not its own. */
static const struct argp_option state_options[] = {
        { "dump",   OPTION_DUMP,   "FILE",    0, "Write the copy to FILE (-: standard output), and do not check it" },
        { "check",  OPTION_CHECK,  "FILE",    0, "Check FILE (-: standard input), and ask no broker" },
        { "daemon", OPTION_DAEMON, "PROGRAM", 0, "What checks (else $SHMD_DAEMON, or shmd as installed)" },
        { NULL },
};

static error_t parse_state(int key, char *arg, struct argp_state *state) {
        StateArgs *args = state->input;

        switch (key) {
        case OPTION_DUMP:
                args->dump = arg;
                return 0;
        case OPTION_CHECK:
                args->check = arg;
                return 0;
        case OPTION_DAEMON:
                args->daemon = arg;
                return 0;
        case ARGP_KEY_END:
                if (args->dump && (args->check || args->daemon))
                        argp_error(state, "--dump writes a copy, and neither checks it nor anything else");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_state_argp = {
        .options = state_options,
        .parser = parse_state,
        .doc = "Takes a copy of the broker's state, which is all that it knows after it was started again, says what is "
               "in it, and checks it: whether every record can be read, and what they say of each other fits. Only "
               "administrators may; a copy that was written to a file can be checked by anybody who may read it.\v"
               "Examples:\n"
               "  shmdctl state\n"
               "  shmdctl state --dump state && shmdctl state --check state",
};

/* -- writing ------------------------------------------------------------------------------ */

static int copy_bytes(int from, int to) {
        char buffer[65536];
        ssize_t n;
        int r = 0;

        while (r == 0 && (n = read(from, buffer, sizeof(buffer))) != 0)
                r = n < 0 ? -errno : copy_write(to, buffer, (size_t)n);
        return r;
}

/* It says who has what: nobody else's business. */
static int dump(Ctl *ctl, const char *path, int from) {
        CLEANUP(close_fdp) int fd = -1;
        int r;

        fd = strcmp(path, "-") ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600) :
                                 fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
        r = fd < 0 ? -errno : copy_bytes(from, fd);
        return r < 0 ? fail_system(ctl, path, r, NULL) : CTL_DONE;
}

/* -- checking ----------------------------------------------------------------------------- */

/* A line of what the checker says of something; it begins with the name of the file, which it was not told. */
static const char *complaint(const char *line) {
        return strncmp(line, "-: ", 3) ? line : line + 3;
}

static void print_json(Text *facts, Text *complaints, bool valid) {
        json_t *o = json_object(), *mistakes = json_array();
        char *save, *line;

        output_set(o, "valid", json_boolean(valid));
        for (line = strtok_r(facts->bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                char *value = strchr(line, ' ');

                if (!value)
                        continue;
                *value++ = '\0';
                if (strcmp(line, "mistakes"))
                        output_set(o, line, output_number(strtoull(value, NULL, 10)));
        }
        for (line = strtok_r(complaints->bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                if (!mistakes || json_array_append_new(mistakes, output_string(complaint(line))))
                        output_oom();
        output_set(o, "mistakes", mistakes);
        output_json(o, stdout);
}

static void print_table(const Ctl *ctl, Text *facts) {
        CLEANUP(table_deinit) Table table = { .align = "rl" };
        char number[OUTPUT_NUMBER_MAX], *save, *line;

        for (line = strtok_r(facts->bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                char *value = strchr(line, ' ');

                if (!value)
                        continue;
                *value++ = '\0';
                table_add(&table, strcmp(line, "bytes") ? value : output_size(ctl, number, strtoull(value, NULL, 10)));
                table_add(&table, line);
        }
        table_print(&table);
}

static void print_complaints(const char *name, Text *complaints) {
        char *save, *line;

        for (line = strtok_r(complaints->bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                fprintf(stderr, "shmdctl: ");
                output_text(name, stderr);
                fprintf(stderr, ": ");
                output_text(complaint(line), stderr);
                fputc('\n', stderr);
        }
}

static int check(Ctl *ctl, const StateArgs *args, const char *name, int fd) {
        CLEANUP(text_deinit) Text facts = TEXT_NULL, complaints = TEXT_NULL;
        const char *program = daemon_program(args->daemon);
        const char *const argv[] = { program, "--check-state", "-", NULL };
        int status, r;

        r = daemon_run(argv, fd, &facts, &complaints, TEXT_MAX, &status);
        if (r < 0)
                return fail_system(ctl, program, r, NULL);
        text_chomp(&complaints);
        if (status > 1)
                return fail_system(ctl, program, -EINVAL, complaints.bytes);
        if (status && !facts.n)
                return fail_system(ctl, name, -EINVAL, complaint(complaints.bytes));
        if (ctl->json) {
                print_json(&facts, &complaints, status == 0);
        } else {
                if (!ctl->quiet)
                        print_table(ctl, &facts);
                print_complaints(name, &complaints);
        }
        return status == 0 ? CTL_DONE : CTL_FAILED;
}

static int check_file(Ctl *ctl, const StateArgs *args) {
        CLEANUP(close_fdp) int fd = -1;

        fd = strcmp(args->check, "-") ? open(args->check, O_RDONLY | O_CLOEXEC | O_NOCTTY) :
                                        fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
        return fd < 0 ? fail_system(ctl, args->check, -errno, NULL) : check(ctl, args, args->check, fd);
}

int command_state(Ctl *ctl, int argc, char **argv) {
        CLEANUP(close_fdp) int fd = -1;
        StateArgs args = { .dump = NULL };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        if (args.check)
                return check_file(ctl, &args);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_state(ctl->client, &fd, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, "state", r);
        return args.dump ? dump(ctl, args.dump, fd) : check(ctl, &args, "state", fd);
}
