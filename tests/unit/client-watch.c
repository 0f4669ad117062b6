/* client/op-watch: events reach the callback of their watch and nobody else, whatever the broker does. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char heard[1024];        /* "1:/d/x lost:-104 " */
static const char *on_watch;    /* what the callback does besides */

static void hear(shmd *client, const struct shmd_event *event, void *userdata) {
        size_t n = strlen(heard);

        REQUIRE(shmd_ping(client, NULL, SECOND) == (event->event == SHMD_EVENT_LOST ? -ENOTCONN : -EDEADLK));
        if (event->event == SHMD_EVENT_LOST)
                (void)snprintf(heard + n, sizeof(heard) - n, "%slost:%s:%d ", (const char *)userdata, event->path,
                               event->error);
        else
                (void)snprintf(heard + n, sizeof(heard) - n, "%s%u:%s%s%s ", (const char *)userdata, event->event,
                               event->path, event->to ? ">" : "", event->to ? event->to : "");
        if (on_watch && !strcmp(on_watch, event->path))
                REQUIRE(shmd_unwatch_start(client, event->watch, 0, NULL, NULL, NULL) == 0);
}

static Shmd__Event event(uint64_t watch, uint32_t what, const char *path, const char *to) {
        Shmd__Event e = SHMD__EVENT__INIT;

        e.watch = watch;
        e.sequence = 77;
        e.event = what;
        e.path = BYTES(path);
        e.to = BYTES(to);
        e.kind = SHMD_NODE_REGION;
        e.region = 5;
        return e;
}

static void send_events(Peer *peer, uint64_t serial, Shmd__Event *events, size_t n) {
        Shmd__Event *pointers[16];

        for (size_t i = 0; i < n; ++i)
                pointers[i] = &events[i];
        peer_send(peer, MESSAGE_EVENT, serial, MESSAGE(Events, events, .n_events = n, .events = pointers), NULL, 0);
}

static void accept_watch(Peer *peer, uint64_t number) {
        (void)peer_expect(peer, MESSAGE_WATCH);
        peer_reply(peer, MESSAGE(WatchReply, watch_reply, .watch = number, .sequence = 40 + number), NULL, 0);
}

static void expect_unwatch(Peer *peer, uint64_t number) {
        const Shmd__Unwatch *unwatch = peer_expect(peer, MESSAGE_UNWATCH);

        REQUIRE(unwatch->watch == number);
        peer_done(peer);
}

static void process_until(shmd *client, const char *expected) {
        while (strlen(heard) < strlen(expected))
                REQUIRE(shmd_process(client, 20 * SECOND) >= 0, "%s", heard);
        cr_assert_str_eq(heard, expected);
}

static uint64_t watch(shmd *client, const char *path, const char *name) {
        uint64_t number = 0, sequence = 0;

        cr_assert_eq(shmd_watch(client, path, SHMD_EVENT_ALL, 0, hear, (void *)name, &number, &sequence, 0), 0);
        cr_assert(number > 0 && sequence > 40);
        return number;
}

static shmd *begin(PeerScript script) {
        heard[0] = '\0';
        on_watch = NULL;
        return peer_start_and_connect(script);
}

/* -- what is told ------------------------------------------------------------------------- */

static void script_two(Peer *peer) {
        const Shmd__Watch *wanted = peer_expect(peer, MESSAGE_WATCH);
        Shmd__Event events[4];

        REQUIRE(wanted->mask == 3 && wanted->sequence == 9 && wanted->path.len == 2 && wanted->path.data[1] == 'd');
        peer_reply(peer, MESSAGE(WatchReply, watch_reply, .watch = 1, .sequence = 9), NULL, 0);
        /* At once: the watch is there as soon as its reply is. */
        events[0] = event(1, SHMD_EVENT_CREATED, "/x", "");
        events[1] = event(1, SHMD_EVENT_RENAMED, "/x", "/y/z");
        events[2] = event(1, SHMD_EVENT_CHANGED, "", "");
        send_events(peer, peer->header.serial, events, 3);
        accept_watch(peer, 2);
        events[0] = event(2, SHMD_EVENT_CREATED, "/a", "");
        events[1] = event(3, SHMD_EVENT_CREATED, "/of-nobody", "");
        events[2] = event(2, 1U << 20, "/of-a-newer-broker", "");
        events[3] = event(2, SHMD_EVENT_LIMITS, "", "");
        send_events(peer, peer->header.serial, events, 4);
        peer_expect_end(peer);
}

