/* state: see shmd.h. */

#include "buildinfo.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "client/client.h"

#define SEALS_NEEDED (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE)

/* Whether it is what was promised: memory of that size, in which nothing changes any more. */
static int check(int fd, uint64_t size) {
        int seals = fcntl(fd, F_GET_SEALS);
        struct stat st;

        if (seals < 0 || (seals & SEALS_NEEDED) != SEALS_NEEDED)
                return -EPROTO;
        if (fstat(fd, &st) < 0)
                return -errno;
        return (uint64_t)st.st_size == size ? 0 : -EPROTO;
}

static size_t state_n_fds(const ProtobufCMessage *reply) {
        return 1;
}

static int state_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__StateReply *answer = (const Shmd__StateReply *)reply;
        CLEANUP(close_fdp) int fd = fdlist_take(&call->client->fds);
        int *ret = out, r;

        r = check(fd, answer->size);
        if (r)
                return r;
        *ret = steal_fd(&fd);
        return 0;
}

static const Op op_state = { .kind = MESSAGE_STATE, .n_fds = state_n_fds, .decode = state_decode };

int shmd_state_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__State state = SHMD__STATE__INIT;

        return call_start(client, &op_state, &state.base, timeout_ns, callback, userdata, ret);
}

int shmd_state_finish(shmd_call *call, int *ret_fd) {
        *ret_fd = -1;
        return call_finish(call, &op_state, ret_fd);
}

int shmd_state(shmd *client, int *ret_fd, uint64_t timeout_ns) {
        CallWait wait = { .out = ret_fd };

        *ret_fd = -1;
        return call_wait(&wait, client, shmd_state_start(client, timeout_ns, call_waited, &wait, &wait.call));
}
