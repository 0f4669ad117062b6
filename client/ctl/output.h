/* What shmdctl prints: sizes and times for people, tables, JSON.
 *
 * Two promises. Names and sentences come from others, so nothing of theirs reaches a terminal
 * unescaped: control characters, bidirectional controls, bytes that are no UTF-8, and, where the
 * terminal does not speak UTF-8, everything beyond ASCII are printed as \xNN. (A valid name has
 * none of the first three: a backslash is therefore printed as it is.) And standard output that
 * could not be written is a failure, even of --help.
 */
#ifndef CLIENT_CTL_OUTPUT_H
#define CLIENT_CTL_OUTPUT_H

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "client/ctl/ctl.h"

#define OUTPUT_NUMBER_MAX 32
#define OUTPUT_USER_MAX 64

/* To be registered with atexit(3): closes standard output; if that, or any write before, failed,
 * says so and makes the process exit with CTL_FAILED. */
void output_close(void);

/* Ends the program: there is no memory left. */
_Noreturn void output_oom(void);

/* Each writes into buffer and returns it. */
const char *output_size(const Ctl *ctl, char buffer[static OUTPUT_NUMBER_MAX], uint64_t bytes);
const char *output_human(char buffer[static OUTPUT_NUMBER_MAX], uint64_t bytes);
const char *output_duration(char buffer[static OUTPUT_NUMBER_MAX], uint64_t ns);
const char *output_user(char buffer[static OUTPUT_USER_MAX], uid_t uid);
const char *output_group(char buffer[static OUTPUT_USER_MAX], gid_t gid);

/* A copy of text that is safe to print to stream; the caller frees it. Never NULL. */
char *output_escape(const char *text, FILE *stream);

/* Prints text to stream, escaped. */
void output_text(const char *text, FILE *stream);

/* -- tables -- */

/* Cells in rows; a column is as wide as its widest cell. align has a letter for each column, 'l'
 * or 'r'; the last column is not padded. */
typedef struct Table {
        const char *align;
        char **cells;
        size_t n;
        size_t n_allocated;
} Table;

/* Appends a cell, a copy of text with what may not be printed escaped. */
void table_add(Table *table, const char *text);
void table_add_number(Table *table, uint64_t number);
/* Prints the table to standard output and empties it. */
void table_print(Table *table);
void table_deinit(Table *table);

/* -- JSON -- */

/* A string; what is no UTF-8 is escaped first. */
json_t *output_string(const char *text);
/* Numbers of JSON are read as 64-bit signed ones by most: above that it becomes a real number. */
json_t *output_number(uint64_t number);
/* A limit: null if there is none. */
json_t *output_limit(uint64_t limit);
/* Takes *value, which may be NULL: for CLEANUP(). */
void output_unrefp(json_t **value);
/* Consume value; out of memory ends the program. */
void output_set(json_t *object, const char *key, json_t *value);
void output_append(json_t *array, json_t *value);
/* Prints value with a newline, and consumes it. */
void output_json(json_t *value, FILE *stream);
/* The same in one line, for output that goes on. */
void output_json_line(json_t *value, FILE *stream);

#endif
