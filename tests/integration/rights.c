/* What a grant lets its holder do, and what the kernel refuses whatever the holder tries.
 *
 * Alice has made a region; Bob, another user, was given a grant of it. Each attempt is made in a
 * process that really is Bob and has nothing but the descriptor. After each, the bytes are what
 * Alice wrote.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

#define SIZE (4 * PAGE)

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob;
        Grant alices, bobs;
        uint8_t *memory;        /* alice's view */
} Scene;

static Scene scene_begin_with(uint32_t rights, uint32_t flags) {
        Scene scene = { .alices = GRANT_NULL, .bobs = GRANT_NULL };

        test_needs_root();
        scene.broker = broker_spawn(NULL);
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        client_expect_done(scene.alice,
                           call_create_with(scene.alice,
                                            REQUEST(Create, create, .path = BYTES("/shared"), .size = SIZE,
                                                    .mode = 0666, .flags = flags, .rights = READ_WRITE),
                                            &scene.alices));
        client_expect_done(scene.bob, call_open(scene.bob, "/shared", rights, &scene.bobs));
        REQUIRE(scene.bobs.rights == rights && scene.bobs.size == SIZE);

        scene.memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, scene.alices.fd, 0);
        REQUIRE(scene.memory != MAP_FAILED);
        memset(scene.memory, 'A', SIZE);
        return scene;
}

static Scene scene_begin(uint32_t rights) {
        return scene_begin_with(rights, 0);
}

static void require_unchanged(Scene *scene) {
        struct stat st;

        REQUIRE(fstat(scene->alices.fd, &st) == 0 && st.st_size == (off_t)SIZE);
        for (size_t i = 0; i < SIZE; ++i)
                REQUIRE(scene->memory[i] == 'A', "byte %zu is %#x", i, scene->memory[i]);
}

static void scene_end(Scene *scene) {
        require_unchanged(scene);
        REQUIRE(munmap(scene->memory, SIZE) == 0);
        grant_deinit(&scene->alices);
        grant_deinit(&scene->bobs);
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->broker = broker_stop(scene->broker);
}

/* An attempt returns 0 if it worked and a negative errno if the kernel refused it. */
static int attempt(Scene *scene, TestFn fn) {
        return run_as(BOB, BOB, fn, &scene->bobs.fd);
}

#define REFUSED(name, rights, error, fn)                                                \
        TEST(rights, name) {                                                            \
                Scene scene = scene_begin(rights);                                      \
                int r = attempt(&scene, fn);                                            \
                                                                                        \
                REQUIRE(r == -(error), "got %s", r ? strerror(-r) : "through");         \
                scene_end(&scene);                                                      \
        }

static int result(long r) {
        return r < 0 ? -errno : 0;
}

/* -- a read-only grant ---------------------------------------------------------------- */

static int map_for_writing(void *fd) {
        return result(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *(int *)fd, 0) == MAP_FAILED ? -1 : 0);
}

static int map_for_writing_only(void *fd) {
        return result(mmap(NULL, SIZE, PROT_WRITE, MAP_SHARED, *(int *)fd, 0) == MAP_FAILED ? -1 : 0);
}

static void *map_for_reading(int fd) {
        void *memory = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);

        REQUIRE(memory != MAP_FAILED, "%s", strerror(errno));
        REQUIRE(*(volatile char *)memory == 'A');
        return memory;
}

static int make_mapping_writable(void *fd) {
        return result(mprotect(map_for_reading(*(int *)fd), SIZE, PROT_READ | PROT_WRITE));
}

static int remove_pages_of_mapping(void *fd) {
        return result(madvise(map_for_reading(*(int *)fd), SIZE, MADV_REMOVE));
}

static int write_bytes(void *fd) {
        return result(write(*(int *)fd, "x", 1));
}

static int pwrite_bytes(void *fd) {
        return result(pwrite(*(int *)fd, "x", 1, 100));
}

static int splice_bytes(void *fd) {
        int ends[2];

        REQUIRE(pipe(ends) == 0 && write(ends[1], "xyz", 3) == 3);
        return result(splice(ends[0], NULL, *(int *)fd, NULL, 3, 0));
}

static int send_file_into(void *fd) {
        int from = open("/proc/self/exe", O_RDONLY);

        REQUIRE(from >= 0);
        return result(sendfile(*(int *)fd, from, NULL, 100));
}

