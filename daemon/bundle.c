/* The bundle: see the header for the model. */

#include "bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "util/error.h"

/* Descriptors in one message: SCM_MAX_FD of the kernel. */
#define FULL 253
/* Messages that one call of bundle_tend() moves. */
#define MOVES 8
/* Litter lies about for a second at most, and cleaning takes at most a twentieth of the time. */
#define LITTER_NS UINT64_C(1000000000)
#define REST 20
/* When to try again what the kernel had no room for. */
#define RETRY_MS 100

/* What a message says of one descriptor. The serial number tells which of two with the same name is the later. */
typedef struct Entry {
        uint64_t serial;
        char name[FDSTORE_NAME_MAX];
} Entry;

/* Descriptors and what is said of them, as they travel. */
typedef struct Load {
        size_t n;
        Entry entries[FULL];
        int fds[FULL];
} Load;

typedef struct Pair {
        unsigned int number;
        int in;
        int out;
        bool leaving;           /* is being emptied, and then given up */
        bool counted;           /* what is in it, in n_parked; not what another process left */
} Pair;

#define PAIR_NULL { .in = -1, .out = -1 }

/* What is in the young pair, the nursery, or waits to be. */
typedef struct Young {
        Entry entry;
        int fd;
} Young;

/* What is known of a descriptor, by its number. */
typedef struct Spot {
        size_t young;           /* one more than its place among the young; 0: it is none of them */
        unsigned int pass;      /* the last one in which it was moved */
        bool parked;
} Spot;

struct Bundle {
        BundleOptions options;
        unsigned int last_pair;
        uint64_t last_serial;
        bool unsure;            /* what is parked is not known */

        Pair *pairs;
        size_t n_pairs;
        Pair nursery;           /* the young pair */
        Young *young;
        size_t n_young, room_young;
        size_t n_waiting;       /* of the young, the last ones */
        size_t n_messages;      /* in the nursery */
        size_t n_nursed;        /* descriptors in these */

        Spot *spots;
        size_t n_spots;
        size_t n_parked;        /* descriptors in all pairs */
        size_t n_needed;        /* spots that are parked */

        bool moving;            /* a pass is under way */
        unsigned int pass;
        uint64_t littered;      /* when the first of the litter was dropped; 0: there is none */
        uint64_t began, rest_until;

        Load load;              /* what is on the move */
};

int bundle_new(Bundle **ret, const BundleOptions *options) {
        Bundle *bundle = calloc(1, sizeof(*bundle));

        if (!bundle)
                return error_origin(-ENOMEM);
        bundle->options = *options;
        bundle->nursery = (Pair)PAIR_NULL;
        *ret = bundle;
        return 0;
}

static void pair_close(Pair *pair) {
        pair->in = close_fd(pair->in);
        pair->out = close_fd(pair->out);
}

Bundle *bundle_free(Bundle *bundle) {
        if (!bundle)
                return NULL;
        for (size_t i = 0; i < bundle->n_pairs; ++i)
                pair_close(&bundle->pairs[i]);
        pair_close(&bundle->nursery);
        free(bundle->pairs);
        free(bundle->young);
        free(bundle->spots);
        free(bundle);
        return NULL;
}

/* -- pairs ---------------------------------------------------------------------------------------- */

static void end_name(const Pair *pair, bool out, char name[static FDSTORE_NAME_MAX]) {
        (void)snprintf(name, FDSTORE_NAME_MAX, BUNDLE_PREFIX "%u-%s", pair->number, out ? "out" : "in");
}

static void pair_give_up(Bundle *bundle, Pair *pair) {
        char name[FDSTORE_NAME_MAX];

        for (unsigned int out = 0; out < 2; ++out) {
                end_name(pair, out, name);
                bundle->options.unstore(bundle->options.userdata, name);
        }
        pair_close(pair);
}

static int pair_store(Bundle *bundle, const Pair *pair) {
        char in[FDSTORE_NAME_MAX], out[FDSTORE_NAME_MAX];
        int r;

        end_name(pair, false, in);
        end_name(pair, true, out);
        r = bundle->options.store(bundle->options.userdata, in, pair->in);
        if (r)
                return r;
        r = bundle->options.store(bundle->options.userdata, out, pair->out);
        if (r)
                bundle->options.unstore(bundle->options.userdata, in);
        return r;
}

