/* Sessions: see the header for the model. */

#include "broker/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "core/region.h"
#include "core/secret.h"
#include "util/error.h"
#include "util/spare.h"

/* Names of session regions that go in one turn when the session ends, and what that may take of it:
 * who watches hears of each. */
#define REGIONS_TURN 64
#define REGIONS_TURN_NS NSEC_PER_MSEC

/* What it was granted without a mark, and leaves in a turn. */
#define GRANTS_TURN 64

/* The regions of a batch. */
struct OutcomeBatch {
        StateRecord record;
        uint64_t session;
        uint8_t slot;
        uint8_t n;
        uint64_t items[];
};

struct OutcomeBlock {
        StateRecord record;
        SavedOutcomes saved;
        bool earlier[SAVED_OUTCOMES];
        OutcomeBatch *batches[SAVED_OUTCOMES];          /* owned */
};

static int compare_keys(Session *a, Session *b) {
        return memcmp(a->key, b->key, sizeof(a->key));
}

static int compare_numbers(Session *a, Session *b) {
        return a->number < b->number ? -1 : a->number > b->number;
}

TREE_GENERATE(SessionKeyTree, Session, by_key, compare_keys)
TREE_GENERATE(SessionNumberTree, Session, by_number, compare_numbers)

static void key_of(const uint8_t id[MESSAGE_SESSION_BYTES], uint8_t ret[SAVED_SESSION_BYTES]) {
        uint8_t digest[SECRET_DIGEST_BYTES];

        secret_digest(id, MESSAGE_SESSION_BYTES, digest);
        memcpy(ret, digest, SAVED_SESSION_BYTES);
}

/* -- records ---------------------------------------------------------------------------- */

static size_t encode_session(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        const Session *session = list_entry(record, Session, record);
        SavedSession saved = { .id = session->number, .uid = session->uid, .starts = session->starts };

        memcpy(saved.session, session->key, sizeof(saved.session));
        return saved_encode_session(&saved, data);
}

static size_t encode_block(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        return saved_encode_outcomes(&list_entry(record, OutcomeBlock, record)->saved, data);
}

static size_t encode_batch(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        const OutcomeBatch *batch = list_entry(record, OutcomeBatch, record);
        SavedBatch saved = { .session = batch->session, .slot = batch->slot, .n = batch->n };

        memcpy(saved.items, batch->items, batch->n * sizeof(batch->items[0]));
        return saved_encode_batch(&saved, data);
}

void sessions_register(State *state) {
        state_set_encoder(state, STATE_SESSION, encode_session);
        state_set_encoder(state, STATE_OUTCOMES, encode_block);
        state_set_encoder(state, STATE_BATCH, encode_batch);
}

/* -- life ------------------------------------------------------------------------------- */

void sessions_init(Sessions *sessions, Deadlines *deadlines, Regions *regions) {
        *sessions = (Sessions){ .deadlines = deadlines, .regions = regions };
        RB_INIT(&sessions->by_key);
        RB_INIT(&sessions->by_number);
}

void sessions_deinit(Sessions *sessions) {
        Session *session;

        while ((session = RB_MIN(SessionNumberTree, &sessions->by_number))) {
                ASSERT(!session->peer);
                (void)session_free(session);
        }
        ASSERT(RB_EMPTY(&sessions->by_key) && sessions->n == 0 && sessions->n_waiting == 0);
}

/* Return: 0, -ENOMEM, -EEXIST if there is one of that key or number. */
static int make(Session **ret, Sessions *sessions, uint64_t number, const uint8_t key[SAVED_SESSION_BYTES], uid_t uid) {
        Session *session;

        if (sessions_find(sessions, number))
                return error_origin(-EEXIST);
        session = malloc(sizeof(*session));
        if (!session)
                return error_origin(-ENOMEM);
        *session = (Session){ .sessions = sessions, .number = number, .uid = uid, .end = DEADLINE_NULL,
                              .record = STATE_RECORD_NULL };
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
        uint8_t key[SAVED_SESSION_BYTES];
        int r;

        r = secret_draw(ret_id, MESSAGE_SESSION_BYTES);
        if (r)
                return error_fold(r);
        key_of(ret_id, key);
        r = make(ret, sessions, sessions->last + 1, key, uid);
        if (r)
                return error_fold(r);
        (*ret)->peer = peer;
        counters_used(sessions->counters, COUNTER_SESSION, ++sessions->last);
        state_add(sessions->state, &(*ret)->record, STATE_SESSION, (*ret)->number);
        return 0;
}

