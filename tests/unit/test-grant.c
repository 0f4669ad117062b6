/* daemon/core/grant: who was handed what, as far as the kernel tells. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "util/memfd.h"
#include "util/probe.h"

static House house;
static Account *alice, *owner;
static Region *region;

static void begin(void) {
        house_open(&house);
        alice = house_account(&house, ALICE);
        owner = house_account(&house, BOB);
        region = house_named(&house, owner, "/x", 8192);
}

static void end(void) {
        alice = account_unref(alice);
        owner = account_unref(owner);
        house_close(&house);
}

static Asker asker_of(uint64_t peer) {
        return (Asker){ .account = alice, .peer = peer, .uid = ALICE, .pid = 77, .pidfd_ino = 99 };
}

static int try_grant(Grant **ret, int *ret_fd, bool writable, Shortage *shortage) {
        Asker asker = asker_of(7);

        *ret = NULL;
        *ret_fd = -7;
        return grant_new(ret, ret_fd, &house.grants, region, &asker, writable, shortage);
}

static Grant *grant_to(bool writable, int *fd) {
        Grant *grant;

        REQUIRE(try_grant(&grant, fd, writable, NULL) == 0);
        return grant;
}

/* One whose mark is missing, as the 65th of a region has none. */
static Grant *grant_unmarked(uint64_t peer, int *fd) {
        Asker asker = asker_of(peer);
        bool off = region->grants.marks_off;
        Grant *grant;

        region->grants.marks_off = true;
        REQUIRE(grant_new(&grant, fd, &house.grants, region, &asker, true, NULL) == 0 && !grant->marked);
        region->grants.marks_off = off;
        return grant;
}

/* -- making ---------------------------------------------------------------------------------- */

TEST(grant, a_grant_is_an_opening_of_its_own_with_exactly_those_rights) {
        int reader, writer;
        Grant *a, *b;

        begin();
        a = grant_to(false, &reader);
        b = grant_to(true, &writer);
        cr_assert_eq(fcntl(reader, F_GETFL) & O_ACCMODE, O_RDONLY);
        cr_assert_eq(fcntl(writer, F_GETFL) & O_ACCMODE, O_RDWR);
        cr_assert_eq(fcntl(reader, F_GETFD), FD_CLOEXEC);
        cr_assert(!a->writable && b->writable);
        cr_assert_eq(lseek(writer, 100, SEEK_SET), 100);
        cr_assert_eq(lseek(reader, 0, SEEK_CUR), 0);
        cr_assert_eq(write(reader, "x", 1), -1);
        close_fd(reader);
        close_fd(writer);
        end();
}

TEST(grant, it_remembers_who_asked_and_is_charged_to_them) {
        Grant *grant;
        int fd;

        begin();
        grant = grant_to(true, &fd);
        cr_assert(grant->uid == ALICE && grant->pid == 77 && grant->peer == 7 && grant->pidfd_ino == 99);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 1);
        cr_assert_eq(owner->used[ACCOUNT_GRANTS], 0);
        cr_assert_eq(alice->used[ACCOUNT_BYTES], 0, "the memory is its owner's");
        cr_assert_eq(region->grants.n, 1);
        cr_assert_eq(house.grants.n, 1);
        cr_assert_eq(grant_free(grant), NULL);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        cr_assert_eq(region->grants.n, 0);
        cr_assert_eq(house.grants.n, 0);
        cr_assert_eq(grant_free(NULL), NULL);
        close_fd(fd);
        end();
}

TEST(grant, the_limit_is_exact_and_a_refused_one_leaves_nothing_behind) {
        Grant *grant, *none;
        int fd, no_fd;
        Shortage s;

        begin();
        alice->max[ACCOUNT_GRANTS] = 1;
        grant = grant_to(true, &fd);
        cr_assert_eq(try_grant(&none, &no_fd, true, &s), GRANT_E_QUOTA);
        cr_assert(s.kind == ACCOUNT_USER && s.slot == ACCOUNT_GRANTS && s.asked == 1 && s.left == 0 && s.limit == 1);
        cr_assert(none == NULL && no_fd == -7);
        cr_assert_eq(region->grants.n, 1);
        cr_assert_eq(house.grants.n, 1);
        cr_assert_eq(alice->grants.next, alice->grants.previous, "one alone");
        (void)grant_free(grant);
        grant = grant_to(true, &no_fd);
        close_fd(fd);
        close_fd(no_fd);
        end();
}

