/* What each kind of request costs in calls: of malloc(3), counted by a library in the broker, and of the
 * kernel, which the kernel itself writes down.
 *
 * The broker is the real program with its keeper and its sandbox, and one client asks it one thing at a
 * time, often enough before counting that what grows once has grown. Where a request cannot be repeated
 * alone, a step is as many as lead back to where it began: mkdir and rmdir. Counts are no timings: they are
 * the same on a busy machine.
 *
 *      SHMD_COUNTS_ONLY=open,list tests/bench/counts     some of the steps
 *      SHMD_COUNTS_WHERE=1 tests/bench/counts            also who allocates: call chains and how often, by addr2line
 */

#include "bench/bench.h"
#include "bench/counts-calls.h"
#include "bench/counts-preload.h"
#include "lib/client.h"
#include "lib/tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
        WARM_UP = 300,
        COUNTED = 200,          /* for calls of malloc(3) */
        COUNTED_TIMES = 5,      /* at most */
        TRACED = 50,            /* for those of the kernel */
        TRACED_QUICK = 10,
        TRACED_OPENS = 240,
        FORGOTTEN = 8,          /* and before those: by then the broker takes its client for one that does not pipeline */
        NAMES = 64,
        SETTLE_MS = 10,
        BURST_MS = 200,         /* by then nothing is left of what is made ahead in a burst of regions */
};

static const char config[] = "[account]\nregions = 8000\n[keeper]\nwatchdog = 0s\n";

typedef struct Scene {
        Broker *broker;
        Client *client;         /* who asks */
        Client *watcher;        /* who hears of it */
        Client *owner;          /* of what the client may not have */
        Client *admin;
        CountsPage *page;
        Calls calls;
        const char *no_calls;   /* why they cannot be counted, NULL: they can */
} Scene;

/* -- the requests ------------------------------------------------------------------------------- */

static void ask(Client *client, MessageKind kind, const ProtobufCMessage *request) {
        client_expect_done(client, client_call(client, kind, request));
        fdlist_deinit(&client->fds);
}

static void ping(Scene *scene) {
        ask(scene->client, MESSAGE_PING, REQUEST(Ping, ping));
}

static void open_name(Scene *scene) {
        ask(scene->client, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES("/d/7"), .rights = READ_ONLY));
}

static void open_to_write(Scene *scene) {
        ask(scene->client, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES("/d/7"), .rights = READ_WRITE));
}

static void open_missing(Scene *scene) {
        client_expect_error(scene->client, NOT_FOUND, MISSING,
                            client_call(scene->client, MESSAGE_OPEN,
                                        REQUEST(Open, open, .path = BYTES("/d/none"), .rights = READ_ONLY)));
}

static void open_denied(Scene *scene) {
        client_expect_error(scene->client, DENIED, REGION_READ,
                            client_call(scene->client, MESSAGE_OPEN,
                                        REQUEST(Open, open, .path = BYTES("/secret"), .rights = READ_ONLY)));
}

static void batch(Scene *scene) {
        ask(scene->client, MESSAGE_BATCH, request_opens("/d/", NAMES));
}

static void unlink_name(Scene *scene, const char *path) {
        ask(scene->client, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES(path)));
}

static void create(Scene *scene, const char *path) {
        ask(scene->client, MESSAGE_CREATE, REQUEST(Create, create, .path = BYTES(path), .size = PAGE, .mode = 0600,
                                                   .rights = READ_WRITE));
}

static void create_and_unlink(Scene *scene) {
        create(scene, "/new");
        unlink_name(scene, "/new");
}

static void create_unnamed(Scene *scene) {
        create(scene, "");
}

static void publish(Scene *scene) {
        Grant grant = GRANT_NULL;

        client_expect_done(scene->client, call_create(scene->client, NULL, PAGE, &grant));
        client_expect_done(scene->client, call_publish(scene->client, grant.region, "/new", 0));
        grant_deinit(&grant);
        unlink_name(scene, "/new");
}

