/* A process that stops at every system call it makes, so that a test can end it there.
 *
 * The tracer is ptrace(2) without what changes the process: it is seized, not attached to, gets no
 * signal that is not its own, and runs on undisturbed when it is let go. It may be anybody's child,
 * and of another user: that takes CAP_SYS_PTRACE. A call has two places to stop at, when the process
 * has asked for it and the kernel has done nothing yet, and when it is done and the process does not
 * know yet; between the end of one and the beginning of the next it runs its own code.
 */
#ifndef TESTS_LIB_TRACER_H
#define TESTS_LIB_TRACER_H

#include "lib/test.h"

typedef struct Tracer {
        pid_t pid;              /* 0: none */
        bool stands;
        int signal;             /* to be given to it when it goes on */
        long call;              /* of the latest stop: the number of the call */
        bool entered;           /* it begins; false: it is over */
        int64_t result;         /* of one that is over */
} Tracer;

#define TRACER_NULL { .pid = 0 }

/* Skips the test where this one may trace nobody else's processes, or the kernel cannot say at what
 * call a process stands (Linux 5.3). */
void tracer_needed(void);

/* Stops a process, wherever it is. */
void tracer_seize(Tracer *tracer, pid_t pid);
/* Has a process that will fork stop at that, and nothing else. */
void tracer_expect_child(pid_t parent);
/* Waits until it has, lets it run on, and stops its child where that begins. */
void tracer_seize_child(Tracer *tracer, pid_t parent);
/* Lets it go on to the next place, without waiting for it to arrive. */
void tracer_go(Tracer *tracer);
/* Waits until it is there. Return: false if it ended instead; then it is reaped and let go. */
bool tracer_arrive(Tracer *tracer);
/* The same, for so long. Return: false if it is still on its way, or ended. */
bool tracer_arrive_within(Tracer *tracer, int ms);
/* Lets it go on by so many instructions, or until it waits in a system call. */
void tracer_step(Tracer *tracer, unsigned int n);
/* Ends it with SIGKILL where it stands, and waits until it is gone. */
void tracer_kill(Tracer *tracer);
/* Lets it run on, wherever it is. */
void tracer_release(Tracer *tracer);

/* Return: the name of a system call, static. */
const char *tracer_call_name(long call);

#endif
