/* Bursts of regions, for which the broker makes memory ahead: what is left of it when the burst is over, and when
 * the broker is killed in the middle of it.
 *
 * A client makes one region after the other and notes which were acknowledged. The broker is let go on from
 * system call to system call, and killed at one of them: before the burst has a stock, while one is made, told to
 * the keeper, taken from. Its successor has every region that was acknowledged, and at most one more, and neither
 * it nor the keeper anything else.
 */

#define TEST_TIMEOUT 300

#include "lib/census.h"
#include "lib/picture.h"
#include "lib/tracer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
        ROUNDS = 24,
        PLACES = 1600,          /* system calls of a burst, about, after which the broker is killed at the latest */
        BURSTS = 20,
        MOST = 4000,            /* regions: a user may have 4,096 */
};

static const char config[] = "session-grace = 100ms\n[keeper]\nrestarts = 0\n";

typedef struct Burst {
        Broker *broker;
        const char *prefix;
        size_t n_wanted;        /* 0: until the broker is gone, or there are as many as there may be */
        atomic_size_t *n_made;  /* that were acknowledged */
} Burst;

/* Asks for PREFIX-i. The broker may be gone since its last answer. Return: what comes. */
static int ask_for_region(const Burst *burst, Client *client, size_t i) {
        uint8_t packet[256];
        char path[64];
        size_t n;

        (void)snprintf(path, sizeof(path), "%s-%zu", burst->prefix, i);
        n = client_pack(packet, sizeof(packet), MESSAGE_CREATE, ++client->serial,
                        REQUEST(Create, create, .path = BYTES(path), .size = PAGE, .mode = 0600));
        if (client_send_raw(client, packet, n))
                return CLIENT_CLOSED;
        return client_receive(client, TEST_PATIENCE_MS);
}

static int ask_for_nothing(Client *client) {
        uint8_t packet[64];
        size_t n = client_pack(packet, sizeof(packet), MESSAGE_PING, ++client->serial, REQUEST(Ping, ping));

        return client_send_raw(client, packet, n) ? CLIENT_CLOSED : client_receive(client, TEST_PATIENCE_MS);
}

/* Return: what the last one came to. */
static int make_several(const Burst *burst, Client *client, size_t n) {
        int r = CLIENT_REPLY;

        for (size_t i = 0; i < n && r == CLIENT_REPLY; ++i) {
                r = ask_for_region(burst, client, i);
                if (r == CLIENT_REPLY)
                        atomic_store(burst->n_made, i + 1);
        }
        return r;
}

/* In a child: makes PREFIX-0, PREFIX-1, ... A broker that is to end has something to do until then. */
static int make_regions(void *userdata) {
        const Burst *burst = userdata;
        Client *client = client_connect_as(burst->broker, ALICE, ALICE);
        int r = make_several(burst, client, burst->n_wanted ? burst->n_wanted : MOST);

        if (burst->n_wanted)
                return r == CLIENT_REPLY ? 0 : 1;
        while (r == CLIENT_REPLY)
                r = ask_for_nothing(client);
        return r == CLIENT_CLOSED ? 0 : 1;
}

static atomic_size_t *shared_number(void) {
        void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        REQUIRE(page != MAP_FAILED);
        return page;
}

/* Memory that the broker has and that is no region: without a size yet. */
static size_t count_ahead(const Broker *broker) {
        CLEANUP(census_deinit) Census census = CENSUS_NULL;
        size_t n = 0;

        census_look_at(&census, broker->pid);
        for (size_t i = 0; i < census.n; ++i)
                n += census.seen[i].size == 0;
        return n;
}

static bool is_there(Client *admin, const char *prefix, size_t i) {
        char path[64];

        (void)snprintf(path, sizeof(path), "%s-%zu", prefix, i);
        return call_stat(admin, path) == 0;
}

static void unlink_all(Client *admin, const char *prefix, size_t n) {
        for (size_t i = 0; i < n; ++i) {
                char path[64];

                (void)snprintf(path, sizeof(path), "%s-%zu", prefix, i);
                client_expect_done(admin, call_unlink(admin, path));
        }
}

/* Looks while the broker stands still. Return: how many there are. */
static size_t look_in_the_middle(const Burst *burst) {
        Tracer tracer = TRACER_NULL;
        size_t n_ahead;

        test_sleep_ms(10);
        tracer_seize(&tracer, burst->broker->pid);
        n_ahead = count_ahead(burst->broker);
        tracer_release(&tracer);
        return n_ahead;
}

static bool is_running(const Child *child) {
        siginfo_t end = { 0 };

        REQUIRE(waitid(P_PID, (id_t)child->pid, &end, WEXITED | WNOHANG | WNOWAIT) == 0);
        return end.si_pid == 0;
}

/* Waits until the burst is over: as long as regions are made. */
static void await_end(const Burst *burst, const Child *child) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        size_t n_made = 0;

        while (is_running(child) && test_now_ms() < end) {
                if (atomic_load(burst->n_made) != n_made) {
                        n_made = atomic_load(burst->n_made);
                        end = test_now_ms() + TEST_PATIENCE_MS;
                }
                test_sleep_ms(10);
        }
}

