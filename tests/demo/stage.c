/* The stage: see the header for the model. */

#include "demo/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "demo/actor.h"

#define SUBORDINATE_MIN 65000   /* so many uids are enough for those in the header */
#define BROKER_PATIENCE_MS 15000

/* -- users -- */

/* Finds the first subordinate ids of this user in /etc/subuid or /etc/subgid: lines of
 * name-or-uid:first:count. */
static bool find_subordinate(const char *path, const char *name, unsigned long *ret_first) {
        FILE *file = fopen(path, "re");
        char line[256], who[128], number[16];
        unsigned long first, count;
        bool found = false;

        if (!file)
                return false;

        snprintf(number, sizeof(number), "%u", (unsigned int)getuid());
        while (!found && fgets(line, sizeof(line), file))
                found = sscanf(line, "%127[^:]:%lu:%lu", who, &first, &count) == 3 && count >= SUBORDINATE_MIN &&
                        (!strcmp(who, name) || !strcmp(who, number));
        (void)fclose(file);
        if (found)
                *ret_first = first;
        return found;
}

/* Runs newuidmap or newgidmap for a process: its 0 is us, its 1 and up are subordinate. */
static bool write_map(const char *program, const char *subordinates, pid_t pid, unsigned int self) {
        const struct passwd *user = getpwuid(getuid());
        char process[16], own[16], first[24], count[16];
        unsigned long subordinate;
        pid_t child;
        int status;

        if (!find_subordinate(subordinates, user ? user->pw_name : "", &subordinate))
                return false;

        snprintf(process, sizeof(process), "%d", (int)pid);
        snprintf(own, sizeof(own), "%u", self);
        snprintf(first, sizeof(first), "%lu", subordinate);
        snprintf(count, sizeof(count), "%d", SUBORDINATE_MIN);
        child = fork();
        if (child == 0) {
                (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
                execlp(program, program, process, "0", own, "1", "1", first, count, (char *)NULL);
                _exit(127);
        }
        return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* The child: enters a user namespace and waits for its maps. It says 'n' if there is no
 * namespace, and learns by end-of-file that there are no maps. If the parent is killed, it ends
 * as if it had been interrupted, and cleans up. */
static bool enter_namespace(int socket) {
        char answer = unshare(CLONE_NEWUSER) ? 'n' : 'y';

        if (write(socket, &answer, 1) != 1 || answer == 'n' || read(socket, &answer, 1) != 1)
                _exit(0);
        return !setresgid(0, 0, 0) && !setresuid(0, 0, 0) && !prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) &&
               !prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
}

static int wait_for(pid_t pid) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return 1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

bool stage_enter_users(int *ret_status) {
        int pair[2];
        char answer = 'n';
        bool mapped;
        pid_t child;

        if (geteuid() == 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
                return true;

        child = fork();
        if (child == 0) {
                (void)close(pair[0]);
                if (!enter_namespace(pair[1]))
                        _exit(1);
                (void)close(pair[1]);
                return true;
        }

        (void)close(pair[1]);
        mapped = child > 0 && read(pair[0], &answer, 1) == 1 && answer == 'y' &&
                 write_map("newuidmap", "/etc/subuid", child, getuid()) &&
                 write_map("newgidmap", "/etc/subgid", child, getgid());
        if (mapped)
                mapped = write(pair[0], "y", 1) == 1;
        (void)close(pair[0]);
        if (child > 0)
                *ret_status = wait_for(child);
        return !mapped;
}

uid_t stage_uid(const Stage *stage, uid_t uid) {
        return stage->many_users ? uid : (uid_t)-1;
}

/* -- the broker -- */

static bool write_config(const Stage *stage, uint64_t limit) {
        FILE *file = fopen(stage->config, "we");

        if (!file)
                return false;

        fprintf(file, "[daemon]\n");
        if (stage->many_users)
                fprintf(file, "user = %d\n", UID_BROKER);
        fprintf(file, "[global]\nbytes = %llu\n", (unsigned long long)limit * 16);
        fprintf(file, "[account]\nbytes = %llu\n", (unsigned long long)limit);
        return fclose(file) == 0;
}

static bool make_directory(Stage *stage) {
        const char *temporary = getenv("TMPDIR");
        char template[sizeof(stage->directory)];
        int n;

        n = snprintf(template, sizeof(template), "%s/shmd-demo-XXXXXX",
                     temporary && *temporary ? temporary : "/tmp");
        /* The socket's address has room for 107 bytes. */
        if (n > 90 || !mkdtemp(template))
                return false;
        memcpy(stage->directory, template, sizeof(template));
        snprintf(stage->socket, sizeof(stage->socket), "%s/socket", template);
        snprintf(stage->config, sizeof(stage->config), "%s/shmd.conf", template);
        snprintf(stage->log, sizeof(stage->log), "%s/log", template);
        if (chmod(template, 0755))
                return false;
        return !stage->many_users || !chown(template, UID_BROKER, UID_BROKER);
}

static void exec_broker(const Stage *stage, const char *shmd) {
        CLEANUP(close_fdp) int log = open(stage->log, O_WRONLY | O_CREAT | O_APPEND, 0644);

        if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
                return;
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
        (void)unsetenv("NOTIFY_SOCKET");
        (void)unsetenv("LISTEN_FDS");
        execl(shmd, "shmd", "--socket", stage->socket, "--config", stage->config, (char *)NULL);
        fprintf(stderr, "%s: %s\n", shmd, strerror(errno));
}

static bool log_has(const Stage *stage, const char *words) {
        CLEANUP(close_fdp) int fd = open(stage->log, O_RDONLY | O_CLOEXEC);
        char text[65536];
        ssize_t n;

        if (fd < 0)
                return false;
        /* What is looked for is said at the very start or at the very end. */
        (void)lseek(fd, 0, SEEK_SET);
        n = read(fd, text, sizeof(text) - 1);
        if (n == (ssize_t)sizeof(text) - 1) {
                (void)lseek(fd, 1 - (off_t)sizeof(text), SEEK_END);
                n = read(fd, text, sizeof(text) - 1);
        }
        text[n > 0 ? n : 0] = '\0';
        return strstr(text, words);
}

/* Waits until the broker has ended. Return: its wait status, or -1 if it is still there. */
static int await_end(Stage *stage, int patience_ms) {
        int status;

        for (int waited = 0; waited < patience_ms; waited += 5) {
                if (waitpid(stage->broker, &status, WNOHANG) == stage->broker) {
                        stage->broker = -1;
                        return status;
                }
                (void)nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        }
        return -1;
}

static bool await_ready(Stage *stage) {
        for (int waited = 0; waited < BROKER_PATIENCE_MS && !actor_interrupted; waited += 5) {
                if (log_has(stage, "event=ready"))
                        return true;
                if (await_end(stage, 5) != -1)
                        return false;
        }
        return false;
}

bool stage_set(Stage *stage, const char *shmd, uint64_t limit, const char **ret_sentence) {
        pid_t pid;

        stage->many_users = geteuid() == 0;

        *ret_sentence = "no temporary folder could be made (TMPDIR must be a short path)";
        if (!make_directory(stage))
                return false;
        *ret_sentence = "the configuration could not be written";
        if (!write_config(stage, limit))
                return false;

        *ret_sentence = "the broker could not be started";
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                exec_broker(stage, shmd);
                _exit(127);
        }
        if (pid < 0)
                return false;
        stage->broker = pid;

        *ret_sentence = "the broker did not become ready";
        return await_ready(stage);
}

bool stage_end_broker(Stage *stage) {
        int status;

        if (stage->broker <= 0 || kill(stage->broker, SIGTERM))
                return false;

        status = await_end(stage, BROKER_PATIENCE_MS);
        return status == 0 && log_has(stage, "books=balanced");
}

void stage_print_log(const Stage *stage) {
        FILE *file = fopen(stage->log, "re");
        char line[1024];
        long size;

        if (!file)
                return;
        (void)fseek(file, 0, SEEK_END);
        size = ftell(file);
        (void)fseek(file, size > 8192 ? size - 8192 : 0, SEEK_SET);
        printf("\nThe end of the broker's log:\n");
        while (fgets(line, sizeof(line), file))
                fputs(line, stdout);
        (void)fclose(file);
}

void stage_strike(Stage *stage) {
        if (stage->broker > 0) {
                (void)kill(stage->broker, SIGTERM);
                if (await_end(stage, 2000) == -1) {
                        (void)kill(stage->broker, SIGKILL);
                        (void)waitpid(stage->broker, NULL, 0);
                        stage->broker = -1;
                }
        }
        if (!stage->directory[0])
                return;

        (void)unlink(stage->socket);
        (void)unlink(stage->config);
        (void)unlink(stage->log);
        if (rmdir(stage->directory))
                fprintf(stderr, "%s could not be removed: %s\n", stage->directory, strerror(errno));
        stage->directory[0] = '\0';
}
