/* An innocent client: another user's process that pings the broker all the time while a test
 * does something nasty. Every ping must be answered; how long they took is printed, not judged.
 */
#ifndef TESTS_LIB_INNOCENT_H
#define TESTS_LIB_INNOCENT_H

#include "lib/client.h"

typedef struct Innocent {
        pid_t pid;
        int stop;               /* closing it ends the pings */
        int report;
} Innocent;

typedef struct InnocentReport {
        uint64_t n;             /* pings answered */
        int64_t median_ns;
        int64_t p99_ns;
        int64_t max_ns;
} InnocentReport;

/* Starts pinging as uid; returns after the first answer. */
void innocent_start(Innocent *innocent, Broker *broker, uid_t uid);
/* Stops; requires that every ping was answered; prints the latencies under that title. */
InnocentReport innocent_stop(Innocent *innocent, const char *title);

#endif
