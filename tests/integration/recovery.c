/* Recovery in the real daemon: everything is there, as somebody looking at it sees it, whatever ended the
 * broker; and what is kept may be as damaged as it likes.
 *
 * A View is all that shmdctl tells of the broker as an administrator. It is taken before the broker is
 * ended and after the next one is ready, and must be the same to the byte, but for times that run.
 */

#define TEST_TIMEOUT 300

#include "lib/client.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define GROUP 64500
#define HOUR UINT64_C(3600000000000)
#define TEXT_BYTES 49
/* Where the version stands in a state: after eight bytes that say what it is, and four of byte order. */
#define STATE_VERSION_AT 12
#define SLOT_INFLIGHT SHMD__SLOT__SLOT_INFLIGHT
#define FREEZABLE SHMD__CREATE_FLAGS__CREATE_FREEZABLE

static Broker *spawn(const char *config, const char *policy) {
        test_needs_root();
        return broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config, .policy = policy });
}

/* -- a view --------------------------------------------------------------------------------- */

typedef struct View {
        char *text;
        size_t n;
} View;

static void view_deinit(View *view) {
        free(view->text);
}

/* Times that run are left out: the digits of "..._ns": 123, but for when something was made. */
static void leave_times_out(char *text) {
        static const char *const keys[] = { "\"ttl_ns\": ", "\"age_ns\": ", "\"since_ns\": " };

        for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); ++i)
                for (char *at = text; (at = strstr(at, keys[i]));) {
                        at += strlen(keys[i]);
                        if (isdigit((unsigned char)*at))
                                memset(at, '.', strspn(at, "0123456789"));
                        memmove(at, at + strspn(at, "."), strlen(at + strspn(at, ".")) + 1);
                }
}

static void add_view(FILE *out, Broker *broker, const char *const arguments[4]) {
        char socket[128], *text;

        (void)snprintf(socket, sizeof(socket), "--socket=%s", broker->socket);
        fprintf(out, "-- %s %s %s %s\n", arguments[0], arguments[1] ? arguments[1] : "",
                arguments[1] && arguments[2] ? arguments[2] : "",
                arguments[1] && arguments[2] && arguments[3] ? arguments[3] : "");
        (void)shmdctl_run(&text, arguments[0], socket, "--json", arguments[1], arguments[2], arguments[3], NULL);
        leave_times_out(text);
        fputs(text, out);
        free(text);
}

static const char *const region_paths[] = {
        "/music/one", "/music/deep/brief", "/linked", "/frozen/immutable", "/frozen/single", "/bell", "/counted", "/session",
        "/policy/limited", "/conf/own",
};
#define N_REGION_PATHS (sizeof(region_paths) / sizeof(*region_paths))

static const char *const directory_paths[] = { "/", "/music", "/music/deep", "/policy", "/conf" };
#define N_DIRECTORY_PATHS (sizeof(directory_paths) / sizeof(*directory_paths))

static void add_whys(FILE *out, Broker *broker) {
        static const char *const operations[] = { "open", "write", "unlink", "chmod" };
        static const char *const users[] = { "--as=64101", "--as=64102", "--as=64103" };

        for (size_t i = 0; i < N_REGION_PATHS; ++i)
                for (size_t k = 0; k < 2; ++k)
                        add_view(out, broker, (const char *const[4]){ "why", users[(i + k) % 3], operations[(i + k) % 4],
                                                                       region_paths[i] });
}

static View view(Broker *broker) {
        View view;
        FILE *out = open_memstream(&view.text, &view.n);

        REQUIRE(out);
        add_view(out, broker, (const char *const[4]){ "ls", "-lR", "/" });
        add_view(out, broker, (const char *const[4]){ "df", "--accounts" });
        add_view(out, broker, (const char *const[4]){ "df", "--total" });
        for (size_t i = 0; i < N_DIRECTORY_PATHS; ++i) {
                add_view(out, broker, (const char *const[4]){ "stat", directory_paths[i] });
                add_view(out, broker, (const char *const[4]){ "acl", directory_paths[i] });
                add_view(out, broker, (const char *const[4]){ "df", "-d", directory_paths[i] });
        }
        for (size_t i = 0; i < N_REGION_PATHS; ++i) {
                add_view(out, broker, (const char *const[4]){ "stat", region_paths[i] });
                add_view(out, broker, (const char *const[4]){ "acl", region_paths[i] });
                add_view(out, broker, (const char *const[4]){ "holders", region_paths[i] });
                add_view(out, broker, (const char *const[4]){ "tickets", region_paths[i] });
        }
        add_whys(out, broker);
        REQUIRE(fclose(out) == 0);
        return view;
}

