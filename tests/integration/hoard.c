/* Users who want more than their quota: they create, unlink and hold, by every means the kernel has,
 * and let go only when they are refused. Again and again everybody stands still, and what is alive
 * is counted in /proc (lib/census.h): in the processes that hold it, and in the broker itself, which
 * also has what it is about to release. In between the broker is stopped at random instants, and
 * what it has then is counted. Not one page may be alive beyond the quota, ever.
 */

#define TEST_TIMEOUT 300

#include "lib/census.h"
#include "lib/client.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
        HOARDERS = 4,           /* of one user */
        KEPT = 24,              /* by each, at most */
        STEPS = 50,             /* between two counts */
        QUOTA_PAGES = 96,
        REGION_PAGES = 8,       /* at most */
};

/* How a region is kept when its name is gone. */
typedef enum How {
        NOTHING,
        BY_DESCRIPTOR,
        BY_MAPPING,
        BY_COPY,                /* of the mapping, in a process that was forked */
        BY_MESSAGE,
        _HOW_N,
} How;

typedef struct Kept {
        How how;
        int fd;
        char *memory;
        size_t size;
        pid_t pid;
        int ends[2];
} Kept;

typedef struct Hoarder {
        pid_t test;
        Broker *broker;
        pid_t group;            /* 0: its own */
        int index;
        uint64_t random;
        Client *client;
        Kept kept[KEPT];
        uint64_t n_refused;
} Hoarder;

static uint64_t any(Hoarder *hoarder, uint64_t n) {
        return test_random(&hoarder->random, n);
}

static char *map(int fd, size_t size) {
        char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        REQUIRE(memory != MAP_FAILED, "%s", strerror(errno));
        return memory;
}

static void let_go(Kept *kept) {
        switch (kept->how) {
        case BY_DESCRIPTOR:
                close_fd(kept->fd);
                break;
        case BY_MAPPING:
                REQUIRE(munmap(kept->memory, kept->size) == 0);
                break;
        case BY_COPY:
                REQUIRE(kill(kept->pid, SIGKILL) == 0 && waitpid(kept->pid, NULL, 0) == kept->pid);
                break;
        case BY_MESSAGE:
                close_fd(kept->ends[0]);
                close_fd(kept->ends[1]);
                break;
        case NOTHING:
        case _HOW_N:
                break;
        }
        kept->how = NOTHING;
}

static pid_t fork_keeper(Hoarder *hoarder) {
        pid_t parent = getpid(), pid = fork();

        REQUIRE(pid >= 0, "%s", strerror(errno));
        if (pid > 0)
                return pid;
        test_end_with(parent);
        /* Only what it was forked for: other copies would make it keep more. */
        for (size_t i = 0; i < KEPT; ++i) {
                Kept *kept = &hoarder->kept[i];

                if (kept->how == BY_MAPPING)
                        (void)munmap(kept->memory, kept->size);
        }
        child_close_fds_but(-1);
        for (;;)
                (void)pause();
}

/* The grant becomes something else that keeps the region. */
static void keep(Hoarder *hoarder, Kept *kept, How how, int fd, size_t size) {
        char *memory = how == BY_MAPPING || how == BY_COPY ? map(fd, size) : NULL;

        *kept = (Kept){ .how = how, .fd = fd, .memory = memory, .size = size };
        if (how == BY_COPY) {
                kept->pid = fork_keeper(hoarder);
                REQUIRE(munmap(memory, size) == 0);
        } else if (how == BY_MESSAGE) {
                REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, kept->ends) == 0);
                REQUIRE(test_send_fd(kept->ends[0], fd));
        }
        if (how != BY_DESCRIPTOR)
                kept->fd = close_fd(fd);
}

/* Makes a region, fills it, and takes its name away if it got one. Return: whether it was granted. */
static bool take(Hoarder *hoarder, Kept *kept) {
        size_t size = (1 + any(hoarder, REGION_PAGES)) * PAGE - any(hoarder, PAGE);
        Grant grant = GRANT_NULL;
        bool named = any(hoarder, 2);
        char path[16], *memory;
        uint32_t error;

        (void)snprintf(path, sizeof(path), "/%d", hoarder->index);
        error = call_create(hoarder->client, named ? path : NULL, size, &grant);
        if (error) {
                REQUIRE(error == SHMD__ERROR__ERROR_QUOTA, "%s", client_describe(hoarder->client));
                ++hoarder->n_refused;
                return false;
        }
        if (named)
                client_expect_done(hoarder->client, call_unlink(hoarder->client, path));
        memory = map(grant.fd, size);
        memset(memory, 'h', size);
        REQUIRE(munmap(memory, size) == 0);
        keep(hoarder, kept, BY_DESCRIPTOR + (How)any(hoarder, _HOW_N - BY_DESCRIPTOR), grant.fd, size);
        return true;
}

static void step(Hoarder *hoarder) {
        Kept *kept = &hoarder->kept[any(hoarder, KEPT)];

        if (kept->how != NOTHING) {
                let_go(kept);
        } else if (!take(hoarder, kept)) {
                /* Something of one's own, and at once the next attempt. */
                let_go(&hoarder->kept[any(hoarder, KEPT)]);
                (void)take(hoarder, kept);
        }
}

