/* What the unit tests of the daemon share: the house without its front door, and children that
 * may die.
 *
 * A House is the core as the broker has it (accounts, names, grants, regions, deadlines), real
 * memfds, leases and inotify included, but no sockets: a test is the loop. Everything is without
 * limit until the test sets one.
 */
#ifndef TESTS_UNIT_DAEMON_HOUSE_H
#define TESTS_UNIT_DAEMON_HOUSE_H

#include <seccomp.h>

#include "acct/account.h"
#include "acct/quota.h"
#include "core/grant.h"
#include "core/region.h"
#include "core/tree.h"
#include "lib/test.h"
#include "util/deadline.h"

#define PAGE UINT64_C(4096)

typedef struct House {
        Deadlines deadlines;
        Rules rules;
        Accounts accounts;
        Grants grants;
        Regions regions;
        Tree tree;
        uint64_t connected;     /* the one session that is there; 0: none */
} House;

/* Moves in: probes the kernel unless the test has forced what it wants before. */
void house_open(House *house);
void house_open_forced(House *house);
/* Takes every name away, as the broker does when it ends, and lets the modules check their books. */
void house_close(House *house);

/* One turn of the loop, as of now: what inotify said, then what is due. */
void house_turn(House *house);
/* Turns until the condition holds; the test fails if it never does. */
#define house_until(house, condition)                                                   \
        do {                                                                            \
                int64_t house_end = test_now_ms() + TEST_PATIENCE_MS;                   \
                                                                                        \
                while (!(condition)) {                                                  \
                        REQUIRE(test_now_ms() < house_end, "never: " #condition);       \
                        house_turn(house);                                              \
                        test_sleep_ms(1);                                               \
                }                                                                       \
        } while (0)

/* The account of a uid; the reference is the test's. */
Account *house_account(House *house, uid_t uid);
/* Who a uid is, with its own number as its group and nothing else. */
Credentials house_who(uid_t uid);
extern const Credentials house_admin;

/* A region of `size` bytes owned by the account, and one with a name. */
Region *house_region(House *house, Account *owner, uint64_t size);
Region *house_named(House *house, Account *owner, const char *path, uint64_t size);
Region *house_named_for(House *house, Account *owner, const char *path, uint64_t size, RegionLifetime lifetime);
Directory *house_mkdir(House *house, Account *owner, const char *path, mode_t mode);
/* A spot, resolved by an administrator. */
Spot house_spot(House *house, const char *path);
/* Opens a description of the region the way a grant does, without the books. */
int house_hold(const Region *region, bool writable);

/* Forks a child for fn. Return: waitpid(2)'s status; fn's result is the exit status. */
int house_fork(TestFn fn, void *userdata);
/* Requires that fn ends its process by that signal. */
void house_expect_signal(int signal, TestFn fn, void *userdata);
/* Requires that fn runs to its end in a process of its own, and returns 0. */
void house_expect_child(TestFn fn, void *userdata);

/* From here on this process (a child) gets an errno from a system call, on up to two conditions. */
void house_deny(int error, int call, unsigned int n, const struct scmp_arg_cmp *conditions);

#endif