TEST(grant, numbers_rise) {
        Grant *a, *b;
        int fds[2];

        begin();
        a = grant_to(true, &fds[0]);
        b = grant_to(true, &fds[1]);
        cr_assert_gt(b->id, a->id);
        close_fd(fds[0]);
        close_fd(fds[1]);
        end();
}

TEST(grant, a_region_that_cannot_be_opened_now_is_a_failure_that_costs_nothing) {
        Grant *grant;
        int fd;

        begin();
        (void)signal(SIGIO, SIG_IGN);
        REQUIRE(fcntl(region->fd, F_SETLEASE, F_WRLCK) == 0);
        cr_assert_eq(try_grant(&grant, &fd, true, NULL), GRANT_E_FAILED);
        cr_assert(grant == NULL && fd == -7);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        cr_assert_eq(region->grants.n, 0);
        REQUIRE(fcntl(region->fd, F_SETLEASE, F_UNLCK) == 0);
        end();
}

static int grant_without_descriptors(void *userdata) {
        struct rlimit none = { 1, 1 };
        Grant *grant;
        int fd;

        begin();
        REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        REQUIRE(try_grant(&grant, &fd, true, NULL) == GRANT_E_NO_MEMORY);
        REQUIRE(alice->used[ACCOUNT_GRANTS] == 0 && region->grants.n == 0 && house.grants.n == 0);
        end();
        return 0;
}

TEST(grant, no_descriptor_left_is_no_memory_and_costs_nothing) {
        house_expect_child(grant_without_descriptors, NULL);
}

/* -- marks ----------------------------------------------------------------------------------- */

/* A mark that was slow turns them off for the region, and a busy machine can make one slow: then
 * it is tried again with another region. */
TEST(grant, sixty_four_are_marked_and_those_after_them_are_counted) {
        Grant *grants[66];
        int fds[66];

        begin();
        for (int attempt = 0;; ++attempt) {
                REQUIRE(attempt < 100, "marking is always slow here");
                for (int i = 0; i < 66; ++i)
                        grants[i] = grant_to(false, &fds[i]);
                if (!region->grants.marks_off)
                        break;
                for (int i = 0; i < 66; ++i)
                        close_fd(fds[i]);
                (void)region_discard(region);
                region = house_named(&house, owner, "/x", 8192);
        }
        for (int i = 0; i < 66; ++i)
                cr_assert_eq(grants[i]->marked, i < GRANT_MARKS_MAX, "grant %d", i);
        cr_assert_eq(region->grants.n_marked, 64);
        cr_assert_eq(region->grants.n, 66);

        (void)grant_free(grants[10]);
        cr_assert_eq(region->grants.n_marked, 63);
        close_fd(fds[10]);
        grants[10] = grant_to(false, &fds[10]);
        cr_assert(grants[10]->marked, "there is room for a mark again");
        for (int i = 0; i < 66; ++i)
                close_fd(fds[i]);
        end();
}

static bool is_marked(uint64_t mark) {
        uint64_t first, last;

        return memfd_find_mark(region->fd, mark, mark, &first, &last);
}

/* How many of the region's grants are on the books after a look at them. */
static uint64_t reap(void) {
        (void)region_grants_reap(region);
        return region->grants.n;
}

TEST(grant, its_mark_is_on_the_description_that_was_handed_out) {
        uint64_t id;
        int fd;

        begin();
        id = grant_to(false, &fd)->id;
        cr_assert(is_marked(id));
        cr_assert_not(is_marked(id + 1));
        cr_assert_eq(reap(), 1);
        close_fd(fd);
        cr_assert_not(is_marked(id));
        cr_assert_eq(reap(), 0);
        end();
}

