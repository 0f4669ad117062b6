/* The log: one line of key=value per event, to stderr, never blocking.
 *
 * A line that does not fit in now is dropped and counted, and the next line that gets through
 * says how many were lost: a stopped reader of the log must not stop the broker. Values are
 * quoted when they hold anything but plain characters, and what is not printable ASCII is
 * escaped as \xNN, so that nothing a client sends can forge a line or drive a terminal.
 */
#ifndef UTIL_LOG_H
#define UTIL_LOG_H

#include <stddef.h>
#include <stdint.h>

/* syslog(3) priorities, as systemd reads them from "<N>" in front of a line. */
enum {
        LOG_ERROR = 3,
        LOG_WARN = 4,
        LOG_NOTE = 5,
        LOG_INFORM = 6,
};

typedef struct LogLine {
        size_t n;
        char text[2048];
} LogLine;

/* Prepares descriptor fd (kept, not owned) for lines without waiting: sockets are sent to with
 * MSG_DONTWAIT, everything else is re-opened non-blocking, because the flag of a shared
 * description is not ours to change. Return: 0, negative errno. */
int log_open(int fd);
void log_close(void);

/* What lines go to, which stays the log's: whoever may not open it anew inherits it. */
int log_descriptor(void);

/* How many lines were dropped since the start. */
uint64_t log_dropped(void);

/* A line is begun with its event, gets its pairs, and is ended; what does not fit in a line is
 * cut. log_bytes() takes any bytes. */
void log_begin(LogLine *line, int priority, const char *event);
void log_text(LogLine *line, const char *key, const char *value);
void log_bytes(LogLine *line, const char *key, const void *value, size_t n);
void log_u64(LogLine *line, const char *key, uint64_t value);
void log_errno(LogLine *line, const char *key, int error);
void log_end(LogLine *line);

#endif
