/* The daemon's program, run for something that needs no broker: shmd knows how policy files are compiled
 * and how a state is read, and does both with the rights of who calls.
 *
 * What it reads and writes goes through files in memory: nothing can fill a pipe while nobody reads.
 */
#ifndef CLIENT_CTL_DAEMON_H
#define CLIENT_CTL_DAEMON_H

#include <stddef.h>

#include "client/ctl/ctl.h"

/* A file in memory, and its bytes once they were read. */
typedef struct Text {
        int fd;
        char *bytes;            /* with a NUL behind them */
        size_t n;
} Text;

#define TEXT_NULL { .fd = -1 }

void text_deinit(Text *text);

/* Reads from where its descriptor stands, but not more than max bytes. Return: 0, negative errno. */
int text_read(Text *text, size_t max);

/* Ends the last line where it ends, and not with a newline behind it. */
void text_chomp(Text *text);

/* Which program: what --daemon said (NULL: nothing), $SHMD_DAEMON, or where it was installed. */
const char *daemon_program(const char *option);

/* Runs it; argv ends with NULL, and its first is the program. It reads from in (-1: nothing to read), and
 * out and err, which are NULL texts before, get what it says, at most max bytes each.
 * Return: 0 and its exit status, or a negative errno. One that cannot be run has said why, with status 127. */
int daemon_run(const char *const argv[], int in, Text *out, Text *err, size_t max, int *ret_status);

#endif
