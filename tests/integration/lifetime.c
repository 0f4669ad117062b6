/* How long a region lives, and how long it is paid for: until the kernel says that nobody holds
 * it any more, whoever that is and however it ends.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (16 * PAGE)
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES
#define REGIONS_SLOT SHMD__SLOT__SLOT_REGIONS

typedef struct Scene {
        Broker *broker;
        Client *alice;
        size_t n_fds;           /* of the broker, without a region */
} Scene;

static Scene scene_begin(void) {
        Scene scene = { .broker = broker_spawn(NULL) };

        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        scene.n_fds = broker_fds(scene.broker);
        return scene;
}

/* Ends with everything given back, the broker's descriptors included. */
static void scene_end(Scene *scene) {
        client_expect_used(scene->alice, BYTES_SLOT, 0);
        client_expect_used(scene->alice, REGIONS_SLOT, 0);
        broker_expect_fds(scene->broker, scene->n_fds);
        scene->alice = client_free(scene->alice);
        scene->broker = broker_stop(scene->broker);
}

/* A moment for the broker to make a mistake in: charges that should stay are looked at twice. */
static void require_still_charged(Scene *scene) {
        REQUIRE(client_used(scene->alice, BYTES_SLOT) == SIZE);
        test_sleep_ms(50);
        REQUIRE(client_used(scene->alice, BYTES_SLOT) == SIZE);
        REQUIRE(client_used(scene->alice, REGIONS_SLOT) == 1);
}

static Grant make_unlinked(Scene *scene) {
        Grant grant = GRANT_NULL;

        client_expect_done(scene->alice, call_create(scene->alice, "/r", SIZE, &grant));
        client_expect_done(scene->alice, call_unlink(scene->alice, "/r"));
        return grant;
}

static Grant make_anonymous(Scene *scene) {
        Grant grant = GRANT_NULL;

        client_expect_done(scene->alice, call_create(scene->alice, NULL, SIZE, &grant));
        return grant;
}

static Grant (*const makers[])(Scene *) = { make_unlinked, make_anonymous };

/* -- who holds it --------------------------------------------------------------------- */

TEST(lifetime, attack_056_a_descriptor_keeps_the_charge) {
        Scene scene = scene_begin();

        for (size_t i = 0; i < 2; ++i) {
                Grant grant = makers[i](&scene);

                require_still_charged(&scene);
                grant_deinit(&grant);
                client_expect_used(scene.alice, BYTES_SLOT, 0);
        }
        scene_end(&scene);
}

TEST(lifetime, attack_056_a_mapping_keeps_the_charge_after_its_descriptor_is_closed) {
        Scene scene = scene_begin();

        for (size_t i = 0; i < 2; ++i) {
                Grant grant = makers[i](&scene);
                char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, grant.fd, 0);

                REQUIRE(memory != MAP_FAILED);
                grant_deinit(&grant);
                memset(memory, 1, SIZE);
                require_still_charged(&scene);
                REQUIRE(memory[SIZE - 1] == 1);
                REQUIRE(munmap(memory, SIZE) == 0);
                client_expect_used(scene.alice, BYTES_SLOT, 0);
        }
        scene_end(&scene);
}

TEST(lifetime, a_part_of_a_mapping_keeps_the_whole_charge) {
        Scene scene = scene_begin();
        Grant grant = make_unlinked(&scene);
        char *memory = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, grant.fd, 0);

        REQUIRE(memory != MAP_FAILED);
        grant_deinit(&grant);
        REQUIRE(munmap(memory, SIZE - PAGE) == 0);
        require_still_charged(&scene);
        REQUIRE(munmap(memory + SIZE - PAGE, PAGE) == 0);
        scene_end(&scene);
}

TEST(lifetime, a_duplicate_keeps_the_charge) {
        Scene scene = scene_begin();
        Grant grant = make_unlinked(&scene);
        int copy = fcntl(grant.fd, F_DUPFD_CLOEXEC, 0);

        REQUIRE(copy >= 0);
        grant_deinit(&grant);
        require_still_charged(&scene);
        close_fd(copy);
        scene_end(&scene);
}

static int hold_descriptor(void *fd) {
        child_close_fds_but(*(int *)fd);
        child_arrive(0);
        return 0;
}

