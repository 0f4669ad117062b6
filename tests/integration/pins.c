/* Pages that outlive their region: what is pinned by a pipe, by a socket's buffer or by io_uring, when
 * every descriptor and mapping is gone, is no file's any more. The broker cannot see it; it makes
 * sure that nobody else ever shares it, by punching every region before it lets it go. That memory
 * is in nobody's account, and here is what of it one user can have: it is measured with pages of
 * 4 KiB and of 2 MiB, it is bounded by limits of the kernel, and it stays charged to the memory
 * cgroup of whoever touched it first, which is the limit that counts. SECURITY.md has the numbers.
 */

#define TEST_TIMEOUT 300

#include "lib/cgroup.h"
#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define HUGE_PAGE (2 * MIB)
#define QUOTA (4 * MIB)
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES

/* Whose pipes and locked memory nobody else's are added to. */
#define MALLORY 64177

/* What a memory cgroup may have charged beside the pages: page tables, sockets, and what each
 * processor took in advance. */
#define SLACK (3 * MIB)

/* -- ways to pin a page ----------------------------------------------------------------------- */

enum { FDS_MAX = 4096 };

typedef struct Pins {
        int fds[FDS_MAX];
        size_t n_fds;
        int relay[2];           /* a pipe between memory and socket */
        bool full;              /* no more can be had this way */
} Pins;

static void add_fd(Pins *pins, int fd) {
        REQUIRE(fd >= 0, "%s", strerror(errno));
        REQUIRE(pins->n_fds < FDS_MAX);
        pins->fds[pins->n_fds++] = fd;
}

static void unpin(Pins *pins) {
        while (pins->n_fds > 0)
                close_fd(pins->fds[--pins->n_fds]);
}

/* A byte of each of the pages goes into a pipe, as often as it takes them. Return: how many it took. */
static size_t fill_pipe(int fd, char *memory, size_t n, size_t page) {
        size_t done = 0;

        while (done < n) {
                struct iovec iov = { .iov_base = memory + done * page, .iov_len = 1 };

                if (vmsplice(fd, &iov, 1, SPLICE_F_NONBLOCK) != 1)
                        break;
                ++done;
        }
        return done;
}

enum { PIPES_MAX = 80 };        /* 64 that are as large as can be are all that a user may have */

static void add_pipe(Pins *pins) {
        int ends[2];

        REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
        (void)fcntl(ends[1], F_SETPIPE_SZ, (int)test_read_number("/proc/sys/fs/pipe-max-size"));
        add_fd(pins, ends[0]);
        add_fd(pins, ends[1]);
}

/* Pipes as large as the user may make them, one after the other. Return: pages pinned. */
static size_t pin_with_pipes(Pins *pins, char *memory, size_t n, size_t page) {
        size_t done = 0;

        while (done < n && !pins->full) {
                if (pins->n_fds == 0)
                        add_pipe(pins);
                done += fill_pipe(pins->fds[pins->n_fds - 1], memory + done * page, n - done, page);
                if (done == n)
                        break;
                pins->full = pins->n_fds == (size_t)2 * PIPES_MAX;
                if (!pins->full)
                        add_pipe(pins);
        }
        return done;
}

/* One socket, with the room for what was sent that sockets have. */
static size_t pin_with_socket(Pins *pins, char *memory, size_t n, size_t page) {
        int ends[2];
        size_t done = 0;

        if (pins->n_fds == 0) {
                REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
                add_fd(pins, ends[0]);
                add_fd(pins, ends[1]);
                REQUIRE(pipe2(pins->relay, O_CLOEXEC) == 0);
                add_fd(pins, pins->relay[0]);
                add_fd(pins, pins->relay[1]);
        }
        while (done < n) {
                size_t take = n - done < 16 ? n - done : 16;

                if (fill_pipe(pins->relay[1], memory + done * page, take, page) != take ||
                    splice(pins->relay[0], NULL, pins->fds[0], NULL, take, SPLICE_F_NONBLOCK) != (ssize_t)take) {
                        pins->full = true;
                        break;
                }
                done += take;
        }
        return done;
}

