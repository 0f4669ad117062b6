/* A client that asks shmd, or the floor: see the header for the model. */

#include "bench/driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/tracer.h"

/* -- requests ---------------------------------------------------------------------------------- */

static void make(Packet *packet, MessageKind kind, const ProtobufCMessage *request) {
        uint8_t bytes[WIRE_REQUEST_MAX];

        packet->kind = kind;
        packet->n = client_pack(bytes, sizeof(bytes), (uint16_t)kind, 0, request);
        packet->bytes = malloc(packet->n);
        REQUIRE(packet->bytes);
        memcpy(packet->bytes, bytes, packet->n);
}

void packet_deinit(Packet *packet) {
        free(packet->bytes);
        packet->bytes = NULL;
}

void packet_open(Packet *packet, const char *path) {
        make(packet, MESSAGE_OPEN, REQUEST(Open, open, .path = BYTES(path), .rights = READ_ONLY));
}

void packet_batch(Packet *packet, const char *prefix, size_t n) {
        make(packet, MESSAGE_BATCH, request_opens(prefix, n));
}

void packet_create(Packet *packet, const char *path) {
        make(packet, MESSAGE_CREATE, REQUEST(Create, create, .path = BYTES(path), .size = PAGE, .mode = 0600,
                                             .rights = READ_WRITE));
}

void packet_unlink(Packet *packet, const char *path) {
        make(packet, MESSAGE_UNLINK, REQUEST(Remove, remove, .path = BYTES(path)));
}

void packet_echo(Packet *packet, const Packet *like) {
        REQUIRE(like->n >= sizeof(WireHeader) + sizeof(uint64_t));
        *packet = (Packet){ .bytes = calloc(1, like->n), .n = like->n, .kind = MESSAGE_PING };
        REQUIRE(packet->bytes);
}

void packet_set_busy(Packet *packet, double ns) {
        uint64_t number = (uint64_t)ns;

        memcpy(packet->bytes + sizeof(WireHeader), &number, sizeof(number));
}

/* -- asking ------------------------------------------------------------------------------------ */

/* What was received, and not looked at yet. */
typedef struct Answer {
        uint8_t bytes[WIRE_REPLY_MAX];
        struct msghdr msg;
        ssize_t n;
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE((FDLIST_MAX + 1) * sizeof(int))];
        } control;
} Answer;

void driver_init(Driver *driver, const Client *client) {
        *driver = (Driver){ .fd = client->fd, .serial = client->serial };
}

void driver_send(Driver *driver, Packet *packet) {
        wire_put_header(packet->bytes, packet->n, (uint16_t)packet->kind, 0, ++driver->serial);
        REQUIRE(send(driver->fd, packet->bytes, packet->n, MSG_NOSIGNAL) == (ssize_t)packet->n, "send: %s", strerror(errno));
}

static void receive(const Driver *driver, Answer *answer, size_t n_fds) {
        struct iovec iov = { .iov_base = answer->bytes, .iov_len = sizeof(answer->bytes) };

        answer->msg = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &answer->control,
                                       .msg_controllen = CMSG_SPACE((n_fds + 1) * sizeof(int)) };
        answer->n = recvmsg(driver->fd, &answer->msg, MSG_CMSG_CLOEXEC);
}

static void look(Driver *driver, const Answer *answer, uint64_t serial, int *fds, size_t n_fds) {
        WireHeader header;

        REQUIRE(answer->n >= (ssize_t)sizeof(header), "recvmsg: %s", answer->n < 0 ? strerror(errno) : "too short");
        wire_get_header(answer->bytes, &header);
        REQUIRE(header.length == (size_t)answer->n && header.serial == serial && header.n_fds == n_fds,
                "an answer of kind %#x with %u descriptors instead of %zu", header.kind, header.n_fds, n_fds);
        REQUIRE(n_fds == 0 || (answer->control.header.cmsg_len == CMSG_LEN(n_fds * sizeof(int)) &&
                               !(answer->msg.msg_flags & MSG_CTRUNC)), "descriptors got lost");
        if (n_fds)
                memcpy(fds, CMSG_DATA(&answer->control.header), n_fds * sizeof(int));
        driver->n_answer = (size_t)answer->n;
}

void driver_receive(Driver *driver, uint64_t serial, int *fds, size_t n_fds) {
        static Answer answer;

        receive(driver, &answer, n_fds);
        look(driver, &answer, serial, fds, n_fds);
}

