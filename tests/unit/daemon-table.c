/* A broker in this process, and its guests: see the header for the model. */

#include "daemon-table.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/audit.h"
#include "core/inspect.h"
#include "daemon-saved.h"
#include "util/log.h"
#include "util/probe.h"

Broker *table;
BrokerOptions table_options;
bool table_checks = true;

static int log_fd = -1;

/* What a request has changed is looked for in the whole state; where there are many requests, not each time. */
#define CHECKS_FIRST 100
#define CHECKS_EVERY 32

void table_defaults(void) {
        table_options = (BrokerOptions){
                .root_mode = 01777,
                .wait_max_ns = 3600 * NSEC_PER_SEC,
                .ticket_max_ns = 24 * 3600 * NSEC_PER_SEC,
                .hello_ns = 10 * NSEC_PER_SEC,
                .stall_ns = 30 * NSEC_PER_SEC,
                .session_grace_ns = 10 * NSEC_PER_SEC,
                .version = "test",
                .kept_by = "",
                .last_end = "",
        };
        table_options.rules.global.slots = table_options.rules.everybody.slots = LIMITS_ALL;
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                table_options.rules.global.max[i] = QUOTA_UNLIMITED;
                table_options.rules.everybody.max[i] = UINT64_C(1) << 40;
        }
}

