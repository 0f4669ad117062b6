/* Limits: the last one under a limit works, the next is refused with the numbers, and after
 * release the limit is whole again. Own limits are exact against anybody; of what all share,
 * nobody gets more than a fair part.
 */

#include "lib/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES
#define REGIONS_SLOT SHMD__SLOT__SLOT_REGIONS
#define GRANTS_SLOT SHMD__SLOT__SLOT_GRANTS
#define PEERS_SLOT SHMD__SLOT__SLOT_PEERS
#define WATCHES_SLOT SHMD__SLOT__SLOT_WATCHES
#define PENDING_SLOT SHMD__SLOT__SLOT_PENDING

typedef struct Scene {
        Broker *broker;
        Client *alice;
} Scene;

static Scene scene_begin(const char *config) {
        Scene scene = { .broker = broker_spawn(config) };

        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        return scene;
}

static void scene_end(Scene *scene) {
        scene->alice = client_free(scene->alice);
        scene->broker = broker_stop(scene->broker);
}

/* The latest refusal is about that slot and says these numbers. */
static void require_numbers(Client *client, uint32_t slot, uint64_t asked, uint64_t left, uint64_t limit) {
        Shmd__Refusal *refusal = client->refusal;

        REQUIRE(refusal->slot == slot && refusal->asked == asked && refusal->left == left && refusal->limit == limit,
                "expected slot %u, asked %" PRIu64 ", left %" PRIu64 ", limit %" PRIu64 ", got %s", slot, asked, left,
                limit, client_describe(client));
        REQUIRE(refusal->uid == client->hello.uid || refusal->reason == SHMD__REASON__REASON_DIRECTORY_LIMIT);
        REQUIRE(refusal->sentence.len > 0);
}

/* -- bytes ---------------------------------------------------------------------------- */

TEST(limits, the_last_byte_fits_and_the_next_is_refused) {
        Scene scene = scene_begin("[account]\nbytes = 12288");
        Client *c = scene.alice;

        client_expect_done(c, call_create(c, "/a", 4096, NULL));
        client_expect_done(c, call_create(c, "/b", 8192, NULL));
        REQUIRE(client_used(c, BYTES_SLOT) == 12288 && client_limit(c, BYTES_SLOT) == 12288);
        client_expect_error(c, QUOTA, LIMIT, call_create(c, "/c", 1, NULL));
        require_numbers(c, BYTES_SLOT, 4096, 0, 12288);
        client_expect_done(c, call_create(c, "/empty", 0, NULL));
        broker_expect_log(scene.broker, "event=refused", "request=create", "error=quota", "slot=bytes", "asked=4096",
                          "left=0", "limit=12288");

        client_expect_done(c, call_unlink(c, "/b"));
        client_expect_used(c, BYTES_SLOT, 4096);
        client_expect_done(c, call_create(c, "/c", 8192, NULL));
        scene_end(&scene);
}

TEST(limits, one_region_of_exactly_the_limit_fits_and_one_byte_more_does_not) {
        Scene scene = scene_begin("[account]\nbytes = 1M");
        Client *c = scene.alice;

        client_expect_error(c, QUOTA, LIMIT, call_create(c, "/a", (1 << 20) + 1, NULL));
        require_numbers(c, BYTES_SLOT, (1 << 20) + 4096, 1 << 20, 1 << 20);
        client_expect_done(c, call_create(c, "/a", 1 << 20, NULL));
        REQUIRE(client_used(c, BYTES_SLOT) == 1 << 20);
        scene_end(&scene);
}

TEST(limits, a_size_is_charged_in_whole_pages) {
        static const uint64_t sizes[] = { 0, 1, 4095, 4096, 4097, 8192, 100000 };
        static const uint64_t charges[] = { 0, 4096, 4096, 4096, 8192, 8192, 102400 };
        Scene scene = scene_begin(NULL);
        Client *c = scene.alice;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                client_expect_done(c, call_create(c, "/a", sizes[i], NULL));
                REQUIRE(client_used(c, BYTES_SLOT) == charges[i], "%" PRIu64, client_used(c, BYTES_SLOT));
                client_expect_done(c, call_stat(c, "/a"));
                REQUIRE(((Shmd__StatReply *)c->reply)->node->size == sizes[i]);
                REQUIRE(((Shmd__StatReply *)c->reply)->node->charge == charges[i]);
                client_expect_done(c, call_unlink(c, "/a"));
                client_expect_used(c, BYTES_SLOT, 0);
        }
        scene_end(&scene);
}

