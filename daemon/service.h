/* What a service manager wants and gives: readiness, signs of life and sockets.
 *
 * Two small protocols of systemd (sd_notify(3), sd_listen_fds(3)), spoken directly: each is a few
 * lines, and a library would bring its own dependencies into the process everybody trusts.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include <stdint.h>

#include "util/deadline.h"

/* Connects to $NOTIFY_SOCKET, before the sandbox; nothing is there: nothing is said.
 * Return: 0, negative errno. */
int service_connect(void);
/* Sends a state such as "READY=1". Never waits; failures are not fatal. */
void service_notify(const char *state);
/* From now on says twice in each interval of the manager's watchdog that the loop still turns
 * (sd_watchdog_enabled(3)); without one there is nothing to say, and nothing wakes up for it. */
void service_keep_alive(Deadlines *deadlines);
void service_disconnect(void);

/* The interval of a watchdog that is meant for this process, in nanoseconds; 0: there is none. */
uint64_t service_watchdog(void);

/* The listening socket that was passed in, close-on-exec, the caller's; -1: none was.
 * Return: 0, -EINVAL (more than one, or not a listening SOCK_SEQPACKET Unix socket). */
int service_take_socket(int *ret);

#endif
