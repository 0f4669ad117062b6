/* Another broker of descriptors beside ours: s6-fdholderd, of s6.
 *
 * It holds descriptors, memfds among them, by name, and hands them out over a Unix socket to whom its rules allow it:
 * of what Debian 12 has, the only one that can be asked for shared memory by name and answers with a descriptor. It
 * does less than ours for one: it passes the very descriptor that was stored, so that all holders share its offset
 * and its rights, and a reader can write if the one who stored it could; it matches the name with a regular
 * expression that it found for the user when he connected, and looks it up in one flat table; it keeps no books of
 * who has what. And it has one open(2) less to do for it. So there is no target; the row says what the difference is.
 * It is driven by its own library, over one connection that stays, although its manual says that clients ask once
 * and leave, as that is what it does best. Nobody is pinned. Where it is not installed the row says so.
 *
 * Not compared, and why:
 *  - ivshmem-server of QEMU hands out one memory to all who connect, and is in none of Debian's packages;
 *  - Arrow's plasma store, which is closest to ours, is not in Debian, and no more in Arrow;
 *  - PipeWire, PulseAudio and Wayland's compositors pass memory of their own streams and buffers between those who
 *    take part in their protocols, at times of their own choice: nobody can ask them for memory by name;
 *  - iceoryx tells its clients names, and they open it by shm_open(3) themselves, without anybody's grant;
 *  - systemd's descriptor store gives a service its own descriptors back when it starts again, and nobody else's;
 *  - dbus-broker is a bus as dbus-daemon is, and would have to be started by systemd: see dbus.c for what needs one.
 */

#include "buildinfo.h"

#include "bench/bench.h"

#define NAME "peer-open"
#define WHAT "open: a memfd by s6-fdholderd, by ours"

#ifdef HAVE_S6

#include <errno.h>
#include <fcntl.h>
#include <s6/fdholder.h>
#include <skalibs/tai.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench/rival.h"

enum {
        TIMES = 1000,           /* in a round */
        PATIENCE_S = 20,
};

#define ID "music-loud"         /* it knows no directories */

/* -- the peer -------------------------------------------------------------------------------------- */

typedef struct Peer {
        Rival rival;
        s6_fdholder_t client;
} Peer;

/* What it has in its directory, parents before children: everybody may store and retrieve everything. */
static const struct {
        const char *path, *content;     /* NULL: a directory */
} files[] = {
        { "rules", NULL },
        { "rules/uid", NULL },
        { "rules/uid/default", NULL },
        { "rules/uid/default/allow", "" },
        { "rules/uid/default/env", NULL },
        { "rules/uid/default/env/S6_FDHOLDER_STORE_REGEX", "^music-" },
        { "rules/uid/default/env/S6_FDHOLDER_RETRIEVE_REGEX", "^music-" },
};

enum { FILES_N = sizeof(files) / sizeof(*files) };

static void write_file(const char *path, const char *content) {
        FILE *file = fopen(path, "we");

        REQUIRE(file && fputs(content, file) >= 0 && fclose(file) == 0, "%s: %s", path, strerror(errno));
}

static int listen_at(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        REQUIRE(strlen(path) < sizeof(address.sun_path));
        memcpy(address.sun_path, path, strlen(path));
        REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 16) == 0 &&
                chmod(path, 0666) == 0, "%s: %s", path, strerror(errno));
        return fd;
}

/* Return: whether there is such a program. */
static bool peer_start(Peer *peer) {
        static const char *const argv[] = { "s6-fdholderd", "-1", "-v", "0", "-t", "0", "-i", "rules", NULL };
        CLEANUP(close_fdp) int listener = -1;

        rival_init(&peer->rival);
        for (size_t i = 0; i < FILES_N; ++i) {
                const char *path = rival_path(&peer->rival, files[i].path);

                if (files[i].content)
                        write_file(path, files[i].content);
                else
                        REQUIRE(mkdir(path, 0755) == 0, "%s: %s", path, strerror(errno));
        }
        listener = listen_at(rival_path(&peer->rival, "socket"));
        return rival_start(&peer->rival, listener, argv);
}

static tain soon(void) {
        tain deadline;

        tain_now_g();
        tain_addsec_g(&deadline, PATIENCE_S);
        return deadline;
}

/* Its memfd is the reader's own kind: opened for reading, as ours will be. */
static void peer_connect(Peer *peer) {
        int memfd = memfd_create("bench", MFD_CLOEXEC);
        tain deadline = soon(), never;
        char link[32];
        int fd;

        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", memfd);
        REQUIRE(memfd >= 0 && ftruncate(memfd, RIVAL_SIZE) == 0);
        fd = open(link, O_RDONLY | O_CLOEXEC);
        REQUIRE(fd >= 0, "%s", strerror(errno));
        tain_add_g(&never, &tain_infinite_relative);
        REQUIRE(s6_fdholder_start_g(&peer->client, rival_path(&peer->rival, "socket"), &deadline), "%s", strerror(errno));
        REQUIRE(s6_fdholder_store_g(&peer->client, fd, ID, &never, &deadline), "%s", strerror(errno));
        (void)close_fd(fd);
        (void)close_fd(memfd);
}

/* -- the clients ----------------------------------------------------------------------------------- */

static void run_peer(void *userdata, double *ns, size_t n) {
        Peer *peer = userdata;

        for (size_t i = 0; i < n; ++i) {
                int64_t began = test_now_ns();
                tain deadline = soon();
                int fd = s6_fdholder_retrieve_g(&peer->client, ID, &deadline);

                REQUIRE(fd >= 0, "%s", strerror(errno));
                ns[i] = (double)(test_now_ns() - began);
                (void)close_fd(fd);
        }
}

TEST(bench, another_broker_of_descriptors) {
        Peer peer;

        REQUIRE(tain_now_set_stopwatch_g());
        if (!peer_start(&peer)) {
                bench_unmeasured(NAME, WHAT, "s6-fdholderd did not start: is s6 installed?");
        } else {
                peer_connect(&peer);
                rival_compare(&(BenchRow){ .name = NAME, .what = WHAT, .unit = "ns",
                                           .note = "it passes the descriptor that it has; ours opens it again, with "
                                                   "the rights asked for" },
                              (BenchSide){ .run = run_peer, .userdata = &peer, .n = TIMES });
                s6_fdholder_end(&peer.client);
        }
        rival_stop(&peer.rival);
}

#else

TEST(bench, another_broker_of_descriptors) {
        bench_unmeasured(NAME, WHAT, "built without the library of s6 (libs6-dev, skalibs-dev)");
}

#endif
