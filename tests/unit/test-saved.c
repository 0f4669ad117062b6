/* daemon/core/saved: what is in a record comes out of it again, and nothing else is believed. */

#include "daemon-house.h"

#include <stdlib.h>
#include <string.h>

#include "core/saved.h"
#include "proto/message.h"

/* What there is of each kind, the same for all of them. */
typedef struct Kind {
        const char *name;
        size_t size;
        void (*fill)(void *saved, uint64_t *random);
        int (*decode)(void *ret, const uint8_t *data, size_t n);
        size_t (*encode)(const void *saved, uint8_t *data);
} Kind;

static uint64_t some_id(uint64_t *random) {
        return 2 + test_random(random, SAVED_ID_MAX - 2);
}

static uint32_t some_uid(uint64_t *random) {
        return 1 + (uint32_t)test_random(random, UINT32_MAX - 2);
}

static void some_bytes(void *to, size_t n, uint64_t *random) {
        for (size_t i = 0; i < n; ++i)
                ((uint8_t *)to)[i] = 1 + (uint8_t)test_random(random, 255);
}

static uint8_t some_name(char *name, uint64_t *random) {
        uint8_t n = 1 + (uint8_t)test_random(random, PATH_COMPONENT_MAX);

        for (size_t i = 0; i < n; ++i)
                name[i] = (char)('a' + test_random(random, 26));
        return n;
}

/* A list that says more than the mode; of 4 to ACL_ENTRIES_MAX entries. */
static void some_acl(mode_t mode, AclList *ret, uint64_t *random) {
        size_t n = 4 + test_random(random, ACL_ENTRIES_MAX - 3);
        Acl *acl = calloc(1, sizeof(*acl));

        acl->group_perms = (uint8_t)test_random(random, 8);
        acl_join(mode, acl, ret);
        free(acl);
        while (ret->n < n)
                (void)acl_list_put(ret, acl_entry(test_random(random, 2) ? ACL_USER : ACL_GROUP, some_uid(random),
                                                  (uint32_t)test_random(random, 8)));
}

static void some_permissions(SavedPermissions *to, mode_t modes, uint64_t *random) {
        to->uid = some_uid(random);
        to->gid = some_uid(random);
        to->mode = 1 + (uint16_t)test_random(random, modes);
        if (test_random(random, 2))
                some_acl(to->mode, &to->acl, random);
}

static void some_defaults(SavedDefaults *to, uint64_t *random) {
        uint64_t how = test_random(random, 3);

        to->set = how > 0;
        if (how > 0)
                to->mode = 1 + (uint16_t)test_random(random, 0777);
        if (how == 1)
                acl_join(to->mode, NULL, &to->acl);
        if (how == 2)
                some_acl(to->mode, &to->acl, random);
}

static void fill_counters(void *saved, uint64_t *random) {
        SavedCounters *to = saved;

        to->last_region = some_id(random);
        to->last_grant = some_id(random);
        to->last_ticket = some_id(random);
        to->last_directory = some_id(random);
        to->last_name = some_id(random);
        to->last_session = some_id(random);
        to->sequence = some_id(random);
}

static void fill_policy(void *saved, uint64_t *random) {
        SavedPolicy *to = saved;

        to->generation = some_id(random);
        to->n_blob = some_uid(random);
        to->pending = true;
}

static void fill_directory(void *saved, uint64_t *random) {
        SavedDirectory *to = saved;

        to->id = some_id(random);
        to->parent = to->id == 2 ? 3 : to->id - 1;
        some_permissions(&to->permissions, ACCESS_DIRECTORY_MODES, random);
        some_defaults(&to->defaults, random);
        to->own_max[0] = some_id(random);
        to->own_max[1] = some_id(random);
        to->created_ns = some_id(random);
        to->max[0] = some_id(random);
        to->max[1] = some_id(random);
        to->ruled = true;
        to->paid = true;
        to->payer = some_uid(random);
        to->n_name = some_name(to->name, random);
}

