/* Packets that no library would send. Each costs its sender the connection and nothing else: an
 * innocent client is served on, the log says why, and no descriptor is left behind.
 */

#include "lib/innocent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf_common.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

typedef struct Scene {
        Broker *broker;
        Client *innocent;       /* of another user, connected all the time */
        Client *villain;
        size_t n_fds;           /* of the broker, with the innocent client alone */
} Scene;

static Scene scene_begin_with(const BrokerOptions *options) {
        Scene scene = { 0 };

        scene.broker = broker_spawn_with(options);
        scene.innocent = client_connect_as(scene.broker, BOB, BOB);
        client_expect_done(scene.innocent, call_create(scene.innocent, "/innocent", PAGE, NULL));
        scene.n_fds = broker_fds(scene.broker);
        return scene;
}

static Scene scene_begin(void) {
        return scene_begin_with(&(BrokerOptions){ 0 });
}

static void connect_villain(Scene *scene) {
        scene->villain = client_free(scene->villain);
        scene->villain = client_connect_as(scene->broker, ALICE, ALICE);
}

static void scene_end(Scene *scene) {
        client_expect_done(scene->innocent, call_ping(scene->innocent));
        client_expect_done(scene->innocent, call_stat(scene->innocent, "/innocent"));
        scene->villain = client_free(scene->villain);
        broker_expect_fds(scene->broker, scene->n_fds);
        scene->innocent = client_free(scene->innocent);
        scene->broker = broker_stop(scene->broker);
}

/* Sends it on a new connection and requires that the connection ends for that reason. */
static void expect_closed_for(Scene *scene, const char *reason, const void *packet, size_t n) {
        char needle[64];
        int r;

        connect_villain(scene);
        r = client_send_raw(scene->villain, packet, n);
        REQUIRE(r == 0, "%s", strerror(-r));
        client_expect_closed(scene->villain);
        (void)snprintf(needle, sizeof(needle), "reason=%s", reason);
        if (geteuid() == 0)
                broker_expect_log(scene->broker, "event=peer-closed", "uid=64101", needle);
        else
                broker_expect_log(scene->broker, "event=peer-closed", needle);
}

static size_t good_packet(uint8_t *packet, size_t n_max) {
        return client_pack(packet, n_max, MESSAGE_CREATE, 7,
                           REQUEST(Create, create, .path = BYTES("/villain"), .size = PAGE, .mode = 0600,
                                   .rights = READ_WRITE));
}

/* -- A. frames ------------------------------------------------------------------------ */

TEST(packets, attack_001_an_empty_packet_ends_the_connection) {
        Scene scene = scene_begin();

        expect_closed_for(&scene, "empty-packet", "", 0);
        scene_end(&scene);
}

TEST(packets, attack_003_less_than_a_header_ends_the_connection) {
        Scene scene = scene_begin();
        uint8_t packet[256];

        (void)good_packet(packet, sizeof(packet));
        for (size_t n = 1; n < sizeof(WireHeader); ++n)
                expect_closed_for(&scene, "header-mismatch", packet, n);
        scene_end(&scene);
}

TEST(packets, attack_003_a_truncated_number_ends_the_connection) {
        static const uint8_t payload[] = { 0x10, 0xff, 0xff };
        uint8_t packet[sizeof(WireHeader) + sizeof(payload)];
        Scene scene = scene_begin();

        memcpy(packet + sizeof(WireHeader), payload, sizeof(payload));
        wire_put_header(packet, sizeof(packet), MESSAGE_CREATE, 0, 1);
        expect_closed_for(&scene, "malformed", packet, sizeof(packet));
        scene_end(&scene);
}

TEST(packets, attack_003_a_length_past_the_end_ends_the_connection) {
        static const uint8_t payload[] = { 0x0a, 0x7f, '/', 'a' };
        uint8_t packet[sizeof(WireHeader) + sizeof(payload)];
        Scene scene = scene_begin();

        memcpy(packet + sizeof(WireHeader), payload, sizeof(payload));
        for (uint16_t kind = 1; kind < _MESSAGE_N; ++kind) {
                if (kind == MESSAGE_HELLO)
                        continue;
                wire_put_header(packet, sizeof(packet), kind, 0, 1);
                expect_closed_for(&scene, "malformed", packet, sizeof(packet));
        }
        scene_end(&scene);
}

TEST(packets, attack_003_every_truncation_of_a_request_has_no_partial_effect) {
        uint8_t packet[256];
        size_t n = good_packet(packet, sizeof(packet));
        Scene scene = scene_begin();

        for (size_t cut = sizeof(WireHeader); cut < n; ++cut) {
                connect_villain(&scene);
                wire_put_header(packet, cut, MESSAGE_CREATE, 0, 7);
                REQUIRE(client_send_raw(scene.villain, packet, cut) == 0);
                (void)shutdown(scene.villain->fd, SHUT_WR);
                (void)client_drain(scene.villain);
        }
        /* What still was a request made a region; no cut had the whole name and the rights. */
        client_expect_done(scene.innocent, call_list(scene.innocent, "/", 0));
        Shmd__ListReply *list = (Shmd__ListReply *)scene.innocent->reply;
        for (size_t i = 0; i < list->n_nodes; ++i)
                REQUIRE(list->nodes[i]->path.len == 9 || list->nodes[i]->path.len == 8);
        ++scene.n_fds;
        scene_end(&scene);
}

