/* The broker: everything that there is one of, and how it is put together and taken apart.
 *
 * Only this layer knows both sides: the core, which has regions and names but no sockets, and
 * the net, which has packets but no regions.
 */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "acct/account.h"
#include "base/tree.h"
#include "broker/helpers.h"
#include "broker/feed.h"
#include "broker/session.h"
#include "broker/stats.h"
#include "core/counters.h"
#include "core/event.h"
#include "core/grant.h"
#include "core/persist.h"
#include "core/policy.h"
#include "core/region.h"
#include "core/state.h"
#include "core/ticket.h"
#include "core/tree.h"
#include "core/watch.h"
#include "net/connection.h"
#include "net/listener.h"
#include "net/loop.h"
#include "proto/message.h"
#include "util/deadline.h"
#include "util/fdstore.h"

/* How large the state may become: half a GiB, which is eight million things of a cell each. */
#define BROKER_STATE_CELLS_MAX (UINT32_C(1) << 23)

typedef struct Broker Broker;
typedef struct BrokerOptions BrokerOptions;
typedef struct BrokerDirectory BrokerDirectory;
typedef struct Freeze Freeze;
typedef struct Peer Peer;

/* A directory to make at start. */
struct BrokerDirectory {
        const char *path;
        Permissions permissions;
        uint64_t max[_ACCOUNT_SLOT_N];
};

#define BROKER_START_SENTENCE_MAX 192

/* What the broker before this one left, and where this one leaves it to the next. */
typedef struct BrokerStart {
        const Kept *kept;
        size_t n_kept;
        /* Opens the store; it may be that there is none. Return: 0, or a negative errno. */
        int (*open_store)(FdStore **ret, Deadlines *deadlines, size_t n_kept);
        char sentence[BROKER_START_SENTENCE_MAX];       /* why it was refused */
} BrokerStart;

/* Everything is a number by now; borrowed, must outlive the broker. */
struct BrokerOptions {
        Rules rules;            /* of the configuration */
        const BrokerDirectory *directories;
        size_t n_directories;
        uid_t uid;              /* the broker's own: owns the root directory */
        gid_t gid;
        mode_t root_mode;
        bool have_admin_group;
        gid_t admin_group;
        uint64_t wait_max_ns;
        uint64_t ticket_max_ns;
        uint64_t hello_ns;
        uint64_t stall_ns;
        uint64_t helper_ns;
        uint64_t session_grace_ns;
        uint64_t busy_poll_ns;  /* 0: peers that ask for it do not get it */
        const char *kept_by;    /* who keeps its descriptors: as DoctorReply has it */
        uint64_t restarts;
        const char *last_end;
        void (*upgrade)(void);  /* asks the keeper for it; NULL: there is no keeper */
        const char *version;
        uint64_t descriptors;   /* how many it may have open */
        uint64_t objects;       /* regions, connections and descriptors on their way, of those */
        bool stock;             /* and what is left has room for a stock of memory */
        bool landlock;          /* known once the sandbox is closed */
        BrokerStart *start;     /* NULL: nothing was left, and nothing will be */
};

RB_HEAD(PeerTree, Peer);

struct Broker {
        const BrokerOptions *options;
        Deadlines deadlines;
        Loop *loop;
        Connections connections;
        State *state;           /* owned */
        bool adopted;           /* it is the one of the broker before */
        FdStore *store;         /* owned; NULL: nothing of this broker outlives it */
        Counters counters;
        PersistPolicy policy_record;
        Accounts accounts;
        Policy *policy;         /* in force; owned. NULL: none */
        uint64_t generation;    /* counts policies */
        Tree tree;
        Grants grants;
        Regions regions;
        Expiries expiries;
        Tickets tickets;
        Waiters waiters;
        Events events;
        Feed feed;
        Helpers helpers;
        Listener *listener;
        Source *inotify;
        Source *signals;
        int signal_fd;          /* owned */
        struct PeerTree peers;
        uint64_t n_peers;
        uint64_t last_peer;
        uint64_t served_last;   /* the peer whose request was, by its id */
        Sessions sessions;
        List held;              /* peers in line for a turn, in order */
        List late;              /* peers that are served when all others of this turn were */
        List freezes;
        List burials;
        List upgrades;          /* of Peer.upgrade */
        List pokes;             /* request-bell.c: what the helper is asked to write into doorbells */
        Deadline retry;
        Deadline late_turn;
        Stats stats;
        bool changing;          /* broker/request: something is on its way from one state to the next */
        List kept_back;         /* packets that must not leave meanwhile */
        size_t n_kept_back;     /* bytes of them */
        Arena *arena;
        uint8_t request[WIRE_REQUEST_MAX];
        uint8_t reply[WIRE_REPLY_MAX];
};

enum {
        _BROKER_E_SUCCESS,
        BROKER_E_REFUSED,       /* what was left is not for this program, and stays as it is: start->sentence */
};

/* Makes a broker that listens on listen_fd and stops at a signal that signal_fd (signalfd(2))
 * reads. Both are consumed, and so is what was kept, always.
 * With what the broker before left, everything is as it was: also the policy, and directories of the
 * options are only made if they are missing.
 * Return: 0, BROKER_E_REFUSED, -EINVAL (a directory of the options is impossible: *ret_directory),
 * negative errno. */
int broker_new_consume_fds(Broker **ret, const BrokerOptions *options, int listen_fd, int signal_fd,
                           const BrokerDirectory **ret_directory);

/* Gives it a helper (helper_start()): without one, what needs it is refused. helper_fd is consumed,
 * always. Return: 0, or a negative errno. */
int broker_helper_consume_fd(Broker *broker, int helper_fd);

/* Writes what has changed to the state, as one transaction; then, and only then, others may be told of it.
 * Called before any packet leaves, and at the end of each turn. */
void broker_commit(Broker *broker);

/* Runs until a signal. Return: 0, or a negative errno that ended it. */
int broker_run(Broker *broker);

/* Nothing that happens from here on is saved: what there is now is for the next broker. The store is
 * told what it still has to be told. */
void broker_leave(Broker *broker);

/* Takes everything down, regions that are held included (their holders keep them).
 * Return: whether the books were balanced. */
bool broker_free(Broker *broker);

/* Whether there is a session of that number: for core/grant. */
bool broker_is_connected(uint64_t session, void *broker);

#endif
