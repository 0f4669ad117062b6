/* What the library's advice for mappings is worth: shmd_map() with SHMD_MAP_POPULATE and SHMD_MAP_HUGE, against
 * mmap(2) of memory from shm_open(3), which is what a program does that thinks nothing of it.
 *
 * 256 MiB are mapped and then one byte of each page is written, or read; both together are timed, unmapping is not.
 * Three things are measured, always of the two kinds of memory in turn:
 *  - memory that somebody has written page by page already, as small pages: a second holder that writes gains the
 *    most, as each of its first writes would be a fault of its own; a reader shall at least not lose;
 *  - new memory, with small pages: there is little to gain, as what takes the time is getting the pages;
 *  - new memory, with huge pages, where the kernel can be brought to give them. The system's settings are left as
 *    they are: where shared memory gets none by itself, the library has them made.
 * What a second writer gains if it writes all bytes instead of one of each page, and if the first holder has taken
 * the advice as well, is there for comparison, unless it is to be quick.
 *
 * All is of one process: what a mapping costs does not depend on who made the others.
 */

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/broker.h"
#include "shmd.h"

#define SIZE ((size_t)256 << 20)
#define SMALL ((size_t)4096)
#define HUGE ((size_t)2 << 20)
#define PATIENCE UINT64_C(20000000000)
#define SHM_NAME "/shmd-bench-map"

typedef enum Use {
        WRITE_PAGES,
        WRITE_BYTES,
        READ_PAGES,
} Use;

/* Memory of either kind. */
typedef struct Memory {
        shmd *client;
        const char *path;       /* of the region */
        shmd_region *region;    /* NULL: it is the kernel's own */
        int fd;
} Memory;

typedef struct Case {
        Memory *memory;
        bool is_new;            /* made for each time */
        uint32_t flags;         /* SHMD_MAP_* */
        Use use;
} Case;

/* -- memory ------------------------------------------------------------------------------------ */

static void expect(shmd *client, int r) {
        REQUIRE(r == 0, "%s: %s", strerror(-r), shmd_refusal(client)->sentence);
}

static void make_region(Memory *memory) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;

        options.size = SIZE;
        expect(memory->client, shmd_create(memory->client, memory->path, &options, &memory->region, PATIENCE));
}

static void make_plain(Memory *memory) {
        memory->fd = shm_open(SHM_NAME, O_RDWR | O_CREAT | O_EXCL, 0600);
        REQUIRE(memory->fd >= 0, "%s", strerror(errno));
        REQUIRE(shm_unlink(SHM_NAME) == 0 && ftruncate(memory->fd, SIZE) == 0, "%s", strerror(errno));
}

static uint64_t bytes_charged(shmd *client) {
        struct shmd_df_result *df;
        uint64_t bytes;

        expect(client, shmd_df(client, SHMD_DF_ACCOUNT, (uid_t)-1, NULL, &df, PATIENCE));
        bytes = df->usages[0].used[SHMD_SLOT_BYTES];
        shmd_df_free(df);
        return bytes;
}

/* The broker gives memory back a little at a time: that must not happen during the next measurement. */
static void drop_region(Memory *memory) {
        uint64_t before = bytes_charged(memory->client);

        shmd_region_free(memory->region);
        expect(memory->client, shmd_unlink(memory->client, memory->path, PATIENCE));
        while (bytes_charged(memory->client) > before - SIZE)
                test_sleep_ms(1);
}

static void make(Memory *memory) {
        if (memory->client)
                make_region(memory);
        else
                make_plain(memory);
}

static void drop(Memory *memory) {
        if (memory->client)
                drop_region(memory);
        memory->region = NULL;
        memory->fd = close_fd(memory->fd);
}

/* -- mapping and using -------------------------------------------------------------------------- */

static char *map_region(shmd_region *region, uint32_t flags) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        size_t length;
        void *address;
        int r;

        options.flags = flags;
        r = shmd_map(region, &options, &address, &length);
        REQUIRE(r == 0 && length == SIZE, "%s", strerror(-r));
        return address;
}

static char *map_plain(int fd, bool writing) {
        char *address = mmap(NULL, SIZE, writing ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);

        REQUIRE(address != MAP_FAILED, "%s", strerror(errno));
        return address;
}

static void use(char *address, Use how) {
        switch (how) {
        case WRITE_PAGES:
                for (size_t at = 0; at < SIZE; at += SMALL)
                        *(volatile char *)(address + at) = 1;
                break;
        case WRITE_BYTES:
                memset(address, 1, SIZE);
                break;
        case READ_PAGES:
                for (size_t at = 0; at < SIZE; at += SMALL)
                        (void)*(volatile char *)(address + at);
                break;
        }
}

static double map_and_use(const Case *c) {
        int64_t began = test_now_ns(), ended;
        char *address;

        if (c->memory->region)
                address = map_region(c->memory->region, c->flags);
        else
                address = map_plain(c->memory->fd, c->use != READ_PAGES);
        use(address, c->use);
        ended = test_now_ns();
        REQUIRE(munmap(address, SIZE) == 0);
        return (double)(ended - began) / 1e6;
}

