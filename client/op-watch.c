/* watch and unwatch: see shmd.h.
 *
 * A watch is kept under the broker's number for it, from the moment its reply is taken until it is given
 * up, or ended by the broker, or lost with the connection. Events of a number that is not kept are
 * dropped: they were on their way when the watch was given up. A watch that nobody took, because its call
 * was canceled or too late or had no callback, is given up at once, or the broker would go on telling.
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
        uint64_t number;
        shmd_event_callback callback;
        void *userdata;
        size_t n_path;
        char path[];            /* as it was named; without the slash of the root */
};

static int compare_watches(const ClientWatch *a, const ClientWatch *b) {
        return a->number < b->number ? -1 : a->number > b->number;
}

TREE_GENERATE(ClientWatches, ClientWatch, entry, compare_watches)

static ClientWatch *watch_find(shmd *client, uint64_t number) {
        ClientWatch key = { .number = number };

        return RB_FIND(ClientWatches, &client->watches, &key);
}

static void watch_drop(shmd *client, ClientWatch *watch) {
        (void)RB_REMOVE(ClientWatches, &client->watches, watch);
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

void watches_lose(shmd *client, int error) {
        ClientWatch *watch;

        while ((watch = RB_MIN(ClientWatches, &client->watches))) {
                char path[PATH_BYTES_MAX + 1];
                struct shmd_event event = { .watch = watch->number, .event = SHMD_EVENT_LOST, .itself = true,
                                            .path = path, .error = error };

                (void)strcpy(path, watch->n_path ? watch->path : "/");
                (void)RB_REMOVE(ClientWatches, &client->watches, watch);
                tell(client, watch, &event);
                free(watch);
        }
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
        ClientWatch *watch = watch_find(client, from->watch);
        char path[2 * PATH_BYTES_MAX + 2], to[2 * PATH_BYTES_MAX + 2];
        struct shmd_event event = {
                .watch = from->watch,
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

        /* A broker that is newer may tell of more. */
        if (!watch || !(from->event & EVENTS_KNOWN))
                return 0;
        if (from->event & (from->event - 1) || !join(watch, &from->path, path) || !join(watch, &from->to, to))
                return -EPROTO;
        tell(client, watch, &event);
        /* The callback may have given it up. */
        watch = watch_find(client, from->watch);
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

static const Op op_unwatch = { .kind = MESSAGE_UNWATCH };

static int unwatch_start(shmd *client, uint64_t number, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                         shmd_call **ret) {
        Shmd__Unwatch unwatch = SHMD__UNWATCH__INIT;

        unwatch.watch = number;
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
        r = unwatch_start(client, number, timeout_ns, callback, userdata, ret);
        if (r == 0)
                watch_drop(client, watch);
        return r;
}

int shmd_unwatch_finish(shmd_call *call) {
        return call_finish(call, &op_unwatch, NULL);
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

        if (reply->watch == 0 || watch_find(call->client, reply->watch))
                return -EPROTO;
        watch->number = reply->watch;
        (void)RB_INSERT(ClientWatches, &call->client->watches, watch);
        call->watch = NULL;
        *out->watch = reply->watch;
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

static ClientWatch *watch_new(const char *path, shmd_event_callback callback, void *userdata) {
        size_t n = strcmp(path, "/") ? strlen(path) : 0;
        ClientWatch *watch = malloc(sizeof(*watch) + n + 1);

        if (!watch)
                return NULL;
        *watch = (ClientWatch){ .callback = callback, .userdata = userdata, .n_path = n };
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
        watch = watch_new(path, on_event, event_userdata);
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
