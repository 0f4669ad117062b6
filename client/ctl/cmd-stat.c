/* stat and wait: all that the broker knows of one name.
 *
 * Who holds a region is told by the broker as numbers. The command a process runs is looked up
 * here, with the rights of whoever runs shmdctl, and only after the process has been recognised:
 * a pid alone may be somebody else's by now.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/node.h"

#define COMM_MAX 64

typedef struct StatArgs {
        const char *path;
        uint64_t region;        /* if path is NULL */
        bool holders;
        bool by_id;
} StatArgs;

static const struct argp_option stat_options[] = {
        { "id",      'i', "ID", 0, "The region with this number, instead of a name; its owner's and administrators'" },
        { "holders", 'H', NULL, 0, "Also show who holds it" },
        { NULL },
};

static error_t parse_stat(int key, char *arg, struct argp_state *state) {
        StatArgs *args = state->input;
        Operands operands;

        switch (key) {
        case 'i':
                args->region = ctl_arg_number(state, arg, UINT64_MAX);
                args->by_id = true;
                return 0;
        case 'H':
                args->holders = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 1, 0);
                args->path = operands.names[0];
                return 0;
        case ARGP_KEY_END:
                if (!args->path == !args->by_id)
                        argp_error(state, "give a name or --id, and not both");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_stat_argp = {
        .options = stat_options,
        .parser = parse_stat,
        .args_doc = "[NAME]",
        .doc = "Shows all about the region or directory NAME, or about the region with the number ID, "
               "which may have no name any more.\v"
               "A holder is marked if the kernel confirms that this very grant is alive; others may have ended, "
               "or never had a mark. COMMAND is what the process runs, if it can be told for sure.\n\n"
               "Examples:\n"
               "  shmdctl stat /camera/frame0 --holders\n"
               "  shmdctl stat --id 17 --json",
};

/* -- holders ------------------------------------------------------------------------------ */

static int read_comm(pid_t pid, char comm[static COMM_MAX]) {
        CLEANUP(close_fdp) int fd = -1;
        char path[64];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = read(fd, comm, COMM_MAX - 1);
        if (n <= 0)
                return n < 0 ? -errno : -ESRCH;

        comm[n] = 0;
        comm[strcspn(comm, "\n")] = 0;
        return 0;
}

/* The name of the command that a holder's process runs, or "-". A pidfd's inode number is that
 * process's alone since boot; after the name has been read it must still be the one with the pid,
 * which signal 0 says. */
static const char *holder_comm(const struct shmd_holder *holder, char comm[static COMM_MAX]) {
        CLEANUP(close_fdp) int fd = -1;
        struct stat st;

        if (!holder->pidfd_ino)
                return "-";
        fd = (int)syscall(SYS_pidfd_open, holder->pid, 0);
        if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != holder->pidfd_ino)
                return "-";
        if (read_comm(holder->pid, comm) < 0)
                return "-";
        return syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0 || errno == EPERM ? comm : "-";
}

static void print_holders(const struct shmd_stat_result *result) {
        Table table = { .align = "rlrlrlll" };
        char text[OUTPUT_NUMBER_MAX], name[OUTPUT_USER_MAX], comm[COMM_MAX];
        static const char *const titles[] = {
                "GRANT", "USER", "PID", "RIGHTS", "AGE", "MARKED", "CONNECTED", "COMMAND",
        };

        for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); ++i)
                table_add(&table, titles[i]);
        for (size_t i = 0; i < result->n_holders; ++i) {
                const struct shmd_holder *holder = &result->holders[i];

                table_add_number(&table, holder->grant);
                table_add(&table, output_user(name, holder->uid));
                table_add_number(&table, (uint64_t)holder->pid);
                table_add(&table, node_rights(holder->rights));
                table_add(&table, output_duration(text, holder->age_ns));
                table_add(&table, holder->marked ? "yes" : "no");
                table_add(&table, holder->connected ? "yes" : "no");
                table_add(&table, holder_comm(holder, comm));
        }
        table_print(&table);
        if (result->more_holders)
                printf("and %" PRIu64 " more\n", result->more_holders);
}

static json_t *holders_json(const struct shmd_stat_result *result) {
        json_t *array = json_array();

        for (size_t i = 0; i < result->n_holders; ++i) {
                const struct shmd_holder *holder = &result->holders[i];
                char name[OUTPUT_USER_MAX], comm[COMM_MAX];
                const char *command = holder_comm(holder, comm);
                json_t *o = json_object();

                output_set(o, "grant", output_number(holder->grant));
                output_set(o, "uid", json_integer(holder->uid));
                output_set(o, "user", output_string(output_user(name, holder->uid)));
                output_set(o, "pid", json_integer(holder->pid));
                output_set(o, "rights", output_string(node_rights(holder->rights)));
                output_set(o, "age_ns", output_number(holder->age_ns));
                output_set(o, "marked", json_boolean(holder->marked));
                output_set(o, "connected", json_boolean(holder->connected));
                output_set(o, "command", command == comm ? output_string(command) : json_null());
                output_append(array, o);
        }
        return array;
}

/* -- the node ------------------------------------------------------------------------------ */

static void row(Table *table, const char *key, const char *value) {
        table_add(table, key);
        table_add(table, value);
}

static void row_size(const Ctl *ctl, Table *table, const char *key, uint64_t bytes) {
        char text[OUTPUT_NUMBER_MAX];

        row(table, key, output_size(ctl, text, bytes));
}

static void row_number(Table *table, const char *key, uint64_t number) {
        table_add(table, key);
        table_add_number(table, number);
}

static const char *held_text(const struct shmd_stat_result *result) {
        if (!result->held_known)
                return "unknown";
        return result->held ? "yes" : "no";
}

