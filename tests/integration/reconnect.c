/* The library, a keeper, and brokers that die: what programs see of it, which is nothing.
 *
 * tests/unit/client-link has the library alone, at each point of a conversation. Here everything is real: brokers are
 * killed at any moment while processes call, wait, watch and are told, and each of them has a model of its own
 * part of the tree, with which every answer has to agree. An answer that was given twice, or a request that was
 * done twice or not at all, is one that does not.
 */

#include "buildinfo.h"

#include "lib/broker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shmd.h"

#define SECOND UINT64_C(1000000000)
#define PATIENCE (20 * SECOND)
#define N_CLIENTS 8
#define KILLS 40

#define EXPECT(client, call)                                                                    \
        do {                                                                                    \
                int r_expect = (call);                                                          \
                                                                                                \
                REQUIRE(r_expect == 0, "%s: %s", strerror(-r_expect), shmd_refusal(client)->sentence); \
        } while (0)

static Broker *spawn(const char *config) {
        /* Any number of deaths. */
        return broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config });
}

static shmd *connect_to(const char *socket) {
        shmd *client;
        int r = shmd_connect(&client, socket, PATIENCE);

        REQUIRE(r == 0, "%s: %s", strerror(-r), shmd_refusal(client)->sentence);
        return client;
}

static bool resumed;
static unsigned int n_back;

static void on_link(shmd *client, const struct shmd_event *event, void *userdata) {
        (void)client;
        (void)userdata;
        if (event->event != SHMD_EVENT_RECONNECTED)
                return;
        resumed = event->resumed;
        ++n_back;
}

static shmd *connect_and_listen(const char *socket) {
        shmd *client = connect_to(socket);

        n_back = 0;
        resumed = false;
        EXPECT(client, shmd_set_listener(client, on_link, NULL));
        return client;
}

/* -- synchronous clients ------------------------------------------------------------------ */

typedef struct Part {
        Broker *broker;
        unsigned int nth;
        volatile bool *over;    /* shared */
} Part;

static volatile bool *flag_new(void) {
        void *page = mmap(NULL, sizeof(bool), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        REQUIRE(page != MAP_FAILED);
        return page;
}

static void flag_free(volatile bool *flag) {
        REQUIRE(munmap((void *)flag, sizeof(*flag)) == 0);
}

static shmd_region *create(shmd *client, const char *path, uint32_t flags) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;

        options.size = 4096;
        options.flags = flags;
        EXPECT(client, shmd_create(client, path, &options, &region, PATIENCE));
        return region;
}

static void write_number(shmd_region *region, uint64_t number) {
        REQUIRE(pwrite(shmd_region_fd(region), &number, sizeof(number), 0) == sizeof(number));
}

static void expect_number(shmd_region *region, uint64_t number) {
        uint64_t found = 0;

        REQUIRE(pread(shmd_region_fd(region), &found, sizeof(found), 0) == sizeof(found));
        REQUIRE(found == number, "%llu instead of %llu", (unsigned long long)found, (unsigned long long)number);
}

/* Each step fails if one before it was done twice, or not, or by a request that got another's answer. */
static void life_of_a_region(shmd *client, const char *dir, uint64_t n) {
        char a[64], b[64];
        shmd_region *region, *again;

        (void)snprintf(a, sizeof(a), "%s/a", dir);
        (void)snprintf(b, sizeof(b), "%s/b", dir);
        region = create(client, a, 0);
        REQUIRE(shmd_region_created(region));
        write_number(region, n);
        REQUIRE(shmd_open(client, b, SHMD_RIGHTS_READ_ONLY, &again, PATIENCE) == -ENOENT);
        EXPECT(client, shmd_rename(client, a, b, 0, PATIENCE));
        EXPECT(client, shmd_link(client, b, a, PATIENCE));
        EXPECT(client, shmd_unlink(client, b, PATIENCE));
        EXPECT(client, shmd_open(client, a, SHMD_RIGHTS_READ_ONLY, &again, PATIENCE));
        REQUIRE(shmd_region_id(again) == shmd_region_id(region));
        expect_number(again, n);
        shmd_region_free(again);
        again = create(client, a, SHMD_CREATE_OPEN);
        REQUIRE(!shmd_region_created(again) && shmd_region_id(again) == shmd_region_id(region));
        shmd_region_free(again);
        EXPECT(client, shmd_unlink(client, a, PATIENCE));
        shmd_region_free(region);
}

