/* daemon/broker/peer: who it is never changes, and what ends it is said once. */

#include "daemon-table.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static Guest *alice;

static void begin(void) {
        table_open();
        alice = guest_new(ALICE);
}

static void end(void) {
        alice = guest_free(alice);
        table_close();
}

/* What the loop does when a packet is there. */
static void let_read(const Guest *guest) {
        const ConnectionEvents *events = &guest_peer(guest)->connection->events;

        table_new_turn();
        events->readable(events->userdata);
}

static size_t pack_ping(uint8_t *packet, uint64_t serial) {
        wire_put_header(packet, sizeof(WireHeader), MESSAGE_PING, 0, serial);
        return sizeof(WireHeader);
}

/* -- who ------------------------------------------------------------------------------------------ */

TEST(peer, it_is_who_connected_with_every_group) {
        gid_t groups[] = { 5, 7 };
        const Peer *peer;
        Guest *guest;

        begin();
        guest = guest_connect(BOB, CAROL, groups, 2);
        peer = guest_peer(guest);
        cr_assert(peer->who.uid == BOB && peer->who.gid == CAROL && !peer->who.admin);
        cr_assert(peer->who.n_groups == 2 && peer->who.groups[0] == 5 && peer->who.groups[1] == 7);
        cr_assert_eq(peer->account->uid, BOB);
        cr_assert_eq(peer->state, PEER_NEW);
        cr_assert_null(peer->session, "it has not said hello");
        guest = guest_free(guest);
        end();
}

TEST(peer, administrators_are_root_and_members_of_the_group_by_whatever_group) {
        static const struct {
                uid_t uid;
                gid_t gid, group;
                bool admin;
        } cases[] = {
                { 0, 0, 0, true }, { 0, 5, 5, true }, { BOB, BOB, 5, false }, { BOB, 4242, 5, true },
                { BOB, BOB, 4242, true }, { BOB, 4241, 4243, false }, { 4242, BOB, BOB, false }, { BOB, 0, 0, false },
        };

        table_defaults();
        table_options.have_admin_group = true;
        table_options.admin_group = 4242;
        begin();
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
                Guest *guest = guest_connect(cases[i].uid, cases[i].gid, &cases[i].group, 1);

                cr_assert_eq(guest_peer(guest)->who.admin, cases[i].admin, "case %zu", i);
                guest = guest_free(guest);
        }
        end();
}

TEST(peer, without_an_admin_group_group_0_administrates_nothing) {
        Guest *guest;

        begin();
        guest = guest_connect(BOB, 0, (gid_t[]){ 0 }, 1);
        cr_assert_not(guest_peer(guest)->who.admin);
        guest = guest_free(guest);
        end();
}

TEST(peer, sessions_and_numbers_are_never_the_same) {
        Guest *guests[8];

        begin();
        for (int i = 0; i < 8; ++i) {
                guests[i] = guest_new(BOB);
                cr_assert_eq(peer_asker(guest_peer(guests[i])).uid, BOB);
                cr_assert_eq(peer_asker(guest_peer(guests[i])).session, guest_peer(guests[i])->session->number);
                for (int k = 0; k < i; ++k) {
                        const Session *one = guest_peer(guests[i])->session, *other = guest_peer(guests[k])->session;

                        cr_assert_neq(guests[i]->id, guests[k]->id);
                        cr_assert_neq(one->number, other->number);
                        cr_assert(memcmp(one->key, other->key, sizeof(one->key)));
                }
        }
        for (int i = 0; i < 8; ++i)
                guests[i] = guest_free(guests[i]);
        end();
}

TEST(peer, at_the_limit_a_connection_is_told_why_and_closed) {
        Guest *guest;

        begin();
        table_options.rules.everybody.max[ACCOUNT_PEERS] = 1;
        guest = guest_connect(ALICE, ALICE, NULL, 0);
        cr_assert_eq(guest->id, 0, "it did not become a peer");
        guest_expect(guest, QUOTA, LIMIT, guest_receive(guest));
        cr_assert_eq(guest->header.serial, 0);
        cr_assert(guest->refusal->slot == SHMD__SLOT__SLOT_PEERS && guest->refusal->limit == 1 &&
                  guest->refusal->asked == 1);
        cr_assert_eq(guest_receive(guest), CLOSED);
        guest = guest_free(guest);
        cr_assert_eq(table->n_peers, 1);

        guest = guest_new(BOB);
        guest = guest_free(guest);
        cr_assert_eq(table_log_count("request=connect error=quota reason=limit"), 1);
        end();
}

