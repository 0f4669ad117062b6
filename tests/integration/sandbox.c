/* What the broker gave up before it read the first byte of a client, as the kernel tells it. */

#include "lib/client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static Broker *spawn(void) {
        test_needs_root();
        return broker_spawn(NULL);
}

static void require_status(Broker *broker, const char *key, const char *expected) {
        const char *value = broker_status(broker, key);

        REQUIRE(strcmp(value, expected) == 0, "%s is \"%s\", not \"%s\"", key, value, expected);
}

TEST(sandbox, it_runs_as_the_configured_user_with_no_way_back) {
        Broker *broker = spawn();
        char ids[64];

        (void)snprintf(ids, sizeof(ids), "%d\t%d\t%d\t%d", test_broker_uid(), test_broker_uid(), test_broker_uid(),
                       test_broker_uid());
        require_status(broker, "Uid", ids);
        REQUIRE(strtol(broker_status(broker, "Gid"), NULL, 10) != 0);
        require_status(broker, "Groups", "");
        broker = broker_stop(broker);
}

TEST(sandbox, it_has_no_capability_in_any_set) {
        static const char *const sets[] = { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" };
        Broker *broker = spawn();

        for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); ++i)
                require_status(broker, sets[i], "0000000000000000");
        broker = broker_stop(broker);
}

TEST(sandbox, it_can_gain_no_privileges_and_filters_its_system_calls) {
        Broker *broker = spawn();

        require_status(broker, "NoNewPrivs", "1");
        require_status(broker, "Seccomp", "2");
        broker = broker_stop(broker);
}

TEST(sandbox, it_has_one_thread) {
        Broker *broker = spawn();

        require_status(broker, "Threads", "1");
        broker = broker_stop(broker);
}

static int look_into(void *userdata) {
        Broker *broker = userdata;
        char path[64], byte;
        struct iovec local = { &byte, 1 }, remote = { (void *)4096, 1 };
        DIR *dir;
        int pidfd;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)broker->pid);
        dir = opendir(path);
        REQUIRE(!dir && errno == EACCES, "%s", strerror(errno));
        (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)broker->pid);
        REQUIRE(open(path, O_RDONLY) == -1 && errno == EACCES, "%s", strerror(errno));
        (void)snprintf(path, sizeof(path), "/proc/%d/environ", (int)broker->pid);
        REQUIRE(open(path, O_RDONLY) == -1 && errno == EACCES, "%s", strerror(errno));
        REQUIRE(ptrace(PTRACE_ATTACH, broker->pid, NULL, NULL) == -1 && errno == EPERM, "%s", strerror(errno));
        REQUIRE(process_vm_writev(broker->pid, &local, 1, &remote, 1, 0) == -1 && errno == EPERM, "%s", strerror(errno));
        pidfd = (int)syscall(SYS_pidfd_open, broker->pid, 0);
        REQUIRE(pidfd >= 0);
        REQUIRE(syscall(SYS_pidfd_getfd, pidfd, 3, 0) == -1 && errno == EPERM, "%s", strerror(errno));
        return 0;
}

TEST(sandbox, attack_073_another_process_of_its_own_uid_cannot_look_into_it) {
        Broker *broker = spawn();

        REQUIRE(run_as(test_broker_uid(), test_broker_uid(), look_into, broker) == 0);
        broker = broker_stop(broker);
}

TEST(sandbox, attack_073_another_user_cannot_look_into_it_either) {
        Broker *broker = spawn();

        REQUIRE(run_as(ALICE, ALICE, look_into, broker) == 0);
        broker = broker_stop(broker);
}

TEST(sandbox, its_proc_files_belong_to_root_because_it_is_not_dumpable) {
        Broker *broker = spawn();
        struct stat st;
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)broker->pid);
        REQUIRE(stat(path, &st) == 0 && st.st_uid == 0, "uid %u", st.st_uid);
        broker = broker_stop(broker);
}

