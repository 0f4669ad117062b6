/* A real broker in a private directory: see the header for the model. */

#include "lib/broker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "buildinfo.h"

static char *read_file(const char *path) {
        char *text = NULL;
        size_t n = 0, room = 0;
        FILE *file = fopen(path, "re");

        if (!file)
                return NULL;
        do {
                room = room ? room * 2 : 4096;
                text = realloc(text, room);
                REQUIRE(text);
                n += fread(text + n, 1, room - n - 1, file);
        } while (n == room - 1);
        (void)fclose(file);
        text[n] = 0;
        return text;
}

const char *broker_write_file(Broker *broker, const char *name, const char *content) {
        static char path[128];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/%s", broker->dir, name);
        file = fopen(path, "we");
        REQUIRE(file, "%s: %s", path, strerror(errno));
        REQUIRE(fputs(content, file) >= 0 && fclose(file) == 0);
        return path;
}

void broker_write_policy(Broker *broker, const char *name, const char *content) {
        char path[128];

        for (size_t i = 0; i < 3; ++i) {
                (void)snprintf(path, sizeof(path), "%s/%s", broker->dir,
                               (const char *[]){ "run", "run/shmd", "run/shmd/policy.d" }[i]);
                REQUIRE(mkdir(path, 0755) == 0 || errno == EEXIST);
        }
        (void)snprintf(path, sizeof(path), "run/shmd/policy.d/%s", name);
        (void)broker_write_file(broker, path, content);
}

/* The process that the test started. */
static pid_t process(const Broker *broker) {
        return broker->keeper ? broker->keeper : broker->pid;
}

/* What becomes of the broker and its directory when the test dies in the middle. */
static void minder_start(Broker *broker) {
        int fds[2];

        REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
        broker->minder = fork();
        REQUIRE(broker->minder >= 0);
        if (broker->minder == 0) {
                char byte;

                for (int fd = 0; fd < 4096; ++fd)
                        if (fd != fds[0])
                                (void)close(fd);
                (void)setsid();
                if (read(fds[0], &byte, 1) == 1)
                        _exit(0);
                /* A broker ends with its keeper. */
                (void)kill(process(broker), SIGKILL);
                (void)test_remove_tree(broker->dir);
                _exit(0);
        }
        close_fd(fds[0]);
        broker->minder_fd = fds[1];
}

static void minder_stop(Broker *broker) {
        if (broker->minder > 0) {
                REQUIRE(write(broker->minder_fd, "", 1) == 1);
                (void)test_wait_pid(broker->minder);
        }
        broker->minder = 0;
        broker->minder_fd = close_fd(broker->minder_fd);
}

static int notify_socket(Broker *broker) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", broker->dir);
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        REQUIRE(fd >= 0);
        REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s", strerror(errno));
        REQUIRE(chmod(address.sun_path, 0666) == 0);
        return fd;
}

static void execute(Broker *broker, const BrokerOptions *options, const char *config) {
        const char *argv[] = { "shmd", "--config", config, "--policy-root", broker->dir, NULL, NULL, NULL, NULL };
        const char *program = options->program ? options->program : test_program("shmd");
        size_t n = 5;

        if (!options->no_socket) {
                argv[n++] = "--socket";
                argv[n++] = broker->socket;
        }
        if (!options->keeper)
                argv[n++] = "--no-keeper";
        (void)execv(program, (char **)argv);
        fprintf(stderr, "cannot run %s: %s\n", program, strerror(errno));
        _exit(127);
}

static void become_daemon(Broker *broker, const BrokerOptions *options, const char *config) {
        char notify[128];
        sigset_t none;
        int log;

        log = open(broker->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        REQUIRE(log >= 0 && dup2(log, 1) == 1 && dup2(log, 2) == 2);
        (void)close(0);
        REQUIRE(open("/dev/null", O_RDONLY) == 0);

        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)snprintf(notify, sizeof(notify), "%s/notify", broker->dir);
        (void)setenv("NOTIFY_SOCKET", notify, 1);
        if (!options->no_socket) {
                (void)unsetenv("LISTEN_FDS");
                (void)unsetenv("LISTEN_PID");
        }
        for (int fd = 3; fd < 1024; ++fd) {
                int flags = fcntl(fd, F_GETFD);

                if (flags >= 0)
                        (void)fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
        }
        if (options->prepare)
                options->prepare(options->userdata);
        if (options->as_nobody && geteuid() == 0)
                REQUIRE(setgid(test_broker_uid()) == 0 && setuid(test_broker_uid()) == 0);

        execute(broker, options, config);
}