static void life_of_a_ticket(shmd *client, const char *dir, uint64_t n) {
        struct shmd_ticket_result *ticket;
        struct shmd_tickets_result *left;
        shmd_region *region, *redeemed;
        char path[64];

        (void)snprintf(path, sizeof(path), "%s/t", dir);
        region = create(client, NULL, 0);
        write_number(region, n);
        EXPECT(client, shmd_publish(client, shmd_region_id(region), path, NULL, PATIENCE));
        EXPECT(client, shmd_ticket(client, path, 0, NULL, &ticket, PATIENCE));
        EXPECT(client, shmd_redeem(client, ticket->ticket, &redeemed, PATIENCE));
        expect_number(redeemed, n);
        shmd_region_free(redeemed);
        EXPECT(client, shmd_tickets(client, path, 0, 0, &left, PATIENCE));
        REQUIRE(left->n == 0, "it was good for one");
        shmd_tickets_free(left);
        shmd_ticket_free(ticket);
        EXPECT(client, shmd_unlink(client, path, PATIENCE));
        shmd_region_free(region);
}

static void life_of_a_batch(shmd *client, const char *dir, uint64_t n) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_batch_item items[3];
        shmd_region *regions[3];
        char paths[3][64];

        options.size = 8192;
        for (size_t i = 0; i < 3; ++i) {
                (void)snprintf(paths[i], sizeof(paths[i]), "%s/batch%zu", dir, i);
                items[i] = (struct shmd_batch_item){ .path = paths[i], .create = &options };
        }
        EXPECT(client, shmd_batch(client, items, 3, regions, PATIENCE));
        for (size_t i = 0; i < 3; ++i) {
                REQUIRE(shmd_region_created(regions[i]));
                write_number(regions[i], n + i);
                EXPECT(client, shmd_unlink(client, paths[i], PATIENCE));
                expect_number(regions[i], n + i);
                shmd_region_free(regions[i]);
        }
}

static void life_of_a_directory(shmd *client, const char *dir) {
        struct shmd_list_result *list;
        char path[64];

        (void)snprintf(path, sizeof(path), "%s/d", dir);
        EXPECT(client, shmd_mkdir(client, path, 0700, PATIENCE));
        REQUIRE(shmd_mkdir(client, path, 0700, PATIENCE) == -EEXIST);
        EXPECT(client, shmd_chmod(client, path, 0750, PATIENCE));
        EXPECT(client, shmd_list(client, dir, 0, NULL, 0, &list, PATIENCE));
        REQUIRE(list->n == 1 && !strcmp(list->nodes[0].path, path) && list->nodes[0].mode == 0750);
        shmd_list_free(list);
        EXPECT(client, shmd_rmdir(client, path, PATIENCE));
        REQUIRE(shmd_rmdir(client, path, PATIENCE) == -ENOENT);
}

/* What is said twice here is refused, or changes what it must not. */
static void life_of_two(shmd *client, const char *dir, uint64_t n) {
        struct shmd_publish_options replace = SHMD_PUBLISH_OPTIONS_INIT;
        shmd_region *first, *second, *third, *found;
        struct shmd_stat_result *stat;
        char a[64], b[64];

        (void)snprintf(a, sizeof(a), "%s/x", dir);
        (void)snprintf(b, sizeof(b), "%s/y", dir);
        first = create(client, a, 0);
        second = create(client, b, 0);
        EXPECT(client, shmd_rename(client, a, b, SHMD_RENAME_EXCHANGE, PATIENCE));
        EXPECT(client, shmd_open(client, a, SHMD_RIGHTS_READ_WRITE, &found, PATIENCE));
        REQUIRE(shmd_region_id(found) == shmd_region_id(second), "exchanged twice");
        shmd_region_free(found);
        third = create(client, NULL, 0);
        write_number(third, n);
        replace.flags = SHMD_PUBLISH_REPLACE;
        replace.ttl_ns = 3600 * SECOND;
        EXPECT(client, shmd_publish(client, shmd_region_id(third), a, &replace, PATIENCE));
        EXPECT(client, shmd_chmod(client, a, 0640, PATIENCE));
        EXPECT(client, shmd_stat(client, a, 0, 0, &stat, PATIENCE));
        REQUIRE(stat->node.region == shmd_region_id(third) && stat->node.mode == 0640 && stat->node.ttl_ns > 0);
        shmd_stat_free(stat);
        EXPECT(client, shmd_expire(client, a, 0, PATIENCE));
        EXPECT(client, shmd_rename(client, b, a, SHMD_RENAME_REPLACE, PATIENCE));
        EXPECT(client, shmd_stat(client, a, 0, 0, &stat, PATIENCE));
        REQUIRE(stat->node.region == shmd_region_id(first) && stat->node.ttl_ns == 0);
        shmd_stat_free(stat);
        expect_number(third, n);
        EXPECT(client, shmd_unlink(client, a, PATIENCE));
        shmd_region_free(first);
        shmd_region_free(second);
        shmd_region_free(third);
}

