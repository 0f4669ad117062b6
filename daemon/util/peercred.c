/* Who is at the other end: see the header for the model. */

#include "util/peercred.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "util/error.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77         /* Linux 6.5 */
#endif

/* Before pidfs (6.9) all pidfds share one inode, which names nobody. */
#define PIDFS_MAGIC 0x50494446

/* Linux allows 65,536 supplementary groups (NGROUPS_MAX). The list can not change after connect,
 * so one retry with the size the kernel asked for is enough. */
#define GROUPS_BYTES_MAX (65536 * sizeof(gid_t))

/* A namespace that does not map all ids shows every other one as the overflow id. */
typedef struct IdMap {
        bool partial;
        uint32_t overflow;
} IdMap;

static struct {
        IdMap uids;
        IdMap gids;
} setup = { { .overflow = 65534 }, { .overflow = 65534 } };

/* Reads up to three numbers from the first line of a file. Return: how many there were. */
static size_t read_numbers(const char *path, uintmax_t ret[static 3]) {
        FILE *file = fopen(path, "re");
        int n;

        if (!file)
                return 0;
        n = fscanf(file, "%" SCNuMAX " %" SCNuMAX " %" SCNuMAX, &ret[0], &ret[1], &ret[2]);
        (void)fclose(file);
        return n < 0 ? 0 : (size_t)n;
}

static void read_map(IdMap *map, const char *map_path, const char *overflow_path) {
        uintmax_t numbers[3];

        /* user_namespaces(7): first id inside, first outside, how many. */
        map->partial = read_numbers(map_path, numbers) == 3 && numbers[2] < UINT32_MAX;
        if (read_numbers(overflow_path, numbers) >= 1)
                map->overflow = (uint32_t)numbers[0];
}

void peercred_setup(void) {
        read_map(&setup.uids, "/proc/self/uid_map", "/proc/sys/kernel/overflowuid");
        read_map(&setup.gids, "/proc/self/gid_map", "/proc/sys/kernel/overflowgid");
}

static bool is_unmapped(const IdMap *map, uint32_t id) {
        return map->partial && id == map->overflow;
}

static int compare_groups(const void *a, const void *b) {
        gid_t x = *(const gid_t *)a, y = *(const gid_t *)b;

        return x < y ? -1 : x > y;
}

/* The kernel sorts them by what they are outside of any namespace, and nearly always that is it. */
static void sort_groups(gid_t *groups, size_t n) {
        for (size_t i = 1; i < n; ++i)
                if (groups[i - 1] > groups[i]) {
                        qsort(groups, n, sizeof(gid_t), compare_groups);
                        return;
                }
}

static int read_groups(int fd, Peercred *cred) {
        gid_t few[64];
        CLEANUP(freep) gid_t *groups = NULL;
        socklen_t n = sizeof(few);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &n) == 0) {
                if (n == 0)
                        return 0;
                groups = malloc(n);
                if (!groups)
                        return error_origin(-ENOMEM);
                for (size_t i = 0; i < n / sizeof(gid_t); ++i)
                        groups[i] = few[i];
        } else {
                if (errno != ERANGE || n > GROUPS_BYTES_MAX)
                        return error_origin(-errno);
                groups = malloc(n);
                if (!groups)
                        return error_origin(-ENOMEM);
                if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n) < 0)
                        return error_origin(-errno);
        }

        sort_groups(groups, n / sizeof(gid_t));
        cred->groups = groups;
        cred->n_groups = n / sizeof(gid_t);
        groups = NULL;
        return 0;
}

/* The inode number of the peer's pidfd: unique since boot on kernels with pidfs. A kernel without
 * the option (ENOPROTOOPT), or without a descriptor to spare, gives no number: it is for telling
 * people who somebody was, never for deciding. */
static uint64_t read_pidfd_ino(int fd) {
        CLEANUP(close_fdp) int pidfd = -1;
        socklen_t n = sizeof(pidfd);
        struct statfs fs;
        struct stat st;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n) < 0) {
                pidfd = -1;
                return 0;
        }
        if (fstatfs(pidfd, &fs) < 0 || fs.f_type != PIDFS_MAGIC || fstat(pidfd, &st) < 0)
                return 0;
        return st.st_ino;
}

int peercred_read(int fd, Peercred *ret) {
        Peercred cred = PEERCRED_NULL;
        struct ucred ucred;
        socklen_t n = sizeof(ucred);
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ucred, &n) < 0)
                return error_origin(-errno);
        if (n != sizeof(ucred) || ucred.uid == (uid_t)-1 || ucred.gid == (gid_t)-1)
                return PEERCRED_E_GONE;
        if (is_unmapped(&setup.uids, ucred.uid) || is_unmapped(&setup.gids, ucred.gid))
                return PEERCRED_E_UNMAPPED;

        cred.uid = ucred.uid;
        cred.gid = ucred.gid;
        cred.pid = ucred.pid;
        r = read_groups(fd, &cred);
        if (r)
                return r;
        cred.pidfd_ino = read_pidfd_ino(fd);

        *ret = cred;
        return 0;
}

void peercred_deinit(Peercred *cred) {
        free(cred->groups);
        *cred = (Peercred)PEERCRED_NULL;
}

bool peercred_in_group(const Peercred *cred, gid_t gid) {
        if (cred->gid == gid)
                return true;
        for (size_t i = 0; i < cred->n_groups; ++i)
                if (cred->groups[i] == gid)
                        return true;
        return false;
}
