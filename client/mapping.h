/* A mapping that is being made: what client/map.c decided, and how its pages come to be there.
 *
 * Populating goes by what is there. Data is mapped by reading, which for shared memory makes it
 * writable too; holes are allocated by writing. Nothing that is in the region is changed. Holes are
 * looked for only where something is missing, as that takes a look at every page.
 *
 * Data: a fault by reading maps the pages around it as well, 64 KiB at a time, and so one page of
 * each 64 KiB is enough and costs less than asking for all. Whether it was enough (the kernel may
 * have been set otherwise, and pages in swap are left out) is asked of /proc/self/pagemap, and what
 * is missing is had in full; where pagemap cannot say (before Linux 6.7), all of it is.
 *
 * Holes, with huge pages: one page is written in each huge page's worth, and MADV_COLLAPSE (Linux
 * 6.1) makes huge pages of them, in one call, because each waits for every processor once. It
 * works where the system's setting for shared memory is `never`, too. Wherever it did not, the
 * small pages are allocated as they are without it.
 *
 * Pages that do not lie side by side are asked for 32 at a time, with process_madvise(2), which
 * takes any advice for oneself since Linux 6.13, and needs no descriptor for it since 6.15: a call
 * for each costs as much as a seventh of what it asks for. Where it is refused, or does not do all
 * of it, it is a call for each.
 *
 * Where the kernel has no MADV_POPULATE_* (before 5.14) pages are touched.
 */
#ifndef CLIENT_MAPPING_H
#define CLIENT_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Mapping {
        int fd;
        int protection;
        int flags;              /* of mmap(2) */
        uint64_t offset;
        size_t length;
        size_t huge;            /* bytes of the huge pages that are wanted; 0: none are */
        bool collapse;          /* and they may be made of small ones that are anywhere */
        char *address;
} Mapping;

/* The bytes of a transparent huge page; 0 if there are none here. */
size_t huge_page_bytes(void);

/* Has the pages there, and mapped. The grant's file offset is as it was.
 * Return: 0; -ENOMEM, also where a touch would have raised SIGBUS. */
int mapping_populate(const Mapping *mapping);

#endif
