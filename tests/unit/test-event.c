/* daemon/core/event and record: what happens is told once, in order, and only to who may see it. */

#include "daemon-house.h"

#include <stdio.h>
#include <string.h>

#include "core/event.h"

#define N(text) (text), strlen(text)

static House house;
static Events events;
static Account *alice;
static Credentials who, stranger;
static char heard[4096];
static unsigned int n_ready, n_pressed;

static void ready(Watch *watch, bool pressed) {
        (void)watch;
        if (pressed)
                ++n_pressed;
        else
                ++n_ready;
}

static void begin(void) {
        house_open(&house);
        REQUIRE(events_init(&events, &house.tree, &house.deadlines, ready) == 0);
        alice = house_account(&house, ALICE);
        who = house_who(ALICE);
        stranger = house_who(BOB);
        n_ready = n_pressed = 0;
}

static void end(void) {
        events_deinit(&events);
        cr_assert_eq(alice->used[ACCOUNT_WATCHES], 0);
        alice = account_unref(alice);
        house_close(&house);
}

static Watch *watch_as(const Credentials *as, const char *path, uint32_t mask, uint64_t since) {
        Watch *watch;

        REQUIRE(watch_new(&watch, &events, alice, as, house_spot(&house, path).node, mask, since, NULL, NULL) == 0);
        return watch;
}

static Watch *watch_at(const char *path) {
        return watch_as(&who, path, EVENT_ALL, 0);
}

static const char *word(uint32_t what) {
        static const char *const words[] = { "created", "removed", "renamed", "replaced", "frozen", "holders", "limits",
                                             "overflow", "changed" };

        return words[__builtin_ctz(what)];
}

/* Everything there is to take: "created /x, renamed /x > /y". */
static const char *take(Watch *watch) {
        size_t n = 0;
        Record record;
        WatchTake took;

        heard[0] = '\0';
        while ((took = watch_take(watch, &record)) != WATCH_NOTHING) {
                const RecordHeader *h = &record.header;

                if (took == WATCH_LATER)
                        continue;
                n += (size_t)snprintf(heard + n, sizeof(heard) - n, "%s%s %.*s", n ? ", " : "", word(h->what),
                                      h->n_path, record.paths);
                if (h->n_to)
                        n += (size_t)snprintf(heard + n, sizeof(heard) - n, " > %.*s", h->n_to,
                                              record.paths + h->n_path);
                if (h->what == EVENT_HOLDERS)
                        n += (size_t)snprintf(heard + n, sizeof(heard) - n, " %s %u", h->held ? "held" : "free",
                                              (unsigned int)h->grants);
        }
        return heard;
}

#define EXPECT(watch, text) cr_assert_str_eq(take(watch), text)

static void drop(const char *path) {
        region_unlink_name(house_spot(&house, path).node);
}

static void drop_directory(const char *path) {
        REQUIRE(tree_rmdir(&house.tree, node_directory(house_spot(&house, path).node)) == 0);
}

static void make(const char *path) {
        (void)house_named(&house, alice, path, 0);
}

static void move(const char *path, const char *to, TreeRename how) {
        Spot a = house_spot(&house, path), b = house_spot(&house, to);
        Region *replaced;

        REQUIRE(tree_rename(&house.tree, &a, &b, how, NULL, &replaced) == 0);
        if (replaced)
                region_lost_name(replaced);
}

static void change_mode(const char *path, mode_t mode) {
        Node *node = house_spot(&house, path).node;

        if (node->region)
                node->region->permissions.mode = mode;
        else
                node_directory(node)->permissions.mode = mode;
        tree_tell_changed(node);
}

/* -- records ------------------------------------------------------------------------------ */

