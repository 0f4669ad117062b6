/* Grants: see the header for the model. */

#include "core/grant.h"

#include <errno.h>
#include <limits.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "core/counters.h"
#include "core/region.h"
#include "core/saved.h"
#include "util/error.h"
#include "util/memfd.h"
#include "util/probe.h"

/* A question that takes longer than this says that the region is full of locks, ours or forged. It may
 * also have been an interruption, so fewer than this many slow questions are never believed; and when
 * there are too many locks, marks are tried again after this many grants. Without leases nothing else
 * tells that a region is let go, and no grant may follow: there they are also asked after once a second. */
#define MARK_SLOW_NS (20 * NSEC_PER_USEC)
#define MARK_SLOW_QUESTIONS 4
#define GRANT_SLOW_EVERY 256
#define GRANT_AGAIN_NS NSEC_PER_SEC

/* How many that are over go with an open. */
#define LET_GO_AN_OPEN 4

/* Grants without a mark that are looked at to say who holds a region. */
#define HELD_STEPS 256

DEFINE_CLEANUP(Grant, grant_free);

static const Cost grant_cost = { .slots = { [ACCOUNT_GRANTS] = 1 } };

static unsigned int how(const Grant *grant) {
        return (unsigned int)grant->writable << 1 | grant->ticket;
}

static int compare_unmarked(Grant *a, Grant *b) {
        if (a->session != b->session)
                return a->session < b->session ? -1 : 1;
        if (a->uid != b->uid)
                return a->uid < b->uid ? -1 : 1;
        if (a->region != b->region)
                return (uintptr_t)a->region < (uintptr_t)b->region ? -1 : 1;
        return (int)how(a) - (int)how(b);
}

TREE_GENERATE(GrantTree, Grant, by_session, compare_unmarked)

/* -- life --------------------------------------------------------------------------------- */

void region_grants_init(RegionGrants *grants) {
        *grants = (RegionGrants){ .reap_in = GRANT_REAP_EVERY };
        list_init(&grants->list);
}

void region_grants_clear(RegionGrants *grants) {
        Grant *grant;

        while ((grant = list_first(&grants->list, Grant, in_region)))
                (void)grant_free(grant);
}

void grants_init(Grants *grants, Deadlines *deadlines, GrantsConnected connected, void *userdata) {
        *grants = (Grants){ .deadlines = deadlines, .connected = connected, .userdata = userdata };
        RB_INIT(&grants->unmarked);
        pool_init(&grants->pool, sizeof(Grant));
}

void grants_deinit(Grants *grants) {
        deadline_disarm(&grants->work);
        deadline_disarm(&grants->check);
        grants->sweeping = account_unref(grants->sweeping);
        ASSERT(grants->n == 0 && RB_EMPTY(&grants->unmarked));
        pool_deinit(&grants->pool);
}

/* -- who is alive --------------------------------------------------------------------- */

/* A walk over the marks of one region: every live one takes two questions, a run of dead ones one.
 * Thousands of forged locks make each question long, so the walk is bounded by time as well. */
#define REAP_STEPS (2 * GRANT_MARKS_MAX + GRANT_REAP_EVERY)
#define REAP_NS (200 * NSEC_PER_USEC)

typedef struct Reaping {
        Region *region;
        Grant *next;            /* the first in the list not decided yet */
        unsigned int steps;
        uint64_t until;
        uint64_t fastest;       /* of the questions so far, nanoseconds */
        bool overran;
} Reaping;

static Grant *grant_after(const Region *region, const Grant *grant) {
        List *link = grant ? grant->in_region.next : region->grants.list.next;

        return link == &region->grants.list ? NULL : list_entry(link, Grant, in_region);
}

/* Passes over every grant up to `last`; the marked ones among them are dead, or alive. */
static void decide(Reaping *reaping, uint64_t last, bool alive) {
        while (reaping->next && reaping->next->id <= last) {
                Grant *grant = reaping->next;

                reaping->next = grant_after(reaping->region, grant);
                if (grant->marked && !alive)
                        (void)grant_free(grant);
        }
}