static void expect_length_mismatch(uint32_t length) {
        Scene scene = scene_begin();
        uint8_t packet[256];
        size_t n = good_packet(packet, sizeof(packet));

        REQUIRE(length != n);
        wire_put_header(packet, length, MESSAGE_CREATE, 0, 7);
        expect_closed_for(&scene, "header-mismatch", packet, n);
        scene_end(&scene);
}

TEST(packets, a_header_that_says_too_little_ends_the_connection) {
        expect_length_mismatch(16);
}

TEST(packets, a_header_that_says_too_much_ends_the_connection) {
        expect_length_mismatch(1000);
}

TEST(packets, a_header_that_says_nothing_ends_the_connection) {
        expect_length_mismatch(0);
}

TEST(packets, a_header_that_says_four_billion_ends_the_connection) {
        expect_length_mismatch(UINT32_MAX);
}

TEST(packets, a_header_that_counts_descriptors_ends_the_connection) {
        static const uint16_t counts[] = { 1, 253, 254, 0xffff };
        Scene scene = scene_begin();
        uint8_t packet[256];
        size_t n = good_packet(packet, sizeof(packet));

        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); ++i) {
                wire_put_header(packet, n, MESSAGE_CREATE, counts[i], 7);
                expect_closed_for(&scene, "header-mismatch", packet, n);
        }
        scene_end(&scene);
}

TEST(packets, a_request_with_serial_zero_ends_the_connection) {
        Scene scene = scene_begin();
        uint8_t packet[256];
        size_t n = good_packet(packet, sizeof(packet));

        wire_put_header(packet, n, MESSAGE_CREATE, 0, 0);
        expect_closed_for(&scene, "serial-zero", packet, n);
        scene_end(&scene);
}

TEST(packets, attack_004_the_largest_request_is_served) {
        static uint8_t packet[WIRE_REQUEST_MAX];
        Scene scene = scene_begin();
        size_t n = sizeof(WireHeader);

        /* An unknown field that fills it. */
        packet[n++] = 0xfa;
        packet[n++] = 0x01;             /* field 31, bytes */
        packet[n++] = 0xeb;             /* 32,747 */
        packet[n++] = 0xff;
        packet[n++] = 0x01;
        REQUIRE(n + 32747 == sizeof(packet));
        connect_villain(&scene);
        wire_put_header(packet, sizeof(packet), MESSAGE_PING, 0, 99);
        REQUIRE(client_send_raw(scene.villain, packet, sizeof(packet)) == 0);
        REQUIRE(client_receive(scene.villain, TEST_PATIENCE_MS) == CLIENT_REPLY, "%s", client_describe(scene.villain));
        REQUIRE(scene.villain->header.serial == 99);
        scene_end(&scene);
}

static void expect_too_large(size_t size) {
        Scene scene = scene_begin();
        uint8_t *packet = calloc(1, size);
        int space = 1 << 20;

        REQUIRE(packet);
        connect_villain(&scene);
        (void)setsockopt(scene.villain->fd, SOL_SOCKET, SO_SNDBUFFORCE, &space, sizeof(space));
        (void)setsockopt(scene.villain->fd, SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
        wire_put_header(packet, size, MESSAGE_PING, 0, 1);
        REQUIRE(client_send_raw(scene.villain, packet, size) == 0, "%s", strerror(errno));
        client_expect_closed(scene.villain);
        broker_expect_log(scene.broker, "event=peer-closed", "reason=too-large");
        free(packet);
        scene_end(&scene);
}

TEST(packets, attack_004_one_byte_more_than_the_largest_ends_the_connection) {
        expect_too_large(WIRE_REQUEST_MAX + 1);
}

TEST(packets, attack_004_a_packet_of_200_kilobytes_ends_the_connection) {
        expect_too_large(200000);
}

TEST(packets, attack_005_an_unknown_request_is_refused_and_the_connection_goes_on) {
        static const uint16_t kinds[] = {
                0, _MESSAGE_N, 100, 0x7fff, MESSAGE_REPLY | MESSAGE_PING, MESSAGE_REFUSAL,
        };
        Scene scene = scene_begin();
        uint8_t packet[sizeof(WireHeader)];

        connect_villain(&scene);
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); ++i) {
                wire_put_header(packet, sizeof(packet), kinds[i], 0, 1000 + i);
                REQUIRE(client_send_raw(scene.villain, packet, sizeof(packet)) == 0);
                REQUIRE(client_receive(scene.villain, TEST_PATIENCE_MS) == CLIENT_REFUSED, "kind %#x", kinds[i]);
                REQUIRE(scene.villain->header.serial == 1000 + i);
                REQUIRE(scene.villain->refusal->error == SHMD__ERROR__ERROR_UNSUPPORTED &&
                        scene.villain->refusal->reason == SHMD__REASON__REASON_REQUEST, "%s",
                        client_describe(scene.villain));
        }
        client_expect_done(scene.villain, call_ping(scene.villain));
        scene_end(&scene);
}

