/* client/map: what is checked before memory is mapped, and how it is mapped. What the kernel has
 * made of it stands in /proc/self/smaps. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define PAGES 64
#define SIZE (PAGES * PAGE)

/* _IOWR('f', 16, struct pm_scan_arg), which is younger than some headers. */
#define PAGEMAP_SCAN_REQUEST 0xc0606610

static shmd_region *region_of(uint64_t size, uint32_t rights) {
        return peer_region(size, size, 0, rights);
}

/* -- smaps --------------------------------------------------------------------------- */

typedef struct Smap {
        char permissions[5];
        uint64_t length;
        uint64_t rss_kib;
        uint64_t huge_kib;
        char flags[256];
} Smap;

/* The mapping that starts at that address. */
static Smap smap_of(const void *address) {
        FILE *file = fopen("/proc/self/smaps", "re");
        Smap smap = { .length = 0 };
        bool found = false;
        char line[512];

        REQUIRE(file != NULL);
        while (fgets(line, sizeof(line), file)) {
                uint64_t start, end;
                char permissions[5];

                if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, permissions) == 3) {
                        found = start == (uintptr_t)address;
                        if (found) {
                                smap.length = end - start;
                                memcpy(smap.permissions, permissions, sizeof(permissions));
                        }
                } else if (found) {
                        (void)sscanf(line, "Rss: %" SCNu64, &smap.rss_kib);
                        (void)sscanf(line, "ShmemPmdMapped: %" SCNu64, &smap.huge_kib);
                        (void)sscanf(line, "VmFlags: %255[^\n]", smap.flags);
                }
        }
        (void)fclose(file);
        REQUIRE(smap.length > 0, "no mapping starts at %p", address);
        return smap;
}

static bool has_flag(const Smap *smap, const char *flag) {
        return strstr(smap->flags, flag) != NULL;
}

typedef struct Resident {
        const void *address;
        uint64_t kib;
} Resident;

static bool is_resident(void *userdata) {
        const Resident *resident = userdata;

        return smap_of(resident->address).rss_kib == resident->kib;
}

/* A page that the kernel is just moving elsewhere does not count for a moment. */
static void expect_resident(const void *address, uint64_t kib) {
        Resident resident = { address, kib };

        REQUIRE(test_eventually(is_resident, &resident), "%" PRIu64 " KiB, not %" PRIu64, smap_of(address).rss_kib, kib);
}

static void *map_with(shmd_region *region, const struct shmd_map_options *options, size_t *ret_length) {
        void *address;

        REQUIRE(shmd_map(region, options, &address, ret_length) == 0);
        return address;
}

static int try_map(shmd_region *region, const struct shmd_map_options *options) {
        size_t length = 1;
        void *address = &length;
        int r = shmd_map(region, options, &address, &length);

        REQUIRE(r < 0 && address == &length && length == 1, "a failed map leaves the results alone");
        return r;
}

/* -- what is checked ----------------------------------------------------------------- */

TEST(client_map, memory_that_could_change_its_size_is_refused) {
        static const unsigned int too_few[] = { F_SEAL_SEAL, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_GROW | F_SEAL_SEAL };

        for (size_t i = 0; i < sizeof(too_few) / sizeof(too_few[0]); ++i) {
                shmd_region *region = peer_region(PAGE, PAGE, too_few[i], SHMD_RIGHTS_READ_WRITE);

                cr_assert_eq(try_map(region, NULL), -EPROTO, "seals %#x", too_few[i]);
                shmd_region_free(region);
        }
}

TEST(client_map, memory_of_another_size_than_promised_is_refused) {
        static const uint64_t sizes[] = { 0, 1, PAGE - 1, PAGE + 1, 2 * PAGE };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                shmd_region *region = peer_region(PAGE, sizes[i], 0, SHMD_RIGHTS_READ_WRITE);

                cr_assert_eq(try_map(region, NULL), -EPROTO, "%" PRIu64 " bytes", sizes[i]);
                shmd_region_free(region);
        }
}

