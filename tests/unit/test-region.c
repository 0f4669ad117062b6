/* daemon/core/region: a region lives as long as the kernel says that somebody holds it, and is
 * paid for exactly as long. */

#include "buildinfo.h"
#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buildinfo.h"
#include "util/memfd.h"
#include "util/probe.h"

static House house;
static Account *alice, *bob;

static void take_accounts(void) {
        alice = house_account(&house, ALICE);
        bob = house_account(&house, BOB);
}

static void begin(void) {
        house_open(&house);
        take_accounts();
}

/* On a kernel that lacks something. */
static void begin_without(ProbeFeature feature) {
        REQUIRE(probe_run() == 0);
        probe_force(feature, false);
        house_open_forced(&house);
        take_accounts();
}

static void end(void) {
        alice = account_unref(alice);
        bob = account_unref(bob);
        house_close(&house);
}

static uint64_t bytes(const Account *account) {
        return account->used[ACCOUNT_BYTES];
}

static int make(Region **ret, uint64_t size, unsigned int huge_shift, Shortage *shortage) {
        RegionSpec spec = { .size = size, .huge_shift = huge_shift, .permissions = { ALICE, ALICE, 0600 } };

        return region_new(ret, &house.regions, alice, &spec, shortage);
}

/* What the kernel has allocated for an inode. */
static uint64_t blocks(int fd) {
        struct stat st;

        REQUIRE(fstat(fd, &st) == 0);
        return (uint64_t)st.st_blocks;
}

static int open_path(const Region *region) {
        char path[64];
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", region->fd);
        fd = open(path, O_PATH | O_CLOEXEC);
        REQUIRE(fd >= 0);
        return fd;
}

/* -- making ------------------------------------------------------------------------------- */

TEST(region, its_owner_pays_for_whole_pages) {
        static const uint64_t cases[][2] = {
                { 0, 0 }, { 1, 4096 }, { 4095, 4096 }, { 4096, 4096 }, { 4097, 8192 },
                { UINT64_C(1) << 40, UINT64_C(1) << 40 }, { INT64_MAX, UINT64_C(1) << 63 },
        };

        begin();
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
                Region *region = house_region(&house, alice, cases[i][0]);

                cr_assert_eq(region->size, cases[i][0]);
                cr_assert_eq(bytes(alice), cases[i][1]);
                cr_assert_eq(region_charged(region), cases[i][1]);
                cr_assert_eq(alice->used[ACCOUNT_REGIONS], 1);
                region = region_free(region);
                cr_assert_eq(bytes(alice), 0);
                cr_assert_eq(alice->used[ACCOUNT_REGIONS], 0);
        }
        end();
}

TEST(region, the_limit_is_exact_and_comes_back) {
        Region *region = NULL;
        Shortage s;

        begin();
        alice->max[ACCOUNT_BYTES] = 8192;
        cr_assert_eq(make(&region, 8193, 0, &s), REGION_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_USER && s.slot == ACCOUNT_BYTES && s.asked == 12288 && s.left == 8192);
        cr_assert_eq(make(&region, 8192, 0, &s), 0);
        cr_assert_eq(bytes(alice), 8192);
        region = region_free(region);
        cr_assert_eq(make(&region, 8191, 0, &s), 0);
        region = region_free(region);
        alice->max[ACCOUNT_REGIONS] = 0;
        cr_assert_eq(make(&region, 0, 0, &s), REGION_E_QUOTA);
        cr_assert_eq(s.slot, ACCOUNT_REGIONS);
        cr_assert_eq(house.regions.n, 0);
        end();
}

TEST(region, a_sparse_size_counts_in_full) {
        Region *region = NULL;
        Shortage s;

        begin();
        alice->max[ACCOUNT_BYTES] = UINT64_C(1) << 30;
        cr_assert_eq(make(&region, UINT64_C(1) << 40, 0, &s), REGION_E_QUOTA);
        cr_assert_eq(s.asked, UINT64_C(1) << 40);
        end();
}

TEST(region, sizes_that_are_impossible_are_refused_and_cost_nothing) {
        static const uint64_t sizes[] = { UINT64_MAX, UINT64_MAX - 4095, UINT64_MAX - 4096, UINT64_C(1) << 63 };
        Region *region = NULL;

        begin();
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i)
                cr_assert_eq(make(&region, sizes[i], 0, NULL), REGION_E_SIZE, "%zu", i);
        cr_assert_eq(make(&region, 4096, 21, NULL), REGION_E_SIZE, "not a multiple of its pages");
        cr_assert_eq(make(&region, (UINT64_C(2) << 20) + 1, 21, NULL), REGION_E_SIZE);
        cr_assert_eq(make(&region, UINT64_C(1) << 33, 33, NULL), REGION_E_UNSUPPORTED);
        cr_assert_eq(region, NULL);
        cr_assert_eq(bytes(alice), 0);
        cr_assert_eq(house.regions.n, 0);
        end();
}

TEST(region, huge_pages_the_machine_does_not_have_cost_nothing) {
        Region *region = NULL;

        begin();
        cr_assert_eq(make(&region, UINT64_C(1) << 50, 21, NULL), REGION_E_NO_PAGES);
        cr_assert_eq(bytes(alice), 0);
        cr_assert_eq(house.regions.n, 0);
        cr_assert_eq(make(&region, 0, 21, NULL), 0);
        cr_assert_eq(region_charged(region), 0);
        region = region_free(region);
        end();
}

static int make_without_descriptors(void *userdata) {
        struct rlimit none = { 1, 1 };
        Region *region = NULL;

        begin();
        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        REQUIRE(make(&region, 4096, 0, NULL) == REGION_E_NO_MEMORY);
        REQUIRE(!region && bytes(alice) == 0 && house.regions.n == 0);
        end();
        return 0;
}

TEST(region, without_descriptors_there_is_none_and_it_costs_nothing) {
        house_expect_child(make_without_descriptors, NULL);
}

static int make_with_failing_call(void *userdata) {
        static const int calls[] = { SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(fchmod), SCMP_SYS(openat) };
        int i = *(int *)userdata;
        Region *region = NULL;

        begin();
        house_deny(EIO, calls[i], 0, NULL);
        REQUIRE(make(&region, 4096, 0, NULL) == -EIO);
        REQUIRE(!region && bytes(alice) == 0 && house.regions.n == 0 && alice->n_refs == 1);
        end();
        return 0;
}

TEST(region, a_failure_at_any_step_rolls_everything_back) {
        for (int i = 0; i < 4; ++i)
                house_expect_child(make_with_failing_call, &i);
}

