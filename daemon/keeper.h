/* The keeper: the small process above the broker, for which a broker's end is no end.
 *
 * It has the listening socket and a copy of every descriptor that must not be lost: the regions', the
 * state's, the policy's. It starts the broker, and when that ends, however that was, it starts the next
 * one on the same descriptors: connections wait in the socket's backlog meanwhile, and the broker reads
 * from the state what there was.
 *
 * It reads nothing that a client wrote. All that comes in is the broker's packets (util/notify.h), over
 * a socket of its own for each broker, and they are taken for hostile: a broker that is broken can lose
 * regions, and gets nothing from its keeper that it has not got. The keeper never waits for the broker, and
 * does not listen all the time: what is in the socket's queue is kept already, and the broker wakes its keeper
 * before the queue is full.
 *
 * Kept descriptors are inherited: a broker is executed with all of them in place, at the numbers they
 * have here, and with a table of their names in a file (util/names.h). So a restart takes no system
 * call for each, however many there are. What is the keeper's own is close-on-exec.
 *
 * One broker at a time: the next is started when the kernel says that the last one is gone, and all it
 * had sent has been read. A broker ends with its keeper. What the keeper keeps ends with the keeper,
 * unless there is a refuge for it (refuge.h), or it is replaced by itself: an upgrade stops the broker
 * and executes the program that is now where this one was, in the same process, with the same
 * descriptors.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdint.h>

#include "config.h"
#include "service.h"

/* A broker's exit status: there is no use in starting it again as it is. */
#define KEEPER_STATUS_HOPELESS 3

typedef struct KeeperOptions {
        const Config *config;
        const char *program;    /* its path: what is there when a broker is started is executed */
        char **argv;            /* as this process was started */
        uint64_t descriptors;   /* how many it may have open */
        uint64_t room;          /* how many of those may be what is kept */
        int listen_fd;          /* the keeper's from here on */
        const ServiceKeeper *left;      /* by the keeper that executed this one; NULL: this is the first */
        Kept *stored;           /* by the service manager, for a keeper that was killed; the descriptors are the keeper's */
        size_t n_stored;
        uint64_t parked;        /* how many descriptors it may park there: refuge.h */
} KeeperOptions;

/* Keeps, until it is told to stop. To be called with privileges dropped, from the one thread.
 * Return: an exit status. */
int keeper_run(const KeeperOptions *options);

#endif