TEST(limits, a_limit_that_is_no_whole_page_leaves_its_rest_unused) {
        Scene scene = scene_begin("[account]\nbytes = 10000");
        Client *c = scene.alice;

        client_expect_done(c, call_create(c, "/a", 8192, NULL));
        client_expect_error(c, QUOTA, LIMIT, call_create(c, "/b", 1, NULL));
        require_numbers(c, BYTES_SLOT, 4096, 1808, 10000);
        scene_end(&scene);
}

TEST(limits, attack_060_sizes_up_to_the_last_number_are_refused_and_nothing_wraps) {
        static const uint64_t sizes[] = {
                UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1, UINT64_C(1) << 40, INT64_MAX - 4095, INT64_MAX,
                UINT64_C(1) << 63, UINT64_MAX - 8191, UINT64_MAX - 4096, UINT64_MAX - 4095, UINT64_MAX - 1, UINT64_MAX,
        };
        Scene scene = scene_begin("[account]\nbytes = 1G");
        Client *c = scene.alice;

        client_expect_done(c, call_create(c, "/first", 8192, NULL));
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                uint64_t pages = (sizes[i] + PAGE - 1) / PAGE * PAGE;

                /* No file can be larger: that is said before any limit is looked at. */
                if (sizes[i] > INT64_MAX) {
                        client_expect_error(c, INVALID, SIZE, call_create(c, "/big", sizes[i], NULL));
                } else {
                        client_expect_error(c, QUOTA, LIMIT, call_create(c, "/big", sizes[i], NULL));
                        require_numbers(c, BYTES_SLOT, pages, (1 << 30) - 8192, 1 << 30);
                }
                REQUIRE(client_used(c, BYTES_SLOT) == 8192 && client_used(c, REGIONS_SLOT) == 1);
        }
        scene_end(&scene);
}

TEST(limits, attack_060_an_unlimited_account_does_not_wrap_either) {
        Scene scene = scene_begin("[account]\nbytes = unlimited\n[global]\nbytes = unlimited");
        Client *c = scene.alice;
        uint32_t error;

        client_expect_done(c, call_create(c, "/one", 1, NULL));
        error = call_create(c, "/two", UINT64_MAX, NULL);
        REQUIRE(error != 0 && client_used(c, BYTES_SLOT) == 4096);
        error = call_create(c, "/two", UINT64_MAX - 4095, NULL);
        REQUIRE(error != 0 && client_used(c, BYTES_SLOT) == 4096);
        error = call_create(c, "/two", UINT64_C(1) << 63, NULL);
        REQUIRE(error != 0 && client_used(c, BYTES_SLOT) == 4096);
        scene_end(&scene);
}

TEST(limits, attack_063_a_sparse_terabyte_counts_by_its_size) {
        Scene scene = scene_begin("[account]\nbytes = 1G");

        client_expect_error(scene.alice, QUOTA, LIMIT, call_create(scene.alice, "/a", UINT64_C(1) << 40, NULL));
        require_numbers(scene.alice, BYTES_SLOT, UINT64_C(1) << 40, 1 << 30, 1 << 30);
        scene_end(&scene);
}

TEST(limits, attack_057_two_connections_of_one_user_share_its_account) {
        Scene scene = scene_begin("[account]\nbytes = 8192");
        Client *second = client_connect_as(scene.broker, ALICE, BOB);

        client_expect_done(scene.alice, call_create(scene.alice, "/a", 4096, NULL));
        client_expect_done(second, call_create(second, "/b", 4096, NULL));
        client_expect_error(scene.alice, QUOTA, LIMIT, call_create(scene.alice, "/c", 1, NULL));
        client_expect_error(second, QUOTA, LIMIT, call_create(second, "/c", 1, NULL));
        second = client_free(second);
        scene_end(&scene);
}

TEST(limits, attack_061_a_user_at_its_limit_of_everything_leaves_others_alone) {
        Scene scene;
        Client *bob;

        test_needs_root();
        scene = scene_begin("[account]\nbytes = 8192\nregions = 2\npeers = 1\nwatches = 1\ngrants = 1");
        bob = client_connect_as(scene.broker, BOB, BOB);
        for (int i = 0; i < 2; ++i)
                client_expect_done(scene.alice, call_create(scene.alice, i ? "/b" : "/a", 4096, NULL));
        (void)client_send(scene.alice, MESSAGE_WAIT,
                          REQUEST(Wait, wait, .path = BYTES("/x"), .timeout_ns = UINT64_C(3600000000000)));
        client_expect_done(bob, call_create(bob, "/c", 8192, NULL));
        client_expect_done(bob, call_mkdir(bob, "/d", 0700));
        client_expect_error(bob, TIMEOUT, DEADLINE, call_wait(bob, "/x", 1));
        client_expect_done(bob, call_ping(bob));
        bob = client_free(bob);
        scene_end(&scene);
}

