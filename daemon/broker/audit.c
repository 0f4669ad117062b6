/* The wording of every refusal: see the header for the model. */

#include "broker/audit.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/region.h"
#include "proto/acltext.h"
#include "util/deadline.h"
#include "util/log.h"

/* Lines one user may write at once, and how fast that fills up again. */
#define LOG_BURST 20
#define LOG_REFILL_NS (NSEC_PER_SEC / 2)

static const char *const errors[] = {
        [SHMD__ERROR__ERROR_NONE]          = "none",
        [SHMD__ERROR__ERROR_INVALID]       = "invalid",
        [SHMD__ERROR__ERROR_NOT_FOUND]     = "not-found",
        [SHMD__ERROR__ERROR_EXISTS]        = "exists",
        [SHMD__ERROR__ERROR_DENIED]        = "denied",
        [SHMD__ERROR__ERROR_QUOTA]         = "quota",
        [SHMD__ERROR__ERROR_TIMEOUT]       = "timeout",
        [SHMD__ERROR__ERROR_NOT_DIRECTORY] = "not-directory",
        [SHMD__ERROR__ERROR_IS_DIRECTORY]  = "is-directory",
        [SHMD__ERROR__ERROR_NOT_EMPTY]     = "not-empty",
        [SHMD__ERROR__ERROR_BUSY]          = "busy",
        [SHMD__ERROR__ERROR_UNSUPPORTED]   = "unsupported",
        [SHMD__ERROR__ERROR_NO_MEMORY]     = "no-memory",
        [SHMD__ERROR__ERROR_SHUTDOWN]      = "shutdown",
};

/* By AccountSlot; on the wire they count from 1. */
static const char *const slots[_ACCOUNT_SLOT_N] = {
        [ACCOUNT_BYTES]    = "bytes",
        [ACCOUNT_REGIONS]  = "regions",
        [ACCOUNT_GRANTS]   = "grants",
        [ACCOUNT_PEERS]    = "peers",
        [ACCOUNT_WATCHES]  = "watches",
        [ACCOUNT_PENDING]  = "pending",
        [ACCOUNT_INFLIGHT] = "inflight",
};

const char *audit_error_name(uint32_t error) {
        return error < sizeof(errors) / sizeof(errors[0]) ? errors[error] : "unknown";
}

const char *audit_slot_name(uint32_t slot) {
        return slot >= 1 && slot <= _ACCOUNT_SLOT_N ? slots[slot - 1] : "none";
}

void audit_refuse(Refusal *refusal, uint32_t error, uint32_t reason, const void *thing, size_t n_thing,
                  const char *sentence, ...) {
        va_list arguments;

        *refusal = (Refusal){ .error = error, .reason = reason, .thing = thing, .n_thing = n_thing };
        va_start(arguments, sentence);
        (void)vsnprintf(refusal->sentence, sizeof(refusal->sentence), sentence, arguments);
        va_end(arguments);
}

void audit_shortage(Refusal *refusal, const Shortage *shortage, const void *path, size_t n_path) {
        const char *slot = slots[shortage->slot];
        uint32_t reason = SHMD__REASON__REASON_LIMIT;
        char whose[48];

        if (shortage->kind == ACCOUNT_DIRECTORY) {
                reason = SHMD__REASON__REASON_DIRECTORY_LIMIT;
                (void)snprintf(whose, sizeof(whose), "the directory's limit");
        } else if (shortage->share) {
                reason = SHMD__REASON__REASON_SHARE;
                (void)snprintf(whose, sizeof(whose), "the fair share of uid %u", shortage->uid);
        } else {
                (void)snprintf(whose, sizeof(whose), "the limit of uid %u", shortage->uid);
        }
        audit_refuse(refusal, SHMD__ERROR__ERROR_QUOTA, reason, path, n_path,
                     "over quota: %s is %" PRIu64 " %s, %" PRIu64 " left, %" PRIu64 " asked",
                     whose, shortage->limit, slot, shortage->left, shortage->asked);
        refusal->slot = (uint32_t)shortage->slot + 1;
        refusal->uid = shortage->uid;
        refusal->asked = shortage->asked;
        refusal->left = shortage->left;
        refusal->limit = shortage->limit;
}

