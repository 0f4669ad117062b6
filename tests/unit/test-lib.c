/* What tests stand on: what of it could make another test prove nothing. */
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/test.h"

static unsigned int n_that_open(int fds[], unsigned int n) {
        unsigned int i = 0;

        while (i < n && (fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
                ++i;
        return i;
}

/* Numbers in use above free ones: a runner of tests leaves such to a test, not always the same. */
TEST(lib, so_many_more_descriptors_can_be_opened_whichever_numbers_are_free) {
        int last = dup(0), fds[4];
        struct rlimit before;

        for (int gap = 1; gap < 4; ++gap) {
                int above = fcntl(0, F_DUPFD_CLOEXEC, last + gap);

                for (unsigned int n = 0; n < 4; ++n) {
                        unsigned int opened;

                        test_leave_fds(n, &before);
                        opened = n_that_open(fds, 4);
                        cr_assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
                        cr_assert_eq(opened, n, "%u of %u, with a gap of %d", opened, n, gap);
                        while (opened > 0)
                                close_fd(fds[--opened]);
                }
                close_fd(above);
        }
        close_fd(last);
}

TEST(lib, descriptors_are_as_many_as_there_may_be) {
        struct rlimit before, limit;

        cr_assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
        cr_assert(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 64, before.rlim_max }) == 0);
        cr_assert_eq(test_raise_fds(), before.rlim_max);
        cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        cr_assert(limit.rlim_cur == before.rlim_max && limit.rlim_max == before.rlim_max);
        cr_assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
}