TEST(region, numbers_are_never_used_again) {
        uint64_t last = 0;

        begin();
        for (int i = 0; i < 10; ++i) {
                Region *region = house_region(&house, alice, 1);

                cr_assert_gt(region->id, last);
                last = region->id;
                cr_assert_eq(regions_find(&house.regions, last), region);
                region = region_free(region);
                cr_assert_eq(regions_find(&house.regions, last), NULL);
        }
        end();
}

TEST(region, discarding_takes_its_name_along) {
        Region *region;

        begin();
        (void)house_mkdir(&house, alice, "/d", 0755);
        region = house_named(&house, alice, "/d/x", 4096);
        cr_assert_eq(region_discard(region), NULL);
        cr_assert_eq(house_spot(&house, "/d/x").node, NULL);
        cr_assert_eq(house.regions.n_named, 0);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_BYTES], 0);
        cr_assert_eq(bytes(alice), 0);
        region = house_region(&house, alice, 1);
        cr_assert_eq(region_discard(region), NULL);
        cr_assert_eq(region_discard(NULL), NULL);
        end();
}

/* -- life and death ------------------------------------------------------------------------ */

TEST(region, a_name_keeps_it_and_nobody_else_must) {
        Region *region;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        cr_assert_eq(region->state, REGION_STATE_NAMED);
        cr_assert_eq(region_more(region)->watch, -1, "nobody waits for its end");
        regions_sweep(&house.regions);
        house_turn(&house);
        cr_assert_eq(house.regions.n_named, 1);
        cr_assert_eq(bytes(alice), 4096);
        end();
}

TEST(region, unlinked_and_held_by_nobody_it_goes) {
        Region *region;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        region_unlink(region);
        cr_assert_eq(house.regions.n_condemned, 1);
        cr_assert_eq(bytes(alice), 4096, "the charge ends with the memory, not with the name");
        house_turn(&house);
        cr_assert_eq(house.regions.n, 0);
        cr_assert_eq(house.regions.n_released, 1);
        cr_assert_eq(bytes(alice), 0);
        end();
}

TEST(region, unlinked_while_held_it_stays_charged_until_the_last_close) {
        Region *region;
        uint64_t id;
        int a, b;

        begin();
        region = house_named(&house, alice, "/x", 8192);
        id = region->id;
        a = house_hold(region, true);
        b = house_hold(region, false);
        region_unlink(region);
        cr_assert_eq(region->state, REGION_STATE_ORPHAN);
        cr_assert_eq(bytes(alice), 8192);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 1);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_BYTES], 0, "the directory has no share in it any more");
        cr_assert_eq(house_spot(&house, "/x").node, NULL);
        cr_assert_eq(regions_find(&house.regions, id), region);

        close_fd(a);
        for (int i = 0; i < 3; ++i)
                house_turn(&house);
        cr_assert_eq(bytes(alice), 8192);
        cr_assert_eq(region->state, REGION_STATE_ORPHAN);

        close_fd(b);
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(bytes(alice), 0);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 0);
        cr_assert_eq(house.regions.n_released, 1);
        cr_assert_eq(house.regions.n_orphans, 0);
        end();
}

TEST(region, a_mapping_alone_keeps_it) {
        Region *region;
        void *map;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REQUIRE(map != MAP_FAILED);
        region_unlink(region);
        close_fd(fd);
        house_turn(&house);
        cr_assert_eq(house.regions.n_orphans, 1);
        *(volatile char *)map = 1;
        REQUIRE(munmap(map, 4096) == 0);
        house_until(&house, house.regions.n == 0);
        end();
}

/* Sends a descriptor and leaves it there. */
static void put_into(int socket, int fd) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { .align = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                                 .cmsg_type = SCM_RIGHTS } };
        struct iovec iov = { .iov_base = (void *)"x", .iov_len = 1 };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                              .msg_controllen = sizeof(control) };

        memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
        REQUIRE(sendmsg(socket, &msg, 0) == 1);
}

/* An orphan that is held by a message in a pair of sockets, and nothing else. */
static void put_region_into(int ends[2]) {
        Region *region = house_named(&house, alice, "/x", 4096);
        int fd = house_hold(region, false);

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        put_into(ends[0], fd);
        close_fd(fd);
        region_unlink(region);
        house_turn(&house);
        cr_assert_eq(house.regions.n_orphans, 1);
}

TEST(region, a_message_in_flight_keeps_it) {
        int ends[2];

        begin();
        put_region_into(ends);
        close_fd(ends[0]);
        close_fd(ends[1]);
        house_until(&house, house.regions.n == 0);
        end();
}

/* The kernel looks for such sockets when a Unix socket is closed somewhere, and here none is. */
TEST(region, attack_086_sockets_that_only_hold_each_other_keep_it_until_a_peer_has_left) {
        int ends[2];

        begin();
        put_region_into(ends);
        regions_sweep(&house.regions);
        house_turn(&house);
        cr_assert(deadline_is_armed(&house.regions.collect), "its process may end after its connection");
        put_into(ends[0], ends[1]);
        put_into(ends[1], ends[0]);
        close_fd(ends[0]);
        close_fd(ends[1]);
        house_until(&house, house.regions.n == 0);
        house_until(&house, !deadline_is_armed(&house.regions.collect));
        end();
}

TEST(region, what_is_still_held_after_events_got_lost_is_asked_again_as_after_an_event) {
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, false);
        region_unlink(region);
        house_turn(&house);
        for (int lost = 0; lost < 2; ++lost) {
                deadline_disarm(&region->more->probe);
                house.regions.overflowed = lost;
                regions_sweep(&house.regions);
                house_until(&house, house.regions.sweep == 0 && !deadline_is_armed(&house.regions.sweep_due));
                cr_assert_eq(deadline_is_armed(&region_more(region)->probe), lost);
        }
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        end();
}

TEST(region, after_a_departure_strays_are_looked_for_three_times_and_then_no_more) {
        int ends[2];

        begin();
        put_region_into(ends);
        regions_sweep(&house.regions);
        house_turn(&house);
        for (unsigned int i = 1; i <= 2; ++i) {
                cr_assert(deadline_is_armed(&house.regions.collect));
                cr_assert_eq(house.regions.n_collects, i);
                deadlines_run(&house.deadlines, house.regions.collect.at);
        }
        cr_assert_not(deadline_is_armed(&house.regions.collect));
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER, "what nobody lets go costs no turn");
        close_fd(ends[0]);
        close_fd(ends[1]);
        house_until(&house, house.regions.n == 0);
        end();
}

