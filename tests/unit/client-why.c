/* client/op-why: the question on the wire, and what the answer becomes. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <string.h>

#define ROUNDS 2

static bool finished;

static void dispatch(shmd *client, int started) {
        REQUIRE(started == 0);
        while (!finished)
                REQUIRE(shmd_process(client, 20 * SECOND) >= 0);
        finished = false;
}

static bool is(const ProtobufCBinaryData *bytes, const char *string) {
        return bytes->len == strlen(string) && memcmp(bytes->data, string, bytes->len) == 0;
}

static void script(Peer *peer) {
        Shmd__WhyStep steps[] = { SHMD__WHY_STEP__INIT, SHMD__WHY_STEP__INIT };
        Shmd__WhyStep *pointers[] = { &steps[0], &steps[1] };
        const Shmd__Why *why;

        steps[0].thing = BYTES("/d"), steps[0].reason = 11, steps[0].allowed = true, steps[0].wanted = 1;
        steps[0].by = SHMD_WHY_BY_ACL_GROUP, steps[0].id = 42, steps[0].perms = 5, steps[0].mask = 8 + 5;
        steps[0].uid = 1, steps[0].gid = 2, steps[0].mode = 01755, steps[0].sentence = BYTES("yes");
        steps[1].reason = 19, steps[1].slot = SHMD_SLOT_BYTES, steps[1].uid = 7, steps[1].asked = 100;
        steps[1].left = 50, steps[1].limit = 75;
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                why = peer_expect(peer, MESSAGE_WHY);
                REQUIRE(why->operation == SHMD_WHY_LINK && is(&why->path, "/a") && is(&why->to,
                        "/b") && why->size == 3);
                REQUIRE(why->other && why->uid == 5 && why->gid == 6 && why->n_groups == 2);
                REQUIRE(why->groups[0] == 9 && why->groups[1] == 8);
                peer_reply(peer, MESSAGE(WhyReply, why_reply, .error = SHMD__ERROR__ERROR_QUOTA, .reason = 19,
                                         .n_step = 2,
                                         .step = pointers, .sentence = BYTES("no")), NULL, 0);
        }
        why = peer_expect(peer, MESSAGE_WHY);
        REQUIRE(why->operation == SHMD_WHY_STAT && is(&why->path,
                                                      "/") && why->to.len == 0 && !why->other && !why->n_groups);
        peer_reply(peer, MESSAGE(WhyReply, why_reply, .allowed = true), NULL, 0);
        (void)peer_expect(peer, MESSAGE_WHY);
        peer_refuse(peer, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_ADMIN, "no");
}

static struct shmd_why_result *got;

static void finish(shmd *client, shmd_call *call, void *userdata) {
        REQUIRE(shmd_why_finish(call, &got) == 0);
        finished = true;
}

static void check(void) {
        const struct shmd_why_step *step = got->steps;

        cr_assert(!got->allowed && got->error == -EDQUOT && got->code == SHMD_ERROR_QUOTA && got->reason == 19);
        cr_assert_str_eq(got->sentence, "no");
        cr_assert_eq(got->n_steps, 2);
        cr_assert_str_eq(step->thing, "/d");
        cr_assert_str_eq(step->sentence, "yes");
        cr_assert(step->allowed && step->reason == 11 && step->wanted == 1 && step->by == SHMD_WHY_BY_ACL_GROUP);
        cr_assert(step->id == 42 && step->perms == 5 && step->masked && step->mask == 5);
        cr_assert(step->uid == 1 && step->gid == 2 && step->mode == 01755 && step->slot == 0);
        ++step;
        cr_assert_str_eq(step->thing, "");
        cr_assert(!step->allowed && !step->masked && step->slot == SHMD_SLOT_BYTES && step->uid == 7);
        cr_assert(step->asked == 100 && step->left == 50 && step->limit == 75);
        got = shmd_why_free(got);
}

TEST(client_why, question_and_answer) {
        static const gid_t groups[] = { 9, 8 };
        struct shmd_why_options options = SHMD_WHY_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script);

        options.to = "/b";
        options.size = 3;
        options.other = true;
        options.uid = 5;
        options.gid = 6;
        options.n_groups = 2;
        options.groups = groups;
        cr_assert_eq(shmd_why(client, SHMD_WHY_LINK, "/a", &options, &got, 0), 0);
        check();
        dispatch(client, shmd_why_start(client, SHMD_WHY_LINK, "/a", &options, 0, finish, NULL, NULL));
        check();

        cr_assert_eq(shmd_why(client, SHMD_WHY_STAT, "/", NULL, &got, 0), 0);
        cr_assert(got->allowed && got->error == 0 && got->n_steps == 0);
        cr_assert_str_eq(got->sentence, "");
        got = shmd_why_free(got);
        cr_assert_eq(shmd_why(client, SHMD_WHY_STAT, "/", NULL, &got, 0), -EACCES);
        cr_assert_null(got);
        cr_assert_null(shmd_why_free(NULL));

        cr_assert_eq(shmd_why(client, SHMD_WHY_STAT, "relative", NULL, &got, 0), -EINVAL);
        options.to = "relative";
        cr_assert_eq(shmd_why(client, SHMD_WHY_LINK, "/a", &options, &got, 0), -EINVAL);
        options.to = "/b";
        options.struct_size = 8;
        cr_assert_eq(shmd_why(client, SHMD_WHY_LINK, "/a", &options, &got, 0), -EINVAL);
        peer_join(client);
}