static void life_of_what_is_frozen(shmd *client, const char *dir) {
        struct shmd_ticket_result *ticket;
        shmd_region *region, *found;
        uint32_t revoked;
        char path[64];

        (void)snprintf(path, sizeof(path), "%s/f", dir);
        region = create(client, path, SHMD_CREATE_FREEZABLE);
        write_number(region, 5);
        EXPECT(client, shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, PATIENCE));
        REQUIRE(shmd_open(client, path, SHMD_RIGHTS_READ_WRITE, &found, PATIENCE) == -EACCES);
        EXPECT(client, shmd_ticket(client, path, 0, NULL, &ticket, PATIENCE));
        EXPECT(client, shmd_revoke(client, SHMD_REVOKE_NUMBER, NULL, ticket->id, &revoked, PATIENCE));
        REQUIRE(revoked == 1);
        shmd_ticket_free(ticket);
        expect_number(region, 5);
        EXPECT(client, shmd_unlink(client, path, PATIENCE));
        shmd_region_free(region);
}

static int live(void *userdata) {
        const Part *part = userdata;
        shmd *client = connect_and_listen(part->broker->socket);
        size_t n_fds = test_count_fds();
        char dir[32];

        (void)snprintf(dir, sizeof(dir), "/%u", part->nth);
        EXPECT(client, shmd_mkdir(client, dir, 0700, PATIENCE));
        child_arrive(0);
        for (uint64_t n = 0; !*part->over; ++n) {
                life_of_a_region(client, dir, n);
                life_of_a_directory(client, dir);
                life_of_a_batch(client, dir, n);
                life_of_two(client, dir, n);
                life_of_a_ticket(client, dir, n);
                if (n % 8 == part->nth)
                        life_of_what_is_frozen(client, dir);
                REQUIRE(resumed || n_back == 0, "a session was lost");
                REQUIRE(test_count_fds() == n_fds, "descriptors: %zu instead of %zu", test_count_fds(), n_fds);
        }
        REQUIRE(n_back > 0);
        EXPECT(client, shmd_rmdir(client, dir, PATIENCE));
        shmd_close(client);
        return 0;
}

static void kill_and_wait(Broker *broker, uint64_t *random) {
        test_sleep_ms((int)test_random(random, 15));
        broker_kill_and_wait_restart(broker);
}

TEST(reconnect, eight_clients_see_nothing_of_brokers_that_are_killed) {
        Child clients[N_CLIENTS];
        Part parts[N_CLIENTS];
        uint64_t random = test_seed();
        Broker *broker = spawn("[keeper]\nrestarts = 0\n");
        volatile bool *over = flag_new();

        for (unsigned int i = 0; i < N_CLIENTS; ++i) {
                clients[i] = (Child)CHILD_NULL;
                parts[i] = (Part){ .broker = broker, .nth = i, .over = over };
                child_spawn(&clients[i], live, &parts[i]);
        }
        for (unsigned int i = 0; i < N_CLIENTS; ++i)
                child_continue(&clients[i]);
        for (uint64_t i = test_rounds(KILLS); i > 0; --i)
                kill_and_wait(broker, &random);
        *over = true;
        for (unsigned int i = 0; i < N_CLIENTS; ++i)
                child_release(&clients[i]);
        flag_free(over);
        broker_stop(broker);
}

/* -- many calls in flight ------------------------------------------------------------------- */

#define PIPELINE 300

typedef struct Pipeline {
        unsigned int n;
        unsigned int n_failed;
} Pipeline;

static void on_done(shmd *client, shmd_call *call, void *userdata) {
        Pipeline *pipeline = userdata;

        (void)client;
        ++pipeline->n;
        pipeline->n_failed += shmd_call_result(call) != 0;
        REQUIRE(shmd_call_result(call) == 0, "%u: %s", pipeline->n, shmd_call_refusal(call)->sentence);
}

