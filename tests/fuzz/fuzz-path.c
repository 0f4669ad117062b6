/* Paths. What the validator takes can be walked, and its components put together are the path. */

#include <string.h>

#include "core/name.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        PathError error = path_check((const char *)data, n), why = PATH_OK;
        char path[PATH_BYTES_MAX + 1];
        size_t at = 0, depth = 0;
        bool last = false;
        NamePart part;
        Name name;

        FUZZ_REQUIRE(error >= PATH_OK && error <= PATH_BIDI);
        FUZZ_REQUIRE((name_init(&name, data, n, &why) == 0) == (error == PATH_OK));
        FUZZ_REQUIRE(why == error);
        if (error)
                return 0;

        FUZZ_REQUIRE(n >= 1 && n <= PATH_BYTES_MAX && !memchr(data, 0, n) && !memchr(data, '\n', n));
        while (name_next(&name, &part)) {
                FUZZ_REQUIRE(!last && part.n > 0 && part.n <= PATH_COMPONENT_MAX);
                FUZZ_REQUIRE(path_check_component(part.text, part.n) == PATH_OK);
                path[at++] = '/';
                memcpy(path + at, part.text, part.n);
                at += part.n;
                FUZZ_REQUIRE(part.end == at);
                last = part.last;
                ++depth;
        }
        FUZZ_REQUIRE(depth <= PATH_DEPTH_MAX && last == (depth > 0));
        FUZZ_REQUIRE(depth > 0 ? at == n && memcmp(path, data, n) == 0 : n == 1);
        return 0;
}
