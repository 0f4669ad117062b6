/* Counters: numbers that are used once, by this broker and by those that come after it.
 *
 * What has a number of its own takes the next one of its kind. So that the last one used need not be
 * saved each time, numbers are reserved ahead, and what is saved is that none above these was used.
 * The next broker begins there: gaps mean nothing.
 */
#ifndef CORE_COUNTERS_H
#define CORE_COUNTERS_H

#include <stdint.h>

#include "core/saved.h"
#include "core/state.h"

typedef enum CounterKind {
        COUNTER_REGION,
        COUNTER_GRANT,
        COUNTER_TICKET,
        COUNTER_DIRECTORY,
        COUNTER_NAME,
        COUNTER_SESSION,
        COUNTER_SEQUENCE,
        _COUNTER_N,
} CounterKind;

typedef struct Counters {
        StateRecord record;
        uint64_t reserved[_COUNTER_N];
} Counters;

/* Begins with nothing reserved. Room was made. */
void counters_init(Counters *counters, State *state);
/* From there on, with what a broker before this one had reserved; the record is bound by the caller. */
void counters_restore(Counters *counters, const SavedCounters *saved);
void counters_deinit(Counters *counters);

void counters_reserve(Counters *counters, CounterKind kind, uint64_t number);

/* That number is used from now on; none above it was. NULL: nothing is saved. */
static inline void counters_used(Counters *counters, CounterKind kind, uint64_t number) {
        if (counters && number > counters->reserved[kind])
                counters_reserve(counters, kind, number);
}

/* What is saved of them. */
void counters_save(const Counters *counters, SavedCounters *ret);

#endif
