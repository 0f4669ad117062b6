/* The kinds of requests whose serving is interrupted: see the header for the model. */

#include "killpoints.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/policy.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define HOUR_NS UINT64_C(3600000000000)
#define MSEC_NS UINT64_C(1000000)

/* A function that sends one request as somebody. */
#define ASK(function, who, KIND, ...)                                                   \
        static void function(Scene *scene) {                                            \
                scene_ask(scene, scene->who, MESSAGE_##KIND, REQUEST(__VA_ARGS__));     \
        }

#define FLAG_CREATE(name) SHMD__CREATE_FLAGS__CREATE_##name
#define LIFETIME(name) SHMD__LIFETIME__LIFETIME_##name
#define RENAME(name) SHMD__RENAME_FLAGS__RENAME_##name

static Client *connect_carol(Scene *scene) {
        scene->carol = client_free(scene->carol);
        return scene->carol = client_connect_as(scene->broker, CAROL, CAROL);
}

/* -- regions -------------------------------------------------------------------------------- */

ASK(ask_create, alice, CREATE, Create, create, .path = BYTES("/k/new"), .size = 5000, .mode = 0640,
    .rights = READ_WRITE)
ASK(ask_create_unnamed, alice, CREATE, Create, create, .size = 5000, .mode = 0640, .rights = READ_WRITE)
ASK(ask_create_no_grant, alice, CREATE, Create, create, .path = BYTES("/k/new"), .size = PAGE, .mode = 0600)
ASK(ask_create_or_open_new, alice, CREATE, Create, create, .path = BYTES("/k/new"), .size = PAGE, .mode = 0600,
    .flags = FLAG_CREATE(OPEN), .rights = READ_WRITE)
ASK(ask_create_or_open_old, alice, CREATE, Create, create, .path = BYTES("/k/r"), .size = PAGE, .mode = 0666,
    .flags = FLAG_CREATE(OPEN), .rights = READ_WRITE)
ASK(ask_create_counted, alice, CREATE, Create, create, .path = BYTES("/k/new"), .size = PAGE, .mode = 0600,
    .lifetime = LIFETIME(COUNTED), .rights = READ_WRITE)
ASK(ask_create_session, alice, CREATE, Create, create, .path = BYTES("/k/new"), .size = PAGE, .mode = 0600,
    .lifetime = LIFETIME(SESSION), .rights = READ_WRITE)
ASK(ask_create_freezable, alice, CREATE, Create, create, .path = BYTES("/k/new"), .size = PAGE, .mode = 0600,
    .flags = FLAG_CREATE(FREEZABLE), .ttl_ns = HOUR_NS, .rights = READ_WRITE)
ASK(ask_open, bob, OPEN, Open, open, .path = BYTES("/k/r"), .rights = READ_ONLY)

static void ask_batch(Scene *scene) {
        Shmd__Create named = { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__create__descriptor), .path = BYTES("/k/new"),
                               .size = PAGE, .mode = 0600, .rights = READ_WRITE };
        Shmd__Create second = { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__create__descriptor), .path = BYTES("/k/d/new"),
                                .size = 3 * PAGE, .mode = 0644, .rights = READ_ONLY };
        Shmd__Open open = { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__open__descriptor), .path = BYTES("/k/r"),
                            .rights = READ_ONLY };
        Shmd__BatchItem items[] = {
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__batch_item__descriptor), .create = &named },
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__batch_item__descriptor), .open = &open },
                { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__batch_item__descriptor), .create = &second },
        };
        /* The new ones in the order of their paths, in which pictures show them. */
        Shmd__BatchItem *list[] = { &items[2], &items[1], &items[0] };

        scene_ask(scene, scene->alice, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 3, .items = list));
}

/* -- publish ---------------------------------------------------------------------------------- */

static void make_unnamed(Scene *scene) {
        client_expect_done(scene->alice, call_create_mode(scene->alice, NULL, 3 * PAGE, 0640, &scene->more));
}

static void ask_publish(Scene *scene) {
        scene_ask(scene, scene->alice, MESSAGE_PUBLISH,
                  REQUEST(Publish, publish, .region = scene->more.region, .path = BYTES("/k/new")));
}

