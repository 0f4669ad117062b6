/* Connections: made, asked about, lost and closed. See the header for the model. */

#include "buildinfo.h"

#include "client/client.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include "base/assert.h"

#define GUARD_BYTES sizeof(uint8_t)     /* the kernel rounds it up to a page */

/* A kernel or an emulator without MADV_WIPEONFORK (Linux 4.14) leaves us with the pid. */
static void guard_init(shmd *client) {
        uint8_t *page;

        client->pid = getpid();
        page = mmap(NULL, GUARD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
                return;
        if (madvise(page, GUARD_BYTES, MADV_WIPEONFORK) < 0) {
                (void)munmap(page, GUARD_BYTES);
                return;
        }
        *page = 1;
        client->alive = page;
}

static bool is_child(const shmd *client) {
        return client->alive ? !*client->alive : getpid() != client->pid;
}

int client_new(shmd **ret) {
        CLEANUP(shmd_closep) shmd *client = NULL;
        int r;

        client = calloc(1, sizeof(*client));
        if (!client)
                return -ENOMEM;

        client->fd = -1;
        client->reconnects = true;
        client->timeout_ns = CLIENT_TIMEOUT_NS;
        client->next_serial = 1;
        list_init(&client->queue);
        list_init(&client->changes);
        ready_init(client);
        refusal_remember(client, NULL);
        guard_init(client);

        client->buffer = malloc(WIRE_REPLY_MAX);
        if (!client->buffer)
                return -ENOMEM;
        r = arena_new(&client->arena, CLIENT_ARENA_BYTES);
        if (r)
                return r;

        *ret = client;
        client = NULL;
        return 0;
}

int client_check(const shmd *client) {
        if (!client)
                return -EINVAL;
        if (is_child(client))
                return -ECHILD;
        return client->lost ? -ENOTCONN : 0;
}

uint64_t client_now(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * CLIENT_NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t client_timeout(const shmd *client, uint64_t timeout_ns) {
        return timeout_ns == SHMD_TIMEOUT_DEFAULT ? client->timeout_ns : timeout_ns;
}

static void end_all(shmd *client, int error, const Shmd__Refusal *why) {
        shmd_call *call;

        while ((call = call_first(client))) {
                int result = error;

                if (why) {
                        refusal_decode(client->arena, why, &call->refusal);
                        if (call->op->kind == MESSAGE_HELLO)
                                result = call->refusal.error;
                        call->refusal.error = result;
                }
                call_end(call, result);
        }
}

void client_tell(shmd *client, const struct shmd_event *event) {
        if (!client->listener)
                return;
        ++client->depth;
        client->listener(client, event, client->listener_userdata);
        --client->depth;
        ++client->n_callbacks;
}

void client_lose(shmd *client, int error, const Shmd__Refusal *why) {
        struct shmd_event event = { .event = SHMD_EVENT_LOST, .path = "", .error = error };

        if (client->lost)
                return;
        client->lost = true;
        /* The descriptor stays open until shmd_close(): the caller's event loop still has it. */
        if (client->fd >= 0)
                (void)shutdown(client->fd, SHUT_RDWR);
        end_all(client, error, why);
        watches_lose(client, error);
        client_tell(client, &event);
}

shmd *shmd_close(shmd *client) {
        KEEP_ERRNO;

        if (!client)
                return NULL;
        ASSERT(client->depth == 0 || is_child(client));

        if (is_child(client)) {
                watches_forget(client);
                call_forget_all(client);
        } else {
                client_lose(client, -ECANCELED, NULL);
        }

        call_free_spare(client);
        fdlist_deinit(&client->fds);
        client->arena = arena_free(client->arena);
        ready_deinit(client);
        client->fd = close_fd(client->fd);
        if (client->alive)
                (void)munmap(client->alive, GUARD_BYTES);
        free(client->refusal_text);
        free(client->broker);
        free(client->socket);
        free(client->buffer);
        free(client);
        return NULL;
}

int shmd_set_timeout(shmd *client, uint64_t timeout_ns) {
        if (!client || timeout_ns == SHMD_TIMEOUT_DEFAULT)
                return -EINVAL;
        if (is_child(client))
                return -ECHILD;
        client->timeout_ns = timeout_ns;
        return 0;
}

int shmd_set_reconnect(shmd *client, bool on) {
        KEEP_ERRNO;
        int r = client_check(client);

        if (r)
                return r;
        client->reconnects = on;
        ready_update(client);
        return 0;
}

int shmd_set_listener(shmd *client, shmd_event_callback on_event, void *userdata) {
        int r = client_check(client);

        if (r)
                return r;
        client->listener = on_event;
        client->listener_userdata = userdata;
        return 0;
}

int shmd_session(shmd *client, uint8_t session[16], uint32_t *uid, bool *admin) {
        int r = client_check(client);

        if (r)
                return r;
        if (session)
                memcpy(session, client->session, sizeof(client->session));
        if (uid)
                *uid = client->uid;
        if (admin)
                *admin = client->admin;
        return 0;
}

int shmd_connect_flags(shmd *client, uint32_t *ret) {
        int r = client_check(client);

        if (r)
                return r;
        *ret = client->features & SHMD__FEATURES__FEATURE_BUSY_POLL ? client->flags & SHMD_CONNECT_BUSY_POLL : 0;
        return 0;
}

const char *shmd_socket(shmd *client) {
        return client && client->socket ? client->socket : "";
}

const char *shmd_broker_version(shmd *client) {
        return client && client->broker ? client->broker : "";
}

pid_t shmd_broker_pid(shmd *client) {
        return client ? client->broker_pid : 0;
}

const char *shmd_version(void) {
        return PACKAGE_VERSION;
}
