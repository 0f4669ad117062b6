/* include/base/cleanup.h: what a scope owns is released on every way out of it. */

#include "lib/test.h"

#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"

static int freed;

typedef struct Thing {
        int value;
} Thing;

static Thing *thing_free(Thing *thing) {
        freed += thing->value;
        free(thing);
        return NULL;
}

DEFINE_CLEANUP(Thing, thing_free);

static Thing *thing_new(int value) {
        Thing *thing = malloc(sizeof(*thing));

        cr_assert_not_null(thing);
        thing->value = value;
        return thing;
}

static int open_null(void) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        cr_assert_geq(fd, 0);
        return fd;
}

TEST(cleanup, a_local_is_freed_at_the_end_of_its_scope) {
        {
                CLEANUP(thing_freep) Thing *a = thing_new(1);
                CLEANUP(thing_freep) Thing *b = thing_new(10);

                cr_assert(a && b);
                cr_assert_eq(freed, 0);
        }
        cr_assert_eq(freed, 11);
}

TEST(cleanup, what_was_handed_on_is_left_alone) {
        Thing *kept;

        {
                CLEANUP(thing_freep) Thing *a = thing_new(1);

                kept = a;
                a = NULL;
        }
        cr_assert_eq(freed, 0);
        kept = thing_free(kept);
        cr_assert_null(kept);
        cr_assert_eq(freed, 1);
}

TEST(cleanup, memory_of_malloc_is_freed) {
        CLEANUP(freep) char *text = malloc(100);
        CLEANUP(freep) char *nothing = NULL;

        cr_assert(text);
        cr_assert_null(nothing);
}

TEST(cleanup, a_descriptor_is_closed_at_the_end_of_its_scope) {
        int fd;

        {
                CLEANUP(close_fdp) int owned = open_null();
                CLEANUP(close_fdp) int none = -1;

                fd = owned;
                cr_assert_geq(fcntl(fd, F_GETFD), 0);
                cr_assert_eq(none, -1);
        }
        cr_assert_eq(fcntl(fd, F_GETFD), -1);
        cr_assert_eq(errno, EBADF);
}

TEST(cleanup, a_stolen_descriptor_stays_open) {
        int fd;

        {
                CLEANUP(close_fdp) int owned = open_null();

                fd = steal_fd(&owned);
                cr_assert_eq(owned, -1);
                cr_assert_eq(steal_fd(&owned), -1);
        }
        cr_assert_geq(fcntl(fd, F_GETFD), 0);
        cr_assert_eq(close_fd(fd), -1);
}

TEST(cleanup, closing_keeps_errno) {
        errno = E2BIG;
        cr_assert_eq(close_fd(open_null()), -1);
        cr_assert_eq(errno, E2BIG);
        cr_assert_eq(close_fd(-1), -1);
        cr_assert_eq(errno, E2BIG);
        cr_assert_eq(close_fd(1 << 20), -1, "a descriptor that is not open is no error either");
        cr_assert_eq(errno, E2BIG);
}
