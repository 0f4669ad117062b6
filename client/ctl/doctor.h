/* What is wrong with a broker and its machine: facts are gathered (cmd-doctor.c), and judged here, so
 * that a test can judge facts that no machine at hand has.
 *
 * A finding is fine, a warning (it works, and not as well as it could, or not safely for everybody), or a
 * problem (it does not work, or not as promised); the latter two say what to do.
 */
#ifndef CLIENT_CTL_DOCTOR_H
#define CLIENT_CTL_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shmd.h"

typedef struct DoctorFile {
        bool exists;
        uid_t uid;
        gid_t gid;
        mode_t mode;            /* with its type */
} DoctorFile;

#define DOCTOR_NO_NUMBER INT64_MIN

typedef struct DoctorFacts {
        const struct shmd_doctor_result *broker;        /* NULL: it did not answer */
        const char *failure;    /* then: why */
        const char *library;    /* version */
        const char *path;       /* of the socket; NULL: not known */
        DoctorFile socket;
        DoctorFile directory;   /* the socket's */
        DoctorFile udmabuf;
        /* Numbers of /proc/sys; DOCTOR_NO_NUMBER: not there */
        int64_t leases_enable;
        int64_t memfd_noexec;
        int64_t max_user_watches;
        /* Bytes; UINT64_MAX: no limit, or not known */
        uint64_t pool;          /* of all together */
        uint64_t account;       /* of the caller */
        uint64_t memory;        /* of the machine, with swap */
        uint64_t cgroup;        /* what the caller's control group may have */
} DoctorFacts;

typedef enum DoctorLevel {
        DOCTOR_OK,
        DOCTOR_WARNING,
        DOCTOR_PROBLEM,
        _DOCTOR_LEVEL_N,
} DoctorLevel;

typedef struct DoctorFinding {
        DoctorLevel level;
        const char *check;
        char text[512];
        const char *advice;     /* NULL if there is nothing to do */
} DoctorFinding;

typedef void (*DoctorFn)(void *userdata, const DoctorFinding *finding);

/* "ok", "warning", "problem" */
const char *doctor_level_name(DoctorLevel level);

/* Judges the facts: calls fn with each finding. */
void doctor_judge(const DoctorFacts *facts, DoctorFn fn, void *userdata);

#endif
