/* A state of format version 1 that was kept: every broker from now on reads it, in full, and goes on with it.
 *
 * tests/data/state-1.hex is a dump: its size, then what is not zero, 32 bytes a line with their offset in
 * front. tests/data/state-1.txt says what is in it, record by record; what may be different in each dump of
 * the same things (inode numbers, digests, keys, times of day) is not in there. A broker that writes
 * records otherwise gets dumps of its own beside these, which stay as they are.
 *
 * They were written by this test itself, which makes one thing of each kind and more where they differ:
 *
 *      SHMD_WRITE_STATE=tests/data/state-1 build/tests/unit/test-kept-state --filter 'kept_state/today*'
 */

#include "daemon-table.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/inspect.h"
#include "core/policy.h"
#include "core/saved.h"
#include "state-things.h"
#include "util/memfd.h"

#define ROW 32
#define TEXT_MAX 65536
#define REGIONS_MAX 32

/* -- in words ------------------------------------------------------------------------------- */

typedef struct Words {
        FILE *out;
        uint64_t n[_STATE_KIND_N];
} Words;

static void put_acl(FILE *out, const AclList *list) {
        for (size_t i = 0; i < list->n; ++i)
                fprintf(out, " %u:%" PRIu32 ":%u", list->entries[i].tag, list->entries[i].id, list->entries[i].perms);
}

static void put_permissions(FILE *out, const SavedPermissions *permissions) {
        fprintf(out, " owner %" PRIu32 ":%" PRIu32 " mode %04o", permissions->uid, permissions->gid, permissions->mode);
        put_acl(out, &permissions->acl);
}

static int put_counters(FILE *out, const uint8_t *data, size_t n) {
        SavedCounters saved;
        int r = saved_decode_counters(&saved, data, n);

        fprintf(out, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d", saved.last_region,
                saved.last_grant, saved.last_ticket, saved.last_directory, saved.last_name, saved.last_session,
                saved.sequence > 0);
        return r;
}

static int put_policy(FILE *out, const uint8_t *data, size_t n) {
        SavedPolicy saved;
        int r = saved_decode_policy(&saved, data, n);

        fprintf(out, " generation %" PRIu64 " bytes %" PRIu32 " %d", saved.generation, saved.n_blob, saved.pending);
        return r;
}

static int put_directory(FILE *out, const uint8_t *data, size_t n) {
        SavedDirectory saved;
        int r = saved_decode_directory(&saved, data, n);

        fprintf(out, " '%.*s' in %" PRIu64, (int)saved.n_name, saved.name, saved.parent);
        put_permissions(out, &saved.permissions);
        fprintf(out, " defaults %d %04o", saved.defaults.set, saved.defaults.mode);
        put_acl(out, &saved.defaults.acl);
        for (size_t i = 0; i < DIRECTORY_SLOTS; ++i)
                fprintf(out, " max %" PRIu64 " own %" PRIu64, saved.max[i], saved.own_max[i]);
        fprintf(out, " ruled %d paid %d by %" PRIu32 " created %d", saved.ruled, saved.paid, saved.payer,
                saved.created_ns > 0);
        return r;
}

static int put_region(FILE *out, const uint8_t *data, size_t n) {
        SavedRegion saved;
        int r = saved_decode_region(&saved, data, n);

        fprintf(out, " size %" PRIu64 " shift %u", saved.size, saved.huge_shift);
        put_permissions(out, &saved.permissions);
        fprintf(out, " paid by %" PRIu32 " lifetime %u state %u freezable %d published %d frozen %d", saved.payer,
                saved.lifetime, saved.state, saved.freezable, saved.published, saved.told_frozen);
        fprintf(out, " bell %d polled %d for %" PRIu64 " session %" PRIu64 " ended %" PRIu64 " created %d inode %d",
                saved.is_bell, saved.polled, saved.rings_for, saved.session, saved.ended, saved.created_ns > 0,
                saved.inode > 0);
        return r;
}

static int put_name(FILE *out, const uint8_t *data, size_t n) {
        SavedName saved;
        int r = saved_decode_name(&saved, data, n);

        fprintf(out, " '%.*s' in %" PRIu64 " of %" PRIu64 " expires %d", (int)saved.n_name,
                saved.name, saved.directory, saved.region, saved.expires_at > 0);
        return r;
}

