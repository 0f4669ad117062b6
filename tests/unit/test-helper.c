/* daemon/helper: a supervisor that forks and kills workers, and workers that do one thing. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helper.h"
#include "util/helperlink.h"
#include "util/memfd.h"
#include "util/probe.h"

static int control;

static void begin(void) {
        REQUIRE(helper_start(&control) == 0);
}

/* Ends the supervisor as the broker does, and waits for it. */
static void end(void) {
        int status;

        control = close_fd(control);
        REQUIRE(wait(&status) > 0 && status == 0, "the supervisor ended with %#x", status);
}

static void tell(HelperOp op, int64_t pid) {
        HelperPacket packet = { .op = op, .pid = pid };

        REQUIRE(helperlink_send(control, &packet, -1) == 0);
}

/* Return: what the supervisor answered. */
static int spawn(int64_t *ret_pid, int *ret_link) {
        HelperPacket packet;

        tell(HELPER_SPAWN, 0);
        REQUIRE(helperlink_receive(control, true, &packet, ret_link) == 0);
        REQUIRE(packet.op == HELPER_WORKER && (packet.result == 0) == (*ret_link >= 0));
        *ret_pid = packet.pid;
        return packet.result;
}

static int do_job(int link, const HelperPacket *job, int fd) {
        HelperPacket answer;
        int got;

        REQUIRE(helperlink_send(link, job, fd) == 0);
        REQUIRE(helperlink_receive(link, true, &answer, &got) == 0 && got == -1);
        REQUIRE(answer.op == HELPER_DONE && answer.serial == job->serial);
        return answer.result;
}

static void expect_gone(int link) {
        HelperPacket packet;
        struct pollfd p = { .fd = link, .events = POLLIN };
        int fd;

        REQUIRE(poll(&p, 1, TEST_PATIENCE_MS) == 1);
        REQUIRE(helperlink_receive(link, false, &packet, &fd) == HELPERLINK_E_GONE);
}

static int make_region(bool freezable) {
        int fd;

        REQUIRE(probe_run() == 0 && memfd_make(&(MemfdSpec){ .size = PAGE, .freezable = freezable }, &fd) == 0);
        return fd;
}

/* -- jobs ---------------------------------------------------------------------------------- */

TEST(helper, a_worker_adds_seals_and_says_so_again_when_they_are_there) {
        HelperPacket job = { .op = HELPER_SEAL, .serial = 1, .seals = F_SEAL_WRITE | F_SEAL_SEAL };
        int region = make_region(true), link;
        int64_t pid;

        begin();
        REQUIRE(spawn(&pid, &link) == 0);
        cr_assert_eq(do_job(link, &job, region), 0);
        cr_assert_eq(memfd_seals(region) & job.seals, job.seals);
        job.serial = 2;
        cr_assert_eq(do_job(link, &job, region), 0);
        link = close_fd(link);
        region = close_fd(region);
        end();
}

TEST(helper, seals_that_cannot_be_added_are_an_error) {
        HelperPacket job = { .op = HELPER_SEAL, .serial = 1, .seals = F_SEAL_WRITE };
        int sealed = make_region(false), open = make_region(true), link, reader;
        int64_t pid;

        begin();
        REQUIRE(spawn(&pid, &link) == 0);
        cr_assert_eq(do_job(link, &job, sealed), -EPERM);
        REQUIRE(memfd_reopen(open, false, &reader) == 0);
        cr_assert_eq(do_job(link, &job, reader), -EPERM);
        cr_assert_eq(do_job(link, &job, link), -EINVAL);
        cr_assert_eq(do_job(link, &job, -1), -EBADF);
        link = close_fd(link);
        reader = close_fd(reader);
        sealed = close_fd(sealed);
        open = close_fd(open);
        end();
}