TEST(event, a_ring_gives_back_what_was_put_into_it_wherever_it_wraps) {
        RecordRing ring = { .bytes = NULL };
        char path[40];
        Record record;

        cr_assert_not(record_ring_put(&ring, &(RecordHeader){ .what = 1 }, NULL, NULL), "without memory");
        REQUIRE(record_ring_grow(&ring, 512) == 0);
        for (uint64_t i = 0; i < 1000; ++i) {
                RecordHeader header = { .sequence = i, .n_path = (uint16_t)(i % 33), .n_to = (uint16_t)(i % 7) };

                memset(path, 'a' + (int)(i % 26), sizeof(path));
                REQUIRE(record_ring_put(&ring, &header, path, path + 33));
                if (i % 3) {
                        REQUIRE(record_ring_put(&ring, &header, path, path + 33));
                        record_ring_drop(&ring);
                }
                (void)record_ring_read(&ring, ring.begin, &record);
                REQUIRE(record.header.sequence == i && record.header.n_path == i % 33);
                REQUIRE(memcmp(record.paths, path, i % 33 + i % 7) == 0);
                record_ring_drop(&ring);
                REQUIRE(record_ring_is_empty(&ring));
        }
        record_ring_clear(&ring);
}

TEST(event, a_ring_that_grows_keeps_what_is_in_it_and_a_full_one_takes_nothing) {
        RecordRing ring = { .bytes = NULL };
        RecordHeader header = { .n_path = 20 };
        uint64_t n = 0;
        Record record;

        REQUIRE(record_ring_grow(&ring, 512) == 0);
        for (; record_ring_put(&ring, &header, "01234567890123456789", NULL); ++header.sequence)
                ++n;
        cr_assert_eq(n, 512 / (sizeof(header) + 20));
        REQUIRE(record_ring_grow(&ring, 1024) == 0);
        REQUIRE(record_ring_put(&ring, &header, "01234567890123456789", NULL));
        for (uint64_t i = 0; i <= n; ++i) {
                (void)record_ring_read(&ring, ring.begin, &record);
                REQUIRE(record.header.sequence == i && memcmp(record.paths, "01234567890123456789", 20) == 0);
                record_ring_drop(&ring);
        }
        cr_assert(record_ring_is_empty(&ring));
        record_ring_clear(&ring);
}

/* -- what is told ------------------------------------------------------------------------- */

TEST(event, each_change_is_told_once_with_a_number_of_its_own) {
        uint64_t first;
        Watch *root, *d;
        Record record;

        begin();
        first = events.sequence;
        (void)house_mkdir(&house, alice, "/d", 0755);
        root = watch_at("/");
        d = watch_at("/d");
        make("/d/x");
        make("/y");
        drop("/d/x");
        drop("/y");
        cr_assert_eq(events.sequence, first + 5);
        for (uint64_t i = 2; i <= 5; ++i) {
                REQUIRE(watch_take(root, &record) == WATCH_EVENT);
                cr_assert_eq(record.header.sequence, first + i);
        }
        EXPECT(root, "");
        EXPECT(d, "created /x, removed /x");
        (void)watch_free(root);
        (void)watch_free(d);
        end();
}

TEST(event, what_was_never_announced_goes_in_silence) {
        RegionSpec spec = { .permissions = { ALICE, ALICE, 0600, NULL } };
        Region *region;
        Watch *watch;
        Spot spot;

        begin();
        watch = watch_at("/");
        spot = house_spot(&house, "/x");
        REQUIRE(region_new(&region, &house.regions, alice, &spec, NULL) == 0);
        REQUIRE(region_link_silently(region, &spot, NULL) == 0);
        (void)region_discard(region);
        EXPECT(watch, "");
        REQUIRE(region_new(&region, &house.regions, alice, &spec, NULL) == 0);
        spot = house_spot(&house, "/x");
        REQUIRE(region_link_silently(region, &spot, NULL) == 0);
        tree_announce(region_name(region));
        region_unlink(region);
        EXPECT(watch, "created /x, removed /x");
        (void)watch_free(watch);
        end();
}

