/* Sessions: who comes back after the broker was killed finds everything as it was, and what is asked again
 * is not done again.
 *
 * For each request that changes something: it is done, the broker is killed, somebody else changes what can
 * be changed, the client comes back and sends the very same packet. It gets the first answer, and what
 * others did in between stands. In some tests the first answer is read and in others it is lost with the
 * connection: for the broker that is the same.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE (4 * PAGE)
#define KEEPER "[keeper]\nrestarts = 0\n"

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob, *root;
} Scene;

static Scene scene_begin_with(const char *config) {
        Scene scene;

        test_needs_root();
        scene.broker = broker_spawn_with(&(BrokerOptions){ .config = config, .keeper = true });
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        scene.root = client_connect_as(scene.broker, 0, 0);
        return scene;
}

static Scene scene_begin(void) {
        return scene_begin_with(KEEPER);
}

/* Ends it, when the state has been looked through for anything that cannot be. */
static void scene_end(Scene *scene) {
        char dump[128], *said = NULL;

        (void)snprintf(dump, sizeof(dump), "%s/dump", scene->broker->dir);
        REQUIRE(shmdctl_run(&said, "--socket", scene->broker->socket, "state", "--dump", dump, NULL) == 0, "%s", said);
        free(said);
        REQUIRE(shmd_run(&said, "--check-state", dump, NULL) == 0, "%s", said);
        free(said);
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->root = client_free(scene->root);
        scene->broker = broker_stop(scene->broker);
}

/* The broker dies and another one takes over; bob and root are back at once, alice is not. */
static void die(Scene *scene) {
        broker_kill_and_wait_restart(scene->broker);
        REQUIRE(client_resume(scene->bob, scene->broker, BOB, BOB));
        REQUIRE(client_resume(scene->root, scene->broker, 0, 0));
}

static void come_back(Scene *scene) {
        REQUIRE(client_resume(scene->alice, scene->broker, ALICE, ALICE));
}

static void die_and_come_back(Scene *scene) {
        die(scene);
        come_back(scene);
}

/* Sends a request under a serial that was used before. Return: the wire's error. */
static uint32_t call_again(Client *client, uint64_t serial, MessageKind kind, const ProtobufCMessage *request) {
        uint64_t latest = client->serial;
        uint32_t error;

        client->serial = serial - 1;
        error = client_call(client, kind, request);
        client->serial = latest;
        return error;
}

static Grant granted(Client *client) {
        Grant grant = GRANT_NULL;

        client_take_grant(client, (const Shmd__Granted *)client->reply, &grant);
        return grant;
}

static bool exists(Client *client, const char *path) {
        uint32_t error = call_stat(client, path);

        REQUIRE(error == 0 || error == SHMD__ERROR__ERROR_NOT_FOUND, "%s", client_describe(client));
        return error == 0;
}

static const Shmd__Node *stat_node(Client *client, const char *path) {
        client_expect_done(client, call_stat(client, path));
        return ((const Shmd__StatReply *)client->reply)->node;
}

/* Waits until a request that nobody reads the answer of was done. */
static void await_name(Client *other, const char *path) {
        client_expect_done(other, call_wait(other, path, TEST_PATIENCE_MS * UINT64_C(1000000)));
}

/* -- names and modes ----------------------------------------------------------------------- */

/* Does it, dies, lets somebody undo it, comes back and asks again: done, and it stays undone. */
#define done_twice(scene, kind, request, meanwhile)                                             \
        do {                                                                                    \
                uint64_t serial_;                                                               \
                                                                                                \
                client_expect_done((scene)->alice, client_call((scene)->alice, kind, request)); \
                serial_ = (scene)->alice->serial;                                               \
                die(scene);                                                                     \
                meanwhile;                                                                      \
                come_back(scene);                                                               \
                client_expect_done((scene)->alice, call_again((scene)->alice, serial_, kind, request)); \
        } while (0)

TEST(session, mkdir_is_done_once) {
        Scene scene = scene_begin();

        done_twice(&scene, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES("/d"), .mode = 0700), (void)0);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);
        done_twice(&scene, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES("/e"), .mode = 0700),
                   client_expect_done(scene.root, call_rmdir(scene.root, "/e")));
        REQUIRE(!exists(scene.root, "/e"));
        client_expect_done(scene.alice, call_rmdir(scene.alice, "/d"));
        scene_end(&scene);
}

TEST(session, rmdir_is_done_once) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0755));
        done_twice(&scene, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES("/d")),
                   client_expect_done(scene.root, call_mkdir(scene.root, "/d", 0755)));
        REQUIRE(exists(scene.root, "/d"));
        scene_end(&scene);
}

TEST(session, unlink_is_done_once) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        done_twice(&scene, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES("/x")),
                   client_expect_done(scene.root, call_create(scene.root, "/x", SIZE, NULL)));
        REQUIRE(exists(scene.root, "/x"));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        scene_end(&scene);
}

TEST(session, link_is_done_once) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        done_twice(&scene, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES("/x"), .to = BYTES("/y")),
                   client_expect_done(scene.root, call_unlink(scene.root, "/y")));
        REQUIRE(!exists(scene.root, "/y"));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);
        scene_end(&scene);
}

