/* What every bench stands on: see the header for the model. */

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A line is written at once, so that none is there by half. */
#define LINE_MAX_BYTES 32768

/* Criterion would run as many tests at the same time as there are processors. */
__attribute__((constructor))
static void one_at_a_time(void) {
        (void)setenv("CRITERION_JOBS", "1", 1);
}

/* -- how much --------------------------------------------------------------------------------- */

bool bench_quick(void) {
        const char *quick = getenv("SHMD_BENCH_QUICK");

        return quick && strcmp(quick, "1") == 0;
}

size_t bench_rounds(size_t full, size_t quick) {
        uint64_t rounds = test_rounds(bench_quick() ? quick : full);

        return rounds < 1 ? 1 : rounds > BENCH_ROUNDS_MAX ? BENCH_ROUNDS_MAX : (size_t)rounds;
}

/* -- processors ------------------------------------------------------------------------------- */

/* Those that this process had to begin with. */
static const cpu_set_t *allowed(void) {
        static cpu_set_t set;
        static bool known;

        if (!known)
                REQUIRE(sched_getaffinity(0, sizeof(set), &set) == 0, "%s", strerror(errno));
        known = true;
        return &set;
}

size_t bench_processors(void) {
        return (size_t)CPU_COUNT(allowed());
}

/* The system's number of one of those. */
static int number_of(int processor) {
        for (int i = 0; i < CPU_SETSIZE; ++i)
                if (CPU_ISSET(i, allowed()) && processor-- == 0)
                        return i;
        test_fail(__FILE__, __LINE__, "there are as many processors", " only %zu", bench_processors());
}

void bench_pin(pid_t pid, int processor) {
        cpu_set_t set = *allowed();

        if (processor != BENCH_ANYWHERE) {
                CPU_ZERO(&set);
                CPU_SET(number_of(processor), &set);
        }
        REQUIRE(sched_setaffinity(pid, sizeof(set), &set) == 0, "%s", strerror(errno));
}

double bench_meminfo(const char *field) {
        FILE *file = fopen("/proc/meminfo", "re");
        size_t n = strlen(field);
        unsigned long kib = 0;
        char line[128];

        REQUIRE(file, "%s", strerror(errno));
        while (fgets(line, sizeof(line), file))
                if (strncmp(line, field, n) == 0 && line[n] == ':')
                        kib = strtoul(line + n + 1, NULL, 10);
        (void)fclose(file);
        return (double)kib * 1024;
}

/* -- rounds ----------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

double bench_percentile(double *values, size_t n, double percent) {
        size_t rank = (size_t)ceil((double)n * percent / 100);

        REQUIRE(n > 0);
        qsort(values, n, sizeof(*values), compare);
        return values[rank ? rank - 1 : 0];
}

double bench_median(const BenchSeries *series, const BenchSeries *against) {
        double values[BENCH_ROUNDS_MAX];
        size_t n = series->n;

        REQUIRE(n > 0 && (!against || against->n == n), "%zu rounds against %zu", n, against ? against->n : 0);
        for (size_t i = 0; i < n; ++i)
                values[i] = against ? series->values[i] / against->values[i] : series->values[i];
        qsort(values, n, sizeof(*values), compare);
        return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

void bench_add(BenchSeries *series, double value) {
        REQUIRE(series->n < BENCH_ROUNDS_MAX);
        series->values[series->n++] = value;
}

static void take_turn(const BenchSide *side, double *ns, bool counted) {
        side->run(side->userdata, ns, side->n);
        if (!counted)
                return;
        bench_add(&side->times->p50, bench_percentile(ns, side->n, 50));
        bench_add(&side->times->p99, bench_percentile(ns, side->n, 99));
}

void bench_take_turns(const BenchSide *sides, size_t n_sides, size_t rounds) {
        CLEANUP(freep) double *ns = NULL;
        size_t most = 0;

        for (size_t i = 0; i < n_sides; ++i) {
                most = sides[i].n > most ? sides[i].n : most;
                sides[i].times->p50.n = sides[i].times->p99.n = 0;
        }
        ns = calloc(most, sizeof(*ns));
        REQUIRE(ns);
        for (size_t round = 0; round <= rounds; ++round)
                for (size_t i = 0; i < n_sides; ++i)
                        take_turn(&sides[i], ns, round > 0);
}

/* -- rows -------------------------------------------------------------------------------------- */

