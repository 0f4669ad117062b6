/* daemon/broker/request: one dispatcher checks what the table says, and every answer is exact. */

#include "daemon-table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "acct/quota.h"
#include "util/probe.h"

#define READ_ONLY SHMD__RIGHTS__RIGHTS_READ_ONLY
#define READ_WRITE SHMD__RIGHTS__RIGHTS_READ_WRITE
#define NO_RIGHTS SHMD__RIGHTS__RIGHTS_NONE
#define OWN_NAME "/x"

static Guest *alice, *bob, *root;

static void begin(void) {
        table_open();
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
        root = guest_new(0);
}

static void end(void) {
        alice = guest_free(alice);
        bob = guest_free(bob);
        root = guest_free(root);
        table_close();
}

static Account *account_of(const Guest *guest) {
        return guest_peer(guest)->account;
}

static uint64_t used(const Guest *guest, AccountSlot slot) {
        return account_of(guest)->used[slot];
}

/* -- what the table says -------------------------------------------------------------------------- */

TEST(request, hello_says_who_the_broker_took_the_peer_for) {
        const Shmd__HelloReply *hello;

        begin();
        alice = guest_free(alice);
        alice = guest_connect(ALICE, ALICE, NULL, 0);
        guest_expect_done(alice, ask_hello(alice));
        hello = (const Shmd__HelloReply *)alice->reply;
        cr_assert(hello->version == 1 && hello->uid == ALICE && !hello->admin && hello->session.len == 16);
        cr_assert(hello->broker.len == 4 && !memcmp(hello->broker.data, "test", 4));
        root = guest_free(root);
        root = guest_connect(0, 0, NULL, 0);
        guest_expect_done(root, ask_hello(root));
        cr_assert(((const Shmd__HelloReply *)root->reply)->admin);
        end();
}

TEST(request, hello_settles_on_a_version_both_speak) {
        Guest *guest;
        uint8_t session[17] = { 1 };

        begin();
        guest = guest_connect(CAROL, CAROL, NULL, 0);
        guest_expect(guest, UNSUPPORTED, VERSION, guest_ask(guest, MESSAGE_HELLO, REQUEST(Hello, hello, .version = 0)));
        for (size_t n = 1; n <= 17; ++n) {
                ProtobufCBinaryData bytes = { .data = session, .len = n };

                if (n != 16)
                        guest_expect(guest, INVALID, MALFORMED,
                                     guest_ask(guest, MESSAGE_HELLO,
                                               REQUEST(Hello, hello, .version = 1, .session = bytes)));
        }
        guest_expect_done(guest, guest_ask(guest, MESSAGE_HELLO, REQUEST(Hello, hello, .version = 1000,
                                                                         .features = UINT64_MAX)));
        cr_assert_eq(((const Shmd__HelloReply *)guest->reply)->version, 1);
        cr_assert_eq(((const Shmd__HelloReply *)guest->reply)->features, 0);
        guest = guest_free(guest);
        end();
}

TEST(request, hello_grants_of_what_is_wished_for_what_this_broker_has) {
        static const struct {
                uint64_t busy_poll_ns, wanted, granted;
        } cases[] = {
                { 0, 0, 0 }, { 0, 1, 0 }, { 0, UINT64_MAX, 0 },
                { 50000, 0, 0 }, { 50000, 1, 1 }, { 50000, 2, 0 }, { 50000, UINT64_MAX, 1 },
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
                Guest *guest;

                table_defaults();
                table_options.busy_poll_ns = cases[i].busy_poll_ns;
                begin();
                guest = guest_connect(CAROL, CAROL, NULL, 0);
                guest_expect_done(guest, guest_ask(guest, MESSAGE_HELLO,
                                                   REQUEST(Hello, hello, .version = 1, .features = cases[i].wanted)));
                cr_assert_eq(((const Shmd__HelloReply *)guest->reply)->features, cases[i].granted, "case %zu", i);
                cr_assert_eq(guest_peer(guest)->poll.phase != BUSYPOLL_NOT_GRANTED, cases[i].granted & 1, "case %zu", i);
                guest = guest_free(guest);
                end();
        }
}

TEST(request, nothing_is_legal_before_hello_and_no_hello_after_it) {
        begin();
        for (unsigned int kind = MESSAGE_HELLO + 1; kind < _MESSAGE_N; ++kind) {
                Guest *guest = guest_connect(CAROL, CAROL, NULL, 0);

                *accounts_voice(&table->accounts, CAROL) = (Voice){ .refill_at = 0 };
                guest_expect(guest, INVALID, STATE, guest_ask_raw(guest, kind, 1, "", 0));
                cr_assert(deadline_is_armed(&guest_peer(guest)->end), "%s: the peer is over", message_name(kind));
                guest = guest_free(guest);
        }
        cr_assert_eq(table_log_count("reason=before-hello"), _MESSAGE_N - 2);
        guest_expect(alice, INVALID, STATE, ask_hello(alice));
        cr_assert(deadline_is_armed(&guest_peer(alice)->end));
        cr_assert_eq(table_log_count("reason=second-hello"), 1);
        end();
}

TEST(request, a_serial_of_zero_ends_the_peer) {
        begin();
        cr_assert_eq(guest_ask_raw(alice, MESSAGE_PING, 0, "", 0), CLOSED);
        cr_assert_eq(table_log_count("reason=serial-zero"), 1);
        end();
}

TEST(request, kinds_nobody_knows_are_refused_and_the_peer_goes_on) {
        static const unsigned int kinds[] = { 0, _MESSAGE_N, 0x7fff, 0x8001, 0xffff };

        begin();
        for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); ++i)
                guest_expect(alice, UNSUPPORTED, REQUEST, guest_ask_raw(alice, kinds[i], 7, "xyz", 3));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_PING, REQUEST(Ping, ping, .payload = BYTES("still here"))));
        end();
}

TEST(request, what_cannot_be_read_ends_the_peer) {
        static const char *const garbage[] = { "\xff", "\x0a\x05/a", "\x08", "\x0b", "\x0a\x01/\x0a\x01/" };

        begin();
        for (size_t i = 0; i < sizeof(garbage) / sizeof(*garbage); ++i) {
                Guest *guest = guest_new(CAROL);

                cr_assert_eq(guest_ask_raw(guest, MESSAGE_UNLINK, 9, garbage[i], strlen(garbage[i])), CLOSED, "%zu", i);
                guest = guest_free(guest);
        }
        cr_assert_eq(table_log_count("reason=malformed"), 5);
        cr_assert_eq(table->stats.violations, 5);
        end();
}

TEST(request, only_an_administrator_gives_things_away) {
        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect(alice, DENIED, ADMIN,
                     guest_ask(alice, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES(OWN_NAME),
                                                                                  .set_uid = true, .uid = BOB)));
        guest_expect_done(root, guest_ask(root, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES(OWN_NAME),
                                                                      .set_uid = true, .uid = BOB)));
        cr_assert_eq(used(alice, ACCOUNT_BYTES), 0);
        cr_assert_eq(used(bob, ACCOUNT_BYTES), 4096);
        end();
}

