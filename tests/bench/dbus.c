/* What people build today when a name shall stand for memory: a service on D-Bus that passes a memfd.
 *
 * The bus is a dbus-daemon of our own, with nobody else on it. The service is as light as one can be that does what
 * a broker does for an open: for each call it opens its memfd again through /proc/self/fd, so that the caller gets
 * a descriptor of its own with the rights it asked for, and returns it with its size. It knows one path and compares
 * it. It has no limits and no modes, keeps no books, and believes the caller; the bus asks its policy, which allows
 * everything.
 *
 * Its client calls it by sd-bus, waits, and keeps a copy of the descriptor, as descriptors in a message go with it.
 * Ours calls shmd_open() and waits. Neither is pinned to a processor: there are two processes at the other end of
 * D-Bus, and one of ours, and the scheduler may place them as it likes.
 */

#include "buildinfo.h"

#include "bench/bench.h"

#define NAME "dbus-open"
#define WHAT "open: a memfd by D-Bus, by ours"

#ifdef HAVE_LIBSYSTEMD

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/ours.h"

enum {
        TIMES = 1000,           /* in a round */
        NOBODY = 65534,
};

#define SERVICE "org.example.Memory"
#define OBJECT "/org/example/Memory"

/* -- the bus ------------------------------------------------------------------------------------- */

static const char config[] =
        "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN'\n"
        " 'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'>\n"
        "<busconfig>\n"
        "  <listen>unix:path=%s/bus</listen>\n"
        "  <auth>EXTERNAL</auth>\n"
        "  <policy context='default'>\n"
        "    <allow user='*'/>\n"
        "    <allow own='*'/>\n"
        "    <allow send_destination='*'/>\n"
        "    <allow receive_sender='*'/>\n"
        "  </policy>\n"
        "</busconfig>\n";

typedef struct Bus {
        pid_t pid;
        char dir[64];
        char address[96];       /* of the bus, as D-Bus writes it */
} Bus;

/* It becomes somebody without rights, as a broker does, but with a name: it wants one. What it says when it listens
 * is its address. Return: whether there is such a program. */
static bool bus_start(Bus *bus) {
        char file[96], option[128], said[256] = "";
        pid_t parent = getpid();
        int said_fds[2];
        FILE *out;

        (void)snprintf(bus->dir, sizeof(bus->dir), "/tmp/shmd-bench-XXXXXX");
        REQUIRE(mkdtemp(bus->dir) && chmod(bus->dir, 0755) == 0, "%s", strerror(errno));
        if (geteuid() == 0)
                REQUIRE(chown(bus->dir, NOBODY, NOBODY) == 0, "%s", strerror(errno));
        (void)snprintf(bus->address, sizeof(bus->address), "unix:path=%s/bus", bus->dir);
        (void)snprintf(file, sizeof(file), "%s/bus.conf", bus->dir);
        out = fopen(file, "we");
        REQUIRE(out && fprintf(out, config, bus->dir) > 0 && fclose(out) == 0, "%s: %s", file, strerror(errno));

        REQUIRE(pipe2(said_fds, O_CLOEXEC) == 0);
        bus->pid = fork();
        REQUIRE(bus->pid >= 0);
        if (bus->pid == 0) {
                if (geteuid() == 0)
                        test_become(NOBODY, NOBODY);
                test_end_with(parent);
                REQUIRE(dup2(said_fds[1], STDOUT_FILENO) >= 0);
                (void)snprintf(option, sizeof(option), "--config-file=%s", file);
                (void)execlp("dbus-daemon", "dbus-daemon", "--nofork", "--nopidfile", "--print-address=1", option,
                             (char *)NULL);
                _exit(127);
        }
        (void)close_fd(said_fds[1]);
        REQUIRE(read(said_fds[0], said, sizeof(said) - 1) >= 0);
        (void)close_fd(said_fds[0]);
        return said[0] != '\0';
}

static void bus_stop(Bus *bus) {
        char path[96];

        (void)kill(bus->pid, SIGTERM);
        (void)test_wait_pid(bus->pid);
        (void)snprintf(path, sizeof(path), "%s/bus.conf", bus->dir);
        (void)unlink(path);
        (void)snprintf(path, sizeof(path), "%s/bus", bus->dir);
        (void)unlink(path);
        (void)rmdir(bus->dir);
}

