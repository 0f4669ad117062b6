/* The policy in force: see the header for the model. */

#include "broker/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/peer.h"
#include "core/enact.h"
#include "util/error.h"
#include "util/log.h"
#include "util/memfd.h"

/* Regions, connections and descriptors on their way share what may be open at once. Without a word
 * about regions, those are what the other two leave. Return: whether there is room for them all. */
static bool fit_descriptors(const BrokerOptions *options, Limits *global, char sentence[BROKER_SENTENCE_MAX]) {
        static const struct {
                AccountSlot slot;
                const char *key;
        } order[] = { { ACCOUNT_PEERS, "peers" }, { ACCOUNT_INFLIGHT, "inflight" }, { ACCOUNT_REGIONS, "regions" } };
        uint64_t left = options->objects;
        uint32_t all = 0;

        for (size_t i = 0; i < 3; ++i)
                all |= UINT32_C(1) << order[i].slot;
        if (!(global->slots & all))
                return true;
        for (size_t i = 0; i < 3; ++i) {
                AccountSlot slot = order[i].slot;
                bool named = global->slots & (UINT32_C(1) << slot);
                uint64_t limit = named ? global->max[slot] : options->rules.global.max[slot];

                if (!named && slot == ACCOUNT_REGIONS && limit > left)
                        limit = left;
                if (limit > left) {
                        (void)snprintf(sentence, BROKER_SENTENCE_MAX, "[global] %s: %" PRIu64 " is impossible, the limit "
                                       "of descriptors (RLIMIT_NOFILE) leaves room for %" PRIu64, order[i].key, limit, left);
                        return false;
                }
                left -= limit;
                global->max[slot] = limit;
        }
        global->slots |= all;
        return true;
}

static int read_blob(const uint8_t *blob, size_t n, Policy **ret, char sentence[BROKER_SENTENCE_MAX]) {
        const char *what;
        int r;

        r = policy_decode(blob, n, ret, &what);
        if (r == POLICY_E_INVALID) {
                (void)snprintf(sentence, BROKER_SENTENCE_MAX, "the compiled policy is not valid: %s", what);
                return BROKER_POLICY_E_REFUSED;
        }
        return error_fold(r);
}

static int decode(const BrokerOptions *options, const uint8_t *blob, size_t n, Policy **ret,
                  char sentence[BROKER_SENTENCE_MAX]) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        int r;

        r = read_blob(blob, n, &policy, sentence);
        if (r)
                return r == BROKER_POLICY_E_REFUSED ? r : error_fold(r);
        if (!fit_descriptors(options, &policy->rules.global, sentence))
                return BROKER_POLICY_E_REFUSED;
        *ret = policy;
        policy = NULL;
        return 0;
}

int broker_check_policy(const BrokerOptions *options, const uint8_t *blob, size_t n,
                        char sentence[BROKER_SENTENCE_MAX]) {
        CLEANUP(policy_freep) Policy *policy = NULL;

        return decode(options, blob, n, &policy, sentence);
}

static void tell_limits(uid_t uid, void *userdata) {
        Broker *broker = userdata;

        events_limits_user(&broker->events, uid);
}

/* Every account has its limits by the new rules: of who is connected, by the groups it connected with. */
static uint32_t settle_accounts(Broker *broker) {
        for (Peer *peer = peers_first(broker); peer; peer = peers_next(peer))
                account_forget_groups(peer->account);
        for (Peer *peer = peers_first(broker); peer; peer = peers_next(peer))
                account_meet_groups(peer->account, peer->cred.gid, peer->cred.groups, peer->cred.n_groups);
        return accounts_settle(&broker->accounts, tell_limits, broker);
}

/* Whoever waits for a name may find it now, or be allowed to. */
static void tell_waiters(Broker *broker) {
        for (size_t i = 0; i < broker->policy->n_directories; ++i) {
                const char *path = broker->policy->directories[i].path;

                waiters_notify(&broker->waiters, path, strlen(path));
                waiters_notify_below(&broker->waiters, path, strlen(path));
        }
}

static void log_policy(const Broker *broker, const PolicyOutcome *outcome) {
        LogLine line;

        log_begin(&line, LOG_NOTE, "policy");
        log_u64(&line, "generation", broker->generation);
        log_u64(&line, "directories", outcome->directories);
        log_u64(&line, "accounts", outcome->accounts);
        log_end(&line);
}

/* -- keeping it ------------------------------------------------------------------------------ */

/* More directories than this do not fit one transaction of the state for certain. */
#define DIRECTORIES_AT_ONCE 128

void broker_policy_name(uint64_t generation, char ret[FDSTORE_NAME_MAX]) {
        (void)snprintf(ret, FDSTORE_NAME_MAX, "policy-%" PRIu64, generation);
}

/* Leaves the bytes of the next policy with the store. */
static int push_blob(const Broker *broker, const uint8_t *blob, size_t n) {
        CLEANUP(close_fdp) int fd = -1;
        char name[FDSTORE_NAME_MAX];
        int r;

        if (!broker->store)
                return 0;
        r = memfd_make_sealed("shmd-policy", blob, n, &fd);
        if (r)
                return r == MEMFD_E_NO_MEMORY ? error_origin(-ENOMEM) : error_fold(r);
        broker_policy_name(broker->generation + 1, name);
        r = fdstore_push(broker->store, name, fd);
        return r == FDSTORE_E_BUSY ? BROKER_POLICY_E_BUSY : error_fold(r);
}

