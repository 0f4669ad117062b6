/* Inspection: what is in a state, and whether it can be true.
 *
 * It looks at a state that was adopted and belongs to nobody: a dump, or one to be tested. Each record
 * has to be one of its kind, and what records say of each other has to fit: what is named is there, no
 * directory is in itself, no two things have one name or one number, and no number is above what the
 * counters say was ever used. A broker that recovers from a state believes no more than this, but goes on
 * without what does not fit; here everything that does not is told.
 */
#ifndef CORE_INSPECT_H
#define CORE_INSPECT_H

#include <stdint.h>

#include "core/state.h"

#define INSPECT_TEXT_MAX 160

typedef struct Inspection {
        uint64_t records[_STATE_KIND_N];        /* by kind, those that could be read */
        uint64_t bytes;                         /* of all regions */
        uint64_t generation;                    /* of the policy */
        uint64_t n_mistakes;
} Inspection;

/* One thing that is wrong: a sentence without a full stop. */
typedef void (*InspectFn)(void *userdata, const char *text);

/* "region", "regions". */
const char *inspect_kind_name(StateKind kind);
const char *inspect_kind_plural(StateKind kind);

/* Looks at all records of a state that was adopted and has not been committed since. It reads them as often
 * as it needs and takes memory for each: nothing for a broker at work.
 * Return: 0, -ENOMEM. */
int inspect_state(State *state, InspectFn fn, void *userdata, Inspection *ret);

#endif
