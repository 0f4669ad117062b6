/* Busy-polling: see the header for the model. */

#include "broker/busypoll.h"

static void was_in_vain(BusyPoll *poll) {
        poll->without = (uint8_t)(1U << poll->vain);
        if (poll->without < BUSYPOLL_WITHOUT_MAX)
                ++poll->vain;
}

uint64_t busypoll_next(BusyPoll *poll, uint64_t came, uint64_t answered, uint64_t while_ns) {
        if (!poll->granted)
                return 0;
        if (poll->until && came > poll->until)
                was_in_vain(poll);
        else if (poll->until)
                poll->vain = 0;

        poll->until = 0;
        if (poll->without > 0)
                --poll->without;
        else
                poll->until = answered + while_ns;
        return poll->until;
}
