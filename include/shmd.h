/* libshmd: shared memory by name, from the broker shmd(8).
 *
 * A *connection* (shmd) talks to a broker over a Unix socket. A *region* (shmd_region) is what
 * a create or an open returns: a descriptor of a memfd with a fixed size, and the rights that
 * came with it. Once a process has a region, the broker is out of the way: the memory is the
 * kernel's, and it stays valid when the connection, or the broker, is gone.
 *
 * A broker that dies, or is upgraded, comes back, and the connection with it: see "When the broker
 * is gone" below. What was in flight is answered by the next one, within its own time.
 *
 * Every request exists twice: shmd_OP() waits for the answer, and shmd_OP_start() /
 * shmd_OP_finish() do not wait (see "Asynchronous calls" below). Both are the same code.
 *
 * Conventions
 *   - Functions return 0 or a positive number on success and a negative errno on failure, in
 *     the manner of sd-bus; errno itself is left alone. shmd_refusal() says what stood behind
 *     a failure that came from the broker.
 *   - Times are nanoseconds. A timeout is relative, on CLOCK_MONOTONIC. SHMD_TIMEOUT_DEFAULT
 *     (0) is the connection's default, SHMD_TIMEOUT_NONE waits for ever. A call that ran out
 *     of time returns -ETIMEDOUT; what the broker does with the request is then unknown.
 *   - Sizes and offsets are bytes.
 *   - Paths are absolute, as shmd-protocol(7) has them, and NUL-terminated here.
 *   - Every descriptor is close-on-exec. Nothing is printed, no thread is started and no
 *     signal or signal mask is touched (sends use MSG_NOSIGNAL).
 *   - A connection and the objects made from it belong to one thread at a time.
 *   - After fork(2) the connection belongs to the parent: in the child every call on it returns
 *     -ECHILD, and shmd_close() only frees memory and closes the child's copy of the socket.
 *     Regions, mappings included, work in both.
 *   - Option structs start with their own size, so that they can grow: initialise them with
 *     the macro of their name (struct shmd_create_options o = SHMD_CREATE_OPTIONS_INIT).
 *
 * Sources of behaviour: memfd_create(2), fcntl(2) (seals), unix(7) (SCM_RIGHTS), mmap(2),
 * madvise(2), mbind(2), fallocate(2).
 */
#ifndef SHMD_H
#define SHMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHMD_PUBLIC __attribute__((visibility("default")))
#else
#define SHMD_PUBLIC
#endif

typedef struct shmd shmd;
typedef struct shmd_region shmd_region;
typedef struct shmd_call shmd_call;
typedef struct shmd_bell shmd_bell;

#define SHMD_TIMEOUT_DEFAULT UINT64_C(0)
#define SHMD_TIMEOUT_NONE UINT64_MAX

/* -- refusals ------------------------------------------------------------------------ */

/* The broker's error, as it stands in the protocol; each has one errno. */
enum {
        SHMD_ERROR_NONE          = 0,
        SHMD_ERROR_INVALID       = 1,   /* EINVAL */
        SHMD_ERROR_NOT_FOUND     = 2,   /* ENOENT */
        SHMD_ERROR_EXISTS        = 3,   /* EEXIST */
        SHMD_ERROR_DENIED        = 4,   /* EACCES */
        SHMD_ERROR_QUOTA         = 5,   /* EDQUOT */
        SHMD_ERROR_TIMEOUT       = 6,   /* ETIMEDOUT */
        SHMD_ERROR_NOT_DIRECTORY = 7,   /* ENOTDIR */
        SHMD_ERROR_IS_DIRECTORY  = 8,   /* EISDIR */
        SHMD_ERROR_NOT_EMPTY     = 9,   /* ENOTEMPTY */
        SHMD_ERROR_BUSY          = 10,  /* EBUSY */
        SHMD_ERROR_UNSUPPORTED   = 11,  /* EOPNOTSUPP */
        SHMD_ERROR_NO_MEMORY     = 12,  /* ENOMEM */
        SHMD_ERROR_SHUTDOWN      = 13,  /* ESHUTDOWN */
};

/* What the broker, or the library before it asked the broker, said no to. */
struct shmd_refusal {
        int error;              /* the negative errno that the call returned */
        uint32_t code;          /* SHMD_ERROR_*; 0 if the refusal is the library's own */
        uint32_t reason;        /* which rule decided: shmd_reason_name() */
        uint32_t slot;          /* for limits: which slot, shmd_slot_name(); else 0 */
        uint32_t uid;           /* for limits: whose account */
        uint32_t index;         /* which item of a batch, from 0 */
        uint64_t asked;         /* for limits: how much was asked, ... */
        uint64_t left;          /* ... how much was left, ... */
        uint64_t limit;         /* ... and the limit */
        const char *thing;      /* the path or thing refused; "" if there is none */
        const char *sentence;   /* one sentence for people; never NULL */
};

/* The refusal behind the latest failed synchronous call on this connection, connecting
 * included. Never NULL; after a success, all zero with empty strings. Valid until the next call
 * on the connection; owned by it. */
SHMD_PUBLIC const struct shmd_refusal *shmd_refusal(shmd *client);

/* Names of the numbers above, as in logs: "directory-search", "bytes". Static strings;
 * "unknown" for a number this library does not know. */
SHMD_PUBLIC const char *shmd_reason_name(uint32_t reason);
SHMD_PUBLIC const char *shmd_slot_name(uint32_t slot);

/* -- connecting ---------------------------------------------------------------------- */

/* Connects to the broker and says hello.
 *
 * socket: a path, or NULL to look at $SHMD_SOCKET, then $XDG_RUNTIME_DIR/shmd/socket, then
 * /run/shmd/socket, and take the first that is there ($SHMD_SOCKET alone if it is set). The
 * environment is ignored in a set-user-ID program (secure_getenv(3)). The broker at the other
 * end must run as root, as the owner of the socket, or as the caller (SO_PEERCRED); anybody
 * else is not trusted to be one.
 *
 * *ret is the caller's and ends with shmd_close(). On failure *ret is NULL unless the broker
 * refused the connection: then it is an object good for shmd_refusal() and shmd_close() only.
 * A broker that goes away after it took the connection is waited for, as below.
 *
 * Errors: -ENOENT or -ECONNREFUSED (no broker there), -EACCES (the socket's permissions),
 * -EPERM (the other end may not be a broker), -EDQUOT (too many connections of this uid),
 * -EPROTONOSUPPORT (no common version), -ETIMEDOUT, -ENAMETOOLONG, -EMFILE, -ENOMEM. */
SHMD_PUBLIC int shmd_connect(shmd **ret, const char *socket, uint64_t timeout_ns);

enum {
        SHMD_CONNECT_BUSY_POLL = 1,     /* requests come one right after the other: see below */
};

struct shmd_connect_options {
        size_t struct_size;
        uint32_t flags;                 /* SHMD_CONNECT_* */
};
#define SHMD_CONNECT_OPTIONS_INIT { .struct_size = sizeof(struct shmd_connect_options) }

/* The same with options, which may be NULL; every broker that the connection comes back to is asked for the same.
 *
 * With SHMD_CONNECT_BUSY_POLL the broker is asked not to go to sleep for some microseconds (busy-poll, shmd.conf(5))
 * after each of its answers, so that a request that comes within that time need not wait until it has woken up.
 * It is for programs that ask many things and wait for each answer, and costs processor time of the broker's: at
 * most those microseconds a request, and hardly any where it finds that requests do not come sooner for it. A broker
 * need not grant it (its configuration, a single processor, its age), and that is no error: shmd_connect_flags()
 * tells.
 *
 * Errors: as shmd_connect(), and -EINVAL (a flag or a size of the options that this library does not know). */
SHMD_PUBLIC int shmd_connect_with(shmd **ret, const char *socket, const struct shmd_connect_options *options,
                                  uint64_t timeout_ns);

/* *ret: those SHMD_CONNECT_* that were asked for and that the broker has granted, the one connected to last.
 * Errors: -ECHILD, -ENOTCONN. */
SHMD_PUBLIC int shmd_connect_flags(shmd *client, uint32_t *ret);

