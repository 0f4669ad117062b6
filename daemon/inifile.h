/* INI files: sections, keys and values, with the line of every mistake.
 *
 * inih does the splitting; what it would pass over in silence is an error here: lines and names
 * that it cuts, text behind a section's name, a section that does not begin its line. A section
 * is told when it begins, also one without any key. A value goes on in the lines after it that
 * begin with white space; each of them is told as one more value of that key.
 *
 * The first mistake is the one that is told, as "FILE:LINE: what". A file that everybody may write to is
 * nobody's word and is refused.
 */
#ifndef INIFILE_H
#define INIFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define INIFILE_BYTES_MAX (1 << 20)
#define INIFILE_MESSAGE_MAX 512
/* inih's: bytes of a line, with its end and a NUL. */
#define INIFILE_LINE_MAX 200

enum {
        _INIFILE_E_SUCCESS,
        INIFILE_E_MISSING,      /* the file does not exist */
        INIFILE_E_INVALID,      /* the message says where and why */
};

typedef struct IniFile IniFile;

/* What is done with a file. Each returns 1 to go on, 0 after inifile_complain(). */
typedef struct IniEvents {
        int (*section)(IniFile *file, const char *section);     /* may be NULL */
        int (*key)(IniFile *file, const char *section, const char *key, const char *value);
        int (*whole)(IniFile *file);                            /* when all was read; may be NULL */
        void *userdata;
} IniEvents;

struct IniFile {
        const char *path;
        const IniEvents *events;
        FILE *stream;
        int line;
        bool goes_on;           /* this line belongs to the value before it */
        char section[INIFILE_LINE_MAX];
        int error_line;         /* of the message; 0: none yet */
        char *message;          /* INIFILE_MESSAGE_MAX bytes */
};

/* Reads a file; only a regular one of at most 1 MiB.
 * Return: 0, INIFILE_E_MISSING, INIFILE_E_INVALID, or a negative errno. */
int inifile_read(const char *path, const IniEvents *events, char message[INIFILE_MESSAGE_MAX]);

/* Remembers what is wrong with the line being read, if it is the first. Return: 0. */
__attribute__((format(printf, 2, 3))) int inifile_complain(IniFile *file, const char *format, ...);

#endif
