/* The library and the daemon, together: what a program that links libshmd gets from a real broker.
 *
 * The other tests of this folder speak the wire protocol themselves. Here each user is a process
 * that has become that user and uses shmd.h alone.
 */

#include "buildinfo.h"

#include "lib/broker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shmd.h"

#define SECOND UINT64_C(1000000000)
#define PATIENCE (20 * SECOND)
#define TEXT "what the producer wrote"

static shmd *connect_to(const char *socket) {
        shmd *client;
        int r = shmd_connect(&client, socket, PATIENCE);

        REQUIRE(r == 0, "%s: %s", strerror(-r), shmd_refusal(client)->sentence);
        return client;
}

#define EXPECT(client, call)                                                                    \
        do {                                                                                    \
                int r_expect = (call);                                                          \
                                                                                                \
                REQUIRE(r_expect == 0, "%s: %s", strerror(-r_expect), shmd_refusal(client)->sentence); \
        } while (0)

/* -- from one user to another ----------------------------------------------------------- */

static int consume(void *socket) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        struct shmd_stat_result *stat;
        shmd *client = connect_to(socket);
        shmd_region *region;
        size_t length;
        void *address;

        child_arrive(0);
        EXPECT(client, shmd_wait(client, "/greeting", &stat, PATIENCE));
        REQUIRE(strcmp(stat->node.path, "/greeting") == 0 && stat->node.uid == ALICE);
        REQUIRE(stat->node.size == sizeof(TEXT));
        shmd_stat_free(stat);

        REQUIRE(shmd_open(client, "/greeting", SHMD_RIGHTS_READ_WRITE, &region, PATIENCE) == -EACCES);
        REQUIRE(strcmp(shmd_reason_name(shmd_refusal(client)->reason), "region-write") == 0);
        EXPECT(client, shmd_open(client, "/greeting", SHMD_RIGHTS_READ_ONLY, &region, PATIENCE));
        options.flags = SHMD_MAP_POPULATE;
        EXPECT(client, shmd_map(region, &options, &address, &length));
        REQUIRE(length == sizeof(TEXT) && memcmp(address, TEXT, length) == 0);
        EXPECT(client, shmd_unmap(address, length));
        shmd_region_free(region);
        shmd_close(client);
        return 0;
}

static int produce(void *socket) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = connect_to(socket);
        shmd_region *region;
        size_t length;
        void *address;

        options.size = sizeof(TEXT);
        options.mode = 0644;
        options.flags = SHMD_CREATE_RESERVE;
        EXPECT(client, shmd_create(client, NULL, &options, &region, PATIENCE));
        REQUIRE(shmd_region_created(region));
        EXPECT(client, shmd_map(region, NULL, &address, &length));
        memcpy(address, TEXT, sizeof(TEXT));
        EXPECT(client, shmd_unmap(address, length));
        EXPECT(client, shmd_publish(client, shmd_region_id(region), "/greeting", NULL, PATIENCE));
        shmd_region_free(region);
        shmd_close(client);
        return 0;
}

static int consume_as_bob(void *socket) {
        REQUIRE(setgid(BOB) == 0 && setuid(BOB) == 0);
        return consume(socket);
}

TEST(library, who_waits_gets_what_another_user_publishes) {
        Child consumer = CHILD_NULL;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn(NULL);
        child_spawn(&consumer, consume_as_bob, broker->socket);
        cr_assert_eq(run_as(ALICE, ALICE, produce, broker->socket), 0);
        child_release(&consumer);
        broker_stop(broker);
}

/* -- watching ----------------------------------------------------------------------------- */

static char watched[512];

static void on_event(shmd *client, const struct shmd_event *event, void *userdata) {
        size_t n = strlen(watched);

        (void)client;
        (void)userdata;
        (void)snprintf(watched + n, sizeof(watched) - n, "%u:%s%s%s ", event->event, event->path, event->to ? ">" : "",
                       event->to ? event->to : "");
}

