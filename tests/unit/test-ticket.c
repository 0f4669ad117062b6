/* daemon/core/ticket: strings that are good for a grant. */

#include "daemon-house.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "core/ticket.h"

static House house;
static Tickets tickets;
static Account *alice, *owner;
static Region *region;

static void begin(void) {
        house_open(&house);
        tickets_init(&tickets, &house.deadlines);
        alice = house_account(&house, ALICE);
        owner = house_account(&house, BOB);
        region = house_named(&house, owner, "/x", 8192);
}

static void end(void) {
        alice = account_unref(alice);
        owner = account_unref(owner);
        house_close(&house);
        tickets_deinit(&tickets);
}

static TicketSpec good_for(uint32_t uses) {
        return (TicketSpec){ .uses = uses, .until = time_now() + 3600 * NSEC_PER_SEC };
}

static Ticket *issue(char text[TICKET_TEXT_BYTES], uint32_t uses) {
        TicketSpec spec = good_for(uses);
        Ticket *ticket;

        REQUIRE(ticket_new(&ticket, text, &tickets, region, owner, &spec, NULL) == 0);
        return ticket;
}

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

TEST(ticket, its_text_is_a_prefix_and_256_bits_that_any_program_can_carry) {
        char text[TICKET_TEXT_BYTES];

        begin();
        (void)issue(text, 1);
        cr_assert_eq(TICKET_TEXT_BYTES, 6 + 43);
        cr_assert_eq(memcmp(text, "shmdt_", 6), 0);
        for (size_t i = 6; i < TICKET_TEXT_BYTES; ++i)
                cr_assert(text[i] && strchr(letters, text[i]));
        end();
}

enum { DRAWN = 1024, TICKET_BITS = 256 };

/* Bit by bit, a column each: what the tickets drawn so far had there. */
static void note_bits(uint64_t columns[TICKET_BITS][DRAWN / 64], size_t nth, const char text[TICKET_TEXT_BYTES]) {
        for (size_t i = 0; i < TICKET_TEXT_BYTES - 6; ++i) {
                uint64_t letter = (uint64_t)(strchr(letters, text[6 + i]) - letters);

                for (size_t bit = 0; bit < 6; ++bit) {
                        size_t at = 6 * i + bit;
                        uint64_t value = letter >> (5 - bit) & 1;

                        if (at < TICKET_BITS)
                                columns[at][nth / 64] |= value << nth % 64;
                        else
                                cr_assert_eq(value, 0, "43 letters have two bits more than 256");
                }
        }
}

/* Not that every letter is seen: with luck, one is not among a thousand tickets. But no bit is ever
 * the same, nor bound to another one: each pair takes all four values. That they do not by chance is
 * less likely than 32640 * 4 * (3/4)^1024, or 1e-122. */
TEST(ticket, every_bit_of_it_is_drawn) {
        static char texts[DRAWN][TICKET_TEXT_BYTES];
        static uint64_t columns[TICKET_BITS][DRAWN / 64];

        begin();
        for (size_t i = 0; i < DRAWN; ++i) {
                (void)ticket_free(issue(texts[i], 1));
                note_bits(columns, i, texts[i]);
        }
        for (size_t a = 0; a < TICKET_BITS; ++a)
                for (size_t b = 0; b < a; ++b) {
                        uint64_t values[4] = { 0 };

                        for (size_t i = 0; i < DRAWN / 64; ++i) {
                                values[0] |= ~columns[a][i] & ~columns[b][i];
                                values[1] |= ~columns[a][i] & columns[b][i];
                                values[2] |= columns[a][i] & ~columns[b][i];
                                values[3] |= columns[a][i] & columns[b][i];
                        }
                        for (unsigned int k = 0; k < 4; ++k)
                                cr_assert(values[k] != 0, "bits %zu and %zu are never %u and %u", a, b, k / 2, k % 2);
                }
        for (size_t i = 0; i < DRAWN; ++i)
                for (size_t k = 0; k < i; ++k)
                        cr_assert_neq(memcmp(texts[i], texts[k], TICKET_TEXT_BYTES), 0);
        end();
}

TEST(ticket, what_is_kept_of_it_is_its_sha_256) {
        char text[TICKET_TEXT_BYTES];
        const uint8_t *bytes;
        Ticket *ticket;

        begin();
        ticket = issue(text, 1);
        bytes = (const uint8_t *)ticket;
        for (size_t i = 0; i + 8 <= sizeof(*ticket); ++i)
                cr_assert_neq(memcmp(bytes + i, text + 6, 8), 0, "eight letters of it at byte %zu", i);
        end();
}

