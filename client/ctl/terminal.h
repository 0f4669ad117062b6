/* The terminal that somebody looks at: its size, and what it can show. */
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

#endif
