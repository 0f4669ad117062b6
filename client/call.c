/* Calls: started, found, ended, waited for. See client.h for the model. */

#include "buildinfo.h"

#include "client/client.h"

#include <string.h>

#include "base/assert.h"

/* A call that is over is kept for the next one, up to so many, and with so many bytes of room for
 * its request: almost all have fewer. */
#define SPARE_MAX 64
#define SPARE_ROOM 512

/* A request with which as the first in flight so many sockets in a row were lost at once, and for so long, may be
 * what ends brokers. It is not sent to another one. */
#define LOSSES_MAX 16
#define LOSSES_NS (5 * CLIENT_NS_PER_S)

static int compare_serials(const shmd_call *a, const shmd_call *b) {
        return a->serial < b->serial ? -1 : a->serial > b->serial;
}

static int compare_deadlines(const shmd_call *a, const shmd_call *b) {
        if (a->deadline_ns != b->deadline_ns)
                return a->deadline_ns < b->deadline_ns ? -1 : 1;
        return compare_serials(a, b);
}

TREE_GENERATE(CallsBySerial, shmd_call, by_serial, compare_serials)
TREE_GENERATE(CallsByDeadline, shmd_call, by_deadline, compare_deadlines)

shmd_call *call_find(shmd *client, uint64_t serial) {
        shmd_call key = { .serial = serial };

        return RB_FIND(CallsBySerial, &client->by_serial, &key);
}

shmd_call *call_first(shmd *client) {
        return RB_MIN(CallsBySerial, &client->by_serial);
}

uint64_t call_next_deadline(shmd *client) {
        const shmd_call *call = RB_MIN(CallsByDeadline, &client->by_deadline);

        return call ? call->deadline_ns : UINT64_MAX;
}

static shmd_call *call_new(shmd *client) {
        shmd_call *call = client->spare;

        if (call) {
                client->spare = call->next_spare;
                --client->n_spare;
        } else {
                call = calloc(1, sizeof(*call));
        }
        if (!call)
                return NULL;
        *call = (shmd_call){ .client = client, .request = call->request, .n_room = call->n_room };
        list_init(&call->queued);
        list_init(&call->change);
        return call;
}

static void request_wipe(shmd_call *call) {
        if (call->op && call->op->secret && call->request)
                explicit_bzero(call->request, call->n_request);
}

static void request_free(shmd_call *call) {
        request_wipe(call);
        free(call->request);
        call->request = NULL;
        call->n_room = 0;
}

static void call_free(shmd_call *call) {
        free(call->watch);
        request_free(call);
        free(call);
}

static void call_recycle(shmd_call *call) {
        shmd *client = call->client;

        request_wipe(call);
        if (call->n_room > SPARE_ROOM)
                request_free(call);
        if (client->n_spare >= SPARE_MAX) {
                call_free(call);
                return;
        }
        free(call->watch);
        call->watch = NULL;
        call->next_spare = client->spare;
        client->spare = call;
        ++client->n_spare;
}

void call_free_spare(shmd *client) {
        while (client->spare) {
                shmd_call *call = client->spare;

                client->spare = call->next_spare;
                call_free(call);
        }
        client->n_spare = 0;
}

static void call_insert(shmd_call *call) {
        (void)RB_INSERT(CallsBySerial, &call->client->by_serial, call);
        if (call->deadline_ns != UINT64_MAX)
                (void)RB_INSERT(CallsByDeadline, &call->client->by_deadline, call);
}

/* An unsent request of a call that is over is never sent. */
static void call_remove(shmd_call *call) {
        (void)RB_REMOVE(CallsBySerial, &call->client->by_serial, call);
        if (call->deadline_ns != UINT64_MAX)
                (void)RB_REMOVE(CallsByDeadline, &call->client->by_deadline, call);
        list_unlink(&call->queued);
        list_unlink(&call->change);
        if (call->first_part)
                call_drop_parts(call->client, call->first_part, call->serial);
}

void call_drop_parts(shmd *client, uint64_t first, uint64_t end) {
        for (uint64_t serial = first; serial < end; ++serial) {
                shmd_call *call = call_find(client, serial);

                if (!call || !call->op->stays)
                        continue;
                call_remove(call);
                call_recycle(call);
        }
}

void call_forget_all(shmd *client) {
        shmd_call *call;

        while ((call = call_first(client))) {
                call_remove(call);
                call_free(call);
        }
}

