/* reload: compile the policy files and hand the result to the broker.
 *
 * The files are read by `shmd --compile-policy`, with the rights of who calls, because the broker can
 * read none. What the compiler says, and the policy, go through files in memory: neither can fill a
 * pipe while nobody reads.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

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
        { "daemon",      OPTION_DAEMON,      "PROGRAM", 0, "What compiles the files (else $SHMD_DAEMON, or " SHMD_DAEMON ")" },
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

/* The policy, or what the compiler said: in memory, and where it would be in a file. */
typedef struct Text {
        int fd;
        void *bytes;            /* with a NUL behind them */
        size_t n;
} Text;

#define TEXT_NULL { .fd = -1 }

static void text_deinit(Text *text) {
        free(text->bytes);
        text->fd = close_fd(text->fd);
}

/* Reads all of a file, but not much more than a policy can have. Return: 0, negative errno. */
static int text_read(Text *text) {
        size_t room = SHMD_POLICY_MAX + 1;
        ssize_t n = 0;

        text->bytes = calloc(1, room + 1);
        if (!text->bytes)
                output_oom();
        while (text->n < room && (n = read(text->fd, (char *)text->bytes + text->n, room - text->n)) > 0)
                text->n += (size_t)n;
        return n < 0 ? -errno : 0;
}

static const char *compiler(const ReloadArgs *args) {
        const char *daemon = args->daemon ? args->daemon : secure_getenv("SHMD_DAEMON");

        return daemon && *daemon ? daemon : SHMD_DAEMON;
}

_Noreturn static void run(const ReloadArgs *args, int out, int complaints) {
        const char *program = compiler(args);

        if (dup2(out, STDOUT_FILENO) < 0 || dup2(complaints, STDERR_FILENO) < 0)
                _exit(127);
        if (args->policy_root)
                (void)execlp(program, program, "--compile-policy", "--policy-root", args->policy_root, NULL);
        else
                (void)execlp(program, program, "--compile-policy", NULL);
        fprintf(stderr, "%s: %s\n", program, strerror(errno));
        (void)fflush(stderr);
        _exit(127);
}

/* Return: 0 or a negative errno; *ret_ok: whether the compiler was content. */
static int wait_for(pid_t pid, bool *ret_ok) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        *ret_ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        return 0;
}

static int rewind_and_read(Text *text) {
        return lseek(text->fd, 0, SEEK_SET) < 0 ? -errno : text_read(text);
}

static int compile(Ctl *ctl, const ReloadArgs *args, Text *policy) {
        CLEANUP(text_deinit) Text complaints = TEXT_NULL;
        bool ok = false;
        pid_t pid;
        int r;

        policy->fd = memfd_create("policy", MFD_CLOEXEC);
        complaints.fd = memfd_create("complaints", MFD_CLOEXEC);
        (void)fflush(NULL);
        pid = policy->fd < 0 || complaints.fd < 0 ? -1 : fork();
        if (pid < 0)
                return fail_system(ctl, compiler(args), -errno, NULL);
        if (pid == 0)
                run(args, policy->fd, complaints.fd);

        r = wait_for(pid, &ok);
        if (r == 0)
                r = rewind_and_read(ok ? policy : &complaints);
        if (r < 0)
                return fail_system(ctl, compiler(args), r, NULL);
        if (ok)
                return CTL_DONE;
        while (complaints.n > 0 && ((char *)complaints.bytes)[complaints.n - 1] == '\n')
                ((char *)complaints.bytes)[--complaints.n] = '\0';
        return fail_system(ctl, "policy", -EINVAL, complaints.bytes);
}

static int read_compiled(Ctl *ctl, const char *path, Text *policy) {
        int r;

        policy->fd = open(path, O_RDONLY | O_CLOEXEC);
        r = policy->fd < 0 ? -errno : text_read(policy);
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
