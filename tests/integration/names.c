/* Names: what may be one, who may see it, and that who may not see cannot tell what is there. */

#include "lib/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob;
} Scene;

static Scene scene_begin(void) {
        Scene scene = { 0 };

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

/* -- what may be a name --------------------------------------------------------------- */

typedef struct Bytes {
        const char *bytes;
        size_t n;
} Bytes;

#define B(literal) { literal, sizeof(literal) - 1 }

static void expect_bad_name(Client *client, const char *bytes, size_t n) {
        ProtobufCBinaryData path = { .len = n, .data = (uint8_t *)bytes };
        const ProtobufCMessage *mkdir = REQUEST(Mkdir, mkdir, .path = path, .mode = 0700);
        const ProtobufCMessage *open = REQUEST(Open, open, .path = path, .rights = READ_ONLY);
        const ProtobufCMessage *stat = REQUEST(Stat, stat, .path = path);
        const ProtobufCMessage *list = REQUEST(List, list, .path = path);
        const ProtobufCMessage *remove = REQUEST(Remove, remove, .path = path);
        const ProtobufCMessage *chmod = REQUEST(Chmod, chmod, .path = path, .mode = 0700);
        const ProtobufCMessage *wait = REQUEST(Wait, wait, .path = path, .timeout_ns = 1);

        if (n > 0)
                client_expect_error(client, INVALID, NAME,
                                    client_call(client, MESSAGE_CREATE,
                                                REQUEST(Create, create, .path = path, .size = 1)));
        client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_MKDIR, mkdir));
        client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_OPEN, open));
        if (n > 0)
                client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_STAT, stat));
        client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_LIST, list));
        client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_UNLINK, remove));
        client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_RMDIR, remove));
        client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_CHMOD, chmod));
        client_expect_error(client, INVALID, NAME, client_call(client, MESSAGE_WAIT, wait));
}

static void expect_bad_names(const Bytes *names, size_t n) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        uint64_t before = client_used(client, SHMD__SLOT__SLOT_REGIONS);

        for (size_t i = 0; i < n; ++i)
                expect_bad_name(client, names[i].bytes, names[i].n);
        REQUIRE(client_used(client, SHMD__SLOT__SLOT_REGIONS) == before);
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(names, attack_043_bytes_that_are_not_utf8_or_deceive_are_refused) {
        static const Bytes names[] = {
                B("/\xc0\xaf"), B("/a\xc0\x80"), B("/\xe0\x80\xaf"), B("/\xed\xa0\x80"), B("/\xed\xbf\xbf"),
                B("/\xf4\x90\x80\x80"), B("/\xff"), B("/a\x80"), B("/a\xf0\x90\x8d"),
                B("/evil\xe2\x80\xae" "gpj.exe"), B("/\xe2\x81\xa6" "a"), B("/\xd8\x9c" "a"), B("/a\xc2\x85"),
        };

        expect_bad_names(names, sizeof(names) / sizeof(names[0]));
}

TEST(names, attack_044_dots_slashes_and_newlines_are_refused) {
        static const Bytes names[] = {
                B(""), B("a"), B("a/b"), B("//"), B("//a"), B("/a//b"), B("/a/"), B("/."), B("/.."), B("/a/.."),
                B("/a/../b"), B("/./a"), B("/a\n"), B("/a\nFDSTOREREMOVE=1\nFDNAME=r1"), B("/a\r"), B("/\t"),
                B("/a\0b"), B("/a\x1b[31m"), B("/a\x7f"),
        };

        expect_bad_names(names, sizeof(names) / sizeof(names[0]));
}

TEST(names, attack_044_percent_signs_and_colons_are_nothing_special) {
        static const char *const names[] = { "/%2e%2e", "/a:b", "/a=b", "/a;b", "/a b", "/a*", "/\\", "/~", "/..." };
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
                client_expect_done(client, call_create(client, names[i], 1, NULL));
                client_expect_done(client, call_stat(client, names[i]));
                client_expect_done(client, call_unlink(client, names[i]));
        }
        client = client_free(client);
        broker = broker_stop(broker);
}

