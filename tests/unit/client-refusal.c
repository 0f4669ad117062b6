/* client/refusal: numbers to errno, to names, to sentences, and the validator of names. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <string.h>

static const struct {
        uint32_t code;
        int error;
} codes[] = {
        { SHMD_ERROR_INVALID,       EINVAL },
        { SHMD_ERROR_NOT_FOUND,     ENOENT },
        { SHMD_ERROR_EXISTS,        EEXIST },
        { SHMD_ERROR_DENIED,        EACCES },
        { SHMD_ERROR_QUOTA,         EDQUOT },
        { SHMD_ERROR_TIMEOUT,       ETIMEDOUT },
        { SHMD_ERROR_NOT_DIRECTORY, ENOTDIR },
        { SHMD_ERROR_IS_DIRECTORY,  EISDIR },
        { SHMD_ERROR_NOT_EMPTY,     ENOTEMPTY },
        { SHMD_ERROR_BUSY,          EBUSY },
        { SHMD_ERROR_UNSUPPORTED,   EOPNOTSUPP },
        { SHMD_ERROR_NO_MEMORY,     ENOMEM },
        { SHMD_ERROR_SHUTDOWN,      ESHUTDOWN },
        /* what no version of the protocol has, or this one does not know */
        { SHMD_ERROR_NONE,          EPROTO },
        { 14,                       EIO },
        { UINT32_MAX,               EIO },
};

#define N_CODES (sizeof(codes) / sizeof(codes[0]))

static void script_codes(Peer *peer) {
        for (size_t i = 0; i < N_CODES; ++i) {
                peer_expect(peer, MESSAGE_UNLINK);
                peer_refuse(peer, codes[i].code, SHMD__REASON__REASON_STICKY, "because");
        }
        peer_expect(peer, MESSAGE_UNLINK);
        peer_done(peer);
        peer_expect_end(peer);
}

TEST(client_refusal, each_error_of_the_broker_has_one_errno) {
        shmd *client = peer_start_and_connect(script_codes);

        /* Else a broker that is stopping is waited for. */
        cr_assert_eq(shmd_set_reconnect(client, false), 0);
        for (size_t i = 0; i < N_CODES; ++i) {
                cr_assert_eq(shmd_unlink(client, "/a", SHMD_TIMEOUT_DEFAULT), -codes[i].error, "code %u",
                             codes[i].code);
                cr_assert_eq(shmd_refusal(client)->error, -codes[i].error);
                cr_assert_eq(shmd_refusal(client)->code, codes[i].code);
                cr_assert_str_eq(shmd_refusal(client)->sentence, "because");
        }
        cr_assert_eq(shmd_unlink(client, "/a", SHMD_TIMEOUT_DEFAULT), 0);
        cr_assert_eq(shmd_refusal(client)->error, 0);
        cr_assert_eq(shmd_refusal(client)->code, 0);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "");
        peer_join(client);
}

