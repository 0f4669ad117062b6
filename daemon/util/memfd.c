/* memfds: see the header for the model. */

#include "util/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digits.h"
#include "util/error.h"
#include "util/probe.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U         /* Linux 6.3 */
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

uint64_t memfd_page_size(unsigned int huge_shift) {
        return huge_shift ? UINT64_C(1) << huge_shift : (uint64_t)getpagesize();
}

static int create_errno(int error) {
        switch (error) {
        case ENOMEM:
        case EMFILE:
        case ENFILE:
                return MEMFD_E_NO_MEMORY;
        case ENODEV:
        case EINVAL:
        case EOPNOTSUPP:
                return MEMFD_E_UNSUPPORTED;
        case ENOSPC:
                return MEMFD_E_NO_PAGES;
        default:
                return error_origin(-error);
        }
}

/* A shared mapping of huge pages reserves them for the inode, and the reservation stays when the
 * mapping goes: from here on every page of the region is there for whoever touches it. Nobody
 * else has the file yet, so mapping it is safe. */
static int reserve_huge_pages(int fd, uint64_t size) {
        void *map;

        if (size == 0)
                return 0;
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return MEMFD_E_NO_PAGES;
        return munmap(map, size) < 0 ? error_origin(-errno) : 0;
}

static int set_size(int fd, const MemfdSpec *spec) {
        if (spec->size > INT64_MAX)
                return MEMFD_E_TOO_LARGE;
        if (ftruncate(fd, (off_t)spec->size) < 0) {
                if (errno == EFBIG || errno == EINVAL)
                        return MEMFD_E_TOO_LARGE;
                return errno == ENOMEM || errno == ENOSPC ? MEMFD_E_NO_MEMORY : error_origin(-errno);
        }
        return 0;
}

/* A holder with a writable description can add seals to an inode that is not sealed against it, and so
 * lock other writers out: only who asked for it gets such a region. */
static int seals_of(const MemfdSpec *spec) {
        return F_SEAL_GROW | F_SEAL_SHRINK | (spec->freezable ? 0 : F_SEAL_SEAL);
}

static int set_seals(int fd, const MemfdSpec *spec) {
        if (fcntl(fd, F_ADD_SEALS, seals_of(spec)) < 0)
                return error_origin(-errno);            /* unsealed means unaccounted: never hand it out */
        return 0;
}

#define NAME_PREFIX "shmd:"
#define NAME_ROOM (sizeof(NAME_PREFIX) + DIGITS_MAX)

static const char *name_of(uint64_t id, char text[static NAME_ROOM]) {
        char *end = text + NAME_ROOM - 1;

        *end = '\0';
        return memcpy(digits_before(end, id, 16) - strlen(NAME_PREFIX), NAME_PREFIX, strlen(NAME_PREFIX));
}

static mode_t mode_of(const MemfdSpec *spec) {
        return spec->readable ? 0644 : 0600;
}

int memfd_begin(const MemfdSpec *spec, int *ret) {
        CLEANUP(close_fdp) int fd = -1;
        unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
        char name[NAME_ROOM];
        int r;

        if (probe_have(PROBE_NOEXEC_SEAL))
                flags |= MFD_NOEXEC_SEAL;
        if (spec->huge_shift)
                flags |= MFD_HUGETLB | spec->huge_shift << MFD_HUGE_SHIFT;

        fd = memfd_create(name_of(spec->id, name), flags);
        if (fd < 0)
                return create_errno(errno);
        /* Other uids must not re-open it through /proc, or not for writing. */
        if (fchmod(fd, mode_of(spec)) < 0)
                return error_origin(-errno);
        r = memfd_reopen(fd, true, ret);
        return r == MEMFD_E_FAILED ? error_origin(-EIO) : r;
}

int memfd_finish(int fd, const MemfdSpec *spec) {
        int r;

        r = set_size(fd, spec);
        if (!r)
                r = set_seals(fd, spec);
        if (!r && spec->huge_shift)
                r = reserve_huge_pages(fd, spec->size);
        return r;
}

bool memfd_is_begun(int fd) {
        int seals = fcntl(fd, F_GET_SEALS);
        struct stat st;

        return seals >= 0 && !(seals & F_SEAL_GROW) && fstat(fd, &st) == 0 && st.st_size == 0 && st.st_blocks == 0 &&
               (st.st_mode & 07777) == 0600;
}

int memfd_make(const MemfdSpec *spec, int *ret) {
        CLEANUP(close_fdp) int fd = -1;
        int r;

        r = memfd_begin(spec, &fd);
        if (!r)
                r = memfd_finish(fd, spec);
        if (r)
                return r;
        *ret = steal_fd(&fd);
        return 0;
}

#define SEALS_OF_FIXED (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE | F_SEAL_SEAL)

/* Return: bytes written or read, fewer than n only at an error or the end. */
static size_t write_all(int fd, const uint8_t *bytes, size_t n) {
        ssize_t done = 1;
        size_t at = 0;

        for (; at < n && done > 0; at += done > 0 ? (size_t)done : 0)
                done = write(fd, bytes + at, n - at);
        return at;
}

static size_t read_all(int fd, uint8_t *bytes, size_t n) {
        ssize_t done = 1;
        size_t at = 0;

        for (; at < n && done > 0; at += done > 0 ? (size_t)done : 0)
                done = pread(fd, bytes + at, n - at, (off_t)at);
        return at;
}

