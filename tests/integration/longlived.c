/* Honest clients that live for long and hold next to nothing: they open and close, wait and are told,
 * issue and redeem, come and go, far more often than any limit of theirs says, and are served throughout.
 *
 * Limits are low here, so that few rounds are many times what they allow. What costs a region with many
 * holders has a hundred of them, of which 64 can be marked (core/grant).
 */

#define TEST_TIMEOUT 300

#include "lib/client.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GRANTS_SLOT SHMD__SLOT__SLOT_GRANTS
#define WATCHES_SLOT SHMD__SLOT__SLOT_WATCHES
#define PENDING_SLOT SHMD__SLOT__SLOT_PENDING
#define REGIONS_SLOT SHMD__SLOT__SLOT_REGIONS
#define INFLIGHT_SLOT SHMD__SLOT__SLOT_INFLIGHT
#define PEERS_SLOT SHMD__SLOT__SLOT_PEERS
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES

#define HOLDERS 100
#define LINKS 60U
#define TICKET_TEXT 49

typedef struct Scene {
        Broker *broker;
        Client *root, *bob;
        Client *holders[HOLDERS];       /* of "/r", Carol's */
        Grant grants[HOLDERS];
        uint64_t n_marked;
} Scene;

/* Everybody may have two hundred and fifty grants, which is many fewer than are asked for below. */
static Scene scene_begin(bool keeper) {
        Scene scene;

        test_needs_root();
        scene = (Scene){ .broker = broker_spawn_with(&(BrokerOptions){ .config = "[account]\ngrants = 250",
                                                                      .keeper = keeper }) };
        scene.root = client_connect_as(scene.broker, 0, 0);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_done(scene.root, call_create_mode(scene.root, "/r", PAGE, 0644, NULL));
        for (size_t i = 0; i < HOLDERS; ++i) {
                scene.grants[i] = (Grant)GRANT_NULL;
                scene.holders[i] = client_connect_as(scene.broker, CAROL, CAROL);
                client_expect_done(scene.holders[i], call_open(scene.holders[i], "/r", READ_ONLY, &scene.grants[i]));
                scene.n_marked += scene.grants[i].marker;
        }
        return scene;
}

static const Shmd__StatReply *look(Client *client, const char *path) {
        client_expect_done(client, client_call(client, MESSAGE_STAT,
                                               REQUEST(Stat, stat, .path = BYTES(path),
                                                       .flags = SHMD__STAT_FLAGS__STAT_HOLDERS)));
        return (const Shmd__StatReply *)client->reply;
}

/* What is on the books is right, of n that were opened and closed: exact unless marks were off for a while
 * because they were slow, when some of those had one that is free by now. */
static void expect_counted(Scene *scene, uint64_t n) {
        const Shmd__StatReply *reply = look(scene->root, "/r");
        uint64_t grants = reply->node->grants, bobs;

        REQUIRE(reply->held && reply->n_holders + reply->more == grants);
        bobs = client_used(scene->bob, GRANTS_SLOT);
        printf("%" PRIu64 " opened and closed: %" PRIu64 " counted, %" PRIu64 " charged, %" PRIu64 " marked\n", n, grants,
               bobs, scene->n_marked);
        REQUIRE(grants >= HOLDERS && grants <= HOLDERS + n);
        REQUIRE(bobs <= 250);
        if (scene->n_marked == 64)
                REQUIRE(grants == HOLDERS + n && bobs == 1, "none of them had a mark");
}

/* When nobody holds it any more, nothing of it is left. */
static void scene_end(Scene *scene) {
        const Shmd__StatReply *reply;

        for (size_t i = 0; i < HOLDERS; ++i)
                grant_deinit(&scene->grants[i]);
        reply = look(scene->root, "/r");
        REQUIRE(reply->node->grants == 0 && !reply->held && reply->n_holders == 0);
        client_expect_used(scene->bob, GRANTS_SLOT, 0);
        client_expect_used(scene->holders[0], GRANTS_SLOT, 0);
        for (size_t i = 0; i < HOLDERS; ++i)
                scene->holders[i] = client_free(scene->holders[i]);
        scene->root = client_free(scene->root);
        scene->bob = client_free(scene->bob);
        scene->broker = broker_stop(scene->broker);
}

