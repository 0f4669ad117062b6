/* The keeper: see the header for the model. */

#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backoff.h"
#include "base/cleanup.h"
#include "child.h"
#include "refuge.h"
#include "sandbox.h"
#include "service.h"
#include "util/deadline.h"
#include "util/error.h"
#include "util/log.h"
#include "util/names.h"
#include "util/notify.h"

/* Packets and names read in one turn, so that a broker that never stops talking does not keep the keeper from
 * its signals and deadlines. */
#define TURN 512
/* Bytes the broker may have on the way; the kernel gives what it allows. */
#define LINK_BYTES (1 << 19)

/* A broker that makes region after region would wake its keeper for each. So when the keeper has been told of regions
 * it does not listen for so long, unless the broker wakes it, which it does before the queue is full: what comes
 * meanwhile waits there, and is kept already. */
#define LINK_REST (50 * NSEC_PER_MSEC)

/* A broker's status goes to the service manager once in this time. */
#define STATUS_REST NSEC_PER_SEC

/* When to try again if the kernel starts no process. */
#define FORK_DELAY NSEC_PER_SEC
/* What the check of a new program may take. */
#define CHECK_TIME (60 * NSEC_PER_SEC)

/* What the keeper wants of the broker that there is. */
typedef enum Wish {
        WISH_SERVE,
        WISH_UPGRADE,           /* to end, so that the next one is the new program's */
        WISH_STOP,              /* to end, and the keeper with it */
} Wish;

typedef struct Keeper {
        const KeeperOptions *options;
        Deadlines deadlines;
        Names *names;
        Refuge *refuge;
        int signal_fd;
        Wish wish;
        bool done;
        int status;             /* to exit with */

        /* The broker; pid 0: there is none. */
        pid_t pid;
        int link;               /* its packets; -1: it closed its end, or there is none */
        int waker;              /* what it wakes the keeper with: fdstore_set_waker() */
        bool ready;
        uint64_t since;         /* when it was started, or ready */
        uint64_t n_refused;     /* packets of it */
        uint64_t status_next;   /* not before then another word of it goes to the manager */
        Deadline overdue;
        Deadline rest;          /* armed: it is not listened to until then */

        /* The next broker. */
        Deadline next;
        bool was_ready;         /* some broker was, of this keeper or of one before it */
        Backoff backoff;
        ChildNews news;         /* for it */
        char last_end[32];

        /* The process that checks a new program; pid 0: there is none. */
        pid_t checker;
        Deadline check_overdue;
} Keeper;

/* -- telling ------------------------------------------------------------------------------ */

static void log_broker(const Keeper *keeper, int priority, const char *event, const char *key, const char *value) {
        LogLine line;

        log_begin(&line, priority, event);
        log_u64(&line, "pid", (uint64_t)keeper->pid);
        if (key)
                log_text(&line, key, value);
        log_u64(&line, "kept", names_count(keeper->names));
        log_end(&line);
}

static void log_trouble(const char *event, int error) {
        LogLine line;

        log_begin(&line, LOG_ERROR, event);
        log_errno(&line, "error", error);
        log_end(&line);
}

/* "signal KILL" or "status 1"; text has room for it. */
static const char *describe(const siginfo_t *info, char text[static 32]) {

        if (info->si_code == CLD_EXITED)
                (void)snprintf(text, 32, "status %d", info->si_status);
        else
                (void)snprintf(text, 32, "signal %s", sigabbrev_np(info->si_status));
        return text;
}

static void tell_manager(const char *state, const char *status) {
        char text[NOTIFY_MAX];

        (void)snprintf(text, sizeof(text), "%s%sSTATUS=%s", state, *state ? "\n" : "", status);
        service_notify(text);
}

/* -- what is kept --------------------------------------------------------------------------- */

static void refuse(Keeper *keeper, const char *why, const char *name) {
        LogLine line;

        /* The first, the second, the fourth: a broker gone mad does not fill the log. */
        ++keeper->n_refused;
        if (keeper->n_refused & (keeper->n_refused - 1))
                return;
        log_begin(&line, LOG_ERROR, "keeper-refused");
        log_u64(&line, "pid", (uint64_t)keeper->pid);
        log_text(&line, "why", why);
        log_text(&line, "name", name);
        log_u64(&line, "refused", keeper->n_refused);
        log_end(&line);
}

/* Only memory is kept: anything else could keep a dead broker's socket open, or make its close take any time
 * again and again. And only so much that every broker has descriptors left to begin with. */
