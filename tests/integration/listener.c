/* The listening socket, and how the broker starts and stops. */

#include "lib/innocent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* -- running out of descriptors -------------------------------------------------------- */

typedef struct Table {
        pid_t pid;
        size_t n;
} Table;

static int limit_table(void *userdata) {
        Table *table = userdata;
        struct rlimit limit;

        REQUIRE(prlimit(table->pid, RLIMIT_NOFILE, NULL, &limit) == 0, "%s", strerror(errno));
        limit.rlim_cur = table->n;
        REQUIRE(prlimit(table->pid, RLIMIT_NOFILE, &limit, NULL) == 0, "%s", strerror(errno));
        return 0;
}

/* Lowers the limit of a broker that runs: its table is full before it thought it would be. Its
 * own user may do that; root without CAP_SYS_RESOURCE, as in many containers, may not. */
static void fill_descriptor_table(Broker *broker) {
        gid_t gid = (gid_t)strtoul(broker_status(broker, "Gid"), NULL, 10);
        Table table = { broker->pid, broker_fds(broker) };

        if (table.n == 0)
                test_skip("how many descriptors the broker has is not to be known here");
        REQUIRE(run_as(test_broker_uid(), gid, limit_table, &table) == 0);
}

TEST(listener, a_full_descriptor_table_pauses_the_listener_without_using_the_processor) {
        Broker *broker;
        Client *first, *waiting, *next;
        int64_t cpu;

        test_needs_root();
        broker = broker_spawn(NULL);
        first = client_connect_as(broker, ALICE, ALICE);
        fill_descriptor_table(broker);

        waiting = client_connect_silently(broker, BOB, BOB);
        next = client_connect_silently(broker, BOB, BOB);
        broker_expect_log(broker, "event=accept-paused");
        cpu = broker_cpu_ms(broker);
        test_sleep_ms(700);
        REQUIRE(broker_cpu_ms(broker) - cpu <= 50, "%d ms of processor time while there was nothing to do",
                (int)(broker_cpu_ms(broker) - cpu));
        client_expect_done(first, call_ping(first));
        REQUIRE(broker_log_count(broker, "event=accept-paused") == 1, "it is said once");

        /* A descriptor is free again: the next in the queue is served, and not before. */
        REQUIRE(client_receive(waiting, 0) == CLIENT_SILENT);
        first = client_free(first);
        broker_expect_log(broker, "event=accept-resumed");
        client_expect_done(waiting, client_hello(waiting));
        waiting = client_free(waiting);
        client_expect_done(next, client_hello(next));
        next = client_free(next);
        broker = broker_stop(broker);
}

TEST(listener, a_paused_listener_resumes_when_a_region_gives_its_descriptor_back) {
        Broker *broker;
        Client *first, *waiting;
        Grant grant = GRANT_NULL;

        test_needs_root();
        broker = broker_spawn(NULL);
        first = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(first, call_create(first, "/r", PAGE, &grant));
        grant_deinit(&grant);
        fill_descriptor_table(broker);
        waiting = client_connect_silently(broker, BOB, BOB);
        broker_expect_log(broker, "event=accept-paused");
        client_expect_done(first, call_unlink(first, "/r"));
        client_expect_done(waiting, client_hello(waiting));
        first = client_free(first);
        waiting = client_free(waiting);
        broker = broker_stop(broker);
}

TEST(listener, a_broker_that_was_stopped_for_a_while_serves_who_connected_meanwhile) {
        enum { N = 50 };
        Broker *broker;
        Client *clients[N];

        test_needs_root();
        broker = broker_spawn(NULL);
        REQUIRE(kill(broker->pid, SIGSTOP) == 0);
        for (size_t i = 0; i < N; ++i) {
                uint8_t packet[64];
                size_t n = client_pack(packet, sizeof(packet), MESSAGE_HELLO, 1, REQUEST(Hello, hello, .version = 1));

                clients[i] = client_connect_silently(broker, (uid_t)(ALICE + i % 3), ALICE);
                REQUIRE(client_send_raw(clients[i], packet, n) == 0);
                if (i % 2)
                        clients[i] = client_free(clients[i]);
        }
        REQUIRE(kill(broker->pid, SIGCONT) == 0);
        for (size_t i = 0; i < N; i += 2) {
                REQUIRE(client_receive(clients[i], TEST_PATIENCE_MS) == CLIENT_REPLY);
                clients[i] = client_free(clients[i]);
        }
        broker = broker_stop(broker);
}

/* -- starting ------------------------------------------------------------------------- */

typedef struct Activation {
        int fds[2];
        size_t n;
        const char *pid;        /* NULL: the right one */
} Activation;

static int listening_socket(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        (void)unlink(path);
        REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s", strerror(errno));
        REQUIRE(chmod(path, 0666) == 0);
        REQUIRE(listen(fd, 100) == 0);
        return fd;
}

