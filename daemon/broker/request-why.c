/* why: whether somebody may do something, and which rules say so.
 *
 * It asks what the handler of that request asks, with the same functions in the same order, for the
 * asker or, for administrators, for somebody else; and then whether the accounts would pay for it.
 * What the functions meet on the way is the answer. So it tells nobody more than a refusal would: who
 * may not search a directory hears of that, and of nothing below.
 *
 * Nothing is changed. A limit that may be about to yield, because something is being released, is
 * waited for as the request itself would wait.
 */

#include <stdlib.h>
#include <string.h>

#include "broker/request.h"
#include "util/error.h"

typedef int (*WhyFn)(Request *request, const Shmd__Why *why);

/* -- limits ------------------------------------------------------------------------------- */

/* What one account says to a cost that the payer has, slot by slot. */
static int ask_account(Request *request, const Account *account, const Account *payer, const Cost *cost,
                       const void *path, size_t n_thing, size_t n_path) {
        for (unsigned int slot = 0; slot < _ACCOUNT_SLOT_N; ++slot) {
                Shortage figures;
                bool fits;

                if (cost->slots[slot] == 0)
                        continue;
                fits = account_can_give(account, payer, (AccountSlot)slot, cost->slots[slot], &figures);
                if (!fits || figures.limit != UINT64_MAX)
                        why_limit(request->why, path, n_thing, &figures, fits);
                if (!fits)
                        return request_shortage(request, &figures, path, n_path);
        }
        return 0;
}

/* A user's account, and all together. */
static int ask_user(Request *request, const Account *payer, const Cost *cost, const Spot *spot) {
        int r = 0;

        for (const Account *account = payer; account && !r; account = account->parent)
                r = ask_account(request, account, payer, cost, spot->path, spot->n_path, spot->n_path);
        return r;
}

/* The directories that a name at the spot counts in. */
static int ask_directories(Request *request, const Cost *cost, const Spot *spot) {
        const Account *payer = spot->parent->account;
        size_t n = spot->n_path - spot->n_name - 1;
        int r = 0;

        for (const Directory *d = spot->parent; d && !r; d = d->node.parent) {
                r = ask_account(request, d->account, payer, cost, spot->path, n ? n : 1, spot->n_path);
                n -= d->node.parent ? d->node.n_name + 1U : 0;
        }
        return r;
}

static int ask_grant(Request *request, const Spot *spot) {
        static const Cost cost = { .slots = { [ACCOUNT_GRANTS] = 1 } };

        return ask_user(request, request->account, &cost, spot);
}

/* Whether it would be a grant that the asker's session has. Somebody else's would be a session of its own. */
static bool is_free(const Request *request, Region *region, uint32_t rights) {
        Asker asker = peer_asker(request->peer);

        return request->who == &request->peer->who &&
               grant_is_free(region, &asker, rights == SHMD__RIGHTS__RIGHTS_READ_WRITE);
}

/* -- operations ----------------------------------------------------------------------------- */

static int why_open(Request *request, const Shmd__Why *why) {
        uint32_t rights = why->operation == SHMD__WHY_OPERATION__WHY_WRITE ? SHMD__RIGHTS__RIGHTS_READ_WRITE :
                                                                             SHMD__RIGHTS__RIGHTS_READ_ONLY;
        Spot spot;
        int r = request_may_open(request, why->path, rights, &spot);

        if (r)
                return r;
        r = grant_is_possible(spot.node->region, rights == SHMD__RIGHTS__RIGHTS_READ_WRITE);
        if (r)
                return request_refuse_grant(request, r, why->path, NULL);
        return is_free(request, spot.node->region, rights) ? 0 : ask_grant(request, &spot);
}