TEST(event, a_rename_is_one_event_and_at_the_border_half_of_one) {
        Watch *root, *a, *b;

        begin();
        (void)house_mkdir(&house, alice, "/a", 0755);
        (void)house_mkdir(&house, alice, "/b", 0755);
        make("/a/x");
        root = watch_at("/");
        a = watch_at("/a");
        b = watch_at("/b");
        move("/a/x", "/a/y", TREE_RENAME_FREE);
        EXPECT(root, "renamed /a/x > /a/y");
        EXPECT(a, "renamed /x > /y");
        move("/a/y", "/b/y", TREE_RENAME_FREE);
        EXPECT(root, "renamed /a/y > /b/y");
        EXPECT(a, "removed /y");
        EXPECT(b, "created /y");
        make("/a/z");
        move("/b/y", "/a/z", TREE_RENAME_REPLACE);
        EXPECT(a, "created /z, replaced /z");
        EXPECT(b, "removed /y");
        (void)house_mkdir(&house, alice, "/b/d", 0755);
        EXPECT(b, "created /d");
        move("/a/z", "/b/d", TREE_RENAME_EXCHANGE);
        EXPECT(a, "replaced /z");
        EXPECT(b, "replaced /d");
        (void)take(root);
        move("/a", "/b", TREE_RENAME_EXCHANGE);
        EXPECT(root, "renamed /a > /b");
        EXPECT(a, "renamed ");
        EXPECT(b, "renamed ");
        make("/b/new");
        EXPECT(a, "created /new");
        (void)watch_free(root);
        (void)watch_free(a);
        (void)watch_free(b);
        end();
}

TEST(event, a_watch_goes_along_with_what_it_is_of_and_ends_with_it) {
        Watch *name, *directory, *over;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        make("/x");
        name = watch_as(&who, "/x", EVENT_CREATED, 0);
        directory = watch_as(&who, "/d", EVENT_CREATED | EVENT_RENAMED, 0);
        move("/x", "/y", TREE_RENAME_FREE);
        EXPECT(name, "");
        move("/d", "/e", TREE_RENAME_FREE);
        EXPECT(directory, "renamed ");
        make("/e/1");
        drop("/e/1");
        EXPECT(directory, "created /1");
        drop("/y");
        cr_assert_not(watch_is_over(name));
        EXPECT(name, "removed ");
        cr_assert(watch_is_over(name));
        (void)house_mkdir(&house, alice, "/f", 0755);
        over = watch_at("/f");
        move("/e", "/f", TREE_RENAME_REPLACE);
        EXPECT(over, "removed ");
        cr_assert(watch_is_over(over) && !watch_is_over(directory));
        EXPECT(directory, "renamed ");
        drop_directory("/f");
        EXPECT(directory, "removed ");
        (void)watch_free(name);
        (void)watch_free(directory);
        (void)watch_free(over);
        end();
}

TEST(event, a_name_that_stands_for_another_region_is_told_to_who_watches_the_name) {
        Region *region;
        Watch *watch;
        Record record;
        Spot spot;

        begin();
        make("/x");
        watch = watch_at("/x");
        region = house_region(&house, alice, 0);
        spot = house_spot(&house, "/x");
        REQUIRE(region_link(region, &spot, NULL) == 0);
        REQUIRE(watch_take(watch, &record) == WATCH_EVENT && record.header.what == EVENT_REPLACED);
        cr_assert(record.header.thing.region == region->id && record.header.n_path == 0);
        change_mode("/x", 0644);
        EXPECT(watch, "changed ");
        (void)watch_free(watch);
        end();
}

TEST(event, only_what_was_asked_for_is_told) {
        Watch *watch;

        begin();
        watch = watch_as(&who, "/", EVENT_REMOVED | EVENT_CHANGED, 0);
        make("/x");
        change_mode("/x", 0644);
        move("/x", "/y", TREE_RENAME_FREE);
        drop("/y");
        EXPECT(watch, "changed /x, removed /y");
        (void)watch_free(watch);
        end();
}

