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

TEST(grant, when_every_mark_is_gone_the_lease_is_not_asked) {
        Grant *grants[64];
        int fds[64], held, fd;
        uint64_t last;

        begin();
        grant_many(grants, fds, 64);
        last = grants[63]->id;
        held = house_hold(region, false);
        close_all(fds, 64);
        region->grants.reap_in = 0;
        (void)grant_to(false, &fd);
        cr_assert_eq(region->grants.over_to, last, "a lease would say that somebody holds it");
        cr_assert_eq(region->grants.n, 64 - 4 + 1);
        close_fd(fd);
        close_fd(held);
        end();
}

TEST(grant, when_one_mark_is_left_of_many_the_others_go) {
        Grant *grants[64];
        int fds[64], left, fd;

        begin();
        grant_many(grants, fds, 64);
        left = fds[20];
        fds[20] = -1;
        close_all(fds, 64);
        region->grants.reap_in = 0;
        (void)grant_to(false, &fd);
        cr_assert_eq(region->grants.over_to, 0, "one is alive");
        cr_assert_eq(region->grants.n, 2);
        cr_assert(is_marked(grants[20]));
        close_fd(fd);
        close_fd(left);
        end();
}

TEST(grant, many_that_are_over_go_a_few_with_each_open_and_all_when_somebody_asks) {
        uint64_t n;
        int fd;

        begin();
        for (uint64_t i = 0; i < 1000; ++i) {
                (void)grant_unmarked(100 + i, &fd);
                region->grants.reap_in = i < 999;
                close_fd(fd);
        }
        (void)grant_to(false, &fd);
        n = region->grants.n;
        cr_assert(n > 900 && n <= 1000, "%lu", n);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], n);
        close_fd(fd);
        for (int i = 0; i < 1000; ++i) {
                (void)grant_to(false, &fd);
                cr_assert(region->grants.n < n || n <= GRANT_REAP_EVERY, "%lu after %lu", region->grants.n, n);
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

                (void)grant_unmarked(100 + region->grants.n, &fd);
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
        region->grants.reap_in = UINT32_MAX;
        REQUIRE(region_grants_explain(region), "it is asked after, and there");
        REQUIRE(region->more->marks_again_at > time_now());
        region->grants.marks_off = true;
        region->grants.reap_in = UINT32_MAX;
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

/* -- one grant, handed out again and again ------------------------------------------------------- */

/* Kept open, it is one that lives without a mark. */
static Grant *grant_as(Region *of, const Asker *asker, bool writable, int *fd) {
        Grant *grant;

        of->grants.marks_off = true;
        REQUIRE(grant_new(&grant, fd, &house.grants, of, asker, writable, NULL) == 0 && !grant->marked);
        return grant;
}

TEST(grant, a_session_that_opens_a_region_with_many_holders_again_and_again_has_one_grant_of_it) {
        Grant *grants[64], *first, *grant;
        int fds[64], kept, fd;

        begin();
        grant_many(grants, fds, 64);
        first = grant_unmarked(8, &kept);
        for (uint32_t i = 1; i < 5000; ++i) {
                grant = grant_unmarked(8, &fd);
                cr_assert_eq(grant, first);
                cr_assert_eq(grant->n, i + 1);
                close_fd(fd);
        }
        cr_assert_eq(region->grants.n, 64 + 5000, "nobody knows which of them live");
        cr_assert_eq(region->grants.granted, 64 + 5000);
        cr_assert_eq(alice->granted, 64 + 5000);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 65);
        cr_assert_eq(house.grants.n, 65);
        cr_assert_eq(region_grants_held(region), REGION_HELD_BY_GRANTS);
        close_all(fds, 64);
        cr_assert_geq(region->grants.n, 1, "one is held");
        close_fd(kept);
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 0);
        cr_assert_eq(region->grants.granted, 64 + 5000);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 0);
        end();
}

