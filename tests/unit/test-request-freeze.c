/* daemon/broker/request-freeze: a freeze is answered when the helper has answered, in whatever way.
 *
 * The test is the helper's supervisor and its one worker.
 */

#include "daemon-table.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/helperlink.h"

/* Whether it is over is the tests' decision, and never that of a slow machine. */
#define HELPER_NS (3600 * NSEC_PER_SEC)
#define FREEZE(...) REQUEST(Freeze, freeze, __VA_ARGS__)

static Guest *alice;
static int supervisor, worker;
static int region;              /* Alice's descriptor */

static void begin(void) {
        int pair[2];

        table_defaults();
        table_options.helper_ns = HELPER_NS;
        table_open();
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        supervisor = pair[0];
        worker = -1;
        REQUIRE(broker_helper_consume_fd(table, pair[1]) == 0);
        alice = guest_new(ALICE);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE,
                                           REQUEST(Create, create, .path = BYTES("/r"), .size = 4096, .mode = 0600,
                                                   .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE,
                                                   .rights = SHMD__RIGHTS__RIGHTS_READ_WRITE)));
        region = fdlist_take(&alice->fds);
        REQUIRE(fcntl(region, F_ADD_SEALS, F_SEAL_WRITE) == 0);
}

static void end(void) {
        region = close_fd(region);
        alice = guest_free(alice);
        table_close();
        supervisor = close_fd(supervisor);
        worker = close_fd(worker);
}

static void stop(Deadline *deadline, void *userdata) {
        (void)deadline;
        (void)userdata;
        loop_stop(table->loop, 0);
}

/* Lets the loop do what there is to do. */
static void turn(void) {
        for (int i = 0; i < 4; ++i) {
                Deadline now = DEADLINE_NULL;

                deadline_arm(&now, &table->deadlines, 0, stop, NULL);
                REQUIRE(loop_run(table->loop) == 0);
        }
}

static void give_worker(void) {
        HelperPacket packet;
        int pair[2], fd;

        REQUIRE(helperlink_receive(supervisor, false, &packet, &fd) == 0 && packet.op == HELPER_SPAWN);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        worker = pair[0];
        packet = (HelperPacket){ .op = HELPER_WORKER, .pid = 1000 };
        REQUIRE(helperlink_send(supervisor, &packet, pair[1]) == 0);
        (void)close(pair[1]);
        turn();
}

/* Takes the job, does it or not, and answers. */
static void work(bool seal, int result) {
        HelperPacket packet;
        int fd;

        REQUIRE(helperlink_receive(worker, false, &packet, &fd) == 0 && packet.op == HELPER_SEAL);
        cr_assert_eq(packet.seals, F_SEAL_SEAL);
        if (seal)
                REQUIRE(fcntl(fd, F_ADD_SEALS, (int)packet.seals) == 0);
        fd = close_fd(fd);
        packet.op = HELPER_DONE;
        packet.result = result;
        REQUIRE(helperlink_send(worker, &packet, -1) == 0);
        turn();
}

static uint32_t ask_freeze(void) {
        return guest_ask(alice, MESSAGE_FREEZE, FREEZE(.path = BYTES("/r")));
}

static uint64_t pending(void) {
        return guest_peer(alice)->account->used[ACCOUNT_PENDING];
}

TEST(request_freeze, the_answer_comes_with_the_seals_when_it_is_done) {
        const Shmd__FreezeReply *reply;

        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        cr_assert_eq(pending(), 1);
        give_worker();
        work(true, 0);
        guest_expect_done(alice, guest_receive(alice));
        reply = (const Shmd__FreezeReply *)alice->reply;
        cr_assert_eq(reply->seals & (F_SEAL_WRITE | F_SEAL_SEAL), F_SEAL_WRITE | F_SEAL_SEAL);
        cr_assert_eq(pending(), 0);
        guest_expect_done(alice, ask_freeze());
        end();
}

static unsigned int n_told;

static void told(RegionInterest *interest, RegionNews news) {
        (void)interest;
        n_told += news == REGION_WAS_FROZEN;
}

TEST(request_freeze, who_takes_an_interest_is_told_once) {
        RegionInterest interest = { 0 };

        begin();
        (void)region_take_interest(regions_find(&table->regions, 1), &interest, false, told, NULL);
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        cr_assert_eq(n_told, 0);
        work(true, 0);
        cr_assert_eq(n_told, 1);
        guest_expect_done(alice, guest_receive(alice));
        guest_expect_done(alice, ask_freeze());
        cr_assert_eq(n_told, 1);
        region_drop_interest(&interest);
        end();
}

