/* The broker is killed at every system call that it makes while it serves each kind of request, and its
 * successor has everything that was acknowledged, and of what was not all or nothing.
 *
 * Every kind (killpoints-kinds.c) begins with the same tree: regions with and without holders, an ACL, a
 * ticket, a name that will expire, directories. What is right is recorded once, without a kill: a picture
 * (lib/picture.h) before the request and one after it, and the answer. Then, for each place at which the
 * broker stood meanwhile, at the beginning or the end of a system call, the same is done again, and there
 * it gets SIGKILL. What is required of its successor, as every client sees it:
 *
 *   - each client gets its session back
 *   - the tree is at once as it was before or as it was after, and if the answer had left, as after
 *   - all else becomes so by itself: what is charged, who holds what, regions without names, tickets
 *   - the request, sent again with its serial, is answered as it was the first time, and the tree is as
 *     after it; also if the first answer had left, as if it had been lost on its way
 *   - the books say what the kernel says, and the broker and its keeper have each region open once, and
 *     the keeper nothing else that it did not have before
 *
 * The successor may be killed as well, at every call until it serves: the one that follows has everything.
 *
 * And the same for places between two calls, some instructions behind the end of one: there the broker
 * changes what it saves, store by store. The seed repeats which.
 *
 * So also the next picture of that kind can be compared with the first: nothing stays behind.
 */

#define TEST_TIMEOUT 1200

#include "killpoints.h"
#include "lib/tracer.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
        POINTS = 1000,                  /* in all, about */
        STOPS_MAX = 4096,
        WORKERS_MAX = 4,
        KIND_POINTS_MIN = 5,
        IDLE_MS = 3,
        STALLED_MS = 2000,
        TTL_MS = 120,
        STEPS_BITS = 13,
        HOUR_S = 3600,
};

/* A place at which the broker stood. */
typedef struct Stop {
        long call;
        unsigned int occurrence;        /* of that call since the request, from 1 */
        bool entered;
} Stop;

/* What happens without a kill. */
typedef struct Reference {
        Picture before, after;
        char *answer;
        long first_call;                /* in which it waits for the request */
        Stop stops[STOPS_MAX];
        size_t n_stops;
} Reference;

/* What became of a kind; in memory that the workers share with the test. */
typedef struct Tally {
        unsigned int n_points, n_triples;
        unsigned int n_between;         /* of these points: in the broker's own code */
        unsigned int acknowledged, done, absent;
        int64_t restart_ns;             /* of all of them */
        int64_t took_ms;
        char calls[400];
} Tally;

typedef struct Shared {
        atomic_size_t next;             /* the kind that nobody has begun */
        uint64_t points_max;            /* of a kind */
        uint64_t seed;
        Tally tallies[];
} Shared;

/* -- the scene --------------------------------------------------------------------------------- */

void scene_ask(Scene *scene, Client *asker, MessageKind kind, const ProtobufCMessage *request) {
        int r;

        scene->asker = asker;
        scene->kind = kind;
        scene->serial = ++asker->serial;
        scene->n_packet = client_pack(scene->packet, sizeof(scene->packet), (uint16_t)kind, scene->serial, request);
        r = client_send_raw(asker, scene->packet, scene->n_packet);
        REQUIRE(r == 0, "send: %s", strerror(-r));
}

static void make_ticket(Scene *scene) {
        const Shmd__TicketReply *reply;

        client_expect_done(scene->alice, client_call(scene->alice, MESSAGE_TICKET,
                                                     REQUEST(Ticket, ticket, .path = BYTES("/k/r"), .rights = READ_ONLY,
                                                             .uses = 3, .ttl_ns = HOUR_S * UINT64_C(1000000000))));
        reply = (const Shmd__TicketReply *)scene->alice->reply;
        REQUIRE(reply->ticket.len < sizeof(scene->ticket));
        memset(scene->ticket, 0, sizeof(scene->ticket));
        memcpy(scene->ticket, reply->ticket.data, reply->ticket.len);
        scene->ticket_id = reply->id;
}

