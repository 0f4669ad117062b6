/* Counters: see the header for the model. */

#include "core/counters.h"

/* How many numbers are reserved at once. Events come in bursts. */
#define AHEAD 1024U
#define AHEAD_SEQUENCE 65536U

void counters_init(Counters *counters, State *state) {
        *counters = (Counters){ .record = STATE_RECORD_NULL, .reserved = { [COUNTER_DIRECTORY] = SAVED_ROOT } };
        state_add(state, &counters->record, STATE_COUNTERS, 1);
}

void counters_restore(Counters *counters, const SavedCounters *saved) {
        counters->reserved[COUNTER_REGION] = saved->last_region;
        counters->reserved[COUNTER_GRANT] = saved->last_grant;
        counters->reserved[COUNTER_TICKET] = saved->last_ticket;
        counters->reserved[COUNTER_DIRECTORY] = saved->last_directory;
        counters->reserved[COUNTER_NAME] = saved->last_name;
        counters->reserved[COUNTER_SESSION] = saved->last_session;
        counters->reserved[COUNTER_SEQUENCE] = saved->sequence;
}

void counters_deinit(Counters *counters) {
        state_drop(&counters->record);
}

void counters_reserve(Counters *counters, CounterKind kind, uint64_t number) {
        counters->reserved[kind] = number + (kind == COUNTER_SEQUENCE ? AHEAD_SEQUENCE : AHEAD) - 1;
        state_touch(&counters->record);
}

void counters_save(const Counters *counters, SavedCounters *ret) {
        *ret = (SavedCounters){
                .last_region = counters->reserved[COUNTER_REGION],
                .last_grant = counters->reserved[COUNTER_GRANT],
                .last_ticket = counters->reserved[COUNTER_TICKET],
                .last_directory = counters->reserved[COUNTER_DIRECTORY],
                .last_name = counters->reserved[COUNTER_NAME],
                .last_session = counters->reserved[COUNTER_SESSION],
                .sequence = counters->reserved[COUNTER_SEQUENCE],
        };
}