TEST(limits, an_exception_for_one_user_is_for_that_user) {
        Scene scene;
        Client *bob;

        test_needs_root();
        scene = scene_begin("[account]\nbytes = 4096\n[account 64102]\nbytes = 8192");
        bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_error(scene.alice, QUOTA, LIMIT, call_create(scene.alice, "/a", 8192, NULL));
        client_expect_done(bob, call_create(bob, "/a", 8192, NULL));
        REQUIRE(client_limit(bob, REGIONS_SLOT) == client_limit(scene.alice, REGIONS_SLOT), "what it does not say is as for all");
        bob = client_free(bob);
        scene_end(&scene);
}

/* -- regions -------------------------------------------------------------------------- */

TEST(limits, the_last_region_fits_and_the_next_is_refused) {
        Scene scene = scene_begin("[account]\nregions = 3");
        Client *c = scene.alice;
        Grant grant = GRANT_NULL;

        client_expect_done(c, call_create(c, "/a", 1, NULL));
        client_expect_done(c, call_create(c, NULL, 1, &grant));
        client_expect_done(c, call_mkdir(c, "/d", 0700));
        client_expect_error(c, QUOTA, LIMIT, call_create(c, "/b", 1, NULL));
        require_numbers(c, REGIONS_SLOT, 1, 0, 3);
        client_expect_error(c, QUOTA, LIMIT, call_mkdir(c, "/e", 0700));
        require_numbers(c, REGIONS_SLOT, 1, 0, 3);

        client_expect_done(c, call_rmdir(c, "/d"));
        client_expect_done(c, call_create(c, "/b", 1, NULL));
        grant_deinit(&grant);
        client_expect_used(c, REGIONS_SLOT, 2);
        client_expect_done(c, call_mkdir(c, "/d", 0700));
        client_expect_error(c, QUOTA, LIMIT, call_mkdir(c, "/e", 0700));
        scene_end(&scene);
}

TEST(limits, a_region_that_is_still_held_counts_and_room_is_found_when_it_goes) {
        Scene scene = scene_begin("[account]\nregions = 1");
        Client *c = scene.alice;
        Grant grant = GRANT_NULL;

        client_expect_done(c, call_create(c, "/a", 1, &grant));
        client_expect_done(c, call_unlink(c, "/a"));
        client_expect_error(c, QUOTA, LIMIT, call_create(c, "/b", 1, NULL));
        require_numbers(c, REGIONS_SLOT, 1, 0, 1);

        /* No time to notice: the broker looks again before it says no. */
        grant_deinit(&grant);
        client_expect_done(c, call_create(c, "/b", 1, NULL));
        scene_end(&scene);
}

/* -- grants --------------------------------------------------------------------------- */

TEST(limits, the_last_grant_fits_and_the_next_is_refused) {
        Scene scene = scene_begin("[account]\ngrants = 3");
        Client *c = scene.alice;
        Grant grants[4] = { GRANT_NULL, GRANT_NULL, GRANT_NULL, GRANT_NULL };

        client_expect_done(c, call_create(c, "/a", 1, &grants[0]));
        client_expect_done(c, call_open(c, "/a", READ_ONLY, &grants[1]));
        client_expect_done(c, call_open(c, "/a", READ_WRITE, &grants[2]));
        client_expect_error(c, QUOTA, LIMIT, call_open(c, "/a", READ_ONLY, &grants[3]));
        require_numbers(c, GRANTS_SLOT, 1, 0, 3);
        REQUIRE(client_used(c, GRANTS_SLOT) == 3);

        /* Nobody tells the broker that one ended: it looks before it says no. */
        grant_deinit(&grants[1]);
        client_expect_done(c, call_open(c, "/a", READ_ONLY, &grants[1]));
        client_expect_error(c, QUOTA, LIMIT, call_open(c, "/a", READ_ONLY, &grants[3]));
        for (int i = 0; i < 3; ++i)
                grant_deinit(&grants[i]);
        for (int i = 0; i < 3; ++i)
                client_expect_done(c, call_open(c, "/a", READ_ONLY, &grants[i]));
        client_expect_error(c, QUOTA, LIMIT, call_open(c, "/a", READ_ONLY, &grants[3]));
        for (int i = 0; i < 3; ++i)
                grant_deinit(&grants[i]);
        scene_end(&scene);
}

