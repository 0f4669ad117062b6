/* Policies, as the command line sees them: where their files are, and where the compiled one goes.
 */
#ifndef COMPILE_H
#define COMPILE_H

#include <stddef.h>
#include <stdint.h>

#include "policy-parse.h"

/* Compiles the files of the directories named, or, without any, of the usual ones: what packages
 * bring, what the administrator says, what holds until the next start; all of them below `root`
 * (NULL: /). *ret is for free(3). Return: 0, POLICY_PARSE_E_INVALID, or a negative errno. */
int compile_policy(const char *root, const char *const *directories, size_t n, uint8_t **ret, size_t *ret_n,
                   char message[INIFILE_MESSAGE_MAX]);

/* Writes it to a file, which is replaced in one moment if it is a regular one, or (NULL) to standard
 * output.
 * Return: 0, or a negative errno. */
int compile_write(const char *path, const uint8_t *blob, size_t n);

#endif
