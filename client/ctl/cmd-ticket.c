/* ticket, redeem, tickets and revoke: strings that are good for a region.
 *
 * A ticket is a secret. Whoever may list processes sees the arguments of each, so no command takes one
 * there: redeem and revoke read it from a file or from standard input. What they read is wiped.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

/* More than any ticket has, and the newline behind it. */
#define TICKET_TEXT_MAX 256

enum {
        OPTION_WRITE = 512,
        OPTION_USES,
        OPTION_TTL,
        OPTION_HOLD,
        OPTION_ALL,
};

DEFINE_CLEANUP(struct shmd_ticket_result, shmd_ticket_free);
DEFINE_CLEANUP(struct shmd_tickets_result, shmd_tickets_free);

/* -- which region ------------------------------------------------------------------------ */

/* A region by name or, if path is NULL, by number. */
typedef struct Which {
        const char *path;
        uint64_t region;
        bool by_id;
} Which;

static void which_operand(struct argp_state *state, Which *which) {
        Operands operands;

        ctl_operands(state, &operands, 1, 1, 0);
        which->path = operands.names[0];
}

static void which_check(struct argp_state *state, const Which *which) {
        if (!which->path == !which->by_id)
                argp_error(state, "give a name or --id, and not both");
}

static void which_id(struct argp_state *state, Which *which, const char *arg) {
        which->region = ctl_arg_number(state, arg, UINT64_MAX);
        which->by_id = true;
}

static const char *which_name(const Which *which, char text[static OUTPUT_NUMBER_MAX]) {
        if (which->path)
                return which->path;
        (void)snprintf(text, OUTPUT_NUMBER_MAX, "%" PRIu64, which->region);
        return text;
}

/* -- ticket ------------------------------------------------------------------------------ */

typedef struct TicketArgs {
        Which which;
        struct shmd_ticket_options options;
} TicketArgs;

static const struct argp_option ticket_options[] = {
        { "id",    'i',          "ID",       0, "The region with this number, instead of a name" },
        { "write", OPTION_WRITE, NULL,       0, "Good for read-write grants (the default is read-only)" },
        { "uses",  OPTION_USES,  "N",        0, "Good for so many grants, up to 65536 (default 1)" },
        { "ttl",   OPTION_TTL,   "DURATION", 0, "Good for so long: 30s, 10min (default 1h)" },
        { "user",  'u',          "USER",     0, "Only this user can redeem it" },
        { NULL },
};

static error_t parse_ticket(int key, char *arg, struct argp_state *state) {
        TicketArgs *args = state->input;

        switch (key) {
        case 'i':
                which_id(state, &args->which, arg);
                return 0;
        case OPTION_WRITE:
                args->options.rights = SHMD_RIGHTS_READ_WRITE;
                return 0;
        case OPTION_USES:
                args->options.uses = (uint32_t)ctl_arg_number(state, arg, 65536);
                return 0;
        case OPTION_TTL:
                args->options.ttl_ns = ctl_arg_duration(state, arg);
                if (!args->options.ttl_ns)
                        argp_error(state, "--ttl: a ticket is good for more than nothing");
                return 0;
        case 'u':
                args->options.uid = ctl_arg_user(state, arg);
                return 0;
        case ARGP_KEY_ARGS:
                which_operand(state, &args->which);
                return 0;
        case ARGP_KEY_END:
                which_check(state, &args->which);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_ticket_argp = {
        .options = ticket_options,
        .parser = parse_ticket,
        .args_doc = "[NAME]",
        .doc = "Issues a ticket for your region NAME and prints it: a string that whoever has it can redeem, "
               "whatever modes and ACLs say. It is not kept and cannot be shown again.\v"
               "Examples:\n"
               "  shmdctl ticket /report | ssh host.example shmdctl redeem > report\n"
               "  shmdctl ticket /ring --write --uses=4 --ttl=1min --user=camera > ticket\n"
               "  shmdctl ticket --id=17",
};

int command_ticket(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_ticket_freep) struct shmd_ticket_result *result = NULL;
        TicketArgs args = { .options = SHMD_TICKET_OPTIONS_INIT };
        char text[OUTPUT_NUMBER_MAX];
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_ticket(ctl->client, args.which.path, args.which.region, &args.options, &result,
                        SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, which_name(&args.which, text), r);

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "ticket", output_string(result->ticket));
                output_set(o, "id", output_number(result->id));
                output_set(o, "ttl_ns", output_number(result->ttl_ns));
                output_json(o, stdout);
        } else {
                output_text(result->ticket, stdout);
                putchar('\n');
        }
        return CTL_DONE;
}

