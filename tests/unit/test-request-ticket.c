/* daemon/broker/request-ticket: who may issue and end tickets, and what bringing one is answered. */

#include "daemon-table.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READ_ONLY SHMD__RIGHTS__RIGHTS_READ_ONLY
#define READ_WRITE SHMD__RIGHTS__RIGHTS_READ_WRITE
#define ONE_USER SHMD__TICKET_FLAGS__TICKET_ONE_USER

typedef struct Text {
        char bytes[TICKET_TEXT_BYTES];
        uint64_t id;
        uint64_t ttl_ns;
} Text;

static Guest *alice, *bob, *root;

static void begin(void) {
        table_open();
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
        root = guest_new(0);
        guest_expect_done(alice, ask_create(alice, "/x", 4096, 0600));
}

static void end(void) {
        alice = guest_free(alice);
        bob = guest_free(bob);
        root = guest_free(root);
        table_close();
}

#define ISSUE(...) REQUEST(Ticket, ticket, __VA_ARGS__)

static Text take(Guest *guest, const ProtobufCMessage *request) {
        const Shmd__TicketReply *reply;
        Text text = { .id = 0 };

        guest_expect_done(guest, guest_ask(guest, MESSAGE_TICKET, request));
        reply = (const Shmd__TicketReply *)guest->reply;
        REQUIRE(reply->ticket.len == TICKET_TEXT_BYTES && reply->id != 0);
        memcpy(text.bytes, reply->ticket.data, TICKET_TEXT_BYTES);
        text.id = reply->id;
        text.ttl_ns = reply->ttl_ns;
        return text;
}

/* One read-only use of /x. */
static Text simple(uint32_t uses) {
        return take(alice, ISSUE(.path = BYTES("/x"), .rights = READ_ONLY, .uses = uses));
}

static uint32_t redeem_bytes(Guest *guest, const void *bytes, size_t n) {
        ProtobufCBinaryData data = { .data = (uint8_t *)bytes, .len = n };
        uint32_t answer = guest_ask(guest, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = data));

        return answer == HELD ? guest_await(guest) : answer;
}

static uint32_t redeem(Guest *guest, const Text *text) {
        return redeem_bytes(guest, text->bytes, TICKET_TEXT_BYTES);
}

static uint32_t revoke_text(Guest *guest, const Text *text) {
        ProtobufCBinaryData data = { .data = (uint8_t *)text->bytes, .len = TICKET_TEXT_BYTES };
        uint32_t answer = guest_ask(guest, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .ticket = data));

        return answer == HELD ? guest_await(guest) : answer;
}

static uint32_t n_revoked(const Guest *guest) {
        return ((const Shmd__RevokeReply *)guest->reply)->revoked;
}

static const Shmd__TicketsReply *list(Guest *guest, uint64_t cursor) {
        guest_expect_done(guest, guest_ask(guest, MESSAGE_TICKETS,
                                           REQUEST(Tickets, tickets, .path = BYTES("/x"), .cursor = cursor)));
        return (const Shmd__TicketsReply *)guest->reply;
}

/* -- issuing ------------------------------------------------------------------------------- */

TEST(request_ticket, only_the_owner_and_administrators_issue_one) {
        begin();
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CHMOD,
                                           REQUEST(Chmod, chmod, .path = BYTES("/x"), .mode = 0666)));
        guest_expect(bob, DENIED, OWNER, guest_ask(bob, MESSAGE_TICKET,
                                                   ISSUE(.path = BYTES("/x"), .rights = READ_ONLY, .uses = 1)));
        guest_expect(bob, NOT_FOUND, MISSING, guest_ask(bob, MESSAGE_TICKET,
                                                        ISSUE(.region = 1, .rights = READ_ONLY, .uses = 1)));
        (void)take(alice, ISSUE(.region = 1, .rights = READ_ONLY, .uses = 1));
        (void)take(root, ISSUE(.region = 1, .rights = READ_WRITE, .uses = 1));
        cr_assert_eq(guest_peer(alice)->account->used[ACCOUNT_PENDING], 1);
        cr_assert_eq(guest_peer(root)->account->used[ACCOUNT_PENDING], 1, "who issues it pays");
        end();
}