static Client *spawn_with_deep_directory(Broker **broker, char *path, size_t n, size_t component) {
        Client *client;

        *broker = broker_spawn(NULL);
        client = client_connect_as(*broker, ALICE, ALICE);
        memset(path, 'd', n);
        for (size_t at = 0; at + component + 1 < n; at += component + 1) {
                path[at] = '/';
                path[at + component + 1] = 0;
                client_expect_done(client, call_mkdir(client, path, 0700));
                path[at + component + 1] = '/';
        }
        path[n] = 0;
        return client;
}

TEST(names, attack_045_a_path_of_1023_bytes_is_the_last) {
        Broker *broker;
        char path[1100];
        Client *client = spawn_with_deep_directory(&broker, path, 1023, 200);

        REQUIRE(strlen(path) == 1023);
        client_expect_done(client, call_create(client, path, 1, NULL));
        client_expect_done(client, call_stat(client, path));
        REQUIRE(((Shmd__StatReply *)client->reply)->node->path.len == 1023);
        client_expect_done(client, call_unlink(client, path));

        path[1023] = 'x';
        path[1024] = 0;
        client_expect_error(client, INVALID, NAME, call_create(client, path, 1, NULL));
        memset(path + 1, 'x', 1090);
        path[1091] = 0;
        client_expect_error(client, INVALID, NAME, call_create(client, path, 1, NULL));
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(names, attack_045_a_component_of_255_bytes_and_a_depth_of_16_are_the_last) {
        Broker *broker;
        char path[1024], component[300];
        Client *client = spawn_with_deep_directory(&broker, path, 32, 1);

        REQUIRE(strlen(path) == 32);
        client_expect_done(client, call_create(client, path, 1, NULL));
        memcpy(path + 32, "/d", 3);
        client_expect_error(client, INVALID, NAME, call_create(client, path, 1, NULL));

        memset(component, 'c', sizeof(component));
        component[0] = '/';
        component[256] = 0;
        client_expect_done(client, call_create(client, component, 1, NULL));
        component[256] = 'c';
        component[257] = 0;
        client_expect_error(client, INVALID, NAME, call_create(client, component, 1, NULL));
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(names, attack_045_a_request_full_of_name_is_refused_not_cut) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        static char path[32001];

        memset(path, 'x', 32000);
        path[0] = '/';
        client_expect_error(client, INVALID, NAME, call_create(client, path, 1, NULL));
        client_expect_done(client, call_ping(client));
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(names, attack_043_composed_and_decomposed_forms_are_two_names) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        client_expect_done(client, call_create(client, "/caf\xc3\xa9", 1, NULL));
        client_expect_error(client, NOT_FOUND, MISSING, call_stat(client, "/cafe\xcc\x81"));
        client_expect_done(client, call_create(client, "/cafe\xcc\x81", 2, NULL));
        client_expect_done(client, call_stat(client, "/caf\xc3\xa9"));
        REQUIRE(((Shmd__StatReply *)client->reply)->node->size == 1);
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(names, attack_046_case_and_prefixes_make_different_names) {
        static const char *const names[] = { "/cam", "/Cam", "/cam2", "/ca", "/camera", "/cam-", "/CAM" };
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        size_t n = sizeof(names) / sizeof(names[0]);

        for (size_t i = 0; i < n; ++i)
                client_expect_done(client, call_create(client, names[i], i + 1, NULL));
        for (size_t i = 0; i < n; ++i) {
                client_expect_done(client, call_stat(client, names[i]));
                REQUIRE(((Shmd__StatReply *)client->reply)->node->size == i + 1);
        }
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(names, attack_049_a_name_cannot_forge_a_line_of_the_log) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/%n%s \"event=stopped\" books=balanced", 0700));
        client_expect_error(scene.bob, DENIED, SEARCH,
                            call_stat(scene.bob, "/%n%s \"event=stopped\" books=balanced/x"));
        broker_expect_log(scene.broker, "event=refused", "%n%s");
        REQUIRE(!broker_log_has(scene.broker, " books=balanced\n", NULL));
        REQUIRE(broker_log_count(scene.broker, "\nevent=stopped") == 0);
        scene_end(&scene);
}

/* -- hidden and missing --------------------------------------------------------------- */

typedef struct Answer {
        size_t n;
        uint8_t bytes[2048];
} Answer;