TEST(client_watch, each_hears_its_own_events_under_the_names_it_knows) {
        shmd *client = begin(script_two);
        uint64_t number, sequence;

        cr_assert_eq(shmd_watch(client, "/d", 3, 9, hear, (void *)"", &number, &sequence, 0), 0);
        cr_assert(number == 1 && sequence == 9);
        process_until(client, "1:/d/x 4:/d/x>/d/y/z 256:/d ");
        heard[0] = '\0';
        cr_assert_eq(watch(client, "/", "root "), 2);
        process_until(client, "root 1:/a root 64:/ ");
        heard[0] = '\0';
        (void)shmd_close(client);
        cr_assert_str_eq(heard, "lost:/d:-125 root lost:/:-125 ");
        peer_join(NULL);
}

static void script_end(Peer *peer) {
        Shmd__Event events[2];

        accept_watch(peer, 1);
        events[0] = event(1, SHMD_EVENT_REMOVED, "/x", "");
        events[1] = event(1, SHMD_EVENT_REMOVED, "", "");
        send_events(peer, peer->header.serial, events, 2);
        events[0] = event(1, SHMD_EVENT_CREATED, "/late", "");
        send_events(peer, peer->header.serial, events, 1);
        (void)peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_watch, it_ends_with_what_is_watched) {
        shmd *client = begin(script_end);
        uint64_t number = watch(client, "/d", "");

        process_until(client, "2:/d/x 2:/d ");
        cr_assert_eq(shmd_ping(client, NULL, 0), 0);
        cr_assert_eq(shmd_unwatch(client, number, 0), -ENOENT);
        cr_assert_eq(strcmp(shmd_reason_name(shmd_refusal(client)->reason), "events"), 0);
        cr_assert_str_eq(heard, "2:/d/x 2:/d ");
        peer_join(client);
}

/* -- giving up ---------------------------------------------------------------------------- */

static void script_unwatch(Peer *peer) {
        Shmd__Event events[3];
        uint64_t serial;

        accept_watch(peer, 7);
        serial = peer->header.serial;
        /* On its way when the watch is given up. */
        (void)peer_expect(peer, MESSAGE_UNWATCH);
        events[0] = event(7, SHMD_EVENT_CREATED, "/late", "");
        send_events(peer, serial, events, 1);
        peer_done(peer);
        accept_watch(peer, 8);
        events[0] = event(8, SHMD_EVENT_CREATED, "/a", "");
        events[1] = event(8, SHMD_EVENT_CREATED, "/b", "");
        events[2] = event(8, SHMD_EVENT_CREATED, "/c", "");
        send_events(peer, peer->header.serial, events, 3);
        REQUIRE(((const Shmd__Unwatch *)peer_expect(peer, MESSAGE_UNWATCH))->watch == 8);
        peer_expect_end(peer);
}

TEST(client_watch, one_that_was_given_up_is_silent_from_then_on) {
        shmd *client = begin(script_unwatch);
        uint64_t number = watch(client, "/d", "");

        cr_assert_eq(shmd_unwatch(client, number, 0), 0);
        cr_assert_str_eq(heard, "");
        on_watch = "/d/b";
        (void)watch(client, "/d", "");
        process_until(client, "1:/d/a 1:/d/b ");
        cr_assert_str_eq(heard, "1:/d/a 1:/d/b ");
        peer_join(client);
}

static void script_untaken(Peer *peer) {
        uint64_t serial;

        accept_watch(peer, 1);
        expect_unwatch(peer, 1);
        (void)peer_expect(peer, MESSAGE_WATCH);
        serial = peer->header.serial;
        (void)peer_expect(peer, MESSAGE_PING);
        peer_reply(peer, MESSAGE(Ping, ping), NULL, 0);
        peer_send(peer, MESSAGE_WATCH | MESSAGE_REPLY, serial, MESSAGE(WatchReply, watch_reply, .watch = 2), NULL, 0);
        REQUIRE(((const Shmd__Unwatch *)peer_expect(peer, MESSAGE_UNWATCH))->watch == 2);
        peer_expect_end(peer);
}

TEST(client_watch, one_that_nobody_took_is_given_back_to_the_broker) {
        shmd *client = begin(script_untaken);
        shmd_call *call;

        cr_assert_eq(shmd_watch_start(client, "/d", 1, 0, hear, (void *)"", 0, NULL, NULL, NULL), 0);
        REQUIRE(shmd_process(client, 20 * SECOND) >= 0);
        cr_assert_eq(shmd_watch_start(client, "/d", 1, 0, hear, (void *)"", 0, NULL, NULL, &call), 0);
        shmd_call_cancel(call);
        cr_assert_eq(shmd_ping(client, NULL, 0), 0);
        REQUIRE(shmd_process(client, 20 * SECOND) >= 0);
        cr_assert_str_eq(heard, "");
        peer_join(client);
}