static int ring_new(void) {
        struct io_uring_params params = { 0 };

        return (int)syscall(SYS_io_uring_setup, 1, &params);
}

/* One ring for as many of the pages as the user may lock in memory. */
static size_t pin_with_ring(Pins *pins, char *memory, size_t n, size_t page) {
        struct iovec *iovs = calloc(n, sizeof(*iovs));
        int ring = ring_new();

        REQUIRE(iovs && ring >= 0, "%s", strerror(errno));
        add_fd(pins, ring);
        for (size_t i = 0; i < n; ++i)
                iovs[i] = (struct iovec){ .iov_base = memory + i * page, .iov_len = PAGE };
        while (n > 0 && syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, iovs, n) < 0) {
                REQUIRE(errno == ENOMEM, "%s", strerror(errno));
                pins->full = true;
                n /= 2;
        }
        free(iovs);
        return n;
}

typedef size_t (*PinFn)(Pins *pins, char *memory, size_t n, size_t page);

/* -- a user who keeps more than it pays for ------------------------------------------------------- */

typedef struct Scene {
        Broker *broker;
        Client *mallory;        /* the test's connection */
        Cgroup cgroup;
        bool have_cgroup;
        PinFn pin;
        const char *what;
        bool huge;
        uint64_t most;          /* bytes after which it is enough */
} Scene;

static Scene scene_begin(void) {
        char config[64];
        Scene scene = { 0 };

        test_needs_root();
        (void)snprintf(config, sizeof(config), "[account]\nbytes = %" PRIu64, (uint64_t)QUOTA);
        scene.broker = broker_spawn(config);
        scene.mallory = client_connect_as(scene.broker, MALLORY, MALLORY);
        scene.have_cgroup = cgroup_begin(&scene.cgroup);
        if (!scene.have_cgroup)
                test_leave_out("memory cgroups cannot be made here: %s", strerror(errno));
        return scene;
}

static void scene_end(Scene *scene) {
        client_expect_used(scene->mallory, BYTES_SLOT, 0);
        if (scene->have_cgroup)
                cgroup_end(&scene->cgroup);
        scene->mallory = client_free(scene->mallory);
        scene->broker = broker_stop(scene->broker);
}

/* In a child: an ordinary process of Mallory's, in a memory cgroup of its own. */
static Client *become_mallory(Scene *scene) {
        Client *client;

        if (scene->have_cgroup)
                cgroup_enter(&scene->cgroup);
        client = client_connect_as(scene->broker, MALLORY, MALLORY);
        test_become(MALLORY, MALLORY);
        return client;
}

static uint64_t usage(const Scene *scene) {
        return scene->have_cgroup ? cgroup_usage(&scene->cgroup) : 0;
}