static int copy_file_range_into(void *fd) {
        loff_t from = 0, to = 100;

        return result(copy_file_range(*(int *)fd, &from, *(int *)fd, &to, 10, 0));
}

static int reopen(int fd, int flags) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return result(open(path, flags));
}

static int reopen_for_writing(void *fd) {
        return reopen(*(int *)fd, O_RDWR);
}

static int reopen_for_writing_only(void *fd) {
        return reopen(*(int *)fd, O_WRONLY);
}

static int reopen_truncating(void *fd) {
        return reopen(*(int *)fd, O_RDWR | O_TRUNC);
}

static int reopen_in_own_namespace(void *fd) {
        if (unshare(CLONE_NEWUSER) < 0)
                return -EACCES;         /* not even that is allowed here */
        return reopen(*(int *)fd, O_RDWR);
}

static int change_mode(void *fd) {
        return result(fchmod(*(int *)fd, 0666));
}

static int change_mode_by_path(void *fd) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", *(int *)fd);
        return result(chmod(path, 0666));
}

static int change_owner(void *fd) {
        return result(fchown(*(int *)fd, BOB, BOB));
}

static int truncate_to_nothing(void *fd) {
        return result(ftruncate(*(int *)fd, 0));
}

static int truncate_to_more(void *fd) {
        return result(ftruncate(*(int *)fd, SIZE + 1));
}

static int truncate_by_path(void *fd) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", *(int *)fd);
        return result(truncate(path, 0));
}

