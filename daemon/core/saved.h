/* Saved: the bytes of each kind of record that outlives the broker, in both directions.
 *
 * core/state keeps records and knows nothing of what is in them; this module knows that, and nothing
 * else. There is a struct for each kind. What is decoded was written by a broker before us, which may
 * have been of another version, or have been broken: nothing of it is believed, and whatever is accepted
 * has one encoding.
 *
 * A record begins with the number of bytes of a map (u8) and the map, of which each bit says that a field
 * is there, in the order of the tables in saved.c; the others are zero. The fields follow without gaps, most of
 * them as numbers in groups of seven bits, the lowest first, and the highest bit says that another follows. A flag
 * is in the map alone. What may change when no room was made for it always takes the same space, and is there
 * also when it is zero. A new field goes to the end of its table, so that a record of before is read as if the
 * fields that it lacks were zero. After the fields come ACLs and the name, or a batch's regions:
 *
 *      ACL          u8 0: none, the mode says it all; 16: a default ACL that is only a mode; else
 *                   8 + the owning group's permissions, u8 number of entries, the entries
 *      entry        u32 id, u8 8 * tag + permissions; users and groups by number alone
 *      name         as many bytes as the fields say
 *      region       u64, as many as the fields say
 *
 * Numbers are little-endian. Times are of the clock that the field says.
 */
#ifndef CORE_SAVED_H
#define CORE_SAVED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/acl.h"
#include "base/path.h"
#include "core/access.h"
#include "core/ticket.h"
#include "core/tree.h"

enum {
        _SAVED_E_SUCCESS,
        SAVED_E_INVALID,
};

/* No record is longer. */
#define SAVED_BYTES_MAX 1040U
/* No number that is read is higher: a grant's is the place of its mark as well (util/memfd.h). */
#define SAVED_ID_MAX ((UINT64_C(1) << 60) - 1)
/* Nor any that the next broker goes on behind: no life is long enough to count from here to the highest. */
#define SAVED_ID_BELIEVED (SAVED_ID_MAX >> 1)
#define SAVED_ENDED_MAX ((UINT64_C(1) << 48) - 1)
#define SAVED_ROOT UINT64_C(1)          /* the number of the root directory */
#define SAVED_SESSION_BYTES 16U         /* of the digest of a session's id */
#define SAVED_OUTCOMES 1U               /* in one record */
#define SAVED_OUTCOME_SLOTS 64U          /* of a session: the latest so many outcomes */
#define SAVED_OUTCOME_BLOCKS ((SAVED_OUTCOME_SLOTS + SAVED_OUTCOMES - 1) / SAVED_OUTCOMES)
#define SAVED_BATCH_MAX 128U

/* What became of a region in a request, in one number: which it was, the rights (Rights) that were granted,
 * and whether it was made. */
#define SAVED_ITEM_REGION ((UINT64_C(1) << 61) - 1)
#define SAVED_ITEM_RIGHTS_SHIFT 61
#define SAVED_ITEM_RIGHTS UINT64_C(3)
#define SAVED_ITEM_CREATED (UINT64_C(1) << 63)

/* Numbers are reserved ahead, so that this is written seldom: none above these was ever used. */
typedef struct SavedCounters {
        uint64_t last_region;
        uint64_t last_grant;
        uint64_t last_ticket;
        uint64_t last_directory;
        uint64_t last_name;
        uint64_t last_session;
        uint64_t sequence;              /* of changes of the tree */
} SavedCounters;

/* The policy in force; its bytes are a descriptor of their own. */
typedef struct SavedPolicy {
        uint64_t generation;
        uint32_t n_blob;                /* bytes; 0: there is none */
        bool pending;                   /* it has not taken effect in the tree */
} SavedPolicy;

/* acl.n is 0 where the mode says it all. */
typedef struct SavedPermissions {
        uint32_t uid;
        uint32_t gid;
        uint16_t mode;
        AclList acl;
} SavedPermissions;

typedef struct SavedDefaults {
        bool set;
        uint16_t mode;
        AclList acl;
} SavedDefaults;

typedef struct SavedDirectory {
        uint64_t id;
        uint64_t parent;                /* 0 for the root alone */
        SavedPermissions permissions;
        SavedDefaults defaults;
        uint64_t max[DIRECTORY_SLOTS];  /* the limits of its account ... */
        uint64_t own_max[DIRECTORY_SLOTS];      /* ... but for the policy's */
        uint64_t created_ns;            /* CLOCK_REALTIME */
        bool ruled;                     /* the policy names it */
        bool paid;                      /* it is charged to somebody: all are but the root */
        uint32_t payer;
        uint8_t n_name;
        char name[PATH_COMPONENT_MAX];
} SavedDirectory;

