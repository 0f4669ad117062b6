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

/* -- ACLs ------------------------------------------------------------------------------- */

#define E(name, who, rights) { .tag = ACL_##name, .id = (who), .perms = (rights) }

/* acl(5), "ACCESS CHECK ALGORITHM", step by step; shares nothing with what it checks. */
static bool model_allows(const AclEntry *list, size_t n, uid_t owner_uid, gid_t owner_gid, uid_t uid,
                         const gid_t *in, size_t n_in, unsigned int want) {
        const AclEntry *mask = NULL, *other = NULL;
        bool is_member = false, granted = false;

        for (size_t i = 0; i < n; ++i) {
                mask = list[i].tag == ACL_MASK ? &list[i] : mask;
                other = list[i].tag == ACL_OTHER ? &list[i] : other;
        }
        for (size_t i = 0; i < n; ++i)
                if (list[i].tag == ACL_USER_OBJ && uid == owner_uid)
                        return (list[i].perms & want) == want;
        for (size_t i = 0; i < n; ++i)
                if (list[i].tag == ACL_USER && list[i].id == uid)
                        return (list[i].perms & want) == want && (mask->perms & want) == want;
        for (size_t i = 0; i < n; ++i)
                for (size_t k = 0; k < n_in; ++k)
                        if ((list[i].tag == ACL_GROUP_OBJ && in[k] == owner_gid) ||
                            (list[i].tag == ACL_GROUP && in[k] == list[i].id)) {
                                is_member = true;
                                granted |= (list[i].perms & want) == want && (!mask || (mask->perms & want) == want);
                        }
        if (is_member)
                return granted;
        return (other->perms & want) == want;
}

/* Everybody there is, asked for everything there is, of one list. */
static void check_list(const AclEntry *list, size_t n) {
        static const uid_t uids[] = { 1, 2, 3 };
        static const gid_t all[] = { 7, 8, 9, 10 };
        Permissions what = { .uid = 1, .gid = 7 };

        cr_assert_eq(acl_check(list, n), ACL_OK);
        cr_assert_eq(acl_split(list, n, &what.mode, &what.acl), 0);
        for (size_t u = 0; u < 3; ++u)
                for (unsigned int members = 0; members < 16; ++members) {
                        gid_t in[5] = { 99 };
                        Credentials who = { .uid = uids[u], .gid = 99, .groups = in + 1 };

                        for (size_t i = 0; i < 4; ++i)
                                if (members & 1U << i)
                                        in[1 + who.n_groups++] = all[i];
                        for (unsigned int want = 0; want <= 7; ++want)
                                if (access_allows(&who, &what, want) !=
                                    model_allows(list, n, 1, 7, who.uid, in, who.n_groups + 1, want))
                                        cr_assert_fail("mode %o, uid %u, members %x, want %u",
                                                       what.mode, who.uid, members, want);
                        if (who.n_groups == 0)
                                continue;
                        /* The last of them as the primary group. */
                        who.gid = in[who.n_groups--];
                        for (unsigned int want = 0; want <= 7; ++want)
                                if (access_allows(&who, &what, want) !=
                                    model_allows(list, n, 1, 7, who.uid, in, who.n_groups + 2, want))
                                        cr_assert_fail("mode %o, uid %u, primary %u, want %u",
                                                       what.mode, who.uid, who.gid, want);
                }
        permissions_deinit(&what);
}

TEST(access, every_acl_means_what_acl_5_means_by_it) {
        for (unsigned int bits = 0; bits < 1U << 15; ++bits) {
                AclEntry list[] = {
                        E(USER_OBJ, 0, 5),
                        E(USER, 2, bits & 7),
                        E(GROUP_OBJ, 0, bits >> 3 & 7),
                        E(GROUP, 8, bits >> 6 & 7),
                        E(GROUP, 10, bits >> 9 & 7),
                        E(MASK, 0, bits >> 12 & 7),
                        E(OTHER, 0, 3),
                };

                /* A third of them, spread over all: the others are alike. */
                if (bits % 3 == 0)
                        check_list(list, sizeof(list) / sizeof(list[0]));
        }
}

TEST(access, a_mask_alone_and_no_acl_at_all_as_well) {
        for (unsigned int bits = 0; bits < 1U << 9; ++bits) {
                AclEntry masked[] = {
                        E(USER_OBJ, 0, bits & 7),
                        E(GROUP_OBJ, 0, bits >> 3 & 7),
                        E(MASK, 0, bits >> 6 & 7),
                        E(OTHER, 0, 6),
                };
                AclEntry plain[] = {
                        E(USER_OBJ, 0, bits & 7),
                        E(GROUP_OBJ, 0, bits >> 3 & 7),
                        E(OTHER, 0, bits >> 6 & 7),
                };

                check_list(masked, 4);
                check_list(plain, 3);
        }
}

TEST(access, an_administrator_is_asked_for_no_acl) {
        AclEntry list[] = {
                E(USER_OBJ, 0, 0), E(USER, 5, 0), E(GROUP_OBJ, 0, 0), E(MASK, 0, 0), E(OTHER, 0, 0),
        };
        Permissions what = { .uid = 1, .gid = 5 };

        cr_assert_eq(acl_split(list, 5, &what.mode, &what.acl), 0);
        cr_assert(access_allows(&admin, &what, R | W | X));
        cr_assert_eq(access_explain(&admin, &what, R).by, ACCESS_BY_ADMIN);
        permissions_deinit(&what);
}