static int punch_a_hole(void *fd) {
        return result(fallocate(*(int *)fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
}

static int allocate(void *fd) {
        return result(fallocate(*(int *)fd, 0, 0, PAGE));
}

static int add_seal(int fd, int seal) {
        return result(fcntl(fd, F_ADD_SEALS, seal));
}

static int seal_against_writing(void *fd) {
        return add_seal(*(int *)fd, F_SEAL_WRITE);
}

static int seal_against_future_writing(void *fd) {
        return add_seal(*(int *)fd, F_SEAL_FUTURE_WRITE);
}

static int set_attribute(void *fd) {
        int r = result(fsetxattr(*(int *)fd, "user.bob", "x", 1, 0));

        return r == -EOPNOTSUPP || r == -EPERM ? -EACCES : r;
}

static int change_flags_and_write(void *fd) {
        REQUIRE(fcntl(*(int *)fd, F_SETFL, O_RDWR) == 0);
        REQUIRE((fcntl(*(int *)fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
        return result(write(*(int *)fd, "x", 1));
}

REFUSED(read_only_grant_refuses_mmap_for_writing, READ_ONLY, EACCES, map_for_writing)
REFUSED(read_only_grant_refuses_mmap_for_writing_only, READ_ONLY, EACCES, map_for_writing_only)
REFUSED(read_only_grant_refuses_mprotect, READ_ONLY, EACCES, make_mapping_writable)
REFUSED(read_only_grant_refuses_removing_pages, READ_ONLY, EACCES, remove_pages_of_mapping)
REFUSED(read_only_grant_refuses_write, READ_ONLY, EBADF, write_bytes)
REFUSED(read_only_grant_refuses_pwrite, READ_ONLY, EBADF, pwrite_bytes)
REFUSED(read_only_grant_refuses_splice, READ_ONLY, EBADF, splice_bytes)
REFUSED(read_only_grant_refuses_sendfile, READ_ONLY, EBADF, send_file_into)
REFUSED(read_only_grant_refuses_copy_file_range, READ_ONLY, EBADF, copy_file_range_into)
REFUSED(read_only_grant_refuses_reopening_for_writing, READ_ONLY, EACCES, reopen_for_writing)
REFUSED(read_only_grant_refuses_reopening_for_writing_only, READ_ONLY, EACCES, reopen_for_writing_only)
REFUSED(read_only_grant_refuses_reopening_and_truncating, READ_ONLY, EACCES, reopen_truncating)
REFUSED(read_only_grant_refuses_reopening_as_root_of_a_namespace, READ_ONLY, EACCES, reopen_in_own_namespace)
REFUSED(read_only_grant_refuses_fchmod, READ_ONLY, EPERM, change_mode)
REFUSED(read_only_grant_refuses_chmod_through_proc, READ_ONLY, EPERM, change_mode_by_path)
REFUSED(read_only_grant_refuses_fchown, READ_ONLY, EPERM, change_owner)
REFUSED(read_only_grant_refuses_ftruncate, READ_ONLY, EINVAL, truncate_to_nothing)
REFUSED(read_only_grant_refuses_truncate_through_proc, READ_ONLY, EACCES, truncate_by_path)
REFUSED(read_only_grant_refuses_punching_holes, READ_ONLY, EBADF, punch_a_hole)
REFUSED(read_only_grant_refuses_fallocate, READ_ONLY, EBADF, allocate)
REFUSED(read_only_grant_refuses_a_write_seal, READ_ONLY, EPERM, seal_against_writing)
REFUSED(read_only_grant_refuses_a_future_write_seal, READ_ONLY, EPERM, seal_against_future_writing)
REFUSED(read_only_grant_refuses_extended_attributes, READ_ONLY, EACCES, set_attribute)
REFUSED(read_only_grant_refuses_writing_after_changed_flags, READ_ONLY, EBADF, change_flags_and_write)

static int write_to_private_mapping(void *fd) {
        char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, *(int *)fd, 0);

        REQUIRE(memory != MAP_FAILED);
        memset(memory, 'B', SIZE);
        return memory[SIZE - 1] == 'B' ? 0 : -EIO;
}

TEST(rights, read_only_grant_maps_privately_and_what_is_written_stays_private) {
        Scene scene = scene_begin(READ_ONLY);

        REQUIRE(attempt(&scene, write_to_private_mapping) == 0);
        scene_end(&scene);
}

static int read_all(void *fd) {
        char *memory = map_for_reading(*(int *)fd);
        char bytes[SIZE];

        REQUIRE(pread(*(int *)fd, bytes, SIZE, 0) == (ssize_t)SIZE);
        return memcmp(memory, bytes, SIZE) == 0 && bytes[SIZE - 1] == 'A' ? 0 : -EIO;
}

TEST(rights, read_only_grant_reads_and_maps_the_very_bytes) {
        Scene scene = scene_begin(READ_ONLY);

        REQUIRE(attempt(&scene, read_all) == 0);
        scene_end(&scene);
}

TEST(rights, a_freezable_region_takes_no_seal_through_a_read_only_grant) {
        Scene scene = scene_begin_with(READ_ONLY, SHMD__CREATE_FLAGS__CREATE_FREEZABLE);

        REQUIRE(scene.bobs.freezable);
        REQUIRE(attempt(&scene, seal_against_writing) == -EPERM);
        REQUIRE(attempt(&scene, seal_against_future_writing) == -EPERM);
        scene_end(&scene);
}

TEST(rights, a_freezable_region_is_frozen_by_who_may_write) {
        Scene scene = scene_begin_with(READ_WRITE, SHMD__CREATE_FLAGS__CREATE_FREEZABLE);

        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0, "%s", strerror(errno));
        REQUIRE(attempt(&scene, pwrite_bytes) == -EPERM);
        REQUIRE(attempt(&scene, map_for_writing) == -EPERM || attempt(&scene, map_for_writing) == -EACCES);
        scene_end(&scene);
}

/* -- a read-write grant --------------------------------------------------------------- */

static int allocate_past_the_end(void *fd) {
        return result(fallocate(*(int *)fd, 0, 0, SIZE + 1));
}

static int allocate_past_the_end_keeping_the_size(void *fd) {
        return result(fallocate(*(int *)fd, FALLOC_FL_KEEP_SIZE, SIZE, PAGE));
}

static int write_past_the_end(void *fd) {
        return result(pwrite(*(int *)fd, "x", 1, SIZE));
}

static int write_far_past_the_end(void *fd) {
        return result(pwrite(*(int *)fd, "x", 1, (off_t)1 << 40));
}

static int write_across_the_end(void *fd) {
        char bytes[100];
        ssize_t n;

        memset(bytes, 'A', sizeof(bytes));
        n = pwrite(*(int *)fd, bytes, sizeof(bytes), SIZE - 10);
        if (n >= 0 && n <= 10)
                return -EPERM;          /* cut at the end: as good */
        return result(n);
}

static int append(void *fd) {
        REQUIRE(fcntl(*(int *)fd, F_SETFL, O_APPEND) == 0);
        return result(write(*(int *)fd, "x", 1));
}

static int truncate_to_less(void *fd) {
        return result(ftruncate(*(int *)fd, SIZE - 1));
}

static int seal_the_seals(void *fd) {
        return add_seal(*(int *)fd, F_SEAL_SEAL);
}

static int collapse_a_range(void *fd) {
        int r = result(fallocate(*(int *)fd, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE));

        return r == -EOPNOTSUPP ? -EPERM : r;
}

REFUSED(attack_052_read_write_grant_cannot_truncate_up, READ_WRITE, EPERM, truncate_to_more)
REFUSED(attack_052_read_write_grant_cannot_truncate_down, READ_WRITE, EPERM, truncate_to_less)
REFUSED(attack_052_read_write_grant_cannot_truncate_to_nothing, READ_WRITE, EPERM, truncate_to_nothing)
REFUSED(attack_052_read_write_grant_cannot_allocate_past_the_end, READ_WRITE, EPERM, allocate_past_the_end)
REFUSED(attack_052_read_write_grant_cannot_allocate_past_the_end_keeping_the_size, READ_WRITE, EPERM,
        allocate_past_the_end_keeping_the_size)
REFUSED(attack_052_read_write_grant_cannot_write_past_the_end, READ_WRITE, EPERM, write_past_the_end)
REFUSED(attack_052_read_write_grant_cannot_write_far_past_the_end, READ_WRITE, EPERM, write_far_past_the_end)
REFUSED(attack_052_read_write_grant_cannot_write_across_the_end, READ_WRITE, EPERM, write_across_the_end)
REFUSED(attack_052_read_write_grant_cannot_append, READ_WRITE, EPERM, append)
REFUSED(attack_052_read_write_grant_cannot_collapse_ranges, READ_WRITE, EPERM, collapse_a_range)
REFUSED(read_write_grant_cannot_lock_others_out_with_a_write_seal, READ_WRITE, EPERM, seal_against_writing)
REFUSED(read_write_grant_cannot_add_a_future_write_seal, READ_WRITE, EPERM, seal_against_future_writing)
REFUSED(read_write_grant_cannot_seal_the_seals, READ_WRITE, EPERM, seal_the_seals)
REFUSED(read_write_grant_cannot_be_reopened, READ_WRITE, EACCES, reopen_for_writing)
REFUSED(read_write_grant_cannot_fchmod, READ_WRITE, EPERM, change_mode)
REFUSED(read_write_grant_cannot_fchown, READ_WRITE, EPERM, change_owner)

static int write_and_take_back(void *fd) {
        char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *(int *)fd, 0);

        REQUIRE(memory != MAP_FAILED);
        memory[7] = 'B';
        REQUIRE(pwrite(*(int *)fd, "B", 1, 8) == 1);
        return 0;
}

TEST(rights, read_write_grant_writes_what_others_read) {
        Scene scene = scene_begin(READ_WRITE);

        REQUIRE(attempt(&scene, write_and_take_back) == 0);
        REQUIRE(scene.memory[7] == 'B' && scene.memory[8] == 'B');
        scene.memory[7] = scene.memory[8] = 'A';
        scene_end(&scene);
}

/* -- what a grant is ------------------------------------------------------------------ */

static int pass_on(int from) {
        int ends[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC), copy = -1;
        FdList fds = FDLIST_NULL;
        uint8_t packet[sizeof(WireHeader)];
        WireHeader header;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        wire_put_header(packet, sizeof(packet), 1, 1, 1);
        REQUIRE(wire_send(ends[0], packet, sizeof(packet), &from, 1) == 0);
        REQUIRE(wire_receive(ends[1], packet, sizeof(packet), &fds, &header) == 0);
        copy = fdlist_take(&fds);
        close_fd(ends[0]);
        close_fd(ends[1]);
        close_fd(null);
        return copy;
}

TEST(rights, attack_070_a_read_only_descriptor_passed_on_is_still_read_only) {
        static const struct {
                TestFn fn;
                int error;
        } attempts[] = {
                { map_for_writing, EACCES }, { make_mapping_writable, EACCES }, { write_bytes, EBADF },
                { reopen_for_writing, EACCES }, { change_mode, EPERM }, { punch_a_hole, EBADF },
                { seal_against_writing, EPERM },
        };
        Scene scene = scene_begin(READ_ONLY);
        int copy = pass_on(scene.bobs.fd);

        for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); ++i) {
                int r = run_as(CAROL, CAROL, attempts[i].fn, &copy);

                REQUIRE(r == -attempts[i].error, "attempt %zu: %s", i, strerror(-r));
        }
        REQUIRE(run_as(CAROL, CAROL, read_all, &copy) == 0);
        close_fd(copy);
        scene_end(&scene);
}

