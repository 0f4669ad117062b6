/* States: whatever is in the memory that a broker left, its successor starts or refuses to, and what it
 * goes on with can be true.
 *
 * The input is a byte, and then a whole file if that is odd; else records as a state would have them, and
 * bytes to be changed in it afterwards:
 *
 *      u8 n, n times (u32 offset, u8 value)     changes
 *      (u8 kind, u64 id, u16 n, n bytes)...     records
 *
 * Regions among them get memory, with the inode number that it happens to have, unless their number is a
 * multiple of eight: then it was lost.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/broker.h"
#include "core/inspect.h"
#include "core/saved.h"
#include "fuzz/fuzz.h"
#include "util/log.h"
#include "util/memfd.h"
#include "util/probe.h"

#define RECORDS_MAX 64
#define SIZE_MOST (UINT64_C(1) << 30)
#define GRACE_NS UINT64_C(10000000000)

typedef struct Input {
        const uint8_t *at;
        size_t n;
} Input;

typedef struct Thing {
        StateRecord record;
        const uint8_t *data;
        size_t n;
        uint8_t own[STATE_RECORD_MAX];
} Thing;

/* What a broker left. */
typedef struct Left {
        Thing things[RECORDS_MAX];
        size_t n_things;
        Kept kept[RECORDS_MAX + 1];
        size_t n_kept;
} Left;

/* Return: the next bytes, zeros when there are no more. */
static uint64_t take(Input *input, size_t n) {
        uint64_t value = 0;

        if (n > input->n) {
                input->n = 0;
                return 0;
        }
        memcpy(&value, input->at, n);
        input->at += n;
        input->n -= n;
        return value;
}

/* -- what was left ------------------------------------------------------------------------- */

static size_t encode(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        const Thing *thing = (const Thing *)((const char *)record - offsetof(Thing, record));

        memcpy(data, thing->data, thing->n);
        return thing->n;
}

static void keep(Left *left, const char *name, int fd) {
        Kept *kept = &left->kept[left->n_kept++];

        (void)snprintf(kept->name, sizeof(kept->name), "%s", name);
        kept->fd = fd;
}

/* A region's record is changed to speak of memory that is there. */
static void make_memory(Left *left, Thing *thing) {
        char name[FDSTORE_NAME_MAX];
        SavedRegion saved;
        struct stat st;
        int fd;

        if (saved_decode_region(&saved, thing->data, thing->n) || saved.size > SIZE_MOST || saved.id % 8 == 0)
                return;
        if (memfd_make(&(MemfdSpec){ .id = saved.id, .size = saved.size, .freezable = saved.freezable }, &fd))
                return;
        FUZZ_REQUIRE(fstat(fd, &st) == 0);
        saved.inode = st.st_ino;
        saved.huge_shift = 0;
        thing->n = saved_encode_region(&saved, thing->own);
        thing->data = thing->own;
        region_store_name(saved.id, name);
        keep(left, name, fd);
}

static void add_record(Left *left, State *state, Input *input) {
        Thing *thing = &left->things[left->n_things++];
        StateKind kind = (StateKind)(STATE_COUNTERS + take(input, 1) % (_STATE_KIND_N - STATE_COUNTERS));
        uint64_t id = take(input, 8);
        size_t n = take(input, 2) % (STATE_RECORD_MAX + 1);

        *thing = (Thing){ .record = STATE_RECORD_NULL, .data = input->at, .n = n < input->n ? n : input->n };
        input->at += thing->n;
        input->n -= thing->n;
        if (kind == STATE_REGION)
                make_memory(left, thing);
        FUZZ_REQUIRE(state_make_room(state, STATE_RECORD_CELLS) == 0);
        state_add(state, &thing->record, kind, id);
}

static void change(int fd, Input *changes) {
        struct stat st;

        FUZZ_REQUIRE(fstat(fd, &st) == 0);
        while (changes->n > 0) {
                off_t offset = (off_t)(take(changes, 4) % (uint64_t)st.st_size);
                uint8_t value = (uint8_t)take(changes, 1);

                FUZZ_REQUIRE(pwrite(fd, &value, 1, offset) == 1);
        }
}

