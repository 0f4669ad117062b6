/* Tickets in the real broker, between processes of real users.
 *
 * Alice has a region that nobody else may have, and issues tickets for it. What others get with them,
 * and what they learn without, is looked at from outside: what comes over the socket, what is on the
 * books, and whether others notice.
 */

#include "lib/client.h"
#include "lib/innocent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOT_PENDING SHMD__SLOT__SLOT_PENDING
#define SLOT_GRANTS SHMD__SLOT__SLOT_GRANTS
#define SLOT_BYTES SHMD__SLOT__SLOT_BYTES
#define ONE_USER SHMD__TICKET_FLAGS__TICKET_ONE_USER
#define TEXT_BYTES 49
#define ISSUE(...) REQUEST(Ticket, ticket, __VA_ARGS__)

typedef struct Text {
        char bytes[TEXT_BYTES];
        uint64_t id;
} Text;

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob;
} Scene;

static Scene scene_begin(const char *config) {
        Scene scene;

        test_needs_root();
        scene.broker = broker_spawn(config);
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/closed", 0700));
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/closed/x", PAGE, 0, NULL));
        return scene;
}

static void scene_end(Scene *scene) {
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->broker = broker_stop(scene->broker);
}

static Text issue(Client *client, const ProtobufCMessage *request) {
        const Shmd__TicketReply *reply;
        Text text;

        client_expect_done(client, client_call(client, MESSAGE_TICKET, request));
        reply = (const Shmd__TicketReply *)client->reply;
        REQUIRE(reply->ticket.len == TEXT_BYTES);
        memcpy(text.bytes, reply->ticket.data, TEXT_BYTES);
        text.id = reply->id;
        return text;
}

static Text issue_simple(Client *client, uint32_t uses) {
        return issue(client, ISSUE(.path = BYTES("/closed/x"), .rights = READ_ONLY, .uses = uses));
}

static uint32_t redeem_bytes(Client *client, const void *bytes, size_t n, Grant *grant) {
        ProtobufCBinaryData data = { .data = (uint8_t *)bytes, .len = n };
        Grant ignored = GRANT_NULL;
        uint32_t error = client_call(client, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = data));

        if (error)
                return error;
        client_take_grant(client, (const Shmd__Granted *)client->reply, grant ? grant : &ignored);
        grant_deinit(&ignored);
        return 0;
}

static uint32_t redeem(Client *client, const Text *text, Grant *grant) {
        return redeem_bytes(client, text->bytes, TEXT_BYTES, grant);
}

/* -- what a ticket is good for --------------------------------------------------------------- */

static int write_through(void *fd) {
        return pwrite(*(int *)fd, "bob", 3, 0) == 3 ? 0 : -errno;
}

