/* Which pages of a region are where: in memory, in swap, or nowhere.
 *
 * The holes are what SEEK_DATA passes over: pages that were never written, allocated ahead or not. What
 * of the rest is swapped is read from /proc/self/smaps, for mappings of it that touch nothing: that works
 * with a read-only descriptor of somebody else's region, where mincore(2) says that everything is in
 * memory and cachestat(2) nothing at all. A part of a region that is neither all in memory nor all
 * swapped is looked at in smaller parts, down to pages, so that memory and system calls needed grow with
 * how mixed it is, not with its size.
 *
 * The kernel goes on meanwhile: this is a picture of some moments, not of one.
 */
#ifndef CLIENT_CTL_PAGES_H
#define CLIENT_CTL_PAGES_H

#include <stdint.h>

typedef enum PagesState {
        PAGES_HOLE,
        PAGES_RESIDENT,
        PAGES_SWAPPED,
        PAGES_UNKNOWN,          /* this kernel does not say */
        _PAGES_N,
} PagesState;

/* A run of pages of one state; the next one has another. */
typedef void (*PagesFn)(void *userdata, PagesState state, uint64_t offset, uint64_t length);

/* "hole", "resident", "swapped", "unknown" */
const char *pages_state_name(PagesState state);

/* Calls fn for every run of the region behind fd, in order. size: of the region; page_size: of its
 * pages. Return: 0, or a negative errno. */
int pages_walk(int fd, uint64_t size, uint64_t page_size, PagesFn fn, void *userdata);

/* Totals of them, in bytes. */
typedef struct PagesTotals {
        uint64_t bytes[_PAGES_N];
        uint64_t allocated;     /* memory and swap, pages allocated ahead included */
} PagesTotals;

/* Begins a count: what is allocated. Return: 0, or a negative errno. */
int pages_allocated(int fd, PagesTotals *ret);
/* All of it. */
int pages_count(int fd, uint64_t size, uint64_t page_size, PagesTotals *ret);

/* Allocated, and never written. */
uint64_t pages_ahead(const PagesTotals *totals);

#endif
