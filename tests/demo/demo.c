/* The demonstration: one real file, shared between processes of different users.
 *
 * A director (this process) starts a private broker and then actors, one process each, that
 * connect to it by themselves. Scene by scene it prints what happened, one line each; a line
 * that says FAILED makes the whole fail. It ends with what sharing the file cost, beside the
 * same bytes sent through a pipe, and leaves nothing behind, also when it is interrupted.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sha2.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "demo/actor.h"
#include "demo/attempts.h"
#include "demo/stage.h"
#include "shmd.h"

#define DIRECTORY "/demo"
#define NAME "/demo/input"
#define N_READERS 2
#define N_OPENS 201
#define N_COPIES 5
#define PATIENCE_NS UINT64_C(60000000000)
#define MIB (UINT64_C(1) << 20)

typedef struct Figures {
        uint64_t handover_ns;           /* open and map, median */
        uint64_t touch_ns;              /* open, map and read a byte of every page, median */
        uint64_t pipe_ns;               /* all bytes through a pipe, median */
} Figures;

/* Shared with the actors, which read it, and written by the director alone. */
typedef struct Demo {
        Stage stage;
        const char *shmd;
        const char *path;
        int file;
        uint64_t size;
        uint64_t charge;                /* size, rounded up to pages */
        uint64_t limit;                 /* bytes an account may have */
        uint8_t digest[SHA256_DIGEST_LENGTH];
        Figures figures;
        uint64_t shmem_start;           /* bytes, from /proc/meminfo */
        uint64_t shmem_shared;
        uint64_t last_call_ns;          /* when the last holder was told to end */
        unsigned int n_failed;
        Actor clerk;                    /* the owner's other process: looks, and cleans up */
        Actor waiter;
        Actor producer;
        Actor readers[N_READERS];
        Actor attacker;
        Actor stranger;
} Demo;

/* -- small things -- */