int memfd_make_sealed(const char *name, const void *bytes, size_t n, int *ret) {
        unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
        CLEANUP(close_fdp) int fd = -1;
        int r;

        if (probe_have(PROBE_NOEXEC_SEAL))
                flags |= MFD_NOEXEC_SEAL;
        fd = memfd_create(name, flags);
        if (fd < 0) {
                r = create_errno(errno);
                return r == MEMFD_E_NO_MEMORY ? r : error_origin(-EIO);
        }
        if (write_all(fd, bytes, n) < n)
                return MEMFD_E_NO_MEMORY;
        if (fchmod(fd, 0600) < 0 || fcntl(fd, F_ADD_SEALS, SEALS_OF_FIXED) < 0)
                return error_origin(-errno);
        *ret = steal_fd(&fd);
        return 0;
}

int memfd_read_sealed(int fd, void *bytes, size_t n) {
        uint32_t seals = memfd_seals(fd);
        struct stat st;

        if ((seals & SEALS_OF_FIXED) != SEALS_OF_FIXED || fstat(fd, &st) < 0 || (uint64_t)st.st_size != n)
                return MEMFD_E_FAILED;
        return read_all(fd, bytes, n) == n ? 0 : MEMFD_E_FAILED;
}

#define FD_DIRECTORY "/proc/self/fd/"

static int directory = -1;      /* FD_DIRECTORY, if it is held open */

void memfd_hold_directory(bool hold) {
        directory = close_fd(directory);
        if (hold)
                directory = open(FD_DIRECTORY, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Writes the name of a descriptor, in that directory if it is held and else from the root. This is on the
 * way of every open, and printf is most of its cost. */
static const char *fd_name(int fd, char name[32]) {
        static const char prefix[] = FD_DIRECTORY;
        char *p = name + 31;

        *p = '\0';
        do
                *--p = (char)('0' + fd % 10);
        while (fd /= 10);
        if (directory < 0)
                for (const char *q = prefix + sizeof(prefix) - 1; q > prefix;)
                        *--p = *--q;
        return p;
}

int memfd_reopen(int fd, bool writable, int *ret) {
        char name[32];
        int opened;

        /* O_NONBLOCK: if a lease were in the way (of a killed broker, or a holder of our own
         * uid), the open must fail instead of waiting for lease-break-time. */
        opened = openat(directory, fd_name(fd, name), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
        if (opened < 0)
                return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? MEMFD_E_NO_MEMORY : MEMFD_E_FAILED;
        *ret = opened;
        return 0;
}

int memfd_probe(int fd) {
        if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
                (void)fcntl(fd, F_SETLEASE, F_UNLCK);
                return 0;
        }
        return errno == EAGAIN ? MEMFD_E_HELD : error_origin(-errno);
}

void memfd_collect(void) {
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return;
        (void)close_fd(pair[0]);
        (void)close_fd(pair[1]);
}

/* Grants are counted from 1 in 64 bits; they will not reach 2^60. */
static off_t mark_offset(uint64_t mark) {
        return (off_t)(MEMFD_MARKER_BASE + (int64_t)mark);
}

int memfd_mark(int fd, uint64_t mark) {
        struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = mark_offset(mark), .l_len = 1 };

        return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? MEMFD_E_FAILED : 0;
}

bool memfd_find_mark(int fd, uint64_t first, uint64_t last, uint64_t *ret_first, uint64_t *ret_last) {
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = mark_offset(first),
                              .l_len = (off_t)(last - first + 1) };
        off_t from, to;

        if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
                return false;
        from = lock.l_start;
        to = lock.l_len ? lock.l_start + lock.l_len - 1 : INT64_MAX;
        *ret_first = from <= mark_offset(first) ? first : (uint64_t)(from - MEMFD_MARKER_BASE);
        *ret_last = to >= mark_offset(last) ? last : (uint64_t)(to - MEMFD_MARKER_BASE);
        return true;
}

const char *memfd_adopt(int fd, const MemfdSpec *spec, uid_t uid, uint64_t inode) {
        int seals = fcntl(fd, F_GET_SEALS);
        struct stat st;

        if (seals < 0 || fstat(fd, &st) < 0)
                return "it is not a memfd";
        if (st.st_ino != inode)
                return "it is another memfd";
        if (st.st_uid != uid || (st.st_mode & 07777) != mode_of(spec))
                return "its owner or its mode is another one";
        if ((uint64_t)st.st_size != spec->size)
                return "its size is another one";
        if ((seals & seals_of(spec)) != seals_of(spec))
                return "it is not sealed";
        (void)fcntl(fd, F_SETLEASE, F_UNLCK);           /* there is none, as a rule */
        return NULL;
}

bool memfd_look(int fd, uid_t uid, uint64_t *ret_inode, uint64_t *ret_size) {
        struct stat st;

        if (fcntl(fd, F_GET_SEALS) < 0 || fstat(fd, &st) < 0 || st.st_uid != uid)
                return false;
        *ret_inode = st.st_ino;
        *ret_size = (uint64_t)st.st_size;
        return true;
}

uint32_t memfd_seals(int fd) {
        int seals = fcntl(fd, F_GET_SEALS);

        return seals < 0 ? 0 : (uint32_t)seals;
}

uint64_t memfd_allocated(int fd) {
        struct stat st;

        return fstat(fd, &st) < 0 ? UINT64_MAX : (uint64_t)st.st_blocks * 512;  /* stat(2): units of 512 bytes */
}

uint64_t memfd_inode(int fd) {
        struct stat st;

        return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_ino;
}

void memfd_punch(int fd, uint64_t offset, uint64_t length) {
        int r;

        do
                r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
        while (r < 0 && errno == EINTR);
}
