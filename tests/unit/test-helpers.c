/* daemon/broker/helpers: jobs find workers, nobody keeps them all, and what is stuck is given up.
 *
 * The test is the supervisor, and every worker.
 */

#include "daemon-house.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/helpers.h"
#include "util/log.h"

#define LIMIT (60 * NSEC_PER_SEC)
#define DAVE 64104
#define ERIN 64105

static House house;
static Loop *loop;
static Helpers helpers;
static int supervisor;          /* our end */
static int64_t last_pid;

typedef struct Job {
        HelperJob job;
        Account *account;
        Region *region;
        Charge charge;
        unsigned int n_ends;
        HelpersOutcome outcome;
} Job;

typedef struct Hand {
        int fd;
        int64_t pid;
        HelperPacket packet;
} Hand;

/* -- the stage ------------------------------------------------------------------------------- */

static void begin(void) {
        int pair[2];

        house_open(&house);
        REQUIRE(log_open(2) == 0);
        REQUIRE(loop_new(&loop, &house.deadlines) == 0);
        helpers_init(&helpers, &house.deadlines, LIMIT);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        supervisor = pair[0];
        REQUIRE(helpers_start_consume_fd(&helpers, loop, pair[1]) == 0);
        last_pid = 1000;
}

static void end(void) {
        helpers_deinit(&helpers);
        supervisor = close_fd(supervisor);
        house_close(&house);
        loop = loop_free(loop);
        log_close();
}

static void stop(Deadline *deadline, void *userdata) {
        loop_stop(loop, 0);
}

/* Lets the loop do what there is to do. */
static void turn(void) {
        for (int i = 0; i < 8; ++i) {
                Deadline now = DEADLINE_NULL;

                deadline_arm(&now, &house.deadlines, 0, stop, NULL);
                REQUIRE(loop_run(loop) == 0);
        }
}

/* As if that much time had passed. */
static void pass(uint64_t ns) {
        deadlines_run(&house.deadlines, time_now() + ns);
        turn();
}

static void over(HelperJob *job, HelpersOutcome outcome) {
        Job *of = job->userdata;

        ++of->n_ends;
        of->outcome = outcome;
}

static void job_make(Job *job, uid_t uid) {
        static const Cost cost = { .slots = { [ACCOUNT_PENDING] = 1 } };

        *job = (Job){ .account = house_account(&house, uid), .charge = CHARGE_NULL };
        job->job = (HelperJob){ .packet = { .op = HELPER_POKE }, .fn = over, .userdata = job };
        job->region = house_region(&house, job->account, PAGE);
        REQUIRE(account_charge(job->account, &cost, &job->charge, NULL) == 0);
}

static int job_submit(Job *job) {
        return helper_job_submit(&job->job, &helpers, job->account, job->region);
}

static void job_new(Job *job, uid_t uid) {
        job_make(job, uid);
        REQUIRE(job_submit(job) == 0);
}

static void job_drop(Job *job) {
        helper_job_cancel(&job->job);
        charge_release(&job->charge);
        if (job->region && !job->region->lent)
                job->region = region_free(job->region);
        job->account = account_unref(job->account);
}

#define expect_end(of, expected)                                                                \
        do {                                                                                    \
                cr_assert_eq((of)->n_ends, 1, "ended %u times", (of)->n_ends);                  \
                cr_assert_eq((of)->outcome, expected, "outcome %d", (int)(of)->outcome);        \
        } while (0)

static bool asked(HelperOp op, int64_t pid) {
        HelperPacket packet;
        int fd, r = helperlink_receive(supervisor, false, &packet, &fd);

        REQUIRE(fd == -1);
        return r == 0 && packet.op == op && packet.pid == pid;
}

static bool asked_nothing(void) {
        HelperPacket packet;
        int fd;

        return helperlink_receive(supervisor, false, &packet, &fd) == HELPERLINK_E_AGAIN;
}

/* Gives the broker a worker. */
static void hand_give(Hand *hand) {
        HelperPacket packet = { .op = HELPER_WORKER, .pid = ++last_pid };
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        REQUIRE(helperlink_send(supervisor, &packet, pair[1]) == 0);
        (void)close(pair[1]);
        *hand = (Hand){ .fd = pair[0], .pid = last_pid };
        turn();
}

