/* daemon/core/stock: memory for regions, made before anybody asks for it.
 *
 * The store is the other end of a socket pair, which the tests read when they like.
 */

#include "daemon-house.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/stock.h"
#include "util/fdstore.h"
#include "util/memfd.h"

#define REGIONS_MAX 512

typedef struct Scene {
        House house;
        Account *alice;
        FdStore *store;
        int ours, theirs;
        Region *regions[REGIONS_MAX];
        size_t n;
} Scene;

static Scene scene;

static void begin(void) {
        int pair[2];

        house_open(&scene.house);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        scene.ours = pair[0];
        scene.theirs = pair[1];
        scene.alice = house_account(&scene.house, ALICE);
        REQUIRE(fdstore_new(&scene.store, scene.ours, &scene.house.deadlines, 0) == 0);
        fdstore_set_most(scene.store, FDSTORE_SEVERAL_MAX);
        scene.house.regions.store = scene.store;
        scene.house.regions.stock.allowed = true;
}

static void end(void) {
        while (scene.n > 0)
                (void)region_free(scene.regions[--scene.n]);
        stock_close(&scene.house.regions);
        regions_forget_store(&scene.house.regions);
        scene.store = fdstore_free(scene.store);
        close_fdp(&scene.ours);
        close_fdp(&scene.theirs);
        REQUIRE(deadlines_next(&scene.house.deadlines) == DEADLINE_NEVER, "nothing is armed any more");
        (void)account_unref(scene.alice);
        house_close(&scene.house);
}

static Stock *stock(void) {
        return &scene.house.regions.stock;
}

static size_t n_ready(void) {
        return stock()->ready.n - stock()->ready.first;
}

/* One region, and then the end of its request. */
static Region *make(void) {
        REQUIRE(scene.n < REGIONS_MAX);
        scene.regions[scene.n] = house_region(&scene.house, scene.alice, PAGE);
        stock_make(&scene.house.regions);
        return scene.regions[scene.n++];
}

static void make_many(size_t n) {
        while (n--)
                (void)make();
}

/* The clock is real: if the test stands still, a burst begins anew. */
static void begin_burst(void) {
        while (!stock()->open)
                (void)make();
}

/* Until a block is ready. */
static void make_ready(void) {
        begin_burst();
        make_many(STOCK_BLOCK);
        REQUIRE(n_ready() == STOCK_BLOCK, "a burst has a block ready");
}

typedef struct Seen {
        size_t n_packets;       /* that gave a descriptor, or several */
        size_t n_kept;          /* the descriptors */
        size_t n_removed;
        size_t largest;
        uint64_t inodes[REGIONS_MAX * 2];       /* of what is kept, by number; 0: nothing is */
} Seen;

static uint64_t number_in(const char *line) {
        REQUIRE(!strncmp(line, "FDNAME=r", 8));
        return strtoull(line + 8, NULL, 10);
}

static void see_packet(Seen *seen, char *text, const int *fds, size_t n_fds) {
        bool removal = !strncmp(text, "FDSTOREREMOVE=1", 15);
        size_t n_names = 0;

        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                struct stat st;
                uint64_t id;

                if (strncmp(line, "FDNAME=", 7))
                        continue;
                id = number_in(line);
                REQUIRE(id < sizeof(seen->inodes) / sizeof(*seen->inodes));
                REQUIRE(!seen->inodes[id] == !removal, "r%" PRIu64, id);
                REQUIRE(removal || (n_names < n_fds && fstat(fds[n_names], &st) == 0));
                seen->inodes[id] = removal ? 0 : st.st_ino;
                seen->n_removed += removal;
                ++n_names;
        }
        REQUIRE(n_names > 0 && n_fds == (removal ? 0 : n_names));
        seen->n_packets += n_fds > 0;
        seen->n_kept += n_fds;
        if (n_fds > seen->largest)
                seen->largest = n_fds;
}

