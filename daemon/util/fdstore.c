/* A store of descriptors: see the header for the model. */

#include "util/fdstore.h"

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "util/error.h"

/* How soon to look again at a full queue, or at a barrier: doubled from the first to the last. */
#define AGAIN_FIRST NSEC_PER_MSEC
#define AGAIN_LAST (64 * NSEC_PER_MSEC)

/* How often who may wait does so, for a millisecond each. */
#define WAIT_TRIES 5000

#define MESSAGE_MAX (64 + FDSTORE_SEVERAL_MAX * (FDSTORE_NAME_MAX + 8))

/* More than the kernel counts for a packet that is in a queue: three quarters of a KiB where it was measured. It
 * counts the text and not the descriptors; more than 192 bytes of text, such as sixteen names are, make it 1,280. */
#define PACKET_BYTES 1024
/* And less than that. */
#define PACKET_BYTES_LEAST 512

/* Who lets go of one soon lets go of more: from the second on they wait for so long, or until a packet is full. It is
 * as long as a keeper rests; were it a tenth of that, the timer would ring as often as the clock ticks. */
#define GATHER_NS (50 * NSEC_PER_MSEC)
/* The store is woken for so many, as nobody has their memory before it has let go of them. */
#define LET_GO_MAX 64

/* With several in each, a queue that is not full yet may have too many descriptors in it. One of 1 MiB holds 1,366
 * packets of one descriptor, and 820 of sixteen: 13,120 in flight, and the user has only as many of those as the limit
 * of open ones says (ETOOMANYREFS), replies to clients included. So no more than this many, or a sixteenth of that
 * limit, are on their way in packets of several, and the store is woken when they are three quarters of it. */
#define FLYING_MAX 1024
#define FLYING_SHARE 16

typedef char Name[FDSTORE_NAME_MAX];

struct FdStore {
        int socket;
        Deadlines *deadlines;
        Deadline again;
        uint64_t wait;
        size_t n_kept;          /* in the store; what is remembered below included */
        Name *removals;         /* a ring with room for everything that is kept */
        size_t room;
        size_t first;
        size_t n;
        size_t n_flushed;       /* of those, from the first on: to be sent */
        uint64_t let_go_at;     /* when the last were sent */
        size_t n_let_go;        /* since the store was woken last */
        int waker;              /* -1: the store reads all the time */
        size_t most;            /* names of a packet */
        unsigned int patience;
        unsigned int n_unsaid;  /* packets since the store was woken last */
        size_t flying_max;
        size_t n_flying;        /* descriptors in packets of several that it may not have read yet, at most */
        List barriers;
};

/* -- packets ---------------------------------------------------------------------------- */

static bool is_busy(int error) {
        /* Descriptors on their way are limited for each user, whoever's they are. */
        return error == EAGAIN || error == ENOBUFS || error == ETOOMANYREFS;
}

static char *put_name(char *end, const char *name) {
        ASSERT(strlen(name) < FDSTORE_NAME_MAX);
        return stpcpy(stpcpy(end, "\nFDNAME="), name);
}

static void wake(FdStore *store) {
        const uint64_t one = 1;

        store->n_unsaid = 0;
        store->n_let_go = 0;
        /* It fails if nobody ever reads it, and then nobody reads the queue. */
        if (store->waker >= 0)
                (void)!write(store->waker, &one, sizeof(one));
}