TEST(grant, among_living_ones_only_the_dead_are_reaped) {
        int fds[20];

        begin();
        for (int i = 0; i < 20; ++i)
                (void)grant_to(false, &fds[i]);
        for (int i = 0; i < 20; i += 3)
                fds[i] = close_fd(fds[i]);
        if (region->grants.n_marked == 20)
                cr_assert_eq(reap(), 13);
        for (int i = 0; i < 20; ++i)
                close_fd(fds[i]);
        cr_assert_eq(reap(), 0);
        end();
}

TEST(grant, opening_and_closing_for_ever_keeps_the_books_short) {
        int held, fd;

        begin();
        held = house_hold(region, false);
        for (int i = 0; i < 1000; ++i) {
                (void)grant_to(false, &fd);
                close_fd(fd);
        }
        close_fd(held);
        cr_assert_eq(reap(), 0);
        for (int i = 0; i < 1000; ++i) {
                (void)grant_to(false, &fd);
                close_fd(fd);
                cr_assert_leq(region->grants.n, 512, "16, unless a busy machine made a mark slow");
        }
        end();
}

TEST(grant, without_marks_on_this_kernel_grants_are_only_counted) {
        Grant *grant;
        int fd;

        begin();
        probe_force(PROBE_MARKER, false);
        grant = grant_to(false, &fd);
        cr_assert_not(grant->marked);
        cr_assert_eq(region->grants.n_marked, 0);
        close_fd(fd);
        end();
}

TEST(grant, a_forged_lock_turns_marks_off_and_is_no_failed_open) {
        struct flock everything = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        Grant *second, *third;
        int fds[3];

        begin();
        (void)grant_to(true, &fds[0]);
        close_fd(fds[0]);
        fds[0] = house_hold(region, true);
        REQUIRE(fcntl(fds[0], F_OFD_SETLK, &everything) == 0);
        cr_assert_eq(reap(), 1, "marks inform, they prove nothing");

        second = grant_to(true, &fds[1]);
        cr_assert_not(second->marked);
        cr_assert(region->grants.marks_off);
        third = grant_to(true, &fds[2]);
        cr_assert_not(third->marked, "they stay off for a while");
        for (int i = 0; i < 3; ++i)
                close_fd(fds[i]);
        cr_assert_eq(reap(), 0, "but nobody holds it, and that ends all of them");
        cr_assert_not(region->grants.marks_off);
        end();
}

TEST(grant, who_removes_its_mark_looks_gone_but_the_region_is_still_held) {
        struct flock none = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
        int fd;

        begin();
        (void)grant_to(true, &fd);
        REQUIRE(fcntl(fd, F_OFD_SETLK, &none) == 0);
        cr_assert_eq(reap(), 0);
        region_unlink(region);
        cr_assert_eq(region->state, REGION_STATE_ORPHAN, "bytes depend on no mark");
        cr_assert_eq(owner->used[ACCOUNT_BYTES], 8192);
        close_fd(fd);
        house_until(&house, house.regions.n == 0);
        end();
}

TEST(grant, without_a_mark_it_lives_as_long_as_anybody_holds_the_region) {
        int fd, other;

        begin();
        (void)grant_unmarked(7, &fd);
        other = house_hold(region, false);
        close_fd(fd);
        cr_assert_eq(reap(), 1, "somebody has the region open");
        close_fd(other);
        house.connected = 7;
        cr_assert_eq(reap(), 0, "the lease is the truth, whoever is connected");
        end();
}

TEST(grant, a_grant_on_the_books_explains_a_holder) {
        int fd;

        begin();
        cr_assert_not(region_grants_explain(region));
        (void)grant_to(true, &fd);
        cr_assert(region_grants_explain(region));
        close_fd(fd);
        cr_assert_not(region_grants_explain(region));
        end();
}

/* -- reconciling -------------------------------------------------------------------------------- */

static uint64_t sweep(void) {
        uint64_t ticket = grants_sweep(&house.grants, alice);

        REQUIRE(ticket > 0);
        for (int i = 0; i < 1000 && !grants_swept(&house.grants, ticket); ++i)
                deadlines_run(&house.deadlines, time_now());
        REQUIRE(grants_swept(&house.grants, ticket));
        return ticket;
}

