/* Upgrade: the broker asks its keeper for another broker.
 *
 * The keeper first has the new program check its configuration. While it does, the request is pending:
 * it is answered when this broker is told to stop, which is the beginning of the upgrade, or refused
 * when it is told that nothing comes of it. Whoever connects after the answer is served by the broker
 * after this one.
 */

#include "broker/request.h"

/* The keeper gives up sooner. */
#define UPGRADE_TIME (90 * NSEC_PER_SEC)

void upgrade_drop(Upgrade *upgrade) {
        list_unlink(&upgrade->link);
        deadline_disarm(&upgrade->deadline);
        charge_release(&upgrade->charge);
}

static void refuse(Peer *peer, uint32_t error, uint32_t reason, const char *sentence) {
        Refusal refusal;

        audit_refuse(&refusal, error, reason, NULL, 0, "%s", sentence);
        peer_refuse(peer, MESSAGE_UPGRADE, peer->upgrade.serial, &refusal, &peer->upgrade.charge);
        upgrade_drop(&peer->upgrade);
}

static void upgrade_expired(Deadline *deadline, void *userdata) {
        (void)deadline;
        refuse(userdata, SHMD__ERROR__ERROR_TIMEOUT, SHMD__REASON__REASON_DEADLINE, "the keeper says nothing of it");
}

void upgrades_begin(Broker *broker) {
        Shmd__Done done = SHMD__DONE__INIT;
        Peer *peer;

        while ((peer = list_first(&broker->upgrades, Peer, upgrade.link))) {
                peer_answer(peer, MESSAGE_UPGRADE, peer->upgrade.serial, &done.base, &peer->upgrade.charge);
                upgrade_drop(&peer->upgrade);
        }
}

void upgrades_refuse(Broker *broker) {
        Peer *peer;

        while ((peer = list_first(&broker->upgrades, Peer, upgrade.link)))
                refuse(peer, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_KEEPER,
                       "the program that would take over does not accept the configuration: the log says why");
}

int request_upgrade(Request *request) {
        static const Cost cost = { .slots = { [ACCOUNT_PENDING] = 1 } };
        Broker *broker = request->broker;
        Upgrade *upgrade = &request->peer->upgrade;
        Shortage shortage;

        if (!broker->options->upgrade)
                return request_refuse(request, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_KEEPER, NULL, 0,
                                      "the broker has no keeper: it has to be restarted, and loses what it has");
        if (deadline_is_armed(&upgrade->deadline))
                return request_refuse(request, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_KEEPER, NULL, 0,
                                      "this connection has asked for it already");
        if (account_charge(request->peer->account, &cost, &upgrade->charge, &shortage))
                return request_shortage(request, &shortage, NULL, 0);
        upgrade->serial = request->serial;
        list_append(&broker->upgrades, &upgrade->link);
        deadline_arm(&upgrade->deadline, &broker->deadlines, time_now() + UPGRADE_TIME, upgrade_expired, request->peer);
        broker->options->upgrade();
        return REQUEST_E_PENDING;
}
