/* A policy: see the header for the model. */

#include "core/policy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/path.h"
#include "util/error.h"

#define MAGIC "shmdpol\n"
#define MAGIC_BYTES 8
#define VERSION 1
#define HEADER_BYTES (MAGIC_BYTES + 6 * 4)
#define LIMITS_BYTES (8 + 8 * _ACCOUNT_SLOT_N)
#define RULE_BYTES (8 + LIMITS_BYTES)
#define ENTRY_BYTES 8
#define DIRECTORY_BYTES (16 + LIMITS_BYTES)

/* -- life ------------------------------------------------------------------------------- */

int policy_new(Policy **ret) {
        *ret = calloc(1, sizeof(**ret));
        return *ret ? 0 : error_origin(-ENOMEM);
}

Policy *policy_free(Policy *policy) {
        if (!policy)
                return NULL;
        for (size_t i = 0; i < policy->n_directories; ++i)
                free(policy->directories[i].path);
        free(policy->directories);
        free(policy->rules.groups);
        free(policy->rules.users);
        free(policy);
        return NULL;
}

static int compare_path(const PolicyDirectory *directory, const char *path, size_t n) {
        size_t n_own = strlen(directory->path);
        int order = memcmp(directory->path, path, n_own < n ? n_own : n);

        return order ? order : n_own < n ? -1 : n_own > n;
}