TEST(session, rename_is_done_once) {
        Scene scene = scene_begin();
        uint64_t x, y;

        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        client_expect_done(scene.alice, call_create(scene.alice, "/y", SIZE, NULL));
        x = stat_node(scene.alice, "/x")->region;
        y = stat_node(scene.alice, "/y")->region;
        done_twice(&scene, MESSAGE_RENAME,
                   REQUEST(Rename, rename, .path = BYTES("/x"), .to = BYTES("/y"),
                           .flags = SHMD__RENAME_FLAGS__RENAME_EXCHANGE), (void)0);
        REQUIRE(stat_node(scene.alice, "/x")->region == y && stat_node(scene.alice, "/y")->region == x,
                "exchanged once, not twice");
        done_twice(&scene, MESSAGE_RENAME, REQUEST(Rename, rename, .path = BYTES("/x"), .to = BYTES("/z")), (void)0);
        REQUIRE(stat_node(scene.alice, "/z")->region == y && !exists(scene.alice, "/x"));
        done_twice(&scene, MESSAGE_RENAME,
                   REQUEST(Rename, rename, .path = BYTES("/z"), .to = BYTES("/y"),
                           .flags = SHMD__RENAME_FLAGS__RENAME_REPLACE), (void)0);
        REQUIRE(stat_node(scene.alice, "/y")->region == y && !exists(scene.alice, "/z"));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, SIZE);
        scene_end(&scene);
}

TEST(session, modes_owners_and_acls_are_set_once) {
        Shmd__AclEntry entries[] = { SHMD__ACL_ENTRY__INIT, SHMD__ACL_ENTRY__INIT, SHMD__ACL_ENTRY__INIT };
        Shmd__AclEntry *acl[] = { &entries[0], &entries[1], &entries[2] };
        Scene scene = scene_begin();
        uint64_t serial;

        entries[0].tag = SHMD__ACL_TAG__ACL_USER_OBJ;
        entries[1].tag = SHMD__ACL_TAG__ACL_GROUP_OBJ;
        entries[2].tag = SHMD__ACL_TAG__ACL_OTHER;
        entries[0].perms = entries[1].perms = entries[2].perms = 6;
        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        done_twice(&scene, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES("/x"), .mode = 0640),
                   client_expect_done(scene.root, call_chmod(scene.root, "/x", 0604)));
        REQUIRE(stat_node(scene.alice, "/x")->mode == 0604);
        done_twice(&scene, MESSAGE_SET_ACL,
                   REQUEST(SetAcl, set_acl, .path = BYTES("/x"), .flags = SHMD__ACL_FLAGS__ACL_ACCESS,
                           .n_access = 3, .access = acl),
                   client_expect_done(scene.root, call_chmod(scene.root, "/x", 0600)));
        REQUIRE(stat_node(scene.alice, "/x")->mode == 0600);

        client_expect_done(scene.root, call_chown(scene.root, "/x", BOB, -1));
        serial = scene.root->serial;
        broker_kill_and_wait_restart(scene.broker);
        REQUIRE(client_resume(scene.root, scene.broker, 0, 0) && client_resume(scene.bob, scene.broker, BOB, BOB));
        client_expect_used(scene.bob, SHMD__SLOT__SLOT_BYTES, SIZE);
        client_expect_done(scene.root, call_chown(scene.root, "/x", ALICE, -1));
        client_expect_done(scene.root, call_again(scene.root, serial, MESSAGE_CHOWN,
                                                  REQUEST(Chown, chown, .path = BYTES("/x"), .uid = BOB, .set_uid = 1)));
        client_expect_used(scene.bob, SHMD__SLOT__SLOT_BYTES, 0);
        scene_end(&scene);
}

TEST(session, a_time_to_live_does_not_begin_anew) {
        const uint64_t hour = UINT64_C(3600000000000);
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        done_twice(&scene, MESSAGE_TTL, REQUEST(Ttl, ttl, .path = BYTES("/x"), .ttl_ns = hour),
                   client_expect_done(scene.root, client_call(scene.root, MESSAGE_TTL,
                                      REQUEST(Ttl, ttl, .path = BYTES("/x"), .ttl_ns = hour / 2))));
        REQUIRE(stat_node(scene.alice, "/x")->ttl_ns <= hour / 2);
        scene_end(&scene);
}

/* -- regions ------------------------------------------------------------------------------- */

TEST(session, a_create_is_done_once_and_granted_again) {
        Grant first = GRANT_NULL, second;
        Scene scene = scene_begin();
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0400,
                                                 .rights = READ_WRITE);
        char text[6] = "";

        client_expect_done(scene.alice, call_create_with(scene.alice, create, &first));
        die_and_come_back(&scene);
        REQUIRE(pwrite(first.fd, "hello", 5, 0) == 5, "what the client has is not touched");
        client_expect_done(scene.alice, call_again(scene.alice, 2, MESSAGE_CREATE, create));
        second = granted(scene.alice);
        REQUIRE(second.region == first.region && second.size == SIZE && second.rights == READ_WRITE);
        REQUIRE(second.outcome == SHMD__OUTCOME__OUTCOME_CREATED && second.grant != first.grant);
        REQUIRE(pread(second.fd, text, 5, 0) == 5 && strcmp(text, "hello") == 0);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, SIZE);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);
        client_expect_error(scene.alice, EXISTS, TAKEN, call_again(scene.alice, 2, MESSAGE_CREATE, create));
        grant_deinit(&first);
        grant_deinit(&second);
        scene_end(&scene);
}

TEST(session, a_create_whose_answer_was_lost_is_granted) {
        Scene scene = scene_begin();
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0600,
                                                 .rights = READ_WRITE);
        uint64_t serial, region;
        Grant grant;

        serial = client_send(scene.alice, MESSAGE_CREATE, create);
        await_name(scene.bob, "/x");
        die(&scene);
        region = stat_node(scene.root, "/x")->region;
        come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_CREATE, create));
        grant = granted(scene.alice);
        REQUIRE(grant.region == region && pwrite(grant.fd, "x", 1, 0) == 1);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_STAT,
                           REQUEST(Stat, stat, .path = BYTES("/x"), .flags = SHMD__STAT_FLAGS__STAT_HOLDERS)));
        REQUIRE(((const Shmd__StatReply *)scene.alice->reply)->n_holders == 1, "the one that was lost is none");
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_GRANTS, 1);
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(session, a_create_without_a_grant_is_done_once) {
        Scene scene = scene_begin();

        done_twice(&scene, MESSAGE_CREATE, REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0600),
                   (void)0);
        REQUIRE(!((const Shmd__Granted *)scene.alice->reply)->granted);
        REQUIRE(((const Shmd__Granted *)scene.alice->reply)->outcome == SHMD__OUTCOME__OUTCOME_CREATED);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);
        scene_end(&scene);
}

