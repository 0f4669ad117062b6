/* Attempts: see the header for the model. */

#include "demo/attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/udmabuf.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define POISON "overwritten by a reader"

typedef struct ProcPath {
        char text[32];
} ProcPath;

static ProcPath proc_path(int fd) {
        ProcPath path;

        snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
        return path;
}

static int outcome(long r) {
        return r < 0 ? -errno : 0;
}

static long page_size(void) {
        return sysconf(_SC_PAGESIZE);
}

/* -- mappings -- */

static int try_mmap_write(const Target *t) {
        void *p = mmap(NULL, t->length, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);

        if (p == MAP_FAILED)
                return -errno;
        memcpy(p, POISON, sizeof(POISON));
        (void)munmap(p, t->length);
        return 0;
}

static int try_mprotect(const Target *t) {
        if (mprotect(t->address, (size_t)page_size(), PROT_READ | PROT_WRITE))
                return -errno;
        memcpy(t->address, POISON, sizeof(POISON));
        return 0;
}

static int try_madvise_remove(const Target *t) {
        return outcome(madvise(t->address, (size_t)page_size(), MADV_REMOVE));
}

static int try_proc_mem(const Target *t) {
        CLEANUP(close_fdp) int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        return outcome(pwrite(fd, POISON, sizeof(POISON), (off_t)(uintptr_t)t->address));
}

static int try_process_vm_writev(const Target *t) {
        struct iovec from = { .iov_base = (char[]){ POISON }, .iov_len = sizeof(POISON) };
        struct iovec to = { .iov_base = t->address, .iov_len = sizeof(POISON) };

        return outcome(process_vm_writev(getpid(), &from, 1, &to, 1, 0));
}

/* The kernel as a writer: it must not store into the mapping for us either. */
static int try_read_into_mapping(const Target *t) {
        CLEANUP(close_fdp) int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        return outcome(read(fd, t->address, (size_t)page_size()));
}

static int try_userfaultfd(const Target *t) {
        struct uffdio_api api = { .api = UFFD_API };
        struct uffdio_register range = {
                .range = { .start = (uintptr_t)t->address, .len = (uint64_t)page_size() },
                .mode = UFFDIO_REGISTER_MODE_MISSING,
        };
        CLEANUP(close_fdp) int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

        if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
                return -errno;
        return outcome(ioctl(fd, UFFDIO_REGISTER, &range));
}

/* -- the descriptor -- */

static int try_write(const Target *t) {
        return outcome(write(t->fd, POISON, sizeof(POISON)));
}

static int try_pwrite(const Target *t) {
        return outcome(pwrite(t->fd, POISON, sizeof(POISON), 0));
}

static int try_pwritev2(const Target *t) {
        struct iovec from = { .iov_base = (char[]){ POISON }, .iov_len = sizeof(POISON) };

        return outcome(pwritev2(t->fd, &from, 1, 0, RWF_SYNC));
}

static int try_aio(const Target *t) {
        struct iocb block = {
                .aio_lio_opcode = IOCB_CMD_PWRITE,
                .aio_fildes = (uint32_t)t->fd,
                .aio_buf = (uintptr_t)POISON,
                .aio_nbytes = sizeof(POISON),
        };
        struct iocb *blocks[] = { &block };
        aio_context_t context = 0;
        int r;

        if (syscall(SYS_io_setup, 1, &context))
                return -errno;
        r = outcome(syscall(SYS_io_submit, context, 1, blocks));
        (void)syscall(SYS_io_destroy, context);
        return r;
}

/* F_SETFL leaves the access mode alone and says nothing about it: see whether it did. */
static int try_setfl(const Target *t) {
        if (fcntl(t->fd, F_SETFL, O_RDWR))
                return -errno;
        return try_write(t);
}

/* -- the kernel copying from one descriptor to another -- */

static int filled_pipe(int *ret_read, int *ret_write) {
        int pair[2];

        if (pipe2(pair, O_CLOEXEC))
                return -errno;
        *ret_read = pair[0];
        *ret_write = pair[1];
        return outcome(write(pair[1], POISON, sizeof(POISON)));
}

