/* Ordered trees whose links live in their members: the red-black trees of the BSDs' sys/tree.h,
 * which libbsd packages as a header.
 *
 * TREE_GENERATE() is RB_GENERATE_STATIC() without a warning for each function a file does not use.
 */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include <bsd/sys/tree.h>

#define TREE_GENERATE(name, type, field, compare) \
        RB_GENERATE_INTERNAL(name, type, field, compare, __attribute__((unused)) static)

#endif
