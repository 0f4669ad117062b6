/* The configuration: an INI file turned into numbers, before the broker exists.
 *
 * Every key, its type and its default stand in config.inc. Names of users and groups are looked
 * up here, once, while the name service may still be asked. An unknown section or key, a value
 * that does not parse, or a key given twice is an error with file and line: a typing mistake must
 * not become a limit that is not there.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "acct/account.h"
#include "base/cleanup.h"
#include "core/access.h"
#include "inifile.h"

/* "auto": worked out at start from the machine. */
#define CONFIG_AUTO (UINT64_MAX - 1)

enum {
        _CONFIG_E_SUCCESS,
        CONFIG_E_MISSING,       /* the file does not exist */
        CONFIG_E_INVALID,       /* the message says where and why */
};

typedef struct Config Config;

typedef struct ConfigDirectory {
        char *path;
        Permissions permissions;
        uint64_t max[_ACCOUNT_SLOT_N];
} ConfigDirectory;

/* Nanoseconds, but for restarts. */
typedef struct ConfigKeeper {
        uint64_t start;
        uint64_t watchdog;
        uint64_t stop;
        uint64_t restarts;
        uint64_t window;
        uint64_t retry;
} ConfigKeeper;

struct Config {
        char *socket;
        uint64_t socket_mode;
        char *user;
        char *admin_group;
        uint64_t root_mode;
        uint64_t global[_ACCOUNT_SLOT_N];
        uint64_t account[_ACCOUNT_SLOT_N];
        uint64_t session_grace; /* nanoseconds, like the next six */
        uint64_t wait_max;
        uint64_t ticket_max;
        uint64_t hello;
        uint64_t stall;
        uint64_t helper;
        uint64_t busy_poll;
        ConfigKeeper keeper;

        UserLimits *exceptions; /* by uid */
        size_t n_exceptions;
        ConfigDirectory *directories;   /* sorted: parents before children */
        size_t n_directories;

        char message[INIFILE_MESSAGE_MAX];      /* of the first error: "FILE:LINE: what" */
};

/* Makes a configuration of defaults. Return: 0, -ENOMEM. */
int config_new(Config **ret);
/* Return: NULL. */
Config *config_free(Config *config);

DEFINE_CLEANUP(Config, config_free);

/* Reads a file over the defaults. Only a regular file of at most 1 MiB is read.
 * Return: 0, CONFIG_E_MISSING, CONFIG_E_INVALID, or a negative errno. */
int config_read(Config *config, const char *path);

/* Names of users and groups to numbers; numbers stand for themselves, known or not.
 * Return: 0, CONFIG_E_MISSING. */
int config_find_user(const char *name, uid_t *ret_uid, gid_t *ret_gid);
int config_find_group(const char *name, gid_t *ret);

/* What policy files have in common with the configuration: a limit of an account; an owner, a group
 * or a mode of a directory. Return: 1 if it was stored, 0 after inifile_complain(), -1 if there is
 * no such key. */
int config_store_limit(IniFile *file, Limits *limits, const char *key, const char *value);
int config_store_permission(IniFile *file, Permissions *permissions, const char *key, const char *value);
/* The same for the limits that a directory has. */
int config_store_directory_limit(IniFile *file, Limits *limits, const char *key, const char *value);

/* Values, as shmd.conf(5) has them: "64M", "1h", "1777". Return: whether it is one. */
bool config_parse_count(const char *text, uint64_t *ret);
bool config_parse_size(const char *text, uint64_t *ret);
bool config_parse_time(const char *text, uint64_t *ret_ns);
bool config_parse_mode(const char *text, uint64_t *ret);

#endif