static int hold_mapping(void *fd) {
        char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *(int *)fd, 0);

        REQUIRE(memory != MAP_FAILED);
        child_close_fds_but(-1);
        memory[0] = 1;
        child_arrive(0);
        return memory[0] == 1 ? 0 : 1;
}

TEST(lifetime, a_forked_child_keeps_the_charge) {
        Scene scene = scene_begin();
        Grant grant = make_unlinked(&scene);
        Child child = CHILD_NULL;

        child_spawn(&child, hold_descriptor, &grant.fd);
        grant_deinit(&grant);
        require_still_charged(&scene);
        child_release(&child);
        scene_end(&scene);
}

TEST(lifetime, a_holder_killed_with_a_descriptor_ends_the_charge) {
        Scene scene = scene_begin();

        for (size_t i = 0; i < 2; ++i) {
                Grant grant = makers[i](&scene);
                Child child = CHILD_NULL;

                child_spawn(&child, hold_descriptor, &grant.fd);
                grant_deinit(&grant);
                require_still_charged(&scene);
                child_kill(&child);
                client_expect_used(scene.alice, BYTES_SLOT, 0);
        }
        scene_end(&scene);
}

TEST(lifetime, a_holder_killed_with_a_mapping_ends_the_charge) {
        Scene scene = scene_begin();

        for (size_t i = 0; i < 2; ++i) {
                Grant grant = makers[i](&scene);
                Child child = CHILD_NULL;

                child_spawn(&child, hold_mapping, &grant.fd);
                grant_deinit(&grant);
                require_still_charged(&scene);
                child_kill(&child);
                client_expect_used(scene.alice, BYTES_SLOT, 0);
        }
        scene_end(&scene);
}

TEST(lifetime, of_many_holders_the_last_ends_the_charge) {
        Scene scene = scene_begin();
        Grant grant = make_unlinked(&scene);
        Child children[8];

        for (size_t i = 0; i < 8; ++i) {
                children[i] = (Child)CHILD_NULL;
                child_spawn(&children[i], i % 2 ? hold_mapping : hold_descriptor, &grant.fd);
        }
        grant_deinit(&grant);
        for (size_t i = 0; i < 8; ++i) {
                REQUIRE(client_used(scene.alice, BYTES_SLOT) == SIZE, "%zu are gone", i);
                child_kill(&children[i]);
        }
        scene_end(&scene);
}

TEST(lifetime, a_descriptor_in_flight_between_clients_keeps_the_charge) {
        Scene scene = scene_begin();
        Grant grant = make_unlinked(&scene);
        int ends[2], fd;

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        REQUIRE(test_send_fd(ends[0], grant.fd));
        grant_deinit(&grant);
        require_still_charged(&scene);
        fd = test_receive_fd(ends[1]);
        require_still_charged(&scene);
        close_fd(fd);
        client_expect_used(scene.alice, BYTES_SLOT, 0);

        /* ... and one that is never received ends with its socket. */
        grant = make_unlinked(&scene);
        REQUIRE(test_send_fd(ends[0], grant.fd));
        grant_deinit(&grant);
        require_still_charged(&scene);
        close_fd(ends[0]);
        close_fd(ends[1]);
        scene_end(&scene);
}

TEST(lifetime, attack_086_a_cycle_of_sockets_that_holds_a_region_is_collected) {
        Scene scene = scene_begin();
        Grant grant = make_unlinked(&scene);
        int a[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, a) == 0);
        REQUIRE(test_send_fd(a[0], grant.fd));
        REQUIRE(test_send_fd(a[0], a[1]));
        REQUIRE(test_send_fd(a[1], a[0]));
        grant_deinit(&grant);
        require_still_charged(&scene);
        close_fd(a[0]);
        close_fd(a[1]);
        scene_end(&scene);
}

TEST(lifetime, a_grant_in_a_reply_that_is_not_read_keeps_the_charge_and_ends_with_the_connection) {
        Scene scene = scene_begin();
        Client *other = client_connect_as(scene.broker, ALICE, ALICE);

        (void)client_send(other, MESSAGE_CREATE,
                          REQUEST(Create, create, .size = SIZE, .mode = 0600, .rights = READ_WRITE));
        client_expect_used(scene.alice, BYTES_SLOT, SIZE);
        require_still_charged(&scene);
        other = client_free(other);
        scene_end(&scene);
}