static void make_acl(Scene *scene) {
        Shmd__AclEntry entries[] = {
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__acl_entry__descriptor), .tag = 1, .perms = 6 },
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__acl_entry__descriptor), .tag = 2, .id = BOB, .perms = 4 },
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__acl_entry__descriptor), .tag = 3, .perms = 0 },
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__acl_entry__descriptor), .tag = 5, .perms = 4 },
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__acl_entry__descriptor), .tag = 6, .perms = 0 },
        };
        Shmd__AclEntry *list[] = { &entries[0], &entries[1], &entries[2], &entries[3], &entries[4] };

        client_expect_done(scene->alice, client_call(scene->alice, MESSAGE_SET_ACL,
                                                     REQUEST(SetAcl, set_acl, .path = BYTES("/k/s"),
                                                             .flags = SHMD__ACL_FLAGS__ACL_ACCESS, .n_access = 5,
                                                             .access = list)));
}

static void scene_prepare(Scene *scene, const Kind *kind) {
        Client *alice = scene->alice;

        album_deinit(&scene->album);
        client_expect_done(alice, call_mkdir(alice, "/k", 0777));
        client_expect_done(alice, call_create_mode(alice, "/k/r", PAGE, 0666, &scene->alices));
        client_expect_done(alice, call_create_mode(alice, "/k/s", 2 * PAGE, 0600, NULL));
        client_expect_done(alice, call_create_with(alice, REQUEST(Create, create, .path = BYTES("/k/t"), .size = 10,
                                                                  .mode = 0600,
                                                                  .ttl_ns = HOUR_S * UINT64_C(1000000000)),
                                                   NULL));
        client_expect_done(alice, call_mkdir(alice, "/k/d", 0755));
        client_expect_done(alice, call_create_mode(alice, "/k/d/x", PAGE, 0640, NULL));
        client_expect_done(alice, call_mkdir(alice, "/k/e", 0700));
        make_acl(scene);
        make_ticket(scene);
        client_expect_done(scene->bob, call_open(scene->bob, "/k/s", READ_ONLY, &scene->bobs));
        if (kind->prepare)
                kind->prepare(scene);
}

static void let_go_of_answers(Scene *scene) {
        while (scene->n_held)
                close_fd(scene->held[--scene->n_held]);
}

/* Takes the last node of the tree away. Return: whether there was one. */
static bool take_one_away(Client *admin) {
        const Shmd__ListReply *reply;
        const Shmd__Node *node;
        char path[1024];
        uint32_t error;

        client_expect_done(admin, call_list(admin, "/", SHMD__LIST_FLAGS__LIST_RECURSIVE));
        reply = (const Shmd__ListReply *)admin->reply;
        if (reply->n_nodes == 0)
                return false;
        node = reply->nodes[reply->n_nodes - 1];
        (void)snprintf(path, sizeof(path), "%.*s", (int)node->path.len, (const char *)node->path.data);
        error = node->kind == SHMD__NODE_KIND__NODE_DIRECTORY ? call_rmdir(admin, path) : call_unlink(admin, path);
        /* Some go by themselves. */
        if (error != SHMD__ERROR__ERROR_NOT_FOUND)
                client_expect_done(admin, error);
        return true;
}

static bool is_empty(void *userdata) {
        Scene *scene = userdata;

        return client_total_used(scene->admin, SHMD__SLOT__SLOT_REGIONS) == 0;
}

static void scene_clear(Scene *scene, const Kind *kind) {
        if (kind->undo)
                kind->undo(scene);
        let_go_of_answers(scene);
        grant_deinit(&scene->alices);
        grant_deinit(&scene->bobs);
        if (scene->more.fd > 0)
                grant_deinit(&scene->more);
        scene->more = (Grant)GRANT_NULL;
        if (scene->asker == scene->carol)
                scene->asker = NULL;
        scene->carol = client_free(scene->carol);
        while (take_one_away(scene->admin))
                continue;
        REQUIRE(test_eventually(is_empty, scene), "%s: %" PRIu64 " regions stay behind", kind->name,
                client_total_used(scene->admin, SHMD__SLOT__SLOT_REGIONS));
}

static void ignore_event(Client *client, const Shmd__Event *event, void *userdata) {
        (void)client;
        (void)event;
        (void)userdata;
}

