/* Mapping a region.
 *
 * What the broker promised is compared with what the kernel says before anything is mapped: a
 * region of the promised size that can neither shrink nor grow has no access in it that raises
 * SIGBUS for want of a page of the file.
 *
 * A huge page is mapped as one only where address and offset are the same, modulo its size. The
 * kernel sees to that where the system's setting gives shared memory huge pages by itself, and not
 * where they are asked for; so we do. How pages come to be there is in mapping.h.
 */

#include "buildinfo.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "client/client.h"
#include "client/mapping.h"
#include "client/options.h"
#include "client/region.h"

#define FLAGS_KNOWN \
        (SHMD_MAP_POPULATE | SHMD_MAP_HUGE | SHMD_MAP_DONTDUMP | SHMD_MAP_READ_ONLY | SHMD_MAP_PRIVATE)

#define NODE_DIRECTORY "/sys/devices/system/node"

/* -- what is asked for --------------------------------------------------------------- */

static int check_options(const struct shmd_map_options *options) {
        uint64_t nodes = options->numa_nodes;

        if (options->flags & ~(uint32_t)FLAGS_KNOWN)
                return -EINVAL;
        switch (options->numa) {
        case SHMD_NUMA_DEFAULT:
                return nodes ? -EINVAL : 0;
        case SHMD_NUMA_BIND:
        case SHMD_NUMA_INTERLEAVE:
                return nodes ? 0 : -EINVAL;
        case SHMD_NUMA_PREFERRED:
                return nodes && !(nodes & (nodes - 1)) ? 0 : -EINVAL;
        default:
                return -EINVAL;
        }
}

/* A part starts at a page and ends at one, or where the region does. */
static int decide_bounds(const shmd_region *region, const struct shmd_map_options *options, Mapping *mapping) {
        uint64_t offset = options->offset;
        uint64_t length = options->length;

        if (offset >= region->size || offset % region->page_size)
                return -EINVAL;
        if (length == 0)
                length = region->size - offset;
        if (length > region->size - offset)
                return -EINVAL;
        if (length % region->page_size && length != region->size - offset)
                return -EINVAL;
        if (length > SIZE_MAX || length > PTRDIFF_MAX)
                return -ENOMEM;
        mapping->offset = offset;
        mapping->length = (size_t)length;
        return 0;
}

static void decide_protection(const shmd_region *region, const struct shmd_map_options *options, Mapping *mapping) {
        bool private = options->flags & SHMD_MAP_PRIVATE;
        bool writable = private || region->rights == SHMD_RIGHTS_READ_WRITE;

        if (options->flags & SHMD_MAP_READ_ONLY)
                writable = false;
        mapping->protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
        mapping->flags = private ? MAP_PRIVATE : MAP_SHARED;
}

/* -- NUMA ---------------------------------------------------------------------------- */

/* The kernel takes a set of which at least one node exists; we promise that each one does. */
static int check_nodes(uint64_t nodes) {
        if (access(NODE_DIRECTORY, F_OK) < 0)
                return 0;       /* no NUMA, or no sysfs: mbind(2) will say */
        for (unsigned int node = 0; node < 64; ++node) {
                char path[sizeof(NODE_DIRECTORY) + 16];

                if (!(nodes >> node & 1))
                        continue;
                (void)snprintf(path, sizeof(path), NODE_DIRECTORY "/node%u", node);
                if (access(path, F_OK) < 0 && errno == ENOENT)
                        return -EINVAL;
        }
        return 0;
}

