/* Attempts: the ways there are to change bytes through a read-only grant.
 *
 * Each asks the kernel to do one thing that would change the region's bytes, its size, its
 * seals or its permissions, or that would yield a writable way to it. Each must be refused, by
 * the kernel, whatever the process does: no library or broker stands in between.
 */
#ifndef DEMO_ATTEMPTS_H
#define DEMO_ATTEMPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What the attempts are made on: a read-only grant and a mapping of all of it. */
typedef struct Target {
        int fd;
        unsigned char *address;
        size_t length;
} Target;

typedef struct Attempt {
        const char *name;
        /* Return: 0 if the kernel let it happen, else the negative errno of its refusal. */
        int (*fn)(const Target *target);
        /* Only another uid than the broker's is refused: the inode is the broker's. */
        bool needs_other_uid;
} Attempt;

extern const Attempt attempts[];
extern const size_t n_attempts;

#endif