const PolicyDirectory *policy_find_directory(const Policy *policy, const char *path, size_t n) {
        size_t low = 0, high = policy->n_directories;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int order = compare_path(&policy->directories[middle], path, n);

                if (order == 0)
                        return &policy->directories[middle];
                if (order < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

/* -- reading ---------------------------------------------------------------------------- */

/* What is left to be read. Reading past the end gives zeros, and is found out afterwards. */
typedef struct Reader {
        const uint8_t *at;
        size_t n;
        const char *sentence;   /* the first thing that is wrong */
} Reader;

static void wrong(Reader *reader, const char *sentence) {
        if (!reader->sentence)
                reader->sentence = sentence;
}

static const uint8_t *take(Reader *reader, size_t n) {
        const uint8_t *at = reader->at;

        if (n > reader->n) {
                reader->n = 0;
                wrong(reader, "it ends in the middle");
                return NULL;
        }
        reader->at += n;
        reader->n -= n;
        return at;
}

static uint64_t take_number(Reader *reader, size_t n) {
        const uint8_t *at = take(reader, n);
        uint64_t value = 0;

        while (at && n-- > 0)
                value = value << 8 | at[n];
        return value;
}

static uint32_t take_u32(Reader *reader) {
        return (uint32_t)take_number(reader, 4);
}

static void take_zero(Reader *reader, size_t n) {
        if (take_number(reader, n))
                wrong(reader, "something is where nothing should be");
}

static void take_limits(Reader *reader, uint32_t slots, Limits *ret) {
        ret->slots = take_u32(reader);
        take_zero(reader, 4);
        if (ret->slots & ~slots)
                wrong(reader, "it limits what cannot be limited there");
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                ret->max[i] = take_number(reader, 8);
                if (ret->max[i] && !(ret->slots & (UINT32_C(1) << i)))
                        wrong(reader, "it has a limit that it does not name");
        }
}

static uint32_t take_id(Reader *reader) {
        uint32_t id = take_u32(reader);

        if (id == UINT32_MAX)
                wrong(reader, "there is no user or group of that number");
        return id;
}

static void take_users(Reader *reader, Rules *rules) {
        for (size_t i = 0; i < rules->n_users && !reader->sentence; ++i) {
                UserLimits *user = &rules->users[i];

                user->uid = take_id(reader);
                take_zero(reader, 4);
                take_limits(reader, LIMITS_ALL, &user->limits);
                if (i > 0 && rules->users[i - 1].uid >= user->uid)
                        wrong(reader, "its users are not in order");
        }
}

static void take_groups(Reader *reader, Rules *rules) {
        for (size_t i = 0; i < rules->n_groups && !reader->sentence; ++i) {
                GroupLimits *group = &rules->groups[i];

                group->gid = take_id(reader);
                take_zero(reader, 4);
                take_limits(reader, LIMITS_ALL, &group->limits);
                for (size_t k = 0; k < i; ++k)
                        if (rules->groups[k].gid == group->gid)
                                wrong(reader, "it has a group twice");
        }
}

/* -- directories ------------------------------------------------------------------------ */

static void take_acl(Reader *reader, size_t n, AclList *ret) {
        AclError error;

        if (n > ACL_ENTRIES_MAX) {
                wrong(reader, acl_error_sentence(ACL_TOO_MANY));
                return;
        }
        ret->n = n;
        for (size_t i = 0; i < n; ++i) {
                ret->entries[i].id = take_u32(reader);
                ret->entries[i].tag = (uint8_t)take_number(reader, 1);
                ret->entries[i].perms = (uint8_t)take_number(reader, 1);
                take_zero(reader, 2);
        }
        error = n ? acl_check(ret->entries, n) : ACL_OK;
        if (error)
                wrong(reader, acl_error_sentence(error));
}

static unsigned int perms_of(AclList *list, AclTag tag) {
        const AclEntry *entry = acl_list_find(list, tag, ACL_NO_ID);

        return entry ? entry->perms : 0;
}

/* An ACL says more than the mode, and what both say is the same: the mask is the mode's group. */
static void check_access(Reader *reader, PolicyDirectory *directory) {
        AclList *access = &directory->access;
        unsigned int mode;

        if (access->n == 0)
                return;
        mode = perms_of(access, ACL_USER_OBJ) << 6 | perms_of(access, ACL_MASK) << 3 | perms_of(access, ACL_OTHER);
        if (!acl_list_find(access, ACL_MASK, ACL_NO_ID))
                wrong(reader, "an ACL says no more than a mode");
        else if ((directory->permissions.mode & 0777) != mode)
                wrong(reader, "an ACL and a mode differ");
}

static void take_path(Reader *reader, size_t n, PolicyDirectory *directory) {
        const char *path = (const char *)take(reader, n);

        if (!path)
                return;
        if (path_check(path, n)) {
                wrong(reader, path_error_sentence(path_check(path, n)));
                return;
        }
        directory->path = strndup(path, n);
}

/* Whether what is above the directory is in the policy, before it. */
static bool has_parent(const Policy *policy, const char *path) {
        size_t n = (size_t)(strrchr(path, '/') - path);

        return n == 0 || policy_find_directory(policy, path, n);
}

static int take_directory(Reader *reader, Policy *policy) {
        PolicyDirectory *directory = &policy->directories[policy->n_directories];
        size_t n_path, n_access, n_defaults;

        directory->permissions.uid = take_id(reader);
        directory->permissions.gid = take_id(reader);
        directory->permissions.mode = take_u32(reader);
        n_path = take_number(reader, 2);
        n_access = take_number(reader, 1);
        n_defaults = take_number(reader, 1);
        take_limits(reader, POLICY_DIRECTORY_SLOTS, &directory->limits);
        take_acl(reader, n_access, &directory->access);
        take_acl(reader, n_defaults, &directory->defaults);
        if (directory->permissions.mode > ACCESS_DIRECTORY_MODES)
                wrong(reader, "a mode is at most 1777");
        check_access(reader, directory);
        if (reader->sentence)
                return POLICY_E_INVALID;

        take_path(reader, n_path, directory);
        if (reader->sentence)
                return POLICY_E_INVALID;
        if (!directory->path)
                return error_origin(-ENOMEM);
        if (policy->n_directories++ > 0 && compare_path(directory - 1, directory->path, n_path) >= 0)
                wrong(reader, "its directories are not in order");
        else if (!has_parent(policy, directory->path))
                wrong(reader, "a directory is there without the one above it");
        return reader->sentence ? POLICY_E_INVALID : 0;
}

/* -- the whole -------------------------------------------------------------------------- */

/* The header. Return: how many directories it promises. */
static size_t take_header(Reader *reader, size_t n, Rules *rules) {
        const uint8_t *magic = take(reader, MAGIC_BYTES);
        size_t n_directories;

        if (!magic || memcmp(magic, MAGIC, MAGIC_BYTES))
                wrong(reader, "it is no compiled policy");
        if (take_u32(reader) != VERSION)
                wrong(reader, "it is of another version");
        if (take_u32(reader) != n)
                wrong(reader, "it is not as long as it says");
        rules->n_users = take_u32(reader);
        rules->n_groups = take_u32(reader);
        n_directories = take_u32(reader);
        take_zero(reader, 4);
        if (rules->n_users > POLICY_USERS_MAX || rules->n_groups > POLICY_GROUPS_MAX ||
            n_directories > POLICY_DIRECTORIES_MAX)
                wrong(reader, "it has too many users, groups or directories");
        return n_directories;
}

static int decode(Reader *reader, Policy *policy) {
        Rules *rules = &policy->rules;
        size_t n_directories = take_header(reader, reader->n, rules);
        int r = 0;

        if (reader->sentence)
                return POLICY_E_INVALID;
        rules->users = calloc(rules->n_users + 1, sizeof(*rules->users));
        rules->groups = calloc(rules->n_groups + 1, sizeof(*rules->groups));
        policy->directories = calloc(n_directories + 1, sizeof(*policy->directories));
        if (!rules->users || !rules->groups || !policy->directories)
                return error_origin(-ENOMEM);

        take_limits(reader, LIMITS_ALL, &rules->global);
        take_limits(reader, LIMITS_ALL, &rules->everybody);
        take_users(reader, rules);
        take_groups(reader, rules);
        while (!r && !reader->sentence && policy->n_directories < n_directories)
                r = take_directory(reader, policy);
        if (reader->n)
                wrong(reader, "there is something behind its end");
        return r < 0 ? r : reader->sentence ? POLICY_E_INVALID : 0;
}

int policy_decode(const uint8_t *blob, size_t n, Policy **ret, const char **ret_sentence) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        Reader reader = { .at = blob, .n = n };
        int r;

        *ret_sentence = NULL;
        if (n > POLICY_BYTES_MAX) {
                *ret_sentence = "it is larger than 1 MiB";
                return POLICY_E_INVALID;
        }
        r = policy_new(&policy);
        if (!r)
                r = decode(&reader, policy);
        *ret_sentence = reader.sentence;
        if (r)
                return r;
        *ret = policy;
        policy = NULL;
        return 0;
}

