/* Names that move, and regions with several: who may, what others see of it, what it costs.
 *
 * The last test lets the broker and a model of it answer the same questions, twenty thousand of them
 * by three users. The model knows the protocol's page and nothing of the broker: a table of names
 * that is searched from one end to the other. Both must give the same answer to each question, and
 * every so often agree about every name and every figure there is.
 */

#include "lib/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REPLACE SHMD__RENAME_FLAGS__RENAME_REPLACE
#define EXCHANGE SHMD__RENAME_FLAGS__RENAME_EXCHANGE
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES
#define REGIONS_SLOT SHMD__SLOT__SLOT_REGIONS

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob, *root;
} Scene;

static Scene scene_begin(const char *config) {
        Scene scene = { 0 };

        test_needs_root();
        scene.broker = broker_spawn(config);
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        scene.root = client_connect_as(scene.broker, 0, 0);
        return scene;
}

static void scene_end(Scene *scene) {
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->root = client_free(scene->root);
        scene->broker = broker_stop(scene->broker);
}

static uint32_t call_rename(Client *client, const char *path, const char *to, uint32_t flags) {
        return client_call(client, MESSAGE_RENAME,
                           REQUEST(Rename, rename, .path = BYTES(path), .to = BYTES(to), .flags = flags));
}

static uint32_t call_link(Client *client, const char *path, const char *to) {
        return client_call(client, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES(path), .to = BYTES(to)));
}

static uint64_t region_at(Client *client, const char *path) {
        client_expect_done(client, call_stat(client, path));
        return ((Shmd__StatReply *)client->reply)->node->region;
}

static uint32_t names_at(Client *client, const char *path) {
        client_expect_done(client, call_stat(client, path));
        return ((Shmd__StatReply *)client->reply)->node->names;
}

/* -- who may ------------------------------------------------------------------------------ */

TEST(rename, moving_a_name_takes_the_right_to_write_to_both_directories) {
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;

        client_expect_done(alice, call_mkdir(alice, "/alice", 0755));
        client_expect_done(alice, call_mkdir(alice, "/open", 0777));
        client_expect_done(alice, call_create(alice, "/alice/r", 1, NULL));
        client_expect_done(alice, call_create(alice, "/open/r", 1, NULL));
        client_expect_error(bob, DENIED, DIRECTORY_WRITE, call_rename(bob, "/alice/r", "/open/x", 0));
        client_expect_error(bob, DENIED, DIRECTORY_WRITE, call_rename(bob, "/open/r", "/alice/x", 0));
        client_expect_error(bob, DENIED, DIRECTORY_WRITE, call_rename(bob, "/open/r", "/alice/r", REPLACE));
        client_expect_error(bob, DENIED, DIRECTORY_WRITE, call_rename(bob, "/open/r", "/alice/r", EXCHANGE));
        /* What a directory that may be written to has may go, whoever owns it; as in file systems. */
        client_expect_done(bob, call_rename(bob, "/open/r", "/open/moved", 0));
        client_expect_done(alice, call_rename(alice, "/alice/r", "/open/moved", REPLACE));
        scene_end(&scene);
}

TEST(rename, where_it_is_sticky_each_end_must_be_ones_own) {
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;

        client_expect_done(scene.root, call_mkdir(scene.root, "/s", 01777));
        client_expect_done(alice, call_create(alice, "/s/alice", 1, NULL));
        client_expect_done(alice, call_mkdir(alice, "/s/directory", 0777));
        client_expect_done(bob, call_create(bob, "/s/bob", 1, NULL));
        client_expect_error(bob, DENIED, STICKY, call_rename(bob, "/s/alice", "/s/x", 0));
        client_expect_error(bob, DENIED, STICKY, call_rename(bob, "/s/directory", "/s/x", 0));
        client_expect_error(bob, DENIED, STICKY, call_rename(bob, "/s/bob", "/s/alice", 0));
        client_expect_error(bob, DENIED, STICKY, call_rename(bob, "/s/bob", "/s/alice", REPLACE));
        client_expect_error(bob, DENIED, STICKY, call_rename(bob, "/s/bob", "/s/alice", EXCHANGE));
        client_expect_error(alice, DENIED, STICKY, call_rename(alice, "/s/bob", "/s/alice", EXCHANGE));
        client_expect_done(bob, call_rename(bob, "/s/bob", "/s/x", 0));
        client_expect_done(bob, call_rename(bob, "/s/x", "/s/directory/x", 0));
        client_expect_done(alice, call_rename(alice, "/s/directory/x", "/s/alice", REPLACE));
        client_expect_done(scene.root, call_rename(scene.root, "/s/alice", "/s/y", 0));
        scene_end(&scene);
}

TEST(rename, who_may_not_search_learns_nothing_by_moving_names) {
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;

        client_expect_done(alice, call_mkdir(alice, "/p", 0700));
        client_expect_done(alice, call_create(alice, "/p/r", 1, NULL));
        client_expect_done(bob, call_create(bob, "/bob", 1, NULL));
        client_expect_error(bob, DENIED, SEARCH, call_rename(bob, "/p/r", "/x", 0));
        client_expect_error(bob, DENIED, SEARCH, call_rename(bob, "/p/none", "/x", 0));
        client_expect_error(bob, DENIED, SEARCH, call_rename(bob, "/bob", "/p/r", REPLACE));
        client_expect_error(bob, DENIED, SEARCH, call_rename(bob, "/bob", "/p/none", REPLACE));
        client_expect_error(bob, DENIED, SEARCH, call_link(bob, "/p/r", "/x"));
        client_expect_error(bob, DENIED, SEARCH, call_link(bob, "/p/none", "/x"));
        client_expect_error(bob, DENIED, SEARCH, call_link(bob, "/bob", "/p/r"));
        scene_end(&scene);
}

