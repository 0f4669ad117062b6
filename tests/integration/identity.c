/* Who a peer is: what it was when it connected, as the kernel says, and nothing it says itself. */

#include "lib/client.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define GROUP_A 64201
#define GROUP_B 64202

typedef struct Scene {
        Broker *broker;
        Client *alice;
} Scene;

static Scene scene_begin(const char *config) {
        Scene scene = { 0 };

        test_needs_root();
        scene.broker = broker_spawn(config);
        scene.alice = client_connect_as(scene.broker, ALICE, GROUP_A);
        return scene;
}

static void scene_end(Scene *scene) {
        scene->alice = client_free(scene->alice);
        scene->broker = broker_stop(scene->broker);
}

static uint32_t owner_of(Client *client, const char *path) {
        client_expect_done(client, call_stat(client, path));
        return ((Shmd__StatReply *)client->reply)->node->uid;
}

TEST(identity, hello_says_who_the_broker_takes_the_peer_for) {
        Scene scene = scene_begin(NULL);
        Client *root = client_connect_as(scene.broker, 0, 0);

        REQUIRE(scene.alice->hello.uid == ALICE && !scene.alice->hello.admin);
        REQUIRE(root->hello.uid == 0 && root->hello.admin);
        REQUIRE(scene.alice->hello.version == MESSAGE_VERSION);
        REQUIRE(memcmp(root->session, scene.alice->session, MESSAGE_SESSION_BYTES) != 0);
        root = client_free(root);
        scene_end(&scene);
}

/* The effective uid is what counts, at connect(2), whatever the real one is. */
TEST(identity, attack_030_a_root_process_that_connects_as_a_user_is_the_user) {
        Scene scene = scene_begin(NULL);

        /* client_connect_as() is exactly that: real uid 0, effective uid alice's. */
        client_expect_done(scene.alice, call_create(scene.alice, "/mine", 1, NULL));
        REQUIRE(owner_of(scene.alice, "/mine") == ALICE);
        client_expect_error(scene.alice, DENIED, ADMIN, call_chown(scene.alice, "/mine", BOB, -1));
        scene_end(&scene);
}

static int use_inherited_connection(void *userdata) {
        Client *client = userdata;

        client_expect_done(client, call_create(client, "/by-whom", 1, NULL));
        client_expect_done(client, call_chown(client, "/by-whom", CAROL, -1));
        return 0;
}

TEST(identity, attack_030_a_process_that_gives_root_up_after_connecting_is_still_root_to_the_broker) {
        Scene scene = scene_begin(NULL);
        Client *root = client_connect_as(scene.broker, 0, 0);

        REQUIRE(run_as(BOB, BOB, use_inherited_connection, root) == 0);
        REQUIRE(owner_of(scene.alice, "/by-whom") == CAROL);
        root = client_free(root);
        scene_end(&scene);
}

static int create_as_inherited(void *userdata) {
        return (int)call_create(userdata, "/passed", 1, NULL);
}

TEST(identity, attack_038_a_connection_passed_on_acts_as_who_connected) {
        Scene scene = scene_begin(NULL);

        REQUIRE(run_as(BOB, BOB, create_as_inherited, scene.alice) == 0);
        scene.alice->serial += 1;
        REQUIRE(owner_of(scene.alice, "/passed") == ALICE);
        scene_end(&scene);
}

TEST(identity, attack_031_what_a_program_prints_into_the_socket_is_the_end_of_it) {
        Scene scene = scene_begin(NULL);
        Client *victim = client_connect_silently(scene.broker, 0, 0);
        pid_t pid;

        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                REQUIRE(dup2(victim->fd, 1) == 1 && dup2(victim->fd, 2) == 2);
                (void)execl("/bin/sh", "sh", "-c", "echo usage: su [options] >&2", NULL);
                _exit(127);
        }
        REQUIRE(test_wait_pid(pid) == 0);
        client_expect_closed(victim);
        broker_expect_log(scene.broker, "event=peer-closed", "reason=header-mismatch");
        victim = client_free(victim);
        scene_end(&scene);
}