TEST(packets, attack_005_fields_from_the_future_are_ignored) {
        static const uint8_t payload[] = { 0x0a, 0x01, 'x', 0xc2, 0x3e, 0x03, 'n', 'e', 'w' };
        uint8_t packet[sizeof(WireHeader) + sizeof(payload)];
        Scene scene = scene_begin();

        connect_villain(&scene);
        memcpy(packet + sizeof(WireHeader), payload, sizeof(payload));
        wire_put_header(packet, sizeof(packet), MESSAGE_PING, 0, 5);
        REQUIRE(client_send_raw(scene.villain, packet, sizeof(packet)) == 0);
        REQUIRE(client_receive(scene.villain, TEST_PATIENCE_MS) == CLIENT_REPLY);
        REQUIRE(((Shmd__Ping *)scene.villain->reply)->payload.len == 1);
        scene_end(&scene);
}

static void expect_malformed(const uint8_t *payload, size_t n_payload, uint16_t kind, const char *reason) {
        Scene scene = scene_begin();
        uint8_t *packet = malloc(sizeof(WireHeader) + n_payload);

        REQUIRE(packet);
        memcpy(packet + sizeof(WireHeader), payload, n_payload);
        wire_put_header(packet, sizeof(WireHeader) + n_payload, kind, 0, 1);
        expect_closed_for(&scene, reason, packet, sizeof(WireHeader) + n_payload);
        free(packet);
        scene_end(&scene);
}

#define MALFORMED(name, kind, ...)                                                      \
        TEST(packets, name) {                                                           \
                static const uint8_t payload[] = { __VA_ARGS__ };                       \
                                                                                        \
                expect_malformed(payload, sizeof(payload), kind, "malformed");          \
        }

MALFORMED(attack_006_a_field_twice, MESSAGE_CREATE, 0x10, 0x01, 0x10, 0x02)
MALFORMED(attack_006_a_create_twice_in_an_item, MESSAGE_BATCH,
          0x0a, 0x08, 0x0a, 0x02, 0x10, 0x01, 0x0a, 0x02, 0x10, 0x02)
MALFORMED(attack_007_an_overlong_number, MESSAGE_CREATE, 0x10, 0x81, 0x00)
MALFORMED(attack_007_field_number_zero, MESSAGE_CREATE, 0x00, 0x01)
MALFORMED(attack_007_a_group, MESSAGE_CREATE, 0x13, 0x14)
MALFORMED(attack_007_an_end_of_group, MESSAGE_CREATE, 0x14)
MALFORMED(attack_007_wire_type_six, MESSAGE_CREATE, 0x16, 0x01)
MALFORMED(attack_007_wire_type_seven, MESSAGE_CREATE, 0x17, 0x01)
MALFORMED(a_zero_spelled_out, MESSAGE_CREATE, 0x10, 0x00)

static void expect_too_complex(const uint8_t *unit, size_t n_unit, uint16_t kind) {
        static uint8_t payload[WIRE_REQUEST_MAX - sizeof(WireHeader)];
        size_t n = 0;

        for (; n + n_unit <= sizeof(payload); n += n_unit)
                memcpy(payload + n, unit, n_unit);
        expect_malformed(payload, n, kind, "too-complex");
}

TEST(packets, attack_008_a_packet_of_unknown_fields_ends_the_connection) {
        expect_too_complex((const uint8_t[]){ 0x78, 0x01 }, 2, MESSAGE_PING);
}

TEST(packets, attack_008_a_packet_of_empty_items_ends_the_connection) {
        expect_too_complex((const uint8_t[]){ 0x0a, 0x00 }, 2, MESSAGE_BATCH);
}

TEST(packets, attack_008_memory_does_not_grow_by_it) {
        static const uint8_t unit[] = { 0x0a, 0x00 };
        static uint8_t packet[WIRE_REQUEST_MAX];
        Scene scene = scene_begin();
        size_t before, after;

        for (size_t n = sizeof(WireHeader); n + 2 <= sizeof(packet); n += 2)
                memcpy(packet + n, unit, 2);
        wire_put_header(packet, sizeof(packet), MESSAGE_BATCH, 0, 1);
        expect_closed_for(&scene, "too-complex", packet, sizeof(packet));
        before = broker_rss(scene.broker);
        for (int i = 0; i < 200; ++i) {
                connect_villain(&scene);
                REQUIRE(client_send_raw(scene.villain, packet, sizeof(packet)) == 0);
                client_expect_closed(scene.villain);
        }
        after = broker_rss(scene.broker);
        REQUIRE(after < before + (8u << 20), "%zu bytes before, %zu after", before, after);
        scene_end(&scene);
}