TEST(rename, only_its_owner_and_administrators_give_a_region_one_more_name) {
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;

        client_expect_done(alice, call_mkdir(alice, "/d", 0755));
        client_expect_done(alice, call_create_mode(alice, "/d/r", 1, 0666, NULL));
        client_expect_error(bob, DENIED, OWNER, call_link(bob, "/d/r", "/x"));
        client_expect_done(alice, call_link(alice, "/d/r", "/x"));
        client_expect_done(scene.root, call_link(scene.root, "/d/r", "/y"));
        REQUIRE(names_at(bob, "/x") == 3 && region_at(bob, "/y") == region_at(alice, "/d/r"));
        client_expect_error(alice, EXISTS, TAKEN, call_link(alice, "/d/r", "/y"));
        client_expect_error(alice, EXISTS, TAKEN, call_link(alice, "/d/r", "/d"));
        client_expect_error(alice, IS_DIRECTORY, TAKEN, call_link(alice, "/d", "/z"));
        client_expect_error(alice, NOT_FOUND, MISSING, call_link(alice, "/d/none", "/z"));
        client_expect_error(alice, NOT_FOUND, MISSING, call_link(alice, "/x", "/none/z"));
        client_expect_done(bob, call_mkdir(bob, "/bob", 0755));
        client_expect_error(alice, DENIED, DIRECTORY_WRITE, call_link(alice, "/x", "/bob/z"));
        client_expect_done(alice, call_unlink(alice, "/x"));
        client_expect_done(alice, call_unlink(alice, "/d/r"));
        REQUIRE(names_at(alice, "/y") == 1);
        scene_end(&scene);
}

TEST(rename, requests_that_make_no_sense_are_told_so) {
        Scene scene = scene_begin(NULL);
        Client *c = scene.alice;

        client_expect_done(c, call_mkdir(c, "/d", 0700));
        client_expect_done(c, call_mkdir(c, "/d/e", 0700));
        client_expect_done(c, call_create(c, "/r", 1, NULL));
        client_expect_error(c, INVALID, FLAGS, call_rename(c, "/r", "/x", 4));
        client_expect_error(c, INVALID, FLAGS, call_rename(c, "/r", "/x", REPLACE | EXCHANGE));
        client_expect_error(c, INVALID, NAME, call_rename(c, "/r", "x", 0));
        client_expect_error(c, INVALID, NAME, call_rename(c, "", "/x", 0));
        client_expect_error(c, INVALID, NAME, call_link(c, "/r", "/x/"));
        client_expect_error(c, NOT_FOUND, MISSING, call_rename(c, "/none", "/x", 0));
        client_expect_error(c, NOT_FOUND, MISSING, call_rename(c, "/r", "/none", EXCHANGE));
        client_expect_error(c, EXISTS, TAKEN, call_rename(c, "/r", "/d", 0));
        client_expect_error(c, IS_DIRECTORY, TAKEN, call_rename(c, "/r", "/d/e", REPLACE));
        client_expect_error(c, NOT_DIRECTORY, TAKEN, call_rename(c, "/d", "/r", REPLACE));
        client_expect_error(c, NOT_DIRECTORY, MISSING, call_rename(c, "/d", "/r/x", 0));
        client_expect_error(c, INVALID, INSIDE, call_rename(c, "/d", "/d/x", 0));
        client_expect_error(c, INVALID, INSIDE, call_rename(c, "/d", "/d/e", EXCHANGE));
        client_expect_error(c, NOT_EMPTY, TAKEN, call_rename(c, "/d/e", "/d", REPLACE));
        client_expect_error(scene.root, BUSY, ROOT, call_rename(scene.root, "/", "/x", 0));
        client_expect_error(scene.root, BUSY, ROOT, call_rename(scene.root, "/d", "/", EXCHANGE));
        REQUIRE(broker_log_has(scene.broker, "request=rename", "reason=inside", NULL));
        scene_end(&scene);
}

/* -- what others see ---------------------------------------------------------------------- */

TEST(rename, readers_keep_what_was_replaced_and_who_opens_then_gets_the_new) {
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        Grant old = GRANT_NULL, new = GRANT_NULL, bobs = GRANT_NULL, later = GRANT_NULL;
        char byte;

        client_expect_done(alice, call_create_mode(alice, "/frame", PAGE, 0644, &old));
        client_expect_done(bob, call_open(bob, "/frame", READ_ONLY, &bobs));
        client_expect_done(alice, call_create_mode(alice, "/next", PAGE, 0644, &new));
        REQUIRE(pwrite(old.fd, "o", 1, 0) == 1 && pwrite(new.fd, "n", 1, 0) == 1);
        client_expect_done(alice, call_rename(alice, "/next", "/frame", REPLACE));
        REQUIRE(pread(bobs.fd, &byte, 1, 0) == 1 && byte == 'o');
        client_expect_done(bob, call_open(bob, "/frame", READ_ONLY, &later));
        REQUIRE(later.region == new.region && pread(later.fd, &byte, 1, 0) == 1 && byte == 'n');
        client_expect_error(bob, NOT_FOUND, MISSING, call_stat(bob, "/next"));

        /* The old one is charged until its last reader is gone. */
        REQUIRE(client_used(alice, BYTES_SLOT) == 2 * PAGE);
        grant_deinit(&old);
        REQUIRE(client_used(alice, BYTES_SLOT) == 2 * PAGE);
        grant_deinit(&bobs);
        client_expect_used(alice, BYTES_SLOT, PAGE);
        grant_deinit(&new);
        grant_deinit(&later);
        scene_end(&scene);
}