static size_t line_start(const char *text, size_t at) {
        while (at > 0 && text[at - 1] != '\n')
                --at;
        return at;
}

/* Shows the first line that is another one, and the heading above it. */
static void expect_same(const View *after, const View *before) {
        size_t at = 0, line, heading;

        while (after->text[at] == before->text[at] && after->text[at])
                ++at;
        if (after->text[at] == before->text[at])
                return;
        line = heading = line_start(before->text, at);
        while (heading > 0 && strncmp(before->text + heading, "-- ", 3))
                heading = line_start(before->text, heading - 1);
        test_fail(__FILE__, __LINE__, "everything is as it was", "%.*s\nwas\n%.400s\nand is\n%.400s",
                  (int)strcspn(before->text + heading, "\n"), before->text + heading, before->text + line,
                  after->text + line);
}

/* -- a full house ----------------------------------------------------------------------------- */

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob, *carol, *root;
        Grant grants[8];        /* of holders that live in this process */
        size_t n_grants;
        Child holder;           /* of the orphan, and of nothing else */
        uint64_t orphan;
        Grant bobs;             /* of /music/one, by ticket */
        char ticket[TEXT_BYTES];
        int bell;
} Scene;

static const char config[] =
        "session-grace = 60s\n"
        "[directory /conf]\nmode = 0777\nbytes = 1M\n"
        "[account 64103]\nregions = 100\n"
        "[keeper]\nrestarts = 0\n";

static const char first_policy[] = "[user 64101]\nbytes = 64M\n";
static const char second_policy[] =
        "[user 64101]\nbytes = 32M\n[group 64102]\npending = 7\n"
        "[directory /policy]\nowner = 64101\ngroup = 64102\nmode = 1770\nbytes = 8M\n";

static Grant *next_grant(Scene *scene) {
        REQUIRE(scene->n_grants < sizeof(scene->grants) / sizeof(*scene->grants));
        scene->grants[scene->n_grants] = (Grant)GRANT_NULL;
        return &scene->grants[scene->n_grants++];
}

static void create_with(Client *client, const char *path, uint64_t size, uint32_t mode, uint32_t flags,
                        uint32_t lifetime, uint64_t ttl_ns, Grant *grant) {
        client_expect_done(client,
                           call_create_with(client,
                                            REQUEST(Create, create, .path = BYTES(path), .size = size, .mode = mode,
                                                    .flags = flags, .lifetime = lifetime, .ttl_ns = ttl_ns,
                                                    .rights = grant ? READ_WRITE : NO_RIGHTS), grant));
}

static void shmdctl(Broker *broker, const char *a, const char *b, const char *c, const char *d) {
        char socket[128], *text;

        (void)snprintf(socket, sizeof(socket), "--socket=%s", broker->socket);
        REQUIRE(shmdctl_run(&text, a, socket, b, c, d, NULL) == 0, "%s %s: %s", a, b, text);
        free(text);
}

static void reload(Broker *broker) {
        char compiled[128], *text;

        (void)snprintf(compiled, sizeof(compiled), "%s/compiled", broker->dir);
        REQUIRE(shmd_run(&text, "--compile-policy", "--policy-root", broker->dir, "-o", compiled, NULL) == 0, "%s", text);
        free(text);
        shmdctl(broker, "reload", compiled, NULL, NULL);
}

static void make_directories(Scene *scene) {
        client_expect_done(scene->alice, call_mkdir(scene->alice, "/music", 01755));
        client_expect_done(scene->alice, call_mkdir(scene->alice, "/frozen", 0755));
        shmdctl(scene->broker, "acl", "--modify=u:64102:rwx,g:64103:r-x,d:u:64102:rw,d:g::r,d:o::-", "/music", NULL);
        client_expect_done(scene->bob, call_mkdir(scene->bob, "/music/deep", 0700));
}

static void freeze(Client *client, const char *path, int seal, uint32_t how, Grant *grant) {
        Shmd__Freeze freeze = SHMD__FREEZE__INIT;

        create_with(client, path, PAGE, 0644, FREEZABLE, 0, 0, grant);
        REQUIRE(fcntl(grant->fd, F_ADD_SEALS, seal) == 0);
        freeze.path = BYTES(path);
        freeze.how = how;
        client_expect_done(client, client_call(client, MESSAGE_FREEZE, &freeze.base));
}

static void issue(Scene *scene, Client *client, const char *path, uint32_t uses, bool keep) {
        client_expect_done(client, client_call(client, MESSAGE_TICKET,
                                               REQUEST(Ticket, ticket, .path = BYTES(path), .rights = READ_ONLY,
                                                       .uses = uses, .ttl_ns = HOUR)));
        if (keep)
                memcpy(scene->ticket, ((const Shmd__TicketReply *)client->reply)->ticket.data, TEXT_BYTES);
}

