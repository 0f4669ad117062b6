/* daemon/broker/request-state: an administrator gets the whole state, as of one moment. */

#include "daemon-table.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/inspect.h"
#include "core/saved.h"

static Guest *root, *other_root, *alice;

/* Cells: more than are copied in one turn. */
#define ROOM 16384U

static void begin(void) {
        table_open();
        REQUIRE(state_make_room(table->state, ROOM) == 0);
        root = guest_new(0);
        other_root = guest_new(0);
        alice = guest_new(ALICE);
}

static void end(void) {
        root = guest_free(root);
        other_root = guest_free(other_root);
        alice = guest_free(alice);
        table_close();
}

static uint32_t ask_state(Guest *guest) {
        return guest_ask(guest, MESSAGE_STATE, REQUEST(State, state));
}

/* Takes the descriptor that came, and adopts what is in it, as shmd --check-state would. */
static State *take(Guest *guest) {
        const Shmd__StateReply *reply = (const Shmd__StateReply *)guest->reply;
        const int sealed = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE | F_SEAL_SEAL;
        int fd = fdlist_take(&guest->fds), memory = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        const char *sentence = NULL;
        struct stat st;
        State *state;

        REQUIRE(fd >= 0 && memory >= 0 && fstat(fd, &st) == 0);
        REQUIRE((uint64_t)st.st_size == reply->size && (fcntl(fd, F_GET_SEALS) & sealed) == sealed);
        for (off_t at = 0; at < st.st_size;) {
                char buffer[65536];
                ssize_t n = pread(fd, buffer, sizeof(buffer), at);

                REQUIRE(n > 0 && pwrite(memory, buffer, (size_t)n, at) == n);
                at += n;
        }
        (void)close_fd(fd);
        REQUIRE(state_adopt_consume_fd(&state, memory, 0, &sentence) == 0, "%s", sentence ? sentence : "?");
        return state;
}

static void no_mistakes(void *userdata, const char *text) {
        REQUIRE(false, "%s", text);
}

static Inspection inspect(State *state) {
        Inspection inspection;

        REQUIRE(inspect_state(state, no_mistakes, NULL, &inspection) == 0);
        (void)state_free(state);
        return inspection;
}

TEST(request_state, it_is_for_administrators) {
        begin();
        guest_expect(alice, DENIED, ADMIN, ask_state(alice));
        end();
}

TEST(request_state, all_that_is_there_is_in_it) {
        Inspection inspection;

        begin();
        guest_expect_done(root, ask_mkdir(root, "/d", 0777));
        guest_expect_done(alice, ask_create(alice, "/d/n", 4096, 0600));
        fdlist_deinit(&alice->fds);
        cr_assert_eq(ask_state(root), HELD);
        guest_expect_done(root, guest_await(root));
        inspection = inspect(take(root));
        cr_assert_eq(inspection.records[STATE_DIRECTORY], 2);
        cr_assert_eq(inspection.records[STATE_REGION], 1);
        cr_assert_eq(inspection.records[STATE_NAME], 1);
        cr_assert_eq(inspection.bytes, 4096);
        end();
}

TEST(request_state, what_is_answered_while_it_is_made_is_in_it) {
        char name[16];

        begin();
        for (int round = 0; round < 5; ++round) {
                cr_assert_eq(ask_state(root), HELD);
                (void)snprintf(name, sizeof(name), "/%d", round);
                guest_expect_done(alice, ask_create(alice, name, 4096, 0600));
                fdlist_deinit(&alice->fds);
                guest_expect_done(root, guest_await(root));
                cr_assert_eq(inspect(take(root)).records[STATE_NAME], (uint64_t)round + 1);
        }
        end();
}

TEST(request_state, there_is_one_in_the_making_at_a_time) {
        begin();
        cr_assert_eq(ask_state(root), HELD);
        cr_assert_eq(ask_state(other_root), HELD);
        guest_expect_done(root, guest_await(root));
        (void)inspect(take(root));
        guest_expect_done(other_root, guest_await(other_root));
        (void)inspect(take(other_root));
        end();
}

TEST(request_state, who_leaves_gives_it_up) {
        begin();
        cr_assert_eq(ask_state(root), HELD);
        cr_assert_eq(ask_state(other_root), HELD);
        root = guest_free(root);
        root = guest_new(0);
        guest_expect_done(other_root, guest_await(other_root));
        (void)inspect(take(other_root));
        end();
}
