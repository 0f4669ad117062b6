/* The inside of libshmd: connections and calls.
 *
 * A *connection* (shmd) is a socket, the calls in flight on it, and the queue of those whose
 * request the socket had no room for yet. A *call* (shmd_call) is one request: it is found by its
 * serial when the answer comes and by its deadline when none does, and it ends exactly once, by
 * call_end(), which runs its callback and gives the object back. It has the packed request until then.
 *
 * A connection outlives its socket. When that is lost, the library makes another one to the same path,
 * says hello with the number of its session, and sends again what had no answer, each request with
 * its first serial, by which a broker that knows the session recognises what it has done already:
 * see link.c. Only what the library cannot trust any more, a broken protocol above all, ends it.
 *
 * Everything is asynchronous. A synchronous function starts its call with call_waited() as the
 * callback and then does what any event loop would do: poll and dispatch, until that call has
 * ended. Other calls' callbacks may run meanwhile.
 *
 * One packet is looked at at a time. Its payload is unpacked into the connection's arena and its
 * descriptors lie in the connection's list; both are valid while the callback runs and are
 * forgotten (the descriptors closed) after it. So an answer costs no allocation, and an answer
 * that nobody takes, be it late, canceled or without a callback, leaks nothing.
 *
 * Events of watches come without a call: a watch (op-watch.c) is found by the broker's number for it,
 * and its callback runs for each of them, as those of calls do.
 *
 * An operation (Op) is what makes a kind of request special: how many descriptors its reply
 * promises and how the reply becomes a result. client/op-*.c have one table each.
 *
 * After fork(2) the connection is the parent's. The child notices by a page of memory that the
 * kernel wipes on fork (MADV_WIPEONFORK), so the check is a load and not a system call, and
 * process ids that are equal in different namespaces or reused do not matter.
 */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "base/tree.h"
#include "proto/fdlist.h"
#include "proto/message.h"
#include "proto/wire.h"
#include "shmd.h"

#define CLIENT_NS_PER_S UINT64_C(1000000000)
#define CLIENT_TIMEOUT_NS (25 * CLIENT_NS_PER_S)

/* A reply of 64 KiB unpacks into 1.5 MiB when it is a list of the shortest names there are. What
 * is not used of it is never touched. */
#define CLIENT_ARENA_BYTES (2U << 20)

/* errno is the caller's: a public function that makes system calls starts with this line. */
#define KEEP_ERRNO CLEANUP(errno_restore) __attribute__((unused)) int kept_errno = errno

static inline void errno_restore(int *kept) {
        errno = *kept;
}

typedef struct ClientWatch ClientWatch;

/* The broker keeps the outcomes of so many requests of a session that changed something, with 1,024 items of batches
 * among them: no more may be in flight, or one that is sent again could be done twice. So a batch, of 128
 * at most, counts for eight. */
#define CLIENT_CHANGES_MAX 64
#define CLIENT_BATCH_CHANGES 8

typedef struct Op {
        MessageKind kind;
        /* Added to the deadline once it is sent, for requests that bring a deadline of their own: the
         * broker's answer that it has passed is better than our guess. */
        uint64_t grace_ns;
        bool secret;            /* its request has a ticket in it, of which no copy is left behind */
        unsigned int changes;   /* how much it counts for: 0 if it changes nothing, else 1, or more for many */
        bool once;              /* it is not sent again */
        bool own;               /* the library's, not its user's: it ends in silence with its socket */
        bool opens;             /* the hello: it is sent before anything else may be */
        bool stays;             /* a part of another request: it is kept, answered, until that ends */
        /* How many descriptors belong to this reply; SIZE_MAX if it contradicts itself. NULL: none. */
        size_t (*n_fds)(const ProtobufCMessage *reply);
        /* Turns the reply into *out, taking descriptors from the connection's list. NULL: the
         * reply says no more than yes. Return: 0 or a negative errno. */
        int (*decode)(shmd_call *call, const ProtobufCMessage *reply, void *out);
        /* What a reply that nobody takes leaves at the broker ends with this. NULL: nothing. */
        void (*untaken)(shmd *client, const ProtobufCMessage *reply);
        /* Brings the request up to date before it is sent later than it was started. NULL: it is sent as
         * it is. Return: 0, or what the call ends with. */
        int (*renew)(shmd_call *call);
} Op;

