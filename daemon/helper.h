/* The helper: calls that another process can hold up, made where nobody waits for them.
 *
 * Some calls take a region's inode lock (adding seals, writing), and whoever has the region open
 * for writing can keep that lock for seconds; and to close a large region that is frozen takes as
 * long as to give all of its memory back (broker/burial.h). The broker makes none of these calls; it
 * lends the region's descriptor to a worker process, which makes the one call it was asked for and
 * answers. A worker that does not answer in time is killed and not waited for: it may be where even
 * SIGKILL has to wait, and another takes its place.
 *
 * The broker may not fork. So before its door is closed one process is forked that may: the
 * supervisor, which does nothing but fork workers and kill them when the broker says so. Neither
 * reads anything a client wrote. Both have the broker's uid without any capability, no file system,
 * an allow-list of system calls of their own (sandbox.h), no descriptor but their sockets and the
 * standard ones, and end with the broker. Waiting for work they sleep, however long.
 */
#ifndef HELPER_H
#define HELPER_H

/* Forks the supervisor, and waits until it has closed what it inherited and is confined. *ret is the
 * broker's end of its socket, the caller's; broker/helpers.h says what to do with it. To be called with
 * privileges dropped, from the one thread.
 * Return: 0, or a negative errno. */
int helper_start(int *ret);

#endif
