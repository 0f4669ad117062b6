/* Printing: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/output.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio_ext.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

#include "base/path.h"
#include "client/ctl/fail.h"
#include "client/ctl/terminal.h"

void output_close(void) {
        bool pending = __fpending(stdout) != 0;
        bool failed = ferror(stdout) != 0;
        int error = EIO;

        if (fclose(stdout) != 0) {
                error = errno;
                /* A standard output that was closed from the start, and not used, is no failure. */
                if (pending || error != EBADF)
                        failed = true;
        }
        if (!failed)
                return;
        if (error != EPIPE)
                fprintf(stderr, "shmdctl: standard output: cannot be written: %s\n", strerrordesc_np(error));
        _exit(CTL_FAILED);
}

void output_oom(void) {
        fputs("shmdctl: out of memory\n", stderr);
        exit(CTL_FAILED);
}

/* -- for people -- */

const char *output_human(char buffer[static OUTPUT_NUMBER_MAX], uint64_t bytes) {
        static const char units[] = " KMGTPE";
        double value = (double)bytes;
        size_t unit = 0;

        /* 1023.5 would be rounded to "1024". */
        for (; value >= 1023.5 && units[unit + 1]; ++unit)
                value /= 1024;

        if (unit == 0)
                (void)snprintf(buffer, OUTPUT_NUMBER_MAX, "%" PRIu64, bytes);
        else
                (void)snprintf(buffer, OUTPUT_NUMBER_MAX, "%.*f%c", value < 9.95 ? 1 : 0, value, units[unit]);
        return buffer;
}

const char *output_size(const Ctl *ctl, char buffer[static OUTPUT_NUMBER_MAX], uint64_t bytes) {
        if (!ctl->bytes)
                return output_human(buffer, bytes);
        (void)snprintf(buffer, OUTPUT_NUMBER_MAX, "%" PRIu64, bytes);
        return buffer;
}

const char *output_duration(char buffer[static OUTPUT_NUMBER_MAX], uint64_t ns) {
        static const struct {
                uint64_t ns;
                const char *name;
        } units[] = {
                { UINT64_C(86400000000000), "d" }, { UINT64_C(3600000000000), "h" },
                { UINT64_C(60000000000), "min" }, { UINT64_C(1000000000), "s" },
                { UINT64_C(1000000), "ms" }, { UINT64_C(1000), "us" },
        };

        for (size_t i = 0; i < sizeof(units) / sizeof(*units); ++i)
                if (ns >= units[i].ns) {
                        double value = (double)ns / (double)units[i].ns;

                        (void)snprintf(buffer, OUTPUT_NUMBER_MAX, "%.*f%s", value < 9.95 ? 1 : 0,
                                       value, units[i].name);
                        return buffer;
                }
        (void)snprintf(buffer, OUTPUT_NUMBER_MAX, "%" PRIu64 "ns", ns);
        return buffer;
}

/* Lists name the same few users again and again, and asking NSS may mean asking the network. */
const char *output_user(char buffer[static OUTPUT_USER_MAX], uid_t uid) {
        static char known[OUTPUT_USER_MAX];
        static uid_t known_uid = (uid_t)-1;

        if (uid != known_uid || !*known) {
                const struct passwd *user = getpwuid(uid);

                if (user && strlen(user->pw_name) < sizeof(known))
                        strcpy(known, user->pw_name);
                else
                        (void)snprintf(known, sizeof(known), "%u", (unsigned int)uid);
                known_uid = uid;
        }
        return strcpy(buffer, known);
}

const char *output_group(char buffer[static OUTPUT_USER_MAX], gid_t gid) {
        static char known[OUTPUT_USER_MAX];
        static gid_t known_gid = (gid_t)-1;

        if (gid != known_gid || !*known) {
                const struct group *group = getgrgid(gid);

                if (group && strlen(group->gr_name) < sizeof(known))
                        strcpy(known, group->gr_name);
                else
                        (void)snprintf(known, sizeof(known), "%u", (unsigned int)gid);
                known_gid = gid;
        }
        return strcpy(buffer, known);
}

/* -- escaping -- */

/* May the character c go to a stream as it is? A terminal that does not speak UTF-8 may take
 * single bytes of it for controls: ESC [ has an eight-bit form. */
static bool is_printable(uint32_t c, bool terminal, bool utf8) {
        if (path_check_character(c) != PATH_OK)
                return false;
        if (c < 0x80 || !terminal)
                return true;
        return utf8 && iswprint((wint_t)c);
}