TEST(grant, another_session_right_ticket_or_region_is_another_grant) {
        Region *other;
        Asker asker, later, by_ticket;
        Grant *grants[5];
        int fds[10];

        begin();
        other = house_named(&house, owner, "/y", 8192);
        asker = by_ticket = asker_of(7);
        later = asker_of(8);
        by_ticket.ticket = true;
        for (int i = 0; i < 10; i += 5) {
                grants[0] = grant_as(region, &asker, false, &fds[i]);
                grants[1] = grant_as(region, &asker, true, &fds[i + 1]);
                grants[2] = grant_as(region, &later, false, &fds[i + 2]);
                grants[3] = grant_as(region, &by_ticket, false, &fds[i + 3]);
                grants[4] = grant_as(other, &asker, false, &fds[i + 4]);
        }
        for (int i = 0; i < 5; ++i) {
                cr_assert_eq(grants[i]->n, 2);
                for (int k = 0; k < i; ++k)
                        cr_assert_neq(grants[i], grants[k]);
        }
        cr_assert(!grants[0]->writable && grants[1]->writable && grants[3]->ticket && !grants[0]->ticket);
        cr_assert_eq(region->grants.n, 8);
        cr_assert_eq(other->grants.n, 2);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 5);
        cr_assert(region_grants_has_unmarked(region, &asker, true));
        cr_assert(region_grants_has_unmarked(region, &asker, false));
        cr_assert(region_grants_has_unmarked(region, &later, false));
        cr_assert_not(region_grants_has_unmarked(region, &later, true));
        cr_assert_not(region_grants_has_unmarked(other, &later, false));
        cr_assert_not(region_grants_has_unmarked(other, &asker, true));
        close_all(fds, 10);
        end();
}

TEST(grant, one_more_of_the_same_needs_no_room) {
        Grant *grant, *none;
        Asker asker;
        int fds[3];
        Shortage s;

        begin();
        alice->max[ACCOUNT_GRANTS] = 1;
        asker = asker_of(7);
        cr_assert_not(grant_is_free(region, &asker, true));
        grant = grant_as(region, &asker, true, &fds[0]);
        cr_assert(grant_is_free(region, &asker, true) && !grant_is_free(region, &asker, false));
        cr_assert_eq(grant_as(region, &asker, true, &fds[1]), grant);
        cr_assert_eq(try_grant(&none, &fds[2], false, &s), GRANT_E_QUOTA);
        cr_assert_eq(fds[2], -7);
        cr_assert_eq(region->grants.n, 2);
        region->grants.marks_off = false;
        cr_assert_not(grant_is_free(region, &asker, true), "it would have a mark, and be one of its own");
        close_all(fds, 2);
        end();
}

TEST(grant, what_is_taken_back_was_not_handed_out) {
        Grant *grant;
        int fds[3];

        begin();
        grant = grant_unmarked(7, &fds[0]);
        for (int i = 1; i < 3; ++i)
                cr_assert_eq(grant_unmarked(7, &fds[i]), grant);
        close_all(fds, 3);
        cr_assert_null(grant_take_back(grant));
        cr_assert_null(grant_take_back(grant));
        cr_assert(grant->n == 1 && region->grants.n == 1 && alice->used[ACCOUNT_GRANTS] == 1);
        cr_assert_null(grant_take_back(grant));
        cr_assert(region->grants.n == 0 && alice->used[ACCOUNT_GRANTS] == 0 && house.grants.n == 0);
        cr_assert_null(grant_take_back(NULL));
        end();
}

TEST(grant, one_that_cannot_be_opened_once_more_stays_as_it_is) {
        Grant *grant, *none;
        int fd, no_fd;

        begin();
        (void)signal(SIGIO, SIG_IGN);
        grant = grant_unmarked(7, &fd);
        close_fd(fd);
        REQUIRE(fcntl(region->fd, F_SETLEASE, F_WRLCK) == 0);
        region->grants.marks_off = true;
        cr_assert_eq(try_grant(&none, &no_fd, true, NULL), GRANT_E_FAILED);
        cr_assert(none == NULL && no_fd == -7 && grant->n == 1 && region->grants.n == 1 && region->grants.granted == 1);
        REQUIRE(fcntl(region->fd, F_SETLEASE, F_UNLCK) == 0);
        end();
}

TEST(grant, as_often_as_can_be_counted_is_the_end_of_counting) {
        Grant *grant;
        int fds[3];

        begin();
        grant = grant_unmarked(7, &fds[0]);
        grant->n += UINT32_MAX - 1;
        region->grants.n += UINT32_MAX - 1;
        region->grants.granted += UINT32_MAX - 1;
        cr_assert_eq(grant_unmarked(7, &fds[1]), grant);
        cr_assert(grant->n == UINT32_MAX && region->grants.n == UINT32_MAX);
        cr_assert_eq(region->grants.granted, UINT64_C(1) << 32);
        (void)grant_take_back(grant);
        cr_assert_eq(grant->n, UINT32_MAX);

        grant = grant_unmarked(8, &fds[2]);
        cr_assert(grant->n == 1 && region->grants.n == UINT64_C(1) << 32);
        cr_assert(grants_leave(&house.grants, 7, SIZE_MAX) && grants_leave(&house.grants, 8, SIZE_MAX));
        cr_assert(region->grants.n == UINT32_MAX && house.grants.n == 1);
        close_all(fds, 3);
        (void)region_grants_reap(region);
        cr_assert_eq(region->grants.n, 0);
        end();
}

