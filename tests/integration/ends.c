/* Regions and names that end by themselves: with the last holder, and after a time. */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNTED SHMD__LIFETIME__LIFETIME_COUNTED
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES
#define NSEC_PER_SEC UINT64_C(1000000000)
#define CENTURY (UINT64_C(36525) * 86400 * NSEC_PER_SEC)

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob;
} Scene;

static Scene scene_begin(void) {
        Scene scene;

        test_needs_root();
        scene.broker = broker_spawn(NULL);
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        return scene;
}

static void scene_end(Scene *scene) {
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->broker = broker_stop(scene->broker);
}

typedef struct Name {
        Client *client;
        const char *path;
} Name;

static bool is_missing(void *userdata) {
        const Name *name = userdata;

        return call_stat(name->client, name->path) == SHMD__ERROR__ERROR_NOT_FOUND;
}

static void expect_missing(Client *client, const char *path) {
        Name name = { client, path };

        REQUIRE(test_eventually(is_missing, &name), "%s does not go", path);
}

static const Shmd__Node *node_of(Client *client, const char *path) {
        client_expect_done(client, call_stat(client, path));
        return ((const Shmd__StatReply *)client->reply)->node;
}

/* -- counted ---------------------------------------------------------------------------------- */

static void make_counted(Client *client, const char *path, Grant *grant) {
        client_expect_done(client, call_create_with(client, REQUEST(Create, create, .path = BYTES(path), .size = PAGE,
                                                                    .mode = 0666, .lifetime = COUNTED,
                                                                    .rights = READ_WRITE), grant));
}

TEST(ends, a_counted_region_goes_with_its_last_descriptor_names_and_charge) {
        Scene scene = scene_begin();
        Grant alices = GRANT_NULL, bobs = GRANT_NULL;

        make_counted(scene.alice, "/c", &alices);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES("/c"),
                                                                                       .to = BYTES("/d"))));
        REQUIRE(node_of(scene.alice, "/c")->lifetime == COUNTED);
        client_expect_done(scene.bob, call_open(scene.bob, "/d", READ_ONLY, &bobs));
        grant_deinit(&alices);
        test_sleep_ms(50);
        REQUIRE(node_of(scene.alice, "/c")->names == 2, "it went while Bob holds it");
        grant_deinit(&bobs);
        expect_missing(scene.alice, "/c");
        expect_missing(scene.alice, "/d");
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

static int hold_mapping(void *userdata) {
        Grant *grant = userdata;

        REQUIRE(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, grant->fd, 0) != MAP_FAILED);
        grant->fd = close_fd(grant->fd);
        child_arrive(0);
        return 0;
}

/* More names than go in one turn. */
TEST(ends, all_names_of_a_region_go_however_many_they_are) {
        static const uint32_t lifetimes[] = { COUNTED, SHMD__LIFETIME__LIFETIME_SESSION };
        Scene scene = scene_begin();
        char path[16];

        for (size_t i = 0; i < 2; ++i) {
                Client *maker = client_connect_as(scene.broker, BOB, BOB);
                Grant grant = GRANT_NULL;

                client_expect_done(maker, call_create_with(maker, REQUEST(Create, create, .path = BYTES("/0"), .size = PAGE,
                                                                          .mode = 0600, .lifetime = lifetimes[i],
                                                                          .rights = READ_WRITE), &grant));
                for (unsigned int n = 1; n < 500; ++n) {
                        (void)snprintf(path, sizeof(path), "/%u", n);
                        client_expect_done(maker, client_call(maker, MESSAGE_LINK,
                                                              REQUEST(Link, link, .path = BYTES("/0"), .to = BYTES(path))));
                }
                grant_deinit(&grant);
                maker = client_free(maker);
                client_expect_used(scene.bob, BYTES_SLOT, 0);
                client_expect_used(scene.bob, SHMD__SLOT__SLOT_REGIONS, 0);
                client_expect_error(scene.bob, NOT_FOUND, MISSING, call_stat(scene.bob, path));
        }
        scene_end(&scene);
}

TEST(ends, a_mapping_alone_keeps_a_counted_region_and_sigkill_ends_it) {
        Scene scene = scene_begin();
        Child holder = CHILD_NULL;
        Grant grant = GRANT_NULL;

        make_counted(scene.alice, "/c", &grant);
        child_spawn(&holder, hold_mapping, &grant);
        grant_deinit(&grant);
        test_sleep_ms(50);
        (void)node_of(scene.alice, "/c");
        child_kill(&holder);
        expect_missing(scene.alice, "/c");
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

TEST(ends, a_message_in_flight_keeps_a_counted_region) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;
        int ends[2];
        uint8_t packet[sizeof(WireHeader)];

        make_counted(scene.alice, "/c", &grant);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        wire_put_header(packet, sizeof(packet), 1, 1, 1);
        REQUIRE(wire_send(ends[0], packet, sizeof(packet), &grant.fd, 1) == 0);
        grant_deinit(&grant);
        test_sleep_ms(50);
        (void)node_of(scene.alice, "/c");
        ends[0] = close_fd(ends[0]);
        ends[1] = close_fd(ends[1]);
        expect_missing(scene.alice, "/c");
        scene_end(&scene);
}

