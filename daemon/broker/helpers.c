/* The broker's side of the helper: see the header for the model. */

#include "broker/helpers.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "util/error.h"
#include "util/log.h"

struct HelperWorker {
        Helpers *helpers;
        List link;              /* idle, busy */
        Source *source;
        int fd;
        int64_t pid;
        uint64_t serial;        /* of what it works on */
        HelperJob *job;         /* NULL: idle, or nobody wants the outcome any more */
        Region *region;         /* lent to it, NULL: idle */
        Account *account;       /* pinned; for whom it works */
        bool killed;
};

static void dispatch(Helpers *helpers);

/* -- jobs ------------------------------------------------------------------------------- */

static bool may_have_worker(const Account *account) {
        return !list_is_empty(&account->helper.line) && account->helper.n_workers < HELPERS_SHARE;
}

/* An account stands in line for a worker as long as it has a job for one and may have one. */
static void account_line_up(Helpers *helpers, Account *account) {
        if (!may_have_worker(account))
                list_unlink(&account->helper.link);
        else if (list_is_empty(&account->helper.link))
                list_append(&helpers->waiting, &account->helper.link);
}

/* Takes it out of whatever it is in. Its region stays lent if a worker has it. */
static void job_leave(HelperJob *job) {
        Helpers *helpers = job->helpers;

        deadline_disarm(&job->deadline);
        job->helpers = NULL;
        if (job->worker) {
                job->worker->job = NULL;
                job->worker = NULL;
                return;
        }
        if (!list_is_empty(&job->link)) {
                list_unlink(&job->link);
                account_line_up(helpers, job->account);
        }
        if (job->region)
                region_return(job->region);
}

static void job_end(HelperJob *job, HelpersOutcome outcome) {
        job_leave(job);
        job->fn(job, outcome);
}

static void outcome_due(Deadline *deadline, void *userdata) {
        HelperJob *job = userdata;

        (void)deadline;
        job_end(job, job->outcome);
}

/* Ends a job in the next turn: whoever calls may be in the middle of submitting another. */
static void job_end_soon(HelperJob *job, HelpersOutcome outcome) {
        list_unlink(&job->link);
        job->outcome = outcome;
        deadline_arm(&job->deadline, job->helpers->deadlines, 0, outcome_due, job);
}

/* -- workers ---------------------------------------------------------------------------- */

static void log_lost(const Helpers *helpers, const char *what, int error) {
        LogLine line;

        log_begin(&line, LOG_ERROR, "helper");
        log_text(&line, "message", what);
        if (error)
                log_errno(&line, "error", error);
        log_u64(&line, "workers", helpers->n_workers);
        log_end(&line);
}

/* Nobody will do what stands in line. */
static void give_up(Helpers *helpers) {
        Account *account;
        HelperJob *job;

        while ((account = list_first(&helpers->waiting, Account, helper.link))) {
                list_unlink(&account->helper.link);
                while ((job = list_first(&account->helper.line, HelperJob, link)))
                        job_end_soon(job, HELPERS_GONE);
        }
}

/* No supervisor any more. Its workers end with it, and say so themselves. */
static void lose_supervisor(Helpers *helpers, int error) {
        if (helpers->control < 0)
                return;
        log_lost(helpers, "the helper has ended: nothing can be frozen until the broker is restarted", error);
        helpers->source = source_free(helpers->source);
        helpers->control = close_fd(helpers->control);
        give_up(helpers);
}

static void tell_supervisor(Helpers *helpers, HelperOp op, int64_t pid) {
        HelperPacket packet = { .op = op, .pid = pid };
        int r;

        if (helpers->control < 0)
                return;
        r = helperlink_send(helpers->control, &packet, -1);
        if (r)
                lose_supervisor(helpers, r < 0 ? r : 0);
}

/* What it had been lent comes back. Return: the job that waits for it, NULL if none does. */
static HelperJob *worker_release(HelperWorker *worker) {
        HelperJob *job = worker->job;
        Region *region = worker->region;
        Account *account = worker->account;

        worker->job = NULL;
        worker->region = NULL;
        worker->account = NULL;
        if (job)
                job->worker = NULL;
        if (account) {
                --account->helper.n_workers;
                account_line_up(worker->helpers, account);
                (void)account_unref(account);
        }
        /* A job that may begin anew keeps it. */
        if (region && !job)
                region_return(region);
        return job;
}