static int put_ticket(FILE *out, const uint8_t *data, size_t n) {
        SavedTicket saved;
        int r = saved_decode_ticket(&saved, data, n);

        fprintf(out, " for %" PRIu64 " by %" PRIu32 " writable %d user %d %" PRIu32, saved.region, saved.issuer,
                saved.writable, saved.one_user, saved.uid);
        fprintf(out, " uses %" PRIu32 " left %" PRIu32 " until %d", saved.uses, saved.left, saved.until > 0);
        return r;
}

static int put_grant(FILE *out, const uint8_t *data, size_t n) {
        SavedGrant saved;
        int r = saved_decode_grant(&saved, data, n);

        fprintf(out, " of %" PRIu64 " to %" PRIu32 " writable %d marked %d ticket %d session %" PRIu64 " born %d pid %d",
                saved.region, saved.uid, saved.writable, saved.marked, saved.ticket, saved.session, saved.born > 0,
                saved.pid > 0);
        return r;
}

static int put_session(FILE *out, const uint8_t *data, size_t n) {
        SavedSession saved;
        int r = saved_decode_session(&saved, data, n);

        fprintf(out, " of %" PRIu32 " starts %" PRIu64, saved.uid, saved.starts);
        return r;
}

static int put_outcomes(FILE *out, const uint8_t *data, size_t n) {
        SavedOutcomes saved;
        int r = saved_decode_outcomes(&saved, data, n);

        fprintf(out, " session %" PRIu64 " block %u count %" PRIu32, saved.session, saved.block, saved.count);
        for (size_t i = 0; i < SAVED_OUTCOMES; ++i)
                fprintf(out, ", serial %" PRIu64 " kind %u hash %" PRIu32 " region %" PRIu64 " extra %" PRIu64,
                        saved.outcomes[i].serial, saved.outcomes[i].kind, saved.outcomes[i].hash,
                        saved.outcomes[i].region, saved.outcomes[i].extra);
        return r;
}

static int put_batch(FILE *out, const uint8_t *data, size_t n) {
        SavedBatch saved;
        int r = saved_decode_batch(&saved, data, n);

        fprintf(out, " session %" PRIu64 " slot %u", saved.session, saved.slot);
        for (size_t i = 0; i < saved.n; ++i)
                fprintf(out, " %" PRIu64, saved.items[i]);
        return r;
}

static int (*const put_record[_STATE_KIND_N])(FILE *out, const uint8_t *data, size_t n) = {
        [STATE_COUNTERS] = put_counters, [STATE_POLICY] = put_policy, [STATE_DIRECTORY] = put_directory,
        [STATE_REGION] = put_region, [STATE_NAME] = put_name, [STATE_TICKET] = put_ticket, [STATE_GRANT] = put_grant,
        [STATE_SESSION] = put_session, [STATE_OUTCOMES] = put_outcomes, [STATE_BATCH] = put_batch,
};

static int put_words(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Words *words = userdata;

        fprintf(words->out, "%s %" PRIu64, inspect_kind_name(kind), id);
        REQUIRE(put_record[kind](words->out, data, n) == 0, "%s %" PRIu64, inspect_kind_name(kind), id);
        fputc('\n', words->out);
        ++words->n[kind];
        return 0;
}

/* Everything a state says. Return: for free(3). */
static char *in_words(State *state) {
        char *text = NULL;
        size_t n;
        Words words = { .out = open_memstream(&text, &n) };

        REQUIRE(words.out);
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind) {
                REQUIRE(state_walk(state, kind, put_words, &words) == 0);
                REQUIRE(words.n[kind] > 0, "there is no %s in it", inspect_kind_name(kind));
        }
        REQUIRE(fclose(words.out) == 0);
        return text;
}

/* -- files ---------------------------------------------------------------------------------- */

static FILE *open_kept(const char *suffix, const char *mode) {
        const char *folder = getenv("SHMD_TEST_SRCDIR"), *write = getenv("SHMD_WRITE_STATE");
        char path[4096];
        FILE *file;

        if (*mode == 'w')
                (void)snprintf(path, sizeof(path), "%s%s", write, suffix);
        else
                (void)snprintf(path, sizeof(path), "%s/tests/data/state-1%s", folder ? folder : ".", suffix);
        file = fopen(path, mode);
        REQUIRE(file, "%s", path);
        return file;
}