static int hold(void *userdata) {
        child_close_fds_but(*(int *)userdata);
        child_arrive(0);
        return 0;
}

TEST(region, the_death_of_a_process_that_holds_it_is_noticed) {
        Child child = CHILD_NULL;
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        child_spawn(&child, hold, &fd);
        close_fd(fd);
        region_unlink(region);
        house_turn(&house);
        cr_assert_eq(house.regions.n_orphans, 1);
        child_kill(&child);
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(bytes(alice), 0);
        end();
}

TEST(region, without_a_name_from_the_start_it_lives_while_somebody_holds_it) {
        Region *region;
        int fd;

        begin();
        region = house_region(&house, alice, 4096);
        fd = house_hold(region, true);
        region_orphan(region);
        region_orphan(region);
        cr_assert_eq(house.regions.n_orphans, 1, "saying it twice is harmless");
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        end();
}

TEST(region, its_memory_is_punched_before_it_is_let_go) {
        Region *region;
        int fd, path;

        begin();
        region = house_named(&house, alice, "/x", 4 * PAGE);
        fd = house_hold(region, true);
        for (int i = 0; i < 4; ++i)
                REQUIRE(pwrite(fd, "x", 1, i * 4096) == 1);
        path = open_path(region);       /* what no lease sees */
        cr_assert_eq(blocks(path), 4 * 8);
        region_unlink(region);
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(blocks(path), 0);
        close_fd(path);
        end();
}

TEST(region, a_full_one_is_punched_in_steps_and_is_charged_until_the_last) {
        const uint64_t size = UINT64_C(50) << 20, step = UINT64_C(16) << 20;
        uint64_t before = 0;
        Region *region;
        int fd, path;

        begin();
        region = house_named(&house, alice, "/x", size);
        fd = house_hold(region, true);
        REQUIRE(fallocate(fd, 0, 0, (off_t)size) == 0, "%s", strerror(errno));
        path = open_path(region);
        close_fd(fd);
        region_unlink(region);
        cr_assert_eq(region_more(region)->punched, 0, "not in the turn of whoever unlinks");
        while (house.regions.n > 0) {
                cr_assert_eq(bytes(alice), size);
                cr_assert_eq(region_more(region)->punched % step, 0);
                cr_assert_geq(region_more(region)->punched, before);
                cr_assert_eq(blocks(path) * 512, size - region_more(region)->punched);
                before = region_more(region)->punched;
                deadlines_run(&house.deadlines, time_now());
        }
        cr_assert_eq(bytes(alice), 0);
        cr_assert_eq(blocks(path), 0);
        close_fd(path);
        end();
}

TEST(region, a_sparse_one_is_empty_at_once_however_large) {
        const uint64_t size = UINT64_C(1) << 42;
        Region *region;
        int fd, path;

        begin();
        region = house_named(&house, alice, "/x", size);
        fd = house_hold(region, true);
        REQUIRE(pwrite(fd, "x", 1, (off_t)size - 1) == 1 && pwrite(fd, "x", 1, 0) == 1);
        path = open_path(region);
        close_fd(fd);
        region_unlink(region);
        cr_assert_eq(bytes(alice), size);
        /* A turn ends with its time; of this one's steps there are many more than a few turns have time for. */
        for (int i = 0; i < 10 && house.regions.n > 0; ++i)
                deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(house.regions.n, 0);
        cr_assert_eq(blocks(path), 0);
        cr_assert_eq(bytes(alice), 0);
        close_fd(path);
        end();
}

TEST(region, condemned_ones_go_in_their_order_and_each_charge_comes_back_once) {
        begin();
        for (int i = 0; i < 100; ++i) {
                Region *region = house_named(&house, i % 2 ? alice : bob, "/x", 4096);

                region_unlink(region);
        }
        cr_assert_eq(house.regions.n_condemned, 100);
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(house.regions.n_released, 100);
        cr_assert_eq(bytes(alice), 0);
        cr_assert_eq(bytes(bob), 0);
        end();
}

TEST(region, a_condemned_one_is_found_by_nobody) {
        Region *region;
        uint64_t id;

        begin();
        region = house_named(&house, alice, "/x", UINT64_C(1) << 42);
        id = region->id;
        region_unlink(region);
        cr_assert_eq(region->state, REGION_STATE_CONDEMNED);
        cr_assert_eq(regions_find(&house.regions, id), NULL);
        end();
}

TEST(region, at_the_end_holders_are_not_waited_for) {
        Region *region;
        char byte = 0;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        REQUIRE(pwrite(fd, "x", 1, 0) == 1);
        end();
        cr_assert_eq(pread(fd, &byte, 1, 0), 1);
        cr_assert_eq(byte, 'x', "they keep what they hold");
        close_fd(fd);
}

/* -- when to ask ---------------------------------------------------------------------------- */

/* Waits for what inotify has to say, and passes it on. */
static void take_event(void) {
        struct pollfd p = { .fd = regions_fd(&house.regions), .events = POLLIN };

        REQUIRE(poll(&p, 1, TEST_PATIENCE_MS) == 1);
        regions_dispatch(&house.regions);
}

TEST(region, an_event_that_found_it_still_held_is_followed_by_questions) {
        Region *region;
        int a, b;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        a = house_hold(region, true);
        b = house_hold(region, true);
        region_unlink(region);
        cr_assert_not(deadline_is_armed(&region_more(region)->probe), "held when it lost its name is the usual case");
        close_fd(a);
        take_event();
        cr_assert_eq(region->state, REGION_STATE_ORPHAN);
        cr_assert(deadline_is_armed(&region_more(region)->probe));

        /* The last reference goes; whatever event comes of it is not looked at. */
        close_fd(b);
        deadlines_run(&house.deadlines, region->more->probe.at);
        deadlines_run(&house.deadlines, time_now());
        house_until(&house, house.regions.n == 0);
        end();
}

TEST(region, it_asks_after_4_16_64_256_and_1000_ms_and_then_no_more) {
        static const uint64_t ms[] = { 4, 16, 64, 256, 1000 };
        uint64_t before, after;
        Region *region;
        int a, b;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        a = house_hold(region, true);
        b = house_hold(region, true);
        region_unlink(region);
        close_fd(a);
        before = time_now();
        take_event();
        after = time_now();
        for (size_t i = 0; i < 5; ++i) {
                cr_assert(deadline_is_armed(&region_more(region)->probe), "question %zu", i);
                cr_assert_geq(region->more->probe.at, before + ms[i] * NSEC_PER_MSEC);
                cr_assert_leq(region->more->probe.at, after + ms[i] * NSEC_PER_MSEC);
                before = time_now();
                deadlines_run(&house.deadlines, region->more->probe.at);
                after = time_now();
        }
        cr_assert_not(deadline_is_armed(&region_more(region)->probe));

        close_fd(b);
        take_event();
        cr_assert_eq(region->state, REGION_STATE_CONDEMNED, "the next event starts anew");
        end();
}