static void keep(Keeper *keeper, const char *name, int fd) {
        if (names_count(keeper->names) >= keeper->options->room)
                refuse(keeper, "there is no room", name);
        else if (fcntl(fd, F_GET_SEALS) < 0)
                refuse(keeper, "not memory", name);
        else if (names_put(keeper->names, fd, name))
                refuse(keeper, "the name is taken", name);
        else {
                refuge_add(keeper->refuge, name, fd);
                return;
        }
        (void)close(fd);
}

static void let_go(Keeper *keeper, const char *name) {
        int fd = names_take(keeper->names, name);

        if (fd < 0)
                refuse(keeper, "nothing has the name", name);
        else
                refuge_remove(keeper->refuge, fd);
        (void)close_fd(fd);
}

/* What a broker gave that never served anybody is nothing to go on from. */
static void let_go_of_all(Keeper *keeper) {
        CLEANUP(freep) Kept *kept = NULL;
        size_t n;

        if (names_read(names_fd(keeper->names), names_end(keeper->names), &kept, &n))
                return;
        for (size_t i = 0; i < n; ++i)
                let_go(keeper, kept[i].name);
}

/* -- the broker's packets ------------------------------------------------------------------- */

static void begin_upgrade(Keeper *keeper);
static void broker_overdue(Deadline *deadline, void *userdata);

/* What is expected of the broker has to happen within that time (0: whenever it likes). */
static void expect(Keeper *keeper, uint64_t time) {
        deadline_disarm(&keeper->overdue);
        if (time)
                deadline_arm(&keeper->overdue, &keeper->deadlines, time_now() + time, broker_overdue, keeper);
}

static void become_ready(Keeper *keeper) {
        if (keeper->ready)
                return;
        keeper->ready = keeper->was_ready = true;
        keeper->since = time_now();
        backoff_ready(&keeper->backoff);
        log_broker(keeper, LOG_NOTE, "broker-ready", NULL, NULL);
        service_notify("READY=1");
}

/* Of several descriptors one that is refused keeps the others from nothing. */
static void obey_about_descriptors(Keeper *keeper, const Notify *notify) {
        for (size_t i = 0; notify->words & NOTIFY_STORE && i < notify->n_fds; ++i)
                keep(keeper, notify->names[i], notify->fds[i]);
        for (size_t i = 0; notify->words & NOTIFY_REMOVE && i < notify->n_names; ++i)
                let_go(keeper, notify->names[i]);
        /* All before it has been done. */
        if (notify->words & NOTIFY_BARRIER)
                (void)close(notify->fds[0]);
}

/* The manager's queue is short, and what it has no room for is lost: the keeper's own words need it too. */
static void pass_on(Keeper *keeper, const char *status) {
        uint64_t now = time_now();

        if (now < keeper->status_next)
                return;
        keeper->status_next = now + STATUS_REST;
        tell_manager("", status);
}

static void obey(Keeper *keeper, const Notify *notify) {
        obey_about_descriptors(keeper, notify);
        if (notify->words & NOTIFY_READY)
                become_ready(keeper);
        /* Who has been told to end gets no more time by talking. */
        if (notify->words & (NOTIFY_READY | NOTIFY_WATCHDOG) && keeper->ready && keeper->wish == WISH_SERVE)
                expect(keeper, keeper->options->config->keeper.watchdog);
        if (*notify->status)
                pass_on(keeper, notify->status);
        if (notify->words & NOTIFY_UPGRADE)
                begin_upgrade(keeper);
}

static void rest_over(Deadline *deadline, void *userdata);

/* Signs of life are in the queue too. */
static void rest(Keeper *keeper) {
        uint64_t most = keeper->options->config->keeper.watchdog / 4, ns = most && most < LINK_REST ? most : LINK_REST;

        deadline_arm(&keeper->rest, &keeper->deadlines, time_now() + ns, rest_over, keeper);
}

/* Reads what there is, up to a bound. Return: whether there may be more. */
static bool read_packets(Keeper *keeper) {
        bool outlived = keeper->refuge, regions = false;
        Notify notify;

        for (size_t i = 0; i < TURN; i += 1 + notify.n_names) {
                int r = outlived ? notify_peek(keeper->link, &notify) : notify_take(keeper->link, &notify);

                if (r == NOTIFY_E_AGAIN && regions && keeper->ready)
                        rest(keeper);
                if (r == NOTIFY_E_GONE)
                        keeper->link = close_fd(keeper->link);
                if (r == NOTIFY_E_GONE || r == NOTIFY_E_AGAIN)
                        return false;
                if (r)
                        refuse(keeper, "no packet of a broker's", "");
                else
                        obey(keeper, &notify);
                regions = regions || (r == 0 && notify.n_names > 0);
                /* It has been done, and the next keeper need not do it; without a refuge there is no such. */
                if (outlived)
                        notify_drop(keeper->link);
        }
        return true;
}