static uint32_t redeem(Scene *scene, Client *client, Grant *grant) {
        uint32_t error = client_call(client, MESSAGE_REDEEM,
                                     REQUEST(Redeem, redeem,
                                             .ticket = { .data = (uint8_t *)scene->ticket, .len = TEXT_BYTES }));

        if (!error)
                client_take_grant(client, (const Shmd__Granted *)client->reply, grant);
        return error;
}

static int bell_of(Client *client, const char *path) {
        Shmd__Bell bell = SHMD__BELL__INIT;

        bell.path = BYTES(path);
        bell.flags = SHMD__BELL_FLAGS__BELL_RING;
        client_expect_done(client, client_call(client, MESSAGE_BELL, &bell.base));
        return fdlist_take(&client->fds);
}

static int hold(void *fd) {
        child_close_fds_but(*(int *)fd);
        test_become(CAROL, CAROL);
        child_arrive(0);
        return 0;
}

/* A region without a name, which a process of another user holds. */
static void make_orphan(Scene *scene) {
        Grant grant = GRANT_NULL;

        create_with(scene->bob, "/orphan", 3 * PAGE, 0600, 0, 0, 0, &grant);
        REQUIRE(pwrite(grant.fd, "orphan", 6, 0) == 6);
        scene->orphan = grant.region;
        child_spawn(&scene->holder, hold, &grant.fd);
        grant_deinit(&grant);
        client_expect_done(scene->bob, call_unlink(scene->bob, "/orphan"));
}

static void make_regions(Scene *scene) {
        Grant *one = next_grant(scene);

        create_with(scene->alice, "/music/one", 5000, 0666, 0, 0, 0, one);
        REQUIRE(pwrite(one->fd, "content", 7, 100) == 7);
        client_expect_done(scene->alice, call_link(scene->alice, "/music/one", "/linked"));
        client_expect_done(scene->bob, call_open(scene->bob, "/music/one", READ_WRITE, next_grant(scene)));
        create_with(scene->bob, "/music/deep/brief", 0, 0600, 0, 0, HOUR, NULL);
        freeze(scene->alice, "/frozen/immutable", F_SEAL_WRITE, SHMD__FREEZE_HOW__FREEZE_IMMUTABLE, next_grant(scene));
        freeze(scene->alice, "/frozen/single", F_SEAL_FUTURE_WRITE, SHMD__FREEZE_HOW__FREEZE_SINGLE_WRITER,
               next_grant(scene));
        create_with(scene->carol, "/bell", PAGE, 0644, 0, 0, 0, NULL);
        scene->bell = bell_of(scene->carol, "/bell");
        create_with(scene->carol, "/counted", PAGE, 0600, 0, SHMD__LIFETIME__LIFETIME_COUNTED, 0, next_grant(scene));
        create_with(scene->bob, "/session", PAGE, 0600, 0, SHMD__LIFETIME__LIFETIME_SESSION, 0, NULL);
        create_with(scene->alice, "/policy/limited", PAGE, 0660, 0, 0, 0, NULL);
        create_with(scene->carol, "/conf/own", PAGE, 0640, 0, 0, 0, NULL);
        make_orphan(scene);
        issue(scene, scene->alice, "/music/one", 3, true);
        issue(scene, scene->alice, "/music/one", 1, false);
        client_expect_done(scene->carol, redeem(scene, scene->carol, &scene->bobs));
}

static void scene_begin(Scene *scene) {
        *scene = (Scene){ .holder = CHILD_NULL, .bobs = GRANT_NULL };
        scene->broker = spawn(config, first_policy);
        scene->alice = client_connect_as(scene->broker, ALICE, ALICE);
        scene->bob = client_connect_as(scene->broker, BOB, BOB);
        scene->carol = client_connect_as(scene->broker, CAROL, CAROL);
        scene->root = client_connect_as(scene->broker, 0, 0);
        /* What is in force is not what was there at the start, and not what the files say in the end. */
        broker_write_policy(scene->broker, "test.conf", second_policy);
        reload(scene->broker);
        broker_write_policy(scene->broker, "test.conf", "this is no policy\n");
        make_directories(scene);
        make_regions(scene);
        client_expect_used(scene->alice, SLOT_INFLIGHT, 0);
        client_expect_used(scene->bob, SLOT_INFLIGHT, 0);
        client_expect_used(scene->carol, SLOT_INFLIGHT, 0);
}

static void scene_resume(Scene *scene) {
        REQUIRE(client_resume(scene->alice, scene->broker, ALICE, ALICE));
        REQUIRE(client_resume(scene->bob, scene->broker, BOB, BOB));
        REQUIRE(client_resume(scene->carol, scene->broker, CAROL, CAROL));
        REQUIRE(client_resume(scene->root, scene->broker, 0, 0));
}

