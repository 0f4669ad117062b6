/* proto/message: a payload has one encoding, and unpacking it costs no more than the arena. */

#include "lib/test.h"

#include <stdalign.h>
#include <string.h>

#include "proto/brief.h"
#include "proto/message.h"
#include "proto/wire.h"

#define ARENA_BYTES (256u * 1024)

/* A payload under construction, written byte by byte so that it can be wrong. */
typedef struct Payload {
        size_t n;
        uint8_t bytes[WIRE_REPLY_MAX];
} Payload;

static Payload payload;

static void begin(void) {
        payload.n = 0;
}

static void put(uint8_t byte) {
        cr_assert_lt(payload.n, sizeof(payload.bytes));
        payload.bytes[payload.n++] = byte;
}

static void put_varint(uint64_t value) {
        for (; value >= 0x80; value >>= 7)
                put((uint8_t)(value | 0x80));
        put((uint8_t)value);
}

static void put_tag(uint32_t field, uint32_t type) {
        put_varint((uint64_t)field << 3 | type);
}

static void put_number(uint32_t field, uint64_t value) {
        put_tag(field, 0);
        put_varint(value);
}

static void put_bytes(uint32_t field, const void *data, size_t n) {
        put_tag(field, 2);
        put_varint(n);
        for (size_t i = 0; i < n; ++i)
                put(((const uint8_t *)data)[i]);
}

static int unpack(unsigned int kind, bool reply) {
        CLEANUP(arena_freep) Arena *arena = NULL;
        ProtobufCMessage *message;
        uint8_t *copy;
        int r;

        /* An exact copy, so that a sanitizer sees a read past its end. */
        cr_assert_eq(arena_new(&arena, ARENA_BYTES), 0);
        copy = malloc(payload.n ? payload.n : 1);
        cr_assert_not_null(copy);
        memcpy(copy, payload.bytes, payload.n);
        r = message_unpack(arena, kind, reply, copy, payload.n, &message);
        free(copy);
        return r;
}

static int unpack_request(unsigned int kind) {
        return unpack(kind, false);
}

TEST(message, kinds_have_the_names_of_the_protocol) {
        static const char *const names[] = {
                NULL, "hello", "ping", "create", "open", "batch", "publish", "stat", "list", "mkdir", "rmdir",
                "unlink", "chmod", "chown", "wait", "df", "stats", "link", "rename",
                "ttl", "get-acl", "set-acl", "why", "reload", "freeze", "watch", "unwatch", "ticket", "redeem", "revoke",
                "tickets", "bell", "doctor", "upgrade", "state",
        };

        cr_assert_eq(sizeof(names) / sizeof(names[0]), _MESSAGE_N);
        cr_assert_null(message_name(0));
        for (unsigned int kind = 1; kind < _MESSAGE_N; ++kind)
                cr_assert_str_eq(message_name(kind), names[kind]);
        cr_assert_null(message_name(_MESSAGE_N));
        cr_assert_null(message_name(MESSAGE_REFUSAL));
        cr_assert_null(message_name(MESSAGE_EVENT));
        cr_assert_null(message_name(UINT32_MAX));
}

TEST(message, unknown_kinds_are_told_apart_from_malformed_ones) {
        begin();
        cr_assert_eq(unpack(0, false), MESSAGE_E_UNKNOWN);
        cr_assert_eq(unpack(_MESSAGE_N, false), MESSAGE_E_UNKNOWN);
        cr_assert_eq(unpack(MESSAGE_HELLO | MESSAGE_REPLY, false), MESSAGE_E_UNKNOWN);
        cr_assert_eq(unpack(MESSAGE_REFUSAL, false), MESSAGE_E_UNKNOWN);
        cr_assert_eq(unpack(0, true), MESSAGE_E_UNKNOWN);
        cr_assert_eq(unpack(_MESSAGE_N, true), MESSAGE_E_UNKNOWN);
        cr_assert_eq(unpack(MESSAGE_REFUSAL, true), 0);
        cr_assert_eq(unpack(MESSAGE_EVENT, false), MESSAGE_E_UNKNOWN);
        cr_assert_eq(unpack(MESSAGE_EVENT, true), 0);
}

TEST(message, the_empty_payload_is_every_message_with_nothing_set) {
        begin();
        for (unsigned int kind = 1; kind < _MESSAGE_N; ++kind) {
                cr_assert_eq(unpack(kind, false), 0, "%u", kind);
                cr_assert_eq(unpack(kind, true), 0, "%u", kind);
        }
}

