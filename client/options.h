/* Option structs that can grow.
 *
 * Each starts with the size its caller was compiled with. A caller newer than this library is
 * served as long as what we do not know is zero in it; a caller older than a field gets the
 * field's default.
 */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Copies the options at `from` over the n bytes of defaults at `to`. n_first: how long the struct
 * was in the first version that had it. Return: false if they are none, or ask for what this
 * version does not know. */
static inline bool options_read(void *to, size_t n, size_t n_first, const void *from) {
        size_t n_from;

        memcpy(&n_from, from, sizeof(n_from));
        if (n_from < n_first)
                return false;
        for (size_t i = n; i < n_from; ++i)
                if (((const char *)from)[i])
                        return false;
        memcpy(to, from, n_from < n ? n_from : n);
        return true;
}

#endif