static void scene_end(Scene *scene) {
        for (size_t i = 0; i < scene->n_grants; ++i)
                grant_deinit(&scene->grants[i]);
        grant_deinit(&scene->bobs);
        close_fd(scene->bell);
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->carol = client_free(scene->carol);
        scene->root = client_free(scene->root);
        scene->broker = broker_stop(scene->broker);
}

static bool is_gone(void *userdata) {
        Scene *scene = userdata;
        char name[32];

        (void)snprintf(name, sizeof(name), "r%" PRIu64, scene->orphan);
        return !broker_keeps(scene->broker, name);
}

/* What is kept is what there is: the state, the policy in force, and each region, with its doorbell. */
static void expect_kept(Scene *scene, size_t regions) {
        char (*names)[32];
        size_t n = broker_kept_names(scene->broker, &names);

        free(names);
        REQUIRE(n == regions + 2, "%zu are kept", n);
        REQUIRE(broker_keeps(scene->broker, "policy-2") && !broker_keeps(scene->broker, "policy-1"));
}

static bool counted_is_gone(void *userdata) {
        Scene *scene = userdata;

        return call_stat(scene->root, "/counted") == SHMD__ERROR__ERROR_NOT_FOUND;
}

/* Life goes on from where it was: what was begun before the end ends as it would have. */
static void expect_life(Scene *scene) {
        Grant grant = GRANT_NULL;
        char text[8] = "";

        for (unsigned int i = 0; i < 2; ++i) {
                client_expect_done(scene->bob, redeem(scene, scene->bob, &grant));
                REQUIRE(pread(grant.fd, text, 7, 100) == 7 && !strcmp(text, "content"));
                grant_deinit(&grant);
        }
        client_expect_error(scene->bob, DENIED, TICKET, redeem(scene, scene->bob, &grant));
        client_expect_error(scene->alice, DENIED, FROZEN, call_open(scene->alice, "/frozen/immutable", READ_WRITE, &grant));
        client_expect_error(scene->carol, EXISTS, TAKEN, call_create(scene->carol, "/conf/own", PAGE, NULL));

        REQUIRE(!is_gone(scene), "a process holds it");
        child_kill(&scene->holder);
        REQUIRE(test_eventually(is_gone, scene), "the orphan goes with its holder");
        for (size_t i = 0; i < scene->n_grants; ++i)
                grant_deinit(&scene->grants[i]);
        REQUIRE(test_eventually(counted_is_gone, scene), "the counted region goes with its holder");
        client_expect_done(scene->alice, call_unlink(scene->alice, "/linked"));
        client_expect_done(scene->alice, call_unlink(scene->alice, "/music/one"));
        client_expect_done(scene->root, call_create(scene->root, "/new", PAGE, NULL));
}

TEST(recovery, everything_is_as_it_was_after_kill_and_kill_again) {
        CLEANUP(view_deinit) View before = { .text = NULL };
        Scene scene;

        scene_begin(&scene);
        before = view(scene.broker);
        for (unsigned int i = 0; i < 2; ++i) {
                CLEANUP(view_deinit) View after = { .text = NULL };

                broker_kill_and_wait_restart(scene.broker);
                scene_resume(&scene);
                after = view(scene.broker);
                expect_same(&after, &before);
        }
        REQUIRE(!broker_log_has(scene.broker, "event=dropped", NULL));
        expect_kept(&scene, 11);
        expect_life(&scene);
        scene_end(&scene);
}

/* H 94, 95: however it ends, and also when it is told to. */
TEST(recovery, attack_094_no_signal_takes_anything_away) {
        static const int signals[] = { SIGSEGV, SIGSYS, SIGTERM };
        CLEANUP(view_deinit) View before = { .text = NULL };
        Scene scene;

        scene_begin(&scene);
        before = view(scene.broker);
        for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); ++i) {
                CLEANUP(view_deinit) View after = { .text = NULL };

                broker_signal(scene.broker, signals[i]);
                broker_await_restart(scene.broker);
                scene_resume(&scene);
                after = view(scene.broker);
                expect_same(&after, &before);
        }
        REQUIRE(broker_log_count(scene.broker, "books=balanced") == 1, "it was told to stop once");
        expect_life(&scene);
        scene_end(&scene);
}