TEST(region, events_of_a_region_that_has_a_name_again_are_nothing) {
        Region *region;
        Spot spot;
        int fd;

        begin();
        region = house_region(&house, alice, 4096);
        fd = house_hold(region, true);
        region_orphan(region);
        close_fd(fd);
        spot = house_spot(&house, "/x");
        cr_assert_eq(region_link(region, &spot, NULL), 0);
        cr_assert_eq(region->state, REGION_STATE_NAMED);
        cr_assert_eq(region_more(region)->watch, -1);
        cr_assert_eq(house.regions.n_orphans, 0);
        for (int i = 0; i < 3; ++i)
                house_turn(&house);
        cr_assert_eq(house.regions.n, 1);
        cr_assert_eq(bytes(alice), 4096);
        end();
}

TEST(region, events_that_were_lost_are_made_up_for) {
        Region *a, *b, *victim;
        int held_a, held_b, held;

        begin();
        a = house_named(&house, alice, "/a", 0);
        b = house_named(&house, alice, "/b", 0);
        victim = house_named(&house, alice, "/v", 4096);
        held_a = house_hold(a, false);
        held_b = house_hold(b, false);
        held = house_hold(victim, false);
        region_unlink(a);
        region_unlink(b);
        region_unlink(victim);
        /* Two in turn, because equal events are merged. max_queued_events is 16,384 by default. */
        for (int i = 0; i < 17000; ++i)
                close_fd(house_hold(i % 2 ? a : b, false));
        close_fd(held);
        house_until(&house, house.regions.n == 2);
        cr_assert_eq(bytes(alice), 0);
        close_fd(held_a);
        close_fd(held_b);
        end();
}

TEST(region, a_sweep_asks_everyone_and_64_a_turn) {
        Region *regions[150];
        int fds[150];

        begin();
        probe_force(PROBE_INOTIFY, false);
        for (int i = 0; i < 150; ++i) {
                regions[i] = house_named(&house, alice, "/x", 0);
                fds[i] = house_hold(regions[i], false);
                region_unlink(regions[i]);
        }
        cr_assert_eq(house.regions.n_orphans, 150);
        for (int i = 0; i < 150; ++i)
                if (i % 10)
                        close_fd(fds[i]);
        regions_sweep(&house.regions);
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(house.regions.sweep, 150);
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(house.regions.n_orphans, 150 - 64 + 7, "of the first 64 every tenth is held");
        deadlines_run(&house.deadlines, time_now());
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(house.regions.n_orphans, 15);
        house_until(&house, house.regions.n == 15);
        for (int i = 0; i < 150; i += 10)
                close_fd(fds[i]);
        regions_sweep(&house.regions);
        house_until(&house, house.regions.n == 0);
        end();
}

/* What it says so long after a sweep. It looks at the clock itself: what took too long is asked again. */
static RegionsSqueeze squeeze(uint64_t ago, uint64_t waited) {
        for (;;) {
                uint64_t now = time_now();
                RegionsSqueeze answer;

                house.regions.swept_at = now - ago;
                answer = regions_squeeze(&house.regions, waited);
                if (time_now() - now < NSEC_PER_MSEC)
                        return answer;
                while (house.regions.sweep > 0)
                        house_turn(&house);
        }
}

TEST(region, a_shortage_says_whether_it_is_worth_to_come_again) {
        Region *region;
        int a, b;

        begin();
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_SPENT, "there is nothing to be had");
        region = house_named(&house, alice, "/x", 4096);
        a = house_hold(region, false);
        b = house_hold(region, false);
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_SPENT, "what has a name stays");
        region_unlink(region);
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_SOON, "every orphan is asked");
        house_turn(&house);
        cr_assert_eq(house.regions.sweep, 0);
        cr_assert_eq(squeeze(0, 0), REGIONS_SPENT, "asked a moment ago, and held");

        /* An event that nobody looked at yet is looked at; it is still held, but maybe not for long. */
        close_fd(a);
        cr_assert_eq(squeeze(0, 0), REGIONS_LATER);
        cr_assert_eq(house.regions.n_asking, 1);
        cr_assert_eq(squeeze(0, 23 * NSEC_PER_MSEC), REGIONS_LATER);
        cr_assert_eq(squeeze(0, 24 * NSEC_PER_MSEC), REGIONS_SPENT, "two questions are enough");
        cr_assert_eq(squeeze(30 * NSEC_PER_MSEC, 24 * NSEC_PER_MSEC), REGIONS_LATER, "if there were two");
        cr_assert_eq(squeeze(30 * NSEC_PER_MSEC, 124 * NSEC_PER_MSEC), REGIONS_SPENT);

        close_fd(b);
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_SOON, "what is being emptied will be free");
        cr_assert_eq(house.regions.n_asking, 0);
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_SPENT);
        end();
}

TEST(region, sweeps_begin_at_most_ten_times_a_second) {
        Region *region;
        uint64_t swept;
        int fd;

        begin();
        regions_sweep(&house.regions);
        cr_assert_not(deadline_is_armed(&house.regions.sweep_due), "there is nobody to be asked");
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, false);
        region_unlink(region);
        regions_sweep(&house.regions);
        deadlines_run(&house.deadlines, time_now());
        swept = house.regions.swept_at;
        cr_assert_gt(swept, 0);
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(house.regions.sweep, 0);

        for (int i = 0; i < 10; ++i)
                regions_sweep(&house.regions);
        cr_assert_eq(house.regions.sweep_due.at, swept + 100 * NSEC_PER_MSEC);
        deadlines_run(&house.deadlines, swept + 100 * NSEC_PER_MSEC - 1);
        cr_assert_eq(house.regions.sweep, 0);
        deadlines_run(&house.deadlines, swept + 100 * NSEC_PER_MSEC);
        cr_assert_eq(house.regions.sweep, 1);
        close_fd(fd);
        end();
}

/* -- kernels that lack something --------------------------------------------------------------- */

