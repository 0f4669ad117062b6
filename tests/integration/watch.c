/* Hearing of what happens: waits for regions, and watches of names.
 *
 * What a watch told is kept as one line of text, "created /x, removed /x", so that a test reads as what
 * was done and what was heard of it.
 */

#include "lib/client.h"
#include "lib/innocent.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
        REQUIRE(waited(client)->region == region && waited(client)->path.len == strlen(path));
        REQUIRE(path[0] == '\0' || memcmp(waited(client)->path.data, path, strlen(path)) == 0);
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

/* -- watches ------------------------------------------------------------------------------ */

#define ALL 511u
#define ALL_BUT_HOLDERS (ALL & ~(uint32_t)SHMD__EVENT_MASK__EVENT_HOLDERS)
#define REPLACE SHMD__RENAME_FLAGS__RENAME_REPLACE
#define EXCHANGE SHMD__RENAME_FLAGS__RENAME_EXCHANGE

/* Return: the wire's error; *ret is the watch's number, *ret_sequence (may be NULL) where it begins. */
static uint32_t call_watch(Client *client, const char *path, uint32_t mask, uint64_t since, uint64_t *ret,
                           uint64_t *ret_sequence) {
        uint32_t error = client_call(client, MESSAGE_WATCH,
                                     REQUEST(Watch, watch, .path = BYTES(path), .mask = mask, .sequence = since));

        if (!error) {
                *ret = ((Shmd__WatchReply *)client->reply)->watch;
                if (ret_sequence)
                        *ret_sequence = ((Shmd__WatchReply *)client->reply)->sequence;
        }
        return error;
}

static uint32_t call_unwatch(Client *client, uint64_t watch) {
        return client_call(client, MESSAGE_UNWATCH, REQUEST(Unwatch, unwatch, .watch = watch));
}

typedef struct Heard {
        char text[65536];
        size_t n;
        size_t n_events;
        size_t n_overflows;
        uint64_t sequence;      /* of the latest event */
        uint64_t watch;         /* the only one that is listened to; 0: all */
} Heard;

static const char *event_word(uint32_t event) {
        static const char *const words[] = { "created", "removed", "renamed", "replaced", "frozen", "holders", "limits",
                                             "overflow", "changed" };

        REQUIRE(event && (event & (event - 1)) == 0 && event < 512, "event %u", event);
        return words[__builtin_ctz(event)];
}

static void hear(Client *client, const Shmd__Event *event, void *userdata) {
        Heard *heard = userdata;
        size_t left = sizeof(heard->text) - heard->n;

        (void)client;
        if (heard->watch && event->watch != heard->watch)
                return;
        REQUIRE(event->sequence >= heard->sequence, "events come in their order");
        heard->sequence = event->sequence;
        ++heard->n_events;
        heard->n_overflows += event->event == SHMD__EVENT_MASK__EVENT_OVERFLOW;
        if (left < 4096)
                return;
        heard->n += (size_t)snprintf(heard->text + heard->n, left, "%s%s %.*s", heard->n ? ", " : "",
                                     event_word(event->event), (int)event->path.len, (char *)event->path.data);
        if (event->to.len)
                heard->n += (size_t)snprintf(heard->text + heard->n, left - 2048, " > %.*s", (int)event->to.len,
                                             (char *)event->to.data);
        if (event->event == SHMD__EVENT_MASK__EVENT_HOLDERS)
                heard->n += (size_t)snprintf(heard->text + heard->n, 64, " %s %" PRIu64, event->held ? "held" : "free",
                                             event->grants);
}

static void listen_to(Client *client, Heard *heard) {
        client->on_event = hear;
        client->event_userdata = heard;
}

static void forget(Heard *heard) {
        heard->n = 0;
        heard->text[0] = '\0';
}

/* What was to come has come: the events of a turn are sent when it is over, so two turns are enough. */
static const char *hear_all(Client *client) {
        Heard *heard = client->event_userdata;

        client_expect_done(client, call_ping(client));
        client_expect_done(client, call_ping(client));
        return heard->text;
}

#define EXPECT_HEARD(client, expected)                                                  \
        do {                                                                            \
                const char *was_heard = hear_all(client);                               \
                                                                                        \
                REQUIRE(strcmp(was_heard, (expected)) == 0, "heard \"%s\"", was_heard);  \
                forget((client)->event_userdata);                                       \
        } while (0)