TEST(packets, attack_009_a_batch_of_129_is_refused) {
        Shmd__Open open = SHMD__OPEN__INIT;
        Shmd__BatchItem item = SHMD__BATCH_ITEM__INIT, *items[129];
        Scene scene = scene_begin();

        open.path = BYTES("/innocent");
        open.rights = READ_ONLY;
        item.open = &open;
        for (size_t i = 0; i < 129; ++i)
                items[i] = &item;
        connect_villain(&scene);
        client_expect_error(scene.villain, INVALID, MALFORMED,
                            client_call(scene.villain, MESSAGE_BATCH,
                                        REQUEST(Batch, batch, .n_items = 129, .items = items)));
        client_expect_error(scene.villain, INVALID, MALFORMED,
                            client_call(scene.villain, MESSAGE_BATCH, REQUEST(Batch, batch)));
        scene_end(&scene);
}

TEST(packets, attack_006_an_item_that_is_both_or_nothing_is_refused) {
        Shmd__Open open = SHMD__OPEN__INIT;
        Shmd__Create create = SHMD__CREATE__INIT;
        Shmd__BatchItem both = SHMD__BATCH_ITEM__INIT, nothing = SHMD__BATCH_ITEM__INIT;
        Scene scene = scene_begin();

        open.path = BYTES("/innocent");
        open.rights = READ_ONLY;
        create.size = 1;
        both.open = &open;
        both.create = &create;
        connect_villain(&scene);
        client_expect_error(scene.villain, INVALID, MALFORMED,
                            client_call(scene.villain, MESSAGE_BATCH,
                                        REQUEST(Batch, batch, .n_items = 1, .items = (Shmd__BatchItem *[]){ &both })));
        client_expect_error(scene.villain, INVALID, MALFORMED,
                            client_call(scene.villain, MESSAGE_BATCH,
                                        REQUEST(Batch, batch, .n_items = 1,
                                                .items = (Shmd__BatchItem *[]){ &nothing })));
        scene_end(&scene);
}

TEST(packets, attack_010_sizes_that_no_file_can_have_are_refused) {
        static const uint64_t sizes[] = {
                UINT64_C(1) << 63, (UINT64_C(1) << 63) + 1, UINT64_MAX, UINT64_MAX - 4095, UINT64_MAX - 4094,
                INT64_MAX, (UINT64_C(1) << 63) - 4096,
        };
        Scene scene = scene_begin();
        uint64_t before;

        connect_villain(&scene);
        before = client_used(scene.villain, SHMD__SLOT__SLOT_BYTES);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                uint32_t error = call_create(scene.villain, "/big", sizes[i], NULL);

                REQUIRE(error == SHMD__ERROR__ERROR_INVALID || error == SHMD__ERROR__ERROR_QUOTA, "%s",
                        client_describe(scene.villain));
                REQUIRE(client_used(scene.villain, SHMD__SLOT__SLOT_BYTES) == before);
        }
        scene_end(&scene);
}

TEST(packets, attack_011_values_out_of_range_are_refused_not_ignored) {
        Scene scene = scene_begin();
        Client *v;

        connect_villain(&scene);
        v = scene.villain;
#define CREATE(...) client_call(v, MESSAGE_CREATE, REQUEST(Create, create, __VA_ARGS__))
        client_expect_error(v, INVALID, FLAGS, CREATE(.path = BYTES("/x"), .size = 1, .flags = 8));
        client_expect_error(v, INVALID, FLAGS, CREATE(.path = BYTES("/x"), .size = 1, .flags = 1u << 31));
        client_expect_error(v, INVALID, FLAGS, CREATE(.path = BYTES("/x"), .size = 1, .flags = UINT32_MAX));
        client_expect_error(v, INVALID, MODE, CREATE(.path = BYTES("/x"), .size = 1, .mode = 01000));
        client_expect_error(v, INVALID, MODE, CREATE(.path = BYTES("/x"), .size = 1, .mode = UINT32_MAX));
        client_expect_error(v, INVALID, MALFORMED, CREATE(.path = BYTES("/x"), .size = 1, .lifetime = 2));
        client_expect_error(v, INVALID, MALFORMED, CREATE(.path = BYTES("/x"), .size = 1, .rights = 3));
        REQUIRE(CREATE(.path = BYTES("/x"), .size = 1, .huge_page_size = 64) != 0);
        REQUIRE(CREATE(.path = BYTES("/x"), .size = 1, .huge_page_size = UINT32_MAX) != 0);
        REQUIRE(CREATE(.path = BYTES("/x"), .size = 1, .huge_page_size = 13) != 0);
        client_expect_error(v, INVALID, MODE, call_mkdir(v, "/x", 02000));
        client_expect_error(v, INVALID, MODE, call_mkdir(v, "/x", 04000));
        client_expect_error(v, INVALID, FLAGS, call_list(v, "/", 8));
        client_expect_error(v, INVALID, FLAGS,
                            client_call(v, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES("/"), .flags = 4)));
        client_expect_error(v, INVALID, MALFORMED, client_call(v, MESSAGE_DF, REQUEST(Df, df, .scope = 4)));

        Grant grant = GRANT_NULL;
        client_expect_done(v, call_create(v, NULL, 1, &grant));
        client_expect_error(v, INVALID, FLAGS, call_publish(v, grant.region, "/x", 2));
        grant_deinit(&grant);
        client_expect_error(v, NOT_FOUND, MISSING, call_stat(v, "/x"));
        scene_end(&scene);
}