static void hand_new(Hand *hand) {
        REQUIRE(asked(HELPER_SPAWN, 0), "no worker was asked for");
        hand_give(hand);
}

/* Takes the job it was sent. Return: whether there was one. */
static bool hand_take(Hand *hand) {
        int fd, r = helperlink_receive(hand->fd, false, &hand->packet, &fd);

        REQUIRE((r == 0) == (fd >= 0), "a job comes with a region");
        fd = close_fd(fd);
        return r == 0;
}

static void hand_answer(Hand *hand, int result) {
        HelperPacket packet = { .op = HELPER_DONE, .serial = hand->packet.serial, .result = result };

        REQUIRE(helperlink_send(hand->fd, &packet, -1) == 0);
        turn();
}

static void hand_die(Hand *hand) {
        hand->fd = close_fd(hand->fd);
        turn();
}

/* -- the ordinary way -------------------------------------------------------------------------- */

TEST(helpers, no_process_is_asked_for_before_there_is_a_job) {
        begin();
        turn();
        cr_assert(asked_nothing());
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER);
        end();
}

TEST(helpers, a_job_goes_to_a_worker_and_its_result_comes_back) {
        Hand hand;
        Job job;

        begin();
        job_new(&job, ALICE);
        hand_new(&hand);
        cr_assert(hand_take(&hand) && hand.packet.op == HELPER_POKE && hand.packet.serial != 0);
        cr_assert(job.region->lent);
        cr_assert_eq(job.n_ends, 0);
        hand_answer(&hand, 0);
        expect_end(&job, HELPERS_DONE);
        cr_assert(!job.region->lent);
        cr_assert_eq(deadlines_next(&house.deadlines), DEADLINE_NEVER, "an idle helper arms nothing");
        job_drop(&job);
        hand_die(&hand);
        end();
}

TEST(helpers, what_the_kernel_refused_comes_back_as_its_error) {
        Hand hand;
        Job job;

        begin();
        job_new(&job, ALICE);
        hand_new(&hand);
        REQUIRE(hand_take(&hand));
        hand_answer(&hand, -EBUSY);
        expect_end(&job, HELPERS_FAILED);
        cr_assert_eq(job.job.error, -EBUSY);
        job_drop(&job);
        hand_die(&hand);
        end();
}

TEST(helpers, an_idle_worker_gets_the_next_job) {
        Hand hand;
        Job job;

        begin();
        job_new(&job, ALICE);
        hand_new(&hand);
        for (unsigned int i = 0; i < 3; ++i) {
                REQUIRE(hand_take(&hand));
                hand_answer(&hand, 0);
                cr_assert_eq(job.n_ends, i + 1);
                REQUIRE(i == 2 || job_submit(&job) == 0);
        }
        cr_assert(asked_nothing());
        job_drop(&job);
        hand_die(&hand);
        end();
}

TEST(helpers, a_region_has_one_job_at_a_time) {
        Hand hand;
        Job job, second;

        begin();
        job_new(&job, ALICE);
        job_make(&second, ALICE);
        cr_assert_eq(helper_job_submit(&second.job, &helpers, second.account, job.region), HELPERS_E_BUSY);
        cr_assert_eq(second.n_ends, 0);
        hand_new(&hand);
        REQUIRE(hand_take(&hand));
        cr_assert_eq(helper_job_submit(&second.job, &helpers, second.account, job.region), HELPERS_E_BUSY);
        hand_answer(&hand, 0);
        cr_assert_eq(helper_job_submit(&second.job, &helpers, second.account, job.region), 0);
        REQUIRE(hand_take(&hand));
        hand_answer(&hand, 0);
        expect_end(&second, HELPERS_DONE);
        job_drop(&second);
        job_drop(&job);
        hand_die(&hand);
        end();
}

TEST(helpers, an_orphan_that_is_lent_is_released_when_it_comes_back) {
        Hand hand;
        Job job;

        begin();
        job_new(&job, ALICE);
        region_orphan(job.region);
        hand_new(&hand);
        REQUIRE(hand_take(&hand));
        house_turn(&house);
        cr_assert_eq(house.regions.n, 1, "it was released while it was lent");
        cr_assert_eq(job.account->used[ACCOUNT_BYTES], PAGE);
        job.region = NULL;
        hand_answer(&hand, 0);
        house_until(&house, house.regions.n == 0);
        expect_end(&job, HELPERS_DONE);
        job_drop(&job);
        hand_die(&hand);
        end();
}

