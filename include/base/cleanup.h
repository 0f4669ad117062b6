/* Cleanup by scope.
 *
 * A local that owns something says so where it is declared, and every way out of the scope
 * releases it. Handing it on is explicit: *ret = x; x = NULL; for objects, steal_fd() for
 * descriptors. After that the local owns nothing and its cleanup does nothing.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

/* For `CLEANUP(region_freep) Region *region`: a function that frees what the local points to.
 * `unused`, because a header offers it whether or not the includer has such a local. */
#define DEFINE_CLEANUP(type, function)                                          \
        __attribute__((unused)) static inline void function##p(type **p) {      \
                if (*p)                                                         \
                        (void)function(*p);                                     \
        }                                                                       \
        struct cleanup_requires_a_semicolon

static inline void freep(void *p) {
        free(*(void **)p);
}

/* Closes fd if it is one, keeps errno, and returns -1, so that the owner writes
 * x->fd = close_fd(x->fd) and can never close twice. Errors of close(2) are not reported: on
 * Linux the descriptor is gone whatever it returns. */
static inline int close_fd(int fd) {
        int saved = errno;

        if (fd >= 0)
                (void)close(fd);
        errno = saved;
        return -1;
}

static inline void close_fdp(int *fd) {
        *fd = close_fd(*fd);
}

/* Takes the descriptor out of *fd; the caller of steal_fd() owns what it returns. */
static inline int steal_fd(int *fd) {
        int stolen = *fd;

        *fd = -1;
        return stolen;
}

#endif
