/* daemon/core/persist: whatever the core does, the state has it after the next commit. */

#include "daemon-house.h"
#include "daemon-saved.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/enact.h"
#include "core/event.h"
#include "core/expiry.h"
#include "core/ticket.h"
#include "util/memfd.h"

#define N_USERS 3
#define N_HELD 48
#define REGIONS_MAX 64
#define PATHS 24

static House house;
static Events events;
static Expiries expiries;
static Tickets tickets;
static Counters counters;
static PersistPolicy policy_record;
static State *state;
static Account *users[N_USERS];
static uint64_t random_state;
static int held[N_HELD];
static size_t n_held;
static List sessions;

static void heard(Watch *watch, bool pressed) {
        (void)watch;
        (void)pressed;
}

static void move_in(void) {
        house_open(&house);
        REQUIRE(events_init(&events, &house.tree, &house.deadlines, heard) == 0);
        expiries_init(&expiries, &house.deadlines, region_unlink_name);
        tickets_init(&tickets, &house.deadlines);
        for (size_t i = 0; i < N_USERS; ++i)
                users[i] = house_account(&house, ALICE + (uid_t)i);
        n_held = 0;
        list_init(&sessions);

        REQUIRE(state_new(&state, UINT32_C(1) << 16) == 0);
        persist_register(state);
        counters_init(&counters, state);
        policy_record = (PersistPolicy){ .record = STATE_RECORD_NULL };
        state_add(state, &policy_record.record, STATE_POLICY, 1);
        counters_used(&counters, COUNTER_SEQUENCE, events.sequence);
        tree_save(&house.tree, state, &counters);
        house.regions.state = house.grants.state = tickets.state = state;
        house.regions.counters = house.grants.counters = tickets.counters = events.counters = &counters;
}

static size_t check(void) {
        state_commit(state);
        REQUIRE(!state_is_dirty(state));
        return saved_check(&(SavedHouse){ .state = state, .tree = &house.tree, .regions = &house.regions,
                                          .grants = &house.grants, .tickets = &tickets, .counters = &counters,
                                          .events = &events, .policy = &policy_record });
}

static void empty_tree(void) {
        for (Directory *directory = house.tree.root; directory;) {
                Node *node = directory_any_child(directory);
                Directory *parent = directory->node.parent;

                if (node && !node_is_directory(node)) {
                        region_unlink(node->region);
                        continue;
                }
                if (!node && parent)
                        REQUIRE(tree_rmdir(&house.tree, directory) == 0);
                directory = node ? node_directory(node) : parent;
        }
}

/* With nothing left but the root, and then nothing at all. */
static void move_out(void) {
        while (n_held > 0)
                (void)close_fd(held[--n_held]);
        empty_tree();
        (void)check();
        house_until(&house, (state_commit(state), house.regions.n == 0));
        REQUIRE(check() == 3, "counters, the policy and the root are left");
        counters_deinit(&counters);
        state_drop(&policy_record.record);
        events_deinit(&events);
        for (size_t i = 0; i < N_USERS; ++i)
                users[i] = account_unref(users[i]);
        house_close(&house);
        expiries_deinit(&expiries);
        tickets_deinit(&tickets);
        REQUIRE(state_is_dirty(state));
        state_commit(state);
        REQUIRE(state_cells_used(state) == 0);
        state = state_free(state);
}

/* -- choices ------------------------------------------------------------------------------- */

static uint64_t below(uint64_t n) {
        return test_random(&random_state, n);
}

static Account *some_user(void) {
        return users[below(N_USERS)];
}

/* A spot that can be used, in one of few places; spot->node may be there. */
static bool some_spot(Spot *ret) {
        static const char *const parts[] = { "a", "b", "c", "d" };
        static char path[64];
        size_t n = 0, depth = 1 + below(3);

        for (size_t i = 0; i < depth; ++i)
                n += (size_t)snprintf(path + n, sizeof(path) - n, "/%s", parts[below(4)]);
        /* Names of one cell and of several. */
        if (below(8) == 0 && tree_resolve(&house.tree, &house_admin, path, n, ret) == 0 && ret->parent) {
                static char name[PATH_COMPONENT_MAX];

                memset(name, 'x', sizeof(name));
                ret->node = directory_child(ret->parent, name, sizeof(name));
                ret->name = name;
                ret->n_name = sizeof(name);
                ret->is_hashed = false;
                return true;
        }
        return tree_resolve(&house.tree, &house_admin, path, n, ret) == 0 && ret->parent;
}