/* A broker that can keep nothing any more has to end. */
static void listen_to_broker(Keeper *keeper) {
        deadline_disarm(&keeper->rest);
        (void)read_packets(keeper);
        if (keeper->link < 0 && keeper->wish == WISH_SERVE)
                expect(keeper, keeper->options->config->keeper.stop);
}

static void rest_over(Deadline *deadline, void *userdata) {
        (void)deadline;
        listen_to_broker(userdata);
}

/* What a broker that is gone had sent can be read to its end, even if it gave its socket to somebody who lives and
 * goes on sending. */
static void hear_no_more(int socket) {
        (void)shutdown(socket, SHUT_RD);
}

/* What a broker sent that ended with the keeper before this one. */
static void read_left(void *userdata, int socket) {
        Keeper *keeper = userdata;
        Notify notify;
        int r;

        hear_no_more(socket);
        while ((r = notify_peek(socket, &notify)) != NOTIFY_E_AGAIN && r != NOTIFY_E_GONE) {
                if (r == 0)
                        obey_about_descriptors(keeper, &notify);
                notify_drop(socket);
        }
}

/* -- processes ------------------------------------------------------------------------------ */

static int fork_broker(Keeper *keeper) {
        CLEANUP(close_fdp) int ours = -1, theirs = -1, waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        int bytes = LINK_BYTES, pair[2], r;

        if (waker < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return error_origin(-errno);
        ours = pair[0];
        theirs = pair[1];
        (void)setsockopt(theirs, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        refuge_link(keeper->refuge, ours);
        r = child_start_broker(keeper->options, keeper->names, theirs, waker, &keeper->news, &keeper->pid);
        if (r) {
                refuge_unlink(keeper->refuge);
                return error_fold(r);
        }
        keeper->link = steal_fd(&ours);
        keeper->waker = steal_fd(&waker);
        return 0;
}

static void start_broker(Deadline *deadline, void *userdata) {
        Keeper *keeper = userdata;
        int r;

        deadline_disarm(deadline);
        keeper->wish = WISH_SERVE;
        keeper->ready = false;
        keeper->since = time_now();
        keeper->n_refused = 0;
        keeper->status_next = 0;
        r = fork_broker(keeper);
        if (r) {
                log_trouble("broker-not-started", r);
                deadline_arm(&keeper->next, &keeper->deadlines, time_now() + FORK_DELAY, start_broker, keeper);
                return;
        }
        log_broker(keeper, LOG_NOTE, "broker-started", NULL, NULL);
        expect(keeper, keeper->options->config->keeper.start);
}

/* -- a broker that does not do what is expected ----------------------------------------------- */

static void broker_overdue(Deadline *deadline, void *userdata) {
        const Keeper *keeper = userdata;

        (void)deadline;
        log_broker(keeper, LOG_ERROR, "broker-overdue", "expected",
                   keeper->wish != WISH_SERVE || keeper->link < 0 ? "its end" :
                   keeper->ready ? "a sign of life" : "to be ready");
        (void)kill(keeper->pid, SIGKILL);
}

static void stop_broker(Keeper *keeper, Wish wish) {
        keeper->wish = wish;
        (void)kill(keeper->pid, SIGTERM);
        expect(keeper, keeper->options->config->keeper.stop);
}

/* -- the next broker ---------------------------------------------------------------------------- */

static void give_up(Keeper *keeper) {
        LogLine line;

        deadline_arm(&keeper->next, &keeper->deadlines, time_now() + keeper->options->config->keeper.retry,
                     start_broker, keeper);
        log_begin(&line, LOG_ERROR, "given-up");
        log_u64(&line, "kept", names_count(keeper->names));
        log_text(&line, "message", "the broker cannot be started; what it had is kept, and SIGHUP tries again");
        log_end(&line);
        tell_manager("", "failed: the broker cannot be started; what it had is kept, and SIGHUP tries again");
}

/* After one that ended by itself. */
static void follow(Keeper *keeper, bool hopeless) {
        uint64_t now = time_now(), delay;

        ++keeper->news.restarts;
        delay = backoff_next(&keeper->backoff, &keeper->options->config->keeper, keeper->ready, keeper->since, now);
        if (hopeless || delay == BACKOFF_GIVE_UP) {
                give_up(keeper);
                return;
        }
        tell_manager("", "the broker ended, and is started again");
        deadline_arm(&keeper->next, &keeper->deadlines, now + delay, start_broker, keeper);
}

static void upgrade_now(Keeper *keeper);

/* The broker is gone. What it sent last is read before its number is given back. */
static void broker_ended(Keeper *keeper, const siginfo_t *info) {
        int status = info->si_code == CLD_EXITED ? info->si_status : EXIT_FAILURE;
        bool asked = keeper->wish != WISH_SERVE;

        hear_no_more(keeper->link);
        while (keeper->link >= 0 && read_packets(keeper))
                ;
        deadline_disarm(&keeper->rest);
        keeper->link = close_fd(keeper->link);
        keeper->waker = close_fd(keeper->waker);
        refuge_unlink(keeper->refuge);
        (void)waitpid(keeper->pid, NULL, 0);
        deadline_disarm(&keeper->overdue);
        keeper->news.last_end = describe(info, keeper->last_end);
        log_broker(keeper, asked ? LOG_NOTE : LOG_ERROR, "broker-ended", "by", keeper->last_end);
        keeper->pid = 0;

        if (keeper->wish == WISH_UPGRADE) {
                upgrade_now(keeper);
        } else if (keeper->wish == WISH_STOP || !keeper->was_ready) {
                /* A first start that fails is no start. */
                if (!keeper->was_ready)
                        let_go_of_all(keeper);
                keeper->status = status;
                keeper->done = true;
        } else {
                follow(keeper, status == KEEPER_STATUS_HOPELESS);
        }
}

/* -- upgrade ----------------------------------------------------------------------------------- */

/* Becomes the program that is there now. Only if that fails is there a return, and then the broker is
 * started from here. */
static void upgrade_now(Keeper *keeper) {
        refuge_leave(keeper->refuge);
        child_leave(keeper->options, keeper->names, -1, -1);
        (void)execv(keeper->options->program, keeper->options->argv);
        log_trouble("upgrade-failed", -errno);
        (void)unsetenv(SERVICE_KEEPER);
        refuge_stay(keeper->refuge);
        start_broker(&keeper->next, keeper);
}

static void check_overdue(Deadline *deadline, void *userdata) {
        const Keeper *keeper = userdata;

        (void)deadline;
        (void)kill(keeper->checker, SIGKILL);
}

/* An upgrade begins with the new program saying that it understands the configuration. */
static void begin_upgrade(Keeper *keeper) {
        char text[96];
        int r;

        if (keeper->checker || keeper->wish != WISH_SERVE)
                return;
        r = child_start_check(keeper->options, &keeper->checker);
        if (r) {
                log_trouble("upgrade-failed", r);
                return;
        }
        deadline_arm(&keeper->check_overdue, &keeper->deadlines, time_now() + CHECK_TIME, check_overdue, keeper);
        (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, time_now() / NSEC_PER_USEC);
        tell_manager(text, "checking the program that is to take over");
}

static void check_ended(Keeper *keeper, const siginfo_t *info) {
        bool good = info->si_code == CLD_EXITED && info->si_status == 0;
        LogLine line;
        char text[32];

        (void)waitpid(keeper->checker, NULL, 0);
        keeper->checker = 0;
        deadline_disarm(&keeper->check_overdue);
        if (keeper->wish == WISH_STOP)
                return;
        log_begin(&line, good ? LOG_NOTE : LOG_ERROR, good ? "upgrade" : "upgrade-refused");
        log_text(&line, "program", keeper->options->program);
        log_text(&line, "check", describe(info, text));
        log_end(&line);
        if (!good) {
                tell_manager("READY=1", "the program that was to take over is not good");
                /* It has told somebody to wait for this. */
                if (keeper->pid && keeper->ready)
                        (void)kill(keeper->pid, SIGUSR2);
        } else if (keeper->pid) {
                stop_broker(keeper, WISH_UPGRADE);
        } else {
                upgrade_now(keeper);
        }
}

/* -- the loop ------------------------------------------------------------------------------------ */

static void reap(Keeper *keeper) {
        siginfo_t info = { .si_pid = 0 };

        while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid) {
                if (info.si_pid == keeper->pid)
                        broker_ended(keeper, &info);
                else if (info.si_pid == keeper->checker)
                        check_ended(keeper, &info);
                else
                        (void)waitpid(info.si_pid, NULL, 0);
                info.si_pid = 0;
        }
}

static void stop(Keeper *keeper) {
        tell_manager("STOPPING=1", "stopping");
        deadline_disarm(&keeper->next);
        if (keeper->pid) {
                stop_broker(keeper, WISH_STOP);
        } else {
                keeper->wish = WISH_STOP;
                keeper->done = true;
        }
}

static void read_signals(Keeper *keeper) {
        struct signalfd_siginfo info;

        while (!keeper->done && read(keeper->signal_fd, &info, sizeof(info)) == sizeof(info)) {
                if (info.ssi_signo == SIGCHLD)
                        reap(keeper);
                else if (info.ssi_signo == SIGHUP)
                        begin_upgrade(keeper);
                else if (keeper->wish != WISH_STOP)
                        stop(keeper);
        }
}

static int wait_for_something(Keeper *keeper, struct pollfd fds[static 3]) {
        uint64_t at = deadlines_next(&keeper->deadlines), now = time_now(), ns = at > now ? at - now : 0;
        struct timespec timeout = { .tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC) };

        fds[0] = (struct pollfd){ .fd = keeper->signal_fd, .events = POLLIN };
        fds[1] = (struct pollfd){ .fd = deadline_is_armed(&keeper->rest) ? -1 : keeper->link, .events = POLLIN };
        fds[2] = (struct pollfd){ .fd = keeper->waker, .events = POLLIN };
        return ppoll(fds, 3, at == DEADLINE_NEVER ? NULL : &timeout, NULL) < 0 && errno != EINTR ? -errno : 0;
}