/* -- who hears of it ---------------------------------------------------------------------- */

TEST(event, who_may_not_list_a_directory_hears_nothing_of_what_is_below_it) {
        Watch *mine, *theirs;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        (void)house_mkdir(&house, alice, "/d/p", 0711);
        (void)house_mkdir(&house, alice, "/d/p/q", 0755);
        mine = watch_at("/d");
        theirs = watch_as(&stranger, "/d", EVENT_ALL, 0);
        make("/d/p/x");
        make("/d/p/q/x");
        EXPECT(mine, "created /p/x, created /p/q/x");
        EXPECT(theirs, "");
        move("/d/p/x", "/d/y", TREE_RENAME_FREE);
        EXPECT(theirs, "created /y");
        move("/d/y", "/d/p/q/y", TREE_RENAME_FREE);
        EXPECT(theirs, "removed /y");
        change_mode("/d/p", 0755);
        make("/d/p/q/z");
        change_mode("/d/p", 0700);
        drop("/d/p/q/z");
        EXPECT(theirs, "changed /p, created /p/q/z, changed /p");
        change_mode("/d", 0700);
        make("/d/2");
        EXPECT(theirs, "changed ");
        EXPECT(mine, "renamed /p/x > /y, renamed /y > /p/q/y, changed /p, created /p/q/z, changed /p, "
                     "removed /p/q/z, changed , created /2");
        (void)watch_free(mine);
        (void)watch_free(theirs);
        end();
}

TEST(event, limits_are_told_to_their_user_and_administrators) {
        Watch *mine, *theirs, *admins;

        begin();
        mine = watch_at("/");
        theirs = watch_as(&stranger, "/", EVENT_LIMITS, 0);
        admins = watch_as(&house_admin, "/", EVENT_LIMITS, 0);
        events_limits_user(&events, ALICE);
        EXPECT(mine, "limits ");
        EXPECT(theirs, "");
        EXPECT(admins, "limits ");
        (void)house_mkdir(&house, alice, "/d", 0700);
        tree_tell_limited(node_directory(house_spot(&house, "/d").node));
        EXPECT(theirs, "limits /d");
        EXPECT(mine, "created /d, limits /d");
        (void)watch_free(mine);
        (void)watch_free(theirs);
        (void)watch_free(admins);
        end();
}

/* -- queues ------------------------------------------------------------------------------- */

TEST(event, a_queue_that_is_full_says_so_after_what_it_holds_and_goes_on) {
        Watch *watch, *quiet;
        unsigned int n = 0;
        Record record;

        begin();
        (void)house_mkdir(&house, alice, "/quiet", 0755);
        watch = watch_at("/");
        quiet = watch_at("/quiet");
        make("/quiet/x");
        for (unsigned int i = 0; i < 1000; ++i) {
                make("/x");
                drop("/x");
        }
        cr_assert_gt(n_pressed, 0, "the owner is asked to take some before anything is lost");
        while (watch_take(watch, &record) == WATCH_EVENT && record.header.what != EVENT_OVERFLOW)
                ++n;
        cr_assert(n > 50 && n < 200, "%u", n);
        cr_assert_eq(record.header.what, EVENT_OVERFLOW);
        cr_assert_eq(record.header.sequence, events.sequence);
        EXPECT(watch, "");
        make("/y");
        EXPECT(watch, "created /y");
        EXPECT(quiet, "created /x");
        (void)watch_free(watch);
        (void)watch_free(quiet);
        end();
}

TEST(event, the_end_of_what_is_watched_is_told_even_after_a_loss) {
        Watch *watch;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        watch = watch_as(&who, "/d", EVENT_CREATED, 0);
        for (unsigned int i = 0; i < 1000; ++i) {
                make("/d/x");
                drop("/d/x");
        }
        drop_directory("/d");
        (void)take(watch);
        cr_assert_str_eq(strstr(heard, "overflow"), "overflow , removed ");
        (void)watch_free(watch);
        end();
}