/* Return: the memory that the dump is. */
static int read_dump(void) {
        int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        FILE *file = open_kept(".hex", "re");
        uint64_t size, at;
        char hex[2 * ROW + 1];

        REQUIRE(fd >= 0 && fscanf(file, "size %" SCNu64, &size) == 1 && ftruncate(fd, (off_t)size) == 0);
        while (fscanf(file, "%" SCNx64 " %64s", &at, hex) == 2) {
                uint8_t row[ROW];

                REQUIRE(strlen(hex) == sizeof(hex) - 1);
                for (size_t i = 0; i < ROW; ++i)
                        REQUIRE(sscanf(hex + 2 * i, "%2hhx", &row[i]) == 1);
                REQUIRE(pwrite(fd, row, ROW, (off_t)at) == ROW);
        }
        REQUIRE(feof(file) && fclose(file) == 0);
        return fd;
}

static void write_dump(int fd) {
        static const uint8_t zero[ROW];
        FILE *file = open_kept(".hex", "we");
        uint8_t row[ROW];
        struct stat st;

        REQUIRE(fstat(fd, &st) == 0);
        fprintf(file, "size %jd\n", (intmax_t)st.st_size);
        for (off_t at = 0; at < st.st_size; at += ROW) {
                REQUIRE(pread(fd, row, ROW, at) == ROW);
                if (!memcmp(row, zero, ROW))
                        continue;
                fprintf(file, "%08jx ", (intmax_t)at);
                for (size_t i = 0; i < ROW; ++i)
                        fprintf(file, "%02x", row[i]);
                fputc('\n', file);
        }
        REQUIRE(fclose(file) == 0);
}

static char *read_words(void) {
        FILE *file = open_kept(".txt", "re");
        char *text = calloc(1, TEXT_MAX);
        size_t n;

        REQUIRE(text);
        n = fread(text, 1, TEXT_MAX - 1, file);
        REQUIRE(n > 0 && n < TEXT_MAX - 1 && fclose(file) == 0);
        return text;
}

static void write_words(const char *text) {
        FILE *file = open_kept(".txt", "we");

        REQUIRE(fputs(text, file) >= 0 && fclose(file) == 0);
}

/* -- what is in it --------------------------------------------------------------------------- */

static int held[REGIONS_MAX];
static size_t n_held;

/* Keeps what was granted. Return: the number of the region. */
static uint64_t hold(Guest *guest) {
        REQUIRE(n_held < REGIONS_MAX);
        held[n_held++] = fdlist_take(&guest->fds);
        return ((const Shmd__Granted *)guest->reply)->region;
}

static uint64_t create(Guest *guest, const char *path, uint64_t size, uint32_t lifetime, uint32_t flags) {
        guest_expect_done(guest, guest_ask(guest, MESSAGE_CREATE,
                                           REQUEST(Create, create, .path = BYTES(path), .size = size, .mode = 0640,
                                                   .rights = 2, .lifetime = lifetime, .flags = flags)));
        return hold(guest);
}

static void set_acl(Guest *guest, const char *path, uint32_t flags) {
        Shmd__AclEntry entries[5], *pointers[5];
        static const uint32_t tags[5] = { ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER };

        for (size_t i = 0; i < 5; ++i) {
                shmd__acl_entry__init(&entries[i]);
                entries[i].tag = tags[i];
                entries[i].id = tags[i] == ACL_USER ? CAROL : 0;
                entries[i].perms = 7 - (uint32_t)i;
                pointers[i] = &entries[i];
        }
        guest_expect_done(guest, guest_ask(guest, MESSAGE_SET_ACL,
                                           REQUEST(SetAcl, set_acl, .path = BYTES(path), .flags = flags,
                                                   .n_access = flags & 1 ? 5 : 0, .access = pointers,
                                                   .n_defaults = flags & 2 ? 5 : 0, .defaults = pointers)));
}

static void make_directories(Guest *root, Guest *alice) {
        static char path[] = "/ruled";
        PolicyDirectory ruled = { .path = path, .permissions = { .uid = ALICE, .gid = 7, .mode = 01777 },
                                  .limits = { 3, { UINT64_C(1) << 30, 100 } } };
        Policy policy = { .directories = &ruled, .n_directories = 1 };
        uint8_t *blob;
        size_t n;

        guest_expect_done(root, ask_mkdir(root, "/open", 01777));
        guest_expect_done(alice, ask_mkdir(alice, "/open/alice", 0750));
        guest_expect_done(alice, ask_mkdir(alice, "/open/alice/\xc3\xa4", 0700));
        set_acl(alice, "/open/alice", 3);
        REQUIRE(policy_encode(&policy, &blob, &n) == 0);
        guest_expect_done(root, guest_ask(root, MESSAGE_RELOAD,
                                          REQUEST(Reload, reload, .total = (uint32_t)n,
                                                  .data = { .data = blob, .len = n })));
        free(blob);
}