TEST(ticket, another_user_reads_and_writes_what_no_mode_lets_them) {
        Grant reader = GRANT_NULL, writer = GRANT_NULL;
        Scene scene = scene_begin(NULL);
        char bytes[4] = "";
        Text text;

        client_expect_error(scene.bob, DENIED, SEARCH, call_open(scene.bob, "/closed/x", READ_ONLY, NULL));
        text = issue_simple(scene.alice, 1);
        client_expect_done(scene.bob, redeem(scene.bob, &text, &reader));
        REQUIRE(reader.rights == READ_ONLY && (fcntl(reader.fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
        REQUIRE(run_as(BOB, BOB, write_through, &reader.fd) == -EBADF);
        text = issue(scene.alice, ISSUE(.path = BYTES("/closed/x"), .rights = READ_WRITE, .uses = 1));
        client_expect_done(scene.bob, redeem(scene.bob, &text, &writer));
        REQUIRE(run_as(BOB, BOB, write_through, &writer.fd) == 0);
        REQUIRE(pread(reader.fd, bytes, 3, 0) == 3 && strcmp(bytes, "bob") == 0);
        REQUIRE(client_used(scene.bob, SLOT_GRANTS) == 2 && client_used(scene.alice, SLOT_GRANTS) == 0);
        grant_deinit(&reader);
        grant_deinit(&writer);
        scene_end(&scene);
}

TEST(ticket, it_outlives_its_issuers_connection_and_is_bound_to_one_user) {
        Scene scene = scene_begin(NULL);
        Client *carol = client_connect_as(scene.broker, CAROL, CAROL);
        Text text = issue(scene.alice, ISSUE(.path = BYTES("/closed/x"), .rights = READ_ONLY, .uses = 1,
                                             .flags = ONE_USER, .uid = BOB));

        scene.alice = client_free(scene.alice);
        client_expect_error(carol, DENIED, TICKET, redeem(carol, &text, NULL));
        client_expect_done(scene.bob, redeem(scene.bob, &text, NULL));
        client_expect_error(scene.bob, DENIED, TICKET, redeem(scene.bob, &text, NULL));
        carol = client_free(carol);
        scene_end(&scene);
}

TEST(ticket, its_time_ends_it_in_the_real_broker) {
        Scene scene = scene_begin("[time]\nticket-max = 1s\n");
        int64_t end = test_now_ms() + TEST_PATIENCE_MS, began;
        uint64_t pending;
        Text text;

        do {
                began = test_now_ms();
                text = issue(scene.alice, ISSUE(.path = BYTES("/closed/x"), .rights = READ_ONLY, .uses = 1));
                REQUIRE(((const Shmd__TicketReply *)scene.alice->reply)->ttl_ns == 1000 * 1000 * 1000);
                pending = client_used(scene.alice, SLOT_PENDING);
                /* A busy machine may need so long for the question that the ticket has ended. */
        } while (pending == 0 && test_now_ms() - began >= 1000 && test_now_ms() < end);
        REQUIRE(pending == 1);
        client_expect_used(scene.alice, SLOT_PENDING, 0);
        client_expect_error(scene.bob, DENIED, TICKET, redeem(scene.bob, &text, NULL));
        scene_end(&scene);
}

TEST(ticket, revoked_ones_are_good_for_nothing_and_grants_stay) {
        Scene scene = scene_begin(NULL);
        Text text = issue_simple(scene.alice, 2);
        Grant grant = GRANT_NULL;

        client_expect_done(scene.bob, redeem(scene.bob, &text, &grant));
        client_expect_error(scene.bob, NOT_FOUND, TICKET,
                            client_call(scene.bob, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = text.id)));
        client_expect_done(scene.alice,
                           client_call(scene.alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = text.id)));
        client_expect_error(scene.bob, DENIED, TICKET, redeem(scene.bob, &text, NULL));
        REQUIRE(pread(grant.fd, &(char){ 0 }, 1, 0) == 1);
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(ticket, memory_is_released_though_tickets_for_it_exist) {
        Grant alices = GRANT_NULL, bobs = GRANT_NULL;
        Scene scene = scene_begin(NULL);
        Text text;

        client_expect_done(scene.alice, call_create(scene.alice, "", 16 * PAGE, &alices));
        text = issue(scene.alice, ISSUE(.region = alices.region, .rights = READ_ONLY, .uses = 100));
        client_expect_done(scene.bob, redeem(scene.bob, &text, &bobs));
        grant_deinit(&alices);
        REQUIRE(client_used(scene.alice, SLOT_BYTES) == 17 * PAGE, "bob holds it");
        client_expect_done(scene.bob, redeem(scene.bob, &text, NULL));
        grant_deinit(&bobs);
        client_expect_used(scene.alice, SLOT_BYTES, PAGE);
        client_expect_used(scene.alice, SLOT_PENDING, 0);
        client_expect_error(scene.bob, DENIED, TICKET, redeem(scene.bob, &text, NULL));
        scene_end(&scene);
}

TEST(ticket, one_for_writing_is_no_good_for_a_frozen_region_and_stays_what_it_was) {
        Grant alices = GRANT_NULL, bobs = GRANT_NULL;
        Scene scene = scene_begin(NULL);
        Text writing, reading;

        client_expect_done(scene.alice,
                           call_create_with(scene.alice,
                                            REQUEST(Create, create, .path = BYTES("/f"), .size = PAGE, .mode = 0600,
                                                    .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE,
                                                    .rights = READ_WRITE), &alices));
        writing = issue(scene.alice, ISSUE(.path = BYTES("/f"), .rights = READ_WRITE, .uses = 1));
        reading = issue(scene.alice, ISSUE(.path = BYTES("/f"), .rights = READ_ONLY, .uses = 1));
        REQUIRE(fcntl(alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_FREEZE,
                                                    REQUEST(Freeze, freeze, .path = BYTES("/f"))));
        client_expect_error(scene.bob, DENIED, FROZEN, redeem(scene.bob, &writing, NULL));
        client_expect_error(scene.bob, DENIED, FROZEN, redeem(scene.bob, &writing, NULL));
        client_expect_done(scene.bob, redeem(scene.bob, &reading, &bobs));
        grant_deinit(&alices);
        grant_deinit(&bobs);
        scene_end(&scene);
}

/* -- races ----------------------------------------------------------------------------------- */

#define RACERS 8
#define USES 100

typedef struct Race {
        Broker *broker;
        Text text;
        uid_t uid;
} Race;

/* Redeems until it is refused. The grants are let go at once: the books alone count. */
static int race(void *userdata) {
        const Race *race = userdata;
        Client *client = client_connect_as(race->broker, race->uid, race->uid);
        int64_t n = 0;

        child_arrive(0);
        while (redeem(client, &race->text, NULL) == 0)
                ++n;
        REQUIRE(client->refusal->reason == SHMD__REASON__REASON_TICKET);
        client = client_free(client);
        child_arrive(n);
        return 0;
}

TEST(ticket, n_uses_raced_for_are_exactly_n_grants) {
        Scene scene = scene_begin(NULL);
        Race races[RACERS];
        Child children[RACERS];
        Text text = issue_simple(scene.alice, USES);
        int64_t total = 0;

        for (unsigned int i = 0; i < RACERS; ++i) {
                races[i] = (Race){ .broker = scene.broker, .text = text, .uid = BOB + i % 3 };
                children[i] = (Child)CHILD_NULL;
                child_spawn(&children[i], race, &races[i]);
        }
        for (unsigned int i = 0; i < RACERS; ++i)
                REQUIRE(write(children[i].go, "x", 1) == 1);
        for (unsigned int i = 0; i < RACERS; ++i) {
                child_await(&children[i]);
                total += child_value();
                child_release(&children[i]);
        }
        REQUIRE(total == USES, "%lld grants", (long long)total);
        REQUIRE(client_used(scene.alice, SLOT_PENDING) == 0);
        scene_end(&scene);
}

/* -- refusals ---------------------------------------------------------------------------------- */

typedef struct Seen {
        size_t n;
        uint8_t packet[1024];
} Seen;

/* Redeems bytes and keeps all that came back, the serial left out. Return: how long it took. */
static int64_t see(Client *client, const void *bytes, size_t n, Seen *seen) {
        int64_t before = test_now_ns();

        client_expect_error(client, DENIED, TICKET, redeem_bytes(client, bytes, n, NULL));
        before = test_now_ns() - before;
        seen->n = client->header.length;
        REQUIRE(seen->n <= sizeof(seen->packet));
        memcpy(seen->packet, client->packet, seen->n);
        memset(seen->packet + offsetof(WireHeader, serial), 0, sizeof(uint64_t));
        return before;
}

TEST(ticket, refusals_of_every_kind_are_the_same_bytes) {
        static const char *const names[] = {
                "unknown", "used up", "revoked", "for another user", "of a region that is gone", "expired",
                "of another length", "empty", "binary", "long",
        };
        static char longer[20000];
        Scene scene = scene_begin(NULL);
        Text spent, revoked, others, gone, expired, unknown;
        struct { const void *bytes; size_t n; } tries[10];
        Seen first, seen;

        client_expect_done(scene.alice, call_create(scene.alice, "/gone", PAGE, NULL));
        gone = issue(scene.alice, ISSUE(.path = BYTES("/gone"), .rights = READ_ONLY, .uses = 1));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/gone"));
        spent = unknown = issue_simple(scene.alice, 1);
        unknown.bytes[TEXT_BYTES - 2] ^= 1;
        client_expect_done(scene.bob, redeem(scene.bob, &spent, NULL));
        revoked = issue_simple(scene.alice, 1);
        client_expect_done(scene.alice,
                           client_call(scene.alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = revoked.id)));
        others = issue(scene.alice, ISSUE(.path = BYTES("/closed/x"), .rights = READ_ONLY, .uses = 1,
                                          .flags = ONE_USER, .uid = CAROL));
        expired = issue(scene.alice, ISSUE(.path = BYTES("/closed/x"), .rights = READ_ONLY, .uses = 1, .ttl_ns = 1));
        client_expect_used(scene.alice, SLOT_PENDING, 1);
        memset(longer, 'a', sizeof(longer));

        tries[0].bytes = unknown.bytes, tries[1].bytes = spent.bytes, tries[2].bytes = revoked.bytes;
        tries[3].bytes = others.bytes, tries[4].bytes = gone.bytes, tries[5].bytes = expired.bytes;
        for (unsigned int i = 0; i < 6; ++i)
                tries[i].n = TEXT_BYTES;
        tries[6].bytes = unknown.bytes, tries[6].n = TEXT_BYTES - 1;
        tries[7].bytes = NULL, tries[7].n = 0;
        tries[8].bytes = "\0\1\xff", tries[8].n = 3;
        tries[9].bytes = longer, tries[9].n = sizeof(longer);
        for (unsigned int i = 0; i < 10; ++i) {
                int64_t ns = see(scene.bob, tries[i].bytes, tries[i].n, i ? &seen : &first);

                printf("  refused in %lld us: %s\n", (long long)ns / 1000, names[i]);
                if (i)
                        REQUIRE(seen.n == first.n && memcmp(seen.packet, first.packet, seen.n) == 0, "%s", names[i]);
        }
        REQUIRE(!broker_log_has(scene.broker, "shmdt_", NULL));
        scene_end(&scene);
}

#define GUESSERS 24
#define FLOOD_MS 2000

/* Guesses as fast as it can: pipelined, on several connections. */
static int guess(void *userdata) {
        Client *clients[GUESSERS];
        int64_t end = test_now_ms() + FLOOD_MS, n = 0;
        char text[TEXT_BYTES];
        ProtobufCBinaryData bytes = { .data = (uint8_t *)text, .len = sizeof(text) };

        memset(text, 'A', sizeof(text));
        memcpy(text, "shmdt_", 6);
        for (unsigned int i = 0; i < GUESSERS; ++i) {
                clients[i] = client_connect_as(userdata, CAROL, CAROL);
                for (unsigned int k = 0; k < 64; ++k)
                        (void)client_send(clients[i], MESSAGE_REDEEM,
                                          REQUEST(Redeem, redeem, .ticket = bytes));
        }
        while (test_now_ms() < end)
                for (unsigned int i = 0; i < GUESSERS; ++i)
                        n += client_receive(clients[i], 1) == CLIENT_REFUSED;
        for (unsigned int i = 0; i < GUESSERS; ++i)
                clients[i] = client_free(clients[i]);
        child_arrive(n);
        return 0;
}

TEST(ticket, a_flood_of_guesses_is_slow_and_leaves_others_alone) {
        Scene scene = scene_begin(NULL);
        Text text = issue_simple(scene.alice, 1000);
        Child guesser = CHILD_NULL;
        Innocent innocent;
        int64_t ms;
        unsigned int n = 0;

        innocent_start(&innocent, scene.broker, ALICE);
        child_start(&guesser, guess, scene.broker);
        ms = test_now_ms() + FLOOD_MS;
        while (test_now_ms() < ms) {
                client_expect_done(scene.bob, redeem(scene.bob, &text, NULL));
                if (++n == 900)
                        text = issue_simple(scene.alice, 1000), n = 0;
        }
        child_await(&guesser);
        printf("  %lld guesses answered in %d ms on %d connections\n", (long long)child_value(), FLOOD_MS, GUESSERS);
        /* One in 250 ms of each; those sent before the time was up may be answered in it. */
        REQUIRE(child_value() <= GUESSERS * (FLOOD_MS / 250 + 1));
        child_release(&guesser);
        (void)innocent_stop(&innocent, "while tickets are guessed");
        REQUIRE(broker_log_count(scene.broker, "reason=ticket") <= 50, "the log is not theirs to fill");
        scene_end(&scene);
}
