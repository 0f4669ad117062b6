/* Mapping a region.
 *
 * What the broker promised is compared with what the kernel says before anything is mapped: a
 * region of the promised size that can neither shrink nor grow has no access in it that raises
 * SIGBUS for want of a page of the file.
 *
 * Populating goes by what is there. Pages that exist are mapped by reading, which for shared
 * memory makes them writable too and takes whole runs at a time; holes are allocated by writing.
 * Both are one madvise(2) for each run, and where the kernel has no MADV_POPULATE_* (before 5.14)
 * a touch of each page.
 */

#include "buildinfo.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "client/client.h"
#include "client/options.h"
#include "client/region.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define FLAGS_KNOWN \
        (SHMD_MAP_POPULATE | SHMD_MAP_HUGE | SHMD_MAP_DONTDUMP | SHMD_MAP_READ_ONLY | SHMD_MAP_PRIVATE)

#define NODE_DIRECTORY "/sys/devices/system/node"

typedef struct Mapping {
        int fd;
        int protection;
        int flags;              /* of mmap(2) */
        uint64_t offset;
        size_t length;
        char *address;
} Mapping;

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

/* -- populating ---------------------------------------------------------------------- */

static void touch(char *address, size_t length, bool writing) {
        size_t page_size = (size_t)sysconf(_SC_PAGESIZE);

        for (size_t at = 0; at < length; at += page_size) {
                /* Adding nothing: others may be writing the same bytes. */
                if (writing)
                        (void)__atomic_fetch_add(address + at, 0, __ATOMIC_RELAXED);
                else
                        (void)__atomic_load_n(address + at, __ATOMIC_RELAXED);
        }
}

static int populate_run(const Mapping *mapping, uint64_t from, uint64_t to, bool writing) {
        char *address = mapping->address + (from - mapping->offset);
        size_t length = (size_t)(to - from);
        int r;

        if (from == to)
                return 0;
        do
                r = madvise(address, length, writing ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) < 0 ? -errno : 0;
        while (r == -EINTR);

        switch (r) {
        case -EINVAL:
                touch(address, length, writing);
                return 0;
        case -EFAULT:           /* where a touch would have raised SIGBUS: huge pages ran out */
        case -EHWPOISON:
                return -ENOMEM;
        default:
                return r;
        }
}

/* Where the next run of data (or, with SEEK_HOLE, of nothing) starts; `end` if there is none. */
static uint64_t seek_run(int fd, uint64_t from, uint64_t end, int whence) {
        off_t at = lseek(fd, (off_t)from, whence);

        return at < 0 || (uint64_t)at > end ? end : (uint64_t)at;
}

static int populate_runs(const Mapping *mapping) {
        uint64_t end = mapping->offset + mapping->length;
        uint64_t at = mapping->offset;

        while (at < end) {
                uint64_t data = seek_run(mapping->fd, at, end, SEEK_DATA);
                uint64_t hole = data < end ? seek_run(mapping->fd, data, end, SEEK_HOLE) : end;
                int r;

                r = populate_run(mapping, at, data, true);
                if (r)
                        return r;
                r = populate_run(mapping, data, hole, false);
                if (r)
                        return r;
                at = hole;
        }
        return 0;
}

/* Reading is all that a mapping without the right to write can do, and all that is right for a
 * private one, where writing would make a copy. */
static int populate(const Mapping *mapping) {
        off_t position;
        int r;

        if (!(mapping->protection & PROT_WRITE) || mapping->flags == MAP_PRIVATE)
                return populate_run(mapping, mapping->offset, mapping->offset + mapping->length, false);

        /* The grant's file offset is the caller's. */
        position = lseek(mapping->fd, 0, SEEK_CUR);
        r = populate_runs(mapping);
        if (position >= 0)
                (void)lseek(mapping->fd, position, SEEK_SET);
        return r;
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
        return options->flags & SHMD_MAP_POPULATE ? populate(mapping) : 0;
}

static int map(Mapping *mapping, const struct shmd_map_options *options) {
        int r;

        mapping->address = mmap(NULL, mapping->length, mapping->protection, mapping->flags, mapping->fd,
                                (off_t)mapping->offset);
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
