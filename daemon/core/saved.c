/* Saved: see the header for the model. */

#include "core/saved.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/assert.h"
#include "core/region.h"
#include "util/error.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records are copied as they are in memory, which must be little-endian"
#endif

#define NO_ID_MAX (UINT32_MAX - 1)      /* uid or gid */
#define ACL_OF_MODE 16U
#define ACL_EXTENDED 8U

/* One field: a number within bounds, or, of more than 8 bytes, whatever bytes. `width`: how many bytes of it are
 * always there; 0: as many as it takes. */
typedef struct Field {
        uint16_t offset;
        uint8_t bytes;
        uint8_t width;
        uint64_t min;
        uint64_t max;
} Field;

typedef struct Form {
        const Field *fields;
        size_t n;               /* at most 32 */
        size_t size;            /* of the struct */
} Form;

#define SIZE_OF(type, member) sizeof(((type *)NULL)->member)
#define FIELD(type, member, min, max) { offsetof(type, member), SIZE_OF(type, member), 0, (min), (max) }
/* One that has a width of its own, and one that has all its bytes. */
#define WIDE(type, member, width, min, max) \
        { offsetof(type, member), SIZE_OF(type, member), (width), (min), (max) }
#define STEADY(type, member, min, max) WIDE(type, member, SIZE_OF(type, member), min, max)
#define BYTES(type, member) STEADY(type, member, 0, UINT64_MAX)
#define FORM(type, fields) { (fields), sizeof(fields) / sizeof((fields)[0]), sizeof(type) }

/* -- what there is: fields are only ever added, at the end of a table ---------------------- */

static const Field counters_fields[] = {
        STEADY(SavedCounters, last_region, 0, SAVED_ID_MAX),
        STEADY(SavedCounters, last_grant, 0, SAVED_ID_MAX),
        STEADY(SavedCounters, last_ticket, 0, SAVED_ID_MAX),
        STEADY(SavedCounters, last_directory, SAVED_ROOT, SAVED_ID_MAX),
        STEADY(SavedCounters, last_name, 0, SAVED_ID_MAX),
        STEADY(SavedCounters, last_session, 0, SAVED_ID_MAX),
        STEADY(SavedCounters, sequence, 0, SAVED_ID_MAX),
};
static const Form counters_form = FORM(SavedCounters, counters_fields);

static const Field policy_fields[] = {
        STEADY(SavedPolicy, generation, 0, SAVED_ID_MAX),
        STEADY(SavedPolicy, n_blob, 0, UINT32_MAX),
        FIELD(SavedPolicy, pending, false, true),
};
static const Form policy_form = FORM(SavedPolicy, policy_fields);

static const Field directory_fields[] = {
        FIELD(SavedDirectory, n_name, 0, PATH_COMPONENT_MAX),
        FIELD(SavedDirectory, id, SAVED_ROOT, SAVED_ID_MAX),
        FIELD(SavedDirectory, parent, 0, SAVED_ID_MAX),
        FIELD(SavedDirectory, permissions.uid, 0, NO_ID_MAX),
        FIELD(SavedDirectory, permissions.gid, 0, NO_ID_MAX),
        FIELD(SavedDirectory, permissions.mode, 0, ACCESS_DIRECTORY_MODES),
        FIELD(SavedDirectory, defaults.mode, 0, 0777),
        FIELD(SavedDirectory, max[0], 0, UINT64_MAX),
        FIELD(SavedDirectory, max[1], 0, UINT64_MAX),
        FIELD(SavedDirectory, own_max[0], 0, UINT64_MAX),
        FIELD(SavedDirectory, own_max[1], 0, UINT64_MAX),
        FIELD(SavedDirectory, created_ns, 0, UINT64_MAX),
        FIELD(SavedDirectory, ruled, false, true),
        FIELD(SavedDirectory, paid, false, true),
        FIELD(SavedDirectory, payer, 0, NO_ID_MAX),
};
static const Form directory_form = FORM(SavedDirectory, directory_fields);
_Static_assert(DIRECTORY_SLOTS == 2, "a limit needs a field");

