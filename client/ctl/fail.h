/* How shmdctl fails: every exit code, which error becomes which, and how an error reads.
 *
 * An error is one line on standard error,
 *
 *      shmdctl: /cam: permission denied: the region's mode gives no read-only grant
 *
 * with the numbers when a limit refused, or with --json one JSON object. It is reported where it
 * happens; what travels upwards after that is the exit code.
 */
#ifndef CLIENT_CTL_FAIL_H
#define CLIENT_CTL_FAIL_H

#include "client/ctl/ctl.h"

enum {
        CTL_DONE      = 0,
        CTL_FAILED    = 1,
        CTL_USAGE     = 2,
        CTL_NOT_FOUND = 3,
        CTL_DENIED    = 4,
        CTL_QUOTA     = 5,
        CTL_DEADLINE  = 124,    /* as timeout(1) has it */
};

/* Reports error (negative errno) about thing, as the latest call on the connection returned it,
 * with the refusal behind it. Return: the exit code. */
int fail_call(Ctl *ctl, const char *thing, int error);

/* The same for an error that came from the system: a file that is missing is no name that is
 * missing, and a full disk no quota, so the exit code is CTL_FAILED. sentence: more about it, or
 * NULL. */
int fail_system(Ctl *ctl, const char *thing, int error, const char *sentence);

/* The same for connecting. */
int fail_connect(Ctl *ctl, int error);

/* A command line that makes no sense, found after parsing. Return: CTL_USAGE. */
int fail_usage(Ctl *ctl, const char *sentence);

#endif
