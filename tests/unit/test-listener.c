/* daemon/net/listener: it takes nobody's socket away, never dies and never spins. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/listener.h"
#include "util/probe.h"

static char directory[64], path[108];

static void make_directory(void) {
        (void)strcpy(directory, "/tmp/shmd-unit-XXXXXX");
        REQUIRE(mkdtemp(directory));
        (void)snprintf(path, sizeof(path), "%s/socket", directory);
}

static void remove_directory(void) {
        (void)unlink(path);
        REQUIRE(rmdir(directory) == 0, "%s", strerror(errno));
}

static struct sockaddr_un address(void) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };

        (void)strcpy(a.sun_path, path);
        return a;
}

static int connect_to(void) {
        struct sockaddr_un a = address();
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        REQUIRE(fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0, "%s", strerror(errno));
        return fd;
}

/* A socket of another kind that is bound there. */
static int bind_other(int type, bool listens) {
        struct sockaddr_un a = address();
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        REQUIRE(fd >= 0 && bind(fd, (const struct sockaddr *)&a, sizeof(a)) == 0, "%s", strerror(errno));
        REQUIRE(!listens || listen(fd, 1) == 0);
        return fd;
}

/* -- binding ------------------------------------------------------------------------------- */

TEST(listener, it_binds_with_the_mode_it_is_told_whatever_the_umask) {
        static const unsigned int modes[] = { 0666, 0600, 0660 };
        struct stat st;
        int fd;

        make_directory();
        (void)umask(0777);
        for (size_t i = 0; i < 3; ++i) {
                cr_assert_eq(listener_bind(path, modes[i], &fd), 0);
                cr_assert_eq(stat(path, &st), 0);
                cr_assert(S_ISSOCK(st.st_mode));
                cr_assert_eq(st.st_mode & 07777, modes[i]);
                cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
                close_fd(fd);
        }
        remove_directory();
}

TEST(listener, a_socket_nobody_answers_on_is_replaced) {
        struct stat before, after;
        int fd, client;

        make_directory();
        cr_assert_eq(listener_bind(path, 0666, &fd), 0);
        REQUIRE(stat(path, &before) == 0);
        close_fd(fd);
        cr_assert_eq(listener_bind(path, 0666, &fd), 0);
        REQUIRE(stat(path, &after) == 0);
        client = connect_to();
        close_fd(client);
        close_fd(fd);
        remove_directory();
}

TEST(listener, one_that_is_answered_is_somebody_elses_and_stays) {
        struct stat before, after;
        int fd, other = -7, client;

        make_directory();
        cr_assert_eq(listener_bind(path, 0666, &fd), 0);
        REQUIRE(stat(path, &before) == 0);
        cr_assert_eq(listener_bind(path, 0666, &other), -EADDRINUSE);
        cr_assert_eq(other, -7);
        REQUIRE(stat(path, &after) == 0);
        cr_assert_eq(before.st_ino, after.st_ino);
        client = connect_to();
        close_fd(client);
        close_fd(fd);
        remove_directory();
}

TEST(listener, a_server_of_another_kind_is_answered_too) {
        static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
        int fd = -7;

        make_directory();
        for (size_t i = 0; i < 2; ++i) {
                int other = bind_other(types[i], types[i] == SOCK_STREAM);

                cr_assert_eq(listener_bind(path, 0666, &fd), -EADDRINUSE);
                cr_assert_eq(access(path, F_OK), 0);
                close_fd(other);
                REQUIRE(unlink(path) == 0);
        }
        remove_directory();
}

TEST(listener, a_full_backlog_is_an_answer) {
        int other, clients[3], fd = -7;

        make_directory();
        other = bind_other(SOCK_SEQPACKET, true);
        for (int i = 0; i < 2; ++i)
                clients[i] = connect_to();
        cr_assert_eq(listener_bind(path, 0666, &fd), -EADDRINUSE, "a busy broker keeps its socket");
        for (int i = 0; i < 2; ++i)
                close_fd(clients[i]);
        close_fd(other);
        remove_directory();
}

TEST(listener, what_is_no_socket_is_never_removed) {
        struct stat st;
        int fd = -7, file;

        make_directory();
        file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        REQUIRE(file >= 0 && write(file, "precious", 8) == 8);
        close_fd(file);
        cr_assert_eq(listener_bind(path, 0666, &fd), -EADDRINUSE);
        REQUIRE(stat(path, &st) == 0);
        cr_assert(S_ISREG(st.st_mode) && st.st_size == 8 && (st.st_mode & 0777) == 0644);
        REQUIRE(unlink(path) == 0);

        REQUIRE(mkdir(path, 0755) == 0);
        cr_assert_eq(listener_bind(path, 0666, &fd), -EADDRINUSE);
        REQUIRE(rmdir(path) == 0);

        REQUIRE(symlink("/nowhere", path) == 0);
        cr_assert_eq(listener_bind(path, 0666, &fd), -EADDRINUSE);
        REQUIRE(lstat(path, &st) == 0);
        cr_assert(S_ISLNK(st.st_mode));
        cr_assert_eq(fd, -7);
        remove_directory();
}