static int try_splice(const Target *t) {
        CLEANUP(close_fdp) int from = -1;
        CLEANUP(close_fdp) int to = -1;
        loff_t at = 0;
        int r;

        r = filled_pipe(&from, &to);
        if (r)
                return r;
        return outcome(splice(from, NULL, t->fd, &at, sizeof(POISON), 0));
}

static int try_vmsplice(const Target *t) {
        CLEANUP(close_fdp) int from = -1;
        CLEANUP(close_fdp) int to = -1;
        struct iovec into = { .iov_base = t->address, .iov_len = sizeof(POISON) };
        int r;

        r = filled_pipe(&from, &to);
        if (r)
                return r;
        return outcome(vmsplice(from, &into, 1, 0));
}

static int other_file(void) {
        return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
}

static int try_sendfile(const Target *t) {
        CLEANUP(close_fdp) int from = other_file();
        off_t at = 0;

        if (from < 0)
                return -errno;
        return outcome(sendfile(t->fd, from, &at, 4096));
}

static int try_copy_file_range(const Target *t) {
        CLEANUP(close_fdp) int from = other_file();
        loff_t at = 0;
        loff_t to = 0;

        if (from < 0)
                return -errno;
        return outcome(copy_file_range(from, &at, t->fd, &to, 4096, 0));
}

static int try_ficlone(const Target *t) {
        CLEANUP(close_fdp) int from = other_file();

        if (from < 0)
                return -errno;
        return outcome(ioctl(t->fd, FICLONE, from));
}

static int try_udmabuf(const Target *t) {
        CLEANUP(close_fdp) int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
        struct udmabuf_create create = { .memfd = (uint32_t)t->fd, .size = (uint64_t)page_size() };
        CLEANUP(close_fdp) int buffer = -1;

        if (device < 0)
                return -errno;
        buffer = ioctl(device, UDMABUF_CREATE, &create);
        return outcome(buffer);
}

/* -- opening it again -- */

static int reopen(const Target *t, int flags) {
        CLEANUP(close_fdp) int fd = open(proc_path(t->fd).text, flags | O_CLOEXEC);

        return outcome(fd);
}

static int try_reopen_rdwr(const Target *t) {
        return reopen(t, O_RDWR);
}

static int try_reopen_wronly(const Target *t) {
        return reopen(t, O_WRONLY);
}

static int try_reopen_append(const Target *t) {
        return reopen(t, O_WRONLY | O_APPEND);
}

static int try_reopen_truncate(const Target *t) {
        return reopen(t, O_RDONLY | O_TRUNC);
}

static int try_map_files(const Target *t) {
        size_t length = (t->length + (size_t)page_size() - 1) & ~((size_t)page_size() - 1);
        CLEANUP(close_fdp) int fd = -1;
        char path[96];

        snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)(uintptr_t)t->address,
                 (unsigned long)((uintptr_t)t->address + length));
        fd = open(path, O_RDWR | O_CLOEXEC);
        return outcome(fd);
}

static int try_file_handle(const Target *t) {
        union {
                struct file_handle handle;
                char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
        } u = { .handle = { .handle_bytes = MAX_HANDLE_SZ } };
        CLEANUP(close_fdp) int fd = -1;
        int mount;

        if (name_to_handle_at(t->fd, "", &u.handle, &mount, AT_EMPTY_PATH))
                return -errno;
        fd = open_by_handle_at(t->fd, &u.handle, O_RDWR | O_CLOEXEC);
        return outcome(fd);
}

/* -- size, permissions, seals -- */

static int try_ftruncate_shrink(const Target *t) {
        return outcome(ftruncate(t->fd, 0));
}

static int try_ftruncate_grow(const Target *t) {
        return outcome(ftruncate(t->fd, (off_t)t->length * 2));
}

static int try_truncate(const Target *t) {
        return outcome(truncate(proc_path(t->fd).text, 0));
}

static int try_fallocate_punch(const Target *t) {
        return outcome(fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, page_size()));
}