TEST(message, what_was_packed_unpacks_to_the_same) {
        CLEANUP(arena_freep) Arena *arena = NULL;
        Shmd__Create create = SHMD__CREATE__INIT, *got;
        ProtobufCMessage *message;
        uint8_t bytes[256];
        size_t n = 0;

        create.path = (ProtobufCBinaryData){ 4, (uint8_t *)"/a\0b" };
        create.size = UINT64_MAX;
        create.mode = 0640;
        create.flags = UINT32_MAX;
        create.rights = SHMD__RIGHTS__RIGHTS_READ_WRITE;

        cr_assert_eq(message_pack(&create.base, bytes, sizeof(bytes), &n), 0);
        cr_assert_eq(arena_new(&arena, ARENA_BYTES), 0);
        cr_assert_eq(message_unpack(arena, MESSAGE_CREATE, false, bytes, n, &message), 0);
        got = (Shmd__Create *)message;
        cr_assert_eq(got->path.len, 4, "a NUL does not shorten a name");
        cr_assert_arr_eq(got->path.data, "/a\0b", 4);
        cr_assert_eq(got->size, UINT64_MAX);
        cr_assert_eq(got->mode, 0640);
        cr_assert_eq(got->flags, UINT32_MAX);
        cr_assert_eq(got->rights, SHMD__RIGHTS__RIGHTS_READ_WRITE);
        cr_assert_eq(got->lifetime, 0);
}

TEST(message, packing_needs_exactly_its_length) {
        Shmd__Remove request = SHMD__REMOVE__INIT;
        uint8_t bytes[16];
        size_t n = 99;

        request.path = (ProtobufCBinaryData){ 4, (uint8_t *)"/abc" };
        memset(bytes, 0xee, sizeof(bytes));
        cr_assert_eq(message_pack(&request.base, bytes, 5, &n), MESSAGE_E_TOO_LARGE);
        cr_assert_eq(n, 99);
        cr_assert_eq(bytes[0], 0xee, "nothing is written when it does not fit");
        cr_assert_eq(message_pack(&request.base, bytes, 6, &n), 0);
        cr_assert_eq(n, 6);
        cr_assert_eq(bytes[6], 0xee);
}

TEST(message, packing_nothing_needs_no_room) {
        Shmd__Done done = SHMD__DONE__INIT;
        uint8_t byte = 0xee;
        size_t n = 99;

        cr_assert_eq(message_pack(&done.base, &byte, 0, &n), 0);
        cr_assert_eq(n, 0);
        cr_assert_eq(byte, 0xee);
}

TEST(message, a_number_cut_short_is_malformed) {
        begin();
        put_tag(2, 0);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "a tag without its value");
        for (size_t i = 1; i < 10; ++i) {
                put(0x80 | 0x7f);
                cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "%zu bytes", i);
        }
}

TEST(message, a_tag_cut_short_is_malformed) {
        for (size_t n = 1; n < 12; ++n) {
                begin();
                for (size_t i = 0; i < n; ++i)
                        put(0x80);
                cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "%zu bytes", n);
        }
}

TEST(message, every_prefix_of_a_request_is_malformed_or_a_smaller_request) {
        size_t whole;

        begin();
        put_bytes(1, "/name", 5);
        put_number(2, 1 << 20);
        put_number(3, 0600);
        put_number(7, 2);
        whole = payload.n;

        for (size_t n = 0; n <= whole; ++n) {
                bool at_a_field = n == 0 || n == 7 || n == 7 + 4 || n == 7 + 4 + 3 || n == whole;

                payload.n = n;
                cr_assert_eq(unpack_request(MESSAGE_CREATE), at_a_field ? 0 : MESSAGE_E_MALFORMED, "%zu bytes", n);
        }
}

TEST(message, a_length_past_the_end_is_malformed) {
        static const uint64_t lengths[] = {
                6, 7, 100, 32768, 65536, INT32_MAX, UINT64_C(1) << 31, UINT32_MAX, UINT64_C(1) << 32,
                UINT64_C(1) << 63, UINT64_MAX - 5, UINT64_MAX,
        };

        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); ++i) {
                begin();
                put_tag(1, 2);
                put_varint(lengths[i]);
                for (int k = 0; k < 5; ++k)
                        put('/');
                cr_assert_eq(unpack_request(MESSAGE_OPEN), MESSAGE_E_MALFORMED, "%zu", i);
        }
}

