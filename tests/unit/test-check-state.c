/* daemon/check-state: a file is told apart into what is in it and what is wrong with it. */

#include "daemon-house.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check-state.h"
#include "state-world.h"

static char out[4096], err[4096];

static void take_over(int fd, int with, int *ret_saved) {
        (void)fflush(NULL);
        *ret_saved = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        REQUIRE(*ret_saved >= 0 && dup2(with, fd) == fd);
}

static void give_back(int fd, int with, int saved, char text[4096]) {
        ssize_t n;

        (void)fflush(NULL);
        REQUIRE(dup2(saved, fd) == fd);
        n = pread(with, text, 4095, 0);
        REQUIRE(n >= 0);
        text[n] = '\0';
        (void)close_fd(saved);
        (void)close_fd(with);
}

/* Return: what check_state() did; what it said is in out and err. */
static bool check_file(const char *path) {
        int memory[2] = { memfd_create("out", MFD_CLOEXEC), memfd_create("err", MFD_CLOEXEC) }, saved[2];
        bool ok;

        REQUIRE(memory[0] >= 0 && memory[1] >= 0);
        take_over(STDOUT_FILENO, memory[0], &saved[0]);
        take_over(STDERR_FILENO, memory[1], &saved[1]);
        ok = check_state(path);
        give_back(STDOUT_FILENO, memory[0], saved[0], out);
        give_back(STDERR_FILENO, memory[1], saved[1], err);
        return ok;
}

static bool check_fd(int fd) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return check_file(path);
}

TEST(check_state, what_is_in_it_is_printed) {
        World w = world();
        State *state = build(&w);
        int fd;

        state_commit(state);
        fd = sealed_copy_of(state);
        cr_assert(check_fd(fd), "%s", err);
        cr_assert_str_eq(err, "");
        cr_assert_str_eq(out, "version 1\ntransactions 1\ncells 1023\nused 17\ncounters 1\npolicies 1\ndirectories 3\n"
                              "regions 4\nnames 2\ntickets 1\ngrants 1\nsessions 1\noutcomes 1\nbatches 1\nbytes 16384\n"
                              "generation 3\nmistakes 0\n");
        close_fd(fd);
        demolish(state);
}

TEST(check_state, a_mistake_is_told_and_counted) {
        World w = world();
        State *state;

        w.name.region = 99;
        state = build(&w);
        state_commit(state);
        cr_assert(!check_fd(state_fd(state)));
        cr_assert_neq(strstr(err, ": name 20 in cell 11: its region is not there (99)\n"), NULL, "%s", err);
        cr_assert_neq(strstr(out, "mistakes 1\n"), NULL);
        demolish(state);
}

/* It is looked at while a broker works with it. */
TEST(check_state, a_file_is_never_changed) {
        World w = world();
        State *state = build(&w), *next;

        state_commit(state);
        cr_assert(check_fd(state_fd(state)));
        w.name.region = 99;
        fill(&things[0], 3, 1);
        state_touch(&things[0].record);
        state_commit(state);
        next = adopt(copy_of(state));
        cr_assert_eq(state_commits(next), 2);
        state_free(next);
        demolish(state);
}

TEST(check_state, a_file_that_is_no_state_is_told_so) {
        World w = world();
        State *state = build(&w);
        uint32_t newer = 2;

        cr_assert(!check_file("/nonexistent/state"));
        cr_assert_str_eq(err, "/nonexistent/state: No such file or directory\n");
        cr_assert(!check_file("/dev/null"));
        cr_assert_str_eq(err, "/dev/null: it is too short to be a state\n");
        cr_assert(!check_file("/proc/self/exe"));
        cr_assert_str_eq(err, "/proc/self/exe: it is no state of a broker\n");
        cr_assert(!check_file("/"));
        cr_assert_str_eq(err, "/: Is a directory\n");
        cr_assert_str_eq(out, "");

        cr_assert_eq(pwrite(state_fd(state), &newer, sizeof(newer), 12), (ssize_t)sizeof(newer));
        cr_assert(!check_fd(state_fd(state)));
        cr_assert_neq(strstr(err, ": it was written by a newer broker, in a later version of the format than 1\n"), NULL);
        demolish(state);
}
