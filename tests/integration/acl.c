/* ACLs, beside the kernel's: the same lists on a region and on a file, the same users, the same
 * answers; and what is made below a default ACL is what mkdir(2) and open(2) make.
 *
 * Lists and modes are drawn at random; SHMD_TEST_SEED repeats a run.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/acl.h"

#define ROUNDS 150
#define STAFF 64201
#define VIDEO 64202
#define AUDIO 64203

/* -- chance ----------------------------------------------------------------------------- */

static uint64_t chance_state;

static uint32_t chance(uint32_t n) {
        return (uint32_t)test_random(&chance_state, n);
}

/* A complete list: sometimes no more than a mode, sometimes with a mask alone. */
static AclList random_list(void) {
        static const uint32_t users[] = { ALICE, BOB, CAROL }, groups[] = { STAFF, VIDEO, AUDIO, ALICE };
        AclList list = { .n = 0 };

        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_USER_OBJ, .perms = (uint8_t)chance(8) });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_GROUP_OBJ, .perms = (uint8_t)chance(8) });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_OTHER, .perms = (uint8_t)chance(8) });
        for (uint32_t i = 0; i < 3; ++i)
                if (chance(3) == 0)
                        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_USER, .id = users[i],
                                                              .perms = (uint8_t)chance(8) });
        for (uint32_t i = 0; i < 4; ++i)
                if (chance(3) == 0)
                        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_GROUP, .id = groups[i],
                                                              .perms = (uint8_t)chance(8) });
        if (list.n > 3 || chance(4) == 0)
                (void)acl_list_put(&list, (AclEntry){ .tag = ACL_MASK, .perms = (uint8_t)chance(8) });
        REQUIRE(acl_check(list.entries, list.n) == ACL_OK);
        return list;
}

/* -- the kernel's side ------------------------------------------------------------------ */

/* <linux/posix_acl_xattr.h>: little endian, as everything here. */
typedef struct KernelEntry {
        uint16_t tag;
        uint16_t perms;
        uint32_t id;
} KernelEntry;

typedef struct KernelAcl {
        uint32_t version;
        KernelEntry entries[ACL_ENTRIES_MAX];
} KernelAcl;

static const uint16_t kernel_tags[] = {
        [ACL_USER_OBJ] = 0x01, [ACL_USER] = 0x02, [ACL_GROUP_OBJ] = 0x04, [ACL_GROUP] = 0x08,
        [ACL_MASK] = 0x10, [ACL_OTHER] = 0x20,
};

static int kernel_set(const char *path, const char *name, const AclList *list) {
        KernelAcl acl = { .version = 2 };

        for (size_t i = 0; i < list->n; ++i) {
                const AclEntry *entry = &list->entries[i];

                acl.entries[i] = (KernelEntry){ kernel_tags[entry->tag], entry->perms,
                                                acl_tag_is_named(entry->tag) ? entry->id : UINT32_MAX };
        }
        return setxattr(path, name, &acl, 4 + list->n * sizeof(KernelEntry), 0) < 0 ? -errno : 0;
}

/* What the kernel says a file has; without an ACL, its mode. */
static AclList kernel_get(const char *path, const char *name) {
        AclList list = { .n = 0 };
        KernelAcl acl;
        ssize_t n = getxattr(path, name, &acl, sizeof(acl));
        struct stat st;

        REQUIRE(n >= 0 || errno == ENODATA, "%s", strerror(errno));
        for (ssize_t i = 0; n > 4 && i < (n - 4) / (ssize_t)sizeof(KernelEntry); ++i)
                for (unsigned int tag = ACL_USER_OBJ; tag <= ACL_OTHER; ++tag)
                        if (kernel_tags[tag] == acl.entries[i].tag)
                                (void)acl_list_put(&list, (AclEntry){
                                        .tag = (uint8_t)tag, .perms = (uint8_t)acl.entries[i].perms,
                                        .id = acl_tag_is_named(tag) ? acl.entries[i].id : ACL_NO_ID });
        if (list.n > 0 || strstr(name, "default"))
                return list;
        REQUIRE(stat(path, &st) == 0);
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_USER_OBJ, .perms = st.st_mode >> 6 & 7 });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_GROUP_OBJ, .perms = st.st_mode >> 3 & 7 });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_OTHER, .perms = st.st_mode & 7 });
        return list;
}

#define ACCESS_NAME "system.posix_acl_access"
#define DEFAULT_NAME "system.posix_acl_default"

/* -- scenes ----------------------------------------------------------------------------- */

