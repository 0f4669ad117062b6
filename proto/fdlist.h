/* A bounded list of descriptors that it owns.
 *
 * It exists so that "on any error no descriptor survives" is one call: fdlist_deinit() closes
 * what is left. What goes in with fdlist_consume() is owned by the list, also when it fails;
 * what comes out with fdlist_take() is the taker's.
 */
#ifndef PROTO_FDLIST_H
#define PROTO_FDLIST_H

#include <stddef.h>

#include "base/cleanup.h"

/* SCM_MAX_FD, unix(7): what one message can carry. */
#define FDLIST_MAX 253

enum {
        _FDLIST_E_SUCCESS,
        FDLIST_E_FULL,
};

typedef struct FdList {
        size_t n;
        size_t next;            /* the first not taken yet */
        int fds[FDLIST_MAX];
} FdList;

#define FDLIST_NULL { .n = 0, .next = 0 }

/* Closes every descriptor not taken and empties the list. */
void fdlist_deinit(FdList *list);

/* Appends fd, which the list owns from now on; when it is full, fd is closed.
 * Return: 0, FDLIST_E_FULL. */
int fdlist_consume(FdList *list, int fd);

/* Takes the next descriptor, in order of arrival. Return: a descriptor the caller owns, or -1
 * when none is left. */
int fdlist_take(FdList *list);

#endif
