/* Requests about the broker's state as a whole: state.
 *
 * An administrator gets a copy of all that would outlive the broker: a sealed memfd, which
 * `shmd --check-state` reads. It is made a little in each turn of the loop, and what others change
 * meanwhile is in it. There is one in the making at a time; who asks for another one waits. The memory of
 * a copy is charged to nobody: whoever may ask for it may also change every limit there is.
 */

#include <errno.h>

#include "broker/request.h"
#include "util/error.h"

/* Of a copy, in one turn. */
#define STEP_BYTES (UINT32_C(1) << 20)

/* Begins it, or goes on with it. Return: 0, it is whole; REQUEST_E_SOON, REQUEST_E_LATER, negative errno. */
static int copy_some(Request *request) {
        StateCopy **copy = &request->peer->held.copy;
        int r;

        if (!*copy) {
                r = state_copy_new(copy, request->broker->state);
                if (r)
                        return r == STATE_E_BUSY ? REQUEST_E_LATER : error_fold(r);
        }
        r = state_copy_step(*copy, STEP_BYTES);
        return r == STATE_E_MORE ? REQUEST_E_SOON : error_fold(r);
}

int request_state(Request *request) {
        Shmd__StateReply reply = SHMD__STATE_REPLY__INIT;
        StateCopy **copy = &request->peer->held.copy;
        CLEANUP(close_fdp) int fd = -1;
        int r;

        r = request_reserve(request, 1);
        if (!r)
                r = copy_some(request);
        if (!r)
                r = error_fold(state_copy_finish(*copy, &fd, &reply.size));
        if (r == REQUEST_E_SOON || r == REQUEST_E_LATER)
                return r;
        *copy = state_copy_free(*copy);
        return r ? r : request_reply(request, &reply.base, &fd, 1);
}