TEST(lifetime, a_named_region_lives_without_holders_and_connections) {
        Scene scene = scene_begin();
        Client *maker = client_connect_as(scene.broker, ALICE, ALICE);
        Grant grant = GRANT_NULL, again = GRANT_NULL;
        char bytes[3];

        client_expect_done(maker, call_create(maker, "/r", SIZE, &grant));
        REQUIRE(pwrite(grant.fd, "abc", 3, 1000) == 3);
        grant_deinit(&grant);
        maker = client_free(maker);
        require_still_charged(&scene);
        client_expect_done(scene.alice, call_open(scene.alice, "/r", READ_ONLY, &again));
        REQUIRE(pread(again.fd, bytes, 3, 1000) == 3 && memcmp(bytes, "abc", 3) == 0);
        grant_deinit(&again);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        scene_end(&scene);
}

TEST(lifetime, memory_comes_back_when_the_last_holder_goes) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL, again = GRANT_NULL;
        char byte = 1;

        /* A region of the same size right after it has none of its bytes. */
        for (int i = 0; i < 20; ++i) {
                client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &grant));
                REQUIRE(pwrite(grant.fd, "secret", 6, 0) == 6);
                grant_deinit(&grant);
                client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &again));
                REQUIRE(pread(again.fd, &byte, 1, 0) == 1 && byte == 0);
                grant_deinit(&again);
        }
        scene_end(&scene);
}

/* Leases do not see descriptors that only name a file, and they outlive it: what they keep must
 * be empty, or memory would be in use that nobody pays for. */
TEST(lifetime, a_descriptor_that_only_names_a_region_keeps_none_of_its_memory) {
        Scene scene = scene_begin();
        Grant grant = make_anonymous(&scene);
        char path[64], bytes[SIZE];
        struct stat st;
        int name;

        memset(bytes, 1, sizeof(bytes));
        REQUIRE(pwrite(grant.fd, bytes, sizeof(bytes), 0) == sizeof(bytes));
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", grant.fd);
        name = open(path, O_PATH | O_CLOEXEC);
        REQUIRE(name >= 0 && fstat(name, &st) == 0 && st.st_blocks > 0);
        grant_deinit(&grant);
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        REQUIRE(fstat(name, &st) == 0 && st.st_blocks == 0, "%ld blocks", (long)st.st_blocks);
        close_fd(name);
        scene_end(&scene);
}

/* What each process makes, and after how many it says so: each step is waited for, however long all take. */
#define LET_GO 8000
#define LET_GO_STEP 500

static int make_and_let_go(void *userdata) {
        Client *client = client_connect_as(userdata, ALICE, ALICE);

        for (int i = 0; i < LET_GO; ++i) {
                Grant grant = GRANT_NULL;
                char *memory;

                client_expect_done(client, call_create(client, NULL, PAGE, &grant));
                memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grant.fd, 0);
                REQUIRE(memory != MAP_FAILED);
                grant_deinit(&grant);
                memory[0] = 1;
                REQUIRE(munmap(memory, PAGE) == 0);
                if ((i + 1) % LET_GO_STEP == 0)
                        child_arrive(i + 1);
        }
        client = client_free(client);
        return 0;
}

/* The kernel's word that a file was closed can come before its last reference is gone, in about
 * one of five thousand cases; whoever asks only once then never hears again. The connections stay,
 * because one that ends makes the broker look at everything. */
TEST(lifetime, of_24000_regions_let_go_on_several_processors_none_is_forgotten) {
        Scene scene = scene_begin();
        Child children[3] = { CHILD_NULL, CHILD_NULL, CHILD_NULL };

        for (size_t i = 0; i < 3; ++i)
                child_start(&children[i], make_and_let_go, scene.broker);
        for (int n = LET_GO_STEP; n <= LET_GO; n += LET_GO_STEP)
                for (size_t i = 0; i < 3; ++i) {
                        child_await(&children[i]);
                        if (n < LET_GO)
                                child_continue(&children[i]);
                }
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        client_expect_used(scene.alice, REGIONS_SLOT, 0);
        for (size_t i = 0; i < 3; ++i)
                child_release(&children[i]);
        scene_end(&scene);
}