static uint64_t now_ns(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static int compare_u64(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *values, size_t n) {
        qsort(values, n, sizeof(*values), compare_u64);
        return values[n / 2];
}

static void digest_of(const void *data, uint64_t size, uint8_t digest[SHA256_DIGEST_LENGTH]) {
        SHA2_CTX context;

        SHA256Init(&context);
        SHA256Update(&context, data, (size_t)size);
        SHA256Final(digest, &context);
}

/* A field of /proc/meminfo in bytes; 0 if it is not there. */
static uint64_t meminfo(const char *field) {
        FILE *file = fopen("/proc/meminfo", "re");
        uint64_t kib = 0;
        char line[128];

        while (file && fgets(line, sizeof(line), file))
                if (!strncmp(line, field, strlen(field)) && line[strlen(field)] == ':')
                        kib = strtoull(line + strlen(field) + 1, NULL, 10);
        if (file)
                (void)fclose(file);
        return kib * 1024;
}

__attribute__((format(printf, 3, 4))) static bool step(Demo *demo, bool ok, const char *format, ...) {
        va_list arguments;

        printf("  %-7s", ok ? "ok" : "FAILED");
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        printf("\n");
        fflush(stdout);
        if (!ok)
                ++demo->n_failed;
        return ok;
}

/* Hears an actor and prints what it said as a step. */
static bool relay(Demo *demo, Actor *actor, Report *report) {
        bool heard = actor_hear(actor, report);

        return step(demo, heard && report->ok, "%s", report->text);
}

static bool relay_one(Demo *demo, Actor *actor) {
        Report report;

        return relay(demo, actor, &report);
}

static bool relay_series(Demo *demo, Actor *actor) {
        bool ok = true;
        Report report;

        do
                ok = relay(demo, actor, &report) && ok;
        while (!report.last);
        return ok;
}

/* -- what actors do -- */

__attribute__((format(printf, 3, 4))) static void say(int control, bool ok, const char *format, ...) {
        Report report = { .ok = ok, .last = true };
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(report.text, sizeof(report.text), format, arguments);
        va_end(arguments);
        actor_report(control, &report);
}

/* Says why an actor cannot go on, and ends it. */
__attribute__((noreturn)) static void give_up(int control, shmd *client, const char *what, int r) {
        say(control, false, "%s: %s (%s)", what, strerrorname_np(-r),
            client ? shmd_refusal(client)->sentence : "no connection");
        _exit(1);
}

static shmd *connect_or_give_up(int control, const Demo *demo) {
        shmd *client = NULL;
        int r;

        r = shmd_connect(&client, demo->stage.socket, PATIENCE_NS);
        if (r)
                give_up(control, client, "connecting", r);
        return client;
}

typedef struct View {
        shmd_region *region;
        void *address;
        size_t length;
} View;

/* Opens the name read-only and maps it. Return: 0 or a negative errno. */
static int view_open(View *view, shmd *client) {
        int r;

        r = shmd_open(client, NAME, SHMD_RIGHTS_READ_ONLY, &view->region, PATIENCE_NS);
        if (r)
                return r;
        r = shmd_map(view->region, NULL, &view->address, &view->length);
        if (r)
                view->region = shmd_region_free(view->region);
        return r;
}

static void view_close(View *view) {
        (void)shmd_unmap(view->address, view->length);
        view->region = shmd_region_free(view->region);
}

static bool view_is_intact(const View *view, const Demo *demo) {
        uint8_t digest[SHA256_DIGEST_LENGTH];

        if (shmd_region_size(view->region) != demo->size)
                return false;
        digest_of(view->address, demo->size, digest);
        return !memcmp(digest, demo->digest, sizeof(digest));
}

/* Verifies on every cue, until the director ends it. */
static void hold(int control, const Demo *demo, const View *view, const char *who) {
        for (;;) {
                bool ok;

                (void)actor_await(control);
                ok = view_is_intact(view, demo);
                say(control, ok, "%s: SHA-256 of its mapping %s", who, ok ? "is still the file's" : "has CHANGED");
        }
}

/* A consumer that comes too early. That it waits is certain once the broker has answered a
 * request sent after the wait: requests are taken in order. */
static void on_appeared(shmd *client, shmd_call *call, void *userdata) {
        *(int *)userdata = shmd_wait_finish(call, NULL);
}

static void play_waiter(int control, void *userdata) {
        const Demo *demo = userdata;
        shmd *client = connect_or_give_up(control, demo);
        struct shmd_stat_result *result = NULL;
        View view = { 0 };
        int outcome = 1;
        bool ok;
        int r;

        r = shmd_stat(client, NAME, 0, false, &result, PATIENCE_NS);
        if (r != -ENOENT)
                give_up(control, client, "the name exists already", r);
        r = shmd_wait_start(client, NAME, PATIENCE_NS, on_appeared, &outcome, NULL);
        if (!r)
                r = shmd_ping(client, NULL, PATIENCE_NS);
        if (r || outcome != 1)
                give_up(control, client, "waiting for the name", r ? r : outcome);
        say(control, true, "consumer 1 waits for %s, which does not exist (ENOENT)", NAME);

        while (outcome == 1) {
                r = shmd_process(client, PATIENCE_NS);
                if (r < 0)
                        give_up(control, client, "waiting for the name", r);
        }
        r = outcome ? outcome : view_open(&view, client);
        if (r)
                give_up(control, client, "opening the name that appeared", r);
        ok = view_is_intact(&view, demo);
        say(control, ok, "consumer 1 woke up, opened it read-only: SHA-256 %s", ok ? "is the file's" : "DIFFERS");
        hold(control, demo, &view, "consumer 1");
}

static int copy_in(int file, char *to, uint64_t from, uint64_t until) {
        while (from < until) {
                ssize_t n = pread(file, to + from, (size_t)(until - from), (off_t)from);

                if (n <= 0)
                        return n ? -errno : -ENODATA;
                from += (uint64_t)n;
        }
        return 0;
}

static int usage_of(shmd *client, uint64_t *ret_limit, uint64_t *ret_used) {
        struct shmd_df_result *result = NULL;
        int r;

        r = shmd_df(client, SHMD_DF_ACCOUNT, (uid_t)-1, NULL, &result, PATIENCE_NS);
        if (r)
                return r;
        *ret_limit = result->usages[0].limit[SHMD_SLOT_BYTES];
        *ret_used = result->usages[0].used[SHMD_SLOT_BYTES];
        result = shmd_df_free(result);
        return 0;
}

/* Polls the caller's account until so many bytes are used: a region's charge ends when the
 * kernel says that nobody holds it, a moment after its last holder went. */
static int await_usage(shmd *client, uint64_t wanted, uint64_t *ret_used) {
        uint64_t limit, until = now_ns() + PATIENCE_NS / 4;
        int r;

        do {
                r = usage_of(client, &limit, ret_used);
                if (r || *ret_used == wanted)
                        return r;
                (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        } while (now_ns() < until);
        return -ETIMEDOUT;
}

/* Asks for a page more than is left, then for all that is left. */
static void overdraw(int control, shmd *client) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        const struct shmd_refusal *refusal;
        shmd_region *region = NULL;
        uint64_t limit, used, left;
        bool ok;
        int r;

        r = usage_of(client, &limit, &used);
        if (r)
                give_up(control, client, "asking for the account", r);
        left = limit - used;

        options.size = left + 1;
        r = shmd_create(client, NULL, &options, &region, PATIENCE_NS);
        refusal = shmd_refusal(client);
        ok = r == -EDQUOT && refusal->code == SHMD_ERROR_QUOTA && refusal->slot == SHMD_SLOT_BYTES &&
             refusal->left == left && refusal->limit == limit && refusal->asked > left;
        say(control, ok, "over quota: %s, %s: asked %" PRIu64 ", left %" PRIu64 " of %" PRIu64, strerrorname_np(-r),
            shmd_slot_name(refusal->slot), refusal->asked, refusal->left, refusal->limit);

        options.size = left;
        r = shmd_create(client, NULL, &options, &region, PATIENCE_NS);
        region = shmd_region_free(region);
        if (!r)
                r = await_usage(client, used, &limit);
        say(control, !r, "exactly what was left (%" PRIu64 " bytes) %s", left,
            r ? "could not be had and given back" : "was had, and given back");
}

static void play_producer(int control, void *userdata) {
        const Demo *demo = userdata;
        shmd *client = connect_or_give_up(control, demo);
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region = NULL;
        void *address = NULL;
        size_t length;
        int r;

        options.size = demo->size;
        options.mode = 0640;
        r = shmd_create(client, NULL, &options, &region, PATIENCE_NS);
        if (!r)
                r = shmd_map(region, NULL, &address, &length);
        if (!r)
                r = copy_in(demo->file, address, 0, demo->size / 2);
        if (r)
                give_up(control, client, "making and filling a region", r);
        say(control, true, "producer made a region without a name and copied half of the file in");

        (void)actor_await(control);
        r = copy_in(demo->file, address, demo->size / 2, demo->size);
        if (!r)
                r = shmd_publish(client, shmd_region_id(region), NAME, NULL, PATIENCE_NS);
        if (r)
                give_up(control, client, "publishing", r);
        say(control, true, "producer copied the rest and published it as %s, mode 0640", NAME);

        (void)actor_await(control);
        overdraw(control, client);
        for (;;)
                (void)actor_await(control);
}

typedef struct Reader {
        const Demo *demo;
        unsigned int number;
} Reader;

static void play_reader(int control, void *userdata) {
        const Reader *reader = userdata;
        shmd *client = connect_or_give_up(control, reader->demo);
        View view = { 0 };
        char who[32];
        bool ok;
        int r;

        r = view_open(&view, client);
        if (r)
                give_up(control, client, "opening " NAME, r);
        snprintf(who, sizeof(who), "consumer %u", reader->number);
        ok = view_is_intact(&view, reader->demo);
        say(control, ok, "%s (uid %u) opened it read-only: SHA-256 %s", who, (unsigned int)geteuid(),
            ok ? "is the file's" : "DIFFERS");
        hold(control, reader->demo, &view, who);
}

/* Every way to write there is, then a look whether anything changed. */
static void play_attacker(int control, void *userdata) {
        const Demo *demo = userdata;
        shmd *client = connect_or_give_up(control, demo);
        unsigned int n_refused = 0, n_tried = 0;
        View view = { 0 };
        Target target;
        bool ok;
        int r;

        r = view_open(&view, client);
        if (r)
                give_up(control, client, "opening " NAME, r);
        target = (Target){ shmd_region_fd(view.region), view.address, view.length };

        for (size_t i = 0; i < n_attempts; ++i) {
                Report report = { 0 };

                if (attempts[i].needs_other_uid && !demo->stage.many_users)
                        continue;
                r = attempts[i].fn(&target);
                ++n_tried;
                n_refused += r < 0;
                report.ok = r < 0;
                snprintf(report.text, sizeof(report.text), "  %-45s %s", attempts[i].name,
                         r < 0 ? strerrorname_np(-r) : "was NOT refused");
                actor_report(control, &report);
        }

        ok = n_refused == n_tried && view_is_intact(&view, demo);
        say(control, ok, "%u ways to write were tried, the kernel refused %u; the bytes %s", n_tried, n_refused,
            view_is_intact(&view, demo) ? "are unchanged" : "have CHANGED");
}

static void play_stranger(int control, void *userdata) {
        const Demo *demo = userdata;
        shmd *client = connect_or_give_up(control, demo);
        View view = { 0 };
        bool ok;
        int r;

        r = view_open(&view, client);
        ok = r == -EACCES && shmd_refusal(client)->code == SHMD_ERROR_DENIED;
        say(control, ok, "a stranger (uid %u) is refused: %s, %s", (unsigned int)geteuid(),
            r ? strerrorname_np(-r) : "NOT AT ALL", shmd_reason_name(shmd_refusal(client)->reason));

        (void)actor_await(control);
        r = view_open(&view, client);
        if (r)
                give_up(control, client, "opening after the chmod", r);
        ok = view_is_intact(&view, demo);
        say(control, ok, "the stranger is let in: SHA-256 %s", ok ? "is the file's" : "DIFFERS");
        hold(control, demo, &view, "stranger");
}

/* -- the clerk: the owner's second process, which outlives the producer -- */

static void clerk_mkdir(int control, const Demo *demo, shmd *client) {
        int r;

        r = shmd_mkdir(client, DIRECTORY, 0755, PATIENCE_NS);
        say(control, !r, "the owner (uid %u) made the directory %s, mode 0755", (unsigned int)geteuid(), DIRECTORY);
}

static void clerk_see_nothing(int control, const Demo *demo, shmd *client) {
        struct shmd_stat_result *result = NULL;
        int r;

        r = shmd_stat(client, NAME, 0, false, &result, PATIENCE_NS);
        result = shmd_stat_free(result);
        say(control, r == -ENOENT, "half filled, %s is not there yet: %s", NAME, r ? strerrorname_np(-r) : "it IS");
}

/* Without other users, there is still the owner's own right to take away. */
static void clerk_shut_out(int control, const Demo *demo, shmd *client) {
        int r;

        r = shmd_chmod(client, NAME, 0, PATIENCE_NS);
        say(control, !r, "the owner says chmod 0000 (there is no other user to refuse)");
}

static void clerk_let_in(int control, const Demo *demo, shmd *client) {
        int r;

        r = shmd_chmod(client, NAME, 0644, PATIENCE_NS);
        say(control, !r, "the owner says chmod 0644");
}

static const char *name_of(const Demo *demo, pid_t pid) {
        static const char *const readers[N_READERS] = { "consumer 2", "consumer 3" };

        for (unsigned int i = 0; i < N_READERS; ++i)
                if (pid == demo->readers[i].pid)
                        return readers[i];
        return pid == demo->waiter.pid ? "consumer 1" : pid == demo->stranger.pid ? "stranger" : "?";
}

/* Three consumers and the stranger hold it; the producer and the attacker are gone. */
static void clerk_list(int control, const Demo *demo, shmd *client) {
        struct shmd_stat_result *result = NULL;
        unsigned int n_confirmed = 0;
        size_t n_holders;
        int r;

        r = shmd_stat(client, NAME, 0, true, &result, PATIENCE_NS);
        if (r)
                give_up(control, client, "asking who holds it", r);

        n_holders = result->n_holders;
        for (size_t i = 0; i < n_holders; ++i) {
                const struct shmd_holder *holder = &result->holders[i];
                Report report = { .ok = *name_of(demo, holder->pid) != '?' && holder->marked && holder->connected };

                n_confirmed += report.ok;
                snprintf(report.text, sizeof(report.text), "  uid %-7u pid %-8d %-12s %-11s %5.1f s",
                         (unsigned int)holder->uid, (int)holder->pid, name_of(demo, holder->pid),
                         holder->rights == SHMD_RIGHTS_READ_ONLY ? "read-only" : "read-write",
                         (double)holder->age_ns / 1e9);
                actor_report(control, &report);
        }
        say(control, n_confirmed == n_holders && n_holders == 2 + N_READERS && result->held,
            "%zu holders, each confirmed by the kernel; the producer holds nothing", n_holders);
        result = shmd_stat_free(result);
}

static void clerk_unlink(int control, const Demo *demo, shmd *client) {
        struct shmd_stat_result *result = NULL;
        int r;

        r = shmd_unlink(client, NAME, PATIENCE_NS);
        if (r)
                give_up(control, client, "unlinking", r);
        r = shmd_stat(client, NAME, 0, false, &result, PATIENCE_NS);
        result = shmd_stat_free(result);
        say(control, r == -ENOENT, "the owner unlinked %s; who asks for it now gets %s", NAME,
            r ? strerrorname_np(-r) : "it ALL THE SAME");
}

static void clerk_see_charge(int control, const Demo *demo, shmd *client) {
        uint64_t limit, used = 0;
        int r;

        r = usage_of(client, &limit, &used);
        say(control, !r && used == demo->charge, "somebody holds it, so its %" PRIu64 " bytes stay charged", used);
}

static void clerk_await_release(int control, const Demo *demo, shmd *client) {
        uint64_t used = 0;
        int r;

        r = await_usage(client, 0, &used);
        say(control, !r, "the last holder ended; %.1f ms after it was told to, %" PRIu64 " bytes are charged",
            (double)(now_ns() - demo->last_call_ns) / 1e6, used);
}

static void play_clerk(int control, void *userdata) {
        static const struct {
                char cue;
                void (*fn)(int control, const Demo *demo, shmd *client);
        } duties[] = {
                { 'm', clerk_mkdir }, { 'n', clerk_see_nothing }, { 's', clerk_shut_out }, { 'o', clerk_let_in },
                { 'l', clerk_list }, { 'u', clerk_unlink }, { 'c', clerk_see_charge }, { 'r', clerk_await_release },
        };
        const Demo *demo = userdata;
        shmd *client = connect_or_give_up(control, demo);

        for (;;) {
                char cue = actor_await(control);

                for (size_t i = 0; i < sizeof(duties) / sizeof(duties[0]); ++i)
                        if (duties[i].cue == cue)
                                duties[i].fn(control, demo, client);
        }
}

/* -- figures -- */

static uint64_t touch(const View *view) {
        const volatile unsigned char *bytes = view->address;
        uint64_t sum = 0;

        for (size_t i = 0; i < view->length; i += 4096)
                sum += bytes[i];
        return sum;
}

static int measure_handover(shmd *client, bool touching, size_t n, uint64_t *ret_ns) {
        uint64_t times[N_OPENS];
        View view;
        int r;

        for (size_t i = 0; i < n; ++i) {
                uint64_t start = now_ns();

                r = view_open(&view, client);
                if (r)
                        return r;
                if (touching)
                        (void)touch(&view);
                times[i] = now_ns() - start;
                view_close(&view);
        }
        *ret_ns = median(times, n);
        return 0;
}

/* Sends all bytes of the view into a pipe from a child of its own. */
static pid_t fork_sender(const View *view, uint64_t size, int to, int other) {
        pid_t child = fork();

        if (child)
                return child;
        (void)close(other);
        for (uint64_t at = 0; at < size;) {
                ssize_t n = write(to, (const char *)view->address + at, (size_t)(size - at));

                if (n <= 0)
                        _exit(1);
                at += (uint64_t)n;
        }
        _exit(0);
}

static int copy_through_pipe(const View *view, uint64_t size, char *buffer, uint64_t *ret_ns) {
        uint64_t at = 0, start;
        ssize_t n = 1;
        int pair[2];
        pid_t child;

        if (pipe2(pair, O_CLOEXEC))
                return -errno;
        (void)fcntl(pair[1], F_SETPIPE_SZ, 1 << 20);
        start = now_ns();
        child = fork_sender(view, size, pair[1], pair[0]);
        (void)close(pair[1]);
        while (child > 0 && n > 0 && at < size) {
                n = read(pair[0], buffer + at, (size_t)(size - at));
                at += n > 0 ? (uint64_t)n : 0;
        }
        *ret_ns = now_ns() - start;
        (void)close(pair[0]);
        if (child > 0)
                (void)waitpid(child, NULL, 0);
        return at == size ? 0 : -EIO;
}

/* The buffer is touched before, so that only the copying is measured; both sides have mapped
 * the bytes and the pipe is as large as an ordinary user may make it. */
static int measure_pipe(shmd *client, uint64_t size, uint64_t *ret_ns) {
        CLEANUP(freep) char *buffer = malloc((size_t)size);
        uint64_t times[N_COPIES];
        View view;
        int r;

        if (!buffer)
                return -ENOMEM;
        memset(buffer, 1, (size_t)size);
        r = view_open(&view, client);
        if (r)
                return r;
        for (size_t i = 0; !r && i < N_COPIES; ++i)
                r = copy_through_pipe(&view, size, buffer, &times[i]);
        view_close(&view);
        if (!r)
                *ret_ns = median(times, N_COPIES);
        return r;
}

static void play_meter(int control, void *userdata) {
        const Demo *demo = userdata;
        shmd *client = connect_or_give_up(control, demo);
        Report report = { .ok = true, .last = true };
        int r;

        r = measure_handover(client, false, N_OPENS, &report.value[0]);
        if (!r)
                r = measure_handover(client, true, N_COPIES, &report.value[1]);
        if (!r)
                r = measure_pipe(client, demo->size, &report.value[2]);
        if (r)
                give_up(control, client, "measuring", r);
        snprintf(report.text, sizeof(report.text), "measured %d hand-overs, and %d copies through a pipe", N_OPENS,
                 N_COPIES);
        actor_report(control, &report);
}

/* -- scenes -- */

static bool scene_broker(Demo *demo) {
        const char *sentence;
        uid_t uid;

        if (!stage_set(&demo->stage, demo->shmd, demo->limit, &sentence))
                return step(demo, false, "%s", sentence);

        uid = demo->stage.many_users ? UID_BROKER : geteuid();
        return step(demo, true, "broker started: pid %d, uid %u, %" PRIu64 " MiB for each account",
                    (int)demo->stage.broker, (unsigned int)uid, demo->limit / MIB);
}

static bool start(Demo *demo, Actor *actor, uid_t uid, gid_t gid, ActorFn fn, void *userdata) {
        return actor_start(actor, stage_uid(&demo->stage, uid), gid, fn, userdata) ||
               step(demo, false, "a process could not be started: %s", strerror(errno));
}

static bool ask_clerk(Demo *demo, char cue) {
        actor_cue(&demo->clerk, cue);
        return relay_one(demo, &demo->clerk);
}

static bool scene_wait(Demo *demo) {
        return start(demo, &demo->clerk, UID_OWNER, UID_OWNER, play_clerk, demo) && ask_clerk(demo, 'm') &&
               start(demo, &demo->waiter, UID_READER, UID_OWNER, play_waiter, demo) &&
               relay_one(demo, &demo->waiter);
}

static bool scene_publish(Demo *demo) {
        if (!start(demo, &demo->producer, UID_OWNER, UID_OWNER, play_producer, demo) ||
            !relay_one(demo, &demo->producer))
                return false;
        if (!ask_clerk(demo, 'n') ||
            !step(demo, actor_is_silent(&demo->waiter), "consumer 1 still waits"))
                return false;

        actor_cue(&demo->producer, 'p');
        return relay_one(demo, &demo->producer) && relay_one(demo, &demo->waiter);
}

static bool scene_read(Demo *demo) {
        bool ok = true;

        for (unsigned int i = 0; i < N_READERS && ok; ++i) {
                Reader reader = { demo, i + 2 };

                ok = start(demo, &demo->readers[i], UID_READER, UID_OWNER, play_reader, &reader) &&
                     relay_one(demo, &demo->readers[i]);
        }
        return ok;
}

static bool scene_attack(Demo *demo) {
        bool ok;

        step(demo, true, "a reader (uid %u) tries to write through its read-only grant:",
             demo->stage.many_users ? (unsigned int)UID_ATTACKER : (unsigned int)geteuid());
        ok = start(demo, &demo->attacker, UID_ATTACKER, UID_OWNER, play_attacker, demo) &&
             relay_series(demo, &demo->attacker);
        actor_end(&demo->attacker);
        actor_cue(&demo->waiter, 'v');
        return relay_one(demo, &demo->waiter) && ok;
}

static bool scene_refuse(Demo *demo) {
        if (!demo->stage.many_users && !ask_clerk(demo, 's'))
                return false;
        if (!start(demo, &demo->stranger, UID_STRANGER, UID_STRANGER, play_stranger, demo) ||
            !relay_one(demo, &demo->stranger) || !ask_clerk(demo, 'o'))
                return false;

        actor_cue(&demo->stranger, 'o');
        return relay_one(demo, &demo->stranger);
}

static bool scene_quota(Demo *demo) {
        actor_cue(&demo->producer, 'q');
        return relay_one(demo, &demo->producer) && relay_one(demo, &demo->producer);
}

static bool scene_measure(Demo *demo) {
        Actor meter = ACTOR_NULL;
        Report report = { 0 };
        bool ok;

        ok = start(demo, &meter, UID_READER, UID_OWNER, play_meter, demo) && relay(demo, &meter, &report);
        actor_end(&meter);
        demo->figures = (Figures){ report.value[0], report.value[1], report.value[2] };
        return ok;
}

static bool all_intact(Demo *demo) {
        bool ok;

        actor_cue(&demo->waiter, 'v');
        ok = relay_one(demo, &demo->waiter);
        for (unsigned int i = 0; i < N_READERS; ++i) {
                actor_cue(&demo->readers[i], 'v');
                ok = relay_one(demo, &demo->readers[i]) && ok;
        }
        return ok;
}

static bool scene_kill(Demo *demo) {
        demo->shmem_shared = meminfo("Shmem");
        step(demo, true, "the producer (pid %d) is killed with SIGKILL", (int)demo->producer.pid);
        actor_kill(&demo->producer);
        return all_intact(demo);
}

static bool scene_list(Demo *demo) {
        step(demo, true, "who holds it:");
        actor_cue(&demo->clerk, 'l');
        return relay_series(demo, &demo->clerk);
}

static bool scene_unlink(Demo *demo) {
        bool ok = ask_clerk(demo, 'u');

        return all_intact(demo) && ask_clerk(demo, 'c') && ok;
}

static bool scene_leave(Demo *demo) {
        uint64_t shmem;
        bool ok;

        ok = actor_end(&demo->stranger) && actor_end(&demo->readers[0]) && actor_end(&demo->readers[1]);
        ok = step(demo, ok, "one holder after the other leaves; one is left") && ask_clerk(demo, 'c');
        demo->last_call_ns = now_ns();
        actor_end(&demo->waiter);
        ok = ask_clerk(demo, 'r') && ok;

        shmem = meminfo("Shmem");
        return step(demo, true, "the machine's shared memory (Shmem) in MiB: %" PRIu64 ", %" PRIu64
                    " while shared, %" PRIu64 " now", demo->shmem_start / MIB, demo->shmem_shared / MIB,
                    shmem / MIB) && ok;
}

static bool scene_end(Demo *demo) {
        actor_end(&demo->clerk);
        return step(demo, stage_end_broker(&demo->stage), "the broker ended; its books balance");
}

/* -- the whole -- */

static void print_size(uint64_t bytes) {
        printf("  %-50s %12" PRIu64 " bytes\n", "shared by 7 processes, one copy in memory", bytes);
}

static void print_time(const char *what, uint64_t ns, size_t n) {
        printf("  %-50s %12.3f ms   median of %zu\n", what, (double)ns / 1e6, n);
}

static void print_figures(const Demo *demo) {
        printf("\n");
        print_size(demo->size);
        print_time("to hand it over: open and map", demo->figures.handover_ns, N_OPENS);
        print_time("... and look at every page", demo->figures.touch_ns, N_COPIES);
        print_time("the same bytes copied through a pipe", demo->figures.pipe_ns, N_COPIES);
}

static bool play(Demo *demo) {
        static bool (*const scenes[])(Demo *demo) = {
                scene_broker, scene_wait, scene_publish, scene_read, scene_attack, scene_refuse, scene_quota,
                scene_kill, scene_list, scene_measure, scene_unlink, scene_leave, scene_end,
        };

        /* Scenes lean on those before them. */
        for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); ++i)
                if (!scenes[i](demo) || actor_interrupted)
                        return step(demo, false, actor_interrupted ? "interrupted" : "the rest is left out");
        return !demo->n_failed;
}

