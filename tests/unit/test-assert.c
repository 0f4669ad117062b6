/* include/base/assert.h: a broken invariant stops the program, in every build. */

#include "lib/test.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef NDEBUG
#define NDEBUG
#endif
#include "base/assert.h"

static int evaluated;

static int count_and_return(int value) {
        ++evaluated;
        return value;
}

TEST(assert, a_true_condition_is_evaluated_once_and_goes_on) {
        ASSERT(count_and_return(1));
        cr_assert_eq(evaluated, 1);
        ASSERT(count_and_return(-7));
        cr_assert_eq(evaluated, 2);
}

TEST(assert, it_is_one_statement) {
        if (count_and_return(0))
                ASSERT(false);
        else
                ASSERT(true);
        cr_assert_eq(evaluated, 1);
}

TEST(assert, a_false_condition_aborts_and_says_where) {
        char text[512] = "";
        int fds[2], status;
        ssize_t n;
        pid_t pid;

        cr_assert_eq(pipe(fds), 0);
        pid = fork();
        if (pid == 0) {
                (void)signal(SIGABRT, SIG_DFL);
                (void)dup2(fds[1], 2);
                ASSERT(1 + 1 == 3);
                _exit(0);
        }
        cr_assert_gt(pid, 0);
        (void)close(fds[1]);
        n = read(fds[0], text, sizeof(text) - 1);
        (void)close(fds[0]);
        status = test_wait_pid(pid);

        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x", status);
        cr_assert_gt(n, 0);
        cr_assert_not_null(strstr(text, "1 + 1 == 3"), "%s", text);
        cr_assert_not_null(strstr(text, "test-assert.c:"), "%s", text);
}