/* Waits for READY=1 or for the daemon's end. */
static void wait_until_ready(Broker *broker, int notify) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        char text[512];
        ssize_t n;

        for (;;) {
                struct pollfd p = { .fd = notify, .events = POLLIN };
                int status;

                if (poll(&p, 1, 20) == 1) {
                        n = recv(notify, text, sizeof(text) - 1, MSG_DONTWAIT);
                        text[n > 0 ? n : 0] = 0;
                        if (strstr(text, "READY=1"))
                                return;
                }
                if (waitpid(process(broker), &status, WNOHANG) == process(broker)) {
                        char *log = read_file(broker->log);

                        broker->pid = broker->keeper = 0;
                        test_fail(__FILE__, __LINE__, "the broker starts", " it ended with status %#x and said:\n%s",
                                  status, log ? log : "");
                }
                REQUIRE(test_now_ms() < end, "the broker is not ready");
        }
}

static void write_config(const char *path, const char *config, bool as_nobody) {
        FILE *file = fopen(path, "we");

        REQUIRE(file, "%s: %s", path, strerror(errno));
        fprintf(file, "[daemon]\n");
        if (geteuid() == 0 && !as_nobody)
                fprintf(file, "user = %u\n", test_broker_uid());
        fprintf(file, "%s\n", config ? config : "");
        /* Who freezes is refused when the helper is late, which it may be where many processes wait for their turn. */
        if (!config || !strstr(config, "helper ="))
                fprintf(file, "[time]\nhelper = %dms\n", TEST_PATIENCE_MS);
        REQUIRE(fclose(file) == 0);
}

Broker *broker_spawn_with(const BrokerOptions *options) {
        Broker *broker = calloc(1, sizeof(*broker));
        char config[128];
        pid_t pid;
        int notify;

        REQUIRE(broker);
        (void)snprintf(broker->dir, sizeof(broker->dir), "%s/shmd-test-XXXXXX", "/tmp");
        REQUIRE(mkdtemp(broker->dir), "%s", strerror(errno));
        REQUIRE(chmod(broker->dir, options->as_nobody ? 0777 : 0755) == 0);
        (void)snprintf(broker->socket, sizeof(broker->socket), "%s",
                       options->socket ? options->socket : "");
        if (!options->socket)
                (void)snprintf(broker->socket, sizeof(broker->socket), "%s/socket", broker->dir);
        (void)snprintf(broker->log, sizeof(broker->log), "%s/log", broker->dir);
        broker->minder_fd = broker->notify_fd = -1;

        (void)snprintf(config, sizeof(config), "%s/shmd.conf", broker->dir);
        write_config(config, options->config, options->as_nobody);

        if (options->policy)
                broker_write_policy(broker, "test.conf", options->policy);

        notify = notify_socket(broker);
        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0)
                become_daemon(broker, options, config);
        *(options->keeper ? &broker->keeper : &broker->pid) = pid;
        minder_start(broker);
        wait_until_ready(broker, notify);
        broker->notify_fd = notify;
        if (options->keeper)
                broker_await_restart(broker);
        return broker;
}

Broker *broker_spawn(const char *config) {
        return broker_spawn_with(&(BrokerOptions){ .config = config });
}

int broker_wait(Broker *broker) {
        int status = test_wait_pid(process(broker));

        broker->pid = broker->keeper = 0;
        return status;
}

Broker *broker_forget(Broker *broker) {
        minder_stop(broker);
        broker->notify_fd = close_fd(broker->notify_fd);
        (void)test_remove_tree(broker->dir);
        free(broker);
        return NULL;
}

Broker *broker_stop(Broker *broker) {
        bool balanced;
        int status;

        REQUIRE(broker_is_alive(broker), "the broker ended before it was told to");
        REQUIRE(kill(process(broker), SIGTERM) == 0);
        status = broker_wait(broker);
        balanced = broker_log_has(broker, "event=stopped", "books=balanced", NULL);
        if (status != 0 || !balanced) {
                char *log = read_file(broker->log);

                test_fail(__FILE__, __LINE__, "a clean end with balanced books", " status %#x, log:\n%.800s", status,
                          log ? (strlen(log) > 800 ? log + strlen(log) - 800 : log) : "");
        }
        return broker_forget(broker);
}

