/* The refuge: what of the keeper's survives the keeper, in the store of its service manager.
 *
 * That is copies of the descriptors it keeps (bundle.h), and its end of the socket on which the broker gives it
 * more: what is in that queue, and has not been read when the keeper is killed, the next one reads. So nothing
 * is lost, whichever of them ends, or both at once.
 *
 * Without a service manager that stores descriptors there is no refuge: every function takes NULL for that.
 */
#ifndef REFUGE_H
#define REFUGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "bundle.h"
#include "util/deadline.h"
#include "util/fdstore.h"
#include "util/names.h"

/* What the brokers' sockets are called in the store: "inbox-1". */
#define INBOX_PREFIX "inbox-"

typedef struct Refuge Refuge;

/* names: what is kept, which must outlive the refuge; max: how many descriptors may be in flight for it;
 * n_stored: how many the service manager passed. *ret is NULL if it stores none. Return: 0, -ENOMEM. */
int refuge_new(Refuge **ret, Names *names, Deadlines *deadlines, uint64_t max, size_t n_stored);
/* What is in the store and still kept stays there. Return: NULL. */
Refuge *refuge_free(Refuge *refuge);

DEFINE_CLEANUP(Refuge, refuge_free);

/* Whether a name in the service manager's store is one that a refuge has given. */
static inline bool refuge_owns(const char *name) {
        return !strncmp(name, BUNDLE_PREFIX, strlen(BUNDLE_PREFIX)) ||
               !strncmp(name, INBOX_PREFIX, strlen(INBOX_PREFIX));
}

/* A new process: what its service manager passed, n descriptors, all consumed. Afterwards what was kept is, under
 * its names. fn is called with each queue of a broker that the keeper before did not read to its end; it borrows
 * the socket. Return: 0, or a negative errno: what could not be taken stays in the store. */
typedef void (*RefugeQueueFn)(void *userdata, int socket);
int refuge_take_consume_fds(Refuge *refuge, Kept *stored, size_t n, RefugeQueueFn fn, void *userdata);

/* Something is kept as of now; something is about to be closed. */
void refuge_add(Refuge *refuge, const char *name, int fd);
void refuge_remove(Refuge *refuge, int fd);

/* The socket of the broker that is to be started; of the one that has ended, with nothing left to be read. */
void refuge_link(Refuge *refuge, int socket);
void refuge_unlink(Refuge *refuge);

/* For the program that is executed in this process next, puts its own among what is kept; that one takes it out
 * again (return: 0, or a negative errno); so does this one if nothing came of it. */
void refuge_leave(Refuge *refuge);
int refuge_return(Refuge *refuge);
void refuge_stay(Refuge *refuge);

#endif