static int why_create(Request *request, const Shmd__Why *why) {
        Cost cost;
        Spot spot;
        int r;

        r = request_may_make(request, why->path, &spot);
        if (!r && region_cost(&(RegionSpec){ .size = why->size }, &cost))
                r = request_refuse_size(request, why->path, 0);
        if (!r)
                r = ask_user(request, request->account, &cost, &spot);
        if (!r)
                r = ask_directories(request, &cost, &spot);
        return r ? r : ask_grant(request, &spot);
}

static int why_mkdir(Request *request, const Shmd__Why *why) {
        static const Cost cost = { .slots = { [ACCOUNT_REGIONS] = 1 } };
        Spot spot;
        int r;

        r = request_may_make(request, why->path, &spot);
        if (!r)
                r = ask_user(request, request->account, &cost, &spot);
        return r ? r : ask_directories(request, &cost, &spot);
}

/* The region's owner pays for one more name. */
static int why_link(Request *request, const Shmd__Why *why) {
        static const Cost one_more = { .slots = { [ACCOUNT_REGIONS] = 1 } };
        const Region *region;
        Spot spot, to;
        Cost cost;
        int r;

        r = request_may_link(request, why->path, why->to, &spot, &to);
        if (r)
                return r;
        region = spot.node->region;
        cost = region_place_cost(region);
        r = ask_user(request, region->charge.account, &one_more, &to);
        return r ? r : ask_directories(request, &cost, &to);
}

static int why_rename(Request *request, const Shmd__Why *why) {
        return request_may_move(request, why->path, why->to);
}

static int why_chown(Request *request, const Shmd__Why *why) {
        Spot spot;

        why_admin(request->why, request->who);
        if (!request->who->admin)
                return request_refuse_admin(request);
        return request_find(request, why->path, &spot);
}

static int why_wait(Request *request, const Shmd__Why *why) {
        static const Cost cost = { .slots = { [ACCOUNT_WATCHES] = 1, [ACCOUNT_PENDING] = 1 } };
        Spot spot;
        int r = request_find_yet(request, why->path, &spot);

        return r || spot.node ? r : ask_user(request, request->account, &cost, &spot);
}

static int why_watch(Request *request, const Shmd__Why *why) {
        static const Cost cost = { .slots = { [ACCOUNT_WATCHES] = 1 } };
        Spot spot;
        int r = request_may_watch(request, why->path, &spot);

        return r ? r : ask_user(request, request->account, &cost, &spot);
}

/* Those that cost nothing have one question each. */
static int why_others(Request *request, const Shmd__Why *why) {
        static int (*const questions[])(Request *, ProtobufCBinaryData, Spot *) = {
                [SHMD__WHY_OPERATION__WHY_UNLINK]  = request_may_unlink,
                [SHMD__WHY_OPERATION__WHY_RMDIR]   = request_may_rmdir,
                [SHMD__WHY_OPERATION__WHY_LIST]    = request_may_list,
                [SHMD__WHY_OPERATION__WHY_STAT]    = request_find,
                [SHMD__WHY_OPERATION__WHY_CHMOD]   = request_may_set,
                [SHMD__WHY_OPERATION__WHY_FREEZE]  = request_may_freeze,
                [SHMD__WHY_OPERATION__WHY_TICKET]  = request_may_ticket,
                [SHMD__WHY_OPERATION__WHY_HOLDERS] = request_may_see_holders,
        };
        Spot spot;

        return questions[why->operation](request, why->path, &spot);
}

