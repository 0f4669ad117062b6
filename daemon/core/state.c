/* The state: see the header for the model.
 *
 * What is where is also kept in memory: links[] has for each cell the next one of its record, or of
 * the list of free or dropped cells it is in. So nothing that is in the map is believed after it was
 * checked once, and a commit allocates nothing and makes no system call.
 */

#include "core/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/assert.h"
#include "util/error.h"
#include "util/probe.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U         /* Linux 6.3 */
#endif

#define MAGIC "shmdstat"
#define BYTE_ORDER_MARK UINT32_C(0x01020304)
#define HEADER_BYTES 4096U
#define JOURNAL_ENTRIES 8192U
/* Cells by which it grows, 64 KiB: they are had as soon as they are asked for, and not only once they are used. */
#define STEP 1024U

typedef struct Header {
        uint8_t magic[8];
        uint32_t order;
        uint32_t version;
        uint32_t header_bytes;
        uint32_t cell_bytes;
        uint32_t journal_entries;
        uint32_t entry_bytes;
        uint64_t journal_at;
        uint64_t slab_at;
        uint8_t instance[16];
        uint64_t sum;           /* of all above */
} Header;

typedef struct Cell {
        uint64_t sum;
        uint32_t next;
        uint16_t kind;
        uint16_t n;             /* bytes of data */
        uint64_t id;
        uint8_t data[STATE_CELL_DATA];
} Cell;

typedef struct JournalHead {
        uint64_t transaction;
        uint32_t n;
        uint32_t zero;
        uint64_t sum;
} JournalHead;

typedef struct Entry {
        uint32_t number;
        uint32_t zero;
        Cell cell;
} Entry;

_Static_assert(_STATE_KIND_N <= 16, "a record has four bits for its kind");
_Static_assert(sizeof(Header) == 72 && sizeof(Cell) == STATE_CELL_BYTES && sizeof(JournalHead) == 24 &&
               sizeof(Entry) == 72, "the layout has no padding");

#define DIRTY_MAX ((UINT32_C(1) << 28) - 1)      /* and cells as well: 16 GiB of them */

#define TAKEN UINT8_MAX                 /* in heads[]: nothing begins there that can be walked to */

#define SIZE_AT 128U                    /* the number of cells, and its complement in the upper half */
#define COMMIT_AT 192U                  /* the last transaction that counts */
#define DONE_AT 200U                    /* the last one whose cells are all in their places */
#define JOURNAL_AT HEADER_BYTES
#define ENTRIES_AT (JOURNAL_AT + 64U)
#define SLAB_AT ((ENTRIES_AT + JOURNAL_ENTRIES * (uint32_t)sizeof(Entry) + 4095U) & ~4095U)

struct StateCopy {
        State *state;           /* NULL: it is gone */
        int fd;
        uint8_t *map;
        size_t n_map;
        uint64_t n;             /* bytes that are copied */
};

struct State {
        int fd;
        StateCopy *copy;        /* that is being made */
        uint8_t *map;
        size_t n_map;
        uint64_t seed;          /* of the sums: from the instance number */
        uint64_t transaction;   /* the last one */
        uint32_t n_cells;
        uint32_t cells_max;
        uint32_t *links;        /* room for as many as there can be cells, and so has dirty: what is not used
                                 * costs nothing, and growing neither moves nor copies them */
        uint8_t *heads;         /* by cell: the kind of the record that begins there; until the first commit */
        uint32_t n_heads;
        uint32_t free;
        uint32_t n_free;
        uint32_t dropped;
        uint32_t n_dropped;
        StateRecord **dirty;    /* what is marked */
        uint32_t n_dirty;
        uint64_t n_records;     /* objects that have a record here */
        bool detached;          /* freed, and here for those alone */
        uint32_t n_staged;      /* entries in the journal */
        uint64_t staged_sum;    /* theirs */
        uint64_t n_damaged;
        StateEncode encode[_STATE_KIND_N];
};

/* -- stores ----------------------------------------------------------------------------- */

static StateSpy spy;
static void *spy_userdata;

void state_spy(StateSpy fn, void *userdata) {
        spy = fn;
        spy_userdata = userdata;
}

