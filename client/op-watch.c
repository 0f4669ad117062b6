/* watch and unwatch: see shmd.h.
 *
 * A watch is kept from the moment its reply is taken until it is given up, or ended by the broker, or lost
 * with the connection. It has a number of ours, and the broker's number for it (wire), which is another one
 * through another socket, and none while there is no broker. Events of a number that is not kept are
 * dropped: they were on their way when the watch was given up. A watch that nobody took, because its call
 * was canceled or too late or had no callback, is given up at once, or the broker would go on telling.
 *
 * When a socket was lost, the next one begins with a watch of the same path after the last event that was
 * heard. The broker tells whether it knows what came after it, with an overflow if not. A thing that is known
 * to have been renamed cannot be found again, and its watch is lost.
 */

#include "buildinfo.h"

#include "client/client.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/path.h"

#define EVENTS_KNOWN                                                                    \
        (SHMD_EVENT_CREATED | SHMD_EVENT_REMOVED | SHMD_EVENT_RENAMED | SHMD_EVENT_REPLACED | SHMD_EVENT_FROZEN | \
         SHMD_EVENT_HOLDERS | SHMD_EVENT_LIMITS | SHMD_EVENT_OVERFLOW | SHMD_EVENT_CHANGED)

struct ClientWatch {
        RB_ENTRY(ClientWatch) entry;
        RB_ENTRY(ClientWatch) by_wire;
        uint64_t number;
        uint64_t wire;          /* the broker's number; 0: it has none now */
        uint64_t heard;         /* the number of the latest event */
        uint32_t mask;
        bool moved;             /* it has another name than path */
        shmd_call *again;       /* asks for it through a new socket */
        shmd_event_callback callback;
        void *userdata;
        size_t n_path;
        char path[];            /* as it was named; without the slash of the root */
};

static int compare_watches(const ClientWatch *a, const ClientWatch *b) {
        return a->number < b->number ? -1 : a->number > b->number;
}

static int compare_wires(const ClientWatch *a, const ClientWatch *b) {
        return a->wire < b->wire ? -1 : a->wire > b->wire;
}

TREE_GENERATE(ClientWatches, ClientWatch, entry, compare_watches)
TREE_GENERATE(ClientWatchesByWire, ClientWatch, by_wire, compare_wires)

static ClientWatch *watch_find(shmd *client, uint64_t number) {
        ClientWatch key = { .number = number };

        return RB_FIND(ClientWatches, &client->watches, &key);
}

static ClientWatch *watch_find_wire(shmd *client, uint64_t wire) {
        ClientWatch key = { .wire = wire };

        return RB_FIND(ClientWatchesByWire, &client->watches_by_wire, &key);
}

static void watch_set_wire(shmd *client, ClientWatch *watch, uint64_t wire) {
        if (watch->wire)
                (void)RB_REMOVE(ClientWatchesByWire, &client->watches_by_wire, watch);
        watch->wire = wire;
        if (wire)
                (void)RB_INSERT(ClientWatchesByWire, &client->watches_by_wire, watch);
}

/* An answer that is still to come finds nobody. */
static void watch_unlink(shmd *client, ClientWatch *watch) {
        watch_set_wire(client, watch, 0);
        (void)RB_REMOVE(ClientWatches, &client->watches, watch);
        if (watch->again) {
                watch->again->callback = NULL;
                watch->again = NULL;
        }
}

static void watch_drop(shmd *client, ClientWatch *watch) {
        watch_unlink(client, watch);
        free(watch);
}

void watches_forget(shmd *client) {
        ClientWatch *watch;

        while ((watch = RB_ROOT(&client->watches)))
                watch_drop(client, watch);
}

/* -- what is told ---------------------------------------------------------------------- */

static void tell(shmd *client, const ClientWatch *watch, const struct shmd_event *event) {
        shmd_event_callback callback = watch->callback;
        void *userdata = watch->userdata;

        if (!callback)
                return;
        ++client->depth;
        callback(client, event, userdata);
        --client->depth;
        ++client->n_callbacks;
}

/* The watch has ended, and not by its owner's will. */
static void watch_lose(shmd *client, ClientWatch *watch, int error) {
        char path[PATH_BYTES_MAX + 1];
        struct shmd_event event = { .watch = watch->number, .event = SHMD_EVENT_LOST, .itself = true,
                                    .path = path, .error = error };

        (void)strcpy(path, watch->n_path ? watch->path : "/");
        watch_unlink(client, watch);
        tell(client, watch, &event);
        free(watch);
}

void watches_lose(shmd *client, int error) {
        ClientWatch *watch;

        while ((watch = RB_MIN(ClientWatches, &client->watches)))
                watch_lose(client, watch, error);
}

