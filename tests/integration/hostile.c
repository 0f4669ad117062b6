/* Clients that know how the broker works inside, and aim there: each of these once ended it, made
 * it remember without end, or kept it from everybody else.
 */

#include "lib/innocent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/path.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* Some answers carry descriptors, and a client may tell the kernel that it takes none (socket(7)):
 * then sending fails, by the client's doing. */
TEST(hostile, a_client_that_refuses_descriptors_costs_itself_alone) {
        Broker *broker = broker_spawn(NULL);
        Client *bob = client_connect_as(broker, BOB, BOB);
        Client *alice = client_connect_as(broker, ALICE, ALICE);
        int off = 0;

        if (setsockopt(alice->fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) < 0) {
                alice = client_free(alice);
                bob = client_free(bob);
                broker = broker_stop(broker);
                test_skip("SO_PASSRIGHTS: %s", strerror(errno));
                return;
        }
        (void)client_send(alice, MESSAGE_CREATE, REQUEST(Create, create, .path = BYTES("/a"), .size = PAGE,
                                                         .mode = 0600, .rights = READ_WRITE));
        client_expect_closed(alice);
        broker_expect_log(broker, "event=peer-closed", "reason=send-failed");
        client_expect_done(bob, call_ping(bob));

        alice = client_free(alice);
        bob = client_free(bob);
        broker = broker_stop(broker);
}

TEST(hostile, sigterm_while_everybody_asks_for_statistics_ends_it_in_order) {
        enum { CLIENTS = 16, REQUESTS = 60 };
        Broker *broker = broker_spawn(NULL);
        Client *clients[CLIENTS];
        int status;

        for (size_t i = 0; i < CLIENTS; ++i)
                clients[i] = client_connect_as(broker, ALICE, ALICE);
        /* All of it is there when the broker looks again, the signal included. */
        REQUIRE(kill(broker->pid, SIGSTOP) == 0);
        for (size_t i = 0; i < CLIENTS; ++i)
                for (size_t k = 0; k < REQUESTS; ++k)
                        (void)client_send(clients[i], MESSAGE_STATS, REQUEST(Stats, stats));
        REQUIRE(kill(broker->pid, SIGTERM) == 0 && kill(broker->pid, SIGCONT) == 0);

        status = broker_wait(broker);
        REQUIRE(status == 0, "status %#x", status);
        REQUIRE(broker_log_has(broker, "event=stopped", "books=balanced", NULL));
        for (size_t i = 0; i < CLIENTS; ++i)
                clients[i] = client_free(clients[i]);
        broker = broker_forget(broker);
}

/* Its account ends with its only connection; what it may write to the log does not begin anew. */
TEST(hostile, attack_089_coming_back_after_each_violation_does_not_fill_the_log) {
        enum { N = 500 };
        Broker *broker = broker_spawn(NULL);
        size_t n;

        for (int i = 0; i < N; ++i) {
                Client *client = client_connect_silently(broker, ALICE, ALICE);

                REQUIRE(client_send_raw(client, "garbage", 7) == 0);
                client_expect_closed(client);
                client = client_free(client);
        }
        n = broker_log_count(broker, "event=peer-closed");
        REQUIRE(n > 0 && n < N / 2, "%zu lines", n);
        broker = broker_stop(broker);
}

/* A user without an account, and without room for what it is given. */
TEST(hostile, a_region_given_to_a_stranger_without_room_is_refused) {
        Broker *broker = broker_spawn("[account 64199]\nbytes = 0\n");
        Client *alice, *root;

        test_needs_root();
        alice = client_connect_as(broker, ALICE, ALICE);
        root = client_connect_as(broker, 0, 0);
        client_expect_done(alice, call_create(alice, "/gift", PAGE, NULL));
        client_expect_error(root, QUOTA, LIMIT, call_chown(root, "/gift", 64199, -1));
        REQUIRE(root->refusal->uid == 64199 && root->refusal->slot == SHMD__SLOT__SLOT_BYTES);
        REQUIRE(client_used(alice, SHMD__SLOT__SLOT_BYTES) == PAGE);
        alice = client_free(alice);
        root = client_free(root);
        broker = broker_stop(broker);
}