/* -- one region, again and again ------------------------------------------------------------- */

static void open_and_close(Client *client, const char *path, uint64_t n) {
        Grant grant = GRANT_NULL;

        for (uint64_t i = 0; i < n; ++i) {
                client_expect_done(client, call_open(client, path, READ_ONLY, &grant));
                grant_deinit(&grant);
        }
}

static void resume_all(Scene *scene) {
        broker_kill_and_wait_restart(scene->broker);
        REQUIRE(client_resume(scene->root, scene->broker, 0, 0) && client_resume(scene->bob, scene->broker, BOB, BOB));
        for (size_t i = 0; i < HOLDERS; ++i)
                REQUIRE(client_resume(scene->holders[i], scene->broker, CAROL, CAROL));
}

TEST(longlived, a_session_opens_a_region_with_a_hundred_holders_fifty_thousand_times_also_across_a_kill) {
        uint64_t n = test_rounds(50000) / 2;
        Scene scene = scene_begin(true);

        open_and_close(scene.bob, "/r", n);
        resume_all(&scene);
        expect_counted(&scene, n);
        open_and_close(scene.bob, "/r", n);
        expect_counted(&scene, 2 * n);
        resume_all(&scene);
        expect_counted(&scene, 2 * n);
        scene_end(&scene);
}

TEST(longlived, many_processes_one_after_another_open_a_region_with_a_hundred_holders) {
        uint64_t n = test_rounds(1000);
        Scene scene = scene_begin(true);

        for (uint64_t i = 0; i < n; ++i) {
                Client *client = client_connect_as(scene.broker, BOB, BOB);

                open_and_close(client, "/r", 1 + i % 3);
                client = client_free(client);
                if (i != n / 2)
                        continue;
                client_expect_used(scene.bob, PEERS_SLOT, 1);
                resume_all(&scene);
        }
        if (scene.n_marked == 64)
                client_expect_used(scene.bob, GRANTS_SLOT, 1);
        expect_counted(&scene, n / 3 * 6 + (n % 3 > 0) + (n % 3 > 1 ? 2 : 0));
        scene_end(&scene);
}

static void make_links(Scene *scene) {
        char path[32];

        for (unsigned int i = 0; i < LINKS; ++i) {
                (void)snprintf(path, sizeof(path), "/l%u", i);
                client_expect_done(scene->root, call_link(scene->root, "/r", path));
        }
}

TEST(longlived, batches_of_one_region_are_taken_back_as_a_whole_or_served) {
        uint64_t n = test_rounds(1000);
        Scene scene = scene_begin(false);
        Client *bob = scene.bob;

        make_links(&scene);
        for (uint64_t i = 0; i < n; ++i) {
                client_expect_done(bob, client_call(bob, MESSAGE_BATCH, request_opens("/l", LINKS)));
                fdlist_deinit(&bob->fds);
                client_expect_error(bob, NOT_FOUND, MISSING,
                                    client_call(bob, MESSAGE_BATCH, request_opens("/l", LINKS + 1)));
        }
        expect_counted(&scene, n * LINKS);
        scene_end(&scene);
}

TEST(longlived, pipelined_opens_are_all_answered) {
        uint64_t n = test_rounds(20000), sent = 0;
        Scene scene = scene_begin(false);
        Client *bob = scene.bob;

        for (uint64_t received = 0; received < n; ++received) {
                while (sent < n && sent < received + 32) {
                        (void)client_send(bob, MESSAGE_OPEN,
                                          REQUEST(Open, open, .path = BYTES("/r"), .rights = READ_ONLY));
                        ++sent;
                }
                REQUIRE(client_receive(bob, TEST_PATIENCE_MS) == CLIENT_REPLY, "%s", client_describe(bob));
                fdlist_deinit(&bob->fds);
        }
        expect_counted(&scene, n);
        client_expect_used(bob, INFLIGHT_SLOT, 0);
        scene_end(&scene);
}

