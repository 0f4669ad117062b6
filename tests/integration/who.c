/* Who has it: holders, names and regions without one, as different users see them, and what the
 * broker says of its own health.
 */

#include "lib/client.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (4 * PAGE)
#define HOLDERS SHMD__STAT_FLAGS__STAT_HOLDERS
#define NAMES SHMD__STAT_FLAGS__STAT_NAMES

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob, *root;
} Scene;

static Scene scene_begin(void) {
        Scene scene = { .broker = broker_spawn(NULL) };

        test_needs_root();
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

static const Shmd__StatReply *look(Client *client, const char *path, uint32_t flags) {
        client_expect_done(client, client_call(client, MESSAGE_STAT,
                                               REQUEST(Stat, stat, .path = BYTES(path), .flags = flags)));
        return (const Shmd__StatReply *)client->reply;
}

/* Who the one holder is, once its connection is known to have ended: of that the broker hears in a turn of its
 * own, and who asks may be earlier. */
static const Shmd__StatReply *look_when_left(Client *client, const char *path) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        const Shmd__StatReply *reply;

        do {
                REQUIRE(test_now_ms() < end, "it never ends");
                reply = look(client, path, HOLDERS);
        } while (reply->n_holders != 1 || reply->holders[0]->connected);
        return reply;
}

static bool is(ProtobufCBinaryData bytes, const char *string) {
        return bytes.len == strlen(string) && memcmp(bytes.data, string, bytes.len) == 0;
}

/* -- holders ------------------------------------------------------------------------------------ */

TEST(who, every_grant_is_listed_with_who_has_it_and_which_right) {
        Grant writes = GRANT_NULL, reads = GRANT_NULL;
        const Shmd__StatReply *reply;
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0644, &writes));
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &reads));
        reply = look(scene.bob, "/r", HOLDERS);
        REQUIRE(reply->held && reply->explained == SHMD__EXPLAINED__EXPLAINED_GRANTS && reply->n_holders == 2);
        REQUIRE(reply->holders[0]->uid == ALICE && reply->holders[0]->rights == READ_WRITE);
        REQUIRE(reply->holders[1]->uid == BOB && reply->holders[1]->rights == READ_ONLY);
        REQUIRE(reply->holders[0]->grant == writes.grant && reply->holders[1]->grant == reads.grant);
        REQUIRE(reply->holders[0]->connected && reply->holders[1]->connected && !reply->holders[0]->ticket);

        grant_deinit(&writes);
        reply = look(scene.bob, "/r", HOLDERS);
        REQUIRE(reply->n_holders == 1 && reply->holders[0]->uid == BOB && reply->node->granted == 2);
        grant_deinit(&reads);
        reply = look(scene.alice, "/r", HOLDERS);
        REQUIRE(!reply->held && reply->explained == SHMD__EXPLAINED__EXPLAINED_NOBODY && reply->n_holders == 0);
        scene_end(&scene);
}

TEST(who, a_grant_that_its_connection_left_behind_is_still_listed) {
        Grant grant = GRANT_NULL;
        const Shmd__StatReply *reply;
        Scene scene = scene_begin();
        void *memory;

        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, &grant));
        memory = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, grant.fd, 0);
        REQUIRE(memory != MAP_FAILED);
        grant_deinit(&grant);
        scene.alice = client_free(scene.alice);
        reply = look_when_left(scene.root, "/r");
        REQUIRE(reply->holders[0]->uid == ALICE);
        REQUIRE(reply->explained == SHMD__EXPLAINED__EXPLAINED_GRANTS, "a mapping is the grant it was made from");
        REQUIRE(munmap(memory, SIZE) == 0);
        REQUIRE(look(scene.root, "/r", HOLDERS)->explained == SHMD__EXPLAINED__EXPLAINED_NOBODY);
        scene_end(&scene);
}

TEST(who, a_holder_no_grant_explains_is_told_when_it_is_certain) {
        struct flock none = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
        Grant hides = GRANT_NULL, shows = GRANT_NULL;
        const Shmd__StatReply *reply;
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0644, &shows));
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &hides));
        REQUIRE(fcntl(hides.fd, F_OFD_SETLK, &none) == 0);
        reply = look(scene.alice, "/r", HOLDERS);
        REQUIRE(reply->n_holders == 1 && reply->holders[0]->uid == ALICE);
        REQUIRE(reply->explained == SHMD__EXPLAINED__EXPLAINED_GRANTS, "hers lives: of others nobody knows");
        grant_deinit(&shows);
        reply = look(scene.alice, "/r", HOLDERS);
        REQUIRE(reply->held && reply->n_holders == 0 && reply->explained == SHMD__EXPLAINED__EXPLAINED_NO);
        grant_deinit(&hides);
        REQUIRE(look(scene.alice, "/r", HOLDERS)->explained == SHMD__EXPLAINED__EXPLAINED_NOBODY);
        scene_end(&scene);
}

#define MANY 100