static void add_region(const Ctl *ctl, Table *table, const struct shmd_stat_result *result) {
        const struct shmd_node *node = &result->node;
        char text[NODE_TEXT_MAX];

        row_number(table, "region", node->region);
        row_size(ctl, table, "size", node->size);
        row_size(ctl, table, "charge", node->charge);
        row_size(ctl, table, "page size", node->page_size);
        row(table, "lifetime", node_lifetime(node));
        row(table, "freezable", node->freezable ? "yes" : "no");
        row(table, "seals", node_seals(text, node->seals));
        row(table, "created", node_date(text, node));
        row_number(table, "names", node->names);
        row_number(table, "grants", node->grants);
        row(table, "held", held_text(result));
}

static void print_stat(const Ctl *ctl, const struct shmd_stat_result *result) {
        const struct shmd_node *node = &result->node;
        char text[NODE_TEXT_MAX], name[OUTPUT_USER_MAX];
        Table table = { .align = "rl" };

        row(&table, "name", *node->path ? node->path : "(none)");
        row(&table, "kind", node_kind(node));
        row(&table, "owner", output_user(name, node->uid));
        row(&table, "group", output_group(name, node->gid));
        row(&table, "mode", node_mode(text, node));
        if (node->kind == SHMD_NODE_REGION)
                add_region(ctl, &table, result);
        else
                row_number(&table, "entries", node->entries);
        table_print(&table);
}

static json_t *stat_json(const struct shmd_stat_result *result, bool holders) {
        json_t *o = node_json(&result->node);

        if (result->node.kind != SHMD_NODE_REGION)
                return o;
        output_set(o, "held", result->held_known ? json_boolean(result->held) : json_null());
        if (holders) {
                output_set(o, "holders", holders_json(result));
                output_set(o, "more_holders", output_number(result->more_holders));
        }
        return o;
}

int command_stat(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        StatArgs args = { 0 };
        char id[OUTPUT_NUMBER_MAX];
        int r;

        ctl_parse(ctl, &args, argc, argv);
        (void)snprintf(id, sizeof(id), "region %" PRIu64, args.region);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_stat(ctl->client, args.path, args.region, args.holders, &result, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, args.path ? args.path : id, r);

        if (ctl->json) {
                output_json(stat_json(result, args.holders), stdout);
                return CTL_DONE;
        }
        print_stat(ctl, result);
        if (args.holders && result->n_holders)
                print_holders(result);
        return CTL_DONE;
}

/* -- wait ------------------------------------------------------------------------------------ */

typedef struct WaitArgs {
        const char *path;
        bool unheld;
        bool frozen;
} WaitArgs;

static const struct argp_option wait_options[] = {
        { "unheld", 'u', NULL, 0, "Wait until nobody holds the region any more", 0 },
        { "frozen", 'f', NULL, 0, "Wait until the region is frozen", 0 },
        { 0 },
};

static error_t parse_wait(int key, char *arg, struct argp_state *state) {
        WaitArgs *args = state->input;
        Operands operands;

        switch (key) {
        case 'u':
                args->unheld = true;
                return 0;
        case 'f':
                args->frozen = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 1, 0);
                args->path = operands.names[0];
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name is missing");
                return 0;
        case ARGP_KEY_END:
                if (args->unheld && args->frozen)
                        argp_error(state, "--unheld and --frozen are two things to wait for");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_wait_argp = {
        .options = wait_options,
        .parser = parse_wait,
        .args_doc = "NAME",
        .doc = "Waits until the name NAME exists, and says what has it; or until nobody holds the region that has the "
               "name now, or it is frozen. Without --timeout it waits as long as the broker lets anybody wait; exit "
               "status 124 if it did not happen in time.\v"
               "Examples:\n"
               "  shmdctl wait /camera/frame0 && consumer /camera/frame0\n"
               "  shmdctl wait /map --timeout=10s --quiet\n"
               "  shmdctl wait --unheld /old && echo everybody let go",
};

static void report_wait(Ctl *ctl, const WaitArgs *args, const struct shmd_stat_result *result) {
        const struct shmd_node *node = &result->node;
        char size[OUTPUT_NUMBER_MAX];

        if (ctl->json) {
                output_json(stat_json(result, false), stdout);
                return;
        }
        if (ctl->quiet)
                return;
        output_text(node->path[0] ? node->path : args->path, stdout);
        if (node->kind == SHMD_NODE_DIRECTORY)
                printf(": directory\n");
        else
                printf(": region %" PRIu64 ", %s%s\n", node->region, output_size(ctl, size, node->size),
                       args->unheld ? ", held by nobody" : args->frozen ? ", frozen" : "");
}

static int wait_for(Ctl *ctl, const WaitArgs *args, struct shmd_stat_result **ret, uint64_t timeout_ns) {
        if (args->unheld)
                return shmd_wait_unheld(ctl->client, args->path, 0, ret, timeout_ns);
        if (args->frozen)
                return shmd_wait_frozen(ctl->client, args->path, 0, ret, timeout_ns);
        return shmd_wait(ctl->client, args->path, ret, timeout_ns);
}

int command_wait(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        WaitArgs args = { 0 };
        uint64_t timeout_ns;
        int r;

        ctl_parse(ctl, &args, argc, argv);
        timeout_ns = ctl->timeout_ns == SHMD_TIMEOUT_DEFAULT ? SHMD_TIMEOUT_NONE : ctl->timeout_ns;
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = wait_for(ctl, &args, &result, timeout_ns);
        if (r < 0)
                return fail_call(ctl, args.path, r);
        report_wait(ctl, &args, result);
        return CTL_DONE;
}