/* -- reading one ------------------------------------------------------------------------- */

/* Reads a ticket from a file, or for NULL and "-" from standard input, without the space around it.
 * Return: CTL_DONE, or the exit code of a failure that has been reported. */
static int read_ticket(Ctl *ctl, const char *file, char text[static TICKET_TEXT_MAX]) {
        CLEANUP(close_fdp) int opened = -1;
        int fd = STDIN_FILENO;
        size_t n = 0, skip;
        ssize_t got;

        if (file && strcmp(file, "-") != 0) {
                fd = opened = open(file, O_RDONLY | O_CLOEXEC);
                if (fd < 0)
                        return fail_system(ctl, file, -errno, NULL);
        }
        do {
                got = read(fd, text + n, TICKET_TEXT_MAX - 1 - n);
                if (got > 0)
                        n += (size_t)got;
        } while (got > 0 || (got < 0 && errno == EINTR));
        if (got < 0)
                return fail_system(ctl, file ? file : "-", -errno, NULL);

        while (n > 0 && strchr(" \t\r\n", text[n - 1]))
                --n;
        text[n] = '\0';
        skip = strspn(text, " \t\r\n");
        memmove(text, text + skip, n + 1 - skip);
        return CTL_DONE;
}

/* -- redeem ------------------------------------------------------------------------------ */

typedef struct RedeemArgs {
        const char *file;
        bool hold;
} RedeemArgs;

static const struct argp_option redeem_options[] = {
        { "hold", OPTION_HOLD, NULL, 0, "Instead of printing the region, say what it is and hold it until killed" },
        { NULL },
};

static error_t parse_redeem(int key, char *arg, struct argp_state *state) {
        RedeemArgs *args = state->input;
        Operands operands;

        switch (key) {
        case OPTION_HOLD:
                args->hold = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 1, 1);
                args->file = operands.names[0];
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_redeem_argp = {
        .options = redeem_options,
        .parser = parse_redeem,
        .args_doc = "[FILE]",
        .doc = "Reads a ticket from FILE or standard input, redeems it, and writes all bytes of its region to "
               "standard output. Tickets are not taken as arguments, which other users can see.\v"
               "Examples:\n"
               "  shmdctl redeem ticket > report\n"
               "  shmdctl redeem --hold < ticket &",
};

static const char *rights_name(uint32_t rights) {
        return rights == SHMD_RIGHTS_READ_WRITE ? "read-write" : "read-only";
}

static void report_redeem(Ctl *ctl, const shmd_region *region) {
        const char *rights = rights_name(shmd_region_rights(region));
        char size[OUTPUT_NUMBER_MAX];

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "region", output_number(shmd_region_id(region)));
                output_set(o, "size", output_number(shmd_region_size(region)));
                output_set(o, "rights", output_string(rights));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("redeemed: region %" PRIu64 ", %s, %s\n", shmd_region_id(region),
                       output_size(ctl, size, shmd_region_size(region)), rights);
        }
        /* Whoever started it in the background reads this while we wait. */
        (void)fflush(stdout);
}

int command_redeem(Ctl *ctl, int argc, char **argv) {
        CLEANUP_REGION shmd_region *region = NULL;
        char ticket[TICKET_TEXT_MAX];
        RedeemArgs args = { 0 };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        r = read_ticket(ctl, args.file, ticket);
        if (!r)
                r = ctl_connect(ctl);
        if (!r) {
                r = shmd_redeem(ctl->client, ticket, &region, SHMD_TIMEOUT_DEFAULT);
                r = r < 0 ? fail_call(ctl, "ticket", r) : CTL_DONE;
        }
        explicit_bzero(ticket, sizeof(ticket));
        if (r)
                return r;
        if (args.hold) {
                report_redeem(ctl, region);
                return ctl_hold(ctl, "ticket", false);
        }
        return shmd_region_size(region) ? cat_region(ctl, "ticket", region) : CTL_DONE;
}