TEST(grant, a_sweep_takes_the_dead_off_the_books_and_no_other) {
        uint64_t alive = 0;
        int fds[9];

        begin();
        for (int i = 0; i < 9; ++i) {
                bool dies = grant_to(i % 2, &fds[i])->marked && i % 3 == 0;

                alive += !dies;
                if (dies)
                        fds[i] = close_fd(fds[i]);
        }
        (void)sweep();
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], alive);
        for (int i = 0; i < 9; ++i)
                close_fd(fds[i]);
        (void)sweep();
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        end();
}

TEST(grant, a_sweep_is_work_of_later_turns_and_looks_at_a_bounded_number_in_each) {
        uint64_t ticket;
        int held, fd;

        begin();
        held = house_hold(region, false);
        for (int i = 0; i < 200; ++i) {
                (void)grant_unmarked(7, &fd);
                close_fd(fd);
        }
        ticket = grants_sweep(&house.grants, alice);
        cr_assert_eq(ticket, 1);
        for (int i = 0; i < 3; ++i) {
                deadlines_run(&house.deadlines, time_now());
                cr_assert_not(grants_swept(&house.grants, ticket), "64 a turn");
        }
        for (int i = 0; i < 1000 && !grants_swept(&house.grants, ticket); ++i)
                deadlines_run(&house.deadlines, time_now());
        cr_assert(grants_swept(&house.grants, ticket));
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 200, "the region is held, and it ends all the same");
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER);

        close_fd(held);
        ticket = grants_sweep(&house.grants, alice);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 200, "not in the caller's turn");
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0, "one question ends all of a region that nobody holds");
        cr_assert(grants_swept(&house.grants, ticket));
        end();
}

TEST(grant, one_sweep_at_a_time_and_whoever_comes_during_it_asks_again) {
        uint64_t first;
        int fd;

        begin();
        (void)grant_unmarked(7, &fd);
        close_fd(fd);
        first = grants_sweep(&house.grants, alice);
        cr_assert_neq(first, 0);
        cr_assert_eq(grants_sweep(&house.grants, owner), 0);
        cr_assert_eq(grants_sweep(&house.grants, alice), 0);
        deadlines_run(&house.deadlines, time_now());
        cr_assert(grants_swept(&house.grants, first));
        cr_assert_eq(grants_sweep(&house.grants, owner), first + 1);
        deadlines_run(&house.deadlines, time_now());
        cr_assert(grants_swept(&house.grants, first + 1));
        end();
}

TEST(grant, an_account_outlives_the_sweep_of_it) {
        begin();
        alice = account_unref(alice);
        alice = house_account(&house, CAROL);
        cr_assert_neq(grants_sweep(&house.grants, alice), 0);
        alice = account_unref(alice);
        cr_assert_neq(accounts_find_user(&house.accounts, CAROL), NULL);
        deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(accounts_find_user(&house.accounts, CAROL), NULL);

        cr_assert_neq(grants_sweep(&house.grants, owner), 0);
        end();
}

TEST(grant, a_region_that_goes_takes_its_grants_off_the_books_also_in_a_sweep) {
        int fd;

        begin();
        for (int i = 0; i < 10; ++i) {
                (void)grant_unmarked(7, &fd);
                close_fd(fd);
        }
        cr_assert_neq(grants_sweep(&house.grants, alice), 0);
        region_unlink(region);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        house_until(&house, house.regions.n == 0 && !house.grants.sweeping);
        end();
}

TEST(grant, when_many_are_dead_the_limit_is_exact_again_after_a_sweep) {
        Grant *grant;
        int fd;

        begin();
        alice->max[ACCOUNT_GRANTS] = 3;
        for (int i = 0; i < 3; ++i) {
                (void)grant_unmarked(7, &fd);
                close_fd(fd);
        }
        cr_assert_eq(try_grant(&grant, &fd, true, NULL), GRANT_E_QUOTA);
        (void)sweep();
        cr_assert_eq(try_grant(&grant, &fd, true, NULL), 0);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 1);
        close_fd(fd);
        end();
}
