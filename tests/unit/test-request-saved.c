/* daemon/broker: whatever is asked, and by whom, the state has what there is, and what is refused leaves no trace.
 *
 * Random requests of several users, with watchers whose queues run over, limits that make batches fail in
 * the middle, sessions that end, and a policy that comes and goes. After each request the harness looks
 * whether an answer left something to be committed, and compares state and memory.
 */

#include "daemon-table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>


#define N_GUESTS 4
#define N_KEPT 24
#define REGIONS_MAX 20           /* of a user */

static Guest *guests[N_GUESTS];
static const uid_t uids[N_GUESTS] = { ALICE, BOB, CAROL, 0 };
static Guest *watcher, *waiter;
static int kept[N_KEPT];
static size_t n_kept;
static uint64_t random_state;
static char ticket[128];        /* the latest */
static size_t n_ticket;
static char paths[2][PATH_BYTES_MAX];

static uint64_t below(uint64_t n) {
        return test_random(&random_state, n);
}

static ProtobufCBinaryData some_path(size_t i) {
        static const char *const parts[] = {
                "a", "b", "c", "d", "e", "f", "g",
                "a-longer-name-than-one-cell-of-the-state-has-room-for-beside-all-that-a-name-has-there",
        };
        size_t n = 0, depth = below(3) ? 1 : 1 + below(3);

        for (size_t k = 0; k < depth; ++k)
                n += (size_t)snprintf(paths[i] + n, sizeof(paths[i]) - n, "/%s", parts[below(below(6) ? 7 : 8)]);
        return BYTES(paths[i]);
}

static uint64_t some_region(void) {
        const Region *region = regions_after(&table->regions, below(table->regions.last_id + 1));

        return region ? region->id : 1;
}

/* Some of what comes is held, the rest is let go. */
static void keep_fds(Guest *guest) {
        int fd;

        while ((fd = fdlist_take(&guest->fds)) >= 0) {
                if (n_kept == N_KEPT) {
                        size_t i = below(n_kept);

                        (void)close_fd(kept[i]);
                        kept[i] = fd;
                } else {
                        kept[n_kept++] = fd;
                }
        }
}

/* Reads packets that nobody asked for just now. Return: how many. */
static size_t read_all(const Guest *guest) {
        static uint8_t packet[WIRE_REPLY_MAX];
        size_t n = 0;

        while (recv(guest->fd, packet, sizeof(packet), MSG_DONTWAIT) > 0)
                ++n;
        return n;
}

/* -- requests ------------------------------------------------------------------------------ */

static Shmd__Create some_create(size_t i) {
        Shmd__Create create = SHMD__CREATE__INIT;

        create.path = below(6) ? some_path(i) : (ProtobufCBinaryData){ .len = 0 };
        create.size = 1 + below(3 * PAGE);
        create.mode = (uint32_t)below(01000);
        create.rights = below(8) ? 1 + (uint32_t)below(2) : 0;
        create.lifetime = (uint32_t)below(3);
        create.flags = below(3) ? 1 : (uint32_t)below(4);
        create.ttl_ns = below(8) ? 0 : below(2) ? 1 : NSEC_PER_SEC * 1000;
        return create;
}

static uint32_t do_create(Guest *guest) {
        Shmd__Create create = some_create(0);

        return guest_ask(guest, MESSAGE_CREATE, &create.base);
}

static uint32_t do_open(Guest *guest) {
        return guest_ask(guest, MESSAGE_OPEN,
                         REQUEST(Open, open, .path = some_path(0), .rights = 1 + (uint32_t)below(2)));
}

static uint32_t do_batch(Guest *guest) {
        Shmd__BatchItem items[6], *pointers[6];
        Shmd__Create creates[6];
        Shmd__Open opens[6];
        char texts[6][PATH_BYTES_MAX];
        size_t n = 1 + below(6);

        for (size_t i = 0; i < n; ++i) {
                shmd__batch_item__init(&items[i]);
                pointers[i] = &items[i];
                creates[i] = some_create(0);
                memcpy(texts[i], paths[0], sizeof(texts[i]));
                if (creates[i].path.len > 0)
                        creates[i].path = BYTES(texts[i]);
                shmd__open__init(&opens[i]);
                opens[i].path = BYTES(texts[i]);
                opens[i].rights = 1;
                if (below(3))
                        items[i].create = &creates[i];
                else
                        items[i].open = &opens[i];
        }
        return guest_ask(guest, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = n, .items = pointers));
}

static uint32_t do_publish(Guest *guest) {
        return guest_ask(guest, MESSAGE_PUBLISH,
                         REQUEST(Publish, publish, .region = some_region(), .path = some_path(0),
                                 .flags = (uint32_t)below(2), .ttl_ns = below(3)));
}

static uint32_t do_unlink(Guest *guest) {
        return guest_ask(guest, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = some_path(0)));
}