TEST(limits, a_grant_is_charged_to_who_asked_not_to_the_owner) {
        Scene scene;
        Client *bob;
        Grant grant = GRANT_NULL;

        test_needs_root();
        scene = scene_begin(NULL);
        bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/a", PAGE, 0644, NULL));
        client_expect_done(bob, call_open(bob, "/a", READ_ONLY, &grant));
        REQUIRE(client_used(scene.alice, GRANTS_SLOT) == 0 && client_used(bob, GRANTS_SLOT) == 1);
        REQUIRE(client_used(scene.alice, BYTES_SLOT) == PAGE && client_used(bob, BYTES_SLOT) == 0);
        grant_deinit(&grant);
        bob = client_free(bob);
        scene_end(&scene);
}

/* -- peers ---------------------------------------------------------------------------- */

typedef struct PeerRoom {
        Broker *broker;
        Client *client;
} PeerRoom;

static bool can_connect(void *userdata) {
        PeerRoom *room = userdata;
        Client *client = client_connect_silently(room->broker, ALICE, ALICE);
        uint8_t packet[64];
        size_t n = client_pack(packet, sizeof(packet), MESSAGE_HELLO, 1, REQUEST(Hello, hello, .version = 1));

        (void)client_send_raw(client, packet, n);
        if (client_receive(client, TEST_PATIENCE_MS) != CLIENT_REPLY) {
                (void)client_free(client);
                return false;
        }
        client->serial = 1;
        client->hello.uid = ALICE;
        room->client = client;
        return true;
}

TEST(limits, the_last_peer_fits_and_the_next_is_told_and_closed) {
        Scene scene = scene_begin("[account]\npeers = 3");
        Client *second = client_connect_as(scene.broker, ALICE, ALICE);
        Client *third = client_connect_as(scene.broker, ALICE, ALICE);
        Client *fourth = client_connect_silently(scene.broker, ALICE, ALICE);
        PeerRoom room = { .broker = scene.broker };

        REQUIRE(client_receive(fourth, TEST_PATIENCE_MS) == CLIENT_REFUSED);
        REQUIRE(fourth->header.serial == 0);
        REQUIRE(fourth->refusal->error == SHMD__ERROR__ERROR_QUOTA &&
                fourth->refusal->reason == SHMD__REASON__REASON_LIMIT, "%s", client_describe(fourth));
        fourth->hello.uid = scene.alice->hello.uid;
        require_numbers(fourth, PEERS_SLOT, 1, 0, 3);
        client_expect_closed(fourth);
        fourth = client_free(fourth);
        REQUIRE(client_used(scene.alice, PEERS_SLOT) == 3);

        third = client_free(third);
        REQUIRE(test_eventually(can_connect, &room));
        REQUIRE(client_used(room.client, PEERS_SLOT) == 3);
        room.client = client_free(room.client);
        second = client_free(second);
        client_expect_used(scene.alice, PEERS_SLOT, 1);
        scene_end(&scene);
}

/* -- watches and pending requests ------------------------------------------------------ */

static uint64_t send_wait(Client *client, const char *path, uint64_t ms) {
        return client_send(client, MESSAGE_WAIT,
                           REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = ms * UINT64_C(1000000)));
}

static void expect_wait_limit(const char *config, uint32_t slot) {
        Scene scene = scene_begin(config);
        Client *c = scene.alice, *second = client_connect_as(scene.broker, ALICE, ALICE);
        uint64_t first;

        first = send_wait(c, "/a", 3600000);
        (void)send_wait(c, "/b", 3600000);
        client_expect_used(second, WATCHES_SLOT, 2);
        client_expect_error(second, QUOTA, LIMIT, call_wait(second, "/c", UINT64_C(3600000000000)));
        require_numbers(second, slot, 1, 0, 2);
        client_expect_used(second, WATCHES_SLOT, 2);

        /* A name that appears ends one of them, and there is room for one. */
        client_expect_done(second, call_create(second, "/a", 1, NULL));
        REQUIRE(client_receive(c, TEST_PATIENCE_MS) == CLIENT_REPLY && c->header.serial == first);
        client_expect_used(second, WATCHES_SLOT, 1);
        (void)send_wait(c, "/c", 3600000);
        client_expect_used(second, WATCHES_SLOT, 2);
        client_expect_error(second, QUOTA, LIMIT, call_wait(second, "/d", UINT64_C(3600000000000)));

        /* A connection that ends takes its waits along. */
        scene.alice = client_free(c);
        client_expect_used(second, WATCHES_SLOT, 0);
        client_expect_error(second, TIMEOUT, DEADLINE, call_wait(second, "/c", 1));
        client_expect_error(second, TIMEOUT, DEADLINE, call_wait(second, "/d", 1));
        REQUIRE(client_used(second, WATCHES_SLOT) == 0);
        second = client_free(second);
        scene_end(&scene);
}