static void run(void *userdata, double *ms, size_t n) {
        Case *c = userdata;

        for (size_t i = 0; i < n; ++i) {
                if (c->is_new)
                        make(c->memory);
                ms[i] = map_and_use(c);
                if (c->is_new)
                        drop(c->memory);
        }
}

/* -- rows ---------------------------------------------------------------------------------------- */

static void take_turns(Case *ours, BenchTimes *ours_ms, Case *plain, BenchTimes *plain_ms, size_t rounds) {
        size_t n = plain->is_new || bench_quick() ? 1 : 3;
        BenchSide sides[] = { { run, plain, n, plain_ms }, { run, ours, n, ours_ms } };

        bench_take_turns(sides, 2, rounds);
}

/* How many times faster: what the kernel's own took, by what ours did. */
static void say_gain(const char *name, const char *what, BenchTarget target, const char *note, Case ours, Case plain) {
        BenchTimes ours_ms, plain_ms;

        take_turns(&ours, &ours_ms, &plain, &plain_ms, bench_rounds(15, 3));
        bench_row(&(BenchRow){ .name = name, .what = what, .unit = "ms", .figure = &plain_ms.p50,
                               .against = &ours_ms.p50, .target = target, .note = note });
}

/* Whether huge pages can be had by asking for them, as the library does. */
static bool have_huge_pages(void) {
        CLEANUP(close_fdp) int fd = memfd_create("bench", MFD_CLOEXEC);
        char *address, *huge;
        bool have;

        REQUIRE(fd >= 0 && ftruncate(fd, HUGE) == 0);
        address = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        REQUIRE(address != MAP_FAILED);
        huge = address + (HUGE - (uintptr_t)address % HUGE) % HUGE;
        REQUIRE(mmap(huge, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == huge);
        *(volatile char *)huge = 1;
        have = test_make_huge(huge, HUGE);
        (void)munmap(address, 2 * HUGE);
        return have;
}

static const BenchTarget gain = BENCH_AT_LEAST(3), no_loss = BENCH_AT_LEAST(1), none = { .judged = false };

static void measure_second_holder(Memory *region, Memory *plain) {
        Case ours = { .memory = region, .flags = SHMD_MAP_POPULATE, .use = WRITE_PAGES };
        Case theirs = { .memory = plain, .use = WRITE_PAGES };

        say_gain("map-second-writer", "256 MiB that are there, written: plain mmap, by ours", gain, NULL, ours, theirs);
        ours.use = theirs.use = READ_PAGES;
        ours.flags |= SHMD_MAP_READ_ONLY;
        say_gain("map-second-reader", "256 MiB that are there, read: plain mmap, by ours", no_loss, NULL, ours, theirs);
}

static void measure_other_second_holders(Memory *region, Memory *plain) {
        Case ours = { .memory = region, .flags = SHMD_MAP_POPULATE, .use = WRITE_BYTES };
        Case theirs = { .memory = plain, .use = WRITE_BYTES };

        say_gain("map-second-writer-bytes", "256 MiB that are there, all bytes written", none, NULL, ours, theirs);
        drop(region);
        make(region);
        ours.flags = SHMD_MAP_POPULATE | SHMD_MAP_HUGE;
        (void)map_and_use(&ours);
        ours.use = theirs.use = WRITE_PAGES;
        say_gain("map-second-writer-huge", "the same, a byte of each page, the first took the advice", none, NULL, ours,
                 theirs);
}

static void measure_second_holders(Memory *region, Memory *plain) {
        make(region);
        make(plain);
        (void)map_and_use(&(Case){ .memory = region, .use = WRITE_BYTES });
        (void)map_and_use(&(Case){ .memory = plain, .use = WRITE_BYTES });
        measure_second_holder(region, plain);
        if (!bench_quick())
                measure_other_second_holders(region, plain);
        drop(region);
        drop(plain);
}

static void measure_new_memory(Memory *region, Memory *plain) {
        Case ours = { .memory = region, .is_new = true, .flags = SHMD_MAP_POPULATE, .use = WRITE_PAGES };
        Case theirs = { .memory = plain, .is_new = true, .use = WRITE_PAGES };
        bool huge = have_huge_pages();

        say_gain("map-new", "new 256 MiB, written: plain mmap, by ours, small pages", no_loss, NULL, ours, theirs);
        ours.flags |= SHMD_MAP_HUGE;
        say_gain("map-new-huge", "the same, by ours with huge pages", huge ? gain : no_loss,
                 huge ? "made by MADV_COLLAPSE, whatever shmem_enabled is" :
                        "no huge page can be had here: it has to be no slower", ours, theirs);
}

TEST(bench, mappings_are_as_fast_as_advice_can_make_them) {
        Broker *broker = broker_spawn("[account]\nbytes = unlimited\n[global]\nbytes = unlimited");
        Memory region = { .path = "/bench", .fd = -1 }, plain = { .fd = -1 };

        REQUIRE(shmd_connect(&region.client, broker->socket, PATIENCE) == 0);
        measure_second_holders(&region, &plain);
        measure_new_memory(&region, &plain);
        region.client = shmd_close(region.client);
        broker_stop(broker);
}
