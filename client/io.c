/* Packets out and in, and the loop's work. See client.h for the model.
 *
 * Requests leave in the order they were started. What the socket has no room for waits in the
 * queue, and while anything waits there everything joins it. So does what is started while there is no
 * broker, and what would be one more change than the broker keeps outcomes of.
 *
 * The end of the socket is believed in two steps. A broker that closes a connection whose
 * requests it has not read makes our next receive report ECONNRESET, once, *before* what it had
 * sent; and a send fails while its last words lie here unread. So a failed send only makes the
 * peer deaf, and an end of file counts when it is read twice in a row.
 */

#include "buildinfo.h"

#include "client/client.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/assert.h"

/* Packets one dispatch takes at most: a callback that starts a call whose answer is there at once
 * must not keep the caller's event loop from its other work. */
#define PACKETS_MAX 256
/* The longest wait without another look at the clock. */
#define WAIT_MAX_S UINT64_C(3600)

enum {
        _IO_E_SUCCESS,
        IO_E_AGAIN,             /* nothing more to read now */
        IO_E_LOST,              /* nor from this socket, or first there is something else to do */
};

/* -- out ----------------------------------------------------------------------------- */

/* What is sent again must still find its outcome: from the first change in flight on, so many. */
static bool has_leave(const shmd_call *call) {
        const shmd *client = call->client;
        const shmd_call *first = list_first(&client->changes, shmd_call, change);

        if (client->link != LINK_UP)
                return call->op->opens;
        return !call->op->changes || !first ||
               client->n_changes - first->nth_change + call->op->changes <= CLIENT_CHANGES_MAX;
}

/* What failed without having left is sent again with the rest when the loss is noticed. */
static int transmit(shmd_call *call) {
        shmd *client = call->client;
        int r;

        if (client->deaf || !has_leave(call))
                return WIRE_E_AGAIN;
        r = wire_send(client->fd, call->request, call->n_request, NULL, 0);
        if (r == WIRE_E_EOF)
                client->deaf = true;
        if (r == 0)
                call_sent(call);
        ASSERT(r != WIRE_E_BACKLOG);
        return r;
}

int io_send(shmd_call *call) {
        shmd *client = call->client;
        int r = WIRE_E_AGAIN;

        if (call->op->opens || list_is_empty(&client->queue))
                r = transmit(call);
        if (r > 0 && call->op->opens)
                return -ECONNRESET;
        if (r > 0)
                list_append(&client->queue, &call->queued);
        return r < 0 ? r : 0;
}

static void flush(shmd *client) {
        shmd_call *call;

        while ((call = list_first(&client->queue, shmd_call, queued)) && has_leave(call)) {
                int r = call->op->renew ? call->op->renew(call) : 0;

                if (r == 0)
                        r = transmit(call);
                if (r > 0)
                        return;
                if (r < 0)
                        call_end(call, r);
                else
                        list_unlink(&call->queued);
        }
}

bool io_wants_room(const shmd *client) {
        const shmd_call *call = list_first(&client->queue, shmd_call, queued);

        return call && !client->deaf && has_leave(call);
}

/* -- in ------------------------------------------------------------------------------ */

static int receive(shmd *client, WireHeader *ret) {
        bool waits = client->waits && !client->deaf && !io_wants_room(client);
        int r;

        client->waits = false;
        if (waits)
                r = wire_await(client->fd, client->buffer, WIRE_REPLY_MAX, &client->fds, ret);
        else
                r = wire_receive(client->fd, client->buffer, WIRE_REPLY_MAX, &client->fds, ret);
        if (r == WIRE_E_EOF)
                r = wire_receive(client->fd, client->buffer, WIRE_REPLY_MAX, &client->fds, ret);
        return r;
}

static int unpack(shmd *client, unsigned int kind, const WireHeader *header, const ProtobufCMessage **ret) {
        ProtobufCMessage *message;

        if (message_unpack(client->arena, kind, true, client->buffer + sizeof(*header),
                           header->length - sizeof(*header), &message))
                return -EPROTO;
        *ret = message;
        return 0;
}

/* Return: what the call returns. */
static int answer_decode(shmd_call *call, const WireHeader *header) {
        shmd *client = call->client;
        bool refused = header->kind == MESSAGE_REFUSAL;
        size_t n_fds = 0;
        int r;

        r = unpack(client, refused ? MESSAGE_REFUSAL : call->op->kind, header, &call->reply);
        if (r)
                return r;
        if (!refused && call->op->n_fds)
                n_fds = call->op->n_fds(call->reply);
        if (client->fds.n != n_fds)
                return -EPROTO;
        if (!refused)
                return 0;

        refusal_decode(client->arena, (const Shmd__Refusal *)call->reply, &call->refusal);
        return call->refusal.error;
}

