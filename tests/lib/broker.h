/* A real broker in a private directory, for one test.
 *
 * broker_spawn() starts the daemon from the build directory, as root with a user to become (the
 * sandbox is on as in production), and returns when it said READY=1. broker_stop() ends it with
 * SIGTERM and requires exit status 0 and balanced books: every integration test ends so, which
 * makes each of them a test of the accounting. A test that dies takes its broker along.
 *
 * The broker is alone, which leaves the fewest places to look at when something is wrong, unless the
 * test asks for a keeper. Then the keeper is what is started, waited for and stopped, and all that looks at
 * a process looks at the broker.
 */
#ifndef TESTS_LIB_BROKER_H
#define TESTS_LIB_BROKER_H

#include <stdarg.h>

#include "lib/test.h"

typedef struct Broker {
        pid_t pid;              /* the broker's; with a keeper, of the one that was found last */
        pid_t keeper;           /* 0: it is alone */
        char dir[64];
        char socket[96];
        char log[96];
        off_t log_seen;         /* up to where it was searched for brokers that are ready */
        pid_t minder;           /* kills the broker when the test is gone */
        int minder_fd;
        int notify_fd;          /* what it tells its service manager: datagrams, to be read or not */
} Broker;

typedef struct BrokerOptions {
        const char *config;             /* as for broker_spawn() */
        const char *policy;             /* a policy file, "test.conf" */
        void (*prepare)(void *);        /* runs in the child, as root, before it becomes the daemon */
        void *userdata;
        bool as_nobody;                 /* start it as an ordinary user instead of root */
        bool no_socket;                 /* without --socket: the sockets come otherwise */
        const char *socket;             /* with another socket than DIR/socket */
        bool keeper;                    /* under a keeper, as in production */
        const char *program;            /* another file than the build's shmd */
} BrokerOptions;

/* Starts a broker. config goes on in the section [daemon]: keys before the first header in it
 * are keys of that section. Unless it says how long the helper may take, that is TEST_PATIENCE_MS. */
Broker *broker_spawn(const char *config);
Broker *broker_spawn_with(const BrokerOptions *options);

/* Ends it as an administrator does; requires exit status 0 and balanced books. Return: NULL. */
Broker *broker_stop(Broker *broker);
/* Ends it as the OOM killer does. Its directory stays until broker_forget(). */
void broker_kill(Broker *broker);
/* Removes what is left of a broker that is gone already. Return: NULL. */
Broker *broker_forget(Broker *broker);
/* Waits for a broker that should end by itself. Return: waitpid(2)'s status. */
int broker_wait(Broker *broker);

/* -- with a keeper -- */

/* Ends the broker, and not its keeper, by that signal. */
void broker_signal(Broker *broker, int signal);
/* Waits until there is another broker than broker->pid, and it is ready; it is broker->pid then. */
void broker_await_restart(Broker *broker);
/* Both, with SIGKILL. */
void broker_kill_and_wait_restart(Broker *broker);
/* Has the keeper begin anew with another configuration, and waits until there is a broker of that one: so a broker
 * that was good may be followed by one of which more is asked than of any at a busy time. */
void broker_reconfigure(Broker *broker, const char *config);

/* What the keeper keeps, from its table of names and from /proc, which must agree: a name without a memfd,
 * or a memfd without a name, fails the test. Nobody may be making or removing regions meanwhile. Needs
 * root. *ret: sorted, to be freed. Return: how many. */
size_t broker_kept_names(Broker *broker, char (**ret)[32]);
/* Whether it keeps something of that name. */
bool broker_keeps(Broker *broker, const char *name);
/* Descriptors that the keeper has open. */
size_t broker_keeper_fds(Broker *broker);
/* Waits until it has exactly n. */
void broker_expect_keeper_fds(Broker *broker, size_t n);

/* Runs `shmd ARG...` (NULL at the end) to its end with nothing on standard input. *ret is
 * everything it printed, to be freed. Return: its exit status, or 128 + the signal. */
int shmd_run(char **ret, ...);
/* The same for shmdctl. */
int shmdctl_run(char **ret, ...);

/* A file of that content in the broker's directory; the path is valid until the next call. */
const char *broker_write_file(Broker *broker, const char *name, const char *content);

/* The same for a policy file of that name, which is read at the next start, or by
 * `shmd --compile-policy --policy-root DIR`. */
void broker_write_policy(Broker *broker, const char *name, const char *content);

/* Whether one line of the log contains all the strings (NULL at the end). */
bool broker_log_has(Broker *broker, ...);
/* Waits until it does. */
void broker_expect_log_line(Broker *broker, ...);
#define broker_expect_log(broker, ...) broker_expect_log_line(broker, __VA_ARGS__, NULL)
/* How many lines contain the string. */
size_t broker_log_count(Broker *broker, const char *what);

/* From /proc: descriptors open (0 where nobody may know), resident bytes, processor time used. */
size_t broker_fds(Broker *broker);
size_t broker_rss(Broker *broker);
int64_t broker_cpu_ms(Broker *broker);
/* Requires that no more than that many bytes are resident. With sanitizers nothing is required: they keep
 * what was freed. */
void broker_expect_rss(Broker *broker, size_t most);
/* Waits until the broker has no more than n descriptors. */
void broker_expect_fds(Broker *broker, size_t n);
/* The value of a line of /proc/PID/status ("Seccomp"), valid until the next call. */
const char *broker_status(Broker *broker, const char *key);
bool broker_is_alive(Broker *broker);

#endif