TEST(request, flags_that_are_not_defined_are_refused_bit_by_bit) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0755));
        for (unsigned int bit = 0; bit < 32; ++bit) {
                uint32_t flags = UINT32_C(1) << bit;

                if (flags > SHMD__CREATE_FLAGS__CREATE_RESERVE)
                        guest_expect(alice, INVALID, FLAGS, guest_ask(alice, MESSAGE_CREATE,
                                     REQUEST(Create, create, .path = BYTES("/y"), .mode = 0600, .rights = READ_WRITE,
                                             .flags = flags)));
                if (flags > SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE)
                        guest_expect(alice, INVALID, FLAGS, guest_ask(alice, MESSAGE_PUBLISH,
                                     REQUEST(Publish, publish, .region = 1, .path = BYTES("/y"), .flags = flags)));
                if (flags > SHMD__LIST_FLAGS__LIST_USAGE)
                        guest_expect(alice, INVALID, FLAGS, guest_ask(alice, MESSAGE_LIST,
                                     REQUEST(List, list, .path = BYTES("/"), .flags = flags)));
                if (flags > SHMD__STAT_FLAGS__STAT_NAMES)
                        guest_expect(alice, INVALID, FLAGS, guest_ask(alice, MESSAGE_STAT,
                                     REQUEST(Stat, stat, .path = BYTES("/d"), .flags = flags)));
        }
        end();
}

TEST(request, a_ping_comes_back_and_carries_at_most_64_bytes) {
        uint8_t payload[65] = { 7 };

        begin();
        for (size_t n = 0; n <= 65; ++n) {
                ProtobufCBinaryData bytes = { .data = payload, .len = n };
                uint32_t r = guest_ask(alice, MESSAGE_PING, REQUEST(Ping, ping, .payload = bytes));

                if (n == 65)
                        guest_expect(alice, INVALID, MALFORMED, r);
                else
                        cr_assert(r == 0 && ((const Shmd__Ping *)alice->reply)->payload.len == n);
        }
        end();
}

/* -- create and open ---------------------------------------------------------------------------- */

TEST(request, a_create_hands_out_the_region_and_charges_its_owner) {
        const Shmd__Granted *granted;

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 5000, 0640));
        granted = (const Shmd__Granted *)alice->reply;
        cr_assert(granted->granted && granted->size == 5000 && granted->rights == READ_WRITE);
        cr_assert(granted->outcome == SHMD__OUTCOME__OUTCOME_CREATED && granted->region > 0 && granted->grant > 0);
        cr_assert_eq(alice->fds.n, 1);
        cr_assert_eq(pwrite(alice->fds.fds[0], "x", 1, 4999), 1);
        cr_assert_eq(used(alice, ACCOUNT_BYTES), 8192);
        cr_assert_eq(used(alice, ACCOUNT_REGIONS), 1);
        cr_assert_eq(used(alice, ACCOUNT_GRANTS), 1);
        guest_expect(alice, EXISTS, TAKEN, ask_create(alice, OWN_NAME, 1, 0600));
        guest_expect(bob, EXISTS, TAKEN, ask_create(bob, OWN_NAME, 1, 0600));
        end();
}

TEST(request, fields_of_a_create_that_are_out_of_range_are_refused) {
        begin();
        guest_expect(alice, INVALID, MODE, ask_create(alice, "/y", 1, 01000));
        guest_expect(alice, INVALID, MODE, ask_create(alice, "/y", 1, UINT32_MAX));
        guest_expect(alice, INVALID, SIZE, ask_create(alice, "/y", UINT64_C(1) << 63, 0600));
        guest_expect(alice, INVALID, SIZE, ask_create(alice, "/y", UINT64_MAX, 0600));
        guest_expect(alice, INVALID, MALFORMED, guest_ask(alice, MESSAGE_CREATE,
                     REQUEST(Create, create, .path = BYTES("/y"), .rights = 3)));
        guest_expect(alice, INVALID, MALFORMED, guest_ask(alice, MESSAGE_CREATE,
                     REQUEST(Create, create, .path = BYTES("/y"), .rights = READ_WRITE, .lifetime = 3)));
        guest_expect(alice, INVALID, MALFORMED, guest_ask(alice, MESSAGE_CREATE,
                     REQUEST(Create, create, .path = BYTES("/y"), .rights = READ_WRITE, .huge_page_size = 11)));
        guest_expect(alice, INVALID, MALFORMED, guest_ask(alice, MESSAGE_CREATE,
                     REQUEST(Create, create, .path = BYTES("/y"), .rights = READ_WRITE, .huge_page_size = 41)));
        guest_expect(alice, INVALID, MALFORMED, guest_ask(alice, MESSAGE_CREATE,
                     REQUEST(Create, create, .path = BYTES("/y"), .rights = READ_ONLY,
                             .flags = SHMD__CREATE_FLAGS__CREATE_RESERVE)));
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_CREATE, REQUEST(Create, create, .rights = NO_RIGHTS)));
        guest_expect(alice, INVALID, MALFORMED, guest_ask(alice, MESSAGE_CREATE,
                     REQUEST(Create, create, .rights = READ_WRITE, .flags = SHMD__CREATE_FLAGS__CREATE_OPEN)));
        guest_expect(alice, INVALID, MALFORMED, ask_open(alice, "/y", NO_RIGHTS));
        guest_expect(alice, INVALID, MALFORMED, ask_open(alice, "/y", 3));
        cr_assert_eq(used(alice, ACCOUNT_BYTES), 0);
        cr_assert_eq(used(alice, ACCOUNT_REGIONS), 0);
        cr_assert_eq(table->regions.n, 0);
        end();
}

TEST(request, names_are_bytes_and_their_rules_are_told) {
        static const char *const names[] = { "x", "/x/", "//", "/..", "/\n", "/\xff", "/\xe2\x80\xae" };

        begin();
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); ++i) {
                guest_expect(alice, INVALID, NAME, ask_create(alice, names[i], 1, 0600));
                guest_expect(alice, INVALID, NAME, ask_open(alice, names[i], READ_ONLY));
                guest_expect(alice, INVALID, NAME, ask_mkdir(alice, names[i], 0755));
                cr_assert_eq(alice->refusal->thing.len, 0);
        }
        guest_expect(alice, INVALID, NAME, guest_ask(alice, MESSAGE_CREATE,
                     REQUEST(Create, create, .path = { .data = (uint8_t *)"/a\0b", .len = 4 }, .rights = READ_WRITE)));
        end();
}

TEST(request, rights_follow_the_mode_of_the_region) {
        begin();
        for (uint32_t mode = 0; mode <= 7; ++mode) {
                guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, mode));
                if (mode & 4) {
                        guest_expect_done(bob, ask_open(bob, OWN_NAME, READ_ONLY));
                        cr_assert_eq(fcntl(bob->fds.fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
                } else {
                        guest_expect(bob, DENIED, REGION_READ, ask_open(bob, OWN_NAME, READ_ONLY));
                        guest_expect(bob, DENIED, REGION_READ, ask_open(bob, OWN_NAME, READ_WRITE));
                }
                if ((mode & 6) == 6) {
                        guest_expect_done(bob, ask_open(bob, OWN_NAME, READ_WRITE));
                        cr_assert_eq(fcntl(bob->fds.fds[0], F_GETFL) & O_ACCMODE, O_RDWR);
                } else if (mode & 4) {
                        guest_expect(bob, DENIED, REGION_WRITE, ask_open(bob, OWN_NAME, READ_WRITE));
                }
                guest_expect_done(root, ask_open(root, OWN_NAME, READ_WRITE));
                guest_expect(bob, DENIED, STICKY, ask_unlink(bob, OWN_NAME));
                guest_expect_done(alice, ask_unlink(alice, OWN_NAME));
        }
        end();
}

