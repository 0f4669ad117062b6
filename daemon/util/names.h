/* The names of kept descriptors, by number: name n stands for descriptor n of this process.
 *
 * The descriptors themselves are where the kernel put them, and whoever is executed from here has them
 * at the same numbers. So all that the next process needs is this table, and it is one file: a memfd of
 * FDSTORE_NAME_MAX bytes for each number, NUL-padded, all zero where nothing is kept. Only the mapping
 * that was made first can change it: the file is sealed, and whoever else has it can read.
 *
 * Beside it, and for this process alone, is an index: a name is found in the same time, however many
 * there are.
 */
#ifndef UTIL_NAMES_H
#define UTIL_NAMES_H

#include <stdint.h>

#include "util/fdstore.h"

enum {
        _NAMES_E_SUCCESS,
        NAMES_E_TAKEN,          /* something has that name */
        NAMES_E_RANGE,          /* a number beyond the table */
};

typedef struct Names Names;

/* Makes a table for descriptors below n. Return: 0, or a negative errno. */
int names_new(Names **ret, size_t n);
/* Return: NULL. The descriptors stay. */
Names *names_free(Names *names);

DEFINE_CLEANUP(Names, names_free);

/* The file, which stays the table's and is not close-on-exec; and how many kept descriptors there are. */
int names_fd(const Names *names);
size_t names_count(const Names *names);
/* One more than the highest number that has had a name. */
size_t names_end(const Names *names);

/* Names a descriptor; name is valid (util/notify.h). Return: 0, NAMES_E_TAKEN, NAMES_E_RANGE. */
int names_put(Names *names, int fd, const char *name);
/* Return: the descriptor of that name, which stays the table's; -1 if there is none. */
int names_find(const Names *names, const char *name);
/* Takes a name out. Return: the descriptor, which is the caller's; -1 if nothing has the name. */
int names_take(Names *names, const char *name);
/* Names what a table in a file of this form names, for which another process left the descriptors.
 * Return: 0, or a negative errno. */
int names_adopt(Names *names, int fd, size_t n);

/* Reads such a file: all that is kept, in the order of the numbers. n: how many numbers to look at.
 * *ret is to be freed. Return: 0, or a negative errno. */
int names_read(int fd, size_t n, Kept **ret, size_t *ret_n);

#endif
