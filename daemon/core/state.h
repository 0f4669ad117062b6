/* The state: what the broker knows, in memory that outlives it.
 *
 * A memfd of cells, mapped by the broker; a copy of its descriptor is kept by whoever starts the
 * broker again. Each object that must survive (region, name, ticket, ...) has a record in it: a cell
 * of 64 bytes, or a chain of them. What an object is to be found as later is told by marking its
 * record when the object changes; nothing is written then. state_commit() writes all that is marked as
 * one transaction: after a death at any instant, the state holds all of it or none of it.
 *
 * The layout; numbers are in the host's byte order:
 *
 *      header       magic, byte order, version, sizes and places of the rest, random instance number, their
 *                   sum; then, alone, the number of cells (with its complement), the commit word and the
 *                   done word
 *      journal      head { transaction, number of entries, sum }, entries { cell number, the whole new cell }
 *      slab         cells { sum, next, kind, bytes used, id, data }; number 0 is never used
 *
 * The journal is a redo journal: new cells are written to it, then the commit word becomes the
 * transaction's number by one aligned 64-bit store, then the cells go to their places, then the done word
 * becomes that number too. As long as they differ the journal has to be done again.
 *
 * The sum of a cell is over its number, its bytes, and the sum of the cell that follows in its record;
 * the last one's over the instance number. So a record is read whole as it was written, or not at all.
 * The journal's sum is over the numbers of its cells and their sums, which are checked for themselves.
 * A free cell is all zeros; anything else that belongs to no record is damage: counted, never used.
 *
 * The order of effects, which every part of the broker keeps to:
 *
 *      1. room in the state is found before a request is looked at: state_make_room();
 *      2. the descriptor of a new region is in the receive queue of the store of descriptors;
 *      3. the objects change in memory, and the record of each that changed is marked: state_add(),
 *         state_touch(), state_drop();
 *      4. state_commit(): one transaction with all that is marked, before any packet leaves (nothing is
 *         told that is not committed), and for what happens by itself (expiries, sessions that end,
 *         orphans that are let go) before the next request, and at the end of each turn of the loop;
 *      5. the reply leaves;
 *      6. the descriptors of regions that are gone leave the store, after a commit only.
 *
 * So a death leaves a descriptor without a record (between 2 and 4, or 4 and 6: nobody was told of the
 * region, or everybody that it is gone; it is dropped), or all as it was before the request, or all
 * as it is after it; then a client that heard nothing asks again and gets the answer it would have got.
 * A request is one transaction: nothing is sent in the middle of its change.
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"

#define STATE_VERSION 1
#define STATE_CELL_BYTES 64U
#define STATE_CELL_DATA 40U
#define STATE_RECORD_CELLS 26U
#define STATE_RECORD_MAX (STATE_RECORD_CELLS * STATE_CELL_DATA)
/* Cells: more than any one request needs, of which a batch of creates needs most. */
#define STATE_ROOM 4096U

enum {
        _STATE_E_SUCCESS,
        STATE_E_INVALID,        /* no state, or one whose header or journal is damaged */
        STATE_E_NEWER,          /* a state of a later version */
        STATE_E_FULL,           /* it may not become larger */
        STATE_E_BUSY,           /* it is being copied */
        STATE_E_MORE,           /* the copy is not whole yet */
};

/* The numbers are the format's. */
typedef enum StateKind {
        STATE_FREE,
        STATE_MORE,             /* a cell that is not the first of its record */
        STATE_COUNTERS,
        STATE_POLICY,
        STATE_DIRECTORY,
        STATE_REGION,
        STATE_NAME,
        STATE_TICKET,
        STATE_GRANT,
        STATE_SESSION,
        STATE_OUTCOMES,
        STATE_BATCH,
        _STATE_KIND_N,
} StateKind;

typedef struct State State;

/* What an object has of its record; it lives inside the object. One that is NULL is in no state, and
 * all that is done with it does nothing. */
typedef struct StateRecord {
        State *state;
        uint64_t id;
        uint32_t cell;          /* its first; 0 before its first commit */
        uint32_t dirty : 28;    /* its place among what is marked, from 1 on; 0: it is not */
        uint32_t kind : 4;
} StateRecord;

#define STATE_RECORD_NULL { .state = NULL }