/* Whether the walk is over before its end: too many questions, or too long ones, each of them. */
static bool must_stop(Reaping *reaping) {
        reaping->overran = reaping->steps >= REAP_STEPS ||
                           (reaping->fastest > MARK_SLOW_NS && reaping->steps >= MARK_SLOW_QUESTIONS &&
                            time_now() > reaping->until);
        return reaping->overran;
}

static bool find_mark(Reaping *reaping, uint64_t first, uint64_t last, uint64_t *ret_first, uint64_t *ret_last) {
        uint64_t before = time_now(), took;
        bool found = memfd_find_mark(reaping->region->fd, first, last, ret_first, ret_last);

        took = time_now() - before;
        if (took < reaping->fastest)
                reaping->fastest = took;
        ++reaping->steps;
        return found;
}

/* Decides about first..last. Locks that are not ours can make it end early: what is not decided
 * then is taken for alive. */
static void reap_range(Reaping *reaping, uint64_t first, uint64_t last) {
        uint64_t from, to;

        if (first > last)
                return;
        if (reaping->overran || must_stop(reaping)) {
                decide(reaping, last, true);
                return;
        }
        if (!find_mark(reaping, first, last, &from, &to)) {
                decide(reaping, last, false);
                return;
        }
        if (from > first)
                reap_range(reaping, first, from - 1);
        decide(reaping, to, true);
        if (to < last)
                reap_range(reaping, to + 1, last);
}

/* Without leases: a grant without a mark is over when its asker is gone. */
static void reap_unmarked(Region *region) {
        const Grants *grants = region->regions->grants;
        Grant *grant;

        list_for_each(grant, &region->grants.list, Grant, in_region)
                if (!grant->marked && !grants->connected(grant->session, grants->userdata))
                        (void)grant_free(grant);
}

/* Whether the marks are asked after: not if that was slow a short while ago. */
static bool may_ask(const Region *region, bool leases) {
        const RegionGrants *of = &region->grants;

        if (of->n_marked == 0)
                return false;
        return !of->marks_off || of->reap_in == 0 ||
               (!leases && time_now() >= region_more(region)->marks_again_at);
}

static unsigned int reap_marked(Region *region, bool leases) {
        Reaping reaping = { .region = region, .next = grant_after(region, NULL), .fastest = UINT64_MAX };
        RegionGrants *of = &region->grants;

        if (!may_ask(region, leases))
                return 0;
        reaping.until = time_now() + REAP_NS;
        /* Without memory for it, it is only asked more often. */
        if (!leases && region_expand(region) == 0)
                region->more->marks_again_at = reaping.until + GRANT_AGAIN_NS;
        reap_range(&reaping, reaping.next->id, list_entry(of->list.previous, Grant, in_region)->id);
        of->marks_off = reaping.overran;
        /* Those that live are asked about again only after several times as many opens. */
        of->reap_in = reaping.overran ? GRANT_SLOW_EVERY : GRANT_REAP_EVERY + 4U * of->n_marked;
        return reaping.steps;
}

static bool is_over(const Grant *grant) {
        return grant->id <= grant->region->grants.over_to;
}

/* Takes at most n of those off the books that are known to be over. If there are none, no grant is looked at: of a
 * region that was not asked for lately, it would have to be fetched from memory first. */
static void let_go(RegionGrants *of, unsigned int n) {
        for (; of->over_to && n > 0; --n) {
                Grant *grant = list_first(&of->list, Grant, in_region);

                if (!grant || !is_over(grant))
                        of->over_to = 0;
                else
                        (void)grant_free(grant);
        }
}