static uint32_t do_rmdir(Guest *guest) {
        return guest_ask(guest, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = some_path(0)));
}

static uint32_t do_mkdir(Guest *guest) {
        some_path(0);
        return ask_mkdir(guest, paths[0], below(2) ? 01777 : (uint32_t)below(02000));
}

static uint32_t do_link(Guest *guest) {
        return guest_ask(guest, MESSAGE_LINK, REQUEST(Link, link, .path = some_path(0), .to = some_path(1)));
}

static uint32_t do_rename(Guest *guest) {
        return guest_ask(guest, MESSAGE_RENAME, REQUEST(Rename, rename, .path = some_path(0), .to = some_path(1),
                                                        .flags = (uint32_t)below(3)));
}

static uint32_t do_ttl(Guest *guest) {
        return guest_ask(guest, MESSAGE_TTL,
                         REQUEST(Ttl, ttl, .path = some_path(0), .ttl_ns = below(3) * NSEC_PER_SEC));
}

static uint32_t do_chmod(Guest *guest) {
        return guest_ask(guest, MESSAGE_CHMOD,
                         REQUEST(Chmod, chmod, .path = some_path(0), .mode = (uint32_t)below(01000)));
}

static uint32_t do_chown(Guest *guest) {
        return guest_ask(guest, MESSAGE_CHOWN, REQUEST(Chown, chown, .path = some_path(0), .set_uid = below(2) > 0,
                                                       .uid = uids[below(3)], .set_gid = below(2) > 0, .gid = 7));
}

static uint32_t do_set_acl(Guest *guest) {
        Shmd__AclEntry entries[5], *pointers[5];
        static const uint32_t tags[5] = { ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER };
        uint32_t flags = 1 + (uint32_t)below(3);

        for (size_t i = 0; i < 5; ++i) {
                shmd__acl_entry__init(&entries[i]);
                entries[i].tag = tags[i];
                entries[i].id = tags[i] == ACL_USER ? uids[below(3)] : 0;
                entries[i].perms = (uint32_t)below(8);
                pointers[i] = &entries[i];
        }
        return guest_ask(guest, MESSAGE_SET_ACL,
                         REQUEST(SetAcl, set_acl, .path = some_path(0), .flags = flags,
                                 .n_access = flags & 1 ? 5 : 0, .access = pointers,
                                 .n_defaults = flags & 2 && below(3) ? 5 : 0, .defaults = pointers));
}

static uint32_t do_ticket(Guest *guest) {
        uint32_t r = guest_ask(guest, MESSAGE_TICKET,
                               REQUEST(Ticket, ticket, .path = some_path(0), .rights = 1 + (uint32_t)below(2),
                                       .uses = 1 + (uint32_t)below(3), .ttl_ns = below(4) ? 0 : 1));

        if (r == ANSWERED) {
                const Shmd__TicketReply *reply = (const Shmd__TicketReply *)guest->reply;

                n_ticket = reply->ticket.len;
                memcpy(ticket, reply->ticket.data, n_ticket);
        }
        return r;
}

static ProtobufCBinaryData the_ticket(void) {
        return (ProtobufCBinaryData){ .data = (uint8_t *)ticket, .len = n_ticket };
}

static uint32_t do_redeem(Guest *guest) {
        return guest_ask(guest, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = the_ticket()));
}

static uint32_t do_revoke(Guest *guest) {
        if (below(2))
                return guest_ask(guest, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .path = some_path(0)));
        return guest_ask(guest, MESSAGE_REVOKE, REQUEST(Revoke, revoke, .ticket = the_ticket()));
}

static uint32_t do_bell(Guest *guest) {
        return guest_ask(guest, MESSAGE_BELL, REQUEST(Bell, bell, .path = some_path(0), .flags = (uint32_t)below(2)));
}

static uint32_t do_freeze(Guest *guest) {
        return guest_ask(guest, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = some_path(0)));
}

/* By somebody who does nothing else: its answers come in between. */
static uint32_t do_wait(Guest *guest) {
        (void)guest;
        (void)read_all(waiter);
        return guest_ask(waiter, MESSAGE_WAIT,
                         REQUEST(Wait, wait, .path = some_path(0), .timeout_ns = NSEC_PER_SEC / 2,
                                 .until = (uint32_t)below(3)));
}

/* A policy of some directories, or of none. */
static uint32_t do_reload(Guest *guest) {
        static char a[] = "/a", ab[] = "/a/b", p[] = "/p";
        PolicyDirectory directories[] = {
                { .path = a, .permissions = { .uid = ALICE, .mode = 01777 }, .limits = { 2, { 0, 4 + below(16) } } },
                { .path = ab, .permissions = { .uid = BOB, .mode = 01777 }, .limits = { 1,
                { (1 + below(64)) * PAGE } } },
                { .path = p, .permissions = { .uid = CAROL, .mode = 0755 } },
        };
        Policy policy = { .directories = directories, .n_directories = below(4) };
        uint8_t *blob;
        uint32_t r;
        size_t n;

        REQUIRE(policy_encode(&policy, &blob, &n) == 0);
        r = guest_ask(guest, MESSAGE_RELOAD, REQUEST(Reload, reload, .total = (uint32_t)n,
                                                     .data = { .data = blob, .len = n }));
        free(blob);
        return r;
}