static Node *some_node(void) {
        static const Credentials all = { .admin = true };
        uint64_t n = below(PATHS);
        Node *node = tree_list_first(house.tree.root), *next;

        while (node && n-- > 0) {
                next = tree_list_next(house.tree.root, &all, true, node);
                node = next ? next : tree_list_first(house.tree.root);
        }
        return node;
}

static Node *some_name(void) {
        Node *node = some_node();

        return node && node->region ? node : NULL;
}

static Directory *some_directory(void) {
        Node *node = some_node();

        return node && node_is_directory(node) ? node_directory(node) : house.tree.root;
}

static Region *some_region(void) {
        Region *region = regions_after(&house.regions, below(house.regions.last_id + 1));

        return region ? region : regions_after(&house.regions, 0);
}

static void hold(int fd) {
        if (n_held == N_HELD)
                (void)close_fd(held[--n_held]);
        held[n_held++] = fd;
}

static void some_acl(AclList *ret) {
        acl_join(0750, NULL, ret);
        (void)acl_list_put(ret, acl_entry(ACL_MASK, 0, 7));
        for (uint64_t n = below(ACL_ENTRIES_MAX - 4); n > 0; --n)
                (void)acl_list_put(ret, acl_entry(below(2) ? ACL_USER : ACL_GROUP, (uint32_t)below(100),
                                                  (uint32_t)below(8)));
}

static Region *make(RegionLifetime lifetime) {
        Account *owner = some_user();
        RegionSpec spec = {
                .size = 1 + below(3 * PAGE),
                .freezable = below(4) == 0,
                .lifetime = lifetime,
                .permissions = { .uid = owner->uid, .gid = (gid_t)below(100), .mode = (mode_t)below(01000) },
        };
        Region *region;

        REQUIRE(region_new(&region, &house.regions, owner, &spec, NULL) == 0);
        if (region->lifetime == REGION_SESSION)
                region_join_session(region, &sessions, 1 + below(5));
        return region;
}

static RegionLifetime some_lifetime(void) {
        return below(8) == 0 ? REGION_SESSION : REGION_NAMED;
}

static Grant *grant(Region *region) {
        Asker asker = { .account = some_user(), .session = below(10), .pid = 1 + (pid_t)below(1000),
                        .pidfd_ino = below(1000), .ticket = below(2) };
        Grant *made = NULL;
        int fd;

        asker.uid = asker.account->uid;
        if (below(3) == 0)
                region->grants.marks_off = true;
        if (grant_new(&made, &fd, &house.grants, region, &asker, below(2), NULL) == 0)
                hold(fd);
        return made;
}

/* Where a policy has limits there may be no room. Return: whether there was. */
static bool link_at(Region *region, const Spot *spot) {
        int r = region_link(region, spot, NULL);

        REQUIRE(r == 0 || r == REGION_E_QUOTA);
        return r == 0;
}

/* -- operations ---------------------------------------------------------------------------- */

static void op_create(void) {
        bool counted = below(10) == 0;
        Region *region;
        Spot spot;

        if (house.regions.n >= REGIONS_MAX || !some_spot(&spot) || (spot.node && node_is_directory(spot.node)))
                return;
        region = make(counted ? REGION_COUNTED : some_lifetime());
        if (!link_at(region, &spot)) {
                (void)region_free(region);
                return;
        }
        if (counted && grant(region))
                region_count(region);
        else if (counted)
                region_unlink(region);
        else if (below(2))
                (void)grant(region);
}

static void op_create_anonymous(void) {
        Region *region;

        if (house.regions.n >= REGIONS_MAX)
                return;
        region = make(some_lifetime());
        (void)grant(region);
        region_orphan(region);
}

