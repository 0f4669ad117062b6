/* daemon/broker with a store of descriptors: what is in it when, before and after what is committed and told. */

#include "daemon-table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "util/memfd.h"

static Guest *alice, *bob;
static int ours, theirs;

static void begin(void) {
        int pair[2];

        table_open();
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        ours = pair[0];
        theirs = pair[1];
        REQUIRE(fdstore_new(&table->store, ours, &table->deadlines, 0) == 0);
        table->regions.store = table->store;
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
}

static void end(void) {
        alice = guest_free(alice);
        bob = guest_free(bob);
        table_close();
        ours = close_fd(ours);
        theirs = close_fd(theirs);
}

static bool has_packet(int socket) {
        char byte;

        return recv(socket, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0;
}

/* The next packet of the store, "" if there is none; *ret_fd is the caller's, -1: none came. */
static const char *read_store(int *ret_fd) {
        static char text[256];
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec part = { .iov_base = text, .iov_len = sizeof(text) - 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n = recvmsg(theirs, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        *ret_fd = -1;
        if (n > 0 && CMSG_FIRSTHDR(&message))
                memcpy(ret_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
        text[n > 0 ? n : 0] = '\0';
        return text;
}

static void expect_stored(uint64_t id) {
        char wanted[64];
        const char *text;
        struct stat st;
        int fd;

        (void)snprintf(wanted, sizeof(wanted), "FDSTORE=1\nFDNAME=r%lu\nFDPOLL=0", (unsigned long)id);
        text = read_store(&fd);
        REQUIRE(!strcmp(text, wanted), "'%s' instead of '%s'", text, wanted);
        REQUIRE(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0);
        (void)close_fd(fd);
}

static void expect_removed(uint64_t id) {
        char wanted[64];
        const char *text;
        int fd;

        (void)snprintf(wanted, sizeof(wanted), "FDSTOREREMOVE=1\nFDNAME=r%lu", (unsigned long)id);
        text = read_store(&fd);
        REQUIRE(!strcmp(text, wanted), "'%s' instead of '%s'", text, wanted);
        REQUIRE(fd < 0);
}

static void empty_store(void) {
        int fd;

        while (*read_store(&fd))
                (void)close_fd(fd);
}

/* -- order ---------------------------------------------------------------------------------- */

/* What was there whenever something was written to the state. */
typedef struct Order {
        unsigned int n;
        bool store;             /* the store's queue had something, each time */
        bool no_store;          /* ... and at no time */
        bool answer;            /* an answer had left already */
} Order;

static void look(void *userdata, uint64_t offset, const void *data, size_t n) {
        Order *order = userdata;

        (void)offset;
        (void)data;
        (void)n;
        ++order->n;
        order->store &= has_packet(theirs);
        order->no_store &= !has_packet(theirs);
        order->answer |= has_packet(alice->fd) || has_packet(bob->fd);
}

static void order_begin(Order *order) {
        *order = (Order){ .store = true, .no_store = true };
        table_checks = false;           /* it writes to states of its own */
        state_spy(look, order);
}

static void order_end(void) {
        state_spy(NULL, NULL);
        table_checks = true;
}

TEST(request_store, a_region_is_stored_then_committed_then_told) {
        Order order;

        begin();
        order_begin(&order);
        guest_expect_done(alice, ask_create(alice, "/x", PAGE, 0644));
        order_end();
        cr_assert_gt(order.n, 0);
        cr_assert(order.store && !order.answer);
        expect_stored(1);
        cr_assert_not(has_packet(theirs));
        end();
}

TEST(request_store, a_batch_is_stored_before_any_of_it_is_committed) {
        Shmd__BatchItem items[3], *pointers[3];
        Shmd__Create creates[3];
        static const char *const paths[] = { "/x", "/y", "/x" };
        Order order;

        begin();
        for (size_t i = 0; i < 3; ++i) {
                shmd__batch_item__init(&items[i]);
                shmd__create__init(&creates[i]);
                creates[i].path = BYTES(paths[i]);
                creates[i].size = PAGE;
                items[i].create = &creates[i];
                pointers[i] = &items[i];
        }
        order_begin(&order);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_BATCH,
                                           REQUEST(Batch, batch, .n_items = 2, .items = pointers)));
        order_end();
        cr_assert(order.n > 0 && order.store && !order.answer);
        expect_stored(1);
        expect_stored(2);
        guest_expect_done(alice, ask_unlink(alice, "/x"));
        guest_expect_done(alice, ask_unlink(alice, "/y"));
        table_until(table->regions.n == 0);
        expect_removed(1);
        expect_removed(2);

        /* One that fails in the end has stored some, and takes them back. */
        guest_expect(alice, EXISTS, TAKEN,
                     guest_ask(alice, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 3, .items = pointers)));
        expect_stored(3);
        expect_stored(4);
        broker_commit(table);
        expect_removed(4);
        expect_removed(3);
        cr_assert_not(has_packet(theirs));
        end();
}

TEST(request_store, a_region_leaves_the_store_after_the_commit_that_says_so) {
        Order order;

        begin();
        guest_expect_done(alice, ask_create(alice, "/x", PAGE, 0644));
        expect_stored(1);
        order_begin(&order);
        guest_expect_done(alice, ask_unlink(alice, "/x"));
        for (int i = 0; i < 3; ++i) {
                table_pass(0);
                broker_commit(table);
        }
        order_end();
        cr_assert(order.n > 0 && order.no_store);
        expect_removed(1);
        end();
}

/* -- what others hear ------------------------------------------------------------------------- */

TEST(request_store, who_waits_hears_of_a_request_once_it_is_committed) {
        Order order;
        int fd;

        begin();
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE,
                          REQUEST(Create, create, .path = BYTES("/x"), .size = PAGE, .mode = 0666,
                                  .rights = SHMD__RIGHTS__RIGHTS_READ_WRITE)));
        fd = fdlist_take(&alice->fds);
        REQUIRE(fd >= 0);
        cr_assert_eq(guest_ask(bob, MESSAGE_WAIT, REQUEST(Wait, wait, .path = BYTES("/x"), .timeout_ns = NSEC_PER_SEC,
                                                          .until = SHMD__WAIT_FOR__WAIT_UNHELD)), SILENT);
        fd = close_fd(fd);
        order_begin(&order);
        guest_expect_done(alice, ask_unlink(alice, "/x"));
        order_end();
        cr_assert(order.n > 0 && !order.answer, "neither of them heard before");
        cr_assert_eq(guest_receive(bob), ANSWERED);
        empty_store();
        end();
}

