/* Names: walking a path that has been checked.
 *
 * What a path may look like is base/path.h's business, for both sides of the socket. Here a
 * path is taken apart: a Name borrows the bytes of a path and hands out its components.
 */
#ifndef CORE_NAME_H
#define CORE_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/path.h"

enum {
        _NAME_E_SUCCESS,
        NAME_E_INVALID,
};

typedef struct NamePart {
        const char *text;       /* borrowed from the path, not NUL-terminated */
        uint16_t n;
        uint16_t end;           /* length of the path up to and with this component */
        bool last;
} NamePart;

typedef struct Name {
        uint8_t n;              /* components; the root has none */
        uint8_t at;             /* the one that comes next */
        NamePart parts[PATH_DEPTH_MAX];
} Name;

/* Checks the path, takes it apart and starts a walk; *why (may be NULL) says which rule it breaks.
 * Return: 0, NAME_E_INVALID. */
int name_init(Name *name, const void *path, size_t n, PathError *why);

/* The next component; false after the last. */
bool name_next(Name *name, NamePart *ret);

/* Orders components: bytes, then length. */
int name_compare(const char *a, size_t n_a, const char *b, size_t n_b);

#endif
