/* What a service manager wants and gives: readiness and sockets.
 *
 * Two small protocols of systemd (sd_notify(3), sd_listen_fds(3)), spoken directly: each is a few
 * lines, and a library would bring its own dependencies into the process everybody trusts.
 */
#ifndef SERVICE_H
#define SERVICE_H

/* Connects to $NOTIFY_SOCKET, before the sandbox; nothing is there: nothing is said.
 * Return: 0, negative errno. */
int service_connect(void);
/* Sends a state such as "READY=1". Never waits; failures are not fatal. */
void service_notify(const char *state);
void service_disconnect(void);

/* The listening socket that was passed in, close-on-exec, the caller's; -1: none was.
 * Return: 0, -EINVAL (more than one, or not a listening SOCK_SEQPACKET Unix socket). */
int service_take_socket(int *ret);

#endif