static void make_regions(Guest *alice, Guest *bob) {
        uint64_t id = create(alice, "/open/alice/named", 10000, 0, 0);
        Shmd__BatchItem items[2] = { SHMD__BATCH_ITEM__INIT, SHMD__BATCH_ITEM__INIT };
        Shmd__BatchItem *pointers[2] = { items, items + 1 };
        Shmd__Create made = SHMD__CREATE__INIT;
        Shmd__Open opened = SHMD__OPEN__INIT;

        guest_expect_done(alice, guest_ask(alice, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES("/open/alice/named"),
                                                                        .to = BYTES("/open/alice/\xc3\xa4/again"))));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_TTL, REQUEST(Ttl, ttl, .path = BYTES("/open/alice/named"),
                                                                       .ttl_ns = UINT64_C(1) << 60)));
        guest_expect_done(alice, guest_ask(alice, MESSAGE_BELL, REQUEST(Bell, bell, .region = id)));
        held[n_held++] = fdlist_take(&alice->fds);
        set_acl(alice, "/open/alice/named", 1);
        (void)create(bob, "/open/session", 4096, SHMD__LIFETIME__LIFETIME_SESSION, 0);
        (void)create(bob, "/open/counted", 1 << 20, SHMD__LIFETIME__LIFETIME_COUNTED, 0);
        (void)create(bob, "/open/freezable", 4096, 0, SHMD__CREATE_FLAGS__CREATE_FREEZABLE);
        (void)create(bob, "/open/orphan", 4096, 0, 0);
        guest_expect_done(bob, ask_unlink(bob, "/open/orphan"));
        (void)create(bob, "/ruled/x", 0, 0, 0);

        made.path = BYTES("/open/batched"), made.size = 1, made.mode = 0666, made.rights = 1;
        opened.path = BYTES("/open/counted"), opened.rights = 1;
        items[0].create = &made;
        items[1].open = &opened;
        guest_expect_done(bob, guest_ask(bob, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = 2, .items = pointers)));
        held[n_held++] = fdlist_take(&bob->fds);
        held[n_held++] = fdlist_take(&bob->fds);
}

static void make_tickets(Guest *alice, Guest *bob) {
        Shmd__Ticket ticket = SHMD__TICKET__INIT;
        Shmd__Redeem redeem = SHMD__REDEEM__INIT;
        uint8_t text[TICKET_TEXT_BYTES];

        ticket.path = BYTES("/open/alice/named");
        ticket.rights = ticket.uses = 1;
        guest_expect_done(alice, guest_ask(alice, MESSAGE_TICKET, &ticket.base));
        ticket.rights = 2, ticket.uses = 3;
        ticket.flags = SHMD__TICKET_FLAGS__TICKET_ONE_USER, ticket.uid = BOB;
        guest_expect_done(alice, guest_ask(alice, MESSAGE_TICKET, &ticket.base));
        memcpy(text, ((const Shmd__TicketReply *)alice->reply)->ticket.data, sizeof(text));
        redeem.ticket = (ProtobufCBinaryData){ .data = text, .len = sizeof(text) };
        guest_expect_done(bob, guest_ask(bob, MESSAGE_REDEEM, &redeem.base));
        (void)hold(bob);
}

static int take_state(Guest *root) {
        uint32_t r = guest_ask(root, MESSAGE_STATE, REQUEST(State, state));

        if (r == HELD)
                r = guest_await(root);
        guest_expect_done(root, r);
        return fdlist_take(&root->fds);
}

static int unsealed_copy(int from) {
        int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        char buffer[65536];
        ssize_t n;

        for (off_t at = 0; (n = pread(from, buffer, sizeof(buffer), at)) > 0; at += n)
                REQUIRE(pwrite(fd, buffer, (size_t)n, at) == n);
        return fd;
}

static void tell(void *userdata, const char *text) {
        fprintf(stderr, "%s\n", text);
}

static void expect_sound(State *state) {
        Inspection inspection;

        REQUIRE(inspect_state(state, tell, NULL, &inspection) == 0);
        REQUIRE(inspection.n_mistakes == 0 && state_damaged(state) == 0);
}

/* -- tests ------------------------------------------------------------------------------------ */

