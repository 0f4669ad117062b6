/* daemon/broker/request-again: what an outcome is good for, and that it is good for nothing else, whatever the
 * request says that comes with it. What each kind is answered is tested by tests/integration/session.
 */

#include "daemon-table.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define NONE SHMD__RIGHTS__RIGHTS_NONE
#define READ_ONLY SHMD__RIGHTS__RIGHTS_READ_ONLY
#define READ_WRITE SHMD__RIGHTS__RIGHTS_READ_WRITE
#define ITEM(region, rights) ((region) | (uint64_t)(rights) << SAVED_ITEM_RIGHTS_SHIFT)

static Guest *alice, *bob;

static void begin(void) {
        table_open();
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
}

static void end(void) {
        alice = guest_free(alice);
        bob = guest_free(bob);
        table_close();
}

static void restart(void) {
        table_restart();
        REQUIRE(guest_come_back(alice) && guest_come_back(bob));
}

/* Sends a request under a serial that was used before. */
static uint32_t ask_again(Guest *guest, uint64_t serial, unsigned int kind, const ProtobufCMessage *request) {
        uint64_t latest = guest->serial;
        uint32_t answer;

        guest->serial = serial - 1;
        answer = guest_ask(guest, kind, request);
        guest->serial = latest;
        return answer;
}

static const Shmd__Granted *granted(const Guest *guest) {
        return (const Shmd__Granted *)guest->reply;
}

static uint64_t region_of(Guest *guest, const char *path) {
        guest_expect_done(guest, ask_stat(guest, path));
        return ((const Shmd__StatReply *)guest->reply)->node->region;
}

/* Notes for alice what her next request, which is this one, had for an outcome. Return: its serial. */
static uint64_t pretend(unsigned int kind, const ProtobufCMessage *request, uint64_t region, const uint64_t *items,
                        size_t n_items) {
        SavedOutcome outcome = { .serial = ++alice->serial, .kind = (uint8_t)kind, .region = region };
        Session *session = guest_peer(alice)->session;
        uint8_t payload[4096];
        size_t n;

        REQUIRE(message_pack(request, payload, sizeof(payload), &n) == 0);
        outcome.hash = saved_hash(payload, n);
        REQUIRE(session_make_room(session, n_items) == 0 && state_make_room(table->state, STATE_ROOM) == 0);
        session_settle(session, SESSION_NOTHING, &outcome, items, n_items);
        broker_commit(table);
        return outcome.serial;
}

TEST(request_again, the_rights_are_those_of_the_outcome_and_not_of_the_request) {
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/bobs"), .size = 4096, .mode = 0600,
                                                 .rights = READ_WRITE, .flags = SHMD__CREATE_FLAGS__CREATE_OPEN);
        uint64_t serial, region;

        begin();
        guest_expect_done(bob, ask_create(bob, "/bobs", 4096, 0644));
        region = region_of(bob, "/bobs");
        serial = pretend(MESSAGE_CREATE, create, ITEM(region, READ_ONLY), NULL, 0);
        restart();
        guest_expect_done(alice, ask_again(alice, serial, MESSAGE_CREATE, create));
        cr_assert(granted(alice)->region == region && granted(alice)->rights == READ_ONLY);
        cr_assert_eq(granted(alice)->outcome, SHMD__OUTCOME__OUTCOME_OPENED);
        cr_assert_eq(fcntl(alice->fds.fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
        guest_expect(alice, DENIED, REGION_WRITE, ask_again(alice, serial, MESSAGE_CREATE, create));
        end();
}

TEST(request_again, rights_that_there_are_not_give_none) {
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/bobs"), .size = 4096, .mode = 0600,
                                                 .rights = READ_WRITE);
        uint64_t serial, region;

        begin();
        guest_expect_done(bob, ask_create(bob, "/bobs", 4096, 0600));
        region = region_of(bob, "/bobs");
        serial = pretend(MESSAGE_CREATE, create, ITEM(region, 3), NULL, 0);
        restart();
        guest_expect(alice, NOT_FOUND, MISSING, ask_again(alice, serial, MESSAGE_CREATE, create));
        cr_assert_eq(regions_find(&table->regions, region)->grants.granted, 1, "that is bob's own");
        end();
}

