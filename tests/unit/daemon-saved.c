/* Whether the state has what there is: see the header for the model. */

#include "daemon-saved.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/inspect.h"
#include "lib/test.h"

/* An object that has to have a record. */
typedef struct Thing {
        StateKind kind;
        uint64_t id;
        const void *object;
        bool seen;
} Thing;

typedef struct Check {
        const SavedHouse *house;
        Thing *things;
        size_t n;
        size_t size;
        size_t n_seen;
} Check;

#define SAME(saved, is) \
        REQUIRE((saved) == (is), "%s %lu: saved %llx, is %llx", kind_names[thing->kind], thing->id, \
                (unsigned long long)(saved), (unsigned long long)(is))

static const char *const kind_names[_STATE_KIND_N] = {
        [STATE_COUNTERS] = "counters", [STATE_POLICY] = "policy", [STATE_DIRECTORY] = "directory",
        [STATE_REGION] = "region", [STATE_NAME] = "name", [STATE_TICKET] = "ticket", [STATE_GRANT] = "grant",
};

/* -- what there is ------------------------------------------------------------------------ */

static void add(Check *check, StateKind kind, uint64_t id, const void *object, const StateRecord *record) {
        if (check->n == check->size) {
                check->size = check->size ? 2 * check->size : 1024;
                check->things = realloc(check->things, check->size * sizeof(Thing));
                REQUIRE(check->things);
        }
        REQUIRE(record->state == check->house->state && record->kind == kind && record->id == id,
                "%s %lu has no record", kind_names[kind], id);
        REQUIRE(!record->dirty, "%s %lu is not committed", kind_names[kind], id);
        check->things[check->n++] = (Thing){ .kind = kind, .id = id, .object = object };
}

static void add_tree(Check *check) {
        static const Credentials all = { .admin = true };
        Directory *root = check->house->tree->root;

        add(check, STATE_DIRECTORY, SAVED_ROOT, root, &root->node.record);
        for (Node *node = tree_list_first(root); node; node = tree_list_next(root, &all, true, node)) {
                if (node_is_directory(node))
                        add(check, STATE_DIRECTORY, node->record.id, node, &node->record);
                else
                        add(check, STATE_NAME, node->record.id, node, &node->record);
        }
}

static void add_region(Check *check, Region *region) {
        const Grant *grant;

        add(check, STATE_REGION, region->id, region, &region->record);
        list_for_each(grant, &region->grants.list, Grant, in_region)
                add(check, STATE_GRANT, grant->id, grant, &grant->record);
        for (const Ticket *t = region_tickets_after(region, 0); t;
             t = region_tickets_after(region, t->id))
                add(check, STATE_TICKET, t->id, t, &t->record);
}

/* Condemned regions are no longer found by their numbers. */
static void add_regions(Check *check) {
        Regions *regions = check->house->regions;
        RegionMore *more;
        Region *region;
        size_t n = 0;

        for (region = regions_after(regions, 0); region; region = regions_after(regions, region->id), ++n)
                add_region(check, region);
        list_for_each(more, &regions->condemned, RegionMore, link) {
                add_region(check, more->region);
                ++n;
        }
        list_for_each(more, &regions->kept, RegionMore, link) {
                add_region(check, more->region);
                ++n;
        }
        REQUIRE(n + regions->n_buried == regions->n, "%zu regions of %lu", n, regions->n);
}

static int compare(const void *a, const void *b) {
        const Thing *x = a, *y = b;

        if (x->kind != y->kind)
                return x->kind < y->kind ? -1 : 1;
        return x->id < y->id ? -1 : x->id > y->id;
}

static void collect(Check *check) {
        const SavedHouse *house = check->house;

        add(check, STATE_COUNTERS, 1, house->counters, &house->counters->record);
        if (house->policy)
                add(check, STATE_POLICY, 1, house->policy, &house->policy->record);
        add_tree(check);
        add_regions(check);
        qsort(check->things, check->n, sizeof(Thing), compare);
        for (size_t i = 1; i < check->n; ++i)
                REQUIRE(compare(&check->things[i - 1], &check->things[i]) < 0, "two of one number");
}

/* -- against what is saved ---------------------------------------------------------------- */

static void same_acl(const Thing *thing, const AclList *saved, mode_t mode, const Acl *acl, bool always) {
        AclList is = { .n = 0 };

        if (acl || always)
                acl_join(mode, acl, &is);
        SAME(saved->n, is.n);
        for (size_t i = 0; i < is.n; ++i) {
                SAME(saved->entries[i].tag, is.entries[i].tag);
                SAME(saved->entries[i].id, is.entries[i].id);
                SAME(saved->entries[i].perms, is.entries[i].perms);
        }
}

static void same_permissions(const Thing *thing, const SavedPermissions *saved, const Permissions *is) {
        SAME(saved->uid, is->uid);
        SAME(saved->gid, is->gid);
        SAME(saved->mode, is->mode);
        same_acl(thing, &saved->acl, is->mode, is->acl, false);
}

