/* daemon/broker/burial: a large region that cannot be emptied in steps is closed by a helper, and
 * charged until that is over. The test is the helper.
 */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/burial.h"
#include "util/helperlink.h"
#include "util/log.h"

#define LARGE (UINT64_C(24) << 20)

static House house;
static Broker broker;
static Account *alice;

/* control: the broker's end of a helper's socket, -1 for none. */
static void begin(int control, uint64_t limit_ns) {
        house_open(&house);
        REQUIRE(log_open(2) == 0);
        REQUIRE(loop_new(&broker.loop, &house.deadlines) == 0);
        list_init(&broker.burials);
        helpers_init(&broker.helpers, &house.deadlines, limit_ns);
        if (control >= 0)
                REQUIRE(helpers_start_consume_fd(&broker.helpers, broker.loop, control) == 0);
        house.regions.bury = burial_begin;
        house.regions.bury_userdata = &broker;
        alice = house_account(&house, ALICE);
}

static void end(void) {
        burials_free(&broker);
        helpers_deinit(&broker.helpers);
        alice = account_unref(alice);
        house_close(&house);
        broker.loop = loop_free(broker.loop);
        log_close();
}

static void stop(Deadline *deadline, void *userdata) {
        (void)deadline;
        (void)userdata;
        loop_stop(broker.loop, 0);
}

static void turn(void) {
        Deadline soon = DEADLINE_NULL;

        deadline_arm(&soon, &house.deadlines, time_now() + NSEC_PER_MSEC, stop, NULL);
        REQUIRE(loop_run(broker.loop) == 0);
        regions_dispatch(&house.regions);
}

#define turn_until(condition)                                                           \
        do {                                                                            \
                int64_t until = test_now_ms() + TEST_PATIENCE_MS;                       \
                                                                                        \
                while (!(condition)) {                                                  \
                        REQUIRE(test_now_ms() < until, "never: " #condition);           \
                        turn();                                                         \
                }                                                                       \
        } while (0)

/* A region that was filled, frozen if so wanted, and let go of a moment ago. Return: an O_PATH descriptor of it. */
static int make_kept(uint64_t size, bool frozen) {
        RegionSpec spec = { .size = size, .freezable = true, .permissions = { .uid = ALICE, .mode = 0600 } };
        Region *region;
        char path[64];
        int fd, kept;

        REQUIRE(region_new(&region, &house.regions, alice, &spec, NULL) == 0);
        fd = house_hold(region, true);
        REQUIRE(fallocate(fd, 0, 0, (off_t)size) == 0, "%s", strerror(errno));
        if (frozen)
                REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        kept = open(path, O_PATH | O_CLOEXEC);
        REQUIRE(kept >= 0);
        close_fd(fd);
        region_orphan(region);
        cr_assert_eq(house.regions.n_condemned, 1);
        return kept;
}

static void make_unheld(uint64_t size, bool frozen) {
        close_fd(make_kept(size, frozen));
}

/* Becomes the worker that was asked for, and takes a job. Return: the worker's end. */
static int take_job(int supervisor, HelperPacket *ret, int *ret_fd) {
        HelperPacket packet;
        int pair[2], fd;

        REQUIRE(helperlink_receive(supervisor, false, &packet, &fd) == 0 && packet.op == HELPER_SPAWN && fd < 0);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        packet = (HelperPacket){ .op = HELPER_WORKER, .pid = 1 };
        REQUIRE(helperlink_send(supervisor, &packet, pair[1]) == 0);
        close_fd(pair[1]);
        for (int i = 0; i < 8; ++i)
                turn();
        REQUIRE(helperlink_receive(pair[0], false, ret, ret_fd) == 0 && ret->op == HELPER_BURY && *ret_fd >= 0);
        return pair[0];
}

TEST(burial, a_large_frozen_region_is_closed_by_a_helper_and_charged_until_then) {
        HelperPacket job, answer = { .op = HELPER_DONE };
        int pair[2], worker, grave;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        begin(pair[0], 60 * NSEC_PER_SEC);
        make_unheld(LARGE, true);
        turn_until(house.regions.n_buried == 1);
        worker = take_job(pair[1], &job, &grave);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], LARGE);
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_LATER, "it will be free, but not in the next turn");
        cr_assert_eq(regions_squeeze(&house.regions, 250 * NSEC_PER_MSEC), REGIONS_SPENT);
        cr_assert_eq(helperlink_close_enclosed(grave), 0, "it is in there, and nowhere else");
        close_fd(grave);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], LARGE);
        answer.serial = job.serial;
        REQUIRE(helperlink_send(worker, &answer, -1) == 0);
        turn_until(house.regions.n == 0);
        cr_assert_eq(house.regions.n_released, 1);
        cr_assert(list_is_empty(&broker.burials));
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0);
        end();
        close_fd(worker);
        close_fd(pair[1]);
}

