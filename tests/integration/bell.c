/* Doorbells between processes of real users: rung and waited for without the broker, and what each side
 * cannot do to the other.
 */

/* On a busy machine each of 100,000 handoffs from process to process may wait for a processor. */
#define TEST_TIMEOUT 1200

#include "lib/client.h"
#include "shmd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)
#define SLOT_BYTES SHMD__SLOT__SLOT_BYTES
#define SLOT_REGIONS SHMD__SLOT__SLOT_REGIONS
#define RING SHMD__BELL_FLAGS__BELL_RING
#define POLL SHMD__BELL_FLAGS__BELL_POLL

/* Alice's region, which everybody may read and her group write. */
typedef struct Scene {
        Broker *broker;
        Client *alice;
} Scene;

static Scene scene_begin(void) {
        Scene scene;

        test_needs_root();
        scene.broker = broker_spawn(NULL);
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", PAGE, 0644, NULL));
        return scene;
}

static void scene_end(Scene *scene) {
        scene->alice = client_free(scene->alice);
        scene->broker = broker_stop(scene->broker);
}

static uint32_t bell_of(Client *client, const char *path, uint64_t region, uint32_t flags, int *ret_fd) {
        Shmd__Bell bell = SHMD__BELL__INIT;
        uint32_t error;

        if (path)
                bell.path = BYTES(path);
        bell.region = region;
        bell.flags = flags;
        error = client_call(client, MESSAGE_BELL, &bell.base);
        if (error == 0 && !(flags & POLL))
                *ret_fd = fdlist_take(&client->fds);
        return error;
}

/* -- processes of other users, with the library -------------------------------------------------- */

static void become(uid_t uid) {
        REQUIRE(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0);
}

static shmd *connect_library(const Broker *broker) {
        shmd *client = NULL;
        int r = shmd_connect(&client, broker->socket, 20 * SECOND);

        REQUIRE(r == 0, "%s", strerror(-r));
        return client;
}

static shmd_bell *open_bell(shmd *client, const char *path, uint32_t flags) {
        shmd_bell *bell = NULL;
        int r = shmd_bell_open(client, path, 0, flags, &bell, 20 * SECOND);

        REQUIRE(r == 0, "%s: %s", path, shmd_refusal(client)->sentence);
        return bell;
}

/* A library's bell for the test itself, which is root. */
static shmd_bell *own_bell(const Broker *broker, const char *path, uint32_t flags) {
        shmd *client = connect_library(broker);
        shmd_bell *bell = open_bell(client, path, flags);

        (void)shmd_close(client);
        return bell;
}

static void nap(unsigned int *seed) {
        struct timespec pause = { .tv_nsec = rand_r(seed) % 20000 };

        if (rand_r(seed) % 8 == 0)
                (void)nanosleep(&pause, NULL);
}

/* -- without the broker --------------------------------------------------------------------------- */

static int wait_and_poll(void *broker) {
        struct epoll_event event = { .events = EPOLLIN };
        shmd_bell *bell;
        shmd *client;
        int epoll = epoll_create1(EPOLL_CLOEXEC);

        become(BOB);
        client = connect_library(broker);
        bell = open_bell(client, "/r", 0);
        REQUIRE(shmd_bell_fd(bell) == -EBADF);
        REQUIRE(shmd_bell_poll(client, bell, 20 * SECOND) == 0, "%s", shmd_refusal(client)->sentence);
        REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, shmd_bell_fd(bell), &event) == 0);
        REQUIRE(shmd_bell_clear(bell) == 0);
        REQUIRE(epoll_wait(epoll, &event, 1, 0) == 0, "nothing rang");
        REQUIRE(shmd_bell_ring(bell) == -EACCES);
        (void)shmd_close(client);

        child_arrive(0);
        REQUIRE(shmd_bell_wait(bell, 0, 20 * SECOND) == 0);
        REQUIRE(epoll_wait(epoll, &event, 1, TEST_PATIENCE_MS) == 1);
        REQUIRE(shmd_bell_clear(bell) == 1);
        REQUIRE(epoll_wait(epoll, &event, 1, 0) == 0, "cleared");
        REQUIRE(shmd_bell_wait(bell, 1, 1000) == -ETIMEDOUT && shmd_bell_wait(bell, 1, 0) == -ETIMEDOUT);
        child_arrive(1);
        REQUIRE(epoll_wait(epoll, &event, 1, TEST_PATIENCE_MS) == 1);
        REQUIRE(shmd_bell_clear(bell) == 2 && shmd_bell_wait(bell, 1, 0) == 0);
        (void)shmd_bell_close(bell);
        return 0;
}

