/* daemon/broker: a broker that dies at any store of any request is followed by one that has all of the request or
 * nothing of it.
 *
 * Requests of every kind that changes something are answered under a spy, which gets the stores into the state in
 * their order. Then, for each prefix of them, the memory is made as it was at that instant, and two things are
 * looked at: what the state says is true (core/inspect), and is what it said before the request or what it says
 * after it; and a whole broker begins with it, and with the descriptors that are kept at that instant, or may be:
 * those of all regions that there were or are. Its books balance, and what it saves then is the same again.
 */

#include "daemon-table.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/inspect.h"
#include "core/state.h"
#include "util/probe.h"

enum {
        WRITES_MAX = 4096,
        BYTES_MAX = 1 << 24,
        RECORDS_MAX = 8192,
        KEPT_MAX = 64,
        HELD_MAX = 32,
};

typedef struct Write {
        uint64_t offset, length;        /* of the file then */
        size_t n, at;
} Write;

/* What is in a state: a line for each record. */
typedef struct Records {
        struct Said {
                uint32_t kind, n;
                uint64_t id, sum;
        } list[RECORDS_MAX];
        size_t n;
} Records;

static Guest *alice, *bob, *root;
static Write writes[WRITES_MAX];
static uint8_t bytes[BYTES_MAX], image[BYTES_MAX];
static size_t n_writes, n_bytes;
static uint64_t image_length;
static Kept kept[KEPT_MAX];
static size_t n_kept;
static int held[HELD_MAX];
static size_t n_held;
static uint64_t number;         /* of the region made last */
static char ticket[128];
static uint64_t n_prefixes;

/* -- recording --------------------------------------------------------------------------------- */

static uint64_t length_now(void) {
        struct stat st;

        REQUIRE(fstat(state_fd(table->state), &st) == 0 && st.st_size <= BYTES_MAX);
        return (uint64_t)st.st_size;
}

static void record(void *userdata, uint64_t offset, const void *data, size_t n) {
        REQUIRE(n_writes < WRITES_MAX && n_bytes + n <= BYTES_MAX, "the tape is full");
        writes[n_writes++] = (Write){ .offset = offset, .length = length_now(), .n = n, .at = n_bytes };
        memcpy(bytes + n_bytes, data, n);
        n_bytes += n;
}

/* A copy of the descriptor of each region that there is, unless there is one. */
static void keep_regions(void) {
        for (Region *region = regions_after(&table->regions, 0); region;
             region = regions_after(&table->regions, region->id)) {
                char name[FDSTORE_NAME_MAX];
                size_t i = 0;

                region_store_name(region->id, name);
                while (i < n_kept && strcmp(kept[i].name, name))
                        ++i;
                if (i < n_kept || region->fd < 0)
                        continue;
                REQUIRE(n_kept < KEPT_MAX);
                memcpy(kept[n_kept].name, name, sizeof(name));
                kept[n_kept].fd = fcntl(region->fd, F_DUPFD_CLOEXEC, 3);
                REQUIRE(kept[n_kept++].fd >= 0);
        }
}

static void let_go_of_kept(void) {
        while (n_kept > 0)
                (void)close_fd(kept[--n_kept].fd);
}

/* -- what a state says --------------------------------------------------------------------------- */

static int note_record(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Records *records = userdata;
        uint64_t sum = 14695981039346656037U;

        REQUIRE(records->n < RECORDS_MAX);
        for (size_t i = 0; i < n; ++i)
                sum = (sum ^ data[i]) * 1099511628211U;
        records->list[records->n++] = (struct Said){ .kind = kind, .n = (uint32_t)n, .id = id, .sum = sum };
        return 0;
}

static int compare_records(const void *a, const void *b) {
        const struct Said *x = a, *y = b;

        return x->kind != y->kind ? (x->kind > y->kind) - (x->kind < y->kind) : (x->id > y->id) - (x->id < y->id);
}

static void complain(void *userdata, const char *text) {
        fprintf(stderr, "%s: %s\n", (const char *)userdata, text);
}

/* Reads a state that another process would find; the descriptor is consumed. */
static void read_state(int fd, const char *what, Records *ret) {
        Inspection inspection;
        const char *sentence;
        State *state;
        int r;

        r = state_adopt_consume_fd(&state, fd, 0, &sentence);
        REQUIRE(r == 0, "%s: %d, %s", what, r, sentence ? sentence : "");
        REQUIRE(state_damaged(state) == 0, "%s: %lu damaged cells", what, (unsigned long)state_damaged(state));
        REQUIRE(inspect_state(state, complain, (void *)what, &inspection) == 0 && inspection.n_mistakes == 0,
                "%s: what the state says cannot be", what);
        ret->n = 0;
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                REQUIRE(state_walk(state, kind, note_record, ret) == 0);
        qsort(ret->list, ret->n, sizeof(ret->list[0]), compare_records);
        (void)state_free(state);
}

