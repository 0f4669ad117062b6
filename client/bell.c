/* Doorbells: see shmd.h.
 *
 * A bell is a mapped page of shared memory and the descriptor it came with. Once it is open, ringing and
 * waiting are the kernel's business and ours alone. The one question that has to be asked later, to be
 * polled, goes to the broker because whoever may only wait cannot write the flag.
 *
 * Ringing adds to the counter before it looks at the flag; a poller watches the page, then has the flag
 * set, then looks at the counter. All of it is sequentially consistent, so either the ringer sees the
 * flag or the poller sees the ring.
 */

#include "buildinfo.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "client/client.h"
#include "client/region.h"

/* Where time has more bits than a long, the call that takes it has a number of its own. */
#ifdef SYS_futex_time64
#define FUTEX_CALL (sizeof(time_t) > sizeof(long) ? SYS_futex_time64 : SYS_futex)
#else
#define FUTEX_CALL SYS_futex
#endif

struct shmd_bell {
        int fd;
        int poll_fd;            /* inotify, -1: not pollable */
        uint64_t page;          /* the broker's number of it */
        size_t size;
        uint8_t *bytes;         /* mapped */
        bool rings;
};

DEFINE_CLEANUP(shmd_bell, shmd_bell_close);

static uint32_t *word(const shmd_bell *bell, size_t offset) {
        return (uint32_t *)(void *)(bell->bytes + offset);
}

/* -- opening ------------------------------------------------------------------------- */

/* Maps the page, if it is one: of the size promised, and of a size that cannot change. */
static int bell_map(shmd_bell *bell, uint64_t size) {
        shmd_region region = { .fd = bell->fd, .size = size };
        int r, flags = fcntl(bell->fd, F_GETFL);

        if (flags < 0)
                return -errno;
        if (size <= MESSAGE_BELL_BYTE)
                return -EPROTO;
        r = region_check(&region);
        if (r)
                return r;
        bell->rings = (flags & O_ACCMODE) == O_RDWR;
        bell->bytes = mmap(NULL, size, bell->rings ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, bell->fd, 0);
        if (bell->bytes == MAP_FAILED) {
                bell->bytes = NULL;
                return -errno;
        }
        bell->size = size;
        return 0;
}

static size_t bell_n_fds(const ProtobufCMessage *reply) {
        return 1;
}

static int bell_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__BellReply *answer = (const Shmd__BellReply *)reply;
        CLEANUP(shmd_bell_closep) shmd_bell *bell = NULL;
        shmd_bell **ret = out;
        int r;

        bell = malloc(sizeof(*bell));
        if (!bell)
                return -ENOMEM;
        *bell = (shmd_bell){ .fd = fdlist_take(&call->client->fds), .poll_fd = -1, .page = answer->page };
        r = bell_map(bell, answer->size);
        if (r)
                return r;

        *ret = bell;
        bell = NULL;
        return 0;
}

static const Op op_bell = { .kind = MESSAGE_BELL, .n_fds = bell_n_fds, .decode = bell_decode };

int shmd_bell_open_start(shmd *client, const char *path, uint64_t region, uint32_t flags,
                         uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Bell bell = SHMD__BELL__INIT;
        int r = 0;

        if (flags & ~(uint32_t)SHMD_BELL_RING)
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_FLAGS, 0, path ? path : "",
                                     "a doorbell is opened to wait, or to ring");
        if (path)
                r = request_path(client, path, 0, &bell.path);
        else
                bell.region = region;
        bell.flags = flags;
        return r ? r : call_start(client, &op_bell, &bell.base, timeout_ns, callback, userdata, ret);
}

int shmd_bell_open_finish(shmd_call *call, shmd_bell **ret) {
        *ret = NULL;
        return call_finish(call, &op_bell, ret);
}

int shmd_bell_open(shmd *client, const char *path, uint64_t region, uint32_t flags, shmd_bell **ret,
                   uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_bell_open_start(client, path, region, flags, timeout_ns, call_waited, &wait, &wait.call));
}

shmd_bell *shmd_bell_close(shmd_bell *bell) {
        KEEP_ERRNO;

        if (!bell)
                return NULL;
        if (bell->bytes)
                (void)munmap(bell->bytes, bell->size);
        bell->poll_fd = close_fd(bell->poll_fd);
        bell->fd = close_fd(bell->fd);
        free(bell);
        return NULL;
}

/* -- ringing and waiting ------------------------------------------------------------- */

uint32_t shmd_bell_count(const shmd_bell *bell) {
        return __atomic_load_n(word(bell, MESSAGE_BELL_COUNTER), __ATOMIC_SEQ_CST);
}