static int connect_nobody(void *userdata) {
        Guest *guest;

        begin();
        house_deny(*(int *)userdata, SCMP_SYS(getsockopt), 1,
                   (struct scmp_arg_cmp[]){ { 2, SCMP_CMP_EQ, SO_PEERCRED, 0 } });
        guest = guest_connect(BOB, BOB, NULL, 0);
        REQUIRE(guest->id == 0 && guest_receive(guest) == CLOSED);
        REQUIRE(table_log_count("event=not-accepted reason=credentials error=") == 1);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_PING, REQUEST(Ping, ping)));
        guest = guest_free(guest);
        end();
        return 0;
}

TEST(peer, whose_credentials_cannot_be_read_is_nobody_and_the_others_are_served) {
        int errors[] = { EPERM, ENOMEM, ESRCH, ENOPROTOOPT };

        test_needs_root();
        for (size_t i = 0; i < 4; ++i)
                house_expect_child(connect_nobody, &errors[i]);
}

/* -- ending ---------------------------------------------------------------------------------------- */

TEST(peer, who_does_not_say_hello_in_time_is_over) {
        uint64_t before;
        Guest *guest;

        begin();
        before = time_now();
        guest = guest_connect(BOB, BOB, NULL, 0);
        table_pass_to(before + 10 * NSEC_PER_SEC - 1);
        cr_assert_not(deadline_is_armed(&guest_peer(guest)->end));
        table_pass(10 * NSEC_PER_SEC);
        table_pass(0);
        cr_assert_eq(guest_peer(guest), NULL);
        cr_assert_eq(guest_receive(guest), CLOSED);
        cr_assert_eq(table_log_count("reason=hello-timeout"), 1);
        cr_assert_neq(guest_peer(alice), NULL, "who said it stays");
        guest = guest_free(guest);
        end();
}

TEST(peer, its_end_is_said_once_and_comes_in_the_next_turn) {
        begin();
        peer_end(guest_peer(alice), "malformed");
        peer_end(guest_peer(alice), "too-large");
        cr_assert_neq(guest_peer(alice), NULL);
        cr_assert_eq(table->stats.violations, 1);
        cr_assert_eq(table_log_count("event=peer-closed"), 1);
        table_pass(0);
        cr_assert_eq(guest_peer(alice), NULL);
        cr_assert_eq(table->n_peers, 0);
        end();
}

TEST(peer, its_session_regions_lose_their_names_and_the_others_keep_them) {
        FdList kept;

        begin();
        guest_expect_done(alice, ask_create(alice, "/named", 4096, 0600));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE,
                          REQUEST(Create, create, .path = BYTES("/session"), .size = 8192, .mode = 0600,
                                  .rights = SHMD__RIGHTS__RIGHTS_READ_WRITE,
                                  .lifetime = SHMD__LIFETIME__LIFETIME_SESSION)));
        kept = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        alice = guest_free(alice);
        cr_assert_eq(table->regions.n_named, 1);
        cr_assert_eq(table->regions.n_orphans, 1, "somebody still holds it");
        cr_assert_eq(accounts_find_user(&table->accounts, ALICE)->used[ACCOUNT_BYTES], 12288);
        fdlist_deinit(&kept);
        for (int i = 0; i < 100 && table->regions.n > 1; ++i) {
                table_pass(2 * NSEC_PER_SEC);
                test_sleep_ms(1);
        }
        cr_assert_eq(table->regions.n, 1);
        cr_assert_eq(accounts_find_user(&table->accounts, ALICE)->used[ACCOUNT_BYTES], 4096);
        alice = guest_new(ALICE);
        guest_expect_done(alice, ask_unlink(alice, "/named"));
        end();
}

TEST(peer, one_with_many_session_regions_ends_in_several_turns) {
        unsigned int n_turns = 0;
        char path[16];

        begin();
        for (int i = 0; i < 150; ++i) {
                (void)snprintf(path, sizeof(path), "/%d", i);
                guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE,
                                  REQUEST(Create, create, .path = BYTES(path), .mode = 0600,
                                          .lifetime = SHMD__LIFETIME__LIFETIME_SESSION)));
        }
        peer_end(guest_peer(alice), NULL);
        /* Fewer where that many take too long. */
        for (uint64_t before = 150; guest_peer(alice); before = table->regions.n_named) {
                cr_assert_eq(table->regions.n_named, before);
                deadlines_run(&table->deadlines, time_now());
                cr_assert_leq(before - table->regions.n_named, 64);
                n_turns++;
        }
        cr_assert_eq(table->regions.n_named, 0);
        cr_assert_geq(n_turns, 3);
        end();
}

