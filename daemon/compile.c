/* Policies, as the command line sees them: see the header. */

#include "compile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "util/error.h"

/* The weakest first. */
static const char *const usual[] = {
        SHMD_VENDORDIR "/shmd/policy.d",
        SHMD_SYSCONFDIR "/shmd/policy.d",
        "/run/shmd/policy.d",
};
#define N_USUAL (sizeof(usual) / sizeof(usual[0]))

int compile_policy(const char *root, const char *const *directories, size_t n, uint8_t **ret, size_t *ret_n,
                   char message[INIFILE_MESSAGE_MAX]) {
        const char *below[N_USUAL];
        char *paths[N_USUAL] = { NULL };
        int r = 0;

        if (n > 0 || !root)
                return policy_compile(n > 0 ? directories : usual, n > 0 ? n : N_USUAL, ret, ret_n, message);
        for (size_t i = 0; i < N_USUAL; ++i) {
                if (asprintf(&paths[i], "%s%s", root, usual[i]) < 0) {
                        paths[i] = NULL;
                        r = error_origin(-ENOMEM);
                }
                below[i] = paths[i];
        }
        if (!r)
                r = policy_compile(below, N_USUAL, ret, ret_n, message);
        for (size_t i = 0; i < N_USUAL; ++i)
                free(paths[i]);
        return r;
}

static int write_all(int fd, const uint8_t *bytes, size_t n) {
        while (n > 0) {
                ssize_t written = write(fd, bytes, n);

                if (written < 0 && errno == EINTR)
                        continue;
                if (written < 0)
                        return error_origin(-errno);
                bytes += written;
                n -= (size_t)written;
        }
        return 0;
}

/* What a device or a pipe of that name is told. Return: 0, negative errno. */
static int write_special(const char *path, const uint8_t *blob, size_t n) {
        CLEANUP(close_fdp) int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);

        return fd < 0 ? error_origin(-errno) : write_all(fd, blob, n);
}

static int replace(const char *path, const uint8_t *blob, size_t n) {
        CLEANUP(freep) char *temporary = NULL;
        int fd, r;

        if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
                temporary = NULL;
                return error_origin(-ENOMEM);
        }
        fd = mkostemp(temporary, O_CLOEXEC);
        if (fd < 0)
                return error_origin(-errno);
        r = write_all(fd, blob, n);
        if (close(fd) < 0 && !r)
                r = error_origin(-errno);
        if (!r && rename(temporary, path) < 0)
                r = error_origin(-errno);
        if (r)
                (void)unlink(temporary);
        return r;
}

int compile_write(const char *path, const uint8_t *blob, size_t n) {
        struct stat st;

        if (!path)
                return write_all(STDOUT_FILENO, blob, n);
        if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
                return write_special(path, blob, n);
        return replace(path, blob, n);
}
