/* Requests of three clients to a whole broker without its event loop: any sequence of payloads of
 * any kinds. Whatever they were, the broker comes down with its books balanced.
 *
 * The input is a list of (client and kind: one byte each, length: two bytes, payload). One client
 * administers, the others are two users.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "acct/quota.h"
#include "broker/broker.h"
#include "broker/peer.h"
#include "broker/request.h"
#include "fuzz/fuzz.h"
#include "util/log.h"

#define CLIENTS 3

typedef struct Scene {
        Broker *broker;
        int sockets[CLIENTS];
        uint64_t peers[CLIENTS];        /* numbers: the peer may be gone */
} Scene;

static const BrokerDirectory directories[] = {
        {
                .path = "/box",
                .permissions = { .uid = 1, .gid = 1, .mode = 01777 },
                .max = { [ACCOUNT_BYTES] = 65536, [ACCOUNT_REGIONS] = 4, [ACCOUNT_GRANTS] = QUOTA_UNLIMITED,
                         [ACCOUNT_PEERS] = QUOTA_UNLIMITED, [ACCOUNT_WATCHES] = QUOTA_UNLIMITED,
                         [ACCOUNT_PENDING] = QUOTA_UNLIMITED, [ACCOUNT_INFLIGHT] = QUOTA_UNLIMITED },
        },
};

static const BrokerOptions options = {
        .rules = {
                .global = { LIMITS_ALL, { 1 << 24, 64, 64, 64, 8, 8, 600 } },
                .everybody = { LIMITS_ALL, { 1 << 22, 32, 24, 8, 4, 4, 400 } },
        },
        .objects = 1000,
        .directories = directories,
        .n_directories = 1,
        .uid = 65000,
        .gid = 65000,
        .root_mode = 01777,
        .wait_max_ns = 1000000,
        .ticket_max_ns = 1000000,
        .hello_ns = UINT64_C(10000000000),
        .stall_ns = UINT64_C(30000000000),
        .session_grace_ns = UINT64_C(10000000000),
        .busy_poll_ns = 100000,
        .version = "fuzz",
        .kept_by = "",
        .last_end = "",
};

/* What a turn of the event loop does after the descriptors. */
static void turn(Scene *scene) {
        regions_dispatch(&scene->broker->regions);
        deadlines_run(&scene->broker->deadlines, time_now());
}

static void read_answers(Scene *scene, size_t i) {
        static uint8_t packet[WIRE_REPLY_MAX];
        FdList fds = FDLIST_NULL;
        WireHeader header;

        while (scene->sockets[i] >= 0 && wire_receive(scene->sockets[i], packet, sizeof(packet), &fds, &header) == 0)
                fdlist_deinit(&fds);
}

static void send_request(Scene *scene, size_t i, unsigned int kind, const uint8_t *payload, size_t n) {
        Broker *broker = scene->broker;
        Peer *peer = peers_find(broker, scene->peers[i]);
        WireHeader header = { .length = (uint32_t)(sizeof(WireHeader) + n), .kind = (uint16_t)kind, .serial = 1 };
        int r;

        if (!peer || deadline_is_armed(&peer->end) || peer->held.packet)
                return;
        wire_put_header(broker->request, header.length, (uint16_t)kind, 0, header.serial);
        memcpy(broker->request + sizeof(WireHeader), payload, n);
        r = request_dispatch(peer, &header, broker->request, &(uint64_t){ time_now() });
        FUZZ_REQUIRE(r >= 0);
        read_answers(scene, i);
        turn(scene);
}

static int listening_socket(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        FUZZ_REQUIRE(fd >= 0);
        FUZZ_REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address.sun_family)) == 0);
        FUZZ_REQUIRE(listen(fd, 8) == 0);
        return fd;
}

static void scene_begin(Scene *scene) {
        static const uint8_t hello[] = { 0x08, 0x01 };
        const BrokerDirectory *bad;
        int r;

        r = broker_new_consume_fds(&scene->broker, &options, listening_socket(),
                                   eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), &bad);
        FUZZ_REQUIRE(r == 0);
        for (size_t i = 0; i < CLIENTS; ++i) {
                int ends[2];
                Peer *peer;

                FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
                scene->sockets[i] = ends[0];
                peer_accept_consume_fd(scene->broker, ends[1]);
                scene->peers[i] = scene->broker->last_peer;
                peer = peers_find(scene->broker, scene->peers[i]);
                FUZZ_REQUIRE(peer);
                peer->who.uid = (uid_t)i;
                peer->who.gid = (gid_t)i;
                peer->who.admin = i == 0;
                send_request(scene, i, MESSAGE_HELLO, hello, sizeof(hello));
        }
}

static void scene_end(Scene *scene) {
        for (size_t i = 0; i < CLIENTS; ++i) {
                read_answers(scene, i);
                scene->sockets[i] = close_fd(scene->sockets[i]);
        }
        turn(scene);
        FUZZ_REQUIRE(broker_free(scene->broker));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        CLEANUP(close_fdp) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        Scene scene;

        FUZZ_REQUIRE(null >= 0 && log_open(null) == 0);
        scene_begin(&scene);
        while (n >= 4) {
                size_t client = data[0] % CLIENTS, length = data[2] | (size_t)data[3] << 8;
                unsigned int kind = data[1];

                data += 4;
                n -= 4;
                if (length > n)
                        length = n;
                if (length > WIRE_REQUEST_MAX - sizeof(WireHeader))
                        length = WIRE_REQUEST_MAX - sizeof(WireHeader);
                send_request(&scene, client, kind, data, length);
                data += length;
                n -= length;
        }
        scene_end(&scene);
        log_close();
        return 0;
}