TEST(limits, the_last_watch_fits_and_the_next_is_refused) {
        expect_wait_limit("[account]\nwatches = 2", WATCHES_SLOT);
}

TEST(limits, the_last_pending_request_fits_and_the_next_is_refused) {
        expect_wait_limit("[account]\npending = 2", PENDING_SLOT);
}

TEST(limits, a_wait_that_ran_out_of_time_gives_its_charge_back) {
        Scene scene = scene_begin("[account]\nwatches = 1");

        for (int i = 0; i < 5; ++i)
                client_expect_error(scene.alice, TIMEOUT, DEADLINE, call_wait(scene.alice, "/none", 1000000));
        REQUIRE(client_used(scene.alice, WATCHES_SLOT) == 0);
        scene_end(&scene);
}

TEST(limits, a_wait_for_what_is_there_is_answered_at_once_and_costs_nothing) {
        Scene scene = scene_begin("[account]\nwatches = 1");

        client_expect_done(scene.alice, call_create(scene.alice, "/there", 5, NULL));
        (void)send_wait(scene.alice, "/never", 3600000);
        client_expect_done(scene.alice, call_wait(scene.alice, "/there", 1));
        REQUIRE(((Shmd__WaitReply *)scene.alice->reply)->node->size == 5);
        scene_end(&scene);
}

TEST(limits, a_wait_is_never_longer_than_configured) {
        Scene scene = scene_begin("[time]\nwait-max = 50ms");

        client_expect_error(scene.alice, TIMEOUT, DEADLINE, call_wait(scene.alice, "/none", UINT64_MAX));
        client_expect_error(scene.alice, TIMEOUT, DEADLINE, call_wait(scene.alice, "/none", UINT64_C(1) << 63));
        scene_end(&scene);
}

/* -- the common pool ------------------------------------------------------------------ */

TEST(limits, of_the_common_pool_the_first_user_gets_half_and_the_next_a_third_of_the_rest) {
        Scene scene;
        Client *bob, *carol;

        test_needs_root();
        scene = scene_begin("[global]\nbytes = 98304\n[account]\nbytes = unlimited");        /* 24 pages */
        client_expect_done(scene.alice, call_create(scene.alice, "/a", 11 * PAGE, NULL));
        client_expect_error(scene.alice, QUOTA, SHARE, call_create(scene.alice, "/a2", 2 * PAGE, NULL));
        require_numbers(scene.alice, BYTES_SLOT, 2 * PAGE, PAGE, 12 * PAGE);
        client_expect_done(scene.alice, call_create(scene.alice, "/a2", PAGE, NULL));
        client_expect_error(scene.alice, QUOTA, SHARE, call_create(scene.alice, "/a3", 1, NULL));
        require_numbers(scene.alice, BYTES_SLOT, PAGE, 0, 12 * PAGE);

        /* Of the 12 that are left, one of two may have a third. */
        bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_error(bob, QUOTA, SHARE, call_create(bob, "/b", 5 * PAGE, NULL));
        require_numbers(bob, BYTES_SLOT, 5 * PAGE, 4 * PAGE, 4 * PAGE);
        client_expect_done(bob, call_create(bob, "/b", 4 * PAGE, NULL));
        client_expect_error(bob, QUOTA, SHARE, call_create(bob, "/b2", 1, NULL));

        /* Of 8, one of three may have a quarter. */
        carol = client_connect_as(scene.broker, CAROL, CAROL);
        client_expect_error(carol, QUOTA, SHARE, call_create(carol, "/c", 3 * PAGE, NULL));
        require_numbers(carol, BYTES_SLOT, 3 * PAGE, 2 * PAGE, 2 * PAGE);
        client_expect_done(carol, call_create(carol, "/c", 2 * PAGE, NULL));
        REQUIRE(client_total_used(carol, BYTES_SLOT) == 18 * PAGE);

        /* Alice holds 12 of the 18 (6 left) that it could ever see: more than a quarter. */
        client_expect_error(scene.alice, QUOTA, SHARE, call_create(scene.alice, "/a3", 1, NULL));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/a"));
        client_expect_used(scene.alice, BYTES_SLOT, PAGE);
        client_expect_error(scene.alice, QUOTA, SHARE, call_create(scene.alice, "/a", 4 * PAGE, NULL));
        require_numbers(scene.alice, BYTES_SLOT, 4 * PAGE, 18 * PAGE / 4 - PAGE, 18 * PAGE / 4);
        client_expect_done(scene.alice, call_create(scene.alice, "/a", 3 * PAGE, NULL));
        bob = client_free(bob);
        carol = client_free(carol);
        scene_end(&scene);
}

