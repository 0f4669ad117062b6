/* daemon/main: what the process is like once it is ready. */

#include "lib/broker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static bool has_signal(Broker *broker, const char *key, int signal) {
        return strtoull(broker_status(broker, key), NULL, 16) >> (signal - 1) & 1;
}

TEST(main, signals_that_others_can_cause_do_not_end_it) {
        Broker *broker = broker_spawn("");

        cr_assert(has_signal(broker, "SigIgn", SIGIO), "leases cause it");
        cr_assert(has_signal(broker, "SigIgn", SIGPIPE), "peers that are gone cause it");
        cr_assert(has_signal(broker, "SigBlk", SIGTERM) && has_signal(broker, "SigBlk", SIGINT), "these are read");
        broker = broker_stop(broker);
}

static void lower_soft_limit(void *userdata) {
        struct rlimit limit = { 64, 4096 };

        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

TEST(main, it_takes_all_the_descriptors_it_may_have) {
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .prepare = lower_soft_limit });
        unsigned long soft = 0, hard = 0;
        char path[64], line[256];
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/limits", (int)broker->pid);
        file = fopen(path, "re");
        REQUIRE(file);
        while (fgets(line, sizeof(line), file))
                if (!strncmp(line, "Max open files", 14))
                        REQUIRE(sscanf(line + 14, "%lu %lu", &soft, &hard) == 2);
        (void)fclose(file);
        cr_assert_eq(soft, 4096);
        cr_assert_eq(hard, 4096);
        broker_expect_log(broker, "event=ready", "descriptors=4096", "peers=488", "inflight=427", "regions=2989");
        broker = broker_stop(broker);
}

TEST(main, nothing_is_left_of_its_privileges) {
        Broker *broker;

        test_needs_root();
        broker = broker_spawn("");
        cr_assert_eq(strtoull(broker_status(broker, "CapEff"), NULL, 16), 0);
        cr_assert_eq(strtoull(broker_status(broker, "CapPrm"), NULL, 16), 0);
        cr_assert_eq(strtoull(broker_status(broker, "CapBnd"), NULL, 16), 0);
        cr_assert_eq(strtoull(broker_status(broker, "NoNewPrivs"), NULL, 10), 1);
        cr_assert_eq(strtoull(broker_status(broker, "Seccomp"), NULL, 10), 2);
        cr_assert_eq(strtoull(broker_status(broker, "Uid"), NULL, 10), test_broker_uid());
        broker = broker_stop(broker);
}

TEST(main, a_failed_start_says_which_step_and_why) {
        Broker *broker = broker_spawn("");
        const char *path = broker_write_file(broker, "bad.conf", "[global]\npeers = many\n");
        char copy[256], wanted[512], *text;

        (void)snprintf(copy, sizeof(copy), "%s", path);
        cr_assert_eq(shmd_run(&text, "--config", copy, "--check-config", NULL), 1);
        (void)snprintf(wanted, sizeof(wanted), "event=failed step=config message=\"%s:2: peers=many: ", copy);
        cr_assert_neq(strstr(text, wanted), NULL, "%s", text);
        free(text);

        cr_assert_eq(shmd_run(&text, "--config", "/nonexistent/shmd.conf", NULL), 1);
        cr_assert_neq(strstr(text, "event=failed step=config"), NULL, "%s", text);
        free(text);
        cr_assert_eq(shmd_run(&text, "--no-such-option", NULL), 2);
        free(text);
        cr_assert_eq(shmd_run(&text, "an argument", NULL), 2);
        free(text);

        path = broker_write_file(broker, "socket.conf", "");
        (void)snprintf(copy, sizeof(copy), "%s", path);
        cr_assert_eq(shmd_run(&text, "--config", copy, "--socket", broker->socket, NULL), 1);
        cr_assert_neq(strstr(text, "another broker, or another file, is at "), NULL, "%s", text);
        free(text);
        broker = broker_stop(broker);
}