/* Reads nothing and lets all its waits come true: answers that find no room in the socket. */
TEST(hostile, answers_that_nobody_reads_stay_charged_until_they_are_sent) {
        enum { WAITS = 1000 };
        Broker *broker = broker_spawn(NULL);
        Client *alice = client_connect_as(broker, ALICE, ALICE);
        Client *lazy = client_connect_as(broker, ALICE, ALICE);
        char path[PATH_BYTES_MAX + 1] = "";
        uint64_t pending;

        for (int i = 0; i < 4; ++i) {
                strcat(path, "/");
                memset(path + strlen(path), 'd', 200);
                client_expect_done(alice, call_mkdir(alice, path, 0700));
        }
        strcat(path, "/r");
        for (int i = 0; i < WAITS; ++i)
                (void)client_send(lazy, MESSAGE_WAIT,
                                  REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = UINT64_MAX));
        client_expect_used(alice, SHMD__SLOT__SLOT_PENDING, WAITS);
        client_expect_done(alice, call_create(alice, path, PAGE, NULL));

        /* Some fit; what did not is still the account's. */
        pending = client_used(alice, SHMD__SLOT__SLOT_PENDING);
        REQUIRE(pending > 0 && pending < WAITS, "%lu", (unsigned long)pending);
        REQUIRE(client_used(alice, SHMD__SLOT__SLOT_WATCHES) == pending);
        for (int i = 0; i < WAITS; ++i)
                REQUIRE(client_receive(lazy, TEST_PATIENCE_MS) == CLIENT_REPLY, "%d: %s", i, client_describe(lazy));
        client_expect_used(alice, SHMD__SLOT__SLOT_PENDING, 0);
        client_expect_used(alice, SHMD__SLOT__SLOT_WATCHES, 0);

        alice = client_free(alice);
        lazy = client_free(lazy);
        broker = broker_stop(broker);
}

/* Batches that make 127 regions and fail at the last item: much work, and nothing to show for it. */
static void send_hard_work(Client *client) {
        enum { N = MESSAGE_BATCH_MAX };
        static Shmd__Create creates[N];
        static Shmd__BatchItem items[N];
        static Shmd__BatchItem *pointers[N];
        Shmd__Open missing = SHMD__OPEN__INIT;
        uint8_t packet[8192];
        size_t n;

        for (size_t i = 0; i < N; ++i) {
                shmd__create__init(&creates[i]);
                creates[i].size = PAGE;
                creates[i].mode = 0600;
                creates[i].rights = READ_WRITE;
                shmd__batch_item__init(&items[i]);
                items[i].create = &creates[i];
                pointers[i] = &items[i];
        }
        missing.path = BYTES("/missing");
        missing.rights = READ_ONLY;
        items[N - 1].create = NULL;
        items[N - 1].open = &missing;
        n = client_pack(packet, sizeof(packet), MESSAGE_BATCH, ++client->serial,
                        REQUEST(Batch, batch, .n_items = N, .items = pointers));
        if (send(client->fd, packet, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                --client->serial;
}

/* A user's time is shared by its connections: the one that asks little is served as well, and other
 * users all the time. */
TEST(hostile, connections_that_make_the_broker_work_hard_starve_nobody) {
        enum { CLIENTS = 24, ROUNDS = 8 };
        Broker *broker = broker_spawn(NULL);
        Client *hard[CLIENTS], *modest = client_connect_as(broker, ALICE, ALICE);
        Innocent innocent;
        size_t answers = 0;

        innocent_start(&innocent, broker, BOB);
        for (size_t i = 0; i < CLIENTS; ++i)
                hard[i] = client_connect_as(broker, ALICE, ALICE);
        for (size_t round = 0; round < ROUNDS; ++round)
                for (size_t i = 0; i < CLIENTS; ++i)
                        send_hard_work(hard[i]);
        for (int i = 0; i < 20; ++i)
                client_expect_done(modest, call_ping(modest));
        for (size_t i = 0; i < CLIENTS; ++i) {
                for (uint64_t k = 1; k < hard[i]->serial; ++k) {        /* hello was the first */
                        REQUIRE(client_receive(hard[i], TEST_PATIENCE_MS) == CLIENT_REFUSED);
                        REQUIRE(hard[i]->refusal->index == MESSAGE_BATCH_MAX - 1);
                        ++answers;
                }
                hard[i] = client_free(hard[i]);
        }
        REQUIRE(answers >= CLIENTS, "%zu answers", answers);
        client_expect_used(modest, SHMD__SLOT__SLOT_REGIONS, 0);
        modest = client_free(modest);
        (void)innocent_stop(&innocent, "a user that makes the broker work hard");
        broker = broker_stop(broker);
}

/* More names than go in one step. */
TEST(hostile, two_thousand_session_regions_all_end_with_their_creator) {
        enum { N = 2000 };
        Broker *broker = broker_spawn(NULL);
        Client *alice = client_connect_as(broker, ALICE, ALICE);
        Client *other = client_connect_as(broker, ALICE, ALICE);
        char path[32];

        for (int i = 0; i < N; ++i) {
                (void)snprintf(path, sizeof(path), "/session-%d", i);
                client_expect_done(alice, call_create_with(alice, REQUEST(Create, create, .path = BYTES(path),
                                                                          .size = PAGE, .mode = 0600,
                                                                          .lifetime = SHMD__LIFETIME__LIFETIME_SESSION),
                                                           NULL));
        }
        REQUIRE(client_used(other, SHMD__SLOT__SLOT_REGIONS) == N);
        alice = client_free(alice);
        client_expect_used(other, SHMD__SLOT__SLOT_REGIONS, 0);
        client_expect_error(other, NOT_FOUND, MISSING, call_stat(other, "/session-0"));
        other = client_free(other);
        broker = broker_stop(broker);
}