static const Field region_fields[] = {
        FIELD(SavedRegion, id, 1, SAVED_ID_MAX),
        FIELD(SavedRegion, size, 0, INT64_MAX),
        STEADY(SavedRegion, created_ns, 0, UINT64_MAX),
        FIELD(SavedRegion, inode, 0, UINT64_MAX),
        FIELD(SavedRegion, permissions.uid, 0, NO_ID_MAX),
        FIELD(SavedRegion, permissions.gid, 0, NO_ID_MAX),
        FIELD(SavedRegion, permissions.mode, 0, ACCESS_REGION_MODES),
        STEADY(SavedRegion, state, REGION_STATE_NAMED, REGION_STATE_CONDEMNED),
        WIDE(SavedRegion, ended, 6, 0, SAVED_ENDED_MAX),
        FIELD(SavedRegion, published, false, true),
        FIELD(SavedRegion, freezable, false, true),
        FIELD(SavedRegion, told_frozen, false, true),
        FIELD(SavedRegion, is_bell, false, true),
        FIELD(SavedRegion, polled, false, true),
        FIELD(SavedRegion, lifetime, REGION_NAMED, REGION_COUNTED),
        FIELD(SavedRegion, session, 0, SAVED_ID_MAX),
        FIELD(SavedRegion, huge_shift, 0, 40),
        FIELD(SavedRegion, payer, 0, UINT32_MAX),       /* as it is written: by what it differs from the owner */
        FIELD(SavedRegion, rings_for, 0, SAVED_ID_MAX),
        FIELD(SavedRegion, revoked, 0, UINT32_MAX),
};
static const Form region_form = FORM(SavedRegion, region_fields);
_Static_assert(sizeof(region_fields) / sizeof(region_fields[0]) <= 32, "it is the longest, and a map has 32 bits");

static const Field name_fields[] = {
        FIELD(SavedName, n_name, 1, PATH_COMPONENT_MAX),
        FIELD(SavedName, id, 1, SAVED_ID_MAX),
        FIELD(SavedName, directory, SAVED_ROOT, SAVED_ID_MAX),
        FIELD(SavedName, region, 1, SAVED_ID_MAX),
        FIELD(SavedName, expires_at, 0, UINT64_MAX),
};
static const Form name_form = FORM(SavedName, name_fields);

static const Field ticket_fields[] = {
        FIELD(SavedTicket, id, 1, SAVED_ID_MAX),
        FIELD(SavedTicket, region, 1, SAVED_ID_MAX),
        FIELD(SavedTicket, until, 0, UINT64_MAX),
        FIELD(SavedTicket, issuer, 0, NO_ID_MAX),
        FIELD(SavedTicket, uid, 0, NO_ID_MAX),
        FIELD(SavedTicket, uses, 1, TICKET_USES_MAX),
        FIELD(SavedTicket, left, 1, TICKET_USES_MAX),
        FIELD(SavedTicket, writable, false, true),
        FIELD(SavedTicket, one_user, false, true),
        BYTES(SavedTicket, digest),
};
static const Form ticket_form = FORM(SavedTicket, ticket_fields);

static const Field grant_fields[] = {
        FIELD(SavedGrant, id, 1, SAVED_ID_MAX),
        FIELD(SavedGrant, region, 1, SAVED_ID_MAX),
        FIELD(SavedGrant, born, 0, UINT64_MAX),
        FIELD(SavedGrant, pidfd_ino, 0, UINT64_MAX),
        FIELD(SavedGrant, uid, 0, NO_ID_MAX),
        FIELD(SavedGrant, pid, 0, INT32_MAX),
        FIELD(SavedGrant, writable, false, true),
        FIELD(SavedGrant, marked, false, true),
        FIELD(SavedGrant, ticket, false, true),
        FIELD(SavedGrant, session, 0, SAVED_ID_MAX),
        FIELD(SavedGrant, again, 0, UINT32_MAX - 1),
};
static const Form grant_form = FORM(SavedGrant, grant_fields);

static const Field session_fields[] = {
        FIELD(SavedSession, id, 1, SAVED_ID_MAX),
        BYTES(SavedSession, session),
        FIELD(SavedSession, uid, 0, NO_ID_MAX),
        STEADY(SavedSession, starts, 0, UINT64_MAX),
};
static const Form session_form = FORM(SavedSession, session_fields);

#define OUTCOME_FIELDS(i)                                               \
        FIELD(SavedOutcomes, outcomes[i].serial, 0, UINT64_MAX),        \
        FIELD(SavedOutcomes, outcomes[i].kind, 0, UINT8_MAX),           \
        STEADY(SavedOutcomes, outcomes[i].hash, 0, UINT32_MAX),         \
        FIELD(SavedOutcomes, outcomes[i].region, 0, UINT64_MAX),        \
        FIELD(SavedOutcomes, outcomes[i].extra, 0, UINT64_MAX)

