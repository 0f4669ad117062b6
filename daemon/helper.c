/* The helper's processes: see the header for the model. */

#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox.h"
#include "util/error.h"
#include "util/helperlink.h"

/* -- a worker --------------------------------------------------------------------------- */

/* Seals that are there already are as good as added: a job whose answer got lost is done again. */
static int add_seals(int fd, uint32_t seals) {
        int there;

        if (fcntl(fd, F_ADD_SEALS, (int)seals) == 0)
                return 0;
        if (errno != EPERM)
                return -errno;
        there = fcntl(fd, F_GET_SEALS);
        return there >= 0 && ((uint32_t)there & seals) == seals ? 0 : -EPERM;
}

static int poke(int fd, uint64_t offset, uint8_t byte) {
        ssize_t n = pwrite(fd, &byte, 1, (off_t)offset);

        return n == 1 ? 0 : n < 0 ? -errno : -EIO;
}

static int do_job(const HelperPacket *job, int fd) {
        switch (job->op) {
        case HELPER_SEAL:
                return add_seals(fd, job->seals);
        case HELPER_POKE:
                return poke(fd, job->offset, (uint8_t)job->byte);
        case HELPER_BURY:
                return helperlink_close_enclosed(fd);
        default:
                return -EINVAL;
        }
}

/* Ends with the process that forked it, also if that has happened already. */
static bool end_with(pid_t parent) {
        return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent;
}

__attribute__((noreturn))
static void work(int link, pid_t supervisor) {
        HelperPacket packet;
        int fd, landlock;

        if (!end_with(supervisor) || sandbox_enter(SANDBOX_WORKER, &landlock))
                _exit(1);
        while (helperlink_receive(link, true, &packet, &fd) == 0) {
                packet.result = do_job(&packet, fd);
                packet.op = HELPER_DONE;
                /* What is answered has been let go of. */
                fd = close_fd(fd);
                if (helperlink_send(link, &packet, -1))
                        break;
        }
        _exit(0);
}

/* -- the supervisor --------------------------------------------------------------------- */

typedef struct Supervisor {
        int control;
        pid_t pid;
        pid_t workers[HELPER_PROCESSES_MAX];    /* 0: free */
} Supervisor;

/* Only what it forked itself, and has not waited for, is killed by number. */
static pid_t *find_worker(Supervisor *supervisor, int64_t pid) {
        for (size_t i = 0; i < HELPER_PROCESSES_MAX; ++i)
                if (supervisor->workers[i] == pid)
                        return &supervisor->workers[i];
        return NULL;
}

static int fork_worker(Supervisor *supervisor, pid_t *slot, int *ret_link) {
        CLEANUP(close_fdp) int ours = -1, theirs = -1;
        int pair[2];
        pid_t pid;

        if (!slot)
                return -EAGAIN;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        ours = pair[0];
        theirs = pair[1];
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                (void)close(supervisor->control);
                (void)close(ours);
                work(theirs, supervisor->pid);
        }
        *slot = pid;
        *ret_link = steal_fd(&ours);
        return 0;
}

static int spawn(Supervisor *supervisor) {
        HelperPacket packet = { .op = HELPER_WORKER };
        CLEANUP(close_fdp) int link = -1;
        pid_t *slot = find_worker(supervisor, 0);

        packet.result = fork_worker(supervisor, slot, &link);
        if (packet.result == 0)
                packet.pid = *slot;
        return helperlink_send(supervisor->control, &packet, link);
}

static void reap(pid_t *worker) {
        if (!worker || *worker == 0)
                return;
        /* Its socket has ended, so it is past all that could take long. */
        (void)waitpid(*worker, NULL, 0);
        *worker = 0;
}

static int obey(Supervisor *supervisor, const HelperPacket *packet) {
        pid_t *worker = find_worker(supervisor, packet->pid);

        switch (packet->op) {
        case HELPER_SPAWN:
                return spawn(supervisor);
        case HELPER_KILL:
                if (worker && *worker > 0)
                        (void)kill(*worker, SIGKILL);
                return 0;
        case HELPER_REAP:
                reap(worker);
                return 0;
        default:
                return -EINVAL;
        }
}

/* Everything but the socket and the standard descriptors goes. */
static bool close_others(int keep) {
        return (keep <= 3 || close_range(3, (unsigned int)keep - 1, 0) == 0) &&
               close_range((unsigned int)keep + 1, UINT_MAX, 0) == 0;
}

__attribute__((noreturn))
static void supervise(int control, pid_t broker) {
        Supervisor supervisor = { .control = control, .pid = getpid() };
        HelperPacket packet;
        int fd, landlock;

        (void)prctl(PR_SET_NAME, "shmd-helper", 0, 0, 0);
        /* The broker lets the kernel reap for it; here the number of a child must stay its own. */
        (void)signal(SIGCHLD, SIG_DFL);
        if (!end_with(broker) || !close_others(control) || sandbox_enter(SANDBOX_SUPERVISOR, &landlock) ||
            helperlink_send(control, &(HelperPacket){ .op = HELPER_READY }, -1))
                _exit(1);
        while (helperlink_receive(control, true, &packet, &fd) == 0) {
                fd = close_fd(fd);
                if (obey(&supervisor, &packet))
                        break;
        }
        _exit(0);
}

/* What it inherited has to be closed before the broker serves: the listening socket must end with the
 * broker, however early that is. */
static int await_supervisor(int control) {
        HelperPacket packet;
        int fd, r;

        r = helperlink_receive(control, true, &packet, &fd);
        if (r)
                return r < 0 ? error_fold(r) : error_origin(-ECHILD);
        (void)close_fd(fd);
        return packet.op == HELPER_READY ? 0 : error_origin(-EBADMSG);
}

int helper_start(int *ret) {
        CLEANUP(close_fdp) int ours = -1, theirs = -1;
        pid_t broker = getpid(), pid;
        int pair[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return error_origin(-errno);
        ours = pair[0];
        theirs = pair[1];
        pid = fork();
        if (pid < 0)
                return error_origin(-errno);
        if (pid == 0) {
                (void)close(ours);
                supervise(steal_fd(&theirs), broker);
        }
        theirs = close_fd(theirs);
        r = await_supervisor(ours);
        if (r)
                return error_fold(r);
        *ret = steal_fd(&ours);
        return 0;
}
