/* Regions by the thousand: see the header for the model. */

#include "bench/many.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/bench.h"

enum { BATCH = 100 };

/* -- regions ----------------------------------------------------------------------------------- */

void many_init(Many *many, Broker *broker) {
        *many = (Many){ .broker = broker, .user = ALICE };
}

void many_path(char path[32], uint64_t i) {
        (void)snprintf(path, 32, "/%" PRIu64 "/%" PRIu64, i / MANY_IN_DIRECTORY, i);
}

/* Return: whether the user had room for them. */
static bool make_batch(Client *client, uint64_t from, uint64_t n) {
        Shmd__BatchItem items[BATCH], *list[BATCH];
        Shmd__Create creates[BATCH];
        char paths[BATCH][32];
        uint32_t error;

        for (uint64_t i = 0; i < n; ++i) {
                many_path(paths[i], from + i);
                creates[i] = (Shmd__Create)SHMD__CREATE__INIT;
                creates[i].path = BYTES(paths[i]);
                creates[i].size = PAGE;
                creates[i].mode = 0644;
                items[i] = (Shmd__BatchItem)SHMD__BATCH_ITEM__INIT;
                items[i].create = &creates[i];
                list[i] = &items[i];
        }
        error = client_call(client, MESSAGE_BATCH, REQUEST(Batch, batch, .n_items = n, .items = list));
        if (error == SHMD__ERROR__ERROR_QUOTA)
                return false;
        client_expect_done(client, error);
        return true;
}

/* Return: whether there is room for one more directory, where one begins. */
static bool make_directory(Client *client, uint64_t i) {
        uint32_t error = 0;
        char path[32];

        (void)snprintf(path, sizeof(path), "/%" PRIu64, i / MANY_IN_DIRECTORY);
        if (i % MANY_IN_DIRECTORY == 0)
                error = call_mkdir(client, path, 0777);
        if (error == SHMD__ERROR__ERROR_QUOTA || error == SHMD__ERROR__ERROR_EXISTS)
                return error == SHMD__ERROR__ERROR_EXISTS;
        client_expect_done(client, error);
        return true;
}

/* As many as one user may. */
static void make_share(Many *many, Client *client, uint64_t to) {
        uint64_t most = BATCH;

        while (many->n < to && most > 0) {
                uint64_t n = to - many->n, left = MANY_IN_DIRECTORY - many->n % MANY_IN_DIRECTORY;

                n = n > left ? left : n;
                n = n > most ? most : n;
                if (make_directory(client, many->n) && make_batch(client, many->n, n))
                        many->n += n;
                else
                        most /= 4;
        }
}

/* Whoever is not needed is not there: the shares are smaller the more there are. */
bool many_make(Many *many, uint64_t n) {
        while (many->n < n && many->user < ALICE + MANY_USERS) {
                Client *client = client_connect_as(many->broker, many->user, ALICE);

                make_share(many, client, n);
                client = client_free(client);
                if (many->n < n)
                        ++many->user;
        }
        return many->n >= n;
}

/* -- memory ------------------------------------------------------------------------------------- */

/* What a process has that is no file: a mapping of one has its path in the line that begins with addresses. */
static double anonymous_bytes(pid_t pid) {
        char path[64], line[1024];
        bool counts = false;
        double kib = 0, n;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
        file = fopen(path, "re");
        REQUIRE(file, "%s: %s", path, strerror(errno));
        while (fgets(line, sizeof(line), file)) {
                uint64_t from, to;

                if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2)
                        counts = !strchr(line, '/');
                else if (counts && sscanf(line, "Rss: %lf kB", &n) == 1)
                        kib += n;
        }
        (void)fclose(file);
        return kib * 1024;
}

/* What is in the first memfd of that name that a process has open; mapped or not. */
static double memfd_bytes(pid_t pid, const char *name) {
        char path[300], target[128];
        const struct dirent *entry;
        double bytes = 0;
        DIR *dir;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        dir = opendir(path);
        REQUIRE(dir, "%s: %s", path, strerror(errno));
        while (bytes == 0 && (entry = readdir(dir))) {
                struct stat st;
                ssize_t n;

                (void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
                n = readlink(path, target, sizeof(target) - 1);
                target[n > 0 ? n : 0] = '\0';
                if (strncmp(target, name, strlen(name)) == 0 && stat(path, &st) == 0)
                        bytes = (double)st.st_blocks * 512;
        }
        (void)closedir(dir);
        return bytes;
}

Memory many_memory(const Broker *broker) {
        double saved = memfd_bytes(broker->pid, "/memfd:shmd-state");

        return (Memory){
                .broker = anonymous_bytes(broker->pid) + saved,
                .saved = saved,
                .keeper = broker->keeper ?
                          anonymous_bytes(broker->keeper) + memfd_bytes(broker->keeper, "/memfd:shmd-names") : 0,
                .kernel = bench_meminfo("Slab"),
        };
}