TEST(region, without_inotify_a_timer_asks) {
        Region *region;
        int fd;

        begin_without(PROBE_INOTIFY);
        cr_assert_eq(regions_fd(&house.regions), -1);
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        region_unlink(region);
        for (int i = 0; i < 10; ++i) {
                cr_assert(deadline_is_armed(&region_more(region)->probe), "it goes on for as long as it takes");
                deadlines_run(&house.deadlines, region->more->probe.at);
        }
        cr_assert_eq(bytes(alice), 4096);
        close_fd(fd);
        deadlines_run(&house.deadlines, region->more->probe.at);
        house_until(&house, house.regions.n == 0);
        end();
}

static int run_out_of(void *userdata) {
        int call = *(int *)userdata;
        Region *region;
        int fd;

        REQUIRE(probe_run() == 0);
        house_deny(call == SCMP_SYS(inotify_init1) ? EMFILE : ENOSPC, call, 0, NULL);
        house_open_forced(&house);
        take_accounts();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        region_unlink(region);
        REQUIRE(region_more(region)->watch == -1 && deadline_is_armed(&region_more(region)->probe));
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        REQUIRE(bytes(alice) == 0);
        end();
        return 0;
}

TEST(region, out_of_inotify_instances_or_watches_a_timer_asks) {
        int calls[] = { SCMP_SYS(inotify_init1), SCMP_SYS(inotify_add_watch) };

        for (size_t i = 0; i < 2; ++i)
                house_expect_child(run_out_of, &calls[i]);
}

#ifndef SHMD_SANITIZERS
/* All that can be had, as a list. */
static void **take_all_memory(void) {
        void **all = NULL, **one;

        for (size_t size = 1 << 20; size >= sizeof(RegionMore); size = size * 3 / 4)
                while ((one = malloc(size))) {
                        *one = all;
                        all = one;
                }
        while ((one = malloc(sizeof(RegionMore)))) {
                *one = all;
                all = one;
        }
        return all;
}

static void give_memory_back(void **all) {
        while (all) {
                void **next = *all;

                free(all);
                all = next;
        }
}

static int run_out_of_memory(void *userdata) {
        struct rlimit limit, none;
        Region *region;
        void **all;
        int fd;

        REQUIRE(probe_run() == 0);
        house_open_forced(&house);
        take_accounts();
        region = house_region(&house, alice, 4096);
        fd = house_hold(region, true);
        REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
        none = (struct rlimit){ .rlim_cur = 1, .rlim_max = limit.rlim_max };
        REQUIRE(setrlimit(RLIMIT_AS, &none) == 0);
        all = take_all_memory();
        region_orphan(region);
        REQUIRE(region->state == REGION_STATE_ORPHAN && !region->more && house.regions.n_asked == 0);
        deadlines_run(&house.deadlines, house.regions.overlooked_due.at);
        REQUIRE(!region->more && deadline_is_armed(&house.regions.overlooked_due), "there still is none");
        give_memory_back(all);
        REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
        deadlines_run(&house.deadlines, house.regions.overlooked_due.at);
        REQUIRE(region->more && house.regions.n_asked == 1);
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        end();
        return 0;
}

TEST(region, out_of_memory_an_orphan_is_asked_after_later) {
        house_expect_child(run_out_of_memory, NULL);
}
#endif

static int init_without_permission(void *userdata) {
        Deadlines deadlines;
        Regions regions;

        REQUIRE(probe_run() == 0);
        house_deny(EPERM, SCMP_SYS(inotify_init1), 0, NULL);
        deadlines_init(&deadlines);
        REQUIRE(regions_init(&regions, &deadlines, NULL) == -EPERM);
        return 0;
}

TEST(region, an_error_that_is_no_shortage_is_told_at_the_start) {
        house_expect_child(init_without_permission, NULL);
}

