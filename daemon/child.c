/* The keeper's children: see the header for the model. */

#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "service.h"
#include "util/deadline.h"
#include "util/error.h"
#include "util/log.h"
#include "util/notify.h"

#define ARGUMENTS_MAX 128

/* In the child: becomes the program that is there now. */
__attribute__((noreturn))
static void become(const KeeperOptions *options, pid_t keeper, const char *argument) {
        char *argv[ARGUMENTS_MAX + 2];
        LogLine line;
        sigset_t none;
        size_t n = 0;

        argv[n++] = options->argv[0];
        argv[n++] = (char *)argument;
        for (char **rest = options->argv + 1; *rest && n < ARGUMENTS_MAX; ++rest)
                argv[n++] = *rest;
        argv[n] = NULL;

        (void)sigemptyset(&none);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == keeper &&
            sigprocmask(SIG_SETMASK, &none, NULL) == 0)
                (void)execv(options->program, argv);
        log_begin(&line, LOG_ERROR, "program-missing");
        log_text(&line, "program", options->program);
        log_errno(&line, "error", -errno);
        log_end(&line);
        _exit(127);
}

/* In the child: what the service manager said is for the keeper; the broker has its words from the keeper. */
static void set_environment(const KeeperOptions *options, const ChildNews *news) {
        static const char *const names[] = { "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
                                             "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE" };
        uint64_t watchdog = options->config->keeper.watchdog;
        char text[32];

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i)
                (void)unsetenv(names[i]);
        (void)snprintf(text, sizeof(text), "%" PRIu64, watchdog / NSEC_PER_USEC);
        if (watchdog)
                (void)setenv("WATCHDOG_USEC", text, 1);
        (void)snprintf(text, sizeof(text), "%" PRIu64, news->restarts);
        (void)setenv(SERVICE_RESTARTS, text, 1);
        (void)setenv(SERVICE_LAST_END, news->last_end, 1);
}

void child_leave(const KeeperOptions *options, const Names *names, int link, int waker) {
        service_leave(&(ServiceKeeper){ .link = link, .waker = waker, .listen_fd = options->listen_fd,
                                        .names_fd = names_fd(names), .n = names_end(names),
                                        .most = NOTIFY_FDS_MAX });
}

int child_start_broker(const KeeperOptions *options, const Names *names, int link, int waker, const ChildNews *news,
                       pid_t *ret) {
        pid_t self = getpid(), pid = fork();

        if (pid < 0)
                return error_origin(-errno);
        if (pid == 0) {
                (void)fcntl(link, F_SETFD, 0);
                (void)fcntl(waker, F_SETFD, 0);
                set_environment(options, news);
                child_leave(options, names, link, waker);
                become(options, self, "--broker");
        }
        *ret = pid;
        return 0;
}

int child_start_check(const KeeperOptions *options, pid_t *ret) {
        pid_t self = getpid(), pid = fork();

        if (pid < 0)
                return error_origin(-errno);
        if (pid == 0) {
                (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
                become(options, self, "--check-config");
        }
        *ret = pid;
        return 0;
}
