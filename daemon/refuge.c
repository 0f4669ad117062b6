/* The refuge: see the header for the model. */

#include "refuge.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service.h"
#include "util/error.h"
#include "util/log.h"

struct Refuge {
        Names *names;
        Deadlines *deadlines;
        FdStore *store;
        Bundle *bundle;
        Deadline tend;
        char inbox[FDSTORE_NAME_MAX];   /* "": none is stored */
        unsigned int last_inbox;
        bool full;                      /* has been said */
};

/* -- what the bundle wants ------------------------------------------------------------------ */

static int find_kept(void *userdata, const char *name) {
        const Refuge *refuge = userdata;

        return names_find(refuge->names, name);
}

static int store(void *userdata, const char *name, int fd) {
        Refuge *refuge = userdata;
        int r = fdstore_push(refuge->store, name, fd);

        return r == FDSTORE_E_BUSY ? -EBUSY : r;
}

static void unstore(void *userdata, const char *name) {
        Refuge *refuge = userdata;

        fdstore_remove(refuge->store, name);
        fdstore_flush(refuge->store);
}

/* -- life ------------------------------------------------------------------------------------- */

int refuge_new(Refuge **ret, Names *names, Deadlines *deadlines, uint64_t max, size_t n_stored) {
        CLEANUP(refuge_freep) Refuge *refuge = NULL;
        BundleOptions options = { .max = (size_t)max, .find = find_kept, .store = store, .unstore = unstore };
        size_t room = service_store_room();
        int r;

        *ret = NULL;
        if (room == SIZE_MAX)
                return 0;
        refuge = calloc(1, sizeof(*refuge));
        if (!refuge)
                return error_origin(-ENOMEM);
        refuge->names = names;
        refuge->deadlines = deadlines;
        /* The program before this one stored what it did not pass on. */
        r = service_store(&refuge->store, deadlines, n_stored + room);
        if (r)
                return error_fold(r);
        options.userdata = refuge;
        r = bundle_new(&refuge->bundle, &options);
        if (r)
                return error_fold(r);
        *ret = refuge;
        refuge = NULL;
        return 0;
}

Refuge *refuge_free(Refuge *refuge) {
        if (!refuge)
                return NULL;
        deadline_disarm(&refuge->tend);
        if (refuge->bundle)
                bundle_tidy(refuge->bundle);
        bundle_free(refuge->bundle);
        fdstore_free(refuge->store);
        free(refuge);
        return NULL;
}

/* -- as it goes ------------------------------------------------------------------------------- */

/* What waits for longer than a moment is said, once. */
static void look_at_room(Refuge *refuge) {
        BundleFigures figures;
        LogLine line;

        bundle_figures(refuge->bundle, &figures);
        if (!figures.waiting || refuge->full) {
                refuge->full = refuge->full && figures.waiting;
                return;
        }
        refuge->full = true;
        log_begin(&line, LOG_WARN, "degraded");
        log_text(&line, "missing", "refuge");
        log_u64(&line, "parked", figures.parked);
        log_u64(&line, "waiting", figures.waiting);
        log_text(&line, "consequence", "what waits is lost if the keeper is killed, and if the service is restarted");
        log_end(&line);
}

static void tend(Deadline *deadline, void *userdata) {
        Refuge *refuge = userdata;
        int ms = bundle_tend(refuge->bundle, time_now());

        look_at_room(refuge);
        if (ms >= 0)
                deadline_arm(deadline, refuge->deadlines, time_now() + (uint64_t)ms * NSEC_PER_MSEC, tend, refuge);
}

/* Something has changed; all of a turn is looked at together. */
static void tend_soon(Refuge *refuge) {
        deadline_arm(&refuge->tend, refuge->deadlines, 0, tend, refuge);
}

void refuge_add(Refuge *refuge, const char *name, int fd) {
        LogLine line;
        int r;

        if (!refuge)
                return;
        r = bundle_add(refuge->bundle, name, fd);
        if (r) {
                log_begin(&line, LOG_ERROR, "not-parked");
                log_text(&line, "name", name);
                log_errno(&line, "error", r);
                log_end(&line);
        }
        tend_soon(refuge);
}

void refuge_remove(Refuge *refuge, int fd) {
        if (!refuge)
                return;
        bundle_remove(refuge->bundle, fd);
        tend_soon(refuge);
}

/* If there is no room for it now, what is in this queue at the keeper's end is lost with it, and nothing else. */
void refuge_link(Refuge *refuge, int socket) {
        if (!refuge)
                return;
        (void)snprintf(refuge->inbox, sizeof(refuge->inbox), INBOX_PREFIX "%u", ++refuge->last_inbox);
        if (fdstore_push(refuge->store, refuge->inbox, socket))
                *refuge->inbox = '\0';
}

void refuge_unlink(Refuge *refuge) {
        if (!refuge || !*refuge->inbox)
                return;
        unstore(refuge, refuge->inbox);
        *refuge->inbox = '\0';
}

/* -- from one program to the next --------------------------------------------------------------- */

