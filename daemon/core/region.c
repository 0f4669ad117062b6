/* Regions: see the header for the model. */

#include "core/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/digits.h"
#include "base/overflow.h"
#include "core/saved.h"
#include "util/error.h"
#include "util/memfd.h"
#include "util/probe.h"
#include "util/spare.h"

/* One punch is at most this long, about 1.8 ms if all of it is populated. */
#define PUNCH_STEP (UINT64_C(16) << 20)
/* A holder may have made a huge page of a region's end, which goes beyond it (madvise(2), MADV_COLLAPSE). */
#define PUNCH_BEYOND (UINT64_C(2) << 20)
/* No more punches are begun in a turn after this time. */
#define PUNCH_TURN_NS NSEC_PER_MSEC
/* Regions asked in one turn of a sweep; a probe takes about a microsecond. */
#define SWEEP_STEPS 64
/* Names that one region loses in a turn because nobody holds it. */
#define NAMES_TURN 64
/* Sweeps begin at most so often: close events are the rule, sweeps the exception. */
#define SWEEP_NS (100 * NSEC_PER_MSEC)
/* How long a shortage waits for orphans that had an event and were still held: two retries. */
#define ASKING_NS (24 * NSEC_PER_MSEC)
/* ... and for regions that another process closes. */
#define BURYING_NS (250 * NSEC_PER_MSEC)
/* What a peer left in sockets that nobody can reach is looked for when it goes and then at these
 * times, because its process may end a little after its connection. */
static const uint64_t collects[] = { 250 * NSEC_PER_MSEC, 750 * NSEC_PER_MSEC };
#define N_COLLECTS (sizeof(collects) / sizeof(collects[0]))

/* How long until there may be memory again. */
#define OVERLOOKED_NS NSEC_PER_SEC

/* After an event that found it still held: the last reference may be a moment behind. */
static const uint64_t retries[] = {
        4 * NSEC_PER_MSEC, 16 * NSEC_PER_MSEC, 64 * NSEC_PER_MSEC, 256 * NSEC_PER_MSEC, 1000 * NSEC_PER_MSEC,
};
#define N_RETRIES (sizeof(retries) / sizeof(retries[0]))

static int compare_watch(RegionMore *a, RegionMore *b) {
        return a->watch < b->watch ? -1 : a->watch > b->watch;
}

TREE_GENERATE(RegionWatchTree, RegionMore, by_watch, compare_watch)

static void work_arm(Regions *regions);
static void overlook(Regions *regions);

const RegionMore region_nothing_more = { .watch = -1 };

static Region *first_of(const List *list) {
        const RegionMore *more = list_first(list, RegionMore, link);

        return more ? more->region : NULL;
}

int region_expand(Region *region) {
        RegionMore *more;

        if (region->more)
                return 0;
        more = spare_take(sizeof(*more));
        if (!more)
                return error_origin(-ENOMEM);
        *more = (RegionMore){ .region = region, .watch = -1, .probe = DEADLINE_NULL };
        list_init(&more->link);
        list_init(&more->interests);
        list_init(&more->session);
        region_tickets_init(&more->tickets);
        region->more = more;
        return 0;
}

static void saved_change(Region *region) {
        state_touch(&region->record);
}

/* -- making --------------------------------------------------------------------------- */

static int fold_memfd(int r) {
        switch (r) {
        case 0:
                return 0;
        case MEMFD_E_UNSUPPORTED:
                return REGION_E_UNSUPPORTED;
        case MEMFD_E_NO_PAGES:
                return REGION_E_NO_PAGES;
        case MEMFD_E_NO_MEMORY:
                return REGION_E_NO_MEMORY;
        case MEMFD_E_TOO_LARGE:
                return REGION_E_SIZE;
        default:
                return error_fold(r);
        }
}

int region_cost(const RegionSpec *spec, Cost *ret) {
        uint64_t page = memfd_page_size(spec->huge_shift);
        uint64_t bytes;

        if (spec->huge_shift && spec->size & (page - 1))
                return REGION_E_SIZE;
        if (spec->size > INT64_MAX || !round_up_u64(spec->size, page, &bytes))
                return REGION_E_SIZE;
        *ret = (Cost){ .slots = { [ACCOUNT_BYTES] = bytes, [ACCOUNT_REGIONS] = 1 } };
        return 0;
}

void region_store_name(uint64_t id, char ret[FDSTORE_NAME_MAX]) {
        char text[1 + DIGITS_MAX + 1], *end = text + sizeof(text), *first;

        *--end = '\0';
        first = digits_before(end, id, 10);
        *--first = 'r';
        memcpy(ret, first, (size_t)(end + 1 - first));
}