static const Field outcomes_fields[] = {
        FIELD(SavedOutcomes, session, 1, SAVED_ID_MAX),
        FIELD(SavedOutcomes, block, 0, SAVED_OUTCOME_BLOCKS - 1),
        FIELD(SavedOutcomes, count, 0, UINT32_MAX),
        OUTCOME_FIELDS(0),
};
static const Form outcomes_form = FORM(SavedOutcomes, outcomes_fields);
_Static_assert(SAVED_OUTCOMES == 1, "an outcome needs fields");

static const Field batch_fields[] = {
        FIELD(SavedBatch, session, 1, SAVED_ID_MAX),
        FIELD(SavedBatch, slot, 0, SAVED_OUTCOME_SLOTS - 1),
        FIELD(SavedBatch, n, 1, SAVED_BATCH_MAX),
};
static const Form batch_form = FORM(SavedBatch, batch_fields);
_Static_assert(2 + 9 + 1 + 2 + SAVED_BATCH_MAX * sizeof(uint64_t) <= SAVED_BYTES_MAX, "it fits");

/* -- writing ---------------------------------------------------------------------------- */

/* What is inlined where the form is a constant has no loop and no look at the table any more: a create writes four
 * records, an open one. */
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

/* Sizes that the compiler knows are copied without a call. */
static INLINE void copy(void *to, const void *from, size_t n) {
        switch (n) {
        case 1:
                memcpy(to, from, 1);
                break;
        case 2:
                memcpy(to, from, 2);
                break;
        case 4:
                memcpy(to, from, 4);
                break;
        case 8:
                memcpy(to, from, 8);
                break;
        default:
                memcpy(to, from, n);
        }
}

static INLINE bool is_flag(const Field *field) {
        return field->max == 1 && !field->width;
}

/* Seven bits a byte. Return: the new end. */
static size_t put_long_number(uint64_t number, uint8_t *data, size_t at) {
        for (; number > 127; number >>= 7)
                data[at++] = (uint8_t)(number | 128);
        data[at++] = (uint8_t)number;
        return at;
}

static INLINE size_t put_number(uint64_t number, uint8_t *data, size_t at) {
        if (number > 127)
                return put_long_number(number, data, at);
        data[at] = (uint8_t)number;
        return at + 1;
}

static INLINE uint64_t number_at(const Field *field, const uint8_t *from) {
        uint64_t number = 0;

        copy(&number, from + field->offset, field->bytes);
        return number;
}

static INLINE size_t put_field(const Field *field, const uint8_t *from, uint8_t *data, size_t at) {
        if (field->width) {
                copy(data + at, from + field->offset, field->width);
                return at + field->width;
        }
        return is_flag(field) ? at : put_number(number_at(field, from), data, at);
}

static INLINE bool is_there(const Field *field, const uint8_t *from) {
        return field->width || number_at(field, from) > 0;
}

/* Writes the map and the fields. Return: their length. */
static INLINE size_t put_fields(const Form *form, const void *from, uint8_t *data) {
        uint32_t map = 0;
        size_t n_map = 0, at;

        UNROLL
        for (size_t i = 0; i < form->n; ++i)
                map |= (uint32_t)is_there(&form->fields[i], from) << i;
        for (uint32_t left = map; left; left >>= 8)
                data[++n_map] = (uint8_t)left;
        data[0] = (uint8_t)n_map;
        at = 1 + n_map;
        UNROLL
        for (size_t i = 0; i < form->n; ++i)
                if (is_there(&form->fields[i], from))
                        at = put_field(&form->fields[i], from, data, at);
        return at;
}

/* Appends what a mode cannot say of a list. Return: the new end. */
static size_t put_acl(const AclList *list, uint8_t *data, size_t at) {
        size_t n_at = at + 1;

        if (list->n == 0 || !acl_list_is_extended(list)) {
                data[at] = list->n == 0 ? 0 : ACL_OF_MODE;
                return at + 1;
        }
        at += 2;
        data[n_at] = 0;
        for (size_t i = 0; i < list->n; ++i) {
                const AclEntry *entry = &list->entries[i];

                if (entry->tag == ACL_GROUP_OBJ)
                        data[n_at - 1] = (uint8_t)(ACL_EXTENDED + entry->perms);
                if (!acl_tag_is_named(entry->tag))
                        continue;
                memcpy(data + at, &entry->id, sizeof(entry->id));
                data[at + sizeof(entry->id)] = (uint8_t)(entry->tag << 3 | entry->perms);
                at += sizeof(entry->id) + 1;
                ++data[n_at];
        }
        return at;
}

