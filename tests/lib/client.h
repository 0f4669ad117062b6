/* A client that speaks the wire protocol itself, well or badly.
 *
 * It stands on proto/ alone, not on the library, so that it can send what the library never
 * would and see every byte of the answer. The call_*() verbs send a request, wait for its
 * answer, and return the wire's error (0: done); client->refusal then says more. They are used
 * through two assertions that print the refusal when it is not the expected one:
 *
 *      client_expect_done(alice, call_mkdir(alice, "/music", 0700));
 *      client_expect_error(bob, DENIED, SEARCH, call_open(bob, "/music/loud", READ_ONLY, NULL));
 */
#ifndef TESTS_LIB_CLIENT_H
#define TESTS_LIB_CLIENT_H

#include <sys/stat.h>

#include "lib/broker.h"
#include "proto/message.h"
#include "proto/wire.h"

#define READ_ONLY SHMD__RIGHTS__RIGHTS_READ_ONLY
#define READ_WRITE SHMD__RIGHTS__RIGHTS_READ_WRITE
#define NO_RIGHTS SHMD__RIGHTS__RIGHTS_NONE
#define PAGE UINT64_C(4096)

typedef struct Client {
        int fd;
        uint64_t serial;                /* of the latest request */
        Arena *arena;
        uint8_t *packet;

        /* The latest answer; valid until the next one is received. */
        WireHeader header;
        ProtobufCMessage *reply;        /* or NULL */
        Shmd__Refusal *refusal;         /* or NULL */
        Shmd__Events *events;           /* or NULL */
        FdList fds;

        /* Called for each event that comes; NULL: client_receive() returns CLIENT_EVENTS. */
        void (*on_event)(struct Client *client, const Shmd__Event *event, void *userdata);
        void *event_userdata;

        uint64_t features;              /* what it wishes for in its hello */
        Shmd__HelloReply hello;         /* the answer to hello; its bytes are not kept */
        uint8_t session[MESSAGE_SESSION_BYTES];
} Client;

/* A grant that came with an answer; the descriptor is the test's. */
typedef struct Grant {
        int fd;
        uint64_t region;
        uint64_t size;
        uint32_t rights;
        uint32_t outcome;
        uint64_t grant;
        bool marker;
        bool freezable;
} Grant;

#define GRANT_NULL { .fd = -1 }

/* Bytes from a string literal or a string, for the fields of a request. */
#define BYTES(string) ((ProtobufCBinaryData){ .len = strlen(string), .data = (uint8_t *)(string) })