/* New memory, which outlives us from here on, and so does the region with the next commit. */
static int make_memory(Region *region, const MemfdSpec *spec) {
        const Regions *regions = region->regions;
        char name[FDSTORE_NAME_MAX];
        int r;

        r = memfd_make(spec, &region->fd);
        if (r)
                return fold_memfd(r);
        if (regions->store) {
                region_store_name(region->id, name);
                r = fdstore_push(regions->store, name, region->fd);
                if (r)
                        return r == FDSTORE_E_BUSY ? REGION_E_BUSY : error_fold(r);
                region->stored = true;
        }
        if (regions->state)
                region->inode = memfd_inode(region->fd);
        return 0;
}

/* The store has it already. */
static int take_memory(Region *region, const MemfdSpec *spec) {
        Unborn unborn = stock_take(&region->regions->stock);

        region->fd = unborn.fd;
        region->inode = unborn.inode;
        region->stored = true;
        return fold_memfd(memfd_finish(region->fd, spec));
}

/* Its descriptor leaves the store after the next commit. */
static void leave_store(Region *region) {
        char name[FDSTORE_NAME_MAX];

        if (!region->stored)
                return;
        region_store_name(region->id, name);
        fdstore_remove(region->regions->store, name);
        region->stored = false;
}

static void region_unsave(Region *region) {
        state_drop(&region->record);
        leave_store(region);
}

static int region_make(Region **ret, Regions *regions, uint64_t id, const RegionSpec *spec) {
        Region *region = pool_take(&regions->pool);

        if (!region)
                return error_origin(-ENOMEM);
        region->id = id;
        region->more = NULL;
        if (((spec->lifetime != REGION_NAMED || spec->bell) && region_expand(region)) ||
            region_index_add(&regions->by_id, region)) {
                spare_give(region->more, sizeof(*region->more));
                pool_give(&regions->pool, region);
                return error_origin(-ENOMEM);
        }
        *region = (Region){
                .regions = regions,
                .id = id,
                .record = STATE_RECORD_NULL,
                .size = spec->size,
                .created_ns = time_wall(),
                .fd = -1,
                .permissions = permissions_copy(&spec->permissions),
                .huge_shift = (uint8_t)spec->huge_shift,
                .lifetime = (uint8_t)spec->lifetime,
                .freezable = spec->freezable,
                .is_bell = spec->bell,
                .charge = CHARGE_NULL,
                .more = region->more,
        };
        region_grants_init(&region->grants);
        ++regions->n;
        counters_used(regions->counters, COUNTER_REGION, id);
        *ret = region;
        return 0;
}