static void clean_up(Demo *demo) {
        actor_kill(&demo->stranger);
        actor_kill(&demo->attacker);
        for (unsigned int i = 0; i < N_READERS; ++i)
                actor_kill(&demo->readers[i]);
        actor_kill(&demo->producer);
        actor_kill(&demo->waiter);
        actor_kill(&demo->clerk);
        if (demo->n_failed && !actor_interrupted && demo->stage.directory[0])
                stage_print_log(&demo->stage);
        stage_strike(&demo->stage);
}

static void on_signal(int signal) {
        (void)signal;
        actor_interrupted = 1;
}

static void catch_signals(void) {
        struct sigaction action = { .sa_handler = on_signal };

        (void)sigaction(SIGINT, &action, NULL);
        (void)sigaction(SIGTERM, &action, NULL);
        (void)sigaction(SIGHUP, &action, NULL);
        (void)signal(SIGPIPE, SIG_IGN);
}

/* Looks at the file: it must be one that can be shared at all. */
static const char *open_input(Demo *demo) {
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        struct stat st;
        void *data;

        demo->file = open(demo->path, O_RDONLY | O_CLOEXEC);
        if (demo->file < 0 || fstat(demo->file, &st))
                return strerror(errno);
        if (!S_ISREG(st.st_mode))
                return "not a regular file";
        if (st.st_size == 0)
                return "empty: there is nothing to share";

        demo->size = (uint64_t)st.st_size;
        demo->charge = (demo->size + page - 1) / page * page;
        demo->limit = demo->charge * 2 + 16 * MIB;
        data = mmap(NULL, (size_t)demo->size, PROT_READ, MAP_PRIVATE, demo->file, 0);
        if (data == MAP_FAILED)
                return strerror(errno);
        digest_of(data, demo->size, demo->digest);
        (void)munmap(data, (size_t)demo->size);
        return NULL;
}