static size_t put_name(const char *name, size_t n, uint8_t *data, size_t at) {
        memcpy(data + at, name, n);
        return at + n;
}

/* -- reading ---------------------------------------------------------------------------- */

typedef struct Reader {
        const uint8_t *at;
        size_t n;               /* left */
        bool wrong;
} Reader;

static const uint8_t *take(Reader *reader, size_t n) {
        const uint8_t *at = reader->at;

        if (reader->wrong || n > reader->n) {
                reader->wrong = true;
                return NULL;
        }
        reader->at += n;
        reader->n -= n;
        return at;
}

static uint8_t take_byte(Reader *reader) {
        const uint8_t *at = take(reader, 1);

        return at ? *at : 0;
}

/* A number of seven bits a byte. The last byte is none that says nothing. */
static uint64_t take_number(Reader *reader) {
        uint64_t number = 0;

        for (unsigned int shift = 0; shift < 64; shift += 7) {
                uint8_t byte = take_byte(reader);

                if (shift == 63 && byte > 1)
                        break;
                number |= (uint64_t)(byte & 127) << shift;
                if (!(byte & 128)) {
                        reader->wrong |= byte == 0;
                        return number;
                }
        }
        reader->wrong = true;
        return 0;
}

/* Reads the map, whose last byte is none that says nothing. */
static uint32_t take_map(Reader *reader, size_t n_fields) {
        size_t n = take_byte(reader);
        uint32_t map = 0;
        uint8_t byte = 1;

        if (n > sizeof(map))
                reader->wrong = true;
        for (size_t i = 0; i < n && !reader->wrong; ++i) {
                byte = take_byte(reader);
                map |= (uint32_t)byte << 8 * i;
        }
        if (byte == 0 || (uint64_t)map >> n_fields)
                reader->wrong = true;           /* or of a version that we do not know */
        return map;
}

static void take_field(const Field *field, Reader *reader, bool there, uint8_t *ret) {
        const uint8_t *from;
        uint64_t number = 0;

        if (field->width) {
                from = there ? take(reader, field->width) : NULL;
                if (!from)
                        reader->wrong = true;
                else if (field->bytes > sizeof(number))
                        copy(ret, from, field->bytes);
                else
                        memcpy(&number, from, field->width);
        } else if (there) {
                number = is_flag(field) ? 1 : take_number(reader);
        }
        if (field->bytes > sizeof(number))
                return;
        if (number < field->min || number > field->max)
                reader->wrong = true;
        else
                copy(ret, &number, field->bytes);
}

/* Reads the fields. Those that are not there are zero. */
static Reader take_fields(const Form *form, void *ret, const uint8_t *data, size_t n) {
        Reader reader = { .at = data, .n = n };
        uint32_t map;

        memset(ret, 0, form->size);
        map = take_map(&reader, form->n);
        for (size_t i = 0; i < form->n && !reader.wrong; ++i)
                take_field(&form->fields[i], &reader, map >> i & 1, (uint8_t *)ret + form->fields[i].offset);
        return reader;
}

static void take_entries(Reader *reader, AclList *list) {
        AclEntry before = { .tag = 0 };

        for (size_t n = take_byte(reader); n > 0 && !reader->wrong; --n) {
                const uint8_t *at = take(reader, sizeof(before.id) + 1);
                AclEntry entry;

                if (!at)
                        return;
                memcpy(&entry.id, at, sizeof(entry.id));
                entry.tag = at[sizeof(entry.id)] >> 3;
                entry.perms = at[sizeof(entry.id)] & ACL_ALL;
                if (!acl_tag_is_named(entry.tag) || acl_compare(&before, &entry) >= 0 || !acl_list_put(list, entry))
                        reader->wrong = true;
                before = entry;
        }
}