TEST(message, attack_006_a_field_twice_is_malformed) {
        begin();
        put_number(2, 4096);
        put_number(2, 4096);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "a number");

        begin();
        put_bytes(1, "/a", 2);
        put_bytes(1, "/b", 2);
        cr_assert_eq(unpack_request(MESSAGE_OPEN), MESSAGE_E_MALFORMED, "a name");

        begin();
        put_number(2, 4096);
        put_bytes(1, "/a", 2);
        put_number(2, 8192);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "apart from each other");
}

TEST(message, attack_006_a_submessage_twice_is_not_merged) {
        /* One batch item with two creates: protobuf would merge them. */
        static const uint8_t item[] = { 0x0a, 0x02, 0x10, 0x01, 0x0a, 0x02, 0x18, 0x01 };

        begin();
        put_bytes(1, item, sizeof(item));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), MESSAGE_E_MALFORMED);
}

TEST(message, an_empty_submessage_twice_is_malformed) {
        static const uint8_t item[] = { 0x0a, 0x00, 0x0a, 0x00 };

        begin();
        put_bytes(1, item, sizeof(item));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), MESSAGE_E_MALFORMED);
}

TEST(message, an_item_may_have_both_members_for_the_broker_to_refuse) {
        static const uint8_t item[] = { 0x0a, 0x00, 0x12, 0x00 };

        begin();
        put_bytes(1, item, sizeof(item));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), 0);
}

TEST(message, attack_007_overlong_numbers_are_malformed) {
        for (int extra = 1; extra < 9; ++extra) {
                begin();
                put_tag(2, 0);
                put(0x80 | 1);
                for (int i = 1; i < extra; ++i)
                        put(0x80);
                put(0);
                cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "%d bytes too many", extra);
        }
}

TEST(message, attack_007_overlong_tags_are_malformed) {
        begin();
        put(0x80 | 0x10);
        put(0);
        put_varint(4096);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
}

TEST(message, attack_007_overlong_lengths_are_malformed) {
        begin();
        put_tag(1, 2);
        put(0x80 | 2);
        put(0);
        put('/');
        put('a');
        cr_assert_eq(unpack_request(MESSAGE_OPEN), MESSAGE_E_MALFORMED);
}

TEST(message, attack_007_a_number_of_eleven_bytes_is_malformed) {
        begin();
        put_tag(2, 0);
        for (int i = 0; i < 10; ++i)
                put(0xff);
        put(1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
}

TEST(message, attack_007_bits_beyond_the_64th_are_malformed) {
        begin();
        put_tag(2, 0);
        for (int i = 0; i < 9; ++i)
                put(0xff);
        put(1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), 0, "2^64 - 1 itself is a number");

        payload.bytes[payload.n - 1] = 3;
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
        payload.bytes[payload.n - 1] = 0x7f;
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
}

TEST(message, attack_007_a_32_bit_field_takes_no_more_than_32_bits) {
        begin();
        put_number(3, UINT32_MAX);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), 0);

        begin();
        put_number(3, UINT64_C(1) << 32 | 0600);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "cut to 32 bits it would be 0600");
}

TEST(message, a_bool_is_one_bit) {
        for (uint64_t value = 2; value < 300; value += 7) {
                begin();
                put_number(4, value);
                cr_assert_eq(unpack_request(MESSAGE_CHOWN), MESSAGE_E_MALFORMED, "%d", (int)value);
        }
        begin();
        put_number(4, 1);
        cr_assert_eq(unpack_request(MESSAGE_CHOWN), 0);
}

TEST(message, attack_007_field_number_zero_does_not_exist) {
        begin();
        put_number(0, 5);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);

        begin();
        put_bytes(0, "x", 1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);

        begin();
        put_number(2, 4096);
        put_number(0, 5);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
}

TEST(message, attack_007_field_number_zero_is_found_in_submessages) {
        static const uint8_t in_item[] = { 0x00, 0x05 };
        static const uint8_t in_create[] = { 0x0a, 0x02, 0x00, 0x05 };

        begin();
        put_bytes(1, in_item, sizeof(in_item));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), MESSAGE_E_MALFORMED);
        begin();
        put_bytes(1, in_create, sizeof(in_create));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), MESSAGE_E_MALFORMED);
}

