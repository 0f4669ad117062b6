/* Without a keeper, a broker's descriptors can be in the store of a service manager. The manager here is a
 * process of the test that does with them what systemd does: it keeps what it is sent, drops what it has no
 * room for without a word, takes everything of a name away at once, and starts the next broker with all of it
 * in any order, among it the listening socket.
 *
 * A keeper has less in that store: what comes back when the keeper was killed.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define STORE_ROOM 64
#define REGIONS 20

/* -- the manager ------------------------------------------------------------------------------- */

typedef struct Stored {
        char name[64];
        int fd;
} Stored;

typedef struct Manager {
        const char *dir;
        bool slow;              /* its queue is full when the broker starts, and it is in no hurry to read */
        bool keeper;            /* a keeper is started, whose broker is the program in the directory */
        int command;            /* 'k': kill the broker and start the next; 'q': end it as it should end */
        int answer;             /* a byte when a broker is ready: how many descriptors are stored */
        int notify;
        int listening;
        pid_t pid;
        uint64_t random;
        Stored stored[STORE_ROOM];
        size_t n;
} Manager;

static const char *in_dir(const char *dir, const char *name) {
        static char paths[8][512];
        static unsigned int next;
        char *path = paths[next++ % 8];

        (void)snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
        return path;
}

static int bind_to(const char *path, int type) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && chmod(path, 0666) == 0, "%s",
                strerror(errno));
        return fd;
}

static void shuffle(Manager *manager) {
        for (size_t i = manager->n; i > 1; --i) {
                size_t j = test_random(&manager->random, i);
                Stored swapped = manager->stored[j];

                manager->stored[j] = manager->stored[i - 1];
                manager->stored[i - 1] = swapped;
        }
}

/* In the child: from descriptor 3 on, with the socket in the middle. */
static void pass_descriptors(const Manager *manager) {
        char names[64 * (STORE_ROOM + 1)] = "", text[16];
        size_t middle = manager->n / 2;
        int fds[STORE_ROOM + 1];

        for (size_t i = 0; i <= manager->n; ++i) {
                const Stored *stored = i == middle ? &(Stored){ "shmd.socket", manager->listening } :
                                                     &manager->stored[i < middle ? i : i - 1];

                (void)strcat(strcat(names, i ? ":" : ""), stored->name);
                fds[i] = fcntl(stored->fd, F_DUPFD, 500);
                REQUIRE(fds[i] >= 0);
        }
        for (size_t i = 0; i <= manager->n; ++i) {
                REQUIRE(dup2(fds[i], 3 + (int)i) >= 0);
                close_fd(fds[i]);
        }
        (void)close_range(4 + (unsigned int)manager->n, 499, CLOSE_RANGE_CLOEXEC);
        (void)snprintf(text, sizeof(text), "%d", (int)getpid());
        REQUIRE(setenv("LISTEN_PID", text, 1) == 0);
        (void)snprintf(text, sizeof(text), "%zu", manager->n + 1);
        REQUIRE(setenv("LISTEN_FDS", text, 1) == 0 && setenv("LISTEN_FDNAMES", names, 1) == 0);
        (void)snprintf(text, sizeof(text), "%d", STORE_ROOM);
        REQUIRE(setenv("FDSTORE", text, 1) == 0);
        REQUIRE(setenv("NOTIFY_SOCKET", in_dir(manager->dir, "notify"), 1) == 0);
}