/* probed: what memfd_probe() said of it just now. Return: how many questions more it took. */
static unsigned int reap(Region *region, int probed) {
        RegionGrants *of = &region->grants;
        unsigned int steps;

        if (probed == 0) {
                region_grants_clear(of);
                of->marks_off = false;
                of->reap_in = GRANT_REAP_EVERY;
                return 0;
        }
        let_go(of, UINT_MAX);
        steps = reap_marked(region, probed >= 0);
        if (probed < 0)
                reap_unmarked(region);
        if (of->reap_in == 0)
                of->reap_in = GRANT_SLOW_EVERY;
        return steps;
}

/* Whether all there are have a mark, and every mark is gone: one question, that takes a fifth of what a lease does. */
static bool all_marks_gone(const Region *region) {
        const RegionGrants *of = &region->grants;
        uint64_t first = list_entry(of->list.next, Grant, in_region)->id;
        uint64_t last = list_entry(of->list.previous, Grant, in_region)->id, from, to;

        return of->n_marked == of->n && !of->marks_off && !memfd_find_mark(region->fd, first, last, &from, &to);
}

/* Before one more is made. If nobody holds the region, as is usual, all there are are over; but one open shall not
 * take the time of many. */
static void reap_for_one_more(Region *region) {
        RegionGrants *of = &region->grants;
        const Grant *first;
        int probed;

        if (of->reap_in == 0 && (first = list_first(&of->list, Grant, in_region)) && !is_over(first)) {
                probed = all_marks_gone(region) ? 0 : memfd_probe(region->fd);
                if (probed) {
                        (void)reap(region, probed);
                } else {
                        of->over_to = list_entry(of->list.previous, Grant, in_region)->id;
                        of->marks_off = false;
                        of->reap_in = GRANT_REAP_EVERY;
                }
        }
        let_go(of, LET_GO_AN_OPEN);
}

unsigned int region_grants_reap(Region *region) {
        return 1 + reap(region, memfd_probe(region->fd));
}

/* Whether one of the latest grants has no mark, and an asker that is still there. */
static bool has_connected(const Region *region) {
        const Grants *grants = region->regions->grants;
        const List *end = &region->grants.list;
        unsigned int n = 0;

        for (const List *at = end->previous; at != end && n < HELD_STEPS; at = at->previous, ++n) {
                const Grant *grant = list_entry(at, const Grant, in_region);

                if (!grant->marked && grants->connected(grant->session, grants->userdata))
                        return true;
        }
        return false;
}

RegionHeld region_grants_held(Region *region) {
        const RegionGrants *of = &region->grants;
        int probed = memfd_probe(region->fd);

        (void)reap(region, probed);
        if (probed == 0)
                return REGION_HELD_NOT;
        if (probed < 0)
                return REGION_HELD_UNKNOWN;
        if (of->n == 0)
                return REGION_HELD_BY_OTHERS;
        /* With marks off, those on the books were not asked after. */
        if ((of->n_marked > 0 && !of->marks_off) || has_connected(region))
                return REGION_HELD_BY_GRANTS;
        return REGION_HELD_UNKNOWN;
}

bool region_grants_explain(Region *region) {
        (void)region_grants_reap(region);
        return region->grants.n > 0;
}

/* Whether questions about a region are slow, and not just the latest one. */
static bool is_slow(const Region *region, uint64_t mark) {
        uint64_t first, last;

        for (unsigned int i = 1; i < MARK_SLOW_QUESTIONS; ++i) {
                uint64_t before = time_now();

                (void)memfd_find_mark(region->fd, mark, mark, &first, &last);
                if (time_now() - before <= MARK_SLOW_NS)
                        return false;
        }
        return true;
}

static bool may_mark(const RegionGrants *of) {
        return !of->marks_off && of->n_marked < GRANT_MARKS_MAX && probe_have(PROBE_MARKER);
}

/* Right after it was opened, and it is born then. The time is asked once: all that was done since it was asked
 * last took longer than the mark, and as a rule that was not long. */