typedef enum CallState {
        CALL_IN_FLIGHT,
        CALL_ENDED,             /* its callback runs: result, reply and refusal are valid */
        CALL_FINISHED,          /* and somebody has taken the outcome */
} CallState;

struct shmd_call {
        shmd *client;
        const Op *op;
        CallState state;
        uint64_t serial;
        uint64_t started_ns;
        uint64_t deadline_ns;   /* UINT64_MAX: none */
        RB_ENTRY(shmd_call) by_serial;
        RB_ENTRY(shmd_call) by_deadline;
        shmd_callback callback;
        void *userdata;

        /* The request, packed. It is kept until it is answered, and its memory longer. */
        uint8_t *request;
        size_t n_request;
        size_t n_room;
        List queued;            /* in the connection's queue */
        bool sent;              /* through this socket */
        bool tried;             /* in this session: the broker may have done it */
        bool answered;          /* Op.stays */
        bool graced;            /* Op.grace_ns is in the deadline */
        unsigned int n_losses;  /* sockets in a row, lost at once with this as the first request in flight */
        uint64_t socket;        /* the number of the socket there was when it was started */
        List change;            /* in the connection's list of changes, while it is in flight */
        uint64_t nth_change;    /* what had been counted when it was sent */
        uint64_t first_part;    /* the serial of the first of those that are parts of this; 0: none */

        /* What the grants of this call are to become: see op-grant.c. */
        ClientWatch *watch;     /* what it is to become: op-watch.c */
        size_t n_items;
        uint64_t reserve[SHMD_BATCH_MAX / 64];

        int result;
        const ProtobufCMessage *reply;
        struct shmd_refusal refusal;
        shmd_call *next_spare;
};

typedef RB_HEAD(CallsBySerial, shmd_call) CallsBySerial;
typedef RB_HEAD(CallsByDeadline, shmd_call) CallsByDeadline;
typedef RB_HEAD(ClientWatches, ClientWatch) ClientWatches;
typedef RB_HEAD(ClientWatchesByWire, ClientWatch) ClientWatchesByWire;

typedef enum LinkState {
        LINK_DOWN,              /* no socket; the next attempt is at retry_ns */
        LINK_HELLO,             /* a socket, and a hello without an answer */
        LINK_WELCOME,           /* with an answer */
        LINK_UP,                /* and everything is on its way again */
} LinkState;

struct shmd {
        int fd;                 /* the socket; -1: none */
        LinkState link;
        uint64_t wait_s;        /* the socket's SO_RCVTIMEO; 0: none was set */
        bool waits;             /* the next look at the socket is for a packet, however long that takes */
        bool lost;              /* for good: no more requests; every call has been ended */
        bool deaf;              /* the peer takes nothing more, but may have said something */
        bool reconnects;
        bool known;             /* there is a session */
        bool resumed;           /* the latest hello was welcomed back to it */
        unsigned int n_tries;   /* attempts since a call was answered */
        uint64_t retry_ns;
        uint64_t up_ns;         /* since when it is LINK_UP */
        uint64_t n_sockets;
        int hello_error;        /* why there never was a session */
        unsigned int depth;     /* callbacks running now */
        uint8_t *alive;         /* 1; reads 0 in a forked child. NULL: compare pids */
        pid_t pid;
        uint64_t timeout_ns;
        uint64_t next_serial;
        uint64_t n_callbacks;
        CallsBySerial by_serial;
        CallsByDeadline by_deadline;
        List queue;             /* of shmd_call.queued: requests that are not sent yet */
        List changes;           /* of shmd_call.change: in flight, in the order they were sent */
        uint64_t n_changes;
        ClientWatches watches;
        ClientWatchesByWire watches_by_wire;
        uint64_t last_watch;
        shmd_event_callback listener;
        void *listener_userdata;
        shmd_call *spare;       /* ended calls, to be used again */
        unsigned int n_spare;

        Arena *arena;
        FdList fds;
        uint8_t *buffer;        /* WIRE_REPLY_MAX bytes: one packet, in or out */

        /* What shmd_fd() returned, if anybody asked: see ready.c. */
        int ready_fd;
        int timer_fd;
        uint32_t ready_events;  /* that the socket is polled for; 0: it is not */
        uint64_t timer_ns;      /* when the timer goes off; 0: it does not */

