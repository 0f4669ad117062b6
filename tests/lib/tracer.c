/* A process that stops at every system call it makes: see the header for the model. */

#include "lib/tracer.h"

#include <errno.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A step that takes longer is a system call that waits. */
#define STEP_NS INT64_C(2000000)

/* As a raw call: linux/ptrace.h and sys/ptrace.h do not go together, and only the former has all of it. */
static long trace(long request, pid_t pid, uintptr_t address, uintptr_t data) {
        return syscall(SYS_ptrace, request, (long)pid, address, data);
}

void tracer_needed(void) {
        int error = 0;
        pid_t pid;

        test_needs_root();
        pid = fork();
        REQUIRE(pid >= 0, "fork: %s", strerror(errno));
        if (pid == 0) {
                test_become(test_broker_uid(), test_broker_uid());
                for (;;)
                        (void)pause();
        }
        if (trace(PTRACE_SEIZE, pid, 0, 0) < 0)
                error = errno;
        (void)kill(pid, SIGKILL);
        (void)test_wait_pid(pid);
        if (error)
                test_skip("needs to trace processes of others: %s", strerror(error));
}

/* Waits for a stop or the end until a time, 0: until it comes. Return: whether it came; then *ret is the
 * status of waitpid(2). */
static bool wait_until(Tracer *tracer, int64_t end, int *ret) {
        for (;;) {
                /* Asked first: who was kept from looking until the time was over still sees what came in it. */
                bool over = end && test_now_ns() >= end;
                pid_t pid = waitpid(tracer->pid, ret, __WALL | (end ? WNOHANG : 0));

                if (pid == tracer->pid)
                        return true;
                REQUIRE(pid == 0 || errno == EINTR, "waitpid: %s", strerror(errno));
                if (over)
                        return false;
                if (pid == 0)
                        (void)sched_yield();
        }
}

static int wait_for(Tracer *tracer) {
        int status;

        (void)wait_until(tracer, 0, &status);
        return status;
}

/* Reads at what place it stands. Return: whether it is one of a system call. */
static bool look(Tracer *tracer) {
        struct ptrace_syscall_info info;
        long n = trace(PTRACE_GET_SYSCALL_INFO, tracer->pid, sizeof(info), (uintptr_t)&info);

        REQUIRE(n > 0, "PTRACE_GET_SYSCALL_INFO: %s", strerror(errno));
        tracer->entered = info.op == PTRACE_SYSCALL_INFO_ENTRY;
        if (tracer->entered)
                tracer->call = (long)info.entry.nr;
        else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
                tracer->result = info.exit.rval;
        return info.op == PTRACE_SYSCALL_INFO_ENTRY || info.op == PTRACE_SYSCALL_INFO_EXIT;
}

void tracer_seize(Tracer *tracer, pid_t pid) {
        int status;

        *tracer = (Tracer){ .pid = pid, .call = -1, .stands = true };
        REQUIRE(trace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD) == 0, "PTRACE_SEIZE: %s", strerror(errno));
        REQUIRE(trace(PTRACE_INTERRUPT, pid, 0, 0) == 0, "PTRACE_INTERRUPT: %s", strerror(errno));
        status = wait_for(tracer);
        REQUIRE(WIFSTOPPED(status), "the process ended with status %#x", status);
        if (status >> 16 != PTRACE_EVENT_STOP)
                tracer->signal = WSTOPSIG(status);
}

void tracer_expect_child(pid_t parent) {
        REQUIRE(trace(PTRACE_SEIZE, parent, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE) == 0,
                "PTRACE_SEIZE: %s", strerror(errno));
}

/* A child of what is traced is traced too, with the same options. */
void tracer_seize_child(Tracer *tracer, pid_t parent) {
        Tracer above = { .pid = parent };
        unsigned long child = 0;
        int status;

        REQUIRE(wait_until(&above, test_now_ns() + TEST_PATIENCE_MS * INT64_C(1000000), &status), "nothing is forked");
        REQUIRE(WIFSTOPPED(status) && status >> 16 != 0, "status %#x instead of a fork", status);
        REQUIRE(trace(PTRACE_GETEVENTMSG, parent, 0, (uintptr_t)&child) == 0 && child > 0);
        *tracer = (Tracer){ .pid = (pid_t)child, .call = -1, .stands = true };
        REQUIRE(WIFSTOPPED(wait_for(tracer)), "the child ended");
        REQUIRE(trace(PTRACE_SETOPTIONS, tracer->pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
        REQUIRE(trace(PTRACE_DETACH, parent, 0, 0) == 0, "PTRACE_DETACH: %s", strerror(errno));
}

void tracer_go(Tracer *tracer) {
        int signal = tracer->signal;

        tracer->signal = 0;
        tracer->stands = false;
        REQUIRE(trace(PTRACE_SYSCALL, tracer->pid, 0, (uintptr_t)signal) == 0 || errno == ESRCH, "PTRACE_SYSCALL: %s",
                strerror(errno));
}

static bool arrive_until(Tracer *tracer, int64_t end) {
        int status;

        while (wait_until(tracer, end, &status)) {
                if (!WIFSTOPPED(status)) {
                        tracer->pid = 0;
                        return false;
                }
                if (WSTOPSIG(status) == (SIGTRAP | 0x80) && look(tracer))
                        return tracer->stands = true;
                if (status >> 16 == 0 && WSTOPSIG(status) != (SIGTRAP | 0x80))
                        tracer->signal = WSTOPSIG(status);
                tracer_go(tracer);
        }
        return false;
}

bool tracer_arrive(Tracer *tracer) {
        return arrive_until(tracer, 0);
}

bool tracer_arrive_within(Tracer *tracer, int ms) {
        return arrive_until(tracer, test_now_ns() + ms * INT64_C(1000000));
}

void tracer_step(Tracer *tracer, unsigned int n) {
        int status;

        while (n-- > 0) {
                int signal = tracer->signal;

                tracer->signal = 0;
                tracer->stands = false;
                REQUIRE(trace(PTRACE_SINGLESTEP, tracer->pid, 0, (uintptr_t)signal) == 0, "PTRACE_SINGLESTEP: %s",
                        strerror(errno));
                if (!wait_until(tracer, test_now_ns() + STEP_NS, &status))
                        return;
                REQUIRE(WIFSTOPPED(status), "the process ended with status %#x", status);
                tracer->stands = true;
                if (status >> 16 == 0 && WSTOPSIG(status) != SIGTRAP)
                        tracer->signal = WSTOPSIG(status);
        }
}

void tracer_kill(Tracer *tracer) {
        int status;

        REQUIRE(kill(tracer->pid, SIGKILL) == 0, "kill: %s", strerror(errno));
        do
                status = wait_for(tracer);
        while (WIFSTOPPED(status));
        tracer->pid = 0;
}

void tracer_release(Tracer *tracer) {
        if (!tracer->stands) {
                REQUIRE(trace(PTRACE_INTERRUPT, tracer->pid, 0, 0) == 0, "PTRACE_INTERRUPT: %s", strerror(errno));
                REQUIRE(WIFSTOPPED(wait_for(tracer)), "the process ended");
        }
        REQUIRE(trace(PTRACE_DETACH, tracer->pid, 0, (uintptr_t)tracer->signal) == 0, "PTRACE_DETACH: %s",
                strerror(errno));
        tracer->pid = 0;
}

const char *tracer_call_name(long call) {
        static char name[64];
        char *resolved = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)call);

        (void)snprintf(name, sizeof(name), "%s", resolved ? resolved : "unknown");
        free(resolved);
        return name;
}