/* -- sessions ------------------------------------------------------------------------- */

static Client *make_session_region(Scene *scene, Grant *grant) {
        Client *maker = client_connect_as(scene->broker, ALICE, ALICE);

        client_expect_done(maker, call_create_with(maker,
                                                   REQUEST(Create, create, .path = BYTES("/s"), .size = SIZE,
                                                           .mode = 0600, .rights = READ_WRITE,
                                                           .lifetime = SHMD__LIFETIME__LIFETIME_SESSION),
                                                   grant));
        client_expect_done(scene->alice, call_stat(scene->alice, "/s"));
        REQUIRE(((Shmd__StatReply *)scene->alice->reply)->node->lifetime == SHMD__LIFETIME__LIFETIME_SESSION);
        return maker;
}

static bool is_missing(void *client) {
        return call_stat(client, "/s") == SHMD__ERROR__ERROR_NOT_FOUND;
}

TEST(lifetime, a_session_region_ends_with_its_connection) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;
        Client *maker = make_session_region(&scene, &grant);

        grant_deinit(&grant);
        require_still_charged(&scene);
        maker = client_free(maker);
        REQUIRE(test_eventually(is_missing, scene.alice));
        scene_end(&scene);
}

TEST(lifetime, a_session_region_that_is_held_loses_its_name_and_stays_charged) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;
        Client *maker = make_session_region(&scene, &grant);

        maker = client_free(maker);
        REQUIRE(test_eventually(is_missing, scene.alice));
        require_still_charged(&scene);
        REQUIRE(pwrite(grant.fd, "x", 1, 0) == 1);
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(lifetime, a_session_region_unlinked_before_the_end_is_gone_before_the_end) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;
        Client *maker = make_session_region(&scene, &grant);

        grant_deinit(&grant);
        client_expect_done(maker, call_unlink(maker, "/s"));
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        client_expect_done(scene.alice, call_create(scene.alice, "/s", SIZE, NULL));
        maker = client_free(maker);
        test_sleep_ms(50);
        client_expect_done(scene.alice, call_stat(scene.alice, "/s"));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/s"));
        scene_end(&scene);
}

typedef struct KillPoint {
        Broker *broker;
        const ProtobufCMessage *request;
} KillPoint;

static int request_and_stay(void *userdata) {
        KillPoint *point = userdata;
        Client *client = client_connect_as(point->broker, ALICE, ALICE);

        (void)client_send(client, MESSAGE_CREATE, point->request);
        child_arrive(client->fd);
        return 0;
}

TEST(lifetime, attack_058_a_creator_killed_between_request_and_reply_leaves_nothing) {
        Scene scene = scene_begin();
        KillPoint point = {
                scene.broker,
                REQUEST(Create, create, .size = SIZE, .mode = 0600, .rights = READ_WRITE),
        };

        for (int i = 0; i < 50; ++i) {
                Child child = CHILD_NULL;

                child_spawn(&child, request_and_stay, &point);
                child_kill(&child);
        }
        scene_end(&scene);
}

TEST(lifetime, attack_058_a_hundred_connections_closed_right_after_their_request_leave_nothing) {
        Scene scene = scene_begin();

        for (int i = 0; i < 300; ++i) {
                Client *client = client_connect_as(scene.broker, ALICE, ALICE);

                (void)client_send(client, MESSAGE_CREATE,
                                  REQUEST(Create, create, .size = SIZE, .mode = 0600, .rights = READ_WRITE));
                (void)client_send(client, MESSAGE_CREATE,
                                  REQUEST(Create, create, .path = BYTES("/s"), .size = SIZE, .mode = 0600,
                                          .rights = READ_WRITE, .lifetime = SHMD__LIFETIME__LIFETIME_SESSION));
                client = client_free(client);
        }
        scene_end(&scene);
}

/* -- publish -------------------------------------------------------------------------- */