/* The whole refusal as it came, with the thing asked for taken out: it differs by what was asked. */
static Answer refusal_to(Client *client, MessageKind kind, const ProtobufCMessage *request, size_t n_path) {
        Shmd__Refusal refusal;
        Answer answer;

        REQUIRE(client_call(client, kind, request) != 0, "%s was not refused", message_name(kind));
        refusal = *client->refusal;
        REQUIRE(refusal.thing.len <= n_path);
        if (refusal.thing.len == n_path)
                refusal.thing.len = 0;
        REQUIRE(message_pack(&refusal.base, answer.bytes, sizeof(answer.bytes), &answer.n) == 0);
        return answer;
}

/* hidden exists, missing does not, both have the same length, and bob may not search. */
static void expect_indistinguishable(Client *bob, const char *hidden, const char *missing) {
        const char *names[2] = { hidden, missing };
        Grant grant = GRANT_NULL;
        uint64_t own;
        size_t n = strlen(hidden);

        REQUIRE(strlen(missing) == n);
        client_expect_done(bob, call_create(bob, NULL, 1, &grant));
        own = grant.region;

#define SAME(kind, Type, type, ...)                                                     \
        do {                                                                            \
                Answer a[2];                                                            \
                                                                                        \
                for (int i = 0; i < 2; ++i) {                                           \
                        const char *name = names[i];                                    \
                                                                                        \
                        a[i] = refusal_to(bob, kind, REQUEST(Type, type, __VA_ARGS__), n); \
                }                                                                       \
                REQUIRE(a[0].n == a[1].n && memcmp(a[0].bytes, a[1].bytes, a[0].n) == 0, "%s tells %s from %s: %s", \
                        message_name(kind), hidden, missing, client_describe(bob));     \
        } while (0)

        SAME(MESSAGE_OPEN, Open, open, .path = BYTES(name), .rights = READ_ONLY);
        SAME(MESSAGE_OPEN, Open, open, .path = BYTES(name), .rights = READ_WRITE);
        SAME(MESSAGE_CREATE, Create, create, .path = BYTES(name), .size = 1, .mode = 0600);
        SAME(MESSAGE_CREATE, Create, create, .path = BYTES(name), .size = 1, .flags = 1, .rights = READ_ONLY);
        SAME(MESSAGE_STAT, Stat, stat, .path = BYTES(name));
        SAME(MESSAGE_STAT, Stat, stat, .path = BYTES(name), .flags = 1);
        SAME(MESSAGE_LIST, List, list, .path = BYTES(name));
        SAME(MESSAGE_LIST, List, list, .path = BYTES(name), .flags = 1);
        SAME(MESSAGE_UNLINK, Remove, remove, .path = BYTES(name));
        SAME(MESSAGE_RMDIR, Remove, remove, .path = BYTES(name));
        SAME(MESSAGE_MKDIR, Mkdir, mkdir, .path = BYTES(name), .mode = 0700);
        SAME(MESSAGE_CHMOD, Chmod, chmod, .path = BYTES(name), .mode = 0700);
        SAME(MESSAGE_CHOWN, Chown, chown, .path = BYTES(name), .set_uid = 1, .uid = BOB);
        SAME(MESSAGE_WAIT, Wait, wait, .path = BYTES(name), .timeout_ns = 1000000);
        SAME(MESSAGE_DF, Df, df, .scope = SHMD__DF_SCOPE__DF_DIRECTORY, .path = BYTES(name));
        SAME(MESSAGE_PUBLISH, Publish, publish, .region = own, .path = BYTES(name));
        SAME(MESSAGE_PUBLISH, Publish, publish, .region = own, .path = BYTES(name), .flags = 1);

        Answer batch[2];
        for (int i = 0; i < 2; ++i) {
                Shmd__Open open = SHMD__OPEN__INIT;
                Shmd__BatchItem item = SHMD__BATCH_ITEM__INIT, *items[1] = { &item };

                open.path = BYTES(names[i]);
                open.rights = READ_ONLY;
                item.open = &open;
                batch[i] = refusal_to(bob, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 1, .items = items), n);
        }
        REQUIRE(batch[0].n == batch[1].n && memcmp(batch[0].bytes, batch[1].bytes, batch[0].n) == 0);
        grant_deinit(&grant);
}

static void make_hidden_things(Scene *scene) {
        client_expect_done(scene->alice, call_mkdir(scene->alice, "/secret", 0700));
        client_expect_done(scene->alice, call_create_mode(scene->alice, "/secret/here", 1, 0666, NULL));
        client_expect_done(scene->alice, call_mkdir(scene->alice, "/secret/dirs", 0777));
        client_expect_done(scene->alice, call_create_mode(scene->alice, "/secret/dirs/deep", 1, 0666, NULL));
}

