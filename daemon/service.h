/* What a service manager wants and gives: readiness, signs of life, sockets, and a store of descriptors.
 *
 * Two small protocols of systemd (sd_notify(3), sd_listen_fds(3)), spoken directly: each is a few
 * lines, and a library would bring its own dependencies into the process everybody trusts.
 *
 * A keeper (keeper.h) is its broker's service manager in all of this, except that it says in one
 * variable of its own where the socket to it, the listening socket and the table of names are: names
 * of thousands of descriptors do not fit in the environment.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/deadline.h"
#include "util/fdstore.h"

/* The variable in which a keeper leaves what goes on: to a broker, or to the keeper after itself. */
#define SERVICE_KEEPER "SHMD_KEEPER"
/* And what it says of the brokers before: how many ended by themselves, and how the last one did. */
#define SERVICE_RESTARTS "SHMD_RESTARTS"
#define SERVICE_LAST_END "SHMD_LAST_END"

typedef struct ServiceKeeper {
        int link;               /* the socket to the keeper; -1: this is to be the keeper */
        int listen_fd;
        int names_fd;           /* util/names.h */
        size_t n;               /* how many of those numbers may have a name */
        int waker;              /* fdstore_set_waker(); -1: the keeper needs no waking */
        size_t most;            /* fdstore_set_most(): names that it takes in a packet */
} ServiceKeeper;

void service_leave(const ServiceKeeper *left);
/* Return: whether a keeper left something. One of an older version says less: it needs no waking, or takes one
 * name in a packet. */
bool service_find(ServiceKeeper *ret);

/* Connects to the keeper or to $NOTIFY_SOCKET, before the sandbox; nothing is there: nothing is said.
 * Return: 0, negative errno. */
int service_connect(void);
/* Whether it is the keeper that hears. */
bool service_has_keeper(void);
/* Sends a state such as "READY=1". Never waits; failures are not fatal. */
void service_notify(const char *state);
/* The same, but if there is no room for it at the moment it is tried again until it has left: the words before it may
 * be many, and a manager that never hears of "READY=1" takes the service for one that does not start. state: static. */
void service_notify_surely(Deadlines *deadlines, const char *state);
/* From now on says twice in each interval of the manager's watchdog that the loop still turns
 * (sd_watchdog_enabled(3)); without one there is nothing to say, and nothing wakes up for it. */
void service_keep_alive(Deadlines *deadlines);
void service_disconnect(void);

/* The interval of a watchdog that is meant for this process, in nanoseconds; 0: there is none. */
uint64_t service_watchdog(void);

/* Closes what was inherited and nobody said was passed in. To be called before anything is opened. */
void service_close_others(void);

/* What was passed in: the listening socket, close-on-exec, the caller's, -1 if none was; and what was in
 * the store when the process before this one ended, the descriptors the caller's, *ret to be freed.
 * Return: 0, -EINVAL (more than one socket, or not a listening SOCK_SEQPACKET Unix socket), or a
 * negative errno. */
int service_take(Kept **ret, size_t *ret_n, int *ret_listen_fd);

/* Who has the store: "keeper", "service-manager", "" (there is none). */
const char *service_store_owner(void);
/* What the keeper says of the brokers before; last_end is the environment's. */
uint64_t service_restarts(const char **ret_last_end);

/* The store of the keeper or, if $FDSTORE says how many descriptors it takes, of the service manager;
 * NULL if there is neither. To be freed before service_disconnect(). n_kept: what is in it. Return: 0,
 * -ENOMEM. */
int service_store(FdStore **ret, Deadlines *deadlines, size_t n_kept);
/* How many descriptors the store takes; SIZE_MAX if it takes all, or if there is none. */
size_t service_store_room(void);

#endif