static void fill_region(void *saved, uint64_t *random) {
        SavedRegion *to = saved;

        to->id = some_id(random);
        to->huge_shift = 12 + (uint8_t)test_random(random, 9);
        to->size = (1 + test_random(random, 1000)) << to->huge_shift;
        to->created_ns = some_id(random);
        to->inode = some_id(random);
        some_permissions(&to->permissions, ACCESS_REGION_MODES, random);
        to->payer = some_uid(random);
        to->lifetime = REGION_SESSION;
        to->state = REGION_STATE_CONDEMNED;
        to->freezable = to->published = to->told_frozen = to->is_bell = to->polled = true;
        to->rings_for = to->id - 1;
        to->session = some_id(random);
        to->ended = 1 + test_random(random, SAVED_ENDED_MAX);
        to->revoked = 1 + (uint32_t)test_random(random, UINT32_MAX);
}

static void fill_name(void *saved, uint64_t *random) {
        SavedName *to = saved;

        to->id = some_id(random);
        to->directory = some_id(random);
        to->region = some_id(random);
        to->expires_at = some_id(random);
        to->n_name = some_name(to->name, random);
}

static void fill_ticket(void *saved, uint64_t *random) {
        SavedTicket *to = saved;

        to->id = some_id(random);
        to->region = some_id(random);
        to->until = some_id(random);
        to->issuer = some_uid(random);
        to->uid = some_uid(random);
        to->left = 1 + (uint32_t)test_random(random, TICKET_USES_MAX / 2);
        to->uses = to->left + (uint32_t)test_random(random, TICKET_USES_MAX / 2);
        to->writable = to->one_user = true;
        some_bytes(to->digest, sizeof(to->digest), random);
}

static void fill_grant(void *saved, uint64_t *random) {
        SavedGrant *to = saved;

        to->id = some_id(random);
        to->region = some_id(random);
        to->born = some_id(random);
        to->pidfd_ino = some_id(random);
        to->uid = some_uid(random);
        to->pid = 1 + (uint32_t)test_random(random, INT32_MAX - 1);
        to->writable = to->marked = to->ticket = true;
        to->session = some_id(random);
        to->again = 1 + (uint32_t)test_random(random, UINT32_MAX - 1);
}

static void fill_session(void *saved, uint64_t *random) {
        SavedSession *to = saved;

        to->id = some_id(random);
        some_bytes(to->session, sizeof(to->session), random);
        to->uid = some_uid(random);
        to->starts = some_id(random);
}

static void fill_outcomes(void *saved, uint64_t *random) {
        SavedOutcomes *to = saved;

        to->session = some_id(random);
        to->block = 1 + (uint8_t)test_random(random, SAVED_OUTCOME_BLOCKS - 1);
        to->count = some_uid(random);
        for (size_t i = 0; i < SAVED_OUTCOMES; ++i) {
                to->outcomes[i].serial = some_id(random);
                to->outcomes[i].kind = 1 + (uint8_t)test_random(random, UINT8_MAX);
                to->outcomes[i].hash = some_uid(random);
                to->outcomes[i].region = some_id(random);
                to->outcomes[i].extra = some_id(random);
        }
}

static void fill_batch(void *saved, uint64_t *random) {
        SavedBatch *to = saved;

        to->session = some_id(random);
        to->slot = 1 + (uint8_t)test_random(random, SAVED_OUTCOME_SLOTS - 1);
        to->n = 1 + (uint8_t)test_random(random, SAVED_BATCH_MAX);
        for (size_t i = 0; i < to->n; ++i)
                to->items[i] = (1 + test_random(random, SAVED_ITEM_REGION - 1)) |
                               test_random(random, SAVED_ITEM_RIGHTS) << SAVED_ITEM_RIGHTS_SHIFT |
                               (test_random(random, 2) ? SAVED_ITEM_CREATED : 0);
}

/* The functions of one kind, with the type of its struct hidden. */
#define DEFINE_KIND(name, Type)                                                                 \
        static int decode_##name(void *ret, const uint8_t *data, size_t n) {                    \
                return saved_decode_##name(ret, data, n);                                       \
        }                                                                                       \
        static size_t encode_##name(const void *saved, uint8_t *data) {                         \
                return saved_encode_##name(saved, data);                                        \
        }                                                                                       \
        static const Kind kind_##name = { #name, sizeof(Type), fill_##name, decode_##name, encode_##name }

