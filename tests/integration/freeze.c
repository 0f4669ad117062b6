/* Freezing: what the kernel refuses afterwards, to whom, and what a hostile holder can delay.
 *
 * The clients here add the seals themselves, as the library does.
 */

#include "lib/client.h"
#include "lib/innocent.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SIZE (4 * PAGE)
#define IMMUTABLE SHMD__FREEZE_HOW__FREEZE_IMMUTABLE
#define SINGLE_WRITER SHMD__FREEZE_HOW__FREEZE_SINGLE_WRITER

typedef struct Scene {
        Broker *broker;
        Client *alice, *bob, *root;
        Grant alices;
} Scene;

static Scene scene_begin_with(const char *config) {
        Scene scene = { .alices = GRANT_NULL };

        test_needs_root();
        scene.broker = broker_spawn(config);
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        scene.bob = client_connect_as(scene.broker, BOB, BOB);
        scene.root = client_connect_as(scene.broker, 0, 0);
        return scene;
}

static Scene scene_begin(void) {
        return scene_begin_with(NULL);
}

static void scene_end(Scene *scene) {
        grant_deinit(&scene->alices);
        scene->alice = client_free(scene->alice);
        scene->bob = client_free(scene->bob);
        scene->root = client_free(scene->root);
        scene->broker = broker_stop(scene->broker);
}

static void make(Client *client, const char *path, uint64_t size, Grant *grant) {
        client_expect_done(client,
                           call_create_with(client,
                                            REQUEST(Create, create, .path = BYTES(path ? path : ""), .size = size,
                                                    .mode = 0666, .rights = READ_WRITE,
                                                    .flags = SHMD__CREATE_FLAGS__CREATE_FREEZABLE),
                                            grant));
        REQUIRE(size == 0 || pwrite(grant->fd, "frozen", 6, 0) == 6);
}

static uint32_t call_freeze(Client *client, const char *path, uint32_t how) {
        return client_call(client, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES(path), .how = how));
}

static uint32_t call_freeze_id(Client *client, uint64_t region, uint32_t how) {
        return client_call(client, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .region = region, .how = how));
}

static uint32_t answered_seals(const Client *client) {
        return ((const Shmd__FreezeReply *)client->reply)->seals;
}

static void require_content(int fd) {
        char text[7] = "";

        REQUIRE(pread(fd, text, 6, 0) == 6 && strcmp(text, "frozen") == 0, "%s", text);
}

/* -- immutable ------------------------------------------------------------------------------ */

/* Everything that changes bytes of a file, or asks for a way to. */
static void require_cannot_write(int fd) {
        void *map;
        int other;

        REQUIRE(pwrite(fd, "x", 1, 0) == -1 && (errno == EPERM || errno == EBADF), "pwrite: %s", strerror(errno));
        REQUIRE(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)PAGE) == -1, "punched");
        REQUIRE(ftruncate(fd, 0) == -1 && ftruncate(fd, (off_t)(2 * SIZE)) == -1, "another size");
        REQUIRE(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED, "mapped for writing");
        map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) {
                REQUIRE(mprotect(map, SIZE, PROT_READ | PROT_WRITE) == -1, "a mapping became writable");
                REQUIRE(madvise(map, SIZE, MADV_REMOVE) == -1, "removed");
                REQUIRE(munmap(map, SIZE) == 0);
        }
        other = memfd_create("other", MFD_CLOEXEC);
        REQUIRE(other >= 0 && ftruncate(other, (off_t)PAGE) == 0);
        REQUIRE(copy_file_range(other, NULL, fd, NULL, PAGE, 0) <= 0, "copied over");
        other = close_fd(other);
        require_content(fd);
}

static int reopen_and_write(void *userdata) {
        int fd = *(int *)userdata, own;
        char path[64];

        require_cannot_write(fd);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        own = open(path, O_RDWR | O_CLOEXEC);
        if (own >= 0)
                require_cannot_write(own);
        own = close_fd(own);
        return 0;
}

