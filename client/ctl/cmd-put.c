/* put: a file or standard input becomes a region, which gets its name when it is complete.
 *
 * Until then the region has no name and only this process holds it, so that whatever ends the
 * process, a full disk of the writer before us, Ctrl-C, SIGKILL, leaves nothing behind: nobody
 * ever sees a half-filled region.
 *
 * What can be refused is refused before the bytes are copied: a name that is taken, a directory
 * that is missing, and a length that is over quota. The length of a regular file is known. That
 * of a pipe is not; then the broker is asked as soon as more has come than the account had left.
 */

#include "buildinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "client/ctl/copy.h"
#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

enum {
        OPTION_REPLACE = 512,
        OPTION_RESERVE,
        OPTION_FREEZE,
        OPTION_TTL,
};

typedef struct PutArgs {
        const char *path;
        const char *file;       /* NULL: standard input */
        struct shmd_create_options options;
        struct shmd_publish_options publish;
} PutArgs;

static const struct argp_option put_options[] = {
        { "replace", OPTION_REPLACE, NULL,       0, "Take the name from a region that has it, atomically" },
        { "mode",    'm',            "MODE",     0, "Who may open it, octal (default 0600; no umask is applied)" },
        { "reserve", OPTION_RESERVE, NULL,       0, "Allocate all its memory before the first byte is copied" },
        { "freeze",  OPTION_FREEZE,  NULL,       0, "Freeze it before it gets its name: nobody can write to it" },
        { "ttl",     OPTION_TTL,     "DURATION", 0, "Let the name end after so long: 10min, 12h" },
        { NULL },
};

static error_t parse_put(int key, char *arg, struct argp_state *state) {
        PutArgs *args = state->input;
        Operands operands;

        switch (key) {
        case OPTION_REPLACE:
                args->publish.flags |= SHMD_PUBLISH_REPLACE;
                return 0;
        case 'm':
                args->options.mode = ctl_arg_mode(state, arg, 0777);
                return 0;
        case OPTION_RESERVE:
                args->options.flags |= SHMD_CREATE_RESERVE;
                return 0;
        case OPTION_FREEZE:
                args->options.flags |= SHMD_CREATE_FREEZABLE;
                return 0;
        case OPTION_TTL:
                args->publish.ttl_ns = ctl_arg_ttl(state, arg);
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 1, 2, 2);
                args->path = ctl_arg_name(state, operands.names[0]);
                if (operands.n == 2 && strcmp(operands.names[1], "-") != 0)
                        args->file = operands.names[1];
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name is missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_put_argp = {
        .options = put_options,
        .parser = parse_put,
        .args_doc = "NAME [FILE]",
        .doc = "Copies FILE, or standard input (also if FILE is -), into a new region and gives it the name NAME "
               "when it is complete. The region is exactly as long as the input.\v"
               "Examples:\n"
               "  shmdctl put /model/weights weights.bin --mode=0644\n"
               "  curl -s https://example.org/map | shmdctl put /map --replace --freeze --ttl=1h",
};

/* -- before anything is copied ------------------------------------------------------------ */

/* The directory of a name, which the caller frees; "/" has none. */
static char *directory_of(const char *path) {
        const char *slash = strrchr(path, '/');
        char *directory = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));

        if (!directory)
                output_oom();
        return directory;
}

/* Publishing checks all this again, and it decides; this only spares a copy in vain. */
static int check_name(Ctl *ctl, const PutArgs *args) {
        CLEANUP(freep) char *directory = directory_of(args->path);
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *parent = NULL, *taken = NULL;
        int r;

        r = shmd_stat(ctl->client, directory, 0, false, &parent, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, directory, r);
        if (parent->node.kind != SHMD_NODE_DIRECTORY)
                return fail_system(ctl, directory, -ENOTDIR, NULL);

        r = shmd_stat(ctl->client, args->path, 0, false, &taken, SHMD_TIMEOUT_DEFAULT);
        if (r == -ENOENT)
                return CTL_DONE;
        if (r < 0)
                return fail_call(ctl, args->path, r);
        if (taken->node.kind == SHMD_NODE_DIRECTORY)
                return fail_system(ctl, args->path, -EISDIR, NULL);
        if (!(args->publish.flags & SHMD_PUBLISH_REPLACE))
                return fail_system(ctl, args->path, -EEXIST, "--replace takes its place");
        return CTL_DONE;
}

/* Return: true if the input says how long it is. The files of /proc say 0 and are not. */
static bool input_length(int in, uint64_t *ret) {
        struct stat st;
        off_t at;

        if (fstat(in, &st) < 0 || !S_ISREG(st.st_mode))
                return false;
        at = lseek(in, 0, SEEK_CUR);
        if (at < 0 || at >= st.st_size)
                return false;
        *ret = (uint64_t)(st.st_size - at);
        return true;
}

/* -- copying -------------------------------------------------------------------------------- */

static int make_region(Ctl *ctl, PutArgs *args, uint64_t size, shmd_region **ret) {
        int r;

        args->options.size = size;
        r = shmd_create(ctl->client, NULL, &args->options, ret, SHMD_TIMEOUT_DEFAULT);
        return r < 0 ? fail_call(ctl, args->path, r) : CTL_DONE;
}

static int fail_copy(Ctl *ctl, const PutArgs *args, int r) {
        const char *source = args->file ? args->file : "standard input";

        if (r == -ENODATA)
                return fail_system(ctl, source, -EIO, "it became shorter while it was read");
        if (r == -ENOMEM)
                return fail_system(ctl, args->path, r, "the machine has no memory for it");
        return fail_system(ctl, source, r, NULL);
}