/* Puts the list of a mode, and what the record adds to it, together. */
static void take_acl(Reader *reader, mode_t mode, bool of_default, AclList *ret) {
        uint8_t how = take_byte(reader);
        bool extended = how >= ACL_EXTENDED && how <= ACL_EXTENDED + ACL_ALL;

        if (!extended && how != 0 && (how != ACL_OF_MODE || !of_default))
                reader->wrong = true;
        if (reader->wrong || how == 0)
                return;
        (void)acl_list_put(ret, (AclEntry){ .tag = ACL_USER_OBJ, .perms = mode >> 6 & ACL_ALL });
        (void)acl_list_put(ret, (AclEntry){ .tag = ACL_GROUP_OBJ,
                                            .perms = (extended ? how : mode >> 3) & ACL_ALL });
        (void)acl_list_put(ret, (AclEntry){ .tag = ACL_OTHER, .perms = mode & ACL_ALL });
        if (extended) {
                (void)acl_list_put(ret, (AclEntry){ .tag = ACL_MASK, .perms = mode >> 3 & ACL_ALL });
                take_entries(reader, ret);
        }
        if (acl_check(ret->entries, ret->n))
                reader->wrong = true;
}

static void take_name(Reader *reader, char *name, size_t n) {
        const uint8_t *at = take(reader, n);

        if (at)
                memcpy(name, at, n);
}

static bool name_is_sound(const char *name, size_t n) {
        return !memchr(name, '/', n) && path_check_component(name, n) == PATH_OK;
}

/* Return: 0 if all was read and nothing is wrong, SAVED_E_INVALID. */
static int finish(const Reader *reader) {
        return reader->wrong || reader->n > 0 ? SAVED_E_INVALID : 0;
}

uint32_t saved_hash(const void *data, size_t n) {
        return (uint32_t)XXH3_64bits(data, n);
}

/* -- permissions ------------------------------------------------------------------------ */

void saved_from_permissions(const Permissions *permissions, SavedPermissions *ret) {
        *ret = (SavedPermissions){
                .uid = permissions->uid,
                .gid = permissions->gid,
                .mode = (uint16_t)permissions->mode,
        };
        if (permissions->acl)
                acl_join(permissions->mode, permissions->acl, &ret->acl);
}

void saved_from_defaults(const DefaultAcl *defaults, SavedDefaults *ret) {
        *ret = (SavedDefaults){ .set = defaults->set };
        if (!defaults->set)
                return;
        ret->mode = (uint16_t)(defaults->mode & 0777);
        acl_join(defaults->mode, defaults->acl, &ret->acl);
}

int saved_to_permissions(const SavedPermissions *saved, Permissions *ret) {
        mode_t mode;

        *ret = (Permissions){ .uid = saved->uid, .gid = saved->gid, .mode = saved->mode };
        return saved->acl.n ? error_fold(acl_split(saved->acl.entries, saved->acl.n, &mode, &ret->acl)) : 0;
}

int saved_to_defaults(const SavedDefaults *saved, DefaultAcl *ret) {
        *ret = (DefaultAcl){ .set = saved->set };
        return saved->set ? error_fold(acl_split(saved->acl.entries, saved->acl.n, &ret->mode, &ret->acl)) : 0;
}

/* -- one kind after the other ------------------------------------------------------------- */

int saved_decode_counters(SavedCounters *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&counters_form, ret, data, n);

        return finish(&reader);
}

size_t saved_encode_counters(const SavedCounters *saved, uint8_t data[SAVED_BYTES_MAX]) {
        return put_fields(&counters_form, saved, data);
}

int saved_decode_policy(SavedPolicy *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&policy_form, ret, data, n);

        return finish(&reader);
}

size_t saved_encode_policy(const SavedPolicy *saved, uint8_t data[SAVED_BYTES_MAX]) {
        return put_fields(&policy_form, saved, data);
}

/* The root has neither name nor parent, nor anybody who pays for it; every other directory has all of them. */
static bool directory_is_sound(const SavedDirectory *directory) {
        if (directory->id == SAVED_ROOT)
                return directory->parent == 0 && directory->n_name == 0 && !directory->paid && directory->payer == 0;
        return directory->parent != 0 && directory->parent != directory->id && directory->paid &&
               name_is_sound(directory->name, directory->n_name);
}

int saved_decode_directory(SavedDirectory *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&directory_form, ret, data, n);

        take_acl(&reader, ret->permissions.mode, false, &ret->permissions.acl);
        take_acl(&reader, ret->defaults.mode, true, &ret->defaults.acl);
        take_name(&reader, ret->name, ret->n_name);
        ret->defaults.set = ret->defaults.acl.n > 0;
        if (reader.wrong || !directory_is_sound(ret) || (!ret->defaults.set && ret->defaults.mode))
                reader.wrong = true;
        return finish(&reader);
}

