/* Errors: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/fail.h"

#include <errno.h>
#include <string.h>

#include "client/ctl/output.h"

static const struct {
        int error;
        int code;
        const char *words;
} outcomes[] = {
        { ENOENT,          CTL_NOT_FOUND, "not found" },
        { EACCES,          CTL_DENIED,    "permission denied" },
        { EPERM,           CTL_DENIED,    "not permitted" },
        { EDQUOT,          CTL_QUOTA,     "over quota" },
        { ETIMEDOUT,       CTL_DEADLINE,  "deadline passed" },
        { EEXIST,          CTL_FAILED,    "exists already" },
        { ENOTDIR,         CTL_FAILED,    "not a directory" },
        { EISDIR,          CTL_FAILED,    "is a directory" },
        { ENOTEMPTY,       CTL_FAILED,    "directory not empty" },
        { EBUSY,           CTL_FAILED,    "busy" },
        { EINVAL,          CTL_FAILED,    "not valid" },
        { EOPNOTSUPP,      CTL_FAILED,    "not supported" },
        { ENOMEM,          CTL_FAILED,    "not enough memory" },
        { ESHUTDOWN,       CTL_FAILED,    "the broker is stopping" },
        { ENOTCONN,        CTL_FAILED,    "connection lost" },
        { ECONNRESET,      CTL_FAILED,    "connection lost" },
        { ECONNREFUSED,    CTL_FAILED,    "nobody listens" },
        { EPROTO,          CTL_FAILED,    "the broker's answer breaks the protocol" },
        { EPROTONOSUPPORT, CTL_FAILED,    "no common version of the protocol" },
};

static int outcome_code(int error) {
        for (size_t i = 0; i < sizeof(outcomes) / sizeof(*outcomes); ++i)
                if (outcomes[i].error == error)
                        return outcomes[i].code;
        return CTL_FAILED;
}

static const char *outcome_words(int error) {
        const char *words;

        for (size_t i = 0; i < sizeof(outcomes) / sizeof(*outcomes); ++i)
                if (outcomes[i].error == error)
                        return outcomes[i].words;
        words = strerrordesc_np(error);
        return words ? words : "unknown error";
}

typedef struct Failure {
        const char *thing;
        int error;                              /* positive */
        int code;
        const char *words;
        const char *sentence;                   /* "" if there is none */
        const struct shmd_refusal *refusal;     /* NULL if nobody refused */
} Failure;

/* The numbers of a limit are exact here, whatever --bytes says: a refusal by one byte must not
 * read "asked 4.0G, left 4.0G". */
static void print_limit(const struct shmd_refusal *refusal) {
        char user[OUTPUT_USER_MAX];

        fprintf(stderr, " (asked %" PRIu64 ", left %" PRIu64 ", limit ", refusal->asked, refusal->left);
        if (refusal->limit == UINT64_MAX)
                fprintf(stderr, "none");
        else
                fprintf(stderr, "%" PRIu64, refusal->limit);
        fprintf(stderr, ", slot %s, account of %s)",
                shmd_slot_name(refusal->slot), output_user(user, refusal->uid));
}

/* The sentence without the words it may begin with: they stand in front of it already. */
static const char *new_words(const Failure *failure) {
        size_t n = strlen(failure->words);

        if (strncmp(failure->sentence, failure->words, n) != 0)
                return failure->sentence;
        if (!failure->sentence[n])
                return "";
        return strncmp(failure->sentence + n, ": ", 2) == 0 ? failure->sentence + n + 2 : failure->sentence;
}

static void print_text(const Failure *failure) {
        CLEANUP(freep) char *thing = output_escape(failure->thing, stderr);
        CLEANUP(freep) char *sentence = output_escape(new_words(failure), stderr);

        fprintf(stderr, "shmdctl: %s: %s", thing, failure->words);
        if (*sentence)
                fprintf(stderr, ": %s", sentence);
        if (failure->refusal && failure->refusal->slot)
                print_limit(failure->refusal);
        fputc('\n', stderr);
}

static void print_json(const Failure *failure) {
        const struct shmd_refusal *refusal = failure->refusal;
        const char *name = strerrorname_np(failure->error);
        json_t *o = json_object();

        output_set(o, "error", output_string(failure->words));
        output_set(o, "errno", output_string(name ? name : "unknown"));
        output_set(o, "exit", json_integer(failure->code));
        output_set(o, "thing", output_string(failure->thing));
        output_set(o, "sentence", output_string(failure->sentence));
        if (refusal && refusal->code) {
                output_set(o, "reason", output_string(shmd_reason_name(refusal->reason)));
                output_set(o, "refused", output_string(refusal->thing));
        }
        if (refusal && refusal->slot) {
                output_set(o, "slot", output_string(shmd_slot_name(refusal->slot)));
                output_set(o, "uid", json_integer(refusal->uid));
                output_set(o, "asked", output_number(refusal->asked));
                output_set(o, "left", output_number(refusal->left));
                output_set(o, "limit", output_limit(refusal->limit));
        }
        output_json(o, stderr);
}

static int fail(Ctl *ctl, const Failure *failure) {
        if (ctl->json)
                print_json(failure);
        else
                print_text(failure);
        return failure->code;
}

int fail_call(Ctl *ctl, const char *thing, int error) {
        const struct shmd_refusal *refusal = ctl->client ? shmd_refusal(ctl->client) : NULL;

        if (refusal && refusal->error != error)
                refusal = NULL;

        return fail(ctl, &(Failure){
                .thing = thing,
                .error = -error,
                .code = outcome_code(-error),
                .words = outcome_words(-error),
                .sentence = refusal ? refusal->sentence : "",
                .refusal = refusal,
        });
}

int fail_system(Ctl *ctl, const char *thing, int error, const char *sentence) {
        return fail(ctl, &(Failure){
                .thing = thing,
                .error = -error,
                .code = CTL_FAILED,
                .words = outcome_words(-error),
                .sentence = sentence ? sentence : "",
        });
}

/* Where the library was told to look; it tried several places if nobody told it. */
static const char *socket_name(const Ctl *ctl) {
        const char *socket = ctl->socket ? ctl->socket : secure_getenv("SHMD_SOCKET");

        return socket && *socket ? socket : "broker";
}

/* A socket that is not there is no name that was not found: the exit code is that of a failure. */
int fail_connect(Ctl *ctl, int error) {
        const struct shmd_refusal *refusal = ctl->client ? shmd_refusal(ctl->client) : NULL;
        bool absent = error == -ENOENT || error == -ECONNREFUSED;
        const char *sentence = refusal ? refusal->sentence : "";

        if (absent)
                sentence = "is shmd running, and is --socket or $SHMD_SOCKET right?";
        else if (error == -EPERM)
                sentence = "who listens there is neither root, nor you, nor the owner of the socket";

        return fail(ctl, &(Failure){
                .thing = socket_name(ctl),
                .error = -error,
                .code = absent || error == -EPERM ? CTL_FAILED : outcome_code(-error),
                .words = absent ? "no broker there" : outcome_words(-error),
                .sentence = sentence,
                .refusal = refusal,
        });
}

int fail_usage(Ctl *ctl, const char *sentence) {
        return fail(ctl, &(Failure){
                .thing = ctl->command->name,
                .error = EINVAL,
                .code = CTL_USAGE,
                .words = "usage",
                .sentence = sentence,
        });
}