TEST(packets, a_ping_of_more_than_64_bytes_is_refused) {
        uint8_t bytes[65] = { 1 };
        Scene scene = scene_begin();

        connect_villain(&scene);
        client_expect_done(scene.villain, client_call(scene.villain, MESSAGE_PING,
                                                      REQUEST(Ping, ping, .payload = { 64, bytes })));
        REQUIRE(((Shmd__Ping *)scene.villain->reply)->payload.len == 64);
        client_expect_error(scene.villain, INVALID, MALFORMED,
                            client_call(scene.villain, MESSAGE_PING, REQUEST(Ping, ping, .payload = { 65, bytes })));
        scene_end(&scene);
}

/* Every bit of a request of every kind, each on a connection of its own. The innocent client must
 * be another user: one of the requests may be a chmod by the owner of what it uses. */
static void flip_every_bit(uint16_t kind, const ProtobufCMessage *request) {
        uint8_t packet[512];
        Scene scene;
        size_t n;

        test_needs_root();
        scene = scene_begin();
        n = client_pack(packet, sizeof(packet), kind, 0x5aa5, request);

        for (size_t bit = 0; bit < n * 8; ++bit) {
                connect_villain(&scene);
                packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
                REQUIRE(client_send_raw(scene.villain, packet, n) == 0);
                packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
                (void)shutdown(scene.villain->fd, SHUT_WR);
                (void)client_drain(scene.villain);
        }
        client_expect_done(scene.innocent, call_ping(scene.innocent));

        /* Flipped names may have made regions and directories: they need not be here again. */
        scene.n_fds = SIZE_MAX;
        scene_end(&scene);
}

#define FLIP(name, kind, Type, type, ...)                                               \
        TEST(packets, attack_012_one_bit_flipped_in_##name) {                           \
                flip_every_bit(kind, REQUEST(Type, type, __VA_ARGS__));                 \
        }

FLIP(hello, MESSAGE_HELLO, Hello, hello, .version = 1)
FLIP(ping, MESSAGE_PING, Ping, ping, .payload = BYTES("p"))
FLIP(create, MESSAGE_CREATE, Create, create, .path = BYTES("/v"), .size = PAGE, .mode = 0600, .flags = 1,
     .rights = READ_WRITE)
FLIP(open, MESSAGE_OPEN, Open, open, .path = BYTES("/v"), .rights = READ_ONLY)
FLIP(publish, MESSAGE_PUBLISH, Publish, publish, .region = 1, .path = BYTES("/v"), .flags = 1)
FLIP(link, MESSAGE_LINK, Link, link, .path = BYTES("/v"), .to = BYTES("/w"))
FLIP(rename, MESSAGE_RENAME, Rename, rename, .path = BYTES("/v"), .to = BYTES("/w"), .flags = 1)
FLIP(stat, MESSAGE_STAT, Stat, stat, .path = BYTES("/v"), .flags = 3)
FLIP(list_orphans, MESSAGE_LIST, List, list, .flags = 6, .limit = 3, .orphan = 1)
FLIP(doctor, MESSAGE_DOCTOR, Doctor, doctor)
FLIP(upgrade, MESSAGE_UPGRADE, Upgrade, upgrade)
FLIP(state, MESSAGE_STATE, State, state)
FLIP(list, MESSAGE_LIST, List, list, .path = BYTES("/"), .flags = 1, .cursor = BYTES("/v"), .limit = 3)
FLIP(mkdir, MESSAGE_MKDIR, Mkdir, mkdir, .path = BYTES("/v"), .mode = 0700)
FLIP(unlink, MESSAGE_UNLINK, Remove, remove, .path = BYTES("/v"))
FLIP(chmod, MESSAGE_CHMOD, Chmod, chmod, .path = BYTES("/v"), .mode = 0700)
FLIP(chown, MESSAGE_CHOWN, Chown, chown, .path = BYTES("/v"), .uid = 5, .set_uid = 1)
FLIP(wait, MESSAGE_WAIT, Wait, wait, .path = BYTES("/v"), .timeout_ns = 1000)
FLIP(df, MESSAGE_DF, Df, df, .scope = 1, .path = BYTES("/"))
FLIP(stats, MESSAGE_STATS, Stats, stats)
FLIP(ticket, MESSAGE_TICKET, Ticket, ticket, .path = BYTES("/v"), .rights = READ_ONLY, .uses = 1)
FLIP(redeem, MESSAGE_REDEEM, Redeem, redeem, .ticket = BYTES("t"))
FLIP(revoke, MESSAGE_REVOKE, Revoke, revoke, .id = 1)
FLIP(bell, MESSAGE_BELL, Bell, bell, .path = BYTES("/v"), .flags = 1)
FLIP(tickets, MESSAGE_TICKETS, Tickets, tickets, .path = BYTES("/v"), .cursor = 1)

