/* The daemon's program: see the header. */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "client/ctl/daemon.h"
#include "client/ctl/output.h"

void text_deinit(Text *text) {
        free(text->bytes);
        text->bytes = NULL;
        text->fd = close_fd(text->fd);
}

int text_read(Text *text, size_t max) {
        ssize_t n = 0;

        text->bytes = calloc(1, max + 1);
        if (!text->bytes)
                output_oom();
        while (text->n < max && (n = read(text->fd, text->bytes + text->n, max - text->n)) > 0)
                text->n += (size_t)n;
        return n < 0 ? -errno : 0;
}

void text_chomp(Text *text) {
        while (text->n > 0 && text->bytes[text->n - 1] == '\n')
                text->bytes[--text->n] = '\0';
}

const char *daemon_program(const char *option) {
        const char *daemon = option ? option : secure_getenv("SHMD_DAEMON");

        return daemon && *daemon ? daemon : SHMD_DAEMON;
}

_Noreturn static void run(const char *const argv[], int in, int out, int err) {
        int null = in < 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : in;

        if (dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
                _exit(127);
        (void)execvp(argv[0], (char *const *)argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        (void)fflush(stderr);
        _exit(127);
}

/* Return: 0 and the exit status, 128 after a signal; negative errno. */
static int wait_for(pid_t pid, int *ret_status) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
        return 0;
}

static int rewind_and_read(Text *text, size_t max) {
        return lseek(text->fd, 0, SEEK_SET) < 0 ? -errno : text_read(text, max);
}

int daemon_run(const char *const argv[], int in, Text *out, Text *err, size_t max, int *ret_status) {
        pid_t pid;
        int r;

        out->fd = memfd_create("out", MFD_CLOEXEC);
        err->fd = memfd_create("err", MFD_CLOEXEC);
        (void)fflush(NULL);
        pid = out->fd < 0 || err->fd < 0 ? -1 : fork();
        if (pid < 0)
                return -errno;
        if (pid == 0)
                run(argv, in, out->fd, err->fd);

        r = wait_for(pid, ret_status);
        if (!r)
                r = rewind_and_read(out, max);
        return r ? r : rewind_and_read(err, max);
}