static const WhyFn operations[] = {
        [SHMD__WHY_OPERATION__WHY_OPEN]    = why_open,
        [SHMD__WHY_OPERATION__WHY_WRITE]   = why_open,
        [SHMD__WHY_OPERATION__WHY_CREATE]  = why_create,
        [SHMD__WHY_OPERATION__WHY_MKDIR]   = why_mkdir,
        [SHMD__WHY_OPERATION__WHY_UNLINK]  = why_others,
        [SHMD__WHY_OPERATION__WHY_RMDIR]   = why_others,
        [SHMD__WHY_OPERATION__WHY_RENAME]  = why_rename,
        [SHMD__WHY_OPERATION__WHY_LINK]    = why_link,
        [SHMD__WHY_OPERATION__WHY_LIST]    = why_others,
        [SHMD__WHY_OPERATION__WHY_STAT]    = why_others,
        [SHMD__WHY_OPERATION__WHY_CHMOD]   = why_others,
        [SHMD__WHY_OPERATION__WHY_CHOWN]   = why_chown,
        [SHMD__WHY_OPERATION__WHY_WAIT]    = why_wait,
        [SHMD__WHY_OPERATION__WHY_WATCH]   = why_watch,
        [SHMD__WHY_OPERATION__WHY_FREEZE]  = why_others,
        [SHMD__WHY_OPERATION__WHY_TICKET]  = why_others,
        [SHMD__WHY_OPERATION__WHY_HOLDERS] = why_others,
};
#define N_OPERATIONS (sizeof(operations) / sizeof(operations[0]))

/* -- the request ------------------------------------------------------------------------------ */

static int check_why(Request *request, const Shmd__Why *why) {
        if (why->operation >= N_OPERATIONS || !operations[why->operation])
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "there is no operation of number %u", why->operation);
        if (!why->other && (why->uid || why->gid || why->n_groups))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a user without the flag that says so");
        if (why->other && !request->who->admin)
                return request_refuse_admin(request);
        if (why->uid == (uid_t)-1 || why->gid == (gid_t)-1)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "there is no user or group of that number");
        return 0;
}

/* Asks, and answers with what was met. */
static int explain(Request *asked, Request *request, const Shmd__Why *why) {
        Shmd__WhyReply reply = SHMD__WHY_REPLY__INIT;
        Why steps;
        int r;

        why_init(&steps);
        asked->why = &steps;
        r = operations[why->operation](asked, why);
        if (r && r != REQUEST_E_REFUSED) {
                request->again = asked->again;
                return r;
        }
        reply.allowed = !r;
        if (r) {
                why_refusal(&steps, &asked->refusal);
                reply.error = asked->refusal.error;
                reply.reason = asked->refusal.reason;
                reply.sentence = (ProtobufCBinaryData){ .data = (uint8_t *)asked->refusal.sentence,
                                                        .len = strlen(asked->refusal.sentence) };
        }
        reply.n_step = steps.n;
        reply.step = steps.pointers;
        return request_reply(request, &reply.base, NULL, 0);
}

static int compare_groups(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

/* For somebody else, as if he had connected a moment ago: his account has the limits of his groups for as
 * long as the question takes. */
static int explain_other(Request *request, const Shmd__Why *why) {
        Peercred cred = { .uid = why->uid, .gid = why->gid, .groups = why->groups, .n_groups = why->n_groups };
        Accounts *accounts = &request->broker->accounts;
        Request asked = *request;
        Credentials who;
        gid_t before, during;
        int r;

        if (why->n_groups)
                qsort(why->groups, why->n_groups, sizeof(why->groups[0]), compare_groups);
        who = peer_credentials(request->broker, &cred);
        asked.who = &who;
        r = accounts_ref_user(accounts, why->uid, &asked.account);
        if (r)
                return error_fold(r);
        before = asked.account->group;
        if (asked.account->used[ACCOUNT_PEERS] == 0)
                account_forget_groups(asked.account);
        account_meet_groups(asked.account, cred.gid, cred.groups, cred.n_groups);
        during = asked.account->group;
        if (during != before)
                (void)account_settle(asked.account);
        r = explain(&asked, request, why);
        asked.account->group = before;
        if (during != before)
                (void)account_settle(asked.account);
        (void)account_unref(asked.account);
        return r;
}

int request_why(Request *request) {
        const Shmd__Why *why = (const Shmd__Why *)request->message;
        Request asked;
        int r;

        r = check_why(request, why);
        if (r)
                return r;
        if (why->other)
                return explain_other(request, why);
        asked = *request;
        return explain(&asked, request, why);
}