/* Reads bob's events. Return: how many said that a name was made; *ret_lost: how many that some are lost. */
static size_t read_events(size_t *ret_lost) {
        static uint8_t packet[WIRE_REPLY_MAX];
        size_t n_made = 0;
        ssize_t n;

        while ((n = recv(bob->fd, packet, sizeof(packet), MSG_DONTWAIT)) > 0) {
                ProtobufCMessage *message;
                const Shmd__Events *events;

                arena_reset(bob->arena);
                REQUIRE(message_unpack(bob->arena, MESSAGE_EVENT, true, packet + sizeof(WireHeader),
                                       (size_t)n - sizeof(WireHeader), &message) == 0);
                events = (const Shmd__Events *)message;
                for (size_t i = 0; i < events->n_events; ++i) {
                        n_made += events->events[i]->event == EVENT_CREATED;
                        *ret_lost += events->events[i]->event == EVENT_OVERFLOW;
                }
        }
        return n_made;
}

/* A batch of regions with long names, whose events are more than a watch's queue has room for. */
static void make_many(char prefix) {
        static char paths[MESSAGE_BATCH_MAX][160];
        static Shmd__BatchItem items[MESSAGE_BATCH_MAX], *pointers[MESSAGE_BATCH_MAX];
        static Shmd__Create creates[MESSAGE_BATCH_MAX];

        for (size_t i = 0; i < MESSAGE_BATCH_MAX; ++i) {
                (void)snprintf(paths[i], sizeof(paths[i]), "/%c%0150zu", prefix, i);
                shmd__batch_item__init(&items[i]);
                shmd__create__init(&creates[i]);
                creates[i].path = BYTES(paths[i]);
                creates[i].size = 1;
                items[i].create = &creates[i];
                pointers[i] = &items[i];
        }
        guest_expect_done(alice, guest_ask(alice, MESSAGE_BATCH,
                          REQUEST(Batch, batch, .n_items = MESSAGE_BATCH_MAX, .items = pointers)));
        empty_store();
}

