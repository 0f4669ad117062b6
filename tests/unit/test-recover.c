/* daemon/core/recover: everything is as it was, and what is damaged is gone and nowhere else.
 *
 * A Past is a house whose objects are saved; it dies without a word, and what it leaves, its state and
 * its descriptors, is changed by the test or not, and recovered into a new house. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/persist.h"
#include "core/recover.h"
#include "state-things.h"
#include "util/fdstore.h"
#include "util/memfd.h"

#define KEPT_MAX 2048
#define OWN_UID geteuid()

/* A turn of the loop ends with a commit, as the broker's does. */
#define house_turn(house)                                                               \
        do {                                                                            \
                (house_turn)(house);                                                    \
                state_commit(scene.state);                                              \
        } while (0)

/* What outlives a broker. */
typedef struct Left {
        int state_fd;
        Kept kept[KEPT_MAX];
        size_t n;
} Left;

typedef struct Scene {
        House house;
        Tickets tickets;
        Expiries expiries;
        Events events;
        Counters counters;
        uint64_t last_session;
        State *state;
        FdStore *store;
        int store_fds[2];
        Recover recover;
        char notes[8192];
        uint64_t session;       /* the one that is there */
        List session_regions;
} Scene;

static Scene scene;
static Left left;

static Region *first_region(void) {
        return regions_after(&scene.house.regions, 0);
}

static void no_watch(Watch *watch, bool pressed) {
        (void)watch;
        (void)pressed;
}

static void open_empty(size_t n_kept) {
        memset(&scene, 0, sizeof(scene));
        house_open(&scene.house);
        list_init(&scene.session_regions);
        tickets_init(&scene.tickets, &scene.house.deadlines);
        expiries_init(&scene.expiries, &scene.house.deadlines, region_unlink_name);
        REQUIRE(events_init(&scene.events, &scene.house.tree, &scene.house.deadlines, no_watch) == 0);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, scene.store_fds) == 0);
        REQUIRE(fdstore_new(&scene.store, scene.store_fds[0], &scene.house.deadlines, n_kept) == 0);
        scene.house.regions.store = scene.store;
}

static void save_all(void) {
        House *house = &scene.house;

        persist_register(scene.state);
        REQUIRE(state_make_room(scene.state, 4 * STATE_ROOM) == 0);
        counters_init(&scene.counters, scene.state);
        tree_save(&house->tree, scene.state, &scene.counters);
        house->regions.state = house->grants.state = scene.tickets.state = scene.state;
        house->regions.counters = house->grants.counters = scene.tickets.counters = &scene.counters;
        scene.events.counters = &scene.counters;
}

/* A first broker. */
static void begin(void) {
        open_empty(0);
        REQUIRE(state_new(&scene.state, 1 << 20) == 0);
        save_all();
}

static void end(void) {
        scene.state = state_free(scene.state);
        events_deinit(&scene.events);
        counters_deinit(&scene.counters);
        scene.house.regions.store = NULL;
        scene.store = fdstore_free(scene.store);
        house_close(&scene.house);
        tickets_deinit(&scene.tickets);
        expiries_deinit(&scene.expiries);
        close_fd(scene.store_fds[0]);
        close_fd(scene.store_fds[1]);
}

/* -- death --------------------------------------------------------------------------------- */

static void keep(const char *name, int fd) {
        REQUIRE(left.n < KEPT_MAX && fd >= 0);
        (void)snprintf(left.kept[left.n].name, sizeof(left.kept[0].name), "%s", name);
        left.kept[left.n++].fd = fd;
}

static void keep_region(const Region *region) {
        char name[FDSTORE_NAME_MAX];

        region_store_name(region->id, name);
        keep(name, fcntl(region->fd, F_DUPFD_CLOEXEC, 0));
}

/* The broker is killed: what is committed and what is kept is left. */
static void die(void) {
        RegionMore *more;
        Region *region;

        state_commit(scene.state);
        left.n = 0;
        left.state_fd = copy_of(scene.state);
        for (region = first_region(); region; region = regions_after(&scene.house.regions, region->id))
                keep_region(region);
        list_for_each(more, &scene.house.regions.condemned, RegionMore, link)
                keep_region(more->region);
        end();
}

static Kept *kept_of(uint64_t id) {
        char name[FDSTORE_NAME_MAX];

        region_store_name(id, name);
        for (size_t i = 0; i < left.n; ++i)
                if (!strcmp(left.kept[i].name, name))
                        return &left.kept[i];
        REQUIRE(false, "%s is not kept", name);
        return NULL;
}

/* Loses the descriptor of a region. */
static void lose_descriptor(uint64_t id) {
        Kept *kept = kept_of(id);

        close_fd(kept->fd);
        *kept = left.kept[--left.n];
}

typedef struct Search {
        uint64_t id;
        uint32_t cell;
} Search;

static int look_for(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Search *search = userdata;

        if (id == search->id)
                search->cell = cell;
        return 0;
}

/* A record cannot be read any more. */
static void lose_record(StateKind kind, uint64_t id) {
        State *state = adopt(fcntl(left.state_fd, F_DUPFD_CLOEXEC, 0));
        Search search = { .id = id };

        REQUIRE(state_walk(state, kind, look_for, &search) == 0 && search.cell);
        state_forget(state, search.cell);
        state_commit(state);
        (void)state_free(state);
}

/* A record is there that no broker wrote. */
static void forge_record(StateKind kind, uint64_t id, const uint8_t *data, size_t n) {
        State *state = adopt(fcntl(left.state_fd, F_DUPFD_CLOEXEC, 0));
        Thing thing = { .n = n };

        memcpy(thing.data, data, n);
        REQUIRE(state_make_room(state, STATE_ROOM) == 0);
        state_add(state, &thing.record, kind, id);
        state_commit(state);
        (void)state_free(state);
        state_drop(&thing.record);
}