static void pass_sockets(void *userdata) {
        Activation *activation = userdata;
        char text[32];
        int copies[2] = { -1, -1 };

        for (size_t i = 0; i < activation->n; ++i)
                copies[i] = fcntl(activation->fds[i], F_DUPFD, 20);
        for (size_t i = 0; i < activation->n; ++i)
                REQUIRE(dup2(copies[i], 3 + (int)i) == 3 + (int)i);
        for (size_t i = 0; i < activation->n; ++i)
                (void)close(copies[i]);
        (void)snprintf(text, sizeof(text), "%zu", activation->n);
        REQUIRE(setenv("LISTEN_FDS", text, 1) == 0);
        (void)snprintf(text, sizeof(text), "%d", (int)getpid());
        REQUIRE(setenv("LISTEN_PID", activation->pid ? activation->pid : text, 1) == 0);
}

TEST(listener, a_socket_of_the_service_manager_is_taken) {
        char path[] = "/tmp/shmd-test-activation-XXXXXX";
        Activation activation = { .n = 1 };
        Broker *broker;
        Client *client, *early;
        int placeholder = mkostemp(path, O_CLOEXEC);

        REQUIRE(placeholder >= 0);
        close_fd(placeholder);
        activation.fds[0] = listening_socket(path);

        /* Who connects before the broker starts is served, and may send nothing that is kept. */
        REQUIRE(client_try_connect(&early, path, geteuid() ? geteuid() : ALICE, ALICE) == 0);
        broker = broker_spawn_with(&(BrokerOptions){ .no_socket = true, .socket = path, .prepare = pass_sockets,
                                                     .userdata = &activation });
        client_expect_done(early, client_hello(early));
        client = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(client, call_create(client, "/r", PAGE, NULL));
        early = client_free(early);
        client = client_free(client);
        broker = broker_stop(broker);

        /* It is not the broker's to remove. */
        REQUIRE(access(path, F_OK) == 0);
        close_fd(activation.fds[0]);
        REQUIRE(unlink(path) == 0);
}

TEST(listener, ready_is_said_when_connecting_works_and_the_log_says_where) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        broker_expect_log(broker, "event=ready", broker->socket);
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(listener, the_socket_has_the_configured_mode) {
        Broker *broker = broker_spawn("socket-mode = 0600");
        Client *client = NULL;
        struct stat st;

        REQUIRE(stat(broker->socket, &st) == 0 && S_ISSOCK(st.st_mode));
        REQUIRE((st.st_mode & 07777) == 0600, "%o", st.st_mode);
        if (geteuid() == 0) {
                REQUIRE(client_try_connect(&client, broker->socket, ALICE, ALICE) == -EACCES);
                client = client_connect_as(broker, 0, 0);
                client = client_free(client);
        }
        broker = broker_stop(broker);

        broker = broker_spawn(NULL);
        REQUIRE(stat(broker->socket, &st) == 0 && (st.st_mode & 07777) == 0666);
        broker = broker_stop(broker);
}

TEST(listener, attack_101_a_second_broker_on_the_same_socket_refuses_to_start) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        const char *config = broker_write_file(broker, "empty.conf", "");
        char *said = NULL;
        int status;

        status = shmd_run(&said, "--socket", broker->socket, "--config", config, NULL);
        REQUIRE(status == 1, "exit status %d: %s", status, said);
        REQUIRE(strstr(said, broker->socket), "%s", said);
        free(said);
        client_expect_done(client, call_ping(client));
        client = client_free(client);
        client = client_connect_as(broker, ALICE, ALICE);
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(listener, the_socket_of_a_killed_broker_is_replaced) {
        Broker *first = broker_spawn(NULL), *second;
        Client *client;

        broker_kill(first);
        REQUIRE(access(first->socket, F_OK) == 0, "a killed broker leaves its socket");
        second = broker_spawn_with(&(BrokerOptions){ .socket = first->socket });
        client = client_connect_as(second, ALICE, ALICE);
        client_expect_done(client, call_ping(client));
        client = client_free(client);
        second = broker_stop(second);
        first = broker_forget(first);
}