TEST(session, what_somebody_took_away_is_had_without_its_name) {
        Scene scene = scene_begin();
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0600,
                                                 .rights = READ_WRITE);
        uint64_t serial;
        Grant grant;

        client_expect_done(scene.alice, call_create_with(scene.alice, create, NULL));
        serial = scene.alice->serial;
        die(&scene);
        client_expect_done(scene.root, call_unlink(scene.root, "/x"));
        come_back(&scene);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_CREATE, create));
        grant = granted(scene.alice);
        REQUIRE(grant.outcome == SHMD__OUTCOME__OUTCOME_CREATED && pwrite(grant.fd, "x", 1, SIZE - 1) == 1);
        REQUIRE(!exists(scene.root, "/x"));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, SIZE);
        grant_deinit(&grant);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        scene_end(&scene);
}

TEST(session, what_somebody_took_away_and_nobody_wanted_is_told_again) {
        Scene scene = scene_begin();
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0600,
                                                 .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE);
        const Shmd__Granted *reply;
        uint64_t serial, region;

        client_expect_done(scene.alice, call_create_with(scene.alice, create, NULL));
        region = ((const Shmd__Granted *)scene.alice->reply)->region;
        serial = scene.alice->serial;
        die(&scene);
        client_expect_done(scene.root, call_unlink(scene.root, "/x"));
        come_back(&scene);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_CREATE, create));
        reply = (const Shmd__Granted *)scene.alice->reply;
        REQUIRE(reply->region == region && reply->size == SIZE && reply->freezable && !reply->granted);
        REQUIRE(reply->outcome == SHMD__OUTCOME__OUTCOME_CREATED && !exists(scene.root, "/x"));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 0);
        scene_end(&scene);
}

TEST(session, a_region_without_a_name_that_nobody_got_is_made_anew) {
        Scene scene = scene_begin();
        const ProtobufCMessage *create = REQUEST(Create, create, .size = SIZE, .mode = 0600, .rights = READ_WRITE);
        uint64_t serial;
        Grant grant;

        client_expect_done(scene.alice, call_create_with(scene.alice, create, NULL));
        serial = scene.alice->serial;
        die_and_come_back(&scene);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_CREATE, create));
        grant = granted(scene.alice);
        REQUIRE(grant.fd >= 0 && grant.outcome == SHMD__OUTCOME__OUTCOME_CREATED);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, SIZE);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);

        die_and_come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_CREATE, create));
        REQUIRE(((const Shmd__Granted *)scene.alice->reply)->region == grant.region, "it is held: the same once more");
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(session, a_counted_region_that_nobody_got_is_made_anew) {
        Scene scene = scene_begin();
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0600,
                                                 .rights = READ_WRITE, .lifetime = SHMD__LIFETIME__LIFETIME_COUNTED);
        uint64_t serial;
        Grant grant;

        serial = client_send(scene.alice, MESSAGE_CREATE, create);
        await_name(scene.bob, "/x");
        die_and_come_back(&scene);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_CREATE, create));
        grant = granted(scene.alice);
        REQUIRE(stat_node(scene.alice, "/x")->region == grant.region);
        grant_deinit(&grant);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        REQUIRE(!exists(scene.root, "/x"));
        scene_end(&scene);
}

TEST(session, publish_is_done_once) {
        Grant grant = GRANT_NULL;
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &grant));
        done_twice(&scene, MESSAGE_PUBLISH, REQUEST(Publish, publish, .region = grant.region, .path = BYTES("/x")),
                   client_expect_done(scene.root, call_unlink(scene.root, "/x")));
        REQUIRE(!exists(scene.root, "/x"));
        grant_deinit(&grant);
        scene_end(&scene);
}

/* -- batches ------------------------------------------------------------------------------- */

typedef struct Items {
        Shmd__Create creates[3];
        Shmd__Open opens[1];
        Shmd__BatchItem items[4];
        Shmd__BatchItem *pointers[4];
        Shmd__Batch batch;
} Items;

/* A name, an open, a region without a name, and a name without a grant. */
static void fill_items(Items *items) {
        for (size_t i = 0; i < 3; ++i) {
                shmd__create__init(&items->creates[i]);
                items->creates[i].size = SIZE;
                items->creates[i].mode = 0600;
        }
        items->creates[0].path = BYTES("/a");
        items->creates[0].rights = READ_WRITE;
        items->creates[1].rights = READ_WRITE;
        items->creates[2].path = BYTES("/b");
        shmd__open__init(&items->opens[0]);
        items->opens[0].path = BYTES("/bobs");
        items->opens[0].rights = READ_ONLY;
        for (size_t i = 0; i < 4; ++i) {
                shmd__batch_item__init(&items->items[i]);
                items->pointers[i] = &items->items[i];
        }
        items->items[0].create = &items->creates[0];
        items->items[1].open = &items->opens[0];
        items->items[2].create = &items->creates[1];
        items->items[3].create = &items->creates[2];
        shmd__batch__init(&items->batch);
        items->batch.n_items = 4;
        items->batch.items = items->pointers;
}

static const Shmd__BatchReply *batch_reply(const Client *client) {
        return (const Shmd__BatchReply *)client->reply;
}