void broker_kill(Broker *broker) {
        REQUIRE(kill(process(broker), SIGKILL) == 0);
        (void)broker_wait(broker);
}

bool broker_is_alive(Broker *broker) {
        siginfo_t info = { 0 };

        if (process(broker) <= 0)
                return false;
        return waitid(P_PID, (id_t)process(broker), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

/* -- with a keeper ------------------------------------------------------------------------ */

void broker_signal(Broker *broker, int signal) {
        REQUIRE(broker->keeper && broker->pid > 0);
        REQUIRE(kill(broker->pid, signal) == 0, "%s", strerror(errno));
}

/* The broker that was ready last, as what came to the keeper's log since the last look has it; 0: none. */
static pid_t last_ready(Broker *broker) {
        static const char event[] = "event=broker-ready pid=";
        char text[16384];
        pid_t pid = 0;
        ssize_t n;
        int fd;

        fd = open(broker->log, O_RDONLY | O_CLOEXEC);
        REQUIRE(fd >= 0, "%s: %s", broker->log, strerror(errno));
        while ((n = pread(fd, text, sizeof(text) - 1, broker->log_seen)) > 0) {
                char *at = text, *end;

                text[n] = '\0';
                for (; (end = strchr(at, '\n')); at = end + 1) {
                        char *found = strstr(at, event);

                        if (found && found < end)
                                pid = (pid_t)strtol(found + sizeof(event) - 1, NULL, 10);
                }
                if (at == text)
                        break;
                broker->log_seen += at - text;
        }
        close_fd(fd);
        return pid;
}

void broker_await_restart(Broker *broker) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        pid_t pid;

        REQUIRE(broker->keeper);
        while ((pid = last_ready(broker)) == broker->pid || pid == 0) {
                REQUIRE(broker_is_alive(broker), "the keeper has ended");
                REQUIRE(test_now_ms() < end, "no other broker is ready");
                test_sleep_ms(1);
        }
        broker->pid = pid;
}

void broker_kill_and_wait_restart(Broker *broker) {
        broker_signal(broker, SIGKILL);
        broker_await_restart(broker);
}

/* Brokers of the old configuration may come and go until the keeper begins anew; what they are told of is passed. */
void broker_reconfigure(Broker *broker, const char *config) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        size_t n_before;
        char path[128], *log, *at;

        (void)snprintf(path, sizeof(path), "%s/shmd.conf", broker->dir);
        write_config(path, config, false);
        log = read_file(broker->log);
        REQUIRE(log, "%s: %s", broker->log, strerror(errno));
        n_before = strlen(log);
        REQUIRE(kill(broker->keeper, SIGHUP) == 0, "%s", strerror(errno));
        do {
                REQUIRE(test_now_ms() < end, "the keeper did not begin anew");
                test_sleep_ms(1);
                free(log);
                log = read_file(broker->log);
                at = log && strlen(log) > n_before ? strstr(log + n_before, "event=upgrade ") : NULL;
                at = at ? strstr(at, "event=broker-started ") : NULL;
        } while (!at);
        broker->log_seen = at - log;
        broker->pid = 0;
        free(log);
        broker_await_restart(broker);
}

static bool leads_to(Broker *broker, const char *fd, const char *target) {
        char path[300], link[128];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)broker->keeper, fd);
        n = readlink(path, link, sizeof(link) - 1);
        link[n > 0 ? n : 0] = '\0';
        return !strncmp(link, target, strlen(target));
}

static DIR *keeper_descriptors(Broker *broker) {
        char path[64];
        DIR *dir;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)broker->keeper);
        dir = opendir(path);
        REQUIRE(dir, "%s: %s", path, strerror(errno));
        return dir;
}

/* Opens the keeper's table of names; name n is that of its descriptor n. */
static int open_names(Broker *broker) {
        DIR *dir = keeper_descriptors(broker);
        const struct dirent *entry;
        char path[300];
        int fd = -1;

        while (fd < 0 && (entry = readdir(dir)))
                if (leads_to(broker, entry->d_name, "/memfd:shmd-names")) {
                        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)broker->keeper, entry->d_name);
                        fd = open(path, O_RDONLY | O_CLOEXEC);
                }
        (void)closedir(dir);
        REQUIRE(fd >= 0, "the keeper has no names");
        return fd;
}

static int compare_names(const void *a, const void *b) {
        return strcmp(a, b);
}

typedef struct Names {
        char (*names)[32];
        size_t n, room;
        char why[128];          /* the table and the descriptors do not agree */
} Names;

