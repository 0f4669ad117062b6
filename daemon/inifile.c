/* INI files: see the header for the model. */

#include "inifile.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "util/error.h"

#define WHITE " \t\r\n\v\f"
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

int inifile_complain(IniFile *file, const char *format, ...) {
        va_list arguments;
        size_t n;

        if (file->error_line)
                return 0;
        file->error_line = file->line;
        n = (size_t)snprintf(file->message, INIFILE_MESSAGE_MAX, "%s:%d: ", file->path, file->line);
        if (n < INIFILE_MESSAGE_MAX) {
                va_start(arguments, format);
                (void)vsnprintf(file->message + n, INIFILE_MESSAGE_MAX - n, format, arguments);
                va_end(arguments);
        }
        return 0;
}

/* Keeps the whole name of a section: inih cuts it. One that does not end is left for inih to find. */
static void begin_section(IniFile *file, const char *start) {
        const char *end = strchr(start, ']');
        const char *rest = end ? end + 1 + strspn(end + 1, WHITE) : "";

        if (!end)
                return;
        if (*rest && *rest != ';' && *rest != '#') {
                (void)inifile_complain(file, "there is something behind the name of the section");
                return;
        }
        (void)snprintf(file->section, sizeof(file->section), "%.*s", (int)(end - start - 1), start + 1);
        if (!file->error_line && file->events->section)
                (void)file->events->section(file, file->section);
}

/* Looks at a line before inih does. */
static void look(IniFile *file, const char *line) {
        const char *start;

        if (file->line == 1 && !strncmp(line, BYTE_ORDER_MARK, 3))
                line += 3;
        start = line + strspn(line, WHITE);
        file->goes_on = start > line;
        if (*start != '[')
                return;
        if (file->goes_on)
                (void)inifile_complain(file, "a section begins at the start of a line");
        else
                begin_section(file, start);
}

/* inih's reader: one line a call, so that the handler knows which one it is given. */
static char *read_line(char *line, int n, void *userdata) {
        IniFile *file = userdata;
        size_t length;

        if (!fgets(line, n, file->stream))
                return NULL;
        ++file->line;
        length = strlen(line);
        if (length == (size_t)n - 1 && line[length - 1] != '\n')
                (void)inifile_complain(file, "the line is longer than %d bytes", n - 2);
        look(file, line);
        return line;
}

/* inih's handler: 1 to go on, 0 for an error in this line. */
static int handle(void *userdata, const char *section, const char *key, const char *value) {
        IniFile *file = userdata;

        (void)section;
        return file->error_line ? 0 : file->events->key(file, file->section, key, value);
}

static int read_stream(IniFile *file) {
        int r;

        r = ini_parse_stream(read_line, file, handle, file);
        if (r < 0)
                return error_origin(-ENOMEM);
        if (r > 0 && (!file->error_line || r < file->error_line)) {
                file->error_line = 0;
                file->line = r;
                (void)inifile_complain(file, "neither a section, nor a key=value, nor a comment");
        }
        if (!file->error_line && file->events->whole)
                (void)file->events->whole(file);
        return file->error_line ? INIFILE_E_INVALID : 0;
}

int inifile_read(const char *path, const IniEvents *events, char message[INIFILE_MESSAGE_MAX]) {
        IniFile file = { .path = path, .events = events, .message = message };
        CLEANUP(close_fdp) int fd = -1;
        struct stat st;
        int r;

        /* O_NONBLOCK: a FIFO must not keep the service from starting. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return errno == ENOENT ? INIFILE_E_MISSING : error_origin(-errno);
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > INIFILE_BYTES_MAX) {
                (void)snprintf(message, INIFILE_MESSAGE_MAX, "%s: not a regular file of at most %d bytes", path,
                               INIFILE_BYTES_MAX);
                return INIFILE_E_INVALID;
        }
        if (st.st_mode & S_IWOTH) {
                (void)snprintf(message, INIFILE_MESSAGE_MAX, "%s: everybody may write to it: chmod o-w it", path);
                return INIFILE_E_INVALID;
        }
        file.stream = fdopen(fd, "r");
        if (!file.stream)
                return error_origin(-ENOMEM);
        (void)steal_fd(&fd);
        r = read_stream(&file);
        (void)fclose(file.stream);
        return r;
}