TEST(packets, attack_012_one_bit_flipped_in_batch) {
        Shmd__Open open = SHMD__OPEN__INIT;
        Shmd__Create create = SHMD__CREATE__INIT;
        Shmd__BatchItem a = SHMD__BATCH_ITEM__INIT, b = SHMD__BATCH_ITEM__INIT;

        open.path = BYTES("/v");
        open.rights = READ_ONLY;
        create.size = 1;
        a.create = &create;
        b.open = &open;
        flip_every_bit(MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 2, .items = (Shmd__BatchItem *[]){ &a, &b }));
}

TEST(packets, attack_013_random_packets_harm_nobody_else) {
        Scene scene = scene_begin();
        uint64_t seed = 88172645463325252u;

        for (int round = 0; round < 2000; ++round) {
                uint8_t packet[512];
                size_t n;

                seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                n = sizeof(WireHeader) + seed % 100;
                for (size_t i = sizeof(WireHeader); i < n; ++i) {
                        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                        packet[i] = (uint8_t)(seed >> (seed & 31));
                }
                wire_put_header(packet, n, (uint16_t)(1 + round % (_MESSAGE_N - 1)), 0, 1);
                connect_villain(&scene);
                REQUIRE(client_send_raw(scene.villain, packet, n) == 0);
                (void)shutdown(scene.villain->fd, SHUT_WR);
                (void)client_drain(scene.villain);
        }
        scene.n_fds = SIZE_MAX;
        scene_end(&scene);
}

/* -- before hello --------------------------------------------------------------------- */

TEST(packets, every_request_before_hello_is_refused_and_ends_the_connection) {
        Scene scene = scene_begin();
        uint8_t packet[sizeof(WireHeader)];

        for (uint16_t kind = MESSAGE_PING; kind < _MESSAGE_N; ++kind) {
                Client *client = client_connect_silently(scene.broker, ALICE, ALICE);

                wire_put_header(packet, sizeof(packet), kind, 0, 77);
                REQUIRE(client_send_raw(client, packet, sizeof(packet)) == 0);
                REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_REFUSED, "%s", message_name(kind));
                REQUIRE(client->header.serial == 77);
                REQUIRE(client->refusal->error == SHMD__ERROR__ERROR_INVALID &&
                        client->refusal->reason == SHMD__REASON__REASON_STATE, "%s", client_describe(client));
                client_expect_closed(client);
                client = client_free(client);
        }
        broker_expect_log(scene.broker, "event=peer-closed", "reason=before-hello");
        scene_end(&scene);
}

TEST(packets, a_second_hello_is_refused_and_ends_the_connection) {
        Scene scene = scene_begin();

        connect_villain(&scene);
        client_expect_error(scene.villain, INVALID, STATE, client_hello(scene.villain));
        client_expect_closed(scene.villain);
        scene_end(&scene);
}

TEST(packets, a_hello_without_a_version_is_refused) {
        Scene scene = scene_begin();
        Client *client = client_connect_silently(scene.broker, ALICE, ALICE);

        REQUIRE(client_call(client, MESSAGE_HELLO, REQUEST(Hello, hello)) != 0);
        REQUIRE(client->refusal->reason == SHMD__REASON__REASON_VERSION, "%s", client_describe(client));
        client = client_free(client);
        scene_end(&scene);
}

TEST(packets, a_client_from_the_future_is_told_the_version_spoken_here) {
        Scene scene = scene_begin();
        Client *client = client_connect_silently(scene.broker, ALICE, ALICE);

        client_expect_done(client, client_call(client, MESSAGE_HELLO,
                                               REQUEST(Hello, hello, .version = 1000, .features = UINT64_MAX)));
        REQUIRE(((Shmd__HelloReply *)client->reply)->version == 1);
        client = client_free(client);
        scene_end(&scene);
}