TEST(client_map, bounds_are_pages_within_the_region) {
        static const struct {
                uint64_t offset, length;
                int r;
        } cases[] = {
                { 1,            0,              -EINVAL },
                { PAGE / 2,     PAGE,           -EINVAL },
                { 0,            PAGE - 1,       -EINVAL },
                { 0,            3 * PAGE + 100, 0 },            /* to the end, which is no page */
                { 0,            3 * PAGE + 99,  -EINVAL },
                { 0,            3 * PAGE + 101, -EINVAL },
                { 0,            4 * PAGE,       -EINVAL },      /* beyond the end */
                { PAGE,         2 * PAGE,       0 },
                { 3 * PAGE,     100,            0 },
                { 3 * PAGE,     0,              0 },
                { 4 * PAGE,     0,              -EINVAL },
                { PAGE,         UINT64_MAX,     -EINVAL },
                { UINT64_MAX,   1,              -EINVAL },
                { UINT64_MAX - PAGE + 1, PAGE,  -EINVAL },
        };
        shmd_region *region = region_of(3 * PAGE + 100, SHMD_RIGHTS_READ_WRITE);

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
                struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
                size_t length;
                void *address;

                options.offset = cases[i].offset;
                options.length = cases[i].length;
                cr_assert_eq(shmd_map(region, &options, &address, &length), cases[i].r, "case %zu", i);
                if (cases[i].r == 0) {
                        cr_assert_eq(length, cases[i].length ? cases[i].length : 3 * PAGE + 100 - cases[i].offset);
                        cr_assert_eq(shmd_unmap(address, length), 0);
                }
        }
        shmd_region_free(region);
}

TEST(client_map, an_empty_region_has_nothing_to_map) {
        shmd_region *region = region_of(0, SHMD_RIGHTS_READ_WRITE);

        cr_assert_eq(try_map(region, NULL), -EINVAL);
        shmd_region_free(region);
}

TEST(client_map, options_that_make_no_sense_are_einval) {
        struct {
                struct shmd_map_options known;
                uint64_t later;
        } newer = { .known = SHMD_MAP_OPTIONS_INIT };
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;

        options.flags = 32;
        cr_assert_eq(try_map(region, &options), -EINVAL);
        options.flags = 0;
        options.numa = 4;
        options.numa_nodes = 1;
        cr_assert_eq(try_map(region, &options), -EINVAL);
        options.numa = SHMD_NUMA_DEFAULT;
        cr_assert_eq(try_map(region, &options), -EINVAL);
        options.numa_nodes = 0;
        options.numa = SHMD_NUMA_BIND;
        cr_assert_eq(try_map(region, &options), -EINVAL);
        options.numa = SHMD_NUMA_PREFERRED;
        options.numa_nodes = 3;
        cr_assert_eq(try_map(region, &options), -EINVAL);
        options.struct_size = 8;
        cr_assert_eq(try_map(region, &options), -EINVAL);
        newer.known.struct_size = sizeof(newer);
        newer.later = 1;
        cr_assert_eq(try_map(region, &newer.known), -EINVAL);
        cr_assert_eq(try_map(NULL, NULL), -EINVAL);
        shmd_region_free(region);
}

/* -- rights -------------------------------------------------------------------------- */

static void expect_permissions(shmd_region *region, uint32_t flags, const char *permissions) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        size_t length;
        void *address;

        options.flags = flags;
        address = map_with(region, &options, &length);
        cr_assert_str_eq(smap_of(address).permissions, permissions, "flags %u", flags);
        cr_assert_eq(shmd_unmap(address, length), 0);
}

TEST(client_map, a_mapping_has_the_rights_of_the_grant) {
        shmd_region *writable = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
        shmd_region *readable = region_of(SIZE, SHMD_RIGHTS_READ_ONLY);

        expect_permissions(writable, 0, "rw-s");
        expect_permissions(writable, SHMD_MAP_READ_ONLY, "r--s");
        expect_permissions(writable, SHMD_MAP_PRIVATE, "rw-p");
        expect_permissions(readable, 0, "r--s");
        expect_permissions(readable, SHMD_MAP_READ_ONLY, "r--s");
        expect_permissions(readable, SHMD_MAP_PRIVATE, "rw-p");
        expect_permissions(readable, SHMD_MAP_PRIVATE | SHMD_MAP_READ_ONLY, "r--p");
        shmd_region_free(writable);
        shmd_region_free(readable);
}

