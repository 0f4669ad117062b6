/* Clients of three users create, link, rename, open, map, fork, pass on and unlink as they please, and
 * in each round one process is killed at a random instant. After every hundred rounds the broker's
 * books must say what is true, as two sources have it that know nothing of its own way to find out:
 *
 *   - a ledger of names, kept by the clients in memory they share with the test. A client writes
 *     "doubtful" before it asks for a change of a name and the outcome when it knows it. If it dies
 *     in between, nobody touches that name until the broker is done with the connection, and then
 *     the test takes it away, whether it is there or not.
 *   - a census of who has which region open or mapped (lib/census.h). Clients stand still then, so
 *     that nothing is in flight from the broker, and what they passed to each other and nobody has
 *     received yet is taken out of the sockets first.
 *
 * A region is charged, and listed, if and only if it has a name or somebody has it; a counted one, only
 * if somebody has it. Its size says whose it is: its pages modulo the number of users. So also those
 * are known whose maker died before it could say what it got. Then all are killed that have copies
 * and no connection, when the broker has no other reason any more to look around than what the
 * kernel tells it, and it is compared again. The seed repeats the choices, not the instants.
 */

#define TEST_TIMEOUT 1200

#include "lib/census.h"
#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
        USERS = 3,
        WORKERS = 6,            /* two of each user */
        NAMES = 8,              /* of each worker */
        HELD = 12,              /* by each worker */
        HEIRS = 24,             /* processes that workers forked, at once */
        CHECK_EVERY = 100,
        LOOKED_AROUND_MS = 120, /* after a departure */
};

/* Tight enough to be met now and then. */
static const char limits[] = "[account]\nbytes = 1M\nregions = 40\ngrants = 100";

static const uid_t uids[USERS] = { ALICE, BOB, CAROL };

typedef enum NameState {
        FREE,
        DOUBTFUL,
        THERE,
} NameState;

typedef struct Name {
        _Atomic int state;
        uint32_t lifetime;
        uint64_t inode;
        uint64_t size;
} Name;

/* What happened, for the last line and to see that it did. */
typedef enum Event {
        CREATED, OPENED, PASSED, RECEIVED, MAPPED, FORKED, UNLINKED, REPLACED, LINKED, MOVED, REFUSED, _EVENTS,
} Event;

static const char *const event_names[_EVENTS] = {
        "created", "opened", "passed on", "received", "mapped", "forked", "unlinked", "replaced", "linked",
        "moved", "refused",
};

/* Shared by all processes. */
typedef struct Ledger {
        Name names[WORKERS][NAMES];
        _Atomic bool still;                     /* everybody shall stand still */
        _Atomic bool stands[WORKERS];
        _Atomic pid_t heirs[HEIRS];             /* 0: free */
        _Atomic uint64_t events[_EVENTS];
} Ledger;

typedef struct Chaos {
        pid_t test;
        Broker *broker;
        Client *admin;
        Ledger *ledger;
        pid_t group;                            /* of all clients; its leader does nothing */
        pid_t workers[WORKERS];
        int inboxes[WORKERS][2];                /* [0] is read, [1] is written by everybody */
        uint64_t random;
        uint64_t n_orphans, n_mapped_only;      /* seen in all censuses */
        int64_t longest_ms;                     /* until the books were true */
} Chaos;

/* -- a client ------------------------------------------------------------------------- */

typedef struct Held {
        int fd;
        char *memory;                           /* NULL: not mapped */
        size_t length;
} Held;

typedef struct Worker {
        Chaos *chaos;
        Ledger *ledger;
        int index;
        uint64_t random;
        Client *client;
        Held held[HELD];
} Worker;

static uint64_t any(Worker *worker, uint64_t n) {
        return test_random(&worker->random, n);
}

static void count(Worker *worker, Event event) {
        (void)atomic_fetch_add(&worker->ledger->events[event], 1);
}

