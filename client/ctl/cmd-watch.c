/* watch: one line for each event, and with --list before that one for each name there is.
 *
 * It goes on when the broker was gone; that is told on standard error, or as a line of its own with --json.
 *
 * To list without a gap, the watch comes first and its events are kept. The list says of each page up
 * to which event it has everything in it, so that an event which a page has in it already is passed
 * over. If a directory was moved while several pages were listed, what was below it may be in two of
 * them or in none: then the list is made again.
 */

#include "buildinfo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/list.h"
#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

/* How often a list is begun anew. */
#define LISTS_MAX 20
/* Who holds what changes often, and to hear of it costs the broker a watch of each region. */
#define MASK_DEFAULT (SHMD_EVENT_ALL & ~(uint32_t)SHMD_EVENT_HOLDERS)

static const struct {
        uint32_t event;
        const char *word;
} words[] = {
        { SHMD_EVENT_CREATED,  "created" },
        { SHMD_EVENT_REMOVED,  "removed" },
        { SHMD_EVENT_RENAMED,  "renamed" },
        { SHMD_EVENT_REPLACED, "replaced" },
        { SHMD_EVENT_CHANGED,  "changed" },
        { SHMD_EVENT_FROZEN,   "frozen" },
        { SHMD_EVENT_HOLDERS,  "holders" },
        { SHMD_EVENT_LIMITS,   "limits" },
        { SHMD_EVENT_OVERFLOW, "overflow" },
};
#define N_WORDS (sizeof(words) / sizeof(words[0]))

typedef struct WatchArgs {
        const char *path;
        uint32_t mask;
        uint64_t count;         /* 0: no end */
        bool list;
} WatchArgs;

/* An event that came while the list was made. */
typedef struct Kept {
        List link;
        struct shmd_event event;
        char *path;
        char *to;
} Kept;

typedef struct Page {
        uint64_t sequence;
        char *last;             /* the last name of the page; NULL: all that follow */
} Page;

typedef struct Watching {
        Ctl *ctl;
        WatchArgs args;
        bool listing;
        List kept;
        Page *pages;
        size_t n_pages;
        uint64_t n;             /* events printed */
        bool over;
        int error;
} Watching;

/* -- options ------------------------------------------------------------------------------ */

static const struct argp_option watch_options[] = {
        { "events", 'e', "LIST", 0, "Only these: created, removed, renamed, replaced, changed, frozen, holders, "
                                    "limits, with commas between (default: all but holders)" },
        { "list",   'l', NULL,   0, "First print what is there, as if each name had just been found" },
        { "count",  'n', "N",    0, "End after so many events" },
        { NULL },
};

static uint32_t parse_event(const char *word, size_t n) {
        for (size_t i = 0; i < N_WORDS; ++i)
                if (strlen(words[i].word) == n && !memcmp(words[i].word, word, n) &&
                    words[i].event != SHMD_EVENT_OVERFLOW)
                        return words[i].event;
        return 0;
}

static uint32_t parse_events(struct argp_state *state, const char *list) {
        uint32_t mask = 0;

        for (const char *at = list;;) {
                size_t n = strcspn(at, ",");
                uint32_t event = parse_event(at, n);

                if (!event)
                        argp_error(state, "--events: there is no event \"%.*s\"", (int)n, at);
                mask |= event;
                if (!at[n])
                        return mask;
                at += n + 1;
        }
}

