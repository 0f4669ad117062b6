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
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/rival.h"

enum { TIMES = 1000 };          /* in a round */

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

/* What it says when it listens is its address. Return: whether there is such a program. */
static bool bus_start(Rival *bus) {
        static const char *const argv[] = { "dbus-daemon", "--nofork", "--nopidfile", "--print-address=1",
                                            "--config-file=bus.conf", NULL };
        FILE *out;

        rival_init(bus);
        out = fopen(rival_path(bus, "bus.conf"), "we");
        REQUIRE(out && fprintf(out, config, bus->dir) > 0 && fclose(out) == 0, "%s", strerror(errno));
        return rival_start(bus, -1, argv);
}

static sd_bus *bus_connect(const Rival *bus) {
        sd_bus *connection = NULL;
        char address[64];
        int r;

        REQUIRE(sd_bus_new(&connection) >= 0);
        (void)snprintf(address, sizeof(address), "unix:path=%s", rival_path(bus, "bus"));
        REQUIRE(sd_bus_set_address(connection, address) >= 0);
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
        if (strcmp(path, RIVAL_PATH) != 0)
                return -ENOENT;
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", *memfd);
        fd = open(link, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = sd_bus_reply_method_return(message, "ht", fd, RIVAL_SIZE);
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

        REQUIRE(memfd >= 0 && ftruncate(memfd, RIVAL_SIZE) == 0 && fchmod(memfd, 0600) == 0);
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

        r = sd_bus_call_method(bus, SERVICE, OBJECT, SERVICE, "Open", &error, &reply, "sb", RIVAL_PATH, false);
        REQUIRE(r >= 0, "%s", error.message);
        REQUIRE(sd_bus_message_read(reply, "ht", &fd, &size) >= 0 && size == RIVAL_SIZE);
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

TEST(bench, opens_are_several_times_faster_than_by_dbus) {
        Child service = CHILD_NULL;
        sd_bus *connection;
        Rival bus;

        if (!bus_start(&bus)) {
                bench_unmeasured(NAME, WHAT, "dbus-daemon did not start: is it installed?");
        } else {
                child_spawn(&service, serve, &bus);
                child_continue(&service);
                connection = bus_connect(&bus);
                rival_compare(&(BenchRow){ .name = NAME, .what = WHAT, .unit = "ns", .target = BENCH_AT_LEAST(3) },
                              (BenchSide){ .run = run_dbus, .userdata = connection, .n = TIMES });
                sd_bus_flush_close_unref(connection);
                child_kill(&service);
        }
        rival_stop(&bus);
}

#else

TEST(bench, opens_are_several_times_faster_than_by_dbus) {
        bench_unmeasured(NAME, WHAT, "built without libsystemd (libsystemd-dev)");
}

#endif