/* Today's broker has something of every kind to keep, which is what was kept then. */
TEST(kept_state, today_there_is_something_of_every_kind) {
        Guest *root, *alice, *bob;
        State *state;
        char *words;
        int fd;

        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        bob = guest_new(BOB);
        make_directories(root, alice);
        make_regions(alice, bob);
        make_tickets(alice, bob);
        fd = take_state(root);
        state = adopt(unsealed_copy(fd));
        expect_sound(state);
        words = in_words(state);
        if (getenv("SHMD_WRITE_STATE")) {
                write_dump(fd);
                write_words(words);
        }
        free(words);
        (void)state_free(state);
        (void)close_fd(fd);
        root = guest_free(root);
        alice = guest_free(alice);
        bob = guest_free(bob);
        while (n_held > 0)
                (void)close_fd(held[--n_held]);
        table_close();
}

TEST(kept_state, version_1_is_read_to_the_last_field) {
        State *state = adopt(read_dump());
        char *words = in_words(state), *kept = read_words();

        expect_sound(state);
        cr_assert_str_eq(words, kept);
        free(words);
        free(kept);
        (void)state_free(state);
}

/* -- and one goes on with it -------------------------------------------------------------------- */

typedef struct Move {
        State *to;
        Thing *things;
        size_t n;
        Kept kept[REGIONS_MAX + 1];
        size_t n_kept;
} Move;

/* The records of then, and regions of today for them: what memory they had is gone. */
static int move_record(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n) {
        Move *move = userdata;
        Thing *thing = &move->things[move->n++];
        SavedRegion saved;
        struct stat st;
        Kept *kept;

        *thing = (Thing){ .n = n };
        memcpy(thing->data, data, n);
        if (kind == STATE_REGION) {
                kept = &move->kept[move->n_kept++];
                REQUIRE(move->n_kept < REGIONS_MAX && saved_decode_region(&saved, data, n) == 0);
                region_store_name(id, kept->name);
                REQUIRE(memfd_make(&(MemfdSpec){ .id = id, .size = saved.size, .freezable = saved.freezable,
                                                 .readable = saved.is_bell }, &kept->fd) == 0);
                REQUIRE(fstat(kept->fd, &st) == 0);
                saved.inode = st.st_ino;
                thing->n = saved_encode_region(&saved, thing->data);
        }
        state_add(move->to, &thing->record, kind, id);
        return 0;
}

static void move_all(Move *move) {
        State *from = adopt(read_dump());

        *move = (Move){ .to = make(CELLS_MAX), .things = calloc(1000, sizeof(Thing)) };
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                REQUIRE(state_walk(from, kind, move_record, move) == 0);
        state_commit(move->to);
        (void)state_free(from);
        strcpy(move->kept[move->n_kept].name, "state");
        move->kept[move->n_kept++].fd = copy_of(move->to);
        for (size_t i = 0; i < move->n; ++i)
                state_drop(&move->things[i].record);
        (void)state_free(move->to);
        free(move->things);
}

static void expect_node(const Guest *guest, uid_t owner, uint32_t mode) {
        const Shmd__Node *node = ((const Shmd__StatReply *)guest->reply)->node;

        cr_assert_eq(node->uid, owner);
        cr_assert_eq(node->mode, mode, "%04o", node->mode);
}

TEST(kept_state, a_broker_of_today_goes_on_with_version_1) {
        BrokerStart start = { .n_kept = 0 };
        Guest *root, *alice, *carol;
        State *state;
        Move move;

        move_all(&move);
        start = (BrokerStart){ .kept = move.kept, .n_kept = move.n_kept };
        table_defaults();
        table_options.start = &start;
        table_open();
        root = guest_new(0);
        alice = guest_new(ALICE);
        carol = guest_new(CAROL);
        guest_expect_done(root, ask_stat(root, "/open/alice"));
        expect_node(root, ALICE, 0743);
        guest_expect_done(root, ask_stat(root, "/open/alice/\xc3\xa4/again"));
        expect_node(root, ALICE, 0743);
        guest_expect_done(carol, ask_stat(carol, "/open/batched"));
        expect_node(carol, BOB, 0666);
        guest_expect(carol, DENIED, SEARCH, ask_stat(carol, "/open/alice/\xc3\xa4/again"));
        guest_expect_done(alice, ask_create(alice, "/open/alice/new", 4096, 0600));
        fdlist_deinit(&alice->fds);
        state = adopt(unsealed_copy(state_fd(table->state)));
        expect_sound(state);
        (void)state_free(state);
        root = guest_free(root);
        alice = guest_free(alice);
        carol = guest_free(carol);
        table_options.start = NULL;
        table_close();
}
