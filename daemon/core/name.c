/* Names: see the header for the model. */

#include "core/name.h"

int name_init(Name *name, const void *path, size_t n, PathError *why) {
        PathError error = path_check(path, n);

        if (why)
                *why = error;
        if (error)
                return NAME_E_INVALID;
        *name = (Name){ .path = path, .n = n, .at = 1 };
        return 0;
}

bool name_next(Name *name, NamePart *ret) {
        const char *text = name->path + name->at, *slash;

        if (name->at >= name->n)
                return false;
        slash = memchr(text, '/', name->n - name->at);
        ret->text = text;
        ret->n = slash ? (size_t)(slash - text) : name->n - name->at;
        ret->end = name->at + ret->n;
        ret->last = !slash;
        name->at = ret->end + 1;
        return true;
}

int name_compare(const char *a, size_t n_a, const char *b, size_t n_b) {
        int order = memcmp(a, b, n_a < n_b ? n_a : n_b);

        if (order)
                return order;
        return n_a < n_b ? -1 : n_a > n_b;
}