static void open_broker(void) {
        const BrokerDirectory *bad;
        int listening, signals;
        sigset_t none;

        listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        REQUIRE(bind(listening, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0);
        REQUIRE(listen(listening, 1) == 0);
        (void)sigemptyset(&none);
        signals = signalfd(-1, &none, SFD_CLOEXEC | SFD_NONBLOCK);
        REQUIRE(broker_new_consume_fds(&table, &table_options, listening, signals, &bad) == 0);
}

void table_open(void) {
        test_needs_root();
        if (!table_options.version)
                table_defaults();
        log_fd = memfd_create("log", MFD_CLOEXEC);
        REQUIRE(log_fd >= 0 && log_open(log_fd) == 0);
        REQUIRE(probe_run() == 0);
        open_broker();
}

static void keep(Kept *kept, int fd) {
        kept->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        REQUIRE(kept->fd >= 0);
}

void table_restart(void) {
        Kept *kept = calloc(table->regions.n + 1, sizeof(*kept));
        BrokerStart start = { .kept = kept, .n_kept = 1 };

        REQUIRE(kept);
        broker_commit(table);
        (void)snprintf(kept[0].name, sizeof(kept[0].name), "state");
        keep(&kept[0], state_fd(table->state));
        for (Region *region = regions_after(&table->regions, 0); region;
             region = regions_after(&table->regions, region->id)) {
                region_store_name(region->id, kept[start.n_kept].name);
                keep(&kept[start.n_kept++], region->fd);
        }
        REQUIRE(broker_free(table), "the books are not balanced");
        table_options.start = &start;
        open_broker();
        table_options.start = NULL;
        free(kept);
}

void table_check_saved(void) {
        static unsigned int n;

        if (!table_checks)
                return;
        broker_commit(table);
        if (n++ >= CHECKS_FIRST && n % CHECKS_EVERY != 0)
                return;
        (void)saved_check(&(SavedHouse){ .state = table->state, .tree = &table->tree, .regions = &table->regions,
                                         .grants = &table->grants, .tickets = &table->tickets,
                                         .counters = &table->counters, .events = &table->events,
                                         .policy = &table->policy_record, .whole = true });
}

static void tell_mistake(void *userdata, const char *text) {
        (void)userdata;
        fprintf(stderr, "the state says: %s\n", text);
}

/* What the next broker would find does not contradict itself. */
static void inspect_saved(void) {
        CLEANUP(state_freep) State *state = NULL;
        const char *sentence = NULL;
        Inspection inspection;

        broker_commit(table);
        REQUIRE(state_adopt_consume_fd(&state, fcntl(state_fd(table->state), F_DUPFD_CLOEXEC, 0), 0, &sentence) == 0,
                "%s", sentence ? sentence : "?");
        REQUIRE(inspect_state(state, tell_mistake, NULL, &inspection) == 0 && inspection.n_mistakes == 0);
}

void table_close(void) {
        if (table->state)
                inspect_saved();
        REQUIRE(broker_free(table), "the books are not balanced");
        table = NULL;
        log_close();
        log_fd = close_fd(log_fd);
}

void table_new_turn(void) {
        Account *account = accounts_next_user(&table->accounts, 0);

        for (; account; account = accounts_next_user(&table->accounts, account->uid + 1))
                account->turn.spent = 0;
}

void table_pass_to(uint64_t at) {
        if (regions_fd(&table->regions) >= 0)
                regions_dispatch(&table->regions);
        table_new_turn();
        deadlines_run(&table->deadlines, at);
        table_check_saved();
}

void table_pass(uint64_t ns) {
        table_pass_to(time_now() + ns);
}

const char *table_log(void) {
        static char text[1 << 20];
        ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

        REQUIRE(n >= 0);
        text[n] = '\0';
        return text;
}

size_t table_log_count(const char *what) {
        size_t n = 0;

        for (const char *at = table_log(); (at = strstr(at, what)); ++at)
                ++n;
        return n;
}

/* -- guests ------------------------------------------------------------------------------ */

/* A pair of sockets whose ends belong to somebody else, as SO_PEERCRED has it. */
static void connect_as(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups, int ends[2]) {
        gid_t saved[65536];
        int n = getgroups(65536, saved);

        REQUIRE(n >= 0 && syscall(SYS_setgroups, n_groups, groups) == 0, "%s", strerror(errno));
        REQUIRE(syscall(SYS_setresgid, -1, gid, -1) == 0 && syscall(SYS_setresuid, -1, uid, -1) == 0);
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
        REQUIRE(syscall(SYS_setresuid, -1, 0, -1) == 0 && syscall(SYS_setresgid, -1, 0, -1) == 0);
        REQUIRE(syscall(SYS_setgroups, n, saved) == 0);
}

Guest *guest_connect(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        Guest *guest = calloc(1, sizeof(*guest));
        uint64_t before = table->last_peer;
        int ends[2];

        REQUIRE(guest && arena_new(&guest->arena, 1 << 20) == 0);
        connect_as(uid, gid, groups, n_groups, ends);
        guest->uid = uid;
        guest->fd = ends[1];
        peer_accept_consume_fd(table, ends[0]);
        guest->id = table->last_peer > before ? table->last_peer : 0;
        return guest;
}

bool guest_come_back(Guest *guest) {
        int ends[2];

        fdlist_deinit(&guest->fds);
        close_fd(guest->fd);
        connect_as(guest->uid, guest->uid, NULL, 0, ends);
        guest->fd = ends[1];
        peer_accept_consume_fd(table, ends[0]);
        guest->id = table->last_peer;
        guest_expect_done(guest, guest_ask(guest, MESSAGE_HELLO,
                          REQUEST(Hello, hello, .version = MESSAGE_VERSION,
                                  .session = { .len = sizeof(guest->session), .data = guest->session })));
        return ((const Shmd__HelloReply *)guest->reply)->resumed;
}

Guest *guest_new(uid_t uid) {
        Guest *guest = guest_connect(uid, uid, NULL, 0);

        guest_expect_done(guest, ask_hello(guest));
        return guest;
}

Peer *guest_peer(const Guest *guest) {
        return peers_find(table, guest->id);
}

Guest *guest_free(Guest *guest) {
        Peer *peer = guest_peer(guest);

        fdlist_deinit(&guest->fds);
        guest->fd = close_fd(guest->fd);
        if (peer)
                (void)peer_free(peer);
        (void)arena_free(guest->arena);
        free(guest);
        return NULL;
}

uint32_t guest_receive(Guest *guest) {
        static uint8_t packet[WIRE_REPLY_MAX];
        ProtobufCMessage *message;
        unsigned int kind;
        int r;

        guest->reply = NULL;
        guest->refusal = NULL;
        fdlist_deinit(&guest->fds);
        r = wire_receive(guest->fd, packet, sizeof(packet), &guest->fds, &guest->header);
        if (r == WIRE_E_AGAIN)
                return SILENT;
        if (r == WIRE_E_EOF)
                return CLOSED;
        REQUIRE(r == 0, "%d", r);
        kind = guest->header.kind;
        arena_reset(guest->arena);
        r = message_unpack(guest->arena, kind == MESSAGE_REFUSAL ? kind : kind & ~MESSAGE_REPLY, true,
                           packet + sizeof(WireHeader), guest->header.length - sizeof(WireHeader), &message);
        REQUIRE(r == 0, "an answer of kind %#x cannot be read: %d", kind, r);
        guest->reply = message;
        if (kind != MESSAGE_REFUSAL)
                return ANSWERED;
        guest->refusal = (Shmd__Refusal *)message;
        return guest->refusal->error;
}

uint32_t guest_await(Guest *guest) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        uint32_t answer;

        while ((answer = guest_receive(guest)) == SILENT) {
                REQUIRE(test_now_ms() < end, "no answer");
                table_pass(NSEC_PER_SEC);
                test_sleep_ms(1);
        }
        return answer;
}