TEST(names, attack_048_a_hidden_region_and_a_missing_one_look_the_same) {
        Scene scene = scene_begin();

        make_hidden_things(&scene);
        expect_indistinguishable(scene.bob, "/secret/here", "/secret/none");
        client_expect_error(scene.bob, DENIED, SEARCH, call_stat(scene.bob, "/secret/here"));
        scene_end(&scene);
}

TEST(names, attack_048_a_hidden_directory_and_a_missing_one_look_the_same) {
        Scene scene = scene_begin();

        make_hidden_things(&scene);
        expect_indistinguishable(scene.bob, "/secret/dirs", "/secret/none");
        scene_end(&scene);
}

TEST(names, attack_048_what_is_deep_in_a_hidden_directory_looks_missing_too) {
        Scene scene = scene_begin();

        make_hidden_things(&scene);
        expect_indistinguishable(scene.bob, "/secret/dirs/deep", "/secret/dirs/none");
        expect_indistinguishable(scene.bob, "/secret/dirs/deep", "/secret/nodi/deep");
        expect_indistinguishable(scene.bob, "/secret/here/deep", "/secret/none/deep");
        scene_end(&scene);
}

TEST(names, attack_048_a_region_that_is_hidden_by_id_looks_missing) {
        Scene scene = scene_begin();
        uint64_t hidden;
        Answer a, b;

        client_expect_done(scene.alice, call_create(scene.alice, "/mine", 1, NULL));
        hidden = ((Shmd__Granted *)scene.alice->reply)->region;
        a = refusal_to(scene.bob, MESSAGE_STAT, REQUEST(Stat, stat, .region = hidden), 0);
        b = refusal_to(scene.bob, MESSAGE_STAT, REQUEST(Stat, stat, .region = hidden + 1000), 0);
        REQUIRE(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0, "stat: %s", client_describe(scene.bob));

        a = refusal_to(scene.bob, MESSAGE_PUBLISH,
                       REQUEST(Publish, publish, .region = hidden, .path = BYTES("/new")), 0);
        b = refusal_to(scene.bob, MESSAGE_PUBLISH,
                       REQUEST(Publish, publish, .region = hidden + 1000, .path = BYTES("/new")), 0);
        REQUIRE(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0, "publish: %s", client_describe(scene.bob));
        scene_end(&scene);
}

TEST(names, a_waiter_hears_nothing_of_what_it_may_not_see) {
        Scene scene = scene_begin();
        Client *second = client_connect_as(scene.broker, BOB, BOB);
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        uint64_t serial;
        int r;

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0755));
        /* On a busy machine it may be over before it was seen: then it begins again. */
        do {
                serial = client_send(scene.bob, MESSAGE_WAIT,
                                     REQUEST(Wait, wait, .path = BYTES("/d/x"), .timeout_ns = UINT64_C(500000000)));
                do {
                        REQUIRE(test_now_ms() < end, "nobody waits");
                        r = client_receive(scene.bob, 0);
                } while (r == CLIENT_SILENT && client_used(second, SHMD__SLOT__SLOT_WATCHES) != 1);
        } while (r == CLIENT_REFUSED && scene.bob->refusal->error == SHMD__ERROR__ERROR_TIMEOUT);
        REQUIRE(r == CLIENT_SILENT, "%s", client_describe(scene.bob));
        client_expect_done(scene.alice, call_chmod(scene.alice, "/d", 0700));
        client_expect_done(scene.alice, call_create(scene.alice, "/d/x", 1, NULL));
        REQUIRE(client_receive(scene.bob, TEST_PATIENCE_MS) == CLIENT_REFUSED);
        REQUIRE(scene.bob->header.serial == serial);
        REQUIRE(scene.bob->refusal->error == SHMD__ERROR__ERROR_TIMEOUT, "%s", client_describe(scene.bob));
        second = client_free(second);
        scene_end(&scene);
}