TEST(request_again, a_batch_without_its_regions_or_with_others_is_none) {
        Shmd__Create creates[2] = { SHMD__CREATE__INIT, SHMD__CREATE__INIT };
        Shmd__BatchItem items[2] = { SHMD__BATCH_ITEM__INIT, SHMD__BATCH_ITEM__INIT };
        Shmd__BatchItem *pointers[2] = { &items[0], &items[1] };
        Shmd__Batch batch = SHMD__BATCH__INIT;
        uint64_t without, less, gone, good, region;

        begin();
        creates[0].path = BYTES("/a");
        creates[1].path = BYTES("/b");
        items[0].create = &creates[0];
        items[1].create = &creates[1];
        batch.n_items = 2;
        batch.items = pointers;
        guest_expect_done(alice, ask_create(alice, "/a", 4096, 0600));
        region = region_of(alice, "/a");
        without = pretend(MESSAGE_BATCH, &batch.base, 0, NULL, 0);
        less = pretend(MESSAGE_BATCH, &batch.base, 0, (uint64_t[]){ ITEM(region, NONE) | SAVED_ITEM_CREATED }, 1);
        gone = pretend(MESSAGE_BATCH, &batch.base, 0, (uint64_t[]){ ITEM(region, NONE), ITEM(4711, READ_ONLY) }, 2);
        good = pretend(MESSAGE_BATCH, &batch.base, 0,
                       (uint64_t[]){ ITEM(region, NONE), ITEM(region, READ_ONLY) | SAVED_ITEM_CREATED }, 2);
        restart();
        guest_expect(alice, INVALID, SERIAL, ask_again(alice, without, MESSAGE_BATCH, &batch.base));
        guest_expect(alice, INVALID, SERIAL, ask_again(alice, less, MESSAGE_BATCH, &batch.base));
        guest_expect(alice, NOT_FOUND, MISSING, ask_again(alice, gone, MESSAGE_BATCH, &batch.base));
        cr_assert_eq(alice->refusal->index, 1);
        guest_expect_done(alice, ask_again(alice, good, MESSAGE_BATCH, &batch.base));
        cr_assert_eq(alice->header.n_fds, 1);
        cr_assert_eq(table->regions.n, 1, "nothing was made");
        end();
}

static uint32_t ask_chmod(Guest *guest, const char *path, uint32_t mode) {
        return guest_ask(guest, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(path), .mode = mode));
}

/* Somebody took it away from whoever seemed to hold nothing of it: to ask again is no way around that. */
TEST(request_again, what_was_opened_in_a_batch_is_opened_only_by_who_may_open_it_now) {
        Shmd__Create create = SHMD__CREATE__INIT;
        Shmd__Open open = SHMD__OPEN__INIT;
        Shmd__BatchItem items[2] = { SHMD__BATCH_ITEM__INIT, SHMD__BATCH_ITEM__INIT };
        Shmd__BatchItem *pointers[2] = { &items[0], &items[1] };
        Shmd__Batch batch = SHMD__BATCH__INIT;
        uint64_t serial;

        begin();
        guest_expect_done(bob, ask_create(bob, "/bobs", 4096, 0666));
        create.path = BYTES("/mine");
        create.size = 4096;
        create.mode = 0600;
        open.path = BYTES("/bobs");
        open.rights = READ_WRITE;
        items[0].create = &create;
        items[1].open = &open;
        batch.n_items = 2;
        batch.items = pointers;
        guest_expect_done(alice, guest_ask(alice, MESSAGE_BATCH, &batch.base));
        serial = alice->serial;
        restart();
        guest_expect_done(bob, ask_chmod(bob, "/bobs", 0604));
        guest_expect(alice, DENIED, REGION_WRITE, ask_again(alice, serial, MESSAGE_BATCH, &batch.base));
        cr_assert_eq(alice->refusal->index, 1);
        guest_expect_done(bob, ask_chmod(bob, "/bobs", 0606));
        guest_expect_done(alice, ask_again(alice, serial, MESSAGE_BATCH, &batch.base));
        end();
}

static void take_ticket(uint32_t uses, char text[TICKET_TEXT_BYTES]) {
        const Shmd__TicketReply *reply;

        guest_expect_done(bob, guest_ask(bob, MESSAGE_TICKET, REQUEST(Ticket, ticket, .path = BYTES("/bobs"),
                                                                      .rights = READ_ONLY, .uses = uses)));
        reply = (const Shmd__TicketReply *)bob->reply;
        REQUIRE(reply->ticket.len == TICKET_TEXT_BYTES);
        memcpy(text, reply->ticket.data, TICKET_TEXT_BYTES);
}

/* 0: in a new request. */
static uint32_t ask_redeem(uint64_t serial, const char text[TICKET_TEXT_BYTES]) {
        ProtobufCBinaryData ticket = { .data = (uint8_t *)text, .len = TICKET_TEXT_BYTES };
        const ProtobufCMessage *redeem = REQUEST(Redeem, redeem, .ticket = ticket);
        uint32_t answer = serial ? ask_again(alice, serial, MESSAGE_REDEEM, redeem) :
                                   guest_ask(alice, MESSAGE_REDEEM, redeem);

        return answer == HELD ? guest_await(alice) : answer;
}

/* What an administrator ends is over for who has used it up, too. */
static void expect_none_after(unsigned int kind, const ProtobufCMessage *request) {
        char text[TICKET_TEXT_BYTES];
        uint64_t serial;
        Guest *root;

        begin();
        guest_expect_done(bob, ask_create(bob, "/bobs", 4096, 0600));
        take_ticket(1, text);
        guest_expect_done(alice, ask_redeem(0, text));
        serial = alice->serial;
        restart();
        guest_expect_done(alice, ask_redeem(serial, text));
        cr_assert_eq(granted(alice)->rights, READ_ONLY);
        restart();
        root = guest_new(0);
        guest_expect_done(root, guest_ask(root, kind, request));
        root = guest_free(root);
        for (int i = 0; i < 2; ++i) {
                restart();
                guest_expect(alice, DENIED, TICKET, ask_redeem(serial, text));
                cr_assert_eq(alice->refusal->thing.len, 0, "nothing is told of the region");
        }
        end();
}

