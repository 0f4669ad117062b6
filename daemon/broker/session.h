/* Sessions: what of a client is more than its connection.
 *
 * A client has a session from its hello on. It has a number, which no other session ever has, and an
 * id, 16 random bytes that the client alone is told: whoever shows it comes back to the session, if
 * it is the same uid. Of the id only a digest is kept, by which sessions are found (core/secret.h): how
 * long a search takes says nothing about an id, and what is kept brings nobody back.
 *
 *      connected --its connection ends--> ended <--its time is over-- waiting
 *          |                                                          |  ^
 *          |             <----------its client comes back-------------+  |
 *          +---------------the broker is gone, and another begins--------+
 *
 * A session owns the regions that are to end with it, and with it they lose their names, a few in a
 * turn of the loop.
 *
 * It has the outcomes of its latest requests that changed something. Each is noted in the transaction
 * of the change itself (session_settle()), so that a state in which the one is has the other. After the
 * broker was started anew, a client that did not get an answer asks again, and is given what it would
 * have been told (broker/request-again.c). That goes for what was done before, and for each once:
 * nobody can have an answer as often as they like.
 *
 * A session that waits costs its user no connection: that is wanted for coming back. So that nobody can
 * have any number of them, a user never has more waiting than it may have connections. A broker that ends
 * soon, too, takes nobody's time to come back to the next one; but a session waits for SESSION_STARTS
 * brokers at most.
 *
 * The outcomes are a ring in blocks, a record each, so that a request touches one of them; a block is
 * allocated when it is first used, and the ring with the first of them. Without a state there are none.
 */
#ifndef BROKER_SESSION_H
#define BROKER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "acct/account.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/tree.h"
#include "core/counters.h"
#include "core/saved.h"
#include "core/state.h"
#include "proto/message.h"
#include "util/deadline.h"

/* Outcomes that a session has at most. */
#define SESSION_OUTCOMES SAVED_OUTCOME_SLOTS
/* Regions of batches that are among them. */
#define SESSION_ITEMS 1024U
#define SESSION_STARTS 16U
#define SESSION_NOTHING (-1)

typedef struct OutcomeBatch OutcomeBatch;
typedef struct OutcomeBlock OutcomeBlock;
typedef struct Peer Peer;
typedef struct Region Region;
typedef struct Regions Regions;
typedef struct Session Session;
typedef struct Sessions Sessions;

struct Session {
        RB_ENTRY(Session) by_key;
        RB_ENTRY(Session) by_number;
        StateRecord record;
        Sessions *sessions;
        uint64_t number;
        uint8_t key[SAVED_SESSION_BYTES];       /* of the digest of its id */
        uid_t uid;
        Peer *peer;             /* NULL: it waits */
        List regions;           /* Region.session: they end with it */
        uint64_t starts;        /* of brokers since its client was there last */
        uint64_t until;         /* it waits so long; CLOCK_MONOTONIC */
        Deadline end;
        uint32_t count;         /* of outcomes there were, modulo 2^32 */
        uint32_t n_earlier;     /* of those there are: from before its client came back */
        uint32_t n_items;       /* of the batches among them */
        OutcomeBlock **blocks;  /* SAVED_OUTCOME_BLOCKS of them; NULL: no outcome yet. Owned */
        OutcomeBatch *spare;    /* for the next one; owned */
};

RB_HEAD(SessionKeyTree, Session);
RB_HEAD(SessionNumberTree, Session);

struct Sessions {
        struct SessionKeyTree by_key;
        struct SessionNumberTree by_number;
        Deadlines *deadlines;
        Regions *regions;
        State *state;           /* NULL: nothing is saved */
        Counters *counters;     /* likewise */
        uint64_t last;          /* number */
        uint64_t n;
        uint64_t n_waiting;
};

/* regions: are asked who holds them when a session has ended. */
void sessions_init(Sessions *sessions, Deadlines *deadlines, Regions *regions);
/* Ends those that wait; no other may be left. */
void sessions_deinit(Sessions *sessions);

/* Makes one for a client; ret_id is for that, and nobody can tell it a second time.
 * Return: 0, -ENOMEM, or a negative errno. */
int session_new(Session **ret, uint8_t ret_id[MESSAGE_SESSION_BYTES], Sessions *sessions, Peer *peer, uid_t uid);

/* A client of that uid comes back. Return: its session; NULL if none waits that has this id and this uid. */
Session *session_resume(Sessions *sessions, const uint8_t id[MESSAGE_SESSION_BYTES], Peer *peer, uid_t uid);

/* Takes names of its regions away, and lets grants join what others left (core/grant), not many and not for long.
 * NULL is fine. Return: whether none is left. */
bool session_wind_up(Session *session);

/* It ends, with what is left of both. NULL is fine. Return: NULL. */
Session *session_free(Session *session);

DEFINE_CLEANUP(Session, session_free);

/* The session of that number, NULL if there is none any more. */
Session *sessions_find(Sessions *sessions, uint64_t number);

/* -- outcomes --------------------------------------------------------------------------- */

/* Makes sure that one more outcome can be noted, of a batch of n regions if n is not 0.
 * Return: 0, -ENOMEM. */
int session_make_room(Session *session, size_t n);

/* Notes what became of a request, items being the regions of a batch; there was room made for it. slot is
 * that of its outcome, if it had one already, and SESSION_NOTHING otherwise. Sessions that are in no state
 * take no notes. */
void session_settle(Session *session, int slot, const SavedOutcome *outcome, const uint64_t *items, size_t n_items);

/* The slot of what became of the latest request of that serial, if that was before the client came back and
 * was not told again since; SESSION_NOTHING. */
int session_look(const Session *session, uint64_t serial);
/* What is in such a slot, until the next one is noted; of a batch, its regions too. */
const SavedOutcome *session_outcome(const Session *session, int slot);
const uint64_t *session_items(const Session *session, int slot, size_t *ret_n);

/* -- after the broker was started anew -------------------------------------------------- */

/* How the records of sessions are written. */
void sessions_register(State *state);

/* Makes the sessions that are in the state, with their outcomes. What is damaged or contradicts itself is
 * dropped. Return: 0, -ENOMEM. */
int sessions_recover(Sessions *sessions, State *state);
/* A region ends with the session of that number. Return: false if there is none. */
bool sessions_adopt(Region *region, uint64_t number, void *sessions);
/* From now on they wait, for so long; of a user at most as many as it may have connections.
 * Return: 0, -ENOMEM. */
int sessions_await(Sessions *sessions, Accounts *accounts, uint64_t grace_ns);

#endif
