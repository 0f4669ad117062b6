/* The sandbox: see the header for the model. */

#include "sandbox.h"

#include "buildinfo.h"

#include <errno.h>
#include <cap-ng.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
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
                /* Uid 0 stays, but not the groups of whoever started it. */
                if (uid == 0 && geteuid() == 0 && setgroups(0, NULL) < 0 && errno != EPERM)
                        return error_origin(-errno);
                /* Who was started without any may not be allowed the very call that drops them. */
                if (capng_get_caps_process() == 0 && capng_have_capabilities(CAPNG_SELECT_CAPS) == CAPNG_NONE)
                        return 0;
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

typedef struct Rules {
        const Rule *rules;
        size_t n;
} Rules;

static const Rule broker_rules[] = {
        /* Sockets. */
        { SCMP_SYS(accept4), 0, {} },           /* take a connection */
        { SCMP_SYS(getsockopt), 1, { ARG(1, SCMP_CMP_EQ, SOL_SOCKET) } },       /* who the peer is */
        { SCMP_SYS(setsockopt), 2, { ARG(1, SCMP_CMP_EQ, SOL_SOCKET), ARG(2, SCMP_CMP_EQ, SO_SNDBUF) } },       /* room */
        { SCMP_SYS(recvfrom), 0, {} },          /* requests */
        { SCMP_SYS(recvmsg), 0, {} },           /* ... where descriptors could come with them; what a helper says */
        { SCMP_SYS(sendmsg), 0, {} },           /* answers and descriptors */
        { SCMP_SYS(sendto), 0, {} },            /* the log, when it is a socket, and the service manager */
        { SCMP_SYS(shutdown), 0, {} },          /* end a connection whose other side has not read */
        { SCMP_SYS(socketpair), 1, { ARG(0, SCMP_CMP_EQ, AF_UNIX) } },  /* memfd_collect(), helperlink_enclose() */
        { SCMP_SYS(ioctl), 1, { ARG(1, SCMP_CMP_EQ, SIOCOUTQ) } },              /* what the other side has not read */

        /* Regions. */
        { SCMP_SYS(memfd_create), 0, {} },      /* make one */
        { SCMP_SYS(ftruncate), 0, {} },         /* give it its size */
        { SCMP_SYS(fchmod), 1, { ARG(1, SCMP_CMP_EQ, 0600) } },                 /* keep other uids out */
        { SCMP_SYS(fchmod), 1, { ARG(1, SCMP_CMP_EQ, 0644) } },                 /* or let them watch a doorbell */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_ADD_SEALS) } },           /* seal it */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_GET_SEALS) } },           /* describe it */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_SETLEASE) } },            /* ask whether anybody holds it */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_OFD_SETLK) } },           /* mark a grant */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_OFD_GETLK) } },           /* find the marks that live */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_DUPFD_CLOEXEC) } },       /* keep an answer that has to queue */
        { SCMP_SYS(fallocate), 1, { ARG(1, SCMP_CMP_EQ, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) } },        /* empty it */
        { SCMP_SYS(fallocate), 1, { ARG(1, SCMP_CMP_EQ, 0) } },                 /* let the state grow */
        { SCMP_SYS(openat), 1, { BITS(2, O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY), 0) } },        /* open a grant */
        { SCMP_SYS(close), 0, {} },             /* let it go */

        /* Who let go. */
        { SCMP_SYS(inotify_add_watch), 0, {} }, /* watch a region without a name */
        { SCMP_SYS(inotify_rm_watch), 0, {} },  /* ... until it has one */
        { SCMP_SYS(read), 0, {} },              /* the events, and signals */

        /* Finding out and telling. */
        { SCMP_SYS(write), 0, {} },             /* the log */
        { SCMP_SYS(fstat), 0, {} },             /* the inode number of a peer's pidfd */
        { SCMP_SYS(newfstatat), 0, {} },        /* what libcs make of fstat() */
        { SCMP_SYS(fstatfs), 0, {} },           /* whether that number means anything */
        { SCMP_SYS(getrandom), 0, {} },         /* session numbers */

        /* The loop. */
        { SCMP_SYS(epoll_wait), 0, {} },        /* wait */
        { SCMP_SYS(epoll_pwait), 0, {} },       /* ... as architectures without epoll_wait do */
        { SCMP_SYS(epoll_pwait2), 0, {} },      /* ... as newer libevents do */
        { SCMP_SYS(epoll_ctl), 0, {} },         /* add and remove connections */
        { SCMP_SYS(timerfd_settime), 0, {} },   /* wake up for a deadline */
        { SCMP_SYS(clock_gettime), 0, {} },     /* the time, where the vDSO cannot tell it */
        { SCMP_SYS(gettimeofday), 0, {} },      /* libevent's cached wall clock, likewise */
        { SCMP_SYS(restart_syscall), 0, {} },   /* a wait that SIGSTOP and SIGCONT interrupted */

        /* Memory: never executable. */
        { SCMP_SYS(brk), 0, {} },               /* malloc */
        { SCMP_SYS(mmap), 1, { BITS(2, PROT_EXEC, 0) } },       /* malloc; and huge pages, reserved by mapping them once */
        { SCMP_SYS(munmap), 0, {} },            /* both of them again */
        { SCMP_SYS(mremap), 0, {} },            /* realloc */
        { SCMP_SYS(madvise), 0, {} },           /* free */
        { SCMP_SYS(mprotect), 1, { BITS(2, PROT_EXEC, 0) } },   /* malloc's heaps */

        /* The end. */
        { SCMP_SYS(rt_sigprocmask), 0, {} },    /* abort() */
        { SCMP_SYS(rt_sigaction), 0, {} },      /* abort() */
        { SCMP_SYS(rt_sigreturn), 0, {} },      /* a handler's return, which no filter may forbid */
        { SCMP_SYS(getpid), 0, {} },            /* abort() */
        { SCMP_SYS(gettid), 0, {} },            /* abort() */
        { SCMP_SYS(writev), 0, {} },            /* what libc says of a broken heap, before it aborts */
        { SCMP_SYS(tgkill), 0, {} },            /* abort() */
        { SCMP_SYS(futex), 0, {} },             /* locks of stdio and exit() */
        { SCMP_SYS(exit), 0, {} },              /* a thread's end, of which there is one */
        { SCMP_SYS(exit_group), 0, {} },        /* the end */