static void names_add(Names *names, const char name[32]) {
        if (names->n == names->room) {
                names->room = names->room ? 2 * names->room : 64;
                names->names = realloc(names->names, names->room * sizeof(*names->names));
                REQUIRE(names->names);
        }
        memcpy(names->names[names->n++], name, sizeof(*names->names));
}

static void read_names(Broker *broker, int table, Names *names) {
        struct stat st;

        REQUIRE(fstat(table, &st) == 0);
        for (off_t at = 0; at < st.st_size; at += 32) {
                char name[32], fd[16];

                REQUIRE(pread(table, name, sizeof(name), at) == (ssize_t)sizeof(name));
                if (!*name)
                        continue;
                (void)snprintf(fd, sizeof(fd), "%d", (int)(at / 32));
                if (!leads_to(broker, fd, "/memfd:"))
                        (void)snprintf(names->why, sizeof(names->why), "%.32s is kept as %s, which is no memfd", name,
                                       fd);
                names_add(names, name);
        }
}

static void look_for_nameless(Broker *broker, int table, Names *names) {
        DIR *dir = keeper_descriptors(broker);
        const struct dirent *entry;

        while ((entry = readdir(dir))) {
                char name[32] = "";

                if (!leads_to(broker, entry->d_name, "/memfd:") ||
                    leads_to(broker, entry->d_name, "/memfd:shmd-names"))
                        continue;
                if (pread(table, name, sizeof(name), 32 * strtol(entry->d_name, NULL, 10)) <= 0 || !*name)
                        (void)snprintf(names->why, sizeof(names->why),
                                       "the keeper has descriptor %.16s, which has no name", entry->d_name);
        }
        (void)closedir(dir);
}

/* From a descriptor to its name it is a few instructions of the keeper's: it may be looked at in between. */
size_t broker_kept_names(Broker *broker, char (**ret)[32]) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        Names names = { .n = 0 };

        for (;;) {
                int table = open_names(broker);

                names.n = 0;
                names.why[0] = '\0';
                read_names(broker, table, &names);
                look_for_nameless(broker, table, &names);
                close_fd(table);
                if (!names.why[0])
                        break;
                REQUIRE(test_now_ms() < end, "%s", names.why);
                test_sleep_ms(1);
        }
        if (names.n)
                qsort(names.names, names.n, sizeof(*names.names), compare_names);
        *ret = names.names;
        return names.n;
}

bool broker_keeps(Broker *broker, const char *name) {
        char (*names)[32];
        size_t n = broker_kept_names(broker, &names);
        bool found = n && bsearch(name, names, n, sizeof(*names), compare_names);

        free(names);
        return found;
}

size_t broker_keeper_fds(Broker *broker) {
        DIR *dir = keeper_descriptors(broker);
        size_t n = 0;

        while (readdir(dir))
                ++n;
        (void)closedir(dir);
        return n - 2;
}

/* -- programs ------------------------------------------------------------------------------ */

#define ARGUMENTS_MAX 16

static int program_run(char **ret, char *argv[ARGUMENTS_MAX], va_list args) {
        char path[] = "/tmp/shmd-test-output-XXXXXX";
        int fd, status, n = 1;
        pid_t pid;

        while ((argv[n] = va_arg(args, char *)))
                REQUIRE(++n < ARGUMENTS_MAX - 1);

        fd = mkostemp(path, O_CLOEXEC);
        REQUIRE(fd >= 0);
        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                (void)close(0);
                REQUIRE(open("/dev/null", O_RDONLY) == 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2);
                (void)unsetenv("NOTIFY_SOCKET");
                (void)execv(test_program(argv[0]), argv);
                _exit(127);
        }
        status = test_wait_pid(pid);
        *ret = read_file(path);
        (void)unlink(path);
        close_fd(fd);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int shmd_run(char **ret, ...) {
        char *argv[ARGUMENTS_MAX] = { (char *)"shmd" };
        va_list args;
        int r;

        va_start(args, ret);
        r = program_run(ret, argv, args);
        va_end(args);
        return r;
}

int shmdctl_run(char **ret, ...) {
        char *argv[ARGUMENTS_MAX] = { (char *)"shmdctl" };
        va_list args;
        int r;

        va_start(args, ret);
        r = program_run(ret, argv, args);
        va_end(args);
        return r;
}

static bool line_has(const char *line, size_t n, va_list args) {
        const char *what;

        while ((what = va_arg(args, const char *)))
                if (!memmem(line, n, what, strlen(what)))
                        return false;
        return true;
}