/* Maps it where huge pages could be. */
static char *map_aligned(int fd, size_t size) {
        char *room = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;

        REQUIRE(room != MAP_FAILED);
        at = (char *)(((uintptr_t)room + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
        REQUIRE(mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at, "%s", strerror(errno));
        REQUIRE(at == room || munmap(room, (size_t)(at - room)) == 0);
        REQUIRE(munmap(at + size, (size_t)(room + HUGE_PAGE - at)) == 0);
        return at;
}

/* A region of the whole quota, written to, pinned as far as it goes, and let go.
 * Return: pages that are pinned; -1 if there are no huge pages. */
static int64_t keep_once(Scene *scene, Client *client, Pins *pins) {
        size_t page = scene->huge ? HUGE_PAGE : PAGE, done;
        Grant grant = GRANT_NULL;
        char *memory;

        client_expect_done(client, call_create(client, NULL, QUOTA, &grant));
        memory = map_aligned(grant.fd, QUOTA);
        grant_deinit(&grant);
        memset(memory, 'm', QUOTA);
        if (scene->huge && !test_make_huge(memory, QUOTA)) {
                REQUIRE(munmap(memory, QUOTA) == 0);
                return -1;
        }
        done = scene->pin(pins, memory, QUOTA / page, page);
        REQUIRE(munmap(memory, QUOTA) == 0);
        client_expect_used(client, BYTES_SLOT, 0);
        return (int64_t)done;
}

static bool is_back(void *userdata) {
        const uint64_t *limit = userdata;       /* [0] the bound, [1] a Scene */

        return usage((Scene *)(uintptr_t)limit[1]) <= limit[0];
}

#define GOES_ON INT64_C(-1)

/* Keeps what can be kept and says how much. What the account does not say, the cgroup does. It arrives after
 * each region, for which the kernel may take its time. */
static int keep_more(void *userdata) {
        Scene *scene = userdata;
        Client *client = become_mallory(scene);
        uint64_t page = scene->huge ? HUGE_PAGE : PAGE, before = usage(scene), kept = 0, charged;
        Pins pins = { .full = false };

        while (kept < scene->most && !pins.full) {
                int64_t n = keep_once(scene, client, &pins);

                if (n < 0) {
                        child_arrive(0);
                        return 0;
                }
                kept += (uint64_t)n * page;
                child_arrive(GOES_ON);
        }
        charged = usage(scene) - before;
        fprintf(stderr, "%s, pages of %u KiB: %" PRIu64 " pages, %.1f MiB, with a quota of %.1f MiB; in the cgroup "
                "%.1f MiB\n", scene->what, (unsigned int)(page >> 10), kept / page, (double)kept / (double)MIB,
                (double)QUOTA / (double)MIB, (double)charged / (double)MIB);
        if (scene->have_cgroup)
                REQUIRE(charged + SLACK >= kept && charged <= kept + kept / 8 + SLACK, "%" PRIu64 " bytes", charged);
        unpin(&pins);
        REQUIRE(!scene->have_cgroup ||
                test_eventually(is_back, (uint64_t[]){ before + SLACK, (uint64_t)(uintptr_t)scene }));
        client = client_free(client);
        child_arrive((int64_t)(kept / page));
        return 0;
}

/* Return: pages kept; 0 without huge pages. */
static uint64_t measure(Scene *scene, PinFn pin, const char *what, bool huge, uint64_t most) {
        Child child = CHILD_NULL;
        uint64_t n;

        scene->pin = pin;
        scene->what = what;
        scene->huge = huge;
        scene->most = most;
        for (child_spawn(&child, keep_more, scene); child_value() == GOES_ON; child_await(&child))
                child_continue(&child);
        n = (uint64_t)child_value();
        child_release(&child);
        if (n == 0)
                test_leave_out("%s: no huge pages for shared memory here", what);
        return n;
}

TEST(pins, what_pipes_keep_is_bounded_by_the_users_pipe_pages_and_charged_to_its_memory_cgroup) {
        uint64_t soft = test_read_number("/proc/sys/fs/pipe-user-pages-soft"), n;
        Scene scene = scene_begin();

        /* Beyond the soft limit a pipe still has two places. */
        n = measure(&scene, pin_with_pipes, "pipes", false, UINT64_MAX);
        REQUIRE(soft == 0 || n <= soft + 2 * PIPES_MAX, "%" PRIu64 " pages", n);
        REQUIRE(n * PAGE > QUOTA, "more than the quota, or nothing was shown");
        n = measure(&scene, pin_with_pipes, "pipes", true, 64 * MIB);
        REQUIRE(soft == 0 || n <= soft + 2 * PIPES_MAX, "%" PRIu64 " pages", n);
        scene_end(&scene);
}

TEST(pins, what_a_socket_keeps_is_bounded_by_its_buffer_and_charged_to_its_makers_memory_cgroup) {
        uint64_t buffer = test_read_number("/proc/sys/net/core/wmem_default"), n;
        Scene scene = scene_begin();

        /* A byte of a page counts as a byte. */
        n = measure(&scene, pin_with_socket, "a socket", false, UINT64_MAX);
        fprintf(stderr, "a socket's buffer of %" PRIu64 " KiB keeps %" PRIu64 " pages\n", buffer >> 10, n);
        REQUIRE(n < buffer && n * PAGE > QUOTA, "%" PRIu64 " pages", n);
        (void)measure(&scene, pin_with_socket, "a socket", true, 64 * MIB);
        scene_end(&scene);
}

TEST(pins, what_io_uring_keeps_is_bounded_by_the_users_locked_memory_and_charged_to_its_memory_cgroup) {
        int ring = ring_new(), error = errno;
        Scene scene = scene_begin();
        struct rlimit limit;
        uint64_t n;

        if (ring < 0) {
                REQUIRE(error == EPERM || error == ENOSYS, "%s", strerror(error));
                fprintf(stderr, "io_uring cannot be had here and keeps nothing: %s\n", strerror(error));
        } else {
                close_fd(ring);
                REQUIRE(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
                n = measure(&scene, pin_with_ring, "io_uring", false, 64 * MIB);
                REQUIRE(limit.rlim_cur == RLIM_INFINITY || n * PAGE <= limit.rlim_cur, "%" PRIu64 " pages", n);
                n = measure(&scene, pin_with_ring, "io_uring", true, 64 * MIB);
                REQUIRE(limit.rlim_cur == RLIM_INFINITY || n * HUGE_PAGE <= limit.rlim_cur, "%" PRIu64 " pages", n);
        }
        scene_end(&scene);
}

/* -- huge pages nobody asked for -------------------------------------------------------------------- */

/* What a region that is mapped to the end of its last huge page has after its holder made that of it. */
static uint64_t allocated_when_collapsed(Client *client, uint64_t size, uint32_t rights) {
        size_t whole = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
        Grant grant = GRANT_NULL, mine = GRANT_NULL;
        struct stat st;
        char *memory;

        client_expect_done(client, call_create(client, "/r", size, &grant));
        REQUIRE(pwrite(grant.fd, "x", 1, 0) == 1 && pwrite(grant.fd, "x", 1, (off_t)size - 1) == 1);
        client_expect_done(client, call_open(client, "/r", rights, &mine));
        memory = mmap(NULL, whole + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(memory != MAP_FAILED);
        memory = (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
        REQUIRE(mmap(memory, whole, rights == READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                     mine.fd, 0) == memory, "%s", strerror(errno));
        (void)test_make_huge(memory, whole);
        REQUIRE(fstat(mine.fd, &st) == 0);
        client_expect_done(client, call_stat(client, "/r"));
        REQUIRE(((Shmd__StatReply *)client->reply)->node->charge == (size + PAGE - 1) / PAGE * PAGE);

        REQUIRE(munmap(memory, whole) == 0);
        grant_deinit(&grant);
        grant_deinit(&mine);
        client_expect_done(client, call_unlink(client, "/r"));
        client_expect_used(client, BYTES_SLOT, 0);
        return (uint64_t)st.st_blocks * 512;
}

static int collapse_tails(void *userdata) {
        static const uint64_t sizes[] = { 1, PAGE, 100 * PAGE + 1, HUGE_PAGE + 1, QUOTA };
        static const uint32_t rights[] = { READ_ONLY, READ_WRITE };
        Scene *scene = userdata;
        Client *client = become_mallory(scene);
        uint64_t before = usage(scene);

        for (size_t i = 0; i < 2; ++i)
                for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); ++k) {
                        uint64_t whole = (sizes[k] + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
                        uint64_t allocated = allocated_when_collapsed(client, sizes[k], rights[i]);

                        fprintf(stderr, "a region of %" PRIu64 " bytes, mapped for %s: %" PRIu64 " KiB allocated\n",
                                sizes[k], i ? "writing" : "reading", allocated >> 10);
                        REQUIRE(allocated <= whole);
                }
        REQUIRE(!scene->have_cgroup ||
                test_eventually(is_back, (uint64_t[]){ before + SLACK, (uint64_t)(uintptr_t)scene }));
        client = client_free(client);
        return 0;
}

/* The kernel fills the last huge page of a file up whatever the size and the seals say. */
TEST(pins, attack_064_a_holder_can_make_a_huge_page_of_a_regions_end_and_that_is_all) {
        Scene scene = scene_begin();
        Child child = CHILD_NULL;

        child_start(&child, collapse_tails, &scene);
        child_release(&child);
        scene_end(&scene);
}

/* -- what it cannot do ------------------------------------------------------------------------------- */

TEST(pins, a_page_in_a_pipe_is_never_shared_with_who_comes_after) {
        Scene scene = scene_begin();
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        Grant old = GRANT_NULL, new = GRANT_NULL;
        char *memory, *other, bytes[16];
        int ends[2];

        REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
        client_expect_done(scene.mallory, call_create(scene.mallory, NULL, QUOTA, &old));
        memory = map_aligned(old.fd, QUOTA);
        memset(memory, 'm', QUOTA);
        REQUIRE(fill_pipe(ends[1], memory, 16, PAGE) == 16);
        REQUIRE(munmap(memory, QUOTA) == 0);
        grant_deinit(&old);
        client_expect_used(scene.mallory, BYTES_SLOT, 0);

        client_expect_done(bob, call_create(bob, NULL, QUOTA, &new));
        other = map_aligned(new.fd, QUOTA);
        for (size_t i = 0; i < QUOTA; i += PAGE)
                REQUIRE(other[i] == 0, "nothing of the old one is in it");
        memset(other, 'b', QUOTA);
        REQUIRE(read(ends[0], bytes, 16) == 16 && memcmp(bytes, "mmmmmmmmmmmmmmmm", 16) == 0, "nor the reverse");
        REQUIRE(munmap(other, QUOTA) == 0);
        grant_deinit(&new);
        close_fd(ends[0]);
        close_fd(ends[1]);
        client_expect_used(bob, BYTES_SLOT, 0);
        bob = client_free(bob);
        scene_end(&scene);
}

/* The end of the region is made a huge page, one place of it is pinned, and the inode is kept as well. */
TEST(pins, a_huge_page_at_a_regions_end_leaves_its_file_as_well) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;
        char path[64], *memory;
        int ends[2], inode;
        struct stat st;

        REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
        client_expect_done(scene.mallory, call_create(scene.mallory, NULL, PAGE, &grant));
        memory = map_aligned(grant.fd, HUGE_PAGE);
        memory[0] = 'm';
        if (!test_make_huge(memory, HUGE_PAGE))
                test_leave_out("no huge pages for shared memory here");
        REQUIRE(fill_pipe(ends[1], memory, 1, PAGE) == 1);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", grant.fd);
        inode = open(path, O_PATH | O_CLOEXEC);
        REQUIRE(inode >= 0 && fstat(inode, &st) == 0 && st.st_blocks > 0);
        REQUIRE(munmap(memory, HUGE_PAGE) == 0);
        grant_deinit(&grant);
        client_expect_used(scene.mallory, BYTES_SLOT, 0);
        REQUIRE(fstat(inode, &st) == 0 && st.st_blocks == 0, "%ld blocks", (long)st.st_blocks);
        close_fd(inode);
        close_fd(ends[0]);
        close_fd(ends[1]);
        scene_end(&scene);
}

/* Takes all that can be had, which is more than its cgroup may have. */
static int keep_without_end(void *userdata) {
        Scene *scene = userdata;
        Client *client = become_mallory(scene);
        Pins pins[64] = { { .full = false } };

        scene->pin = pin_with_socket;
        child_arrive(0);
        for (size_t i = 0; i < 64; ++i)
                while (!pins[i].full)
                        (void)keep_once(scene, client, &pins[i]);
        return 1;
}

TEST(pins, attack_111_who_keeps_more_than_its_memory_cgroup_may_have_is_killed_and_the_books_are_right) {
        const uint64_t limit = 48 * MIB;
        Scene scene = scene_begin();
        Child child = CHILD_NULL;
        Grant grant = GRANT_NULL;
        int status;

        if (!scene.have_cgroup) {
                scene_end(&scene);
                return;
        }
        cgroup_limit(&scene.cgroup, limit);
        child_spawn(&child, keep_without_end, &scene);
        child_continue(&child);
        status = test_wait_pid(child.pid);
        child.pid = 0;
        child_kill(&child);
        REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it ended with status %#x", status);
        REQUIRE(cgroup_peak(&scene.cgroup) <= limit, "%" PRIu64 " bytes", cgroup_peak(&scene.cgroup));

        client_expect_used(scene.mallory, BYTES_SLOT, 0);
        client_expect_done(scene.mallory, call_create(scene.mallory, NULL, QUOTA, &grant));
        grant_deinit(&grant);
        scene_end(&scene);
}
