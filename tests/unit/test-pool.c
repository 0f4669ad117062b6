/* daemon/util/pool, area: objects of one size without headers, and their memory goes again. */

#include "daemon-house.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buildinfo.h"
#include "util/area.h"
#include "util/pool.h"

#define SIZE 256U
#define IN_AN_AREA (AREA_BYTES / SIZE - 1)      /* its head takes the room of one */
#define MANY (6 * IN_AN_AREA)

static unsigned char *objects[MANY];

/* Each object is filled with bytes of its own, and still has them in the end. */
static void fill(unsigned char *object, size_t i) {
        memset(object, (int)(i % 251), SIZE);
}

static void expect_filled(const unsigned char *object, size_t i) {
        for (size_t k = 0; k < SIZE; ++k)
                REQUIRE(object[k] == i % 251, "object %zu has another one's byte at %zu", i, k);
}

TEST(pool, no_object_lies_in_another_one) {
        Pool pool;

        pool_init(&pool, SIZE);
        for (size_t i = 0; i < MANY; ++i) {
                objects[i] = pool_take(&pool);
                REQUIRE(objects[i] && (uintptr_t)objects[i] % sizeof(void *) == 0);
                fill(objects[i], i);
        }
        cr_assert_eq(pool.n, MANY);
        for (size_t i = 0; i < MANY; i += 2)
                pool_give(&pool, objects[i]);
        for (size_t i = 0; i < MANY; i += 2) {
                objects[i] = pool_take(&pool);
                fill(objects[i], i);
        }
        for (size_t i = 0; i < MANY; ++i) {
                expect_filled(objects[i], i);
                pool_give(&pool, objects[i]);
        }
        pool_deinit(&pool);
}

TEST(pool, what_is_nothing_is_given_back_in_silence) {
        Pool pool;

        pool_init(&pool, SIZE);
        pool_give(&pool, NULL);
        cr_assert_eq(pool.n, 0);
        pool_deinit(&pool);
}

#ifdef SHMD_SANITIZERS

int __asan_address_is_poisoned(void const volatile *address);

TEST(pool, the_sanitizers_see_what_was_given_back) {
        void *object;
        Pool pool;

        pool_init(&pool, SIZE);
        object = pool_take(&pool);
        cr_assert(!__asan_address_is_poisoned(object));
        pool_give(&pool, object);
        cr_assert(__asan_address_is_poisoned(object));
        pool_deinit(&pool);
}

#else                           /* with them there are no areas */

TEST(pool, what_is_given_back_is_taken_first) {
        void *first, *second;
        Pool pool;

        pool_init(&pool, SIZE);
        first = pool_take(&pool);
        second = pool_take(&pool);
        cr_assert_eq((char *)second - (char *)first, SIZE);
        pool_give(&pool, first);
        cr_assert_eq(pool_take(&pool), first);
        pool_give(&pool, first);
        pool_give(&pool, second);
        cr_assert_eq(pool_take(&pool), second);
        pool_give(&pool, second);
        pool_deinit(&pool);
}

TEST(pool, an_area_goes_when_it_is_empty_but_for_one) {
        uint64_t random = test_seed();
        Pool pool;

        pool_init(&pool, SIZE);
        for (size_t i = 0; i < MANY; ++i)
                objects[i] = pool_take(&pool);
        cr_assert_eq(pool.n_areas, 6);
        for (size_t i = MANY; i > 1; --i) {
                size_t k = test_random(&random, i);
                unsigned char *object = objects[k];

                objects[k] = objects[i - 1];
                objects[i - 1] = object;
        }
        for (size_t i = 0; i < MANY; ++i)
                pool_give(&pool, objects[i]);
        cr_assert_eq(pool.n_areas, 1);

        /* ... and no area comes and goes with one object. */
        for (size_t i = 0; i < IN_AN_AREA; ++i)
                objects[i] = pool_take(&pool);
        cr_assert_eq(pool.n_areas, 1);
        for (size_t i = 0; i < 10; ++i) {
                pool_give(&pool, pool_take(&pool));
                cr_assert_eq(pool.n_areas, 2);
        }
        for (size_t i = 0; i < IN_AN_AREA; ++i)
                pool_give(&pool, objects[i]);
        cr_assert_eq(pool.n_areas, 1);
        pool_deinit(&pool);
}

static int take_without_memory(void *userdata) {
        Pool pool;

        pool_init(&pool, SIZE);
        house_deny(ENOMEM, SCMP_SYS(mmap), 0, NULL);
        REQUIRE(!pool_take(&pool) && pool.n == 0);
        REQUIRE(!area_map(AREA_BYTES, true));
        pool_deinit(&pool);
        return 0;
}

TEST(pool, without_memory_there_is_no_object) {
        house_expect_child(take_without_memory, NULL);
}

#endif

TEST(pool, an_area_is_zero_and_begins_where_a_huge_page_can) {
        for (int huge = 0; huge < 2; ++huge) {
                unsigned char *area = area_map(2 * AREA_BYTES, huge);

                REQUIRE(area && (uintptr_t)area % AREA_BYTES == 0);
                for (size_t i = 0; i < 2 * AREA_BYTES; ++i)
                        REQUIRE(area[i] == 0);
                memset(area, 1, 2 * AREA_BYTES);
                area_unmap(area, 2 * AREA_BYTES);
        }
}
