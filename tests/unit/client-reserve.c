/* client/reserve and client/room: every page allocated, or -ENOMEM with the process alive.
 *
 * The shortage is real: a memory cgroup of version 1 or 2, whichever controls memory here, with a
 * limit that the region does not fit. What a machine has only one of at a time (the other version,
 * a MemAvailable of our choice) is put over /proc with bind mounts in a mount namespace.
 */

#include "buildinfo.h"

#include "lib/cgroup.h"
#include "unit/client-peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static shmd_region *region_of(uint64_t size, uint32_t rights) {
        return peer_region(size, size, 0, rights);
}

static uint64_t bytes_allocated(shmd_region *region) {
        struct stat st;

        REQUIRE(fstat(shmd_region_fd(region), &st) == 0);
        return (uint64_t)st.st_blocks * 512;
}

TEST(client_reserve, every_page_is_allocated) {
        shmd_region *region = region_of(40 * MIB + 1, SHMD_RIGHTS_READ_WRITE);

        cr_assert_eq(bytes_allocated(region), 0);
        cr_assert_eq(shmd_reserve(region), 0);
        cr_assert_eq(bytes_allocated(region), 40 * MIB + 4096);
        cr_assert_eq(shmd_reserve(region), 0);
        shmd_region_free(region);
}

TEST(client_reserve, what_is_written_stays) {
        shmd_region *region = region_of(MIB, SHMD_RIGHTS_READ_WRITE);
        char text[5] = "";

        cr_assert_eq(pwrite(shmd_region_fd(region), "data", 4, 8192), 4);
        cr_assert_eq(lseek(shmd_region_fd(region), 77, SEEK_SET), 77);
        cr_assert_eq(shmd_reserve(region), 0);
        cr_assert_eq(pread(shmd_region_fd(region), text, 4, 8192), 4);
        cr_assert_str_eq(text, "data");
        cr_assert_eq(bytes_allocated(region), MIB);
        cr_assert_eq(lseek(shmd_region_fd(region), 0, SEEK_CUR), 77);
        shmd_region_free(region);
}

TEST(client_reserve, it_needs_the_right_to_write) {
        shmd_region *read_only = region_of(MIB, SHMD_RIGHTS_READ_ONLY);

        cr_assert_eq(shmd_reserve(read_only), -EACCES);
        cr_assert_eq(shmd_reserve(NULL), -EBADF);
        shmd_region_free(read_only);
}

TEST(client_reserve, an_empty_region_needs_no_memory) {
        shmd_region *region = region_of(0, SHMD_RIGHTS_READ_WRITE);

        cr_assert_eq(shmd_reserve(region), 0);
        shmd_region_free(region);
}

static void on_alarm(int signal) {
}

TEST(client_reserve, signals_that_come_faster_than_a_step_do_not_stop_it) {
        const struct sigaction action = { .sa_handler = on_alarm };
        const struct itimerval often = { .it_interval.tv_usec = 500, .it_value.tv_usec = 500 };
        const struct itimerval never = { 0 };
        shmd_region *region = region_of(64 * MIB, SHMD_RIGHTS_READ_WRITE);
        int r;

        cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
        cr_assert_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
        r = shmd_reserve(region);
        cr_assert_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
        cr_assert_eq(r, 0);
        cr_assert_eq(bytes_allocated(region), 64 * MIB);
        shmd_region_free(region);
}

/* -- a real memory cgroup ------------------------------------------------------------ */

static void limited_begin(Cgroup *cgroup) {
        test_needs_root();
        if (!cgroup_begin(cgroup))
                test_skip("memory cgroups cannot be made here: %s", strerror(errno));
        cgroup_limit(cgroup, 192 * MIB);
}

static int reserve_too_much(void *cgroup) {
        shmd_region *region = region_of(256 * MIB, SHMD_RIGHTS_READ_WRITE);
        char text[5] = "";
        int r;

        REQUIRE(pwrite(shmd_region_fd(region), "data", 4, 10 * (off_t)MIB) == 4);
        cgroup_enter(cgroup);
        r = shmd_reserve(region);
        REQUIRE(bytes_allocated(region) == 4096, "%" PRIu64 " bytes were not given back",
                bytes_allocated(region) - 4096);
        REQUIRE(pread(shmd_region_fd(region), text, 4, 10 * (off_t)MIB) == 4);
        REQUIRE(strcmp(text, "data") == 0, "what was written is lost");
        shmd_region_free(region);
        return r;
}

static int reserve_what_fits(void *cgroup) {
        shmd_region *region = region_of(64 * MIB, SHMD_RIGHTS_READ_WRITE);
        int r;

        cgroup_enter(cgroup);
        r = shmd_reserve(region);
        REQUIRE(bytes_allocated(region) == 64 * MIB);
        shmd_region_free(region);
        return r;
}

