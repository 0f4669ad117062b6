/* Results.
 *
 * A function of the broker returns 0, a negative errno, or a positive code of its own module.
 * Negative means that the daemon is in trouble: it is forwarded, up to main(). Positive is an
 * outcome a client caused (MODULE_E_*): the direct caller translates it or handles it, and it
 * never travels two levels.
 */
#ifndef UTIL_ERROR_H
#define UTIL_ERROR_H

#include <errno.h>

/* Marks where a negative errno is born; a place for a breakpoint. */
static inline int error_origin(int r) {
        return r;
}

/* For a caller that has handled every positive code it knows: what is still positive was not
 * meant to get here, and becomes trouble rather than somebody else's code. */
static inline int error_fold(int r) {
        return r > 0 ? error_origin(-ENOTRECOVERABLE) : r;
}

#endif
