/* A progress bar on standard error, for copies long enough that somebody may wonder.
 *
 * It is drawn only on a terminal, without --quiet and --json, and only once the copy is known to
 * be long: its whole length, or what has been done of an unknown length, reaches PROGRESS_MIN.
 * Drawing costs at most ten writes a second. The last state is always drawn, and the line ended.
 */
#ifndef CLIENT_CTL_PROGRESS_H
#define CLIENT_CTL_PROGRESS_H

#include "client/ctl/ctl.h"

#define PROGRESS_MIN (UINT64_C(16) << 20)

typedef struct Progress {
        const Ctl *ctl;
        const char *what;
        uint64_t total;         /* bytes; 0: unknown */
        uint64_t done;
        uint64_t began_ns;
        uint64_t drawn_ns;      /* 0: never */
        bool enabled;
} Progress;

void progress_init(Progress *progress, const Ctl *ctl, const char *what, uint64_t total);
/* So many bytes more are done. */
void progress_advance(Progress *progress, uint64_t n);
/* Draws the last state and ends the line, if a bar was drawn. */
void progress_deinit(Progress *progress);

#endif