Session *session_resume(Sessions *sessions, const uint8_t id[MESSAGE_SESSION_BYTES], Peer *peer, uid_t uid) {
        Session key, *session;

        key_of(id, key.key);
        session = RB_FIND(SessionKeyTree, &sessions->by_key, &key);
        if (!session || session->uid != uid || session->peer || session->until <= time_now())
                return NULL;
        session->peer = peer;
        session->starts = 0;
        deadline_disarm(&session->end);
        --sessions->n_waiting;
        state_touch(&session->record);
        return session;
}

/* Takes at most n names of regions, until a time. Return: whether none is left. */
static bool unlink_some(Session *session, size_t n, uint64_t until) {
        Region *region;

        while ((region = region_of_session(&session->regions))) {
                /* Not before: with a name, and in no session, it would stay for ever. */
                if (!region->names.first) {
                        region_leave_session(region);
                        continue;
                }
                if (n-- == 0 || time_now() >= until)
                        return false;
                region_unlink_name(region_name(region));
        }
        return true;
}

bool session_wind_up(Session *session) {
        return !session || (unlink_some(session, REGIONS_TURN, time_now() + REGIONS_TURN_NS) &&
                            grants_leave(session->sessions->regions->grants, session->number, GRANTS_TURN));
}

static size_t batch_bytes(size_t n) {
        return sizeof(OutcomeBatch) + n * sizeof(((OutcomeBatch *)NULL)->items[0]);
}

/* One that is in no block has not been saved. */
static OutcomeBatch *batch_free(OutcomeBatch *batch) {
        if (!batch)
                return NULL;
        state_drop(&batch->record);
        spare_give(batch, batch_bytes(batch->n));
        return NULL;
}

static OutcomeBlock *block_free(OutcomeBlock *block) {
        if (!block)
                return NULL;
        for (size_t i = 0; i < SAVED_OUTCOMES; ++i)
                block->batches[i] = batch_free(block->batches[i]);
        state_drop(&block->record);
        free(block);
        return NULL;
}

Session *session_free(Session *session) {
        Sessions *sessions;

        if (!session)
                return NULL;
        sessions = session->sessions;
        (void)unlink_some(session, SIZE_MAX, UINT64_MAX);
        (void)grants_leave(sessions->regions->grants, session->number, SIZE_MAX);
        for (size_t i = 0; i < SAVED_OUTCOME_BLOCKS; ++i)
                if (session->blocks)
                        session->blocks[i] = block_free(session->blocks[i]);
        free(session->blocks);
        session->spare = batch_free(session->spare);
        deadline_disarm(&session->end);
        if (!session->peer)
                --sessions->n_waiting;
        (void)RB_REMOVE(SessionKeyTree, &sessions->by_key, session);
        (void)RB_REMOVE(SessionNumberTree, &sessions->by_number, session);
        --sessions->n;
        state_drop(&session->record);
        free(session);
        return NULL;
}

/* -- finding ---------------------------------------------------------------------------- */

Session *sessions_find(Sessions *sessions, uint64_t number) {
        Session key = { .number = number };

        return RB_FIND(SessionNumberTree, &sessions->by_number, &key);
}

/* -- outcomes --------------------------------------------------------------------------- */

static unsigned int slot_of(uint32_t number) {
        return number % SESSION_OUTCOMES;
}

static OutcomeBlock *block_of(const Session *session, unsigned int slot) {
        return session->blocks ? session->blocks[slot / SAVED_OUTCOMES] : NULL;
}