TEST(lifetime, a_region_is_filled_and_then_published) {
        Scene scene = scene_begin();
        Client *reader = client_connect_as(scene.broker, ALICE, ALICE);
        Grant grant = GRANT_NULL, read = GRANT_NULL;
        uint64_t serial;
        char bytes[4];

        serial = client_send(reader, MESSAGE_WAIT,
                             REQUEST(Wait, wait, .path = BYTES("/whole"), .timeout_ns = UINT64_C(60000000000)));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_WATCHES, 1);
        client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &grant));
        REQUIRE(pwrite(grant.fd, "full", 4, SIZE - 4) == 4);
        REQUIRE(client_receive(reader, 20) == CLIENT_SILENT, "nobody sees it before it has its name");
        client_expect_done(scene.alice, call_publish(scene.alice, grant.region, "/whole", 0));

        REQUIRE(client_receive(reader, TEST_PATIENCE_MS) == CLIENT_REPLY && reader->header.serial == serial);
        REQUIRE(((Shmd__WaitReply *)reader->reply)->node->region == grant.region);
        client_expect_done(reader, call_open(reader, "/whole", READ_ONLY, &read));
        REQUIRE(pread(read.fd, bytes, 4, SIZE - 4) == 4 && memcmp(bytes, "full", 4) == 0);
        grant_deinit(&grant);
        grant_deinit(&read);
        client_expect_done(scene.alice, call_stat(scene.alice, "/whole"));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/whole"));
        reader = client_free(reader);
        scene_end(&scene);
}

TEST(lifetime, a_region_has_at_most_one_name) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &grant));
        client_expect_done(scene.alice, call_publish(scene.alice, grant.region, "/one", 0));
        client_expect_error(scene.alice, EXISTS, HAS_NAME, call_publish(scene.alice, grant.region, "/two", 0));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/one"));
        client_expect_done(scene.alice, call_publish(scene.alice, grant.region, "/two", 0));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/two"));
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(lifetime, publishing_over_a_name_needs_to_be_asked_for) {
        Scene scene = scene_begin();
        Grant old = GRANT_NULL, new = GRANT_NULL, read = GRANT_NULL;
        char byte;

        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, &old));
        REQUIRE(pwrite(old.fd, "o", 1, 0) == 1);
        client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &new));
        REQUIRE(pwrite(new.fd, "n", 1, 0) == 1);
        client_expect_error(scene.alice, EXISTS, TAKEN, call_publish(scene.alice, new.region, "/r", 0));
        client_expect_done(scene.alice,
                           call_publish(scene.alice, new.region, "/r", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));

        client_expect_done(scene.alice, call_open(scene.alice, "/r", READ_ONLY, &read));
        REQUIRE(read.region == new.region && pread(read.fd, &byte, 1, 0) == 1 && byte == 'n');
        REQUIRE(pread(old.fd, &byte, 1, 0) == 1 && byte == 'o', "who holds the old one keeps it");
        REQUIRE(client_used(scene.alice, BYTES_SLOT) == 2 * SIZE);
        grant_deinit(&old);
        client_expect_used(scene.alice, BYTES_SLOT, SIZE);
        grant_deinit(&new);
        grant_deinit(&read);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        scene_end(&scene);
}

TEST(lifetime, replacing_an_unheld_region_gives_its_memory_back) {
        Scene scene = scene_begin();

        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, NULL));
        for (int i = 0; i < 20; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &grant));
                client_expect_done(scene.alice, call_publish(scene.alice, grant.region, "/r",
                                                             SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
                grant_deinit(&grant);
                client_expect_used(scene.alice, BYTES_SLOT, SIZE);
        }
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        scene_end(&scene);
}

TEST(lifetime, publishing_with_replace_where_nothing_is_makes_the_name) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &grant));
        client_expect_done(scene.alice,
                           call_publish(scene.alice, grant.region, "/r", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        grant_deinit(&grant);
        scene_end(&scene);
}

TEST(lifetime, a_directory_is_not_replaced_by_a_region) {
        Scene scene = scene_begin();
        Grant grant = GRANT_NULL;

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0700));
        client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &grant));
        REQUIRE(call_publish(scene.alice, grant.region, "/d", SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE) ==
                SHMD__ERROR__ERROR_IS_DIRECTORY, "%s", client_describe(scene.alice));
        grant_deinit(&grant);
        client_expect_done(scene.alice, call_rmdir(scene.alice, "/d"));
        scene_end(&scene);
}

