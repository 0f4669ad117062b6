/* What a process is: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A file of /proc/PID, cut to n bytes and a NUL. Return: whether there was anything to read. */
static bool read_proc(pid_t pid, const char *name, char *text, size_t n) {
        CLEANUP(close_fdp) int fd = -1;
        size_t got = 0;
        char path[64];
        ssize_t r = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        while (fd >= 0 && got < n - 1 && (r = read(fd, text + got, n - 1 - got)) > 0)
                got += (size_t)r;
        text[got] = 0;
        return got > 0;
}

/* -- whose pids ------------------------------------------------------------------------------ */

/* How many numbers the process has, of one pid namespace each, from the one whose /proc this is on. */
static unsigned int n_pids(pid_t pid) {
        char status[4096], *at, *end;
        unsigned int n = 0;

        if (!read_proc(pid, "status", status, sizeof(status)))
                return 0;
        at = strstr(status, "\nNSpid:");
        if (!at)
                return 0;
        at += strlen("\nNSpid:");
        end = at + strcspn(at, "\n");
        for (at += strspn(at, " \t"); at < end; at += strspn(at, " \t")) {
                ++n;
                at += strcspn(at, " \t\n");
        }
        return n;
}

bool process_shares_pids(pid_t pid) {
        /* 0 is a process outside of our namespace, two numbers are one in a namespace inside of it. */
        return pid > 0 && n_pids(pid) == 1;
}

/* -- what it is -------------------------------------------------------------------------------- */

static bool has_suffix(const char *text, size_t n, const char *suffix) {
        size_t m = strlen(suffix);

        return n > m && memcmp(text + n - m, suffix, m) == 0;
}

static void find_unit(Process *process) {
        for (const char *at = process->cgroup; *at == '/';) {
                size_t n = strcspn(++at, "/");

                if (n < sizeof(process->unit) && (has_suffix(at, n, ".service") || has_suffix(at, n, ".scope"))) {
                        memcpy(process->unit, at, n);
                        process->unit[n] = 0;
                }
                at += n;
        }
}

/* A line is "number:controllers:path". Of the unified hierarchy there is one with no controllers; where
 * that has only the root, systemd's own says more. */
void process_read_cgroup(const char *text, Process *ret) {
        ret->cgroup[0] = ret->unit[0] = 0;
        for (const char *line = text; *line;) {
                size_t n = strcspn(line, "\n");
                const char *colon = memchr(line, ':', n);
                const char *path = colon ? memchr(colon + 1, ':', n - (size_t)(colon + 1 - line)) : NULL;
                bool unified = path && path == colon + 1;
                bool systemd = path && has_suffix(line, (size_t)(path - line), ":name=systemd");

                if (path && (unified || systemd) && strlen(ret->cgroup) < 2)
                        (void)snprintf(ret->cgroup, sizeof(ret->cgroup), "%.*s",
                                       (int)(line + n - (path + 1)), path + 1);
                line += n + (line[n] == '\n');
        }
        find_unit(ret);
}

void process_read_own_cgroup(Process *ret) {
        char text[4096];

        *ret = (Process){ .state = PROCESS_UNKNOWN };
        if (read_proc(getpid(), "cgroup", text, sizeof(text)))
                process_read_cgroup(text, ret);
}

static void read_names(pid_t pid, Process *ret) {
        char text[4096];

        if (read_proc(pid, "comm", ret->comm, sizeof(ret->comm)))
                ret->comm[strcspn(ret->comm, "\n")] = 0;
        if (read_proc(pid, "cgroup", text, sizeof(text)))
                process_read_cgroup(text, ret);
}

/* A pidfd can be read from when its process has ended, waited for or not. */
static bool has_ended(int pidfd) {
        struct pollfd pollfd = { .fd = pidfd, .events = POLLIN };

        return poll(&pollfd, 1, 0) != 0;
}

void process_look(pid_t pid, uint64_t pidfd_ino, Process *ret) {
        CLEANUP(close_fdp) int fd = -1;
        struct stat st;

        *ret = (Process){ .state = PROCESS_UNKNOWN };
        if (!pidfd_ino || pid <= 0)
                return;
        fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0 && errno != ESRCH)
                return;
        if (fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == pidfd_ino) {
                read_names(pid, ret);
                if (!has_ended(fd)) {
                        ret->state = PROCESS_THERE;
                        return;
                }
        }
        *ret = (Process){ .state = PROCESS_GONE };
}