TEST(listener, what_is_no_socket_is_not_replaced) {
        Broker *broker = broker_spawn(NULL);
        const char *config = broker_write_file(broker, "empty.conf", "");
        char file[128], empty[128], *said = NULL;
        struct stat st;
        int status;

        (void)snprintf(empty, sizeof(empty), "%s", config);
        (void)snprintf(file, sizeof(file), "%s", broker_write_file(broker, "precious", "data"));
        status = shmd_run(&said, "--socket", file, "--config", empty, NULL);
        REQUIRE(status == 1, "exit status %d: %s", status, said);
        free(said);
        REQUIRE(stat(file, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 4);
        broker = broker_stop(broker);
}

/* -- stopping ------------------------------------------------------------------------- */

TEST(listener, sigterm_answers_what_is_in_hand) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        int answers = 0, r;

        REQUIRE(kill(broker->pid, SIGSTOP) == 0);
        for (int i = 0; i < 10; ++i)
                (void)client_send(client, MESSAGE_PING, REQUEST(Ping, ping));
        REQUIRE(kill(broker->pid, SIGTERM) == 0);
        REQUIRE(kill(broker->pid, SIGCONT) == 0);
        while ((r = client_receive(client, TEST_PATIENCE_MS)) == CLIENT_REPLY)
                ++answers;
        REQUIRE(answers == 10, "%d answers", answers);
        REQUIRE(r == CLIENT_CLOSED || (r == CLIENT_REFUSED && client->refusal->error == SHMD__ERROR__ERROR_SHUTDOWN));
        REQUIRE(broker_wait(broker) == 0);
        REQUIRE(broker_log_has(broker, "event=stopping", NULL));
        REQUIRE(broker_log_has(broker, "event=stopped", "books=balanced", NULL));
        client = client_free(client);
        broker = broker_forget(broker);
}

TEST(listener, sigterm_ends_waits_and_leaves_what_is_held_to_its_holders) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE), *look;
        Grant grant = GRANT_NULL;
        char byte;
        int r;

        client_expect_done(client, call_create(client, "/r", PAGE, &grant));
        REQUIRE(pwrite(grant.fd, "k", 1, 0) == 1);
        (void)client_send(client, MESSAGE_WAIT,
                          REQUEST(Wait, wait, .path = BYTES("/never"), .timeout_ns = UINT64_C(3600000000000)));
        look = client_connect_as(broker, ALICE, ALICE);
        client_expect_used(look, SHMD__SLOT__SLOT_WATCHES, 1);
        look = client_free(look);
        REQUIRE(kill(broker->pid, SIGTERM) == 0);
        do
                r = client_receive(client, TEST_PATIENCE_MS);
        while (r == CLIENT_REFUSED);
        REQUIRE(r == CLIENT_CLOSED);
        REQUIRE(broker_wait(broker) == 0);
        REQUIRE(broker_log_has(broker, "event=stopped", "books=balanced", NULL));
        REQUIRE(pread(grant.fd, &byte, 1, 0) == 1 && byte == 'k', "memory outlives the broker");
        grant_deinit(&grant);
        client = client_free(client);
        broker = broker_forget(broker);
}

TEST(listener, sigint_ends_it_as_sigterm_does) {
        Broker *broker = broker_spawn(NULL);

        REQUIRE(kill(broker->pid, SIGINT) == 0);
        REQUIRE(broker_wait(broker) == 0);
        REQUIRE(broker_log_has(broker, "event=stopped", "books=balanced", NULL));
        broker = broker_forget(broker);
}

TEST(listener, a_client_that_never_reads_does_not_keep_the_broker_from_stopping) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        uint8_t packet[64];
        size_t n = client_pack(packet, sizeof(packet), MESSAGE_PING, 1, REQUEST(Ping, ping));

        for (int i = 0; i < 20000; ++i)
                if (send(client->fd, packet, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                        test_sleep_ms(i < 1000 ? 1 : 0);
        broker = broker_stop(broker);
        client = client_free(client);
}

TEST(listener, sigpipe_sighup_and_sigio_do_not_end_it) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        REQUIRE(kill(broker->pid, SIGPIPE) == 0 && kill(broker->pid, SIGIO) == 0);
        client_expect_done(client, call_ping(client));
        client = client_free(client);
        broker = broker_stop(broker);
}

/* -- the command line ------------------------------------------------------------------ */

typedef struct BadConfig {
        const char *text;
        const char *said;       /* part of the message, the line among it */
} BadConfig;

TEST(listener, a_bad_configuration_is_an_error_with_file_and_line) {
        static const BadConfig configs[] = {
                { "[daemon]\nsocket-mod = 0666\n", ":2" },
                { "[daemon]\n\n# comment\nuser = 1\nbytes = 1\n", ":5" },
                { "[nonsense]\na = 1\n", ":" },
                { "[account]\nbytes = lots\n", ":2" },
                { "[account]\nbytes = -1\n", ":2" },
                { "[account]\nbytes = 1X\n", ":2" },
                { "[account]\nbytes = 99999999999999999999\n", ":2" },
                { "[account]\nbytes = 18446744073709551616\n", ":2" },
                { "[account]\nbytes = 16777216T\n", ":2" },
                { "[account]\nregions = 1.5\n", ":2" },
                { "[account]\nregions =\n", ":2" },
                { "[time]\nhello = 10s\n[time]\nhello = 10s\n", ":4" },
                { "[time]\nhello = 5 fortnights\n", ":2" },
                { "[daemon]\nsocket-mode = 888\n", ":2" },
                { "[daemon]\nroot-mode = 77777\n", ":2" },
                { "[directory relative]\nmode = 0755\n", ":" },
                { "[directory /a/../b]\nmode = 0755\n", ":" },
                { "[directory /a]\ncolour = red\n", ":2" },
                { "[account 64102]\nbites = 1\n", ":2" },
                { "no section and no key\n", ":1" },
        };
        Broker *broker = broker_spawn(NULL);

        for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); ++i) {
                const char *path = broker_write_file(broker, "bad.conf", configs[i].text);
                char *said = NULL, where[160];
                int status = shmd_run(&said, "--config", path, "--check-config", NULL);

                REQUIRE(status == 1, "exit status %d for:\n%s%s", status, configs[i].text, said);
                (void)snprintf(where, sizeof(where), "%s%s", path, configs[i].said);
                REQUIRE(strstr(said, where), "\"%s\" is not in: %s", where, said);
                free(said);
        }
        broker = broker_stop(broker);
}

