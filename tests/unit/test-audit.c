/* daemon/broker/audit: every refusal in fields and in words, and a log that cannot be filled. */

#include "daemon-house.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/audit.h"
#include "util/log.h"

static Accounts accounts;
static Account *alice;
static Voice *voice;        /* alice's */
static int log_fd;
static uint64_t began;

static void begin(void) {
        static Rules rules = { .global.slots = LIMITS_ALL, .everybody.slots = LIMITS_ALL };

        began = time_now();
        memset(rules.global.max, 0xff, sizeof(rules.global.max));
        memset(rules.everybody.max, 0xff, sizeof(rules.everybody.max));
        accounts_init(&accounts, &rules);
        REQUIRE(accounts_ref_user(&accounts, ALICE, &alice) == 0);
        voice = accounts_voice(&accounts, ALICE);
        log_fd = memfd_create("log", MFD_CLOEXEC);
        REQUIRE(log_fd >= 0 && log_open(log_fd) == 0);
}

static void end(void) {
        log_close();
        log_fd = close_fd(log_fd);
        alice = account_unref(alice);
        accounts_deinit(&accounts);
}

static const char *logged(void) {
        static char text[1 << 16];
        ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

        text[n > 0 ? n : 0] = '\0';
        return text;
}

static size_t lines(void) {
        size_t n = 0;

        for (const char *at = logged(); (at = strchr(at, '\n')); ++at)
                ++n;
        return n;
}

/* So many, and the two a second that a slow machine has time for. */
static size_t at_most(size_t n) {
        return n + (time_now() - began) / (NSEC_PER_SEC / 2);
}

/* -- words --------------------------------------------------------------------------------- */

TEST(audit, every_error_and_reason_has_a_name_of_its_own) {
        for (uint32_t i = 0; i <= SHMD__ERROR__ERROR_SHUTDOWN; ++i)
                for (uint32_t k = 0; k < i; ++k)
                        cr_assert_str_neq(audit_error_name(i), audit_error_name(k));
        for (uint32_t i = 0; i <= SHMD__REASON__REASON_SERIAL; ++i)
                for (uint32_t k = 0; k < i; ++k)
                        cr_assert_str_neq(message_reason_name(i), message_reason_name(k));
        cr_assert_str_eq(audit_error_name(SHMD__ERROR__ERROR_SHUTDOWN + 1), "unknown");
        cr_assert_str_eq(message_reason_name(SHMD__REASON__REASON_SERIAL + 1), "unknown");
        cr_assert_str_eq(audit_error_name(UINT32_MAX), "unknown");
}

TEST(audit, slots_count_from_one_on_the_wire) {
        static const char *const names[] = { "none", "bytes", "regions", "grants", "peers", "watches", "pending",
                                             "inflight" };

        for (uint32_t i = 0; i < 8; ++i)
                cr_assert_str_eq(audit_slot_name(i), names[i]);
        cr_assert_str_eq(audit_slot_name(8), "none");
        cr_assert_eq(SHMD__SLOT__SLOT_BYTES, ACCOUNT_BYTES + 1);
        cr_assert_eq(SHMD__SLOT__SLOT_INFLIGHT, ACCOUNT_INFLIGHT + 1);
}

TEST(audit, a_shortage_says_whose_limit_which_slot_and_how_much) {
        Shortage shortage = { .uid = ALICE, .slot = ACCOUNT_BYTES, .asked = 8192, .left = 4096, .limit = 10000 };
        Refusal refusal;

        begin();
        shortage.kind = ACCOUNT_USER;
        audit_shortage(&refusal, &shortage, "/x", 2);
        cr_assert(refusal.error == SHMD__ERROR__ERROR_QUOTA && refusal.reason == SHMD__REASON__REASON_LIMIT);
        cr_assert(refusal.slot == SHMD__SLOT__SLOT_BYTES && refusal.uid == ALICE);
        cr_assert(refusal.asked == 8192 && refusal.left == 4096 && refusal.limit == 10000);
        cr_assert_str_eq(refusal.sentence, "over quota: the limit of uid 64101 is 10000 bytes, 4096 left, 8192 asked");

        shortage.share = true;
        shortage.kind = ACCOUNT_POOL;
        audit_shortage(&refusal, &shortage, "/x", 2);
        cr_assert_eq(refusal.reason, SHMD__REASON__REASON_SHARE);
        cr_assert_str_eq(refusal.sentence,
                         "over quota: the fair share of uid 64101 is 10000 bytes, 4096 left, 8192 asked");

        shortage = (Shortage){ .kind = ACCOUNT_DIRECTORY, .uid = (uid_t)-1, .slot = ACCOUNT_REGIONS, .asked = 1,
                               .limit = 3 };
        audit_shortage(&refusal, &shortage, "/d", 2);
        cr_assert_eq(refusal.reason, SHMD__REASON__REASON_DIRECTORY_LIMIT);
        cr_assert_str_eq(refusal.sentence, "over quota: the directory's limit is 3 regions, 0 left, 1 asked");
        end();
}