static int ring_twice(void *broker) {
        shmd_bell *bell;

        become(ALICE);
        bell = own_bell(broker, "/r", SHMD_BELL_RING);
        child_arrive(0);
        REQUIRE(shmd_bell_ring(bell) == 0 && shmd_bell_count(bell) == 1);
        child_arrive(0);
        REQUIRE(shmd_bell_ring(bell) == 0);
        (void)shmd_bell_close(bell);
        return 0;
}

TEST(bell, two_users_ring_and_wait_while_the_broker_is_stopped) {
        Child bob = CHILD_NULL, alice = CHILD_NULL;
        Scene scene = scene_begin();

        child_spawn(&bob, wait_and_poll, scene.broker);
        child_spawn(&alice, ring_twice, scene.broker);
        REQUIRE(kill(scene.broker->pid, SIGSTOP) == 0);
        REQUIRE(write(bob.go, "x", 1) == 1 && write(alice.go, "x", 1) == 1);
        child_await(&bob);
        child_await(&alice);
        child_release(&alice);
        child_release(&bob);
        REQUIRE(kill(scene.broker->pid, SIGCONT) == 0);
        scene_end(&scene);
}

TEST(bell, it_rings_on_when_the_broker_was_killed) {
        Scene scene = scene_begin();
        shmd_bell *ringer = own_bell(scene.broker, "/r", SHMD_BELL_RING), *bell = own_bell(scene.broker, "/r", 0);
        struct pollfd p = { .events = POLLIN };

        REQUIRE(shmd_bell_poll(NULL, ringer, 0) == 0);
        broker_kill(scene.broker);
        REQUIRE(shmd_bell_ring(ringer) == 0);
        REQUIRE(shmd_bell_wait(bell, 0, 20 * SECOND) == 0 && shmd_bell_count(bell) == 1);
        p.fd = shmd_bell_fd(ringer);
        REQUIRE(poll(&p, 1, TEST_PATIENCE_MS) == 1 && shmd_bell_clear(ringer) == 1);
        ringer = shmd_bell_close(ringer);
        bell = shmd_bell_close(bell);
        scene.alice = client_free(scene.alice);
        scene.broker = broker_forget(scene.broker);
}

/* -- wake-ups --------------------------------------------------------------------------------------- */

/* Two bells and their ringers, who answer each other: one lost ring, and both wait for ever. */
#define ROUNDS 50000
#define POLL_ROUNDS 5000

typedef struct Pair {
        const Broker *broker;
        uid_t uid;
        const char *mine;       /* rung by this one */
        const char *theirs;
        bool first;
        bool polls;
        unsigned int rounds;
} Pair;

static void await(shmd_bell *bell, uint32_t seen, bool polls) {
        struct pollfd p = { .fd = shmd_bell_fd(bell), .events = POLLIN };

        if (!polls) {
                REQUIRE(shmd_bell_wait(bell, seen, 20 * SECOND) == 0, "ring %u was lost", seen + 1);
                return;
        }
        while (shmd_bell_clear(bell) == seen)
                REQUIRE(poll(&p, 1, TEST_PATIENCE_MS) == 1, "ring %u was lost", seen + 1);
}

static int answer_each_other(void *userdata) {
        const Pair *pair = userdata;
        unsigned int seed = pair->first;
        shmd_bell *mine, *theirs;
        shmd *client;

        become(pair->uid);
        client = connect_library(pair->broker);
        mine = open_bell(client, pair->mine, SHMD_BELL_RING);
        theirs = open_bell(client, pair->theirs, 0);
        if (pair->polls)
                REQUIRE(shmd_bell_poll(client, theirs, 20 * SECOND) == 0);
        (void)shmd_close(client);
        child_arrive(0);
        for (uint32_t i = 0; i < pair->rounds; ++i) {
                if (!pair->first)
                        await(theirs, i, pair->polls);
                nap(&seed);
                REQUIRE(shmd_bell_ring(mine) == 0);
                if (pair->first) {
                        nap(&seed);
                        await(theirs, i, pair->polls);
                }
        }
        REQUIRE(shmd_bell_count(mine) == pair->rounds && shmd_bell_count(theirs) == pair->rounds);
        (void)shmd_bell_close(mine);
        (void)shmd_bell_close(theirs);
        return 0;
}

