/* The kinds of requests whose serving is interrupted: see killpoints.c for what is done with them.
 *
 * Each kind begins with the same things in the tree (scene_prepare() in killpoints.c makes them), adds
 * what it needs, and asks one thing. It has nothing to say about what is right: that is recorded when
 * the same is done once without a kill.
 */
#ifndef TESTS_INTEGRATION_KILLPOINTS_H
#define TESTS_INTEGRATION_KILLPOINTS_H

#include "lib/picture.h"

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob, *admin;
        Client *carol;                  /* only where somebody else is needed; does not come back */
        Client *asker;
        Album album;
        size_t n_known;                 /* regions in it before the request */
        size_t keeper_fds;              /* descriptors of the keeper that are no regions */

        Grant alices;                   /* of /k/r, to read and write */
        Grant bobs;                     /* of /k/s, read-only */
        Grant more;                     /* of what the kind made */
        char ticket[64];                /* for /k/r */
        uint64_t ticket_id;
        int held[16];                   /* descriptors that came with answers */
        size_t n_held;
        int ttl_ms;                     /* of a name that expires */
        int64_t expires_ms;             /* not sooner than then; 0: nothing does, or it may by now */

        unsigned int kind;              /* the request as it was sent, to be sent again */
        uint64_t serial;
        uint8_t packet[WIRE_REQUEST_MAX];
        size_t n_packet;
} Scene;

typedef struct Kind {
        const char *name;
        MessageKind request;            /* MESSAGE_NONE: something else makes the broker work */
        bool changes;                   /* a picture is another one afterwards */
        bool vague;                     /* its answer is another one each time */
        bool goes;                      /* what it makes goes when the answer is let go, and is made anew */
        bool by_itself;                 /* nobody waits for an answer: it is over when it has happened */
        bool expires;                   /* it is over when the scene's time is */
        bool replaces;                  /* it ends with another broker, perhaps with one more on the way */
        bool restart;                   /* it is the broker's successor that is killed, while it begins */
        unsigned int weight;            /* of its share of the points; 0: 1 */
        const char *grace;              /* how long the broker waits for clients; NULL: long, all come back */
        int linger_ms;                  /* what the broker does so long after its answer belongs to it */
        void (*prepare)(Scene *scene);  /* may be NULL */
        void (*ask)(Scene *scene);
        void (*undo)(Scene *scene);     /* what taking away all names does not undo; may be NULL */
} Kind;

extern const Kind kinds[];
extern const size_t n_kinds;

/* Sends a request and keeps it. */
void scene_ask(Scene *scene, Client *asker, MessageKind kind, const ProtobufCMessage *request);

#endif