TEST(limits, an_own_limit_below_the_share_is_named_as_what_it_is) {
        Scene scene = scene_begin("[global]\nbytes = 1M\n[account]\nbytes = 4096");

        client_expect_done(scene.alice, call_create(scene.alice, "/a", PAGE, NULL));
        client_expect_error(scene.alice, QUOTA, LIMIT, call_create(scene.alice, "/b", 1, NULL));
        require_numbers(scene.alice, BYTES_SLOT, PAGE, 0, PAGE);
        scene_end(&scene);
}

/* -- directories ---------------------------------------------------------------------- */

static const char directory_config[] =
        "[directory /box]\nowner = 0\nmode = 1777\nbytes = 12288\nregions = 3\n";

TEST(limits, a_directory_has_its_own_limit_of_bytes) {
        Scene scene = scene_begin(directory_config);
        Client *c = scene.alice;

        client_expect_done(c, call_create(c, "/box/a", 2 * PAGE, NULL));
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_create(c, "/box/b", PAGE + 1, NULL));
        require_numbers(c, BYTES_SLOT, 2 * PAGE, PAGE, 3 * PAGE);
        REQUIRE(client_used(c, BYTES_SLOT) == 2 * PAGE && client_used(c, REGIONS_SLOT) == 1, "nothing is left of it");
        client_expect_done(c, call_create(c, "/elsewhere", 100 * PAGE, NULL));
        client_expect_done(c, call_create(c, "/box/b", PAGE, NULL));
        REQUIRE(client_directory_used(c, "/box", BYTES_SLOT) == 3 * PAGE);
        client_expect_done(c, call_unlink(c, "/box/a"));
        client_expect_used(c, BYTES_SLOT, 101 * PAGE);
        REQUIRE(client_directory_used(c, "/box", BYTES_SLOT) == PAGE);
        client_expect_done(c, call_create(c, "/box/a", 2 * PAGE, NULL));
        scene_end(&scene);
}

TEST(limits, a_directory_has_its_own_limit_of_names_which_counts_all_below) {
        Scene scene = scene_begin(directory_config);
        Client *c = scene.alice;

        client_expect_done(c, call_mkdir(c, "/box/d", 0700));
        client_expect_done(c, call_create(c, "/box/d/a", 1, NULL));
        client_expect_done(c, call_create(c, "/box/b", 1, NULL));
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_create(c, "/box/d/c", 1, NULL));
        require_numbers(c, REGIONS_SLOT, 1, 0, 3);
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_mkdir(c, "/box/e", 0700));
        REQUIRE(client_directory_used(c, "/box", REGIONS_SLOT) == 3);
        REQUIRE(client_directory_used(c, "/box/d", REGIONS_SLOT) == 1);
        client_expect_done(c, call_unlink(c, "/box/d/a"));
        client_expect_done(c, call_rmdir(c, "/box/d"));
        client_expect_done(c, call_mkdir(c, "/box/e", 0700));
        client_expect_done(c, call_mkdir(c, "/box/e/f", 0700));
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_mkdir(c, "/box/e/f/g", 0700));
        scene_end(&scene);
}

TEST(limits, publishing_into_a_full_directory_is_refused_and_the_region_stays_unnamed) {
        Scene scene = scene_begin(directory_config);
        Client *c = scene.alice;
        Grant grant = GRANT_NULL;

        client_expect_done(c, call_create(c, NULL, 4 * PAGE, &grant));
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_publish(c, grant.region, "/box/x", 0));
        require_numbers(c, BYTES_SLOT, 4 * PAGE, 3 * PAGE, 3 * PAGE);
        client_expect_done(c, call_publish(c, grant.region, "/x", 0));
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(limits, a_region_without_a_name_is_not_charged_to_a_directory_any_more) {
        Scene scene = scene_begin(directory_config);
        Client *c = scene.alice;
        Grant grant = GRANT_NULL;

        client_expect_done(c, call_create(c, "/box/a", 3 * PAGE, &grant));
        client_expect_done(c, call_unlink(c, "/box/a"));
        REQUIRE(client_directory_used(c, "/box", BYTES_SLOT) == 0);
        REQUIRE(client_used(c, BYTES_SLOT) == 3 * PAGE, "but still to its owner");
        client_expect_done(c, call_create(c, "/box/b", 3 * PAGE, NULL));
        grant_deinit(&grant);
        scene_end(&scene);
}