TEST(client_map, writes_to_a_shared_mapping_are_in_the_region_and_to_a_private_one_are_not) {
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
        struct shmd_map_options private = SHMD_MAP_OPTIONS_INIT;
        size_t length, private_length;
        char *address, *copy;
        char byte;

        private.flags = SHMD_MAP_PRIVATE;
        address = map_with(region, NULL, &length);
        cr_assert_eq(length, SIZE);
        address[PAGE] = 'a';
        cr_assert_eq(pread(shmd_region_fd(region), &byte, 1, (off_t)PAGE), 1);
        cr_assert_eq(byte, 'a');
        copy = map_with(region, &private, &private_length);
        cr_assert_eq(copy[PAGE], 'a');
        copy[PAGE] = 'b';
        cr_assert_eq(address[PAGE], 'a');
        cr_assert_eq(shmd_unmap(copy, private_length), 0);

        /* The mapping needs neither the region nor the connection, which is gone already. */
        shmd_region_free(region);
        cr_assert_eq(address[PAGE], 'a');
        address[SIZE - 1] = 'z';
        cr_assert_eq(shmd_unmap(address, PAGE), 0);
        cr_assert_eq(address[SIZE - 1], 'z');
        cr_assert_eq(shmd_unmap(address + PAGE, length - PAGE), 0);
        cr_assert_eq(shmd_unmap(address + 1, PAGE), -EINVAL);
        cr_assert_eq(shmd_unmap(address, 0), -EINVAL);
}

TEST(client_map, a_frozen_region_maps_for_reading_only) {
        shmd_region *region = peer_region(SIZE, SIZE, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE,
                                          SHMD_RIGHTS_READ_WRITE);
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        size_t length;
        void *address;

        cr_assert_eq(try_map(region, NULL), -EACCES);
        options.flags = SHMD_MAP_READ_ONLY;
        address = map_with(region, &options, &length);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

/* -- advice -------------------------------------------------------------------------- */

TEST(client_map, advice_is_visible_in_smaps) {
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        size_t length;
        void *address;
        Smap smap;

        address = map_with(region, &options, &length);
        smap = smap_of(address);
        cr_assert_not(has_flag(&smap, "dd"));
        cr_assert_not(has_flag(&smap, "hg"));
        cr_assert_eq(smap.rss_kib, 0);
        cr_assert_eq(shmd_unmap(address, length), 0);

        options.flags = SHMD_MAP_DONTDUMP | SHMD_MAP_HUGE;
        address = map_with(region, &options, &length);
        smap = smap_of(address);
        cr_assert(has_flag(&smap, "dd"), "%s", smap.flags);
        if (access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0)
                cr_assert(has_flag(&smap, "hg"), "%s", smap.flags);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

static uint64_t blocks(shmd_region *region) {
        struct stat st;

        REQUIRE(fstat(shmd_region_fd(region), &st) == 0);
        return (uint64_t)st.st_blocks;
}

/* Writes here and there, so that there is data and there are holes of several lengths. */
static bool is_written(size_t page) {
        return page == 0 || (page >= 5 && page < 9) || page == 20 || page == PAGES - 1;
}

static shmd_region *sparse_region(void) {
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);

        for (size_t page = 0; page < PAGES; ++page)
                if (is_written(page))
                        REQUIRE(pwrite(shmd_region_fd(region), "data", 4, (off_t)(page * PAGE)) == 4);
        return region;
}

static void check_populated(const char *address, size_t length) {
        expect_resident(address, length / 1024);
        for (size_t page = 0; page < length / PAGE; ++page)
                cr_assert_eq(memcmp(address + page * PAGE, is_written(page) ? "data" : "\0\0\0\0", 4), 0, "page %zu",
                             page);
}

static void populate_and_check(uint32_t flags) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = sparse_region();
        size_t length;
        char *address;

        options.flags = SHMD_MAP_POPULATE | flags;
        cr_assert_eq(lseek(shmd_region_fd(region), 123, SEEK_SET), 123);
        address = map_with(region, &options, &length);
        check_populated(address, length);
        cr_assert_eq(blocks(region), SIZE / 512);
        cr_assert_eq(lseek(shmd_region_fd(region), 0, SEEK_CUR), 123, "the file offset is the caller's");
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, populate_has_every_page_there_and_changes_none) {
        populate_and_check(0);
        populate_and_check(SHMD_MAP_READ_ONLY);
        populate_and_check(SHMD_MAP_PRIVATE | SHMD_MAP_READ_ONLY);
}

