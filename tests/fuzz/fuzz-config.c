/* Configuration files. A bad one says where and why; a good one can be made a capacity of. */

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/path.h"
#include "capacity.h"
#include "config.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        CLEANUP(config_freep) Config *config = NULL;
        CLEANUP(close_fdp) int fd = -1;
        char path[64];
        int r;

        fd = memfd_create("config", MFD_CLOEXEC);
        FUZZ_REQUIRE(fd >= 0 && write(fd, data, n) == (ssize_t)n);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

        FUZZ_REQUIRE(config_new(&config) == 0);
        r = config_read(config, path);
        FUZZ_REQUIRE(r == 0 || r == CONFIG_E_INVALID || r < 0);
        if (r == CONFIG_E_INVALID)
                FUZZ_REQUIRE(strstr(config->message, path) == config->message &&
                             strlen(config->message) > strlen(path));
        if (r)
                return 0;

        for (size_t i = 0; i < config->n_directories; ++i)
                FUZZ_REQUIRE(path_check(config->directories[i].path, strlen(config->directories[i].path)) == PATH_OK);
        if (capacity_resolve(config, 20000, UINT64_C(1) << 33) == 0)
                for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                        FUZZ_REQUIRE(config->global[i] != CONFIG_AUTO && config->account[i] != CONFIG_AUTO);
        return 0;
}