/* A whole path: what is watched, and a name below it. Return: false if the broker makes no sense. */
static bool join(const ClientWatch *watch, const ProtobufCBinaryData *below, char path[2 * PATH_BYTES_MAX + 2]) {
        if (below->len > PATH_BYTES_MAX)
                return false;
        if (below->len == 1 || (below->len && path_check((const char *)below->data, below->len)))
                return false;
        memcpy(path, watch->path, watch->n_path);
        if (below->len)
                memcpy(path + watch->n_path, below->data, below->len);
        path[watch->n_path + below->len] = '\0';
        if (!path[0])
                (void)strcpy(path, "/");
        return true;
}

/* Return: 0, -EPROTO. */
static int deliver(shmd *client, const Shmd__Event *from) {
        ClientWatch *watch = watch_find_wire(client, from->watch);
        char path[2 * PATH_BYTES_MAX + 2], to[2 * PATH_BYTES_MAX + 2];
        struct shmd_event event = {
                .watch = watch ? watch->number : 0,
                .sequence = from->sequence,
                .event = from->event,
                .path = path,
                .to = from->event == SHMD_EVENT_RENAMED ? to : NULL,
                .itself = from->path.len == 0,
                .kind = from->kind,
                .region = from->region,
                .grants = from->grants,
                .held = from->held,
                .exchange = from->exchange,
                .account = from->account,
                .seals = from->seals,
                .uid = from->uid,
        };

        if (!watch)
                return 0;
        watch->heard = from->sequence;
        /* A broker that is newer may tell of more. */
        if (!(from->event & EVENTS_KNOWN))
                return 0;
        if (from->event & (from->event - 1) || !join(watch, &from->path, path) || !join(watch, &from->to, to))
                return -EPROTO;
        watch->moved |= event.itself && event.event == SHMD_EVENT_RENAMED;
        tell(client, watch, &event);
        /* The callback may have given it up. */
        watch = watch_find_wire(client, from->watch);
        if (watch && event.itself && event.event == SHMD_EVENT_REMOVED)
                watch_drop(client, watch);
        return 0;
}

int watches_deliver(shmd *client, const ProtobufCMessage *message) {
        const Shmd__Events *events = (const Shmd__Events *)message;
        int r = 0;

        for (size_t i = 0; i < events->n_events && r == 0 && !client->lost; ++i)
                r = deliver(client, events->events[i]);
        return r;
}

/* -- unwatch --------------------------------------------------------------------------- */

static int unwatch_renew(shmd_call *call);

static const Op op_unwatch = { .kind = MESSAGE_UNWATCH, .renew = unwatch_renew };

/* What takes the place of an unwatch when the broker knows nothing of the watch. */
static const Op op_unwatched = { .kind = MESSAGE_PING };

static int unwatch_renew(shmd_call *call) {
        if (call->socket == call->client->n_sockets)
                return 0;
        call->op = &op_unwatched;
        return call_pack(call, &(Shmd__Ping)SHMD__PING__INIT.base);
}

static int unwatch_start(shmd *client, uint64_t wire, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                         shmd_call **ret) {
        Shmd__Unwatch unwatch = SHMD__UNWATCH__INIT;
        Shmd__Ping ping = SHMD__PING__INIT;

        if (!wire)
                return call_start(client, &op_unwatched, &ping.base, timeout_ns, callback, userdata, ret);
        unwatch.watch = wire;
        return call_start(client, &op_unwatch, &unwatch.base, timeout_ns, callback, userdata, ret);
}

int shmd_unwatch_start(shmd *client, uint64_t number, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                       shmd_call **ret) {
        ClientWatch *watch;
        int r;

        r = client_check(client);
        if (r)
                return r == -EINVAL ? r : refusal_local(client, r, 0, 0, "", NULL);
        watch = watch_find(client, number);
        if (!watch)
                return refusal_local(client, -ENOENT, SHMD__REASON__REASON_EVENTS, 0, "",
                                     "no watch of that number is this connection's");
        r = unwatch_start(client, watch->wire, timeout_ns, callback, userdata, ret);
        if (r == 0)
                watch_drop(client, watch);
        return r;
}

int shmd_unwatch_finish(shmd_call *call) {
        return call_finish(call, call && call->op == &op_unwatched ? &op_unwatched : &op_unwatch, NULL);
}

int shmd_unwatch(shmd *client, uint64_t watch, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_unwatch_start(client, watch, timeout_ns, call_waited, &wait, &wait.call));
}

/* -- watch ----------------------------------------------------------------------------- */

typedef struct WatchOut {
        uint64_t *watch;
        uint64_t *sequence;
} WatchOut;

static int watch_decode(shmd_call *call, const ProtobufCMessage *message, void *data) {
        const Shmd__WatchReply *reply = (const Shmd__WatchReply *)message;
        ClientWatch *watch = call->watch;
        const WatchOut *out = data;

        if (reply->watch == 0 || watch_find_wire(call->client, reply->watch))
                return -EPROTO;
        watch->number = ++call->client->last_watch;
        watch->heard = reply->sequence;
        (void)RB_INSERT(ClientWatches, &call->client->watches, watch);
        watch_set_wire(call->client, watch, reply->watch);
        call->watch = NULL;
        *out->watch = watch->number;
        if (out->sequence)
                *out->sequence = reply->sequence;
        return 0;
}