TEST(client_map, a_private_mapping_is_populated_without_copying) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = sparse_region();
        size_t length;
        char *address;
        char byte;

        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_PRIVATE;
        address = map_with(region, &options, &length);
        check_populated(address, length);
        /* Not copied yet: what others write still shows. */
        cr_assert_eq(pwrite(shmd_region_fd(region), "x", 1, 0), 1);
        byte = *(volatile char *)address;
        cr_assert_eq(byte, 'x');
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, populating_a_part_leaves_the_rest_alone) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = sparse_region();
        uint64_t before = blocks(region);
        size_t length;
        char *address;

        options.flags = SHMD_MAP_POPULATE;
        options.offset = 4 * PAGE;
        options.length = 3 * PAGE;
        address = map_with(region, &options, &length);
        cr_assert_eq(length, 3 * PAGE);
        expect_resident(address, 12);
        cr_assert_eq(blocks(region), before + PAGE / 512, "page 4 was a hole, 5 and 6 were not");
        cr_assert_eq(memcmp(address + PAGE, "data", 4), 0);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, the_last_page_of_an_odd_size_is_populated) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(PAGE + 1, SHMD_RIGHTS_READ_WRITE);
        size_t length;
        char *address;

        options.flags = SHMD_MAP_POPULATE;
        address = map_with(region, &options, &length);
        cr_assert_eq(length, PAGE + 1);
        expect_resident(address, 8);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

#define MANY ((size_t)1300)     /* pages of more than two page tables, and then a byte */

static void expect_all_mapped(shmd_region *region, uint32_t flags, size_t from_page) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        size_t length;
        char *address;

        options.flags = SHMD_MAP_POPULATE | flags;
        options.offset = from_page * PAGE;
        address = map_with(region, &options, &length);
        cr_assert_eq(length, (MANY - from_page) * PAGE + 1);
        expect_resident(address, (MANY + 1 - from_page) * 4);
        cr_assert_eq(shmd_unmap(address, length), 0);
}

static shmd_region *long_region(void) {
        return region_of(MANY * PAGE + 1, SHMD_RIGHTS_READ_WRITE);
}

TEST(client_map, populating_finds_every_page_of_long_runs) {
        shmd_region *region = long_region();
        char page[8];

        /* Runs of data that begin and end anywhere. */
        for (size_t i = 7; i < MANY; i += i % 5 == 0 ? 40 : 1)
                REQUIRE(pwrite(shmd_region_fd(region), "data", 4, (off_t)(i * PAGE)) == 4);
        expect_all_mapped(region, 0, 0);
        for (size_t i = 7; i < MANY; i += i % 5 == 0 ? 40 : 1)
                cr_assert(pread(shmd_region_fd(region), page, 4, (off_t)(i * PAGE)) == 4 && memcmp(page, "data", 4) == 0,
                          "page %zu", i);

        /* Now all is data. */
        expect_all_mapped(region, 0, 0);
        expect_all_mapped(region, SHMD_MAP_READ_ONLY, 3);
        expect_all_mapped(region, SHMD_MAP_PRIVATE, 700);
        shmd_region_free(region);
}

TEST(client_map, memory_that_is_reserved_and_not_written_is_populated) {
        shmd_region *region = long_region();

        REQUIRE(fallocate(shmd_region_fd(region), 0, 0, (off_t)(MANY * PAGE + 1)) == 0);
        expect_all_mapped(region, SHMD_MAP_READ_ONLY, 0);
        shmd_region_free(region);
        region = long_region();
        REQUIRE(fallocate(shmd_region_fd(region), 0, 0, (off_t)(MANY * PAGE + 1)) == 0);
        expect_all_mapped(region, 0, 5);
        shmd_region_free(region);
}

TEST(client_map, without_a_descriptor_to_spare_it_populates_all_the_same) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = sparse_region();
        struct rlimit before, none;
        size_t length;
        char *address;
        int r;

        REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
        none = before;
        none.rlim_cur = 0;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        r = shmd_map(region, &options, (void **)&address, &length);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
        cr_assert_eq(r, 0);
        check_populated(address, length);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

/* -- huge pages ---------------------------------------------------------------------- */

#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_SIZE (4 * HUGE_PAGE + 5 * PAGE + 1)

static bool have_huge_pages(void) {
        char text[16] = "";
        FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "re");
        bool have = file && fgets(text, sizeof(text), file) && strtoul(text, NULL, 10) == HUGE_PAGE;

        if (file)
                (void)fclose(file);
        return have;
}