        char *socket;
        pid_t broker_pid;       /* of who listens; 0: not in our namespace */
        char *broker;
        uint8_t session[MESSAGE_SESSION_BYTES];
        uint32_t uid;
        bool admin;
        uint32_t flags;         /* SHMD_CONNECT_*: what was asked for, at every hello */
        uint64_t features;      /* what the broker there is now has granted */

        struct shmd_refusal refusal;
        char *refusal_text;     /* what its strings point into */
};

/* -- client.c ------------------------------------------------------------------------ */

/* Makes a connection that is not connected yet. Return: 0, -ENOMEM. */
int client_new(shmd **ret);

/* Return: 0; -EINVAL (no connection at all), -ECHILD (a forked child's copy), -ENOTCONN. */
int client_check(const shmd *client);

/* Return: nanoseconds on CLOCK_MONOTONIC. */
uint64_t client_now(void);

/* Return: timeout_ns, or what stands for SHMD_TIMEOUT_DEFAULT. */
uint64_t client_timeout(const shmd *client, uint64_t timeout_ns);

/* Tells whoever listens to the connection itself. */
void client_tell(shmd *client, const struct shmd_event *event);

/* The connection is over for good: ends every call in flight with error. If the broker said why, it is
 * their refusal, and the hello's own error. */
void client_lose(shmd *client, int error, const Shmd__Refusal *why);

DEFINE_CLEANUP(shmd, shmd_close);

/* -- connect.c ----------------------------------------------------------------------- */

/* Opens client->fd, if who listens there may be a broker. Waits while the backlog is full, until
 * until_ns; 0 does not wait (-EAGAIN). Return: 0 or a negative errno. */
int connect_socket(shmd *client, uint64_t until_ns);

/* -- link.c -------------------------------------------------------------------------- */

/* Says hello through a new socket. Return: 0; -ECONNRESET (it was lost already), -ENOMEM. */
int link_hello(shmd *client);

/* The socket is lost: makes another one in due time, or ends the connection with error. */
void link_lose(shmd *client, int error);

/* Return: whether a refusal of the connection itself says no more than "not now". */
bool link_is_passing(const shmd *client, uint32_t code);

/* Does what is due: an attempt to connect, or what follows a welcome. */
void link_turn(shmd *client);

/* Return: when link_turn() has something to do without being told; UINT64_MAX: never. */
uint64_t link_due(const shmd *client);

/* -- ready.c ------------------------------------------------------------------------- */

void ready_init(shmd *client);
void ready_deinit(shmd *client);

/* Makes the descriptor polled for what can be done now. After everything that changes it. */
void ready_update(shmd *client);

/* Before the socket is closed. */
void ready_leave(shmd *client);

/* -- io.c ---------------------------------------------------------------------------- */

/* Sends the request of a call, or queues it behind those that wait. Return: 0, or an errno of
 * sendmsg(2) that speaks of this packet. */
int io_send(shmd_call *call);

/* Return: whether the queue waits for room in the socket, and for nothing else. */
bool io_wants_room(const shmd *client);

/* Sleeps until there is something to dispatch or until_ns has come. Return: 0, -ETIMEDOUT, or an
 * errno of ppoll(2). */
int io_poll(shmd *client, uint64_t until_ns);

/* shmd_dispatch(), which stops early when *done (may be NULL). */
int io_dispatch(shmd *client, const bool *done);

/* Both, once, for who waits for nothing but calls and their deadlines. Return: 0, or an errno of ppoll(2). */
int io_wait(shmd *client, const bool *done);

/* -- call.c -------------------------------------------------------------------------- */

/* Sends a request. *ret may be NULL; else it is set to the call, which belongs to the connection.
 * Return: 0; -EINVAL, -ECHILD, -ENOTCONN, -E2BIG (more than a packet), -ENOMEM, -EDEADLK (to be
 * waited for, inside a callback). A failure is remembered for shmd_refusal(). */
int call_start(shmd *client, const Op *op, const ProtobufCMessage *message, uint64_t timeout_ns,
               shmd_callback callback, void *userdata, shmd_call **ret);

/* The same without the checks, for the library's own. Return: 0, -E2BIG, -ENOMEM, or an errno of
 * sendmsg(2). */
