/* daemon/util/memfd: what a region is made of cannot be turned against anybody else. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/wire.h"
#include "util/memfd.h"
#include "util/probe.h"

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

static int make(uint64_t size) {
        MemfdSpec spec = { .id = 0xabc, .size = size };
        int fd;

        REQUIRE(probe_run() == 0);
        REQUIRE(memfd_make(&spec, &fd) == 0);
        return fd;
}

static int reopen(int fd, bool writable) {
        int opened;

        REQUIRE(memfd_reopen(fd, writable, &opened) == 0);
        return opened;
}

/* -- making ---------------------------------------------------------------------------- */

TEST(memfd, it_has_exactly_the_size_asked_for) {
        static const uint64_t sizes[] = { 0, 1, 4095, 4096, 4097, UINT64_C(1) << 40, INT64_MAX };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
                int fd = make(sizes[i]);
                struct stat st;

                cr_assert_eq(fstat(fd, &st), 0);
                cr_assert_eq((uint64_t)st.st_size, sizes[i]);
                cr_assert_eq(st.st_blocks, 0, "nothing is allocated");
                close_fd(fd);
        }
}

TEST(memfd, more_than_a_file_can_be_is_too_large) {
        static const uint64_t sizes[] = { (UINT64_C(1) << 63), (UINT64_C(1) << 63) + 1, UINT64_MAX };

        REQUIRE(probe_run() == 0);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
                int fd = -7;

                cr_assert_eq(memfd_make(&(MemfdSpec){ .size = sizes[i] }, &fd), MEMFD_E_TOO_LARGE);
                cr_assert_eq(fd, -7);
        }
}

TEST(memfd, nobody_but_its_owner_may_open_it_through_proc) {
        int fd = make(4096);
        struct stat st;

        cr_assert_eq(fstat(fd, &st), 0);
        cr_assert_eq(st.st_mode & 07777, 0600);
        cr_assert_eq(st.st_uid, geteuid());
        close_fd(fd);
}

TEST(memfd, one_that_is_readable_is_so_for_all_and_writable_for_its_owner_alone) {
        struct stat st;
        int fd;

        REQUIRE(probe_run() == 0);
        REQUIRE(memfd_make(&(MemfdSpec){ .size = 4096, .readable = true }, &fd) == 0);
        cr_assert(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0644 && st.st_uid == geteuid());
        close_fd(fd);
}

static int open_through_proc(void *userdata) {
        char path[64];
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", *(int *)userdata);
        fd = open(path, O_RDWR);
        return fd < 0 ? -errno : 0;
}

TEST(memfd, another_user_cannot_make_a_read_only_descriptor_writable) {
        int fd, reader;

        test_needs_root();
        fd = make(4096);
        reader = reopen(fd, false);
        cr_assert_eq(run_as(ALICE, ALICE, open_through_proc, &reader), -EACCES);
        close_fd(reader);
        close_fd(fd);
}