int region_new(Region **ret, Regions *regions, Account *owner, const RegionSpec *spec, Shortage *shortage) {
        bool stocked = !spec->huge_shift && !spec->bell && stock_wanted(regions);
        MemfdSpec memory = { .size = spec->size, .huge_shift = spec->huge_shift, .freezable = spec->freezable,
                             .readable = spec->bell };
        CLEANUP(region_freep) Region *region = NULL;
        Cost cost;
        int r;

        r = region_cost(spec, &cost);
        if (r)
                return r;
        memory.id = stocked ? stock_number(&regions->stock) : ++regions->last_id;
        r = region_make(&region, regions, memory.id, spec);
        if (r)
                return error_fold(r);
        r = account_charge(owner, &cost, &region->charge, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? REGION_E_QUOTA : error_fold(r);
        r = stocked ? take_memory(region, &memory) : make_memory(region, &memory);
        if (r)
                return r;
        state_add(regions->state, &region->record, STATE_REGION, region->id);

        *ret = region;
        region = NULL;
        return 0;
}

Region *regions_find(Regions *regions, uint64_t id) {
        Region *region = region_index_at_least(&regions->by_id, id);

        return region && region->id == id ? region : NULL;
}

Region *regions_after(Regions *regions, uint64_t id) {
        return id < UINT64_MAX ? region_index_at_least(&regions->by_id, id + 1) : NULL;
}

/* -- watching ------------------------------------------------------------------------- */

/* It has room for more. */
static void watch_begin(Region *region) {
        RegionMore *more = region->more, *taken;
        char path[32];

        if (region->regions->inotify < 0 || more->watch >= 0)
                return;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", region->fd);
        more->watch = inotify_add_watch(region->regions->inotify, path, IN_CLOSE);
        if (more->watch < 0)
                return;                 /* out of watches: the timer does what it can */
        taken = RB_INSERT(RegionWatchTree, &region->regions->by_watch, more);
        ASSERT(!taken);
}

static void watch_end(Region *region) {
        RegionMore *more = region->more;

        if (region_more(region)->watch < 0)
                return;
        (void)RB_REMOVE(RegionWatchTree, &region->regions->by_watch, more);
        (void)inotify_rm_watch(region->regions->inotify, more->watch);
        more->watch = -1;
}

/* -- dying ---------------------------------------------------------------------------- */

static void ask_no_more(Region *region) {
        if (!deadline_is_armed(&region->more->probe))
                return;
        deadline_disarm(&region->more->probe);
        --region->regions->n_asking;
}

/* Whether close events of the region lead to questions. */
static bool is_asked(const Region *region) {
        return region->more && (region->state == REGION_STATE_ORPHAN ||
                                (region->state == REGION_STATE_NAMED && region->more->n_wanting > 0));
}

/* Whether it is among those that are asked. */
static bool is_in_turn(const Region *region) {
        return region->more && !list_is_empty(&region->more->link);
}

/* From now on it is asked, unless it is so already; without a watch yet. That somebody holds it now is
 * the usual case, and an event will say when not. There is room for more. */
static void asking_begin(Region *region) {
        RegionMore *more = region->more;

        if (!list_is_empty(&more->link))
                return;
        more->retry = N_RETRIES;
        list_append(&region->regions->asked, &more->link);
        ++region->regions->n_asked;
}

static void asking_end(Region *region) {
        if (!is_in_turn(region))
                return;
        list_unlink(&region->more->link);
        --region->regions->n_asked;
        ask_no_more(region);
        watch_end(region);
}

/* Makes it one with a name, or on its way between states. */
static void leave_state(Region *region) {
        bool condemned = region->state == REGION_STATE_CONDEMNED;

        if (region->state == REGION_STATE_ORPHAN)
                --region->regions->n_orphans;
        region->state = REGION_STATE_NAMED;
        if (condemned) {
                --region->regions->n_condemned;
                list_unlink(&region->more->link);
        } else if (region_more(region)->n_wanting == 0) {
                asking_end(region);
        }
}

static void tell_gone(Region *region) {
        RegionInterest *interest;

        while (region->more && (interest = list_first(&region->more->interests, RegionInterest, link))) {
                region_drop_interest(interest);
                interest->fn(interest, REGION_IS_GONE);
        }
}

/* Takes a region and its doorbell's page apart. Return: the page, NULL without one. */
static Region *bell_detach(Region *region) {
        Region *page = region_page(region), *pair = region_more(region)->pair;

        if (pair)
                pair->more->pair = region->more->pair = NULL;
        if (page)
                saved_change(page);
        return page;
}

Region *region_free(Region *region) {
        Regions *regions;

        if (!region)
                return NULL;
        regions = region->regions;
        ASSERT(!region->names.first && !region->lent);
        (void)bell_detach(region);
        tell_gone(region);
        if (region->state != REGION_STATE_CONDEMNED)
                region_index_remove(&regions->by_id, region);
        leave_state(region);
        region_leave_session(region);
        watch_end(region);
        region_grants_clear(&region->grants);
        (void)region_tickets_clear(region);
        region_unsave(region);
        region->fd = close_fd(region->fd);
        charge_release(&region->charge);
        permissions_deinit(&region->permissions);
        --regions->n;
        spare_give(region->more, sizeof(*region->more));
        pool_give(&regions->pool, region);
        return NULL;
}

/* Nobody holds it and nobody can find it any more. There is room for more. */
static void region_condemn(Region *region) {
        Regions *regions = region->regions;
        Region *page = bell_detach(region);

        leave_state(region);
        asking_end(region);
        region_index_remove(&regions->by_id, region);
        region_leave_session(region);
        region_grants_clear(&region->grants);
        (void)region_tickets_clear(region);
        region->state = REGION_STATE_CONDEMNED;
        saved_change(region);
        list_append(&regions->condemned, &region->more->link);
        ++regions->n_condemned;
        work_arm(regions);
        /* Before anybody is told, all of it is so. */
        if (page)
                region_orphan(page);
        tell_gone(region);
}

/* It was condemned before a restart. There is room for more. */
static void region_recondemn(Region *region) {
        Regions *regions = region->regions;

        region_index_remove(&regions->by_id, region);
        region->state = REGION_STATE_CONDEMNED;
        (void)region_is_held(region);
        list_append(&regions->condemned, &region->more->link);
        ++regions->n_condemned;
        work_arm(regions);
}

/* Bytes, within what a file can have. */
static uint64_t punch_to_the_end(const Region *region) {
        uint64_t most = (uint64_t)INT64_MAX - region->more->punched;
        uint64_t left = region_charged(region) - region->more->punched;

        return left < most - PUNCH_BEYOND ? left + PUNCH_BEYOND : most;
}

/* Empties a part of a condemned region: what a turn can bear, or all that is left if few pages are
 * allocated, however large the region is. Where the lease did not say that nobody holds it, somebody
 * may, and it is neither ours to empty nor its inode's lock ours to wait for.
 * Return: whether all is done. */
static bool punch_step(Region *region) {
        uint64_t left = region_charged(region) - region->more->punched;
        uint64_t allocated = left > 0 ? memfd_allocated(region->fd) : 0;
        uint64_t step = allocated > PUNCH_STEP && left > PUNCH_STEP ? PUNCH_STEP : left;

        if (allocated == 0 || !region->proven)
                return true;
        memfd_punch(region->fd, region->more->punched, step == left ? punch_to_the_end(region) : step);
        region->more->punched += step;
        return step == left;
}

/* Whether to close it would take longer than a turn may. */
static bool is_heavy(const Region *region) {
        return region->regions->bury && !region->buried && region_charged(region) > PUNCH_STEP &&
               memfd_allocated(region->fd) > PUNCH_STEP;
}

/* Has it closed elsewhere if need be. Return: whether it will be. */
static bool bury(Region *region) {
        Regions *regions = region->regions;

        return is_heavy(region) && regions->bury(region, regions->bury_userdata);
}

/* Whoever closes the last descriptor frees the memory, and that must not be the store: its time is
 * everybody's. Return: whether the region has to wait for it. */
static bool depart(Region *region) {
        Regions *regions = region->regions;

        if (!region->stored || !is_heavy(region))
                return false;
        leave_store(region);
        list_move(&regions->leaving, &region->more->link);
        ++regions->n_leaving;
        return true;
}

static void departed(FdBarrier *barrier, void *userdata) {
        Regions *regions = userdata;

        (void)barrier;
        while (!list_is_empty(&regions->departing)) {
                list_move(&regions->condemned, regions->departing.next);
                --regions->n_leaving;
        }
        work_arm(regions);
}

/* In another turn than the one in which they left: only then has the store been told. */
static void begin_departure(Regions *regions) {
        if (list_is_empty(&regions->leaving) || !list_is_empty(&regions->departing))
                return;
        list_splice(&regions->departing, &regions->leaving);
        fdstore_barrier(regions->store, &regions->departure, departed, regions);
}

/* What cannot be emptied is watched, from before it is closed, to hear when the file is gone. */
static void watch_file(Region *region) {
        if (region->freezable && region->proven && !region->buried &&
            region_seals(region) & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) && memfd_allocated(region->fd) > 0)
                watch_begin(region);
}

