/* Capacity: see the header for the model. */

#include "capacity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include "acct/quota.h"
#include "core/stock.h"
#include "util/error.h"
#include "util/fdstore.h"

/* Descriptors the broker needs for itself: the socket, epoll, inotify, signals, the log, the
 * service manager, the grants of one batch while it is being answered, and a stock of memory. */
#define OWN_DESCRIPTORS 192
/* Of them, what is kept beside regions: the state, policies that are and were in force, and that stock. */
#define KEPT_OWN (16 + STOCK_DESCRIPTORS)
/* What a user's keeper may park: most programs may have 1024 descriptors open, and then as many in flight. */
#define USER_PARKED 512
/* Below this there is no use in starting. */
#define DESCRIPTORS_MIN (OWN_DESCRIPTORS / 4)

int capacity_raise_descriptors(uint64_t *ret) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return error_origin(-errno);
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                return error_origin(-errno);
        *ret = limit.rlim_max;
        return 0;
}

/* -- memory --------------------------------------------------------------------------- */

static uint64_t read_limit(const char *directory, const char *file) {
        char path[4096];
        uintmax_t value;
        FILE *stream;
        int got;

        if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, file) >= sizeof(path))
                return UINT64_MAX;
        stream = fopen(path, "re");
        if (!stream)
                return UINT64_MAX;
        got = fscanf(stream, "%" SCNuMAX, &value);      /* "max" is not a number, and no limit */
        (void)fclose(stream);
        return got == 1 ? value : UINT64_MAX;
}

/* The lowest limit from a cgroup up to the root of its hierarchy. */
static uint64_t lowest_limit(const char *mount, const char *group, const char *file) {
        uint64_t lowest = UINT64_MAX;
        char path[2048];

        if ((size_t)snprintf(path, sizeof(path), "%s%s", mount, group) >= sizeof(path))
                return lowest;
        while (strlen(path) >= strlen(mount)) {
                uint64_t limit = read_limit(path, file);
                char *slash = strrchr(path, '/');

                if (limit < lowest)
                        lowest = limit;
                if (!slash)
                        break;
                *slash = '\0';
        }
        return lowest;
}

/* Both versions of cgroups, where distributions mount them (cgroups(7)). */
static uint64_t cgroup_memory(void) {
        uint64_t lowest = UINT64_MAX;
        char line[2048];
        FILE *stream = fopen("/proc/self/cgroup", "re");

        if (!stream)
                return lowest;
        while (fgets(line, sizeof(line), stream)) {
                char *controllers = strchr(line, ':'), *group;
                uint64_t limit = UINT64_MAX;

                line[strcspn(line, "\n")] = '\0';
                group = controllers ? strchr(controllers + 1, ':') : NULL;
                if (!group)
                        continue;
                *group++ = '\0';
                ++controllers;
                if (!*controllers)
                        limit = lowest_limit("/sys/fs/cgroup", group, "memory.max");
                else if (!strcmp(controllers, "memory"))
                        limit = lowest_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
                if (limit < lowest)
                        lowest = limit;
        }
        (void)fclose(stream);
        return lowest;
}

uint64_t capacity_memory(void) {
        uint64_t cgroup = cgroup_memory(), total = UINT64_MAX;
        struct sysinfo info;

        if (sysinfo(&info) == 0)
                total = (uint64_t)info.totalram * info.mem_unit;
        return (cgroup < total ? cgroup : total) / 2;
}

/* -- "auto" ----------------------------------------------------------------------------- */

static int impossible(Config *config, const char *key, uint64_t wanted, uint64_t possible, uint64_t descriptors) {
        (void)snprintf(config->message, sizeof(config->message),
                       "[global] %s=%" PRIu64 " is impossible: the limit of %" PRIu64 " descriptors (RLIMIT_NOFILE) "
                       "leaves room for %" PRIu64, key, wanted, descriptors, possible);
        return CAPACITY_E_IMPOSSIBLE;
}

/* Takes a slot's share out of what is left of the descriptors. */
static int take(Config *config, AccountSlot slot, const char *key, uint64_t share, uint64_t descriptors,
                uint64_t *left) {
        uint64_t *limit = &config->global[slot];

        if (*limit == CONFIG_AUTO)
                *limit = share;
        if (*limit == QUOTA_UNLIMITED || *limit > *left)
                return impossible(config, key, *limit, *left, descriptors);
        *left -= *limit;
        return 0;
}

uint64_t capacity_objects(uint64_t descriptors) {
        return descriptors - (descriptors / 4 < OWN_DESCRIPTORS ? descriptors / 4 : OWN_DESCRIPTORS);
}

bool capacity_has_stock(uint64_t descriptors) {
        return descriptors - capacity_objects(descriptors) == OWN_DESCRIPTORS;
}

uint64_t capacity_kept(uint64_t descriptors) {
        uint64_t objects = capacity_objects(descriptors), own = (descriptors - objects) / 4;

        return objects + (own < KEPT_OWN ? own : KEPT_OWN);
}

uint64_t capacity_parked(const Config *config, uint64_t descriptors, bool is_user) {
        uint64_t inflight = config->global[ACCOUNT_INFLIGHT], room = fdstore_flying_max(descriptors), most;

        if (inflight == CONFIG_AUTO)
                inflight = capacity_objects(descriptors) / 8;
        most = descriptors - room < inflight ? 0 : descriptors - room - inflight;
        return is_user && most > USER_PARKED ? USER_PARKED : most;
}

int capacity_resolve(Config *config, uint64_t descriptors, uint64_t memory) {
        uint64_t left = capacity_objects(descriptors);
        int r;

        if (descriptors < DESCRIPTORS_MIN) {
                (void)snprintf(config->message, sizeof(config->message),
                               "a limit of %" PRIu64 " descriptors (RLIMIT_NOFILE) is too low, %d are needed",
                               descriptors, DESCRIPTORS_MIN);
                return CAPACITY_E_IMPOSSIBLE;
        }
        if (config->global[ACCOUNT_BYTES] == CONFIG_AUTO)
                config->global[ACCOUNT_BYTES] = memory;

        r = take(config, ACCOUNT_PEERS, "peers", left / 8, descriptors, &left);
        if (!r)
                r = take(config, ACCOUNT_INFLIGHT, "inflight", left / 8, descriptors, &left);
        if (!r)
                r = take(config, ACCOUNT_REGIONS, "regions", left, descriptors, &left);
        return r;
}