static void race(bool polls, unsigned int rounds) {
        Child children[2] = { CHILD_NULL, CHILD_NULL };
        Scene scene = scene_begin();
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        Pair pairs[2];
        int64_t began;

        client_expect_done(bob, call_create_mode(bob, "/b", PAGE, 0644, NULL));
        pairs[0] = (Pair){ scene.broker, ALICE, "/r", "/b", true, polls, rounds };
        pairs[1] = (Pair){ scene.broker, BOB, "/b", "/r", false, polls, rounds };
        for (unsigned int i = 0; i < 2; ++i)
                child_spawn(&children[i], answer_each_other, &pairs[i]);
        began = test_now_ns();
        for (unsigned int i = 0; i < 2; ++i)
                REQUIRE(write(children[i].go, "x", 1) == 1);
        /* It takes as long as it takes; none of them waits for ever. */
        for (unsigned int i = 0; i < 2; ++i) {
                int status;

                REQUIRE(waitpid(children[i].pid, &status, 0) == children[i].pid && status == 0, "status %#x", status);
                close_fd(children[i].go);
                close_fd(children[i].ready);
        }
        printf("  %u rings of two users that answer each other%s, some after a pause: %lld ns each\n", 2 * rounds,
               polls ? " and poll" : "", (long long)(test_now_ns() - began) / (2 * rounds));
        bob = client_free(bob);
        scene_end(&scene);
}

TEST(bell, no_ring_of_100000_is_lost_on_who_waits) {
        race(false, ROUNDS);
}

TEST(bell, no_ring_is_lost_on_who_polls) {
        race(true, POLL_ROUNDS);
}

#define READERS 16

static int wait_for_three(void *broker) {
        shmd_bell *bell;

        become(BOB);
        bell = own_bell(broker, "/r", 0);
        for (uint32_t seen = 0; seen < 3; ++seen) {
                child_arrive(seen);
                REQUIRE(shmd_bell_wait(bell, seen, 20 * SECOND) == 0);
        }
        (void)shmd_bell_close(bell);
        return 0;
}

TEST(bell, one_ring_wakes_all_who_wait) {
        Child readers[READERS];
        Scene scene = scene_begin();
        shmd_bell *bell = own_bell(scene.broker, "/r", SHMD_BELL_RING);

        for (unsigned int i = 0; i < READERS; ++i) {
                readers[i] = (Child)CHILD_NULL;
                child_spawn(&readers[i], wait_for_three, scene.broker);
        }
        for (unsigned int round = 0; round < 3; ++round) {
                for (unsigned int i = 0; i < READERS; ++i)
                        REQUIRE(write(readers[i].go, "x", 1) == 1);
                test_sleep_ms(5);
                REQUIRE(shmd_bell_ring(bell) == 0);
                for (unsigned int i = 0; i < READERS && round < 2; ++i)
                        child_await(&readers[i]);
        }
        for (unsigned int i = 0; i < READERS; ++i)
                child_release(&readers[i]);
        bell = shmd_bell_close(bell);
        scene_end(&scene);
}

/* -- what a ring and a wait cost --------------------------------------------------------------------- */

#define COUNTED 100

typedef struct Counted {
        shmd_bell *bell;
        bool ring;
} Counted;

static int count_calls(void *userdata) {
        const Counted *counted = userdata;

        REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 && raise(SIGSTOP) == 0);
        for (unsigned int i = 0; i < COUNTED; ++i) {
                if (counted->ring)
                        (void)shmd_bell_ring(counted->bell);
                else
                        (void)shmd_bell_wait(counted->bell, shmd_bell_count(counted->bell) - 1, SHMD_TIMEOUT_NONE);
        }
        (void)raise(SIGSTOP);
        return 0;
}

/* System calls between two SIGSTOPs that a child sends itself, less those two's own. */
static unsigned int calls_of(shmd_bell *bell, bool ring) {
        Counted counted = { bell, ring };
        unsigned int stops = 0, n = 0;
        pid_t pid = fork();
        int status = 0;

        if (pid == 0)
                _exit(count_calls(&counted));
        while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
                int signal = WSTOPSIG(status);

                if (signal == SIGSTOP && ++stops == 2)
                        break;
                if (stops == 1 && signal == (SIGTRAP | 0x80))
                        ++n;
                if (stops == 1 && n == 0)
                        REQUIRE(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD) == 0);
                REQUIRE(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0);
        }
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, &status, 0);
        REQUIRE(stops == 2);
        return n / 2;
}