TEST(session, a_batch_is_done_once_and_every_region_granted_again) {
        uint64_t serial, regions[4];
        Scene scene = scene_begin();
        Items items;
        Grant grants[4];

        fill_items(&items);
        client_expect_done(scene.bob, call_create_mode(scene.bob, "/bobs", SIZE, 0644, NULL));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_BATCH, &items.batch.base));
        serial = scene.alice->serial;
        for (size_t i = 0; i < 4; ++i)
                regions[i] = batch_reply(scene.alice)->items[i]->region;
        die(&scene);
        /* What was opened is another region by its name now. */
        client_expect_done(scene.bob, call_rename(scene.bob, "/bobs", "/old", 0));
        client_expect_done(scene.bob, call_create_mode(scene.bob, "/bobs", SIZE, 0600, NULL));
        come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_BATCH, &items.batch.base));
        REQUIRE(batch_reply(scene.alice)->n_items == 4);
        for (size_t i = 0; i < 4; ++i)
                client_take_grant(scene.alice, batch_reply(scene.alice)->items[i], &grants[i]);
        for (size_t i = 0; i < 4; ++i)
                REQUIRE(i == 2 || grants[i].region == regions[i], "item %zu", i);
        REQUIRE(grants[0].outcome == SHMD__OUTCOME__OUTCOME_CREATED &&
                grants[2].outcome == SHMD__OUTCOME__OUTCOME_CREATED);
        REQUIRE(grants[1].outcome == SHMD__OUTCOME__OUTCOME_OPENED && grants[1].rights == READ_ONLY);
        REQUIRE(grants[0].fd >= 0 && grants[1].fd >= 0 && grants[2].fd >= 0 && grants[3].fd < 0);
        REQUIRE(pwrite(grants[1].fd, "x", 1, 0) < 0 && errno == EBADF);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 3);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 3 * SIZE);

        die_and_come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_BATCH, &items.batch.base));
        REQUIRE(batch_reply(scene.alice)->items[2]->region == grants[2].region, "the one that was made anew");
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 3);
        for (size_t i = 0; i < 4; ++i)
                grant_deinit(&grants[i]);
        scene_end(&scene);
}

/* -- tickets ------------------------------------------------------------------------------- */

#define TEXT_BYTES 49

static void take_text(const Client *client, char text[TEXT_BYTES + 1]) {
        const Shmd__TicketReply *reply = (const Shmd__TicketReply *)client->reply;

        REQUIRE(reply->ticket.len == TEXT_BYTES);
        memcpy(text, reply->ticket.data, TEXT_BYTES);
        text[TEXT_BYTES] = '\0';
}

TEST(session, a_ticket_that_nobody_got_has_another_text) {
        char first[TEXT_BYTES + 1], second[TEXT_BYTES + 1];
        Scene scene = scene_begin();
        const ProtobufCMessage *ticket = REQUEST(Ticket, ticket, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 3);
        uint64_t serial;

        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_TICKET, ticket));
        serial = scene.alice->serial;
        take_text(scene.alice, first);
        die_and_come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_TICKET, ticket));
        take_text(scene.alice, second);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_PENDING, 1);
        client_expect_error(scene.bob, DENIED, TICKET,
                            client_call(scene.bob, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES(first))));
        client_expect_done(scene.bob,
                           client_call(scene.bob, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES(second))));
        scene_end(&scene);
}

TEST(session, a_ticket_that_is_over_is_told_of_and_good_for_nothing) {
        char text[TEXT_BYTES + 1];
        Scene scene = scene_begin();
        const ProtobufCMessage *ticket = REQUEST(Ticket, ticket, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 3);
        uint64_t serial, id;

        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_TICKET, ticket));
        id = ((const Shmd__TicketReply *)scene.alice->reply)->id;
        serial = scene.alice->serial;
        die(&scene);
        client_expect_done(scene.root, call_unlink(scene.root, "/x"));
        come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_TICKET, ticket));
        take_text(scene.alice, text);
        REQUIRE(((const Shmd__TicketReply *)scene.alice->reply)->id == id);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_PENDING, 0);
        client_expect_error(scene.alice, DENIED, TICKET,
                            client_call(scene.alice, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES(text))));
        scene_end(&scene);
}

TEST(session, a_ticket_is_spent_once) {
        char text[TEXT_BYTES + 1];
        Scene scene = scene_begin();
        uint64_t serial, region;
        Grant grant;

        client_expect_done(scene.bob, call_create(scene.bob, "/x", SIZE, NULL));
        region = stat_node(scene.bob, "/x")->region;
        client_expect_done(scene.bob, client_call(scene.bob, MESSAGE_TICKET,
                           REQUEST(Ticket, ticket, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 1)));
        take_text(scene.bob, text);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_REDEEM,
                                                    REQUEST(Redeem, redeem, .ticket = BYTES(text))));
        serial = scene.alice->serial;
        die_and_come_back(&scene);
        client_expect_used(scene.bob, SHMD__SLOT__SLOT_PENDING, 0);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_REDEEM,
                                                   REQUEST(Redeem, redeem, .ticket = BYTES(text))));
        grant = granted(scene.alice);
        REQUIRE(grant.region == region && grant.rights == READ_ONLY);
        REQUIRE(pwrite(grant.fd, "x", 1, 0) < 0 && errno == EBADF);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_BELL, REQUEST(Bell, bell, .region = region)));

        die_and_come_back(&scene);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_BELL, REQUEST(Bell, bell, .region = region)));
        client_expect_done(scene.bob, call_unlink(scene.bob, "/x"));
        grant_deinit(&grant);
        client_expect_done(scene.alice, call_ping(scene.alice));        /* the doorbell goes with the answer */
        client_expect_used(scene.bob, SHMD__SLOT__SLOT_BYTES, 0);
        client_expect_error(scene.alice, DENIED, TICKET, call_again(scene.alice, serial, MESSAGE_REDEEM,
                                                                    REQUEST(Redeem, redeem, .ticket = BYTES(text))));
        scene_end(&scene);
}

