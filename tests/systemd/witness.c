/* A client that stays through everything that happens to the broker, and tells what it sees.
 *
 * It has a region of its own mapped and filled, without a name, and one that lives as long as its session. Then
 * it answers each line on standard input with one line:
 *
 *   same        whether the mapping still has what was written to it, and takes more: "same" or "changed"
 *   stat PATH   "found", or what the library says: a call that waits out a restart
 *   resumed     how often the library came back to its session, and how often to a new one: "2 0"
 */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shmd.h>

#define WORDS 65536

static unsigned int n_resumed, n_new;

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

static void listen_to(shmd *client, const struct shmd_event *event, void *userdata) {
        (void)client;
        (void)userdata;
        if (event->event == SHMD_EVENT_RECONNECTED)
                ++*(event->resumed ? &n_resumed : &n_new);
}

static const char *answer_stat(shmd *client, const char *path) {
        struct shmd_stat_result *result;
        int r = shmd_stat(client, path, 0, 0, &result, SHMD_TIMEOUT_DEFAULT);

        if (r < 0)
                return strerror(-r);
        shmd_stat_free(result);
        return "found";
}

int main(int argc, char **argv) {
        char line[256];
        uint64_t *words, round = 1;
        shmd *client;
        int r;

        if (argc != 3)
                return 2;
        r = shmd_connect(&client, argv[1], SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                fail("connect", r);
        (void)shmd_set_listener(client, listen_to, NULL);
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
                } else {
                        printf("%u %u\n", n_resumed, n_new);
                }
        }
        shmd_close(client);
        return EXIT_SUCCESS;
}