TEST(request_again, a_ticket_that_was_used_up_is_none_once_those_of_its_region_are_revoked) {
        expect_none_after(MESSAGE_REVOKE, REQUEST(Revoke, revoke, .path = BYTES("/bobs")));
        expect_none_after(MESSAGE_REVOKE, REQUEST(Revoke, revoke, .region = 1));
}

TEST(request_again, a_ticket_that_was_used_up_is_none_once_its_region_has_another_owner) {
        expect_none_after(MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES("/bobs"), .set_uid = true, .uid = ALICE));
}

TEST(request_again, a_ticket_that_is_revoked_itself_is_none_and_another_one_is_used) {
        char text[TICKET_TEXT_BYTES], other[TICKET_TEXT_BYTES];
        ProtobufCBinaryData data = { .data = (uint8_t *)text, .len = TICKET_TEXT_BYTES };
        uint64_t serial, others;

        begin();
        guest_expect_done(bob, ask_create(bob, "/bobs", 4096, 0600));
        take_ticket(2, text);
        take_ticket(2, other);
        guest_expect_done(alice, ask_redeem(0, text));
        serial = alice->serial;
        guest_expect_done(alice, ask_redeem(0, other));
        others = alice->serial;
        guest_expect_done(bob, guest_ask(bob, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .ticket = data)));
        restart();
        guest_expect(alice, DENIED, TICKET, ask_redeem(serial, text));
        guest_expect_done(alice, ask_redeem(others, other));
        cr_assert_eq(table->tickets.n, 0, "that was its second use");
        restart();
        guest_expect_done(alice, ask_redeem(others, other));
        end();
}

TEST(request_again, for_want_of_room_it_is_refused_and_told_later) {
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = 4096, .mode = 0600,
                                                 .rights = READ_WRITE);
        uint64_t serial, region;
        uint32_t answer;

        begin();
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE, create));
        serial = alice->serial;
        region = granted(alice)->region;
        table_options.rules.everybody.max[ACCOUNT_GRANTS] = 0;
        restart();
        for (answer = ask_again(alice, serial, MESSAGE_CREATE, create); answer == HELD || answer == SILENT;
             answer = guest_receive(alice))
                table_pass(NSEC_PER_SEC);
        guest_expect(alice, QUOTA, LIMIT, answer);
        table_options.rules.everybody.max[ACCOUNT_GRANTS] = 5;
        restart();
        guest_expect_done(alice, ask_again(alice, serial, MESSAGE_CREATE, create));
        cr_assert_eq(granted(alice)->region, region);
        cr_assert_eq(table->regions.n, 1);
        end();
}

TEST(request_again, what_only_opened_is_done_again) {
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/x"), .size = 4096, .mode = 0600,
                                                 .rights = READ_WRITE, .flags = SHMD__CREATE_FLAGS__CREATE_OPEN);
        uint64_t first, serial;

        begin();
        guest_expect_done(alice, ask_create(alice, "/x", 4096, 0600));
        first = region_of(alice, "/x");
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE, create));
        serial = alice->serial;
        cr_assert_eq(granted(alice)->outcome, SHMD__OUTCOME__OUTCOME_OPENED);
        guest_expect_done(alice, ask_unlink(alice, "/x"));
        restart();
        guest_expect_done(alice, ask_again(alice, serial, MESSAGE_CREATE, create));
        cr_assert(granted(alice)->outcome == SHMD__OUTCOME__OUTCOME_CREATED && granted(alice)->region != first);
        end();
}

TEST(request_again, of_another_user_nothing_is_told) {
        uint64_t serial;

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        serial = alice->serial;
        table_restart();
        memcpy(bob->session, alice->session, sizeof(bob->session));
        cr_assert_not(guest_come_back(bob));
        guest_expect(bob, EXISTS, TAKEN, ask_again(bob, serial, MESSAGE_MKDIR,
                                                   REQUEST(Mkdir, mkdir, .path = BYTES("/d"), .mode = 0700)));
        cr_assert(guest_come_back(alice));
        guest_expect_done(alice, ask_again(alice, serial, MESSAGE_MKDIR,
                                           REQUEST(Mkdir, mkdir, .path = BYTES("/d"), .mode = 0700)));
        end();
}

TEST(request_again, a_session_that_was_not_resumed_has_no_outcomes) {
        uint64_t serial;

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        serial = alice->serial;
        table_restart();
        table_pass(20 * NSEC_PER_SEC);
        cr_assert_eq(table->sessions.n, 0);
        cr_assert_not(guest_come_back(alice));
        cr_assert_not(guest_come_back(bob));
        guest_expect(alice, EXISTS, TAKEN, ask_again(alice, serial, MESSAGE_MKDIR,
                                                     REQUEST(Mkdir, mkdir, .path = BYTES("/d"), .mode = 0700)));
        end();
}
