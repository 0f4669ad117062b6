/* Who holds a region: see the header. */

#include "buildinfo.h"

#include "client/ctl/holders.h"

#include "client/ctl/node.h"
#include "client/ctl/process.h"

/* pids_shared: the broker's pids are ours. */
static void look(const struct shmd_holder *holder, bool pids_shared, Process *ret) {
        process_look(pids_shared ? holder->pid : 0, holder->pidfd_ino, ret);
}

static const char *comm_text(const Process *process) {
        if (process->state == PROCESS_GONE)
                return "(gone)";
        return *process->comm ? process->comm : "-";
}

static const char *unit_text(const Process *process) {
        if (*process->unit)
                return process->unit;
        return *process->cgroup ? process->cgroup : "-";
}

/* Whether somebody holds it whom no grant explains, and how that is known. */
static const char *unexplained_text(uint32_t explained) {
        switch (explained) {
        case SHMD_EXPLAINED_NOBODY:
                return "none: nobody holds it";
        case SHMD_EXPLAINED_GRANTS:
                return "unknown: grants live, and who else holds it the kernel does not say";
        case SHMD_EXPLAINED_NO:
                return "yes: it is held, and no grant of it lives";
        default:
                return "unknown: nothing tells whether the grants on the books live";
        }
}

static void add_holder(Table *table, const struct shmd_holder *holder, bool pids_shared) {
        char text[OUTPUT_NUMBER_MAX], name[OUTPUT_USER_MAX];
        Process process;

        look(holder, pids_shared, &process);
        table_add_number(table, holder->grant);
        table_add(table, output_user(name, holder->uid));
        table_add_number(table, (uint64_t)holder->pid);
        table_add(table, node_rights(holder->rights));
        table_add(table, output_duration(text, holder->age_ns));
        table_add(table, holder->marked ? "yes" : "no");
        table_add(table, holder->connected ? "yes" : "no");
        table_add(table, holder->ticket ? "yes" : "no");
        table_add(table, comm_text(&process));
        table_add(table, unit_text(&process));
}

void holders_print(Ctl *ctl, const struct shmd_stat_result *result) {
        static const char *const titles[] = {
                "GRANT", "USER", "PID", "RIGHTS", "AGE", "MARKED", "CONNECTED", "TICKET", "COMMAND", "UNIT",
        };
        bool pids_shared = process_shares_pids(shmd_broker_pid(ctl->client));
        Table table = { .align = "rlrlrlllll" };

        if (result->n_holders > 0) {
                for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); ++i)
                        table_add(&table, titles[i]);
                for (size_t i = 0; i < result->n_holders; ++i)
                        add_holder(&table, &result->holders[i], pids_shared);
                table_print(&table);
        }
        if (result->more_holders)
                printf("and up to %" PRIu64 " more\n", result->more_holders);
        printf("unexplained holders: %s\n", unexplained_text(result->explained));
}

/* -- for programs ----------------------------------------------------------------------------- */

static json_t *text_json(const char *text) {
        return *text ? output_string(text) : json_null();
}

static json_t *process_json(const Process *process) {
        static const char *const states[] = {
                [PROCESS_UNKNOWN] = "unknown",
                [PROCESS_GONE]    = "gone",
                [PROCESS_THERE]   = "there",
        };

        return output_string(states[process->state]);
}

static json_t *holder_json(const struct shmd_holder *holder, bool pids_shared) {
        char name[OUTPUT_USER_MAX];
        json_t *o = json_object();
        Process process;

        look(holder, pids_shared, &process);
        output_set(o, "grant", output_number(holder->grant));
        output_set(o, "uid", json_integer(holder->uid));
        output_set(o, "user", output_string(output_user(name, holder->uid)));
        output_set(o, "pid", json_integer(holder->pid));
        output_set(o, "rights", output_string(node_rights(holder->rights)));
        output_set(o, "age_ns", output_number(holder->age_ns));
        output_set(o, "marked", json_boolean(holder->marked));
        output_set(o, "connected", json_boolean(holder->connected));
        output_set(o, "ticket", json_boolean(holder->ticket));
        output_set(o, "process", process_json(&process));
        output_set(o, "command", text_json(process.comm));
        output_set(o, "unit", text_json(process.unit));
        output_set(o, "cgroup", text_json(process.cgroup));
        return o;
}

static const char *explained_name(uint32_t explained) {
        switch (explained) {
        case SHMD_EXPLAINED_NOBODY:
                return "nobody";
        case SHMD_EXPLAINED_GRANTS:
                return "grants";
        case SHMD_EXPLAINED_NO:
                return "no";
        default:
                return "unknown";
        }
}

static json_t *unexplained_json(uint32_t explained) {
        switch (explained) {
        case SHMD_EXPLAINED_NOBODY:
                return json_false();
        case SHMD_EXPLAINED_NO:
                return json_true();
        default:
                return json_null();
        }
}

void holders_set(Ctl *ctl, json_t *object, const struct shmd_stat_result *result) {
        bool pids_shared = process_shares_pids(shmd_broker_pid(ctl->client));
        json_t *array = json_array();

        for (size_t i = 0; i < result->n_holders; ++i)
                output_append(array, holder_json(&result->holders[i], pids_shared));
        output_set(object, "holders", array);
        output_set(object, "more_holders", output_number(result->more_holders));
        output_set(object, "explained", output_string(explained_name(result->explained)));
        output_set(object, "unexplained", unexplained_json(result->explained));
}