static void scene_begin(Scene *scene, const char *grace) {
        char config[96];

        (void)snprintf(config, sizeof(config), "session-grace = %s\n[keeper]\nrestarts = 0\n", grace ? grace : "10s");
        *scene = (Scene){ .alices = GRANT_NULL, .bobs = GRANT_NULL, .more = GRANT_NULL, .ttl_ms = TTL_MS };
        scene->broker = broker_spawn_with(&(BrokerOptions){ .keeper = true, .config = config });
        scene->alice = client_connect_as(scene->broker, ALICE, ALICE);
        scene->bob = client_connect_as(scene->broker, BOB, BOB);
        scene->admin = client_connect_as(scene->broker, 0, 0);
        scene->keeper_fds = broker_keeper_fds(scene->broker);
        scene->alice->on_event = scene->bob->on_event = ignore_event;
}

static void scene_end(Scene *scene) {
        album_deinit(&scene->album);
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->admin = client_free(scene->admin);
        scene->broker = broker_stop(scene->broker);
}

/* -- from one place to the next --------------------------------------------------------------- */

static bool waits(const Tracer *tracer) {
        const char *name = tracer_call_name(tracer->call);

        return tracer->entered && strncmp(name, "epoll_", 6) == 0 && strcmp(name, "epoll_ctl") != 0;
}

/* Has the broker wait for events, and then asks; or has its successor begin. */
static void ask(Scene *scene, Tracer *tracer, const Kind *kind) {
        if (kind->restart) {
                tracer_expect_child(scene->broker->keeper);
                kind->ask(scene);
                tracer_seize_child(tracer, scene->broker->keeper);
                tracer_go(tracer);
                return;
        }
        tracer_seize(tracer, scene->broker->pid);
        do {
                tracer_go(tracer);
                REQUIRE(tracer_arrive(tracer), "the broker ended");
        } while (!waits(tracer));
        tracer_go(tracer);
        kind->ask(scene);
}

static bool is_answered(const Scene *scene, const Kind *kind) {
        struct pollfd p = { .fd = scene->asker ? scene->asker->fd : -1, .events = POLLIN };

        return kind->by_itself || poll(&p, 1, 0) == 1;
}

static void reference_note(Reference *reference, const Tracer *tracer) {
        Stop stop = { .call = tracer->call, .entered = tracer->entered, .occurrence = tracer->entered };

        stop.occurrence += tracer->call == reference->first_call;

        REQUIRE(reference->n_stops < STOPS_MAX);
        for (size_t i = 0; i < reference->n_stops; ++i)
                if (reference->stops[i].call == stop.call && reference->stops[i].entered)
                        ++stop.occurrence;
        reference->stops[reference->n_stops++] = stop;
}

/* How long it may take until the broker stands at another place. Only one that has nothing to do any more may be
 * late: it waits for events, has answered, and does not end. */
static int patience(const Scene *scene, const Tracer *tracer, const Kind *kind, int idle) {
        if (!waits(tracer) || !is_answered(scene, kind) || kind->replaces)
                return TEST_PATIENCE_MS;
        return kind->expires ? idle + scene->ttl_ms : idle;
}

/* Follows the broker until it has answered and is idle. */
static void follow(Scene *scene, Tracer *tracer, const Kind *kind, Reference *reference) {
        int idle = kind->linger_ms ? kind->linger_ms : IDLE_MS, ms = TEST_PATIENCE_MS;

        reference->first_call = tracer->call;
        for (;;) {
                if (!tracer_arrive_within(tracer, ms)) {
                        REQUIRE((tracer->pid || kind->replaces) && is_answered(scene, kind), "%s: no answer", kind->name);
                        return;
                }
                reference_note(reference, tracer);
                ms = patience(scene, tracer, kind, idle);
                tracer_go(tracer);
        }
}

/* Lets the broker go on to a place. Return: whether it came there. */
static bool go_to(const Scene *scene, Tracer *tracer, const Kind *kind, size_t place) {
        for (size_t i = 0;; ++i) {
                if (!tracer_arrive_within(tracer, patience(scene, tracer, kind, STALLED_MS)))
                        return false;
                if (i == place)
                        return true;
                tracer_go(tracer);
        }
}

