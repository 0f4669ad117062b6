/* The configuration: see the header for the model. */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <search.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acct/quota.h"
#include "base/assert.h"
#include "base/overflow.h"
#include "base/path.h"
#include "util/deadline.h"
#include "util/error.h"

/* Whoever asks no sooner can as well wait until the broker has woken up. */
#define BUSY_POLL_MAX (200 * NSEC_PER_USEC)

typedef enum KeyType {
        COUNT,
        SIZE,
        TIME,
        MODE,
        TEXT,
} KeyType;

typedef struct Key {
        const char *section;
        const char *key;
        size_t offset;
        KeyType type;
        const char *initial;
} Key;

static const Key keys[] = {
#define SECTION(name, sentence)
#define KEY(section, key, member, type, initial, sentence) { section, key, offsetof(Config, member), type, initial },
#include "config.inc"
#undef KEY
#undef SECTION
};
#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

/* -- values --------------------------------------------------------------------------- */

/* A decimal number and how many characters it took; no sign, no space, no overflow. */
static size_t parse_digits(const char *text, uint64_t *ret) {
        uint64_t value = 0;
        size_t n = 0;

        for (; isdigit((unsigned char)text[n]); ++n)
                if (!mul_u64(value, 10, &value) || !add_u64(value, (uint64_t)(text[n] - '0'), &value))
                        return 0;
        *ret = value;
        return n;
}

bool config_parse_count(const char *text, uint64_t *ret) {
        uint64_t value;
        size_t n;

        if (!strcmp(text, "unlimited")) {
                *ret = QUOTA_UNLIMITED;
                return true;
        }
        n = parse_digits(text, &value);
        if (n == 0 || text[n] || value >= CONFIG_AUTO)
                return false;
        *ret = value;
        return true;
}

bool config_parse_size(const char *text, uint64_t *ret) {
        static const char units[] = "KMGT";
        uint64_t value;
        const char *unit;
        size_t n;

        if (!strcmp(text, "unlimited"))
                return config_parse_count(text, ret);
        n = parse_digits(text, &value);
        if (n == 0)
                return false;
        if (text[n]) {
                unit = strchr(units, toupper((unsigned char)text[n]));
                if (!unit || text[n + 1] || !mul_u64(value, UINT64_C(1) << (10 * (unit - units + 1)), &value))
                        return false;
        }
        if (value >= CONFIG_AUTO)
                return false;
        *ret = value;
        return true;
}

bool config_parse_time(const char *text, uint64_t *ret) {
        static const struct {
                const char *unit;
                uint64_t ns;
        } units[] = {
                { "us", NSEC_PER_USEC },     { "ms", NSEC_PER_MSEC },       { "s", NSEC_PER_SEC },
                { "min", 60 * NSEC_PER_SEC }, { "h", 3600 * NSEC_PER_SEC },
        };
        uint64_t value;
        size_t n = parse_digits(text, &value);

        for (size_t i = 0; n && i < sizeof(units) / sizeof(units[0]); ++i)
                if (!strcmp(text + n, units[i].unit))
                        /* A century is enough, and leaves room to add the time of day. */
                        return mul_u64(value, units[i].ns, ret) && *ret <= UINT64_C(36525) * 86400 * NSEC_PER_SEC;
        return false;
}

bool config_parse_mode(const char *text, uint64_t *ret) {
        uint64_t value = 0;

        if (!*text || strlen(text) > 5)
                return false;
        for (; *text; ++text) {
                if (*text < '0' || *text > '7')
                        return false;
                value = value * 8 + (uint64_t)(*text - '0');
        }
        *ret = value;
        return value <= 07777;
}

static const char *type_sentence(KeyType type) {
        switch (type) {
        case COUNT:
                return "a number, or unlimited";
        case SIZE:
                return "a size such as 64M (K, M, G, T), or unlimited";
        case TIME:
                return "a time such as 500ms, 10s, 5min or 1h";
        case MODE:
                return "an octal mode such as 0666";
        case TEXT:
        default:
                return "a text";
        }
}

/* Stores a value of a key. Return: whether it is one. */
static bool key_store(Config *config, const Key *key, const char *text) {
        void *at = (char *)config + key->offset;
        bool automatic = !strcmp(key->initial, "auto") && !strcmp(text, "auto");

        if (automatic) {
                *(uint64_t *)at = CONFIG_AUTO;
                return true;
        }
        switch (key->type) {
        case COUNT:
                return config_parse_count(text, at);
        case SIZE:
                return config_parse_size(text, at);
        case TIME:
                return config_parse_time(text, at);
        case MODE:
                return config_parse_mode(text, at);
        case TEXT:
        default: {
                char *copy = strdup(text);

                if (!copy)
                        return false;
                free(*(char **)at);
                *(char **)at = copy;
                return true;
        }
        }
}

/* -- names ---------------------------------------------------------------------------- */

static bool parse_id(const char *text, uint32_t *ret) {
        uint64_t value;
        size_t n = parse_digits(text, &value);

        if (n == 0 || text[n] || value >= UINT32_MAX)
                return false;
        *ret = (uint32_t)value;
        return true;
}