TEST(grant, one_that_is_over_is_not_handed_out_again) {
        Grant *grant;
        uint64_t id;
        int fd;

        begin();
        for (uint64_t i = 0; i < 20; ++i) {
                (void)grant_unmarked(100 + i, &fd);
                close_fd(fd);
        }
        id = grant_unmarked(7, &fd)->id;
        close_fd(fd);
        region->grants.reap_in = 0;
        (void)grant_to(false, &fd);
        cr_assert_eq(region->grants.over_to, id, "nobody held it");
        cr_assert_eq(region->grants.n, 1 + 21 - 4);
        close_fd(fd);

        grant = grant_unmarked(7, &fd);
        cr_assert(grant->id > id && grant->n == 1);
        cr_assert_eq(region->grants.n, 2 + 21 - 4 - 4 - 1);
        cr_assert(grants_leave(&house.grants, 119, SIZE_MAX) && region->grants.n == 13, "it goes, and joins nothing");
        for (int i = 0; i < 4; ++i) {
                close_fd(fd);
                cr_assert_eq(grant_unmarked(7, &fd), grant);
        }
        cr_assert(region->grants.n == 2 + 4 && grant->n == 5, "what is over has gone");
        close_fd(fd);
        end();
}

TEST(grant, when_marks_are_free_again_the_next_one_has_one) {
        Grant *grants[64], *grant;
        int fds[64], fd;

        begin();
        grant_many(grants, fds, 64);
        grant = grant_to(false, &fd);
        cr_assert_not(grant->marked);
        for (int i = 1; i < 64; ++i)
                fds[i] = close_fd(fds[i]);
        for (int i = 0; !grant->marked; ++i) {
                close_fd(fd);
                grant = grant_to(false, &fd);
                REQUIRE(i < 1000);
        }
        cr_assert_leq(region->grants.n_marked, 2);
        close_fd(fd);
        close_all(fds, 64);
        end();
}

/* -- what sessions leave ------------------------------------------------------------------------- */

TEST(grant, sessions_that_have_ended_leave_one_grant_for_each_user_and_right) {
        int fds[3000];
        size_t n = 0;
        Asker bob;
        Grant *left;

        begin();
        bob = (Asker){ .account = owner, .session = 5000, .uid = BOB, .pid = 78 };
        for (uint64_t i = 0; i < 1000; ++i) {
                (void)grant_unmarked(100 + i, &fds[n++]);
                if (i % 3 == 0)
                        (void)grant_unmarked(100 + i, &fds[n++]);
                cr_assert(grants_leave(&house.grants, 100 + i, 1));
                cr_assert_eq(alice->used[ACCOUNT_GRANTS], 1);
                cr_assert_eq(region->grants.n, n, "they may be open, and are");
        }
        (void)grant_as(region, &bob, true, &fds[n++]);
        bob.session = 5001;
        (void)grant_as(region, &bob, true, &fds[n++]);
        (void)grant_as(region, &bob, false, &fds[n++]);
        cr_assert_not(grants_leave(&house.grants, 5001, 1));
        cr_assert(grants_leave(&house.grants, 5001, 1));
        cr_assert_eq(owner->used[ACCOUNT_GRANTS], 3, "one session is still there");
        cr_assert(grants_leave(&house.grants, 5000, SIZE_MAX) && grants_leave(&house.grants, 5000, 0));
        cr_assert_eq(owner->used[ACCOUNT_GRANTS], 2);
        cr_assert_eq(alice->used[ACCOUNT_GRANTS], 1);
        left = list_first(&region->grants.list, Grant, in_region);
        cr_assert(left->session == 0 && left->uid == ALICE && left->n == 1000 + 334);
        cr_assert_eq(region->grants.n, n);
        close_all(fds, (int)n);
        (void)region_grants_reap(region);
        cr_assert(region->grants.n == 0 && house.grants.n == 0);
        end();
}

/* Leases do not work here. */
static int leave_without_leases(void *userdata) {
        int fds[2];

        begin();
        house_deny(EINVAL, SCMP_SYS(fcntl), 1, (struct scmp_arg_cmp[]){ { 1, SCMP_CMP_EQ, F_SETLEASE, 0 } });
        house.connected = 8;
        (void)grant_unmarked(8, &fds[0]);
        (void)grant_unmarked(8, &fds[1]);
        REQUIRE(region_grants_explain(region) && region->grants.n == 2);
        REQUIRE(grants_leave(&house.grants, 8, SIZE_MAX) && region->grants.n == 2);
        REQUIRE(!region_grants_explain(region) && region->grants.n == 0);
        close_all(fds, 2);
        end();
        return 0;
}

