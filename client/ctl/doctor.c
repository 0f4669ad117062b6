/* What is wrong with a broker and its machine: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/ctl/output.h"

typedef struct Judging {
        const DoctorFacts *facts;
        DoctorFn fn;
        void *userdata;
} Judging;

const char *doctor_level_name(DoctorLevel level) {
        static const char *const names[] = {
                [DOCTOR_OK]      = "ok",
                [DOCTOR_WARNING] = "warning",
                [DOCTOR_PROBLEM] = "problem",
        };

        return names[level];
}

__attribute__((format(printf, 5, 6)))
static void find(Judging *judging, DoctorLevel level, const char *check, const char *advice, const char *format, ...) {
        DoctorFinding finding = { .level = level, .check = check, .advice = advice };
        va_list args;

        va_start(args, format);
        (void)vsnprintf(finding.text, sizeof(finding.text), format, args);
        va_end(args);
        judging->fn(judging->userdata, &finding);
}

/* -- the broker ------------------------------------------------------------------------------------ */

static void judge_broker(Judging *judging) {
        const DoctorFacts *facts = judging->facts;
        const struct shmd_doctor_result *broker = facts->broker;

        if (!broker)
                find(judging, DOCTOR_PROBLEM, "broker", "start it: systemctl start shmd.socket, and read its log",
                     "it did not answer: %s", facts->failure);
        else if (strcmp(broker->broker, facts->library) != 0)
                find(judging, DOCTOR_WARNING, "broker", "restart what is older",
                     "it is version %s, and the library is %s", broker->broker, facts->library);
        else
                find(judging, DOCTOR_OK, "broker", NULL, "version %s answers, as uid %u", broker->broker,
                     (unsigned int)broker->uid);
}

static void judge_socket(Judging *judging) {
        const DoctorFile *socket = &judging->facts->socket, *directory = &judging->facts->directory;
        const struct shmd_doctor_result *broker = judging->facts->broker;
        const char *path = judging->facts->path;

        if (!path || !socket->exists)
                return;
        if (directory->exists && directory->mode & 022 && !(directory->mode & S_ISVTX))
                find(judging, DOCTOR_PROBLEM, "socket", "take the right to write from the directory's group and others",
                     "others may put a socket of theirs in the place of %s", path);
        else if (broker && socket->uid != 0 && socket->uid != broker->uid)
                find(judging, DOCTOR_WARNING, "socket", "let root or the broker's user own it",
                     "%s belongs to uid %u, which is not the broker's", path, (unsigned int)socket->uid);
        else if (directory->exists && directory->mode & 01 && !(socket->mode & 02))
                find(judging, DOCTOR_WARNING, "socket",
                     "unless that is meant, give it the mode 0666: the broker itself decides",
                     "not everybody may connect to %s, mode %04o", path, (unsigned int)socket->mode & 07777);
        else
                find(judging, DOCTOR_OK, "socket", NULL, "%s, mode %04o, of uid %u", path,
                     (unsigned int)socket->mode & 07777, (unsigned int)socket->uid);
}

static const char *feature_advice(const DoctorFacts *facts, const char *feature) {
        if (strcmp(feature, "lease") == 0 && facts->leases_enable == 0)
                return "set the sysctl fs.leases-enable to 1, and restart the broker";
        if (strcmp(feature, "inotify") == 0)
                return "raise the sysctl fs.inotify.max_user_instances, and restart the broker";
        return "run a kernel that has it; shmd(8) says which, and what the broker does without";
}

static void judge_features(Judging *judging) {
        const struct shmd_doctor_result *broker = judging->facts->broker;

        for (size_t i = 0; i < broker->n_features; ++i) {
                const struct shmd_feature *feature = &broker->features[i];

                if (feature->have)
                        find(judging, DOCTOR_OK, feature->name, NULL, "this kernel has it");
                else
                        find(judging, DOCTOR_WARNING, feature->name, feature_advice(judging->facts, feature->name),
                             "missing: %s", feature->consequence);
        }
        if (broker->landlock)
                find(judging, DOCTOR_OK, "landlock", NULL, "the broker is kept from every file system");
        else
                find(judging, DOCTOR_WARNING, "landlock", "run a kernel with it: lsm=landlock,... on its command line",
                     "missing: the list of system calls alone keeps the broker from the file system");
}

static void judge_restarts(Judging *judging) {
        const struct shmd_doctor_result *broker = judging->facts->broker;

        if (!strcmp(broker->kept_by, "keeper"))
                find(judging, DOCTOR_OK, "keeper", NULL, "what there is outlives the broker");
        else if (*broker->kept_by)
                find(judging, DOCTOR_OK, "keeper", NULL, "what there is outlives the broker, in the service manager's store");
        else
                find(judging, DOCTOR_WARNING, "keeper", "start shmd without --no-keeper",
                     "the broker runs alone: everything ends with it");
        if (broker->restarts)
                find(judging, DOCTOR_WARNING, "restarts", "the log says what was before each, event=broker-ended",
                     "%" PRIu64 " times a broker ended by itself, the last one by %s", broker->restarts, broker->last_end);
        else
                find(judging, DOCTOR_OK, "restarts", NULL, "no broker ended by itself");
}