#ifdef SHMD_SANITIZERS
        /* The run time of the sanitizers. */
        { SCMP_SYS(prctl), 0, {} },             /* names its maps */
        { SCMP_SYS(sched_yield), 0, {} },       /* its spin locks */
        { SCMP_SYS(sched_getaffinity), 0, {} }, /* sizes its caches */
        { SCMP_SYS(sigaltstack), 0, {} },       /* reports of stack overflows */
        { SCMP_SYS(readlink), 0, {} },          /* finds the program, for a report */
        { SCMP_SYS(lseek), 0, {} },             /* reads it */
        { SCMP_SYS(getrusage), 0, {} },         /* figures in a report */
        { SCMP_SYS(mincore), 0, {} },           /* whether an address may be read */
#endif
};

/* What a worker of the helper may; a filter is added to those above it, so its supervisor may too. */
static const Rule worker_rules[] = {
        { SCMP_SYS(recvmsg), 0, {} },           /* a job */
        { SCMP_SYS(sendmsg), 0, {} },           /* its result */
        { SCMP_SYS(close), 0, {} },             /* let the region go */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_ADD_SEALS) } },           /* a freeze */
        { SCMP_SYS(fcntl), 1, { ARG(1, SCMP_CMP_EQ, F_GET_SEALS) } },           /* whether that was so already */
        { SCMP_SYS(pwrite64), 1, { ARG(2, SCMP_CMP_EQ, 1) } },                  /* one byte */
        { SCMP_SYS(restart_syscall), 0, {} },   /* a wait that SIGSTOP and SIGCONT interrupted */

        /* The end, also by abort(). */
        { SCMP_SYS(write), 1, { ARG(0, SCMP_CMP_EQ, STDERR_FILENO) } },
        { SCMP_SYS(writev), 1, { ARG(0, SCMP_CMP_EQ, STDERR_FILENO) } },
        { SCMP_SYS(rt_sigprocmask), 0, {} },
        { SCMP_SYS(rt_sigaction), 0, {} },
        { SCMP_SYS(rt_sigreturn), 0, {} },
        { SCMP_SYS(getpid), 0, {} },
        { SCMP_SYS(gettid), 0, {} },
        { SCMP_SYS(tgkill), 0, {} },
        { SCMP_SYS(futex), 0, {} },
        { SCMP_SYS(exit_group), 0, {} },

#ifdef SHMD_SANITIZERS
        { SCMP_SYS(mmap), 1, { BITS(2, PROT_EXEC, 0) } },
        { SCMP_SYS(munmap), 0, {} },
        { SCMP_SYS(madvise), 0, {} },
        { SCMP_SYS(sched_yield), 0, {} },
        { SCMP_SYS(sigaltstack), 0, {} },
        { SCMP_SYS(readlink), 0, {} },
        { SCMP_SYS(mincore), 0, {} },
#endif
};