static bool log_has(Broker *broker, va_list args) {
        CLEANUP(freep) char *log = read_file(broker->log);
        bool found = false;

        for (char *line = log; line && *line && !found;) {
                size_t n = strcspn(line, "\n");
                va_list copy;

                va_copy(copy, args);
                found = line_has(line, n, copy);
                va_end(copy);
                line += n + (line[n] != 0);
        }
        return found;
}

bool broker_log_has(Broker *broker, ...) {
        va_list args;
        bool found;

        va_start(args, broker);
        found = log_has(broker, args);
        va_end(args);
        return found;
}

void broker_expect_log_line(Broker *broker, ...) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        bool found;

        do {
                va_list args;

                va_start(args, broker);
                found = log_has(broker, args);
                va_end(args);
                if (!found)
                        test_sleep_ms(2);
        } while (!found && test_now_ms() < end && broker_is_alive(broker));
        if (!found) {
                CLEANUP(freep) char *log = read_file(broker->log);
                va_list args;

                va_start(args, broker);
                const char *first = va_arg(args, const char *), *second = va_arg(args, const char *);
                va_end(args);
                test_fail(__FILE__, __LINE__, "the log has a line", " with \"%s\" and \"%s\"; its end is:\n%s", first,
                          second ? second : "", log && strlen(log) > 600 ? log + strlen(log) - 600 : log);
        }
}

size_t broker_log_count(Broker *broker, const char *what) {
        CLEANUP(freep) char *log = read_file(broker->log);
        size_t count = 0;

        for (char *at = log; at && (at = strstr(at, what)); at += strlen(what))
                ++count;
        return count;
}

size_t broker_fds(Broker *broker) {
        char path[64];
        size_t n = 0;
        DIR *dir;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)broker->pid);
        dir = opendir(path);
        if (!dir && errno == EACCES) {
                test_leave_out("counting the broker's descriptors needs CAP_SYS_PTRACE");
                return 0;
        }
        REQUIRE(dir, "%s: %s", path, strerror(errno));
        while (readdir(dir))
                ++n;
        (void)closedir(dir);
        return n - 2;
}

typedef struct FdsWanted {
        Broker *broker;
        size_t n;
} FdsWanted;

static bool has_few_fds(void *userdata) {
        FdsWanted *wanted = userdata;

        return broker_fds(wanted->broker) <= wanted->n;
}

void broker_expect_fds(Broker *broker, size_t n) {
        REQUIRE(test_eventually(has_few_fds, &(FdsWanted){ broker, n }), "the broker has %zu descriptors, not %zu",
                broker_fds(broker), n);
}

static bool has_keeper_fds(void *userdata) {
        FdsWanted *wanted = userdata;

        return broker_keeper_fds(wanted->broker) == wanted->n;
}

void broker_expect_keeper_fds(Broker *broker, size_t n) {
        REQUIRE(test_eventually(has_keeper_fds, &(FdsWanted){ broker, n }),
                "the keeper has %zu descriptors, not %zu", broker_keeper_fds(broker), n);
}

const char *broker_status(Broker *broker, const char *key) {
        static char value[256];
        CLEANUP(freep) char *text = NULL;
        char path[64], *at;
        size_t n = strlen(key);

        (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)broker->pid);
        text = read_file(path);
        REQUIRE(text, "%s", path);
        for (at = text; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
                if (strncmp(at, key, n) == 0 && at[n] == ':')
                        break;
        REQUIRE(at, "no %s in %s", key, path);
        at += n + 1;
        at += strspn(at, " \t");
        (void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\n"), at);
        return value;
}

size_t broker_rss(Broker *broker) {
        return (size_t)strtoull(broker_status(broker, "VmRSS"), NULL, 10) * 1024;
}

void broker_expect_rss(Broker *broker, size_t most) {
#ifndef SHMD_SANITIZERS
        size_t rss = broker_rss(broker);

        REQUIRE(rss <= most, "%zu bytes are resident, more than %zu", rss, most);
#endif
}

int64_t broker_cpu_ms(Broker *broker) {
        CLEANUP(freep) char *text = NULL;
        unsigned long long user, system;
        char path[64], *at;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)broker->pid);
        text = read_file(path);
        REQUIRE(text);
        at = strrchr(text, ')');
        REQUIRE(at && sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2);
        return (int64_t)((user + system) * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK));
}
