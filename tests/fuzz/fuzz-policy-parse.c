/* Policy files. A bad one says where and why; a good one compiles to what the broker accepts. */

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/policy.h"
#include "fuzz/fuzz.h"
#include "policy-parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        CLEANUP(policy_freep) Policy *policy = NULL;
        CLEANUP(freep) uint8_t *blob = NULL;
        CLEANUP(close_fdp) int fd = -1;
        char path[64], message[INIFILE_MESSAGE_MAX];
        const char *sentence;
        size_t n_blob;
        int r;

        fd = memfd_create("policy", MFD_CLOEXEC);
        FUZZ_REQUIRE(fd >= 0 && write(fd, data, n) == (ssize_t)n);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

        r = policy_compile_file(path, &blob, &n_blob, message);
        FUZZ_REQUIRE(r == 0 || r == POLICY_PARSE_E_INVALID);
        if (r) {
                FUZZ_REQUIRE(strlen(message) > 0);
                return 0;
        }
        r = policy_decode(blob, n_blob, &policy, &sentence);
        FUZZ_REQUIRE(r == 0);
        return 0;
}
