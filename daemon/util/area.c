/* Areas: see the header for the model. */

#include "util/area.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/assert.h"

void *area_map(size_t n, bool huge) {
        char *map, *area;
        size_t before;

        ASSERT(n > 0 && n % AREA_BYTES == 0);
        map = mmap(NULL, n + AREA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED)
                return NULL;
        before = -(uintptr_t)map & (AREA_BYTES - 1);
        area = map + before;
        if (before > 0)
                (void)munmap(map, before);
        (void)munmap(area + n, AREA_BYTES - before);
        if (huge)
                (void)madvise(area, n, MADV_HUGEPAGE);
        return area;
}

void area_unmap(void *area, size_t n) {
        (void)munmap(area, n);
}