static int block_new(OutcomeBlock **ret, uint64_t session, unsigned int index) {
        OutcomeBlock *block = calloc(1, sizeof(*block));

        if (!block)
                return error_origin(-ENOMEM);
        block->record = (StateRecord)STATE_RECORD_NULL;
        block->saved.session = session;
        block->saved.block = (uint8_t)index;
        *ret = block;
        return 0;
}

static int batch_new(OutcomeBatch **ret, size_t n) {
        OutcomeBatch *batch = spare_take(batch_bytes(n));

        if (!batch)
                return error_origin(-ENOMEM);
        *batch = (OutcomeBatch){ .record = STATE_RECORD_NULL, .n = (uint8_t)n };
        *ret = batch;
        return 0;
}

static int ring_make(Session *session) {
        if (!session->blocks)
                session->blocks = calloc(SAVED_OUTCOME_BLOCKS, sizeof(session->blocks[0]));
        return session->blocks ? 0 : error_origin(-ENOMEM);
}

int session_make_room(Session *session, size_t n) {
        unsigned int index = slot_of(session->count) / SAVED_OUTCOMES;
        int r = 0;

        if (!session->sessions->state)
                return 0;
        ASSERT(n <= SAVED_BATCH_MAX);
        r = ring_make(session);
        if (!r && !session->blocks[index])
                r = block_new(&session->blocks[index], session->number, index);
        if (!r && n > 0) {
                session->spare = batch_free(session->spare);
                r = batch_new(&session->spare, n);
        }
        return error_fold(r);
}

static void drop_batch(Session *session, OutcomeBatch **batch) {
        if (*batch)
                session->n_items -= (*batch)->n;
        *batch = batch_free(*batch);
}

/* Forgets the oldest batches until there is room for the regions of another one. */
static void forget_batches(Session *session, size_t n) {
        for (uint32_t i = SESSION_OUTCOMES; i > 0 && session->n_items + n > SESSION_ITEMS; --i) {
                unsigned int slot = slot_of(session->count - i), at = slot % SAVED_OUTCOMES;
                OutcomeBlock *block = block_of(session, slot);

                if (!block || !block->batches[at])
                        continue;
                drop_batch(session, &block->batches[at]);
                session->n_earlier -= block->earlier[at];
                block->earlier[at] = false;
                block->saved.outcomes[at] = (SavedOutcome){ .serial = 0 };
                state_touch(&block->record);
        }
}

/* The regions of a batch are those of its outcome from now on, and none of the one before it. */
static void settle_batch(Session *session, OutcomeBlock *block, unsigned int slot, const uint64_t *items, size_t n) {
        OutcomeBatch **batch = &block->batches[slot % SAVED_OUTCOMES];

        if (n == 0)
                return;
        ASSERT(!*batch && session->spare && session->spare->n == n);
        *batch = session->spare;
        session->spare = NULL;
        (*batch)->session = session->number;
        (*batch)->slot = (uint8_t)slot;
        memcpy((*batch)->items, items, n * sizeof(*items));
        session->n_items += (uint32_t)n;
        state_add(session->sessions->state, &(*batch)->record, STATE_BATCH, session->number);
}

void session_settle(Session *session, int slot, const SavedOutcome *outcome, const uint64_t *items, size_t n_items) {
        unsigned int at = slot == SESSION_NOTHING ? slot_of(session->count) : (unsigned int)slot;
        OutcomeBlock *block = block_of(session, at);
        SavedOutcome *to;

        if (!session->sessions->state)
                return;
        ASSERT(block && outcome->serial);
        drop_batch(session, &block->batches[at % SAVED_OUTCOMES]);
        forget_batches(session, n_items);
        to = &block->saved.outcomes[at % SAVED_OUTCOMES];
        if (block->earlier[at % SAVED_OUTCOMES])
                --session->n_earlier;
        block->earlier[at % SAVED_OUTCOMES] = false;
        if (slot == SESSION_NOTHING)
                block->saved.count = session->count++;
        settle_batch(session, block, at, items, n_items);
        *to = *outcome;
        if (block->record.state)
                state_touch(&block->record);
        else
                state_add(session->sessions->state, &block->record, STATE_OUTCOMES, session->number);
}

