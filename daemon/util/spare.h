/* Spare memory: what a request gave back, for the next one.
 *
 * Some requests need memory for what stays when they are answered, or until they are: a ticket, a watch, a wait, an
 * answer that has to wait its turn. In steady state as much goes as comes. So some pieces of each size are kept and
 * taken again, and only what there is more of than before is asked of the allocator: requests do not fail for want
 * of memory that others have just given back, and do not search a heap that is in pieces.
 *
 * Sizes are rounded up to a multiple of SPARE_STEP. What is larger than SPARE_LARGEST, or more than SPARE_MAX pieces
 * of a size, is the allocator's at once. A piece that is kept is full of bytes that are no address, so that who
 * uses it nevertheless is found out; with sanitizers nothing is kept, and they see each of them come and go.
 *
 * There is one store of them in a process, as there is one allocator.
 */
#ifndef UTIL_SPARE_H
#define UTIL_SPARE_H

#include <stddef.h>

#define SPARE_STEP 64
#define SPARE_LARGEST 1024
#define SPARE_MAX 32

/* Return: n bytes with whatever was in them, aligned for anything; NULL without memory. */
void *spare_take(size_t n);
/* Takes n bytes back, that spare_take() gave for the same n. NULL is fine. */
void spare_give(void *memory, size_t n);
/* Hands all that is kept to the allocator. */
void spare_trim(void);

#endif
