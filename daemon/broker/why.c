/* Why: see the header for the model. */

#include "broker/why.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/name.h"
#include "proto/wire.h"

/* What a step takes on the wire besides its thing and its sentence, generously. */
#define STEP_BYTES 128
/* What is kept free for the step that refuses, and for the answer's own fields. */
#define LAST_BYTES (2 * (PATH_BYTES_MAX + WHY_SENTENCE_MAX + STEP_BYTES))

void why_init(Why *why) {
        why->n = 0;
        why->room = WIRE_REPLY_MAX - sizeof(WireHeader) - LAST_BYTES;
}

/* A step to be filled in. Return: NULL when there is no room for one more that allowed. */
__attribute__((format(printf, 6, 7)))
static Shmd__WhyStep *add(Why *why, uint32_t reason, bool allowed, const void *thing, size_t n_thing,
                          const char *sentence, ...) {
        size_t bytes = n_thing + WHY_SENTENCE_MAX + STEP_BYTES;
        Shmd__WhyStep *step;
        va_list arguments;

        if (!why || why->n == WHY_STEPS_MAX || (allowed && (why->n == WHY_STEPS_MAX - 1 || bytes > why->room)))
                return NULL;
        if (allowed)
                why->room -= bytes;

        step = &why->steps[why->n];
        shmd__why_step__init(step);
        step->reason = reason;
        step->allowed = allowed;
        step->thing = (ProtobufCBinaryData){ .data = (uint8_t *)thing, .len = n_thing };
        va_start(arguments, sentence);
        (void)vsnprintf(why->sentences[why->n], WHY_SENTENCE_MAX, sentence, arguments);
        va_end(arguments);
        step->sentence = (ProtobufCBinaryData){ .data = (uint8_t *)why->sentences[why->n],
                                                .len = strlen(why->sentences[why->n]) };
        why->pointers[why->n++] = step;
        return step;
}

static void describe(Shmd__WhyStep *step, const Permissions *what) {
        step->uid = what->uid;
        step->gid = what->gid;
        step->mode = what->mode;
}

void why_access(Why *why, uint32_t reason, const void *thing, size_t n_thing, const Permissions *what,
                unsigned int want, const AccessDecision *decision) {
        char text[AUDIT_DECISION_MAX];
        Shmd__WhyStep *step;

        if (!why)
                return;
        audit_decision(decision, text);
        step = add(why, reason, decision->allowed, thing, n_thing, "%s", text);
        if (!step)
                return;
        describe(step, what);
        step->wanted = want;
        step->by = decision->by;
        step->id = decision->id;
        step->perms = decision->perms;
        step->mask = decision->mask;
}

void why_owner(Why *why, uint32_t reason, const void *thing, size_t n_thing, const Permissions *what,
               const Credentials *who, bool allowed) {
        const char *words = who->admin              ? "administers the broker" :
                            who->uid == what->uid   ? "owns it" :
                            allowed                 ? "owns the directory" :
                                                      "does not own it";
        Shmd__WhyStep *step;

        step = add(why, reason, allowed, thing, n_thing, "uid %u %s", who->uid, words);
        if (!step)
                return;
        describe(step, what);
        step->by = who->admin ? ACCESS_BY_ADMIN : allowed ? ACCESS_BY_OWNER : ACCESS_BY_OTHER;
        step->id = who->uid;
}

void why_admin(Why *why, const Credentials *who) {
        Shmd__WhyStep *step = add(why, SHMD__REASON__REASON_ADMIN, who->admin, NULL, 0, "uid %u %s the broker",
                                  who->uid,
                                  who->admin ? "administers" : "does not administer");

        if (!step)
                return;
        step->by = who->admin ? ACCESS_BY_ADMIN : ACCESS_BY_OTHER;
        step->id = who->uid;
}

void why_limit(Why *why, const void *thing, size_t n_thing, const Shortage *figures, bool allowed) {
        Shmd__WhyStep *step;
        Refusal refusal;

        if (!why)
                return;
        audit_shortage(&refusal, figures, thing, n_thing);
        step = add(why, refusal.reason, allowed, thing, n_thing, "%" PRIu64 " %s asked, %" PRIu64 " left of %" PRIu64,
                   refusal.asked, audit_slot_name(refusal.slot), refusal.left, refusal.limit);
        if (!step)
                return;
        step->uid = refusal.uid;
        step->slot = refusal.slot;
        step->asked = refusal.asked;
        step->left = refusal.left;
        step->limit = refusal.limit;
}

void why_refusal(Why *why, const Refusal *refusal) {
        Shmd__WhyStep *step;

        if (why->n > 0 && !why->steps[why->n - 1].allowed)
                return;
        step = add(why, refusal->reason, false, refusal->thing, refusal->n_thing, "%s", refusal->sentence);
        if (!step)
                return;
        step->uid = refusal->uid;
        step->slot = refusal->slot;
        step->asked = refusal->asked;
        step->left = refusal->left;
        step->limit = refusal->limit;
}