TEST(listener, a_good_configuration_checks_and_starts_nothing) {
        static const char text[] =
                "# everything\n"
                "[daemon]\nsocket = /tmp/shmd-test-never\nsocket-mode = 0660\nuser = 64055\nadmin-group = 0\nroot-mode = 0755\n"
                "session-grace = 20s\n"
                "[global]\nbytes = 1G\nregions = 100\ngrants = unlimited\npeers = 20\nwatches = 5\npending = 5\ninflight = 20\n"
                "[account]\nbytes = 64M\nregions = 10\n"
                "[account 64102]\nbytes = 128M\n"
                "[time]\nwait-max = 1h\nhello = 500ms\nstall = 2min\n"
                "[directory /camera]\nowner = 64102\ngroup = 64102\nmode = 1770\nbytes = 32M\nregions = 8\n";
        Broker *broker = broker_spawn(NULL);
        const char *path = broker_write_file(broker, "good.conf", text);
        char *said = NULL;
        int status = shmd_run(&said, "--config", path, "--check-config", NULL);

        REQUIRE(status == 0, "exit status %d: %s", status, said);
        free(said);
        REQUIRE(access("/tmp/shmd-test-never", F_OK) == -1);
        broker = broker_stop(broker);
}

TEST(listener, directories_of_the_configuration_are_there_from_the_start) {
        Broker *broker;
        Client *bob, *alice;
        Shmd__Node *node;

        test_needs_root();
        broker = broker_spawn("[directory /camera]\nowner = 64102\ngroup = 64103\nmode = 0750\n"
                              "[directory /camera/front]\nmode = 1777\n");
        bob = client_connect_as(broker, BOB, BOB);
        alice = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(bob, call_stat(bob, "/camera"));
        node = ((Shmd__StatReply *)bob->reply)->node;
        REQUIRE(node->uid == 64102 && node->gid == 64103 && node->mode == 0750);
        client_expect_done(bob, call_create(bob, "/camera/front/x", 1, NULL));
        client_expect_error(alice, DENIED, SEARCH, call_stat(alice, "/camera/front/x"));
        bob = client_free(bob);
        alice = client_free(alice);
        broker = broker_stop(broker);
}

TEST(listener, the_command_line_is_answered) {
        char *said = NULL;

        REQUIRE(shmd_run(&said, "--version", NULL) == 0 && strstr(said, "0.1.0"), "%s", said);
        free(said);
        REQUIRE(shmd_run(&said, "--help", NULL) == 0 && strstr(said, "--socket") && strstr(said, "--check-config"), "%s",
                said);
        /* A word that is longer than its column, as a path of an installation can be, is more than argp can wrap. */
        for (const char *word = said; *word; word += strcspn(word, " \n"), word += strspn(word, " \n"))
                REQUIRE(strcspn(word, " \n") < 50, "%s", word);
        free(said);
        REQUIRE(shmd_run(&said, "--nonsense", NULL) == 2, "%s", said);
        free(said);
        REQUIRE(shmd_run(&said, "argument", NULL) == 2, "%s", said);
        free(said);
        REQUIRE(shmd_run(&said, "--config", "/nonexistent/shmd.conf", "--check-config", NULL) == 1 &&
                strstr(said, "/nonexistent/shmd.conf"), "%s", said);
        free(said);
}

TEST(listener, attack_116_a_configuration_that_is_no_ordinary_file_is_an_error) {
        Broker *broker = broker_spawn(NULL);
        char *said = NULL;

        REQUIRE(shmd_run(&said, "--config", broker->dir, "--check-config", NULL) == 1, "a directory: %s", said);
        free(said);
        REQUIRE(shmd_run(&said, "--config", "/dev/null", "--check-config", NULL) <= 1, "an empty one: %s", said);
        free(said);
        broker = broker_stop(broker);
}