TEST(request, a_member_by_the_primary_group_alone_has_the_groups_rights) {
        Guest *member, *other;

        begin();
        member = guest_connect(CAROL, ALICE, NULL, 0);
        other = guest_connect(CAROL, CAROL, (gid_t[]){ 5, ALICE }, 2);
        guest_expect_done(member, ask_hello(member));
        guest_expect_done(other, ask_hello(other));
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0640));
        guest_expect_done(member, ask_open(member, OWN_NAME, READ_ONLY));
        guest_expect_done(other, ask_open(other, OWN_NAME, READ_ONLY));
        guest_expect(bob, DENIED, REGION_READ, ask_open(bob, OWN_NAME, READ_ONLY));
        member = guest_free(member);
        other = guest_free(other);
        end();
}

TEST(request, open_or_create_tells_which_and_checks_rights_of_what_is_there) {
        ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES(OWN_NAME), .size = 1, .mode = 0600,
                                           .rights = READ_WRITE, .flags = SHMD__CREATE_FLAGS__CREATE_OPEN);

        begin();
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE, create));
        cr_assert_eq(((const Shmd__Granted *)alice->reply)->outcome, SHMD__OUTCOME__OUTCOME_CREATED);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CREATE, create));
        cr_assert_eq(((const Shmd__Granted *)alice->reply)->outcome, SHMD__OUTCOME__OUTCOME_OPENED);
        guest_expect(bob, DENIED, REGION_READ, guest_ask(bob, MESSAGE_CREATE, create));
        cr_assert_eq(used(alice, ACCOUNT_REGIONS), 1);
        end();
}

TEST(request, who_may_not_search_cannot_tell_what_exists) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        guest_expect_done(alice, ask_create(alice, "/d/there", 1, 0666));
        for (int i = 0; i < 2; ++i) {
                const char *path = i ? "/d/there" : "/d/nope";

                guest_expect(bob, DENIED, SEARCH, ask_open(bob, path, READ_ONLY));
                cr_assert(bob->refusal->thing.len == 2 && !memcmp(bob->refusal->thing.data, "/d", 2));
                guest_expect(bob, DENIED, SEARCH, ask_create(bob, path, 1, 0600));
                guest_expect(bob, DENIED, SEARCH, ask_unlink(bob, path));
                guest_expect(bob, DENIED, SEARCH, ask_stat(bob, path));
                guest_expect(bob, DENIED, SEARCH, ask_mkdir(bob, path, 0755));
                guest_expect(bob, DENIED, SEARCH, guest_ask(bob, MESSAGE_WAIT,
                             REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = 1)));
        }
        end();
}

/* -- limits ------------------------------------------------------------------------------------- */

TEST(request, over_its_limit_it_is_told_all_the_numbers) {
        begin();
        account_of(alice)->max[ACCOUNT_BYTES] = 8192;
        guest_expect(alice, QUOTA, LIMIT, ask_create(alice, OWN_NAME, 8193, 0600));
        cr_assert(alice->refusal->slot == SHMD__SLOT__SLOT_BYTES && alice->refusal->uid == ALICE);
        cr_assert(alice->refusal->asked == 12288 && alice->refusal->left == 8192 && alice->refusal->limit == 8192);
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 8192, 0600));
        guest_expect(alice, QUOTA, LIMIT, ask_create(alice, "/y", 1, 0600));
        cr_assert_eq(alice->refusal->left, 0);
        guest_expect_done(alice, ask_create(alice, "/y", 0, 0600));
        end();
}

TEST(request, a_shortage_waits_for_what_is_being_released) {
        begin();
        account_of(alice)->max[ACCOUNT_BYTES] = 4096;
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        fdlist_deinit(&alice->fds);
        guest_expect_done(alice, ask_unlink(alice, OWN_NAME));
        cr_assert_eq(ask_create(alice, "/y", 4096, 0600), HELD, "it is condemned, but not free yet");
        guest_expect_done(alice, guest_await(alice));
        cr_assert_eq(used(alice, ACCOUNT_BYTES), 4096);
        end();
}

TEST(request, before_a_grant_is_refused_the_dead_ones_are_looked_for_once) {
        begin();
        account_of(alice)->max[ACCOUNT_GRANTS] = 2;
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect_done(alice, ask_open(alice, OWN_NAME, READ_ONLY));
        fdlist_deinit(&alice->fds);
        cr_assert_eq(ask_open(alice, OWN_NAME, READ_ONLY), HELD);
        guest_expect_done(alice, guest_await(alice));
        cr_assert_eq(used(alice, ACCOUNT_GRANTS), 1, "both were dead");
        end();
}

TEST(request, a_grant_over_the_limit_of_living_ones_is_refused) {
        FdList kept;

        begin();
        account_of(alice)->max[ACCOUNT_GRANTS] = 1;
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        kept = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        cr_assert_eq(ask_open(alice, OWN_NAME, READ_ONLY), HELD);
        guest_expect(alice, QUOTA, LIMIT, guest_await(alice));
        cr_assert_eq(alice->refusal->slot, SHMD__SLOT__SLOT_GRANTS);
        fdlist_deinit(&kept);
        end();
}

/* -- batches -------------------------------------------------------------------------------------- */

typedef struct Items {
        size_t n;
        Shmd__Create creates[130];
        Shmd__Open opens[130];
        Shmd__BatchItem items[130];
        Shmd__BatchItem *pointers[130];
} Items;

static Items items;

static void item_create(const char *path, uint64_t size) {
        Shmd__Create *create = &items.creates[items.n];

        shmd__create__init(create);
        *create = (Shmd__Create){ .base = create->base, .path = BYTES(path), .size = size, .mode = 0600,
                                  .rights = READ_WRITE };
        shmd__batch_item__init(&items.items[items.n]);
        items.items[items.n].create = create;
        items.pointers[items.n] = &items.items[items.n];
        ++items.n;
}

static void item_open(const char *path, uint32_t rights) {
        Shmd__Open *open = &items.opens[items.n];

        shmd__open__init(open);
        *open = (Shmd__Open){ .base = open->base, .path = BYTES(path), .rights = rights };
        shmd__batch_item__init(&items.items[items.n]);
        items.items[items.n].open = open;
        items.pointers[items.n] = &items.items[items.n];
        ++items.n;
}

static uint32_t ask_batch(Guest *guest) {
        uint32_t r = guest_ask(guest, MESSAGE_BATCH,
                               REQUEST(Batch, batch, .n_items = items.n, .items = items.pointers));

        items.n = 0;
        return r;
}

TEST(request, a_batch_comes_with_its_descriptors_in_order) {
        const Shmd__BatchReply *reply;

        begin();
        item_create("/a", 100);
        item_create("", 200);
        item_open("/a", READ_ONLY);
        guest_expect_done(alice, ask_batch(alice));
        reply = (const Shmd__BatchReply *)alice->reply;
        cr_assert(reply->n_items == 3 && alice->fds.n == 3);
        cr_assert(reply->items[0]->size == 100 && reply->items[1]->size == 200 && reply->items[2]->size == 100);
        cr_assert_eq(reply->items[0]->region, reply->items[2]->region);
        cr_assert_eq(reply->items[2]->outcome, SHMD__OUTCOME__OUTCOME_OPENED);
        cr_assert_eq(lseek(alice->fds.fds[0], 0, SEEK_END), 100);
        cr_assert_eq(lseek(alice->fds.fds[1], 0, SEEK_END), 200);
        cr_assert_eq(lseek(alice->fds.fds[2], 0, SEEK_END), 100);
        cr_assert_eq(fcntl(alice->fds.fds[2], F_GETFL) & O_ACCMODE, O_RDONLY);
        end();
}

