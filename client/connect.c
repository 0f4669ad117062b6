/* Connecting: which socket, and whether its owner may be a broker.
 *
 * Anybody may bind a socket where the real one is missing. What comes from a false broker would
 * be mapped as shared memory, so the other end is believed to be one only if it runs as root, as
 * the caller, or as the owner of the socket file: who can replace the file can also read every
 * answer.
 */

#include "buildinfo.h"

#include "client/client.h"
#include "client/options.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#define SYSTEM_SOCKET "/run/shmd/socket"
#define USER_SOCKET "shmd/socket"

#define FLAGS_KNOWN SHMD_CONNECT_BUSY_POLL

/* -- which socket -------------------------------------------------------------------- */

static int user_socket(char **ret) {
        const char *directory = secure_getenv("XDG_RUNTIME_DIR");
        struct stat st;
        char *path;

        *ret = NULL;
        if (!directory || directory[0] != '/')
                return 0;
        if (asprintf(&path, "%s/%s", directory, USER_SOCKET) < 0)
                return -ENOMEM;
        if (stat(path, &st) < 0) {
                free(path);
                return 0;
        }
        *ret = path;
        return 0;
}

static int find_socket(const char *given, char **ret) {
        int r;

        if (!given) {
                given = secure_getenv("SHMD_SOCKET");
                if (given && !given[0])
                        given = NULL;
        }
        if (!given) {
                r = user_socket(ret);
                if (r || *ret)
                        return r;
                given = SYSTEM_SOCKET;
        }
        *ret = strdup(given);
        return *ret ? 0 : -ENOMEM;
}

/* -- the socket ---------------------------------------------------------------------- */

static int set_send_timeout(int fd, uint64_t until_ns) {
        struct timeval tv = { 0 };
        uint64_t now_ns = client_now();

        if (until_ns == UINT64_MAX)
                return 0;
        if (until_ns <= now_ns)
                return -ETIMEDOUT;
        tv.tv_sec = (time_t)((until_ns - now_ns) / CLIENT_NS_PER_S);
        tv.tv_usec = (suseconds_t)((until_ns - now_ns) % CLIENT_NS_PER_S / 1000);
        if (tv.tv_sec == 0 && tv.tv_usec == 0)
                tv.tv_usec = 1;         /* 0 would be for ever */
        return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ? -errno : 0;
}

/* A full backlog cannot be polled for: the connect itself waits, for as long as SO_SNDTIMEO lets
 * it (unix(7) does not say so; sock_sndtimeo() in unix_stream_connect() does). */
static int connect_until(int fd, const struct sockaddr_un *address, socklen_t n_address, uint64_t until_ns) {
        int r;

        do {
                r = until_ns ? set_send_timeout(fd, until_ns) : 0;
                if (r)
                        return r;
                r = connect(fd, (const struct sockaddr *)address, n_address) < 0 ? -errno : 0;
        } while (r == -EINTR);
        return r == -EAGAIN && until_ns ? -ETIMEDOUT : r;
}

static int open_socket(const char *path, uint64_t until_ns, int *ret) {
        CLEANUP(close_fdp) int fd = -1;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        size_t n = strlen(path);
        int flags = SOCK_SEQPACKET | SOCK_CLOEXEC | (until_ns ? 0 : SOCK_NONBLOCK);
        int r;

        /* An empty path, or one with a NUL in front, would not be in the file system. */
        if (n == 0)
                return -ENOENT;
        if (n >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, n + 1);

        fd = socket(AF_UNIX, flags, 0);
        if (fd < 0)
                return -errno;
        r = connect_until(fd, &address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1), until_ns);
        if (r)
                return r;
        /* From here on whoever does not want to wait says so each time. */
        if (!until_ns && fcntl(fd, F_SETFL, 0) < 0)
                return -errno;

        *ret = steal_fd(&fd);
        return 0;
}

static int check_trust(int fd, const char *path, pid_t *ret_pid) {
        struct ucred credentials;
        socklen_t n = sizeof(credentials);
        struct stat st;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &n) < 0)
                return -errno;
        *ret_pid = credentials.pid;
        if (credentials.uid == 0 || credentials.uid == geteuid())
                return 0;
        if (stat(path, &st) == 0 && st.st_uid == credentials.uid)
                return 0;
        return -EPERM;
}

int connect_socket(shmd *client, uint64_t until_ns) {
        CLEANUP(close_fdp) int fd = -1;
        int r;

        r = open_socket(client->socket, until_ns, &fd);
        if (r)
                return r;
        r = check_trust(fd, client->socket, &client->broker_pid);
        if (r)
                return r;
        client->fd = steal_fd(&fd);
        client->wait_s = 0;
        return 0;
}

/* -- together ------------------------------------------------------------------------ */

/* A socket that is not there, or that nobody listens at, is the end of it; but who was let in once waits
 * for the next broker. */
static int connect_until_welcome(shmd *client, uint64_t until_ns) {
        int r;

        r = connect_socket(client, until_ns);
        if (r)
                return r;
        r = link_hello(client);
        if (r == -ECONNRESET)
                link_lose(client, r);
        else if (r)
                return r;
        while (client->link != LINK_UP && !client->lost) {
                if (client_now() >= until_ns)
                        return -ETIMEDOUT;
                r = io_poll(client, until_ns);
                if (r)
                        return r;
                (void)io_dispatch(client, NULL);
        }
        return client->lost ? client->hello_error : 0;
}

int shmd_connect_with(shmd **ret, const char *socket, const struct shmd_connect_options *options,
                      uint64_t timeout_ns) {
        KEEP_ERRNO;
        CLEANUP(shmd_closep) shmd *client = NULL;
        struct shmd_connect_options o = SHMD_CONNECT_OPTIONS_INIT;
        uint64_t until_ns;
        int r;

        *ret = NULL;
        if (options && (!options_read(&o, sizeof(o), sizeof(o), options) || o.flags & ~(uint32_t)FLAGS_KNOWN))
                return -EINVAL;
        r = client_new(&client);
        if (r)
                return r;
        client->flags = o.flags;
        if (timeout_ns == SHMD_TIMEOUT_NONE ||
            __builtin_add_overflow(client_now(), client_timeout(client, timeout_ns), &until_ns))
                until_ns = UINT64_MAX;

        r = find_socket(socket, &client->socket);
        if (r)
                return r;
        r = connect_until_welcome(client, until_ns);
        if (r && !client->refusal.code)
                return r;

        *ret = client;
        client = NULL;
        return r;
}

int shmd_connect(shmd **ret, const char *socket, uint64_t timeout_ns) {
        return shmd_connect_with(ret, socket, NULL, timeout_ns);
}
