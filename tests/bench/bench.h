/* What every bench stands on: rounds in turn, the processors, and rows for the report.
 *
 * A bench is a program of tests that measure. What it finds are *rows*: a number, or two that are compared, for
 * each of several rounds, and what was promised of them. tests/bench/report (see its --help) makes a table of the
 * rows of all benches, and judges them:
 *
 *      BenchTimes open, floor;
 *      BenchSide sides[] = { { run_open, &broker, 2000, &open }, { run_open, &server, 2000, &floor } };
 *
 *      bench_take_turns(sides, 2, bench_rounds(15, 5));
 *      bench_row(&(BenchRow){ .name = "open-one-processor", .what = "open, one processor, against its floor",
 *                             .unit = "ns", .figure = &open.p50, .against = &floor.p50,
 *                             .target = BENCH_AT_MOST(1.30) });
 *
 * Times mean something beside others of the same run only, so that what is judged is the ratio, for each round
 * its own, and of those the median. The sides take turns (A B A B), as a machine that is slow for a while is slow
 * for both then. A row that was counted instead of timed (bytes, system calls) is the same on any machine.
 *
 * Rows are appended to $SHMD_BENCH_JSON as they come, one JSON object a line, so that a bench that dies has left
 * those it had; and printed. A row that has a target is in the list tests/bench/rows as well, with that target: one
 * that fails to come is missed.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <math.h>

#ifndef TEST_TIMEOUT
#define TEST_TIMEOUT 600
#endif

#include "lib/test.h"

#define BENCH_ROUNDS_MAX 256
#define BENCH_WHAT_MAX 64       /* bytes of what a row is, for the table */

/* -- how much --------------------------------------------------------------------------------- */

/* Whether SHMD_BENCH_QUICK=1: all rows that have a target, in a tenth of the time. */
bool bench_quick(void);
/* How often to do something: SHMD_ROUNDS, or else one of these. */
size_t bench_rounds(size_t full, size_t quick);

/* -- processors ------------------------------------------------------------------------------- */

/* How many this process may use; what is across two needs as many. */
size_t bench_processors(void);
/* Keeps a process (0: this one) on one of them, counted from 0; BENCH_ANYWHERE: on any. */
#define BENCH_ANYWHERE (-1)
void bench_pin(pid_t pid, int processor);

/* Return: bytes, of a field of /proc/meminfo. */
double bench_meminfo(const char *field);

/* -- rounds ----------------------------------------------------------------------------------- */

/* A number for each round. */
typedef struct BenchSeries {
        double values[BENCH_ROUNDS_MAX];
        size_t n;
} BenchSeries;

/* The series of one number that is the same in all rounds, as a pointer. */
#define BENCH_ONE(value) (&(BenchSeries){ .values = { (double)(value) }, .n = 1 })

/* The median and the 99th percentile of each round. */
typedef struct BenchTimes {
        BenchSeries p50, p99;
} BenchTimes;

typedef struct BenchSide {
        /* Does what is measured n times, and says of each how long it took: nanoseconds, as a rule. */
        void (*run)(void *userdata, double *ns, size_t n);
        void *userdata;
        size_t n;               /* in a round */
        BenchTimes *times;      /* where it goes; whatever was in it is forgotten */
} BenchSide;

/* Runs all sides, one after the other, as many times. The first time is for warming up and not counted. */
void bench_take_turns(const BenchSide *sides, size_t n_sides, size_t rounds);

void bench_add(BenchSeries *series, double value);
/* The nearest rank: of n values, which are sorted for it, the one that so many percent of them do not exceed. */
double bench_percentile(double *values, size_t n, double percent);
/* The median of a series, or of its ratios to another one, which has as many rounds. */
double bench_median(const BenchSeries *series, const BenchSeries *against);

/* -- rows -------------------------------------------------------------------------------------- */

typedef enum BenchKind {
        BENCH_TIMED,            /* means something on a quiet machine only */
        BENCH_COUNTED,          /* is the same whatever else goes on: judged everywhere */
        BENCH_SAME,             /* the same thing twice: outside of its target, the run proves nothing */
} BenchKind;

typedef struct BenchTarget {
        bool judged;            /* false: it is for information */
        double at_least, at_most;
} BenchTarget;

#define BENCH_AT_MOST(most) { .judged = true, .at_least = -INFINITY, .at_most = (most) }
#define BENCH_AT_LEAST(least) { .judged = true, .at_least = (least), .at_most = INFINITY }
#define BENCH_WITHIN(least, most) { .judged = true, .at_least = (least), .at_most = (most) }

typedef struct BenchRow {
        const char *name;               /* "open-one-processor": the same for ever, for comparing runs */
        const char *what;               /* for people; at most BENCH_WHAT_MAX bytes */
        const char *unit;               /* of the figure: "ns", "us", "ms", "bytes", "calls" */
        const BenchSeries *figure;
        const BenchSeries *against;     /* NULL: the figure is judged itself, not its ratio to this */
        BenchKind kind;
        BenchTarget target;
        const char *note;               /* how to read it, if that is not plain; or NULL */
} BenchRow;

void bench_row(const BenchRow *row);
/* A row that cannot be had here. If it has a target, and is in the list, the whole run is not what it should be. */
__attribute__((format(printf, 3, 4)))
void bench_unmeasured(const char *name, const char *what, const char *why, ...);

#endif