TEST(ticket, it_is_found_by_its_very_text_alone) {
        char text[TICKET_TEXT_BYTES + 1];
        Ticket *ticket;

        begin();
        ticket = issue(text, 1);
        (void)issue((char[TICKET_TEXT_BYTES]){ 0 }, 1);
        text[TICKET_TEXT_BYTES] = 'A';
        cr_assert_eq(tickets_find(&tickets, text, TICKET_TEXT_BYTES), ticket);
        cr_assert_null(tickets_find(&tickets, text, TICKET_TEXT_BYTES - 1));
        cr_assert_null(tickets_find(&tickets, text, TICKET_TEXT_BYTES + 1));
        cr_assert_null(tickets_find(&tickets, NULL, 0));
        for (size_t i = 0; i < TICKET_TEXT_BYTES; ++i)
                for (unsigned int bit = 0; bit < 8; ++bit) {
                        text[i] = (char)(text[i] ^ 1 << bit);
                        cr_assert_null(tickets_find(&tickets, text, TICKET_TEXT_BYTES));
                        text[i] = (char)(text[i] ^ 1 << bit);
                }
        cr_assert_eq(tickets_find(&tickets, text, TICKET_TEXT_BYTES), ticket);
        end();
}

TEST(ticket, with_another_text_it_is_the_same_ticket_and_the_old_one_is_none) {
        char first[TICKET_TEXT_BYTES], second[TICKET_TEXT_BYTES], none[TICKET_TEXT_BYTES];
        Ticket *ticket;
        uint64_t id;

        begin();
        ticket = issue(first, 2);
        id = ticket->id;
        ticket_spend(ticket);
        cr_assert_eq(ticket_renew(ticket, second), 0);
        cr_assert_eq(ticket_draw(none), 0);
        cr_assert_null(tickets_find(&tickets, first, TICKET_TEXT_BYTES));
        cr_assert_null(tickets_find(&tickets, none, TICKET_TEXT_BYTES));
        cr_assert_eq(tickets_find(&tickets, second, TICKET_TEXT_BYTES), ticket);
        cr_assert(ticket->id == id && ticket->left == 1 && tickets.n == 1);
        end();
}

TEST(ticket, it_is_good_for_exactly_its_uses) {
        char text[TICKET_TEXT_BYTES];

        begin();
        (void)issue(text, 3);
        for (unsigned int i = 0; i < 3; ++i) {
                Ticket *ticket = tickets_find(&tickets, text, sizeof(text));

                cr_assert(ticket && ticket->left == 3 - i);
                ticket_spend(ticket);
        }
        cr_assert_null(tickets_find(&tickets, text, sizeof(text)));
        cr_assert(tickets.n == 0 && region_more(region)->tickets.n == 0);
        end();
}

TEST(ticket, it_costs_its_issuer_a_pending_request_until_it_is_over) {
        TicketSpec spec = good_for(1);
        char text[TICKET_TEXT_BYTES];
        Ticket *ticket = NULL;
        Shortage s;

        begin();
        alice->max[ACCOUNT_PENDING] = 1;
        REQUIRE(ticket_new(&ticket, text, &tickets, region, alice, &spec, &s) == 0);
        cr_assert(alice->used[ACCOUNT_PENDING] == 1 && owner->used[ACCOUNT_PENDING] == 0);
        ticket = NULL;
        cr_assert_eq(ticket_new(&ticket, text, &tickets, region, alice, &spec, &s), TICKET_E_QUOTA);
        cr_assert(s.slot == ACCOUNT_PENDING && s.limit == 1 && s.left == 0 && s.asked == 1);
        cr_assert(ticket == NULL && tickets.n == 1 && region_more(region)->tickets.n == 1);
        cr_assert_null(tickets_find(&tickets, text, sizeof(text)), "one that was refused is good for nothing");
        ticket_spend(region_tickets_after(region, 0));
        cr_assert_eq(alice->used[ACCOUNT_PENDING], 0);
        end();
}

TEST(ticket, its_time_ends_it) {
        char text[TICKET_TEXT_BYTES], other[TICKET_TEXT_BYTES];
        TicketSpec spec = { .uses = 5, .until = 1000 };
        Ticket *ticket;

        begin();
        REQUIRE(ticket_new(&ticket, text, &tickets, region, owner, &spec, NULL) == 0);
        spec.until = 1001;
        REQUIRE(ticket_new(&ticket, other, &tickets, region, owner, &spec, NULL) == 0);
        deadlines_run(&house.deadlines, 999);
        cr_assert_eq(tickets.n, 2);
        deadlines_run(&house.deadlines, 1000);
        cr_assert_null(tickets_find(&tickets, text, sizeof(text)));
        cr_assert_eq(tickets_find(&tickets, other, sizeof(other)), ticket);
        deadlines_run(&house.deadlines, 1001);
        cr_assert(tickets.n == 0 && owner->used[ACCOUNT_PENDING] == 0);
        end();
}

TEST(ticket, one_for_a_user_admits_that_user_alone) {
        TicketSpec spec = good_for(1);
        Ticket ticket = { .spec = spec };

        for (uid_t uid = 0; uid < 10; ++uid)
                cr_assert(ticket_admits(&ticket, uid));
        ticket.spec.one_user = true;
        ticket.spec.uid = 7;
        for (uid_t uid = 0; uid < 10; ++uid)
                cr_assert_eq(ticket_admits(&ticket, uid), uid == 7);
        ticket.spec.uid = 0;
        cr_assert(ticket_admits(&ticket, 0) && !ticket_admits(&ticket, 1));
}