TEST(session, revoke_counts_once) {
        Scene scene = scene_begin();
        const ProtobufCMessage *revoke = REQUEST(Revoke, revoke, .path = BYTES("/x"));
        uint64_t serial;

        client_expect_done(scene.alice, call_create(scene.alice, "/x", SIZE, NULL));
        for (int i = 0; i < 3; ++i)
                client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_TICKET,
                                   REQUEST(Ticket, ticket, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 1)));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_REVOKE, revoke));
        REQUIRE(((const Shmd__RevokeReply *)scene.alice->reply)->revoked == 3);
        serial = scene.alice->serial;
        die_and_come_back(&scene);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_TICKET,
                           REQUEST(Ticket, ticket, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 1)));
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_REVOKE, revoke));
        REQUIRE(((const Shmd__RevokeReply *)scene.alice->reply)->revoked == 3);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_PENDING, 1);
        scene_end(&scene);
}

/* -- freezing and policies ----------------------------------------------------------------- */

TEST(session, a_freeze_is_told_again) {
        Grant grant = GRANT_NULL;
        Scene scene = scene_begin();
        const ProtobufCMessage *freeze = REQUEST(Freeze, freeze, .path = BYTES("/x"));
        uint64_t serial;
        uint32_t seals;

        client_expect_done(scene.alice, call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/x"),
                           .size = SIZE, .mode = 0600, .rights = READ_WRITE,
                           .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE), &grant));
        REQUIRE(fcntl(grant.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_FREEZE, freeze));
        seals = ((const Shmd__FreezeReply *)scene.alice->reply)->seals;
        serial = scene.alice->serial;
        die(&scene);
        client_expect_done(scene.root, call_unlink(scene.root, "/x"));
        come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_FREEZE, freeze));
        REQUIRE(((const Shmd__FreezeReply *)scene.alice->reply)->seals == seals && seals & F_SEAL_SEAL);
        grant_deinit(&grant);
        scene_end(&scene);
}

static size_t compile(Broker *broker, const char *text, uint8_t *ret, size_t n_max) {
        char path[128], *said = NULL;
        ssize_t n;
        int fd;

        broker_write_policy(broker, "test.conf", text);
        (void)snprintf(path, sizeof(path), "%s/blob", broker->dir);
        REQUIRE(shmd_run(&said, "--compile-policy", "--policy-root", broker->dir, "-o", path, NULL) == 0, "%s", said);
        free(said);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = read(fd, ret, n_max);
        REQUIRE(n > 0 && (size_t)n < n_max);
        close_fd(fd);
        return (size_t)n;
}

static uint32_t send_part(Client *root, uint64_t serial, uint8_t *blob, size_t n, size_t from, size_t to) {
        const ProtobufCMessage *part = REQUEST(Reload, reload, .total = (uint32_t)n, .offset = (uint32_t)from,
                                               .data = { .len = to - from, .data = blob + from });

        return serial ? call_again(root, serial, MESSAGE_RELOAD, part) : client_call(root, MESSAGE_RELOAD, part);
}

TEST(session, a_policy_takes_effect_once) {
        static uint8_t blob[65536];
        const Shmd__ReloadReply *reply;
        Scene scene = scene_begin();
        uint64_t serial, generation;
        size_t n = compile(scene.broker, "[directory /p]\nmode = 0777\n", blob, sizeof(blob));

        client_expect_done(scene.root, send_part(scene.root, 0, blob, n, 0, n / 2));
        client_expect_done(scene.root, send_part(scene.root, 0, blob, n, n / 2, n));
        serial = scene.root->serial;
        generation = ((const Shmd__ReloadReply *)scene.root->reply)->generation;
        broker_kill_and_wait_restart(scene.broker);
        REQUIRE(client_resume(scene.root, scene.broker, 0, 0));
        client_expect_done(scene.root, send_part(scene.root, serial - 1, blob, n, 0, n / 2));
        REQUIRE(!((const Shmd__ReloadReply *)scene.root->reply)->done);
        client_expect_used(scene.root, SHMD__SLOT__SLOT_PENDING, 1);
        client_expect_done(scene.root, send_part(scene.root, serial, blob, n, n / 2, n));
        reply = (const Shmd__ReloadReply *)scene.root->reply;
        REQUIRE(reply->done && reply->generation == generation && reply->directories == 1);
        client_expect_used(scene.root, SHMD__SLOT__SLOT_PENDING, 0);
        scene_end(&scene);
}

/* -- serials ------------------------------------------------------------------------------- */

TEST(session, a_serial_stands_for_one_request) {
        Scene scene = scene_begin();
        uint64_t serial;

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0700));
        serial = scene.alice->serial;
        die_and_come_back(&scene);
        client_expect_error(scene.alice, INVALID, SERIAL,
                            call_again(scene.alice, serial, MESSAGE_MKDIR,
                                       REQUEST(Mkdir, mkdir, .path = BYTES("/e"), .mode = 0700)));
        client_expect_error(scene.alice, INVALID, SERIAL,
                            call_again(scene.alice, serial, MESSAGE_UNLINK,
                                       REQUEST(Remove, remove, .path = BYTES("/d"))));
        REQUIRE(!exists(scene.root, "/e") && exists(scene.root, "/d"));
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_MKDIR,
                                                   REQUEST(Mkdir, mkdir, .path = BYTES("/d"), .mode = 0700)));
        client_expect_error(scene.alice, EXISTS, TAKEN,
                            call_again(scene.alice, serial, MESSAGE_MKDIR,
                                       REQUEST(Mkdir, mkdir, .path = BYTES("/d"), .mode = 0700)));
        scene_end(&scene);
}