/* -- answers ----------------------------------------------------------------------------------- */

/* Keeps the descriptors of an answer, as a client does. */
static void hold_answer(Scene *scene, Client *client) {
        int fd;

        while ((fd = fdlist_take(&client->fds)) >= 0) {
                REQUIRE(scene->n_held < sizeof(scene->held) / sizeof(*scene->held));
                scene->held[scene->n_held++] = fd;
        }
}

/* Receives an answer. Return: it as text, to be freed; NULL if none comes. */
static char *take_answer(Scene *scene, int timeout_ms) {
        Client *client = scene->asker;
        int r;

        do
                r = client_receive(client, timeout_ms);
        while (r == CLIENT_EVENTS);
        if (r == CLIENT_CLOSED || r == CLIENT_SILENT)
                return NULL;
        REQUIRE(client->header.serial == scene->serial, "an answer to serial %" PRIu64, client->header.serial);
        hold_answer(scene, client);
        return picture_answer(&scene->album,
                              r == CLIENT_REFUSED ? &client->refusal->base : client->reply);
}

static void expect_answer(const Kind *kind, const Reference *reference, const char *answer, const char *when) {
        REQUIRE(answer, "%s: no answer %s", kind->name, when);
        REQUIRE(kind->vague || strcmp(answer, reference->answer) == 0, "%s: the answer %s is\n%s\nand not\n%s", kind->name,
                when, answer, reference->answer);
}

/* -- without a kill ------------------------------------------------------------------------------ */

/* Takes a picture that stays the same. */
static void take_settled(Scene *scene, Picture *picture) {
        Picture last = PICTURE_NULL;
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;

        picture_take(picture, &scene->album, scene->admin);
        do {
                REQUIRE(test_now_ms() < end, "pictures differ:\n%s", picture_differs(last.rest, picture->rest));
                picture_copy(&last, picture);
                test_sleep_ms(10);
                picture_take(picture, &scene->album, scene->admin);
        } while (!picture_equals(&last, picture));
        picture_deinit(&last);
}

/* The process that the keeper has, if it has one and no more. */
static pid_t only_child(pid_t keeper) {
        char path[64];
        int pid = 0, other = 0, n;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)keeper, (int)keeper);
        file = fopen(path, "re");
        REQUIRE(file, "%s: %s", path, strerror(errno));
        n = fscanf(file, "%d %d", &pid, &other);
        (void)fclose(file);
        return n == 1 ? pid : 0;
}

/* Whether the keeper waits for something to happen, and is not in the middle of what did. */
static bool is_at_rest(pid_t keeper) {
        char path[64], text[32] = "";
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/syscall", (int)keeper);
        file = fopen(path, "re");
        REQUIRE(file, "%s: %s", path, strerror(errno));
        (void)!fgets(text, sizeof(text), file);
        (void)fclose(file);
        return strtol(text, NULL, 10) == SYS_ppoll;
}

/* Whether the log has a broker as ready, and no upgrade since it was started, which would be its end. */
static bool is_to_stay(const Broker *broker, pid_t pid) {
        char started[64], ready[64], line[1024];
        FILE *log = fopen(broker->log, "re");
        bool stays = false, ends = false;

        REQUIRE(log, "%s: %s", broker->log, strerror(errno));
        (void)snprintf(started, sizeof(started), "event=broker-started pid=%d ", (int)pid);
        (void)snprintf(ready, sizeof(ready), "event=broker-ready pid=%d ", (int)pid);
        while (fgets(line, sizeof(line), log)) {
                if (strstr(line, started))
                        stays = ends = false;
                stays = stays || strstr(line, ready);
                ends = ends || strstr(line, "event=upgrade ");
        }
        (void)fclose(log);
        return stays && !ends;
}

/* Before the keeper gives the number of a broker back that ended, it has begun what that broker asked for: then
 * the new program is checked by another child, or it has been, and the log says so. */