TEST(peer, its_waits_are_over_with_it) {
        begin();
        cr_assert_eq(guest_ask(alice, MESSAGE_WAIT,
                               REQUEST(Wait, wait, .path = BYTES("/x"), .timeout_ns = NSEC_PER_SEC)), SILENT);
        alice = guest_free(alice);
        cr_assert_eq(table->waiters.n, 0);
        cr_assert_eq(table->accounts.pool.used[ACCOUNT_WATCHES], 0);
        cr_assert_eq(table->accounts.pool.used[ACCOUNT_PENDING], 0);
        alice = guest_new(ALICE);
        end();
}

/* Connections that have ended and are still there. */
static unsigned int lingering(void) {
        Connection *owing;
        unsigned int n = 0;

        list_for_each(owing, &table->connections.owing, Connection, owing)
                n += owing->lingering;
        return n;
}

TEST(peer, who_ends_with_answers_unread_stays_on_the_books_until_they_are_read) {
        static uint8_t payload[64];
        WireHeader header;
        size_t n;

        begin();
        guest_expect_done(alice, ask_create(alice, "/x", 4096, 0600));
        REQUIRE(message_pack(REQUEST(Open, open, .path = BYTES("/x"), .rights = 1), payload, sizeof(payload), &n) == 0);
        wire_put_header(table->request, n + sizeof(WireHeader), MESSAGE_OPEN, 0, 9);
        memcpy(table->request + sizeof(WireHeader), payload, n);
        wire_get_header(table->request, &header);
        cr_assert_eq(request_dispatch(guest_peer(alice), &header, table->request, &(uint64_t){ time_now() }), 0);
        peer_end(guest_peer(alice), NULL);
        table_pass(0);
        cr_assert_eq(guest_peer(alice), NULL);
        cr_assert_eq(lingering(), 1);
        cr_assert_gt(table->accounts.pool.used[ACCOUNT_INFLIGHT], 0);
        guest_expect_done(alice, guest_receive(alice));
        table_pass(2 * NSEC_PER_SEC);
        table_pass(4 * NSEC_PER_SEC);
        cr_assert_eq(lingering(), 0);
        cr_assert_eq(table->accounts.pool.used[ACCOUNT_INFLIGHT], 0);
        cr_assert_eq(table->accounts.pool.used[ACCOUNT_PEERS], 0);
        end();
}

/* -- reading ---------------------------------------------------------------------------------------- */

static void expect_violation(const char *reason, const void *packet, size_t n, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(4 * sizeof(int))];
        } control;
        struct iovec iov = { .iov_base = (void *)packet, .iov_len = n };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        size_t before = table_log_count(reason), open = test_count_fds();
        Guest *guest = guest_new(BOB);
        int on = 1;

        if (n_fds) {
                control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(n_fds * sizeof(int)), .cmsg_level = SOL_SOCKET,
                                                  .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
                msg.msg_control = &control;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        (void)setsockopt(guest->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
        REQUIRE(sendmsg(guest->fd, &msg, MSG_NOSIGNAL) == (ssize_t)n, "%s", strerror(errno));
        let_read(guest);
        REQUIRE(deadline_is_armed(&guest_peer(guest)->end), "%s: the peer goes on", reason);
        REQUIRE(table_log_count(reason) == before + 1, "%s is not said", reason);
        guest = guest_free(guest);
        REQUIRE(test_count_fds() == open);
}

TEST(peer, every_breach_of_the_wire_has_a_name_and_ends_only_its_peer) {
        static uint8_t large[WIRE_REQUEST_MAX + 1];
        uint8_t packet[64] = { 0 };
        int zero = 0;

        begin();
        expect_violation("reason=empty-packet", "", 0, NULL, 0);
        expect_violation("reason=header-mismatch", "x", 1, NULL, 0);
        (void)pack_ping(packet, 1);
        expect_violation("reason=header-mismatch", packet, 17, NULL, 0);
        expect_violation("reason=header-mismatch", packet, 15, NULL, 0);
        wire_put_header(packet, 16, MESSAGE_PING, 1, 1);
        expect_violation("reason=header-mismatch", packet, 16, NULL, 0);
        wire_put_header(large, sizeof(large), MESSAGE_PING, 0, 1);
        expect_violation("reason=too-large", large, sizeof(large), NULL, 0);
        (void)pack_ping(packet, 1);
        expect_violation("reason=unwanted-descriptors", packet, 16, &zero, 1);
        wire_put_header(packet, 16, MESSAGE_PING, 1, 1);
        expect_violation("reason=unwanted-descriptors", packet, 16, &zero, 1);
        (void)pack_ping(packet, 0);
        expect_violation("reason=serial-zero", packet, 16, NULL, 0);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_PING, REQUEST(Ping, ping)));
        cr_assert_eq(table->stats.violations, 9);
        end();
}

