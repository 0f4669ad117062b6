/* daemon/core/grant: who was handed what, as far as the kernel tells. */

#include "buildinfo.h"
#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
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

static Asker asker_of(uint64_t session) {
        return (Asker){ .account = alice, .session = session, .uid = ALICE, .pid = 77, .pidfd_ino = 99 };
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
static Grant *grant_unmarked(uint64_t session, int *fd) {
        Asker asker = asker_of(session);
        bool off = region->grants.marks_off;
        Grant *grant;

        region->grants.marks_off = true;
        REQUIRE(grant_new(&grant, fd, &house.grants, region, &asker, true, NULL) == 0 && !grant->marked);
        region->grants.marks_off = off;
        return grant;
}

static bool is_marked(const Grant *grant) {
        uint64_t first, last;

        return memfd_find_mark(region->fd, grant->id, grant->id, &first, &last);
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
        cr_assert(grant->uid == ALICE && grant->pid == 77 && grant->session == 7 && grant->pidfd_ino == 99);
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

/* Makes n grants and keeps them. A mark that was slow turns marks off for a while, and a busy
 * machine can make one slow: then it is tried again with another region. */
static void grant_many(Grant **grants, int *fds, int n) {
        for (int attempt = 0; attempt < 200; ++attempt) {
                bool off = false;

                for (int i = 0; i < n; ++i) {
                        grants[i] = grant_to(false, &fds[i]);
                        off |= region->grants.marks_off;
                }
                if (!off)
                        return;
                for (int i = 0; i < n; ++i)
                        close_fd(fds[i]);
                (void)region_discard(region);
                region = house_named(&house, owner, "/x", 8192);
        }
        REQUIRE(false, "marking is always slow here");
}

static void close_all(int *fds, int n) {
        for (int i = 0; i < n; ++i)
                fds[i] = close_fd(fds[i]);
}

TEST(grant, sixty_four_are_marked_and_those_after_them_are_counted) {
        Grant *grants[66];
        int fds[66];

        begin();
        grant_many(grants, fds, 66);
        for (int i = 0; i < 66; ++i)
                cr_assert_eq(grants[i]->marked, i < GRANT_MARKS_MAX, "grant %d", i);
        cr_assert_eq(region->grants.n_marked, 64);
        cr_assert_eq(region->grants.n, 66);
        (void)grant_free(grants[10]);
        cr_assert_eq(region->grants.n_marked, 63);
        close_all(fds, 66);
        end();
}

TEST(grant, its_mark_is_on_the_description_that_was_handed_out) {
        Grant *grants[1];
        int fds[1], copy;

        begin();
        grant_many(grants, fds, 1);
        cr_assert(grants[0]->marked && is_marked(grants[0]));
        copy = dup(fds[0]);
        close_all(fds, 1);
        cr_assert(is_marked(grants[0]));
        close_fd(copy);
        cr_assert_not(is_marked(grants[0]));
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
        int fds[2], forged;
        Grant *second;

        begin();
        (void)grant_to(true, &fds[0]);
        fds[0] = close_fd(fds[0]);
        forged = house_hold(region, true);
        REQUIRE(fcntl(forged, F_OFD_SETLK, &everything) == 0);
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 1, "marks inform, they prove nothing");

        second = grant_to(true, &fds[1]);
        cr_assert_not(second->marked);
        cr_assert(region->grants.marks_off);
        close_fd(forged);
        close_fd(fds[1]);
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 0);
        cr_assert_not(region->grants.marks_off, "with a region nobody holds it begins anew");
        end();
}

TEST(grant, twenty_thousand_forged_locks_do_not_make_a_walk_long) {
        Grant *grants[16];
        int fds[16], forged;
        unsigned int steps;

        begin();
        grant_many(grants, fds, 16);
        forged = house_hold(region, true);
        for (int i = 0; i < 20000; ++i) {
                struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 2 * i, .l_len = 1 };

                REQUIRE(fcntl(forged, F_OFD_SETLK, &lock) == 0);
        }
        steps = region_grants_reap(region);
        cr_assert_leq(steps, 1 + 2 * GRANT_MARKS_MAX + GRANT_REAP_EVERY);
        cr_assert_eq(region->grants.n, 16, "nobody who lives is taken for dead");
        close_all(fds, 16);
        close_fd(forged);
        end();
}