/* The last packet of a connection that the broker does not want, or not now. */
static void goodbye(shmd *client, const WireHeader *header) {
        const ProtobufCMessage *message;
        const Shmd__Refusal *why;

        if (unpack(client, MESSAGE_REFUSAL, header, &message)) {
                client_lose(client, -EPROTO, NULL);
                return;
        }
        why = (const Shmd__Refusal *)message;
        if (link_is_passing(client, why->error))
                link_lose(client, -ECONNRESET);
        else
                client_lose(client, -ECONNRESET, why);
}

static void events(shmd *client, const WireHeader *header) {
        const ProtobufCMessage *message;
        int r;

        r = client->fds.n ? -EPROTO : unpack(client, MESSAGE_EVENT, header, &message);
        if (!r)
                r = watches_deliver(client, message);
        if (r)
                client_lose(client, r, NULL);
}

/* An answer that came too late. Nobody wants it any more, and what it began is given up. */
static void answer_late(shmd *client, const WireHeader *header) {
        const ProtobufCMessage *message;

        if (header->kind == (MESSAGE_WATCH | MESSAGE_REPLY) && unpack(client, MESSAGE_WATCH, header, &message) == 0)
                watch_untaken(client, message);
}

/* A broker that is stopping does nothing more, and says so: the next one will. */
static bool is_put_off(const shmd_call *call) {
        return call->refusal.code == SHMD_ERROR_SHUTDOWN && call->client->reconnects && !call->op->opens;
}

static void answer_call(shmd_call *call, const WireHeader *header) {
        int r = answer_decode(call, header);

        if (!call->op->own)
                call->client->n_tries = 0;
        if (r < 0 && is_put_off(call)) {
                call->refusal = (struct shmd_refusal){ 0 };
                call->tried = false;
        } else if (r == 0 && call->op->stays) {
                call->answered = true;
        } else {
                call_end(call, r);
        }
}

static void answer(shmd *client, const WireHeader *header) {
        shmd_call *call;

        if (header->serial == 0 && header->kind == MESSAGE_REFUSAL) {
                goodbye(client, header);
                return;
        }
        if (header->serial == 0 || header->serial >= client->next_serial) {
                client_lose(client, -EPROTO, NULL);
                return;
        }
        if (header->kind == MESSAGE_EVENT) {
                events(client, header);
                return;
        }
        call = call_find(client, header->serial);
        if (!call)
                answer_late(client, header);
        else if (header->kind != MESSAGE_REFUSAL && header->kind != (call->op->kind | MESSAGE_REPLY))
                client_lose(client, -EPROTO, NULL);
        else
                answer_call(call, header);
}

/* The descriptor table was full: the call whose reply it was fails, if the packet says whose. */
static void answer_without_fds(shmd *client, const WireHeader *header) {
        shmd_call *call = call_find(client, header->serial);

        if (call)
                call_end(call, -EMFILE);
        else if (header->serial == 0 || header->serial >= client->next_serial)
                client_lose(client, -EMFILE, NULL);
}

static int receive_one(shmd *client) {
        LinkState link = client->link;
        WireHeader header;
        int r;

        if (link == LINK_DOWN)
                return IO_E_AGAIN;
        r = receive(client, &header);
        switch (r) {
        case 0:
                answer(client, &header);
                fdlist_deinit(&client->fds);
                arena_reset(client->arena);
                break;
        case WIRE_E_AGAIN:
                if (!client->deaf)
                        return IO_E_AGAIN;
                link_lose(client, -ECONNRESET);
                break;
        case WIRE_E_LOST_FDS:
                answer_without_fds(client, &header);
                break;
        case WIRE_E_EOF:
                link_lose(client, -ECONNRESET);
                break;
        default:
                client_lose(client, r < 0 ? r : -EPROTO, NULL);
                break;
        }
        return client->lost || client->link != link ? IO_E_LOST : 0;
}

/* -- the loop's work ----------------------------------------------------------------- */

static struct timespec *until_to_timespec(uint64_t until_ns, struct timespec *ret) {
        uint64_t now_ns;
        uint64_t left_ns;

