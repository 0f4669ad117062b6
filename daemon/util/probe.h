/* What this kernel can do, found out once at start by trying.
 *
 * Headers and version numbers lie (containers, backports, filters); a call that works does not.
 * What is missing degrades visibly: shmd(8) says how, and the log says it at start.
 */
#ifndef UTIL_PROBE_H
#define UTIL_PROBE_H

#include <stdbool.h>
#include <sys/socket.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83        /* Linux 6.16 */
#endif

typedef enum ProbeFeature {
        PROBE_NOEXEC_SEAL,      /* MFD_NOEXEC_SEAL, 6.3: regions cannot be made executable files */
        PROBE_LEASE,            /* F_SETLEASE on a memfd: who holds a region is the kernel's word */
        PROBE_INOTIFY,          /* inotify on a memfd: the kernel says when to ask */
        PROBE_MARKER,           /* open file description locks: which grant lives */
        PROBE_PASSRIGHTS,       /* SO_PASSRIGHTS, 6.16: unwanted descriptors stop at their sender */
        PROBE_PEERPIDFD,        /* SO_PEERPIDFD, 6.5: a peer's process has a name for ever */
        _PROBE_N,
} ProbeFeature;

/* Tries everything. Return: 0, or a negative errno if not even a memfd can be made. */
int probe_run(void);
/* Has it leave open what it tries inotify with: the kernel takes 10 ms and more to end what has just had a
 * watch, and at a start everybody waits. When the process ends, that is long over. */
void probe_leave_inotify(void);

bool probe_have(ProbeFeature feature);
/* "noexec-seal"; for the log. */
const char *probe_name(ProbeFeature feature);
/* What its absence means, one sentence. */
const char *probe_consequence(ProbeFeature feature);

/* For tests: pretend that a feature is (not) there. */
void probe_force(ProbeFeature feature, bool have);

#endif