TEST(rename, two_names_change_places_and_what_is_open_stays_what_it_is) {
        Scene scene = scene_begin(NULL);
        Client *c = scene.alice;
        Grant a = GRANT_NULL, b = GRANT_NULL;

        client_expect_done(c, call_mkdir(c, "/d", 0700));
        client_expect_done(c, call_create(c, "/a", PAGE, &a));
        client_expect_done(c, call_create(c, "/d/b", PAGE, &b));
        client_expect_done(c, call_rename(c, "/a", "/d/b", EXCHANGE));
        REQUIRE(region_at(c, "/a") == b.region && region_at(c, "/d/b") == a.region);
        client_expect_done(c, call_rename(c, "/a", "/d", EXCHANGE));
        REQUIRE(region_at(c, "/d") == b.region && region_at(c, "/a/b") == a.region);
        grant_deinit(&a);
        grant_deinit(&b);
        scene_end(&scene);
}

TEST(rename, a_region_stays_while_one_of_its_names_does) {
        Scene scene = scene_begin(NULL);
        Client *c = scene.alice;
        Grant grant = GRANT_NULL, again = GRANT_NULL;
        char byte;

        client_expect_done(c, call_create(c, "/a", PAGE, &grant));
        client_expect_done(c, call_link(c, "/a", "/b"));
        REQUIRE(pwrite(grant.fd, "x", 1, 0) == 1);
        grant_deinit(&grant);
        client_expect_done(c, call_unlink(c, "/a"));
        REQUIRE(client_used(c, BYTES_SLOT) == PAGE);
        client_expect_done(c, call_open(c, "/b", READ_WRITE, &again));
        REQUIRE(pread(again.fd, &byte, 1, 0) == 1 && byte == 'x');
        client_expect_done(c, call_unlink(c, "/b"));
        REQUIRE(client_used(c, BYTES_SLOT) == PAGE);
        grant_deinit(&again);
        client_expect_used(c, BYTES_SLOT, 0);
        scene_end(&scene);
}

TEST(rename, a_session_takes_every_name_of_its_regions_along) {
        Scene scene = scene_begin(NULL);
        Client *session = client_connect_as(scene.broker, ALICE, ALICE);
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/s"), .size = 1, .mode = 0600,
                                                 .lifetime = SHMD__LIFETIME__LIFETIME_SESSION);

        client_expect_done(session, call_create_with(session, create, NULL));
        client_expect_done(session, call_mkdir(session, "/d", 0700));
        client_expect_done(session, call_link(session, "/s", "/t"));
        client_expect_done(session, call_link(session, "/s", "/d/u"));
        client_expect_done(session, call_rename(session, "/d", "/e", 0));
        session = client_free(session);
        client_expect_used(scene.alice, REGIONS_SLOT, 1);       /* the directory */
        client_expect_error(scene.alice, NOT_FOUND, MISSING, call_stat(scene.alice, "/t"));
        client_expect_error(scene.alice, NOT_FOUND, MISSING, call_stat(scene.alice, "/e/u"));
        scene_end(&scene);
}

/* What was to come before the answer to a ping has come before it: nothing. */
static void expect_silence(Client *client) {
        (void)client_send(client, MESSAGE_PING, REQUEST(Ping, ping));
        REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_REPLY);
        REQUIRE(client->header.kind == (MESSAGE_PING | MESSAGE_REPLY), "%s", client_describe(client));
}

static void begin_wait(Client *client, const char *path) {
        (void)client_send(client, MESSAGE_WAIT, REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = UINT64_MAX));
        expect_silence(client);
}

static void expect_waited(Client *client, const char *path, uint64_t region) {
        const Shmd__Node *node;

        REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_REPLY, "%s: %s", path, client_describe(client));
        REQUIRE(client->header.kind == (MESSAGE_WAIT | MESSAGE_REPLY));
        node = ((Shmd__WaitReply *)client->reply)->node;
        REQUIRE(node->path.len == strlen(path) && memcmp(node->path.data, path, node->path.len) == 0);
        REQUIRE(node->region == region);
}

TEST(rename, who_waits_for_a_name_hears_of_it_however_it_came) {
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        uint64_t region;

        client_expect_done(alice, call_mkdir(alice, "/d", 0755));
        client_expect_done(alice, call_mkdir(alice, "/d/e", 0755));
        client_expect_done(alice, call_mkdir(alice, "/t", 0755));
        client_expect_done(alice, call_create(alice, "/d/e/r", 1, NULL));
        client_expect_done(alice, call_create(alice, "/x", 1, NULL));
        region = region_at(alice, "/d/e/r");

        begin_wait(bob, "/linked");
        client_expect_done(alice, call_link(alice, "/d/e/r", "/linked"));
        expect_waited(bob, "/linked", region);
        begin_wait(bob, "/renamed");
        client_expect_done(alice, call_rename(alice, "/linked", "/renamed", 0));
        expect_waited(bob, "/renamed", region);
        begin_wait(bob, "/t/moved/e/r");
        client_expect_done(alice, call_rename(alice, "/d", "/t/moved", 0));
        expect_waited(bob, "/t/moved/e/r", region);
        begin_wait(bob, "/t/moved/r");
        client_expect_done(alice, call_rename(alice, "/t/moved/e", "/x", EXCHANGE));
        client_expect_done(alice, call_rename(alice, "/x", "/t/moved", EXCHANGE));
        expect_waited(bob, "/t/moved/r", region);

        /* Both halves of an exchange can be what somebody waits for: /x has an e now, which is a region. */
        region = region_at(alice, "/x/e");
        begin_wait(bob, "/t/e");
        client_expect_done(alice, call_rename(alice, "/t", "/x", EXCHANGE));
        expect_waited(bob, "/t/e", region);
        begin_wait(bob, "/x/e");
        client_expect_done(alice, call_rename(alice, "/t", "/x", EXCHANGE));
        expect_waited(bob, "/x/e", region);

        /* A name that did not come into being is not heard of. */
        begin_wait(bob, "/t/none");
        client_expect_done(alice, call_rename(alice, "/x", "/t", EXCHANGE));
        client_expect_done(alice, call_rename(alice, "/t", "/t", EXCHANGE));
        expect_silence(bob);
        client_expect_done(alice, call_link(alice, "/t/e", "/t/none"));
        expect_waited(bob, "/t/none", region);
        scene_end(&scene);
}

