/* The keeper's children: the program that is there now, executed once as the broker and once to check its
 * configuration.
 *
 * A child has the arguments this process has, with one more before them, and its environment without what the
 * service manager said to this process alone. It ends with the keeper.
 */
#ifndef CHILD_H
#define CHILD_H

#include <sys/types.h>

#include "keeper.h"
#include "util/names.h"

/* What the next broker is told of those before it. */
typedef struct ChildNews {
        uint64_t restarts;      /* how many of them ended by themselves */
        const char *last_end;   /* how the last of those did: "signal KILL"; "" */
} ChildNews;

/* Starts a broker that has one end of its socket to the keeper as `link`, and `waker` for fdstore_set_waker().
 * Return: 0, negative errno. */
int child_start_broker(const KeeperOptions *options, const Names *names, int link, int waker, const ChildNews *news,
                       pid_t *ret);
/* Has the program check its configuration; the exit status says whether it is good. Return: 0, negative errno. */
int child_start_check(const KeeperOptions *options, pid_t *ret);
/* Says where the listening socket and the names are: to a broker with that link and that waker, or to the keeper (-1)
 * that is executed in this process next. */
void child_leave(const KeeperOptions *options, const Names *names, int link, int waker);

#endif
