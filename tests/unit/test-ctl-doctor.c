/* client/ctl/doctor: facts that no machine at hand has, and what is made of them. */

#include "buildinfo.h"

#include "lib/test.h"

#include <string.h>
#include <sys/stat.h>

#include "client/ctl/doctor.h"

static struct shmd_feature features[2];
static struct shmd_doctor_result broker;
static DoctorFacts facts;

/* A broker and a machine with which nothing is wrong. */
static void begin(void) {
        features[0] = (struct shmd_feature){ .name = "lease", .have = true, .consequence = "it is late" };
        features[1] = (struct shmd_feature){ .name = "inotify", .have = true, .consequence = "it is slow" };
        broker = (struct shmd_doctor_result){
                .n_features = 2, .features = features, .descriptors = 2000, .regions = 1000, .uid = 900,
                .landlock = true, .broker = "1.0", .kept_by = "keeper", .last_end = "",
        };
        facts = (DoctorFacts){
                .broker = &broker, .library = "1.0", .path = "/run/shmd/socket",
                .socket = { .exists = true, .mode = S_IFSOCK | 0666 },
                .directory = { .exists = true, .mode = S_IFDIR | 0755 },
                .leases_enable = 1, .memfd_noexec = 0, .max_user_watches = 100000,
                .pool = UINT64_C(1) << 30, .account = UINT64_C(1) << 28, .memory = UINT64_C(1) << 31,
                .cgroup = UINT64_MAX,
        };
}

typedef struct Seen {
        unsigned int n[_DOCTOR_LEVEL_N];
        DoctorFinding worst;            /* the first one of the highest level */
} Seen;

static void see(void *userdata, const DoctorFinding *finding) {
        Seen *seen = userdata;

        REQUIRE(*finding->text && *finding->check);
        REQUIRE((finding->level == DOCTOR_OK) == !finding->advice, "who is told of trouble is told what to do");
        if (seen->n[DOCTOR_OK] + seen->n[DOCTOR_WARNING] + seen->n[DOCTOR_PROBLEM] == 0 ||
            finding->level > seen->worst.level)
                seen->worst = *finding;
        ++seen->n[finding->level];
}

static Seen judge(void) {
        Seen seen = { 0 };

        doctor_judge(&facts, see, &seen);
        return seen;
}

/* Exactly one finding is not fine: of that check, with those words. */
static void expect_one(DoctorLevel level, const char *check, const char *words) {
        Seen seen = judge();

        REQUIRE(seen.n[DOCTOR_WARNING] + seen.n[DOCTOR_PROBLEM] == 1, "%u and %u, %s: %s", seen.n[DOCTOR_WARNING],
                seen.n[DOCTOR_PROBLEM], seen.worst.check, seen.worst.text);
        REQUIRE(seen.worst.level == level && strcmp(seen.worst.check, check) == 0, "%s", seen.worst.check);
        REQUIRE(strstr(seen.worst.text, words), "%s", seen.worst.text);
        begin();
}

TEST(ctl_doctor, where_nothing_is_wrong_nothing_is_found) {
        Seen seen;

        begin();
        seen = judge();
        cr_assert(seen.n[DOCTOR_OK] > 10 && seen.n[DOCTOR_WARNING] == 0 && seen.n[DOCTOR_PROBLEM] == 0);
        facts.leases_enable = facts.memfd_noexec = facts.max_user_watches = DOCTOR_NO_NUMBER;
        facts.path = NULL;
        facts.memory = UINT64_MAX;
        seen = judge();
        cr_assert(seen.n[DOCTOR_WARNING] == 0 && seen.n[DOCTOR_PROBLEM] == 0, "what is not known is not wrong");
}

TEST(ctl_doctor, a_broker_that_does_not_answer_is_a_problem_and_the_machine_is_looked_at) {
        Seen seen;

        begin();
        facts.broker = NULL;
        facts.failure = "Connection refused";
        facts.pool = facts.account = UINT64_MAX;
        facts.leases_enable = 0;
        seen = judge();
        cr_assert_eq(seen.n[DOCTOR_PROBLEM], 2);
        cr_assert_str_eq(seen.worst.check, "broker");
        cr_assert(strstr(seen.worst.text, "Connection refused"));
}