static const struct {
        uid_t uid;
        gid_t gid;
        size_t n_groups;
        gid_t groups[2];
} users[] = {
        { ALICE, ALICE, 0, { 0 } },
        { BOB, BOB, 1, { STAFF } },
        { CAROL, VIDEO, 2, { STAFF, AUDIO } },
        { 64104, AUDIO, 0, { 0 } },
        { 64105, 64105, 2, { ALICE, VIDEO } },
        { 64106, 64106, 0, { 0 } },
};
#define N_USERS (sizeof(users) / sizeof(users[0]))

typedef struct Scene {
        Broker *broker;
        Client *root;
        Client *clients[N_USERS];
        char dir[64];           /* of the kernel */
        char file[96];
        char sub[96];
} Scene;

/* A folder of a file system with ACLs; "" if there is none. */
static bool folder_begin(Scene *scene) {
        static const char *const places[] = { "/dev/shm", "/tmp", "/var/tmp" };
        AclList list = { .n = 0 };

        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_USER_OBJ, .perms = 7 });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_USER, .id = BOB, .perms = 5 });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_GROUP_OBJ, .perms = 5 });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_MASK, .perms = 5 });
        (void)acl_list_put(&list, (AclEntry){ .tag = ACL_OTHER, .perms = 5 });
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); ++i) {
                (void)snprintf(scene->dir, sizeof(scene->dir), "%s/shmd-acl.XXXXXX", places[i]);
                if (!mkdtemp(scene->dir))
                        continue;
                if (kernel_set(scene->dir, ACCESS_NAME, &list) == 0 && chmod(scene->dir, 0755) == 0) {
                        REQUIRE(removexattr(scene->dir, ACCESS_NAME) == 0);
                        (void)snprintf(scene->file, sizeof(scene->file), "%s/x", scene->dir);
                        (void)snprintf(scene->sub, sizeof(scene->sub), "%s/d", scene->dir);
                        return true;
                }
                (void)rmdir(scene->dir);
        }
        return false;
}

static Scene scene_begin(void) {
        Scene scene = { .broker = NULL };

        test_needs_root();
        if (!folder_begin(&scene))
                test_skip("no file system here has ACLs");
        chance_state = test_seed();
        scene.broker = broker_spawn(NULL);
        scene.root = client_connect_as(scene.broker, 0, 0);
        for (size_t i = 0; i < N_USERS; ++i)
                scene.clients[i] = client_connect_with_groups(scene.broker, users[i].uid, users[i].gid,
                                                              users[i].groups, users[i].n_groups);
        return scene;
}

static void scene_end(Scene *scene) {
        REQUIRE(rmdir(scene->dir) == 0, "%s", strerror(errno));
        scene->root = client_free(scene->root);
        for (size_t i = 0; i < N_USERS; ++i)
                scene->clients[i] = client_free(scene->clients[i]);
        scene->broker = broker_stop(scene->broker);
}

/* From here on this process is that user to file systems, until it is root again (NULL). */
static void become(size_t user) {
        bool root = user == N_USERS;

        REQUIRE(syscall(SYS_setgroups, root ? 0 : users[user].n_groups, root ? NULL : users[user].groups) == 0);
        (void)setfsgid(root ? 0 : users[user].gid);
        (void)setfsuid(root ? 0 : users[user].uid);
        REQUIRE((uid_t)setfsuid((uid_t)-1) == (root ? 0 : users[user].uid));
}

/* -- our side --------------------------------------------------------------------------- */

static uint32_t call_set(Client *client, const char *path, uint32_t flags, const AclList *list) {
        bool defaults = flags == SHMD__ACL_FLAGS__ACL_DEFAULT;
        Shmd__AclEntry entries[ACL_ENTRIES_MAX], *pointers[ACL_ENTRIES_MAX];

        for (size_t i = 0; i < list->n; ++i) {
                shmd__acl_entry__init(&entries[i]);
                entries[i].tag = list->entries[i].tag;
                entries[i].id = list->entries[i].id;
                entries[i].perms = list->entries[i].perms;
                pointers[i] = &entries[i];
        }
        return client_call(client, MESSAGE_SET_ACL,
                           REQUEST(SetAcl, set_acl, .path = BYTES(path), .flags = flags,
                                   .n_access = defaults ? 0 : list->n, .access = defaults ? NULL : pointers,
                                   .n_defaults = defaults ? list->n : 0, .defaults = defaults ? pointers : NULL));
}

