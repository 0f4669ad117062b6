/* Populating a mapping (see mapping.h). */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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
/* Of linux/fcntl.h, since 6.15: the calling thread, where a pidfd is asked for. */
#ifndef PIDFD_SELF_THREAD
#define PIDFD_SELF_THREAD (-10000)
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

#define AROUND_BYTES ((size_t)64 << 10)         /* what one fault by reading maps, as kernels are set */
#define TABLE_PAGES ((size_t)512)               /* the pages of one page table */
#define TOGETHER_MAX 32                         /* pages that one call asks for: a page table's in steps of 64 KiB */
#define COLLAPSE_TRIES 3
#define PMD_SIZE_FILE "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"

/* Of linux/fs.h, since 6.7. */
typedef struct PageRegion {
        uint64_t start, end, categories;
} PageRegion;

typedef struct PagemapScan {
        uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
        uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
} PagemapScan;

#ifndef PAGEMAP_SCAN
#define PAGEMAP_SCAN _IOWR('f', 16, PagemapScan)
#endif
#ifndef PAGE_IS_PRESENT
#define PAGE_IS_PRESENT (1 << 3)
#endif

typedef struct Populate {
        const Mapping *mapping;
        bool writing;           /* holes are written; else all that can be done is read */
        bool together;          /* one call may ask for several pages */
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

static ssize_t ask_together(const struct iovec *pages, size_t n, bool writing) {
        return syscall(SYS_process_madvise, PIDFD_SELF_THREAD, pages, n,
                       writing ? MADV_POPULATE_WRITE : MADV_POPULATE_READ, 0);
}

/* Asking for nothing tells. */
static bool can_ask_together(void) {
        return ask_together(NULL, 0, false) == 0;
}

static char *next_step(char *at, size_t step) {
        return at + (step - (uintptr_t)at % step);
}

/* Return: where what is left to do begins; what is wrong there, it will say when it is asked for by itself. */
static char *populate_together(const Populate *p, char *from, const char *to, size_t step, bool writing) {
        while (from < to) {
                struct iovec pages[TOGETHER_MAX];
                char *at = from;
                size_t n = 0;

                for (; at < to && n < TOGETHER_MAX; at = next_step(at, step))
                        pages[n++] = (struct iovec){ .iov_base = at, .iov_len = p->page };
                if (ask_together(pages, n, writing) != (ssize_t)(n * p->page))
                        break;
                from = at;
        }
        return from;
}

/* One page at each step: at the start, and from there on where a multiple of step is. */
static int populate_steps(const Populate *p, char *from, char *to, size_t step, bool writing) {
        char *at = p->together ? populate_together(p, from, to, step, writing) : from;

        for (; at < to; at = next_step(at, step)) {
                int r = populate_all(p, at, at + p->page, writing);

                if (r)
                        return r;
        }
        return 0;
}

/* -- data ---------------------------------------------------------------------------- */

/* Finds what is not mapped: at most n pieces, from the start. Return: how many; *ret_end is how far it looked. */
static int find_missing(int pagemap_fd, const char *from, const char *to, PageRegion *ret, size_t n,
                        uint64_t *ret_end) {
        PagemapScan scan = {
                .size = sizeof(scan),
                .start = (uintptr_t)from,
                .end = (uintptr_t)to,
                .vec = (uintptr_t)ret,
                .vec_len = n,
                .category_inverted = PAGE_IS_PRESENT,
                .category_mask = PAGE_IS_PRESENT,
                .return_mask = PAGE_IS_PRESENT,
        };
        int n_found = ioctl(pagemap_fd, PAGEMAP_SCAN, &scan);

        *ret_end = scan.walk_end;
        return n_found < 0 ? -errno : n_found;
}

static int populate_missing(const Populate *p, char *from, char *to) {
        for (char *at = from; at < to;) {
                PageRegion missing[16];
                uint64_t end;
                int n = find_missing(p->pagemap_fd, at, to, missing, sizeof(missing) / sizeof(*missing), &end);

                if (n < 0 || end <= (uintptr_t)at)
                        return populate_all(p, at, to, false);
                for (int i = 0; i < n; ++i) {
                        int r = populate_all(p, from + (missing[i].start - (uintptr_t)from),
                                             from + (missing[i].end - (uintptr_t)from), false);

                        if (r)
                                return r;
                }
                at = from + (end - (uintptr_t)from);
        }
        return 0;
}

/* What the first page brought along does not matter if that was all: then it is a huge one. */
static int populate_around(const Populate *p, char *from, char *to) {
        PageRegion missing;
        uint64_t end;
        int r;

        r = populate_all(p, from, from + p->page, false);
        if (r || find_missing(p->pagemap_fd, to - p->page, to, &missing, 1, &end) == 0)
                return r;
        return populate_steps(p, from, to, AROUND_BYTES, false);
}

static int populate_data(const Populate *p, char *from, char *to) {
        char *end;
        int r;

        if (p->pagemap_fd < 0 || (size_t)(to - from) <= AROUND_BYTES)
                return populate_all(p, from, to, false);
        /* No fault maps across such a border. */
        for (char *at = from; at < to; at = end) {
                size_t n = TABLE_PAGES * p->page - (uintptr_t)at % (TABLE_PAGES * p->page);

                end = (size_t)(to - at) > n ? at + n : to;
                r = populate_around(p, at, end);
                if (r)
                        return r;
        }
        return populate_missing(p, from, to);
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

/* Looking for holes is looking at every page; that none is missing is known at once. */
static bool is_whole(int fd) {
        struct stat st;

        return fstat(fd, &st) == 0 && (uint64_t)st.st_blocks >= ((uint64_t)st.st_size + 511) / 512;
}

/* Where the next run of data (or, with SEEK_HOLE, of nothing) starts; `end` if there is none. */
static uint64_t seek_run(int fd, uint64_t from, uint64_t end, int whence) {
        off_t at = lseek(fd, (off_t)from, whence);

        return at < 0 || (uint64_t)at > end ? end : (uint64_t)at;
}

/* Where that byte of the region is; of the end, where its page ends. */
static char *address_of(const Populate *p, uint64_t at) {
        size_t n = (size_t)(at - p->mapping->offset);

        return p->mapping->address + n + (p->page - n % p->page) % p->page;
}

static int populate_runs(const Populate *p) {
        const Mapping *mapping = p->mapping;
        uint64_t end = mapping->offset + mapping->length;
        uint64_t at = mapping->offset;
        bool whole = is_whole(mapping->fd);

        while (at < end) {
                uint64_t data = whole ? at : seek_run(mapping->fd, at, end, SEEK_DATA);
                uint64_t hole = whole || data == end ? end : seek_run(mapping->fd, data, end, SEEK_HOLE);
                int r;

                r = populate_hole(p, address_of(p, at), address_of(p, data));
                if (r)
                        return r;
                r = populate_data(p, address_of(p, data), address_of(p, hole));
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
        p.together = mapping->length > TOGETHER_MAX * AROUND_BYTES && can_ask_together();
        /* A write to a private mapping would make a copy. */
        p.writing = mapping->protection & PROT_WRITE && mapping->flags == MAP_SHARED;

        /* The grant's file offset is the caller's. */
        position = lseek(mapping->fd, 0, SEEK_CUR);
        r = populate_runs(&p);
        if (position >= 0)
                (void)lseek(mapping->fd, position, SEEK_SET);
        return r;
}