TEST(listener, a_path_that_is_too_long_or_leads_nowhere_is_an_error) {
        char longest[256];
        int fd = -7;

        make_directory();
        memset(longest, 'x', sizeof(longest));
        memcpy(longest, directory, strlen(directory));
        longest[strlen(directory)] = '/';
        longest[108] = '\0';
        cr_assert_eq(listener_bind(longest, 0666, &fd), -ENAMETOOLONG);
        longest[107] = '\0';
        cr_assert_eq(listener_bind(longest, 0666, &fd), 0);
        close_fd(fd);
        REQUIRE(unlink(longest) == 0);
        (void)snprintf(longest, sizeof(longest), "%s/missing/socket", directory);
        fd = -7;
        cr_assert_eq(listener_bind(longest, 0666, &fd), -ENOENT);
        cr_assert_eq(fd, -7);
        remove_directory();
}

/* -- accepting ------------------------------------------------------------------------------- */

static Deadlines deadlines;
static Loop *loop;
static Listener *listener;
static int accepted[64];
static size_t n_accepted;
static char notes[256];
static unsigned int turns;
static size_t after_turn[64];   /* n_accepted */
static bool (*done)(void);

static void take(void *userdata, int fd) {
        REQUIRE(n_accepted < 64);
        accepted[n_accepted++] = fd;
}

static void note(void *userdata, bool paused, int error) {
        char text[64];

        (void)snprintf(text, sizeof(text), "%s:%s ", paused ? "paused" : "resumed",
                       error ? strerrorname_np(error) : "-");
        REQUIRE(strlen(notes) + strlen(text) < sizeof(notes), "%s", notes);
        (void)strcat(notes, text);
}

static void begin(void) {
        int fd;

        make_directory();
        REQUIRE(probe_run() == 0);
        deadlines_init(&deadlines);
        REQUIRE(loop_new(&loop, &deadlines) == 0);
        REQUIRE(listener_bind(path, 0666, &fd) == 0);
        REQUIRE(listener_new_consume_fd(&listener, loop, &deadlines, fd, &(ListenerEvents){ take, note, NULL }) == 0);
}

static void end(void) {
        listener = listener_free(listener);
        loop = loop_free(loop);
        deadlines_deinit(&deadlines);
        while (n_accepted > 0)
                close_fd(accepted[--n_accepted]);
        remove_directory();
}

/* Runs at the end of every turn, so that the loop never sleeps. */
static void turn(Deadline *deadline, void *userdata) {
        int64_t *until = userdata;

        if (turns < 64)
                after_turn[turns] = n_accepted;
        ++turns;
        if (done())
                loop_stop(loop, 0);
        else if (test_now_ms() > *until)
                loop_stop(loop, -ETIME);
        else
                deadline_arm(deadline, &deadlines, 0, turn, userdata);
}

static int run_until(bool (*condition)(void)) {
        int64_t until = test_now_ms() + TEST_PATIENCE_MS;
        Deadline d = DEADLINE_NULL;
        int r;

        done = condition;
        deadline_arm(&d, &deadlines, 0, turn, &until);
        r = loop_run(loop);
        deadline_disarm(&d);
        return r;
}

static bool has_all_40(void) {
        return n_accepted == 40;
}

TEST(listener, a_storm_is_accepted_sixteen_a_turn) {
        int clients[40];

        begin();
        for (int i = 0; i < 40; ++i)
                clients[i] = connect_to();
        cr_assert_eq(run_until(has_all_40), 0);
        cr_assert_eq(after_turn[0], 16);
        cr_assert_eq(after_turn[1], 32);
        cr_assert_eq(after_turn[2], 40);
        for (int i = 0; i < 40; ++i) {
                cr_assert_eq(fcntl(accepted[i], F_GETFD), FD_CLOEXEC);
                cr_assert(fcntl(accepted[i], F_GETFL) & O_NONBLOCK);
                close_fd(clients[i]);
        }
        cr_assert_str_eq(notes, "");
        cr_assert_eq(listener_n_pauses(listener), 0);
        end();
}

static bool has_one(void) {
        return n_accepted == 1;
}