TEST(session, what_was_refused_is_tried_again) {
        Scene scene = scene_begin();
        uint64_t serial;

        client_expect_error(scene.alice, NOT_FOUND, MISSING, call_mkdir(scene.alice, "/d/e", 0700));
        serial = scene.alice->serial;
        die(&scene);
        client_expect_done(scene.root, call_mkdir(scene.root, "/d", 0777));
        come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_MKDIR,
                                                   REQUEST(Mkdir, mkdir, .path = BYTES("/d/e"), .mode = 0700)));
        REQUIRE(exists(scene.root, "/d/e"));
        scene_end(&scene);
}

TEST(session, the_latest_64_are_remembered_and_no_more) {
        uint64_t serials[65];
        Scene scene = scene_begin();
        char path[16];

        for (int i = 0; i < 65; ++i) {
                (void)snprintf(path, sizeof(path), "/%d", i);
                serials[i] = client_send(scene.alice, MESSAGE_MKDIR,
                                         REQUEST(Mkdir, mkdir, .path = BYTES(path), .mode = 0700));
        }
        await_name(scene.bob, "/64");
        for (int round = 0; round < 2; ++round)
                die(&scene);
        come_back(&scene);
        for (int i = 64; i >= 0; --i) {
                uint32_t error;

                (void)snprintf(path, sizeof(path), "/%d", i);
                error = call_again(scene.alice, serials[i], MESSAGE_MKDIR,
                                   REQUEST(Mkdir, mkdir, .path = BYTES(path), .mode = 0700));
                REQUIRE(error == (i == 0 ? SHMD__ERROR__ERROR_EXISTS : 0), "number %d: %s", i,
                        client_describe(scene.alice));
        }
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 65);
        scene_end(&scene);
}

/* -- who, and for how long ----------------------------------------------------------------- */

static bool hello_with(Client *client, const uint8_t *session) {
        client_expect_done(client, client_call(client, MESSAGE_HELLO,
                           REQUEST(Hello, hello, .version = MESSAGE_VERSION,
                                   .session = { .len = MESSAGE_SESSION_BYTES, .data = (uint8_t *)session })));
        return ((const Shmd__HelloReply *)client->reply)->resumed;
}

/* Whether somebody who shows the session gets it; whoever does not must get another one. */
static bool gets(Broker *broker, uid_t uid, const uint8_t *session) {
        Client *thief = client_connect_silently(broker, uid, uid);
        bool resumed = hello_with(thief, session);

        REQUIRE(resumed == !memcmp(((const Shmd__HelloReply *)thief->reply)->session.data, session,
                                   MESSAGE_SESSION_BYTES));
        thief = client_free(thief);
        return resumed;
}

TEST(session, nobody_else_gets_it_with_its_id) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/x"),
                           .size = SIZE, .mode = 0600, .lifetime = SHMD__LIFETIME__LIFETIME_SESSION), NULL));
        REQUIRE(!gets(scene.broker, ALICE, scene.alice->session), "it is in use");
        REQUIRE(exists(scene.alice, "/x"));
        die(&scene);
        REQUIRE(!gets(scene.broker, BOB, scene.alice->session));
        REQUIRE(!gets(scene.broker, 0, scene.alice->session));
        come_back(&scene);
        REQUIRE(!gets(scene.broker, ALICE, scene.alice->session), "it is in use again");
        REQUIRE(exists(scene.alice, "/x"));
        scene.alice = client_free(scene.alice);
        client_expect_used(scene.bob, SHMD__SLOT__SLOT_REGIONS, 0);
        for (int64_t end = test_now_ms() + TEST_PATIENCE_MS; exists(scene.root, "/x");)
                REQUIRE(test_now_ms() < end, "its region outlives its session");
        scene_end(&scene);
}

TEST(session, an_id_is_in_no_log) {
        char hex[2 * MESSAGE_SESSION_BYTES + 1];
        Scene scene = scene_begin();

        for (size_t i = 0; i < MESSAGE_SESSION_BYTES; ++i)
                (void)snprintf(hex + 2 * i, 3, "%02x", scene.alice->session[i]);
        die_and_come_back(&scene);
        REQUIRE(broker_log_count(scene.broker, hex) == 0);
        scene_end(&scene);
}

TEST(session, who_comes_too_late_gets_another_and_its_regions_are_gone) {
        Scene scene = scene_begin_with("session-grace = 300ms\n" KEEPER);

        client_expect_done(scene.alice, call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/x"),
                           .size = SIZE, .mode = 0600, .lifetime = SHMD__LIFETIME__LIFETIME_SESSION), NULL));
        client_expect_done(scene.alice, call_create(scene.alice, "/y", SIZE, NULL));
        broker_kill_and_wait_restart(scene.broker);
        scene.root = client_free(scene.root);
        scene.root = client_connect_as(scene.broker, 0, 0);
        for (int64_t end = test_now_ms() + TEST_PATIENCE_MS; exists(scene.root, "/x");)
                REQUIRE(test_now_ms() < end, "its time is over");
        REQUIRE(exists(scene.root, "/y"));
        REQUIRE(!client_resume(scene.alice, scene.broker, ALICE, ALICE));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 1);
        scene_end(&scene);
}

TEST(session, at_the_limit_of_connections_everybody_comes_back) {
        Client *clients[3];
        Scene scene = scene_begin_with(KEEPER "[account]\npeers = 4\n");

        for (int i = 0; i < 3; ++i)
                clients[i] = client_connect_as(scene.broker, ALICE, ALICE);
        die(&scene);
        for (int i = 0; i < 3; ++i)
                REQUIRE(client_resume(clients[i], scene.broker, ALICE, ALICE));
        come_back(&scene);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_PEERS, 4);
        for (int i = 0; i < 3; ++i)
                clients[i] = client_free(clients[i]);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_PEERS, 1);
        scene_end(&scene);
}