static bool is_calm(void *userdata) {
        const Scene *scene = userdata;
        pid_t pid = only_child(scene->broker->keeper);

        return pid != 0 && pid != scene->broker->pid && is_at_rest(scene->broker->keeper) &&
               is_to_stay(scene->broker, pid);
}

static void resume(Scene *scene, const Kind *kind) {
        Client *clients[] = { scene->alice, scene->bob, scene->admin };
        const uid_t uids[] = { ALICE, BOB, 0 };

        if (kind->replaces)
                REQUIRE(test_eventually(is_calm, scene), "%s: no broker stays", kind->name);
        for (size_t i = 0; i < 3; ++i)
                REQUIRE(client_resume(clients[i], scene->broker, uids[i], uids[i]) || kind->grace, "%s: the session of uid %u is lost",
                        kind->name, uids[i]);
        /* It answers, so it is there; what the log says of those that are ready comes later. */
        scene->broker->pid = only_child(scene->broker->keeper);
        REQUIRE(scene->broker->pid > 0, "%s: the keeper has not one child", kind->name);
}

/* Whether something may have expired that should be there. */
static bool is_late(const Scene *scene) {
        return scene->expires_ms != 0 && test_now_ms() >= scene->expires_ms;
}

/* Return: whether all is there, and the request is on its way; if not, everything is as before, and the next time
 * has more time. */
static bool has_begun(Scene *scene, Tracer *tracer, const Kind *kind) {
        bool late;

        ask(scene, tracer, kind);
        late = is_late(scene);
        scene->expires_ms = 0;
        if (!late)
                return true;
        tracer_release(tracer);
        scene_clear(scene, kind);
        scene->ttl_ms *= 2;
        return false;
}

typedef struct Change {
        Scene *scene;
        Reference *reference;
} Change;

static bool is_changed(void *userdata) {
        Change *change = userdata;

        picture_take(&change->reference->after, &change->scene->album, change->scene->admin);
        return !picture_equals(&change->reference->before, &change->reference->after);
}

static void reference_take(Scene *scene, const Kind *kind, Reference *reference) {
        Tracer tracer = TRACER_NULL;

        *reference = (Reference){ .n_stops = 0 };
        do {
                scene_prepare(scene, kind);
                take_settled(scene, &reference->before);
        } while (!has_begun(scene, &tracer, kind));
        follow(scene, &tracer, kind, reference);
        if (tracer.pid)
                tracer_release(&tracer);
        if (kind->restart || kind->replaces)
                resume(scene, kind);
        if (!kind->by_itself) {
                reference->answer = take_answer(scene, TEST_PATIENCE_MS);
                expect_answer(kind, reference, reference->answer, "without a kill");
                REQUIRE(!scene->asker->refusal, "%s: %s", kind->name, client_describe(scene->asker));
        }
        /* A broker that had to wait for its turn may not have done yet what nobody asked for. */
        if (kind->changes)
                (void)test_eventually(is_changed, &(Change){ scene, reference });
        take_settled(scene, &reference->after);
        REQUIRE(picture_equals(&reference->before, &reference->after) != kind->changes, "%s: %s", kind->name,
                kind->changes ? "no picture shows what it did" :
                                picture_differs(reference->before.rest, reference->after.rest));
        scene_clear(scene, kind);
}

static void reference_deinit(Reference *reference) {
        picture_deinit(&reference->before);
        picture_deinit(&reference->after);
        free(reference->answer);
}

/* -- with one ------------------------------------------------------------------------------------ */

/* What a picture is waited to become, unless it comes too late. */
typedef struct Wanted {
        Scene *scene;
        const Picture *one, *other;     /* other: NULL, or also right */
        const char *holders;
        Picture last;
} Wanted;

static bool is_wanted(void *userdata) {
        Wanted *wanted = userdata;
        const Picture *last = &wanted->last, *one = wanted->one, *other = wanted->other;

        picture_take(&wanted->last, &wanted->scene->album, wanted->scene->admin);
        if (is_late(wanted->scene))
                return true;
        if (strcmp(last->holders, wanted->holders))
                return false;
        return (strcmp(last->names, one->names) == 0 && strcmp(last->rest, one->rest) == 0) ||
               (other && strcmp(last->names, other->names) == 0 && strcmp(last->rest, other->rest) == 0);
}