TEST(sandbox, every_descriptor_it_has_closes_on_exec_and_is_known) {
        Broker *broker = spawn();
        Client *client = client_connect_as(broker, ALICE, ALICE);
        char path[64];
        struct dirent *entry;
        DIR *dir;

        client_expect_done(client, call_create(client, "/r", PAGE, NULL));
        (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)broker->pid);
        dir = opendir(path);
        if (!dir && errno == EACCES)
                test_skip("looking into the broker needs CAP_SYS_PTRACE");
        REQUIRE(dir);
        while ((entry = readdir(dir))) {
                char name[400], text[256] = "";
                const char *flags;
                FILE *file;

                if (entry->d_name[0] == '.' || atoi(entry->d_name) < 3)
                        continue;
                (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
                file = fopen(name, "re");
                REQUIRE(file);
                REQUIRE(fread(text, 1, sizeof(text) - 1, file) > 0);
                (void)fclose(file);
                flags = strstr(text, "flags:");
                REQUIRE(flags && strtoul(flags + 6, NULL, 8) & O_CLOEXEC, "descriptor %s: %s", entry->d_name, text);
        }
        (void)closedir(dir);
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(sandbox, no_region_is_mapped_into_it) {
        Broker *broker = spawn();
        Client *client = client_connect_as(broker, ALICE, ALICE);
        Grant grant = GRANT_NULL;
        char path[64], line[512];
        FILE *maps;

        client_expect_done(client, call_create(client, "/r", 1 << 20, &grant));
        client_expect_done(client, call_ping(client));
        (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)broker->pid);
        maps = fopen(path, "re");
        if (!maps && errno == EACCES)
                test_skip("looking into the broker needs CAP_SYS_PTRACE");
        REQUIRE(maps);
        while (fgets(line, sizeof(line), maps)) {
                REQUIRE(!strstr(line, "memfd:") || strstr(line, "memfd:shmd-state"), "%s", line);
                REQUIRE(!strstr(line, "rwxp"), "%s", line);
        }
        (void)fclose(maps);
        grant_deinit(&grant);
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(sandbox, an_ordinary_user_can_run_a_broker_in_the_same_sandbox) {
        Broker *broker;
        Client *client;
        Grant grant = GRANT_NULL;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .as_nobody = true });
        require_status(broker, "Seccomp", "2");
        require_status(broker, "NoNewPrivs", "1");
        require_status(broker, "CapEff", "0000000000000000");
        client = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(client, call_create(client, "/r", PAGE, &grant));
        REQUIRE(pwrite(grant.fd, "x", 1, 0) == 1);
        grant_deinit(&grant);
        client = client_free(client);
        broker = broker_stop(broker);
}

/* -- the helper ------------------------------------------------------------------------- */

/* The process that the broker forked before its door was closed. */
static pid_t helper_of(const Broker *broker) {
        char path[64];
        FILE *file;
        int pid = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)broker->pid, (int)broker->pid);
        file = fopen(path, "re");
        if (!file)
                test_skip("this kernel does not list the children of a process");
        REQUIRE(fscanf(file, "%d", &pid) == 1, "the broker has no helper");
        (void)fclose(file);
        return pid;
}

static bool is_filtered(void *broker) {
        return strcmp(broker_status(broker, "Seccomp"), "2") == 0;
}

/* It confines itself, while the broker that forked it is already at work. */
TEST(sandbox, its_helper_is_as_confined_as_the_broker) {
        static const char *const sets[] = { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" };
        Broker *broker = spawn();
        Broker helper = { .pid = helper_of(broker) };
        char ids[64];

        (void)snprintf(ids, sizeof(ids), "%d\t%d\t%d\t%d", test_broker_uid(), test_broker_uid(), test_broker_uid(),
                       test_broker_uid());
        REQUIRE(test_eventually(is_filtered, &helper));
        require_status(&helper, "Uid", ids);
        require_status(&helper, "Groups", "");
        require_status(&helper, "NoNewPrivs", "1");
        require_status(&helper, "Name", "shmd-helper");
        for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); ++i)
                require_status(&helper, sets[i], "0000000000000000");
        broker = broker_stop(broker);
}

TEST(sandbox, attack_074_another_process_of_the_helpers_uid_cannot_look_into_it) {
        Broker *broker = spawn();
        Broker helper = { .pid = helper_of(broker) };

        REQUIRE(run_as(test_broker_uid(), test_broker_uid(), look_into, &helper) == 0);
        broker = broker_stop(broker);
}

