/* A dump of a broker's state, as the command line sees it: what is in it, and what is wrong with it.
 */
#ifndef CHECK_STATE_H
#define CHECK_STATE_H

#include <stdbool.h>

/* Reads a file ("-": standard input) and looks at all that is in it. What there is goes to standard output,
 * one "name value" a line, and what is wrong to standard error. Return: whether nothing is wrong. */
bool check_state(const char *path);

#endif