TEST(session, a_session_region_lives_on_with_the_session_it_came_with) {
        Scene scene = scene_begin();
        Grant grant;
        uint64_t serial;
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0600,
                                                 .rights = READ_WRITE, .lifetime = SHMD__LIFETIME__LIFETIME_SESSION);

        serial = client_send(scene.alice, MESSAGE_CREATE, create);
        await_name(scene.bob, "/x");
        for (int i = 0; i < 3; ++i)
                die_and_come_back(&scene);
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_CREATE, create));
        grant = granted(scene.alice);
        grant_deinit(&grant);
        scene.alice = client_free(scene.alice);
        for (int64_t end = test_now_ms() + TEST_PATIENCE_MS; exists(scene.root, "/x");)
                REQUIRE(test_now_ms() < end, "its session has ended");
        scene_end(&scene);
}

TEST(session, an_upgrade_is_no_end_either) {
        char *said = NULL;
        Scene scene = scene_begin();
        uint64_t serial;
        pid_t before = scene.broker->pid;

        client_expect_done(scene.alice, call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/x"),
                           .size = SIZE, .mode = 0600, .lifetime = SHMD__LIFETIME__LIFETIME_SESSION), NULL));
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0700));
        serial = scene.alice->serial;
        REQUIRE(shmdctl_run(&said, "--socket", scene.broker->socket, "upgrade", NULL) == 0, "%s", said);
        free(said);
        broker_await_restart(scene.broker);
        REQUIRE(scene.broker->pid != before);
        client_expect_closed(scene.alice);
        come_back(&scene);
        REQUIRE(exists(scene.alice, "/x"));
        client_expect_done(scene.alice, call_again(scene.alice, serial, MESSAGE_MKDIR,
                                                   REQUEST(Mkdir, mkdir, .path = BYTES("/d"), .mode = 0700)));
        scene_end(&scene);
}

/* -- many at once -------------------------------------------------------------------------- */

#define IN_FLIGHT 64

typedef struct Sent {
        MessageKind kind;
        uint64_t serial;
        uint8_t packet[256];
        size_t n;
        bool answered;
} Sent;

static void add(Sent *sent, Client *client, size_t *n, MessageKind kind, const ProtobufCMessage *request) {
        Sent *one = &sent[(*n)++];

        REQUIRE(*n <= IN_FLIGHT);
        *one = (Sent){ .kind = kind, .serial = ++client->serial };
        one->n = client_pack(one->packet, sizeof(one->packet), (uint16_t)kind, one->serial, request);
}

/* Eight times eight requests, each of which needs the one before it, and none of which works twice. */
static void add_all(Sent *sent, Client *client) {
        size_t n = 0;

        for (int i = 0; i < IN_FLIGHT / 8; ++i) {
                char d[16], x[16], y[16], z[16];

                (void)snprintf(d, sizeof(d), "/%d", i);
                (void)snprintf(x, sizeof(x), "/%d/x", i);
                (void)snprintf(y, sizeof(y), "/%d/y", i);
                (void)snprintf(z, sizeof(z), "/%d/z", i);
                add(sent, client, &n, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES(d), .mode = 0700));
                add(sent, client, &n, MESSAGE_CREATE,
                    REQUEST(Create, create, .path = BYTES(x), .size = SIZE, .mode = 0600,
                            .rights = i % 2 ? READ_WRITE : NO_RIGHTS));
                add(sent, client, &n, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES(x), .to = BYTES(y)));
                add(sent, client, &n, MESSAGE_RENAME, REQUEST(Rename, rename, .path = BYTES(x), .to = BYTES(z)));
                add(sent, client, &n, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES(y)));
                add(sent, client, &n, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(z), .mode = 0640));
                add(sent, client, &n, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES(z)));
                add(sent, client, &n, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES(d)));
        }
}

static void send_unanswered(Client *client, const Sent *sent) {
        for (size_t i = 0; i < IN_FLIGHT; ++i)
                if (!sent[i].answered && client_send_raw(client, sent[i].packet, sent[i].n) < 0)
                        return;         /* the broker is gone again */
}

/* Reads the answers that there are, until that many are missing, or the connection is over. Return: how many
 * are missing. */
static size_t read_answers(Client *client, Sent *sent) {
        size_t missing = 0;

        for (size_t i = 0; i < IN_FLIGHT; ++i)
                missing += !sent[i].answered;
        while (missing > 0) {
                int r = client_receive(client, TEST_PATIENCE_MS);
                size_t i = 0;

                REQUIRE(r == CLIENT_REPLY || r == CLIENT_CLOSED, "%d: %s", r, client_describe(client));
                if (r == CLIENT_CLOSED)
                        break;
                while (i < IN_FLIGHT && sent[i].serial != client->header.serial)
                        ++i;
                REQUIRE(i < IN_FLIGHT && !sent[i].answered);
                sent[i].answered = true;
                --missing;
        }
        return missing;
}

/* Ends the broker in the middle of something. */
static void kill_soon(Scene *scene, uint64_t *random) {
        (void)usleep((useconds_t)test_random(random, 1200));
        broker_signal(scene->broker, SIGKILL);
}