TEST(request, a_batch_is_all_or_nothing_and_says_which_item_it_was) {
        size_t before;

        begin();
        before = test_count_fds();
        item_create("/a", 4096);
        item_create("", 4096);
        item_open("/a", READ_ONLY);
        item_open("/missing", READ_ONLY);
        item_create("/b", 4096);
        guest_expect(alice, NOT_FOUND, MISSING, ask_batch(alice));
        cr_assert_eq(alice->refusal->index, 3);
        guest_expect(alice, NOT_FOUND, MISSING, ask_stat(alice, "/a"));
        table_pass(NSEC_PER_SEC);       /* what was set aside for the answer is given back when it was read */
        for (unsigned int i = 0; i < _ACCOUNT_SLOT_N; ++i)
                cr_assert_eq(used(alice, i), i == ACCOUNT_PEERS ? 1 : 0, "slot %u", i);
        cr_assert_eq(table->regions.n, 0);
        cr_assert_eq(table->grants.n, 0);
        cr_assert_eq(test_count_fds(), before);
        end();
}

TEST(request, a_batch_that_is_refused_disturbs_nobody_who_waits) {
        begin();
        cr_assert_eq(guest_ask(bob, MESSAGE_WAIT,
                               REQUEST(Wait, wait, .path = BYTES("/a"), .timeout_ns = NSEC_PER_SEC)), SILENT);
        item_create("/a", 4096);
        item_open("/missing", READ_ONLY);
        guest_expect(alice, NOT_FOUND, MISSING, ask_batch(alice));
        cr_assert_eq(guest_receive(bob), SILENT);
        item_create("/a", 4096);
        guest_expect_done(alice, ask_batch(alice));
        guest_expect_done(bob, guest_receive(bob));
        end();
}

TEST(request, a_batch_has_1_to_128_items_each_of_one_kind) {
        begin();
        guest_expect(alice, INVALID, MALFORMED, ask_batch(alice));
        for (int i = 0; i < 129; ++i)
                item_create("", 0);
        guest_expect(alice, INVALID, MALFORMED, ask_batch(alice));
        for (int i = 0; i < 128; ++i)
                item_create("", 0);
        guest_expect_done(alice, ask_batch(alice));
        cr_assert_eq(alice->fds.n, 128);

        item_create("", 0);
        item_create("", 0);
        items.items[1].open = &items.opens[1];
        shmd__open__init(&items.opens[1]);
        guest_expect(alice, INVALID, MALFORMED, ask_batch(alice));
        cr_assert_eq(alice->refusal->index, 1);
        item_create("", 0);
        items.items[0].create = NULL;
        guest_expect(alice, INVALID, MALFORMED, ask_batch(alice));
        end();
}

TEST(request, with_256_descriptors_unread_the_next_waits_and_others_are_served) {
        WireHeader header;
        static uint8_t payload[WIRE_REQUEST_MAX];
        size_t n;

        begin();
        for (int i = 0; i < 128; ++i)
                item_create("", 0);
        REQUIRE(message_pack(REQUEST(Batch, batch, .n_items = items.n, .items = items.pointers), payload,
                             sizeof(payload), &n) == 0);
        items.n = 0;
        for (uint64_t serial = 1; serial <= 3; ++serial) {
                wire_put_header(table->request, n + sizeof(WireHeader), MESSAGE_BATCH, 0, serial);
                memcpy(table->request + sizeof(WireHeader), payload, n);
                wire_get_header(table->request, &header);
                cr_assert_eq(request_dispatch(guest_peer(alice), &header, table->request, &(uint64_t){ time_now() }),
                             serial < 3 ? 0 : REQUEST_E_HELD);
        }
        cr_assert_eq(used(alice, ACCOUNT_INFLIGHT), 256);
        guest_expect_done(bob, ask_create(bob, "/bob", 4096, 0600));
        table_pass(NSEC_PER_SEC);
        cr_assert(guest_peer(alice)->held.packet, "it waits for as long as nothing is read");

        guest_expect_done(alice, guest_receive(alice));
        guest_expect_done(alice, guest_receive(alice));
        guest_expect_done(alice, guest_await(alice));
        cr_assert_eq(alice->header.serial, 3);
        cr_assert_eq(guest_peer(alice)->held.packet, NULL);
        end();
}

TEST(request, descriptors_that_can_never_be_in_flight_are_refused_at_once) {
        begin();
        account_of(alice)->max[ACCOUNT_INFLIGHT] = 2;
        for (int i = 0; i < 3; ++i)
                item_create("", 0);
        guest_expect(alice, QUOTA, LIMIT, ask_batch(alice));
        cr_assert(alice->refusal->slot == SHMD__SLOT__SLOT_INFLIGHT && alice->refusal->asked == 3);
        for (int i = 0; i < 2; ++i)
                item_create("", 0);
        guest_expect_done(alice, ask_batch(alice));
        end();
}

TEST(request, one_connection_waits_until_another_of_its_user_has_read) {
        Guest *second;
        WireHeader header;
        uint8_t payload[64];
        size_t n;

        begin();
        table_options.rules.everybody.max[ACCOUNT_INFLIGHT] = 1;
        second = guest_new(ALICE);
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        table_pass(NSEC_PER_SEC);
        REQUIRE(message_pack(REQUEST(Open, open, .path = BYTES(OWN_NAME), .rights = READ_ONLY), payload,
                             sizeof(payload), &n) == 0);
        wire_put_header(table->request, n + sizeof(WireHeader), MESSAGE_OPEN, 0, 77);
        memcpy(table->request + sizeof(WireHeader), payload, n);
        wire_get_header(table->request, &header);
        cr_assert_eq(request_dispatch(guest_peer(second), &header, table->request, &(uint64_t){ time_now() }), 0);

        cr_assert_eq(ask_open(alice, OWN_NAME, READ_ONLY), HELD);
        guest_expect_done(second, guest_receive(second));
        guest_expect_done(alice, guest_await(alice));
        second = guest_free(second);
        end();
}

/* -- names ---------------------------------------------------------------------------------------- */

static uint64_t create_nameless(Guest *guest) {
        guest_expect_done(guest, ask_create(guest, "", 4096, 0600));
        return ((const Shmd__Granted *)guest->reply)->region;
}

static uint32_t ask_publish(Guest *guest, uint64_t region, const char *path, uint32_t flags) {
        FdList kept = guest->fds;
        uint32_t r;

        guest->fds = (FdList)FDLIST_NULL;
        r = guest_ask(guest, MESSAGE_PUBLISH, REQUEST(Publish, publish, .region = region, .path = BYTES(path),
                                                      .flags = flags));
        guest->fds = kept;
        return r;
}