TEST(library, who_watches_hears_what_another_connection_does_until_its_own_ends) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket), *other = connect_to(broker->socket);
        struct shmd_list_result *list;
        shmd_region *region;
        uint64_t watch, begun;

        watched[0] = '\0';
        options.rights = SHMD_RIGHTS_NONE;
        EXPECT(other, shmd_mkdir(other, "/w", 0755, PATIENCE));
        EXPECT(client, shmd_list(client, "/w", 0, NULL, 0, &list, PATIENCE));
        EXPECT(other, shmd_create(other, "/w/a", &options, &region, PATIENCE));
        EXPECT(client, shmd_watch(client, "/w", SHMD_EVENT_ALL, list->sequence, on_event, NULL, &watch, &begun,
                                  PATIENCE));
        cr_assert_eq(begun, list->sequence);
        EXPECT(other, shmd_rename(other, "/w/a", "/w/b", 0, PATIENCE));
        EXPECT(other, shmd_unlink(other, "/w/b", PATIENCE));
        while (!strstr(watched, "2:"))
                cr_assert_geq(shmd_process(client, PATIENCE), 0);
        cr_assert_str_eq(watched, "1:/w/a 4:/w/a>/w/b 2:/w/b ");
        EXPECT(client, shmd_unwatch(client, watch, PATIENCE));
        cr_assert_eq(shmd_unwatch(client, watch, PATIENCE), -ENOENT);

        EXPECT(client, shmd_watch(client, "/", SHMD_EVENT_ALL, 0, on_event, NULL, &watch, NULL, PATIENCE));
        watched[0] = '\0';
        EXPECT(client, shmd_set_reconnect(client, false));
        broker_stop(broker);
        while (shmd_process(client, PATIENCE) >= 0)
                continue;
        cr_assert_str_eq(watched, "512:/ ");
        shmd_region_free(region);
        shmd_list_free(list);
        shmd_close(client);
        shmd_close(other);
}

/* -- freezing ----------------------------------------------------------------------------- */

static shmd_region *make_freezable(shmd *client, const char *path) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;

        options.size = 8192;
        options.flags = SHMD_CREATE_FREEZABLE;
        EXPECT(client, shmd_create(client, path, &options, &region, PATIENCE));
        return region;
}

TEST(library, a_region_is_frozen_when_nobody_has_it_mapped_for_writing) {
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket);
        shmd_region *region = make_freezable(client, "/r");
        size_t length;
        void *address;
        int r;

        EXPECT(client, shmd_map(region, NULL, &address, &length));
        memcpy(address, TEXT, sizeof(TEXT));
        cr_assert_eq(shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, PATIENCE), -EBUSY);
        cr_assert(strstr(shmd_refusal(client)->sentence, "mapped for writing"), "%s", shmd_refusal(client)->sentence);
        cr_assert_eq(shmd_region_rights(region), SHMD_RIGHTS_READ_WRITE);
        EXPECT(client, shmd_unmap(address, length));
        EXPECT(client, shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, PATIENCE));
        EXPECT(client, shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, PATIENCE));
        cr_assert_eq(shmd_freeze(client, region, SHMD_FREEZE_SINGLE_WRITER, PATIENCE), -EEXIST);
        cr_assert_eq(shmd_region_rights(region), SHMD_RIGHTS_READ_ONLY);

        /* Before Linux 6.7 no shared mapping can be made of a read-write grant any more. */
        r = shmd_map(region, NULL, &address, &length);
        cr_assert(r == 0 || r == -EACCES, "%d", r);
        if (r == 0) {
                cr_assert_eq(memcmp(address, TEXT, sizeof(TEXT)), 0);
                EXPECT(client, shmd_unmap(address, length));
        }
        region = shmd_region_free(region);
        cr_assert_eq(shmd_open(client, "/r", SHMD_RIGHTS_READ_WRITE, &region, PATIENCE), -EACCES);
        EXPECT(client, shmd_open(client, "/r", SHMD_RIGHTS_READ_ONLY, &region, PATIENCE));
        cr_assert_eq(shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, PATIENCE), -EACCES, "a read-only grant");
        EXPECT(client, shmd_map(region, NULL, &address, &length));
        cr_assert_eq(memcmp(address, TEXT, sizeof(TEXT)), 0);
        EXPECT(client, shmd_unmap(address, length));
        shmd_region_free(region);
        shmd_close(client);
        broker_stop(broker);
}

static void on_frozen(shmd *client, shmd_call *call, void *userdata) {
        REQUIRE(shmd_freeze_finish(call) == 0, "%s", shmd_call_refusal(call)->sentence);
        *(bool *)userdata = true;
}