TEST(names, a_recursive_list_leaves_out_what_may_not_be_read) {
        Scene scene = scene_begin();
        Shmd__ListReply *list;

        make_hidden_things(&scene);
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/open", 0755));
        client_expect_done(scene.alice, call_create(scene.alice, "/open/a", 1, NULL));
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/open/noread", 0711));
        client_expect_done(scene.alice, call_create(scene.alice, "/open/noread/b", 1, NULL));
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/open/nosearch", 0744));
        client_expect_done(scene.alice, call_create(scene.alice, "/open/nosearch/c", 1, NULL));
        client_expect_done(scene.bob, call_list(scene.bob, "/", SHMD__LIST_FLAGS__LIST_RECURSIVE));

        static const char *const expected[] = { "/open", "/open/a", "/open/noread", "/open/nosearch", "/secret" };
        list = (Shmd__ListReply *)scene.bob->reply;
        REQUIRE(list->n_nodes == 5, "%zu", list->n_nodes);
        for (size_t i = 0; i < 5; ++i)
                REQUIRE(list->nodes[i]->path.len == strlen(expected[i]) &&
                        memcmp(list->nodes[i]->path.data, expected[i], strlen(expected[i])) == 0, "%.*s",
                        (int)list->nodes[i]->path.len, (char *)list->nodes[i]->path.data);
        scene_end(&scene);
}

TEST(names, a_list_needs_reading_and_searching) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0711));
        client_expect_error(scene.bob, DENIED, DIRECTORY_READ, call_list(scene.bob, "/d", 0));
        client_expect_done(scene.alice, call_chmod(scene.alice, "/d", 0744));
        client_expect_error(scene.bob, DENIED, DIRECTORY_READ, call_list(scene.bob, "/d", 0));
        client_expect_done(scene.alice, call_chmod(scene.alice, "/d", 0755));
        client_expect_done(scene.bob, call_list(scene.bob, "/d", 0));
        scene_end(&scene);
}

/* -- who may change names ------------------------------------------------------------- */

TEST(names, what_lies_in_a_sticky_directory_is_its_owners_to_take_away) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/mine", 1, 0666, NULL));
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/dir", 0777));
        client_expect_error(scene.bob, DENIED, STICKY, call_unlink(scene.bob, "/mine"));
        client_expect_error(scene.bob, DENIED, STICKY, call_rmdir(scene.bob, "/dir"));
        client_expect_done(scene.bob, call_create(scene.bob, NULL, 1, &grant));
        client_expect_error(scene.bob, DENIED, STICKY,
                            call_publish(scene.bob, grant.region, "/mine", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));

        /* In a directory that is not sticky writing is enough. */
        client_expect_done(scene.alice, call_create(scene.alice, "/dir/mine", 1, NULL));
        client_expect_done(scene.bob, call_unlink(scene.bob, "/dir/mine"));
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(names, a_directory_without_write_permission_takes_no_names) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0755));
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/d/r", 1, 0666, NULL));
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d/s", 0777));
        client_expect_error(scene.bob, DENIED, DIRECTORY_WRITE, call_create(scene.bob, "/d/x", 1, NULL));
        client_expect_error(scene.bob, DENIED, DIRECTORY_WRITE, call_mkdir(scene.bob, "/d/x", 0700));
        client_expect_error(scene.bob, DENIED, DIRECTORY_WRITE, call_unlink(scene.bob, "/d/r"));
        client_expect_error(scene.bob, DENIED, DIRECTORY_WRITE, call_rmdir(scene.bob, "/d/s"));
        client_expect_done(scene.bob, call_create(scene.bob, NULL, 1, &grant));
        client_expect_error(scene.bob, DENIED, DIRECTORY_WRITE, call_publish(scene.bob, grant.region, "/d/x", 0));
        client_expect_done(scene.bob, call_open(scene.bob, "/d/r", READ_WRITE, NULL));
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(names, only_the_owner_changes_a_mode_and_only_an_administrator_an_owner) {
        Scene scene = scene_begin();
        Client *root = client_connect_as(scene.broker, 0, 0);

        client_expect_done(scene.alice, call_create(scene.alice, "/r", PAGE, NULL));
        client_expect_error(scene.bob, DENIED, OWNER, call_chmod(scene.bob, "/r", 0666));
        client_expect_error(scene.alice, DENIED, ADMIN, call_chown(scene.alice, "/r", BOB, -1));
        client_expect_error(scene.alice, DENIED, ADMIN, call_chown(scene.alice, "/r", ALICE, ALICE));
        client_expect_done(scene.alice, call_chmod(scene.alice, "/r", 0640));

        REQUIRE(client_used(scene.alice, SHMD__SLOT__SLOT_BYTES) == PAGE);
        client_expect_done(root, call_chown(root, "/r", BOB, CAROL));
        client_expect_done(scene.bob, call_stat(scene.bob, "/r"));
        REQUIRE(((Shmd__StatReply *)scene.bob->reply)->node->uid == BOB);
        REQUIRE(((Shmd__StatReply *)scene.bob->reply)->node->gid == CAROL);
        REQUIRE(client_used(scene.alice, SHMD__SLOT__SLOT_BYTES) == 0, "the charge moved");
        REQUIRE(client_used(scene.bob, SHMD__SLOT__SLOT_BYTES) == PAGE, "to the new owner");
        client_expect_error(scene.alice, DENIED, OWNER, call_chmod(scene.alice, "/r", 0666));
        root = client_free(root);
        scene_end(&scene);
}

