/* client/ctl/pages: which pages are where, compared with what mincore(2) tells their owner. Where the
 * machine has swap, some of them are made to go there.
 */

#include "buildinfo.h"

#include "lib/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "client/ctl/pages.h"

#define PAGE UINT64_C(4096)
#define N_MAX 4096

/* A region, and what the walk said of each of its pages. */
static int fd;
static unsigned char *memory;
static uint64_t n_pages;
static PagesState said[N_MAX];
static uint64_t next_offset, n_runs;
static PagesState last;

static void begin(uint64_t size) {
        if (sysconf(_SC_PAGESIZE) != (long)PAGE)
                test_skip("pages are not of 4 KiB here");
        fd = memfd_create("pages", MFD_CLOEXEC);
        REQUIRE(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
        n_pages = (size + PAGE - 1) / PAGE;
        memory = mmap(NULL, n_pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REQUIRE(memory != MAP_FAILED);
}

static void end(void) {
        REQUIRE(munmap(memory, n_pages * PAGE) == 0);
        fd = close_fd(fd);
}

/* Runs join without gap, and two neighbours differ. */
static void take(void *userdata, PagesState state, uint64_t offset, uint64_t length) {
        REQUIRE(userdata == &said && offset == next_offset && length > 0 && length % PAGE == 0);
        REQUIRE(n_runs == 0 || state != last);
        for (uint64_t i = offset / PAGE; i < (offset + length) / PAGE; ++i)
                said[i] = state;
        next_offset = offset + length;
        last = state;
        ++n_runs;
}

static void walk(uint64_t size) {
        next_offset = n_runs = 0;
        REQUIRE(pages_walk(fd, size, PAGE, take, &said) == 0);
        REQUIRE(next_offset == n_pages * PAGE);
}

static void touch(uint64_t from, uint64_t to) {
        for (uint64_t i = from; i < to; ++i)
                memory[i * PAGE] = 1;
}

static void expect(uint64_t from, uint64_t to, PagesState state) {
        for (uint64_t i = from; i < to; ++i)
                REQUIRE(said[i] == state, "page %llu is %s", (unsigned long long)i, pages_state_name(said[i]));
}

TEST(ctl_pages, holes_and_written_pages_are_told_apart) {
        begin(100 * PAGE);
        walk(100 * PAGE);
        cr_assert_eq(n_runs, 1);
        expect(0, 100, PAGES_HOLE);
        touch(10, 20);
        touch(99, 100);
        walk(100 * PAGE);
        cr_assert_eq(n_runs, 4);
        expect(0, 10, PAGES_HOLE);
        expect(10, 20, PAGES_RESIDENT);
        expect(20, 99, PAGES_HOLE);
        expect(99, 100, PAGES_RESIDENT);
        end();
}

TEST(ctl_pages, the_last_page_counts_whole) {
        PagesTotals totals;

        begin(2 * PAGE + 1);
        touch(2, 3);
        walk(2 * PAGE + 1);
        cr_assert_eq(n_runs, 2);
        expect(2, 3, PAGES_RESIDENT);
        touch(0, 2);
        walk(2 * PAGE + 1);
        cr_assert_eq(n_runs, 1);
        cr_assert_eq(pages_count(fd, 2 * PAGE + 1, PAGE, &totals), 0);
        cr_assert(totals.bytes[PAGES_RESIDENT] == 3 * PAGE && totals.allocated == 3 * PAGE);
        cr_assert_eq(pages_ahead(&totals), 0);
        end();
}

TEST(ctl_pages, pages_allocated_and_never_written_are_holes_that_cost) {
        PagesTotals totals;

        begin(64 * PAGE);
        REQUIRE(fallocate(fd, 0, 0, 32 * PAGE) == 0);
        touch(0, 4);
        cr_assert_eq(pages_count(fd, 64 * PAGE, PAGE, &totals), 0);
        cr_assert_eq(totals.bytes[PAGES_RESIDENT], 4 * PAGE);
        cr_assert_eq(totals.bytes[PAGES_HOLE], 60 * PAGE);
        cr_assert_eq(totals.allocated, 32 * PAGE);
        cr_assert_eq(pages_ahead(&totals), 28 * PAGE);
        end();
}

TEST(ctl_pages, an_empty_region_has_none) {
        PagesTotals totals;

        begin(PAGE);
        cr_assert_eq(pages_count(fd, 0, PAGE, &totals), 0);
        for (PagesState state = 0; state < _PAGES_N; ++state)
                cr_assert_eq(totals.bytes[state], 0);
        end();
}

TEST(ctl_pages, looking_allocates_nothing) {
        struct stat st;

        begin(N_MAX * PAGE);
        walk(N_MAX * PAGE);
        REQUIRE(fstat(fd, &st) == 0);
        cr_assert_eq(st.st_blocks, 0);
        end();
}

/* The truth about a page that has data, from the owner's mapping. */
static void compare_with_mincore(void) {
        unsigned char in_memory[N_MAX];
        size_t n_swapped = 0;

        REQUIRE(mincore(memory, n_pages * PAGE, in_memory) == 0);
        for (uint64_t i = 0; i < n_pages; ++i) {
                if (said[i] == PAGES_HOLE)
                        continue;
                n_swapped += said[i] == PAGES_SWAPPED;
                REQUIRE(said[i] == (in_memory[i] & 1 ? PAGES_RESIDENT : PAGES_SWAPPED), "page %llu is %s",
                        (unsigned long long)i, pages_state_name(said[i]));
        }
        printf("%zu of %llu pages are swapped\n", n_swapped, (unsigned long long)n_pages);
}

TEST(ctl_pages, what_is_swapped_is_found_page_by_page) {
        begin(N_MAX * PAGE);
        touch(0, N_MAX / 2);
        for (uint64_t i = N_MAX / 2; i < N_MAX; i += 3)
                touch(i, i + 1);
        /* A stretch, single pages between others, and single pages between holes. */
        (void)madvise(memory + 100 * PAGE, 1000 * PAGE, MADV_PAGEOUT);
        for (uint64_t i = 1500; i < 1700; i += 2)
                (void)madvise(memory + i * PAGE, PAGE, MADV_PAGEOUT);
        for (uint64_t i = N_MAX / 2; i < N_MAX; i += 6)
                (void)madvise(memory + i * PAGE, PAGE, MADV_PAGEOUT);
        walk(N_MAX * PAGE);
        compare_with_mincore();
        end();
}

static int count_as_stranger(void *userdata) {
        PagesTotals totals;

        REQUIRE(pages_count(*(int *)userdata, N_MAX * PAGE, PAGE, &totals) == 0);
        REQUIRE(totals.bytes[PAGES_HOLE] == (N_MAX - 64) * PAGE);
        REQUIRE(totals.bytes[PAGES_RESIDENT] + totals.bytes[PAGES_SWAPPED] == 64 * PAGE);
        REQUIRE(totals.bytes[PAGES_UNKNOWN] == 0);
        return 0;
}

TEST(ctl_pages, a_read_only_descriptor_of_somebody_elses_region_is_enough) {
        char path[32];
        int reads;

        test_needs_root();
        begin(N_MAX * PAGE);
        touch(64, 128);
        REQUIRE(fchmod(fd, 0600) == 0);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        reads = open(path, O_RDONLY | O_CLOEXEC);
        cr_assert_eq(run_as(ALICE, ALICE, count_as_stranger, &reads), 0);
        close_fd(reads);
        end();
}