/* What is copied already has to be copied again. */
static void store_in_copy(StateCopy *copy, uint64_t offset, const void *data, size_t n) {
        if (offset >= copy->n)
                return;
        memcpy(copy->map + offset, data, n < copy->n - offset ? n : (size_t)(copy->n - offset));
}

/* The only one that writes to the memory of a state. A death is at an instruction, so that it is enough
 * when the compiler keeps the order of calls. */
static inline void store(State *state, uint64_t offset, const void *data, size_t n) {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (n == sizeof(uint64_t)) {
                uint64_t word;

                memcpy(&word, data, sizeof(word));
                __atomic_store_n((uint64_t *)(state->map + offset), word, __ATOMIC_RELEASE);
        } else {
                memcpy(state->map + offset, data, n);
        }
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (__builtin_expect(spy != NULL, 0))
                spy(spy_userdata, offset, data, n);
        if (__builtin_expect(state->copy != NULL, 0))
                store_in_copy(state->copy, offset, data, n);
}

static void store_word(State *state, uint64_t offset, uint64_t word) {
        store(state, offset, &word, sizeof(word));
}

static uint64_t word_at(const State *state, uint64_t offset) {
        return __atomic_load_n((const uint64_t *)(state->map + offset), __ATOMIC_ACQUIRE);
}

static uint64_t cell_at(uint32_t number) {
        return SLAB_AT + (uint64_t)number * sizeof(Cell);
}

static const Cell *cell_of(const State *state, uint32_t number) {
        return (const Cell *)(state->map + cell_at(number));
}

static uint64_t entry_at(uint32_t i) {
        return ENTRIES_AT + (uint64_t)i * sizeof(Entry);
}

static const Entry *entry_of(const State *state, uint32_t i) {
        return (const Entry *)(state->map + entry_at(i));
}

/* `following` is the sum of the next cell of the record, or the state's seed. */
static uint64_t cell_sum(const Cell *cell, uint32_t number, uint64_t following) {
        return XXH3_64bits_withSeed((const uint8_t *)cell + sizeof(cell->sum), sizeof(*cell) - sizeof(cell->sum),
                                    following + number);
}

/* The journal's sum takes in what is made sure of by a sum already: each entry's number, and its cell's sum. A step
 * is a bijection of both what came before and the word, so that no word that is wrong goes by. */
static uint64_t sum_word(uint64_t sum, uint64_t word) {
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        return sum << 29 | sum >> 35;
}

static uint64_t sum_entry(uint64_t sum, const Entry *entry) {
        return sum_word(sum_word(sum, entry->number), entry->cell.sum);
}

static uint64_t sum_journal(const State *state, uint64_t transaction, uint32_t n, uint64_t sum_of_entries) {
        return sum_word(sum_word(sum_word(state->seed, transaction), n), sum_of_entries);
}

static uint64_t header_sum(const Header *header) {
        return XXH3_64bits(header, offsetof(Header, sum));
}

static uint64_t size_word(uint32_t n_cells) {
        return n_cells | (uint64_t)~n_cells << 32;
}

/* -- growth ----------------------------------------------------------------------------- */

static void push_free(State *state, uint32_t number) {
        state->links[number] = state->free;
        state->free = number;
        ++state->n_free;
}

/* Makes the file so large, with pages: a store must not fail for want of memory. */
static int allocate(int fd, uint64_t from, uint64_t to) {
        int r;

        do
                r = fallocate(fd, 0, (off_t)from, (off_t)(to - from));
        while (r < 0 && errno == EINTR);
        return r < 0 ? error_origin(-errno) : 0;
}

/* The lowest numbers shall be used first, so that the state stays dense. */
static void push_new_cells(State *state, uint32_t n_before) {
        for (uint32_t number = state->n_cells - 1; number >= n_before && number > 0; --number)
                push_free(state, number);
}

static int grow(State *state, uint32_t n_cells) {
        uint32_t n_before = state->n_cells;
        int r;

        r = allocate(state->fd, cell_at(n_before), cell_at(n_cells));
        if (r)
                return r == -ENOMEM || r == -ENOSPC ? r : STATE_E_FULL;

        store_word(state, SIZE_AT, size_word(n_cells));
        state->n_cells = n_cells;
        push_new_cells(state, n_before);
        return 0;
}

