/* The keeper: what ends a broker and what comes after it, what a broker that is broken can do to its
 * keeper, upgrades, and what is left when the keeper ends itself.
 */

#include "lib/broker.h"
#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* -- a program that can be replaced ---------------------------------------------------------- */

typedef struct Program {
        char dir[64];
        char path[96];
} Program;

/* Puts another file in the program's place, as a package manager does: at once, and under whoever runs it. */
static void program_replace(Program *program, const char *from) {
        char command[1024], next[128];

        (void)snprintf(next, sizeof(next), "%s.next", program->path);
        (void)snprintf(command, sizeof(command), "cp '%s' '%s' && chmod 0755 '%s'", from, next, next);
        REQUIRE(system(command) == 0 && rename(next, program->path) == 0, "%s", strerror(errno));
}

static void program_init(Program *program) {
        (void)snprintf(program->dir, sizeof(program->dir), "/tmp/shmd-test-program-XXXXXX");
        REQUIRE(mkdtemp(program->dir) && chmod(program->dir, 0755) == 0, "%s", strerror(errno));
        (void)snprintf(program->path, sizeof(program->path), "%s/shmd", program->dir);
        program_replace(program, test_program("shmd"));
}

static void program_deinit(Program *program) {
        REQUIRE(unlink(program->path) == 0 && rmdir(program->dir) == 0);
}

static Broker *spawn_program(const Program *program, const char *config) {
        return broker_spawn_with(&(BrokerOptions){ .keeper = true, .program = program->path, .config = config });
}

/* -- what happens in its time ------------------------------------------------------------------ */

static bool is_gone(pid_t pid) {
        char path[64], text[512], *state;
        ssize_t n;
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return true;
        n = read(fd, text, sizeof(text) - 1);
        close_fd(fd);
        text[n > 0 ? n : 0] = '\0';
        state = strrchr(text, ')');
        return !state || state[2] == 'Z' || state[2] == 'X';
}

static bool pid_is_gone(void *pid) {
        return is_gone(*(pid_t *)pid);
}

static void expect_service(Broker *broker) {
        Client *client = client_connect_as(broker, ALICE, ALICE);

        REQUIRE(call_ping(client) == 0);
        client_free(client);
}

typedef struct Wanted {
        Broker *broker;
        size_t n_fds;
        size_t n_names;
} Wanted;

static bool has_that_many_fds_and_names(void *userdata) {
        Wanted *wanted = userdata;
        char (*names)[32];
        size_t n = broker_kept_names(wanted->broker, &names);

        free(names);
        return n == wanted->n_names && broker_keeper_fds(wanted->broker) == wanted->n_fds;
}

#define WORDS "what was there before"

/* Makes a region that has to survive, and waits until the keeper has read of it: it is kept before that. */
static void make_region(Broker *broker) {
        size_t n_fds = broker_keeper_fds(broker) + 1;
        Client *client = client_connect_as(broker, ALICE, ALICE);
        Grant grant = GRANT_NULL;
        char (*names)[32];

        client_expect_done(client, call_mkdir(client, "/kept", 0711));
        client_expect_done(client, call_create_mode(client, "/kept/region", PAGE, 0604, &grant));
        REQUIRE(pwrite(grant.fd, WORDS, sizeof(WORDS), 0) == (ssize_t)sizeof(WORDS));
        grant_deinit(&grant);
        client_free(client);
        broker_expect_keeper_fds(broker, n_fds);
        (void)broker_kept_names(broker, &names);
        free(names);
}

/* Requires that it has, with its bytes, its owner and its modes. */
static void expect_region(Broker *broker) {
        Client *alice = client_connect_as(broker, ALICE, ALICE), *bob = client_connect_as(broker, BOB, BOB);
        char text[sizeof(WORDS)] = "";
        Grant grant = GRANT_NULL;

        client_expect_done(bob, call_open(bob, "/kept/region", READ_ONLY, &grant));
        REQUIRE(pread(grant.fd, text, sizeof(text), 0) == (ssize_t)sizeof(text));
        cr_assert_str_eq(text, WORDS);
        grant_deinit(&grant);
        client_expect_error(bob, DENIED, REGION_WRITE, call_open(bob, "/kept/region", READ_WRITE, NULL));
        client_expect_used(alice, SHMD__SLOT__SLOT_BYTES, PAGE);
        client_free(alice);
        client_free(bob);
}