static void freeze(Scene *scene) {
        Grant grant = GRANT_NULL;

        client_expect_done(scene->client, call_create_with(scene->client,
                                                           REQUEST(Create, create, .path = BYTES("/new"),
                                                                   .size = PAGE, .mode = 0600, .rights = READ_WRITE,
                                                                   .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE),
                                                           &grant));
        REQUIRE(fcntl(grant.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0, "%s", strerror(errno));
        grant_deinit(&grant);
        ask(scene->client, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES("/new")));
        unlink_name(scene, "/new");
}

static void stat_name(Scene *scene) {
        ask(scene->client, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES("/d/7")));
}

static void stat_holders(Scene *scene) {
        static const uint32_t flags = SHMD__STAT_FLAGS__STAT_HOLDERS | SHMD__STAT_FLAGS__STAT_NAMES;

        ask(scene->client, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES("/d/7"), .flags = flags));
}

static void list(Scene *scene) {
        ask(scene->client, MESSAGE_LIST, REQUEST(List, list, .path = BYTES("/d")));
}

static void mkdir_and_rmdir(Scene *scene) {
        client_expect_done(scene->client, call_mkdir(scene->client, "/new", 0700));
        client_expect_done(scene->client, call_rmdir(scene->client, "/new"));
}

static void link_and_unlink(Scene *scene) {
        client_expect_done(scene->client, call_link(scene->client, "/d/7", "/new"));
        unlink_name(scene, "/new");
}

static void rename_twice(Scene *scene) {
        client_expect_done(scene->client, call_rename(scene->client, "/d/7", "/new", 0));
        client_expect_done(scene->client, call_rename(scene->client, "/new", "/d/7", 0));
}

static void change_mode(Scene *scene) {
        static uint32_t mode;

        client_expect_done(scene->client, call_chmod(scene->client, "/d/7", 0600 | (mode ^= 040)));
}

static void change_owner(Scene *scene) {
        client_expect_done(scene->admin, call_chown(scene->admin, "/d/7", ALICE, ALICE));
}

static void set_acl(Scene *scene) {
        static uint32_t perms;
        Shmd__AclEntry entries[5], *access[5];
        static const uint32_t tags[] = { SHMD__ACL_TAG__ACL_USER_OBJ, SHMD__ACL_TAG__ACL_USER,
                                         SHMD__ACL_TAG__ACL_GROUP_OBJ, SHMD__ACL_TAG__ACL_MASK,
                                         SHMD__ACL_TAG__ACL_OTHER };

        perms ^= 2;
        for (size_t i = 0; i < 5; ++i) {
                entries[i] = (Shmd__AclEntry)SHMD__ACL_ENTRY__INIT;
                entries[i].tag = tags[i];
                entries[i].id = i == 1 ? BOB : 0;
                entries[i].perms = i == 0 ? 6 : i == 4 ? 0 : 4 | perms;
                access[i] = &entries[i];
        }
        ask(scene->client, MESSAGE_SET_ACL,
            REQUEST(SetAcl, set_acl, .path = BYTES("/d/8"), .flags = SHMD__ACL_FLAGS__ACL_ACCESS, .n_access = 5,
                    .access = access));
}

static void get_acl(Scene *scene) {
        ask(scene->client, MESSAGE_GET_ACL, REQUEST(GetAcl, get_acl, .path = BYTES("/d/8")));
}

static void ttl(Scene *scene) {
        ask(scene->client, MESSAGE_TTL, REQUEST(Ttl, ttl, .path = BYTES("/d/7"), .ttl_ns = UINT64_C(3600000000000)));
        ask(scene->client, MESSAGE_TTL, REQUEST(Ttl, ttl, .path = BYTES("/d/7")));
}

static void why(Scene *scene) {
        ask(scene->client, MESSAGE_WHY,
            REQUEST(Why, why, .operation = SHMD__WHY_OPERATION__WHY_WRITE, .path = BYTES("/d/7")));
}

static void wait_for_name(Scene *scene) {
        client_expect_done(scene->client, call_wait(scene->client, "/d/7", UINT64_C(1000000000)));
}

static void wait_until_there(Scene *scene) {
        (void)client_send(scene->watcher, MESSAGE_WAIT,
                          REQUEST(Wait, wait, .path = BYTES("/new"), .timeout_ns = UINT64_MAX));
        client_expect_done(scene->client, call_link(scene->client, "/d/7", "/new"));
        REQUIRE(client_receive(scene->watcher, TEST_PATIENCE_MS) == CLIENT_REPLY);
        unlink_name(scene, "/new");
}

