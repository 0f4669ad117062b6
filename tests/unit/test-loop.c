/* daemon/net/loop: descriptors first, then what is due, and nobody is passed over. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/loop.h"

static Deadlines deadlines;
static Loop *loop;
static char ran[256];
static size_t enough;   /* that much in it ends the loop; 0: never */

static void begin(void) {
        enough = 0;
        deadlines_init(&deadlines);
        REQUIRE(loop_new(&loop, &deadlines) == 0);
        ran[0] = '\0';
}

static void end(void) {
        loop = loop_free(loop);
        deadlines_deinit(&deadlines);
}

static void say(const char *what) {
        REQUIRE(strlen(ran) + strlen(what) < sizeof(ran), "it goes on for ever: %s", ran);
        (void)strcat(ran, what);
}

/* Ends the loop once a deadline is due. */
static void stop(Deadline *deadline, void *userdata) {
        loop_stop(loop, userdata ? *(int *)userdata : 0);
}

/* A pipe whose reading end is a source. */
typedef struct Pipe {
        int fds[2];
        const char *name;
        Source *source;
        struct Pipe *other;
} Pipe;

static void pipe_open(Pipe *pipe, const char *name, SourceFn fn) {
        *pipe = (Pipe){ .name = name };
        REQUIRE(pipe2(pipe->fds, O_CLOEXEC | O_NONBLOCK) == 0);
        REQUIRE(source_new(&pipe->source, loop, pipe->fds[0], fn, pipe) == 0);
}

static void pipe_close(Pipe *pipe) {
        pipe->source = source_free(pipe->source);
        pipe->fds[0] = close_fd(pipe->fds[0]);
        pipe->fds[1] = close_fd(pipe->fds[1]);
}

static void pipe_write(Pipe *pipe, size_t n) {
        REQUIRE(write(pipe->fds[1], "xxxxxxxx", n) == (ssize_t)n);
}

/* Takes one byte a turn. */
static void take_byte(void *userdata) {
        Pipe *pipe = userdata;
        char byte;

        say(read(pipe->fds[0], &byte, 1) == 1 ? pipe->name : "!");
        if (strlen(ran) == enough)
                loop_stop(loop, 0);
}

TEST(loop, it_runs_until_it_is_stopped_and_gives_back_what_it_was_told) {
        static int result = -EIO;
        Deadline d = DEADLINE_NULL;

        begin();
        deadline_arm(&d, &deadlines, 0, stop, &result);
        cr_assert_eq(loop_run(loop), -EIO);
        end();
}

TEST(loop, what_is_left_unread_is_offered_again_in_the_next_turn) {
        Deadline d = DEADLINE_NULL;
        Pipe a;

        begin();
        pipe_open(&a, "a", take_byte);
        pipe_write(&a, 3);
        enough = 3;
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "aaa");
        deadline_arm(&d, &deadlines, 0, stop, NULL);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "aaa", "and nothing else is");
        pipe_close(&a);
        end();
}

TEST(loop, everybody_has_a_turn_before_anybody_has_a_second) {
        Pipe a, b;

        begin();
        pipe_open(&a, "a", take_byte);
        pipe_open(&b, "b", take_byte);
        pipe_write(&a, 4);
        pipe_write(&b, 4);
        enough = 8;
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_eq(strlen(ran), 8);
        for (size_t i = 0; i < 8; i += 2)
                cr_assert_neq(ran[i], ran[i + 1], "%s", ran);
        pipe_close(&a);
        pipe_close(&b);
        end();
}

static void due(Deadline *deadline, void *userdata) {
        say("d");
        if (strlen(ran) < 8)
                deadline_arm(deadline, &deadlines, 0, due, NULL);
        else
                loop_stop(loop, 0);
}

TEST(loop, deadlines_come_after_the_descriptors_of_a_turn_and_starve_nobody) {
        Deadline d = DEADLINE_NULL;
        Pipe a;

        begin();
        pipe_open(&a, "a", take_byte);
        pipe_write(&a, 4);
        deadline_arm(&d, &deadlines, 0, due, NULL);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "adadadad");
        pipe_close(&a);
        end();
}

static void name_deadline(Deadline *deadline, void *userdata) {
        say(userdata);
}

TEST(loop, it_wakes_for_the_earliest_deadline_whenever_that_was_armed) {
        Deadline d[4] = { DEADLINE_NULL };
        uint64_t now;

        begin();
        now = time_now();
        deadline_arm(&d[0], &deadlines, now + 3600 * NSEC_PER_SEC, name_deadline, (void *)"never");
        deadline_arm(&d[1], &deadlines, now + 30 * NSEC_PER_MSEC, stop, NULL);
        deadline_arm(&d[2], &deadlines, now + 10 * NSEC_PER_MSEC, name_deadline, (void *)"b");
        deadline_arm(&d[3], &deadlines, now + 5 * NSEC_PER_MSEC, name_deadline, (void *)"a");
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "ab");
        cr_assert_geq(time_now(), now + 30 * NSEC_PER_MSEC, "and never before its time");
        deadline_disarm(&d[0]);
        end();
}

