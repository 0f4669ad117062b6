/* Policy files: see the header for the model. */

#include "policy-parse.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/assert.h"
#include "base/path.h"
#include "config.h"
#include "core/policy.h"
#include "proto/acltext.h"
#include "util/error.h"

#define SUFFIX ".conf"

/* What of a directory was given, beside its limits. */
enum {
        GIVEN_OWNER = 1,
        GIVEN_GROUP = 2,
        GIVEN_MODE = 4,
        GIVEN_ACL = 8,
        GIVEN_DEFAULT_ACL = 16,
};

/* Beside each directory of the policy, while it is read. */
typedef struct Origin {
        char *file;
        int line;
        unsigned int given;
} Origin;

typedef struct Compiler {
        Policy *policy;
        Origin *origins;        /* as policy->directories */
        char *message;
        /* The section that is being read: limits are kept for all of them. NULL: none yet. */
        Limits *limits;
        size_t directory;       /* its number; SIZE_MAX: it is no directory */
} Compiler;

/* -- sections --------------------------------------------------------------------------- */

static int out_of_memory(IniFile *file) {
        return inifile_complain(file, "out of memory");
}

/* Makes room for one more of n members. Return: false without memory. */
static bool grow(void *array, size_t n, size_t size) {
        void *grown = reallocarray(*(void **)array, n + 1, size);

        if (!grown)
                return false;
        *(void **)array = grown;
        return true;
}

static int begin_user(IniFile *file, Compiler *compiler, const char *name) {
        Rules *rules = &compiler->policy->rules;
        size_t i = 0;
        uid_t uid;
        gid_t gid;

        if (config_find_user(name, &uid, &gid))
                return inifile_complain(file, "there is no user '%s'", name);
        while (i < rules->n_users && rules->users[i].uid != uid)
                ++i;
        if (i == rules->n_users) {
                if (!grow(&rules->users, i, sizeof(*rules->users)))
                        return out_of_memory(file);
                rules->users[rules->n_users++] = (UserLimits){ .uid = uid };
        }
        compiler->limits = &rules->users[i].limits;
        return 1;
}

static int begin_group(IniFile *file, Compiler *compiler, const char *name) {
        Rules *rules = &compiler->policy->rules;
        size_t i = 0;
        gid_t gid;

        if (config_find_group(name, &gid))
                return inifile_complain(file, "there is no group '%s'", name);
        while (i < rules->n_groups && rules->groups[i].gid != gid)
                ++i;
        if (i == rules->n_groups) {
                if (!grow(&rules->groups, i, sizeof(*rules->groups)))
                        return out_of_memory(file);
                rules->groups[rules->n_groups++] = (GroupLimits){ .gid = gid };
        }
        compiler->limits = &rules->groups[i].limits;
        return 1;
}

static bool add_directory(Compiler *compiler, const IniFile *file, const char *path) {
        Policy *policy = compiler->policy;
        size_t n = policy->n_directories;
        PolicyDirectory *directory;
        Origin *origin;

        if (!grow(&policy->directories, n, sizeof(*policy->directories)) ||
            !grow(&compiler->origins, n, sizeof(*compiler->origins)))
                return false;
        directory = &policy->directories[n];
        origin = &compiler->origins[n];
        *directory = (PolicyDirectory){ .path = strdup(path), .permissions = { .uid = 0, .gid = 0, .mode = 0755 } };
        *origin = (Origin){ .file = strdup(file->path), .line = file->line };
        if (!directory->path || !origin->file) {
                free(directory->path);
                free(origin->file);
                return false;
        }
        ++policy->n_directories;
        return true;
}

static int begin_directory(IniFile *file, Compiler *compiler, const char *path) {
        const Policy *policy = compiler->policy;
        PathError error = path_check(path, strlen(path));
        size_t i = 0;

        if (error)
                return inifile_complain(file, "[directory %s]: %s", path, path_error_sentence(error));
        while (i < policy->n_directories && strcmp(policy->directories[i].path, path))
                ++i;
        if (i == policy->n_directories && !add_directory(compiler, file, path))
                return out_of_memory(file);
        compiler->directory = i;
        compiler->limits = &policy->directories[i].limits;
        return 1;
}