/* Return: whether two say the same, of what must stay through a restart, or of everything. */
static bool same_records(const Records *a, const Records *b, bool everything) {
        static Records sides[2];

        for (size_t side = 0; side < 2; ++side) {
                const Records *from = side ? b : a;

                memset(&sides[side], 0, sizeof(sides[side]));
                for (size_t i = 0; i < from->n; ++i) {
                        uint32_t kind = from->list[i].kind;

                        if (everything || kind == STATE_DIRECTORY || kind == STATE_NAME || kind == STATE_TICKET ||
                            kind == STATE_OUTCOMES || kind == STATE_BATCH)
                                sides[side].list[sides[side].n++] = from->list[i];
                }
        }
        return sides[0].n == sides[1].n && memcmp(sides[0].list, sides[1].list, sizeof(sides[0].list)) == 0;
}

/* The memory as it was after some of the stores. Return: its descriptor. */
static int memory_after(size_t n) {
        int fd = memfd_create("shmd-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        uint64_t length = image_length;

        for (size_t i = 0; i < n; ++i)
                length = writes[i].length > length ? writes[i].length : length;
        REQUIRE(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
        REQUIRE(pwrite(fd, image, image_length, 0) == (ssize_t)image_length);
        for (size_t i = 0; i < n; ++i)
                REQUIRE(pwrite(fd, bytes + writes[i].at, writes[i].n, (off_t)writes[i].offset) == (ssize_t)writes[i].n);
        return fd;
}

/* -- a broker after it ----------------------------------------------------------------------------- */

static void recover_broker(int fd, const char *what, Records *ret) {
        int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), again;
        Kept copies[KEPT_MAX + 1] = { { .name = "state", .fd = fd } };
        BrokerStart start = { .kept = copies, .n_kept = n_kept + 1 };
        BrokerOptions options = table_options;
        bool had_inotify = probe_have(PROBE_INOTIFY);
        const BrokerDirectory *bad;
        Broker *broker;
        sigset_t none;
        int r;

        again = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        REQUIRE(bind(listening, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0);
        REQUIRE(listen(listening, 1) == 0 && sigemptyset(&none) == 0 && again >= 0);
        for (size_t i = 0; i < n_kept; ++i) {
                copies[i + 1] = kept[i];
                copies[i + 1].fd = fcntl(kept[i].fd, F_DUPFD_CLOEXEC, 3);
                REQUIRE(copies[i + 1].fd >= 0);
        }
        options.start = &start;
        /* It is not asked who holds what, and the kernel takes long to end what had watches. */
        probe_force(PROBE_INOTIFY, false);
        r = broker_new_consume_fds(&broker, &options, listening, signalfd(-1, &none, SFD_CLOEXEC | SFD_NONBLOCK), &bad);
        probe_force(PROBE_INOTIFY, had_inotify);
        REQUIRE(r == 0, "%s: the next broker does not begin: %d, %s", what, r, start.sentence);
        broker_commit(broker);
        REQUIRE(broker_free(broker), "%s: the books of the next broker are not balanced", what);
        read_state(again, what, ret);
}

/* -- the requests ------------------------------------------------------------------------------------ */

static uint32_t done(Guest *guest, uint32_t result) {
        int fd;

        if (result == ANSWERED && guest->header.kind == (MESSAGE_CREATE | MESSAGE_REPLY))
                number = ((const Shmd__Granted *)guest->reply)->region;
        while (result == ANSWERED && (fd = fdlist_take(&guest->fds)) >= 0) {
                REQUIRE(n_held < HELD_MAX);
                held[n_held++] = fd;
        }
        return result;
}

#define STEP(function, who, KIND, ...)                                                  \
        static uint32_t function(void) {                                                \
                return done(who, guest_ask(who, MESSAGE_##KIND, REQUEST(__VA_ARGS__))); \
        }

#define LONG "/d/a-longer-name-than-one-cell-of-the-state-has-room-for-beside-all-that-a-name-has-there-and-more"

STEP(step_mkdir, alice, MKDIR, Mkdir, mkdir, .path = BYTES("/d"), .mode = 0777)
STEP(step_mkdir_below, alice, MKDIR, Mkdir, mkdir, .path = BYTES("/d/e"), .mode = 0700)
STEP(step_create, alice, CREATE, Create, create, .path = BYTES("/d/a"), .size = 5000, .mode = 0666, .rights = 2)
STEP(step_create_long, alice, CREATE, Create, create, .path = BYTES(LONG), .size = 5000, .mode = 0666, .rights = 1)
STEP(step_create_again, bob, CREATE, Create, create, .path = BYTES("/d/a"), .size = 5000, .mode = 0666, .rights = 1,
     .flags = 1)
STEP(step_create_no_grant, alice, CREATE, Create, create, .path = BYTES("/d/b"), .size = 1, .mode = 0600)
STEP(step_create_session, bob, CREATE, Create, create, .path = BYTES("/d/s"), .size = 1, .mode = 0600, .lifetime = 1)
STEP(step_create_unnamed, alice, CREATE, Create, create, .size = 9, .mode = 0600, .rights = 2)
STEP(step_open, bob, OPEN, Open, open, .path = BYTES("/d/a"), .rights = 1)
STEP(step_publish, alice, PUBLISH, Publish, publish, .region = number, .path = BYTES("/d/c"), .ttl_ns = NSEC_PER_SEC * 99)
STEP(step_replace, alice, PUBLISH, Publish, publish, .region = number, .path = BYTES("/d/c"), .flags = 1)
STEP(step_link, alice, LINK, Link, link, .path = BYTES("/d/a"), .to = BYTES("/d/e/link"))
STEP(step_rename, alice, RENAME, Rename, rename, .path = BYTES("/d/b"), .to = BYTES("/d/e/b"))
STEP(step_rename_replace, alice, RENAME, Rename, rename, .path = BYTES("/d/e/b"), .to = BYTES("/d/c"), .flags = 1)
STEP(step_exchange, alice, RENAME, Rename, rename, .path = BYTES("/d/e"), .to = BYTES("/d/a"), .flags = 2)
STEP(step_exchange_back, alice, RENAME, Rename, rename, .path = BYTES("/d/e"), .to = BYTES("/d/a"), .flags = 2)
STEP(step_ttl, alice, TTL, Ttl, ttl, .path = BYTES("/d/a"), .ttl_ns = NSEC_PER_SEC * 1000)
STEP(step_chmod, alice, CHMOD, Chmod, chmod, .path = BYTES("/d/a"), .mode = 0644)
STEP(step_chown, root, CHOWN, Chown, chown, .path = BYTES("/d/a"), .uid = BOB, .set_uid = true)
STEP(step_chown_back, root, CHOWN, Chown, chown, .path = BYTES("/d/a"), .uid = ALICE, .set_uid = true)
STEP(step_bell, alice, BELL, Bell, bell, .path = BYTES("/d/a"), .flags = 1)
STEP(step_revoke, alice, REVOKE, Revoke, revoke, .path = BYTES("/d/a"))
STEP(step_unlink_one, alice, UNLINK, Remove, remove, .path = BYTES("/d/e/link"))
STEP(step_unlink_held, alice, UNLINK, Remove, remove, .path = BYTES("/d/a"))
STEP(step_unlink, alice, UNLINK, Remove, remove, .path = BYTES("/d/c"))
STEP(step_rmdir, alice, RMDIR, Remove, remove, .path = BYTES("/d/e"))
STEP(step_short_lived, alice, CREATE, Create, create, .path = BYTES("/d/t"), .size = 1, .mode = 0600, .ttl_ns = 1)

static uint32_t step_batch(void) {
        Shmd__BatchItem items[20], *list[20];
        Shmd__Create creates[20];
        char paths[20][32];

        for (size_t i = 0; i < 20; ++i) {
                (void)snprintf(paths[i], sizeof(paths[i]), "/d/batch%zu", i);
                shmd__create__init(&creates[i]);
                creates[i].path = BYTES(paths[i]);
                creates[i].size = i + 1;
                creates[i].mode = 0600;
                shmd__batch_item__init(&items[i]);
                items[i].create = &creates[i];
                list[i] = &items[i];
        }
        return guest_ask(alice, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 20, .items = list));
}

/* More entries than a cell has room for. */
static uint32_t step_set_acl(void) {
        Shmd__AclEntry entries[24], *list[24];

        for (uint32_t i = 0; i < 24; ++i) {
                shmd__acl_entry__init(&entries[i]);
                list[i] = &entries[i];
                entries[i].tag = i == 0 ? 1 : i < 21 ? 2 : i == 21 ? 3 : i == 22 ? 5 : 6;
                entries[i].id = i > 0 && i < 21 ? 70000 + i : 0;
                entries[i].perms = i == 23 ? 0 : 6;
        }
        return guest_ask(alice, MESSAGE_SET_ACL,
                         REQUEST(SetAcl, set_acl, .path = BYTES("/d"), .flags = 2, .n_defaults = 24, .defaults = list));
}

static uint32_t step_ticket(void) {
        uint32_t result = guest_ask(alice, MESSAGE_TICKET,
                                    REQUEST(Ticket, ticket, .path = BYTES("/d/a"), .rights = 1, .uses = 2,
                                            .ttl_ns = NSEC_PER_SEC * 99));

        if (result == ANSWERED) {
                const Shmd__TicketReply *reply = (const Shmd__TicketReply *)alice->reply;

                REQUIRE(reply->ticket.len < sizeof(ticket));
                memset(ticket, 0, sizeof(ticket));
                memcpy(ticket, reply->ticket.data, reply->ticket.len);
        }
        return result;
}

static uint32_t step_redeem(void) {
        return done(bob, guest_ask(bob, MESSAGE_REDEEM, REQUEST(Redeem, redeem, .ticket = BYTES(ticket))));
}

static uint32_t step_expire(void) {
        table_pass(NSEC_PER_SEC);
        broker_commit(table);
        return ANSWERED;
}

static uint32_t step_session_ends(void) {
        bob = guest_free(bob);
        broker_commit(table);
        return ANSWERED;
}

static const struct {
        const char *name;
        uint32_t (*fn)(void);
} steps[] = {
        { "mkdir", step_mkdir }, { "mkdir below", step_mkdir_below }, { "create", step_create },
        { "create, a long name", step_create_long }, { "create, there already", step_create_again },
        { "create, no grant", step_create_no_grant }, { "create, session", step_create_session }, { "open", step_open },
        { "create, unnamed", step_create_unnamed }, { "publish", step_publish },
        { "create, unnamed", step_create_unnamed }, { "publish --replace", step_replace }, { "batch", step_batch },
        { "link", step_link }, { "rename", step_rename }, { "rename --replace", step_rename_replace },
        { "rename --exchange", step_exchange }, { "rename --exchange", step_exchange_back }, { "ttl", step_ttl },
        { "chmod", step_chmod }, { "chown", step_chown }, { "chown", step_chown_back }, { "set-acl", step_set_acl },
        { "ticket", step_ticket }, { "redeem", step_redeem }, { "redeem, the last use", step_redeem },
        { "ticket", step_ticket }, { "revoke", step_revoke }, { "bell", step_bell },
        { "create, short", step_short_lived }, { "a name expires", step_expire },
        { "unlink, one of two", step_unlink_one }, { "unlink, held", step_unlink_held }, { "unlink", step_unlink },
        { "rmdir", step_rmdir }, { "a session ends", step_session_ends },
};

/* -- every prefix ---------------------------------------------------------------------------------- */

static void check_prefixes(const char *what) {
        static Records before, after, now, next;
        bool changed = false;

        read_state(memory_after(0), what, &before);
        read_state(memory_after(n_writes), what, &after);
        REQUIRE(!same_records(&before, &after, true), "%s changes nothing", what);
        for (size_t n = 0; n <= n_writes; ++n) {
                bool is_before, is_after;

                read_state(memory_after(n), what, &now);
                is_before = same_records(&now, &before, true);
                is_after = same_records(&now, &after, true);
                REQUIRE(is_before || is_after, "%s: after %zu of %zu stores the state is neither as before nor as after",
                        what, n, n_writes);
                REQUIRE(is_after || !changed, "%s: after %zu of %zu stores the state is as before again", what, n,
                        n_writes);
                changed = is_after && !is_before;
                recover_broker(memory_after(n), what, &next);
                REQUIRE(same_records(&now, &next, false), "%s: after %zu of %zu stores the next broker has something else",
                        what, n, n_writes);
                ++n_prefixes;
        }
}

static void run_step(size_t i) {
        uint32_t result;

        broker_commit(table);
        keep_regions();
        image_length = length_now();
        REQUIRE(pread(state_fd(table->state), image, image_length, 0) == (ssize_t)image_length);
        n_writes = n_bytes = 0;
        state_spy(record, NULL);
        result = steps[i].fn();
        state_spy(NULL, NULL);
        REQUIRE(result == ANSWERED, "%s: %u", steps[i].name, result);
        REQUIRE(n_writes > 0, "%s stores nothing", steps[i].name);
        keep_regions();
        check_prefixes(steps[i].name);
        let_go_of_kept();
}

TEST(request_crash, after_any_store_of_any_request_the_next_broker_has_all_of_it_or_nothing) {
        table_defaults();
        table_options.uid = geteuid();
        table_open();
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
        root = guest_new(0);
        for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); ++i)
                run_step(i);
        fprintf(stderr, "%lu prefixes of the stores of %zu requests\n", (unsigned long)n_prefixes,
                sizeof(steps) / sizeof(*steps));
        while (n_held > 0)
                (void)close_fd(held[--n_held]);
        alice = guest_free(alice);
        root = guest_free(root);
        table_close();
}

/* -- after much else in the same turn --------------------------------------------------------------- */

enum {
        JOURNAL_CELLS = 8192,
        DONE_AT = 200,          /* the last thing that a transaction stores */
        DIRECTORIES = 4200,
};

static Node *many[DIRECTORIES];
static Records whole[16];
static size_t n_whole;

static void note_whole(void *userdata, uint64_t offset, const void *data, size_t n) {
        if (offset != DONE_AT)
                return;
        REQUIRE(n_whole < sizeof(whole) / sizeof(*whole));
        image_length = length_now();
        REQUIRE(pread(state_fd(table->state), image, image_length, 0) == (ssize_t)image_length);
        /* The copy is stored into as well. */
        state_spy(NULL, NULL);
        read_state(memory_after(0), "a whole transaction", &whole[n_whole++]);
        state_spy(note_whole, NULL);
}

/* Return: how many cells the record of each has. */
static uint32_t make_many(void) {
        uint32_t used;
        char path[32];
        Spot spot;

        guest_expect_done(root, guest_ask(root, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES("/m"), .mode = 0755)));
        used = state_cells_used(table->state);
        for (size_t i = 0; i < DIRECTORIES; ++i) {
                (void)snprintf(path, sizeof(path), "/m/%zu", i + 10000);
                guest_expect_done(root, ask_mkdir(root, path, 0700));
                REQUIRE(tree_find(&table->tree, &guest_peer(root)->who, path, strlen(path), &spot) == 0);
                many[i] = spot.node;
        }
        return (state_cells_used(table->state) - used + DIRECTORIES / 2) / DIRECTORIES;
}