/* -- all or nothing ------------------------------------------------------------------- */

TEST(limits, a_batch_that_goes_over_a_limit_leaves_nothing) {
        Scene scene = scene_begin("[account]\nbytes = 16384\nregions = 10");
        Client *c = scene.alice;
        Shmd__Create creates[5];
        Shmd__BatchItem items[5], *pointers[5];
        char names[5][8];

        for (size_t i = 0; i < 5; ++i) {
                (void)snprintf(names[i], sizeof(names[i]), "/b%zu", i);
                shmd__create__init(&creates[i]);
                shmd__batch_item__init(&items[i]);
                creates[i].path = BYTES(names[i]);
                creates[i].size = PAGE;
                creates[i].mode = 0600;
                creates[i].rights = READ_WRITE;
                items[i].create = &creates[i];
                pointers[i] = &items[i];
        }
        client_expect_error(c, QUOTA, LIMIT,
                            client_call(c, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 5, .items = pointers)));
        require_numbers(c, BYTES_SLOT, PAGE, 0, 4 * PAGE);
        REQUIRE(c->refusal->index == 4);
        client_expect_used(c, BYTES_SLOT, 0);
        REQUIRE(client_used(c, REGIONS_SLOT) == 0 && client_used(c, GRANTS_SLOT) == 0);
        client_expect_error(c, NOT_FOUND, MISSING, call_stat(c, "/b0"));

        client_expect_done(c, client_call(c, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 4, .items = pointers)));
        REQUIRE(c->header.n_fds == 4 && c->fds.n == 4 && ((Shmd__BatchReply *)c->reply)->n_items == 4);
        REQUIRE(client_used(c, BYTES_SLOT) == 4 * PAGE);
        scene_end(&scene);
}

/* -- what a refusal says to the log ---------------------------------------------------- */

TEST(limits, a_shortage_is_logged_once_until_it_is_over) {
        Scene scene = scene_begin("[account]\nbytes = 4096");
        Client *c = scene.alice;

        client_expect_done(c, call_create(c, "/a", 1, NULL));
        for (int i = 0; i < 5; ++i)
                client_expect_error(c, QUOTA, LIMIT, call_create(c, "/b", 1, NULL));
        REQUIRE(broker_log_count(scene.broker, "slot=bytes") == 1);
        client_expect_done(c, call_unlink(c, "/a"));
        client_expect_used(c, BYTES_SLOT, 0);
        client_expect_done(c, call_create(c, "/a", 1, NULL));
        client_expect_error(c, QUOTA, LIMIT, call_create(c, "/b", 1, NULL));
        REQUIRE(broker_log_count(scene.broker, "slot=bytes") == 2);
        scene_end(&scene);
}

/* -- descriptors ---------------------------------------------------------------------- */

static void limit_descriptors(void *userdata) {
        rlim_t *n = userdata;
        struct rlimit limit = { *n, *n };

        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

TEST(limits, attack_119_a_broker_with_64_descriptors_starts_and_refuses_politely) {
        rlim_t n = 64;
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .prepare = limit_descriptors, .userdata = &n });
        Client *c = client_connect_as(broker, ALICE, ALICE);
        unsigned int made = 0;
        char path[16];

        for (; made < 64; ++made) {
                (void)snprintf(path, sizeof(path), "/r%u", made);
                if (call_create(c, path, 1, NULL))
                        break;
        }
        REQUIRE(made > 0 && made < 64, "%u regions", made);
        REQUIRE(c->refusal->error == SHMD__ERROR__ERROR_QUOTA || c->refusal->error == SHMD__ERROR__ERROR_NO_MEMORY, "%s",
                client_describe(c));
        client_expect_done(c, call_ping(c));
        for (unsigned int i = 0; i < made; ++i) {
                (void)snprintf(path, sizeof(path), "/r%u", i);
                client_expect_done(c, call_unlink(c, path));
        }
        client_expect_used(c, REGIONS_SLOT, 0);
        client_expect_done(c, call_create(c, "/again", 1, NULL));
        c = client_free(c);
        broker = broker_stop(broker);
}