/* -- shares ------------------------------------------------------------------------------------- */

TEST(helpers, one_account_keeps_two_workers_busy_and_no_more) {
        Hand hands[2];
        Job jobs[3];

        begin();
        for (size_t i = 0; i < 3; ++i)
                job_new(&jobs[i], ALICE);
        for (size_t i = 0; i < 2; ++i) {
                hand_new(&hands[i]);
                REQUIRE(hand_take(&hands[i]));
        }
        cr_assert(asked_nothing(), "a third worker for one account");
        hand_answer(&hands[0], 0);
        cr_assert(hand_take(&hands[0]), "the third job");
        hand_answer(&hands[0], 0);
        hand_answer(&hands[1], 0);
        for (size_t i = 0; i < 3; ++i) {
                expect_end(&jobs[i], HELPERS_DONE);
                job_drop(&jobs[i]);
        }
        for (size_t i = 0; i < 2; ++i)
                hand_die(&hands[i]);
        end();
}

TEST(helpers, accounts_take_turns) {
        Job jobs[5];
        Hand hand;
        uint64_t order[5];

        begin();
        /* Four of Alice's, then one of Bob's, and one worker. */
        for (size_t i = 0; i < 5; ++i) {
                job_make(&jobs[i], i < 4 ? ALICE : BOB);
                jobs[i].job.packet.offset = i;
                REQUIRE(job_submit(&jobs[i]) == 0);
        }
        hand_new(&hand);
        for (size_t i = 0; i < 5; ++i) {
                REQUIRE(hand_take(&hand));
                order[i] = hand.packet.offset;
                hand_answer(&hand, 0);
        }
        cr_assert(order[0] == 0 && order[1] == 4 && order[2] == 1 && order[3] == 2 && order[4] == 3,
                  "%d %d %d %d %d", (int)order[0], (int)order[1], (int)order[2], (int)order[3], (int)order[4]);
        for (size_t i = 0; i < 5; ++i)
                job_drop(&jobs[i]);
        hand_die(&hand);
        end();
}

TEST(helpers, there_are_four_workers_at_most) {
        static const uid_t uids[] = { ALICE, BOB, CAROL, DAVE, ERIN };
        Hand hands[HELPERS_MAX];
        Job jobs[5];

        begin();
        for (size_t i = 0; i < 5; ++i)
                job_new(&jobs[i], uids[i]);
        for (size_t i = 0; i < HELPERS_MAX; ++i) {
                hand_new(&hands[i]);
                REQUIRE(hand_take(&hands[i]));
        }
        cr_assert(asked_nothing());
        for (size_t i = 0; i < HELPERS_MAX; ++i)
                hand_answer(&hands[i], 0);
        REQUIRE(hand_take(&hands[0]));
        hand_answer(&hands[0], 0);
        for (size_t i = 0; i < 5; ++i) {
                expect_end(&jobs[i], HELPERS_DONE);
                job_drop(&jobs[i]);
        }
        for (size_t i = 0; i < HELPERS_MAX; ++i)
                hand_die(&hands[i]);
        end();
}

/* -- being late ----------------------------------------------------------------------------------- */

TEST(helpers, a_job_that_finds_no_worker_in_time_is_late) {
        Job job;

        begin();
        job_new(&job, ALICE);
        pass(LIMIT + 1);
        expect_end(&job, HELPERS_LATE);
        cr_assert(!job.region->lent, "nobody has it");
        cr_assert_eq(helpers.n_replaced, 0);
        job_drop(&job);
        end();
}

TEST(helpers, a_stuck_worker_is_killed_and_its_region_lent_until_it_is_gone) {
        Hand stuck, other;
        Job job, next;

        begin();
        job_new(&job, ALICE);
        hand_new(&stuck);
        REQUIRE(hand_take(&stuck));
        pass(LIMIT + 1);
        expect_end(&job, HELPERS_LATE);
        cr_assert(asked(HELPER_KILL, stuck.pid));
        cr_assert_eq(helpers.n_replaced, 1);
        cr_assert(job.region->lent);
        cr_assert_eq(job_submit(&job), HELPERS_E_BUSY);

        job_new(&next, ALICE);
        hand_new(&other);
        REQUIRE(hand_take(&other));
        hand_answer(&other, 0);
        expect_end(&next, HELPERS_DONE);

        hand_answer(&stuck, 0);         /* in its last moment: of no use any more */
        cr_assert_eq(job.n_ends, 1);
        cr_assert(job.region->lent);
        hand_die(&stuck);
        cr_assert(asked(HELPER_REAP, stuck.pid));
        cr_assert(!job.region->lent);
        job_drop(&job);
        job_drop(&next);
        hand_die(&other);
        end();
}