int config_find_user(const char *name, uid_t *ret_uid, gid_t *ret_gid) {
        const struct passwd *entry;
        uint32_t id;

        if (parse_id(name, &id)) {
                entry = getpwuid(id);
                *ret_uid = id;
                *ret_gid = entry ? entry->pw_gid : id;
                return 0;
        }
        entry = getpwnam(name);
        if (!entry)
                return CONFIG_E_MISSING;
        *ret_uid = entry->pw_uid;
        *ret_gid = entry->pw_gid;
        return 0;
}

int config_find_group(const char *name, gid_t *ret) {
        const struct group *entry;

        if (parse_id(name, ret))
                return 0;
        entry = getgrnam(name);
        if (!entry)
                return CONFIG_E_MISSING;
        *ret = entry->gr_gid;
        return 0;
}

/* -- what policies have as well --------------------------------------------------------- */

static void limits_set(Limits *limits, size_t slot, uint64_t max) {
        limits->max[slot] = max;
        limits->slots |= UINT32_C(1) << slot;
}

int config_store_limit(IniFile *file, Limits *limits, const char *key, const char *value) {
        for (size_t i = 0; i < N_KEYS; ++i) {
                uint64_t limit;

                /* [account] has them all. */
                if (strcmp(keys[i].section, "account") || strcmp(keys[i].key, key))
                        continue;
                if (!(keys[i].type == SIZE ? config_parse_size : config_parse_count)(value, &limit))
                        return inifile_complain(file, "%s=%s: must be %s", key, value, type_sentence(keys[i].type));
                limits_set(limits, (keys[i].offset - offsetof(Config, account)) / sizeof(uint64_t), limit);
                return 1;
        }
        return -1;
}

int config_store_directory_limit(IniFile *file, Limits *limits, const char *key, const char *value) {
        if (strcmp(key, "bytes") && strcmp(key, "regions"))
                return -1;
        return config_store_limit(file, limits, key, value);
}

int config_store_permission(IniFile *file, Permissions *permissions, const char *key, const char *value) {
        uint64_t mode;
        gid_t gid;

        if (!strcmp(key, "owner"))
                return !config_find_user(value, &permissions->uid, &gid) ||
                       inifile_complain(file, "owner: there is no user '%s'", value);
        if (!strcmp(key, "group"))
                return !config_find_group(value, &permissions->gid) ||
                       inifile_complain(file, "group: there is no group '%s'", value);
        if (strcmp(key, "mode"))
                return -1;
        if (!config_parse_mode(value, &mode) || mode > ACCESS_DIRECTORY_MODES)
                return inifile_complain(file, "mode=%s: must be an octal mode of at most 1777", value);
        permissions->mode = (mode_t)mode;
        return 1;
}

/* -- the file --------------------------------------------------------------------------- */

typedef struct Reading {
        Config *config;
        void *seen;             /* tsearch(3): "section\nkey" */
} Reading;

static int compare_text(const void *a, const void *b) {
        return strcmp(a, b);
}

/* Return: false if the key was given before in that section. */
static bool first_time(Reading *reading, const char *section, const char *key) {
        char *text, **found;

        if (asprintf(&text, "%s\n%s", section, key) < 0)
                return true;
        found = tsearch(text, &reading->seen, compare_text);
        if (found && *found == text)
                return true;
        free(text);
        return false;
}

static int no_such_key(IniFile *file, const char *key) {
        return inifile_complain(file, "there is no key '%s' in this section", key);
}

static UserLimits *find_exception(Config *config, uid_t uid) {
        UserLimits *grown;

        for (size_t i = 0; i < config->n_exceptions; ++i)
                if (config->exceptions[i].uid == uid)
                        return &config->exceptions[i];

        grown = reallocarray(config->exceptions, config->n_exceptions + 1, sizeof(*grown));
        if (!grown)
                return NULL;
        config->exceptions = grown;
        grown += config->n_exceptions++;
        *grown = (UserLimits){ .uid = uid };
        return grown;
}

static int store_exception(IniFile *file, Config *config, const char *name, const char *key, const char *value) {
        UserLimits *exception;
        uid_t uid;
        gid_t gid;
        int r;

        if (config_find_user(name, &uid, &gid))
                return inifile_complain(file, "there is no user '%s'", name);
        exception = find_exception(config, uid);
        if (!exception)
                return inifile_complain(file, "out of memory");
        r = config_store_limit(file, &exception->limits, key, value);
        return r < 0 ? no_such_key(file, key) : r;
}

static ConfigDirectory *find_directory(Config *config, const char *path) {
        ConfigDirectory *grown;

        for (size_t i = 0; i < config->n_directories; ++i)
                if (!strcmp(config->directories[i].path, path))
                        return &config->directories[i];

        grown = reallocarray(config->directories, config->n_directories + 1, sizeof(*grown));
        if (!grown)
                return NULL;
        config->directories = grown;
        grown += config->n_directories;
        *grown = (ConfigDirectory){ .path = strdup(path), .permissions = { .uid = 0, .gid = 0, .mode = 0755 } };
        if (!grown->path)
                return NULL;
        ++config->n_directories;
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                grown->max[i] = QUOTA_UNLIMITED;
        return grown;
}