int session_look(const Session *session, uint64_t serial) {
        uint32_t left = session->n_earlier;

        /* The latest comes first. */
        for (uint32_t i = 1; i <= SESSION_OUTCOMES && left > 0; ++i) {
                unsigned int slot = slot_of(session->count - i);
                const OutcomeBlock *block = block_of(session, slot);

                if (!block || !block->earlier[slot % SAVED_OUTCOMES])
                        continue;
                if (block->saved.outcomes[slot % SAVED_OUTCOMES].serial == serial)
                        return (int)slot;
                --left;
        }
        return SESSION_NOTHING;
}

const SavedOutcome *session_outcome(const Session *session, int slot) {
        return &block_of(session, (unsigned int)slot)->saved.outcomes[(unsigned int)slot % SAVED_OUTCOMES];
}

const uint64_t *session_items(const Session *session, int slot, size_t *ret_n) {
        const OutcomeBatch *batch = block_of(session, (unsigned int)slot)->batches[(unsigned int)slot % SAVED_OUTCOMES];

        *ret_n = batch ? batch->n : 0;
        return batch ? batch->items : NULL;
}

/* -- recovering ------------------------------------------------------------------------- */

/* What a walk over the state is for. */
typedef struct Recovery {
        Sessions *sessions;
        State *state;
} Recovery;

/* Whatever else is wrong with a record, it is as if it had not been there. */
static int forget_unless_made(const Recovery *recovery, uint32_t cell, int r) {
        if (r == -ENOMEM)
                return r;
        if (r)
                state_forget(recovery->state, cell);
        return 0;
}

static int recover_session(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        const Recovery *recovery = userdata;
        Session *session;
        SavedSession saved;
        int r;

        r = saved_decode_session(&saved, data, n);
        if (!r && (saved.id != id || id > SAVED_ID_BELIEVED))
                r = SAVED_E_INVALID;
        if (!r)
                r = make(&session, recovery->sessions, saved.id, saved.session, saved.uid);
        if (r)
                return forget_unless_made(recovery, cell, r);
        session->starts = saved.starts;
        ++recovery->sessions->n_waiting;
        if (recovery->sessions->last < saved.id)
                recovery->sessions->last = saved.id;
        state_bind(recovery->state, &session->record, kind, id, cell);
        return 0;
}

/* Whether a block says of itself where it is. */
static bool is_in_place(const SavedOutcomes *saved) {
        return slot_of(saved->count) / SAVED_OUTCOMES == saved->block;
}

/* The ring goes on behind the latest outcome. */
static void take_block(Session *session, OutcomeBlock *block) {
        bool first = true;

        for (size_t i = 0; i < SAVED_OUTCOME_BLOCKS; ++i)
                first = first && !session->blocks[i];
        if (first || (int32_t)(block->saved.count + 1 - session->count) > 0)
                session->count = block->saved.count + 1;
        for (size_t i = 0; i < SAVED_OUTCOMES; ++i) {
                block->earlier[i] = block->saved.outcomes[i].serial != 0;
                session->n_earlier += block->earlier[i];
        }
        session->blocks[block->saved.block] = block;
}

static int recover_block(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        const Recovery *recovery = userdata;
        OutcomeBlock *block = NULL;
        Session *session = NULL;
        SavedOutcomes saved;
        int r;

        r = saved_decode_outcomes(&saved, data, n);
        if (!r)
                session = sessions_find(recovery->sessions, saved.session);
        if (!r && (!session || saved.session != id || !is_in_place(&saved)))
                r = SAVED_E_INVALID;
        if (!r)
                r = ring_make(session);
        if (!r && session->blocks[saved.block])
                r = SAVED_E_INVALID;
        if (!r)
                r = block_new(&block, saved.session, saved.block);
        if (r)
                return forget_unless_made(recovery, cell, r);
        block->saved = saved;
        take_block(session, block);
        state_bind(recovery->state, &block->record, kind, id, cell);
        return 0;
}