TEST(helpers, what_is_stuck_counts_as_its_accounts_until_it_is_gone) {
        Hand stuck[2], other;
        Job jobs[3], bobs;

        begin();
        for (size_t i = 0; i < 2; ++i) {
                job_new(&jobs[i], ALICE);
                hand_new(&stuck[i]);
                REQUIRE(hand_take(&stuck[i]));
        }
        pass(LIMIT + 1);
        for (size_t i = 0; i < 2; ++i) {
                expect_end(&jobs[i], HELPERS_LATE);
                REQUIRE(asked(HELPER_KILL, stuck[i].pid));
        }
        job_new(&jobs[2], ALICE);
        cr_assert(asked_nothing(), "Alice has her share");
        job_new(&bobs, BOB);
        hand_new(&other);
        REQUIRE(hand_take(&other));
        hand_answer(&other, 0);
        expect_end(&bobs, HELPERS_DONE);
        cr_assert_eq(jobs[2].n_ends, 0);

        hand_die(&stuck[1]);
        REQUIRE(hand_take(&other));
        hand_answer(&other, 0);
        expect_end(&jobs[2], HELPERS_DONE);
        hand_die(&stuck[0]);
        for (size_t i = 0; i < 3; ++i)
                job_drop(&jobs[i]);
        job_drop(&bobs);
        hand_die(&other);
        end();
}

TEST(helpers, processes_are_bounded_also_when_none_of_the_killed_goes_away) {
        static const uid_t uids[] = { ALICE, ALICE, BOB, BOB, CAROL, CAROL, DAVE, DAVE, ERIN };
        Hand hands[HELPER_PROCESSES_MAX];
        Job jobs[9];

        begin();
        for (size_t i = 0; i < HELPER_PROCESSES_MAX; ++i) {
                job_new(&jobs[i], uids[i]);
                hand_new(&hands[i]);
                REQUIRE(hand_take(&hands[i]));
                pass(LIMIT + 1);
                REQUIRE(asked(HELPER_KILL, hands[i].pid));
        }
        job_new(&jobs[8], ERIN);
        cr_assert(asked_nothing(), "a ninth process");
        hand_die(&hands[2]);
        REQUIRE(asked(HELPER_REAP, hands[2].pid));
        hand_new(&hands[2]);
        REQUIRE(hand_take(&hands[2]));
        hand_answer(&hands[2], 0);
        expect_end(&jobs[8], HELPERS_DONE);
        for (size_t i = 0; i < HELPER_PROCESSES_MAX; ++i)
                hand_die(&hands[i]);
        for (size_t i = 0; i < 9; ++i)
                job_drop(&jobs[i]);
        end();
}

TEST(helpers, the_end_of_the_broker_waits_for_nobody) {
        Hand stuck;
        Job job;

        begin();
        job_new(&job, ALICE);
        hand_new(&stuck);
        REQUIRE(hand_take(&stuck));
        region_orphan(job.region);
        job.region = NULL;
        job_drop(&job);
        end();
        stuck.fd = close_fd(stuck.fd);
}

/* -- those who leave ------------------------------------------------------------------------------- */

TEST(helpers, a_cancelled_job_in_line_never_goes_out) {
        Hand hand;
        Job job;

        begin();
        job_new(&job, ALICE);
        job_drop(&job);
        hand_new(&hand);
        cr_assert(!hand_take(&hand));
        cr_assert_eq(job.n_ends, 0);
        hand_die(&hand);
        end();
}

TEST(helpers, what_was_begun_goes_on_when_it_is_cancelled_and_ends_unheard) {
        Hand hand;
        Job job;
        Region *region;

        begin();
        job_new(&job, ALICE);
        hand_new(&hand);
        REQUIRE(hand_take(&hand));
        region = job.region;
        job_drop(&job);
        cr_assert(region->lent);
        pass(LIMIT + 1);
        cr_assert(asked_nothing(), "nobody waits, so nobody is late");
        hand_answer(&hand, 0);
        cr_assert(!region->lent);
        cr_assert_eq(job.n_ends, 0);
        region = region_free(region);
        hand_die(&hand);
        end();
}