/* What a batch does that fails in the end. */
static void op_undo(void) {
        Region *region;
        Spot spot;
        Grant *made;

        if (!some_spot(&spot) || spot.node)
                return;
        region = make(some_lifetime());
        (void)region_link_silently(region, &spot, NULL);
        made = grant(region);
        if (made)
                (void)grant_take_back(made);
        region = region_discard(region);
}

static void op_link(void) {
        Node *node = some_name();
        Spot spot;

        if (node && region_n_names(node->region) < 8 && some_spot(&spot) && !spot.node)
                (void)link_at(node->region, &spot);
}

static void op_publish(void) {
        Region *region = some_region();
        Spot spot;

        if (region && region_n_names(region) == 0 && !region->is_bell && some_spot(&spot) &&
            (!spot.node || spot.node->region))
                (void)link_at(region, &spot);
}

static void op_unlink(void) {
        Node *node = some_name();

        if (node && below(4))
                region_unlink_name(node);
        else if (node)
                region_unlink(node->region);
}

static void op_rename(void) {
        Node *node = some_node();
        Region *replaced;
        Spot from, to;
        char path[PATH_BYTES_MAX];

        if (!node || !some_spot(&to))
                return;
        REQUIRE(tree_find(&house.tree, &house_admin, path, tree_path(node, path), &from) == 0);
        if (tree_rename(&house.tree, &from, &to, (TreeRename)below(3), NULL, &replaced) == 0 && replaced)
                region_lost_name(replaced);
}

static void op_mkdir(void) {
        Account *owner = some_user();
        Permissions permissions = { .uid = owner->uid, .gid = 7, .mode = (mode_t)below(02000) };
        Directory *directory;
        Spot spot;

        if (!some_spot(&spot) || spot.node)
                return;
        if (tree_mkdir(&house.tree, &spot, owner, &permissions, NULL, &directory) == 0)
                directory_inherit(directory);
}

static void op_rmdir(void) {
        Directory *directory = some_directory();

        (void)tree_rmdir(&house.tree, directory);
}

static void op_permissions(void) {
        Node *node = some_node();
        Permissions *permissions;
        AclList list;

        if (!node)
                return;
        permissions = node->region ? &node->region->permissions : &node_directory(node)->permissions;
        permissions_deinit(permissions);
        permissions->mode = (mode_t)below(01000);
        permissions->gid = (gid_t)below(100);
        if (below(2)) {
                some_acl(&list);
                REQUIRE(acl_split(list.entries, list.n, &permissions->mode, &permissions->acl) == 0);
        }
        node_touch(node);
        tree_tell_changed(node);
}

static void op_default_acl(void) {
        Directory *directory = some_directory();
        DefaultAcl *defaults = &directory->default_acl;
        AclList list;

        default_acl_deinit(defaults);
        if (below(3)) {
                if (below(2))
                        some_acl(&list);
                else
                        acl_join((mode_t)below(01000), NULL, &list);
                defaults->set = true;
                REQUIRE(acl_split(list.entries, list.n, &defaults->mode, &defaults->acl) == 0);
        }
        node_touch(&directory->node);
}

static void op_chown(void) {
        Node *node = some_node();
        Account *owner = some_user();

        if (!node)
                return;
        if (node->region)
                REQUIRE(region_chown(node->region, owner, NULL) == 0);
        else
                REQUIRE(directory_chown(node_directory(node), owner, NULL) == 0);
        *(node->region ? &node->region->permissions.uid : &node_directory(node)->permissions.uid) = owner->uid;
        node_touch(node);
}

static void op_leave(void) {
        (void)grants_leave(&house.grants, below(10), below(3));
}

static void op_grant(void) {
        Region *region = some_region();

        if (region)
                (void)grant(region);
}

static void op_let_go(void) {
        if (n_held > 0) {
                size_t i = below(n_held);

                (void)close_fd(held[i]);
                held[i] = held[--n_held];
        }
}

