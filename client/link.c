/* The life of a connection: hello, the loss of its socket, and hello again.
 *
 * A loss is the end of the socket, or a broker's word that it is stopping. What the socket still has is
 * read first. Then another one is made, at once, and if that fails again and again, after 1 ms, 2 ms and so on
 * to 250 ms, less a random part, so that the clients of a service that returns do not come in step. Waiting
 * is for who polls: link_due() says for how long, and every call keeps its own deadline meanwhile.
 *
 * To the hello the broker says whether it has resumed the session. Then whatever was in flight is sent once
 * more, in the order it was started, with the same serials: what the broker has done is answered as it was
 * before and not done again. In a session that is new, what only looks is sent again as well; but what
 * changes something and may have been done ends with -ECONNRESET, since nobody can tell any more. What never
 * left is in no doubt, and goes to the new session.
 *
 * Watches are asked for again first, each from the last event it had (op-watch.c). Descriptors that were on
 * their way died with the socket; a request that is sent again brings its own.
 */

#include "buildinfo.h"

#include "client/client.h"

#include <string.h>

#define RETRY_MIN_NS UINT64_C(1000000)
#define RETRY_MAX_NS UINT64_C(250000000)

/* A socket that lasted so long was no vain attempt. */
#define STABLE_NS UINT64_C(1000000000)
/* And one that did not last so long may have been lost because of what was sent. */
#define AT_ONCE_NS UINT64_C(100000000)

/* -- hello --------------------------------------------------------------------------- */

static int hello_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__HelloReply *hello = (const Shmd__HelloReply *)reply;
        shmd *client = call->client;
        char *broker;

        (void)out;
        if (hello->version != MESSAGE_VERSION)
                return -EPROTONOSUPPORT;
        if (hello->session.len != sizeof(client->session))
                return -EPROTO;
        broker = strndup(hello->broker.len ? (const char *)hello->broker.data : "", hello->broker.len);
        if (!broker)
                return -ENOMEM;
        free(client->broker);
        client->broker = broker;
        /* Nobody can be welcomed back to a session that is not the one that was asked for. */
        client->resumed = client->known && hello->resumed &&
                          !memcmp(client->session, hello->session.data, sizeof(client->session));
        memcpy(client->session, hello->session.data, sizeof(client->session));
        client->features = hello->features;
        client->uid = hello->uid;
        client->admin = hello->admin;
        return 0;
}

static const Op op_hello = { .kind = MESSAGE_HELLO, .own = true, .opens = true, .decode = hello_decode };

bool link_is_passing(const shmd *client, uint32_t code) {
        if (!client->reconnects)
                return false;
        switch (code) {
        case SHMD_ERROR_SHUTDOWN:
                return true;
        case SHMD_ERROR_QUOTA:          /* others of this user may have come back first */
        case SHMD_ERROR_BUSY:
        case SHMD_ERROR_NO_MEMORY:
                return client->known && client->link == LINK_HELLO;
        default:
                return false;
        }
}

static void on_hello(shmd *client, shmd_call *call, void *userdata) {
        int r = call_finish(call, &op_hello, NULL);

        (void)userdata;
        if (r == 0) {
                client->link = LINK_WELCOME;
                return;
        }
        if (!client->lost && link_is_passing(client, call->refusal.code)) {
                link_lose(client, -ECONNRESET);
                return;
        }
        if (call->refusal.code && call->refusal.reason == SHMD__REASON__REASON_VERSION)
                r = call->refusal.error = -EPROTONOSUPPORT;
        if (!client->known) {
                client->hello_error = r;
                refusal_remember(client, &call->refusal);
        }
        client_lose(client, r, NULL);
}

int link_hello(shmd *client) {
        Shmd__Hello hello = SHMD__HELLO__INIT;

        ++client->n_sockets;
        client->link = LINK_HELLO;
        hello.version = MESSAGE_VERSION;
        if (client->flags & SHMD_CONNECT_BUSY_POLL)
                hello.features |= SHMD__FEATURES__FEATURE_BUSY_POLL;
        if (client->known) {
                hello.session.data = client->session;
                hello.session.len = sizeof(client->session);
        }
        return call_start_own(client, &op_hello, &hello.base, SHMD_TIMEOUT_NONE, on_hello, NULL, NULL);
}

/* -- the loss ------------------------------------------------------------------------ */

/* From half of it to all. The clock's last digits are random enough, and differ between processes. */
static uint64_t jitter(const shmd *client, uint64_t delay_ns) {
        uint64_t random = (client_now() ^ (uintptr_t)client) * UINT64_C(0x9e3779b97f4a7c15);

        return delay_ns / 2 + (random >> 32) % (delay_ns / 2 + 1);
}

static uint64_t next_delay(shmd *client) {
        unsigned int n = client->n_tries++;

        if (n == 0)
                return 0;
        return jitter(client, n <= 8 ? RETRY_MIN_NS << (n - 1) : RETRY_MAX_NS);
}

static void hang_up(shmd *client) {
        ready_leave(client);
        client->fd = close_fd(client->fd);
        client->deaf = false;
        client->link = LINK_DOWN;
        client->retry_ns = client_now() + next_delay(client);
}

void link_lose(shmd *client, int error) {
        struct shmd_event event = { .event = SHMD_EVENT_DISCONNECTED, .path = "", .error = error };
        List doomed = LIST_INIT(doomed);
        bool was_up = client->link == LINK_UP;
        uint64_t age_ns = was_up ? client_now() - client->up_ns : 0;

        if (client->lost)
                return;
        if (client->known && !client->reconnects) {
                client_lose(client, error, NULL);
                return;
        }
        if (age_ns >= STABLE_NS)
                client->n_tries = 0;
        hang_up(client);
        call_requeue_all(client, age_ns < AT_ONCE_NS, &doomed);
        watches_detach(client);
        if (was_up)
                client_tell(client, &event);
        call_end_all(&doomed, error);
}

/* -- and the return ------------------------------------------------------------------ */

static void attempt(shmd *client) {
        if (connect_socket(client, 0) || link_hello(client))
                hang_up(client);
}

static void settle(shmd *client) {
        struct shmd_event event = { .event = SHMD_EVENT_RECONNECTED, .path = "", .resumed = client->resumed };
        bool returned = client->known;
        List doomed = LIST_INIT(doomed), later = LIST_INIT(later);

        client->link = LINK_UP;
        client->up_ns = client_now();
        client->known = true;
        if (!client->resumed)
                call_forsake(client, &doomed);
        /* What this begins joins the queue, behind what was first. */
        if (returned)
                client_tell(client, &event);
        list_splice(&later, &client->queue);
        watches_resume(client);
        list_splice(&client->queue, &later);
        call_end_all(&doomed, -ECONNRESET);
}

void link_turn(shmd *client) {
        if (client->lost)
                return;
        if (client->known && client->link != LINK_UP && !client->reconnects)
                client_lose(client, -ECONNRESET, NULL);
        else if (client->link == LINK_DOWN && client->retry_ns <= client_now())
                attempt(client);
        else if (client->link == LINK_WELCOME)
                settle(client);
}

uint64_t link_due(const shmd *client) {
        if (client->lost || client->link == LINK_UP)
                return UINT64_MAX;
        if (client->known && !client->reconnects)
                return 0;
        return client->link == LINK_DOWN ? client->retry_ns : UINT64_MAX;
}