static int recover_batch(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        const Recovery *recovery = userdata;
        OutcomeBlock *block = NULL;
        Session *session = NULL;
        SavedBatch saved;
        OutcomeBatch *batch;
        int r;

        r = saved_decode_batch(&saved, data, n);
        if (!r)
                session = sessions_find(recovery->sessions, saved.session);
        if (session)
                block = block_of(session, saved.slot);
        if (!r && (!block || saved.session != id || block->batches[saved.slot % SAVED_OUTCOMES]))
                r = SAVED_E_INVALID;
        if (!r)
                r = batch_new(&batch, saved.n);
        if (r)
                return forget_unless_made(recovery, cell, r);
        batch->session = saved.session;
        batch->slot = saved.slot;
        memcpy(batch->items, saved.items, saved.n * sizeof(saved.items[0]));
        block->batches[saved.slot % SAVED_OUTCOMES] = batch;
        session->n_items += saved.n;
        state_bind(recovery->state, &batch->record, kind, id, cell);
        return 0;
}

int sessions_recover(Sessions *sessions, State *state) {
        Recovery recovery = { .sessions = sessions, .state = state };
        int r;

        r = state_walk(state, STATE_SESSION, recover_session, &recovery);
        if (!r)
                r = state_walk(state, STATE_OUTCOMES, recover_block, &recovery);
        if (!r)
                r = state_walk(state, STATE_BATCH, recover_batch, &recovery);
        return error_fold(r);
}

bool sessions_adopt(Region *region, uint64_t number, void *userdata) {
        Session *session = sessions_find(userdata, number);

        if (session)
                region_join_session(region, &session->regions, number);
        return session;
}

/* -- waiting ---------------------------------------------------------------------------- */

static void session_over(Deadline *deadline, void *userdata) {
        Session *session = userdata;
        Regions *regions = session->sessions->regions;

        if (!session_wind_up(session)) {
                deadline_arm(deadline, session->sessions->deadlines, 0, session_over, session);
                return;
        }
        (void)session_free(session);
        /* Grants without a mark were its client's as long as it could come back. */
        regions_sweep(regions);
}

/* By user, and those first whose client was there last. */
static int compare_waiting(const void *a, const void *b) {
        const Session *one = *(Session *const *)a, *other = *(Session *const *)b;

        if (one->uid != other->uid)
                return one->uid < other->uid ? -1 : 1;
        if (one->starts != other->starts)
                return one->starts < other->starts ? -1 : 1;
        return one->number < other->number ? 1 : -1;
}

static void await_all(Session **waiting, size_t n, Accounts *accounts, uint64_t now, uint64_t grace_ns) {
        uint64_t n_of_user = 0, most = 0;

        for (size_t i = 0; i < n; ++i) {
                Session *session = waiting[i];

                if (i == 0 || session->uid != waiting[i - 1]->uid) {
                        most = accounts_limit_at_most(accounts, session->uid, ACCOUNT_PEERS);
                        n_of_user = 0;
                }
                session->until = ++n_of_user > most || session->starts >= SESSION_STARTS ? now : now + grace_ns;
                ++session->starts;
                state_touch(&session->record);
                deadline_arm(&session->end, session->sessions->deadlines, session->until, session_over, session);
        }
}

int sessions_await(Sessions *sessions, Accounts *accounts, uint64_t grace_ns) {
        Session *session, **waiting;
        size_t n = 0;

        if (sessions->n == 0)
                return 0;
        waiting = calloc(sessions->n, sizeof(*waiting));
        if (!waiting)
                return error_origin(-ENOMEM);
        RB_FOREACH(session, SessionNumberTree, &sessions->by_number)
                waiting[n++] = session;
        qsort(waiting, n, sizeof(*waiting), compare_waiting);
        await_all(waiting, n, accounts, time_now(), grace_ns);
        free(waiting);
        return 0;
}