TEST(grant, who_removes_its_mark_looks_gone_but_the_region_is_still_held) {
        struct flock none = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
        Grant *grants[1];
        int fds[1];

        begin();
        grant_many(grants, fds, 1);
        REQUIRE(fcntl(fds[0], F_OFD_SETLK, &none) == 0);
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 0);
        region_unlink(region);
        cr_assert_eq(region->state, REGION_STATE_ORPHAN, "bytes depend on no mark");
        cr_assert_eq(owner->used[ACCOUNT_BYTES], 8192);
        close_all(fds, 1);
        house_until(&house, house.regions.n == 0);
        end();
}

/* -- who is over ------------------------------------------------------------------------------- */

TEST(grant, of_the_marked_exactly_the_dead_are_reaped) {
        Grant *grants[40];
        int fds[40];

        for (unsigned int pattern = 0; pattern < 5; ++pattern) {
                uint64_t expected[40];
                unsigned int n = 0;
                Grant *grant;

                begin();
                grant_many(grants, fds, 40);
                for (unsigned int i = 0; i < 40; ++i) {
                        bool dies = pattern == 0 ? i % 2 : pattern == 1 ? i < 20 : pattern == 2 ? i >= 20 :
                                    pattern == 3 ? i % 7 == 3 : i != 17;

                        if (dies)
                                fds[i] = close_fd(fds[i]);
                        else
                                expected[n++] = grants[i]->id;
                }
                (void)region_grants_reap(region);
                cr_assert_eq(region->grants.n, n, "pattern %u", pattern);
                cr_assert_eq(alice->used[ACCOUNT_GRANTS], n);
                n = 0;
                list_for_each(grant, &region->grants.list, Grant, in_region)
                        cr_assert_eq(grant->id, expected[n++], "pattern %u", pattern);
                close_all(fds, 40);
                end();
        }
}

TEST(grant, when_nobody_holds_the_region_all_its_grants_are_over) {
        int fds[3];

        begin();
        house.connected = 7;
        (void)grant_to(true, &fds[0]);
        (void)grant_unmarked(7, &fds[1]);
        (void)grant_unmarked(8, &fds[2]);
        close_all(fds, 2);
        (void)region_grants_reap(region);
        cr_assert_geq(region->grants.n, 2, "somebody holds it: those without a mark stay");
        close_fd(fds[2]);
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 0);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        end();
}

TEST(grant, opening_and_closing_without_end_keeps_the_books_short) {
        int fd;

        begin();
        for (int i = 0; i < 5000; ++i) {
                (void)grant_to(false, &fd);
                close_fd(fd);
                /* 64 as long as marks are quick, 256 more after one that was not. */
                cr_assert_leq(region->grants.n, GRANT_REAP_EVERY + 256, "after %d", i);
        }
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 0);
        end();
}

TEST(grant, many_that_are_over_go_a_few_with_each_open_and_all_when_somebody_asks) {
        uint64_t n;
        int fd;

        begin();
        region->grants.reap_at = 1000;
        while (region->grants.n < 1000) {
                (void)grant_to(false, &fd);
                close_fd(fd);
        }
        (void)grant_to(false, &fd);
        n = region->grants.n;
        cr_assert(n > 900 && n <= 1000, "%lu", n);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], n);
        close_fd(fd);
        for (int i = 0; i < 1000; ++i) {
                (void)grant_to(false, &fd);
                cr_assert(region->grants.n < n || n <= GRANT_REAP_EVERY, "%u after %lu", region->grants.n, n);
                n = region->grants.n;
                close_fd(fd);
        }
        cr_assert_leq(n, GRANT_REAP_EVERY);

        (void)grant_to(false, &fd);
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 1, "only that one lives");
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 1);
        close_fd(fd);
        end();
}

/* Those of a crowd that can be over at once. */
static void crowd_goes(unsigned int n) {
        CLEANUP(close_fdp) int held = -1;

        (void)grant_unmarked(7, &held);         /* as long as this one is open, none is over */
        while (region->grants.n < n) {
                int fd;

                (void)grant_unmarked(7, &fd);
                close_fd(fd);
        }
        region_grants_clear(&region->grants);
}

