/* Policy files, and what they are compiled to.
 *
 * A policy is the files *.conf of several directories, read in the order of their names. A file hides
 * one of the same name in an earlier directory, so that an administrator can replace what a package
 * brought, or with an empty file, or a link to /dev/null, take it away. What a key is about is said
 * once in all of them: a second time is an error, as is everything else that is not understood, and
 * then there is no policy at all.
 *
 * Files and the name service are asked here, once; what comes out (core/policy.h) has numbers only.
 */
#ifndef POLICY_PARSE_H
#define POLICY_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include "inifile.h"

enum {
        _POLICY_PARSE_E_SUCCESS,
        POLICY_PARSE_E_INVALID,         /* the message says where and why */
};

/* Compiles the files of directories, the weakest first; one that does not exist is empty. *ret is for
 * free(3). Return: 0, POLICY_PARSE_E_INVALID, or a negative errno. */
int policy_compile(const char *const *directories, size_t n, uint8_t **ret, size_t *ret_n,
                   char message[INIFILE_MESSAGE_MAX]);

/* The same for one file. */
int policy_compile_file(const char *path, uint8_t **ret, size_t *ret_n, char message[INIFILE_MESSAGE_MAX]);

#endif