/* Leases do not work here, so marks and connections decide. */
static int live_without_leases(void *userdata) {
        Asker asker = { .session = 7, .uid = ALICE };
        Grant *marked, *unmarked;
        Region *region;
        int fds[2];

        REQUIRE(probe_run() == 0);
        probe_force(PROBE_LEASE, false);
        house_deny(EINVAL, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        house_open_forced(&house);
        take_accounts();
        asker.account = alice;

        region = house_named(&house, alice, "/x", 4096);
        REQUIRE(grant_new(&marked, &fds[0], &house.grants, region, &asker, true, NULL) == 0 && marked->marked);
        region_unlink(region);
        REQUIRE(region->state == REGION_STATE_ORPHAN, "its mark says that it is held");
        close_fd(fds[0]);
        house_until(&house, house.regions.n == 0);

        probe_force(PROBE_MARKER, false);
        region = house_named(&house, alice, "/x", 4096);
        REQUIRE(grant_new(&unmarked, &fds[1], &house.grants, region, &asker, true, NULL) == 0 && !unmarked->marked);
        house.connected = 7;
        region_unlink(region);
        close_fd(fds[1]);
        for (int i = 0; i < 5; ++i)
                house_turn(&house);
        REQUIRE(region->state == REGION_STATE_ORPHAN, "its asker is still connected");
        house.connected = 0;
        regions_sweep(&house.regions);
        house_until(&house, house.regions.n == 0);
        REQUIRE(bytes(alice) == 0);
        end();
        return 0;
}

TEST(region, without_leases_marks_and_connections_decide) {
        house_expect_child(live_without_leases, NULL);
}

/* A holder that nothing explains: the charge ends, and what it has stays its own. */
static int hold_without_leases(void *userdata) {
        Region *region;
        char byte;
        int fd;

        REQUIRE(probe_run() == 0);
        probe_force(PROBE_LEASE, false);
        house_deny(*(int *)userdata, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        house_open_forced(&house);
        take_accounts();
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        REQUIRE(write(fd, "x", 1) == 1);
        region_unlink(region);
        house_until(&house, house.regions.n == 0);
        REQUIRE(bytes(alice) == 0);
        REQUIRE(pread(fd, &byte, 1, 0) == 1 && byte == 'x', "nobody said that it is held by nobody");
        close_fd(fd);
        end();
        return 0;
}

TEST(region, what_the_lease_did_not_call_unheld_is_not_emptied) {
        int errors[] = { EINVAL, EPERM };

        for (size_t i = 0; i < 2; ++i)
                house_expect_child(hold_without_leases, &errors[i]);
}

static int probe_without_memory(void *userdata) {
        Region *region;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        house_deny(ENOMEM, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        region_unlink(region);
        REQUIRE(region->state == REGION_STATE_ORPHAN);
        regions_sweep(&house.regions);
        for (int i = 0; i < 5; ++i)
                house_turn(&house);
        REQUIRE(house.regions.n == 1 && bytes(alice) == 4096);
        end();
        return 0;
}

TEST(region, without_memory_for_an_answer_it_counts_as_held) {
        house_expect_child(probe_without_memory, NULL);
}

/* The size is a file's largest, and what a punch may reach ends there. */
TEST(region, the_largest_one_is_emptied_to_its_end) {
        struct stat st;
        Region *region;
        int fd, path;

        begin();
        region = house_named(&house, alice, "/x", INT64_MAX);
        fd = house_hold(region, true);
        REQUIRE(pwrite(fd, "x", 1, INT64_MAX - 4096) == 1, "%s", strerror(errno));
        path = open_path(region);
        close_fd(fd);
        region_unlink(region);
        house_until(&house, house.regions.n == 0);
        REQUIRE(fstat(path, &st) == 0);
        cr_assert_eq(st.st_blocks, 0);
        close_fd(path);
        end();
}

/* -- interest ------------------------------------------------------------------------------- */

static char news[128];

static void hear(RegionInterest *interest, RegionNews what) {
        static const char *const words[] = { "held ", "unheld ", "granted ", "frozen ", "gone " };

        (void)strcat(strcat(news, interest->userdata ? interest->userdata : ""), words[what]);
}

TEST(region, who_takes_an_interest_hears_that_the_last_holder_let_go_and_the_name_stays) {
        RegionInterest interest;
        Region *region;
        int a, b;

        begin();
        news[0] = '\0';
        region = house_named(&house, alice, "/x", 4096);
        a = house_hold(region, true);
        b = house_hold(region, true);
        cr_assert_eq(region_more(region)->watch, -1, "what nobody is interested in costs nothing");
        cr_assert(region_take_interest(region, &interest, true, hear, NULL));
        cr_assert_neq(region_more(region)->watch, -1);
        close_fd(a);
        take_event();
        cr_assert_str_eq(news, "held ");
        cr_assert(deadline_is_armed(&region_more(region)->probe), "as an orphan is asked again, so is this one");
        close_fd(b);
        take_event();
        cr_assert_str_eq(news, "held unheld ");
        cr_assert_not(deadline_is_armed(&region_more(region)->probe));
        cr_assert(region->state == REGION_STATE_NAMED && house.regions.n_asked == 1);

        region_drop_interest(&interest);
        region_drop_interest(&interest);
        cr_assert(region_more(region)->watch == -1 && house.regions.n_asked == 0);
        close_fd(house_hold(region, true));
        house_turn(&house);
        cr_assert_str_eq(news, "held unheld ");
        end();
}

TEST(region, an_interest_ends_with_the_region_and_one_that_is_not_in_holders_costs_no_watch) {
        RegionInterest first, second;
        Region *region;
        int fd;

        begin();
        news[0] = '\0';
        region = house_named(&house, alice, "/x", 4096);
        cr_assert(region_take_interest(region, &second, false, hear, (void *)"2:"));
        cr_assert_eq(region_more(region)->watch, -1);
        cr_assert_not(region_take_interest(region, &first, true, hear, (void *)"1:"), "nobody holds it");
        region_tell(region, REGION_WAS_FROZEN);
        cr_assert_str_eq(news, "2:frozen 1:frozen ");
        fd = house_hold(region, true);
        region_unlink(region);
        cr_assert_eq(region->state, REGION_STATE_ORPHAN);
        news[0] = '\0';
        close_fd(fd);
        take_event();
        cr_assert_str_eq(news, "2:gone 1:gone ");
        cr_assert(!first.region && !second.region);
        end();
}

TEST(region, an_orphan_that_gets_a_name_is_still_asked_while_somebody_is_interested) {
        RegionInterest interest;
        Region *region;
        Spot spot;
        int fd;

        begin();
        news[0] = '\0';
        region = house_region(&house, alice, 4096);
        fd = house_hold(region, true);
        region_orphan(region);
        (void)region_take_interest(region, &interest, true, hear, NULL);
        spot = house_spot(&house, "/x");
        cr_assert_eq(region_link(region, &spot, NULL), 0);
        close_fd(fd);
        take_event();
        cr_assert_str_eq(news, "unheld ");
        region_unlink(region);
        cr_assert_str_eq(news, "unheld gone ");
        cr_assert(house.regions.n_asked == 0 && house.regions.n_orphans == 0);
        end();
}

static void unname(RegionInterest *interest, RegionNews what) {
        hear(interest, what);
        if (what == REGION_IS_UNHELD)
                region_unlink(interest->region);
}

TEST(region, who_hears_of_it_may_take_its_names_away) {
        RegionInterest first, counted, last;
        Region *region;
        int fd;

        begin();
        news[0] = '\0';
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        (void)region_take_interest(region, &first, true, hear, (void *)"1:");
        (void)region_take_interest(region, &counted, true, unname, (void *)"2:");
        (void)region_take_interest(region, &last, true, hear, (void *)"3:");
        close_fd(fd);
        take_event();
        house_until(&house, house.regions.n == 0);
        cr_assert_str_eq(news, "1:unheld 2:unheld 1:gone 2:gone 3:unheld 3:gone ");
        end();
}

static RegionInterest neighbour;

static void drop_neighbour(RegionInterest *interest, RegionNews what) {
        hear(interest, what);
        region_drop_interest(&neighbour);
        region_drop_interest(interest);
}

TEST(region, who_hears_of_it_may_end_its_own_interest_and_that_of_others) {
        RegionInterest interest;
        Region *region;
        int fd;

        begin();
        news[0] = '\0';
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        (void)region_take_interest(region, &interest, true, drop_neighbour, NULL);
        (void)region_take_interest(region, &neighbour, true, hear, (void *)"neighbour:");
        close_fd(fd);
        take_event();
        cr_assert_str_eq(news, "unheld ");
        cr_assert(region->more->watch == -1 && region->more->n_wanting == 0 && house.regions.n_asked == 0);
        end();
}

TEST(region, events_that_were_lost_are_made_up_for_with_a_name_too) {
        RegionInterest interest;
        Region *region;
        int fd;

        begin();
        news[0] = '\0';
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        (void)region_take_interest(region, &interest, true, hear, NULL);
        /* The event goes unread, as one that was lost. */
        close_fd(fd);
        regions_sweep(&house.regions);
        for (int i = 0; i < 3; ++i)
                deadlines_run(&house.deadlines, time_now());
        cr_assert_str_eq(news, "unheld ");
        region_drop_interest(&interest);
        end();
}

TEST(region, with_an_interest_and_no_inotify_a_timer_asks) {
        RegionInterest interest;
        Region *region;
        int fd;

        begin_without(PROBE_INOTIFY);
        news[0] = '\0';
        region = house_named(&house, alice, "/x", 4096);
        fd = house_hold(region, true);
        cr_assert(region_take_interest(region, &interest, true, hear, NULL));
        cr_assert(deadline_is_armed(&region_more(region)->probe));
        close_fd(fd);
        deadlines_run(&house.deadlines, region->more->probe.at);
        cr_assert_str_eq(news, "unheld ");
        region_drop_interest(&interest);
        cr_assert_not(deadline_is_armed(&region_more(region)->probe));
        end();
}

/* -- names ----------------------------------------------------------------------------------- */

TEST(region, publishing_makes_the_one_that_had_the_name_an_orphan) {
        Region *old, *new;
        Spot spot;
        int fd;

        begin();
        old = house_named(&house, alice, "/x", 4096);
        fd = house_hold(old, true);
        new = house_region(&house, bob, 8192);
        spot = house_spot(&house, "/x");
        cr_assert_eq(region_link(new, &spot, NULL), 0);
        cr_assert_eq(house_spot(&house, "/x").node->region, new);
        cr_assert_null(region_name(old));
        cr_assert_eq(old->state, REGION_STATE_ORPHAN);
        cr_assert_eq(house.regions.n_named, 1);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_BYTES], 8192);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_REGIONS], 1);
        cr_assert_eq(bytes(alice), 4096, "its owner pays while it is held");
        close_fd(fd);
        house_until(&house, house.regions.n == 1);
        cr_assert_eq(bytes(alice), 0);

        new = house_region(&house, alice, 4096);
        spot = house_spot(&house, "/x");
        cr_assert_eq(region_link(new, &spot, NULL), 0);
        house_until(&house, house.regions.n == 1);
        cr_assert_eq(bytes(bob), 0, "one that nobody held goes at once");
        end();
}