/* Whether what is done by hand gets a huge page now: the setting, or a lack of memory in one
 * piece, can stand in the way. */
static bool can_collapse(void) {
        shmd_region *region = region_of(2 * HUGE_PAGE, SHMD_RIGHTS_READ_WRITE);
        char *address = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, shmd_region_fd(region), 0);
        uintptr_t skip;
        bool can;

        REQUIRE(address != MAP_FAILED);
        skip = -(uintptr_t)address % HUGE_PAGE;
        (void)munmap(address, 2 * HUGE_PAGE);
        address = mmap(address + skip, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, shmd_region_fd(region), 0);
        REQUIRE(address != MAP_FAILED);
        *(volatile char *)address = 1;
        can = (uintptr_t)address % HUGE_PAGE == 0 && madvise(address, HUGE_PAGE, 25) == 0;
        (void)munmap(address, HUGE_PAGE);
        shmd_region_free(region);
        return can;
}

#define TRIES 100

/* Of a region that has nothing. The kernel gives no huge page where it is just moving something about: then there is
 * another try. */
static void check_huge(shmd_region *region, const struct shmd_map_options *options, size_t n_huge) {
        size_t length;
        char *address = map_with(region, options, &length);
        Smap smap = smap_of(address);

        for (int i = 0; smap.huge_kib != n_huge * HUGE_PAGE / 1024 && can_collapse(); ++i) {
                REQUIRE(i < TRIES, "%" PRIu64 " KiB", smap.huge_kib);
                cr_assert_eq(shmd_unmap(address, length), 0);
                REQUIRE(fallocate(shmd_region_fd(region), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                                  (off_t)shmd_region_size(region)) == 0);
                test_sleep_ms(10);
                address = map_with(region, options, &length);
                smap = smap_of(address);
        }
        if (have_huge_pages())
                cr_assert_eq(((uintptr_t)address - options->offset) % HUGE_PAGE, 0);
        expect_resident(address, (length + PAGE - 1) / PAGE * 4);
        for (size_t i = 0; i < length; i += PAGE)
                cr_assert_eq(address[i], 0);
        address[length - 1] = 1;
        cr_assert_eq(shmd_unmap(address, length), 0);
}

TEST(client_map, new_memory_is_populated_with_huge_pages_where_they_can_be_had) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(HUGE_SIZE, SHMD_RIGHTS_READ_WRITE);

        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        check_huge(region, &options, 4);
        cr_assert_eq(blocks(region), (4 * HUGE_PAGE + 6 * PAGE) / 512, "and no more than that");
        shmd_region_free(region);
}

TEST(client_map, a_part_has_huge_pages_where_it_has_all_of_them) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(HUGE_SIZE, SHMD_RIGHTS_READ_WRITE);

        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        options.offset = 3 * PAGE;
        options.length = 3 * HUGE_PAGE;
        check_huge(region, &options, 2);
        cr_assert_eq(blocks(region), 3 * HUGE_PAGE / 512);
        shmd_region_free(region);
}

TEST(client_map, memory_that_is_there_is_not_made_huge_and_not_changed) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(HUGE_SIZE, SHMD_RIGHTS_READ_WRITE);
        size_t length;
        char *address;
        Smap smap;

        REQUIRE(pwrite(shmd_region_fd(region), "data", 4, (off_t)(HUGE_PAGE + 9 * PAGE)) == 4);
        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        address = map_with(region, &options, &length);
        smap = smap_of(address);
        cr_assert_leq(smap.huge_kib, 3 * HUGE_PAGE / 1024, "the second has had a page before");
        expect_resident(address, (HUGE_SIZE + PAGE - 1) / PAGE * 4);
        cr_assert_eq(memcmp(address + HUGE_PAGE + 9 * PAGE, "data", 4), 0);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, a_reader_is_given_huge_pages_that_are_there) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(HUGE_SIZE, SHMD_RIGHTS_READ_WRITE);

        size_t length, again_length;
        char *address, *again;
        Smap first, second;

        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        address = map_with(region, &options, &length);
        first = smap_of(address);
        options.flags |= SHMD_MAP_READ_ONLY;
        again = map_with(region, &options, &again_length);
        second = smap_of(again);
        expect_resident(again, (again_length + PAGE - 1) / PAGE * 4);
        cr_assert_eq(second.huge_kib, first.huge_kib);
        cr_assert_eq(shmd_unmap(again, again_length), 0);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, a_region_smaller_than_a_huge_page_is_populated_as_it_is) {
        populate_and_check(SHMD_MAP_HUGE);
}

