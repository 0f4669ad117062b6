/* Actors: see the header for the model. */

#include "demo/actor.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

volatile int actor_interrupted;

/* A process that changed its uid without an execve(2) is not dumpable, and its own files below
 * /proc/self are root's. That would refuse attempts for a reason that has nothing to do with
 * shared memory, so that it is set back. */
static bool become(uid_t uid, gid_t gid) {
        if (uid == (uid_t)-1)
                return true;

        return !setgroups(0, NULL) && !setresgid(gid, gid, gid) && !setresuid(uid, uid, uid) &&
               !prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* The signal that follows the director's death is forgotten when the uid changes: ask for it
 * after that. */
__attribute__((noreturn)) static void play(int control, uid_t uid, gid_t gid, ActorFn fn, void *userdata) {
        Report report = { .last = true, .text = "the actor could not take its uid" };

        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        signal(SIGPIPE, SIG_IGN);
        if (become(uid, gid) && !prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
                fn(control, userdata);
        else
                actor_report(control, &report);
        fflush(NULL);
        _exit(0);
}

bool actor_start(Actor *actor, uid_t uid, gid_t gid, ActorFn fn, void *userdata) {
        int pair[2];
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
                return false;

        /* Not into *actor, which the child may share. */
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                (void)close(pair[0]);
                play(pair[1], uid, gid, fn, userdata);
        }

        (void)close(pair[1]);
        if (pid < 0) {
                (void)close(pair[0]);
                return false;
        }
        actor->pid = pid;
        actor->control = pair[0];
        return true;
}

void actor_cue(Actor *actor, char cue) {
        (void)send(actor->control, &cue, 1, MSG_NOSIGNAL);
}

/* Waits until the descriptor is readable, in short naps so that an interruption is noticed even
 * if its signal came just before. */
static bool wait_readable(int fd, int patience_ms) {
        struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

        for (int waited = 0; waited < patience_ms && !actor_interrupted; waited += 100)
                if (poll(&poll_fd, 1, 100) > 0)
                        return true;
        return false;
}

bool actor_hear(Actor *actor, Report *report) {
        ssize_t n;

        memset(report, 0, sizeof(*report));
        report->last = true;
        if (actor->control < 0 || !wait_readable(actor->control, ACTOR_PATIENCE_MS)) {
                snprintf(report->text, sizeof(report->text), "an actor said nothing for too long");
                return false;
        }

        n = recv(actor->control, report, sizeof(*report), 0);
        if (n != (ssize_t)sizeof(*report)) {
                *report = (Report){ .last = true, .text = "an actor died unexpectedly" };
                return false;
        }
        return true;
}

bool actor_is_silent(const Actor *actor) {
        struct pollfd poll_fd = { .fd = actor->control, .events = POLLIN };

        return actor->control >= 0 && poll(&poll_fd, 1, 0) == 0;
}

static int reap(Actor *actor) {
        int status = -1;

        while (actor->pid > 0 && waitpid(actor->pid, &status, 0) < 0 && errno == EINTR)
                ;
        actor->pid = -1;
        actor->control = close_fd(actor->control);
        return status;
}

void actor_kill(Actor *actor) {
        if (actor->pid > 0)
                (void)kill(actor->pid, SIGKILL);
        (void)reap(actor);
}

/* The actor's end of the socket closes with it, so that its end reads like a report. */
bool actor_end(Actor *actor) {
        if (actor->pid <= 0)
                return false;

        (void)shutdown(actor->control, SHUT_WR);
        if (!wait_readable(actor->control, ACTOR_PATIENCE_MS))
                (void)kill(actor->pid, SIGKILL);
        return reap(actor) == 0;
}

char actor_await(int control) {
        char cue;

        if (recv(control, &cue, 1, 0) != 1)
                _exit(0);
        return cue;
}

void actor_report(int control, const Report *report) {
        (void)send(control, report, sizeof(*report), MSG_NOSIGNAL);
}