static void lower_soft_limit(void *userdata) {
        struct rlimit limit;

        REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        limit.rlim_cur = 32;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

TEST(limits, the_broker_raises_its_soft_descriptor_limit) {
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .prepare = lower_soft_limit });
        Client *c = client_connect_as(broker, ALICE, ALICE);
        char path[16];

        for (int i = 0; i < 100; ++i) {
                (void)snprintf(path, sizeof(path), "/r%d", i);
                client_expect_done(c, call_create(c, path, 1, NULL));
        }
        c = client_free(c);
        broker = broker_stop(broker);
}

static int start_with_few_descriptors(void *userdata) {
        struct rlimit limit = { 128, 128 };
        char *said = NULL;
        int status;

        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        status = shmd_run(&said, "--config", userdata, "--socket", "/tmp/shmd-test-never", NULL);
        REQUIRE(status == 1, "exit status %d: %s", status, said);
        REQUIRE(strstr(said, "128") && strstr(said, "5000"), "%s", said);
        free(said);
        return 0;
}

TEST(limits, a_capacity_that_the_descriptor_limit_makes_impossible_is_an_error_at_start) {
        Broker *broker = broker_spawn(NULL);
        const char *config = broker_write_file(broker, "impossible.conf", "[global]\nregions = 5000\n");

        REQUIRE(run_as(geteuid(), getegid(), start_with_few_descriptors, (void *)config) == 0);
        broker = broker_stop(broker);
}

TEST(limits, a_full_directory_has_room_for_what_replaces_something_in_it) {
        Broker *broker = broker_spawn("[directory /box]\nowner = 0\nmode = 1777\nbytes = 4096\nregions = 1\n");
        Client *c = client_connect_as(broker, ALICE, ALICE);
        Grant small = GRANT_NULL, large = GRANT_NULL;

        client_expect_done(c, call_create(c, "/box/frame", PAGE, NULL));
        client_expect_done(c, call_create(c, "", PAGE, &small));
        client_expect_done(c, call_create(c, "", 2 * PAGE, &large));

        /* What does not fit changes nothing; what fits takes the place of what was there. */
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT,
                            call_publish(c, large.region, "/box/frame", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        REQUIRE(client_directory_used(c, "/box", SHMD__SLOT__SLOT_BYTES) == PAGE);
        client_expect_done(c, call_publish(c, small.region, "/box/frame", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        REQUIRE(client_directory_used(c, "/box", SHMD__SLOT__SLOT_BYTES) == PAGE);
        REQUIRE(client_directory_used(c, "/box", SHMD__SLOT__SLOT_REGIONS) == 1);
        client_expect_error(c, QUOTA, DIRECTORY_LIMIT, call_create(c, "/box/more", 0, NULL));

        grant_deinit(&small);
        grant_deinit(&large);
        client_expect_done(c, call_unlink(c, "/box/frame"));
        client_expect_used(c, SHMD__SLOT__SLOT_REGIONS, 0);
        c = client_free(c);
        broker = broker_stop(broker);
}

TEST(limits, more_descriptors_than_may_ever_be_in_flight_are_refused_at_once) {
        Broker *broker = broker_spawn("[account]\ninflight = 2\n");
        Client *c = client_connect_as(broker, ALICE, ALICE);
        Shmd__Create create = { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__create__descriptor), .size = PAGE,
                                .mode = 0600, .rights = READ_WRITE };
        Shmd__BatchItem item = { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__batch_item__descriptor), .create = &create };
        Shmd__BatchItem *items[] = { &item, &item, &item }, others[3];
        Shmd__Create creates[3];
        char names[3][16];

        client_expect_error(c, QUOTA, LIMIT,
                            client_call(c, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 3, .items = items)));
        REQUIRE(c->refusal->slot == SHMD__SLOT__SLOT_INFLIGHT && c->refusal->asked == 3 && c->refusal->limit == 2);
        client_expect_done(c, client_call(c, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 2, .items = items)));
        REQUIRE(c->fds.n == 2);

        /* Who wants none has nothing in flight. */
        client_expect_done(c, call_mkdir(c, "/many", 0755));
        create.rights = SHMD__RIGHTS__RIGHTS_NONE;
        for (size_t i = 0; i < 3; ++i) {
                (void)snprintf(names[i], sizeof(names[i]), "/many/%zu", i);
                creates[i] = create;
                creates[i].path = BYTES(names[i]);
                others[i] = (Shmd__BatchItem){ .base = item.base, .create = &creates[i] };
                items[i] = &others[i];
        }
        client_expect_done(c, client_call(c, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 3, .items = items)));
        REQUIRE(c->header.n_fds == 0 && c->fds.n == 0);
        c = client_free(c);
        broker = broker_stop(broker);
}