static void judge_figures(Judging *judging) {
        const struct shmd_doctor_result *broker = judging->facts->broker;

        if (broker->descriptors < broker->regions)
                find(judging, DOCTOR_WARNING, "descriptors", "raise LimitNOFILE= of the broker's service",
                     "the broker may open %" PRIu64 " files, limits allow %" PRIu64 " regions, each of which is one",
                     broker->descriptors, broker->regions);
        else
                find(judging, DOCTOR_OK, "descriptors", NULL, "%" PRIu64 " for at most %" PRIu64 " regions",
                     broker->descriptors, broker->regions);
        if (broker->inotify_overflows)
                find(judging, DOCTOR_WARNING, "events", "raise the sysctl fs.inotify.max_queued_events",
                     "the kernel lost events %" PRIu64 " times; each time the broker asked after every orphan",
                     broker->inotify_overflows);
        else
                find(judging, DOCTOR_OK, "events", NULL, "none was lost");
        if (broker->helper_replacements)
                find(judging, DOCTOR_WARNING, "helper", "the log says which regions, and holders who has them",
                     "%" PRIu64 " times a holder kept the helper process waiting for too long",
                     broker->helper_replacements);
        else
                find(judging, DOCTOR_OK, "helper", NULL, "nobody kept it waiting");
        find(judging, DOCTOR_OK, "policy", NULL, "generation %" PRIu64 " is in force", broker->policy_generation);
}

/* -- the machine -------------------------------------------------------------------------------------- */

static void judge_sysctls(Judging *judging) {
        const DoctorFacts *facts = judging->facts;

        if (facts->leases_enable == 0)
                find(judging, DOCTOR_PROBLEM, "fs.leases-enable", "set it to 1, and restart the broker",
                     "it is 0: the kernel does not say who holds a region, and charges end on less than its word");
        else if (facts->leases_enable != DOCTOR_NO_NUMBER)
                find(judging, DOCTOR_OK, "fs.leases-enable", NULL, "it is %" PRId64, facts->leases_enable);
        if (facts->memfd_noexec != DOCTOR_NO_NUMBER)
                find(judging, DOCTOR_OK, "vm.memfd_noexec", NULL, "it is %" PRId64 "; regions are never executable",
                     facts->memfd_noexec);
        if (facts->max_user_watches == DOCTOR_NO_NUMBER)
                return;
        if (facts->broker && (uint64_t)facts->max_user_watches < facts->broker->regions)
                find(judging, DOCTOR_WARNING, "fs.inotify.max_user_watches", "raise it to the limit of regions",
                     "it is %" PRId64 ": of that many regions without a name the kernel tells when they are let go, "
                     "and limits allow %" PRIu64 "; of others it is noticed up to a second late",
                     facts->max_user_watches, facts->broker->regions);
        else
                find(judging, DOCTOR_OK, "fs.inotify.max_user_watches", NULL, "it is %" PRId64,
                     facts->max_user_watches);
}

static void judge_udmabuf(Judging *judging) {
        static const char advice[] = "chmod 0600 /dev/udmabuf, by a rule of udev, or unload the module";
        const DoctorFile *file = &judging->facts->udmabuf;

        if (!file->exists)
                find(judging, DOCTOR_OK, "udmabuf", NULL, "there is no /dev/udmabuf");
        else if (file->mode & 06)
                find(judging, DOCTOR_PROBLEM, "udmabuf", advice,
                     "everybody may open /dev/udmabuf, and make a read-only grant of a region that is not frozen "
                     "writable");
        else if (file->mode & 060 && file->gid != 0)
                find(judging, DOCTOR_WARNING, "udmabuf", advice,
                     "the members of group %u may open /dev/udmabuf, and make a read-only grant of a region that is "
                     "not frozen writable", (unsigned int)file->gid);
        else
                find(judging, DOCTOR_OK, "udmabuf", NULL, "only uid %u may open /dev/udmabuf", (unsigned int)file->uid);
}

static void judge_memory(Judging *judging) {
        const DoctorFacts *facts = judging->facts;
        char a[OUTPUT_NUMBER_MAX], b[OUTPUT_NUMBER_MAX];

        if (facts->broker && facts->memory != UINT64_MAX && facts->pool > facts->memory)
                find(judging, DOCTOR_WARNING, "memory", "set bytes= in [global] of shmd.conf to what can be spared",
                     "all together may use %s, and the machine has %s with swap",
                     facts->pool == UINT64_MAX ? "any amount" : output_human(a, facts->pool),
                     output_human(b, facts->memory));
        else if (facts->broker)
                find(judging, DOCTOR_OK, "memory", NULL, "all together may use %s", output_human(a, facts->pool));
        if (facts->broker && facts->cgroup < facts->account)
                find(judging, DOCTOR_WARNING, "control group",
                     "raise memory.max of the group, or lower the account's limit",
                     "yours may have %s: beyond that its processes are killed, before your account's limit of %s "
                     "refuses",
                     output_human(b, facts->cgroup),
                     facts->account == UINT64_MAX ? "any amount" : output_human(a, facts->account));
        else if (facts->broker)
                find(judging, DOCTOR_OK, "control group", NULL, "yours has room for what your account may have");
}

void doctor_judge(const DoctorFacts *facts, DoctorFn fn, void *userdata) {
        Judging judging = { .facts = facts, .fn = fn, .userdata = userdata };

        judge_broker(&judging);
        judge_socket(&judging);
        if (facts->broker) {
                judge_features(&judging);
                judge_restarts(&judging);
                judge_figures(&judging);
        }
        judge_sysctls(&judging);
        judge_udmabuf(&judging);
        judge_memory(&judging);
}