TEST(client_reserve, a_shortage_in_a_memory_cgroup_is_enomem_with_the_process_alive) {
        Cgroup cgroup;

        limited_begin(&cgroup);
        cr_assert_eq(run_as(0, 0, reserve_too_much, &cgroup), -ENOMEM);
        cr_assert_eq(run_as(0, 0, reserve_what_fits, &cgroup), 0);
        cgroup_end(&cgroup);
}

TEST(client_reserve, the_limit_of_a_cgroup_above_counts) {
        Cgroup cgroup, inner;

        limited_begin(&cgroup);
        REQUIRE(cgroup_begin_in(&inner, &cgroup), "%s", strerror(errno));
        cr_assert_eq(run_as(0, 0, reserve_too_much, &inner), -ENOMEM);
        cr_assert_eq(run_as(0, 0, reserve_what_fits, &inner), 0);
        cgroup_end(&inner);
        cgroup_end(&cgroup);
}

/* -- through create and batch --------------------------------------------------------- */

static void script_creates(Peer *peer) {
        Shmd__Granted a = SHMD__GRANTED__INIT, b = SHMD__GRANTED__INIT;
        Shmd__Granted *items[] = { &a, &b };
        const Shmd__Create *create = peer_expect(peer, MESSAGE_CREATE);
        int fds[] = { peer_memfd(MIB, 0), peer_memfd(256 * MIB, 0) };

        REQUIRE(create->flags == SHMD_CREATE_RESERVE);
        peer_grant(peer, 1, create->size, SHMD_RIGHTS_READ_WRITE);
        peer_expect(peer, MESSAGE_BATCH);
        a.size = MIB, b.size = 256 * MIB;
        a.rights = b.rights = 2, a.granted = b.granted = true;
        peer_reply(peer, MESSAGE(BatchReply, batch_reply, .n_items = 2, .items = items), fds, 2);
        peer_expect_end(peer);
}

static int create_with_reserve(void *cgroup) {
        struct shmd_create_options small = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_create_options large = SHMD_CREATE_OPTIONS_INIT;
        const struct shmd_batch_item items[] = { { .create = &small }, { .path = "/large", .create = &large } };
        shmd *client = peer_start_and_connect(script_creates);
        size_t n_fds = test_count_fds();
        shmd_region *regions[2];

        small.size = MIB;
        large.size = 256 * MIB;
        large.flags = SHMD_CREATE_RESERVE;
        cgroup_enter(cgroup);
        REQUIRE(shmd_create(client, "/large", &large, regions, SHMD_TIMEOUT_DEFAULT) == -ENOMEM);
        REQUIRE(regions[0] == NULL);
        REQUIRE(shmd_refusal(client)->error == -ENOMEM && shmd_refusal(client)->code == 0);
        REQUIRE(shmd_batch(client, items, 2, regions, SHMD_TIMEOUT_DEFAULT) == -ENOMEM);
        REQUIRE(regions[0] == NULL && regions[1] == NULL);
        REQUIRE(shmd_refusal(client)->index == 1);
        REQUIRE(test_count_fds() == n_fds);
        peer_join(client);
        return 0;
}

TEST(client_reserve, a_create_that_cannot_reserve_returns_no_region) {
        Cgroup cgroup;

        limited_begin(&cgroup);
        cr_assert_eq(run_as(0, 0, create_with_reserve, &cgroup), 0);
        cgroup_end(&cgroup);
}

static void script_create_fitting(Peer *peer) {
        const Shmd__Create *create = peer_expect(peer, MESSAGE_CREATE);

        peer_grant(peer, 1, create->size, SHMD_RIGHTS_READ_WRITE);
        peer_expect_end(peer);
}

