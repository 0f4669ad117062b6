/* Busy-polling: see the header for the model. */

#include "broker/busypoll.h"

/* Whatever a pause is beyond so many whiles has nothing to do with it. */
#define PAUSE_WHILES 2U

_Static_assert(2 * BUSYPOLL_HOLD <= UINT16_MAX, "what is counted down, and what is doubled");

static bool is_with(const BusyPoll *poll) {
        return poll->phase == BUSYPOLL_TRY_WITH || poll->phase == BUSYPOLL_WITH;
}

static void begin(BusyPoll *poll, BusyPollPhase phase, unsigned int requests) {
        poll->phase = phase;
        poll->left = (uint16_t)requests;
        poll->vain = 0;
}

static void begin_with(BusyPoll *poll) {
        begin(poll, BUSYPOLL_WITH, BUSYPOLL_HOLD);
        poll->hold = BUSYPOLL_HOLD_FIRST;
}

static void begin_without(BusyPoll *poll) {
        begin(poll, BUSYPOLL_WITHOUT, poll->hold);
        poll->hold = (uint16_t)(2 * poll->hold);
        if (poll->hold > BUSYPOLL_HOLD)
                poll->hold = BUSYPOLL_HOLD;
}

void busypoll_grant(BusyPoll *poll) {
        *poll = (BusyPoll){ .hold = BUSYPOLL_HOLD_FIRST };
        begin(poll, BUSYPOLL_TRY_WITH, BUSYPOLL_TRY);
}

static bool has_paid(const BusyPoll *poll) {
        return poll->with < poll->without - poll->without / 8;
}

static void begin_next(BusyPoll *poll) {
        switch (poll->phase) {
        case BUSYPOLL_TRY_WITH:
                begin(poll, BUSYPOLL_TRY_WITHOUT, BUSYPOLL_TRY);
                break;
        case BUSYPOLL_TRY_WITHOUT:
                if (has_paid(poll))
                        begin_with(poll);
                else
                        begin_without(poll);
                break;
        case BUSYPOLL_NOT_GRANTED:
        case BUSYPOLL_WITH:
        case BUSYPOLL_WITHOUT:
        default:
                poll->with = poll->without = 0;
                begin(poll, BUSYPOLL_TRY_WITH, BUSYPOLL_TRY);
        }
}

static void note(BusyPoll *poll, uint64_t pause, uint64_t while_ns) {
        bool counts = poll->left <= BUSYPOLL_TRY / 2;

        if (is_with(poll))
                poll->vain = pause > while_ns ? (uint8_t)(poll->vain + 1) : 0;
        if (pause > PAUSE_WHILES * while_ns)
                pause = PAUSE_WHILES * while_ns;
        if (poll->phase == BUSYPOLL_TRY_WITH && counts)
                poll->with += (uint32_t)pause;
        else if (poll->phase == BUSYPOLL_TRY_WITHOUT && counts)
                poll->without += (uint32_t)pause;

        if (poll->vain == BUSYPOLL_VAIN)
                begin_without(poll);
        else if (--poll->left == 0)
                begin_next(poll);
}

uint64_t busypoll_next(BusyPoll *poll, uint64_t came, uint64_t answered, uint64_t while_ns) {
        if (poll->phase == BUSYPOLL_NOT_GRANTED)
                return 0;
        if (poll->answered)
                note(poll, came - poll->answered, while_ns);
        poll->answered = answered;
        return is_with(poll) ? answered + while_ns : 0;
}