/* -- what it costs ------------------------------------------------------------------------ */

static const char boxes[] =
        "[directory /box]\nowner = 0\nmode = 1777\nbytes = 12288\nregions = 3\n"
        "[directory /other]\nowner = 0\nmode = 1777\nbytes = 8192\nregions = 2\n";

TEST(rename, a_directory_limit_counts_what_is_moved_and_refuses_the_whole_of_it) {
        Scene scene = scene_begin(boxes);
        Client *c = scene.alice;

        client_expect_done(c, call_mkdir(c, "/d", 0700));
        client_expect_done(c, call_create(c, "/d/a", 2 * PAGE, NULL));
        client_expect_done(c, call_create(c, "/d/b", PAGE + 1, NULL));
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_rename(c, "/d", "/box/d", 0));
        REQUIRE(c->refusal->slot == BYTES_SLOT && c->refusal->asked == 4 * PAGE && c->refusal->limit == 3 * PAGE);
        REQUIRE(client_directory_used(c, "/box", BYTES_SLOT) == 0);
        REQUIRE(client_directory_used(c, "/d", BYTES_SLOT) == 4 * PAGE);
        client_expect_done(c, call_unlink(c, "/d/b"));
        client_expect_done(c, call_create(c, "/d/b", PAGE, NULL));
        client_expect_done(c, call_rename(c, "/d", "/box/d", 0));
        REQUIRE(client_directory_used(c, "/box", BYTES_SLOT) == 3 * PAGE);
        REQUIRE(client_directory_used(c, "/box", REGIONS_SLOT) == 3);
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_create(c, "/box/c", 0, NULL));
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_link(c, "/box/d/b", "/box/c"));

        /* Full as both are, equals change places, and what replaces has the room of what goes. */
        client_expect_done(c, call_create(c, "/other/x", 2 * PAGE, NULL));
        client_expect_done(c, call_rename(c, "/other/x", "/box/d/a", EXCHANGE));
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_rename(c, "/other/x", "/box/d/b", EXCHANGE));
        client_expect_done(c, call_rename(c, "/other/x", "/box/d/a", REPLACE));
        REQUIRE(client_directory_used(c, "/box", BYTES_SLOT) == 3 * PAGE);
        REQUIRE(client_directory_used(c, "/other", BYTES_SLOT) == 0);
        client_expect_used(c, BYTES_SLOT, 3 * PAGE);
        scene_end(&scene);
}

TEST(rename, names_beyond_the_first_count_against_the_owners_regions) {
        Scene scene = scene_begin("[account]\nregions = 3");
        Client *c = scene.alice;

        client_expect_done(c, call_create(c, "/a", PAGE, NULL));
        client_expect_done(c, call_link(c, "/a", "/b"));
        client_expect_done(scene.root, call_link(scene.root, "/a", "/c"));
        client_expect_error(c, QUOTA, LIMIT, call_link(c, "/a", "/d"));
        REQUIRE(c->refusal->slot == REGIONS_SLOT && c->refusal->uid == ALICE);
        client_expect_error(scene.root, QUOTA, LIMIT, call_link(scene.root, "/a", "/d"));
        REQUIRE(scene.root->refusal->uid == ALICE);
        REQUIRE(client_used(c, REGIONS_SLOT) == 3 && client_used(c, BYTES_SLOT) == PAGE);
        client_expect_done(c, call_unlink(c, "/a"));
        client_expect_done(c, call_link(c, "/b", "/d"));

        client_expect_done(scene.bob, call_create(scene.bob, "/bob", PAGE, NULL));
        client_expect_error(scene.root, QUOTA, LIMIT, call_chown(scene.root, "/b", BOB, BOB));
        REQUIRE(client_used(c, REGIONS_SLOT) == 3);
        client_expect_done(scene.bob, call_unlink(scene.bob, "/bob"));
        client_expect_used(scene.bob, REGIONS_SLOT, 0);
        client_expect_done(scene.root, call_chown(scene.root, "/b", BOB, BOB));
        REQUIRE(client_used(c, REGIONS_SLOT) == 0 && client_used(scene.bob, REGIONS_SLOT) == 3);
        scene_end(&scene);
}

/* -- the model ---------------------------------------------------------------------------- */

#define ENTRIES 400
#define ENTRIES_WANTED 150
#define DEPTH 16
#define OPERATIONS 20000
#define KINDS 14
#define PATH_MAX_HERE (2 * (2 * DEPTH + 8))

typedef struct Person {
        uid_t uid;
        gid_t gid;
        Client *client;
} Person;

typedef struct ModelRegion {
        uint64_t id;
        uid_t uid;
        gid_t gid;
        unsigned int mode;
        unsigned int names;
} ModelRegion;

/* A name. Entry 0 is the root; components are one letter. */
typedef struct ModelEntry {
        bool used;
        int parent;
        char letter;
        int region;             /* -1: a directory, with what follows */
        uid_t uid;
        gid_t gid;
        unsigned int mode;
} ModelEntry;

typedef struct Model {
        ModelEntry entries[ENTRIES];
        ModelRegion regions[ENTRIES];
        size_t n;
        uint64_t random;
        uint64_t seed;
        size_t step;
        unsigned int kind;
        size_t done[KINDS];       /* by what was asked: the test is worth what it got done */
        size_t reasons[64];     /* and what was refused */
} Model;

typedef struct Answer {
        uint32_t error;
        uint32_t reason;
} Answer;

/* Where a path leads. entry -1: to a free name. */
typedef struct Place {
        Answer answer;
        int parent;
        int entry;
        char letter;
} Place;

