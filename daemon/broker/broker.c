/* The broker: see the header for the model. */

#include "broker/broker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "broker/burial.h"
#include "broker/peer.h"
#include "broker/recovery.h"
#include "broker/request.h"
#include "util/error.h"
#include "util/log.h"
#include "util/spare.h"

/* What one request may unpack into: eight times the largest packet. */
#define ARENA_BYTES (8 * WIRE_REQUEST_MAX)

bool broker_is_connected(uint64_t session, void *broker) {
        return sessions_find(&((Broker *)broker)->sessions, session);
}

/* -- events --------------------------------------------------------------------------- */

static void accepted(void *userdata, int fd) {
        peer_accept_consume_fd(userdata, fd);
}

static void listener_noted(void *userdata, bool paused, int error) {
        const Broker *broker = userdata;
        LogLine line;

        log_begin(&line, paused ? LOG_WARN : LOG_NOTE, paused ? "accept-paused" : "accept-resumed");
        if (paused)
                log_errno(&line, "error", error);
        log_u64(&line, "peers", broker->n_peers);
        log_u64(&line, "regions", broker->regions.n);
        log_end(&line);
}

static void inotify_ready(void *userdata) {
        Broker *broker = userdata;

        regions_dispatch(&broker->regions);
}

static void signal_ready(void *userdata) {
        Broker *broker = userdata;
        struct signalfd_siginfo info;
        LogLine line;

        if (read(broker->signal_fd, &info, sizeof(info)) != sizeof(info))
                return;
        if (info.ssi_signo == SIGUSR2) {
                upgrades_refuse(broker);
                return;
        }
        log_begin(&line, LOG_NOTE, "stopping");
        log_text(&line, "signal", sigabbrev_np((int)info.ssi_signo));
        log_end(&line);

        upgrades_begin(broker);
        peers_finish(broker);
        broker->listener = listener_free(broker->listener);
        loop_stop(broker->loop, 0);
}

/* -- saving --------------------------------------------------------------------------- */

void broker_commit(Broker *broker) {
        state_commit(broker->state);
        fdstore_flush(broker->store);
}

static void turn_over(void *userdata) {
        broker_commit(userdata);
}

void broker_leave(Broker *broker) {
        if (broker->regions.deadlines)
                stock_close(&broker->regions);
        if (broker->state)
                broker_commit(broker);
        if (broker->regions.deadlines)
                regions_forget_store(&broker->regions);
        broker->store = fdstore_free(broker->store);
        broker->state = state_free(broker->state);
        broker->regions.state = broker->grants.state = broker->tickets.state = broker->tree.state = NULL;
        broker->sessions.state = NULL;
        counters_deinit(&broker->counters);
        state_drop(&broker->policy_record.record);
}

/* -- making --------------------------------------------------------------------------- */

/* Makes a directory of the configuration, and those above it that do not exist, as the broker's. */
static int make_directory(Broker *broker, const BrokerDirectory *wanted) {
        static const Credentials root = { .uid = 0, .admin = true };
        size_t n = strlen(wanted->path);
        Directory *directory = NULL;
        Account *account;
        Shortage shortage;
        Spot spot;
        int r;

        r = tree_resolve(&broker->tree, &root, wanted->path, n, &spot);
        if (r || (spot.node && !node_is_directory(spot.node)))
                return error_origin(-EINVAL);
        if (spot.node) {
                if (broker->adopted)
                        return 0;
                directory = node_directory(spot.node);
                permissions_deinit(&directory->permissions);
                directory->permissions = permissions_copy(&wanted->permissions);
        } else {
                r = accounts_ref_user(&broker->accounts, wanted->permissions.uid, &account);
                if (r)
                        return error_fold(r);
                r = tree_mkdir(&broker->tree, &spot, account, &wanted->permissions, &shortage, &directory);
                (void)account_unref(account);
                if (r)
                        return r > 0 ? error_origin(-EINVAL) : r;
        }
        memcpy(directory->account->max, wanted->max, sizeof(wanted->max));
        node_touch(&directory->node);
        return 0;
}

/* With what the broker before left there may be no place for it any more: then it is not made. */
static void log_no_directory(const BrokerDirectory *directory) {
        LogLine line;

        log_begin(&line, LOG_WARN, "directory-missing");
        log_text(&line, "path", directory->path);
        log_text(&line, "message", "shmd.conf has it, and it cannot be made");
        log_end(&line);
}

static int make_directories(Broker *broker, const BrokerDirectory **ret_directory) {
        for (size_t i = 0; i < broker->options->n_directories; ++i) {
                const BrokerDirectory *directory = &broker->options->directories[i];
                int r = make_directory(broker, directory);

                if (r == -EINVAL && broker->adopted) {
                        log_no_directory(directory);
                } else if (r) {
                        *ret_directory = directory;
                        return r;
                }
        }
        return 0;
}

static int make_core(Broker *broker) {
        const BrokerOptions *options = broker->options;
        Permissions root = { .uid = options->uid, .gid = options->gid, .mode = options->root_mode };
        int r;

        r = tree_init(&broker->tree, &root);
        if (r)
                return error_fold(r);
        r = events_init(&broker->events, &broker->tree, &broker->deadlines, feed_ready);
        if (r)
                return error_fold(r);
        expiries_init(&broker->expiries, &broker->deadlines, region_unlink_name);
        r = regions_init(&broker->regions, &broker->deadlines, &broker->grants);
        if (r)
                return error_fold(r);
        broker->regions.stock.allowed = options->stock;
        broker->regions.bury = burial_begin;
        broker->regions.bury_userdata = broker;
        broker->regions.frozen = freeze_tell;
        broker->regions.frozen_userdata = broker;
        return arena_new(&broker->arena, ARENA_BYTES);
}