/* -- tickets ----------------------------------------------------------------------------- */

static const struct argp_option tickets_options[] = {
        { "id", 'i', "ID", 0, "The region with this number, instead of a name" },
        { NULL },
};

static error_t parse_tickets(int key, char *arg, struct argp_state *state) {
        Which *which = state->input;

        switch (key) {
        case 'i':
                which_id(state, which, arg);
                return 0;
        case ARGP_KEY_ARGS:
                which_operand(state, which);
                return 0;
        case ARGP_KEY_END:
                which_check(state, which);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_tickets_argp = {
        .options = tickets_options,
        .parser = parse_tickets,
        .args_doc = "[NAME]",
        .doc = "Lists the tickets of your region NAME that are good for something: their numbers, rights, how many "
               "grants and how much time is left, and whose they are. The tickets themselves nobody knows.\v"
               "Examples:\n"
               "  shmdctl tickets /report\n"
               "  shmdctl tickets --id=17 --json",
};

static void add_row(const struct shmd_ticket_info *info, Table *table) {
        char text[OUTPUT_NUMBER_MAX], user[OUTPUT_USER_MAX];

        table_add_number(table, info->id);
        table_add(table, rights_name(info->rights));
        table_add_number(table, info->left);
        table_add(table, output_duration(text, info->ttl_ns));
        table_add(table, info->uid == (uid_t)-1 ? "anybody" : output_user(user, info->uid));
}

static void add_json(const struct shmd_ticket_info *info, json_t *array) {
        json_t *o = json_object();

        output_set(o, "id", output_number(info->id));
        output_set(o, "rights", output_string(rights_name(info->rights)));
        output_set(o, "uses_left", output_number(info->left));
        output_set(o, "ttl_ns", output_number(info->ttl_ns));
        output_set(o, "uid", info->uid == (uid_t)-1 ? json_null() : output_number(info->uid));
        output_append(array, o);
}

/* Return: 0, or the negative errno of a page. */
static int list_tickets(Ctl *ctl, const Which *which, Table *table, json_t *array) {
        uint64_t cursor = 0;

        do {
                CLEANUP(shmd_tickets_freep) struct shmd_tickets_result *page = NULL;
                int r;

                r = shmd_tickets(ctl->client, which->path, which->region, cursor, &page, SHMD_TIMEOUT_DEFAULT);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < page->n; ++i) {
                        if (array)
                                add_json(&page->tickets[i], array);
                        else
                                add_row(&page->tickets[i], table);
                }
                cursor = page->cursor;
        } while (cursor);
        return 0;
}

int command_tickets(Ctl *ctl, int argc, char **argv) {
        CLEANUP(output_unrefp) json_t *array = NULL;
        CLEANUP(table_deinit) Table table = { .align = "rlrll" };
        static const char *const titles[] = { "TICKET", "RIGHTS", "LEFT", "TTL", "USER" };
        char text[OUTPUT_NUMBER_MAX];
        Which which = { 0 };
        int r;

        ctl_parse(ctl, &which, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        if (ctl->json)
                array = json_array();
        for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); ++i)
                table_add(&table, titles[i]);
        r = list_tickets(ctl, &which, &table, array);
        if (r < 0)
                return fail_call(ctl, which_name(&which, text), r);
        if (array) {
                output_json(array, stdout);
                array = NULL;
        } else if (table.n > sizeof(titles) / sizeof(*titles)) {
                table_print(&table);
        }
        return CTL_DONE;
}

/* -- revoke ------------------------------------------------------------------------------ */

typedef struct RevokeArgs {
        Which all;              /* with --all */
        bool whole;
        Operands operands;      /* numbers, or "-" */
} RevokeArgs;

