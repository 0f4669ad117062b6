/* What this kernel can do: see the header for the model. */

#include "util/probe.h"

#include <errno.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "util/memfd.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static const struct {
        const char *name;
        const char *consequence;
} features[_PROBE_N] = {
        [PROBE_NOEXEC_SEAL] = { "noexec-seal", "regions carry no seal against execution" },
        [PROBE_LEASE]       = { "lease", "a region without a name is released when the marks of its grants and the connections that asked for them are gone, not when the kernel says so" },
        [PROBE_INOTIFY]     = { "inotify", "releases are found by a timer, up to a second late" },
        [PROBE_MARKER]      = { "marker", "who holds a region is known only for connections that still exist" },
        [PROBE_PASSRIGHTS]  = { "passrights", "unwanted descriptors are dropped by the kernel on arrival, not refused to their sender" },
        [PROBE_PEERPIDFD]   = { "peerpidfd", "holders are shown by pid alone, which may have been reused" },
};

static bool have[_PROBE_N];
static bool leave_inotify;

bool probe_have(ProbeFeature feature) {
        return have[feature];
}

void probe_leave_inotify(void) {
        leave_inotify = true;
}

void probe_force(ProbeFeature feature, bool value) {
        have[feature] = value;
}

const char *probe_name(ProbeFeature feature) {
        return features[feature].name;
}

const char *probe_consequence(ProbeFeature feature) {
        return features[feature].consequence;
}

static bool try_noexec_seal(void) {
        CLEANUP(close_fdp) int fd = memfd_create("shmd:probe", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

        return fd >= 0;
}

static bool try_lease(int fd) {
        return memfd_probe(fd) == 0;
}

static bool try_inotify(int fd) {
        CLEANUP(close_fdp) int in = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        char path[32], event[sizeof(struct inotify_event) + 256];
        int other;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (in < 0 || inotify_add_watch(in, path, IN_CLOSE) < 0 || memfd_reopen(fd, false, &other))
                return false;
        (void)close_fd(other);
        if (read(in, event, sizeof(event)) <= 0)
                return false;
        if (leave_inotify)
                (void)steal_fd(&in);
        return true;
}

static bool try_marker(int fd) {
        CLEANUP(close_fdp) int other = -1;
        uint64_t first, last;

        return memfd_reopen(fd, false, &other) == 0 && memfd_mark(other, 1) == 0 &&
               memfd_find_mark(fd, 1, 1, &first, &last);
}

static void try_socket_options(void) {
        CLEANUP(close_fdp) int a = -1, b = -1, pidfd = -1;
        socklen_t n = sizeof(pidfd);
        int pair[2], off = 0;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return;
        a = pair[0];
        b = pair[1];
        have[PROBE_PASSRIGHTS] = setsockopt(a, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) == 0;
        have[PROBE_PEERPIDFD] = getsockopt(b, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n) == 0;
}

int probe_run(void) {
        MemfdSpec spec = { .size = 4096 };
        CLEANUP(close_fdp) int fd = -1;
        int r;

        have[PROBE_NOEXEC_SEAL] = try_noexec_seal();
        r = memfd_make(&spec, &fd);
        if (r)
                return r < 0 ? r : -ENOMEM;

        have[PROBE_LEASE] = try_lease(fd);
        have[PROBE_INOTIFY] = try_inotify(fd);
        have[PROBE_MARKER] = try_marker(fd);
        try_socket_options();
        return 0;
}
