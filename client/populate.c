/* Populating a mapping (see mapping.h). */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "client/mapping.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define AROUND_BYTES ((size_t)64 << 10)         /* what one fault by reading maps, as kernels are set */
#define LOOK_PAGES ((size_t)512)                /* the pages of one look into pagemap */
#define COLLAPSE_TRIES 3
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PMD_SIZE_FILE "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"

typedef struct Populate {
        const Mapping *mapping;
        bool writing;           /* holes are written; else all that can be done is read */
        int pagemap_fd;         /* -1: there is no knowing what is mapped */
        size_t page;            /* bytes of the system's page */
} Populate;

size_t huge_page_bytes(void) {
        CLEANUP(close_fdp) int fd = open(PMD_SIZE_FILE, O_RDONLY | O_CLOEXEC);
        char text[24];
        size_t bytes;
        ssize_t n;

        if (fd < 0)
                return 0;
        n = read(fd, text, sizeof(text) - 1);
        if (n <= 0)
                return 0;
        text[n] = '\0';
        bytes = (size_t)strtoull(text, NULL, 10);
        return bytes & (bytes - 1) ? 0 : bytes;
}

/* -- one run ------------------------------------------------------------------------- */

static void touch(const Populate *p, char *from, const char *to, bool writing) {
        for (char *at = from; at < to; at += p->page) {
                /* Adding nothing: others may be writing the same bytes. */
                if (writing)
                        (void)__atomic_fetch_add(at, 0, __ATOMIC_RELAXED);
                else
                        (void)__atomic_load_n(at, __ATOMIC_RELAXED);
        }
}

static int populate_all(const Populate *p, char *from, char *to, bool writing) {
        size_t length = (size_t)(to - from);
        int r;

        if (from == to)
                return 0;
        do
                r = madvise(from, length, writing ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) < 0 ? -errno : 0;
        while (r == -EINTR);

        switch (r) {
        case -EINVAL:
                touch(p, from, to, writing);
                return 0;
        case -EFAULT:           /* where a touch would have raised SIGBUS: huge pages ran out */
        case -EHWPOISON:
                return -ENOMEM;
        default:
                return r;
        }
}

/* One page at each step: at the start, and from there on where a multiple of step is. */
static int populate_steps(const Populate *p, char *from, char *to, size_t step, bool writing) {
        for (char *at = from; at < to; at += step - (uintptr_t)at % step) {
                char *end = (size_t)(to - at) > p->page ? at + p->page : to;
                int r;

                r = populate_all(p, at, end, writing);
                if (r)
                        return r;
        }
        return 0;
}

/* -- data ---------------------------------------------------------------------------- */

static bool all_mapped(const Populate *p, const char *from, const char *to) {
        uint64_t entries[LOOK_PAGES];
        size_t n = ((size_t)(to - from) + p->page - 1) / p->page;
        ssize_t n_bytes = (ssize_t)(n * sizeof(*entries));

        if (pread(p->pagemap_fd, entries, (size_t)n_bytes, (off_t)((uintptr_t)from / p->page * sizeof(*entries))) !=
            n_bytes)
                return false;
        for (size_t i = 0; i < n; ++i)
                if (!(entries[i] & PAGEMAP_PRESENT))
                        return false;
        return true;
}

/* At most LOOK_PAGES. If the first page brought the last one with it, it is a huge one. */
static int populate_look(const Populate *p, char *from, char *to) {
        const char *last = from + ((size_t)(to - from) - 1) / p->page * p->page;
        int r;

        r = populate_all(p, from, (size_t)(to - from) > p->page ? from + p->page : to, false);
        if (r == 0 && !all_mapped(p, last, to))
                r = populate_steps(p, from, to, AROUND_BYTES, false);
        if (r == 0 && !all_mapped(p, from, to))
                r = populate_all(p, from, to, false);
        return r;
}

static int populate_data(const Populate *p, char *from, char *to) {
        size_t look = LOOK_PAGES * p->page;

        if (p->pagemap_fd < 0 || (size_t)(to - from) <= AROUND_BYTES)
                return populate_all(p, from, to, false);
        while (from < to) {
                size_t n = look - (uintptr_t)from % look;       /* no fault maps around such a border */
                char *end = (size_t)(to - from) > n ? from + n : to;
                int r;

                r = populate_look(p, from, end);
                if (r)
                        return r;
                from = end;
        }
        return 0;
}

/* -- holes --------------------------------------------------------------------------- */

/* What of it becomes huge pages is the kernel's business: the rest is as without. */
static int populate_huge(const Populate *p, char *from, char *to) {
        size_t huge = p->mapping->huge;
        char *start = from + (huge - (uintptr_t)from % huge) % huge;
        char *end = to - (uintptr_t)to % huge;
        int r;

        if (start >= end)
                return 0;
        /* A huge page's worth without any page is nothing to collapse. */
        r = populate_steps(p, start, end, huge, true);
        if (r)
                return r;
        /* EAGAIN: a page was in somebody's hands just then. */
        for (int i = 0; i < COLLAPSE_TRIES; ++i)
                if (madvise(start, (size_t)(end - start), MADV_COLLAPSE) == 0 || errno != EAGAIN)
                        break;
        return 0;
}

static int populate_hole(const Populate *p, char *from, char *to) {
        if (p->writing && p->mapping->collapse) {
                int r = populate_huge(p, from, to);

                if (r)
                        return r;
        }
        return populate_all(p, from, to, p->writing);
}

/* -- all of it ----------------------------------------------------------------------- */

/* Where the next run of data (or, with SEEK_HOLE, of nothing) starts; `end` if there is none. */
static uint64_t seek_run(int fd, uint64_t from, uint64_t end, int whence) {
        off_t at = lseek(fd, (off_t)from, whence);

        return at < 0 || (uint64_t)at > end ? end : (uint64_t)at;
}

static char *address_of(const Mapping *mapping, uint64_t at) {
        return mapping->address + (at - mapping->offset);
}

static int populate_runs(const Populate *p) {
        const Mapping *mapping = p->mapping;
        uint64_t end = mapping->offset + mapping->length;
        uint64_t at = mapping->offset;

        while (at < end) {
                uint64_t data = seek_run(mapping->fd, at, end, SEEK_DATA);
                uint64_t hole = data < end ? seek_run(mapping->fd, data, end, SEEK_HOLE) : end;
                int r;

                r = populate_hole(p, address_of(mapping, at), address_of(mapping, data));
                if (r)
                        return r;
                r = populate_data(p, address_of(mapping, data), address_of(mapping, hole));
                if (r)
                        return r;
                at = hole;
        }
        return 0;
}

int mapping_populate(const Mapping *mapping) {
        CLEANUP(close_fdp) int pagemap_fd = -1;
        Populate p = { .mapping = mapping, .page = (size_t)sysconf(_SC_PAGESIZE) };
        off_t position;
        int r;

        if (mapping->length > AROUND_BYTES)
                pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        p.pagemap_fd = pagemap_fd;
        /* A write to a private mapping would make a copy. */
        p.writing = mapping->protection & PROT_WRITE && mapping->flags == MAP_SHARED;

        /* The grant's file offset is the caller's. */
        position = lseek(mapping->fd, 0, SEEK_CUR);
        r = populate_runs(&p);
        if (position >= 0)
                (void)lseek(mapping->fd, position, SEEK_SET);
        return r;
}
