/* Attacks on the broker's ways to find out who holds what: its marks, its events, its leases. Whatever
 * is done to them, a region is charged until the last holder is gone, and no longer.
 */

#include "lib/innocent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (16 * PAGE)
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES
#define GRANTS_SLOT SHMD__SLOT__SLOT_GRANTS

/* Where marks are: PROTOCOL.md. */
#define MARKS (INT64_C(1) << 62)

typedef struct Scene {
        Broker *broker;
        Client *alice;
} Scene;

static Scene scene_begin(const char *config) {
        Scene scene = { 0 };

        test_needs_root();
        scene.broker = broker_spawn(config);
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        return scene;
}

static void scene_end(Scene *scene) {
        client_expect_used(scene->alice, BYTES_SLOT, 0);
        client_expect_used(scene->alice, SHMD__SLOT__SLOT_REGIONS, 0);
        scene->alice = client_free(scene->alice);
        scene->broker = broker_stop(scene->broker);
}

/* Looked at twice, because a mistake takes a moment. */
static void require_charged(Scene *scene, uint64_t bytes) {
        REQUIRE(client_used(scene->alice, BYTES_SLOT) == bytes);
        test_sleep_ms(150);
        REQUIRE(client_used(scene->alice, BYTES_SLOT) == bytes);
}

static void lock_bytes(int fd, short type, int64_t first, int64_t n) {
        struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = first, .l_len = n };

        REQUIRE(fcntl(fd, F_OFD_SETLK, &lock) == 0, "%s", strerror(errno));
}

static const Shmd__StatReply *stat_holders(Client *client, const char *path) {
        client_expect_done(client, client_call(client, MESSAGE_STAT,
                                               REQUEST(Stat, stat, .path = BYTES(path),
                                                       .flags = SHMD__STAT_FLAGS__STAT_HOLDERS)));
        return (const Shmd__StatReply *)client->reply;
}

/* -- huge pages --------------------------------------------------------------------------- */

TEST(accounting, attack_062_more_huge_pages_than_are_free_are_refused_and_cost_nothing) {
        Scene scene = scene_begin("[account]\nbytes = unlimited\n[global]\nbytes = unlimited");
        bool have = test_huge_pages_begin(0);
        uint64_t n = test_huge_pages();

        REQUIRE(call_create_with(scene.alice, REQUEST(Create, create, .path = BYTES("/h"), .size = (n + 1) << 21,
                                                      .mode = 0600, .huge_page_size = 21), NULL) != 0);
        REQUIRE(scene.alice->refusal->reason == SHMD__REASON__REASON_HUGE_PAGES, "%s", client_describe(scene.alice));
        REQUIRE(client_used(scene.alice, BYTES_SLOT) == 0);
        client_expect_error(scene.alice, NOT_FOUND, MISSING, call_stat(scene.alice, "/h"));
        if (have)
                test_huge_pages_end();
        scene_end(&scene);
}

/* -- marks -------------------------------------------------------------------------------- */

TEST(accounting, attack_087_who_takes_its_marks_away_stays_charged_and_is_released_as_ever) {
        Scene scene = scene_begin(NULL);
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        Grant grants[100], own = GRANT_NULL;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0644, &own));
        for (size_t i = 0; i < 100; ++i) {
                grants[i] = (Grant)GRANT_NULL;
                client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &grants[i]));
                lock_bytes(grants[i].fd, F_UNLCK, 0, 0);
        }
        lock_bytes(own.fd, F_UNLCK, 0, 0);
        /* Nobody is known any more, and still the kernel says that it is held. */
        bob = client_free(bob);
        REQUIRE(stat_holders(scene.alice, "/r")->held);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        grant_deinit(&own);
        for (size_t i = 0; i < 100; ++i) {
                if (i % 25 == 0)
                        require_charged(&scene, SIZE);
                grant_deinit(&grants[i]);
        }
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        client_expect_used(scene.alice, GRANTS_SLOT, 0);
        scene_end(&scene);
}

/* Marks of others, of grants to come, and one over everything. */
TEST(accounting, attack_087_forged_marks_keep_nothing_and_explain_nothing_away) {
        Scene scene = scene_begin("[account]\ngrants = 200");
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        Grant own = GRANT_NULL, forger = GRANT_NULL;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0644, &own));
        client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &forger));
        lock_bytes(forger.fd, F_RDLCK, MARKS, 0);
        for (int i = 0; i < 1000; ++i) {
                Grant grant = GRANT_NULL;

                /* What it forges keeps the opener's grants on the books; its own limit ends that. */
                if (call_open(scene.alice, "/r", READ_ONLY, &grant)) {
                        REQUIRE(scene.alice->refusal->slot == GRANTS_SLOT, "%s", client_describe(scene.alice));
                        break;
                }
                grant_deinit(&grant);
        }
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        grant_deinit(&own);
        require_charged(&scene, SIZE);
        grant_deinit(&forger);
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        client_expect_used(scene.alice, GRANTS_SLOT, 0);
        bob = client_free(bob);
        scene_end(&scene);
}