TEST(burial, a_worker_that_dies_with_it_takes_it_along) {
        HelperPacket job;
        int pair[2], worker, grave;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        begin(pair[0], 60 * NSEC_PER_SEC);
        make_unheld(LARGE, true);
        turn_until(house.regions.n_buried == 1);
        for (int i = 0; i < 2; ++i) {
                HelperPacket reaped;
                int none;

                worker = take_job(pair[1], &job, &grave);
                close_fd(grave);
                close_fd(worker);
                for (int k = 0; k < 8; ++k)
                        turn();
                REQUIRE(helperlink_receive(pair[1], false, &reaped, &none) == 0 && reaped.op == HELPER_REAP);
        }
        turn_until(house.regions.n == 0);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0);
        end();
        close_fd(pair[1]);
}

TEST(burial, what_can_be_emptied_and_what_is_small_is_closed_here) {
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        begin(pair[0], 60 * NSEC_PER_SEC);
        make_unheld(LARGE, false);
        turn_until(house.regions.n == 0);
        make_unheld(UINT64_C(1) << 20, true);
        turn_until(house.regions.n == 0);
        cr_assert_eq(broker.helpers.n_coming, 0, "no worker was asked for");
        end();
        close_fd(pair[1]);
}

TEST(burial, without_a_helper_it_is_closed_here) {
        begin(-1, 60 * NSEC_PER_SEC);
        make_unheld(LARGE, true);
        turn_until(house.regions.n == 0);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0);
        end();
}

TEST(burial, what_an_o_path_descriptor_keeps_of_a_frozen_region_is_charged_and_nobody_waits_for_it) {
        int kept;

        begin(-1, 60 * NSEC_PER_SEC);
        close_fd(make_kept(LARGE, false));
        turn_until(house.regions.n == 0);
        kept = make_kept(LARGE, true);
        turn_until(house.regions.n_kept == 1);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], LARGE);
        (void)regions_squeeze(&house.regions, 0);       /* may begin a sweep */
        turn();
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_SPENT);
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER, "the broker sleeps");
        close_fd(kept);
        turn_until(house.regions.n == 0);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0);
        cr_assert_eq(house.regions.n_kept, 0);

        /* Nor does the end of the broker. */
        kept = make_kept(LARGE, true);
        turn_until(house.regions.n_kept == 1);
        end();
        close_fd(kept);
}

/* The supervisor is there and gives nobody. */
TEST(burial, as_long_as_no_worker_has_time_it_waits_and_stays_charged) {
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        begin(pair[0], 2 * NSEC_PER_MSEC);
        make_unheld(LARGE, true);
        turn_until(house.regions.n_buried == 1);
        for (int i = 0; i < 20; ++i)
                turn();
        cr_assert_eq(house.regions.n_buried, 1);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], LARGE);
        close_fd(pair[1]);
        turn_until(house.regions.n == 0);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0);
        end();
}

