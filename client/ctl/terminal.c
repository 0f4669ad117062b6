/* The terminal: see the header. */

#include "buildinfo.h"

#include "client/ctl/terminal.h"

#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_MAX 512
#define ROWS_MAX 256

TerminalSize terminal_size(int fd) {
        struct winsize size;

        if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
                return (TerminalSize){ .columns = 80, .rows = 24 };
        return (TerminalSize){
                .columns = size.ws_col < COLUMNS_MAX ? size.ws_col : COLUMNS_MAX,
                .rows = size.ws_row < ROWS_MAX ? size.ws_row : ROWS_MAX,
        };
}

bool terminal_speaks_utf8(void) {
        return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

bool terminal_has_colours(FILE *stream) {
        const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

        return isatty(fileno(stream)) == 1 && (!no || !*no) && term && *term && strcmp(term, "dumb") != 0;
}
