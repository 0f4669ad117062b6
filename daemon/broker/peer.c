/* A peer: see the header for the model. */

#include "broker/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/audit.h"
#include "broker/request.h"
#include "util/error.h"

/* Requests answered for one peer in one turn, so that pipelining one leaves others their turns. */
#define REQUESTS_TURN 8
/* ... and at the end, of what it has sent. */
#define REQUESTS_FINISH 16
/* What is there so soon after the kernel was asked for it was there already: to fall asleep and wake up takes longer. */
#define AT_ONCE_NS (3 * NSEC_PER_USEC)
/* How often in vain it is, before it is taken for such a peer again. */
#define EAGER_MOST 4U
/* How soon a request that waits for its own client to read is asked again. */
#define HELD_MIN_NS NSEC_PER_MSEC
#define HELD_MAX_NS (100 * NSEC_PER_MSEC)
/* What the requests of one user may take of a turn. */
#define USER_TURN_NS NSEC_PER_MSEC

static int peer_compare(Peer *a, Peer *b) {
        return a->id < b->id ? -1 : a->id > b->id;
}

TREE_GENERATE(PeerTree, Peer, entry, peer_compare)

DEFINE_CLEANUP(Peer, peer_free);
DEFINE_CLEANUP(Account, account_unref);

Peer *peers_find(Broker *broker, uint64_t id) {
        Peer key = { .id = id };

        return RB_FIND(PeerTree, &broker->peers, &key);
}

Peer *peers_first(Broker *broker) {
        return RB_MIN(PeerTree, &broker->peers);
}

Peer *peers_next(Peer *peer) {
        return RB_NEXT(PeerTree, &peer->broker->peers, peer);
}

Asker peer_asker(const Peer *peer) {
        return (Asker){
                .account = peer->account,
                .session = peer->session->number,
                .uid = peer->cred.uid,
                .pid = peer->cred.pid,
                .pidfd_ino = peer->cred.pidfd_ino,
        };
}

/* -- ending --------------------------------------------------------------------------- */

static void peer_over(Deadline *deadline, void *userdata) {
        Peer *peer = userdata;

        if (session_wind_up(peer->session))
                (void)peer_free(peer);
        else
                deadline_arm(deadline, &peer->broker->deadlines, 0, peer_over, peer);
}

void peer_end(Peer *peer, const char *reason) {
        if (deadline_is_armed(&peer->end))
                return;
        if (reason) {
                ++peer->broker->stats.violations;
                audit_log_closed(peer->account, peer->id, peer->cred.pid, reason);
        }
        /* Not now: whoever calls may be in the middle of a list this peer is on. */
        (void)connection_read(peer->connection, false);
        deadline_arm(&peer->end, &peer->broker->deadlines, 0, peer_over, peer);
}

static void drop_held(Peer *peer) {
        list_unlink(&peer->held.link);
        if (peer->held.packet)
                explicit_bzero(peer->held.packet, peer->held.n_packet);         /* it may have a ticket in it */
        free(peer->held.packet);
        peer->held.packet = NULL;
        peer->held.sweep = 0;
        peer->held.copy = state_copy_free(peer->held.copy);
}

Peer *peer_free(Peer *peer) {
        Waiter *waiter;

        if (!peer)
                return NULL;
        (void)RB_REMOVE(PeerTree, &peer->broker->peers, peer);
        --peer->broker->n_peers;
        deadline_disarm(&peer->hello);
        deadline_disarm(&peer->end);
        drop_held(peer);
        staging_drop(&peer->staging);
        upgrade_drop(&peer->upgrade);
        while ((waiter = list_first(&peer->waiters, Waiter, link)))
                (void)waiter_free(waiter);
        peer_leave_freezes(peer);
        feed_peer_deinit(&peer->feed);
        peer->connection = connection_retire(peer->connection);
        peer->session = session_free(peer->session);
        peer->account = account_unref(peer->account);
        peercred_deinit(&peer->cred);

        /* Its descriptor is free again, and what only its departure proves can be asked. */
        if (peer->broker->listener)
                listener_resume(peer->broker->listener);
        regions_sweep(&peer->broker->regions);
        free(peer);
        return NULL;
}

/* -- turns ---------------------------------------------------------------------------- */

/* Whether the peer's user has time left in this turn. */
static bool has_time(const Peer *peer) {
        Account *account = peer->account;
        uint64_t turn = loop_turn(peer->broker->loop);

        if (account->turn.number != turn) {
                account->turn.number = turn;
                account->turn.spent = 0;
        }
        return account->turn.spent < USER_TURN_NS;
}

static void spend(const Peer *peer, uint64_t ns) {
        peer->account->turn.spent += ns;
}

