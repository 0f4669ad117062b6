/* daemon/broker/request-bell: who gets a doorbell's page, and how ringers are told of polls. */

#include "daemon-table.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING SHMD__BELL_FLAGS__BELL_RING
#define POLL SHMD__BELL_FLAGS__BELL_POLL

static Guest *alice, *bob;

static void begin(void) {
        table_open();
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
        guest_expect_done(alice, ask_create(alice, "/x", 4096, 0644));
        fdlist_deinit(&alice->fds);
}

static void end(void) {
        alice = guest_free(alice);
        bob = guest_free(bob);
        table_close();
}

static uint32_t ask_bell(Guest *guest, const char *path, uint64_t region, uint32_t flags) {
        Shmd__Bell bell = SHMD__BELL__INIT;

        if (path)
                bell.path = BYTES(path);
        bell.region = region;
        bell.flags = flags;
        return guest_ask(guest, MESSAGE_BELL, &bell.base);
}

/* Opens the bell of /x and lets go of it. */
static void open_and_close(Guest *guest) {
        guest_expect_done(guest, ask_bell(guest, "/x", 0, 0));
        fdlist_deinit(&guest->fds);
}

static uint64_t page_of(const Guest *guest) {
        return ((const Shmd__BellReply *)guest->reply)->page;
}

TEST(request_bell, the_page_is_made_once_and_may_be_opened_for_reading_by_all) {
        uint64_t page;
        struct stat st;
        int fd;

        begin();
        guest_expect_done(bob, ask_bell(bob, "/x", 0, 0));
        page = page_of(bob);
        cr_assert_eq(((const Shmd__BellReply *)bob->reply)->size, (uint32_t)sysconf(_SC_PAGESIZE));
        fd = fdlist_take(&bob->fds);
        cr_assert(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0644 && st.st_size == sysconf(_SC_PAGESIZE));
        cr_assert_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        cr_assert_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL),
                     F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
        close_fd(fd);
        guest_expect_done(alice, ask_bell(alice, NULL, 1, RING));
        cr_assert_eq(page_of(alice), page);
        fdlist_deinit(&alice->fds);
        cr_assert_eq(guest_peer(alice)->account->used[ACCOUNT_REGIONS], 2);
        cr_assert_eq(guest_peer(bob)->account->used[ACCOUNT_REGIONS], 0);
        cr_assert_eq(guest_peer(bob)->account->used[ACCOUNT_GRANTS], 1);
        end();
}

/* It has no mark: of each session there is one grant of that kind. */
static void grant_to_another_session(unsigned int i) {
        Region *region = regions_find(&table->regions, 1);
        Asker asker = peer_asker(guest_peer(alice));
        Grant *grant;
        int fd;

        asker.session = 1000 + i;
        region->grants.marks_off = true;
        region->grants.reap_in = UINT32_MAX;
        REQUIRE(grant_new(&grant, &fd, &table->grants, region, &asker, false, NULL) == 0);
        close_fd(fd);
}

TEST(request_bell, a_region_of_which_many_grants_came_after_mine_is_not_searched_for_ever) {
        begin();
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CHMOD,
                                           REQUEST(Chmod, chmod, .path = BYTES("/x"), .mode = 0666)));
        guest_expect_done(bob, ask_open(bob, "/x", SHMD__RIGHTS__RIGHTS_READ_WRITE));
        guest_expect_done(bob, ask_bell(bob, NULL, 1, RING));
        for (unsigned int i = 0; i < 1024; ++i)
                grant_to_another_session(i);
        guest_expect(bob, NOT_FOUND, MISSING, ask_bell(bob, NULL, 1, RING));
        guest_expect_done(bob, ask_bell(bob, "/x", 0, RING));
        end();
}

TEST(request_bell, a_shortage_of_grants_is_the_askers) {
        begin();
        guest_peer(bob)->account->max[ACCOUNT_GRANTS] = 0;
        while (ask_bell(bob, "/x", 0, 0) == HELD)
                if (guest_await(bob) == ERROR(QUOTA))
                        break;
        cr_assert(bob->refusal && bob->refusal->slot == SHMD__SLOT__SLOT_GRANTS && bob->refusal->uid == BOB);
        cr_assert(!region_page(regions_find(&table->regions, 1)) && table->regions.n == 1, "nothing was made for nothing");
        end();
}

TEST(request_bell, without_a_helper_nobody_is_told_of_polls) {
        begin();
        guest_expect(bob, NOT_FOUND, MISSING, ask_bell(bob, "/x", 0, POLL));
        open_and_close(bob);
        guest_expect(bob, UNSUPPORTED, HELPER, ask_bell(bob, "/x", 0, POLL));
        cr_assert_eq(guest_peer(bob)->account->used[ACCOUNT_PENDING], 0);
        end();
}

/* The test is the helper. */
static int helper_begin(void) {
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        REQUIRE(helpers_start_consume_fd(&table->helpers, table->loop, pair[1]) == 0);
        return pair[0];
}

TEST(request_bell, a_helper_that_does_not_come_is_not_waited_for_for_ever) {
        int helper;

        begin();
        helper = helper_begin();
        open_and_close(bob);
        cr_assert_eq(ask_bell(bob, "/x", 0, POLL), HELD);
        cr_assert_eq(guest_peer(bob)->account->used[ACCOUNT_PENDING], 1);
        cr_assert_eq(ask_bell(alice, "/x", 0, POLL), HELD, "who asks next waits for the same");
        cr_assert_eq(guest_peer(alice)->account->used[ACCOUNT_PENDING], 0);
        table_pass(table_options.helper_ns);
        guest_expect(bob, BUSY, HELPER, guest_await(bob));
        guest_expect(alice, BUSY, HELPER, guest_await(alice));
        cr_assert_eq(guest_peer(bob)->account->used[ACCOUNT_PENDING], 0);
        helper = close_fd(helper);
        end();
}

TEST(request_bell, the_flag_is_asked_for_once) {
        int helper;

        begin();
        helper = helper_begin();
        open_and_close(bob);
        regions_find(&table->regions, page_of(bob))->polled = true;
        state_touch(&regions_find(&table->regions, page_of(bob))->record);
        guest_expect_done(bob, ask_bell(bob, NULL, page_of(bob), POLL));
        cr_assert_eq(bob->fds.n, 0);
        guest_expect(alice, NOT_FOUND, MISSING, ask_bell(alice, NULL, page_of(bob), 0));
        helper = close_fd(helper);
        end();
}

TEST(request_bell, a_broker_that_ends_waits_for_no_poll) {
        int helper;

        begin();
        helper = helper_begin();
        open_and_close(bob);
        cr_assert_eq(ask_bell(bob, "/x", 0, POLL), HELD);
        end();
        helper = close_fd(helper);
}