/* Root may put any ids into SCM_CREDENTIALS: they are not asked for and change nothing. */
TEST(identity, attack_032_credentials_in_a_message_are_ignored) {
        Scene scene = scene_begin(NULL);
        struct ucred forged = { .pid = 1, .uid = 0, .gid = 0 };
        uint8_t packet[256];
        size_t n = client_pack(packet, sizeof(packet), MESSAGE_CREATE, ++scene.alice->serial,
                               REQUEST(Create, create, .path = BYTES("/forged"), .size = 1, .mode = 0600));
        struct iovec iov = { .iov_base = packet, .iov_len = n };
        char control[CMSG_SPACE(sizeof(forged))] = { 0 };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof(control) };
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_CREDENTIALS;
        c->cmsg_len = CMSG_LEN(sizeof(forged));
        memcpy(CMSG_DATA(c), &forged, sizeof(forged));
        if (sendmsg(scene.alice->fd, &msg, MSG_NOSIGNAL) < 0 && errno == EPERM)
                test_skip("forging credentials needs CAP_SYS_ADMIN");
        REQUIRE(client_receive(scene.alice, TEST_PATIENCE_MS) == CLIENT_REPLY);
        REQUIRE(owner_of(scene.alice, "/forged") == ALICE);
        scene_end(&scene);
}

TEST(identity, attack_034_an_overflow_uid_is_a_user_like_any_other_outside_namespaces) {
        Scene scene = scene_begin(NULL);
        Client *nobody = client_connect_as(scene.broker, 65534, 65534);

        REQUIRE(nobody->hello.uid == 65534 && !nobody->hello.admin);
        client_expect_done(nobody, call_create(nobody, "/nobodys", 1, NULL));
        REQUIRE(owner_of(scene.alice, "/nobodys") == 65534);
        nobody = client_free(nobody);
        scene_end(&scene);
}

static void expect_group_rights(size_t n_groups) {
        Scene scene = scene_begin(NULL);
        static gid_t groups[65536];
        Client *with, *without;

        /* The group of the region comes last; without, it is one beside it. */
        for (size_t i = 0; i < n_groups; ++i)
                groups[i] = (gid_t)(100000 + i);
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/group", 1, 0640, NULL));

        without = client_connect_with_groups(scene.broker, BOB, GROUP_B, groups, n_groups);
        client_expect_error(without, DENIED, REGION_READ, call_open(without, "/group", READ_ONLY, NULL));
        if (n_groups) {
                groups[n_groups - 1] = GROUP_A;
                with = client_connect_with_groups(scene.broker, BOB, GROUP_B, groups, n_groups);
                client_expect_done(with, call_open(with, "/group", READ_ONLY, NULL));
                client_expect_error(with, DENIED, REGION_WRITE, call_open(with, "/group", READ_WRITE, NULL));
                with = client_free(with);
        }
        without = client_free(without);
        scene_end(&scene);
}

TEST(identity, attack_035_no_supplementary_group) {
        expect_group_rights(0);
}

TEST(identity, attack_035_one_supplementary_group) {
        expect_group_rights(1);
}

TEST(identity, attack_035_thirty_two_supplementary_groups) {
        expect_group_rights(32);
}

TEST(identity, attack_035_sixty_five_thousand_five_hundred_and_thirty_six_groups) {
        expect_group_rights(65536);
}

TEST(identity, attack_036_the_primary_group_counts) {
        Scene scene = scene_begin(NULL);
        Client *member = client_connect_as(scene.broker, BOB, GROUP_A);
        Client *stranger = client_connect_as(scene.broker, BOB, GROUP_B);

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/group", 1, 0660, NULL));
        client_expect_done(member, call_open(member, "/group", READ_WRITE, NULL));
        client_expect_error(stranger, DENIED, REGION_READ, call_open(stranger, "/group", READ_ONLY, NULL));
        member = client_free(member);
        stranger = client_free(stranger);
        scene_end(&scene);
}

TEST(identity, what_a_peer_makes_belongs_to_its_uid_and_primary_group) {
        Scene scene = scene_begin(NULL);
        gid_t groups[] = { GROUP_B };
        Client *client = client_connect_with_groups(scene.broker, BOB, CAROL, groups, 1);
        Shmd__Node *node;

        client_expect_done(client, call_create(client, "/r", 1, NULL));
        client_expect_done(client, call_stat(client, "/r"));
        node = ((Shmd__StatReply *)client->reply)->node;
        REQUIRE(node->uid == BOB && node->gid == CAROL);
        client_expect_done(client, call_mkdir(client, "/d", 0700));
        client_expect_done(client, call_stat(client, "/d"));
        node = ((Shmd__StatReply *)client->reply)->node;
        REQUIRE(node->uid == BOB && node->gid == CAROL);
        client = client_free(client);
        scene_end(&scene);
}

