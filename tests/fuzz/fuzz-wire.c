/* Packets as they come out of a socket. What is received is exactly what its header says. */

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "proto/wire.h"

/* The first byte says how many descriptors go along and whether they may be received. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        static uint8_t packet[WIRE_REQUEST_MAX];
        FdList fds = FDLIST_NULL;
        WireHeader header;
        size_t n_fds;
        int ends[2], copies[15], r;

        if (n < 1 + sizeof(WireHeader) || n > 60000)
                return 0;
        n_fds = data[0] & 15;
        FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        for (size_t i = 0; i < n_fds; ++i)
                copies[i] = ends[0];
        r = wire_send(ends[0], data + 1, n - 1, copies, n_fds);
        if (r == 0) {
                r = wire_receive(ends[1], packet, sizeof(packet), data[0] & 16 ? &fds : NULL, &header);
                FUZZ_REQUIRE(r >= 0);
                FUZZ_REQUIRE(r == 0 || fds.n == 0);
                FUZZ_REQUIRE(r == 0 || r == WIRE_E_LOST_FDS || r == WIRE_E_TOO_LARGE || r == WIRE_E_VIOLATION);
        }
        if (r == 0) {
                FUZZ_REQUIRE(header.length == n - 1 && header.length <= sizeof(packet));
                FUZZ_REQUIRE(header.n_fds == fds.n && fds.n == n_fds);
                FUZZ_REQUIRE(memcmp(packet, data + 1, n - 1) == 0);
        }
        fdlist_deinit(&fds);
        close_fd(ends[0]);
        close_fd(ends[1]);
        return 0;
}