/* Writes the bytes of a record, every one of them. Return: how many. */
typedef size_t (*StateEncode)(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]);

/* Makes an empty one that may grow to cells_max cells.
 * Return: 0, or a negative errno. */
int state_new(State **ret, uint32_t cells_max);

/* Takes over a state that another process left: maps and checks it, does its journal again if that was
 * not finished, and finds its records. More cells than cells_max are kept. The descriptor must be a
 * memfd's, and is consumed also on failure.
 * Return: 0; STATE_E_INVALID or STATE_E_NEWER, and a sentence (static); or a negative errno. */
int state_adopt_consume_fd(State **ret, int fd, uint32_t cells_max, const char **ret_sentence);

/* Unmaps and closes it; what is marked and not committed is forgotten. The memory lives on where its
 * descriptor is kept. Objects may still have records of it: touching and dropping those does nothing
 * more, but dropped each of them must be in the end. Return: NULL. */
State *state_free(State *state);

DEFINE_CLEANUP(State, state_free);

/* The descriptor, which stays the state's own. */
int state_fd(const State *state);

/* How records of that kind are written. */
void state_set_encoder(State *state, StateKind kind, StateEncode fn);

/* Makes sure that so many cells are free beside what is marked already. Without a state: 0.
 * Return: 0, STATE_E_FULL, -ENOMEM, -ENOSPC; nothing has changed then. */
int state_make_room(State *state, uint32_t cells);

/* The record becomes that of a new object. Without a state it stays NULL. Room was made. */
void state_add(State *state, StateRecord *record, StateKind kind, uint64_t id);
/* The object has changed. Return without effect if its record is NULL. */
void state_touch(StateRecord *record);
/* The object is no more, and may be freed at once; its record is NULL now, and gone at the next commit. */
void state_drop(StateRecord *record);

/* Whether something is marked. Without a state: nothing is. */
bool state_is_dirty(const State *state);

/* Writes what is marked. It is one transaction as long as it fits the journal (8,192 cells), and several
 * of whole records beyond that. */
void state_commit(State *state);

/* How many transactions there were. */
uint64_t state_commits(const State *state);

/* -- after state_adopt_consume_fd(), before the first commit ------------------------------ */

/* `data` is there until it returns. Return: 0 to go on. */
typedef int (*StateVisit)(void *userdata, StateKind kind, uint64_t id, uint32_t cell, const uint8_t *data, size_t n);

/* Shows the records of a kind in the order of their cells; damaged ones are not among them.
 * Return: 0, or what fn returned that was not 0. */
int state_walk(State *state, StateKind kind, StateVisit fn, void *userdata);

/* The record whose first cell that is belongs to this object now. */
void state_bind(State *state, StateRecord *record, StateKind kind, uint64_t id, uint32_t cell);

/* Nothing came of the record whose first cell that is: it is gone at the next commit. */
void state_forget(State *state, uint32_t cell);

/* How many cells were in use and could not be read as part of a record. */
uint64_t state_damaged(const State *state);

/* -- looking ------------------------------------------------------------------------------ */

/* How many cells there are, and how many of them are in use. */
uint32_t state_cells(const State *state);
uint32_t state_cells_used(const State *state);

/* A copy of what is committed, made in steps, because it can be large: what is committed between them is
 * in it too. There is one of a state at a time. Freeing one that is not finished is giving it up.
 * Return of state_copy_new(): 0, STATE_E_BUSY, negative errno; of state_copy_step(), which copies at most
 * n bytes: 0, STATE_E_MORE, negative errno. */
typedef struct StateCopy StateCopy;
int state_copy_new(StateCopy **ret, State *state);
StateCopy *state_copy_free(StateCopy *copy);
int state_copy_step(StateCopy *copy, size_t n);

DEFINE_CLEANUP(StateCopy, state_copy_free);

/* It is whole: seals it against every change. *ret_fd is the caller's. Return: 0, or a negative errno. */
int state_copy_finish(StateCopy *copy, int *ret_fd, uint64_t *ret_size);

/* For tests: is called after each store into any state's memory. NULL: nobody is. */
typedef void (*StateSpy)(void *userdata, uint64_t offset, const void *data, size_t n);
void state_spy(StateSpy fn, void *userdata);

#endif
