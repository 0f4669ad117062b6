/* include/base/list.h: a list whose links live in its members. */

#include "lib/test.h"

#include "base/list.h"

typedef struct Item {
        int value;
        List link;
} Item;

static void expect(List *list, const int *values, size_t n) {
        size_t i = 0;
        Item *item;

        list_for_each(item, list, Item, link) {
                cr_assert_lt(i, n);
                cr_assert_eq(item->value, values[i]);
                ++i;
        }
        cr_assert_eq(i, n);

        /* ... and backwards the same. */
        for (List *link = list->previous; link != list; link = link->previous)
                cr_assert_eq(list_entry(link, Item, link)->value, values[--i]);
        cr_assert_eq(i, 0);
}

TEST(list, a_new_list_is_empty) {
        List list = LIST_INIT(list);
        List other;

        list_init(&other);
        cr_assert(list_is_empty(&list));
        cr_assert(list_is_empty(&other));
        cr_assert_null(list_first(&list, Item, link));
        expect(&list, NULL, 0);
}

TEST(list, members_keep_the_order_they_came_in) {
        List list = LIST_INIT(list);
        Item items[3] = { { .value = 1 }, { .value = 2 }, { .value = 3 } };

        for (size_t i = 0; i < 3; ++i)
                list_append(&list, &items[i].link);
        cr_assert_not(list_is_empty(&list));
        cr_assert_eq(list_first(&list, Item, link), &items[0]);
        expect(&list, (int[]){ 1, 2, 3 }, 3);
}

TEST(list, unlinking_works_anywhere_and_twice) {
        List list = LIST_INIT(list);
        Item items[4] = { { .value = 1 }, { .value = 2 }, { .value = 3 }, { .value = 4 } };

        for (size_t i = 0; i < 4; ++i)
                list_append(&list, &items[i].link);

        list_unlink(&items[1].link);
        expect(&list, (int[]){ 1, 3, 4 }, 3);
        list_unlink(&items[1].link);
        expect(&list, (int[]){ 1, 3, 4 }, 3);
        list_unlink(&items[0].link);
        expect(&list, (int[]){ 3, 4 }, 2);
        list_unlink(&items[3].link);
        expect(&list, (int[]){ 3 }, 1);
        list_unlink(&items[2].link);
        cr_assert(list_is_empty(&list));
        list_unlink(&list);
        cr_assert(list_is_empty(&list));
}

TEST(list, a_member_moves_between_lists_and_to_the_end) {
        List a = LIST_INIT(a), b = LIST_INIT(b);
        Item items[3] = { { .value = 1 }, { .value = 2 }, { .value = 3 } };

        for (size_t i = 0; i < 3; ++i)
                list_append(&a, &items[i].link);
        list_move(&b, &items[1].link);
        expect(&a, (int[]){ 1, 3 }, 2);
        expect(&b, (int[]){ 2 }, 1);
        list_move(&a, &items[0].link);
        expect(&a, (int[]){ 3, 1 }, 2);
        list_move(&a, &items[0].link);
        expect(&a, (int[]){ 3, 1 }, 2);
}

TEST(list, all_members_move_to_the_end_of_another_in_their_order) {
        List a = LIST_INIT(a), b = LIST_INIT(b);
        Item items[4] = { { .value = 1 }, { .value = 2 }, { .value = 3 }, { .value = 4 } };

        list_append(&a, &items[0].link);
        for (size_t i = 1; i < 4; ++i)
                list_append(&b, &items[i].link);
        list_splice(&a, &b);
        expect(&a, (int[]){ 1, 2, 3, 4 }, 4);
        cr_assert(list_is_empty(&b));
        list_splice(&a, &b);
        expect(&a, (int[]){ 1, 2, 3, 4 }, 4);
}

TEST(list, the_current_member_may_be_freed_while_iterating) {
        List list = LIST_INIT(list);
        Item *item;
        int sum = 0;

        for (int i = 1; i <= 10; ++i) {
                item = calloc(1, sizeof(*item));
                cr_assert_not_null(item);
                item->value = i;
                list_append(&list, &item->link);
        }
        list_for_each(item, &list, Item, link) {
                sum += item->value;
                list_unlink(&item->link);
                free(item);
        }
        cr_assert_eq(sum, 55);
        cr_assert(list_is_empty(&list));
}

static void expect_ring(const Ring *ring, const int *values, size_t n) {
        size_t i = 0;
        Item *item;

        ring_for_each(item, ring, Item, link) {
                cr_assert_lt(i, n);
                cr_assert_eq(item->value, values[i]);
                ++i;
        }
        cr_assert_eq(i, n);
        cr_assert_eq(ring_first(ring, Item, link) == NULL, n == 0);
}

TEST(list, a_ring_is_a_list_with_a_small_head) {
        Item items[4] = { { .value = 1 }, { .value = 2 }, { .value = 3 }, { .value = 4 } };
        Ring ring = { .first = NULL };

        for (size_t i = 0; i < 4; ++i)
                list_init(&items[i].link);
        expect_ring(&ring, NULL, 0);
        ring_append(&ring, &items[1].link);
        ring_append(&ring, &items[2].link);
        ring_prepend(&ring, &items[0].link);
        ring_append(&ring, &items[3].link);
        expect_ring(&ring, (int[]){ 1, 2, 3, 4 }, 4);

        ring_remove(&ring, &items[0].link);
        ring_remove(&ring, &items[0].link);
        expect_ring(&ring, (int[]){ 2, 3, 4 }, 3);
        ring_remove(&ring, &items[3].link);
        expect_ring(&ring, (int[]){ 2, 3 }, 2);
        ring_remove(&ring, &items[2].link);
        ring_remove(&ring, &items[1].link);
        expect_ring(&ring, NULL, 0);
        ring_prepend(&ring, &items[2].link);
        expect_ring(&ring, (int[]){ 3 }, 1);
}

TEST(list, members_of_a_ring_may_leave_on_the_way) {
        for (unsigned int leave = 0; leave < 16; ++leave) {
                Item items[4] = { { .value = 0 }, { .value = 1 }, { .value = 2 }, { .value = 3 } }, *item;
                Ring ring = { .first = NULL };
                int left[4], n = 0, n_left = 0;

                for (size_t i = 0; i < 4; ++i) {
                        list_init(&items[i].link);
                        ring_append(&ring, &items[i].link);
                }
                ring_for_each(item, &ring, Item, link) {
                        cr_assert_eq(item->value, n++);
                        if (leave & 1U << item->value)
                                ring_remove(&ring, &item->link);
                        else
                                left[n_left++] = item->value;
                }
                cr_assert_eq(n, 4);
                expect_ring(&ring, left, (size_t)n_left);
        }
}