TEST(message, attack_007_groups_and_reserved_wire_types_are_malformed) {
        static const uint32_t types[] = { 3, 4, 6, 7 };

        for (size_t i = 0; i < 4; ++i) {
                for (uint32_t field = 1; field < 20; field += 3) {
                        begin();
                        put_tag(field, types[i]);
                        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
                        put_varint(1);
                        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
                }
        }
}

TEST(message, a_field_with_another_wire_type_than_its_own_is_malformed) {
        begin();
        put_bytes(2, "\x01", 1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "a number as bytes");

        begin();
        put_number(1, 1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "bytes as a number");

        begin();
        put_tag(2, 1);
        for (int i = 0; i < 8; ++i)
                put(1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "a number in 64 fixed bits");

        begin();
        put_tag(3, 5);
        for (int i = 0; i < 4; ++i)
                put(1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "a number in 32 fixed bits");
}

TEST(message, zeros_that_are_spelled_out_are_malformed) {
        begin();
        put_number(2, 0);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "a number");
        begin();
        put_bytes(1, "", 0);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "bytes");
        begin();
        put_number(4, 0);
        cr_assert_eq(unpack_request(MESSAGE_CHOWN), MESSAGE_E_MALFORMED, "a bool");
}

TEST(message, zeros_in_submessages_are_malformed) {
        static const uint8_t item[] = { 0x0a, 0x02, 0x10, 0x00 };

        begin();
        put_bytes(1, item, sizeof(item));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), MESSAGE_E_MALFORMED);
}

TEST(message, fields_out_of_order_are_malformed) {
        begin();
        put_number(2, 4096);
        put_number(3, 0600);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), 0);

        begin();
        put_number(3, 0600);
        put_number(2, 4096);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED);
}

TEST(message, attack_005_unknown_fields_are_ignored) {
        begin();
        put_number(1000, 7);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), 0);
        put_bytes(1001, "from the future", 15);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), 0);
        put_tag(1002, 1);
        for (int i = 0; i < 8; ++i)
                put(1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), 0);
        put_tag(1003, 5);
        for (int i = 0; i < 4; ++i)
                put(1);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), 0);
        put_bytes(1, "/a", 2);
        cr_assert_eq(unpack_request(MESSAGE_CREATE), MESSAGE_E_MALFORMED, "known fields come first");
}

TEST(message, attack_008_a_packet_of_unknown_fields_does_not_fit_the_arena) {
        begin();
        while (payload.n + 2 <= WIRE_REQUEST_MAX - sizeof(WireHeader))
                put_number(15, 1);
        cr_assert_eq(unpack_request(MESSAGE_PING), MESSAGE_E_TOO_COMPLEX);
}

TEST(message, attack_008_a_packet_of_empty_items_does_not_fit_the_arena) {
        begin();
        while (payload.n + 2 <= WIRE_REQUEST_MAX - sizeof(WireHeader))
                put_bytes(1, "", 0);
        cr_assert_eq(unpack_request(MESSAGE_BATCH), MESSAGE_E_TOO_COMPLEX);
}

TEST(message, a_packet_of_empty_creates_does_not_fit_the_arena) {
        static const uint8_t item[] = { 0x0a, 0x00 };

        begin();
        while (payload.n + 4 <= WIRE_REQUEST_MAX - sizeof(WireHeader))
                put_bytes(1, item, sizeof(item));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), MESSAGE_E_TOO_COMPLEX);
}

TEST(message, attack_009_sixty_thousand_repeated_numbers_do_not_fit_the_arena) {
        /* Field 13 of StatsReply: requests, each with a packed list of numbers. */
        begin();
        put_tag(13, 2);
        put_varint(4 + 60000);
        put_tag(5, 2);
        put_varint(60000);
        for (int i = 0; i < 60000; ++i)
                put(1);
        cr_assert_eq(unpack(MESSAGE_STATS, true), MESSAGE_E_TOO_COMPLEX);
}

TEST(message, a_whole_batch_fits_the_arena) {
        begin();
        for (int i = 0; i < MESSAGE_BATCH_MAX; ++i) {
                uint8_t item[256] = { 0x12 /* open */, 0 };
                size_t n = 200;

                item[1] = (uint8_t)(n + 3) & 0x7f;
                item[1] |= 0x80;
                item[2] = (uint8_t)((n + 3) >> 7);
                item[3] = 0x0a;
                item[4] = (uint8_t)(n & 0x7f) | 0x80;
                item[5] = (uint8_t)(n >> 7);
                memset(item + 6, 'x', n);
                put_bytes(1, item, 6 + n);
        }
        cr_assert_leq(payload.n, WIRE_REQUEST_MAX - sizeof(WireHeader));
        cr_assert_eq(unpack_request(MESSAGE_BATCH), 0);
}