TEST(bell, a_ring_is_one_system_call_and_two_once_somebody_polls) {
        Scene scene = scene_begin();
        shmd_bell *bell = own_bell(scene.broker, "/r", SHMD_BELL_RING);
        unsigned int raising = calls_of(bell, false), rings = calls_of(bell, true), polled;

        REQUIRE(shmd_bell_poll(NULL, bell, 0) == 0, "who rings needs nobody to poll");
        polled = calls_of(bell, true);
        printf("  system calls of %u: waits for what rang already %u, rings %u, rings while somebody polls %u "
               "(of each, about %u are the test's own)\n", COUNTED, raising, rings, polled, raising);
        REQUIRE(rings - raising == COUNTED && polled - raising == 2 * COUNTED);
        bell = shmd_bell_close(bell);
        scene_end(&scene);
}

/* -- who may ----------------------------------------------------------------------------------------- */

TEST(bell, who_may_read_waits_and_who_may_write_rings) {
        Scene scene = scene_begin();
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        int fd = -1;

        client_expect_done(bob, bell_of(bob, "/r", 0, 0, &fd));
        REQUIRE((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
        fd = close(fd);
        client_expect_error(bob, DENIED, REGION_WRITE, bell_of(bob, "/r", 0, RING, &fd));
        client_expect_done(scene.alice, bell_of(scene.alice, "/r", 0, RING, &fd));
        REQUIRE((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR);
        fd = close(fd);
        client_expect_done(scene.alice, call_chmod(scene.alice, "/r", 0600));
        client_expect_error(bob, DENIED, REGION_READ, bell_of(bob, "/r", 0, 0, &fd));
        client_expect_done(scene.alice, bell_of(scene.alice, NULL, 1, RING, &fd));
        fd = close(fd);
        client_expect_error(bob, NOT_FOUND, MISSING, bell_of(bob, NULL, 1, 0, &fd));
        client_expect_error(bob, NOT_FOUND, MISSING, bell_of(bob, "/nothing", 0, 0, &fd));
        client_expect_error(bob, IS_DIRECTORY, TAKEN, bell_of(bob, "/", 0, 0, &fd));
        client_expect_error(bob, INVALID, MALFORMED, bell_of(bob, NULL, 0, 0, &fd));
        client_expect_error(bob, INVALID, MALFORMED, bell_of(bob, "/r", 1, 0, &fd));
        client_expect_error(bob, INVALID, FLAGS, bell_of(bob, "/r", 0, 4, &fd));
        client_expect_error(bob, INVALID, FLAGS, bell_of(bob, "/r", 0, RING | POLL, &fd));
        bob = client_free(bob);
        scene_end(&scene);
}

TEST(bell, who_came_by_ticket_has_the_bell_by_number_with_that_right) {
        Scene scene = scene_begin();
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        Grant mine = GRANT_NULL, bobs = GRANT_NULL;
        Shmd__Redeem redeem = SHMD__REDEEM__INIT;
        char text[64];
        int fd = -1;

        client_expect_done(scene.alice, call_create(scene.alice, "", PAGE, &mine));
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_TICKET,
                                                    REQUEST(Ticket, ticket, .region = mine.region,
                                                            .rights = READ_ONLY, .uses = 1)));
        redeem.ticket = ((const Shmd__TicketReply *)scene.alice->reply)->ticket;
        REQUIRE(redeem.ticket.len <= sizeof(text));
        memcpy(text, redeem.ticket.data, redeem.ticket.len);
        redeem.ticket.data = (uint8_t *)text;
        client_expect_error(bob, NOT_FOUND, MISSING, bell_of(bob, NULL, mine.region, 0, &fd));
        client_expect_done(bob, client_call(bob, MESSAGE_REDEEM, &redeem.base));
        client_take_grant(bob, (const Shmd__Granted *)bob->reply, &bobs);
        client_expect_error(bob, NOT_FOUND, MISSING, bell_of(bob, NULL, mine.region, RING, &fd));
        client_expect_done(bob, bell_of(bob, NULL, mine.region, 0, &fd));
        fd = close(fd);
        grant_deinit(&mine);
        grant_deinit(&bobs);
        bob = client_free(bob);
        scene_end(&scene);
}

/* -- what a reader cannot do --------------------------------------------------------------------------- */

static int failed(long r) {
        return r < 0 ? errno : 0;
}

static int attack_page(void *userdata) {
        int fd = *(int *)userdata;
        void *mapped = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        REQUIRE(mapped != MAP_FAILED);
        REQUIRE(failed(pwrite(fd, "x", 1, 0)) == EBADF);
        REQUIRE(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
        REQUIRE(failed(mprotect(mapped, PAGE, PROT_READ | PROT_WRITE)) == EACCES);
        REQUIRE(failed(open(path, O_RDWR)) == EACCES && failed(open(path, O_WRONLY)) == EACCES);
        REQUIRE(failed(truncate(path, 0)) != 0 && failed(ftruncate(fd, 0)) != 0);
        REQUIRE(failed(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE)) == EBADF);
        REQUIRE(failed(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)) == EPERM);
        REQUIRE(failed(fchmod(fd, 0666)) == EPERM && failed(fchown(fd, BOB, BOB)) == EPERM);
        REQUIRE(failed(madvise(mapped, PAGE, MADV_REMOVE)) == EACCES);
        return 0;
}

