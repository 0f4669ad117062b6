/* Which pages of a region are where: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/pages.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Into how many parts a mixed part is divided. */
#define PARTS 512
/* At most so much is mapped at once. */
#define MAP_MAX (UINT64_C(1) << 40)

typedef struct Walk {
        int fd;
        uint64_t page_size;
        PagesFn fn;
        void *userdata;
        PagesState state;       /* of the run that is not over yet: */
        uint64_t offset;
        uint64_t length;        /* 0: none */
} Walk;

const char *pages_state_name(PagesState state) {
        static const char *const names[] = {
                [PAGES_HOLE]     = "hole",
                [PAGES_RESIDENT] = "resident",
                [PAGES_SWAPPED]  = "swapped",
                [PAGES_UNKNOWN]  = "unknown",
        };

        return names[state];
}

static uint64_t round_up(uint64_t n, uint64_t page_size) {
        return (n + page_size - 1) / page_size * page_size;
}

/* -- runs ---------------------------------------------------------------------------------------- */

static void end_run(Walk *walk) {
        if (walk->length > 0)
                walk->fn(walk->userdata, walk->state, walk->offset, walk->length);
        walk->length = 0;
}

static void add(Walk *walk, PagesState state, uint64_t offset, uint64_t length) {
        if (walk->length > 0 && walk->state == state) {
                walk->length += length;
                return;
        }
        end_run(walk);
        walk->state = state;
        walk->offset = offset;
        walk->length = length;
}

/* -- what is swapped ---------------------------------------------------------------------------- */

/* A mapping, divided into parts that the kernel keeps apart because every second has a flag. */
typedef struct Parts {
        uintptr_t start;
        uint64_t length;
        uint64_t part;          /* bytes of each; the last may be shorter */
        uint64_t swapped[PARTS];
} Parts;

static uint64_t parts_n(const Parts *parts) {
        return (parts->length + parts->part - 1) / parts->part;
}

static uint64_t part_length(const Parts *parts, uint64_t i) {
        uint64_t left = parts->length - i * parts->part;

        return left < parts->part ? left : parts->part;
}

/* Reads "Swap:" of those lines of smaps that are about the mapping. Return: whether all were there. */
static bool read_smaps(Parts *parts) {
        FILE *smaps = fopen("/proc/self/smaps", "re");
        uint64_t i = UINT64_MAX, n = 0;
        size_t n_line = 0;
        char *line = NULL;

        while (smaps && getline(&line, &n_line, smaps) > 0) {
                unsigned long from, to, kib;

                if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
                        i = from >= parts->start && to <= parts->start + parts->length ?
                            (from - parts->start) / parts->part : UINT64_MAX;
                else if (i < PARTS && sscanf(line, "Swap: %lu kB", &kib) == 1) {
                        parts->swapped[i] = (uint64_t)kib * 1024;
                        ++n;
                }
        }
        free(line);
        if (smaps)
                (void)fclose(smaps);
        return n == parts_n(parts);
}

static bool divide(const Parts *parts) {
        for (uint64_t i = 1; i < parts_n(parts); i += 2)
                if (madvise((void *)(parts->start + i * parts->part), part_length(parts, i), MADV_DONTFORK) < 0)
                        return false;
        return true;
}

/* Finds how much of each part is swapped. Return: false if the kernel does not say. */
static bool parts_look(Parts *parts, int fd, uint64_t offset) {
        void *map = mmap(NULL, parts->length, PROT_READ, MAP_SHARED, fd, (off_t)offset);
        bool done;

        if (map == MAP_FAILED)
                return false;
        parts->start = (uintptr_t)map;
        done = divide(parts) && read_smaps(parts);
        (void)munmap(map, parts->length);
        return done;
}

/* -- walking -------------------------------------------------------------------------------------- */

/* Divides a part that has data everywhere until each part of it is of one kind. */
static void look_at(Walk *walk, uint64_t offset, uint64_t length) {
        uint64_t pages = length / walk->page_size;
        CLEANUP(freep) Parts *parts = calloc(1, sizeof(*parts));

        if (parts)
                *parts = (Parts){ .length = length, .part = (pages + PARTS - 1) / PARTS * walk->page_size };
        if (!parts || !parts_look(parts, walk->fd, offset)) {
                add(walk, PAGES_UNKNOWN, offset, length);
                return;
        }
        for (uint64_t i = 0; i < parts_n(parts); ++i) {
                uint64_t at = offset + i * parts->part, n = part_length(parts, i);

                if (parts->swapped[i] == 0)
                        add(walk, PAGES_RESIDENT, at, n);
                else if (parts->swapped[i] >= n || n <= walk->page_size)
                        add(walk, PAGES_SWAPPED, at, n);
                else
                        look_at(walk, at, n);
        }
}

