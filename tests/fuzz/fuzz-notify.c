/* What a keeper reads of its broker. The first byte is the number of descriptors that came with it.
 * Whatever is taken asks for one thing, and each descriptor that is to be kept has a name that can stand in a table. */

#include <string.h>

#include "fuzz/fuzz.h"
#include "util/notify.h"

static void check_name(const char name[FDSTORE_NAME_MAX]) {
        size_t n = strnlen(name, FDSTORE_NAME_MAX);

        FUZZ_REQUIRE(n < FDSTORE_NAME_MAX && n > 0);
        FUZZ_REQUIRE(n == strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."));
}

static bool has_its_names(const Notify *notify, size_t n_fds) {
        if (notify->words & NOTIFY_REMOVE)
                return notify->n_names >= 1 && notify->n_names <= NOTIFY_FDS_MAX;
        return notify->n_names == (notify->words & NOTIFY_STORE ? n_fds : 0);
}

static bool has_its_descriptors(const Notify *notify, size_t n_fds) {
        if (notify->words & NOTIFY_STORE)
                return n_fds >= 1 && n_fds <= NOTIFY_FDS_MAX;
        return n_fds == (notify->words & NOTIFY_BARRIER ? 1 : 0);
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
        FUZZ_REQUIRE(n - 1 <= NOTIFY_MAX && notify.n_fds == 0);
        FUZZ_REQUIRE(!(notify.words & about & ((notify.words & about) - 1)));
        FUZZ_REQUIRE(has_its_descriptors(&notify, data[0]));
        FUZZ_REQUIRE(has_its_names(&notify, data[0]));
        for (size_t i = 0; i < notify.n_names; ++i)
                check_name(notify.names[i]);
        FUZZ_REQUIRE(strnlen(notify.status, NOTIFY_STATUS_MAX) < NOTIFY_STATUS_MAX);
        for (const char *at = notify.status; *at; ++at)
                FUZZ_REQUIRE(*at >= ' ' && *at <= '~');
        return 0;
}