TEST(event, it_costs_one_watch) {
        Watch *watch, *refused = NULL;
        Shortage s;

        begin();
        alice->max[ACCOUNT_WATCHES] = 1;
        watch = watch_at("/");
        cr_assert_eq(watch_new(&refused, &events, alice, &who, house_spot(&house, "/").node, EVENT_ALL, 0, NULL, &s),
                     EVENT_E_QUOTA);
        cr_assert(!refused && s.slot == ACCOUNT_WATCHES && events.n_watches == 1);
        cr_assert_eq(events_find_watch(&events, watch->id), watch);
        cr_assert_eq(watch_free(watch), NULL);
        cr_assert_eq(watch_free(NULL), NULL);
        end();
}

/* -- the past ----------------------------------------------------------------------------- */

TEST(event, a_watch_that_begins_in_the_past_hears_what_happened_since) {
        uint64_t since;
        Watch *watch;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        (void)house_mkdir(&house, alice, "/d/private", 0700);
        make("/d/old");
        since = events.sequence;
        make("/d/x");
        make("/d/private/x");
        make("/beside");
        move("/d/x", "/d/y", TREE_RENAME_FREE);
        move("/d/y", "/y", TREE_RENAME_FREE);
        move("/y", "/d/old", TREE_RENAME_REPLACE);
        watch = watch_as(&stranger, "/d", EVENT_ALL, since);
        make("/d/live");
        EXPECT(watch, "created /x, renamed /x > /y, removed /y, replaced /old, created /live");
        make("/d/more");
        EXPECT(watch, "created /more");
        (void)watch_free(watch);
        watch = watch_as(&stranger, "/", EVENT_CREATED | EVENT_REMOVED, since);
        EXPECT(watch, "created /d/x, created /beside, created /d/live, created /d/more");
        (void)watch_free(watch);
        end();
}

TEST(event, what_the_history_cannot_say_for_certain_counts_as_lost) {
        uint64_t since, start = 0;
        Watch *watch;

        begin();
        start = events.sequence;
        (void)house_mkdir(&house, alice, "/d", 0755);
        since = events.sequence;
        (void)house_mkdir(&house, alice, "/d/e", 0700);
        make("/d/e/x");
        change_mode("/d/e", 0755);
        watch = watch_as(&stranger, "/d", EVENT_ALL, since);
        EXPECT(watch, "created /e, overflow ");
        (void)watch_free(watch);

        /* The directory itself was moved, made, or opened since. */
        since = events.sequence;
        move("/d", "/f", TREE_RENAME_FREE);
        watch = watch_as(&who, "/f", EVENT_ALL, since);
        EXPECT(watch, "overflow ");
        (void)watch_free(watch);
        watch = watch_as(&who, "/f", EVENT_ALL, start);
        EXPECT(watch, "overflow ");
        (void)watch_free(watch);

        /* Too long ago, or not yet. */
        watch = watch_as(&who, "/", EVENT_ALL, 1);
        EXPECT(watch, "overflow ");
        (void)watch_free(watch);
        watch = watch_as(&who, "/", EVENT_ALL, events.sequence + 1);
        EXPECT(watch, "overflow ");
        make("/z");
        EXPECT(watch, "created /z");
        (void)watch_free(watch);
        since = events.sequence;
        for (unsigned int i = 0; i < EVENT_HISTORY; ++i)
                change_mode("/z", 0600);
        watch = watch_as(&who, "/", EVENT_ALL, since);
        make("/last");
        EXPECT(watch, "overflow ");
        (void)watch_free(watch);
        end();
}