TEST(helpers, a_worker_that_dies_costs_a_job_one_repetition) {
        Hand hands[2];
        Job job;

        begin();
        job_new(&job, ALICE);
        for (size_t i = 0; i < 2; ++i) {
                hand_new(&hands[i]);
                REQUIRE(hand_take(&hands[i]));
                cr_assert(job.region->lent);
                cr_assert_eq(job.n_ends, 0);
                hand_die(&hands[i]);
                cr_assert(asked(HELPER_REAP, hands[i].pid));
        }
        expect_end(&job, HELPERS_GONE);
        cr_assert(!job.region->lent && asked_nothing());
        job_drop(&job);
        end();
}

TEST(helpers, an_idle_worker_that_died_is_replaced_when_there_is_a_job) {
        Hand hand;
        Job job;

        begin();
        job_new(&job, ALICE);
        hand_new(&hand);
        REQUIRE(hand_take(&hand));
        hand_answer(&hand, 0);
        hand.fd = close_fd(hand.fd);    /* and before the broker hears of it: */
        REQUIRE(job_submit(&job) == 0);
        turn();
        REQUIRE(asked(HELPER_SPAWN, 0) && asked(HELPER_REAP, hand.pid));
        hand_give(&hand);
        REQUIRE(hand_take(&hand));
        hand_answer(&hand, 0);
        cr_assert_eq(job.n_ends, 2);
        cr_assert_eq(job.outcome, HELPERS_DONE);
        job_drop(&job);
        hand_die(&hand);
        end();
}

TEST(helpers, a_worker_that_answers_what_it_was_not_asked_is_killed) {
        static const HelperPacket wrong[] = {
                { .op = HELPER_DONE, .serial = 77 }, { .op = HELPER_WORKER, .serial = 1 },
        };

        for (size_t i = 0; i < 2; ++i) {
                Hand hand;
                Job job;

                begin();
                job_new(&job, ALICE);
                hand_new(&hand);
                REQUIRE(hand_take(&hand));
                REQUIRE(helperlink_send(hand.fd, &wrong[i], -1) == 0);
                turn();
                cr_assert(asked(HELPER_KILL, hand.pid));
                cr_assert_eq(job.n_ends, 0);
                hand_die(&hand);
                cr_assert(asked(HELPER_REAP, hand.pid));
                job_drop(&job);
                end();
        }
}

TEST(helpers, without_a_supervisor_every_job_is_refused) {
        Hand hand;
        Job jobs[3];

        begin();
        for (size_t i = 0; i < 3; ++i)
                job_new(&jobs[i], ALICE);
        hand_new(&hand);
        REQUIRE(hand_take(&hand));
        supervisor = close_fd(supervisor);
        turn();
        for (size_t i = 1; i < 3; ++i) {
                expect_end(&jobs[i], HELPERS_GONE);
                cr_assert(!jobs[i].region->lent);
                cr_assert_eq(job_submit(&jobs[i]), HELPERS_E_GONE);
        }
        cr_assert_eq(jobs[0].n_ends, 0, "its worker may still answer");
        hand_die(&hand);
        expect_end(&jobs[0], HELPERS_GONE);
        for (size_t i = 0; i < 3; ++i)
                job_drop(&jobs[i]);
        end();
}

TEST(helpers, a_supervisor_that_cannot_fork_is_asked_again_by_the_next_job) {
        HelperPacket failed = { .op = HELPER_WORKER, .result = -EAGAIN };
        Hand hand;
        Job jobs[2];

        begin();
        job_new(&jobs[0], ALICE);
        REQUIRE(asked(HELPER_SPAWN, 0) && helperlink_send(supervisor, &failed, -1) == 0);
        turn();
        cr_assert(asked_nothing(), "no storm");
        job_new(&jobs[1], BOB);
        hand_new(&hand);
        for (size_t i = 0; i < 2; ++i) {
                REQUIRE(hand_take(&hand));
                hand_answer(&hand, 0);
                expect_end(&jobs[i], HELPERS_DONE);
                job_drop(&jobs[i]);
        }
        hand_die(&hand);
        end();
}
