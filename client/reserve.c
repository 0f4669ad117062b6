/* Reserving the memory of a region: every page allocated now, by this process, so that it is this
 * process's memory cgroup that pays for it.
 *
 * It goes in steps, and before each there has to be room for the step and some more (room.h): a
 * shortage becomes -ENOMEM instead of the OOM killer's choice. What this call took is then given
 * back by punching, and only where nobody has written since: pages that were allocated and not
 * touched read as holes, and only holes are punched.
 *
 * Huge pages come from a pool of their own, which says no by itself, and hugetlbfs does not tell
 * holes from data and keeps what a failed fallocate(2) had got so far; so there nothing is looked
 * at before, and all of the region is given back, but only if it was empty at the start.
 */

#include "buildinfo.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "client/client.h"
#include "client/region.h"
#include "client/room.h"

#define STEP_BYTES (UINT64_C(16) << 20)
#define SPARE_BYTES (UINT64_C(64) << 20)

typedef struct Reservation {
        int fd;
        uint64_t size;
        uint64_t page_size;
        bool huge;
        bool was_empty;
        uint64_t taken;         /* bytes from the start that are allocated now */
} Reservation;

static int allocate(int fd, uint64_t offset, uint64_t n) {
        if (fallocate(fd, 0, (off_t)offset, (off_t)n) == 0)
                return 0;
        switch (errno) {
        case ENOSPC:
        case EDQUOT:
                return -ENOMEM;
        default:
                return -errno;
        }
}

/* An interrupted fallocate(2) has undone itself. With a signal that comes again and again, shorter
 * steps are what gets done in between. */
static int take_all(Reservation *reservation) {
        uint64_t step = reservation->page_size > STEP_BYTES ? reservation->page_size : STEP_BYTES;
        Room room;

        room_init(&room);
        while (reservation->taken < reservation->size) {
                uint64_t left = reservation->size - reservation->taken;
                uint64_t n = left < step ? left : step;
                int r;

                if (!reservation->huge && !room_has(&room, n + SPARE_BYTES))
                        return -ENOMEM;
                r = allocate(reservation->fd, reservation->taken, n);
                if (r == -EINTR && step > reservation->page_size)
                        step /= 2;
                else if (r && r != -EINTR)
                        return r;
                else if (r == 0)
                        reservation->taken += n;
        }
        return 0;
}

static void punch(int fd, uint64_t from, uint64_t to) {
        while (from < to && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                                      (off_t)(to - from)) < 0 && errno == EINTR)
                ;
}

static void give_back_holes(const Reservation *reservation) {
        off_t position = lseek(reservation->fd, 0, SEEK_CUR);
        uint64_t at = 0;

        while (at < reservation->taken) {
                off_t data = lseek(reservation->fd, (off_t)at, SEEK_DATA);
                off_t hole;

                if (data < 0 || (uint64_t)data > reservation->taken)
                        data = (off_t)reservation->taken;
                punch(reservation->fd, at, (uint64_t)data);
                hole = lseek(reservation->fd, data, SEEK_HOLE);
                at = hole > data ? (uint64_t)hole : reservation->taken;
        }
        if (position >= 0)
                (void)lseek(reservation->fd, position, SEEK_SET);
}

static void give_back(const Reservation *reservation) {
        if (!reservation->huge)
                give_back_holes(reservation);
        else if (reservation->was_empty)
                punch(reservation->fd, 0, reservation->size);
}

int shmd_reserve(shmd_region *region) {
        KEEP_ERRNO;
        Reservation reservation;
        struct stat st;
        int r;

        if (!region || region->fd < 0)
                return -EBADF;
        if (region->rights != SHMD_RIGHTS_READ_WRITE)
                return -EACCES;
        if (fstat(region->fd, &st) < 0)
                return -errno;
        if ((uint64_t)st.st_blocks >= (region->size + 511) / 512)
                return 0;       /* all there already, and not ours to give back */

        reservation = (Reservation){
                .fd = region->fd,
                .size = region->size,
                .page_size = region->page_size,
                .huge = region->page_size != (uint64_t)sysconf(_SC_PAGESIZE),
                .was_empty = st.st_blocks == 0,
        };
        r = take_all(&reservation);
        if (r)
                give_back(&reservation);
        return r;
}
