/* The configuration: see the header for the model. */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <pwd.h>
#include <search.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "acct/quota.h"
#include "base/assert.h"
#include "base/overflow.h"
#include "base/path.h"
#include "util/deadline.h"
#include "util/error.h"

#define FILE_BYTES_MAX (1 << 20)
/* inih keeps 49 bytes of a section's name and cuts the rest without a word. */
#define SECTION_BYTES_MAX 49

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
                { "ms", NSEC_PER_MSEC }, { "s", NSEC_PER_SEC }, { "min", 60 * NSEC_PER_SEC }, { "h", 3600 * NSEC_PER_SEC },
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

/* -- the file --------------------------------------------------------------------------- */

typedef struct Reading {
        Config *config;
        const char *path;
        FILE *file;
        int line;
        int error_line;         /* of config->message, 0: none yet */
        void *seen;             /* tsearch(3): "section\nkey" */
} Reading;

__attribute__((format(printf, 2, 3)))
static int complain(Reading *reading, const char *format, ...) {
        Config *config = reading->config;
        va_list arguments;
        size_t n;

        if (reading->error_line)
                return 0;
        reading->error_line = reading->line;
        n = (size_t)snprintf(config->message, sizeof(config->message), "%s:%d: ", reading->path, reading->line);
        if (n < sizeof(config->message)) {
                va_start(arguments, format);
                (void)vsnprintf(config->message + n, sizeof(config->message) - n, format, arguments);
                va_end(arguments);
        }
        return 0;
}

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

static AccountLimits *find_exception(Config *config, uid_t uid) {
        AccountLimits *grown;

        for (size_t i = 0; i < config->n_exceptions; ++i)
                if (config->exceptions[i].uid == uid)
                        return &config->exceptions[i];

        grown = reallocarray(config->exceptions, config->n_exceptions + 1, sizeof(*grown));
        if (!grown)
                return NULL;
        config->exceptions = grown;
        grown += config->n_exceptions++;
        grown->uid = uid;
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                grown->max[i] = CONFIG_AUTO;            /* the default for all users, filled in at the end */
        return grown;
}

/* A limit named in `section` ("account" has them all) into a vector. */
static int store_limit(Reading *reading, uint64_t *max, const char *key, const char *value) {
        for (size_t i = 0; i < N_KEYS; ++i) {
                size_t slot;
                uint64_t limit;

                if (strcmp(keys[i].section, "account") || strcmp(keys[i].key, key))
                        continue;
                if (!(keys[i].type == SIZE ? config_parse_size : config_parse_count)(value, &limit))
                        return complain(reading, "%s=%s: must be %s", key, value, type_sentence(keys[i].type));
                slot = (keys[i].offset - offsetof(Config, account)) / sizeof(uint64_t);
                max[slot] = limit;
                return 1;
        }
        return complain(reading, "there is no key '%s' in this section", key);
}

