/* Clients that take more than their part: who never reads, who stops in the middle, who connects
 * a thousand times, who sends a hundred thousand requests at once. Another user's pings are all
 * answered meanwhile (how fast is printed), and each flood stays within its account.
 */

#include "lib/innocent.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RSS_GROWTH_MAX (16u << 20)

typedef struct Scene {
        Broker *broker;
        Innocent innocent;
        size_t rss;
        size_t n_fds;
} Scene;

static Scene scene_begin(const char *config) {
        Scene scene = { 0 };
        Client *warm;

        test_needs_root();
        scene.broker = broker_spawn(config);
        innocent_start(&scene.innocent, scene.broker, BOB);
        warm = client_connect_as(scene.broker, ALICE, ALICE);
        client_expect_done(warm, call_ping(warm));
        warm = client_free(warm);
        scene.rss = broker_rss(scene.broker);
        scene.n_fds = broker_fds(scene.broker);
        return scene;
}

static void require_little_memory(Scene *scene) {
        size_t rss = broker_rss(scene->broker);

        REQUIRE(rss < scene->rss + RSS_GROWTH_MAX, "%zu bytes at first, %zu now", scene->rss, rss);
}

static void scene_end(Scene *scene, const char *title) {
        InnocentReport report;

        require_little_memory(scene);
        report = innocent_stop(&scene->innocent, title);
        REQUIRE(report.n > 0);
        scene->broker = broker_stop(scene->broker);
}

static size_t ping_packet(uint8_t *packet, size_t n_max, uint64_t serial) {
        uint8_t payload[MESSAGE_PING_MAX];

        memset(payload, 'p', sizeof(payload));
        return client_pack(packet, n_max, MESSAGE_PING, serial,
                           REQUEST(Ping, ping, .payload = { sizeof(payload), payload }));
}

/* Sends pings until the socket takes no more. Return: how many. */
static uint64_t send_until_full(Client *client, uint64_t max) {
        uint8_t packet[128];
        uint64_t n = 0;

        for (; n < max; ++n) {
                size_t size = ping_packet(packet, sizeof(packet), ++client->serial);

                if (send(client->fd, packet, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
                        --client->serial;
                        break;
                }
        }
        return n;
}

TEST(flood, a_client_that_never_reads_is_not_served_until_it_does) {
        Scene scene = scene_begin(NULL);
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);
        uint64_t sent = 0, got = 0;
        int quiet = 0;

        /* Until nothing moves any more: the broker stopped reading, the socket is full. */
        while (quiet < 20) {
                uint64_t n = send_until_full(client, 100000);

                sent += n;
                quiet = n ? 0 : quiet + 1;
                REQUIRE(sent < 1000000, "the broker never stops reading");
                test_sleep_ms(5);
        }
        require_little_memory(&scene);
        REQUIRE(sent > 0);

        /* It reads at last: every answer is there, in order. */
        while (got < sent) {
                REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_REPLY);
                REQUIRE(client->header.serial == client->serial - sent + ++got);
        }
        client_expect_done(client, call_ping(client));
        client = client_free(client);
        scene_end(&scene, "a client that never reads");
}

TEST(flood, a_client_that_never_reads_is_closed_in_the_end) {
        Scene scene = scene_begin("[time]\nstall = 300ms");
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);

        for (int i = 0; i < 100; ++i) {
                (void)send_until_full(client, 100000);
                if (broker_log_has(scene.broker, "event=peer-closed", "reason=stalled", NULL))
                        break;
                test_sleep_ms(50);
        }
        broker_expect_log(scene.broker, "event=peer-closed", "reason=stalled", "uid=64101");
        client = client_free(client);
        broker_expect_fds(scene.broker, scene.n_fds);
        scene_end(&scene, "a client that never reads, until it is closed");
}