static void region_release(Region *region) {
        Regions *regions = region->regions;

        (void)region_free(region);
        ++regions->n_released;
}

/* Closes it, and releases it unless its file has to be gone first. */
static void region_close(Region *region) {
        if (region->more->watch < 0) {
                region_release(region);
                return;
        }
        leave_store(region);
        region->fd = close_fd(region->fd);
        list_move(&region->regions->kept, &region->more->link);
        ++region->regions->n_kept;
}

/* The last descriptor of any kind is gone, and so was the watch then. */
static void region_file_gone(Region *region) {
        (void)RB_REMOVE(RegionWatchTree, &region->regions->by_watch, region->more);
        region->more->watch = -1;
        if (region->fd >= 0)
                return;                 /* buried, and not returned yet */
        --region->regions->n_kept;
        region_release(region);
}

/* Empties condemned regions until the turn is over. */
static void punch_turn(Regions *regions) {
        uint64_t until = time_now() + PUNCH_TURN_NS;
        Region *region;

        while ((region = first_of(&regions->condemned))) {
                /* What is not committed might have its name again, with nothing in it. */
                if (region->record.dirty)
                        return;
                if (punch_step(region)) {
                        watch_file(region);
                        if (!depart(region) && !bury(region))
                                region_close(region);
                }
                if (time_now() >= until)
                        return;
        }
}

/* -- asking --------------------------------------------------------------------------- */

bool region_is_held(Region *region) {
        int r;

        region->proven = false;
        if (region->lent)
                return true;
        r = memfd_probe(region->fd);
        if (r == -EINVAL || (r < 0 && !probe_have(PROBE_LEASE)))
                return region_grants_explain(region);
        region->proven = r == 0;
        return !region->proven;         /* also when the kernel is short of memory for an answer */
}

static void probe_expired(Deadline *deadline, void *userdata);

static void ask_at(Region *region, uint64_t at) {
        ask_no_more(region);
        deadline_arm(&region->more->probe, region->regions->deadlines, at, probe_expired, region);
        ++region->regions->n_asking;
}

static void ask_later(Region *region) {
        RegionMore *more = region->more;
        bool blind = more->watch < 0 || !probe_have(PROBE_LEASE);
        uint64_t wait;

        if (more->retry < N_RETRIES)
                wait = retries[more->retry++];
        else if (blind)
                wait = retries[N_RETRIES - 1];  /* no event will come: keep asking, slowly */
        else
                return;
        ask_at(region, time_now() + wait);
}

/* It was asked, and nobody holds it. */
static void region_let_go(Region *region) {
        ask_no_more(region);
        if (region->state == REGION_STATE_ORPHAN)
                region_condemn(region);
        else
                region_tell(region, REGION_IS_UNHELD);
}

/* Asks whether anybody holds it. */
static void region_ask(Region *region) {
        if (!is_asked(region))
                return;
        if (region_is_held(region)) {
                ask_later(region);
                region_tell(region, REGION_IS_HELD);
        } else {
                region_let_go(region);
        }
}

