/* The sandbox: see the header for the model. */

#include "sandbox.h"

#include "buildinfo.h"

#include <errno.h>
#include <cap-ng.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef HAVE_LINUX_LANDLOCK_H
#include <linux/landlock.h>
#endif

#include "base/cleanup.h"
#include "util/error.h"

/* -- uids and capabilities -------------------------------------------------------------- */

int sandbox_drop_privileges(uid_t uid, gid_t gid) {
        if (geteuid() == 0 && uid != 0) {
                capng_clear(CAPNG_SELECT_BOTH);
                if (capng_change_id((int)uid, (int)gid, CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING) < 0)
                        return error_origin(-EPERM);
        } else {
                capng_clear(CAPNG_SELECT_BOTH);
                /* Only who has CAP_SETPCAP may empty the bounding set; no_new_privs makes it moot. */
                if (capng_apply(CAPNG_SELECT_BOTH) < 0 && capng_apply(CAPNG_SELECT_CAPS) < 0)
                        return error_origin(-EPERM);
        }
        return 0;
}

/* -- the file system -------------------------------------------------------------------- */

/* No rule at all: nothing on any file system can be opened, made or removed any more. Regions
 * are re-opened through /proc/self/fd, which leads to no path and needs no rule. */
static int close_filesystem(int *ret_landlock) {
        *ret_landlock = 0;
#if defined(HAVE_LINUX_LANDLOCK_H) && defined(SYS_landlock_create_ruleset)
        struct landlock_ruleset_attr attr = {
                .handled_access_fs =
                        LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |
                        LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                        LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                        LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                        LANDLOCK_ACCESS_FS_MAKE_SYM,
        };
        CLEANUP(close_fdp) int fd = -1;

        fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0U);
        if (fd < 0)
                return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : error_origin(-errno);
        if (syscall(SYS_landlock_restrict_self, fd, 0U) < 0)
                return error_origin(-errno);
        *ret_landlock = 1;
#endif
        return 0;
}

/* -- system calls ------------------------------------------------------------------------ */

#define ARG(n, op, value) SCMP_CMP(n, op, (scmp_datum_t)(value))
#define BITS(n, mask, value) SCMP_CMP(n, SCMP_CMP_MASKED_EQ, (scmp_datum_t)(mask), (scmp_datum_t)(value))

/* An entry: a call, and up to two conditions on its arguments. */
typedef struct Rule {
        int call;
        unsigned int n;
        struct scmp_arg_cmp args[2];
} Rule;

