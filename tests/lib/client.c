/* A client that speaks the wire protocol itself: see the header for the model. */

#include "lib/client.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Replies decode into more than they are long. */
#define CLIENT_ARENA (8u << 20)

/* Not where there is nothing to do: root of a user namespace may not be allowed to. */
static int set_groups(const gid_t *groups, size_t n) {
        return n == 0 && getgroups(0, NULL) == 0 ? 0 : setgroups(n, groups);
}

/* The kernel tells the broker the ids that the connecting thread has at connect(2). */
static int connect_as(int fd, const char *path, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        bool root = geteuid() == 0;
        int r;

        REQUIRE(strlen(path) < sizeof(address.sun_path));
        memcpy(address.sun_path, path, strlen(path));
        if (root)
                REQUIRE(set_groups(groups, n_groups) == 0 && setegid(gid) == 0 && seteuid(uid) == 0, "%s",
                        strerror(errno));
        r = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
        if (root)
                REQUIRE(seteuid(0) == 0 && setegid(0) == 0 && set_groups(NULL, 0) == 0);
        return r;
}

static Client *client_new(void) {
        Client *client = calloc(1, sizeof(*client));

        REQUIRE(client);
        client->packet = malloc(WIRE_REPLY_MAX);
        REQUIRE(client->packet && arena_new(&client->arena, CLIENT_ARENA) == 0);
        client->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        REQUIRE(client->fd >= 0, "%s", strerror(errno));
        return client;
}

static void forget_answer(Client *client) {
        fdlist_deinit(&client->fds);
        arena_reset(client->arena);
        client->reply = NULL;
        client->refusal = NULL;
        client->events = NULL;
}

Client *client_free(Client *client) {
        if (client) {
                forget_answer(client);
                close_fd(client->fd);
                arena_free(client->arena);
                free(client->packet);
                free(client);
        }
        return NULL;
}

int client_try_connect(Client **ret, const char *path, uid_t uid, gid_t gid) {
        Client *client = client_new();
        int r = connect_as(client->fd, path, uid, gid, NULL, 0);

        if (r < 0) {
                (void)client_free(client);
                return r;
        }
        *ret = client;
        return 0;
}

Client *client_connect_silently(Broker *broker, uid_t uid, gid_t gid) {
        Client *client = NULL;
        int r = client_try_connect(&client, broker->socket, uid, gid);

        REQUIRE(r == 0, "connect: %s", strerror(-r));
        return client;
}

static int exchange(Client *client, MessageKind kind, const ProtobufCMessage *request);

/* Return: CLIENT_REPLY, CLIENT_REFUSED or CLIENT_CLOSED. */
static int greet(Client *client, uint8_t *session, size_t n) {
        int r = exchange(client, MESSAGE_HELLO,
                         REQUEST(Hello, hello, .version = MESSAGE_VERSION, .features = client->features,
                                 .session = { .len = n, .data = session }));

        if (r == CLIENT_REPLY) {
                client->hello = *(Shmd__HelloReply *)client->reply;
                REQUIRE(client->hello.session.len == MESSAGE_SESSION_BYTES);
                memcpy(client->session, client->hello.session.data, MESSAGE_SESSION_BYTES);
        }
        return r;
}

/* No test has a broker that waits less for a hello. */
#define HELLO_MS 1000

/* On a busy machine a client may be so late with its hello that the broker has closed it: then it comes again. */
Client *client_connect_with_groups(Broker *broker, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS, began;
        Client *client = NULL;
        int r;

        do {
                (void)client_free(client);
                client = client_new();
                began = test_now_ms();
                r = connect_as(client->fd, broker->socket, uid, gid, groups, n_groups);
                REQUIRE(r == 0, "connect: %s", strerror(-r));
                r = greet(client, NULL, 0);
        } while (r == CLIENT_CLOSED && test_now_ms() - began >= HELLO_MS && test_now_ms() < end);
        REQUIRE(r != CLIENT_CLOSED, "closed instead of answering hello");
        REQUIRE(r == CLIENT_REPLY, "hello: %s", client_describe(client));
        return client;
}

Client *client_connect_as(Broker *broker, uid_t uid, gid_t gid) {
        return client_connect_with_groups(broker, uid, gid, NULL, 0);
}

static uint32_t say_hello(Client *client, uint8_t *session, size_t n) {
        int r = greet(client, session, n);

        REQUIRE(r != CLIENT_CLOSED, "closed instead of answering hello");
        return r == CLIENT_REFUSED ? client->refusal->error : 0;
}

bool client_resume(Client *client, Broker *broker, uid_t uid, gid_t gid) {
        int r;

        forget_answer(client);
        close_fd(client->fd);
        client->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        REQUIRE(client->fd >= 0, "%s", strerror(errno));
        r = connect_as(client->fd, broker->socket, uid, gid, NULL, 0);
        REQUIRE(r == 0, "connect: %s", strerror(-r));
        client_expect_done(client, say_hello(client, client->session, sizeof(client->session)));
        return client->hello.resumed;
}