typedef struct SavedRegion {
        uint64_t id;
        uint64_t size;                  /* bytes */
        uint64_t created_ns;            /* CLOCK_REALTIME */
        uint64_t inode;                 /* of its memfd */
        SavedPermissions permissions;
        uint32_t payer;
        uint8_t huge_shift;
        uint8_t lifetime;               /* RegionLifetime */
        uint8_t state;                  /* RegionState */
        bool freezable;
        bool published;
        bool told_frozen;
        bool is_bell;
        bool polled;
        uint64_t rings_for;             /* a doorbell's page: its region; 0: that is gone */
        uint64_t session;               /* with which it ends; 0: with none */
        uint64_t ended;                 /* grants of it that are over */
        uint32_t revoked;               /* how often tickets of it were */
} SavedRegion;

typedef struct SavedName {
        uint64_t id;
        uint64_t directory;
        uint64_t region;
        uint64_t expires_at;            /* CLOCK_MONOTONIC; 0: it does not */
        uint8_t n_name;
        char name[PATH_COMPONENT_MAX];
} SavedName;

typedef struct SavedTicket {
        uint64_t id;
        uint64_t region;
        uint64_t until;                 /* CLOCK_MONOTONIC */
        uint32_t issuer;
        uint32_t uid;                   /* with one_user */
        uint32_t uses;
        uint32_t left;
        bool writable;
        bool one_user;
        uint8_t digest[TICKET_DIGEST_BYTES];
} SavedTicket;

typedef struct SavedGrant {
        uint64_t id;
        uint64_t region;
        uint64_t born;                  /* CLOCK_MONOTONIC */
        uint64_t pidfd_ino;
        uint32_t uid;
        uint32_t pid;
        bool writable;
        bool marked;
        bool ticket;
        uint64_t session;               /* whose it is; 0: what earlier ones of the user left */
        uint32_t again;                 /* how often it was handed out beyond the first time */
} SavedGrant;

typedef struct SavedSession {
        uint64_t id;
        uint8_t session[SAVED_SESSION_BYTES];
        uint32_t uid;
        uint64_t starts;                /* of brokers since its client was there last */
} SavedSession;

/* What became of a request; what `region` and `extra` are, its kind says (broker/request-again.c). */
typedef struct SavedOutcome {
        uint64_t serial;                /* 0: there is none */
        uint8_t kind;
        uint32_t hash;                  /* of its payload */
        uint64_t region;
        uint64_t extra;
} SavedOutcome;

/* Some of a session's latest outcomes: outcome number i stands in slot i modulo SAVED_OUTCOME_SLOTS, which
 * is in block slot / SAVED_OUTCOMES. */
typedef struct SavedOutcomes {
        uint64_t session;
        uint8_t block;
        uint32_t count;                 /* number, modulo 2^32, of the latest outcome in it */
        SavedOutcome outcomes[SAVED_OUTCOMES];
} SavedOutcomes;

/* What the outcome of a batch has beside. */
typedef struct SavedBatch {
        uint64_t session;
        uint8_t slot;
        uint8_t n;
        uint64_t items[SAVED_BATCH_MAX];        /* SAVED_ITEM_... */
} SavedBatch;

/* Of the payload of a request: for SavedOutcome. */
uint32_t saved_hash(const void *data, size_t n);

/* Between what is in memory and what is saved. The second pair makes ACLs, which are the caller's.
 * Return: 0, -ENOMEM. */
void saved_from_permissions(const Permissions *permissions, SavedPermissions *ret);
void saved_from_defaults(const DefaultAcl *defaults, SavedDefaults *ret);
int saved_to_permissions(const SavedPermissions *saved, Permissions *ret);
int saved_to_defaults(const SavedDefaults *saved, DefaultAcl *ret);

/* Each decoder zeroes *ret first, padding included, so that two of a kind can be compared as bytes.
 * Return: 0, SAVED_E_INVALID. */
int saved_decode_counters(SavedCounters *ret, const uint8_t *data, size_t n);
int saved_decode_policy(SavedPolicy *ret, const uint8_t *data, size_t n);
int saved_decode_directory(SavedDirectory *ret, const uint8_t *data, size_t n);
int saved_decode_region(SavedRegion *ret, const uint8_t *data, size_t n);
int saved_decode_name(SavedName *ret, const uint8_t *data, size_t n);
int saved_decode_ticket(SavedTicket *ret, const uint8_t *data, size_t n);
int saved_decode_grant(SavedGrant *ret, const uint8_t *data, size_t n);
int saved_decode_session(SavedSession *ret, const uint8_t *data, size_t n);
int saved_decode_outcomes(SavedOutcomes *ret, const uint8_t *data, size_t n);
int saved_decode_batch(SavedBatch *ret, const uint8_t *data, size_t n);

/* The reverse: what they write, the decoders accept, as long as what is in memory is in order.
 * Return: bytes. */
size_t saved_encode_counters(const SavedCounters *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_policy(const SavedPolicy *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_directory(const SavedDirectory *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_region(const SavedRegion *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_name(const SavedName *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_ticket(const SavedTicket *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_grant(const SavedGrant *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_session(const SavedSession *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_outcomes(const SavedOutcomes *saved, uint8_t data[SAVED_BYTES_MAX]);
size_t saved_encode_batch(const SavedBatch *saved, uint8_t data[SAVED_BYTES_MAX]);

#endif