static void same_name(const Thing *thing, const char *saved, size_t n_saved, const Node *is) {
        SAME(n_saved, is->n_name);
        REQUIRE(!memcmp(saved, node_name(is), n_saved), "%.*s is saved as %.*s", (int)n_saved, node_name(is),
                (int)n_saved, saved);
}

static void same_directory(const Thing *thing, const uint8_t *data, size_t n) {
        const Directory *is = thing->object;
        SavedDirectory saved;

        REQUIRE(saved_decode_directory(&saved, data, n) == 0, "directory %lu", thing->id);
        SAME(saved.id, thing->id);
        SAME(saved.parent, is->node.parent ? is->node.parent->node.record.id : 0);
        same_permissions(thing, &saved.permissions, &is->permissions);
        SAME(saved.defaults.set, is->default_acl.set);
        if (saved.defaults.set) {
                SAME(saved.defaults.mode, is->default_acl.mode & 0777);
                same_acl(thing, &saved.defaults.acl, is->default_acl.mode, is->default_acl.acl, true);
        }
        for (size_t i = 0; i < DIRECTORY_SLOTS; ++i) {
                SAME(saved.max[i], is->account->max[i]);
                SAME(saved.own_max[i], is->own_max[i]);
        }
        SAME(saved.created_ns, is->created_ns);
        SAME(saved.ruled, !list_is_empty(&is->ruled));
        SAME(saved.paid, is->charge.account != NULL);
        SAME(saved.payer, is->charge.account ? is->charge.account->uid : 0);
        same_name(thing, saved.name, saved.n_name, &is->node);
}

/* Which of its region's names it is: the list's order is that of the saved numbers. */
static void same_order(const Thing *thing, const Node *is) {
        const Node *name, *before = NULL;

        ring_for_each(name, &is->region->names, Node, in_region) {
                if (name == is && before)
                        REQUIRE(before->record.id < thing->id, "name %lu is out of order", thing->id);
                before = name;
        }
}

static void same_name_of_region(const Thing *thing, const uint8_t *data, size_t n) {
        const Node *is = thing->object;
        SavedName saved;

        REQUIRE(saved_decode_name(&saved, data, n) == 0, "name %lu", thing->id);
        SAME(saved.id, thing->id);
        SAME(saved.directory, is->parent->node.record.id);
        SAME(saved.region, is->region->id);
        SAME(saved.expires_at, is->expiry ? is->expiry->deadline.at : 0);
        same_order(thing, is);
        same_name(thing, saved.name, saved.n_name, is);
}

static void same_region(const Thing *thing, const uint8_t *data, size_t n) {
        const Region *is = thing->object;
        SavedRegion saved;

        REQUIRE(saved_decode_region(&saved, data, n) == 0, "region %lu", thing->id);
        SAME(saved.id, thing->id);
        SAME(saved.size, is->size);
        SAME(saved.created_ns, is->created_ns);
        SAME(saved.inode, is->inode);
        SAME(saved.inode != 0, true);
        same_permissions(thing, &saved.permissions, &is->permissions);
        SAME(saved.payer, is->charge.account->uid);
        SAME(saved.huge_shift, is->huge_shift);
        SAME(saved.lifetime, is->lifetime);
        SAME(saved.state, is->state);
        SAME(saved.freezable, is->freezable);
        SAME(saved.published, is->published);
        SAME(saved.told_frozen, is->told_frozen);
        SAME(saved.is_bell, is->is_bell);
        SAME(saved.polled, is->polled);
        SAME(saved.rings_for, region_rings_for(is) ? region_rings_for(is)->id : 0);
        SAME(saved.session, region_more(is)->session_number);
        SAME(saved.session != 0, is->more && !list_is_empty(&is->more->session));
        SAME(saved.ended, is->grants.granted - is->grants.n);
        SAME(saved.revoked, is->revoked);
}

static void same_ticket(const Thing *thing, const uint8_t *data, size_t n) {
        const Ticket *is = thing->object;
        SavedTicket saved;

        REQUIRE(saved_decode_ticket(&saved, data, n) == 0, "ticket %lu", thing->id);
        SAME(saved.id, thing->id);
        SAME(saved.region, is->region->id);
        SAME(saved.until, is->end.at);
        SAME(saved.issuer, is->charge.account->uid);
        SAME(saved.uses, is->spec.uses);
        SAME(saved.left, is->left);
        SAME(saved.writable, is->spec.writable);
        SAME(saved.one_user, is->spec.one_user);
        SAME(saved.uid, is->spec.one_user ? is->spec.uid : 0);
        REQUIRE(!memcmp(saved.digest, is->digest, sizeof(saved.digest)), "ticket %lu", thing->id);
}