static Deadline later = DEADLINE_NULL;

static void disarm_and_stop_soon(Deadline *deadline, void *userdata) {
        say("x");
        deadline_disarm(&later);
        deadline_arm(deadline, &deadlines, time_now() + 20 * NSEC_PER_MSEC, stop, NULL);
}

TEST(loop, one_that_was_disarmed_does_not_happen) {
        Deadline d = DEADLINE_NULL;

        begin();
        deadline_arm(&later, &deadlines, time_now() + 10 * NSEC_PER_MSEC, name_deadline, (void *)"late");
        deadline_arm(&d, &deadlines, 0, disarm_and_stop_soon, NULL);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "x");
        end();
}

static Deadline sooner = DEADLINE_NULL;

static void stop_sooner(void *userdata) {
        take_byte(userdata);
        deadline_arm(&sooner, &deadlines, time_now() + 10 * NSEC_PER_MSEC, stop, NULL);
}

TEST(loop, one_that_is_armed_when_the_timer_is_set_for_a_later_one_is_not_late) {
        Pipe a;

        begin();
        deadline_arm(&later, &deadlines, time_now() + 3600 * NSEC_PER_SEC, name_deadline, (void *)"late");
        pipe_open(&a, "a", stop_sooner);
        pipe_write(&a, 1);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "a");
        cr_assert(deadline_is_armed(&later));
        deadline_disarm(&later);
        pipe_close(&a);
        end();
}

static void stop_later(void *userdata) {
        take_byte(userdata);
        deadline_disarm(&sooner);
        deadline_arm(&later, &deadlines, later.at, stop, NULL);
}

TEST(loop, one_that_is_armed_when_the_timer_is_set_for_a_sooner_one_is_not_early) {
        uint64_t now;
        Pipe a;

        begin();
        now = time_now();
        deadline_arm(&sooner, &deadlines, now + 10 * NSEC_PER_MSEC, name_deadline, (void *)"soon");
        later.at = now + 40 * NSEC_PER_MSEC;
        pipe_open(&a, "a", stop_later);
        pipe_write(&a, 1);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "a");
        cr_assert_geq(time_now(), now + 40 * NSEC_PER_MSEC);
        pipe_close(&a);
        end();
}

static unsigned int turns, late_turns;
static uint64_t awake_until;

static void count_turn(void *userdata) {
        ++turns;
        late_turns += time_now() > awake_until;
        if (turns == *(unsigned int *)userdata)
                loop_stop(loop, 0);
}

TEST(loop, it_can_be_told_to_go_on_looking_with_nothing_to_do) {
        unsigned int most = 1000;

        turns = 0;
        begin();
        awake_until = time_now() + 3600 * NSEC_PER_SEC;
        loop_stay_awake(loop, awake_until);
        loop_stay_awake(loop, 1);
        loop_after_turn(loop, count_turn, &most);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_eq(turns, most);
        end();
}

TEST(loop, it_knows_when_it_asked_unless_it_would_not_have_slept) {
        Deadline d = DEADLINE_NULL;
        uint64_t began;
        Pipe a;

        begin();
        pipe_open(&a, "a", take_byte);
        pipe_write(&a, 1);
        enough = 1;
        cr_assert_eq(loop_asked(loop), 0);
        began = time_now();
        cr_assert_eq(loop_run(loop), 0);
        cr_assert(loop_asked(loop) >= began && loop_asked(loop) < time_now());
        deadline_arm(&d, &deadlines, 0, stop, NULL);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_eq(loop_asked(loop), 0);
        pipe_close(&a);
        end();
}

TEST(loop, it_sleeps_when_that_time_is_over) {
        Deadline d = DEADLINE_NULL;
        unsigned int most = UINT32_MAX;

        turns = late_turns = 0;
        begin();
        awake_until = time_now() + NSEC_PER_MSEC;
        loop_stay_awake(loop, awake_until);
        deadline_arm(&d, &deadlines, awake_until + 20 * NSEC_PER_MSEC, stop, NULL);
        loop_after_turn(loop, count_turn, &most);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_leq(late_turns, 2, "one that began before, and the one in which it slept: %u", late_turns);
        end();
}