uint32_t guest_ask_raw(Guest *guest, unsigned int kind, uint64_t serial, const void *payload, size_t n) {
        Peer *peer = guest_peer(guest);
        WireHeader header;
        uint32_t answer;
        int r;

        REQUIRE(peer && n + sizeof(WireHeader) <= WIRE_REQUEST_MAX);
        wire_put_header(table->request, n + sizeof(WireHeader), (uint16_t)kind, 0, serial);
        memcpy(table->request + sizeof(WireHeader), payload, n);
        wire_get_header(table->request, &header);
        r = request_dispatch(peer, &header, table->request, &(uint64_t){ time_now() });
        REQUIRE(r >= 0, "%d", r);
        REQUIRE(r != 0 || !state_is_dirty(table->state), "something was changed after the answer");
        table_check_saved();
        if (r == REQUEST_E_HELD)
                return HELD;
        answer = guest_receive(guest);
        REQUIRE(answer == SILENT || guest->header.serial == serial);
        return answer == SILENT && r == REQUEST_E_CLOSED ? (uint32_t)CLOSED : answer;
}

uint32_t guest_ask(Guest *guest, unsigned int kind, const ProtobufCMessage *request) {
        static uint8_t payload[WIRE_REQUEST_MAX];
        size_t n;

        REQUIRE(message_pack(request, payload, sizeof(payload) - sizeof(WireHeader), &n) == 0);
        return guest_ask_raw(guest, kind, ++guest->serial, payload, n);
}

const char *guest_describe(const Guest *guest, uint32_t result) {
        static char text[512];

        if (result == HELD || result == CLOSED || result == SILENT)
                return result == HELD ? "held" : result == CLOSED ? "closed" : "silent";
        if (!guest->refusal)
                return "answered";
        (void)snprintf(text, sizeof(text), "%s/%s: %.*s", audit_error_name(result),
                       message_reason_name(guest->refusal->reason), (int)guest->refusal->sentence.len,
                       (const char *)guest->refusal->sentence.data);
        return text;
}

uint32_t ask_hello(Guest *guest) {
        uint32_t answer = guest_ask(guest, MESSAGE_HELLO, REQUEST(Hello, hello, .version = MESSAGE_VERSION));
        const Shmd__HelloReply *reply = (const Shmd__HelloReply *)guest->reply;

        if (answer == ANSWERED && reply->session.len == sizeof(guest->session))
                memcpy(guest->session, reply->session.data, sizeof(guest->session));
        return answer;
}

uint32_t ask_create(Guest *guest, const char *path, uint64_t size, uint32_t mode) {
        return guest_ask(guest, MESSAGE_CREATE,
                         REQUEST(Create, create, .path = BYTES(path), .size = size, .mode = mode,
                                 .rights = SHMD__RIGHTS__RIGHTS_READ_WRITE));
}

uint32_t ask_open(Guest *guest, const char *path, uint32_t rights) {
        return guest_ask(guest, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES(path), .rights = rights));
}

uint32_t ask_mkdir(Guest *guest, const char *path, uint32_t mode) {
        return guest_ask(guest, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES(path), .mode = mode));
}

uint32_t ask_unlink(Guest *guest, const char *path) {
        return guest_ask(guest, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES(path)));
}

uint32_t ask_stat(Guest *guest, const char *path) {
        return guest_ask(guest, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES(path)));
}