static int on_section(IniFile *file, const char *section) {
        Compiler *compiler = file->events->userdata;
        Rules *rules = &compiler->policy->rules;

        compiler->directory = SIZE_MAX;
        compiler->limits = NULL;
        if (!strncmp(section, "user ", 5))
                return begin_user(file, compiler, section + 5);
        if (!strncmp(section, "group ", 6))
                return begin_group(file, compiler, section + 6);
        if (!strncmp(section, "directory ", 10))
                return begin_directory(file, compiler, section + 10);
        if (!strcmp(section, "global"))
                compiler->limits = &rules->global;
        else if (!strcmp(section, "account"))
                compiler->limits = &rules->everybody;
        else if (!strncmp(section, "account ", 8))
                return inifile_complain(file, "there is no section [%s]: a policy has [user %s]", section, section + 8);
        else
                return inifile_complain(file, "there is no section [%s]", section);
        return 1;
}

/* -- ACLs --------------------------------------------------------------------------------- */

static bool find_id(AclTag tag, const char *name, uint32_t *ret, void *userdata) {
        gid_t gid;

        (void)userdata;
        return tag == ACL_USER ? config_find_user(name, ret, &gid) == 0 : config_find_group(name, ret) == 0;
}

static int store_acl(IniFile *file, AclList *list, const char *key, const char *value) {
        AclTextError error;
        AclText text;

        if (acltext_parse(value, strlen(value), 0, find_id, NULL, &text, &error))
                return inifile_complain(file, "%s: '%.*s': %s", key, (int)error.n, value + error.at, error.sentence);
        for (size_t i = 0; i < text.access.n; ++i) {
                const AclEntry *entry = &text.access.entries[i];

                if (acl_list_find(list, entry->tag, entry->id))
                        return inifile_complain(file, "%s: %s", key, acl_error_sentence(ACL_TWICE));
                if (!acl_list_put(list, *entry))
                        return inifile_complain(file, "%s: %s", key, acl_error_sentence(ACL_TOO_MANY));
        }
        return 1;
}

/* Adds what an ACL leaves out. Return: false if there is no room. */
static bool complete(AclList *list, AclTag tag, unsigned int perms) {
        return acl_list_find(list, tag, ACL_NO_ID) ||
               acl_list_put(list, (AclEntry){ .tag = (uint8_t)tag, .perms = (uint8_t)(perms & ACL_ALL) });
}

static bool complete_from_mode(AclList *list, mode_t mode) {
        return complete(list, ACL_USER_OBJ, mode >> 6) && complete(list, ACL_GROUP_OBJ, mode >> 3) &&
               complete(list, ACL_OTHER, mode) &&
               (!acl_list_is_extended(list) || complete(list, ACL_MASK, acl_list_group_perms(list)));
}

static mode_t perms_of(AclList *list, AclTag tag) {
        const AclEntry *entry = acl_list_find(list, tag, ACL_NO_ID);

        return entry ? entry->perms : 0;
}

/* The mode says what the ACLs leave out; and then the ACL says what the mode is. */
static bool finish_acls(PolicyDirectory *directory) {
        mode_t *mode = &directory->permissions.mode, plain = *mode;
        AclList *access = &directory->access;

        if (directory->defaults.n && !complete_from_mode(&directory->defaults, plain))
                return false;
        if (access->n == 0)
                return true;
        if (!complete_from_mode(access, plain))
                return false;
        *mode = (plain & ACCESS_STICKY) | perms_of(access, ACL_USER_OBJ) << 6 | perms_of(access, ACL_OTHER) |
                perms_of(access, acl_list_is_extended(access) ? ACL_MASK : ACL_GROUP_OBJ) << 3;
        if (!acl_list_is_extended(access))
                access->n = 0;
        return true;
}

/* -- keys ------------------------------------------------------------------------------- */

static int given_twice(IniFile *file, const char *section, const char *key) {
        return inifile_complain(file, "'%s' is given twice for [%s]", key, section);
}

static int store_directory(IniFile *file, Compiler *compiler, const char *section, const char *key,
                           const char *value) {
        static const struct {
                const char *key;
                unsigned int bit;
        } keys[] = {
                { "owner", GIVEN_OWNER }, { "group", GIVEN_GROUP }, { "mode", GIVEN_MODE },
                { "acl", GIVEN_ACL }, { "default-acl", GIVEN_DEFAULT_ACL },
        };
        PolicyDirectory *directory = &compiler->policy->directories[compiler->directory];
        Origin *origin = &compiler->origins[compiler->directory];
        unsigned int bit = 0;

        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); ++i)
                if (!strcmp(keys[i].key, key))
                        bit = keys[i].bit;
        if (!bit)
                return -1;
        /* Only an ACL may be long enough to go on in the next line. */
        if ((origin->given & bit) && !(file->goes_on && bit >= GIVEN_ACL))
                return given_twice(file, section, key);
        origin->given |= bit;
        if (bit == GIVEN_ACL)
                return store_acl(file, &directory->access, key, value);
        if (bit == GIVEN_DEFAULT_ACL)
                return store_acl(file, &directory->defaults, key, value);
        return config_store_permission(file, &directory->permissions, key, value);
}

