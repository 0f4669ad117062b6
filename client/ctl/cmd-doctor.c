/* doctor: gathers what there is to know about the broker and its machine, and says what is wrong. */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/doctor.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"
#include "client/ctl/parse.h"
#include "client/ctl/process.h"

static error_t parse_doctor(int key, char *arg, struct argp_state *state) {
        bool *strict = state->input;
        Operands none;

        switch (key) {
        case 's':
                *strict = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &none, 0, 0, 0);
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

static const struct argp_option doctor_options[] = {
        { "strict", 's', NULL, 0, "Let warnings fail as well" },
        { NULL },
};

const struct argp command_doctor_argp = {
        .options = doctor_options,
        .parser = parse_doctor,
        .doc = "Looks at the broker, its socket, and what the kernel and its settings mean for it, and says what is "
               "wrong and what to do. Exit status 0 if there is no problem, 1 if there is one; with --strict also for "
               "warnings. With --quiet, what is fine is left out.\v"
               "Examples:\n"
               "  shmdctl doctor\n"
               "  shmdctl doctor --quiet --strict\n"
               "  shmdctl doctor --json | jq '.checks[] | select(.level != \"ok\")'",
};

/* -- gathering ------------------------------------------------------------------------------------ */

/* The first line of a file. Return: whether there was one. */
static bool read_line(const char *path, char *text, size_t n) {
        FILE *file = fopen(path, "re");
        bool got = file && fgets(text, (int)n, file);

        if (file)
                (void)fclose(file);
        if (got)
                text[strcspn(text, "\n")] = 0;
        return got;
}

static int64_t read_number(const char *path) {
        char text[64];
        uint64_t number;

        if (!read_line(path, text, sizeof(text)) || parse_number(text, &number) < 0 || number > INT64_MAX)
                return DOCTOR_NO_NUMBER;
        return (int64_t)number;
}

static void look_at_file(const char *path, DoctorFile *ret) {
        struct stat st;

        if (stat(path, &st) == 0)
                *ret = (DoctorFile){ .exists = true, .uid = st.st_uid, .gid = st.st_gid, .mode = st.st_mode };
}

static void look_at_socket(Ctl *ctl, DoctorFacts *facts) {
        CLEANUP(freep) char *copy = NULL;

        facts->path = facts->broker ? shmd_socket(ctl->client) : ctl->socket ? ctl->socket : getenv("SHMD_SOCKET");
        if (!facts->path)
                return;
        look_at_file(facts->path, &facts->socket);
        copy = strdup(facts->path);
        if (!copy)
                output_oom();
        look_at_file(dirname(copy), &facts->directory);
}

/* The least that the caller's control group and those above it may have. */
static uint64_t cgroup_limit(void) {
        char path[PROCESS_CGROUP_MAX + 64], text[64];
        uint64_t least = UINT64_MAX, limit;
        Process process;
        char *end;

        process_read_own_cgroup(&process);
        for (; *process.cgroup; *end = 0) {
                (void)snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", process.cgroup);
                if (read_line(path, text, sizeof(text)) && parse_number(text, &limit) == 0 && limit < least)
                        least = limit;
                end = strrchr(process.cgroup, '/');
                if (!end)
                        break;
        }
        return least;
}

static uint64_t machine_memory(void) {
        struct sysinfo info;

        if (sysinfo(&info) < 0)
                return UINT64_MAX;
        return ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
}

static uint64_t limit_of(Ctl *ctl, uint32_t scope) {
        CLEANUP(shmd_df_freep) struct shmd_df_result *result = NULL;

        if (shmd_df(ctl->client, scope, (uid_t)-1, NULL, &result, SHMD_TIMEOUT_DEFAULT) < 0 || result->n == 0)
                return UINT64_MAX;
        return result->usages[0].limit[SHMD_SLOT_BYTES];
}

static void ask_broker(Ctl *ctl, DoctorFacts *facts, struct shmd_doctor_result **ret) {
        int r;

        r = shmd_connect(&ctl->client, ctl->socket, ctl->timeout_ns);
        if (r == 0)
                r = shmd_doctor(ctl->client, ret, ctl->timeout_ns);
        if (r < 0) {
                facts->failure = ctl->client && *shmd_refusal(ctl->client)->sentence ?
                                 shmd_refusal(ctl->client)->sentence : strerror(-r);
                return;
        }
        facts->broker = *ret;
        facts->pool = limit_of(ctl, SHMD_DF_TOTAL);
        facts->account = limit_of(ctl, SHMD_DF_ACCOUNT);
}

/* -- telling ---------------------------------------------------------------------------------------- */

typedef struct Report {
        Table table;
        json_t *checks;         /* with --json, instead of the table */
        bool quiet;
        uint64_t n[_DOCTOR_LEVEL_N];
} Report;

static void report_deinit(Report *report) {
        table_deinit(&report->table);
        output_unrefp(&report->checks);
}

static void add_json(Report *report, const DoctorFinding *finding) {
        json_t *o = json_object();

        output_set(o, "check", output_string(finding->check));
        output_set(o, "level", output_string(doctor_level_name(finding->level)));
        output_set(o, "text", output_string(finding->text));
        output_set(o, "advice", finding->advice ? output_string(finding->advice) : json_null());
        output_append(report->checks, o);
}

static void add_row(Report *report, const char *level, const char *check, const char *text) {
        table_add(&report->table, level);
        table_add(&report->table, check);
        table_add(&report->table, text);
}

static void take(void *userdata, const DoctorFinding *finding) {
        Report *report = userdata;

        ++report->n[finding->level];
        if (report->quiet && finding->level == DOCTOR_OK)
                return;
        if (report->checks) {
                add_json(report, finding);
                return;
        }
        add_row(report, doctor_level_name(finding->level), finding->check, finding->text);
        if (finding->advice)
                add_row(report, "", "  to do", finding->advice);
}

static void print_report(const DoctorFacts *facts, Report *report) {
        json_t *o;

        if (!report->checks) {
                table_print(&report->table);
                if (!report->quiet)
                        printf("%" PRIu64 " ok, %" PRIu64 " warnings, %" PRIu64 " problems\n",
                               report->n[DOCTOR_OK], report->n[DOCTOR_WARNING], report->n[DOCTOR_PROBLEM]);
                return;
        }
        o = json_object();
        output_set(o, "broker", facts->broker ? output_string(facts->broker->broker) : json_null());
        output_set(o, "ok", output_number(report->n[DOCTOR_OK]));
        output_set(o, "warnings", output_number(report->n[DOCTOR_WARNING]));
        output_set(o, "problems", output_number(report->n[DOCTOR_PROBLEM]));
        output_set(o, "checks", json_incref(report->checks));
        output_json(o, stdout);
}

int command_doctor(Ctl *ctl, int argc, char **argv) {
        CLEANUP(shmd_doctor_freep) struct shmd_doctor_result *broker = NULL;
        CLEANUP(report_deinit) Report report = { .table.align = "lll" };
        DoctorFacts facts = { .library = shmd_version(), .pool = UINT64_MAX, .account = UINT64_MAX };
        bool strict = false;

        ctl_parse(ctl, &strict, argc, argv);
        report.quiet = ctl->quiet;
        report.checks = ctl->json ? json_array() : NULL;

        ask_broker(ctl, &facts, &broker);
        look_at_socket(ctl, &facts);
        look_at_file("/dev/udmabuf", &facts.udmabuf);
        facts.leases_enable = read_number("/proc/sys/fs/leases-enable");
        facts.memfd_noexec = read_number("/proc/sys/vm/memfd_noexec");
        facts.max_user_watches = read_number("/proc/sys/fs/inotify/max_user_watches");
        facts.memory = machine_memory();
        facts.cgroup = cgroup_limit();

        doctor_judge(&facts, take, &report);
        print_report(&facts, &report);
        return report.n[DOCTOR_PROBLEM] || (strict && report.n[DOCTOR_WARNING]) ? CTL_FAILED : CTL_DONE;
}
