/* The feed: see the header for the model. */

#include "broker/feed.h"

#include <string.h>

#include "broker/peer.h"
#include "broker/request.h"

/* How soon a connection without room is looked at again, at first and when nothing was read. */
#define UNBLOCK_MIN_NS NSEC_PER_MSEC
#define UNBLOCK_MAX_NS (256 * NSEC_PER_MSEC)

typedef enum Sent {
        SENT_NOTHING,           /* there is nothing */
        SENT_PACKET,
        SENT_LATER,             /* nothing yet */
        SENT_BLOCKED,
} Sent;

static void flush(Deadline *deadline, void *userdata);

static void flush_arm(Feed *feed) {
        if (!deadline_is_armed(&feed->work))
                deadline_arm(&feed->work, &feed->broker->deadlines, 0, flush, feed);
}

/* -- packets -------------------------------------------------------------------------- */

static void describe(const Watch *watch, const Record *record, char *paths, Shmd__Event *ret) {
        const RecordHeader *header = &record->header;

        shmd__event__init(ret);
        memcpy(paths, record->paths, (size_t)header->n_path + header->n_to);
        ret->watch = watch->id;
        ret->sequence = header->sequence;
        ret->event = header->what;
        ret->path = (ProtobufCBinaryData){ .data = (uint8_t *)paths, .len = header->n_path };
        ret->to = (ProtobufCBinaryData){ .data = (uint8_t *)paths + header->n_path, .len = header->n_to };
        ret->kind = header->thing.region ? SHMD__NODE_KIND__NODE_REGION : SHMD__NODE_KIND__NODE_DIRECTORY;
        ret->region = header->thing.region;
        ret->grants = header->grants;
        ret->held = header->held;
        ret->exchange = header->exchange;
        ret->seals = header->seals;
        ret->uid = header->uid;
        ret->account = header->account;
}

/* Sends what is queued of one watch, as much as one packet holds. */
static Sent send_packet(Feed *feed, Watch *watch) {
        Shmd__Events message = SHMD__EVENTS__INIT;
        Peer *peer = watch->userdata;
        WatchTake took = WATCH_NOTHING;
        size_t n_paths = 0;

        if (deadline_is_armed(&peer->end))
                return SENT_NOTHING;
        /* Once one watch of the peer had no room, the others need not ask the kernel. */
        if (!list_is_empty(&peer->feed.blocked) || !connection_has_room(peer->connection))
                return SENT_BLOCKED;

        message.events = feed->pointers;
        while (message.n_events < FEED_EVENTS && n_paths < FEED_BYTES) {
                Record record;

                took = watch_take(watch, &record);
                if (took != WATCH_EVENT)
                        break;
                feed->pointers[message.n_events] = &feed->events[message.n_events];
                describe(watch, &record, feed->paths + n_paths, &feed->events[message.n_events++]);
                n_paths += (size_t)record.header.n_path + record.header.n_to;
        }
        if (message.n_events == 0)
                return took == WATCH_LATER ? SENT_LATER : SENT_NOTHING;
        peer->feed.wait = UNBLOCK_MIN_NS;
        peer_tell(peer, watch->serial, &message.base);
        return SENT_PACKET;
}

/* -- connections without room --------------------------------------------------------- */

static void unblock(Deadline *deadline, void *userdata) {
        Peer *peer = userdata;
        FeedPeer *of = &peer->feed;

        if (deadline_is_armed(&peer->end))
                return;
        if (!connection_has_room(peer->connection)) {
                of->wait = of->wait < UNBLOCK_MAX_NS / 2 ? of->wait * 2 : UNBLOCK_MAX_NS;
                deadline_arm(deadline, &peer->broker->deadlines, time_now() + of->wait, unblock, peer);
                return;
        }
        list_splice(&peer->broker->feed.ready, &of->blocked);
        flush_arm(&peer->broker->feed);
}

static void block(Watch *watch) {
        Peer *peer = watch->userdata;

        list_move(&peer->feed.blocked, &watch->ready);
        if (!deadline_is_armed(&peer->feed.unblock))
                deadline_arm(&peer->feed.unblock, &peer->broker->deadlines, time_now() + peer->feed.wait,
                             unblock, peer);
}

/* -- turns ---------------------------------------------------------------------------- */

static void flush_one(Feed *feed, Watch *watch) {
        switch (send_packet(feed, watch)) {
        case SENT_PACKET:
        case SENT_LATER:
                list_move(&feed->ready, &watch->ready);
                return;
        case SENT_BLOCKED:
                block(watch);
                return;
        case SENT_NOTHING:
        default:
                list_unlink(&watch->ready);
                if (watch_is_over(watch))
                        (void)watch_free(watch);
        }
}

static void flush(Deadline *deadline, void *userdata) {
        uint64_t until = time_now() + FEED_TURN_NS;
        Feed *feed = userdata;
        unsigned int n = 0;
        Watch *watch;

        (void)deadline;
        do {
                watch = list_first(&feed->ready, Watch, ready);
                if (!watch)
                        return;
                flush_one(feed, watch);
        } while (++n < FEED_PACKETS && time_now() < until);
        if (!list_is_empty(&feed->ready))
                flush_arm(feed);
}

void feed_ready(Watch *watch, bool pressed) {
        Peer *peer = watch->userdata;
        Feed *feed = &peer->broker->feed;

        if (pressed) {
                /* What is kept back must not have to queue afterwards: then it would be a debt. */
                if (!peer->n_kept_back || (request_may_keep_back(feed->broker) &&
                                           connection_has_room_beside(peer->connection, peer->n_kept_back)))
                        (void)send_packet(feed, watch);
        } else if (list_is_empty(&watch->ready)) {
                list_append(&feed->ready, &watch->ready);
                flush_arm(feed);
        }
}

/* -- life ----------------------------------------------------------------------------- */

void feed_init(Feed *feed, Broker *broker) {
        feed->broker = broker;
        list_init(&feed->ready);
}

void feed_deinit(Feed *feed) {
        deadline_disarm(&feed->work);
}

void feed_peer_init(FeedPeer *peer) {
        *peer = (FeedPeer){ .wait = UNBLOCK_MIN_NS };
        list_init(&peer->watches);
        list_init(&peer->blocked);
}

void feed_peer_deinit(FeedPeer *peer) {
        Watch *watch;

        deadline_disarm(&peer->unblock);
        while ((watch = list_first(&peer->watches, Watch, link)))
                (void)watch_free(watch);
}