/* Groups are what they were at connect: a later setgroups(2) neither gives nor takes. */
TEST(identity, attack_037_groups_changed_after_connecting_change_nothing) {
        Scene scene = scene_begin(NULL);
        gid_t groups[] = { GROUP_A };
        Client *member, *stranger;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/group", 1, 0640, NULL));
        member = client_connect_with_groups(scene.broker, BOB, GROUP_B, groups, 1);
        stranger = client_connect_with_groups(scene.broker, CAROL, GROUP_B, NULL, 0);

        REQUIRE(setgroups(0, NULL) == 0);
        client_expect_done(member, call_open(member, "/group", READ_ONLY, NULL));
        REQUIRE(setgroups(1, groups) == 0);
        client_expect_error(stranger, DENIED, REGION_READ, call_open(stranger, "/group", READ_ONLY, NULL));
        REQUIRE(setgroups(0, NULL) == 0);
        member = client_free(member);
        stranger = client_free(stranger);
        scene_end(&scene);
}

TEST(identity, the_owner_class_decides_even_if_the_group_would_allow_more) {
        Scene scene = scene_begin(NULL);

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/odd", 1, 0066, NULL));
        client_expect_error(scene.alice, DENIED, REGION_READ, call_open(scene.alice, "/odd", READ_ONLY, NULL));
        scene_end(&scene);
}

TEST(identity, members_of_the_admin_group_administer_and_others_do_not) {
        char config[64];
        Scene scene;
        gid_t groups[] = { GROUP_B };
        Client *by_primary, *by_supplementary, *no;

        (void)snprintf(config, sizeof(config), "admin-group = %d", GROUP_B);
        scene = scene_begin(config);
        by_primary = client_connect_as(scene.broker, BOB, GROUP_B);
        by_supplementary = client_connect_with_groups(scene.broker, BOB, BOB, groups, 1);
        no = client_connect_as(scene.broker, BOB, BOB);
        REQUIRE(by_primary->hello.admin && by_supplementary->hello.admin && !no->hello.admin);

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/private", 1, 0000, NULL));
        client_expect_done(by_primary, call_open(by_primary, "/private", READ_WRITE, NULL));
        client_expect_error(no, DENIED, REGION_READ, call_open(no, "/private", READ_ONLY, NULL));
        client_expect_done(by_supplementary, call_chown(by_supplementary, "/private", CAROL, -1));
        client_expect_error(no, DENIED, STICKY, call_unlink(no, "/private"));
        client_expect_done(by_primary, call_unlink(by_primary, "/private"));
        by_primary = client_free(by_primary);
        by_supplementary = client_free(by_supplementary);
        no = client_free(no);
        scene_end(&scene);
}

TEST(identity, root_may_do_anything) {
        Scene scene = scene_begin(NULL);
        Client *root = client_connect_as(scene.broker, 0, 0);

        client_expect_done(scene.alice, call_mkdir(scene.alice, "/d", 0000));
        client_expect_done(root, call_create(root, "/d/r", 1, NULL));
        client_expect_done(root, call_list(root, "/d", 0));
        client_expect_done(root, call_chmod(root, "/d/r", 0000));
        client_expect_done(root, call_open(root, "/d/r", READ_WRITE, NULL));
        client_expect_done(root, call_unlink(root, "/d/r"));
        client_expect_done(root, call_rmdir(root, "/d"));
        root = client_free(root);
        scene_end(&scene);
}

TEST(identity, accounts_of_others_are_for_administrators) {
        Scene scene = scene_begin(NULL);
        Client *root = client_connect_as(scene.broker, 0, 0);
        const ProtobufCMessage *of_alice =
                REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT, .set_uid = 1, .uid = ALICE);
        const ProtobufCMessage *of_bob =
                REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT, .set_uid = 1, .uid = BOB);
        const ProtobufCMessage *of_all = REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNTS);

        client_expect_done(scene.alice, client_call(scene.alice, MESSAGE_DF, of_alice));
        client_expect_error(scene.alice, DENIED, ADMIN, client_call(scene.alice, MESSAGE_DF, of_bob));
        client_expect_error(scene.alice, DENIED, ADMIN, client_call(scene.alice, MESSAGE_DF, of_all));
        client_expect_done(root, client_call(root, MESSAGE_DF, of_alice));
        client_expect_done(root, client_call(root, MESSAGE_DF, of_all));
        REQUIRE(((Shmd__DfReply *)root->reply)->n_accounts == 2);
        REQUIRE(((Shmd__DfReply *)root->reply)->accounts[1]->uid == ALICE);
        root = client_free(root);
        scene_end(&scene);
}
