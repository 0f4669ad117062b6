/* Names: see the header for the model. */

#include "core/name.h"

#include <string.h>

#include "util/word.h"

/* Adds the component between two slashes. Return: whether there is nothing about it that path_check() would have to
 * decide. */
static bool add_part(Name *name, const char *path, size_t begin, size_t end, bool last) {
        const char *text = path + begin;
        size_t n = end - begin;

        if (n == 0 || n > PATH_COMPONENT_MAX || name->n == PATH_DEPTH_MAX || (text[0] == '.' && n <= 2))
                return false;
        name->parts[name->n++] = (NamePart){ text, (uint16_t)n, (uint16_t)end, last };
        return true;
}

/* Takes a path apart that is printable ASCII throughout, as most are, and checks it as it goes, eight bytes at a time.
 * Of bytes with the top bit clear, adding 0x60 sets it in those from 0x20 on, 1 in DEL, and 0x7f in all but 0.
 * Return: whether it is such a path, and keeps all rules. */
static bool split_plain(Name *name, const char *path, size_t n) {
        const uint64_t top = WORD_OF(0x80);
        size_t begin = 1;

        if (n < 2 || n > PATH_BYTES_MAX || path[0] != '/')
                return false;
        for (size_t at = 1; at < n; at += WORD_BYTES) {
                size_t left = n - at;
                uint64_t word, slashes;

                if (left >= WORD_BYTES)
                        word = word_load(path + at);
                else
                        word = word_load_rest(path + at, left) | WORD_OF('x') << 8 * left;
                if ((word | (word + WORD_OF(1)) | ~(word + WORD_OF(0x60))) & top)
                        return false;
                for (slashes = ~((word ^ WORD_OF('/')) + WORD_OF(0x7f)) & top; slashes; slashes &= slashes - 1) {
                        size_t end = at + (size_t)__builtin_ctzll(slashes) / 8;

                        if (!add_part(name, path, begin, end, false))
                                return false;
                        begin = end + 1;
                }
        }
        return add_part(name, path, begin, n, true);
}

/* Takes any path apart that keeps the rules. */
static void split(Name *name, const char *path, size_t n) {
        const char *slash;

        for (size_t begin = 1, end; begin < n; begin = end + 1) {
                slash = memchr(path + begin, '/', n - begin);
                end = slash ? (size_t)(slash - path) : n;
                name->parts[name->n++] = (NamePart){ path + begin, (uint16_t)(end - begin), (uint16_t)end, !slash };
        }
}

int name_init(Name *name, const void *path, size_t n, PathError *why) {
        PathError error = PATH_OK;

        name->n = name->at = 0;
        if (!split_plain(name, path, n)) {
                error = path_check(path, n);
                name->n = 0;
                if (!error)
                        split(name, path, n);
        }
        if (why)
                *why = error;
        return error ? NAME_E_INVALID : 0;
}

bool name_next(Name *name, NamePart *ret) {
        if (name->at == name->n)
                return false;
        *ret = name->parts[name->at++];
        return true;
}

int name_compare(const char *a, size_t n_a, const char *b, size_t n_b) {
        int order = memcmp(a, b, n_a < n_b ? n_a : n_b);

        if (order)
                return order;
        return n_a < n_b ? -1 : n_a > n_b;
}