TEST(burial, the_end_of_the_broker_waits_for_none) {
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        begin(pair[0], 60 * NSEC_PER_SEC);
        make_unheld(LARGE, true);
        turn_until(house.regions.n_buried == 1);
        end();
        close_fd(pair[1]);
}

/* -- with a store of descriptors ------------------------------------------------------------------ */

/* A store that keeps what it is told to; and does what it is told when the test says so. */
typedef struct Store {
        int sockets[2];
        FdStore *store;
        int kept;
} Store;

static int receive_word(Store *store, const char *word) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        char text[128];
        struct iovec part = { .iov_base = text, .iov_len = sizeof(text) - 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n = recvmsg(store->sockets[1], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        int fd = -1;

        if (n < 0)
                return -1;
        text[n] = '\0';
        REQUIRE(!strncmp(text, word, strlen(word)), "%s", text);
        if (CMSG_FIRSTHDR(&message))
                memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
        return fd >= 0 ? fd : 0;
}

static void flush(void *store) {
        fdstore_flush(store);
}

static void open_store(Store *store) {
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, store->sockets) == 0);
        REQUIRE(fdstore_new(&store->store, store->sockets[0], &house.deadlines, 0) == 0);
        house.regions.store = store->store;
        loop_after_turn(broker.loop, flush, store->store);
}

static void close_store(Store *store) {
        loop_after_turn(broker.loop, NULL, NULL);
        regions_forget_store(&house.regions);
        store->store = fdstore_free(store->store);
        close_fd(store->sockets[0]);
        close_fd(store->sockets[1]);
}

/* The store's copy goes first, or the store would be the one that frees the memory. */
TEST(burial, what_a_store_has_as_well_is_buried_when_that_has_let_it_go) {
        HelperPacket job;
        int pair[2], worker, grave, barrier, kept;
        Store store;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        begin(pair[0], 60 * NSEC_PER_SEC);
        open_store(&store);
        make_unheld(LARGE, true);
        kept = receive_word(&store, "FDSTORE=1");
        turn_until(house.regions.n_leaving == 1);
        cr_assert_eq(regions_squeeze(&house.regions, 0), REGIONS_LATER);
        turn();
        turn();
        cr_assert_eq(receive_word(&store, "FDSTOREREMOVE=1"), 0);
        barrier = receive_word(&store, "BARRIER=1");
        cr_assert_gt(barrier, 0);
        turn();
        cr_assert(house.regions.n_buried == 0 && alice->used[ACCOUNT_BYTES] == LARGE);
        close_fd(kept);
        close_fd(barrier);
        turn_until(house.regions.n_buried == 1);
        cr_assert_eq(house.regions.n_leaving, 0);
        worker = take_job(pair[1], &job, &grave);
        close_fd(grave);
        close_store(&store);
        end();
        close_fd(worker);
        close_fd(pair[1]);
}

/* Else its file would never be gone. */
TEST(burial, what_is_closed_and_kept_by_somebody_leaves_the_store_although_it_is_charged) {
        Store store;
        int kept, path;

        begin(-1, 60 * NSEC_PER_SEC);
        open_store(&store);
        path = make_kept(UINT64_C(1) << 20, true);
        kept = receive_word(&store, "FDSTORE=1");
        turn_until(house.regions.n_kept == 1);
        cr_assert_eq(receive_word(&store, "FDSTOREREMOVE=1"), 0);
        close_fd(kept);
        turn();
        cr_assert_eq(house.regions.n_kept, 1, "somebody has it still");
        close_fd(path);
        turn_until(house.regions.n == 0);
        close_store(&store);
        end();
}

TEST(burial, a_store_that_goes_leaves_nobody_waiting) {
        Store store;
        int kept;

        begin(-1, 60 * NSEC_PER_SEC);
        open_store(&store);
        make_unheld(LARGE, true);
        kept = receive_word(&store, "FDSTORE=1");
        turn_until(house.regions.n_leaving == 1);
        turn();
        close_store(&store);
        end();
        close_fd(kept);
}