static void let_go(Held *held) {
        held->fd = close_fd(held->fd);
        if (held->memory)
                REQUIRE(munmap(held->memory, held->length) == 0);
        held->memory = NULL;
}

/* A place for one more, given up by another if need be. */
static Held *make_room(Worker *worker) {
        Held *held = &worker->held[any(worker, HELD)];

        let_go(held);
        return held;
}

/* A process that was forked and has what its parent had, for a while or until it is killed. */
static void be_heir(Worker *worker) {
        struct timespec t = { .tv_nsec = (long)any(worker, 60000000) };
        bool stay = any(worker, 4) == 0;
        size_t i;

        for (i = 0; i < HEIRS; ++i) {
                pid_t none = 0;

                if (atomic_compare_exchange_strong(&worker->ledger->heirs[i], &none, getpid()))
                        break;
        }
        test_end_with(worker->chaos->test);
        worker->client->fd = close_fd(worker->client->fd);
        for (size_t k = 0; k < WORKERS; ++k)
                for (size_t end = 0; end < 2; ++end)
                        close_fd(worker->chaos->inboxes[k][end]);
        if (any(worker, 2))
                for (size_t k = 0; k < HELD; ++k)
                        if (worker->held[k].memory)
                                worker->held[k].fd = close_fd(worker->held[k].fd);
        if (i < HEIRS)
                do
                        (void)nanosleep(&t, NULL);
                while (stay);
        _exit(0);
}

/* The child becomes the test's own, so that its number is nobody else's until the test has waited. */
static void fork_heir(Worker *worker) {
        long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);

        REQUIRE(pid >= 0, "%s", strerror(errno));
        if (pid == 0)
                be_heir(worker);
        (void)any(worker, 1);           /* not the same choices as its heir */
        count(worker, FORKED);
}

static const char *path_of(int worker, uint64_t slot) {
        static char path[32];

        (void)snprintf(path, sizeof(path), "/%d-%d", worker, (int)slot);
        return path;
}

static Name *name_of(Worker *worker, uint64_t slot) {
        return &worker->ledger->names[worker->index][slot];
}

static uint64_t any_size(Worker *worker) {
        uint64_t pages = USERS * any(worker, 8) + (uint64_t)(worker->index % USERS) + 1;

        return pages * PAGE - any(worker, PAGE);
}

static int owner_of(uint64_t size) {
        return (int)(((size + PAGE - 1) / PAGE - 1) % USERS);
}

/* A refusal that may happen to anybody here. */
static bool refused(Worker *worker, uint32_t error) {
        if (error == 0)
                return false;
        REQUIRE(error == SHMD__ERROR__ERROR_QUOTA || error == SHMD__ERROR__ERROR_NOT_FOUND ||
                error == SHMD__ERROR__ERROR_EXISTS, "%s", client_describe(worker->client));
        count(worker, REFUSED);
        return true;
}

static uint64_t inode_of(int fd) {
        struct stat st;

        REQUIRE(fstat(fd, &st) == 0);
        return st.st_ino;
}

static void name_is_there(Name *name, const Grant *grant, uint32_t lifetime) {
        name->lifetime = lifetime;
        name->inode = inode_of(grant->fd);
        name->size = grant->size;
        atomic_store(&name->state, THERE);
}

static void create_named(Worker *worker, uint64_t slot) {
        Name *name = name_of(worker, slot);
        Held *held = make_room(worker);
        Grant grant = GRANT_NULL;
        uint32_t lifetime = (uint32_t)any(worker, 3);

        atomic_store(&name->state, DOUBTFUL);
        if (refused(worker, call_create_with(worker->client,
                                             REQUEST(Create, create, .path = BYTES(path_of(worker->index, slot)),
                                                     .size = any_size(worker), .mode = 0666, .rights = READ_WRITE,
                                                     .lifetime = lifetime),
                                             &grant))) {
                atomic_store(&name->state, FREE);
                return;
        }
        name_is_there(name, &grant, lifetime);
        held->fd = grant.fd;
        count(worker, CREATED);
}