static void same_grant(const Thing *thing, const uint8_t *data, size_t n) {
        const Grant *is = thing->object;
        SavedGrant saved;

        REQUIRE(saved_decode_grant(&saved, data, n) == 0, "grant %lu", thing->id);
        SAME(saved.id, thing->id);
        SAME(saved.region, is->region->id);
        SAME(saved.session, is->session);
        SAME(saved.born, is->born);
        SAME(saved.pidfd_ino, is->pidfd_ino);
        SAME(saved.uid, is->uid);
        SAME(saved.uid, is->charge.account->uid);
        SAME(saved.pid, (uint32_t)is->pid);
        SAME(saved.writable, is->writable);
        SAME(saved.marked, is->marked);
        SAME(saved.ticket, is->ticket);
        SAME(saved.again, is->n - 1);
}

/* None above what is saved was ever used. */
static void same_counters(const Check *check, const Thing *thing, const uint8_t *data, size_t n) {
        const SavedHouse *house = check->house;
        SavedCounters saved;

        REQUIRE(saved_decode_counters(&saved, data, n) == 0);
        REQUIRE(saved.last_region >= house->regions->last_id && saved.last_grant >= house->grants->last_id);
        REQUIRE(saved.last_ticket >= house->tickets->last_id && saved.last_name >= house->tree->last_name);
        REQUIRE(saved.last_directory >= house->tree->last_directory);
        REQUIRE(!house->events || saved.sequence >= house->events->sequence);
        SAME(saved.last_region, house->counters->reserved[COUNTER_REGION]);
        SAME(saved.last_grant, house->counters->reserved[COUNTER_GRANT]);
        SAME(saved.last_ticket, house->counters->reserved[COUNTER_TICKET]);
        SAME(saved.last_directory, house->counters->reserved[COUNTER_DIRECTORY]);
        SAME(saved.last_name, house->counters->reserved[COUNTER_NAME]);
        SAME(saved.last_session, house->counters->reserved[COUNTER_SESSION]);
        SAME(saved.sequence, house->counters->reserved[COUNTER_SEQUENCE]);
}

static void same_policy(const Thing *thing, const uint8_t *data, size_t n) {
        const PersistPolicy *is = thing->object;
        SavedPolicy saved;

        REQUIRE(saved_decode_policy(&saved, data, n) == 0);
        SAME(saved.generation, is->saved.generation);
        SAME(saved.n_blob, is->saved.n_blob);
        SAME(saved.pending, is->saved.pending);
}

static void (*const same[_STATE_KIND_N])(const Thing *thing, const uint8_t *data, size_t n) = {
        [STATE_POLICY] = same_policy, [STATE_DIRECTORY] = same_directory, [STATE_REGION] = same_region,
        [STATE_NAME] = same_name_of_region, [STATE_TICKET] = same_ticket, [STATE_GRANT] = same_grant,
};

static int look_at(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Check *check = userdata;
        Thing key = { .kind = kind, .id = id };
        Thing *thing = bsearch(&key, check->things, check->n, sizeof(Thing), compare);

        (void)cell;
        REQUIRE(thing && !thing->seen, "%s %lu is saved and is not there", kind_names[kind], id);
        thing->seen = true;
        ++check->n_seen;
        if (kind == STATE_COUNTERS)
                same_counters(check, thing, data, n);
        else
                same[kind](thing, data, n);
        return 0;
}

/* -- the state, as the next process finds it ------------------------------------------------ */

static State *adopt_copy(const State *state) {
        const char *sentence = "";
        static uint8_t buffer[1 << 20];
        off_t at = 0;
        State *copy;
        ssize_t n;
        int fd;

        fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        REQUIRE(fd >= 0);
        for (; (n = pread(state_fd(state), buffer, sizeof(buffer), at)) > 0; at += n)
                REQUIRE(pwrite(fd, buffer, (size_t)n, at) == n);
        REQUIRE(n == 0 && state_adopt_consume_fd(&copy, fd, state_cells(state), &sentence) == 0, "%s", sentence);
        REQUIRE(state_damaged(copy) == 0);
        return copy;
}

static void mistake(void *userdata, const char *text) {
        (void)userdata;
        test_fail(__FILE__, __LINE__, "inspect_state()", "%s", text);
}

size_t saved_check(const SavedHouse *house) {
        static const StateKind kinds[] = { STATE_COUNTERS, STATE_POLICY, STATE_DIRECTORY, STATE_REGION, STATE_NAME,
                                           STATE_TICKET, STATE_GRANT };
        Check check = { .house = house };
        State *copy = adopt_copy(house->state);

        if (house->whole) {
                Inspection inspection;

                REQUIRE(inspect_state(copy, mistake, NULL, &inspection) == 0 && inspection.n_mistakes == 0);
        }
        collect(&check);
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); ++i)
                REQUIRE(state_walk(copy, kinds[i], look_at, &check) == 0);
        for (size_t i = 0; i < check.n; ++i)
                REQUIRE(check.things[i].seen, "%s %lu is not saved", kind_names[check.things[i].kind],
                        check.things[i].id);
        copy = state_free(copy);
        free(check.things);
        return check.n_seen;
}
