/* Waiting for what becomes of regions. */

#include "lib/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NEVER UINT64_MAX
#define WAIT_UNHELD SHMD__WAIT_FOR__WAIT_UNHELD
#define WAIT_FROZEN SHMD__WAIT_FOR__WAIT_FROZEN
#define WATCHES_SLOT SHMD__SLOT__SLOT_WATCHES

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

/* -- waiting for a region ----------------------------------------------------------------- */

static const ProtobufCMessage *wait_message(const char *path, uint64_t region, uint32_t until, uint64_t timeout_ns) {
        static Shmd__Wait wait;

        wait = (Shmd__Wait)SHMD__WAIT__INIT;
        wait.path = BYTES(path);
        wait.region = region;
        wait.until = until;
        wait.timeout_ns = timeout_ns;
        return &wait.base;
}

static uint32_t call_wait_for(Client *client, const char *path, uint64_t region, uint32_t until, uint64_t timeout_ns) {
        return client_call(client, MESSAGE_WAIT, wait_message(path, region, until, timeout_ns));
}

static const Shmd__Node *waited(Client *client) {
        return ((Shmd__WaitReply *)client->reply)->node;
}

/* Sends a wait and sees to it that it is not answered yet. */
static void begin_wait(Client *client, const char *path, uint64_t region, uint32_t until) {
        (void)client_send(client, MESSAGE_WAIT, wait_message(path, region, until, NEVER));
        (void)client_send(client, MESSAGE_PING, REQUEST(Ping, ping));
        REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_REPLY);
        REQUIRE(client->header.kind == (MESSAGE_PING | MESSAGE_REPLY), "%s", client_describe(client));
}

static void expect_waited(Client *client, const char *path, uint64_t region) {
        REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_REPLY, "%s", client_describe(client));
        REQUIRE(client->header.kind == (MESSAGE_WAIT | MESSAGE_REPLY));
        REQUIRE(waited(client)->region == region && waited(client)->path.len == strlen(path) &&
                memcmp(waited(client)->path.data, path, strlen(path)) == 0);
}

TEST(watch, that_nobody_holds_it_is_heard_when_the_last_descriptor_goes) {
        Scene scene = scene_begin(NULL);
        Grant grant = GRANT_NULL, second = GRANT_NULL;
        Client *bob = scene.bob;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", PAGE, 0644, &grant));
        client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &second));
        client_expect_error(bob, TIMEOUT, DEADLINE, call_wait_for(bob, "/r", 0, WAIT_UNHELD, 0));
        client_expect_error(bob, TIMEOUT, DEADLINE, call_wait_for(bob, "/r", 0, WAIT_UNHELD, 1000000));
        begin_wait(bob, "/r", 0, WAIT_UNHELD);
        begin_wait(scene.alice, "", grant.region, WAIT_UNHELD);
        REQUIRE(client_used(bob, WATCHES_SLOT) == 1);
        grant_deinit(&grant);
        REQUIRE(client_receive(bob, 50) == CLIENT_SILENT, "one of two is left");
        grant_deinit(&second);
        expect_waited(bob, "/r", grant.region);
        expect_waited(scene.alice, "/r", grant.region);
        client_expect_used(bob, WATCHES_SLOT, 0);
        client_expect_done(bob, call_wait_for(bob, "/r", 0, WAIT_UNHELD, 0));
        client_expect_done(scene.alice, call_wait_for(scene.alice, "", grant.region, WAIT_UNHELD, 0));
        scene_end(&scene);
}

TEST(watch, the_region_counts_and_not_what_becomes_of_its_name) {
        Scene scene = scene_begin(NULL);
        Grant grant = GRANT_NULL, other = GRANT_NULL;
        Client *alice = scene.alice, *bob = scene.bob;

        client_expect_done(alice, call_mkdir(alice, "/private", 0700));
        client_expect_done(alice, call_create_mode(alice, "/r", PAGE, 0644, &grant));
        begin_wait(bob, "/r", 0, WAIT_UNHELD);
        begin_wait(scene.root, "/r", 0, WAIT_FROZEN);
        client_expect_done(alice, client_call(alice, MESSAGE_RENAME,
                                              REQUEST(Rename, rename, .path = BYTES("/r"), .to = BYTES("/private/r"))));
        client_expect_done(alice, call_create_mode(alice, "/r", PAGE, 0644, &other));
        grant_deinit(&grant);
        expect_waited(bob, "", grant.region);

        /* It was never frozen; and who waits for its holders is told when it is gone. */
        client_expect_done(alice, call_open(alice, "/private/r", READ_WRITE, &grant));
        begin_wait(alice, "/private/r", 0, WAIT_UNHELD);
        client_expect_done(alice, call_unlink(alice, "/private/r"));
        grant_deinit(&grant);
        expect_waited(alice, "", grant.region);
        REQUIRE(client_receive(scene.root, TEST_PATIENCE_MS) == CLIENT_REFUSED);
        REQUIRE(scene.root->refusal->error == SHMD__ERROR__ERROR_NOT_FOUND, "%s", client_describe(scene.root));
        grant_deinit(&other);
        scene_end(&scene);
}

TEST(watch, waits_that_make_no_sense_are_told_so) {
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        Grant grant = GRANT_NULL;

        client_expect_done(alice, call_mkdir(alice, "/d", 0700));
        client_expect_done(alice, call_create(alice, "/d/r", 1, &grant));
        client_expect_error(alice, INVALID, MALFORMED, call_wait_for(alice, "/d/r", 0, 3, NEVER));
        client_expect_error(alice, INVALID, MALFORMED, call_wait_for(alice, "/d/r", grant.region, WAIT_UNHELD, NEVER));
        client_expect_error(alice, INVALID, MALFORMED, call_wait_for(alice, "", grant.region, 0, NEVER));
        client_expect_error(alice, IS_DIRECTORY, TAKEN, call_wait_for(alice, "/d", 0, WAIT_UNHELD, NEVER));
        client_expect_error(alice, NOT_FOUND, MISSING, call_wait_for(alice, "/d/none", 0, WAIT_FROZEN, NEVER));
        client_expect_error(alice, INVALID, NAME, call_wait_for(alice, "", 0, WAIT_FROZEN, NEVER));
        client_expect_error(bob, DENIED, SEARCH, call_wait_for(bob, "/d/r", 0, WAIT_UNHELD, NEVER));
        client_expect_error(bob, DENIED, SEARCH, call_wait_for(bob, "/d/none", 0, WAIT_UNHELD, NEVER));
        client_expect_error(bob, NOT_FOUND, MISSING, call_wait_for(bob, "", grant.region, WAIT_UNHELD, NEVER));
        client_expect_error(alice, TIMEOUT, DEADLINE, call_wait_for(alice, "/d/r", 0, WAIT_FROZEN, 1000000));
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(watch, who_waits_may_leave_and_the_broker_may_stop) {
        Scene scene = scene_begin(NULL);
        Client *guest = client_connect_as(scene.broker, CAROL, CAROL);
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", PAGE, 0644, &grant));
        begin_wait(guest, "/r", 0, WAIT_UNHELD);
        begin_wait(guest, "/r", 0, WAIT_FROZEN);
        guest = client_free(guest);
        begin_wait(scene.bob, "/r", 0, WAIT_UNHELD);
        begin_wait(scene.bob, "/r", 0, WAIT_FROZEN);
        grant_deinit(&grant);
        expect_waited(scene.bob, "/r", grant.region);
        scene_end(&scene);
}