/* Without a name; half of them get one that another may have had until then. */
static void create_unnamed(Worker *worker, uint64_t slot) {
        Name *name = name_of(worker, slot);
        Held *held = make_room(worker);
        Grant grant = GRANT_NULL;

        if (refused(worker, call_create_mode(worker->client, NULL, any_size(worker), 0666, &grant)))
                return;
        held->fd = grant.fd;
        count(worker, CREATED);
        if (any(worker, 2))
                return;
        atomic_store(&name->state, DOUBTFUL);
        client_expect_done(worker->client,
                           call_publish(worker->client, grant.region, path_of(worker->index, slot),
                                        SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE));
        name_is_there(name, &grant, SHMD__LIFETIME__LIFETIME_NAMED);
        count(worker, REPLACED);
}

static void unlink_name(Worker *worker, uint64_t slot) {
        Name *name = name_of(worker, slot);
        bool counted = name->lifetime == SHMD__LIFETIME__LIFETIME_COUNTED;
        uint32_t error;

        atomic_store(&name->state, DOUBTFUL);
        error = call_unlink(worker->client, path_of(worker->index, slot));
        REQUIRE(error == 0 || (counted && error == SHMD__ERROR__ERROR_NOT_FOUND), "%s",
                client_describe(worker->client));
        atomic_store(&name->state, FREE);
        count(worker, UNLINKED);
}

/* What one name leads to the other leads to as well, or instead. */
static void copy_name(Name *to, const Name *from) {
        to->lifetime = from->lifetime;
        to->inode = from->inode;
        to->size = from->size;
        atomic_store(&to->state, THERE);
}

static void link_name(Worker *worker, uint64_t slot, uint64_t other) {
        Name *to = name_of(worker, other);
        uint32_t error;
        char path[32];

        (void)strcpy(path, path_of(worker->index, slot));
        atomic_store(&to->state, DOUBTFUL);
        error = client_call(worker->client, MESSAGE_LINK,
                            REQUEST(Link, link, .path = BYTES(path), .to = BYTES(path_of(worker->index, other))));
        if (refused(worker, error)) {
                atomic_store(&to->state, FREE);
                return;
        }
        copy_name(to, name_of(worker, slot));
        count(worker, LINKED);
}

/* To a free name, or changes places with another. */
static void rename_name(Worker *worker, uint64_t slot, uint64_t other) {
        Name *from = name_of(worker, slot), *to = name_of(worker, other), old_from = { .size = 0 }, old_to = old_from;
        bool exchange = atomic_load(&to->state) == THERE;
        char path[32];

        copy_name(&old_from, from);
        copy_name(&old_to, to);
        (void)strcpy(path, path_of(worker->index, slot));
        atomic_store(&from->state, DOUBTFUL);
        atomic_store(&to->state, DOUBTFUL);
        if (refused(worker, client_call(worker->client, MESSAGE_RENAME,
                                        REQUEST(Rename, rename, .path = BYTES(path),
                                                .to = BYTES(path_of(worker->index, other)),
                                                .flags = exchange ? SHMD__RENAME_FLAGS__RENAME_EXCHANGE : 0)))) {
                /* Taken by what a dead predecessor's session leaves in a moment, or gone by itself. */
                copy_name(from, &old_from);
                if (exchange)
                        copy_name(to, &old_to);
                else
                        atomic_store(&to->state, FREE);
                return;
        }
        copy_name(to, &old_from);
        if (exchange)
                copy_name(from, &old_to);
        else
                atomic_store(&from->state, FREE);
        count(worker, MOVED);
}

static void change_name(Worker *worker) {
        uint64_t slot = any(worker, NAMES), other = any(worker, NAMES);
        int state = atomic_load(&name_of(worker, slot)->state);
        int others = atomic_load(&name_of(worker, other)->state);

        if (state == DOUBTFUL || others == DOUBTFUL)
                return;
        if (state == THERE && slot != other && any(worker, 2)) {
                if (others == FREE && any(worker, 2))
                        link_name(worker, slot, other);
                else
                        rename_name(worker, slot, other);
        } else if (any(worker, 3) == 0)
                create_unnamed(worker, slot);
        else if (state == FREE)
                create_named(worker, slot);
        else
                unlink_name(worker, slot);
}