/* Return: the descriptor of a state with the input's records, and its changes. */
static int leave(Left *left, Input *input) {
        size_t n = take(input, 1) * 5;
        Input changes = { .at = input->at, .n = n < input->n ? n : input->n };
        State *state;
        int fd;

        input->at += changes.n;
        input->n -= changes.n;
        FUZZ_REQUIRE(state_new(&state, 4096) == 0);
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                state_set_encoder(state, kind, encode);
        while (input->n > 0 && left->n_things < RECORDS_MAX)
                add_record(left, state, input);
        state_commit(state);
        fd = fcntl(state_fd(state), F_DUPFD_CLOEXEC, 0);
        FUZZ_REQUIRE(fd >= 0);
        (void)state_free(state);
        for (size_t i = 0; i < left->n_things; ++i)
                state_drop(&left->things[i].record);
        change(fd, &changes);
        return fd;
}

static int leave_file(const Input *input) {
        int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        FUZZ_REQUIRE(fd >= 0 && write(fd, input->at, input->n) == (ssize_t)input->n);
        return fd;
}

/* -- looking ------------------------------------------------------------------------------- */

static void hear(void *userdata, const char *text) {
        FUZZ_REQUIRE(*text && strlen(text) < INSPECT_TEXT_MAX);
        if (userdata) {
                fprintf(stderr, "%s\n", text);
                FUZZ_REQUIRE(false);
        }
}

/* Return: whether it is a state. With `sound` nothing may be wrong with it. */
static bool inspect(int fd, bool sound) {
        const char *sentence;
        Inspection inspection;
        State *state;
        int r;

        r = state_adopt_consume_fd(&state, fcntl(fd, F_DUPFD_CLOEXEC, 0), 0, &sentence);
        FUZZ_REQUIRE(r == 0 || r == STATE_E_INVALID || r == STATE_E_NEWER);
        FUZZ_REQUIRE((r == 0) == (sentence == NULL));
        if (r)
                return false;
        FUZZ_REQUIRE(inspect_state(state, hear, sound ? state : NULL, &inspection) == 0);
        (void)state_free(state);
        return true;
}

/* -- the next broker ------------------------------------------------------------------------ */

static int listening_socket(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        FUZZ_REQUIRE(fd >= 0);
        FUZZ_REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address.sun_family)) == 0);
        FUZZ_REQUIRE(listen(fd, 8) == 0);
        return fd;
}

static void turn(Broker *broker, uint64_t later) {
        regions_dispatch(&broker->regions);
        deadlines_run(&broker->deadlines, time_now() + later);
        broker_commit(broker);
}

/* It goes on until all that waited has ended. */
static void go_on(Left *left, int fd) {
        BrokerStart start = { .kept = left->kept };
        BrokerOptions options = {
                .rules = {
                        .global = { LIMITS_ALL, { 1 << 24, 64, 64, 64, 8, 8, 600 } },
                        .everybody = { LIMITS_ALL, { 1 << 22, 32, 24, 8, 4, 4, 400 } },
                },
                .objects = 1000,
                .uid = geteuid(),
                .gid = getegid(),
                .root_mode = 01777,
                .wait_max_ns = 1000000,
                .ticket_max_ns = 1000000,
                .hello_ns = GRACE_NS,
                .stall_ns = 3 * GRACE_NS,
                .session_grace_ns = GRACE_NS,
                .version = "fuzz",
                .start = &start,
        };
        const BrokerDirectory *bad;
        Broker *broker;
        int r;

        keep(left, "state", fd);
        start.n_kept = left->n_kept;
        r = broker_new_consume_fds(&broker, &options, listening_socket(), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), &bad);
        FUZZ_REQUIRE(r == 0 || r == BROKER_E_REFUSED);
        if (r)
                return;
        broker_commit(broker);
        FUZZ_REQUIRE(inspect(state_fd(broker->state), true));
        for (int i = 0; i < 3; ++i)
                turn(broker, 0);
        turn(broker, 2 * GRACE_NS);
        FUZZ_REQUIRE(inspect(state_fd(broker->state), true));
        FUZZ_REQUIRE(broker_free(broker));
}

/* Once; without inotify, because to close that waits for the kernel to be idle, and takes longer than all
 * that is tried here. */
static void probe(void) {
        static bool done;

        if (done)
                return;
        FUZZ_REQUIRE(probe_run() == 0);
        probe_force(PROBE_INOTIFY, false);
        done = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        CLEANUP(close_fdp) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        static Left left;
        Input input = { .at = data, .n = n };
        bool whole = take(&input, 1) % 2;
        int fd;

        FUZZ_REQUIRE(null >= 0 && log_open(null) == 0);
        probe();
        left.n_things = left.n_kept = 0;
        fd = whole ? leave_file(&input) : leave(&left, &input);
        (void)inspect(fd, false);
        go_on(&left, fd);
        log_close();
        return 0;
}