#define YES ((Answer){ 0, 0 })
#define NO(error_name, reason_name) \
        ((Answer){ SHMD__ERROR__ERROR_##error_name, SHMD__REASON__REASON_##reason_name })

static unsigned int model_random(Model *model, unsigned int n) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return (unsigned int)(model->random >> 33) % n;
}

static bool is_directory(const Model *model, int entry) {
        return model->entries[entry].region < 0;
}

static uid_t owner_of(const Model *model, int entry) {
        const ModelEntry *e = &model->entries[entry];

        return e->region < 0 ? e->uid : model->regions[e->region].uid;
}

static unsigned int bits_for(const Person *who, uid_t uid, gid_t gid, unsigned int mode) {
        return (who->uid == uid ? mode >> 6 : who->gid == gid ? mode >> 3 : mode) & 7;
}

static unsigned int bits_of(const Model *model, const Person *who, int entry) {
        const ModelEntry *e = &model->entries[entry];
        const ModelRegion *r = e->region < 0 ? NULL : &model->regions[e->region];

        return r ? bits_for(who, r->uid, r->gid, r->mode) : bits_for(who, e->uid, e->gid, e->mode);
}

static int child_of(const Model *model, int parent, char letter) {
        for (int i = 1; i < ENTRIES; ++i)
                if (model->entries[i].used && model->entries[i].parent == parent && model->entries[i].letter == letter)
                        return i;
        return -1;
}

static size_t count_children(const Model *model, int parent) {
        size_t n = 0;

        for (int i = 1; i < ENTRIES; ++i)
                n += model->entries[i].used && model->entries[i].parent == parent;
        return n;
}

static bool is_below(const Model *model, int entry, int above) {
        for (; entry >= 0; entry = model->entries[entry].parent)
                if (entry == above)
                        return true;
        return false;
}

static size_t depth_of(const Model *model, int entry) {
        size_t n = 0;

        for (; entry > 0; entry = model->entries[entry].parent)
                ++n;
        return n;
}

/* Levels of the deepest name below. */
static size_t height_of(const Model *model, int entry) {
        size_t most = 0;

        for (int i = 1; i < ENTRIES; ++i)
                if (model->entries[i].used && is_below(model, i, entry)) {
                        size_t n = depth_of(model, i) - depth_of(model, entry);

                        most = n > most ? n : most;
                }
        return most;
}

static void write_path(const Model *model, int entry, char *path) {
        size_t depth = depth_of(model, entry);

        (void)strcpy(path, "/");
        if (depth == 0)
                return;
        path[2 * depth] = '\0';
        for (; entry > 0; entry = model->entries[entry].parent, --depth) {
                path[2 * depth - 2] = '/';
                path[2 * depth - 1] = model->entries[entry].letter;
        }
}

static Place resolve(const Model *model, const Person *who, const char *path) {
        Place place = { .answer = YES, .parent = -1 };

        if (strlen(path) > 2 * DEPTH) {
                place.answer = NO(INVALID, NAME);
                return place;
        }
        for (const char *at = path[1] ? path + 1 : ""; *at; at += at[1] ? 2 : 1) {
                if (place.entry < 0)
                        place.answer = NO(NOT_FOUND, MISSING);
                else if (!is_directory(model, place.entry))
                        place.answer = NO(NOT_DIRECTORY, MISSING);
                else if (!(bits_of(model, who, place.entry) & 1))
                        place.answer = NO(DENIED, SEARCH);
                if (place.answer.error)
                        return place;
                place.parent = place.entry;
                place.letter = *at;
                place.entry = child_of(model, place.parent, *at);
        }
        return place;
}

static Place find(const Model *model, const Person *who, const char *path) {
        Place place = resolve(model, who, path);

        if (!place.answer.error && place.entry < 0)
                place.answer = NO(NOT_FOUND, MISSING);
        return place;
}

static Answer may_change(const Model *model, const Person *who, const Place *place) {
        if (place->parent < 0)
                return NO(BUSY, ROOT);
        if ((bits_of(model, who, place->parent) & 3) != 3)
                return NO(DENIED, DIRECTORY_WRITE);
        if (place->entry >= 0 && model->entries[place->parent].mode & 01000 &&
            owner_of(model, place->parent) != who->uid && owner_of(model, place->entry) != who->uid)
                return NO(DENIED, STICKY);
        return YES;
}

static int model_add(Model *model, const Place *place, int region, const Person *who, unsigned int mode) {
        int i = 1;

        while (model->entries[i].used)
                REQUIRE(++i < ENTRIES);
        model->entries[i] = (ModelEntry){
                .used = true, .parent = place->parent, .letter = place->letter, .region = region,
                .uid = who->uid, .gid = who->gid, .mode = mode,
        };
        ++model->n;
        return i;
}

static void model_remove(Model *model, int entry) {
        ModelEntry *e = &model->entries[entry];

        if (e->region >= 0)
                --model->regions[e->region].names;
        e->used = false;
        --model->n;
}

/* -- the model's answers -- */

static Answer model_mkdir(Model *model, const Person *who, const char *path, unsigned int mode) {
        Place place = resolve(model, who, path);
        Answer answer = place.answer;

        if (!answer.error && place.entry >= 0)
                answer = NO(EXISTS, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (!answer.error)
                (void)model_add(model, &place, -1, who, mode);
        return answer;
}

/* *ret is the region whose number the broker chooses. */
static Answer model_create(Model *model, const Person *who, const char *path, unsigned int mode, ModelRegion **ret) {
        Place place = resolve(model, who, path);
        Answer answer = place.answer;
        int region = 0;

        if (!answer.error && place.entry >= 0)
                answer = NO(EXISTS, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (answer.error)
                return answer;
        while (model->regions[region].names)
                ++region;
        model->regions[region] = (ModelRegion){ .uid = who->uid, .gid = who->gid, .mode = mode, .names = 1 };
        (void)model_add(model, &place, region, who, 0);
        *ret = &model->regions[region];
        return answer;
}

static Answer model_remove_name(Model *model, const Person *who, const char *path, bool directory) {
        Place place = find(model, who, path);
        Answer answer = place.answer;

        if (!answer.error && is_directory(model, place.entry) != directory)
                answer = directory ? NO(NOT_DIRECTORY, TAKEN) : NO(IS_DIRECTORY, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (!answer.error && directory && count_children(model, place.entry))
                answer = NO(NOT_EMPTY, TAKEN);
        if (!answer.error)
                model_remove(model, place.entry);
        return answer;
}

static Answer model_chmod(Model *model, const Person *who, const char *path, unsigned int mode) {
        Place place = find(model, who, path);
        ModelEntry *e = &model->entries[place.entry < 0 ? 0 : place.entry];

        if (place.answer.error)
                return place.answer;
        if (owner_of(model, place.entry) != who->uid)
                return NO(DENIED, OWNER);
        if (e->region >= 0 && mode > 0777)
                return NO(INVALID, MODE);
        if (e->region >= 0)
                model->regions[e->region].mode = mode;
        else
                e->mode = mode;
        return YES;
}

static Answer model_link(Model *model, const Person *who, const char *path, const char *to) {
        Place from = find(model, who, path), place = { 0 };
        Answer answer = from.answer;

        if (!answer.error) {
                place = resolve(model, who, to);
                answer = place.answer;
        }
        if (!answer.error && is_directory(model, from.entry))
                answer = NO(IS_DIRECTORY, TAKEN);
        if (!answer.error && owner_of(model, from.entry) != who->uid)
                answer = NO(DENIED, OWNER);
        if (!answer.error && place.entry >= 0)
                answer = NO(EXISTS, TAKEN);
        if (!answer.error)
                answer = may_change(model, who, &place);
        if (!answer.error) {
                (void)model_add(model, &place, model->entries[from.entry].region, who, 0);
                ++model->regions[model->entries[from.entry].region].names;
        }
        return answer;
}

static Answer check_replace(const Model *model, int from, int to) {
        if (!is_directory(model, to))
                return is_directory(model, from) ? NO(NOT_DIRECTORY, TAKEN) : YES;
        if (!is_directory(model, from))
                return NO(IS_DIRECTORY, TAKEN);
        return count_children(model, to) ? NO(NOT_EMPTY, TAKEN) : YES;
}

static bool too_deep(const Model *model, int entry, int parent) {
        return depth_of(model, parent) + 1 + height_of(model, entry) > DEPTH;
}

static Answer check_move(const Model *model, const Place *from, const Place *to, uint32_t flags) {
        Answer answer = YES;

        if (!flags && to->entry >= 0)
                return NO(EXISTS, TAKEN);
        if (flags == EXCHANGE && to->entry < 0)
                return NO(NOT_FOUND, MISSING);
        if (is_below(model, to->parent, from->entry) ||
            (flags == EXCHANGE && is_below(model, from->parent, to->entry)))
                return NO(INVALID, INSIDE);
        if (flags == REPLACE && to->entry >= 0)
                answer = check_replace(model, from->entry, to->entry);
        if (!answer.error && (too_deep(model, from->entry, to->parent) ||
                              (flags == EXCHANGE && too_deep(model, to->entry, from->parent))))
                answer = NO(INVALID, NAME);
        return answer;
}

static void model_put(Model *model, int entry, const Place *place) {
        model->entries[entry].parent = place->parent;
        model->entries[entry].letter = place->letter;
}

static Answer model_rename(Model *model, const Person *who, const char *path, const char *to, uint32_t flags) {
        Place a = find(model, who, path), b = { 0 };
        Answer answer = a.answer;

        if (!answer.error) {
                b = resolve(model, who, to);
                answer = b.answer;
        }
        if (!answer.error)
                answer = may_change(model, who, &a);
        if (!answer.error)
                answer = may_change(model, who, &b);
        if (answer.error || a.entry == b.entry)
                return answer;
        if (flags && b.entry >= 0 && !is_directory(model, a.entry) &&
            model->entries[a.entry].region == model->entries[b.entry].region)
                return YES;
        answer = check_move(model, &a, &b, flags);
        if (answer.error)
                return answer;
        if (flags == EXCHANGE)
                model_put(model, b.entry, &a);
        else if (b.entry >= 0)
                model_remove(model, b.entry);
        model_put(model, a.entry, &b);
        return YES;
}

static Answer model_open(const Model *model, const Person *who, const char *path, uint32_t rights) {
        Place place = find(model, who, path);

        if (place.answer.error)
                return place.answer;
        if (is_directory(model, place.entry))
                return NO(IS_DIRECTORY, TAKEN);
        if (!(bits_of(model, who, place.entry) & 4))
                return NO(DENIED, REGION_READ);
        if (rights == READ_WRITE && !(bits_of(model, who, place.entry) & 2))
                return NO(DENIED, REGION_WRITE);
        return YES;
}

/* -- both -- */

typedef enum Wish {
        WISH_DIRECTORY,
        WISH_REGION,
        WISH_FREE,
        _WISH_N,
} Wish;

/* A path to what is wished, or a component or two too long. */
static void make_path(Model *model, Wish wish, char path[PATH_MAX_HERE]) {
        unsigned int beyond = model_random(model, 100);
        unsigned int tries = 0;
        int entry;

        /* There may be no region. */
        do {
                entry = (int)model_random(model, ENTRIES);
        } while (!model->entries[entry].used ||
                 (is_directory(model, entry) == (wish == WISH_REGION) && ++tries < ENTRIES));
        write_path(model, entry, path);
        for (beyond = (beyond < 94 ? 0 : beyond < 98 ? 1 : 2) + (wish == WISH_FREE); beyond > 0; --beyond) {
                size_t n = path[1] ? strlen(path) : 0;

                (void)snprintf(path + n, PATH_MAX_HERE - n, "/%c", 'a' + (char)model_random(model, 6));
        }
}

/* One that this person may look at, mostly: or little else would be refused than that. */
static void choose_path(Model *model, const Person *who, Wish wish, char path[PATH_MAX_HERE]) {
        bool any = model_random(model, 20) == 0;

        if (model_random(model, 10) == 0)
                wish = (Wish)model_random(model, _WISH_N);
        for (unsigned int i = 0; i < 20; ++i) {
                make_path(model, wish, path);
                if (any || resolve(model, who, path).answer.reason != SHMD__REASON__REASON_SEARCH)
                        return;
        }
}

static unsigned int choose_mode(Model *model) {
        static const unsigned int modes[] = {
                0777, 0777, 0777, 0777, 0777, 0777, 01777, 01777, 0775, 0755, 0733, 0711, 0770, 0666, 0444,
        };

        return modes[model_random(model, sizeof(modes) / sizeof(modes[0]))];
}

/* Refusals a run must have met; that of a name is one that would get too deep, for the paths are good. */
static const uint32_t met[] = {
        SHMD__REASON__REASON_NAME, SHMD__REASON__REASON_MISSING, SHMD__REASON__REASON_TAKEN,
        SHMD__REASON__REASON_SEARCH, SHMD__REASON__REASON_DIRECTORY_WRITE, SHMD__REASON__REASON_STICKY,
        SHMD__REASON__REASON_REGION_READ, SHMD__REASON__REASON_REGION_WRITE, SHMD__REASON__REASON_OWNER,
        SHMD__REASON__REASON_ROOT, SHMD__REASON__REASON_INSIDE,
};

static void require_variety(const Model *model) {
        for (size_t i = 0; i < sizeof(model->done) / sizeof(model->done[0]); ++i)
                REQUIRE(model->done[i] > 0, "seed %" PRIu64 ": nothing of kind %zu was done", model->seed, i);
        for (size_t i = 0; i < sizeof(met) / sizeof(met[0]); ++i)
                REQUIRE(model->reasons[met[i]] > 0, "seed %" PRIu64 ": reason %u was never met", model->seed, met[i]);
}

static void compare(Model *model, const Person *who, const char *what, const char *path, const char *to,
                    uint32_t error, Answer expected) {
        uint32_t reason = error ? who->client->refusal->reason : 0;

        REQUIRE(error == expected.error && reason == expected.reason,
                "seed %" PRIu64 ", operation %zu: %s %s %s by %u: the model says %u/%u, the broker %s", model->seed,
                model->step, what, path, to, who->uid, expected.error, expected.reason, client_describe(who->client));
        ++model->reasons[reason];
        model->done[model->kind] += !error;
}

static void do_create(Model *model, const Person *who, const char *path, unsigned int mode) {
        ModelRegion *region = NULL;
        Answer expected = model_create(model, who, path, mode, &region);

        compare(model, who, "create", path, "", call_create_mode(who->client, path, 1, mode, NULL), expected);
        if (region)
                region->id = ((Shmd__Granted *)who->client->reply)->region;
}

static void do_open(Model *model, const Person *who, const char *path, uint32_t rights) {
        Answer expected = model_open(model, who, path, rights);
        Grant grant = GRANT_NULL;

        compare(model, who, "open", path, "", call_open(who->client, path, rights, &grant), expected);
        if (!expected.error) {
                int region = model->entries[find(model, who, path).entry].region;

                REQUIRE(grant.region == model->regions[region].id, "seed %" PRIu64, model->seed);
        }
        grant_deinit(&grant);
}

static void do_two(Model *model, const Person *who, unsigned int kind, const char *path) {
        static const struct {
                const char *name;
                uint32_t flags;
        } renames[] = { { "rename", 0 }, { "replace", REPLACE }, { "exchange", EXCHANGE } };
        static const Wish wishes_to[] = { WISH_FREE, _WISH_N, _WISH_N, WISH_FREE };
        char to[PATH_MAX_HERE];
        Answer expected;

        choose_path(model, who, wishes_to[kind] < _WISH_N ? wishes_to[kind] : (Wish)model_random(model, _WISH_N), to);
        if (kind == 3) {
                expected = model_link(model, who, path, to);
                compare(model, who, "link", path, to, call_link(who->client, path, to), expected);
        } else {
                expected = model_rename(model, who, path, to, renames[kind].flags);
                compare(model, who, renames[kind].name, path, to,
                        call_rename(who->client, path, to, renames[kind].flags), expected);
        }
}

/* mkdir and create twice each: something must be there for the others. */
static const Wish wishes[KINDS] = {
        WISH_FREE, WISH_FREE, WISH_FREE, WISH_FREE, WISH_DIRECTORY, WISH_REGION, WISH_DIRECTORY, WISH_REGION,
        WISH_REGION, WISH_REGION, WISH_DIRECTORY, WISH_REGION, WISH_DIRECTORY, WISH_REGION,
};

static void do_one(Model *model, const Person *people) {
        const Person *who = &people[model_random(model, 3)];
        unsigned int what = model_random(model, KINDS), mode = choose_mode(model);
        char path[PATH_MAX_HERE];

        if (model->n > ENTRIES_WANTED && (what < 4 || what == 13))
                what = 4 + what % 2;
        model->kind = what;
        choose_path(model, who, wishes[what], path);
        switch (what) {
        case 0:
        case 1:
                compare(model, who, "mkdir", path, "", call_mkdir(who->client, path, mode),
                        model_mkdir(model, who, path, mode));
                return;
        case 2:
        case 3:
                do_create(model, who, path, mode & 0777);
                return;
        case 4:
        case 5:
                compare(model, who, what == 4 ? "rmdir" : "unlink", path, "",
                        what == 4 ? call_rmdir(who->client, path) : call_unlink(who->client, path),
                        model_remove_name(model, who, path, what == 4));
                return;
        case 6:
                compare(model, who, "chmod", path, "", call_chmod(who->client, path, mode),
                        model_chmod(model, who, path, mode));
                return;
        case 7:
                do_open(model, who, path, model_random(model, 2) ? READ_ONLY : READ_WRITE);
                return;
        case 13:
                do_two(model, who, 3, path);
                return;
        default:
                do_two(model, who, (what - 8) % 3, path);
        }
}

static void compare_node(const Model *model, const Shmd__Node *node) {
        char path[PATH_MAX_HERE];
        int entry = 0;

        REQUIRE(node->path.len < sizeof(path));
        memcpy(path, node->path.data, node->path.len);
        path[node->path.len] = '\0';
        for (const char *at = path + 1; entry >= 0 && *at; at += at[1] ? 2 : 1)
                entry = child_of(model, entry, *at);
        REQUIRE(entry > 0, "seed %" PRIu64 ": there should be no %s", model->seed, path);
        REQUIRE(is_directory(model, entry) == (node->kind == 0) && owner_of(model, entry) == node->uid);
        if (is_directory(model, entry)) {
                REQUIRE(node->mode == model->entries[entry].mode && node->gid == model->entries[entry].gid);
                REQUIRE(node->entries == count_children(model, entry) && node->names == 0);
        } else {
                const ModelRegion *region = &model->regions[model->entries[entry].region];

                REQUIRE(node->region == region->id && node->mode == region->mode && node->gid == region->gid);
                REQUIRE(node->names == region->names, "%s has %u names and not %u", path, node->names, region->names);
        }
}

static void compare_tree(const Model *model, Client *admin) {
        char cursor[PATH_MAX_HERE] = "";
        size_t n = 0;

        do {
                Shmd__ListReply *list;

                client_expect_done(admin, client_call(admin, MESSAGE_LIST,
                                                      REQUEST(List, list, .path = BYTES("/"), .cursor = BYTES(cursor),
                                                              .flags = SHMD__LIST_FLAGS__LIST_RECURSIVE)));
                list = (Shmd__ListReply *)admin->reply;
                for (size_t i = 0; i < list->n_nodes; ++i, ++n)
                        compare_node(model, list->nodes[i]);
                REQUIRE(list->cursor.len < sizeof(cursor));
                if (list->cursor.len)
                        memcpy(cursor, list->cursor.data, list->cursor.len);
                cursor[list->cursor.len] = '\0';
        } while (cursor[0]);
        REQUIRE(n == model->n, "seed %" PRIu64 ": %zu names, %zu in the model", model->seed, n, model->n);
}

/* What every directory and every user should be charged. */
static void compare_books(const Model *model, const Person *people, Client *admin) {
        char path[PATH_MAX_HERE];

        for (int d = 0; d < ENTRIES; ++d) {
                uint64_t names = 0, regions = 0;

                if (!model->entries[d].used || !is_directory(model, d))
                        continue;
                for (int i = 1; i < ENTRIES; ++i)
                        if (model->entries[i].used && i != d && is_below(model, i, d)) {
                                ++names;
                                regions += !is_directory(model, i);
                        }
                write_path(model, d, path);
                REQUIRE(client_directory_used(admin, path, REGIONS_SLOT) == names, "seed %" PRIu64, model->seed);
                REQUIRE(client_directory_used(admin, path, BYTES_SLOT) == regions * PAGE, "seed %" PRIu64, model->seed);
        }
        for (int p = 0; p < 3; ++p) {
                uint64_t names = 0, bytes = 0;

                for (int i = 1; i < ENTRIES; ++i)
                        names += model->entries[i].used && owner_of(model, i) == people[p].uid;
                for (int i = 0; i < ENTRIES; ++i)
                        bytes += model->regions[i].names && model->regions[i].uid == people[p].uid ? PAGE : 0;
                client_expect_used(people[p].client, REGIONS_SLOT, names);
                client_expect_used(people[p].client, BYTES_SLOT, bytes);
        }
}

static void model_begin(Model *model, Client *admin) {
        const Shmd__Node *root;

        memset(model, 0, sizeof(*model));
        model->seed = test_seed();
        model->random = model->seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        client_expect_done(admin, call_stat(admin, "/"));
        root = ((Shmd__StatReply *)admin->reply)->node;
        model->entries[0] = (ModelEntry){
                .used = true, .parent = -1, .region = -1, .uid = root->uid, .gid = root->gid, .mode = root->mode,
        };
}

TEST(rename, the_broker_answers_as_a_simple_model_of_it_does) {
        static const uid_t uids[] = { ALICE, BOB, CAROL };
        static const gid_t gids[] = { ALICE, ALICE, CAROL };    /* two have a group in common */
        static Model model;
        Broker *broker;
        Client *admin;
        Person people[3];

        test_needs_root();
        broker = broker_spawn(NULL);
        admin = client_connect_as(broker, 0, 0);
        model_begin(&model, admin);
        for (int i = 0; i < 3; ++i)
                people[i] = (Person){ uids[i], gids[i], client_connect_as(broker, uids[i], gids[i]) };
        for (model.step = 1; model.step <= OPERATIONS; ++model.step) {
                do_one(&model, people);
                if (model.step % 1000 == 0) {
                        compare_tree(&model, admin);
                        compare_books(&model, people, admin);
                }
        }
        require_variety(&model);
        for (int i = 0; i < 3; ++i)
                people[i].client = client_free(people[i].client);
        admin = client_free(admin);
        broker = broker_stop(broker);
}