TEST(grant, what_those_that_are_over_had_is_there_for_others) {
        begin();
        for (unsigned int i = 0; i < 3; ++i) {
                crowd_goes(3000);
                cr_assert_eq(house.grants.pool.n, 0);
                cr_assert_leq(house.grants.pool.n_areas, 1);
        }
        end();
}

/* Leases do not work here. */
static int explain_without_leases(void *userdata) {
        Grant *marked, *unmarked;
        int fds[2];

        begin();
        house_deny(EINVAL, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        REQUIRE(!region_grants_explain(region));
        grant_many(&marked, &fds[0], 1);
        REQUIRE(region_grants_explain(region));
        close_fd(fds[0]);
        REQUIRE(!region_grants_explain(region), "its mark is gone");

        unmarked = grant_unmarked(8, &fds[1]);
        house.connected = 8;
        REQUIRE(region_grants_explain(region), "its asker is there");
        house.connected = 7;
        REQUIRE(!region_grants_explain(region), "an open description alone explains nothing");
        (void)unmarked;
        close_fd(fds[1]);
        end();
        return 0;
}

TEST(grant, without_leases_a_mark_or_a_connection_explains_a_holder) {
        house_expect_child(explain_without_leases, NULL);
}

static int explain_after_slow_marks(void *userdata) {
        Grant *grant;
        int fd;

        begin();
        house_deny(EINVAL, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        grant_many(&grant, &fd, 1);
        region->grants.marks_off = true;
        region->grants.reap_at = UINT32_MAX;
        REQUIRE(region_grants_explain(region), "it is asked after, and there");
        REQUIRE(region->more->marks_again_at > time_now());
        region->grants.marks_off = true;
        region->grants.reap_at = UINT32_MAX;
        region->more->marks_again_at = UINT64_MAX;
        close_fd(fd);
        REQUIRE(region_grants_explain(region), "it was asked after a moment ago");
        region->more->marks_again_at = time_now();
        REQUIRE(!region_grants_explain(region) && region->grants.n == 0, "it is asked after, and gone");
        end();
        return 0;
}

TEST(grant, without_leases_marks_that_were_slow_are_asked_after_again_without_another_grant) {
        house_expect_child(explain_after_slow_marks, NULL);
}

static int held_without_leases(void *userdata) {
        Grant *grant;
        int fd;

        begin();
        house_deny(EINVAL, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        REQUIRE(region_grants_held(region) == REGION_HELD_UNKNOWN);
        grant_many(&grant, &fd, 1);
        REQUIRE(region_grants_held(region) == REGION_HELD_UNKNOWN, "not even a mark says that it is all there is");
        close_fd(fd);
        end();
        return 0;
}

TEST(grant, without_leases_nobody_knows_who_else_holds_it) {
        house_expect_child(held_without_leases, NULL);
}

TEST(grant, a_holder_without_a_grant_is_certain_only_when_no_grant_lives) {
        Grant *marked, *unmarked;
        int fds[2], passed_on;

        begin();
        cr_assert_eq(region_grants_held(region), REGION_HELD_NOT);
        grant_many(&marked, &fds[0], 1);
        cr_assert_eq(region_grants_held(region), REGION_HELD_BY_GRANTS);
        passed_on = house_hold(region, false);
        cr_assert_eq(region_grants_held(region), REGION_HELD_BY_GRANTS, "the mark lives");
        close_fd(fds[0]);
        cr_assert_eq(region_grants_held(region), REGION_HELD_BY_OTHERS);
        cr_assert_eq(region->grants.n, 0);

        unmarked = grant_unmarked(8, &fds[1]);
        house.connected = 8;
        cr_assert_eq(region_grants_held(region), REGION_HELD_BY_GRANTS, "its asker is there");
        house.connected = 7;
        cr_assert_eq(region_grants_held(region), REGION_HELD_UNKNOWN, "it may be the one that holds it, or not");
        cr_assert_eq(region->grants.n, 1);
        close_fd(fds[1]);
        cr_assert_eq(region_grants_held(region), REGION_HELD_UNKNOWN);
        close_fd(passed_on);
        cr_assert_eq(region_grants_held(region), REGION_HELD_NOT);
        cr_assert_eq(region->grants.n, 0);
        cr_assert_eq(region->grants.granted, 2, "what is over was still granted");
        cr_assert_eq(alice->granted, 2);
        cr_assert_eq(alice->parent->granted, 2);
        cr_assert_eq(owner->granted, 0);
        (void)unmarked;
        end();
}

TEST(grant, marks_nobody_asked_after_explain_nothing) {
        Grant *marked;
        int fd;

        begin();
        grant_many(&marked, &fd, 1);
        region->grants.marks_off = true;
        cr_assert_eq(region_grants_held(region), REGION_HELD_UNKNOWN);
        close_fd(fd);
        end();
}

/* -- reconciling -------------------------------------------------------------------------------- */

static uint64_t sweep(void) {
        uint64_t ticket = grants_sweep(&house.grants, alice);

        REQUIRE(ticket > 0);
        for (int i = 0; i < 10000 && !grants_swept(&house.grants, ticket); ++i)
                deadlines_run(&house.deadlines, time_now());
        REQUIRE(grants_swept(&house.grants, ticket));
        return ticket;
}

TEST(grant, a_sweep_takes_the_dead_off_the_books_and_no_other) {
        Grant *grants[9];
        uint64_t living = 0;
        int fds[9];

        begin();
        grant_many(grants, fds, 9);
        for (int i = 0; i < 9; ++i)
                if (i % 3 == 0)
                        fds[i] = close_fd(fds[i]);
                else
                        ++living;
        (void)sweep();
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], living);
        cr_assert_eq(region->grants.n, living);
        close_all(fds, 9);
        (void)sweep();
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER);
        end();
}