uint32_t client_hello(Client *client) {
        return say_hello(client, NULL, 0);
}

size_t client_pack(uint8_t *packet, size_t n_max, uint16_t kind, uint64_t serial, const ProtobufCMessage *request) {
        size_t n;

        REQUIRE(message_pack(request, packet + sizeof(WireHeader), n_max - sizeof(WireHeader), &n) == 0);
        n += sizeof(WireHeader);
        wire_put_header(packet, n, kind, 0, serial);
        return n;
}

int client_send_fds(Client *client, const void *packet, size_t n, const int *fds, size_t n_fds) {
        struct iovec iov = { .iov_base = (void *)packet, .iov_len = n };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        char control[CMSG_SPACE(256 * sizeof(int))] = { 0 };

        REQUIRE(n_fds <= 256);
        if (n_fds) {
                struct cmsghdr *c;

                msg.msg_control = control;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                c = CMSG_FIRSTHDR(&msg);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }
        return sendmsg(client->fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int client_send_raw(Client *client, const void *packet, size_t n) {
        return client_send_fds(client, packet, n, NULL, 0);
}

uint64_t client_send(Client *client, MessageKind kind, const ProtobufCMessage *request) {
        uint8_t packet[WIRE_REQUEST_MAX];
        size_t n = client_pack(packet, sizeof(packet), (uint16_t)kind, ++client->serial, request);
        int r = client_send_raw(client, packet, n);

        REQUIRE(r == 0, "send: %s", strerror(-r));
        return client->serial;
}

static void decode_answer(Client *client) {
        uint32_t kind = client->header.kind;
        bool refused = kind == MESSAGE_REFUSAL, events = kind == MESSAGE_EVENT;
        ProtobufCMessage *message;
        int r;

        REQUIRE(kind & MESSAGE_REPLY, "a packet of kind %u", kind);
        r = message_unpack(client->arena, refused || events ? kind : kind & ~MESSAGE_REPLY, true,
                           client->packet + sizeof(WireHeader), client->header.length - sizeof(WireHeader), &message);
        REQUIRE(r == 0, "an answer of kind %#x does not decode: %d", kind, r);
        if (refused)
                client->refusal = (Shmd__Refusal *)message;
        else if (events)
                client->events = (Shmd__Events *)message;
        else
                client->reply = message;
}

static int receive_packet(Client *client, int timeout_ms) {
        struct pollfd p = { .fd = client->fd, .events = POLLIN };
        int r;

        forget_answer(client);
        do
                r = poll(&p, 1, timeout_ms);
        while (r < 0 && errno == EINTR);
        if (r == 0)
                return CLIENT_SILENT;

        r = wire_receive(client->fd, client->packet, WIRE_REPLY_MAX, &client->fds, &client->header);
        if (r == WIRE_E_EOF)
                return CLIENT_CLOSED;
        REQUIRE(r == 0, "what came is no packet: %d", r);
        decode_answer(client);
        return client->refusal ? CLIENT_REFUSED : client->events ? CLIENT_EVENTS : CLIENT_REPLY;
}

int client_receive(Client *client, int timeout_ms) {
        for (;;) {
                int r = receive_packet(client, timeout_ms);

                if (r != CLIENT_EVENTS || !client->on_event)
                        return r;
                for (size_t i = 0; i < client->events->n_events; ++i)
                        client->on_event(client, client->events->events[i], client->event_userdata);
        }
}

size_t client_drain(Client *client) {
        size_t n = 0;

        for (;; ++n) {
                int r = client_receive(client, TEST_PATIENCE_MS);

                REQUIRE(r != CLIENT_SILENT, "the connection is still open");
                if (r == CLIENT_CLOSED)
                        return n;
        }
}

void client_expect_closed(Client *client) {
        int r = client_receive(client, TEST_PATIENCE_MS);

        REQUIRE(r != CLIENT_SILENT, "the connection is still open");
        REQUIRE(r == CLIENT_CLOSED, "instead of the end came %s", client_describe(client));
}

/* Return: CLIENT_REPLY, CLIENT_REFUSED or CLIENT_CLOSED; the test fails if anything else comes. */
static int exchange(Client *client, MessageKind kind, const ProtobufCMessage *request) {
        uint8_t packet[WIRE_REQUEST_MAX];
        size_t n = client_pack(packet, sizeof(packet), (uint16_t)kind, ++client->serial, request);
        uint64_t serial = client->serial;
        int r = client_send_raw(client, packet, n);

        if (r == -EPIPE || r == -ECONNRESET)
                return CLIENT_CLOSED;
        REQUIRE(r == 0, "send: %s", strerror(-r));
        r = client_receive(client, TEST_PATIENCE_MS);
        REQUIRE(r != CLIENT_SILENT, "no answer to %s", message_name(kind));
        if (r == CLIENT_CLOSED)
                return r;
        REQUIRE(client->header.serial == serial, "an answer to serial %" PRIu64 " instead of %" PRIu64 ": %s",
                client->header.serial, serial, client_describe(client));
        if (r == CLIENT_REFUSED)
                REQUIRE(client->refusal->error != 0 && client->header.n_fds == 0);
        else
                REQUIRE(client->header.kind == ((uint32_t)kind | MESSAGE_REPLY));
        return r;
}

uint32_t client_call(Client *client, MessageKind kind, const ProtobufCMessage *request) {
        int r = exchange(client, kind, request);

        REQUIRE(r != CLIENT_CLOSED, "closed instead of answering %s", message_name(kind));
        return r == CLIENT_REFUSED ? client->refusal->error : 0;
}

static const char *enum_name(const ProtobufCEnumDescriptor *descriptor, uint32_t value) {
        const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(descriptor, (int)value);

        return v ? v->name : "unknown";
}

const char *client_describe(Client *client) {
        static char text[512];
        Shmd__Refusal *refusal = client->refusal;

        if (!refusal) {
                (void)snprintf(text, sizeof(text), "%s", client->reply ? client->reply->descriptor->name : "nothing");
                return text;
        }
        (void)snprintf(text, sizeof(text),
                       "%s/%s thing=\"%.*s\" slot=%u uid=%u asked=%" PRIu64 " left=%" PRIu64 " limit=%" PRIu64
                       " index=%u \"%.*s\"",
                       enum_name(&shmd__error__descriptor, refusal->error),
                       enum_name(&shmd__reason__descriptor, refusal->reason),
                       (int)refusal->thing.len, (char *)refusal->thing.data, refusal->slot, refusal->uid,
                       refusal->asked, refusal->left, refusal->limit, refusal->index,
                       (int)refusal->sentence.len, (char *)refusal->sentence.data);
        return text;
}

void grant_deinit(Grant *grant) {
        grant->fd = close_fd(grant->fd);
}

void client_take_grant(Client *client, const Shmd__Granted *granted, Grant *grant) {
        int fd = granted->granted ? fdlist_take(&client->fds) : -1;

        REQUIRE(!granted->granted || fd >= 0, "a grant without its descriptor");
        *grant = (Grant){
                .fd = fd,
                .region = granted->region,
                .size = granted->size,
                .rights = granted->rights,
                .outcome = granted->outcome,
                .grant = granted->grant,
                .marker = granted->marker,
                .freezable = granted->freezable,
        };
}

const ProtobufCMessage *request_opens(const char *prefix, size_t n) {
        static Shmd__BatchItem items[MESSAGE_BATCH_MAX], *list[MESSAGE_BATCH_MAX];
        static Shmd__Open opens[MESSAGE_BATCH_MAX];
        static char paths[MESSAGE_BATCH_MAX][64];
        static Shmd__Batch batch;

        REQUIRE(n <= MESSAGE_BATCH_MAX);
        for (size_t i = 0; i < n; ++i) {
                (void)snprintf(paths[i], sizeof(paths[i]), "%s%zu", prefix, i);
                opens[i] = (Shmd__Open)SHMD__OPEN__INIT;
                opens[i].path = BYTES(paths[i]);
                opens[i].rights = READ_ONLY;
                items[i] = (Shmd__BatchItem)SHMD__BATCH_ITEM__INIT;
                items[i].open = &opens[i];
                list[i] = &items[i];
        }
        batch = (Shmd__Batch)SHMD__BATCH__INIT;
        batch.n_items = n;
        batch.items = list;
        return &batch.base;
}

static uint32_t call_for_grant(Client *client, MessageKind kind, const ProtobufCMessage *request, Grant *grant) {
        uint32_t error = client_call(client, kind, request);

        if (error == 0 && grant)
                client_take_grant(client, (Shmd__Granted *)client->reply, grant);
        return error;
}

uint32_t call_create_with(Client *client, const ProtobufCMessage *create, Grant *grant) {
        return call_for_grant(client, MESSAGE_CREATE, create, grant);
}

uint32_t call_create_mode(Client *client, const char *path, uint64_t size, uint32_t mode, Grant *grant) {
        return call_create_with(client,
                                REQUEST(Create, create, .path = BYTES(path ? path : ""), .size = size, .mode = mode,
                                        .rights = grant ? READ_WRITE : NO_RIGHTS),
                                grant);
}

uint32_t call_create(Client *client, const char *path, uint64_t size, Grant *grant) {
        return call_create_mode(client, path, size, 0600, grant);
}

uint32_t call_open(Client *client, const char *path, uint32_t rights, Grant *grant) {
        return call_for_grant(client, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES(path), .rights = rights), grant);
}

uint32_t call_ping(Client *client) {
        uint32_t error = client_call(client, MESSAGE_PING, REQUEST(Ping, ping, .payload = BYTES("are you there")));

        if (error == 0) {
                Shmd__Ping *pong = (Shmd__Ping *)client->reply;

                REQUIRE(pong->payload.len == 13 && memcmp(pong->payload.data, "are you there", 13) == 0);
        }
        return error;
}

uint32_t call_publish(Client *client, uint64_t region, const char *path, uint32_t flags) {
        return client_call(client, MESSAGE_PUBLISH,
                           REQUEST(Publish, publish, .region = region, .path = BYTES(path), .flags = flags));
}

uint32_t call_stat(Client *client, const char *path) {
        return client_call(client, MESSAGE_STAT, REQUEST(Stat, stat, .path = BYTES(path)));
}

uint32_t call_list(Client *client, const char *path, uint32_t flags) {
        return client_call(client, MESSAGE_LIST, REQUEST(List, list, .path = BYTES(path), .flags = flags));
}

uint32_t call_mkdir(Client *client, const char *path, uint32_t mode) {
        return client_call(client, MESSAGE_MKDIR, REQUEST(Mkdir, mkdir, .path = BYTES(path), .mode = mode));
}

uint32_t call_rmdir(Client *client, const char *path) {
        return client_call(client, MESSAGE_RMDIR, REQUEST(Remove, remove, .path = BYTES(path)));
}

uint32_t call_unlink(Client *client, const char *path) {
        return client_call(client, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES(path)));
}