static void start_all(shmd *client, Pipeline *pipeline, unsigned int round) {
        for (unsigned int i = 0; i < PIPELINE; ++i) {
                char path[32], to[32];

                (void)snprintf(path, sizeof(path), "/%u-%u", round, i);
                (void)snprintf(to, sizeof(to), "/%u+%u", round, i);
                EXPECT(client, shmd_mkdir_start(client, path, 0700, PATIENCE, on_done, pipeline, NULL));
                EXPECT(client, shmd_rename_start(client, path, to, 0, PATIENCE, on_done, pipeline, NULL));
                EXPECT(client, shmd_stat_start(client, to, 0, 0, PATIENCE, on_done, pipeline, NULL));
                EXPECT(client, shmd_rmdir_start(client, to, PATIENCE, on_done, pipeline, NULL));
        }
}

/* An event loop that knows the descriptor and nothing else. */
static void loop_until(shmd *client, const Pipeline *pipeline, unsigned int n) {
        struct pollfd pollfd = { .fd = shmd_fd(client), .events = POLLIN };

        while (pipeline->n < n) {
                REQUIRE(poll(&pollfd, 1, TEST_PATIENCE_MS) == 1, "%u of %u", pipeline->n, n);
                REQUIRE(shmd_dispatch(client) >= 0);
        }
}

TEST(reconnect, whatever_is_in_flight_is_answered_once_and_in_order) {
        Broker *broker = spawn("[keeper]\nrestarts = 0\n");
        shmd *client = connect_and_listen(broker->socket);
        uint64_t random = test_seed();
        struct shmd_list_result *list;
        size_t n_fds;

        (void)shmd_fd(client);
        n_fds = test_count_fds();
        for (unsigned int round = 0; round < 8; ++round) {
                Pipeline pipeline = { 0 };

                start_all(client, &pipeline, round);
                for (unsigned int i = 0; i < 3; ++i) {
                        loop_until(client, &pipeline, (unsigned int)test_random(&random, 4 * PIPELINE));
                        broker_kill_and_wait_restart(broker);
                }
                loop_until(client, &pipeline, 4 * PIPELINE);
                cr_assert_eq(pipeline.n, 4 * PIPELINE);
                cr_assert_eq(pipeline.n_failed, 0);
        }
        cr_assert(resumed && n_back > 0);
        EXPECT(client, shmd_list(client, "/", 0, NULL, 0, &list, PATIENCE));
        cr_assert_eq(list->n, 0);
        shmd_list_free(list);
        cr_assert_eq(test_count_fds(), n_fds);
        shmd_close(client);
        broker_stop(broker);
}

/* -- watching, waiting, ringing ---------------------------------------------------------------- */

typedef struct View {
        bool there[26];         /* /w/a, ... */
        bool stale;
} View;

static void on_event(shmd *client, const struct shmd_event *event, void *userdata) {
        View *view = userdata;

        (void)client;
        REQUIRE(event->event != SHMD_EVENT_LOST || event->error == -ECANCELED, "%d", event->error);
        if (event->event == SHMD_EVENT_OVERFLOW)
                view->stale = true;
        else if (event->event & (SHMD_EVENT_CREATED | SHMD_EVENT_REMOVED) && strlen(event->path) == 4)
                view->there[event->path[3] - 'a'] = event->event == SHMD_EVENT_CREATED;
}

static void look(shmd *client, View *view) {
        struct shmd_list_result *list;

        *view = (View){ 0 };
        EXPECT(client, shmd_list(client, "/w", 0, NULL, 0, &list, PATIENCE));
        for (size_t i = 0; i < list->n; ++i)
                view->there[list->nodes[i].path[3] - 'a'] = true;
        shmd_list_free(list);
}

/* Hears and looks until the view is right. */
static void catch_up(shmd *client, View *view, const bool there[26]) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;

        do {
                int r = shmd_process(client, SECOND / 50);

                REQUIRE(r >= 0 || r == -ETIMEDOUT);
                while (view->stale)
                        look(client, view);
        } while (memcmp(view->there, there, sizeof(view->there)) && test_now_ms() < end);
}