TEST(request_ticket, what_cannot_be_issued_is_refused_by_what_is_wrong) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
#define REFUSED(error, reason, ...)                                             \
        guest_expect(alice, error, reason, guest_ask(alice, MESSAGE_TICKET, ISSUE(__VA_ARGS__)))
        REFUSED(INVALID, MALFORMED, .path = BYTES("/x"), .rights = READ_ONLY);
        REFUSED(INVALID, MALFORMED, .path = BYTES("/x"), .rights = READ_ONLY, .uses = TICKET_USES_MAX + 1);
        REFUSED(INVALID, MALFORMED, .path = BYTES("/x"), .uses = 1);
        REFUSED(INVALID, MALFORMED, .path = BYTES("/x"), .rights = 3, .uses = 1);
        REFUSED(INVALID, MALFORMED, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 1, .uid = BOB);
        REFUSED(INVALID, MALFORMED, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 1, .flags = ONE_USER, .uid = -1U);
        REFUSED(INVALID, FLAGS, .path = BYTES("/x"), .rights = READ_ONLY, .uses = 1, .flags = 2);
        REFUSED(INVALID, MALFORMED, .path = BYTES("/x"), .region = 1, .rights = READ_ONLY, .uses = 1);
        REFUSED(INVALID, MALFORMED, .rights = READ_ONLY, .uses = 1);
        REFUSED(INVALID, NAME, .path = BYTES("x"), .rights = READ_ONLY, .uses = 1);
        REFUSED(NOT_FOUND, MISSING, .path = BYTES("/y"), .rights = READ_ONLY, .uses = 1);
        REFUSED(NOT_FOUND, MISSING, .region = 99, .rights = READ_ONLY, .uses = 1);
        REFUSED(IS_DIRECTORY, TAKEN, .path = BYTES("/d"), .rights = READ_ONLY, .uses = 1);
        cr_assert_eq(table->tickets.n, 0);
        (void)simple(TICKET_USES_MAX);
        end();
}

TEST(request_ticket, it_lives_as_long_as_was_asked_and_the_configuration_allows) {
        begin();
        cr_assert_eq(simple(1).ttl_ns, 3600 * NSEC_PER_SEC, "an hour, if nobody says");
        cr_assert_eq(take(alice, ISSUE(.region = 1, .rights = READ_ONLY, .uses = 1, .ttl_ns = 5)).ttl_ns, 5);
        cr_assert_eq(take(alice, ISSUE(.region = 1, .rights = READ_ONLY, .uses = 1, .ttl_ns = UINT64_MAX)).ttl_ns,
                     table_options.ticket_max_ns);
        end();
}

TEST(request_ticket, shortages_are_told_to_who_issues) {
        begin();
        guest_peer(alice)->account->max[ACCOUNT_PENDING] = 2;
        (void)simple(1);
        (void)simple(1);
        guest_expect(alice, QUOTA, LIMIT, guest_ask(alice, MESSAGE_TICKET,
                                                    ISSUE(.path = BYTES("/x"), .rights = READ_ONLY, .uses = 1)));
        cr_assert_eq(alice->refusal->slot, SHMD__SLOT__SLOT_PENDING);
        guest_peer(alice)->account->max[ACCOUNT_PENDING] = UINT64_MAX;
        for (unsigned int i = 2; i < TICKETS_OF_REGION_MAX; ++i)
                (void)simple(1);
        guest_expect(alice, QUOTA, TICKET, guest_ask(alice, MESSAGE_TICKET,
                                                     ISSUE(.path = BYTES("/x"), .rights = READ_ONLY, .uses = 1)));
        end();
}

/* -- bringing ------------------------------------------------------------------------------ */