TEST(packets, who_says_nothing_is_closed_after_a_while) {
        Scene scene = scene_begin_with(&(BrokerOptions){ .config = "[time]\nhello = 1s" });
        Client *client = client_connect_silently(scene.broker, ALICE, ALICE);

        (void)client_drain(client);
        broker_expect_log(scene.broker, "event=peer-closed", "reason=hello-timeout");
        client_expect_done(scene.innocent, call_ping(scene.innocent));
        client = client_free(client);
        scene_end(&scene);
}

/* -- half-closed connections ---------------------------------------------------------- */

TEST(packets, attack_016_who_stops_sending_gets_the_answers_to_what_it_sent) {
        Scene scene = scene_begin();

        connect_villain(&scene);
        for (int i = 0; i < 20; ++i)
                (void)client_send(scene.villain, MESSAGE_PING, REQUEST(Ping, ping, .payload = BYTES("x")));
        (void)client_send(scene.villain, MESSAGE_CREATE,
                          REQUEST(Create, create, .path = BYTES("/late"), .size = 1, .rights = READ_ONLY));
        (void)client_send(scene.villain, MESSAGE_WAIT,
                          REQUEST(Wait, wait, .path = BYTES("/never"), .timeout_ns = UINT64_C(3600000000000)));
        REQUIRE(shutdown(scene.villain->fd, SHUT_WR) == 0);
        REQUIRE(client_drain(scene.villain) == 21, "all but the wait");
        client_expect_done(scene.innocent, call_stat(scene.innocent, "/late"));
        client_expect_done(scene.innocent, call_ping(scene.innocent));
        ++scene.n_fds;
        scene_end(&scene);
}

TEST(packets, attack_017_who_stops_reading_is_closed_without_harm) {
        Scene scene = scene_begin();

        connect_villain(&scene);
        REQUIRE(shutdown(scene.villain->fd, SHUT_RD) == 0);
        for (int i = 0; i < 100; ++i) {
                uint8_t packet[64];
                size_t n = client_pack(packet, sizeof(packet), MESSAGE_PING, 1 + i, REQUEST(Ping, ping));

                if (client_send_raw(scene.villain, packet, n) < 0)
                        break;
        }
        broker_expect_fds(scene.broker, scene.n_fds);
        REQUIRE(broker_is_alive(scene.broker));
        scene_end(&scene);
}

TEST(packets, attack_018_sockets_of_another_type_are_refused) {
        static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
        Scene scene = scene_begin();
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", scene.broker->socket);
        for (size_t i = 0; i < 2; ++i) {
                int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);

                REQUIRE(fd >= 0);
                REQUIRE(connect(fd, (struct sockaddr *)&address, sizeof(address)) == -1 && errno == EPROTOTYPE, "%s",
                        strerror(errno));
                close_fd(fd);
        }
        scene_end(&scene);
}

TEST(packets, attack_018_a_client_with_an_abstract_name_is_a_client_like_any_other) {
        struct sockaddr_un own = { .sun_family = AF_UNIX, .sun_path = "\0shmd-test-client" };
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        Scene scene = scene_begin();
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        (void)snprintf(own.sun_path + 1, sizeof(own.sun_path) - 1, "shmd-test-%d", (int)getpid());
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", scene.broker->socket);
        REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&own, sizeof(own)) == 0);
        REQUIRE(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
        close_fd(fd);
        scene_end(&scene);
}

/* -- B. descriptors ------------------------------------------------------------------- */

static int send_with_fds(Client *client, size_t n_fds, bool counted) {
        uint8_t packet[64];
        size_t n = client_pack(packet, sizeof(packet), MESSAGE_PING, ++client->serial, REQUEST(Ping, ping));
        int fds[253], null = open("/dev/null", O_RDONLY | O_CLOEXEC), r;

        REQUIRE(null >= 0 && n_fds <= 253);
        for (size_t i = 0; i < n_fds; ++i)
                fds[i] = null;
        if (counted)
                wire_put_header(packet, n, MESSAGE_PING, (uint16_t)n_fds, client->serial);
        r = client_send_fds(client, packet, n, fds, n_fds);
        close_fd(null);
        return r;
}

static bool kernel_refuses_rights(void) {
        int value = -1, probe[2];
        socklen_t n = sizeof(value);

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, probe) == 0);
        bool has = getsockopt(probe[0], SOL_SOCKET, SO_PASSRIGHTS, &value, &n) == 0;
        close_fd(probe[0]);
        close_fd(probe[1]);
        return has;
}

TEST(packets, attack_019_descriptors_are_refused_at_the_sender) {
        Scene scene = scene_begin();

        connect_villain(&scene);
        if (!kernel_refuses_rights()) {
                /* Then they are dropped on arrival, and the next test says what follows. */
                REQUIRE(send_with_fds(scene.villain, 1, false) == 0);
                client_expect_closed(scene.villain);
                scene_end(&scene);
                return;
        }
        for (size_t n = 1; n <= 253; n += 84) {
                REQUIRE(send_with_fds(scene.villain, n, false) == -EPERM);
                REQUIRE(send_with_fds(scene.villain, n, true) == -EPERM);
        }
        client_expect_done(scene.villain, call_ping(scene.villain));
        scene_end(&scene);
}