TEST(names, the_root_stays) {
        Scene scene = scene_begin();
        Client *root = client_connect_as(scene.broker, 0, 0);

        client_expect_error(root, BUSY, ROOT, call_rmdir(root, "/"));
        REQUIRE(call_unlink(root, "/") != 0);
        REQUIRE(call_create(root, "/", 1, NULL) != 0);
        REQUIRE(call_mkdir(root, "/", 0700) != 0);
        client_expect_done(root, call_chmod(root, "/", 0755));
        client_expect_error(scene.alice, DENIED, DIRECTORY_WRITE, call_create(scene.alice, "/a", 1, NULL));
        root = client_free(root);
        scene_end(&scene);
}

TEST(names, a_name_leads_to_one_kind_of_thing) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        client_expect_done(client, call_create(client, "/r", 1, NULL));
        client_expect_done(client, call_mkdir(client, "/d", 0700));
        client_expect_error(client, EXISTS, TAKEN, call_create(client, "/r", 1, NULL));
        client_expect_error(client, EXISTS, TAKEN, call_mkdir(client, "/d", 0700));
        client_expect_error(client, EXISTS, TAKEN, call_mkdir(client, "/r", 0700));
        REQUIRE(call_open(client, "/d", READ_ONLY, NULL) == SHMD__ERROR__ERROR_IS_DIRECTORY);
        REQUIRE(call_unlink(client, "/d") == SHMD__ERROR__ERROR_IS_DIRECTORY);
        REQUIRE(call_rmdir(client, "/r") == SHMD__ERROR__ERROR_NOT_DIRECTORY);
        REQUIRE(call_list(client, "/r", 0) == SHMD__ERROR__ERROR_NOT_DIRECTORY);
        REQUIRE(call_create(client, "/r/x", 1, NULL) == SHMD__ERROR__ERROR_NOT_DIRECTORY);
        client_expect_error(client, NOT_FOUND, MISSING, call_create(client, "/none/x", 1, NULL));
        client_expect_done(client, call_create(client, "/d/x", 1, NULL));
        REQUIRE(call_rmdir(client, "/d") == SHMD__ERROR__ERROR_NOT_EMPTY);
        client_expect_done(client, call_unlink(client, "/d/x"));
        client_expect_done(client, call_rmdir(client, "/d"));
        client_expect_error(client, NOT_FOUND, MISSING, call_stat(client, "/d"));
        client = client_free(client);
        broker = broker_stop(broker);
}

/* -- races ---------------------------------------------------------------------------- */

TEST(names, attack_047_of_two_users_who_create_one_name_exactly_one_wins) {
        Scene scene = scene_begin();
        unsigned int wins[2] = { 0, 0 };

        for (int round = 0; round < 1000; ++round) {
                const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/prize"), .size = 1);
                Client *first = round % 2 ? scene.alice : scene.bob, *second = round % 2 ? scene.bob : scene.alice;
                int a, b;

                (void)client_send(first, MESSAGE_CREATE, create);
                (void)client_send(second, MESSAGE_CREATE, create);
                a = client_receive(scene.alice, TEST_PATIENCE_MS);
                b = client_receive(scene.bob, TEST_PATIENCE_MS);
                REQUIRE((a == CLIENT_REPLY && b == CLIENT_REFUSED) || (a == CLIENT_REFUSED && b == CLIENT_REPLY));
                ++wins[a == CLIENT_REPLY ? 0 : 1];
                client_expect_done(a == CLIENT_REPLY ? scene.alice : scene.bob,
                                   call_unlink(a == CLIENT_REPLY ? scene.alice : scene.bob, "/prize"));
        }
        REQUIRE(wins[0] + wins[1] == 1000);
        scene_end(&scene);
}