TEST(library, the_single_writer_keeps_its_mapping_and_can_map_only_to_read) {
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket);
        shmd_region *region = make_freezable(client, "/r");
        size_t length, read_length;
        void *address, *again;
        bool done = false;

        EXPECT(client, shmd_map(region, NULL, &address, &length));
        EXPECT(client, shmd_freeze_start(client, region, SHMD_FREEZE_SINGLE_WRITER, PATIENCE, on_frozen, &done, NULL));
        while (!done)
                REQUIRE(shmd_process(client, PATIENCE) >= 0);
        memcpy(address, TEXT, sizeof(TEXT));
        EXPECT(client, shmd_map(region, NULL, &again, &read_length));
        cr_assert_eq(memcmp(again, TEXT, sizeof(TEXT)), 0);
        cr_assert(mprotect(again, read_length, PROT_READ | PROT_WRITE) < 0, "a second writer");
        EXPECT(client, shmd_unmap(again, read_length));
        EXPECT(client, shmd_unmap(address, length));
        shmd_region_free(region);
        shmd_close(client);
        broker_stop(broker);
}

TEST(library, what_was_not_made_freezable_is_not_frozen) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket);
        shmd_region *region;

        options.size = 4096;
        EXPECT(client, shmd_create(client, "/r", &options, &region, PATIENCE));
        cr_assert_eq(shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, PATIENCE), -EINVAL);
        cr_assert_str_eq(shmd_reason_name(shmd_refusal(client)->reason), "not-freezable");
        cr_assert_eq(shmd_region_rights(region), SHMD_RIGHTS_READ_WRITE);
        shmd_region_free(region);
        shmd_close(client);
        broker_stop(broker);
}

/* -- every operation at once -------------------------------------------------------------- */

typedef struct Pipeline {
        unsigned int n;
        shmd_region *created, *opened, *batch[2];
} Pipeline;