static int pair_open(Bundle *bundle, Pair *ret) {
        int fds[2], most = INT_MAX / 2, r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
                return error_origin(-errno);
        /* As much as net.core.wmem_max allows. */
        (void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &most, sizeof(most));
        *ret = (Pair){ .number = bundle->last_pair + 1, .in = fds[0], .out = fds[1], .counted = true };
        r = pair_store(bundle, ret);
        if (r) {
                pair_close(ret);
                return r == -EAGAIN ? -EBUSY : r;
        }
        ++bundle->last_pair;
        return 0;
}

static int pairs_add(Bundle *bundle, const Pair *pair) {
        Pair *pairs = reallocarray(bundle->pairs, bundle->n_pairs + 1, sizeof(*pairs));

        if (!pairs)
                return error_origin(-ENOMEM);
        bundle->pairs = pairs;
        bundle->pairs[bundle->n_pairs++] = *pair;
        return 0;
}

static void pairs_remove(Bundle *bundle, size_t i) {
        pair_give_up(bundle, &bundle->pairs[i]);
        --bundle->n_pairs;
        memmove(&bundle->pairs[i], &bundle->pairs[i + 1], (bundle->n_pairs - i) * sizeof(bundle->pairs[i]));
}

/* Return: 0, -EAGAIN (the queue is full), -ETOOMANYREFS (the user has too much in flight), another negative errno. */
static int pair_send(const Pair *pair, const Load *load) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(FULL * sizeof(int))];
        } control;
        struct iovec iov = { .iov_base = (void *)load->entries, .iov_len = load->n * sizeof(load->entries[0]) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = CMSG_SPACE(load->n * sizeof(int)),
        };
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);

        memset(&control, 0, sizeof(control));
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(load->n * sizeof(int));
        memcpy(CMSG_DATA(header), load->fds, load->n * sizeof(int));
        return sendmsg(pair->in, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? error_origin(-errno) : 0;
}

static void load_close(Load *load) {
        for (size_t i = 0; i < load->n; ++i)
                load->fds[i] = close_fd(load->fds[i]);
}

/* Copies the first message of the queue, which stays there; with_fds: its descriptors as well.
 * Return: 0, -EAGAIN (the queue is empty), -EMFILE, another negative errno. */
static int queue_peek(int out, Load *ret, bool with_fds) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(FULL * sizeof(int))];
        } control;
        struct iovec iov = { .iov_base = ret->entries, .iov_len = sizeof(ret->entries) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = with_fds ? &control : NULL,
                .msg_controllen = with_fds ? sizeof(control) : 0,
        };
        struct cmsghdr *header;
        size_t n_fds = 0;
        ssize_t n;

        n = recvmsg(out, &message, MSG_PEEK | MSG_DONTWAIT);
        if (n < 0)
                return error_origin(-errno);
        ret->n = (size_t)n / sizeof(ret->entries[0]);
        for (size_t i = 0; i < ret->n; ++i)
                ret->entries[i].name[FDSTORE_NAME_MAX - 1] = '\0';
        if (!with_fds)
                return 0;

        header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
                n_fds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(ret->fds, CMSG_DATA(header), n_fds * sizeof(int));
        }
        if (message.msg_flags & MSG_CTRUNC || n_fds < ret->n) {
                ret->n = n_fds;
                load_close(ret);
                return error_origin(-EMFILE);
        }
        return 0;
}

/* Drops the first message: without a place to put them in, the kernel closes its descriptors. */
static void queue_drop(int out) {
        char byte;

        (void)recv(out, &byte, sizeof(byte), MSG_DONTWAIT);
}

/* -- spots ---------------------------------------------------------------------------------------- */

static int spots_reach(Bundle *bundle, int fd) {
        size_t n = bundle->n_spots ? bundle->n_spots : 64;
        Spot *spots;

        if ((size_t)fd < bundle->n_spots)
                return 0;
        while (n <= (size_t)fd)
                n *= 2;
        spots = reallocarray(bundle->spots, n, sizeof(*spots));
        if (!spots)
                return error_origin(-ENOMEM);
        memset(spots + bundle->n_spots, 0, (n - bundle->n_spots) * sizeof(*spots));
        bundle->spots = spots;
        bundle->n_spots = n;
        return 0;
}

static void set_parked(Bundle *bundle, int fd, bool parked) {
        Spot *spot = &bundle->spots[fd];

        if (spot->parked != parked) {
                spot->parked = parked;
                bundle->n_needed += parked ? 1 : (size_t)-1;
        }
}

/* -- the old pairs -------------------------------------------------------------------------------- */