int call_start_own(shmd *client, const Op *op, const ProtobufCMessage *message, uint64_t timeout_ns,
                   shmd_callback callback, void *userdata, shmd_call **ret);

/* Packs the call's request anew. Return: 0, -E2BIG, -ENOMEM. */
int call_pack(shmd_call *call, const ProtobufCMessage *message);

/* Notes that the request has been sent. */
void call_sent(shmd_call *call);

/* The socket is lost: queues what was sent again, in the order it was started, and moves to doomed
 * what is not to be sent once more. at_once: no sooner had it been sent than the socket was lost. */
void call_requeue_all(shmd *client, bool at_once, List *doomed);

/* The session is lost: moves to doomed what it may have done, and what may not be done twice. */
void call_forsake(shmd *client, List *doomed);

/* Ends calls in such a list. */
void call_end_all(List *doomed, int error);

/* Gives up parts, with serials from first to before end. */
void call_drop_parts(shmd *client, uint64_t first, uint64_t end);

/* Return: the call in flight with that serial, or NULL. */
shmd_call *call_find(shmd *client, uint64_t serial);

/* Return: the call in flight that was started first, or NULL. */
shmd_call *call_first(shmd *client);

/* Return: the earliest deadline in flight, UINT64_MAX if there is none. */
uint64_t call_next_deadline(shmd *client);

/* Ends the call with a result of 0 or a negative errno and runs its callback. If the caller has
 * not filled call->refusal for an error, it becomes the library's own. */
void call_end(shmd_call *call, int result);

/* Ends the calls whose deadline has passed. */
void call_expire(shmd *client);

/* Takes the outcome: in a callback, the work of every shmd_OP_finish().
 * Return: what the call returned; -EINVAL (a call of another kind, or in flight still),
 * -EALREADY (taken before). */
int call_finish(shmd_call *call, const Op *op, void *out);

/* Frees every call in flight without ending it: a forked child has its parent's in its copy of the
 * memory, and they are not the child's to end. */
void call_forget_all(shmd *client);

/* Frees the calls kept for later use. */
void call_free_spare(shmd *client);

/* A synchronous call: start it with call_waited and a CallWait as userdata, then call_wait(). */
typedef struct CallWait {
        void *out;              /* for Op.decode */
        shmd_call *call;
        bool done;
        int result;
} CallWait;

void call_waited(shmd *client, shmd_call *call, void *userdata);

/* Waits for the call that the start function with the result `started` has started.
 * Return: the call's result. */
int call_wait(CallWait *wait, shmd *client, int started);

/* -- op-watch.c ---------------------------------------------------------------------- */

/* Runs the callbacks of the events in a packet. Return: 0, -EPROTO. */
int watches_deliver(shmd *client, const ProtobufCMessage *events);

/* The socket is lost, and with it the broker's side of every watch. */
void watches_detach(shmd *client);

/* There is another one: asks for every watch again, from the last event on. */
void watches_resume(shmd *client);

/* The connection is over: tells every watch, and ends it. */
void watches_lose(shmd *client, int error);

/* Frees every watch in silence, in a forked child. */
void watches_forget(shmd *client);

/* Gives up what a reply that came too late has begun. */
void watch_untaken(shmd *client, const ProtobufCMessage *reply);

/* -- refusal.c ----------------------------------------------------------------------- */

/* Return: the negative errno for a broker's SHMD_ERROR_*; -EIO for one this version does not know. */
int refusal_errno(uint32_t code);

/* Fills *ret from the broker's words, with strings from the arena. */
void refusal_decode(Arena *arena, const Shmd__Refusal *message, struct shmd_refusal *ret);

/* Fills *ret with the library's own words for an error. */
void refusal_own(int error, struct shmd_refusal *ret);

/* Keeps a copy for shmd_refusal(); NULL: there is none. */
void refusal_remember(shmd *client, const struct shmd_refusal *refusal);

/* Remembers the library's own refusal of item `index`. Return: error. */
int refusal_local(shmd *client, int error, uint32_t reason, uint32_t index, const char *thing, const char *sentence);

/* Checks and encodes a name. Return: 0; -EINVAL (remembered), -ECHILD, -ENOTCONN. */
int request_path(shmd *client, const char *path, uint32_t index, ProtobufCBinaryData *ret);

#endif
