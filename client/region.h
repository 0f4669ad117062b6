/* A region: the descriptor of one grant, and what the broker promised about it.
 *
 * It knows no connection: it works on when the connection or the broker is gone, and in a forked
 * child.
 */
#ifndef CLIENT_REGION_H
#define CLIENT_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "proto/message.h"
#include "shmd.h"

struct shmd_region {
        int fd;                 /* -1: no grant came, or it has been stolen */
        uint32_t rights;        /* of the grant */
        uint64_t id;
        uint64_t size;
        uint64_t page_size;
        bool created;
        bool checked;           /* the kernel has confirmed size and seals; they cannot change */
};

/* Makes a region of a grant; fd (-1: none) is consumed. Return: 0, -ENOMEM, -EPROTO. */
int region_new_consume_fd(shmd_region **ret, const Shmd__Granted *granted, int fd);

/* Return: 0; -EPROTO if the memory is not of the size promised, or if its size could change. */
int region_check(shmd_region *region);

/* What the log2 on the wire means: 0 is the system's page. Return: 0, -EPROTO. */
int page_size_decode(uint32_t log2, uint64_t *ret);

DEFINE_CLEANUP(shmd_region, shmd_region_free);

#endif