/* -- writing ---------------------------------------------------------------------------- */

static void put(uint8_t **at, uint64_t value, size_t n) {
        for (; n > 0; --n, value >>= 8)
                *(*at)++ = (uint8_t)value;
}

static void put_limits(uint8_t **at, const Limits *limits) {
        put(at, limits->slots, 4);
        put(at, 0, 4);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                put(at, limits->slots & (UINT32_C(1) << i) ? limits->max[i] : 0, 8);
}

static void put_acl(uint8_t **at, const AclList *list) {
        for (size_t i = 0; i < list->n; ++i) {
                put(at, list->entries[i].id, 4);
                put(at, list->entries[i].tag, 1);
                put(at, list->entries[i].perms, 1);
                put(at, 0, 2);
        }
}

static void put_directory(uint8_t **at, const PolicyDirectory *directory) {
        size_t n_path = strlen(directory->path);

        put(at, directory->permissions.uid, 4);
        put(at, directory->permissions.gid, 4);
        put(at, directory->permissions.mode, 4);
        put(at, n_path, 2);
        put(at, directory->access.n, 1);
        put(at, directory->defaults.n, 1);
        put_limits(at, &directory->limits);
        put_acl(at, &directory->access);
        put_acl(at, &directory->defaults);
        memcpy(*at, directory->path, n_path);
        *at += n_path;
}

static size_t encoded_size(const Policy *policy) {
        const Rules *rules = &policy->rules;
        size_t n = HEADER_BYTES + 2 * LIMITS_BYTES + (rules->n_users + rules->n_groups) * RULE_BYTES;

        for (size_t i = 0; i < policy->n_directories; ++i) {
                const PolicyDirectory *directory = &policy->directories[i];

                n += DIRECTORY_BYTES + strlen(directory->path) +
                     (directory->access.n + directory->defaults.n) * ENTRY_BYTES;
        }
        return n;
}

static int compare_users(const void *a, const void *b) {
        uid_t x = ((const UserLimits *)a)->uid, y = ((const UserLimits *)b)->uid;

        return x < y ? -1 : x > y;
}

static int compare_directories(const void *a, const void *b) {
        const PolicyDirectory *directory = b;

        return compare_path(a, directory->path, strlen(directory->path));
}

int policy_encode(Policy *policy, uint8_t **ret, size_t *ret_n) {
        Rules *rules = &policy->rules;
        size_t n = encoded_size(policy);
        uint8_t *blob, *at;

        if (n > POLICY_BYTES_MAX || rules->n_users > POLICY_USERS_MAX || rules->n_groups > POLICY_GROUPS_MAX ||
            policy->n_directories > POLICY_DIRECTORIES_MAX)
                return POLICY_E_TOO_LARGE;
        blob = at = malloc(n);
        if (!blob)
                return error_origin(-ENOMEM);
        if (rules->n_users)
                qsort(rules->users, rules->n_users, sizeof(*rules->users), compare_users);
        if (policy->n_directories)
                qsort(policy->directories, policy->n_directories, sizeof(*policy->directories), compare_directories);

        memcpy(at, MAGIC, MAGIC_BYTES);
        at += MAGIC_BYTES;
        put(&at, VERSION, 4);
        put(&at, n, 4);
        put(&at, rules->n_users, 4);
        put(&at, rules->n_groups, 4);
        put(&at, policy->n_directories, 4);
        put(&at, 0, 4);
        put_limits(&at, &rules->global);
        put_limits(&at, &rules->everybody);
        for (size_t i = 0; i < rules->n_users; ++i) {
                put(&at, rules->users[i].uid, 8);
                put_limits(&at, &rules->users[i].limits);
        }
        for (size_t i = 0; i < rules->n_groups; ++i) {
                put(&at, rules->groups[i].gid, 8);
                put_limits(&at, &rules->groups[i].limits);
        }
        for (size_t i = 0; i < policy->n_directories; ++i)
                put_directory(&at, &policy->directories[i]);
        ASSERT(at == blob + n);

        *ret = blob;
        *ret_n = n;
        return 0;
}
