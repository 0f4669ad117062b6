/* The wording of every refusal, for the client and for the log.
 *
 * A refusal names the thing, the rule that decided, and for limits whose account, which slot,
 * how much was asked and how much is left; for programs in fields, for people in one sentence.
 * The client always gets it. The log gets a shortage once until the slot recovers, and of
 * everything else at most a few lines a second of one user, with a count of what was left out:
 * refused requests must not become a way to fill a disk.
 */
#ifndef BROKER_AUDIT_H
#define BROKER_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "acct/account.h"
#include "core/ticket.h"
#include "core/tree.h"
#include "proto/message.h"

typedef struct Refusal {
        uint32_t error;         /* SHMD__ERROR__* */
        uint32_t reason;        /* SHMD__REASON__* */
        const void *thing;      /* borrowed from the request */
        size_t n_thing;
        uint32_t slot;          /* SHMD__SLOT__* */
        uint32_t uid;
        uint64_t asked;
        uint64_t left;
        uint64_t limit;
        uint32_t index;         /* of a batch */
        char sentence[256];
} Refusal;

/* Puts a refusal together. The sentence is a printf format. */
__attribute__((format(printf, 6, 7)))
void audit_refuse(Refusal *refusal, uint32_t error, uint32_t reason, const void *thing, size_t n_thing,
                  const char *sentence, ...);

/* For a charge that was refused; `path` is the thing, may be empty. */
void audit_shortage(Refusal *refusal, const Shortage *shortage, const void *path, size_t n_path);

/* For what tree_resolve(), tree_find() and tree_may_change() return. */
void audit_tree(Refusal *refusal, int r, const Spot *spot, bool sticky);

/* For permissions that do not give what is asked, by that decision; sentence: what is missing. */
void audit_access(Refusal *refusal, uint32_t reason, const void *thing, size_t n_thing,
                  const Permissions *what, const AccessDecision *decision, const char *sentence);

/* Who decided and what they have, in words: "its ACL's gid 50 has r--, after its mask r-x". */
#define AUDIT_DECISION_MAX 96
void audit_decision(const AccessDecision *decision, char text[AUDIT_DECISION_MAX]);

/* Names of numbers, as in the log. Static strings. */
const char *audit_error_name(uint32_t error);
const char *audit_slot_name(uint32_t slot);

/* What goes on the wire; points into the refusal. */
void audit_message(const Refusal *refusal, Shmd__Refusal *ret);

/* The log's share. account: of the asker; request: its name. */
void audit_log(const Refusal *refusal, Account *account, uint64_t peer, pid_t pid, const char *request);

/* A ticket was issued, or used: what, by whom; of the ticket only its number. */
void audit_log_ticket(const char *event, const Ticket *ticket, Account *account, uint64_t peer, pid_t pid);

/* A peer was closed for what it did. */
void audit_log_closed(Account *account, uint64_t peer, pid_t pid, const char *reason);

/* Something failed, while a request was served, that no client should be able to make fail. */
void audit_log_trouble(Account *account, const char *request, int error);

/* A connection did not become a peer; uid is (uid_t)-1 if it is not known whose. */
void audit_log_not_accepted(Accounts *accounts, uid_t uid, const char *reason, int error);

#endif