TEST(rights, attack_075_the_access_mode_is_the_one_asked_for) {
        Scene scene = scene_begin(READ_ONLY);
        Grant again = GRANT_NULL;

        REQUIRE((fcntl(scene.alices.fd, F_GETFL) & O_ACCMODE) == O_RDWR);
        REQUIRE((fcntl(scene.bobs.fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
        client_expect_done(scene.bob, call_open(scene.bob, "/shared", READ_WRITE, &again));
        REQUIRE((fcntl(again.fd, F_GETFL) & O_ACCMODE) == O_RDWR);
        REQUIRE(again.region == scene.bobs.region && again.grant != scene.bobs.grant);
        grant_deinit(&again);
        scene_end(&scene);
}

TEST(rights, attack_075_grants_of_one_region_are_one_file) {
        Scene scene = scene_begin(READ_ONLY);
        Grant other = GRANT_NULL;
        struct stat a, b, c;

        client_expect_done(scene.alice, call_create(scene.alice, "/other", SIZE, &other));
        REQUIRE(fstat(scene.alices.fd, &a) == 0 && fstat(scene.bobs.fd, &b) == 0 && fstat(other.fd, &c) == 0);
        REQUIRE(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
        REQUIRE(a.st_ino != c.st_ino);
        REQUIRE(scene.alices.region == scene.bobs.region && scene.alices.region != other.region);
        grant_deinit(&other);
        scene_end(&scene);
}

TEST(rights, attack_075_the_file_offset_and_flags_are_not_shared) {
        Scene scene = scene_begin(READ_ONLY);

        REQUIRE(lseek(scene.alices.fd, 1234, SEEK_SET) == 1234);
        REQUIRE(lseek(scene.bobs.fd, 0, SEEK_CUR) == 0);
        REQUIRE(fcntl(scene.alices.fd, F_SETFL, O_APPEND) == 0);
        REQUIRE(!(fcntl(scene.bobs.fd, F_GETFL) & O_APPEND));
        scene_end(&scene);
}

TEST(rights, attack_076_a_region_cannot_be_executed) {
        static const char script[] = "#!/bin/sh\nexit 0\n";
        Scene scene = scene_begin(READ_WRITE);
        char *argv[] = { (char *)"region", NULL };
        int seals = fcntl(scene.alices.fd, F_GET_SEALS);

        REQUIRE(pwrite(scene.alices.fd, script, sizeof(script) - 1, 0) == sizeof(script) - 1);
        REQUIRE(fexecve(scene.alices.fd, argv, argv + 1) == -1 && errno == EACCES, "%s", strerror(errno));
        if (seals & F_SEAL_EXEC)
                REQUIRE(fchmod(scene.alices.fd, 0700) == -1 && errno == EPERM, "root cannot make it executable either");
        memset(scene.memory, 'A', SIZE);
        scene_end(&scene);
}

TEST(rights, a_region_is_born_sealed_and_belongs_to_the_broker) {
        Scene scene = scene_begin(READ_ONLY);
        int seals = fcntl(scene.bobs.fd, F_GET_SEALS);
        struct stat st;

        REQUIRE((seals & ~F_SEAL_EXEC) == (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW), "%#x", seals);
        REQUIRE(fstat(scene.bobs.fd, &st) == 0);
        REQUIRE(st.st_uid == test_broker_uid() && (st.st_mode & 07777) == 0600, "uid %u, mode %o", st.st_uid,
                st.st_mode & 07777);
        scene_end(&scene);
}

TEST(rights, the_size_is_exact_to_the_byte) {
        static const uint64_t sizes[] = { 0, 1, 4095, 4096, 4097, 1000003 };
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
                Grant grant = GRANT_NULL;
                struct stat st;

                client_expect_done(client, call_create(client, NULL, sizes[i], &grant));
                REQUIRE(grant.size == sizes[i]);
                REQUIRE(fstat(grant.fd, &st) == 0 && (uint64_t)st.st_size == sizes[i]);
                REQUIRE(pwrite(grant.fd, "x", 1, (off_t)sizes[i]) == -1 && errno == EPERM);
                grant_deinit(&grant);
        }
        client = client_free(client);
        broker = broker_stop(broker);
}

/* -- who is given a grant ------------------------------------------------------------- */

TEST(rights, the_mode_of_a_region_decides_for_owner_group_and_others) {
        static const struct {
                uint32_t mode;
                bool owner_reads, owner_writes, group_reads, group_writes, other_reads, other_writes;
        } cases[] = {
                { 0000, false, false, false, false, false, false },
                { 0400, true, false, false, false, false, false },
                { 0600, true, true, false, false, false, false },
                { 0200, false, false, false, false, false, false },
                { 0640, true, true, true, false, false, false },
                { 0660, true, true, true, true, false, false },
                { 0606, true, true, false, false, true, true },
                { 0644, true, true, true, false, true, false },
                { 0066, false, false, true, true, true, true },
                { 0111, false, false, false, false, false, false },
        };

        test_needs_root();

        Broker *broker = broker_spawn(NULL);
        Client *owner = client_connect_as(broker, ALICE, ALICE);
        Client *group = client_connect_as(broker, BOB, ALICE);
        Client *other = client_connect_as(broker, CAROL, CAROL);

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
                client_expect_done(owner, call_create_mode(owner, "/r", 1, cases[i].mode, NULL));

#define EXPECT(who, right, reason, allowed)                                             \
                do {                                                                    \
                        if (allowed)                                                    \
                                client_expect_done(who, call_open(who, "/r", right, NULL)); \
                        else                                                            \
                                client_expect_error(who, DENIED, reason, call_open(who, "/r", right, NULL)); \
                } while (0)
                EXPECT(owner, READ_ONLY, REGION_READ, cases[i].owner_reads);
                EXPECT(group, READ_ONLY, REGION_READ, cases[i].group_reads);
                EXPECT(other, READ_ONLY, REGION_READ, cases[i].other_reads);

                /* A read-write grant reads too, and needs both. */
                if (cases[i].owner_writes)
                        client_expect_done(owner, call_open(owner, "/r", READ_WRITE, NULL));
                else
                        REQUIRE(call_open(owner, "/r", READ_WRITE, NULL) == SHMD__ERROR__ERROR_DENIED);
                if (cases[i].group_writes)
                        client_expect_done(group, call_open(group, "/r", READ_WRITE, NULL));
                else
                        REQUIRE(call_open(group, "/r", READ_WRITE, NULL) == SHMD__ERROR__ERROR_DENIED);
                if (cases[i].other_writes)
                        client_expect_done(other, call_open(other, "/r", READ_WRITE, NULL));
                else
                        REQUIRE(call_open(other, "/r", READ_WRITE, NULL) == SHMD__ERROR__ERROR_DENIED);
                client_expect_done(owner, call_unlink(owner, "/r"));
        }

        owner = client_free(owner);
        group = client_free(group);
        other = client_free(other);
        broker = broker_stop(broker);
}

TEST(rights, who_reads_and_does_not_write_is_refused_for_the_missing_half) {
        Broker *broker;
        Client *alice, *bob;

        test_needs_root();
        broker = broker_spawn(NULL);
        alice = client_connect_as(broker, ALICE, ALICE);
        bob = client_connect_as(broker, BOB, BOB);
        client_expect_done(alice, call_create_mode(alice, "/r", 1, 0604, NULL));
        client_expect_error(bob, DENIED, REGION_WRITE, call_open(bob, "/r", READ_WRITE, NULL));
        REQUIRE(bob->refusal->thing.len == 2 && memcmp(bob->refusal->thing.data, "/r", 2) == 0);
        client_expect_done(alice, call_chmod(alice, "/r", 0602));
        client_expect_error(bob, DENIED, REGION_READ, call_open(bob, "/r", READ_WRITE, NULL));
        client_expect_done(alice, call_chmod(alice, "/r", 0606));
        client_expect_done(bob, call_open(bob, "/r", READ_WRITE, NULL));

        alice = client_free(alice);
        bob = client_free(bob);
        broker = broker_stop(broker);
}

TEST(rights, an_open_for_no_rights_or_unknown_rights_is_invalid) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        client_expect_done(client, call_create(client, "/r", 1, NULL));
        client_expect_error(client, INVALID, MALFORMED, call_open(client, "/r", NO_RIGHTS, NULL));
        client_expect_error(client, INVALID, MALFORMED, call_open(client, "/r", 3, NULL));
        client_expect_error(client, INVALID, MALFORMED, call_open(client, "/r", UINT32_MAX, NULL));
        client = client_free(client);
        broker = broker_stop(broker);
}
