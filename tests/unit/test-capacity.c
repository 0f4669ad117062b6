/* daemon/capacity: "auto" in exact numbers, and what is impossible said at the start. */

#include "daemon-house.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include "capacity.h"
#include "config.h"

#define MEMORY (UINT64_C(3) << 30)

static Config *config;

static void begin(void) {
        REQUIRE(config_new(&config) == 0);
}

static void end(void) {
        config = config_free(config);
}

static void expect_split(uint64_t descriptors, uint64_t peers, uint64_t inflight, uint64_t regions) {
        begin();
        REQUIRE(capacity_resolve(config, descriptors, MEMORY) == 0, "%s", config->message);
        REQUIRE(config->global[ACCOUNT_PEERS] == peers && config->global[ACCOUNT_INFLIGHT] == inflight &&
                config->global[ACCOUNT_REGIONS] == regions, "%zu: %zu %zu %zu", (size_t)descriptors,
                (size_t)config->global[ACCOUNT_PEERS], (size_t)config->global[ACCOUNT_INFLIGHT],
                (size_t)config->global[ACCOUNT_REGIONS]);
        REQUIRE(peers + inflight + regions < descriptors, "something is left for the broker itself");
        REQUIRE(config->global[ACCOUNT_BYTES] == MEMORY);
        end();
}

TEST(capacity, descriptors_are_divided_in_exactly_this_way) {
        expect_split(1048576, 131048, 114667, 802669);
        expect_split(20000, 2476, 2166, 15166);
        expect_split(1024, 104, 91, 637);
        expect_split(768, 72, 63, 441);
        expect_split(256, 24, 21, 147);
        expect_split(64, 6, 5, 37);
        expect_split(48, 4, 4, 28);
}

TEST(capacity, too_few_descriptors_are_an_error_with_both_numbers) {
        begin();
        cr_assert_eq(capacity_resolve(config, 47, MEMORY), CAPACITY_E_IMPOSSIBLE);
        cr_assert_str_eq(config->message, "a limit of 47 descriptors (RLIMIT_NOFILE) is too low, 48 are needed");
        cr_assert_eq(capacity_resolve(config, 0, MEMORY), CAPACITY_E_IMPOSSIBLE);
        end();
}

TEST(capacity, what_is_configured_stays_and_the_rest_shares_what_is_left) {
        begin();
        config->global[ACCOUNT_PEERS] = 100;
        config->global[ACCOUNT_BYTES] = 7;
        cr_assert_eq(capacity_resolve(config, 1024, MEMORY), 0);
        cr_assert_eq(config->global[ACCOUNT_PEERS], 100);
        cr_assert_eq(config->global[ACCOUNT_INFLIGHT], 91);
        cr_assert_eq(config->global[ACCOUNT_REGIONS], 641);
        cr_assert_eq(config->global[ACCOUNT_BYTES], 7);
        end();
}

TEST(capacity, the_last_descriptor_can_be_had_and_one_more_is_impossible) {
        begin();
        config->global[ACCOUNT_PEERS] = 400;
        config->global[ACCOUNT_INFLIGHT] = 200;
        config->global[ACCOUNT_REGIONS] = 232;
        cr_assert_eq(capacity_resolve(config, 1024, MEMORY), 0);
        config->global[ACCOUNT_REGIONS] = 233;
        cr_assert_eq(capacity_resolve(config, 1024, MEMORY), CAPACITY_E_IMPOSSIBLE);
        cr_assert_str_eq(config->message, "[global] regions=233 is impossible: the limit of 1024 descriptors "
                                          "(RLIMIT_NOFILE) leaves room for 232");
        end();
}

TEST(capacity, each_slot_that_is_impossible_is_named_with_both_numbers) {
        static const struct {
                AccountSlot slot;
                const char *message;
        } cases[] = {
                { ACCOUNT_PEERS, "[global] peers=1000 is impossible: the limit of 1024 descriptors (RLIMIT_NOFILE) "
                                 "leaves room for 832" },
                { ACCOUNT_INFLIGHT, "[global] inflight=1000 is impossible: the limit of 1024 descriptors "
                                    "(RLIMIT_NOFILE) leaves room for 728" },
                { ACCOUNT_REGIONS, "[global] regions=1000 is impossible: the limit of 1024 descriptors (RLIMIT_NOFILE) "
                                   "leaves room for 637" },
        };

        for (size_t i = 0; i < 3; ++i) {
                begin();
                config->global[cases[i].slot] = 1000;
                cr_assert_eq(capacity_resolve(config, 1024, MEMORY), CAPACITY_E_IMPOSSIBLE);
                cr_assert_str_eq(config->message, cases[i].message);
                end();
        }
}