int state_make_room(State *state, uint32_t cells) {
        uint64_t wanted, n_cells;

        if (!state)
                return 0;
        /* What is marked may need a whole chain each. */
        wanted = (uint64_t)cells + (uint64_t)state->n_dirty * STATE_RECORD_CELLS;
        if (wanted <= state->n_free)
                return 0;
        n_cells = (state->n_cells + wanted - state->n_free + STEP - 1) / STEP * STEP;
        if (n_cells > state->cells_max)
                n_cells = state->cells_max;
        if (n_cells < state->n_cells + wanted - state->n_free)
                return STATE_E_FULL;
        return grow(state, (uint32_t)n_cells);
}

/* -- marks: what was changed and is not committed ---------------------------------------- */

static void mark(StateRecord *record) {
        State *state = record->state;

        if (record->dirty)
                return;
        ASSERT(state->n_dirty < state->cells_max);
        state->dirty[state->n_dirty] = record;
        record->dirty = ++state->n_dirty & DIRTY_MAX;
}

/* The last one takes its place. */
static void unmark(StateRecord *record) {
        State *state = record->state;
        StateRecord *last;

        if (!record->dirty)
                return;
        last = state->dirty[--state->n_dirty];
        state->dirty[record->dirty - 1] = last;
        last->dirty = record->dirty;
        record->dirty = 0;
}

/* -- life ------------------------------------------------------------------------------- */

static int state_alloc(State **ret, int fd) {
        State *state;

        state = calloc(1, sizeof(*state));
        if (!state) {
                (void)close_fd(fd);
                return error_origin(-ENOMEM);
        }
        state->fd = fd;
        *ret = state;
        return 0;
}

static int map_memfd(int fd, size_t n, uint8_t **ret) {
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (p == MAP_FAILED)
                return error_origin(-errno);
        *ret = p;
        return 0;
}

