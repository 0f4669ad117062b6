/* Recovery: see the header for the model. */

#include "broker/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/policy.h"
#include "core/recover.h"
#include "util/error.h"
#include "util/log.h"
#include "util/memfd.h"

/* So many things that were dropped are said one by one; of the others how many there were. */
#define NOTES_MAX 16

/* A new state is pushed before one that cannot be read is let go. */
static const char *const state_names[] = { "state", "state-1", "state-2" };
#define N_STATE_NAMES (sizeof(state_names) / sizeof(state_names[0]))

typedef struct Recovery {
        Broker *broker;
        Kept *rest;             /* what is not taken yet, for recover_consume_fds() in the end */
        size_t n_rest;
        bool taken[N_STATE_NAMES];      /* names that something was kept under */
        uint64_t began;
        unsigned int n_notes;
        char *sentence;
} Recovery;

static void recovery_deinit(Recovery *recovery) {
        for (size_t i = 0; i < recovery->n_rest; ++i)
                (void)close_fd(recovery->rest[i].fd);
        free(recovery->rest);
}

/* -- telling ------------------------------------------------------------------------------- */

static const char *const what_names[_RECOVER_WHAT_N] = {
        [RECOVER_DIRECTORY] = "directory",
        [RECOVER_ROOT] = "root",
        [RECOVER_REGION] = "region",
        [RECOVER_NAME] = "name",
        [RECOVER_TICKET] = "ticket",
        [RECOVER_GRANT] = "grant",
        [RECOVER_DESCRIPTOR] = "descriptor",
        [RECOVER_COUNTERS] = "counters",
};

static void say_dropped(const char *what, uint64_t id, const char *name, const char *why) {
        LogLine line;

        log_begin(&line, LOG_WARN, "dropped");
        log_text(&line, "what", what);
        if (id)
                log_u64(&line, "number", id);
        if (name)
                log_text(&line, "name", name);
        log_text(&line, "message", why);
        log_end(&line);
}

static void noted(RecoverWhat what, uint64_t id, const char *name, const char *why, void *userdata) {
        Recovery *recovery = userdata;

        if (recovery->n_notes++ < NOTES_MAX)
                say_dropped(what_names[what], id, name, why);
}

static void note_dropped(Recovery *recovery, const char *what, const char *why) {
        ++recovery->n_notes;
        say_dropped(what, 0, NULL, why);
}

static void log_recovered(const Recovery *recovery, const Recover *out) {
        const Broker *broker = recovery->broker;
        LogLine line;

        log_begin(&line, LOG_NOTE, "recovered");
        log_u64(&line, "regions", out->n_regions);
        log_u64(&line, "names", out->n_names);
        log_u64(&line, "directories", out->n_directories);
        log_u64(&line, "orphans", broker->regions.n_orphans);
        log_u64(&line, "condemned", out->n_condemned);
        log_u64(&line, "tickets", out->n_tickets);
        log_u64(&line, "grants", out->n_grants);
        log_u64(&line, "sessions", broker->sessions.n);
        log_u64(&line, "generation", broker->generation);
        log_u64(&line, "dropped", recovery->n_notes);
        log_u64(&line, "damaged-cells", state_damaged(broker->state));
        log_u64(&line, "us", (time_now() - recovery->began) / NSEC_PER_USEC);
        log_end(&line);
}

/* -- descriptors ---------------------------------------------------------------------------- */

static int take_rest(Recovery *recovery, const Kept *kept, size_t n) {
        recovery->rest = malloc((n + 1) * sizeof(*recovery->rest));
        if (!recovery->rest) {
                for (size_t i = 0; i < n; ++i)
                        (void)close(kept[i].fd);
                return error_origin(-ENOMEM);
        }
        if (n > 0)
                memcpy(recovery->rest, kept, n * sizeof(*kept));
        recovery->n_rest = n;
        return 0;
}

/* Return: the descriptor of that name, the caller's; -1: there is none. Which of several is left to chance,
 * as there cannot be several. */
static int take(Recovery *recovery, const char *name) {
        for (size_t i = 0; i < recovery->n_rest; ++i) {
                int fd = recovery->rest[i].fd;

                if (strcmp(recovery->rest[i].name, name))
                        continue;
                recovery->rest[i] = recovery->rest[--recovery->n_rest];
                return fd;
        }
        return -1;
}

/* -- the state ------------------------------------------------------------------------------ */

static int refuse(const Recovery *recovery, const char *why) {
        (void)snprintf(recovery->sentence, BROKER_START_SENTENCE_MAX, "%s: it is left as it is", why);
        return RECOVERY_E_REFUSED;
}