TEST(ticket, it_keeps_no_region_alive_and_ends_with_it) {
        char text[TICKET_TEXT_BYTES];
        int fd;

        begin();
        (void)issue(text, 10);
        (void)issue((char[TICKET_TEXT_BYTES]){ 0 }, 10);
        fd = house_hold(region, false);
        region_unlink(region);
        house_turn(&house);
        cr_assert(tickets.n == 2 && tickets_find(&tickets, text, sizeof(text)), "somebody still holds it");
        fd = close_fd(fd);
        house_until(&house, house.regions.n == 0);
        cr_assert(tickets.n == 0 && owner->used[ACCOUNT_PENDING] == 0 && owner->used[ACCOUNT_BYTES] == 0);
        cr_assert_null(tickets_find(&tickets, text, sizeof(text)));
        end();
}

TEST(ticket, those_of_a_named_region_that_nobody_holds_end_with_its_name) {
        begin();
        (void)issue((char[TICKET_TEXT_BYTES]){ 0 }, 1);
        region_unlink(region);
        cr_assert_eq(tickets.n, 0);
        end();
}

TEST(ticket, a_new_owner_is_not_bound_by_those_of_the_old_one) {
        Shortage shortage;

        begin();
        (void)issue((char[TICKET_TEXT_BYTES]){ 0 }, 1);
        alice->max[ACCOUNT_BYTES] = 0;
        cr_assert_eq(region_chown(region, alice, &shortage), REGION_E_QUOTA);
        cr_assert_eq(tickets.n, 1, "the owner is the old one");
        alice->max[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
        cr_assert_eq(region_chown(region, alice, &shortage), 0);
        cr_assert(tickets.n == 0 && owner->used[ACCOUNT_PENDING] == 0);
        end();
}

TEST(ticket, those_of_a_region_are_walked_by_number_and_ended_together) {
        Ticket *ticket[5], *other;
        TicketSpec spec = good_for(1);
        char text[TICKET_TEXT_BYTES];
        Region *second;

        begin();
        second = house_named(&house, owner, "/y", 1);
        for (unsigned int i = 0; i < 5; ++i) {
                ticket[i] = issue(text, 1);
                REQUIRE(ticket_new(&other, text, &tickets, second, owner, &spec, NULL) == 0);
        }
        cr_assert_eq(region_tickets_after(region, 0), ticket[0]);
        for (unsigned int i = 0; i < 4; ++i)
                cr_assert_eq(region_tickets_after(region, ticket[i]->id), ticket[i + 1]);
        cr_assert_null(region_tickets_after(region, ticket[4]->id));
        cr_assert_null(region_tickets_after(region, UINT64_MAX));
        cr_assert_eq(tickets_find_id(&tickets, ticket[2]->id), ticket[2]);
        cr_assert_null(tickets_find_id(&tickets, 0));
        (void)ticket_free(ticket[2]);
        cr_assert_eq(region_tickets_after(region, ticket[1]->id), ticket[3]);
        cr_assert_eq(region_tickets_clear(region), 4);
        cr_assert_eq(region_tickets_clear(region), 0);
        cr_assert_eq(tickets.n, 5);
        cr_assert_eq(ticket_free(NULL), NULL);
        end();
}

TEST(ticket, a_region_has_a_bounded_number_of_them) {
        TicketSpec spec = good_for(1);
        char text[TICKET_TEXT_BYTES];
        Ticket *ticket = NULL;

        begin();
        for (unsigned int i = 0; i < TICKETS_OF_REGION_MAX; ++i)
                ticket = issue(text, 1);
        cr_assert_eq(ticket_new(&(Ticket *){ NULL }, text, &tickets, region, owner, &spec, NULL), TICKET_E_TOO_MANY);
        (void)ticket_free(ticket);
        (void)issue(text, 1);
        end();
}

static int without_randomness(void *userdata) {
        TicketSpec spec = good_for(1);
        char text[TICKET_TEXT_BYTES];
        Ticket *ticket = NULL;

        begin();
        house_deny(ENOSYS, SCMP_SYS(getrandom), 0, NULL);
        REQUIRE(ticket_new(&ticket, text, &tickets, region, owner, &spec, NULL) == -EIO && !ticket);
        end();
        return 0;
}

TEST(ticket, without_randomness_there_is_none) {
        house_expect_child(without_randomness, NULL);
}

static int end_with_tickets(void *userdata) {
        begin();
        (void)issue((char[TICKET_TEXT_BYTES]){ 0 }, 1);
        tickets_deinit(&tickets);
        return 0;
}

TEST(ticket, one_that_is_left_at_the_end_is_a_bug) {
        house_expect_signal(SIGABRT, end_with_tickets, NULL);
}