/* Waits for a state that the keeper tells its service manager. */
static void expect_told(Broker *broker, const char *what) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        char text[1024];

        for (;;) {
                struct pollfd p = { .fd = broker->notify_fd, .events = POLLIN };
                ssize_t n;

                REQUIRE(test_now_ms() < end, "never told: %s", what);
                if (poll(&p, 1, 50) < 1)
                        continue;
                n = recv(broker->notify_fd, text, sizeof(text) - 1, MSG_DONTWAIT);
                text[n > 0 ? n : 0] = '\0';
                if (strstr(text, what))
                        return;
        }
}

/* -- the end of a broker ----------------------------------------------------------------------- */

TEST(keeper, a_broker_that_was_killed_is_followed_by_another) {
        static const int signals[] = { SIGKILL, SIGSEGV, SIGABRT, SIGSYS, SIGBUS, SIGTERM };
        pid_t keeper;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = "[keeper]\nrestarts = 0\n" });
        keeper = broker->keeper;
        make_region(broker);
        for (size_t i = 0; i < 3 * sizeof(signals) / sizeof(*signals); ++i) {
                pid_t before = broker->pid;

                broker_signal(broker, signals[i % 6]);
                broker_await_restart(broker);
                REQUIRE(broker->pid != before && is_gone(before));
                expect_region(broker);
        }
        cr_assert_eq(broker->keeper, keeper);
        REQUIRE(broker_log_has(broker, "event=broker-ended", "by=\"signal KILL\"", NULL));
        REQUIRE(broker_log_has(broker, "event=broker-ended", "by=\"status 0\"", NULL));
        broker = broker_stop(broker);
}

TEST(keeper, who_asks_is_told_how_often_that_was) {
        const Shmd__DoctorReply *reply;
        Client *client;
        Broker *broker;
        char *text;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true });
        for (int i = 0; i < 3; ++i)
                broker_kill_and_wait_restart(broker);
        client = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(client, client_call(client, MESSAGE_DOCTOR, REQUEST(Doctor, doctor)));
        reply = (const Shmd__DoctorReply *)client->reply;
        cr_assert_eq(reply->restarts, 3);
        cr_assert(reply->kept_by.len == 6 && !memcmp(reply->kept_by.data, "keeper", 6));
        cr_assert(reply->last_end.len == 11 && !memcmp(reply->last_end.data, "signal KILL", 11));
        client = client_free(client);
        (void)shmdctl_run(&text, "--socket", broker->socket, "doctor", NULL);
        cr_assert(strstr(text, "3 times a broker ended by itself, the last one by signal KILL"), "%s", text);
        free(text);
        cr_assert_eq(shmdctl_run(&text, "--socket", broker->socket, "stats", "--json", NULL), 0);
        cr_assert(strstr(text, "\"restarts\": 3"), "%s", text);
        free(text);
        broker = broker_stop(broker);
}

static bool is_served(void *userdata) {
        const Broker *broker = userdata;
        char *text;
        int status = shmdctl_run(&text, "--socket", broker->socket, "ping", NULL);

        free(text);
        return status == 0;
}

/* A broker that does not come to run for a second is replaced too, and the next one may do better. */
TEST(keeper, a_broker_without_a_sign_of_life_is_replaced) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        Broker *broker;
        pid_t before;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true,
                                                     .config = "[keeper]\nwatchdog = 1s\nrestarts = 0\n" });
        for (;;) {
                before = broker->pid;
                test_sleep_ms(1500);
                if (!is_gone(before))
                        break;
                REQUIRE(test_now_ms() < end, "none is well and says so");
                broker_await_restart(broker);
        }
        REQUIRE(kill(before, SIGSTOP) == 0 || errno == ESRCH, "%s", strerror(errno));
        broker_await_restart(broker);
        REQUIRE(is_gone(before));
        broker_expect_log(broker, "event=broker-overdue", "expected=\"a sign of life\"");
        REQUIRE(test_eventually(is_served, broker));
        broker = broker_stop(broker);
}

/* Often enough to be heard, and not so often that these words soon fill a queue that is not read: the kernel has it
 * hold ten (net.unix.max_dgram_qlen), and what else is said then is lost. */
static void prepare_watchdog(void *userdata) {
        REQUIRE(setenv("WATCHDOG_USEC", "2000000", 1) == 0 && unsetenv("WATCHDOG_PID") == 0);
}