static void start_broker(Manager *manager) {
        const char *shmd = test_program("shmd"), *config = in_dir(manager->dir, "shmd.conf");

        shuffle(manager);
        manager->pid = fork();
        REQUIRE(manager->pid >= 0);
        if (manager->pid == 0) {
                int log = open(in_dir(manager->dir, "log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

                test_end_with(getppid());
                REQUIRE(dup2(log, 1) == 1 && dup2(log, 2) == 2);
                pass_descriptors(manager);
                if (manager->keeper)
                        (void)execl(shmd, in_dir(manager->dir, "program"), "--config", config, "--policy-root",
                                    manager->dir, NULL);
                (void)execl(shmd, "shmd", "--no-keeper", "--config", config, "--policy-root", manager->dir, NULL);
                _exit(127);
        }
}

static void remove_stored(Manager *manager, const char *name) {
        for (size_t i = manager->n; i-- > 0;)
                if (!strcmp(manager->stored[i].name, name)) {
                        close_fd(manager->stored[i].fd);
                        manager->stored[i] = manager->stored[--manager->n];
                }
}

/* Return: whether it was READY=1. */
static bool read_notification(Manager *manager) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        char text[512], name[64] = "";
        struct iovec part = { .iov_base = text, .iov_len = sizeof(text) - 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n = recvmsg(manager->notify, &message, MSG_CMSG_CLOEXEC);
        const char *at;
        int fd = -1;

        REQUIRE(n > 0, "%s", strerror(errno));
        text[n] = '\0';
        if (CMSG_FIRSTHDR(&message))
                memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
        at = strstr(text, "FDNAME=");
        if (at)
                (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(at + 7, "\n"), at + 7);
        if (strstr(text, "FDSTOREREMOVE=1")) {
                remove_stored(manager, name);
        } else if (strstr(text, "FDSTORE=1")) {
                REQUIRE(manager->n < STORE_ROOM, "more than it was said to take");
                manager->stored[manager->n].fd = fd;
                memcpy(manager->stored[manager->n++].name, name, sizeof(name));
                fd = -1;
        }
        /* A barrier, too, is over when it is closed. */
        close_fd(fd);
        return strstr(text, "READY=1");
}

static void end_broker(Manager *manager, int signal) {
        int status;

        /* What was sent before it ended counts. */
        REQUIRE(kill(manager->pid, signal) == 0 && waitpid(manager->pid, &status, 0) == manager->pid);
        for (;;) {
                struct pollfd p = { .fd = manager->notify, .events = POLLIN };

                if (poll(&p, 1, 0) != 1)
                        break;
                (void)read_notification(manager);
        }
        REQUIRE(signal == SIGKILL || status == 0, "status %#x", status);
}

static void fill_queue(const Manager *manager) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", in_dir(manager->dir, "notify"));
        REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s", strerror(errno));
        while (send(fd, "STATUS=before", 13, 0) == 13)
                continue;
        REQUIRE(errno == EAGAIN, "%s", strerror(errno));
        close_fd(fd);
}

static int manage(void *userdata) {
        Manager *manager = userdata;
        char byte;

        if (manager->slow)
                fill_queue(manager);
        start_broker(manager);
        for (;;) {
                struct pollfd p[2] = { { .fd = manager->notify, .events = POLLIN },
                                       { .fd = manager->command, .events = POLLIN } };

                REQUIRE(poll(p, 2, TEST_PATIENCE_MS) > 0);
                if (p[0].revents) {
                        if (manager->slow)
                                test_sleep_ms(20);
                        if (read_notification(manager))
                                REQUIRE(write(manager->answer, &(char){ (char)manager->n }, 1) == 1);
                        continue;
                }
                REQUIRE(read(manager->command, &byte, 1) == 1);
                end_broker(manager, byte == 'k' ? SIGKILL : SIGTERM);
                if (byte == 'q')
                        return 0;
                start_broker(manager);
        }
}

/* -- the test ------------------------------------------------------------------------------------ */

typedef struct Scene {
        Broker broker;          /* as clients see it */
        char dir[64];
        int command, answer;
        Child manager;
} Scene;

/* Waits for a broker. Return: how many descriptors it had in store then. */
static size_t await_broker(Scene *scene) {
        struct pollfd p = { .fd = scene->answer, .events = POLLIN };
        char n = 0;

        REQUIRE(poll(&p, 1, TEST_PATIENCE_MS) == 1 && read(scene->answer, &n, 1) == 1, "no broker is ready");
        return (size_t)n;
}

static bool is_ready(void *scene) {
        return broker_log_has(&((Scene *)scene)->broker, "event=ready", NULL);
}

static size_t kill_broker(Scene *scene) {
        REQUIRE(write(scene->command, "k", 1) == 1);
        return await_broker(scene);
}

static void write_config(const Scene *scene) {
        FILE *file = fopen(in_dir(scene->dir, "shmd.conf"), "we");

        REQUIRE(file && fprintf(file, "[daemon]\nuser = %d\n", test_broker_uid()) > 0 && fclose(file) == 0);
}

static void scene_begin_as(Scene *scene, const Manager *like, void (*prepare)(Scene *)) {
        static Manager manager;
        int commands[2], answers[2];

        test_needs_root();
        *scene = (Scene){ .manager = CHILD_NULL };
        (void)snprintf(scene->dir, sizeof(scene->dir), "/tmp/shmd-test-XXXXXX");
        REQUIRE(mkdtemp(scene->dir) && chmod(scene->dir, 0755) == 0);
        (void)snprintf(scene->broker.socket, sizeof(scene->broker.socket), "%s/socket", scene->dir);
        (void)snprintf(scene->broker.log, sizeof(scene->broker.log), "%s/log", scene->dir);
        write_config(scene);
        if (prepare)
                prepare(scene);
        REQUIRE(pipe2(commands, O_CLOEXEC) == 0 && pipe2(answers, O_CLOEXEC) == 0);
        manager = (Manager){ .dir = scene->dir, .keeper = like->keeper, .slow = like->slow,
                             .command = commands[0], .answer = answers[1],
                             .random = test_seed(), .notify = bind_to(in_dir(scene->dir, "notify"), SOCK_DGRAM),
                             .listening = bind_to(scene->broker.socket, SOCK_SEQPACKET) };
        REQUIRE(listen(manager.listening, 100) == 0);
        scene->command = commands[1];
        scene->answer = answers[0];
        child_start(&scene->manager, manage, &manager);
        close_fd(commands[0]);
        close_fd(answers[1]);
        close_fd(manager.notify);
        close_fd(manager.listening);
        /* While there is no room for it, what a broker says of itself is not said. */
        if (like->slow)
                REQUIRE(test_eventually(is_ready, scene));
        else
                (void)await_broker(scene);
}

static void scene_begin(Scene *scene) {
        scene_begin_as(scene, &(Manager){ .keeper = false }, NULL);
}

static void scene_end(Scene *scene) {
        REQUIRE(write(scene->command, "q", 1) == 1);
        child_release(&scene->manager);
        scene->command = close_fd(scene->command);
        scene->answer = close_fd(scene->answer);
        REQUIRE(test_remove_tree(scene->dir));
}

static void check_region(Client *client, unsigned int i) {
        Grant grant = GRANT_NULL;
        char path[32];
        uint32_t *map;

        (void)snprintf(path, sizeof(path), "/r%u", i);
        client_expect_done(client, call_open(client, path, READ_ONLY, &grant));
        map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, grant.fd, 0);
        REQUIRE(map != MAP_FAILED);
        cr_assert_eq(*map, i + 1);
        REQUIRE(munmap(map, PAGE) == 0);
        grant_deinit(&grant);
}

