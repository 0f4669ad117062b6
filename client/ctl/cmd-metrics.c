/* metrics: the broker's figures as OpenMetrics text, for a collector to scrape.
 *
 * The families are built as a JSON value first, {name, type, unit, help, samples: [{suffix,
 * labels, value}]}, which --json prints as it is and which one printer turns into text: what is
 * a family and what is syntax do not mix. All samples of a family stand together, a family occurs
 * once, counters end in _total, histograms are cumulative and end with +Inf, and the text ends
 * with # EOF, as the OpenMetrics specification 1.0 demands.
 */

#include "buildinfo.h"

#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/usage.h"

static error_t parse_metrics(int key, char *arg, struct argp_state *state) {
        Operands none;

        if (key != ARGP_KEY_ARGS)
                return ARGP_ERR_UNKNOWN;
        ctl_operands(state, &none, 0, 0, 0);
        return 0;
}

const struct argp command_metrics_argp = {
        .parser = parse_metrics,
        .doc = "Prints the broker's figures as OpenMetrics text: what it holds, refusals by reason, requests by kind "
               "with their latency, limits and use of all together and of each account (of your own only, unless "
               "you administer the broker).\v"
               "Examples:\n"
               "  shmdctl metrics > /var/lib/node_exporter/shmd.prom\n"
               "  shmdctl metrics --json",
};

/* -- building -------------------------------------------------------------------------------- */

/* Appends a family; returns its samples, which belong to it. */
static json_t *family(json_t *families, const char *name, const char *type, const char *unit, const char *help) {
        json_t *o = json_object(), *samples = json_array();

        output_set(o, "name", output_string(name));
        output_set(o, "type", output_string(type));
        output_set(o, "unit", output_string(unit));
        output_set(o, "help", output_string(help));
        output_set(o, "samples", samples);
        output_append(families, o);
        return samples;
}

/* Appends a sample; consumes labels (NULL: none) and value. */
static void sample(json_t *samples, const char *suffix, json_t *labels, json_t *value) {
        json_t *o = json_object();

        output_set(o, "suffix", output_string(suffix));
        output_set(o, "labels", labels ? labels : json_object());
        output_set(o, "value", value);
        output_append(samples, o);
}

static json_t *label(const char *key, const char *value) {
        json_t *labels = json_object();

        output_set(labels, key, output_string(value));
        return labels;
}

static json_t *label_uid(uid_t uid) {
        char text[OUTPUT_NUMBER_MAX];

        (void)snprintf(text, sizeof(text), "%u", (unsigned int)uid);
        return label("uid", text);
}

static void gauge(json_t *families, const char *name, const char *unit, const char *help, uint64_t value) {
        sample(family(families, name, "gauge", unit, help), "", NULL, output_number(value));
}

static void counter(json_t *families, const char *name, const char *help, uint64_t value) {
        sample(family(families, name, "counter", "", help), "_total", NULL, output_number(value));
}

static double seconds(uint64_t ns) {
        return (double)ns / 1e9;
}

static void add_figures(json_t *families, const struct shmd_stats_result *stats) {
        json_t *regions;

        sample(family(families, "shmd_build", "info", "", "The broker's version."),
               "_info", label("version", stats->broker), json_integer(1));
        sample(family(families, "shmd_uptime_seconds", "gauge", "seconds", "Time since the broker started."),
               "", NULL, json_real(seconds(stats->uptime_ns)));

        regions = family(families, "shmd_regions", "gauge", "", "Regions that exist, with and without a name.");
        sample(regions, "", label("state", "named"), output_number(stats->named));
        sample(regions, "", label("state", "unnamed"), output_number(stats->orphans));

        gauge(families, "shmd_charged_bytes", "bytes", "Bytes charged to all accounts together.", stats->bytes);
        gauge(families, "shmd_directories", "", "Directories that exist.", stats->directories);
        gauge(families, "shmd_grants", "", "Grants of regions on the books.", stats->grants);
        gauge(families, "shmd_peers", "", "Connections.", stats->peers);
        gauge(families, "shmd_waiters", "", "Waits for a name.", stats->waiters);
        counter(families, "shmd_released_regions", "Regions whose memory has come back.", stats->released);
        counter(families, "shmd_violations", "Connections closed for breaking the protocol.", stats->violations);
        counter(families, "shmd_accept_pauses", "Times the broker stopped accepting connections for want of "
                "descriptors.", stats->accepts_paused);
        counter(families, "shmd_restarts", "Brokers that ended by themselves since the keeper's start or upgrade.",
                stats->restarts);
        counter(families, "shmd_lost_log_lines", "Log lines that could not be written.", stats->log_dropped);
}