static error_t parse_watch(int key, char *arg, struct argp_state *state) {
        WatchArgs *args = state->input;
        Operands operands;

        switch (key) {
        case 'e':
                args->mask = parse_events(state, arg);
                return 0;
        case 'l':
                args->list = true;
                return 0;
        case 'n':
                args->count = ctl_arg_number(state, arg, UINT64_MAX);
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &operands, 0, 1, 0);
                args->path = operands.n ? operands.names[0] : args->path;
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_watch_argp = {
        .options = watch_options,
        .parser = parse_watch,
        .args_doc = "[NAME]",
        .doc = "Prints what happens to NAME and all that is below it (default /), a line for each event, until it "
               "is gone. With --json, each line is a JSON object, also what is otherwise said on standard error: that the "
               "broker is gone, and is back. With --timeout it ends after so long, with exit "
               "status 124 if --count events did not come in that time.\v"
               "Examples:\n"
               "  shmdctl watch /camera\n"
               "  shmdctl watch --list --json | consumer\n"
               "  shmdctl watch --events=created --count=1 /camera --timeout=10s",
};

/* -- printing ----------------------------------------------------------------------------- */

static const char *word_of(uint32_t event) {
        for (size_t i = 0; i < N_WORDS; ++i)
                if (words[i].event == event)
                        return words[i].word;
        return "unknown";
}

static void print_json(const struct shmd_event *event, const char *word) {
        json_t *o = json_object();

        output_set(o, "event", output_string(word));
        output_set(o, "sequence", output_number(event->sequence));
        if (!event->account)
                output_set(o, "path", output_string(event->path));
        if (event->to)
                output_set(o, "to", output_string(event->to));
        if (event->exchange)
                output_set(o, "exchange", json_true());
        if (event->account)
                output_set(o, "uid", output_number(event->uid));
        else if (event->event != SHMD_EVENT_OVERFLOW)
                output_set(o, "kind", output_string(event->kind == SHMD_NODE_DIRECTORY ? "directory" : "region"));
        if (event->region)
                output_set(o, "region", output_number(event->region));
        if (event->event == SHMD_EVENT_FROZEN)
                output_set(o, "seals", output_number(event->seals));
        if (event->event == SHMD_EVENT_HOLDERS) {
                output_set(o, "held", json_boolean(event->held));
                output_set(o, "grants", output_number(event->grants));
        }
        output_json_line(o, stdout);
}

static void print_text(const struct shmd_event *event, const char *word) {
        char user[OUTPUT_USER_MAX];

        printf("%s ", word);
        if (event->account)
                printf("of user %s", output_user(user, event->uid));
        else
                output_text(event->path, stdout);
        if (event->to) {
                printf(event->exchange ? " <-> " : " -> ");
                output_text(event->to, stdout);
        }
        if (event->event == SHMD_EVENT_HOLDERS)
                printf(": %s, %" PRIu64 " grants", event->held ? "held" : "held by nobody", event->grants);
        if (event->event == SHMD_EVENT_OVERFLOW)
                printf(": events were lost, list again");
        printf("\n");
}

static void print_line(const Watching *watching, const struct shmd_event *event, const char *word) {
        if (watching->ctl->json)
                print_json(event, word);
        else if (!watching->ctl->quiet)
                print_text(event, word);
        (void)fflush(stdout);
}

static void print_event(Watching *watching, const struct shmd_event *event) {
        bool always = event->event == SHMD_EVENT_OVERFLOW || (event->itself && event->event == SHMD_EVENT_REMOVED);

        if (watching->over || (!always && !(event->event & watching->args.mask)))
                return;
        print_line(watching, event, word_of(event->event));
        watching->over = (event->itself && event->event == SHMD_EVENT_REMOVED) ||
                         ++watching->n == watching->args.count;
}

/* -- events ------------------------------------------------------------------------------- */

static char *copy(const char *text) {
        char *s = text ? strdup(text) : NULL;

        if (text && !s)
                output_oom();
        return s;
}

static void keep(Watching *watching, const struct shmd_event *event) {
        Kept *kept = malloc(sizeof(*kept));

        if (!kept)
                output_oom();
        *kept = (Kept){ .event = *event, .path = copy(event->path), .to = copy(event->to) };
        kept->event.path = kept->path;
        kept->event.to = kept->to;
        list_append(&watching->kept, &kept->link);
}

static void kept_free(Kept *kept) {
        list_unlink(&kept->link);
        free(kept->path);
        free(kept->to);
        free(kept);
}

static void heard(shmd *client, const struct shmd_event *event, void *userdata) {
        Watching *watching = userdata;

        (void)client;
        if (event->event == SHMD_EVENT_LOST)
                watching->error = event->error;
        else if (watching->listing)
                keep(watching, event);
        else
                print_event(watching, event);
}

/* It is no event of a name: it counts for no --count. */
static void print_link(const struct shmd_event *event) {
        bool back = event->event == SHMD_EVENT_RECONNECTED;
        json_t *o = json_object();

        output_set(o, "event", output_string(back ? "reconnected" : "disconnected"));
        if (back)
                output_set(o, "resumed", json_boolean(event->resumed));
        output_json_line(o, stdout);
        (void)fflush(stdout);
}

static void heard_link(shmd *client, const struct shmd_event *event, void *userdata) {
        const Watching *watching = userdata;

        (void)client;
        if (!watching->ctl->json)
                ctl_say_link(watching->ctl, event);
        else if (event->event != SHMD_EVENT_LOST)
                print_link(event);
}

/* -- the list ----------------------------------------------------------------------------- */

/* The order of a list: a directory is followed by what is below it. */
static int list_order(const char *a, const char *b) {
        for (; *a && *a == *b; ++a, ++b)
                ;
        if (*a == '/' || *b == '/')
                return *a == *b ? 0 : !*a ? -1 : !*b ? 1 : *a == '/' ? -1 : 1;
        return (unsigned char)*a - (unsigned char)*b;
}

/* Whether the page in which a name stands, or would stand, was made after an event. */
static bool is_listed(const Watching *watching, const char *path, uint64_t sequence) {
        for (size_t i = 0; i < watching->n_pages; ++i) {
                const Page *page = &watching->pages[i];

                if (!page->last || list_order(path, page->last) <= 0)
                        return sequence <= page->sequence;
        }
        return false;
}

/* Whether an event says that the pages do not fit together. */
static bool tears_list(const Watching *watching, const struct shmd_event *event) {
        uint32_t moves = SHMD_EVENT_RENAMED | SHMD_EVENT_REPLACED;

        return watching->n_pages > 1 && event->event & (moves | SHMD_EVENT_OVERFLOW) &&
               (event->kind == SHMD_NODE_DIRECTORY || event->exchange || event->event == SHMD_EVENT_OVERFLOW) &&
               event->sequence > watching->pages[0].sequence &&
               event->sequence <= watching->pages[watching->n_pages - 1].sequence;
}

static bool is_torn(const Watching *watching) {
        Kept *kept;

        list_for_each(kept, &watching->kept, Kept, link)
                if (tears_list(watching, &kept->event))
                        return true;
        return false;
}

/* What of a kept event the list does not have. */
static void print_news(Watching *watching, const struct shmd_event *event) {
        bool path = is_listed(watching, event->path, event->sequence);
        bool to = event->to && is_listed(watching, event->to, event->sequence);
        struct shmd_event half = *event;

        if (event->itself || event->account || event->event & (SHMD_EVENT_HOLDERS | SHMD_EVENT_OVERFLOW) ||
            (!path && !to)) {
                print_event(watching, event);
                return;
        }
        if (!event->to || (path && to))
                return;
        half.event = event->exchange ? SHMD_EVENT_REPLACED : path ? SHMD_EVENT_CREATED : SHMD_EVENT_REMOVED;
        half.path = path ? event->to : event->path;
        half.to = NULL;
        print_event(watching, &half);
}

static void pages_free(Watching *watching) {
        for (size_t i = 0; i < watching->n_pages; ++i)
                free(watching->pages[i].last);
        free(watching->pages);
        watching->pages = NULL;
        watching->n_pages = 0;
}

static void page_add(Watching *watching, const struct shmd_list_result *list) {
        Page *pages = realloc(watching->pages, (watching->n_pages + 1) * sizeof(*pages));

        if (!pages)
                output_oom();
        watching->pages = pages;
        pages[watching->n_pages++] = (Page){ .sequence = list->sequence, .last = copy(list->cursor) };
}

/* A name there is, kept as an event until all of them are known. */
static void list_node(List *names, const struct shmd_node *node, uint64_t sequence) {
        Kept *kept = malloc(sizeof(*kept));

        if (!kept)
                output_oom();
        *kept = (Kept){ .path = copy(node->path) };
        kept->event = (struct shmd_event){ .sequence = sequence, .path = kept->path, .kind = node->kind,
                                           .region = node->region };
        list_append(names, &kept->link);
}

static int list_once(Watching *watching, List *names) {
        CLEANUP(shmd_list_freep) struct shmd_list_result *list = NULL;
        char *cursor = NULL;
        Kept *kept;
        int r;

        while ((kept = list_first(names, Kept, link)))
                kept_free(kept);
        pages_free(watching);
        do {
                list = shmd_list_free(list);
                r = shmd_list(watching->ctl->client, watching->args.path, SHMD_LIST_RECURSIVE, cursor, 0, &list,
                              SHMD_TIMEOUT_DEFAULT);
                free(cursor);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < list->n; ++i)
                        list_node(names, &list->nodes[i], list->sequence);
                page_add(watching, list);
                cursor = copy(list->cursor);
        } while (cursor);
        return 0;
}