static void mark(Grant *grant, int fd) {
        RegionGrants *of = &grant->region->grants;
        uint64_t before = time_latest();
        bool wanted = may_mark(of);
        int r = wanted ? memfd_mark(fd, grant->id) : 0;

        grant->born = time_now();
        if (!wanted)
                return;
        if (r) {
                of->marks_off = true;
                return;
        }
        if (grant->born - before > MARK_SLOW_NS && is_slow(grant->region, grant->id)) {
                of->marks_off = true;
                of->reap_in = GRANT_SLOW_EVERY;
        }
        grant->marked = true;
        ++of->n_marked;
}

int grant_is_possible(Region *region, bool writable) {
        return writable && region_is_frozen(region) ? GRANT_E_FROZEN : 0;
}

/* The region is handed out. */
static int open_it(const Region *region, bool writable, int *ret_fd) {
        int r = memfd_reopen(region->fd, writable, ret_fd);

        if (r)
                return r == MEMFD_E_NO_MEMORY ? GRANT_E_NO_MEMORY :
                       r == MEMFD_E_FAILED ? GRANT_E_FAILED : error_fold(r);
        return 0;
}

/* ... and was. */
static void count(Region *region, Account *account) {
        RegionGrants *of = &region->grants;

        ++of->granted;
        if (of->reap_in > 0)
                --of->reap_in;
        for (Account *at = account; at; at = at->parent)
                ++at->granted;
}

/* Moves as much of how often the one was handed out to the other as that can count; the rest is over. */
static void merge(Grant *into, Grant *from) {
        uint32_t n = UINT32_MAX - into->n < from->n ? UINT32_MAX - into->n : from->n;

        into->n += n;
        from->n -= n;
        state_touch(&into->record);
        (void)grant_free(from);
}

/* It has no mark. Return: the one that stands for it from now on: itself, or one that there was. */
static Grant *join(Grant *grant) {
        struct GrantTree *unmarked = &grant->grants->unmarked;
        Grant *other = RB_INSERT(GrantTree, unmarked, grant);

        if (other && !is_over(other)) {
                merge(other, grant);
                return other;
        }
        if (other) {
                (void)grant_free(other);
                (void)RB_INSERT(GrantTree, unmarked, grant);
        }
        grant->joined = true;
        return grant;
}

static void unjoin(Grant *grant) {
        if (grant->joined)
                (void)RB_REMOVE(GrantTree, &grant->grants->unmarked, grant);
        grant->joined = false;
}

static Grant key_of(Region *region, uint64_t session, uid_t uid, bool writable, bool ticket) {
        return (Grant){ .region = region, .session = session, .uid = uid, .writable = writable, .ticket = ticket };
}

/* The one that the next without a mark would be, NULL without. */
static Grant *find_same(Region *region, const Asker *asker, bool writable) {
        Grant key = key_of(region, asker->session, asker->uid, writable, asker->ticket);
        Grant *grant = RB_FIND(GrantTree, &region->regions->grants->unmarked, &key);

        return grant && !is_over(grant) ? grant : NULL;
}

bool grant_is_free(Region *region, const Asker *asker, bool writable) {
        return !may_mark(&region->grants) && find_same(region, asker, writable);
}

bool region_grants_has_unmarked(Region *region, const Asker *asker, bool writable) {
        Grant key = key_of(region, asker->session, asker->uid, writable, false);
        const Grant *grant = RB_NFIND(GrantTree, &region->regions->grants->unmarked, &key);

        return grant && grant->session == asker->session && grant->region == region;
}

/* One that there is, once more. */
static int grant_again(Grant *grant, int *ret_fd) {
        RegionGrants *of = &grant->region->grants;
        int r;

        r = open_it(grant->region, grant->writable, ret_fd);
        if (r)
                return r;
        /* A hundred bytes each in the kernel: so many do not live. */
        if (grant->n < UINT32_MAX) {
                ++grant->n;
                ++of->n;
        }
        count(grant->region, grant->charge.account);
        state_touch(&grant->record);
        return 0;
}