/* Descriptors in flight count against the broker for everyone: each client's are bounded. */
TEST(flood, clients_that_never_read_their_grants_do_not_stop_those_of_others) {
        enum { CLIENTS = 8, REQUESTS = 400 };
        Scene scene = scene_begin(NULL);
        Client *clients[CLIENTS], *bob = client_connect_as(scene.broker, BOB, BOB);
        Grant grant = GRANT_NULL;

        client_expect_done(bob, call_create_mode(bob, "/r", PAGE, 0666, NULL));
        for (size_t i = 0; i < CLIENTS; ++i) {
                clients[i] = client_connect_as(scene.broker, ALICE, ALICE);
                for (int k = 0; k < REQUESTS; ++k) {
                        uint8_t packet[64];
                        size_t n = client_pack(packet, sizeof(packet), MESSAGE_OPEN, 1 + k,
                                               REQUEST(Open, open, .path = BYTES("/r"), .rights = READ_ONLY));

                        if (send(clients[i]->fd, packet, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                                break;
                }
        }
        for (int i = 0; i < 50; ++i) {
                client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &grant));
                grant_deinit(&grant);
        }
        client_expect_used(bob, SHMD__SLOT__SLOT_INFLIGHT, 0);

        /* Whoever reads gets its own, all of them. */
        for (int k = 0; k < 100; ++k)
                REQUIRE(client_receive(clients[0], TEST_PATIENCE_MS) == CLIENT_REPLY, "%s", client_describe(clients[0]));
        for (size_t i = 0; i < CLIENTS; ++i)
                clients[i] = client_free(clients[i]);
        client_expect_done(bob, call_unlink(bob, "/r"));
        client_expect_used(bob, SHMD__SLOT__SLOT_REGIONS, 0);
        bob = client_free(bob);
        scene_end(&scene, "clients that never read their grants");
}

TEST(flood, attack_015_a_client_that_says_half_of_what_it_wants_and_stops) {
        Scene scene = scene_begin("[time]\nhello = 1s");
        Client *silent = client_connect_silently(scene.broker, ALICE, ALICE);
        Client *half = client_connect_as(scene.broker, ALICE, ALICE);

        /* The first half of many things: a create that is never published, a wait nobody ends. */
        for (int i = 0; i < 10; ++i) {
                (void)client_send(half, MESSAGE_CREATE,
                                  REQUEST(Create, create, .size = PAGE, .mode = 0600, .rights = READ_WRITE));
                (void)client_send(half, MESSAGE_WAIT,
                                  REQUEST(Wait, wait, .path = BYTES("/never"), .timeout_ns = UINT64_MAX));
        }
        broker_expect_log(scene.broker, "event=peer-closed", "reason=hello-timeout");
        client_expect_closed(silent);
        silent = client_free(silent);
        half = client_free(half);
        broker_expect_fds(scene.broker, scene.n_fds);
        scene_end(&scene, "clients that stop half-way");
}

TEST(flood, attack_015_a_thousand_connections_are_held_to_the_limit_of_one_user) {
        enum { N = 1000, LIMIT = 100 };
        Scene scene = scene_begin("[account]\npeers = 100");
        Client **clients = calloc(N, sizeof(*clients)), *bob;
        size_t refused = 0, open = 0;

        REQUIRE(clients && test_raise_fds() > N + 100);
        for (size_t i = 0; i < N; ++i)
                clients[i] = client_connect_silently(scene.broker, ALICE, ALICE);

        bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_done(bob, call_ping(bob));
        for (size_t i = 0; i < N; ++i) {
                int r = client_receive(clients[i], i < LIMIT ? 0 : TEST_PATIENCE_MS);

                if (r == CLIENT_SILENT) {
                        ++open;
                } else {
                        REQUIRE(r == CLIENT_REFUSED && clients[i]->refusal->slot == SHMD__SLOT__SLOT_PEERS, "%zu", i);
                        ++refused;
                }
        }
        REQUIRE(open == LIMIT && refused == N - LIMIT, "%zu open, %zu refused", open, refused);
        REQUIRE(broker_fds(scene.broker) <= scene.n_fds + LIMIT + 1);
        for (size_t i = 0; i < N; ++i)
                clients[i] = client_free(clients[i]);
        free(clients);
        broker_expect_fds(scene.broker, scene.n_fds + 1);
        bob = client_free(bob);
        scene_end(&scene, "1,000 connections");
}