/* Return: how many there were when some were seen; 0: the burst was over before. */
static size_t look_at_burst(Burst *burst, Client *admin) {
        Broker *broker = burst->broker;
        Child child = CHILD_NULL;
        size_t n_ahead = 0;

        atomic_store(burst->n_made, 0);
        child_start(&child, make_regions, burst);
        while (n_ahead == 0 && is_running(&child))
                n_ahead = look_in_the_middle(burst);
        await_end(burst, &child);
        child_release(&child);
        cr_assert_eq(books_expect(admin, broker->pid, broker->keeper), burst->n_wanted);
        cr_assert_eq(count_ahead(broker), 0);
        unlink_all(admin, burst->prefix, burst->n_wanted);
        cr_assert_eq(books_expect(admin, broker->pid, broker->keeper), 0);
        return n_ahead;
}

TEST(stock, a_burst_has_memory_made_ahead_and_nothing_of_it_is_left) {
        Burst burst = { .prefix = "/b", .n_wanted = MOST, .n_made = shared_number() };
        size_t n_ahead = 0;
        Client *admin;

        test_needs_root();
        tracer_needed();
        burst.broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config });
        admin = client_connect_as(burst.broker, 0, 0);
        /* This process may not get to run while there is a burst. */
        for (unsigned int i = 0; n_ahead == 0 && i < BURSTS; ++i)
                n_ahead = look_at_burst(&burst, admin);
        REQUIRE(n_ahead > 0 && n_ahead <= 32, "%zu made ahead", n_ahead);
        admin = client_free(admin);
        burst.broker = broker_stop(burst.broker);
        REQUIRE(munmap((void *)burst.n_made, PAGE) == 0);
}

/* Lets the broker make so many system calls, and ends it. Return: at which. */
static long kill_after(pid_t pid, uint64_t n) {
        Tracer tracer = TRACER_NULL;

        tracer_seize(&tracer, pid);
        while (n-- > 0) {
                tracer_go(&tracer);
                REQUIRE(tracer_arrive(&tracer), "the broker ended");
        }
        tracer_kill(&tracer);
        return tracer.call;
}

/* Everything that was acknowledged is there, in one piece. Return: how many there are. */
static size_t expect_acknowledged(Client *admin, const Burst *burst) {
        size_t n = atomic_load(burst->n_made);

        for (size_t i = 0; i < n; ++i)
                REQUIRE(is_there(admin, burst->prefix, i), "%s-%zu of %zu is lost", burst->prefix, i, n);
        return n + is_there(admin, burst->prefix, n);
}

static bool has_begun(void *n_made) {
        return atomic_load((atomic_size_t *)n_made) > 0;
}

static void kill_in_a_burst(Broker *broker, atomic_size_t *n_made, unsigned int round, uint64_t after) {
        char prefix[32];
        Burst burst = { .broker = broker, .prefix = prefix, .n_made = n_made };
        Child child = CHILD_NULL;
        Client *admin;
        size_t n;
        long call;

        (void)snprintf(prefix, sizeof(prefix), "/round-%u", round);
        atomic_store(n_made, 0);
        child_start(&child, make_regions, &burst);
        REQUIRE(test_eventually(has_begun, n_made), "no region is made");
        call = kill_after(broker->pid, after);
        child_release(&child);
        broker_await_restart(broker);
        admin = client_connect_as(broker, 0, 0);
        n = expect_acknowledged(admin, &burst);
        printf("killed at %s after %zu regions\n", tracer_call_name(call), n);
        cr_assert_eq(books_expect(admin, broker->pid, broker->keeper), n);
        unlink_all(admin, prefix, n);
        cr_assert_eq(books_expect(admin, broker->pid, broker->keeper), 0);
        admin = client_free(admin);
}

TEST(stock, a_broker_killed_in_a_burst_leaves_what_was_acknowledged_and_nothing_else) {
        uint64_t random = test_seed();
        atomic_size_t *n_made = shared_number();
        Broker *broker;

        test_needs_root();
        tracer_needed();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config });
        for (unsigned int round = 0; round < test_rounds(ROUNDS); ++round)
                kill_in_a_burst(broker, n_made, round, 1 + test_random(&random, PLACES));
        broker = broker_stop(broker);
        REQUIRE(munmap((void *)n_made, PAGE) == 0);
}

static void few_descriptors(void *userdata) {
        (void)userdata;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 256, 256 }) == 0);
}

/* Where there are few, none is set aside: every region that there may be can be made in one burst. */
TEST(stock, a_burst_goes_to_the_limit_where_descriptors_are_few) {
        Client *admin;
        Broker *broker;
        size_t n = 0;
        uint32_t error;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config, .prepare = few_descriptors });
        admin = client_connect_as(broker, 0, 0);
        do {
                char path[64];

                (void)snprintf(path, sizeof(path), "/few-%zu", n);
                error = call_create(admin, path, PAGE, NULL);
                n += error == 0;
        } while (error == 0);
        REQUIRE(error == SHMD__ERROR__ERROR_QUOTA, "%s", client_describe(admin));
        cr_assert_eq(count_ahead(broker), 0);
        cr_assert_eq(books_expect(admin, broker->pid, broker->keeper), n);
        unlink_all(admin, "/few", n);
        admin = client_free(admin);
        broker = broker_stop(broker);
}