static void ask_publish_ttl(Scene *scene) {
        scene_ask(scene, scene->alice, MESSAGE_PUBLISH,
                  REQUEST(Publish, publish, .region = scene->more.region, .path = BYTES("/k/new"), .ttl_ns = HOUR_NS));
}

static void ask_replace(Scene *scene, const char *path) {
        scene_ask(scene, scene->alice, MESSAGE_PUBLISH,
                  REQUEST(Publish, publish, .region = scene->more.region, .path = BYTES(path),
                          .flags = SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
}

static void ask_replace_held(Scene *scene) {
        ask_replace(scene, "/k/s");
}

static void ask_replace_unheld(Scene *scene) {
        ask_replace(scene, "/k/d/x");
}

/* -- names ------------------------------------------------------------------------------------ */

ASK(ask_link, alice, LINK, Link, link, .path = BYTES("/k/r"), .to = BYTES("/k/d/link"))
ASK(ask_rename, alice, RENAME, Rename, rename, .path = BYTES("/k/r"), .to = BYTES("/k/d/moved"))
ASK(ask_rename_directory, alice, RENAME, Rename, rename, .path = BYTES("/k/d"), .to = BYTES("/k/moved"))
ASK(ask_rename_replace, alice, RENAME, Rename, rename, .path = BYTES("/k/r"), .to = BYTES("/k/s"),
    .flags = RENAME(REPLACE))
ASK(ask_rename_replace_unheld, alice, RENAME, Rename, rename, .path = BYTES("/k/r"), .to = BYTES("/k/d/x"),
    .flags = RENAME(REPLACE))
ASK(ask_rename_exchange, alice, RENAME, Rename, rename, .path = BYTES("/k/r"), .to = BYTES("/k/d/x"),
    .flags = RENAME(EXCHANGE))
ASK(ask_rename_exchange_directory, alice, RENAME, Rename, rename, .path = BYTES("/k/r"), .to = BYTES("/k/d"),
    .flags = RENAME(EXCHANGE))
ASK(ask_unlink_held, alice, UNLINK, Remove, remove, .path = BYTES("/k/s"))
ASK(ask_unlink_unheld, alice, UNLINK, Remove, remove, .path = BYTES("/k/d/x"))
ASK(ask_unlink_one_of_two, alice, UNLINK, Remove, remove, .path = BYTES("/k/two"))
ASK(ask_mkdir, alice, MKDIR, Mkdir, mkdir, .path = BYTES("/k/new"), .mode = 0750)
ASK(ask_rmdir, alice, RMDIR, Remove, remove, .path = BYTES("/k/e"))
ASK(ask_ttl, alice, TTL, Ttl, ttl, .path = BYTES("/k/r"), .ttl_ns = HOUR_NS)
ASK(ask_ttl_away, alice, TTL, Ttl, ttl, .path = BYTES("/k/t"))

static void make_link(Scene *scene) {
        client_expect_done(scene->alice, call_link(scene->alice, "/k/r", "/k/two"));
}

static void make_large(Scene *scene) {
        Grant grant = GRANT_NULL;

        client_expect_done(scene->alice, call_create(scene->alice, "/k/large", 40 << 20, &grant));
        REQUIRE(fallocate(grant.fd, 0, 0, 40 << 20) == 0);
        grant_deinit(&grant);
}

ASK(ask_unlink_large, alice, UNLINK, Remove, remove, .path = BYTES("/k/large"))

/* -- permissions --------------------------------------------------------------------------------- */

ASK(ask_chmod, alice, CHMOD, Chmod, chmod, .path = BYTES("/k/r"), .mode = 0644)
ASK(ask_chmod_directory, alice, CHMOD, Chmod, chmod, .path = BYTES("/k/d"), .mode = 0711)
ASK(ask_chown, admin, CHOWN, Chown, chown, .path = BYTES("/k/r"), .set_uid = true, .uid = BOB, .set_gid = true,
    .gid = CAROL)
ASK(ask_chown_directory, admin, CHOWN, Chown, chown, .path = BYTES("/k/d"), .set_uid = true, .uid = BOB)

#define ENTRY(name, tag_name, ...)                                                      \
        Shmd__AclEntry name = { .base = PROTOBUF_C_MESSAGE_INIT(&shmd__acl_entry__descriptor), \
                                .tag = SHMD__ACL_TAG__ACL_##tag_name, __VA_ARGS__ }

static void ask_acl(Scene *scene, const char *path, bool of_directory) {
        ENTRY(owner, USER_OBJ, .perms = 6);
        ENTRY(bob, USER, .id = BOB, .perms = 4);
        ENTRY(group, GROUP_OBJ, .perms = 4);
        ENTRY(staff, GROUP, .id = 50, .perms = 6);
        ENTRY(mask, MASK, .perms = 6);
        ENTRY(other, OTHER, .perms = 0);
        Shmd__AclEntry *entries[] = { &owner, &bob, &group, &staff, &mask, &other };
        uint32_t access = SHMD__ACL_FLAGS__ACL_ACCESS, defaults = SHMD__ACL_FLAGS__ACL_DEFAULT;

        scene_ask(scene, scene->alice, MESSAGE_SET_ACL,
                  REQUEST(SetAcl, set_acl, .path = BYTES(path), .flags = of_directory ? access | defaults : access,
                          .n_access = 6, .access = entries, .n_defaults = of_directory ? 6 : 0,
                          .defaults = of_directory ? entries : NULL));
}

static void ask_set_acl(Scene *scene) {
        ask_acl(scene, "/k/r", false);
}

static void ask_set_acl_directory(Scene *scene) {
        ask_acl(scene, "/k/d", true);
}

/* -- freezing -------------------------------------------------------------------------------------- */

static void make_freezable(Scene *scene, int seal) {
        client_expect_done(scene->alice,
                           call_create_with(scene->alice,
                                            REQUEST(Create, create, .path = BYTES("/k/freezable"), .size = PAGE,
                                                    .mode = 0644, .rights = READ_WRITE,
                                                    .flags = FLAG_CREATE(FREEZABLE)),
                                            &scene->more));
        REQUIRE(pwrite(scene->more.fd, "frozen", 6, 0) == 6);
        REQUIRE(fcntl(scene->more.fd, F_ADD_SEALS, seal) == 0);
}

static void make_immutable(Scene *scene) {
        make_freezable(scene, F_SEAL_WRITE);
}

static void make_single_writer(Scene *scene) {
        make_freezable(scene, F_SEAL_FUTURE_WRITE);
}

ASK(ask_freeze, alice, FREEZE, Freeze, freeze, .path = BYTES("/k/freezable"))
ASK(ask_freeze_single, alice, FREEZE, Freeze, freeze, .path = BYTES("/k/freezable"),
    .how = SHMD__FREEZE_HOW__FREEZE_SINGLE_WRITER)

/* -- tickets ---------------------------------------------------------------------------------------- */

ASK(ask_ticket, alice, TICKET, Ticket, ticket, .path = BYTES("/k/s"), .rights = READ_ONLY, .uses = 7,
    .ttl_ns = HOUR_NS / 2, .flags = SHMD__TICKET_FLAGS__TICKET_ONE_USER, .uid = BOB)
ASK(ask_tickets, alice, TICKETS, Tickets, tickets, .path = BYTES("/k/r"))
ASK(ask_revoke_all, alice, REVOKE, Revoke, revoke, .path = BYTES("/k/r"))

static void ask_redeem(Scene *scene) {
        scene_ask(scene, scene->bob, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES(scene->ticket)));
}

/* One use of three is gone: the next redeem leaves one, or with the second none. */
static void redeem_twice(Scene *scene) {
        for (unsigned int i = 0; i < 2; ++i) {
                client_expect_done(scene->bob, client_call(scene->bob, MESSAGE_REDEEM,
                                                           REQUEST(Redeem, redeem, .ticket = BYTES(scene->ticket))));
                close_fd(fdlist_take(&scene->bob->fds));
        }
}

static void ask_revoke(Scene *scene) {
        scene_ask(scene, scene->alice, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .id = scene->ticket_id));
}

/* -- doorbells --------------------------------------------------------------------------------------- */

ASK(ask_bell, alice, BELL, Bell, bell, .path = BYTES("/k/r"), .flags = SHMD__BELL_FLAGS__BELL_RING)
ASK(ask_bell_again, bob, BELL, Bell, bell, .path = BYTES("/k/r"))

static void make_bell(Scene *scene) {
        const Shmd__BellReply *reply;

        client_expect_done(scene->alice, client_call(scene->alice, MESSAGE_BELL,
                                                     REQUEST(Bell, bell, .path = BYTES("/k/r"),
                                                             .flags = SHMD__BELL_FLAGS__BELL_RING)));
        reply = (const Shmd__BellReply *)scene->alice->reply;
        scene->more = (Grant){ .fd = fdlist_take(&scene->alice->fds), .region = reply->page };
}

static void ask_bell_poll(Scene *scene) {
        scene_ask(scene, scene->alice, MESSAGE_BELL,
                  REQUEST(Bell, bell, .region = scene->more.region, .flags = SHMD__BELL_FLAGS__BELL_POLL));
}

/* -- looking ------------------------------------------------------------------------------------------ */

ASK(ask_ping, alice, PING, Ping, ping, .payload = BYTES("are you there"))
ASK(ask_stat, alice, STAT, Stat, stat, .path = BYTES("/k/r"),
    .flags = SHMD__STAT_FLAGS__STAT_HOLDERS | SHMD__STAT_FLAGS__STAT_NAMES)
ASK(ask_list, alice, LIST, List, list, .path = BYTES("/k"), .flags = SHMD__LIST_FLAGS__LIST_RECURSIVE)
ASK(ask_list_orphans, admin, LIST, List, list, .flags = SHMD__LIST_FLAGS__LIST_ORPHANS)
ASK(ask_get_acl, bob, GET_ACL, GetAcl, get_acl, .path = BYTES("/k/s"))
ASK(ask_why, alice, WHY, Why, why, .operation = SHMD__WHY_OPERATION__WHY_WRITE, .path = BYTES("/k/s"))
ASK(ask_df, alice, DF, Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT)
ASK(ask_stats, alice, STATS, Stats, stats)
ASK(ask_doctor, alice, DOCTOR, Doctor, doctor)
ASK(ask_upgrade, admin, UPGRADE, Upgrade, upgrade)
ASK(ask_state, admin, STATE, State, state)

/* -- waiting and watching ------------------------------------------------------------------------------ */

ASK(ask_wait, bob, WAIT, Wait, wait, .path = BYTES("/k/r"), .timeout_ns = HOUR_NS)
ASK(ask_wait_unheld, bob, WAIT, Wait, wait, .path = BYTES("/k/d/x"), .until = SHMD__WAIT_FOR__WAIT_UNHELD,
    .timeout_ns = HOUR_NS)
ASK(ask_watch, bob, WATCH, Watch, watch, .path = BYTES("/k"), .mask = SHMD__EVENT_MASK__EVENT_CREATED)

static void begin_watch(Scene *scene) {
        client_expect_done(scene->alice, client_call(scene->alice, MESSAGE_WATCH,
                                                     REQUEST(Watch, watch, .path = BYTES("/k/d"),
                                                             .mask = SHMD__EVENT_MASK__EVENT_CREATED)));
        scene->more.region = ((const Shmd__WatchReply *)scene->alice->reply)->watch;
}

/* After a restart the watch is gone with the connection; the answer says so, and its absence is vague. */
static void ask_unwatch(Scene *scene) {
        scene_ask(scene, scene->alice, MESSAGE_UNWATCH, REQUEST(Unwatch, unwatch, .watch = scene->more.region));
}

/* Somebody waits for the name that appears, and watches. */
static void begin_wait(Scene *scene) {
        Client *carol = connect_carol(scene);

        client_expect_done(carol, client_call(carol, MESSAGE_WATCH,
                                              REQUEST(Watch, watch, .path = BYTES("/k"),
                                                      .mask = SHMD__EVENT_MASK__EVENT_CREATED |
                                                              SHMD__EVENT_MASK__EVENT_HOLDERS)));
        (void)client_send(carol, MESSAGE_WAIT, REQUEST(Wait, wait, .path = BYTES("/k/new"), .timeout_ns = HOUR_NS));
        (void)client_send(carol, MESSAGE_PING, REQUEST(Ping, ping));
        while (client_receive(carol, TEST_PATIENCE_MS) == CLIENT_EVENTS)
                continue;
        REQUIRE(carol->header.kind == (MESSAGE_PING | MESSAGE_REPLY), "%s", client_describe(carol));
}

/* -- the policy ----------------------------------------------------------------------------------------- */

static void call_policy(Scene *scene, bool ask, Policy *policy) {
        uint8_t *bytes;
        size_t n;

        REQUIRE(policy_encode(policy, &bytes, &n) == 0);
        if (ask)
                scene_ask(scene, scene->admin, MESSAGE_RELOAD,
                          REQUEST(Reload, reload, .total = (uint32_t)n, .data = { .len = n, .data = bytes }));
        else
                client_expect_done(scene->admin,
                                   client_call(scene->admin, MESSAGE_RELOAD,
                                               REQUEST(Reload, reload, .total = (uint32_t)n,
                                                       .data = { .len = n, .data = bytes })));
        free(bytes);
}

static void ask_reload(Scene *scene) {
        PolicyDirectory directory = { .path = (char *)"/ruled", .permissions = { .uid = BOB, .gid = BOB, .mode = 0750 } };

        call_policy(scene, true, &(Policy){ .rules.everybody = { UINT32_C(1) << ACCOUNT_REGIONS,
                                                                 { [ACCOUNT_REGIONS] = 4321 } },
                                            .directories = &directory, .n_directories = 1 });
}

static void undo_reload(Scene *scene) {
        call_policy(scene, false, &(Policy){ .directories = NULL });
}

/* -- by itself --------------------------------------------------------------------------------------- */

static void ask_hello(Scene *scene) {
        scene->carol = client_free(scene->carol);
        scene->carol = client_connect_silently(scene->broker, CAROL, CAROL);
        scene_ask(scene, scene->carol, MESSAGE_HELLO, REQUEST(Hello, hello, .version = MESSAGE_VERSION));
}

/* A connection that made regions until its end. */
static void make_session(Scene *scene) {
        (void)connect_carol(scene);
        for (unsigned int i = 0; i < 3; ++i) {
                char path[] = "/k/session0";

                path[sizeof(path) - 2] += (char)i;
                client_expect_done(scene->carol,
                                   call_create_with(scene->carol,
                                                    REQUEST(Create, create, .path = BYTES(path), .size = PAGE,
                                                            .mode = 0600, .lifetime = LIFETIME(SESSION)),
                                                    NULL));
        }
}

static void end_session(Scene *scene) {
        scene->carol = client_free(scene->carol);
}

/* It goes no sooner than the scene says. */
static void make_short_lived(Scene *scene) {
        scene->expires_ms = test_now_ms() + scene->ttl_ms;
        client_expect_done(scene->alice,
                           call_create_with(scene->alice,
                                            REQUEST(Create, create, .path = BYTES("/k/short"), .size = PAGE,
                                                    .mode = 0600, .ttl_ns = (uint64_t)scene->ttl_ms * MSEC_NS),
                                            NULL));
}

static void ask_nothing(Scene *scene) {
        (void)scene;
}

static void make_counted(Scene *scene) {
        client_expect_done(scene->alice,
                           call_create_with(scene->alice,
                                            REQUEST(Create, create, .path = BYTES("/k/counted"), .size = PAGE,
                                                    .mode = 0600, .lifetime = LIFETIME(COUNTED), .rights = READ_WRITE),
                                            &scene->more));
}

static void let_go(Scene *scene) {
        grant_deinit(&scene->more);
}

/* Of everything there can be, something. */
static void make_more(Scene *scene) {
        Grant grant = GRANT_NULL;

        make_bell(scene);
        client_expect_done(scene->alice, call_link(scene->alice, "/k/r", "/k/two"));
        client_expect_done(scene->alice, call_create_mode(scene->alice, NULL, 3 * PAGE, 0640, &grant));
        scene->held[scene->n_held++] = grant.fd;
        client_expect_done(scene->alice,
                           call_create_with(scene->alice,
                                            REQUEST(Create, create, .path = BYTES("/k/session"), .size = PAGE,
                                                    .mode = 0600, .lifetime = LIFETIME(SESSION)),
                                            NULL));
        client_expect_done(scene->alice,
                           call_create_with(scene->alice,
                                            REQUEST(Create, create, .path = BYTES("/k/counted"), .size = PAGE,
                                                    .mode = 0600, .lifetime = LIFETIME(COUNTED), .rights = READ_WRITE),
                                            &grant));
        scene->held[scene->n_held++] = grant.fd;
}

static void kill_broker(Scene *scene) {
        broker_signal(scene->broker, SIGKILL);
}

/* -- all of them ---------------------------------------------------------------------------------- */

const Kind kinds[] = {
        { "create", MESSAGE_CREATE, .changes = true, .ask = ask_create },
        { "create, no name", MESSAGE_CREATE, .changes = true, .goes = true, .ask = ask_create_unnamed },
        { "create, no grant", MESSAGE_CREATE, .changes = true, .ask = ask_create_no_grant },
        { "create or open: new", MESSAGE_CREATE, .changes = true, .ask = ask_create_or_open_new },
        { "create or open: old", MESSAGE_CREATE, .changes = true, .ask = ask_create_or_open_old },
        { "create, counted", MESSAGE_CREATE, .changes = true, .goes = true, .ask = ask_create_counted },
        { "create, session", MESSAGE_CREATE, .changes = true, .ask = ask_create_session },
        { "create, freezable, ttl", MESSAGE_CREATE, .changes = true, .ask = ask_create_freezable },
        { "create, waited for", MESSAGE_CREATE, .changes = true, .prepare = begin_wait, .ask = ask_create },
        { "open", MESSAGE_OPEN, .changes = true, .ask = ask_open },
        { "batch", MESSAGE_BATCH, .changes = true, .ask = ask_batch },
        { "publish", MESSAGE_PUBLISH, .changes = true, .prepare = make_unnamed, .ask = ask_publish },
        { "publish, ttl", MESSAGE_PUBLISH, .changes = true, .prepare = make_unnamed, .ask = ask_publish_ttl },
        { "publish --replace, held", MESSAGE_PUBLISH, .changes = true, .prepare = make_unnamed,
          .ask = ask_replace_held },
        { "publish --replace, unheld", MESSAGE_PUBLISH, .changes = true, .linger_ms = 8, .prepare = make_unnamed,
          .ask = ask_replace_unheld },
        { "stat", MESSAGE_STAT, .ask = ask_stat },
        { "list", MESSAGE_LIST, .ask = ask_list },
        { "list --orphans", MESSAGE_LIST, .prepare = make_unnamed, .ask = ask_list_orphans },
        { "mkdir", MESSAGE_MKDIR, .changes = true, .ask = ask_mkdir },
        { "rmdir", MESSAGE_RMDIR, .changes = true, .ask = ask_rmdir },
        { "unlink, held", MESSAGE_UNLINK, .changes = true, .linger_ms = 8, .ask = ask_unlink_held },
        { "unlink, unheld", MESSAGE_UNLINK, .changes = true, .linger_ms = 8, .ask = ask_unlink_unheld },
        { "unlink, one of two", MESSAGE_UNLINK, .changes = true, .prepare = make_link, .ask = ask_unlink_one_of_two },
        { "unlink, 40 MiB", MESSAGE_UNLINK, .changes = true, .linger_ms = 8, .prepare = make_large,
          .ask = ask_unlink_large },
        { "chmod", MESSAGE_CHMOD, .changes = true, .ask = ask_chmod },
        { "chmod, directory", MESSAGE_CHMOD, .changes = true, .ask = ask_chmod_directory },
        { "chown", MESSAGE_CHOWN, .changes = true, .ask = ask_chown },
        { "chown, directory", MESSAGE_CHOWN, .changes = true, .ask = ask_chown_directory },
        { "wait", MESSAGE_WAIT, .ask = ask_wait },
        { "wait --unheld", MESSAGE_WAIT, .ask = ask_wait_unheld },
        { "df", MESSAGE_DF, .vague = true, .ask = ask_df },
        { "stats", MESSAGE_STATS, .vague = true, .ask = ask_stats },
        { "link", MESSAGE_LINK, .changes = true, .ask = ask_link },
        { "rename", MESSAGE_RENAME, .changes = true, .ask = ask_rename },
        { "rename, directory", MESSAGE_RENAME, .changes = true, .ask = ask_rename_directory },
        { "rename --replace, held", MESSAGE_RENAME, .changes = true, .ask = ask_rename_replace },
        { "rename --replace, unheld", MESSAGE_RENAME, .changes = true, .linger_ms = 8,
          .ask = ask_rename_replace_unheld },
        { "rename --exchange", MESSAGE_RENAME, .changes = true, .ask = ask_rename_exchange },
        { "rename --exchange, directory", MESSAGE_RENAME, .changes = true, .ask = ask_rename_exchange_directory },
        { "ttl", MESSAGE_TTL, .changes = true, .ask = ask_ttl },
        { "ttl, away", MESSAGE_TTL, .changes = true, .ask = ask_ttl_away },
        { "get-acl", MESSAGE_GET_ACL, .ask = ask_get_acl },
        { "set-acl", MESSAGE_SET_ACL, .changes = true, .ask = ask_set_acl },
        { "set-acl, directory", MESSAGE_SET_ACL, .changes = true, .ask = ask_set_acl_directory },
        { "why", MESSAGE_WHY, .vague = true, .ask = ask_why },
        { "reload", MESSAGE_RELOAD, .changes = true, .ask = ask_reload, .undo = undo_reload },
        { "freeze", MESSAGE_FREEZE, .changes = true, .prepare = make_immutable, .ask = ask_freeze },
        { "freeze, single writer", MESSAGE_FREEZE, .changes = true, .prepare = make_single_writer,
          .ask = ask_freeze_single },
        { "watch", MESSAGE_WATCH, .ask = ask_watch },
        { "unwatch", MESSAGE_UNWATCH, .vague = true, .prepare = begin_watch, .ask = ask_unwatch },
        { "ticket", MESSAGE_TICKET, .changes = true, .ask = ask_ticket },
        { "redeem", MESSAGE_REDEEM, .changes = true, .ask = ask_redeem },
        { "redeem, the last use", MESSAGE_REDEEM, .changes = true, .prepare = redeem_twice, .ask = ask_redeem },
        { "revoke", MESSAGE_REVOKE, .changes = true, .ask = ask_revoke },
        { "revoke, all", MESSAGE_REVOKE, .changes = true, .ask = ask_revoke_all },
        { "tickets", MESSAGE_TICKETS, .ask = ask_tickets },
        { "bell", MESSAGE_BELL, .changes = true, .ask = ask_bell },
        { "bell, there already", MESSAGE_BELL, .changes = true, .prepare = make_bell, .ask = ask_bell_again },
        { "bell, poll", MESSAGE_BELL, .prepare = make_bell, .ask = ask_bell_poll },
        { "doctor", MESSAGE_DOCTOR, .vague = true, .ask = ask_doctor },
        { "state", MESSAGE_STATE, .vague = true, .ask = ask_state },
        { "ping", MESSAGE_PING, .ask = ask_ping },
        { "hello", MESSAGE_HELLO, .vague = true, .ask = ask_hello },
        { "a session ends", MESSAGE_NONE, .changes = true, .by_itself = true, .linger_ms = 8,
          .grace = "20ms", .prepare = make_session, .ask = end_session },
        { "a name expires", MESSAGE_NONE, .changes = true, .by_itself = true, .expires = true, .linger_ms = 30,
          .prepare = make_short_lived, .ask = ask_nothing },
        { "a counted region is let go", MESSAGE_NONE, .changes = true, .by_itself = true, .linger_ms = 12,
          .prepare = make_counted, .ask = let_go },
        { "an orphan is let go", MESSAGE_NONE, .changes = true, .by_itself = true, .linger_ms = 12,
          .prepare = make_unnamed, .ask = let_go },
        { "upgrade", MESSAGE_UPGRADE, .by_itself = true, .replaces = true, .prepare = make_more,
          .ask = ask_upgrade },
        { "recovery", MESSAGE_NONE, .by_itself = true, .restart = true, .weight = 12, .linger_ms = 12,
          .prepare = make_more, .ask = kill_broker },
};

const size_t n_kinds = sizeof(kinds) / sizeof(*kinds);
