/* A store of descriptors: somebody who keeps copies of them while this process is replaced.
 *
 * The somebody is the keeper (keeper.h) or the service manager, and both are told in the words of
 * sd_notify(3): FDSTORE=1 with FDNAME= and one descriptor, FDSTOREREMOVE=1 with FDNAME=, BARRIER=1 with
 * one descriptor that is closed once all before it has been done. A descriptor is kept as soon as it is
 * in the store's receive queue: the store need not have run, and this process may die. A keeper takes
 * several descriptors in one packet too, and lets go of several, each with a line FDNAME= of its own, in
 * their order; a service manager would give them all one name.
 *
 * Nothing here waits. What does not fit in the queue is a result when something is to be kept, because
 * nobody may be told of a region before it is; and is remembered when something is to be let go, as too
 * late does no harm. For what is remembered there is room since the descriptor was pushed, so letting
 * go cannot fail. Of a store that takes several, who lets go of one after the other asks for some at a
 * time: they wait for one another for 50 milliseconds, unless something is pushed meanwhile.
 *
 * Every function takes NULL for a store that there is not: everything is kept at once, then.
 */
#ifndef UTIL_FDSTORE_H
#define UTIL_FDSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "util/deadline.h"

/* Bytes of a name with its NUL. Names are of letters, digits, '-' and '.'; never ':', which the service
 * manager puts between them. */
#define FDSTORE_NAME_MAX 32
/* Descriptors of a packet, of any store. */
#define FDSTORE_SEVERAL_MAX 16

enum {
        _FDSTORE_E_SUCCESS,
        FDSTORE_E_BUSY,         /* there is no room in the store's queue now: try again later */
};

/* A descriptor that was kept, as the next process finds it. */
typedef struct Kept {
        char name[FDSTORE_NAME_MAX];
        int fd;
} Kept;

typedef struct FdStore FdStore;

/* socket is borrowed, connected to the store, and must outlive it; n_kept: how many descriptors are in
 * it already, from the process before. Return: 0, -ENOMEM. */
int fdstore_new(FdStore **ret, int socket, Deadlines *deadlines, size_t n_kept);
/* What was remembered and not flushed is not let go, nor what there is no room for. Return: NULL. */
FdStore *fdstore_free(FdStore *store);

DEFINE_CLEANUP(FdStore, fdstore_free);

/* The store rests, and does not look at its queue meanwhile: from now on it is woken, by an eventfd, which is borrowed,
 * when the queue is nearly full, or holds something that is waited for, or much that is to be let go of. */
void fdstore_set_waker(FdStore *store, int waker);

/* How many descriptors may be on their way to a store in packets of several, where a user has that limit of them: the
 * kernel counts all that a user has in flight. */
uint64_t fdstore_flying_max(uint64_t limit);

/* How many names a packet of this store may have: 1 unless the store has said more; 1 without a store. */
void fdstore_set_most(FdStore *store, size_t most);
size_t fdstore_most(const FdStore *store);

/* Keeps a copy of fd, which stays the caller's, under a name that nothing has in the store.
 * Return: 0, FDSTORE_E_BUSY, or a negative errno (-EPIPE: there is no store any more). */
int fdstore_push(FdStore *store, const char *name, int fd);
/* Keeps copies of n descriptors (1 <= n <= fdstore_most()), which stay the caller's, under names that nothing has in
 * the store, in one packet: all or none. Return: as fdstore_push(); FDSTORE_E_BUSY, too, while many that went like this
 * may still be in flight. */
int fdstore_push_several(FdStore *store, const char (*names)[FDSTORE_NAME_MAX], const int *fds, size_t n);
/* For who serves nobody yet, and so may wait for a store that has no room: sleeps for a millisecond. *tries begins as
 * 0. Return: false if it did so for five seconds. */
bool fdstore_wait(unsigned int *tries);
/* Remembers that what has that name, which was pushed or kept, is to be let go: with the next
 * fdstore_flush(). */
void fdstore_remove(FdStore *store, const char *name);
/* Lets go of what was remembered, now or by itself in 50 milliseconds; what does not fit, soon after it does. */
void fdstore_flush(FdStore *store);

/* Calls fn once the store has done all that it was sent before, and all that was flushed before. */
typedef struct FdBarrier FdBarrier;
typedef void (*FdBarrierFn)(FdBarrier *barrier, void *userdata);

struct FdBarrier {
        List link;
        int fd;                 /* reads as ended when it is over; -1: not sent yet */
        FdBarrierFn fn;
        void *userdata;
};

#define FDBARRIER_NULL(b) { .link = LIST_INIT((b).link), .fd = -1 }

/* barrier is the caller's, and must stay until fn was called or it is cancelled. Without a store fn is
 * called at once. */
void fdstore_barrier(FdStore *store, FdBarrier *barrier, FdBarrierFn fn, void *userdata);
/* Harmless when it is over or was never begun. */
void fdbarrier_cancel(FdBarrier *barrier);

#endif