/* Parks what is in the load, in a pair that is not leaving. Return: as pair_send(), or -ENOMEM. */
static int park(Bundle *bundle, const Load *load) {
        Pair *last = bundle->n_pairs ? &bundle->pairs[bundle->n_pairs - 1] : NULL;
        Pair pair;
        int r;

        if (!load->n)
                return 0;
        if (bundle->n_parked + load->n > bundle->options.max)
                return error_origin(-ETOOMANYREFS);
        r = last && !last->leaving ? pair_send(last, load) : -EAGAIN;
        if (r == -EAGAIN) {
                r = pair_open(bundle, &pair);
                if (!r && (r = pairs_add(bundle, &pair)))
                        pair_give_up(bundle, &pair);
                if (!r)
                        r = pair_send(&bundle->pairs[bundle->n_pairs - 1], load);
        }
        if (!r)
                bundle->n_parked += load->n;
        return r;
}

/* -- the young ------------------------------------------------------------------------------------ */

static int young_append(Bundle *bundle, const Entry *entry, int fd) {
        size_t room = bundle->room_young ? bundle->room_young * 2 : 2 * FULL;
        Young *young = bundle->young;

        if (bundle->n_young == bundle->room_young) {
                young = reallocarray(young, room, sizeof(*young));
                if (!young)
                        return error_origin(-ENOMEM);
                bundle->young = young;
                bundle->room_young = room;
        }
        young[bundle->n_young] = (Young){ .entry = *entry, .fd = fd };
        bundle->spots[fd].young = ++bundle->n_young;
        ++bundle->n_waiting;
        return 0;
}

static void young_move(Bundle *bundle, size_t to, size_t from) {
        bundle->young[to] = bundle->young[from];
        bundle->spots[bundle->young[to].fd].young = to + 1;
}

/* Those who wait stay the last ones. */
static void young_remove(Bundle *bundle, size_t i) {
        size_t first_waiting = bundle->n_young - bundle->n_waiting;

        bundle->spots[bundle->young[i].fd].young = 0;
        if (i < first_waiting) {
                if (i < --first_waiting)
                        young_move(bundle, i, first_waiting);
                i = first_waiting;
        } else {
                --bundle->n_waiting;
        }
        if (i < --bundle->n_young)
                young_move(bundle, i, bundle->n_young);
}

static void load_young(Bundle *bundle, Load *load, size_t first) {
        load->n = bundle->n_young - first < FULL ? bundle->n_young - first : FULL;
        for (size_t i = 0; i < load->n; ++i) {
                load->entries[i] = bundle->young[first + i].entry;
                load->fds[i] = bundle->young[first + i].fd;
        }
}

/* The load, which is of young ones, goes into the nursery. */
static int nurse_load(Bundle *bundle, const Load *load) {
        int r = bundle->nursery.in < 0 ? pair_open(bundle, &bundle->nursery) : 0;

        if (!r)
                r = pair_send(&bundle->nursery, load);
        if (r)
                return r;
        bundle->n_parked += load->n;
        bundle->n_nursed += load->n;
        ++bundle->n_messages;
        return 0;
}

/* Sends those who wait to the nursery: one by one as they come, more at once if more wait. What is moved may use
 * the last room, which is kept for it. */
static int nurse(Bundle *bundle, bool moved) {
        Load *load = &bundle->load;
        int r;

        while (bundle->n_waiting > 0) {
                load_young(bundle, load, bundle->n_young - bundle->n_waiting);
                if (bundle->n_parked + load->n + (moved ? 0 : FULL) > bundle->options.max)
                        return error_origin(-ETOOMANYREFS);
                r = nurse_load(bundle, load);
                if (r)
                        return r;
                for (size_t i = 0; i < load->n; ++i)
                        set_parked(bundle, load->fds[i], true);
                bundle->n_waiting -= load->n;
        }
        return 0;
}

/* Parks the young in old pairs, as full messages and at last one that is at least half full; what is less stays
 * young, but as one message. Then the nursery's other messages go. */
static int promote(Bundle *bundle) {
        size_t n_messages = bundle->n_messages, n_nursed = bundle->n_nursed;
        Load *load = &bundle->load;
        int r;

        while (bundle->n_young >= FULL / 2) {
                load_young(bundle, load, bundle->n_young > FULL ? bundle->n_young - FULL : 0);
                r = park(bundle, load);
                if (r)
                        return r;
                for (size_t i = 0; i < load->n; ++i) {
                        set_parked(bundle, load->fds[i], true);
                        young_remove(bundle, bundle->n_young - 1);
                }
        }
        bundle->n_waiting = bundle->n_young;
        r = nurse(bundle, true);
        if (r == -EAGAIN) {
                load_young(bundle, load, 0);
                r = park(bundle, load);
        }
        if (r)
                return r;
        for (size_t i = 0; i < n_messages; ++i)
                queue_drop(bundle->nursery.out);
        bundle->n_parked -= n_nursed;
        bundle->n_nursed -= n_nursed;
        bundle->n_messages -= n_messages;
        return 0;
}

