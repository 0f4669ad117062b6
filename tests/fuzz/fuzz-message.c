/* Payloads of every kind. What decodes has one encoding: it packs to the bytes it came from. */

#include <string.h>

#include "fuzz/fuzz.h"
#include "proto/message.h"
#include "proto/wire.h"

/* The first byte says which message: the kind, and in the top bit whether it is a reply. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        static uint8_t packed[WIRE_REPLY_MAX];
        static Arena *arena;
        ProtobufCMessage *message;
        unsigned int kind;
        size_t n_packed;
        int r;

        if (n == 0 || n > WIRE_REPLY_MAX)
                return 0;
        if (!arena)
                FUZZ_REQUIRE(arena_new(&arena, 256 * 1024) == 0);
        arena_reset(arena);

        kind = data[0] & 0x7f;
        if (kind == 0x7f)
                kind = MESSAGE_REFUSAL;
        if (kind == 0x7e)
                kind = MESSAGE_EVENT;
        r = message_unpack(arena, kind, data[0] & 0x80, data + 1, n - 1, &message);
        FUZZ_REQUIRE(r >= 0);
        if (r)
                return 0;

        FUZZ_REQUIRE(message_pack(message, packed, sizeof(packed), &n_packed) == 0);
        FUZZ_REQUIRE(n_packed == n - 1 && memcmp(packed, data + 1, n_packed) == 0);
        return 0;
}