TEST(ends, a_counted_region_without_a_name_stays_counted_when_it_is_published) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        make_counted(scene.alice, "", &grant);
        client_expect_done(scene.alice, call_publish(scene.alice, grant.region, "/p", 0));
        test_sleep_ms(20);
        REQUIRE(node_of(scene.bob, "/p")->lifetime == COUNTED);
        grant_deinit(&grant);
        expect_missing(scene.bob, "/p");
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

TEST(ends, a_counted_region_needs_a_grant_to_begin_with) {
        Scene scene = scene_begin();

        client_expect_error(scene.alice, INVALID, MALFORMED,
                            call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/c"), .size = PAGE,
                                                                  .mode = 0600, .lifetime = COUNTED), NULL));
        client_expect_error(scene.alice, INVALID, MALFORMED,
                            call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/c"), .size = PAGE,
                                                                  .mode = 0600, .lifetime = 3, .rights = READ_WRITE),
                                             NULL));
        scene_end(&scene);
}

TEST(ends, who_is_too_late_for_a_counted_region_finds_no_name) {
        Scene scene = scene_begin();

        for (int i = 0; i < 200; ++i) {
                Grant grant = GRANT_NULL, other = GRANT_NULL;
                uint32_t error;

                make_counted(scene.alice, "/c", &grant);
                (void)client_send(scene.bob, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES("/c"), .rights = READ_ONLY));
                grant_deinit(&grant);
                error = client_receive(scene.bob, TEST_PATIENCE_MS) == CLIENT_REPLY ? 0 : scene.bob->refusal->error;
                REQUIRE(error == 0 || error == SHMD__ERROR__ERROR_NOT_FOUND, "%s", client_describe(scene.bob));
                if (error == 0) {
                        client_take_grant(scene.bob, (const Shmd__Granted *)scene.bob->reply, &other);
                        (void)node_of(scene.alice, "/c");
                        grant_deinit(&other);
                }
                expect_missing(scene.alice, "/c");
        }
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

TEST(ends, a_client_that_is_killed_right_after_creating_leaves_no_counted_region) {
        Scene scene = scene_begin();

        for (int i = 0; i < 100; ++i) {
                Client *hasty = client_connect_as(scene.broker, ALICE, ALICE);

                (void)client_send(hasty, MESSAGE_CREATE,
                                  REQUEST(Create, create, .path = BYTES("/c"), .size = PAGE, .mode = 0600,
                                          .lifetime = COUNTED, .rights = READ_WRITE));
                hasty = client_free(hasty);
                expect_missing(scene.bob, "/c");
        }
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

/* -- time to live ------------------------------------------------------------------------------- */

static uint32_t call_ttl(Client *client, const char *path, uint64_t ttl_ns) {
        return client_call(client, MESSAGE_TTL, REQUEST(Ttl, ttl, .path = BYTES(path), .ttl_ns = ttl_ns));
}

static uint32_t call_create_ttl(Client *client, const char *path, uint64_t ttl_ns, Grant *grant) {
        return call_create_with(client, REQUEST(Create, create, .path = BYTES(path), .size = PAGE, .mode = 0644,
                                                .ttl_ns = ttl_ns, .rights = grant ? READ_WRITE : NO_RIGHTS), grant);
}

TEST(ends, a_name_ends_after_its_time_and_who_holds_the_region_keeps_it) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;
        int64_t began = test_now_ms();

        client_expect_done(scene.alice, call_create_ttl(scene.alice, "/t", NSEC_PER_SEC / 5, &grant));
        expect_missing(scene.alice, "/t");
        REQUIRE(test_now_ms() - began >= 200, "it ended after %d ms", (int)(test_now_ms() - began));
        REQUIRE(pwrite(grant.fd, "x", 1, 0) == 1);
        REQUIRE(client_used(scene.alice, BYTES_SLOT) == PAGE);
        grant_deinit(&grant);
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

TEST(ends, what_is_left_is_told_and_goes_down) {
        Scene scene = scene_begin();
        uint64_t first, second;

        client_expect_done(scene.alice, call_create_ttl(scene.alice, "/t", 3600 * NSEC_PER_SEC, NULL));
        first = node_of(scene.bob, "/t")->ttl_ns;
        REQUIRE(first > 3590 * NSEC_PER_SEC && first <= 3600 * NSEC_PER_SEC);
        test_sleep_ms(5);
        second = node_of(scene.bob, "/t")->ttl_ns;
        REQUIRE(second < first);
        client_expect_done(scene.bob, call_list(scene.bob, "/", 0));
        REQUIRE(((const Shmd__ListReply *)scene.bob->reply)->nodes[0]->ttl_ns <= second);
        scene_end(&scene);
}

TEST(ends, the_end_of_a_name_can_be_set_moved_and_taken_back) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS, began;
        Scene scene = scene_begin();
        uint32_t error;

        do {
                client_expect_done(scene.alice, call_create(scene.alice, "/t", PAGE, NULL));
                REQUIRE(node_of(scene.alice, "/t")->ttl_ns == 0);
                began = test_now_ms();
                client_expect_done(scene.alice, call_ttl(scene.alice, "/t", NSEC_PER_SEC));
                error = call_ttl(scene.alice, "/t", 0);
                /* A busy machine may need so long from the one to the other that the name has ended. */
        } while (error == SHMD__ERROR__ERROR_NOT_FOUND && test_now_ms() - began >= 1000 && test_now_ms() < end);
        client_expect_done(scene.alice, error);
        test_sleep_ms(1200);
        REQUIRE(node_of(scene.alice, "/t")->ttl_ns == 0);
        client_expect_done(scene.alice, call_ttl(scene.alice, "/t", CENTURY));
        REQUIRE(node_of(scene.alice, "/t")->ttl_ns > CENTURY - 60 * NSEC_PER_SEC);
        client_expect_done(scene.alice, call_ttl(scene.alice, "/t", 1));
        expect_missing(scene.alice, "/t");
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

TEST(ends, a_moved_name_keeps_its_end_and_a_replaced_one_takes_the_new_one) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_create_ttl(scene.alice, "/t", 3600 * NSEC_PER_SEC, NULL));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_RENAME,
                                                    REQUEST(Rename, rename, .path = BYTES("/t"), .to = BYTES("/u"))));
        REQUIRE(node_of(scene.alice, "/u")->ttl_ns > 3590 * NSEC_PER_SEC);
        client_expect_done(scene.alice, call_create(scene.alice, NULL, PAGE, &grant));
        client_expect_done(scene.alice, call_publish(scene.alice, grant.region, "/u",
                                                     SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        REQUIRE(node_of(scene.alice, "/u")->ttl_ns == 0);
        grant_deinit(&grant);
        client_expect_done(scene.alice, call_create(scene.alice, NULL, PAGE, &grant));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_PUBLISH,
                                                    REQUEST(Publish, publish, .region = grant.region,
                                                            .path = BYTES("/u"), .ttl_ns = NSEC_PER_SEC / 20,
                                                            .flags = SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE)));
        grant_deinit(&grant);
        expect_missing(scene.alice, "/u");
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        scene_end(&scene);
}