TEST(keeper, the_service_manager_hears_of_everything) {
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .prepare = prepare_watchdog });
        expect_told(broker, "STATUS=serving");
        for (int i = 0; i < 3; ++i)
                expect_told(broker, "WATCHDOG=1");
        broker_signal(broker, SIGKILL);
        expect_told(broker, "STATUS=the broker ended");
        expect_told(broker, "READY=1");
        broker_await_restart(broker);
        REQUIRE(kill(broker->keeper, SIGHUP) == 0);
        expect_told(broker, "RELOADING=1\nMONOTONIC_USEC=");
        expect_told(broker, "READY=1");
        broker_await_restart(broker);
        REQUIRE(kill(broker->keeper, SIGTERM) == 0);
        expect_told(broker, "STOPPING=1");
        REQUIRE(broker_wait(broker) == 0);
        broker = broker_forget(broker);
}

TEST(keeper, a_broker_that_will_not_stop_is_killed) {
        Broker *broker;
        int status;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = "[keeper]\nstop = 200ms\n" });
        broker_signal(broker, SIGSTOP);
        REQUIRE(kill(broker->keeper, SIGTERM) == 0);
        status = broker_wait(broker);
        REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%#x", status);
        REQUIRE(broker_log_has(broker, "event=broker-overdue", "expected=\"its end\"", NULL));
        broker = broker_forget(broker);
}

/* -- connections meanwhile --------------------------------------------------------------------- */

#define CONNECTS 1000

TEST(keeper, whoever_connects_while_there_is_no_broker_waits_for_the_next) {
        static Client *clients[CONNECTS];
        Broker *broker;
        pid_t before;

        test_needs_root();
        if (test_read_number("/proc/sys/net/core/somaxconn") <= CONNECTS)
                test_skip("a socket here has no room for %d connections that wait", CONNECTS);
        broker = broker_spawn_with(&(BrokerOptions){
                .keeper = true, .config = "[global]\npeers = 2000\n[account]\npeers = 2000\npending = 5000\n" });
        REQUIRE(test_raise_fds() > CONNECTS + 100);
        before = broker->pid;
        REQUIRE(kill(broker->keeper, SIGSTOP) == 0);
        broker_signal(broker, SIGKILL);
        REQUIRE(test_eventually(pid_is_gone, &before));
        for (size_t i = 0; i < CONNECTS; ++i) {
                int r = client_try_connect(&clients[i], broker->socket, ALICE, ALICE);

                REQUIRE(r == 0, "connect %zu: %s", i, strerror(-r));
                (void)client_send(clients[i], MESSAGE_HELLO, REQUEST(Hello, hello, .version = MESSAGE_VERSION));
        }
        REQUIRE(kill(broker->keeper, SIGCONT) == 0);
        for (size_t i = 0; i < CONNECTS; ++i) {
                REQUIRE(client_receive(clients[i], TEST_PATIENCE_MS) == CLIENT_REPLY, "client %zu", i);
                REQUIRE(call_ping(clients[i]) == 0);
        }
        for (size_t i = 0; i < CONNECTS; ++i)
                clients[i] = client_free(clients[i]);
        broker_await_restart(broker);
        broker = broker_stop(broker);
}

/* -- a keeper that does not run ------------------------------------------------------------------- */

#define CREATES 6000

/* Nobody hears of a region before it is kept, nobody else waits for that, and nothing is lost. */
TEST(keeper, while_it_does_not_read_only_what_has_to_be_kept_waits) {
        Client *client, *other;
        unsigned int n = 0;
        Broker *broker;
        char path[32];

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = "[account]\nregions = 8000\n" });
        client = client_connect_as(broker, ALICE, ALICE);
        other = client_connect_as(broker, BOB, BOB);
        REQUIRE(kill(broker->keeper, SIGSTOP) == 0);
        for (unsigned int i = 0; i < CREATES; ++i) {
                (void)snprintf(path, sizeof(path), "/r%u", i);
                (void)client_send(client, MESSAGE_CREATE, REQUEST(Create, create, .path = BYTES(path), .size = PAGE));
                /* The socket has room for some; as long as answers come, go on. */
                while (client_receive(client, 0) == CLIENT_REPLY)
                        ++n;
                if (i % 50 == 49)
                        client_expect_done(other, call_ping(other));
                if (i >= n + 50 && client_receive(client, 300) == CLIENT_SILENT)
                        break;
                n += i >= n + 50;
        }
        REQUIRE(n > 10 && n < CREATES, "%u were answered", n);
        client_expect_done(other, call_ping(other));
        REQUIRE(kill(broker->keeper, SIGCONT) == 0);
        while (client_receive(client, 1000) == CLIENT_REPLY)
                ++n;
        broker_kill_and_wait_restart(broker);
        client = client_free(client);
        client = client_connect_as(broker, ALICE, ALICE);
        for (unsigned int i = 0; i < n; ++i) {
                (void)snprintf(path, sizeof(path), "/r%u", i);
                client_expect_done(client, call_stat(client, path));
        }
        other = client_free(other);
        client = client_free(client);
        broker = broker_stop(broker);
}