static void expect_picture(Scene *scene, const Kind *kind, const Picture *one, const Picture *other,
                           const char *holders, const char *when) {
        Wanted wanted = { scene, one, other, holders, PICTURE_NULL };

        if (!test_eventually(is_wanted, &wanted)) {
                fprintf(stderr, "%s, %s:\n%s", kind->name, when, picture_differs(one->names, wanted.last.names));
                fprintf(stderr, "%s", picture_differs(one->rest, wanted.last.rest));
                fprintf(stderr, "%s", picture_differs(holders, wanted.last.holders));
                test_fail(__FILE__, __LINE__, "the picture is right", " %s, %s", kind->name, when);
        }
        picture_deinit(&wanted.last);
}

static void expect_same(Scene *scene, const Kind *kind, const Picture *picture, const char *when) {
        expect_picture(scene, kind, picture, NULL, picture->holders, when);
}

/* The tree is whole at once; what follows from it, soon. What was given, and not taken by whom it was for,
 * nobody has. Return: whether the request has had its effect. */
static bool expect_whole(Scene *scene, const Kind *kind, const Reference *reference, bool acknowledged) {
        Picture now = PICTURE_NULL;
        bool before, after;

        /* What ends by itself may end name by name. */
        if (kind->by_itself) {
                expect_same(scene, kind, &reference->after, "after the restart");
                return true;
        }
        picture_take(&now, &scene->album, scene->admin);
        before = strcmp(now.names, reference->before.names) == 0;
        after = strcmp(now.names, reference->after.names) == 0;
        REQUIRE(after || before, "%s: the tree is neither as before nor as after:\n%s", kind->name,
                picture_differs(reference->after.names, now.names));
        REQUIRE(after || !acknowledged, "%s: was answered, and is not there:\n%s", kind->name,
                picture_differs(reference->after.names, now.names));
        picture_deinit(&now);

        if (acknowledged)
                expect_same(scene, kind, &reference->after, "after the restart");
        else if (after && !before)
                expect_picture(scene, kind, &reference->after, NULL, reference->before.holders, "after the restart");
        else
                expect_picture(scene, kind, &reference->before, after ? &reference->after : NULL,
                               reference->before.holders, "after the restart");
        return after && !before;
}

static bool knows_no_more(void *userdata) {
        Scene *scene = userdata;

        for (size_t i = scene->n_known; i < scene->album.n; ++i) {
                uint64_t region = scene->album.regions[i].id;

                if (client_call(scene->admin, MESSAGE_STAT, REQUEST(Stat, stat, .region = region)) !=
                    SHMD__ERROR__ERROR_NOT_FOUND)
                        return false;
        }
        return true;
}

/* What is made anew is called as what it stands for, which has to be gone first. */
static void await_its_end(Scene *scene, const Kind *kind) {
        REQUIRE(test_eventually(knows_no_more, scene), "%s: it does not go", kind->name);
        if (scene->n_known < scene->album.n)
                scene->album.n = scene->n_known;
}

/* Says it again, as a client does that got no answer. */
static void ask_again(Scene *scene, const Kind *kind, const Reference *reference) {
        CLEANUP(freep) char *answer = NULL;

        let_go_of_answers(scene);
        if (kind->goes)
                await_its_end(scene, kind);
        if (scene->asker == scene->carol) {
                kind->ask(scene);
        } else {
                int r = client_send_raw(scene->asker, scene->packet, scene->n_packet);

                REQUIRE(r == 0, "send: %s", strerror(-r));
        }
        answer = take_answer(scene, TEST_PATIENCE_MS);
        expect_answer(kind, reference, answer, "to the second try");
}

static bool keeps_no_more(void *userdata) {
        Scene *scene = userdata;

        /* A keeper that took over may have fewer than the first one. */
        return broker_keeper_fds(scene->broker) <=
               scene->keeper_fds + books_expect(scene->admin, scene->broker->pid, scene->broker->keeper);
}