TEST(request_freeze, while_it_is_pending_a_second_one_is_refused) {
        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        guest_expect(alice, BUSY, HELPER, ask_freeze());
        give_worker();
        guest_expect(alice, BUSY, HELPER, ask_freeze());
        work(true, 0);
        guest_expect_done(alice, guest_receive(alice));
        end();
}

TEST(request_freeze, what_takes_too_long_is_refused_and_may_be_asked_again) {
        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        table_pass(HELPER_NS + 1);
        guest_expect(alice, BUSY, HELPER, guest_receive(alice));
        cr_assert_eq(pending(), 0);
        guest_expect(alice, BUSY, HELPER, ask_freeze());
        worker = close_fd(worker);
        turn();
        cr_assert_eq(ask_freeze(), SILENT);
        table_pass(HELPER_NS + 1);
        guest_expect(alice, BUSY, HELPER, guest_receive(alice));
        end();
}

TEST(request_freeze, who_takes_an_interest_is_told_of_a_freeze_that_came_too_late_as_well) {
        RegionInterest interest = { 0 };
        HelperPacket packet;
        int fd;

        begin();
        n_told = 0;
        (void)region_take_interest(regions_find(&table->regions, 1), &interest, false, told, NULL);
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        table_pass(HELPER_NS + 1);
        guest_expect(alice, BUSY, HELPER, guest_receive(alice));
        REQUIRE(helperlink_receive(worker, false, &packet, &fd) == 0 && packet.op == HELPER_SEAL);
        REQUIRE(fcntl(fd, F_ADD_SEALS, (int)packet.seals) == 0);
        fd = close_fd(fd);
        cr_assert_eq(n_told, 0);
        worker = close_fd(worker);
        turn();
        cr_assert_eq(n_told, 1);
        guest_expect_done(alice, ask_freeze());
        cr_assert_eq(n_told, 1);
        region_drop_interest(&interest);
        end();
}

TEST(request_freeze, what_the_kernel_says_is_in_the_refusal) {
        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        work(false, -EPERM);
        guest_expect(alice, BUSY, KERNEL, guest_receive(alice));
        cr_assert(memmem(alice->refusal->sentence.data, alice->refusal->sentence.len, strerror(EPERM),
                         strlen(strerror(EPERM))));
        cr_assert_eq(alice->refusal->thing.len, 2);
        end();
}

TEST(request_freeze, without_a_helper_it_is_refused) {
        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        supervisor = close_fd(supervisor);
        turn();
        guest_expect(alice, UNSUPPORTED, HELPER, guest_receive(alice));
        guest_expect(alice, UNSUPPORTED, HELPER, ask_freeze());
        end();
}

TEST(request_freeze, it_is_charged_to_who_asked) {
        begin();
        guest_peer(alice)->account->max[ACCOUNT_PENDING] = 0;
        guest_expect(alice, QUOTA, LIMIT, ask_freeze());
        cr_assert(!regions_find(&table->regions, 1)->lent);
        cr_assert_eq(guest_peer(alice)->account->used[ACCOUNT_PENDING], 0);
        guest_peer(alice)->account->max[ACCOUNT_PENDING] = 1;
        cr_assert_eq(ask_freeze(), SILENT);
        end();
}

TEST(request_freeze, it_goes_on_when_its_asker_has_gone) {
        Guest *other;

        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        other = guest_new(ALICE);
        alice = guest_free(alice);
        table_pass(0);
        cr_assert(!list_is_empty(&table->freezes));
        work(true, 0);
        cr_assert(list_is_empty(&table->freezes));
        cr_assert(region_is_frozen(regions_find(&table->regions, 1)));
        alice = other;
        cr_assert_eq(guest_receive(alice), SILENT);
        end();
}

TEST(request_freeze, at_the_end_of_the_broker_it_is_refused) {
        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        peers_finish(table);
        guest_expect(alice, SHUTDOWN, STOPPING, guest_receive(alice));
        cr_assert(list_is_empty(&table->freezes));
        end();
}

TEST(request_freeze, a_broker_may_end_while_a_freeze_is_pending) {
        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        end();
}

TEST(request_freeze, a_region_that_is_gone_by_then_is_no_error) {
        begin();
        cr_assert_eq(ask_freeze(), SILENT);
        give_worker();
        guest_expect_done(alice, ask_unlink(alice, "/r"));
        region = close_fd(region);
        table_pass(0);
        cr_assert_eq(table->regions.n, 1, "it is lent");
        work(true, 0);
        guest_expect_done(alice, guest_receive(alice));
        for (int i = 0; i < 10 && table->regions.n > 0; ++i)
                table_pass(0);
        cr_assert_eq(table->regions.n, 0);
        end();
}