/* A program may lock all of the file that it shares: no mark can be set, and none is seen to be gone. */
TEST(longlived, a_region_that_a_holder_has_locked_is_opened_again_and_again) {
        struct flock everything = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        uint64_t n = test_rounds(5000);
        Scene scene = scene_begin(false);
        Grant locks = GRANT_NULL;

        client_expect_done(scene.root, call_create_mode(scene.root, "/locked", PAGE, 0644, &locks));
        open_and_close(scene.bob, "/locked", 40);
        client_expect_done(scene.bob, call_ping(scene.bob));    /* the broker has closed them, too */
        REQUIRE(fcntl(locks.fd, F_OFD_SETLK, &everything) == 0);
        open_and_close(scene.bob, "/locked", n);
        REQUIRE(client_used(scene.bob, GRANTS_SLOT) <= 250);
        grant_deinit(&locks);
        REQUIRE(look(scene.root, "/locked")->node->grants == 0);
        scene_end(&scene);
}

/* -- tickets ------------------------------------------------------------------------------------ */

static void issue(Client *client, const ProtobufCMessage *request, char text[TICKET_TEXT]) {
        const Shmd__TicketReply *reply;

        client_expect_done(client, client_call(client, MESSAGE_TICKET, request));
        reply = (const Shmd__TicketReply *)client->reply;
        REQUIRE(reply->ticket.len == TICKET_TEXT);
        memcpy(text, reply->ticket.data, TICKET_TEXT);
}

static void redeem(Client *client, const char text[TICKET_TEXT]) {
        ProtobufCBinaryData data = { .data = (uint8_t *)text, .len = TICKET_TEXT };

        client_expect_done(client, client_call(client, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = data)));
        fdlist_deinit(&client->fds);
}

TEST(longlived, a_ticket_of_many_uses_is_good_for_all_of_them) {
        uint64_t n = test_rounds(5000) % 65536 + 1;
        Scene scene = scene_begin(false);
        char text[TICKET_TEXT];

        issue(scene.root, REQUEST(Ticket, ticket, .path = BYTES("/r"), .rights = READ_ONLY, .uses = (uint32_t)n), text);
        for (uint64_t i = 0; i < n; ++i)
                redeem(scene.bob, text);
        expect_counted(&scene, n);
        client_expect_used(scene.root, PENDING_SLOT, 0);
        scene_end(&scene);
}

TEST(longlived, doorbells_are_opened_again_and_again) {
        uint64_t n = test_rounds(5000);
        Scene scene = scene_begin(false);

        for (uint64_t i = 0; i < n; ++i) {
                Client *client = i < HOLDERS ? scene.holders[i] : scene.bob;

                client_expect_done(client, client_call(client, MESSAGE_BELL, REQUEST(Bell, bell, .path = BYTES("/r"))));
                if (i >= HOLDERS)
                        fdlist_deinit(&client->fds);
        }
        REQUIRE(client_used(scene.bob, GRANTS_SLOT) <= 250);
        for (size_t i = 0; i < HOLDERS; ++i)
                fdlist_deinit(&scene.holders[i]->fds);
        client_expect_done(scene.root, call_unlink(scene.root, "/r"));
        for (size_t i = 0; i < HOLDERS; ++i)
                grant_deinit(&scene.grants[i]);
        client_expect_used(scene.bob, GRANTS_SLOT, 0);
        client_expect_done(scene.root, call_create(scene.root, "/r", PAGE, NULL));
        scene_end(&scene);
}

/* -- whatever else is over as soon as it is answered -------------------------------------------- */

/* What is done once a round by a client that may have two of everything. */
typedef void (*Habit)(Client *client, uint64_t round);