void audit_tree(Refusal *refusal, int r, const Spot *spot, bool sticky) {
        const void *path = spot->path;
        size_t decided = spot->decided;

        switch (r) {
        case TREE_E_NAME:
                audit_refuse(refusal, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_NAME, NULL, 0,
                             "%s", path_error_sentence(spot->name_error));
                break;
        case TREE_E_MISSING:
                audit_refuse(refusal, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING, path, decided,
                             "there is no such name");
                break;
        case TREE_E_NOT_DIRECTORY:
                audit_refuse(refusal, SHMD__ERROR__ERROR_NOT_DIRECTORY, SHMD__REASON__REASON_MISSING, path, decided,
                             "it is a region, not a directory");
                break;
        case TREE_E_ROOT:
                audit_refuse(refusal, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_ROOT, "/", 1,
                             "that is not possible with the root directory");
                break;
        case TREE_E_DENIED:
        default:
                if (sticky)
                        audit_refuse(refusal, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_STICKY, path, decided,
                                     "in a sticky directory only the owner of the name or of the directory may");
                else
                        audit_refuse(refusal, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH, path, decided,
                                     "no search permission on the directory");
                break;
        }
}

static const char *const classes[] = {
        [ACCESS_BY_NOBODY]    = "nobody",
        [ACCESS_BY_ADMIN]     = "an administrator",
        [ACCESS_BY_OWNER]     = "its owner, uid",
        [ACCESS_BY_USER]      = "its ACL's uid",
        [ACCESS_BY_GROUP]     = "its group, gid",
        [ACCESS_BY_ACL_GROUP] = "its ACL's gid",
        [ACCESS_BY_OTHER]     = "everybody else",
};

void audit_decision(const AccessDecision *decision, char text[AUDIT_DECISION_MAX]) {
        bool somebody = decision->by >= ACCESS_BY_OWNER && decision->by <= ACCESS_BY_ACL_GROUP;
        char perms[4], mask[4], id[16] = "";

        acltext_perms(decision->perms, perms);
        acltext_perms(decision->mask, mask);
        if (somebody)
                (void)snprintf(id, sizeof(id), " %u", decision->id);
        (void)snprintf(text, AUDIT_DECISION_MAX, "%s%s has %s%s%s", classes[decision->by], id, perms,
                       decision->mask ? ", after its mask " : "", decision->mask ? mask : "");
}

void audit_access(Refusal *refusal, uint32_t reason, const void *thing, size_t n_thing,
                  const Permissions *what, const AccessDecision *decision, const char *sentence) {
        char text[AUDIT_DECISION_MAX];

        audit_decision(decision, text);
        audit_refuse(refusal, SHMD__ERROR__ERROR_DENIED, reason, thing, n_thing, "%s (mode %04o, uid %u, gid %u): %s",
                     sentence, what->mode, what->uid, what->gid, text);
}

void audit_message(const Refusal *refusal, Shmd__Refusal *ret) {
        shmd__refusal__init(ret);
        ret->error = refusal->error;
        ret->reason = refusal->reason;
        ret->thing = (ProtobufCBinaryData){ .data = (uint8_t *)refusal->thing, .len = refusal->n_thing };
        ret->slot = refusal->slot;
        ret->uid = refusal->uid;
        ret->asked = refusal->asked;
        ret->left = refusal->left;
        ret->limit = refusal->limit;
        ret->index = refusal->index;
        ret->sentence = (ProtobufCBinaryData){ .data = (uint8_t *)refusal->sentence, .len = strlen(refusal->sentence) };
}

/* -- the log -------------------------------------------------------------------------- */

static bool may_say(Voice *voice, uint64_t now) {
        uint64_t gained;

        if (voice->refill_at == 0) {
                voice->tokens = LOG_BURST;
                voice->refill_at = now;
        }
        gained = (now - voice->refill_at) / LOG_REFILL_NS;
        if (gained > 0) {
                uint64_t tokens = voice->tokens + gained;

                voice->tokens = tokens > LOG_BURST ? LOG_BURST : (uint32_t)tokens;
                voice->refill_at += gained * LOG_REFILL_NS;
        }
        if (voice->tokens == 0) {
                ++voice->suppressed;
                return false;
        }
        --voice->tokens;
        return true;
}

