/* shmdctl: the table of commands, the options that all of them have, and main().
 *
 * Options of every command may stand before or after its name. The first argp run reads up to
 * the command's name and stops there; the command's own run (ctl_parse()) reads the rest, with
 * the same options beside its own.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/parse.h"

const Command ctl_commands[] = {
        { "create",  command_create,  "Make a region, or open one",                   &command_create_argp },
        { "put",     command_put,     "Copy a file or standard input into a region",  &command_put_argp },
        { "publish", command_publish, "Give a region without a name its name",        &command_publish_argp },
        { "cat",     command_cat,     "Write a region to standard output",            &command_cat_argp },
        { "ticket",  command_ticket,  "Issue a string that is good for a region",     &command_ticket_argp },
        { "redeem",  command_redeem,  "Write the region of a ticket to standard output", &command_redeem_argp },
        { "tickets", command_tickets, "List the tickets of a region",                 &command_tickets_argp },
        { "revoke",  command_revoke,  "End tickets",                                  &command_revoke_argp },
        { "bell",    command_bell,    "Ring the doorbell of a region, or wait for it", &command_bell_argp },
        { "ls",      command_ls,      "List a directory",                             &command_ls_argp },
        { "stat",    command_stat,    "Show all about a region or directory",         &command_stat_argp },
        { "holders", command_holders, "Show who holds a region",                      &command_holders_argp },
        { "map",     command_map,     "Draw which pages of a region are where",       &command_map_argp },
        { "rm",      command_rm,      "Take the names of regions away",               &command_rm_argp },
        { "mv",      command_mv,      "Move names, or let two change places",         &command_mv_argp },
        { "ln",      command_ln,      "Give a region one more name",                  &command_ln_argp },
        { "freeze",  command_freeze,  "Let a region be written no more",              &command_freeze_argp },
        { "expire",  command_expire,  "Let a name end after a time",                  &command_expire_argp },
        { "mkdir",   command_mkdir,   "Make directories",                             &command_mkdir_argp },
        { "rmdir",   command_rmdir,   "Remove empty directories",                     &command_rmdir_argp },
        { "chmod",   command_chmod,   "Change who may do what",                       &command_chmod_argp },
        { "chown",   command_chown,   "Change owner and group",                       &command_chown_argp },
        { "acl",     command_acl,     "Show or change who else may do what",          &command_acl_argp },
        { "why",     command_why,     "Explain what may be done, or why not",         &command_why_argp },
        { "wait",    command_wait,    "Wait for a name, or until a region is let go", &command_wait_argp },
        { "watch",   command_watch,   "Print what happens to names",                  &command_watch_argp },
        { "df",      command_df,      "Show limits and use",                          &command_df_argp },
        { "reload",  command_reload,  "Compile the policy files and put them in force", &command_reload_argp },
        { "state",   command_state,   "Copy what outlives the broker, and check it",   &command_state_argp },
        { "upgrade", command_upgrade, "Replace the broker by the program that is installed now", &command_upgrade_argp },
        { "ping",    command_ping,    "Ask whether the broker answers, and how fast", &command_ping_argp },
        { "stats",   command_stats,   "Show the broker's figures since its start",    &command_stats_argp },
        { "metrics", command_metrics, "Print the figures as OpenMetrics text",        &command_metrics_argp },
        { "top",     command_top,     "Show accounts and regions, live",              &command_top_argp },
        { "doctor",  command_doctor,  "Look for what is wrong, and say what to do",   &command_doctor_argp },
        { "version", command_version, "Show versions of tool, library and broker",    &command_version_argp },
        { "help",    command_help,    "Show help",                                    &command_help_argp },
        { NULL },
};

const Command *ctl_find(const char *name) {
        for (const Command *command = ctl_commands; command->name; ++command)
                if (strcmp(command->name, name) == 0)
                        return command;
        return NULL;
}

/* -- options of every command --------------------------------------------------------- */

