/* The log: see the header for the model. */

#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cleanup.h"

static struct {
        int fd;
        bool owned;
        bool socket;
        bool journal;           /* stderr is the journal: it reads priorities */
        uint64_t dropped;
        uint64_t unreported;
} sink = { .fd = STDERR_FILENO };

/* systemd names the stream it connected to stderr, so that a redirected stderr is not mistaken
 * for it (systemd.exec(5), $JOURNAL_STREAM). */
static bool is_journal(const struct stat *st) {
        const char *stream = getenv("JOURNAL_STREAM");
        uintmax_t device, inode;

        return stream && sscanf(stream, "%" SCNuMAX ":%" SCNuMAX, &device, &inode) == 2 &&
               device == (uintmax_t)st->st_dev && inode == (uintmax_t)st->st_ino;
}

int log_open(int fd) {
        char path[64];
        struct stat st;
        int own;

        log_close();
        if (fstat(fd, &st) < 0)
                return -errno;

        sink.fd = fd;
        sink.journal = is_journal(&st);
        sink.socket = S_ISSOCK(st.st_mode);
        if (sink.socket)
                return 0;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        own = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (own < 0)
                return 0;       /* not ours to open (another user's terminal): use it as it is */
        sink.fd = own;
        sink.owned = true;
        return 0;
}

void log_close(void) {
        if (sink.owned)
                (void)close_fd(sink.fd);
        sink.fd = STDERR_FILENO;
        sink.owned = sink.socket = sink.journal = false;
}

int log_descriptor(void) {
        return sink.fd;
}

uint64_t log_dropped(void) {
        return sink.dropped;
}

static void put(LogLine *line, char c) {
        if (line->n < sizeof(line->text) - 1)   /* the newline always fits */
                line->text[line->n++] = c;
}

static void put_text(LogLine *line, const char *text) {
        while (*text)
                put(line, *text++);
}

static bool is_plain(const unsigned char *p, size_t n) {
        for (size_t i = 0; i < n; ++i)
                if (p[i] <= ' ' || p[i] >= 0x7f || p[i] == '"' || p[i] == '\\' || p[i] == '=')
                        return false;
        return n > 0;
}

void log_bytes(LogLine *line, const char *key, const void *value, size_t n) {
        static const char digits[] = "0123456789abcdef";
        const unsigned char *p = value;
        bool plain = is_plain(p, n);

        put(line, ' ');
        put_text(line, key);
        put(line, '=');
        if (!plain)
                put(line, '"');
        for (size_t i = 0; i < n; ++i) {
                if (p[i] < ' ' || p[i] >= 0x7f) {
                        put_text(line, "\\x");
                        put(line, digits[p[i] >> 4]);
                        put(line, digits[p[i] & 15]);
                } else {
                        if (p[i] == '"' || p[i] == '\\')
                                put(line, '\\');
                        put(line, (char)p[i]);
                }
        }
        if (!plain)
                put(line, '"');
}

void log_begin(LogLine *line, int priority, const char *event) {
        line->n = 0;
        if (sink.journal) {
                put(line, '<');
                put(line, (char)('0' + priority));
                put(line, '>');
        }
        put_text(line, "event=");
        put_text(line, event);
}

void log_text(LogLine *line, const char *key, const char *value) {
        log_bytes(line, key, value, strlen(value));
}

void log_u64(LogLine *line, const char *key, uint64_t value) {
        char text[24];

        (void)snprintf(text, sizeof(text), "%" PRIu64, value);
        log_text(line, key, text);
}

void log_errno(LogLine *line, const char *key, int error) {
        const char *name = strerrorname_np(abs(error));

        log_text(line, key, name ? name : "unknown");
}

void log_end(LogLine *line) {
        ssize_t n;

        if (sink.unreported)
                log_u64(line, "dropped_before", sink.unreported);
        line->text[line->n++] = '\n';

        if (sink.socket)
                n = send(sink.fd, line->text, line->n, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
                n = write(sink.fd, line->text, line->n);
        if (n == (ssize_t)line->n) {
                sink.unreported = 0;
        } else {
                ++sink.dropped;
                ++sink.unreported;
        }
}
