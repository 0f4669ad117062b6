/* The listening socket: it never dies and never spins.
 *
 * What cannot be accepted now for lack of descriptors or memory waits in the backlog: the
 * listener stops looking, and looks again when something was closed, or after a second in case
 * the shortage was somebody else's. A connection that dies before it is accepted costs nothing.
 */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "net/loop.h"

typedef struct Listener Listener;

/* Takes over an accepted, close-on-exec descriptor. */
typedef void (*ListenerFn)(void *userdata, int fd);
/* paused or resumed, with the errno that paused it. */
typedef void (*ListenerNote)(void *userdata, bool paused, int error);

typedef struct ListenerEvents {
        ListenerFn accepted;
        ListenerNote note;
        void *userdata;
} ListenerEvents;

/* Binds and listens on a path. A socket nobody answers on is replaced; one that is answered is
 * somebody else's. mode: of the socket. *ret is the caller's.
 * Return: 0, -EADDRINUSE (a broker is there), -ENAMETOOLONG, or a negative errno. */
int listener_bind(const char *path, unsigned int mode, int *ret);

/* fd is consumed, always. Return: 0, negative errno. */
int listener_new_consume_fd(Listener **ret, Loop *loop, Deadlines *deadlines, int fd, const ListenerEvents *events);
/* Return: NULL. */
Listener *listener_free(Listener *listener);

DEFINE_CLEANUP(Listener, listener_free);

/* Something was closed: looks again if it had stopped. */
void listener_resume(Listener *listener);

uint64_t listener_n_pauses(const Listener *listener);

#endif
