/* The feed: events on their way from the queues of watches to the sockets of their watchers.
 *
 * What happens in a turn of the loop is sent when the turn is over, several events of a watch in one
 * packet; earlier only if a queue would overflow. Each watch in turn sends a packet. An event is sent
 * when the connection has room for it and otherwise stays in its watch's queue, so that events never
 * stand between a request and its answer, and who does not read costs nobody anything but an ioctl
 * now and then. Nor is it closed for that: its queues overflow, and it is told when it reads again.
 */
#ifndef BROKER_FEED_H
#define BROKER_FEED_H

#include "base/list.h"
#include "core/event.h"
#include "proto/message.h"
#include "util/deadline.h"

/* Events and bytes of paths in one packet; a last event may have paths beyond that. */
#define FEED_EVENTS 64
#define FEED_BYTES 8192
/* Packets sent in one turn, and after how long no more are begun: looking through the history takes time. */
#define FEED_PACKETS 128
#define FEED_TURN_NS NSEC_PER_MSEC

typedef struct Broker Broker;
typedef struct Peer Peer;

typedef struct Feed {
        Broker *broker;
        List ready;             /* watches */
        Deadline work;
        /* The packet that is being put together. */
        Shmd__Event events[FEED_EVENTS];
        Shmd__Event *pointers[FEED_EVENTS];
        char paths[FEED_BYTES + 2 * PATH_BYTES_MAX];
} Feed;

/* A peer's part. */
typedef struct FeedPeer {
        List watches;
        List blocked;           /* watches that wait until it has read */
        Deadline unblock;
        uint64_t wait;          /* nanoseconds until it is looked at again */
} FeedPeer;

void feed_init(Feed *feed, Broker *broker);
void feed_deinit(Feed *feed);
/* Whether there is something to be told when this turn is over. */
static inline bool feed_is_due(const Feed *feed) {
        return deadline_is_armed(&feed->work);
}

/* For events_init(): userdata of a watch is its peer. */
void feed_ready(Watch *watch, bool pressed);

void feed_peer_init(FeedPeer *peer);
/* Ends all its watches. */
void feed_peer_deinit(FeedPeer *peer);

#endif