DEFINE_KIND(counters, SavedCounters);
DEFINE_KIND(policy, SavedPolicy);
DEFINE_KIND(directory, SavedDirectory);
DEFINE_KIND(region, SavedRegion);
DEFINE_KIND(name, SavedName);
DEFINE_KIND(ticket, SavedTicket);
DEFINE_KIND(grant, SavedGrant);
DEFINE_KIND(session, SavedSession);
DEFINE_KIND(outcomes, SavedOutcomes);
DEFINE_KIND(batch, SavedBatch);

static const Kind *const kinds[] = {
        &kind_counters, &kind_policy, &kind_directory, &kind_region, &kind_name, &kind_ticket, &kind_grant,
        &kind_session, &kind_outcomes, &kind_batch,
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

typedef union Any {
        SavedCounters counters;
        SavedPolicy policy;
        SavedDirectory directory;
        SavedRegion region;
        SavedName name;
        SavedTicket ticket;
        SavedGrant grant;
        SavedSession session;
        SavedOutcomes outcomes;
        SavedBatch batch;
} Any;

static size_t make(const Kind *kind, Any *saved, uint8_t *data, uint64_t *random) {
        size_t n;

        memset(saved, 0, sizeof(*saved));
        kind->fill(saved, random);
        n = kind->encode(saved, data);
        REQUIRE(n <= SAVED_BYTES_MAX, "%s has %zu bytes", kind->name, n);
        return n;
}

/* Decodes a copy that has no byte more than there is, for the sanitizers. */
static int decode(const Kind *kind, Any *ret, const uint8_t *data, size_t n) {
        uint8_t *exact = malloc(n ? n : 1);
        int r;

        memcpy(exact, data, n);
        r = kind->decode(ret, exact, n);
        free(exact);
        REQUIRE(r == 0 || r == SAVED_E_INVALID);
        return r;
}

/* Whatever is accepted has one encoding. */
static void require_canonical(const Kind *kind, const Any *saved, const uint8_t *data, size_t n, size_t at) {
        uint8_t again[SAVED_BYTES_MAX];
        size_t n_again = kind->encode(saved, again);

        REQUIRE(n_again == n && !memcmp(again, data, n), "%s: byte %zu means nothing", kind->name, at);
}

TEST(saved, every_field_comes_out_as_it_went_in) {
        uint64_t random = test_seed();
        uint8_t data[SAVED_BYTES_MAX];
        Any in, out;

        for (size_t i = 0; i < N_KINDS; ++i) {
                for (uint64_t round = test_rounds(1000); round > 0; --round) {
                        size_t n = make(kinds[i], &in, data, &random);

                        REQUIRE(decode(kinds[i], &out, data, n) == 0, "%s", kinds[i]->name);
                        /* Not byte by byte: what is between the fields of an ACL's entries is nobody's. */
                        require_canonical(kinds[i], &out, data, n, 0);
                        if (kinds[i] != &kind_directory && kinds[i] != &kind_region)
                                REQUIRE(!memcmp(&in, &out, kinds[i]->size), "%s", kinds[i]->name);
                }
        }
}

/* No field is forgotten by the tables: what the fillers leave at zero is padding, and the unused ends of lists. */
TEST(saved, what_is_filled_is_encoded) {
        uint64_t random = test_seed();
        uint8_t data[SAVED_BYTES_MAX], other[SAVED_BYTES_MAX];
        Any in, changed;

        for (size_t i = 0; i < N_KINDS; ++i) {
                for (size_t at = 0; at < kinds[i]->size; ++at) {
                        size_t n = make(kinds[i], &in, data, &random);

                        changed = in;
                        ((uint8_t *)&changed)[at] ^= 1;
                        if (((uint8_t *)&in)[at] == 0)
                                continue;       /* not filled: padding, or a high byte */
                        if (kinds[i] == &kind_directory && (at >= offsetof(SavedDirectory, permissions.acl)))
                                continue;       /* lists and names have their own tests */
                        if (kinds[i] == &kind_region && at >= offsetof(SavedRegion, permissions.acl) &&
                            at < offsetof(SavedRegion, payer))
                                continue;
                        if (kinds[i] == &kind_name && at >= offsetof(SavedName, n_name))
                                continue;
                        if (kinds[i] == &kind_batch && at == offsetof(SavedBatch, n))
                                continue;
                        REQUIRE(kinds[i]->encode(&changed, other) != n || memcmp(data, other, n),
                                "%s: byte %zu is not saved", kinds[i]->name, at);
                }
        }
}

TEST(saved, cut_anywhere_it_is_none) {
        uint64_t random = test_seed();
        uint8_t data[SAVED_BYTES_MAX + 1];
        Any saved;

        for (size_t i = 0; i < N_KINDS; ++i) {
                for (uint64_t round = 0; round < 20; ++round) {
                        size_t n = make(kinds[i], &saved, data, &random);

                        for (size_t cut = 0; cut < n; ++cut)
                                REQUIRE(decode(kinds[i], &saved, data, cut) == SAVED_E_INVALID, "%s with %zu bytes",
                                        kinds[i]->name, cut);
                        data[n] = 0;
                        REQUIRE(decode(kinds[i], &saved, data, n + 1) == SAVED_E_INVALID, "%s with a byte too many",
                                kinds[i]->name);
                }
        }
}

TEST(saved, with_any_byte_changed_it_is_none_or_another_one) {
        uint64_t random = test_seed(), n_valid = 0, n_invalid = 0;
        uint8_t data[SAVED_BYTES_MAX];
        Any saved;

        for (size_t i = 0; i < N_KINDS; ++i) {
                size_t n = make(kinds[i], &saved, data, &random);

                for (size_t at = 0; at < n; ++at) {
                        for (unsigned int flip = 1; flip < 256; ++flip) {
                                data[at] ^= (uint8_t)flip;
                                if (decode(kinds[i], &saved, data, n) == 0) {
                                        require_canonical(kinds[i], &saved, data, n, at);
                                        ++n_valid;
                                } else {
                                        ++n_invalid;
                                }
                                data[at] ^= (uint8_t)flip;
                        }
                }
        }
        cr_assert(n_valid > 1000 && n_invalid > 1000, "%lu are records, %lu are not", n_valid, n_invalid);
}

TEST(saved, any_bytes_are_taken_or_refused) {
        uint64_t random = test_seed();
        uint8_t data[SAVED_BYTES_MAX];
        Any saved;

        for (uint64_t round = test_rounds(20000); round > 0; --round) {
                const Kind *kind = kinds[test_random(&random, N_KINDS)];
                size_t n = test_random(&random, 128);

                some_bytes(data, n, &random);
                if (n > 1) {
                        data[0] = (uint8_t)(2 + test_random(&random, n));
                        data[1] = 0;
                }
                (void)decode(kind, &saved, data, n);
        }
}

/* -- records of before ---------------------------------------------------------------------- */

/* Takes the last field that is there away, of `bytes` bytes: a record of a version that did not have it. */
static size_t shorten(uint8_t *data, size_t n, size_t at, size_t bytes) {
        uint8_t *last = &data[data[0]], highest = 128;

        while (!(*last & highest))
                highest /= 2;
        *last ^= highest;
        memmove(data + at, data + at + bytes, n - at - bytes);
        n -= bytes;
        if (*last == 0) {
                memmove(last, last + 1, n - (size_t)(last + 1 - data));
                --data[0];
                --n;
        }
        return n;
}

TEST(saved, fields_that_an_older_record_lacks_are_zero) {
        uint64_t random = test_seed();
        uint8_t data[SAVED_BYTES_MAX];
        Any in, out;
        size_t n;

        n = make(&kind_name, &in, data, &random);
        in.name.expires_at = 200;
        n = kind_name.encode(&in, data);
        n = shorten(data, n, n - in.name.n_name - 2, 2);
        in.name.expires_at = 0;
        cr_assert_eq(decode(&kind_name, &out, data, n), 0);
        cr_assert_arr_eq(&out, &in, sizeof(in.name), "the name behind it is found as well");

        n = make(&kind_region, &in, data, &random);
        in.region.permissions.acl.n = 0;
        in.region.revoked = 100;
        n = kind_region.encode(&in, data);
        n = shorten(data, n, n - 2, 1);
        in.region.revoked = 0;
        cr_assert_eq(decode(&kind_region, &out, data, n), 0);
        cr_assert_eq(out.region.revoked, 0);
        cr_assert_eq(out.region.payer, in.region.payer);
}

TEST(saved, half_a_field_is_none_nor_is_one_that_must_be_there) {
        uint64_t random = test_seed();
        uint8_t data[SAVED_BYTES_MAX];
        Any in, out;
        size_t n;

        n = make(&kind_counters, &in, data, &random);
        cr_assert_eq(decode(&kind_counters, &out, data, n - 3), SAVED_E_INVALID);
        cr_assert_eq(decode(&kind_counters, &out, data, shorten(data, n, n - 8, 8)), SAVED_E_INVALID,
                     "what is always there cannot be missing");
        (void)make(&kind_ticket, &in, data, &random);
        in.ticket.left = 0;
        cr_assert_eq(decode(&kind_ticket, &out, data, kind_ticket.encode(&in, data)), SAVED_E_INVALID,
                     "a ticket has uses left");
        (void)make(&kind_grant, &in, data, &random);
        in.grant.id = 0;
        cr_assert_eq(decode(&kind_grant, &out, data, kind_grant.encode(&in, data)), SAVED_E_INVALID,
                     "a grant has a number");
}

TEST(saved, fields_that_we_do_not_know_are_refused) {
        uint64_t random = test_seed();
        uint8_t data[SAVED_BYTES_MAX + 8];
        Any in, out;

        for (size_t i = 0; i < N_KINDS; ++i) {
                size_t n = make(kinds[i], &in, data, &random), n_map = 1 + (size_t)data[0];

                memmove(data + n_map + 1, data + n_map, n - n_map);
                data[n_map] = 128;
                ++data[0];
                REQUIRE(decode(kinds[i], &out, data, n + 1) == SAVED_E_INVALID, "%s", kinds[i]->name);
        }
}

TEST(saved, a_number_has_one_encoding) {
        /* A grant's number is its first field. */
        static const uint8_t good[] = { 2, 1, 0, 5 }, longer[] = { 1, 1, 0x85, 0 }, map[] = { 2, 1, 0, 5 };
        SavedPolicy policy;
        SavedGrant grant;

        cr_assert_eq(saved_decode_grant(&grant, good, sizeof(good)), SAVED_E_INVALID, "its map ends with nothing");
        cr_assert_eq(saved_decode_grant(&grant, longer, sizeof(longer)), SAVED_E_INVALID);
        cr_assert_eq(saved_decode_policy(&policy, map, sizeof(map)), SAVED_E_INVALID);
}

/* -- out of range ---------------------------------------------------------------------------- */

#define EXPECT_WRONG(name, Type, ...)                                                           \
        do {                                                                                    \
                uint8_t data[SAVED_BYTES_MAX];                                                  \
                uint64_t random = 1;                                                            \
                Any any, out;                                                                   \
                Type *saved = (Type *)(void *)&any;                                             \
                size_t n = make(&kind_##name, &any, data, &random);                             \
                                                                                                \
                REQUIRE(decode(&kind_##name, &out, data, n) == 0);                              \
                __VA_ARGS__;                                                                    \
                n = saved_encode_##name(saved, data);                                           \
                REQUIRE(decode(&kind_##name, &out, data, n) == SAVED_E_INVALID, #__VA_ARGS__);  \
        } while (0)

TEST(saved, numbers_out_of_range_are_refused) {
        EXPECT_WRONG(counters, SavedCounters, saved->last_grant = SAVED_ID_MAX + 1);
        EXPECT_WRONG(counters, SavedCounters, saved->last_directory = 0);
        EXPECT_WRONG(counters, SavedCounters, saved->sequence = UINT64_MAX);
        EXPECT_WRONG(policy, SavedPolicy, saved->generation = UINT64_MAX);
        EXPECT_WRONG(grant, SavedGrant, saved->id = 0);
        EXPECT_WRONG(grant, SavedGrant, saved->id = SAVED_ID_MAX + 1);
        EXPECT_WRONG(grant, SavedGrant, saved->region = 0);
        EXPECT_WRONG(grant, SavedGrant, saved->uid = UINT32_MAX);
        EXPECT_WRONG(grant, SavedGrant, saved->pid = UINT32_MAX);
        EXPECT_WRONG(grant, SavedGrant, saved->again = UINT32_MAX);
        EXPECT_WRONG(session, SavedSession, saved->id = 0);
        EXPECT_WRONG(session, SavedSession, saved->uid = UINT32_MAX);
        EXPECT_WRONG(outcomes, SavedOutcomes, saved->block = SAVED_OUTCOME_BLOCKS);
        EXPECT_WRONG(outcomes, SavedOutcomes, saved->session = 0);
        EXPECT_WRONG(batch, SavedBatch, saved->session = 0);
        EXPECT_WRONG(batch, SavedBatch, saved->slot = SAVED_OUTCOME_SLOTS);
        EXPECT_WRONG(batch, SavedBatch, saved->n = 0);
        EXPECT_WRONG(batch, SavedBatch, saved->items[0] &= ~SAVED_ITEM_REGION);
        EXPECT_WRONG(batch, SavedBatch, saved->items[0] |= SAVED_ITEM_RIGHTS << SAVED_ITEM_RIGHTS_SHIFT);
        EXPECT_WRONG(ticket, SavedTicket, saved->left = 0);
        EXPECT_WRONG(ticket, SavedTicket, saved->left = saved->uses + 1);
        EXPECT_WRONG(ticket, SavedTicket, saved->uses = TICKET_USES_MAX + 1);
        EXPECT_WRONG(ticket, SavedTicket, saved->one_user = false);
        EXPECT_WRONG(ticket, SavedTicket, saved->issuer = UINT32_MAX);
}

TEST(saved, regions_that_cannot_be_are_refused) {
        EXPECT_WRONG(region, SavedRegion, saved->id = 0);
        EXPECT_WRONG(region, SavedRegion, saved->size = (uint64_t)INT64_MAX + 1);
        EXPECT_WRONG(region, SavedRegion, ++saved->size);
        EXPECT_WRONG(region, SavedRegion, saved->huge_shift = 11);
        EXPECT_WRONG(region, SavedRegion, saved->huge_shift = 41);
        EXPECT_WRONG(region, SavedRegion, saved->lifetime = REGION_COUNTED + 1);
        EXPECT_WRONG(region, SavedRegion, saved->state = REGION_STATE_CONDEMNED + 1);
        EXPECT_WRONG(region, SavedRegion, saved->permissions.uid = UINT32_MAX);
        EXPECT_WRONG(region, SavedRegion, saved->permissions.gid = UINT32_MAX);
        EXPECT_WRONG(region, SavedRegion, saved->permissions.mode |= 01000);
        EXPECT_WRONG(region, SavedRegion, saved->payer = UINT32_MAX);
        EXPECT_WRONG(region, SavedRegion, saved->is_bell = false);
        EXPECT_WRONG(region, SavedRegion, saved->rings_for = saved->id);
        EXPECT_WRONG(region, SavedRegion, saved->lifetime = REGION_NAMED);
}

TEST(saved, names_that_cannot_be_are_refused) {
        EXPECT_WRONG(name, SavedName, saved->n_name = 0);
        EXPECT_WRONG(name, SavedName, saved->name[0] = '/');
        EXPECT_WRONG(name, SavedName, saved->name[saved->n_name - 1] = 0);
        EXPECT_WRONG(name, SavedName, saved->name[0] = (char)0xff);
        EXPECT_WRONG(name, SavedName, saved->n_name = 2; memcpy(saved->name, "..", 2));
        EXPECT_WRONG(name, SavedName, saved->directory = 0);
        EXPECT_WRONG(name, SavedName, saved->region = 0);
        EXPECT_WRONG(directory, SavedDirectory, saved->n_name = 0);
        EXPECT_WRONG(directory, SavedDirectory, saved->name[0] = '\n');
        EXPECT_WRONG(directory, SavedDirectory, saved->parent = 0);
        EXPECT_WRONG(directory, SavedDirectory, saved->parent = saved->id);
        EXPECT_WRONG(directory, SavedDirectory, saved->paid = false);
        EXPECT_WRONG(directory, SavedDirectory, saved->id = SAVED_ROOT);
        EXPECT_WRONG(directory, SavedDirectory, saved->permissions.mode = 02000);
}

TEST(saved, the_root_is_a_directory_without_name_and_payer) {
        SavedDirectory root = { .id = SAVED_ROOT, .permissions = { .mode = 01777 } };
        uint8_t data[SAVED_BYTES_MAX];
        Any out;
        size_t n = saved_encode_directory(&root, data);

        cr_assert_eq(decode(&kind_directory, &out, data, n), 0);
        cr_assert_eq(out.directory.permissions.mode, 01777);
        root.parent = 2;
        n = saved_encode_directory(&root, data);
        cr_assert_eq(decode(&kind_directory, &out, data, n), SAVED_E_INVALID);
        root.parent = 0;
        root.paid = true;
        n = saved_encode_directory(&root, data);
        cr_assert_eq(decode(&kind_directory, &out, data, n), SAVED_E_INVALID);
        root.paid = false;
        root.defaults.mode = 0700;
        n = saved_encode_directory(&root, data);
        cr_assert_eq(decode(&kind_directory, &out, data, n), SAVED_E_INVALID, "there is no default ACL");
}

/* -- ACLs -------------------------------------------------------------------------------------- */

/* A region's record with a list of two entries: n is at -12, the entries are its last ten bytes. */
static size_t with_acl(uint8_t *data) {
        SavedRegion region = { .id = 1, .size = 4096, .permissions = { .mode = 0640 } };

        acl_join(region.permissions.mode, NULL, &region.permissions.acl);
        (void)acl_list_put(&region.permissions.acl, acl_entry(ACL_MASK, 0, 4));
        (void)acl_list_put(&region.permissions.acl, acl_entry(ACL_USER, 7, 6));
        (void)acl_list_put(&region.permissions.acl, acl_entry(ACL_GROUP, 8, 4));
        return saved_encode_region(&region, data);
}

TEST(saved, an_acl_has_one_spelling) {
        static const struct {
                size_t from_end;
                uint8_t byte;
        } wrong[] = {
                { 1, ACL_MASK << 3 },           /* only users and groups are named */
                { 1, ACL_USER_OBJ << 3 },
                { 1, 7 << 3 },
                { 1, ACL_USER << 3 },           /* not in order: the other user's number is higher */
                { 11, 3 },                      /* more entries than there are */
                { 11, 1 },
                { 12, 7 },                      /* neither none nor a group's permissions */
                { 12, 16 },                     /* that is for a default ACL */
                { 12, 17 },
                { 12, 0 },
        };
        uint8_t data[SAVED_BYTES_MAX];
        size_t n = with_acl(data);
        Any out;

        cr_assert_eq(decode(&kind_region, &out, data, n), 0);
        cr_assert_eq(out.region.permissions.acl.n, 6);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
                n = with_acl(data);
                data[n - 10] = 9;               /* the user's id, above the group's */
                REQUIRE(decode(&kind_region, &out, data, n) == 0);
                data[n - wrong[i].from_end] = wrong[i].byte;
                REQUIRE(decode(&kind_region, &out, data, n) == SAVED_E_INVALID, "row %zu", i);
        }
        n = with_acl(data);
        memset(data + n - 10, 0xff, 4);
        cr_assert_eq(decode(&kind_region, &out, data, n), SAVED_E_INVALID, "nobody has that number");
}

static bool are_equal(const AclList *a, const AclList *b) {
        for (size_t i = 0; i < a->n && a->n == b->n; ++i)
                if (acl_compare(&a->entries[i], &b->entries[i]) || a->entries[i].perms != b->entries[i].perms)
                        return false;
        return a->n == b->n;
}

/* -- room --------------------------------------------------------------------------------- */

/* As many entries as a list can have, with numbers that take most bytes. */
static void longest_acl(AclList *list) {
        const Acl acl = { .group_perms = 7 };

        acl_join(0777, &acl, list);
        for (uint32_t id = UINT32_MAX - 1; acl_list_put(list, acl_entry(ACL_USER, id, 7)); --id)
                ;
        REQUIRE(list->n == ACL_ENTRIES_MAX);
}

static size_t cells_of(size_t n) {
        return (n + STATE_CELL_DATA - 1) / STATE_CELL_DATA;
}

static size_t cells_of_a_create(void) {
        SavedRegion region = { .id = SAVED_ID_MAX, .size = INT64_MAX, .inode = UINT64_MAX, .payer = 1, .huge_shift = 40,
                               .lifetime = REGION_SESSION, .freezable = true, .published = true,
                               .session = SAVED_ID_MAX, .revoked = UINT32_MAX,
                               .permissions = { UINT32_MAX - 1, UINT32_MAX - 1, ACCESS_REGION_MODES, { .n = 0 } } };
        const SavedName name = { .id = SAVED_ID_MAX, .directory = SAVED_ID_MAX, .region = SAVED_ID_MAX,
                                 .expires_at = UINT64_MAX, .n_name = PATH_COMPONENT_MAX };
        const SavedGrant grant = { .id = SAVED_ID_MAX, .region = SAVED_ID_MAX, .born = UINT64_MAX,
                                   .pidfd_ino = UINT64_MAX, .uid = UINT32_MAX - 1, .pid = INT32_MAX, .writable = true,
                                   .marked = true, .session = SAVED_ID_MAX, .again = UINT32_MAX - 1 };
        uint8_t data[SAVED_BYTES_MAX];

        longest_acl(&region.permissions.acl);
        return cells_of(saved_encode_region(&region, data)) + cells_of(saved_encode_name(&name, data)) +
               cells_of(saved_encode_grant(&grant, data));
}

/* Beside what it makes, a batch touches its directory, the counters, its outcome and its session, none of which is
 * longer than a record can be. */
TEST(saved, the_longest_batch_has_room_in_a_state) {
        size_t cells = MESSAGE_BATCH_MAX * cells_of_a_create() + 5 * (size_t)STATE_RECORD_CELLS;

        cr_assert_leq(cells, STATE_ROOM, "%zu", cells);
}

TEST(saved, permissions_are_the_same_afterwards) {
        uint64_t random = test_seed();

        for (uint64_t round = test_rounds(200); round > 0; --round) {
                SavedPermissions in = { .uid = 0 }, out;
                SavedDefaults defaults = { .set = false }, defaults_out;
                Permissions permissions;
                DefaultAcl default_acl;

                some_permissions(&in, ACCESS_DIRECTORY_MODES, &random);
                some_defaults(&defaults, &random);
                REQUIRE(saved_to_permissions(&in, &permissions) == 0);
                REQUIRE(saved_to_defaults(&defaults, &default_acl) == 0);
                REQUIRE(permissions.mode == in.mode && (permissions.acl != NULL) == (in.acl.n > 0));
                saved_from_permissions(&permissions, &out);
                saved_from_defaults(&default_acl, &defaults_out);
                REQUIRE(out.uid == in.uid && out.gid == in.gid && out.mode == in.mode);
                REQUIRE(are_equal(&out.acl, &in.acl));
                REQUIRE(defaults_out.set == defaults.set && defaults_out.mode == defaults.mode);
                REQUIRE(are_equal(&defaults_out.acl, &defaults.acl));
                permissions_deinit(&permissions);
                default_acl_deinit(&default_acl);
        }
}