/* Pages that exist. */
static void walk_data(Walk *walk, uint64_t offset, uint64_t length, bool swappable) {
        if (!swappable) {
                add(walk, PAGES_RESIDENT, offset, length);
                return;
        }
        for (uint64_t n; length > 0; offset += n, length -= n) {
                n = length < MAP_MAX ? length : MAP_MAX;
                look_at(walk, offset, n);
        }
}

/* Huge pages are never swapped, and of their holes the kernel tells only how many there are. */
static int walk_huge(Walk *walk, uint64_t size) {
        struct stat st;
        uint64_t allocated;

        if (fstat(walk->fd, &st) < 0)
                return -errno;
        allocated = (uint64_t)st.st_blocks * 512;
        add(walk, allocated == 0 ? PAGES_HOLE : allocated >= size ? PAGES_RESIDENT : PAGES_UNKNOWN, 0, size);
        return 0;
}

/* Whether anything of it is swapped at all, which is rare; true also if the kernel does not say. */
static bool has_swapped(int fd, uint64_t size) {
        CLEANUP(freep) Parts *parts = calloc(1, sizeof(*parts));

        if (!parts || size > MAP_MAX)
                return true;
        parts->length = parts->part = size;
        return !parts_look(parts, fd, 0) || parts->swapped[0] > 0;
}

static int walk_pages(Walk *walk, uint64_t size) {
        bool swappable = has_swapped(walk->fd, size);
        uint64_t at = 0;

        while (at < size) {
                off_t data = lseek(walk->fd, (off_t)at, SEEK_DATA), hole;

                if (data < 0 && errno != ENXIO)
                        return -errno;
                if (data < 0 || (uint64_t)data >= size)
                        break;
                hole = lseek(walk->fd, data, SEEK_HOLE);
                if (hole < 0)
                        return -errno;
                hole = (off_t)round_up((uint64_t)hole, walk->page_size);
                if ((uint64_t)data > at)
                        add(walk, PAGES_HOLE, at, (uint64_t)data - at);
                walk_data(walk, (uint64_t)data, (uint64_t)(hole - data), swappable);
                at = (uint64_t)hole;
        }
        if (at < size)
                add(walk, PAGES_HOLE, at, size - at);
        return 0;
}

int pages_walk(int fd, uint64_t size, uint64_t page_size, PagesFn fn, void *userdata) {
        Walk walk = { .fd = fd, .page_size = page_size, .fn = fn, .userdata = userdata };
        int r;

        if (size == 0)
                return 0;
        /* The last page is whole, however little of it is the region's. */
        size = round_up(size, page_size);
        r = page_size > (uint64_t)sysconf(_SC_PAGESIZE) ? walk_huge(&walk, size) : walk_pages(&walk, size);
        if (r == 0)
                end_run(&walk);
        return r;
}

static void count(void *userdata, PagesState state, uint64_t offset, uint64_t length) {
        PagesTotals *totals = userdata;

        totals->bytes[state] += length;
}

int pages_allocated(int fd, PagesTotals *ret) {
        struct stat st;

        *ret = (PagesTotals){ .allocated = 0 };
        if (fstat(fd, &st) < 0)
                return -errno;
        ret->allocated = (uint64_t)st.st_blocks * 512;
        return 0;
}

int pages_count(int fd, uint64_t size, uint64_t page_size, PagesTotals *ret) {
        int r = pages_allocated(fd, ret);

        return r ? r : pages_walk(fd, size, page_size, count, ret);
}

uint64_t pages_ahead(const PagesTotals *totals) {
        uint64_t written = totals->bytes[PAGES_RESIDENT] + totals->bytes[PAGES_SWAPPED] + totals->bytes[PAGES_UNKNOWN];

        return totals->allocated > written ? totals->allocated - written : 0;
}