static HelperWorker *worker_free(HelperWorker *worker) {
        if (!worker)
                return NULL;
        ASSERT(!worker->job);
        (void)worker_release(worker);
        list_unlink(&worker->link);
        worker->source = source_free(worker->source);
        worker->fd = close_fd(worker->fd);
        if (worker->killed)
                --worker->helpers->n_killed;
        --worker->helpers->n_workers;
        free(worker);
        return NULL;
}

static void worker_kill(HelperWorker *worker) {
        Helpers *helpers = worker->helpers;

        if (worker->killed)
                return;
        worker->killed = true;
        ++helpers->n_killed;
        ++helpers->n_replaced;
        list_move(&helpers->busy, &worker->link);
        tell_supervisor(helpers, HELPER_KILL, worker->pid);
}

/* It has ended, or does as its socket is closed: the kernel may forget it too. */
static void worker_forget(HelperWorker *worker) {
        Helpers *helpers = worker->helpers;
        int64_t pid = worker->pid;

        (void)worker_free(worker);
        tell_supervisor(helpers, HELPER_REAP, pid);
}

/* The process is gone, and nothing that it had is held any more. */
static void worker_gone(HelperWorker *worker) {
        Helpers *helpers = worker->helpers;
        HelperJob *job = worker_release(worker);

        worker_forget(worker);
        if (job && (job->again || helpers->control < 0)) {
                job_end_soon(job, HELPERS_GONE);
        } else if (job) {
                job->again = true;
                list_append(&job->account->helper.line, &job->link);
                account_line_up(helpers, job->account);
        }
        dispatch(helpers);
}

static void worker_done(HelperWorker *worker, const HelperPacket *answer) {
        Helpers *helpers = worker->helpers;
        HelperJob *job = worker_release(worker);

        list_move(&helpers->idle, &worker->link);
        if (job)
                job->error = answer->result;
        dispatch(helpers);
        if (job)
                job_end(job, answer->result ? HELPERS_FAILED : HELPERS_DONE);
}

static void worker_ready(void *userdata) {
        HelperWorker *worker = userdata;
        HelperPacket answer;
        int fd, r;

        r = helperlink_receive(worker->fd, false, &answer, &fd);
        fd = close_fd(fd);
        if (r == HELPERLINK_E_AGAIN)
                return;
        if (r == HELPERLINK_E_GONE)
                worker_gone(worker);
        else if (r || answer.op != HELPER_DONE || answer.serial != worker->serial || !worker->region)
                worker_kill(worker);
        else if (!worker->killed)
                worker_done(worker, &answer);
}

static int worker_new_consume_fd(Helpers *helpers, int fd, int64_t pid) {
        CLEANUP(close_fdp) int link = fd;
        HelperWorker *worker;
        int r;

        worker = malloc(sizeof(*worker));
        if (!worker)
                return error_origin(-ENOMEM);
        *worker = (HelperWorker){ .helpers = helpers, .fd = steal_fd(&link), .pid = pid };
        list_init(&worker->link);
        list_append(&helpers->idle, &worker->link);
        ++helpers->n_workers;
        r = source_new(&worker->source, helpers->loop, worker->fd, worker_ready, worker);
        if (r)
                worker_forget(worker);
        return error_fold(r);
}

static void supervisor_ready(void *userdata) {
        Helpers *helpers = userdata;
        HelperPacket packet;
        int fd, r;

        r = helperlink_receive(helpers->control, false, &packet, &fd);
        if (r == HELPERLINK_E_AGAIN)
                return;
        if (r || packet.op != HELPER_WORKER) {
                (void)close_fd(fd);
                lose_supervisor(helpers, r < 0 ? r : 0);
                return;
        }
        if (helpers->n_coming > 0)
                --helpers->n_coming;
        r = packet.result;
        if (!r)
                r = worker_new_consume_fd(helpers, steal_fd(&fd), packet.pid);
        (void)close_fd(fd);
        /* The next job asks for one again; those that wait have their deadlines. */
        if (r)
                log_lost(helpers, "no worker could be started", r);
        else
                dispatch(helpers);
}

