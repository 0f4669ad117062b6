/* A broker in this process, and its guests: for the unit tests of the layer that answers.
 *
 * Nothing runs by itself: a guest's request is dispatched when the test says so, and the answer is
 * read from the guest's end of a real socket. Guests are of any uid (which needs root). The log
 * goes into a file that the test can look at.
 */
#ifndef TESTS_UNIT_DAEMON_TABLE_H
#define TESTS_UNIT_DAEMON_TABLE_H

#include "broker/broker.h"
#include "broker/peer.h"
#include "broker/request.h"
#include "daemon-house.h"
#include "proto/message.h"
#include "proto/wire.h"

#define ERROR(name) SHMD__ERROR__ERROR_##name
#define REASON(name) SHMD__REASON__REASON_##name
#define BYTES(string) ((ProtobufCBinaryData){ .len = strlen(string), .data = (uint8_t *)(string) })

/* REQUEST(Mkdir, mkdir, .path = BYTES("/a"), .mode = 0755) is a ProtobufCMessage *. */
#define REQUEST(Type, type, ...) \
        (&((Shmd__##Type){ .base = PROTOBUF_C_MESSAGE_INIT(&shmd__##type##__descriptor), __VA_ARGS__ }).base)

/* What became of a request, beside ERROR(...): */
enum {
        ANSWERED = 0,
        HELD = 1000,            /* kept by the broker */
        CLOSED,                 /* the peer is over, and no refusal was sent */
        SILENT,                 /* taken; no answer yet */
};

typedef struct Guest {
        int fd;
        uint64_t id;            /* of its peer */
        uint64_t serial;
        uid_t uid;
        uint8_t session[MESSAGE_SESSION_BYTES];
        Arena *arena;
        WireHeader header;
        ProtobufCMessage *reply;
        Shmd__Refusal *refusal;
        FdList fds;
} Guest;

extern Broker *table;
extern BrokerOptions table_options;     /* to be changed before table_open() */
extern bool table_checks;               /* whether table_check_saved() does anything */

void table_defaults(void);
void table_open(void);
/* Commits, and requires that the state has what there is; done after each request and each turn, and with
 * many of them after some. */
void table_check_saved(void);
/* The broker is gone, and another one goes on with what it left, but for a policy. Guests that are not made to
 * come back, or freed before, must not be used any more. */
void table_restart(void);
/* Ends it; requires balanced books, and a state that does not contradict itself. */
void table_close(void);
/* Gives every user the time of a new turn: the loop, which counts them, does not run here. */
void table_new_turn(void);
/* Runs what is due, as if that much time had passed, or at that time. Of what was armed since a time before, nothing
 * that is to come later is due then, however long that took. */
void table_pass(uint64_t ns);
void table_pass_to(uint64_t at);
/* Turns until the condition holds: of what has its time measured, a turn may do less than there is to do. The
 * test fails if it never does. */
#define table_until(condition)                                                          \
        do {                                                                            \
                int64_t table_end = test_now_ms() + TEST_PATIENCE_MS;                   \
                                                                                        \
                for (; !(condition); table_pass(0))                                     \
                        REQUIRE(test_now_ms() < table_end, "never: " #condition);       \
        } while (0)
/* What was logged so far; valid until the next call. */
const char *table_log(void);
size_t table_log_count(const char *what);

/* Connects; the peer has not said hello. The groups are what is in that list alone. */
Guest *guest_connect(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);
/* Connects and says hello, with uid as its group. */
Guest *guest_new(uid_t uid);
/* Connects again after table_restart(), with what it was told. Return: whether it has its session again. */
bool guest_come_back(Guest *guest);
/* Closes its end; the peer is freed as the loop would. */
Guest *guest_free(Guest *guest);
Peer *guest_peer(const Guest *guest);

/* Sends a request through the dispatcher. Return: ANSWERED, ERROR(...), HELD, CLOSED, SILENT. */
uint32_t guest_ask(Guest *guest, unsigned int kind, const ProtobufCMessage *request);
uint32_t guest_ask_raw(Guest *guest, unsigned int kind, uint64_t serial, const void *payload, size_t n);
/* Reads the next answer, as guest_ask(). */
uint32_t guest_receive(Guest *guest);
/* The same, turning until there is one. */
uint32_t guest_await(Guest *guest);

#define guest_expect_done(guest, ask)                                                   \
        do {                                                                            \
                uint32_t guest_result = (ask);                                          \
                REQUIRE(guest_result == 0, "%s: %s", #ask, guest_describe(guest, guest_result)); \
        } while (0)

#define guest_expect(guest, error_name, reason_name, ask)                               \
        do {                                                                            \
                uint32_t guest_result = (ask);                                          \
                REQUIRE(guest_result == ERROR(error_name) && (guest)->refusal->reason == REASON(reason_name), \
                        "%s: %s", #ask, guest_describe(guest, guest_result));           \
        } while (0)

const char *guest_describe(const Guest *guest, uint32_t result);

uint32_t ask_hello(Guest *guest);
uint32_t ask_create(Guest *guest, const char *path, uint64_t size, uint32_t mode);
uint32_t ask_open(Guest *guest, const char *path, uint32_t rights);
uint32_t ask_mkdir(Guest *guest, const char *path, uint32_t mode);
uint32_t ask_unlink(Guest *guest, const char *path);
uint32_t ask_stat(Guest *guest, const char *path);

#endif