char *output_escape(const char *text, FILE *stream) {
        bool terminal = isatty(fileno(stream)) == 1;
        bool utf8 = terminal_speaks_utf8();
        size_t n = strlen(text);
        char *escaped, *to;

        escaped = to = malloc(4 * n + 1);
        if (!escaped)
                output_oom();

        for (size_t at = 0; at < n;) {
                uint32_t c;
                size_t length = path_decode_utf8((const unsigned char *)text + at, n - at, &c);
                bool printable = length && is_printable(c, terminal, utf8);

                for (size_t end = at + (length ? length : 1); at < end; ++at)
                        if (printable)
                                *to++ = text[at];
                        else
                                to += sprintf(to, "\\x%02x", (unsigned char)text[at]);
        }
        *to = 0;
        return escaped;
}

void output_text(const char *text, FILE *stream) {
        CLEANUP(freep) char *escaped = output_escape(text, stream);

        fputs(escaped, stream);
}

/* -- tables -- */

void table_deinit(Table *table) {
        for (size_t i = 0; i < table->n; ++i)
                free(table->cells[i]);
        free(table->cells);
        *table = (Table){ .align = table->align };
}

void table_add(Table *table, const char *text) {
        if (table->n == table->n_allocated) {
                size_t n = table->n_allocated ? 2 * table->n_allocated : 64;
                char **cells = reallocarray(table->cells, n, sizeof(*cells));

                if (!cells)
                        output_oom();
                table->cells = cells;
                table->n_allocated = n;
        }
        table->cells[table->n++] = output_escape(text, stdout);
}

void table_add_number(Table *table, uint64_t number) {
        char text[OUTPUT_NUMBER_MAX];

        (void)snprintf(text, sizeof(text), "%" PRIu64, number);
        table_add(table, text);
}

/* How many columns of a terminal a text takes; its bytes, if the locale cannot say. */
static size_t text_width(const char *text) {
        size_t width = 0;
        mbstate_t state = { 0 };

        for (const char *at = text; *at;) {
                wchar_t c;
                size_t n = mbrtowc(&c, at, MB_CUR_MAX, &state);
                int w;

                if (n == (size_t)-1 || n == (size_t)-2)
                        return strlen(text);
                w = wcwidth(c);
                width += w > 0 ? (size_t)w : 0;
                at += n;
        }
        return width;
}

static void print_cell(const char *text, char align, size_t width, bool last) {
        size_t own = text_width(text);
        int padding = own < width ? (int)(width - own) : 0;

        if (align == 'r')
                printf("%*s%s", padding, "", text);
        else
                printf("%s%*s", text, last ? 0 : padding, "");
        putchar(last ? '\n' : ' ');
}

void table_print(Table *table) {
        size_t n_columns = strlen(table->align);
        size_t widths[16] = { 0 };

        for (size_t i = 0; i < table->n; ++i) {
                size_t width = text_width(table->cells[i]);

                if (width > widths[i % n_columns])
                        widths[i % n_columns] = width;
        }
        for (size_t i = 0; i < table->n; ++i) {
                size_t column = i % n_columns;

                print_cell(table->cells[i], table->align[column], widths[column], column + 1 == n_columns);
        }
        table_deinit(table);
}

/* -- JSON -- */

json_t *output_string(const char *text) {
        CLEANUP(freep) char *escaped = NULL;
        json_t *string = json_string(text);

        if (string)
                return string;
        escaped = output_escape(text, stdout);
        return json_string(escaped);
}

json_t *output_number(uint64_t number) {
        return number <= INT64_MAX ? json_integer((json_int_t)number) : json_real((double)number);
}

json_t *output_limit(uint64_t limit) {
        return limit == UINT64_MAX ? json_null() : output_number(limit);
}

void output_unrefp(json_t **value) {
        json_decref(*value);
        *value = NULL;
}

void output_set(json_t *object, const char *key, json_t *value) {
        if (json_object_set_new(object, key, value) < 0)
                output_oom();
}

void output_append(json_t *array, json_t *value) {
        if (json_array_append_new(array, value) < 0)
                output_oom();
}

void output_json(json_t *value, FILE *stream) {
        if (!value)
                output_oom();
        /* What stream does with the bytes is found when it is closed. */
        (void)json_dumpf(value, stream, JSON_INDENT(2));
        fputc('\n', stream);
        json_decref(value);
}

void output_json_line(json_t *value, FILE *stream) {
        if (!value)
                output_oom();
        (void)json_dumpf(value, stream, 0);
        (void)fputc('\n', stream);
        json_decref(value);
}