static const struct {
        const char *name;
        uint32_t (*ask)(Guest *guest);
        unsigned int weight;
} requests[] = {
        { "create", do_create, 16 }, { "open", do_open, 6 }, { "batch", do_batch, 6 }, { "publish", do_publish, 6 },
        { "unlink", do_unlink, 8 }, { "rmdir", do_rmdir, 6 }, { "mkdir", do_mkdir, 2 }, { "link", do_link, 6 },
        { "rename", do_rename, 4 }, { "ttl", do_ttl, 3 }, { "chmod", do_chmod, 3 }, { "chown", do_chown, 2 },
        { "set-acl", do_set_acl, 4 }, { "ticket", do_ticket, 3 }, { "redeem", do_redeem, 3 },
        { "revoke", do_revoke, 1 },
        { "bell", do_bell, 2 }, { "freeze", do_freeze, 1 }, { "wait", do_wait, 2 }, { "reload", do_reload, 2 },
};
#define N_REQUESTS (sizeof(requests) / sizeof(requests[0]))

static size_t choose(void) {
        unsigned int sum = 0;
        uint64_t at;

        for (size_t i = 0; i < N_REQUESTS; ++i)
                sum += requests[i].weight;
        at = below(sum);
        for (size_t i = 0; i < N_REQUESTS; ++i) {
                if (at < requests[i].weight)
                        return i;
                at -= requests[i].weight;
        }
        return 0;
}

/* -- the test -------------------------------------------------------------------------------- */

static void hang_up(const Guest *guest) {
        for (size_t i = 0; i < N_GUESTS; ++i) {
                if (guests[i] != guest)
                        continue;
                guests[i] = guest_free(guests[i]);
                guests[i] = guest_new(uids[i]);
                return;
        }
}

static void some_turn(void) {
        table_pass(below(4) ? 0 : NSEC_PER_SEC);
        if (n_kept > 0 && below(2)) {
                size_t i = below(n_kept);

                (void)close_fd(kept[i]);
                kept[i] = kept[--n_kept];
        }
        if (below(16) == 0)
                hang_up(guests[below(N_GUESTS)]);
}

/* A freeze needs the owner's library. */
static const char *never_done(const uint64_t *n_done) {
        for (size_t i = 0; i < N_REQUESTS; ++i)
                if (n_done[i] == 0 && requests[i].ask != do_freeze)
                        return requests[i].name;
        return NULL;
}

/* Some requests can rarely be done: where chance has it that one was not, it goes on for a while. */
TEST(request_saved, whatever_is_asked_the_state_has_it) {
        uint64_t rounds = test_rounds(20000), n_done[N_REQUESTS] = { 0 }, n_events = 0;
        bool full = rounds >= 20000;

        random_state = test_seed();
        table_defaults();
        table_options.rules.everybody.max[ACCOUNT_REGIONS] = REGIONS_MAX;
        table_open();
        for (size_t i = 0; i < N_GUESTS; ++i)
                guests[i] = guest_new(uids[i]);
        waiter = guest_new(0);
        watcher = guest_new(0);
        guest_expect_done(watcher, guest_ask(watcher, MESSAGE_WATCH,
                                             REQUEST(Watch, watch, .path = BYTES("/"), .mask = EVENT_ALL)));
        for (uint64_t round = 0; round < rounds || (full && never_done(n_done) && round < 20 * rounds); ++round) {
                Guest *guest = guests[below(3) ? below(N_GUESTS) : N_GUESTS - 1];
                size_t i = choose();

                if (requests[i].ask(guest) == ANSWERED)
                        ++n_done[i];
                keep_fds(guest);
                if (guest_peer(guest)->held.packet)
                        hang_up(guest);         /* it would have to wait for what others let go, or for a refusal */
                n_events += below(50) ? 0 : read_all(watcher);
                /* For a while there is no turn, and queues run over. */
                if (round % 512 >= 128 && below(4) == 0)
                        some_turn();
        }
        REQUIRE(!full || n_events > 0);
        REQUIRE(!full || !never_done(n_done), "%s was never done", never_done(n_done));
        for (size_t i = 0; i < N_GUESTS; ++i)
                guests[i] = guest_free(guests[i]);
        watcher = guest_free(watcher);
        waiter = guest_free(waiter);
        while (n_kept > 0)
                (void)close_fd(kept[--n_kept]);
        table_close();
}
