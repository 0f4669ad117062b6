/* shmd: the start-up recipes, and nothing else.
 *
 * There are two, for the two processes of a service, and both read from top to bottom. The keeper's,
 * keep(), takes the socket, gives up privileges, and starts the broker, which is the same program with
 * --broker. The broker's, serve(): what is asked of the system is asked first, then privileges end on
 * one visible line, then the broker is put together, then the door is closed, and only then is the
 * first client's byte read. With --no-keeper it is the only process.
 */

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/policy.h"
#include "buildinfo.h"
#include "capacity.h"
#include "check-state.h"
#include "compile.h"
#include "config.h"
#include "helper.h"
#include "keeper.h"
#include "sandbox.h"
#include "service.h"
#include "util/log.h"
#include "util/memfd.h"
#include "util/peercred.h"
#include "util/probe.h"

#define DEFAULT_CONFIG SHMD_SYSCONFDIR "/shmd/shmd.conf"
#define SYSTEM_DIRECTORY "/run/shmd"

/* What is in a service manager's store beside regions: the state, policies that are and were in force, and what
 * is on its way out. */
#define STORE_OWN 16

/* Directories of policy files on the command line. */
#define POLICIES_MAX 64

typedef struct Options {
        const char *socket;
        const char *config;
        const char *policy_root;
        const char *output;
        const char *state;
        const char *policies[POLICIES_MAX];
        size_t n_policies;
        bool check;
        bool compile;
        bool user;
        bool alone;
        bool broker;
} Options;

/* -- the command line ------------------------------------------------------------------- */

/* libc looks these up by name: they must be visible to it. */
__attribute__((visibility("default"))) const char *argp_program_version = "shmd " PACKAGE_VERSION;
__attribute__((visibility("default"))) error_t argp_err_exit_status = 2;

enum {
        OPTION_BROKER = 256,
        OPTION_CHECK,
        OPTION_CHECK_STATE,
        OPTION_COMPILE,
        OPTION_NO_KEEPER,
        OPTION_POLICY_ROOT,
        OPTION_USER,
};

