/* What a keeper reads of its broker. The first byte is the number of descriptors that came with it.
 * Whatever is taken asks for one thing, about one descriptor, with a name that can stand in a table. */

#include <string.h>

#include "fuzz/fuzz.h"
#include "util/notify.h"

static void check_name(const char name[FDSTORE_NAME_MAX], bool wanted) {
        size_t n = strnlen(name, FDSTORE_NAME_MAX);

        FUZZ_REQUIRE(n < FDSTORE_NAME_MAX && (n > 0) == wanted);
        FUZZ_REQUIRE(n == strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."));
        for (; n < FDSTORE_NAME_MAX; ++n)
                FUZZ_REQUIRE(name[n] == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        const unsigned int about = NOTIFY_STORE | NOTIFY_BARRIER | NOTIFY_REMOVE;
        Notify notify;
        int r;

        if (n == 0)
                return 0;
        r = notify_parse(&notify, (const char *)data + 1, n - 1, data[0]);
        FUZZ_REQUIRE(r == 0 || r == NOTIFY_E_INVALID);
        if (r)
                return 0;
        FUZZ_REQUIRE(n - 1 <= NOTIFY_MAX && notify.fd == -1);
        FUZZ_REQUIRE(!(notify.words & about & ((notify.words & about) - 1)));
        FUZZ_REQUIRE(data[0] == ((notify.words & (NOTIFY_STORE | NOTIFY_BARRIER)) != 0));
        check_name(notify.name, notify.words & (NOTIFY_STORE | NOTIFY_REMOVE));
        FUZZ_REQUIRE(strnlen(notify.status, NOTIFY_STATUS_MAX) < NOTIFY_STATUS_MAX);
        for (const char *at = notify.status; *at; ++at)
                FUZZ_REQUIRE(*at >= ' ' && *at <= '~');
        return 0;
}