static void df(Scene *scene) {
        ask(scene->client, MESSAGE_DF, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT));
}

static void stats(Scene *scene) {
        ask(scene->client, MESSAGE_STATS, REQUEST(Stats, stats));
}

static void doctor(Scene *scene) {
        ask(scene->client, MESSAGE_DOCTOR, REQUEST(Doctor, doctor));
}

static void watch(Client *client, const char *path, uint32_t mask) {
        ask(client, MESSAGE_WATCH, REQUEST(Watch, watch, .path = BYTES(path), .mask = mask));
}

static void watch_and_unwatch(Scene *scene) {
        watch(scene->client, "/d", SHMD__EVENT_MASK__EVENT_CREATED);
        ask(scene->client, MESSAGE_UNWATCH,
            REQUEST(Unwatch, unwatch, .watch = ((const Shmd__WatchReply *)scene->client->reply)->watch));
}

/* The watcher hears of /e, and of nothing else. */
static void event(Scene *scene) {
        static uint32_t mode;

        client_expect_done(scene->client, call_chmod(scene->client, "/e/1", 0600 | (mode ^= 040)));
        REQUIRE(client_receive(scene->watcher, TEST_PATIENCE_MS) == CLIENT_EVENTS);
}

static void ticket(Scene *scene) {
        ask(scene->client, MESSAGE_TICKET, REQUEST(Ticket, ticket, .path = BYTES("/d/7"), .rights = READ_ONLY,
                                                   .uses = 1, .ttl_ns = UINT64_C(60000000000)));
}

static void ticket_and_redeem(Scene *scene) {
        char text[128];
        Shmd__Redeem redeem = SHMD__REDEEM__INIT;

        ticket(scene);
        redeem.ticket = ((const Shmd__TicketReply *)scene->client->reply)->ticket;
        REQUIRE(redeem.ticket.len <= sizeof(text));
        redeem.ticket.data = memcpy(text, redeem.ticket.data, redeem.ticket.len);
        ask(scene->client, MESSAGE_REDEEM, &redeem.base);
}

static void ticket_and_revoke(Scene *scene) {
        ticket(scene);
        ask(scene->client, MESSAGE_REVOKE,
            REQUEST(Revoke, revoke, .id = ((const Shmd__TicketReply *)scene->client->reply)->id));
}

static void tickets(Scene *scene) {
        ask(scene->client, MESSAGE_TICKETS, REQUEST(Tickets, tickets, .path = BYTES("/d/7")));
}

static void bell(Scene *scene) {
        ask(scene->client, MESSAGE_BELL, REQUEST(Bell, bell, .path = BYTES("/d/9")));
}

static void connect_and_leave(Scene *scene) {
        Client *client = client_connect_as(scene->broker, ALICE, ALICE);

        client = client_free(client);
}

typedef struct Step {
        const char *name;
        void (*run)(Scene *scene);
        unsigned int n;                 /* requests */
        const char *row;                /* "allocations-ROW"; NULL: one of the others */
} Step;

static const Step steps[] = {
        { "ping", ping, 1, "ping" },
        { "open", open_name, 1, "open" },
        { "open-read-write", open_to_write, 1 },
        { "open-missing", open_missing, 1 },
        { "open-denied", open_denied, 1 },
        { "batch-64-opens", batch, 1, "batch" },
        { "create+unlink", create_and_unlink, 2, "create" },
        { "create-unnamed", create_unnamed, 1 },
        { "create+publish+unlink", publish, 3 },
        { "create+freeze+unlink", freeze, 3 },
        { "stat", stat_name, 1, "stat" },
        { "stat-holders", stat_holders, 1 },
        { "list-64-names", list, 1, "list" },
        { "mkdir+rmdir", mkdir_and_rmdir, 2 },
        { "link+unlink", link_and_unlink, 2 },
        { "rename+rename", rename_twice, 2 },
        { "chmod", change_mode, 1 },
        { "chown", change_owner, 1 },
        { "set-acl", set_acl, 1 },
        { "get-acl", get_acl, 1 },
        { "ttl+ttl", ttl, 2 },
        { "why", why, 1 },
        { "wait-there", wait_for_name, 1 },
        { "wait+link+unlink", wait_until_there, 3 },
        { "df", df, 1 },
        { "stats", stats, 1 },
        { "doctor", doctor, 1 },
        { "watch+unwatch", watch_and_unwatch, 2 },
        { "chmod-heard-of", event, 1 },
        { "ticket+redeem", ticket_and_redeem, 2 },
        { "ticket+revoke", ticket_and_revoke, 2 },
        { "tickets", tickets, 1 },
        { "bell", bell, 1 },
        { "connect+hello+close", connect_and_leave, 1 },
};

