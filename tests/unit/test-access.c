/* daemon/core/access: permission bits, as file systems have them. */

#include "lib/test.h"

#include "core/access.h"

#define R ACCESS_READ
#define W ACCESS_WRITE
#define X ACCESS_SEARCH

static const gid_t groups[] = { 5, 7, 9 };
static const Credentials owner = { .uid = 1, .gid = 1 };
static const Credentials member = { .uid = 2, .gid = 7 };
static const Credentials also_member = { .uid = 3, .gid = 3, .groups = groups, .n_groups = 3 };
static const Credentials stranger = { .uid = 4, .gid = 4 };
static const Credentials admin = { .uid = 5, .gid = 5, .admin = true };

TEST(access, every_mode_means_what_file_systems_mean_by_it) {
        for (mode_t mode = 0; mode <= 0777; ++mode) {
                Permissions what = { .uid = 1, .gid = 7, .mode = mode };

                for (unsigned int want = 0; want <= 7; ++want) {
                        cr_assert_eq(access_allows(&owner, &what, want), ((mode >> 6) & want) == want, "%o", mode);
                        cr_assert_eq(access_allows(&member, &what, want), ((mode >> 3 & 7) & want) == want, "%o", mode);
                        cr_assert_eq(access_allows(&also_member, &what, want), ((mode >> 3 & 7) & want) == want);
                        cr_assert_eq(access_allows(&stranger, &what, want), ((mode & 7) & want) == want, "%o", mode);
                        cr_assert(access_allows(&admin, &what, want));
                }
        }
}

TEST(access, the_first_class_that_fits_decides_and_only_it) {
        Permissions what = { .uid = 1, .gid = 1, .mode = 0077 };

        cr_assert_not(access_allows(&owner, &what, R), "an owner gets nothing out of being a member as well");
        what = (Permissions){ .uid = 9, .gid = 7, .mode = 0707 };
        cr_assert_not(access_allows(&member, &what, R), "nor a member out of being anybody");
        cr_assert(access_allows(&stranger, &what, R | W | X));
}

TEST(access, membership_counts_by_the_primary_group_and_by_every_other) {
        for (size_t i = 0; i < 3; ++i)
                cr_assert(access_allows(&also_member, &(Permissions){ .uid = 9, .gid = groups[i], .mode = 040 }, R));
        cr_assert(access_allows(&also_member, &(Permissions){ .uid = 9, .gid = 3, .mode = 040 }, R));
        cr_assert_not(access_allows(&also_member, &(Permissions){ .uid = 9, .gid = 4, .mode = 040 }, R));
        cr_assert(access_allows(&(Credentials){ .uid = 2, .gid = 7 },
                                &(Permissions){ .uid = 9, .gid = 7, .mode = 0040 }, R));
}

TEST(access, uid_0_without_being_an_administrator_is_a_user_like_any_other) {
        Credentials root = { .uid = 0, .gid = 0 };

        cr_assert_not(access_allows(&root, &(Permissions){ .uid = 1, .gid = 1, .mode = 0770 }, R));
        cr_assert_not(access_owns(&root, &(Permissions){ .uid = 1 }));
}

TEST(access, the_sticky_bit_gives_no_right) {
        cr_assert_not(access_allows(&stranger, &(Permissions){ .uid = 1, .gid = 1, .mode = 01000 }, X));
        cr_assert(access_allows(&stranger, &(Permissions){ .uid = 1, .gid = 1, .mode = 01777 }, R | W | X));
}

TEST(access, all_of_what_is_wanted_must_be_there) {
        Permissions what = { .uid = 1, .gid = 1, .mode = 0400 };

        cr_assert(access_allows(&owner, &what, R));
        cr_assert_not(access_allows(&owner, &what, R | W));
        cr_assert(access_allows(&owner, &what, 0));
}

TEST(access, who_owns_it_is_its_uid_or_an_administrator) {
        Permissions what = { .uid = 1, .gid = 7, .mode = 0777 };

        cr_assert(access_owns(&owner, &what));
        cr_assert(access_owns(&admin, &what));
        cr_assert_not(access_owns(&member, &what), "a group owns nothing");
        cr_assert_not(access_owns(&stranger, &what));
}

TEST(access, in_a_sticky_directory_only_owners_take_names_away) {
        Permissions sticky = { .uid = 9, .gid = 9, .mode = 01777 };
        Permissions plain = { .uid = 9, .gid = 9, .mode = 0777 };
        Permissions name = { .uid = 1, .gid = 7, .mode = 0666 };
        Credentials directory_owner = { .uid = 9, .gid = 1 };

        cr_assert(access_sticky_allows(&owner, &sticky, &name));
        cr_assert(access_sticky_allows(&directory_owner, &sticky, &name));
        cr_assert(access_sticky_allows(&admin, &sticky, &name));
        cr_assert_not(access_sticky_allows(&stranger, &sticky, &name));
        cr_assert_not(access_sticky_allows(&member, &sticky, &name));
        cr_assert(access_sticky_allows(&stranger, &plain, &name));
}
