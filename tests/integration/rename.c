/* Names that move, and regions with several: who may, what others see of it, what it costs. */

#include "lib/client.h"

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
