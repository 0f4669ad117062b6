/* daemon/util/error.h: three-way results. */

#include "lib/test.h"

#include "util/error.h"

TEST(error, where_it_is_born_nothing_changes) {
        cr_assert_eq(error_origin(-ENOMEM), -ENOMEM);
        cr_assert_eq(error_origin(0), 0);
}

TEST(error, folding_forwards_success_and_every_errno) {
        cr_assert_eq(error_fold(0), 0);
        for (int error = 1; error < 134; ++error)
                cr_assert_eq(error_fold(-error), -error);
}

TEST(error, folding_lets_no_positive_code_travel_on) {
        cr_assert_eq(error_fold(1), -ENOTRECOVERABLE);
        cr_assert_eq(error_fold(2), -ENOTRECOVERABLE);
        cr_assert_eq(error_fold(4096), -ENOTRECOVERABLE);
}