TEST(reconnect, who_watches_is_right_or_told_to_look_again) {
        Broker *broker = spawn("[keeper]\nrestarts = 0\n");
        shmd *watcher = connect_and_listen(broker->socket), *client = connect_to(broker->socket);
        uint64_t random = test_seed(), watch;
        bool there[26] = { 0 };
        View view = { 0 };

        EXPECT(client, shmd_mkdir(client, "/w", 0755, PATIENCE));
        EXPECT(watcher, shmd_watch(watcher, "/w", SHMD_EVENT_ALL & ~(uint32_t)SHMD_EVENT_HOLDERS, 0, on_event, &view,
                                   &watch, NULL, PATIENCE));
        for (unsigned int round = 0; round < 10; ++round) {
                for (unsigned int i = 0; i < 40; ++i) {
                        unsigned int n = (unsigned int)test_random(&random, 26);
                        char path[8];

                        (void)snprintf(path, sizeof(path), "/w/%c", 'a' + (int)n);
                        if (there[n])
                                EXPECT(client, shmd_rmdir(client, path, PATIENCE));
                        else
                                EXPECT(client, shmd_mkdir(client, path, 0700, PATIENCE));
                        there[n] = !there[n];
                        if (test_random(&random, 30) == 0)
                                broker_kill_and_wait_restart(broker);
                        if (test_random(&random, 4) == 0)
                                REQUIRE(shmd_dispatch(watcher) >= 0);
                }
                catch_up(watcher, &view, there);
                for (unsigned int i = 0; i < 26; ++i)
                        REQUIRE(view.there[i] == there[i], "round %u: /w/%c", round, 'a' + (int)i);
        }
        EXPECT(watcher, shmd_unwatch(watcher, watch, PATIENCE));
        shmd_close(watcher);
        shmd_close(client);
        broker_stop(broker);
}

static void on_wait(shmd *client, shmd_call *call, void *userdata) {
        (void)client;
        *(int *)userdata = shmd_call_result(call);
}

/* The broker hears of the end of a connection when it asks the kernel the next time. */
static bool session_is_gone(void *userdata) {
        struct shmd_stat_result *stat;

        if (shmd_stat(userdata, "/session", 0, 0, &stat, PATIENCE) == -ENOENT)
                return true;
        shmd_stat_free(stat);
        return false;
}

TEST(reconnect, waits_go_on_and_what_a_session_has_stays) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        Broker *broker = spawn(NULL);
        shmd *client = connect_and_listen(broker->socket), *other = connect_to(broker->socket);
        shmd_region *region, *session, *late;
        int named = 1, unheld = 1, never = 1;
        struct shmd_stat_result *stat;
        shmd_bell *bell;
        char *address;
        size_t length;

        region = create(other, "/r", 0);
        options.size = 4096;
        options.lifetime = SHMD_LIFETIME_SESSION;
        EXPECT(client, shmd_create(client, "/session", &options, &session, PATIENCE));
        EXPECT(client, shmd_map(session, NULL, (void **)&address, &length));
        address[0] = 's';
        EXPECT(client, shmd_wait_start(client, "/late", PATIENCE, on_wait, &named, NULL));
        EXPECT(client, shmd_wait_unheld_start(client, "/r", 0, PATIENCE, on_wait, &unheld, NULL));
        EXPECT(client, shmd_wait_start(client, "/never", 3 * SECOND, on_wait, &never, NULL));
        EXPECT(client, shmd_ping(client, NULL, PATIENCE));
        broker_kill_and_wait_restart(broker);
        late = create(other, "/late", 0);
        shmd_region_free(region);
        while (named == 1 || unheld == 1 || never == 1)
                REQUIRE(shmd_process(client, PATIENCE) >= 0);
        cr_assert_eq(named, 0);
        cr_assert_eq(unheld, 0);
        cr_assert_eq(never, -ETIMEDOUT);
        cr_assert(n_back == 1 && resumed);

        /* By number, as one who was granted it. */
        EXPECT(client, shmd_bell_open(client, NULL, shmd_region_id(session), SHMD_BELL_RING, &bell, PATIENCE));
        EXPECT(client, shmd_bell_ring(bell));
        shmd_bell_close(bell);
        EXPECT(other, shmd_stat(other, "/session", 0, 0, &stat, PATIENCE));
        cr_assert_eq(stat->node.region, shmd_region_id(session));
        shmd_stat_free(stat);
        cr_assert_eq(address[0], 's');
        EXPECT(client, shmd_unmap(address, length));
        shmd_region_free(session);
        shmd_region_free(late);
        shmd_close(client);
        EXPECT(other, shmd_wait_unheld(other, "/late", 0, NULL, PATIENCE));
        REQUIRE(test_eventually(session_is_gone, other));
        shmd_close(other);
        broker_stop(broker);
}

