/* A client that stays through everything that happens to the broker, and tells what it sees.
 *
 * It has a region of its own mapped and filled, without a name, and one that lives as long as its session. Then
 * it answers each line on standard input with one line:
 *
 *   same        whether the mapping still has what was written to it, and takes more: "same" or "changed"
 *   stat PATH   "found", or what the library says: a call that waits out a restart
 *   storm PATH MS   makes regions and takes them away again for so long, and then compares what there is with
 *               what it was told: "as promised", or the first difference
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shmd.h>

#define WORDS 65536
#define STORM_NAMES 1000

static void fail(const char *what, int r) {
        fprintf(stderr, "witness: %s: %s\n", what, strerror(-r));
        exit(EXIT_FAILURE);
}

static uint64_t *map_something(shmd *client) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;
        void *address;
        size_t n;
        int r;

        options.size = WORDS * sizeof(uint64_t);
        r = shmd_create(client, NULL, &options, &region, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                fail("create", r);
        r = shmd_map(region, NULL, &address, &n);
        if (r < 0)
                fail("map", r);
        shmd_region_free(region);
        return address;
}

static void make_session_region(shmd *client, const char *path) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;
        int r;

        options.size = 1;
        options.lifetime = SHMD_LIFETIME_SESSION;
        r = shmd_create(client, path, &options, &region, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                fail("create", r);
        shmd_region_free(region);
}

static void fill(uint64_t *words, uint64_t round) {
        for (size_t i = 0; i < WORDS; ++i)
                words[i] = round + i;
}

static bool is_filled(const uint64_t *words, uint64_t round) {
        for (size_t i = 0; i < WORDS; ++i)
                if (words[i] != round + i)
                        return false;
        return true;
}

static const char *answer_stat(shmd *client, const char *path) {
        struct shmd_stat_result *result;
        int r = shmd_stat(client, path, 0, 0, &result, SHMD_TIMEOUT_DEFAULT);

        if (r < 0)
                return strerror(-r);
        shmd_stat_free(result);
        return "found";
}

/* Which of the storm's names there should be. */
static bool promised[STORM_NAMES];

static const char *storm_name(const char *path, size_t i) {
        static char name[300];

        (void)snprintf(name, sizeof(name), "%s-%zu", path, i);
        return name;
}

static int64_t now_ms(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One name comes or goes. */
static int change(shmd *client, const char *path, size_t i) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;
        int r;

        options.size = 4096;
        options.rights = SHMD_RIGHTS_NONE;
        if (promised[i])
                r = shmd_unlink(client, storm_name(path, i), SHMD_TIMEOUT_DEFAULT);
        else
                r = shmd_create(client, storm_name(path, i), &options, &region, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return r;
        if (!promised[i])
                shmd_region_free(region);
        promised[i] = !promised[i];
        return 0;
}

static const char *answer_storm(shmd *client, const char *path, int64_t ms) {
        static char answer[512];
        int64_t end = now_ms() + ms;
        size_t n = 0;
        int r;

        for (; now_ms() < end; ++n) {
                size_t i = (size_t)random() % STORM_NAMES;

                r = change(client, path, i);
                if (r < 0) {
                        (void)snprintf(answer, sizeof(answer), "%s: %s", storm_name(path, i), strerror(-r));
                        return answer;
                }
        }
        fprintf(stderr, "witness: %zu regions came or went\n", n);
        for (size_t i = 0; i < STORM_NAMES; ++i) {
                const char *found = answer_stat(client, storm_name(path, i));

                if (!strcmp(found, "found") != promised[i]) {
                        (void)snprintf(answer, sizeof(answer), "%s: %s", storm_name(path, i), found);
                        return answer;
                }
        }
        return "as promised";
}

int main(int argc, char **argv) {
        char line[256], path[256];
        uint64_t *words, round = 1;
        int64_t ms;
        shmd *client;
        int r;

        if (argc != 3)
                return 2;
        r = shmd_connect(&client, argv[1], SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                fail("connect", r);
        words = map_something(client);
        make_session_region(client, argv[2]);
        fill(words, round);
        puts("ready");

        for (;;) {
                (void)fflush(stdout);
                if (!fgets(line, sizeof(line), stdin))
                        break;
                line[strcspn(line, "\n")] = '\0';
                if (!strcmp(line, "same")) {
                        puts(is_filled(words, round) ? "same" : "changed");
                        fill(words, ++round);
                } else if (!strncmp(line, "stat ", 5)) {
                        puts(answer_stat(client, line + 5));
                } else if (sscanf(line, "storm %255s %" SCNd64, path, &ms) == 2) {
                        puts(answer_storm(client, path, ms));
                } else {
                        puts("what?");
                }
        }
        shmd_close(client);
        return EXIT_SUCCESS;
}