TEST(request, a_region_by_number_is_its_owners_business) {
        uint64_t id;

        begin();
        id = create_nameless(alice);
        guest_expect(bob, NOT_FOUND, MISSING, ask_publish(bob, id, OWN_NAME, 0));
        guest_expect(bob, NOT_FOUND, MISSING, ask_publish(bob, id + 1, OWN_NAME, 0));
        guest_expect(bob, NOT_FOUND, MISSING, guest_ask(bob, MESSAGE_STAT, REQUEST(Stat, stat, .region = id)));
        guest_expect_done(alice, ask_publish(alice, id, OWN_NAME, 0));
        guest_expect(alice, EXISTS, HAS_NAME, ask_publish(alice, id, "/other", 0));
        end();
}

static size_t n_path_by_number(Guest *guest, MessageKind kind, const ProtobufCMessage *request) {
        guest_expect_done(guest, guest_ask(guest, kind, request));
        return kind == MESSAGE_STAT ? ((const Shmd__StatReply *)guest->reply)->node->path.len :
                                      ((const Shmd__WaitReply *)guest->reply)->node->path.len;
}

TEST(request, a_region_by_number_has_no_name_where_its_owner_may_not_search) {
        uint64_t id;

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0777));
        guest_expect_done(alice, ask_mkdir(alice, "/secret", 0700));
        guest_expect_done(bob, ask_create(bob, "/d/x", 4096, 0600));
        guest_expect_done(bob, ask_stat(bob, "/d/x"));
        id = ((const Shmd__StatReply *)bob->reply)->node->region;
        cr_assert_eq(n_path_by_number(bob, MESSAGE_STAT, REQUEST(Stat, stat, .region = id)), 4);

        guest_expect_done(alice, guest_ask(alice, MESSAGE_RENAME,
                                           REQUEST(Rename, rename, .path = BYTES("/d"), .to = BYTES("/secret/plan"))));
        cr_assert_eq(n_path_by_number(bob, MESSAGE_STAT, REQUEST(Stat, stat, .region = id)), 0);
        cr_assert_eq(n_path_by_number(root, MESSAGE_STAT, REQUEST(Stat, stat, .region = id)), 14);
        cr_assert_eq(n_path_by_number(bob, MESSAGE_WAIT,
                                      REQUEST(Wait, wait, .region = id, .until = SHMD__WAIT_FOR__WAIT_UNHELD)), 0);
        end();
}

TEST(request, publishing_over_a_name_needs_replace_and_the_right_to_take_it) {
        uint64_t a, b;

        begin();
        guest_expect_done(bob, ask_create(bob, "/bob", 4096, 0600));
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0755));
        a = create_nameless(alice);
        guest_expect(alice, EXISTS, TAKEN, ask_publish(alice, a, OWN_NAME, 0));
        guest_expect(alice, DENIED, STICKY, ask_publish(alice, a, "/bob", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        guest_expect(alice, IS_DIRECTORY, TAKEN, ask_publish(alice, a, "/d", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        guest_expect_done(alice, ask_publish(alice, a, OWN_NAME, SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        guest_expect_done(alice, ask_stat(alice, OWN_NAME));
        cr_assert_eq(((const Shmd__StatReply *)alice->reply)->node->region, a);
        b = create_nameless(bob);
        guest_expect(bob, DENIED, DIRECTORY_WRITE, ask_publish(bob, b, "/d/x", 0));
        end();
}

TEST(request, names_are_taken_away_by_who_may_and_of_the_right_kind) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0755));
        guest_expect_done(alice, ask_create(alice, "/d/x", 4096, 0666));
        guest_expect(bob, DENIED, DIRECTORY_WRITE, ask_unlink(bob, "/d/x"));
        guest_expect(alice, IS_DIRECTORY, TAKEN, ask_unlink(alice, "/d"));
        guest_expect(alice, NOT_DIRECTORY, TAKEN,
                     guest_ask(alice, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES("/d/x"))));
        guest_expect(alice, NOT_EMPTY, TAKEN,
                     guest_ask(alice, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES("/d"))));
        guest_expect(alice, NOT_FOUND, MISSING, ask_unlink(alice, "/d/y"));
        guest_expect(alice, NOT_DIRECTORY, MISSING, ask_unlink(alice, "/d/x/y"));
        guest_expect(root, BUSY, ROOT, guest_ask(root, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES("/"))));
        guest_expect_done(alice, ask_unlink(alice, "/d/x"));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES("/d"))));
        end();
}

TEST(request, modes_are_changed_by_owners_and_within_their_kind) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0755));
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect(bob, DENIED, OWNER, guest_ask(bob, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(OWN_NAME),
                                                                               .mode = 0666)));
        guest_expect(alice, INVALID, MODE,
                     guest_ask(alice, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(OWN_NAME), .mode = 01000)));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES("/d"),
                                                                         .mode = 01777)));
        guest_expect(alice, INVALID, MODE, guest_ask(alice, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES("/d"),
                                                                                   .mode = 02000)));
        guest_expect(alice, INVALID, MODE, ask_mkdir(alice, "/e", 02000));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(OWN_NAME),
                                                                         .mode = 0644)));
        guest_expect_done(bob, ask_open(bob, OWN_NAME, READ_ONLY));
        end();
}

TEST(request, a_new_owner_must_be_somebody_and_able_to_pay) {
        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect(root, INVALID, MALFORMED, guest_ask(root, MESSAGE_CHOWN,
                     REQUEST(Chown, chown, .path = BYTES(OWN_NAME), .set_uid = true, .uid = UINT32_MAX)));
        guest_expect(root, INVALID, MALFORMED, guest_ask(root, MESSAGE_CHOWN,
                     REQUEST(Chown, chown, .path = BYTES(OWN_NAME), .set_gid = true, .gid = UINT32_MAX)));
        account_of(bob)->max[ACCOUNT_BYTES] = 4095;
        guest_expect(root, QUOTA, LIMIT, guest_ask(root, MESSAGE_CHOWN,
                     REQUEST(Chown, chown, .path = BYTES(OWN_NAME), .set_uid = true, .uid = BOB, .set_gid = true,
                             .gid = BOB)));
        cr_assert_eq(root->refusal->uid, BOB);
        guest_expect_done(alice, ask_stat(alice, OWN_NAME));
        cr_assert(((const Shmd__StatReply *)alice->reply)->node->uid == ALICE &&
                  ((const Shmd__StatReply *)alice->reply)->node->gid == ALICE, "neither changed");
        guest_expect_done(root, guest_ask(root, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = BYTES(OWN_NAME),
                                                                       .set_gid = true, .gid = BOB)));
        guest_expect_done(alice, ask_stat(alice, OWN_NAME));
        cr_assert_eq(((const Shmd__StatReply *)alice->reply)->node->uid, ALICE);
        cr_assert_eq(((const Shmd__StatReply *)alice->reply)->node->gid, BOB);
        end();
}

/* -- looking ---------------------------------------------------------------------------------------- */

static uint32_t ask_wait(Guest *guest, const char *path, uint64_t timeout_ns) {
        return guest_ask(guest, MESSAGE_WAIT, REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = timeout_ns));
}

