/* shmdctl: what its commands share.
 *
 * A command is a row of one table: its name, what runs it, one line about it, and its options.
 * main() finds the row; the command parses its own options with ctl_parse(), which mixes the
 * options that every command has into them, and returns one of the exit codes of fail.h. The
 * connection is made on first need by ctl_connect() and ended by main().
 *
 * The program lives for one command. Running out of memory ends it (output_oom()), and what it
 * holds from the broker ends with its connection and its descriptors, however it ends.
 */
#ifndef CLIENT_CTL_CTL_H
#define CLIENT_CTL_CTL_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "shmd.h"

typedef struct Command Command;
typedef struct Ctl Ctl;

struct Ctl {
        const Command *command;
        const char *socket;     /* NULL: where the library looks */
        uint64_t timeout_ns;    /* SHMD_TIMEOUT_DEFAULT unless --timeout was given */
        bool json;
        bool bytes;             /* sizes as plain numbers */
        bool quiet;
        uint32_t connect_flags; /* SHMD_CONNECT_*, for ctl_connect() */
        shmd *client;
};

struct Command {
        const char *name;
        int (*fn)(Ctl *ctl, int argc, char **argv);
        const char *summary;
        const struct argp *argp;
};

/* Ends with a row without a name. */
extern const Command ctl_commands[];

/* Parses the arguments of ctl->command into args, which its argp's parser knows as state->input.
 * Does not return if they are wrong or ask for help. */
void ctl_parse(Ctl *ctl, void *args, int argc, char **argv);

/* Prints a command's help, or with NULL the program's, to standard output, and ends the program. */
_Noreturn void ctl_help(const Command *command);

/* The row of that name, or NULL. */
const Command *ctl_find(const char *name);

/* Connects, unless it is done already. Return: CTL_DONE, or the exit code of a failure that has
 * been reported. */
int ctl_connect(Ctl *ctl);

/* Says on standard error what becomes of the broker, for commands that stay: other calls just wait. */
void ctl_say_link(const Ctl *ctl, const struct shmd_event *event);

/* Keeps the connection, and what came over it, until a signal ends the process. Return: the exit code of
 * a failure that has been reported: the connection is lost, or, if that is what name stands and falls with,
 * the session. */
int ctl_hold(Ctl *ctl, const char *name, bool session);

/* Writes all bytes of a region that is not empty to standard output; name is for what it says.
 * Return: CTL_DONE, or the exit code of a failure that has been reported. */
int cat_region(Ctl *ctl, const char *name, shmd_region *region);

/* For option parsers: the value, or a usage error that says what is wrong with the text. */
uint64_t ctl_arg_size(struct argp_state *state, const char *text);
uint64_t ctl_arg_duration(struct argp_state *state, const char *text);
/* A time to live: a duration, or "never", which is 0. */
uint64_t ctl_arg_ttl(struct argp_state *state, const char *text);
uint64_t ctl_arg_number(struct argp_state *state, const char *text, uint64_t max);
mode_t ctl_arg_mode(struct argp_state *state, const char *text, mode_t max);
uid_t ctl_arg_user(struct argp_state *state, const char *text);
const char *ctl_arg_name(struct argp_state *state, const char *text);

/* An argp parser's plain operands: the strings from the first operand on. */
typedef struct Operands {
        char **names;
        int n;
} Operands;

/* Takes the operands at ARGP_KEY_ARGS: at least min of them and at most max, or a usage error.
 * Those from `first_name` on are checked as names in the broker's tree. */
void ctl_operands(struct argp_state *state, Operands *ret, int min, int max, int first_name);

/* An argp parser of commands that take one name and no option; the input is a const char **. */
error_t ctl_parse_name(int key, char *arg, struct argp_state *state);

DEFINE_CLEANUP(shmd_region, shmd_region_free);
DEFINE_CLEANUP(struct shmd_stat_result, shmd_stat_free);
DEFINE_CLEANUP(struct shmd_list_result, shmd_list_free);
DEFINE_CLEANUP(struct shmd_df_result, shmd_df_free);
DEFINE_CLEANUP(struct shmd_stats_result, shmd_stats_free);
DEFINE_CLEANUP(struct shmd_doctor_result, shmd_doctor_free);

#define CLEANUP_REGION CLEANUP(shmd_region_freep)

#define COMMAND_PROTOTYPE(name)                                         \
        extern const struct argp command_##name##_argp;                 \
        int command_##name(Ctl *ctl, int argc, char **argv)

COMMAND_PROTOTYPE(create);
COMMAND_PROTOTYPE(put);
COMMAND_PROTOTYPE(publish);
COMMAND_PROTOTYPE(cat);
COMMAND_PROTOTYPE(ticket);
COMMAND_PROTOTYPE(redeem);
COMMAND_PROTOTYPE(tickets);
COMMAND_PROTOTYPE(revoke);
COMMAND_PROTOTYPE(bell);
COMMAND_PROTOTYPE(ls);
COMMAND_PROTOTYPE(stat);
COMMAND_PROTOTYPE(holders);
COMMAND_PROTOTYPE(map);
COMMAND_PROTOTYPE(rm);
COMMAND_PROTOTYPE(mv);
COMMAND_PROTOTYPE(ln);
COMMAND_PROTOTYPE(freeze);
COMMAND_PROTOTYPE(expire);
COMMAND_PROTOTYPE(mkdir);
COMMAND_PROTOTYPE(rmdir);
COMMAND_PROTOTYPE(chmod);
COMMAND_PROTOTYPE(chown);
COMMAND_PROTOTYPE(acl);
COMMAND_PROTOTYPE(why);
COMMAND_PROTOTYPE(wait);
COMMAND_PROTOTYPE(watch);
COMMAND_PROTOTYPE(df);
COMMAND_PROTOTYPE(reload);
COMMAND_PROTOTYPE(state);
COMMAND_PROTOTYPE(upgrade);
COMMAND_PROTOTYPE(ping);
COMMAND_PROTOTYPE(stats);
COMMAND_PROTOTYPE(metrics);
COMMAND_PROTOTYPE(top);
COMMAND_PROTOTYPE(doctor);
COMMAND_PROTOTYPE(version);
COMMAND_PROTOTYPE(help);

#endif
