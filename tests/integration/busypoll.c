/* Busy-polling: who wishes for it in the hello is told whether it is granted, and a broker that looked in vain goes
 * to sleep.
 *
 * How much sooner an answer is there is for tests/bench/busypoll to say.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shmd.h"

#define WISH SHMD__FEATURES__FEATURE_BUSY_POLL
#define PATIENCE UINT64_C(20000000000)

static bool have_processors(void) {
        cpu_set_t set;

        REQUIRE(sched_getaffinity(0, sizeof(set), &set) == 0, "%s", strerror(errno));
        return CPU_COUNT(&set) > 1;
}

/* In the child that becomes the broker: on the first one it may use, and on no other. */
static void leave_one_processor(void *userdata) {
        cpu_set_t set, one;
        size_t i = 0;

        REQUIRE(sched_getaffinity(0, sizeof(set), &set) == 0, "%s", strerror(errno));
        while (!CPU_ISSET(i, &set))
                ++i;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0, "%s", strerror(errno));
}

static Client *connect_wishing(Broker *broker, uint64_t features) {
        Client *client = client_connect_silently(broker, ALICE, ALICE);

        client->features = features;
        client_expect_done(client, client_hello(client));
        return client;
}

/* Requires that this is what is granted of the wish, and that it goes on from there like any other. */
static void expect_granted(Broker *broker, uint64_t wished, uint64_t granted) {
        Client *client = connect_wishing(broker, wished);

        REQUIRE(client->hello.features == granted, "%#" PRIx64 " of %#" PRIx64, client->hello.features, wished);
        for (int i = 0; i < 200; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(client, call_create(client, NULL, PAGE, &grant));
                grant_deinit(&grant);
        }
        client = client_free(client);
}

TEST(busypoll, it_is_granted_to_who_wishes_for_it) {
        Broker *broker = broker_spawn(NULL);
        uint64_t here = have_processors() ? WISH : 0;

        expect_granted(broker, 0, 0);
        expect_granted(broker, WISH, here);
        expect_granted(broker, UINT64_MAX, here);
        expect_granted(broker, ~(uint64_t)WISH, 0);
        broker = broker_stop(broker);
}

TEST(busypoll, an_administrator_can_do_without) {
        Broker *broker = broker_spawn("[time]\nbusy-poll = 0s\n");

        expect_granted(broker, WISH, 0);
        broker = broker_stop(broker);
}

TEST(busypoll, on_a_single_processor_nobody_gets_it) {
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .prepare = leave_one_processor });

        expect_granted(broker, WISH, 0);
        broker = broker_stop(broker);
}

TEST(busypoll, others_are_served_as_ever) {
        Broker *broker = broker_spawn("[time]\nbusy-poll = 200us\n");
        Client *wishing = connect_wishing(broker, WISH), *other = client_connect_as(broker, BOB, BOB);

        for (int i = 0; i < 500; ++i) {
                client_expect_done(wishing, call_mkdir(wishing, "/a", 0700));
                client_expect_done(other, call_mkdir(other, "/b", 0700));
                client_expect_done(wishing, call_rmdir(wishing, "/a"));
                client_expect_done(other, call_rmdir(other, "/b"));
        }
        wishing = client_free(wishing);
        other = client_free(other);
        broker = broker_stop(broker);
}

/* Were it to go on, it would have all of a processor, or whatever part of one a busy machine has for it. */
TEST(busypoll, it_ends_when_nothing_comes) {
        Broker *broker = broker_spawn("[time]\nbusy-poll = 200us\n");
        Client *clients[8];
        int64_t before;

        for (size_t i = 0; i < 8; ++i) {
                clients[i] = connect_wishing(broker, WISH);
                for (int k = 0; k < 100; ++k) {
                        client_expect_done(clients[i], call_mkdir(clients[i], "/a", 0700));
                        client_expect_done(clients[i], call_rmdir(clients[i], "/a"));
                }
        }
        test_sleep_ms(50);
        before = broker_cpu_ms(broker);
        test_sleep_ms(1000);
        REQUIRE(broker_cpu_ms(broker) - before <= 20, "%d ms", (int)(broker_cpu_ms(broker) - before));
        for (size_t i = 0; i < 8; ++i)
                clients[i] = client_free(clients[i]);
        broker = broker_stop(broker);
}

/* -- the library --------------------------------------------------------------------------- */

static shmd *connect_library(Broker *broker, uint32_t flags) {
        struct shmd_connect_options options = SHMD_CONNECT_OPTIONS_INIT;
        int64_t end = test_now_ms() + TEST_PATIENCE_MS, began;
        shmd *client;
        int r;

        options.flags = flags;
        /* On a busy machine a client may be so late with its hello that the broker has closed it. */
        do {
                began = test_now_ms();
                r = shmd_connect_with(&client, broker->socket, &options, PATIENCE);
        } while (r != 0 && test_now_ms() - began >= 1000 && test_now_ms() < end);
        REQUIRE(r == 0, "%s", strerror(-r));
        return client;
}

static uint32_t granted_flags(shmd *client) {
        uint32_t flags = UINT32_MAX;

        REQUIRE(shmd_ping(client, NULL, PATIENCE) == 0);
        REQUIRE(shmd_connect_flags(client, &flags) == 0);
        return flags;
}

/* In a child: asks without a pause until the broker is gone. */
__attribute__((noreturn))
static void keep_asking(Broker *broker, int ready_fd, pid_t parent) {
        shmd *client;

        test_end_with(parent);
        client = connect_library(broker, SHMD_CONNECT_BUSY_POLL);
        REQUIRE(shmd_set_reconnect(client, false) == 0);
        REQUIRE(write(ready_fd, "", 1) == 1);
        while (shmd_ping(client, NULL, PATIENCE) == 0)
                continue;
        _exit(EXIT_SUCCESS);
}

TEST(busypoll, a_broker_that_is_kept_awake_hears_a_signal_and_keeps_its_deadlines) {
        Broker *broker = broker_spawn("[time]\nbusy-poll = 200us\nhello = 1s\n");
        Client *silent = client_connect_silently(broker, BOB, BOB);
        pid_t parent = getpid(), child;
        int ready[2];
        char byte;

        REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
        child = fork();
        REQUIRE(child >= 0);
        if (child == 0)
                keep_asking(broker, ready[1], parent);
        REQUIRE(read(ready[0], &byte, 1) == 1);
        client_expect_closed(silent);
        broker_expect_log(broker, "event=peer-closed", "reason=hello-timeout");
        broker = broker_stop(broker);
        REQUIRE(test_wait_pid(child) == 0);
        silent = client_free(silent);
        close_fd(ready[0]);
        close_fd(ready[1]);
}

TEST(busypoll, the_library_asks_for_it_and_asks_again_after_a_restart) {
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = "[keeper]\nrestarts = 0\n" });
        uint32_t here = have_processors() ? SHMD_CONNECT_BUSY_POLL : 0;
        shmd *with = connect_library(broker, SHMD_CONNECT_BUSY_POLL), *without = connect_library(broker, 0);

        for (int i = 0; i < 2; ++i) {
                REQUIRE(granted_flags(with) == here);
                REQUIRE(granted_flags(without) == 0);
                if (i == 0)
                        broker_kill_and_wait_restart(broker);
        }
        with = shmd_close(with);
        without = shmd_close(without);
        broker = broker_stop(broker);
}