/* When the broker is gone
 *
 * While a connection waits for an answer, or is dispatched, the library notices that the broker is gone, and
 * connects to the same path again: at once, then after 1 ms, 2 ms and so on to 250 ms. It asks for the same
 * session, for every watch after the last event it told, and sends what had no answer once more, waits with
 * the time they have left. Whatever became of the broker meanwhile, until the new one is there calls can be
 * started, and each fails with -ETIMEDOUT when its own time is over, and for no other reason. Descriptors and
 * mappings are not touched.
 *
 * If the broker knows the session, nothing is done twice: what it had done before it died is answered as it
 * was then. It does not know it if its state is lost or the connection was away for longer than its
 * configuration says (10 s), and then it has ended the session: SHMD_LIFETIME_SESSION regions lost their
 * names. Calls that change something and may have been done then fail with -ECONNRESET; all others are sent
 * again. To keep nothing from being done twice, at most 64 requests that change something are on their way at a
 * time; those beyond wait in the library, and all behind them. A request with which as the oldest one the
 * connection was lost within 100 ms 16 times in a row, and for 5 seconds, fails with -ECONNRESET, too.
 *
 * The connection is lost for good, and every call on it -ENOTCONN, if the broker breaks the protocol, if
 * a new one does not speak it, or after shmd_set_reconnect(client, false). */

/* Whether to reconnect, as it does at first. If not, the loss of the broker is the end of the connection:
 * calls in flight end with -ECONNRESET. Errors: -ECHILD, -ENOTCONN. */
SHMD_PUBLIC int shmd_set_reconnect(shmd *client, bool on);

/* Ends the connection: calls in flight end with -ECANCELED (their callbacks run), regions stay
 * valid. NULL is fine. Return: NULL. */
SHMD_PUBLIC shmd *shmd_close(shmd *client);

/* Sets what SHMD_TIMEOUT_DEFAULT means on this connection; 25 s at first.
 * Errors: -EINVAL (0), -ECHILD. */
SHMD_PUBLIC int shmd_set_timeout(shmd *client, uint64_t timeout_ns);

/* The 16 bytes that name the session, the uid the broker took the caller for, and whether that
 * uid administers the broker. Each pointer may be NULL. Errors: -ECHILD, -ENOTCONN. */
SHMD_PUBLIC int shmd_session(shmd *client, uint8_t session[16], uint32_t *uid, bool *admin);

/* The path of the socket connected to, and the broker's version string. Owned by client. */
SHMD_PUBLIC const char *shmd_socket(shmd *client);
SHMD_PUBLIC const char *shmd_broker_version(shmd *client);

/* The process that listens at the socket connected to (SO_PEERCRED, unix(7)): the broker's keeper, the broker,
 * or the service manager. 0: it is in no pid namespace of the caller's, or there was no connection yet. */
SHMD_PUBLIC pid_t shmd_broker_pid(shmd *client);

/* The library's own version, "0.1.0". */
SHMD_PUBLIC const char *shmd_version(void);

/* -- asynchronous calls -------------------------------------------------------------- */

/* An asynchronous call: shmd_OP_start() sends the request (or queues it; any number may be in
 * flight) and returns at once. When the answer is there, or the deadline has passed, or the
 * connection ended, shmd_dispatch() runs the callback, which takes the outcome with
 * shmd_OP_finish(). Callbacks run only inside shmd_dispatch(), a synchronous call, or
 * shmd_close(); they may start calls, but neither wait nor dispatch (-EDEADLK) nor close the
 * connection (which aborts).
 *
 * The call belongs to the connection and is gone after its callback returns. A callback may be
 * NULL; then the outcome is dropped (a descriptor that came is closed). */
typedef void (*shmd_callback)(shmd *client, shmd_call *call, void *userdata);

/* The descriptor to poll, and for what: POLLIN, with POLLOUT while requests wait for room. It is
 * an epoll(7) instance, made at the first call, and remains the same when the broker goes and comes back;
 * it is readable then as well, so that who polls it needs nothing else. It is the connection's.
 * Errors: -ECHILD, -ENOTCONN, -EMFILE, -ENOMEM. */
SHMD_PUBLIC int shmd_fd(shmd *client);
SHMD_PUBLIC int shmd_events(shmd *client);

/* Nanoseconds until the next deadline of a call in flight or the next attempt to connect, UINT64_MAX if
 * there is none: how long poll(2) may sleep. Errors: -ECHILD. */
SHMD_PUBLIC int shmd_timeout(shmd *client, uint64_t *ret_ns);

/* Sends what is queued, reads what is there, reconnects, expires what is late, runs callbacks; never waits.
 * Return: the number of callbacks run. Errors: -ECHILD; -ENOTCONN once the connection is lost for good
 * and every call in flight has been ended with -EPROTO or -EMFILE, if that is what ended it, or -ECONNRESET.
 * The descriptor stays open until shmd_close(). */
SHMD_PUBLIC int shmd_dispatch(shmd *client);

/* Waits for activity, at most timeout_ns, then dispatches. Return and errors as shmd_dispatch(),
 * and -ETIMEDOUT. */
SHMD_PUBLIC int shmd_process(shmd *client, uint64_t timeout_ns);

/* Gives a call in flight up: its callback does not run, an answer that still comes is dropped
 * and what it carried is closed. */
SHMD_PUBLIC void shmd_call_cancel(shmd_call *call);

/* For callbacks: 0 or the negative errno of the call, and the refusal behind it (never NULL,
 * valid while the callback runs). */
SHMD_PUBLIC int shmd_call_result(shmd_call *call);
SHMD_PUBLIC const struct shmd_refusal *shmd_call_refusal(shmd_call *call);

/* -- regions ------------------------------------------------------------------------- */

enum {
        SHMD_RIGHTS_NONE       = 0,
        SHMD_RIGHTS_READ_ONLY  = 1,
        SHMD_RIGHTS_READ_WRITE = 2,
};

enum {
        SHMD_LIFETIME_NAMED   = 0,      /* until unlinked */
        SHMD_LIFETIME_SESSION = 1,      /* until this connection ends, or its session does */
        SHMD_LIFETIME_COUNTED = 2,      /* until nobody holds it: its names go with the last holder */
};

enum {
        SHMD_CREATE_OPEN      = 1,      /* if the name is taken, open that region instead */
        SHMD_CREATE_FREEZABLE = 2,      /* shmd_freeze() may follow */
        SHMD_CREATE_RESERVE   = 4,      /* allocate every page before returning */
};

struct shmd_create_options {
        size_t struct_size;
        uint64_t size;                  /* bytes; may be 0, then there is nothing to map */
        mode_t mode;                    /* 0..0777; default 0600. The umask is not applied. */
        uint32_t flags;                 /* SHMD_CREATE_* */
        uint32_t lifetime;              /* SHMD_LIFETIME_* */
        uint64_t huge_page_size;        /* bytes, a power of two; 0: the system's pages */
        uint32_t rights;                /* of the grant that comes back; default read-write */
        uint64_t ttl_ns;                /* the name ends after so long, see shmd_expire(); 0: it does not */
};
#define SHMD_CREATE_OPTIONS_INIT \
        { .struct_size = sizeof(struct shmd_create_options), .mode = 0600, .rights = SHMD_RIGHTS_READ_WRITE }

/* Creates a region, charged to the caller's account, and returns a grant of it.
 *
 * path: its name, or NULL for a region without one, which lives while somebody holds it and
 * can be given a name by shmd_publish() once it is filled. An existing name is -EEXIST, unless
 * SHMD_CREATE_OPEN is set; shmd_region_created() then tells which happened, and size, mode and
 * lifetime of the existing region stay as they are. With SHMD_RIGHTS_NONE no descriptor comes
 * back (shmd_region_fd() is then -EBADF).
 *
 * A region with SHMD_LIFETIME_COUNTED goes, and its names with it, at the moment its last descriptor,
 * mapping or message in flight does, in whatever process; so it needs a grant.
 *
 * With SHMD_CREATE_RESERVE the pages are allocated here, through the grant, in steps of 16 MiB,
 * each after a look at MemAvailable and at the memory cgroups above the caller for the step and
 * 64 MiB more, so that a shortage is -ENOMEM and not the OOM killer; another process can still
 * win the race. It needs a read-write grant.
 *
 * *ret is the caller's and ends with shmd_region_free().
 * Errors: -EINVAL (name, size, mode, flags), -EEXIST, -ENOENT (a directory of the path),
 * -ENOTDIR, -EISDIR, -EACCES, -EDQUOT, -ENOMEM (memory, huge pages), -EBUSY (whoever keeps the
 * broker's descriptors takes none just now), -EMFILE, -ETIMEDOUT,
 * -ENOTCONN, -ECONNRESET, -ECHILD, -EPROTO (what came breaks the protocol). */