static void remove_blob(const Broker *broker, const SavedPolicy *policy) {
        char name[FDSTORE_NAME_MAX];

        if (!broker->store || policy->n_blob == 0)
                return;
        broker_policy_name(policy->generation, name);
        fdstore_remove(broker->store, name);
}

/* Everything about a directory may have to be written anew: of those that are named, and that were. */
static int make_room(Broker *broker, const Policy *policy) {
        size_t n = policy->n_directories + (broker->policy ? broker->policy->n_directories : 0);
        int r = state_make_room(broker->state, STATE_ROOM + (uint32_t)n * STATE_RECORD_CELLS);

        return r == STATE_E_FULL ? error_origin(-ENOMEM) : error_fold(r);
}

/* -- putting it in force --------------------------------------------------------------------- */

/* The directories are as the policy has them, all or none. With many of them that is more than one
 * transaction; then the first one says that the policy is in force, and what it has to do still. */
static int enact(Broker *broker, const Policy *policy, size_t n_blob, uint32_t *ret_made,
                 char sentence[BROKER_SENTENCE_MAX]) {
        PersistPolicy *record = &broker->policy_record;
        SavedPolicy before = record->saved;
        size_t n = policy->n_directories + (broker->policy ? broker->policy->n_directories : 0);
        const char *path;
        int r;

        record->saved = (SavedPolicy){ .generation = broker->generation + 1, .n_blob = (uint32_t)n_blob,
                                       .pending = n > DIRECTORIES_AT_ONCE };
        state_touch(&record->record);
        r = enact_directories(&broker->tree, &broker->accounts, policy, ret_made, &path);
        if (r) {
                record->saved = before;
                if (r != ENACT_E_TAKEN)
                        return error_fold(r);
                (void)snprintf(sentence, BROKER_SENTENCE_MAX, "[directory %.100s]: a region has that name, or one above it",
                               path);
                return BROKER_POLICY_E_REFUSED;
        }
        if (record->saved.pending) {
                broker_commit(broker);
                record->saved.pending = false;
                state_touch(&record->record);
        }
        remove_blob(broker, &before);
        return 0;
}

/* Nothing can fail any more. */
static void take(Broker *broker, Policy *policy, PolicyOutcome *ret) {
        Policy *before = broker->policy;

        broker->policy = policy;
        ++broker->generation;
        accounts_set_policy(&broker->accounts, &policy->rules);
        ret->accounts = settle_accounts(broker);
        (void)policy_free(before);
        log_policy(broker, ret);
        tell_waiters(broker);
}

int broker_set_policy(Broker *broker, const uint8_t *blob, size_t n, PolicyOutcome *ret,
                      char sentence[BROKER_SENTENCE_MAX]) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        SavedPolicy pushed = { .generation = broker->generation + 1, .n_blob = 1 };
        int r;

        r = decode(broker->options, blob, n, &policy, sentence);
        if (!r)
                r = make_room(broker, policy);
        if (!r)
                r = push_blob(broker, blob, n);
        if (r)
                return r > 0 ? r : error_fold(r);
        r = enact(broker, policy, n, &ret->directories, sentence);
        if (r) {
                remove_blob(broker, &pushed);
                return r > 0 ? r : error_fold(r);
        }
        take(broker, policy, ret);
        policy = NULL;
        return 0;
}

/* -- after a restart ------------------------------------------------------------------------- */

/* This process may have fewer descriptors than the one before. What the policy says of their numbers cannot
 * be had then, and what the configuration says counts. */
static void fit_or_forget(const BrokerOptions *options, Limits *global) {
        static const uint32_t slots = UINT32_C(1) << ACCOUNT_PEERS | UINT32_C(1) << ACCOUNT_INFLIGHT |
                                      UINT32_C(1) << ACCOUNT_REGIONS;
        char sentence[BROKER_SENTENCE_MAX];
        LogLine line;

        if (fit_descriptors(options, global, sentence))
                return;
        global->slots &= ~slots;
        log_begin(&line, LOG_WARN, "policy-limits");
        log_text(&line, "message", sentence);
        log_end(&line);
}

int broker_restore_policy(Broker *broker, const uint8_t *blob, size_t n, char sentence[BROKER_SENTENCE_MAX]) {
        int r = read_blob(blob, n, &broker->policy, sentence);

        if (r)
                return r == BROKER_POLICY_E_REFUSED ? r : error_fold(r);
        fit_or_forget(broker->options, &broker->policy->rules.global);
        accounts_set_policy(&broker->accounts, &broker->policy->rules);
        return 0;
}

int broker_finish_policy(Broker *broker) {
        PersistPolicy *record = &broker->policy_record;
        const char *path;
        uint32_t made;
        int r = 0;

        if (broker->policy) {
                r = make_room(broker, broker->policy);
                if (!r)
                        r = enact_directories(&broker->tree, &broker->accounts, broker->policy, &made, &path);
                if (r == ENACT_E_TAKEN)
                        r = 0;          /* only what is damaged can be in the way: the limits are in force at least */
        }
        if (r)
                return error_fold(r);
        broker_commit(broker);
        record->saved.pending = false;
        state_touch(&record->record);
        return 0;
}
