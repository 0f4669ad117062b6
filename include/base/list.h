/* A doubly linked list whose links live in its members.
 *
 * A List is both a head and a link. An unlinked link points to itself, so unlinking twice is
 * harmless and a destructor need not know whether its object was on a list.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct List List;

struct List {
        List *next;
        List *previous;
};

#define LIST_INIT(list) { .next = &(list), .previous = &(list) }

#define list_entry(link, type, member) ((type *)((char *)(link) - offsetof(type, member)))

static inline void list_init(List *list) {
        list->next = list->previous = list;
}

static inline bool list_is_empty(const List *list) {
        return list->next == list;
}

static inline void list_append(List *list, List *link) {
        link->next = list;
        link->previous = list->previous;
        list->previous->next = link;
        list->previous = link;
}

static inline void list_unlink(List *link) {
        link->next->previous = link->previous;
        link->previous->next = link->next;
        list_init(link);
}

/* Moves link from wherever it is to the end of list. */
static inline void list_move(List *list, List *link) {
        list_unlink(link);
        list_append(list, link);
}

/* Moves all members of `from` to the end of list, in their order. */
static inline void list_splice(List *list, List *from) {
        if (list_is_empty(from))
                return;
        list->previous->next = from->next;
        from->next->previous = list->previous;
        from->previous->next = list;
        list->previous = from->previous;
        list_init(from);
}

/* The first member, or NULL. */
#define list_first(list, type, member) \
        (list_is_empty(list) ? NULL : list_entry((list)->next, type, member))

/* Iterates; `item` may be unlinked and freed in the body, its neighbours may not. */
#define list_for_each(item, list, type, member)                                         \
        for (List *item##_link = (list)->next, *item##_next;                            \
             item##_link != (list) &&                                                   \
             (item##_next = item##_link->next,                                          \
              item = list_entry(item##_link, type, member), true);                      \
             item##_link = item##_next)

#endif