TEST(grant, a_sweep_goes_over_all_regions_in_turns_and_asks_each_once) {
        Region *regions[200];
        uint64_t ticket;
        unsigned int turns = 0;
        Asker asker;
        Grant *grant;
        char path[16];
        int fd;

        begin();
        asker = asker_of(7);
        for (int i = 0; i < 200; ++i) {
                (void)snprintf(path, sizeof(path), "/%d", i);
                regions[i] = house_named(&house, owner, path, 0);
                REQUIRE(grant_new(&grant, &fd, &house.grants, regions[i], &asker, false, NULL) == 0);
                close_fd(fd);
        }
        ticket = grants_sweep(&house.grants, alice);
        cr_assert_eq(ticket, 1);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 200, "not in the caller's turn");
        for (; !grants_swept(&house.grants, ticket); ++turns) {
                uint64_t before = alice->used[ACCOUNT_GRANTS];

                deadlines_run(&house.deadlines, time_now());
                cr_assert_leq(before - alice->used[ACCOUNT_GRANTS], GRANT_STEPS);
        }
        cr_assert_geq(turns, 4, "64 a turn");
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        end();
}

TEST(grant, a_sweep_of_living_ones_ends) {
        Grant *grants[30];
        int fds[30];

        begin();
        grant_many(grants, fds, 30);
        (void)sweep();
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 30);
        (void)sweep();
        close_all(fds, 30);
        end();
}

TEST(grant, one_sweep_at_a_time_and_whoever_comes_during_it_asks_again) {
        uint64_t first;
        int fd;

        begin();
        (void)grant_to(true, &fd);
        close_fd(fd);
        first = grants_sweep(&house.grants, alice);
        cr_assert_neq(first, 0);
        cr_assert_eq(grants_sweep(&house.grants, owner), 0);
        cr_assert_eq(grants_sweep(&house.grants, alice), 0);
        while (!grants_swept(&house.grants, first))
                deadlines_run(&house.deadlines, time_now());
        cr_assert_eq(grants_sweep(&house.grants, owner), first + 1);
        deadlines_run(&house.deadlines, time_now());
        cr_assert(grants_swept(&house.grants, first + 1), "there is nothing to look at");
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
                (void)grant_to(true, &fd);
                close_fd(fd);
        }
        cr_assert_eq(try_grant(&grant, &fd, true, NULL), GRANT_E_QUOTA);
        (void)sweep();
        cr_assert_eq(try_grant(&grant, &fd, true, NULL), 0);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 1);
        close_fd(fd);
        end();
}