TEST(loop, whoever_has_something_is_served_while_it_goes_on_looking) {
        Deadline d = DEADLINE_NULL;
        Pipe a, b;

        begin();
        pipe_open(&a, "a", take_byte);
        pipe_open(&b, "b", take_byte);
        loop_stay_awake(loop, time_now() + 3600 * NSEC_PER_SEC);
        pipe_write(&a, 3);
        deadline_arm(&d, &deadlines, time_now() + 3600 * NSEC_PER_SEC, stop, NULL);
        enough = 3;
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "aaa");
        pipe_write(&b, 1);
        enough = 4;
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "aaab");
        deadline_disarm(&d);
        pipe_close(&a);
        pipe_close(&b);
        end();
}

TEST(loop, a_disabled_source_is_silent_and_an_enabled_one_catches_up) {
        Deadline d = DEADLINE_NULL;
        Pipe a, b;

        begin();
        pipe_open(&a, "a", take_byte);
        pipe_open(&b, "b", take_byte);
        cr_assert_eq(source_enable(b.source, false), 0);
        cr_assert_eq(source_enable(b.source, false), 0);
        pipe_write(&b, 1);
        deadline_arm(&d, &deadlines, time_now() + 20 * NSEC_PER_MSEC, stop, NULL);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "");
        pipe_close(&a);
        pipe_close(&b);
        end();

        begin();
        pipe_open(&b, "b", take_byte);
        enough = 1;
        cr_assert_eq(source_enable(b.source, false), 0);
        pipe_write(&b, 1);
        cr_assert_eq(source_enable(b.source, true), 0);
        cr_assert_eq(source_enable(b.source, true), 0);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "b");
        pipe_close(&b);
        end();
}

static void see_end(void *userdata) {
        Pipe *pipe = userdata;
        char byte;

        say(read(pipe->fds[0], &byte, 1) == 0 ? "end" : "!");
        loop_stop(loop, 0);
}

TEST(loop, the_end_of_the_other_side_is_readable) {
        Pipe a;

        begin();
        pipe_open(&a, "a", see_end);
        a.fds[1] = close_fd(a.fds[1]);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "end");
        pipe_close(&a);
        end();
}

/* Two are ready in one turn, and whichever is called first sees to it that the other one is not. */
static void expect_one_called(SourceFn fn) {
        Deadline d = DEADLINE_NULL;
        Pipe a, b;

        begin();
        pipe_open(&a, "1", fn);
        pipe_open(&b, "1", fn);
        a.other = &b;
        b.other = &a;
        pipe_write(&a, 1);
        pipe_write(&b, 1);
        deadline_arm(&d, &deadlines, time_now() + 20 * NSEC_PER_MSEC, stop, NULL);
        cr_assert_eq(loop_run(loop), 0);
        cr_assert_str_eq(ran, "1");
        pipe_close(&a);
        pipe_close(&b);
        end();
}

/* Frees itself and another one that is ready in the same turn. */
static void free_both(void *userdata) {
        Pipe *pipe = userdata;

        say(pipe->name);
        pipe->other->source = source_free(pipe->other->source);
        pipe->source = source_free(pipe->source);
}

TEST(loop, a_source_that_is_freed_in_a_turn_is_not_called_in_it) {
        expect_one_called(free_both);
}

static void disable_other(void *userdata) {
        Pipe *pipe = userdata;

        take_byte(pipe);
        cr_assert_eq(source_enable(pipe->other->source, false), 0);
}

TEST(loop, a_source_that_is_disabled_in_a_turn_is_not_called_in_it) {
        expect_one_called(disable_other);
}

TEST(loop, what_cannot_be_waited_for_is_an_error_and_leaves_nothing) {
        int directory = open("/", O_RDONLY | O_CLOEXEC);
        Source *source = NULL;

        begin();
        cr_assert_eq(source_new(&source, loop, directory, take_byte, NULL), -EPERM);
        cr_assert_lt(source_new(&source, loop, 4000, take_byte, NULL), 0);
        cr_assert_eq(source, NULL);
        cr_assert_eq(source_free(NULL), NULL);
        close_fd(directory);
        end();
        cr_assert_eq(loop_free(NULL), NULL);
}

TEST(loop, the_environment_does_not_choose_how_it_waits) {
        REQUIRE(setenv("EVENT_NOEPOLL", "1", 1) == 0 && setenv("EVENT_NOPOLL", "1", 1) == 0);
        REQUIRE(setenv("EVENT_NOSELECT", "1", 1) == 0 && setenv("EVENT_SHOW_METHOD", "1", 1) == 0);
        begin();
        end();
}

static int end_with_source(void *userdata) {
        Pipe a;

        begin();
        pipe_open(&a, "a", take_byte);
        loop = loop_free(loop);
        return 0;
}

TEST(loop, a_source_that_is_left_at_the_end_is_a_bug) {
        house_expect_signal(SIGABRT, end_with_source, NULL);
}