/* -- older kernels ------------------------------------------------------------------- */

/* From now on in this process, the advice fails as on a kernel that does not know it. */
static void forget_advice(unsigned int advice) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

        REQUIRE(filter != NULL);
        REQUIRE(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(madvise), 1,
                                 SCMP_A2(SCMP_CMP_EQ, advice)) == 0);
        REQUIRE(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(process_madvise), 1,
                                 SCMP_A3(SCMP_CMP_EQ, advice)) == 0);
        REQUIRE(seccomp_load(filter) == 0);
        seccomp_release(filter);
}

TEST(client_map, without_madv_populate_pages_are_touched) {
        forget_advice(22);
        forget_advice(23);
        populate_and_check(0);
        populate_and_check(SHMD_MAP_READ_ONLY);
}

/* From now on in this process; 0: it is there, and does nothing of what it is asked for. */
static void populate_without_process_madvise(int error) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = long_region();

        REQUIRE(filter != NULL);
        REQUIRE(seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)error), SCMP_SYS(process_madvise), 0) == 0);
        REQUIRE(seccomp_load(filter) == 0);
        seccomp_release(filter);
        for (size_t i = 0; i < MANY; i += i % 500 == 0 ? 300 : 1)
                REQUIRE(pwrite(shmd_region_fd(region), "data", 4, (off_t)(i * PAGE)) == 4);
        expect_all_mapped(region, 0, 0);
        expect_all_mapped(region, SHMD_MAP_READ_ONLY, 0);
        shmd_region_free(region);

        region = region_of(HUGE_SIZE, SHMD_RIGHTS_READ_WRITE);
        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        check_huge(region, &options, 4);
        shmd_region_free(region);
}

/* Of each page table the first page may be asked for by itself; and one that was just being moved, so there is
 * another try. */
TEST(client_map, pages_that_are_there_are_asked_for_together_where_the_kernel_can) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        shmd_region *region = long_region();
        size_t length;
        void *address;
        int r;

        if (!have_huge_pages() || syscall(SYS_process_madvise, -10000, NULL, 0, 22, 0) < 0)
                test_skip("there are no huge pages, or process_madvise() takes no advice for oneself here");
        REQUIRE(fallocate(shmd_region_fd(region), 0, 0, (off_t)(MANY * PAGE + 1)) == 0);
        expect_all_mapped(region, 0, 0);
        REQUIRE(filter != NULL);
        REQUIRE(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(madvise), 3,
                                 SCMP_A0(SCMP_CMP_MASKED_EQ, 0x10000, 0x10000), SCMP_A1(SCMP_CMP_EQ, PAGE),
                                 SCMP_A2(SCMP_CMP_EQ, 22)) == 0);
        REQUIRE(seccomp_load(filter) == 0);
        seccomp_release(filter);
        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_READ_ONLY | SHMD_MAP_HUGE;
        for (int i = 0; (r = shmd_map(region, &options, &address, &length)) == -EPERM && i < TRIES; ++i)
                test_sleep_ms(10);
        REQUIRE(r == 0, "%s", strerror(-r));
        expect_resident(address, (MANY + 1) * 4);
        REQUIRE(shmd_unmap(address, length) == 0);
        shmd_region_free(region);
}

TEST(client_map, where_pages_cannot_be_asked_for_together_each_is_asked_for) {
        populate_without_process_madvise(EBADF);
}

TEST(client_map, what_was_asked_for_together_and_not_done_is_asked_for_again) {
        populate_without_process_madvise(0);
}

TEST(client_map, where_pagemap_does_not_say_what_is_missing_all_is_populated) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        shmd_region *region = long_region();

        REQUIRE(filter != NULL);
        REQUIRE(seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1,
                                 SCMP_A1(SCMP_CMP_EQ, PAGEMAP_SCAN_REQUEST)) == 0);
        REQUIRE(seccomp_load(filter) == 0);
        seccomp_release(filter);
        REQUIRE(fallocate(shmd_region_fd(region), 0, 0, (off_t)(MANY * PAGE + 1)) == 0);
        expect_all_mapped(region, 0, 0);
        expect_all_mapped(region, SHMD_MAP_READ_ONLY, 0);
        shmd_region_free(region);
}