TEST(bell, who_waits_can_write_punch_seal_and_change_nothing) {
        Scene scene = scene_begin();
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        shmd_bell *bell = own_bell(scene.broker, "/r", SHMD_BELL_RING);
        int fd = -1;

        client_expect_done(bob, bell_of(bob, "/r", 0, 0, &fd));
        REQUIRE(shmd_bell_ring(bell) == 0);
        REQUIRE(run_as(BOB, BOB, attack_page, &fd) == 0);
        REQUIRE(shmd_bell_count(bell) == 1);
        fd = close(fd);
        bell = shmd_bell_close(bell);
        bob = client_free(bob);
        scene_end(&scene);
}

static uint32_t word_of(int fd, off_t offset) {
        uint32_t word = 0;

        REQUIRE(pread(fd, &word, sizeof(word), offset) == sizeof(word));
        return word;
}

TEST(bell, a_poll_that_is_over_costs_ringers_a_write_and_nothing_else) {
        Scene scene = scene_begin();
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        shmd_bell *bell = own_bell(scene.broker, "/r", SHMD_BELL_RING);
        int fd = -1;

        client_expect_done(bob, bell_of(bob, "/r", 0, 0, &fd));
        REQUIRE(word_of(fd, MESSAGE_BELL_POLLED) == 0);
        client_expect_done(bob, bell_of(bob, "/r", 0, POLL, NULL));
        REQUIRE(bob->fds.n == 0 && word_of(fd, MESSAGE_BELL_POLLED) != 0);
        client_expect_done(bob, bell_of(bob, NULL, ((const Shmd__BellReply *)bob->reply)->page, POLL, NULL));
        bob = client_free(bob);
        for (unsigned int i = 0; i < 1000; ++i)
                REQUIRE(shmd_bell_ring(bell) == 0);
        REQUIRE(shmd_bell_count(bell) == 1000 && word_of(fd, MESSAGE_BELL_POLLED) != 0);
        fd = close(fd);
        bell = shmd_bell_close(bell);
        scene_end(&scene);
}

/* -- what a ringer can do, and what not ------------------------------------------------------------------ */

static int spoil(void *userdata) {
        int fd = *(int *)userdata;
        char *bytes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        REQUIRE(bytes != MAP_FAILED);
        memset(bytes, 0xff, PAGE);
        REQUIRE(failed(ftruncate(fd, 0)) == EPERM && failed(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)) == EPERM);
        child_arrive(0);
        for (;;)
                (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE);
        return 0;
}

TEST(bell, a_hostile_ringer_stops_neither_the_broker_nor_a_wait_with_a_deadline) {
        Scene scene = scene_begin();
        shmd_bell *bell = own_bell(scene.broker, "/r", 0);
        Child hostile = CHILD_NULL;
        int fd = -1;

        client_expect_done(scene.alice, bell_of(scene.alice, "/r", 0, RING, &fd));
        child_spawn(&hostile, spoil, &fd);
        REQUIRE(shmd_bell_count(bell) == UINT32_MAX);
        REQUIRE(shmd_bell_wait(bell, 0, 20 * SECOND) == 0);
        REQUIRE(write(hostile.go, "x", 1) == 1);
        for (uint64_t i = test_rounds(10000); i > 0; --i) {
                int r = shmd_bell_wait(bell, shmd_bell_count(bell), 10000);

                REQUIRE(r == 0 || r == -ETIMEDOUT, "%s", strerror(-r));
                if (i % 100 == 0)
                        client_expect_done(scene.alice, call_ping(scene.alice));
        }
        child_kill(&hostile);
        fd = close(fd);
        bell = shmd_bell_close(bell);
        scene_end(&scene);
}

