/* Grants: see the header for the model. */

#include "core/grant.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "core/region.h"
#include "util/error.h"
#include "util/memfd.h"
#include "util/probe.h"

/* A mark that takes longer than this says that the region is full of locks, ours or forged. */
#define MARK_SLOW_NS (20 * NSEC_PER_USEC)

DEFINE_CLEANUP(Grant, grant_free);

void region_grants_init(RegionGrants *grants) {
        *grants = (RegionGrants){ .n = 0 };
        list_init(&grants->list);
}

void region_grants_clear(RegionGrants *grants) {
        Grant *grant;

        while ((grant = list_first(&grants->list, Grant, in_region)))
                (void)grant_free(grant);
}

bool region_grants_explain(const RegionGrants *grants) {
        const Grant *grant;

        list_for_each(grant, &grants->list, Grant, in_region)
                if (grant->marked ? memfd_is_marked(grant->region->fd, grant->id) :
                                    grant->grants->connected(grant->peer, grant->grants->userdata))
                        return true;
        return false;
}

void grants_init(Grants *grants, Deadlines *deadlines, GrantsConnected connected, void *userdata) {
        *grants = (Grants){ .deadlines = deadlines, .connected = connected, .userdata = userdata };
}

void grants_deinit(Grants *grants) {
        deadline_disarm(&grants->work);
        grants->sweeping = account_unref(grants->sweeping);
        ASSERT(grants->n == 0);
}

static void mark(Grant *grant, int fd) {
        RegionGrants *of = &grant->region->grants;
        uint64_t before;

        if (of->marks_off || of->n_marked >= GRANT_MARKS_MAX || !probe_have(PROBE_MARKER))
                return;

        before = time_now();
        if (memfd_mark(fd, grant->id)) {
                of->marks_off = true;
                return;
        }
        if (time_now() - before > MARK_SLOW_NS && of->n_marked > 0)
                of->marks_off = true;
        grant->marked = true;
        ++of->n_marked;
}

int grant_new(Grant **ret, int *ret_fd, Grants *grants, Region *region, const Asker *asker, bool writable,
              Shortage *shortage) {
        static const Cost cost = { .slots = { [ACCOUNT_GRANTS] = 1 } };
        CLEANUP(grant_freep) Grant *grant = NULL;
        CLEANUP(close_fdp) int fd = -1;
        int r;

        grant = malloc(sizeof(*grant));
        if (!grant)
                return error_origin(-ENOMEM);
        *grant = (Grant){
                .grants = grants,
                .region = region,
                .id = ++grants->last_id,
                .peer = asker->peer,
                .born = time_now(),
                .pidfd_ino = asker->pidfd_ino,
                .uid = asker->uid,
                .pid = asker->pid,
                .writable = writable,
                .charge = CHARGE_NULL,
        };
        list_append(&region->grants.list, &grant->in_region);
        list_append(&asker->account->grants, &grant->in_account);
        ++region->grants.n;
        ++grants->n;

        r = account_charge(asker->account, &cost, &grant->charge, shortage);
        if (r)
                return r == ACCOUNT_E_QUOTA ? GRANT_E_QUOTA : error_fold(r);

        r = memfd_reopen(region->fd, writable, &fd);
        if (r)
                return r == MEMFD_E_NO_MEMORY ? GRANT_E_NO_MEMORY : r == MEMFD_E_FAILED ? GRANT_E_FAILED : error_fold(r);
        mark(grant, fd);

        *ret_fd = steal_fd(&fd);
        *ret = grant;
        grant = NULL;
        return 0;
}

Grant *grant_free(Grant *grant) {
        if (!grant)
                return NULL;
        if (grant->marked)
                --grant->region->grants.n_marked;
        --grant->region->grants.n;
        --grant->grants->n;
        list_unlink(&grant->in_region);
        list_unlink(&grant->in_account);
        charge_release(&grant->charge);
        free(grant);
        return NULL;
}

bool grant_is_alive(const Grant *grant) {
        int fd = grant->region->fd;

        if (grant->marked)
                return memfd_is_marked(fd, grant->id);
        if (grant->grants->connected(grant->peer, grant->grants->userdata))
                return true;
        return memfd_probe(fd) != 0;
}

/* -- reconciling ---------------------------------------------------------------------- */

static void sweep_step(Grants *grants) {
        Account *account = grants->sweeping;
        Grant *grant = list_first(&account->grants, Grant, in_account);

        if (grant_is_alive(grant))
                list_move(&account->grants, &grant->in_account);
        else
                (void)grant_free(grant);
}

static void sweep_turn(Deadline *deadline, void *userdata) {
        Grants *grants = userdata;

        for (unsigned int i = 0; i < GRANT_STEPS && grants->left > 0; ++i, --grants->left) {
                if (list_is_empty(&grants->sweeping->grants))
                        grants->left = 1;
                else
                        sweep_step(grants);
        }
        if (grants->left > 0) {
                deadline_arm(deadline, grants->deadlines, 0, sweep_turn, grants);
        } else {
                grants->sweeping = account_unref(grants->sweeping);
                ++grants->sweeps;
        }
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