enum { STEPS = sizeof(steps) / sizeof(*steps) };

/* -- the kernel's calls ------------------------------------------------------------------------- */

/* What an open does now and then, it does within so many. */
static size_t n_traced(const Step *step) {
        return step->run == open_name ? TRACED_OPENS : bench_quick() ? TRACED_QUICK : TRACED;
}

/* The broker waits again before each step, so that no request saves another one a trip through the loop; and not
 * for long, as a timer is none of what a request costs. */
static void trace_step(Scene *scene, const Step *step) {
        if (scene->no_calls)
                return;
        calls_resume(&scene->calls);
        for (size_t i = 0; i < FORGOTTEN + n_traced(step); ++i) {
                step->run(scene);
                if (i >= FORGOTTEN && i + 1 < FORGOTTEN + n_traced(step)) {
                        calls_read_until_wait(&scene->calls);
                        continue;
                }
                calls_read_until_rest(&scene->calls);
                if (i < FORGOTTEN)
                        calls_forget(&scene->calls);
        }
        calls_pause(&scene->calls);
}

/* -- the counting library ------------------------------------------------------------------------- */

static char directory[64];

static void preload(void *userdata) {
        const char *path = test_program("tests/bench/.libs/counts-preload.so");

        REQUIRE(access(path, R_OK) == 0, "%s: %s", path, strerror(errno));
        REQUIRE(setenv("LD_PRELOAD", path, 1) == 0 && setenv(COUNTS_DIRECTORY, directory, 1) == 0);
}

static CountsPage *map_counts(pid_t pid) {
        CountsPage *page;
        char path[128];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/%d", directory, (int)pid);
        fd = open(path, O_RDWR | O_CLOEXEC);
        REQUIRE(fd >= 0, "%s: %s", path, strerror(errno));
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REQUIRE(page != MAP_FAILED);
        (void)close(fd);
        return page;
}

/* -- who allocates ---------------------------------------------------------------------------------- */

