/* stats: the broker's figures since its start. */

#include "buildinfo.h"

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

static error_t parse_stats(int key, char *arg, struct argp_state *state) {
        Operands none;

        if (key != ARGP_KEY_ARGS)
                return ARGP_ERR_UNKNOWN;
        ctl_operands(state, &none, 0, 0, 0);
        return 0;
}

const struct argp command_stats_argp = {
        .parser = parse_stats,
        .doc = "Shows what the broker holds, what it has been asked, how long it took, and why it refused.\v"
               "P99 is the upper edge of the bucket that the 99th of a hundred requests falls into.\n\n"
               "Examples:\n"
               "  shmdctl stats\n"
               "  shmdctl stats --json",
};

/* Below which time 99 of 100 requests stayed, as far as buckets of powers of two can say;
 * UINT64_MAX: longer than the last edge. */
static uint64_t request_p99(const struct shmd_request_stat *request) {
        uint64_t n = 0, seen = 0;

        for (int i = 0; i < SHMD_BUCKETS; ++i)
                n += request->bucket[i];
        for (int i = 0; i < SHMD_BUCKETS - 1; ++i) {
                seen += request->bucket[i];
                if (seen >= n - n / 100)
                        return UINT64_C(1) << (10 + i);
        }
        return UINT64_MAX;
}

/* -- for people ----------------------------------------------------------------------------- */

static void row(Table *table, const char *key, uint64_t number) {
        table_add(table, key);
        table_add_number(table, number);
}

static void print_figures(const Ctl *ctl, const struct shmd_stats_result *stats) {
        Table table = { .align = "rl" };
        char text[OUTPUT_NUMBER_MAX];

        table_add(&table, "broker");
        table_add(&table, stats->broker);
        table_add(&table, "uptime");
        table_add(&table, output_duration(text, stats->uptime_ns));
        row(&table, "restarts", stats->restarts);
        row(&table, "regions", stats->regions);
        row(&table, "with a name", stats->named);
        row(&table, "without", stats->orphans);
        table_add(&table, "charged");
        table_add(&table, output_size(ctl, text, stats->bytes));
        row(&table, "directories", stats->directories);
        row(&table, "grants", stats->grants);
        row(&table, "peers", stats->peers);
        row(&table, "waiting", stats->waiters);
        row(&table, "released", stats->released);
        row(&table, "violations", stats->violations);
        row(&table, "accepts paused", stats->accepts_paused);
        row(&table, "log lines lost", stats->log_dropped);
        table_print(&table);
}

static void print_requests(const struct shmd_stats_result *stats) {
        static const char *const titles[] = { "REQUEST", "COUNT", "REFUSED", "MEAN", "P99" };
        Table table = { .align = "lrrrr" };

        for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); ++i)
                table_add(&table, titles[i]);
        for (size_t i = 0; i < stats->n_requests; ++i) {
                const struct shmd_request_stat *request = &stats->requests[i];
                char text[OUTPUT_NUMBER_MAX];
                uint64_t p99 = request_p99(request);

                if (!request->count)
                        continue;
                table_add(&table, request->name);
                table_add_number(&table, request->count);
                table_add_number(&table, request->refused);
                table_add(&table, output_duration(text, request->total_ns / request->count));
                table_add(&table, p99 == UINT64_MAX ? "longer" : output_duration(text, p99));
        }
        table_print(&table);
}

static void print_refusals(const struct shmd_stats_result *stats) {
        CLEANUP(table_deinit) Table table = { .align = "lr" };

        table_add(&table, "REFUSED FOR");
        table_add(&table, "COUNT");
        for (size_t i = 0; i < stats->n_refusals; ++i)
                if (stats->refusals[i].count) {
                        table_add(&table, stats->refusals[i].name);
                        table_add_number(&table, stats->refusals[i].count);
                }
        if (table.n == 2)
                return;
        putchar('\n');
        table_print(&table);
}

/* -- for programs ----------------------------------------------------------------------------- */

static json_t *requests_json(const struct shmd_stats_result *stats) {
        json_t *array = json_array();

        for (size_t i = 0; i < stats->n_requests; ++i) {
                const struct shmd_request_stat *request = &stats->requests[i];
                json_t *o = json_object(), *buckets = json_array();

                output_set(o, "name", output_string(request->name));
                output_set(o, "count", output_number(request->count));
                output_set(o, "refused", output_number(request->refused));
                output_set(o, "total_ns", output_number(request->total_ns));
                for (int j = 0; j < SHMD_BUCKETS; ++j)
                        output_append(buckets, output_number(request->bucket[j]));
                output_set(o, "buckets", buckets);
                output_append(array, o);
        }
        return array;
}

static json_t *refusals_json(const struct shmd_stats_result *stats) {
        json_t *o = json_object();

        for (size_t i = 0; i < stats->n_refusals; ++i)
                output_set(o, stats->refusals[i].name, output_number(stats->refusals[i].count));
        return o;
}

static json_t *stats_json(const struct shmd_stats_result *stats) {
        json_t *o = json_object();

        output_set(o, "broker", output_string(stats->broker));
        output_set(o, "uptime_ns", output_number(stats->uptime_ns));
        output_set(o, "restarts", output_number(stats->restarts));
        output_set(o, "regions", output_number(stats->regions));
        output_set(o, "named", output_number(stats->named));
        output_set(o, "orphans", output_number(stats->orphans));
        output_set(o, "bytes", output_number(stats->bytes));
        output_set(o, "directories", output_number(stats->directories));
        output_set(o, "grants", output_number(stats->grants));
        output_set(o, "peers", output_number(stats->peers));
        output_set(o, "waiters", output_number(stats->waiters));
        output_set(o, "released", output_number(stats->released));
        output_set(o, "violations", output_number(stats->violations));
        output_set(o, "accepts_paused", output_number(stats->accepts_paused));
        output_set(o, "log_dropped", output_number(stats->log_dropped));
        output_set(o, "requests", requests_json(stats));
        output_set(o, "refusals", refusals_json(stats));
        return o;
}

int command_stats(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_stats_freep) struct shmd_stats_result *stats = NULL;
        int r;

        ctl_parse(ctl, NULL, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_stats(ctl->client, &stats, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, "stats", r);

        if (ctl->json) {
                output_json(stats_json(stats), stdout);
                return CTL_DONE;
        }
        print_figures(ctl, stats);
        putchar('\n');
        print_requests(stats);
        print_refusals(stats);
        return CTL_DONE;
}
