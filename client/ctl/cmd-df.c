/* df: limits and use, of an account, a directory, or all together. */

#include "buildinfo.h"

#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/usage.h"

enum {
        OPTION_ACCOUNTS = 512,
        OPTION_TOTAL,
        OPTION_RULES,
};

typedef struct DfArgs {
        uint32_t scope;
        bool scoped;            /* an option said which */
        bool rules;
        uid_t uid;
        const char *path;
} DfArgs;

static const struct argp_option df_options[] = {
        { "directory", 'd',             "NAME", 0, "The limits of a directory" },
        { "user",      'u',             "USER", 0, "The account of another user; administrators" },
        { "accounts",  OPTION_ACCOUNTS, NULL,   0, "Every account; administrators" },
        { "total",     OPTION_TOTAL,    NULL,   0, "All accounts together" },
        { "rules",     OPTION_RULES,    NULL,   0, "Also show which rule gives a user each limit" },
        { NULL },
};

static void set_scope(struct argp_state *state, DfArgs *args, uint32_t scope) {
        if (args->scoped)
                argp_error(state, "--directory, --user, --accounts and --total exclude each other");
        args->scope = scope;
        args->scoped = true;
}

static error_t parse_df(int key, char *arg, struct argp_state *state) {
        DfArgs *args = state->input;
        Operands none;

        switch (key) {
        case 'd':
                set_scope(state, args, SHMD_DF_DIRECTORY);
                args->path = ctl_arg_name(state, arg);
                return 0;
        case 'u':
                set_scope(state, args, SHMD_DF_ACCOUNT);
                args->uid = ctl_arg_user(state, arg);
                return 0;
        case OPTION_ACCOUNTS:
                set_scope(state, args, SHMD_DF_ACCOUNTS);
                return 0;
        case OPTION_TOTAL:
                set_scope(state, args, SHMD_DF_TOTAL);
                return 0;
        case OPTION_RULES:
                args->rules = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &none, 0, 0, 0);
                return 0;
        case ARGP_KEY_END:
                if (args->rules && (args->scope == SHMD_DF_DIRECTORY || args->scope == SHMD_DF_TOTAL))
                        argp_error(state, "--rules is about the accounts of users");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_df_argp = {
        .options = df_options,
        .parser = parse_df,
        .doc = "Shows, slot by slot, how much may be used, is used and is left: of your account unless an option "
               "says otherwise.\v"
               "Slots: bytes, regions (and directories), grants, peers (connections), watches (and waits), "
               "pending (requests not answered yet), inflight (descriptors on their way).\n\n"
               "Examples:\n"
               "  shmdctl df\n"
               "  shmdctl df --accounts --json\n"
               "  shmdctl df --user=alice --rules\n"
               "  shmdctl df --directory=/camera --bytes",
};

typedef struct Df {
        const Ctl *ctl;
        uint32_t scope;
        bool rules;
        Table table;
        json_t *json;           /* with --json: an array, instead of the table */
} Df;

static void df_deinit(Df *df) {
        table_deinit(&df->table);
        output_unrefp(&df->json);
}

static bool is_account(const Df *df) {
        return df->scope == SHMD_DF_ACCOUNT || df->scope == SHMD_DF_ACCOUNTS;
}

static void add_amount(Df *df, uint32_t slot, uint64_t amount) {
        char text[OUTPUT_NUMBER_MAX];

        if (amount == UINT64_MAX)
                table_add(&df->table, "-");
        else if (slot == SHMD_SLOT_BYTES)
                table_add(&df->table, output_size(df->ctl, text, amount));
        else
                table_add_number(&df->table, amount);
}

/* Used share in whole percent, rounded up as df(1) does: nothing but a full slot reads 100%, and
 * nothing but an empty one 0%, save that the last percent is wide. */
static void add_percent(Df *df, uint64_t limit, uint64_t used) {
        char text[OUTPUT_NUMBER_MAX];
        double share;

        if (limit == UINT64_MAX || limit == 0) {
                table_add(&df->table, "-");
                return;
        }
        share = 100.0 * (double)used / (double)limit;
        if (used > 0 && share < 1)
                share = 1;
        if (used < limit && share > 99)
                share = 99;
        (void)snprintf(text, sizeof(text), "%.0f%%", share);
        table_add(&df->table, text);
}

#define RULE_MAX (OUTPUT_USER_MAX + 32)

/* A rule, as the section of its file. */
static const char *rule_text(char text[static RULE_MAX], const struct shmd_usage *usage, uint32_t slot) {
        char name[OUTPUT_USER_MAX];

        switch (usage->rule[slot]) {
        case SHMD_RULE_ACCOUNT:
                return "shmd.conf [account]";
        case SHMD_RULE_ACCOUNT_USER:
                (void)snprintf(text, RULE_MAX, "shmd.conf [account %s]", output_user(name, usage->uid));
                return text;
        case SHMD_RULE_POLICY_ACCOUNT:
                return "policy [account]";
        case SHMD_RULE_POLICY_GROUP:
                (void)snprintf(text, RULE_MAX, "policy [group %s]", output_group(name, usage->group));
                return text;
        case SHMD_RULE_POLICY_USER:
                (void)snprintf(text, RULE_MAX, "policy [user %s]", output_user(name, usage->uid));
                return text;
        default:
                return "-";
        }
}

static void add_slot(Df *df, const struct shmd_usage *usage, uint32_t slot) {
        uint64_t limit = usage->limit[slot], used = usage->used[slot];
        char name[OUTPUT_USER_MAX], rule[RULE_MAX];

        if (is_account(df))
                table_add(&df->table, output_user(name, usage->uid));
        table_add(&df->table, shmd_slot_name(slot));
        add_amount(df, slot, limit);
        add_amount(df, slot, used);
        add_amount(df, slot, limit == UINT64_MAX ? UINT64_MAX : usage_left(limit, used));
        add_percent(df, limit, used);
        if (df->rules)
                table_add(&df->table, rule_text(rule, usage, slot));
}

static json_t *usage_json(const Df *df, const struct shmd_usage *usage) {
        char name[OUTPUT_USER_MAX], rule[RULE_MAX];
        json_t *o = json_object(), *slots = json_object();

        if (is_account(df)) {
                output_set(o, "uid", json_integer(usage->uid));
                output_set(o, "user", output_string(output_user(name, usage->uid)));
        }
        for (uint32_t slot = 1; slot <= SHMD_SLOT_MAX; ++slot) {
                uint64_t limit = usage->limit[slot], used = usage->used[slot];
                json_t *s;

                if (!limit && !used)
                        continue;
                s = json_object();
                output_set(s, "limit", output_limit(limit));
                output_set(s, "used", output_number(used));
                output_set(s, "left", limit == UINT64_MAX ? json_null() : output_number(usage_left(limit, used)));
                if (df->rules)
                        output_set(s, "rule", output_string(rule_text(rule, usage, slot)));
                output_set(slots, shmd_slot_name(slot), s);
        }
        output_set(o, "slots", slots);
        return o;
}

/* Slots that are 0 of 0 are none of this thing's. */
static void add_usage(void *data, const struct shmd_usage *usage) {
        Df *df = data;

        if (df->json) {
                output_append(df->json, usage_json(df, usage));
                return;
        }
        for (uint32_t slot = 1; slot <= SHMD_SLOT_MAX; ++slot)
                if (usage->limit[slot] || usage->used[slot])
                        add_slot(df, usage, slot);
}

static void add_titles(Df *df) {
        static const char *const titles[] = { "SLOT", "LIMIT", "USED", "LEFT", "USE%" };

        if (is_account(df))
                table_add(&df->table, "USER");
        for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); ++i)
                table_add(&df->table, titles[i]);
        if (df->rules)
                table_add(&df->table, "RULE");
}