/* Its records are the last ones of a journal, and the first ones of the next. */
TEST(request_crash, a_request_is_one_transaction_however_much_else_was_before_it_in_its_turn) {
        size_t n_split = 0;
        uint32_t cells;

        table_defaults();
        table_checks = false;
        table_open();
        REQUIRE(state_make_room(table->state, 3 * JOURNAL_CELLS) == 0);
        alice = guest_new(ALICE);
        root = guest_new(0);
        guest_expect_done(alice, ask_mkdir(alice, "/d", 0700));
        cells = make_many();
        for (size_t n = (JOURNAL_CELLS - 64) / cells; n <= JOURNAL_CELLS / cells + 1; ++n) {
                guest_expect_done(alice, done(alice, ask_create(alice, "/d/a", 1, 0600)));
                guest_expect_done(alice, done(alice, ask_create(alice, "/d/b", 1, 0600)));
                while (n_held > 0)
                        (void)close_fd(held[--n_held]);
                broker_commit(table);
                for (size_t i = 0; i < n; ++i)
                        node_touch(many[i]);
                n_whole = 0;
                state_spy(note_whole, NULL);
                guest_expect_done(alice, guest_ask(alice, MESSAGE_RENAME,
                                                   REQUEST(Rename, rename, .path = BYTES("/d/a"), .to = BYTES("/d/b"),
                                                           .flags = 1)));
                state_spy(NULL, NULL);
                n_split += n_whole > 1;
                for (size_t i = 0; i + 1 < n_whole; ++i)
                        REQUIRE(same_records(&whole[i], &whole[0], true) ||
                                same_records(&whole[i], &whole[n_whole - 1], true),
                                "after %zu of %zu transactions, with %zu directories before", i + 1, n_whole, n);
                guest_expect_done(alice, ask_unlink(alice, "/d/b"));
        }
        cr_assert_gt(n_split, 0);
        alice = guest_free(alice);
        root = guest_free(root);
        table_close();
}