TEST(freeze, of_an_immutable_region_nobody_changes_a_byte_with_any_grant_or_privilege) {
        Scene scene = scene_begin();
        Grant before = GRANT_NULL, after = GRANT_NULL;
        const uid_t uids[] = { ALICE, BOB, test_broker_uid(), 0 };

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, &before));
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        REQUIRE((answered_seals(scene.alice) & (F_SEAL_WRITE | F_SEAL_SEAL)) == (F_SEAL_WRITE | F_SEAL_SEAL));
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &after));
        for (size_t i = 0; i < sizeof(uids) / sizeof(*uids); ++i) {
                REQUIRE(run_as(uids[i], uids[i], reopen_and_write, &scene.alices.fd) == 0);
                REQUIRE(run_as(uids[i], uids[i], reopen_and_write, &before.fd) == 0);
                REQUIRE(run_as(uids[i], uids[i], reopen_and_write, &after.fd) == 0);
        }
        grant_deinit(&before);
        grant_deinit(&after);
        scene_end(&scene);
}

TEST(freeze, no_seal_can_be_added_to_a_frozen_region) {
        Scene scene = scene_begin();

        make(scene.alice, "/r", SIZE, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0, "not sealed against seals yet");
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", SINGLE_WRITER));
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == -1 && errno == EPERM);
        scene_end(&scene);
}

TEST(freeze, a_region_that_is_mapped_for_writing_is_busy) {
        Scene scene = scene_begin();
        Grant bobs = GRANT_NULL;
        void *map;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, &bobs));
        map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, bobs.fd, 0);
        REQUIRE(map != MAP_FAILED);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == -1 && errno == EBUSY);
        client_expect_error(scene.alice, INVALID, SEALS, call_freeze(scene.alice, "/r", IMMUTABLE));
        REQUIRE(munmap(map, SIZE) == 0);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        grant_deinit(&bobs);
        scene_end(&scene);
}

TEST(freeze, readers_keep_what_they_have_mapped) {
        Scene scene = scene_begin();
        Grant bobs = GRANT_NULL;
        char *map;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &bobs));
        map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, bobs.fd, 0);
        REQUIRE(map != MAP_FAILED);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        REQUIRE(memcmp(map, "frozen", 6) == 0 && munmap(map, SIZE) == 0);
        grant_deinit(&bobs);
        scene_end(&scene);
}

/* -- single writer -------------------------------------------------------------------------- */

TEST(freeze, a_single_writer_goes_on_and_nobody_else_begins) {
        Scene scene = scene_begin();
        Grant bobs = GRANT_NULL, reader = GRANT_NULL;
        char *map;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, &bobs));
        map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, scene.alices.fd, 0);
        REQUIRE(map != MAP_FAILED);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", SINGLE_WRITER));
        REQUIRE(answered_seals(scene.alice) & F_SEAL_FUTURE_WRITE);

        require_cannot_write(bobs.fd);
        require_cannot_write(scene.alices.fd);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &reader));
        memcpy(map + PAGE, "goes on", 7);
        char text[7];
        REQUIRE(pread(reader.fd, text, 7, (off_t)PAGE) == 7 && memcmp(text, "goes on", 7) == 0);
        REQUIRE(munmap(map, SIZE) == 0);
        grant_deinit(&bobs);
        grant_deinit(&reader);
        scene_end(&scene);
}

static int write_and_wait(void *userdata) {
        int fd = *(int *)userdata;
        char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        REQUIRE(map != MAP_FAILED);
        child_arrive(0);
        return 0;
}