static void add_refusals(json_t *families, const struct shmd_stats_result *stats) {
        json_t *samples;

        samples = family(families, "shmd_refusals", "counter", "", "Refused requests by the rule that decided.");
        for (size_t i = 0; i < stats->n_refusals; ++i)
                sample(samples, "_total", label("reason", stats->refusals[i].name),
                       output_number(stats->refusals[i].count));

        samples = family(families, "shmd_refused_requests", "counter", "", "Refused requests by their kind.");
        for (size_t i = 0; i < stats->n_requests; ++i)
                sample(samples, "_total", label("request", stats->requests[i].name),
                       output_number(stats->requests[i].refused));
}

/* The broker counts each request in one bucket; here a bucket has all that took at most its
 * edge. (The broker's edges are exclusive: a request of exactly 2^n ns, to the nanosecond, is
 * found one bucket late.) The count is the buckets' sum, so that both always agree. */
static void add_histogram(json_t *samples, const struct shmd_request_stat *request) {
        uint64_t n = 0;

        for (int i = 0; i < SHMD_BUCKETS; ++i) {
                json_t *labels = label("request", request->name);
                char edge[OUTPUT_NUMBER_MAX] = "+Inf";

                if (i < SHMD_BUCKETS - 1)
                        (void)snprintf(edge, sizeof(edge), "%.10g", seconds(UINT64_C(1) << (10 + i)));
                output_set(labels, "le", output_string(edge));
                n += request->bucket[i];
                sample(samples, "_bucket", labels, output_number(n));
        }
        sample(samples, "_count", label("request", request->name), output_number(n));
        sample(samples, "_sum", label("request", request->name), json_real(seconds(request->total_ns)));
}

static void add_requests(json_t *families, const struct shmd_stats_result *stats) {
        json_t *samples = family(families, "shmd_request_duration_seconds", "histogram", "seconds",
                                 "Time the broker took to answer a request, by kind.");

        for (size_t i = 0; i < stats->n_requests; ++i)
                add_histogram(samples, &stats->requests[i]);
}

/* -- accounts: a pair of families for each slot ------------------------------------------------ */

typedef struct Slots {
        json_t *limit[SHMD_SLOT_MAX + 1];       /* samples; owned by the families */
        json_t *used[SHMD_SLOT_MAX + 1];
        bool labelled;
} Slots;

static void add_slot_families(json_t *families, Slots *slots, const char *prefix, const char *whose) {
        for (uint32_t slot = 1; slot <= SHMD_SLOT_MAX; ++slot) {
                const char *unit = slot == SHMD_SLOT_BYTES ? "bytes" : "";
                char name[128], help[128];

                (void)snprintf(name, sizeof(name), "%s_limit_%s", prefix, shmd_slot_name(slot));
                (void)snprintf(help, sizeof(help), "Limit of %s in the slot %s.", whose, shmd_slot_name(slot));
                slots->limit[slot] = family(families, name, "gauge", unit, help);

                (void)snprintf(name, sizeof(name), "%s_used_%s", prefix, shmd_slot_name(slot));
                (void)snprintf(help, sizeof(help), "Use by %s in the slot %s.", whose, shmd_slot_name(slot));
                slots->used[slot] = family(families, name, "gauge", unit, help);
        }
}