TEST(helper, a_region_that_is_mapped_for_writing_is_busy) {
        HelperPacket job = { .op = HELPER_SEAL, .serial = 1, .seals = F_SEAL_WRITE };
        int region = make_region(true), link;
        int64_t pid;
        void *map;

        begin();
        map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, region, 0);
        REQUIRE(map != MAP_FAILED && spawn(&pid, &link) == 0);
        cr_assert_eq(do_job(link, &job, region), -EBUSY);
        REQUIRE(munmap(map, PAGE) == 0);
        cr_assert_eq(do_job(link, &job, region), 0);
        link = close_fd(link);
        region = close_fd(region);
        end();
}

TEST(helper, a_worker_writes_one_byte) {
        HelperPacket job = { .op = HELPER_POKE, .serial = 1, .offset = 77, .byte = 0xa5 };
        int region = make_region(false), link;
        unsigned char around[3];
        int64_t pid;

        begin();
        REQUIRE(spawn(&pid, &link) == 0);
        cr_assert_eq(do_job(link, &job, region), 0);
        REQUIRE(pread(region, around, 3, 76) == 3);
        cr_assert(around[0] == 0 && around[1] == 0xa5 && around[2] == 0);
        job.offset = PAGE;
        cr_assert_eq(do_job(link, &job, region), -EPERM, "beyond the end of a sealed region");
        job.offset = UINT64_MAX;
        cr_assert_eq(do_job(link, &job, region), -EINVAL);
        link = close_fd(link);
        region = close_fd(region);
        end();
}

TEST(helper, a_worker_closes_what_is_enclosed) {
        HelperPacket job = { .op = HELPER_BURY, .serial = 1 };
        int region = make_region(false), own, link;
        int64_t pid;

        begin();
        REQUIRE(spawn(&pid, &link) == 0 && memfd_reopen(region, true, &own) == 0);
        REQUIRE(helperlink_enclose(&own) == 0);
        cr_assert_eq(memfd_probe(region), MEMFD_E_HELD);
        cr_assert_eq(do_job(link, &job, own), 0);
        cr_assert_eq(memfd_probe(region), 0);
        cr_assert_lt(do_job(link, &job, own), 0, "there is nothing in it any more");
        cr_assert_lt(do_job(link, &job, region), 0, "nor in a region");
        link = close_fd(link);
        own = close_fd(own);
        region = close_fd(region);
        end();
}

TEST(helper, what_is_no_job_is_refused) {
        static const uint32_t ops[] = { 0, HELPER_SPAWN, HELPER_KILL, HELPER_DONE, 99, UINT32_MAX };
        int link;
        int64_t pid;

        begin();
        REQUIRE(spawn(&pid, &link) == 0);
        for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); ++i)
                cr_assert_eq(do_job(link, &(HelperPacket){ .op = ops[i], .serial = i + 1 }, -1), -EINVAL);
        link = close_fd(link);
        end();
}

TEST(helper, a_copy_of_the_brokers_description_does_not_count_as_a_holder) {
        HelperPacket job = { .op = HELPER_POKE, .serial = 1 };
        int region = make_region(false), link, holder;
        int64_t pid;

        if (!probe_have(PROBE_LEASE))
                test_skip("leases do not work on memfds here");
        begin();
        REQUIRE(spawn(&pid, &link) == 0);
        REQUIRE(kill((pid_t)pid, SIGSTOP) == 0 && helperlink_send(link, &job, region) == 0);
        cr_assert_eq(memfd_probe(region), 0, "in flight");
        REQUIRE(kill((pid_t)pid, SIGCONT) == 0);
        REQUIRE(helperlink_receive(link, true, &job, &holder) == 0);
        cr_assert_eq(memfd_probe(region), 0);
        REQUIRE(memfd_reopen(region, false, &holder) == 0);
        cr_assert_eq(memfd_probe(region), MEMFD_E_HELD);
        holder = close_fd(holder);
        link = close_fd(link);
        region = close_fd(region);
        end();
}

