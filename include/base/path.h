/* What a name may look like: the one validator, used by the library before it sends and by
 * the broker before it believes.
 *
 * A path is absolute: '/', or '/' and components joined by single slashes, without one at the
 * end. It is UTF-8 without control characters (C0, DEL, C1) and without the bidirectional
 * controls that make a name display as another (U+061C, U+200E, U+200F, U+202A..202E,
 * U+2066..2069). A component is 1..255 bytes and neither "." nor "..". A path is at most 1023
 * bytes and 16 components. Bytes are compared as they are: NFC and NFD spell different names,
 * and case matters.
 *
 * UTF-8 is as RFC 3629 section 4 has it: no overlong forms, no surrogates, nothing above
 * U+10FFFF.
 */
#ifndef BASE_PATH_H
#define BASE_PATH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PATH_BYTES_MAX 1023
#define PATH_COMPONENT_MAX 255
#define PATH_DEPTH_MAX 16

typedef enum PathError {
        PATH_OK,
        PATH_EMPTY,
        PATH_RELATIVE,
        PATH_TOO_LONG,
        PATH_TOO_DEEP,
        PATH_COMPONENT_EMPTY,
        PATH_COMPONENT_TOO_LONG,
        PATH_COMPONENT_DOTS,
        PATH_NOT_UTF8,
        PATH_CONTROL,
        PATH_BIDI,
} PathError;

/* One sentence a person can act on; a static string. */
static inline const char *path_error_sentence(PathError error) {
        switch (error) {
        case PATH_OK:
                return "the name is valid";
        case PATH_EMPTY:
                return "a name may not be empty";
        case PATH_RELATIVE:
                return "a name starts with '/'";
        case PATH_TOO_LONG:
                return "a name has at most 1023 bytes";
        case PATH_TOO_DEEP:
                return "a name has at most 16 components";
        case PATH_COMPONENT_EMPTY:
                return "a name has no empty component: no '//' and no '/' at the end";
        case PATH_COMPONENT_TOO_LONG:
                return "a component of a name has at most 255 bytes";
        case PATH_COMPONENT_DOTS:
                return "a component of a name is neither '.' nor '..'";
        case PATH_NOT_UTF8:
                return "a name is valid UTF-8";
        case PATH_CONTROL:
                return "a name has no control characters";
        case PATH_BIDI:
                return "a name has no bidirectional controls";
        default:
                return "the name is not valid";
        }
}

/* Decodes one character of at most n bytes at p. Returns its length, 0 if it is not UTF-8. */
static inline size_t path_decode_utf8(const unsigned char *p, size_t n, uint32_t *ret) {
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        uint32_t c = p[0];
        size_t length;

        if (c < 0x80) {
                *ret = c;
                return 1;
        }
        length = (c & 0xe0) == 0xc0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : (c & 0xf8) == 0xf0 ? 4 : 0;
        if (!length || length > n)
                return 0;

        c &= 0x7fU >> length;
        for (size_t i = 1; i < length; ++i) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (p[i] & 0x3fU);
        }
        if (c < smallest[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
                return 0;

        *ret = c;
        return length;
}

static inline PathError path_check_character(uint32_t c) {
        if (c < 0x20 || (c >= 0x7f && c < 0xa0))
                return PATH_CONTROL;
        if (c == 0x61c || c == 0x200e || c == 0x200f ||
            (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069))
                return PATH_BIDI;
        return PATH_OK;
}

/* How many bytes at the beginning, in steps of eight, are printable ASCII, as most names are throughout. Of the bytes
 * with the top bit clear, adding 0x60 sets it in those from 0x20 on, and 1 in DEL. */
static inline size_t path_count_plain(const unsigned char *p, size_t n) {
        const uint64_t each = UINT64_C(0x0101010101010101), top = each << 7;
        size_t at = 0;

        /* Else compilers warn of eight bytes of shorter strings, which they do not see are never read. */
        __asm__("" : "+r"(p));
        for (uint64_t word; n - at >= sizeof(word); at += sizeof(word)) {
                memcpy(&word, p + at, sizeof(word));
                if ((word | (word + each) | ~(word + 0x60 * each)) & top)
                        break;
        }
        return at;
}

/* Checks one component (no slash in it). */
static inline PathError path_check_component(const char *name, size_t n) {
        const unsigned char *p = (const unsigned char *)name;

        if (n == 0)
                return PATH_COMPONENT_EMPTY;
        if (n > PATH_COMPONENT_MAX)
                return PATH_COMPONENT_TOO_LONG;
        if (p[0] == '.' && (n == 1 || (n == 2 && p[1] == '.')))
                return PATH_COMPONENT_DOTS;

        for (size_t at = path_count_plain(p, n); at < n;) {
                PathError error;
                uint32_t c;
                size_t length;

                length = path_decode_utf8(p + at, n - at, &c);
                if (!length)
                        return PATH_NOT_UTF8;
                error = path_check_character(c);
                if (error)
                        return error;
                at += length;
        }
        return PATH_OK;
}

/* Checks a whole path of n bytes (no terminating NUL is needed, and none may be inside).
 * "/" is valid: it names the root. */
static inline PathError path_check(const char *path, size_t n) {
        size_t depth = 0;

        if (n == 0)
                return PATH_EMPTY;
        if (path[0] != '/')
                return PATH_RELATIVE;
        if (n > PATH_BYTES_MAX)
                return PATH_TOO_LONG;
        if (n == 1)
                return PATH_OK;

        for (size_t at = 1; at <= n;) {
                const char *slash = at < n ? memchr(path + at, '/', n - at) : NULL;
                size_t end = slash ? (size_t)(slash - path) : n;
                PathError error;

                error = path_check_component(path + at, end - at);
                if (error)
                        return error;
                if (++depth > PATH_DEPTH_MAX)
                        return PATH_TOO_DEEP;
                at = end + 1;
        }
        return PATH_OK;
}

#endif