TEST(audit, what_the_tree_says_becomes_an_error_and_a_reason) {
        static const struct {
                int r;
                bool sticky;
                uint32_t error, reason;
        } cases[] = {
                { TREE_E_NAME, false, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_NAME },
                { TREE_E_MISSING, false, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING },
                { TREE_E_NOT_DIRECTORY, false, SHMD__ERROR__ERROR_NOT_DIRECTORY, SHMD__REASON__REASON_MISSING },
                { TREE_E_ROOT, false, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_ROOT },
                { TREE_E_DENIED, false, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH },
                { TREE_E_DENIED, true, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_STICKY },
        };
        Spot spot = { .path = "/a/b/c", .n_path = 6, .decided = 4, .name_error = PATH_BIDI };

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
                Refusal refusal;

                audit_tree(&refusal, cases[i].r, &spot, cases[i].sticky);
                cr_assert_eq(refusal.error, cases[i].error, "%zu", i);
                cr_assert_eq(refusal.reason, cases[i].reason, "%zu", i);
                cr_assert_gt(strlen(refusal.sentence), 0);
                if (cases[i].r == TREE_E_NAME)
                        cr_assert_eq(refusal.n_thing, 0, "what is no name is not repeated");
                else if (cases[i].r != TREE_E_ROOT)
                        cr_assert(refusal.n_thing == 4 && refusal.thing == spot.path, "only what decided is named");
        }
}

TEST(audit, what_goes_on_the_wire_is_the_whole_refusal) {
        Refusal refusal = { .error = 1, .reason = 2, .thing = "/x", .n_thing = 2, .slot = 3, .uid = 4, .asked = 5,
                            .left = 6, .limit = 7, .index = 8, .sentence = "sentence" };
        Shmd__Refusal message;

        audit_message(&refusal, &message);
        cr_assert(message.error == 1 && message.reason == 2 && message.slot == 3 && message.uid == 4);
        cr_assert(message.asked == 5 && message.left == 6 && message.limit == 7 && message.index == 8);
        cr_assert(message.thing.len == 2 && message.sentence.len == 8 && !memcmp(message.sentence.data, "sentence", 8));
}

TEST(audit, sentences_are_cut_and_never_run_over) {
        char long_text[1000];
        Refusal refusal;

        memset(long_text, 'x', sizeof(long_text));
        long_text[999] = '\0';
        audit_refuse(&refusal, 1, 1, NULL, 0, "%s", long_text);
        cr_assert_eq(strlen(refusal.sentence), 255);
        audit_refuse(&refusal, 1, 1, "%n%s", 4, "nothing of %s is a format", "%n%s");
        cr_assert_str_eq(refusal.sentence, "nothing of %n%s is a format");
}

/* -- the log --------------------------------------------------------------------------------- */

TEST(audit, a_refusal_is_one_line_with_everything_in_it) {
        Refusal refusal;

        begin();
        audit_refuse(&refusal, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH, "/a\nevent=x", 10, "no search");
        audit_log(&refusal, alice, 3, 77, "open");
        cr_assert_str_eq(logged(),
                         "event=refused uid=64101 pid=77 peer=3 request=open error=denied reason=directory-search "
                                   "thing=\"/a\\x0aevent=x\" message=\"no search\"\n");
        end();
}

TEST(audit, a_shortage_is_said_once_until_it_recovers) {
        Shortage shortage = { .uid = ALICE, .kind = ACCOUNT_USER, .slot = ACCOUNT_PEERS, .asked = 1, .limit = 5 };
        Charge charge = CHARGE_NULL;
        Refusal refusal;

        begin();
        audit_shortage(&refusal, &shortage, NULL, 0);
        for (int i = 0; i < 10; ++i)
                audit_log(&refusal, alice, 0, 77, "connect");
        cr_assert_eq(lines(), 1);
        cr_assert_neq(strstr(logged(), " reason=limit slot=peers account=64101 asked=1 left=0 limit=5 "), NULL);

        shortage.slot = ACCOUNT_BYTES;
        audit_shortage(&refusal, &shortage, NULL, 0);
        audit_log(&refusal, alice, 0, 77, "create");
        cr_assert_eq(lines(), 2, "another slot is another shortage");

        REQUIRE(account_charge(alice, &(Cost){ .slots = { [ACCOUNT_BYTES] = 1 } }, &charge, NULL) == 0);
        charge_release(&charge);
        audit_log(&refusal, alice, 0, 77, "create");
        audit_log(&refusal, alice, 0, 77, "create");
        cr_assert_eq(lines(), 3);
        end();
}

