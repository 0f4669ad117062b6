/* freeze: see shmd.h.
 *
 * The seal against writing is added here, through the caller's own grant: the call can be held up
 * by whoever writes to the region, and it is not the broker that should wait then.
 */

#include "buildinfo.h"

#include <fcntl.h>

#include "client/client.h"
#include "client/region.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010      /* Linux 5.1 */
#endif

static const Op op_freeze = { .kind = MESSAGE_FREEZE, .changes = 1 };

static int refuse(shmd *client, int error, const char *sentence) {
        return refusal_local(client, error, SHMD__REASON__REASON_SEALS, 0, "", sentence);
}

static int add_seal(shmd *client, const shmd_region *region, int seal) {
        if (fcntl(region->fd, F_ADD_SEALS, seal) == 0)
                return 0;
        switch (errno) {
        case EPERM:             /* sealed against it, or frozen already: the broker knows which */
                return 0;
        case EBUSY:
                return refuse(client, -EBUSY, "the region is mapped for writing, by this process or another, or the "
                                              "kernel is using a page of it");
        case EINVAL:
                return refuse(client, -EOPNOTSUPP, "this kernel has no such seal");
        default:
                return refuse(client, -errno, "the kernel would not add the seal");
        }
}

static int seal(shmd *client, shmd_region *region, uint32_t how) {
        KEEP_ERRNO;
        int r;

        r = client_check(client);
        if (r)
                return r;
        if (!region || how > SHMD_FREEZE_SINGLE_WRITER)
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, 0, "",
                                     "there is no region, or no such way to freeze it");
        if (region->fd < 0)
                return refuse(client, -EBADF, "the region has no descriptor here");
        if ((fcntl(region->fd, F_GETFL) & O_ACCMODE) != O_RDWR)
                return refuse(client, -EACCES, "freezing takes a read-write grant");
        r = add_seal(client, region, how == SHMD_FREEZE_IMMUTABLE ? F_SEAL_WRITE : F_SEAL_FUTURE_WRITE);
        /* From now on this grant is good for reading only. */
        if (r == 0 && fcntl(region->fd, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
                region->rights = SHMD_RIGHTS_READ_ONLY;
        return r;
}

int shmd_freeze_start(shmd *client, shmd_region *region, uint32_t how,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Freeze freeze = SHMD__FREEZE__INIT;
        int r;

        r = seal(client, region, how);
        if (r)
                return r;
        freeze.region = region->id;
        freeze.how = how;
        return call_start(client, &op_freeze, &freeze.base, timeout_ns, callback, userdata, ret);
}

int shmd_freeze_finish(shmd_call *call) {
        return call_finish(call, &op_freeze, NULL);
}

int shmd_freeze(shmd *client, shmd_region *region, uint32_t how, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_freeze_start(client, region, how, timeout_ns, call_waited, &wait, &wait.call));
}
