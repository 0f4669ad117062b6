/* The terminal that somebody looks at: its size, what it can show, and having all of it for a while.
 *
 * The *screen* is the whole terminal, taken over as top(1) takes it: another picture than the one the
 * shell wrote on, no echo, no waiting for a newline, no cursor. However the program ends, by itself or by
 * a signal that can be caught, the terminal is given back first; when it is stopped as well, and when it
 * goes on the screen is taken again.
 */
#ifndef CLIENT_CTL_TERMINAL_H
#define CLIENT_CTL_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct TerminalSize {
        size_t columns;
        size_t rows;
} TerminalSize;

/* 80 by 24 where nobody can say; never more than 512 by 256. */
TerminalSize terminal_size(int fd);

/* Whether the locale's characters are UTF-8. */
bool terminal_speaks_utf8(void);

/* Whether colours may go to stream: it is a terminal that is not dumb, and NO_COLOR is not set. */
bool terminal_has_colours(FILE *stream);

/* A byte that was typed, or one of these. */
typedef int ScreenKey;

enum {
        SCREEN_NONE = 256,      /* nothing in that time, or the screen must be drawn anew */
        SCREEN_LEFT,
        SCREEN_RIGHT,
        SCREEN_END,             /* nobody types any more */
};

/* Takes the screen. Return: false, and nothing has changed, if standard input and output are not a
 * terminal that can do that. */
bool screen_begin(void);
/* Gives it back; harmless without it. */
void screen_end(void);

/* Waits for a key, for so many nanoseconds. */
ScreenKey screen_wait(uint64_t ns);

#endif
