/* A client in a container: other user, pid, mount and network namespaces, and nothing of the
 * host's file system but the broker's socket, bind-mounted. Create, open, refuse and release
 * work, and the broker sees the uid that the host sees.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Root inside the container is this user outside. */
#define CONTAINER_UID 64301
#define CONTAINER_GID 64302

typedef struct Container {
        Broker *broker;
        char root[96];
        TestFn fn;
        int mapped[2];          /* the parent writes the maps, then tells */
        int unshared[2];
} Container;

static void write_text(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);

        REQUIRE(fd >= 0, "%s: %s", path, strerror(errno));
        REQUIRE(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path, strerror(errno));
        close_fd(fd);
}

/* A root directory with nothing but the socket in it. */
static void enter_root(Container *container) {
        char socket[128];

        REQUIRE(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "%s", strerror(errno));
        REQUIRE(mount("none", container->root, "tmpfs", 0, "mode=755") == 0, "%s", strerror(errno));
        (void)snprintf(socket, sizeof(socket), "%s/socket", container->root);
        close_fd(open(socket, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        REQUIRE(mount(container->broker->socket, socket, NULL, MS_BIND, NULL) == 0, "%s", strerror(errno));
        REQUIRE(chdir(container->root) == 0);
        REQUIRE(syscall(SYS_pivot_root, ".", ".") == 0, "%s", strerror(errno));
        REQUIRE(umount2(".", MNT_DETACH) == 0, "%s", strerror(errno));
        REQUIRE(chdir("/") == 0);
        REQUIRE(access("/proc", F_OK) == -1 && access("/tmp", F_OK) == -1 && access("/socket", F_OK) == 0);
}

static int run_inside(Container *container) {
        char byte;
        pid_t pid;
        int status;

        /* Become the user first, so that the namespace is its own. */
        REQUIRE(syscall(SYS_setgroups, 0, NULL) == 0);
        REQUIRE(syscall(SYS_setresgid, CONTAINER_GID, CONTAINER_GID, CONTAINER_GID) == 0);
        REQUIRE(syscall(SYS_setresuid, CONTAINER_UID, CONTAINER_UID, CONTAINER_UID) == 0);
        REQUIRE(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC) == 0, "%s",
                strerror(errno));
        REQUIRE(write(container->unshared[1], "", 1) == 1);
        REQUIRE(read(container->mapped[0], &byte, 1) == 1);
        REQUIRE(syscall(SYS_setresgid, 0, 0, 0) == 0 && syscall(SYS_setresuid, 0, 0, 0) == 0, "%s", strerror(errno));
        REQUIRE(geteuid() == 0);
        enter_root(container);

        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                REQUIRE(getpid() == 1, "the first of a new pid namespace");
                (void)snprintf(container->broker->socket, sizeof(container->broker->socket), "/socket");
                _exit(container->fn(container->broker));
        }
        REQUIRE(waitpid(pid, &status, 0) == pid);
        return status == 0 ? 0 : 1;
}

static void write_maps(pid_t pid) {
        char path[64], text[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/setgroups", (int)pid);
        write_text(path, "deny");
        (void)snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)pid);
        (void)snprintf(text, sizeof(text), "0 %d 1\n", CONTAINER_UID);
        write_text(path, text);
        (void)snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)pid);
        (void)snprintf(text, sizeof(text), "0 %d 1\n", CONTAINER_GID);
        write_text(path, text);
}

static void run_in_container(Broker *broker, TestFn fn) {
        Container container = { .broker = broker, .fn = fn };
        char byte;
        pid_t pid;

        test_needs_namespaces(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC);
        (void)snprintf(container.root, sizeof(container.root), "%s/root", broker->dir);
        REQUIRE(mkdir(container.root, 0755) == 0);
        REQUIRE(chmod(container.root, 0777) == 0);
        REQUIRE(pipe2(container.mapped, O_CLOEXEC) == 0 && pipe2(container.unshared, O_CLOEXEC) == 0);
        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                close_fd(container.mapped[1]);
                close_fd(container.unshared[0]);
                _exit(run_inside(&container));
        }
        close_fd(container.mapped[0]);
        close_fd(container.unshared[1]);
        if (read(container.unshared[0], &byte, 1) == 1) {
                write_maps(pid);
                REQUIRE(write(container.mapped[1], "", 1) == 1);
        }
        close_fd(container.mapped[1]);
        close_fd(container.unshared[0]);
        int status = test_wait_pid(pid);
        REQUIRE(status == 0, "what ran in the container ended with %#x", status);
}

