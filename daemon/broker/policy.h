/* The policy in force, and how another one takes its place.
 *
 * A compiled policy is checked as what any client sends is, and takes effect for everybody in the
 * same turn of the loop, or not at all. The turn walks over the peers, the accounts, and the
 * directories that the old and the new policy name: as many as there can be of those, and no more.
 */
#ifndef BROKER_POLICY_H
#define BROKER_POLICY_H

#include "broker/broker.h"

#define BROKER_SENTENCE_MAX 192

enum {
        _BROKER_POLICY_E_SUCCESS,
        BROKER_POLICY_E_REFUSED,        /* the sentence says why */
        BROKER_POLICY_E_BUSY,           /* the store of descriptors has no room at the moment */
};

typedef struct PolicyOutcome {
        uint32_t directories;   /* made */
        uint32_t accounts;      /* whose limits are other than before */
} PolicyOutcome;

/* Puts a compiled policy in force, and keeps its bytes for the next broker. Return: 0;
 * BROKER_POLICY_E_REFUSED, BROKER_POLICY_E_BUSY, -ENOMEM: then everything is as it was. */
int broker_set_policy(Broker *broker, const uint8_t *blob, size_t n, PolicyOutcome *ret,
                      char sentence[BROKER_SENTENCE_MAX]);

/* After a restart, before there is anything else: the limits of the policy that was in force are so again.
 * Return: 0, BROKER_POLICY_E_REFUSED, -ENOMEM. */
int broker_restore_policy(Broker *broker, const uint8_t *blob, size_t n, char sentence[BROKER_SENTENCE_MAX]);
/* Likewise, when everything is there: it had not taken effect in the tree. Return: 0, -ENOMEM. */
int broker_finish_policy(Broker *broker);

/* Under which name the store has the bytes of a policy. */
void broker_policy_name(uint64_t generation, char ret[FDSTORE_NAME_MAX]);

/* Checks a compiled policy without a broker, as far as that is possible. Return: likewise. */
int broker_check_policy(const BrokerOptions *options, const uint8_t *blob, size_t n,
                        char sentence[BROKER_SENTENCE_MAX]);

#endif