static int on_key(IniFile *file, const char *section, const char *key, const char *value) {
        Compiler *compiler = file->events->userdata;
        bool directory = compiler->directory != SIZE_MAX;
        Limits limits = { .slots = 0 };
        int r = -1;

        if (!compiler->limits)
                return inifile_complain(file, "the key '%s' stands before any section", key);
        if (directory)
                r = store_directory(file, compiler, section, key, value);
        if (r < 0)
                r = (directory ? config_store_directory_limit : config_store_limit)(file, &limits, key, value);
        if (r < 0)
                return inifile_complain(file, "there is no key '%s' in section [%s]", key, section);
        if (limits.slots & compiler->limits->slots)
                return given_twice(file, section, key);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                if (limits.slots & (UINT32_C(1) << i))
                        compiler->limits->max[i] = limits.max[i];
        compiler->limits->slots |= limits.slots;
        return r;
}

/* -- files ------------------------------------------------------------------------------ */

static int read_file(Compiler *compiler, const char *path) {
        IniEvents events = { .section = on_section, .key = on_key, .userdata = compiler };
        int r;

        compiler->limits = NULL;
        compiler->directory = SIZE_MAX;
        r = inifile_read(path, &events, compiler->message);
        if (r == INIFILE_E_INVALID)
                return POLICY_PARSE_E_INVALID;
        if (r == INIFILE_E_MISSING)
                r = -ENOENT;
        if (r < 0) {
                (void)snprintf(compiler->message, INIFILE_MESSAGE_MAX, "%s: %s", path, strerror(-r));
                return POLICY_PARSE_E_INVALID;
        }
        return 0;
}