static int store_directory(IniFile *file, Config *config, const char *path, const char *key, const char *value) {
        ConfigDirectory *directory = find_directory(config, path);
        Limits limits = { .slots = 0 };
        int r;

        if (!directory)
                return inifile_complain(file, "out of memory");
        r = config_store_permission(file, &directory->permissions, key, value);
        if (r < 0)
                r = config_store_directory_limit(file, &limits, key, value);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                if (limits.slots & (UINT32_C(1) << i))
                        directory->max[i] = limits.max[i];
        return r < 0 ? no_such_key(file, key) : r;
}

static int store_plain(IniFile *file, Config *config, const char *section, const char *name, const char *value) {
        bool known = false;

        for (size_t i = 0; i < N_KEYS; ++i) {
                if (strcmp(keys[i].section, section))
                        continue;
                known = true;
                if (strcmp(keys[i].key, name))
                        continue;
                if (!key_store(config, &keys[i], value))
                        return inifile_complain(file, "%s=%s: must be %s%s", name, value, type_sentence(keys[i].type),
                                                strcmp(keys[i].initial, "auto") ? "" : ", or auto");
                return 1;
        }
        if (!*section)
                return inifile_complain(file, "the key '%s' stands before any section", name);
        return known ? inifile_complain(file, "there is no key '%s' in section [%s]", name, section) :
                       inifile_complain(file, "there is no section [%s]", section);
}

/* A directory is one also without any key. */
static int on_section(IniFile *file, const char *section) {
        Reading *reading = file->events->userdata;
        PathError error;

        if (strncmp(section, "directory ", 10))
                return 1;
        section += 10;
        error = path_check(section, strlen(section));
        if (error)
                return inifile_complain(file, "[directory %s]: %s", section, path_error_sentence(error));
        return find_directory(reading->config, section) || inifile_complain(file, "out of memory");
}

static int on_key(IniFile *file, const char *section, const char *key, const char *value) {
        Reading *reading = file->events->userdata;

        if (!first_time(reading, section, key))
                return inifile_complain(file, "'%s' is given twice in section [%s]", key, section);
        if (!strncmp(section, "account ", 8))
                return store_exception(file, reading->config, section + 8, key, value);
        if (!strncmp(section, "directory ", 10))
                return store_directory(file, reading->config, section + 10, key, value);
        return store_plain(file, reading->config, section, key, value);
}

static int compare_directories(const void *a, const void *b) {
        return strcmp(((const ConfigDirectory *)a)->path, ((const ConfigDirectory *)b)->path);
}

static int compare_exceptions(const void *a, const void *b) {
        uid_t x = ((const UserLimits *)a)->uid, y = ((const UserLimits *)b)->uid;

        return x < y ? -1 : x > y;
}

/* What can only be said when all has been read. */
static int on_whole(IniFile *file) {
        Config *config = ((Reading *)file->events->userdata)->config;

        if (config->n_exceptions)
                qsort(config->exceptions, config->n_exceptions, sizeof(UserLimits), compare_exceptions);
        if (config->n_directories)
                qsort(config->directories, config->n_directories, sizeof(ConfigDirectory), compare_directories);
        if (config->socket_mode > 0777)
                return inifile_complain(file, "socket-mode is at most 0777");
        if (config->root_mode > ACCESS_DIRECTORY_MODES)
                return inifile_complain(file, "root-mode is at most 1777");
        if (config->busy_poll > BUSY_POLL_MAX)
                return inifile_complain(file, "busy-poll is at most 200us");
        return 1;
}

int config_read(Config *config, const char *path) {
        Reading reading = { .config = config };
        IniEvents events = { .section = on_section, .key = on_key, .whole = on_whole, .userdata = &reading };
        int r;

        r = inifile_read(path, &events, config->message);
        tdestroy(reading.seen, free);
        if (r == INIFILE_E_MISSING)
                return CONFIG_E_MISSING;
        return r == INIFILE_E_INVALID ? CONFIG_E_INVALID : error_fold(r);
}

/* -- life ------------------------------------------------------------------------------- */

int config_new(Config **ret) {
        CLEANUP(config_freep) Config *config = calloc(1, sizeof(*config));

        if (!config)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < N_KEYS; ++i)
                if (!key_store(config, &keys[i], keys[i].initial)) {
                        ASSERT(keys[i].type == TEXT);
                        return error_origin(-ENOMEM);
                }
        *ret = config;
        config = NULL;
        return 0;
}

Config *config_free(Config *config) {
        if (!config)
                return NULL;
        for (size_t i = 0; i < config->n_directories; ++i)
                free(config->directories[i].path);
        free(config->directories);
        free(config->exceptions);
        free(config->admin_group);
        free(config->user);
        free(config->socket);
        free(config);
        return NULL;
}
