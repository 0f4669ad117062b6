/* daemon/util/names: the table of what is kept. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "util/names.h"

static void name_of(char name[FDSTORE_NAME_MAX], uint64_t i) {
        (void)snprintf(name, FDSTORE_NAME_MAX, "r%llu", (unsigned long long)i);
}

TEST(names, a_name_leads_to_its_descriptor_until_it_is_taken_out) {
        Names *names;

        REQUIRE(names_new(&names, 100) == 0);
        REQUIRE(names_put(names, 7, "r1") == 0 && names_put(names, 99, "state") == 0);
        cr_assert_eq(names_count(names), 2);
        cr_assert_eq(names_end(names), 100);
        cr_assert_eq(names_take(names, "r2"), -1);
        cr_assert_eq(names_take(names, "state"), 99);
        cr_assert_eq(names_take(names, "state"), -1);
        cr_assert_eq(names_take(names, "r1"), 7);
        cr_assert_eq(names_count(names), 0);
        names_free(names);
}

TEST(names, a_name_stands_for_one_descriptor) {
        Names *names;

        REQUIRE(names_new(&names, 100) == 0);
        REQUIRE(names_put(names, 7, "r1") == 0);
        cr_assert_eq(names_put(names, 8, "r1"), NAMES_E_TAKEN);
        cr_assert_eq(names_put(names, 100, "r2"), NAMES_E_RANGE);
        cr_assert_eq(names_put(names, -1, "r2"), NAMES_E_RANGE);
        cr_assert_eq(names_count(names), 1);
        cr_assert_eq(names_take(names, "r1"), 7);
        names_free(names);
}

/* Against the simplest model: an array. */
TEST(names, any_order_of_putting_and_taking) {
        enum { N = 64 };
        uint64_t random = test_seed();
        int model[2 * N];
        bool used[N] = { false };
        char name[FDSTORE_NAME_MAX];
        Names *names;

        REQUIRE(names_new(&names, N) == 0);
        memset(model, 0xff, sizeof(model));
        for (size_t round = 0; round < 200000; ++round) {
                uint64_t which = test_random(&random, 2 * N);
                int fd = (int)test_random(&random, N);

                name_of(name, which);
                if (test_random(&random, 2)) {
                        int got = names_take(names, name);

                        REQUIRE(got == model[which]);
                        if (got >= 0)
                                used[got] = false;
                        model[which] = -1;
                } else if (!used[fd]) {
                        REQUIRE(names_put(names, fd, name) == (model[which] < 0 ? 0 : NAMES_E_TAKEN));
                        if (model[which] < 0) {
                                model[which] = fd;
                                used[fd] = true;
                        }
                }
        }
        names_free(names);
}

/* -- the file -------------------------------------------------------------------------------- */

TEST(names, the_next_process_reads_what_there_is) {
        CLEANUP(freep) Kept *kept = NULL;
        Names *names, *again;
        size_t n;

        REQUIRE(names_new(&names, 1000) == 0);
        REQUIRE(names_put(names, 7, "r1") == 0 && names_put(names, 5, "r2") == 0 && names_put(names, 900, "r3") == 0);
        REQUIRE(names_take(names, "r2") == 5);
        cr_assert_eq(fcntl(names_fd(names), F_GETFD), 0, "it is inherited");
        REQUIRE(names_read(names_fd(names), names_end(names), &kept, &n) == 0 && n == 2);
        cr_assert_str_eq(kept[0].name, "r1");
        cr_assert_eq(kept[0].fd, 7);
        cr_assert_str_eq(kept[1].name, "r3");
        cr_assert_eq(kept[1].fd, 900);

        REQUIRE(names_new(&again, 1000) == 0);
        REQUIRE(names_adopt(again, names_fd(names), names_end(names)) == 0);
        cr_assert_eq(names_count(again), 2);
        cr_assert_eq(names_take(again, "r3"), 900);
        names_free(again);

        REQUIRE(names_new(&again, 500) == 0);
        cr_assert_eq(names_adopt(again, names_fd(names), names_end(names)), -EINVAL, "900 is out of reach");
        names_free(again);
        names_free(names);
}

TEST(names, nobody_else_can_change_the_file) {
        Names *names;
        char path[64];
        int fd;

        REQUIRE(names_new(&names, 100) == 0);
        REQUIRE(names_put(names, 7, "r1") == 0);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", names_fd(names));
        fd = open(path, O_RDWR | O_CLOEXEC);
        REQUIRE(fd >= 0);
        cr_assert(pwrite(fd, "r2", 2, 7 * FDSTORE_NAME_MAX) < 0 && errno == EPERM);
        cr_assert(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM);
        cr_assert(ftruncate(fd, 0) < 0 && errno == EPERM);
        cr_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
        close_fd(fd);
        REQUIRE(names_take(names, "r1") == 7 && names_put(names, 8, "r1") == 0, "its maker can");
        names_free(names);
}

TEST(names, a_file_that_is_too_short_is_refused) {
        CLEANUP(close_fdp) int fd = memfd_create("test", MFD_CLOEXEC);
        Kept *kept = NULL;
        size_t n;

        REQUIRE(fd >= 0 && ftruncate(fd, 10 * FDSTORE_NAME_MAX - 1) == 0);
        cr_assert_eq(names_read(fd, 10, &kept, &n), -EINVAL);
        REQUIRE(names_read(fd, 9, &kept, &n) == 0 && n == 0);
        free(kept);
}

TEST(names, a_name_without_an_end_gets_one) {
        CLEANUP(close_fdp) int fd = memfd_create("test", MFD_CLOEXEC);
        char text[FDSTORE_NAME_MAX];
        Kept *kept = NULL;
        size_t n;

        memset(text, 'x', sizeof(text));
        REQUIRE(fd >= 0 && write(fd, text, sizeof(text)) == (ssize_t)sizeof(text));
        REQUIRE(names_read(fd, 1, &kept, &n) == 0 && n == 1);
        cr_assert_eq(strlen(kept[0].name), FDSTORE_NAME_MAX - 1);
        free(kept);
}