/* A sum beyond the end of time is no deadline. */
static uint64_t deadline_of(const shmd *client, uint64_t now_ns, uint64_t timeout_ns) {
        uint64_t wait_ns = client_timeout(client, timeout_ns);
        uint64_t deadline_ns;

        if (wait_ns == SHMD_TIMEOUT_NONE ||
            __builtin_add_overflow(now_ns, wait_ns, &deadline_ns))
                return UINT64_MAX;
        return deadline_ns;
}

int call_pack(shmd_call *call, const ProtobufCMessage *message) {
        size_t n = sizeof(WireHeader) + protobuf_c_message_get_packed_size(message);

        if (n > WIRE_REQUEST_MAX)
                return -E2BIG;
        if (n > call->n_room) {
                request_free(call);
                call->request = malloc(n);
                if (!call->request)
                        return -ENOMEM;
                call->n_room = n;
        }
        wire_put_header(call->request, n, (uint16_t)call->op->kind, 0, call->serial);
        (void)protobuf_c_message_pack(message, call->request + sizeof(WireHeader));
        call->n_request = n;
        return 0;
}

/* The broker's own deadline counts from now. */
static void call_set_grace(shmd_call *call, bool graced) {
        uint64_t deadline_ns;

        if (graced == call->graced || call->deadline_ns == UINT64_MAX)
                return;
        if (!graced)
                deadline_ns = call->deadline_ns - call->op->grace_ns;
        else if (__builtin_add_overflow(call->deadline_ns, call->op->grace_ns, &deadline_ns))
                return;
        (void)RB_REMOVE(CallsByDeadline, &call->client->by_deadline, call);
        call->deadline_ns = deadline_ns;
        (void)RB_INSERT(CallsByDeadline, &call->client->by_deadline, call);
        call->graced = graced;
}

void call_sent(shmd_call *call) {
        shmd *client = call->client;

        call->sent = call->tried = true;
        if (call->op->changes) {
                call->nth_change = client->n_changes;
                client->n_changes += call->op->changes;
                list_append(&client->changes, &call->change);
        }
        if (call->op->grace_ns)
                call_set_grace(call, true);
}

int call_start_own(shmd *client, const Op *op, const ProtobufCMessage *message, uint64_t timeout_ns,
                   shmd_callback callback, void *userdata, shmd_call **ret) {
        shmd_call *call;
        int r;

        call = call_new(client);
        if (!call)
                return -ENOMEM;
        call->op = op;
        call->serial = client->next_serial++;
        call->started_ns = client_now();
        call->deadline_ns = deadline_of(client, call->started_ns, timeout_ns);
        call->callback = callback;
        call->userdata = userdata;
        call->socket = client->n_sockets;

        call_insert(call);
        r = call_pack(call, message);
        if (r == 0)
                r = io_send(call);
        if (r) {
                call_remove(call);
                call_recycle(call);
                return r;
        }
        if (ret)
                *ret = call;
        return 0;
}

int call_start(shmd *client, const Op *op, const ProtobufCMessage *message, uint64_t timeout_ns,
               shmd_callback callback, void *userdata, shmd_call **ret) {
        KEEP_ERRNO;
        int r;

        r = client_check(client);
        if (r)
                return r == -EINVAL ? r : refusal_local(client, r, 0, 0, "", NULL);
        /* To wait in a callback would be to receive a packet while one is being looked at. */
        if (callback == call_waited && client->depth > 0)
                return refusal_local(client, -EDEADLK, 0, 0, "", NULL);

        r = call_start_own(client, op, message, timeout_ns, callback, userdata, ret);
        ready_update(client);
        return r ? refusal_local(client, r, 0, 0, "", NULL) : 0;
}

void call_end(shmd_call *call, int result) {
        shmd *client = call->client;

        call_remove(call);
        call->result = result;
        call->state = CALL_ENDED;
        if (result == 0 || !call->refusal.sentence)
                refusal_own(result, &call->refusal);

        if (call->callback) {
                ++client->depth;
                call->callback(client, call, call->userdata);
                --client->depth;
                ++client->n_callbacks;
        }
        if (result == 0 && call->state != CALL_FINISHED && call->op->untaken)
                call->op->untaken(client, call->reply);
        call_recycle(call);
}