static void open_any(Worker *worker) {
        Held *held = make_room(worker);
        Grant grant = GRANT_NULL;

        if (refused(worker, call_open(worker->client, path_of((int)any(worker, WORKERS), any(worker, NAMES)),
                                      any(worker, 2) ? READ_ONLY : READ_WRITE, &grant)))
                return;
        held->fd = grant.fd;
        count(worker, OPENED);
}

/* Maps it, writes into it if that is allowed, and may keep no more than the mapping. */
static void map_one(Worker *worker, Held *held) {
        bool writable;

        if (held->fd < 0 || held->memory)
                return;
        writable = (fcntl(held->fd, F_GETFL) & O_ACCMODE) == O_RDWR;
        held->length = (size_t)lseek(held->fd, 0, SEEK_END);
        held->memory = mmap(NULL, held->length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, held->fd, 0);
        REQUIRE(held->memory != MAP_FAILED, "%s", strerror(errno));
        if (writable)
                for (size_t i = 0; i < held->length; i += PAGE)
                        held->memory[i] = 1;
        if (any(worker, 2))
                held->fd = close_fd(held->fd);
        count(worker, MAPPED);
}

static void pass_on(Worker *worker, const Held *held) {
        if (held->fd >= 0 && test_send_fd(worker->chaos->inboxes[any(worker, WORKERS)][1], held->fd))
                count(worker, PASSED);
}

static void receive(Worker *worker) {
        int fd = test_receive_fd(worker->chaos->inboxes[worker->index][0]);

        if (fd < 0)
                return;
        make_room(worker)->fd = fd;
        count(worker, RECEIVED);
}

static void stand_still(Worker *worker) {
        atomic_store(&worker->ledger->stands[worker->index], true);
        while (atomic_load(&worker->ledger->still))
                test_sleep_ms(1);
        atomic_store(&worker->ledger->stands[worker->index], false);
}

static void do_anything(Worker *worker) {
        Held *held = &worker->held[any(worker, HELD)];
        uint64_t what = any(worker, 100);

        if (what < 30)
                change_name(worker);
        else if (what < 50)
                open_any(worker);
        else if (what < 62)
                map_one(worker, held);
        else if (what < 74)
                pass_on(worker, held);
        else if (what < 84)
                receive(worker);
        else if (what < 99)
                let_go(held);
        else
                fork_heir(worker);
}

static void be_worker(Chaos *chaos, int index, uint64_t seed) {
        Worker worker = { .chaos = chaos, .ledger = chaos->ledger, .index = index, .random = seed };
        uid_t uid = uids[index % USERS];

        close_fd(chaos->admin->fd);
        for (size_t i = 0; i < HELD; ++i)
                worker.held[i] = (Held){ .fd = -1 };
        worker.client = client_connect_as(chaos->broker, uid, uid);
        test_become(uid, uid);
        test_end_with(chaos->test);
        for (;;) {
                if (atomic_load(&worker.ledger->still))
                        stand_still(&worker);
                do_anything(&worker);
        }
}

/* -- the test --------------------------------------------------------------------------- */

/* Forks a process of the clients' group. Return: its pid; 0 in the child. */
static pid_t fork_client(Chaos *chaos) {
        pid_t pid;

        (void)fflush(NULL);
        pid = fork();
        REQUIRE(pid >= 0, "%s", strerror(errno));
        if (pid > 0 && chaos->group == 0)
                chaos->group = pid;
        (void)setpgid(pid, chaos->group);       /* in both of them, whoever is first */
        return pid;
}