static void expect_decision(const Permissions *what, Credentials who, unsigned int want, AccessDecision expected) {
        AccessDecision decision = access_explain(&who, what, want);

        cr_assert_eq(decision.allowed, expected.allowed);
        cr_assert_eq(decision.by, expected.by);
        cr_assert_eq(decision.perms, expected.perms);
        cr_assert_eq(decision.mask, expected.mask);
        cr_assert_eq(decision.id, expected.id);
}

TEST(access, who_decided_is_told) {
        AclEntry list[] = {
                E(USER_OBJ, 0, 7), E(USER, 2, 7), E(GROUP_OBJ, 0, 4),
                E(GROUP, 8, 6), E(GROUP, 9, 1),
                E(MASK, 0, 5), E(OTHER, 0, 2),
        };
        static const gid_t both[] = { 7, 9 }, eight[] = { 8 };
        Permissions what = { .uid = 1, .gid = 7 };

        cr_assert_eq(acl_split(list, 7, &what.mode, &what.acl), 0);
        cr_assert_eq(what.mode, 0752);
        expect_decision(&what, (Credentials){ .uid = 1, .gid = 7 }, R | W,
                        (AccessDecision){ .allowed = true, .by = ACCESS_BY_OWNER, .perms = 7, .id = 1 });
        expect_decision(&what, (Credentials){ .uid = 2, .gid = 7 }, W,
                        (AccessDecision){ .by = ACCESS_BY_USER, .perms = 5, .mask = 8 | 5, .id = 2 });
        expect_decision(&what, (Credentials){ .uid = 3, .gid = 7 }, R,
                        (AccessDecision){ .allowed = true, .by = ACCESS_BY_GROUP, .perms = 4, .id = 7 });
        expect_decision(&what, (Credentials){ .uid = 3, .gid = 3, .groups = both, .n_groups = 2 }, X,
                        (AccessDecision){ .allowed = true, .by = ACCESS_BY_ACL_GROUP, .perms = 1, .id = 9 });
        expect_decision(&what, (Credentials){ .uid = 3, .gid = 3, .groups = both, .n_groups = 2 }, R | X,
                        (AccessDecision){ .by = ACCESS_BY_GROUP, .perms = 4, .id = 7 });
        expect_decision(&what, (Credentials){ .uid = 3, .gid = 3, .groups = eight, .n_groups = 1 }, W,
                        (AccessDecision){ .by = ACCESS_BY_ACL_GROUP, .perms = 4, .mask = 8 | 5, .id = 8 });
        expect_decision(&what, (Credentials){ .uid = 3, .gid = 3 }, R,
                        (AccessDecision){ .by = ACCESS_BY_OTHER, .perms = 2 });
        permissions_deinit(&what);
}

TEST(access, groups_are_found_wherever_they_are_in_a_long_list) {
        gid_t many[1000];
        Credentials who = { .uid = 3, .gid = 1, .groups = many, .n_groups = 1000 };

        for (gid_t i = 0; i < 1000; ++i)
                many[i] = 10 + 2 * i;
        for (gid_t gid = 8; gid < 2012; ++gid)
                cr_assert_eq(access_allows(&who, &(Permissions){ .uid = 9, .gid = gid, .mode = 040 }, R),
                             gid >= 10 && gid < 2010 && gid % 2 == 0);
}

TEST(access, a_list_taken_apart_comes_together_again) {
        AclEntry full[] = {
                E(USER_OBJ, 0, 6), E(USER, 0, 1), E(USER, 70000, 7),
                E(GROUP_OBJ, 0, 3), E(GROUP, 1, 4), E(MASK, 0, 5),
                E(OTHER, 0, 2),
        };
        AclEntry plain[] = { full[0], full[3], full[6] };
        AclList list;
        mode_t mode;
        Acl *acl;

        cr_assert_eq(acl_split(full, 7, &mode, &acl), 0);
        cr_assert_eq(mode, 0652);
        acl_join(mode, acl, &list);
        cr_assert_eq(list.n, 7);
        for (size_t i = 0; i < 7; ++i)
                cr_assert(acl_compare(&list.entries[i], &full[i]) == 0 && list.entries[i].perms == full[i].perms);
        acl = acl_unref(acl);

        cr_assert_eq(acl_split(plain, 3, &mode, &acl), 0);
        cr_assert_null(acl);
        cr_assert_eq(mode, 0632);
        acl_join(mode, NULL, &list);
        cr_assert_eq(list.n, 3);
        for (size_t i = 0; i < 3; ++i)
                cr_assert(acl_compare(&list.entries[i], &plain[i]) == 0 && list.entries[i].perms == plain[i].perms);
}

TEST(access, the_mode_asked_for_is_the_most_that_is_inherited) {
        AclEntry entries[] = {
                E(USER_OBJ, 0, 7), E(USER, 2, 7), E(GROUP_OBJ, 0, 5),
                E(MASK, 0, 6), E(OTHER, 0, 4),
        };

        for (mode_t asked = 0; asked <= 01777; ++asked) {
                Permissions made = { .uid = 1, .gid = 7, .mode = asked }, plain = made;
                DefaultAcl none = { .set = false }, modest = { .set = true, .mode = 0754 }, full = { .set = true };

                permissions_inherit(&made, &none);
                cr_assert(made.mode == asked && !made.acl);
                permissions_inherit(&plain, &modest);
                cr_assert(plain.mode == (asked & 01754) && !plain.acl);

                cr_assert_eq(acl_split(entries, 5, &full.mode, &full.acl), 0);
                permissions_inherit(&made, &full);
                cr_assert_eq(made.mode, asked & 01764);
                cr_assert_eq(made.acl, full.acl);
                cr_assert_eq(made.acl->group_perms, 5);
                default_acl_deinit(&full);
                cr_assert_eq(made.acl->n_refs, 1);
                permissions_deinit(&made);
        }
}