/* -- a keeper that rests -------------------------------------------------------------------------- */

static uint64_t keeper_waits(const Broker *broker) {
        return strtoull(broker_status(&(Broker){ .pid = broker->keeper }, "voluntary_ctxt_switches"), NULL, 10);
}

/* What it has not read when the broker ends, it reads then. */
TEST(keeper, is_not_woken_for_each_region_and_loses_none) {
        enum { REGIONS = 2000 };
        Client *client;
        uint64_t waits;
        Broker *broker;
        char path[32];

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = "[account]\nregions = 8000\n" });
        client = client_connect_as(broker, ALICE, ALICE);
        waits = keeper_waits(broker);
        for (unsigned int i = 0; i < REGIONS; ++i) {
                (void)snprintf(path, sizeof(path), "/r%u", i);
                client_expect_done(client, call_create(client, path, PAGE, NULL));
        }
        waits = keeper_waits(broker) - waits;
        REQUIRE(waits < REGIONS / 2, "it was woken %" PRIu64 " times for %d regions", waits, REGIONS);
        broker_kill_and_wait_restart(broker);
        client = client_free(client);
        client = client_connect_as(broker, ALICE, ALICE);
        for (unsigned int i = 0; i < REGIONS; ++i) {
                (void)snprintf(path, sizeof(path), "/r%u", i);
                client_expect_done(client, call_stat(client, path));
        }
        client = client_free(client);
        broker = broker_stop(broker);
}

/* -- a broker that cannot be started --------------------------------------------------------------- */

static void write_script(Program *program, const char *text) {
        char path[128];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/script", program->dir);
        file = fopen(path, "we");
        REQUIRE(file && fputs(text, file) >= 0 && fclose(file) == 0);
        program_replace(program, path);
        REQUIRE(unlink(path) == 0);
}

TEST(keeper, a_first_start_that_fails_is_no_start) {
        char socket[128], config[128], *text;
        Broker *broker;

        broker = broker_spawn("");
        broker_write_policy(broker, "bad.conf", "[account]\nregions = many\n");
        (void)snprintf(config, sizeof(config), "%s", broker_write_file(broker, "other.conf", ""));
        (void)snprintf(socket, sizeof(socket), "%s/other", broker->dir);
        cr_assert_eq(shmd_run(&text, "--config", config, "--policy-root", broker->dir, "--socket", socket, NULL), 1, "%s",
                     text);
        cr_assert(strstr(text, "event=failed step=policy"), "%s", text);
        cr_assert(strstr(text, "event=broker-ended") && strstr(text, "by=\"status 1\""), "%s", text);
        cr_assert(!strstr(text, "event=given-up"), "%s", text);
        free(text);
        broker = broker_stop(broker);
}

/* The broker has given its keeper a state by then, which says nothing of what is wrong. */
TEST(keeper, a_first_start_that_fails_late_is_no_start_either) {
        char socket[128], config[128], *text;
        Broker *broker;

        broker = broker_spawn("");
        (void)snprintf(config, sizeof(config), "%s",
                       broker_write_file(broker, "other.conf", "[directory /no/parent]\nmode = 0755\n"));
        (void)snprintf(socket, sizeof(socket), "%s/other", broker->dir);
        cr_assert_eq(shmd_run(&text, "--config", config, "--policy-root", broker->dir, "--socket", socket, NULL), 1, "%s",
                     text);
        cr_assert(strstr(text, "event=failed step=/no/parent"), "%s", text);
        cr_assert(strstr(text, "kept=1"), "%s", text);
        free(text);
        broker = broker_stop(broker);
}

