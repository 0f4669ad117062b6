/* Payloads: see the header for the model. */

#include "proto/message.h"

#include <errno.h>
#include <stdalign.h>
#include <string.h>

#include "base/assert.h"
#include "proto/brief.h"

struct Arena {
        size_t n;
        size_t used;
        bool overflowed;        /* told apart from malformed input by unpack's caller */
        ProtobufCAllocator allocator;
        alignas(max_align_t) uint8_t bytes[];
};

void *arena_alloc(Arena *arena, size_t n) {
        size_t rounded = (n + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
        void *p;

        if (rounded < n || rounded > arena->n - arena->used) {
                arena->overflowed = true;
                return NULL;
        }
        p = arena->bytes + arena->used;
        arena->used += rounded;
        return p;
}

size_t arena_used(const Arena *arena) {
        return arena->used;
}

void arena_return(Arena *arena, size_t used) {
        ASSERT(used <= arena->used);
        arena->used = used;
        arena->overflowed = false;
}

static void *allocator_alloc(void *arena, size_t n) {
        return arena_alloc(arena, n);
}

/* What protobuf-c frees stays until the reset: the arena is a stack of one packet. */
static void allocator_free(void *arena, void *p) {
        (void)arena;
        (void)p;
}

int arena_new(Arena **ret, size_t n) {
        Arena *arena;

        n &= ~(alignof(max_align_t) - 1);
        arena = malloc(sizeof(*arena) + n);
        if (!arena)
                return -ENOMEM;

        *arena = (Arena){
                .n = n,
                .allocator = { .alloc = allocator_alloc, .free = allocator_free, .allocator_data = arena },
        };
        *ret = arena;
        return 0;
}

Arena *arena_free(Arena *arena) {
        free(arena);
        return NULL;
}

void arena_reset(Arena *arena) {
        arena->used = 0;
        arena->overflowed = false;
}

void arena_wipe(Arena *arena) {
        explicit_bzero(arena->bytes, arena->used);
        arena_reset(arena);
}

static const struct {
        const char *name;
        const ProtobufCMessageDescriptor *request;
        const ProtobufCMessageDescriptor *reply;
        /* Unpacks most requests of the kind; NULL: what it cannot is for protobuf-c. */
        ProtobufCMessage *(*brief)(Arena *arena, const uint8_t *data, size_t n);
} kinds[_MESSAGE_N] = {
        [MESSAGE_HELLO]   = { "hello",   &shmd__hello__descriptor,   &shmd__hello_reply__descriptor },
        [MESSAGE_PING]    = { "ping",    &shmd__ping__descriptor,    &shmd__ping__descriptor },
        [MESSAGE_CREATE]  = { "create",  &shmd__create__descriptor,  &shmd__granted__descriptor, brief_unpack_create },
        [MESSAGE_OPEN]    = { "open",    &shmd__open__descriptor,    &shmd__granted__descriptor, brief_unpack_open },
        [MESSAGE_BATCH]   = { "batch",   &shmd__batch__descriptor,   &shmd__batch_reply__descriptor, brief_unpack_batch },
        [MESSAGE_PUBLISH] = { "publish", &shmd__publish__descriptor, &shmd__done__descriptor },
        [MESSAGE_STAT]    = { "stat",    &shmd__stat__descriptor,    &shmd__stat_reply__descriptor },
        [MESSAGE_LIST]    = { "list",    &shmd__list__descriptor,    &shmd__list_reply__descriptor },
        [MESSAGE_MKDIR]   = { "mkdir",   &shmd__mkdir__descriptor,   &shmd__done__descriptor },
        [MESSAGE_RMDIR]   = { "rmdir",   &shmd__remove__descriptor,  &shmd__done__descriptor },
        [MESSAGE_UNLINK]  = { "unlink",  &shmd__remove__descriptor,  &shmd__done__descriptor },
        [MESSAGE_CHMOD]   = { "chmod",   &shmd__chmod__descriptor,   &shmd__done__descriptor },
        [MESSAGE_CHOWN]   = { "chown",   &shmd__chown__descriptor,   &shmd__done__descriptor },
        [MESSAGE_WAIT]    = { "wait",    &shmd__wait__descriptor,    &shmd__wait_reply__descriptor },
        [MESSAGE_DF]      = { "df",      &shmd__df__descriptor,      &shmd__df_reply__descriptor },
        [MESSAGE_STATS]   = { "stats",   &shmd__stats__descriptor,   &shmd__stats_reply__descriptor },
        [MESSAGE_LINK]    = { "link",    &shmd__link__descriptor,    &shmd__done__descriptor },
        [MESSAGE_RENAME]  = { "rename",  &shmd__rename__descriptor,  &shmd__done__descriptor },
        [MESSAGE_TTL]     = { "ttl",     &shmd__ttl__descriptor,     &shmd__done__descriptor },
        [MESSAGE_GET_ACL] = { "get-acl", &shmd__get_acl__descriptor, &shmd__acl_reply__descriptor },
        [MESSAGE_SET_ACL] = { "set-acl", &shmd__set_acl__descriptor, &shmd__done__descriptor },
        [MESSAGE_WHY]     = { "why",     &shmd__why__descriptor,     &shmd__why_reply__descriptor },
        [MESSAGE_RELOAD]  = { "reload",  &shmd__reload__descriptor,  &shmd__reload_reply__descriptor },
        [MESSAGE_FREEZE]  = { "freeze",  &shmd__freeze__descriptor,  &shmd__freeze_reply__descriptor },
        [MESSAGE_WATCH]   = { "watch",   &shmd__watch__descriptor,   &shmd__watch_reply__descriptor },
        [MESSAGE_UNWATCH] = { "unwatch", &shmd__unwatch__descriptor, &shmd__done__descriptor },
        [MESSAGE_TICKET]  = { "ticket",  &shmd__ticket__descriptor,  &shmd__ticket_reply__descriptor },
        [MESSAGE_REDEEM]  = { "redeem",  &shmd__redeem__descriptor,  &shmd__granted__descriptor },
        [MESSAGE_REVOKE]  = { "revoke",  &shmd__revoke__descriptor,  &shmd__revoke_reply__descriptor },
        [MESSAGE_TICKETS] = { "tickets", &shmd__tickets__descriptor, &shmd__tickets_reply__descriptor },
        [MESSAGE_BELL]    = { "bell",    &shmd__bell__descriptor,    &shmd__bell_reply__descriptor },
        [MESSAGE_DOCTOR]  = { "doctor",  &shmd__doctor__descriptor,  &shmd__doctor_reply__descriptor },
        [MESSAGE_UPGRADE] = { "upgrade", &shmd__upgrade__descriptor, &shmd__done__descriptor },
        [MESSAGE_STATE]   = { "state",   &shmd__state__descriptor,   &shmd__state_reply__descriptor },
};

const char *message_name(unsigned int kind) {
        return kind < _MESSAGE_N ? kinds[kind].name : NULL;
}

static const char *const reasons[] = {
        [SHMD__REASON__REASON_NONE]            = "none",
        [SHMD__REASON__REASON_MALFORMED]       = "malformed",
        [SHMD__REASON__REASON_NAME]            = "name",
        [SHMD__REASON__REASON_FLAGS]           = "flags",
        [SHMD__REASON__REASON_SIZE]            = "size",
        [SHMD__REASON__REASON_MODE]            = "mode",
        [SHMD__REASON__REASON_VERSION]         = "version",
        [SHMD__REASON__REASON_REQUEST]         = "request",
        [SHMD__REASON__REASON_STATE]           = "state",
        [SHMD__REASON__REASON_MISSING]         = "missing",
        [SHMD__REASON__REASON_TAKEN]           = "taken",
        [SHMD__REASON__REASON_SEARCH]          = "directory-search",
        [SHMD__REASON__REASON_DIRECTORY_READ]  = "directory-read",
        [SHMD__REASON__REASON_DIRECTORY_WRITE] = "directory-write",
        [SHMD__REASON__REASON_STICKY]          = "sticky",
        [SHMD__REASON__REASON_REGION_READ]     = "region-read",
        [SHMD__REASON__REASON_REGION_WRITE]    = "region-write",
        [SHMD__REASON__REASON_OWNER]           = "owner",
        [SHMD__REASON__REASON_ADMIN]           = "admin",
        [SHMD__REASON__REASON_LIMIT]           = "limit",
        [SHMD__REASON__REASON_SHARE]           = "share",
        [SHMD__REASON__REASON_DIRECTORY_LIMIT] = "directory-limit",
        [SHMD__REASON__REASON_DEADLINE]        = "deadline",
        [SHMD__REASON__REASON_DESCRIPTORS]     = "descriptors",
        [SHMD__REASON__REASON_KERNEL]          = "kernel",
        [SHMD__REASON__REASON_HUGE_PAGES]      = "huge-pages",
        [SHMD__REASON__REASON_HAS_NAME]        = "has-name",
        [SHMD__REASON__REASON_ROOT]            = "root",
        [SHMD__REASON__REASON_PACKET]          = "packet",
        [SHMD__REASON__REASON_STOPPING]        = "stopping",
        [SHMD__REASON__REASON_INSIDE]          = "inside",
        [SHMD__REASON__REASON_ACL]             = "acl",
        [SHMD__REASON__REASON_POLICY]          = "policy",
        [SHMD__REASON__REASON_NOT_FREEZABLE]   = "not-freezable",
        [SHMD__REASON__REASON_FROZEN]          = "frozen",
        [SHMD__REASON__REASON_SEALS]           = "seals",
        [SHMD__REASON__REASON_HELPER]          = "helper",
        [SHMD__REASON__REASON_TICKET]          = "ticket",
        [SHMD__REASON__REASON_EVENTS]          = "events",
        [SHMD__REASON__REASON_KEEPER]          = "keeper",
        [SHMD__REASON__REASON_SERIAL]          = "serial",
};

const char *message_reason_name(uint32_t reason) {
        return reason < sizeof(reasons) / sizeof(reasons[0]) ? reasons[reason] : "unknown";
}

/* Field number 0 does not exist, but protobuf-c keeps it as an unknown field. */
static bool has_field_zero(const ProtobufCMessage *message) {
        for (unsigned int i = 0; i < message->n_unknown_fields; ++i)
                if (message->unknown_fields[i].tag == 0)
                        return true;

        for (unsigned int i = 0; i < message->descriptor->n_fields; ++i) {
                const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
                const uint8_t *at = (const uint8_t *)message + field->offset;

                if (field->type != PROTOBUF_C_TYPE_MESSAGE)
                        continue;
                if (field->label == PROTOBUF_C_LABEL_REPEATED) {
                        ProtobufCMessage *const *items = *(ProtobufCMessage *const *const *)(const void *)at;
                        size_t n = *(const size_t *)(const void *)((const uint8_t *)message + field->quantifier_offset);

                        for (size_t k = 0; k < n; ++k)
                                if (has_field_zero(items[k]))
                                        return true;
                } else {
                        const ProtobufCMessage *item = *(ProtobufCMessage *const *)(const void *)at;

                        if (item && has_field_zero(item))
                                return true;
                }
        }
        return false;
}

/* A buffer that keeps nothing: it compares what is packed into it with the bytes that came. */
typedef struct Comparison {
        ProtobufCBuffer base;
        const uint8_t *data;
        size_t left;
        bool differs;
} Comparison;

static void comparison_append(ProtobufCBuffer *buffer, size_t n, const uint8_t *data) {
        Comparison *comparison = (Comparison *)buffer;

        if (comparison->differs || n > comparison->left || (n && memcmp(data, comparison->data, n) != 0)) {
                comparison->differs = true;
                return;
        }
        comparison->data += n;
        comparison->left -= n;
}

static bool encodes_to(const ProtobufCMessage *message, const uint8_t *data, size_t n) {
        Comparison comparison = { .base = { .append = comparison_append }, .data = data, .left = n };

        (void)protobuf_c_message_pack_to_buffer(message, &comparison.base);
        return !comparison.differs && comparison.left == 0;
}

int message_unpack(Arena *arena, unsigned int kind, bool reply, const uint8_t *data, size_t n, ProtobufCMessage **ret) {
        const ProtobufCMessageDescriptor *descriptor;
        ProtobufCMessage *message;

        if (reply && kind == MESSAGE_REFUSAL)
                descriptor = &shmd__refusal__descriptor;
        else if (reply && kind == MESSAGE_EVENT)
                descriptor = &shmd__events__descriptor;
        else if (message_name(kind))
                descriptor = reply ? kinds[kind].reply : kinds[kind].request;
        else
                return MESSAGE_E_UNKNOWN;

        if (!reply && kinds[kind].brief) {
                *ret = kinds[kind].brief(arena, data, n);
                if (*ret)
                        return 0;
        }
        message = protobuf_c_message_unpack(descriptor, &arena->allocator, n, data);
        if (!message)
                return arena->overflowed ? MESSAGE_E_TOO_COMPLEX : MESSAGE_E_MALFORMED;
        if (has_field_zero(message) || !encodes_to(message, data, n))
                return MESSAGE_E_MALFORMED;

        *ret = message;
        return 0;
}

int message_pack(const ProtobufCMessage *message, uint8_t *data, size_t n_max, size_t *ret_n) {
        size_t n = brief_pack(message, data, n_max);

        if (n != SIZE_MAX) {
                *ret_n = n;
                return 0;
        }
        n = protobuf_c_message_get_packed_size(message);
        if (n > n_max)
                return MESSAGE_E_TOO_LARGE;
        *ret_n = protobuf_c_message_pack(message, data);
        ASSERT(*ret_n == n);
        return 0;
}
