/* proto/fdlist: a bounded list of descriptors that it owns. */

#include "lib/test.h"

#include <fcntl.h>

#include "proto/fdlist.h"

static int open_null(void) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        cr_assert_geq(fd, 0);
        return fd;
}

static bool is_open(int fd) {
        return fcntl(fd, F_GETFD) >= 0;
}

TEST(fdlist, an_empty_list_has_nothing_to_take) {
        FdList list = FDLIST_NULL;

        cr_assert_eq(fdlist_take(&list), -1);
        fdlist_deinit(&list);
        fdlist_deinit(&list);
}

TEST(fdlist, what_was_not_taken_is_closed) {
        FdList list = FDLIST_NULL;
        int fds[3];

        for (size_t i = 0; i < 3; ++i)
                cr_assert_eq(fdlist_consume(&list, fds[i] = open_null()), 0);
        cr_assert_eq(list.n, 3);
        cr_assert_eq(fdlist_take(&list), fds[0]);
        fdlist_deinit(&list);

        cr_assert(is_open(fds[0]));
        cr_assert_not(is_open(fds[1]));
        cr_assert_not(is_open(fds[2]));
        close_fd(fds[0]);
}

TEST(fdlist, descriptors_come_out_in_order) {
        FdList list = FDLIST_NULL;
        int fds[5];

        for (size_t i = 0; i < 5; ++i)
                cr_assert_eq(fdlist_consume(&list, fds[i] = open_null()), 0);
        for (size_t i = 0; i < 5; ++i) {
                int fd = fdlist_take(&list);

                cr_assert_eq(fd, fds[i]);
                close_fd(fd);
        }
        cr_assert_eq(fdlist_take(&list), -1);
        cr_assert_eq(fdlist_take(&list), -1);
        fdlist_deinit(&list);
}

TEST(fdlist, it_is_empty_after_its_end_and_can_be_used_again) {
        FdList list = FDLIST_NULL;
        int fd;

        for (int round = 0; round < 3; ++round) {
                cr_assert_eq(fdlist_consume(&list, fd = open_null()), 0);
                fdlist_deinit(&list);
                cr_assert_eq(list.n, 0);
                cr_assert_eq(list.next, 0);
                cr_assert_not(is_open(fd));
        }
}

TEST(fdlist, the_253rd_fits_and_the_254th_is_closed) {
        FdList list = FDLIST_NULL;
        int extra;

        for (size_t i = 0; i < FDLIST_MAX; ++i)
                cr_assert_eq(fdlist_consume(&list, open_null()), 0, "%zu", i);
        cr_assert_eq(list.n, 253);

        extra = open_null();
        cr_assert_eq(fdlist_consume(&list, extra), FDLIST_E_FULL);
        cr_assert_not(is_open(extra), "consume means always");
        cr_assert_eq(list.n, 253);
        fdlist_deinit(&list);
}