int shmd_bell_ring(shmd_bell *bell) {
        uint32_t *counter = word(bell, MESSAGE_BELL_COUNTER);
        KEEP_ERRNO;

        if (!bell->rings)
                return -EACCES;
        (void)__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
        (void)syscall(FUTEX_CALL, counter, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        if (!__atomic_load_n(word(bell, MESSAGE_BELL_POLLED), __ATOMIC_SEQ_CST))
                return 0;
        return pwrite(bell->fd, "", 1, MESSAGE_BELL_BYTE) < 0 ? -errno : 0;
}

static struct timespec deadline(uint64_t timeout_ns) {
        uint64_t until_ns;

        if (__builtin_add_overflow(client_now(), timeout_ns, &until_ns) || until_ns > INT64_MAX)
                until_ns = INT64_MAX;
        return (struct timespec){ .tv_sec = (time_t)(until_ns / CLIENT_NS_PER_S),
                                  .tv_nsec = (long)(until_ns % CLIENT_NS_PER_S) };
}

/* Waits not longer than until (NULL: for ever) while the counter is `seen`; the time is absolute, so that
 * a wait that is begun again after a signal ends when the first one would have (futex(2)). Of a page that
 * somebody who may ring takes out of the memory just when the kernel looks at it, it says EFAULT; the
 * next look finds it, or another page of zeros. */
static int wait_once(const shmd_bell *bell, uint32_t seen, const struct timespec *until) {
        if (syscall(FUTEX_CALL, word(bell, MESSAGE_BELL_COUNTER), FUTEX_WAIT_BITSET, seen, until, NULL,
                    FUTEX_BITSET_MATCH_ANY) == 0)
                return 0;
        return errno == EAGAIN || errno == EINTR || errno == EFAULT ? 0 : -errno;
}

int shmd_bell_wait(const shmd_bell *bell, uint32_t seen, uint64_t timeout_ns) {
        struct timespec until;
        KEEP_ERRNO;
        int r = 0;

        if (shmd_bell_count(bell) != seen)
                return 0;
        if (timeout_ns == 0)
                return -ETIMEDOUT;
        until = deadline(timeout_ns);
        while (!r && shmd_bell_count(bell) == seen)
                r = wait_once(bell, seen, timeout_ns == SHMD_TIMEOUT_NONE ? NULL : &until);
        return shmd_bell_count(bell) != seen ? 0 : r;
}

/* -- polling ------------------------------------------------------------------------- */

/* Watches the page through /proc, as the memory has no name of its own (inotify(7)). */
static int watch(shmd_bell *bell) {
        CLEANUP(close_fdp) int fd = -1;
        char path[32];

        if (bell->poll_fd >= 0)
                return 0;
        fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (fd < 0)
                return -errno;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", bell->fd);
        if (inotify_add_watch(fd, path, IN_MODIFY) < 0)
                return -errno;
        bell->poll_fd = steal_fd(&fd);
        return 0;
}

static const Op op_poll = { .kind = MESSAGE_BELL };

int shmd_bell_poll_start(shmd *client, shmd_bell *bell,
                         uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Bell request = SHMD__BELL__INIT;
        KEEP_ERRNO;
        int r;

        r = watch(bell);
        if (r)
                return client ? refusal_local(client, r, 0, 0, "", NULL) : r;
        request.region = bell->page;
        request.flags = SHMD__BELL_FLAGS__BELL_POLL;
        r = call_start(client, &op_poll, &request.base, timeout_ns, callback, userdata, ret);
        if (r)
                bell->poll_fd = close_fd(bell->poll_fd);
        return r;
}

int shmd_bell_poll_finish(shmd_call *call, shmd_bell *bell) {
        int r = call_finish(call, &op_poll, NULL);

        if (r < 0)
                bell->poll_fd = close_fd(bell->poll_fd);
        return r;
}

int shmd_bell_poll(shmd *client, shmd_bell *bell, uint64_t timeout_ns) {
        CallWait wait = { 0 };
        KEEP_ERRNO;
        int r;

        if (bell->rings) {
                r = watch(bell);
                if (!r)
                        __atomic_store_n(word(bell, MESSAGE_BELL_POLLED), 1, __ATOMIC_SEQ_CST);
                return r;
        }
        r = call_wait(&wait, client,
                      shmd_bell_poll_start(client, bell, timeout_ns, call_waited, &wait, &wait.call));
        if (r < 0)
                bell->poll_fd = close_fd(bell->poll_fd);
        return r;
}

int shmd_bell_fd(const shmd_bell *bell) {
        return bell->poll_fd >= 0 ? bell->poll_fd : -EBADF;
}

/* Rings that nobody has read of are one event, so two reads are enough unless somebody rings all the
 * time; then the descriptor may as well stay readable. */
uint32_t shmd_bell_clear(shmd_bell *bell) {
        char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        KEEP_ERRNO;

        for (unsigned int i = 0; bell->poll_fd >= 0 && i < 4; ++i)
                if (read(bell->poll_fd, buffer, sizeof(buffer)) <= 0)
                        break;
        return shmd_bell_count(bell);
}