/* What the broker wrote there is one word, however often it did. It may have read it itself meanwhile, and the
 * description is the broker's too: whatever its flags are, nobody waits. */
static void forget_waker(const Keeper *keeper) {
        uint64_t n;

        (void)!preadv2(keeper->waker, &(struct iovec){ &n, sizeof(n) }, 1, -1, RWF_NOWAIT);
}

static int keep_on(Keeper *keeper) {
        struct pollfd fds[3];
        int r;

        while (!keeper->done) {
                r = wait_for_something(keeper, fds);
                if (r)
                        return error_origin(r);
                if (fds[2].revents)
                        forget_waker(keeper);
                if (fds[1].revents || (fds[2].revents && keeper->link >= 0))
                        listen_to_broker(keeper);
                if (fds[0].revents)
                        read_signals(keeper);
                deadlines_run(&keeper->deadlines, time_now());
        }
        return 0;
}

/* -- life --------------------------------------------------------------------------------------- */

static int take_signals(Keeper *keeper) {
        sigset_t set;

        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGCHLD, SIG_DFL);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGCHLD);
        (void)sigaddset(&set, SIGHUP);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGTERM);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return error_origin(-errno);
        keeper->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return keeper->signal_fd < 0 ? error_origin(-errno) : 0;
}

/* What the keeper before left, if this one goes on where that one was: in this process, or in another one. */
static int take_over(Keeper *keeper, const KeeperOptions *options) {
        int r;

        r = names_new(&keeper->names, options->descriptors);
        if (!r && options->left) {
                r = names_adopt(keeper->names, options->left->names_fd, options->left->n);
                (void)close(options->left->names_fd);
                keeper->was_ready = true;
        }
        if (!r)
                r = refuge_new(&keeper->refuge, keeper->names, &keeper->deadlines, options->parked, options->n_stored);
        /* The broker is to have it too. */
        if (!r && fcntl(options->listen_fd, F_SETFD, 0) < 0)
                r = error_origin(-errno);
        return r;
}