#define FINISHED(name, ...)                                                                     \
        static void name(shmd *client, shmd_call *call, void *userdata) {                       \
                Pipeline *pipeline = userdata;                                                  \
                                                                                                \
                REQUIRE((__VA_ARGS__) == 0, #name ": %s", shmd_call_refusal(call)->sentence);   \
                ++pipeline->n;                                                                  \
        }                                                                                       \
        struct finished_requires_a_semicolon

static struct shmd_stat_result *stat_result, *wait_result;
static struct shmd_list_result *list_result;
static struct shmd_df_result *df_result;
static struct shmd_stats_result *stats_result;

FINISHED(on_mkdir, shmd_mkdir_finish(call));
FINISHED(on_create, shmd_create_finish(call, &pipeline->created));
FINISHED(on_open, shmd_open_finish(call, &pipeline->opened));
FINISHED(on_batch, shmd_batch_finish(call, pipeline->batch, 2));
FINISHED(on_stat, shmd_stat_finish(call, &stat_result));
FINISHED(on_list, shmd_list_finish(call, &list_result));
FINISHED(on_wait, shmd_wait_finish(call, &wait_result));
FINISHED(on_chmod, shmd_chmod_finish(call));
FINISHED(on_chown, shmd_chown_finish(call));
FINISHED(on_df, shmd_df_finish(call, &df_result));
FINISHED(on_stats, shmd_stats_finish(call, &stats_result));
FINISHED(on_ping, shmd_ping_finish(call, NULL));
FINISHED(on_unlink, shmd_unlink_finish(call));
FINISHED(on_rmdir, shmd_rmdir_finish(call));
FINISHED(on_publish, shmd_publish_finish(call));

static void process(shmd *client, const Pipeline *pipeline, unsigned int n) {
        while (pipeline->n < n)
                REQUIRE(shmd_process(client, PATIENCE) >= 0);
        REQUIRE(pipeline->n == n);
}

static void start_most(shmd *client, Pipeline *p, const struct shmd_create_options *options) {
        const struct shmd_batch_item items[] = {
                { .create = options }, { .path = "/a/r", .rights = SHMD_RIGHTS_READ_ONLY },
        };

        EXPECT(client, shmd_wait_start(client, "/a/r", PATIENCE, on_wait, p, NULL));
        EXPECT(client, shmd_mkdir_start(client, "/a", 0755, PATIENCE, on_mkdir, p, NULL));
        EXPECT(client, shmd_create_start(client, "/a/r", options, PATIENCE, on_create, p, NULL));
        EXPECT(client, shmd_open_start(client, "/a/r", SHMD_RIGHTS_READ_ONLY, PATIENCE, on_open, p, NULL));
        EXPECT(client, shmd_batch_start(client, items, 2, PATIENCE, on_batch, p, NULL));
        EXPECT(client, shmd_chmod_start(client, "/a/r", 0640, PATIENCE, on_chmod, p, NULL));
        EXPECT(client, shmd_chown_start(client, "/a/r", ALICE, BOB, PATIENCE, on_chown, p, NULL));
        EXPECT(client, shmd_stat_start(client, "/a/r", 0, true, PATIENCE, on_stat, p, NULL));
        EXPECT(client, shmd_list_start(client, "/", SHMD_LIST_RECURSIVE, NULL, 0, PATIENCE, on_list, p, NULL));
        EXPECT(client, shmd_df_start(client, SHMD_DF_ACCOUNT, ALICE, NULL, PATIENCE, on_df, p, NULL));
        EXPECT(client, shmd_stats_start(client, PATIENCE, on_stats, p, NULL));
        EXPECT(client, shmd_ping_start(client, PATIENCE, on_ping, p, NULL));
}

static void check_results(const Pipeline *p) {
        REQUIRE(shmd_region_id(p->opened) == shmd_region_id(p->created));
        REQUIRE(shmd_region_id(p->batch[1]) == shmd_region_id(p->created));
        REQUIRE(shmd_region_created(p->batch[0]) && !shmd_region_created(p->batch[1]));
        REQUIRE(stat_result->node.uid == ALICE && stat_result->node.gid == BOB && stat_result->node.mode == 0640);
        REQUIRE(stat_result->n_holders == 3 && stat_result->held);
        REQUIRE(wait_result->node.region == shmd_region_id(p->created));
        REQUIRE(list_result->n == 2 && !list_result->cursor);
        REQUIRE(strcmp(list_result->nodes[0].path, "/a") == 0 && strcmp(list_result->nodes[1].path, "/a/r") == 0);
        REQUIRE(df_result->n == 1 && df_result->usages[0].uid == ALICE);
        REQUIRE(df_result->usages[0].used[SHMD_SLOT_BYTES] == 12288, "the charge has moved to the new owner");
        REQUIRE(stats_result->regions == 2 && stats_result->named == 1);
}

static void free_results(void) {
        stat_result = shmd_stat_free(stat_result);
        wait_result = shmd_stat_free(wait_result);
        list_result = shmd_list_free(list_result);
        df_result = shmd_df_free(df_result);
        stats_result = shmd_stats_free(stats_result);
}

static int do_everything_at_once(void *socket) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_publish_options publish = SHMD_PUBLISH_OPTIONS_INIT;
        shmd *client = connect_to(socket);
        Pipeline p = { 0 };
        uint64_t region;

        options.size = 10000;
        start_most(client, &p, &options);
        process(client, &p, 12);
        check_results(&p);
        free_results();

        p.n = 0;
        region = shmd_region_id(p.batch[0]);
        publish.flags = SHMD_PUBLISH_REPLACE;
        EXPECT(client, shmd_publish_start(client, region, "/a/r", &publish, PATIENCE, on_publish, &p, NULL));
        EXPECT(client, shmd_unlink_start(client, "/a/r", PATIENCE, on_unlink, &p, NULL));
        EXPECT(client, shmd_rmdir_start(client, "/a", PATIENCE, on_rmdir, &p, NULL));
        process(client, &p, 3);

        shmd_region_free(p.created);
        shmd_region_free(p.opened);
        shmd_region_free(p.batch[0]);
        shmd_region_free(p.batch[1]);
        shmd_close(client);
        return 0;
}

TEST(library, every_operation_works_in_one_pipeline) {
        Broker *broker;

        test_needs_root();
        broker = broker_spawn(NULL);
        cr_assert_eq(run_as(0, 0, do_everything_at_once, broker->socket), 0);
        broker_stop(broker);
}

/* -- refusals ----------------------------------------------------------------------------- */