TEST(sandbox, its_helper_has_one_socket_and_no_region) {
        Broker *broker = spawn();
        Client *client = client_connect_as(broker, ALICE, ALICE);
        Broker helper = { .pid = helper_of(broker) };

        client_expect_done(client, call_create(client, "/r", PAGE, NULL));
        broker_expect_fds(&helper, 4);
        client = client_free(client);
        broker = broker_stop(broker);
}

static bool is_gone(void *userdata) {
        return kill(*(pid_t *)userdata, 0) < 0 && errno == ESRCH;
}

TEST(sandbox, attack_098_its_helper_ends_with_it_however_it_ends) {
        Broker *broker = spawn();
        pid_t helper = helper_of(broker);

        broker_kill(broker);
        REQUIRE(test_eventually(is_gone, &helper));
        broker = broker_forget(broker);

        broker = spawn();
        helper = helper_of(broker);
        broker = broker_stop(broker);
        REQUIRE(test_eventually(is_gone, &helper));
}

TEST(sandbox, attack_098_a_broker_whose_helper_was_killed_says_so_and_serves_on) {
        Broker *broker = spawn();
        Client *client = client_connect_as(broker, ALICE, ALICE);
        pid_t helper = helper_of(broker);

        REQUIRE(kill(helper, SIGKILL) == 0);
        broker_expect_log(broker, "event=helper", "has ended");
        REQUIRE(test_eventually(is_gone, &helper), "the broker leaves a zombie");
        client_expect_done(client, call_create(client, "/r", PAGE, NULL));
        client = client_free(client);
        broker = broker_stop(broker);
}

TEST(sandbox, every_kind_of_request_works_inside_it) {
        Broker *broker = spawn();
        Client *c = client_connect_as(broker, 0, 0);
        Grant grant = GRANT_NULL;

        client_expect_done(c, call_ping(c));
        client_expect_done(c, call_mkdir(c, "/d", 0755));
        client_expect_done(c, call_create(c, "/d/r", PAGE, &grant));
        client_expect_done(c, call_open(c, "/d/r", READ_ONLY, NULL));
        client_expect_done(c, client_call(c, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES("/d/r"), .flags = 1)));
        client_expect_done(c, call_list(c, "/", 1));
        client_expect_done(c, call_chmod(c, "/d/r", 0640));
        client_expect_done(c, call_chown(c, "/d/r", ALICE, ALICE));
        client_expect_error(c, TIMEOUT, DEADLINE, call_wait(c, "/none", 1));
        client_expect_done(c, client_call(c, MESSAGE_DF, REQUEST(Df, df, .scope = 3)));
        client_expect_done(c, client_call(c, MESSAGE_STATS, REQUEST(Stats, stats)));
        client_expect_done(c, client_call(c, MESSAGE_TTL, REQUEST(Ttl, ttl, .path = BYTES("/d/r"), .ttl_ns = UINT64_C(1) << 40)));
        client_expect_error(c, INVALID, NOT_FREEZABLE,
                            client_call(c, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES("/d/r"))));
        client_expect_done(c, call_unlink(c, "/d/r"));
        grant_deinit(&grant);
        client_expect_done(c, call_create(c, NULL, 64u << 20, &grant));
        client_expect_done(c, call_publish(c, grant.region, "/d/p", 0));
        grant_deinit(&grant);
        client_expect_done(c, call_unlink(c, "/d/p"));
        client_expect_done(c, call_rmdir(c, "/d"));

        /* Huge pages may be there or not: asking for them kills nobody. */
        bool have = test_huge_pages_begin(0);
        uint32_t error = client_call(c, MESSAGE_CREATE,
                                     REQUEST(Create, create, .path = BYTES("/huge"), .size = 2u << 20, .mode = 0600,
                                             .huge_page_size = 21));
        REQUIRE(error == 0 || error == SHMD__ERROR__ERROR_NO_MEMORY || error == SHMD__ERROR__ERROR_UNSUPPORTED, "%s",
                client_describe(c));
        c = client_free(c);
        broker = broker_stop(broker);
        if (have)
                test_huge_pages_end();
}