static const struct argp_option revoke_options[] = {
        { "all", OPTION_ALL, NULL, 0, "All tickets of the region NAME" },
        { "id",  'i',        "ID", 0, "With --all: of the region with this number" },
        { NULL },
};

static void check_revoke(struct argp_state *state, RevokeArgs *args) {
        if (args->whole) {
                if (args->operands.n > 1)
                        argp_error(state, "--all takes one region");
                if (args->operands.n == 1)
                        args->all.path = ctl_arg_name(state, args->operands.names[0]);
                which_check(state, &args->all);
                return;
        }
        if (args->all.by_id)
                argp_error(state, "--id goes with --all");
        if (args->operands.n == 0)
                argp_error(state, "the numbers of tickets are missing");
        for (int i = 0; i < args->operands.n; ++i)
                if (strcmp(args->operands.names[i], "-") != 0)
                        (void)ctl_arg_number(state, args->operands.names[i], UINT64_MAX);
}

static error_t parse_revoke(int key, char *arg, struct argp_state *state) {
        RevokeArgs *args = state->input;

        switch (key) {
        case OPTION_ALL:
                args->whole = true;
                return 0;
        case 'i':
                which_id(state, &args->all, arg);
                return 0;
        case ARGP_KEY_ARGS:
                args->operands = (Operands){ .names = state->argv + state->next, .n = state->argc - state->next };
                return 0;
        case ARGP_KEY_END:
                check_revoke(state, args);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_revoke_argp = {
        .options = revoke_options,
        .parser = parse_revoke,
        .args_doc = "TICKET...\n--all [NAME]",
        .doc = "Ends tickets of your regions by the numbers that tickets lists, or, for -, the ticket that is read "
               "from standard input. What was granted for them stays granted.\v"
               "Examples:\n"
               "  shmdctl revoke 3 4\n"
               "  shmdctl revoke - < ticket\n"
               "  shmdctl revoke --all /report",
};

static int revoke_one(Ctl *ctl, const char *operand, uint32_t *ret_n) {
        char ticket[TICKET_TEXT_MAX];
        int r;

        if (strcmp(operand, "-") != 0) {
                r = shmd_revoke(ctl->client, SHMD_REVOKE_NUMBER, NULL, strtoull(operand, NULL, 10), ret_n,
                                SHMD_TIMEOUT_DEFAULT);
                return r < 0 ? fail_call(ctl, operand, r) : CTL_DONE;
        }
        r = read_ticket(ctl, NULL, ticket);
        if (!r) {
                r = shmd_revoke(ctl->client, SHMD_REVOKE_TICKET, ticket, 0, ret_n, SHMD_TIMEOUT_DEFAULT);
                r = r < 0 ? fail_call(ctl, "ticket", r) : CTL_DONE;
        }
        explicit_bzero(ticket, sizeof(ticket));
        return r;
}

static void report_revoke(Ctl *ctl, uint32_t n) {
        json_t *o;

        if (ctl->json) {
                o = json_object();
                output_set(o, "revoked", output_number(n));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("revoked %u ticket%s\n", n, n == 1 ? "" : "s");
        }
}

/* Goes on with the next ticket after a failure; the exit code is that of the first. */
int command_revoke(Ctl *ctl, int argc, char **argv) {
        char text[OUTPUT_NUMBER_MAX];
        RevokeArgs args = { 0 };
        uint32_t total = 0;
        int code, r;

        ctl_parse(ctl, &args, argc, argv);
        code = ctl_connect(ctl);
        if (code)
                return code;
        if (args.whole) {
                r = shmd_revoke(ctl->client, SHMD_REVOKE_ALL, args.all.path, args.all.region, &total,
                                SHMD_TIMEOUT_DEFAULT);
                if (r < 0)
                        return fail_call(ctl, which_name(&args.all, text), r);
        }
        for (int i = 0; !args.whole && i < args.operands.n; ++i) {
                uint32_t n = 0;

                r = revoke_one(ctl, args.operands.names[i], &n);
                code = code ? code : r;
                total += n;
        }
        if (!code || total)
                report_revoke(ctl, total);
        return code;
}
