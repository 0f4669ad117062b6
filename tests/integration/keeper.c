/* The keeper: what ends a broker, what comes after it, and what is left when it ends itself. */

#include "lib/broker.h"
#include "lib/client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TEST(keeper, a_broker_that_was_killed_is_followed_by_another) {
        static const int signals[] = { SIGKILL, SIGSEGV, SIGABRT, SIGSYS, SIGBUS };
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = "[keeper]\nrestarts = 0\n" });
        for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); ++i) {
                pid_t before = broker->pid;
                Client *client;

                broker_signal(broker, signals[i]);
                broker_await_restart(broker);
                REQUIRE(broker->pid != before);
                client = client_connect_as(broker, ALICE, ALICE);
                REQUIRE(call_ping(client) == 0);
                client_free(client);
        }
        broker = broker_stop(broker);
}
