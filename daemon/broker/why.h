/* Why: the rules that a request met, noted while it was being checked.
 *
 * The questions of a handler are asked by functions that why asks too, for itself or for somebody
 * else, and that note here what they find. So the explanation cannot drift from what happens. A
 * request that nobody wants explained has no Why, and notes nothing.
 *
 * There is room for what fits one answer. If that is used up, rules that allowed are left out; the
 * one that refused always has its place.
 */
#ifndef BROKER_WHY_H
#define BROKER_WHY_H

#include "acct/account.h"
#include "broker/audit.h"
#include "core/access.h"
#include "proto/message.h"

#define WHY_STEPS_MAX 128
#define WHY_SENTENCE_MAX 256

typedef struct Why {
        size_t n;
        size_t room;            /* bytes left in the answer */
        Shmd__WhyStep steps[WHY_STEPS_MAX];
        Shmd__WhyStep *pointers[WHY_STEPS_MAX];
        char sentences[WHY_STEPS_MAX][WHY_SENTENCE_MAX];
} Why;

void why_init(Why *why);

/* Each notes one rule; why may be NULL. thing: borrowed, and may be NULL if n_thing is 0. */
void why_access(Why *why, uint32_t reason, const void *thing, size_t n_thing, const Permissions *what,
                unsigned int want, const AccessDecision *decision);
void why_owner(Why *why, uint32_t reason, const void *thing, size_t n_thing, const Permissions *what,
               const Credentials *who, bool allowed);
void why_admin(Why *why, const Credentials *who);
void why_limit(Why *why, const void *thing, size_t n_thing, const Shortage *figures, bool allowed);
/* What refused, unless the last rule noted is that. */
void why_refusal(Why *why, const Refusal *refusal);

#endif