static void probe_expired(Deadline *deadline, void *userdata) {
        Region *region = userdata;

        (void)deadline;
        --region->regions->n_asking;
        region_ask(region);
}

static void region_event(Region *region) {
        if (region->more)
                region->more->retry = 0;
        region_ask(region);
}

static void sweep_turn(Regions *regions) {
        for (unsigned int i = 0; i < SWEEP_STEPS && regions->sweep > 0; ++i, --regions->sweep) {
                Region *region = first_of(&regions->asked);

                if (!region) {
                        regions->sweep = 0;
                        return;
                }
                list_move(&regions->asked, &region->more->link);
                /* There was no watch left for it, or there is none yet after a restart. */
                watch_begin(region);
                if (!region_is_held(region)) {
                        region_let_go(region);
                } else if (regions->missed) {
                        region->more->retry = 0;
                        ask_later(region);
                }
        }
}

static void work_turn(Deadline *deadline, void *userdata) {
        Regions *regions = userdata;

        (void)deadline;
        sweep_turn(regions);
        begin_departure(regions);
        punch_turn(regions);
        if (regions->sweep > 0 || !list_is_empty(&regions->condemned) ||
            (!list_is_empty(&regions->leaving) && list_is_empty(&regions->departing)))
                work_arm(regions);
}

static void work_arm(Regions *regions) {
        if (!deadline_is_armed(&regions->work))
                deadline_arm(&regions->work, regions->deadlines, 0, work_turn, regions);
}

/* What it finds is let go a moment later, which is an event like any other. */
static void collect(Deadline *deadline, void *userdata) {
        Regions *regions = userdata;

        if (regions->n_asked == 0)
                return;
        memfd_collect();
        if (regions->n_collects < N_COLLECTS)
                deadline_arm(deadline, regions->deadlines, time_now() + collects[regions->n_collects++],
                             collect, regions);
}

static void sweep_begin(Deadline *deadline, void *userdata) {
        Regions *regions = userdata;

        (void)deadline;
        regions->sweep = regions->n_asked;
        regions->swept_at = time_now();
        regions->missed = regions->overflowed;
        regions->overflowed = false;
        if (regions->sweep > 0)
                work_arm(regions);
        regions->n_collects = 0;
        collect(&regions->collect, regions);
}

void regions_sweep(Regions *regions) {
        if (regions->n_asked > 0 && !deadline_is_armed(&regions->sweep_due))
                deadline_arm(&regions->sweep_due, regions->deadlines, regions->swept_at + SWEEP_NS,
                             sweep_begin, regions);
}

void regions_dispatch(Regions *regions) {
        char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        ssize_t n;

        /* One buffer a turn: the loop comes back while there is more. */
        n = read(regions->inotify, buffer, sizeof(buffer));
        for (ssize_t at = 0; at < n;) {
                const struct inotify_event *event = (const struct inotify_event *)(const void *)(buffer + at);
                RegionMore key = { .watch = event->wd }, *more;

                at += (ssize_t)(sizeof(*event) + event->len);
                if (event->mask & IN_Q_OVERFLOW) {
                        ++regions->n_overflows;
                        regions->overflowed = true;
                        regions_sweep(regions);
                        continue;
                }
                more = RB_FIND(RegionWatchTree, &regions->by_watch, &key);
                if (more && event->mask & IN_IGNORED)
                        region_file_gone(more->region);
                else if (more && event->mask & IN_CLOSE)
                        region_event(more->region);
        }
}

/* Whether an orphan that had an event may turn out to be free. Who did not get to run may be late for the retries:
 * then it is worth it to wait until there may be a sweep, which asks all. */
static bool is_worth_asking(const Regions *regions, uint64_t waited) {
        bool swept_since = time_now() - regions->swept_at < waited;

        return regions->n_asking > 0 && waited < (swept_since ? ASKING_NS : ASKING_NS + SWEEP_NS);
}

RegionsSqueeze regions_squeeze(Regions *regions, uint64_t waited) {
        if (regions->inotify >= 0)
                regions_dispatch(regions);
        if (regions->sweep == 0 && regions->n_asked > 0 && time_now() - regions->swept_at >= SWEEP_NS)
                sweep_begin(NULL, regions);
        if (regions->sweep > 0 || regions->n_condemned > regions->n_buried + regions->n_kept + regions->n_leaving)
                return REGIONS_SOON;
        if (regions->n_buried + regions->n_leaving > 0 && waited < BURYING_NS)
                return REGIONS_LATER;
        return is_worth_asking(regions, waited) ? REGIONS_LATER : REGIONS_SPENT;
}

/* -- interest ------------------------------------------------------------------------- */

/* There is room for more. */
static void interest_begin(Region *region, RegionInterest *interest, bool holders, RegionNewsFn fn, void *userdata) {
        *interest = (RegionInterest){ .region = region, .holders = holders, .fn = fn, .userdata = userdata };
        list_init(&interest->link);
        list_append(&region->more->interests, &interest->link);
        if (!holders)
                return;
        ++region->more->n_wanting;
        asking_begin(region);
}