/* Whether others of its user are in line since the turn before. */
static bool is_behind(const Peer *peer) {
        return peer->account->turn.behind + 1 == loop_turn(peer->broker->loop);
}

static void held_expired(Deadline *deadline, void *userdata);

static void held_arm(Broker *broker, uint64_t at) {
        if (!deadline_is_armed(&broker->retry) || broker->retry.at > at)
                deadline_arm(&broker->retry, &broker->deadlines, at, held_expired, broker);
}

/* -- reading -------------------------------------------------------------------------- */

static const char *violation_name(int r) {
        switch (r) {
        case WIRE_E_EMPTY:
                return "empty-packet";
        case WIRE_E_LOST_FDS:
                return "unwanted-descriptors";
        case WIRE_E_TOO_LARGE:
                return "too-large";
        case WIRE_E_VIOLATION:
                return "header-mismatch";
        default:
                return "receive-failed";
        }
}

/* Its next request may come so soon that it does not pay to sleep. */
static void peer_look_out(Peer *peer, uint64_t came, uint64_t answered) {
        uint64_t until = busypoll_next(&peer->poll, came, answered, peer->broker->options->busy_poll_ns);

        if (until)
                loop_stay_awake(peer->broker->loop, until);
}

/* Receives and answers one request. Return: whether the peer may go on in this turn. */
static bool peer_serve(Peer *peer, uint64_t began) {
        Broker *broker = peer->broker;
        uint64_t clock = began;
        WireHeader header;
        int r;

        r = connection_receive(peer->connection, broker->request, sizeof(broker->request), &header);
        if (r == WIRE_E_AGAIN)
                return false;
        if (r) {
                peer_end(peer, r == WIRE_E_EOF ? NULL : violation_name(r));
                return false;
        }
        r = request_dispatch(peer, &header, broker->request, &clock);
        spend(peer, clock - began);
        if (r == 0)
                peer_look_out(peer, began, clock);
        return r == 0;
}

/* Whether the peer, after its last answer, had the next request ready when the kernel was asked for it; if others were
 * served since, nobody knows. Seldom it is taken to have one, as among many that pipeline there are always others. */
static bool was_ready(Peer *peer, uint64_t now) {
        Broker *broker = peer->broker;
        uint64_t asked = loop_asked(broker->loop);

        return (broker->served_last == peer->id && asked && now - asked < AT_ONCE_NS) || ++peer->wakes == 0;
}

static void peer_serve_some(Peer *peer) {
        uint64_t now = time_now();
        bool more = peer->pipelines || was_ready(peer, now);
        unsigned int n = 0;

        peer->broker->served_last = peer->id;
        /* A recvmsg() that finds nothing costs as much as one that does, so who asks one thing at
         * a time is read from once a turn; the loop comes back if there was more. But also a peer that
         * waits for each answer may have the next request ready: on our own processor it may run before
         * we do again. It need not be so each time, as to ask the loop costs twice what is lost in vain.
         * But what others are to hear of does not wait for what comes after it. */
        while (n < REQUESTS_TURN && (n == 0 || (has_time(peer) && !feed_is_due(&peer->broker->feed))) &&
               peer_serve(peer, n == 0 ? now : time_now())) {
                ++n;
                if (!more)
                        return;
        }
        if (n > 1)
                peer->pipelines = (uint8_t)(peer->pipelines + n > EAGER_MOST ? EAGER_MOST : peer->pipelines + n - 1);
        else if (peer->pipelines > 0)
                --peer->pipelines;
}

/* Serves it, or has it stand in line. */
static void peer_serve_in_time(Peer *peer) {
        HeldRequest *held = &peer->held;

        if (has_time(peer) && !is_behind(peer)) {
                peer_serve_some(peer);
                return;
        }
        held->at = 0;
        list_append(&peer->broker->held, &held->link);
        held_arm(peer->broker, held->at);
}

static void late_expired(Deadline *deadline, void *userdata) {
        Broker *broker = userdata;
        List late = LIST_INIT(late);
        HeldRequest *held;

        (void)deadline;
        list_splice(&late, &broker->late);
        while ((held = list_first(&late, HeldRequest, link))) {
                Peer *peer = list_entry(held, Peer, held);

                list_unlink(&held->link);
                if (!deadline_is_armed(&peer->end))
                        peer_serve_in_time(peer);
        }
}

/* Who pipelines has many requests for each that another one has, and comes after all of those in a turn: else
 * they would wait for those that are served when theirs come, and for as many again. */