TEST(accounting, attack_087_flock_and_leases_of_clients_stand_in_nobodys_way) {
        Scene scene = scene_begin(NULL);
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        Grant own = GRANT_NULL, other = GRANT_NULL, again = GRANT_NULL;

        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0666, &own));
        client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &other));
        REQUIRE(flock(other.fd, LOCK_EX) == 0);
        /* Even root gets no lease: the broker has it open for writing. */
        REQUIRE(fcntl(other.fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN, "%s", strerror(errno));
        REQUIRE(fcntl(other.fd, F_SETLEASE, F_WRLCK) < 0 && errno == EAGAIN, "%s", strerror(errno));
        client_expect_done(scene.alice, call_open(scene.alice, "/r", READ_WRITE, &again));
        grant_deinit(&again);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        grant_deinit(&own);
        require_charged(&scene, SIZE);
        grant_deinit(&other);
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        bob = client_free(bob);
        scene_end(&scene);
}

static int try_leases(void *fd) {
        int copy = *(int *)fd;

        /* As the owner of the inode one may: it is only in use. */
        REQUIRE(fcntl(copy, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN, "%s", strerror(errno));
        REQUIRE(fcntl(copy, F_SETLEASE, F_WRLCK) < 0 && errno == EAGAIN, "%s", strerror(errno));
        return 0;
}

/* A lease on a region would make the broker's next open of it fail, or wait. */
TEST(accounting, attack_088_a_process_of_the_brokers_own_user_gets_no_lease_on_a_region) {
        Scene scene = scene_begin(NULL);
        Grant reads = GRANT_NULL, writes = GRANT_NULL;
        Innocent innocent;

        innocent_start(&innocent, scene.broker, BOB);
        client_expect_done(scene.alice, call_create(scene.alice, "/r", SIZE, NULL));
        client_expect_done(scene.alice, call_open(scene.alice, "/r", READ_ONLY, &reads));
        REQUIRE(run_as(test_broker_uid(), test_broker_uid(), try_leases, &reads.fd) == 0);
        client_expect_done(scene.alice, call_open(scene.alice, "/r", READ_WRITE, &writes));
        grant_deinit(&reads);
        grant_deinit(&writes);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        (void)innocent_stop(&innocent, "leases of the broker's user");
        scene_end(&scene);
}

/* -- readers ------------------------------------------------------------------------------------ */

static int hold_it(void *fd) {
        child_close_fds_but(*(int *)fd);
        child_arrive(0);
        return 0;
}

TEST(accounting, attack_081_of_a_hundred_readers_one_that_is_stopped_keeps_its_region_and_nothing_else) {
        enum { READERS = 100, STOPPED = 42 };
        Scene scene = scene_begin(NULL);
        Client *bob = client_connect_as(scene.broker, BOB, BOB);
        Child readers[READERS];
        Innocent innocent;

        innocent_start(&innocent, scene.broker, CAROL);
        client_expect_done(scene.alice, call_create_mode(scene.alice, "/r", SIZE, 0644, NULL));
        for (size_t i = 0; i < READERS; ++i) {
                Grant grant = GRANT_NULL;

                client_expect_done(bob, call_open(bob, "/r", READ_ONLY, &grant));
                readers[i] = (Child)CHILD_NULL;
                child_spawn(&readers[i], hold_it, &grant.fd);
                grant_deinit(&grant);
        }
        REQUIRE(kill(readers[STOPPED].pid, SIGSTOP) == 0);
        client_expect_done(scene.alice, call_unlink(scene.alice, "/r"));
        for (size_t i = 0; i < READERS; ++i)
                if (i != STOPPED)
                        child_release(&readers[i]);
        require_charged(&scene, SIZE);
        client_expect_done(bob, call_create(bob, "/r", SIZE, NULL));
        client_expect_done(bob, call_unlink(bob, "/r"));
        child_kill(&readers[STOPPED]);
        client_expect_used(scene.alice, BYTES_SLOT, 0);
        bob = client_free(bob);
        (void)innocent_stop(&innocent, "a reader that is stopped");
        scene_end(&scene);
}

/* -- events --------------------------------------------------------------------------------------- */

static void reopen_and_close(int fd) {
        char path[64];
        int again;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        again = open(path, O_RDONLY | O_CLOEXEC);
        REQUIRE(again >= 0, "%s", strerror(errno));
        close_fd(again);
}

/* While the broker is stopped more is closed than the kernel remembers, and the last close of all is
 * among what it forgets. */
TEST(accounting, attack_084_events_that_were_lost_leave_nothing_charged) {
        Scene scene = scene_begin(NULL);
        Grant noise[2] = { GRANT_NULL, GRANT_NULL }, lost[50];
        int events = 20000;
        FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");

        if (file) {
                REQUIRE(fscanf(file, "%d", &events) == 1);
                (void)fclose(file);
        }
        for (size_t i = 0; i < 2; ++i)
                client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &noise[i]));
        for (size_t i = 0; i < 50; ++i) {
                lost[i] = (Grant)GRANT_NULL;
                client_expect_done(scene.alice, call_create(scene.alice, NULL, SIZE, &lost[i]));
        }
        REQUIRE(kill(scene.broker->pid, SIGSTOP) == 0);
        for (int i = 0; i < events + 100; ++i)          /* equal ones in a row are one */
                reopen_and_close(noise[i % 2].fd);
        for (size_t i = 0; i < 50; ++i)
                grant_deinit(&lost[i]);
        REQUIRE(kill(scene.broker->pid, SIGCONT) == 0);
        client_expect_used(scene.alice, BYTES_SLOT, 2 * SIZE);
        grant_deinit(&noise[0]);
        grant_deinit(&noise[1]);
        scene_end(&scene);
}