uint32_t call_link(Client *client, const char *path, const char *to) {
        return client_call(client, MESSAGE_LINK, REQUEST(Link, link, .path = BYTES(path), .to = BYTES(to)));
}

uint32_t call_rename(Client *client, const char *path, const char *to, uint32_t flags) {
        return client_call(client, MESSAGE_RENAME,
                           REQUEST(Rename, rename, .path = BYTES(path), .to = BYTES(to), .flags = flags));
}

uint32_t call_chmod(Client *client, const char *path, uint32_t mode) {
        return client_call(client, MESSAGE_CHMOD, REQUEST(Chmod, chmod, .path = BYTES(path), .mode = mode));
}

uint32_t call_chown(Client *client, const char *path, int64_t uid, int64_t gid) {
        return client_call(client, MESSAGE_CHOWN,
                           REQUEST(Chown, chown, .path = BYTES(path), .set_uid = uid >= 0,
                                   .uid = uid >= 0 ? (uint32_t)uid : 0, .set_gid = gid >= 0,
                                   .gid = gid >= 0 ? (uint32_t)gid : 0));
}

uint32_t call_wait(Client *client, const char *path, uint64_t timeout_ns) {
        return client_call(client, MESSAGE_WAIT,
                           REQUEST(Wait, wait, .path = BYTES(path), .timeout_ns = timeout_ns));
}