/* Return: whether the other client came back in time. */
static bool ends_without_its_client(void) {
        Broker *broker = spawn("session-grace = 500ms\n", NULL);
        Client *stays = client_connect_as(broker, ALICE, ALICE), *goes = client_connect_as(broker, BOB, BOB);
        int64_t end;
        bool resumed;

        create_with(stays, "/stays", PAGE, 0600, 0, SHMD__LIFETIME__LIFETIME_SESSION, 0, NULL);
        create_with(goes, "/goes", PAGE, 0600, 0, SHMD__LIFETIME__LIFETIME_SESSION, 0, NULL);
        broker_kill_and_wait_restart(broker);
        resumed = client_resume(stays, broker, ALICE, ALICE);
        end = test_now_ms() + TEST_PATIENCE_MS;
        while (call_stat(stays, "/goes") == 0) {
                REQUIRE(test_now_ms() < end, "it should have ended");
                test_sleep_ms(20);
        }
        if (resumed)
                client_expect_done(stays, call_stat(stays, "/stays"));
        client_free(goes), client_free(stays);
        broker = broker_stop(broker);
        return resumed;
}

/* A client that does not come back has ended, and its session regions with it. */
TEST(recovery, a_session_that_nobody_comes_back_to_ends_in_time) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;

        while (!ends_without_its_client())
                REQUIRE(test_now_ms() < end, "who comes back is always too late");
}

