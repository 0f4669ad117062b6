/* A bounded list of descriptors: see the header for the model. */

#include "proto/fdlist.h"

void fdlist_deinit(FdList *list) {
        while (list->n > list->next)
                (void)close_fd(list->fds[--list->n]);
        list->n = list->next = 0;
}

int fdlist_consume(FdList *list, int fd) {
        if (list->n >= FDLIST_MAX) {
                (void)close_fd(fd);
                return FDLIST_E_FULL;
        }
        list->fds[list->n++] = fd;
        return 0;
}

int fdlist_take(FdList *list) {
        if (list->next >= list->n)
                return -1;
        return list->fds[list->next++];
}