TEST(message, a_packet_full_of_name_fits_the_arena) {
        begin();
        put_tag(1, 2);
        put_varint(32000);
        for (int i = 0; i < 32000; ++i)
                put('x');
        cr_assert_eq(unpack_request(MESSAGE_OPEN), 0);
}

/* -- what is packed and unpacked without protobuf-c --------------------------------------- */

/* Bytes that are short or long, with a length that needs one byte or two. */
static void put_some_path(uint64_t *random) {
        static char path[300];
        size_t n = test_random(random, test_random(random, 2) ? 12 : sizeof(path));

        memset(path, 'p', sizeof(path));
        put_bytes(1, path, n);
}

/* An open as it usually is, or nearly. */
static void put_some_open(uint64_t *random) {
        if (test_random(random, 20))
                put_some_path(random);
        if (test_random(random, 20))
                put_number(2, test_random(random, test_random(random, 10) ? 3 : 400));
        if (test_random(random, 40) == 0)
                put_number(3, 1);
}

/* Numbers of every length, of 32 bits and of 64. */
static void put_some_create(uint64_t *random) {
        if (test_random(random, 20))
                put_some_path(random);
        for (unsigned int field = 2; field <= 8; ++field) {
                uint64_t high = test_random(random, UINT64_C(1) << 32), low = test_random(random, UINT64_C(1) << 32);
                unsigned int bits = field == 2 || field == 8 || test_random(random, 40) == 0 ? 64 : 32;

                if (test_random(random, 3))
                        put_number(field, (high << 32 | low) >> (64 - 1 - test_random(random, bits)));
        }
        if (test_random(random, 40) == 0)
                put_number(9, 1);
}

static void put_some_batch(uint64_t *random) {
        size_t n = test_random(random, 8);

        for (size_t i = 0; i < n; ++i) {
                Payload before = payload, open, item;

                begin();
                put_some_open(random);
                open = payload;
                begin();
                put_bytes(test_random(random, 40) ? 2 : 1, open.bytes, open.n);
                item = payload;
                payload = before;
                put_bytes(1, item.bytes, item.n);
        }
}

static void spoil(uint64_t *random) {
        if (payload.n == 0)
                return;
        switch (test_random(random, 5)) {
        case 0:
                payload.bytes[test_random(random, payload.n)] ^= (uint8_t)(1U << test_random(random, 8));
                break;
        case 1:
                payload.n = test_random(random, payload.n);
                break;
        case 2:         /* one more begins, and that is all */
                put_tag(1, 2);
                put_varint(1 + test_random(random, 300));
                break;
        default:
                break;
        }
}

/* What is unpacked so is what protobuf-c makes of it, and packs to the same bytes. Return: whether it was. */
static bool is_brief(ProtobufCMessage *(*fn)(Arena *arena, const uint8_t *data, size_t n),
                     const ProtobufCMessageDescriptor *descriptor) {
        static uint8_t packed[WIRE_REPLY_MAX], again[WIRE_REPLY_MAX];
        CLEANUP(arena_freep) Arena *arena = NULL;
        ProtobufCMessage *message, *same;
        size_t n;

        cr_assert_eq(arena_new(&arena, ARENA_BYTES), 0);
        message = fn(arena, payload.bytes, payload.n);
        if (!message) {
                cr_assert_eq(arena_used(arena), 0, "nothing of it is left in the arena");
                return false;
        }
        same = protobuf_c_message_unpack(descriptor, NULL, payload.n, payload.bytes);
        cr_assert_not_null(same);
        cr_assert_eq(same->n_unknown_fields, 0);
        n = protobuf_c_message_pack(message, packed);
        cr_assert_eq(n, payload.n);
        cr_assert_arr_eq(packed, payload.bytes, n);
        cr_assert_eq(protobuf_c_message_pack(same, again), n);
        cr_assert_arr_eq(again, packed, n);
        protobuf_c_message_free_unpacked(same, NULL);
        return true;
}

