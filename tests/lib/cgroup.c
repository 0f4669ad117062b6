/* Memory cgroups: see the header. */

#include "lib/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/test.h"

#define MOUNTS "/proc/self/mounts"
/* The longest name of a file in a group that is asked for here, and then some. */
#define FILE_MAX 32

typedef struct FilePath {
        char text[sizeof((Cgroup *)NULL)->path + FILE_MAX];
} FilePath;

static FilePath file_in(const char *directory, const char *name) {
        FilePath path;
        int n = snprintf(path.text, sizeof(path.text), "%s/%s", directory, name);

        REQUIRE(n > 0 && (size_t)n < sizeof(path.text), "%s/%s", directory, name);
        return path;
}

static bool write_text(const char *directory, const char *name, const char *text) {
        FilePath path = file_in(directory, name);
        CLEANUP(close_fdp) int fd = open(path.text, O_WRONLY | O_CLOEXEC);

        return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static bool controls_memory(const struct mntent *mount, bool *ret_unified) {
        *ret_unified = strcmp(mount->mnt_type, "cgroup2") == 0;
        if (*ret_unified)
                return write_text(mount->mnt_dir, "cgroup.subtree_control", "+memory");
        return strcmp(mount->mnt_type, "cgroup") == 0 && hasmntopt(mount, "memory");
}

/* Leaves a template for the name of a new group. Return: whether there is a place for one. */
static bool find_place(Cgroup *cgroup) {
        FILE *mounts = setmntent(MOUNTS, "re");
        struct mntent *mount;
        bool found = false;

        REQUIRE(mounts != NULL, MOUNTS ": %s", strerror(errno));
        while (!found && (mount = getmntent(mounts))) {
                found = controls_memory(mount, &cgroup->unified);
                (void)snprintf(cgroup->path, sizeof(cgroup->path), "%s/shmd-test-XXXXXX", mount->mnt_dir);
        }
        (void)endmntent(mounts);
        if (!found)
                errno = ENOENT;
        return found;
}

/* Whoever is in it may be nobody in particular, and reads what it has. */
static bool make(char *template) {
        return mkdtemp(template) && chmod(template, 0755) == 0;
}

bool cgroup_begin(Cgroup *cgroup) {
        return find_place(cgroup) && make(cgroup->path);
}

bool cgroup_begin_in(Cgroup *cgroup, const Cgroup *outer) {
        int n = snprintf(cgroup->path, sizeof(cgroup->path), "%s/XXXXXX", outer->path);

        REQUIRE(n > 0 && (size_t)n < sizeof(cgroup->path), "%s", outer->path);
        cgroup->unified = outer->unified;
        return (!outer->unified || write_text(outer->path, "cgroup.subtree_control", "+memory")) && make(cgroup->path);
}

/* It is busy for a moment after its last process has been waited for. */
static bool is_removed(void *path) {
        return rmdir(path) == 0 || errno == ENOENT;
}

void cgroup_end(Cgroup *cgroup) {
        REQUIRE(test_eventually(is_removed, cgroup->path), "%s: %s", cgroup->path, strerror(errno));
}

void cgroup_limit(const Cgroup *cgroup, uint64_t bytes) {
        char text[32];

        (void)snprintf(text, sizeof(text), "%" PRIu64, bytes);
        REQUIRE(write_text(cgroup->path, cgroup->unified ? "memory.max" : "memory.limit_in_bytes", text), "%s: %s",
                cgroup->path, strerror(errno));
}

void cgroup_enter(const Cgroup *cgroup) {
        REQUIRE(write_text(cgroup->path, "cgroup.procs", "0"), "%s: %s", cgroup->path, strerror(errno));
}

uint64_t cgroup_usage(const Cgroup *cgroup) {
        return test_read_number(file_in(cgroup->path, cgroup->unified ? "memory.current" : "memory.usage_in_bytes").text);
}

uint64_t cgroup_peak(const Cgroup *cgroup) {
        return test_read_number(file_in(cgroup->path, cgroup->unified ? "memory.peak" : "memory.max_usage_in_bytes").text);
}