/* For a count: messages come out of their sockets, where /proc does not show them. */
static void show_messages(Hoarder *hoarder) {
        for (size_t i = 0; i < KEPT; ++i) {
                Kept *kept = &hoarder->kept[i];

                if (kept->how != BY_MESSAGE)
                        continue;
                kept->fd = test_receive_fd(kept->ends[1]);
                REQUIRE(kept->fd >= 0);
        }
}

static void hide_messages(Hoarder *hoarder) {
        for (size_t i = 0; i < KEPT; ++i) {
                Kept *kept = &hoarder->kept[i];

                if (kept->how != BY_MESSAGE)
                        continue;
                REQUIRE(test_send_fd(kept->ends[0], kept->fd));
                kept->fd = close_fd(kept->fd);
        }
}

static int hoard(void *userdata) {
        Hoarder *hoarder = userdata;

        REQUIRE(setpgid(0, hoarder->group) == 0, "%s", strerror(errno));
        hoarder->client = client_connect_as(hoarder->broker, ALICE, ALICE);
        test_become(ALICE, ALICE);
        test_end_with(hoarder->test);
        for (;;) {
                show_messages(hoarder);
                child_arrive((int64_t)hoarder->n_refused);
                hide_messages(hoarder);
                for (int i = 0; i < STEPS; ++i)
                        step(hoarder);
        }
}

/* What is alive, in pages; whole ones, as they are charged, and those that are allocated. */
typedef struct Alive {
        uint64_t charged;
        uint64_t allocated;
} Alive;

/* Requires that it is within the quota. Return: pages, as they are charged. */
static uint64_t require_within_quota(const Census *census, const char *when) {
        Alive alive = { 0, 0 };

        for (size_t i = 0; i < census->n; ++i) {
                alive.charged += (census->seen[i].size + PAGE - 1) / PAGE;
                alive.allocated += census->seen[i].allocated / PAGE;
        }
        REQUIRE(alive.charged <= QUOTA_PAGES && alive.allocated <= QUOTA_PAGES,
                "%s: %" PRIu64 " pages, %" PRIu64 " of them allocated, of %d", when, alive.charged, alive.allocated,
                QUOTA_PAGES);
        return alive.charged;
}

static uint64_t count_alive(Broker *broker, pid_t group) {
        Census census = CENSUS_NULL;
        uint64_t alive;

        census_look_at_group(&census, group);
        census_look_at(&census, broker->pid);
        alive = require_within_quota(&census, "alive");
        census_deinit(&census);
        return alive;
}

static bool is_stopped(void *broker) {
        return broker_status(broker, "State")[0] == 'T';
}

static void count_in_broker(Broker *broker, uint64_t *random) {
        struct timespec t = { .tv_nsec = (long)test_random(random, 4000000) };
        Census census = CENSUS_NULL;

        (void)nanosleep(&t, NULL);
        REQUIRE(kill(broker->pid, SIGSTOP) == 0);
        REQUIRE(test_eventually(is_stopped, broker));
        census_look_at(&census, broker->pid);
        REQUIRE(kill(broker->pid, SIGCONT) == 0);
        (void)require_within_quota(&census, "in the broker");
        census_deinit(&census);
}

TEST(hoard, attack_060_create_unlink_and_hold_in_a_loop_never_gets_a_page_beyond_the_quota) {
        uint64_t rounds = test_rounds(1000) / 10, random = test_seed(), most = 0, refused = 0;
        Child children[HOARDERS];
        char config[64];
        Broker *broker;

        test_needs_root();
        (void)snprintf(config, sizeof(config), "[account]\nbytes = %" PRIu64, QUOTA_PAGES * PAGE);
        broker = broker_spawn(config);
        for (int i = 0; i < HOARDERS; ++i) {
                static Hoarder hoarder;

                children[i] = (Child)CHILD_NULL;
                hoarder = (Hoarder){ .test = getpid(), .broker = broker, .group = i > 0 ? children[0].pid : 0,
                                     .index = i, .random = test_random(&random, UINT32_MAX) + 1 };
                child_spawn(&children[i], hoard, &hoarder);
        }
        for (uint64_t round = 0; round < rounds; ++round) {
                uint64_t alive;

                for (int i = 0; i < HOARDERS; ++i)
                        child_continue(&children[i]);
                for (int i = 0; i < 4; ++i)
                        count_in_broker(broker, &random);
                refused = 0;
                for (int i = 0; i < HOARDERS; ++i) {
                        child_await(&children[i]);
                        refused += (uint64_t)child_value();
                }
                alive = count_alive(broker, children[0].pid);
                most = alive > most ? alive : most;
        }
        fprintf(stderr, "%d hoarders were refused %" PRIu64 " times and had at most %" PRIu64 " pages of %d\n",
                HOARDERS, refused, most, QUOTA_PAGES);
        REQUIRE(refused > 0 && most > QUOTA_PAGES - REGION_PAGES, "nobody came near the quota");
        for (int i = 0; i < HOARDERS; ++i)
                child_kill(&children[i]);
        broker = broker_stop(broker);
}
