/* What stood behind a failure: numbers to errno, to names, and to sentences.
 *
 * A call's refusal lives as long as its callback runs, in the connection's arena. The one behind
 * the latest synchronous failure is a copy that the connection keeps.
 */

#include "buildinfo.h"

#include "client/client.h"

#include <string.h>

#include "base/path.h"

static const int errnos[] = {
        [SHMD_ERROR_NONE]          = EPROTO,    /* no refusal at all: it should not have come */
        [SHMD_ERROR_INVALID]       = EINVAL,
        [SHMD_ERROR_NOT_FOUND]     = ENOENT,
        [SHMD_ERROR_EXISTS]        = EEXIST,
        [SHMD_ERROR_DENIED]        = EACCES,
        [SHMD_ERROR_QUOTA]         = EDQUOT,
        [SHMD_ERROR_TIMEOUT]       = ETIMEDOUT,
        [SHMD_ERROR_NOT_DIRECTORY] = ENOTDIR,
        [SHMD_ERROR_IS_DIRECTORY]  = EISDIR,
        [SHMD_ERROR_NOT_EMPTY]     = ENOTEMPTY,
        [SHMD_ERROR_BUSY]          = EBUSY,
        [SHMD_ERROR_UNSUPPORTED]   = EOPNOTSUPP,
        [SHMD_ERROR_NO_MEMORY]     = ENOMEM,
        [SHMD_ERROR_SHUTDOWN]      = ESHUTDOWN,
};

int refusal_errno(uint32_t code) {
        return code < sizeof(errnos) / sizeof(errnos[0]) ? -errnos[code] : -EIO;
}

static const char *const slots[] = {
        [0]                  = "none",
        [SHMD_SLOT_BYTES]    = "bytes",
        [SHMD_SLOT_REGIONS]  = "regions",
        [SHMD_SLOT_GRANTS]   = "grants",
        [SHMD_SLOT_PEERS]    = "peers",
        [SHMD_SLOT_WATCHES]  = "watches",
        [SHMD_SLOT_PENDING]  = "pending",
        [SHMD_SLOT_INFLIGHT] = "inflight",
};

const char *shmd_reason_name(uint32_t reason) {
        return message_reason_name(reason);
}

const char *shmd_slot_name(uint32_t slot) {
        return slot < sizeof(slots) / sizeof(slots[0]) ? slots[slot] : "unknown";
}

/* -- the broker's words -------------------------------------------------------------- */

static const char *arena_string(Arena *arena, const ProtobufCBinaryData *bytes) {
        char *s = arena_alloc(arena, bytes->len + 1);

        if (!s)
                return "";
        if (bytes->len)
                memcpy(s, bytes->data, bytes->len);
        s[bytes->len] = '\0';
        return s;
}

void refusal_decode(Arena *arena, const Shmd__Refusal *message, struct shmd_refusal *ret) {
        *ret = (struct shmd_refusal){
                .error = refusal_errno(message->error),
                .code = message->error,
                .reason = message->reason,
                .slot = message->slot,
                .uid = message->uid,
                .index = message->index,
                .asked = message->asked,
                .left = message->left,
                .limit = message->limit,
                .thing = arena_string(arena, &message->thing),
                .sentence = arena_string(arena, &message->sentence),
        };
}

/* -- our own ------------------------------------------------------------------------- */

static const struct {
        int error;
        const char *sentence;
} sentences[] = {
        { EINVAL,          "the arguments make no sense together" },
        { ETIMEDOUT,       "no answer came in time; whether the broker did it is unknown" },
        { ECONNRESET,      "the broker ended the connection; whether it did it is unknown" },
        { ECANCELED,       "the connection was closed before the answer came" },
        { ENOTCONN,        "the connection to the broker is lost" },
        { ECHILD,          "the connection belongs to the parent process" },
        { EDEADLK,         "a callback may start calls but not wait for them" },
        { EMFILE,          "this process has no room for another descriptor" },
        { EPROTO,          "what the broker sent breaks the protocol" },
        { EPROTONOSUPPORT, "the broker speaks no version of the protocol that this library knows" },
        { E2BIG,           "the request does not fit one packet" },
        { ENOMEM,          "there is not enough memory" },
};

static const char *own_sentence(int error) {
        const char *words;

        if (error == 0)
                return "";
        for (size_t i = 0; i < sizeof(sentences) / sizeof(sentences[0]); ++i)
                if (sentences[i].error == -error)
                        return sentences[i].sentence;
        words = strerrordesc_np(-error);
        return words ? words : "unknown error";
}

void refusal_own(int error, struct shmd_refusal *ret) {
        *ret = (struct shmd_refusal){ .error = error, .thing = "", .sentence = own_sentence(error) };
}

int refusal_local(shmd *client, int error, uint32_t reason, uint32_t index, const char *thing, const char *sentence) {
        struct shmd_refusal refusal = {
                .error = error,
                .reason = reason,
                .index = index,
                .thing = thing,
                .sentence = sentence ? sentence : own_sentence(error),
        };

        refusal_remember(client, &refusal);
        return error;
}

/* -- the latest one ------------------------------------------------------------------ */

/* Without memory for a copy of the strings the numbers still stand. */
static void copy_strings(shmd *client, const struct shmd_refusal *refusal) {
        size_t n_thing = strlen(refusal->thing) + 1;
        size_t n_sentence = strlen(refusal->sentence) + 1;
        char *text = malloc(n_thing + n_sentence);

        if (!text) {
                client->refusal.thing = "";
                client->refusal.sentence = own_sentence(refusal->error);
                return;
        }
        memcpy(text, refusal->thing, n_thing);
        memcpy(text + n_thing, refusal->sentence, n_sentence);
        client->refusal.thing = text;
        client->refusal.sentence = text + n_thing;
        client->refusal_text = text;
}

void refusal_remember(shmd *client, const struct shmd_refusal *refusal) {
        char *old = client->refusal_text;

        client->refusal_text = NULL;
        if (refusal) {
                client->refusal = *refusal;
                copy_strings(client, refusal);
        } else {
                refusal_own(0, &client->refusal);
        }
        free(old);
}

const struct shmd_refusal *shmd_refusal(shmd *client) {
        static const struct shmd_refusal none = { .thing = "", .sentence = "" };

        return client ? &client->refusal : &none;
}

/* -- names --------------------------------------------------------------------------- */

static PathError check(const char *path) {
        return path ? path_check(path, strnlen(path, PATH_BYTES_MAX + 1)) : PATH_EMPTY;
}

int shmd_path_check(const char *path, const char **ret_sentence) {
        PathError error = check(path);

        if (!error)
                return 0;
        if (ret_sentence)
                *ret_sentence = path_error_sentence(error);
        return -EINVAL;
}

int request_path(shmd *client, const char *path, uint32_t index, ProtobufCBinaryData *ret) {
        PathError error;
        int r;

        r = client_check(client);
        if (r)
                return r == -EINVAL ? r : refusal_local(client, r, 0, index, "", NULL);
        error = check(path);
        if (error)
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_NAME, index, path ? path : "",
                                     path_error_sentence(error));

        ret->data = (uint8_t *)path;
        ret->len = strlen(path);
        return 0;
}