TEST(names, attack_051_who_holds_an_unlinked_region_never_sees_its_successor) {
        Scene scene = scene_begin();
        Grant old = GRANT_NULL, new = GRANT_NULL, again = GRANT_NULL;
        char byte;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", PAGE, 0644, &old));
        REQUIRE(pwrite(old.fd, "o", 1, 0) == 1);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", PAGE, 0644, &new));
        REQUIRE(new.region != old.region);
        REQUIRE(pread(new.fd, &byte, 1, 0) == 1 && byte == 0);
        REQUIRE(pwrite(new.fd, "n", 1, 0) == 1);
        REQUIRE(pread(old.fd, &byte, 1, 0) == 1 && byte == 'o');
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &again));
        REQUIRE(again.region == new.region && pread(again.fd, &byte, 1, 0) == 1 && byte == 'n');
        grant_deinit(&old);
        grant_deinit(&new);
        grant_deinit(&again);
        scene_end(&scene);
}

TEST(names, attack_050_a_thousand_names_in_one_directory_are_listed_once_each_and_in_order) {
        enum { N = 1000, WINDOW = 50 };
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        char path[64], cursor[64] = "", last[64] = "";
        size_t n = 0;

        for (int i = 0; i < N; i += WINDOW) {
                for (int k = i; k < i + WINDOW; ++k) {
                        (void)snprintf(path, sizeof(path), "/n%03d", k * 919 % N);
                        (void)client_send(client, MESSAGE_MKDIR,
                                          REQUEST(Mkdir, mkdir, .path = BYTES(path), .mode = 0700));
                }
                for (int k = 0; k < WINDOW; ++k)
                        REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_REPLY, "%s", client_describe(client));
        }
        do {
                Shmd__ListReply *list;

                client_expect_done(client, client_call(client, MESSAGE_LIST,
                                                       REQUEST(List, list, .path = BYTES("/"), .cursor = BYTES(cursor))));
                list = (Shmd__ListReply *)client->reply;
                for (size_t i = 0; i < list->n_nodes; ++i, ++n) {
                        (void)snprintf(path, sizeof(path), "%.*s", (int)list->nodes[i]->path.len,
                                       (char *)list->nodes[i]->path.data);
                        REQUIRE(strcmp(path, last) > 0);
                        memcpy(last, path, sizeof(path));
                }
                (void)snprintf(cursor, sizeof(cursor), "%.*s", (int)list->cursor.len, (char *)list->cursor.data);
        } while (cursor[0]);
        REQUIRE(n == N, "%zu", n);
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(names, a_list_may_be_short_pages_and_survives_changes_between_them) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        Shmd__ListReply *list;
        char cursor[64];

        for (int i = 0; i < 10; ++i) {
                (void)snprintf(cursor, sizeof(cursor), "/n%d", i);
                client_expect_done(client, call_create(client, cursor, 1, NULL));
        }
        client_expect_done(client, client_call(client, MESSAGE_LIST,
                                               REQUEST(List, list, .path = BYTES("/"), .limit = 3)));
        list = (Shmd__ListReply *)client->reply;
        REQUIRE(list->n_nodes == 3 && list->cursor.len == 3 && memcmp(list->cursor.data, "/n2", 3) == 0);

        /* The name the cursor stands on goes, and so does one that was not seen yet. */
        client_expect_done(client, call_unlink(client, "/n2"));
        client_expect_done(client, call_unlink(client, "/n5"));
        client_expect_done(client, client_call(client, MESSAGE_LIST,
                                               REQUEST(List, list, .path = BYTES("/"), .cursor = BYTES("/n2"))));
        list = (Shmd__ListReply *)client->reply;
        REQUIRE(list->n_nodes == 6 && list->cursor.len == 0);
        REQUIRE(memcmp(list->nodes[0]->path.data, "/n3", 3) == 0);
        REQUIRE(memcmp(list->nodes[2]->path.data, "/n6", 3) == 0);
        client = client_free(client);
        broker = broker_stop(broker);
}