TEST(request, a_wait_is_answered_when_the_name_is_there) {
        begin();
        guest_expect(bob, TIMEOUT, DEADLINE, ask_wait(bob, OWN_NAME, 0));
        cr_assert_eq(ask_wait(bob, OWN_NAME, NSEC_PER_SEC), SILENT);
        cr_assert_eq(used(bob, ACCOUNT_WATCHES), 1);
        cr_assert_eq(used(bob, ACCOUNT_PENDING), 1);
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect_done(bob, guest_receive(bob));
        cr_assert_eq(bob->header.serial, bob->serial);
        cr_assert_eq(((const Shmd__WaitReply *)bob->reply)->node->uid, ALICE);
        cr_assert_eq(used(bob, ACCOUNT_WATCHES), 0);
        guest_expect_done(bob, ask_wait(bob, OWN_NAME, 0));

        cr_assert_eq(ask_wait(bob, "/d", NSEC_PER_SEC), SILENT);
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0755));
        guest_expect_done(bob, guest_receive(bob));
        cr_assert_eq(ask_wait(bob, "/p", NSEC_PER_SEC), SILENT);
        guest_expect_done(alice, ask_publish(alice, create_nameless(alice), "/p", 0));
        guest_expect_done(bob, guest_receive(bob));
        end();
}

TEST(request, a_wait_ends_at_its_time_or_at_the_longest_allowed) {
        uint64_t before;

        begin();
        before = time_now();
        cr_assert_eq(ask_wait(bob, OWN_NAME, 10 * NSEC_PER_SEC), SILENT);
        table_pass_to(before + 10 * NSEC_PER_SEC - 1);
        cr_assert_eq(guest_receive(bob), SILENT);
        table_pass(10 * NSEC_PER_SEC);
        guest_expect(bob, TIMEOUT, DEADLINE, guest_receive(bob));
        cr_assert_eq(used(bob, ACCOUNT_PENDING), 0);
        before = time_now();
        cr_assert_eq(ask_wait(bob, OWN_NAME, UINT64_MAX), SILENT, "the sum of now and for ever does not wrap");
        table_pass_to(before + 3600 * NSEC_PER_SEC - 1);
        cr_assert_eq(guest_receive(bob), SILENT);
        table_pass(3600 * NSEC_PER_SEC);
        guest_expect(bob, TIMEOUT, DEADLINE, guest_receive(bob));
        end();
}

TEST(request, who_may_search_at_last_is_told) {
        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0755));
        cr_assert_eq(ask_wait(bob, "/d/x", NSEC_PER_SEC), SILENT);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES("/d"),
                                                                         .mode = 0700)));
        guest_expect_done(alice, ask_create(alice, "/d/x", 4096, 0600));
        cr_assert_eq(guest_receive(bob), SILENT);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES("/d"),
                                                                         .mode = 0711)));
        guest_expect_done(bob, guest_receive(bob));
        end();
}

TEST(request, a_list_comes_in_pages_that_join_without_gap_or_repeat) {
        char name[16], last[16] = "", cursor[16] = "";
        size_t n = 0;

        begin();
        for (int i = 0; i < 600; ++i) {
                (void)snprintf(name, sizeof(name), "/%03d", i);
                guest_expect_done(alice, ask_mkdir(alice, name, 0755));
        }
        for (int page = 0; page == 0 || *cursor; ++page) {
                const Shmd__ListReply *reply;

                guest_expect_done(bob, guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/"),
                                                                            .cursor = BYTES(cursor))));
                reply = (const Shmd__ListReply *)bob->reply;
                cr_assert_eq(reply->n_nodes, page < 2 ? 256 : 88);
                for (size_t i = 0; i < reply->n_nodes; ++i, ++n) {
                        (void)snprintf(name, sizeof(name), "%.*s", (int)reply->nodes[i]->path.len,
                                       (char *)reply->nodes[i]->path.data);
                        cr_assert_lt(strcmp(last, name), 0);
                        (void)strcpy(last, name);
                }
                (void)snprintf(cursor, sizeof(cursor), "%.*s", (int)reply->cursor.len, (char *)reply->cursor.data);
        }
        cr_assert_eq(n, 600);
        guest_expect_done(bob, guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/"), .limit = 3)));
        cr_assert_eq(((const Shmd__ListReply *)bob->reply)->n_nodes, 3);
        guest_expect(bob, INVALID, MALFORMED, guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/000"),
                                                                                   .cursor = BYTES("/001"))));
        end();
}

TEST(request, a_directory_is_listed_by_who_may_read_and_search_it) {
        begin();
        for (uint32_t mode = 0; mode <= 7; ++mode) {
                guest_expect_done(alice, ask_mkdir(alice, "/d", mode));
                if ((mode & 5) == 5)
                        guest_expect_done(bob, guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/d"))));
                else
                        guest_expect(bob, DENIED, DIRECTORY_READ,
                                     guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/d"))));
                guest_expect_done(alice, guest_ask(alice, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES("/d"))));
        }
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 1, 0666));
        guest_expect(bob, NOT_DIRECTORY, TAKEN,
                     guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES(OWN_NAME))));
        end();
}

TEST(request, a_stat_tells_who_holds_it) {
        const Shmd__StatReply *reply;
        FdList kept;

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 5000, 0644));
        kept = alice->fds;
        alice->fds = (FdList)FDLIST_NULL;
        guest_expect_done(alice, guest_ask(alice, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES(OWN_NAME),
                                                                       .flags = SHMD__STAT_FLAGS__STAT_HOLDERS)));
        reply = (const Shmd__StatReply *)alice->reply;
        cr_assert(reply->held && reply->held_known && reply->n_holders == 1 && reply->more == 0);
        cr_assert(reply->holders[0]->uid == ALICE && reply->holders[0]->connected);
        cr_assert(reply->holders[0]->rights == READ_WRITE && reply->holders[0]->pid == (uint32_t)getpid());
        cr_assert(reply->node->size == 5000 && reply->node->charge == 8192 && reply->node->mode == 0644);
        cr_assert(reply->node->uid == ALICE && reply->node->gid == ALICE && reply->node->grants == 1);
        fdlist_deinit(&kept);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES(OWN_NAME),
                                                                       .flags = SHMD__STAT_FLAGS__STAT_HOLDERS)));
        reply = (const Shmd__StatReply *)alice->reply;
        cr_assert(!reply->held && reply->n_holders == 0 && reply->node->grants == 0, "what is dead is off the books");
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES("/x"), .region = 1)));
        end();
}

TEST(request, a_stat_tells_whether_its_holders_are_all_known) {
        ProtobufCMessage *stat = REQUEST(Stat, stat, .path = BYTES(OWN_NAME), .flags = SHMD__STAT_FLAGS__STAT_HOLDERS);
        const Shmd__StatReply *reply;
        int passed_on;

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        passed_on = house_hold(regions_find(&table->regions, 1), false);
        guest_expect_done(bob, ask_stat(bob, OWN_NAME));
        cr_assert_eq(((const Shmd__StatReply *)bob->reply)->explained, SHMD__EXPLAINED__EXPLAINED_UNKNOWN, "not asked");
        guest_expect_done(root, guest_ask(root, MESSAGE_STAT, stat));
        cr_assert_eq(((const Shmd__StatReply *)root->reply)->explained, SHMD__EXPLAINED__EXPLAINED_GRANTS);
        fdlist_deinit(&alice->fds);
        guest_expect_done(root, guest_ask(root, MESSAGE_STAT, stat));
        reply = (const Shmd__StatReply *)root->reply;
        cr_assert(reply->held && reply->explained == SHMD__EXPLAINED__EXPLAINED_NO && reply->n_holders == 0);
        close_fd(passed_on);
        guest_expect_done(root, guest_ask(root, MESSAGE_STAT, stat));
        reply = (const Shmd__StatReply *)root->reply;
        cr_assert(!reply->held && reply->explained == SHMD__EXPLAINED__EXPLAINED_NOBODY);
        cr_assert_eq(reply->node->granted, 1);
        end();
}