/* An array with an element for each cell that there may be, all zero. NULL: no memory. */
static void *map_array(const State *state, size_t size) {
        void *p = mmap(NULL, state->cells_max * size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        return p == MAP_FAILED ? NULL : p;
}

static void unmap_array(const State *state, void *array, size_t size) {
        if (array)
                (void)munmap(array, state->cells_max * size);
}

/* All that it may ever have is mapped at once: what is beyond the file's end costs nothing, and nothing
 * moves when it grows. */
static int map(State *state, uint32_t cells_max) {
        state->cells_max = cells_max > DIRTY_MAX ? DIRTY_MAX : cells_max;
        state->links = map_array(state, sizeof(*state->links));
        state->dirty = map_array(state, sizeof(*state->dirty));
        if (!state->links || !state->dirty)
                return error_origin(-ENOMEM);
        state->n_map = (size_t)cell_at(cells_max);
        return map_memfd(state->fd, state->n_map, &state->map);
}

static void set_seed(State *state, const Header *header) {
        memcpy(&state->seed, header->instance, sizeof(state->seed));
}

static int make_memfd(int *ret) {
        CLEANUP(close_fdp) int fd = -1;

        fd = memfd_create("shmd-state", MFD_CLOEXEC | MFD_ALLOW_SEALING |
                                        (probe_have(PROBE_NOEXEC_SEAL) ? MFD_NOEXEC_SEAL : 0));
        if (fd < 0 || fchmod(fd, 0600) < 0)
                return error_origin(-errno);
        *ret = steal_fd(&fd);
        return 0;
}

/* A file that can be written and cannot shrink: what is mapped stays there. Return: whether it is one. */
static bool seal(int fd) {
        int seals = fcntl(fd, F_GET_SEALS);

        if (seals < 0 || seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
                return false;
        return seals & F_SEAL_SHRINK || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0;
}

static int write_header(State *state) {
        Header header = {
                .order = BYTE_ORDER_MARK, .version = STATE_VERSION, .header_bytes = HEADER_BYTES,
                .cell_bytes = sizeof(Cell), .journal_entries = JOURNAL_ENTRIES, .entry_bytes = sizeof(Entry),
                .journal_at = JOURNAL_AT, .slab_at = SLAB_AT,
        };

        memcpy(header.magic, MAGIC, sizeof(header.magic));
        if (getrandom(header.instance, sizeof(header.instance), 0) != sizeof(header.instance))
                return error_origin(-EIO);
        header.sum = header_sum(&header);
        set_seed(state, &header);
        store(state, 0, &header, sizeof(header));
        return 0;
}

int state_new(State **ret, uint32_t cells_max) {
        CLEANUP(state_freep) State *state = NULL;
        uint32_t n_cells = cells_max < STEP ? cells_max : STEP;
        int fd = -1, r;

        ASSERT(cells_max > 1);
        r = make_memfd(&fd);
        if (!r)
                r = state_alloc(&state, fd);
        if (!r)
                r = allocate(state->fd, 0, cell_at(0));
        if (!r && !seal(state->fd))
                r = error_origin(-EIO);
        if (!r)
                r = map(state, cells_max);
        if (!r)
                r = write_header(state);
        if (!r)
                r = grow(state, n_cells);
        if (r)
                return r == STATE_E_FULL ? error_origin(-EFBIG) : r;

        *ret = state;
        state = NULL;
        return 0;
}

/* Objects do not know that their state is gone, so that the last of them has to put the light out. */
static void detach(State *state) {
        if (state->detached && state->n_records == 0)
                free(state);
}

static void unmap_copy(StateCopy *copy);

State *state_free(State *state) {
        if (!state)
                return NULL;
        while (state->n_dirty > 0)
                unmark(state->dirty[state->n_dirty - 1]);
        unmap_array(state, state->dirty, sizeof(*state->dirty));
        unmap_array(state, state->links, sizeof(*state->links));
        if (state->copy)
                unmap_copy(state->copy);
        if (state->map)
                (void)munmap(state->map, state->n_map);
        state->map = NULL;
        state->fd = close_fd(state->fd);
        free(state->heads);
        state->detached = true;
        detach(state);
        return NULL;
}

int state_fd(const State *state) {
        return state->fd;
}

void state_set_encoder(State *state, StateKind kind, StateEncode fn) {
        ASSERT(kind > STATE_MORE && kind < _STATE_KIND_N);
        state->encode[kind] = fn;
}

/* -- changes ---------------------------------------------------------------------------- */

void state_add(State *state, StateRecord *record, StateKind kind, uint64_t id) {
        if (!state)
                return;
        ASSERT(!record->state && !state->detached && kind > STATE_MORE && kind < _STATE_KIND_N);
        *record = (StateRecord){ .state = state, .id = id, .kind = (unsigned int)kind & 15 };
        ++state->n_records;
        mark(record);
}

void state_touch(StateRecord *record) {
        if (record->state && !record->state->detached)
                mark(record);
}

/* The whole chain goes to the list of what is dropped, its first cell first. */
static void drop_chain(State *state, uint32_t number) {
        uint32_t last = number, n = 1;

        if (number < state->n_heads)
                state->heads[number] = TAKEN;
        while (state->links[last]) {
                last = state->links[last];
                ++n;
        }
        state->links[last] = state->dropped;
        state->dropped = number;
        state->n_dropped += n;
}

void state_drop(StateRecord *record) {
        State *state = record->state;

        if (!state)
                return;
        unmark(record);
        if (record->cell && !state->detached)
                drop_chain(state, record->cell);
        *record = (StateRecord)STATE_RECORD_NULL;
        --state->n_records;
        detach(state);
}

bool state_is_dirty(const State *state) {
        return state && (state->n_dirty > 0 || state->dropped);
}

/* -- commit ----------------------------------------------------------------------------- */

static void apply(State *state, uint64_t transaction, uint32_t n) {
        for (uint32_t i = 0; i < n; ++i)
                store(state, cell_at(entry_of(state, i)->number), &entry_of(state, i)->cell, sizeof(Cell));
        store_word(state, DONE_AT, transaction);
}

/* When the commit word is stored it is done, whatever happens: what follows can be done again. */
static void commit_staged(State *state) {
        JournalHead head = { .transaction = ++state->transaction, .n = state->n_staged };

        head.sum = sum_journal(state, head.transaction, head.n, state->staged_sum);
        store(state, JOURNAL_AT, &head, sizeof(head));
        store_word(state, COMMIT_AT, head.transaction);
        apply(state, head.transaction, head.n);
        state->n_staged = 0;
        state->staged_sum = 0;
}

/* Only what is damaged can fill the journal: see stage_room(). */
static void stage(State *state, const Entry *entry) {
        if (state->n_staged == JOURNAL_ENTRIES)
                commit_staged(state);
        state->staged_sum = sum_entry(state->staged_sum, entry);
        store(state, entry_at(state->n_staged++), entry, sizeof(*entry));
}

/* Room in the journal for one more record. */
static void stage_room(State *state) {
        if (state->n_staged + STATE_RECORD_CELLS > JOURNAL_ENTRIES)
                commit_staged(state);
}

static uint32_t take_free(State *state) {
        uint32_t number = state->free;

        ASSERT(number);         /* room was made */
        state->free = state->links[number];
        --state->n_free;
        return number;
}

/* Gives the record a chain of n cells: those it has, more, or fewer; what is left over is dropped. */
static void fit_chain(State *state, StateRecord *record, uint32_t n, uint32_t numbers[]) {
        uint32_t number = record->cell;

        for (uint32_t i = 0; i < n; ++i) {
                numbers[i] = number ? number : take_free(state);
                number = number ? state->links[number] : 0;
        }
        if (number)
                drop_chain(state, number);
        for (uint32_t i = 0; i < n; ++i)
                state->links[numbers[i]] = i + 1 < n ? numbers[i + 1] : 0;
        record->cell = numbers[0];
}

/* The last cell first, as each one's sum is part of the one before it. */
static void stage_record(State *state, StateRecord *record) {
        uint8_t data[STATE_RECORD_MAX + STATE_CELL_DATA];
        uint32_t numbers[STATE_RECORD_CELLS];
        uint64_t following = state->seed;
        uint32_t n_cells = 1;
        size_t n;

        /* What is behind the data of a cell is zero. */
        memset(data, 0, STATE_CELL_DATA);
        n = state->encode[record->kind](record, data);
        ASSERT(n <= STATE_RECORD_MAX);
        if (n > STATE_CELL_DATA) {
                memset(data + n, 0, STATE_CELL_DATA);
                n_cells = (uint32_t)((n + STATE_CELL_DATA - 1) / STATE_CELL_DATA);
        }
        fit_chain(state, record, n_cells, numbers);
        for (uint32_t i = n_cells; i-- > 0;) {
                size_t rest = n - i * STATE_CELL_DATA;
                Entry entry = {
                        .number = numbers[i],
                        .cell.next = i + 1 < n_cells ? numbers[i + 1] : 0,
                        .cell.kind = i > 0 ? STATE_MORE : (uint16_t)record->kind,
                        .cell.n = (uint16_t)(rest < STATE_CELL_DATA ? rest : STATE_CELL_DATA),
                        .cell.id = record->id,
                };

                memcpy(entry.cell.data, data + i * STATE_CELL_DATA, STATE_CELL_DATA);
                following = entry.cell.sum = cell_sum(&entry.cell, numbers[i], following);
                stage(state, &entry);
        }
}

static void stage_dirty(State *state) {
        for (uint32_t i = 0; i < state->n_dirty; ++i) {
                stage_room(state);
                stage_record(state, state->dirty[i]);
                state->dirty[i]->dirty = 0;
        }
        state->n_dirty = 0;
}

static void stage_dropped(State *state) {
        for (uint32_t number = state->dropped; number; number = state->links[number]) {
                if (cell_of(state, number)->kind != STATE_MORE)
                        stage_room(state);
                stage(state, &(Entry){ .number = number });
        }
}

/* Only what is committed as dropped can be used again. */
static void free_dropped(State *state) {
        uint32_t number = state->dropped;

        while (number) {
                uint32_t next = state->links[number];

                push_free(state, number);
                number = next;
        }
        state->dropped = 0;
        state->n_dropped = 0;
}

static void forget_heads(State *state) {
        free(state->heads);
        state->heads = NULL;
        state->n_heads = 0;
}

void state_commit(State *state) {
        if (!state_is_dirty(state))
                return;
        stage_dirty(state);
        stage_dropped(state);
        commit_staged(state);
        free_dropped(state);
        forget_heads(state);
}

uint64_t state_commits(const State *state) {
        return state->transaction;
}

/* -- adoption --------------------------------------------------------------------------- */

static const char *check_header(const Header *header) {
        if (memcmp(header->magic, MAGIC, sizeof(header->magic)))
                return "it is no state of a broker";
        if (header->order == __builtin_bswap32(BYTE_ORDER_MARK))
                return "it was written on a machine of the other byte order";
        if (header->order != BYTE_ORDER_MARK)
                return "its header is damaged";
        if (header->version == 0)
                return "there is no version 0 of the format";
        if (header->header_bytes != HEADER_BYTES || header->cell_bytes != sizeof(Cell) ||
            header->entry_bytes != sizeof(Entry) || header->journal_entries != JOURNAL_ENTRIES ||
            header->journal_at != JOURNAL_AT || header->slab_at != SLAB_AT)
                return "its header, journal or cells have another size than those of version 1";
        if (header->sum != header_sum(header))
                return "its header is damaged";
        return NULL;
}

static bool is_newer(const Header *header) {
        return !memcmp(header->magic, MAGIC, sizeof(header->magic)) && header->order == BYTE_ORDER_MARK &&
               header->version > STATE_VERSION;
}

static bool is_zero(const uint8_t *data, size_t n) {
        return n == 0 || (data[0] == 0 && !memcmp(data, data + 1, n - 1));
}

static int read_header(int fd, Header *ret, const char **ret_sentence) {
        ssize_t n = pread(fd, ret, sizeof(*ret), 0);

        if (n < 0)
                return error_origin(-errno);
        if (n < (ssize_t)sizeof(*ret)) {
                *ret_sentence = "it is too short to be a state";
                return STATE_E_INVALID;
        }
        if (is_newer(ret)) {
                *ret_sentence = "it was written by a newer broker, in a later version of the format than 1";
                return STATE_E_NEWER;
        }
        *ret_sentence = check_header(ret);
        return *ret_sentence ? STATE_E_INVALID : 0;
}

/* How many cells there are, by the header and by the file's length. */
static int read_size(int fd, uint32_t *ret, uint64_t *ret_length, const char **ret_sentence) {
        struct stat st;
        uint64_t word;

        if (fstat(fd, &st) < 0)
                return error_origin(-errno);
        if (pread(fd, &word, sizeof(word), SIZE_AT) != sizeof(word) || size_word((uint32_t)word) != word ||
            (uint32_t)word < 2 || (uint32_t)word > DIRTY_MAX) {
                *ret_sentence = "its number of cells is damaged";
                return STATE_E_INVALID;
        }
        if ((uint64_t)st.st_size < cell_at((uint32_t)word)) {
                *ret_sentence = "it is shorter than its header says";
                return STATE_E_INVALID;
        }
        *ret = (uint32_t)word;
        *ret_length = (uint64_t)st.st_size;
        return 0;
}

/* A death in the middle of growing leaves zeros behind the last cell, and nothing else does. */
static bool is_tail_zero(const State *state, uint64_t length) {
        uint64_t from = cell_at(state->n_cells);

        if (length > state->n_map)
                length = state->n_map;
        return length <= from || is_zero(state->map + from, (size_t)(length - from));
}

/* Whether the cell of an entry is empty, or as it was written. The next one of its record, if there is one, is the
 * entry before it. */
static bool is_entry_sound(const State *state, uint32_t i) {
        const Entry *entry = entry_of(state, i);
        const Cell *cell = &entry->cell;
        uint64_t following = cell->next && i > 0 ? entry_of(state, i - 1)->cell.sum : state->seed;

        if (entry->number == 0 || entry->number >= state->n_cells || entry->zero)
                return false;
        return cell->kind == STATE_FREE ? is_zero((const uint8_t *)cell, sizeof(*cell)) :
                                          cell->sum == cell_sum(cell, entry->number, following);
}

static bool is_journal_sound(const State *state, const JournalHead *head) {
        uint64_t sum = 0;

        if (head->n == 0 || head->n > JOURNAL_ENTRIES || head->zero)
                return false;
        for (uint32_t i = 0; i < head->n; ++i) {
                if (!is_entry_sound(state, i))
                        return false;
                sum = sum_entry(sum, entry_of(state, i));
        }
        return head->sum == sum_journal(state, head->transaction, head->n, sum);
}

/* The journal is of the last transaction, whose cells may not all be in their places; or of the next one,
 * which does not count, and may be half written. So one of the words may even be wrong.
 * Return: whether the state is whole now. */
static bool replay(State *state) {
        uint64_t commit = word_at(state, COMMIT_AT), done = word_at(state, DONE_AT);
        JournalHead head;
        bool sound;

        memcpy(&head, state->map + JOURNAL_AT, sizeof(head));
        sound = is_journal_sound(state, &head);
        if (sound && head.transaction == commit) {
                apply(state, commit, head.n);
                done = commit;
        } else if (commit != done && !(sound && head.transaction == done)) {
                return false;
        } else if (commit != done) {
                store_word(state, COMMIT_AT, done);
        }
        state->transaction = done;
        return true;
}

/* Follows a chain from its first cell. Return: how many cells it has, 0 if something is wrong with it. */
static uint32_t read_chain(const State *state, uint32_t number, uint32_t numbers[STATE_RECORD_CELLS]) {
        const Cell *first = cell_of(state, number), *cell;
        uint64_t following = state->seed;
        uint32_t n = 0;

        for (cell = first;; cell = cell_of(state, number)) {
                if (n == STATE_RECORD_CELLS || state->heads[number] || cell->id != first->id ||
                    cell->n > STATE_CELL_DATA || (cell->next && cell->n < STATE_CELL_DATA) ||
                    (n > 0 && (cell->kind != STATE_MORE || cell->n == 0)))
                        return 0;
                numbers[n++] = number;
                if (!cell->next)
                        break;
                number = cell->next;
                if (number >= state->n_cells)
                        return 0;
        }
        for (uint32_t i = n; i-- > 0;) {
                cell = cell_of(state, numbers[i]);
                if (cell->sum != cell_sum(cell, numbers[i], following))
                        return 0;
                following = cell->sum;
        }
        return n;
}

static void find_record(State *state, uint32_t number) {
        uint32_t numbers[STATE_RECORD_CELLS];
        uint32_t n = read_chain(state, number, numbers);

        for (uint32_t i = 0; i < n; ++i) {
                state->heads[numbers[i]] = i == 0 ? (uint8_t)cell_of(state, number)->kind : TAKEN;
                state->links[numbers[i]] = i + 1 < n ? numbers[i + 1] : 0;
        }
}

/* What is in no record is free, or damaged: then it is dropped, and so zeroed by the next commit. */
static void find_rest(State *state) {
        for (uint32_t number = state->n_cells - 1; number > 0; --number) {
                if (state->heads[number])
                        continue;
                if (is_zero((const uint8_t *)cell_of(state, number), sizeof(Cell))) {
                        push_free(state, number);
                        continue;
                }
                ++state->n_damaged;
                state->links[number] = 0;
                drop_chain(state, number);
        }
}

static int find_records(State *state) {
        state->heads = calloc(state->n_cells, 1);
        if (!state->heads)
                return error_origin(-ENOMEM);
        state->n_heads = state->n_cells;
        for (uint32_t number = 1; number < state->n_cells; ++number) {
                uint16_t kind = cell_of(state, number)->kind;

                if (kind > STATE_MORE && kind < _STATE_KIND_N)
                        find_record(state, number);
        }
        find_rest(state);
        return 0;
}

static int adopt(State *state, uint32_t cells_max, const char **ret_sentence) {
        uint64_t length = 0;
        Header header;
        int r;

        r = read_header(state->fd, &header, ret_sentence);
        if (r)
                return r;
        if (!seal(state->fd)) {
                *ret_sentence = "its file may shrink or cannot be written: it is no memfd, or sealed otherwise";
                return STATE_E_INVALID;
        }
        r = read_size(state->fd, &state->n_cells, &length, ret_sentence);
        if (r)
                return r;
        r = map(state, cells_max > state->n_cells ? cells_max : state->n_cells);
        if (r)
                return r;
        set_seed(state, &header);
        *ret_sentence = !is_tail_zero(state, length) ? "something is behind its last cell" :
                        !replay(state) ? "its journal is damaged" : NULL;
        return *ret_sentence ? STATE_E_INVALID : find_records(state);
}

int state_adopt_consume_fd(State **ret, int fd, uint32_t cells_max, const char **ret_sentence) {
        CLEANUP(state_freep) State *state = NULL;
        int r;

        *ret_sentence = NULL;
        r = state_alloc(&state, fd);
        if (!r)
                r = adopt(state, cells_max, ret_sentence);
        if (r)
                return r;

        *ret = state;
        state = NULL;
        return 0;
}

/* The bytes of a record that was found. Return: how many. */
static size_t read_record(const State *state, uint32_t number, uint8_t data[STATE_RECORD_MAX]) {
        size_t n = 0;

        for (; number; number = state->links[number]) {
                const Cell *cell = cell_of(state, number);

                memcpy(data + n, cell->data, cell->n);
                n += cell->n;
        }
        return n;
}

int state_walk(State *state, StateKind kind, StateVisit fn, void *userdata) {
        uint8_t data[STATE_RECORD_MAX];
        int r;

        ASSERT(kind > STATE_MORE && kind < _STATE_KIND_N);
        for (uint32_t number = 1; number < state->n_heads; ++number) {
                size_t n;

                if (state->heads[number] != kind)
                        continue;
                n = read_record(state, number, data);
                r = fn(userdata, kind, cell_of(state, number)->id, number, data, n);
                if (r)
                        return r;
        }
        return 0;
}

void state_bind(State *state, StateRecord *record, StateKind kind, uint64_t id, uint32_t cell) {
        ASSERT(!record->state && cell < state->n_heads && state->heads[cell] == kind);
        *record = (StateRecord){ .state = state, .id = id, .kind = (unsigned int)kind & 15, .cell = cell };
        ++state->n_records;
}

void state_forget(State *state, uint32_t cell) {
        ASSERT(cell < state->n_heads && state->heads[cell] && state->heads[cell] != TAKEN);
        drop_chain(state, cell);
}

uint64_t state_damaged(const State *state) {
        return state->n_damaged;
}

/* -- looking ---------------------------------------------------------------------------- */

uint32_t state_cells(const State *state) {
        return state->n_cells - 1;
}

uint32_t state_cells_used(const State *state) {
        return state->n_cells - 1 - state->n_free - state->n_dropped;
}

/* -- copies ----------------------------------------------------------------------------- */

int state_copy_new(StateCopy **ret, State *state) {
        CLEANUP(state_copy_freep) StateCopy *copy = NULL;
        int r;

        if (state->copy)
                return STATE_E_BUSY;
        copy = calloc(1, sizeof(*copy));
        if (!copy)
                return error_origin(-ENOMEM);
        copy->fd = -1;
        r = make_memfd(&copy->fd);
        if (!r)
                r = map_memfd(copy->fd, state->n_map, &copy->map);
        if (r)
                return r;
        copy->n_map = state->n_map;
        copy->state = state;
        state->copy = copy;

        *ret = copy;
        copy = NULL;
        return 0;
}

static void unmap_copy(StateCopy *copy) {
        if (copy->map)
                (void)munmap(copy->map, copy->n_map);
        copy->map = NULL;
        if (copy->state)
                copy->state->copy = NULL;
        copy->state = NULL;
}

StateCopy *state_copy_free(StateCopy *copy) {
        if (!copy)
                return NULL;
        unmap_copy(copy);
        copy->fd = close_fd(copy->fd);
        free(copy);
        return NULL;
}

int state_copy_step(StateCopy *copy, size_t n) {
        uint64_t end = copy->state ? cell_at(copy->state->n_cells) : 0;
        int r;

        if (!copy->state)
                return error_origin(-ESTALE);
        if (n > end - copy->n)
                n = (size_t)(end - copy->n);
        if (n > 0) {
                r = allocate(copy->fd, copy->n, copy->n + n);
                if (r)
                        return r;
                memcpy(copy->map + copy->n, copy->state->map + copy->n, n);
                copy->n += n;
        }
        return copy->n < end ? STATE_E_MORE : 0;
}

int state_copy_finish(StateCopy *copy, int *ret_fd, uint64_t *ret_size) {
        ASSERT(copy->state && copy->n == cell_at(copy->state->n_cells));
        unmap_copy(copy);
        if (fcntl(copy->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
                return error_origin(-errno);
        *ret_fd = steal_fd(&copy->fd);
        *ret_size = copy->n;
        return 0;
}
