/* top: a live table of accounts and regions. */

#include "buildinfo.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/terminal.h"
#include "client/ctl/top.h"
#include "client/ctl/usage.h"

#define DELAY_NS UINT64_C(2000000000)
#define DELAY_MIN_NS UINT64_C(100000000)
/* For one call of a look: keys must not wait longer while the broker is gone. */
#define PATIENCE_NS UINT64_C(500000000)

enum {
        OPTION_ONCE = 512,
};

typedef struct TopArgs {
        uint64_t delay_ns;
        uint64_t n;             /* tables to print; 0: until interrupted */
        bool once;
        TopKey key;
        bool reverse;
} TopArgs;

static const struct argp_option top_options[] = {
        { "delay",      'd',         "DURATION", 0, "The pause between two looks (2 s)" },
        { "iterations", 'n',         "N",        0, "So many tables and no more" },
        { "once",       OPTION_ONCE, NULL,       0, "One table as plain text, as when output is no terminal" },
        { "sort",       's',         "KEY",      0, "allocated (default), size, grants, rate, user, name" },
        { "reverse",    'r',         NULL,       0, "The other way round" },
        { NULL },
};

static error_t parse_top(int key, char *arg, struct argp_state *state) {
        TopArgs *args = state->input;
        Operands none;

        switch (key) {
        case 'd':
                args->delay_ns = ctl_arg_duration(state, arg);
                if (args->delay_ns < DELAY_MIN_NS)
                        argp_error(state, "--delay: not more often than every 100ms");
                return 0;
        case 'n':
                args->n = ctl_arg_number(state, arg, UINT64_MAX);
                if (args->n == 0)
                        argp_error(state, "--iterations: at least one");
                return 0;
        case OPTION_ONCE:
                args->once = true;
                return 0;
        case 's':
                if (top_key_find(arg) < 0)
                        argp_error(state, "--sort: there is no key '%s'", arg);
                args->key = (TopKey)top_key_find(arg);
                return 0;
        case 'r':
                args->reverse = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &none, 0, 0, 0);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_top_argp = {
        .options = top_options,
        .parser = parse_top,
        .doc = "Shows accounts and regions, live: what they have, and how many grants a second. Ordinary users see "
               "their own account, and the regions they may list or own. Where output is no terminal, it is one table "
               "of plain text, after one delay, because rates are of the time between two looks.\v"
               "Keys: q ends; s or an arrow to the right sorts by the next key, an arrow to the left by the one "
               "before; r turns the order round; space looks at once.\n\n"
               "Examples:\n"
               "  shmdctl top\n"
               "  shmdctl top --sort=rate --delay=1s\n"
               "  shmdctl top --once --json | jq '.regions[0]'",
};

/* -- looking ----------------------------------------------------------------------------------------- */

static uint64_t now_ns(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void add_account(void *look, const struct shmd_usage *usage) {
        top_add_account(look, usage);
}

static int look_at_accounts(Ctl *ctl, TopLook *look) {
        CLEANUP(shmd_df_freep) struct shmd_df_result *own = NULL, *total = NULL;
        bool admin;
        int r;

        r = shmd_df(ctl->client, SHMD_DF_TOTAL, (uid_t)-1, NULL, &total, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return r;
        if (total->n > 0)
                look->total.usage = total->usages[0];
        r = shmd_session(ctl->client, NULL, NULL, &admin);
        if (r < 0 || admin)
                return r < 0 ? r : usage_each_account(ctl, add_account, look);
        r = shmd_df(ctl->client, SHMD_DF_ACCOUNT, (uid_t)-1, NULL, &own, SHMD_TIMEOUT_DEFAULT);
        for (size_t i = 0; r >= 0 && i < own->n; ++i)
                top_add_account(look, &own->usages[i]);
        return r;
}

/* All pages of a list; one that may not be read is empty. */
static int look_at_list(Ctl *ctl, const char *path, uint32_t flags, TopLook *look) {
        CLEANUP(freep) char *cursor = NULL;

        do {
                CLEANUP(shmd_list_freep) struct shmd_list_result *page = NULL;
                int r;

                r = shmd_list(ctl->client, path, flags | SHMD_LIST_USAGE, cursor, 0, &page, SHMD_TIMEOUT_DEFAULT);
                if (r < 0)
                        return r == -EACCES ? 0 : r;
                for (size_t i = 0; i < page->n; ++i)
                        if (page->nodes[i].kind == SHMD_NODE_REGION)
                                top_add_region(look, &page->nodes[i]);
                free(cursor);
                cursor = page->cursor ? strdup(page->cursor) : NULL;
                if (page->cursor && !cursor)
                        output_oom();
        } while (cursor);
        return 0;
}

static int look_at_stats(Ctl *ctl, TopLook *look) {
        CLEANUP(shmd_stats_freep) struct shmd_stats_result *stats = NULL;
        CLEANUP(freep) char *broker = NULL;
        int r = shmd_stats(ctl->client, &stats, SHMD_TIMEOUT_DEFAULT);

        if (r < 0)
                return r;
        look->uptime_ns = stats->uptime_ns;
        look->n_regions_all = stats->regions;
        look->n_orphans_all = stats->orphans;
        look->n_peers = stats->peers;
        broker = output_escape(stats->broker, stdout);
        (void)snprintf(look->broker, sizeof(look->broker), "%s", broker);
        return 0;
}

/* A look, compared with the one before, which it replaces. Return: 0, or the errno of a call. */
static int look_again(Ctl *ctl, TopLook *look) {
        CLEANUP(top_look_deinit) TopLook next = { .at_ns = now_ns() };
        TopLook before = *look;
        int r;

        r = look_at_stats(ctl, &next);
        if (r == 0)
                r = look_at_accounts(ctl, &next);
        if (r == 0)
                r = look_at_list(ctl, "/", SHMD_LIST_RECURSIVE, &next);
        if (r == 0)
                r = look_at_list(ctl, NULL, SHMD_LIST_ORPHANS, &next);
        if (r < 0)
                return r;
        top_compare(&next, look);
        *look = next;
        next = before;          /* for the clean-up */
        return 0;
}

/* -- plain text ----------------------------------------------------------------------------------------- */

static void pause_for(uint64_t ns) {
        struct timespec t = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };

        while (nanosleep(&t, &t) < 0 && errno == EINTR)
                ;
}

static int print_tables(Ctl *ctl, const TopArgs *args, TopLook *look, const TopView *view) {
        uint64_t n = args->n ? args->n : 1;
        int r = look_again(ctl, look);

        for (uint64_t i = 0; i < n && r == 0; ++i) {
                pause_for(args->delay_ns);
                r = look_again(ctl, look);
                if (r < 0)
                        break;
                if (ctl->json) {
                        output_json(top_json(look, view), stdout);
                } else {
                        if (i > 0)
                                putchar('\n');
                        top_print(look, view, stdout);
                }
                (void)fflush(stdout);
        }
        return r < 0 ? fail_call(ctl, "top", r) : CTL_DONE;
}

/* -- on a screen --------------------------------------------------------------------------------------- */

static void redraw(TopLook *look, TopView *view) {
        TerminalSize size = terminal_size(STDOUT_FILENO);

        view->columns = size.columns;
        view->rows = size.rows;
        fputs("\x1b[H", stdout);
        top_print(look, view, stdout);
        fputs("\x1b[J", stdout);
        (void)fflush(stdout);
}

/* What a key does. Return: whether to go on. */
static bool take_key(ScreenKey key, TopView *view, uint64_t *due) {
        switch (key) {
        case 'q':
                return false;
        case 's':
        case SCREEN_RIGHT:
                view->key = (view->key + 1) % _TOP_KEY_N;
                return true;
        case SCREEN_LEFT:
                view->key = (view->key + _TOP_KEY_N - 1) % _TOP_KEY_N;
                return true;
        case 'r':
                view->reverse = !view->reverse;
                return true;
        case ' ':
                *due = 0;
                return true;
        default:
                return true;
        }
}

/* While the broker is gone, the latest look stays. */
static int look_or_stay(Ctl *ctl, TopLook *look, TopView *view) {
        bool patient = ctl->timeout_ns != SHMD_TIMEOUT_DEFAULT;
        int r = look_again(ctl, look);

        view->gone = r == -ETIMEDOUT && !patient && look->at_ns;
        if (view->gone)
                return 0;
        return r < 0 || patient ? r : shmd_set_timeout(ctl->client, PATIENCE_NS);
}

static int run_screen(Ctl *ctl, const TopArgs *args, TopLook *look, TopView *view) {
        uint64_t due = 0, looks = 0;
        bool go_on = true;
        int r = 0;

        while (go_on) {
                uint64_t now = now_ns();
                ScreenKey key;

                if (now >= due) {
                        if (args->n && looks++ == args->n)
                                break;
                        r = look_or_stay(ctl, look, view);
                        if (r < 0)
                                break;
                        due = now + args->delay_ns;
                }
                redraw(look, view);
                key = screen_wait(due > now ? due - now : 0);
                if (key == SCREEN_END)
                        break;
                go_on = take_key(key, view, &due);
        }
        return r;
}

int command_top(Ctl *ctl, int argc, char **argv) {
        CLEANUP(top_look_deinit) TopLook look = { .at_ns = 0 };
        TopArgs args = { .delay_ns = DELAY_NS };
        TopView view = { .ctl = ctl };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        view.key = args.key;
        view.reverse = args.reverse;
        r = ctl_connect(ctl);
        if (r)
                return r;
        if (args.once || ctl->json || !screen_begin())
                return print_tables(ctl, &args, &look, &view);

        view.screen = true;
        r = run_screen(ctl, &args, &look, &view);
        screen_end();
        return r < 0 ? fail_call(ctl, "top", r) : CTL_DONE;
}