TEST(client_map, without_huge_pages_their_advice_is_no_error) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
        size_t length;
        void *address;

        forget_advice(MADV_HUGEPAGE);
        options.flags = SHMD_MAP_HUGE;
        address = map_with(region, &options, &length);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, without_madv_collapse_small_pages_are_populated) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(HUGE_SIZE, SHMD_RIGHTS_READ_WRITE);
        size_t length;
        char *address;

        forget_advice(25);
        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        address = map_with(region, &options, &length);
        expect_resident(address, (HUGE_SIZE + PAGE - 1) / PAGE * 4);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, with_a_numa_policy_no_memory_is_taken_from_elsewhere) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(HUGE_SIZE, SHMD_RIGHTS_READ_WRITE);
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        size_t length;
        char *address;

        cr_assert_eq(seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(madvise), 1,
                                      SCMP_A2(SCMP_CMP_EQ, 25)), 0);
        cr_assert_eq(seccomp_load(filter), 0);
        seccomp_release(filter);
        options.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        options.numa = SHMD_NUMA_INTERLEAVE;
        options.numa_nodes = 1;
        address = map_with(region, &options, &length);
        expect_resident(address, (HUGE_SIZE + PAGE - 1) / PAGE * 4);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, a_mapping_that_may_be_dumped_against_the_wish_is_an_error) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);

        forget_advice(MADV_DONTDUMP);
        options.flags = SHMD_MAP_DONTDUMP;
        cr_assert_eq(try_map(region, &options), -EINVAL);
        shmd_region_free(region);
}

/* -- NUMA ---------------------------------------------------------------------------- */

/* The policy of the mapping at that address, as numa_maps(5) has it; "" where there is none. */
static void policy_of(const void *address, char *policy, size_t n) {
        FILE *file = fopen("/proc/self/numa_maps", "re");
        char line[512];

        policy[0] = '\0';
        while (file && fgets(line, sizeof(line), file)) {
                uint64_t start;
                char word[64];

                if (sscanf(line, "%" SCNx64 " %63s", &start, word) == 2 && start == (uintptr_t)address)
                        (void)snprintf(policy, n, "%s", word);
        }
        if (file)
                (void)fclose(file);
}

static void expect_policy(uint32_t numa, const char *expected) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
        size_t length;
        void *address;
        char policy[64];

        options.numa = numa;
        options.numa_nodes = 1;
        address = map_with(region, &options, &length);
        policy_of(address, policy, sizeof(policy));
        if (access("/proc/self/numa_maps", F_OK) == 0)
                cr_assert(strncmp(policy, expected, strlen(expected)) == 0, "%s instead of %s", policy, expected);
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, a_numa_policy_reaches_the_kernel) {
        expect_policy(SHMD_NUMA_BIND, "bind");
        expect_policy(SHMD_NUMA_PREFERRED, "prefer");
        expect_policy(SHMD_NUMA_INTERLEAVE, "interleave");
}

TEST(client_map, a_node_that_does_not_exist_is_einval_where_there_are_nodes) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
        bool numa = access("/sys/devices/system/node/node0", F_OK) == 0;
        size_t length;
        void *address;
        int r;

        options.numa = SHMD_NUMA_BIND;
        options.numa_nodes = UINT64_C(1) | UINT64_C(1) << 63;
        r = shmd_map(region, &options, &address, &length);
        cr_assert_eq(r, numa ? -EINVAL : 0);
        if (r == 0)
                cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
}

TEST(client_map, a_kernel_without_numa_takes_no_policy_and_that_is_no_error) {
        static const int errors[] = { ENOSYS, EPERM };

        for (size_t i = 0; i < 2; ++i) {
                scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
                struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
                shmd_region *region = region_of(SIZE, SHMD_RIGHTS_READ_WRITE);
                size_t length;
                void *address;

                /* Of two filters the later one's errno wins only if it is the smaller: EPERM is. */
                cr_assert_eq(seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)errors[i]), SCMP_SYS(mbind), 0), 0);
                cr_assert_eq(seccomp_load(filter), 0);
                seccomp_release(filter);
                options.numa = SHMD_NUMA_BIND;
                options.numa_nodes = 1;
                address = map_with(region, &options, &length);
                cr_assert_eq(shmd_unmap(address, length), 0);
                shmd_region_free(region);
        }
}
