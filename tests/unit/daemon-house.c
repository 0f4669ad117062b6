/* The house without its front door: see the header for the model. */

#include "daemon-house.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/memfd.h"
#include "util/probe.h"

const Credentials house_admin = { .uid = 0, .gid = 0, .admin = true };

static bool is_connected(uint64_t session, void *userdata) {
        const House *house = userdata;

        return session == house->connected;
}

void house_open_forced(House *house) {
        static const Permissions root = { .uid = 0, .gid = 0, .mode = 01777 };

        memset(house, 0, sizeof(*house));
        house->rules.global.slots = house->rules.everybody.slots = LIMITS_ALL;
        for (size_t i = 0; i < _ACCOUNT_SLOT_N; ++i)
                house->rules.global.max[i] = house->rules.everybody.max[i] = QUOTA_UNLIMITED;
        deadlines_init(&house->deadlines);
        accounts_init(&house->accounts, &house->rules);
        grants_init(&house->grants, &house->deadlines, is_connected, house);
        REQUIRE(regions_init(&house->regions, &house->deadlines, &house->grants) == 0);
        REQUIRE(tree_init(&house->tree, &root) == 0);
}

void house_open(House *house) {
        REQUIRE(probe_run() == 0);
        house_open_forced(house);
}

static void empty_tree(Tree *tree) {
        Directory *directory = tree->root;

        while (directory) {
                Node *node = directory_any_child(directory);
                Directory *parent = directory->node.parent;

                if (node && !node_is_directory(node)) {
                        region_unlink(node->region);
                        continue;
                }
                if (!node && parent)
                        REQUIRE(tree_rmdir(tree, directory) == 0);
                directory = node ? node_directory(node) : parent;
        }
}

void house_close(House *house) {
        empty_tree(&house->tree);
        REQUIRE(house->regions.n_named == 0);
        regions_deinit(&house->regions);
        tree_deinit(&house->tree);
        grants_deinit(&house->grants);
        REQUIRE(accounts_are_balanced(&house->accounts));
        accounts_deinit(&house->accounts);
        deadlines_deinit(&house->deadlines);
}

void house_turn(House *house) {
        struct pollfd p = { .fd = regions_fd(&house->regions), .events = POLLIN };

        if (p.fd >= 0 && poll(&p, 1, 0) == 1)
                regions_dispatch(&house->regions);
        deadlines_run(&house->deadlines, time_now());
}

Account *house_account(House *house, uid_t uid) {
        Account *account;

        REQUIRE(accounts_ref_user(&house->accounts, uid, &account) == 0);
        return account;
}

Credentials house_who(uid_t uid) {
        return (Credentials){ .uid = uid, .gid = uid };
}

static Region *make_region(House *house, Account *owner, uint64_t size, RegionLifetime lifetime) {
        RegionSpec spec = { .size = size, .lifetime = lifetime,
                            .permissions = { .uid = owner->uid, .gid = owner->uid, .mode = 0600 } };
        Region *region;

        REQUIRE(region_new(&region, &house->regions, owner, &spec, NULL) == 0);
        return region;
}

Region *house_region(House *house, Account *owner, uint64_t size) {
        return make_region(house, owner, size, REGION_NAMED);
}

Spot house_spot(House *house, const char *path) {
        Spot spot;

        REQUIRE(tree_resolve(&house->tree, &house_admin, path, strlen(path), &spot) == 0, "%s", path);
        return spot;
}

Region *house_named_for(House *house, Account *owner, const char *path, uint64_t size, RegionLifetime lifetime) {
        Region *region = make_region(house, owner, size, lifetime);
        Spot spot = house_spot(house, path);

        REQUIRE(!spot.node && region_link(region, &spot, NULL) == 0, "%s", path);
        return region;
}

Region *house_named(House *house, Account *owner, const char *path, uint64_t size) {
        return house_named_for(house, owner, path, size, REGION_NAMED);
}

Directory *house_mkdir(House *house, Account *owner, const char *path, mode_t mode) {
        Permissions permissions = { .uid = owner->uid, .gid = owner->uid, .mode = mode };
        Spot spot = house_spot(house, path);
        Directory *directory;

        REQUIRE(!spot.node && tree_mkdir(&house->tree, &spot, owner, &permissions, NULL, &directory) == 0, "%s", path);
        return directory;
}

int house_hold(const Region *region, bool writable) {
        int fd;

        REQUIRE(memfd_reopen(region->fd, writable, &fd) == 0);
        return fd;
}

int house_fork(TestFn fn, void *userdata) {
        pid_t pid;

        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0, "fork: %s", strerror(errno));
        if (pid == 0) {
                static const struct rlimit none = { 0, 0 };

                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void)setrlimit(RLIMIT_CORE, &none);
                _exit(fn(userdata));
        }
        return test_wait_pid(pid);
}

void house_expect_signal(int signal, TestFn fn, void *userdata) {
        int status = house_fork(fn, userdata);

        REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == signal, "the child ended with status %#x", status);
}

void house_expect_child(TestFn fn, void *userdata) {
        int status = house_fork(fn, userdata);

        REQUIRE(status == 0, "the child ended with status %#x", status);
}

void house_deny(int error, int call, unsigned int n, const struct scmp_arg_cmp *conditions) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

        REQUIRE(filter);
        REQUIRE(seccomp_rule_add_array(filter, SCMP_ACT_ERRNO((uint16_t)error), call, n, conditions) == 0);
        REQUIRE(seccomp_load(filter) == 0);
        seccomp_release(filter);
}