int region_take_interest(Region *region, RegionInterest *interest, bool holders, RegionNewsFn fn, void *userdata) {
        bool held;

        interest->region = NULL;
        if (region_expand(region))
                return error_origin(-ENOMEM);
        interest_begin(region, interest, holders, fn, userdata);
        if (!holders)
                return true;
        watch_begin(region);
        /* After the watch: a close in between must not go unseen. */
        held = region_is_held(region);
        if (held && !deadline_is_armed(&region->more->probe))
                ask_later(region);
        return held;
}

void region_drop_interest(RegionInterest *interest) {
        Region *region = interest->region;

        if (!region)
                return;
        interest->region = NULL;
        list_unlink(&interest->link);
        if (interest->holders && --region->more->n_wanting == 0 && region->state == REGION_STATE_NAMED)
                asking_end(region);
}

void region_tell(Region *region, RegionNews news) {
        List telling = LIST_INIT(telling);
        RegionInterest *interest;

        if (!region->more)
                return;
        list_splice(&telling, &region->more->interests);
        while ((interest = list_first(&telling, RegionInterest, link))) {
                list_move(&region->more->interests, &interest->link);
                if (interest->holders || news == REGION_WAS_FROZEN)
                        interest->fn(interest, news);
        }
}

/* -- sessions -------------------------------------------------------------------------- */

void region_join_session(Region *region, List *regions, uint64_t number) {
        ASSERT(region->lifetime == REGION_SESSION);
        list_move(regions, &region->more->session);
        region->more->session_number = number;
        saved_change(region);
}

void region_leave_session(Region *region) {
        if (region_more(region)->session_number == 0)
                return;
        list_unlink(&region->more->session);
        region->more->session_number = 0;
        saved_change(region);
}

Region *region_of_session(const List *regions) {
        const RegionMore *more = list_first(regions, RegionMore, session);

        return more ? more->region : NULL;
}

/* -- names ---------------------------------------------------------------------------- */

/* Whom nobody holds nobody can get any more. Otherwise watch first, and ask again: a close in between
 * must not go unseen. */
static void orphan_begin(Region *region) {
        if (region_expand(region)) {
                overlook(region->regions);
                return;
        }
        asking_begin(region);
        if (region_is_held(region)) {
                watch_begin(region);
                region_ask(region);
        } else {
                region_condemn(region);
        }
}

void region_orphan(Region *region) {
        if (region->state != REGION_STATE_NAMED)
                return;
        region->state = REGION_STATE_ORPHAN;
        saved_change(region);
        ++region->regions->n_orphans;
        orphan_begin(region);
}

/* Begins to ask after orphans for which there was no memory, wherever they are. */
static void overlooked_turn(Deadline *deadline, void *userdata) {
        Regions *regions = userdata;
        Region *region;

        for (unsigned int i = 0; i < SWEEP_STEPS; ++i) {
                region = regions_after(regions, regions->overlooked);
                if (!region)
                        return;
                regions->overlooked = region->id;
                if (region->state == REGION_STATE_ORPHAN && !is_in_turn(region))
                        orphan_begin(region);
                if (deadline_is_armed(deadline))
                        return;         /* there still is none */
        }
        deadline_arm(deadline, regions->deadlines, 0, overlooked_turn, regions);
}

static void overlook(Regions *regions) {
        regions->overlooked = 0;
        deadline_arm(&regions->overlooked_due, regions->deadlines, time_now() + OVERLOOKED_NS,
                     overlooked_turn, regions);
}

Node *region_name(const Region *region) {
        return ring_first(&region->names, Node, in_region);
}

void region_lost_name(Region *region) {
        static const Cost one_less = { .slots = { [ACCOUNT_REGIONS] = 1 } };

        if (region->names.first) {
                charge_shrink(&region->charge, &one_less);
                return;
        }
        --region->regions->n_named;
        region_orphan(region);
}

void region_unlink_name(Node *name) {
        Region *region = name->region;

        tree_unlink(name);
        region_lost_name(region);
}

void region_unlink(Region *region) {
        /* With the last name the region may be gone: count before. */
        for (uint32_t n = region_n_names(region); n > 0; --n)
                region_unlink_name(region_name(region));
}

Region *region_discard(Region *region) {
        if (region && region->names.first) {
                tree_unlink(region_name(region));
                --region->regions->n_named;
        }
        return region_free(region);
}

Cost region_place_cost(const Region *region) {
        Cost cost = charge_cost(&region->charge);

        cost.slots[ACCOUNT_REGIONS] = 1;        /* not the owner's other names */
        return cost;
}