TEST(peer, an_ordinary_end_is_no_violation) {
        Guest *guest;

        begin();
        guest = guest_new(BOB);
        guest->fd = close_fd(guest->fd);
        let_read(guest);
        cr_assert(deadline_is_armed(&guest_peer(guest)->end));
        table_pass(0);
        cr_assert_eq(guest_peer(guest), NULL);
        cr_assert_eq(table->stats.violations, 0);
        cr_assert_eq(table_log_count("peer-closed"), 0);
        guest = guest_free(guest);
        end();
}

static size_t send_pings(const Guest *guest, uint64_t first, size_t n) {
        uint8_t packet[sizeof(WireHeader)];

        for (size_t i = 0; i < n; ++i)
                REQUIRE(send(guest->fd, packet, pack_ping(packet, first + i), MSG_NOSIGNAL) == sizeof(packet));
        return n;
}

static size_t count_answers(Guest *guest) {
        size_t n = 0;

        while (guest_receive(guest) == ANSWERED)
                ++n;
        return n;
}

TEST(peer, who_pipelines_is_answered_at_most_eight_times_a_turn) {
        size_t most = 0, sent = 0, answered = 0;

        begin();
        /* Where the loop does not ask it is found out once in 256 turns. */
        for (int turn = 0; turn < 350; ++turn) {
                size_t answers;

                sent += send_pings(alice, sent + 1, answered + 40 - sent);
                let_read(alice);
                table_pass(0);
                answers = count_answers(alice);
                REQUIRE(answers >= 1);
                most = answers > most ? answers : most;
                answered += answers;
        }
        cr_assert_eq(most, 8);
        end();
}

/* Return: how many of its requests were answered, after the one of another peer. */
static size_t serve_after(Guest *other) {
        size_t n;

        (void)send_pings(alice, alice->serial + 1, 20);
        (void)send_pings(other, other->serial + 1, 1);
        let_read(alice);
        let_read(other);
        let_read(alice);
        cr_assert_eq(count_answers(other), 1);
        cr_assert_eq(count_answers(alice), 0, "not before the others were");
        table_pass(0);
        n = count_answers(alice);
        REQUIRE(n >= 1 && n <= 8, "%zu in the same turn, however often the loop says so", n);
        for (size_t left = 20 - n; left > 0; left -= count_answers(alice)) {
                let_read(alice);
                table_pass(0);
        }
        return n;
}

/* A user's time in a turn may be over after fewer, if this process had to wait for its processor meanwhile. */
TEST(peer, who_pipelines_is_served_after_all_others_of_a_turn) {
        unsigned int tries = 0;
        Guest *bob;

        begin();
        bob = guest_new(BOB);
        guest_peer(alice)->pipelines = 1;
        while (serve_after(bob) < 8)
                REQUIRE(++tries < 100);
        bob = guest_free(bob);
        end();
}

/* One request, and whether the peer is read from again at once. */
static bool is_asked_for_more(void) {
        (void)send_pings(alice, ++alice->serial, 1);
        let_read(alice);
        table_pass(0);
        cr_assert_eq(count_answers(alice), 1);
        return guest_peer(alice)->pipelines > 0;
}

/* Return: how many of eight requests were answered at once. */
static size_t serve_eight(void) {
        size_t n = 0;

        alice->serial += send_pings(alice, alice->serial + 1, 8);
        for (size_t left = 8, answers; left > 0; left -= answers) {
                let_read(alice);
                table_pass(0);
                answers = count_answers(alice);
                n = n ? n : answers;
        }
        return n;
}