TEST(message, opens_and_creates_are_unpacked_without_protobuf_c_to_what_it_makes_of_them) {
        uint64_t random = 20261122;
        size_t n_brief[3] = { 0 };
        const size_t rounds = 4000;

        for (size_t i = 0; i < rounds; ++i) {
                begin();
                put_some_open(&random);
                spoil(&random);
                n_brief[0] += is_brief(brief_unpack_open, &shmd__open__descriptor);
                begin();
                put_some_batch(&random);
                spoil(&random);
                n_brief[1] += is_brief(brief_unpack_batch, &shmd__batch__descriptor);
                begin();
                put_some_create(&random);
                spoil(&random);
                n_brief[2] += is_brief(brief_unpack_create, &shmd__create__descriptor);
        }
        cr_assert(n_brief[0] > rounds / 8 && n_brief[0] < rounds, "%zu", n_brief[0]);
        cr_assert(n_brief[1] > rounds / 16 && n_brief[1] < rounds, "%zu", n_brief[1]);
        cr_assert(n_brief[2] > rounds / 8 && n_brief[2] < rounds, "%zu", n_brief[2]);
        cr_assert_eq(shmd__create__descriptor.n_fields, 8, "it knows eight, and leaves whatever has another to others");
}

TEST(message, a_batch_that_ends_in_the_length_of_what_is_not_there_is_malformed) {
        static const uint8_t item[] = { 0x0a, 0x07, 0x12, 0x05, 0x0a, 0x01, '/', 0x10, 0x01 };

        for (unsigned int length = 0; length < 400; ++length) {
                begin();
                for (size_t i = 0; i < sizeof(item); ++i)
                        put(item[i]);
                cr_assert_eq(unpack_request(MESSAGE_BATCH), 0);
                put_tag(1, 2);
                put_varint(length);
                cr_assert_eq(unpack_request(MESSAGE_BATCH), length ? MESSAGE_E_MALFORMED : 0, "%u", length);
        }
}

static uint64_t some_number(uint64_t *random) {
        uint64_t high = test_random(random, UINT64_C(1) << 32), low = test_random(random, UINT64_C(1) << 32);

        return test_random(random, 3) ? (high << 32 | low) >> test_random(random, 64) : 0;
}

static Shmd__Granted some_granted(uint64_t *random) {
        Shmd__Granted granted = SHMD__GRANTED__INIT;

        granted.region = some_number(random);
        granted.size = some_number(random);
        granted.rights = (uint32_t)some_number(random);
        granted.outcome = (uint32_t)some_number(random);
        granted.huge_page_size = (uint32_t)some_number(random);
        granted.freezable = (protobuf_c_boolean)test_random(random, 2);
        granted.grant = some_number(random);
        granted.marker = (protobuf_c_boolean)test_random(random, 2);
        granted.granted = (protobuf_c_boolean)test_random(random, 2);
        return granted;
}

static void expect_packed_as_by_protobuf_c(const ProtobufCMessage *message) {
        static uint8_t expected[WIRE_REPLY_MAX], packed[WIRE_REPLY_MAX];
        size_t n = protobuf_c_message_pack(message, expected);

        cr_assert_eq(brief_pack(message, packed, sizeof(packed)), n);
        cr_assert_arr_eq(packed, expected, n);
}

TEST(message, what_an_open_is_answered_is_packed_without_protobuf_c_to_the_same_bytes) {
        Shmd__Granted granted[8], *items[8];
        uint64_t random = 1;

        cr_assert_eq(shmd__granted__descriptor.n_fields, 9, "it knows nine, and would leave out any other");
        cr_assert_eq(shmd__batch_reply__descriptor.n_fields, 1);
        for (int i = 0; i < 3000; ++i) {
                Shmd__BatchReply reply = SHMD__BATCH_REPLY__INIT;

                reply.items = items;
                for (reply.n_items = 0; reply.n_items < 8; ++reply.n_items) {
                        granted[reply.n_items] = some_granted(&random);
                        items[reply.n_items] = &granted[reply.n_items];
                        expect_packed_as_by_protobuf_c(&granted[reply.n_items].base);
                        expect_packed_as_by_protobuf_c(&reply.base);
                }
        }
}

TEST(message, what_has_no_room_for_the_longest_answer_or_is_no_answer_to_an_open_is_for_protobuf_c) {
        Shmd__Granted granted = SHMD__GRANTED__INIT;
        Shmd__Done done = SHMD__DONE__INIT;
        uint8_t packed[8];

        cr_assert_eq(brief_pack(&granted.base, packed, sizeof(packed)), SIZE_MAX);
        cr_assert_eq(brief_pack(&done.base, packed, sizeof(packed)), SIZE_MAX);
}