static void peer_readable(void *userdata) {
        Peer *peer = userdata;
        Broker *broker = peer->broker;

        if (!list_is_empty(&peer->held.link))
                return;
        if (!peer->pipelines) {
                peer_serve_in_time(peer);
                return;
        }
        list_append(&broker->late, &peer->held.link);
        if (!deadline_is_armed(&broker->late_turn))
                deadline_arm(&broker->late_turn, &broker->deadlines, 0, late_expired, broker);
}

static void peer_stalled(void *userdata) {
        peer_end(userdata, "stalled");
}

static void hello_expired(Deadline *deadline, void *userdata) {
        (void)deadline;
        peer_end(userdata, "hello-timeout");
}

/* -- requests that have to wait ---------------------------------------------------------- */

static uint64_t held_wait(const HeldRequest *held, uint64_t now) {
        uint64_t wait = (now - held->since) / 8;

        return wait < HELD_MIN_NS ? HELD_MIN_NS : wait > HELD_MAX_NS ? HELD_MAX_NS : wait;
}

int peer_hold(Peer *peer, size_t n_packet, uint64_t at) {
        HeldRequest *held = &peer->held;
        uint64_t now = time_now();
        int r;

        if (!held->packet) {
                held->packet = malloc(n_packet);
                if (!held->packet)
                        return error_origin(-ENOMEM);
                memcpy(held->packet, peer->broker->request, n_packet);
                held->n_packet = n_packet;
                held->since = now;
                /* At the end of the broker it may be in a line already. */
                list_move(&peer->broker->held, &held->link);
                r = connection_read(peer->connection, false);
                if (r)
                        return error_fold(r);
        }
        held->at = at == PEER_HOLD_GROWING ? now + held_wait(held, now) : at;
        held_arm(peer->broker, held->at);
        return 0;
}

/* Asks a request again. */
static void retry(Peer *peer) {
        Broker *broker = peer->broker;
        HeldRequest *held = &peer->held;
        uint64_t began = time_now(), clock = began;
        WireHeader header;
        int r;

        memcpy(broker->request, held->packet, held->n_packet);
        wire_get_header(broker->request, &header);
        r = request_dispatch(peer, &header, broker->request, &clock);
        spend(peer, clock - began);
        if (r == REQUEST_E_HELD)
                return;
        drop_held(peer);
        if (r == 0 && connection_read(peer->connection, true))
                peer_end(peer, "resources");
}

static void take_turn(Peer *peer) {
        if (deadline_is_armed(&peer->end)) {
                drop_held(peer);
        } else if (peer->held.packet) {
                list_move(&peer->broker->held, &peer->held.link);
                retry(peer);
        } else {
                list_unlink(&peer->held.link);
                peer_serve_some(peer);
        }
}

static void held_expired(Deadline *deadline, void *userdata) {
        Broker *broker = userdata;
        List line = LIST_INIT(line);
        uint64_t now = time_now();
        HeldRequest *held;

        (void)deadline;
        list_splice(&line, &broker->held);
        list_for_each(held, &line, HeldRequest, link) {
                Peer *peer = list_entry(held, Peer, held);

                if (held->at > now) {
                        held_arm(broker, held->at);
                } else if (has_time(peer)) {
                        take_turn(peer);
                } else {
                        peer->account->turn.behind = loop_turn(broker->loop);
                        held_arm(broker, 0);
                }
        }
        /* Who had no turn comes before who had one. */
        list_splice(&line, &broker->held);
        list_splice(&broker->held, &line);
}

/* -- stopping ---------------------------------------------------------------------------- */

static void refuse_stopping(Peer *peer, unsigned int kind, uint64_t serial, const void *path, size_t n_path,
                            Charge *charge) {
        Refusal refusal;

        audit_refuse(&refusal, SHMD__ERROR__ERROR_SHUTDOWN, SHMD__REASON__REASON_STOPPING, path, n_path,
                     "the broker is stopping");
        peer_refuse(peer, kind, serial, &refusal, charge);
}

static void peer_finish(Peer *peer) {
        WireHeader header;
        Waiter *waiter;

        for (unsigned int i = 0; i < REQUESTS_FINISH && !peer->held.packet; ++i)
                if (!peer_serve(peer, time_now()))
                        break;
        if (peer->held.packet) {
                wire_get_header(peer->held.packet, &header);
                refuse_stopping(peer, header.kind, header.serial, NULL, 0, NULL);
                drop_held(peer);
        }
        while ((waiter = list_first(&peer->waiters, Waiter, link))) {
                refuse_stopping(peer, MESSAGE_WAIT, waiter->serial, waiter->path, waiter->n_path, &waiter->charge);
                (void)waiter_free(waiter);
        }
        peer_finish_freezes(peer);
}