/* -- time ---------------------------------------------------------------------------------------- */

TEST(reconnect, a_call_that_has_less_time_than_the_restart_times_out_and_the_next_goes_through) {
        Broker *broker = spawn(NULL);
        shmd *client = connect_and_listen(broker->socket);

        REQUIRE(kill(broker->keeper, SIGSTOP) == 0);
        broker_signal(broker, SIGKILL);
        for (unsigned int i = 0; i < 10; ++i)
                cr_assert_eq(shmd_mkdir(client, "/a", 0700, SECOND / 100), -ETIMEDOUT);
        cr_assert_eq(n_back, 0);
        REQUIRE(kill(broker->keeper, SIGCONT) == 0);
        broker_await_restart(broker);
        EXPECT(client, shmd_mkdir(client, "/b", 0700, PATIENCE));
        cr_assert(n_back == 1 && resumed);
        /* None of those was ever sent. */
        cr_assert_eq(shmd_rmdir(client, "/a", PATIENCE), -ENOENT);
        shmd_close(client);
        broker_stop(broker);
}

TEST(reconnect, who_comes_too_late_finds_a_new_session) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        Broker *broker = spawn("session-grace = 100ms\n");
        shmd *client = connect_and_listen(broker->socket), *other;
        uint8_t before[16], after[16];
        shmd_region *region, *opened;

        options.size = 4096;
        options.lifetime = SHMD_LIFETIME_SESSION;
        EXPECT(client, shmd_create(client, "/session", &options, &region, PATIENCE));
        write_number(region, 7);
        EXPECT(client, shmd_session(client, before, NULL, NULL));
        broker_kill_and_wait_restart(broker);
        other = connect_to(broker->socket);
        REQUIRE(test_eventually(session_is_gone, other));
        shmd_close(other);
        EXPECT(client, shmd_ping(client, NULL, PATIENCE));
        cr_assert(n_back == 1 && !resumed);
        EXPECT(client, shmd_session(client, after, NULL, NULL));
        cr_assert_neq(memcmp(before, after, 16), 0);
        cr_assert_eq(shmd_open(client, "/session", SHMD_RIGHTS_READ_ONLY, &opened, PATIENCE), -ENOENT);
        expect_number(region, 7);
        shmd_region_free(region);
        shmd_close(client);
        broker_stop(broker);
}

/* -- not a crash ----------------------------------------------------------------------------------- */

static void upgrade(Broker *broker) {
        REQUIRE(kill(broker->keeper, SIGHUP) == 0);
        broker_await_restart(broker);
}

TEST(reconnect, a_broker_that_is_replaced_with_care_costs_no_call) {
        Broker *broker = spawn(NULL);
        Child client = CHILD_NULL;
        volatile bool *over = flag_new();
        Part part = { .broker = broker, .over = over };

        child_spawn(&client, live, &part);
        child_continue(&client);
        for (unsigned int i = 0; i < KILLS / 2; ++i)
                upgrade(broker);
        *over = true;
        child_release(&client);
        flag_free(over);
        broker_stop(broker);
}

/* A service without a keeper loses what it has, and its clients find the next one. */
TEST(reconnect, a_broker_without_a_keeper_is_waited_for_and_knows_nobody) {
        Broker *broker = broker_spawn(NULL), *next;
        shmd *client = connect_and_listen(broker->socket);
        shmd_region *region = create(client, "/r", 0);
        char socket[sizeof(broker->socket)];
        int named = 1;

        (void)snprintf(socket, sizeof(socket), "%s", broker->socket);
        EXPECT(client, shmd_wait_start(client, "/new", PATIENCE, on_wait, &named, NULL));
        broker_kill(broker);
        cr_assert_eq(shmd_unlink(client, "/r", SECOND / 100), -ETIMEDOUT);
        next = broker_spawn_with(&(BrokerOptions){ .socket = socket });
        cr_assert_eq(shmd_unlink(client, "/r", PATIENCE), -ENOENT);
        cr_assert(n_back == 1 && !resumed);
        shmd_region_free(create(client, "/new", 0));
        while (named == 1)
                REQUIRE(shmd_process(client, PATIENCE) >= 0);
        cr_assert_eq(named, 0);
        shmd_region_free(region);
        shmd_close(client);
        broker_stop(next);
        broker_forget(broker);
}
