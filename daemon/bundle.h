/* The bundle: where the keeper's descriptors survive the keeper.
 *
 * A service manager that stores descriptors (sd_notify(3), FDSTORE=1) keeps them when the main process dies or
 * is started again. But what it does with each is work that grows with how many there are, and all of their names
 * have to fit into one string of the environment; so it cannot be given one for each region. It is given a few
 * socket pairs, both ends of each. In the queue between the ends are messages, each with up to 253 descriptors
 * and their names; the kernel holds what is in a queue for as long as somebody holds both ends.
 *
 * A queue can only be read from its head, so:
 * - What is added goes as a message of its own into the first pair, the young one. When that has a message's full
 *   of them, they are sent once more, as one message, into another pair, and the young one is emptied. So the
 *   costs of an addition do not grow with how many descriptors there are.
 * - What is removed stays in its queue, as litter. Every now and then all that is in the pairs is moved to new
 *   pairs, message by message, without the litter, and the pairs are given up.
 * Whatever is taken out of a queue is in another one by then: killed anywhere, this process leaves each
 * descriptor in the store, some of them twice, which the next one notices.
 *
 * The kernel lets one user have only so many descriptors in flight (RLIMIT_NOFILE of the sender), and these here
 * are. So there is a limit, which leaves the broker what it needs to answer its clients; what is beyond waits
 * here, in the order it came, and is not safe yet.
 *
 * All is done in pieces: bundle_add() costs a message, one in 253 of them a few hundred; bundle_tend() moves a
 * few messages a time.
 */
#ifndef BUNDLE_H
#define BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "util/fdstore.h"

/* What the pairs' ends are called in the service manager's store: "bundle-0-in", "bundle-0-out". */
#define BUNDLE_PREFIX "bundle-"

typedef struct Bundle Bundle;

typedef struct BundleOptions {
        size_t max;             /* how many descriptors may be in flight, litter included */
        /* The descriptor that has that name now; -1: none has. */
        int (*find)(void *userdata, const char *name);
        /* Gives the service manager a copy of fd to store (return: 0, or what keeps it from that, a negative errno);
         * tells it to let go of what has that name. */
        int (*store)(void *userdata, const char *name, int fd);
        void (*unstore)(void *userdata, const char *name);
        void *userdata;
} BundleOptions;

typedef struct BundleFigures {
        size_t pairs;           /* each is two descriptors in the service manager's store */
        size_t parked;          /* descriptors in flight */
        size_t litter;          /* those of them that nobody needs any more */
        size_t waiting;         /* not parked yet */
} BundleFigures;

/* Return: 0, -ENOMEM. */
int bundle_new(Bundle **ret, const BundleOptions *options);
/* Closes this process's ends: what is parked stays so while the service manager holds them. Return: NULL. */
Bundle *bundle_free(Bundle *bundle);

DEFINE_CLEANUP(Bundle, bundle_free);

/* Before anything is added: an end of a pair, as the service manager or the program before this one left it.
 * What does not fit is closed, and its name unstored. Return: 0, -ENOMEM. */
int bundle_adopt_consume_fd(Bundle *bundle, const char *name, int fd);
/* Of this process's ends the i-th, for the program that this one makes way for. Return: whether there is one. */
bool bundle_end(const Bundle *bundle, size_t i, char name[static FDSTORE_NAME_MAX], int *ret_fd);

/* In a new process: all that is parked, which stays parked. The array and the descriptors, which are not
 * close-on-exec, are the caller's; each name comes once, with what was added last under it.
 * Return: 0, -EMFILE (not all fit into the table; the rest is left where it is), or another negative errno. */
int bundle_take_all(Bundle *bundle, Kept **ret, size_t *ret_n);
/* After that, or in a new program of the same process: these, n of them, are what there is, with the numbers that
 * they will have. What of them is not parked yet is added. Return: 0, -ENOMEM. */
int bundle_settle(Bundle *bundle, const Kept *kept, size_t n);

/* Parks a copy of fd, now or soon. Until it is removed, fd is the caller's promise to find().
 * Return: 0, -ENOMEM. */
int bundle_add(Bundle *bundle, const char *name, int fd);
/* fd is about to be closed. */
void bundle_remove(Bundle *bundle, int fd);

/* Does a piece of what there is to do. Return: milliseconds after which it wants to be called again, -1: when
 * something has been added or removed. */
int bundle_tend(Bundle *bundle, uint64_t now);

/* Clears the litter away now, as far as there is room, so that the next process does not find it. */
void bundle_tidy(Bundle *bundle);

void bundle_figures(const Bundle *bundle, BundleFigures *ret);

#endif