static Shmd__SlotUse slot_use(Client *client, const ProtobufCMessage *df, uint32_t slot) {
        Shmd__DfReply *reply;

        client_expect_done(client, client_call(client, MESSAGE_DF, df));
        reply = (Shmd__DfReply *)client->reply;
        REQUIRE(reply->n_accounts == 1);
        for (size_t i = 0; i < reply->accounts[0]->n_slots; ++i)
                if (reply->accounts[0]->slots[i]->slot == slot)
                        return *reply->accounts[0]->slots[i];
        test_fail(__FILE__, __LINE__, "df has the slot", " %u", slot);
}

uint64_t client_used(Client *client, uint32_t slot) {
        return slot_use(client, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT), slot).used;
}

uint64_t client_limit(Client *client, uint32_t slot) {
        return slot_use(client, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT), slot).limit;
}

uint64_t client_total_used(Client *client, uint32_t slot) {
        return slot_use(client, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_TOTAL), slot).used;
}

uint64_t client_directory_used(Client *client, const char *path, uint32_t slot) {
        return slot_use(client, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_DIRECTORY, .path = BYTES(path)),
                        slot).used;
}

typedef struct UseWanted {
        Client *client;
        uint32_t slot;
        uint64_t amount;
} UseWanted;

static bool uses_exactly(void *userdata) {
        UseWanted *wanted = userdata;

        return client_used(wanted->client, wanted->slot) == wanted->amount;
}

void client_expect_used(Client *client, uint32_t slot, uint64_t amount) {
        bool reached = test_eventually(uses_exactly, &(UseWanted){ client, slot, amount });

        REQUIRE(reached, "slot %u: %" PRIu64 " in use, not %" PRIu64, slot, client_used(client, slot), amount);
}