TEST(message, every_single_byte_is_judged_without_harm) {
        for (unsigned int kind = 1; kind < _MESSAGE_N; ++kind) {
                for (int byte = 0; byte < 256; ++byte) {
                        begin();
                        put((uint8_t)byte);
                        cr_assert_eq(unpack_request(kind), MESSAGE_E_MALFORMED, "kind %u, byte %#x", kind, byte);
                }
        }
}

TEST(message, attack_012_every_flipped_bit_gives_a_verdict) {
        uint8_t whole[64];
        size_t n;

        begin();
        put_bytes(1, "/camera/front", 13);
        put_number(2, 4096);
        put_number(3, 0640);
        put_number(7, 2);
        n = payload.n;
        memcpy(whole, payload.bytes, n);

        for (size_t bit = 0; bit < n * 8; ++bit) {
                int r;

                memcpy(payload.bytes, whole, n);
                payload.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
                r = unpack_request(MESSAGE_CREATE);
                cr_assert(r == 0 || r == MESSAGE_E_MALFORMED, "bit %zu: %d", bit, r);
        }
}

TEST(message, the_arena_gives_exactly_what_it_has) {
        CLEANUP(arena_freep) Arena *arena = NULL;
        uint8_t *a, *b;

        cr_assert_eq(arena_new(&arena, 64), 0);
        a = arena_alloc(arena, 48);
        cr_assert_not_null(a);
        cr_assert_eq((uintptr_t)a % alignof(max_align_t), 0);
        memset(a, 1, 48);
        cr_assert_null(arena_alloc(arena, 17));
        b = arena_alloc(arena, 16);
        cr_assert_not_null(b);
        cr_assert_eq(b, a + 48);
        cr_assert_null(arena_alloc(arena, 1));

        arena_reset(arena);
        cr_assert_eq(arena_alloc(arena, 64), a);
}

TEST(message, what_comes_from_the_arena_is_aligned_whatever_was_asked) {
        CLEANUP(arena_freep) Arena *arena = NULL;

        cr_assert_eq(arena_new(&arena, 4096), 0);
        for (size_t n = 1; n < 40; ++n)
                cr_assert_eq((uintptr_t)arena_alloc(arena, n) % alignof(max_align_t), 0);
}

TEST(message, the_arena_refuses_sizes_that_overflow) {
        CLEANUP(arena_freep) Arena *arena = NULL;

        cr_assert_eq(arena_new(&arena, 1024), 0);
        cr_assert_null(arena_alloc(arena, SIZE_MAX));
        cr_assert_null(arena_alloc(arena, SIZE_MAX - 14));
        cr_assert_null(arena_alloc(arena, SIZE_MAX / 2));
        cr_assert_null(arena_alloc(arena, 1025));
        cr_assert_not_null(arena_alloc(arena, 1024));
}

TEST(message, an_arena_that_overflowed_is_good_again_after_its_reset) {
        CLEANUP(arena_freep) Arena *arena = NULL;
        ProtobufCMessage *message;

        begin();
        for (int i = 0; i < 100; ++i)
                put_bytes(1, "", 0);
        cr_assert_eq(arena_new(&arena, 2048), 0);
        cr_assert_eq(message_unpack(arena, MESSAGE_BATCH, false, payload.bytes, payload.n, &message),
                     MESSAGE_E_TOO_COMPLEX);

        arena_reset(arena);
        begin();
        put(0x80);
        cr_assert_eq(message_unpack(arena, MESSAGE_BATCH, false, payload.bytes, payload.n, &message),
                     MESSAGE_E_MALFORMED, "not too complex any more");

        arena_reset(arena);
        begin();
        put_bytes(1, "", 0);
        cr_assert_eq(message_unpack(arena, MESSAGE_BATCH, false, payload.bytes, payload.n, &message), 0);
}

TEST(message, an_arena_without_room_is_too_complex_for_anything) {
        CLEANUP(arena_freep) Arena *arena = NULL;
        ProtobufCMessage *message;

        cr_assert_eq(arena_new(&arena, 0), 0);
        cr_assert_eq(message_unpack(arena, MESSAGE_PING, false, NULL, 0, &message), MESSAGE_E_TOO_COMPLEX);
}

TEST(message, freeing_no_arena_is_fine) {
        cr_assert_null(arena_free(NULL));
}