static void print_introduction(const Demo *demo) {
        printf("shmd shows itself on %s, %" PRIu64 " bytes\n", demo->path, demo->size);
        printf("SHA-256 ");
        for (size_t i = 0; i < sizeof(demo->digest); ++i)
                printf("%02x", demo->digest[i]);
        printf("\n");
        if (geteuid() != 0)
                printf("Everybody below is uid %u: this machine gives it neither root nor other uids in a user\n"
                       "namespace. Refusals that only another user meets cannot be shown: the memory belongs to\n"
                       "the broker's uid, and that uid can open it again for writing. SECURITY.md says more.\n",
                       (unsigned int)geteuid());
        printf("\n");
}

static int usage(FILE *to, int status) {
        fprintf(to, "Usage: shmd-demo --shmd PATH FILE\n\n"
                    "Starts a private broker, the program PATH, and shares FILE between processes.\n");
        return status;
}

static Demo *demo_new(char **argv) {
        static const Actor none = ACTOR_NULL;
        Demo *demo;

        demo = mmap(NULL, sizeof(*demo), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (demo == MAP_FAILED)
                return NULL;
        *demo = (Demo){
                .stage = STAGE_NULL, .shmd = argv[2], .path = argv[3], .file = -1,
                .clerk = none, .waiter = none, .producer = none, .attacker = none, .stranger = none,
                .readers = { none, none }, .shmem_start = meminfo("Shmem"),
        };
        return demo;
}

int main(int argc, char **argv) {
        const char *sentence;
        int status = 1;
        Demo *demo;
        bool ok;

        if (argc == 2 && !strcmp(argv[1], "--help"))
                return usage(stdout, 0);
        if (argc != 4 || strcmp(argv[1], "--shmd"))
                return usage(stderr, 2);
        if (!stage_enter_users(&status))
                return status;

        demo = demo_new(argv);
        if (!demo)
                return 1;
        sentence = open_input(demo);
        if (sentence) {
                fprintf(stderr, "shmd-demo: %s: %s\n", demo->path, sentence);
                return 1;
        }

        catch_signals();
        print_introduction(demo);
        ok = play(demo);
        if (ok)
                print_figures(demo);
        clean_up(demo);
        printf("\n%s\n", ok ? "Every step went as it should." : "At least one step FAILED.");
        return ok ? 0 : 1;
}