static int put_known(Ctl *ctl, PutArgs *args, int in, uint64_t size, shmd_region **ret) {
        Progress progress;
        size_t mapped;
        void *address;
        int r;

        r = make_region(ctl, args, size, ret);
        if (r)
                return r;
        r = shmd_map(*ret, NULL, &address, &mapped);
        if (r < 0)
                return fail_call(ctl, args->path, r);

        progress_init(&progress, ctl, args->path, size);
        r = copy_fill(in, address, size, &progress);
        progress_deinit(&progress);
        (void)shmd_unmap(address, mapped);
        return r < 0 ? fail_copy(ctl, args, r) : CTL_DONE;
}

/* How many bytes the account has left; UINT64_MAX if that is not known or there is no limit. */
static uint64_t bytes_left(Ctl *ctl) {
        CLEANUP(shmd_df_freep) struct shmd_df_result *df = NULL;
        const struct shmd_usage *usage;

        if (shmd_df(ctl->client, SHMD_DF_ACCOUNT, (uid_t)-1, NULL, &df, SHMD_TIMEOUT_DEFAULT) < 0 || df->n == 0)
                return UINT64_MAX;
        usage = &df->usages[0];
        if (usage->limit[SHMD_SLOT_BYTES] == UINT64_MAX)
                return UINT64_MAX;
        if (usage->used[SHMD_SLOT_BYTES] >= usage->limit[SHMD_SLOT_BYTES])
                return 0;
        return usage->limit[SHMD_SLOT_BYTES] - usage->used[SHMD_SLOT_BYTES];
}

/* Takes the input to its end. Once more has come than was left at the start, a region of what
 * has come so far is asked for: the broker's refusal, with its numbers, is the answer. */
static int spool_input(Ctl *ctl, PutArgs *args, int in, Spool *spool) {
        CLEANUP_REGION shmd_region *probe = NULL;
        Progress progress;
        int r;

        progress_init(&progress, ctl, args->path, 0);
        r = spool_take(spool, in, bytes_left(ctl), &progress);
        if (r == 0 && !spool->ended) {
                struct shmd_create_options options = args->options;

                options.size = spool->size;
                options.flags = 0;
                options.rights = SHMD_RIGHTS_READ_WRITE;
                r = shmd_create(ctl->client, NULL, &options, &probe, SHMD_TIMEOUT_DEFAULT);
                if (r < 0) {
                        progress_deinit(&progress);
                        return fail_call(ctl, args->path, r);
                }
                probe = shmd_region_free(probe);
                r = spool_take(spool, in, UINT64_MAX, &progress);
        }
        progress_deinit(&progress);
        return r < 0 ? fail_copy(ctl, args, r) : CTL_DONE;
}

static int put_unknown(Ctl *ctl, PutArgs *args, int in, shmd_region **ret) {
        CLEANUP(spool_deinit) Spool spool = SPOOL_NULL;
        Progress progress;
        int r;

        r = spool_init(&spool);
        if (r < 0)
                return fail_copy(ctl, args, r);
        r = spool_input(ctl, args, in, &spool);
        if (r)
                return r;
        /* Reserving now would need the memory twice; each page is about to be written anyway. */
        args->options.flags &= ~(uint32_t)SHMD_CREATE_RESERVE;
        r = make_region(ctl, args, spool.size, ret);
        if (r)
                return r;

        progress_init(&progress, ctl, args->path, spool.size);
        r = spool_move(&spool, shmd_region_fd(*ret), &progress);
        progress_deinit(&progress);
        return r < 0 ? fail_copy(ctl, args, r) : CTL_DONE;
}

static int put(Ctl *ctl, PutArgs *args, int in, shmd_region **ret) {
        uint64_t size;
        int r;

        r = ctl_connect(ctl);
        if (r)
                return r;
        r = check_name(ctl, args);
        if (r)
                return r;
        if (input_length(in, &size))
                r = put_known(ctl, args, in, size, ret);
        else
                r = put_unknown(ctl, args, in, ret);
        if (r)
                return r;

        if (args->options.flags & SHMD_CREATE_FREEZABLE)
                r = shmd_freeze(ctl->client, *ret, SHMD_FREEZE_IMMUTABLE, SHMD_TIMEOUT_DEFAULT);
        if (r == 0)
                r = shmd_publish(ctl->client, shmd_region_id(*ret), args->path, &args->publish, SHMD_TIMEOUT_DEFAULT);
        return r < 0 ? fail_call(ctl, args->path, r) : CTL_DONE;
}

int command_put(Ctl *ctl, int argc, char **argv) {
        CLEANUP_REGION shmd_region *region = NULL;
        CLEANUP(close_fdp) int file = -1;
        PutArgs args = { .options = SHMD_CREATE_OPTIONS_INIT, .publish = SHMD_PUBLISH_OPTIONS_INIT };
        char size[OUTPUT_NUMBER_MAX];
        int r;

        ctl_parse(ctl, &args, argc, argv);
        if (args.file) {
                file = open(args.file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
                if (file < 0)
                        return fail_system(ctl, args.file, -errno, NULL);
        }
        r = put(ctl, &args, args.file ? file : STDIN_FILENO, &region);
        if (r)
                return r;

        if (ctl->json) {
                json_t *o = json_object();

                output_set(o, "path", output_string(args.path));
                output_set(o, "region", output_number(shmd_region_id(region)));
                output_set(o, "size", output_number(shmd_region_size(region)));
                output_json(o, stdout);
        } else if (!ctl->quiet) {
                printf("put ");
                output_text(args.path, stdout);
                printf(": region %" PRIu64 ", %s\n", shmd_region_id(region),
                       output_size(ctl, size, shmd_region_size(region)));
        }
        return CTL_DONE;
}