TEST(flood, attack_014_a_hundred_thousand_pipelined_requests_are_answered_in_order) {
        enum { N = 100000 };
        Scene scene = scene_begin(NULL);
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);
        uint64_t first = client->serial + 1, sent = 0, got = 0;

        while (got < N) {
                struct pollfd p = { .fd = client->fd, .events = POLLIN };

                if (sent < N) {
                        sent += send_until_full(client, N - sent);
                        p.events |= sent < N ? POLLOUT : 0;
                }
                REQUIRE(poll(&p, 1, TEST_PATIENCE_MS) == 1, "nothing moves after %" PRIu64 " answers", got);
                while (got < sent && client_receive(client, 0) != CLIENT_SILENT) {
                        REQUIRE(client->reply && client->header.serial == first + got);
                        ++got;
                }
        }
        client = client_free(client);
        scene_end(&scene, "100,000 pipelined requests");
}

TEST(flood, attack_014_a_client_that_sends_without_end_and_never_reads_is_held_back) {
        Scene scene = scene_begin(NULL);
        Client *clients[4];
        uint64_t sent = 0;

        for (size_t i = 0; i < 4; ++i)
                clients[i] = client_connect_as(scene.broker, ALICE, ALICE);
        for (int round = 0; round < 200; ++round) {
                for (size_t i = 0; i < 4; ++i)
                        sent += send_until_full(clients[i], 1000);
                test_sleep_ms(1);
        }
        REQUIRE(sent < 100000);
        for (size_t i = 0; i < 4; ++i)
                clients[i] = client_free(clients[i]);
        broker_expect_fds(scene.broker, scene.n_fds);
        scene_end(&scene, "clients that send without end");
}

TEST(flood, attack_079_connections_that_come_and_go) {
        Scene scene = scene_begin(NULL);

        for (int i = 0; i < 5000; ++i) {
                Client *client = NULL;

                REQUIRE(client_try_connect(&client, scene.broker->socket, ALICE, ALICE) == 0);
                client = client_free(client);
        }
        broker_expect_fds(scene.broker, scene.n_fds);
        scene_end(&scene, "5,000 connections that come and go");
}

TEST(flood, attack_082_ten_thousand_opens_and_closes_do_not_add_up) {
        Scene scene = scene_begin(NULL);
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);

        client_expect_done(client, call_create(client, "/r", PAGE, NULL));
        for (int i = 0; i < 10000; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(client, call_open(client, "/r", i % 2 ? READ_ONLY : READ_WRITE, &grant));
                grant_deinit(&grant);
        }
        REQUIRE(client_used(client, SHMD__SLOT__SLOT_GRANTS) <= 16384);
        client_expect_done(client, call_unlink(client, "/r"));
        client_expect_used(client, SHMD__SLOT__SLOT_GRANTS, 0);
        client_expect_used(client, SHMD__SLOT__SLOT_BYTES, 0);
        client = client_free(client);
        broker_expect_fds(scene.broker, scene.n_fds);
        scene_end(&scene, "10,000 opens and closes");
}