static void script_details(Peer *peer) {
        peer_expect(peer, MESSAGE_BATCH);
        peer_send(peer, MESSAGE_REFUSAL, peer->header.serial,
                  MESSAGE(Refusal, refusal, .error = SHMD_ERROR_QUOTA, .reason = SHMD__REASON__REASON_SHARE,
                          .slot = SHMD_SLOT_BYTES, .uid = 7, .index = 1, .asked = UINT64_MAX, .left = 1, .limit = 2,
                          .thing = BYTES("/b"), .sentence = BYTES("too much")), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_refusal, it_carries_everything_the_broker_said) {
        const struct shmd_batch_item items[] = {
                { .path = "/a", .rights = SHMD_RIGHTS_READ_ONLY },
                { .path = "/b", .rights = SHMD_RIGHTS_READ_ONLY },
        };
        shmd *client = peer_start_and_connect(script_details);
        const struct shmd_refusal *refusal = shmd_refusal(client);
        shmd_region *regions[2];

        cr_assert_eq(shmd_batch(client, items, 2, regions, SHMD_TIMEOUT_DEFAULT), -EDQUOT);
        cr_assert_null(regions[0]);
        cr_assert_null(regions[1]);
        cr_assert_eq(refusal->index, 1);
        cr_assert_eq(refusal->slot, SHMD_SLOT_BYTES);
        cr_assert_eq(refusal->uid, 7);
        cr_assert_eq(refusal->asked, UINT64_MAX);
        cr_assert_eq(refusal->left, 1);
        cr_assert_eq(refusal->limit, 2);
        cr_assert_str_eq(refusal->thing, "/b");
        cr_assert_str_eq(refusal->sentence, "too much");
        cr_assert_str_eq(shmd_reason_name(refusal->reason), "share");
        peer_join(client);
}

TEST(client_refusal, every_reason_and_slot_of_the_protocol_has_a_name) {
        for (uint32_t reason = 0; reason <= SHMD__REASON__REASON_SERIAL; ++reason) {
                cr_assert_not_null(shmd_reason_name(reason));
                cr_assert_str_neq(shmd_reason_name(reason), "unknown");
                for (uint32_t other = 0; other < reason; ++other)
                        cr_assert_str_neq(shmd_reason_name(reason), shmd_reason_name(other));
        }
        cr_assert_str_eq(shmd_reason_name(SHMD__REASON__REASON_SEARCH), "directory-search");
        cr_assert_str_eq(shmd_reason_name(SHMD__REASON__REASON_SERIAL + 1), "unknown");
        cr_assert_str_eq(shmd_reason_name(UINT32_MAX), "unknown");
        cr_assert_str_eq(shmd_slot_name(SHMD_SLOT_BYTES), "bytes");
        cr_assert_str_eq(shmd_slot_name(SHMD_SLOT_MAX), "inflight");
        cr_assert_str_eq(shmd_slot_name(SHMD_SLOT_MAX + 1), "unknown");
        cr_assert_str_eq(shmd_slot_name(UINT32_MAX), "unknown");
}

static void script_nothing(Peer *peer) {
        peer_expect_end(peer);
}

static void expect_refused_here(shmd *client, int r, const char *thing) {
        const struct shmd_refusal *refusal = shmd_refusal(client);

        cr_assert_eq(r, -EINVAL);
        cr_assert_eq(refusal->error, -EINVAL);
        cr_assert_eq(refusal->code, 0, "the broker was not asked");
        cr_assert_str_eq(shmd_reason_name(refusal->reason), "name");
        cr_assert_str_eq(refusal->thing, thing);
        cr_assert_str_neq(refusal->sentence, "");
}

TEST(client_refusal, a_bad_name_never_leaves_the_process) {
        const struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        const struct shmd_batch_item items[] = {
                { .path = "/good", .rights = SHMD_RIGHTS_READ_ONLY },
                { .path = "/bad/", .rights = SHMD_RIGHTS_READ_ONLY },
        };
        shmd *client = peer_start_and_connect(script_nothing);
        struct shmd_stat_result *stat;
        struct shmd_list_result *list;
        struct shmd_df_result *df;
        shmd_region *regions[2];

        expect_refused_here(client, shmd_create(client, "a", &options, regions, 0), "a");
        expect_refused_here(client, shmd_open(client, "//", 1, regions, 0), "//");
        expect_refused_here(client, shmd_open(client, NULL, 1, regions, 0), "");
        expect_refused_here(client, shmd_publish(client, 1, "", NULL, 0), "");
        expect_refused_here(client, shmd_expire(client, "//e", 1, 0), "//e");
        expect_refused_here(client, shmd_link(client, "b", "/good", 0), "b");
        expect_refused_here(client, shmd_link(client, "/good", "/.", 0), "/.");
        expect_refused_here(client, shmd_rename(client, "/a//b", "/good", 0, 0), "/a//b");
        expect_refused_here(client, shmd_rename(client, "/good", NULL, 0, 0), "");
        expect_refused_here(client, shmd_mkdir(client, "/..", 0700, 0), "/..");
        expect_refused_here(client, shmd_rmdir(client, "/a/.", 0), "/a/.");
        expect_refused_here(client, shmd_unlink(client, "/\n", 0), "/\n");
        expect_refused_here(client, shmd_chmod(client, "/\x7f", 0700, 0), "/\x7f");
        expect_refused_here(client, shmd_chown(client, "/\xff", 1, 1, 0), "/\xff");
        expect_refused_here(client, shmd_stat(client, "/\xe2\x80\xae", 0, false, &stat, 0), "/\xe2\x80\xae");
        expect_refused_here(client, shmd_list(client, "x/", 0, NULL, 0, &list, 0), "x/");
        expect_refused_here(client, shmd_wait(client, "", NULL, 0), "");
        expect_refused_here(client, shmd_df(client, SHMD_DF_DIRECTORY, 0, "nowhere", &df, 0), "nowhere");
        expect_refused_here(client, shmd_batch(client, items, 2, regions, 0), "/bad/");
        cr_assert_eq(shmd_refusal(client)->index, 1);
        cr_assert_null(stat);
        cr_assert_null(list);
        cr_assert_null(df);
        peer_join(client);
}

TEST(client_refusal, the_validator_says_which_rule) {
        char longest[1025];
        const char *sentence = NULL;

        memset(longest, 'a', sizeof(longest));
        for (size_t i = 0; i < sizeof(longest); i += 200)
                longest[i] = '/';
        longest[1023] = '\0';
        cr_assert_eq(shmd_path_check(longest, &sentence), 0);
        cr_assert_null(sentence);
        longest[1023] = 'a';
        longest[1024] = '\0';
        cr_assert_eq(shmd_path_check(longest, &sentence), -EINVAL);
        cr_assert_str_eq(sentence, "a name has at most 1023 bytes");
        cr_assert_eq(shmd_path_check(NULL, &sentence), -EINVAL);
        cr_assert_str_eq(sentence, "a name may not be empty");
        cr_assert_eq(shmd_path_check("relative", NULL), -EINVAL);
        cr_assert_eq(shmd_path_check("/", NULL), 0);
}