/* A user's time in a turn may be over after fewer, as above. */
TEST(peer, who_does_not_pipeline_any_more_is_found_out_after_some_turns) {
        unsigned int n = 0, tries = 0;

        begin();
        guest_peer(alice)->pipelines = 1;
        while (serve_eight() < 8)
                REQUIRE(++tries < 100);
        while (is_asked_for_more())
                ++n;
        cr_assert_eq(n, 3);
        REQUIRE(!is_asked_for_more() && !is_asked_for_more());
        end();
}

static void count_down(void *userdata) {
        unsigned int *left = userdata;

        broker_commit(table);
        if (--*left == 0)
                loop_stop(table->loop, 0);
}

/* So many turns of the real loop, each of which finds something. */
static void run_turns(unsigned int n) {
        loop_after_turn(table->loop, count_down, &n);
        cr_assert_eq(loop_run(table->loop), 0);
}

/* This process may have to wait for its processor in between, and then it looks as if it had slept. */
TEST(peer, who_has_its_next_request_ready_when_the_loop_asks_is_read_from_again_at_once) {
        unsigned int tries = 0;
        size_t answers;

        begin();
        do {
                REQUIRE(++tries < 50);
                guest_peer(alice)->pipelines = 0;
                alice->serial += send_pings(alice, alice->serial + 1, 3);
                run_turns(2);
                answers = count_answers(alice);
                if (answers == 2) {
                        run_turns(1);
                        cr_assert_eq(count_answers(alice), 1);
                }
        } while (answers != 3);
        cr_assert_eq(guest_peer(alice)->pipelines, 1);
        end();
}

TEST(peer, what_came_while_others_were_served_says_nothing_of_a_peer) {
        Guest *bob;

        begin();
        bob = guest_new(BOB);
        alice->serial += send_pings(alice, alice->serial + 1, 20);
        bob->serial += send_pings(bob, bob->serial + 1, 20);
        for (unsigned int turn = 0; turn < 20; ++turn) {
                run_turns(1);
                cr_assert_eq(count_answers(alice), 1);
                cr_assert_eq(count_answers(bob), 1);
        }
        bob = guest_free(bob);
        end();
}

/* Asks one thing at a time, so many times, each a while after the last answer. */
_Noreturn static void ask_slowly(unsigned int n) {
        struct pollfd fd = { .fd = alice->fd, .events = POLLIN };
        uint8_t packet[sizeof(WireHeader)], answer[256];

        for (uint64_t serial = alice->serial + 1; n > 0; --n, ++serial) {
                (void)usleep(1000);
                if (send(alice->fd, packet, pack_ping(packet, serial), MSG_NOSIGNAL) != sizeof(packet) ||
                    poll(&fd, 1, TEST_PATIENCE_MS) != 1 || recv(alice->fd, answer, sizeof(answer), 0) <= 0)
                        _exit(1);
        }
        _exit(0);
}

/* Now and then this process may have to wait for its processor for so long that the next request is there. */
TEST(peer, whom_the_loop_had_to_wait_for_is_not_read_from_in_vain) {
        unsigned int wakes;
        pid_t child;
        int status;

        begin();
        wakes = guest_peer(alice)->wakes;
        child = fork();
        REQUIRE(child >= 0);
        if (child == 0)
                ask_slowly(50);
        run_turns(50);
        REQUIRE(waitpid(child, &status, 0) == child && status == 0);
        cr_assert_gt((uint8_t)(guest_peer(alice)->wakes - wakes), 25, "most times nothing said whether it pipelines");
        end();
}

TEST(peer, who_pipelines_and_is_over_before_its_turn_is_served_no_more) {
        begin();
        guest_peer(alice)->pipelines = 1;
        (void)send_pings(alice, alice->serial + 1, 4);
        let_read(alice);
        peer_end(guest_peer(alice), NULL);
        table_pass(0);
        table_pass(0);
        cr_assert_eq(guest_peer(alice), NULL);
        cr_assert_eq(guest_receive(alice), CLOSED);
        end();
}

TEST(peer, who_takes_nothing_is_told_of_as_stalled) {
        begin();
        guest_peer(alice)->connection->events.stalled(guest_peer(alice));
        cr_assert(deadline_is_armed(&guest_peer(alice)->end));
        cr_assert_eq(table_log_count("reason=stalled"), 1);
        end();
}