TEST(listener, a_connection_that_died_in_the_backlog_costs_nothing) {
        char byte;

        begin();
        close_fd(connect_to());
        cr_assert_eq(run_until(has_one), 0);
        cr_assert_eq(recv(accepted[0], &byte, 1, MSG_DONTWAIT), 0);
        cr_assert_str_eq(notes, "");
        end();
}

/* How many turns pass while nothing can be accepted, until something is closed. */
static int spare;
static struct rlimit before;

static bool pauses_then_resumes(void) {
        if (turns == 50) {
                REQUIRE(listener_n_pauses(listener) == 1 && n_accepted == 0);
                spare = close_fd(spare);
                REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
                listener_resume(listener);
        }
        return n_accepted == 2;
}

TEST(listener, without_descriptors_it_pauses_once_and_goes_on_when_something_was_closed) {
        int clients[2];

        begin();
        for (int i = 0; i < 2; ++i)
                clients[i] = connect_to();
        spare = dup(0);
        test_leave_fds(0, &before);
        cr_assert_eq(run_until(pauses_then_resumes), 0);
        cr_assert_str_eq(notes, "paused:EMFILE resumed:- ");
        cr_assert_eq(listener_n_pauses(listener), 1);
        for (int i = 0; i < 2; ++i)
                close_fd(clients[i]);
        end();
}

static bool frees_and_waits(void) {
        if (turns == 5) {
                spare = close_fd(spare);
                REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
        }
        return n_accepted == 1;
}

TEST(listener, without_being_told_it_looks_again_by_itself) {
        int client;

        begin();
        client = connect_to();
        spare = dup(0);
        test_leave_fds(0, &before);
        cr_assert_eq(run_until(frees_and_waits), 0);
        cr_assert_str_eq(notes, "paused:EMFILE resumed:- ");
        close_fd(client);
        end();
}

static bool still_short(void) {
        if (turns % 100 == 0)
                listener_resume(listener);
        return turns == 1000;
}

TEST(listener, a_shortage_that_lasts_is_said_once) {
        int client;

        begin();
        client = connect_to();
        spare = dup(0);
        test_leave_fds(0, &before);
        cr_assert_eq(run_until(still_short), 0);
        cr_assert_str_eq(notes, "paused:EMFILE ");
        cr_assert_eq(listener_n_pauses(listener), 1);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
        close_fd(spare);
        close_fd(client);
        end();
}

static bool hundred_turns(void) {
        return turns == 100;
}

/* Every error of accept(2) there is a name for: the loop goes on after each. */
static int accept_fails(void *userdata) {
        int error = *(int *)userdata, client;
        bool shortage = error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;

        begin();
        client = connect_to();
        house_deny(error, SCMP_SYS(accept4), 0, NULL);
        REQUIRE(run_until(hundred_turns) == 0, "%s ended the loop", strerrorname_np(error));
        REQUIRE(listener_n_pauses(listener) == shortage, "%s", strerrorname_np(error));
        close_fd(client);
        end();
        return 0;
}

TEST(listener, no_error_of_accept_ends_the_loop) {
        int errors[] = {
                EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EPERM, EPROTO, EIO, EINTR, EAGAIN, EINVAL, EOPNOTSUPP,
                ENETDOWN, EHOSTUNREACH, ETIMEDOUT, ENOSR,
        };

        for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); ++i)
                house_expect_child(accept_fails, &errors[i]);
}

TEST(listener, unwanted_descriptors_stop_at_their_sender_where_the_kernel_can) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { .align = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                                 .cmsg_type = SCM_RIGHTS } };
        struct iovec iov = { .iov_base = (void *)"x", .iov_len = 1 };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                              .msg_controllen = sizeof(control) };
        int client, zero = 0;

        begin();
        client = connect_to();
        memcpy(CMSG_DATA(&control.align), &zero, sizeof(zero));
        errno = 0;
        cr_assert_eq(sendmsg(client, &msg, MSG_NOSIGNAL), probe_have(PROBE_PASSRIGHTS) ? -1 : 1);
        cr_assert_eq(errno, probe_have(PROBE_PASSRIGHTS) ? EPERM : 0);
        close_fd(client);
        end();
}

TEST(listener, a_descriptor_that_cannot_be_one_is_consumed_all_the_same) {
        int fd = open("/", O_RDONLY | O_CLOEXEC);

        deadlines_init(&deadlines);
        REQUIRE(loop_new(&loop, &deadlines) == 0);
        cr_assert_eq(listener_new_consume_fd(&listener, loop, &deadlines, fd, &(ListenerEvents){ take, note, NULL }),
                     -EPERM);
        cr_assert_eq(fcntl(fd, F_GETFD), -1);
        cr_assert_eq(listener, NULL);
        cr_assert_eq(listener_free(NULL), NULL);
        loop = loop_free(loop);
        deadlines_deinit(&deadlines);
}