TEST(library, reasons_have_the_names_that_the_broker_gives_them) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_stats_result *stats;
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket);
        shmd_region *region;

        cr_assert_eq(shmd_open(client, "/missing", SHMD_RIGHTS_READ_ONLY, &region, PATIENCE), -ENOENT);
        cr_assert_eq(shmd_rmdir(client, "/", PATIENCE), -EBUSY);
        options.flags = 1U << 31;
        cr_assert_eq(shmd_create(client, "/a", &options, &region, PATIENCE), -EINVAL);
        options.flags = 0;
        options.size = UINT64_MAX;
        cr_assert_lt(shmd_create(client, "/a", &options, &region, PATIENCE), 0);
        cr_assert_eq(shmd_wait(client, "/missing", NULL, 1), -ETIMEDOUT);
        EXPECT(client, shmd_stats(client, &stats, PATIENCE));
        cr_assert_geq(stats->n_refusals, 4);
        for (size_t i = 0; i < stats->n_refusals; ++i)
                cr_assert_str_eq(stats->refusals[i].name, shmd_reason_name(stats->refusals[i].reason));
        cr_assert_str_eq(stats->broker, shmd_broker_version(client));
        shmd_stats_free(stats);
        shmd_close(client);
        broker_stop(broker);
}

static int connect_many(void *socket) {
        const struct shmd_refusal *refusal;
        shmd *clients[4];
        int r;

        for (size_t i = 0; i < 3; ++i)
                clients[i] = connect_to(socket);
        r = shmd_connect(&clients[3], socket, PATIENCE);
        REQUIRE(r == -EDQUOT && clients[3]);
        refusal = shmd_refusal(clients[3]);
        REQUIRE(refusal->slot == SHMD_SLOT_PEERS && refusal->limit == 3 && refusal->left == 0 && refusal->asked == 1);
        REQUIRE(refusal->uid == ALICE);
        for (size_t i = 0; i < 4; ++i)
                shmd_close(clients[i]);
        return 0;
}

TEST(library, one_connection_too_many_is_refused_with_the_numbers) {
        Broker *broker;

        test_needs_root();
        broker = broker_spawn("[account]\npeers = 3\n");
        cr_assert_eq(run_as(ALICE, ALICE, connect_many, broker->socket), 0);
        broker_stop(broker);
}

/* -- what comes too late, or no more ------------------------------------------------------- */

static bool nothing_is_charged(void *client) {
        struct shmd_df_result *df;
        bool none;

        EXPECT(client, shmd_df(client, SHMD_DF_TOTAL, 0, NULL, &df, PATIENCE));
        none = df->usages[0].used[SHMD_SLOT_BYTES] == 0;
        shmd_df_free(df);
        return none;
}

TEST(library, a_region_that_came_too_late_is_given_back) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket);
        shmd_region *region;

        options.size = 1 << 20;
        for (unsigned int i = 0; i < 50; ++i) {
                int r = shmd_create(client, NULL, &options, &region, 1);

                cr_assert(r == 0 || r == -ETIMEDOUT);
                shmd_region_free(region);
        }
        cr_assert(test_eventually(nothing_is_charged, client));
        shmd_close(client);
        broker_stop(broker);
}

TEST(library, memory_outlives_the_broker_and_calls_have_the_time_they_were_given) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket);
        shmd_region *region;
        size_t length;
        char *address;

        options.size = 4096;
        EXPECT(client, shmd_create(client, "/a", &options, &region, PATIENCE));
        cr_assert_eq(shmd_map(region, NULL, (void **)&address, &length), 0);
        broker_kill(broker);
        cr_assert_eq(shmd_wait(client, "/never", NULL, SECOND / 10), -ETIMEDOUT);
        EXPECT(client, shmd_set_reconnect(client, false));
        cr_assert_eq(shmd_wait(client, "/never", NULL, PATIENCE), -ECONNRESET);
        cr_assert_eq(shmd_wait(client, "/never", NULL, PATIENCE), -ENOTCONN);
        address[4095] = 'z';
        cr_assert_eq(pread(shmd_region_fd(region), address, 1, 4095), 1);
        cr_assert_eq(address[0], 'z');
        cr_assert_eq(shmd_unmap(address, length), 0);
        shmd_region_free(region);
        shmd_close(client);
        broker_forget(broker);
}

/* -- many at once ------------------------------------------------------------------------- */

#define PINGS 20000

TEST(library, any_number_of_calls_may_be_in_flight) {
        Broker *broker = broker_spawn(NULL);
        shmd *client = connect_to(broker->socket);
        Pipeline pipeline = { 0 };

        for (unsigned int i = 0; i < PINGS; ++i)
                EXPECT(client, shmd_ping_start(client, SHMD_TIMEOUT_NONE, on_ping, &pipeline, NULL));
        process(client, &pipeline, PINGS);
        shmd_close(client);
        broker_stop(broker);
}
