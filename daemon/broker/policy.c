/* The policy in force: see the header for the model. */

#include "broker/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/peer.h"
#include "core/enact.h"
#include "util/error.h"
#include "util/log.h"

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

static int decode(const BrokerOptions *options, const uint8_t *blob, size_t n, Policy **ret,
                  char sentence[BROKER_SENTENCE_MAX]) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        const char *what;
        int r;

        r = policy_decode(blob, n, &policy, &what);
        if (r == POLICY_E_INVALID) {
                (void)snprintf(sentence, BROKER_SENTENCE_MAX, "the compiled policy is not valid: %s", what);
                return BROKER_POLICY_E_REFUSED;
        }
        if (r)
                return error_fold(r);
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

int broker_set_policy(Broker *broker, const uint8_t *blob, size_t n, PolicyOutcome *ret,
                      char sentence[BROKER_SENTENCE_MAX]) {
        CLEANUP(policy_freep) Policy *policy = NULL, *before = NULL;
        const char *path;
        int r;

        r = decode(broker->options, blob, n, &policy, sentence);
        if (r)
                return r;
        r = enact_directories(&broker->tree, &broker->accounts, policy, &ret->directories, &path);
        if (r == ENACT_E_TAKEN) {
                (void)snprintf(sentence, BROKER_SENTENCE_MAX, "[directory %.100s]: a region has that name, or one above it",
                               path);
                return BROKER_POLICY_E_REFUSED;
        }
        if (r)
                return error_fold(r);

        /* Nothing can fail any more. */
        before = broker->policy;
        broker->policy = policy;
        policy = NULL;
        ++broker->generation;
        accounts_set_policy(&broker->accounts, &broker->policy->rules);
        ret->accounts = settle_accounts(broker);
        log_policy(broker, ret);
        tell_waiters(broker);
        return 0;
}