/* -- bringing them together --------------------------------------------------------------- */

static void job_deadline(Deadline *deadline, void *userdata) {
        HelperJob *job = userdata;
        HelperWorker *worker = job->worker;

        (void)deadline;
        if (worker) {
                worker->job = NULL;
                job->worker = NULL;
                job->region = NULL;     /* the worker's, until it is gone */
                worker_kill(worker);
        }
        job_end(job, HELPERS_LATE);
}

static void ask_for_worker(Helpers *helpers) {
        unsigned int n = helpers->n_workers + helpers->n_coming;

        if (n - helpers->n_killed >= HELPERS_MAX || n >= HELPER_PROCESSES_MAX)
                return;
        ++helpers->n_coming;
        tell_supervisor(helpers, HELPER_SPAWN, 0);
}

static void begin(HelperWorker *worker, HelperJob *job) {
        Helpers *helpers = worker->helpers;
        int r;

        job->packet.serial = worker->serial = ++helpers->serial;
        r = helperlink_send(worker->fd, &job->packet, job->region->fd);
        if (r == 0 || r == HELPERLINK_E_GONE)
                list_move(&helpers->busy, &worker->link);
        if (r == HELPERLINK_E_GONE)
                return;                 /* it died a moment ago, which it will tell */
        if (r) {
                job->error = r < 0 ? r : error_origin(-EAGAIN);
                job_end_soon(job, HELPERS_FAILED);
                return;
        }
        list_unlink(&job->link);
        job->worker = worker;
        worker->job = job;
        worker->region = job->region;
        worker->account = account_ref(job->account);
        ++job->account->helper.n_workers;
}

static void dispatch(Helpers *helpers) {
        Account *account;

        while ((account = list_first(&helpers->waiting, Account, helper.link))) {
                HelperWorker *worker = list_first(&helpers->idle, HelperWorker, link);

                if (!worker) {
                        if (helpers->control < 0)
                                give_up(helpers);
                        else if (helpers->n_coming == 0)
                                ask_for_worker(helpers);
                        return;
                }
                begin(worker, list_first(&account->helper.line, HelperJob, link));
                /* To the end of the line, if it has more to do. */
                list_unlink(&account->helper.link);
                account_line_up(helpers, account);
        }
}

int helper_job_submit(HelperJob *job, Helpers *helpers, Account *account, Region *region) {
        ASSERT(!job->helpers);
        if (helpers->control < 0)
                return HELPERS_E_GONE;
        if (region->lent)
                return HELPERS_E_BUSY;

        job->helpers = helpers;
        job->account = account;
        job->region = region;
        job->worker = NULL;
        job->again = false;
        job->error = 0;
        list_init(&job->link);
        region_lend(region);
        deadline_arm(&job->deadline, helpers->deadlines, time_now() + helpers->limit_ns, job_deadline, job);
        list_append(&account->helper.line, &job->link);
        account_line_up(helpers, account);
        dispatch(helpers);
        return 0;
}

void helper_job_cancel(HelperJob *job) {
        if (job->helpers)
                job_leave(job);
}

/* -- life ------------------------------------------------------------------------------- */

void helpers_init(Helpers *helpers, Deadlines *deadlines, uint64_t limit_ns) {
        *helpers = (Helpers){ .deadlines = deadlines, .limit_ns = limit_ns, .control = -1 };
        list_init(&helpers->waiting);
        list_init(&helpers->idle);
        list_init(&helpers->busy);
}

int helpers_start_consume_fd(Helpers *helpers, Loop *loop, int control) {
        int r;

        helpers->loop = loop;
        helpers->control = control;
        r = source_new(&helpers->source, loop, control, supervisor_ready, helpers);
        if (r)
                helpers->control = close_fd(control);
        return error_fold(r);
}

void helpers_deinit(Helpers *helpers) {
        List *lists[] = { &helpers->idle, &helpers->busy };

        ASSERT(list_is_empty(&helpers->waiting));
        for (size_t i = 0; i < 2; ++i) {
                HelperWorker *worker;

                while ((worker = list_first(lists[i], HelperWorker, link)))
                        (void)worker_free(worker);
        }
        helpers->source = source_free(helpers->source);
        helpers->control = close_fd(helpers->control);
}