/* Return: 0 if nobody waits any more. */
static int settle_young(Bundle *bundle, bool moved) {
        int r = nurse(bundle, moved);

        if (r == -EAGAIN || bundle->n_messages >= FULL || bundle->n_young >= FULL)
                r = promote(bundle);
        return r;
}

int bundle_add(Bundle *bundle, const char *name, int fd) {
        bool crowded = bundle->n_waiting > 0;
        Entry entry = { .serial = ++bundle->last_serial };
        int r;

        ASSERT(fd >= 0 && strlen(name) < sizeof(entry.name));
        memcpy(entry.name, name, strlen(name) + 1);
        r = spots_reach(bundle, fd);
        if (!r)
                r = young_append(bundle, &entry, fd);
        /* What has to wait is no error: bundle_tend() goes on with it. */
        if (!r && !crowded)
                (void)settle_young(bundle, false);
        return r;
}

void bundle_remove(Bundle *bundle, int fd) {
        Spot *spot = (size_t)fd < bundle->n_spots ? &bundle->spots[fd] : NULL;

        if (!spot)
                return;
        if (spot->young > 0)
                young_remove(bundle, spot->young - 1);
        set_parked(bundle, fd, false);
}

/* -- moving --------------------------------------------------------------------------------------- */

static size_t litter(const Bundle *bundle) {
        return bundle->n_parked - bundle->n_needed;
}

/* Of a load as it was peeked, leaves what is needed and was not moved before in this pass. */
static int sift(Bundle *bundle, Load *load) {
        size_t n = 0;

        for (size_t i = 0; i < load->n; ++i) {
                int fd = bundle->options.find(bundle->options.userdata, load->entries[i].name), r;

                if (load->entries[i].serial > bundle->last_serial)
                        bundle->last_serial = load->entries[i].serial;
                if (fd < 0)
                        continue;
                r = spots_reach(bundle, fd);
                if (r)
                        return r;
                if (bundle->spots[fd].pass == bundle->pass)
                        continue;
                load->entries[n] = load->entries[i];
                load->fds[n++] = fd;
        }
        load->n = n;
        return 0;
}

static void mark_moved(Bundle *bundle, int fd) {
        bundle->spots[fd].pass = bundle->pass;
        set_parked(bundle, fd, true);
}

/* What was sifted is parked again, small messages through the nursery, so that they become full ones. */
static int move_load(Bundle *bundle, const Load *load) {
        int r;

        if (load->n >= FULL / 2) {
                r = park(bundle, load);
                for (size_t i = 0; !r && i < load->n; ++i)
                        mark_moved(bundle, load->fds[i]);
                return r;
        }
        for (size_t i = 0; i < load->n; ++i) {
                r = young_append(bundle, &load->entries[i], load->fds[i]);
                if (r)
                        return r;
                mark_moved(bundle, load->fds[i]);
        }
        return settle_young(bundle, true);
}

/* Moves the first message of a pair. What failed halfway waits among the young, and is first the next time.
 * Return: 0, -EAGAIN (there is none), as park(), or -ENOMEM. */
static int move_message(Bundle *bundle, const Pair *pair) {
        Load *load = &bundle->load;
        bool counted = pair->counted;
        int out = pair->out, r;
        size_t n_before;

        r = settle_young(bundle, true);
        if (!r)
                r = queue_peek(out, load, false);
        if (r)
                return r;
        n_before = load->n;
        r = sift(bundle, load);
        if (!r)
                r = move_load(bundle, load);
        if (r)
                return r;
        queue_drop(out);
        bundle->n_parked -= counted ? n_before : 0;
        return 0;
}

/* Pairs that are leaving are the first of all. */
static bool is_one_leaving(const Bundle *bundle) {
        return bundle->n_pairs > 0 && bundle->pairs[0].leaving;
}

/* From now on everything is moved. */
static void begin_moving(Bundle *bundle) {
        for (size_t i = 0; i < bundle->n_pairs; ++i)
                bundle->pairs[i].leaving = true;
        bundle->moving = true;
        ++bundle->pass;
}