TEST(capacity, what_costs_descriptors_cannot_be_unlimited_and_what_does_not_can) {
        begin();
        config->global[ACCOUNT_REGIONS] = QUOTA_UNLIMITED;
        cr_assert_eq(capacity_resolve(config, 1024, MEMORY), CAPACITY_E_IMPOSSIBLE);
        end();
        begin();
        config->global[ACCOUNT_BYTES] = QUOTA_UNLIMITED;
        config->global[ACCOUNT_GRANTS] = config->global[ACCOUNT_WATCHES] = QUOTA_UNLIMITED;
        cr_assert_eq(capacity_resolve(config, 1024, MEMORY), 0);
        cr_assert_eq(config->global[ACCOUNT_BYTES], QUOTA_UNLIMITED);
        end();
}

static void expect_parked(uint64_t descriptors, uint64_t parked) {
        begin();
        REQUIRE(capacity_parked(config, descriptors, false) == parked, "%zu", (size_t)capacity_parked(config, descriptors, false));
        REQUIRE(capacity_parked(config, descriptors, true) == (parked < 512 ? parked : 512));
        REQUIRE(capacity_resolve(config, descriptors, MEMORY) == 0);
        /* What is on its way to clients has its place, and all regions theirs. */
        REQUIRE(parked + config->global[ACCOUNT_INFLIGHT] < descriptors);
        REQUIRE(parked > config->global[ACCOUNT_REGIONS]);
        end();
}

TEST(capacity, what_is_parked_leaves_room_for_answers) {
        expect_parked(1048576, 916504);
        expect_parked(524288, 457752);
        expect_parked(20000, 16500);
        expect_parked(4096, 3352);
        expect_parked(1024, 856);
        begin();
        config->global[ACCOUNT_INFLIGHT] = 15000;
        REQUIRE(capacity_parked(config, 20000, false) == 3976);
        config->global[ACCOUNT_INFLIGHT] = 19500;
        REQUIRE(capacity_parked(config, 20000, false) == 0);
        config->global[ACCOUNT_INFLIGHT] = UINT64_MAX;
        REQUIRE(capacity_parked(config, 20000, false) == 0);
        end();
}

TEST(capacity, a_keeper_keeps_what_a_broker_has_beside_its_regions_and_leaves_the_next_one_room) {
        for (uint64_t descriptors = 48; descriptors < 2000; ++descriptors) {
                uint64_t objects = capacity_objects(descriptors), kept = capacity_kept(descriptors);

                cr_assert(kept >= objects + 3 && kept <= objects + 48, "%" PRIu64, descriptors);
                cr_assert(descriptors - kept >= (descriptors - objects) / 2, "%" PRIu64, descriptors);
        }
        cr_assert_eq(capacity_kept(20000), 20000 - 192 + 48);
}

TEST(capacity, nothing_automatic_is_left) {
        begin();
        cr_assert_eq(capacity_resolve(config, UINT64_MAX / 2, UINT64_MAX / 2), 0);
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                cr_assert_neq(config->global[i], CONFIG_AUTO);
        end();
}

static int raise_descriptors(void *userdata) {
        struct rlimit low = { 64, 500 }, now;
        uint64_t got = 0;

        REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
        REQUIRE(capacity_raise_descriptors(&got) == 0);
        REQUIRE(got == 500);
        REQUIRE(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 500 && now.rlim_max == 500);
        REQUIRE(capacity_raise_descriptors(&got) == 0 && got == 500, "twice is the same");
        return 0;
}

TEST(capacity, the_soft_limit_of_descriptors_is_raised_to_the_hard_one) {
        house_expect_child(raise_descriptors, NULL);
}

static int raise_is_forbidden(void *userdata) {
        uint64_t got = 0;

        house_deny(EPERM, SCMP_SYS(prlimit64), 1, (struct scmp_arg_cmp[]){ { 2, SCMP_CMP_NE, 0, 0 } });
        REQUIRE(capacity_raise_descriptors(&got) == -EPERM);
        return 0;
}

TEST(capacity, a_limit_that_cannot_be_raised_is_an_error) {
        house_expect_child(raise_is_forbidden, NULL);
}

TEST(capacity, memory_is_half_of_the_machines_or_less) {
        uint64_t memory = capacity_memory();
        struct sysinfo info;

        REQUIRE(sysinfo(&info) == 0);
        cr_assert_leq(memory, (uint64_t)info.totalram * info.mem_unit / 2);
        cr_assert_gt(memory, 0);
}

static int without_files(void *userdata) {
        struct sysinfo info;

        house_deny(EACCES, SCMP_SYS(openat), 0, NULL);
        REQUIRE(sysinfo(&info) == 0);
        REQUIRE(capacity_memory() == (uint64_t)info.totalram * info.mem_unit / 2);
        return 0;
}

TEST(capacity, where_cgroups_cannot_be_read_the_machine_decides) {
        house_expect_child(without_files, NULL);
}