double driver_ask(Driver *driver, Packet *packet, int *fds, size_t n_fds) {
        static Answer answer;
        int64_t began = test_now_ns(), ended;

        driver_send(driver, packet);
        receive(driver, &answer, n_fds);
        ended = test_now_ns();
        look(driver, &answer, driver->serial, fds, n_fds);
        return (double)(ended - began);
}

void driver_create(Driver *driver, Packet *creates, Packet *unlinks, size_t n_packets, double *ns, size_t n) {
        size_t n_timed = n_packets - 1;
        int fds[DRIVER_CREATE_MAX];

        REQUIRE(n_packets <= DRIVER_CREATE_MAX && n % n_timed == 0);
        for (size_t done = 0; done < n; done += n_timed) {
                (void)driver_ask(driver, &creates[n_timed], &fds[n_timed], 1);
                for (size_t i = 0; i < n_timed; ++i)
                        ns[done + i] = driver_ask(driver, &creates[i], &fds[i], 1);
                for (size_t i = 0; i < n_packets; ++i)
                        close_fd(fds[i]);
                for (size_t i = 0; i < n_packets; ++i)
                        (void)driver_ask(driver, &unlinks[(i + n_timed) % n_packets], NULL, 0);
        }
}

/* Lets it go on to where it begins a system call. Return: that call's name. */
static const char *next_call(Tracer *tracer) {
        do {
                tracer_go(tracer);
                REQUIRE(tracer_arrive(tracer), "the server ended");
        } while (!tracer->entered);
        return tracer_call_name(tracer->call);
}

const char *driver_calls(Driver *driver, Packet *packet, size_t n_fds, pid_t pid, const char *waits_in) {
        static char names[1024];
        Tracer tracer = TRACER_NULL;
        int fds[FDLIST_MAX];
        const char *name;
        size_t n;

        tracer_seize(&tracer, pid);
        while (strcmp(next_call(&tracer), waits_in) != 0)
                continue;
        n = (size_t)snprintf(names, sizeof(names), "%s", waits_in);
        driver_send(driver, packet);
        while (strcmp(name = next_call(&tracer), waits_in) != 0) {
                n += (size_t)snprintf(names + n, sizeof(names) - n, " %s", name);
                REQUIRE(n < sizeof(names), "%s", names);
        }
        tracer_release(&tracer);
        driver_receive(driver, driver->serial, fds, n_fds);
        for (size_t i = 0; i < n_fds; ++i)
                close_fd(fds[i]);
        return names;
}

/* -- the floor --------------------------------------------------------------------------------- */

/* In the child: what it is given is its standard input. */
static void become_floor(const char *kind, size_t n_reply, size_t n_memfds, int fd, pid_t parent) {
        const char *path = test_program("tests/bench/floor");
        char reply[32], memfds[32];

        test_end_with(parent);
        (void)snprintf(reply, sizeof(reply), "%zu", n_reply);
        (void)snprintf(memfds, sizeof(memfds), "%zu", n_memfds);
        (void)test_raise_fds();
        REQUIRE(dup2(fd, STDIN_FILENO) == STDIN_FILENO);
        (void)execl(path, "floor", kind, reply, memfds, (char *)NULL);
        test_fail(__FILE__, __LINE__, "the floor starts", " %s: %s", path, strerror(errno));
}

void floor_start(Floor *floor, const char *kind, size_t n_reply, size_t n_memfds) {
        pid_t parent = getpid();
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "%s", strerror(errno));
        (void)fflush(NULL);
        *floor = (Floor){ .pid = fork(), .driver = { .fd = pair[0] } };
        REQUIRE(floor->pid >= 0, "fork: %s", strerror(errno));
        if (floor->pid == 0)
                become_floor(kind, n_reply, n_memfds, pair[1], parent);
        close_fd(pair[1]);
}

void floor_stop(Floor *floor) {
        int status;

        floor->driver.fd = close_fd(floor->driver.fd);
        status = test_wait_pid(floor->pid);
        REQUIRE(status == 0, "the floor ended with status %#x", status);
        floor->pid = 0;
}

/* -- places ------------------------------------------------------------------------------------- */

void place_client(void) {
        bench_pin(0, 0);
}

void place_broker(const Broker *broker, Placement placement) {
        bench_pin(broker->pid, placement == ONE_PROCESSOR ? 0 : 1);
        if (broker->keeper)
                bench_pin(broker->keeper, placement == ONE_PROCESSOR ? 0 : BENCH_ANYWHERE);
}

void place_floor(const Floor *floor, Placement placement) {
        bench_pin(floor->pid, placement == ONE_PROCESSOR ? 0 : 1);
}