TEST(region, a_full_directory_has_room_for_what_takes_a_name_over) {
        Region *old, *new;
        Directory *d;
        Shortage s;
        Spot spot;
        int fd;

        begin();
        d = house_mkdir(&house, alice, "/d", 0755);
        d->account->max[ACCOUNT_BYTES] = 4096;
        d->account->max[ACCOUNT_REGIONS] = 1;
        old = house_named(&house, alice, "/d/x", 4096);
        fd = house_hold(old, true);

        new = house_region(&house, bob, 8192);
        spot = house_spot(&house, "/d/x");
        cr_assert_eq(region_link(new, &spot, &s), REGION_E_QUOTA, "but not for a larger one");
        cr_assert(s.asked == 8192 && s.limit == 4096);
        cr_assert(region_name(old) && house_spot(&house, "/d/x").node->region == old);
        cr_assert_eq(d->account->used[ACCOUNT_BYTES], 4096);
        cr_assert_eq(d->account->used[ACCOUNT_REGIONS], 1);
        new = region_free(new);

        new = house_region(&house, bob, 4096);
        cr_assert_eq(region_link(new, &spot, &s), 0);
        cr_assert_eq(d->account->used[ACCOUNT_BYTES], 4096);
        cr_assert_eq(old->state, REGION_STATE_ORPHAN);
        close_fd(fd);
        end();
}

TEST(region, one_that_nobody_holds_costs_no_watch) {
        Region *region;

        begin();
        region = house_named(&house, alice, "/x", UINT64_C(1) << 42);
        region_unlink(region);
        cr_assert_eq(region->state, REGION_STATE_CONDEMNED);
        cr_assert_eq(region_more(region)->watch, -1);
        end();
}

TEST(region, a_directory_over_its_limit_takes_no_name_and_nothing_changes) {
        Region *region;
        Directory *d;
        Shortage s;
        Spot spot;

        begin();
        d = house_mkdir(&house, alice, "/d", 0755);
        d->account->max[ACCOUNT_BYTES] = 4096;
        region = house_region(&house, alice, 4097);
        spot = house_spot(&house, "/d/x");
        cr_assert_eq(region_link(region, &spot, &s), REGION_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_DIRECTORY && s.slot == ACCOUNT_BYTES && s.asked == 8192 && s.left == 4096);
        cr_assert_null(region_name(region));
        cr_assert_eq(house_spot(&house, "/d/x").node, NULL);
        cr_assert_eq(house.tree.root->account->used[ACCOUNT_BYTES], 0);
        region = region_free(region);

        region = house_named(&house, alice, "/d/x", 4096);
        region = house_region(&house, alice, 1);
        spot = house_spot(&house, "/d/y");
        cr_assert_eq(region_link(region, &spot, &s), REGION_E_QUOTA);
        region = region_free(region);
        end();
}

TEST(region, a_new_owner_takes_the_charge_over_or_nothing_changes) {
        Region *region;
        Shortage s;

        begin();
        region = house_named(&house, alice, "/x", 8192);
        bob->max[ACCOUNT_BYTES] = 8191;
        cr_assert_eq(region_chown(region, bob, &s), REGION_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_USER && s.uid == BOB && s.asked == 8192 && s.left == 8191);
        cr_assert_eq(bytes(alice), 8192);
        cr_assert_eq(bytes(bob), 0);
        bob->max[ACCOUNT_BYTES] = 8192;
        cr_assert_eq(region_chown(region, bob, &s), 0);
        cr_assert_eq(bytes(alice), 0);
        cr_assert_eq(bytes(bob), 8192);
        cr_assert_eq(alice->used[ACCOUNT_REGIONS], 0);
        cr_assert_eq(region_chown(region, bob, &s), 0, "to itself it is nothing");
        cr_assert_eq(bytes(bob), 8192);
        end();
}

