/* Persist: see the header for the model. */

#include "core/persist.h"

#include <string.h>

_Static_assert(SAVED_BYTES_MAX == STATE_RECORD_MAX, "a record of the longest kind is a record");

/* -- what is saved ------------------------------------------------------------------------ */

void persist_directory(const Directory *directory, SavedDirectory *ret) {
        const Node *node = &directory->node;

        *ret = (SavedDirectory){
                .id = node->record.id,
                .parent = node->parent ? node->parent->node.record.id : 0,
                .created_ns = directory->created_ns,
                .ruled = !list_is_empty(&directory->ruled),
                .paid = directory->charge.account,
                .payer = directory->charge.account ? directory->charge.account->uid : 0,
                .n_name = node->n_name,
        };
        saved_from_permissions(&directory->permissions, &ret->permissions);
        saved_from_defaults(&directory->default_acl, &ret->defaults);
        memcpy(ret->max, directory->account->max, sizeof(ret->max));
        memcpy(ret->own_max, directory->own_max, sizeof(ret->own_max));
        memcpy(ret->name, node_name(node), node->n_name);
}

void persist_name(const Node *name, SavedName *ret) {
        *ret = (SavedName){
                .id = name->record.id,
                .directory = name->parent->node.record.id,
                .region = name->region->id,
                .expires_at = name->expiry ? name->expiry->deadline.at : 0,
                .n_name = name->n_name,
        };
        memcpy(ret->name, node_name(name), name->n_name);
}

void persist_region(const Region *region, SavedRegion *ret) {
        *ret = (SavedRegion){
                .id = region->id,
                .size = region->size,
                .created_ns = region->created_ns,
                .inode = region->inode,
                .payer = region->charge.account->uid,
                .huge_shift = region->huge_shift,
                .lifetime = region->lifetime,
                .state = region->state,
                .freezable = region->freezable,
                .published = region->published,
                .told_frozen = region->told_frozen,
                .is_bell = region->is_bell,
                .polled = region->polled,
                .rings_for = region_rings_for(region) ? region_rings_for(region)->id : 0,
                .session = region_more(region)->session_number,
                .ended = region->grants.granted - region->grants.n,
                .revoked = region->revoked,
        };
        saved_from_permissions(&region->permissions, &ret->permissions);
}

void persist_ticket(const Ticket *ticket, SavedTicket *ret) {
        *ret = (SavedTicket){
                .id = ticket->id,
                .region = ticket->region->id,
                .until = ticket->spec.until,
                .issuer = ticket->charge.account->uid,
                .uid = ticket->spec.one_user ? ticket->spec.uid : 0,
                .uses = ticket->spec.uses,
                .left = ticket->left,
                .writable = ticket->spec.writable,
                .one_user = ticket->spec.one_user,
        };
        memcpy(ret->digest, ticket->digest, sizeof(ret->digest));
}

void persist_grant(const Grant *grant, SavedGrant *ret) {
        *ret = (SavedGrant){
                .id = grant->id,
                .region = grant->region->id,
                .born = grant->born,
                .pidfd_ino = grant->pidfd_ino,
                .uid = grant->uid,
                .pid = (uint32_t)grant->pid,
                .writable = grant->writable,
                .marked = grant->marked,
                .ticket = grant->ticket,
                .session = grant->session,
                .again = grant->n - 1,
        };
}

/* -- records ------------------------------------------------------------------------------ */

static size_t encode_directory(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        SavedDirectory saved;

        persist_directory((const Directory *)list_entry(record, const Node, record), &saved);
        return saved_encode_directory(&saved, data);
}

static size_t encode_name(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        SavedName saved;

        persist_name(list_entry(record, const Node, record), &saved);
        return saved_encode_name(&saved, data);
}

static size_t encode_region(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        SavedRegion saved;

        persist_region(list_entry(record, const Region, record), &saved);
        return saved_encode_region(&saved, data);
}

static size_t encode_ticket(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        SavedTicket saved;

        persist_ticket(list_entry(record, const Ticket, record), &saved);
        return saved_encode_ticket(&saved, data);
}

static size_t encode_grant(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        SavedGrant saved;

        persist_grant(list_entry(record, const Grant, record), &saved);
        return saved_encode_grant(&saved, data);
}

static size_t encode_counters(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        SavedCounters saved;

        counters_save(list_entry(record, const Counters, record), &saved);
        return saved_encode_counters(&saved, data);
}

static size_t encode_policy(const StateRecord *record, uint8_t data[STATE_RECORD_MAX]) {
        return saved_encode_policy(&list_entry(record, const PersistPolicy, record)->saved, data);
}

void persist_register(State *state) {
        state_set_encoder(state, STATE_COUNTERS, encode_counters);
        state_set_encoder(state, STATE_POLICY, encode_policy);
        state_set_encoder(state, STATE_DIRECTORY, encode_directory);
        state_set_encoder(state, STATE_REGION, encode_region);
        state_set_encoder(state, STATE_NAME, encode_name);
        state_set_encoder(state, STATE_TICKET, encode_ticket);
        state_set_encoder(state, STATE_GRANT, encode_grant);
}