TEST(keeper, too_many_failures_are_a_state_in_which_everything_is_kept) {
        char (*before)[32], (*after)[32];
        size_t n_before, n_after;
        Client *waiting = NULL;
        Program program;
        Broker *broker;
        pid_t keeper;

        test_needs_root();
        program_init(&program);
        broker = spawn_program(&program, "[keeper]\nrestarts = 3\nrestart-retry = 1h\n");
        keeper = broker->keeper;
        make_region(broker);
        n_before = broker_kept_names(broker, &before);
        write_script(&program, "#!/bin/sh\nexit 1\n");
        broker_signal(broker, SIGKILL);
        broker_expect_log(broker, "event=given-up");
        expect_told(broker, "STATUS=failed: ");
        cr_assert_eq(broker_log_count(broker, "event=broker-started"), 4, "the first, and three that failed");

        n_after = broker_kept_names(broker, &after);
        cr_assert_eq(n_after, n_before);
        cr_assert(n_before > 2 && !memcmp(before, after, n_before * sizeof(*before)));
        REQUIRE(client_try_connect(&waiting, broker->socket, ALICE, ALICE) == 0, "its socket is there");
        REQUIRE(kill(keeper, SIGHUP) == 0);
        broker_expect_log(broker, "event=upgrade-refused", "check=\"status 1\"");
        REQUIRE(broker_is_alive(broker));

        program_replace(&program, test_program("shmd"));
        REQUIRE(kill(keeper, SIGHUP) == 0);
        broker_await_restart(broker);
        REQUIRE(client_hello(waiting) == 0);
        cr_assert_eq(broker->keeper, keeper);
        expect_region(broker);
        waiting = client_free(waiting);
        free(before);
        free(after);
        broker = broker_stop(broker);
        program_deinit(&program);
}

TEST(keeper, it_tries_again_by_itself) {
        Program program;
        Broker *broker;

        test_needs_root();
        program_init(&program);
        broker = spawn_program(&program, "[keeper]\nrestarts = 2\nrestart-retry = 300ms\n");
        REQUIRE(unlink(program.path) == 0);
        broker_signal(broker, SIGKILL);
        broker_expect_log(broker, "event=program-missing");
        broker_expect_log(broker, "event=given-up");
        program_replace(&program, test_program("shmd"));
        broker_await_restart(broker);
        expect_service(broker);
        broker = broker_stop(broker);
        program_deinit(&program);
}

typedef struct LogWanted {
        Broker *broker;
        const char *what;
        size_t n_before;
} LogWanted;

static bool has_more_in_log(void *userdata) {
        const LogWanted *wanted = userdata;

        return broker_log_count(wanted->broker, wanted->what) > wanted->n_before;
}

/* The very first start, without which there is no keeper, has its time; a later one of the good program may be late
 * too, and is tried again. */
TEST(keeper, a_start_that_takes_too_long_is_one_that_failed) {
        LogWanted overdue = { .what = "expected=\"to be ready\"" }, given_up = { .what = "event=given-up" };
        Program program;
        Broker *broker;

        test_needs_root();
        program_init(&program);
        broker = spawn_program(&program, NULL);
        broker_reconfigure(broker, "[keeper]\nstart = 1s\nrestarts = 1\nrestart-retry = 300ms\n");
        overdue.broker = given_up.broker = broker;
        overdue.n_before = broker_log_count(broker, overdue.what);
        given_up.n_before = broker_log_count(broker, given_up.what);
        write_script(&program, "#!/bin/sh\nexec sleep 1000\n");
        broker_signal(broker, SIGKILL);
        REQUIRE(test_eventually(has_more_in_log, &overdue));
        REQUIRE(test_eventually(has_more_in_log, &given_up));
        program_replace(&program, test_program("shmd"));
        broker_await_restart(broker);
        broker = broker_stop(broker);
        program_deinit(&program);
}

/* -- a broker that is somebody else's ---------------------------------------------------------------- */

/* Puts a hostile broker in the place of the good one (hostile-broker.c), which does `what` and says when it
 * has done it. */
static Broker *spawn_hostile(Program *program, const char *what, void (*prepare)(void *), const char *config) {
        Broker *broker;

        program_init(program);
        REQUIRE(setenv("SHMD_TEST_HOSTILE", what, 1) == 0);
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .program = program->path, .prepare = prepare,
                                                     .config = config ? config : "[keeper]\nrestarts = 0\n" });
        REQUIRE(unsetenv("SHMD_TEST_HOSTILE") == 0);
        program_replace(program, test_program("tests/integration/hostile-broker"));
        /* It may have been killed already for not being in time; then that one is meant which came after it. */
        while (kill(broker->pid, SIGKILL) < 0) {
                REQUIRE(errno == ESRCH, "%s", strerror(errno));
                broker_await_restart(broker);
        }
        return broker;
}