static sd_bus *bus_connect(const Bus *bus) {
        sd_bus *connection = NULL;
        int r;

        REQUIRE(sd_bus_new(&connection) >= 0);
        REQUIRE(sd_bus_set_address(connection, bus->address) >= 0);
        REQUIRE(sd_bus_set_bus_client(connection, true) >= 0);
        REQUIRE(sd_bus_negotiate_fds(connection, true) >= 0);
        r = sd_bus_start(connection);
        REQUIRE(r >= 0, "%s", strerror(-r));
        return connection;
}

/* -- the service ---------------------------------------------------------------------------------- */

static int on_open(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        const int *memfd = userdata;
        const char *path;
        char link[32];
        int writable, fd, r;

        r = sd_bus_message_read(message, "sb", &path, &writable);
        if (r < 0)
                return r;
        if (strcmp(path, OURS_PATH) != 0)
                return -ENOENT;
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", *memfd);
        fd = open(link, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = sd_bus_reply_method_return(message, "ht", fd, OURS_SIZE);
        (void)close_fd(fd);
        return r;
}

static int serve(void *userdata) {
        static const sd_bus_vtable methods[] = {
                SD_BUS_VTABLE_START(0),
                SD_BUS_METHOD("Open", "sb", "ht", on_open, SD_BUS_VTABLE_UNPRIVILEGED),
                SD_BUS_VTABLE_END,
        };
        int memfd = memfd_create("bench", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        sd_bus *bus = bus_connect(userdata);
        int r;

        REQUIRE(memfd >= 0 && ftruncate(memfd, OURS_SIZE) == 0 && fchmod(memfd, 0600) == 0);
        REQUIRE(sd_bus_add_object_vtable(bus, NULL, OBJECT, SERVICE, methods, &memfd) >= 0);
        r = sd_bus_request_name(bus, SERVICE, 0);
        REQUIRE(r >= 0, "%s", strerror(-r));
        child_arrive(0);
        do {
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
        } while (r >= 0);
        return 0;
}

/* -- the clients ---------------------------------------------------------------------------------- */

static int open_by_dbus(sd_bus *bus) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply = NULL;
        uint64_t size;
        int fd, r;

        r = sd_bus_call_method(bus, SERVICE, OBJECT, SERVICE, "Open", &error, &reply, "sb", OURS_PATH, false);
        REQUIRE(r >= 0, "%s", error.message);
        REQUIRE(sd_bus_message_read(reply, "ht", &fd, &size) >= 0 && size == OURS_SIZE);
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        REQUIRE(fd >= 0);
        sd_bus_message_unref(reply);
        return fd;
}

static void run_dbus(void *userdata, double *ns, size_t n) {
        for (size_t i = 0; i < n; ++i) {
                int64_t began = test_now_ns();
                int fd = open_by_dbus(userdata);

                ns[i] = (double)(test_now_ns() - began);
                (void)close_fd(fd);
        }
}

static void measure(const Bus *bus) {
        sd_bus *connection = bus_connect(bus);
        BenchTimes dbus_ns, ours_ns;
        Ours ours;
        BenchSide sides[] = { { run_dbus, connection, TIMES, &dbus_ns }, { ours_open, &ours, TIMES, &ours_ns } };

        ours_start(&ours);
        bench_take_turns(sides, 2, bench_rounds(15, 5));
        bench_row(&(BenchRow){ .name = NAME, .what = WHAT, .unit = "ns", .figure = &dbus_ns.p50,
                               .against = &ours_ns.p50, .target = BENCH_AT_LEAST(3) });
        bench_row(&(BenchRow){ .name = NAME "-p99", .what = WHAT ", p99", .unit = "ns", .figure = &dbus_ns.p99,
                               .against = &ours_ns.p99 });
        sd_bus_flush_close_unref(connection);
        ours_stop(&ours);
}

TEST(bench, opens_are_several_times_faster_than_by_dbus) {
        Child service = CHILD_NULL;
        Bus bus;

        if (!bus_start(&bus)) {
                bench_unmeasured(NAME, WHAT, "dbus-daemon did not start: is it installed?");
        } else {
                child_spawn(&service, serve, &bus);
                child_continue(&service);
                measure(&bus);
                child_kill(&service);
        }
        bus_stop(&bus);
}

#else

TEST(bench, opens_are_several_times_faster_than_by_dbus) {
        bench_unmeasured(NAME, WHAT, "built without libsystemd (libsystemd-dev)");
}

#endif