/* H 101. */
TEST(recovery, attack_101_a_second_broker_refuses) {
        Broker *broker = spawn(NULL, NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        char *text;

        client_expect_done(client, call_create(client, "/x", PAGE, NULL));
        REQUIRE(shmd_run(&text, "--socket", broker->socket, NULL) == 1);
        REQUIRE(strstr(text, "another broker"), "%s", text);
        free(text);
        REQUIRE(shmd_run(&text, "--no-keeper", "--socket", broker->socket, NULL) == 1);
        REQUIRE(strstr(text, "another broker"), "%s", text);
        free(text);
        client_expect_done(client, call_stat(client, "/x"));
        client_free(client);
        broker = broker_stop(broker);
}

/* H 99. */
TEST(recovery, attack_099_a_broker_that_hangs_is_replaced_and_nothing_is_lost) {
        Broker *broker = spawn(NULL, NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);

        client_expect_done(client, call_create(client, "/x", PAGE, NULL));
        /* From here on a broker may be taken for one that hangs because it does not come to run. */
        broker_reconfigure(broker, "[keeper]\nwatchdog = 1s\nrestarts = 0\n");
        REQUIRE(kill(broker->pid, SIGSTOP) == 0 || errno == ESRCH, "%s", strerror(errno));
        broker_await_restart(broker);
        broker_reconfigure(broker, NULL);
        REQUIRE(client_resume(client, broker, ALICE, ALICE));
        client_expect_done(client, call_stat(client, "/x"));
        client_free(client);
        broker = broker_stop(broker);
}

/* Who watched hears that events were lost, and of those that follow. */
TEST(recovery, who_watches_on_hears_that_it_missed_something) {
        Broker *broker = spawn(NULL, NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        Shmd__Watch watch = SHMD__WATCH__INIT;
        uint64_t since;

        watch.path = BYTES("/");
        watch.mask = SHMD__EVENT_MASK__EVENT_CREATED;
        client_expect_done(client, client_call(client, MESSAGE_WATCH, &watch.base));
        since = ((const Shmd__WatchReply *)client->reply)->sequence;
        broker_kill_and_wait_restart(broker);
        (void)client_resume(client, broker, ALICE, ALICE);
        watch.sequence = since;
        client_expect_done(client, client_call(client, MESSAGE_WATCH, &watch.base));
        REQUIRE(((const Shmd__WatchReply *)client->reply)->sequence > since);
        REQUIRE(client_receive(client, TEST_PATIENCE_MS) == CLIENT_EVENTS);
        REQUIRE(client->events->n_events == 1);
        REQUIRE(client->events->events[0]->event == SHMD__EVENT_MASK__EVENT_OVERFLOW);
        client_free(client);
        broker = broker_stop(broker);
}

/* -- what is kept is damaged ------------------------------------------------------------------- */

/* What a service manager passes to a broker that has no keeper. */
typedef struct Manager {
        char names[65536];
        int fds[1200];
        size_t n;
} Manager;

static Manager manager;

static void pass(const char *name, int fd) {
        size_t n = strlen(manager.names);

        REQUIRE(fd >= 0 && manager.n < sizeof(manager.fds) / sizeof(*manager.fds));
        (void)snprintf(manager.names + n, sizeof(manager.names) - n, "%s%s", n ? ":" : "", name);
        manager.fds[manager.n++] = fd;
}

static void take_back(void) {
        while (manager.n > 0)
                close_fd(manager.fds[--manager.n]);
        manager.names[0] = '\0';
}

/* In the child: descriptors from 3 on, as sd_listen_fds(3) has them. */
static void pass_all(void *userdata) {
        char number[32];

        for (size_t i = 0; i < manager.n; ++i) {
                int high = fcntl(manager.fds[i], F_DUPFD_CLOEXEC, 5000);

                REQUIRE(high >= 0);
                manager.fds[i] = high;
        }
        for (size_t i = 0; i < manager.n; ++i)
                REQUIRE(dup2(manager.fds[i], 3 + (int)i) >= 0);
        (void)snprintf(number, sizeof(number), "%zu", manager.n);
        (void)setenv("LISTEN_FDS", number, 1);
        (void)snprintf(number, sizeof(number), "%d", (int)getpid());
        (void)setenv("LISTEN_PID", number, 1);
        (void)setenv("LISTEN_FDNAMES", manager.names, 1);
        (void)setenv("FDSTORE", "5000", 1);
}

static Broker *spawn_with_passed(void) {
        return broker_spawn_with(&(BrokerOptions){ .prepare = pass_all });
}

static int memory_of(const void *bytes, size_t n, bool seal) {
        int fd = memfd_create("kept", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        REQUIRE(fd >= 0 && (n == 0 || write(fd, bytes, n) == (ssize_t)n));
        REQUIRE(fchown(fd, test_broker_uid(), test_broker_uid()) == 0 && fchmod(fd, 0600) == 0);
        if (seal)
                REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0);
        return fd;
}

static int read_words(void *fd) {
        char word[256];

        child_arrive(0);
        while (recv(*(int *)fd, word, sizeof(word), 0) > 0)
                continue;
        return 1;
}

/* It serves, as if nothing had been passed, once its manager listens to what it says of its store. */
static void expect_service(Broker *broker) {
        Client *client = client_connect_as(broker, ALICE, ALICE);
        Child listener = CHILD_NULL;

        child_spawn(&listener, read_words, &broker->notify_fd);
        child_continue(&listener);
        client_expect_done(client, call_create(client, "/x", PAGE, NULL));
        client_expect_done(client, call_mkdir(client, "/d", 0700));
        client_free(client);
        broker_expect_fds(broker, 40);
        child_kill(&listener);
}

TEST(recovery, attack_102_of_a_state_that_is_none_nothing_is_taken) {
        static uint8_t bytes[1 << 20];
        uint64_t random;

        test_needs_root();
        random = test_seed();
        for (size_t i = 0; i < sizeof(bytes); ++i)
                bytes[i] = (uint8_t)test_random(&random, 256);
        for (unsigned int i = 0; i < 4; ++i) {
                Broker *broker;

                pass("state", i == 3 ? open("/dev/zero", O_RDWR | O_CLOEXEC) :
                                       memory_of(bytes, (const size_t[]){ 0, 100, sizeof(bytes) }[i], false));
                if (i == 3)     /* what is not ours is left alone, so this one is named otherwise */
                        (void)snprintf(manager.names, sizeof(manager.names), "r1");
                pass("r7", memory_of(bytes, 4096, true));
                broker = spawn_with_passed();
                REQUIRE(broker_log_has(broker, "event=dropped", NULL));
                expect_service(broker);
                broker = broker_stop(broker);
                take_back();
        }
}

TEST(recovery, attack_102_a_thousand_descriptors_too_many_are_dropped) {
        static const uint8_t bytes[8192];
        Broker *broker;
        char name[16];

        test_needs_root();
        for (unsigned int i = 0; i < 1000; ++i) {
                (void)snprintf(name, sizeof(name), i % 7 ? "r%u" : "rubbish", 1 + i / 2);
                pass(name, i % 3 ? memory_of(bytes, 1 + i % 5 * 1000, i % 2) : open("/dev/null", O_RDONLY | O_CLOEXEC));
        }
        broker = spawn_with_passed();
        expect_service(broker);
        REQUIRE(broker_log_count(broker, "event=dropped") == 16, "of so many not each is said");
        REQUIRE(broker_log_has(broker, "event=recovered", "regions=", "dropped=1000", NULL));
        broker = broker_stop(broker);
        take_back();
}

/* A copy of the broker's state, as it is now. */
static int state_of(Broker *broker) {
        char path[320], target[64], block[4096];
        int source = -1, fd = memory_of(NULL, 0, false);
        ssize_t n;

        for (int i = 3; i < 64 && source < 0; ++i) {
                (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)broker->pid, i);
                n = readlink(path, target, sizeof(target) - 1);
                target[n > 0 ? n : 0] = '\0';
                if (strstr(target, "memfd:shmd-state"))
                        source = open(path, O_RDONLY | O_CLOEXEC);
        }
        if (source < 0)
                test_skip("looking at another process's descriptors needs CAP_SYS_PTRACE");
        while ((n = read(source, block, sizeof(block))) > 0)
                REQUIRE(write(fd, block, (size_t)n) == n);
        close_fd(source);
        return fd;
}

static int state_with_something(void) {
        Broker *broker = broker_spawn(NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        int fd;

        client_expect_done(client, call_mkdir(client, "/private", 0700));
        client_expect_done(client, call_create(client, "/private/x", PAGE, NULL));
        fd = state_of(broker);
        client_free(client);
        broker = broker_stop(broker);
        return fd;
}

TEST(recovery, records_without_their_descriptors_are_dropped_and_the_rest_is_there) {
        Broker *broker;
        Client *client;

        test_needs_root();
        pass("state", state_with_something());
        broker = spawn_with_passed();
        REQUIRE(broker_log_has(broker, "event=dropped", "what=region", "message=\"no descriptor of it was kept\"", NULL));
        client = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(client, call_stat(client, "/private"));
        client_expect_error(client, NOT_FOUND, MISSING, call_stat(client, "/private/x"));
        REQUIRE(client_used(client, SHMD__SLOT__SLOT_REGIONS) == 1);
        client_free(client);
        broker = broker_stop(broker);
        take_back();
}

/* Any bit of what is kept may be another one: the broker starts and serves, and nobody but Alice and the
 * administrator gets into her directory, if it is there. */
TEST(recovery, attack_102_no_bit_that_flips_gives_anybody_more) {
        uint64_t random;
        struct stat st;
        int original;

        test_needs_root();
        random = test_seed();
        original = state_with_something();
        REQUIRE(fstat(original, &st) == 0);
        for (uint64_t i = 0, n = test_rounds(24); i < n; ++i) {
                Client *bob;
                Broker *broker;
                uint8_t byte;
                off_t at;
                int fd = memory_of(NULL, 0, false);

                REQUIRE(ftruncate(fd, st.st_size) == 0);
                for (off_t from = 0; from < st.st_size; from += PAGE) {
                        uint8_t page[PAGE];

                        REQUIRE(pread(original, page, sizeof(page), from) == (ssize_t)sizeof(page));
                        REQUIRE(pwrite(fd, page, sizeof(page), from) == (ssize_t)sizeof(page));
                }
                /* But for the version: what is of a later one is left alone, and no broker comes up. */
                do
                        at = (off_t)test_random(&random, (uint64_t)(i % 2 ? st.st_size : 4096));
                while (at >= 12 && at < 16);
                REQUIRE(pread(fd, &byte, 1, at) == 1);
                byte ^= (uint8_t)(1U << test_random(&random, 8));
                REQUIRE(pwrite(fd, &byte, 1, at) == 1);
                pass("state", fd);
                broker = spawn_with_passed();
                bob = client_connect_as(broker, BOB, BOB);
                REQUIRE(call_stat(bob, "/private/x") != 0 && call_create(bob, "/private/y", PAGE, NULL) != 0);
                client_free(bob);
                broker = broker_stop(broker);
                take_back();
        }
        close_fd(original);
}


/* -- what is kept is not ours ------------------------------------------------------------------ */

static int be_the_daemon(const Broker *other) {
        char config_file[128], socket[128];

        pass_all(NULL);
        (void)snprintf(config_file, sizeof(config_file), "%s/shmd.conf", other->dir);
        (void)snprintf(socket, sizeof(socket), "%s/never", other->dir);
        (void)execl(test_program("shmd"), "shmd", "--no-keeper", "--config", config_file, "--policy-root", "/nonexistent",
                    "--socket", socket, NULL);
        return 127;
}

/* Return: the exit status of a broker to which that was passed; *ret is its log, to be freed. */
static int refused(Broker *other, char **ret) {
        char path[128], *text = NULL;
        size_t room = 0;
        FILE *log;
        pid_t pid;
        int status;

        (void)snprintf(path, sizeof(path), "%s/refused", other->dir);
        log = fopen(path, "w+e");
        REQUIRE(log);
        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                REQUIRE(dup2(fileno(log), 2) == 2);
                _exit(be_the_daemon(other));
        }
        status = test_wait_pid(pid);
        rewind(log);
        REQUIRE(getdelim(&text, &room, 0, log) > 0);
        (void)fclose(log);
        *ret = text;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* H 100. The memory is left alone: who keeps it can still start the program that wrote it. */
TEST(recovery, attack_100_a_state_of_a_later_version_is_refused_clearly_and_left_alone) {
        static const uint32_t later = 2;
        struct stat before, after;
        Broker *other;
        char *text;

        test_needs_root();
        other = broker_spawn(NULL);
        pass("state", state_with_something());
        pass("r1", memory_of("content", 7, true));
        REQUIRE(pwrite(manager.fds[0], &later, sizeof(later), STATE_VERSION_AT) == sizeof(later));
        REQUIRE(fstat(manager.fds[1], &before) == 0);
        REQUIRE(refused(other, &text) == 3, "%s", text);
        REQUIRE(strstr(text, "step=state") && strstr(text, "a later version of shmd"), "%s", text);
        free(text);
        REQUIRE(fstat(manager.fds[1], &after) == 0 && after.st_blocks == before.st_blocks);

        REQUIRE(fchown(manager.fds[0], BOB, BOB) == 0);
        REQUIRE(refused(other, &text) == 3, "%s", text);
        REQUIRE(strstr(text, "belongs to a broker of uid 64102"), "%s", text);
        free(text);
        take_back();
        other = broker_stop(other);
}

/* -- how long it takes ------------------------------------------------------------------------- */

static uint64_t number_after(const char *line, const char *key) {
        const char *at = strstr(line, key);

        return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* What the last broker said of its recovery, in microseconds. */
static uint64_t recovered_us(Broker *broker) {
        uint64_t us = 0;
        char *line = NULL;
        size_t room = 0;
        FILE *log = fopen(broker->log, "re");

        REQUIRE(log);
        while (getline(&line, &room, log) > 0)
                if (strstr(line, "event=recovered"))
                        us = number_after(line, " us=");
        free(line);
        (void)fclose(log);
        return us;
}

#define AT_ONCE 50

static void fill(Client *client, const char *directory, unsigned int n) {
        Shmd__BatchItem items[AT_ONCE], *pointers[AT_ONCE];
        Shmd__Create creates[AT_ONCE];
        char paths[AT_ONCE][64];

        client_expect_done(client, call_mkdir(client, directory, 0700));
        for (unsigned int made = 0; made < n; made += AT_ONCE) {
                Shmd__Batch batch = SHMD__BATCH__INIT;

                batch.items = pointers;
                for (unsigned int i = 0; i < AT_ONCE && made + i < n; ++i) {
                        (void)snprintf(paths[i], sizeof(paths[i]), "%s/%u", directory, made + i);
                        creates[i] = (Shmd__Create)SHMD__CREATE__INIT;
                        creates[i].path = BYTES(paths[i]);
                        creates[i].size = PAGE;
                        creates[i].mode = 0600;
                        items[i] = (Shmd__BatchItem)SHMD__BATCH_ITEM__INIT;
                        items[i].create = &creates[i];
                        pointers[i] = &items[i];
                        ++batch.n_items;
                }
                client_expect_done(client, client_call(client, MESSAGE_BATCH, &batch.base));
        }
}

/* The more users there are the less of what is left is a fair share: the first gets half of all. */
static void fill_to(Broker *broker, unsigned int from, unsigned int to) {
        static const struct {
                unsigned int to;
                uid_t uid;
        } parts[] = { { 9400, ALICE }, { 12500, BOB }, { 14100, CAROL }, { 15000, CAROL + 1 } };
        char path[32];

        for (size_t i = 0; from < to; ++i) {
                unsigned int end = parts[i].to < to ? parts[i].to : to;
                Client *client;

                if (from >= end)
                        continue;
                client = client_connect_as(broker, parts[i].uid, parts[i].uid);
                (void)snprintf(path, sizeof(path), "/d%u", from);
                fill(client, path, end - from);
                client_free(client);
                from = end;
        }
}

TEST(recovery, thousands_of_regions_are_there_in_no_time) {
        static const unsigned int counts[] = { 10, 1000, 5000, 15000 };
        Broker *broker = spawn("[global]\nregions = 19000\npeers = 200\ninflight = 600\n"
                               "[account]\nregions = 19000\n[keeper]\nrestarts = 0\n", NULL);
        Client *client = client_connect_as(broker, ALICE, ALICE);
        unsigned int n = 0;

        for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); ++i) {
                int64_t began;
                double ms;

                fill_to(broker, n, counts[i]);
                n = counts[i];
                began = test_now_ns();
                broker_signal(broker, SIGKILL);
                REQUIRE(client_resume(client, broker, ALICE, ALICE));
                client_expect_done(client, call_ping(client));
                ms = (double)(test_now_ns() - began) / 1e6;
                broker_await_restart(broker);
                printf("%u regions: %.1f ms until the first answer, %.1f ms of them for the recovery\n", n, ms,
                       (double)recovered_us(broker) / 1e3);
                REQUIRE(client_total_used(client, SHMD__SLOT__SLOT_REGIONS) >= n);
        }
        client_free(client);
        {
                int64_t began = test_now_ns();

                broker_signal(broker, SIGTERM);
                broker_await_restart(broker);
                printf("%u regions: %.1f ms from the word to stop until the next broker is ready\n", n,
                       (double)(test_now_ns() - began) / 1e6);
        }
        broker = broker_stop(broker);
}