/* What the store was told. */
static void see(Seen *seen) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(STOCK_BLOCK * sizeof(int))];
        } control;
        char text[2048];

        for (;;) {
                struct iovec part = { .iov_base = text, .iov_len = sizeof(text) - 1 };
                struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                          .msg_controllen = sizeof(control) };
                ssize_t n = recvmsg(scene.theirs, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                int fds[STOCK_BLOCK];
                size_t n_fds = 0;

                if (n <= 0)
                        return;
                text[n] = '\0';
                if (CMSG_FIRSTHDR(&message)) {
                        n_fds = (CMSG_FIRSTHDR(&message)->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                        memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), n_fds * sizeof(int));
                }
                see_packet(seen, text, fds, n_fds);
                while (n_fds > 0)
                        close_fdp(&fds[--n_fds]);
        }
}

/* -- when there is one ------------------------------------------------------------------------ */

TEST(stock, there_is_none_before_a_burst_and_nothing_wakes_up_for_it) {
        Seen seen = { 0 };

        begin();
        make_many(STOCK_BURST - 1);
        REQUIRE(!stock()->open && n_ready() == 0 && stock()->next.n == 0);
        REQUIRE(deadlines_next(&scene.house.deadlines) == DEADLINE_NEVER);
        see(&seen);
        cr_assert_eq(seen.n_packets, STOCK_BURST - 1);
        end();
}

TEST(stock, regions_made_now_and_then_are_no_burst) {
        begin();
        for (size_t i = 0; i < 2 * STOCK_BURST; ++i) {
                /* As if it were long ago. */
                if (i % (STOCK_BURST - 1) == 0)
                        stock()->since -= stock()->since < 2 * STOCK_NS ? stock()->since : 2 * STOCK_NS;
                (void)make();
        }
        REQUIRE(!stock()->open);
        end();
}

TEST(stock, there_is_none_where_descriptors_are_few) {
        begin();
        stock()->allowed = false;
        make_many(4 * STOCK_BURST);
        REQUIRE(!stock()->open && stock()->next.n == 0);
        end();
}

TEST(stock, there_is_none_where_the_store_takes_one_at_a_time) {
        Seen seen = { 0 };

        begin();
        fdstore_set_most(scene.store, 1);
        make_many(4 * STOCK_BURST);
        REQUIRE(!stock()->open && stock()->next.n == 0);
        see(&seen);
        cr_assert_eq(seen.n_packets, 4 * STOCK_BURST);
        end();
}

TEST(stock, a_burst_tells_the_store_of_a_block_at_once) {
        Seen seen = { 0 };
        size_t singles;

        begin();
        make_ready();
        see(&seen);
        cr_assert_eq(seen.largest, STOCK_BLOCK);
        singles = seen.n_packets;
        make_many(4 * STOCK_BLOCK);
        see(&seen);
        cr_assert_eq(seen.n_packets, singles + 4, "one for each block");
        cr_assert_eq(seen.n_kept, scene.n + STOCK_BLOCK, "what is ready is kept already");
        REQUIRE(n_ready() == STOCK_BLOCK);
        end();
}

TEST(stock, no_more_is_made_than_was_taken) {
        begin();
        make_ready();
        REQUIRE(stock()->next.n == 0);
        for (size_t i = 0; i < 5; ++i)
                scene.regions[scene.n++] = house_region(&scene.house, scene.alice, PAGE);
        REQUIRE(stock()->next.n == 0, "not while somebody waits");
        stock_make(&scene.house.regions);
        REQUIRE(stock()->next.n == 5 && n_ready() == STOCK_BLOCK - 5);
        stock_make(&scene.house.regions);
        REQUIRE(stock()->next.n == 5);
        end();
}

/* One request may take more than there is. */
TEST(stock, what_it_does_not_have_is_made_at_once) {
        Seen seen = { 0 };

        begin();
        make_ready();
        for (size_t i = 0; i < STOCK_BLOCK + 7; ++i)
                scene.regions[scene.n++] = house_region(&scene.house, scene.alice, PAGE);
        REQUIRE(n_ready() == 0);
        stock_make(&scene.house.regions);
        REQUIRE(n_ready() == STOCK_BLOCK && stock()->next.n == 0);
        see(&seen);
        cr_assert_eq(seen.n_kept, scene.n + STOCK_BLOCK);
        end();
}