TEST(request_store, who_watches_loses_nothing_of_what_a_request_does_until_there_is_no_room) {
        size_t n_made = 0, n_lost = 0;
        Order order;

        begin();
        guest_expect_done(bob, guest_ask(bob, MESSAGE_WATCH,
                          REQUEST(Watch, watch, .path = BYTES("/"), .mask = EVENT_CREATED)));
        order_begin(&order);
        make_many('a');
        order_end();
        cr_assert_not(order.answer, "of no event is told before all is committed");
        table_until((n_made += read_events(&n_lost)) >= MESSAGE_BATCH_MAX);
        cr_assert(n_made == MESSAGE_BATCH_MAX && n_lost == 0, "%zu events, and %zu of losses", n_made, n_lost);

        for (char prefix = 'b'; prefix < 'n'; ++prefix)
                make_many(prefix);
        cr_assert(list_is_empty(&guest_peer(bob)->connection->queue), "events never stand in line there");
        cr_assert_eq(guest_peer(bob)->n_kept_back, 0);
        n_made = 0;
        for (int i = 0; i < 100 && n_lost == 0; ++i) {
                n_made += read_events(&n_lost);
                table_pass(NSEC_PER_SEC);
        }
        cr_assert(n_lost == 1 && n_made < 12 * MESSAGE_BATCH_MAX);
        end();
}

/* -- a store that takes nothing ------------------------------------------------------------------ */

static unsigned int fill_store(void) {
        CLEANUP(close_fdp) int fd = memfd_create("filler", MFD_CLOEXEC);
        char name[FDSTORE_NAME_MAX];
        unsigned int n = 0;
        int r;

        do {
                (void)snprintf(name, sizeof(name), "filler-%u", n++);
                r = fdstore_push(table->store, name, fd);
        } while (r == 0);
        REQUIRE(r == FDSTORE_E_BUSY && n > 1);
        return n - 1;
}

TEST(request_store, without_room_in_the_store_a_request_waits) {
        unsigned int n;
        int fd;

        begin();
        n = fill_store();
        cr_assert_eq(ask_create(alice, "/x", PAGE, 0644), HELD);
        cr_assert(table->regions.n == 0 && table->tree.root->n_children == 0);
        guest_expect_done(bob, guest_ask(bob, MESSAGE_PING, REQUEST(Ping, ping)));
        for (; n > 0; --n) {
                REQUIRE(*read_store(&fd));
                (void)close_fd(fd);
        }
        guest_expect_done(alice, guest_await(alice));
        guest_expect_done(bob, ask_stat(bob, "/x"));
        expect_stored(table->regions.last_id);
        cr_assert_not(has_packet(theirs));
        end();
}

TEST(request_store, but_not_for_ever) {
        begin();
        (void)fill_store();
        cr_assert_eq(ask_create(alice, "/x", PAGE, 0644), HELD);
        guest_expect(alice, BUSY, KEEPER, guest_await(alice));
        cr_assert_eq(table->regions.n, 0);
        empty_store();
        end();
}

/* -- a state that cannot grow ----------------------------------------------------------------------- */

static uint32_t issue(const char *path) {
        return guest_ask(alice, MESSAGE_TICKET, REQUEST(Ticket, ticket, .path = BYTES(path), .uses = 1,
                                                        .rights = SHMD__RIGHTS__RIGHTS_READ_ONLY));
}

/* Nothing that makes the state larger is done, and what makes it smaller is. */
static int fill_state(void *userdata) {
        static const char *const paths[] = { "/x", "/y", "/z", "/u", "/v", "/w" };
        uint32_t cells, answer = ANSWERED;
        unsigned int n = 0;

        begin();
        for (size_t i = 0; i < 6; ++i)
                guest_expect_done(alice, ask_create(alice, paths[i], PAGE, 0644));
        cells = state_cells(table->state);
        house_deny(ENOSPC, SCMP_SYS(fallocate), 1, &SCMP_A1(SCMP_CMP_EQ, 0));
        for (; n < 6000 && answer == ANSWERED; ++n)
                answer = issue(paths[n % 6]);
        REQUIRE(answer == ERROR(NO_MEMORY) && alice->refusal->reason == REASON(DESCRIPTORS), "%s after %u",
                guest_describe(alice, answer), n);
        REQUIRE(state_cells(table->state) == cells);
        REQUIRE(ask_create(alice, "/a", PAGE, 0644) == ERROR(NO_MEMORY));
        REQUIRE(ask_mkdir(alice, "/a", 0755) == ERROR(NO_MEMORY));
        guest_expect_done(alice, ask_stat(alice, "/x"));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .path = BYTES("/x"))));
        guest_expect_done(alice, ask_create(alice, "/a", PAGE, 0644));
        empty_store();
        end();
        return 0;
}

TEST(request_store, a_state_without_room_refuses_what_needs_some) {
        test_needs_root();
        house_expect_child(fill_state, NULL);
}