/* What the helper's supervisor may besides. */
static const Rule supervisor_rules[] = {
        { SCMP_SYS(socketpair), 1, { ARG(0, SCMP_CMP_EQ, AF_UNIX) } },          /* a worker's socket */
#ifdef __s390x__
        { SCMP_SYS(clone), 0, {} },             /* its flags are another argument there */
#else
        { SCMP_SYS(clone), 1, { ARG(0, SCMP_CMP_EQ, CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD) } },   /* fork() */
#endif
        { SCMP_SYS(set_robust_list), 0, {} },   /* fork() in the child */
        { SCMP_SYS(rseq), 0, {} },              /* likewise, in some libcs */
        { SCMP_SYS(wait4), 0, {} },             /* a worker has ended */
        { SCMP_SYS(kill), 1, { ARG(1, SCMP_CMP_EQ, SIGKILL) } },                /* a worker takes too long */
        { SCMP_SYS(getppid), 0, {} },           /* a worker whose parent has ended ends too */
        { SCMP_SYS(prctl), 1, { ARG(0, SCMP_CMP_EQ, PR_SET_PDEATHSIG) } },      /* likewise, later */
        { SCMP_SYS(prctl), 1, { ARG(0, SCMP_CMP_EQ, PR_SET_NO_NEW_PRIVS) } },   /* a worker's own filter */
        { SCMP_SYS(seccomp), 0, {} },           /* likewise: a filter can only forbid more */
        { SCMP_SYS(brk), 0, {} },               /* the memory it is put together in */
        { SCMP_SYS(mmap), 1, { BITS(2, PROT_EXEC, 0) } },
        { SCMP_SYS(munmap), 0, {} },
        { SCMP_SYS(mremap), 0, {} },
        { SCMP_SYS(madvise), 0, {} },
        { SCMP_SYS(mprotect), 1, { BITS(2, PROT_EXEC, 0) } },
        { SCMP_SYS(getrandom), 0, {} },         /* malloc's seed */

#ifdef SHMD_SANITIZERS
        { SCMP_SYS(prctl), 0, {} },
        { SCMP_SYS(sched_getaffinity), 0, {} },
#endif
};

/* What neither the keeper nor anything it starts ever needs. A filter is inherited, so its list cannot be
 * of what is allowed: the broker's own filter comes on top of it. These calls fail instead of killing: with
 * the keeper goes all that it keeps. */
static const Rule keeper_rules[] = {
        /* Other processes' memory and descriptors. */
        { SCMP_SYS(ptrace), 0, {} },
        { SCMP_SYS(process_vm_readv), 0, {} },
        { SCMP_SYS(process_vm_writev), 0, {} },
        { SCMP_SYS(process_madvise), 0, {} },
        { SCMP_SYS(pidfd_getfd), 0, {} },
        { SCMP_SYS(kcmp), 0, {} },
        { SCMP_SYS(move_pages), 0, {} },
        { SCMP_SYS(migrate_pages), 0, {} },

        /* Large parts of the kernel that are often wrong. */
        { SCMP_SYS(bpf), 0, {} },
        { SCMP_SYS(perf_event_open), 0, {} },
        { SCMP_SYS(io_uring_setup), 0, {} },
        { SCMP_SYS(io_uring_enter), 0, {} },
        { SCMP_SYS(io_uring_register), 0, {} },
        { SCMP_SYS(userfaultfd), 0, {} },
        { SCMP_SYS(fanotify_init), 0, {} },
        { SCMP_SYS(add_key), 0, {} },
        { SCMP_SYS(request_key), 0, {} },
        { SCMP_SYS(keyctl), 0, {} },
        { SCMP_SYS(open_by_handle_at), 0, {} },
        { SCMP_SYS(personality), 0, {} },
        { SCMP_SYS(vmsplice), 0, {} },
        { SCMP_SYS(modify_ldt), 0, {} },

        /* Namespaces. */
        { SCMP_SYS(unshare), 0, {} },
        { SCMP_SYS(setns), 0, {} },
#ifndef __s390x__
        { SCMP_SYS(clone), 1, { BITS(0, CLONE_NEWNS, CLONE_NEWNS) } },          /* its flags are another argument there */
        { SCMP_SYS(clone), 1, { BITS(0, CLONE_NEWUSER, CLONE_NEWUSER) } },
        { SCMP_SYS(clone), 1, { BITS(0, CLONE_NEWPID, CLONE_NEWPID) } },
        { SCMP_SYS(clone), 1, { BITS(0, CLONE_NEWNET, CLONE_NEWNET) } },
        { SCMP_SYS(clone), 1, { BITS(0, CLONE_NEWIPC, CLONE_NEWIPC) } },
        { SCMP_SYS(clone), 1, { BITS(0, CLONE_NEWUTS, CLONE_NEWUTS) } },
        { SCMP_SYS(clone), 1, { BITS(0, CLONE_NEWCGROUP, CLONE_NEWCGROUP) } },
#endif

        /* The file system as a whole. */
        { SCMP_SYS(mount), 0, {} },
        { SCMP_SYS(umount2), 0, {} },
        { SCMP_SYS(pivot_root), 0, {} },
        { SCMP_SYS(chroot), 0, {} },
        { SCMP_SYS(move_mount), 0, {} },
        { SCMP_SYS(open_tree), 0, {} },
        { SCMP_SYS(fsopen), 0, {} },
        { SCMP_SYS(fsconfig), 0, {} },
        { SCMP_SYS(fsmount), 0, {} },
        { SCMP_SYS(fspick), 0, {} },
        { SCMP_SYS(mount_setattr), 0, {} },
        { SCMP_SYS(mknod), 0, {} },
        { SCMP_SYS(mknodat), 0, {} },
        { SCMP_SYS(quotactl), 0, {} },
        { SCMP_SYS(swapon), 0, {} },
        { SCMP_SYS(swapoff), 0, {} },
        { SCMP_SYS(acct), 0, {} },

        /* The machine. */
        { SCMP_SYS(init_module), 0, {} },
        { SCMP_SYS(finit_module), 0, {} },
        { SCMP_SYS(delete_module), 0, {} },
        { SCMP_SYS(kexec_load), 0, {} },
        { SCMP_SYS(kexec_file_load), 0, {} },
        { SCMP_SYS(reboot), 0, {} },
        { SCMP_SYS(syslog), 0, {} },
        { SCMP_SYS(settimeofday), 0, {} },
        { SCMP_SYS(clock_settime), 0, {} },
        { SCMP_SYS(clock_adjtime), 0, {} },
        { SCMP_SYS(adjtimex), 0, {} },
        { SCMP_SYS(sethostname), 0, {} },
        { SCMP_SYS(setdomainname), 0, {} },
        { SCMP_SYS(iopl), 0, {} },
        { SCMP_SYS(ioperm), 0, {} },
        { SCMP_SYS(vhangup), 0, {} },
};