/* JSON knows no infinity; null stands for it until it is printed. */
static void add_slots(void *data, const struct shmd_usage *usage) {
        Slots *slots = data;

        for (uint32_t slot = 1; slot <= SHMD_SLOT_MAX; ++slot) {
                sample(slots->limit[slot], "", slots->labelled ? label_uid(usage->uid) : NULL,
                       output_limit(usage->limit[slot]));
                sample(slots->used[slot], "", slots->labelled ? label_uid(usage->uid) : NULL,
                       output_number(usage->used[slot]));
        }
}

static int add_usages(Ctl *ctl, Slots *slots, uint32_t scope) {
        CLEANUP(shmd_df_freep) struct shmd_df_result *df = NULL;
        int r;

        r = shmd_df(ctl->client, scope, (uid_t)-1, NULL, &df, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return r;
        for (size_t i = 0; i < df->n; ++i)
                add_slots(slots, &df->usages[i]);
        return 0;
}

static int add_accounts(Ctl *ctl, json_t *families) {
        Slots total = { 0 }, account = { .labelled = true };
        bool admin = false;
        int r;

        add_slot_families(families, &total, "shmd_total", "all accounts together");
        r = add_usages(ctl, &total, SHMD_DF_TOTAL);
        if (r < 0)
                return r;

        add_slot_families(families, &account, "shmd_account", "an account");
        r = shmd_session(ctl->client, NULL, NULL, &admin);
        if (r < 0)
                return r;
        if (admin)
                return usage_each_account(ctl, add_slots, &account);
        return add_usages(ctl, &account, SHMD_DF_ACCOUNT);
}

/* -- printing ---------------------------------------------------------------------------------- */

/* Help and label values are written alike. */
static void print_escaped(const char *text) {
        for (; *text; ++text)
                if (*text == '\n')
                        printf("\\n");
                else if (*text == '\\' || *text == '"')
                        printf("\\%c", *text);
                else
                        putchar(*text);
}

static void print_labels(const json_t *labels) {
        char separator = '{';
        const char *key;
        json_t *value;

        json_object_foreach((json_t *)labels, key, value) {
                printf("%c%s=\"", separator, key);
                print_escaped(json_string_value(value));
                putchar('"');
                separator = ',';
        }
        if (separator == ',')
                putchar('}');
}

static void print_value(const json_t *value) {
        if (json_is_integer(value))
                printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
        else if (json_is_real(value))
                printf("%.15g", json_real_value(value));
        else
                printf("+Inf");
}

static const char *text_of(const json_t *o, const char *key) {
        return json_string_value(json_object_get(o, key));
}

static void print_family(const json_t *o) {
        const char *name = text_of(o, "name"), *unit = text_of(o, "unit");
        json_t *s;
        size_t i;

        printf("# TYPE %s %s\n", name, text_of(o, "type"));
        if (*unit)
                printf("# UNIT %s %s\n", name, unit);
        printf("# HELP %s ", name);
        print_escaped(text_of(o, "help"));
        putchar('\n');
        json_array_foreach(json_object_get(o, "samples"), i, s) {
                printf("%s%s", name, text_of(s, "suffix"));
                print_labels(json_object_get(s, "labels"));
                putchar(' ');
                print_value(json_object_get(s, "value"));
                putchar('\n');
        }
}

static void print_families(const json_t *families) {
        json_t *o;
        size_t i;

        json_array_foreach(families, i, o)
                print_family(o);
        printf("# EOF\n");
}

int command_metrics(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_stats_freep) struct shmd_stats_result *stats = NULL;
        CLEANUP(output_unrefp) json_t *families = NULL;
        int r;

        ctl_parse(ctl, NULL, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_stats(ctl->client, &stats, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, "stats", r);

        families = json_array();
        add_figures(families, stats);
        add_refusals(families, stats);
        add_requests(families, stats);
        r = add_accounts(ctl, families);
        if (r < 0)
                return fail_call(ctl, "df", r);

        if (ctl->json)
                output_json(json_incref(families), stdout);
        else
                print_families(families);
        return CTL_DONE;
}