TEST(stock, all_of_it_is_given_back_a_moment_after_the_burst) {
        Seen seen = { 0 };
        size_t n_open;

        begin();
        make_ready();
        make_many(3);
        n_open = scene.n;
        house_until(&scene.house, !stock()->open);
        fdstore_flush(scene.store);
        REQUIRE(n_ready() == 0 && stock()->next.n == 0 && deadlines_next(&scene.house.deadlines) == DEADLINE_NEVER);
        see(&seen);
        cr_assert_eq(seen.n_removed, STOCK_BLOCK - 3);
        cr_assert_eq(seen.n_kept - seen.n_removed, n_open);
        make_ready();
        end();
}

/* -- what comes of it -------------------------------------------------------------------------- */

/* Everything that can be asked of a region, and the store has it under its name. */
static void expect_as_any(const Seen *seen, Region *region, uint64_t size) {
        MemfdSpec spec = { .id = region->id, .size = size };

        REQUIRE(region->stored && seen->inodes[region->id] == memfd_inode(region->fd), "r%" PRIu64, region->id);
        REQUIRE(!memfd_adopt(region->fd, &spec, geteuid(), memfd_inode(region->fd)));
        REQUIRE(memfd_probe(region->fd) == 0, "nobody else has it, and the kernel says so");
        REQUIRE(regions_find(&scene.house.regions, region->id) == region);
        REQUIRE(region_charged(region) == size);
        for (size_t i = 0; i < scene.n; ++i)
                REQUIRE(scene.regions[i] == region || scene.regions[i]->id != region->id);
}

TEST(stock, regions_made_of_it_are_like_any_other) {
        Seen seen = { 0 };

        begin();
        make_ready();
        make_many(3 * STOCK_BLOCK);
        see(&seen);
        for (size_t i = 0; i < scene.n; ++i)
                expect_as_any(&seen, scene.regions[i], PAGE);
        while (scene.n > 0)
                (void)region_free(scene.regions[--scene.n]);
        stock_close(&scene.house.regions);
        fdstore_flush(scene.store);
        see(&seen);
        cr_assert_eq(seen.n_removed, seen.n_kept, "the store has nothing any more");
        end();
}

TEST(stock, its_memory_gets_the_size_and_seals_that_are_asked_for) {
        RegionSpec spec = { .size = 3 * PAGE, .freezable = true,
                            .permissions = { .uid = ALICE, .gid = ALICE, .mode = 0600 } };
        Region *region;

        begin();
        make_ready();
        REQUIRE(region_new(&region, &scene.house.regions, scene.alice, &spec, NULL) == 0);
        REQUIRE(n_ready() == STOCK_BLOCK - 1);
        cr_assert_eq(memfd_seals(region->fd) & (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL | F_SEAL_WRITE),
                     F_SEAL_GROW | F_SEAL_SHRINK);
        cr_assert_eq(lseek(region->fd, 0, SEEK_END), 3 * (off_t)PAGE);
        scene.regions[scene.n++] = region;
        end();
}

/* A doorbell's page can be opened for reading by those who have it. */
TEST(stock, a_doorbell_is_not_made_of_it) {
        Region *page;
        struct stat st;

        begin();
        make_ready();
        REQUIRE(region_bell(scene.regions[0], &page, NULL) == 0);
        REQUIRE(n_ready() == STOCK_BLOCK);
        REQUIRE(fstat(page->fd, &st) == 0 && (st.st_mode & 07777) == 0644);
        end();
}