static int link_at(Region *region, const Spot *spot, bool announce, Shortage *shortage) {
        static const Cost one_more = { .slots = { [ACCOUNT_REGIONS] = 1 } };
        Region *other = spot->node ? spot->node->region : NULL;
        bool is_first = !region->names.first;
        Node *node = spot->node;
        int r;

        ASSERT(!other || other != region);

        if (!is_first && charge_grow(&region->charge, region->charge.account, &one_more, shortage))
                return REGION_E_QUOTA;
        if (other)
                r = tree_replace(node, region, shortage);
        else
                r = tree_link(spot, region, shortage, &node);
        if (r) {
                if (!is_first)
                        charge_shrink(&region->charge, &one_more);
                return r == TREE_E_QUOTA ? REGION_E_QUOTA : error_fold(r);
        }

        leave_state(region);
        if (!region->published)
                permissions_inherit(&region->permissions, &node->parent->default_acl);
        region->published = true;
        saved_change(region);
        ring_append(&region->names, &node->in_region);
        if (is_first)
                ++region->regions->n_named;
        if (announce)
                tree_announce(node);
        if (other)
                region_lost_name(other);
        return 0;
}

int region_link(Region *region, const Spot *spot, Shortage *shortage) {
        return link_at(region, spot, true, shortage);
}

int region_link_silently(Region *region, const Spot *spot, Shortage *shortage) {
        ASSERT(!spot->node);
        return link_at(region, spot, false, shortage);
}

int region_chown(Region *region, Account *owner, Shortage *shortage) {
        Account *old = account_ref(region->charge.account);
        Region *page = region_page(region);
        int r = 0;

        if (page)
                r = charge_move(&page->charge, owner, shortage);
        if (!r) {
                r = charge_move(&region->charge, owner, shortage);
                /* Back where it was a moment ago, also when a limit has been lowered since it was charged there. */
                if (r && page)
                        charge_move_anyway(&page->charge, old);
        }
        (void)account_unref(old);
        if (r)
                return r == ACCOUNT_E_QUOTA ? REGION_E_QUOTA : error_fold(r);
        if (page) {
                page->permissions.uid = owner->uid;
                saved_change(page);
        }
        saved_change(region);
        (void)region_revoke_tickets(region);
        return 0;
}

/* -- doorbells -------------------------------------------------------------------------- */

int region_bell(Region *region, Region **ret, Shortage *shortage) {
        RegionSpec spec = {
                .size = memfd_page_size(0),
                .bell = true,
                .permissions = { .uid = region->permissions.uid, .gid = region->permissions.gid, .mode = 0600 },
        };
        Region *page = region_page(region);
        int r;

        ASSERT(!region->is_bell && region->state != REGION_STATE_CONDEMNED);
        if (!page) {
                if (region_expand(region))
                        return error_origin(-ENOMEM);
                r = region_new(&page, region->regions, region->charge.account, &spec, shortage);
                if (r)
                        return r;
                page->more->pair = region;
                region->more->pair = page;
                saved_change(page);
        }
        *ret = page;
        return 0;
}

/* -- counted ---------------------------------------------------------------------------- */

/* Some of its names go; if it has more, it is asked once more in the next turn. */
static void counted_news(RegionInterest *interest, RegionNews news) {
        Region *region = interest->region;
        unsigned int n = 0;

        if (news != REGION_IS_UNHELD)
                return;
        while (region_n_names(region) > 1 && n++ < NAMES_TURN)
                region_unlink_name(region_name(region));
        if (region_n_names(region) > 1)
                ask_at(region, 0);
        else
                region_unlink(region);
}

void region_count(Region *region) {
        ASSERT(region->lifetime == REGION_COUNTED);
        (void)region_take_interest(region, &region->more->counted, true, counted_news, NULL);
}

void region_lend(Region *region) {
        ASSERT(!region->lent);
        region->lent = true;
        if (region->state == REGION_STATE_CONDEMNED) {
                list_unlink(&region->more->link);
                ++region->regions->n_buried;
        }
}

void region_return(Region *region) {
        Regions *regions = region->regions;

        ASSERT(region->lent);
        region->lent = false;
        if (region->state == REGION_STATE_CONDEMNED) {
                --regions->n_buried;
                list_append(&regions->condemned, &region->more->link);
                work_arm(regions);
                return;
        }
        if (regions->frozen && region->freezable && !region->told_frozen && region_is_frozen(region))
                regions->frozen(region, regions->frozen_userdata);
        region_event(region);
}

uint32_t region_seals(Region *region) {
        if (!(region->seals & F_SEAL_SEAL))
                region->seals = (uint16_t)memfd_seals(region->fd);
        return region->seals;
}

bool region_is_frozen(Region *region) {
        uint32_t seals;

        /* It was sealed against every other seal when it was made. */
        if (!region->freezable)
                return false;
        seals = region_seals(region);
        return seals & F_SEAL_SEAL && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
}

/* -- after a restart -------------------------------------------------------------------- */

