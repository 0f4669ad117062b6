/* client/ctl/parse: text to numbers, whole or not at all. */

#include "buildinfo.h"

#include "lib/test.h"

#include <errno.h>

#include "client/ctl/parse.h"

#define UNTOUCHED UINT64_C(0x1234)

static void expect(int (*parse)(const char *, uint64_t *), const char *text, uint64_t value) {
        uint64_t got = UNTOUCHED;

        REQUIRE(parse(text, &got) == 0, "'%s' is refused", text);
        REQUIRE(got == value, "'%s' is read as %llu", text, (unsigned long long)got);
}

static void expect_refused(int (*parse)(const char *, uint64_t *), const char *text) {
        uint64_t got = UNTOUCHED;

        REQUIRE(parse(text, &got) == -EINVAL, "'%s' is accepted", text);
        REQUIRE(got == UNTOUCHED, "'%s' is refused and yet stored", text);
}

TEST(ctl_parse, sizes_have_units_of_1024) {
        expect(parse_size, "0", 0);
        expect(parse_size, "1", 1);
        expect(parse_size, "64K", 65536);
        expect(parse_size, "64k", 65536);
        expect(parse_size, "2M", UINT64_C(2) << 20);
        expect(parse_size, "3G", UINT64_C(3) << 30);
        expect(parse_size, "1T", UINT64_C(1) << 40);
        expect(parse_size, "1P", UINT64_C(1) << 50);
        expect(parse_size, "1E", UINT64_C(1) << 60);
        expect(parse_size, "1KiB", 1024);
        expect(parse_size, "1gib", UINT64_C(1) << 30);
}

TEST(ctl_parse, sizes_reach_to_2_to_the_64_and_never_wrap) {
        expect(parse_size, "9223372036854775808", UINT64_C(1) << 63);
        expect(parse_size, "18446744073709551615", UINT64_MAX);
        expect(parse_size, "15E", UINT64_C(15) << 60);
        expect(parse_size, "17179869183G", UINT64_C(17179869183) << 30);
        expect_refused(parse_size, "18446744073709551616");
        expect_refused(parse_size, "16E");
        expect_refused(parse_size, "17179869184G");
        expect_refused(parse_size, "99999999999999999999999");
}

TEST(ctl_parse, what_is_no_size_is_refused) {
        static const char *const texts[] = {
                "", " ", "K", "-1", "+1", " 1", "1 ", "1.5G", "0x10", "1B", "1KB", "1Ki", "1Kib ", "1MM", "64M/s", "ten",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); ++i)
                expect_refused(parse_size, texts[i]);
}

TEST(ctl_parse, numbers_are_digits_alone) {
        expect(parse_number, "0", 0);
        expect(parse_number, "007", 7);
        expect(parse_number, "18446744073709551615", UINT64_MAX);
        expect_refused(parse_number, "");
        expect_refused(parse_number, "-1");
        expect_refused(parse_number, "1K");
        expect_refused(parse_number, "18446744073709551616");
}

TEST(ctl_parse, durations_have_units_and_may_be_sums) {
        expect(parse_duration, "0", 0);
        expect(parse_duration, "1ns", 1);
        expect(parse_duration, "250us", 250000);
        expect(parse_duration, "500ms", 500000000);
        expect(parse_duration, "10s", UINT64_C(10000000000));
        expect(parse_duration, "10", UINT64_C(10000000000));
        expect(parse_duration, "2min", UINT64_C(120000000000));
        expect(parse_duration, "1h30min", UINT64_C(5400000000000));
        expect(parse_duration, "1d", UINT64_C(86400000000000));
        expect(parse_duration, "1.5s", UINT64_C(1500000000));
        expect(parse_duration, "0.25", UINT64_C(250000000));
        expect(parse_duration, "1.9ns", 1);
        expect(parse_duration, "infinity", UINT64_MAX);
}

TEST(ctl_parse, what_is_no_duration_is_refused) {
        static const char *const texts[] = {
                "", "s", "-1s", "1 s", "1m", "1S", "1.s", ".5s", "1s2", "1h 30min", "infinite", "1e3s",
                "18446744073709551616ns", "213504d", "18446744073s18446744073s",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); ++i)
                expect_refused(parse_duration, texts[i]);
}

TEST(ctl_parse, modes_are_octal_up_to_a_bound) {
        mode_t mode = 0;

        cr_assert_eq(parse_mode("0", 0777, &mode), 0);
        cr_assert_eq(mode, 0);
        cr_assert_eq(parse_mode("640", 0777, &mode), 0);
        cr_assert_eq(mode, 0640);
        cr_assert_eq(parse_mode("0777", 0777, &mode), 0);
        cr_assert_eq(mode, 0777);
        cr_assert_eq(parse_mode("01777", 01777, &mode), 0);
        cr_assert_eq(mode, 01777);
        cr_assert_eq(parse_mode("1000", 0777, &mode), -EINVAL);
        cr_assert_eq(parse_mode("2000", 01777, &mode), -EINVAL);
        cr_assert_eq(parse_mode("8", 0777, &mode), -EINVAL);
        cr_assert_eq(parse_mode("u+r", 0777, &mode), -EINVAL);
        cr_assert_eq(parse_mode("", 0777, &mode), -EINVAL);
        cr_assert_eq(parse_mode("000000", 0777, &mode), -EINVAL);
        cr_assert_eq(mode, 01777);
}

TEST(ctl_parse, users_and_groups_go_by_name_and_by_number) {
        uid_t uid = 1;
        gid_t gid = 1;

        cr_assert_eq(parse_user("root", &uid), 0);
        cr_assert_eq(uid, 0);
        cr_assert_eq(parse_user("64101", &uid), 0);
        cr_assert_eq(uid, 64101);
        cr_assert_eq(parse_group("root", &gid), 0);
        cr_assert_eq(gid, 0);
        cr_assert_eq(parse_user("4294967294", &uid), 0);
        cr_assert_eq(uid, 4294967294U);
        cr_assert_eq(parse_user("4294967295", &uid), -EINVAL);
        cr_assert_eq(parse_user("no such user", &uid), -EINVAL);
        cr_assert_eq(parse_group("", &gid), -EINVAL);
}

TEST(ctl_parse, an_owner_is_a_user_a_group_or_both) {
        uid_t uid = 7;
        gid_t gid = 7;

        cr_assert_eq(parse_owner("64101", &uid, &gid), 0);
        cr_assert(uid == 64101 && gid == (gid_t)-1);
        cr_assert_eq(parse_owner("root:64102", &uid, &gid), 0);
        cr_assert(uid == 0 && gid == 64102);
        cr_assert_eq(parse_owner(":root", &uid, &gid), 0);
        cr_assert(uid == (uid_t)-1 && gid == 0);
        cr_assert_eq(parse_owner("", &uid, &gid), -EINVAL);
        cr_assert_eq(parse_owner(":", &uid, &gid), -EINVAL);
        cr_assert_eq(parse_owner("root:", &uid, &gid), -EINVAL);
        cr_assert_eq(parse_owner("1:2:3", &uid, &gid), -EINVAL);
        cr_assert(uid == (uid_t)-1 && gid == 0);
}