/* After all that the keeper keeps nothing of it but that, and serves a good broker. */
static void end_hostile(Broker *broker, Program *program, const char *const *kept, size_t n_kept) {
        char (*names)[32];
        size_t n;

        LogWanted good = { broker, "event=ready ", broker_log_count(broker, "event=ready ") };

        broker_expect_log(broker, "hostile: done");
        n = broker_kept_names(broker, &names);
        for (size_t i = 0; i < n_kept; ++i)
                REQUIRE(broker_keeps(broker, kept[i]), "%s is not kept", kept[i]);
        for (size_t i = 0; i < n; ++i)
                REQUIRE(strncmp(names[i], "evil", 4) || n_kept, "%s is kept", names[i]);
        free(names);
        program_replace(program, test_program("shmd"));
        broker_await_restart(broker);
        /* Some of them have been killed already. */
        (void)kill(broker->pid, SIGKILL);
        REQUIRE(test_eventually(has_more_in_log, &good));
        expect_service(broker);
        broker = broker_stop(broker);
        program_deinit(program);
}

TEST(keeper, packets_that_are_none_change_nothing) {
        Program program;
        Broker *broker;

        test_needs_root();
        broker = spawn_hostile(&program, "garbage", NULL, NULL);
        end_hostile(broker, &program, NULL, 0);
}

/* That a broker which does that is told of, and nothing of it is kept. */
static void expect_harmless(const char *what, const char *event, const char *detail) {
        Program program;
        Broker *broker;

        test_needs_root();
        broker = spawn_hostile(&program, what, NULL, NULL);
        broker_expect_log(broker, event, detail);
        end_hostile(broker, &program, NULL, 0);
}

TEST(keeper, of_a_packet_with_too_few_or_too_many_nothing_is_kept) {
        expect_harmless("mismatch", "event=keeper-refused", "why=\"no packet of a broker's\"");
}

TEST(keeper, of_several_in_a_packet_each_is_kept_or_refused_by_itself) {
        const char *kept[34];
        char names[34][16];
        size_t n = 0, n_kept;
        Program program;
        Broker *broker;
        char (*found)[32];

        test_needs_root();
        broker = spawn_hostile(&program, "several", NULL, NULL);
        broker_expect_log(broker, "hostile: done");
        /* What goes, or is refused, and nobody else: see hostile-broker.c. */
        for (unsigned int i = 1; i <= 42; ++i)
                if (i < 32 || i >= 40) {
                        (void)snprintf(names[n], sizeof(names[n]), "evil-%u", i);
                        kept[n] = names[n];
                        ++n;
                }
        n_kept = broker_kept_names(broker, &found);
        for (size_t i = n_kept; i-- > 0;)
                n_kept -= strncmp(found[i], "evil", 4) != 0;
        free(found);
        cr_assert_eq(n_kept, n);
        broker_expect_log(broker, "event=keeper-refused", "why=\"not memory\"", "name=evil-20");
        broker_expect_log(broker, "event=keeper-refused", "why=\"the name is taken\"", "name=evil-12");
        end_hostile(broker, &program, kept, n);
}

TEST(keeper, a_name_that_is_taken_stays_whose_it_is) {
        static const char *const kept[] = { "evil-1", "evil-2" };
        Program program;
        Broker *broker;

        test_needs_root();
        broker = spawn_hostile(&program, "names", NULL, NULL);
        broker_expect_log(broker, "event=keeper-refused", "why=\"the name is taken\"", "name=evil-1");
        end_hostile(broker, &program, kept, 2);
}

TEST(keeper, nothing_but_memory_is_kept) {
        Program program;
        Broker *broker;

        test_needs_root();
        broker = spawn_hostile(&program, "sockets", NULL, NULL);
        broker_expect_log(broker, "event=keeper-refused", "why=\"not memory\"", "name=evil-pipe");
        end_hostile(broker, &program, NULL, 0);
}

static void lower_limit(void *userdata) {
        REQUIRE(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 256, 256 }) == 0);
}

static void expect_full(const char *attack) {
        static const char *const kept[] = { "evil-0", "evil-100" };
        Program program;
        Broker *broker;

        test_needs_root();
        broker = spawn_hostile(&program, attack, lower_limit, NULL);
        broker_expect_log(broker, "event=keeper-refused", "why=\"there is no room\"");
        end_hostile(broker, &program, kept, 2);
}

TEST(keeper, a_table_that_is_full_is_full) {
        expect_full("full");
}

TEST(keeper, a_table_that_gets_full_in_a_packet_is_full) {
        expect_full("full-several");
}