/* Whether a process has any descriptor beyond its standard ones and n sockets. */
static size_t count_fds_of(int64_t pid) {
        char path[64];
        size_t n = 0;

        for (int fd = 3; fd < 64; ++fd) {
                (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
                n += access(path, F_OK) == 0;
        }
        return n;
}

TEST(helper, what_was_answered_was_let_go_of) {
        HelperPacket job = { .op = HELPER_POKE, .serial = 1 };
        int region = make_region(false), link;
        int64_t pid;

        test_needs_root();
        begin();
        REQUIRE(spawn(&pid, &link) == 0);
        REQUIRE(do_job(link, &job, region) == 0);
        cr_assert_eq(count_fds_of(pid), 1, "its socket");
        link = close_fd(link);
        region = close_fd(region);
        end();
}

/* -- workers ------------------------------------------------------------------------------- */

TEST(helper, a_killed_worker_is_gone_and_its_place_is_free_once_reaped) {
        int64_t pids[HELPER_PROCESSES_MAX], pid;
        int links[HELPER_PROCESSES_MAX], link;

        begin();
        for (size_t i = 0; i < HELPER_PROCESSES_MAX; ++i)
                REQUIRE(spawn(&pids[i], &links[i]) == 0);
        cr_assert_eq(spawn(&pid, &link), -EAGAIN, "one too many");
        tell(HELPER_KILL, pids[3]);
        expect_gone(links[3]);
        cr_assert_eq(spawn(&pid, &link), -EAGAIN, "not reaped yet");
        tell(HELPER_REAP, pids[3]);
        links[3] = close_fd(links[3]);
        REQUIRE(spawn(&pids[3], &links[3]) == 0);
        for (size_t i = 0; i < HELPER_PROCESSES_MAX; ++i) {
                cr_assert_eq(do_job(links[i], &(HelperPacket){ .op = HELPER_SPAWN, .serial = 1 }, -1), -EINVAL);
                links[i] = close_fd(links[i]);
        }
        end();
}

TEST(helper, a_worker_ends_with_its_socket) {
        int64_t pid;
        int link;

        begin();
        REQUIRE(spawn(&pid, &link) == 0);
        link = close_fd(link);
        tell(HELPER_REAP, pid);
        REQUIRE(spawn(&pid, &link) == 0);
        link = close_fd(link);
        end();
}

TEST(helper, workers_end_with_their_supervisor) {
        int64_t pids[2];
        int links[2], status;
        pid_t supervisor;

        begin();
        for (size_t i = 0; i < 2; ++i)
                REQUIRE(spawn(&pids[i], &links[i]) == 0);
        control = close_fd(control);
        supervisor = wait(&status);
        REQUIRE(supervisor > 0 && status == 0);
        for (size_t i = 0; i < 2; ++i) {
                expect_gone(links[i]);
                links[i] = close_fd(links[i]);
        }
}

TEST(helper, nobody_is_killed_or_waited_for_whom_it_did_not_fork) {
        pid_t other = fork();
        int64_t pid;
        int link;

        if (other == 0) {
                (void)pause();
                _exit(0);
        }
        begin();
        REQUIRE(other > 0);
        tell(HELPER_KILL, other);
        tell(HELPER_KILL, 0);
        tell(HELPER_KILL, -1);
        tell(HELPER_REAP, other);
        tell(HELPER_REAP, 0);
        tell(HELPER_REAP, -1);
        REQUIRE(spawn(&pid, &link) == 0);
        cr_assert_eq(kill(other, 0), 0);
        cr_assert_eq(waitpid(other, NULL, WNOHANG), 0, "it was killed");
        REQUIRE(kill(other, SIGKILL) == 0 && waitpid(other, NULL, 0) == other);
        link = close_fd(link);
        end();
}

TEST(helper, what_the_supervisor_does_not_know_ends_it) {
        int status;

        begin();
        tell(HELPER_SEAL, 0);
        REQUIRE(wait(&status) > 0 && status == 0);
        expect_gone(control);
        control = close_fd(control);
}