static void live(Habit habit, const char *limits, uint64_t rounds) {
        Broker *broker = broker_spawn(limits);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        uint64_t at_first = 0;

        client_expect_done(client, call_create(client, "/kept", PAGE, NULL));
        for (uint64_t i = 0; i < rounds; ++i) {
                habit(client, i);
                if (i == rounds / 4)
                        at_first = broker_rss(broker);
        }
        broker_expect_rss(broker, at_first + (2 << 20));
        client_expect_used(client, WATCHES_SLOT, 0);
        client_expect_used(client, PENDING_SLOT, 0);
        client_expect_used(client, INFLIGHT_SLOT, 0);
        client_expect_used(client, REGIONS_SLOT, 1);
        client_expect_used(client, BYTES_SLOT, PAGE);
        client = client_free(client);
        broker = broker_stop(broker);
}

#define TWO_OF_EVERYTHING \
        "[account]\nregions = 2\ngrants = 2\npeers = 2\nwatches = 2\npending = 2\ninflight = 2\nbytes = 8192"

static void makes_and_removes(Client *client, uint64_t round) {
        Grant grant = GRANT_NULL;

        client_expect_done(client, call_create(client, round % 2 ? "/x" : "", PAGE, &grant));
        if (round % 2)
                client_expect_done(client, call_unlink(client, "/x"));
        grant_deinit(&grant);
}

TEST(longlived, regions_are_made_and_removed) {
        live(makes_and_removes, TWO_OF_EVERYTHING, test_rounds(4000));
}

static void names_and_renames(Client *client, uint64_t round) {
        (void)round;
        client_expect_done(client, call_link(client, "/kept", "/other"));
        client_expect_done(client, call_rename(client, "/other", "/third", 0));
        client_expect_done(client, call_chmod(client, "/kept", 0644));
        client_expect_done(client, call_unlink(client, "/third"));
        client_expect_done(client, call_mkdir(client, "/d", 0755));
        client_expect_done(client, call_rmdir(client, "/d"));
}

TEST(longlived, names_come_and_go) {
        live(names_and_renames, TWO_OF_EVERYTHING, test_rounds(4000));
}

static void waits(Client *client, uint64_t round) {
        const char *path = round % 2 ? "/kept" : "/nothing";
        uint32_t error = call_wait(client, path, 1);

        REQUIRE(error == (round % 2 ? 0 : SHMD__ERROR__ERROR_TIMEOUT), "%s", client_describe(client));
}

TEST(longlived, waits_are_answered_or_time_out) {
        live(waits, TWO_OF_EVERYTHING, test_rounds(2000));
}

static void watches(Client *client, uint64_t round) {
        uint64_t watch;

        (void)round;
        client_expect_done(client, client_call(client, MESSAGE_WATCH,
                                               REQUEST(Watch, watch, .path = BYTES("/"), .mask = 1)));
        watch = ((const Shmd__WatchReply *)client->reply)->watch;
        client_expect_done(client, client_call(client, MESSAGE_UNWATCH, REQUEST(Unwatch, unwatch, .watch = watch)));
}

TEST(longlived, watches_begin_and_end) {
        live(watches, TWO_OF_EVERYTHING, test_rounds(4000));
}

/* Used up, revoked, or over by themselves. */
static void issues(Client *client, uint64_t round) {
        char text[TICKET_TEXT];

        issue(client, REQUEST(Ticket, ticket, .path = BYTES("/kept"), .rights = READ_ONLY, .uses = 1,
                              .ttl_ns = round % 3 == 0 ? 1 : 0), text);
        if (round % 3 == 1)
                redeem(client, text);
        else if (round % 3 == 2)
                client_expect_done(client, client_call(client, MESSAGE_REVOKE,
                                                       REQUEST(Revoke, revoke, .path = BYTES("/kept"))));
        else
                client_expect_used(client, PENDING_SLOT, 0);
}

TEST(longlived, tickets_are_used_up_revoked_and_over) {
        live(issues, TWO_OF_EVERYTHING, test_rounds(3000));
}