/* -- open or create, batches ----------------------------------------------------------- */

TEST(lifetime, open_or_create_says_which_happened) {
        Scene scene = scene_begin();
        const ProtobufCMessage *create = REQUEST(Create, create, .path = BYTES("/r"), .size = SIZE, .mode = 0640,
                                                 .flags = SHMD__CREATE_FLAGS__CREATE_OPEN, .rights = READ_WRITE);
        const ProtobufCMessage *other = REQUEST(Create, create, .path = BYTES("/r"), .size = 1, .mode = 0777,
                                                .flags = SHMD__CREATE_FLAGS__CREATE_OPEN, .rights = READ_ONLY);
        Grant first = GRANT_NULL, second = GRANT_NULL;

        client_expect_done(scene.alice, call_create_with(scene.alice, create, &first));
        REQUIRE(first.outcome == SHMD__OUTCOME__OUTCOME_CREATED && first.size == SIZE);
        client_expect_done(scene.alice, call_create_with(scene.alice, other, &second));
        REQUIRE(second.outcome == SHMD__OUTCOME__OUTCOME_OPENED && second.region == first.region);
        REQUIRE(second.size == SIZE && second.rights == READ_ONLY, "the region stays as it was");
        client_expect_done(scene.alice, call_stat(scene.alice, "/r"));
        REQUIRE(((Shmd__StatReply *)scene.alice->reply)->node->mode == 0640);
        REQUIRE(client_used(scene.alice, BYTES_SLOT) == SIZE);
        grant_deinit(&first);
        grant_deinit(&second);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        scene_end(&scene);
}

static uint32_t call_batch(Client *client, const char *first, const char *second, uint32_t second_rights) {
        Shmd__Create create = SHMD__CREATE__INIT;
        Shmd__Open open = SHMD__OPEN__INIT;
        Shmd__BatchItem a = SHMD__BATCH_ITEM__INIT, b = SHMD__BATCH_ITEM__INIT;

        create.path = BYTES(first);
        create.size = SIZE;
        create.mode = 0600;
        create.rights = READ_WRITE;
        open.path = BYTES(second);
        open.rights = second_rights;
        a.create = &create;
        b.open = &open;
        return client_call(client, MESSAGE_BATCH,
                           REQUEST(Batch, batch, .n_items = 2, .items = (Shmd__BatchItem *[]){ &a, &b }));
}

TEST(lifetime, a_batch_does_all_or_nothing) {
        Scene scene = scene_begin();
        Client *waiter = client_connect_as(scene.broker, ALICE, ALICE);

        (void)client_send(waiter, MESSAGE_WAIT,
                          REQUEST(Wait, wait, .path = BYTES("/new"), .timeout_ns = UINT64_C(60000000000)));
        client_expect_used(scene.alice, SHMD__SLOT__SLOT_WATCHES, 1);
        client_expect_error(scene.alice, NOT_FOUND, MISSING, call_batch(scene.alice, "/new", "/none", READ_ONLY));
        REQUIRE(scene.alice->refusal->index == 1);
        client_expect_error(scene.alice, NOT_FOUND, MISSING, call_stat(scene.alice, "/new"));
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        REQUIRE(client_used(scene.alice, SHMD__SLOT__SLOT_GRANTS) == 0);
        REQUIRE(client_receive(waiter, 20) == CLIENT_SILENT, "what was undone was never announced");

        /* Items see what the items before them made. */
        client_expect_done(scene.alice, call_batch(scene.alice, "/new", "/new", READ_ONLY));
        REQUIRE(scene.alice->fds.n == 2);
        Shmd__BatchReply *reply = (Shmd__BatchReply *)scene.alice->reply;
        REQUIRE(reply->items[0]->region == reply->items[1]->region);
        REQUIRE((fcntl(scene.alice->fds.fds[0], F_GETFL) & O_ACCMODE) == O_RDWR);
        REQUIRE((fcntl(scene.alice->fds.fds[1], F_GETFL) & O_ACCMODE) == O_RDONLY);
        REQUIRE(client_receive(waiter, TEST_PATIENCE_MS) == CLIENT_REPLY);
        waiter = client_free(waiter);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/new"));
        scene_end(&scene);
}