TEST(request_ticket, whoever_brings_it_gets_its_grant_whatever_modes_say) {
        const Shmd__Granted *granted;
        const Grant *grant;
        Text text;
        int fd;

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/closed", 0700));
        guest_expect_done(alice, ask_create(alice, "/closed/y", 5000, 0));
        text = take(alice, ISSUE(.path = BYTES("/closed/y"), .rights = READ_WRITE, .uses = 1));
        guest_expect(bob, DENIED, SEARCH, ask_open(bob, "/closed/y", READ_ONLY));
        guest_expect_done(bob, redeem(bob, &text));
        granted = (const Shmd__Granted *)bob->reply;
        cr_assert(granted->granted && granted->rights == READ_WRITE && granted->size == 5000);
        cr_assert(granted->outcome == SHMD__OUTCOME__OUTCOME_OPENED && granted->marker);
        fd = fdlist_take(&bob->fds);
        cr_assert(fd >= 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR && pwrite(fd, "x", 1, 4999) == 1);
        close_fd(fd);
        grant = list_entry(regions_find(&table->regions, granted->region)->grants.list.previous, Grant, in_region);
        cr_assert(grant->ticket && grant->uid == BOB && grant->writable);
        cr_assert_eq(guest_peer(bob)->account->used[ACCOUNT_GRANTS], 1, "who brings it pays for the grant");
        end();
}

TEST(request_ticket, it_is_good_for_its_uses_and_its_user) {
        Text text, bobs;

        begin();
        text = simple(2);
        bobs = take(alice, ISSUE(.path = BYTES("/x"), .rights = READ_ONLY, .uses = 1, .flags = ONE_USER, .uid = BOB));
        guest_expect(root, DENIED, TICKET, redeem(root, &bobs));
        guest_expect(alice, DENIED, TICKET, redeem(alice, &bobs));
        guest_expect_done(bob, redeem(bob, &bobs));
        guest_expect(bob, DENIED, TICKET, redeem(bob, &bobs));
        guest_expect_done(bob, redeem(bob, &text));
        guest_expect_done(root, redeem(root, &text));
        guest_expect(root, DENIED, TICKET, redeem(root, &text));
        end();
}

TEST(request_ticket, it_hands_a_region_without_a_name_to_another_user) {
        uint64_t region;
        Text text;
        int fd;

        begin();
        guest_expect_done(alice, ask_create(alice, "", 4096, 0600));
        region = ((const Shmd__Granted *)alice->reply)->region;
        fd = fdlist_take(&alice->fds);
        text = take(alice, ISSUE(.region = region, .rights = READ_ONLY, .uses = 2));
        guest_expect_done(bob, redeem(bob, &text));
        cr_assert_eq(((const Shmd__Granted *)bob->reply)->region, region);
        fdlist_deinit(&bob->fds);
        fd = close_fd(fd);
        while (regions_find(&table->regions, region))
                table_pass(NSEC_PER_SEC);
        cr_assert_eq(table->tickets.n, 0, "a use was left, but nobody held the region");
        guest_expect(bob, DENIED, TICKET, redeem(bob, &text));
        end();
}

/* Compares whole refusals: all that the other side can see. */
static void expect_alike(Guest *guest, uint8_t *first, size_t *n_first) {
        uint8_t bytes[512];
        size_t n;

        REQUIRE(message_pack(&guest->refusal->base, bytes, sizeof(bytes), &n) == 0);
        if (*n_first == 0) {
                memcpy(first, bytes, n);
                *n_first = n;
        }
        cr_assert(n == *n_first && memcmp(bytes, first, n) == 0);
        cr_assert_eq(guest->refusal->thing.len, 0);
}

TEST(request_ticket, every_refusal_of_one_is_the_same_and_takes_its_time) {
        static char long_one[2000];
        Text spent, expired, revoked, gone, others, changed;
        uint8_t first[512];
        size_t n_first = 0;

        begin();
        spent = simple(1);
        guest_expect_done(bob, redeem(bob, &spent));
        revoked = simple(1);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = revoked.id)));
        others = take(alice, ISSUE(.path = BYTES("/x"), .rights = READ_ONLY, .uses = 1, .flags = ONE_USER, .uid = CAROL));
        changed = simple(1);
        changed.bytes[20] = changed.bytes[20] == 'A' ? 'B' : 'A';
        guest_expect_done(alice, ask_create(alice, "/gone", 4096, 0600));
        gone = take(alice, ISSUE(.path = BYTES("/gone"), .rights = READ_ONLY, .uses = 1));
        guest_expect_done(alice, ask_unlink(alice, "/gone"));
        expired = take(alice, ISSUE(.path = BYTES("/x"), .rights = READ_ONLY, .uses = 1, .ttl_ns = 1));
        table_pass(0);
        memset(long_one, 'a', sizeof(long_one));