void watch_untaken(shmd *client, const ProtobufCMessage *reply) {
        if (!client->lost)
                (void)unwatch_start(client, ((const Shmd__WatchReply *)reply)->watch, SHMD_TIMEOUT_DEFAULT,
                                    NULL, NULL, NULL);
}

static const Op op_watch = { .kind = MESSAGE_WATCH, .decode = watch_decode, .untaken = watch_untaken };

static ClientWatch *watch_new(const char *path, uint32_t mask, shmd_event_callback callback, void *userdata) {
        size_t n = strcmp(path, "/") ? strlen(path) : 0;
        ClientWatch *watch = malloc(sizeof(*watch) + n + 1);

        if (!watch)
                return NULL;
        *watch = (ClientWatch){ .mask = mask, .callback = callback, .userdata = userdata, .n_path = n };
        memcpy(watch->path, path, n);
        watch->path[n] = '\0';
        return watch;
}

int shmd_watch_start(shmd *client, const char *path, uint32_t mask, uint64_t sequence,
                     shmd_event_callback on_event, void *event_userdata,
                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Watch request = SHMD__WATCH__INIT;
        CLEANUP(freep) ClientWatch *watch = NULL;
        shmd_call *call;
        int r;

        r = request_path(client, path, 0, &request.path);
        if (r)
                return r;
        watch = watch_new(path, mask, on_event, event_userdata);
        if (!watch)
                return refusal_local(client, -ENOMEM, 0, 0, "", NULL);
        request.mask = mask;
        request.sequence = sequence;
        r = call_start(client, &op_watch, &request.base, timeout_ns, callback, userdata, &call);
        if (r)
                return r;
        call->watch = watch;
        watch = NULL;
        if (ret)
                *ret = call;
        return 0;
}

int shmd_watch_finish(shmd_call *call, uint64_t *ret_watch, uint64_t *ret_sequence) {
        WatchOut out = { .watch = ret_watch, .sequence = ret_sequence };

        *ret_watch = 0;
        return call_finish(call, &op_watch, &out);
}

int shmd_watch(shmd *client, const char *path, uint32_t mask, uint64_t sequence,
               shmd_event_callback on_event, void *event_userdata,
               uint64_t *ret_watch, uint64_t *ret_sequence, uint64_t timeout_ns) {
        WatchOut out = { .watch = ret_watch, .sequence = ret_sequence };
        CallWait wait = { .out = &out };

        *ret_watch = 0;
        return call_wait(&wait, client,
                         shmd_watch_start(client, path, mask, sequence, on_event, event_userdata, timeout_ns,
                                          call_waited, &wait, &wait.call));
}

/* -- and again -------------------------------------------------------------------------- */

static int again_decode(shmd_call *call, const ProtobufCMessage *message, void *data) {
        const Shmd__WatchReply *reply = (const Shmd__WatchReply *)message;
        ClientWatch *watch = data;

        if (reply->watch == 0 || watch_find_wire(call->client, reply->watch))
                return -EPROTO;
        watch_set_wire(call->client, watch, reply->watch);
        return 0;
}

static const Op op_again = { .kind = MESSAGE_WATCH, .own = true, .decode = again_decode, .untaken = watch_untaken };

static void on_again(shmd *client, shmd_call *call, void *userdata) {
        ClientWatch *watch = userdata;
        int r = call_finish(call, &op_again, watch);

        watch->again = NULL;
        if (r < 0)
                watch_lose(client, watch, r);
}

void watches_detach(shmd *client) {
        ClientWatch *watch;

        RB_FOREACH(watch, ClientWatches, &client->watches) {
                watch_set_wire(client, watch, 0);
                watch->again = NULL;
        }
}

static int watch_again(shmd *client, ClientWatch *watch) {
        Shmd__Watch request = SHMD__WATCH__INIT;

        if (watch->moved)
                return -ENOENT;
        request.path = (ProtobufCBinaryData){ .data = (uint8_t *)watch->path, .len = watch->n_path };
        if (!watch->n_path)
                request.path = (ProtobufCBinaryData){ .data = (uint8_t *)"/", .len = 1 };
        request.mask = watch->mask;
        request.sequence = watch->heard;
        return call_start_own(client, &op_again, &request.base, SHMD_TIMEOUT_NONE, on_again, watch, &watch->again);
}

/* A callback may start and give up watches: each is looked for anew. One that was begun meanwhile has its number
 * from the broker. */
void watches_resume(shmd *client) {
        ClientWatch key = { 0 }, *watch;

        while ((watch = RB_NFIND(ClientWatches, &client->watches, &key))) {
                int r = watch->wire || watch->again ? 0 : watch_again(client, watch);

                key.number = watch->number + 1;
                if (r)
                        watch_lose(client, watch, r);
        }
}
