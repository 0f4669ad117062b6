/* Region handles: see the header for the model. */

#include "buildinfo.h"

#include "client/region.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "client/client.h"

#define SEALS_NEEDED (F_SEAL_SHRINK | F_SEAL_GROW)

int page_size_decode(uint32_t log2, uint64_t *ret) {
        if (log2 >= 64)
                return -EPROTO;
        *ret = log2 ? UINT64_C(1) << log2 : (uint64_t)sysconf(_SC_PAGESIZE);
        return 0;
}

int region_new_consume_fd(shmd_region **ret, const Shmd__Granted *granted, int fd_consumed) {
        CLEANUP(close_fdp) int fd = fd_consumed;
        CLEANUP(shmd_region_freep) shmd_region *region = NULL;
        int r;

        region = malloc(sizeof(*region));
        if (!region)
                return -ENOMEM;
        *region = (shmd_region){
                .fd = -1,
                .rights = granted->rights,
                .id = granted->region,
                .size = granted->size,
                .created = granted->outcome == SHMD__OUTCOME__OUTCOME_CREATED,
        };
        r = page_size_decode(granted->huge_page_size, &region->page_size);
        if (r)
                return r;

        region->fd = steal_fd(&fd);
        *ret = region;
        region = NULL;
        return 0;
}

int region_check(shmd_region *region) {
        struct stat st;
        int seals;

        if (region->checked)
                return 0;
        seals = fcntl(region->fd, F_GET_SEALS);
        if (seals < 0)
                return errno == EBADF ? -EBADF : -EPROTO;
        if ((seals & SEALS_NEEDED) != SEALS_NEEDED)
                return -EPROTO;
        if (fstat(region->fd, &st) < 0)
                return -errno;
        if ((uint64_t)st.st_size != region->size)
                return -EPROTO;
        region->checked = true;
        return 0;
}

shmd_region *shmd_region_free(shmd_region *region) {
        if (!region)
                return NULL;
        region->fd = close_fd(region->fd);
        free(region);
        return NULL;
}

int shmd_region_fd(const shmd_region *region) {
        return region && region->fd >= 0 ? region->fd : -EBADF;
}

int shmd_region_steal_fd(shmd_region *region) {
        return region && region->fd >= 0 ? steal_fd(&region->fd) : -EBADF;
}

uint64_t shmd_region_id(const shmd_region *region) {
        return region->id;
}

uint64_t shmd_region_size(const shmd_region *region) {
        return region->size;
}

uint64_t shmd_region_page_size(const shmd_region *region) {
        return region->page_size;
}

uint32_t shmd_region_rights(const shmd_region *region) {
        return region->rights;
}

bool shmd_region_created(const shmd_region *region) {
        return region->created;
}
