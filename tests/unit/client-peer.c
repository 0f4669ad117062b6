/* A broker that follows a script: see the header. */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGION_SEALS (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

char peer_socket[64];

static pid_t peer_pid;
static char directory[32];
static int listening = -1;

/* -- the socket ---------------------------------------------------------------------- */

static void remove_socket(void) {
        (void)unlink(peer_socket);
        (void)rmdir(directory);
        listening = close_fd(listening);
}

/* SO_PEERCRED will show who called listen(2). Whose file it is, is settled before that: a client that
 * waits for the socket may connect at once. */
static void bind_and_listen(uid_t listener, uid_t owner) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", peer_socket);
        listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        REQUIRE(listening >= 0);
        REQUIRE(bind(listening, (struct sockaddr *)&address, sizeof(address)) == 0);
        REQUIRE(chmod(peer_socket, 0777) == 0);
        if (owner != geteuid())
                REQUIRE(chown(peer_socket, owner, (gid_t)-1) == 0);
        if (listener != geteuid())
                REQUIRE(seteuid(listener) == 0);
        REQUIRE(listen(listening, 4) == 0);
        if (geteuid() != getuid())
                REQUIRE(seteuid(getuid()) == 0);
}

void peer_listen(uid_t listener, uid_t owner) {
        (void)snprintf(directory, sizeof(directory), "/tmp/shmd-peer-XXXXXX");
        REQUIRE(mkdtemp(directory) != NULL);
        REQUIRE(chmod(directory, 0777) == 0);
        (void)snprintf(peer_socket, sizeof(peer_socket), "%s/socket", directory);
        bind_and_listen(listener, owner);
}

/* -- the child ----------------------------------------------------------------------- */

static void say_hello(Peer *peer, const char *session, bool resumed) {
        peer_reply(peer, MESSAGE(HelloReply, hello_reply, .version = 1, .session = BYTES(session), .uid = PEER_UID,
                                 .broker = BYTES(PEER_VERSION), .admin = true, .resumed = resumed), NULL, 0);
}

void peer_accept(Peer *peer) {
        peer->fd = close_fd(peer->fd);
        peer->fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        REQUIRE(peer->fd >= 0);
}

static void expect_first_hello(Peer *peer) {
        const Shmd__Hello *hello = peer_expect(peer, MESSAGE_HELLO);

        REQUIRE(hello->version == MESSAGE_VERSION && hello->session.len == 0);
        say_hello(peer, PEER_SESSION, false);
}

void peer_welcome(Peer *peer, bool resumed) {
        const Shmd__Hello *hello;

        peer_accept(peer);
        hello = peer_expect(peer, MESSAGE_HELLO);
        REQUIRE(hello->version == MESSAGE_VERSION && hello->session.len == MESSAGE_SESSION_BYTES);
        REQUIRE(!memcmp(hello->session.data, peer->session, MESSAGE_SESSION_BYTES));
        if (!resumed)
                peer->session = PEER_NEW_SESSION;
        say_hello(peer, peer->session, resumed);
}

void peer_hang_up(Peer *peer) {
        peer->fd = close_fd(peer->fd);
}

/* Who hears of it finds nobody any more. */
void peer_vanish(Peer *peer) {
        REQUIRE(unlink(peer_socket) == 0);
        listening = close_fd(listening);
        peer_hang_up(peer);
}

void peer_return(uid_t listener, uid_t owner) {
        bind_and_listen(listener, owner);
}

void peer_stay(void) {
        REQUIRE(raise(SIGSTOP) == 0);
}

void peer_await(void) {
        int status;

        REQUIRE(waitpid(peer_pid, &status, WUNTRACED) == peer_pid && WIFSTOPPED(status), "the peer's script: status %#x",
                status);
}

void peer_go_on(void) {
        REQUIRE(kill(peer_pid, SIGCONT) == 0);
}