static void start_worker(Chaos *chaos, int index) {
        uint64_t seed = test_random(&chaos->random, UINT32_MAX) + 1;

        atomic_store(&chaos->ledger->stands[index], false);
        chaos->workers[index] = fork_client(chaos);
        if (chaos->workers[index] == 0)
                be_worker(chaos, index, seed);
}

/* Its sessions end with it. */
static void end_sessions(Chaos *chaos, int index) {
        for (uint64_t slot = 0; slot < NAMES; ++slot) {
                Name *name = &chaos->ledger->names[index][slot];

                if (atomic_load(&name->state) == THERE && name->lifetime == SHMD__LIFETIME__LIFETIME_SESSION)
                        atomic_store(&name->state, FREE);
        }
}

static void expect_ended(int status) {
        REQUIRE((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
                "a client ended with status %#x", status);
}

/* Takes note of an end. */
static void forget(Chaos *chaos, pid_t pid, int status) {
        expect_ended(status);
        for (int i = 0; i < WORKERS; ++i) {
                if (chaos->workers[i] != pid)
                        continue;
                REQUIRE(WIFSIGNALED(status), "worker %d ended by itself", i);
                end_sessions(chaos, i);
                start_worker(chaos, i);
        }
        for (size_t i = 0; i < HEIRS; ++i)
                (void)atomic_compare_exchange_strong(&chaos->ledger->heirs[i], &(pid_t){ pid }, 0);
}

static pid_t any_client(Chaos *chaos) {
        uint64_t i = test_random(&chaos->random, WORKERS + HEIRS);
        pid_t pid = i < WORKERS ? chaos->workers[i] : atomic_load(&chaos->ledger->heirs[i - WORKERS]);

        return pid ? pid : any_client(chaos);
}

/* One round: somebody dies, after a while of which no length is special. */
static void kill_one(Chaos *chaos) {
        uint64_t most = UINT64_C(1000) << test_random(&chaos->random, 15);      /* up to 16 ms */
        struct timespec t = { .tv_nsec = (long)test_random(&chaos->random, most) };
        pid_t pid;
        int status;

        (void)nanosleep(&t, NULL);
        pid = any_client(chaos);
        REQUIRE(kill(pid, SIGKILL) == 0);
        REQUIRE(waitpid(pid, &status, 0) == pid);
        forget(chaos, pid, status);
        while ((pid = waitpid(-chaos->group, &status, WNOHANG)) > 0)
                forget(chaos, pid, status);
}

static bool all_stand(void *ledger) {
        for (int i = 0; i < WORKERS; ++i)
                if (!atomic_load(&((Ledger *)ledger)->stands[i]))
                        return false;
        return true;
}

static uint64_t count_peers(Chaos *chaos) {
        client_expect_done(chaos->admin, client_call(chaos->admin, MESSAGE_STATS, REQUEST(Stats, stats)));
        return ((Shmd__StatsReply *)chaos->admin->reply)->peers;
}

static bool only_the_test_is_there(void *chaos) {
        return count_peers(chaos) == 1;
}

static bool only_the_living_are_there(void *chaos) {
        return count_peers(chaos) == 1 + WORKERS;
}

/* Which of the doubtful names are there is known when they are not. */
static void settle_names(Chaos *chaos) {
        for (int i = 0; i < WORKERS; ++i)
                for (uint64_t slot = 0; slot < NAMES; ++slot) {
                        uint32_t error;

                        if (atomic_load(&chaos->ledger->names[i][slot].state) != DOUBTFUL)
                                continue;
                        error = call_unlink(chaos->admin, path_of(i, slot));
                        REQUIRE(error == 0 || error == SHMD__ERROR__ERROR_NOT_FOUND, "%s",
                                client_describe(chaos->admin));
                        atomic_store(&chaos->ledger->names[i][slot].state, FREE);
                }
}

enum { ORPHANS_MAX = 128 };     /* of three users with 40 regions each */

/* What there is, and what the broker says there is. */
typedef struct Books {
        uint64_t bytes[USERS];
        uint64_t regions[USERS];
        uint64_t named;
        uint64_t orphans;
        struct {
                uint64_t id;
                uint64_t size;
        } list[ORPHANS_MAX];    /* the orphans, by number */
} Books;

/* By number, whatever the order they come in. */
static void enter_orphan(Books *books, uint64_t id, uint64_t size) {
        size_t i = books->orphans++;

        REQUIRE(i < ORPHANS_MAX);
        for (; i > 0 && books->list[i - 1].id > id; --i)
                books->list[i] = books->list[i - 1];
        books->list[i].id = id;
        books->list[i].size = size;
}

static void enter(Books *books, uint64_t size) {
        int user = owner_of(size);

        books->bytes[user] += (size + PAGE - 1) / PAGE * PAGE;
        ++books->regions[user];
}

/* Return: the first name that leads to the inode, NULL without. */
static const Name *first_name(const Ledger *ledger, uint64_t inode) {
        for (int i = 0; i < WORKERS; ++i)
                for (int k = 0; k < NAMES; ++k)
                        if (ledger->names[i][k].state == THERE && ledger->names[i][k].inode == inode)
                                return &ledger->names[i][k];
        return NULL;
}

/* A name beyond the first costs a region, and no bytes. */
static void enter_name(Books *books, const Ledger *ledger, const Name *name) {
        if (first_name(ledger, name->inode) != name) {
                ++books->regions[owner_of(name->size)];
                return;
        }
        enter(books, name->size);
        ++books->named;
}

/* Names of what is counted went with the last holder. */
static void forget_unheld(Ledger *ledger, const Census *census) {
        for (int i = 0; i < WORKERS; ++i)
                for (int k = 0; k < NAMES; ++k) {
                        Name *name = &ledger->names[i][k];

                        if (name->state == THERE && name->lifetime == SHMD__LIFETIME__LIFETIME_COUNTED &&
                            !census_find(census, name->inode))
                                atomic_store(&name->state, FREE);
                }
}

static Books look(Chaos *chaos) {
        Census census = CENSUS_NULL;
        Books books = { .named = 0 };

        census_look_at_group(&census, chaos->group);
        census_look_at(&census, getpid());
        forget_unheld(chaos->ledger, &census);
        for (int i = 0; i < WORKERS; ++i)
                for (int k = 0; k < NAMES; ++k) {
                        const Name *name = &chaos->ledger->names[i][k];

                        REQUIRE(name->state != DOUBTFUL);
                        if (name->state == THERE)
                                enter_name(&books, chaos->ledger, name);
                }
        for (size_t i = 0; i < census.n; ++i) {
                chaos->n_mapped_only += census.seen[i].n_open == 0;
                if (first_name(chaos->ledger, census.seen[i].inode))
                        continue;
                enter(&books, census.seen[i].size);
                enter_orphan(&books, census.seen[i].id, census.seen[i].size);
        }
        chaos->n_orphans += books.orphans;
        census_deinit(&census);
        return books;
}

static void ask_for_orphans(Chaos *chaos, Books *books) {
        uint64_t cursor = 0;

        do {
                const Shmd__ListReply *page;

                client_expect_done(chaos->admin, client_call(chaos->admin, MESSAGE_LIST,
                                                             REQUEST(List, list, .orphan = cursor,
                                                                     .flags = SHMD__LIST_FLAGS__LIST_ORPHANS)));
                page = (Shmd__ListReply *)chaos->admin->reply;
                for (size_t i = 0; i < page->n_nodes; ++i) {
                        REQUIRE(page->nodes[i]->uid == uids[owner_of(page->nodes[i]->size)]);
                        enter_orphan(books, page->nodes[i]->region, page->nodes[i]->size);
                }
                cursor = page->orphan;
        } while (cursor);
}

static Books ask(Chaos *chaos) {
        const Shmd__DfReply *accounts;
        const Shmd__StatsReply *stats;
        Books books = { .named = 0 };

        client_expect_done(chaos->admin, client_call(chaos->admin, MESSAGE_DF,
                                                     REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNTS)));
        accounts = (Shmd__DfReply *)chaos->admin->reply;
        REQUIRE(!accounts->more);
        for (size_t i = 0; i < accounts->n_accounts; ++i)
                for (int user = 0; user < USERS; ++user)
                        for (size_t k = 0; k < accounts->accounts[i]->n_slots; ++k) {
                                const Shmd__SlotUse *use = accounts->accounts[i]->slots[k];

                                if (accounts->accounts[i]->uid != uids[user])
                                        continue;
                                if (use->slot == SHMD__SLOT__SLOT_BYTES)
                                        books.bytes[user] = use->used;
                                if (use->slot == SHMD__SLOT__SLOT_REGIONS)
                                        books.regions[user] = use->used;
                        }
        client_expect_done(chaos->admin, client_call(chaos->admin, MESSAGE_STATS, REQUEST(Stats, stats)));
        stats = (Shmd__StatsReply *)chaos->admin->reply;
        books.named = stats->named;
        /* Those that are about to be released are still there: then these are not the books to look at. */
        if (stats->regions == stats->named + stats->orphans)
                ask_for_orphans(chaos, &books);
        else
                books.orphans = stats->regions - stats->named;
        return books;
}

