/* Counts what a program asks of malloc(3), for LD_PRELOAD: see the header for where.
 *
 * Everything is set up before main(), so that a sandbox entered later sees nothing but memory being
 * written: the page is mapped then, and the unwinder has been called once, as its first call may load a
 * library. A child that is forked and becomes no other program counts nothing; it would count in its
 * parent's page.
 */

#include "bench/counts-preload.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <unwind.h>

/* glibc's own, under the names that nobody replaces. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *memory, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void __libc_free(void *memory);

static CountsPage unseen, *page = &unseen;

typedef struct Walk {
        struct CountsStack *stack;
        int skip;
} Walk;

static _Unwind_Reason_Code add_frame(struct _Unwind_Context *context, void *userdata) {
        Walk *walk = userdata;

        if (walk->skip > 0) {
                --walk->skip;
                return _URC_NO_REASON;
        }
        if (walk->stack->n == COUNTS_FRAMES)
                return _URC_END_OF_STACK;
        walk->stack->frames[walk->stack->n++] = (uintptr_t)_Unwind_GetIP(context);
        return _URC_NO_REASON;
}

/* Of who called what called this. */
__attribute__((noinline))
static void trace(size_t bytes) {
        static int inside;
        struct CountsStack *stack;

        if (inside || page->n_stacks >= COUNTS_STACKS)
                return;
        inside = 1;
        stack = &page->stacks[page->n_stacks++];
        stack->bytes = bytes;
        stack->n = 0;
        (void)_Unwind_Backtrace(add_frame, &(Walk){ .stack = stack, .skip = 1 });
        inside = 0;
}

static void count(size_t bytes) {
        ++page->allocated;
        page->bytes += bytes;
        if (page->trace)
                trace(bytes);
}

static void stop_counting(void) {
        page = &unseen;
}

__attribute__((constructor))
static void start_counting(void) {
        const char *directory = getenv(COUNTS_DIRECTORY);
        struct CountsStack stack = { .n = 0 };
        CountsPage *mapped;
        char path[256];
        int fd;

        (void)_Unwind_Backtrace(add_frame, &(Walk){ .stack = &stack });
        if (!directory)
                return;
        (void)snprintf(path, sizeof(path), "%s/%d", directory, (int)getpid());
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return;
        mapped = ftruncate(fd, sizeof(*mapped)) == 0 ?
                 mmap(NULL, sizeof(*mapped), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
        (void)close(fd);
        if (mapped == MAP_FAILED || pthread_atfork(NULL, NULL, stop_counting) != 0)
                return;
        page = mapped;
}

/* These are to be seen by everybody, as nothing else of this project is. */
#pragma GCC visibility push(default)

void *malloc(size_t n) {
        count(n);
        return __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
        count(n * size);
        return __libc_calloc(n, size);
}

void *realloc(void *memory, size_t n) {
        count(n);
        return __libc_realloc(memory, n);
}

void *memalign(size_t alignment, size_t n) {
        count(n);
        return __libc_memalign(alignment, n);
}

void *aligned_alloc(size_t alignment, size_t n) {
        count(n);
        return __libc_memalign(alignment, n);
}

int posix_memalign(void **ret, size_t alignment, size_t n) {
        count(n);
        *ret = __libc_memalign(alignment, n);
        return *ret ? 0 : ENOMEM;
}

void free(void *memory) {
        if (memory)
                ++page->freed;
        __libc_free(memory);
}

#pragma GCC visibility pop