static void run(PeerScript script, bool hello) {
        Peer peer = { .fd = -1, .session = PEER_SESSION };

        REQUIRE(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        REQUIRE(arena_new(&peer.arena, 1U << 20) == 0);
        peer.buffer = malloc(WIRE_REPLY_MAX);
        REQUIRE(peer.buffer != NULL);
        peer_accept(&peer);
        if (hello)
                expect_first_hello(&peer);
        script(&peer);
        arena_free(peer.arena);
        free(peer.buffer);
        _exit(0);
}

static void start(PeerScript script, bool hello) {
        if (listening < 0)
                peer_listen(geteuid(), geteuid());
        peer_pid = fork();
        REQUIRE(peer_pid >= 0);
        if (peer_pid == 0)
                run(script, hello);
        listening = close_fd(listening);
}

void peer_start(PeerScript script) {
        start(script, true);
}

void peer_start_without_hello(PeerScript script) {
        start(script, false);
}

shmd *peer_start_and_connect(PeerScript script) {
        shmd *client;

        peer_start(script);
        REQUIRE(shmd_connect(&client, peer_socket, SHMD_TIMEOUT_DEFAULT) == 0);
        return client;
}

void peer_wait(void) {
        int status = test_wait_pid(peer_pid);

        peer_pid = 0;
        REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the peer's script: status %#x", status);
}

void peer_kill(void) {
        REQUIRE(kill(peer_pid, SIGKILL) == 0);
        (void)test_wait_pid(peer_pid);
        peer_pid = 0;
}

void peer_join(shmd *client) {
        shmd_close(client);
        remove_socket();
        if (peer_pid)
                peer_wait();
}

/* -- for scripts --------------------------------------------------------------------- */

static int receive(Peer *peer) {
        struct pollfd pollfd = { .fd = peer->fd, .events = POLLIN };

        REQUIRE(poll(&pollfd, 1, TEST_PATIENCE_MS) == 1);
        return wire_receive(peer->fd, peer->buffer, WIRE_REQUEST_MAX, NULL, &peer->header);
}

const void *peer_expect(Peer *peer, MessageKind kind) {
        ProtobufCMessage *message;

        REQUIRE(receive(peer) == 0);
        REQUIRE(peer->header.kind == kind, "kind %u instead of %u", peer->header.kind, (unsigned int)kind);
        REQUIRE(peer->header.serial != 0);
        arena_reset(peer->arena);
        REQUIRE(message_unpack(peer->arena, kind, false, peer->buffer + sizeof(WireHeader),
                               peer->header.length - sizeof(WireHeader), &message) == 0);
        return message;
}

void peer_expect_end(Peer *peer) {
        REQUIRE(receive(peer) == WIRE_E_EOF);
}

void peer_send(Peer *peer, unsigned int kind, uint64_t serial, const ProtobufCMessage *message,
               const int *fds, size_t n_fds) {
        struct pollfd room = { .fd = peer->fd, .events = POLLOUT };
        size_t n;
        int r;

        REQUIRE(message_pack(message, peer->buffer + sizeof(WireHeader), WIRE_REPLY_MAX - sizeof(WireHeader), &n) == 0);
        n += sizeof(WireHeader);
        wire_put_header(peer->buffer, n, (uint16_t)kind, (uint16_t)n_fds, serial);
        /* The client may be busy sending while its answers fill the socket. */
        while ((r = wire_send(peer->fd, peer->buffer, n, fds, n_fds)) == WIRE_E_AGAIN)
                REQUIRE(poll(&room, 1, TEST_PATIENCE_MS) == 1);
        REQUIRE(r == 0);
}

void peer_reply(Peer *peer, const ProtobufCMessage *message, const int *fds, size_t n_fds) {
        peer_send(peer, peer->header.kind | MESSAGE_REPLY, peer->header.serial, message, fds, n_fds);
}

void peer_done(Peer *peer) {
        peer_reply(peer, MESSAGE(Done, done), NULL, 0);
}

void peer_refuse(Peer *peer, uint32_t error, uint32_t reason, const char *sentence) {
        peer_send(peer, MESSAGE_REFUSAL, peer->header.serial,
                  MESSAGE(Refusal, refusal, .error = error, .reason = reason, .sentence = BYTES(sentence)), NULL, 0);
}

int peer_memfd(uint64_t size, unsigned int seals) {
        int fd = memfd_create("region", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        REQUIRE(fd >= 0);
        REQUIRE(ftruncate(fd, (off_t)size) == 0);
        REQUIRE(fcntl(fd, F_ADD_SEALS, seals ? seals : REGION_SEALS) == 0);
        return fd;
}

/* The same memory through a description that cannot write. */
static int reopen_read_only(int fd) {
        char path[32];
        int read_only;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        read_only = open(path, O_RDONLY | O_CLOEXEC);
        REQUIRE(read_only >= 0);
        close_fd(fd);
        return read_only;
}

static void grant_memfd(Peer *peer, uint64_t region, uint64_t size, uint32_t rights, int fd) {
        if (rights == SHMD_RIGHTS_READ_ONLY)
                fd = reopen_read_only(fd);
        peer_reply(peer, MESSAGE(Granted, granted, .region = region, .size = size, .rights = rights,
                                 .outcome = SHMD__OUTCOME__OUTCOME_CREATED, .grant = region + 1000, .granted = true),
                   &fd, 1);
        close_fd(fd);
}

void peer_grant(Peer *peer, uint64_t region, uint64_t size, uint32_t rights) {
        grant_memfd(peer, region, size, rights, peer_memfd(size, 0));
}

/* -- regions alone ------------------------------------------------------------------- */

static struct {
        uint64_t size;
        uint64_t real_size;
        unsigned int seals;
        uint32_t log2;
} wanted;

static void grant_huge(Peer *peer) {
        int fd = memfd_create("region", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | wanted.log2 << MFD_HUGE_SHIFT);

        REQUIRE(fd >= 0);
        REQUIRE(ftruncate(fd, (off_t)wanted.size) == 0);
        REQUIRE(fcntl(fd, F_ADD_SEALS, REGION_SEALS) == 0);
        peer_reply(peer, MESSAGE(Granted, granted, .region = 1, .size = wanted.size, .rights = SHMD_RIGHTS_READ_WRITE,
                                 .huge_page_size = wanted.log2, .granted = true), &fd, 1);
        close_fd(fd);
}

static void script_region(Peer *peer) {
        const Shmd__Open *open = peer_expect(peer, MESSAGE_OPEN);

        if (wanted.log2)
                grant_huge(peer);
        else
                grant_memfd(peer, 1, wanted.size, open->rights, peer_memfd(wanted.real_size, wanted.seals));
        peer_expect_end(peer);
}

static shmd_region *open_wanted(uint32_t rights) {
        shmd *client = peer_start_and_connect(script_region);
        shmd_region *region;

        REQUIRE(shmd_open(client, "/region", rights, &region, SHMD_TIMEOUT_DEFAULT) == 0);
        peer_join(client);
        return region;
}

shmd_region *peer_region(uint64_t size, uint64_t real_size, unsigned int seals, uint32_t rights) {
        wanted.size = size;
        wanted.real_size = real_size;
        wanted.seals = seals;
        wanted.log2 = 0;
        return open_wanted(rights);
}

shmd_region *peer_huge_region(uint64_t size, uint32_t log2) {
        wanted.size = size;
        wanted.log2 = log2;
        return open_wanted(SHMD_RIGHTS_READ_WRITE);
}