static int try_fallocate_zero(const Target *t) {
        return outcome(fallocate(t->fd, FALLOC_FL_ZERO_RANGE, 0, page_size()));
}

static int try_fallocate_grow(const Target *t) {
        return outcome(fallocate(t->fd, 0, 0, (off_t)t->length + page_size()));
}

static int try_fchmod(const Target *t) {
        return outcome(fchmod(t->fd, 0777));
}

static int try_chmod(const Target *t) {
        return outcome(chmod(proc_path(t->fd).text, 0777));
}

static int try_fchown(const Target *t) {
        return outcome(fchown(t->fd, geteuid(), getegid()));
}

static int try_futimens(const Target *t) {
        struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };

        return outcome(futimens(t->fd, times));
}

static int try_fsetxattr(const Target *t) {
        return outcome(fsetxattr(t->fd, "user.demo", "x", 1, 0));
}

static int try_seal_write(const Target *t) {
        return outcome(fcntl(t->fd, F_ADD_SEALS, F_SEAL_WRITE));
}

static int try_seal_future_write(const Target *t) {
        return outcome(fcntl(t->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
}

const Attempt attempts[] = {
        { "mmap(MAP_SHARED, PROT_WRITE)", try_mmap_write },
        { "mprotect(PROT_WRITE) of a read-only mapping", try_mprotect },
        { "madvise(MADV_REMOVE)", try_madvise_remove },
        { "pwrite() through /proc/self/mem", try_proc_mem },
        { "process_vm_writev() into the mapping", try_process_vm_writev },
        { "read() from /dev/zero into the mapping", try_read_into_mapping },
        { "userfaultfd(UFFDIO_REGISTER)", try_userfaultfd },
        { "write()", try_write },
        { "pwrite()", try_pwrite },
        { "pwritev2(RWF_SYNC)", try_pwritev2 },
        { "io_submit(IOCB_CMD_PWRITE)", try_aio },
        { "fcntl(F_SETFL, O_RDWR), then write()", try_setfl },
        { "splice() from a pipe", try_splice },
        { "vmsplice() from a pipe into the mapping", try_vmsplice },
        { "sendfile() from another file", try_sendfile },
        { "copy_file_range() from another file", try_copy_file_range },
        { "ioctl(FICLONE) of another file", try_ficlone },
        { "ioctl(UDMABUF_CREATE) on /dev/udmabuf", try_udmabuf },
        { "open(/proc/self/fd/N, O_RDWR)", try_reopen_rdwr, true },
        { "open(/proc/self/fd/N, O_WRONLY)", try_reopen_wronly, true },
        { "open(/proc/self/fd/N, O_WRONLY|O_APPEND)", try_reopen_append, true },
        { "open(/proc/self/fd/N, O_TRUNC)", try_reopen_truncate },
        { "open(/proc/self/map_files/..., O_RDWR)", try_map_files, true },
        { "open_by_handle_at(O_RDWR)", try_file_handle },
        { "ftruncate() to nothing", try_ftruncate_shrink },
        { "ftruncate() to twice the size", try_ftruncate_grow },
        { "truncate(/proc/self/fd/N)", try_truncate },
        { "fallocate(FALLOC_FL_PUNCH_HOLE)", try_fallocate_punch },
        { "fallocate(FALLOC_FL_ZERO_RANGE)", try_fallocate_zero },
        { "fallocate() beyond the end", try_fallocate_grow },
        { "fchmod(0777)", try_fchmod, true },
        { "chmod(/proc/self/fd/N, 0777)", try_chmod, true },
        { "fchown() to oneself", try_fchown, true },
        { "futimens()", try_futimens, true },
        { "fsetxattr()", try_fsetxattr, true },
        { "fcntl(F_ADD_SEALS, F_SEAL_WRITE)", try_seal_write },
        { "fcntl(F_ADD_SEALS, F_SEAL_FUTURE_WRITE)", try_seal_future_write },
};

const size_t n_attempts = sizeof(attempts) / sizeof(attempts[0]);