TEST(event, of_a_name_that_came_or_went_since_another_one_was_meant) {
        uint64_t since;
        Watch *watch;

        begin();
        make("/x");
        since = events.sequence;
        change_mode("/x", 0644);
        watch = watch_as(&who, "/x", EVENT_ALL, since);
        EXPECT(watch, "changed ");
        (void)watch_free(watch);
        drop("/x");
        make("/x");
        watch = watch_as(&who, "/x", EVENT_ALL, since);
        EXPECT(watch, "changed , overflow ");
        (void)watch_free(watch);
        end();
}

TEST(event, the_history_is_looked_through_a_part_at_a_time) {
        uint64_t since;
        Watch *watch;
        Record record;
        unsigned int later = 0;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        make("/d/x");
        make("/z");
        since = events.sequence;
        for (unsigned int i = 0; i < 1000; ++i)
                change_mode("/z", 0600);
        change_mode("/d/x", 0644);
        watch = watch_as(&who, "/d", EVENT_ALL, since);
        while (watch_take(watch, &record) == WATCH_LATER)
                ++later;
        cr_assert_eq(later, 3);
        cr_assert(record.header.what == EVENT_CHANGED && record.header.n_path == 2);
        EXPECT(watch, "");
        (void)watch_free(watch);
        end();
}

/* -- holders ------------------------------------------------------------------------------ */

static void turns(void) {
        for (int i = 0; i < 4; ++i)
                house_turn(&house);
}

static int grant(Region *region) {
        Asker asker = { .account = alice, .session = 1, .uid = ALICE };
        Grant *made;
        int fd;

        house.connected = 1;
        REQUIRE(grant_new(&made, &fd, &house.grants, region, &asker, false, NULL) == 0);
        return fd;
}

TEST(event, grants_that_are_given_and_let_go_are_told_of_once_a_turn) {
        Region *old, *new;
        Watch *watch;
        int a, b, c;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        old = house_named(&house, alice, "/d/old", 0);
        watch = watch_as(&stranger, "/", EVENT_HOLDERS, 0);
        cr_assert_eq(region_more(old)->watch, -1);
        turns();
        cr_assert_neq(region_more(old)->watch, -1, "what was there is found by a walk");
        new = house_named(&house, alice, "/new", 0);
        cr_assert_neq(region_more(new)->watch, -1, "what comes has it at once");

        a = grant(old);
        b = grant(old);
        c = grant(new);
        turns();
        EXPECT(watch, "holders /d/old held 2, holders /new held 1");
        close_fd(a);
        house_until(&house, take(watch)[0]);
        cr_assert_str_eq(heard, "holders /d/old held 1");
        close_fd(b);
        close_fd(c);
        house_until(&house, strlen(take(watch)) == 0 && old->grants.n == 0 && new->grants.n == 0);

        (void)watch_free(watch);
        turns();
        cr_assert(region_more(old)->watch == -1 && region_more(new)->watch == -1, "nobody wants to know any more");
        end();
}

TEST(event, regions_that_come_below_a_watch_otherwise_are_found) {
        Region *region;
        Watch *watch, *name;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        (void)house_mkdir(&house, alice, "/d/p", 0700);
        (void)house_mkdir(&house, alice, "/away", 0755);
        region = house_named(&house, alice, "/away/x", 0);
        watch = watch_as(&stranger, "/d", EVENT_HOLDERS, 0);
        turns();
        move("/away", "/d/p/here", TREE_RENAME_FREE);
        turns();
        cr_assert_eq(region_more(region)->watch, -1, "what he may not list is nothing to him");
        change_mode("/d/p", 0755);
        turns();
        cr_assert_neq(region_more(region)->watch, -1);
        (void)watch_free(watch);
        name = watch_as(&stranger, "/d/p/here/x", EVENT_HOLDERS, 0);
        turns();
        cr_assert_neq(region_more(region)->watch, -1, "somebody else watches it");
        close_fd(grant(region));
        turns();
        region_unlink(region);
        turns();
        (void)take(name);
        (void)watch_free(name);
        end();
}