/* All inotify instances that the broker's user may have: to the kernel, none is left and no descriptor is left
 * are the same. */
static int take_instances_as_broker(void *userdata) {
        rlim_t most = (rlim_t)test_read_number("/proc/sys/fs/inotify/max_user_instances") + 1000;
        int n = 0;

        (void)userdata;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ most, most }) == 0, "%llu descriptors: %s",
                (unsigned long long)most, strerror(errno));
        test_become(test_broker_uid(), test_broker_uid());
        while (inotify_init1(IN_CLOEXEC) >= 0)
                ++n;
        REQUIRE(errno == EMFILE, "%s", strerror(errno));
        REQUIRE(close(open("/", O_PATH | O_CLOEXEC)) == 0, "descriptors ended first, after %d instances", n);
        child_arrive(n);
        return 0;
}

/* Inotify watches that the broker has. */
static size_t count_watches(Broker *broker) {
        char path[512], line[256];
        struct dirent *entry;
        size_t n = 0;
        DIR *dir;

        (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)broker->pid);
        dir = opendir(path);
        REQUIRE(dir, "%s: %s", path, strerror(errno));
        while ((entry = readdir(dir))) {
                FILE *file;

                (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)broker->pid, entry->d_name);
                file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
                while (file && fgets(line, sizeof(line), file))
                        n += strncmp(line, "inotify wd:", 11) == 0;
                if (file)
                        (void)fclose(file);
        }
        (void)closedir(dir);
        return n;
}

/* A life of 20 regions that are held for a while, on a broker that can watch so many of them. */
static void live(Scene *scene, size_t watches) {
        Grant grants[20];

        for (size_t i = 0; i < 20; ++i) {
                grants[i] = (Grant)GRANT_NULL;
                client_expect_done(scene->alice, call_create(scene->alice, NULL, SIZE, &grants[i]));
        }
        REQUIRE(count_watches(scene->broker) == watches, "%zu", count_watches(scene->broker));
        require_charged(scene, 20 * SIZE);
        for (size_t i = 0; i < 20; ++i)
                grant_deinit(&grants[i]);
        client_expect_used(scene->alice, BYTES_SLOT, 0);
}

TEST(accounting, attack_083_without_an_inotify_instance_regions_are_made_and_released_by_a_timer) {
        Child taker = CHILD_NULL;
        Scene scene;

        test_needs_root();
        child_spawn(&taker, take_instances_as_broker, NULL);
        scene = scene_begin(NULL);
        broker_expect_log(scene.broker, "event=degraded", "missing=inotify");
        live(&scene, 0);
        child_release(&taker);
        scene_end(&scene);
}

/* A user namespace in which all users' numbers are what they were, and inotify watches are few. */
static void have_few_watches(void *userdata) {
        int go[2], done[2];
        char path[64], byte = 0;
        FILE *file;
        pid_t pid;

        REQUIRE(pipe(go) == 0 && pipe(done) == 0);
        pid = getpid();
        if (fork() == 0) {
                REQUIRE(read(go[0], &byte, 1) == 1);
                for (int i = 0; i < 2; ++i) {
                        (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, i ? "gid_map" : "uid_map");
                        file = fopen(path, "we");
                        REQUIRE(file && fputs("0 0 65536", file) >= 0 && fclose(file) == 0, "%s: %s", path,
                                strerror(errno));
                }
                REQUIRE(write(done[1], &byte, 1) == 1);
                _exit(0);
        }
        REQUIRE(unshare(CLONE_NEWUSER) == 0, "%s", strerror(errno));
        REQUIRE(write(go[1], &byte, 1) == 1 && read(done[0], &byte, 1) == 1);
        file = fopen("/proc/sys/user/max_inotify_watches", "we");
        REQUIRE(file && fprintf(file, "%d", *(int *)userdata) > 0 && fclose(file) == 0, "%s", strerror(errno));
        for (int i = 0; i < 2; ++i) {
                close_fd(go[i]);
                close_fd(done[i]);
        }
}

TEST(accounting, attack_083_regions_beyond_the_last_inotify_watch_are_released_by_a_timer) {
        int watches = 10;
        Scene scene = { 0 };

        test_needs_namespaces(CLONE_NEWUSER);
        scene.broker = broker_spawn_with(&(BrokerOptions){ .prepare = have_few_watches, .userdata = &watches });
        scene.alice = client_connect_as(scene.broker, ALICE, ALICE);
        REQUIRE(broker_log_count(scene.broker, "missing=inotify") == 0, "there are some");
        live(&scene, (size_t)watches);
        live(&scene, (size_t)watches);
        scene_end(&scene);
}