/* The descriptors stay the caller's. Return: 0, FDSTORE_E_BUSY, or a negative errno. */
static int send_packet(FdStore *store, const char *text, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(FDSTORE_SEVERAL_MAX * sizeof(int))];
        } control;
        struct iovec part = { .iov_base = (void *)text, .iov_len = strlen(text) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        if (n_fds) {
                control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(n_fds * sizeof(int)),
                                                   .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                message.msg_control = &control;
                message.msg_controllen = control.header.cmsg_len;
        }
        if (sendmsg(store->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
                if (!is_busy(errno))
                        return error_origin(-errno);
                wake(store);
                return FDSTORE_E_BUSY;
        }
        if (++store->n_unsaid >= store->patience)
                wake(store);
        return 0;
}

/* -- letting go ------------------------------------------------------------------------- */

static int send_removal(FdStore *store, size_t n) {
        char text[MESSAGE_MAX], *end = stpcpy(text, "FDSTOREREMOVE=1");

        for (size_t i = 0; i < n; ++i)
                end = put_name(end, store->removals[(store->first + i) % store->room]);
        return send_packet(store, text, NULL, 0);
}

/* Return: whether all that was flushed has been sent. */
static bool send_removals(FdStore *store) {
        while (store->n_flushed > 0) {
                size_t n = store->n_flushed < store->most ? store->n_flushed : store->most;

                if (send_removal(store, n) == FDSTORE_E_BUSY)
                        return false;
                /* Sent, or there is no store any more. */
                store->first = (store->first + n) % store->room;
                store->n -= n;
                store->n_flushed -= n;
                store->n_kept -= n;
                store->n_let_go += n;
                store->let_go_at = time_now();
        }
        if (store->n_let_go >= LET_GO_MAX)
                wake(store);
        /* Most of the ring is never touched, and then costs no memory. */
        if (store->n == 0)
                store->first = 0;
        return true;
}

static int send_barrier(FdStore *store, FdBarrier *barrier) {
        CLEANUP(close_fdp) int ours = -1, theirs = -1;
        int pair[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return FDSTORE_E_BUSY;
        ours = pair[0];
        theirs = pair[1];
        r = send_packet(store, "BARRIER=1", &theirs, 1);
        if (r == FDSTORE_E_BUSY)
                return r;
        wake(store);
        /* Without a store the other end is closed here, and it is over too. */
        barrier->fd = steal_fd(&ours);
        return 0;
}

static bool barrier_is_over(const FdBarrier *barrier) {
        char byte;

        return recv(barrier->fd, &byte, 1, MSG_DONTWAIT) >= 0;
}

/* Sends those that can be, calls those that are over. They are over in their order. */
static void look_at_barriers(FdStore *store, bool may_send) {
        FdBarrier *barrier;

        while ((barrier = list_first(&store->barriers, FdBarrier, link))) {
                if (barrier->fd < 0 && (!may_send || send_barrier(store, barrier)))
                        return;
                if (!barrier_is_over(barrier))
                        return;
                fdbarrier_cancel(barrier);
                barrier->fn(barrier, barrier->userdata);
        }
}

static void look_again(Deadline *deadline, void *userdata) {
        FdStore *store = userdata;

        (void)deadline;
        look_at_barriers(store, send_removals(store));
        if (store->n_flushed == 0 && list_is_empty(&store->barriers))
                return;
        deadline_arm(&store->again, store->deadlines, time_now() + store->wait, look_again, store);
        if (store->wait < AGAIN_LAST)
                store->wait *= 2;
}

static void look_now(FdStore *store) {
        store->wait = AGAIN_FIRST;
        look_again(&store->again, store);
}

void fdstore_remove(FdStore *store, const char *name) {
        if (!store)
                return;
        ASSERT(store->n < store->n_kept && store->n < store->room && strlen(name) < FDSTORE_NAME_MAX);
        (void)strcpy(store->removals[(store->first + store->n) % store->room], name);
        ++store->n;
}

/* Return: whether more are waited for, before what is to be let go of is sent. */
static bool gathers(FdStore *store) {
        uint64_t until;

        if (store->n_flushed >= store->most)
                return false;
        if (deadline_is_armed(&store->again))
                return true;
        until = store->let_go_at + GATHER_NS;
        if (until <= time_now())
                return false;
        store->wait = AGAIN_FIRST;
        deadline_arm(&store->again, store->deadlines, until, look_again, store);
        return true;
}

void fdstore_flush(FdStore *store) {
        if (!store || store->n == store->n_flushed)
                return;
        store->n_flushed = store->n;
        if (!gathers(store))
                look_now(store);
}

/* -- keeping ---------------------------------------------------------------------------- */

/* Makes room for the removal of everything that is kept, and of one more. */
static int make_room(FdStore *store, size_t n_kept) {
        size_t room = store->room ? store->room : 16;
        Name *grown;

        while (room < n_kept)
                room *= 2;
        if (room == store->room)
                return 0;
        grown = reallocarray(NULL, room, sizeof(*grown));
        if (!grown)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < store->n; ++i)
                memcpy(grown[i], store->removals[(store->first + i) % store->room], sizeof(Name));
        free(store->removals);
        store->removals = grown;
        store->room = room;
        store->first = 0;
        return 0;
}

/* What was let go of before leaves before, so that the store has the room. */
static int push(FdStore *store, const char *text, const int *fds, size_t n) {
        int r;

        r = make_room(store, store->n_kept + n);
        if (r)
                return r;
        /* There may be room again since they found none. */
        if (!send_removals(store))
                return FDSTORE_E_BUSY;
        r = send_packet(store, text, fds, n);
        if (!r)
                store->n_kept += n;
        return r;
}

/* FDPOLL=0: a service manager would let go of what polls as broken or hung up. */
static void end_push(char *end) {
        (void)stpcpy(end, "\nFDPOLL=0");
}

int fdstore_push(FdStore *store, const char *name, int fd) {
        char text[MESSAGE_MAX];

        if (!store)
                return 0;
        end_push(put_name(stpcpy(text, "FDSTORE=1"), name));
        return push(store, text, &fd, 1);
}

/* The kernel is asked only when there may be many: it says how many bytes are in the queue, of whatever packets. */
static bool may_fly(FdStore *store, size_t n) {
        int queued = 0;
        size_t quiet = store->flying_max / 4 * 3, most;

        if (store->n_flying + n <= quiet)
                return true;
        (void)ioctl(store->socket, SIOCOUTQ, &queued);
        most = (size_t)queued / PACKET_BYTES_LEAST * FDSTORE_SEVERAL_MAX;
        if (store->n_flying > most)
                store->n_flying = most;
        if (store->n_flying + n > quiet)
                wake(store);
        return store->n_flying + n <= store->flying_max;
}

static int push_flying(FdStore *store, const char *text, const int *fds, size_t n) {
        int r;

        if (!may_fly(store, n))
                return FDSTORE_E_BUSY;
        r = push(store, text, fds, n);
        if (!r)
                store->n_flying += n;
        return r;
}

int fdstore_push_several(FdStore *store, const char (*names)[FDSTORE_NAME_MAX], const int *fds, size_t n) {
        char text[MESSAGE_MAX], *end = stpcpy(text, "FDSTORE=1");

        ASSERT(n >= 1 && n <= fdstore_most(store));
        if (!store)
                return 0;
        for (size_t i = 0; i < n; ++i)
                end = put_name(end, names[i]);
        end_push(end);
        return n == 1 ? push(store, text, fds, n) : push_flying(store, text, fds, n);
}

bool fdstore_wait(unsigned int *tries) {
        if (*tries == WAIT_TRIES)
                return false;
        ++*tries;
        (void)nanosleep(&(struct timespec){ .tv_nsec = NSEC_PER_MSEC }, NULL);
        return true;
}

/* -- barriers --------------------------------------------------------------------------- */

void fdstore_barrier(FdStore *store, FdBarrier *barrier, FdBarrierFn fn, void *userdata) {
        *barrier = (FdBarrier){ .fd = -1, .fn = fn, .userdata = userdata };
        list_init(&barrier->link);
        if (!store) {
                fn(barrier, userdata);
                return;
        }
        list_append(&store->barriers, &barrier->link);
        /* Not from here: whoever calls is not ready to be called. */
        store->wait = AGAIN_FIRST;
        deadline_arm(&store->again, store->deadlines, 0, look_again, store);
}

void fdbarrier_cancel(FdBarrier *barrier) {
        list_unlink(&barrier->link);
        barrier->fd = close_fd(barrier->fd);
}

/* -- life ------------------------------------------------------------------------------- */

FdStore *fdstore_free(FdStore *store) {
        if (!store)
                return NULL;
        ASSERT(list_is_empty(&store->barriers));
        (void)send_removals(store);
        deadline_disarm(&store->again);
        free(store->removals);
        free(store);
        return NULL;
}

uint64_t fdstore_flying_max(uint64_t limit) {
        return limit / FLYING_SHARE < FLYING_MAX ? limit / FLYING_SHARE : FLYING_MAX;
}

/* One packet may always be. */
static size_t flying_max(void) {
        struct rlimit limit = { .rlim_cur = 0 };
        uint64_t most;

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        most = fdstore_flying_max(limit.rlim_cur);
        return most < FDSTORE_SEVERAL_MAX ? FDSTORE_SEVERAL_MAX : (size_t)most;
}

int fdstore_new(FdStore **ret, int socket, Deadlines *deadlines, size_t n_kept) {
        CLEANUP(fdstore_freep) FdStore *store = NULL;
        int r;

        store = malloc(sizeof(*store));
        if (!store)
                return error_origin(-ENOMEM);
        *store = (FdStore){ .socket = socket, .deadlines = deadlines, .n_kept = n_kept, .wait = AGAIN_FIRST,
                            .waker = -1, .most = 1, .flying_max = flying_max(), .patience = UINT_MAX };
        list_init(&store->barriers);
        r = make_room(store, n_kept);
        if (r)
                return r;
        *ret = store;
        store = NULL;
        return 0;
}

/* How many packets surely fit into a queue, and some more do: those that come until the store has woken up. */
static unsigned int patience(int socket) {
        int bytes = 0;

        (void)getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, &(socklen_t){ sizeof(bytes) });
        return (unsigned int)bytes / PACKET_BYTES;
}

void fdstore_set_waker(FdStore *store, int waker) {
        store->waker = waker;
        store->patience = patience(store->socket);
}

void fdstore_set_most(FdStore *store, size_t most) {
        store->most = most < 1 ? 1 : most < FDSTORE_SEVERAL_MAX ? most : FDSTORE_SEVERAL_MAX;
}

size_t fdstore_most(const FdStore *store) {
        return store ? store->most : 1;
}