static void expect_equal(const char *what, const AclList *kernel, Shmd__AclEntry *const *ours, size_t n) {
        REQUIRE(kernel->n == n, "%s: the kernel has %zu entries, we have %zu", what, kernel->n, n);
        for (size_t i = 0; i < n; ++i)
                REQUIRE(kernel->entries[i].tag == ours[i]->tag && kernel->entries[i].id == ours[i]->id &&
                        kernel->entries[i].perms == ours[i]->perms, "%s: the kernel has %u:%u:%u, we have %u:%u:%u", what,
                        kernel->entries[i].tag, kernel->entries[i].id, kernel->entries[i].perms,
                        ours[i]->tag, ours[i]->id, ours[i]->perms);
}

/* The kernel's file and our node have the same mode, the same ACL and the same default ACL. */
static void expect_same(Scene *scene, const char *file, const char *path) {
        AclList access = kernel_get(file, ACCESS_NAME), defaults = { .n = 0 };
        const Shmd__AclReply *reply;
        struct stat st;

        client_expect_done(scene->root, client_call(scene->root, MESSAGE_GET_ACL,
                                                    REQUEST(GetAcl, get_acl, .path = BYTES(path))));
        reply = (const Shmd__AclReply *)scene->root->reply;
        REQUIRE(stat(file, &st) == 0);
        REQUIRE((st.st_mode & 01777) == reply->mode, "%o, we have %o", st.st_mode & 01777, reply->mode);
        expect_equal("ACL", &access, reply->access, reply->n_access);
        if (S_ISDIR(st.st_mode))
                defaults = kernel_get(file, DEFAULT_NAME);
        expect_equal("default ACL", &defaults, reply->defaults, reply->n_defaults);
}

static bool may_open(const char *path, int flags) {
        int fd = open(path, flags | O_CLOEXEC);

        REQUIRE(fd >= 0 || errno == EACCES, "%s", strerror(errno));
        if (fd >= 0)
                (void)close(fd);
        return fd >= 0;
}

static bool may(Client *client, uint32_t r) {
        REQUIRE(r == 0 || r == SHMD__ERROR__ERROR_DENIED, "%s", client_describe(client));
        return r == 0;
}

/* The kernel looks at no ACL with a mask of nothing, and so takes whoever is named for everybody else;
 * acl(5) says otherwise, and so do we. */
static bool is_comparable(const char *path) {
        struct stat st;

        REQUIRE(stat(path, &st) == 0);
        return st.st_mode & 070;
}

/* -- tests ------------------------------------------------------------------------------ */

static void compare_regions(Scene *scene) {
        if (!is_comparable(scene->file))
                return;
        for (size_t i = 0; i < N_USERS; ++i) {
                bool r, rw;

                become(i);
                r = may_open(scene->file, O_RDONLY);
                rw = may_open(scene->file, O_RDWR);
                become(N_USERS);
                REQUIRE(may(scene->clients[i], call_open(scene->clients[i], "/x", READ_ONLY, NULL)) == r,
                        "the kernel says %d, uid %u: %s", r, users[i].uid, client_describe(scene->clients[i]));
                REQUIRE(may(scene->clients[i], call_open(scene->clients[i], "/x", READ_WRITE, NULL)) == rw,
                        "the kernel says %d, uid %u: %s", rw, users[i].uid, client_describe(scene->clients[i]));
        }
}