#define FORGE(kind, name, ...)                                                          \
        do {                                                                            \
                uint8_t forge_data[STATE_RECORD_MAX];                                   \
                size_t forge_n = saved_encode_##name(&(__VA_ARGS__), forge_data);       \
                                                                                        \
                forge_record(STATE_##kind, (__VA_ARGS__).id, forge_data, forge_n);      \
        } while (0)

static void forge_directory(uint64_t id, uint64_t parent, const char *name) {
        SavedDirectory saved = { .id = id, .parent = parent, .paid = true, .payer = ALICE,
                                 .n_name = (uint8_t)strlen(name),
                                 .permissions = { .uid = ALICE, .gid = ALICE, .mode = 0755 },
                                 .max = { UINT64_MAX, UINT64_MAX }, .own_max = { UINT64_MAX, UINT64_MAX } };

        memcpy(saved.name, name, saved.n_name);
        FORGE(DIRECTORY, directory, saved);
}

static void forge_name(uint64_t id, uint64_t directory, uint64_t region, const char *name) {
        SavedName saved = { .id = id, .directory = directory, .region = region, .n_name = (uint8_t)strlen(name) };

        memcpy(saved.name, name, saved.n_name);
        FORGE(NAME, name, saved);
}

/* -- the next one -------------------------------------------------------------------------- */

static void note(RecoverWhat what, uint64_t id, const char *name, const char *why, void *userdata) {
        size_t n = strlen(scene.notes);

        (void)snprintf(scene.notes + n, sizeof(scene.notes) - n, "%u %" PRIu64 " %s: %s\n", (unsigned int)what, id,
                       name ? name : "-", why);
}

static bool join(Region *region, uint64_t session, void *userdata) {
        if (session != scene.session)
                return false;
        region_join_session(region, &scene.session_regions, session);
        return true;
}

static int recover_into_scene(void) {
        House *house = &scene.house;

        scene.recover = (Recover){
                .state = scene.state, .store = scene.store, .counters = &scene.counters, .accounts = &house->accounts,
                .tree = &house->tree, .regions = &house->regions, .grants = &house->grants, .tickets = &scene.tickets,
                .expiries = &scene.expiries, .events = &scene.events, .last_session = &scene.last_session,
                .uid = OWN_UID, .note = note, .session = join,
        };
        return recover_consume_fds(&scene.recover, left.kept, left.n);
}

/* The next broker; with `session` one that is there. */
static void revive_with(uint64_t session) {
        open_empty(left.n);
        scene.session = scene.house.connected = session;
        scene.state = adopt(left.state_fd);
        persist_register(scene.state);
        REQUIRE(state_make_room(scene.state, STATE_ROOM) == 0);
        cr_assert_eq(recover_into_scene(), 0);
        state_commit(scene.state);
}

static void revive(void) {
        revive_with(0);
}

static bool was_noted(RecoverWhat what, uint64_t id, const char *why) {
        char line[256];

        (void)snprintf(line, sizeof(line), "%u %" PRIu64 " ", (unsigned int)what, id);
        for (const char *at = scene.notes; (at = strstr(at, line)); ++at)
                if ((at == scene.notes || at[-1] == '\n') && strstr(at, why) && strstr(at, why) < strchr(at, '\n'))
                        return true;
        return false;
}

#define EXPECT_NOTE(what, id, why) \
        REQUIRE(was_noted(RECOVER_##what, id, why), "what was noted:\n%s", scene.notes)
#define EXPECT_NO_NOTES() REQUIRE(!*scene.notes, "what was noted:\n%s", scene.notes)

/* Whether the store was told to let that name go. */
static bool was_let_go(const char *name) {
        char text[128], wanted[128];
        bool found = false;
        ssize_t n;

        fdstore_flush(scene.store);
        (void)snprintf(wanted, sizeof(wanted), "FDSTOREREMOVE=1\nFDNAME=%s", name);
        while ((n = recv(scene.store_fds[1], text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
                text[n] = '\0';
                found = found || !strcmp(text, wanted);
        }
        return found;
}

static Node *node_at(const char *path) {
        Spot spot;
        int r = tree_resolve(&scene.house.tree, &house_admin, path, strlen(path), &spot);

        return r ? NULL : spot.node;
}

static Region *region_at(const char *path) {
        Node *node = node_at(path);

        return node ? node->region : NULL;
}

static Account *account_of(uid_t uid) {
        return accounts_find_user(&scene.house.accounts, uid);
}

/* -- everything in words --------------------------------------------------------------------- */

static void put_bytes(FILE *out, const char *what, const uint8_t *data, size_t n) {
        fprintf(out, "%s ", what);
        for (size_t i = 0; i < n; ++i)
                fprintf(out, "%02x", data[i]);
        fprintf(out, "\n");
}

#define PUT(out, name, object)                                                          \
        do {                                                                            \
                uint8_t put_data[SAVED_BYTES_MAX];                                      \
                char put_what[64];                                                      \
                                                                                        \
                (void)snprintf(put_what, sizeof(put_what), #name " %" PRIu64, (object).id); \
                put_bytes(out, put_what, put_data, saved_encode_##name(&(object), put_data)); \
        } while (0)

static void put_directory(FILE *out, const Directory *directory) {
        SavedDirectory saved;

        persist_directory(directory, &saved);
        PUT(out, directory, saved);
        fprintf(out, "  announced %d used %" PRIu64 " %" PRIu64 " children %" PRIu64 "\n", directory->node.announced,
                directory->account->used[0], directory->account->used[1], directory->n_children);
}

static void put_name(FILE *out, const Node *name) {
        SavedName saved;

        persist_name(name, &saved);
        PUT(out, name, saved);
        fprintf(out, "  announced %d\n", name->announced);
}

static void put_tree(FILE *out) {
        char path[PATH_BYTES_MAX];

        put_directory(out, scene.house.tree.root);
        for (Node *node = tree_list_first(scene.house.tree.root); node;
             node = tree_list_next(scene.house.tree.root, &house_admin, true, node)) {
                fprintf(out, "%.*s\n", (int)tree_path(node, path), path);
                if (node_is_directory(node))
                        put_directory(out, node_directory(node));
                else
                        put_name(out, node);
        }
}

static void put_region(FILE *out, Region *region) {
        SavedRegion saved;
        SavedGrant grant_saved;
        Ticket *ticket;
        Grant *grant;
        Node *name;

        persist_region(region, &saved);
        PUT(out, region, saved);
        fprintf(out, "  charge %" PRIu64 " %" PRIu64 " seals %x names", region->charge.bytes,
                charge_cost(&region->charge).slots[1], region_seals(region));
        ring_for_each(name, &region->names, Node, in_region)
                fprintf(out, " %.*s", (int)name->n_name, node_name(name));
        fprintf(out, "\n");
        list_for_each(grant, &region->grants.list, Grant, in_region) {
                persist_grant(grant, &grant_saved);
                PUT(out, grant, grant_saved);
        }
        for (ticket = region_tickets_after(region, 0); ticket;
             ticket = region_tickets_after(region, ticket->id)) {
                SavedTicket ticket_saved;

                persist_ticket(ticket, &ticket_saved);
                PUT(out, ticket, ticket_saved);
        }
}

static void put_account(FILE *out, const char *what, const Account *account) {
        fprintf(out, "%s %d used", what, (int)account->uid);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                fprintf(out, " %" PRIu64, account->used[i]);
        fprintf(out, "\n");
}

static char *describe(void) {
        Regions *regions = &scene.house.regions;
        char *text = NULL;
        RegionMore *more;
        Region *region;
        size_t n;
        FILE *out = open_memstream(&text, &n);

        REQUIRE(out);
        put_tree(out);
        for (region = first_region(); region; region = regions_after(regions, region->id))
                put_region(out, region);
        list_for_each(more, &regions->condemned, RegionMore, link)
                put_region(out, more->region);
        for (Account *a = accounts_next_user(&scene.house.accounts, 0); a;
             a = accounts_next_user(&scene.house.accounts, a->uid + 1))
                put_account(out, "user", a);
        put_account(out, "pool", &scene.house.accounts.pool);
        fprintf(out, "named %" PRIu64 " orphans %" PRIu64 " condemned %" PRIu64 " grants %" PRIu64 " tickets %" PRIu64 "\n",
                regions->n_named, regions->n_orphans, regions->n_condemned, scene.house.grants.n, scene.tickets.n);
        REQUIRE(fclose(out) == 0);
        return text;
}

/* Requires that both texts are the same, and shows the first lines that are not. */
static void expect_same(const char *after, const char *before) {
        size_t line = 0;

        for (size_t i = 0; after[i] == before[i] && after[i]; ++i)
                if (after[i] == '\n')
                        line = i + 1;
        REQUIRE(!strcmp(after, before), "was\n%.*s\nand is\n%.*s", (int)strcspn(before + line, "\n"), before + line,
                (int)strcspn(after + line, "\n"), after + line);
}

/* -- what a broker does -------------------------------------------------------------------- */

static Directory *mkdir_at(const char *path, uid_t uid, mode_t mode) {
        Account *account = house_account(&scene.house, uid);
        Directory *directory = house_mkdir(&scene.house, account, path, mode);

        (void)account_unref(account);
        return directory;
}

static Region *region_of(uid_t uid, const RegionSpec *spec) {
        Account *account = house_account(&scene.house, uid);
        RegionSpec whole = *spec;
        Region *region;

        whole.permissions.uid = whole.permissions.gid = uid;
        whole.permissions.mode = whole.permissions.mode ? whole.permissions.mode : 0600;
        REQUIRE(region_new(&region, &scene.house.regions, account, &whole, NULL) == 0);
        (void)account_unref(account);
        return region;
}

static Node *link_at(Region *region, const char *path) {
        Spot spot = house_spot(&scene.house, path);

        REQUIRE(region_link(region, &spot, NULL) == 0);
        return node_at(path);
}

static Region *create(const char *path, uid_t uid, uint64_t size) {
        Region *region = region_of(uid, &(RegionSpec){ .size = size });

        (void)link_at(region, path);
        return region;
}

/* Return: the holder's descriptor. */
static int grant_to(Region *region, uid_t uid, bool writable) {
        Account *account = house_account(&scene.house, uid);
        Asker asker = { .account = account, .session = 7, .uid = uid, .pid = 4711, .pidfd_ino = 99 };
        Grant *grant;
        int fd;

        REQUIRE(grant_new(&grant, &fd, &scene.house.grants, region, &asker, writable, NULL) == 0);
        (void)account_unref(account);
        return fd;
}

static Ticket *issue(Region *region, uid_t uid, uint32_t uses, uint64_t ns, char text[TICKET_TEXT_BYTES]) {
        Account *account = house_account(&scene.house, uid);
        TicketSpec spec = { .uses = uses, .until = time_now() + ns, .writable = true };
        Ticket *ticket;

        REQUIRE(ticket_new(&ticket, text, &scene.tickets, region, account, &spec, NULL) == 0);
        (void)account_unref(account);
        return ticket;
}

static void expire(Node *name, uint64_t ns) {
        Expiry *expiry;

        REQUIRE(expiry_new(&expiry, &scene.expiries) == 0);
        node_expire(name, expiry, time_now() + ns);
}

static void set_acls(Directory *directory) {
        static const AclEntry entries[] = {
                { .tag = ACL_USER_OBJ, .perms = 7 }, { .tag = ACL_USER, .id = BOB, .perms = 5 },
                { .tag = ACL_GROUP_OBJ, .perms = 1 }, { .tag = ACL_GROUP, .id = CAROL, .perms = 7 },
                { .tag = ACL_MASK, .perms = 5 }, { .tag = ACL_OTHER, .perms = 0 },
        };

        REQUIRE(acl_split(entries, 6, &directory->permissions.mode, &directory->permissions.acl) == 0);
        directory->permissions.mode |= ACCESS_STICKY;
        directory->default_acl.set = true;
        REQUIRE(acl_split(entries, 6, &directory->default_acl.mode, &directory->default_acl.acl) == 0);
        node_touch(&directory->node);
}

/* Everything there is, in every state that it can be in. Return: descriptors of holders. */
static size_t furnish(int fds[16]) {
        Directory *music, *deep;
        Region *region, *page;
        char text[TICKET_TEXT_BYTES];
        size_t n = 0;

        music = mkdir_at("/music", ALICE, 0755);
        set_acls(music);
        deep = mkdir_at("/music/deep", BOB, 0700);
        deep->account->max[ACCOUNT_BYTES] = 1 << 20;
        node_touch(&deep->node);
        (void)mkdir_at("/music/deep/er", CAROL, 01777);

        region = create("/music/one", ALICE, 5000);
        (void)link_at(region, "/was");
        (void)link_at(region, "/z");
        /* The third name takes the place of what was the second, in the state and nowhere else. */
        state_commit(scene.state);
        region_unlink_name(node_at("/was"));
        state_commit(scene.state);
        (void)link_at(region, "/a");
        fds[n++] = grant_to(region, BOB, true);
        fds[n++] = grant_to(region, CAROL, false);
        (void)issue(region, ALICE, 5, 3600 * NSEC_PER_SEC, text);
        ticket_spend(issue(region, BOB, 2, 1800 * NSEC_PER_SEC, text));
        ticket_revoke(issue(region, BOB, 1, 1800 * NSEC_PER_SEC, text));
        (void)create("/music/deep/er/brief", CAROL, 1);
        expire(node_at("/music/deep/er/brief"), 100 * NSEC_PER_SEC);

        region = region_of(BOB, &(RegionSpec){ .size = 8192, .freezable = true, .permissions = { .mode = 0644 } });
        (void)link_at(region, "/frozen");
        REQUIRE(fcntl(region->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0);
        region->told_frozen = true;
        state_touch(&region->record);

        region = create("/bell", BOB, 4096);
        REQUIRE(region_bell(region, &page, NULL) == 0);
        page->polled = true;
        state_touch(&page->record);

        region = region_of(ALICE, &(RegionSpec){ .size = 4096, .lifetime = REGION_COUNTED });
        (void)link_at(region, "/counted");
        fds[n++] = grant_to(region, ALICE, true);
        region_count(region);

        region = create("/orphan", CAROL, 12288);
        fds[n++] = grant_to(region, BOB, false);
        region_unlink(region);

        /* A holder without a mark. */
        region = region_of(CAROL, &(RegionSpec){ .size = 0 });
        fds[n++] = house_hold(region, false);
        region_orphan(region);

        region = region_of(BOB, &(RegionSpec){ .size = 100, .lifetime = REGION_SESSION });
        (void)link_at(region, "/session");
        region_join_session(region, &scene.session_regions, 7);
        return n;
}

static void let_go(int *fds, size_t n) {
        for (size_t i = 0; i < n; ++i)
                close_fd(fds[i]);
}

/* -- as it was ------------------------------------------------------------------------------- */

TEST(recover, everything_is_as_it_was_and_again) {
        CLEANUP(freep) char *before = NULL;
        int fds[16];
        size_t n;

        begin();
        scene.session = 7;
        n = furnish(fds);
        before = describe();
        for (unsigned int i = 0; i < 3; ++i) {
                CLEANUP(freep) char *after = NULL;

                die();
                revive_with(7);
                EXPECT_NO_NOTES();
                after = describe();
                expect_same(after, before);
                cr_assert_eq(state_damaged(scene.state), 0);
        }
        cr_assert_eq(scene.recover.n_regions, scene.house.regions.n);
        cr_assert_eq(scene.recover.n_names, 8);
        let_go(fds, n);
        end();
}

/* It is the same when all that may wait has been done: everybody who held something still does. */
TEST(recover, the_turns_that_follow_change_nothing) {
        CLEANUP(freep) char *before = NULL, *after = NULL;
        int fds[16];
        size_t n;

        begin();
        n = furnish(fds);
        before = describe();
        die();
        revive_with(7);
        for (unsigned int i = 0; i < 64; ++i)
                house_turn(&scene.house);
        after = describe();
        expect_same(after, before);
        let_go(fds, n);
        end();
}

TEST(recover, attack_103_descriptors_in_any_order_give_the_same) {
        CLEANUP(freep) char *before = NULL;
        uint64_t random = test_seed();
        int fds[16];
        size_t n;

        begin();
        n = furnish(fds);
        before = describe();
        for (unsigned int round = 0; round < 20; ++round) {
                CLEANUP(freep) char *after = NULL;

                die();
                for (size_t i = left.n; i > 1; --i) {
                        size_t k = test_random(&random, i);
                        Kept kept = left.kept[k];

                        left.kept[k] = left.kept[i - 1];
                        left.kept[i - 1] = kept;
                }
                revive_with(7);
                after = describe();
                expect_same(after, before);
        }
        let_go(fds, n);
        end();
}

TEST(recover, numbers_go_on_behind_all_that_were_used) {
        uint64_t region, grant, ticket, directory, sequence;
        char text[TICKET_TEXT_BYTES];
        Region *made;
        int fd;

        begin();
        made = create("/x", ALICE, 1);
        fd = grant_to(made, ALICE, false);
        region = made->id;
        grant = scene.house.grants.last_id;
        ticket = issue(made, ALICE, 1, NSEC_PER_SEC, text)->id;
        directory = mkdir_at("/d", ALICE, 0700)->node.record.id;
        sequence = scene.events.sequence;
        region_unlink(made);
        close_fd(fd);
        die();
        revive();
        cr_assert_gt(scene.events.sequence, sequence, "who watched until there hears that it missed something");
        cr_assert_eq(scene.events.oldest, scene.events.sequence + 1);
        made = create("/y", ALICE, 1);
        cr_assert_gt(made->id, region);
        close_fd(grant_to(made, ALICE, false));
        cr_assert_gt(scene.house.grants.last_id, grant);
        cr_assert_gt(issue(made, ALICE, 1, NSEC_PER_SEC, text)->id, ticket);
        cr_assert_gt(mkdir_at("/e", ALICE, 0700)->node.record.id, directory);
        end();
}

TEST(recover, without_the_record_of_numbers_they_go_on_a_good_way_behind) {
        uint64_t region, sequence;

        begin();
        region = create("/x", ALICE, 1)->id;
        sequence = scene.events.sequence;
        die();
        lose_record(STATE_COUNTERS, 1);
        revive();
        EXPECT_NOTE(COUNTERS, 0, "damaged");
        cr_assert_geq(create("/y", ALICE, 1)->id, region + 10000);
        cr_assert_gt(scene.events.sequence, sequence);
        state_commit(scene.state);
        die();
        revive();
        EXPECT_NO_NOTES();
        end();
}

/* Else the last of them would be refused by the broker after the next. */
TEST(recover, numbers_that_leave_no_room_for_more_are_not_believed) {
        const uint64_t id = SAVED_ID_MAX - 1;
        const SavedCounters counters = { .last_directory = SAVED_ROOT, .sequence = id };
        uint8_t data[STATE_RECORD_MAX];
        uint64_t region;

        begin();
        region = create("/x", ALICE, 1)->id;
        die();
        lose_record(STATE_COUNTERS, 1);
        forge_record(STATE_COUNTERS, 1, data, saved_encode_counters(&counters, data));
        forge_directory(id, SAVED_ROOT, "d");
        forge_name(id, SAVED_ROOT, region, "y");
        revive();
        EXPECT_NOTE(COUNTERS, 1, "damaged");
        EXPECT_NOTE(DIRECTORY, id, "damaged");
        EXPECT_NOTE(NAME, id, "damaged");
        cr_assert_lt(scene.events.sequence, SAVED_ID_BELIEVED);
        cr_assert_lt(mkdir_at("/d", ALICE, 0700)->node.record.id, SAVED_ID_BELIEVED);
        state_commit(scene.state);
        die();
        revive();
        EXPECT_NO_NOTES();
        end();
}

TEST(recover, charges_stay_although_limits_are_lower_and_nothing_more_is_allowed) {
        RegionSpec spec = { .size = 4096, .permissions = { ALICE, ALICE, 0600 } };
        Region *region, *more;
        Account *alice;
        Shortage s;

        begin();
        region = create("/x", ALICE, 1 << 20);
        (void)link_at(region, "/y");
        (void)mkdir_at("/d", ALICE, 0700);
        die();
        open_empty(left.n);
        scene.house.rules.everybody.max[ACCOUNT_BYTES] = 4096;
        scene.house.rules.everybody.max[ACCOUNT_REGIONS] = 1;
        scene.state = adopt(left.state_fd);
        persist_register(scene.state);
        REQUIRE(state_make_room(scene.state, STATE_ROOM) == 0);
        cr_assert_eq(recover_into_scene(), 0);
        alice = account_of(ALICE);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 1 << 20);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 3);
        cr_assert_eq(region_new(&more, &scene.house.regions, alice, &spec, &s), REGION_E_QUOTA);
        end();
}

/* -- directories ----------------------------------------------------------------------------- */

TEST(recover, a_lost_directory_takes_what_is_below_it_along_and_nothing_of_it_is_elsewhere) {
        uint64_t directory, below, held;
        int fd;

        begin();
        directory = mkdir_at("/private", ALICE, 0700)->node.record.id;
        below = mkdir_at("/private/open", ALICE, 0777)->node.record.id;
        fd = grant_to(create("/private/open/held", ALICE, 4096), BOB, false);
        held = region_at("/private/open/held")->id;
        (void)create("/private/unheld", ALICE, 4096);
        (void)link_at(create("/private/linked", ALICE, 4096), "/elsewhere");
        die();
        lose_record(STATE_DIRECTORY, directory);
        revive();
        EXPECT_NOTE(DIRECTORY, below, "the directory that it was in is gone");
        cr_assert_eq(scene.recover.n_dropped[RECOVER_NAME], 3);
        cr_assert_eq(scene.house.tree.root->n_children, 1, "only the link elsewhere is left");
        cr_assert(region_at("/elsewhere") && region_n_names(region_at("/elsewhere")) == 1);
        cr_assert_eq(account_of(ALICE)->used[ACCOUNT_REGIONS], 3);
        house_until(&scene.house, scene.house.regions.n == 2);
        cr_assert_eq(regions_find(&scene.house.regions, held)->state, REGION_STATE_ORPHAN);
        close_fd(fd);
        house_until(&scene.house, scene.house.regions.n == 1);
        end();
}

TEST(recover, directories_that_are_above_themselves_or_too_deep_are_dropped) {
        char name[8];

        begin();
        (void)mkdir_at("/ok", ALICE, 0755);
        die();
        forge_directory(501, 503, "a");
        forge_directory(502, 501, "b");
        forge_directory(503, 502, "c");
        forge_directory(504, 503, "below");
        forge_directory(505, 999, "nowhere");
        for (uint64_t i = 0; i < 20; ++i) {
                (void)snprintf(name, sizeof(name), "d%u", (unsigned int)i);
                forge_directory(600 + i, i ? 599 + i : SAVED_ROOT, name);
        }
        forge_name(700, 501, 1, "x");
        revive();
        cr_assert_eq(scene.house.tree.n_directories, 2 + PATH_DEPTH_MAX);
        for (uint64_t id = 501; id <= 505; ++id)
                EXPECT_NOTE(DIRECTORY, id, "");
        for (uint64_t id = 600 + PATH_DEPTH_MAX; id < 620; ++id)
                EXPECT_NOTE(DIRECTORY, id, "");
        EXPECT_NOTE(NAME, 700, "the directory that it was in is gone");
        cr_assert(node_at("/d0/d1/d2/d3/d4/d5/d6/d7/d8/d9/d10/d11/d12/d13/d14/d15"));
        end();
}

TEST(recover, a_path_cannot_become_too_long) {
        static char name[256];

        begin();
        die();
        memset(name, 'n', 255);
        for (uint64_t i = 0; i < 5; ++i)
                forge_directory(600 + i, i ? 599 + i : SAVED_ROOT, name);
        revive();
        cr_assert_eq(scene.house.tree.n_directories, 1 + 3);
        EXPECT_NOTE(DIRECTORY, 603, "its path is too long");
        end();
}

TEST(recover, without_its_record_the_root_lets_only_administrators_in) {
        Credentials alice = house_who(ALICE), root_itself = house_who(0);
        Spot spot;

        begin();
        (void)mkdir_at("/d", ALICE, 0755);
        (void)create("/d/x", ALICE, 1);
        die();
        lose_record(STATE_DIRECTORY, SAVED_ROOT);
        revive();
        EXPECT_NOTE(ROOT, SAVED_ROOT, "damaged");
        cr_assert(region_at("/d/x"), "nothing is lost");
        cr_assert_eq(tree_find(&scene.house.tree, &alice, "/d/x", 4, &spot), TREE_E_DENIED);
        cr_assert_eq(tree_find(&scene.house.tree, &root_itself, "/d/x", 4, &spot), TREE_E_DENIED);
        cr_assert_eq(tree_find(&scene.house.tree, &house_admin, "/d/x", 4, &spot), 0);
        state_commit(scene.state);
        die();
        revive();
        EXPECT_NO_NOTES();
        cr_assert_eq(scene.house.tree.root->permissions.mode, 0);
        end();
}

TEST(recover, of_two_with_one_number_or_one_name_only_one_is_there) {
        uint64_t directory, region;

        begin();
        directory = mkdir_at("/d", ALICE, 0700)->node.record.id;
        region = create("/d/x", ALICE, 1)->id;
        (void)create("/y", ALICE, 2);
        die();
        forge_directory(directory, SAVED_ROOT, "d");
        forge_directory(900, SAVED_ROOT, "d");
        forge_name(901, directory, region, "x");
        forge_name(902, SAVED_ROOT, region, "d");
        revive();
        EXPECT_NOTE(DIRECTORY, directory, "two of that number");
        EXPECT_NOTE(DIRECTORY, 900, "its name is taken");
        EXPECT_NOTE(NAME, 902, "it is taken");
        cr_assert_eq(scene.recover.n_dropped[RECOVER_NAME], 2);
        cr_assert_eq(scene.house.tree.n_directories, 2);
        cr_assert_eq(region_n_names(region_at("/d/x")), 1);
        end();
}

/* What a policy has said of a directory goes with it, wherever it was moved to. */
TEST(recover, a_directory_that_the_policy_names_has_its_limits_and_gets_its_own_back_later) {
        Directory *directory;

        begin();
        directory = mkdir_at("/d", ALICE, 0700);
        directory->own_max[ACCOUNT_BYTES] = 8192;
        directory->own_max[ACCOUNT_REGIONS] = QUOTA_UNLIMITED;
        directory->account->max[ACCOUNT_BYTES] = 4096;
        list_append(&scene.house.tree.ruled, &directory->ruled);
        node_touch(&directory->node);
        die();
        revive();
        directory = node_directory(node_at("/d"));
        cr_assert_eq(directory->account->max[ACCOUNT_BYTES], 4096);
        cr_assert_eq(directory->own_max[ACCOUNT_BYTES], 8192);
        cr_assert_eq(directory->account->max[ACCOUNT_REGIONS], QUOTA_UNLIMITED);
        cr_assert_eq(list_first(&scene.house.tree.ruled, Directory, ruled), directory);
        end();
}

/* -- regions --------------------------------------------------------------------------------- */

TEST(recover, a_region_without_its_memory_goes_with_all_that_it_had) {
        char text[TICKET_TEXT_BYTES];
        uint64_t id;
        int fd;

        begin();
        (void)create("/y", ALICE, 1);
        id = create("/x", ALICE, 4096)->id;
        fd = grant_to(region_at("/x"), BOB, true);
        (void)issue(region_at("/x"), CAROL, 1, NSEC_PER_SEC, text);
        die();
        lose_descriptor(id);
        revive();
        EXPECT_NOTE(REGION, id, "no descriptor of it was kept");
        cr_assert(!node_at("/x") && node_at("/y") && scene.house.regions.n == 1);
        cr_assert_eq(scene.recover.n_dropped[RECOVER_NAME], 1);
        cr_assert_eq(scene.recover.n_dropped[RECOVER_TICKET], 1);
        cr_assert_eq(scene.recover.n_dropped[RECOVER_GRANT], 1);
        cr_assert_eq(account_of(ALICE)->used[ACCOUNT_REGIONS], 1);
        cr_assert_null(account_of(BOB));
        close_fd(fd);
        die();
        revive();
        EXPECT_NO_NOTES();
        end();
}

static int other_memory(uint64_t size, bool seal) {
        int fd;

        if (seal) {
                REQUIRE(memfd_make(&(MemfdSpec){ .id = 1, .size = size }, &fd) == 0);
                return fd;
        }
        fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        REQUIRE(fd >= 0 && ftruncate(fd, (off_t)size) == 0 && fchmod(fd, 0600) == 0);
        return fd;
}

TEST(recover, attack_102_memory_that_is_not_the_regions_own_is_not_taken_for_it) {
        uint64_t ids[5];
        int pair[2];

        begin();
        for (size_t i = 0; i < 5; ++i) {
                char path[3] = { '/', (char)('a' + i), 0 };

                ids[i] = create(path, ALICE, 4096)->id;
        }
        die();
        for (size_t i = 0; i < 4; ++i)
                close_fd(kept_of(ids[i])->fd);
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        kept_of(ids[0])->fd = other_memory(4096, true);
        kept_of(ids[1])->fd = other_memory(8192, true);
        kept_of(ids[2])->fd = other_memory(4096, false);
        kept_of(ids[3])->fd = pair[0];
        revive();
        for (size_t i = 0; i < 4; ++i) {
                EXPECT_NOTE(REGION, ids[i], i < 3 ? "another memfd" : "not a memfd");
                EXPECT_NOTE(DESCRIPTOR, ids[i], "no region's");
        }
        cr_assert(region_at("/e") && scene.house.tree.root->n_children == 1);
        house_until(&scene.house, scene.house.regions.n == 1);
        close_fd(pair[1]);
        end();
}

TEST(recover, attack_102_what_nobody_knows_is_let_go_and_the_rest_adopted) {
        enum { EXTRA = 1000 };
        uint64_t id;

        begin();
        id = create("/x", ALICE, 4096)->id;
        die();
        for (uint64_t i = 0; i < EXTRA; ++i) {
                char name[FDSTORE_NAME_MAX];

                region_store_name(10000 + i, name);
                keep(name, other_memory(4096, i % 2));
        }
        keep("r", other_memory(1, true));
        keep("r007", other_memory(1, true));
        keep("r99999999999999999999999", other_memory(1, true));
        keep("", other_memory(1, true));
        keep("policy-3", open("/dev/null", O_RDONLY | O_CLOEXEC));
        revive();
        cr_assert_eq(scene.recover.n_dropped[RECOVER_DESCRIPTOR], EXTRA + 5);
        cr_assert_eq(region_at("/x")->id, id);
        house_until(&scene.house, scene.house.regions.n == 1);
        cr_assert(was_let_go("policy-3"));
        cr_assert_eq(account_of(OWN_UID), NULL, "nothing is charged for it any more");
        end();
}

/* Of what was kept and never committed the number is not known to be used, and its name is taken all the same. */
TEST(recover, the_numbers_of_memory_that_is_kept_are_used) {
        const MemfdSpec spec = { .id = 2000000, .size = 4096 };
        int fd;

        begin();
        (void)create("/x", ALICE, 1);
        die();
        REQUIRE(memfd_make(&spec, &fd) == 0);
        keep("r2000000", fd);
        keep("r1152921504606846975", other_memory(4096, true));
        revive();
        EXPECT_NOTE(DESCRIPTOR, 2000000, "no region's");
        cr_assert_eq(create("/y", ALICE, 1)->id, 2000001, "and one that leaves no room for more is not believed");
        house_until(&scene.house, scene.house.regions.n_condemned == 0);
        end();
}

/* Memory that the broker before had made ahead for regions to come. */
TEST(recover, memory_that_never_was_a_regions_goes_without_a_word_if_it_is_empty) {
        const MemfdSpec spec = { .id = 70 };
        int empty, other;

        begin();
        die();
        REQUIRE(memfd_begin(&spec, &empty) == 0 && memfd_begin(&spec, &other) == 0);
        REQUIRE(fallocate(other, FALLOC_FL_KEEP_SIZE, 0, 4096) == 0, "it has a page, and its size says that it has none");
        keep("r70", empty);
        keep("r71", other);
        revive();
        cr_assert_eq(scene.recover.n_dropped[RECOVER_DESCRIPTOR], 1);
        EXPECT_NOTE(DESCRIPTOR, 71, "no region's");
        cr_assert_eq(create("/x", ALICE, 1)->id, 72);
        house_until(&scene.house, scene.house.regions.n == 1);
        cr_assert(was_let_go("r70"));
        end();
}

TEST(recover, what_nobody_knows_is_emptied_unless_somebody_holds_it) {
        static char page[4096];
        int held, unheld, seen;
        struct stat st;

        memset(page, 'x', sizeof(page));
        begin();
        die();
        unheld = other_memory(4096, true);
        held = other_memory(4096, true);
        REQUIRE(pwrite(unheld, page, sizeof(page), 0) == 4096 && pwrite(held, page, sizeof(page), 0) == 4096);
        keep("r50", fcntl(unheld, F_DUPFD_CLOEXEC, 0));
        keep("r51", held);
        REQUIRE(memfd_reopen(held, false, &seen) == 0);
        revive();
        cr_assert_eq(account_of(OWN_UID)->used[ACCOUNT_BYTES], 8192);
        house_until(&scene.house, scene.house.regions.n == 0);
        cr_assert(fstat(unheld, &st) == 0 && st.st_blocks == 0);
        cr_assert(fstat(seen, &st) == 0 && st.st_blocks == 8);
        state_commit(scene.state);
        cr_assert(was_let_go("r50"));
        close_fd(unheld);
        close_fd(seen);
        end();
}

/* A copy of a region's descriptor under another number is not a region that nobody holds. */
TEST(recover, memory_that_is_a_regions_own_is_never_emptied_under_another_name) {
        struct stat st;
        uint64_t id;

        begin();
        id = create("/x", ALICE, 4096)->id;
        REQUIRE(pwrite(region_at("/x")->fd, "x", 1, 0) == 1);
        die();
        keep("r777", fcntl(kept_of(id)->fd, F_DUPFD_CLOEXEC, 0));
        keep("rubbish", fcntl(kept_of(id)->fd, F_DUPFD_CLOEXEC, 0));
        keep(kept_of(id)->name, fcntl(kept_of(id)->fd, F_DUPFD_CLOEXEC, 0));
        revive();
        EXPECT_NOTE(DESCRIPTOR, 777, "no region's");
        EXPECT_NOTE(DESCRIPTOR, id, "another one of that name");
        for (unsigned int i = 0; i < 16; ++i)
                house_turn(&scene.house);
        cr_assert(fstat(region_at("/x")->fd, &st) == 0 && st.st_blocks == 8);
        cr_assert(was_let_go("r777"));
        end();
}

TEST(recover, no_two_regions_have_the_same_memory) {
        Region *region;
        SavedRegion saved;

        begin();
        region = create("/alice", ALICE, 4096);
        persist_region(region, &saved);
        die();
        saved.id = 888;
        saved.permissions.uid = saved.payer = BOB;
        FORGE(REGION, region, saved);
        forge_name(889, SAVED_ROOT, 888, "bob");
        keep("r888", fcntl(kept_of(1)->fd, F_DUPFD_CLOEXEC, 0));
        revive();
        EXPECT_NOTE(REGION, 888, "another region has the same memory");
        EXPECT_NOTE(NAME, 889, "its region is gone");
        cr_assert(region_at("/alice") && !node_at("/bob") && !account_of(BOB));
        end();
}

TEST(recover, more_than_can_be_counted_is_dropped) {
        SavedRegion saved;
        struct stat st;
        int fd;

        begin();
        persist_region(create("/x", ALICE, INT64_MAX), &saved);
        die();
        fd = other_memory(INT64_MAX, true);
        REQUIRE(fstat(fd, &st) == 0);
        saved.id = 888;
        saved.inode = st.st_ino;
        FORGE(REGION, region, saved);
        keep("r888", fd);
        forge_name(889, SAVED_ROOT, 888, "y");
        revive();
        cr_assert_eq(scene.recover.n_dropped[RECOVER_REGION], 1);
        cr_assert_eq(scene.recover.n_dropped[RECOVER_NAME], 1);
        cr_assert_eq(scene.house.regions.n, 1);
        cr_assert_eq(account_of(ALICE)->used[ACCOUNT_BYTES], UINT64_C(1) << 63);
        end();
}

TEST(recover, a_directory_does_not_count_more_than_it_can) {
        begin();
        (void)create("/x", ALICE, INT64_MAX);
        die();
        forge_name(889, SAVED_ROOT, 1, "y");
        revive();
        cr_assert_eq(scene.recover.n_dropped[RECOVER_NAME], 1);
        cr_assert_eq(scene.house.tree.root->account->used[ACCOUNT_BYTES], UINT64_C(1) << 63);
        end();
}

TEST(recover, names_grants_and_tickets_of_nothing_are_dropped) {
        SavedTicket ticket = { .id = 70, .region = 66, .until = UINT64_MAX, .issuer = ALICE, .uses = 1, .left = 1 };
        SavedGrant grant = { .id = 71, .region = 66, .uid = ALICE };
        SavedRegion page = { .id = 72 };
        Region *region, *made;

        begin();
        region = create("/x", ALICE, 4096);
        REQUIRE(region_bell(region, &made, NULL) == 0);
        persist_region(made, &page);
        die();
        forge_name(65, SAVED_ROOT, 66, "nothing");
        forge_name(67, SAVED_ROOT, page.id, "page");
        FORGE(TICKET, ticket, ticket);
        FORGE(GRANT, grant, grant);
        revive();
        EXPECT_NOTE(NAME, 65, "its region is gone");
        EXPECT_NOTE(NAME, 67, "its region is gone");
        EXPECT_NOTE(TICKET, 70, "its region is gone");
        EXPECT_NOTE(GRANT, 71, "its region is gone");
        cr_assert_eq(region_page(region_at("/x"))->id, page.id);
        cr_assert_eq(scene.house.tree.root->n_children, 1);
        end();
}

TEST(recover, a_doorbell_whose_region_is_gone_is_an_orphan_and_goes) {
        Region *page;
        uint64_t id;

        begin();
        id = create("/x", ALICE, 4096)->id;
        REQUIRE(region_bell(region_at("/x"), &page, NULL) == 0);
        die();
        lose_descriptor(id);
        revive();
        cr_assert_eq(scene.house.regions.n, 1);
        house_until(&scene.house, scene.house.regions.n == 0);
        end();
}

TEST(recover, records_that_are_not_in_order_are_dropped) {
        static const uint8_t rubbish[64] = { 1 };

        begin();
        (void)create("/x", ALICE, 1);
        die();
        for (StateKind kind = STATE_COUNTERS; kind <= STATE_GRANT; ++kind)
                if (kind != STATE_POLICY)
                        forge_record(kind, 1000 + kind, rubbish, sizeof(rubbish));
        revive();
        cr_assert(region_at("/x"));
        for (size_t what = 0; what < _RECOVER_WHAT_N; ++what)
                cr_assert_eq(scene.recover.n_dropped[what], what != RECOVER_ROOT && what != RECOVER_DESCRIPTOR, "%zu", what);
        die();
        revive();
        EXPECT_NO_NOTES();
        end();
}

/* -- life goes on ---------------------------------------------------------------------------- */

TEST(recover, an_orphan_that_was_let_go_while_nobody_looked_goes) {
        int fd, other;

        begin();
        fd = grant_to(create("/x", ALICE, 4096), BOB, false);
        region_unlink(region_at("/x"));
        other = grant_to(create("/y", ALICE, 4096), BOB, false);
        region_unlink(region_at("/y"));
        die();
        close_fd(fd);
        revive();
        cr_assert_eq(scene.house.regions.n_orphans, 2);
        house_until(&scene.house, scene.house.regions.n == 1);
        cr_assert_eq(account_of(BOB)->used[ACCOUNT_GRANTS], 1);
        close_fd(other);
        house_until(&scene.house, scene.house.regions.n == 0);
        cr_assert_null(account_of(ALICE));
        end();
}

TEST(recover, a_counted_region_goes_with_its_last_holder_then_or_later) {
        Region *region;
        int fds[2];

        begin();
        for (unsigned int i = 0; i < 2; ++i) {
                region = region_of(ALICE, &(RegionSpec){ .size = 4096, .lifetime = REGION_COUNTED });
                (void)link_at(region, i ? "/later" : "/then");
                (void)link_at(region, i ? "/later2" : "/then2");
                fds[i] = grant_to(region, BOB, true);
                region_count(region);
        }
        die();
        close_fd(fds[0]);
        revive();
        house_until(&scene.house, !node_at("/then") && !node_at("/then2"));
        cr_assert(node_at("/later") && node_at("/later2"));
        close_fd(fds[1]);
        house_until(&scene.house, scene.house.regions.n == 0);
        end();
}

TEST(recover, what_was_condemned_is_emptied_to_the_end) {
        struct stat st;
        int own;

        begin();
        own = house_hold(create("/x", ALICE, 4 << 20), true);
        for (off_t at = 0; at < 4 << 20; at += 4096)
                REQUIRE(pwrite(own, "x", 1, at) == 1);
        close_fd(own);
        own = fcntl(region_at("/x")->fd, F_DUPFD_CLOEXEC, 0);
        region_unlink(region_at("/x"));
        cr_assert_eq(scene.house.regions.n_condemned, 1);
        die();
        revive();
        EXPECT_NO_NOTES();
        cr_assert_eq(scene.recover.n_condemned, 1);
        cr_assert_eq(account_of(ALICE)->used[ACCOUNT_BYTES], 4 << 20);
        house_until(&scene.house, scene.house.regions.n == 0);
        cr_assert(fstat(own, &st) == 0 && st.st_blocks == 0);
        close_fd(own);
        end();
}

/* Its descriptor left the store before its record left the state: nobody misses it. */
TEST(recover, what_was_condemned_and_has_no_descriptor_any_more_is_over) {
        uint64_t id;

        begin();
        id = create("/x", ALICE, 4096)->id;
        region_unlink(region_at("/x"));
        die();
        lose_descriptor(id);
        revive();
        EXPECT_NO_NOTES();
        cr_assert_eq(scene.house.regions.n, 0);
        end();
}

TEST(recover, grants_whose_holders_ended_meanwhile_are_off_the_books_soon) {
        Region *region;
        int dead, living;

        begin();
        region = create("/x", ALICE, 4096);
        dead = grant_to(region, BOB, false);
        living = grant_to(region, CAROL, false);
        die();
        close_fd(dead);
        revive();
        cr_assert_eq(scene.house.grants.n, 2);
        house_until(&scene.house, scene.house.grants.n == 1);
        cr_assert(!account_of(BOB) && account_of(CAROL)->used[ACCOUNT_GRANTS] == 1);
        close_fd(living);
        cr_assert_eq(region_grants_held(region_at("/x")), REGION_HELD_NOT);
        cr_assert_eq(scene.house.grants.n, 0);
        end();
}

/* Without a mark nothing tells which grant is over, but when nobody holds the region all are. */
TEST(recover, grants_without_a_mark_stay_until_nobody_holds_the_region) {
        Region *region;
        Grant *grant;
        int fds[2];

        begin();
        region = create("/x", ALICE, 4096);
        fds[0] = grant_to(region, BOB, false);
        fds[1] = grant_to(region, BOB, true);
        region->grants.n_marked = 0;
        list_for_each(grant, &region->grants.list, Grant, in_region) {
                grant->marked = false;
                state_touch(&grant->record);
        }
        die();
        close_fd(fds[0]);
        revive();
        for (unsigned int i = 0; i < 16; ++i)
                house_turn(&scene.house);
        cr_assert_eq(scene.house.grants.n, 2);
        close_fd(fds[1]);
        die();
        revive();
        house_until(&scene.house, scene.house.grants.n == 0);
        end();
}

/* Begins, and dies with one region, "/x", that somebody holds, and that the grant is of. Return: its descriptor. */
static int die_with_holder(SavedGrant *grant) {
        Region *region;
        int fd;

        begin();
        region = create("/x", ALICE, 4096);
        grant->region = region->id;
        fd = house_hold(region, false);
        die();
        return fd;
}

/* As it was before grants without a mark were counted together, and a part of whose sessions is gone. */
TEST(recover, grants_without_a_mark_of_one_session_become_one) {
        SavedGrant grant = { .id = 100, .uid = BOB, .pid = 5, .session = 9 };
        Region *region;
        Grant *first;
        int fd;

        fd = die_with_holder(&grant);
        for (unsigned int i = 0; i < 10; ++i) {
                FORGE(GRANT, grant, grant);
                ++grant.id;
                grant.session = i % 2 ? 9 : 11 + i;
                grant.again = i;
        }
        for (unsigned int i = 0; i < 2; ++i) {
                revive_with(9);
                region = region_at("/x");
                first = list_first(&region->grants.list, Grant, in_region);
                cr_assert_eq(scene.house.grants.n, 2);
                cr_assert(first->id == 100 && first->session == 9 && first->n == 5 + 1 + 3 + 5 + 7);
                cr_assert_eq(region->grants.n, 10 + 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8);
                cr_assert_eq(region->grants.granted, region->grants.n);
                cr_assert_eq(account_of(BOB)->used[ACCOUNT_GRANTS], 2);
                EXPECT_NO_NOTES();
                die();
        }
        close_fd(fd);
        revive();
        house_until(&scene.house, scene.house.grants.n == 0);
        end();
}

/* What is kept may say anything. */
TEST(recover, marks_beyond_those_a_region_can_have_are_none) {
        SavedGrant grant = { .id = 100, .uid = BOB, .pid = 5, .marked = true };
        Region *region;
        int fd;

        fd = die_with_holder(&grant);
        for (unsigned int i = 0; i < 300; ++i, ++grant.id)
                FORGE(GRANT, grant, grant);
        revive();
        region = region_at("/x");
        cr_assert(region->grants.n_marked == 64 && region->grants.n == 300 && scene.house.grants.n == 65);
        house_until(&scene.house, region->grants.n == 300 - 64);
        close_fd(fd);
        house_until(&scene.house, region_grants_held(region) == REGION_HELD_NOT && scene.house.grants.n == 0);
        end();
}

TEST(recover, tickets_are_as_good_as_they_were) {
        char text[TICKET_TEXT_BYTES], brief[TICKET_TEXT_BYTES];
        Ticket *ticket;

        begin();
        ticket_spend(issue(create("/x", ALICE, 4096), BOB, 3, 100 * NSEC_PER_SEC, text));
        (void)issue(region_at("/x"), ALICE, 3, NSEC_PER_MSEC, brief);
        die();
        test_sleep_ms(2);
        revive();
        ticket = tickets_find(&scene.tickets, text, sizeof(text));
        cr_assert(ticket && ticket->left == 2 && ticket->region == region_at("/x") && ticket->spec.writable);
        cr_assert_eq(account_of(BOB)->used[ACCOUNT_PENDING], 1);
        house_turn(&scene.house);
        cr_assert_null(tickets_find(&scene.tickets, brief, sizeof(brief)), "its time was over");
        ticket_spend(ticket);
        ticket_spend(tickets_find(&scene.tickets, text, sizeof(text)));
        cr_assert_null(account_of(BOB));
        end();
}

TEST(recover, names_end_at_their_time) {
        begin();
        (void)create("/over", ALICE, 1);
        (void)create("/later", ALICE, 1);
        expire(node_at("/over"), NSEC_PER_MSEC);
        expire(node_at("/later"), 1000 * NSEC_PER_SEC);
        die();
        test_sleep_ms(2);
        revive();
        cr_assert(node_at("/over"), "it goes in a turn, as any other");
        house_turn(&scene.house);
        cr_assert(!node_at("/over") && node_at("/later"));
        cr_assert_lt(expiry_left(node_at("/later")->expiry), 1000 * NSEC_PER_SEC);
        end();
}

TEST(recover, a_region_goes_with_its_session_if_that_is_gone) {
        Region *region;

        begin();
        region = region_of(ALICE, &(RegionSpec){ .size = 4096, .lifetime = REGION_SESSION });
        (void)link_at(region, "/x");
        (void)link_at(region, "/y");
        region_join_session(region, &scene.session_regions, 7);
        die();
        revive_with(7);
        cr_assert_eq(region_of_session(&scene.session_regions), region_at("/x"));
        die();
        revive_with(8);
        cr_assert(!node_at("/x") && !node_at("/y"));
        house_until(&scene.house, scene.house.regions.n == 0);
        end();
}

static uint64_t n_told;

static void told(Region *region, void *userdata) {
        ++n_told;
        region->told_frozen = true;
        state_touch(&region->record);
}

/* The helper did what it was asked while nobody was there to hear of it. */
TEST(recover, a_region_that_was_frozen_meanwhile_is_told_of) {
        Region *region;

        begin();
        region = region_of(ALICE, &(RegionSpec){ .size = 4096, .freezable = true });
        (void)link_at(region, "/x");
        REQUIRE(fcntl(region->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0);
        die();
        n_told = 0;
        for (unsigned int i = 0; i < 2; ++i) {
                open_empty(left.n);
                scene.state = adopt(left.state_fd);
                persist_register(scene.state);
                REQUIRE(state_make_room(scene.state, STATE_ROOM) == 0);
                scene.house.regions.frozen = told;
                cr_assert_eq(recover_into_scene(), 0);
                cr_assert_eq(n_told, 1);
                cr_assert(region_is_frozen(region_at("/x")));
                die();
        }
        revive();
        end();
}

TEST(recover, regions_of_huge_pages_are_recovered) {
        RegionSpec spec = { .size = 2 << 20, .huge_shift = 21, .permissions = { ALICE, ALICE, 0600 } };
        Account *alice;
        Region *region;

        if (!test_huge_pages_begin(1)) {
                test_leave_out("there are no huge pages of 2 MiB");
                return;
        }
        begin();
        alice = house_account(&scene.house, ALICE);
        REQUIRE(region_new(&region, &scene.house.regions, alice, &spec, NULL) == 0);
        (void)account_unref(alice);
        (void)link_at(region, "/x");
        die();
        revive();
        EXPECT_NO_NOTES();
        cr_assert_eq(region_at("/x")->huge_shift, 21);
        cr_assert_eq(account_of(ALICE)->used[ACCOUNT_BYTES], 2 << 20);
        end();
        test_huge_pages_end();
}

/* -- a new state ------------------------------------------------------------------------------- */

TEST(recover, without_a_state_all_memory_is_let_go) {
        begin();
        (void)create("/x", ALICE, 4096);
        (void)create("/y", ALICE, 4096);
        die();
        close_fd(left.state_fd);
        keep("nonsense", open("/dev/null", O_RDONLY | O_CLOEXEC));
        open_empty(left.n);
        scene.recover = (Recover){ .store = scene.store, .accounts = &scene.house.accounts, .tree = &scene.house.tree,
                                   .regions = &scene.house.regions, .grants = &scene.house.grants,
                                   .tickets = &scene.tickets, .uid = OWN_UID, .note = note };
        cr_assert_eq(recover_without_state_consume_fds(&scene.recover, left.kept, left.n), 0);
        cr_assert_eq(scene.recover.n_dropped[RECOVER_DESCRIPTOR], 3);
        cr_assert_eq(scene.house.regions.last_id, 2, "their names are theirs until they are gone");
        house_until(&scene.house, scene.house.regions.n == 0);
        cr_assert(was_let_go("r1"));
        end();
}

/* -- any damage -------------------------------------------------------------------------------- */

typedef struct Records {
        struct {
                StateKind kind;
                uint64_t id;
                uint32_t cell;
                size_t n;
                uint8_t data[STATE_RECORD_MAX];
        } all[128];
        size_t n;
} Records;

static int collect(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Records *records = userdata;

        REQUIRE(records->n < sizeof(records->all) / sizeof(records->all[0]));
        records->all[records->n].kind = kind;
        records->all[records->n].id = id;
        records->all[records->n].cell = cell;
        records->all[records->n].n = n;
        memcpy(records->all[records->n++].data, data, n);
        return 0;
}

static State *open_records(Records *records) {
        State *state = adopt(fcntl(left.state_fd, F_DUPFD_CLOEXEC, 0));

        records->n = 0;
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                REQUIRE(state_walk(state, kind, collect, records) == 0);
        return state;
}

/* Loses each record and each descriptor with that chance, of 256. */
static void lose_some(uint64_t *random, unsigned int chance) {
        static Records records;
        State *state = open_records(&records);

        for (size_t i = 0; i < records.n; ++i)
                if (test_random(random, 256) < chance)
                        state_forget(state, records.all[i].cell);
        state_commit(state);
        (void)state_free(state);
        for (size_t i = left.n; i-- > 0;)
                if (test_random(random, 256) < chance) {
                        close_fd(left.kept[i].fd);
                        left.kept[i] = left.kept[--left.n];
                }
}

typedef struct Seen {
        char path[256];
        uint64_t region;
        Permissions permissions;
} Seen;

static size_t see(Seen *seen) {
        char path[PATH_BYTES_MAX];
        size_t n = 0;

        for (Node *node = tree_list_first(scene.house.tree.root); node;
             node = tree_list_next(scene.house.tree.root, &house_admin, true, node)) {
                size_t length = tree_path(node, path);

                REQUIRE(length < sizeof(seen[n].path));
                (void)snprintf(seen[n].path, sizeof(seen[n].path), "%.*s", (int)length, path);
                seen[n].region = node->region ? node->region->id : 0;
                seen[n++].permissions = *node_permissions(node);
        }
        return n;
}

/* Nothing has a place, an owner or a mode that it did not have. */
static void expect_no_more(const Seen *before, size_t n_before) {
        Seen after[32];
        size_t n = see(after);

        for (size_t i = 0; i < n; ++i) {
                const Permissions *now = &after[i].permissions, *then = NULL;

                for (size_t k = 0; k < n_before; ++k)
                        if (!strcmp(before[k].path, after[i].path) && before[k].region == after[i].region)
                                then = &before[k].permissions;
                REQUIRE(then, "%s was not there", after[i].path);
                REQUIRE(now->uid == then->uid && now->gid == then->gid && now->mode == then->mode, "%s", after[i].path);
                REQUIRE(!now->acl == !then->acl, "%s", after[i].path);
        }
}

TEST(recover, whatever_is_lost_nothing_is_anywhere_or_anybodys_that_was_not) {
        uint64_t random = test_seed();

        for (uint64_t round = 0, rounds = test_rounds(100); round < rounds; ++round) {
                Seen before[32];
                size_t n, n_before;
                int fds[16];

                begin();
                n = furnish(fds);
                n_before = see(before);
                die();
                lose_some(&random, (unsigned int)(1 + round % 8 * 24));
                revive_with(round % 2 ? 7 : 0);
                expect_no_more(before, n_before);
                for (unsigned int i = 0; i < 8; ++i)
                        house_turn(&scene.house);
                expect_no_more(before, n_before);
                let_go(fds, n);
                die();
                revive_with(7);
                EXPECT_NO_NOTES();
                end();
        }
}

/* What no broker wrote, and whose sums are right. */
static void change_some(uint64_t *random) {
        static Records records;
        static Thing changed[128];
        State *state = open_records(&records);

        REQUIRE(state_make_room(state, 4 * STATE_ROOM) == 0);
        memset(changed, 0, sizeof(changed));
        for (size_t i = 0; i < records.n; ++i) {
                uint64_t id = records.all[i].id;

                if (test_random(random, 3))
                        continue;
                changed[i].n = records.all[i].n;
                memcpy(changed[i].data, records.all[i].data, records.all[i].n);
                for (uint64_t k = 1 + test_random(random, 3); k > 0; --k)
                        changed[i].data[test_random(random, changed[i].n)] = (uint8_t)test_random(random, 6);
                state_forget(state, records.all[i].cell);
                state_add(state, &changed[i].record, records.all[i].kind, id);
        }
        state_commit(state);
        (void)state_free(state);
        for (size_t i = 0; i < records.n; ++i)
                state_drop(&changed[i].record);
}

/* Most of its time it waits for the kernel to let go of inotify instances, three in a round. */
TEST(recover, whatever_records_say_the_books_balance_in_the_end) {
        uint64_t random = test_seed();

        for (uint64_t round = 0, rounds = test_rounds(150); round < rounds; ++round) {
                int fds[16];
                size_t n;

                begin();
                n = furnish(fds);
                die();
                change_some(&random);
                revive_with(7);
                for (unsigned int i = 0; i < 8; ++i)
                        house_turn(&scene.house);
                die();
                revive_with(7);
                EXPECT_NO_NOTES();
                let_go(fds, n);
                for (unsigned int i = 0; i < 8; ++i)
                        house_turn(&scene.house);
                end();
        }
}
