/* ping: whether the broker answers, and how fast. */

#include "buildinfo.h"

#include <errno.h>
#include <time.h>

#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

typedef struct PingArgs {
        uint64_t count;         /* 0: until interrupted */
        uint64_t interval_ns;
        bool busy_poll;
} PingArgs;

static const struct argp_option ping_options[] = {
        { "count",     'c', "N",        0, "How many times (default 1); 0: until interrupted" },
        { "interval",  'i', "DURATION", 0, "How long to pause between two (default 1s)" },
        { "busy-poll", 'b', NULL,       0, "Ask the broker not to sleep at once when it has answered" },
        { NULL },
};

static error_t parse_ping(int key, char *arg, struct argp_state *state) {
        PingArgs *args = state->input;
        Operands none;

        switch (key) {
        case 'c':
                args->count = ctl_arg_number(state, arg, UINT64_MAX);
                return 0;
        case 'i':
                args->interval_ns = ctl_arg_duration(state, arg);
                return 0;
        case 'b':
                args->busy_poll = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &none, 0, 0, 0);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_ping_argp = {
        .options = ping_options,
        .parser = parse_ping,
        .doc = "Asks the broker for an answer and prints how long it took.\v"
               "Examples:\n"
               "  shmdctl ping\n"
               "  shmdctl ping -c 1000 -i 0s --quiet --json\n"
               "  shmdctl ping -c 1000 -i 0s --busy-poll --quiet --json\n"
               "  shmdctl ping --timeout=1s || echo the broker is stuck",
};

typedef struct Pings {
        uint64_t n, min_ns, max_ns, total_ns;
} Pings;

static void pings_add(Pings *pings, uint64_t ns) {
        if (!pings->n || ns < pings->min_ns)
                pings->min_ns = ns;
        if (ns > pings->max_ns)
                pings->max_ns = ns;
        pings->total_ns += ns;
        ++pings->n;
}

static void print_ping(Ctl *ctl, uint64_t ns) {
        char text[OUTPUT_NUMBER_MAX];

        if (ctl->json || ctl->quiet)
                return;
        printf("answer from ");
        output_text(shmd_socket(ctl->client), stdout);
        printf(": %s\n", output_duration(text, ns));
        (void)fflush(stdout);
}

static bool busy_polls(Ctl *ctl) {
        uint32_t flags = 0;

        (void)shmd_connect_flags(ctl->client, &flags);
        return flags & SHMD_CONNECT_BUSY_POLL;
}

static void print_summary(Ctl *ctl, const Pings *pings) {
        char min[OUTPUT_NUMBER_MAX], mean[OUTPUT_NUMBER_MAX], max[OUTPUT_NUMBER_MAX];

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "socket", output_string(shmd_socket(ctl->client)));
                output_set(o, "answers", output_number(pings->n));
                output_set(o, "busy_poll", json_boolean(busy_polls(ctl)));
                output_set(o, "min_ns", output_number(pings->min_ns));
                output_set(o, "mean_ns", output_number(pings->total_ns / pings->n));
                output_set(o, "max_ns", output_number(pings->max_ns));
                output_json(o, stdout);
        } else if (!ctl->quiet && pings->n > 1) {
                printf("%" PRIu64 " answers: min %s, mean %s, max %s\n", pings->n,
                       output_duration(min, pings->min_ns), output_duration(mean, pings->total_ns / pings->n),
                       output_duration(max, pings->max_ns));
        }
}

static void pause_for(uint64_t ns) {
        struct timespec t = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };

        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
                ;
}

int command_ping(Ctl *ctl, int argc, char **argv) {
        PingArgs args = { .count = 1, .interval_ns = UINT64_C(1000000000) };
        Pings pings = { 0 };
        int r;

        ctl_parse(ctl, &args, argc, argv);
        if (ctl->json && !args.count)
                return fail_usage(ctl, "--json prints one value at the end, and --count=0 has none");
        ctl->connect_flags = args.busy_poll ? SHMD_CONNECT_BUSY_POLL : 0;
        r = ctl_connect(ctl);
        if (r)
                return r;
        if (args.busy_poll && !busy_polls(ctl) && !ctl->quiet)
                fputs("shmdctl: the broker does not grant busy-polling\n", stderr);

        while (!args.count || pings.n < args.count) {
                uint64_t ns;

                if (pings.n && args.interval_ns)
                        pause_for(args.interval_ns);
                r = shmd_ping(ctl->client, &ns, SHMD_TIMEOUT_DEFAULT);
                if (r < 0)
                        return fail_call(ctl, "ping", r);
                print_ping(ctl, ns);
                pings_add(&pings, ns);
        }
        print_summary(ctl, &pings);
        return CTL_DONE;
}