#define ALIKE(ask)                                                              \
        do {                                                                    \
                uint64_t began = time_now();                                    \
                                                                                \
                guest_expect(bob, DENIED, TICKET, ask);                         \
                cr_assert(time_now() - began >= 250 * NSEC_PER_MSEC, "too soon: %s", #ask); \
                expect_alike(bob, first, &n_first);                             \
        } while (0)
        ALIKE(redeem(bob, &spent));
        ALIKE(redeem(bob, &revoked));
        ALIKE(redeem(bob, &others));
        ALIKE(redeem(bob, &changed));
        ALIKE(redeem(bob, &gone));
        ALIKE(redeem(bob, &expired));
        ALIKE(redeem_bytes(bob, NULL, 0));
        ALIKE(redeem_bytes(bob, "x", 1));
        ALIKE(redeem_bytes(bob, "\0\xff\n", 3));
        ALIKE(redeem_bytes(bob, long_one, sizeof(long_one)));
        ALIKE(revoke_text(bob, &others));
        ALIKE(revoke_text(bob, &spent));
        end();
}

TEST(request_ticket, a_shortage_is_told_to_who_brings_a_good_one_and_costs_no_use) {
        Text text, bad;

        begin();
        text = simple(1);
        bad = text;
        bad.bytes[10] = bad.bytes[10] == 'A' ? 'B' : 'A';
        guest_peer(bob)->account->max[ACCOUNT_GRANTS] = 0;
        guest_expect(bob, QUOTA, LIMIT, redeem(bob, &text));
        cr_assert(bob->refusal->slot == SHMD__SLOT__SLOT_GRANTS && bob->refusal->uid == BOB);
        guest_expect(bob, DENIED, TICKET, redeem(bob, &bad));
        guest_peer(bob)->account->max[ACCOUNT_GRANTS] = 1;
        guest_expect_done(bob, redeem(bob, &text));
        end();
}

TEST(request_ticket, while_one_is_refused_others_are_served) {
        uint32_t answer;

        begin();
        answer = guest_ask(bob, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES("shmdt_guess")));
        cr_assert_eq(answer, HELD);
        for (unsigned int i = 0; i < 100; ++i)
                guest_expect_done(alice, ask_stat(alice, "/x"));
        cr_assert_eq(guest_receive(bob), SILENT);
        guest_expect(bob, DENIED, TICKET, guest_await(bob));
        end();
}

TEST(request_ticket, a_guesser_that_leaves_leaves_nothing_behind) {
        begin();
        cr_assert_eq(guest_ask(bob, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES("shmdt_guess"))), HELD);
        bob = guest_free(bob);
        table_pass(NSEC_PER_SEC);
        bob = guest_new(BOB);
        end();
}

/* -- ending -------------------------------------------------------------------------------- */

TEST(request_ticket, it_is_revoked_by_number_by_itself_and_with_all_of_its_region) {
        Text text;

        begin();
        text = simple(1);
        guest_expect(bob, NOT_FOUND, TICKET, guest_ask(bob, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = text.id)));
        guest_expect(bob, DENIED, OWNER, guest_ask(bob, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .path = BYTES("/x"))));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = text.id)));
        cr_assert_eq(n_revoked(alice), 1);
        guest_expect(alice, NOT_FOUND, TICKET,
                     guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = text.id)));
        text = simple(1);
        guest_expect_done(alice, revoke_text(alice, &text));
        text = simple(1);
        guest_expect_done(root, revoke_text(root, &text));
        for (unsigned int i = 0; i < 3; ++i)
                (void)simple(1);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .path = BYTES("/x"))));
        cr_assert_eq(n_revoked(alice), 3);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .region = 1)));
        cr_assert_eq(n_revoked(alice), 0);
        guest_expect(alice, INVALID, MALFORMED, guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke)));
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = 1, .path = BYTES("/x"))));
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = 1, .ticket = BYTES("x"))));
        cr_assert_eq(table->tickets.n, 0);
        end();
}