TEST(audit, one_user_writes_twenty_lines_at_once_and_then_two_a_second) {
        Refusal refusal;
        size_t n;

        begin();
        audit_refuse(&refusal, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH, NULL, 0, "no");
        for (int i = 0; i < 1000; ++i)
                audit_log(&refusal, alice, 0, 77, "open");
        cr_assert_geq(lines(), 20);
        cr_assert_leq(lines(), at_most(20));
        cr_assert_eq(voice->suppressed, 1000 - lines());

        /* A second later. */
        n = lines();
        voice->tokens = 0;
        voice->suppressed = 980;
        began = time_now();
        voice->refill_at = began - NSEC_PER_SEC;
        for (int i = 0; i < 10; ++i)
                audit_log(&refusal, alice, 0, 77, "open");
        cr_assert_neq(strstr(logged(), " suppressed_before=980\n"), NULL, "what was left out is counted");
        cr_assert_geq(lines(), n + 2);
        cr_assert_leq(lines(), at_most(n + 2));
        end();
}

TEST(audit, a_quiet_day_saves_no_more_than_the_twenty) {
        Refusal refusal;

        begin();
        audit_refuse(&refusal, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH, NULL, 0, "no");
        audit_log(&refusal, alice, 0, 77, "open");
        voice->tokens = 5;
        voice->refill_at = time_now() - 40 * NSEC_PER_SEC;
        audit_log(&refusal, alice, 0, 77, "open");
        cr_assert_eq(voice->tokens, 19);
        end();
}

TEST(audit, users_do_not_use_up_each_others_lines) {
        Account *bob;
        Refusal refusal;

        begin();
        REQUIRE(accounts_ref_user(&accounts, BOB, &bob) == 0);
        audit_refuse(&refusal, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH, NULL, 0, "no");
        for (int i = 0; i < 1000; ++i)
                audit_log(&refusal, alice, 0, 77, "open");
        audit_log(&refusal, bob, 0, 78, "open");
        cr_assert_neq(strstr(logged(), "uid=64102"), NULL);
        bob = account_unref(bob);
        end();
}

TEST(audit, a_closed_peer_is_a_line_and_counts_like_any) {
        begin();
        audit_log_closed(alice, 3, 77, "malformed");
        cr_assert_str_eq(logged(), "event=peer-closed uid=64101 pid=77 peer=3 reason=malformed\n");
        for (int i = 0; i < 100; ++i)
                audit_log_closed(alice, 3, 77, "malformed");
        cr_assert_leq(lines(), at_most(20));
        end();
}

TEST(audit, a_user_gets_no_new_lines_with_a_new_account) {
        Refusal refusal;

        begin();
        audit_refuse(&refusal, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_SEARCH, NULL, 0, "no");
        for (int i = 0; i < 100; ++i) {
                audit_log(&refusal, alice, 0, 77, "open");
                alice = account_unref(alice);
                REQUIRE(accounts_ref_user(&accounts, ALICE, &alice) == 0);
        }
        cr_assert_leq(lines(), at_most(20));
        end();
}

TEST(audit, connections_of_nobody_known_have_lines_of_their_own) {
        begin();
        audit_log_not_accepted(&accounts, (uid_t)-1, "credentials", -EPERM);
        cr_assert_str_eq(logged(), "event=not-accepted reason=credentials error=EPERM\n");
        audit_log_not_accepted(&accounts, ALICE, "resources", -ENOMEM);
        cr_assert_neq(strstr(logged(), "event=not-accepted uid=64101 reason=resources error=ENOMEM\n"), NULL);
        for (int i = 0; i < 1000; ++i)
                audit_log_not_accepted(&accounts, (uid_t)-1, "credentials", 0);
        cr_assert_leq(lines(), at_most(21), "nobody's, and one of hers");
        end();
}

TEST(audit, trouble_names_the_error_and_has_its_users_share_of_the_log) {
        begin();
        audit_log_trouble(alice, "create", -EIO);
        cr_assert_str_eq(logged(), "event=trouble uid=64101 request=create error=EIO\n");
        for (int i = 0; i < 1000; ++i)
                audit_log_trouble(alice, "create", -EIO);
        cr_assert_leq(lines(), at_most(20));
        end();
}