static int store_exception(Reading *reading, const char *name, const char *key, const char *value) {
        AccountLimits *exception;
        uid_t uid;
        gid_t gid;

        if (config_find_user(name, &uid, &gid))
                return complain(reading, "there is no user '%s'", name);
        exception = find_exception(reading->config, uid);
        if (!exception)
                return complain(reading, "out of memory");
        return store_limit(reading, exception->max, key, value);
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

static int store_directory(Reading *reading, const char *path, const char *key, const char *value) {
        PathError error = path_check(path, strlen(path));
        ConfigDirectory *directory;
        uint64_t mode;
        gid_t gid;

        if (error)
                return complain(reading, "[directory %s]: %s", path, path_error_sentence(error));
        directory = find_directory(reading->config, path);
        if (!directory)
                return complain(reading, "out of memory");

        if (!strcmp(key, "owner"))
                return !config_find_user(value, &directory->permissions.uid, &gid) ||
                       complain(reading, "owner: there is no user '%s'", value);
        if (!strcmp(key, "group"))
                return !config_find_group(value, &directory->permissions.gid) ||
                       complain(reading, "group: there is no group '%s'", value);
        if (!strcmp(key, "mode")) {
                if (!config_parse_mode(value, &mode) || mode > ACCESS_DIRECTORY_MODES)
                        return complain(reading, "mode=%s: must be an octal mode of at most 1777", value);
                directory->permissions.mode = (mode_t)mode;
                return 1;
        }
        if (strcmp(key, "bytes") && strcmp(key, "regions"))
                return complain(reading, "there is no key '%s' in this section", key);
        return store_limit(reading, directory->max, key, value);
}

static int store_plain(Reading *reading, const char *section, const char *name, const char *value) {
        bool known = false;

        for (size_t i = 0; i < N_KEYS; ++i) {
                if (strcmp(keys[i].section, section))
                        continue;
                known = true;
                if (strcmp(keys[i].key, name))
                        continue;
                if (!key_store(reading->config, &keys[i], value))
                        return complain(reading, "%s=%s: must be %s%s", name, value, type_sentence(keys[i].type),
                                        strcmp(keys[i].initial, "auto") ? "" : ", or auto");
                return 1;
        }
        if (!*section)
                return complain(reading, "the key '%s' stands before any section", name);
        return known ? complain(reading, "there is no key '%s' in section [%s]", name, section) :
                       complain(reading, "there is no section [%s]", section);
}

/* inih's handler: 1 to go on, 0 for an error in this line. */
static int handle(void *userdata, const char *section, const char *name, const char *value) {
        Reading *reading = userdata;

        if (reading->error_line)
                return 0;
        if (!first_time(reading, section, name))
                return complain(reading, "'%s' is given twice in section [%s]", name, section);
        if (!strncmp(section, "account ", 8))
                return store_exception(reading, section + 8, name, value);
        if (!strncmp(section, "directory ", 10))
                return store_directory(reading, section + 10, name, value);
        return store_plain(reading, section, name, value);
}

/* inih's reader: one line a call, so that the handler knows which one it is given. */
static char *read_line(char *line, int n, void *userdata) {
        Reading *reading = userdata;
        size_t length;

        if (!fgets(line, n, reading->file))
                return NULL;
        ++reading->line;
        length = strlen(line);
        if (length == (size_t)n - 1 && line[length - 1] != '\n')
                (void)complain(reading, "the line is longer than %d bytes", n - 2);
        if (line[0] == '[' && strcspn(line, "]") > SECTION_BYTES_MAX)
                (void)complain(reading, "the section's name is longer than %d bytes", SECTION_BYTES_MAX - 1);
        return line;
}

static int compare_directories(const void *a, const void *b) {
        return strcmp(((const ConfigDirectory *)a)->path, ((const ConfigDirectory *)b)->path);
}

/* What can only be said when all has been read. */
static int check_whole(Reading *reading) {
        Config *config = reading->config;

        for (size_t i = 0; i < config->n_exceptions; ++i)
                for (size_t k = 0; k < _ACCOUNT_SLOT_N; ++k)
                        if (config->exceptions[i].max[k] == CONFIG_AUTO)
                                config->exceptions[i].max[k] = config->account[k];
        if (config->n_directories)
                qsort(config->directories, config->n_directories, sizeof(ConfigDirectory), compare_directories);
        if (config->socket_mode > 0777)
                return complain(reading, "socket-mode is at most 0777");
        if (config->root_mode > ACCESS_DIRECTORY_MODES)
                return complain(reading, "root-mode is at most 1777");
        return 0;
}

static int read_open_file(Config *config, const char *path, FILE *file) {
        Reading reading = { .config = config, .path = path, .file = file };
        int r;

        r = ini_parse_stream(read_line, &reading, handle, &reading);
        if (r > 0 && (!reading.error_line || r < reading.error_line)) {
                reading.error_line = 0;
                reading.line = r;
                (void)complain(&reading, "neither a section, nor a key=value, nor a comment");
        }
        if (r >= 0 && !reading.error_line)
                (void)check_whole(&reading);
        tdestroy(reading.seen, free);
        if (r < 0)
                return error_origin(-ENOMEM);
        return reading.error_line ? CONFIG_E_INVALID : 0;
}

int config_read(Config *config, const char *path) {
        struct stat st;
        FILE *file;
        int fd, r;

        /* O_NONBLOCK: a FIFO must not keep the service from starting. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return errno == ENOENT ? CONFIG_E_MISSING : error_origin(-errno);
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX) {
                (void)close_fd(fd);
                (void)snprintf(config->message, sizeof(config->message),
                               "%s: not a regular file of at most %d bytes", path, FILE_BYTES_MAX);
                return CONFIG_E_INVALID;
        }
        file = fdopen(fd, "r");
        if (!file) {
                (void)close_fd(fd);
                return error_origin(-ENOMEM);
        }
        r = read_open_file(config, path, file);
        (void)fclose(file);
        return r;
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