TEST(session, sixty_four_in_flight_are_done_once_wherever_the_broker_dies) {
        uint64_t random = test_seed(), n_deaths = 0, n_lost = 0;
        Scene scene = scene_begin();
        static Sent sent[IN_FLIGHT];

        for (uint64_t round = test_rounds(60); round > 0; --round) {
                size_t missing = IN_FLIGHT;

                add_all(sent, scene.alice);
                send_unanswered(scene.alice, sent);
                for (uint64_t deaths = 1 + test_random(&random, 3); missing > 0 && deaths > 0; --deaths) {
                        kill_soon(&scene, &random);
                        missing = read_answers(scene.alice, sent);
                        n_lost += missing;
                        ++n_deaths;
                        broker_await_restart(scene.broker);
                        come_back(&scene);
                        send_unanswered(scene.alice, sent);
                }
                REQUIRE(read_answers(scene.alice, sent) == 0);
                client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 0);
                client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        }
        printf("%lu deaths, %lu requests asked again\n", n_deaths, n_lost);
        scene_end(&scene);
}

/* -- with descriptors, tickets and seals -------------------------------------------------- */

typedef struct Storm {
        Scene scene;
        uint64_t random;
        uint64_t n_deaths;
        uint64_t n_again;
        bool killed;            /* the broker that alice is connected to */
} Storm;

/* The answer is not lost by this: what is in it has been taken, or there was none. */
static void settle_down(Storm *storm) {
        Scene *scene = &storm->scene;

        if (!storm->killed)
                return;
        storm->killed = false;
        broker_await_restart(scene->broker);
        come_back(scene);
}

/* Sends a request again and again, under the same serial, while brokers die, until it is answered. */
static void call_stubbornly(Storm *storm, MessageKind kind, const ProtobufCMessage *request) {
        Scene *scene = &storm->scene;
        uint64_t deaths = test_random(&storm->random, 3);
        Sent sent = { .serial = ++scene->alice->serial };
        uint8_t packet[1024];
        size_t n = client_pack(packet, sizeof(packet), (uint16_t)kind, sent.serial, request);

        for (;; ++storm->n_again) {
                int r;

                REQUIRE(client_send_raw(scene->alice, packet, n) == 0);
                if (deaths > 0) {
                        --deaths;
                        ++storm->n_deaths;
                        (void)usleep((useconds_t)test_random(&storm->random, 120));
                        broker_signal(scene->broker, SIGKILL);
                        storm->killed = true;
                }
                r = client_receive(scene->alice, TEST_PATIENCE_MS);
                if (r == CLIENT_REPLY)
                        break;
                REQUIRE(r == CLIENT_CLOSED && storm->killed, "%s: %d: %s", message_name(kind), r,
                        client_describe(scene->alice));
                settle_down(storm);
        }
        REQUIRE(scene->alice->header.serial == sent.serial);
}

/* The same for what comes with descriptors. */
static Grant grant_stubbornly(Storm *storm, MessageKind kind, const ProtobufCMessage *request) {
        Grant grant;

        call_stubbornly(storm, kind, request);
        grant = granted(storm->scene.alice);
        REQUIRE(grant.fd >= 0);
        return grant;
}

static void storm_round(Storm *storm) {
        char text[TEXT_BYTES + 1];
        Grant frozen, published, redeemed, nameless;
        Items items;

        frozen = grant_stubbornly(storm, MESSAGE_CREATE,
                                  REQUEST(Create, create, .path = BYTES("/x"), .size = SIZE, .mode = 0600,
                                          .rights = READ_WRITE, .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE));
        settle_down(storm);
        published = grant_stubbornly(storm, MESSAGE_CREATE,
                                     REQUEST(Create, create, .size = SIZE, .mode = 0600, .rights = READ_WRITE));
        settle_down(storm);
        call_stubbornly(storm, MESSAGE_PUBLISH,
                        REQUEST(Publish, publish, .region = published.region, .path = BYTES("/bobs")));
        settle_down(storm);
        call_stubbornly(storm, MESSAGE_TICKET,
                        REQUEST(Ticket, ticket, .path = BYTES("/bobs"), .rights = READ_ONLY, .uses = 1));
        take_text(storm->scene.alice, text);
        settle_down(storm);
        redeemed = grant_stubbornly(storm, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES(text)));
        REQUIRE(redeemed.region == published.region && redeemed.rights == READ_ONLY);
        settle_down(storm);
        client_expect_used(storm->scene.alice, SHMD__SLOT__SLOT_PENDING, 0);
        fill_items(&items);
        call_stubbornly(storm, MESSAGE_BATCH, &items.batch.base);
        REQUIRE(batch_reply(storm->scene.alice)->items[1]->region == published.region);
        client_take_grant(storm->scene.alice, batch_reply(storm->scene.alice)->items[0], &nameless);
        grant_deinit(&nameless);
        settle_down(storm);
        REQUIRE(fcntl(frozen.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        call_stubbornly(storm, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES("/x")));
        REQUIRE(((const Shmd__FreezeReply *)storm->scene.alice->reply)->seals & F_SEAL_SEAL);
        settle_down(storm);
        for (size_t i = 0; i < 4; ++i) {
                call_stubbornly(storm, MESSAGE_UNLINK,
                                REQUEST(Remove, remove, .path = BYTES(((const char *[]){ "/x", "/bobs", "/a", "/b" })[i])));
                settle_down(storm);
        }
        grant_deinit(&frozen);
        grant_deinit(&published);
        grant_deinit(&redeemed);
        client_expect_used(storm->scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        client_expect_used(storm->scene.alice, SHMD__SLOT__SLOT_REGIONS, 0);
        client_expect_used(storm->scene.alice, SHMD__SLOT__SLOT_GRANTS, 0);
}

TEST(session, what_hands_out_memory_is_done_once_wherever_the_broker_dies) {
        Storm storm = { .random = test_seed(), .scene = scene_begin() };

        for (uint64_t round = test_rounds(15); round > 0; --round)
                storm_round(&storm);
        printf("%lu deaths, %lu requests asked again\n", storm.n_deaths, storm.n_again);
        scene_end(&storm.scene);
}
