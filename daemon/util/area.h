/* Areas: memory from the kernel in pieces of 2 MiB of addresses.
 *
 * What there is a million of lies in hundreds of megabytes, and with pages of 4 KiB it costs as much to find out
 * where something is as to fetch it. An area begins at a multiple of 2 MiB, so that the kernel can back it with
 * a huge page where it is asked to. Its memory is zero, and is there once it is touched.
 */
#ifndef UTIL_AREA_H
#define UTIL_AREA_H

#include <stdbool.h>
#include <stddef.h>

#define AREA_BYTES ((size_t)2 << 20)

/* Maps n bytes, a multiple of AREA_BYTES; huge: asks for huge pages. Return: NULL without memory. */
void *area_map(size_t n, bool huge);
void area_unmap(void *area, size_t n);

#endif
