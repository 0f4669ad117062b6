/* Busy-polling: whether the broker goes on looking for the next request of a peer, after it has answered one,
 * instead of going to sleep.
 *
 * Who asks one thing after the other waits, each time, until the broker has woken up on its processor. A peer can
 * ask in its hello that this be saved. While it looks, the broker serves everybody as ever, and nobody waits longer.
 * What it costs is a processor's time: one while, which is short, for a request, as nothing is saved up and nothing
 * goes on without requests.
 *
 * It does not always pay. Requests may come later than that; or the peer needs the processor that the broker looks
 * from, and without that both would take turns on it, which is faster than to wake up another one. So it is tried:
 * with it for a spell of requests, then without it. If the peer's pauses, from an answer to the next request, were
 * shorter with it by more than an eighth, it is done for a long time, and if they were not, it is not; then it is tried
 * again. Several whiles in vain in a row end it at once.
 *
 * A machine that had something else to do for a moment looks like a peer to which it does not pay. So whoever it has
 * paid for is tried again soon, and each time that it does not, later. A peer that is never so quick has, in
 * the long run, one while for one request in two thousand.
 */
#ifndef BROKER_BUSYPOLL_H
#define BROKER_BUSYPOLL_H

#include <stdbool.h>
#include <stdint.h>

/* Requests: what is tried, of which the second half counts, and how long it holds that it pays. That it does not
 * holds so long at first, twice as long each time, and not longer than that it does. */
#define BUSYPOLL_TRY 128U
#define BUSYPOLL_HOLD 16384U
#define BUSYPOLL_HOLD_FIRST 1024U
/* So many in vain in a row end it. */
#define BUSYPOLL_VAIN 8U

typedef enum BusyPollPhase {
        BUSYPOLL_NOT_GRANTED,
        BUSYPOLL_TRY_WITH,
        BUSYPOLL_TRY_WITHOUT,
        BUSYPOLL_WITH,
        BUSYPOLL_WITHOUT,
} BusyPollPhase;

typedef struct BusyPoll {
        BusyPollPhase phase;
        uint16_t left;          /* requests of the phase */
        uint16_t hold;          /* those that the next phase without it will have */
        uint8_t vain;           /* whiles in a row that were */
        uint32_t with, without; /* nanoseconds: pauses, together */
        uint64_t answered;      /* the latest request; 0: none yet */
} BusyPoll;

/* From now on the peer may have it. */
void busypoll_grant(BusyPoll *poll);

/* A request of the peer came, and was answered, at these times. Return: until when to look for the next one; 0: not
 * at all. while_ns: a millisecond at most. */
uint64_t busypoll_next(BusyPoll *poll, uint64_t came, uint64_t answered, uint64_t while_ns);

#endif