static int create_open_refuse_release(void *userdata) {
        Client *client = client_connect_as(userdata, 0, 0);
        Grant mine = GRANT_NULL, given = GRANT_NULL;
        char byte;
        char *memory;

        /* Root in here is a user out there, and no administrator. */
        REQUIRE(client->hello.uid == CONTAINER_UID && !client->hello.admin, "uid %u", client->hello.uid);
        client_expect_done(client, call_create_mode(client, "/from-inside", PAGE, 0644, &mine));
        REQUIRE(pwrite(mine.fd, "in", 2, 0) == 2);

        client_expect_done(client, call_open(client, "/from-outside", READ_ONLY, &given));
        memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, given.fd, 0);
        REQUIRE(memory != MAP_FAILED && memcmp(memory, "out", 3) == 0);
        REQUIRE(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, given.fd, 0) == MAP_FAILED && errno == EACCES);
        REQUIRE(fchmod(given.fd, 0666) == -1 && errno == EPERM);
        REQUIRE(ftruncate(given.fd, 0) == -1);

        client_expect_error(client, DENIED, REGION_WRITE, call_open(client, "/from-outside", READ_WRITE, NULL));
        client_expect_error(client, DENIED, REGION_READ, call_open(client, "/private", READ_ONLY, NULL));
        client_expect_error(client, DENIED, SEARCH, call_open(client, "/hidden/x", READ_ONLY, NULL));
        client_expect_error(client, DENIED, STICKY, call_unlink(client, "/private"));
        client_expect_error(client, DENIED, ADMIN, call_chown(client, "/from-inside", 0, -1));

        REQUIRE(pread(mine.fd, &byte, 1, 0) == 1 && byte == 'i');
        REQUIRE(munmap(memory, PAGE) == 0);
        grant_deinit(&mine);
        grant_deinit(&given);
        client = client_free(client);
        return 0;
}

TEST(namespaces, a_container_with_nothing_but_the_socket_creates_opens_is_refused_and_releases) {
        Broker *broker;
        Client *alice, *root;
        Grant grant = GRANT_NULL, inside = GRANT_NULL;
        char socket[96], bytes[2];

        test_needs_root();
        broker = broker_spawn(NULL);
        alice = client_connect_as(broker, ALICE, ALICE);
        root = client_connect_as(broker, 0, 0);
        client_expect_done(alice, call_create_mode(alice, "/from-outside", PAGE, 0644, &grant));
        REQUIRE(pwrite(grant.fd, "out", 3, 0) == 3);
        client_expect_done(alice, call_create_mode(alice, "/private", PAGE, 0600, NULL));
        client_expect_done(alice, call_mkdir(alice, "/hidden", 0700));

        memcpy(socket, broker->socket, sizeof(socket));
        run_in_container(broker, create_open_refuse_release);
        REQUIRE(strcmp(socket, broker->socket) == 0);

        client_expect_done(alice, call_open(alice, "/from-inside", READ_ONLY, &inside));
        REQUIRE(pread(inside.fd, bytes, 2, 0) == 2 && memcmp(bytes, "in", 2) == 0);
        client_expect_done(alice, call_stat(alice, "/from-inside"));
        REQUIRE(((Shmd__StatReply *)alice->reply)->node->uid == CONTAINER_UID);
        REQUIRE(((Shmd__StatReply *)alice->reply)->node->gid == CONTAINER_GID);
        grant_deinit(&inside);
        client_expect_done(root, call_unlink(root, "/from-inside"));
        grant_deinit(&grant);
        alice = client_free(alice);
        root = client_free(root);
        broker = broker_stop(broker);
}

static int hold_without_a_name(void *userdata) {
        Client *client = client_connect_as(userdata, 0, 0);
        Grant grant = GRANT_NULL;
        char *memory;

        client_expect_done(client, call_create(client, NULL, 4 * PAGE, &grant));
        memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grant.fd, 0);
        REQUIRE(memory != MAP_FAILED);
        memset(memory, 1, 4 * PAGE);
        grant_deinit(&grant);
        REQUIRE(client_used(client, SHMD__SLOT__SLOT_BYTES) == 4 * PAGE);

        /* It ends with the mapping in place: as if the container had been killed. */
        return 0;
}

static uint64_t used_by_container(Client *root) {
        Shmd__DfReply *reply;

        client_expect_done(root, client_call(root, MESSAGE_DF,
                                             REQUEST(Df, df, .set_uid = 1, .uid = CONTAINER_UID)));
        reply = (Shmd__DfReply *)root->reply;
        REQUIRE(reply->n_accounts == 1);
        for (size_t i = 0; i < reply->accounts[0]->n_slots; ++i)
                if (reply->accounts[0]->slots[i]->slot == SHMD__SLOT__SLOT_BYTES)
                        return reply->accounts[0]->slots[i]->used;
        return UINT64_MAX;
}

static bool container_uses_nothing(void *root) {
        return used_by_container(root) == 0;
}

TEST(namespaces, what_a_container_held_is_given_back_when_it_ends) {
        Broker *broker;
        Client *root;

        test_needs_root();
        broker = broker_spawn(NULL);
        root = client_connect_as(broker, 0, 0);
        run_in_container(broker, hold_without_a_name);
        REQUIRE(test_eventually(container_uses_nothing, root));
        root = client_free(root);
        broker = broker_stop(broker);
}
