/* What a broker tells its keeper: see the header for the model. */

#include "util/notify.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* As many names as a packet may have fit, however long they are. */
_Static_assert(sizeof("FDSTORE=1\nFDPOLL=0\n") + NOTIFY_FDS_MAX * (sizeof("FDNAME=") + FDSTORE_NAME_MAX) <= NOTIFY_MAX,
               "a packet with as many names as it may have does not fit");
/* Where they are received there is no padding, which the kernel would take for room for one more. */
_Static_assert(CMSG_SPACE(NOTIFY_FDS_MAX * sizeof(int)) == CMSG_LEN(NOTIFY_FDS_MAX * sizeof(int)), "padding");

/* What asks for something to be done with descriptors: at most one of them in a packet. */
#define ABOUT_DESCRIPTORS (NOTIFY_STORE | NOTIFY_BARRIER | NOTIFY_REMOVE)

static const struct {
        const char *line;
        unsigned int word;
} lines[] = {
        { "READY=1",           NOTIFY_READY },
        { "WATCHDOG=1",        NOTIFY_WATCHDOG },
        { "X_SHMD_UPGRADE=1",  NOTIFY_UPGRADE },
        { "FDSTORE=1",         NOTIFY_STORE },
        { "BARRIER=1",         NOTIFY_BARRIER },
        { "FDSTOREREMOVE=1",   NOTIFY_REMOVE },
        { "FDPOLL=0",          0 },     /* nothing is polled here */
};

/* Whether a line is an assignment to that variable; *ret: where its value begins. */
static bool assigns(const char *line, size_t n, const char *variable, size_t *ret) {
        *ret = strlen(variable) + 1;
        return n >= *ret && !memcmp(line, variable, *ret - 1) && line[*ret - 1] == '=';
}

static bool is_name_character(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
}

static bool take_name(Notify *notify, const char *value, size_t n) {
        char *name;

        if (notify->n_names == NOTIFY_FDS_MAX || n == 0 || n >= FDSTORE_NAME_MAX)
                return false;
        for (size_t i = 0; i < n; ++i)
                if (!is_name_character(value[i]))
                        return false;
        name = notify->names[notify->n_names++];
        memcpy(name, value, n);
        name[n] = '\0';
        return true;
}

/* It goes on to the service manager, and to people's terminals. */
static void take_status(Notify *notify, const char *value, size_t n) {
        size_t kept = n < sizeof(notify->status) ? n : sizeof(notify->status) - 1;

        for (size_t i = 0; i < kept; ++i)
                notify->status[i] = value[i] >= ' ' && value[i] <= '~' ? value[i] : '?';
        notify->status[kept] = '\0';
}

/* Return: false if the line spoils the packet. */
static bool take_line(Notify *notify, const char *line, size_t n) {
        size_t value;

        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); ++i) {
                size_t n_variable = strcspn(lines[i].line, "=");

                if (n == strlen(lines[i].line) && !memcmp(line, lines[i].line, n)) {
                        notify->words |= lines[i].word;
                        return true;
                }
                /* A word that is known, with a value that is not. */
                if (n > n_variable && !memcmp(line, lines[i].line, n_variable + 1))
                        return false;
        }
        if (assigns(line, n, "FDNAME", &value))
                return take_name(notify, line + value, n - value);
        if (assigns(line, n, "STATUS", &value))
                take_status(notify, line + value, n - value);
        return true;
}

/* Whether what a packet asks for is one thing, and it has what that needs. */
static bool is_whole(const Notify *notify, size_t n_fds) {
        switch (notify->words & ABOUT_DESCRIPTORS) {
        case 0:
                return notify->n_names == 0 && n_fds == 0;
        case NOTIFY_STORE:
                return notify->n_names == n_fds && n_fds > 0;
        case NOTIFY_BARRIER:
                return notify->n_names == 0 && n_fds == 1;
        case NOTIFY_REMOVE:
                return notify->n_names > 0 && n_fds == 0;
        default:
                return false;
        }
}

int notify_parse(Notify *ret, const char *packet, size_t n, size_t n_fds) {
        ret->words = 0;
        ret->n_names = 0;
        ret->n_fds = 0;
        *ret->status = '\0';
        if (n == 0 || n > NOTIFY_MAX || memchr(packet, '\0', n))
                return NOTIFY_E_INVALID;
        for (size_t at = 0; at < n;) {
                const char *end = memchr(packet + at, '\n', n - at);
                size_t n_line = end ? (size_t)(end - packet) - at : n - at;

                if (!take_line(ret, packet + at, n_line))
                        return NOTIFY_E_INVALID;
                at += n_line + 1;
        }
        return is_whole(ret, n_fds) ? 0 : NOTIFY_E_INVALID;
}

/* -- receiving ---------------------------------------------------------------------------- */

/* Return: how many came. */
static size_t take_descriptors(struct msghdr *message, int fds[static NOTIFY_FDS_MAX]) {
        size_t n = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                size_t bytes = c->cmsg_len - CMSG_LEN(0);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                memcpy(fds + n, CMSG_DATA(c), bytes);
                n += bytes / sizeof(int);
        }
        return n;
}

/* The kernel closes what there was no room for, and says MSG_CTRUNC. */
static int receive(int socket, int how, Notify *ret) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(NOTIFY_FDS_MAX * sizeof(int))];
        } control;
        char text[NOTIFY_MAX + 1];
        struct iovec part = { .iov_base = text, .iov_len = sizeof(text) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        int r = NOTIFY_E_INVALID;
        size_t n_fds;
        ssize_t n;

        ret->n_fds = 0;
        ret->n_names = 0;
        n = recvmsg(socket, &message, how | MSG_DONTWAIT);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? NOTIFY_E_AGAIN : NOTIFY_E_GONE;
        n_fds = take_descriptors(&message, ret->fds);
        if (!(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
                r = notify_parse(ret, text, (size_t)n, n_fds);
        if (r == 0)
                ret->n_fds = n_fds;
        while (r && n_fds > 0)
                (void)close(ret->fds[--n_fds]);
        /* An empty packet reads like the end, and is none that a broker sends. */
        return n == 0 ? NOTIFY_E_GONE : r;
}

int notify_take(int socket, Notify *ret) {
        return receive(socket, 0, ret);
}

int notify_peek(int socket, Notify *ret) {
        return receive(socket, MSG_PEEK, ret);
}

/* Without a place to put them in, the kernel closes its descriptors. */
void notify_drop(int socket) {
        char byte;

        (void)recv(socket, &byte, sizeof(byte), MSG_DONTWAIT);
}