SHMD_PUBLIC int shmd_create(shmd *client, const char *path, const struct shmd_create_options *options,
                            shmd_region **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_create_start(shmd *client, const char *path, const struct shmd_create_options *options,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_create_finish(shmd_call *call, shmd_region **ret);

/* Opens a region by name: a grant of its own, with its own file offset and flags.
 * rights: SHMD_RIGHTS_READ_ONLY or SHMD_RIGHTS_READ_WRITE.
 * Errors: as shmd_create(), less -EEXIST and -EDQUOT for bytes. */
SHMD_PUBLIC int shmd_open(shmd *client, const char *path, uint32_t rights, shmd_region **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_open_start(shmd *client, const char *path, uint32_t rights,
                                uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_open_finish(shmd_call *call, shmd_region **ret);

#define SHMD_BATCH_MAX 128

/* One item of a batch: an open of `path` with `rights`, or, if `create` is not NULL, a create
 * (`path` may then be NULL). */
struct shmd_batch_item {
        const char *path;
        uint32_t rights;
        const struct shmd_create_options *create;
};

/* Up to SHMD_BATCH_MAX creates and opens, all or nothing, in one round trip. ret has room for n
 * regions; on failure all are NULL and the refusal's index says which item it was.
 * SHMD_CREATE_RESERVE works here as in shmd_create(); if it fails, the regions this batch made
 * are given back (names it gave stay: unlink them).
 * Errors: as shmd_create(); -E2BIG: more than SHMD_BATCH_MAX items or more than a packet. */
SHMD_PUBLIC int shmd_batch(shmd *client, const struct shmd_batch_item *items, size_t n,
                           shmd_region **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_batch_start(shmd *client, const struct shmd_batch_item *items, size_t n,
                                 uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_batch_finish(shmd_call *call, shmd_region **ret, size_t n);

/* Gives the grant up: closes the descriptor. Mappings stay until shmd_unmap(). NULL is fine.
 * Return: NULL. */
SHMD_PUBLIC shmd_region *shmd_region_free(shmd_region *region);

/* The descriptor, still the region's; dup it to keep it. -EBADF without a grant. */
SHMD_PUBLIC int shmd_region_fd(const shmd_region *region);
/* The descriptor, now the caller's. -EBADF without a grant. */
SHMD_PUBLIC int shmd_region_steal_fd(shmd_region *region);
SHMD_PUBLIC uint64_t shmd_region_id(const shmd_region *region);
SHMD_PUBLIC uint64_t shmd_region_size(const shmd_region *region);       /* bytes, exact */
SHMD_PUBLIC uint64_t shmd_region_page_size(const shmd_region *region);  /* bytes */
SHMD_PUBLIC uint32_t shmd_region_rights(const shmd_region *region);
SHMD_PUBLIC bool shmd_region_created(const shmd_region *region);        /* false: it was opened */

/* Allocates every page of the region now (see SHMD_CREATE_RESERVE). Needs a read-write grant.
 * Errors: -ENOMEM (what was taken by this call has been given back), -EACCES, -EBADF. */
SHMD_PUBLIC int shmd_reserve(shmd_region *region);

enum {
        SHMD_FREEZE_IMMUTABLE     = 0,  /* nobody writes to it any more: F_SEAL_WRITE */
        SHMD_FREEZE_SINGLE_WRITER = 1,  /* who has it mapped for writing goes on, nobody else: F_SEAL_FUTURE_WRITE */
};

/* Freezes a region that was made SHMD_CREATE_FREEZABLE, for good. The caller needs a read-write grant
 * of it, through which the library adds the seal (fcntl(2)), and must be its owner or an administrator;
 * then the broker has it sealed against further seals. When this returns 0, nobody can add or remove
 * any. From the first seal on the grant is good for reading alone: shmd_region_rights() says so, and
 * shmd_map() maps it read-only. To freeze it in the same way again is nothing.
 *
 * SHMD_FREEZE_IMMUTABLE is refused while anybody, the caller included, has it mapped from a read-write
 * grant: unmap it first. SHMD_FREEZE_SINGLE_WRITER keeps such mappings. A process that writes to the
 * region can delay the call, and timeout_ns does not cover the library's own part.
 * Errors: -EBUSY (mapped for writing, a page is in use, or a holder keeps the kernel from sealing it),
 * -EACCES (a read-only grant), -ENOENT (not the caller's region), -EINVAL (not freezable, or sealed
 * otherwise by a writer), -EEXIST (frozen the other way), -EOPNOTSUPP (kernel before 5.1, or no helper
 * process), -EBADF, -EDQUOT. */
SHMD_PUBLIC int shmd_freeze(shmd *client, shmd_region *region, uint32_t how, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_freeze_start(shmd *client, shmd_region *region, uint32_t how,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_freeze_finish(shmd_call *call);

/* -- mapping ------------------------------------------------------------------------- */

enum {
        SHMD_MAP_POPULATE  = 1,         /* have the pages there before returning */
        SHMD_MAP_HUGE      = 2,         /* huge pages for new memory where they can be had */
        SHMD_MAP_DONTDUMP  = 4,         /* leave it out of core dumps */
        SHMD_MAP_READ_ONLY = 8,         /* PROT_READ alone, even with a read-write grant */
        SHMD_MAP_PRIVATE   = 16,        /* MAP_PRIVATE: writable, and writes stay here */
};

enum {
        SHMD_NUMA_DEFAULT    = 0,
        SHMD_NUMA_BIND       = 1,       /* only these nodes: MPOL_BIND */
        SHMD_NUMA_PREFERRED  = 2,       /* first this node: MPOL_PREFERRED */
        SHMD_NUMA_INTERLEAVE = 3,       /* page by page over these: MPOL_INTERLEAVE */
};

struct shmd_map_options {
        size_t struct_size;
        uint32_t flags;                 /* SHMD_MAP_* */
        uint64_t offset;                /* bytes; a multiple of the region's page size */
        uint64_t length;                /* bytes; 0: to the end */
        uint32_t numa;                  /* SHMD_NUMA_* */
        uint64_t numa_nodes;            /* bit n: node n */
};
#define SHMD_MAP_OPTIONS_INIT { .struct_size = sizeof(struct shmd_map_options) }

/* Maps the region, or a part of it, with the grant's rights. Before it does, it checks what the
 * kernel says of the descriptor: the size is the one promised, and F_SEAL_SHRINK and F_SEAL_GROW
 * are set, so that no access inside the mapping can raise SIGBUS for a missing page of a shrunk
 * file (-EPROTO otherwise).
 *
 * Populating maps pages that exist by reading and allocates the others by writing, which is
 * several times faster than writing to each page that exists, and not slower otherwise; a mapping that
 * is read-only or private is populated by reading.
 *
 * With huge pages, a mapping of at least one is at an address that suits them, and MADV_HUGEPAGE is said of
 * it. With both flags, and no NUMA policy, memory that is not there yet is made of huge pages by
 * MADV_COLLAPSE (Linux 6.1) wherever all of one is missing, which is the fastest way to get new memory:
 * also where the system's setting for shared memory is `never`, unless it is `deny`.
 * Advice that the kernel does not take (huge pages off, no NUMA) is no error; a node that does
 * not exist is -EINVAL.
 *
 * options may be NULL. *ret_address and *ret_length are to be given to shmd_unmap().
 * Errors: -EINVAL (offset or length unaligned or outside, empty region), -EACCES, -EBADF,
 * -ENOMEM, -EPROTO. */
SHMD_PUBLIC int shmd_map(shmd_region *region, const struct shmd_map_options *options,
                         void **ret_address, size_t *ret_length);

/* Ends a mapping, or a page-aligned part of one. Errors: -EINVAL. */
SHMD_PUBLIC int shmd_unmap(void *address, size_t length);

/* -- names --------------------------------------------------------------------------- */

/* Checks a path without asking the broker. Return: 0, or -EINVAL; *ret_sentence (may be NULL)
 * is then a static sentence that says which rule it breaks. */
SHMD_PUBLIC int shmd_path_check(const char *path, const char **ret_sentence);

enum {
        SHMD_PUBLISH_REPLACE = 1,       /* a region that has the name loses it, atomically */
};

struct shmd_publish_options {
        size_t struct_size;
        uint32_t flags;                 /* SHMD_PUBLISH_* */
        uint64_t ttl_ns;                /* the name ends after so long, see shmd_expire(); 0: it does not */
};
#define SHMD_PUBLISH_OPTIONS_INIT { .struct_size = sizeof(struct shmd_publish_options) }

/* Gives a region without a name its name, so that nobody sees it before it is filled. options may be
 * NULL. A name that is taken from another region loses the end that it had.
 * Errors: -EEXIST (name taken, or the region has one), -EACCES, -ENOENT, -ENOTDIR, -EISDIR,
 * -EDQUOT (a limit of the directory), and those of the connection. */
SHMD_PUBLIC int shmd_publish(shmd *client, uint64_t region, const char *path,
                             const struct shmd_publish_options *options, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_publish_start(shmd *client, uint64_t region, const char *path,
                                   const struct shmd_publish_options *options,
                                   uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_publish_finish(shmd_call *call);

/* Lets a name of a region end after a time, as if it were unlinked then, or with 0 not any more. The
 * time is that of CLOCK_MONOTONIC, which does not pass while the machine is suspended; at most a
 * century. A name that is moved keeps its end. For the region's owner and administrators.
 * Errors: -ENOENT, -ENOTDIR, -EISDIR, -EACCES, -EINVAL. */
SHMD_PUBLIC int shmd_expire(shmd *client, const char *path, uint64_t ttl_ns, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_expire_start(shmd *client, const char *path, uint64_t ttl_ns,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_expire_finish(shmd_call *call);

/* Gives the region with the name `path` the name `to` as well: they are equals. Its owner, who pays
 * for each name beyond the first as for one more region, and administrators may.
 * Errors: -ENOENT, -ENOTDIR, -EISDIR, -EACCES, -EEXIST, -EDQUOT. */
SHMD_PUBLIC int shmd_link(shmd *client, const char *path, const char *to, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_link_start(shmd *client, const char *path, const char *to,
                                uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_link_finish(shmd_call *call);

enum {
        SHMD_RENAME_REPLACE  = 1,       /* what has the new name loses it, atomically */
        SHMD_RENAME_EXCHANGE = 2,       /* the two change places, atomically */
};

/* Moves a region's name, or a directory with all that is in it, to the name `to`, which without a
 * flag must be free. Only an empty directory can be replaced, and only by a directory. To itself, or
 * with a flag to another name of the same region, is nothing.
 * Errors: -ENOENT, -EEXIST, -ENOTDIR (of a path, or a directory over a region), -EISDIR (the
 * reverse), -ENOTEMPTY, -EACCES, -EBUSY (root), -EDQUOT (a limit of a directory), -EINVAL (a
 * directory below itself, or names in it too long or too deep then). */
SHMD_PUBLIC int shmd_rename(shmd *client, const char *path, const char *to, uint32_t flags, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_rename_start(shmd *client, const char *path, const char *to, uint32_t flags,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_rename_finish(shmd_call *call);

/* Makes a directory; mode 0..01777. Errors: -EEXIST, -ENOENT, -ENOTDIR, -EACCES, -EDQUOT. */
SHMD_PUBLIC int shmd_mkdir(shmd *client, const char *path, mode_t mode, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_mkdir_start(shmd *client, const char *path, mode_t mode,
                                 uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_mkdir_finish(shmd_call *call);

/* Removes an empty directory. Errors: -ENOENT, -ENOTDIR, -ENOTEMPTY, -EACCES, -EBUSY (root). */
SHMD_PUBLIC int shmd_rmdir(shmd *client, const char *path, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_rmdir_start(shmd *client, const char *path,
                                 uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_rmdir_finish(shmd_call *call);

/* Takes a name of a region away. With its last name gone, who holds the region keeps it, and it
 * stays charged to its owner until the last of them is gone. Errors: -ENOENT, -ENOTDIR, -EISDIR, -EACCES. */
SHMD_PUBLIC int shmd_unlink(shmd *client, const char *path, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_unlink_start(shmd *client, const char *path,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_unlink_finish(shmd_call *call);

/* Changes the mode of a directory (0..01777) or region (0..0777). Grants already given stay.
 * Errors: -ENOENT, -ENOTDIR, -EACCES (not the owner), -EINVAL. */
SHMD_PUBLIC int shmd_chmod(shmd *client, const char *path, mode_t mode, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_chmod_start(shmd *client, const char *path, mode_t mode,
                                 uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_chmod_finish(shmd_call *call);

/* Changes owner and group; (uid_t)-1 and (gid_t)-1 leave one as it is. The charge moves to the
 * new owner. Administrators only.
 * Errors: -ENOENT, -ENOTDIR, -EACCES, -EDQUOT (no room in the new owner's account). */
SHMD_PUBLIC int shmd_chown(shmd *client, const char *path, uid_t uid, gid_t gid, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_chown_start(shmd *client, const char *path, uid_t uid, gid_t gid,
                                 uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_chown_finish(shmd_call *call);

/* -- access control lists ------------------------------------------------------------ */

#define SHMD_ACL_MAX 32                 /* entries of an ACL */

/* Whom an entry is about. */
enum {
        SHMD_ACL_USER_OBJ  = 1,         /* the owner */
        SHMD_ACL_USER      = 2,         /* the user `id` */
        SHMD_ACL_GROUP_OBJ = 3,         /* the owning group */
        SHMD_ACL_GROUP     = 4,         /* the group `id` */
        SHMD_ACL_MASK      = 5,         /* the most that the owning group, and all by number, can get */
        SHMD_ACL_OTHER     = 6,         /* everybody else */
};

struct shmd_acl_entry {
        uint32_t tag;                   /* SHMD_ACL_USER_OBJ, ... */
        uint32_t id;                    /* uid or gid for SHMD_ACL_USER and SHMD_ACL_GROUP, else 0 */
        uint32_t perms;                 /* 4 read, 2 write, 1 search */
};

/* What shmd_acl_get() returns; one block, owned by the caller, ended by shmd_acl_free(). */
struct shmd_acl_result {
        uint32_t kind;                  /* SHMD_NODE_* */
        uid_t uid;
        gid_t gid;
        mode_t mode;                    /* with an ACL, the group's bits are the mask */
        size_t n_access;
        struct shmd_acl_entry *access;  /* three entries if there is no more than the mode */
        size_t n_defaults;
        struct shmd_acl_entry *defaults;        /* of a directory; none if it has no default ACL */
};

/* The ACL of a region or directory, in the order of tags and ids. Whoever may search the directories
 * on the way may ask. Source: acl(5). Errors: -ENOENT, -ENOTDIR, -EACCES, -EINVAL. */
SHMD_PUBLIC int shmd_acl_get(shmd *client, const char *path, struct shmd_acl_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_acl_get_start(shmd *client, const char *path,
                                   uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_acl_get_finish(shmd_call *call, struct shmd_acl_result **ret);
SHMD_PUBLIC struct shmd_acl_result *shmd_acl_free(struct shmd_acl_result *result);

enum {
        SHMD_ACL_ACCESS  = 1,           /* set the ACL */
        SHMD_ACL_DEFAULT = 2,           /* set the default ACL of a directory; no entries: remove it */
};

/* Sets the ACL, or the default ACL, or both, as flags say; both or neither. The entries may come in
 * any order. Each list needs an entry for the owner, the owning group and others, and with entries for
 * users or groups a mask. What was opened before stays open. For owners and administrators.
 * Errors: -EINVAL (not an ACL: shmd_refusal() says why; a region has no default ACL), -ENOENT,
 * -ENOTDIR, -EACCES, -ENOMEM. */
SHMD_PUBLIC int shmd_acl_set(shmd *client, const char *path, uint32_t flags,
                             const struct shmd_acl_entry *access, size_t n_access,
                             const struct shmd_acl_entry *defaults, size_t n_defaults, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_acl_set_start(shmd *client, const char *path, uint32_t flags,
                                   const struct shmd_acl_entry *access, size_t n_access,
                                   const struct shmd_acl_entry *defaults, size_t n_defaults,
                                   uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_acl_set_finish(shmd_call *call);

enum {
        SHMD_ACL_TEXT_BARE    = 1,      /* read: entries without permissions, as for setfacl -x */
        SHMD_ACL_TEXT_SHORT   = 2,      /* write: u:alice:rw- instead of user:alice:rw- */
        SHMD_ACL_TEXT_NUMERIC = 4,      /* write: numbers of users and groups instead of names */
        SHMD_ACL_TEXT_DEFAULT = 8,      /* write: with default: (or d:) in front */
};

/* Two lists of entries, as text has them. */
struct shmd_acl_lists {
        size_t n_access;
        struct shmd_acl_entry access[SHMD_ACL_MAX];
        size_t n_defaults;
        struct shmd_acl_entry defaults[SHMD_ACL_MAX];
};

/* Reads entries in the forms of setfacl(1), between commas or on lines of their own; those with
 * default: or d: in front go to the second list. Users and groups are looked up by name (getpwnam_r(3),
 * getgrnam_r(3)), else they are numbers. The lists are sorted; whether they are complete is not asked.
 * Return: 0, or -EINVAL; then *ret_at (may be NULL) is where in the text the entry begins that is
 * wrong, and *ret_sentence (may be NULL) a static sentence that says why. */
SHMD_PUBLIC int shmd_acl_from_text(const char *text, uint32_t flags, struct shmd_acl_lists *ret,
                                   size_t *ret_at, const char **ret_sentence);

/* Writes an entry into text, with a NUL, as snprintf(3) does: what is beyond size bytes is left out.
 * Return: the length it needs without the NUL; -EINVAL: not an entry. */
SHMD_PUBLIC int shmd_acl_to_text(const struct shmd_acl_entry *entry, uint32_t flags, char *text, size_t size);

/* -- looking ------------------------------------------------------------------------- */

enum {
        SHMD_NODE_DIRECTORY = 0,
        SHMD_NODE_REGION    = 1,
};

struct shmd_node {
        const char *path;
        uint32_t kind;                  /* SHMD_NODE_* */
        uid_t uid;
        gid_t gid;
        mode_t mode;
        bool acl;                       /* it has an ACL, or a default ACL */
        /* regions */
        uint64_t region;                /* id */
        uint64_t size;                  /* bytes */
        uint64_t charge;                /* bytes: size rounded up to its pages */
        uint32_t lifetime;
        uint64_t page_size;             /* bytes */
        bool freezable;
        uint32_t seals;                 /* F_SEAL_* of fcntl(2) */
        uint64_t created_ns;            /* CLOCK_REALTIME */
        uint64_t grants;                /* on the broker's books */
        uint32_t names;                 /* how many it has */
        uint64_t granted;               /* grants since it was made, the ended ones too */
        uint64_t allocated;             /* bytes of memory and swap it has now; in a list with SHMD_LIST_USAGE */
        uint64_t bell;                  /* id of its doorbell's page, 0: nobody has opened it yet */
        uint64_t ttl_ns;                /* the name ends in so long; 0: it does not */
        /* directories */
        uint64_t entries;
};

struct shmd_holder {
        uint64_t grant;
        uid_t uid;
        pid_t pid;                      /* of the connection; for people, pids are reused */
        uint32_t rights;
        uint64_t age_ns;
        uint64_t pidfd_ino;             /* 0: unknown */
        bool marked;                    /* the kernel confirms this very grant is alive */
        bool connected;                 /* the connection that asked for it still exists */
        bool ticket;                    /* it was got with a ticket */
};

/* Whether the holders of a region are all known. The kernel says only whether anybody holds it: while
 * a grant lives, whether somebody else does as well is not known. */
enum {
        SHMD_EXPLAINED_UNKNOWN = 0,     /* this kernel cannot say, or the grants that are left prove nothing */
        SHMD_EXPLAINED_NOBODY  = 1,     /* nobody holds it */
        SHMD_EXPLAINED_GRANTS  = 2,     /* held, and grants of it live */
        SHMD_EXPLAINED_NO      = 3,     /* held, and no grant of it lives that could explain it */
};

/* What shmd_stat() returns; one block, owned by the caller, ended by shmd_stat_free(). */
struct shmd_stat_result {
        struct shmd_node node;
        size_t n_holders;
        struct shmd_holder *holders;
        uint64_t more_holders;          /* beyond those listed, at most: some may have ended */
        bool held;                      /* the kernel says somebody has it open or mapped */
        bool held_known;
        uint32_t explained;             /* SHMD_EXPLAINED_*, with SHMD_STAT_HOLDERS */
        size_t n_names;                 /* with SHMD_STAT_NAMES: those the caller may find, at most 64; */
        const char *const *names;       /* node.names counts them all */
};

enum {
        SHMD_STAT_HOLDERS = 1,          /* also who holds it: for its owner, and who may read it */
        SHMD_STAT_NAMES   = 2,          /* also its names */
};

/* Looks at a node by path, or, if path is NULL, at a region by id (its owner and administrators
 * only). flags: SHMD_STAT_*.
 * Errors: -ENOENT, -ENOTDIR, -EACCES, -EINVAL. */
SHMD_PUBLIC int shmd_stat(shmd *client, const char *path, uint64_t region, uint32_t flags,
                          struct shmd_stat_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_stat_start(shmd *client, const char *path, uint64_t region, uint32_t flags,
                                uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_stat_finish(shmd_call *call, struct shmd_stat_result **ret);
SHMD_PUBLIC struct shmd_stat_result *shmd_stat_free(struct shmd_stat_result *result);

enum {
        SHMD_LIST_RECURSIVE = 1,
        SHMD_LIST_ORPHANS   = 2,        /* regions without a name instead */
        SHMD_LIST_USAGE     = 4,        /* also fill in `allocated` */
};

/* One page of a list; one block, owned by the caller, ended by shmd_list_free(). cursor is NULL
 * when there is no more, else what to pass to get the next page. */
struct shmd_list_result {
        size_t n;
        struct shmd_node *nodes;
        const char *cursor;
        uint64_t sequence;              /* this page has in it what the events up to this one did */
};

/* Lists a directory, or with SHMD_LIST_RECURSIVE all below it (what may not be read is left
 * out), in byte order of the components, parents before children. cursor: NULL at first, then
 * from the page before. limit: at most so many nodes a page; 0: as many as fit.
 * A node that exists for the whole of the walk is seen exactly once.
 *
 * With SHMD_LIST_ORPHANS, which excludes SHMD_LIST_RECURSIVE, path is NULL: lists regions that have no
 * name, the caller's or for an administrator all, by number. A page may be empty and not be the last.
 * Errors: -ENOENT, -ENOTDIR, -EACCES, -EINVAL (flags, path or cursor that do not go together). */
SHMD_PUBLIC int shmd_list(shmd *client, const char *path, uint32_t flags, const char *cursor, uint32_t limit,
                          struct shmd_list_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_list_start(shmd *client, const char *path, uint32_t flags, const char *cursor, uint32_t limit,
                                uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_list_finish(shmd_call *call, struct shmd_list_result **ret);
SHMD_PUBLIC struct shmd_list_result *shmd_list_free(struct shmd_list_result *result);

enum {
        SHMD_EVENT_CREATED  = 1,        /* a name appeared; a directory that was moved here has names in it */
        SHMD_EVENT_REMOVED  = 2,        /* a name is gone, with all below it */
        SHMD_EVENT_RENAMED  = 4,        /* path became to, which is gone if it was there */
        SHMD_EVENT_REPLACED = 8,        /* path stands for something else now */
        SHMD_EVENT_FROZEN   = 16,       /* the region was frozen: seals */
        SHMD_EVENT_HOLDERS  = 32,       /* grants, or held, of the region have changed */
        SHMD_EVENT_LIMITS   = 64,       /* limits of the directory, or with account of the user uid, have changed */
        SHMD_EVENT_OVERFLOW = 128,      /* events up to sequence may be missing: list again. Always told */
        SHMD_EVENT_CHANGED  = 256,      /* owner, group, mode or ACL have changed */
        SHMD_EVENT_LOST     = 512,      /* the watch, or the connection, is over: error. Always told, the last */
        /* of the connection itself, for shmd_set_listener() */
        SHMD_EVENT_DISCONNECTED = 1024, /* the broker is gone; the library tries to get it back */
        SHMD_EVENT_RECONNECTED  = 2048, /* it is back: resumed */
};
#define SHMD_EVENT_ALL UINT32_C(0x1ff)

/* What a watch tells; valid while the callback runs. */
struct shmd_event {
        uint64_t watch;
        uint64_t sequence;              /* grows; each change of the tree has a number of its own */
        uint32_t event;                 /* SHMD_EVENT_* */
        uint32_t kind;                  /* SHMD_NODE_*: what has the name now, or had it */
        uint64_t region;                /* its number, for a region */
        const char *path;               /* whole, if what is watched still has the name it had then */
        const char *to;                 /* SHMD_EVENT_RENAMED: the new name; else NULL */
        bool itself;                    /* it is about what is watched, not about a name below it */
        bool exchange;                  /* SHMD_EVENT_RENAMED: what had the name `to` has the name `path` now */
        bool held;
        bool account;
        uint32_t seals;                 /* F_SEAL_* */
        uint32_t uid;
        uint64_t grants;
        int error;                      /* SHMD_EVENT_LOST: why: see shmd_watch() */
        bool resumed;                   /* SHMD_EVENT_RECONNECTED: it knows the session */
};

typedef void (*shmd_event_callback)(shmd *client, const struct shmd_event *event, void *userdata);

/* Whom to tell of the connection itself, one callback at most, NULL for nobody: SHMD_EVENT_DISCONNECTED when
 * the broker is gone and SHMD_EVENT_RECONNECTED when it is back, each with watch 0 and an empty path, or
 * SHMD_EVENT_LOST at the end. It runs where other callbacks do, under the same rules; a call of which the outcome
 * is lost ends after SHMD_EVENT_RECONNECTED. If that is not `resumed`, regions of SHMD_LIFETIME_SESSION are gone and
 * have to be made again. Errors: -ECHILD, -ENOTCONN. */
SHMD_PUBLIC int shmd_set_listener(shmd *client, shmd_event_callback on_event, void *userdata);

/* Watches a directory and all below it, or one name: calls on_event for what happens there, in its
 * order, where the caller may list the directories on the way; inside shmd_dispatch() and whatever
 * else runs callbacks, and under the same rules. mask: SHMD_EVENT_* wanted. sequence: begin after the event of that
 * number (of a list, or of the last event had), 0: from now on; if that is too long ago,
 * SHMD_EVENT_OVERFLOW comes first. on_event may give the watch up.
 *
 * The watch is of the thing, and goes along when that is renamed; paths keep the name it had. It ends with
 * shmd_unwatch(), with the connection (SHMD_EVENT_LOST), or when what is watched is gone (SHMD_EVENT_REMOVED with
 * itself set). When the broker was gone, the watch goes on by itself, of what has the path then, and misses nothing
 * without SHMD_EVENT_OVERFLOW. If it cannot, SHMD_EVENT_LOST says why: the path is not there (-ENOENT, also
 * if the thing had been renamed before), or may not be watched (-EACCES, -EDQUOT). *ret_watch is its number.
 * *ret_sequence (may be NULL): the event after which it begins.
 * Errors: -EINVAL (mask), -ENOENT, -ENOTDIR, -EACCES, -EDQUOT (too many watches), -ENOMEM. */
SHMD_PUBLIC int shmd_watch(shmd *client, const char *path, uint32_t mask, uint64_t sequence,
                           shmd_event_callback on_event, void *event_userdata,
                           uint64_t *ret_watch, uint64_t *ret_sequence, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_watch_start(shmd *client, const char *path, uint32_t mask, uint64_t sequence,
                                 shmd_event_callback on_event, void *event_userdata,
                                 uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_watch_finish(shmd_call *call, uint64_t *ret_watch, uint64_t *ret_sequence);

/* Gives a watch up: its callback does not run any more, from the start of the call on.
 * Errors: -ENOENT (no such watch, or it has ended). */
SHMD_PUBLIC int shmd_unwatch(shmd *client, uint64_t watch, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_unwatch_start(shmd *client, uint64_t watch,
                                   uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_unwatch_finish(shmd_call *call);

/* Waits until a name exists (and may be searched for); returns what it names then, or at once if
 * it is there. *ret may be NULL if the answer is not wanted, else ends with shmd_stat_free().
 * SHMD_TIMEOUT_NONE waits as long as the broker's configuration lets anybody wait.
 * Errors: -ETIMEDOUT, -EACCES, -EDQUOT (too much waiting already), -EINVAL. */
SHMD_PUBLIC int shmd_wait(shmd *client, const char *path, struct shmd_stat_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_wait_start(shmd *client, const char *path,
                                uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_wait_finish(shmd_call *call, struct shmd_stat_result **ret);

/* Waits until nobody holds the region that the name stands for now, or that has this number (path
 * NULL; one's own), by the kernel's word: no descriptor, mapping or message in flight is left; or
 * until it is frozen. At once if it is so already. What counts is the region as it was found, even
 * if the name goes. *ret as for shmd_wait(), its path empty if that name is not the region's any
 * more. Both end with shmd_wait_finish().
 * Errors: -ETIMEDOUT, -ENOENT (no such name or number; or frozen: the region is gone), -EISDIR,
 * -EACCES, -EDQUOT, -EINVAL. */
SHMD_PUBLIC int shmd_wait_unheld(shmd *client, const char *path, uint64_t region,
                                 struct shmd_stat_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_wait_unheld_start(shmd *client, const char *path, uint64_t region,
                                       uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_wait_frozen(shmd *client, const char *path, uint64_t region,
                                 struct shmd_stat_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_wait_frozen_start(shmd *client, const char *path, uint64_t region,
                                       uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);

/* -- tickets ------------------------------------------------------------------------- */

struct shmd_ticket_options {
        size_t struct_size;
        uint32_t rights;                /* SHMD_RIGHTS_READ_ONLY (default) or _READ_WRITE */
        uint32_t uses;                  /* how many grants it is good for: 1 (default) to 65536 */
        uint64_t ttl_ns;                /* for how long; 0: an hour. The broker may cut it */
        uid_t uid;                      /* only this user can redeem it; (uid_t)-1 (default): anybody */
};
#define SHMD_TICKET_OPTIONS_INIT \
        { .struct_size = sizeof(struct shmd_ticket_options), .rights = SHMD_RIGHTS_READ_ONLY, .uses = 1, \
          .uid = (uid_t)-1 }

/* One block, owned by the caller, ended by shmd_ticket_free(), which wipes it. */
struct shmd_ticket_result {
        const char *ticket;             /* printable, without spaces; nobody can tell it again */
        uint64_t id;                    /* to revoke it; no secret */
        uint64_t ttl_ns;
};

/* Issues a ticket for the region of that name or, if path is NULL, of that number: a string of 256
 * random bits that whoever has it can redeem for a grant, without a name, a mode or an ACL that lets
 * them in. Its owner and administrators may. It is charged to the caller as a pending request until it
 * is over: all used, its time gone, revoked, its region chowned or gone (it keeps none alive).
 * options may be NULL.
 * Errors: -ENOENT, -ENOTDIR, -EISDIR, -EACCES (not the owner), -EDQUOT, -EINVAL. */
SHMD_PUBLIC int shmd_ticket(shmd *client, const char *path, uint64_t region,
                            const struct shmd_ticket_options *options,
                            struct shmd_ticket_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_ticket_start(shmd *client, const char *path, uint64_t region,
                                  const struct shmd_ticket_options *options,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_ticket_finish(shmd_call *call, struct shmd_ticket_result **ret);
SHMD_PUBLIC struct shmd_ticket_result *shmd_ticket_free(struct shmd_ticket_result *result);

/* Redeems a ticket: a grant with the rights it was issued for, as shmd_open() returns one, charged to
 * the caller. A use of it is spent with the grant, even if the answer is lost. The copies that the
 * library makes of the ticket are wiped.
 * Errors: -EACCES (it is no good, for whatever reason: the broker does not say which, and takes a
 * quarter of a second in which it serves nothing else on this connection; or it is good for writing and
 * the region is frozen, which the refusal's reason says), -EDQUOT, -ENOMEM, -EBUSY, -EMFILE: these cost
 * no use. */
SHMD_PUBLIC int shmd_redeem(shmd *client, const char *ticket, shmd_region **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_redeem_start(shmd *client, const char *ticket,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_redeem_finish(shmd_call *call, shmd_region **ret);

enum {
        SHMD_REVOKE_NUMBER = 0,         /* the ticket with the id `number` */
        SHMD_REVOKE_TICKET = 1,         /* the ticket `text` */
        SHMD_REVOKE_ALL    = 2,         /* those of the region named `text`, or, if NULL, of number `number` */
};

/* Ends tickets of one's own regions; grants that were given for them stay. *ret_revoked (may be NULL)
 * is how many.
 * Errors: -ENOENT (no such ticket, no such region), -EACCES (not the owner; for SHMD_REVOKE_TICKET as
 * shmd_redeem()), -EINVAL. */
SHMD_PUBLIC int shmd_revoke(shmd *client, uint32_t what, const char *text, uint64_t number,
                            uint32_t *ret_revoked, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_revoke_start(shmd *client, uint32_t what, const char *text, uint64_t number,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_revoke_finish(shmd_call *call, uint32_t *ret_revoked);

struct shmd_ticket_info {
        uint64_t id;
        uint32_t rights;
        uint32_t left;                  /* uses */
        uint64_t ttl_ns;                /* left */
        uid_t uid;                      /* (uid_t)-1: anybody */
};

/* One page of a list; one block, owned by the caller, ended by shmd_tickets_free(). cursor is 0 when
 * there is no more, else what to pass to get the next page. */
struct shmd_tickets_result {
        size_t n;
        struct shmd_ticket_info *tickets;
        uint64_t cursor;
};

/* The tickets of a region, by name or, if path is NULL, by number; for its owner and administrators.
 * cursor: 0 at first, then from the page before. Errors: -ENOENT, -ENOTDIR, -EISDIR, -EACCES. */
SHMD_PUBLIC int shmd_tickets(shmd *client, const char *path, uint64_t region, uint64_t cursor,
                             struct shmd_tickets_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_tickets_start(shmd *client, const char *path, uint64_t region, uint64_t cursor,
                                   uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_tickets_finish(shmd_call *call, struct shmd_tickets_result **ret);
SHMD_PUBLIC struct shmd_tickets_result *shmd_tickets_free(struct shmd_tickets_result *result);

/* -- doorbells ----------------------------------------------------------------------- */

enum {
        SHMD_BELL_RING = 1,             /* a bell that can ring; without, it can only wait */
};

/* Opens the doorbell of a region: a counter that those who may write the region ring, and those who may
 * read it wait for, without the broker. path: its name, or NULL for the region with that number, which
 * works for its owner and for a connection that was granted it (with SHMD_BELL_RING: read-write), by
 * ticket perhaps. The first to open it makes it; its page is charged to the region's owner.
 *
 * *ret is the caller's and ends with shmd_bell_close(). It knows no connection: it works when that, or
 * the broker, is gone, and in a forked child. shmd_bell_ring(), _count() and _wait() may be called from
 * several threads at once, the others from one at a time.
 * Errors: -ENOENT, -ENOTDIR, -EISDIR, -EACCES, -EDQUOT (the owner's account; the caller's grants),
 * -EINVAL, -ENOMEM, -EMFILE, -EBUSY. */
SHMD_PUBLIC int shmd_bell_open(shmd *client, const char *path, uint64_t region, uint32_t flags,
                               shmd_bell **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_bell_open_start(shmd *client, const char *path, uint64_t region, uint32_t flags,
                                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_bell_open_finish(shmd_call *call, shmd_bell **ret);
/* NULL is fine. Return: NULL. */
SHMD_PUBLIC shmd_bell *shmd_bell_close(shmd_bell *bell);

/* Rings: adds one to the counter and wakes all who wait. One system call, futex(2); two, with pwrite(2),
 * once somebody polls. Errors: -EACCES (opened without SHMD_BELL_RING); those of pwrite(2): who waits
 * was woken, who polls was not. */
SHMD_PUBLIC int shmd_bell_ring(shmd_bell *bell);

/* The counter: how often it was rung, modulo 2^32. Whoever may ring can set it to anything. */
SHMD_PUBLIC uint32_t shmd_bell_count(const shmd_bell *bell);

/* Waits until the counter is not `seen` any more, which the caller got from shmd_bell_count() before it
 * last looked for work; at once if it is not. So no ring between the two is missed. A timeout of 0 does
 * not wait; SHMD_TIMEOUT_NONE waits for ever. Signal handlers run, and the wait goes on.
 * Errors: -ETIMEDOUT; those of futex(2). */
SHMD_PUBLIC int shmd_bell_wait(const shmd_bell *bell, uint32_t seen, uint64_t timeout_ns);

/* Makes the bell pollable: from now on shmd_bell_fd() is readable after a ring, for poll(2) and
 * epoll(7). Where the bell can only wait, the broker's helper tells the ringers, once for all who poll;
 * client is the connection it was opened on. A bell that can ring asks nobody: client may be NULL. What
 * rang before is not told: look at the count once, then poll. It is an inotify(7) watch of the caller's,
 * with those limits (-EMFILE, -ENOSPC), and needs /proc (-ENOENT); who cannot have it can wait in a
 * thread.
 * Errors: also -EBUSY (who may ring keeps the page locked), -EOPNOTSUPP (the broker has no helper),
 * -ENOENT (not opened on this connection). */
SHMD_PUBLIC int shmd_bell_poll(shmd *client, shmd_bell *bell, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_bell_poll_start(shmd *client, shmd_bell *bell,
                                     uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_bell_poll_finish(shmd_call *call, shmd_bell *bell);

/* The descriptor, the bell's, to be polled for POLLIN; -EBADF before shmd_bell_poll(). A forked child
 * shares it with its parent: one of the two opens the bell anew. */
SHMD_PUBLIC int shmd_bell_fd(const shmd_bell *bell);

/* Makes the descriptor unreadable until the next ring. Return: the counter, read after that. */
SHMD_PUBLIC uint32_t shmd_bell_clear(shmd_bell *bell);

/* -- limits and figures -------------------------------------------------------------- */

enum {
        SHMD_SLOT_BYTES    = 1,
        SHMD_SLOT_REGIONS  = 2,
        SHMD_SLOT_GRANTS   = 3,
        SHMD_SLOT_PEERS    = 4,
        SHMD_SLOT_WATCHES  = 5,
        SHMD_SLOT_PENDING  = 6,
        SHMD_SLOT_INFLIGHT = 7,
        SHMD_SLOT_MAX      = 7,
};

enum {
        SHMD_DF_ACCOUNT   = 0,          /* one uid: (uid_t)-1 is the caller */
        SHMD_DF_DIRECTORY = 1,
        SHMD_DF_TOTAL     = 2,
        SHMD_DF_ACCOUNTS  = 3,          /* every account; administrators only */
};

/* Which rule gave a user a limit, shmd-policy(5). */
enum {
        SHMD_RULE_NONE           = 0,   /* not told */
        SHMD_RULE_ACCOUNT        = 1,   /* the configuration, for everybody */
        SHMD_RULE_ACCOUNT_USER   = 2,   /* ... for this user */
        SHMD_RULE_POLICY_ACCOUNT = 3,   /* the policy, for everybody */
        SHMD_RULE_POLICY_GROUP   = 4,   /* ... for the group `group` */
        SHMD_RULE_POLICY_USER    = 5,   /* ... for this user */
};

/* Slots an entry does not have are 0/0. A limit of UINT64_MAX is none. */
struct shmd_usage {
        uid_t uid;                      /* SHMD_DF_ACCOUNT, SHMD_DF_ACCOUNTS */
        uint64_t limit[SHMD_SLOT_MAX + 1];      /* by SHMD_SLOT_*; [0] is not used */
        uint64_t used[SHMD_SLOT_MAX + 1];
        uint64_t granted;               /* grants since the account was made, the ended ones too */
        uint32_t rule[SHMD_SLOT_MAX + 1];       /* SHMD_RULE_*, for SHMD_DF_ACCOUNT and SHMD_DF_ACCOUNTS */
        gid_t group;
};

/* One block, owned by the caller, ended by shmd_df_free(). SHMD_DF_ACCOUNTS is paged: while more
 * is true, ask again with uid = next_uid. */
struct shmd_df_result {
        size_t n;
        struct shmd_usage *usages;
        bool more;
        uid_t next_uid;
};

/* Limits and use. Other accounts than one's own: administrators only.
 * Errors: -EACCES, -ENOENT, -ENOTDIR. */
SHMD_PUBLIC int shmd_df(shmd *client, uint32_t scope, uid_t uid, const char *path,
                        struct shmd_df_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_df_start(shmd *client, uint32_t scope, uid_t uid, const char *path,
                              uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_df_finish(shmd_call *call, struct shmd_df_result **ret);
SHMD_PUBLIC struct shmd_df_result *shmd_df_free(struct shmd_df_result *result);

/* A round trip, and how long it took (*ret_ns may be NULL). */
SHMD_PUBLIC int shmd_ping(shmd *client, uint64_t *ret_ns, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_ping_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                                shmd_call **ret);
SHMD_PUBLIC int shmd_ping_finish(shmd_call *call, uint64_t *ret_ns);

#define SHMD_BUCKETS 20

/* bucket[i] counts requests that took less than 2^(10+i) ns in the broker, bucket[19] the rest. */
struct shmd_request_stat {
        const char *name;
        uint64_t count, refused, total_ns;
        uint64_t bucket[SHMD_BUCKETS];
};

struct shmd_reason_stat {
        const char *name;
        uint32_t reason;
        uint64_t count;
};

struct shmd_stats_result {
        uint64_t uptime_ns, regions, named, orphans, bytes, grants, peers, waiters, directories;
        uint64_t released, violations, accepts_paused, log_dropped;
        uint64_t restarts;              /* brokers before this one that ended by themselves: see shmd_doctor() */
        size_t n_requests;
        struct shmd_request_stat *requests;
        size_t n_refusals;
        struct shmd_reason_stat *refusals;
        const char *broker;             /* version */
};

/* Figures of the broker since its start. One block, ended by shmd_stats_free(). */
SHMD_PUBLIC int shmd_stats(shmd *client, struct shmd_stats_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_stats_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                                 shmd_call **ret);
SHMD_PUBLIC int shmd_stats_finish(shmd_call *call, struct shmd_stats_result **ret);
SHMD_PUBLIC struct shmd_stats_result *shmd_stats_free(struct shmd_stats_result *result);

/* The most that a compiled policy can have, in bytes. */
#define SHMD_POLICY_MAX (1U << 20)

struct shmd_reload_result {
        uint64_t generation;            /* of the policy in force: it counts up from 1 at the broker's start */
        uint32_t directories;           /* made */
        uint32_t accounts;              /* whose limits are other than before */
};

/* Puts a policy in force that `shmd --compile-policy` has made: for everybody in the same moment, or,
 * on every error, not at all. Administrators only. Its n bytes are not needed any more when the call
 * was started. ret may be NULL.
 * Errors: -EACCES (no administrator), -EINVAL (it is none, or something is in its way: the sentence of
 * shmd_refusal() says what), -EDQUOT, -ENOMEM. */
SHMD_PUBLIC int shmd_reload(shmd *client, const void *policy, size_t n, struct shmd_reload_result *ret,
                            uint64_t timeout_ns);
SHMD_PUBLIC int shmd_reload_start(shmd *client, const void *policy, size_t n,
                                  uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_reload_finish(shmd_call *call, struct shmd_reload_result *ret);

/* Asks for another broker, from the program that is now where the running one was started from. 0 means
 * that it has accepted the configuration and the running broker stops: a connection made after that is
 * served by the next one. Regions, names and grants stay as they are. Administrators only.
 * Errors: -EACCES (no administrator), -EOPNOTSUPP (the broker has no keeper), -EINVAL (the program does
 * not accept the configuration; the broker goes on), -EBUSY (this connection has asked already), -EDQUOT. */
SHMD_PUBLIC int shmd_upgrade(shmd *client, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_upgrade_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                                   shmd_call **ret);
SHMD_PUBLIC int shmd_upgrade_finish(shmd_call *call);

/* Something a kernel may lack. */
struct shmd_feature {
        const char *name;               /* "lease" */
        bool have;
        const char *consequence;        /* of its absence, for people */
};

struct shmd_doctor_result {
        size_t n_features;
        struct shmd_feature *features;
        uint64_t descriptors;           /* that the broker may have open */
        uint64_t regions;               /* limit of all together */
        uint64_t helper_replacements;   /* helper processes given up on since the start: a holder kept one waiting */
        uint64_t policy_generation;     /* of the policy in force */
        uint64_t inotify_overflows;     /* since the start; each makes the broker ask after every orphan */
        uid_t uid;                      /* the broker's */
        bool landlock;                  /* the broker is kept from every file system */
        const char *broker;             /* version */
        const char *kept_by;            /* who would give what it has to the next broker: "keeper",
                                         * "service-manager", "" (nobody) */
        uint64_t restarts;              /* brokers that ended by themselves since the keeper's start or upgrade */
        const char *last_end;           /* how the one before this did: "signal KILL", "status 1"; "" */
};

/* What the broker found out about its kernel, and what it must do without. Anybody may ask. One
 * block, ended by shmd_doctor_free(). */
SHMD_PUBLIC int shmd_doctor(shmd *client, struct shmd_doctor_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_doctor_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                                  shmd_call **ret);
SHMD_PUBLIC int shmd_doctor_finish(shmd_call *call, struct shmd_doctor_result **ret);
SHMD_PUBLIC struct shmd_doctor_result *shmd_doctor_free(struct shmd_doctor_result *result);

/* A copy of the broker's state, which is all that it knows after it was started again: as of one moment
 * between call and return. *ret_fd is a memfd, sealed against every change, for `shmd --check-state`; it is
 * the caller's to close, and -1 on every error. Administrators only.
 * Errors: -EACCES (no administrator), -ENOMEM (the broker has no memory for it), -EPROTO (it is not sealed). */
SHMD_PUBLIC int shmd_state(shmd *client, int *ret_fd, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_state_start(shmd *client, uint64_t timeout_ns, shmd_callback callback, void *userdata,
                                 shmd_call **ret);
SHMD_PUBLIC int shmd_state_finish(shmd_call *call, int *ret_fd);

/* -- explanations -------------------------------------------------------------------- */

/* What to explain. */
enum {
        SHMD_WHY_OPEN    = 1,           /* read-only */
        SHMD_WHY_WRITE   = 2,           /* open read-write */
        SHMD_WHY_CREATE  = 3,           /* a region, with a grant */
        SHMD_WHY_MKDIR   = 4,
        SHMD_WHY_UNLINK  = 5,
        SHMD_WHY_RMDIR   = 6,
        SHMD_WHY_RENAME  = 7,           /* to a name that is free */
        SHMD_WHY_LINK    = 8,
        SHMD_WHY_LIST    = 9,
        SHMD_WHY_STAT    = 10,
        SHMD_WHY_CHMOD   = 11,          /* and setting ACLs */
        SHMD_WHY_CHOWN   = 12,
        SHMD_WHY_WAIT    = 13,          /* for a name */
        SHMD_WHY_WATCH   = 14,
        SHMD_WHY_FREEZE  = 15,
        SHMD_WHY_TICKET  = 16,
        SHMD_WHY_HOLDERS = 17,
};

struct shmd_why_options {
        size_t struct_size;
        const char *to;                 /* SHMD_WHY_RENAME, SHMD_WHY_LINK: the new name; else NULL */
        uint64_t size;                  /* SHMD_WHY_CREATE: bytes */
        bool other;                     /* for this user instead of the caller; administrators only: */
        uid_t uid;
        gid_t gid;
        size_t n_groups;
        const gid_t *groups;
};
#define SHMD_WHY_OPTIONS_INIT { .struct_size = sizeof(struct shmd_why_options) }

/* Whose permissions decided. */
enum {
        SHMD_WHY_BY_NOBODY    = 0,      /* the rule is about something else */
        SHMD_WHY_BY_ADMIN     = 1,
        SHMD_WHY_BY_OWNER     = 2,
        SHMD_WHY_BY_USER      = 3,      /* an ACL's entry for the user `id` */
        SHMD_WHY_BY_GROUP     = 4,      /* the owning group */
        SHMD_WHY_BY_ACL_GROUP = 5,      /* an ACL's entry for the group `id` */
        SHMD_WHY_BY_OTHER     = 6,
};

/* One rule. */
struct shmd_why_step {
        const char *thing;              /* what it is about; "" if nothing in particular */
        const char *sentence;           /* for people */
        uint32_t reason;                /* of a refusal by this rule: shmd_reason_name() */
        bool allowed;
        uint32_t wanted;                /* permissions: 4 read, 2 write, 1 search; 0: another kind of rule */
        uint32_t by;                    /* SHMD_WHY_BY_* */
        uint32_t id;
        uint32_t perms;                 /* what they have, after the mask */
        bool masked;                    /* the mask took something away: */
        uint32_t mask;
        uid_t uid;                      /* owner of the thing; for limits, whose account */
        gid_t gid;
        mode_t mode;
        uint32_t slot;                  /* for limits, as in struct shmd_refusal; else 0 */
        uint64_t asked;
        uint64_t left;
        uint64_t limit;
};

/* What shmd_why() returns; one block, owned by the caller, ended by shmd_why_free(). */
struct shmd_why_result {
        bool allowed;
        int error;                      /* 0, or the negative errno that it would fail with */
        uint32_t code;                  /* SHMD_ERROR_* */
        uint32_t reason;
        const char *sentence;           /* of the refusal, or "" */
        size_t n_steps;
        struct shmd_why_step *steps;    /* in the order they were asked; the last one decided */
};

/* Whether an operation on `path` would be done, and which rules say so; nothing is done. It tells no
 * more than the operation itself would. options may be NULL.
 * Errors: -EINVAL, -EACCES (for another user only administrators may ask), -E2BIG. */
SHMD_PUBLIC int shmd_why(shmd *client, uint32_t operation, const char *path, const struct shmd_why_options *options,
                         struct shmd_why_result **ret, uint64_t timeout_ns);
SHMD_PUBLIC int shmd_why_start(shmd *client, uint32_t operation, const char *path,
                               const struct shmd_why_options *options,
                               uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret);
SHMD_PUBLIC int shmd_why_finish(shmd_call *call, struct shmd_why_result **ret);
SHMD_PUBLIC struct shmd_why_result *shmd_why_free(struct shmd_why_result *result);

#ifdef __cplusplus
}
#endif

#endif
