/* A doubly linked list whose links live in its members.
 *
 * A List is both a head and a link. An unlinked link points to itself, so unlinking twice is
 * harmless and a destructor need not know whether its object was on a list.
 *
 * A Ring is a list whose head is one pointer to its first member, for what there is a million of: its
 * members are linked to each other alone, and leave it by ring_remove().
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

typedef struct Ring {
        List *first;            /* NULL: it is empty */
} Ring;

static inline void ring_append(Ring *ring, List *link) {
        if (ring->first)
                list_append(ring->first, link);
        else
                ring->first = link;
}

static inline void ring_prepend(Ring *ring, List *link) {
        ring_append(ring, link);
        ring->first = link;
}

/* Harmless if the link is unlinked. */
static inline void ring_remove(Ring *ring, List *link) {
        if (ring->first == link)
                ring->first = list_is_empty(link) ? NULL : link->next;
        list_unlink(link);
}

/* The first member, or NULL. */
#define ring_first(ring, type, member) ((ring)->first ? list_entry((ring)->first, type, member) : NULL)

/* Iterates; `item` may be removed and freed in the body, its neighbours may not. */
#define ring_for_each(item, ring, type, member)                                                         \
        for (List *item##_link = (ring)->first, *item##_last = item##_link ? item##_link->previous : NULL, \
                  *item##_next;                                                                         \
             item##_link &&                                                                             \
             (item##_next = item##_link == item##_last ? NULL : item##_link->next,                      \
              item = list_entry(item##_link, type, member), true);                                      \
             item##_link = item##_next)

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