void peers_finish(Broker *broker) {
        Peer *peer;

        RB_FOREACH(peer, PeerTree, &broker->peers)
                if (!deadline_is_armed(&peer->end))
                        peer_finish(peer);
}

/* -- accepting ------------------------------------------------------------------------ */

static bool is_admin(const Broker *broker, const Peercred *cred) {
        return cred->uid == 0 ||
               (broker->options->have_admin_group && peercred_in_group(cred, broker->options->admin_group));
}

Credentials peer_credentials(const Broker *broker, const Peercred *cred) {
        return (Credentials){
                .uid = cred->uid,
                .gid = cred->gid,
                .groups = cred->groups,
                .n_groups = cred->n_groups,
                .admin = is_admin(broker, cred),
        };
}

static int peer_new_consume_fd(Broker *broker, int fd, Peercred *cred, Account *account, Charge *slot) {
        CLEANUP(close_fdp) int socket = fd;
        CLEANUP(peer_freep) Peer *peer = NULL;
        int r;

        peer = malloc(sizeof(*peer));
        if (!peer)
                return error_origin(-ENOMEM);
        *peer = (Peer){ .broker = broker, .id = ++broker->last_peer, .state = PEER_NEW, .cred = *cred,
                        .account = account_ref(account), .hello = DEADLINE_NULL, .end = DEADLINE_NULL,
                        .staging = STAGING_NULL,
                        .upgrade = { .charge = CHARGE_NULL, .deadline = DEADLINE_NULL } };
        *cred = (Peercred)PEERCRED_NULL;
        peer->who = peer_credentials(broker, &peer->cred);
        list_init(&peer->waiters);
        list_init(&peer->freezes);
        list_init(&peer->upgrade.link);
        feed_peer_init(&peer->feed);
        list_init(&peer->held.link);
        (void)RB_INSERT(PeerTree, &broker->peers, peer);
        ++broker->n_peers;

        r = connection_new_consume_fd(&peer->connection, &broker->connections, steal_fd(&socket), slot,
                                      &(ConnectionEvents){ peer_readable, peer_stalled, peer });
        if (r)
                return error_fold(r);
        deadline_arm(&peer->hello, &broker->deadlines, time_now() + broker->options->hello_ns, hello_expired, peer);

        peer = NULL;            /* it is in the tree of peers and ends by itself */
        return 0;
}

/* Tells a connection that did not become a peer why, as well as it can be told. */
static void refuse_connection(Broker *broker, int fd, const Refusal *refusal) {
        Shmd__Refusal message;
        size_t n;

        audit_message(refusal, &message);
        if (message_pack(&message.base, broker->reply + sizeof(WireHeader),
                         sizeof(broker->reply) - sizeof(WireHeader), &n))
                return;
        wire_put_header(broker->reply, n + sizeof(WireHeader), MESSAGE_REFUSAL, 0, 0);
        (void)wire_send(fd, broker->reply, n + sizeof(WireHeader), NULL, 0);
}

void peer_accept_consume_fd(Broker *broker, int fd) {
        CLEANUP(close_fdp) int socket = fd;
        CLEANUP(peercred_deinit) Peercred cred = PEERCRED_NULL;
        CLEANUP(account_unrefp) Account *account = NULL;
        CLEANUP(charge_release) Charge slot = CHARGE_NULL;
        Shortage shortage;
        uid_t uid;
        int r;

        r = peercred_read(socket, &cred);
        if (r) {
                audit_log_not_accepted(&broker->accounts, (uid_t)-1,
                                       r == PEERCRED_E_UNMAPPED ? "unmapped-uid" : "credentials", r < 0 ? r : 0);
                return;
        }
        uid = cred.uid;
        r = accounts_ref_user(&broker->accounts, uid, &account);
        if (!r) {
                /* A user is in the groups of those who are connected, not of those who were. */
                if (account->used[ACCOUNT_PEERS] == 0)
                        account_forget_groups(account);
                account_meet_groups(account, cred.gid, cred.groups, cred.n_groups);
                (void)account_settle(account);
                r = account_charge(account, &connection_cost, &slot, &shortage);
        }
        if (r == ACCOUNT_E_QUOTA) {
                Refusal refusal;

                audit_shortage(&refusal, &shortage, NULL, 0);
                refuse_connection(broker, socket, &refusal);
                stats_refusal(&broker->stats, refusal.reason);
                audit_log(&refusal, account, 0, cred.pid, "connect");
                return;
        }
        if (!r)
                r = peer_new_consume_fd(broker, steal_fd(&socket), &cred, account, &slot);
        if (r)
                /* No memory, no descriptor for this one; the others are served. */
                audit_log_not_accepted(&broker->accounts, uid, "resources", r);
}