TEST(memfd, its_size_and_its_seals_are_final) {
        int fd = make(8192);

        cr_assert_eq(memfd_seals(fd) & ~(uint32_t)F_SEAL_EXEC, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
        cr_assert_eq(ftruncate(fd, 8193), -1);
        cr_assert_eq(errno, EPERM);
        cr_assert_eq(ftruncate(fd, 8191), -1);
        cr_assert_eq(errno, EPERM);
        cr_assert_eq(ftruncate(fd, 0), -1);
        cr_assert_eq(errno, EPERM);
        cr_assert_eq(fallocate(fd, 0, 0, 12288), -1);
        cr_assert_eq(errno, EPERM);
        cr_assert_eq(pwrite(fd, "x", 1, 8192), -1);
        cr_assert_eq(errno, EPERM);
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
        cr_assert_eq(errno, EPERM);
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
        cr_assert_eq(errno, EPERM);
        close_fd(fd);
}

TEST(memfd, a_freezable_one_takes_more_seals_and_keeps_its_size) {
        int fd;

        REQUIRE(probe_run() == 0);
        cr_assert_eq(memfd_make(&(MemfdSpec){ .size = 8192, .freezable = true }, &fd), 0);
        cr_assert_eq(memfd_seals(fd) & ~(uint32_t)F_SEAL_EXEC, F_SEAL_GROW | F_SEAL_SHRINK);
        cr_assert_eq(ftruncate(fd, 0), -1);
        cr_assert_eq(ftruncate(fd, 8193), -1);
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
        cr_assert_eq(memfd_seals(fd) & ~(uint32_t)F_SEAL_EXEC, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE);
        close_fd(fd);
}

TEST(memfd, where_the_kernel_can_it_is_sealed_against_execution) {
        int fd = make(4096);

        cr_assert_eq(!!(memfd_seals(fd) & F_SEAL_EXEC), probe_have(PROBE_NOEXEC_SEAL));
        if (probe_have(PROBE_NOEXEC_SEAL))
                cr_assert_eq(fchmod(fd, 0700), -1, "not even its owner makes it a program");
        close_fd(fd);

        probe_force(PROBE_NOEXEC_SEAL, false);
        cr_assert_eq(memfd_make(&(MemfdSpec){ .size = 1 }, &fd), 0);
        cr_assert_eq(memfd_seals(fd), F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
        close_fd(fd);
}

TEST(memfd, what_comes_out_is_opened_not_blocking_and_ends_with_exec) {
        int fd = make(4096);

        cr_assert_eq(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
        cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close_fd(fd);
}

TEST(memfd, its_name_shows_the_identifier_and_nothing_else) {
        char path[64], name[64];
        int fd = make(4096);
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, name, sizeof(name) - 1);
        cr_assert_gt(n, 0);
        name[n] = '\0';
        cr_assert_str_eq(name, "/memfd:shmd:abc (deleted)");
        close_fd(fd);
}

/* Every way memfd_make() can fail half way: nothing unsafe comes out, and nothing stays open. */
static int fail_at(void *userdata) {
        static const struct {
                int call;
                unsigned int n;
                struct scmp_arg_cmp condition;
                int error;
                int result;
        } steps[] = {
                { SCMP_SYS(memfd_create), 0, {}, EMFILE, MEMFD_E_NO_MEMORY },
                { SCMP_SYS(memfd_create), 0, {}, ENFILE, MEMFD_E_NO_MEMORY },
                { SCMP_SYS(memfd_create), 0, {}, ENOMEM, MEMFD_E_NO_MEMORY },
                { SCMP_SYS(memfd_create), 0, {}, EPERM, -EPERM },
                { SCMP_SYS(memfd_create), 0, {}, ENOSYS, -ENOSYS },
                { SCMP_SYS(ftruncate), 0, {}, ENOMEM, MEMFD_E_NO_MEMORY },
                { SCMP_SYS(ftruncate), 0, {}, ENOSPC, MEMFD_E_NO_MEMORY },
                { SCMP_SYS(ftruncate), 0, {}, EIO, -EIO },
                { SCMP_SYS(fchmod), 0, {}, EPERM, -EPERM },
                { SCMP_SYS(fcntl), 1, { 1, SCMP_CMP_EQ, F_ADD_SEALS, 0 }, EPERM, -EPERM },
                { SCMP_SYS(openat), 0, {}, EMFILE, MEMFD_E_NO_MEMORY },
                { SCMP_SYS(openat), 0, {}, EACCES, -EIO },
        };
        size_t i = *(size_t *)userdata, before;
        int fd = -7, r;

        if (i >= sizeof(steps) / sizeof(*steps))
                return 1;
        REQUIRE(probe_run() == 0);
        before = test_count_fds();
        house_deny(steps[i].error, steps[i].call, steps[i].n, &steps[i].condition);
        r = memfd_make(&(MemfdSpec){ .size = 4096 }, &fd);
        REQUIRE(r == steps[i].result, "step %zu: %d", i, r);
        REQUIRE(fd == -7, "step %zu", i);
        if (steps[i].call != SCMP_SYS(openat))
                REQUIRE(test_count_fds() == before, "step %zu leaks", i);
        return 0;
}

TEST(memfd, a_failure_at_any_step_hands_out_nothing_and_leaks_nothing) {
        size_t i = 0;
        int status;

        while ((status = house_fork(fail_at, &i)) == 0)
                ++i;
        cr_assert_eq(status, 1 << 8, "step %zu ended with %#x", i, status);
        cr_assert_eq(i, 12);
}

static int make_without_descriptors(void *userdata) {
        unsigned int extra = *(unsigned int *)userdata;
        int fd = -7;

        REQUIRE(probe_run() == 0);
        test_leave_fds(extra, NULL);
        REQUIRE(memfd_make(&(MemfdSpec){ .size = 4096 }, &fd) == (extra < 2 ? MEMFD_E_NO_MEMORY : 0));
        return 0;
}

TEST(memfd, it_takes_two_descriptors_for_a_moment_and_fewer_are_no_memory) {
        for (unsigned int extra = 0; extra < 3; ++extra)
                house_expect_child(make_without_descriptors, &extra);
}

/* -- huge pages ------------------------------------------------------------------------- */

static bool have_huge_pages(unsigned int shift) {
        char path[128];

        (void)snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB", (1ULL << shift) / 1024);
        return access(path, F_OK) == 0;
}

TEST(memfd, huge_pages_that_are_not_there_are_refused_at_once) {
        uint64_t there;
        int fd = -7;

        REQUIRE(probe_run() == 0);
        if (!test_huge_pages_begin(0))
                test_skip("this kernel has no huge pages of 2 MiB");
        there = test_huge_pages_free();
        cr_assert_eq(memfd_make(&(MemfdSpec){ .size = (there + 1) << 21, .huge_shift = 21 }, &fd), MEMFD_E_NO_PAGES);
        cr_assert_eq(fd, -7);
        test_huge_pages_end();

        cr_assert_eq(memfd_make(&(MemfdSpec){ .size = 0, .huge_shift = 21 }, &fd), 0, "none are needed for nothing");
        cr_assert_eq(memfd_seals(fd) & (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL),
                     F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
        close_fd(fd);
}

TEST(memfd, huge_pages_of_a_size_nobody_has_are_unsupported) {
        static const unsigned int shifts[] = { 12, 13, 17, 22, 29, 33, 40 };
        int fd = -7;

        REQUIRE(probe_run() == 0);
        for (size_t i = 0; i < sizeof(shifts) / sizeof(*shifts); ++i)
                if (!have_huge_pages(shifts[i]))
                        cr_assert_eq(memfd_make(&(MemfdSpec){ .huge_shift = shifts[i] }, &fd), MEMFD_E_UNSUPPORTED,
                                     "2^%u", shifts[i]);
        cr_assert_eq(fd, -7);
}

TEST(memfd, a_page_is_the_systems_or_the_huge_one) {
        cr_assert_eq(memfd_page_size(0), (uint64_t)sysconf(_SC_PAGESIZE));
        cr_assert_eq(memfd_page_size(12), 4096);
        cr_assert_eq(memfd_page_size(21), UINT64_C(2) << 20);
        cr_assert_eq(memfd_page_size(40), UINT64_C(1) << 40);
}

/* -- opening ----------------------------------------------------------------------------- */

TEST(memfd, read_only_is_the_kernels_business) {
        int fd = make(4096), reader = reopen(fd, false), writer = reopen(fd, true);
        char byte = 0;

        cr_assert_eq(fcntl(reader, F_GETFL) & O_ACCMODE, O_RDONLY);
        cr_assert_eq(write(reader, "x", 1), -1);
        cr_assert_eq(errno, EBADF);
        cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0), MAP_FAILED);
        cr_assert_eq(errno, EACCES);
        cr_assert_eq(fallocate(reader, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
        cr_assert_eq(errno, EBADF);

        cr_assert_eq(fcntl(writer, F_GETFL) & O_ACCMODE, O_RDWR);
        cr_assert_eq(pwrite(writer, "y", 1, 0), 1);
        cr_assert_eq(pread(reader, &byte, 1, 0), 1);
        cr_assert_eq(byte, 'y');
        close_fd(reader);
        close_fd(writer);
        close_fd(fd);
}

TEST(memfd, every_opening_has_an_offset_of_its_own) {
        int fd = make(4096), a = reopen(fd, false), b = reopen(fd, false);

        cr_assert_eq(lseek(a, 100, SEEK_SET), 100);
        cr_assert_eq(lseek(b, 0, SEEK_CUR), 0);
        cr_assert_eq(lseek(fd, 0, SEEK_CUR), 0);
        cr_assert_eq(fcntl(a, F_GETFD), FD_CLOEXEC);
        close_fd(a);
        close_fd(b);
        close_fd(fd);
}

TEST(memfd, a_lease_in_the_way_is_a_failure_now_and_not_a_wait) {
        int fd = make(4096), opened = -7;

        (void)signal(SIGIO, SIG_IGN);
        cr_assert_eq(fcntl(fd, F_SETLEASE, F_WRLCK), 0);
        cr_assert_eq(memfd_reopen(fd, true, &opened), MEMFD_E_FAILED);
        cr_assert_eq(memfd_reopen(fd, false, &opened), MEMFD_E_FAILED);
        cr_assert_eq(opened, -7);
        cr_assert_eq(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
        cr_assert_eq(memfd_reopen(fd, true, &opened), 0);
        close_fd(opened);
        close_fd(fd);
}

TEST(memfd, the_directory_of_descriptors_may_be_held_and_makes_no_difference) {
        int fd = make(4096), reader, writer;

        memfd_hold_directory(true);
        reader = reopen(fd, false);
        writer = reopen(fd, true);
        cr_assert_eq(fcntl(reader, F_GETFL) & O_ACCMODE, O_RDONLY);
        cr_assert_eq(fcntl(writer, F_GETFL) & O_ACCMODE, O_RDWR);
        cr_assert_eq(memfd_inode(reader), memfd_inode(fd));
        cr_assert_eq(memfd_inode(writer), memfd_inode(fd));
        memfd_hold_directory(true);
        memfd_hold_directory(false);
        memfd_hold_directory(false);
        close_fd(writer);
        writer = reopen(fd, true);
        close_fd(reader);
        close_fd(writer);
        close_fd(fd);
}

static int reopen_without_descriptors(void *userdata) {
        int fd = make(4096), opened = -7;
        struct rlimit none = { 1, 1 };

        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        REQUIRE(memfd_reopen(fd, false, &opened) == MEMFD_E_NO_MEMORY);
        REQUIRE(opened == -7);
        return 0;
}

TEST(memfd, no_descriptor_left_is_no_memory) {
        int opened = -7;

        house_expect_child(reopen_without_descriptors, NULL);
        cr_assert_eq(memfd_reopen(4000, false, &opened), MEMFD_E_FAILED, "nothing there to open");
}

TEST(memfd, descriptors_of_any_number_are_opened) {
        int fd = make(4096), high, opened;
        struct stat a, b;

        for (int number = 10; number <= 1000; number *= 10) {
                high = fcntl(fd, F_DUPFD_CLOEXEC, number);
                REQUIRE(high >= number, "%s", strerror(errno));
                cr_assert_eq(memfd_reopen(high, false, &opened), 0, "%d", high);
                cr_assert(fstat(opened, &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino);
                close_fd(opened);
                close_fd(high);
        }
        close_fd(fd);
}

/* -- who holds it --------------------------------------------------------------------------- */

TEST(memfd, a_new_one_is_held_by_nobody_else) {
        int fd = make(4096);

        cr_assert_eq(memfd_probe(fd), 0);
        cr_assert_eq(memfd_probe(fd), 0, "asking leaves no trace");
        cr_assert_eq(fcntl(fd, F_GETLEASE), F_UNLCK);
        close_fd(fd);
}

TEST(memfd, a_descriptor_holds_it) {
        for (int writable = 0; writable < 2; ++writable) {
                int fd = make(4096), other = reopen(fd, writable), copy = dup(other);

                cr_assert_eq(memfd_probe(fd), MEMFD_E_HELD);
                close_fd(other);
                cr_assert_eq(memfd_probe(fd), MEMFD_E_HELD, "a copy is the same");
                close_fd(copy);
                cr_assert_eq(memfd_probe(fd), 0);
                close_fd(fd);
        }
}

TEST(memfd, a_mapping_without_a_descriptor_holds_it) {
        for (int writable = 0; writable < 2; ++writable) {
                int fd = make(8192), other = reopen(fd, writable);
                void *map = mmap(NULL, 8192, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, other, 0);

                REQUIRE(map != MAP_FAILED);
                close_fd(other);
                cr_assert_eq(memfd_probe(fd), MEMFD_E_HELD);
                cr_assert_eq(munmap(map, 4096), 0);
                cr_assert_eq(memfd_probe(fd), MEMFD_E_HELD, "half of it does, too");
                cr_assert_eq(munmap((char *)map + 4096, 4096), 0);
                cr_assert_eq(memfd_probe(fd), 0);
                close_fd(fd);
        }
}

TEST(memfd, a_message_in_flight_holds_it) {
        int fd = make(4096), other = reopen(fd, false), ends[2];
        uint8_t packet[sizeof(WireHeader)];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        wire_put_header(packet, sizeof(packet), 1, 1, 1);
        cr_assert_eq(wire_send(ends[0], packet, sizeof(packet), &other, 1), 0);
        close_fd(other);
        cr_assert_eq(memfd_probe(fd), MEMFD_E_HELD);
        close_fd(ends[1]);
        close_fd(ends[0]);
        cr_assert_eq(memfd_probe(fd), 0, "it goes with the socket");
        close_fd(fd);
}

static int hold(void *userdata) {
        child_close_fds_but(*(int *)userdata);
        child_arrive(0);
        return 0;
}

TEST(memfd, a_child_that_inherited_it_holds_it_until_it_dies) {
        int fd = make(4096), other = reopen(fd, true);
        Child child = CHILD_NULL;

        child_spawn(&child, hold, &other);
        close_fd(other);
        cr_assert_eq(memfd_probe(fd), MEMFD_E_HELD);
        child_kill(&child);
        cr_assert_eq(memfd_probe(fd), 0);
        close_fd(fd);
}

static int probe_without_leases(void *userdata) {
        int fd = make(4096);

        house_deny(EINVAL, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        REQUIRE(memfd_probe(fd) == -EINVAL);
        return 0;
}

TEST(memfd, where_leases_do_not_work_the_answer_is_an_error_and_not_a_guess) {
        house_expect_child(probe_without_leases, NULL);
        cr_assert_eq(memfd_probe(-1), -EBADF);
}

/* -- marks -------------------------------------------------------------------------------- */

static bool is_marked(int fd, uint64_t mark) {
        uint64_t first, last;

        return memfd_find_mark(fd, mark, mark, &first, &last);
}

TEST(memfd, a_mark_lives_as_long_as_its_description) {
        int fd = make(4096), other = reopen(fd, false), copy;

        cr_assert_eq(memfd_mark(other, 7), 0);
        cr_assert(is_marked(fd, 7));
        cr_assert_not(is_marked(fd, 6));
        cr_assert_not(is_marked(fd, 8));
        cr_assert_not(is_marked(other, 7), "its own locks are in nobody's own way");
        copy = dup(other);
        close_fd(other);
        cr_assert(is_marked(fd, 7));
        close_fd(copy);
        cr_assert_not(is_marked(fd, 7));
        close_fd(fd);
}

TEST(memfd, marks_of_several_descriptions_are_told_apart) {
        int fd = make(4096), a = reopen(fd, false), b = reopen(fd, true);

        cr_assert_eq(memfd_mark(a, 1), 0);
        cr_assert_eq(memfd_mark(b, 2), 0);
        close_fd(a);
        cr_assert_not(is_marked(fd, 1));
        cr_assert(is_marked(fd, 2));
        close_fd(b);
        close_fd(fd);
}

TEST(memfd, marks_are_far_above_any_byte_of_the_file) {
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MEMFD_MARKER_BASE + 5, .l_len = 1 };
        int fd = make(4096), other = reopen(fd, false);

        cr_assert_eq(MEMFD_MARKER_BASE, INT64_C(1) << 62);
        cr_assert_eq(memfd_mark(other, 5), 0);
        cr_assert_eq(fcntl(fd, F_OFD_GETLK, &lock), 0);
        cr_assert_eq(lock.l_type, F_RDLCK);
        cr_assert_eq(lock.l_start, MEMFD_MARKER_BASE + 5);
        cr_assert_eq(lock.l_len, 1);

        cr_assert_eq(memfd_mark(other, UINT64_C(1) << 60), 0);
        cr_assert(is_marked(fd, UINT64_C(1) << 60));
        close_fd(other);
        close_fd(fd);
}

TEST(memfd, a_mark_that_somebody_else_forged_looks_like_one) {
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        int fd = make(4096), other = reopen(fd, true), mine = reopen(fd, false);

        cr_assert_eq(fcntl(other, F_OFD_SETLK, &lock), 0, "the whole file and all beyond");
        cr_assert(is_marked(fd, 1));
        cr_assert_eq(memfd_mark(mine, 1), MEMFD_E_FAILED);
        close_fd(other);
        cr_assert_not(is_marked(fd, 1));
        close_fd(mine);
        close_fd(fd);
}

TEST(memfd, marks_are_found_in_a_range_with_the_range_of_their_lock) {
        struct flock wide = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = MEMFD_MARKER_BASE + 20, .l_len = 10 };
        int fd = make(4096), other = reopen(fd, false), forged = reopen(fd, false);
        uint64_t first = 0, last = 0;

        cr_assert_eq(memfd_mark(other, 10), 0);
        cr_assert_not(memfd_find_mark(fd, 1, 9, &first, &last));
        cr_assert_not(memfd_find_mark(fd, 11, 1000, &first, &last));
        cr_assert(memfd_find_mark(fd, 1, 1000, &first, &last) && first == 10 && last == 10);
        cr_assert(memfd_find_mark(fd, 10, 10, &first, &last) && first == 10 && last == 10);

        /* One lock over many is clipped to what was asked. */
        close_fd(other);
        cr_assert_eq(fcntl(forged, F_OFD_SETLK, &wide), 0);
        cr_assert(memfd_find_mark(fd, 1, 1000, &first, &last) && first == 20 && last == 29);
        cr_assert(memfd_find_mark(fd, 25, 27, &first, &last) && first == 25 && last == 27);
        cr_assert(memfd_find_mark(fd, 28, 40, &first, &last) && first == 28 && last == 29);
        cr_assert(memfd_find_mark(fd, 1, 20, &first, &last) && first == 20 && last == 20);
        wide.l_start = 0;
        wide.l_len = 0;
        cr_assert_eq(fcntl(forged, F_OFD_SETLK, &wide), 0);
        cr_assert(memfd_find_mark(fd, 3, 5, &first, &last) && first == 3 && last == 5, "to the end of all");
        close_fd(forged);
        close_fd(fd);
}

TEST(memfd, a_child_after_fork_keeps_the_mark_alive) {
        int fd = make(4096), other = reopen(fd, false);
        Child child = CHILD_NULL;

        cr_assert_eq(memfd_mark(other, 9), 0);
        child_spawn(&child, hold, &other);
        close_fd(other);
        cr_assert(is_marked(fd, 9));
        child_kill(&child);
        cr_assert_not(is_marked(fd, 9));
        close_fd(fd);
}

TEST(memfd, what_is_no_file_has_no_seals) {
        cr_assert_eq(memfd_seals(-1), 0);
        cr_assert_eq(memfd_mark(-1, 1), MEMFD_E_FAILED);
        cr_assert_not(is_marked(-1, 1));
}

/* -- emptying ------------------------------------------------------------------------------- */

TEST(memfd, punching_frees_the_pages_and_keeps_the_size) {
        int fd = make(4 * 4096);
        struct stat st;
        char byte = 'x';

        for (int i = 0; i < 4; ++i)
                cr_assert_eq(pwrite(fd, &byte, 1, i * 4096), 1);
        cr_assert_eq(fstat(fd, &st), 0);
        cr_assert_eq(st.st_blocks, 4 * 8);
        memfd_punch(fd, 4096, 8192);
        cr_assert_eq(fstat(fd, &st), 0);
        cr_assert_eq(st.st_blocks, 2 * 8);
        cr_assert_eq(st.st_size, 4 * 4096);
        cr_assert_eq(pread(fd, &byte, 1, 4096), 1);
        cr_assert_eq(byte, 0);
        cr_assert_eq(pread(fd, &byte, 1, 3 * 4096), 1);
        cr_assert_eq(byte, 'x');
        memfd_punch(-1, 0, 4096);
        close_fd(fd);
}

TEST(memfd, what_is_allocated_is_told_in_bytes) {
        int fd = make(UINT64_C(1) << 40);

        cr_assert_eq(memfd_allocated(fd), 0);
        cr_assert_eq(pwrite(fd, "x", 1, 0), 1);
        cr_assert_eq(pwrite(fd, "x", 1, (off_t)1 << 39), 1);
        cr_assert_eq(memfd_allocated(fd), 2 * 4096);
        cr_assert_eq(memfd_allocated(-1), UINT64_MAX, "what cannot be asked may be full");
        close_fd(fd);
}

/* -- adopting ---------------------------------------------------------------------------- */

static uint64_t inode_of(int fd) {
        struct stat st;

        REQUIRE(fstat(fd, &st) == 0);
        return st.st_ino;
}

static const char *adopt(int fd, const MemfdSpec *spec, uint64_t inode) {
        const char *why = memfd_adopt(fd, spec, geteuid(), inode);

        return why ? why : "fits";
}

TEST(memfd, what_another_process_made_is_adopted_and_has_no_lease_then) {
        MemfdSpec spec = { .size = 5000 };
        uint64_t inode, size;
        int fd = make(5000), other;

        cr_assert_eq(fcntl(fd, F_SETLEASE, F_WRLCK), 0, "it was killed in the middle of a probe");
        cr_assert_str_eq(adopt(fd, &spec, inode_of(fd)), "fits");
        cr_assert_eq(memfd_reopen(fd, true, &other), 0, "nothing is in the way any more");
        close_fd(other);
        cr_assert(memfd_look(fd, geteuid(), &inode, &size) && inode == inode_of(fd) && size == 5000);
        cr_assert_not(memfd_look(fd, geteuid() + 1, &inode, &size));
        cr_assert_not(memfd_look(0, geteuid(), &inode, &size));
        close_fd(fd);
}

TEST(memfd, what_does_not_fit_is_not_adopted) {
        MemfdSpec spec = { .size = 4096 }, freezable = { .size = 4096, .freezable = true }, larger = { .size = 8192 },
                  readable = { .size = 4096, .readable = true };
        int fd = make(4096), plain = memfd_create("plain", MFD_CLOEXEC), pair[2];

        cr_assert_str_eq(adopt(fd, &freezable, inode_of(fd)), "fits", "it has more seals than it needs");
        cr_assert_str_eq(adopt(fd, &spec, inode_of(fd) + 1), "it is another memfd");
        cr_assert_str_eq(adopt(fd, &larger, inode_of(fd)), "its size is another one");
        cr_assert_str_eq(adopt(fd, &readable, inode_of(fd)), "its owner or its mode is another one");
        cr_assert_str_eq(memfd_adopt(fd, &spec, geteuid() + 1, inode_of(fd)), "its owner or its mode is another one");

        cr_assert(plain >= 0 && fchmod(plain, 0600) == 0 && ftruncate(plain, 4096) == 0);
        cr_assert_str_eq(adopt(plain, &spec, inode_of(plain)), "it is not sealed");
        cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        cr_assert_str_eq(adopt(pair[0], &spec, inode_of(pair[0])), "it is not a memfd");
        cr_assert_str_eq(adopt(-1, &spec, 1), "it is not a memfd");
        close_fd(pair[0]);
        close_fd(pair[1]);
        close_fd(plain);
        close_fd(fd);
}