TEST(who, beyond_the_marked_ones_they_are_counted) {
        Grant grants[MANY];
        const Shmd__StatReply *reply;
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, NULL));
        for (size_t i = 0; i < MANY; ++i) {
                grants[i] = (Grant)GRANT_NULL;
                client_expect_done(scene.alice, call_open(scene.alice, "/r", READ_ONLY, &grants[i]));
        }
        reply = look(scene.alice, "/r", HOLDERS);
        REQUIRE(reply->n_holders == 64 && reply->n_holders + reply->more == reply->node->grants);
        REQUIRE(reply->node->grants == MANY && reply->explained == SHMD__EXPLAINED__EXPLAINED_GRANTS);

        /* The marked ones, and the connection of the others, end: any of the others may be who holds it. */
        for (size_t i = 0; i < MANY - 1; ++i)
                grant_deinit(&grants[i]);
        scene.alice = client_free(scene.alice);
        reply = look_when_left(scene.root, "/r");
        REQUIRE(reply->held && reply->explained == SHMD__EXPLAINED__EXPLAINED_UNKNOWN);
        REQUIRE(reply->more == MANY - 64 - 1, "those of one session are one grant");
        REQUIRE(reply->node->grants == MANY - 64);
        grant_deinit(&grants[MANY - 1]);
        reply = look(scene.root, "/r", HOLDERS);
        REQUIRE(reply->explained == SHMD__EXPLAINED__EXPLAINED_NOBODY && reply->n_holders == 0);
        scene_end(&scene);
}

TEST(who, holders_are_for_who_may_read_it) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, &grant));
        client_expect_error(scene.bob, DENIED, REGION_READ,
                            client_call(scene.bob, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES("/r"),
                                                                         .flags = HOLDERS)));
        REQUIRE(look(scene.bob, "/r", 0)->held, "that it is held is no secret");
        REQUIRE(look(scene.root, "/r", HOLDERS)->n_holders == 1);
        grant_deinit(&grant);
        scene_end(&scene);
}

/* -- names ---------------------------------------------------------------------------------------- */

TEST(who, names_in_directories_one_may_not_search_are_counted_and_not_told) {
        const Shmd__StatReply *reply;
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/private", 0700));
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0644, NULL));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_LINK,
                                                    REQUEST(Link, link, .path = BYTES("/r"),
                                                            .to = BYTES("/private/secret"))));
        reply = look(scene.bob, "/r", NAMES);
        REQUIRE(reply->node->names == 2 && reply->n_names == 1 && is(reply->names[0], "/r"));
        reply = look(scene.alice, "/r", NAMES);
        REQUIRE(reply->n_names == 2 && is(reply->names[1], "/private/secret"));
        REQUIRE(look(scene.root, "/r", NAMES)->n_names == 2);

        client_expect_done(scene.alice, call_chmod(scene.alice, "/private", 0711));
        REQUIRE(look(scene.bob, "/r", NAMES)->n_names == 2);
        scene_end(&scene);
}

/* -- regions without a name ------------------------------------------------------------------------- */

static size_t n_orphans(Client *client) {
        const Shmd__ListReply *reply;

        client_expect_done(client, client_call(client, MESSAGE_LIST,
                                               REQUEST(List, list, .flags = SHMD__LIST_FLAGS__LIST_ORPHANS |
                                                                            SHMD__LIST_FLAGS__LIST_USAGE)));
        reply = (const Shmd__ListReply *)client->reply;
        REQUIRE(reply->orphan == 0 && reply->cursor.len == 0);
        return reply->n_nodes;
}

TEST(who, regions_without_a_name_are_seen_by_who_pays_for_them) {
        Grant unlinked = GRANT_NULL, nameless = GRANT_NULL;
        const Shmd__ListReply *reply;
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0666, &unlinked));
        REQUIRE(n_orphans(scene.alice) == 0);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        client_expect_done(scene.bob, call_create(scene.bob, NULL, SIZE, &nameless));
        REQUIRE(pwrite(unlinked.fd, "x", 1, 0) == 1);

        REQUIRE(n_orphans(scene.alice) == 1);
        reply = (const Shmd__ListReply *)scene.alice->reply;
        REQUIRE(reply->nodes[0]->region == unlinked.region && reply->nodes[0]->allocated == PAGE);
        REQUIRE(reply->nodes[0]->path.len == 0 && reply->nodes[0]->uid == ALICE && reply->nodes[0]->charge == SIZE);
        REQUIRE(n_orphans(scene.bob) == 1 && n_orphans(scene.root) == 2);

        grant_deinit(&unlinked);
        grant_deinit(&nameless);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_REGIONS, 0);
        client_expect_used(scene.bob, SHMD__SLOT__SLOT_REGIONS, 0);
        REQUIRE(n_orphans(scene.root) == 0);
        scene_end(&scene);
}

/* -- figures ------------------------------------------------------------------------------------------ */

static uint64_t granted_to(Client *client, uint32_t scope) {
        client_expect_done(client, client_call(client, MESSAGE_DF, REQUEST(Df, df, .scope = scope)));
        return ((const Shmd__DfReply *)client->reply)->accounts[0]->granted;
}

TEST(who, grants_are_counted_for_the_region_its_taker_and_all_together) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0644, NULL));
        for (int i = 0; i < 5; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &grant));
                grant_deinit(&grant);
        }
        REQUIRE(look(scene.alice, "/r", 0)->node->granted == 5);
        REQUIRE(granted_to(scene.alice, SHMD__DF_SCOPE__DF_ACCOUNT) == 0);
        REQUIRE(granted_to(scene.bob, SHMD__DF_SCOPE__DF_ACCOUNT) == 5);
        REQUIRE(granted_to(scene.bob, SHMD__DF_SCOPE__DF_TOTAL) == 5);
        client_expect_error(scene.bob, DENIED, REGION_WRITE, call_open(scene.bob, "/r", READ_WRITE, NULL));
        REQUIRE(granted_to(scene.bob, SHMD__DF_SCOPE__DF_ACCOUNT) == 5, "what was refused is none");
        scene_end(&scene);
}
