/* Sessions: what of a client is more than its connection.
 *
 * A client has a session from its hello on. It has a number, which no other session ever has, and an
 * id, 16 random bytes that the client alone is told: whoever shows it comes back to the session, if
 * it is the same uid. Of the id only a digest is kept, by which sessions are found: how long a search
 * takes says nothing about an id, and what is kept brings nobody back.
 *
 *      connected --its connection ends--> ended
 *
 * A session owns the regions that are to end with it, and with it they lose their names, a few in a
 * turn of the loop.
 */
#ifndef BROKER_SESSION_H
#define BROKER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "base/tree.h"
#include "proto/message.h"

#define SESSION_KEY_BYTES 16

typedef struct Peer Peer;
typedef struct Session Session;
typedef struct Sessions Sessions;

struct Session {
        RB_ENTRY(Session) by_key;
        RB_ENTRY(Session) by_number;
        Sessions *sessions;
        uint64_t number;
        uint8_t key[SESSION_KEY_BYTES]; /* digest of its id */
        uid_t uid;
        Peer *peer;
        List regions;           /* Region.session: they end with it */
};

RB_HEAD(SessionKeyTree, Session);
RB_HEAD(SessionNumberTree, Session);

struct Sessions {
        struct SessionKeyTree by_key;
        struct SessionNumberTree by_number;
        uint64_t last;          /* number */
        uint64_t n;
};

void sessions_init(Sessions *sessions);
/* All must have ended. */
void sessions_deinit(Sessions *sessions);

/* Makes one; ret_id is for the client, and nobody can tell it a second time.
 * Return: 0, -ENOMEM, or a negative errno. */
int session_new(Session **ret, uint8_t ret_id[MESSAGE_SESSION_BYTES], Sessions *sessions, Peer *peer, uid_t uid);

/* Takes names of its regions away, not many and not for long. NULL is fine. Return: whether none is left. */
bool session_wind_up(Session *session);

/* It ends, with what is left of its regions' names. NULL is fine. Return: NULL. */
Session *session_free(Session *session);

DEFINE_CLEANUP(Session, session_free);

/* The session of that number, NULL if there is none any more. */
Session *sessions_find(Sessions *sessions, uint64_t number);

#endif
