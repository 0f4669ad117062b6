/* cat: a region's bytes to standard output, straight from its mapping.
 *
 * Parts of a region that were never written have no memory, and reading them through a mapping
 * would allocate it. They are found with SEEK_DATA and written as zeros from elsewhere, so that
 * looking at a large, sparse region costs nothing.
 */

#include "buildinfo.h"

#include <errno.h>

#include "client/ctl/copy.h"
#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"

#define STEP (UINT64_C(1) << 20)

const struct argp command_cat_argp = {
        .parser = ctl_parse_name,
        .args_doc = "NAME",
        .doc = "Writes all bytes of the region NAME to standard output. Somebody who writes to the region "
               "meanwhile is seen in part.\v"
               "Examples:\n"
               "  shmdctl cat /map | sha256sum\n"
               "  shmdctl cat /model/weights > weights.bin",
};

/* How far from `at` the region is all data, or, with *ret_hole, all hole. */
static uint64_t extent_end(int fd, uint64_t at, uint64_t size, bool *ret_hole) {
        off_t data, hole;

        data = lseek(fd, (off_t)at, SEEK_DATA);
        *ret_hole = data < 0 ? errno == ENXIO : (uint64_t)data > at;
        if (*ret_hole)
                return data < 0 ? size : (uint64_t)data;

        hole = data < 0 ? -1 : lseek(fd, (off_t)at, SEEK_HOLE);
        return hole < 0 ? size : (uint64_t)hole;
}

/* A file system object that cannot say where its holes are is all data. */
static int write_region(int fd, const char *address, uint64_t size, Progress *progress) {
        static const char zeros[STEP];
        uint64_t end = 0;
        bool hole = false;

        for (uint64_t at = 0; at < size;) {
                uint64_t n;
                int r;

                if (at >= end)
                        end = extent_end(fd, at, size, &hole);
                n = end - at < STEP ? end - at : STEP;
                r = copy_write(STDOUT_FILENO, hole ? zeros : address + at, n);
                if (r < 0)
                        return r;
                progress_advance(progress, n);
                at += n;
        }
        return 0;
}

int cat_region(Ctl *ctl, const char *path, shmd_region *region) {
        struct shmd_map_options options = SHMD_MAP_OPTIONS_INIT;
        Progress progress;
        size_t mapped;
        void *address;
        int r;

        options.flags = SHMD_MAP_READ_ONLY;
        r = shmd_map(region, &options, &address, &mapped);
        if (r < 0)
                return fail_call(ctl, path, r);

        progress_init(&progress, ctl, path, shmd_region_size(region));
        /* Both on one terminal would be a mess. */
        if (isatty(STDOUT_FILENO) == 1)
                progress.enabled = false;
        r = write_region(shmd_region_fd(region), address, shmd_region_size(region), &progress);
        progress_deinit(&progress);
        (void)shmd_unmap(address, mapped);

        /* Whoever reads had enough. Mostly SIGPIPE has ended us by now, as it ends cat(1). */
        if (r == -EPIPE)
                return CTL_FAILED;
        return r < 0 ? fail_system(ctl, "standard output", r, NULL) : CTL_DONE;
}

int command_cat(Ctl *ctl, int argc, char **argv) {
        CLEANUP_REGION shmd_region *region = NULL;
        const char *path = NULL;
        int r;

        ctl_parse(ctl, &path, argc, argv);
        r = ctl_connect(ctl);
        if (r)
                return r;
        r = shmd_open(ctl->client, path, SHMD_RIGHTS_READ_ONLY, &region, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, path, r);
        return shmd_region_size(region) ? cat_region(ctl, path, region) : CTL_DONE;
}