static void fail_about(const Books *truth, const Books *books, uint64_t round) {
        char text[512] = "";
        size_t n = 0;

        for (int i = 0; i < USERS; ++i)
                n += (size_t)snprintf(text + n, sizeof(text) - n, "\nuid %d: %" PRIu64 " bytes, %" PRIu64
                                      " regions; in the books %" PRIu64 " and %" PRIu64, (int)uids[i],
                                      truth->bytes[i], truth->regions[i], books->bytes[i], books->regions[i]);
        test_fail(__FILE__, __LINE__, "the books are the truth", " round %" PRIu64 ": %" PRIu64 " named and %" PRIu64
                  " without a name; in the books %" PRIu64 " and %" PRIu64 "%s", round, truth->named, truth->orphans,
                  books->named, books->orphans, text);
}

/* Everybody stands still meanwhile. */
static void compare(Chaos *chaos, uint64_t round) {
        int64_t begin = test_now_ms();
        Books truth = look(chaos), books;

        while (books = ask(chaos), memcmp(&truth, &books, sizeof(books)) != 0) {
                if (test_now_ms() - begin > TEST_PATIENCE_MS)
                        fail_about(&truth, &books, round);
                test_sleep_ms(1);
                truth = look(chaos);            /* heirs come to their end */
        }
        if (test_now_ms() - begin > chaos->longest_ms)
                chaos->longest_ms = test_now_ms() - begin;
}