static void freezes(Client *client, uint64_t round) {
        Grant grant = GRANT_NULL;

        (void)round;
        client_expect_done(client, call_create_with(client, REQUEST(Create, create, .path = BYTES("/x"), .size = PAGE,
                                                                    .mode = 0600, .rights = READ_WRITE,
                                                                    .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE),
                                                    &grant));
        REQUIRE(fcntl(grant.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(client, client_call(client, MESSAGE_FREEZE,
                                               REQUEST(Freeze, freeze, .path = BYTES("/x"),
                                                       .how = SHMD__FREEZE_HOW__FREEZE_IMMUTABLE)));
        client_expect_done(client, call_unlink(client, "/x"));
        grant_deinit(&grant);
}

TEST(longlived, regions_are_frozen_and_removed) {
        live(freezes, TWO_OF_EVERYTHING, test_rounds(2000));
}

static void expires(Client *client, uint64_t round) {
        (void)round;
        client_expect_done(client, call_create_with(client, REQUEST(Create, create, .path = BYTES("/x"), .size = PAGE,
                                                                    .mode = 0600, .ttl_ns = 1), NULL));
        client_expect_used(client, REGIONS_SLOT, 1);
}

TEST(longlived, names_expire) {
        live(expires, TWO_OF_EVERYTHING, test_rounds(1000));
}

TEST(longlived, connections_come_and_go) {
        Broker *broker = broker_spawn("[account]\npeers = 2");
        Client *stays = client_connect_as(broker, ALICE, ALICE);
        const ProtobufCMessage *session_region = REQUEST(Create, create, .path = BYTES("/s"), .size = PAGE, .mode = 0600,
                                                         .lifetime = SHMD__LIFETIME__LIFETIME_SESSION);

        for (uint64_t i = test_rounds(2000); i > 0; --i) {
                Client *client = client_connect_as(broker, ALICE, ALICE);

                client_expect_done(client, call_create_with(client, session_region, NULL));
                client = client_free(client);
                client_expect_used(stays, PEERS_SLOT, 1);
                client_expect_used(stays, REGIONS_SLOT, 0);
        }
        stays = client_free(stays);
        broker = broker_stop(broker);
}

/* What it has sent for, and does not read: descriptors on their way are its user's. */
TEST(longlived, connections_end_with_answers_unread) {
        Broker *broker = broker_spawn("[account]\npeers = 3\ninflight = 4");
        Client *stays = client_connect_as(broker, ALICE, ALICE);

        client_expect_done(stays, call_create(stays, "/r", PAGE, NULL));
        for (uint64_t i = test_rounds(1000); i > 0; --i) {
                Client *client = client_connect_as(broker, ALICE, ALICE);

                for (unsigned int k = 0; k < 3; ++k)
                        (void)client_send(client, MESSAGE_OPEN,
                                          REQUEST(Open, open, .path = BYTES("/r"), .rights = READ_ONLY));
                if (i % 2)
                        client_expect_done(stays, call_ping(stays));
                client = client_free(client);
                client_expect_used(stays, PEERS_SLOT, 1);
                client_expect_used(stays, INFLIGHT_SLOT, 0);
        }
        stays = client_free(stays);
        broker = broker_stop(broker);
}

static void batches(Client *client, uint64_t round) {
        Shmd__Create create = SHMD__CREATE__INIT;
        Shmd__BatchItem item = SHMD__BATCH_ITEM__INIT, *items[] = { &item };

        (void)round;
        create.path = BYTES("/x");
        create.size = PAGE;
        create.mode = 0600;
        item.create = &create;
        client_expect_done(client, client_call(client, MESSAGE_BATCH,
                                               REQUEST(Batch, batch, .n_items = 1, .items = items)));
        client_expect_done(client, call_unlink(client, "/x"));
}

TEST(longlived, batches_are_made_and_removed) {
        live(batches, TWO_OF_EVERYTHING, test_rounds(2000));
}

static void opens(Client *client, uint64_t round) {
        Grant grant = GRANT_NULL;

        client_expect_done(client, call_open(client, "/kept", round % 2 ? READ_ONLY : READ_WRITE, &grant));
        grant_deinit(&grant);
}

TEST(longlived, a_region_of_ones_own_is_opened_and_closed) {
        live(opens, TWO_OF_EVERYTHING, test_rounds(10000));
}
