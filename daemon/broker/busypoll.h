/* Busy-polling: whether the broker goes on looking for the next request of a peer, after it has answered one,
 * instead of going to sleep.
 *
 * Who asks one thing after the other waits, each time, until the broker has woken up on its processor. A peer can
 * ask in its hello that this be saved. While it looks, the broker serves everybody as ever, and nobody waits longer;
 * what it costs is a processor's time, in vain if the peer does not ask again so soon. That is bounded twice:
 *
 *   - A request has one such while at most, and it is short. Nothing is saved up, nothing goes on without requests.
 *   - A while in vain is made up for: after the first the next request has none, after two in a row the next two,
 *     then four, and so on to 64. So a peer that is never so quick costs a 65th of a while a request, and one
 *     that falls silent a single one.
 *
 * Time is all that is looked at: also where the peer is quick enough, but cannot be as it has no processor, the
 * while is in vain, and there are fewer.
 */
#ifndef BROKER_BUSYPOLL_H
#define BROKER_BUSYPOLL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct BusyPoll {
        bool granted;           /* from hello on */
        uint8_t vain;           /* how many in a row were */
        uint8_t without;        /* so many requests have none */
        uint64_t until;         /* the end of the latest; 0: the latest request had none */
} BusyPoll;

/* The most that the next so many requests can have none. */
#define BUSYPOLL_WITHOUT_MAX 64U

/* A request of the peer came, and was answered, at these times. Return: until when to look for the next one; 0: not
 * at all. */
uint64_t busypoll_next(BusyPoll *poll, uint64_t came, uint64_t answered, uint64_t while_ns);

#endif