static void kill_heirs(Chaos *chaos) {
        for (size_t i = 0; i < HEIRS; ++i) {
                pid_t pid = atomic_load(&chaos->ledger->heirs[i]);
                int status;

                if (pid == 0)
                        continue;
                REQUIRE(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
                forget(chaos, pid, status);
        }
}

/* What is in flight between clients is held by the test during a comparison, and then in flight again. */
static void check(Chaos *chaos, uint64_t round) {
        enum { IN_FLIGHT = 4096 };
        static int fds[IN_FLIGHT], inboxes[IN_FLIGHT];
        size_t n = 0;

        atomic_store(&chaos->ledger->still, true);
        REQUIRE(test_eventually(all_stand, chaos->ledger), "round %" PRIu64 ": a worker hangs", round);
        for (int i = 0; i < WORKERS; ++i)
                while ((fds[n] = test_receive_fd(chaos->inboxes[i][0])) >= 0) {
                        inboxes[n++] = i;
                        REQUIRE(n < IN_FLIGHT);
                }
        REQUIRE(test_eventually(only_the_living_are_there, chaos), "round %" PRIu64, round);
        settle_names(chaos);
        compare(chaos, round);
        test_sleep_ms(LOOKED_AROUND_MS);
        kill_heirs(chaos);
        compare(chaos, round);
        for (size_t i = 0; i < n; ++i) {
                REQUIRE(test_send_fd(chaos->inboxes[inboxes[i]][1], fds[i]));
                close_fd(fds[i]);
        }
        atomic_store(&chaos->ledger->still, false);
}

static void begin(Chaos *chaos) {
        test_needs_root();
        chaos->test = getpid();
        chaos->random = test_seed();
        chaos->broker = broker_spawn(limits);
        chaos->admin = client_connect_as(chaos->broker, 0, 0);
        chaos->ledger = mmap(NULL, sizeof(*chaos->ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(chaos->ledger != MAP_FAILED);
        for (int i = 0; i < WORKERS; ++i)
                REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chaos->inboxes[i]) == 0);
        if (fork_client(chaos) == 0) {
                test_end_with(chaos->test);
                child_close_fds_but(-1);
                for (;;)
                        (void)pause();
        }
        for (int i = 0; i < WORKERS; ++i)
                start_worker(chaos, i);
}

/* The last one goes, and nothing is left. */
static void end(Chaos *chaos) {
        Books none = { .named = 0 }, books;
        int64_t until;
        int status;
        pid_t pid;

        REQUIRE(kill(-chaos->group, SIGKILL) == 0);
        while ((pid = waitpid(-chaos->group, &status, 0)) > 0)
                expect_ended(status);
        REQUIRE(test_eventually(only_the_test_is_there, chaos));
        settle_names(chaos);
        for (int i = 0; i < WORKERS; ++i) {
                close_fd(chaos->inboxes[i][0]);
                close_fd(chaos->inboxes[i][1]);
                end_sessions(chaos, i);
                for (uint64_t slot = 0; slot < NAMES; ++slot) {
                        const Name *name = &chaos->ledger->names[i][slot];

                        /* Nobody holds what is counted any more: it goes without help. */
                        if (name->state == THERE && name->lifetime != SHMD__LIFETIME__LIFETIME_COUNTED)
                                client_expect_done(chaos->admin, call_unlink(chaos->admin, path_of(i, slot)));
                }
        }
        until = test_now_ms() + TEST_PATIENCE_MS;
        while (books = ask(chaos), memcmp(&none, &books, sizeof(books)) != 0) {
                if (test_now_ms() > until)
                        fail_about(&none, &books, UINT64_MAX);
                test_sleep_ms(1);
        }
        REQUIRE(munmap(chaos->ledger, sizeof(*chaos->ledger)) == 0);
        chaos->admin = client_free(chaos->admin);
        chaos->broker = broker_stop(chaos->broker);
}

static void report(const Chaos *chaos, uint64_t rounds, int64_t ms) {
        fprintf(stderr, "%" PRIu64 " kills in %.1f s:", rounds, (double)ms / 1000);
        for (int i = 0; i < _EVENTS; ++i) {
                fprintf(stderr, " %" PRIu64 " %s,", chaos->ledger->events[i], event_names[i]);
                REQUIRE(chaos->ledger->events[i] > 0, "nothing was %s", event_names[i]);
        }
        fprintf(stderr, " %" PRIu64 " orphans and %" PRIu64 " only mapped when counted, true within %d ms\n",
                chaos->n_orphans, chaos->n_mapped_only, (int)chaos->longest_ms);
        REQUIRE(chaos->n_orphans > 0 && (chaos->n_mapped_only > 0 || rounds < 1000));
}

TEST(chaos, the_books_are_the_truth_whoever_is_killed_whenever) {
        uint64_t rounds = test_rounds(1000);
        static Chaos chaos;
        int64_t start;

        begin(&chaos);
        start = test_now_ms();
        for (uint64_t round = 1; round <= rounds; ++round) {
                kill_one(&chaos);
                if (round % CHECK_EVERY == 0)
                        check(&chaos, round);
        }
        report(&chaos, rounds, test_now_ms() - start);
        end(&chaos);
}