/* Waits until something is heard that contains the text. */
static void expect_to_hear(Client *client, const char *text) {
        Heard *heard = client->event_userdata;
        int64_t until = test_now_ms() + TEST_PATIENCE_MS;

        while (!strstr(hear_all(client), text)) {
                REQUIRE(test_now_ms() < until, "never heard \"%s\", but \"%s\"", text, heard->text);
                test_sleep_ms(2);
        }
        forget(heard);
}

TEST(watch, who_watches_hears_what_others_do_below_and_nothing_else) {
        static Heard heard;
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        Grant grant = GRANT_NULL;
        uint64_t watch;

        client_expect_done(alice, call_mkdir(alice, "/d", 0755));
        client_expect_done(alice, call_mkdir(alice, "/beside", 0755));
        client_expect_done(alice, call_create(alice, "/beside/in", 1, NULL));
        listen_to(bob, &heard);
        client_expect_done(bob, call_watch(bob, "/d", ALL, 0, &watch, NULL));
        client_expect_done(alice, call_create(alice, "/d/a", 1, NULL));
        client_expect_done(alice, call_mkdir(alice, "/d/e", 0755));
        client_expect_done(alice, call_rename(alice, "/d/a", "/d/e/b", 0));
        EXPECT_HEARD(bob, "created /a, created /e, renamed /a > /e/b");
        client_expect_done(alice, call_create(alice, "/beside/a", 1, NULL));
        client_expect_done(alice, call_rename(alice, "/d/e/b", "/beside/b", 0));
        client_expect_done(alice, call_rename(alice, "/beside/b", "/d/c", 0));
        client_expect_done(alice, call_rename(alice, "/beside/in", "/d/c", REPLACE));
        client_expect_done(alice, call_rename(alice, "/d/c", "/beside/a", EXCHANGE));
        EXPECT_HEARD(bob, "removed /e/b, created /c, replaced /c, replaced /c");
        client_expect_done(alice, call_create(alice, NULL, 1, &grant));
        client_expect_done(alice, call_publish(alice, grant.region, "/d/c", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        client_expect_done(alice, call_chmod(alice, "/d/c", 0644));
        client_expect_done(alice, call_unlink(alice, "/d/c"));
        client_expect_done(alice, call_rmdir(alice, "/d/e"));
        EXPECT_HEARD(bob, "replaced /c, changed /c, removed /c, removed /e");
        client_expect_done(alice, call_rmdir(alice, "/d"));
        EXPECT_HEARD(bob, "removed ");
        client_expect_error(bob, NOT_FOUND, EVENTS, call_unwatch(bob, watch));
        REQUIRE(client_used(bob, WATCHES_SLOT) == 0, "a watch that is over costs nothing");
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(watch, what_is_undone_is_never_heard_of_and_what_goes_by_itself_is) {
        static Heard heard;
        Scene scene = scene_begin("[account]\ngrants = 2");
        Client *alice = scene.alice, *bob = scene.bob;
        Client *session = client_connect_as(scene.broker, CAROL, CAROL);
        Shmd__BatchItem items[3], *pointers[] = { &items[0], &items[1], &items[2] };
        Shmd__Create creates[3];
        uint64_t watch;

        for (int i = 0; i < 3; ++i) {
                static const char *const names[] = { "/one", "/two", "/three" };

                creates[i] = (Shmd__Create)SHMD__CREATE__INIT;
                creates[i].path = BYTES(names[i]);
                creates[i].size = 1;
                creates[i].rights = READ_WRITE;
                items[i] = (Shmd__BatchItem)SHMD__BATCH_ITEM__INIT;
                items[i].create = &creates[i];
        }
        listen_to(bob, &heard);
        client_expect_done(bob, call_watch(bob, "/", ALL_BUT_HOLDERS, 0, &watch, NULL));
        client_expect_error(alice, QUOTA, LIMIT, client_call(alice, MESSAGE_BATCH,
                                                             REQUEST(Batch, batch, .n_items = 3, .items = pointers)));
        EXPECT_HEARD(bob, "");
        client_expect_done(alice, client_call(alice, MESSAGE_BATCH,
                                              REQUEST(Batch, batch, .n_items = 2, .items = pointers)));
        EXPECT_HEARD(bob, "created /one, created /two");
        client_expect_done(session, call_create_with(session, REQUEST(Create, create, .path = BYTES("/s"), .size = 1,
                                                     .lifetime = SHMD__LIFETIME__LIFETIME_SESSION), NULL));
        session = client_free(session);
        expect_to_hear(bob, "created /s, removed /s");
        scene_end(&scene);
}

TEST(watch, who_may_not_look_hears_nothing_until_it_may) {
        static Heard heard;
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        uint64_t watch;

        client_expect_done(alice, call_mkdir(alice, "/d", 0755));
        client_expect_done(alice, call_mkdir(alice, "/d/p", 0711));
        listen_to(bob, &heard);
        client_expect_error(bob, DENIED, DIRECTORY_READ, call_watch(bob, "/d/p", ALL, 0, &watch, NULL));
        client_expect_error(bob, NOT_FOUND, MISSING, call_watch(bob, "/none", ALL, 0, &watch, NULL));
        client_expect_error(bob, INVALID, EVENTS, call_watch(bob, "/d", 0, 0, &watch, NULL));
        client_expect_error(bob, INVALID, EVENTS, call_watch(bob, "/d", 512, 0, &watch, NULL));
        client_expect_done(bob, call_watch(bob, "/d", ALL, 0, &watch, NULL));
        client_expect_error(alice, NOT_FOUND, EVENTS, call_unwatch(alice, watch));
        client_expect_done(alice, call_create(alice, "/d/p/secret", 1, NULL));
        client_expect_done(alice, call_rename(alice, "/d/p/secret", "/d/known", 0));
        client_expect_done(alice, call_rename(alice, "/d/known", "/d/p/secret", 0));
        EXPECT_HEARD(bob, "created /known, removed /known");
        client_expect_done(alice, call_chmod(alice, "/d/p", 0755));
        client_expect_done(alice, call_create(alice, "/d/p/seen", 1, NULL));
        client_expect_done(alice, call_chmod(alice, "/d/p", 0700));
        client_expect_done(alice, call_unlink(alice, "/d/p/seen"));
        EXPECT_HEARD(bob, "changed /p, created /p/seen, changed /p");
        client_expect_done(alice, call_chmod(alice, "/d", 0711));
        client_expect_done(alice, call_create(alice, "/d/hidden", 1, NULL));
        EXPECT_HEARD(bob, "changed ");
        client_expect_done(bob, call_unwatch(bob, watch));
        client_expect_done(alice, call_chmod(alice, "/d", 0755));
        EXPECT_HEARD(bob, "");
        scene_end(&scene);
}

TEST(watch, a_watch_that_begins_in_the_past_misses_nothing_or_says_so) {
        static Heard heard;
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        uint64_t watch, since, begun;

        client_expect_done(alice, call_mkdir(alice, "/d", 0755));
        client_expect_done(bob, call_list(bob, "/d", 0));
        since = ((Shmd__ListReply *)bob->reply)->sequence;
        REQUIRE(since != 0);
        client_expect_done(alice, call_create(alice, "/d/x", 1, NULL));
        client_expect_done(alice, call_rename(alice, "/d/x", "/d/y", 0));
        listen_to(bob, &heard);
        client_expect_done(bob, call_watch(bob, "/d", ALL, since, &watch, &begun));
        REQUIRE(begun == since);
        client_expect_done(alice, call_unlink(alice, "/d/y"));
        EXPECT_HEARD(bob, "created /x, renamed /x > /y, removed /y");
        client_expect_done(bob, call_unwatch(bob, watch));

        client_expect_done(bob, call_watch(bob, "/d", ALL, since + 1000, &watch, &begun));
        REQUIRE(begun == since + 3);
        EXPECT_HEARD(bob, "overflow ");
        REQUIRE(heard.sequence == since + 3);
        client_expect_done(bob, call_unwatch(bob, watch));
        client_expect_done(bob, call_watch(bob, "/d", ALL, 7, &watch, &begun));
        EXPECT_HEARD(bob, "overflow ");
        client_expect_done(bob, call_unwatch(bob, watch));
        client_expect_done(bob, call_watch(bob, "/d", ALL, UINT64_MAX, &watch, &begun));
        EXPECT_HEARD(bob, "overflow ");
        scene_end(&scene);
}

TEST(watch, holders_are_heard_of_when_they_come_and_when_the_kernel_says_they_went) {
        static Heard heard;
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        Grant grant = GRANT_NULL, second = GRANT_NULL, later = GRANT_NULL;
        uint64_t watch;

        client_expect_done(alice, call_mkdir(alice, "/d", 0755));
        client_expect_done(alice, call_create_mode(alice, "/d/old", 1, 0644, &grant));
        listen_to(bob, &heard);
        client_expect_done(bob, call_watch(bob, "/", SHMD__EVENT_MASK__EVENT_HOLDERS, 0, &watch, NULL));
        EXPECT_HEARD(bob, "");
        client_expect_done(alice, call_open(alice, "/d/old", READ_ONLY, &second));
        expect_to_hear(bob, "holders /d/old held 2");
        grant_deinit(&grant);
        expect_to_hear(bob, "holders /d/old held 1");
        grant_deinit(&second);
        expect_to_hear(bob, "holders /d/old free 0");
        client_expect_done(alice, call_create(alice, "/new", 1, &later));
        grant_deinit(&later);
        expect_to_hear(bob, "holders /new free 0");
        client_expect_done(bob, call_unwatch(bob, watch));
        client_expect_done(alice, call_open(alice, "/d/old", READ_ONLY, &second));
        EXPECT_HEARD(bob, "");
        grant_deinit(&second);
        scene_end(&scene);
}

TEST(watch, that_a_region_was_frozen_is_heard_by_who_watches_and_who_waits) {
        static Heard heard;
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        Grant grant = GRANT_NULL;
        uint64_t watch;

        client_expect_done(alice, call_create_with(alice, REQUEST(Create, create, .path = BYTES("/r"), .size = PAGE,
                                                   .mode = 0644, .rights = READ_WRITE,
                                                   .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE), &grant));
        listen_to(bob, &heard);
        client_expect_done(bob, call_watch(bob, "/", SHMD__EVENT_MASK__EVENT_FROZEN, 0, &watch, NULL));
        begin_wait(scene.root, "/r", 0, WAIT_FROZEN);
        REQUIRE(fcntl(grant.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0, "%s", strerror(errno));
        client_expect_done(alice, client_call(alice, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES("/r"))));
        expect_waited(scene.root, "/r", grant.region);
        EXPECT_HEARD(bob, "frozen /r");
        client_expect_done(bob, call_wait_for(bob, "/r", 0, WAIT_FROZEN, 0));
        grant_deinit(&grant);
        scene_end(&scene);
}

/* -- those who do not read ---------------------------------------------------------------- */

TEST(watch, who_reads_late_is_told_that_it_lost_something_and_how_far) {
        static Heard heard, quiet;
        Scene scene = scene_begin("[time]\nstall = 1s");
        Client *alice = scene.alice, *bob = scene.bob;
        Client *calm = client_connect_as(scene.broker, CAROL, CAROL);
        uint64_t watch;

        client_expect_done(alice, call_mkdir(alice, "/noise", 0755));
        client_expect_done(alice, call_mkdir(alice, "/quiet", 0755));
        listen_to(calm, &quiet);
        client_expect_done(calm, call_watch(calm, "/quiet", ALL, 0, &watch, NULL));
        client_expect_done(bob, call_watch(bob, "/noise", ALL, 0, &watch, NULL));
        client_expect_done(alice, call_create(alice, "/quiet/x", 1, NULL));
        for (unsigned int i = 0; i < 20000; ++i)
                client_expect_done(alice, i % 2 ? call_unlink(alice, "/noise/x") :
                                                  call_create(alice, "/noise/x", 1, NULL));
        /* It has taken nothing for longer than anybody may leave an answer unread. */
        test_sleep_ms(2500);
        client_expect_done(alice, call_create(alice, "/quiet/y", 1, NULL));
        EXPECT_HEARD(calm, "created /x, created /y");

        listen_to(bob, &heard);
        expect_to_hear(bob, "created /x");
        for (int64_t until = test_now_ms() + TEST_PATIENCE_MS; heard.n_overflows == 0; (void)hear_all(bob))
                REQUIRE(test_now_ms() < until, "never told");
        REQUIRE(heard.n_overflows == 1 && heard.n_events > 100 && heard.n_events < 20000);
        forget(&heard);
        client_expect_done(alice, call_create(alice, "/noise/after", 1, NULL));
        EXPECT_HEARD(bob, "created /after");
        calm = client_free(calm);
        scene_end(&scene);
}

TEST(watch, a_thousand_watches_that_nobody_reads_cost_others_little) {
        enum { N = 1000 };
        Scene scene = scene_begin(NULL);
        Client *alice = scene.alice, *bob = scene.bob;
        Innocent innocent;
        size_t before;
        uint64_t watch;

        client_expect_done(alice, call_ping(alice));
        before = broker_rss(scene.broker);
        for (int i = 0; i < N; ++i)
                client_expect_done(bob, call_watch(bob, "/", ALL, 0, &watch, NULL));
        innocent_start(&innocent, scene.broker, CAROL);
        for (unsigned int i = 0; i < 2000; ++i)
                client_expect_done(alice, i % 2 ? call_unlink(alice, "/x") : call_create(alice, "/x", 1, NULL));
        (void)innocent_stop(&innocent, "a thousand watches that nobody reads");
        (void)fprintf(stderr, "%d watches nobody reads: %zu KiB more\n", N, (broker_rss(scene.broker) - before) / 1024);
        broker_expect_rss(scene.broker, before + (16u << 20));
        scene.bob = client_free(bob);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_used(scene.bob, WATCHES_SLOT, 0);
        scene_end(&scene);
}

TEST(watch, the_limit_of_watches_is_exact_and_comes_back) {
        Scene scene = scene_begin("[account]\nwatches = 3");
        uint64_t watches[3], watch;
        Client *bob = scene.bob;

        for (int i = 0; i < 3; ++i)
                client_expect_done(bob, call_watch(bob, "/", ALL, 0, &watches[i], NULL));
        client_expect_error(bob, QUOTA, LIMIT, call_watch(bob, "/", ALL, 0, &watch, NULL));
        REQUIRE(bob->refusal->slot == WATCHES_SLOT);
        client_expect_done(bob, call_unwatch(bob, watches[1]));
        client_expect_done(bob, call_watch(bob, "/", ALL, 0, &watch, NULL));
        scene_end(&scene);
}

/* -- listing and watching a busy tree ----------------------------------------------------- */

#define WRITERS 3
#define ROUNDS 24
#define NAMES 4096
#define NEWS 65536
#define PAGES 256

/* What the test and its writers have in common. */
typedef struct Busy {
        Broker *broker;
        int pause;
        int paused[WRITERS];
} Busy;

typedef struct Writer {
        Busy *busy;
        int number;
        uint64_t seed;
} Writer;

static unsigned int random_of(uint64_t *state, unsigned int n) {
        return (unsigned int)test_random(state, n);
}

/* "/busy/b/x3" or, one in four, "/busy/b/d1/x3"; or such a directory. */
static const char *busy_path(uint64_t *state, bool directory, char path[64]) {
        int n = snprintf(path, 64, "/busy/%c", 'a' + (char)random_of(state, 4));

        if (directory || random_of(state, 4) == 0)
                n += snprintf(path + n, 64 - (size_t)n, "/d%u", random_of(state, 3));
        if (!directory)
                (void)snprintf(path + n, 64 - (size_t)n, "/x%u", random_of(state, 12));
        return path;
}

static void write_something(Client *client, uint64_t *state) {
        char a[64], b[64];

        switch (random_of(state, 12)) {
        case 0:
                (void)call_mkdir(client, busy_path(state, true, a), 0777);
                return;
        case 1:
                (void)call_rmdir(client, busy_path(state, true, a));
                return;
        case 2:
                (void)call_unlink(client, busy_path(state, false, a));
                return;
        case 3:
                (void)call_chmod(client, busy_path(state, false, a), 0640);
                return;
        case 4:
                (void)client_call(client, MESSAGE_LINK,
                                  REQUEST(Link, link, .path = BYTES(busy_path(state, false, a)),
                                          .to = BYTES(busy_path(state, false, b))));
                return;
        case 5:
        case 6:
        case 7:
                (void)call_rename(client, busy_path(state, false, a), busy_path(state, false, b), random_of(state, 3));
                return;
        case 8:
                /* Seldom, because a list has to be made again after it. */
                if (random_of(state, 40) == 0)
                        (void)call_rename(client, busy_path(state, true, a), busy_path(state, true, b),
                                          random_of(state, 3));
                return;
        default:
                (void)call_create(client, busy_path(state, false, a), 0, NULL);
        }
}

static int write_on(void *userdata) {
        static const uid_t uids[] = { ALICE, BOB, CAROL };
        const Writer *writer = userdata;
        Busy *busy = writer->busy;
        int me = writer->number;
        uint64_t state = writer->seed;
        Client *client = client_connect_as(busy->broker, uids[me], uids[me]);

        while (getppid() != 1) {
                if (__atomic_load_n(&busy->pause, __ATOMIC_ACQUIRE)) {
                        __atomic_store_n(&busy->paused[me], 1, __ATOMIC_RELEASE);
                        test_sleep_ms(1);
                        continue;
                }
                __atomic_store_n(&busy->paused[me], 0, __ATOMIC_RELEASE);
                write_something(client, &state);
        }
        return 0;
}

static bool all_paused(void *userdata) {
        Busy *busy = userdata;

        for (int i = 0; i < WRITERS; ++i)
                if (!__atomic_load_n(&busy->paused[i], __ATOMIC_ACQUIRE))
                        return false;
        return true;
}

static void pause_writers(Busy *busy, bool pause) {
        /* One that has not noticed yet that the last pause is over must say it anew. */
        for (int i = 0; i < WRITERS; ++i)
                __atomic_store_n(&busy->paused[i], 0, __ATOMIC_RELEASE);
        __atomic_store_n(&busy->pause, pause, __ATOMIC_RELEASE);
        REQUIRE(!pause || test_eventually(all_paused, busy), "a writer is stuck");
}

/* What is known: each name and the number of its region (0: a directory). */
typedef struct Known {
        bool used;
        uint64_t region;
        char path[64];
} Known;

typedef struct News {
        uint64_t sequence;
        uint32_t event;
        bool directory;
        bool exchange;
        uint64_t region;
        char path[64];
        char to[64];
} News;

typedef struct ListPage {
        uint64_t sequence;
        char last[64];          /* empty: the last page */
} ListPage;

typedef struct Observer {
        Client *client;
        Known known[NAMES];
        News news[NEWS];
        size_t n_news;
        bool overflow;
        ListPage pages[PAGES];
        size_t n_pages;
} Observer;

static void path_copy(char path[64], const char *prefix, ProtobufCBinaryData from) {
        REQUIRE(strlen(prefix) + from.len < 64);
        (void)snprintf(path, 64, "%s%.*s", prefix, (int)from.len, (char *)from.data);
}

static void note(Client *client, const Shmd__Event *event, void *userdata) {
        Observer *observer = userdata;
        News *news = &observer->news[observer->n_news];

        (void)client;
        observer->overflow |= event->event == SHMD__EVENT_MASK__EVENT_OVERFLOW;
        REQUIRE(++observer->n_news < NEWS);
        *news = (News){ .sequence = event->sequence, .event = event->event, .exchange = event->exchange,
                        .region = event->region, .directory = event->kind == SHMD__NODE_KIND__NODE_DIRECTORY };
        path_copy(news->path, "/busy", event->path);
        path_copy(news->to, "/busy", event->to);
}

static Known *known_at(Observer *observer, const char *path) {
        for (Known *k = observer->known; k < observer->known + NAMES; ++k)
                if (k->used && !strcmp(k->path, path))
                        return k;
        return NULL;
}

static void know(Observer *observer, const char *path, uint64_t region) {
        Known *k = observer->known;

        while (k->used)
                REQUIRE(++k < observer->known + NAMES);
        *k = (Known){ .used = true, .region = region };
        (void)strcpy(k->path, path);
}

static bool path_is_within(const char *path, const char *above) {
        size_t n = strlen(above);

        return !strncmp(path, above, n) && (path[n] == '\0' || path[n] == '/');
}

static void forget_below(Observer *observer, const char *path) {
        for (Known *k = observer->known; k < observer->known + NAMES; ++k)
                if (k->used && path_is_within(k->path, path))
                        k->used = false;
}

static void move_below(Observer *observer, const char *path, const char *to) {
        for (Known *k = observer->known; k < observer->known + NAMES; ++k) {
                char moved[128];

                if (!k->used || !path_is_within(k->path, path))
                        continue;
                (void)snprintf(moved, sizeof(moved), "%s%s", to, k->path + strlen(path));
                REQUIRE(strlen(moved) < sizeof(k->path));
                (void)strcpy(k->path, moved);
        }
}

/* The pages in the order of a list: a directory, then what is below it. */
static int list_order(const char *a, const char *b) {
        for (; *a && *a == *b; ++a, ++b)
                continue;
        if (*a == *b)
                return 0;
        if (!*a || !*b || (*a != '/' && *b != '/'))
                return (unsigned char)*a - (unsigned char)*b;
        return *a == '/' ? -1 : 1;
}

static bool is_in_list(const Observer *observer, const char *path, uint64_t sequence) {
        for (size_t i = 0; i < observer->n_pages; ++i)
                if (!observer->pages[i].last[0] || list_order(path, observer->pages[i].last) <= 0)
                        return sequence <= observer->pages[i].sequence;
        return false;
}

static void list_busy(Observer *observer, uint32_t limit) {
        char cursor[64] = "";

        memset(observer->known, 0, sizeof(observer->known));
        observer->n_pages = 0;
        do {
                Shmd__ListReply *list;
                ListPage *page = &observer->pages[observer->n_pages];

                REQUIRE(++observer->n_pages < PAGES);
                client_expect_done(observer->client,
                                   client_call(observer->client, MESSAGE_LIST,
                                               REQUEST(List, list, .path = BYTES("/busy"), .cursor = BYTES(cursor),
                                                       .flags = SHMD__LIST_FLAGS__LIST_RECURSIVE, .limit = limit)));
                list = (Shmd__ListReply *)observer->client->reply;
                for (size_t i = 0; i < list->n_nodes; ++i) {
                        char path[64];

                        path_copy(path, "", list->nodes[i]->path);
                        know(observer, path, list->nodes[i]->region);
                }
                path_copy(cursor, "", list->cursor);
                page->sequence = list->sequence;
                (void)strcpy(page->last, cursor);
        } while (cursor[0]);
}

/* Whether a directory was moved while the pages were made. */
static bool is_torn(const Observer *observer) {
        for (size_t i = 0; i < observer->n_news; ++i) {
                const News *n = &observer->news[i];

                if ((n->directory || n->exchange) &&
                    n->event & (SHMD__EVENT_MASK__EVENT_RENAMED | SHMD__EVENT_MASK__EVENT_REPLACED) &&
                    n->sequence > observer->pages[0].sequence &&
                    n->sequence <= observer->pages[observer->n_pages - 1].sequence)
                        return true;
        }
        return false;
}

/* An event that no page has must fit what is known: if one were missing, or told twice, it would not. */
static void apply(Observer *observer, const News *n) {
        bool path = !is_in_list(observer, n->path, n->sequence);
        bool to = n->event == SHMD__EVENT_MASK__EVENT_RENAMED && !is_in_list(observer, n->to, n->sequence);
        Known *at = known_at(observer, n->path), *at_to = to ? known_at(observer, n->to) : NULL;

        if (n->event == SHMD__EVENT_MASK__EVENT_RENAMED && path != to) {
                if (path)
                        forget_below(observer, n->path);
                if (to)
                        forget_below(observer, n->to);
                if (to)
                        know(observer, n->to, n->region);
                return;
        }
        if (!path)
                return;
        switch (n->event) {
        case SHMD__EVENT_MASK__EVENT_CREATED:
                REQUIRE(!at, "%s was created and is known", n->path);
                know(observer, n->path, n->region);
                return;
        case SHMD__EVENT_MASK__EVENT_REMOVED:
                REQUIRE(at && at->region == n->region, "%s was removed and is not known", n->path);
                forget_below(observer, n->path);
                return;
        case SHMD__EVENT_MASK__EVENT_RENAMED:
                REQUIRE(at && at->region == n->region, "%s was renamed and is not known", n->path);
                REQUIRE(!n->exchange || at_to, "%s changed places and is not known", n->to);
                if (n->exchange)
                        move_below(observer, n->to, "/swap");
                else
                        forget_below(observer, n->to);
                move_below(observer, n->path, n->to);
                move_below(observer, "/swap", n->path);
                return;
        case SHMD__EVENT_MASK__EVENT_CHANGED:
                REQUIRE(at, "%s was changed and is not known", n->path);
                return;
        default:
                test_fail(__FILE__, __LINE__, "an event that was asked for", " %u", n->event);
        }
}

/* What is known must be what is there, now that nobody writes. */
static void compare_known(Observer *observer) {
        static Observer fresh;
        size_t n = 0, there = 0;

        fresh.client = observer->client;
        list_busy(&fresh, 0);
        for (size_t i = 0; i < NAMES; ++i) {
                const Known *k;

                n += observer->known[i].used;
                there += fresh.known[i].used;
                if (!fresh.known[i].used)
                        continue;
                k = known_at(observer, fresh.known[i].path);
                REQUIRE(k && k->region == fresh.known[i].region, "%s is there and was not told", fresh.known[i].path);
        }
        REQUIRE(n == there, "%zu names are known, %zu are there", n, there);
}

static bool is_told_of_the_end(void *userdata) {
        Observer *observer = userdata;

        client_expect_done(observer->client, call_ping(observer->client));
        return observer->overflow || (observer->n_news > 0 &&
                                      !strcmp(observer->news[observer->n_news - 1].path, "/busy/end") &&
                                      observer->news[observer->n_news - 1].event == SHMD__EVENT_MASK__EVENT_REMOVED);
}

/* Events come in order: when the last change is told, all others were. */
static void observe_the_end(Observer *observer) {
        client_expect_done(observer->client, call_mkdir(observer->client, "/busy/end", 0700));
        client_expect_done(observer->client, call_rmdir(observer->client, "/busy/end"));
        REQUIRE(test_eventually(is_told_of_the_end, observer));
}

/* Lists and watches while others write, in this or the other order. Return: whether the list was whole. */
static bool observe(Observer *observer, Busy *busy, bool watch_first) {
        const uint64_t *first = &observer->pages[0].sequence;
        Client *client = observer->client;
        bool whole;
        uint64_t watch;

        observer->n_news = 0;
        observer->overflow = false;
        if (watch_first)
                client_expect_done(client, call_watch(client, "/busy", ALL_BUT_HOLDERS, 0, &watch, NULL));
        list_busy(observer, 10);
        if (!watch_first)
                client_expect_done(client, call_watch(client, "/busy", ALL_BUT_HOLDERS, *first, &watch, NULL));
        for (int i = 0; i < 100; ++i)
                client_expect_done(client, call_ping(client));
        pause_writers(busy, true);
        observe_the_end(observer);
        whole = !observer->overflow && !is_torn(observer);
        for (size_t i = 0; whole && i < observer->n_news; ++i)
                apply(observer, &observer->news[i]);
        if (whole)
                compare_known(observer);
        client_expect_done(client, call_unwatch(client, watch));
        pause_writers(busy, false);
        return whole;
}

TEST(watch, list_then_watch_of_a_busy_tree_misses_and_doubles_nothing) {
        static Observer observer;
        Scene scene = scene_begin(NULL);
        Client *root = scene.root;
        Child children[WRITERS];
        Writer writers[WRITERS];
        size_t n = 0, n_torn = 0, n_events = 0;
        uint64_t seed = test_seed();
        Busy *busy = mmap(NULL, sizeof(*busy), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        REQUIRE(busy != MAP_FAILED);
        *busy = (Busy){ .broker = scene.broker };
        client_expect_done(root, call_mkdir(root, "/busy", 0777));
        client_expect_done(root, call_mkdir(root, "/busy/a", 0777));
        client_expect_done(root, call_mkdir(root, "/busy/b", 0777));
        client_expect_done(root, call_mkdir(root, "/busy/c", 0777));
        client_expect_done(root, call_mkdir(root, "/busy/d", 0777));
        observer.client = scene.bob;
        scene.bob->on_event = note;
        scene.bob->event_userdata = &observer;
        for (int i = 0; i < WRITERS; ++i) {
                writers[i] = (Writer){ busy, i, seed + 2 * (uint64_t)i };
                child_start(&children[i], write_on, &writers[i]);
        }
        /* How much the writers get done in a round is the machine's business. */
        while (n < ROUNDS || n_events <= 1000) {
                bool whole = observe(&observer, busy, n % 2);

                n += whole;
                n_torn += !whole;
                n_events += observer.n_news;
                REQUIRE(n_torn < 50 * ROUNDS || n > 0, "no list is whole");
        }
        (void)fprintf(stderr, "%zu lists and watches agreed, %zu were torn, %zu events\n", n, n_torn, n_events);
        for (int i = 0; i < WRITERS; ++i)
                child_kill(&children[i]);
        (void)munmap(busy, sizeof(*busy));
        scene_end(&scene);
}
