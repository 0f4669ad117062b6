/* Things with records: what the tests of core/state keep in a state, and look for in the next one. */
#ifndef TESTS_UNIT_STATE_THINGS_H
#define TESTS_UNIT_STATE_THINGS_H

#include <fcntl.h>
#include <string.h>

#include "core/state.h"
#include "lib/test.h"
#include "util/probe.h"

#define CELLS_MAX 20000

/* Something that has a record: bytes, which are all that is saved of it. */
typedef struct Thing {
        StateRecord record;
        uint8_t data[STATE_RECORD_MAX];
        size_t n;
} Thing;

static inline size_t encode_thing(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        const Thing *thing = (const Thing *)((const char *)record - offsetof(Thing, record));

        memcpy(data, thing->data, thing->n);
        return thing->n;
}

static inline void set_encoders(State *state) {
        for (StateKind kind = STATE_COUNTERS; kind < _STATE_KIND_N; ++kind)
                state_set_encoder(state, kind, encode_thing);
}

static inline State *make(uint32_t cells_max) {
        State *state;

        REQUIRE(probe_run() == 0);
        REQUIRE(state_new(&state, cells_max) == 0);
        set_encoders(state);
        return state;
}

static inline void fill(Thing *thing, size_t n, uint8_t first) {
        thing->n = n;
        for (size_t i = 0; i < n; ++i)
                thing->data[i] = (uint8_t)(first + i);
}

/* The memory of a state, as its next owner gets it. */
static inline int copy_of(const State *state) {
        return fcntl(state_fd(state), F_DUPFD_CLOEXEC, 0);
}

static inline State *adopt(int fd) {
        const char *sentence;
        State *state;
        int r;

        r = state_adopt_consume_fd(&state, fd, 0, &sentence);
        REQUIRE(r == 0 && !sentence, "%d, %s", r, sentence ? sentence : "-");
        set_encoders(state);
        return state;
}

/* Return: a descriptor of a copy. */
static inline int sealed_copy_of(State *state) {
        CLEANUP(state_copy_freep) StateCopy *copy = NULL;
        uint64_t size;
        int fd;

        REQUIRE(state_copy_new(&copy, state) == 0);
        REQUIRE(state_copy_step(copy, SIZE_MAX) == 0 && state_copy_finish(copy, &fd, &size) == 0);
        return fd;
}

#endif