/* -- life and charge ------------------------------------------------------------------------------------- */

static int hold_bell(void *broker) {
        shmd_bell *bell;

        become(BOB);
        bell = own_bell(broker, "/r", 0);
        child_arrive(0);
        (void)shmd_bell_wait(bell, 0, SHMD_TIMEOUT_NONE);
        return 0;
}

TEST(bell, its_page_is_its_owners_until_the_last_of_all_is_gone_killed_or_not) {
        Scene scene = scene_begin();
        Child bob = CHILD_NULL;
        const Shmd__Node *node;
        uint64_t page;

        REQUIRE(client_used(scene.alice, SLOT_BYTES) == PAGE && client_used(scene.alice, SLOT_REGIONS) == 1);
        child_spawn(&bob, hold_bell, scene.broker);
        REQUIRE(client_used(scene.alice, SLOT_BYTES) == 2 * PAGE && client_used(scene.alice, SLOT_REGIONS) == 2);
        client_expect_done(scene.alice, call_stat(scene.alice, "/r"));
        node = ((const Shmd__StatReply *)scene.alice->reply)->node;
        page = node->bell;
        REQUIRE(page != 0);
        client_expect_error(scene.alice, EXISTS, HAS_NAME, call_publish(scene.alice, page, "/page", 0));
        client_expect_error(scene.alice, NOT_FOUND, MISSING, bell_of(scene.alice, NULL, page, 0, NULL));

        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        client_expect_used(scene.alice, SLOT_BYTES, PAGE);
        REQUIRE(client_used(scene.alice, SLOT_REGIONS) == 1, "bob waits at the page");
        REQUIRE(write(bob.go, "x", 1) == 1);
        child_kill(&bob);
        client_expect_used(scene.alice, SLOT_BYTES, 0);
        client_expect_used(scene.alice, SLOT_REGIONS, 0);
        scene_end(&scene);
}

TEST(bell, one_that_nobody_uses_any_more_stays_with_its_region_and_goes_with_it) {
        Scene scene = scene_begin();
        int fd = -1;

        client_expect_done(scene.alice, bell_of(scene.alice, "/r", 0, RING, &fd));
        REQUIRE(pwrite(fd, "\7", 1, 0) == 1);
        fd = close(fd);
        client_expect_done(scene.alice, bell_of(scene.alice, "/r", 0, 0, &fd));
        REQUIRE(word_of(fd, MESSAGE_BELL_COUNTER) == 7, "it is the same page");
        fd = close(fd);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        client_expect_used(scene.alice, SLOT_BYTES, 0);
        scene_end(&scene);
}

TEST(bell, a_new_owner_pays_for_it) {
        Scene scene = scene_begin();
        Client *root = client_connect_as(scene.broker, 0, 0);
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        int fd = -1;

        client_expect_done(bob, bell_of(bob, "/r", 0, 0, &fd));
        client_expect_done(root, call_chown(root, "/r", BOB, -1));
        REQUIRE(client_used(scene.alice, SLOT_BYTES) == 0 && client_used(bob, SLOT_BYTES) == 2 * PAGE);
        client_expect_done(bob, call_unlink(bob, "/r"));
        client_expect_used(bob, SLOT_BYTES, PAGE);
        fd = close(fd);
        client_expect_used(bob, SLOT_BYTES, 0);
        bob = client_free(bob);
        root = client_free(root);
        scene_end(&scene);
}

TEST(bell, an_owner_without_room_for_it_has_none) {
        Client *alice, *bob;
        Broker *broker;
        int fd = -1;

        test_needs_root();
        broker = broker_spawn("[account]\nregions = 1\n");
        alice = client_connect_as(broker, ALICE, ALICE);
        bob = client_connect_as(broker, BOB, BOB);
        client_expect_done(alice, call_create_mode(alice, "/r", PAGE, 0644, NULL));
        client_expect_error(alice, QUOTA, LIMIT, bell_of(alice, "/r", 0, 0, &fd));
        REQUIRE(alice->refusal->slot == SLOT_REGIONS && alice->refusal->limit == 1);
        client_expect_error(bob, QUOTA, LIMIT, bell_of(bob, "/r", 0, 0, &fd));
        REQUIRE(bob->refusal->limit == 0 && bob->refusal->uid == 0, "alice's numbers are none of bob's business");
        alice = client_free(alice);
        bob = client_free(bob);
        broker = broker_stop(broker);
}