static int collect(Ctl *ctl, const DfArgs *args, Df *df) {
        CLEANUP(shmd_df_freep) struct shmd_df_result *result = NULL;
        int r;

        if (args->scope == SHMD_DF_ACCOUNTS)
                return usage_each_account(ctl, add_usage, df);

        r = shmd_df(ctl->client, args->scope, args->uid, args->path, &result, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return r;
        for (size_t i = 0; i < result->n; ++i)
                add_usage(df, &result->usages[i]);
        return 0;
}

int command_df(Ctl *ctl, int argc, char **argv) {
        DfArgs args = { .scope = SHMD_DF_ACCOUNT, .uid = (uid_t)-1 };
        CLEANUP(df_deinit) Df df = { .ctl = ctl };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        df.scope = args.scope;
        df.rules = args.rules;
        df.table.align = is_account(&df) ? (df.rules ? "llrrrrl" : "llrrrr") : "lrrrr";
        df.json = ctl->json ? json_array() : NULL;
        r = ctl_connect(ctl);
        if (r)
                return r;

        if (!ctl->json)
                add_titles(&df);
        r = collect(ctl, &args, &df);
        if (r < 0)
                return fail_call(ctl, args.path ? args.path : "df", r);

        if (!ctl->json)
                table_print(&df.table);
        else if (args.scope == SHMD_DF_ACCOUNTS)
                output_json(json_incref(df.json), stdout);
        else
                output_json(json_incref(json_array_get(df.json, 0)), stdout);
        return CTL_DONE;
}