typedef struct Line {
        char text[LINE_MAX_BYTES];
        size_t n;
} Line;

__attribute__((format(printf, 2, 3)))
static void put(Line *line, const char *format, ...) {
        va_list args;
        int n;

        va_start(args, format);
        n = vsnprintf(line->text + line->n, sizeof(line->text) - line->n, format, args);
        va_end(args);
        REQUIRE(n >= 0 && (size_t)n < sizeof(line->text) - line->n, "a row is too long");
        line->n += (size_t)n;
}

/* What is said of a row is plain text, of ours. */
static void put_string(Line *line, const char *key, const char *value) {
        REQUIRE(!strpbrk(value, "\"\\\n\t"), "%s", value);
        put(line, "%s\"%s\": \"%s\"", line->n > 1 ? ", " : "", key, value);
}

static void put_series(Line *line, const char *key, const BenchSeries *series, bool divides) {
        put(line, ", \"%s\": [", key);
        for (size_t i = 0; i < series->n; ++i) {
                REQUIRE(isfinite(series->values[i]) && (!divides || series->values[i] > 0), "%s", key);
                put(line, "%s%.10g", i ? ", " : "", series->values[i]);
        }
        put(line, "]");
}

static void put_target(Line *line, const BenchTarget *target) {
        bool least = isfinite(target->at_least);

        if (!target->judged) {
                put(line, ", \"target\": null");
                return;
        }
        put(line, ", \"target\": {");
        if (least)
                put(line, "\"at_least\": %.10g", target->at_least);
        if (isfinite(target->at_most))
                put(line, "%s\"at_most\": %.10g", least ? ", " : "", target->at_most);
        put(line, "}");
}

static void append(Line *line) {
        const char *path = getenv("SHMD_BENCH_JSON");
        int fd;

        put(line, "}\n");
        if (!path)
                return;
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        REQUIRE(fd >= 0 && write(fd, line->text, line->n) == (ssize_t)line->n, "%s: %s", path, strerror(errno));
        (void)close_fd(fd);
}

static void begin(Line *line, const char *name, const char *what) {
        REQUIRE(strlen(what) <= BENCH_WHAT_MAX, "\"%s\" is too long for the table", what);
        put(line, "{");
        put_string(line, "name", name);
        put_string(line, "what", what);
}

void bench_row(const BenchRow *row) {
        static const char *const kinds[] = { [BENCH_TIMED] = "timed", [BENCH_COUNTED] = "counted", [BENCH_SAME] = "same" };
        double median = bench_median(row->figure, NULL);
        Line line = { .n = 0 };

        begin(&line, row->name, row->what);
        put_string(&line, "kind", kinds[row->kind]);
        put_string(&line, "unit", row->unit);
        put_series(&line, "figure", row->figure, false);
        if (row->against)
                put_series(&line, "against", row->against, true);
        put_target(&line, &row->target);
        if (row->note)
                put_string(&line, "note", row->note);
        append(&line);
        if (row->against)
                fprintf(stderr, "%-*s %8.3f  (%.4g against %.4g %s)\n", BENCH_WHAT_MAX, row->what,
                        bench_median(row->figure, row->against), median, bench_median(row->against, NULL), row->unit);
        else
                fprintf(stderr, "%-*s %8.4g  %s\n", BENCH_WHAT_MAX, row->what, median, row->unit);
}

void bench_unmeasured(const char *name, const char *what, const char *why, ...) {
        Line line = { .n = 0 };
        char text[512];
        va_list args;

        va_start(args, why);
        (void)vsnprintf(text, sizeof(text), why, args);
        va_end(args);
        begin(&line, name, what);
        put_string(&line, "unmeasured", text);
        append(&line);
        fprintf(stderr, "%-*s not measured: %s\n", BENCH_WHAT_MAX, what, text);
}