/* Lets SO_PASSRIGHTS look like a kernel that does not have it. */
static void hide_passrights(void *userdata) {
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_PASSRIGHTS, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = sizeof(filter) / sizeof(filter[0]), .filter = filter };

        REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "%s", strerror(errno));
}

TEST(packets, attack_019_descriptors_end_the_connection_on_kernels_that_let_them_through) {
        Scene scene = scene_begin_with(&(BrokerOptions){ .prepare = hide_passrights });

        for (size_t n = 1; n <= 253; n += 84) {
                for (int counted = 0; counted < 2; ++counted) {
                        connect_villain(&scene);
                        REQUIRE(send_with_fds(scene.villain, n, counted) == 0);
                        client_expect_closed(scene.villain);
                }
        }
        broker_expect_log(scene.broker, "event=peer-closed", "reason=unwanted-descriptors");
        scene_end(&scene);
}

TEST(packets, attack_019_two_thousand_packets_full_of_descriptors_leave_none_behind) {
        Scene scene = scene_begin_with(&(BrokerOptions){ .prepare = hide_passrights });

        for (int i = 0; i < 500; ++i) {
                connect_villain(&scene);
                for (int k = 0; k < 4; ++k)
                        if (send_with_fds(scene.villain, 253, true) < 0)
                                break;
        }
        scene_end(&scene);
}

TEST(packets, attack_023_connections_that_carry_each_other_leave_nothing_behind) {
        Scene scene = scene_begin_with(&(BrokerOptions){ .prepare = hide_passrights });

        for (int i = 0; i < 50; ++i) {
                Client *a = client_connect_as(scene.broker, ALICE, ALICE);
                Client *b = client_connect_as(scene.broker, ALICE, ALICE);
                uint8_t packet[64];
                size_t n = client_pack(packet, sizeof(packet), MESSAGE_PING, 9, REQUEST(Ping, ping));

                (void)client_send_fds(a, packet, n, &b->fd, 1);
                (void)client_send_fds(b, packet, n, &a->fd, 1);
                a = client_free(a);
                b = client_free(b);
        }
        scene_end(&scene);
}

TEST(packets, attack_026_strange_descriptors_are_not_kept_either) {
        Scene scene = scene_begin_with(&(BrokerOptions){ .prepare = hide_passrights });
        int pipe_ends[2];
        int fds[] = {
                open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), open("/dev/null", O_PATH | O_CLOEXEC),
                open("/proc/self/mem", O_RDWR | O_CLOEXEC), eventfd(0, EFD_CLOEXEC),
                (int)syscall(SYS_pidfd_open, getpid(), 0),
                -1, -1,
        };

        REQUIRE(pipe2(pipe_ends, O_CLOEXEC) == 0);
        fds[5] = pipe_ends[0];
        fds[6] = pipe_ends[1];
        for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); ++i) {
                uint8_t packet[64];
                size_t n = client_pack(packet, sizeof(packet), MESSAGE_PING, 9, REQUEST(Ping, ping));

                REQUIRE(fds[i] >= 0, "%zu", i);
                connect_villain(&scene);
                REQUIRE(client_send_fds(scene.villain, packet, n, &fds[i], 1) == 0);
                client_expect_closed(scene.villain);
                close_fd(fds[i]);
        }
        scene_end(&scene);
}

TEST(packets, attack_001_an_empty_packet_with_descriptors_leaves_none_behind) {
        Scene scene = scene_begin_with(&(BrokerOptions){ .prepare = hide_passrights });
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        for (int i = 0; i < 20; ++i) {
                connect_villain(&scene);
                REQUIRE(client_send_fds(scene.villain, "", 0, &null, 1) == 0);
                client_expect_closed(scene.villain);
        }
        close_fd(null);
        scene_end(&scene);
}

/* -- the innocent --------------------------------------------------------------------- */

TEST(packets, an_innocent_client_notices_nothing_of_a_storm_of_violations) {
        Scene scene = scene_begin();
        Innocent innocent;
        uint8_t packet[256];
        size_t n = good_packet(packet, sizeof(packet));

        innocent_start(&innocent, scene.broker, CAROL);
        for (int i = 0; i < 1000; ++i) {
                connect_villain(&scene);
                wire_put_header(packet, i % 3 == 0 ? n + 1 : n, MESSAGE_CREATE, i % 3 == 1, i % 3 == 2 ? 0 : 1);
                REQUIRE(client_send_raw(scene.villain, packet, n) == 0);
                (void)client_drain(scene.villain);
        }
        (void)innocent_stop(&innocent, "1,000 violations");
        scene.n_fds = SIZE_MAX;
        scene_end(&scene);
}