enum {
        OPTION_SOCKET = 256,
        OPTION_JSON,
        OPTION_BYTES,
        OPTION_TIMEOUT,
};

static const struct argp_option global_options[] = {
        { "socket",  OPTION_SOCKET,  "PATH", 0, "The broker's socket (else $SHMD_SOCKET, the user's, the system's)" },
        { "json",    OPTION_JSON,    NULL,   0, "Print JSON; errors too" },
        { "bytes",   OPTION_BYTES,   NULL,   0, "Print sizes as plain numbers of bytes" },
        { "timeout", OPTION_TIMEOUT, "DURATION", 0,
          "Give up when the broker has not answered a request after so long: 500ms, 10s, 2min, infinity" },
        { "quiet",   'q',            NULL,   0, "Say nothing about what was done, and show no progress" },
        { NULL,      'h',            NULL,   OPTION_HIDDEN, NULL },
        { NULL },
};

static error_t parse_global(int key, char *arg, struct argp_state *state) {
        Ctl *ctl = state->input;

        switch (key) {
        case OPTION_SOCKET:
                if (!*arg)
                        argp_error(state, "--socket: a path is not empty");
                ctl->socket = arg;
                return 0;
        case OPTION_JSON:
                ctl->json = true;
                return 0;
        case OPTION_BYTES:
                ctl->bytes = true;
                return 0;
        case OPTION_TIMEOUT:
                ctl->timeout_ns = ctl_arg_duration(state, arg);
                if (!ctl->timeout_ns)
                        argp_error(state, "--timeout: a deadline is more than nothing");
                return 0;
        case 'q':
                ctl->quiet = true;
                return 0;
        case 'h':
                argp_state_help(state, state->out_stream, ARGP_HELP_STD_HELP);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

static const struct argp global_argp = { .options = global_options, .parser = parse_global };

static void print_version(FILE *stream, struct argp_state *state) {
        fprintf(stream, "shmdctl %s (libshmd %s)\n", PACKAGE_VERSION, shmd_version());
}

/* -- a command's arguments ------------------------------------------------------------ */

typedef struct CommandInput {
        Ctl *ctl;
        void *args;
} CommandInput;

static error_t parse_command(int key, char *arg, struct argp_state *state) {
        CommandInput *input = state->input;

        if (key != ARGP_KEY_INIT)
                return ARGP_ERR_UNKNOWN;
        state->child_inputs[0] = input->args;
        state->child_inputs[1] = input->ctl;
        return 0;
}

void ctl_parse(Ctl *ctl, void *args, int argc, char **argv) {
        const struct argp_child children[] = {
                { .argp = ctl->command->argp },
                { .argp = &global_argp, .header = "Options of every command:", .group = 1 },
                { .argp = NULL },
        };
        const struct argp argp = { .parser = parse_command, .children = children };
        CommandInput input = { .ctl = ctl, .args = args };

        if (argp_parse(&argp, argc, argv, 0, NULL, &input) != 0)
                output_oom();
}

uint64_t ctl_arg_size(struct argp_state *state, const char *text) {
        uint64_t size = 0;

        if (parse_size(text, &size) < 0)
                argp_error(state, "'%s' is no size: write bytes, or a number with K, M, G, T, P or E", text);
        return size;
}

uint64_t ctl_arg_duration(struct argp_state *state, const char *text) {
        uint64_t duration = 0;

        if (parse_duration(text, &duration) < 0)
                argp_error(state, "'%s' is no duration: write a number with ns, us, ms, s, min, h or d", text);
        return duration;
}

uint64_t ctl_arg_ttl(struct argp_state *state, const char *text) {
        uint64_t ttl;

        if (strcmp(text, "never") == 0)
                return 0;
        ttl = ctl_arg_duration(state, text);
        if (ttl == 0 || ttl == UINT64_MAX)
                argp_error(state, "'%s' is no time to live: write a duration, or never", text);
        return ttl;
}

uint64_t ctl_arg_number(struct argp_state *state, const char *text, uint64_t max) {
        uint64_t number = 0;

        if (parse_number(text, &number) < 0 || number > max)
                argp_error(state, "'%s' is no number from 0 to %" PRIu64, text, max);
        return number;
}

mode_t ctl_arg_mode(struct argp_state *state, const char *text, mode_t max) {
        mode_t mode = 0;

        if (parse_mode(text, max, &mode) < 0)
                argp_error(state, "'%s' is no mode: write an octal number up to %o", text, (unsigned int)max);
        return mode;
}

uid_t ctl_arg_user(struct argp_state *state, const char *text) {
        uid_t uid = 0;

        if (parse_user(text, &uid) < 0)
                argp_error(state, "'%s' is no user", text);
        return uid;
}

const char *ctl_arg_name(struct argp_state *state, const char *text) {
        const char *sentence;

        if (shmd_path_check(text, &sentence) < 0) {
                CLEANUP(freep) char *escaped = output_escape(text, stderr);

                argp_error(state, "'%s' is no name: %s", escaped, sentence);
        }
        return text;
}

void ctl_operands(struct argp_state *state, Operands *ret, int min, int max, int first_name) {
        ret->names = state->argv + state->next;
        ret->n = state->argc - state->next;

        if (ret->n < min)
                argp_error(state, "an argument is missing");
        if (ret->n > max)
                argp_error(state, "'%s' is one argument too many", ret->names[max]);
        for (int i = first_name; i < ret->n; ++i)
                (void)ctl_arg_name(state, ret->names[i]);
}

error_t ctl_parse_name(int key, char *arg, struct argp_state *state) {
        const char **name = state->input;
        Operands operands;

        switch (key) {
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 1, 0);
                *name = operands.names[0];
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name is missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

/* -- the program ---------------------------------------------------------------------- */

typedef struct ProgramInput {
        Ctl *ctl;
        int command;            /* index of the command's name in argv; 0: there is none */
} ProgramInput;

static error_t parse_program(int key, char *arg, struct argp_state *state) {
        ProgramInput *input = state->input;

        switch (key) {
        case ARGP_KEY_INIT:
                /* ctl_help() has no input: it ends at the first option. */
                state->child_inputs[0] = input ? input->ctl : NULL;
                return 0;
        case ARGP_KEY_ARG:
                input->command = state->next - 1;
                state->next = state->argc;
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "which command?");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

static char *filter_help(int key, const char *text, void *input) {
        char *list = NULL;
        size_t n;
        FILE *stream;

        if (key != ARGP_KEY_HELP_EXTRA)
                return (char *)text;
        stream = open_memstream(&list, &n);
        if (!stream)
                output_oom();
        fputs("Commands (shmdctl COMMAND --help says more):\n", stream);
        for (const Command *command = ctl_commands; command->name; ++command)
                fprintf(stream, "  %-9s %s\n", command->name, command->summary);
        fputs("\nExit status: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 over quota, 124 deadline.", stream);
        if (fclose(stream) != 0)
                output_oom();
        return list;
}

static const struct argp program_argp = {
        .parser = parse_program,
        .args_doc = "COMMAND [ARGUMENT...]",
        .doc = "Looks at and changes what the shared-memory broker shmd(8) holds.",
        .children = (const struct argp_child[]){
                { .argp = &global_argp, .header = "Options of every command:" },
                { .argp = NULL },
        },
        .help_filter = filter_help,
};

/* As if --help had been given: argp adds its own options only when it parses. */
void ctl_help(const Command *command) {
        Ctl ctl = { .command = command };
        char name[64], option[] = "--help";
        char *argv[] = { name, option, NULL };

        (void)snprintf(name, sizeof(name), "shmdctl%s%s", command ? " " : "", command ? command->name : "");
        if (command)
                ctl_parse(&ctl, NULL, 2, argv);
        else
                (void)argp_parse(&program_argp, 2, argv, 0, NULL, NULL);
        exit(CTL_DONE);
}

int ctl_connect(Ctl *ctl) {
        struct shmd_connect_options options = SHMD_CONNECT_OPTIONS_INIT;
        uint64_t timeout_ns = ctl->timeout_ns;
        int r;

        if (ctl->client)
                return CTL_DONE;

        options.flags = ctl->connect_flags;
        r = shmd_connect_with(&ctl->client, ctl->socket, &options, timeout_ns);
        if (r < 0)
                return fail_connect(ctl, r);
        if (timeout_ns != SHMD_TIMEOUT_DEFAULT) {
                r = shmd_set_timeout(ctl->client, timeout_ns);
                if (r < 0)
                        return fail_call(ctl, "--timeout", r);
        }
        return CTL_DONE;
}

void ctl_say_link(const Ctl *ctl, const struct shmd_event *event) {
        if (ctl->quiet)
                return;
        if (event->event == SHMD_EVENT_DISCONNECTED)
                fputs("shmdctl: the broker is gone; waiting for it to come back\n", stderr);
        else if (event->event == SHMD_EVENT_RECONNECTED)
                fprintf(stderr, "shmdctl: the broker is back%s\n", event->resumed ? "" : ", and has ended the session");
}

typedef struct Holding {
        Ctl *ctl;
        bool new_session;
} Holding;

static void hear(shmd *client, const struct shmd_event *event, void *userdata) {
        Holding *holding = userdata;

        (void)client;
        ctl_say_link(holding->ctl, event);
        holding->new_session |= event->event == SHMD_EVENT_RECONNECTED && !event->resumed;
}

int ctl_hold(Ctl *ctl, const char *name, bool session) {
        Holding holding = { .ctl = ctl };
        int r;

        r = shmd_set_listener(ctl->client, hear, &holding);
        while (r >= 0 && !(session && holding.new_session))
                r = shmd_process(ctl->client, SHMD_TIMEOUT_NONE);
        (void)shmd_set_listener(ctl->client, NULL, NULL);
        return fail_call(ctl, name, r < 0 ? r : -ECONNRESET);
}

/* A descriptor 0, 1 or 2 that is closed would become the socket to the broker, and cat would
 * write into that. Opened the wrong way round, using it fails with EBADF as it should. */
static void open_standard_descriptors(void) {
        for (int fd = 0; fd <= 2; ++fd)
                if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
                        if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
                                _exit(CTL_FAILED);
}

static int run(Ctl *ctl, int argc, char **argv) {
        char name[64];

        ctl->command = ctl_find(argv[0]);
        if (!ctl->command) {
                CLEANUP(freep) char *escaped = output_escape(argv[0], stderr);

                fprintf(stderr, "shmdctl: '%s' is no command; shmdctl --help lists them\n", escaped);
                return CTL_USAGE;
        }
        (void)snprintf(name, sizeof(name), "shmdctl %s", ctl->command->name);
        argv[0] = name;
        return ctl->command->fn(ctl, argc, argv);
}

int main(int argc, char **argv) {
        Ctl ctl = { .timeout_ns = SHMD_TIMEOUT_DEFAULT };
        ProgramInput input = { .ctl = &ctl };
        int code;

        open_standard_descriptors();
        (void)setlocale(LC_CTYPE, "");
        argp_err_exit_status = CTL_USAGE;
        argp_program_version_hook = print_version;
        if (atexit(output_close) != 0)
                return CTL_FAILED;

        if (argp_parse(&program_argp, argc, argv, ARGP_IN_ORDER, NULL, &input) != 0)
                output_oom();
        code = run(&ctl, argc - input.command, argv + input.command);

        ctl.client = shmd_close(ctl.client);
        return code;
}