/* The time is read once: a callback that starts calls cannot keep this from ending. */
void call_expire(shmd *client) {
        shmd_call *call = RB_MIN(CallsByDeadline, &client->by_deadline);
        uint64_t now_ns = call ? client_now() : 0;

        while (call && call->deadline_ns <= now_ns) {
                if (client->link != LINK_UP) {
                        refusal_own(-ETIMEDOUT, &call->refusal);
                        call->refusal.sentence = call->tried ? "the broker was gone, and did not come back in time; "
                                                               "whether it did it is unknown"
                                                             : "the broker was gone, and did not come back in time";
                }
                call_end(call, -ETIMEDOUT);
                call = RB_MIN(CallsByDeadline, &client->by_deadline);
        }
}

/* -- when the socket is lost ---------------------------------------------------------- */

static bool is_suspect(shmd_call *call, bool at_once) {
        call->n_losses = at_once ? call->n_losses + 1 : 0;
        return call->n_losses >= LOSSES_MAX && client_now() - call->started_ns >= LOSSES_NS;
}

/* Return: whether a call is to be sent once more. */
static bool may_go_again(shmd_call *call, bool at_once, bool *is_first) {
        if (!call->sent)
                return true;
        /* Waits are in flight for long, and only because nothing happens. */
        if (*is_first && !call->answered && !call->op->grace_ns) {
                *is_first = false;
                if (is_suspect(call, at_once))
                        return false;
        }
        return !call->op->once || !call->tried;
}

void call_requeue_all(shmd *client, bool at_once, List *doomed) {
        shmd_call *call, *next;
        bool is_first = true;

        for (call = call_first(client); call; call = next) {
                next = RB_NEXT(CallsBySerial, &client->by_serial, call);
                if (call->op->own) {
                        call_remove(call);
                        call_recycle(call);
                        continue;
                }
                list_unlink(&call->change);
                list_move(may_go_again(call, at_once, &is_first) ? &client->queue : doomed, &call->queued);
                call_set_grace(call, false);
                call->sent = call->answered = false;
        }
}

void call_forsake(shmd *client, List *doomed) {
        shmd_call *call;

        list_for_each(call, &client->queue, shmd_call, queued) {
                if (call->tried && call->op->changes)
                        list_move(doomed, &call->queued);
                call->tried = false;
        }
}

void call_end_all(List *doomed, int error) {
        shmd_call *call;

        while ((call = list_first(doomed, shmd_call, queued)))
                call_end(call, error);
}

/* -- outcomes --------------------------------------------------------------------------- */

int call_finish(shmd_call *call, const Op *op, void *out) {
        KEEP_ERRNO;
        int r;

        if (!call || call->op != op || call->state == CALL_IN_FLIGHT)
                return -EINVAL;
        if (call->state == CALL_FINISHED)
                return -EALREADY;
        call->state = CALL_FINISHED;
        if (call->result < 0 || !op->decode)
                return call->result;

        r = op->decode(call, call->reply, out);
        if (r && call->refusal.error != r) {
                uint32_t index = call->refusal.index;

                refusal_own(r, &call->refusal);
                call->refusal.index = index;
        }
        return r;
}

void shmd_call_cancel(shmd_call *call) {
        KEEP_ERRNO;
        shmd *client;

        if (!call || call->state != CALL_IN_FLIGHT)
                return;
        client = call->client;
        if (client_check(client) == -ECHILD)
                return;
        call_remove(call);
        call_recycle(call);
        ready_update(client);
}

int shmd_call_result(shmd_call *call) {
        return call->state == CALL_IN_FLIGHT ? -EINPROGRESS : call->result;
}

const struct shmd_refusal *shmd_call_refusal(shmd_call *call) {
        if (call->state == CALL_IN_FLIGHT)
                refusal_own(0, &call->refusal);
        return &call->refusal;
}

void call_waited(shmd *client, shmd_call *call, void *userdata) {
        CallWait *wait = userdata;

        wait->result = call_finish(call, call->op, wait->out);
        wait->done = true;
        refusal_remember(client, wait->result < 0 ? &call->refusal : NULL);
}

int call_wait(CallWait *wait, shmd *client, int started) {
        KEEP_ERRNO;

        if (started)
                return started;

        while (!wait->done) {
                int r = io_wait(client, &wait->done);

                if (r) {
                        shmd_call_cancel(wait->call);
                        return refusal_local(client, r, 0, 0, "", NULL);
                }
        }
        return wait->result;
}
