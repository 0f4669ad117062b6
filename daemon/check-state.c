/* A dump of a state, as the command line sees it: see the header.
 *
 * The file is copied to memory first, as that is what a state can be adopted from; so a file is never
 * changed, and one that changes meanwhile is no trouble.
 */

#include "check-state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "core/inspect.h"
#include "core/state.h"
#include "util/error.h"

/* Return: 0, or a negative errno. */
static int copy(int from, int to) {
        char buffer[65536];
        ssize_t n, written;

        while ((n = read(from, buffer, sizeof(buffer))) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_origin(-errno);
                for (ssize_t at = 0; at < n; at += written) {
                        written = write(to, buffer + at, (size_t)(n - at));
                        if (written < 0)
                                return error_origin(-errno);
                }
        }
        return 0;
}

static int read_file(const char *path, int *ret) {
        CLEANUP(close_fdp) int memory = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING), file = -1;
        int r;

        file = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : dup(STDIN_FILENO);
        if (memory < 0 || file < 0)
                return error_origin(-errno);
        r = copy(file, memory);
        if (r)
                return r;
        *ret = steal_fd(&memory);
        return 0;
}

static void tell(void *userdata, const char *text) {
        fprintf(stderr, "%s: %s\n", (const char *)userdata, text);
}

static void print(const char *name, uint64_t value) {
        printf("%s %" PRIu64 "\n", name, value);
}

static bool inspect(State *state, const char *path) {
        Inspection inspection;
        int r;

        print("version", STATE_VERSION);
        print("transactions", state_commits(state));
        print("cells", state_cells(state));
        print("used", state_cells_used(state));
        r = inspect_state(state, tell, (void *)path, &inspection);
        if (r) {
                tell((void *)path, strerror(-r));
                return false;
        }
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                print(inspect_kind_plural(kind), inspection.records[kind]);
        print("bytes", inspection.bytes);
        print("generation", inspection.generation);
        print("mistakes", inspection.n_mistakes);
        return inspection.n_mistakes == 0;
}

bool check_state(const char *path) {
        CLEANUP(state_freep) State *state = NULL;
        const char *sentence = NULL;
        int fd = -1, r;

        r = read_file(path, &fd);
        if (!r)
                r = state_adopt_consume_fd(&state, fd, 0, &sentence);
        if (r) {
                tell((void *)path, sentence ? sentence : strerror(-r));
                return false;
        }
        return inspect(state, path) && fflush(stdout) == 0;
}