static error_t parse_option(int key, char *argument, struct argp_state *state) {
        Options *options = state->input;

        switch (key) {
        case 's':
                options->socket = argument;
                return 0;
        case 'c':
                options->config = argument;
                return 0;
        case OPTION_BROKER:
                options->broker = true;
                return 0;
        case OPTION_CHECK:
                options->check = true;
                return 0;
        case OPTION_CHECK_STATE:
                options->state = argument;
                return 0;
        case OPTION_COMPILE:
                options->compile = true;
                return 0;
        case OPTION_POLICY_ROOT:
                options->policy_root = argument;
                return 0;
        case 'o':
                options->output = argument;
                return 0;
        case OPTION_NO_KEEPER:
                options->alone = true;
                return 0;
        case OPTION_USER:
                options->user = true;
                return 0;
        case ARGP_KEY_ARG:
                if (options->n_policies == POLICIES_MAX)
                        argp_error(state, "more than %d directories of policies", POLICIES_MAX);
                options->policies[options->n_policies++] = argument;
                return 0;
        case ARGP_KEY_END:
                if (options->n_policies && !options->compile)
                        argp_error(state, "there is nothing to do with '%s'", options->policies[0]);
                if (options->output && !options->compile)
                        argp_error(state, "--output belongs to --compile-policy");
                if (options->n_policies && options->policy_root)
                        argp_error(state, "--policy-root and directories exclude each other");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

static const struct argp_option option_table[] = {
        { "socket", 's', "PATH", 0, "Listen on PATH", 0 },
        { "config", 'c', "FILE", 0, "Read FILE instead of the system's shmd.conf", 0 },
        { "check-config", OPTION_CHECK, NULL, 0, "Check the configuration and exit", 0 },
        { "policy-root", OPTION_POLICY_ROOT, "DIR", 0, "Look for policy files below DIR", 0 },
        { "compile-policy", OPTION_COMPILE, NULL, 0,
          "Compile the policy files (of each DIRECTORY, the weakest first, or of the usual ones) and exit", 0 },
        { "check-state", OPTION_CHECK_STATE, "FILE", 0, "Check FILE, which is what shmdctl state --dump wrote, and exit", 0 },
        { "output", 'o', "FILE", 0, "Write the compiled policy to FILE instead of standard output", 0 },
        { "no-keeper", OPTION_NO_KEEPER, NULL, 0, "Run the broker alone: nothing survives its end", 0 },
        { "broker", OPTION_BROKER, NULL, OPTION_HIDDEN, "Be what a keeper starts", 0 },
        { "user", OPTION_USER, NULL, 0, "Be a user's own broker: listen on $XDG_RUNTIME_DIR/shmd/socket", 0 },
        { 0 },
};

static const struct argp argp = {
        .options = option_table,
        .parser = parse_option,
        .args_doc = "\n--compile-policy [DIRECTORY...]",
        .doc = "Broker for shared memory: makes regions, gives them names, decides who may have them, and hands out "
               "their descriptors.\vRuns in the foreground and logs to standard error. See shmd(8) and shmd.conf(5).",
};

/* -- steps ------------------------------------------------------------------------------ */

static int fail(const char *what, int r) {
        LogLine line;

        log_begin(&line, LOG_ERROR, "failed");
        log_text(&line, "step", what);
        if (r < 0)
                log_errno(&line, "error", r);
        log_end(&line);
        return EXIT_FAILURE;
}

static int fail_message(const char *what, const char *message) {
        LogLine line;

        log_begin(&line, LOG_ERROR, "failed");
        log_text(&line, "step", what);
        log_text(&line, "message", message);
        log_end(&line);
        return EXIT_FAILURE;
}

/* Reads the configuration; a default file that is not there is an empty one. */
static int read_config(const Options *options, Config **ret) {
        CLEANUP(config_freep) Config *config = NULL;
        const char *path = options->config ? options->config : DEFAULT_CONFIG;
        int r;

        r = config_new(&config);
        if (r)
                return fail("config", r);
        r = config_read(config, path);
        if (r == CONFIG_E_INVALID)
                return fail_message("config", config->message);
        if (r < 0 || (r == CONFIG_E_MISSING && options->config)) {
                (void)snprintf(config->message, sizeof(config->message), "%s: %s", path,
                               r < 0 ? strerror(-r) : strerror(ENOENT));
                return fail_message("config", config->message);
        }
        *ret = config;
        config = NULL;
        return 0;
}

/* The policy for the start, compiled. */
static int read_policy(const Options *options, uint8_t **ret, size_t *ret_n) {
        char message[INIFILE_MESSAGE_MAX];
        int r;

        /* The machine's policies are about the machine's broker. */
        if (options->user && !options->policy_root)
                r = policy_compile(NULL, 0, ret, ret_n, message);
        else
                r = compile_policy(options->policy_root, NULL, 0, ret, ret_n, message);
        if (r == POLICY_PARSE_E_INVALID)
                return fail_message("policy", message);
        return r ? fail("policy", r) : 0;
}

/* --compile-policy: what is wrong is told as a compiler tells it. */
static int compile(const Options *options) {
        CLEANUP(freep) uint8_t *blob = NULL;
        char message[INIFILE_MESSAGE_MAX];
        size_t n;
        int r;

        r = compile_policy(options->policy_root, options->policies, options->n_policies, &blob, &n, message);
        if (!r) {
                r = compile_write(options->output, blob, n);
                (void)snprintf(message, sizeof(message), "%s: %s", options->output ? options->output : "standard output",
                               strerror(-r));
        } else if (r < 0) {
                (void)snprintf(message, sizeof(message), "shmd: %s", strerror(-r));
        }
        if (r)
                fprintf(stderr, "%s\n", message);
        return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int check(const BrokerOptions *options, const uint8_t *policy, size_t n_policy) {
        char sentence[BROKER_SENTENCE_MAX];
        int r;

        r = broker_check_policy(options, policy, n_policy, sentence);
        if (r)
                return r > 0 ? fail_message("policy", sentence) : fail("policy", r);
        return puts("the configuration is valid") < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Nothing is served yet: this may wait, for a store that is slow, or for other processes of its user, which have too
 * many descriptors on their way. */
static int set_policy(Broker *broker, const uint8_t *policy, size_t n_policy) {
        char sentence[BROKER_SENTENCE_MAX] = "the store of descriptors takes none";
        PolicyOutcome outcome;
        unsigned int tries = 0;
        int r;

        do
                r = broker_set_policy(broker, policy, n_policy, &outcome, sentence);
        while (r == BROKER_POLICY_E_BUSY && fdstore_wait(&tries));
        return r > 0 ? fail_message("policy", sentence) : r ? fail("policy", r) : 0;
}

/* Where to listen: the command line, the configuration, or the default of the system or the user. */
static const char *socket_path(const Options *options, const Config *config, char buffer[static 256]) {
        const char *runtime = getenv("XDG_RUNTIME_DIR");

        if (options->socket)
                return options->socket;
        if (*config->socket)
                return config->socket;
        if (!options->user) {
                (void)mkdir(SYSTEM_DIRECTORY, 0755);
                return SYSTEM_DIRECTORY "/socket";
        }
        if (!runtime || strlen(runtime) > 200)
                return NULL;
        (void)snprintf(buffer, 256, "%s/shmd", runtime);
        (void)mkdir(buffer, 0700);
        (void)snprintf(buffer, 256, "%s/shmd/socket", runtime);
        return buffer;
}

static int bind_socket(const Options *options, const Config *config, int *ret_fd, const char **ret_path) {
        static char buffer[256], message[512];
        int r;

        *ret_path = socket_path(options, config, buffer);
        if (!*ret_path)
                return fail_message("socket", "--user needs $XDG_RUNTIME_DIR, or --socket");
        r = listener_bind(*ret_path, (unsigned int)config->socket_mode, ret_fd);
        if (r == -EADDRINUSE) {
                (void)snprintf(message, sizeof(message), "another broker, or another file, is at %s", *ret_path);
                return fail_message("socket", message);
        }
        return r ? fail("socket", r) : 0;
}

/* What somebody kept of the process before this one, *ret_kept to be freed, and perhaps the listening socket. */
static int take_kept(Kept **ret_kept, size_t *ret_n_kept, int *ret_fd) {
        int r = service_take(ret_kept, ret_n_kept, ret_fd);

        return r ? fail("listen-fds", r) : 0;
}

/* Where a socket that was passed in is bound to, for the log; valid until the next call. */
static const char *inherited_path(int fd) {
        static struct sockaddr_un address;
        socklen_t n = sizeof(address);

        memset(&address, 0, sizeof(address));
        /* A path of the full length has no NUL behind it. */
        if (getsockname(fd, (struct sockaddr *)&address, &n) < 0 || n == sizeof(address) || !*address.sun_path)
                return "inherited";
        return address.sun_path;
}

static int take_socket(const Options *options, const Config *config, int *fd, const char **ret_path) {
        if (*fd < 0)
                return bind_socket(options, config, fd, ret_path);
        *ret_path = inherited_path(*fd);
        return 0;
}

/* Signals become readable events; SIGIO comes from leases that somebody runs into, SIGPIPE from
 * peers that are gone: neither may end the broker. Of its helper's end its socket tells. */
static int take_signals(int *ret) {
        sigset_t set;

        (void)signal(SIGIO, SIG_IGN);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGCHLD, SIG_IGN);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGUSR2);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return fail("signals", -errno);
        *ret = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return *ret < 0 ? fail("signals", -errno) : 0;
}

static int drop_privileges(const Config *config, uid_t *ret_uid, gid_t *ret_gid) {
        LogLine line;
        int r;

        *ret_uid = geteuid();
        *ret_gid = getegid();
        if (*ret_uid == 0 && *config->user && config_find_user(config->user, ret_uid, ret_gid)) {
                log_begin(&line, LOG_WARN, "user-missing");
                log_text(&line, "user", config->user);
                log_text(&line, "message", "there is no such user: keeping uid 0, without any capability");
                log_end(&line);
        }
        r = sandbox_drop_privileges(*ret_uid, *ret_gid);
        return r ? fail("privileges", r) : 0;
}

/* Without a helper the broker can do all but what needs one. */
static int start_helper(void) {
        LogLine line;
        int fd = -1, r;

        r = helper_start(&fd);
        if (r == 0)
                return fd;
        log_begin(&line, LOG_WARN, "degraded");
        log_text(&line, "missing", "helper");
        log_text(&line, "consequence", "no region can be frozen");
        log_errno(&line, "error", r);
        log_end(&line);
        return -1;
}

static void log_missing_features(void) {
        for (unsigned int i = 0; i < _PROBE_N; ++i) {
                LogLine line;

                if (probe_have(i))
                        continue;
                log_begin(&line, LOG_WARN, "degraded");
                log_text(&line, "missing", probe_name(i));
                log_text(&line, "consequence", probe_consequence(i));
                log_end(&line);
        }
}

/* Whether there are several: on a single one, whoever waits for nothing to happen keeps it from happening. More than
 * a set has room for (EINVAL) are several as well. */
static bool has_processors(void) {
        cpu_set_t set;

        return sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) > 1;
}

/* *ret_directories is the caller's, and what ret->directories points to. */
static int make_options(const Config *config, BrokerOptions *ret, BrokerDirectory **ret_directories) {
        BrokerDirectory *directories;

        *ret = (BrokerOptions){
                .rules = {
                        .global = { .slots = LIMITS_ALL },
                        .everybody = { .slots = LIMITS_ALL },
                        .users = config->exceptions,
                        .n_users = config->n_exceptions,
                },
                .n_directories = config->n_directories,
                .root_mode = (mode_t)config->root_mode,
                .wait_max_ns = config->wait_max,
                .ticket_max_ns = config->ticket_max,
                .hello_ns = config->hello,
                .stall_ns = config->stall,
                .helper_ns = config->helper,
                .session_grace_ns = config->session_grace,
                .busy_poll_ns = has_processors() ? config->busy_poll : 0,
                .version = PACKAGE_VERSION,
        };
        memcpy(ret->rules.global.max, config->global, sizeof(config->global));
        memcpy(ret->rules.everybody.max, config->account, sizeof(config->account));
        if (*config->admin_group) {
                if (config_find_group(config->admin_group, &ret->admin_group))
                        return fail_message("config", "admin-group: there is no such group");
                ret->have_admin_group = true;
        }
        directories = calloc(config->n_directories + 1, sizeof(*directories));
        if (!directories)
                return fail("config", -ENOMEM);
        for (size_t i = 0; i < config->n_directories; ++i) {
                directories[i].path = config->directories[i].path;
                directories[i].permissions = config->directories[i].permissions;
                memcpy(directories[i].max, config->directories[i].max, sizeof(directories[i].max));
        }
        ret->directories = *ret_directories = directories;
        return 0;
}

/* What a service manager's store has no room for it would drop without a word: there cannot be more regions. */
static void fit_store(BrokerOptions *options) {
        uint64_t *max = options->rules.global.max, room = service_store_room(), others;

        if (room == SIZE_MAX)
                return;
        room = room > STORE_OWN ? room - STORE_OWN : 0;
        if (max[ACCOUNT_REGIONS] > room)
                max[ACCOUNT_REGIONS] = room;
        others = max[ACCOUNT_PEERS] + max[ACCOUNT_INFLIGHT];
        if (options->objects > room + others)
                options->objects = room + others;
}

static void ask_for_upgrade(void) {
        service_notify("X_SHMD_UPGRADE=1");
}

static void log_ready(const char *path, const Broker *broker, int landlock) {
        const BrokerOptions *options = broker->options;
        const uint64_t *max = broker->accounts.pool.max;
        LogLine line;

        log_begin(&line, LOG_NOTE, "ready");
        log_text(&line, "version", options->version);
        log_text(&line, "socket", path);
        log_u64(&line, "uid", options->uid);
        log_u64(&line, "descriptors", options->descriptors);
        log_u64(&line, "bytes", max[ACCOUNT_BYTES]);
        log_u64(&line, "regions", max[ACCOUNT_REGIONS]);
        log_u64(&line, "peers", max[ACCOUNT_PEERS]);
        log_u64(&line, "inflight", max[ACCOUNT_INFLIGHT]);
        log_text(&line, "landlock", landlock ? "yes" : "no");
        log_end(&line);
}

static int finish(Broker *broker, int result) {
        bool balanced = broker_free(broker);
        LogLine line;

        log_begin(&line, balanced && !result ? LOG_NOTE : LOG_ERROR, "stopped");
        log_text(&line, "books", balanced ? "balanced" : "unbalanced");
        if (result)
                log_errno(&line, "error", result);
        log_end(&line);
        return balanced && !result ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Where this program is: after an upgrade the new one is there. */
static const char *find_program(const char *name) {
        static const char deleted[] = " (deleted)";
        static char path[PATH_MAX];
        ssize_t n;

        if (*name == '/')
                return name;
        n = readlink("/proc/self/exe", path, sizeof(path) - 1);
        if (n <= 0)
                return NULL;
        path[n] = '\0';
        /* It was replaced already. */
        n -= (ssize_t)sizeof(deleted) - 1;
        if (n > 0 && !strcmp(path + n, deleted))
                path[n] = '\0';
        return path;
}

/* -- the recipes ------------------------------------------------------------------------- */

static int serve(const Options *options) {
        CLEANUP(config_freep) Config *config = NULL;
        CLEANUP(freep) BrokerDirectory *directories = NULL;
        CLEANUP(freep) uint8_t *policy = NULL;
        CLEANUP(freep) Kept *kept = NULL;
        BrokerStart start = { .open_store = service_store };
        const BrokerDirectory *bad_directory;
        int listen_fd = -1, signal_fd = -1, helper_fd = -1, landlock = 0, r;
        BrokerOptions broker_options;
        size_t n_policy;
        uint64_t descriptors;
        const char *path = NULL;
        Broker *broker;

        /* What is asked of the system, while it may still be asked. */
        if (read_config(options, &config))
                return EXIT_FAILURE;
        r = capacity_raise_descriptors(&descriptors);
        if (r)
                return fail("descriptors", r);
        if (capacity_resolve(config, descriptors, capacity_memory()))
                return fail_message("capacity", config->message);
        if (make_options(config, &broker_options, &directories))
                return EXIT_FAILURE;
        broker_options.descriptors = descriptors;
        broker_options.objects = capacity_objects(descriptors);
        broker_options.stock = capacity_has_stock(descriptors);
        if (options->check)
                return read_policy(options, &policy, &n_policy) || check(&broker_options, policy, n_policy) ?
                       EXIT_FAILURE : EXIT_SUCCESS;
        if (take_kept(&kept, &start.n_kept, &listen_fd))
                return EXIT_FAILURE;
        /* Who goes on where another broker ended has the policy that was in force, whatever the files say. */
        if (start.n_kept == 0 && read_policy(options, &policy, &n_policy))
                return EXIT_FAILURE;
        if (take_signals(&signal_fd) || take_socket(options, config, &listen_fd, &path))
                return EXIT_FAILURE;
        start.kept = kept;
        broker_options.start = &start;
        r = service_connect();
        if (r)
                return fail("notify-socket", r);
        fit_store(&broker_options);
        broker_options.kept_by = service_store_owner();
        broker_options.restarts = service_restarts(&broker_options.last_end);
        if (service_has_keeper())
                broker_options.upgrade = ask_for_upgrade;
        peercred_setup();

        /* Privileges end here. */
        if (drop_privileges(config, &broker_options.uid, &broker_options.gid))
                return EXIT_FAILURE;
        helper_fd = start_helper();

        /* The broker, from numbers and descriptors. */
        probe_leave_inotify();
        r = probe_run();
        if (r)
                return fail("probe", r);
        log_missing_features();
        r = broker_new_consume_fds(&broker, &broker_options, listen_fd, signal_fd, &bad_directory);
        if (r == BROKER_E_REFUSED) {
                (void)fail_message("state", start.sentence);
                return KEEPER_STATUS_HOPELESS;
        }
        if (r)
                return bad_directory ? fail_message(bad_directory->path, "the directory cannot be made: does its parent exist?") :
                                       fail("broker", r);
        if (!broker->policy && ((!policy && read_policy(options, &policy, &n_policy)) ||
                                set_policy(broker, policy, n_policy)))
                return EXIT_FAILURE;
        /* The store is told later what it need not have any more: so many words may be in the way of this one. */
        state_commit(broker->state);
        if (helper_fd >= 0) {
                r = broker_helper_consume_fd(broker, helper_fd);
                if (r)
                        return fail("helper", r);
        }

        /* The door is closed. */
        memfd_hold_directory(true);
        r = sandbox_enter(SANDBOX_BROKER, &landlock);
        if (r)
                return fail("sandbox", r);

        broker_options.landlock = landlock;
        log_ready(path, broker, landlock);
        service_notify_surely(&broker->deadlines, "READY=1\nSTATUS=serving");
        service_keep_alive(&broker->deadlines);
        r = broker_run(broker);
        service_notify("STOPPING=1");
        broker_leave(broker);
        service_disconnect();
        return finish(broker, r);
}

static int keep(const Options *options, char **argv) {
        CLEANUP(config_freep) Config *config = NULL;
        CLEANUP(freep) Kept *kept = NULL;
        KeeperOptions keeper = { .program = find_program(argv[0]), .argv = argv };
        ServiceKeeper left;
        const char *path;
        uid_t uid;
        gid_t gid;
        int r;

        if (service_find(&left))
                keeper.left = &left;
        /* Who comes after this cannot open it without waiting. */
        (void)dup2(log_descriptor(), STDERR_FILENO);
        /* Whoever has something to lose goes on without what is wrong. */
        if (read_config(options, &config) && (!keeper.left || config_new(&config)))
                return EXIT_FAILURE;
        keeper.config = config;
        r = capacity_raise_descriptors(&keeper.descriptors);
        if (r)
                return fail("descriptors", r);
        keeper.room = capacity_kept(keeper.descriptors);
        keeper.parked = capacity_parked(config, keeper.descriptors, options->user);
        /* What no broker can do is said before there is a socket. */
        if (!keeper.left && capacity_resolve(config, keeper.descriptors, capacity_memory()))
                return fail_message("capacity", config->message);
        if (keeper.left)
                keeper.listen_fd = left.listen_fd;
        else if (take_kept(&kept, &keeper.n_stored, &keeper.listen_fd) ||
                 take_socket(options, config, &keeper.listen_fd, &path))
                return EXIT_FAILURE;
        keeper.stored = kept;
        r = service_connect();
        if (r)
                return fail("notify-socket", r);

        /* Privileges end here, the broker's too. */
        if (drop_privileges(config, &uid, &gid))
                return EXIT_FAILURE;
        return keeper_run(&keeper);
}

int main(int argc, char **argv) {
        Options options = { .socket = NULL };
        bool is_keeper;

        if (argp_parse(&argp, argc, argv, 0, NULL, &options))
                return 2;
        if (options.compile)
                return compile(&options);
        if (options.state)
                return check_state(options.state) ? EXIT_SUCCESS : EXIT_FAILURE;
        is_keeper = !options.broker && !options.alone && !options.check;
        if (is_keeper)
                service_close_others();
        (void)log_open(STDERR_FILENO);
        /* From the first moment nobody else of its uid looks at its descriptors. */
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        return is_keeper ? keep(&options, argv) : serve(&options);
}