static int cost_of(const SavedRegion *saved, Account *owner, Cost *ret) {
        RegionSpec spec = { .size = saved->size, .huge_shift = saved->huge_shift };

        if (region_cost(&spec, ret) || !account_can_count(owner, ret))
                return REGION_E_SIZE;
        return 0;
}

int region_adopt_consume_fd(Region **ret, Regions *regions, Account *owner, const SavedRegion *saved,
                            const Permissions *permissions, int region_fd) {
        CLEANUP(close_fdp) int fd = region_fd;
        RegionSpec spec = {
                .size = saved->size,
                .huge_shift = saved->huge_shift,
                .freezable = saved->freezable,
                .bell = saved->is_bell,
                .lifetime = (RegionLifetime)saved->lifetime,
                .permissions = *permissions,
        };
        Region *region;
        Cost cost;
        int r;

        r = cost_of(saved, owner, &cost);
        if (!r)
                r = region_make(&region, regions, saved->id, &spec);
        if (!r && saved->state == REGION_STATE_CONDEMNED)
                r = region_expand(region);
        if (r)
                return r;
        region->created_ns = saved->created_ns;
        region->inode = saved->inode;
        region->fd = steal_fd(&fd);
        region->stored = regions->store;
        region->published = saved->published;
        region->told_frozen = saved->told_frozen;
        region->polled = saved->polled;
        region->grants.granted = saved->ended;
        region->revoked = saved->revoked;
        account_charge_anyway(owner, &cost, &region->charge);
        if (saved->state == REGION_STATE_CONDEMNED)
                region_recondemn(region);
        *ret = region;
        return 0;
}

void region_adopt_name(Region *region, Node *name) {
        static const Cost one_more = { .slots = { [ACCOUNT_REGIONS] = 1 } };

        if (region->names.first)
                charge_grow_anyway(&region->charge, &one_more);
        ring_append(&region->names, &name->in_region);
        name->announced = true;
}

int region_adopt_bell(Region *region, Region *page) {
        if (region->is_bell || !page->is_bell || region_page(region) || region_rings_for(page))
                return 0;
        if (region_expand(region))
                return error_origin(-ENOMEM);
        region->more->pair = page;
        page->more->pair = region;
        return 0;
}

void region_adopted(Region *region) {
        Regions *regions = region->regions;

        if (region->names.first) {
                ++regions->n_named;
        } else if (!region_rings_for(region)) {
                region->state = REGION_STATE_ORPHAN;
                ++regions->n_orphans;
                if (region_expand(region))
                        overlook(regions);
                else
                        asking_begin(region);
        }
        if (region->lifetime == REGION_COUNTED)
                interest_begin(region, &region->more->counted, true, counted_news, NULL);
        if (regions->frozen && region->freezable && !region->told_frozen && region_is_frozen(region))
                regions->frozen(region, regions->frozen_userdata);
}

void regions_adopted(Regions *regions) {
        regions->overflowed = true;     /* what was closed meanwhile, nobody heard of */
        sweep_begin(NULL, regions);
}

/* -- all of them ---------------------------------------------------------------------- */

int regions_init(Regions *regions, Deadlines *deadlines, Grants *grants) {
        *regions = (Regions){ .deadlines = deadlines, .grants = grants, .inotify = -1,
                              .stock = { .due = DEADLINE_NULL } };
        pool_init(&regions->pool, sizeof(Region));
        RB_INIT(&regions->by_watch);
        list_init(&regions->asked);
        list_init(&regions->condemned);
        list_init(&regions->kept);
        list_init(&regions->leaving);
        list_init(&regions->departing);
        regions->departure = (FdBarrier)FDBARRIER_NULL(regions->departure);
        if (!probe_have(PROBE_INOTIFY))
                return 0;

        regions->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (regions->inotify < 0 && errno != EMFILE && errno != ENFILE && errno != ENOMEM)
                return error_origin(-errno);
        return 0;               /* out of instances (this uid has others): the timer does it */
}

void regions_forget_store(Regions *regions) {
        fdbarrier_cancel(&regions->departure);
        list_splice(&regions->leaving, &regions->departing);
        regions->store = NULL;
        stock_close(regions);
}

void regions_deinit(Regions *regions) {
        Region *region;

        stock_close(regions);
        deadline_disarm(&regions->work);
        deadline_disarm(&regions->sweep_due);
        deadline_disarm(&regions->collect);
        deadline_disarm(&regions->overlooked_due);
        fdbarrier_cancel(&regions->departure);
        list_splice(&regions->condemned, &regions->kept);
        list_splice(&regions->condemned, &regions->leaving);
        list_splice(&regions->condemned, &regions->departing);
        while ((region = first_of(&regions->condemned)))
                (void)region_free(region);
        while ((region = region_index_at_least(&regions->by_id, 0)))
                (void)region_free(region);
        ASSERT(regions->n == 0);
        region_index_deinit(&regions->by_id);
        pool_deinit(&regions->pool);
        regions->inotify = close_fd(regions->inotify);
}