static int set_policy(const Mapping *mapping, const struct shmd_map_options *options) {
        static const int modes[] = {
                [SHMD_NUMA_BIND]       = MPOL_BIND,
                [SHMD_NUMA_PREFERRED]  = MPOL_PREFERRED,
                [SHMD_NUMA_INTERLEAVE] = MPOL_INTERLEAVE,
        };
        /* One word or two of them: the mask is of long. */
        unsigned long nodes[] = { (unsigned long)options->numa_nodes, (unsigned long)(options->numa_nodes >> 32) };
        int r;

        if (options->numa == SHMD_NUMA_DEFAULT)
                return 0;
        r = check_nodes(options->numa_nodes);
        if (r)
                return r;

        /* mbind(2) counts one bit more than it reads. */
        if (syscall(SYS_mbind, mapping->address, mapping->length, modes[options->numa], nodes, 65UL, 0U) == 0)
                return 0;
        return errno == EINVAL || errno == ENOMEM ? -errno : 0;
}

/* -- huge pages ---------------------------------------------------------------------- */

/* MADV_COLLAPSE takes its pages from anywhere, so not where a policy is asked for. */
static void decide_huge(const shmd_region *region, const struct shmd_map_options *options, Mapping *mapping) {
        if (!(options->flags & SHMD_MAP_HUGE) || region->page_size != (uint64_t)sysconf(_SC_PAGESIZE))
                return;
        mapping->huge = huge_page_bytes();
        if (mapping->length < mapping->huge)
                mapping->huge = 0;
        mapping->collapse = mapping->huge && options->numa == SHMD_NUMA_DEFAULT;
}

/* Where there is room, now, for the mapping at an address that suits huge pages: looked for by
 * taking so much more that such an address is in it, and giving that back. NULL: none known. */
static void *suggest_address(const Mapping *mapping) {
        size_t length;
        char *room;

        if (!mapping->huge || __builtin_add_overflow(mapping->length, mapping->huge, &length))
                return NULL;
        room = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED)
                return NULL;
        (void)munmap(room, length);
        return room + (mapping->offset - (uintptr_t)room) % mapping->huge;
}

/* -- together ------------------------------------------------------------------------ */

static int advise(const Mapping *mapping, const struct shmd_map_options *options) {
        int r;

        if (options->flags & SHMD_MAP_DONTDUMP && madvise(mapping->address, mapping->length, MADV_DONTDUMP) < 0)
                return -errno;
        /* Before the first page: policy and advice are for pages to come. */
        if (options->flags & SHMD_MAP_HUGE)
                (void)madvise(mapping->address, mapping->length, MADV_HUGEPAGE);
        r = set_policy(mapping, options);
        if (r)
                return r;
        return options->flags & SHMD_MAP_POPULATE ? mapping_populate(mapping) : 0;
}

static int map(Mapping *mapping, const struct shmd_map_options *options) {
        int r;

        /* Should the room be taken meanwhile, the kernel chooses another. */
        mapping->address = mmap(suggest_address(mapping), mapping->length, mapping->protection, mapping->flags,
                                mapping->fd, (off_t)mapping->offset);
        if (mapping->address == MAP_FAILED)
                return errno == EPERM ? -EACCES : -errno;       /* EPERM: a seal forbids writing */
        r = advise(mapping, options);
        if (r)
                (void)munmap(mapping->address, mapping->length);
        return r;
}

int shmd_map(shmd_region *region, const struct shmd_map_options *options, void **ret_address, size_t *ret_length) {
        KEEP_ERRNO;
        struct shmd_map_options o = SHMD_MAP_OPTIONS_INIT;
        Mapping mapping = { 0 };
        int r;

        if (!region || (options && !options_read(&o, sizeof(o), sizeof(o), options)))
                return -EINVAL;
        if (region->fd < 0)
                return -EBADF;
        r = check_options(&o);
        if (r)
                return r;
        r = decide_bounds(region, &o, &mapping);
        if (r)
                return r;
        r = region_check(region);
        if (r)
                return r;
        decide_protection(region, &o, &mapping);
        decide_huge(region, &o, &mapping);
        mapping.fd = region->fd;
        r = map(&mapping, &o);
        if (r)
                return r;

        *ret_address = mapping.address;
        *ret_length = mapping.length;
        return 0;
}

int shmd_unmap(void *address, size_t length) {
        KEEP_ERRNO;

        return munmap(address, length) < 0 ? -errno : 0;
}