/* Moves n messages at most. Return: 0 if more are left, -EAGAIN if there are none, as move_message(). */
static int move_messages(Bundle *bundle, size_t n) {
        int r;

        for (; is_one_leaving(bundle) && n > 0; --n) {
                r = move_message(bundle, &bundle->pairs[0]);
                if (r == -EAGAIN)
                        pairs_remove(bundle, 0);
                else if (r)
                        return r;
        }
        if (is_one_leaving(bundle))
                return 0;
        /* What is left is the nursery's litter. */
        r = promote(bundle);
        if (r)
                return r;
        bundle->moving = false;
        return -EAGAIN;
}

static uint64_t when_to_move(Bundle *bundle, uint64_t now) {
        uint64_t when;

        if (!bundle->littered)
                bundle->littered = now;
        when = bundle->littered;
        if (litter(bundle) < FULL || litter(bundle) < bundle->n_needed / 2)
                when += LITTER_NS;
        return when > bundle->rest_until ? when : bundle->rest_until;
}

int bundle_tend(Bundle *bundle, uint64_t now) {
        uint64_t when;
        int r;

        if (bundle->n_waiting > 0 && settle_young(bundle, false))
                return RETRY_MS;
        if (bundle->moving) {
                r = move_messages(bundle, MOVES);
                if (r != -EAGAIN)
                        return r ? RETRY_MS : 0;
                bundle->littered = 0;
                bundle->rest_until = now + REST * (now - bundle->began);
        }
        if (litter(bundle) == 0)
                return -1;
        when = when_to_move(bundle, now);
        if (when > now)
                return (int)((when - now) / NSEC_PER_MSEC) + 1;
        begin_moving(bundle);
        bundle->began = now;
        return 0;
}

void bundle_tidy(Bundle *bundle) {
        int r = 0;

        if (!bundle->moving && litter(bundle) > 0)
                begin_moving(bundle);
        while (!r && bundle->moving)
                r = move_messages(bundle, MOVES);
}

/* -- from one process to the next ------------------------------------------------------------------ */

bool bundle_end(const Bundle *bundle, size_t i, char name[static FDSTORE_NAME_MAX], int *ret_fd) {
        const Pair *pair = i / 2 < bundle->n_pairs ? &bundle->pairs[i / 2] : &bundle->nursery;

        if (i / 2 > bundle->n_pairs || pair->in < 0)
                return false;
        end_name(pair, i % 2, name);
        *ret_fd = i % 2 ? pair->out : pair->in;
        return true;
}

/* Return: whether it is the name of an end. */
static bool parse_end(const char *name, Pair *ret, bool *ret_out) {
        char again[FDSTORE_NAME_MAX];

        *ret = (Pair)PAIR_NULL;
        if (sscanf(name, BUNDLE_PREFIX "%u", &ret->number) != 1)
                return false;
        end_name(ret, false, again);
        *ret_out = strcmp(name, again) != 0;
        end_name(ret, *ret_out, again);
        return strcmp(name, again) == 0;
}

static Pair *find_pair(Bundle *bundle, unsigned int number) {
        for (size_t i = 0; i < bundle->n_pairs; ++i)
                if (bundle->pairs[i].number == number)
                        return &bundle->pairs[i];
        return NULL;
}

int bundle_adopt_consume_fd(Bundle *bundle, const char *name, int fd) {
        CLEANUP(close_fdp) int own = fd;
        Pair new, *pair;
        bool out;
        int *end;
        int r;

        if (!parse_end(name, &new, &out)) {
                bundle->options.unstore(bundle->options.userdata, name);
                return 0;
        }
        pair = find_pair(bundle, new.number);
        if (!pair) {
                new.leaving = true;
                r = pairs_add(bundle, &new);
                if (r)
                        return r;
                pair = &bundle->pairs[bundle->n_pairs - 1];
                if (new.number > bundle->last_pair)
                        bundle->last_pair = new.number;
        }
        end = out ? &pair->out : &pair->in;
        if (*end < 0 && fcntl(own, F_SETFD, FD_CLOEXEC) == 0)
                *end = steal_fd(&own);
        bundle->unsure = true;
        return 0;
}

/* A process that was killed between giving away one end and the other had nothing in that pair. */
static void drop_halves(Bundle *bundle) {
        for (size_t i = bundle->n_pairs; i-- > 0;)
                if (bundle->pairs[i].in < 0 || bundle->pairs[i].out < 0)
                        pairs_remove(bundle, i);
}

