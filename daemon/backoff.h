/* When to start the next broker, after one that ended by itself.
 *
 * One that had been ready is followed at once: somebody is waiting. One that never was is followed at once
 * too, the first time; if its successors do not get ready either, each waits longer. And there is a limit of
 * failures in a time, a failure being an end before it was ready or soon after it: past it there is no
 * use in going on like this.
 */
#ifndef BACKOFF_H
#define BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"

#define BACKOFF_GIVE_UP UINT64_MAX

typedef struct Backoff {
        unsigned int n_unready; /* brokers in succession that never were ready */
        uint64_t n_failures;    /* in the window that began with the */
        uint64_t first_failure;
} Backoff;

/* Counts a broker that ended now (CLOCK_MONOTONIC); since: when it was ready, or started if it never was.
 * Return: how many nanoseconds to wait before the next; BACKOFF_GIVE_UP, and then all is forgotten. */
uint64_t backoff_next(Backoff *backoff, const ConfigKeeper *config, bool ready, uint64_t since, uint64_t now);
/* A broker is ready. */
void backoff_ready(Backoff *backoff);

#endif
