/* The terminal: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/terminal.h"

#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
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

/* -- the screen --------------------------------------------------------------------------------------- */

/* Signals come to handlers, which know nothing else. */
static struct {
        volatile sig_atomic_t taken;
        struct termios before;
} screen;

/* Async-signal-safe, as all that handlers do. */
static void put(const char *text) {
        size_t n = strlen(text);

        while (n > 0) {
                ssize_t k = write(STDOUT_FILENO, text, n);

                if (k <= 0)
                        return;
                text += k;
                n -= (size_t)k;
        }
}

static void take_screen(void) {
        struct termios raw = screen.before;

        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        put("\x1b[?1049h\x1b[?25l\x1b[H\x1b[J");
        screen.taken = true;
}

void screen_end(void) {
        if (!screen.taken)
                return;
        screen.taken = false;
        put("\x1b[0m\x1b[?25h\x1b[?1049l");
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &screen.before);
}

/* The signal does what it does by default, as soon as this has returned. */
static void give_back(int number) {
        screen_end();
        (void)signal(number, SIG_DFL);
        (void)raise(number);
}

/* It stops in here, unless nobody could let it go on (the kernel knows). */
static void stop(int number) {
        sigset_t set;

        give_back(number);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, number);
        (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
        (void)signal(number, stop);
        take_screen();
}

/* Somebody stopped it without asking: what is on the terminal now is not ours. */
static void go_on(int number) {
        (void)number;
        if (screen.taken)
                take_screen();
}

/* It is enough that a wait is interrupted. */
static void resized(int number) {
        (void)number;
}

static void catch_signals(void) {
        static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };

        for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); ++i)
                (void)signal(ends[i], give_back);
        (void)signal(SIGTSTP, stop);
        (void)signal(SIGCONT, go_on);
        (void)signal(SIGWINCH, resized);
}

bool screen_begin(void) {
        const char *term = getenv("TERM");

        if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || !term || !*term || strcmp(term, "dumb") == 0)
                return false;
        if (tcgetattr(STDIN_FILENO, &screen.before) < 0)
                return false;
        (void)atexit(screen_end);
        catch_signals();
        take_screen();
        return true;
}

/* Arrows are ESC [ or O, and a letter, in one piece. */
static ScreenKey decode(const char *bytes, size_t n) {
        if (n < 3 || bytes[0] != '\x1b' || (bytes[1] != '[' && bytes[1] != 'O'))
                return n == 1 && bytes[0] != '\x1b' ? (unsigned char)bytes[0] : SCREEN_NONE;
        return bytes[2] == 'C' ? SCREEN_RIGHT : bytes[2] == 'D' ? SCREEN_LEFT : SCREEN_NONE;
}

ScreenKey screen_wait(uint64_t ns) {
        struct timespec wait = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
        struct pollfd pollfd = { .fd = STDIN_FILENO, .events = POLLIN };
        char bytes[8];
        ssize_t n;

        if (ppoll(&pollfd, 1, &wait, NULL) <= 0)
                return SCREEN_NONE;
        n = read(STDIN_FILENO, bytes, 1);
        if (n <= 0)
                return SCREEN_END;
        /* What follows an ESC at once belongs to it. */
        if (bytes[0] == '\x1b' && poll(&pollfd, 1, 20) == 1)
                n += read(STDIN_FILENO, bytes + 1, 2);
        return decode(bytes, (size_t)n);
}