/* Where the program begins in memory: the first line of /proc/PID/maps that has its name. */
static uintptr_t base_of(pid_t pid, char *program, size_t n) {
        char path[64], line[600];
        uintptr_t base = 0;
        ssize_t length;
        FILE *maps;

        (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
        length = readlink(path, program, n - 1);
        REQUIRE(length > 0, "%s: %s", path, strerror(errno));
        program[length] = '\0';
        (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
        maps = fopen(path, "re");
        REQUIRE(maps, "%s: %s", path, strerror(errno));
        while (!base && fgets(line, sizeof(line), maps))
                if (strstr(line, program))
                        base = strtoull(line, NULL, 16);
        (void)fclose(maps);
        return base;
}

/* What a frame outside of the program (libc, libevent) is called is left open: "?". */
static void print_chain(pid_t pid, const struct CountsStack *stack, uint64_t times) {
        char program[512], command[1200], name[256];
        uintptr_t base = base_of(pid, program, sizeof(program));
        int n = snprintf(command, sizeof(command), "addr2line -f -e '%s'", program);
        FILE *names;

        for (uint64_t i = 0; i < stack->n; ++i)
                n += snprintf(command + n, sizeof(command) - (size_t)n, " %#" PRIxPTR,
                              stack->frames[i] > base ? stack->frames[i] - base - 1 : 0);
        names = popen(command, "re");
        REQUIRE(names, "addr2line: %s", strerror(errno));
        printf("      %4" PRIu64 " x %6" PRIu64 " bytes:", times, stack->bytes);
        for (bool function = true; fgets(name, sizeof(name), names); function = !function)
                if (function)
                        printf(" %.*s", (int)strcspn(name, "\n"), strncmp(name, "??", 2) == 0 ? "?" : name);
        printf("\n");
        (void)pclose(names);
}

static void print_chains(const Scene *scene) {
        CountsPage *page = scene->page;
        uint64_t n = page->n_stacks < COUNTS_STACKS ? page->n_stacks : COUNTS_STACKS;

        for (uint64_t i = 0; i < n; ++i) {
                uint64_t times = 0;

                if (page->stacks[i].n == 0)
                        continue;
                for (uint64_t k = n; k-- > i;)
                        if (memcmp(&page->stacks[k], &page->stacks[i], sizeof(page->stacks[i])) == 0) {
                                ++times;
                                if (k != i)
                                        page->stacks[k].n = 0;
                        }
                print_chain(scene->broker->pid, &page->stacks[i], times);
        }
}

/* -- counting --------------------------------------------------------------------------------------- */

/* Per step. */
typedef struct Counts {
        double allocated, freed, bytes;
        double calls;
        double n_traced;                /* steps whose calls those are */
} Counts;

static Counts count_once(Scene *scene, const Step *step) {
        CountsPage *page = scene->page, before;
        Counts counts;

        test_sleep_ms(SETTLE_MS);
        page->n_stacks = 0;
        memset(page->stacks, 0, sizeof(page->stacks));
        page->trace = getenv("SHMD_COUNTS_WHERE") != NULL;
        before = *page;
        for (unsigned int i = 0; i < COUNTED; ++i)
                step->run(scene);
        test_sleep_ms(SETTLE_MS);
        page->trace = 0;
        counts.allocated = (double)(page->allocated - before.allocated) / COUNTED;
        counts.freed = (double)(page->freed - before.freed) / COUNTED;
        counts.bytes = (double)(page->bytes - before.bytes) / COUNTED;
        return counts;
}

/* Again if there was any, and the least: a table may just have been full, or on a busy machine more regions than ever
 * before have been on their way out at once. What each request or each of many allocates is there each time. */
static Counts count_step(Scene *scene, const Step *step) {
        Counts counts;

        for (unsigned int i = 0; i < WARM_UP; ++i)
                step->run(scene);
        counts = count_once(scene, step);
        for (unsigned int i = 1; i < COUNTED_TIMES && counts.allocated > 0; ++i) {
                Counts again = count_once(scene, step);

                if (again.allocated < counts.allocated)
                        counts = again;
        }
        trace_step(scene, step);
        counts.n_traced = (double)n_traced(step);
        counts.calls = (double)calls_sum(&scene->calls) / counts.n_traced;
        return counts;
}

static void print_step(const Step *step, const Counts *counts, const Calls *calls) {
        printf("%-22s %u %8.2f %8.2f %8.0f %8.2f ", step->name, step->n, counts->allocated, counts->freed,
               counts->bytes, counts->calls);
        for (long call = 0; call < CALLS_MAX; ++call)
                if (calls->n[call])
                        printf(" %s %.2f", tracer_call_name(call), (double)calls->n[call] / counts->n_traced);
        printf("\n");
}

static bool is_wanted(const Step *step) {
        const char *only = getenv("SHMD_COUNTS_ONLY"), *found;
        size_t n = strlen(step->name);

        if (!only)
                return true;
        for (found = only; (found = strstr(found, step->name)); found += n)
                if ((found == only || found[-1] == ',') && (found[n] == '\0' || found[n] == ','))
                        return true;
        return false;
}

static void scene_begin(Scene *scene) {
        char path[16];

        (void)snprintf(directory, sizeof(directory), "/tmp/shmd-counts-XXXXXX");
        REQUIRE(mkdtemp(directory) && chmod(directory, 0777) == 0, "%s", strerror(errno));
        scene->broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config, .prepare = preload });
        scene->page = map_counts(scene->broker->pid);
        if (calls_begin(&scene->calls, scene->broker->pid, &scene->no_calls))
                scene->no_calls = NULL;
        scene->client = client_connect_as(scene->broker, ALICE, ALICE);
        scene->watcher = client_connect_as(scene->broker, ALICE, ALICE);
        scene->owner = client_connect_as(scene->broker, BOB, BOB);
        scene->admin = client_connect_as(scene->broker, 0, 0);
        for (unsigned int i = 0; i < 2; ++i)
                client_expect_done(scene->client, call_mkdir(scene->client, i ? "/e" : "/d", 0755));
        for (unsigned int i = 0; i < NAMES; ++i) {
                (void)snprintf(path, sizeof(path), "/d/%u", i);
                client_expect_done(scene->client, call_create(scene->client, path, PAGE, NULL));
        }
        client_expect_done(scene->client, call_create(scene->client, "/e/1", PAGE, NULL));
        client_expect_done(scene->owner, call_create(scene->owner, "/secret", PAGE, NULL));
        watch(scene->watcher, "/e", SHMD__EVENT_MASK__EVENT_CHANGED);
        test_sleep_ms(BURST_MS);
}