static int make_net(Broker *broker, int listen_fd) {
        CLEANUP(close_fdp) int fd = listen_fd;
        int r;

        r = loop_new(&broker->loop, &broker->deadlines);
        if (r)
                return error_fold(r);
        loop_after_turn(broker->loop, turn_over, broker);
        connections_init(&broker->connections, broker->loop, &broker->deadlines, broker->options->stall_ns);
        r = listener_new_consume_fd(&broker->listener, broker->loop, &broker->deadlines, steal_fd(&fd),
                                    &(ListenerEvents){ accepted, listener_noted, broker });
        if (r)
                return error_fold(r);
        r = source_new(&broker->signals, broker->loop, broker->signal_fd, signal_ready, broker);
        if (r)
                return error_fold(r);
        if (regions_fd(&broker->regions) >= 0)
                r = source_new(&broker->inotify, broker->loop, regions_fd(&broker->regions), inotify_ready, broker);
        return error_fold(r);
}

static void broker_freep(Broker **broker) {
        if (*broker)
                (void)broker_free(*broker);
}

int broker_new_consume_fds(Broker **ret, const BrokerOptions *options, int listen_fd, int signal_fd,
                           const BrokerDirectory **ret_directory) {
        CLEANUP(close_fdp) int fd = listen_fd;
        CLEANUP(broker_freep) Broker *broker = NULL;
        int r;

        *ret_directory = NULL;
        broker = calloc(1, sizeof(*broker));
        if (!broker) {
                (void)close_fd(signal_fd);
                return error_origin(-ENOMEM);
        }
        broker->options = options;
        broker->signal_fd = signal_fd;
        broker->stats.started = time_now();
        RB_INIT(&broker->peers);
        list_init(&broker->held);
        list_init(&broker->late);
        list_init(&broker->freezes);
        list_init(&broker->burials);
        list_init(&broker->upgrades);
        list_init(&broker->pokes);
        list_init(&broker->kept_back);
        list_init(&broker->connections.owing);
        deadlines_init(&broker->deadlines);
        sessions_init(&broker->sessions, &broker->deadlines, &broker->regions);
        accounts_init(&broker->accounts, &options->rules);
        grants_init(&broker->grants, &broker->deadlines, broker_is_connected, broker);
        tickets_init(&broker->tickets, &broker->deadlines);
        waiters_init(&broker->waiters, &broker->tree, &broker->deadlines);
        feed_init(&broker->feed, broker);
        helpers_init(&broker->helpers, &broker->deadlines, options->helper_ns);

        r = make_core(broker);
        if (!r)
                r = recovery_run_consume_fds(broker);
        if (r == RECOVERY_E_REFUSED)
                return BROKER_E_REFUSED;
        if (!r)
                r = make_net(broker, steal_fd(&fd));
        if (!r)
                r = make_directories(broker, ret_directory);
        if (r)
                return error_fold(r);

        *ret = broker;
        broker = NULL;
        return 0;
}

int broker_helper_consume_fd(Broker *broker, int helper_fd) {
        return error_fold(helpers_start_consume_fd(&broker->helpers, broker->loop, helper_fd));
}

int broker_run(Broker *broker) {
        return loop_run(broker->loop);
}

/* -- taking apart ----------------------------------------------------------------------- */

static void empty_tree(Tree *tree) {
        Directory *directory = tree->root;

        while (directory) {
                Node *node = directory_any_child(directory);

                if (!node) {
                        Directory *parent = directory->node.parent;

                        if (parent)
                                (void)tree_rmdir(tree, directory);
                        directory = parent;
                } else if (node_is_directory(node)) {
                        directory = node_directory(node);
                } else {
                        region_unlink_name(node);
                }
        }
}

bool broker_free(Broker *broker) {
        Peer *peer;
        bool balanced;

        broker_leave(broker);
        while ((peer = peers_first(broker)))
                (void)peer_free(peer);
        sessions_deinit(&broker->sessions);
        deadline_disarm(&broker->retry);
        deadline_disarm(&broker->late_turn);
        connections_deinit(&broker->connections);
        waiters_deinit(&broker->waiters);
        freezes_free(broker);
        burials_free(broker);
        feed_deinit(&broker->feed);
        broker->regions.frozen = NULL;
        events_deinit(&broker->events);
        bells_free(broker);
        helpers_deinit(&broker->helpers);
        if (broker->tree.root)
                empty_tree(&broker->tree);
        broker->inotify = source_free(broker->inotify);
        if (broker->regions.deadlines)
                regions_deinit(&broker->regions);
        if (broker->tree.root)
                tree_deinit(&broker->tree);
        if (broker->expiries.deadlines)
                expiries_deinit(&broker->expiries);
        tickets_deinit(&broker->tickets);
        grants_deinit(&broker->grants);
        broker->signals = source_free(broker->signals);
        broker->listener = listener_free(broker->listener);
        broker->loop = loop_free(broker->loop);
        broker->signal_fd = close_fd(broker->signal_fd);
        broker->arena = arena_free(broker->arena);

        balanced = accounts_are_balanced(&broker->accounts);
        if (balanced)
                accounts_deinit(&broker->accounts);
        broker->policy = policy_free(broker->policy);
        deadlines_deinit(&broker->deadlines);
        free(broker);
        spare_trim();
        return balanced;
}