/* -- stopping ----------------------------------------------------------------------------------------- */

TEST(peer, at_the_end_what_was_sent_is_answered_and_what_waits_is_refused) {
        uint8_t packet[sizeof(WireHeader)];
        Guest *bob;

        begin();
        bob = guest_new(BOB);
        cr_assert_eq(guest_ask(bob, MESSAGE_WAIT,
                               REQUEST(Wait, wait, .path = BYTES("/x"), .timeout_ns = NSEC_PER_SEC)), SILENT);
        for (uint64_t i = 1; i <= 3; ++i)
                REQUIRE(send(alice->fd, packet, pack_ping(packet, i), MSG_NOSIGNAL) == sizeof(packet));
        peers_finish(table);
        for (uint64_t i = 1; i <= 3; ++i) {
                guest_expect_done(alice, guest_receive(alice));
                cr_assert_eq(alice->header.serial, i);
        }
        guest_expect(bob, SHUTDOWN, STOPPING, guest_receive(bob));
        cr_assert_eq(bob->header.serial, bob->serial);
        cr_assert_eq(table->waiters.n, 0);
        bob = guest_free(bob);
        end();
}

TEST(peer, at_the_end_a_request_that_is_held_is_refused) {
        FdList kept;

        begin();
        guest_peer(alice)->account->max[ACCOUNT_GRANTS] = 1;
        guest_expect_done(alice, ask_create(alice, "/x", 4096, 0600));
        kept = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        cr_assert_eq(ask_open(alice, "/x", SHMD__RIGHTS__RIGHTS_READ_ONLY), HELD);
        peers_finish(table);
        guest_expect(alice, SHUTDOWN, STOPPING, guest_receive(alice));
        cr_assert_eq(alice->header.serial, alice->serial);
        cr_assert_eq(guest_peer(alice)->held.packet, NULL);
        fdlist_deinit(&kept);
        end();
}

static void send_open(Guest *guest, const char *path) {
        Shmd__Open open = { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__open__descriptor), .path = BYTES(path),
                            .rights = SHMD__RIGHTS__RIGHTS_READ_ONLY };
        uint8_t packet[256];
        size_t n;

        REQUIRE(message_pack(&open.base, packet + sizeof(WireHeader), sizeof(packet) - sizeof(WireHeader), &n) == 0);
        n += sizeof(WireHeader);
        wire_put_header(packet, n, MESSAGE_OPEN, 0, ++guest->serial);
        REQUIRE(send(guest->fd, packet, n, MSG_NOSIGNAL) == (ssize_t)n);
}

TEST(peer, at_the_end_one_in_line_whose_request_would_be_held_leaves_the_line_whole) {
        List *line;
        FdList kept;
        Guest *bob;

        begin();
        bob = guest_new(BOB);
        guest_peer(alice)->account->max[ACCOUNT_GRANTS] = 1;
        guest_expect_done(alice, ask_create(alice, "/x", 4096, 0600));
        kept = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        for (int i = 0; i < 2; ++i) {
                line = i == 0 ? &table->late : &table->held;
                list_append(line, &guest_peer(alice)->held.link);
                list_append(line, &guest_peer(bob)->held.link);
                send_open(alice, "/x");
                peers_finish(table);
                guest_expect(alice, SHUTDOWN, STOPPING, guest_receive(alice));
                cr_assert(list_is_empty(&guest_peer(alice)->held.link));
                cr_assert_eq(list_first(line, Peer, held.link), guest_peer(bob));
                list_unlink(&guest_peer(bob)->held.link);
                cr_assert(list_is_empty(line));
        }
        bob = guest_free(bob);
        fdlist_deinit(&kept);
        end();
}

TEST(peer, one_that_ends_while_its_request_is_held_leaves_nothing) {
        FdList kept;

        begin();
        guest_peer(alice)->account->max[ACCOUNT_GRANTS] = 1;
        guest_expect_done(alice, ask_create(alice, "/x", 4096, 0600));
        kept = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        cr_assert_eq(ask_open(alice, "/x", SHMD__RIGHTS__RIGHTS_READ_ONLY), HELD);
        alice = guest_free(alice);
        for (int i = 0; i < 5; ++i)
                table_pass(0);
        cr_assert(list_is_empty(&table->held));
        fdlist_deinit(&kept);
        alice = guest_new(ALICE);
        end();
}
