/* The system calls of a process: see the header for the model. */

#include "bench/counts-calls.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/test.h"

#define RING_PAGES 256
#define PAGE_BYTES 4096u
#define RING_BYTES ((uint64_t)RING_PAGES * PAGE_BYTES)

/* A record as it was asked for (PERF_SAMPLE_RAW), with what the tracepoint has. */
typedef struct Record {
        struct perf_event_header header;
        uint32_t n_raw;
        uint8_t raw[];                  /* eight bytes common to all events, then the call's number, a long */
} Record;

/* In a process of its own, where a file system can be mounted without anybody seeing it. */
static int print_id(int out) {
        static const char id[] = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
        char text[32];
        ssize_t n = -1;
        FILE *file;

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return 1;
        if (access(id, R_OK) < 0 && mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL) < 0)
                return 1;
        file = fopen(id, "re");
        if (!file)
                return 1;
        if (fgets(text, sizeof(text), file))
                n = write(out, text, strlen(text));
        (void)fclose(file);
        return n > 0 ? 0 : 1;
}

/* Return: the number of the tracepoint, 0: there is none. */
static uint64_t tracepoint(void) {
        char text[32] = "";
        int fds[2];
        pid_t pid;

        REQUIRE(pipe(fds) == 0);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0)
                _exit(print_id(fds[1]));
        close_fd(fds[1]);
        (void)!read(fds[0], text, sizeof(text) - 1);
        close_fd(fds[0]);
        (void)test_wait_pid(pid);
        return strtoull(text, NULL, 10);
}

bool calls_begin(Calls *calls, pid_t pid, const char **ret_why) {
        struct perf_event_attr attr = {
                .type = PERF_TYPE_TRACEPOINT,
                .size = sizeof(attr),
                .config = tracepoint(),
                .sample_period = 1,
                .sample_type = PERF_SAMPLE_RAW,
                .disabled = 1,
        };

        *calls = (Calls){ .fd = -1, .latest = -1 };
        *ret_why = "there is no tracefs, or no tracepoint of system calls in it";
        if (attr.config == 0)
                return false;
        calls->fd = (int)syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
        *ret_why = "perf_event_open(2) is not allowed";
        if (calls->fd < 0)
                return false;
        calls->ring = mmap(NULL, PAGE_BYTES + RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, calls->fd, 0);
        REQUIRE(calls->ring != MAP_FAILED, "%s", strerror(errno));
        return true;
}

void calls_end(Calls *calls) {
        REQUIRE(munmap(calls->ring, PAGE_BYTES + RING_BYTES) == 0);
        calls->fd = close_fd(calls->fd);
}

/* Its last bytes may be at the ring's beginning. */
static void copy(const Calls *calls, uint64_t at, void *to, size_t n) {
        for (size_t i = 0; i < n; ++i)
                ((uint8_t *)to)[i] = calls->ring[PAGE_BYTES + (at + i) % RING_BYTES];
}

static void count(Calls *calls, uint64_t at, const struct perf_event_header *header) {
        long call;

        REQUIRE(header->type == PERF_RECORD_SAMPLE, "calls were missed: a record of type %u", header->type);
        copy(calls, at + offsetof(Record, raw) + 8, &call, sizeof(call));
        if (call >= 0 && call < CALLS_MAX)
                ++calls->n[call];
        calls->latest = call;
}

bool calls_read(Calls *calls) {
        struct perf_event_mmap_page *page = (struct perf_event_mmap_page *)calls->ring;
        uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE), tail = page->data_tail;
        bool any = head != tail;

        while (tail < head) {
                struct perf_event_header header;

                copy(calls, tail, &header, sizeof(header));
                count(calls, tail, &header);
                tail += header.size;
        }
        __atomic_store_n(&page->data_tail, tail, __ATOMIC_RELEASE);
        return any;
}

static bool is_wait(long call) {
        return call == SYS_epoll_wait || call == SYS_epoll_pwait || call == SYS_epoll_pwait2;
}

void calls_read_until_wait(Calls *calls) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;

        while (!calls_read(calls) || !is_wait(calls->latest)) {
                REQUIRE(test_now_ms() < end, "the process does not wait");
                (void)sched_yield();
        }
}

void calls_read_until_rest(Calls *calls) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        unsigned int quiet = 0;

        while (quiet < 2) {
                quiet = calls_read(calls) || !is_wait(calls->latest) ? 0 : quiet + 1;
                REQUIRE(test_now_ms() < end, "the process does not come to rest");
                test_sleep_ms(1);
        }
}

void calls_forget(Calls *calls) {
        memset(calls->n, 0, sizeof(calls->n));
}

void calls_resume(Calls *calls) {
        REQUIRE(ioctl(calls->fd, PERF_EVENT_IOC_ENABLE, 0) == 0, "%s", strerror(errno));
}

void calls_pause(Calls *calls) {
        REQUIRE(ioctl(calls->fd, PERF_EVENT_IOC_DISABLE, 0) == 0, "%s", strerror(errno));
        (void)calls_read(calls);
}

uint64_t calls_sum(const Calls *calls) {
        uint64_t sum = 0;

        for (size_t i = 0; i < CALLS_MAX; ++i)
                sum += calls->n[i];
        return sum;
}