#define RULES(table) { table, sizeof(table) / sizeof(table[0]) }

/* The two lists of each role; the keeper's are of what it may not. */
static const Rules roles[][2] = {
        [SANDBOX_KEEPER]     = { RULES(keeper_rules) },
        [SANDBOX_BROKER]     = { RULES(broker_rules) },
        [SANDBOX_SUPERVISOR] = { RULES(supervisor_rules), RULES(worker_rules) },
        [SANDBOX_WORKER]     = { RULES(worker_rules) },
};

static int add_rules(scmp_filter_ctx filter, uint32_t action, const Rules *list) {
        int r = 0;

        for (size_t i = 0; !r && i < list->n; ++i)
                r = seccomp_rule_add_array(filter, action, list->rules[i].call, list->rules[i].n,
                                           list->rules[i].args);
        return r;
}

static int filter_calls(SandboxRole role) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
        int r;

        if (!filter)
                return error_origin(-ENOMEM);
        r = add_rules(filter, SCMP_ACT_ALLOW, &roles[role][0]);
        if (!r)
                r = add_rules(filter, SCMP_ACT_ALLOW, &roles[role][1]);
        /* The filter is a program. What it allows whatever the arguments are, the kernel remembers; of the rest, the
         * two calls of every open come first, which else are the last for having conditions. */
        for (size_t i = 0; !r && role == SANDBOX_BROKER && i < 2; ++i)
                r = seccomp_syscall_priority(filter, (const int[]){ SCMP_SYS(openat), SCMP_SYS(fcntl) }[i], 255);
        if (!r)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return error_fold(r);
}

static int forbid_calls(void) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        int r;

        if (!filter)
                return error_origin(-ENOMEM);
        r = add_rules(filter, SCMP_ACT_ERRNO(EPERM), &roles[SANDBOX_KEEPER][0]);
        /* Its flags are behind a pointer; libcs that meet this use clone(). */
        if (!r)
                r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
        /* It runs before the broker's own filter, at each of its calls. */
        if (!r)
                r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        if (!r)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return error_fold(r);
}

#ifdef SHMD_SANITIZERS
/* The leak check at the end would trace this process from another one: neither can be had here. */
const char *__asan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void) {
        return "detect_leaks=0";
}
#endif

int sandbox_enter(SandboxRole role, int *ret_landlock) {
        int r;

        *ret_landlock = 0;
        /* A worker has all of the rest from its supervisor. */
        if (role == SANDBOX_WORKER)
                return filter_calls(role);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return error_origin(-errno);
        /* Its own uid, and so a client that runs as it, gets at neither memory nor descriptors. */
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return error_origin(-errno);
        if (role == SANDBOX_KEEPER)
                return forbid_calls();
        r = close_filesystem(ret_landlock);
        if (r)
                return error_fold(r);
        return filter_calls(role);
}