/* How many of the messages that wait for the service manager have that in them. */
static size_t count_told(Broker *broker, const char *what) {
        char text[1024];
        size_t count = 0;
        ssize_t n;

        while ((n = recv(broker->notify_fd, text, sizeof(text) - 1, MSG_DONTWAIT)) >= 0) {
                text[n] = '\0';
                count += strstr(text, what) != NULL;
        }
        return count;
}

TEST(keeper, a_broker_that_never_stops_talking_is_stopped) {
        static const char what[] = "expected=\"a sign of life\"";
        int64_t began = test_now_ms();
        size_t n_told, n_most;
        LogWanted overdue;
        Program program;
        Broker *broker;

        test_needs_root();
        broker = spawn_hostile(&program, "flood", NULL, "[keeper]\nrestarts = 0\nwatchdog = 2s\nstop = 2s\n");
        overdue = (LogWanted){ broker, what, broker_log_count(broker, what) };
        REQUIRE(test_eventually(has_more_in_log, &overdue));
        n_told = count_told(broker, "STATUS=evil");
        /* The first words of each, and one in each second. */
        n_most = broker_log_count(broker, "event=broker-started") + (size_t)(test_now_ms() - began) / 1000;
        REQUIRE(n_told > 0 && n_told <= n_most, "%zu of at most %zu", n_told, n_most);
        end_hostile(broker, &program, NULL, 0);
}

/* A broker that closes its link has to end, whatever it does then. */
static void expect_overdue(const char *attack) {
        Program program;
        Broker *broker;

        test_needs_root();
        broker = spawn_hostile(&program, attack, NULL, "[keeper]\nrestarts = 0\nstop = 2s\n");
        broker_expect_log(broker, "event=broker-overdue", "expected=\"its end\"");
        end_hostile(broker, &program, NULL, 0);
}

TEST(keeper, a_broker_that_turns_away_from_its_keeper_has_to_end) {
        expect_overdue("deaf");
}

TEST(keeper, a_broker_that_wakes_its_keeper_for_nothing_does_not_make_it_wait) {
        expect_overdue("wake");
}

TEST(keeper, who_has_a_dead_brokers_socket_does_not_keep_the_next_from_its_start) {
        expect_harmless("heirs", "event=broker-ended", "by=\"status 7\"");
}

/* -- upgrades -------------------------------------------------------------------------------------- */

static ino_t inode_of(const char *path) {
        struct stat st;

        REQUIRE(stat(path, &st) == 0, "%s: %s", path, strerror(errno));
        return st.st_ino;
}

static ino_t program_of(pid_t pid) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
        return inode_of(path);
}

/* Whether its files in /proc are its user's. */
static bool is_dumpable(pid_t pid) {
        struct stat st;
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        REQUIRE(stat(path, &st) == 0, "%s", strerror(errno));
        return st.st_uid != 0;
}

TEST(keeper, an_upgrade_replaces_the_broker_and_the_keeper) {
        size_t n_fds = 0;
        Program program;
        Broker *broker;
        pid_t keeper;

        test_needs_root();
        program_init(&program);
        broker = spawn_program(&program, NULL);
        keeper = broker->keeper;
        make_region(broker);
        for (int i = 0; i < 5; ++i) {
                ino_t old = program_of(keeper);

                program_replace(&program, test_program("shmd"));
                REQUIRE(inode_of(program.path) != old);
                REQUIRE(kill(keeper, SIGHUP) == 0);
                broker_await_restart(broker);
                cr_assert_eq(program_of(keeper), inode_of(program.path));
                cr_assert_eq(program_of(broker->pid), inode_of(program.path));
                cr_assert(!is_dumpable(keeper) && !is_dumpable(broker->pid), "nobody of its uid looks at its descriptors");
                expect_region(broker);
                if (i == 0)
                        n_fds = broker_keeper_fds(broker);
                broker_expect_keeper_fds(broker, n_fds);
        }
        REQUIRE(broker_log_count(broker, "event=upgrade ") == 5);
        REQUIRE(broker_log_count(broker, "event=stopped books=balanced") == 5);
        broker = broker_stop(broker);
        program_deinit(&program);
}