TEST(grant, without_leases_what_a_session_leaves_is_over) {
        house_expect_child(leave_without_leases, NULL);
}

/* -- never fewer than there are ------------------------------------------------------------------- */

#define SESSIONS 6
#define OPEN_MAX 200

typedef struct Open {
        Region *region;
        int fd;
} Open;

typedef struct Crowd {
        uint64_t random;
        Region *regions[3];
        Asker askers[SESSIONS];
        uint64_t last_session;
        Open opens[OPEN_MAX];
        unsigned int n;
} Crowd;

static uint64_t below(Crowd *crowd, uint64_t n) {
        return test_random(&crowd->random, n);
}

static void crowd_opens(Crowd *crowd) {
        Region *of = crowd->regions[below(crowd, 3)];
        Asker asker = crowd->askers[below(crowd, SESSIONS)];
        Grant *grant;
        int fd;

        if (crowd->n == OPEN_MAX)
                return;
        asker.ticket = below(crowd, 5) == 0;
        of->grants.marks_off = below(crowd, 2) == 0;
        REQUIRE(grant_new(&grant, &fd, &house.grants, of, &asker, below(crowd, 2), NULL) == 0);
        if (below(crowd, 8) == 0) {
                close_fd(fd);
                (void)grant_take_back(grant);
        } else {
                crowd->opens[crowd->n++] = (Open){ of, fd };
        }
}

static void crowd_closes(Crowd *crowd) {
        unsigned int i = (unsigned int)below(crowd, OPEN_MAX);

        if (i >= crowd->n)
                return;
        close_fd(crowd->opens[i].fd);
        crowd->opens[i] = crowd->opens[--crowd->n];
}

/* Another one begins in its place. */
static void crowd_session_ends(Crowd *crowd) {
        Asker *asker = &crowd->askers[below(crowd, SESSIONS)];

        while (!grants_leave(&house.grants, asker->session, below(crowd, 3)))
                continue;
        asker->session = ++crowd->last_session;
}

static void crowd_check(const Crowd *crowd) {
        uint64_t charged = alice->used[ACCOUNT_GRANTS] + owner->used[ACCOUNT_GRANTS];

        for (int i = 0; i < 3; ++i) {
                const Region *of = crowd->regions[i];
                uint64_t live = 0, n = 0, marked = 0;
                const Grant *grant;

                for (unsigned int k = 0; k < crowd->n; ++k)
                        live += crowd->opens[k].region == of;
                list_for_each(grant, &of->grants.list, Grant, in_region) {
                        REQUIRE(grant->joined == !grant->marked && (grant->n == 1 || !grant->marked));
                        n += grant->n;
                        marked += grant->marked;
                }
                REQUIRE(of->grants.n >= live && of->grants.n == n && of->grants.n_marked == marked);
                REQUIRE(of->grants.granted >= n);
        }
        REQUIRE(charged == house.grants.n);
}

TEST(grant, whatever_happens_there_are_never_more_holders_than_are_counted) {
        Crowd crowd = { .random = test_seed() };
        uint64_t rounds = test_rounds(40000);

        begin();
        crowd.regions[0] = region;
        crowd.regions[1] = house_named(&house, owner, "/y", 4096);
        crowd.regions[2] = house_named(&house, owner, "/z", 4096);
        for (unsigned int i = 0; i < SESSIONS; ++i) {
                crowd.askers[i] = asker_of(++crowd.last_session);
                if (i % 2)
                        crowd.askers[i].account = owner, crowd.askers[i].uid = BOB;
        }
        for (uint64_t i = 0; i < rounds; ++i) {
                uint64_t what = below(&crowd, 100);

                if (what < 45)
                        crowd_opens(&crowd);
                else if (what < 92)
                        crowd_closes(&crowd);
                else if (what < 96)
                        crowd_session_ends(&crowd);
                else
                        (void)region_grants_reap(crowd.regions[below(&crowd, 3)]);
                crowd_check(&crowd);
        }
        while (crowd.n > 0)
                close_fd(crowd.opens[--crowd.n].fd);
        for (int i = 0; i < 3; ++i)
                (void)region_grants_reap(crowd.regions[i]);
        cr_assert(house.grants.n == 0 && alice->used[ACCOUNT_GRANTS] == 0 && owner->used[ACCOUNT_GRANTS] == 0);
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