static void check_successor(Scene *scene, const Kind *kind, const Reference *reference, const char *answer,
                            size_t place, Tally *tally) {
        bool done;

        if (answer)
                expect_answer(kind, reference, answer, "before the kill");
        done = expect_whole(scene, kind, reference, answer);
        ++*(answer ? &tally->acknowledged : done ? &tally->done : &tally->absent);
        if (!kind->by_itself && (!answer || place % 2)) {
                ask_again(scene, kind, reference);
                expect_same(scene, kind, &reference->after, "after the second try");
        }
        REQUIRE(test_eventually(keeps_no_more, scene), "%s: the keeper has %zu descriptors", kind->name,
                broker_keeper_fds(scene->broker));
}

/* It has done the request with fewer calls than the first time: a timer was set already, say. */
static void pass_by(Scene *scene, Tracer *tracer, const Kind *kind) {
        if (tracer->pid)
                tracer_release(tracer);
        if (kind->restart || kind->replaces)
                resume(scene, kind);
        if (!kind->by_itself)
                free(take_answer(scene, TEST_PATIENCE_MS));
        scene_clear(scene, kind);
}

/* Return: whether the broker came to the place. */
static bool kill_at(Scene *scene, const Kind *kind, const Reference *reference, size_t place, unsigned int steps,
                    Tally *tally) {
        CLEANUP(freep) char *answer = NULL;
        Tracer tracer = TRACER_NULL;
        int64_t killed;

        do {
                scene_prepare(scene, kind);
                expect_same(scene, kind, &reference->before, "before the request");
                scene->n_known = scene->album.n;
        } while (!has_begun(scene, &tracer, kind));
        if (!go_to(scene, &tracer, kind, place)) {
                pass_by(scene, &tracer, kind);
                return false;
        }
        tracer_step(&tracer, steps);
        tracer_kill(&tracer);
        killed = test_now_ns();
        if (!kind->by_itself)
                answer = take_answer(scene, 0);
        resume(scene, kind);
        tally->restart_ns += test_now_ns() - killed;
        check_successor(scene, kind, reference, answer, place, tally);
        scene_clear(scene, kind);
        return true;
}

/* -- a kind -------------------------------------------------------------------------------------- */

static void describe_calls(const Reference *reference, const bool *killed, Tally *tally) {
        FILE *out = fmemopen(tally->calls, sizeof(tally->calls) - 1, "w");

        REQUIRE(out);
        for (size_t i = 0; i < reference->n_stops; ++i) {
                const Stop *stop = &reference->stops[i];
                bool first = true, last = true;

                for (size_t k = 0; k < reference->n_stops; ++k) {
                        const Stop *other = &reference->stops[k];

                        if (other->call != stop->call || !killed[k])
                                continue;
                        if (k < i && other->occurrence == stop->occurrence)
                                first = false;
                        if (other->occurrence > stop->occurrence)
                                last = false;
                }
                tally->n_triples += first && killed[i];
                if (first && last && killed[i])
                        fprintf(out, " %s %u", tracer_call_name(stop->call),
                                stop->occurrence);
        }
        (void)fclose(out);
}

static void run_kind(Scene *scene, const Kind *kind, uint64_t points_max, uint64_t random, Tally *tally) {
        Reference *reference = malloc(sizeof(*reference));
        bool *killed = calloc(STOPS_MAX, sizeof(*killed));
        int64_t began = test_now_ms();
        size_t n;

        REQUIRE(reference && killed);
        reference_take(scene, kind, reference);
        /* Every place once, or as many as there shall be; then the code behind those at which a call is over. */
        n = reference->n_stops < points_max ? reference->n_stops : points_max;
        for (size_t i = 0; i < points_max; ++i) {
                size_t place = i < n ? i * reference->n_stops / n : test_random(&random, reference->n_stops);
                unsigned int steps = 0;

                if (i >= n && !reference->stops[place].entered)
                        steps = 1 + (unsigned int)test_random(&random, UINT64_C(1) << test_random(&random, STEPS_BITS));
                if (!kill_at(scene, kind, reference, place, steps, tally))
                        continue;
                killed[place] = true;
                ++tally->n_points;
                tally->n_between += steps != 0;
        }
        describe_calls(reference, killed, tally);
        tally->took_ms = test_now_ms() - began;
        reference_deinit(reference);
        free(reference);
        free(killed);
}