/* What hides a file of the same name, and says nothing itself. */
static bool is_nothing(const char *path) {
        struct stat st;

        return stat(path, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/* A file that counts: the last one of its name. */
typedef struct Found {
        char *name;
        const char *directory;
} Found;

typedef struct Listing {
        Found *found;
        size_t n;
} Listing;

static void listing_deinit(Listing *listing) {
        for (size_t i = 0; i < listing->n; ++i)
                free(listing->found[i].name);
        free(listing->found);
}

static bool is_policy(const char *name) {
        size_t n = strlen(name);

        return name[0] != '.' && n > strlen(SUFFIX) && !strcmp(name + n - strlen(SUFFIX), SUFFIX);
}

static int listing_add(Listing *listing, const char *directory, const char *name) {
        char *copy;

        for (size_t i = 0; i < listing->n; ++i)
                if (!strcmp(listing->found[i].name, name)) {
                        listing->found[i].directory = directory;
                        return 0;
                }
        copy = strdup(name);
        if (!copy || !grow(&listing->found, listing->n, sizeof(*listing->found))) {
                free(copy);
                return error_origin(-ENOMEM);
        }
        listing->found[listing->n++] = (Found){ .name = copy, .directory = directory };
        return 0;
}

static int list_directory(Compiler *compiler, Listing *listing, const char *directory) {
        const struct dirent *entry;
        DIR *stream = opendir(directory);
        struct stat st;
        int r = 0;

        if (!stream) {
                if (errno == ENOENT)
                        return 0;
                (void)snprintf(compiler->message, INIFILE_MESSAGE_MAX, "%s: %s", directory, strerror(errno));
                return POLICY_PARSE_E_INVALID;
        }
        /* Else anybody could put a policy there. */
        if (fstat(dirfd(stream), &st) == 0 && st.st_mode & S_IWOTH) {
                (void)snprintf(compiler->message, INIFILE_MESSAGE_MAX, "%s: everybody may write to it: chmod o-w it",
                               directory);
                r = POLICY_PARSE_E_INVALID;
        }
        while (!r && (errno = 0, entry = readdir(stream)))
                if (is_policy(entry->d_name))
                        r = listing_add(listing, directory, entry->d_name);
        if (!r && errno) {
                (void)snprintf(compiler->message, INIFILE_MESSAGE_MAX, "%s: %s", directory, strerror(errno));
                r = POLICY_PARSE_E_INVALID;
        }
        (void)closedir(stream);
        return r;
}

static int compare_found(const void *a, const void *b) {
        return strcmp(((const Found *)a)->name, ((const Found *)b)->name);
}

static int read_found(Compiler *compiler, const Found *found) {
        CLEANUP(freep) char *path = NULL;

        if (asprintf(&path, "%s/%s", found->directory, found->name) < 0) {
                path = NULL;
                return error_origin(-ENOMEM);
        }
        return is_nothing(path) ? 0 : read_file(compiler, path);
}

static int read_directories(Compiler *compiler, const char *const *directories, size_t n) {
        CLEANUP(listing_deinit) Listing listing = { .n = 0 };
        int r = 0;

        for (size_t i = 0; !r && i < n; ++i)
                r = list_directory(compiler, &listing, directories[i]);
        if (listing.n)
                qsort(listing.found, listing.n, sizeof(*listing.found), compare_found);
        for (size_t i = 0; !r && i < listing.n; ++i)
                r = read_found(compiler, &listing.found[i]);
        return r;
}

/* -- the whole -------------------------------------------------------------------------- */

static int complain_about(Compiler *compiler, const Origin *origin, const char *path, const char *what) {
        (void)snprintf(compiler->message, INIFILE_MESSAGE_MAX, "%s:%d: [directory %s]: %s", origin->file, origin->line,
                       path, what);
        return POLICY_PARSE_E_INVALID;
}

static bool has_parent(const Policy *policy, const char *path) {
        size_t n = (size_t)(strrchr(path, '/') - path);

        for (size_t i = 0; n > 0 && i < policy->n_directories; ++i)
                if (!strncmp(policy->directories[i].path, path, n) && !policy->directories[i].path[n])
                        return true;
        return n == 0;
}

/* What can only be said of a directory when all has been read. */
static int check_directories(Compiler *compiler) {
        Policy *policy = compiler->policy;

        for (size_t i = 0; i < policy->n_directories; ++i) {
                PolicyDirectory *directory = &policy->directories[i];
                AclError error = ACL_OK;

                if (!has_parent(policy, directory->path))
                        return complain_about(compiler, &compiler->origins[i], directory->path,
                                              "the directory above it needs a section as well");
                if (!finish_acls(directory))
                        error = ACL_TOO_MANY;
                else if (directory->access.n)
                        error = acl_check(directory->access.entries, directory->access.n);
                if (!error && directory->defaults.n)
                        error = acl_check(directory->defaults.entries, directory->defaults.n);
                if (error)
                        return complain_about(compiler, &compiler->origins[i], directory->path,
                                              acl_error_sentence(error));
        }
        return 0;
}

static int too_large(Compiler *compiler) {
        (void)snprintf(compiler->message, INIFILE_MESSAGE_MAX,
                       "the policy is larger than %u bytes, %d users, %d groups or %d directories", POLICY_BYTES_MAX,
                       POLICY_USERS_MAX, POLICY_GROUPS_MAX, POLICY_DIRECTORIES_MAX);
        return POLICY_PARSE_E_INVALID;
}

static int finish(Compiler *compiler, uint8_t **ret, size_t *ret_n) {
        int r = check_directories(compiler);

        if (!r)
                r = policy_encode(compiler->policy, ret, ret_n);
        return r == POLICY_E_TOO_LARGE ? too_large(compiler) : r;
}

static void compiler_deinit(Compiler *compiler) {
        for (size_t i = 0; compiler->policy && i < compiler->policy->n_directories; ++i)
                free(compiler->origins[i].file);
        free(compiler->origins);
        compiler->policy = policy_free(compiler->policy);
}

int policy_compile(const char *const *directories, size_t n, uint8_t **ret, size_t *ret_n,
                   char message[INIFILE_MESSAGE_MAX]) {
        CLEANUP(compiler_deinit) Compiler compiler = { .message = message };
        int r;

        r = policy_new(&compiler.policy);
        if (!r)
                r = read_directories(&compiler, directories, n);
        return r ? r : finish(&compiler, ret, ret_n);
}

int policy_compile_file(const char *path, uint8_t **ret, size_t *ret_n, char message[INIFILE_MESSAGE_MAX]) {
        CLEANUP(compiler_deinit) Compiler compiler = { .message = message };
        int r;

        r = policy_new(&compiler.policy);
        if (!r)
                r = read_file(&compiler, path);
        return r ? r : finish(&compiler, ret, ret_n);
}