static void script_gone(Peer *peer) {
        accept_watch(peer, 1);
        accept_watch(peer, 2);
}

TEST(client_watch, a_lost_connection_is_told_to_each_watch_once) {
        shmd *client = begin(script_gone);

        cr_assert_eq(shmd_set_reconnect(client, false), 0);
        (void)watch(client, "/a", "");
        (void)watch(client, "/b", "");
        while (shmd_process(client, 20 * SECOND) >= 0)
                continue;
        cr_assert_str_eq(heard, "lost:/a:-104 lost:/b:-104 ");
        peer_join(client);
        cr_assert_str_eq(heard, "lost:/a:-104 lost:/b:-104 ");
}

static void script_quiet(Peer *peer) {
        accept_watch(peer, 1);
        peer_expect_end(peer);
}

TEST(client_watch, a_forked_childs_copy_goes_in_silence) {
        shmd *client = begin(script_quiet);
        int status;
        pid_t pid;

        (void)watch(client, "/a", "");
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                if (shmd_unwatch(client, 1, 0) != -ECHILD)
                        _exit(1);
                (void)shmd_close(client);
                _exit(heard[0] ? 2 : 0);
        }
        REQUIRE(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
        peer_join(client);
        cr_assert_str_eq(heard, "lost:/a:-125 ");
}

/* -- a broker that makes no sense --------------------------------------------------------- */

static const struct {
        uint32_t what;
        const char *path;
        const char *to;
} nonsense[] = {
        { 3, "/x", "" }, { 1, "x", "" }, { 1, "/x/", "" }, { 1, "/../x", "" }, { 1, "/\n", "" },
        { 4, "/x", "y" }, { 4, "/x", "/\xff" }, { 1, "/", "" },
};

static size_t which;

static void script_nonsense(Peer *peer) {
        Shmd__Event e = event(1, nonsense[which].what, nonsense[which].path, nonsense[which].to);

        accept_watch(peer, 1);
        send_events(peer, peer->header.serial, &e, 1);
        peer_expect_end(peer);
}

TEST(client_watch, names_that_cannot_be_end_the_connection) {
        for (which = 0; which < sizeof(nonsense) / sizeof(nonsense[0]); ++which) {
                shmd *client = begin(script_nonsense);

                (void)watch(client, "/d", "");
                while (shmd_process(client, 20 * SECOND) >= 0)
                        continue;
                cr_assert_str_eq(heard, "lost:/d:-71 ", "%zu", which);
                peer_join(client);
        }
}

static void script_long(Peer *peer) {
        char path[1100];
        Shmd__Event e;

        memset(path, 'a', sizeof(path));
        for (size_t i = 0; i < sizeof(path); i += 200)
                path[i] = '/';
        path[1023] = '\0';
        e = event(1, SHMD_EVENT_RENAMED, path, path);
        accept_watch(peer, 1);
        send_events(peer, peer->header.serial, &e, 1);
        path[1023] = 'a';
        path[1024] = '\0';
        e = event(1, SHMD_EVENT_CREATED, path, "");
        send_events(peer, peer->header.serial, &e, 1);
        peer_expect_end(peer);
}

static size_t longest;

static void measure(shmd *client, const struct shmd_event *event, void *userdata) {
        (void)client;
        (void)userdata;
        if (event->to)
                longest = strlen(event->path) + strlen(event->to);
}

TEST(client_watch, a_name_has_at_most_as_many_bytes_as_names_may_have) {
        shmd *client = begin(script_long);
        char path[1024];
        uint64_t number;

        memset(path, 'd', sizeof(path));
        for (size_t i = 0; i < sizeof(path); i += 200)
                path[i] = '/';
        path[1023] = '\0';
        cr_assert_eq(shmd_watch(client, path, 1, 0, measure, NULL, &number, NULL, 0), 0);
        while (shmd_process(client, 20 * SECOND) >= 0)
                continue;
        cr_assert_eq(longest, 4 * 1023);
        peer_join(client);
}

static void script_bad_serial(Peer *peer) {
        Shmd__Event e = event(1, 1, "/x", "");

        accept_watch(peer, 1);
        send_events(peer, peer->header.serial + 100, &e, 1);
        peer_expect_end(peer);
}

TEST(client_watch, events_of_a_request_that_was_never_made_end_the_connection) {
        shmd *client = begin(script_bad_serial);

        (void)watch(client, "/d", "");
        while (shmd_process(client, 20 * SECOND) >= 0)
                continue;
        cr_assert_str_eq(heard, "lost:/d:-71 ");
        peer_join(client);
}