static void scene_end(Scene *scene) {
        scene->client = client_free(scene->client);
        scene->watcher = client_free(scene->watcher);
        scene->owner = client_free(scene->owner);
        scene->admin = client_free(scene->admin);
        if (!scene->no_calls)
                calls_end(&scene->calls);
        REQUIRE(munmap(scene->page, sizeof(*scene->page)) == 0);
        scene->broker = broker_stop(scene->broker);
        REQUIRE(test_remove_tree(directory));
}

/* -- rows ------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3)))
static void append(char text[512], const char *format, ...) {
        size_t n = strlen(text);
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text + n, 512 - n, format, args);
        va_end(args);
}

/* The floor receives, opens, sends and closes; readiness and attribution may be asked for. What an open now and
 * then does for those before is in the mean, which is judged to one decimal; the note has each call to two. */
static void calls_row(const Scene *scene, const Counts *counts) {
        static const char what[] = "system calls for an open, broker at rest before";
        const Calls *calls = &scene->calls;
        char note[512] = "";

        if (scene->no_calls) {
                bench_unmeasured("calls-open", what, "%s", scene->no_calls);
                return;
        }
        for (long call = 0; call < CALLS_MAX; ++call)
                if (calls->n[call])
                        append(note, "%s%s %.2f", *note ? ", " : "", tracer_call_name(call),
                               (double)calls->n[call] / counts->n_traced);
        bench_row(&(BenchRow){ .name = "calls-open", .what = what, .unit = "calls",
                               .figure = BENCH_ONE(round(counts->calls * 10) / 10), .kind = BENCH_COUNTED,
                               .target = BENCH_AT_MOST(6), .note = note });
}

static void allocations_row(const char *name, const char *of, double allocated, const char *note) {
        char row[64], what[BENCH_WHAT_MAX + 1];

        (void)snprintf(row, sizeof(row), "allocations-%s", name);
        (void)snprintf(what, sizeof(what), "heap allocations, %s", of);
        bench_row(&(BenchRow){ .name = row, .what = what, .unit = "calls", .figure = BENCH_ONE(allocated),
                               .kind = BENCH_COUNTED, .target = BENCH_AT_MOST(0), .note = note });
}

TEST(bench, calls_of_each_request) {
        char others[512] = "";
        double sum = 0;
        Scene scene;

        test_needs_root();
        scene_begin(&scene);
        puts("step         requests     allocs    frees    bytes    calls  of the kernel, each");
        for (size_t i = 0; i < STEPS; ++i) {
                Counts counts;

                if (!is_wanted(&steps[i]))
                        continue;
                counts = count_step(&scene, &steps[i]);
                print_step(&steps[i], &counts, &scene.calls);
                print_chains(&scene);
                if (steps[i].run == open_name)
                        calls_row(&scene, &counts);
                if (steps[i].row)
                        allocations_row(steps[i].row, steps[i].name, counts.allocated, NULL);
                else if (steps[i].run != connect_and_leave && counts.allocated > 0) {
                        sum += counts.allocated;
                        append(others, "%s%s %.2f", *others ? ", " : "", steps[i].name, counts.allocated);
                }
                (void)fflush(stdout);
        }
        allocations_row("others", "all other kinds of requests together", sum, *others ? others : NULL);
        scene_end(&scene);
}