TEST(ends, only_the_owner_or_an_administrator_says_when_and_of_a_region) {
        Scene scene = scene_begin();
        Client *root = client_connect_as(scene.broker, 0, 0);

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/t", PAGE, 0666, NULL));
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0777));
        client_expect_error(scene.bob, DENIED, OWNER, call_ttl(scene.bob, "/t", 1));
        client_expect_error(scene.bob, NOT_FOUND, MISSING, call_ttl(scene.bob, "/none", 1));
        client_expect_error(scene.alice, IS_DIRECTORY, TAKEN, call_ttl(scene.alice, "/d", 1));
        client_expect_error(scene.alice, INVALID, MALFORMED, call_ttl(scene.alice, "/t", CENTURY + 1));
        client_expect_error(scene.alice, INVALID, MALFORMED, call_ttl(scene.alice, "/t", UINT64_MAX));
        client_expect_error(scene.alice, INVALID, MALFORMED, call_create_ttl(scene.alice, "/n", UINT64_MAX, NULL));
        client_expect_error(scene.alice, INVALID, MALFORMED,
                            call_create_with(scene.alice, REQUEST(Create, create, .size = PAGE, .mode = 0600,
                                                                  .ttl_ns = 1, .rights = READ_WRITE), NULL));
        REQUIRE(node_of(scene.alice, "/t")->ttl_ns == 0);
        client_expect_done(root, call_ttl(root, "/t", 1));
        expect_missing(scene.alice, "/t");
        root = client_free(root);
        scene_end(&scene);
}

TEST(ends, a_region_that_is_opened_instead_of_created_keeps_its_end) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create(scene.alice, "/t", PAGE, NULL));
        client_expect_done(scene.alice,
                           call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/t"), .size = PAGE,
                                                                 .mode = 0600, .ttl_ns = 1, .rights = READ_ONLY,
                                                                 .flags = SHMD__CREATE_FLAGS__CREATE_OPEN), NULL));
        test_sleep_ms(20);
        REQUIRE(node_of(scene.alice, "/t")->ttl_ns == 0);
        scene_end(&scene);
}

static bool is_empty(void *userdata) {
        client_expect_done(userdata, call_list(userdata, "/", 0));
        return ((const Shmd__ListReply *)((Client *)userdata)->reply)->n_nodes == 0;
}

TEST(ends, a_thousand_names_end_together_while_others_are_served) {
        Scene scene = scene_begin();
        char path[16];

        for (unsigned int i = 0; i < 1000; ++i) {
                (void)snprintf(path, sizeof(path), "/t%u", i);
                client_expect_done(scene.alice, call_create_ttl(scene.alice, path, NSEC_PER_SEC / 2, NULL));
        }
        while (!is_empty(scene.alice))
                client_expect_done(scene.bob, call_ping(scene.bob));
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 0);
        scene_end(&scene);
}

TEST(ends, a_broker_that_stops_waits_for_no_end) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create_ttl(scene.alice, "/t", CENTURY, NULL));
        scene_end(&scene);
}