/* What cannot be taken from there stays there, and no region is worse off for what is in force from here on. */
static void leave_refuge(Keeper *keeper, const KeeperOptions *options) {
        int r;

        if (options->left)
                r = refuge_return(keeper->refuge);
        else
                r = refuge_take_consume_fds(keeper->refuge, options->stored, options->n_stored, read_left, keeper);
        if (r)
                log_trouble("refuge-failed", r);
        if (names_count(keeper->names) > 0)
                keeper->was_ready = true;
}

int keeper_run(const KeeperOptions *options) {
        Keeper keeper = { .options = options, .signal_fd = -1, .link = -1, .waker = -1, .news.last_end = "" };
        int landlock, r;

        (void)prctl(PR_SET_NAME, "shmd-keeper", 0, 0, 0);
        deadlines_init(&keeper.deadlines);
        r = take_over(&keeper, options);
        if (!r)
                r = take_signals(&keeper);
        /* A filter stays through execve(2). */
        if (!r && !options->left)
                r = sandbox_enter(SANDBOX_KEEPER, &landlock);
        if (!r) {
                leave_refuge(&keeper, options);
                service_keep_alive(&keeper.deadlines);
                start_broker(&keeper.next, &keeper);
                r = keep_on(&keeper);
        }
        if (r)
                log_trouble("keeper-failed", r);
        refuge_free(keeper.refuge);
        names_free(keeper.names);
        (void)close_fd(keeper.signal_fd);
        return r ? EXIT_FAILURE : keeper.status;
}