static bool begins_with(const char *name, const char *prefix) {
        return !strncmp(name, prefix, strlen(prefix));
}

void refuge_leave(Refuge *refuge) {
        char name[FDSTORE_NAME_MAX];
        int fd;

        for (size_t i = 0; refuge && bundle_end(refuge->bundle, i, name, &fd); ++i)
                if (fcntl(fd, F_SETFD, 0) < 0 || names_put(refuge->names, fd, name))
                        return;
}

void refuge_stay(Refuge *refuge) {
        char name[FDSTORE_NAME_MAX];
        int fd;

        for (size_t i = 0; refuge && bundle_end(refuge->bundle, i, name, &fd); ++i)
                if (names_take(refuge->names, name) >= 0)
                        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* The bundle's ends are nothing that is kept for the broker. */
static int take_out_ends(Refuge *refuge, Kept *kept, size_t *n) {
        size_t n_rest = 0;
        int r = 0;

        for (size_t i = 0; i < *n; ++i) {
                if (!begins_with(kept[i].name, BUNDLE_PREFIX)) {
                        kept[n_rest++] = kept[i];
                        continue;
                }
                (void)names_take(refuge->names, kept[i].name);
                if (!r)
                        r = bundle_adopt_consume_fd(refuge->bundle, kept[i].name, kept[i].fd);
        }
        *n = n_rest;
        return error_fold(r);
}

int refuge_return(Refuge *refuge) {
        CLEANUP(freep) Kept *kept = NULL;
        size_t n;
        int r;

        if (!refuge)
                return 0;
        r = names_read(names_fd(refuge->names), names_end(refuge->names), &kept, &n);
        if (!r)
                r = take_out_ends(refuge, kept, &n);
        if (!r)
                r = bundle_settle(refuge->bundle, kept, n);
        tend_soon(refuge);
        return error_fold(r);
}

/* -- from one process to the next --------------------------------------------------------------- */

static unsigned int inbox_number(const char *name) {
        return (unsigned int)strtoul(name + strlen(INBOX_PREFIX), NULL, 10);
}

/* The bundle first, as no pair may be made before all of its own are known; what a broker stored one by one; at last
 * the queues, in the order in which they were made. */
static int rank(const char *name) {
        return begins_with(name, BUNDLE_PREFIX) ? 0 : begins_with(name, INBOX_PREFIX) ? 2 : 1;
}

static int compare_stored(const void *a, const void *b) {
        const Kept *x = a, *y = b;
        int order = rank(x->name) - rank(y->name);

        if (order || rank(x->name) < 2)
                return order;
        return inbox_number(x->name) < inbox_number(y->name) ? -1 : 1;
}

/* Return: whether it is kept now; else it is closed. */
static bool keep(Refuge *refuge, const Kept *one) {
        bool kept = fcntl(one->fd, F_GET_SEALS) >= 0 && fcntl(one->fd, F_SETFD, 0) == 0 &&
                    names_put(refuge->names, one->fd, one->name) == 0;

        if (!kept)
                (void)close(one->fd);
        return kept;
}

/* Takes what is in the bundle. */
static int take_bundle(Refuge *refuge) {
        CLEANUP(freep) Kept *kept = NULL;
        size_t n = 0, n_kept = 0;
        int r, s;

        r = bundle_take_all(refuge->bundle, &kept, &n);
        for (size_t i = 0; i < n; ++i)
                if (keep(refuge, &kept[i]))
                        kept[n_kept++] = kept[i];
        s = bundle_settle(refuge->bundle, kept, n_kept);
        return error_fold(r ? r : s);
}

/* A broker that ran without a keeper stored what it had one by one. */
static void take_single(Refuge *refuge, const Kept *one) {
        if (keep(refuge, one))
                refuge_add(refuge, one->name, one->fd);
        unstore(refuge, one->name);
}

static void take_inbox(Refuge *refuge, const Kept *one, RefugeQueueFn fn, void *userdata) {
        fn(userdata, one->fd);
        unstore(refuge, one->name);
        (void)close(one->fd);
        refuge->last_inbox = inbox_number(one->name);
}

int refuge_take_consume_fds(Refuge *refuge, Kept *stored, size_t n, RefugeQueueFn fn, void *userdata) {
        size_t i;
        int r = 0;

        for (i = 0; !refuge && i < n; ++i)
                (void)close(stored[i].fd);
        if (!refuge || !n)
                return 0;
        qsort(stored, n, sizeof(*stored), compare_stored);
        for (i = 0; i < n && rank(stored[i].name) == 0; ++i) {
                int s = bundle_adopt_consume_fd(refuge->bundle, stored[i].name, stored[i].fd);

                r = r ? r : s;
        }
        if (!r)
                r = take_bundle(refuge);
        for (; i < n && rank(stored[i].name) == 1; ++i)
                take_single(refuge, &stored[i]);
        for (; i < n; ++i)
                take_inbox(refuge, &stored[i], fn, userdata);
        tend_soon(refuge);
        return error_fold(r);
}