TEST(ctl_doctor, each_missing_feature_is_a_warning_with_its_consequence) {
        begin();
        features[0].have = false;
        expect_one(DOCTOR_WARNING, "lease", "it is late");
        features[1].have = false;
        expect_one(DOCTOR_WARNING, "inotify", "it is slow");
        broker.landlock = false;
        expect_one(DOCTOR_WARNING, "landlock", "system calls");
}

TEST(ctl_doctor, whoever_may_open_udmabuf_is_told_of) {
        begin();
        facts.udmabuf = (DoctorFile){ .exists = true, .mode = S_IFCHR | 0600 };
        cr_assert_eq(judge().n[DOCTOR_WARNING], 0);
        facts.udmabuf.mode = S_IFCHR | 0660;
        cr_assert_eq(judge().n[DOCTOR_WARNING], 0, "the group is root's");
        facts.udmabuf.gid = 108;
        expect_one(DOCTOR_WARNING, "udmabuf", "group 108");
        facts.udmabuf = (DoctorFile){ .exists = true, .mode = S_IFCHR | 0666, .gid = 108 };
        expect_one(DOCTOR_PROBLEM, "udmabuf", "everybody");
}

TEST(ctl_doctor, sockets_that_others_can_replace_are_a_problem) {
        begin();
        facts.directory.mode = S_IFDIR | 0777;
        expect_one(DOCTOR_PROBLEM, "socket", "/run/shmd/socket");
        facts.directory.mode = S_IFDIR | 01777;
        cr_assert_eq(judge().n[DOCTOR_PROBLEM], 0, "it is sticky");
        facts.directory.mode = S_IFDIR | 0755;
        facts.socket.uid = 77;
        expect_one(DOCTOR_WARNING, "socket", "uid 77");
        facts.socket.uid = 900;
        cr_assert_eq(judge().n[DOCTOR_WARNING], 0, "the broker's own");
        facts.socket.mode = S_IFSOCK | 0660;
        expect_one(DOCTOR_WARNING, "socket", "not everybody");
        facts.socket.mode = S_IFSOCK | 0600;
        facts.directory.mode = S_IFDIR | 0700;
        cr_assert_eq(judge().n[DOCTOR_WARNING], 0, "a user's own broker");
}

TEST(ctl_doctor, limits_that_the_machine_cannot_keep_are_warnings) {
        begin();
        broker.descriptors = 999;
        expect_one(DOCTOR_WARNING, "descriptors", "999");
        facts.max_user_watches = 999;
        expect_one(DOCTOR_WARNING, "fs.inotify.max_user_watches", "999");
        facts.pool = (UINT64_C(1) << 31) + 1;
        expect_one(DOCTOR_WARNING, "memory", "2.0G");
        facts.pool = UINT64_MAX;
        expect_one(DOCTOR_WARNING, "memory", "any amount");
        facts.cgroup = (UINT64_C(1) << 28) - 1;
        expect_one(DOCTOR_WARNING, "control group", "256M");
        facts.cgroup = UINT64_C(1) << 28;
        cr_assert_eq(judge().n[DOCTOR_WARNING], 0);
}

TEST(ctl_doctor, what_happened_since_the_start_is_told) {
        begin();
        broker.kept_by = "";
        expect_one(DOCTOR_WARNING, "keeper", "everything ends with it");
        broker.kept_by = "service-manager";
        broker.restarts = 2;
        broker.last_end = "signal SEGV";
        expect_one(DOCTOR_WARNING, "restarts", "2 times a broker ended by itself, the last one by signal SEGV");
        broker.restarts = 0;
        broker.inotify_overflows = 3;
        expect_one(DOCTOR_WARNING, "events", "3 times");
        broker.helper_replacements = 4;
        expect_one(DOCTOR_WARNING, "helper", "4 times");
        facts.library = "1.1";
        expect_one(DOCTOR_WARNING, "broker", "1.1");
        facts.leases_enable = 0;
        expect_one(DOCTOR_PROBLEM, "fs.leases-enable", "it is 0");
}