TEST(request_ticket, a_new_owner_ends_those_of_the_old_one) {
        Text text;

        begin();
        text = simple(1);
        guest_expect_done(root, guest_ask(root, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES("/x"), .set_gid = true,
                                                                       .gid = BOB)));
        cr_assert_eq(table->tickets.n, 1);
        guest_expect_done(root, guest_ask(root, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES("/x"), .set_uid = true,
                                                                       .uid = BOB)));
        guest_expect(bob, DENIED, TICKET, redeem(bob, &text));
        end();
}

TEST(request_ticket, its_list_tells_all_but_the_ticket) {
        const Shmd__TicketsReply *reply;
        Text text;

        begin();
        text = take(alice, ISSUE(.path = BYTES("/x"), .rights = READ_WRITE, .uses = 7, .flags = ONE_USER, .uid = BOB));
        guest_expect_done(bob, redeem(bob, &text));
        reply = list(alice, 0);
        cr_assert(reply->n_tickets == 1 && reply->cursor == 0);
        cr_assert(reply->tickets[0]->id == text.id && reply->tickets[0]->rights == READ_WRITE);
        cr_assert(reply->tickets[0]->left == 6 && reply->tickets[0]->one_user && reply->tickets[0]->uid == BOB);
        cr_assert(reply->tickets[0]->ttl_ns > 0 && reply->tickets[0]->ttl_ns <= 3600 * NSEC_PER_SEC);
        guest_expect(bob, DENIED, OWNER,
                     guest_ask(bob, MESSAGE_TICKETS, REQUEST(Tickets, tickets, .path = BYTES("/x"))));
        end();
}

TEST(request_ticket, a_long_list_comes_in_pages) {
        const Shmd__TicketsReply *reply;
        uint64_t last = 0;
        size_t n = 0;

        begin();
        for (unsigned int i = 0; i < TICKETS_OF_REGION_MAX; ++i)
                (void)simple(1);
        do {
                reply = list(alice, last);
                for (size_t i = 0; i < reply->n_tickets; ++i, ++n) {
                        cr_assert_gt(reply->tickets[i]->id, last);
                        last = reply->tickets[i]->id;
                }
        } while (reply->cursor);
        cr_assert_eq(n, TICKETS_OF_REGION_MAX);
        end();
}

/* -- what stays behind --------------------------------------------------------------------- */

static bool has(const void *where, size_t n, const Text *text) {
        return memmem(where, n, text->bytes + 6, 16);
}

TEST(request_ticket, no_copy_of_it_and_no_word_about_it_stays_behind) {
        Text text, bad;

        begin();
        text = simple(2);
        cr_assert(!has(table->reply, sizeof(table->reply), &text));
        guest_expect_done(bob, redeem(bob, &text));
        cr_assert(!has(table->request, sizeof(table->request), &text));
        bad = text;
        bad.bytes[40] = bad.bytes[40] == '_' ? '-' : '_';
        guest_expect(bob, DENIED, TICKET, redeem(bob, &bad));
        cr_assert(!has(table->request, sizeof(table->request), &bad));
        guest_expect_done(alice, revoke_text(alice, &text));
        cr_assert(!has(table->request, sizeof(table->request), &text));
        for (size_t i = 0; i < (128 << 10); i += 1024)
                cr_assert(!has(arena_alloc(table->arena, 1024), 1024, &text));
        cr_assert_null(strstr(table_log(), "shmdt_"));
        cr_assert_eq(table_log_count("ticket-issued"), 1);
        cr_assert_eq(table_log_count("ticket-used"), 1);
        cr_assert_eq(table_log_count("reason=ticket"), 1);
        end();
}