/* Return: 0, also if it cannot be read; RECOVERY_E_REFUSED, or a negative errno. */
static int adopt_state(Recovery *recovery, const char *name, int state_fd) {
        CLEANUP(close_fdp) int fd = state_fd;
        const char *why = "it cannot be asked";
        char text[96];
        struct stat st;
        int r = STATE_E_INVALID;

        if (fstat(fd, &st) == 0 && st.st_uid != recovery->broker->options->uid) {
                (void)snprintf(text, sizeof(text), "what is kept belongs to a broker of uid %u", st.st_uid);
                return refuse(recovery, text);
        }
        r = state_adopt_consume_fd(&recovery->broker->state, steal_fd(&fd), BROKER_STATE_CELLS_MAX, &why);
        if (r == STATE_E_NEWER)
                return refuse(recovery, "what is kept was written by a later version of shmd");
        if (r != STATE_E_INVALID)
                return error_fold(r);
        note_dropped(recovery, name, why);
        return 0;
}

/* The first that can be read counts; another one is of no use. */
static int choose_state(Recovery *recovery) {
        for (size_t i = 0; i < N_STATE_NAMES; ++i) {
                const char *name = state_names[i];
                bool chosen = false;
                int fd, r;

                while ((fd = take(recovery, name)) >= 0) {
                        recovery->taken[i] = true;
                        if (recovery->broker->state) {
                                (void)close_fd(fd);
                                continue;
                        }
                        r = adopt_state(recovery, name, fd);
                        if (r)
                                return r;
                        chosen = recovery->broker->state;
                }
                if (recovery->taken[i] && !chosen)
                        fdstore_remove(recovery->broker->store, name);
        }
        return 0;
}

/* A name that nothing has in the store; NULL: there is none. */
static const char *free_name(const Recovery *recovery) {
        for (size_t i = 0; i < N_STATE_NAMES; ++i)
                if (!recovery->taken[i])
                        return state_names[i];
        return NULL;
}

/* Nothing is served yet: this may wait. */
static int push_state(const Recovery *recovery) {
        const Broker *broker = recovery->broker;
        const char *name = free_name(recovery);
        unsigned int tries = 0;
        int r;

        if (!name)
                return refuse(recovery, "nothing of what is kept can be read");
        do
                r = fdstore_push(broker->store, name, state_fd(broker->state));
        while (r == FDSTORE_E_BUSY && fdstore_wait(&tries));
        return r == FDSTORE_E_BUSY ? error_origin(-EBUSY) : error_fold(r);
}

/* How records are written, and room for those that are made here. */
static int prepare_state(Broker *broker) {
        int r;

        persist_register(broker->state);
        sessions_register(broker->state);
        r = state_make_room(broker->state, STATE_ROOM);
        return r == STATE_E_FULL ? error_origin(-ENOSPC) : error_fold(r);
}

/* -- the policy ------------------------------------------------------------------------------ */

static int visit_policy(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Recovery *recovery = userdata;
        PersistPolicy *policy = &recovery->broker->policy_record;

        (void)kind;
        if (policy->record.state || saved_decode_policy(&policy->saved, data, n)) {
                state_forget(recovery->broker->state, cell);
                note_dropped(recovery, "policy", "its record is damaged");
        } else {
                state_bind(recovery->broker->state, &policy->record, STATE_POLICY, id, cell);
        }
        return 0;
}

/* Reads the bytes of the policy. *ret is for free(3), NULL if they are not there. Return: 0, -ENOMEM. */
static int read_policy(Recovery *recovery, const SavedPolicy *saved, uint8_t **ret) {
        CLEANUP(freep) uint8_t *blob = NULL;
        CLEANUP(close_fdp) int fd = -1;
        char name[FDSTORE_NAME_MAX];

        *ret = NULL;
        broker_policy_name(saved->generation, name);
        fd = take(recovery, name);
        if (fd < 0 || saved->n_blob > POLICY_BYTES_MAX)
                return 0;
        blob = malloc(saved->n_blob);
        if (!blob)
                return error_origin(-ENOMEM);
        if (memfd_read_sealed(fd, blob, saved->n_blob) == 0) {
                *ret = blob;
                blob = NULL;
        }
        return 0;
}

/* Puts the limits of the policy in force, without a look at any file. Without it, whoever starts the broker
 * gives it one. */
static int recover_policy(Recovery *recovery) {
        Broker *broker = recovery->broker;
        PersistPolicy *policy = &broker->policy_record;
        CLEANUP(freep) uint8_t *blob = NULL;
        char sentence[BROKER_SENTENCE_MAX] = "its bytes were not kept";
        int r;

        r = state_walk(broker->state, STATE_POLICY, visit_policy, recovery);
        if (r)
                return error_fold(r);
        if (!policy->record.state) {
                policy->saved = (SavedPolicy){ .generation = 0 };
                state_add(broker->state, &policy->record, STATE_POLICY, 1);
        }
        broker->generation = policy->saved.generation;
        if (policy->saved.n_blob == 0)
                return 0;
        r = read_policy(recovery, &policy->saved, &blob);
        if (r)
                return error_fold(r);
        r = blob ? broker_restore_policy(broker, blob, policy->saved.n_blob, sentence) : BROKER_POLICY_E_REFUSED;
        if (r == BROKER_POLICY_E_REFUSED) {
                note_dropped(recovery, "policy", sentence);
                return 0;
        }
        return error_fold(r);
}

