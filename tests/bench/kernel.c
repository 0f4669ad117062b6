/* What shmd costs beside the kernel's own shared memory, which has no broker: a region from its beginning to its
 * end.
 *
 * All of them make memory of one page by a name that was not taken, map it, unmap it and remove it, and nobody
 * touches it: shm_open(3) with ftruncate(2) and mmap(2), System V's shmget(2) and shmat(2), and shmd with its
 * library, broker and keeper. memfd_create(2) alone, with close(2), is the least that any memory with a descriptor
 * takes; it has neither name nor size. What the kernel's own does not do: count what somebody has, keep others
 * within their limits, outlive nothing and leave nothing behind. So no row here has a target: they say what that
 * costs.
 */

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "lib/broker.h"
#include "shmd.h"

enum {
        SIZE = 4096,
        TIMES = 1000,           /* in a round */
        TIMES_QUICK = 250,
};

#define PATIENCE UINT64_C(20000000000)
#define SHM_NAME "/shmd-bench-kernel"

static void with_shmd(void *userdata) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = userdata;
        shmd_region *region;
        void *address;
        size_t length;

        options.size = SIZE;
        REQUIRE(shmd_create(client, "/bench", &options, &region, PATIENCE) == 0, "%s", shmd_refusal(client)->sentence);
        REQUIRE(shmd_map(region, NULL, &address, &length) == 0 && shmd_unmap(address, length) == 0);
        REQUIRE(shmd_unlink(client, "/bench", PATIENCE) == 0, "%s", shmd_refusal(client)->sentence);
        (void)shmd_region_free(region);
}

static void with_shm_open(void *userdata) {
        int fd = shm_open(SHM_NAME, O_RDWR | O_CREAT | O_EXCL, 0600);
        void *address;

        (void)userdata;
        REQUIRE(fd >= 0 && ftruncate(fd, SIZE) == 0, "%s", strerror(errno));
        address = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REQUIRE(address != MAP_FAILED && munmap(address, SIZE) == 0);
        REQUIRE(shm_unlink(SHM_NAME) == 0 && close(fd) == 0);
}

static void with_shmget(void *userdata) {
        int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
        void *address;

        (void)userdata;
        REQUIRE(id >= 0, "%s", strerror(errno));
        address = shmat(id, NULL, 0);
        REQUIRE(address != (void *)-1 && shmdt(address) == 0);
        REQUIRE(shmctl(id, IPC_RMID, NULL) == 0);
}

static void with_memfd(void *userdata) {
        int fd = memfd_create("bench", MFD_CLOEXEC);

        (void)userdata;
        REQUIRE(fd >= 0 && close(fd) == 0, "%s", strerror(errno));
}

/* -- rows ----------------------------------------------------------------------------------------- */

typedef struct Way {
        void (*once)(void *userdata);
        void *userdata;
} Way;

static void run(void *userdata, double *ns, size_t n) {
        Way *way = userdata;

        for (size_t i = 0; i < n; ++i) {
                int64_t began = test_now_ns();

                way->once(way->userdata);
                ns[i] = (double)(test_now_ns() - began);
        }
}

TEST(bench, a_region_from_its_beginning_to_its_end) {
        static const struct {
                const char *name, *what;
                void (*once)(void *userdata);
        } kernel[] = {
                { "kernel-shm", "create, map, unmap, remove: ours, by shm_open", with_shm_open },
                { "kernel-sysv", "the same, by shmget, shmat, shmdt, IPC_RMID", with_shmget },
                { "kernel-memfd", "the same, by memfd_create alone", with_memfd },
        };
        enum { KERNEL_N = sizeof(kernel) / sizeof(*kernel) };
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .keeper = true });
        BenchTimes times[KERNEL_N + 1];
        BenchSide sides[KERNEL_N + 1];
        Way ways[KERNEL_N + 1];
        shmd *client;

        REQUIRE(shmd_connect(&client, broker->socket, PATIENCE) == 0);
        ways[KERNEL_N] = (Way){ with_shmd, client };
        for (size_t i = 0; i < KERNEL_N; ++i)
                ways[i] = (Way){ kernel[i].once, NULL };
        for (size_t i = 0; i <= KERNEL_N; ++i)
                sides[i] = (BenchSide){ run, &ways[i], bench_quick() ? TIMES_QUICK : TIMES, &times[i] };
        bench_take_turns(sides, KERNEL_N + 1, bench_rounds(15, 5));
        for (size_t i = 0; i < KERNEL_N; ++i)
                bench_row(&(BenchRow){ .name = kernel[i].name, .what = kernel[i].what, .unit = "ns",
                                       .figure = &times[KERNEL_N].p50, .against = &times[i].p50 });
        shmd_close(client);
        broker_stop(broker);
}