TEST(flood, attack_087_locks_of_clients_on_a_region_do_not_harm_the_broker) {
        Scene scene = scene_begin(NULL);
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);
        Grant grant = GRANT_NULL;

        client_expect_done(client, call_create(client, "/r", PAGE, &grant));
        for (int64_t i = 0; i < 5000; ++i) {
                struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET,
                                      .l_start = (INT64_C(1) << 62) + 2 * i, .l_len = 1 };

                REQUIRE(fcntl(grant.fd, F_OFD_SETLK, &lock) == 0, "%s", strerror(errno));
        }
        for (int i = 0; i < 200; ++i) {
                Grant again = GRANT_NULL;

                client_expect_done(client, call_open(client, "/r", READ_ONLY, &again));
                client_expect_done(client, client_call(client, MESSAGE_STAT,
                                                       REQUEST(Stat, stat, .path = BYTES("/r"), .flags = 1)));
                grant_deinit(&again);
        }
        client_expect_done(client, call_unlink(client, "/r"));
        grant_deinit(&grant);
        client_expect_used(client, SHMD__SLOT__SLOT_BYTES, 0);
        client = client_free(client);
        scene_end(&scene, "5,000 locks on a region");
}

TEST(flood, attack_089_a_storm_of_refusals_does_not_fill_the_log) {
        Scene scene = scene_begin(NULL);
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);
        size_t lines;

        for (int i = 0; i < 5000; ++i)
                client_expect_error(client, NOT_FOUND, MISSING, call_open(client, "/none", READ_ONLY, NULL));
        lines = broker_log_count(scene.broker, "event=refused");
        REQUIRE(lines > 0 && lines < 500, "%zu lines", lines);
        client = client_free(client);
        scene_end(&scene, "5,000 refusals");
}

TEST(flood, attack_067_large_regions_are_emptied_in_small_steps) {
        Scene scene = scene_begin("[account]\nbytes = 1G\n[global]\nbytes = 4G");
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);

        for (int i = 0; i < 3; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(client, call_create(client, NULL, 128u << 20, &grant));
                REQUIRE(fallocate(grant.fd, 0, 0, 128u << 20) == 0, "%s", strerror(errno));
                grant_deinit(&grant);
                client_expect_used(client, SHMD__SLOT__SLOT_BYTES, 0);
        }
        client = client_free(client);
        scene_end(&scene, "regions of 128 MiB given back");
}

/* Seals keep the broker from emptying it: closing it is the only way, and that is long. How long the
 * broker was busy is its own processor time; all of it is far more than a turn may take. Answers are not to
 * count, of which there would be the more the longer whoever closes it has no processor: so the innocent
 * client stands still meanwhile, and the test asks seldom. */
TEST(flood, attack_067_large_frozen_regions_are_closed_where_nobody_waits_for_it) {
        enum { REGIONS = 6 };
        const uint64_t size = UINT64_C(512) << 20;
        const ProtobufCMessage *freezable = REQUEST(Create, create, .size = size, .mode = 0600, .rights = READ_WRITE,
                                                    .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE);
        Scene scene = scene_begin("[account]\nbytes = 1G\n[global]\nbytes = 4G");
        Client *client = client_connect_as(scene.broker, ALICE, ALICE);
        int64_t cpu, all = 0;

        for (int i = 0; i < REGIONS; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(client, call_create_with(client, freezable, &grant));
                REQUIRE(fallocate(grant.fd, 0, 0, (off_t)size) == 0, "%s", strerror(errno));
                REQUIRE(fcntl(grant.fd, F_ADD_SEALS, i % 2 ? F_SEAL_WRITE : F_SEAL_FUTURE_WRITE) == 0);
                REQUIRE(kill(scene.innocent.pid, SIGSTOP) == 0);
                cpu = broker_cpu_ms(scene.broker);
                grant_deinit(&grant);
                while (client_used(client, SHMD__SLOT__SLOT_BYTES) != 0)
                        test_sleep_ms(50);
                all += broker_cpu_ms(scene.broker) - cpu;
                REQUIRE(kill(scene.innocent.pid, SIGCONT) == 0);
        }
        fprintf(stderr, "%d regions of 512 MiB frozen and released: the broker worked for %d ms\n", REGIONS, (int)all);
        REQUIRE(all < REGIONS * 30, "giving 512 MiB back takes about 60 ms");
        client = client_free(client);
        scene_end(&scene, "large frozen regions given back");
}