TEST(lifetime, a_batch_of_128_comes_with_128_descriptors_in_order) {
        Shmd__Create creates[128];
        Shmd__BatchItem items[128], *pointers[128];
        Scene scene = scene_begin();
        Shmd__BatchReply *reply;

        for (size_t i = 0; i < 128; ++i) {
                shmd__create__init(&creates[i]);
                shmd__batch_item__init(&items[i]);
                creates[i].size = i + 1;
                creates[i].rights = READ_WRITE;
                items[i].create = &creates[i];
                pointers[i] = &items[i];
        }
        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_BATCH,
                                                    REQUEST(Batch, batch, .n_items = 128, .items = pointers)));
        reply = (Shmd__BatchReply *)scene.alice->reply;
        REQUIRE(reply->n_items == 128 && scene.alice->fds.n == 128);
        for (size_t i = 0; i < 128; ++i) {
                REQUIRE(reply->items[i]->size == i + 1 && reply->items[i]->granted);
                REQUIRE(lseek(scene.alice->fds.fds[i], 0, SEEK_END) == (off_t)i + 1);
        }
        scene_end(&scene);
}

/* -- who holds it, as told ------------------------------------------------------------- */

static Shmd__StatReply *stat_holders(Client *client, const char *path) {
        client_expect_done(client, client_call(client, MESSAGE_STAT,
                                               REQUEST(Stat, stat, .path = BYTES(path),
                                                       .flags = SHMD__STAT_FLAGS__STAT_HOLDERS)));
        return (Shmd__StatReply *)client->reply;
}

static bool nobody_holds_it(void *client) {
        Shmd__StatReply *reply = stat_holders(client, "/r");

        return reply->held_known && !reply->held && reply->n_holders == 0;
}

TEST(lifetime, stat_tells_who_holds_a_region) {
        Scene scene = scene_begin();
        Client *other = client_connect_as(scene.broker, ALICE, ALICE);
        Grant a = GRANT_NULL, b = GRANT_NULL;
        Shmd__StatReply *reply;

        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, &a));
        client_expect_done(other, call_open(other, "/r", READ_ONLY, &b));
        reply = stat_holders(scene.alice, "/r");
        REQUIRE(reply->held && reply->held_known && reply->n_holders == 2 && reply->more == 0);
        REQUIRE(reply->holders[0]->grant == a.grant && reply->holders[0]->rights == READ_WRITE);
        REQUIRE(reply->holders[1]->grant == b.grant && reply->holders[1]->rights == READ_ONLY);
        for (int i = 0; i < 2; ++i)
                REQUIRE(reply->holders[i]->uid == scene.alice->hello.uid && reply->holders[i]->connected &&
                        reply->holders[i]->pid == (uint32_t)getpid() && reply->holders[i]->marked);

        grant_deinit(&b);
        other = client_free(other);
        reply = stat_holders(scene.alice, "/r");
        REQUIRE(reply->n_holders == 1 && reply->holders[0]->grant == a.grant, "%zu", reply->n_holders);
        grant_deinit(&a);
        REQUIRE(test_eventually(nobody_holds_it, scene.alice));
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        scene_end(&scene);
}

TEST(lifetime, a_holder_whose_connection_ended_is_still_told) {
        Scene scene = scene_begin();
        Client *other = client_connect_as(scene.broker, ALICE, ALICE);
        Grant grant = GRANT_NULL;
        Shmd__StatReply *reply;
        bool connected = true;

        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, NULL));
        client_expect_done(other, call_open(other, "/r", READ_ONLY, &grant));
        other = client_free(other);
        for (int i = 0; i < 1000 && connected; ++i) {
                reply = stat_holders(scene.alice, "/r");
                REQUIRE(reply->held && reply->n_holders == 1 && reply->holders[0]->grant == grant.grant);
                connected = reply->holders[0]->connected;
                test_sleep_ms(1);
        }
        REQUIRE(!connected);
        grant_deinit(&grant);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        scene_end(&scene);
}