/* A shortage is said once, until something of that slot could be had again. */
static bool is_said(Account *account, const Refusal *refusal) {
        uint32_t bit;

        if (refusal->slot == 0)
                return false;
        bit = UINT32_C(1) << (refusal->slot - 1);
        if (account->audit.slots & bit)
                return true;
        account->audit.slots |= bit;
        return false;
}

static int priority_of(const Refusal *refusal) {
        switch (refusal->error) {
        case SHMD__ERROR__ERROR_NOT_FOUND:
        case SHMD__ERROR__ERROR_EXISTS:
        case SHMD__ERROR__ERROR_TIMEOUT:
                return LOG_INFORM;
        default:
                return LOG_NOTE;
        }
}

static void end_with_suppressed(LogLine *line, Voice *voice) {
        if (voice->suppressed)
                log_u64(line, "suppressed_before", voice->suppressed);
        voice->suppressed = 0;
        log_end(line);
}

void audit_log(const Refusal *refusal, Account *account, uint64_t peer, pid_t pid, const char *request) {
        Voice *voice = accounts_voice(account->accounts, account->uid);
        LogLine line;

        if (is_said(account, refusal) || !may_say(voice, time_now()))
                return;

        log_begin(&line, priority_of(refusal), "refused");
        log_u64(&line, "uid", account->uid);
        log_u64(&line, "pid", (uint64_t)pid);
        log_u64(&line, "peer", peer);
        log_text(&line, "request", request);
        log_text(&line, "error", audit_error_name(refusal->error));
        log_text(&line, "reason", message_reason_name(refusal->reason));
        if (refusal->n_thing)
                log_bytes(&line, "thing", refusal->thing, refusal->n_thing);
        if (refusal->slot) {
                log_text(&line, "slot", audit_slot_name(refusal->slot));
                log_u64(&line, "account", refusal->uid);
                log_u64(&line, "asked", refusal->asked);
                log_u64(&line, "left", refusal->left);
                log_u64(&line, "limit", refusal->limit);
        }
        log_text(&line, "message", refusal->sentence);
        end_with_suppressed(&line, voice);
}

void audit_log_ticket(const char *event, const Ticket *ticket, Account *account, uint64_t peer, pid_t pid) {
        Voice *voice = accounts_voice(account->accounts, account->uid);
        LogLine line;

        if (!may_say(voice, time_now()))
                return;

        log_begin(&line, LOG_INFORM, event);
        log_u64(&line, "uid", account->uid);
        log_u64(&line, "pid", (uint64_t)pid);
        log_u64(&line, "peer", peer);
        log_u64(&line, "ticket", ticket->id);
        log_u64(&line, "region", ticket->region->id);
        log_text(&line, "rights", ticket->spec.writable ? "read-write" : "read-only");
        log_u64(&line, "left", ticket->left);
        if (ticket->spec.one_user)
                log_u64(&line, "for", ticket->spec.uid);
        end_with_suppressed(&line, voice);
}

void audit_log_closed(Account *account, uint64_t peer, pid_t pid, const char *reason) {
        Voice *voice = accounts_voice(account->accounts, account->uid);
        LogLine line;

        if (!may_say(voice, time_now()))
                return;

        log_begin(&line, LOG_NOTE, "peer-closed");
        log_u64(&line, "uid", account->uid);
        log_u64(&line, "pid", (uint64_t)pid);
        log_u64(&line, "peer", peer);
        log_text(&line, "reason", reason);
        end_with_suppressed(&line, voice);
}

void audit_log_trouble(Account *account, const char *request, int error) {
        Voice *voice = accounts_voice(account->accounts, account->uid);
        LogLine line;

        if (!may_say(voice, time_now()))
                return;

        log_begin(&line, LOG_ERROR, "trouble");
        log_u64(&line, "uid", account->uid);
        log_text(&line, "request", request);
        log_errno(&line, "error", error);
        end_with_suppressed(&line, voice);
}

void audit_log_not_accepted(Accounts *accounts, uid_t uid, const char *reason, int error) {
        Voice *voice = accounts_voice(accounts, uid);
        LogLine line;

        if (!may_say(voice, time_now()))
                return;

        log_begin(&line, LOG_NOTE, "not-accepted");
        if (uid != (uid_t)-1)
                log_u64(&line, "uid", uid);
        log_text(&line, "reason", reason);
        if (error)
                log_errno(&line, "error", error);
        end_with_suppressed(&line, voice);
}