TEST(stock, who_is_refused_takes_nothing_of_it) {
        RegionSpec spec = { .size = PAGE, .permissions = { .uid = ALICE, .gid = ALICE, .mode = 0600 } };
        Shortage shortage;
        Region *region;
        uint64_t next;

        begin();
        make_ready();
        next = stock_number(stock());
        scene.alice->max[ACCOUNT_REGIONS] = scene.n;
        REQUIRE(region_new(&region, &scene.house.regions, scene.alice, &spec, &shortage) == REGION_E_QUOTA);
        spec.size = UINT64_MAX;
        REQUIRE(region_new(&region, &scene.house.regions, scene.alice, &spec, &shortage) == REGION_E_SIZE);
        REQUIRE(n_ready() == STOCK_BLOCK && stock_number(stock()) == next);
        scene.alice->max[ACCOUNT_REGIONS] = QUOTA_UNLIMITED;
        cr_assert_eq(make()->id, next);
        end();
}

/* Larger than a file may be, which only the kernel says. */
static int refuse_size(void *userdata) {
        struct rlimit limit = { .rlim_cur = 4 * PAGE, .rlim_max = RLIM_INFINITY };
        RegionSpec spec = { .size = 8 * PAGE, .permissions = { .uid = ALICE, .gid = ALICE, .mode = 0600 } };
        Seen seen = { 0 };
        Shortage shortage;
        Region *region;

        (void)userdata;
        begin();
        make_ready();
        REQUIRE(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &limit) == 0);
        REQUIRE(region_new(&region, &scene.house.regions, scene.alice, &spec, &shortage) == REGION_E_SIZE);
        fdstore_flush(scene.store);
        see(&seen);
        REQUIRE(seen.n_removed == 1 && seen.n_kept - 1 == scene.n + n_ready(), "what cannot be used leaves the store");
        end();
        return 0;
}

TEST(stock, memory_that_cannot_have_its_size_is_used_up) {
        house_expect_child(refuse_size, NULL);
}

/* -- when something is missing ------------------------------------------------------------------ */

/* Every descriptor that this process may have is open but some. */
static int run_out(void *userdata) {
        struct rlimit before;
        Region *region;

        (void)userdata;
        begin();
        make_ready();
        test_leave_fds(0, &before);
        for (size_t i = 0; i < STOCK_BLOCK; ++i)
                region = make();
        REQUIRE(n_ready() == 0 && stock()->next.n == 0, "nothing can be made ahead");
        REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
        region = make();
        REQUIRE(region->stored && stock()->next.n == 1, "and then it goes on");
        end();
        return 0;
}

TEST(stock, regions_are_made_of_what_there_is_when_descriptors_run_out) {
        house_expect_child(run_out, NULL);
}

TEST(stock, a_store_without_room_gets_the_block_later) {
        RegionSpec spec = { .size = PAGE, .permissions = { .uid = ALICE, .gid = ALICE, .mode = 0600 } };
        Seen seen = { 0 };
        Shortage shortage;
        Region *region;
        int r = 0;

        begin();
        begin_burst();
        /* Regions of a doorbell's kind are told one by one, and fill the queue. */
        while (r == 0) {
                r = region_new(&region, &scene.house.regions, scene.alice,
                               &(RegionSpec){ .size = PAGE, .bell = true, .permissions = spec.permissions }, &shortage);
                if (!r)
                        scene.regions[scene.n++] = region;
        }
        REQUIRE(r == REGION_E_BUSY);
        for (size_t i = 0; i < 2 * STOCK_BLOCK; ++i) {
                REQUIRE(region_new(&region, &scene.house.regions, scene.alice, &spec, &shortage) == REGION_E_BUSY);
                stock_make(&scene.house.regions);
        }
        REQUIRE(stock()->next.n == STOCK_BLOCK && n_ready() == 0, "it waits");
        see(&seen);
        (void)make();
        REQUIRE(stock()->next.n == 0 && n_ready() == STOCK_BLOCK);
        see(&seen);
        cr_assert_eq(seen.n_kept, scene.n + STOCK_BLOCK);
        end();
}

TEST(stock, nothing_is_left_when_the_store_is_given_up) {
        Seen seen = { 0 };

        begin();
        make_ready();
        see(&seen);
        regions_forget_store(&scene.house.regions);
        REQUIRE(n_ready() == 0 && !stock()->open);
        see(&seen);
        cr_assert_eq(seen.n_removed, 0, "what is in it stays there, for whoever comes next");
        end();
}