static const Shmd__StatReply *stat_names(Guest *guest, const char *path) {
        guest_expect_done(guest, guest_ask(guest, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES(path),
                                                                       .flags = SHMD__STAT_FLAGS__STAT_NAMES)));
        return (const Shmd__StatReply *)guest->reply;
}

static bool is(ProtobufCBinaryData bytes, const char *string) {
        return bytes.len == strlen(string) && memcmp(bytes.data, string, bytes.len) == 0;
}

static uint32_t ask_link(Guest *guest, const char *path, const char *to) {
        return guest_ask(guest, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES(path), .to = BYTES(to)));
}

TEST(request, a_stat_has_the_names_the_asker_may_find_and_counts_the_others) {
        const Shmd__StatReply *reply;

        begin();
        guest_expect_done(alice, ask_mkdir(alice, "/open", 0755));
        guest_expect_done(alice, ask_mkdir(alice, "/closed", 0700));
        guest_expect_done(alice, ask_mkdir(alice, "/closed/in", 0777));
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0644));
        guest_expect_done(alice, ask_link(alice, OWN_NAME, "/closed/in/y"));
        guest_expect_done(alice, ask_link(alice, OWN_NAME, "/open/z"));

        reply = stat_names(alice, "/open/z");
        cr_assert(reply->n_names == 3 && reply->node->names == 3 && is(reply->node->path, "/open/z"));
        cr_assert(is(reply->names[0], OWN_NAME) && is(reply->names[1], "/closed/in/y"));
        cr_assert(is(reply->names[2], "/open/z"));
        reply = stat_names(bob, OWN_NAME);
        cr_assert(reply->n_names == 2 && reply->node->names == 3);
        cr_assert(is(reply->names[0], OWN_NAME) && is(reply->names[1], "/open/z"));
        cr_assert_eq(stat_names(root, OWN_NAME)->n_names, 3);
        cr_assert_eq(stat_names(bob, "/open")->n_names, 0, "a directory has the one it was found by");
        guest_expect_done(bob, ask_stat(bob, OWN_NAME));
        cr_assert_eq(((const Shmd__StatReply *)bob->reply)->n_names, 0, "not asked for");
        end();
}

/* A path of that many bytes below /d.../d..., numbered. */
static const char *long_path(char path[PATH_BYTES_MAX + 1], const char *base, unsigned int number) {
        size_t n = (size_t)snprintf(path, PATH_BYTES_MAX + 1, "%s/%05u", base, number);

        while (n < PATH_BYTES_MAX && n - strlen(base) < 255)
                path[n++] = 'x';
        path[n] = 0;
        return path;
}

TEST(request, of_many_and_long_names_a_stat_has_what_fits) {
        char base[PATH_BYTES_MAX + 1] = "", path[PATH_BYTES_MAX + 1];
        const Shmd__StatReply *reply;

        begin();
        for (int i = 0; i < 3; ++i) {
                (void)memset(base + strlen(base), 'd', 1);
                base[i * 255] = '/';
                for (int k = 1; k < 255; ++k)
                        base[i * 255 + k] = 'd';
                guest_expect_done(alice, ask_mkdir(alice, base, 0755));
        }
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        for (unsigned int i = 0; i < 80; ++i)
                guest_expect_done(alice, ask_link(alice, OWN_NAME, long_path(path, base, i)));
        reply = stat_names(alice, OWN_NAME);
        cr_assert_eq(reply->node->names, 81);
        cr_assert(reply->n_names > 40 && reply->n_names < 64, "48 KiB of them: %zu", reply->n_names);

        for (unsigned int i = 0; i < 80; ++i)
                guest_expect_done(alice, ask_unlink(alice, long_path(path, base, i)));
        for (unsigned int i = 0; i < 80; ++i) {
                (void)snprintf(path, sizeof(path), "/%u", i);
                guest_expect_done(alice, ask_link(alice, OWN_NAME, path));
        }
        cr_assert_eq(stat_names(alice, OWN_NAME)->n_names, 64);
        end();
}

TEST(request, a_stat_says_how_much_memory_is_allocated) {
        const Shmd__ListReply *list;

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 65536, 0600));
        REQUIRE(pwrite(alice->fds.fds[0], "x", 1, 4096) == 1);
        guest_expect_done(bob, ask_stat(bob, OWN_NAME));
        cr_assert_eq(((const Shmd__StatReply *)bob->reply)->node->allocated, 4096);
        guest_expect_done(bob, guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/"))));
        cr_assert_eq(((const Shmd__ListReply *)bob->reply)->nodes[0]->allocated, 0, "not asked for");
        guest_expect_done(bob, guest_ask(bob, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/"),
                                                                    .flags = SHMD__LIST_FLAGS__LIST_USAGE)));
        list = (const Shmd__ListReply *)bob->reply;
        cr_assert(list->n_nodes == 1 && list->nodes[0]->allocated == 4096);
        fdlist_deinit(&alice->fds);
        end();
}

static uint32_t ask_orphans(Guest *guest, uint64_t after, uint32_t limit) {
        return guest_ask(guest, MESSAGE_LIST, REQUEST(List, list, .orphan = after, .limit = limit,
                                                      .flags = SHMD__LIST_FLAGS__LIST_ORPHANS |
                                                               SHMD__LIST_FLAGS__LIST_USAGE));
}

/* Goes through all pages; requires rising numbers. Return: regions listed. */
static size_t count_orphans(Guest *guest, uint32_t limit, size_t *ret_pages) {
        uint64_t last = 0, after = 0;
        size_t n = 0;

        *ret_pages = 0;
        do {
                const Shmd__ListReply *reply;

                guest_expect_done(guest, ask_orphans(guest, after, limit));
                reply = (const Shmd__ListReply *)guest->reply;
                for (size_t i = 0; i < reply->n_nodes; ++i, ++n) {
                        REQUIRE(reply->nodes[i]->region > last && reply->nodes[i]->path.len == 0);
                        REQUIRE(reply->nodes[i]->names == 0);
                        last = reply->nodes[i]->region;
                }
                REQUIRE(reply->orphan == 0 || reply->orphan > after);
                after = reply->orphan;
                ++*ret_pages;
        } while (after != 0);
        return n;
}

