/* The system calls of a process, while it runs as it always does.
 *
 * A tracer that stops a process at each call makes calls slow, and the broker then leaves out what it does only
 * while that is quick (the marks of grants). So the kernel writes them down: a tracepoint, through
 * perf_event_open(2), whose ring is emptied from outside. It takes root, and a kernel with tracefs.
 */
#ifndef TESTS_BENCH_COUNTS_CALLS_H
#define TESTS_BENCH_COUNTS_CALLS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CALLS_MAX 512

typedef struct Calls {
        int fd;
        uint8_t *ring;
        uint64_t n[CALLS_MAX];          /* by number, since calls_forget() */
        long latest;                    /* -1: none yet */
} Calls;

/* Gets ready; nothing is counted yet. Return: false where it cannot be had; then *ret_why is a static string. */
bool calls_begin(Calls *calls, pid_t pid, const char **ret_why);
void calls_end(Calls *calls);

void calls_resume(Calls *calls);
void calls_pause(Calls *calls);

/* Counts what the process did, of which not much may be left uncounted (some 10,000 calls): the test fails if
 * something was missed. Return: whether there was anything. */
bool calls_read(Calls *calls);
/* The same until the process begins to wait for something to happen; and until it goes on doing so. */
void calls_read_until_wait(Calls *calls);
void calls_read_until_rest(Calls *calls);
void calls_forget(Calls *calls);
/* Return: the sum. */
uint64_t calls_sum(const Calls *calls);

#endif
