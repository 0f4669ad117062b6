/* Who has the regions of a broker: see the header for the model. */

#include "lib/census.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the kernel calls them: memfd_create(2) adds the first word, and a memfd has no other name. */
#define REGION_NAME "/memfd:shmd:"

static Seen *find_or_add(Census *census, uint64_t inode) {
        Seen *seen = (Seen *)census_find(census, inode);

        if (seen)
                return seen;
        if (census->n == census->n_room) {
                census->n_room = census->n_room ? 2 * census->n_room : 64;
                census->seen = realloc(census->seen, census->n_room * sizeof(*census->seen));
                REQUIRE(census->seen);
        }
        seen = &census->seen[census->n++];
        *seen = (Seen){ .inode = inode };
        return seen;
}

/* Notes what stat(2) says of a path, which leads to a region. Return: NULL if it does not say. */
static Seen *see_path(Census *census, const char *path) {
        struct stat st;
        Seen *seen;

        if (stat(path, &st) < 0)
                return NULL;
        seen = find_or_add(census, st.st_ino);
        seen->size = (uint64_t)st.st_size;
        seen->allocated = (uint64_t)st.st_blocks * 512;
        return seen;
}

/* Return: the number in the name of a region, 0 if it is the name of something else. */
static uint64_t id_in(const char *name) {
        const char *at = strstr(name, REGION_NAME);

        return at ? strtoull(at + sizeof(REGION_NAME) - 1, NULL, 16) : 0;
}

static uint64_t id_behind(const char *link) {
        char target[64];
        ssize_t n = readlink(link, target, sizeof(target) - 1);

        target[n > 0 ? n : 0] = '\0';
        return id_in(target);
}

static void look_at_descriptors(Census *census, pid_t pid) {
        char path[512];
        struct dirent *entry;
        DIR *dir;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        dir = opendir(path);
        if (!dir) {
                REQUIRE(errno == ENOENT || errno == ESRCH, "%s: %s", path, strerror(errno));
                return;
        }
        while ((entry = readdir(dir))) {
                uint64_t id;
                Seen *seen;

                (void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
                id = id_behind(path);
                seen = id ? see_path(census, path) : NULL;
                if (!seen)
                        continue;
                seen->id = id;
                ++seen->n_open;
        }
        (void)closedir(dir);
}

/* A line of maps has the inode, and how far the mapping goes; its link in map_files, which not every
 * root may follow, has the exact size as well. */
static void look_at_mapping(Census *census, pid_t pid, const char *line) {
        uint64_t from, to, offset, inode;
        char path[128];
        Seen *seen;

        if (id_in(line) == 0 ||
            sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %" SCNu64, &from, &to, &offset, &inode) != 4)
                return;
        (void)snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid, from, to);
        seen = see_path(census, path);
        if (!seen)
                seen = find_or_add(census, inode);
        if (seen->size == 0)
                seen->size = offset + to - from;
        seen->id = id_in(line);
        ++seen->n_mapped;
}

static void look_at_mappings(Census *census, pid_t pid) {
        char path[64], *line = NULL;
        size_t n = 0;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
        file = fopen(path, "re");
        if (!file) {
                REQUIRE(errno == ENOENT || errno == ESRCH, "%s: %s", path, strerror(errno));
                return;
        }
        while (getline(&line, &n, file) > 0)
                look_at_mapping(census, pid, line);
        free(line);
        (void)fclose(file);
}

void census_look_at(Census *census, pid_t pid) {
        look_at_descriptors(census, pid);
        look_at_mappings(census, pid);
}

void census_look_at_group(Census *census, pid_t group) {
        DIR *dir = opendir("/proc");
        struct dirent *entry;

        REQUIRE(dir);
        while ((entry = readdir(dir))) {
                pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

                if (pid > 0 && getpgid(pid) == group)
                        census_look_at(census, pid);
        }
        (void)closedir(dir);
}

const Seen *census_find(const Census *census, uint64_t inode) {
        for (size_t i = 0; i < census->n; ++i)
                if (census->seen[i].inode == inode)
                        return &census->seen[i];
        return NULL;
}

void census_deinit(Census *census) {
        free(census->seen);
        *census = (Census)CENSUS_NULL;
}
