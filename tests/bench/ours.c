/* libshmd as a program uses it: see the header. */

#include "bench/ours.h"

void ours_start(Ours *ours) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd_region *region;
        int r;

        ours->broker = broker_spawn_with(&(BrokerOptions){ .keeper = true });
        REQUIRE(shmd_connect(&ours->client, ours->broker->socket, OURS_PATIENCE) == 0);
        options.size = OURS_SIZE;
        r = shmd_mkdir(ours->client, "/music", 0755, OURS_PATIENCE);
        REQUIRE(r == 0, "%s", shmd_refusal(ours->client)->sentence);
        r = shmd_create(ours->client, OURS_PATH, &options, &region, OURS_PATIENCE);
        REQUIRE(r == 0, "%s", shmd_refusal(ours->client)->sentence);
        (void)shmd_region_free(region);
}

void ours_stop(Ours *ours) {
        ours->client = shmd_close(ours->client);
        ours->broker = broker_stop(ours->broker);
}

void ours_open(void *userdata, double *ns, size_t n) {
        Ours *ours = userdata;

        for (size_t i = 0; i < n; ++i) {
                int64_t began = test_now_ns();
                shmd_region *region;
                int r = shmd_open(ours->client, OURS_PATH, SHMD_RIGHTS_READ_ONLY, &region, OURS_PATIENCE);

                REQUIRE(r == 0, "%s", shmd_refusal(ours->client)->sentence);
                ns[i] = (double)(test_now_ns() - began);
                (void)shmd_region_free(region);
        }
}
