/* An innocent client: see the header for the model. */

#include "lib/innocent.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PINGS_KEPT 65536

static int compare_times(const void *a, const void *b) {
        const int64_t *x = a, *y = b;

        return (*x > *y) - (*x < *y);
}

static bool is_stopped(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        return poll(&p, 1, 1) != 0;
}

static void ping_until_stopped(Broker *broker, uid_t uid, int stop, int report) {
        static int64_t times[PINGS_KEPT];
        InnocentReport result = { 0 };
        Client *client = client_connect_as(broker, uid, uid);
        size_t kept;

        do {
                int64_t start = test_now_ns();

                client_expect_done(client, call_ping(client));
                times[result.n++ % PINGS_KEPT] = test_now_ns() - start;
                if (result.n == 1)
                        REQUIRE(write(report, "", 1) == 1);
        } while (!is_stopped(stop));

        kept = result.n < PINGS_KEPT ? result.n : PINGS_KEPT;
        qsort(times, kept, sizeof(times[0]), compare_times);
        result.median_ns = times[kept / 2];
        result.p99_ns = times[kept * 99 / 100];
        result.max_ns = times[kept - 1];
        REQUIRE(write(report, &result, sizeof(result)) == sizeof(result));
}

void innocent_start(Innocent *innocent, Broker *broker, uid_t uid) {
        int stop[2], report[2];
        char byte;

        REQUIRE(pipe(stop) == 0 && pipe(report) == 0);
        (void)fflush(NULL);
        innocent->pid = fork();
        REQUIRE(innocent->pid >= 0);
        if (innocent->pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (int fd = 3; fd < 4096; ++fd)
                        if (fd != stop[0] && fd != report[1])
                                (void)close(fd);
                ping_until_stopped(broker, uid, stop[0], report[1]);
                _exit(0);
        }
        close_fd(stop[0]);
        close_fd(report[1]);
        innocent->stop = stop[1];
        innocent->report = report[0];
        REQUIRE(read(innocent->report, &byte, 1) == 1, "the innocent client got no answer");
}

InnocentReport innocent_stop(Innocent *innocent, const char *title) {
        InnocentReport report = { 0 };
        ssize_t n;
        int status;

        innocent->stop = close_fd(innocent->stop);
        status = test_wait_pid(innocent->pid);
        n = read(innocent->report, &report, sizeof(report));
        innocent->report = close_fd(innocent->report);
        innocent->pid = 0;
        REQUIRE(status == 0 && n == sizeof(report), "the innocent client was harmed (status %#x)", status);
        printf("%s: %" PRIu64 " pings of another user, median %" PRId64 " us, 99 %% %" PRId64 " us, longest %" PRId64
               " us\n", title, report.n, report.median_ns / 1000, report.p99_ns / 1000, report.max_ns / 1000);
        (void)fflush(stdout);
        return report;
}
