/* daemon/broker/request-upgrade: a broker that asks for the next one. */

#include "daemon-table.h"

static unsigned int n_asked;

static void ask_keeper(void) {
        ++n_asked;
}

static uint32_t ask_upgrade(Guest *guest) {
        return guest_ask(guest, MESSAGE_UPGRADE, REQUEST(Upgrade, upgrade));
}

static void open_with_keeper(void) {
        table_defaults();
        n_asked = 0;
        table_options.upgrade = ask_keeper;
        table_open();
}

TEST(request_upgrade, without_a_keeper_there_is_none) {
        Guest *root;

        table_open();
        root = guest_new(0);
        guest_expect(root, UNSUPPORTED, KEEPER, ask_upgrade(root));
        root = guest_free(root);
        table_close();
}

TEST(request_upgrade, only_an_administrator_may) {
        Guest *alice;

        open_with_keeper();
        alice = guest_new(ALICE);
        guest_expect(alice, DENIED, ADMIN, ask_upgrade(alice));
        cr_assert_eq(n_asked, 0);
        alice = guest_free(alice);
        table_close();
}

TEST(request_upgrade, the_answer_comes_when_the_broker_is_to_stop) {
        Guest *root, *other;

        open_with_keeper();
        root = guest_new(0);
        other = guest_new(0);
        cr_assert_eq(ask_upgrade(root), SILENT);
        cr_assert_eq(ask_upgrade(other), SILENT);
        cr_assert_eq(n_asked, 2);
        guest_expect(root, BUSY, KEEPER, ask_upgrade(root));
        upgrades_begin(table);
        cr_assert_eq(guest_receive(root), ANSWERED);
        cr_assert_eq(guest_receive(other), ANSWERED);
        root = guest_free(root);
        other = guest_free(other);
        table_close();
}

TEST(request_upgrade, nothing_comes_of_it_and_it_may_be_asked_for_again) {
        Guest *root;

        open_with_keeper();
        root = guest_new(0);
        for (int i = 0; i < 3; ++i) {
                cr_assert_eq(ask_upgrade(root), SILENT);
                upgrades_refuse(table);
                guest_expect(root, INVALID, KEEPER, guest_receive(root));
        }
        upgrades_refuse(table);
        upgrades_begin(table);
        cr_assert_eq(guest_receive(root), SILENT);
        root = guest_free(root);
        table_close();
}

TEST(request_upgrade, a_keeper_that_says_nothing_is_not_waited_for_for_ever) {
        Guest *root;

        open_with_keeper();
        root = guest_new(0);
        cr_assert_eq(ask_upgrade(root), SILENT);
        table_pass(3600 * NSEC_PER_SEC);
        guest_expect(root, TIMEOUT, DEADLINE, guest_receive(root));
        root = guest_free(root);
        table_close();
}

TEST(request_upgrade, whoever_asked_may_go) {
        Guest *root;

        open_with_keeper();
        root = guest_new(0);
        cr_assert_eq(ask_upgrade(root), SILENT);
        root = guest_free(root);
        upgrades_begin(table);
        table_close();
}