static void make_region(Client *client, unsigned int i) {
        Grant grant = GRANT_NULL;
        char path[32];

        (void)snprintf(path, sizeof(path), "/r%u", i);
        client_expect_done(client, call_create(client, path, PAGE, &grant));
        REQUIRE(pwrite(grant.fd, &(uint32_t){ i + 1 }, 4, 0) == 4);
        grant_deinit(&grant);
}

TEST(store, a_service_manager_can_keep_it_all) {
        uint64_t own;
        Client *client;
        Scene scene;

        scene_begin(&scene);
        client = client_connect_as(&scene.broker, ALICE, ALICE);
        own = kill_broker(&scene);
        client = client_free(client);
        for (unsigned int round = 0; round < 5; ++round) {
                client = client_connect_as(&scene.broker, ALICE, ALICE);
                for (unsigned int i = 0; i < REGIONS; ++i)
                        make_region(client, i);
                client = client_free(client);
                REQUIRE(kill_broker(&scene) == own + REGIONS, "each region, and nothing else");

                client = client_connect_as(&scene.broker, ALICE, ALICE);
                for (unsigned int i = 0; i < REGIONS; ++i)
                        check_region(client, i);
                for (unsigned int i = 0; i < REGIONS; ++i) {
                        char path[32];

                        (void)snprintf(path, sizeof(path), "/r%u", i);
                        client_expect_done(client, call_unlink(client, path));
                }
                client_expect_used(client, SHMD__SLOT__SLOT_BYTES, 0);
                client = client_free(client);
                REQUIRE(kill_broker(&scene) <= own + REGIONS);
        }
        scene_end(&scene);
}