TEST(request, regions_without_a_name_are_listed_to_their_owners_by_number) {
        FdList kept[5];
        size_t pages;

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0644));
        for (int i = 0; i < 5; ++i) {
                (void)create_nameless(i == 3 ? bob : alice);
                kept[i] = (i == 3 ? bob : alice)->fds;
                (i == 3 ? bob : alice)->fds = (FdList)FDLIST_NULL;
        }
        cr_assert_eq(count_orphans(alice, 0, &pages), 4);
        cr_assert_eq(pages, 1);
        cr_assert_eq(count_orphans(bob, 0, &pages), 1);
        cr_assert_eq(count_orphans(root, 0, &pages), 5);
        cr_assert_eq(count_orphans(alice, 2, &pages), 4);
        cr_assert_eq(pages, 2);
        guest_expect_done(alice, guest_ask(alice, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/"))));
        cr_assert_eq(((const Shmd__ListReply *)alice->reply)->n_nodes, 1, "they are in no directory");
        for (int i = 0; i < 5; ++i)
                fdlist_deinit(&kept[i]);
        end();
}

TEST(request, a_page_of_orphans_costs_no_more_where_others_have_many_regions) {
        char name[16];
        FdList kept;
        size_t pages;

        begin();
        for (unsigned int i = 0; i < 1500; ++i) {
                (void)snprintf(name, sizeof(name), "/%u", i);
                guest_expect_done(alice, ask_create(alice, name, 0, 0600));
                fdlist_deinit(&alice->fds);
        }
        (void)create_nameless(bob);
        kept = bob->fds;
        bob->fds = (FdList)FDLIST_NULL;
        cr_assert_eq(count_orphans(bob, 0, &pages), 1);
        cr_assert_eq(pages, 3, "512 looked at for each");
        fdlist_deinit(&kept);
        end();
}

TEST(request, lists_by_name_and_by_number_do_not_mix) {
        const uint32_t orphans = SHMD__LIST_FLAGS__LIST_ORPHANS;

        begin();
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_LIST, REQUEST(List, list, .flags = orphans, .path = BYTES("/"))));
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_LIST, REQUEST(List, list, .flags = orphans, .cursor = BYTES("/"))));
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_LIST, REQUEST(List, list,
                                                            .flags = orphans | SHMD__LIST_FLAGS__LIST_RECURSIVE)));
        guest_expect(alice, INVALID, MALFORMED,
                     guest_ask(alice, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/"), .orphan = 1)));
        guest_expect_done(alice, ask_orphans(alice, UINT64_MAX, 0));
        cr_assert_eq(((const Shmd__ListReply *)alice->reply)->orphan, 0);
        end();
}

TEST(request, the_doctor_tells_anybody_what_is_missing_and_what_follows) {
        const Shmd__DoctorReply *reply;

        table_defaults();
        table_options.landlock = true;
        table_options.descriptors = 1234;
        table_options.kept_by = "keeper";
        table_options.restarts = 5;
        table_options.last_end = "signal SEGV";
        begin();
        probe_force(PROBE_MARKER, false);
        guest_expect_done(bob, guest_ask(bob, MESSAGE_DOCTOR, REQUEST(Doctor, doctor)));
        reply = (const Shmd__DoctorReply *)bob->reply;
        cr_assert_eq(reply->n_features, _PROBE_N);
        for (unsigned int i = 0; i < _PROBE_N; ++i) {
                cr_assert(is(reply->features[i]->name, probe_name(i)));
                cr_assert(is(reply->features[i]->consequence, probe_consequence(i)));
                cr_assert_eq(reply->features[i]->have, probe_have(i));
        }
        cr_assert(!reply->features[PROBE_MARKER]->have);
        cr_assert(reply->landlock && reply->descriptors == 1234 && is(reply->broker, "test"));
        cr_assert_eq(reply->regions, QUOTA_UNLIMITED);
        cr_assert_eq(reply->inotify_overflows, 0);
        cr_assert(is(reply->kept_by, "keeper") && is(reply->last_end, "signal SEGV"));
        cr_assert_eq(reply->restarts, 5);
        end();
}

TEST(request, who_holds_it_is_for_who_may_read_it) {
        ProtobufCMessage *stat = REQUEST(Stat, stat, .path = BYTES(OWN_NAME), .flags = SHMD__STAT_FLAGS__STAT_HOLDERS);

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect(bob, DENIED, REGION_READ, guest_ask(bob, MESSAGE_STAT, stat));
        guest_expect_done(bob, ask_stat(bob, OWN_NAME));
        guest_expect_done(root, guest_ask(root, MESSAGE_STAT, stat));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_CHMOD,
                                           REQUEST(Chmod, chmod, .path = BYTES(OWN_NAME), .mode = 0004)));
        guest_expect_done(bob, guest_ask(bob, MESSAGE_STAT, stat));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_STAT, stat));
        end();
}

TEST(request, accounts_are_shown_to_their_users_and_to_administrators) {
        const Shmd__DfReply *reply;

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 5000, 0644));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_DF, REQUEST(Df, df)));
        reply = (const Shmd__DfReply *)alice->reply;
        cr_assert(reply->n_accounts == 1 && reply->accounts[0]->uid == ALICE && reply->accounts[0]->n_slots == 7);
        cr_assert_eq(reply->accounts[0]->slots[0]->used, 8192);
        cr_assert_eq(reply->accounts[0]->slots[3]->used, 1);
        cr_assert_eq(reply->accounts[0]->granted, 1);
        guest_expect(bob, DENIED, ADMIN, guest_ask(bob, MESSAGE_DF, REQUEST(Df, df, .set_uid = true, .uid = ALICE)));
        guest_expect_done(root, guest_ask(root, MESSAGE_DF, REQUEST(Df, df, .set_uid = true, .uid = ALICE)));
        guest_expect_done(root, guest_ask(root, MESSAGE_DF, REQUEST(Df, df, .set_uid = true, .uid = 12345)));
        reply = (const Shmd__DfReply *)root->reply;
        cr_assert_eq(reply->accounts[0]->slots[0]->limit, table_options.rules.everybody.max[0]);
        guest_expect(bob, DENIED, ADMIN,
                     guest_ask(bob, MESSAGE_DF, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNTS)));
        guest_expect_done(root, guest_ask(root, MESSAGE_DF, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNTS)));
        reply = (const Shmd__DfReply *)root->reply;
        cr_assert(reply->n_accounts == 3 && !reply->more);
        cr_assert(reply->accounts[0]->uid == 0 && reply->accounts[1]->uid == ALICE && reply->accounts[2]->uid == BOB);
        guest_expect_done(bob, guest_ask(bob, MESSAGE_DF, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_TOTAL)));
        cr_assert_eq(((const Shmd__DfReply *)bob->reply)->accounts[0]->slots[0]->used, 8192);
        guest_expect_done(bob, guest_ask(bob, MESSAGE_DF, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_DIRECTORY,
                                                                  .path = BYTES("/"))));
        cr_assert(((const Shmd__DfReply *)bob->reply)->accounts[0]->n_slots == 2);
        guest_expect(bob, INVALID, MALFORMED, guest_ask(bob, MESSAGE_DF, REQUEST(Df, df, .scope = 4)));
        end();
}

TEST(request, the_figures_count_what_was_answered_and_what_was_refused) {
        const Shmd__StatsReply *reply;

        begin();
        guest_expect_done(alice, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect(alice, EXISTS, TAKEN, ask_create(alice, OWN_NAME, 4096, 0600));
        guest_expect(bob, NOT_FOUND, MISSING, ask_unlink(bob, "/nope"));
        guest_expect_done(bob, guest_ask(bob, MESSAGE_STATS, REQUEST(Stats, stats)));
        reply = (const Shmd__StatsReply *)bob->reply;
        cr_assert(reply->regions == 1 && reply->named == 1 && reply->orphans == 0 && reply->bytes == 4096);
        cr_assert(reply->grants == 1 && reply->peers == 3 && reply->directories == 1 && reply->violations == 0);
        cr_assert_eq(reply->n_requests, _MESSAGE_N - 1);
        cr_assert(reply->requests[MESSAGE_CREATE - 1]->count == 2 && reply->requests[MESSAGE_CREATE - 1]->refused == 1);
        cr_assert(reply->requests[MESSAGE_HELLO - 1]->count == 3 && reply->requests[MESSAGE_HELLO - 1]->refused == 0);
        cr_assert_eq(reply->n_refusals, 2);
        end();
}
