/* Assertions, for our own mistakes only.
 *
 * ASSERT() evaluates its condition in every build: -DNDEBUG must not change what the
 * program does, and a broker with a broken invariant must stop before it hands out the wrong
 * memory. Nothing that a client sends may be able to make one fail: their input gets results.
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

__attribute__((noreturn, cold)) static inline void assert_failed(const char *what, const char *file, int line) {
        fprintf(stderr, "shmd: bug: %s:%d: %s\n", file, line, what);
        abort();
}

#define ASSERT(condition)                                                       \
        do {                                                                    \
                if (__builtin_expect(!(condition), 0))                          \
                        assert_failed(#condition, __FILE__, __LINE__);          \
        } while (0)

#endif