static void op_ticket(void) {
        Region *region = some_region();
        TicketSpec spec = { .writable = below(2), .one_user = below(2), .uid = 1 + (uid_t)below(100),
                            .uses = 1 + (uint32_t)below(3),
                            .until = time_now() + (below(4) ? NSEC_PER_SEC * 1000 : 1) };
        char text[TICKET_TEXT_BYTES];
        Ticket *ticket;

        if (!region)
                return;
        ticket = region_tickets_after(region, 0);
        if (ticket && below(2))
                ticket_spend(ticket);
        else if (ticket && below(4) == 0)
                ticket_revoke(ticket);
        else if (ticket && below(8) == 0)
                (void)region_revoke_tickets(region);
        else
                REQUIRE(ticket_new(&ticket, text, &tickets, region, some_user(), &spec, NULL) == 0);
}

static void op_bell(void) {
        Region *region = some_region(), *page;

        if (!region || region->is_bell)
                return;
        REQUIRE(region_bell(region, &page, NULL) == 0);
        if (below(2))
                (void)grant(page);
        page->polled = below(2);
        state_touch(&page->record);
}

static void op_expire(void) {
        Node *node = some_name();
        Expiry *expiry = NULL;

        if (!node)
                return;
        if (below(4))
                REQUIRE(expiry_new(&expiry, &expiries) == 0);
        node_expire(node, expiry, time_now() + (below(3) ? NSEC_PER_SEC * 1000 : 1));
}

static void op_session(void) {
        Region *region = region_of_session(&sessions);

        if (!region)
                return;
        region_leave_session(region);
        region_unlink(region);
}

static void op_policy(void) {
        static char a[] = "/a", ab[] = "/a/b", c[] = "/c";
        PolicyDirectory all[3] = {
                { .path = a, .permissions = { .uid = ALICE, .mode = 0755 }, .limits = { 1, { below(9) << 40 } } },
                { .path = ab, .permissions = { .uid = BOB, .mode = 01777 }, .limits = { 2, { 0, 1000 + below(9) } } },
                { .path = c, .permissions = { .uid = CAROL, .mode = 0700 } },
        };
        Policy policy = { .directories = all, .n_directories = below(4) };
        const char *path;
        uint32_t made;

        for (size_t i = 0; i < policy.n_directories; ++i) {
                if (below(2)) {
                        some_acl(&all[i].access);
                        all[i].permissions.mode = 0750;
                        for (size_t k = 0; k < all[i].access.n; ++k)
                                if (all[i].access.entries[k].tag == ACL_MASK)
                                        all[i].permissions.mode = 0770;
                }
                if (below(2))
                        some_acl(&all[i].defaults);
        }
        (void)enact_directories(&house.tree, &house.accounts, &policy, &made, &path);
        policy_record.saved.generation++;
        state_touch(&policy_record.record);
}

static void op_frozen(void) {
        Region *region = some_region();

        if (!region)
                return;
        region->told_frozen = true;
        state_touch(&region->record);
        events_frozen(&events, region);
}

/* What inotify tells condemns a region; what is due then empties it, and is not looked at without the other. */
static void op_turn(void) {
        if (below(2) || regions_fd(&house.regions) < 0)
                house_turn(&house);
        else
                regions_dispatch(&house.regions);
}

static void op_sweep(void) {
        regions_sweep(&house.regions);
        (void)grants_sweep(&house.grants, some_user());
}

static const struct {
        const char *name;
        void (*op)(void);
        unsigned int weight;
} ops[] = {
        { "create", op_create, 12 }, { "create-anonymous", op_create_anonymous, 4 }, { "undo", op_undo, 2 },
        { "link", op_link, 4 }, { "publish", op_publish, 3 }, { "unlink", op_unlink, 6 }, { "rename", op_rename, 8 },
        { "mkdir", op_mkdir, 5 }, { "rmdir", op_rmdir, 3 }, { "permissions", op_permissions, 4 },
        { "default-acl", op_default_acl, 2 }, { "chown", op_chown, 4 }, { "grant", op_grant, 6 }, { "leave", op_leave, 2 },
        { "let-go", op_let_go, 6 }, { "ticket", op_ticket, 6 }, { "bell", op_bell, 3 }, { "expire", op_expire, 3 },
        { "session", op_session, 2 }, { "policy", op_policy, 2 }, { "frozen", op_frozen, 1 }, { "turn", op_turn, 8 },
        { "sweep", op_sweep, 1 },
};
#define N_OPS (sizeof(ops) / sizeof(ops[0]))