/* A request: REQUEST(Mkdir, mkdir, .path = BYTES("/a"), .mode = 0755) is a ProtobufCMessage *. */
#define REQUEST(Type, type, ...) \
        (&((Shmd__##Type){ .base = PROTOBUF_C_MESSAGE_INIT(&shmd__##type##__descriptor), __VA_ARGS__ }).base)

/* A batch of read-only opens of "PREFIX0" and so on, so many of them; valid until the next one is made. */
const ProtobufCMessage *request_opens(const char *prefix, size_t n);

/* Connects as a user, with that group alone, and says hello. As the test's own user when it is
 * not root. Return: the client; the test fails if the broker does not take it. */
Client *client_connect_as(Broker *broker, uid_t uid, gid_t gid);
/* The same with supplementary groups. */
Client *client_connect_with_groups(Broker *broker, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);
/* Connects and says nothing. */
Client *client_connect_silently(Broker *broker, uid_t uid, gid_t gid);
/* Connects to a socket's path and says nothing. Return: 0, or the negative errno of connect(2). */
int client_try_connect(Client **ret, const char *socket, uid_t uid, gid_t gid);
/* Says hello, with client->features. Return: the wire's error. */
uint32_t client_hello(Client *client);
/* Connects again and says hello with the session that it has, as the same user: to the broker that took
 * over from the one it was connected to. What it has not received is lost. Return: whether it has the
 * session again. */
bool client_resume(Client *client, Broker *broker, uid_t uid, gid_t gid);
/* Closes the connection. Return: NULL. */
Client *client_free(Client *client);

/* Sends a request without waiting for the answer. Return: its serial. */
uint64_t client_send(Client *client, MessageKind kind, const ProtobufCMessage *request);
/* Packs a request. Return: its length. */
size_t client_pack(uint8_t *packet, size_t n_max, uint16_t kind, uint64_t serial, const ProtobufCMessage *request);
/* Sends bytes as they are. Return: 0, or the negative errno of send(2). */
int client_send_raw(Client *client, const void *packet, size_t n);
int client_send_fds(Client *client, const void *packet, size_t n, const int *fds, size_t n_fds);

enum {
        CLIENT_REPLY,           /* client->reply */
        CLIENT_REFUSED,         /* client->refusal */
        CLIENT_CLOSED,          /* the connection is over */
        CLIENT_SILENT,          /* nothing came in that time */
        CLIENT_EVENTS,          /* client->events */
};

/* Receives the next packet. */
int client_receive(Client *client, int timeout_ms);
/* Reads until the connection is over; the test fails if it is not. Return: packets received. */
size_t client_drain(Client *client);
/* Requires that nothing more comes and the connection is over. */
void client_expect_closed(Client *client);

/* Sends a request and receives its answer. Return: the wire's error, 0 for a reply. The test
 * fails if anything else comes. */
uint32_t client_call(Client *client, MessageKind kind, const ProtobufCMessage *request);

#define client_expect_done(client, call)                                                \
        do {                                                                            \
                if ((call) != 0)                                                        \
                        test_fail(__FILE__, __LINE__, #call, " %s", client_describe(client)); \
        } while (0)

#define client_expect_error(client, error_name, reason_name, call)                      \
        do {                                                                            \
                if ((call) != SHMD__ERROR__ERROR_##error_name ||                        \
                    (client)->refusal->reason != SHMD__REASON__REASON_##reason_name)    \
                        test_fail(__FILE__, __LINE__, #call, " expected " #error_name "/" #reason_name ", got %s", \
                                  client_describe(client));                             \
        } while (0)

/* The latest answer in words. */
const char *client_describe(Client *client);

uint32_t call_ping(Client *client);
/* A region with mode 0600 and a read-write grant. grant may be NULL: then it asks for none. */
uint32_t call_create(Client *client, const char *path, uint64_t size, Grant *grant);
uint32_t call_create_mode(Client *client, const char *path, uint64_t size, uint32_t mode, Grant *grant);
/* Any create; the descriptor is closed if grant is NULL. */
uint32_t call_create_with(Client *client, const ProtobufCMessage *create, Grant *grant);
uint32_t call_open(Client *client, const char *path, uint32_t rights, Grant *grant);
uint32_t call_publish(Client *client, uint64_t region, const char *path, uint32_t flags);
/* The node is in (Shmd__StatReply *)client->reply. */
uint32_t call_stat(Client *client, const char *path);
uint32_t call_list(Client *client, const char *path, uint32_t flags);
uint32_t call_mkdir(Client *client, const char *path, uint32_t mode);
uint32_t call_rmdir(Client *client, const char *path);
uint32_t call_unlink(Client *client, const char *path);
uint32_t call_link(Client *client, const char *path, const char *to);
uint32_t call_rename(Client *client, const char *path, const char *to, uint32_t flags);
uint32_t call_chmod(Client *client, const char *path, uint32_t mode);
uint32_t call_chown(Client *client, const char *path, int64_t uid, int64_t gid);
uint32_t call_wait(Client *client, const char *path, uint64_t timeout_ns);

/* Takes the grant out of a Granted and its descriptor out of the answer. */
void client_take_grant(Client *client, const Shmd__Granted *granted, Grant *grant);
void grant_deinit(Grant *grant);

/* A slot of the client's own account, of everything, or of a directory. */
uint64_t client_used(Client *client, uint32_t slot);
uint64_t client_limit(Client *client, uint32_t slot);
uint64_t client_total_used(Client *client, uint32_t slot);
uint64_t client_directory_used(Client *client, const char *path, uint32_t slot);
/* Waits until the client's own account has exactly that much in use. */
void client_expect_used(Client *client, uint32_t slot, uint64_t amount);

#endif