TEST(region, seals_are_asked_again_only_where_they_may_change) {
        RegionSpec spec = { .size = 4096, .freezable = true };
        Region *plain, *freezable;
        uint32_t sealed = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

        begin();
        plain = house_region(&house, alice, 4096);
        cr_assert_eq(region_new(&freezable, &house.regions, alice, &spec, NULL), 0);
        cr_assert_eq(region_seals(plain) & sealed, sealed);
        cr_assert_eq(region_seals(freezable) & sealed, F_SEAL_GROW | F_SEAL_SHRINK);
        REQUIRE(fcntl(freezable->fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        cr_assert(region_seals(freezable) & F_SEAL_WRITE);
        freezable = region_free(freezable);
        plain = region_free(plain);
        end();
}

TEST(region, one_that_is_frozen_goes_like_any_other) {
        RegionSpec spec = { .size = 4096, .freezable = true };
        Region *region;
        int fd;

        begin();
        cr_assert_eq(region_new(&region, &house.regions, alice, &spec, NULL), 0);
        fd = house_hold(region, true);
        REQUIRE(pwrite(fd, "x", 1, 0) == 1 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        region_orphan(region);
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(bytes(alice), 0);
        end();
}

/* -- watch first, ask second ---------------------------------------------------------------------- */

/* The broker of this test is a traced child, and the test holds its region. At one system call of
 * region_unlink() after the other the test lets go; wherever that is, it must be noticed. */
static void be_traced(volatile int *ret_fd) {
        Region *region;

        begin();
        region = house_named(&house, alice, "/x", 4096);
        *ret_fd = region->fd;
        REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0, "%s", strerror(errno));
        (void)raise(SIGSTOP);
        region_unlink(region);
        (void)raise(SIGSTOP);
        for (int i = 0; i < 3000 && house.regions.n > 0; ++i) {
                house_turn(&house);
                test_sleep_ms(1);
        }
        REQUIRE(house.regions.n == 0, "nobody noticed");
        REQUIRE(bytes(alice) == 0);
        end();
        _exit(0);
}

static int hold_region_of(pid_t pid, int fd) {
        char path[64];
        int held;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        held = open(path, O_RDWR | O_CLOEXEC);
        REQUIRE(held >= 0, "%s", strerror(errno));
        return held;
}

/* Lets go at system call stop number `at`. Return: whether there were that many. */
static bool let_go_at(unsigned int at, volatile int *fd) {
        int status, held = -1;
        bool gone = false;
        pid_t pid = fork();

        REQUIRE(pid >= 0);
        if (pid == 0)
                be_traced(fd);
        REQUIRE(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "status %#x", status);
        held = hold_region_of(pid, *fd);
        REQUIRE(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) == 0);
        for (unsigned int i = 0;; ++i) {
                REQUIRE(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0);
                REQUIRE(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "status %#x", status);
                if (WSTOPSIG(status) == SIGSTOP)
                        break;
                if (i == at) {
                        held = close_fd(held);
                        gone = true;
                }
        }
        held = close_fd(held);
        REQUIRE(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
        status = test_wait_pid(pid);
        REQUIRE(status == 0, "let go at stop %u: status %#x", at, status);
        return gone;
}

TEST(region, whenever_the_last_holder_lets_go_while_the_name_goes_it_is_noticed) {
        volatile int *fd = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        unsigned int at = 0;

        REQUIRE(fd != MAP_FAILED);
        while (let_go_at(at, fd))
                ++at;
        cr_assert_geq(at, 4, "at least a watch and a question, each with a stop before and behind");
        (void)munmap((void *)fd, 4096);
}

/* -- doorbells ------------------------------------------------------------------------------- */

static Region *bell_of(Region *region) {
        Region *page = NULL;

        REQUIRE(region_bell(region, &page, NULL) == 0 && page);
        return page;
}

TEST(region, a_doorbell_is_one_page_of_the_owners_made_once) {
        Region *region, *page;
        Shortage shortage;

        begin();
        region = house_named(&house, alice, "/x", 1);
        page = bell_of(region);
        cr_assert_eq(bell_of(region), page);
        cr_assert(page->size == PAGE && page->is_bell);
        cr_assert(region_rings_for(page) == region && region_page(region) == page);
        cr_assert(bytes(alice) == 2 * PAGE && alice->used[ACCOUNT_REGIONS] == 2);

        region = house_named(&house, alice, "/y", 1);
        alice->max[ACCOUNT_REGIONS] = 3;
        cr_assert_eq(region_bell(region, &page, &shortage), REGION_E_QUOTA);
        cr_assert(shortage.slot == ACCOUNT_REGIONS && !region_page(region));
        end();
}

TEST(region, a_doorbell_that_nobody_holds_goes_with_its_region) {
        Region *region;

        begin();
        region = house_named(&house, alice, "/x", 1);
        (void)bell_of(region);
        region_unlink(region);
        house_until(&house, house.regions.n == 0);
        cr_assert(bytes(alice) == 0 && alice->used[ACCOUNT_REGIONS] == 0);
        end();
}

TEST(region, a_doorbell_that_is_held_outlives_its_region_until_it_is_let_go) {
        Region *region, *page;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 1);
        page = bell_of(region);
        fd = house_hold(page, false);
        region_unlink(region);
        house_until(&house, house.regions.n == 1);
        cr_assert(page->state == REGION_STATE_ORPHAN && !region_rings_for(page) && bytes(alice) == PAGE);
        fd = close_fd(fd);
        house_until(&house, house.regions.n == 0);
        cr_assert_eq(bytes(alice), 0);
        end();
}

TEST(region, a_region_that_is_held_keeps_its_doorbell_without_a_name) {
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 1);
        (void)bell_of(region);
        fd = house_hold(region, false);
        region_unlink(region);
        house_turn(&house);
        cr_assert(house.regions.n == 2 && region_page(region) && bytes(alice) == 2 * PAGE);
        fd = close_fd(fd);
        house_until(&house, house.regions.n == 0);
        end();
}

TEST(region, a_doorbell_moves_to_a_new_owner_with_its_region_or_not_at_all) {
        Region *region, *page;
        Shortage shortage;

        begin();
        region = house_named(&house, alice, "/x", 1);
        page = bell_of(region);
        for (uint64_t room = 0; room < 2; ++room) {
                bob->max[ACCOUNT_REGIONS] = room;
                cr_assert_eq(region_chown(region, bob, &shortage), REGION_E_QUOTA);
                cr_assert(bytes(alice) == 2 * PAGE && bytes(bob) == 0 && region_page(region) == page);
        }
        bob->max[ACCOUNT_REGIONS] = 1;
        alice->max[ACCOUNT_REGIONS] = 1;
        cr_assert_eq(region_chown(region, bob, &shortage), REGION_E_QUOTA);
        cr_assert(bytes(alice) == 2 * PAGE && bytes(bob) == 0 && region_page(region) == page, "a lowered limit takes nothing");
        bob->max[ACCOUNT_REGIONS] = 2;
        cr_assert_eq(region_chown(region, bob, &shortage), 0);
        cr_assert(bytes(alice) == 0 && bytes(bob) == 2 * PAGE && page->permissions.uid == BOB);
        end();
}

TEST(region, at_the_end_doorbells_go_like_all_others) {
        Region *region;
        int fd;

        begin();
        region = house_named(&house, alice, "/x", 1);
        fd = house_hold(region, false);
        (void)bell_of(region);
        region_unlink(region);
        end();
        close_fd(fd);
}