static size_t some_op(void) {
        unsigned int sum = 0;
        uint64_t at;

        for (size_t i = 0; i < N_OPS; ++i)
                sum += ops[i].weight;
        at = below(sum);
        for (size_t i = 0; i < N_OPS; ++i) {
                if (at < ops[i].weight)
                        return i;
                at -= ops[i].weight;
        }
        return 0;
}

/* Tens of thousands of operations; after each, what is committed is what there is. To look costs a thousand
 * times what the operation does, and what was missed is missing later as well: it is done after all of the first
 * ones, and then now and then. */
TEST(persist, whatever_happens_the_state_has_it) {
        uint64_t rounds = test_rounds(20000), n_done[N_OPS] = { 0 };

        random_state = test_seed();
        move_in();
        (void)check();
        for (uint64_t i = 0; i < rounds; ++i) {
                size_t op = some_op();

                REQUIRE(state_make_room(state, STATE_ROOM) == 0);
                ops[op].op();
                ++n_done[op];
                state_commit(state);
                if (i < 2000 || below(16) == 0)
                        (void)check();
        }
        for (size_t i = 0; i < N_OPS; ++i)
                REQUIRE(rounds < 20000 || n_done[i] > 0, "%s was never done", ops[i].name);
        printf("%lu operations, %lu transactions, %u cells\n", (unsigned long)rounds,
               (unsigned long)state_commits(state), state_cells(state));
        move_out();
}

/* -- order -------------------------------------------------------------------------------------- */

TEST(persist, a_region_is_emptied_only_once_its_end_is_committed) {
        Region *region;
        int fd;

        move_in();
        region = house_named(&house, users[0], "/x", PAGE);
        fd = house_hold(region, true);
        cr_assert_eq(write(fd, "x", 1), 1);
        fd = close_fd(fd);
        (void)check();
        region_unlink(region);
        cr_assert_eq(region->state, REGION_STATE_CONDEMNED);
        for (int i = 0; i < 3; ++i)
                house_turn(&house);
        cr_assert_eq(house.regions.n_condemned, 1);
        cr_assert_gt(memfd_allocated(region->fd), 0, "it may be there again after a death");
        (void)check();
        house_until(&house, (state_commit(state), house.regions.n == 0));
        move_out();
}

/* -- numbers ------------------------------------------------------------------------------------ */

TEST(persist, numbers_are_reserved_ahead_of_their_use) {
        uint64_t commits;

        move_in();
        (void)check();
        (void)house_named(&house, users[0], "/x", PAGE);
        (void)check();
        cr_assert_geq(counters.reserved[COUNTER_REGION], house.regions.last_id);
        counters.reserved[COUNTER_SEQUENCE] = events.sequence;
        tree_tell_changed(&house.tree.root->node);
        cr_assert_geq(counters.reserved[COUNTER_SEQUENCE], events.sequence);
        (void)check();
        commits = state_commits(state);
        for (int i = 0; i < 100; ++i)
                counters_used(&counters, COUNTER_REGION, ++house.regions.last_id);
        state_commit(state);
        cr_assert_eq(state_commits(state), commits, "there is nothing to be written");
        counters_used(&counters, COUNTER_REGION, counters.reserved[COUNTER_REGION] + 1);
        cr_assert(state_is_dirty(state));
        state_commit(state);
        region_unlink(regions_find(&house.regions, 1));
        move_out();
}

TEST(persist, without_a_state_nothing_is_saved_and_nothing_fails) {
        Region *region;

        house_open(&house);
        users[0] = house_account(&house, ALICE);
        region = house_named(&house, users[0], "/x", PAGE);
        cr_assert_eq(region->record.state, NULL);
        cr_assert_eq(region->inode, 0, "the kernel was not even asked");
        counters_used(NULL, COUNTER_REGION, 7);
        region_unlink(region);
        users[0] = account_unref(users[0]);
        house_close(&house);
}