TEST(freeze, attack_071_a_writer_that_crashed_cannot_come_back_but_a_new_region_takes_its_place) {
        Scene scene = scene_begin();
        Grant again = GRANT_NULL, reader = GRANT_NULL;
        Child writer = CHILD_NULL;

        make(scene.alice, "/r", SIZE, &scene.alices);
        child_spawn(&writer, write_and_wait, &scene.alices.fd);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", SINGLE_WRITER));
        child_kill(&writer);

        require_cannot_write(scene.alices.fd);
        client_expect_error(scene.alice, DENIED, FROZEN, call_open(scene.alice, "/r", READ_WRITE, NULL));
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &reader));
        require_content(reader.fd);

        make(scene.alice, NULL, SIZE, &again);
        client_expect_done(scene.alice,
                           call_publish(scene.alice, again.region, "/r", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        REQUIRE(pwrite(again.fd, "anew", 4, 0) == 4);
        require_content(reader.fd);
        grant_deinit(&again);
        grant_deinit(&reader);
        scene_end(&scene);
}

/* Opens a read-only grant again for writing, as a process of the broker's own uid can. */
static int write_as_broker(void *userdata) {
        int fd = *(int *)userdata, own;
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        own = open(path, O_RDWR | O_CLOEXEC);
        REQUIRE(own >= 0, "%s", strerror(errno));
        return pwrite(own, "x", 1, 0) == 1 ? 1 : 0;
}

TEST(freeze, attack_069_against_the_brokers_own_uid_a_region_is_protected_once_it_is_frozen) {
        Scene scene = scene_begin();
        Grant plain = GRANT_NULL, frozen = GRANT_NULL;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &plain));
        REQUIRE(run_as(test_broker_uid(), test_broker_uid(), write_as_broker, &plain.fd) == 1, "so shmd(8) says");
        REQUIRE(pwrite(scene.alices.fd, "frozen", 6, 0) == 6);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", SINGLE_WRITER));
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, &frozen));
        REQUIRE(run_as(test_broker_uid(), test_broker_uid(), write_as_broker, &frozen.fd) == 0);
        require_content(frozen.fd);
        grant_deinit(&plain);
        grant_deinit(&frozen);
        scene_end(&scene);
}

/* -- who and what ----------------------------------------------------------------------------- */

TEST(freeze, only_the_owner_or_an_administrator_freezes) {
        Scene scene = scene_begin();

        make(scene.alice, "/r", SIZE, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_error(scene.bob, DENIED, OWNER, call_freeze(scene.bob, "/r", IMMUTABLE));
        client_expect_error(scene.bob, NOT_FOUND, MISSING, call_freeze_id(scene.bob, scene.alices.region, IMMUTABLE));
        client_expect_error(scene.bob, NOT_FOUND, MISSING, call_freeze(scene.bob, "/none", IMMUTABLE));
        client_expect_done(scene.root, call_freeze_id(scene.root, scene.alices.region, IMMUTABLE));
        scene_end(&scene);
}

TEST(freeze, a_region_without_a_name_is_frozen_by_its_number) {
        Scene scene = scene_begin();

        make(scene.alice, NULL, SIZE, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze_id(scene.alice, scene.alices.region, IMMUTABLE));
        client_expect_done(scene.alice, call_publish(scene.alice, scene.alices.region, "/p", 0));
        client_expect_done(scene.alice, call_stat(scene.alice, "/p"));
        REQUIRE(((Shmd__StatReply *)scene.alice->reply)->node->seals & F_SEAL_SEAL);
        scene_end(&scene);
}

TEST(freeze, requests_that_make_no_sense_say_why) {
        Scene scene = scene_begin();
        Grant plain = GRANT_NULL;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.alice, call_create(scene.alice, "/plain", PAGE, &plain));
        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0755));
        client_expect_error(scene.alice, INVALID, NOT_FREEZABLE, call_freeze(scene.alice, "/plain", IMMUTABLE));
        client_expect_error(scene.alice, INVALID, SEALS, call_freeze(scene.alice, "/r", IMMUTABLE));
        client_expect_error(scene.alice, INVALID, SEALS, call_freeze(scene.alice, "/r", SINGLE_WRITER));
        client_expect_error(scene.alice, INVALID, MALFORMED, call_freeze(scene.alice, "/r", 2));
        client_expect_error(scene.alice, INVALID, MALFORMED, call_freeze_id(scene.alice, 0, IMMUTABLE));
        client_expect_error(scene.alice, INVALID, MALFORMED,
                            client_call(scene.alice, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES("/r"),
                                                                             .region = scene.alices.region)));
        client_expect_error(scene.alice, IS_DIRECTORY, TAKEN, call_freeze(scene.alice, "/d", IMMUTABLE));
        REQUIRE(fcntl(scene.alices.fd, F_GET_SEALS) == (fcntl(plain.fd, F_GET_SEALS) & ~F_SEAL_SEAL));
        grant_deinit(&plain);
        scene_end(&scene);
}

