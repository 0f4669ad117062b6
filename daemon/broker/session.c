/* Sessions: see the header for the model. */

#include "broker/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "core/region.h"
#include "core/secret.h"
#include "util/deadline.h"
#include "util/error.h"

/* Names of session regions that go in one turn when the session ends, and what that may take of it:
 * who watches hears of each. */
#define REGIONS_TURN 64
#define REGIONS_TURN_NS NSEC_PER_MSEC

static int compare_keys(Session *a, Session *b) {
        return memcmp(a->key, b->key, sizeof(a->key));
}

static int compare_numbers(Session *a, Session *b) {
        return a->number < b->number ? -1 : a->number > b->number;
}

TREE_GENERATE(SessionKeyTree, Session, by_key, compare_keys)
TREE_GENERATE(SessionNumberTree, Session, by_number, compare_numbers)

static void key_of(const uint8_t id[MESSAGE_SESSION_BYTES], uint8_t ret[SESSION_KEY_BYTES]) {
        uint8_t digest[SECRET_DIGEST_BYTES];

        secret_digest(id, MESSAGE_SESSION_BYTES, digest);
        memcpy(ret, digest, SESSION_KEY_BYTES);
}

/* -- life ------------------------------------------------------------------------------- */

void sessions_init(Sessions *sessions) {
        *sessions = (Sessions){ .n = 0 };
        RB_INIT(&sessions->by_key);
        RB_INIT(&sessions->by_number);
}

void sessions_deinit(Sessions *sessions) {
        ASSERT(RB_EMPTY(&sessions->by_key) && RB_EMPTY(&sessions->by_number) && sessions->n == 0);
}

static int make(Session **ret, Sessions *sessions, uint64_t number, const uint8_t key[SESSION_KEY_BYTES], uid_t uid) {
        Session *session;

        session = malloc(sizeof(*session));
        if (!session)
                return error_origin(-ENOMEM);
        *session = (Session){ .sessions = sessions, .number = number, .uid = uid };
        memcpy(session->key, key, sizeof(session->key));
        list_init(&session->regions);
        if (RB_INSERT(SessionKeyTree, &sessions->by_key, session)) {
                free(session);
                return error_origin(-EEXIST);
        }
        (void)RB_INSERT(SessionNumberTree, &sessions->by_number, session);
        ++sessions->n;
        *ret = session;
        return 0;
}

int session_new(Session **ret, uint8_t ret_id[MESSAGE_SESSION_BYTES], Sessions *sessions, Peer *peer, uid_t uid) {
        uint8_t key[SESSION_KEY_BYTES];
        int r;

        r = secret_draw(ret_id, MESSAGE_SESSION_BYTES);
        if (r)
                return error_fold(r);
        key_of(ret_id, key);
        r = make(ret, sessions, ++sessions->last, key, uid);
        if (r)
                return error_fold(r);
        (*ret)->peer = peer;
        return 0;
}

/* Takes at most n names of regions, until a time. Return: whether none is left. */
static bool unlink_some(Session *session, size_t n, uint64_t until) {
        Region *region;

        while ((region = list_first(&session->regions, Region, session))) {
                if (n-- == 0 || time_now() >= until)
                        return false;
                if (region->n_names > 1) {
                        region_unlink_name(region_name(region));
                        continue;
                }
                region_leave_session(region);
                region_unlink(region);
        }
        return true;
}

bool session_wind_up(Session *session) {
        return !session || unlink_some(session, REGIONS_TURN, time_now() + REGIONS_TURN_NS);
}

Session *session_free(Session *session) {
        if (!session)
                return NULL;
        (void)unlink_some(session, SIZE_MAX, UINT64_MAX);
        (void)RB_REMOVE(SessionKeyTree, &session->sessions->by_key, session);
        (void)RB_REMOVE(SessionNumberTree, &session->sessions->by_number, session);
        --session->sessions->n;
        free(session);
        return NULL;
}

/* -- finding ---------------------------------------------------------------------------- */

Session *sessions_find(Sessions *sessions, uint64_t number) {
        Session key = { .number = number };

        return RB_FIND(SessionNumberTree, &sessions->by_number, &key);
}