static int grant_first(Grant **ret, int *ret_fd, Grants *grants, Region *region, const Asker *asker, bool writable,
                       Shortage *shortage) {
        CLEANUP(grant_freep) Grant *grant = NULL;
        int r;

        grant = pool_take(&grants->pool);
        if (!grant)
                return error_origin(-ENOMEM);
        *grant = (Grant){
                .grants = grants,
                .region = region,
                .record = STATE_RECORD_NULL,
                .id = ++grants->last_id,
                .session = asker->session,
                .pidfd_ino = asker->pidfd_ino,
                .uid = asker->uid,
                .pid = asker->pid,
                .n = 1,
                .writable = writable,
                .ticket = asker->ticket,
                .charge = CHARGE_NULL,
        };
        list_init(&grant->in_region);
        list_init(&grant->in_account);
        /* The one before it is fetched from memory while the kernel is at work. */
        __builtin_prefetch(region->grants.list.previous, 1);
        ++region->grants.n;
        ++grants->n;
        counters_used(grants->counters, COUNTER_GRANT, grant->id);

        r = account_charge_slot(asker->account, ACCOUNT_GRANTS, 1, &grant->charge, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? GRANT_E_QUOTA : error_fold(r);

        r = open_it(region, writable, ret_fd);
        if (r)
                return r;
        list_append(&region->grants.list, &grant->in_region);
        list_append(&asker->account->grants, &grant->in_account);
        mark(grant, *ret_fd);
        count(region, asker->account);
        state_add(grants->state, &grant->record, STATE_GRANT, grant->id);

        *ret = grant->marked ? grant : join(grant);
        grant = NULL;
        return 0;
}

int grant_new(Grant **ret, int *ret_fd, Grants *grants, Region *region, const Asker *asker, bool writable,
              Shortage *shortage) {
        CLEANUP(close_fdp) int fd = -1;
        Grant *grant = NULL;
        int r;

        r = grant_is_possible(region, writable);
        if (r)
                return r;
        reap_for_one_more(region);
        if (!may_mark(&region->grants))
                grant = find_same(region, asker, writable);
        r = grant ? grant_again(grant, &fd) : grant_first(&grant, &fd, grants, region, asker, writable, shortage);
        if (r)
                return r;

        *ret_fd = steal_fd(&fd);
        *ret = grant;
        region_tell(region, REGION_WAS_GRANTED);
        return 0;
}

Grant *grant_free(Grant *grant) {
        Grants *grants;

        if (!grant)
                return NULL;
        grants = grant->grants;
        if (grant->record.state)
                state_touch(&grant->region->record);    /* more that are over */
        state_drop(&grant->record);
        if (grant->marked)
                --grant->region->grants.n_marked;
        grant->region->grants.n -= grant->n;
        --grants->n;
        unjoin(grant);
        list_unlink(&grant->in_region);
        list_unlink(&grant->in_account);
        charge_release(&grant->charge);
        pool_give(&grants->pool, grant);
        return NULL;
}

Grant *grant_take_back(Grant *grant) {
        if (!grant || grant->n == 1)
                return grant_free(grant);
        if (grant->n < UINT32_MAX) {
                --grant->n;
                --grant->region->grants.n;
                state_touch(&grant->record);
                state_touch(&grant->region->record);
        }
        return NULL;
}

/* -- of sessions that have ended -------------------------------------------------------- */

static void leave(Grant *grant) {
        unjoin(grant);
        grant->session = 0;
        state_touch(&grant->record);
        (void)join(grant);
}

bool grants_leave(Grants *grants, uint64_t session, size_t n) {
        Grant key = key_of(NULL, session, 0, false, false), *grant;

        while ((grant = RB_NFIND(GrantTree, &grants->unmarked, &key)) && grant->session == session) {
                if (n-- == 0)
                        return false;
                if (is_over(grant))
                        (void)grant_free(grant);
                else
                        leave(grant);
        }
        return true;
}

/* -- reconciling ---------------------------------------------------------------------- */

/* What RegionGrants.swept has of their number. */
#define SWEEPS_MASK UINT32_C(0xffffff)

/* One step of a sweep: the first grant's region is reaped, once a sweep; what still lives goes to
 * the end. Return: questions asked, at least 1. */
static unsigned int sweep_step(Grants *grants) {
        Account *account = grants->sweeping;
        Grant *grant = list_first(&account->grants, Grant, in_account);
        Region *region = grant->region;
        uint32_t sweep = (uint32_t)(grants->sweeps + 1);

        if (region->grants.swept != (sweep & SWEEPS_MASK)) {
                region->grants.swept = sweep & SWEEPS_MASK;
                return region_grants_reap(region);
        }
        list_move(&account->grants, &grant->in_account);
        --grants->left;
        return 1;
}

static void sweep_turn(Deadline *deadline, void *userdata) {
        Grants *grants = userdata;
        const List *of = &grants->sweeping->grants;
        uint64_t until = time_now() + REAP_NS;
        unsigned int n = 0;

        while (n < GRANT_STEPS && time_now() < until && grants->left > 0 && !list_is_empty(of))
                n += sweep_step(grants);

        if (grants->left > 0 && !list_is_empty(of)) {
                deadline_arm(deadline, grants->deadlines, 0, sweep_turn, grants);
                return;
        }
        grants->left = 0;
        grants->sweeping = account_unref(grants->sweeping);
        ++grants->sweeps;
}

uint64_t grants_sweep(Grants *grants, Account *account) {
        if (grants->sweeping)
                return 0;

        grants->sweeping = account_ref(account);
        grants->left = account->used[ACCOUNT_GRANTS];
        deadline_arm(&grants->work, grants->deadlines, 0, sweep_turn, grants);
        return grants->sweeps + 1;
}

bool grants_swept(const Grants *grants, uint64_t ticket) {
        return grants->sweeps >= ticket;
}

/* -- after a restart ------------------------------------------------------------------ */

int grant_adopt(Grant **ret, Grants *grants, Region *region, Account *asker, const SavedGrant *saved) {
        bool marked = saved->marked && region->grants.n_marked < GRANT_MARKS_MAX;
        bool left = !marked && !grants->connected(saved->session, grants->userdata);
        Grant *grant = pool_take(&grants->pool);

        if (!grant)
                return error_origin(-ENOMEM);
        *grant = (Grant){
                .grants = grants,
                .region = region,
                .id = saved->id,
                .session = left ? 0 : saved->session,
                .born = saved->born,
                .pidfd_ino = saved->pidfd_ino,
                .uid = saved->uid,
                .pid = (pid_t)saved->pid,
                .n = saved->again + 1,
                .writable = saved->writable,
                .marked = marked,
                .ticket = saved->ticket,
                .charge = CHARGE_NULL,
        };
        list_append(&region->grants.list, &grant->in_region);
        list_append(&asker->grants, &grant->in_account);
        account_charge_anyway(asker, &grant_cost, &grant->charge);
        if (marked)
                ++region->grants.n_marked;
        region->grants.n += grant->n;
        region->grants.granted += grant->n;
        ++grants->n;
        *ret = marked ? grant : join(grant);
        return 0;
}

/* Of each region that had grants before: the dead may be most of them, and count against their askers. */
static void check_turn(Deadline *deadline, void *userdata) {
        Grants *grants = userdata;
        uint64_t until = time_now() + REAP_NS;
        Region *region;

        for (unsigned int n = 0; n < GRANT_STEPS && time_now() < until; ++n) {
                region = regions_after(grants->checked, grants->checked_to);
                if (!region)
                        return;
                grants->checked_to = region->id;
                if (region->grants.n > 0)
                        n += region_grants_reap(region);
        }
        deadline_arm(deadline, grants->deadlines, 0, check_turn, grants);
}

void grants_adopted(Grants *grants, Regions *regions) {
        grants->checked = regions;
        grants->checked_to = 0;
        if (grants->n > 0)
                deadline_arm(&grants->check, grants->deadlines, 0, check_turn, grants);
}