TEST(freeze, the_same_way_again_is_nothing_and_the_other_way_is_refused) {
        Scene scene = scene_begin();

        make(scene.alice, "/r", SIZE, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        for (int i = 0; i < 3; ++i)
                client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        client_expect_error(scene.alice, EXISTS, FROZEN, call_freeze(scene.alice, "/r", SINGLE_WRITER));
        scene_end(&scene);
}

TEST(freeze, nobody_gets_a_read_write_grant_of_a_frozen_region) {
        Scene scene = scene_begin();

        make(scene.alice, "/r", SIZE, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, NULL));
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        client_expect_error(scene.bob, DENIED, FROZEN, call_open(scene.bob, "/r", READ_WRITE, NULL));
        client_expect_error(scene.alice, DENIED, FROZEN, call_open(scene.alice, "/r", READ_WRITE, NULL));
        client_expect_error(scene.root, DENIED, FROZEN, call_open(scene.root, "/r", READ_WRITE, NULL));
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_ONLY, NULL));
        scene_end(&scene);
}

TEST(freeze, what_a_writer_sealed_by_itself_is_shown_and_can_be_completed) {
        Scene scene = scene_begin();
        Grant bobs = GRANT_NULL;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, &bobs));
        REQUIRE(fcntl(bobs.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, call_stat(scene.alice, "/r"));
        uint32_t seals = ((Shmd__StatReply *)scene.alice->reply)->node->seals;
        REQUIRE(seals & F_SEAL_WRITE && !(seals & F_SEAL_SEAL), "%#x", seals);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        REQUIRE(answered_seals(scene.alice) & F_SEAL_SEAL);
        grant_deinit(&bobs);
        scene_end(&scene);
}

TEST(freeze, who_waits_hears_of_a_freeze_also_if_a_writer_added_every_seal) {
        Scene scene = scene_begin();
        Grant bobs = GRANT_NULL;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, &bobs));
        (void)client_send(scene.bob, MESSAGE_WAIT,
                          REQUEST(Wait, wait, .path = BYTES("/r"), .until = SHMD__WAIT_FOR__WAIT_FROZEN,
                                  .timeout_ns = UINT64_MAX));
        REQUIRE(client_receive(scene.bob, 50) == CLIENT_SILENT, "it is not frozen");
        REQUIRE(fcntl(bobs.fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        REQUIRE(client_receive(scene.bob, TEST_PATIENCE_MS) == CLIENT_REPLY, "%s", client_describe(scene.bob));
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        REQUIRE(client_receive(scene.bob, 50) == CLIENT_SILENT, "once is enough");
        grant_deinit(&bobs);
        scene_end(&scene);
}

TEST(freeze, what_a_writer_sealed_against_sealing_cannot_be_frozen) {
        Scene scene = scene_begin();
        Grant bobs = GRANT_NULL;

        make(scene.alice, "/r", SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, &bobs));
        REQUIRE(fcntl(bobs.fd, F_ADD_SEALS, F_SEAL_SEAL) == 0);
        client_expect_error(scene.alice, INVALID, SEALS, call_freeze(scene.alice, "/r", IMMUTABLE));
        REQUIRE(strstr(client_describe(scene.alice), "a writer has sealed"), "%s", client_describe(scene.alice));
        client_expect_done(scene.alice, call_open(scene.alice, "/r", READ_WRITE, NULL));
        grant_deinit(&bobs);
        scene_end(&scene);
}