/* One name and not a directory. */
static int list_one(Watching *watching, List *names) {
        CLEANUP(shmd_stat_freep) struct shmd_stat_result *result = NULL;
        int r = shmd_stat(watching->ctl->client, watching->args.path, 0, 0, &result, SHMD_TIMEOUT_DEFAULT);

        if (r < 0)
                return r;
        list_node(names, &result->node, 0);
        return 0;
}

static int list_all(Watching *watching) {
        List names = LIST_INIT(names);
        unsigned int n = 0;
        Kept *kept;
        int r;

        do
                r = list_once(watching, &names);
        while (r == 0 && is_torn(watching) && ++n < LISTS_MAX);
        if (r == -ENOTDIR)
                r = list_one(watching, &names);
        while ((kept = list_first(&names, Kept, link))) {
                if (r == 0)
                        print_line(watching, &kept->event, "exists");
                kept_free(kept);
        }
        watching->listing = false;
        while ((kept = list_first(&watching->kept, Kept, link))) {
                if (r == 0)
                        print_news(watching, &kept->event);
                kept_free(kept);
        }
        pages_free(watching);
        return r;
}

/* -- watch -------------------------------------------------------------------------------- */

static uint64_t now_ns(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int listen_on(Watching *watching, uint64_t timeout_ns) {
        uint64_t until = 0, now;

        if (timeout_ns != SHMD_TIMEOUT_NONE && __builtin_add_overflow(now_ns(), timeout_ns, &until))
                until = 0;
        while (!watching->over && !watching->error) {
                uint64_t left = SHMD_TIMEOUT_NONE;

                if (until) {
                        now = now_ns();
                        if (now >= until)
                                return watching->args.count ?
                                       fail_call(watching->ctl, watching->args.path, -ETIMEDOUT) : CTL_DONE;
                        left = until - now;
                }
                (void)shmd_process(watching->ctl->client, left);
        }
        return watching->over ? CTL_DONE : fail_call(watching->ctl, watching->args.path, watching->error);
}

int command_watch(Ctl *ctl, int argc, char **argv) {
        Watching watching = { .ctl = ctl, .args = { .path = "/", .mask = MASK_DEFAULT } };
        uint64_t watch, timeout_ns;
        uint32_t mask;
        int r;

        list_init(&watching.kept);
        ctl_parse(ctl, &watching.args, argc, argv);
        timeout_ns = ctl->timeout_ns == SHMD_TIMEOUT_DEFAULT ? SHMD_TIMEOUT_NONE : ctl->timeout_ns;
        watching.listing = watching.args.list;
        r = ctl_connect(ctl);
        if (r)
                return r;
        mask = watching.args.mask | (watching.args.list ? SHMD_EVENT_RENAMED | SHMD_EVENT_REPLACED : 0);
        r = shmd_watch(ctl->client, watching.args.path, mask, 0, heard, &watching, &watch, NULL, SHMD_TIMEOUT_DEFAULT);
        if (r == 0)
                r = shmd_set_listener(ctl->client, heard_link, &watching);
        if (r < 0)
                return fail_call(ctl, watching.args.path, r);
        r = watching.args.list ? list_all(&watching) : 0;
        r = r < 0 ? fail_call(ctl, watching.args.path, r) : listen_on(&watching, timeout_ns);
        /* Its callbacks must not run when the connection is closed: what they need ends here. */
        (void)shmd_set_listener(ctl->client, NULL, NULL);
        (void)shmd_unwatch_start(ctl->client, watch, SHMD_TIMEOUT_DEFAULT, NULL, NULL, NULL);
        return r;
}
