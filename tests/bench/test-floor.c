/* The floor makes the system calls that it says, and no others: what shmd is measured against is the least. */

#include "bench/driver.h"

#include <fcntl.h>
#include <string.h>

#include "lib/tracer.h"

#define REPLY 40

static void expect(const char *kind, Packet *packet, const char *calls) {
        Floor floor;
        int fd;

        floor_start(&floor, kind, REPLY, 3);
        for (int i = 0; i < 5; ++i) {
                const char *made;

                (void)driver_ask(&floor.driver, packet, &fd, 1);
                close_fd(fd);
                REQUIRE(floor.driver.n_answer == REPLY);
                made = driver_calls(&floor.driver, packet, 1, floor.pid, "recvfrom");
                REQUIRE(strcmp(made, calls) == 0, "%s: %s", kind, made);
        }
        floor_stop(&floor);
        packet_deinit(packet);
}

TEST(floor, an_open_costs_four_system_calls) {
        Packet packet;

        tracer_needed();
        packet_open(&packet, "/a/b/c");
        expect("open", &packet, FLOOR_OPEN_CALLS);
}

TEST(floor, a_create_costs_ten_system_calls) {
        Packet packet;

        tracer_needed();
        packet_create(&packet, "/a/b/c");
        expect("create", &packet, FLOOR_CREATE_CALLS);
}

TEST(floor, an_echo_is_without_either_however_busy) {
        Packet packet, open;

        tracer_needed();
        packet_open(&open, "/a/b/c");
        packet_echo(&packet, &open);
        packet_set_busy(&packet, 100000);
        expect("echo", &packet, FLOOR_ECHO_CALLS);
        packet_deinit(&open);
}

TEST(floor, an_echo_takes_as_long_as_it_is_told) {
        static const double ms = 1e6;
        Packet packet, open;
        Floor floor;
        int fd;

        packet_open(&open, "/a/b/c");
        packet_echo(&packet, &open);
        floor_start(&floor, "echo", REPLY, 1);
        for (int i = 0; i < 5; ++i) {
                packet_set_busy(&packet, i * ms);
                REQUIRE(driver_ask(&floor.driver, &packet, &fd, 1) >= i * ms);
                close_fd(fd);
        }
        floor_stop(&floor);
        packet_deinit(&open);
        packet_deinit(&packet);
}

/* A mode that costs more than what was asked for would make it slower than it has to be. */
TEST(floor, what_was_opened_can_only_be_read) {
        Packet packet;
        Floor floor;
        int fd;

        packet_open(&packet, "/a/b/c");
        floor_start(&floor, "open", REPLY, 3);
        (void)driver_ask(&floor.driver, &packet, &fd, 1);
        REQUIRE((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
        close_fd(fd);
        floor_stop(&floor);
        packet_deinit(&packet);
}

/* What it hands out is what the broker would hand out: sealed, of that size, and nobody else's. */
TEST(floor, what_was_created_is_a_region_until_it_is_unlinked) {
        struct stat first, second;
        Packet create, unlink;
        Floor floor;
        int fds[2];

        packet_create(&create, "/a/b/c");
        packet_unlink(&unlink, "/a/b/c");
        floor_start(&floor, "create", REPLY, 1);
        for (int i = 0; i < 2; ++i)
                (void)driver_ask(&floor.driver, &create, &fds[i], 1);
        REQUIRE(fstat(fds[0], &first) == 0 && fstat(fds[1], &second) == 0);
        REQUIRE(first.st_size == 4096 && (first.st_mode & 07777) == 0600 && first.st_ino != second.st_ino);
        REQUIRE(fcntl(fds[0], F_GET_SEALS) & F_SEAL_SHRINK && fcntl(fds[0], F_GET_SEALS) & F_SEAL_SEAL);
        for (int i = 0; i < 2; ++i) {
                REQUIRE(fcntl(fds[i], F_SETLEASE, F_WRLCK) < 0, "the floor holds it as well");
                (void)driver_ask(&floor.driver, &unlink, NULL, 0);
                REQUIRE(fcntl(fds[i], F_SETLEASE, F_WRLCK) == 0, "the floor holds it no more");
                close_fd(fds[i]);
        }
        floor_stop(&floor);
        packet_deinit(&create);
        packet_deinit(&unlink);
}