TEST(store, a_broker_waits_for_a_store_that_is_slow_when_it_starts) {
        Client *client;
        Scene scene;

        scene_begin_as(&scene, &(Manager){ .slow = true }, NULL);
        client = client_connect_as(&scene.broker, ALICE, ALICE);
        make_region(client, 0);
        client = client_free(client);
        scene_end(&scene);
}

TEST(store, there_are_no_more_regions_than_it_has_room_for) {
        Client *client;
        Scene scene;
        char path[32];
        unsigned int n = 0;

        scene_begin(&scene);
        client = client_connect_as(&scene.broker, ALICE, ALICE);
        for (;;) {
                (void)snprintf(path, sizeof(path), "/r%u", n);
                if (call_create(client, path, PAGE, NULL))
                        break;
                REQUIRE(++n < STORE_ROOM);
        }
        cr_assert_eq(client->refusal->error, SHMD__ERROR__ERROR_QUOTA, "%s", client_describe(client));
        REQUIRE(n > STORE_ROOM / 4);
        client = client_free(client);
        (void)kill_broker(&scene);
        client = client_connect_as(&scene.broker, ALICE, ALICE);
        for (unsigned int i = 0; i < n; ++i) {
                (void)snprintf(path, sizeof(path), "/r%u", i);
                client_expect_done(client, call_stat(client, path));
        }
        client = client_free(client);
        scene_end(&scene);
}

/* -- a keeper --------------------------------------------------------------------------------------- */

/* Puts a program in the place of the keeper's broker, as a package manager does. */
static void replace_program(Scene *scene, const char *name) {
        char command[1024], next[128];

        (void)snprintf(next, sizeof(next), "%s", in_dir(scene->dir, "program.next"));
        (void)snprintf(command, sizeof(command), "cp '%s' '%s' && chmod 0755 '%s'", test_program(name), next, next);
        REQUIRE(system(command) == 0 && rename(next, in_dir(scene->dir, "program")) == 0, "%s", strerror(errno));
}

static void prepare_hostile(Scene *scene) {
        REQUIRE(setenv("SHMD_TEST_HOSTILE", "leave", 1) == 0);
        replace_program(scene, "tests/integration/hostile-broker");
}

static bool has_left(void *userdata) {
        Scene *scene = userdata;

        return broker_log_has(&scene->broker, "hostile: left", NULL);
}

/* What a broker sent to a keeper that is killed: of packets with several descriptors, one of them half done, as much is
 * kept by the next keeper as this one would have kept (hostile-broker.c): 31 of the first 32, and three more. */
TEST(store, packets_of_several_that_a_killed_keeper_had_not_read_are_read_by_the_next) {
        Client *client;
        Scene scene;

        scene_begin_as(&scene, &(Manager){ .keeper = true }, prepare_hostile);
        REQUIRE(test_eventually(has_left, &scene));
        replace_program(&scene, "shmd");
        (void)kill_broker(&scene);
        REQUIRE(broker_log_has(&scene.broker, "event=broker-started", "kept=34", NULL));
        REQUIRE(broker_log_has(&scene.broker, "event=recovered", "dropped=34", NULL));
        client = client_connect_as(&scene.broker, ALICE, ALICE);
        make_region(client, 0);
        client = client_free(client);
        (void)kill_broker(&scene);
        client = client_connect_as(&scene.broker, ALICE, ALICE);
        check_region(client, 0);
        client = client_free(client);
        scene_end(&scene);
}