TEST(client_reserve, a_create_with_reserve_returns_a_region_that_is_all_there) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_create_fitting);
        shmd_region *region;

        options.size = 17 * MIB;
        options.flags = SHMD_CREATE_RESERVE;
        cr_assert_eq(shmd_create(client, "/a", &options, &region, SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(bytes_allocated(region), 17 * MIB);
        shmd_region_free(region);
        peer_join(client);
}

/* -- huge pages ------------------------------------------------------------------------ */

TEST(client_reserve, huge_pages_that_run_out_are_enomem_and_given_back) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        const uint64_t page_size = 2 * MIB;
        shmd_region *region, *too_large;
        size_t length;
        void *address;

        test_needs_root();
        if (!test_huge_pages_begin(4))
                test_skip("no huge pages can be had here");

        region = peer_huge_region(2 * page_size, 21);
        cr_assert_eq(shmd_region_page_size(region), page_size);
        cr_assert_eq(shmd_reserve(region), 0);
        cr_assert_eq(bytes_allocated(region), 2 * page_size);
        options.flags = SHMD_MAP_POPULATE;
        options.offset = page_size;
        cr_assert_eq(shmd_map(region, &options, &address, &length), 0);
        cr_assert_eq(length, page_size);
        cr_assert_eq(shmd_unmap(address, length), 0);
        options.offset = 4096;
        cr_assert_eq(shmd_map(region, &options, &address, &length), -EINVAL);

        too_large = peer_huge_region((test_huge_pages_free() + 100) * page_size, 21);
        cr_assert_eq(shmd_reserve(too_large), -ENOMEM);
        cr_assert_eq(bytes_allocated(too_large), 0);
        shmd_region_free(too_large);
        shmd_region_free(region);
        test_huge_pages_end();
}

/* -- figures of our choice ------------------------------------------------------------ */

/* In a mount namespace of its own, where a file system of its own is mounted on /run. */
#define FAKE "/run/shmd-room"

static void make_file(const char *path, const char *text) {
        FILE *file = fopen(path, "we");

        REQUIRE(file != NULL, "%s: %s", path, strerror(errno));
        REQUIRE(fputs(text, file) >= 0);
        REQUIRE(fclose(file) == 0);
}

static void make_number(const char *path, uint64_t number) {
        char text[32];

        (void)snprintf(text, sizeof(text), "%" PRIu64 "\n", number);
        make_file(path, text);
}

static void cover(const char *path, const char *text) {
        make_file(FAKE "/cover", text);
        REQUIRE(mount(FAKE "/cover", path, NULL, MS_BIND, NULL) == 0, "%s: %s", path, strerror(errno));
        REQUIRE(unlink(FAKE "/cover") == 0);
}