        if (until_ns == UINT64_MAX)
                return NULL;
        now_ns = client_now();
        left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        ret->tv_sec = (time_t)(left_ns / CLIENT_NS_PER_S);
        ret->tv_nsec = (long)(left_ns % CLIENT_NS_PER_S);
        return ret;
}

/* When there is something to do without a packet. */
static uint64_t next_work(shmd *client) {
        uint64_t deadline_ns = call_next_deadline(client);
        uint64_t link_ns = link_due(client);

        return deadline_ns < link_ns ? deadline_ns : link_ns;
}

int io_poll(shmd *client, uint64_t until_ns) {
        struct pollfd pollfd = { .fd = client->fd };
        uint64_t work_ns = next_work(client);
        uint64_t wake_ns = work_ns < until_ns ? work_ns : until_ns;
        int n;

        if (client->deaf)
                return 0;
        pollfd.events = (short)(io_wants_room(client) ? POLLIN | POLLOUT : POLLIN);
        do {
                struct timespec left;

                n = ppoll(&pollfd, 1, until_to_timespec(wake_ns, &left), NULL);
        } while (n < 0 && errno == EINTR);

        if (n < 0)
                return -errno;
        return n == 0 && until_ns < work_ns ? -ETIMEDOUT : 0;
}

int io_dispatch(shmd *client, const bool *done) {
        uint64_t n_before = client->n_callbacks;

        link_turn(client);
        flush(client);
        for (unsigned int i = 0; i < PACKETS_MAX && !(done && *done); ++i)
                if (receive_one(client))
                        break;
        link_turn(client);
        if (client->lost)
                return -ENOTCONN;
        flush(client);
        call_expire(client);
        ready_update(client);
        return (int)(client->n_callbacks - n_before);
}

/* To receive and wait is one system call where poll and receive are two. It can be told to end in time, but in
 * whole ticks of the kernel only: so it waits for whole seconds, which need to be set for the first of many calls
 * alone, and the last one is left to poll. */
static bool can_wait(shmd *client) {
        uint64_t work_ns = next_work(client);
        uint64_t now_ns = client_now();
        uint64_t s = work_ns > now_ns ? (work_ns - now_ns) / CLIENT_NS_PER_S : 0;

        if (client->link != LINK_UP || client->deaf || io_wants_room(client) || s == 0)
                return false;
        if (s > WAIT_MAX_S)
                s = WAIT_MAX_S;
        if (s != client->wait_s) {
                struct timeval tv = { .tv_sec = (time_t)s };

                if (setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0)
                        return false;
                client->wait_s = s;
        }
        return true;
}

int io_wait(shmd *client, const bool *done) {
        client->waits = can_wait(client);
        if (!client->waits) {
                int r = io_poll(client, UINT64_MAX);

                if (r)
                        return r;
        }
        (void)io_dispatch(client, done);
        client->waits = false;
        return 0;
}

int shmd_events(shmd *client) {
        int r = client_check(client);

        if (r)
                return r;
        return io_wants_room(client) ? POLLIN | POLLOUT : POLLIN;
}

int shmd_timeout(shmd *client, uint64_t *ret_ns) {
        uint64_t work_ns;
        uint64_t now_ns;
        int r;

        r = client_check(client);
        if (r && r != -ENOTCONN)
                return r;

        work_ns = client->deaf ? 0 : next_work(client);
        now_ns = work_ns == UINT64_MAX ? 0 : client_now();
        *ret_ns = work_ns == UINT64_MAX ? UINT64_MAX : work_ns > now_ns ? work_ns - now_ns : 0;
        return 0;
}

int shmd_dispatch(shmd *client) {
        KEEP_ERRNO;
        int r;

        r = client_check(client);
        if (r)
                return r;
        return client->depth > 0 ? -EDEADLK : io_dispatch(client, NULL);
}

int shmd_process(shmd *client, uint64_t timeout_ns) {
        KEEP_ERRNO;
        uint64_t until_ns;
        int r;

        r = client_check(client);
        if (r)
                return r;
        if (client->depth > 0)
                return -EDEADLK;
        if (client_timeout(client, timeout_ns) == SHMD_TIMEOUT_NONE ||
            __builtin_add_overflow(client_now(), client_timeout(client, timeout_ns), &until_ns))
                until_ns = UINT64_MAX;
        r = io_poll(client, until_ns);
        return r ? r : io_dispatch(client, NULL);
}