typedef struct Taken {
        Entry entry;
        int fd;
} Taken;

typedef struct TakenList {
        Taken *list;
        size_t n, room;
} TakenList;

static void taken_deinit(TakenList *taken) {
        for (size_t i = 0; i < taken->n; ++i)
                taken->list[i].fd = close_fd(taken->list[i].fd);
        free(taken->list);
}

/* The descriptors of the load become the list's. */
static int taken_append(TakenList *taken, Load *load) {
        if (taken->room - taken->n < load->n) {
                size_t room = taken->room * 2 + FULL;
                Taken *list = reallocarray(taken->list, room, sizeof(*list));

                if (!list)
                        return error_origin(-ENOMEM);
                taken->list = list;
                taken->room = room;
        }
        for (size_t i = 0; i < load->n; ++i)
                taken->list[taken->n++] = (Taken){ .entry = load->entries[i], .fd = steal_fd(&load->fds[i]) };
        return 0;
}

/* By name, and of those of one name the last one first. */
static int compare_taken(const void *a, const void *b) {
        const Taken *x = a, *y = b;
        int order = strcmp(x->entry.name, y->entry.name);

        if (order)
                return order;
        return x->entry.serial < y->entry.serial ? 1 : x->entry.serial > y->entry.serial ? -1 : 0;
}

/* Takes the first message of a pair: from now on it is in another one. If there is no room for that, this process
 * alone has what was in it, until bundle_settle() finds a place. Return: as queue_peek(), or -ENOMEM. */
static int take_message(Bundle *bundle, int out, TakenList *taken) {
        Load *load = &bundle->load;
        int r;

        r = queue_peek(out, load, true);
        if (r)
                return r;
        if (park(bundle, load))
                bundle->unsure = true;
        r = taken_append(taken, load);
        if (r)
                load_close(load);
        else
                queue_drop(out);
        return r;
}

static int to_kept(Bundle *bundle, TakenList *taken, Kept **ret, size_t *ret_n) {
        Kept *kept = calloc(taken->n + 1, sizeof(*kept));
        size_t n = 0;

        if (!kept)
                return error_origin(-ENOMEM);
        if (taken->n > 0)
                qsort(taken->list, taken->n, sizeof(*taken->list), compare_taken);
        for (size_t i = 0; i < taken->n; ++i) {
                Taken *one = &taken->list[i];

                if (one->entry.serial > bundle->last_serial)
                        bundle->last_serial = one->entry.serial;
                if (n > 0 && !strcmp(kept[n - 1].name, one->entry.name))
                        continue;
                memcpy(kept[n].name, one->entry.name, sizeof(kept[n].name));
                kept[n++].fd = steal_fd(&one->fd);
        }
        *ret = kept;
        *ret_n = n;
        return 0;
}

int bundle_take_all(Bundle *bundle, Kept **ret, size_t *ret_n) {
        CLEANUP(taken_deinit) TakenList taken = { .list = NULL };
        int r = 0, s;

        bundle->unsure = false;
        drop_halves(bundle);
        while (!r && is_one_leaving(bundle)) {
                r = take_message(bundle, bundle->pairs[0].out, &taken);
                if (r == -EAGAIN) {
                        pairs_remove(bundle, 0);
                        r = 0;
                }
        }
        if (r)
                bundle->unsure = true;
        s = to_kept(bundle, &taken, ret, ret_n);
        return s ? s : r;
}

int bundle_settle(Bundle *bundle, const Kept *kept, size_t n) {
        int r;

        drop_halves(bundle);
        if (bundle->unsure) {
                begin_moving(bundle);
                bundle_tidy(bundle);
        }
        for (size_t i = 0; i < n; ++i) {
                r = spots_reach(bundle, kept[i].fd);
                if (!r && !bundle->unsure)
                        set_parked(bundle, kept[i].fd, true);
                else if (!r && !bundle->spots[kept[i].fd].parked && !bundle->spots[kept[i].fd].young)
                        r = bundle_add(bundle, kept[i].name, kept[i].fd);
                if (r)
                        return r;
        }
        bundle->unsure = false;
        return 0;
}

void bundle_figures(const Bundle *bundle, BundleFigures *ret) {
        *ret = (BundleFigures){
                .pairs = bundle->n_pairs + (bundle->nursery.in >= 0),
                .parked = bundle->n_parked,
                .litter = litter(bundle),
                .waiting = bundle->n_waiting,
        };
}