/* For a look at one thing: SHMD_TEST_KIND is a part of its name. */
static bool is_chosen(const Kind *kind) {
        const char *name = getenv("SHMD_TEST_KIND");

        return !name || strstr(kind->name, name);
}

static int work(void *userdata) {
        Shared *shared = userdata;
        Scene scene;
        size_t i;

        scene_begin(&scene, NULL);
        while ((i = atomic_fetch_add(&shared->next, 1)) < n_kinds) {
                const Kind *kind = &kinds[i];
                uint64_t points_max = shared->points_max * (kind->weight ? kind->weight : 1);
                bool alone = kind->grace || kind->replaces;
                Scene own;

                if (!is_chosen(kind))
                        continue;
                if (alone)
                        scene_begin(&own, kind->grace);
                run_kind(alone ? &own : &scene, kind, points_max, shared->seed + 2 * i, &shared->tallies[i]);
                if (alone)
                        scene_end(&own);
        }
        scene_end(&scene);
        return 0;
}

/* -- all of them ---------------------------------------------------------------------------------- */

static void report(const Shared *shared, Tally *total) {
        for (size_t i = 0; i < n_kinds; ++i) {
                const Tally *tally = &shared->tallies[i];

                fprintf(stderr, "%-30s %4u points (%3u between calls), %3u triples; %3u answered, %3u done, %3u absent; "
                        "back in %.1f ms;%s\n", kinds[i].name, tally->n_points, tally->n_between, tally->n_triples,
                        tally->acknowledged, tally->done, tally->absent,
                        tally->n_points ? (double)tally->restart_ns / tally->n_points / 1e6 : 0, tally->calls);
                total->n_between += tally->n_between;
                total->n_points += tally->n_points;
                total->n_triples += tally->n_triples;
                total->acknowledged += tally->acknowledged;
                total->done += tally->done;
                total->absent += tally->absent;
        }
        fprintf(stderr, "%u points (%u between calls), %u triples of request, system call and occurrence: %u answered, "
                "%u done, %u absent\n", total->n_points, total->n_between, total->n_triples, total->acknowledged,
                total->done, total->absent);
}

static void require_all_requests(void) {
        for (unsigned int request = 1; request < _MESSAGE_N; ++request) {
                size_t i = 0;

                while (i < n_kinds && kinds[i].request != request)
                        ++i;
                REQUIRE(i < n_kinds, "nobody is killed serving %s", message_name(request));
        }
}

TEST(killpoints, wherever_the_broker_is_killed_its_successor_has_all_of_a_request_or_nothing) {
        size_t size = sizeof(Shared) + n_kinds * sizeof(Tally);
        uint64_t rounds = test_rounds(POINTS);
        long n_workers = sysconf(_SC_NPROCESSORS_ONLN);
        Child workers[WORKERS_MAX];
        Tally total = { .n_points = 0 };
        Shared *shared;

        tracer_needed();
        require_all_requests();
        shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(shared != MAP_FAILED);
        shared->seed = test_seed();
        shared->points_max = rounds / n_kinds > KIND_POINTS_MIN ? rounds / n_kinds : KIND_POINTS_MIN;

        n_workers = n_workers < 1 ? 1 : n_workers > WORKERS_MAX ? WORKERS_MAX : n_workers;
        for (long i = 0; i < n_workers; ++i)
                child_start(&workers[i], work, shared);
        for (long i = 0; i < n_workers; ++i) {
                int status;

                REQUIRE(waitpid(workers[i].pid, &status, 0) == workers[i].pid && status == 0, "a worker: %#x", status);
                close_fd(workers[i].go);
                close_fd(workers[i].ready);
        }
        report(shared, &total);
        for (size_t i = 0; i < n_kinds; ++i)
                REQUIRE(shared->tallies[i].n_points >= KIND_POINTS_MIN || !is_chosen(&kinds[i]), "%s: %u points", kinds[i].name,
                        shared->tallies[i].n_points);
        REQUIRE(munmap(shared, size) == 0);
}