static const Rule allowed[] = {
        /* Sockets: take one, ask who it is, talk to it, see what it has not read. */
        { SCMP_SYS(accept4), 0, {} },
        { SCMP_SYS(getsockopt), 1, { ARG(1, SCMP_CMP_EQ, SOL_SOCKET) } },
        { SCMP_SYS(setsockopt), 2, { ARG(1, SCMP_CMP_EQ, SOL_SOCKET), ARG(2, SCMP_CMP_EQ, SO_SNDBUF) } },
        { SCMP_SYS(recvmsg), 0, {} },
        { SCMP_SYS(recvfrom), 0, {} },                                          /* telling an empty packet from the end */
        { SCMP_SYS(sendmsg), 0, {} },
        { SCMP_SYS(sendto), 0, {} },                                            /* the log and the service manager */
        { SCMP_SYS(shutdown), 0, {} },                                          /* ending a connection whose peer has not read */
        { SCMP_SYS(ioctl), 1, { ARG(1, SCMP_CMP_EQ, SIOCOUTQ) } },

        /* Regions: make, size, protect, seal, re-open, probe, mark, empty. */
        { SCMP_SYS(memfd_create), 0, {} },
        { SCMP_SYS(ftruncate), 0, {} },
        { SCMP_SYS(fchmod), 1, { ARG(1, SCMP_CMP_EQ, 0600) } },
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_ADD_SEALS) } },
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_GET_SEALS) } },
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_SETLEASE) } },
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_OFD_SETLK) } },
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_OFD_GETLK) } },
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_DUPFD_CLOEXEC) } },       /* a reply that has to queue */
        { SCMP_SYS(fallocate), 1, { ARG(1, SCMP_CMP_EQ, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) } },
        /* Never O_CREAT or O_TRUNC; Landlock decides about paths. */
        { SCMP_SYS(openat), 1, { BITS(2, O_CREAT | O_TRUNC | O_TMPFILE, 0) } },
        { SCMP_SYS(close), 0, {} },

        /* Who let go: inotify on regions. */
        { SCMP_SYS(inotify_add_watch), 0, {} },
        { SCMP_SYS(inotify_rm_watch), 0, {} },
        { SCMP_SYS(read), 0, {} },                                              /* its events, and signals */
        { SCMP_SYS(write), 0, {} },                                             /* the log */

        /* A pidfd's inode number says who somebody was; stdio and sanity checks use fstat too. */
        { SCMP_SYS(fstat), 0, {} },
        { SCMP_SYS(newfstatat), 0, {} },                                        /* what newer libcs make of fstat() */
        { SCMP_SYS(fstatfs), 0, {} },

        /* The loop. */
        { SCMP_SYS(epoll_wait), 0, {} },
        { SCMP_SYS(epoll_pwait), 0, {} },
        { SCMP_SYS(epoll_pwait2), 0, {} },
        { SCMP_SYS(epoll_ctl), 0, {} },
        { SCMP_SYS(clock_gettime), 0, {} },                                     /* where the vDSO cannot say */
        { SCMP_SYS(gettimeofday), 0, {} },
        { SCMP_SYS(restart_syscall), 0, {} },                                   /* after SIGSTOP and SIGCONT */

        /* Memory: never executable. Huge pages are reserved by mapping them once. */
        { SCMP_SYS(brk), 0, {} },
        { SCMP_SYS(mmap), 1, { BITS(2, PROT_EXEC, 0) } },
        { SCMP_SYS(munmap), 0, {} },
        { SCMP_SYS(mremap), 0, {} },
        { SCMP_SYS(madvise), 0, {} },
        { SCMP_SYS(mprotect), 1, { BITS(2, PROT_EXEC, 0) } },

        /* Session numbers. */
        { SCMP_SYS(getrandom), 0, {} },

        /* The end, ordinary or by a failed assertion. */
        { SCMP_SYS(rt_sigprocmask), 0, {} },
        { SCMP_SYS(rt_sigaction), 0, {} },
        { SCMP_SYS(rt_sigreturn), 0, {} },
        { SCMP_SYS(getpid), 0, {} },
        { SCMP_SYS(gettid), 0, {} },
        { SCMP_SYS(tgkill), 0, {} },
        { SCMP_SYS(futex), 0, {} },                                             /* stdio's and malloc's locks */
        { SCMP_SYS(exit), 0, {} },
        { SCMP_SYS(exit_group), 0, {} },

#ifdef SHMD_SANITIZERS
        /* The sanitizers' run time: shadow memory, symbolized reports, its own threads' stacks. */
        { SCMP_SYS(prctl), 0, {} },
        { SCMP_SYS(sched_yield), 0, {} },
        { SCMP_SYS(sched_getaffinity), 0, {} },
        { SCMP_SYS(sigaltstack), 0, {} },
        { SCMP_SYS(readlink), 0, {} },
        { SCMP_SYS(lseek), 0, {} },
        { SCMP_SYS(getrusage), 0, {} },
        { SCMP_SYS(mincore), 0, {} },
#endif
};

static int filter_calls(void) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
        int r = 0;

        if (!filter)
                return error_origin(-ENOMEM);
        for (size_t i = 0; !r && i < sizeof(allowed) / sizeof(allowed[0]); ++i)
                r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, allowed[i].call, allowed[i].n, allowed[i].args);
        /* The most frequent calls first: the filter is a program that runs at each. */
        for (size_t i = 0; !r && i < 3; ++i)
                r = seccomp_syscall_priority(filter, (const int[]){ SCMP_SYS(recvmsg), SCMP_SYS(sendmsg),
                                                                    SCMP_SYS(epoll_wait) }[i], 255);
        if (!r)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return error_fold(r);
}

int sandbox_enter(int *ret_landlock) {
        int r;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return error_origin(-errno);
        /* Its own uid, and so a client that runs as it, gets at neither memory nor descriptors. */
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return error_origin(-errno);
        r = close_filesystem(ret_landlock);
        if (r)
                return error_fold(r);
        return filter_calls();
}