/* -- everything ------------------------------------------------------------------------------ */

static bool join_session(Region *region, uint64_t number, void *userdata) {
        const Recovery *recovery = userdata;

        return sessions_adopt(region, number, &recovery->broker->sessions);
}

static Recover recover_of(Recovery *recovery) {
        Broker *broker = recovery->broker;

        return (Recover){
                .state = broker->state,
                .store = broker->store,
                .counters = &broker->counters,
                .accounts = &broker->accounts,
                .tree = &broker->tree,
                .regions = &broker->regions,
                .grants = &broker->grants,
                .tickets = &broker->tickets,
                .expiries = &broker->expiries,
                .events = &broker->events,
                .last_session = &broker->sessions.last,
                .uid = broker->options->uid,
                .note = noted,
                .session = join_session,
                .userdata = recovery,
        };
}

static void save_sessions(Broker *broker) {
        broker->sessions.state = broker->state;
        broker->sessions.counters = &broker->counters;
}

static int adopt(Recovery *recovery) {
        Broker *broker = recovery->broker;
        Recover recover;
        size_t n = recovery->n_rest;
        int r;

        broker->adopted = true;
        r = prepare_state(broker);
        if (!r)
                r = recover_policy(recovery);
        if (!r)
                r = sessions_recover(&broker->sessions, broker->state);
        if (r)
                return error_fold(r);
        recover = recover_of(recovery);
        n = recovery->n_rest;
        recovery->n_rest = 0;
        r = recover_consume_fds(&recover, recovery->rest, n);
        save_sessions(broker);
        if (!r && broker->policy_record.saved.pending)
                r = broker_finish_policy(broker);
        if (!r)
                r = sessions_await(&broker->sessions, &broker->accounts, broker->options->session_grace_ns);
        if (r)
                return error_fold(r);
        log_recovered(recovery, &recover);
        return 0;
}

/* From now on everything is saved. So far there is the root directory. */
static void save_core(Broker *broker) {
        State *state = broker->state;

        counters_init(&broker->counters, state);
        counters_used(&broker->counters, COUNTER_SEQUENCE, broker->events.sequence);
        counters_used(&broker->counters, COUNTER_REGION, broker->regions.last_id);
        state_add(state, &broker->policy_record.record, STATE_POLICY, 1);
        tree_save(&broker->tree, state, &broker->counters);
        broker->events.counters = &broker->counters;
        broker->regions.state = broker->grants.state = broker->tickets.state = state;
        broker->regions.counters = broker->grants.counters = broker->tickets.counters = &broker->counters;
        save_sessions(broker);
}

/* What is kept and not known is let go. */
static int begin_anew(Recovery *recovery) {
        Broker *broker = recovery->broker;
        Recover recover = recover_of(recovery);
        size_t n = recovery->n_rest;
        int r;

        r = state_new(&broker->state, BROKER_STATE_CELLS_MAX);
        if (!r)
                r = prepare_state(broker);
        if (!r)
                r = push_state(recovery);
        if (r)
                return r == RECOVERY_E_REFUSED ? r : error_fold(r);
        recovery->n_rest = 0;
        r = recover_without_state_consume_fds(&recover, recovery->rest, n);
        if (r)
                return error_fold(r);
        save_core(broker);
        if (recovery->n_notes > 0)
                log_recovered(recovery, &recover);
        return 0;
}

/* What is kept stays as it is. */
static void abandon(Broker *broker) {
        broker->state = state_free(broker->state);
        regions_forget_store(&broker->regions);
        broker->store = fdstore_free(broker->store);
}

static int run(Recovery *recovery) {
        Broker *broker = recovery->broker;
        BrokerStart *start = broker->options->start;
        int r = 0;

        if (start) {
                recovery->sentence = start->sentence;
                r = take_rest(recovery, start->kept, start->n_kept);
                start->n_kept = 0;
                if (!r && start->open_store)
                        r = start->open_store(&broker->store, &broker->deadlines, recovery->n_rest);
        }
        if (!r)
                r = choose_state(recovery);
        if (r)
                return r == RECOVERY_E_REFUSED ? r : error_fold(r);
        broker->regions.store = broker->store;
        return broker->state ? adopt(recovery) : begin_anew(recovery);
}

int recovery_run_consume_fds(Broker *broker) {
        CLEANUP(recovery_deinit) Recovery recovery = { .broker = broker, .began = time_now() };
        int r = run(&recovery);

        if (r)
                abandon(broker);
        return r == RECOVERY_E_REFUSED ? r : error_fold(r);
}