TEST(freeze, an_empty_region_can_be_frozen) {
        Scene scene = scene_begin();

        make(scene.alice, "/r", 0, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
        scene_end(&scene);
}

typedef struct Frozen {
        Client *client;
        const char *path;
} Frozen;

static bool is_frozen(void *userdata) {
        const Frozen *frozen = userdata;

        client_expect_done(frozen->client, call_stat(frozen->client, frozen->path));
        return ((Shmd__StatReply *)frozen->client->reply)->node->seals & F_SEAL_SEAL;
}

TEST(freeze, what_was_asked_is_done_also_when_the_asker_has_gone) {
        Scene scene = scene_begin();
        Client *leaver = client_connect_as(scene.broker, ALICE, ALICE);
        Frozen frozen = { scene.alice, "/r" };

        make(scene.alice, "/r", SIZE, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        (void)client_send(leaver, MESSAGE_FREEZE, REQUEST(Freeze, freeze, .path = BYTES("/r")));
        leaver = client_free(leaver);
        REQUIRE(test_eventually(is_frozen, &frozen));
        scene_end(&scene);
}

TEST(freeze, frozen_regions_give_their_charge_back_when_nobody_holds_them) {
        Scene scene = scene_begin();

        for (unsigned int i = 0; i < 2; ++i) {
                uint64_t size = i == 0 ? SIZE : 64u << 20;

                make(scene.alice, "/r", size, &scene.alices);
                REQUIRE(fallocate(scene.alices.fd, 0, 0, (off_t)size) == 0);
                REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
                client_expect_done(scene.alice, call_freeze(scene.alice, "/r", IMMUTABLE));
                client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
                REQUIRE(client_used(scene.alice, SHMD__SLOT__SLOT_BYTES) == size);
                grant_deinit(&scene.alices);
                client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        }
        scene_end(&scene);
}

/* It cannot be emptied, and no lease tells of such a descriptor. */
TEST(freeze, a_frozen_region_stays_charged_while_a_descriptor_that_cannot_read_keeps_it) {
        Scene scene = scene_begin();

        for (unsigned int i = 0; i < 2; ++i) {
                uint64_t size = i == 0 ? SIZE : 64u << 20;
                struct stat st;
                char path[64];
                int inode;

                make(scene.alice, NULL, size, &scene.alices);
                REQUIRE(fallocate(scene.alices.fd, 0, 0, (off_t)size) == 0);
                REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
                client_expect_done(scene.alice, call_freeze_id(scene.alice, scene.alices.region, IMMUTABLE));
                (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", scene.alices.fd);
                inode = open(path, O_PATH | O_CLOEXEC);
                REQUIRE(inode >= 0);
                grant_deinit(&scene.alices);
                test_sleep_ms(300);
                REQUIRE(fstat(inode, &st) == 0 && (uint64_t)st.st_blocks * 512 == size);
                REQUIRE(client_used(scene.alice, SHMD__SLOT__SLOT_BYTES) == size, "its memory is in use, and not charged");
                inode = close_fd(inode);
                client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        }
        scene_end(&scene);
}

/* -- the helper ------------------------------------------------------------------------------- */

/* The nth child of a process, 0 for none. */
static pid_t child_of(pid_t parent, unsigned int n) {
        char path[64];
        FILE *file;
        int pid = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
        file = fopen(path, "re");
        if (!file)
                test_skip("this kernel does not list the children of a process");
        for (unsigned int i = 0; i <= n; ++i)
                if (fscanf(file, "%d", &pid) != 1)
                        pid = 0;
        (void)fclose(file);
        return pid;
}

static void freeze_one(Client *client, const char *path) {
        Grant grant = GRANT_NULL;

        make(client, path, SIZE, &grant);
        REQUIRE(fcntl(grant.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_done(client, call_freeze(client, path, IMMUTABLE));
        grant_deinit(&grant);
}

TEST(freeze, attack_098_a_worker_that_is_killed_is_replaced) {
        Scene scene = scene_begin();
        pid_t supervisor = child_of(scene.broker->pid, 0), worker;
        char path[16];

        REQUIRE(supervisor > 0 && child_of(supervisor, 0) == 0, "no worker before there is work");
        for (unsigned int i = 0; i < 20; ++i) {
                (void)snprintf(path, sizeof(path), "/r%u", i);
                freeze_one(scene.alice, path);
                worker = child_of(supervisor, 0);
                REQUIRE(worker > 0 && kill(worker, SIGKILL) == 0);
        }
        freeze_one(scene.alice, "/last");
        REQUIRE(child_of(supervisor, 2) == 0, "workers pile up");
        scene_end(&scene);
}

TEST(freeze, attack_098_without_its_supervisor_the_broker_freezes_nothing_and_serves_on) {
        Scene scene = scene_begin();
        pid_t supervisor = child_of(scene.broker->pid, 0);

        freeze_one(scene.alice, "/a");
        REQUIRE(supervisor > 0 && kill(supervisor, SIGKILL) == 0);
        broker_expect_log(scene.broker, "event=helper", "has ended");
        make(scene.alice, "/b", SIZE, &scene.alices);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        client_expect_error(scene.alice, UNSUPPORTED, HELPER, call_freeze(scene.alice, "/b", IMMUTABLE));
        client_expect_done(scene.alice, call_freeze(scene.alice, "/a", IMMUTABLE));
        client_expect_done(scene.alice, call_ping(scene.alice));
        scene_end(&scene);
}

/* A holder whose threads keep the inode's lock, one after the other. */
#define HOSTILE_SIZE (UINT64_C(256) << 20)
#define HOSTILE_THREADS 16

static void *keep_locked(void *userdata) {
        int fd = *(int *)userdata;

        for (;;)
                (void)fallocate(fd, 0, 0, (off_t)HOSTILE_SIZE);
        return NULL;
}

static int be_hostile(void *userdata) {
        pthread_t threads[HOSTILE_THREADS];

        for (size_t i = 0; i < HOSTILE_THREADS; ++i)
                REQUIRE(pthread_create(&threads[i], NULL, keep_locked, userdata) == 0);
        child_arrive(0);
        return 0;
}

/* Freezes what the helper may be late for: on a busy machine that takes no holder.
 * Return: how often it was. */
static unsigned int freeze_patiently(Client *client, const char *path) {
        int64_t end = test_now_ms() + TEST_PATIENCE_MS;
        unsigned int n_late = 0;
        uint32_t error;

        for (; (error = call_freeze(client, path, IMMUTABLE)) != 0; ++n_late) {
                client_expect_error(client, BUSY, HELPER, error);
                REQUIRE(test_now_ms() < end, "%s is not frozen", path);
                test_sleep_ms(10);
        }
        return n_late;
}

static void freeze_another(Client *client, const char *path) {
        Grant grant = GRANT_NULL;
        unsigned int n_late;

        make(client, path, SIZE, &grant);
        REQUIRE(fcntl(grant.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        n_late = freeze_patiently(client, path);
        if (n_late > 0)
                printf("%s came too late %u times\n", path, n_late);
        grant_deinit(&grant);
}

TEST(freeze, a_holder_that_keeps_the_kernel_from_sealing_delays_only_its_own_region) {
        Scene scene = scene_begin_with("[time]\nhelper = 20ms\n");
        Client *carol = client_connect_as(scene.broker, CAROL, CAROL);
        Grant bobs = GRANT_NULL;
        Child hostile = CHILD_NULL;
        Innocent innocent;
        uint32_t error;
        unsigned int n_late = 0;
        char path[16];

        make(scene.alice, "/r", HOSTILE_SIZE, &scene.alices);
        client_expect_done(scene.bob, call_open(scene.bob, "/r", READ_WRITE, &bobs));
        REQUIRE(fallocate(bobs.fd, 0, 0, (off_t)HOSTILE_SIZE) == 0);
        REQUIRE(fcntl(scene.alices.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        child_spawn(&hostile, be_hostile, &bobs.fd);
        innocent_start(&innocent, scene.broker, CAROL);

        /* Most of these come too late: the lock has a queue, and the helper stands at its end. */
        for (unsigned int i = 0; i < 10; ++i) {
                error = call_freeze(scene.alice, "/r", IMMUTABLE);
                if (error == 0)
                        break;
                client_expect_error(scene.alice, BUSY, HELPER, error);
                ++n_late;
                (void)snprintf(path, sizeof(path), "/c%u", i);
                freeze_another(carol, path);
        }
        printf("%u freezes came too late\n", n_late);
        (void)innocent_stop(&innocent, "pings while a holder keeps the lock");
        child_kill(&hostile);
        grant_deinit(&bobs);
        (void)freeze_patiently(scene.alice, "/r");
        REQUIRE(answered_seals(scene.alice) & F_SEAL_SEAL);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        grant_deinit(&scene.alices);
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_BYTES, 0);
        carol = client_free(carol);
        scene_end(&scene);
}