static void enter_namespace(void) {
        REQUIRE(unshare(CLONE_NEWNS) == 0);
        REQUIRE(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
        REQUIRE(mount("tmpfs", "/run", "tmpfs", 0, NULL) == 0);
        REQUIRE(mkdir(FAKE, 0755) == 0);
}

static int try_reserve(uint64_t size) {
        shmd_region *region = region_of(size, SHMD_RIGHTS_READ_WRITE);
        int r = shmd_reserve(region);

        REQUIRE(bytes_allocated(region) == (r ? 0 : size));
        shmd_region_free(region);
        return r;
}

/* A step of 16 MiB and 64 MiB more is what there has to be. */
static int look_at_meminfo(void *userdata) {
        enter_namespace();
        cover("/proc/meminfo", "MemTotal:  999999999 kB\nMemAvailable:      81920 kB\nBuffers: 1 kB\n");
        REQUIRE(try_reserve(16 * MIB) == 0);
        REQUIRE(umount("/proc/meminfo") == 0);
        cover("/proc/meminfo", "MemTotal:  999999999 kB\nMemAvailable:      81919 kB\nBuffers: 1 kB\n");
        REQUIRE(try_reserve(16 * MIB) == -ENOMEM);
        REQUIRE(try_reserve(16 * MIB - 1024 * 1024) == 0);
        REQUIRE(try_reserve(15 * MIB) == 0);
        return 0;
}

TEST(client_reserve, the_step_and_64_mib_more_have_to_be_available) {
        test_needs_namespaces(CLONE_NEWNS);
        cr_assert_eq(run_as(0, 0, look_at_meminfo, NULL), 0);
}

/* A hierarchy of version 2 mounted from /top, with the process in /top/a b/c. */
static void make_unified(void) {
        char mountinfo[512];

        REQUIRE(mkdir(FAKE "/cgroup mount", 0755) == 0);
        REQUIRE(mkdir(FAKE "/cgroup mount/a b", 0755) == 0);
        REQUIRE(mkdir(FAKE "/cgroup mount/a b/c", 0755) == 0);
        make_file(FAKE "/cgroup mount/a b/c/memory.max", "max\n");
        make_number(FAKE "/cgroup mount/a b/c/memory.current", 5 * MIB);
        make_number(FAKE "/cgroup mount/a b/memory.max", 100 * MIB);
        make_file(FAKE "/cgroup mount/a b/memory.stat", "anon 1\nfile 7777777\ninactive_file 4096\nactive_file 5\n");
        (void)snprintf(mountinfo, sizeof(mountinfo),
                       "20 1 0:5 / / rw - ext4 /dev/root rw\n"
                       "22 20 0:7 /elsewhere /elsewhere rw shared:3 - cgroup cgroup rw,memory_not\n"
                       "21 20 0:6 /top %s/cgroup\\040mount rw,relatime shared:2 master:1 - cgroup2 cgroup2 rw\n", FAKE);
        cover("/proc/self/mountinfo", mountinfo);
        cover("/proc/self/cgroup", "9:name=systemd:/\n3:cpu,cpuacct:/x\n0::/top/a b/c\n");
}

static int look_at_unified(void *userdata) {
        enter_namespace();
        make_unified();
        make_number(FAKE "/cgroup mount/a b/memory.current", 20 * MIB);
        REQUIRE(try_reserve(16 * MIB) == 0);
        /* A page more in use, and a page of it idle. */
        make_number(FAKE "/cgroup mount/a b/memory.current", 20 * MIB + 4096);
        REQUIRE(try_reserve(16 * MIB) == 0);
        make_number(FAKE "/cgroup mount/a b/memory.current", 20 * MIB + 4097);
        REQUIRE(try_reserve(16 * MIB) == -ENOMEM);
        /* More in use than allowed: what is over has to go first. */
        make_number(FAKE "/cgroup mount/a b/memory.current", 101 * MIB);
        make_file(FAKE "/cgroup mount/a b/memory.stat", "inactive_file 84934656\n");
        REQUIRE(try_reserve(16 * MIB) == 0);
        make_file(FAKE "/cgroup mount/a b/memory.stat", "inactive_file 84934655\n");
        REQUIRE(try_reserve(16 * MIB) == -ENOMEM);
        /* Without files to read there is no limit to keep. */
        REQUIRE(unlink(FAKE "/cgroup mount/a b/memory.max") == 0);
        REQUIRE(try_reserve(16 * MIB) == 0);
        return 0;
}

TEST(client_reserve, every_level_of_cgroup_v2_is_looked_at) {
        test_needs_namespaces(CLONE_NEWNS);
        cr_assert_eq(run_as(0, 0, look_at_unified, NULL), 0);
}

static int look_at_legacy(void *userdata) {
        enter_namespace();
        REQUIRE(mkdir(FAKE "/memory", 0755) == 0);
        REQUIRE(mkdir(FAKE "/memory/a", 0755) == 0);
        cover("/proc/self/mountinfo",
              "31 23 0:28 / /x rw - tmpfs tmpfs rw,mode=755\n"
              "35 31 0:32 / " FAKE "/memory rw,relatime - cgroup cgroup rw,cpu,memory\n");
        cover("/proc/self/cgroup", "4:cpu,memory:/a\n0::/\n");
        /* The process's own group has room, and the one above has not. */
        make_number(FAKE "/memory/a/memory.limit_in_bytes", UINT64_C(9223372036854771712));
        make_number(FAKE "/memory/a/memory.usage_in_bytes", MIB);
        make_number(FAKE "/memory/memory.limit_in_bytes", 100 * MIB);
        make_number(FAKE "/memory/memory.usage_in_bytes", 20 * MIB);
        REQUIRE(try_reserve(16 * MIB) == 0);
        make_number(FAKE "/memory/memory.usage_in_bytes", 20 * MIB + 1);
        REQUIRE(try_reserve(16 * MIB) == -ENOMEM);
        make_file(FAKE "/memory/memory.stat", "inactive_file 0\ntotal_inactive_file 1\n");
        REQUIRE(try_reserve(16 * MIB) == 0);
        return 0;
}

TEST(client_reserve, every_level_of_cgroup_v1_is_looked_at) {
        test_needs_namespaces(CLONE_NEWNS);
        cr_assert_eq(run_as(0, 0, look_at_legacy, NULL), 0);
}

/* A container that shows its own group as the root of the mount, and a path from outside. */
static int look_at_outside(void *userdata) {
        enter_namespace();
        REQUIRE(mkdir(FAKE "/cgroup", 0755) == 0);
        cover("/proc/self/mountinfo", "35 31 0:32 /docker/x " FAKE "/cgroup rw - cgroup2 cgroup2 rw\n");
        cover("/proc/self/cgroup", "0::/../../elsewhere\n");
        make_number(FAKE "/cgroup/memory.max", 100 * MIB);
        make_number(FAKE "/cgroup/memory.current", 20 * MIB);
        REQUIRE(try_reserve(16 * MIB) == 0);
        make_number(FAKE "/cgroup/memory.current", 20 * MIB + 1);
        REQUIRE(try_reserve(16 * MIB) == -ENOMEM);
        return 0;
}

TEST(client_reserve, a_path_outside_of_the_mount_still_has_the_mounts_own_limit) {
        test_needs_namespaces(CLONE_NEWNS);
        cr_assert_eq(run_as(0, 0, look_at_outside, NULL), 0);
}