size_t saved_encode_directory(const SavedDirectory *saved, uint8_t data[SAVED_BYTES_MAX]) {
        size_t at = put_fields(&directory_form, saved, data);

        at = put_acl(&saved->permissions.acl, data, at);
        at = put_acl(&saved->defaults.acl, data, at);
        return put_name(saved->name, saved->n_name, data, at);
}

static bool region_is_sound(const SavedRegion *region) {
        Cost cost;

        if (region->huge_shift && region->huge_shift < 12)
                return false;
        if (!region->is_bell && (region->rings_for || region->polled))
                return false;
        if (region->rings_for == region->id)
                return false;
        if (region->lifetime != REGION_SESSION && region->session)
                return false;
        return region_cost(&(RegionSpec){ .size = region->size, .huge_shift = region->huge_shift }, &cost) == 0;
}

int saved_decode_region(SavedRegion *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&region_form, ret, data, n);

        ret->payer ^= ret->permissions.uid;
        if (ret->payer > NO_ID_MAX)
                reader.wrong = true;
        take_acl(&reader, ret->permissions.mode, false, &ret->permissions.acl);
        if (!reader.wrong && !region_is_sound(ret))
                reader.wrong = true;
        return finish(&reader);
}

size_t saved_encode_region(const SavedRegion *saved, uint8_t data[SAVED_BYTES_MAX]) {
        SavedRegion form = *saved;

        form.payer ^= form.permissions.uid;
        return put_acl(&saved->permissions.acl, data, put_fields(&region_form, &form, data));
}

int saved_decode_name(SavedName *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&name_form, ret, data, n);

        take_name(&reader, ret->name, ret->n_name);
        if (!reader.wrong && !name_is_sound(ret->name, ret->n_name))
                reader.wrong = true;
        return finish(&reader);
}

size_t saved_encode_name(const SavedName *saved, uint8_t data[SAVED_BYTES_MAX]) {
        return put_name(saved->name, saved->n_name, data, put_fields(&name_form, saved, data));
}

int saved_decode_ticket(SavedTicket *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&ticket_form, ret, data, n);

        if (reader.wrong || ret->left > ret->uses || (!ret->one_user && ret->uid))
                reader.wrong = true;
        return finish(&reader);
}

size_t saved_encode_ticket(const SavedTicket *saved, uint8_t data[SAVED_BYTES_MAX]) {
        return put_fields(&ticket_form, saved, data);
}

int saved_decode_grant(SavedGrant *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&grant_form, ret, data, n);

        return finish(&reader);
}

size_t saved_encode_grant(const SavedGrant *saved, uint8_t data[SAVED_BYTES_MAX]) {
        return put_fields(&grant_form, saved, data);
}

int saved_decode_session(SavedSession *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&session_form, ret, data, n);

        return finish(&reader);
}

size_t saved_encode_session(const SavedSession *saved, uint8_t data[SAVED_BYTES_MAX]) {
        return put_fields(&session_form, saved, data);
}

int saved_decode_outcomes(SavedOutcomes *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&outcomes_form, ret, data, n);

        return finish(&reader);
}

size_t saved_encode_outcomes(const SavedOutcomes *saved, uint8_t data[SAVED_BYTES_MAX]) {
        return put_fields(&outcomes_form, saved, data);
}

static bool item_is_sound(uint64_t item) {
        return (item & SAVED_ITEM_REGION) != 0 &&
               (item >> SAVED_ITEM_RIGHTS_SHIFT & SAVED_ITEM_RIGHTS) != SAVED_ITEM_RIGHTS;
}

int saved_decode_batch(SavedBatch *ret, const uint8_t *data, size_t n) {
        Reader reader = take_fields(&batch_form, ret, data, n);

        for (size_t i = 0; i < ret->n && !reader.wrong; ++i) {
                const uint8_t *at = take(&reader, sizeof(ret->items[i]));

                if (at)
                        memcpy(&ret->items[i], at, sizeof(ret->items[i]));
                if (!item_is_sound(ret->items[i]))
                        reader.wrong = true;
        }
        return finish(&reader);
}

size_t saved_encode_batch(const SavedBatch *saved, uint8_t data[SAVED_BYTES_MAX]) {
        size_t at = put_fields(&batch_form, saved, data), n = saved->n * sizeof(saved->items[0]);

        memcpy(data + at, saved->items, n);
        return at + n;
}