TEST(keeper, an_administrator_upgrades_with_shmdctl) {
        Program program;
        Broker *broker;
        char *text;

        test_needs_root();
        program_init(&program);
        broker = spawn_program(&program, NULL);
        program_replace(&program, test_program("shmd"));
        cr_assert_eq(shmdctl_run(&text, "--socket", broker->socket, "upgrade", NULL), 0, "%s", text);
        cr_assert(strstr(text, "the broker is version ") && strstr(text, " now"), "%s", text);
        free(text);
        broker_await_restart(broker);
        cr_assert_eq(program_of(broker->pid), inode_of(program.path), "what answered is the new one");

        write_script(&program, "#!/bin/sh\necho broken >&2\nexit 1\n");
        cr_assert_eq(shmdctl_run(&text, "--socket", broker->socket, "upgrade", NULL), 1, "%s", text);
        cr_assert(strstr(text, "does not accept the configuration"), "%s", text);
        free(text);
        expect_service(broker);
        program_replace(&program, test_program("shmd"));
        broker = broker_stop(broker);
        program_deinit(&program);
}

TEST(keeper, a_program_that_is_broken_does_not_take_over) {
        static const char *const scripts[] = { "#!/bin/sh\nexit 1\n", "#!/nonexistent\n", "", "#!/bin/sh\nkill -9 $$\n" };
        Program program;
        Broker *broker;
        pid_t before;

        test_needs_root();
        program_init(&program);
        broker = spawn_program(&program, NULL);
        before = broker->pid;
        for (size_t i = 0; i < sizeof(scripts) / sizeof(*scripts); ++i) {
                int64_t end = test_now_ms() + TEST_PATIENCE_MS;

                write_script(&program, scripts[i]);
                REQUIRE(kill(broker->keeper, SIGHUP) == 0);
                while (broker_log_count(broker, "event=upgrade-refused") <= i) {
                        REQUIRE(test_now_ms() < end, "script %zu", i);
                        test_sleep_ms(2);
                }
        }
        REQUIRE(!is_gone(before) && broker_log_count(broker, "event=broker-started") == 1);
        expect_service(broker);
        program_replace(&program, test_program("shmd"));
        broker = broker_stop(broker);
        program_deinit(&program);
}

/* -- the end of the keeper ---------------------------------------------------------------------------- */

TEST(keeper, a_keeper_that_was_killed_takes_the_broker_along_and_no_memory) {
        Grant grant = GRANT_NULL;
        Client *client;
        Broker *broker;
        pid_t pid;
        char *map;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true });
        pid = broker->pid;
        client = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(client, call_create(client, "/kept", PAGE, &grant));
        map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grant.fd, 0);
        REQUIRE(map != MAP_FAILED);
        memcpy(map, "before", 7);
        REQUIRE(kill(broker->keeper, SIGKILL) == 0);
        (void)broker_wait(broker);
        REQUIRE(test_eventually(pid_is_gone, &pid), "the broker ends with its keeper");
        client_expect_closed(client);
        cr_assert_str_eq(map, "before");
        memcpy(map, "after", 6);
        cr_assert_str_eq(map, "after");
        REQUIRE(munmap(map, PAGE) == 0);
        grant_deinit(&grant);
        client = client_free(client);
        broker = broker_forget(broker);
}

TEST(keeper, there_is_one_at_a_socket) {
        char *text, config[128];
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true });
        REQUIRE(broker_log_has(broker, "event=ready", broker->socket, NULL), "the broker says where");
        (void)snprintf(config, sizeof(config), "%s", broker_write_file(broker, "other.conf", ""));
        cr_assert_eq(shmd_run(&text, "--config", config, "--socket", broker->socket, NULL), 1, "%s", text);
        cr_assert(strstr(text, "another broker, or another file, is at "), "%s", text);
        free(text);
        expect_service(broker);
        broker = broker_stop(broker);
}

/* -- what it keeps -------------------------------------------------------------------------------------- */

TEST(keeper, nothing_is_left_of_regions_that_are_gone) {
        uint64_t rounds = test_rounds(3000);
        Wanted wanted;
        Client *client;
        Broker *broker;
        char (*names)[32];
        size_t n;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true });
        client = client_connect_as(broker, ALICE, ALICE);
        n = broker_kept_names(broker, &names);
        free(names);
        wanted = (Wanted){ .broker = broker, .n_fds = broker_keeper_fds(broker) };
        for (uint64_t i = 0; i < rounds; ++i) {
                char path[32];

                (void)snprintf(path, sizeof(path), "/r%u", (unsigned int)(i % 100));
                client_expect_done(client, call_create(client, path, PAGE, NULL));
                client_expect_done(client, call_unlink(client, path));
        }
        wanted.n_names = n;
        REQUIRE(test_eventually(has_that_many_fds_and_names, &wanted), "%zu descriptors, not %zu",
                broker_keeper_fds(broker), wanted.n_fds);
        client = client_free(client);
        broker = broker_stop(broker);
}