TEST(acl, who_may_open_a_region_is_who_may_open_a_file) {
        Scene scene = scene_begin();
        int fd = open(scene.file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

        REQUIRE(fd >= 0 && fchown(fd, ALICE, STAFF) == 0 && close(fd) == 0);
        client_expect_done(scene.root, call_create(scene.root, "/x", 1, NULL));
        client_expect_done(scene.root, call_chown(scene.root, "/x", ALICE, STAFF));
        for (unsigned int round = 0; round < ROUNDS; ++round) {
                AclList list = random_list();
                mode_t mode = chance(01000);

                REQUIRE(kernel_set(scene.file, ACCESS_NAME, &list) == 0);
                client_expect_done(scene.root, call_set(scene.root, "/x", SHMD__ACL_FLAGS__ACL_ACCESS, &list));
                expect_same(&scene, scene.file, "/x");
                compare_regions(&scene);
                if (chance(2))
                        continue;
                REQUIRE(chmod(scene.file, mode) == 0);
                client_expect_done(scene.root, call_chmod(scene.root, "/x", mode));
                expect_same(&scene, scene.file, "/x");
                compare_regions(&scene);
        }
        REQUIRE(unlink(scene.file) == 0);
        scene_end(&scene);
}

TEST(acl, who_may_search_and_change_a_directory_as_well) {
        Scene scene = scene_begin();
        char inside[112], made[112];
        int fd;

        (void)snprintf(inside, sizeof(inside), "%s/x", scene.sub);
        (void)snprintf(made, sizeof(made), "%s/made", scene.sub);
        REQUIRE(mkdir(scene.sub, 0700) == 0 && chown(scene.sub, ALICE, STAFF) == 0);
        fd = open(inside, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        REQUIRE(fd >= 0 && close(fd) == 0);
        client_expect_done(scene.root, call_mkdir(scene.root, "/d", 0700));
        client_expect_done(scene.root, call_chown(scene.root, "/d", ALICE, STAFF));
        client_expect_done(scene.root, call_create(scene.root, "/d/x", 1, NULL));
        for (unsigned int round = 0; round < ROUNDS; ++round) {
                AclList list = random_list();

                REQUIRE(kernel_set(scene.sub, ACCESS_NAME, &list) == 0);
                client_expect_done(scene.root, call_set(scene.root, "/d", SHMD__ACL_FLAGS__ACL_ACCESS, &list));
                expect_same(&scene, scene.sub, "/d");
                for (size_t i = 0; is_comparable(scene.sub) && i < N_USERS; ++i) {
                        bool search, change;
                        struct stat st;

                        become(i);
                        search = stat(inside, &st) == 0;
                        change = mkdir(made, 0700) == 0 && rmdir(made) == 0;
                        become(N_USERS);
                        REQUIRE(may(scene.clients[i], call_stat(scene.clients[i], "/d/x")) == search,
                                "the kernel says %d, uid %u: %s", search, users[i].uid, client_describe(scene.clients[i]));
                        REQUIRE(may(scene.clients[i], call_mkdir(scene.clients[i], "/d/made", 0700)) == change);
                        REQUIRE(may(scene.clients[i], change ? call_rmdir(scene.clients[i], "/d/made") : 0));
                }
        }
        REQUIRE(unlink(inside) == 0 && rmdir(scene.sub) == 0);
        scene_end(&scene);
}

TEST(acl, what_is_made_below_a_default_acl_is_what_the_kernel_makes) {
        Scene scene = scene_begin();
        char file[112], dir[112];

        (void)snprintf(file, sizeof(file), "%s/x", scene.sub);
        (void)snprintf(dir, sizeof(dir), "%s/e", scene.sub);
        (void)umask(077);
        REQUIRE(mkdir(scene.sub, 0777) == 0 && chmod(scene.sub, 0777) == 0);
        client_expect_done(scene.root, call_mkdir(scene.root, "/d", 0777));
        for (unsigned int round = 0; round < ROUNDS; ++round) {
                mode_t region_mode = chance(01000), directory_mode = chance(02000);
                AclList list = random_list();
                uint64_t region;
                Grant grant;
                int fd;

                REQUIRE(kernel_set(scene.sub, DEFAULT_NAME, &list) == 0);
                client_expect_done(scene.root, call_set(scene.root, "/d", SHMD__ACL_FLAGS__ACL_DEFAULT, &list));
                fd = open(file, O_CREAT | O_RDWR | O_EXCL | O_CLOEXEC, region_mode);
                REQUIRE(fd >= 0 && close(fd) == 0 && mkdir(dir, directory_mode) == 0);
                client_expect_done(scene.root, call_create_mode(scene.root, "/d/x", 1, region_mode, NULL));
                client_expect_done(scene.root, call_mkdir(scene.root, "/d/e", directory_mode));
                expect_same(&scene, file, "/d/x");
                expect_same(&scene, dir, "/d/e");
                client_expect_done(scene.root, call_unlink(scene.root, "/d/x"));

                /* Published later: the same. */
                client_expect_done(scene.root, call_create_with(scene.root,
                                   REQUEST(Create, create, .size = 1, .mode = region_mode,
                                           .rights = READ_WRITE), &grant));
                region = grant.region;
                client_expect_done(scene.root, call_publish(scene.root, region, "/d/x", 0));
                expect_same(&scene, file, "/d/x");
                grant_deinit(&grant);
                client_expect_done(scene.root, call_unlink(scene.root, "/d/x"));
                client_expect_done(scene.root, call_rmdir(scene.root, "/d/e"));
                REQUIRE(unlink(file) == 0 && rmdir(dir) == 0);
        }
        REQUIRE(rmdir(scene.sub) == 0);
        scene_end(&scene);
}
