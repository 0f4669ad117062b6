/* The broker's side of the helper (helper.h): jobs in, outcomes out.
 *
 * A job is one call on one region that a holder of the region may hold up. It is lent to a worker
 * process; there are few of those, and what one hostile holder can keep of them is bounded: a
 * region has one job at a time, an account two workers at a time, and accounts take turns. A job
 * that is not done when its time is over is given up. If a worker had begun with it, that worker is
 * killed and another takes its place; but until the kernel says that the killed one is gone, it
 * counts as its account's, and its region is lent: it is not released, and has no other job.
 *
 * A worker that dies without being told to costs a job one repetition. If the supervisor dies there
 * are no new workers: the log says so, and from then on every job ends with HELPERS_GONE.
 */
#ifndef BROKER_HELPERS_H
#define BROKER_HELPERS_H

#include <stdbool.h>
#include <stdint.h>

#include "acct/account.h"
#include "base/list.h"
#include "core/region.h"
#include "net/loop.h"
#include "util/deadline.h"
#include "util/helperlink.h"

/* Workers that take jobs, and how many one account may keep busy. */
#define HELPERS_MAX 4
#define HELPERS_SHARE 2

enum {
        _HELPERS_E_SUCCESS,
        HELPERS_E_BUSY,         /* the region has a job already */
        HELPERS_E_GONE,         /* there is no helper any more */
};

typedef enum HelpersOutcome {
        HELPERS_DONE,
        HELPERS_FAILED,         /* the kernel refused: job->error */
        HELPERS_LATE,           /* it was not done in time; it may still be, later */
        HELPERS_GONE,           /* there is no helper any more */
} HelpersOutcome;

typedef struct HelperJob HelperJob;
typedef struct Helpers Helpers;
typedef struct HelperWorker HelperWorker;
/* The job is the callback's to free, or to submit again. */
typedef void (*HelperFn)(HelperJob *job, HelpersOutcome outcome);

/* Embedded in what waits for it, which also holds a charge of `account`. The first three are set
 * by who submits it. */
struct HelperJob {
        HelperPacket packet;    /* op and what it needs */
        HelperFn fn;
        void *userdata;

        Helpers *helpers;       /* NULL: not submitted */
        Account *account;
        Region *region;         /* lent */
        HelperWorker *worker;   /* NULL: in line */
        List link;              /* in its account's line */
        Deadline deadline;
        bool again;             /* its worker died: this is the second time */
        HelpersOutcome outcome; /* of one that ends in the next turn */
        int error;              /* negative errno */
};

struct Helpers {
        Loop *loop;
        Deadlines *deadlines;
        uint64_t limit_ns;      /* from the submission to the outcome */
        int control;            /* -1: there is no helper */
        Source *source;
        List waiting;           /* accounts with a job in line that may have one more worker */
        List idle;              /* workers */
        List busy;
        unsigned int n_workers; /* all, those that were killed and are not gone included */
        unsigned int n_killed;
        unsigned int n_coming;  /* asked for */
        uint64_t serial;
        uint64_t n_replaced;    /* workers killed since the start */
};

/* Without helpers_start() every job is refused. */
void helpers_init(Helpers *helpers, Deadlines *deadlines, uint64_t limit_ns);
/* control, from helper_start(), is consumed, always. Return: 0, or a negative errno. */
int helpers_start_consume_fd(Helpers *helpers, Loop *loop, int control);
/* Every job must be over or cancelled. What workers have is taken back without waiting for them. */
void helpers_deinit(Helpers *helpers);

/* Submits a job: fn is called exactly once, never from in here, unless it is cancelled.
 * Return: 0, HELPERS_E_BUSY, HELPERS_E_GONE. */
int helper_job_submit(HelperJob *job, Helpers *helpers, Account *account, Region *region);
/* Its outcome is not wanted any more; what a worker has begun goes on. Harmless if it is over. */
void helper_job_cancel(HelperJob *job);

#endif
