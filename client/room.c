/* Room for memory: see the header for the model. Formats: proc(5), cgroups(7), and the kernel's
 * admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst. */

#include "buildinfo.h"

#include "client/room.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* Names of the same things in the two versions. */
static const struct {
        const char *limit;
        const char *usage;
        const char *idle;       /* in memory.stat, of the group and those below */
} files[] = {
        { "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file " },
        { "memory.max",            "memory.current",        "inactive_file " },
};

/* -- reading ------------------------------------------------------------------------- */

static void fclosep(FILE **file) {
        if (*file)
                (void)fclose(*file);
}

/* Reads the start of a file as a string. Return: whether there was anything. */
static bool read_text(const char *path, char *text, size_t n_text) {
        CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
        size_t n = 0;

        if (fd < 0)
                return false;
        while (n < n_text - 1) {
                ssize_t k = read(fd, text + n, n_text - 1 - n);

                if (k <= 0)
                        break;
                n += (size_t)k;
        }
        text[n] = '\0';
        return n > 0;
}

/* The number behind `key` at the start of a line. Return: whether it is there. */
static bool find_number(const char *text, const char *key, uint64_t *ret) {
        size_t n = strlen(key);

        for (const char *line = text; line; line = strchr(line, '\n')) {
                char *end;

                line += *line == '\n';
                if (strncmp(line, key, n) != 0)
                        continue;
                *ret = strtoull(line + n, &end, 10);
                return end > line + n;
        }
        return false;
}

static bool read_number(const char *directory, const char *name, uint64_t *ret) {
        char path[PATH_MAX + 32];
        char text[64];

        (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
        return read_text(path, text, sizeof(text)) && find_number(text, "", ret);
}

/* -- where the groups are ------------------------------------------------------------ */

/* Is `word` one of the comma-separated words? */
static bool has_word(const char *words, const char *word) {
        size_t n = strlen(word);

        for (const char *at = words; at; at = strchr(at, ',')) {
                at += *at == ',';
                if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0' || at[n] == '\n'))
                        return true;
        }
        return false;
}

/* The process's path in the hierarchy of that version: a line "id:controllers:path". */
static bool own_path(bool unified, char *path, size_t n_path) {
        CLEANUP(fclosep) FILE *file = fopen("/proc/self/cgroup", "re");
        CLEANUP(freep) char *line = NULL;
        size_t n_line = 0;

        while (file && getline(&line, &n_line, file) > 0) {
                char *controllers = strchr(line, ':');
                char *at = controllers ? strchr(controllers + 1, ':') : NULL;

                if (!at)
                        continue;
                *at++ = '\0';
                if (unified ? strncmp(line, "0:", 2) != 0 || controllers[1] : !has_word(controllers + 1, "memory"))
                        continue;
                at[strcspn(at, "\n")] = '\0';
                return (size_t)snprintf(path, n_path, "%s", at) < n_path;
        }
        return false;
}

static bool is_octal(char c) {
        return c >= '0' && c <= '7';
}

/* mountinfo writes blanks and backslashes as \ooo. */
static void unescape(char *s) {
        char *to = s;

        while (*s) {
                if (s[0] == '\\' && is_octal(s[1]) && is_octal(s[2]) && is_octal(s[3])) {
                        *to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
                        s += 4;
                } else {
                        *to++ = *s++;
                }
        }
        *to = '\0';
}

/* Takes a line of mountinfo apart: "id parent dev root point options [fields] - type source super". */
static bool is_hierarchy(char *line, bool unified, char **ret_root, char **ret_point) {
        char *tail = strstr(line, " - ");
        char *save = NULL;
        char *type;

        if (!tail)
                return false;
        *tail = '\0';
        type = strtok_r(tail + 3, " ", &save);
        (void)strtok_r(NULL, " ", &save);
        if (!type || strcmp(type, unified ? "cgroup2" : "cgroup") != 0)
                return false;
        if (!unified && !has_word(save, "memory"))
                return false;

        for (unsigned int i = 0; i < 3; ++i)
                (void)strtok_r(i ? NULL : line, " ", &save);
        *ret_root = strtok_r(NULL, " ", &save);
        *ret_point = strtok_r(NULL, " ", &save);
        if (!*ret_root || !*ret_point)
                return false;
        unescape(*ret_root);
        unescape(*ret_point);
        return true;
}

/* What of the own path lies below the root of the mount: all of it, the rest behind the root, or,
 * if the path is outside of what is mounted here, nothing. */
static const char *below_root(const char *own, const char *root) {
        size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);

        if (strncmp(own, "/..", 3) == 0 || strncmp(own, root, n) != 0 || (own[n] != '/' && own[n] != '\0'))
                return "";
        return strcmp(own + n, "/") == 0 ? "" : own + n;
}

static void groups_init(RoomGroups *groups, bool unified) {
        CLEANUP(fclosep) FILE *file = NULL;
        CLEANUP(freep) char *line = NULL;
        char own[PATH_MAX];
        size_t n_line = 0;

        *groups = (RoomGroups){ .unified = unified };
        if (!own_path(unified, own, sizeof(own)))
                return;
        file = fopen("/proc/self/mountinfo", "re");
        while (file && getline(&line, &n_line, file) > 0) {
                char *root, *point;

                if (!is_hierarchy(line, unified, &root, &point))
                        continue;
                groups->n_mount = strlen(point);
                if ((size_t)snprintf(groups->path, sizeof(groups->path), "%s%s", point, below_root(own, root)) >=
                    sizeof(groups->path))
                        groups->path[0] = '\0';
                return;
        }
}

void room_init(Room *room) {
        groups_init(&room->groups[0], false);
        groups_init(&room->groups[1], true);
}

/* -- looking ------------------------------------------------------------------------- */

static uint64_t idle_bytes(const char *directory, bool unified) {
        char path[PATH_MAX + 32];
        char text[8192];
        uint64_t idle;

        (void)snprintf(path, sizeof(path), "%s/memory.stat", directory);
        if (!read_text(path, text, sizeof(text)) || !find_number(text, files[unified].idle, &idle))
                return 0;
        return idle;
}

/* A group without a limit ("max", or no such file) has room. memory.stat costs the kernel a walk
 * over every processor, so it is read only if it matters. */
static bool group_has(const char *directory, bool unified, uint64_t n) {
        uint64_t limit, usage, left;

        if (!read_number(directory, files[unified].limit, &limit) ||
            !read_number(directory, files[unified].usage, &usage))
                return true;
        left = limit > usage ? limit - usage : 0;
        if (left >= n)
                return true;
        /* What is used beyond the limit has to go before anything else has room. */
        if (usage > limit)
                n += usage - limit;
        return idle_bytes(directory, unified) >= n - left;
}

static bool groups_have(const RoomGroups *groups, uint64_t n) {
        char path[PATH_MAX];

        memcpy(path, groups->path, sizeof(path));
        while (path[0]) {
                char *slash;

                if (!group_has(path, groups->unified, n))
                        return false;
                slash = strrchr(path, '/');
                if (!slash || strlen(path) <= groups->n_mount)
                        return true;
                *slash = '\0';
        }
        return true;
}

static bool machine_has(uint64_t n) {
        char text[4096];
        uint64_t kib;

        if (!read_text("/proc/meminfo", text, sizeof(text)) || !find_number(text, "MemAvailable:", &kib))
                return true;
        return kib >= n / 1024;
}

bool room_has(const Room *room, uint64_t n) {
        return machine_has(n) && groups_have(&room->groups[0], n) && groups_have(&room->groups[1], n);
}
